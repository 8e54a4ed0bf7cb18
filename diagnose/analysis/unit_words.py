"""Units in words, and what starts one that should serve a port."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from diagnose.analysis.activation import Activation, fails
from diagnose.analysis.argument import is_unit, quoted
from diagnose.analysis.unit_control import journal, systemctl
from diagnose.model.finding import Command, Edit, Evidence, Remedy, Risk
from diagnose.model.network import Family
from diagnose.model.unit import Tie, Unit

_SIGNALS = {
    1: "SIGHUP",
    2: "SIGINT",
    6: "SIGABRT",
    9: "SIGKILL",
    11: "SIGSEGV",
    13: "SIGPIPE",
    15: "SIGTERM",
    31: "SIGSYS",
}
_RESULTS = {
    "timeout": "it took longer than its time limit",
    "watchdog": "it did not report to systemd's watchdog in time",
    "oom-kill": "killed by the OOM killer",
    "resources": "systemd could not set up what it needs",
    "protocol": "it did not do what its Type= promises",
    "start-limit-hit": "it was started too often in a short time, and systemd stopped trying",
    "service-start-limit-hit": "the service that it starts was started too often in a short time",
    "trigger-limit-hit": "it was triggered too often in a short time",
    "exec-condition": "its ExecCondition= said no",
}
"""Result= of services and sockets in words (systemd.service(5), org.freedesktop.systemd1(5))."""
_STEPS = {
    "condition": "ExecCondition=",
    "start-pre": "ExecStartPre=",
    "start-post": "ExecStartPost=",
}
CERTAIN = (Tie.LISTENS, Tie.TRIGGERED)
"""What systemd itself says of the port; all else is a candidate."""


def is_certain(unit: Unit) -> bool:
    """Whether it is what should have the port: a socket unit that was never started is a candidate like others."""
    never_started = unit.tie is Tie.LISTENS and unit.active == "inactive" and unit.since is None
    return unit.tie in CERTAIN and not never_started


def name(unit: Unit) -> str:
    """The unit as a sentence can have it."""
    return quoted(unit.name)


def short_name(unit: Unit) -> str:
    """The same for a title: an instance for one connection has the name of its template."""
    return f"An instance of {quoted(unit.name.partition('@')[0])}@.service" if _is_instance(unit) else name(unit)


def state(unit: Unit) -> str:
    """What it does, without its name: "has failed (its main process exited with status 1)"."""
    why = _why(unit)
    because = f" ({why})" if why else ""
    if unit.load == "masked":
        return "is masked, so nothing can start it"
    if unit.sub.startswith("auto-restart") or (unit.active == "activating" and unit.restarts > 1):
        times = f", {unit.restarts} time{'' if unit.restarts == 1 else 's'} so far" if unit.restarts else ""
        return f"ends, and systemd starts it again{times}{because}"
    if unit.starts > 1:
        return f"was started {unit.starts} times while the connection waited, and ended each time{because}"
    match unit.active:
        case "failed":
            return f"has failed{because}"
        case "activating":
            step = _STEPS.get(unit.sub)
            process = f" (pid {unit.control})" if unit.control else ""
            return f"is activating: its {step}{process} has not ended" if step else f"is activating ({unit.sub})"
        case "active":
            return f"is active ({unit.sub})" if unit.sub else "is active"
        case "inactive":
            if unit.job == "start":
                return "is about to be started"
            return "is not running" if unit.conditions_met else "is not running: its conditions were not met"
        case other:
            return f"is {other}"


def _why(unit: Unit) -> str:
    match unit.result, unit.exited:
        case "exit-code", "exited" if unit.status:
            return f"exit-code: its main process exited with status {unit.status}"
        case (("signal" | "core-dump"), ("killed" | "dumped")):
            signal = _SIGNALS.get(unit.status, f"signal {unit.status}")
            note = ", the system call filter's" if signal == "SIGSYS" else ""
            return f"{unit.result}: its main process was killed by {signal}{note}"
        case (("" | "success"), "exited") if unit.sub.startswith("auto-restart"):
            return f"its main process exited with status {unit.status}"
        case (("" | "success"), _):
            return ""
        case result, _:
            words = _RESULTS.get(result)
            return f"{result}: {words}" if words else result


def tied(unit: Unit) -> str:
    """What joins it to the port: "its ExecStart= has port 8080"."""
    match unit.tie:
        case Tie.LISTENS:
            return "its ListenStream= is this port"
        case Tie.TRIGGERED:
            return f"{quoted(unit.tied_by)} starts it"
        case Tie.COMMAND | Tie.ENVIRONMENT:
            return f"its {unit.tie.value} has this port"
        case Tie.INSTANCE:
            return "its instance name is this port"
        case Tie.FILE:
            return f"{unit.tied_by}, which it reads, has this port"
        case Tie.USUAL:
            return "it usually serves this port"


def evidence(unit: Unit) -> Evidence:
    """Its state, since when, and why it is named, as systemd has it."""
    since = f" since {unit.since.replace('T', ' ').replace('Z', ' UTC')}" if unit.since else ""
    denied = "".join(f"; {one}" for one in denials(unit))
    user = " --user" if unit.owner is not None else ""
    source = f"systemctl{user} show {unit.name}" if is_unit(unit.name) else "systemd"
    return Evidence(f"{name(unit)} {state(unit)}{since}; {tied(unit)}{denied}", source)


def denials(unit: Unit) -> tuple[str, ...]:
    """What the unit's own settings keep it from."""
    return (
        *(("its SocketBindDeny= forbids to bind this port",) if unit.bind_denied else ()),
        *(("its RestrictAddressFamilies= forbids sockets of this address family",) if unit.families_denied else ()),
    )


