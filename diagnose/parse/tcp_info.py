"""struct tcp_info of a connection (linux/tcp.h)."""

from __future__ import annotations

import struct

from diagnose.model.network import TcpState

_UNACKED = struct.Struct("=24xI")
_ACKED = struct.Struct("=120xQ")
_SENT = struct.Struct("=200xQQ")
"""tcpi_bytes_sent and tcpi_bytes_retrans, since Linux 4.19."""
_FIN_NOT_SENT = (TcpState.ESTABLISHED, TcpState.CLOSE_WAIT)


def opened_here(state: TcpState, info: bytes) -> bool | None:
    """Whether this end sent the SYN; None where the numbers do not settle it.

    The kernel counts an acknowledged SYN or FIN as a byte (tcp_snd_una_update), and a child of a listener starts
    behind its SYN (tcp_create_openreq_child): of two idle ends only the one that connected has a byte too many.
    """
    if state in (TcpState.SYN_SENT, TcpState.SYN_RECV):
        return state is TcpState.SYN_SENT
    if len(info) < _SENT.size:
        return None
    sent, again = _SENT.unpack_from(info)
    fin = 1 if state is TcpState.FIN_WAIT2 else 0
    above = _ACKED.unpack_from(info)[0] - (sent - again) - fin
    if above == 1:
        return True
    settled = (state in _FIN_NOT_SENT or fin) and _UNACKED.unpack_from(info)[0] == 0
    return False if settled and above == 0 else None
