"""What holds of every snapshot that is redacted."""

from __future__ import annotations

from hypothesis import given, settings

from checks import CHECKS
from diagnose.engine import diagnose
from diagnose.model.report import Report
from diagnose.model.snapshot import Snapshot
from diagnose.redact.kinds import Group
from diagnose.redact.snapshots import redact
from tests.properties.snapshots import snapshots


def said(snapshot: Snapshot) -> object:
    """The answer, without its words."""
    report: Report = diagnose(snapshot, CHECKS)
    found = [(one.code, one.severity, one.confidence) for one in report.findings]
    checks = [(one.name, one.outcome) for one in report.checks]
    return report.verdict, report.root_cause and report.root_cause.code, found, checks


@settings(max_examples=100)
@given(snapshots)
def test_a_redacted_snapshot_has_the_same_answer_and_is_redacted_once(snapshot: Snapshot) -> None:
    redacted = redact([snapshot]).snapshots
    assert said(redacted[0]) == said(snapshot)
    assert redact(redacted).snapshots == redacted


@settings(max_examples=50)
@given(snapshots)
def test_what_keeps_everything_changes_no_answer(snapshot: Snapshot) -> None:
    assert said(redact([snapshot], keep=tuple(Group)).snapshots[0]) == said(snapshot)
