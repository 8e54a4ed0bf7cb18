"""Units of a systemd service manager that have to do with the target's port (org.freedesktop.systemd1(5))."""

from __future__ import annotations

import re
from enum import StrEnum

from msgspec import Struct

from diagnose.model.bounds import Count, ExitStatus, Few, Pid, Uid


class Tie(StrEnum):
    """What joins a unit to the port, the surest first."""

    LISTENS = "ListenStream="
    """A socket unit that opens the port."""
    TRIGGERED = "Triggers="
    """The service that such a socket unit starts."""
    COMMAND = "ExecStart="
    """Its command line has the port."""
    ENVIRONMENT = "Environment="
    INSTANCE = "instance name"
    """It is an instance of a template, and the port is what stands behind the @."""
    FILE = "file"
    """A file that its command line or EnvironmentFile= names has the port."""
    USUAL = "usual port"
    """A service of this name usually serves this port."""


class Unit(Struct, frozen=True, kw_only=True):
    """One unit as its manager described it."""

    name: str
    tie: Tie
    owner: Uid | None = None
    """Uid of the user whose own service manager it belongs to; None: the system's."""
    tied_by: str = ""
    """The unit that triggers it, or the file that has the port."""
    load: str = ""
    """LoadState: loaded, not-found, masked, bad-setting ..."""
    active: str = ""
    """ActiveState: active, inactive, failed, activating, deactivating ..."""
    sub: str = ""
    """SubState: running, dead, start-pre, auto-restart, listening ..."""
    result: str = ""
    """Result: success, exit-code, signal, timeout, start-limit-hit, trigger-limit-hit ..."""
    since: str | None = None
    """RFC 3339 UTC, when the state last changed; None: not since the machine booted."""
    job: str = ""
    """The type of the job that waits or runs for it: start, stop ...; empty: none."""
    main: Pid = 0
    """MainPID; 0: no process of ExecStart= runs."""
    control: Pid = 0
    """ControlPID: a process of ExecStartPre=, ExecStartPost= and the like; 0: none."""
    exited: str = ""
    """How its last main process ended: exited, killed, dumped; empty: none has."""
    status: ExitStatus = 0
    """Its exit status, or the number of the signal."""
    restarts: Count = 0
    """NRestarts: automatic restarts since it was started by hand."""
    invocation: str = ""
    """InvocationID: another one each time that it is started."""
    starts: Count = 0
    """How often it was seen to be started while a connection of ours waited."""
    conditions_met: bool = True
    """ConditionResult: whether its Condition...= held when it was to be started last."""
    kind: str = ""
    """Type=: simple, exec, notify, forking, oneshot ..."""
    transient: bool = False
    """It was made by a command (systemd-run) and has no file that lasts."""
    families_denied: bool = False
    """RestrictAddressFamilies= forbids sockets of the target's address family."""
    bind_denied: bool = False
    """SocketBindDeny= forbids this port, and SocketBindAllow= does not allow it."""
    accept: bool = False
    """Accept= of a socket unit: one instance of the service for each connection."""
    connections: Count = 0
    """NConnections of such a one: instances that run now."""
    most_connections: Count = 0
    """Its MaxConnections."""
    listens_on: Few[str] = ()
    """ListenStream= of a socket unit, as the manager wrote it."""


class Ancestor(Struct, frozen=True):
    """A process that a holder of a socket descends from, inside the same unit."""

    pid: Pid
    program: str
    command: str = ""
    """What is harmless of its command line."""
    executable: str | None = None
    """None: it is hidden."""


class Lodger(Struct, frozen=True):
    """A process that holds a socket, and the unit that its cgroup belongs to."""

    process: Pid
    unit: str
    owner: Uid | None
    main: Pid
    """The unit's MainPID; 0: it has none, or it was not told."""
    ancestors: Few[Ancestor] = ()
    """Its parent, the parent's parent and so on, as far as they are in the same unit."""
    transient: bool = False
    """The unit was made by a command and has no file that lasts."""


class Units(Struct, frozen=True):
    """What the service managers said."""

    found: Few[Unit]
    """The surest first."""
    lodgers: Few[Lodger] = ()
    ours: str | None = None
    """The unit that netdiag itself runs in; None: in none."""
    ours_owner: Uid | None = None
    waited: bool = False
    """Whether a connection was given more time because a service was activating."""


def stream_address(where: str) -> tuple[str, int] | None:
    """Host and port of ListenStream=, as in [::1]:8080%lo; an empty host is every address. None: it has no port."""
    found = _STREAM.fullmatch(where)
    return ((found[1] or found[2] or "").replace("*", ""), int(found[3])) if found else None


_STREAM = re.compile(r"(?:\[([0-9A-Fa-f:.]*)\]:|([\d.]+|\*):)?(\d{1,5})(?:%\S+)?", re.ASCII)
