"""Whether a unit is there for a process, or the process merely runs inside it."""

from __future__ import annotations

from enum import Enum, auto

from diagnose.model.fact import Fact, Known
from diagnose.model.process import Process
from diagnose.model.unit import Ancestor, Lodger, Units

_SHELLS = frozenset(("bash", "sh", "dash", "zsh", "fish", "ksh", "csh", "tcsh", "busybox"))
_INTERPRETERS = (
    "python",
    "pypy",
    "node",
    "ruby",
    "perl",
    "java",
    "php",
    "deno",
    "bun",
    "dotnet",
    "lua",
    "tclsh",
    "Rscript",
)
"""Programs that are whatever they are given to run: that parent and child are both one of them says nothing."""


class Tenancy(Enum):
    """What a process is to the unit of its cgroup."""

    OWNER = auto()
    """The main process, or one that the main process runs as its own worker."""
    GUEST = auto()
    """Something that was started inside the unit: a job of a runner, a program in a session."""
    WITH_US = auto()
    """netdiag runs in the same unit, so that nothing may stop that."""
    UNKNOWN = auto()


def tenancy(process: Process, units: Fact[Units]) -> Tenancy:
    """By the unit's main process and the parents in between, as systemd and /proc have them."""
    if not isinstance(units, Known) or process.unit is None:
        return Tenancy.UNKNOWN
    if (units.value.ours, units.value.ours_owner) == (process.unit, process.unit_owner):
        return Tenancy.WITH_US
    found = next((one for one in units.value.lodgers if one.process == process.pid), None)
    if found is None or found.unit != process.unit or not found.main:
        return Tenancy.UNKNOWN
    return Tenancy.OWNER if _is_its_own(process, found) else Tenancy.GUEST


def _is_its_own(process: Process, lodger: Lodger) -> bool:
    """The main process, or a descendant of it that only workers of the same program lead to.

    A main process that is a shell may be the server's start script, or a runner's: which is not known, and a unit that
    is stopped by mistake takes everything in it along.
    """
    if process.pid == lodger.main:
        return True
    between = lodger.ancestors[: _place(lodger) + 1]
    if not between or between[-1].pid != lodger.main:
        return False
    return all(_is_one_program(process, one) for one in between)


def _is_one_program(process: Process, parent: Ancestor) -> bool:
    """Whether the one is a worker of the other: it runs the same program, and of an interpreter with the same words."""
    if process.executable is not None and parent.executable is not None:
        same = process.executable == parent.executable
    else:
        same = process.program == parent.program
    runs = (process.executable or process.program).rpartition("/")[2]
    if not same or runs in _SHELLS:
        return False
    return process.command == parent.command if runs.startswith(_INTERPRETERS) else True


def _place(lodger: Lodger) -> int:
    """Of the main process among the ancestors; behind the last where it is not one of them."""
    pids = [one.pid for one in lodger.ancestors]
    return pids.index(lodger.main) if lodger.main in pids else len(pids)
