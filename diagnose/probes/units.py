"""The units that have to do with a port, and the units that the holders of its sockets live in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any

from msgspec.structs import replace

from diagnose.model.fact import NOT_NEEDED, Fact, Known, Reason, Unknown
from diagnose.model.process import Process
from diagnose.model.unit import Ancestor, Lodger, Tie, Unit, Units
from diagnose.parse.cgroup import membership
from diagnose.parse.mask import mask_path
from diagnose.parse.unit import (
    SERVICE,
    UNIT,
    WORDS,
    Listed,
    described,
    environment_paths,
    instance_port,
    is_of_a_client,
    listens,
    paths_in_command,
    port_in_command,
    port_in_environment,
    port_in_file,
    unit,
    usual_units,
)
from diagnose.probes import regular_file, unit_files
from diagnose.probes.manager import Manager, NoAnswerError, is_of_this_network
from diagnose.probes.processes import describe

_UNITS = 8
"""Units that are described: a port has seldom more than two."""
_ASKED = 32
"""Services whose words are read."""
_FILES = 4
_LARGEST = 1 << 18
"""Bytes of a file named by a unit that is read."""
_ANCESTORS = 16
_LODGERS = 16
_FILE_SECONDS = 0.3
_TIES = list(Tie)


def look(port: int, families: Sequence[int], holders: Sequence[Process], reader: int, seconds: float) -> Fact[Units]:
    """What the system's manager says, and that of the user `reader`, where systemd is pid 1; about 5 ms.

    `families`: of the addresses asked for. `holders`: the processes whose units matter. Where pid 1 is in another
    network namespace, or has no socket for us, there is nothing to be asked.
    """
    if not is_of_this_network():
        return NOT_NEEDED
    found: list[Unit] = []
    lodgers: list[Lodger] = []
    for owner in _owners(holders, reader):
        try:
            with closing(Manager(owner, seconds)) as manager:
                found += _tied(manager, port, families)
                lodgers += _lodgers(manager, holders)
        except NoAnswerError as error:
            if owner is None:
                return Unknown(Reason.DEADLINE, str(error)) if error.late else NOT_NEEDED
    own = _membership("self")
    found = [one for one in found if (one.name, one.owner) != own or one.tie in (Tie.LISTENS, Tie.TRIGGERED)]
    found.sort(key=lambda one: (_TIES.index(one.tie), one.active == "active", one.name))
    return Known(Units(tuple(found[:_UNITS]), tuple(lodgers[:_LODGERS]), own[0], own[1]))


def again(units: Units, port: int, families: Sequence[int], seconds: float) -> tuple[Unit, ...]:
    """The units as they are now. Raises NoAnswerError."""
    now: list[Unit] = []
    for owner in dict.fromkeys(one.owner for one in units.found):
        with closing(Manager(owner, seconds)) as manager:
            now += _described(manager, [one for one in units.found if one.owner == owner], port, families)
    return tuple(now)


def _owners(holders: Sequence[Process], reader: int) -> tuple[int | None, ...]:
    """The managers to ask: the system's, the reader's, and those of the holders' units."""
    of_holders = [one.unit_owner for one in holders if one.unit and one.unit_owner is not None]
    return tuple(dict.fromkeys((None, *((reader,) if reader > 0 else ()), *of_holders)))[:4]


# ------ units that have to do with the port


def _tied(manager: Manager, port: int, families: Sequence[int]) -> list[Unit]:
    files = unit_files.look(port, manager.owner, _FILE_SECONDS)
    usual = usual_units(port) if manager.owner is None else ()
    patterns = ("*.socket", f"*@*{port}.service", *(one for one in usual if "*" in one))
    named = (*files.with_port, *(one for one in usual if "*" not in one), *files.made_here[:_ASKED])
    loaded, troubled, by_name = manager.lists(
        ((), patterns), (("failed", "activating", "deactivating"), ("*.service",)), names=tuple(dict.fromkeys(named))
    )
    listed = {one[0]: one for one in (*loaded, *troubled, *by_name) if one[2] not in ("not-found", "error")}
    ties = {
        **_by_port(listed, port),
        **_by_words(manager, _to_be_read(listed, files, troubled), port),
        **_by_sockets(manager, listed, port),
    }
    for name in usual:
        ties.update((one, (Tie.USUAL, "")) for one in _like(name, listed) if one not in ties and _is_down(listed[one]))
    missing = [name for name in ties if name not in listed]
    if missing:
        listed.update((one[0], one) for one in manager.lists(names=missing)[-1])
    first = sorted((name for name in ties if name in listed), key=lambda name: _TIES.index(ties[name][0]))
    units = [unit(listed[name], *ties[name], manager.owner) for name in first[:_UNITS]]
    return _described(manager, units, port, families)


def _by_port(listed: Mapping[str, Listed], port: int) -> dict[str, tuple[Tie, str]]:
    return {name: (Tie.INSTANCE, "") for name in listed if instance_port(name, port)}


