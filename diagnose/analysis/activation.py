"""Socket activation: which socket unit took a connection, and what became of the service that it starts."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from msgspec import Struct
from msgspec.structs import replace

from diagnose.analysis.describe import is_service_manager
from diagnose.analysis.owner import Owned, owner
from diagnose.analysis.reach import reached, unmapped
from diagnose.model.attempt import Attempt, Outcome
from diagnose.model.fact import Fact, Known
from diagnose.model.network import Endpoint, SocketRow, family_of
from diagnose.model.snapshot import Snapshot
from diagnose.model.unit import Tie, Unit, Units, stream_address

_TELL_NOTHING = ("simple", "exec", "idle", "")
"""Type= of services that systemd calls active before they can have got ready (systemd.service(5))."""

_LIMITS = ("trigger-limit-hit", "service-start-limit-hit")
_ANY = ("::", "0.0.0.0")


class Activation(Struct, frozen=True):
    """A socket unit that listens, and what it starts."""

    socket: Unit
    service: Unit | None
    """None: it is not known; of Accept=yes: no instance of it for our connection was seen to end."""


def activation(units: Fact[Units], endpoint: Endpoint) -> Activation | None:
    """The socket unit that has this port open on this address; None: no active one is known."""
    if not isinstance(units, Known):
        return None
    for one in units.value.found:
        if one.tie is Tie.LISTENS and _covers(one, endpoint):
            service = _service(units.value, one, None)
            if one.active == "active" or (service is not None and service.active == "active"):
                return Activation(one, service)  # a service keeps the socket when its socket unit is stopped
    return None


def opened(units: Fact[Units], endpoint: Endpoint, source: Endpoint | None = None) -> Activation | None:
    """The same, whatever its state is now: the one that should listen there."""
    if not isinstance(units, Known):
        return None
    sockets = [one for one in units.value.found if one.tie is Tie.LISTENS and _covers(one, endpoint)]
    sockets.sort(key=lambda one: one.active not in ("active", "failed"))
    return Activation(sockets[0], _service(units.value, sockets[0], source)) if sockets else None


def _covers(socket: Unit, endpoint: Endpoint) -> bool:
    for where in socket.listens_on:
        host, port = stream_address(where) or ("", 0)
        if port != endpoint.port:
            continue
        address = unmapped(endpoint.address)
        if host in ("", "::") or unmapped(host) == address or (host == "0.0.0.0" and family_of(address) == "ipv4"):
            return True
    return False


def serving(snapshot: Snapshot, attempt: Attempt) -> Activation | None:
    """The socket unit whose listening socket our connection met; None: another program may have taken it."""
    found = activation(snapshot.units, attempt.endpoint)
    return found if found is not None and _has_the_listener(snapshot, attempt, found) else None


def ended(snapshot: Snapshot, attempt: Attempt) -> Activation | None:
    """The socket unit that took a connection which was ended; its socket may be closed since, by a limit of its own."""
    found = opened(snapshot.units, attempt.endpoint, attempt.source)
    if found is None:
        return None
    return found if _has_the_listener(snapshot, attempt, found) or _gave_up(snapshot, found.socket) else None


def _gave_up(snapshot: Snapshot, socket: Unit) -> bool:
    """Whether systemd closed it while we tried, since its service failed or was started too often."""
    if socket.active != "failed" or socket.result not in _LIMITS or socket.since is None:
        return False
    began = datetime.fromisoformat(snapshot.started_at).replace(microsecond=0)  # systemd's time is in whole seconds
    return datetime.fromisoformat(socket.since) >= began


def _has_the_listener(snapshot: Snapshot, attempt: Attempt, found: Activation) -> bool:
    listening = snapshot.listeners.value if isinstance(snapshot.listeners, Known) else ()
    rows = reached(listening, attempt.address, attempt.port)
    return bool(rows) and all(_is_of(snapshot, row, found) for row in rows)


def _is_of(snapshot: Snapshot, row: SocketRow, found: Activation) -> bool:
    """By its holders; where they are hidden, by its address and the user who made it."""
    socket, service = found.socket, found.service
    match owner(row, snapshot.holders):
        case Owned(processes=processes):
            return any(
                (is_service_manager(one) and (one.pid == 1 if socket.owner is None else one.uid == socket.owner))
                or (service is not None and (one.unit, one.unit_owner) == (service.name, service.owner))
                for one in processes
            )
        case _:
            return _opens(socket, row) and row.uid == (socket.owner or 0) and socket.active == "active"


def _opens(socket: Unit, row: SocketRow) -> bool:
    """Whether a socket with the address of this row is among those that the unit asks for."""
    addresses = [stream_address(where) for where in socket.listens_on]
    hosts = [one[0] for one in addresses if one is not None and one[1] == row.local.port]
    return any(unmapped(row.local.address) in ((unmapped(host),) if host else _ANY) for host in hosts)


def units_that_hold(units: Fact[Units], rows: Sequence[SocketRow]) -> Fact[Units]:
    """The units without the socket units that have the port on other addresses only, and what those start."""
    if not isinstance(units, Known):
        return units
    found = units.value.found
    others = {
        (one.owner, one.name) for one in found if one.tie is Tie.LISTENS and not any(_opens(one, row) for row in rows)
    }
    kept = tuple(
        one for one in found if (one.owner, one.tied_by if one.tie is Tie.TRIGGERED else one.name) not in others
    )
    return Known(replace(units.value, found=kept))


def _service(units: Units, socket: Unit, source: Endpoint | None) -> Unit | None:
    started = [
        one
        for one in units.found
        if one.tie is Tie.TRIGGERED and one.tied_by == socket.name and one.owner == socket.owner
    ]
    if not socket.accept:
        return started[0] if started else None
    ours = f"-{_written(source)}.service" if source else "\0"
    return next((one for one in started if one.name.endswith(ours)), None)


def _written(source: Endpoint) -> str:
    """As systemd writes an end of a connection in the name of an instance (instance_from_socket)."""
    return f"{unmapped(source.address)}:{source.port}"


def fails(service: Unit) -> bool:
    """Whether it has ended without having been asked to, or is about to be started again after that."""
    return (
        service.active == "failed"
        or service.sub.startswith("auto-restart")
        or service.result not in ("", "success")
        or service.starts > 1
    )


def is_activating(service: Unit, young: bool = False) -> bool:
    """Whether systemd has yet to call it started; `young`: it was started moments ago, and systemd cannot know more."""
    if fails(service):
        return False
    if service.active == "active":
        return young and service.kind in _TELL_NOTHING
    return service.job == "start" or service.active == "activating"


def still_activating(snapshot: Snapshot, attempt: Attempt) -> Activation | None:
    """Where our connection waits for a service that systemd still starts: whether it will be served is not known."""
    if not attempt.local or attempt.outcome is not Outcome.NOT_ACCEPTED:
        return None
    found = serving(snapshot, attempt)
    if found is None or found.service is None:
        return None
    return found if is_activating(found.service) else None
