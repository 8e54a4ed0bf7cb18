"""The report as one HTML file: no script, nothing loaded from elsewhere; it can be read aloud, printed, and mailed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape

from diagnose.model.finding import Cause, Command, Finding, Remedy, Severity
from diagnose.model.report import Report, Verdict
from diagnose.render.path import Link, LinkState, links
from diagnose.render.printable import command_line, printable

_TONES = {
    Verdict.REACHABLE: "good",
    Verdict.BINDABLE: "good",
    Verdict.DEGRADED: "fair",
    Verdict.INCONCLUSIVE: "fair",
    Verdict.UNREACHABLE: "bad",
    Verdict.NOT_BINDABLE: "bad",
}
_MARKS = {
    LinkState.PASSED: "\N{CHECK MARK}",
    LinkState.BROKEN: "\N{MULTIPLICATION X}",
    LinkState.NOT_REACHED: "\N{EN DASH}",
    LinkState.UNKNOWN: "?",
}

_CSS = """
:root{color-scheme:light dark;--ink:#1b1f24;--quiet:#4d5763;--paper:#fff;--panel:#f4f6f8;--line:#c4ccd4;
--good:#176b34;--fair:#7a4d00;--bad:#b3141d}
@media (prefers-color-scheme:dark){:root{--ink:#e8ebee;--quiet:#b0bac4;--paper:#14181c;--panel:#1f252b;--line:#47525d;
--good:#6fd58d;--fair:#f0b95a;--bad:#ff8a85}}
*{box-sizing:border-box}
body{margin:0 auto;padding:1rem;max-width:62rem;font:1rem/1.5 system-ui,sans-serif;color:var(--ink);
background:var(--paper);overflow-wrap:anywhere}
h1{font-size:1.4rem;line-height:1.3}h2{font-size:1.2rem;margin:2rem 0 .5rem}h3{font-size:1rem;margin:1.2rem 0 .3rem}
.good{color:var(--good)}.fair{color:var(--fair)}.bad{color:var(--bad)}
.about{color:var(--quiet)}
.report{display:grid;gap:0 2rem;border-top:1px solid var(--line);margin-top:1.5rem}
@media (min-width:52rem){.report{grid-template-columns:minmax(0,1fr) 19rem}
.report>header,.report>.rest{grid-column:1/-1}}
figure{margin:1rem 0}figure svg{width:100%;max-width:19rem;height:auto;display:block}
code,pre{font-family:ui-monospace,monospace;font-size:.9rem}
pre{background:var(--panel);border:1px solid var(--line);border-radius:.3rem;padding:.6rem;white-space:pre-wrap}
pre:focus-visible,summary:focus-visible,.wide:focus-visible{outline:2px solid currentColor;outline-offset:2px}
.wide{overflow-x:auto}table{border-collapse:collapse;font-size:.95rem}
th,td{text-align:left;padding:.25rem .9rem .25rem 0;border-bottom:1px solid var(--line);vertical-align:top}
li{margin:.2rem 0}summary{cursor:pointer}
@media print{body{max-width:none;padding:0;font-size:10pt}pre,figure{break-inside:avoid}}
"""


def render_html(reports: Sequence[Report], causes: Mapping[str, Cause]) -> str:
    """One self-contained document; `causes` is the catalogue by code, which says where on the way a cause lies."""
    title = "; ".join(f"{printable(report.target.input)}: {report.answered}" for report in reports[:3])
    body = "\n".join(line for number, report in enumerate(reports, 1) for line in _report(report, number, causes))
    return document(f"netdiag: {title}", f"<h1>Connection report</h1>\n{body}")


def document(title: str, body: str) -> str:
    """A whole page around a body that is already escaped; nothing in it may run or be fetched."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer">\n'
        f"<title>{_text(title)}</title>\n<style>{_CSS}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _text(text: str) -> str:
    """The text as it is shown, whatever is in it."""
    return escape(printable(text))


def _report(report: Report, number: int, causes: Mapping[str, Cause]) -> Iterator[str]:
    tone, root = _TONES[report.verdict], report.root_cause
    yield f'<article class="report" aria-labelledby="target-{number}">'
    yield "<header>"
    yield f'<h2 id="target-{number}"><code>{_text(_asked(report))}</code>: '
    yield f'<span class="{tone}">{_text(report.answered)}</span></h2>'
    yield f'<p class="about">{_text(_about(report))}</p>'
    yield "</header>"
    yield "<div>"
    if root is not None:
        yield from _finding(report, root, "Cause")
    elif not report.verdict.works:
        yield "<p>No cause could be named. What follows are facts and possibilities.</p>"
    else:
        yield "<p>The connection works.</p>"
    others = [finding for finding in report.findings if finding != root]
    for finding in (one for one in others if one.severity is not Severity.INFO):
        yield from _finding(report, finding, finding.severity.value.capitalize())
    yield "</div>"
    yield from _figure(links(report, causes), number)
    yield '<div class="rest">'
    yield from _background(report, [one for one in others if one.severity is Severity.INFO], number)
    yield "</div>"
    yield "</article>"


def _asked(report: Report) -> str:
    origin = f" from {report.vantage.origin}" if report.vantage.origin else ""
    return f"{report.target.input}{origin}"


def _about(report: Report) -> str:
    vantage = report.vantage
    return (
        f"Seen {report.started_at} on {vantage.hostname} by {vantage.user} (kernel {vantage.kernel}), "
        f"netdiag {report.netdiag}, in {report.duration_ms:.0f} ms."
    )


def _finding(report: Report, finding: Finding, label: str) -> Iterator[str]:
    yield f"<h3>{label}: {_text(finding.title)}</h3>"
    sure = f"<strong>{finding.confidence.value}</strong>, <code>{_text(finding.code)}</code>"
    yield f"<p>{sure}. {_text(finding.explanation)}</p>"
    shown = [one for one in finding.evidence if not one.detail]
    if shown:
        yield "<p>Proof:</p>"
        yield "<ul>"
        yield from (f"<li><code>{_text(one.text)}</code> ({_text(one.source)})</li>" for one in shown)
        yield "</ul>"
    for remedy in finding.remedies:
        yield from _remedy(remedy, sudo=not report.vantage.is_root)


def _remedy(remedy: Remedy, *, sudo: bool) -> Iterator[str]:
    yield f"<p><strong>Fix:</strong> {_text(remedy.summary)}</p>"
    for edit in remedy.edits:
        where = f"{edit.file}, line {edit.line}" if edit.line else edit.file
        yield f"<p><code>{_text(where)}</code> becomes:</p>"
        yield _block("\n".join(map(_text, edit.text.split("\n"))), "Lines of the file")
    if remedy.commands:
        yield _shell(remedy.commands, sudo, "Commands of the fix")
    if remedy.undo:
        yield "<p>To undo it:</p>"
        yield _shell(remedy.undo, sudo, "Commands that undo the fix")


def _shell(commands: Sequence[Command], sudo: bool, label: str) -> str:
    return _block("\n".join(_text(command_line(command, sudo=sudo)) for command in commands), label)


def _block(escaped: str, label: str) -> str:
    """Reached by the keyboard, so that its text can be selected and copied without a mouse."""
    return f'<pre tabindex="0" role="group" aria-label="{label}"><code>{escaped}</code></pre>'


def _background(report: Report, infos: Sequence[Finding], number: int) -> Iterator[str]:
    yield "<details>"
    yield "<summary>Everything that was looked at</summary>"
    if infos:
        yield "<ul>"
        for one in infos:
            yield f"<li>{_text(one.title)} ({one.confidence.value}, <code>{_text(one.code)}</code>)</li>"
        yield "</ul>"
    yield from _table(
        f"Attempts of target {number}",
        ("address", "port", "outcome", "errno", "ms"),
        [(one.address, str(one.port), one.outcome, one.errno or "", f"{one.ms:.1f}") for one in report.attempts],
    )
    yield from _table(
        f"Checks of target {number}",
        ("check", "outcome", "reason"),
        [(one.name, one.outcome.value, one.reason or "") for one in report.checks],
    )
    if report.not_checked:
        yield from _table(
            f"Not checked for target {number}",
            ("fact", "reason", "how to have it checked"),
            [(one.fact, one.reason, one.lift or "") for one in report.not_checked],
        )
    yield "</details>"


def _table(caption: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    if not rows:
        return
    yield f'<div class="wide" tabindex="0" role="group" aria-label="{caption}"><table>'
    yield f"<caption>{caption}</caption>"
    yield "<thead><tr>" + "".join(f'<th scope="col">{head}</th>' for head in heads) + "</tr></thead>"
    yield "<tbody>"
    yield from ("<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    yield "</tbody></table></div>"


# ------ the picture of the way

_STEP, _BOX, _WIDTH = 74, 48, 300
_LONGEST = 34
"""Characters that fit into a box."""


def _figure(way: Sequence[Link], number: int) -> Iterator[str]:
    height = (len(way) + 1) * _STEP
    spoken = "; ".join(f"{link.title} {link.detail}: {link.state.value}" for link in way)
    yield "<figure>"
    yield f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-labelledby="way-{number} steps-{number}">'
    yield f'<title id="way-{number}">The way from the client to the server</title>'
    yield f'<desc id="steps-{number}">{_text(spoken)}</desc>'
    yield from _box(0, "client", "", "var(--line)", "")
    for index, link in enumerate(way, 1):
        colour = _ink(link.state)
        yield from _arrow((index - 1) * _STEP + _BOX, link.state, colour)
        yield from _box(index * _STEP, link.title, link.detail, colour, link.state.value)
    yield "</svg>"
    yield "</figure>"


def _ink(state: LinkState) -> str:
    match state:
        case LinkState.PASSED:
            return "var(--good)"
        case LinkState.BROKEN:
            return "var(--bad)"
        case LinkState.NOT_REACHED | LinkState.UNKNOWN:
            return "var(--quiet)"


def _arrow(top: int, state: LinkState, colour: str) -> Iterator[str]:
    dashes = "" if state in (LinkState.PASSED, LinkState.BROKEN) else ' stroke-dasharray="4 4"'
    bottom = top + _STEP - _BOX - 2
    yield f'<path d="M40 {top + 2}V{bottom}m-5 -6l5 6l5 -6" fill="none" stroke="{colour}" stroke-width="2"{dashes}/>'
    yield f'<text x="56" y="{top + 19}" font-size="15" fill="{colour}">{_MARKS[state]} {state.value}</text>'


def _box(top: int, title: str, detail: str, colour: str, state: str) -> Iterator[str]:
    width = 3 if state == LinkState.BROKEN.value else 1.5
    yield (
        f'<rect x="2" y="{top + 2}" width="{_WIDTH - 4}" height="{_BOX - 4}" rx="5" '
        f'fill="var(--panel)" stroke="{colour}" stroke-width="{width}"/>'
    )
    yield f'<text x="14" y="{top + (20 if detail else 29)}" font-size="14" fill="var(--ink)">{_text(title)}</text>'
    if detail:
        shown = detail if len(detail) <= _LONGEST else f"{detail[: _LONGEST - 1]}\N{HORIZONTAL ELLIPSIS}"
        yield f'<text x="14" y="{top + 37}" font-size="13" fill="var(--quiet)">{_text(shown)}</text>'
