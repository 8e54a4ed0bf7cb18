"""Snapshot and checks -> Report; pure."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import cast

from msgspec.structs import replace

from diagnose.analysis.activation import still_activating
from diagnose.analysis.argument import without_objection
from diagnose.analysis.reach import fails_at_once
from diagnose.analysis.side_commands import NETDIAG_RUN, there
from diagnose.analysis.unshared import unshared_by_us
from diagnose.model.attempt import Attempt, BindAttempt, Outcome
from diagnose.model.check import Check
from diagnose.model.fact import Known, Missing, Reason, Unknown
from diagnose.model.finding import Command, Confidence, Finding, Severity, Stage
from diagnose.model.report import AttemptReport, CheckOutcome, CheckReport, NotChecked, Report, TargetReport, Verdict
from diagnose.model.snapshot import ATTEMPTS, FACTS, Snapshot
from diagnose.model.target import Intent, Standing, Target

_SEVERITIES = list(Severity)
_CONFIDENCES = list(Confidence)
_MOST = 256
"""Findings and gaps of one check that are listened to: no machine has so many, and a recording may have any number."""
_JUDGED = 64
"""Attempts that are judged, the first ones: they are what the user meets, and a name has seldom more than eight."""
_OUR_OWN_LIMIT = ("EMFILE", "ENFILE", "ENOMEM", "ENOBUFS")
"""No socket could be had to try it (socket(2)): that says nothing of the target."""
_BLOCKS_ALONE = (Stage.ROUTE, Stage.LOOPBACK)
"""Stages whose proven local state is a verdict even when nothing was sent."""


class _Consulted:
    """Stands for a snapshot before one check, and keeps which facts the check reads: only these can be clear."""

    def __init__(self, snapshot: Snapshot, premises: tuple[str, ...]) -> None:
        self._snapshot = snapshot
        self._premises = premises
        self.known = False
        self.unknown: dict[str, Unknown] = {}

    def __getattr__(self, field: str) -> object:
        value = getattr(self._snapshot, field)
        if field in ATTEMPTS:
            self.known |= bool(value)
        elif field in FACTS:
            match value:
                case Unknown(reason=Reason.NOT_NEEDED):
                    pass
                case Unknown():
                    self.unknown[FACTS[field]] = value
                case _:
                    self.known |= field not in self._premises
        return value


class _Examined:
    """What one check said of one snapshot."""

    def __init__(self, check: Check, snapshot: Snapshot) -> None:
        self.findings: list[Finding] = []
        self.missing: list[Missing] = []
        self.crash: str | None = None
        self.name = check.name
        self.ran = snapshot.scope.runs(check.name)
        self.consulted = _Consulted(snapshot, check.premises)
        if self.ran:
            self._judge(check)

    def _judge(self, check: Check) -> None:
        try:
            for said in itertools.islice(check.judge(cast(Snapshot, self.consulted)), _MOST):
                if not isinstance(said, Missing):
                    self.findings.append(said)
                elif said.unknown.reason is not Reason.NOT_NEEDED:
                    self.missing.append(said)
        except Exception as error:  # noqa: BLE001 - one broken check must not cost the other answers
            self.crash = f"{type(error).__name__}: {error}"

    def report(self) -> CheckReport:
        """Its line in the report."""
        if not self.ran:
            return CheckReport(self.name, CheckOutcome.SKIPPED, "not asked for")
        if self.crash:
            return CheckReport(self.name, CheckOutcome.CRASHED, self.crash)
        if any(f.severity is not Severity.INFO for f in self.findings):
            return CheckReport(self.name, CheckOutcome.FOUND)
        # what it read and did not miss aloud was not known either, so it is not clear
        wanted = [(one.fact, one.unknown) for one in self.missing] or self.consulted.unknown.items()
        if wanted:
            needed = sorted({f"{fact}: {unknown}" for fact, unknown in wanted})
            return CheckReport(self.name, CheckOutcome.SKIPPED, "; ".join(needed))
        return CheckReport(self.name, CheckOutcome.CLEAR if self.consulted.known else CheckOutcome.NOT_APPLICABLE)


def diagnose(snapshot: Snapshot, checks: Sequence[Check]) -> Report:
    """Judges the facts by every check, in order; the same snapshot always gives the same report."""
    stages = {cause.code: cause.stage for check in checks for cause in check.causes}
    judged = _judged(snapshot)
    examined = [_Examined(check, judged) for check in checks]
    verdict = _verdict(snapshot, [finding for one in examined for finding in one.findings], stages)
    if verdict.works:
        for one in examined:
            one.findings = [_without_blame(finding) for finding in one.findings]
        consequences = _consequences([finding for one in examined for finding in one.findings], stages)
        for one in examined:
            one.findings = [replace(f, severity=Severity.INFO) if f in consequences else f for f in one.findings]
    ours = {cause.code for check in checks for cause in check.causes if cause.of_the_machine}
    said = _once(finding for one in examined for finding in one.findings)
    found = [_runnable(finding, snapshot, of_the_machine=finding.code in ours) for finding in said]
    root = _root_cause(found, stages, verdict)
    return Report(
        netdiag=snapshot.netdiag,
        started_at=snapshot.started_at,
        duration_ms=snapshot.duration_ms,
        target=_target(snapshot.target),
        intent=snapshot.intent,
        vantage=snapshot.vantage,
        verdict=verdict,
        attempts=_attempts(snapshot),
        root_cause=root,
        findings=_ranked(found, root, stages),
        checks=tuple(one.report() for one in examined),
        not_checked=_not_checked(snapshot, [missing for one in examined for missing in one.missing]),
    )


def _judged(snapshot: Snapshot) -> Snapshot:
    """The snapshot with the attempts that are judged one by one: what a check does for each takes its time."""
    if max(len(snapshot.attempts), len(snapshot.binds)) <= _JUDGED:
        return snapshot
    return replace(snapshot, attempts=snapshot.attempts[:_JUDGED], binds=snapshot.binds[:_JUDGED])


def exit_code(reports: Iterable[Report]) -> int:
    """0 it works, 1 it does not and the root cause is named, 3 otherwise; several: 1 before 3 before 0."""
    codes = {0 if report.verdict.works else 1 if report.root_cause else 3 for report in reports}
    return 1 if 1 in codes else 3 if 3 in codes else 0


def _verdict(snapshot: Snapshot, found: Sequence[Finding], stages: dict[str, Stage]) -> Verdict:
    binding = snapshot.intent is Intent.BIND
    tried: tuple[Attempt | BindAttempt, ...] = (*snapshot.attempts, *snapshot.binds)
    if any(one.errno in _OUR_OWN_LIMIT and not one.outcome.works for one in tried):
        return Verdict.INCONCLUSIVE
    if snapshot.attempts:
        verdict = _connect_verdict(snapshot.attempts)
        waits = any(still_activating(snapshot, one) for one in snapshot.attempts)
        return Verdict.INCONCLUSIVE if waits and verdict is Verdict.UNREACHABLE else verdict
    if snapshot.binds:
        return _bind_verdict(snapshot.binds)
    if not binding and _is_closed(snapshot):
        return Verdict.UNREACHABLE
    if _has_no_address(snapshot) or any(_blocks(finding, binding, stages) for finding in found):
        return Verdict.NOT_BINDABLE if binding else Verdict.UNREACHABLE
    return Verdict.INCONCLUSIVE


def _target(target: Target) -> TargetReport:
    return TargetReport(target.input, target.host, target.port, target.scheme, target.transport)


def _is_closed(snapshot: Snapshot) -> bool:
    """Whether the engine itself says that nothing leads to the service that was asked for."""
    service = snapshot.target.service
    return service is not None and service.standing in (Standing.UNPUBLISHED, Standing.STOPPED)


def _has_no_address(snapshot: Snapshot) -> bool:
    match snapshot.names:
        case Known(value=resolution):
            waits = resolution.error == "DEADLINE" and not resolution.waits_at_fifo
            return resolution.error is not None and not waits
        case Unknown():
            return False


def _blocks(finding: Finding, binding: bool, stages: dict[str, Stage]) -> bool:
    """Whether this local state is a verdict though nothing was tried."""
    proven = finding.severity is Severity.PROBLEM and finding.confidence is Confidence.PROVEN
    return proven and (binding or stages.get(finding.code) in _BLOCKS_ALONE)


def _bind_verdict(binds: Sequence[BindAttempt]) -> Verdict:
    """An address that this machine has not, behind one that works, is information (::1 with IPv6 off)."""
    first, *others = binds
    works = first.outcome is Outcome.BOUND and all(
        one.outcome in (Outcome.BOUND, Outcome.ADDRESS_UNAVAILABLE) for one in others
    )
    return Verdict.BINDABLE if works else Verdict.NOT_BINDABLE


def _connect_verdict(attempts: Sequence[Attempt]) -> Verdict:
    """What clients meet that try the addresses in order: an error at once they pass by, a silence they wait for."""
    by_address: dict[str, list[Attempt]] = {}
    for one in attempts:
        by_address.setdefault(one.address, []).append(one)
    if not any(one.outcome.works for one in attempts):
        return Verdict.UNREACHABLE
    passed_by = itertools.takewhile(lambda tries: all(map(fails_at_once, tries)), by_address.values())
    met = list(by_address.values())[len(list(passed_by))]
    return Verdict.REACHABLE if all(one.outcome.works for one in met) else Verdict.DEGRADED


def _without_blame(finding: Finding) -> Finding:
    """What would be a problem is only worth knowing where the target works all the same."""
    return replace(finding, severity=Severity.INFO) if finding.severity is Severity.PROBLEM else finding


def _consequences(found: Sequence[Finding], stages: dict[str, Stage]) -> list[Finding]:
    """The warnings that another one explains: the path decides which of two comes first."""
    explained: set[str] = set()
    consequences: list[Finding] = []
    warnings = (finding for finding in found if finding.severity is Severity.WARNING)
    for finding in sorted(warnings, key=lambda f: _rank(f, stages)):
        if finding.code in explained:
            consequences.append(finding)
        else:
            explained.update(code for code in finding.explains if code != finding.code)
    return consequences


def _once(findings: Iterable[Finding]) -> list[Finding]:
    """Without what a name's second address only repeats."""
    said: dict[object, Finding] = {}
    for one in findings:
        said.setdefault((one.code, one.title, one.explanation, one.evidence), one)
    return list(said.values())


