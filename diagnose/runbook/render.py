"""The filled-in runbook: what was asked, seen, decided and why, and what to do next; as text, Markdown and JSON."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from msgspec import Struct

from diagnose.model.finding import Finding
from diagnose.model.report import Report
from diagnose.render.json import harmless
from diagnose.render.markdown import code_span, escaped, finding_section
from diagnose.render.text import Style, field_lines, finding_lines
from diagnose.runbook.model import End, Runbook
from diagnose.runbook.path import Asked, Diagnosed, Ended, Entry, Known, NotDone, Question
from diagnose.runbook.result import encoded, result
from diagnose.runbook.template import Said, quoted
from diagnose.runbook.words import condition, destination


class Filled(Struct, frozen=True):
    """A runbook that was carried out."""

    runbook: Runbook
    known: Known
    ended: Ended
    recording: str | None = None
    """The file that the diagnoses were taken from; None: this machine was looked at."""
    program: str = "netdiag"
    """What the reader types for netdiag."""

    @property
    def to_fix(self) -> tuple[Report, Finding] | None:
        """The cause that a person fixes, where the runbook ends so: that of the last diagnosis."""
        last = next((one for one in reversed(self.ended.entries) if isinstance(one, Diagnosed)), None)
        if self.ended.end is not End.FIX or last is None or isinstance(last.report, NotDone) or last.met is None:
            return None
        return last.report, last.met

    @property
    def outcome(self) -> str:
        """How it ended, in a line."""
        match self.ended.end:
            case End.WORKS:
                return "it works"
            case End.FIX:
                return "there is something to fix"
            case End.ESCALATE:
                return destination("escalate", self.runbook.escalate.to)

    @property
    def bundles(self) -> tuple[str, ...]:
        """The commands that make what the other team wants attached, one for each target that was diagnosed."""
        wanted = self.ended.end is End.ESCALATE and "bundle" in self.runbook.escalate.attach
        if not wanted or self.recording is not None:
            return ()
        asked = [one.question for one in self.ended.entries if isinstance(one, Diagnosed)]
        return tuple(dict.fromkeys(_bundle(self.program, question) for question in asked))


def _bundle(program: str, question: Question) -> str:
    """`--` and quotes: the target is data, whatever it looks like."""
    words = [word for word in question.words[1:] if word not in (question.shown, "--trace")]
    return shlex.join((program, "bundle", *words, "-o", f"{question.step}.netdiag.zip", "--", question.shown))


def render_json(filled: Filled) -> str:
    """Schema netdiag.runbook-result/1."""
    return harmless(encoded(result(filled.runbook, filled.known, filled.ended)).decode()) + "\n"


def verdict_line(report: Report) -> str:
    """What was seen, in a line."""
    root = report.root_cause
    if root is None:
        return report.answered if report.verdict.works else f"{report.answered}: no cause could be named"
    return f"{report.answered}: {root.title} ({root.confidence.value}) [{root.code}]"


def because(entry: Entry, to: str | None) -> str:
    """What was decided and why."""
    if isinstance(entry, Asked):
        return destination(entry.choice.then, to)
    if entry.branch is None:
        why = "it could not be diagnosed" if isinstance(entry.report, NotDone) else "no branch fits"
        return f"{destination('escalate', to)}, because {why}"
    why = condition(entry.branch) if entry.branch.when is not None else "no branch before fits"
    return f"{destination(entry.branch.then, to)}, because {why}"


def command(question: Question) -> str:
    """The diagnosis as it is typed."""
    return shlex.join(("netdiag", *question.words))


# text


def render_text(filled: Filled, style: Style) -> str:
    """For a terminal."""
    return "\n".join(_text(filled, style)) + "\n"


def _text(filled: Filled, style: Style) -> Iterator[str]:
    runbook, ended = filled.runbook, filled.ended
    colour = {End.WORKS: "green", End.FIX: "yellow", End.ESCALATE: "red"}[ended.end]
    yield style.paint(style.clean(f"{runbook.name}: {filled.outcome}"), "bold", colour)
    yield style.clean(runbook.title)
    for number, entry in enumerate(ended.entries, 1):
        yield ""
        label = f"{number}. Asked" if isinstance(entry, Asked) else f"{number}. Ran"
        asked = _flowing(quoted(entry.ask)) if isinstance(entry, Asked) else command(entry.question)
        yield from field_lines(style, label, asked)
        if isinstance(entry, Asked):
            yield from field_lines(style, "   Answer", entry.choice.name)
        else:
            yield from field_lines(style, "   Saw", _seen(entry))
        yield from field_lines(style, "   Decided", because(entry, runbook.escalate.to))
        if entry.said:
            yield from field_lines(style, "   Said", _flowing(quoted(entry.said)))
    if filled.to_fix is not None:
        yield from finding_lines(*filled.to_fix, style)
    if ended.end is End.ESCALATE:
        yield ""
        yield from _text_escalation(filled, style)


def _seen(entry: Diagnosed) -> str:
    return f"nothing: {entry.report.why}" if isinstance(entry.report, NotDone) else verdict_line(entry.report)


def _text_escalation(filled: Filled, style: Style) -> Iterator[str]:
    yield from field_lines(style, "Escalate", f"to {filled.runbook.escalate.to}" if filled.runbook.escalate.to else "")
    if filled.ended.reason:
        yield from field_lines(style, "Because", filled.ended.reason)
    if filled.ended.said:
        yield from field_lines(style, "Tell them", _flowing(quoted(filled.ended.said)))
    if filled.recording is not None:
        yield from field_lines(style, "Attach", f"the recording {filled.recording}")
    label = "Attach"
    for line in filled.bundles:
        yield from field_lines(style, label, "a bundle, made by" if label else "")
        yield f"{'':14}{style.clean(line)}"
        label = ""


def _flowing(text: str) -> str:
    return " ".join(text.split())


# Markdown


def render_markdown(filled: Filled) -> str:
    """For a ticket."""
    return "\n".join(_markdown(filled)) + "\n"


def _markdown(filled: Filled) -> Iterator[str]:
    runbook, ended = filled.runbook, filled.ended
    yield f"# {escaped(runbook.title)}"
    yield ""
    yield f"Runbook {code_span(runbook.name)}: **{escaped(filled.outcome)}**"
    yield ""
    report = next(
        (one.report for one in ended.entries if isinstance(one, Diagnosed) and isinstance(one.report, Report)), None
    )
    if report is not None:
        seen_by = report.vantage
        yield (
            f"On {code_span(seen_by.hostname)}, as {code_span(seen_by.user)}, {escaped(report.started_at)}, "
            f"netdiag {escaped(report.netdiag)}"
        )
        yield ""
    if filled.known.inputs:
        yield "| input | value |"
        yield "|---|---|"
        for name, value in filled.known.inputs.items():
            yield f"| {code_span(name)} | {code_span(value.shown).replace('|', chr(92) + '|')} |"
        yield ""
    for number, entry in enumerate(ended.entries, 1):
        yield f"## {number}. {escaped(entry.step)}"
        yield ""
        if isinstance(entry, Asked):
            yield f"- Asked: {marked(entry.ask)}"
            yield f"- Answer: **{escaped(entry.choice.name)}**"
        else:
            yield f"- Ran: {code_span(command(entry.question))}"
            yield f"- Saw: {escaped(_seen(entry))}"
        yield f"- Decided: {escaped(because(entry, runbook.escalate.to))}"
        if entry.said:
            yield f"- Said: {marked(entry.said)}"
        yield ""
    if filled.to_fix is not None:
        seen, finding = filled.to_fix
        yield from finding_section(
            seen, finding, f"## {escaped(finding.title)} ({finding.confidence.value}, `{finding.code}`)"
        )
    if ended.end is End.ESCALATE:
        yield from _markdown_escalation(filled)


def _markdown_escalation(filled: Filled) -> Iterator[str]:
    to = filled.runbook.escalate.to
    yield f"## Escalate{f' to {escaped(to)}' if to else ''}"
    yield ""
    if filled.ended.reason:
        yield f"- Because: {escaped(filled.ended.reason)}"
    if filled.ended.said:
        yield f"- {marked(filled.ended.said)}"
    if filled.recording is not None:
        yield f"- Attach the recording {code_span(filled.recording)}"
    for line in filled.bundles:
        yield f"- Attach a bundle, made by {code_span(line)}"


def marked(said: Said) -> str:
    """A filled text in one line, with values as code: nothing in one is markup."""
    return "".join(
        code_span(piece.text) if piece.value else escaped(" ".join(piece.text.split("\n"))) for piece in said
    ).strip()
