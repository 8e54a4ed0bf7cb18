"""What the kernel tells of each traced packet: which rule matched, with which verdict (NFT_MSG_TRACE, nf_tables.h)."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from ipaddress import ip_address
from typing import Literal

from msgspec import Struct

from diagnose.parse import nfnetlink as nl
from diagnose.parse.nft import ChainKey, TableKey

PacketKind = Literal["syn", "syn-ack", "reset", "icmp", "other"]

_TCP, _ICMP, _ICMP6 = 6, 1, 58
_FIN, _SYN, _RST, _ACK = 0x01, 0x02, 0x04, 0x10
_BYPASS = 0x8000
"""NF_VERDICT_FLAG_QUEUE_BYPASS, linux/netfilter.h."""
_ICMP_ERRORS = frozenset({3, 11, 12})
_ICMP6_ERRORS = frozenset({1, 2, 3, 4})


class Code(IntEnum):
    """What a rule or policy decided (enum nft_verdicts, linux/netfilter.h)."""

    DROP = 0
    ACCEPT = 1
    STOLEN = 2
    QUEUE = 3
    REPEAT = 4
    STOP = 5
    CONTINUE = -1
    BREAK = -2
    JUMP = -3
    GOTO = -4
    RETURN = -5


class Said(IntEnum):
    """What a message is about (enum nft_trace_types)."""

    POLICY = 1
    RETURN = 2
    RULE = 3


class Packet(Struct, frozen=True):
    """The headers of a traced packet."""

    kind: PacketKind
    source: str
    source_port: int
    destination: str
    destination_port: int
    """Of an ICMP error: those of the packet that it answers, the other way round."""

    def of_connection(self, port: int) -> bool:
        """A packet of the connection from this source port, or an error that could answer one of them."""
        return self.kind == "icmp" or port in (self.source_port, self.destination_port)


class Event(Struct, frozen=True):
    """One trace message."""

    packet_id: int
    chain: ChainKey
    said: Said
    code: Code
    target: bytes
    """The chain of a jump or goto."""
    queue: int
    bypass: bool
    """The packet goes on where no program reads the queue."""
    handle: int
    """Of the rule in the copy; 0 for a policy."""
    packet: Packet | None
    """Only the first message of each walk through a base chain has the headers."""


def event(payload: bytes) -> Event:
    """The message; ValueError when it is not what nf_tables.h describes."""
    found = nl.by_type(payload, nl.GENERIC)
    try:
        said = Said(nl.number(found[4]))
        verdict = nl.by_type(found[5]) if 5 in found else {}
        raw = nl.signed(verdict[1]) if 1 in verdict else nl.signed(found[16])
        # a queue's number is in the upper half, and makes the whole negative from 32768 on
        code = Code(raw if -5 <= raw < 0 else raw & 0xFF)
        return Event(
            packet_id=nl.number(found.get(6)),
            chain=ChainKey(TableKey(payload[0], nl.name(found[1])), nl.name(found[2])),
            said=said,
            code=code,
            target=nl.name(verdict.get(2, b"")),
            queue=raw >> 16 & 0xFFFF if code is Code.QUEUE else 0,
            bypass=code is Code.QUEUE and bool(raw & _BYPASS),
            handle=nl.number(found.get(3)),
            packet=packet(found[8], found.get(9, b"")) if 8 in found else None,
        )
    except KeyError as error:
        raise ValueError(f"trace message without attribute {error}") from error


def of_connection(events: Iterable[Event], port: int) -> list[Event]:
    """The messages about packets of the connection from this source port.

    Only the first message of a packet in each base chain has its headers; the others are joined by its id.
    """
    ours: set[int] = set()
    found: list[Event] = []
    for one in events:
        if one.packet is not None:
            (ours.add if one.packet.of_connection(port) else ours.discard)(one.packet_id)
        if one.packet_id in ours:
            found.append(one)
    return found


def packet(network: bytes, transport: bytes) -> Packet | None:
    """The headers as the kernel copied them; None when they are no IP packet or too short to tell."""
    if len(network) >= 20 and network[0] >> 4 == 4:
        return _transport(network[9], network[12:16], network[16:20], transport)
    if len(network) >= 40 and network[0] >> 4 == 6:
        return _transport(network[6], network[8:24], network[24:40], transport)
    return None


def _transport(protocol: int, source: bytes, destination: bytes, transport: bytes) -> Packet | None:
    ends = str(ip_address(source)), str(ip_address(destination))
    if protocol == _TCP and len(transport) >= 14:
        ports = int.from_bytes(transport[:2], "big"), int.from_bytes(transport[2:4], "big")
        return Packet(_tcp_kind(transport[13]), ends[0], ports[0], ends[1], ports[1])
    if protocol in (_ICMP, _ICMP6) and transport:
        error = transport[0] in (_ICMP_ERRORS if protocol == _ICMP else _ICMP6_ERRORS)
        return Packet("icmp" if error else "other", ends[0], 0, ends[1], 0)
    return None


def _tcp_kind(flags: int) -> PacketKind:
    if flags & _RST:
        return "reset"
    if flags & _SYN:
        return "syn-ack" if flags & _ACK else "syn"
    return "other"
