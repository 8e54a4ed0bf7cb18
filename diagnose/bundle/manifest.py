"""What a bundle says of itself."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

SCHEMA: Literal["netdiag.bundle/1"] = "netdiag.bundle/1"
MANIFEST, SNAPSHOT, CAPTURE = "manifest.json", "snapshot.json", "capture.pcap"
REPORTS = ("report.json", "report.txt", "report.md", "report.html")
_REPORT = 32 << 20
LARGEST_SNAPSHOT = 16 << 20
"""Bytes: its facts take several times as much memory."""
MOST_VALUES = 1 << 20
"""Values in it, by the commas between them: a short text takes ten times as much memory as its bytes."""
LIMITS = {
    MANIFEST: 1 << 20,
    SNAPSHOT: LARGEST_SNAPSHOT,
    **dict.fromkeys(REPORTS, _REPORT),
    CAPTURE: 48 << 20,
}
"""The members that a bundle can have, and how many bytes each."""

_Short = Annotated[str, Meta(max_length=1000)]


class Member(Struct, frozen=True):
    """A member of the bundle, as it was written."""

    name: _Short
    size: Annotated[int, Meta(ge=0)]
    sha256: Annotated[str, Meta(min_length=64, max_length=64)]


class Manifest(Struct, frozen=True, kw_only=True):
    """The first member."""

    schema: Literal["netdiag.bundle/1"] = SCHEMA
    netdiag: _Short
    """The version that made it."""
    schemas: dict[_Short, _Short]
    """Of its snapshot and its report."""
    created_at: _Short
    """RFC 3339 UTC."""
    targets: Annotated[tuple[_Short, ...], Meta(max_length=1 << 12)]
    files: Annotated[tuple[Member, ...], Meta(max_length=16)]
    redacted: dict[_Short, int]
    """How many different things of each kind were replaced."""
    kept: Annotated[tuple[_Short, ...], Meta(max_length=16)]
    """What the sender wanted to stay."""
    packets: bool
    """Whether packets are in it, as they were on the wire."""
