"""A socket filter, so that a busy machine's other packets never reach us (classic BPF, networking/filter.rst)."""

from __future__ import annotations

import socket
import struct
from array import array
from collections.abc import Collection

ETH_P_IP, ETH_P_IPV6 = 0x0800, 0x86DD
TCP, ICMP, ICMPV6 = 6, 1, 58
ICMP_ERRORS = (3, 4, 5, 11, 12)
"""Unreachable, source quench, redirect, time exceeded, parameter problem: they quote a packet (RFC 792)."""
ICMPV6_INFORMATIONAL = 128
"""Types below it are errors and quote a packet (RFC 4443, section 2.1)."""

SO_ATTACH_FILTER = 26
SNAP_BYTES = 262_144
LOAD_BYTE, LOAD_HALF, LOAD_HALF_AT_X, LOAD_BYTE_AT_X, HEADER_LENGTH_TO_X = 0x30, 0x28, 0x48, 0x50, 0xB1
JUMP_EQUAL, JUMP_GREATER_OR_EQUAL, RETURN = 0x15, 0x35, 0x06
SKF_AD_PROTOCOL = 0xFFFFF000
MOST_FILTERED_PORTS = 40
"""A conditional jump reaches 255 instructions: with more ports every TCP packet comes through."""

Instruction = tuple[int, int, int, int]
"""Code, jump if true, jump if false, operand."""


def program(ports: Collection[int]) -> list[Instruction]:
    """The filter for packets that begin with their network header, as a SOCK_DGRAM packet socket has them."""
    wanted = sorted(set(ports)) if len(set(ports)) <= MOST_FILTERED_PORTS else []
    ipv4 = [
        *_unless(LOAD_BYTE, 9, JUMP_EQUAL, TCP, _tcp((HEADER_LENGTH_TO_X, 0, 0, 0), LOAD_HALF_AT_X, 0, wanted)),
        *_unless(LOAD_BYTE, 9, JUMP_EQUAL, ICMP, _icmp()),
        _give(0),
    ]
    ipv6 = [
        *_unless(LOAD_BYTE, 6, JUMP_EQUAL, TCP, _tcp(None, LOAD_HALF, 40, wanted)),
        *_unless(LOAD_BYTE, 6, JUMP_EQUAL, ICMPV6, _icmpv6()),
        _give(0),
    ]
    return [
        *_unless(LOAD_HALF, SKF_AD_PROTOCOL, JUMP_EQUAL, ETH_P_IP, ipv4),
        *_unless(LOAD_HALF, SKF_AD_PROTOCOL, JUMP_EQUAL, ETH_P_IPV6, ipv6),
        _give(0),
    ]


def _unless(load: int, offset: int, jump: int, operand: int, block: list[Instruction]) -> list[Instruction]:
    """Runs the block, which returns, where the loaded value compares true; else goes on behind it."""
    return [(load, 0, 0, offset), (jump, 0, len(block), operand), *block]


def _tcp(prepare: Instruction | None, load: int, offset: int, ports: list[int]) -> list[Instruction]:
    if not ports:
        return [_give(SNAP_BYTES)]
    tests = 2 * len(ports)
    source = [(JUMP_EQUAL, tests + 1 - at, 0, port) for at, port in enumerate(ports)]
    destination = [(JUMP_EQUAL, len(ports) - at, 0, port) for at, port in enumerate(ports)]
    body = [(load, 0, 0, offset), *source, (load, 0, 0, offset + 2), *destination, _give(0), _give(SNAP_BYTES)]
    return [prepare, *body] if prepare else body


def _icmp() -> list[Instruction]:
    last = len(ICMP_ERRORS)
    tests = [(JUMP_EQUAL, last - at, 0, kind) for at, kind in enumerate(ICMP_ERRORS)]
    return [(HEADER_LENGTH_TO_X, 0, 0, 0), (LOAD_BYTE_AT_X, 0, 0, 0), *tests, _give(0), _give(SNAP_BYTES)]


def _icmpv6() -> list[Instruction]:
    informational = (JUMP_GREATER_OR_EQUAL, 0, 1, ICMPV6_INFORMATIONAL)
    return [(LOAD_BYTE, 0, 0, 40), informational, _give(0), _give(SNAP_BYTES)]


def _give(length: int) -> Instruction:
    return (RETURN, 0, 0, length)


def attach(sock: socket.socket, ports: Collection[int]) -> None:
    """Lets through, from now on, TCP from or to these ports (none: any TCP) and ICMP errors; OSError when refused."""
    instructions = program(ports)
    code = array("B", b"".join(struct.pack("=HBBI", *instruction) for instruction in instructions))
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HP", len(instructions), code.buffer_info()[0]))
