"""What the tests of runbooks are written with."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from checks import CAUSES, CHECKS
from diagnose.engine import diagnose
from diagnose.model.report import Report
from diagnose.recording import decode_foreign
from diagnose.runbook.check import Catalogue, checked
from diagnose.runbook.model import AskStep, Runbook, RunStep
from diagnose.runbook.path import Ended, Known, NeedsAnswer, NeedsInput, NeedsReport, NotDone, Value, walk

CATALOGUE = Catalogue(tuple(cause.code for cause in CAUSES), tuple(check.name for check in CHECKS))
MACHINES = Path(__file__).parents[2] / "fixtures" / "machines"

SMALL = """\
schema: netdiag.runbook/1
name: small
title: Something does not answer
inputs:
  server: {ask: "Which one?", default: "127.0.0.1:8080"}
steps:
  - id: reach
    run: "{server}"
    branches:
      - when: {verdict: reachable}
        then: ask
      - when: {code: "refused/*"}
        say: "Seen: {root_cause.title}"
        then: fix
      - otherwise: true
        then: escalate
  - id: ask
    ask: Does it still fail?
    choices: {"yes": escalate, "no": works}
escalate: {to: the team, say: "It was {server}.", attach: [bundle]}
"""


def book(text: str) -> Runbook:
    """A runbook that must be right."""
    runbook, problems = checked(text.encode(), CATALOGUE)
    assert runbook is not None, problems
    return runbook


def lines(text: str) -> list[str]:
    """What `check` says of it."""
    return [problem.line("F") for problem in checked(text.encode(), CATALOGUE)[1]]


@cache
def machine(name: str) -> Report:
    """A recorded machine, diagnosed."""
    return diagnose(decode_foreign((MACHINES / name / "snapshot.json").read_bytes())[0], CHECKS)


@cache
def machines() -> tuple[Report, ...]:
    """All of them."""
    return tuple(machine(path.parent.name) for path in sorted(MACHINES.glob("*/snapshot.json")))


def step(runbook: Runbook, name: str) -> RunStep | AskStep:
    """The step of this id, which must be there."""
    found = runbook.step(name)
    assert found is not None
    return found


def followed(
    runbook: Runbook,
    reports: dict[str, Report | NotDone],
    answers: dict[str, str] | None = None,
    inputs: dict[str, str] | None = None,
) -> Ended:
    """The path to its end; what is not given is the default, or some value."""
    known = Known({name: Value(one, one) for name, one in (inputs or {}).items()}, answers or {}, reports)
    for _ in range(1000):
        stop = walk(runbook, known)
        match stop:
            case Ended():
                return stop
            case NeedsInput(name=name):
                given = runbook.inputs[name].default or "app"
                known = Known({**known.inputs, name: Value(given, given)}, known.answers, known.reports)
            case NeedsAnswer() | NeedsReport():
                raise AssertionError(f"the path needs {stop}")
    raise AssertionError("the path does not end")


def run_steps(runbook: Runbook) -> Iterator[RunStep]:
    """Its diagnoses."""
    return (one for one in runbook.steps if isinstance(one, RunStep))


def expected(name: str) -> dict[str, object]:
    """What is expected of a recorded machine."""
    found: dict[str, object] = json.loads((MACHINES / name / "expected.json").read_text())
    return found
