"""The report for a terminal: the answer first, narrow or wide, in colour or not, whatever text is in it."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from msgspec.structs import replace

from checks import CHECKS
from diagnose.analysis.wording import title
from diagnose.engine import diagnose
from diagnose.model.finding import Command, Confidence, Edit, Evidence, Finding, Rehearsal, Remedy
from diagnose.model.report import Report
from diagnose.parse.target import parse_target
from diagnose.render.markdown import render_markdown
from diagnose.render.printable import command_line, printable
from diagnose.render.text import Style, render_text
from tests.reports import HOSTILE, REPORTS, poisoned
from tests.scenes import ALICE, ROOT, bound, connected, dialled, finding, listening, refused, rows, wanted

V4 = "127.0.0.1:8080"

PLAIN = Style(80)
COLOURED = Style(80, colour=True)
ASCII = Style(80, ascii_only=True)
SGR = re.compile(r"\x1b\[[0-9;]*m")

every_report = pytest.mark.parametrize("make", REPORTS.values(), ids=REPORTS)


@every_report
def test_the_whole_page_is_as_reviewed(make: Callable[[], Report], matches_golden: Callable[[str, str], None]) -> None:
    matches_golden(f"{make.__name__}.txt", render_text([make()], PLAIN))


@every_report
def test_the_first_line_has_the_target_and_the_verdict(make: Callable[[], Report]) -> None:
    report = make()
    first = render_text([report], PLAIN).splitlines()[0]
    assert first.startswith(f"{report.target.input}  {report.verdict.value}: ")


@every_report
@pytest.mark.parametrize("width", [*range(40, 121, 5), 79])
def test_no_line_but_a_command_is_wider_than_the_terminal(make: Callable[[], Report], width: int) -> None:
    report = make()
    for line in render_text([report], Style(width)).splitlines():
        assert len(line) <= min(width, 100) or _is_command(line, report), line


def _is_command(line: str, report: Report) -> bool:
    """A command is kept in one piece, to be copied."""
    commands = {
        command_line(command, sudo=sudo)
        for one in report.findings
        for remedy in one.remedies
        for command in (*remedy.commands, *remedy.undo)
        for sudo in (True, False)
    }
    return line.startswith("Verify ") or line.strip().removeprefix("undo: ") in commands


def test_the_command_that_verifies_is_never_broken() -> None:
    report = replace(REPORTS["closed"](), target=parse_target(f"{'long-' * 20}host.example.org:8080"))
    assert f"netdiag run {report.target.address}" in render_text([report], Style(40))


@pytest.mark.parametrize("width", [0, 1, 12, 39])
def test_a_terminal_too_narrow_to_be_true_still_gets_a_readable_page(width: int) -> None:
    report = REPORTS["closed"]()
    assert render_text([report], Style(width)) == render_text([report], Style(40))


@every_report
def test_without_colour_there_is_no_escape_sequence(make: Callable[[], Report]) -> None:
    assert "\x1b" not in render_text([make()], PLAIN)


@every_report
def test_colours_change_nothing_but_the_colours(make: Callable[[], Report]) -> None:
    coloured = render_text([make()], COLOURED)
    assert SGR.search(coloured)
    assert SGR.sub("", coloured) == render_text([make()], PLAIN)


@every_report
@pytest.mark.parametrize("style", [PLAIN, COLOURED, ASCII, Style(40)], ids=["plain", "coloured", "ascii", "narrow"])
def test_hostile_text_never_reaches_the_terminal_raw(make: Callable[[], Report], style: Style) -> None:
    page = SGR.sub("", render_text([poisoned(make())], style))
    assert page.replace("\n", "").isprintable()
    assert "\\x1b[31m\\n|" in page.replace("\n" + " " * 12, "")


@every_report
def test_an_ascii_terminal_gets_ascii_only(make: Callable[[], Report]) -> None:
    assert render_text([poisoned(make())], ASCII).isascii()


@every_report
def test_a_newline_in_foreign_text_does_not_make_a_line(make: Callable[[], Report]) -> None:
    assert not any(line.startswith(("| `x`", "```", "# h")) for line in _lines(poisoned(make())))


def _lines(*reports: Report, style: Style = PLAIN) -> list[str]:
    return render_text(reports, style).splitlines()


def _with(finding_: Finding, report: Report | None = None) -> Report:
    base = report or REPORTS["closed"]()
    return replace(base, root_cause=finding_, findings=(finding_,))


def test_a_command_that_needs_root_is_shown_with_sudo_to_those_who_ran_netdiag_through_it() -> None:
    remedy = Remedy(summary="Do it", commands=(Command(("nft", "list", "ruleset"), needs_root=True), Command(("ls",))))
    report = replace(_with(replace(finding("a/b"), remedies=(remedy,))), vantage=replace(ROOT, sudo_user="alice"))
    assert {"sudo nft list ruleset", "ls"} <= {line.strip() for line in _lines(report)}
    assert "sudo nft list ruleset" in render_markdown([report])
    root = replace(report, vantage=ROOT)
    assert "sudo nft" not in render_text([root], PLAIN) + render_markdown([root])


def test_under_sudo_it_is_said_for_whom_a_server_can_be_started() -> None:
    seen = wanted("127.0.0.1:8080", bound("127.0.0.1:8080"), seen_by=replace(ROOT, sudo_user="alice"))
    report = diagnose(seen, CHECKS)
    for page in (render_text([report], Style(100)), render_markdown([report])):
        assert "bindable for root (alice ran netdiag as root)" in page.splitlines()[0]
    own = diagnose(replace(seen, vantage=ROOT), CHECKS)
    assert "bindable: the user root can start a server here" in _lines(own)[0]


def test_a_name_that_works_over_one_family_only_says_so_and_warns() -> None:
    seen = dialled("localhost:8080", refused("[::1]:8080"), connected("127.0.0.1:8080"))
    lines = _lines(diagnose(seen, CHECKS))
    assert lines[0].startswith("localhost:8080  reachable over IPv4 only: ")
    assert any("warning: localhost is ::1 first" in line for line in lines)
    both = dialled("localhost:8080", connected("[::1]:8080"), refused("127.0.0.1:8080"))
    assert _lines(diagnose(both, CHECKS))[0].startswith("localhost:8080  reachable: ")


def test_what_a_warning_explains_is_not_told_again() -> None:
    served = rows(listening("127.0.0.1:8080"))
    seen = dialled("localhost:8080", refused("[::1]:8080"), connected("127.0.0.1:8080"), listeners=served)
    report = diagnose(seen, CHECKS)
    assert "refused/other-family" in {one.code for one in report.findings}
    assert "refused/other-family" not in render_text([report], PLAIN)


def test_checks_that_do_not_apply_are_not_called_clear() -> None:
    page = " ".join(render_text([diagnose(wanted(V4, bound(V4)), CHECKS)], PLAIN).split())
    assert "in-use clear" in page
    assert "not applicable here: refused, firewall, container, hung, exposure" in page


def test_a_line_of_a_file_is_quoted_without_escapes_for_its_tabs() -> None:
    quoted = replace(finding("a/b"), evidence=(Evidence("hosts:\tfiles\tdns", "/etc/nsswitch.conf"),))
    assert "hosts: files dns  [/etc/nsswitch.conf]" in render_text([_with(quoted)], PLAIN)
    assert "hosts: files dns" in render_markdown([_with(quoted)])


def test_a_title_that_was_shortened_is_readable_on_an_ascii_terminal() -> None:
    report = _with(replace(finding("a/b"), title=title("word " * 40)))
    assert "word ..." in render_text([report], Style(100, ascii_only=True))


def test_a_command_that_needs_root_is_shown_with_sudo_to_an_ordinary_user_only() -> None:
    remedy = Remedy(summary="Do it", commands=(Command(("nft", "list", "ruleset"), needs_root=True), Command(("ls",))))
    report = _with(replace(finding("a/x"), remedies=(remedy,)))
    as_alice, as_root = (_lines(replace(report, vantage=who)) for who in (ALICE, ROOT))
    assert "sudo nft list ruleset" in [line.strip() for line in as_alice]
    assert "nft list ruleset" in [line.strip() for line in as_root]
    assert "ls" in [line.strip() for line in as_alice]


def test_a_command_is_shown_quoted_for_a_shell() -> None:
    remedy = Remedy(summary="Do it", commands=(Command(("netdiag", "run", "[::1]:80")), Command(("echo", "a b;c"))))
    lines = [line.strip() for line in _lines(_with(replace(finding("a/x"), remedies=(remedy,))))]
    assert "netdiag run '[::1]:80'" in lines
    assert "echo 'a b;c'" in lines


def test_an_edit_of_several_lines_stands_as_it_is_to_stand_in_the_file_before_the_command_that_applies_it() -> None:
    remedy = Remedy(
        summary="Publish it",
        commands=(Command(("docker", "compose", "up", "-d", "db")),),
        edits=(Edit("/srv/compose.yaml", 3, '    image: x\n    ports:\n      - "1:1"\x1b[31m'),),
    )
    one = replace(finding("a/b"), remedies=(remedy,))
    text = render_text([replace(REPORTS["closed"](), root_cause=one, findings=(one,))], PLAIN)
    shown = """\
              /srv/compose.yaml:3 becomes:
                  image: x
                  ports:
                    - "1:1"\\x1b[31m
              docker compose up -d db
"""
    assert "\n".join(line.strip() for line in shown.splitlines()) in "\n".join(
        line.strip() for line in text.splitlines()
    )
    assert '                    - "1:1"' in text


def test_a_remedy_shows_its_undo_its_edits_and_its_rehearsal() -> None:
    remedy = Remedy(
        summary="Do it",
        commands=(Command(("on",)),),
        undo=(Command(("off",)),),
        edits=(Edit("/etc/x.conf", 7, "port 80"),),
        rehearsal=Rehearsal(True, ("127.0.0.1:5432",)),
    )
    page = "\n".join(_lines(_with(replace(finding("a/x"), remedies=(remedy,))), style=Style(100)))
    assert "undo: off" in page
    assert "/etc/x.conf:7: port 80" in page
    assert "it fixes this; it also opens 127.0.0.1:5432" in page


@pytest.mark.parametrize(
    ("confidence", "words"),
    [(Confidence.PROVEN, "(proven)"), (Confidence.LIKELY, "(likely, not proven)")],
)
def test_the_headline_says_how_sure_it_is(confidence: Confidence, words: str) -> None:
    assert words in _lines(_with(finding("a/x", confidence=confidence)))[0]


def test_without_a_cause_it_says_so_and_blames_nothing() -> None:
    report = replace(REPORTS["closed"](), root_cause=None, findings=())
    page = render_text([report], PLAIN)
    assert "no cause could be proven" in page
    assert "Fix" not in page


def test_what_the_root_cause_explains_is_not_told_again() -> None:
    root, echo = finding("a/x", explains=("b/y",)), finding("b/y", title="Told twice")
    report = replace(REPORTS["closed"](), root_cause=root, findings=(root, echo))
    assert "Told twice" not in render_text([report], PLAIN)


def test_an_independent_problem_is_told_as_well() -> None:
    root, other = finding("a/x"), finding("b/y", title="Another fault")
    report = replace(REPORTS["closed"](), root_cause=root, findings=(root, other))
    assert "problem: Another fault" in render_text([report], PLAIN)


def test_what_was_not_checked_comes_with_what_would_lift_it() -> None:
    assert any(
        line.startswith("Not checked firewall rules: needs root (run it again with sudo)")
        for line in _lines(REPORTS["closed"]())
    )


@every_report
def test_every_check_is_named_with_its_outcome(make: Callable[[], Report]) -> None:
    report = make()
    page = " ".join(" ".join(_lines(report)).split())
    assert all(f"{one.name} {one.outcome.value}" in page for one in report.checks)


def test_several_reports_stand_apart_by_an_empty_line() -> None:
    one, other = REPORTS["closed"](), REPORTS["working"]()
    assert render_text([one, other], PLAIN) == render_text([one], PLAIN) + "\n" + render_text([other], PLAIN)


def test_printable_leaves_plain_text_alone_and_escapes_the_rest() -> None:
    assert printable("python3 -m http.server — é") == "python3 -m http.server — é"
    assert printable("é", ascii_only=True) == "\\xe9"
    assert printable("a\nb\x1bc\x00\u202e\x9b") == "a\\nb\\x1bc\\x00\\u202e\\x9b"
    assert printable("\udcff") == "\\udcff"
    assert printable(HOSTILE).isprintable()
