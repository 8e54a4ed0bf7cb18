"""Snapshots <-> file, by schema number; what may be secret was hidden before it became a fact."""

from __future__ import annotations

import errno
import io
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec

from diagnose.model.bounds import Many
from diagnose.model.snapshot import SCHEMA, Snapshot
from diagnose.parse.foreign import as_foreign
from diagnose.parse.recorded import check

SCHEMA_MANY: Literal["netdiag.snapshots/1"] = "netdiag.snapshots/1"


LARGEST = 64 << 20
"""Bytes of a recording."""
_STANDARD_INPUT = 0
_LONGEST_LINE = 160
"""Characters of a message, which may quote any text of the file."""


class BadRecordingError(ValueError):
    """The bytes are no recording that this version reads; the message is one line for the user."""


class _Many(msgspec.Struct, frozen=True, kw_only=True):
    schema: Literal["netdiag.snapshots/1"] = SCHEMA_MANY
    snapshots: Many[Snapshot]


class _Header(msgspec.Struct, frozen=True):
    schema: str


def encode(snapshots: Sequence[Snapshot]) -> bytes:
    """One snapshot as it is, several under one roof."""
    content = snapshots[0] if len(snapshots) == 1 else _Many(snapshots=tuple(snapshots))
    return msgspec.json.format(msgspec.json.encode(content), indent=1) + b"\n"


def read(path: Path) -> bytes:
    """The bytes of a regular file, or of standard input ("-", /dev/stdin). Never blocks on what is neither.

    Raises OSError, and BadRecordingError where it is too large or may not be read to its end.
    """
    if str(path) == "-":
        return _all_of(_STANDARD_INPUT)
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_BINARY", 0)
    number = os.open(path, flags)
    try:
        opened = os.fstat(number)
        if stat.S_ISREG(opened.st_mode):
            return _all_of(number)
        if _is_standard_input(opened):
            return _all_of(_STANDARD_INPUT)  # which, unlike what was opened just now, may wait for its writer
        if stat.S_ISDIR(opened.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        raise BadRecordingError("is no regular file")
    finally:
        os.close(number)


def _is_standard_input(opened: os.stat_result) -> bool:
    try:
        return os.path.samestat(opened, os.fstat(_STANDARD_INPUT))
    except OSError:  # it is closed
        return False


def _all_of(number: int) -> bytes:
    """What the descriptor gives until its end, of a limited size whatever the file said of itself."""
    parts = io.BytesIO()  # whose bytes are its content, and no copy of it
    left = LARGEST + 1
    while left > 0:
        try:
            part = os.read(number, min(left, 1 << 20))
        except BlockingIOError:
            raise BadRecordingError("has nothing to read now") from None
        if not part:
            return parts.getvalue()
        parts.write(part)
        left -= len(part)
    raise BadRecordingError(f"is larger than {LARGEST >> 20} MiB")


def decode_foreign(data: bytes) -> tuple[Snapshot, ...]:
    """The snapshots of a recording that may be anybody's: nothing in them speaks for netdiag. Raises BadRecordingError.

    `decode` gives what was recorded as it was, for whoever recorded it.
    """
    try:
        return tuple(as_foreign(snapshot) for snapshot in decode(data))
    except ValueError as error:
        if isinstance(error, BadRecordingError):
            raise
        raise BadRecordingError(f"is a damaged recording: {_line(error)}") from None


def decode(data: bytes) -> tuple[Snapshot, ...]:
    """The snapshots in the order in which they were recorded. Raises BadRecordingError."""
    try:
        schema = msgspec.json.decode(data, type=_Header).schema
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRecordingError(f"is no netdiag recording: {_line(error)}") from error
    if schema not in (SCHEMA, SCHEMA_MANY):
        raise BadRecordingError(
            f"has the schema {_line(ValueError(schema))!r}; this version reads {SCHEMA} and {SCHEMA_MANY}"
        )
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
        try:
            check(snapshot)
        except ValueError as error:
            raise BadRecordingError(f"is a damaged recording: {_line(error)}") from None
    return snapshots


def _line(error: Exception) -> str:
    """The decoder's message, which may quote the file, without anything that acts on a terminal, and in one line."""
    text = str(error)
    if len(text) > _LONGEST_LINE:  # what is wrong stands first, where it is last
        text = f"{text[: _LONGEST_LINE // 2]} ... {text[-_LONGEST_LINE // 2 :]}"
    return text.encode("unicode_escape", errors="backslashreplace").decode("ascii")