def _runnable(finding: Finding, snapshot: Snapshot, *, of_the_machine: bool) -> Finding:
    """The finding with commands that run on this machine and act where it was looked from."""
    remedies = tuple(
        replace(
            remedy,
            commands=tuple(_called(command, snapshot) for command in remedy.commands),
            undo=tuple(_called(command, snapshot) for command in remedy.undo),
        )
        # the last gate: whatever a check has built, no name becomes more than a word of a command
        for remedy in map(without_objection, there(finding.remedies, snapshot.vantage, of_the_machine=of_the_machine))
    )
    # nothing is its own consequence, whatever a check lists
    return replace(finding, remedies=remedies, explains=tuple(c for c in finding.explains if c != finding.code))


def _called(command: Command, snapshot: Snapshot) -> Command:
    by_sudo = command.needs_root and not snapshot.vantage.is_root
    name = _netdiag(snapshot.program.root if by_sudo else snapshot.program.user)
    following = (*command.argv[1:], "")
    argv = tuple(
        name if (word, after) == NETDIAG_RUN else word for word, after in zip(command.argv, following, strict=True)
    )
    return Command(argv, command.needs_root)


def _netdiag(called: str) -> str:
    """The program's name or path, where it is netdiag's: a recording may name any other."""
    name = called.replace("\\", "/").rpartition("/")[2].removesuffix(".exe")
    return called if name == NETDIAG_RUN[0] and called.isprintable() else NETDIAG_RUN[0]


