"""Who among those that have a port is frozen, by what, and what thaws it."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from diagnose.analysis.acceptors import acceptors
from diagnose.analysis.argument import is_unit
from diagnose.analysis.owner import Hidden, Owned, owner
from diagnose.analysis.publication import callable_name, container_name, containers_of, described, is_same
from diagnose.model.container import Status
from diagnose.model.fact import Known
from diagnose.model.finding import Command, Evidence, Remedy, Risk
from diagnose.model.freezer import FrozenCgroup
from diagnose.model.network import SocketRow
from diagnose.model.process import Container, Process
from diagnose.model.snapshot import Snapshot

_USER_MANAGER = "/user@"


def freezer_of(snapshot: Snapshot, process: Process) -> FrozenCgroup | None:
    """The frozen cgroup that the process is in."""
    return next((one for one in _frozen(snapshot) if process.pid in one.pids), None)


def freezer_of_hidden(snapshot: Snapshot, row: SocketRow) -> FrozenCgroup | None:
    """The frozen cgroup that the socket was made in, where its holder is hidden."""
    if not isinstance(owner(row, snapshot.holders), Hidden):
        return None
    return next((one for one in _frozen(snapshot) if row.inode in one.inodes), None)


def frozen_acceptors(snapshot: Snapshot, rows: Sequence[SocketRow]) -> FrozenCgroup | None:
    """The frozen cgroup, where no program can accept: every one that should is frozen or stopped, one at least frozen.

    Where a holder is hidden, the cgroup that its socket was made in counts.
    """
    found: list[FrozenCgroup] = []
    holders: list[Process] = []
    for row in rows:
        match owner(row, snapshot.holders):
            case Owned(processes=processes):
                holders.extend(processes)
            case _ if (hidden := freezer_of_hidden(snapshot, row)) is not None:
                found.append(hidden)
            case _:
                return None
    should = acceptors(holders).likely
    for one in should:
        frozen = freezer_of(snapshot, one)
        if frozen is not None:
            found.append(frozen)
        elif one.state != "T":
            return None
    return found[0] if found else None


def freezer_of_rows(snapshot: Snapshot, rows: Sequence[SocketRow]) -> FrozenCgroup | None:
    """The first frozen cgroup among those of the sockets' holders."""
    for row in rows:
        match owner(row, snapshot.holders):
            case Owned(processes=processes):
                found = next((one for each in processes if (one := freezer_of(snapshot, each))), None)
            case _:
                found = freezer_of_hidden(snapshot, row)
        if found is not None:
            return found
    return None


def _frozen(snapshot: Snapshot) -> tuple[FrozenCgroup, ...]:
    return snapshot.freezers.value if isinstance(snapshot.freezers, Known) else ()


# ------ in words


def frozen_name(frozen: FrozenCgroup) -> str:
    """What is frozen, as the start of a sentence: a container, a unit, or a cgroup by its last name."""
    if frozen.container is not None:
        return f"Container {container_name(frozen.container)}"
    directory = _outermost(frozen)
    unit = _unit(directory)
    return unit or f"Cgroup {directory.rpartition('/')[2]}"


def freezer_evidence(frozen: FrozenCgroup) -> tuple[Evidence, ...]:
    """The kernel's own words."""
    if frozen.is_version_1:
        said = Evidence(f"freezer.state of {frozen.directory}: FROZEN", "cgroup freezer")
    else:
        said = Evidence(f"cgroup.events of {frozen.directory}: frozen 1", "cgroup freezer")
    outer = [one for one in frozen.files if one.rpartition("/")[0] != frozen.directory]
    return (said, *(Evidence(f"{one}: frozen above it", "cgroup freezer") for one in outer[:3]))


def frozen_sentence(snapshot: Snapshot, rows: Sequence[SocketRow]) -> str:
    """What it means for a program that wants the port of these sockets; empty: none of their holders is frozen."""
    frozen = freezer_of_rows(snapshot, rows)
    if frozen is None:
        return ""
    name = frozen_name(frozen)
    if frozen.is_version_1:
        return f"{name} is frozen and keeps the port: no signal ends its processes before it is thawed."
    return (
        f"{name} is frozen and keeps the port: its processes act on a SIGTERM that they handle only after it is "
        "thawed, and systemd and the container engines refuse to stop what they froze."
    )


# ------ remedies


def thaw_remedies(snapshot: Snapshot, frozen: FrozenCgroup) -> tuple[Remedy, ...]:
    """How to thaw it by what froze it, then by the kernel's own file; the outermost cgroup comes first."""
    if frozen.container is not None:
        return _unpause(snapshot, frozen, frozen.container)
    units = [(file, _unit(file.rpartition("/")[0])) for file in frozen.files]
    named = [(file, unit) for file, unit in units if unit is not None]
    if not named or len(named) < len(units):
        return _write(frozen, first=True)
    return (_by_systemd(snapshot, named), *_write(frozen, first=False))


