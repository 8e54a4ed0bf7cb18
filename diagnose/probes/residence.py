"""Whose network namespace a process is in, and what put it there, from facts of /proc that any user may read."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable

from diagnose.model.elsewhere import Residence
from diagnose.parse.cgroup import membership
from diagnose.probes.containers import in_first_pid_namespace
from diagnose.probes.processes import describe

_PROCESSES = 512
"""So many processes of one namespace are asked for their units."""
_GENERATIONS = 64
_MANAGER = "systemd"


def of_process(pid: int | None, pids: Collection[int]) -> Residence:
    """That of a process among `pids`, which are those of its namespace; None: which of them it is, is hidden."""
    machine = _is_the_machine_s(pids)
    if machine:
        return Residence(machine=True)
    inside = frozenset(pids)
    units = _units(sorted(inside)[:_PROCESSES], inside)
    unit = _unit(pid) if pid is not None else None
    if pid is None and len(units) == 1 and {_unit(one) for one in sorted(inside)[:_PROCESSES]} == units:
        (unit,) = units
    mine = unit if unit in units else None
    launcher = 0 if mine or not inside else _outermost(pid if pid in inside and pid else min(inside), inside)
    process = describe(launcher) if launcher else None
    return Residence(
        machine=machine,
        unit=mine,
        shared_with=tuple(sorted(units - {mine})) if mine else (),
        launcher=process.program if process else "",
        launcher_pid=launcher if process else 0,
    )


def _is_the_machine_s(pids: Collection[int]) -> bool | None:
    """Whether the machine's first process is in it; None: that process is not seen from here (a container, hidepid)."""
    if not in_first_pid_namespace():
        return None
    if 1 in pids:
        return True
    try:
        os.stat("/proc/1/net/tcp")
    except OSError:
        return None
    return False


def _units(pids: Iterable[int], inside: Collection[int]) -> set[str]:
    """The units whose first process is in the namespace while the service manager that started it is outside."""
    found: set[str] = set()
    for pid in pids:
        parent = _parent(pid)
        if parent and parent not in inside and _program(parent) == _MANAGER and (unit := _unit(pid)):
            found.add(unit)
    return found


def _outermost(pid: int, inside: Collection[int]) -> int:
    """The oldest ancestor in the namespace; 0 where its parent is not seen."""
    for _ in range(_GENERATIONS):
        parent = _parent(pid)
        if parent not in inside:
            return pid if parent else 0
        pid = parent
    return 0


def _parent(pid: int) -> int:
    """Field 4 of /proc/PID/stat; 0 where it has none or has ended."""
    text = _text(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return int(text[1]) if len(text) > 1 else 0


def _unit(pid: int) -> str | None:
    return membership(_text(f"/proc/{pid}/cgroup")).unit


def _program(pid: int) -> str:
    return _text(f"/proc/{pid}/comm").rstrip("\n")


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="backslashreplace") as file:
            return file.read()
    except OSError:
        return ""
