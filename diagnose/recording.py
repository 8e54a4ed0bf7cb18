"""Snapshots <-> file, by schema number; what is secret was masked before it became a fact."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from diagnose.model.snapshot import SCHEMA, Snapshot

SCHEMA_MANY: Literal["netdiag.snapshots/1"] = "netdiag.snapshots/1"


class BadRecordingError(ValueError):
    """The bytes are no recording that this version reads; the message is one line for the user."""


class _Many(msgspec.Struct, frozen=True, kw_only=True):
    schema: Literal["netdiag.snapshots/1"] = SCHEMA_MANY
    snapshots: tuple[Snapshot, ...]


class _Header(msgspec.Struct, frozen=True):
    schema: str


def encode(snapshots: Sequence[Snapshot]) -> bytes:
    """One snapshot as it is, several under one roof."""
    content = snapshots[0] if len(snapshots) == 1 else _Many(snapshots=tuple(snapshots))
    return msgspec.json.format(msgspec.json.encode(content), indent=1) + b"\n"


def decode(data: bytes) -> tuple[Snapshot, ...]:
    """The snapshots in the order in which they were recorded. Raises BadRecordingError."""
    try:
        schema = msgspec.json.decode(data, type=_Header).schema
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRecordingError(f"is no netdiag recording: {error}") from error
    if schema not in (SCHEMA, SCHEMA_MANY):
        raise BadRecordingError(f"has the schema {schema!r}; this version reads {SCHEMA} and {SCHEMA_MANY}")
    try:
        if schema == SCHEMA:
            return (msgspec.json.decode(data, type=Snapshot),)
        snapshots = msgspec.json.decode(data, type=_Many).snapshots
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRecordingError(f"is a damaged recording: {error}") from error
    if not snapshots:
        raise BadRecordingError("is a recording without any snapshot")
    return snapshots
