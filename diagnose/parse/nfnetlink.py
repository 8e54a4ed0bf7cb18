"""Netlink attributes as bytes: read without copying twice, written back verbatim (lib/nlattr.c, nfnetlink.h)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Literal

_HEADER = struct.Struct("=HH")
_MESSAGE = struct.Struct("=IHHII")
TYPE_MASK = 0x3FFF
"""An attribute's type without NLA_F_NESTED and NLA_F_NET_BYTEORDER."""
_NESTED = 0x8000

BYTE_ORDER: Literal["little", "big"] = "little" if struct.pack("=H", 1)[0] else "big"
"""Of the headers: the machine's own."""

GENERIC = 4
"""Length of struct nfgenmsg, which opens the payload of every nfnetlink message: family, version, resource id."""


def walk(payload: bytes, offset: int = 0) -> Iterator[tuple[int, bytes]]:
    """Type and value of each attribute; ValueError when one is torn."""
    end = len(payload)
    while offset + _HEADER.size <= end:
        length, kind = _HEADER.unpack_from(payload, offset)
        if length < _HEADER.size or offset + length > end:
            raise ValueError("torn netlink attribute")
        yield kind & TYPE_MASK, payload[offset + _HEADER.size : offset + length]
        offset += (length + 3) & ~3


def pieces(payload: bytes) -> list[bytes]:
    """The attributes as they stand, headers and padding included; ValueError when one is torn."""
    size = (int.from_bytes(payload[:2], BYTE_ORDER) + 3) & ~3
    if size >= _HEADER.size and _all_alike(payload, size):
        return [piece for (piece,) in struct.iter_unpack(f"{size}s", payload)]
    found: list[bytes] = []
    offset, end = 0, len(payload)
    while offset < end:
        following = offset + ((int.from_bytes(payload[offset : offset + 2], BYTE_ORDER) + 3) & ~3)
        if following < offset + _HEADER.size or following > end:
            raise ValueError("torn netlink attribute")
        found.append(payload[offset:following])
        offset = following
    return found


def _all_alike(payload: bytes, size: int) -> bool:
    """Every attribute has the header of the first, as those of a set's elements mostly have."""
    count, rest = divmod(len(payload), size)
    return not rest and all(payload[at::size] == payload[at : at + 1] * count for at in range(_HEADER.size))


def by_type(payload: bytes, offset: int = 0) -> dict[int, bytes]:
    """The value of each attribute by type; of a repeated type the last one; ValueError when one is torn."""
    return dict(walk(payload, offset))


def keep(payload: bytes, offset: int, kinds: frozenset[int]) -> bytes:
    """The attributes of these types as they stand, flags and padding included; ValueError when one is torn."""
    kept: list[bytes] = []
    end = len(payload)
    while offset + _HEADER.size <= end:
        length, kind = _HEADER.unpack_from(payload, offset)
        if length < _HEADER.size or offset + length > end:
            raise ValueError("torn netlink attribute")
        following = offset + ((length + 3) & ~3)
        if kind & TYPE_MASK in kinds:
            kept.append(payload[offset:following].ljust(following - offset, b"\0"))
        offset = following
    return b"".join(kept)


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute with its header, padded to four bytes."""
    return _HEADER.pack(_HEADER.size + len(value), kind) + value + b"\0" * (-len(value) % 4)


def nest(kind: int, value: bytes) -> bytes:
    """An attribute whose value is attributes."""
    return attribute(kind | _NESTED, value)


def text(kind: int, value: bytes) -> bytes:
    """A string attribute, ended by a zero byte."""
    return attribute(kind, value + b"\0")


def u32(kind: int, value: int) -> bytes:
    """A number in network byte order, as nfnetlink has them."""
    return attribute(kind, struct.pack(">I", value & 0xFFFFFFFF))


def number(value: bytes | None, default: int = 0) -> int:
    """A big-endian number of any length."""
    return int.from_bytes(value, "big") if value is not None else default


def signed(value: bytes) -> int:
    """A big-endian number with a sign: priorities and verdicts."""
    return int.from_bytes(value, "big", signed=True)


def name(value: bytes) -> bytes:
    """A string attribute without the zero byte that ends it."""
    return value.partition(b"\0")[0]


def message(kind: int, flags: int, sequence: int, payload: bytes) -> bytes:
    """A whole netlink message, padded."""
    return _MESSAGE.pack(_MESSAGE.size + len(payload), kind, flags, sequence, 0) + payload + b"\0" * (-len(payload) % 4)


def generic(family: int, resource: int = 0) -> bytes:
    """struct nfgenmsg."""
    return struct.pack(">BBH", family, 0, resource)
