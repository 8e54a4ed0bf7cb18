"""A frozen container that serves the port in our own network namespace (--network host, or where we look from it)."""

from __future__ import annotations

from collections.abc import Iterator

from checks.container.causes import PAUSED
from diagnose.analysis.freezing import freezer_evidence, frozen_acceptors, thaw_remedies
from diagnose.analysis.owner import Owned, owner
from diagnose.analysis.publication import container_name
from diagnose.analysis.reach import failing, reached, severity
from diagnose.analysis.wording import connect_evidence, row_text, title
from diagnose.model.attempt import Attempt, Outcome
from diagnose.model.fact import Known
from diagnose.model.finding import Confidence, Evidence, Finding
from diagnose.model.snapshot import Snapshot

_SILENCE = ("hung/not-accepting", "hung/accept-queue-full", "hung/process-stopped", "firewall/silent")


def judge(snapshot: Snapshot) -> Iterator[Finding]:
    """The container whose freezer keeps its server from accepting our connection."""
    for attempt in failing(snapshot):
        if attempt.local and attempt.outcome in (Outcome.NOT_ACCEPTED, Outcome.UNANSWERED):
            yield from _of(snapshot, attempt)


def _of(snapshot: Snapshot, attempt: Attempt) -> Iterator[Finding]:
    listening = snapshot.listeners.value if isinstance(snapshot.listeners, Known) else ()
    rows = reached(listening, attempt.address, attempt.port)
    frozen = frozen_acceptors(snapshot, rows)
    if frozen is None or frozen.container is None:
        return
    known = all(isinstance(owner(row, snapshot.holders), Owned) for row in rows)
    yield Finding(
        code=PAUSED.code,
        title=title(f"Container {container_name(frozen.container)}, which serves port {attempt.port}, is frozen"),
        severity=severity(snapshot, attempt),
        confidence=Confidence.PROVEN if known else Confidence.LIKELY,
        explanation="The kernel holds every process of the container still (docker pause and podman pause do that). "
        "It completes connections for the server until the accept queue is full: clients connect and then wait.",
        evidence=(
            *freezer_evidence(frozen),
            *(Evidence(row_text(row), "sock_diag") for row in rows),
            connect_evidence(attempt),
        ),
        remedies=thaw_remedies(snapshot, frozen),
        explains=_SILENCE,
    )
