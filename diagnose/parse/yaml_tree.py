"""YAML text -> a tree of nodes that know their place; never an object, never a tag's code.

Aliases lead to the node itself and are not copied, so that a bomb of them stays as small as its text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from yaml import AliasEvent, Event

DEEPEST = 64
"""Levels; no real file has more than some ten."""
LONGEST = 1 << 18
"""Characters; a file of 100 services has some 2^15."""
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_BREAKS = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
"""YAML 1.1 section 5.4; editors count the first alone, or the second."""


class YamlError(ValueError):
    """The text is no YAML document that is followed here; the message says where, and quotes nothing."""


class Place(Struct, frozen=True, order=True):
    """A line, the first is 1, and a column, the first is 0."""

    line: int
    column: int


class Scalar(Struct, frozen=True):
    """A text; `quoted`: it cannot be null, and stands between quotes or in a block."""

    value: str
    start: Place
    end: Place
    style: str = ""
    """As YAML writes it: empty for plain, ' or " for quoted, | or > for a block."""
    tag: str = ""

    @property
    def null(self) -> bool:
        """Whether nothing is given."""
        return not self.style and self.value in _NULLS


class Sequence(Struct, frozen=True):
    """A list."""

    items: tuple[Node, ...]
    start: Place
    end: Place
    flow: bool
    tag: str = ""


class Mapping(Struct, frozen=True):
    """Pairs in the order of the text; keys that are no plain text are left out."""

    pairs: tuple[tuple[Scalar, Node], ...]
    start: Place
    end: Place
    flow: bool
    tag: str = ""


Node = Scalar | Sequence | Mapping


class Pair(Struct, frozen=True):
    """A key and its value; `inherited`: they stand elsewhere, and others may share them."""

    key: Scalar
    value: Node
    inherited: bool = False


def lines_of(text: str) -> tuple[str, ...] | None:
    """The lines without their ends; None: an editor would count them otherwise than YAML does."""
    lines = tuple(_BREAKS.split(text))
    return lines if len(lines) == len(re.split("\r?\n", text)) else None


def parse_yaml(text: str) -> Node | None:
    """The root of the only document; None: there is none. Raises YamlError."""
    import yaml  # 18 ms that only a directory with a compose file pays for

    if len(text) > LONGEST:
        raise YamlError(f"it has more than {LONGEST} characters")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        return _Composer(yaml.parse(text, Loader=loader)).document()
    except yaml.MarkedYAMLError as error:
        raise YamlError(_why(error.problem or "it is no YAML", error.problem_mark, text)) from None
    except (yaml.YAMLError, UnicodeEncodeError):
        raise YamlError("it has a character that YAML does not allow") from None


def _why(problem: str, mark: object, text: str) -> str:
    """Line and problem, without any word of the file."""
    line = getattr(mark, "line", None)
    said = re.sub(r"\s*['\"].*", "", problem)
    if line is None:
        return said
    lines = _BREAKS.split(text)
    if line < len(lines) and re.match(r" *\t", lines[line]):
        said = "a tab in the indentation, where YAML allows spaces only"
    return f"line {line + 1}: {said}"


class _Composer:
    """Events -> nodes, without recursion deeper than DEEPEST."""

    def __init__(self, events: Iterator[Event]) -> None:
        self._events = events
        self._anchors: dict[str, Node] = {}

    def document(self) -> Node | None:
        import yaml

        root: Node | None = None
        for event in self._events:
            match event:
                case yaml.DocumentStartEvent() if root is not None:
                    raise YamlError(f"line {_start(event).line}: a second document")
                case yaml.DocumentStartEvent():
                    root = self._node(next(self._events), 0)
                case _:
                    continue
        return None if isinstance(root, Scalar) and root.null else root

    def _node(self, event: Event, depth: int) -> Node:
        import yaml

        if depth > DEEPEST:
            raise YamlError(f"line {_start(event).line}: nested deeper than {DEEPEST} levels")
        match event:
            case yaml.AliasEvent():
                return self._aliased(event)
            case yaml.ScalarEvent():
                style = event.style if event.style in ("'", '"', "|", ">") else ""
                node: Node = Scalar(event.value, _start(event), _end(event), style, event.tag or "")
            case yaml.SequenceStartEvent():
                items, last = self._items(depth)
                node = Sequence(tuple(items), _start(event), last, bool(event.flow_style), event.tag or "")
            case yaml.MappingStartEvent():
                items, last = self._items(depth)
                pairs = zip(items[::2], items[1::2], strict=True)
                named = tuple((key, value) for key, value in pairs if isinstance(key, Scalar))
                node = Mapping(named, _start(event), last, bool(event.flow_style), event.tag or "")
            case _:
                raise YamlError("it ends too early")
        if isinstance(event, yaml.NodeEvent) and event.anchor:
            self._anchors[event.anchor] = node
        return node

    def _items(self, depth: int) -> tuple[list[Node], Place]:
        import yaml

        items: list[Node] = []
        for event in self._events:
            if isinstance(event, (yaml.SequenceEndEvent, yaml.MappingEndEvent)):
                return items, _end(event)
            items.append(self._node(event, depth + 1))
        raise YamlError("it ends too early")

    def _aliased(self, event: AliasEvent) -> Node:
        """The node of an anchor that is complete; one inside itself has no end."""
        node = self._anchors.get(event.anchor or "")
        if node is None:
            raise YamlError(f"line {_start(event).line}: an alias without its anchor before it")
        return node


def _start(event: Event) -> Place:
    assert event.start_mark is not None
    return Place(event.start_mark.line + 1, event.start_mark.column)


def _end(event: Event) -> Place:
    assert event.end_mark is not None
    return Place(event.end_mark.line + 1, event.end_mark.column)
