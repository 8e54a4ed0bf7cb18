"""Socket activation: which socket unit took a connection, and what became of the service that it starts."""

from __future__ import annotations

from msgspec import Struct

from diagnose.analysis.reach import unmapped
from diagnose.model.attempt import Attempt, Outcome
from diagnose.model.fact import Fact, Known
from diagnose.model.network import Endpoint, is_wildcard
from diagnose.model.snapshot import Snapshot
from diagnose.model.unit import Tie, Unit, Units, stream_address

_TELL_NOTHING = ("simple", "exec", "idle", "")
"""Type= of services that systemd calls active before they can have got ready (systemd.service(5))."""


class Activation(Struct, frozen=True):
    """A socket unit that listens, and what it starts."""

    socket: Unit
    service: Unit | None
    """None: it is not known; of Accept=yes: no instance of it for our connection was seen to end."""


def activation(units: Fact[Units], endpoint: Endpoint, source: Endpoint | None = None) -> Activation | None:
    """The socket unit that has this port open on this address; None: no active one is known."""
    if not isinstance(units, Known):
        return None
    for one in units.value.found:
        if one.tie is Tie.LISTENS and _covers(one, endpoint):
            service = _service(units.value, one, source)
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
        if host == "" or is_wildcard(host) or unmapped(host) == unmapped(endpoint.address):
            return True
    return False


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
    found = activation(snapshot.units, attempt.endpoint)
    if found is None or found.service is None:
        return None
    return found if is_activating(found.service) else None
