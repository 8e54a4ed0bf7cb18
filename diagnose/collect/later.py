"""A second look at the listeners of a server that refused or ended a connection: it may have been restarted."""

from __future__ import annotations

from time import monotonic, sleep

from diagnose.analysis.reach import listeners_on, reached
from diagnose.collect.case import PROBE_SECONDS, Case, Machine
from diagnose.model.attempt import Attempt, Outcome
from diagnose.model.fact import NOT_LINUX, NOT_NEEDED, Fact, Known, Unknown
from diagnose.model.later import Later
from diagnose.model.network import SocketRow
from diagnose.model.process import Holders
from diagnose.probes import processes, sockets
from diagnose.probes.bounded import Asked
from diagnose.probes.connect import IS_LINUX

COMES_BACK = 0.5
"""Seconds that a server which ended a connection and is gone since has to come back."""
_PAUSE = 0.02
_ENDED = (Outcome.CLOSED, Outcome.RESET)
_ASKED_ABOUT = (*_ENDED, Outcome.REFUSED, Outcome.NOT_ACCEPTED)


def look(case: Case, machine: Machine) -> Fact[Later]:
    """The listeners on the target's port now; where the server is gone, when it is back or the time is over."""
    concerned = [one for one in case.attempts if one.local and one.outcome in _ASKED_ABOUT]
    if not concerned:
        return NOT_NEEDED
    if not IS_LINUX:
        return NOT_LINUX
    ended = [one for one in concerned if one.outcome in _ENDED]
    deadline = monotonic() + COMES_BACK
    while True:
        match sockets.listeners_before((case.target.port,)).listeners:
            case Unknown() as unknown:
                return unknown
            case Known(value=found):
                rows = listeners_on(found, case.target.port)
        if not any(_gone(one, rows) for one in ended) or monotonic() > deadline:
            break
        sleep(_PAUSE)
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
