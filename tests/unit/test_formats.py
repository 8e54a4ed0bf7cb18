"""JSON Lines, JUnit, SARIF and GitHub annotations: one report model, as other programs read it."""

from __future__ import annotations

import json
from xml.etree import ElementTree

import jsonschema
import pytest
from msgspec.structs import replace

from checks import CAUSES, CHECKS
from diagnose.engine import diagnose
from diagnose.model.finding import Severity
from diagnose.model.report import Report, Verdict
from diagnose.render.github import render_github
from diagnose.render.html import render_html
from diagnose.render.json import render_jsonl, report_schema
from diagnose.render.junit import render_junit
from diagnose.render.path import LinkState, links
from diagnose.render.sarif import render_sarif
from tests.scenes import connected, dialled, held, listening, process, refused, rows

HERE = "127.0.0.1:8080"
CODES = {cause.code: cause for cause in CAUSES}
HOSTILE = 'x"><script>alert(1)</script>&\x1b[31m\u202e%0A::error::\r\n'


def report(*attempts: object, program: str = "nginx", input_: str | None = None) -> Report:
    snapshot = dialled(
        HERE,
        *attempts,  # type: ignore[arg-type]
        listeners=rows(*([listening(HERE)] if attempts[0] == connected(HERE) else [])),
        holders=held((1, process(program))),
    )
    made = diagnose(snapshot, CHECKS)
    return made if input_ is None else replace(made, target=replace(made.target, input=input_))


WORKS = report(connected(HERE))
REFUSED = report(refused(HERE))
NAMELESS = replace(REFUSED, root_cause=None, findings=())
HOSTILE_ONE = replace(report(refused(HERE), input_=HOSTILE), vantage=replace(REFUSED.vantage, hostname=HOSTILE))
ALL = (WORKS, REFUSED, NAMELESS, HOSTILE_ONE)


def test_a_line_of_json_lines_is_a_whole_report() -> None:
    lines = render_jsonl(ALL).splitlines()
    assert len(lines) == len(ALL)
    for line in lines:
        jsonschema.validate(json.loads(line), json.loads(report_schema()))


def test_a_test_case_passes_fails_or_is_an_error_as_the_target_does() -> None:
    suites = ElementTree.fromstring(render_junit(ALL))
    suite = suites[0]
    assert [suites.tag, suite.tag] == ["testsuites", "testsuite"]
    ends = [[child.tag for child in case] for case in suite]
    assert ends == [["system-out"], ["failure"], ["error"], ["failure"]]
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("4", "2", "1")
    assert suite[1][0].get("type") == "refused/nothing-listening"


@pytest.mark.parametrize("seen", ALL)
def test_every_result_of_sarif_has_its_rule_and_its_place(seen: Report) -> None:
    run = json.loads(render_sarif([seen], CODES))["runs"][0]
    rules = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    for result in run["results"]:
        assert rules[result["ruleIndex"]] == result["ruleId"]
        assert result["locations"][0]["logicalLocations"][0]["fullyQualifiedName"]
        assert (result["level"] == "none") == (result["kind"] != "fail"), "SARIF 2.1.0, 3.27.10"
    assert len(run["results"]) == len(seen.findings) + (seen is NAMELESS)


def test_a_root_cause_is_an_error_of_the_workflow_and_a_working_target_a_notice() -> None:
    assert render_github([REFUSED]).startswith("::error title=netdiag 127.0.0.1%3A8080%3A unreachable::")
    assert render_github([WORKS]).startswith("::notice title=")
    assert render_github([NAMELESS]).startswith("::error title=")
    assert render_github([replace(NAMELESS, verdict=Verdict.INCONCLUSIVE)]).startswith("::warning title=")


def test_nothing_foreign_becomes_a_command_of_the_workflow() -> None:
    lines = render_github([HOSTILE_ONE]).splitlines()
    kinds = [finding.severity for finding in HOSTILE_ONE.findings if finding.severity is not Severity.INFO]
    assert len(lines) == len(kinds)
    assert all(line.count("::") == 2 for line in lines)
    assert all("\x1b" not in line and "%0A::" not in line.partition("::error")[0] for line in lines)


def test_nothing_foreign_becomes_markup() -> None:
    page = render_html([HOSTILE_ONE], CODES)
    assert "<script" not in page
    assert "\x1b" not in page
    assert "\u202e" not in page
    assert "&lt;script&gt;" in page


def test_an_html_report_of_every_kind_is_one_file_that_names_no_other() -> None:
    page = render_html(ALL, CODES)
    for mark in (" src=", "url(", "@import", "<link", "<script", "http://", "https://", " onload"):
        assert mark not in page.replace(HOSTILE, ""), mark


@pytest.mark.parametrize(
    ("seen", "states"),
    [
        (WORKS, ["passed"] * 4),
        (REFUSED, ["passed", "passed", "broken", "not reached"]),
        (NAMELESS, ["not known"] * 4),
    ],
)
def test_the_way_is_broken_where_the_cause_lies(seen: Report, states: list[str]) -> None:
    assert [link.state.value for link in links(seen, CODES)] == states


def test_what_is_before_a_cause_that_is_only_likely_is_not_known() -> None:
    root = REFUSED.root_cause
    assert root is not None
    likely = replace(REFUSED, root_cause=replace(root, confidence=type(root.confidence)("likely")))
    assert links(likely, CODES)[0].state is LinkState.UNKNOWN
