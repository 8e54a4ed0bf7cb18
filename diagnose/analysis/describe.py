"""Processes in words, and how to stop one in the terms of the tool that runs it."""

from __future__ import annotations

from typing import assert_never

from diagnose.analysis.argument import is_container, is_unit
from diagnose.analysis.owner import Hidden, Owned, Owner, OwnerUnknown, Unheld
from diagnose.analysis.tenancy import Tenancy, tenancy
from diagnose.analysis.unit_control import systemctl
from diagnose.model.fact import NOT_NEEDED, Fact, Known
from diagnose.model.finding import Command, Remedy, Risk
from diagnose.model.process import Container, Process
from diagnose.model.unit import Tie, Units

_LAUNCHERS = frozenset(
    ("atd", "containerd", "cron", "crond", "dbus", "docker", "gdm", "getty", "podman", "serial-getty", "snapd", "ssh")
) | {"sshd", "systemd-logind", "systemd-user-sessions"}
"""Services whose cgroup holds what they started for others: to stop them would stop far more than this process."""
_FORWARDERS = frozenset(("docker-proxy", "conmon", "rootlessport", "pasta", "slirp4netns"))
"""Programs that hold a published port for a container engine, which restarts or outlives them."""
_SERVICE_MANAGERS = ("systemd", "init")
_NO_UNDO = "This cannot be undone; start the program again afterwards."


def describe_process(process: Process) -> str:
    """python3 (pid 123, user bob, since 2026-11-23 10:02:11 UTC): python3 -m http.server 8080."""
    since = process.started_at.replace("T", " ").replace("Z", " UTC")
    home = process.unit or (_container_name(process.container) if process.container else None)
    place = f", in {home}" if home else ""
    command = f": {process.command}" if process.command else ""
    return f"{process.program} (pid {process.pid}, user {process.user}, since {since}{place}){command}"


def describe_owner(owner: Owner) -> str:
    """Who owns a socket, or why that is not known, as one line."""
    match owner:
        case Owned(processes=processes):
            return "held by " + "; ".join(describe_process(one) for one in processes)
        case Hidden(uid=uid, lift=lift):
            return f"owner hidden: a process of {user_words(uid)} ({lift})"
        case Unheld():
            return "no process has a descriptor of it"
        case OwnerUnknown(unknown=unknown):
            return f"owner not known: {unknown}"
        case _:
            assert_never(owner)


def user_words(uid: int) -> str:
    """root, or user id 1000: the name of a user whose processes are hidden is not looked up; -1 is not told."""
    if uid < 0:
        return "another user"
    return "root" if uid == 0 else f"user id {uid}"


def halted(process: Process) -> str:
    """stopped, or traced: what keeps it from acting on a signal; empty where nothing does."""
    return {"T": "stopped", "t": "traced"}.get(process.state, "")


def state_sentence(process: Process) -> str:
    """What the state of a holder means for a program that wants its port; empty where it means nothing."""
    name = f"{process.program} (pid {process.pid})"
    match process.state:
        case "T":
            return (
                f"{name} is stopped (Ctrl-Z or SIGSTOP) and keeps the port: a stopped process acts on SIGTERM only "
                "after it is resumed."
            )
        case "t":
            by = f"pid {process.tracer}, a debugger or strace" if process.tracer else "a debugger or strace"
            return f"{name} is held by {by}, and acts on SIGTERM only after that lets it run."
        case "D":
            return f"{name} waits in the kernel (state D, mostly for a disk or network file system): signals wait too."
        case "Z":
            return (
                f"The first thread of {name} has ended, so ps calls it a zombie; its other threads live and keep the "
                "port, and kill ends them."
            )
        case _:
            return ""