def _root_cause(found: Sequence[Finding], stages: dict[str, Stage], verdict: Verdict) -> Finding | None:
    if verdict.works:
        return None
    named = [f for f in found if f.severity is Severity.PROBLEM and f.confidence is not Confidence.POSSIBLE]
    explained = {code for finding in named for code in finding.explains}
    candidates = [finding for finding in named if finding.code not in explained] or named
    return min(candidates, key=lambda f: _rank(f, stages), default=None)


def _rank(finding: Finding, stages: dict[str, Stage]) -> tuple[int, int, int]:
    return (
        _SEVERITIES.index(finding.severity),
        stages.get(finding.code, Stage.SERVICE),
        _CONFIDENCES.index(finding.confidence),
    )


def _ranked(found: Sequence[Finding], root: Finding | None, stages: dict[str, Stage]) -> tuple[Finding, ...]:
    explained = set(root.explains) if root else set()
    ordered = sorted(found, key=lambda f: (f != root, f.code in explained, _rank(f, stages)))
    return tuple(ordered)


def _attempts(snapshot: Snapshot) -> tuple[AttemptReport, ...]:
    port = snapshot.target.port
    match snapshot.names:
        case Known(value=resolution) if resolution.error:
            late = resolution.error == "DEADLINE"
            outcome = Outcome.UNANSWERED if late else Outcome.NAME_NOT_FOUND
            return (AttemptReport(snapshot.target.host, port, outcome, resolution.error, resolution.ms),)
        case _:
            tried = snapshot.binds if snapshot.intent is Intent.BIND else snapshot.attempts
            return tuple(AttemptReport(a.address, a.port, a.outcome, a.errno, a.ms) for a in tried)


def _not_checked(snapshot: Snapshot, missing: Sequence[Missing]) -> tuple[NotChecked, ...]:
    """What the checks missed; and what was looked for in vain, unless some checks only were asked for."""
    wanted: dict[str, Unknown] = {}
    everything = not snapshot.scope.only and not snapshot.scope.skip
    looked_for = snapshot.facts() if everything else ()
    unshared = unshared_by_us(snapshot) if everything else ()
    for fact, unknown in (*looked_for, *unshared, *((one.fact, one.unknown) for one in missing)):
        if unknown.reason is not Reason.NOT_NEEDED:
            wanted.setdefault(fact, unknown)
    tried = max(len(snapshot.attempts), len(snapshot.binds))
    rest = (NotChecked("other addresses", f"the first {_JUDGED} of {tried} are judged"),) if tried > _JUDGED else ()
    return (*(NotChecked(fact, str(unknown), unknown.lift) for fact, unknown in sorted(wanted.items())), *rest)
