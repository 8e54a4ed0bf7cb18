"""The report as SARIF 2.1.0 (OASIS), which code scanning and review tools read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote

import msgspec

from diagnose.model.finding import Cause, Finding, Remedy, Severity
from diagnose.model.report import Report
from diagnose.render.printable import command_line, printable

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_LEVELS = {Severity.PROBLEM: "error", Severity.WARNING: "warning", Severity.INFO: "note"}
_NO_CAUSE = "netdiag/no-cause"
"""The rule of a target that does not work, or of which that is not known, and has no cause."""


def render_sarif(reports: Sequence[Report], causes: Mapping[str, Cause]) -> str:
    """One run; a result for each finding, and one for each target without a cause.

    `causes` is the catalogue by code, for the rules.
    """
    results = [result for report in reports for result in _results(report)]
    codes = list(dict.fromkeys(result["ruleId"] for result in results))
    for result in results:
        result["ruleIndex"] = codes.index(result["ruleId"])
    run = {
        "tool": {"driver": _driver(reports, codes, causes)},
        "invocations": [_invocation(report) for report in reports],
        "results": results,
        "columnKind": "unicodeCodePoints",
    }
    document = {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}
    return msgspec.json.format(msgspec.json.encode(document), indent=2).decode() + "\n"


def _driver(reports: Sequence[Report], codes: Sequence[str], causes: Mapping[str, Cause]) -> dict[str, Any]:
    driver: dict[str, Any] = {"name": "netdiag", "rules": [_rule(code, causes.get(code)) for code in codes]}
    versions = {report.netdiag for report in reports}
    if len(versions) == 1:
        driver["version"] = versions.pop()
    return driver


def _rule(code: str, cause: Cause | None) -> dict[str, Any]:
    summary = cause.summary if cause is not None else "no cause could be named"
    return {
        "id": code,
        "shortDescription": {"text": summary},
        "help": {"text": f"netdiag explain {code}" if cause is not None else "netdiag run --json shows what was seen"},
    }


def _invocation(report: Report) -> dict[str, Any]:
    began = datetime.fromisoformat(report.started_at)
    ended = began + timedelta(milliseconds=report.duration_ms)
    return {
        "executionSuccessful": True,
        "startTimeUtc": _utc(began),
        "endTimeUtc": _utc(ended),
        "machine": printable(report.vantage.hostname) or "unknown",
    }


def _utc(time: datetime) -> str:
    return f"{time:%Y-%m-%dT%H:%M:%S}.{time.microsecond // 1000:03d}Z"


def _results(report: Report) -> Iterator[dict[str, Any]]:
    for finding in report.findings:
        yield _result(report, finding)
    if report.root_cause is None and not report.verdict.works:
        yield {
            "ruleId": _NO_CAUSE,
            "kind": "open",
            "level": "none",
            "message": {"text": f"{printable(report.target.input)}: {report.answered}, and no cause could be named"},
            "locations": [_location(report)],
            "properties": _properties(report, None),
        }


def _result(report: Report, finding: Finding) -> dict[str, Any]:
    fails = finding.severity is not Severity.INFO
    return {
        "ruleId": finding.code,
        "kind": "fail" if fails else "informational",
        "level": _LEVELS[finding.severity] if fails else "none",
        "message": {"text": _message(report, finding)},
        "locations": [_location(report, finding)],
        "partialFingerprints": {"target/v1": f"{finding.code} {printable(report.target.address)}"},
        "properties": _properties(report, finding),
    }


def _message(report: Report, finding: Finding) -> str:
    lines = [f"{printable(report.target.input)}: {printable(finding.title)}", printable(finding.explanation)]
    lines += (line for remedy in finding.remedies[:1] for line in _remedy(report, remedy))
    return "\n".join(lines)


def _remedy(report: Report, remedy: Remedy) -> Iterator[str]:
    yield f"Fix: {printable(remedy.summary)}"
    for command in remedy.commands:
        yield f"  {printable(command_line(command, sudo=not report.vantage.is_root))}"


def _location(report: Report, finding: Finding | None = None) -> dict[str, Any]:
    """The target; with the first file that a remedy edits, since reviewers show results at lines of files."""
    name = printable(report.target.address)
    location: dict[str, Any] = {"logicalLocations": [{"fullyQualifiedName": name, "kind": "resource"}]}
    edits = [edit for remedy in (finding.remedies if finding else ()) for edit in remedy.edits]
    for edit in edits[:1]:
        place: dict[str, Any] = {"artifactLocation": {"uri": _uri(edit.file)}}
        if edit.line:
            place["region"] = {"startLine": edit.line}
        location["physicalLocation"] = place
    return location


def _uri(path: str) -> str:
    return f"file://{quote(path)}" if path.startswith("/") else quote(path)


def _properties(report: Report, finding: Finding | None) -> dict[str, Any]:
    said = {"verdict": report.verdict.value, "intent": report.intent.value}
    if finding is None:
        return said
    is_root = report.root_cause is not None and report.root_cause == finding
    return {**said, "confidence": finding.confidence.value, "severity": finding.severity.value, "rootCause": is_root}
