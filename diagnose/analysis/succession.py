"""Whether the server that an attempt met was started just before, has ended since, or was replaced by a new process."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from msgspec import Struct

from diagnose.analysis.reach import reached
from diagnose.model.attempt import Attempt
from diagnose.model.fact import Fact, Known, Unknown
from diagnose.model.finding import Evidence
from diagnose.model.network import SocketRow
from diagnose.model.process import Holders, Process
from diagnose.model.snapshot import Snapshot

_YOUNG = 10
"""Seconds of age under which a server that ends connections may be one that is started again and again."""


class Young(Struct, frozen=True):
    """The holder of the listening socket has run for a few seconds only."""

    process: Process
    age: int
    """Seconds, as the kernel counts them: the real age may be one more or less."""


class Gone(Struct, frozen=True):
    """Nothing listens there any more."""

    process: Process | None
    """None: its holder was hidden, or it ended before it was looked at."""
    ms: float


class Replaced(Struct, frozen=True):
    """Another listening socket is there than a moment before."""

    old: Process | None
    new: Process | None
    ms: float


class CameUp(Struct, frozen=True):
    """The address was refused, and something listens there since."""

    new: Process | None
    ms: float


Succession = Young | Gone | Replaced | CameUp


def succession(snapshot: Snapshot, attempt: Attempt) -> Succession | None:
    """What became of the server of a connection that it ended; None: nothing is known to have changed."""
    match snapshot.listeners, snapshot.later:
        case Known(value=first), Known(value=later):
            pass
        case _:
            return None
    before = reached(first, attempt.address, attempt.port)
    after = reached(later.listeners, attempt.address, attempt.port)
    old, new = _holder(before, snapshot.holders), _holder(after, later.holders)
    if not after:
        return Gone(old, later.ms)
    if not {row.inode for row in before} & {row.inode for row in after}:
        return Replaced(old, new, later.ms)
    age = _age(snapshot, new) if new else None
    return Young(new, age) if new and age is not None and age < _YOUNG else None


def gone_since(snapshot: Snapshot, rows: Iterable[SocketRow]) -> tuple[SocketRow, ...]:
    """Those of these listening sockets that a second look did not find any more; none where there was no second look.

    A process that ended between the looks at its socket and at the processes left no holder to see, hidden or not.
    """
    match snapshot.later:
        case Known(value=later):
            there = {row.inode for row in later.listeners}
            return tuple(row for row in rows if row.inode not in there)
        case Unknown():
            return ()


def came_up(snapshot: Snapshot, attempt: Attempt) -> CameUp | None:
    """Whether something listens where a moment before the kernel refused; None: nothing does, or it always did."""
    match snapshot.listeners, snapshot.later:
        case Known(value=first), Known(value=later):
            pass
        case _:
            return None
    before = reached(first, attempt.address, attempt.port)
    after = reached(later.listeners, attempt.address, attempt.port)
    if not after:
        return None
    new = _holder(after, later.holders)
    replaced = not {row.inode for row in before} & {row.inode for row in after}
    age = _age(snapshot, new) if new else None
    younger = age is not None and age < 0
    return CameUp(new, later.ms) if replaced or younger or _answers_now(snapshot, attempt) else None


def _answers_now(snapshot: Snapshot, attempt: Attempt) -> bool:
    return any(one.endpoint == attempt.endpoint and one.outcome.works for one in snapshot.candidates)


def _holder(rows: tuple[SocketRow, ...], holders: Fact[Holders]) -> Process | None:
    inodes = {row.inode for row in rows}
    found = holders.value.found if isinstance(holders, Known) else ()
    return next((one.process for one in found if one.inode in inodes), None)


def _age(snapshot: Snapshot, process: Process) -> int | None:
    """Whole seconds from its start to the attempt; negative: it was started after it."""
    try:
        started, tried = datetime.fromisoformat(process.started_at), datetime.fromisoformat(snapshot.started_at)
    except ValueError:
        return None
    return int((tried - started).total_seconds() // 1)


def succession_text(found: Succession) -> str:
    """It in a sentence or two."""
    match found:
        case Young(process=process, age=age):
            return f"{_called(process)} was started {_ago(age)}: it may not be ready yet, or not stay up."
        case Gone(process=process):
            who = f"{_called(process)} has ended" if process else "Its listening socket is gone"
            return f"{who} since, and nothing listens there now: it seems to end when a client connects."
        case Replaced(old=old, new=new):
            return f"{_replacement(old, new)}: it seems to be restarted each time."
        case CameUp(new=new, ms=ms):
            who = _called(new) if new else "a server"
            return f"By {ms:.0f} ms after the attempt {who} listens there: it was started or restarted just then."


def succession_evidence(found: Succession) -> Evidence:
    """The same as proof."""
    match found:
        case Young(process=process):
            return Evidence(f"{_called(process)}: started at {_clock(process)}", "/proc/PID/stat")
        case Gone(ms=ms):
            return Evidence(f"{ms:.0f} ms after the attempt no listening socket is there", "sock_diag")
        case Replaced(old=old, new=new, ms=ms):
            since = f", started at {_clock(new)}" if new else ""
            return Evidence(f"{ms:.0f} ms after the attempt: {_replacement(old, new)}{since}", "sock_diag")
        case CameUp(new=new, ms=ms):
            who = f" of {_called(new)}, started at {_clock(new)}" if new else ""
            return Evidence(f"{ms:.0f} ms after the attempt a listening socket{who} is there", "sock_diag")


def _replacement(old: Process | None, new: Process | None) -> str:
    if old and new and old.pid == new.pid:
        return f"{_called(new)} has closed its listening socket and opened a new one"
    if old and new:
        return f"{_called(old)} was replaced by a new process, {_called(new)}"
    return (
        f"The listening socket was replaced by one of a new process, {_called(new)}"
        if new
        else ("The listening socket was replaced by a new one")
    )


def _called(process: Process) -> str:
    return f"{process.program} (pid {process.pid})"


def _clock(process: Process) -> str:
    return process.started_at.replace("T", " ").replace("Z", " UTC")


def _ago(age: int) -> str:
    if age < 0:
        return "after the attempt"
    return "less than two seconds before the attempt" if age <= 1 else f"{age} seconds before the attempt"
