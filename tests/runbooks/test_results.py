"""Pages for people: what `show` prints, and results in every format."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser

import jsonschema
import pytest

from diagnose import library
from diagnose.model.report import Report
from diagnose.render.text import Style
from diagnose.runbook.html import render_html
from diagnose.runbook.model import SUFFIX
from diagnose.runbook.path import Ended, Known, NotDone, Value, walk
from diagnose.runbook.render import Filled, render_json, render_markdown, render_text
from diagnose.runbook.schema import result_schema, runbook_schema
from diagnose.runbook.show import show
from diagnose.runbook.values import value
from tests.runbooks.books import SMALL, book, machine
from tests.runbooks.test_path import HOSTILE

REFUSED = "a-port-where-nothing-listens-is-refused-by-the-kernel"
WELL = "a-healthy-server-is-never-accused-127.0.0.1-accepts"
SAYS = SMALL.replace("Seen: {root_cause.title}", "Seen at {server}: {root_cause.title}")


def carried_out(report: Report | NotDone, given: str = "127.0.0.1:8080", *, text: str = SAYS, **answers: str) -> Filled:
    runbook = book(text)
    known = Known({"server": Value(given, given)}, answers, {"reach": report})
    ended = walk(runbook, known)
    assert isinstance(ended, Ended)
    return Filled(runbook, known, ended)


def shipped(name: str) -> str:
    return (library.SHIPPED / f"{name}{SUFFIX}").read_text(encoding="utf-8")


def test_a_runbook_as_a_page_of_a_wiki_is_as_reviewed(matches_golden: Callable[[str, str], None]) -> None:
    matches_golden("runbook-database.md", show(book(shipped("database-on-localhost"))))


def test_a_result_with_a_fix_is_as_reviewed(matches_golden: Callable[[str, str], None]) -> None:
    filled = carried_out(machine(REFUSED))
    matches_golden("runbook-fix.txt", render_text(filled, Style(80)))
    matches_golden("runbook-fix.md", render_markdown(filled))
    matches_golden("runbook-fix.html", render_html(filled))


def test_a_question_of_several_lines_reads_well_in_every_format() -> None:
    question = "ask: |\n      Does it\n      still fail?\n    choices"
    filled = carried_out(machine(WELL), text=SAYS.replace("ask: Does it still fail?\n    choices", question), ask="yes")
    for page in (render_text(filled, Style(80)), render_markdown(filled), render_html(filled)):
        assert "Does it still fail?" in page
        assert "\\n" not in page
    assert json.loads(render_json(filled))["path"][1]["question"]["ask"] == "Does it\nstill fail?"


def test_a_result_that_escalates_is_as_reviewed(matches_golden: Callable[[str, str], None]) -> None:
    filled = carried_out(machine(WELL), ask="yes")
    matches_golden("runbook-escalate.txt", render_text(filled, Style(80)))
    matches_golden("runbook-escalate.md", render_markdown(filled))
    matches_golden("runbook-escalate.json", render_json(filled))


@pytest.mark.parametrize(
    "filled",
    [carried_out(machine(REFUSED)), carried_out(machine(WELL), ask="no"), carried_out(NotDone("it is gone"))],
    ids=["fix", "works", "not done"],
)
def test_the_json_fits_its_schema_and_has_the_promised_keys(filled: Filled) -> None:
    result = json.loads(render_json(filled))
    jsonschema.validate(result, json.loads(result_schema()))
    assert set(result) == {"schema", "runbook", "inputs", "path", "end", "escalation"}
    assert result["schema"] == "netdiag.runbook-result/1"
    for one in result["path"]:
        assert set(one) in ({"step", "question", "branch", "said"}, {"step", "report", "branch", "said"})


def test_the_schemas_are_schemas() -> None:
    for text in (runbook_schema(), result_schema()):
        jsonschema.Draft202012Validator.check_schema(json.loads(text))


class Page(HTMLParser):
    """What a browser would make of it."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Notes it."""
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        """Notes it."""
        self.text += data


@pytest.mark.parametrize("hostile", HOSTILE)
def test_no_value_is_markup_in_html(hostile: str) -> None:
    page = Page()
    page.feed(render_html(carried_out(machine(REFUSED), hostile)))
    clean = Page()
    clean.feed(render_html(carried_out(machine(REFUSED), "plain")))
    assert page.tags == clean.tags
    assert page.attributes == clean.attributes
    assert not page.attributes & {"src", "href", "onclick", "style"}


@pytest.mark.parametrize("hostile", HOSTILE)
def test_no_value_is_markup_in_markdown_nor_acts_on_a_terminal(hostile: str) -> None:
    filled = carried_out(machine(REFUSED), hostile)
    page = re.sub(r"`[^`\n]*`", "", render_markdown(filled))
    assert "<script" not in page
    assert "](http" not in page
    text = render_text(filled, Style(200))
    assert all(char.isprintable() or char == "\n" for char in text + page)
    rows = [line for line in render_markdown(filled).splitlines() if line.startswith("| `server`")]
    assert [len(re.findall(r"(?<!\\)\|", row)) for row in rows] == [3]


def test_a_label_of_the_diagram_cannot_end_it() -> None:
    text = SMALL.replace("Does it still fail?", 'Why"] --> x; click s1 "javascript:alert(1)"\\n```')
    page = show(book(text))
    diagram = page.split("```mermaid\n")[1].split("\n```")[0]
    assert 'click s1 "' not in diagram
    assert all(
        re.fullmatch(r' {4}\w+(\[".*"\]|\{".*"\}|\(\["[\w ]+"\]\)| -->\|"[^"|]*"\| \w+)', line)
        for line in diagram.splitlines()[1:]
    )


def test_every_branch_is_in_the_diagram_and_in_words() -> None:
    page = show(book(SMALL))
    assert page.count("-->") == 5
    for words in ("the root cause is refused/\\*", "the verdict is reachable", "Otherwise", "the answer is no"):
        assert words in page


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("localhost:5432", "localhost:5432"),
        ("postgres://app:hunter2@localhost/db", "postgres://***@localhost/db"),
        ("redis://:hunter2@localhost", "redis://***@localhost"),
        ("app:hunter2@localhost:1", "***"),
        ("weird://user:hunter2@", "***"),
    ],
)
def test_a_password_is_in_no_result(given: str, shown: str) -> None:
    assert value(given).shown == shown
    runbook = book(SAYS)
    known = Known({"server": value(given)}, {}, {"reach": machine(REFUSED)})
    ended = walk(runbook, known)
    assert isinstance(ended, Ended)
    filled = Filled(runbook, known, ended)
    for text in (render_text(filled, Style()), render_markdown(filled), render_html(filled), render_json(filled)):
        assert "hunter2" not in text


def test_a_recording_is_what_is_attached_where_one_was_read() -> None:
    from msgspec.structs import replace

    filled = carried_out(NotDone("it is gone"))
    assert "netdiag bundle -o reach.netdiag.zip -- 127.0.0.1:8080" in render_text(filled, Style(120))
    text = render_text(replace(filled, recording="case.json"), Style(120))
    assert "netdiag bundle" not in text
    assert "the recording case.json" in text
