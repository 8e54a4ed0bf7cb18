"""container: whose localhost it is, and the chain from the host's port to the process inside."""

from __future__ import annotations

from collections.abc import Iterator

from checks.container import causes, elsewhere, frozen, host_rules, outward, published, services, standing
from diagnose.model.check import Check
from diagnose.model.fact import Missing
from diagnose.model.finding import Finding
from diagnose.model.snapshot import Snapshot
from diagnose.model.target import Intent


def judge(snapshot: Snapshot) -> Iterator[Finding | Missing]:
    """The first broken link of the chain, or where the port is open instead."""
    if snapshot.intent is Intent.BIND:
        return
    yield from published.judge(snapshot)
    yield from frozen.judge(snapshot)
    yield from standing.judge(snapshot)
    yield from services.judge(snapshot)
    yield from elsewhere.judge(snapshot)
    yield from outward.judge(snapshot)
    yield from host_rules.judge(snapshot)


CHECK = Check(
    "container",
    (
        causes.OWN_LOCALHOST,
        causes.OTHER_NAMESPACE,
        causes.NOT_RUNNING,
        causes.NOT_PUBLISHED,
        causes.PUBLISHED_ELSEWHERE,
        causes.NAT_MISSING,
        causes.NO_LOCALNET_ROUTE,
        causes.PAUSED,
        causes.BINDS_LOOPBACK_INSIDE,
        causes.WRONG_CONTAINER_PORT,
        causes.HOST_LOOPBACK_ONLY,
        causes.HOST_NAME_MISSING,
        causes.HOST_FIREWALL,
    ),
    judge,
    premises=("names", "links"),
)