def is_down(unit: Unit) -> bool:
    """Whether it does not run, or does not stay up."""
    return unit.active != "active" or fails(unit)


# ------ remedies


def unit_remedies(unit: Unit, port: int, families: Sequence[Family], uid: int) -> Iterator[Remedy]:
    """How `uid` gets it to run and stay up, in the order in which it helps."""
    if not is_unit(unit.name):
        return
    who = unit.name if is_certain(unit) else f"{unit.name}, if that is the server ({tied(unit)})"
    if unit.load == "masked":
        yield _unmask(unit, uid, who)
    elif denials(unit):
        yield _allow(unit, port, families, uid, who)
        yield from _read_its_log(unit, uid)
    elif unit.sub.startswith("auto-restart") or unit.starts > 1 or (unit.active == "activating" and fails(unit)):
        yield from _read_its_log(unit, uid)
    elif unit.active == "failed":
        yield _start_again(unit, uid, who)
    elif unit.active == "activating" or unit.job == "start":
        yield from _see_what_it_waits_for(unit, uid)
    elif unit.active == "inactive":
        yield _start(unit, uid, who)
    elif unit.active == "active" and unit.tie not in CERTAIN:
        yield from _read_its_log(unit, uid)


def activation_remedies(found: Activation, port: int, families: Sequence[Family], uid: int) -> Iterator[Remedy]:
    """The service first, since the socket unit fails by it, and then the socket unit."""
    service, socket = found.service, found.socket
    if service is None or not is_unit(service.name) or not is_unit(socket.name):
        yield from unit_remedies(socket, port, families, uid)
        return
    if denials(service):
        yield from unit_remedies(service, port, families, uid)
        return
    if socket.active == "failed" or fails(service):
        log = journal(service.owner, uid, service.name)
        failed = [one for one in (service, socket) if one.active == "failed" and not _is_instance(one)]
        again = [systemctl(one.owner, uid, "reset-failed", one.name) for one in failed]
        start = [systemctl(socket.owner, uid, "start", socket.name)] if socket.active != "active" else []
        yield Remedy(
            summary=f"Read why {service.name} ends, and put that right"
            + (f"; then forget the failures and start {socket.name} again" if start else "")
            + ". The next connection starts the service.",
            commands=(*log, *again, *start),
            undo=(systemctl(socket.owner, uid, "stop", socket.name),) if start else (),
        )
    elif socket.active == "inactive":
        yield _start(socket, uid, socket.name)
    else:
        yield from unit_remedies(service, port, families, uid)


