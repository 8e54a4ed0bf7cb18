"""YAML text -> nodes that know their place, for people who write runbooks: every error has a line and a column.

A runbook is a plain tree: anchors, aliases, tags and keys that are no text are errors, so nothing in it can grow.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from msgspec import Struct

from diagnose.parse.yaml_tree import Mapping, Node, Place, Scalar, Sequence

if TYPE_CHECKING:
    from yaml import Event

LARGEST = 1 << 18
"""Bytes of a runbook."""
DEEPEST = 16
"""Levels: the schema has nine."""
MOST_PROBLEMS = 100
"""After so many a person has enough to do."""
_BREAKS = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
_FORBIDDEN = re.compile("[^\x09\x0a\x0d\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""YAML 1.1, 5.1."""


class Problem(Struct, frozen=True, order=True):
    """What is wrong at a place, and what was expected."""

    place: Place
    text: str

    def line(self, file: str) -> str:
        """FILE:LINE:COLUMN: what; columns begin at 1, as editors count."""
        return f"{file}:{self.place.line}:{self.place.column + 1}: {self.text}"


class Text(Struct, frozen=True):
    """A file's text, for places within a scalar."""

    lines: tuple[str, ...]

    def find(self, scalar: Scalar, wanted: str, nth: int = 0) -> Place:
        """Where the nth occurrence of these characters stands; the scalar's start where they are escaped."""
        for number in range(scalar.start.line, scalar.end.line + 1):
            line = self.lines[number - 1] if number <= len(self.lines) else ""
            begin = scalar.start.column if number == scalar.start.line else 0
            end = scalar.end.column if number == scalar.end.line else len(line)
            at = line.find(wanted, begin, end)
            while at >= 0:
                if nth == 0:
                    return Place(number, at)
                nth -= 1
                at = line.find(wanted, at + len(wanted), end)
        return scalar.start


class Document(Struct, frozen=True):
    """The root node, None where there is none that can be followed, and what is wrong with the text."""

    root: Node | None
    problems: tuple[Problem, ...]
    text: Text


def read_document(data: bytes) -> Document:
    """Never raises; what is wrong is in `problems`."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8-sig")
        return _failed(before, len(before), "this byte is not UTF-8; a runbook is UTF-8 text")
    if len(data) > LARGEST:
        return _failed(text, 0, f"the file has {len(data)} bytes; a runbook has no more than {LARGEST}")
    if wrong := _FORBIDDEN.search(text):
        return _failed(text, wrong.start(), f"the character {wrong[0]!a} is not allowed in YAML; remove it")
    return _composed(text)


def _failed(text: str, offset: int, what: str) -> Document:
    lines = _BREAKS.split(text[:offset])
    place = Place(len(lines), len(lines[-1]))
    return Document(None, (Problem(place, what),), Text(tuple(_BREAKS.split(text))))


def _composed(text: str) -> Document:
    import yaml  # 18 ms that only runbooks and Compose projects pay for

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    composer = _Composer(yaml.parse(text, Loader=loader))
    lines = Text(tuple(_BREAKS.split(text)))
    try:
        root = composer.document()
    except _StopError:
        root = None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Place(mark.line + 1, mark.column) if mark is not None else Place(1, 0)
        composer.problems.append(Problem(place, f"this is no YAML: {_why(error.problem, lines, place)}"))
        root = None
    if root is None and not composer.problems:
        composer.problems.append(Problem(Place(1, 0), "the file is empty; a runbook begins with schema:"))
    return Document(root, tuple(composer.problems), lines)


def _why(problem: str | None, text: Text, place: Place) -> str:
    line = text.lines[place.line - 1] if place.line <= len(text.lines) else ""
    if re.match(r" *\t", line):
        return "a tab in the indentation; YAML allows spaces only"
    said = problem or "it cannot be read"
    if "mapping values are not allowed" in said:
        return f"{said}; a text with ': ' in it needs quotes"
    return said


class _StopError(Exception):
    """No more of the text can be followed."""


class _Composer:
    """Events -> nodes, without recursion deeper than DEEPEST."""

    def __init__(self, events: Iterator[Event]) -> None:
        self._events = events
        self.problems: list[Problem] = []

    def document(self) -> Node | None:
        """The root of the only document."""
        import yaml

        root: Node | None = None
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                if root is not None:
                    self._problem(_start(event), "a second document begins; a runbook is one document")
                    return root
                root = self._node(next(self._events), 0)
        return None if isinstance(root, Scalar) and root.null else root

    def _problem(self, place: Place, text: str) -> None:
        self.problems.append(Problem(place, text))
        if len(self.problems) >= MOST_PROBLEMS:
            raise _StopError

    def _node(self, event: Event, depth: int) -> Node:
        import yaml

        start = _start(event)
        if depth > DEEPEST:
            self._problem(start, f"nested deeper than {DEEPEST} levels; no part of a runbook is")
            raise _StopError
        if isinstance(event, yaml.AliasEvent):
            self._problem(start, f"an alias (*{event.anchor}); write the value out, runbooks have no aliases")
            return Scalar("", start, _end(event))
        if isinstance(event, yaml.NodeEvent) and event.anchor:
            self._problem(start, f"an anchor (&{event.anchor}); remove it, runbooks have no anchors")
        tag = getattr(event, "tag", None)
        if tag and tag not in ("!", "tag:yaml.org,2002:str"):
            self._problem(start, f"a tag ({tag}); remove it, runbooks have no tags")
        match event:
            case yaml.ScalarEvent():
                style = event.style if event.style in ("'", '"', "|", ">") else ""
                return Scalar(event.value, start, _end(event), style)
            case yaml.SequenceStartEvent():
                items, last = self._items(depth)
                return Sequence(tuple(items), start, last, bool(event.flow_style))
            case yaml.MappingStartEvent():
                items, last = self._items(depth)
                return Mapping(tuple(self._pairs(items)), start, last, bool(event.flow_style))
            case _:
                raise _StopError

    def _items(self, depth: int) -> tuple[list[Node], Place]:
        import yaml

        items: list[Node] = []
        for event in self._events:
            if isinstance(event, (yaml.SequenceEndEvent, yaml.MappingEndEvent)):
                return items, _end(event)
            items.append(self._node(event, depth + 1))
        raise _StopError

    def _pairs(self, items: list[Node]) -> Iterator[tuple[Scalar, Node]]:
        seen: dict[str, Place] = {}
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, Scalar):
                self._problem(key.start, "a key that is a list or a mapping; a key is a text")
            elif key.value in seen:
                first = seen[key.value].line
                self._problem(key.start, f"the key {key.value!r} stands here again; it is on line {first} already")
            else:
                seen[key.value] = key.start
                yield key, value


def _start(event: Event) -> Place:
    assert event.start_mark is not None
    return Place(event.start_mark.line + 1, event.start_mark.column)


def _end(event: Event) -> Place:
    assert event.end_mark is not None
    return Place(event.end_mark.line + 1, event.end_mark.column)
