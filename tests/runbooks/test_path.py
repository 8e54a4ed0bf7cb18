"""The path: which branch is taken, what is said, where it ends."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from diagnose.model.finding import Confidence, Severity
from diagnose.model.report import CheckOutcome, CheckReport, NotChecked, Report, Verdict
from diagnose.parse.target import parse_target
from diagnose.runbook.model import End, When
from diagnose.runbook.path import Diagnosed, Known, NeedsAnswer, NeedsInput, NeedsReport, NotDone, Value, fits, walk
from diagnose.runbook.recorded import recorded
from diagnose.runbook.template import quoted
from tests.reports import REPORTS
from tests.runbooks.books import SMALL, book, followed
from tests.scenes import connected, dialled, finding, refused, taken, wanted

HERE = "127.0.0.1:8080"


def report(root: str | None = "refused/nothing-listening", confidence: Confidence = Confidence.PROVEN) -> Report:
    """A report with a root cause and another finding, which is only possible."""
    plain = REPORTS["closed"]()
    cause = None if root is None else finding(root, confidence=confidence)
    other = finding("refused/other-port", Severity.INFO, Confidence.POSSIBLE)
    return replace(
        plain,
        verdict=Verdict.UNREACHABLE,
        root_cause=cause,
        findings=(cause, other) if cause else (other,),
        checks=(
            CheckReport("firewall", CheckOutcome.SKIPPED, "needs root"),
            CheckReport("refused", CheckOutcome.FOUND),
        ),
        not_checked=(NotChecked("firewall rules", "needs root"),),
    )


WORKS = replace(report(None), verdict=Verdict.REACHABLE)


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        (None, True),
        (When(code=("refused/nothing-listening",)), True),
        (When(code=("refused/*",)), True),
        (When(code=("firewall/*", "refused/*")), True),
        (When(code=("firewall/*",)), False),
        (When(code=("refused/other-port",)), False),
        (When(finding=("refused/other-*",)), True),
        (When(finding=("firewall/*",)), False),
        (When(verdict=("reachable", "unreachable")), True),
        (When(verdict=("reachable",)), False),
        (When(confidence=("proven",)), True),
        (When(confidence=("likely",)), False),
        (When(code=("refused/*",), confidence=("likely", "proven")), True),
        (When(code=("refused/*",), confidence=("likely",)), False),
        (When(finding=("refused/other-port",), confidence=("possible",)), True),
        (When(finding=("refused/other-port",), confidence=("proven",)), False),
        (When(code=("refused/nothing-listening",), finding=("refused/other-port",), confidence=("proven",)), True),
        (When(check=(("firewall", ("skipped",)),)), True),
        (When(check=(("firewall", ("found", "clear")),)), False),
        (When(check=(("firewall", ("skipped",)), ("refused", ("found",)))), True),
        (When(check=(("firewall", ("skipped",)), ("refused", ("clear",)))), False),
        (When(not_checked=("firewall *",)), True),
        (When(not_checked=("containers",)), False),
        (When(code=("refused/*",), verdict=("reachable",)), False),
    ],
)
def test_a_condition_is_met_by_every_key_and_any_value(when: When | None, expected: bool) -> None:
    assert fits(when, report()) is expected


def test_a_condition_on_the_root_cause_is_never_met_without_one() -> None:
    assert not fits(When(code=("*",)), report(None))
    assert not fits(When(confidence=("proven", "likely", "possible")), report(None))
    assert fits(When(finding=("*",)), report(None))


def test_the_walk_asks_for_what_it_needs_in_the_order_of_the_path() -> None:
    runbook = book(SMALL)
    need = walk(runbook, Known())
    assert need == NeedsInput("server", "reach")
    given = {"server": Value(HERE, HERE)}
    need = walk(runbook, Known(given))
    assert isinstance(need, NeedsReport)
    assert (need.question.target, need.question.bind, need.question.origin) == (HERE, False, None)
    need = walk(runbook, Known(given, {}, {"reach": WORKS}))
    assert isinstance(need, NeedsAnswer)
    assert need.step.id == "ask"


def test_the_first_branch_that_fits_is_taken_and_ends_it() -> None:
    ended = followed(book(SMALL), {"reach": report()})
    assert (ended.end, ended.reason) == (End.FIX, None)
    (entry,) = ended.entries
    assert isinstance(entry, Diagnosed)
    assert entry.number == 2
    assert quoted(entry.said) == "Seen: This is refused/nothing-listening"


def test_a_step_without_a_fitting_branch_escalates_and_says_so() -> None:
    text = SMALL.replace("      - otherwise: true\n        then: escalate\n", "")
    ended = followed(book(text), {"reach": report("hung/not-accepting")})
    assert ended.end is End.ESCALATE
    assert ended.reason == "no branch of the step reach fits what was seen"


def test_a_diagnosis_that_could_not_be_made_escalates_and_says_why() -> None:
    ended = followed(book(SMALL), {"reach": NotDone("there is no such container")})
    assert ended.end is End.ESCALATE
    assert ended.reason == "the step reach could not be carried out: there is no such container"


def test_an_answer_leads_on() -> None:
    assert followed(book(SMALL), {"reach": WORKS}, {"ask": "no"}).end is End.WORKS
    ended = followed(book(SMALL), {"reach": WORKS}, {"ask": "yes"})
    assert (ended.end, ended.reason) == (End.ESCALATE, None)
    assert quoted(ended.said) == "It was '127.0.0.1:8080'."


def test_an_input_is_asked_for_only_when_it_is_used() -> None:
    text = SMALL.replace("  server:", "  late: {ask: Late?}\n  server:").replace("It was {server}", "It was {late}")
    runbook = book(text)
    known = Known({"server": Value(HERE, HERE)}, {}, {"reach": report()})
    assert not isinstance(walk(runbook, known), NeedsInput)
    known = Known({"server": Value(HERE, HERE)}, {}, {"reach": report("hung/not-accepting")})
    assert walk(runbook, known) == NeedsInput("late", "reach")


@pytest.mark.parametrize(
    ("placeholder", "expected"),
    [
        ("root_cause.code", "refused/nothing-listening"),
        ("root_cause.title", "This is refused/nothing-listening"),
        ("root_cause.explanation", "Because of refused/nothing-listening."),
        ("verdict", "unreachable"),
        ("exit_code", "1"),
        ("finding.code", "refused/nothing-listening"),
        ("finding.severity", "problem"),
        ("finding.confidence", "proven"),
    ],
)
def test_a_diagnosis_fills_in(placeholder: str, expected: str) -> None:
    runbook = book(SMALL.replace("Seen: {root_cause.title}", f"{{{placeholder}}}"))
    (entry,) = followed(runbook, {"reach": report()}).entries
    assert quoted(entry.said) == expected


def test_the_finding_is_the_one_that_the_branch_has_met() -> None:
    text = SMALL.replace('code: "refused/*"', "finding: refused/other-port").replace("root_cause.title", "finding.code")
    (entry,) = followed(book(text), {"reach": report()}).entries
    assert quoted(entry.said) == "Seen: refused/other-port"


def test_without_a_cause_a_placeholder_says_so() -> None:
    text = SMALL.replace(
        "      - otherwise: true\n",
        "      - otherwise: true\n        say: '{root_cause.title}, {root_cause.code}, {exit_code}'\n",
    )
    (entry,) = followed(book(text), {"reach": report(None)}).entries
    assert quoted(entry.said) == "no cause was named, none, 3"


HOSTILE = [
    "x\ny",
    "\x1b[31mred",
    "{root_cause.title}",
    "{server}",
    "{{x}}",
    "$(reboot)",
    "`reboot`",
    "<script>alert(1)</script>",
    "](http://evil)",
    "'; rm -rf /; '",
    "\u202egnp",
    "%s%n",
    "a|b",
]


@pytest.mark.parametrize("hostile", HOSTILE)
def test_a_value_is_data_wherever_it_is_shown(hostile: str) -> None:
    text = SMALL.replace("Seen: {root_cause.title}", "Seen {server}: {root_cause.title}")
    (entry,) = followed(book(text), {"reach": report()}, inputs={"server": hostile}).entries
    said = quoted(entry.said)
    assert said == f"Seen {hostile!r}: This is refused/nothing-listening"
    assert said.isprintable()


def test_a_placeholder_in_a_report_is_not_filled_in_again() -> None:
    cause = finding("refused/nothing-listening", title="It is {server}")
    seen = replace(report(), root_cause=cause, findings=(cause,))
    (entry,) = followed(book(SMALL), {"reach": seen}).entries
    assert quoted(entry.said) == "Seen: It is {server}"


# recordings


def question(text: str) -> NeedsReport:
    stop = walk(book(text), Known({"server": Value(HERE, HERE)}))
    assert isinstance(stop, NeedsReport)
    return stop


def test_a_recording_answers_a_step_of_its_target_and_intent_only() -> None:
    here, there = dialled(HERE, refused(HERE)), dialled("127.0.0.1:9", connected("127.0.0.1:9"))
    bind = wanted(HERE, taken(HERE))
    asked = question(SMALL).question
    assert recorded(asked, parse_target(HERE), [there, bind, here]) is here
    missing = recorded(asked, parse_target(HERE), [there, bind])
    assert isinstance(missing, NotDone)
    assert missing.why == (
        "127.0.0.1:8080 (connect) is not in the recording, which holds 127.0.0.1:9 (connect), 127.0.0.1:8080 (bind)"
    )


def test_a_recording_from_elsewhere_answers_no_step_from_here_and_the_reverse() -> None:
    here = dialled(HERE, refused(HERE))
    inside = replace(here, vantage=replace(here.vantage, origin="container:app"))
    assert isinstance(recorded(question(SMALL).question, parse_target(HERE), [inside]), NotDone)
    asked = question(
        SMALL.replace('    run: "{server}"\n', '    run: "{server}"\n    with: {from: "container:app"}\n')
    ).question
    assert recorded(asked, parse_target(HERE), [here, inside]) is inside


def test_a_recording_is_judged_by_the_checks_that_the_step_names() -> None:
    asked = question(
        SMALL.replace('    run: "{server}"\n', '    run: "{server}"\n    with: {check: firewall}\n')
    ).question
    found = recorded(asked, parse_target(HERE), [dialled(HERE, refused(HERE))])
    assert not isinstance(found, NotDone)
    assert found.scope.only == ("firewall",)
