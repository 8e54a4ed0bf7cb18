"""Which end opened a connection, by the kernel's own count of what was acknowledged."""

from __future__ import annotations

import struct

import pytest

from diagnose.model.network import TcpState
from diagnose.parse.tcp_info import opened_here


def info(*, sent: int = 0, again: int = 0, acked: int = 0, unacked: int = 0) -> bytes:
    """struct tcp_info with these counts."""
    return struct.pack("=24xI92xQ72xQQ", unacked, acked, sent, again)


@pytest.mark.parametrize(
    ("state", "counts", "here"),
    [
        (TcpState.ESTABLISHED, info(acked=1), True),
        (TcpState.ESTABLISHED, info(), False),
        (TcpState.ESTABLISHED, info(sent=1000, acked=1001), True),
        (TcpState.ESTABLISHED, info(sent=314848, again=14848, acked=300000), False),
        (TcpState.ESTABLISHED, info(sent=1000, acked=1000, unacked=1), None),
        (TcpState.ESTABLISHED, info(sent=1000, acked=400), None),
        (TcpState.CLOSE_WAIT, info(acked=1), True),
        (TcpState.CLOSE_WAIT, info(), False),
        (TcpState.FIN_WAIT2, info(acked=2), True),
        (TcpState.FIN_WAIT2, info(acked=1), False),
        (TcpState.FIN_WAIT1, info(), None),
        (TcpState.SYN_SENT, b"", True),
        (TcpState.SYN_RECV, b"", False),
        (TcpState.ESTABLISHED, b"\0" * 104, None),
        (TcpState.TIME_WAIT, b"", None),
    ],
)
def test_the_end_that_sent_the_syn_has_a_byte_too_many_acknowledged(
    state: TcpState, counts: bytes, here: bool | None
) -> None:
    assert opened_here(state, counts) is here
