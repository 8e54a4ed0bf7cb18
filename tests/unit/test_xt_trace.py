"""The kernel's lines about traced packets in iptables-legacy, as nfnetlink_log hands them over."""

from __future__ import annotations

import struct

import pytest

from diagnose.parse import nfnetlink as nl
from diagnose.parse import xt_trace
from diagnose.parse.nft_trace import Packet
from diagnose.parse.xt_trace import Entry

SYN = struct.pack(">HHIIBB", 40000, 8080, 1, 0, 0xA0, 0x02) + bytes(6)
IPV4 = bytes([0x45, 0]) + bytes(7) + b"\x06" + bytes(2) + bytes([127, 0, 0, 1]) * 2
IPV6 = b"\x60" + bytes(5) + b"\x06\x40" + (bytes(15) + b"\x01") * 2


def message(prefix: str, packet: bytes, hook: int = 1) -> bytes:
    where = struct.pack(">HBx", 0x0800, hook)
    told = nl.attribute(1, where) + nl.attribute(9, packet) + nl.text(10, prefix.encode())
    return nl.generic(2) + told


def test_a_line_tells_table_chain_place_and_packet() -> None:
    told = xt_trace.entry(message("TRACE: filter:INPUT:rule:3 ", IPV4 + SYN))
    assert told == Entry(False, "input", "filter", "INPUT", 3, Packet("syn", "127.0.0.1", 40000, "127.0.0.1", 8080))


@pytest.mark.parametrize("what", ["rule", "return", "policy"])
def test_a_chain_may_have_colons_in_its_name(what: str) -> None:
    told = xt_trace.entry(message(f"TRACE: raw:a:b:{what}:12 ", IPV6 + SYN, hook=3))
    assert told == Entry(True, "output", "raw", "a:b", 12, Packet("syn", "::1", 40000, "::1", 8080))


@pytest.mark.parametrize(
    "payload",
    [
        message("my own prefix", IPV4 + SYN),
        message("TRACE: filter:INPUT:rule:3 ", IPV4 + SYN, hook=9),
        message("TRACE: filter:INPUT:rule:3 ", b""),
        message("TRACE: filter:INPUT:rule:3 ", IPV4),
        message("TRACE: filter:INPUT:rule:x ", IPV4 + SYN),
    ],
)
def test_what_is_no_line_of_the_trace_tells_nothing(payload: bytes) -> None:
    assert xt_trace.entry(payload) is None


def test_a_torn_message_is_not_read() -> None:
    with pytest.raises(ValueError, match="torn"):
        xt_trace.entry(message("TRACE: filter:INPUT:rule:3 ", IPV4 + SYN)[:-9])
