"""Annotations of a GitHub workflow: the commands that its runner reads on standard output.

Source: GitHub's toolkit, packages/core/src/command.ts, for what is escaped how.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from diagnose.model.finding import Finding, Severity
from diagnose.model.report import Report, Verdict
from diagnose.render.printable import command_line, printable

_KINDS = {Severity.PROBLEM: "error", Severity.WARNING: "warning", Severity.INFO: "notice"}


def render_github(reports: Sequence[Report]) -> str:
    """An annotation for each cause and each warning; one notice for a target that works."""
    return "".join(f"{line}\n" for report in reports for line in _annotations(report))


def _annotations(report: Report) -> Iterator[str]:
    title = f"netdiag {report.target.input}: {report.answered}"
    told = [finding for finding in report.findings if finding.severity is not Severity.INFO]
    for finding in told:
        yield _command(_KINDS[finding.severity], title, _message(report, finding))
    if report.verdict.works:
        if not told:
            yield _command("notice", title, "it works")
    elif report.root_cause is None:
        kind = "warning" if report.verdict is Verdict.INCONCLUSIVE else "error"
        yield _command(kind, title, "no cause could be named")


def _message(report: Report, finding: Finding) -> str:
    lines = [f"{finding.title} ({finding.confidence.value}, {finding.code})", finding.explanation]
    for remedy in finding.remedies[:1]:
        lines.append(f"Fix: {remedy.summary}")
        lines += (f"  {command_line(command, sudo=not report.vantage.is_root)}" for command in remedy.commands)
    return "\n".join(map(printable, lines))


def _command(kind: str, title: str, message: str) -> str:
    return f"::{kind} title={_property(printable(title))}::{_data(message)}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
