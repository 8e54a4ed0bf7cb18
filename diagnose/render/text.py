"""The report for a terminal: the answer first, then the proof, the remedy, and what was not looked at."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence

from msgspec import Struct
from msgspec.structs import replace

from diagnose.model.attempt import Outcome
from diagnose.model.finding import Command, Confidence, Edit, Evidence, Finding, Remedy, Severity
from diagnose.model.report import AttemptReport, CheckOutcome, Report, Verdict
from diagnose.model.target import Intent
from diagnose.render.printable import command_line, printable

LABEL = 12
"""Columns of the left margin that holds the labels."""
WIDEST = 100
NARROWEST = 40
_ENDLESS = 1000
"""Characters of a word that nobody reads."""

_CONFIDENCE = {
    Confidence.PROVEN: "proven",
    Confidence.LIKELY: "likely, not proven",
    Confidence.POSSIBLE: "only possible",
}
_SGR = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}


class Style(Struct, frozen=True):
    """What the reader's terminal can show."""

    width: int = 80
    colour: bool = False
    ascii_only: bool = False
    program: str = "netdiag"
    """What the reader types for netdiag."""

    def paint(self, text: str, *names: str) -> str:
        """The text in these colours, where colours are wanted."""
        if not self.colour or not names:
            return text
        return f"\x1b[{';'.join(_SGR[name] for name in names)}m{text}\x1b[0m"

    def clean(self, text: str) -> str:
        """The text without anything that acts on a terminal."""
        return printable(text, ascii_only=self.ascii_only)


def render_text(reports: Sequence[Report], style: Style) -> str:
    """One report, or several with an empty line between them."""
    style = replace(style, width=max(NARROWEST, min(style.width, WIDEST)))
    return "\n".join("\n".join(_Page(report, style).lines()) + "\n" for report in reports)


