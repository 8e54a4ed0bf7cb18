"""What holds of every diagnosis, whatever the machine said."""

from __future__ import annotations

import json
import re

import jsonschema
from hypothesis import given

from checks import CAUSES, CHECKS
from diagnose.engine import diagnose, exit_code
from diagnose.model.finding import Confidence, Finding, Risk, Severity
from diagnose.model.report import CheckOutcome
from diagnose.model.snapshot import Snapshot
from diagnose.model.target import Intent
from diagnose.recording import decode, encode
from diagnose.render.json import render_json, report_schema
from tests.properties.snapshots import snapshots

VALIDATOR = jsonschema.Draft202012Validator(json.loads(report_schema()))
CODES = {cause.code for cause in CAUSES}
PLACEHOLDER = re.compile(r"<\w[^>]*>|\b(PID|HOST|PORT|NAME|UNIT|FILE|CHAIN|TABLE|ADDRESS)\b")


@given(snapshots)
def test_no_snapshot_crashes_a_check(snapshot: Snapshot) -> None:
    assert [one for one in diagnose(snapshot, CHECKS).checks if one.outcome is CheckOutcome.CRASHED] == []


@given(snapshots)
def test_the_same_snapshot_gives_the_same_bytes(snapshot: Snapshot) -> None:
    assert render_json([diagnose(snapshot, CHECKS)]) == render_json([diagnose(snapshot, CHECKS)])


@given(snapshots)
def test_a_replayed_recording_gives_the_same_report(snapshot: Snapshot) -> None:
    (replayed,) = decode(encode([snapshot]))
    assert replayed == snapshot
    assert diagnose(replayed, CHECKS) == diagnose(snapshot, CHECKS)


@given(snapshots)
def test_every_report_is_valid_by_the_published_schema(snapshot: Snapshot) -> None:
    VALIDATOR.validate(json.loads(render_json([diagnose(snapshot, CHECKS)])))


@given(snapshots)
def test_a_root_cause_is_a_problem_that_is_at_least_likely(snapshot: Snapshot) -> None:
    root = diagnose(snapshot, CHECKS).root_cause
    if root:
        assert root.confidence in (Confidence.PROVEN, Confidence.LIKELY)
        assert root.severity is Severity.PROBLEM


@given(snapshots)
def test_what_works_has_no_root_cause_and_no_problem(snapshot: Snapshot) -> None:
    report = diagnose(snapshot, CHECKS)
    if report.verdict.works:
        assert report.root_cause is None
        assert all(one.severity is not Severity.PROBLEM for one in report.findings)


@given(snapshots)
def test_the_verdict_answers_the_question_that_was_asked(snapshot: Snapshot) -> None:
    verdict = diagnose(snapshot, CHECKS).verdict.value
    answers = (
        {"bindable", "not-bindable"} if snapshot.intent is Intent.BIND else {"reachable", "degraded", "unreachable"}
    )
    assert verdict in answers | {"inconclusive"}


@given(snapshots)
def test_the_exit_code_follows_from_verdict_and_root_cause(snapshot: Snapshot) -> None:
    report = diagnose(snapshot, CHECKS)
    assert (exit_code([report]) == 0) == report.verdict.works
    assert (exit_code([report]) == 1) == (report.root_cause is not None)


@given(snapshots)
def test_the_root_cause_is_the_first_finding(snapshot: Snapshot) -> None:
    report = diagnose(snapshot, CHECKS)
    assert report.root_cause is None or report.findings[0] == report.root_cause


@given(snapshots)
def test_every_finding_is_in_the_catalogue_of_a_check_that_was_asked_for(snapshot: Snapshot) -> None:
    for one in diagnose(snapshot, CHECKS).findings:
        assert one.code in CODES
        assert snapshot.scope.runs(one.code.partition("/")[0])
        assert set(one.explains) <= CODES


@given(snapshots)
def test_every_finding_can_be_read(snapshot: Snapshot) -> None:
    for one in diagnose(snapshot, CHECKS).findings:
        assert 0 < len(one.title) <= 80
        assert not one.title.endswith(".") or one.title.endswith("...")
        assert one.explanation.strip()


@given(snapshots)
def test_every_problem_and_every_warning_has_evidence(snapshot: Snapshot) -> None:
    for one in diagnose(snapshot, CHECKS).findings:
        if one.severity is not Severity.INFO:
            assert one.evidence, one.code
        assert all(seen.text.strip() and seen.source.strip() for seen in one.evidence), one.code


@given(snapshots)
def test_no_finding_is_told_twice(snapshot: Snapshot) -> None:
    told = [(one.code, one.title) for one in diagnose(snapshot, CHECKS).findings]
    assert len(told) == len(set(told))


def _argvs(one: Finding) -> list[tuple[str, ...]]:
    return [command.argv for remedy in one.remedies for command in (*remedy.commands, *remedy.undo)]


@given(snapshots)
def test_every_command_of_a_remedy_runs_as_it_stands(snapshot: Snapshot) -> None:
    for one in diagnose(snapshot, CHECKS).findings:
        for argv in _argvs(one):
            assert argv, one.code
            assert argv[0] not in ("sudo", "doas", "su", ""), argv
            assert all(word and not PLACEHOLDER.search(word) for word in argv), argv


@given(snapshots)
def test_the_first_remedy_destroys_nothing(snapshot: Snapshot) -> None:
    for one in diagnose(snapshot, CHECKS).findings:
        if one.remedies:
            assert one.remedies[0].risk is not Risk.DESTRUCTIVE
            assert not any({"-9", "-KILL", "flush", "-F"} & set(word) for word in _argvs(one)[:1])


@given(snapshots)
def test_a_check_is_clear_only_without_a_problem_and_found_only_with_one(snapshot: Snapshot) -> None:
    report = diagnose(snapshot, CHECKS)
    blamed = {one.code.partition("/")[0] for one in report.findings if one.severity is not Severity.INFO}
    assert {one.name for one in report.checks if one.outcome is CheckOutcome.FOUND} == blamed
    assert [one.name for one in report.checks] == [check.name for check in CHECKS]


@given(snapshots)
def test_a_skipped_check_says_what_was_missing(snapshot: Snapshot) -> None:
    for one in diagnose(snapshot, CHECKS).checks:
        assert bool(one.reason) == (one.outcome is CheckOutcome.SKIPPED)


@given(snapshots)
def test_nothing_is_listed_as_not_checked_that_was_not_needed(snapshot: Snapshot) -> None:
    gaps = diagnose(snapshot, CHECKS).not_checked
    assert not any(one.reason.startswith("not needed") for one in gaps)
    assert len({one.fact for one in gaps}) == len(gaps)
