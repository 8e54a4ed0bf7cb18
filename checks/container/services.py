"""A service of Compose that has no port on this machine: nothing was dialled, for nobody of it would have answered."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from checks.container import remedies
from checks.container.causes import NOT_PUBLISHED, NOT_RUNNING
from checks.container.words import published_line, state, state_line, why_it_ended
from diagnose.analysis import compose
from diagnose.analysis.publication import (
    containers_of,
    described,
    inside_of,
    inspecting,
    listening_inside,
    open_inside,
)
from diagnose.analysis.wording import dial_instead, title
from diagnose.model.compose import Service
from diagnose.model.container import EngineContainer
from diagnose.model.finding import Confidence, Evidence, Finding, Remedy, Severity
from diagnose.model.network import Endpoint
from diagnose.model.snapshot import Snapshot
from diagnose.model.target import ServicePort, Standing

_DIRECTLY = "Dial the container at its own address: from this machine that works without publishing"
_BY_OTHERS = ("refused/nothing-listening", "container/other-namespace")


def judge(snapshot: Snapshot) -> Iterator[Finding]:
    """By what the engine says of the service's containers, else by the compose file."""
    asked = snapshot.target.service
    if asked is None:
        return
    project, seen = compose.project_of(snapshot), containers_of(snapshot)
    service = project.service(asked.service) if project is not None else None
    ours = [one for one in (described(seen) if seen else ()) if one.compose and one.compose.service == asked.service]
    match asked.standing:
        case Standing.STOPPED:
            yield _stopped(snapshot, asked, service, ours)
        case Standing.UNPUBLISHED | Standing.UNDECLARED:
            yield _unpublished(snapshot, asked, service, ours)
        case _:
            return


def _stopped(
    snapshot: Snapshot, asked: ServicePort, service: Service | None, ours: Sequence[EngineContainer]
) -> Finding:
    last = ours[0] if ours else None
    start = compose.start(snapshot, service) if service is not None and last is None else None
    became = f"its container {state(last)}" if last else "it has no container"
    return Finding(
        code=NOT_RUNNING.code,
        title=title(f"The service {asked.service} is not running: {became}"),
        severity=Severity.PROBLEM,
        confidence=Confidence.PROVEN if last else Confidence.LIKELY,
        explanation="Nothing was dialled: without a container the service has no port on this machine, and whoever "
        f"answers there is somebody else. {why_it_ended(last) if last else 'Compose has not made one yet.'}",
        evidence=(*(Evidence(state_line(one), _inspect(one)) for one in ours[:3]), _asked_for(snapshot)),
        remedies=(*(remedies.start_again(last) if last else ()), *((start,) if start else ())),
        explains=_BY_OTHERS,
    )


def _asked_for(snapshot: Snapshot) -> Evidence:
    return Evidence(f"{snapshot.target.input} was not dialled: there is no address for it here", "target")


def _inspect(told: EngineContainer) -> str:
    return inspecting(told.container)


def _unpublished(
    snapshot: Snapshot, asked: ServicePort, service: Service | None, ours: Sequence[EngineContainer]
) -> Finding:
    idle = _nothing_listens(snapshot, asked, ours)
    line = compose.publish(snapshot, service, asked.port) if service is not None and idle is None else None
    addresses = [address for one in ours[:1] for each in one.attachments for address in each.addresses]
    dial = [dial_instead(Endpoint(address, asked.port), _DIRECTLY) for address in addresses[:1] if idle is None]
    return Finding(
        code=NOT_PUBLISHED.code,
        title=title(f"The service {asked.service} does not publish its port {asked.port} on this machine"),
        severity=Severity.PROBLEM,
        confidence=Confidence.PROVEN if asked.standing is Standing.UNPUBLISHED else Confidence.LIKELY,
        explanation="Other services reach it by its name. From this machine a port of a container is open only if it "
        "is listed under ports:; expose: opens nothing. Nothing was dialled: only somebody else could have answered.",
        evidence=(
            *(Evidence(published_line(one), _inspect(one)) for one in ours[:3]),
            *((Evidence(*idle),) if idle else ()),
            *((Evidence(f"ports: of {service.name} has no entry for {asked.port}", service.file),) if service else ()),
            _asked_for(snapshot),
        ),
        remedies=(
            *((_ask_for_another(asked, idle[0]),) if idle else ()),
            *((line,) if line else ()),
            *dial,
        ),
        explains=_BY_OTHERS,
    )


def _ask_for_another(asked: ServicePort, found: str) -> Remedy:
    return Remedy(
        summary=f"Ask for a port that the service has, or start what should serve {asked.port} in there. As it is, to "
        f"publish it would open nothing: {found}."
    )


def _nothing_listens(snapshot: Snapshot, asked: ServicePort, ours: Sequence[EngineContainer]) -> tuple[str, str] | None:
    """That nobody in any of the service's containers has the port, and by what that is known; None: not known so."""
    seen = containers_of(snapshot)
    insides = [inside_of(seen, one.container) for one in ours] if seen is not None else []
    if not insides or not all(one is not None and listening_inside(one, asked.port) == () for one in insides):
        return None
    open_there = sorted({row.local.port for one in insides if one is not None for row in open_inside(one)})
    others = f"it listens on {', '.join(map(str, open_there))}" if open_there else "it listens on no port at all"
    return f"nothing in the container listens on {asked.port}, {others}", "/proc/PID/net/tcp"
