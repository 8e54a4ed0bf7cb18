"""Snapshots from a file that may be anybody's: a recording, a bundle, or either packed by gzip."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec
from msgspec import Struct

from diagnose.bundle import archive
from diagnose.bundle.manifest import LIMITS, MANIFEST, MOST_VALUES, SCHEMA, SNAPSHOT, Manifest
from diagnose.model.snapshot import Snapshot
from diagnose.recording import LARGEST, BadRecordingError, decode_foreign, read

_GZIP = b"\x1f\x8b"


class Bundle(Struct, frozen=True):
    """A bundle whose members are what its manifest says."""

    manifest: Manifest
    snapshot: bytes


class _Header(Struct, frozen=True):
    schema: str


def load(path: Path) -> tuple[Snapshot, ...]:
    """The snapshots of a recording or bundle ("-": standard input), in the order in which they were recorded.

    Nothing in them speaks for netdiag (`diagnose.parse.foreign`). Raises OSError, and BadRecordingError with one line
    for the user.
    """
    return loads(read(path))


def loads(data: bytes) -> tuple[Snapshot, ...]:
    """The same of bytes. Raises BadRecordingError."""
    data = _unpacked(data)
    if data.startswith(archive.MAGIC[:2]):
        data = opened(data).snapshot
    return decode_foreign(data)


def open_bundle(path: Path) -> Bundle:
    """A bundle, each member of which was compared with its checksum. Raises OSError and BadRecordingError."""
    data = _unpacked(read(path))
    if not data.startswith(archive.MAGIC[:2]):
        raise BadRecordingError("is no bundle")
    return opened(data)


def _unpacked(data: bytes) -> bytes:
    return archive.gunzipped(data, LARGEST) if data.startswith(_GZIP) else data


def opened(data: bytes) -> Bundle:
    """The bundle in a zip file. Raises BadRecordingError."""
    entries = archive.entries(data, LIMITS)
    for name in (MANIFEST, SNAPSHOT):
        if name not in entries:
            raise BadRecordingError(f"is no bundle: it has no {name}")
    manifest = _manifest(b"".join(archive.chunks(data, entries[MANIFEST])))
    listed = {one.name: one for one in manifest.files}
    if len(listed) != len(manifest.files) or {MANIFEST, *listed} != set(entries):
        raise BadRecordingError("is a damaged bundle: its members are not those that its manifest lists")
    kept: list[bytes] = []
    for name, one in listed.items():
        digest, size = hashlib.sha256(), 0
        for piece in archive.chunks(data, entries[name]):
            digest.update(piece)
            size += len(piece)
            if name == SNAPSHOT:
                kept.append(piece)
        if (digest.hexdigest(), size) != (one.sha256, one.size):
            raise BadRecordingError(f"is a damaged bundle: {name} has another checksum than its manifest says")
    snapshot = b"".join(kept)
    if snapshot.count(b",") > MOST_VALUES:
        raise BadRecordingError(f"has more than {MOST_VALUES} values in its {SNAPSHOT}")
    return Bundle(manifest, snapshot)


def _manifest(data: bytes) -> Manifest:
    try:
        schema = msgspec.json.decode(data, type=_Header).schema
        if schema != SCHEMA:
            shown = schema if len(schema) <= 40 else f"{schema[:37]}..."
            raise BadRecordingError(f"is a bundle with the schema {shown!a}; this version reads {SCHEMA}")
        return msgspec.json.decode(data, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise BadRecordingError("is a damaged bundle: its manifest cannot be read") from None
