"""Messages of D-Bus: method calls as bytes, and replies as values (D-Bus specification, "Message Protocol")."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Any

from msgspec import Struct

LARGEST = 1 << 24
"""Bytes of a message that is read; the protocol allows eight times as many."""
_DEEPEST = 16
"""Containers in containers; the protocol allows 64."""
_CALL, _REPLY, _ERROR = 1, 2, 3
_PATH, _INTERFACE, _MEMBER, _ERROR_NAME, _REPLY_SERIAL, _DESTINATION, _SIGNATURE = 1, 2, 3, 4, 5, 6, 8
_FIXED = {
    "y": struct.Struct("<B"),
    "b": struct.Struct("<I"),
    "n": struct.Struct("<h"),
    "q": struct.Struct("<H"),
    "i": struct.Struct("<i"),
    "u": struct.Struct("<I"),
    "x": struct.Struct("<q"),
    "t": struct.Struct("<Q"),
    "d": struct.Struct("<d"),
    "h": struct.Struct("<I"),
}
_ALIGNED = {"s": 4, "o": 4, "a": 4, "(": 8, "{": 8, "g": 1, "v": 1}
_HEADER = struct.Struct("<cBBBII")


class BadMessageError(ValueError):
    """The bytes are no message of D-Bus in little-endian order, or one that is too large."""


class Reply(Struct, frozen=True):
    """The answer to the call with this serial number; `error` is its name where it failed."""

    serial: int
    values: tuple[Any, ...]
    error: str | None = None


def call(
    serial: int,
    member: tuple[str, str, str],
    arguments: Sequence[str | Sequence[str]] = (),
    destination: str | None = None,
) -> bytes:
    """A method call; `member` is path, interface and method, an argument a string or an array of strings."""
    path, interface, method = member
    body = bytearray()
    for one in arguments:
        _put(body, one)
    signature = "".join("s" if isinstance(one, str) else "as" for one in arguments)
    named = ((_PATH, "o", path), (_INTERFACE, "s", interface), (_MEMBER, "s", method))
    fields = bytearray()
    for code, kind, value in (*named, *(((_DESTINATION, "s", destination),) if destination else ())):
        _pad(fields, 8)
        fields += bytes((code, 1)) + kind.encode() + b"\0"
        _put(fields, value)
    if signature:
        _pad(fields, 8)
        fields += bytes((_SIGNATURE, 1)) + b"g\0" + bytes((len(signature),)) + signature.encode() + b"\0"
    message = bytearray(_HEADER.pack(b"l", _CALL, 0, 1, len(body), serial))
    message += len(fields).to_bytes(4, "little") + fields
    _pad(message, 8)
    return bytes(message + body)


def _put(data: bytearray, value: str | Sequence[str]) -> None:
    _pad(data, 4)
    if isinstance(value, str):
        text = value.encode("utf-8", "surrogateescape")
        data += len(text).to_bytes(4, "little") + text + b"\0"
        return
    items = bytearray()
    for one in value:
        _put(items, one)
    data += len(items).to_bytes(4, "little") + items


def _pad(data: bytearray, to: int) -> None:
    data += bytes(-len(data) % to)


class Reader:
    """A stream of messages, of which any part may have come so far."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> Iterator[Reply]:
        """The replies that are complete now; signals and calls are passed over. Raises BadMessageError."""
        self._data += data
        while (size := self._size()) is not None and size <= len(self._data):
            message = bytes(self._data[:size])
            del self._data[:size]
            reply = _reply(message)
            if reply is not None:
                yield reply

    def _size(self) -> int | None:
        """Of the first message; None: its header is not there yet."""
        if len(self._data) < 16:
            return None
        order = bytes(self._data[:1])
        body = int.from_bytes(self._data[4:8], "little")
        fields = int.from_bytes(self._data[12:16], "little")
        if order != b"l" or body > LARGEST or fields > LARGEST:
            raise BadMessageError("no little-endian message of D-Bus, or too large a one")
        return 16 + fields + -fields % 8 + body


def _reply(message: bytes) -> Reply | None:
    _, kind, _, _, body, _ = _HEADER.unpack_from(message)
    if kind not in (_REPLY, _ERROR):
        return None
    try:
        listed, _ = _value(message, 12, "a(yv)", 0)
        fields = dict(listed)
        values: list[Any] = []
        content, at = message[len(message) - body :], 0
        for each in _complete_types(fields.get(_SIGNATURE, "")):
            value, at = _value(content, at, each, 0)
            values.append(value)
        error = fields.get(_ERROR_NAME, "unnamed") if kind == _ERROR else None
        return Reply(int(fields[_REPLY_SERIAL]), tuple(values), error)
    except (struct.error, IndexError, KeyError, TypeError) as error:
        raise BadMessageError(f"a damaged message: {error}") from None


def _value(data: bytes, at: int, kind: str, depth: int) -> tuple[Any, int]:
    """The value of one complete type, and where it ends."""
    if depth > _DEEPEST:
        raise BadMessageError("a message that is nested too deeply")
    first = kind[:1]
    if fixed := _FIXED.get(first):
        at += -at % fixed.size
        (number,) = fixed.unpack_from(data, at)
        return (bool(number) if first == "b" else number), at + fixed.size
    at += -at % _ALIGNED[first]
    match first:
        case "s" | "o":
            return _text(data, at + 4, int.from_bytes(data[at : at + 4], "little"))
        case "g":
            return _text(data, at + 1, data[at])
        case "v":
            inner, at = _text(data, at + 1, data[at])
            return _value(data, at, inner, depth + 1)
        case "a":
            return _array(data, at, kind[1:], depth)
        case _:
            values: list[Any] = []
            for each in _complete_types(kind[1:-1]):
                value, at = _value(data, at, each, depth + 1)
                values.append(value)
            return tuple(values), at


def _text(data: bytes, at: int, size: int) -> tuple[str, int]:
    if at + size >= len(data):
        raise BadMessageError("a text that is longer than its message")
    return data[at : at + size].decode("utf-8", "backslashreplace"), at + size + 1


def _array(data: bytes, at: int, item: str, depth: int) -> tuple[tuple[Any, ...], int]:
    size = int.from_bytes(data[at : at + 4], "little")
    at += 4
    fixed = _FIXED.get(item[:1])
    at += -at % (fixed.size if fixed else _ALIGNED[item[:1]])
    end = at + size
    if end > len(data):
        raise BadMessageError("an array that is longer than its message")
    found: list[Any] = []
    while at < end:
        value, at = _value(data, at, item, depth + 1)
        found.append(value)
    return tuple(found), at


def _complete_types(signature: str) -> Iterator[str]:
    """The parts of a signature that are each one type."""
    at = 0
    while at < len(signature):
        end = _end_of_type(signature, at)
        yield signature[at:end]
        at = end


def _end_of_type(signature: str, at: int) -> int:
    while signature[at] == "a":
        at += 1
    if signature[at] not in "({":
        return at + 1
    depth = 0
    for end in range(at, len(signature)):
        depth += (signature[end] in "({") - (signature[end] in ")}")
        if not depth:
            return end + 1
    raise BadMessageError("a signature that is not closed")
