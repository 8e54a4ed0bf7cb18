"""The report for scripts: its shape, its schema, and text that is safe to print."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import jsonschema
import msgspec
import pytest

from diagnose.model.report import Report
from diagnose.render.json import render_json, report_schema
from tests.reports import REPORTS, poisoned

SCHEMA = json.loads(report_schema())
every_report = pytest.mark.parametrize("make", REPORTS.values(), ids=REPORTS)


def shown(*reports: Report) -> Any:
    return json.loads(render_json(reports))


def test_the_whole_report_is_as_reviewed(matches_golden: Callable[[str, str], None]) -> None:
    matches_golden("closed.json", render_json([REPORTS["closed"]()]))


def test_the_schema_is_a_json_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@every_report
def test_a_report_is_valid_by_the_published_schema(make: Callable[[], Report]) -> None:
    jsonschema.validate(shown(make()), SCHEMA, jsonschema.Draft202012Validator)
    jsonschema.validate(shown(poisoned(make())), SCHEMA, jsonschema.Draft202012Validator)


def test_several_reports_stand_under_one_roof_in_the_order_asked() -> None:
    many = shown(REPORTS["closed"](), REPORTS["working"]())
    assert many["schema"] == "netdiag.reports/1"
    assert [one["target"]["port"] for one in many["reports"]] == [62893, 3000]
    jsonschema.validate(many, SCHEMA, jsonschema.Draft202012Validator)


@pytest.mark.parametrize(
    "broken",
    [
        {},
        {"schema": "netdiag.report/1"},
        {"schema": "netdiag.reports/1"},
        shown(REPORTS["closed"]()) | {"verdict": "broken"},
        shown(REPORTS["closed"]()) | {"schema": "netdiag.report/2"},
        {key: value for key, value in shown(REPORTS["closed"]()).items() if key != "root_cause"},
    ],
)
def test_the_schema_refuses_what_is_no_report(broken: Any) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, SCHEMA, jsonschema.Draft202012Validator)


KEYS = {
    "report": "schema netdiag started_at duration_ms target intent vantage verdict attempts root_cause findings checks"
    " not_checked",
    "target": "input host port transport scheme",
    "vantage": "hostname platform kernel user uid privileged network_namespace container from",
    "attempt": "address port outcome errno ms",
    "finding": "code title severity confidence explanation evidence remedies explains",
    "evidence": "text source detail",
    "remedy": "summary commands undo risk survives_reboot edits url rehearsal",
    "command": "argv needs_root",
    "check": "name outcome reason",
    "gap": "fact reason lift",
}


@pytest.mark.parametrize("what", KEYS)
def test_no_promised_key_is_ever_missing(what: str) -> None:
    report = shown(REPORTS["dropped"]())
    root = report["root_cause"]
    remedy = root["remedies"][0]
    places = {
        "report": report,
        "target": report["target"],
        "vantage": report["vantage"],
        "attempt": report["attempts"][0],
        "finding": root,
        "evidence": root["evidence"][0],
        "remedy": remedy,
        "command": remedy["commands"][0],
        "check": report["checks"][0],
        "gap": shown(REPORTS["closed"]())["not_checked"][0],
    }
    assert set(KEYS[what].split()) <= set(places[what])


def test_the_root_cause_is_the_first_finding() -> None:
    report = shown(REPORTS["dropped"]())
    assert report["root_cause"] == report["findings"][0]


def test_what_is_not_known_is_null_and_not_left_out() -> None:
    report = shown(REPORTS["working"]())
    assert report["root_cause"] is None
    assert report["vantage"]["container"] is None
    assert report["attempts"][0]["errno"] is None


def test_the_same_report_is_always_the_same_text() -> None:
    assert render_json([REPORTS["dropped"]()]) == render_json([REPORTS["dropped"]()])


@every_report
def test_hostile_text_is_escaped_on_its_way_to_a_terminal(make: Callable[[], Report]) -> None:
    report = poisoned(make())
    text = render_json([report])
    assert text.replace("\n", "").isprintable()
    assert msgspec.convert(json.loads(text), Report) == report
