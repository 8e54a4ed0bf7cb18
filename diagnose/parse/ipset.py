"""The kernel's IP sets as they are dumped, and the requests that make them anew (linux/netfilter/ipset/ip_set.h)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from msgspec import Struct

from diagnose.parse import nfnetlink as nl
from diagnose.parse.nft import Message

SUBSYSTEM = 6
"""NFNL_SUBSYS_IPSET."""
SAVE = SUBSYSTEM << 8 | 8
_CREATE, _ADD = SUBSYSTEM << 8 | 2, SUBSYSTEM << 8 | 9
_PROTOCOL, _SETNAME, _TYPENAME, _REVISION, _FAMILY, _DATA, _ADT, _LINENO, _INDEX = 1, 2, 3, 4, 5, 7, 8, 9, 11
_HEADER = frozenset({_PROTOCOL, _SETNAME, _TYPENAME, _REVISION, _FAMILY})
_ENTRIES = frozenset({_PROTOCOL, _SETNAME})
_ADDRESSES = frozenset({1, 2, 20, 22})
"""IPSET_ATTR_IP, _IP_TO, _IP2, _IP2_TO."""
_NESTED, _NETORDER = 0x8000, 0x4000
_CREATED = frozenset(range(1, 24)) - {17}
"""Attributes of a set that its creation takes: not its use, its size in memory or its hash's start value."""
_TIMELESS = frozenset(range(1, 64)) - {6, 24, 25}
"""Attributes of an entry but its remaining time, its bytes and its packets."""
_NO_ENTRIES_YET = 18
"""IPSET_ATTR_HASHSIZE: it grows with the entries."""


class IpSet(Struct, frozen=True):
    """One set: the messages of its dump."""

    index: int
    """By which rules know it."""
    name: bytes
    header: bytes
    entries: tuple[bytes, ...]


def dump_request() -> bytes:
    """The payload that asks for every set with its entries."""
    return nl.generic(0) + nl.attribute(_PROTOCOL, b"\x07")


def sets(messages: Iterable[Message]) -> tuple[IpSet, ...]:
    """The sets in a dump; ValueError when it does not tell their indexes (kernels before 5.1) or is torn."""
    headers: dict[bytes, tuple[int, bytes]] = {}
    entries: dict[bytes, list[bytes]] = {}
    for _, body in messages:
        found = nl.by_type(body, nl.GENERIC)
        name = nl.name(found.get(_SETNAME, b""))
        if _TYPENAME in found:
            if _INDEX not in found:
                raise ValueError("the kernel does not tell the index of an IP set")
            headers[name] = nl.number(found[_INDEX]), body
        if _ADT in found:
            entries.setdefault(name, []).append(body)
    return tuple(
        IpSet(index, name, header, tuple(entries.get(name, ())))
        for name, (index, header) in sorted(headers.items(), key=lambda item: item[1][0])
    )


def clone(known: Iterable[IpSet]) -> Iterator[Message]:
    """The requests that make these sets, each with its own index: the kernel gives the lowest that is free."""
    wanted = {one.index: one for one in known}
    for index in range(max(wanted, default=-1) + 1):
        yield _CREATE, _creation(wanted[index].header) if index in wanted else _placeholder(index)
    for one in wanted.values():
        for body in one.entries:
            head = body[: nl.GENERIC] + nl.keep(body, nl.GENERIC, _ENTRIES) + nl.attribute(_LINENO, bytes(4))
            yield _ADD, head + nl.nest(_ADT, b"".join(nl.nest(_DATA, _given_back(entry)) for entry in _entries(body)))


def canonical(one: IpSet) -> tuple[object, ...]:
    """What has to be equal in a copy: all but time, counters and the size of the hash."""
    header = nl.by_type(_creation(one.header), nl.GENERIC)
    data = nl.keep(header.get(_DATA, b""), 0, _CREATED - {_NO_ENTRIES_YET})
    entries = sorted(nl.keep(entry, 0, _TIMELESS) for body in one.entries for entry in _entries(body))
    return one.index, one.name, header.get(_TYPENAME), header.get(_REVISION), header.get(_FAMILY), data, entries


def _entries(body: bytes) -> Iterator[bytes]:
    return (entry for _, entry in nl.walk(nl.by_type(body, nl.GENERIC).get(_ADT, b"")))


def _given_back(entry: bytes) -> bytes:
    """The entry as the kernel takes it: it wants addresses marked as in network order, and dumps them unmarked."""
    parts: list[bytes] = []
    for piece in nl.pieces(entry):
        kind = int.from_bytes(piece[2:4], nl.BYTE_ORDER)
        if kind & _NESTED and kind & 0xFF in _ADDRESSES:
            inner = [nl.attribute(number | _NETORDER, value) for number, value in nl.walk(piece, 4)]
            parts.append(nl.attribute(kind, b"".join(inner)))
        else:
            parts.append(piece)
    return b"".join(parts)


def _creation(body: bytes) -> bytes:
    data = nl.keep(nl.by_type(body, nl.GENERIC).get(_DATA, b""), 0, _CREATED)
    return body[: nl.GENERIC] + nl.keep(body, nl.GENERIC, _HEADER) + nl.nest(_DATA, _given_back(data))


def _placeholder(index: int) -> bytes:
    """An empty set that takes an index that the machine's sets do not use."""
    ports = nl.attribute(4 | 0x4000, b"\0\x01") + nl.attribute(5 | 0x4000, b"\0\x01")
    return (
        nl.generic(0)
        + nl.attribute(_PROTOCOL, b"\x07")
        + nl.text(_SETNAME, b"netdiag-%d" % index)
        + nl.text(_TYPENAME, b"bitmap:port")
        + nl.attribute(_REVISION, b"\x00")
        + nl.attribute(_FAMILY, b"\x00")
        + nl.nest(_DATA, ports)
    )
