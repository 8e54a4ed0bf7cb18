"""Whatever a runbook says and whatever is seen: the path ends, and nothing crashes."""

from __future__ import annotations

import string
from typing import Any

import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from diagnose.model.report import Report
from diagnose.render.text import Style
from diagnose.runbook.check import checked
from diagnose.runbook.html import render_html
from diagnose.runbook.model import ENDS, AskStep, Runbook, RunStep
from diagnose.runbook.path import Ended, Known, NeedsAnswer, NeedsInput, NeedsReport, NotDone, walk
from diagnose.runbook.render import Filled, render_json, render_markdown, render_text
from diagnose.runbook.show import show
from diagnose.runbook.values import value
from tests.runbooks.books import CATALOGUE, SMALL, machines

NAMES = ["one", "two", "three", "four"]
PLACES = ["", "{a}", "{b} {verdict}", "{root_cause.title}", "{finding.code}", "{{", "{nix}", "{"]
TEXTS = st.builds("{}{}".format, st.sampled_from(PLACES), st.text(string.printable, max_size=8))
SETTINGS = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def some(values: list[str]) -> st.SearchStrategy[Any]:
    return st.sampled_from(values) | st.lists(st.sampled_from(values), min_size=1, max_size=2)


THEN = st.sampled_from([*NAMES, *ENDS, *ENDS])
WHEN = st.fixed_dictionaries(
    {},
    optional={
        "code": some(["refused/*", "firewall/*", "*", "nothing/*"]),
        "finding": some(["in-use/*", "hung/*"]),
        "verdict": some(["reachable", "unreachable", "sideways"]),
        "confidence": some(["proven", "possible"]),
        "check": st.dictionaries(
            st.sampled_from(["firewall", "nix"]), some(["skipped", "clear"]), min_size=1, max_size=2
        ),
        "not_checked": some(["firewall*", "x"]),
    },
)
SAID = st.fixed_dictionaries({"then": THEN}, optional={"say": TEXTS})
BRANCH: st.SearchStrategy[dict[str, Any]] = st.builds(dict, SAID, when=WHEN) | st.builds(
    dict, SAID, otherwise=st.just(True)
)
RUN = st.fixed_dictionaries(
    {
        "run": st.sampled_from(["{a}", "127.0.0.1:80", "{a}:80", "nowhere"]),
        "branches": st.lists(BRANCH, min_size=1, max_size=3),
    },
    optional={
        "with": st.fixed_dictionaries(
            {}, optional={"bind": st.booleans(), "from": st.sampled_from(["container:{b}", "x"])}
        )
    },
)
ASK = st.fixed_dictionaries(
    {"ask": TEXTS, "choices": st.dictionaries(st.sampled_from(["yes", "no", "a b"]), THEN | SAID, min_size=1)}
)


@st.composite
def books(draw: st.DrawFn) -> dict[str, Any]:
    """Mostly runbooks that lead on to the next step, so that many of them are right."""
    count = draw(st.integers(1, 4))
    steps = [{"id": name, **draw(RUN | ASK)} for name in NAMES[:count]]
    return {
        "schema": "netdiag.runbook/1",
        "name": "made-up",
        "title": "Made up",
        "inputs": {"a": {"ask": "A?", "default": "127.0.0.1:80"}, "b": {"ask": "B?"}},
        "steps": steps,
        "escalate": draw(st.fixed_dictionaries({}, optional={"to": st.just("x"), "say": TEXTS})),
    }


def always(runbook: Runbook, reports: list[Report | NotDone], typed: list[str]) -> Filled:
    """Gives the walk whatever it asks for."""
    known = Known()
    for number in range(100):
        match walk(runbook, known):
            case Ended() as ended:
                return Filled(runbook, known, ended)
            case NeedsInput(name=name):
                assert name not in known.inputs
                known = Known({**known.inputs, name: value(typed[number % len(typed)])}, known.answers, known.reports)
            case NeedsAnswer(step=step):
                choice = step.choices[number % len(step.choices)].name
                known = Known(known.inputs, {**known.answers, step.id: choice}, known.reports)
            case NeedsReport(question=question):
                seen = reports[number % len(reports)]
                known = Known(known.inputs, known.answers, {**known.reports, question.step: seen})
    raise AssertionError("the path does not end")


def rendered(filled: Filled) -> None:
    """In every format."""
    assert render_text(filled, Style(80, ascii_only=True)).isascii()
    for text in (render_markdown(filled), render_html(filled), render_json(filled), show(filled.runbook)):
        assert all(char.isprintable() or char == "\n" for char in text)


SEEN = st.lists(st.sampled_from([*machines()[::9], NotDone("gone")]), min_size=1, max_size=3)
TYPED = st.lists(st.text(max_size=20), min_size=1, max_size=3)


@SETTINGS
@given(books(), SEEN, TYPED)
def test_a_runbook_that_passes_check_ends_whatever_is_seen_and_typed(
    made: dict[str, Any], seen: list[Report | NotDone], typed: list[str]
) -> None:
    runbook, problems = checked(yaml.safe_dump(made, sort_keys=False, allow_unicode=True).encode(), CATALOGUE)
    if runbook is None:
        assert problems
        return
    filled = always(runbook, seen, typed)
    assert len({entry.step for entry in filled.ended.entries}) == len(filled.ended.entries)
    rendered(filled)


@SETTINGS
@given(SEEN, TYPED)
def test_a_right_runbook_ends_with_any_report(seen: list[Report | NotDone], typed: list[str]) -> None:
    runbook, _ = checked(SMALL.encode(), CATALOGUE)
    assert runbook is not None
    filled = always(runbook, seen, typed)
    assert filled.ended.end.exit_code in (0, 1, 3)
    rendered(filled)


@SETTINGS
@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_no_file_makes_check_crash(data: bytes) -> None:
    runbook, problems = checked(data, CATALOGUE)
    assert (runbook is None) is bool(problems)
    assert all("\n" not in repr(problem.line("F")) for problem in problems)


@SETTINGS
@given(st.integers(0, len(SMALL)), st.integers(0, 30), st.text("{}[]:,&*!|>'\"-? \n\tax", max_size=6))
def test_no_damage_of_a_right_file_makes_check_crash(at: int, length: int, put: str) -> None:
    damaged = SMALL[:at] + put + SMALL[at + length :]
    runbook, problems = checked(damaged.encode(), CATALOGUE)
    count = damaged.count("\n") + 2
    assert (runbook is None) is bool(problems)
    assert all(1 <= problem.place.line <= count and problem.place.column >= 0 for problem in problems)


def test_both_kinds_of_step_are_made_up_often_enough() -> None:
    made = [checked(yaml.safe_dump(one).encode(), CATALOGUE)[0] for one in _sample()]
    right = [one for one in made if one is not None]
    assert {type(step) for one in right for step in one.steps} == {RunStep, AskStep}


def _sample() -> list[dict[str, Any]]:
    step = {"id": "one", "run": "{a}", "branches": [{"otherwise": True, "then": "two"}]}
    other = {"id": "two", "ask": "Why?", "choices": {"yes": "works"}}
    inputs = {"a": {"ask": "A?"}}
    return [{"schema": "netdiag.runbook/1", "name": "a", "title": "A", "inputs": inputs, "steps": [step, other]}]
