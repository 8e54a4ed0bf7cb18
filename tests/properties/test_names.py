"""Names are data: whatever the machine calls its things, no command and no sentence to type is made of the name."""

from __future__ import annotations

import re
from typing import TypeVar

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from checks import CHECKS
from diagnose.engine import diagnose
from diagnose.model.report import Report
from diagnose.model.snapshot import Snapshot
from diagnose.render.markdown import render_markdown
from diagnose.render.text import Style, render_text
from tests.hostile import MARK, NAMES
from tests.properties.snapshots import snapshots

S = TypeVar("S", bound=msgspec.Struct)
NAMED = frozenset({"table", "chain", "unit", "name", "device", "interface", "selector", "program", "comment", "path"})
NAMED |= {"namespace", "attached", "directory", "image", "text"}
"""Fields of the facts in which the machine says how something is called; `text` is a rule's, made of such names."""
ANY_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
hostile_names = st.sampled_from(NAMES) | st.tuples(ANY_TEXT, ANY_TEXT).map(MARK.join)


def poisoned(fact: S, name: str) -> S:
    """The fact with this in the place of each name."""
    return replace(fact, **{field: _poisoned(getattr(fact, field), field, name) for field in fact.__struct_fields__})


def _poisoned(value: object, field: str, name: str) -> object:
    match value:
        case msgspec.Struct():
            return value if field in ("target", "program") else poisoned(value, name)
        case tuple():
            return tuple(_poisoned(one, field, name) for one in value)
        case "":
            return value
        case str() if field == "text":
            return f'iifname "{name}" tcp dport @{name} jump {name} comment "{name}"'
        case str() if field in NAMED:
            return name
        case _:
            return value


def _argvs(report: Report) -> list[tuple[str, ...]]:
    remedies = [remedy for finding in report.findings for remedy in finding.remedies]
    return [command.argv for one in remedies for command in (*one.commands, *one.undo)]


def _is_one_word(word: str, argv: tuple[str, ...]) -> bool:
    """By another way than the grammars': plain, or in a place where its tool parses nothing."""
    if MARK not in word:
        return True
    places = ("/", "--net=/", "container:", "netns:")
    if re.fullmatch(r"@?[A-Za-z0-9_][A-Za-z0-9_.:/-]*", word):
        return True
    if "nft" in argv:
        return re.fullmatch(r'"[^"\n]*",?', word) is not None and argv[argv.index("nft") + 1] != "delete"
    xtables = any(part.startswith(("iptables", "ip6tables")) for part in argv)
    return word.isprintable() and (word.startswith(places) or (xtables and not word.startswith("-")))


@given(snapshots, hostile_names)
def test_no_name_is_more_than_a_word_of_any_command(snapshot: Snapshot, name: str) -> None:
    for argv in _argvs(diagnose(poisoned(snapshot, name), CHECKS)):
        assert all(_is_one_word(word, argv) for word in argv), argv


@given(snapshots, hostile_names)
def test_no_name_acts_on_the_terminal_or_leaves_its_line(snapshot: Snapshot, name: str) -> None:
    report = diagnose(poisoned(snapshot, name), CHECKS)
    for page in (render_text([report], Style()), render_markdown([report])):
        assert page.replace("\n", "").isprintable()
        assert not any(line.strip() == "flush ruleset" for line in page.splitlines())
