"""A runbook, and the inputs, reports and answers that it asked for -> the path and its end; pure."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase

from msgspec import Struct, field

from diagnose.engine import exit_code
from diagnose.model.finding import Finding
from diagnose.model.report import Report
from diagnose.model.target import Intent
from diagnose.runbook.model import ENDS, AskStep, Branch, Choice, End, Runbook, RunStep, Template, When
from diagnose.runbook.template import FIELDS, Piece, Said, filled, plain

NO_CAUSE = "no cause was named"


class Value(Struct, frozen=True):
    """What was given for an input, and what of it may be shown (no password)."""

    raw: str
    shown: str


class Question(Struct, frozen=True):
    """A diagnosis that a step asks for."""

    step: str
    target: str
    shown: str
    """The target without what is secret in it."""
    origin: str | None = None
    bind: bool = False
    check: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    timeout: float | None = None
    trace: bool = False

    @property
    def intent(self) -> Intent:
        """Connect or bind."""
        return Intent.BIND if self.bind else Intent.CONNECT

    @property
    def words(self) -> tuple[str, ...]:
        """As it is typed behind `netdiag`."""
        options = (
            *(("--from", self.origin) if self.origin is not None else ()),
            *(word for name in self.check for word in ("--check", name)),
            *(word for name in self.skip for word in ("--skip", name)),
            *(("--timeout", f"{self.timeout:g}") if self.timeout is not None else ()),
            *(("--trace",) if self.trace else ()),
        )
        return ("run", *options, self.shown, *(("--bind",) if self.bind else ()))


class NotDone(Struct, frozen=True):
    """A diagnosis that could not be made, and why; the runbook escalates."""

    why: str


class Known(Struct, frozen=True):
    """What has been given so far."""

    inputs: Mapping[str, Value] = field(default_factory=dict)
    answers: Mapping[str, str] = field(default_factory=dict)
    """Step -> choice."""
    reports: Mapping[str, Report | NotDone] = field(default_factory=dict)
    """Step -> its diagnosis."""


class NeedsInput(Struct, frozen=True):
    """The walk goes on when this input is known."""

    name: str
    step: str


class NeedsAnswer(Struct, frozen=True):
    """The walk goes on when the person has chosen."""

    step: AskStep
    ask: Said


class NeedsReport(Struct, frozen=True):
    """The walk goes on when this was diagnosed."""

    question: Question


class Asked(Struct, frozen=True):
    """A question on the path."""

    step: str
    ask: Said
    choice: Choice
    said: Said


class Diagnosed(Struct, frozen=True):
    """A diagnosis on the path."""

    step: str
    question: Question
    report: Report | NotDone
    branch: Branch | None
    """None: no branch fits, or it could not be made."""
    number: int | None
    """Of the branch, the first is 1."""
    met: Finding | None
    """The finding that the branch is about."""
    said: Said


Entry = Asked | Diagnosed


class Ended(Struct, frozen=True):
    """The whole path."""

    entries: tuple[Entry, ...]
    end: End
    reason: str | None
    """Why it escalates where no branch says so."""
    said: Said
    """What the other team is told."""


Stop = NeedsInput | NeedsAnswer | NeedsReport | Ended


class _MissingError(Exception):
    """An input that is not known yet."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


def walk(runbook: Runbook, known: Known) -> Stop:
    """Follows the runbook from its first step as far as what is known reaches; every walk ends."""
    return _Walk(runbook, known).stop()


def fits(when: When | None, report: Report) -> bool:
    """Whether the condition holds for the report."""
    if when is None:
        return True
    root = report.root_cause
    return (
        (not when.code or (root is not None and _like(root.code, when.code)))
        and (not when.finding or finding_met(when, report) is not None)
        and (not when.verdict or report.verdict.value in when.verdict)
        and _is_sure(when, report)
        and all(_has_outcome(report, name, outcomes) for name, outcomes in when.check)
        and (not when.not_checked or any(_like(gap.fact, when.not_checked) for gap in report.not_checked))
    )


def finding_met(when: When | None, report: Report) -> Finding | None:
    """The finding that a condition is about: the first of its findings, else the root cause, else the first one."""
    if when is not None and when.finding:
        sure = when.confidence if not when.code else ()
        return next(
            (f for f in report.findings if _like(f.code, when.finding) and (not sure or f.confidence.value in sure)),
            None,
        )
    return report.root_cause or next(iter(report.findings), None)


def _is_sure(when: When, report: Report) -> bool:
    if not when.confidence or (when.finding and not when.code):  # then the finding itself was asked for it
        return True
    return report.root_cause is not None and report.root_cause.confidence.value in when.confidence


