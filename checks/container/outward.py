"""From the container to the host: its name, its loopback, its firewall."""

from __future__ import annotations

from collections.abc import Iterator

from checks.container.causes import HOST_LOOPBACK_ONLY, HOST_NAME_MISSING
from diagnose.analysis import compose
from diagnose.analysis.publication import (
    container_name,
    containers_of,
    described,
    inspecting,
    listening_inside,
    only_on_loopback,
)
from diagnose.analysis.reach import failing, severity
from diagnose.analysis.wording import connect_evidence, dial_instead, row_text, title
from diagnose.model.attempt import Attempt, Outcome
from diagnose.model.container import EngineContainer, Inside
from diagnose.model.fact import Known, Missing, Unknown
from diagnose.model.finding import Confidence, Evidence, Finding, Remedy, Severity
from diagnose.model.network import Endpoint
from diagnose.model.process import Container
from diagnose.model.snapshot import Snapshot

_HOST_NAMES = ("host.docker.internal", "host.containers.internal", "gateway.docker.internal")
_GATEWAY = "host.docker.internal:host-gateway"


def judge(snapshot: Snapshot) -> Iterator[Finding | Missing]:
    """Why the host is not reached from in there."""
    container = snapshot.vantage.container
    if container is None:
        return
    yield from _host_name_missing(snapshot, container)
    for attempt in failing(snapshot):
        if not attempt.local:
            yield from _on_the_host(snapshot, attempt)


def _host_name_missing(snapshot: Snapshot, container: Container) -> Iterator[Finding]:
    host = snapshot.target.host.lower().rstrip(".")
    match snapshot.names:
        case Known(value=names) if host in _HOST_NAMES and names.error not in (None, "DEADLINE"):
            pass
        case _:
            return
    told = _described(snapshot, container)
    gateways = tuple(one for each in (told.attachments if told else ()) for one in each.gateways)
    yield Finding(
        code=HOST_NAME_MISSING.code,
        title=title(f"{host} is not known in {container.engine} container {container_name(container)}"),
        severity=Severity.PROBLEM,
        confidence=Confidence.LIKELY if names.error == "EAI_AGAIN" else Confidence.PROVEN,
        explanation="Docker Desktop gives its containers this name for the host; Docker on Linux does so only for a "
        "container that asks for it (extra_hosts, --add-host). It then means the host's address on the default bridge.",
        evidence=(
            Evidence(f"{snapshot.target.host}: {names.error} after {names.ms:.1f} ms", names.source),
            *((Evidence(f"extra hosts: {', '.join(told.extra_hosts) or 'none'}", _inspect(told)),) if told else ()),
        ),
        remedies=(
            *_by_gateway(gateways, snapshot.target.port),
            *_in_compose(snapshot, container),
            Remedy(
                summary=f"Give the container the name: make it anew with --add-host={_GATEWAY} (in compose, under "
                f"extra_hosts: \"{_GATEWAY}\"). The host's server has to listen on more than the host's loopback."
            ),
        ),
        explains=("resolution/not-found",),
    )


def _in_compose(snapshot: Snapshot, container: Container) -> tuple[Remedy, ...]:
    service = compose.service_of(snapshot, container)
    return (compose.add_host_gateway(snapshot, service),) if service is not None else ()


def _by_gateway(gateways: tuple[str, ...], port: int) -> tuple[Remedy, ...]:
    if not gateways:
        return ()
    where = Endpoint(gateways[0], port)
    return (dial_instead(where, "Dial the host by its address on the container's network"),)


def _described(snapshot: Snapshot, container: Container) -> EngineContainer | None:
    seen = containers_of(snapshot)
    told = described(seen) if seen is not None else ()
    return next((one for one in told if one.container.id == container.id), None)


def _inspect(told: EngineContainer) -> str:
    return inspecting(told.container)


def _on_the_host(snapshot: Snapshot, attempt: Attempt) -> Iterator[Finding | Missing]:
    seen = containers_of(snapshot)
    host = seen.host if seen is not None else None
    if host is None or attempt.address not in host.addresses or attempt.outcome is not Outcome.REFUSED:
        return
    rows = listening_inside(host, attempt.port)
    if rows is None:
        if isinstance(host.listeners, Unknown):
            yield Missing("listeners on the host", host.listeners)
    elif only_on_loopback(rows):
        yield _host_loopback_only(snapshot, attempt, host)


def _host_loopback_only(snapshot: Snapshot, attempt: Attempt, host: Inside) -> Finding:
    rows = listening_inside(host, attempt.port) or ()
    return Finding(
        code=HOST_LOOPBACK_ONLY.code,
        title=title(f"The host's server listens on {rows[0].local} only, where no container comes"),
        severity=severity(snapshot, attempt),
        confidence=Confidence.PROVEN,
        explanation=f"{attempt.address} is the host, and the host refused: its server is there, and listens on the "
        "host's own loopback. Loopback is reached from the host itself only, never from a container.",
        evidence=(
            connect_evidence(attempt),
            Evidence(f"{attempt.address} is an address of the host", f"/proc/{host.pid}/net/fib_trie"),
            *(Evidence(f"{row_text(row)} on the host", f"/proc/{host.pid}/net/tcp") for row in rows[:3]),
        ),
        remedies=(
            Remedy(
                summary=f"Let the host's server listen on {attempt.address} as well (the bridge's address: containers "
                "reach it, the network does not), and allow that in the host's firewall. 0.0.0.0 would open it to "
                "everybody."
            ),
            Remedy(
                summary="Or give the container the host's own network (--network=host, in compose network_mode: host): "
                "then its localhost is the host's, and its published ports mean nothing."
            ),
        ),
        explains=("refused/nothing-listening",),
    )
