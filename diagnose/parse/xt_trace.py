"""What the kernel tells of each traced packet in iptables-legacy: which entries matched (trace_packet, ip_tables.c)."""

from __future__ import annotations

import re

from msgspec import Struct

from diagnose.parse import nfnetlink as nl
from diagnose.parse import nft_trace
from diagnose.parse.nft import readable
from diagnose.parse.nft_trace import Packet
from diagnose.parse.xtables import HOOKS

SUBSYSTEM = 4
"""NFNL_SUBSYS_ULOG."""
PACKET, CONFIGURE = SUBSYSTEM << 8, SUBSYSTEM << 8 | 1
"""NFULNL_MSG_PACKET, NFULNL_MSG_CONFIG."""
BIND, BIND_FAMILY = 1, 3
"""NFULNL_CFG_CMD_BIND, _PF_BIND (linux/netfilter/nfnetlink_log.h)."""
_COMMAND, _MODE, _THRESHOLD = 1, 2, 5
"""NFULA_CFG_CMD, _MODE, _QTHRESH."""
_COPY_PACKET = 2
_HEADERS = 128
"""Bytes of a packet that hold its headers."""
_PACKET_HEADER, _PAYLOAD, _PREFIX = 1, 9, 10
"""NFULA_PACKET_HDR, _PAYLOAD, _PREFIX."""
MARK = b"TRACE: "
"""How the kernel begins the lines of its trace; a rule may give its own log lines any prefix."""
_LINE = re.compile(rb"TRACE: ([^:]+):(.*):(?:rule|return|policy):(\d+) \Z", re.DOTALL)


class Entry(Struct, frozen=True):
    """A packet matched an entry of a table."""

    six: bool
    hook: str
    table: str
    chain: str
    number: int
    """1-based among the entries of the chain, of which the policy or the return is the last."""
    packet: Packet


def command(number: int) -> bytes:
    """The attribute that binds a group, or a protocol family, to this kind of log."""
    return nl.attribute(_COMMAND, bytes([number]))


def headers_at_once() -> bytes:
    """The attributes that ask for the headers of each packet, without waiting for more of them."""
    mode = _HEADERS.to_bytes(4, "big") + bytes([_COPY_PACKET, 0])
    return nl.attribute(_MODE, mode) + nl.u32(_THRESHOLD, 1)


def entry(payload: bytes) -> Entry | None:
    """What a message of the log tells; None: it is no line of the trace, or about no IP packet.

    ValueError when it is torn.
    """
    found = nl.by_type(payload, nl.GENERIC)
    line = _LINE.match(nl.name(found.get(_PREFIX, b"")))
    where = found.get(_PACKET_HEADER, b"")
    data = found.get(_PAYLOAD, b"")
    if line is None or len(where) < 3 or where[2] >= len(HOOKS) or not data:
        return None
    six = data[0] >> 4 == 6
    size = 40 if six else (data[0] & 0xF) * 4
    packet = nft_trace.packet(data[:size], data[size:])
    if packet is None:
        return None
    return Entry(six, HOOKS[where[2]], readable(line[1]), readable(line[2]), int(line[3]), packet)
