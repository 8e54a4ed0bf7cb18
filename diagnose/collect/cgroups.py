"""When the cgroups of both ends are asked for their filters: at silence, and where connect or bind is forbidden."""

from __future__ import annotations

from diagnose.analysis.reach import reached
from diagnose.collect.case import PROBE_SECONDS, Case, Machine
from diagnose.model.attempt import Outcome
from diagnose.model.cgroup import CgroupFilters
from diagnose.model.fact import NOT_LINUX, NOT_NEEDED, Fact, Known
from diagnose.probes.bounded import Asked
from diagnose.probes.connect import IS_LINUX


def look(case: Case, machine: Machine, *, always: bool) -> Fact[CgroupFilters]:
    """What the kernel says of them; about 1 ms."""
    outcomes = [one.outcome for one in case.attempts] + [one.outcome for one in case.binds]
    forbidden = Outcome.DENIED in outcomes
    silent = any(one.local and one.outcome is Outcome.UNANSWERED for one in case.attempts)
    side = machine.vantage.side
    if not (forbidden or silent or always or (side is not None and side.pid is not None)):
        return NOT_NEEDED
    if not IS_LINUX:
        return NOT_LINUX
    from diagnose.probes import cgroup_filters  # brings ctypes with it: only where it is needed

    listeners = _listeners(case, machine)
    port = case.target.port
    there = side.pid if side is not None else None

    def probe() -> Fact[CgroupFilters]:
        return cgroup_filters.look(listeners, port, forbidden=forbidden, there=there)

    return Asked("cgroup filters", probe, PROBE_SECONDS).fact()


def _listeners(case: Case, machine: Machine) -> dict[int, tuple[int, ...]]:
    """The sockets that the local attempts reach, each with the pids of its holders."""
    rows = machine.tables.listeners.value if isinstance(machine.tables.listeners, Known) else ()
    holders = machine.holders.value.found if isinstance(machine.holders, Known) else ()
    inodes = {row.inode for one in case.attempts if one.local for row in reached(rows, one.address, one.port)}
    return {inode: tuple(one.process.pid for one in holders if one.inode == inode) for inode in inodes}
