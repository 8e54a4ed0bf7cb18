"""The report for a ticket or a chat: the same facts in Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from diagnose.model.finding import Command, Edit, Finding, Remedy
from diagnose.model.report import Report
from diagnose.render.printable import command_line, printable

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>|#~!&]|(?<=:)/(?=/)|(?<=\bwww)\.)")
"""What Markdown reads as markup, and what begins a link without brackets (GFM 6.9)."""


def render_markdown(reports: Sequence[Report]) -> str:
    """A section a target."""
    return "\n".join("\n".join(_section(report)) + "\n" for report in reports)


def _section(report: Report) -> Iterator[str]:
    root = report.root_cause
    origin = f" from {code_span(report.vantage.origin)}" if report.vantage.origin else ""
    yield f"## {code_span(report.target.input)}{origin}: {escaped(report.answered)}"
    yield ""
    if root:
        yield from finding_section(report, root, f"**{escaped(root.title)}** ({root.confidence.value}, `{root.code}`)")
    elif not report.verdict.works:
        yield "No cause could be named."
        yield ""
    others = [finding for finding in report.findings if finding != root]
    for finding in others:
        head = f"### {finding.severity.value}: {escaped(finding.title)} ({finding.confidence.value}, `{finding.code}`)"
        yield from finding_section(report, finding, head)
    yield from _tables(report)


def finding_section(report: Report, finding: Finding, head: str) -> Iterator[str]:
    """A finding with its proof and its remedies, below a line that begins it."""
    yield head
    yield ""
    yield escaped(finding.explanation)
    yield ""
    for one in finding.evidence:
        if one.detail:
            continue
        yield f"- {code_span(one.text.replace(chr(9), ' '))} ({escaped(one.source)})"
    if finding.evidence:
        yield ""
    for remedy in finding.remedies:
        yield from _remedy(remedy, sudo=not report.vantage.is_root)


def _remedy(remedy: Remedy, *, sudo: bool) -> Iterator[str]:
    yield f"Fix: {escaped(remedy.summary)}"
    yield ""
    for edit in remedy.edits:
        yield from _edit(edit)
    yield from _shell(remedy.commands, sudo)
    if remedy.undo:
        yield "Undo:"
        yield ""
        yield from _shell(remedy.undo, sudo)


def _edit(edit: Edit) -> Iterator[str]:
    where = f"{code_span(edit.file)}{f', line {edit.line}' if edit.line else ''}"
    if "\n" not in edit.text:
        yield f"- {where}: {code_span(edit.text.strip())}"
        return
    yield f"- {where} becomes:"
    yield ""
    yield from _fenced("", [printable(line) for line in edit.text.split("\n")])


def _shell(commands: Sequence[Command], sudo: bool) -> Iterator[str]:
    if not commands:
        return
    yield from _fenced("sh", [printable(command_line(command, sudo=sudo)) for command in commands])
    yield ""


def _fenced(language: str, lines: Sequence[str]) -> Iterator[str]:
    """The lines as they are, between fences longer than any run of backticks in them (CommonMark 4.5)."""
    fence = "`" * max(3, 1 + max((len(run) for line in lines for run in re.findall("`+", line)), default=0))
    yield f"{fence}{language}"
    yield from lines
    yield fence


def _tables(report: Report) -> Iterator[str]:
    yield "| attempt | outcome | errno | ms |"
    yield "|---|---|---|---|"
    for one in report.attempts:
        where = escaped(f"{one.address} port {one.port}")
        yield f"| {where} | {escaped(one.outcome)} | {escaped(one.errno or '')} | {one.ms:.1f} |"
    yield ""
    yield "| check | outcome | reason |"
    yield "|---|---|---|"
    for check in report.checks:
        yield f"| {check.name} | {check.outcome.value} | {escaped(check.reason or '')} |"
    if report.not_checked:
        yield ""
        for gap in report.not_checked:
            lift = f" ({escaped(gap.lift)})" if gap.lift else ""
            yield f"- not checked: {escaped(gap.fact)}: {escaped(gap.reason)}{lift}"


def escaped(text: str) -> str:
    """Foreign text as Markdown prose: nothing in it is markup."""
    return _SPECIAL.sub(r"\\\1", printable(text))


def code_span(text: str) -> str:
    """Foreign text as code."""
    shown = printable(text).replace("`", "'")
    return f"`{shown}`" if shown else ""
