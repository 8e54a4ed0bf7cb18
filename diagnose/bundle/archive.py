"""A zip file of few known members, read so strictly that none can do harm (APPNOTE.TXT 6.3.10 of PKWARE).

Nothing is ever extracted: members are bytes in memory, of limited size, and their names are those of a closed list.
"""

from __future__ import annotations

import io
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from diagnose.recording import BadRecordingError

MAGIC = b"PK\x03\x04"
_END = struct.Struct("<4s4H2LH")
_ENTRY = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_END_MAGIC, _ENTRY_MAGIC = b"PK\x05\x06", b"PK\x01\x02"
_STORED, _DEFLATED = 0, 8
_ENCRYPTED = 1 | 1 << 6 | 1 << 13
_UNIX = 3
_MOST = 16
"""Members: a bundle has seven at most."""
_LONGEST_NAME = 64
_CHUNK = 1 << 16


class Entry(NamedTuple):
    """One member, by the central directory."""

    name: str
    method: int
    crc: int
    packed: int
    size: int
    start: int
    """Of its bytes in the file."""


def write(members: Mapping[str, bytes], when: Sequence[int]) -> bytes:
    """The zip file; the same members give the same bytes. `when`: year, month, day, hour, minute, second."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            year, month, day, hour, minute, second = when
            info = zipfile.ZipInfo(name, (year, month, day, hour, minute, second))
            info.compress_type = zipfile.ZIP_DEFLATED
            info.create_system = _UNIX
            info.external_attr = (stat.S_IFREG | 0o600) << 16
            archive.writestr(info, data)
    return packed.getvalue()


def entries(data: bytes, limits: Mapping[str, int]) -> dict[str, Entry]:
    """The members by name. `limits`: the names that may be there, and how large each may be. BadRecordingError."""
    found: dict[str, Entry] = {}
    spans: list[tuple[int, int]] = []
    for entry, header in _directory(data):
        if entry.name not in limits:
            raise BadRecordingError(f"has a member {_quoted(entry.name)}, which no bundle has")
        if entry.name in found:
            raise BadRecordingError(f"has two members {entry.name!r}")
        if entry.size > limits[entry.name]:
            raise BadRecordingError(f"has a member {entry.name!r} of more than {limits[entry.name] >> 20} MiB")
        found[entry.name] = entry
        spans.append((header, entry.start + entry.packed))
    _check_apart(spans, len(data))
    return found


def _directory(data: bytes) -> Iterator[tuple[Entry, int]]:
    """Each entry of the central directory, and where its local header is."""
    at = len(data) - _END.size
    if at < 0 or data[at : at + 4] != _END_MAGIC:
        raise BadRecordingError("is no whole bundle: the end of the zip file is missing")
    _, disk, first_disk, here, count, size, offset, comment = _END.unpack_from(data, at)
    if disk or first_disk or here != count or comment or offset + size != at:
        raise BadRecordingError("is no bundle: its list of members is damaged")
    if count > _MOST:
        raise BadRecordingError(f"is no bundle: it has {count if count < 0xFFFF else 'more than 65,534'} members")
    place = offset
    for _ in range(count):
        if place + _ENTRY.size > at or data[place : place + 4] != _ENTRY_MAGIC:
            raise BadRecordingError("is no bundle: its list of members is damaged")
        yield _entry(data, place)
        lengths = _ENTRY.unpack_from(data, place)[10:13]
        place += _ENTRY.size + sum(lengths)
    if place != at:
        raise BadRecordingError("is no bundle: its list of members is damaged")


def _entry(data: bytes, place: int) -> tuple[Entry, int]:
    fields = _ENTRY.unpack_from(data, place)
    _, made, _, flags, method, _, _, crc, packed, size, length, _, comment, disk, _, attributes, header = fields
    if length > _LONGEST_NAME:
        raise BadRecordingError(f"has a member with a name of {length} bytes, which no bundle has")
    raw = data[place + _ENTRY.size : place + _ENTRY.size + length]
    name = raw.decode("ascii", errors="backslashreplace")
    if flags & _ENCRYPTED:
        raise BadRecordingError(f"has a member {_quoted(name)} that is encrypted")
    if method not in (_STORED, _DEFLATED) or disk or comment or 0xFFFFFFFF in (packed, size, header):
        raise BadRecordingError(f"has a member {_quoted(name)} that is packed in a way that no bundle is")
    if made >> 8 == _UNIX and stat.S_IFMT(attributes >> 16) not in (0, stat.S_IFREG):
        raise BadRecordingError(f"has a member {_quoted(name)} that is no regular file")
    return Entry(name, method, crc, packed, size, _start(data, header, raw)), header


def _start(data: bytes, header: int, name: bytes) -> int:
    """Where the bytes of the member begin, behind its own header, which must be of the same name."""
    if header + _LOCAL.size > len(data) or data[header : header + 4] != MAGIC:
        raise BadRecordingError("is no bundle: a member is not where its list says")
    *_, length, extra = _LOCAL.unpack_from(data, header)
    start: int = header + _LOCAL.size + length + extra
    if data[header + _LOCAL.size : header + _LOCAL.size + length] != name:
        raise BadRecordingError("is no bundle: a member is not where its list says")
    return start


def _check_apart(spans: list[tuple[int, int]], end: int) -> None:
    """No byte belongs to two members: that is how small files become endless ones."""
    before = 0
    for start, stop in sorted(spans):
        if start < before or stop > end:
            raise BadRecordingError("is no bundle: its members overlap")
        before = stop


def chunks(data: bytes, entry: Entry) -> Iterator[bytes]:
    """The member's bytes, piece by piece, as many as its entry says and no more. BadRecordingError."""
    crc, left = 0, entry.size
    for piece in _unpacked(data, entry):
        left -= len(piece)
        if left < 0:
            break
        crc = zlib.crc32(piece, crc)
        yield piece
    if left or crc != entry.crc:
        raise BadRecordingError(f"has a damaged member {entry.name!r}")


def _unpacked(data: bytes, entry: Entry) -> Iterator[bytes]:
    view = memoryview(data)[entry.start : entry.start + entry.packed]
    if entry.method == _STORED:
        for at in range(0, len(view), _CHUNK):
            yield bytes(view[at : at + _CHUNK])
        return
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        for at in range(0, len(view), _CHUNK):
            rest: bytes | memoryview = view[at : at + _CHUNK]
            while rest and not unpacker.eof:
                yield unpacker.decompress(rest, _CHUNK)
                rest = unpacker.unconsumed_tail
        yield unpacker.flush(_CHUNK)
    except zlib.error:
        raise BadRecordingError(f"has a damaged member {entry.name!r}") from None


def gunzipped(data: bytes, limit: int) -> bytes:
    """What a gzip file holds (RFC 1952). BadRecordingError: it is damaged, or holds more than `limit` bytes."""
    found = io.BytesIO()
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 16)
    view = memoryview(data)
    try:
        for at in range(0, len(view), _CHUNK):
            rest: bytes | memoryview = view[at : at + _CHUNK]
            while rest and not unpacker.eof:
                found.write(unpacker.decompress(rest, _CHUNK))
                rest = unpacker.unconsumed_tail
                if found.tell() > limit:
                    raise BadRecordingError(f"is larger than {limit >> 20} MiB when it is unpacked")
            if unpacker.eof:
                break
    except zlib.error:
        raise BadRecordingError("is a damaged gzip file") from None
    if not unpacker.eof:
        raise BadRecordingError("is a gzip file without its end")
    return found.getvalue()


def _quoted(name: str) -> str:
    return repr(name if len(name) <= 40 else f"{name[:37]}...")