def _by_sockets(manager: Manager, listed: Mapping[str, Listed], port: int) -> dict[str, tuple[Tie, str]]:
    """The socket units that open the port, and what they start: a service, or an instance for each connection."""
    sockets = [name for name in listed if name.endswith(".socket")]
    ties: dict[str, tuple[Tie, str]] = {}
    opening = [name for name, where in zip(sockets, manager.addresses(sockets), strict=True) if listens(where, port)]
    for name, triggered in zip(opening, manager.triggers(opening), strict=True):
        ties[name] = (Tie.LISTENS, "")
        template = f"{name.removesuffix('.socket')}@"
        instances = [one for one in listed if one.startswith(template) and one.endswith(".service")]
        ties.update((one, (Tie.TRIGGERED, name)) for one in (*triggered, *instances) if one.endswith(".service"))
    return ties


def _to_be_read(
    listed: Mapping[str, Listed], files: unit_files.UnitFiles, troubled: Sequence[Listed]
) -> tuple[str, ...]:
    """The services whose words can have the port; those that do not run come first."""
    stopped = (name for name in files.made_here if name in listed and _is_down(listed[name]))
    wanted = dict.fromkeys((*files.with_port, *(one[0] for one in troubled), *stopped))
    return tuple(name for name in wanted if name in listed and name.endswith(".service"))[:_ASKED]


def _by_words(manager: Manager, services: Sequence[str], port: int) -> dict[str, tuple[Tie, str]]:
    said = manager.properties(services, WORDS)
    ties = zip(services, (_tie_of_words(one, port) for one in said), strict=True)
    return {name: tie for name, tie in ties if tie is not None}


def _tie_of_words(said: Mapping[str, Any], port: int) -> tuple[Tie, str] | None:
    commands: list[tuple[str, ...]] = [one[1] for one in said.get("ExecStart", ())]
    if any(map(is_of_a_client, commands)):
        return None
    if any(port_in_command(argv, port) for argv in commands):
        return Tie.COMMAND, ""
    if port_in_environment(said.get("Environment", ()), port):
        return Tie.ENVIRONMENT, ""
    paths = [*environment_paths(said.get("EnvironmentFiles", ())), *(p for argv in commands for p in _of(argv))]
    for path in dict.fromkeys(paths[: 2 * _FILES]):
        if port_in_file(_text(path), port):
            return Tie.FILE, mask_path(path)
    return None


def _of(argv: Sequence[str]) -> Iterator[str]:
    yield from paths_in_command(argv)


def _text(path: str) -> str:
    """A file that a unit names, where it is one of text and anybody may read it; else empty."""
    try:
        content = regular_file.read_of_others(path, _LARGEST)
    except OSError:
        return ""
    return "" if b"\0" in content else content.decode("utf-8", "backslashreplace")


def _like(pattern: str, names: Iterable[str]) -> list[str]:
    head, star, tail = pattern.partition("*")
    if not star:
        return [one for one in names if one == pattern]
    return [one for one in names if one.startswith(head) and one.endswith(tail)]


def _is_down(listed: Listed) -> bool:
    return listed[3] != "active"


def _described(manager: Manager, units: Sequence[Unit], port: int, families: Sequence[int]) -> list[Unit]:
    """These with what the manager says of them now."""
    names = [one.name for one in units]
    if not names:
        return []
    listed = {one[0]: one for one in manager.lists(names=names)[-1]}
    said = manager.properties(names)
    return [
        described(
            replace(unit(listed[one.name], one.tie, one.tied_by, one.owner), starts=one.starts)
            if one.name in listed
            else one,
            properties,
            port,
            families,
        )
        for one, properties in zip(units, said, strict=True)
    ]


# ------ units that processes live in


def _lodgers(manager: Manager, holders: Sequence[Process]) -> list[Lodger]:
    """The holders in services of this manager, each with the main process of its unit."""
    found = [one for one in holders if one.unit and one.unit_owner == manager.owner and one.container is None]
    services = tuple(dict.fromkeys(one.unit for one in found if one.unit))
    said = dict(zip(services, manager.properties(services, ((SERVICE, "MainPID"), (UNIT, "Transient"))), strict=True))
    return [
        Lodger(
            one.pid,
            one.unit,
            one.unit_owner,
            int(said[one.unit].get("MainPID", 0)),
            tuple(_ancestors(one)),
            bool(said[one.unit].get("Transient", False)),
        )
        for one in found[:_LODGERS]
        if one.unit
    ]


def _ancestors(process: Process) -> Iterator[Ancestor]:
    """Its parents as far as they are in the same unit."""
    pid = process.parent
    for _ in range(_ANCESTORS):
        if pid <= 1 or _membership(str(pid)) != (process.unit, process.unit_owner):
            return
        parent = describe(pid)
        if parent is None:
            return
        yield Ancestor(pid, parent.program, parent.command, parent.executable)
        pid = parent.parent


def _membership(pid: str) -> tuple[str | None, int | None]:
    try:
        with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="backslashreplace") as file:
            found = membership(file.read())
    except OSError:
        return None, None
    return found.unit, found.unit_owner
