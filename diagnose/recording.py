"""Snapshots <-> file, by schema number; what may be secret was hidden before it became a fact."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import msgspec

from diagnose.model.container import Containers
from diagnose.model.fact import Known
from diagnose.model.network import family_of
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
        raise BadRecordingError(f"is no netdiag recording: {_line(error)}") from error
    if schema not in (SCHEMA, SCHEMA_MANY):
        raise BadRecordingError(f"has the schema {schema!r}; this version reads {SCHEMA} and {SCHEMA_MANY}")
    try:
        if schema == SCHEMA:
            snapshots: tuple[Snapshot, ...] = (msgspec.json.decode(data, type=Snapshot),)
        else:
            snapshots = msgspec.json.decode(data, type=_Many).snapshots
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRecordingError(f"is a damaged recording: {_line(error)}") from error
    if not snapshots:
        raise BadRecordingError("is a recording without any snapshot")
    for snapshot in snapshots:
        _check_addresses(snapshot)
    return snapshots


def _line(error: Exception) -> str:
    """The decoder's message, which may quote the file, without anything that acts on a terminal."""
    return str(error).encode("unicode_escape", errors="backslashreplace").decode("ascii")


def _check_addresses(snapshot: Snapshot) -> None:
    """What the types cannot say: that an address is one."""
    for address in _addresses(snapshot):
        try:
            family_of(address)
        except ValueError:
            raise BadRecordingError(f"is a damaged recording: {address!r} is no address") from None


def _addresses(snapshot: Snapshot) -> Iterator[str]:
    yield from (one.address for one in (*snapshot.attempts, *snapshot.candidates))
    yield from (one.address for one in snapshot.binds)
    if isinstance(snapshot.names, Known):
        yield from (one.address for one in snapshot.names.value.addresses)
    for rows in (snapshot.sockets, snapshot.listeners, snapshot.bound, snapshot.udp):
        if isinstance(rows, Known):
            yield from (end.address for row in rows.value for end in (row.local, row.peer))
    if isinstance(snapshot.elsewhere, Known):
        yield from (one.local.address for one in snapshot.elsewhere.value.listeners)
    if isinstance(snapshot.links, Known):
        yield from (address for one in snapshot.links.value.interfaces for address in one.addresses)
    if isinstance(snapshot.containers, Known):
        yield from _container_addresses(snapshot.containers.value)


def _container_addresses(seen: Containers) -> Iterator[str]:
    for engine in seen.engines:
        for told in engine.containers.value if isinstance(engine.containers, Known) else ():
            yield from (one.address for one in told.published)
            yield from (address for one in told.attachments for address in (*one.addresses, *one.gateways))
    for inside in (*seen.insides, *((seen.host,) if seen.host else ())):
        yield from inside.addresses
        rows = inside.listeners.value if isinstance(inside.listeners, Known) else ()
        yield from (end.address for row in rows for end in (row.local, row.peer))
    forwarders = seen.forwarders.value if isinstance(seen.forwarders, Known) else ()
    yield from (end.address for one in forwarders for end in (one.listens, one.target))
