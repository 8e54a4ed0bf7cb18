"""The filled-in runbook as one HTML file: nothing is loaded, everything is escaped, light and dark."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from html import escape

from diagnose.model.finding import Command, Finding, Remedy
from diagnose.model.report import Report
from diagnose.render.printable import command_line, printable
from diagnose.runbook.model import End
from diagnose.runbook.path import Asked, Diagnosed, Entry, NotDone
from diagnose.runbook.render import Filled, because, command, verdict_line
from diagnose.runbook.template import Said

_STYLE = """
:root { color-scheme: light dark; --ink: #1a1c1e; --paper: #fff; --line: #c9ced3; --soft: #f2f4f6; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8ea; --paper: #16181a; --line: #44494e; --soft: #22262a; } }
body { max-width: 46rem; margin: 2rem auto; padding: 0 1rem; color: var(--ink); background: var(--paper);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
dt { font-weight: 600; } dd { margin: 0 0 .5rem 1rem; } section { border-top: 1px solid var(--line); }
code, pre { background: var(--soft); font-family: ui-monospace, monospace; font-size: .9em; }
pre { padding: .6rem; overflow-x: auto; white-space: pre-wrap; }
"""


def render_html(filled: Filled) -> str:
    """One page."""
    return "\n".join(_page(filled)) + "\n"


def _page(filled: Filled) -> Iterator[str]:
    runbook = filled.runbook
    yield "<!DOCTYPE html>"
    yield '<html lang="en"><head><meta charset="utf-8">'
    yield "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>{_safe(runbook.title)}</title><style>{_STYLE}</style></head><body><main>"
    yield f"<h1>{_safe(runbook.title)}</h1>"
    yield f"<p>Runbook <code>{_safe(runbook.name)}</code>: <strong>{_safe(filled.outcome)}</strong></p>"
    yield from _seen_by(filled)
    if filled.known.inputs:
        yield "<h2>What was given</h2><dl>"
        for name, value in filled.known.inputs.items():
            yield f"<dt>{_safe(name)}</dt><dd><code>{_safe(value.shown)}</code></dd>"
        yield "</dl>"
    for number, entry in enumerate(filled.ended.entries, 1):
        yield from _entry(number, entry, runbook.escalate.to)
    if filled.to_fix is not None:
        yield from _finding(*filled.to_fix)
    if filled.ended.end is End.ESCALATE:
        yield from _escalation(filled)
    yield "</main></body></html>"


def _seen_by(filled: Filled) -> Iterator[str]:
    for one in filled.ended.entries:
        if isinstance(one, Diagnosed) and isinstance(one.report, Report):
            seen = one.report
            by = f"On {seen.vantage.hostname}, as {seen.vantage.user}, {seen.started_at}, netdiag {seen.netdiag}"
            yield f"<p>{_safe(by)}</p>"
            return


def _entry(number: int, entry: Entry, to: str | None) -> Iterator[str]:
    yield f"<section><h2>{number}. {_safe(entry.step)}</h2><dl>"
    match entry:
        case Asked():
            yield f"<dt>Asked</dt><dd>{_said(entry.ask)}</dd><dt>Answer</dt><dd>{_safe(entry.choice.name)}</dd>"
        case Diagnosed(report=NotDone() as undone):
            yield f"<dt>Ran</dt><dd><code>{_safe(command(entry.question))}</code></dd>"
            yield f"<dt>Saw</dt><dd>nothing: {_safe(undone.why)}</dd>"
        case Diagnosed():
            assert isinstance(entry.report, Report)
            yield f"<dt>Ran</dt><dd><code>{_safe(command(entry.question))}</code></dd>"
            yield f"<dt>Saw</dt><dd>{_safe(verdict_line(entry.report))}</dd>"
    yield f"<dt>Decided</dt><dd>{_safe(because(entry, to))}</dd>"
    if entry.said:
        yield f"<dt>Said</dt><dd>{_said(entry.said)}</dd>"
    yield "</dl></section>"


def _finding(report: Report, finding: Finding) -> Iterator[str]:
    yield f"<section><h2>{_safe(finding.title)}</h2>"
    yield f"<p>{_safe(finding.confidence.value)}, <code>{_safe(finding.code)}</code></p>"
    yield f"<p>{_safe(finding.explanation)}</p>"
    shown = [one for one in finding.evidence if not one.detail]
    if shown:
        yield "<h3>Proof</h3><ul>"
        for one in shown:
            yield f"<li><code>{_safe(one.text)}</code> ({_safe(one.source)})</li>"
        yield "</ul>"
    for remedy in finding.remedies:
        yield from _remedy(remedy, sudo=not report.vantage.is_root)
    yield "</section>"


def _remedy(remedy: Remedy, *, sudo: bool) -> Iterator[str]:
    yield f"<h3>Fix</h3><p>{_safe(remedy.summary)}</p>"
    for edit in remedy.edits:
        where = f"{edit.file}, line {edit.line}" if edit.line else edit.file
        yield f"<p><code>{_safe(where)}</code> becomes:</p><pre>{_lines(edit.text.splitlines())}</pre>"
    yield from _commands(remedy.commands, sudo)
    if remedy.undo:
        yield "<p>Undo:</p>"
        yield from _commands(remedy.undo, sudo)


def _commands(commands: Iterable[Command], sudo: bool) -> Iterator[str]:
    lines = [command_line(one, sudo=sudo) for one in commands]
    if lines:
        yield f"<pre>{_lines(lines)}</pre>"


def _escalation(filled: Filled) -> Iterator[str]:
    to = filled.runbook.escalate.to
    yield f"<section><h2>Escalate{_safe(f' to {to}' if to else '')}</h2>"
    if filled.ended.reason:
        yield f"<p>Because {_safe(filled.ended.reason)}.</p>"
    if filled.ended.said:
        yield f"<p>{_said(filled.ended.said)}</p>"
    if filled.recording is not None:
        yield f"<p>Attach the recording <code>{_safe(filled.recording)}</code></p>"
    if filled.bundles:
        yield f"<p>Attach a bundle, made by</p><pre>{_lines(filled.bundles)}</pre>"
    yield "</section>"


def _said(said: Said) -> str:
    return "".join(
        f"<code>{_safe(piece.text)}</code>" if piece.value else _safe(" ".join(piece.text.split("\n")))
        for piece in said
    )


def _lines(lines: Iterable[str]) -> str:
    return "\n".join(map(_safe, lines))


def _safe(text: str) -> str:
    return escape(printable(text))
