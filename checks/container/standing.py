"""A container that is paused while its server has the port in our own namespace: on the host's network, or shared."""

from __future__ import annotations

from collections.abc import Iterator

from checks.container import remedies
from checks.container.causes import PAUSED
from diagnose.analysis.owner import Owned, owner
from diagnose.analysis.publication import container_name, containers_of, described, inspecting, is_same
from diagnose.analysis.reach import failing, reached, severity
from diagnose.analysis.wording import connect_evidence, row_text, title
from diagnose.model.attempt import Attempt, Outcome
from diagnose.model.container import EngineContainer, Status
from diagnose.model.fact import Known
from diagnose.model.finding import Confidence, Evidence, Finding
from diagnose.model.network import SocketRow
from diagnose.model.snapshot import Snapshot


def judge(snapshot: Snapshot) -> Iterator[Finding]:
    """For each local attempt that waits for a server of which every process stands still with its container."""
    for attempt in failing(snapshot):
        if attempt.local and attempt.outcome in (Outcome.UNANSWERED, Outcome.NOT_ACCEPTED):
            rows = _rows(snapshot, attempt)
            told = _paused_holder(snapshot, rows)
            if told is not None:
                yield _paused(snapshot, attempt, told, rows)


def _rows(snapshot: Snapshot, attempt: Attempt) -> tuple[SocketRow, ...]:
    rows = snapshot.listeners.value if isinstance(snapshot.listeners, Known) else ()
    return reached(rows, attempt.address, attempt.port)


def _paused_holder(snapshot: Snapshot, rows: tuple[SocketRow, ...]) -> EngineContainer | None:
    """The paused container to which all belong that hold the listeners; one process outside could still accept."""
    seen = containers_of(snapshot)
    owners = [owner(row, snapshot.holders) for row in rows]
    if seen is None or not owners or not all(isinstance(one, Owned) for one in owners):
        return None
    held = [process.container for one in owners if isinstance(one, Owned) for process in one.processes]
    for told in described(seen):
        if told.status is Status.PAUSED and held and all(one and is_same(one, told.container) for one in held):
            return told
    return None


def _paused(snapshot: Snapshot, attempt: Attempt, told: EngineContainer, rows: tuple[SocketRow, ...]) -> Finding:
    name = container_name(told.container)
    return Finding(
        code=PAUSED.code,
        title=title(f"Container {name}, whose server listens on {rows[0].local}, is paused"),
        severity=severity(snapshot, attempt),
        confidence=Confidence.PROVEN,
        explanation="The kernel holds every process of the container (cgroup freezer). Connections are completed for "
        "it and then wait: nothing answers until it goes on.",
        evidence=(
            connect_evidence(attempt),
            *(Evidence(f"{row_text(row)}, held by container {name}", "/proc/PID/fd") for row in rows[:3]),
            Evidence("status paused", inspecting(told.container)),
        ),
        remedies=(remedies.go_on(told.container),),
        explains=("hung/not-accepting", "hung/accept-queue-full", "hung/process-stopped", "firewall/silent"),
    )
