"""The report for a ticket: nothing in foreign text can break out of its place."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator

import pytest
from msgspec.structs import replace

from diagnose.model.finding import Command, Edit, Evidence, Remedy
from diagnose.model.report import Report
from diagnose.render.markdown import render_markdown
from tests.reports import REPORTS, poisoned
from tests.scenes import ALICE, ROOT, finding

every_report = pytest.mark.parametrize("make", REPORTS.values(), ids=REPORTS)


def test_the_whole_page_is_as_reviewed(matches_golden: Callable[[str, str], None]) -> None:
    matches_golden("dropped.md", render_markdown([REPORTS["dropped"]()]))


def test_an_edit_of_several_lines_is_a_block_that_its_text_cannot_leave() -> None:
    remedy = Remedy(summary="Publish it", edits=(Edit("/srv/c.yaml", 3, "  a: 1\n```\n  b: 2"),))
    one = replace(finding("a/b"), remedies=(remedy,))
    page = render_markdown([replace(REPORTS["closed"](), root_cause=one, findings=(one,))])
    assert "- `/srv/c.yaml`, line 3 becomes:\n\n````\n  a: 1\n```\n  b: 2\n````\n" in page


@every_report
def test_hostile_text_never_reaches_the_page_raw(make: Callable[[], Report]) -> None:
    assert render_markdown([poisoned(make())]).replace("\n", "").isprintable()


@every_report
def test_hostile_text_does_not_change_the_structure_of_the_page(make: Callable[[], Report]) -> None:
    assert _structure(render_markdown([poisoned(make())])) == _structure(render_markdown([make()]))


def _structure(page: str) -> list[str]:
    """Each line by what Markdown makes of it: heading, cell borders, fence, list item, text."""
    return [_kind(line) for line in page.splitlines()]


def _kind(line: str) -> str:
    if line.startswith("|"):
        borders = re.sub(r"\\.", "", line).count("|")
        return f"row of {borders - 1}"
    mark = re.match(r"#+ |```|- |$", line)
    return mark[0].strip() if mark else "text"


@every_report
def test_no_foreign_code_span_is_left_open(make: Callable[[], Report]) -> None:
    for line in _outside_fences(render_markdown([poisoned(make())])):
        assert re.sub(r"\\`", "", line).count("`") % 2 == 0, line


def _outside_fences(page: str) -> Iterator[str]:
    """The lines that are read as Markdown (CommonMark 4.5: a fence ends with one at least as long)."""
    fence = ""
    for line in page.splitlines():
        opened = re.match(r"`{3,}", line)
        if fence:
            fence = "" if opened and line == opened[0] and len(line) >= len(fence) else fence
        elif opened:
            fence = opened[0]
        else:
            yield line


def test_the_heading_has_the_target_and_the_verdict() -> None:
    assert render_markdown([REPORTS["closed"]()]).startswith("## `127.0.0.1:62893`: unreachable\n")


def test_every_finding_comes_with_its_code_confidence_evidence_and_remedy() -> None:
    report = REPORTS["dropped"]()
    page = render_markdown([report])
    for one in report.findings:
        assert f"({one.confidence.value}, `{one.code}`)" in page
        shown = [seen for seen in one.evidence if not seen.detail]
        assert all(f"- `{seen.text}`" in page for seen in shown if not set(seen.text) & set("|`"))


def _fenced(*argv: str, report: Report) -> Report:
    remedy = Remedy(summary="Do it", commands=(Command(argv, needs_root=True),))
    root = replace(finding("a/x"), remedies=(remedy,))
    return replace(report, root_cause=root, findings=(root,))


def test_a_command_stands_in_a_fence_as_it_is_typed() -> None:
    report = _fenced("echo", "*a*|b", report=REPORTS["closed"]())
    as_alice, as_root = (render_markdown([replace(report, vantage=who)]) for who in (ALICE, ROOT))
    assert "```sh\nsudo echo '*a*|b'\n```" in as_alice
    assert "```sh\necho '*a*|b'\n```" in as_root


def test_a_command_cannot_end_its_fence() -> None:
    page = render_markdown([_fenced("echo", "```", report=REPORTS["closed"]())])
    assert [line for line in page.splitlines() if line.startswith("```")] == ["````sh", "````"]
    assert "echo '```'" in page


@pytest.mark.parametrize("word", ["```; exit 1; ```", "`````", "a'```; exit 1 #"])
def test_a_command_is_pasted_as_it_is_whatever_its_words_are(word: str) -> None:
    page = render_markdown([_fenced("printf", "%s", word, report=REPORTS["closed"]())])
    pasted = re.search(r"^(`{3,})sh\n(?:sudo )?(.*)\n\1$", page, re.MULTILINE)
    assert pasted
    done = subprocess.run(["bash", "-c", pasted[2]], capture_output=True, text=True, check=True)
    assert done.stdout == word


@pytest.mark.parametrize("name", ["https://evil.example/x", "www.evil.example", "&lt;b&gt;", "<b>", "[x](y)"])
def test_a_name_becomes_neither_link_nor_markup(name: str) -> None:
    root = replace(finding("a/x"), title=f"table {name} drops", explanation=f"See {name}.")
    page = render_markdown([replace(REPORTS["closed"](), root_cause=root, findings=(root,))])
    assert name not in page
    assert re.sub(r"\\(.)", r"\1", page).count(name) == 2


def test_code_marks_in_evidence_are_replaced() -> None:
    root = replace(finding("a/x"), evidence=(Evidence("a `b` c", "`src`"),))
    page = render_markdown([replace(REPORTS["closed"](), root_cause=root, findings=(root,))])
    assert "- `a 'b' c` (\\`src\\`)" in page


def test_without_a_cause_it_says_so() -> None:
    assert "No cause could be named." in render_markdown([replace(REPORTS["closed"](), root_cause=None, findings=())])


def test_every_check_and_every_gap_is_listed() -> None:
    report = REPORTS["closed"]()
    page = render_markdown([report])
    assert all(f"| {one.name} | {one.outcome.value} |" in page for one in report.checks)
    assert "- not checked: firewall rules: needs root (run it again with sudo)" in page


def test_several_targets_are_several_sections() -> None:
    page = render_markdown([REPORTS["closed"](), REPORTS["working"]()])
    assert [line for line in page.splitlines() if line.startswith("## ")] == [
        "## `127.0.0.1:62893`: unreachable",
        "## `http://localhost:3000/`: reachable",
    ]
