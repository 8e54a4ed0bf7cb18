"""What holds of every page, whatever is in the report."""

from __future__ import annotations

import json
import re

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from checks import CHECKS
from diagnose.engine import diagnose
from diagnose.model.report import Report
from diagnose.model.snapshot import Snapshot
from diagnose.render.json import render_json
from diagnose.render.markdown import render_markdown
from diagnose.render.printable import command_line, printable
from diagnose.render.text import Style, render_text
from tests.properties.snapshots import reports, snapshots

SGR = re.compile(r"\x1b\[[0-9;]*m")
styles = st.builds(Style, st.integers(0, 200), st.booleans(), st.booleans())


@given(st.one_of(reports, snapshots.map(lambda one: diagnose(one, CHECKS))), styles)
def test_a_terminal_never_gets_a_control_character_but_the_newline(report: Report, style: Style) -> None:
    page = render_text([report], style)
    if not style.colour:
        assert "\x1b" not in page
    assert SGR.sub("", page).replace("\n", "").isprintable()
    assert page.isascii() or not style.ascii_only


@given(reports, st.integers(40, 120), st.booleans())
def test_no_prose_is_wider_than_the_terminal(report: Report, width: int, ascii_only: bool) -> None:
    commands = {
        printable(command_line(one, sudo=sudo), ascii_only=ascii_only)
        for finding in (*report.findings, *([report.root_cause] if report.root_cause else []))
        for remedy in finding.remedies
        for one in (*remedy.commands, *remedy.undo)
        for sudo in (True, False)
    }
    for line in render_text([report], Style(width, ascii_only=ascii_only)).splitlines():
        command = line.startswith("Verify ") or line.strip().removeprefix("undo: ") in commands
        assert len(line) <= width or command


@given(reports)
def test_a_page_of_markdown_never_has_a_control_character_but_the_newline(report: Report) -> None:
    assert render_markdown([report]).replace("\n", "").isprintable()


@given(reports)
def test_json_says_what_the_report_says_and_nothing_that_acts_on_a_terminal(report: Report) -> None:
    text = render_json([report])
    assert text.replace("\n", "").isprintable()
    assert msgspec.convert(json.loads(text), Report) == report


@given(st.lists(snapshots, min_size=2, max_size=3))
def test_several_reports_are_the_reports_one_by_one(several: list[Snapshot]) -> None:
    found = [diagnose(one, CHECKS) for one in several]
    plain = Style(80)
    assert render_text(found, plain) == "\n".join(render_text([one], plain) for one in found)
    assert json.loads(render_json(found))["reports"] == [json.loads(render_json([one])) for one in found]


@given(st.text(), st.booleans())
def test_printable_text_is_printable_and_plain_text_is_left_alone(text: str, ascii_only: bool) -> None:
    shown = printable(text, ascii_only=ascii_only)
    assert shown.isprintable()
    assert shown.isascii() or not ascii_only
    if text.isprintable() and (text.isascii() or not ascii_only):
        assert shown == text
