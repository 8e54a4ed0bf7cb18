"""The runbooks that come with netdiag, over all recorded machines."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import jsonschema
import pytest
import yaml

from diagnose import library
from diagnose.model.report import Report
from diagnose.model.target import Intent
from diagnose.runbook.check import checked
from diagnose.runbook.model import SUFFIX, AskStep, Runbook, RunStep
from diagnose.runbook.path import Diagnosed, fits
from diagnose.runbook.schema import runbook_schema
from tests.runbooks.books import CATALOGUE, book, followed, machines, run_steps

FILES = sorted(library.SHIPPED.glob(f"*{SUFFIX}"))
BOOKS = {path.name.removesuffix(SUFFIX): book(path.read_text(encoding="utf-8")) for path in FILES}
PROMISED = {
    "port-in-use",
    "connection-refused",
    "works-with-127-but-not-localhost",
    "firewall-suspected",
    "container-cannot-reach-host",
    "host-cannot-reach-container",
    "database-on-localhost",
    "dev-server-not-reachable",
    "accepts-but-hangs",
    "https-or-proxy-trouble",
}


def suitable(step: RunStep) -> list[Report]:
    """The recorded machines that were asked the same kind of question."""
    intent = Intent.BIND if step.options.bind else Intent.CONNECT
    inside = step.options.origin is not None
    return [one for one in machines() if one.intent is intent and (one.vantage.origin is not None) is inside]


def test_all_that_were_promised_are_shipped() -> None:
    assert set(BOOKS) == PROMISED


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_it_is_right_and_bears_the_name_of_its_file(path: Path) -> None:
    runbook, problems = checked(path.read_bytes(), CATALOGUE)
    assert problems == ()
    assert runbook is not None
    assert runbook.name == path.name.removesuffix(SUFFIX)
    assert runbook.when, "it does not say how a person recognises the case"
    assert runbook.escalate.to, "it escalates to no team"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_it_fits_the_published_schema(path: Path) -> None:
    jsonschema.validate(yaml.safe_load(path.read_text(encoding="utf-8")), json.loads(runbook_schema()))


@pytest.mark.parametrize("name", BOOKS)
def test_no_recorded_machine_ends_in_a_step_without_a_branch(name: str) -> None:
    for step in run_steps(BOOKS[name]):
        for report in suitable(step):
            assert any(fits(branch.when, report) for branch in step.branches), (step.id, report.target.input)


@pytest.mark.parametrize("name", BOOKS)
def test_every_branch_is_taken_by_a_recorded_machine(name: str) -> None:
    for step in run_steps(BOOKS[name]):
        first = {
            next(number for number, branch in enumerate(step.branches, 1) if fits(branch.when, report))
            for report in suitable(step)
        }
        never = sorted(set(range(1, len(step.branches) + 1)) - first)
        assert not never, f"{name}, step {step.id}: no recorded machine takes the branches {never}"


@pytest.mark.parametrize("name", BOOKS)
def test_every_step_lies_on_the_path_of_recorded_machines_and_answers(name: str) -> None:
    runbook = BOOKS[name]
    seen: set[tuple[str, str]] = set()
    for reports, answers in _worlds(runbook):
        ended = followed(runbook, dict(reports), answers)
        seen |= {
            (entry.step, entry.branch.then if isinstance(entry, Diagnosed) and entry.branch else "")
            for entry in ended.entries
        }
    assert {step for step, _ in seen} == {step.id for step in runbook.steps}


def _worlds(runbook: Runbook) -> list[tuple[dict[str, Report], dict[str, str]]]:
    """For each step one machine a branch, and every answer."""
    steps = list(run_steps(runbook))
    kinds: list[list[Report]] = []
    for step in steps:
        by_branch: dict[int, Report] = {}
        for report in suitable(step):
            number = next(n for n, branch in enumerate(step.branches) if fits(branch.when, report))
            by_branch.setdefault(number, report)
        kinds.append(list(by_branch.values()))
    questions = [one for one in runbook.steps if isinstance(one, AskStep)]
    answers = [[choice.name for choice in one.choices] for one in questions]
    return [
        (
            {step.id: report for step, report in zip(steps, reports, strict=True)},
            {one.id: answer for one, answer in zip(questions, chosen, strict=True)},
        )
        for reports, chosen in product(product(*kinds), product(*answers))
    ]


@pytest.mark.parametrize("name", BOOKS)
def test_it_ends_at_fix_with_a_cause_and_its_remedy_only(name: str) -> None:
    """A person who is told to fix something is told what."""
    runbook = BOOKS[name]
    for reports, answers in _worlds(runbook):
        ended = followed(runbook, dict(reports), answers)
        if ended.end == "fix":
            last = next(entry for entry in reversed(ended.entries) if isinstance(entry, Diagnosed))
            assert last.met is not None
            assert last.met.remedies, f"{last.met.code} is to be fixed and has no remedy"


@pytest.mark.parametrize("name", BOOKS)
def test_it_says_works_only_where_the_last_diagnosis_works(name: str) -> None:
    runbook = BOOKS[name]
    for reports, answers in _worlds(runbook):
        ended = followed(runbook, dict(reports), answers)
        last = next(entry for entry in reversed(ended.entries) if isinstance(entry, Diagnosed))
        if ended.end == "works":
            assert isinstance(last.report, Report)
            assert last.report.verdict.works