def restart_service(service: Unit, uid: int) -> Remedy:
    """For one that runs and does not accept."""
    return Remedy(
        summary=f"Restart {service.name}; what its clients were doing is lost",
        commands=(systemctl(service.owner, uid, "restart", service.name),),
        risk=Risk.DISRUPTIVE,
    )


def _is_instance(unit: Unit) -> bool:
    return "@" in unit.name and ":" in unit.name


def _start(unit: Unit, uid: int, who: str) -> Remedy:
    unmet = "" if unit.conditions_met else " Its conditions were not met last time: systemctl status shows which."
    return Remedy(
        summary=f"Start {who}. To have it started at every boot as well, enable it.{unmet}",
        commands=(systemctl(unit.owner, uid, "start", unit.name),),
        undo=(systemctl(unit.owner, uid, "stop", unit.name),),
        survives_reboot=False,
    )


def _start_again(unit: Unit, uid: int, who: str) -> Remedy:
    reset = () if unit.transient else (systemctl(unit.owner, uid, "reset-failed", unit.name),)
    return Remedy(
        summary=f"Read why {unit.name} failed, and start it again: {who}. If it fails again, put right what its log "
        "says first.",
        commands=(
            *journal(unit.owner, uid, unit.name),
            *reset,
            systemctl(unit.owner, uid, "start", unit.name),
        ),
        undo=(systemctl(unit.owner, uid, "stop", unit.name),),
        survives_reboot=False,
    )


def _unmask(unit: Unit, uid: int, who: str) -> Remedy:
    return Remedy(
        summary=f"Unmask and start {who}. It was masked on purpose: find out why first.",
        commands=tuple(systemctl(unit.owner, uid, verb, unit.name) for verb in ("unmask", "start")),
        undo=tuple(systemctl(unit.owner, uid, verb, unit.name) for verb in ("stop", "mask")),
        survives_reboot=True,
    )


def _read_its_log(unit: Unit, uid: int) -> Iterator[Remedy]:
    commands = journal(unit.owner, uid, unit.name)
    if commands:
        yield Remedy(
            summary=f"Read the last lines of the log of {unit.name}: it says why it {_trouble(unit)}", commands=commands
        )


def _trouble(unit: Unit) -> str:
    return "does not listen" if unit.active == "active" and not fails(unit) else "ends"


def _see_what_it_waits_for(unit: Unit, uid: int) -> Iterator[Remedy]:
    commands = journal(unit.owner, uid, unit.name)
    step = _STEPS.get(unit.sub)
    waits = f"its {step} has to end first" if step else "systemd waits until it is ready"
    yield Remedy(
        summary=f"Wait until {unit.name} has started: {waits}."
        + (" If that takes too long, its log says what it waits for." if commands else ""),
        commands=commands,
    )


def _allow(unit: Unit, port: int, families: Sequence[Family], uid: int, who: str) -> Remedy:
    """A drop-in adds to the lists of the unit file (systemd.exec(5), systemd.resource-control(5))."""
    lines = (
        *((f"SocketBindAllow=tcp:{port}",) if unit.bind_denied else ()),
        *((f"RestrictAddressFamilies={' '.join(_families(families))}",) if unit.families_denied else ()),
    )
    commands: tuple[Command, ...] = (
        systemctl(unit.owner, uid, "daemon-reload"),
        *((systemctl(unit.owner, uid, "reset-failed", unit.name),) if unit.active == "failed" else ()),
        systemctl(unit.owner, uid, "restart", unit.name),
    )
    summary = f"Allow it in {who}: add {' and '.join(lines)} to its [Service] section, and start it again"
    if unit.owner is not None or unit.transient:
        return Remedy(summary=f"{summary} (systemctl edit, or the command that made it).")
    return Remedy(
        summary=f"{summary}. To take it back, delete the lines and do the same.",
        edits=(Edit(f"/etc/systemd/system/{unit.name}.d/override.conf", None, "\n".join(("[Service]", *lines))),),
        commands=commands,
        risk=Risk.DISRUPTIVE,
        survives_reboot=True,
    )


def _families(families: Sequence[Family]) -> list[str]:
    return sorted({"AF_INET6" if one == "ipv6" else "AF_INET" for one in families}) or ["AF_INET"]