class _Page:
    """One report, line by line."""

    def __init__(self, report: Report, style: Style) -> None:
        self.report = report
        self.style = style
        self.sudo = not report.vantage.is_root

    def lines(self) -> Iterator[str]:
        """All of it."""
        yield from self._headline()
        root = self.report.root_cause
        if root:
            yield from self._cause(root)
        elif self.report.verdict not in (Verdict.REACHABLE, Verdict.BINDABLE, Verdict.INCONCLUSIVE):
            yield from self._nameless()
        yield from self._others()
        yield from self._attempts()
        yield from self._not_checked()
        yield from self._checks()

    def _headline(self) -> Iterator[str]:
        report, root = self.report, self.report.root_cause
        colour = _colour(report.verdict)
        shown = self.style.clean(report.target.input + _from(report))
        verdict = self.style.clean(report.answered)
        if report.verdict.works:
            text = f"{verdict}{self._family()}: {self._works()}"
        elif root:
            text = f"{verdict}: {self.style.clean(root.title)} ({_CONFIDENCE[root.confidence]})"
        else:
            text = f"{verdict}: {self._unknown()}"
        whole = _without_endless_words(f"{shown}  {text}", self.style.width - 2)
        for line in textwrap.wrap(whole, self.style.width, subsequent_indent="  "):
            yield self.style.paint(line, "bold", colour)

    def _works(self) -> str:
        report = self.report
        if report.intent is Intent.BIND:
            who = (
                "a server can start here"
                if report.vantage.sudo_user
                else f"the user {report.vantage.user} can start a server here"
            )
            return self.style.clean(who)
        took = min((a.ms for a in report.attempts if a.outcome == "connected"), default=0.0)
        seen = all(gap.fact != "acceptance" for gap in report.not_checked)
        return f"{'the server takes connections' if seen else 'the connection is made'} ({took:.1f} ms)"

    def _family(self) -> str:
        """Over which IP family alone, where clients that try the first address only fail."""
        attempts = self.report.attempts
        if self.report.intent is Intent.BIND or not attempts or attempts[0].outcome == Outcome.CONNECTED:
            return ""
        works, fails = (
            {":" in a.address for a in attempts if (a.outcome == Outcome.CONNECTED) is yes} for yes in (True, False)
        )
        return "" if len(works) != 1 or works & fails else f" over {'IPv6' if True in works else 'IPv4'} only"

    def _unknown(self) -> str:
        if self.report.verdict is Verdict.INCONCLUSIVE:
            if any(one.outcome == Outcome.NOT_ACCEPTED for one in self.report.attempts):
                return "the server is still starting, so it is not known yet whether it works"
            return "nothing was tried, so it is not known whether it works"
        return "it does not work, and no cause could be proven"

    def _cause(self, finding: Finding) -> Iterator[str]:
        yield ""
        yield from self._field("Why", finding.explanation)
        yield from self._proof(finding.evidence)
        yield from self._remedies(finding.remedies)
        yield ""
        yield from self._field("More", f"{self.style.program} explain {finding.code}")

    def _nameless(self) -> Iterator[str]:
        yield ""
        yield from self._field(
            "Why", "Nothing that was looked at explains it. What follows are facts and possibilities, not a cause."
        )

    def _proof(self, evidence: Iterable[Evidence]) -> Iterator[str]:
        label = "Proof"
        for one in evidence:
            if one.detail:
                continue
            if label:
                yield ""
            yield from self._field(label, f"{_on_one_line(one.text)}  [{one.source}]")
            label = ""

    def _remedies(self, remedies: Sequence[Remedy]) -> Iterator[str]:
        if not remedies:
            return
        yield ""
        for number, remedy in enumerate(remedies, 1):
            mark = f"{number}. " if len(remedies) > 1 else ""
            yield from self._field("Fix" if number == 1 else "", f"{mark}{remedy.summary}{_rehearsed(remedy)}")
            for edit in remedy.edits:
                yield from self._edit(edit)
            yield from self._commands(remedy.commands, "")
            if remedy.undo:
                yield from self._commands(remedy.undo, "undo: ")
        yield ""
        yield self.style.paint(f"{'Verify':<{LABEL}}", "bold") + self.style.clean(self._again())

    def _edit(self, edit: Edit) -> Iterator[str]:
        """Several lines stand below the place, as they are to stand in the file."""
        where = f"{edit.file}:{edit.line}" if edit.line else edit.file
        first, *more = edit.text.split("\n")
        if not more:
            yield from self._field("", f"{where}: {edit.text.strip()}")
            return
        yield from self._field("", f"{where} becomes:")
        yield from (" " * (LABEL + 2) + self.style.clean(line) for line in (first, *more))

    def _again(self) -> str:
        report = self.report
        origin = ("--from", report.vantage.origin) if report.vantage.origin else ()
        bind = ("--bind",) if report.intent is Intent.BIND else ()
        command = Command((self.style.program, "run", *origin, report.target.address, *bind), needs_root=bool(origin))
        return command_line(command, sudo=self.sudo)

    def _commands(self, commands: Iterable[Command], mark: str) -> Iterator[str]:
        for command in commands:
            line = self.style.clean(command_line(command, sudo=self.sudo))
            yield " " * (LABEL + 2) + mark + (line if mark else self.style.paint(line, "bold", "cyan"))

    def _others(self) -> Iterator[str]:
        label = "Also"
        for finding in self._unexplained():
            if label:
                yield ""
            yield from self._other(label, finding)
            label = ""

    def _unexplained(self) -> list[Finding]:
        """What the root cause, or where it works a warning, does not explain, nor only repeats for another address."""
        root = self.report.root_cause
        warnings = [f for f in self.report.findings if f.severity is Severity.WARNING]
        heads = [root] if root else warnings if self.report.verdict.works else []
        explained = {code for head in heads for code in head.explains if code not in {head.code for head in heads}}
        said = {(root.code, root.explanation)} if root else set()
        return [
            f
            for f in self.report.findings
            if f != root and f.code not in explained and (f.code, f.explanation) not in said
        ]

    def _other(self, label: str, finding: Finding) -> Iterator[str]:
        sure = "" if finding.confidence is Confidence.PROVEN else f" ({finding.confidence.value})"
        kind = "" if finding.severity is Severity.INFO else f"{finding.severity.value}: "
        yield from self._field(label, f"{kind}{finding.title}{sure}  [{finding.code}]")
        if finding.severity is Severity.INFO and self.report.verdict.works:
            if finding.evidence:
                yield from self._field("", f"  {_on_one_line(finding.evidence[0].text)}")
            return
        yield from self._field("", f"  {finding.explanation}")
        for one in finding.evidence if finding.severity is not Severity.INFO else ():
            if one.detail:
                continue
            yield from self._field("", f"  {_on_one_line(one.text)}  [{one.source}]")
        for remedy in finding.remedies[:1]:
            yield from self._field("", f"  {remedy.summary}")
            yield from self._commands(remedy.commands, "")

    def _attempts(self) -> Iterator[str]:
        if len(self.report.attempts) < 2 and (self.report.root_cause or self.report.verdict.works):
            return
        yield ""
        label = "Attempts"
        for one in self.report.attempts:
            yield from self._field(label, _attempt_line(one))
            label = ""

    def _not_checked(self) -> Iterator[str]:
        label = "Not checked"
        for one in self.report.not_checked:
            if label:
                yield ""
            lift = f" ({one.lift})" if one.lift else ""
            yield from self._field(label, f"{one.fact}: {one.reason}{lift}")
            label = ""

    def _checks(self) -> Iterator[str]:
        yield ""
        marks = {
            CheckOutcome.FOUND: ("found", "red"),
            CheckOutcome.CLEAR: ("clear", "green"),
            CheckOutcome.SKIPPED: ("skipped", "yellow"),
            CheckOutcome.CRASHED: ("crashed", "red"),
        }
        asked = [check for check in self.report.checks if check.outcome is not CheckOutcome.NOT_APPLICABLE]
        rest = [check.name for check in self.report.checks if check.outcome is CheckOutcome.NOT_APPLICABLE]
        # joined for the wrapping: a check and its outcome stay on one line
        text = ", ".join(f"{check.name}={marks[check.outcome][0]}" for check in asked)
        if rest:
            text += f"{'; ' if asked else ''}not applicable here: {', '.join(rest)}"
        for line in self._field("Checks", text):
            painted = line.replace("=", " ")
            for word, colour in marks.values():
                painted = painted.replace(f" {word}", " " + self.style.paint(word, colour))
            yield painted

    def _field(self, label: str, text: str) -> Iterator[str]:
        """A label in the margin, and the text wrapped beside it."""
        width = self.style.width - LABEL
        margin = self.style.paint(f"{label:<{LABEL}}", "bold") if label else " " * LABEL
        clean = _without_endless_words(self.style.clean(text), width)
        for part in textwrap.wrap(clean, width, break_on_hyphens=False) or [""]:
            yield f"{margin}{part}".rstrip()
            margin = " " * LABEL