def _has_outcome(report: Report, name: str, outcomes: tuple[str, ...]) -> bool:
    return any(check.name == name and check.outcome.value in outcomes for check in report.checks)


def _like(text: str, globs: tuple[str, ...]) -> bool:
    return any(fnmatchcase(text, glob) for glob in globs)


class _Walk:
    """One walk."""

    def __init__(self, runbook: Runbook, known: Known) -> None:
        self.runbook = runbook
        self.known = known
        self.entries: list[Entry] = []

    def stop(self) -> Stop:
        """Where it ends, or what it needs to go on."""
        then = self.runbook.steps[0].id
        try:
            while then not in ENDS:
                step = self.runbook.step(then)
                if step is None or any(entry.step == then for entry in self.entries):
                    return self._escalated(f"the step {then!r} {'is not there' if step is None else 'came already'}")
                if isinstance(step, AskStep):
                    ask = self._filled(step.ask, None, None, shown=True)
                    choice = next((one for one in step.choices if one.name == self.known.answers.get(then)), None)
                    if choice is None:
                        return NeedsAnswer(step, ask)
                    self.entries.append(Asked(then, ask, choice, self._said(choice.say)))
                    then = choice.then
                else:
                    entry = self._diagnosed(step)
                    if isinstance(entry, NeedsReport):
                        return entry
                    self.entries.append(entry)
                    if entry.branch is None:
                        return self._escalated(_why_no_branch(entry))
                    then = entry.branch.then
            end = End(then)
            return self._escalated(None) if end is End.ESCALATE else Ended(tuple(self.entries), end, None, ())
        except _MissingError as missing:
            return NeedsInput(missing.name, self._now(then))

    def _now(self, then: str) -> str:
        """The step that is to be done, or that was done last."""
        return self.entries[-1].step if then in ENDS and self.entries else then

    def _diagnosed(self, step: RunStep) -> Diagnosed | NeedsReport:
        options = step.options
        origin = None if options.origin is None else plain(self._filled(options.origin, None, None))
        question = Question(
            step=step.id,
            target=plain(self._filled(step.target, None, None)),
            shown="".join(
                part if isinstance(part, str) else self._value(part.name).shown for part in step.target.parts
            ),
            origin=origin,
            bind=options.bind,
            check=options.check,
            skip=options.skip,
            timeout=options.timeout,
            trace=options.trace,
        )
        report = self.known.reports.get(step.id)
        if report is None:
            return NeedsReport(question)
        if isinstance(report, NotDone):
            return Diagnosed(step.id, question, report, None, None, None, ())
        for number, branch in enumerate(step.branches, 1):
            if fits(branch.when, report):
                met = finding_met(branch.when, report)
                said = () if branch.say is None else self._filled(branch.say, report, met, shown=True)
                return Diagnosed(step.id, question, report, branch, number, met, said)
        return Diagnosed(step.id, question, report, None, None, finding_met(None, report), ())

    def _escalated(self, reason: str | None) -> Ended:
        return Ended(tuple(self.entries), End.ESCALATE, reason, self._said(self.runbook.escalate.say))

    def _said(self, template: Template | None) -> Said:
        """A text that is about the last diagnosis on the path."""
        if template is None:
            return ()
        last = next((one for one in reversed(self.entries) if isinstance(one, Diagnosed)), None)
        report = last.report if last is not None and isinstance(last.report, Report) else None
        return self._filled(template, report, last.met if last is not None else None, shown=True)

    def _filled(self, template: Template, report: Report | None, met: Finding | None, *, shown: bool = False) -> Said:
        def value_of(name: str) -> Piece:
            if name in self.runbook.inputs:
                value = self._value(name)
                return Piece(value.shown if shown else value.raw, value=True)
            return Piece(of_report(name, report, met))

        return filled(template, value_of)

    def _value(self, name: str) -> Value:
        try:
            return self.known.inputs[name]
        except KeyError:
            raise _MissingError(name) from None


def of_report(name: str, report: Report | None, met: Finding | None) -> str:
    """What a diagnosis fills in for a placeholder."""
    whose, dot, which = name.partition(".")
    if not dot:
        if report is None:
            return "not diagnosed"
        return report.verdict.value if name == "verdict" else str(exit_code([report]))
    found = met if whose == "finding" else report.root_cause if report is not None else None
    if found is None or which not in FIELDS:
        return NO_CAUSE if which in ("title", "explanation") else "none"
    value = getattr(found, which)
    return str(getattr(value, "value", value))


def _why_no_branch(entry: Diagnosed) -> str:
    if isinstance(entry.report, NotDone):
        return f"the step {entry.step} could not be carried out: {entry.report.why}"
    return f"no branch of the step {entry.step} fits what was seen"
