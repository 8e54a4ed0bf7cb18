"""The answer: one model, many renderers."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from msgspec import Struct

from diagnose.model.finding import Finding
from diagnose.model.snapshot import Vantage
from diagnose.model.target import Intent, address

SCHEMA: Literal["netdiag.report/1"] = "netdiag.report/1"
SCHEMA_MANY: Literal["netdiag.reports/1"] = "netdiag.reports/1"


class Verdict(StrEnum):
    """Whether it works."""

    REACHABLE = "reachable"
    DEGRADED = "degraded"
    UNREACHABLE = "unreachable"
    BINDABLE = "bindable"
    NOT_BINDABLE = "not-bindable"
    INCONCLUSIVE = "inconclusive"

    @property
    def works(self) -> bool:
        """Whether the user can go on."""
        return self in (Verdict.REACHABLE, Verdict.BINDABLE)


class CheckOutcome(StrEnum):
    """What a check came to: each of its facts counts, and clear is never said of what nobody looked at."""

    FOUND = "found"
    """A problem or a warning."""
    CLEAR = "clear"
    """Every fact that it asked for was known, one at least, and nothing was found."""
    SKIPPED = "skipped"
    """A fact that it asked for could not be had, or it was not asked for itself."""
    NOT_APPLICABLE = "not-applicable"
    """It has nothing to ask here: the firewall, where a server is to be started."""
    CRASHED = "crashed"


class TargetReport(Struct, frozen=True):
    """What was asked about, as scripts read it; of a Compose service, the host and port that are dialled for it."""

    input: str
    host: str
    port: int
    scheme: str | None = None
    transport: Literal["tcp"] = "tcp"

    @property
    def address(self) -> str:
        """The target as netdiag takes it."""
        return address(self.input, self.host, self.port)


class AttemptReport(Struct, frozen=True):
    """One attempt, as scripts read it."""

    address: str
    port: int
    outcome: str
    errno: str | None
    ms: float


class CheckReport(Struct, frozen=True):
    """One check's outcome."""

    name: str
    outcome: CheckOutcome
    reason: str | None = None


class NotChecked(Struct, frozen=True):
    """What was wanted and could not be had."""

    fact: str
    reason: str
    lift: str | None = None


class Report(Struct, frozen=True, kw_only=True):
    """The diagnosis of one target; keys are never removed or renamed within /1."""

    schema: Literal["netdiag.report/1"] = SCHEMA
    netdiag: str
    started_at: str
    duration_ms: float
    target: TargetReport
    intent: Intent
    vantage: Vantage
    verdict: Verdict
    attempts: tuple[AttemptReport, ...]
    root_cause: Finding | None
    findings: tuple[Finding, ...]
    checks: tuple[CheckReport, ...]
    not_checked: tuple[NotChecked, ...]

    @property
    def answered(self) -> str:
        """The verdict; of a bind also for whom it holds, where another user asked than the one who tried."""
        asker = self.vantage.sudo_user
        if self.intent is not Intent.BIND or asker is None:
            return self.verdict.value
        return f"{self.verdict.value} for {self.vantage.user} ({asker} ran netdiag as {self.vantage.user})"


class Reports(Struct, frozen=True, kw_only=True):
    """Several targets, in the order asked."""

    schema: Literal["netdiag.reports/1"] = SCHEMA_MANY
    reports: tuple[Report, ...]
