"""What holds of every snapshot that is redacted."""

from __future__ import annotations

from hypothesis import given

from checks import CHECKS
from diagnose.engine import diagnose
from diagnose.model.report import Report
from diagnose.model.snapshot import Snapshot
from diagnose.recording import decode_foreign, encode
from diagnose.redact.kinds import Group
from diagnose.redact.snapshots import redact
from tests.properties.snapshots import snapshots


def said(report: Report) -> object:
    """The answer, without its words."""
    found = [(one.code, one.severity, one.confidence) for one in report.findings]
    checks = [(one.name, one.outcome) for one in report.checks]
    return report.verdict, report.root_cause and report.root_cause.code, found, checks


@given(snapshots)
def test_a_redacted_snapshot_has_the_same_answer(snapshot: Snapshot) -> None:
    redacted = redact([snapshot]).snapshots
    before = [said(diagnose(one, CHECKS)) for one in decode_foreign(encode([snapshot]))]
    after = [said(diagnose(one, CHECKS)) for one in decode_foreign(encode(redacted))]
    assert before == after


@given(snapshots)
def test_a_snapshot_that_was_redacted_stays_as_it_is(snapshot: Snapshot) -> None:
    redacted = redact([snapshot]).snapshots
    assert redact(redacted).snapshots == redacted


@given(snapshots)
def test_what_keeps_everything_changes_no_answer(snapshot: Snapshot) -> None:
    redacted = redact([snapshot], keep=tuple(Group)).snapshots
    before = [said(diagnose(one, CHECKS)) for one in decode_foreign(encode([snapshot]))]
    assert before == [said(diagnose(one, CHECKS)) for one in decode_foreign(encode(redacted))]
