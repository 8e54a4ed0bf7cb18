"""The way from the client to the process that should answer, with the link that is broken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum

from msgspec import Struct

from diagnose.model.finding import Cause, Confidence, Stage
from diagnose.model.report import Report, Verdict
from diagnose.model.target import Intent


class LinkState(StrEnum):
    """What is known of one place on the way."""

    PASSED = "passed"
    BROKEN = "broken"
    NOT_REACHED = "not reached"
    UNKNOWN = "not known"


class Link(Struct, frozen=True):
    """One place on the way."""

    title: str
    detail: str
    state: LinkState


def links(report: Report, causes: Mapping[str, Cause]) -> tuple[Link, ...]:
    """The places that a connection to this target passes, in order.

    What lies before the broken link has been passed only where the cause is proven: otherwise that is not known.
    """
    places = _places(report)
    cause = causes.get(report.root_cause.code) if report.root_cause is not None else None
    broken = None if cause is None else _nearest(cause.stage, [stage for stage, _, _ in places])
    return tuple(Link(title, detail, _state(report, stage, broken)) for stage, title, detail in places)


def _places(report: Report) -> list[tuple[Stage, str, str]]:
    addresses = ", ".join(dict.fromkeys(one.address for one in report.attempts))
    port = f"port {report.target.port}"
    where = [(Stage.ROUTE, "address and route", addresses or "none was tried")]
    if report.target.host not in addresses.split(", "):
        where.insert(0, (Stage.NAME, "name", report.target.host))
    if report.intent is Intent.BIND:
        return [*where, (Stage.SOCKET, "socket to bind", port)]
    return [
        *where,
        (Stage.FIREWALL, "firewall rules", "of this machine"),
        (Stage.SOCKET, "listening socket", port),
        (Stage.PROCESS, "server process", "accepts and answers"),
    ]


def _nearest(stage: Stage, shown: Sequence[Stage]) -> Stage:
    """The place that stands for a stage: itself, else the last one before it, else the first."""
    return max((one for one in shown if one <= stage), default=shown[0])


def _state(report: Report, stage: Stage, broken: Stage | None) -> LinkState:
    if report.verdict.works:
        return LinkState.PASSED
    if broken is None or report.verdict is Verdict.INCONCLUSIVE:
        return LinkState.UNKNOWN
    if stage == broken:
        return LinkState.BROKEN
    if stage > broken:
        return LinkState.NOT_REACHED
    root = report.root_cause
    proven = root is not None and root.confidence is Confidence.PROVEN
    return LinkState.PASSED if proven else LinkState.UNKNOWN