def stop_remedies(
    process: Process, uid: int, sharers: tuple[Process, ...] = (), units: Fact[Units] = NOT_NEEDED
) -> tuple[Remedy, ...]:
    """How `uid` stops the process, by the tool that owns it; SIGTERM where nobody else does.

    `sharers` hold the port with it, as its workers do. `units`: what systemd says of the unit that it runs in.
    """
    if is_service_manager(process):
        return _stop_sockets(process, uid, units)
    if process.pid == 1:
        return (
            Remedy(summary=f"{process.program} is pid 1 here: it ends with the container (docker stop, from outside)."),
        )
    if process.program in _FORWARDERS:
        return (
            Remedy(
                summary=f"{process.program} holds it for a container: find the container that publishes the port "
                "(docker ps or podman ps, column PORTS) and stop that; the engine looks after this process."
            ),
        )
    stopped = _stop_container(process, uid) or _stop_unit(process, uid, units)
    asleep = tuple(one for one in (process, *sharers) if one.state == "T")
    return (
        *([stopped] if stopped else []),
        _terminate(process, uid, asleep, instead=stopped is not None, lodges=_lodging(process, units)),
        *([_resume(asleep, uid)] if asleep else []),
    )


def is_service_manager(process: Process) -> bool:
    """Whether it is systemd, which opens sockets for units and serves none of them itself."""
    executor = (process.executable or "").endswith("/systemd-executor")  # on its way to be a service
    return executor or (process.program in _SERVICE_MANAGERS and (process.pid == 1 or process.parent == 1))


def _stop_sockets(process: Process, uid: int, units: Fact[Units]) -> tuple[Remedy, ...]:
    """The socket units that a service manager holds the port for, and the services that have it as well."""
    found = units.value.found if isinstance(units, Known) else ()
    owner = None if process.pid == 1 else process.uid
    sockets = [one for one in found if one.tie is Tie.LISTENS and one.active == "active" and one.owner == owner]
    if not sockets or not all(is_unit(one.name) for one in sockets):
        user = "" if owner is None else " --user"
        return (
            Remedy(
                summary=f"{process.program} (pid {process.pid}) holds it for a socket unit: systemctl{user} "
                "list-sockets names the unit to stop."
            ),
        )
    served = [
        one
        for one in found
        if one.tie is Tie.TRIGGERED and one.active in ("active", "activating") and one.owner == owner
        if is_unit(one.name) and not _is_ours(one.name, one.owner, units)
    ]
    names = [*(one.name for one in sockets), *(one.name for one in served)]
    return (
        Remedy(
            summary=f"Stop {' and '.join(names)}: systemd opened the port for {sockets[0].name}",
            commands=tuple(systemctl(owner, uid, "stop", one) for one in names),
            undo=tuple(systemctl(owner, uid, "start", one.name) for one in sockets),
            risk=Risk.DISRUPTIVE,
            survives_reboot=False,
        ),
    )


def restart_remedies(process: Process, uid: int, units: Fact[Units] = NOT_NEEDED) -> tuple[Remedy, ...]:
    """How `uid` restarts the process by the tool that owns it; nothing where a person started it by hand."""
    stop = _stop_container(process, uid) or _stop_unit(process, uid, units)
    if stop is None:
        return ()
    return (
        Remedy(
            summary=f"{stop.summary.replace('Stop', 'Restart', 1)}; what its clients were doing is lost",
            commands=tuple(Command((*c.argv[:-2], "restart", c.argv[-1]), c.needs_root) for c in stop.commands),
            risk=Risk.DISRUPTIVE,
        ),
    )


def _stop_container(process: Process, uid: int) -> Remedy | None:
    container = process.container
    if container is None or container.engine not in ("docker", "podman"):
        return None
    if container.engine == "podman" and process.unit:
        return None  # started by a unit, which would start it again
    needs_root = container.engine == "docker" or process.uid != uid
    if container.engine == "podman" and needs_root and process.uid != 0:
        return None  # a rootless container: root's own podman does not know it
    shown = container.name or container.id[:12]
    name = shown if is_container(shown) else container.id[:12]
    return Remedy(
        summary=f"Stop the {container.engine} container {shown} that it belongs to",
        commands=(Command((container.engine, "stop", name), needs_root),),
        undo=(Command((container.engine, "start", name), needs_root),),
        risk=Risk.DISRUPTIVE,
        survives_reboot=None,
    )