def thawed_first(snapshot: Snapshot, frozen: FrozenCgroup | None, remedies: Sequence[Remedy]) -> tuple[Remedy, ...]:
    """The remedies that stop or signal what is frozen, each with the commands that thaw it before its own."""
    if frozen is None:
        return tuple(remedies)
    thaw = next(iter(thaw_remedies(snapshot, frozen)), None)
    if thaw is None or not thaw.commands:
        return tuple(remedies)
    return tuple(_after(thaw, one) if one.commands else one for one in remedies)


def _after(thaw: Remedy, remedy: Remedy) -> Remedy:
    summary = f"{remedy.summary.rstrip('.')}. What is frozen is thawed first"
    return replace(remedy, summary=summary, commands=(*thaw.commands, *remedy.commands))


def _by_systemd(snapshot: Snapshot, named: Sequence[tuple[str, str]]) -> Remedy:
    units = [unit for _, unit in named]
    thaw = tuple(_systemctl(snapshot, file, "thaw", unit) for file, unit in named)
    freeze = tuple(_systemctl(snapshot, file, "freeze", unit) for file, unit in reversed(named))
    return Remedy(
        summary=f"Thaw {' and '.join(units)}: the processes run on where they were, and their clients are answered. "
        "systemctl restart and systemctl stop fail while a unit is frozen",
        commands=thaw,
        undo=freeze,
        risk=Risk.SAFE,
        survives_reboot=None,
    )


def _systemctl(snapshot: Snapshot, file: str, verb: str, unit: str) -> Command:
    """By the service manager that the unit belongs to: the system's, or a user's own."""
    manager = file.partition(_USER_MANAGER)[2].partition(".service/")[0]
    if not manager.isdecimal():
        return Command(("systemctl", verb, unit), needs_root=True)
    if int(manager) == snapshot.vantage.reader_uid:
        return Command(("systemctl", "--user", verb, unit))
    return Command(("systemctl", f"--machine={manager}@.host", "--user", verb, unit), needs_root=True)


def _write(frozen: FrozenCgroup, *, first: bool) -> tuple[Remedy, ...]:
    if not frozen.files:
        return ()
    thawed, held = ("THAWED", "FROZEN") if frozen.is_version_1 else ("0", "1")
    summary = "Thaw the cgroup by the kernel's own file"
    return (
        Remedy(
            summary=f"{summary}. The program that froze it may freeze it again"
            if first
            else f"If it is still frozen, another program than systemd wrote it: {summary[0].lower()}{summary[1:]}",
            commands=tuple(_printf(thawed, file) for file in frozen.files),
            undo=tuple(_printf(held, file) for file in reversed(frozen.files)),
            risk=Risk.SAFE,
            survives_reboot=None,
        ),
    )


def _printf(word: str, file: str) -> Command:
    return Command(("sh", "-c", f'printf {word} > "$0"', file), needs_root=True)


def _unpause(snapshot: Snapshot, frozen: FrozenCgroup, container: Container) -> tuple[Remedy, ...]:
    status = _status(snapshot, container)
    name = callable_name(container)
    if container.engine not in ("docker", "podman") or name is None or (status and status is not Status.PAUSED):
        return _write(frozen, first=True)
    theirs = frozen.directory.partition(_USER_MANAGER)[2].partition(".service/")[0]
    mine = theirs.isdecimal() and int(theirs) == snapshot.vantage.reader_uid
    summary = f"Unpause container {container_name(container)}"
    if theirs.isdecimal() and not mine:
        return (
            Remedy(summary=f"{summary} as its own user (user id {theirs}): {container.engine} unpause {name}"),
            *_write(frozen, first=False),
        )
    return (
        Remedy(
            summary=summary,
            commands=(Command((container.engine, "unpause", name), needs_root=not mine),),
            undo=(Command((container.engine, "pause", name), needs_root=not mine),),
            risk=Risk.SAFE,
            survives_reboot=None,
        ),
        *(() if status is Status.PAUSED else _write_after_engine(frozen, container)),
    )


def _write_after_engine(frozen: FrozenCgroup, container: Container) -> tuple[Remedy, ...]:
    said = f"If {container.engine} says that it is not paused, another program froze it"
    return tuple(replace(one, summary=f"{said}: thaw its cgroup") for one in _write(frozen, first=True))


def _status(snapshot: Snapshot, container: Container) -> Status | None:
    """What its engine says of it; None: the engine was not asked."""
    seen = containers_of(snapshot)
    if seen is None:
        return None
    return next((one.status for one in described(seen) if is_same(container, one.container)), None)


def _outermost(frozen: FrozenCgroup) -> str:
    return frozen.files[0].rpartition("/")[0] if frozen.files else frozen.directory


def _unit(directory: str) -> str | None:
    """The unit of a directory of systemd's, where it is one that systemctl can thaw."""
    name = directory.rpartition("/")[2]
    return name if name.endswith((".service", ".slice", ".scope")) and is_unit(name) else None
