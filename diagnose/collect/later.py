"""A second look at the listeners of a server that refused or ended a connection: it may have been restarted."""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic, sleep

from diagnose.analysis.reach import listeners_on, reached
from diagnose.collect.case import PROBE_SECONDS, Case, Machine
from diagnose.model.attempt import Attempt, Outcome
from diagnose.model.fact import NOT_LINUX, Fact, Known, Unknown
from diagnose.model.later import Later
from diagnose.model.network import SocketRow
from diagnose.model.process import Holders
from diagnose.pace import patient
from diagnose.probes import processes, sockets
from diagnose.probes.bounded import Asked
from diagnose.probes.connect import IS_LINUX

COMES_BACK = patient(0.5)
"""Seconds that a server which ended a connection and is gone since has to come back."""
_PAUSE = 0.02
_ENDED = (Outcome.CLOSED, Outcome.RESET)
_ASKED_ABOUT = (*_ENDED, Outcome.REFUSED, Outcome.NOT_ACCEPTED)


def look(cases: Sequence[Case], machine: Machine) -> None:
    """Gives each case the listeners on its port as they are now: one dump for all of them.

    Where a server is gone that has ended a connection, they are read until it is back or the time is over.
    """
    concerned = [case for case in cases if _concerned(case)]
    if not IS_LINUX:
        for case in concerned:
            case.later = NOT_LINUX
        return
    deadline = monotonic() + COMES_BACK
    while concerned:
        seen = sockets.listeners_before(frozenset(case.target.port for case in concerned)).listeners
        for case in concerned:
            case.later = _later(case, machine, seen)
        concerned = [case for case in concerned if _waits(case)]
        if not concerned or monotonic() > deadline:
            return
        sleep(_PAUSE)


def _concerned(case: Case) -> bool:
    return any(one.local and one.outcome in _ASKED_ABOUT for one in case.attempts)


def _waits(case: Case) -> bool:
    """Whether the server that ended a connection of it is not there."""
    ended = [one for one in case.attempts if one.local and one.outcome in _ENDED]
    return isinstance(case.later, Known) and any(_gone(one, case.later.value.listeners) for one in ended)


def _later(case: Case, machine: Machine, seen: Fact[tuple[SocketRow, ...]]) -> Fact[Later]:
    match seen:
        case Unknown() as unknown:
            return unknown
        case Known(value=found):
            rows = listeners_on(found, case.target.port)
            oldest = max((dial.age for dial in case.dials), default=0.0)
            return Known(Later(round(oldest * 1000, 3), rows, _holders(rows, machine)))


def _gone(attempt: Attempt, rows: tuple[SocketRow, ...]) -> bool:
    return not reached(rows, attempt.address, attempt.port)


def _holders(rows: tuple[SocketRow, ...], machine: Machine) -> Fact[Holders]:
    """Of sockets that are still the same ones the holders are known already."""
    inodes = frozenset(row.inode for row in rows)
    before = machine.tables.listeners.value if isinstance(machine.tables.listeners, Known) else ()
    if inodes <= {row.inode for row in before}:
        return machine.holders
    return Asked("socket owners", lambda: processes.holders(inodes, PROBE_SECONDS), PROBE_SECONDS).fact()