def _stop_unit(process: Process, uid: int, units: Fact[Units]) -> Remedy | None:
    """By its unit, where the unit is there for this process: stopping one ends everything that was started in it."""
    unit = process.unit
    if unit is None or not is_unit(unit) or tenancy(process, units) is not Tenancy.OWNER:
        return None
    if _base(unit) in _LAUNCHERS and not _is_main(process, units):
        return None
    return Remedy(
        summary=f"Stop the unit {unit} that it belongs to",
        commands=(systemctl(process.unit_owner, uid, "stop", unit),),
        undo=() if _is_transient(process, units) else (systemctl(process.unit_owner, uid, "start", unit),),
        risk=Risk.DISRUPTIVE,
        survives_reboot=False,
    )


def _is_main(process: Process, units: Fact[Units]) -> bool:
    lodgers = units.value.lodgers if isinstance(units, Known) else ()
    return any(one.process == process.pid == one.main for one in lodgers)


def _is_transient(process: Process, units: Fact[Units]) -> bool:
    """Whether the unit was made by a command, and is gone when it is stopped."""
    lodgers = units.value.lodgers if isinstance(units, Known) else ()
    return any(one.process == process.pid and one.transient for one in lodgers)


def _is_ours(unit: str, owner: int | None, units: Fact[Units]) -> bool:
    return isinstance(units, Known) and (units.value.ours, units.value.ours_owner) == (unit, owner)


def _lodging(process: Process, units: Fact[Units]) -> str:
    """Why its unit is not what to stop; empty where it has none, or is what the unit is there for."""
    if process.unit is None:
        return ""
    match tenancy(process, units):
        case Tenancy.GUEST:
            return f" It was started inside {process.unit}, and is not what that unit is there for."
        case Tenancy.WITH_US:
            return f" netdiag itself runs inside {process.unit}: stopping that unit would end this session as well."
        case Tenancy.OWNER | Tenancy.UNKNOWN:
            return ""


def _terminate(process: Process, uid: int, asleep: tuple[Process, ...], *, instead: bool, lodges: str) -> Remedy:
    """A signal waits for a stopped process until SIGCONT, and for a traced one until its tracer lets it go."""
    ask = f"Ask {process.program} to end (SIGTERM)"
    ask += ", and resume it so that it can" if asleep else ""
    ask += f", and its tracer (pid {process.tracer}), so that it can" if _is_held(process) else ""
    why = f"Or {ask[0].lower()}{ask[1:]}; what runs it may start it again" if instead else ask
    every = tuple(dict.fromkeys((process, *asleep)))
    needs_root = any(one.uid != uid for one in every)
    commands: tuple[Command, ...] = (Command(("kill", str(process.pid)), needs_root),)
    if asleep:
        commands = (_kill("-TERM", every, needs_root), _kill("-CONT", asleep, needs_root))
    if _is_held(process):  # often root's, as an ordinary user may not attach to a running process (ptrace_scope)
        commands += (Command(("kill", str(process.tracer)), needs_root=True),)
    return Remedy(summary=f"{why}.{lodges} {_NO_UNDO}", commands=commands, risk=Risk.DISRUPTIVE, survives_reboot=None)


def _is_held(process: Process) -> bool:
    return process.state == "t" and process.tracer > 0


def _resume(asleep: tuple[Process, ...], uid: int) -> Remedy:
    needs_root = any(one.uid != uid for one in asleep)
    return Remedy(
        summary="Or resume it, if it is the server that you want (in its own terminal: fg)",
        commands=(_kill("-CONT", asleep, needs_root),),
        undo=(_kill("-STOP", asleep, needs_root),),
        survives_reboot=None,
    )


def _kill(signal: str, processes: tuple[Process, ...], needs_root: bool) -> Command:
    return Command(("kill", signal, *(str(one.pid) for one in processes)), needs_root)


def _base(unit: str) -> str:
    """ssh for ssh.service, getty for getty@tty1.service."""
    return unit.removesuffix(".service").partition("@")[0]


def _container_name(container: Container) -> str:
    return f"{container.engine} container {container.name or container.id[:12]}"
