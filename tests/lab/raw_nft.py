"""Makes by netlink what nft cannot name: raw_nft.py, with a JSON list of what to make on standard input.

Each entry is [kind, family, names...]: ["table", 1, T], ["chain", 1, T, C], ["base", 1, T, C, HOOK],
["ports", 1, T, SET] (a set of ports), ["port", 1, T, SET, PORT] (one more in it),
["drop", 1, T, C, PORT], ["reject", 1, T, C, PORT],
["in", 1, T, C, PORT, SET] (drops what is in the set), ["device", 1, T, C, PORT, DEVICE] (drops what came in by it),
["jump", 1, T, C, TO], ["comment", 1, T, C, PORT, COMMENT] (drops, with a comment).
Names are text; a lone surrogate stands for a byte. linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import sys
from typing import Any

_NETFILTER, _ROUTE, _SUBSYSTEM = 12, 0, 10
_TABLE, _CHAIN, _RULE, _SET, _ELEMENTS = 0, 3, 6, 9, 12
_REQUEST, _ACK, _CREATE, _APPEND = 1, 4, 0x400, 0x800
_HOOKS = {"prerouting": 0, "input": 1, "output": 3}
_TCP, _REGISTER = 6, 1


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + b"\0" * (-len(value) % 4)


def nest(kind: int, value: bytes) -> bytes:
    return attribute(kind | 0x8000, value)


def name(kind: int, value: str) -> bytes:
    return attribute(kind, os.fsencode(value) + b"\0")


def u32(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack(">I", value))


def expression(kind: str, data: bytes) -> bytes:
    return nest(1, name(1, kind) + nest(2, data))


def compare(value: bytes) -> bytes:
    return expression("cmp", u32(1, _REGISTER) + u32(2, 0) + nest(3, attribute(1, value)))


def tcp_port() -> bytes:
    """`tcp dport`, loaded."""
    protocol = expression("meta", u32(1, _REGISTER) + u32(2, 16)) + compare(bytes([_TCP]))
    return protocol + expression("payload", u32(1, _REGISTER) + u32(2, 2) + u32(3, 2) + u32(4, 2))


def verdict(code: int, chain: str = "") -> bytes:
    where = name(2, chain) if chain else b""
    return expression("immediate", u32(1, 0) + nest(2, nest(2, attribute(1, struct.pack(">i", code)) + where)))


def body(kind: str, rest: list[Any]) -> tuple[int, bytes]:
    """Which message, and what stands in it behind the table's name."""
    match kind, rest:
        case "table", []:
            return _TABLE, b""
        case "chain", [chain]:
            return _CHAIN, name(3, chain)
        case "base", [chain, hook]:
            hooked = nest(4, u32(1, _HOOKS[hook]) + u32(2, 0))
            return _CHAIN, name(3, chain) + hooked + u32(5, 1) + name(7, "filter")
        case "ports", [ports]:
            return _SET, name(2, ports) + u32(3, 0) + u32(4, 13) + u32(5, 2) + u32(10, 1)
        case "port", [ports, port]:
            key = nest(1, attribute(1, struct.pack(">H", port)))
            return _ELEMENTS, name(2, ports) + nest(3, nest(1, key))
    chain, *more = rest
    expressions, extra = rule(kind, more)
    return _RULE, name(2, chain) + nest(4, expressions) + extra


def rule(kind: str, rest: list[Any]) -> tuple[bytes, bytes]:
    """Expressions, and user data."""
    match kind, rest:
        case "jump", [to]:
            return verdict(-3, to), b""
        case "drop", [port]:
            return tcp_port() + compare(struct.pack(">H", port)) + verdict(0), b""
        case "reject", [port]:
            reset = expression("reject", u32(1, 1))
            return tcp_port() + compare(struct.pack(">H", port)) + reset, b""
        case "in", [port, ports]:
            return tcp_port() + expression("lookup", name(1, ports) + u32(2, _REGISTER)) + verdict(0), b""
        case "device", [port, device]:
            came = expression("meta", u32(1, _REGISTER) + u32(2, 6))
            came += compare(os.fsencode(device).ljust(16, b"\0"))
            return came + tcp_port() + compare(struct.pack(">H", port)) + verdict(0), b""
        case "comment", [port, comment]:
            text = os.fsencode(comment) + b"\0"
            drop = tcp_port() + compare(struct.pack(">H", port)) + verdict(0)
            return drop, attribute(7, bytes([0, len(text)]) + text)
    raise ValueError(kind)


def message(kind: int, flags: int, sequence: int, data: bytes) -> bytes:
    return struct.pack("=IHHII", 16 + len(data), kind, flags, sequence, 0) + data


def make(entries: list[list[Any]]) -> None:
    """One transaction; OSError with the first errno."""
    parts = [message(0x10, _REQUEST, 0, struct.pack(">BBH", 0, 0, _SUBSYSTEM))]
    for number, (kind, family, table, *rest) in enumerate(entries, 1):
        what, data = body(kind, rest)
        head = struct.pack(">BBH", family, 0, 0) + name(1, table)
        parts.append(message(_SUBSYSTEM << 8 | what, _REQUEST | _ACK | _CREATE | _APPEND, number, head + data))
    parts.append(message(0x11, _REQUEST, len(entries) + 1, struct.pack(">BBH", 0, 0, _SUBSYSTEM)))
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETFILTER) as sock:
        sock.settimeout(5.0)
        sock.send(b"".join(parts))
        left = {number + 1 for number in range(len(entries))}
        while left:
            data = sock.recv(1 << 16)
            while data:
                length, kind, _, sequence, _ = struct.unpack_from("=IHHII", data)
                number = -struct.unpack_from("=i", data, 16)[0]
                if kind == 2 and number:
                    raise OSError(number, os.strerror(number), f"entry {sequence}")
                left.discard(sequence)
                data = data[(length + 3) & ~3 :]


if __name__ == "__main__":
    make(json.load(sys.stdin))
