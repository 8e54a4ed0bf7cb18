"""The filled-in runbook as scripts read it; keys are never removed or renamed within /1."""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import UNSET, Struct, UnsetType

from diagnose.model.report import Report
from diagnose.runbook.model import Branch, Runbook
from diagnose.runbook.path import Asked, Diagnosed, Ended, Entry, Known, NotDone
from diagnose.runbook.template import quoted

SCHEMA: Literal["netdiag.runbook-result/1"] = "netdiag.runbook-result/1"


class QuestionResult(Struct, frozen=True):
    """What was asked and what the person answered."""

    ask: str
    answer: str


class TakenBranch(Struct, frozen=True, kw_only=True):
    """Why the path went on as it did."""

    when: dict[str, list[str] | dict[str, list[str]]] | None
    """The condition of the branch as the runbook has it; null: otherwise, or the answer to a question."""
    number: int
    """Of the branch or choice in its step, the first is 1."""
    then: str


class StepResult(Struct, frozen=True, kw_only=True):
    """A step on the path: a question or a report."""

    step: str
    question: QuestionResult | UnsetType = UNSET
    report: Report | UnsetType | None = UNSET
    """null: the diagnosis could not be made."""
    branch: TakenBranch | None
    """null: no branch fits, or there was no diagnosis."""
    said: str | None


class Escalation(Struct, frozen=True):
    """Which team takes over, and why."""

    to: str | None
    say: str | None
    attach: tuple[str, ...]
    reason: str | None
    """Where no branch of the runbook says why."""


class Result(Struct, frozen=True, kw_only=True):
    """What was asked, seen and decided."""

    schema: Literal["netdiag.runbook-result/1"] = SCHEMA
    runbook: str
    inputs: dict[str, str]
    """Those that were used, without passwords."""
    path: tuple[StepResult, ...]
    end: Literal["works", "fix", "escalate"]
    escalation: Escalation | None


def result(runbook: Runbook, known: Known, ended: Ended) -> Result:
    """The whole path of a run."""
    escalates = ended.end.value == "escalate"
    to, attach = runbook.escalate.to, runbook.escalate.attach
    said = quoted(ended.said) if ended.said else None
    return Result(
        runbook=runbook.name,
        inputs={name: known.inputs[name].shown for name in runbook.inputs if name in known.inputs},
        path=tuple(_step(runbook, entry) for entry in ended.entries),
        end=ended.end.value,
        escalation=Escalation(to, said, attach, ended.reason) if escalates else None,
    )


def _step(runbook: Runbook, entry: Entry) -> StepResult:
    match entry:
        case Asked():
            step = runbook.step(entry.step)
            choices = getattr(step, "choices", ())
            branch = TakenBranch(when=None, number=choices.index(entry.choice) + 1, then=entry.choice.then)
            question = QuestionResult(quoted(entry.ask), entry.choice.name)
            return StepResult(step=entry.step, question=question, branch=branch, said=quoted(entry.said) or None)
        case Diagnosed(report=NotDone() as undone):
            return StepResult(step=entry.step, report=None, branch=None, said=undone.why)
        case Diagnosed():
            assert isinstance(entry.report, Report)
            return StepResult(
                step=entry.step, report=entry.report, branch=_taken(entry), said=quoted(entry.said) or None
            )


def _taken(entry: Diagnosed) -> TakenBranch | None:
    if entry.branch is None or entry.number is None:
        return None
    return TakenBranch(when=_condition(entry.branch), number=entry.number, then=entry.branch.then)


def _condition(branch: Branch) -> dict[str, list[str] | dict[str, list[str]]] | None:
    when = branch.when
    if when is None:
        return None
    lists = ("code", "finding", "verdict", "confidence", "not_checked")
    found: dict[str, list[str] | dict[str, list[str]]] = {
        key: list(getattr(when, key)) for key in lists if getattr(when, key)
    }
    if when.check:
        found["check"] = {name: list(outcomes) for name, outcomes in when.check}
    return found


def encoded(given: Result) -> bytes:
    """As JSON, indented."""
    return msgspec.json.format(msgspec.json.encode(given), indent=2)