def _on_one_line(quoted: str) -> str:
    """A quoted line of a file with its tabs as people see them."""
    return quoted.replace("\t", " ")


def _without_endless_words(text: str, width: int) -> str:
    """A word of thousands of characters in pieces of one line: textwrap would copy all that is left at each line."""
    if len(text) <= _ENDLESS:
        return text
    return " ".join(
        word if len(word) <= _ENDLESS else " ".join(word[at : at + width] for at in range(0, len(word), width))
        for word in text.split(" ")
    )


def _from(report: Report) -> str:
    return f" from {report.vantage.origin}" if report.vantage.origin else ""


def _colour(verdict: Verdict) -> str:
    match verdict:
        case Verdict.REACHABLE | Verdict.BINDABLE:
            return "green"
        case Verdict.DEGRADED | Verdict.INCONCLUSIVE:
            return "yellow"
        case Verdict.UNREACHABLE | Verdict.NOT_BINDABLE:
            return "red"


def _rehearsed(remedy: Remedy) -> str:
    if remedy.rehearsal is None:
        return ""
    opens = "; ".join(remedy.rehearsal.opens)
    what = "it fixes this" if remedy.rehearsal.mended else "they let the connection pass then"
    return f" (rehearsed in a copy of the rules: {what}" + (f"; it also opens {opens})" if opens else ")")


def _attempt_line(one: AttemptReport) -> str:
    where = f"[{one.address}]:{one.port}" if ":" in one.address else f"{one.address}:{one.port}"
    return f"{where} {one.outcome}" + (f" ({one.errno})" if one.errno else "") + f" {one.ms:.1f} ms"
