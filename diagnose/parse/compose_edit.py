"""Places in a compose file where something can be put in, so that it stays YAML and says just that."""

from __future__ import annotations

import re

from msgspec import Struct

from diagnose.model.compose import Spot
from diagnose.parse import compose_line
from diagnose.parse import yaml_tree as tree
from diagnose.parse.yaml_tree import Node, Pair, Scalar

HOST_GATEWAY = ("host.docker.internal", "host-gateway")
_LONGEST = 400
"""Characters of a line that is shown whole."""
_BARE = r"""\s*(["']?){}\1\s*:(?:\s+[&!]\S+)*\s*(?:\s#.*)?"""


class Source:
    """The lines of a file; `lines` is None where no edit by line numbers is safe."""

    def __init__(self, path: str, lines: tuple[str, ...] | None) -> None:
        self.path = path
        self._lines = lines

    def line(self, number: int) -> str | None:
        """The line but for its comment, the first is 1; None: it may hold a secret, or has no number to edit by."""
        if self._lines is None or not 1 <= number <= len(self._lines):
            return None
        line = self._lines[number - 1]
        return compose_line.shown(line) if len(line) <= _LONGEST and line.isprintable() else None

    def raw(self, number: int) -> str | None:
        """The line as it is, to look for something in it; never to be kept."""
        return self._lines[number - 1] if self._lines and 1 <= number <= len(self._lines) else None

    def spot(self, number: int, before: str, after: str) -> Spot | None:
        """The spot, where the line may be shown."""
        return Spot(self.path, number, before, after) if self.line(number) is not None else None


def piece_spot(
    source: Source, scalar: Scalar, start: int, end: int, *, quoted: bool = False, behind: str = ""
) -> Spot | None:
    """These characters of a scalar of one line; `behind` follows the new piece.

    `quoted`: the whole scalar gets quotes where it has none, for a piece that would need them.
    """
    found = _content(source, scalar)
    if found is None:
        return None
    line, first, last = found
    mark = '"' if quoted and not scalar.style else ""
    before = f"{line[:first]}{mark}{line[first : first + start]}"
    after = f"{behind}{line[first + end : last]}{mark}{line[last:]}"
    return source.spot(scalar.start.line, before, after)


def scalar_spot(source: Source, node: Node) -> Spot | None:
    """The text of a whole scalar, between its quotes."""
    return piece_spot(source, node, 0, len(node.value)) if isinstance(node, Scalar) else None


def _content(source: Source, scalar: Scalar) -> tuple[str, int, int] | None:
    """The line, and the columns where the scalar's text begins and ends, if the line holds it as it is."""
    line = source.line(scalar.start.line)
    if line is None or scalar.end.line != scalar.start.line or scalar.style in ("|", ">"):
        return None
    edge = 1 if scalar.style else 0
    first, last = scalar.start.column + edge, scalar.end.column - edge
    return (line, first, last) if line[first:last] == scalar.value else None


def adds_entry(source: Source, service: Pair, own: Pair | None, key: str) -> Spot | None:
    """Where an entry, in double quotes, goes in front of a service's list of this name."""
    if own is None:
        start = _new_key(source, service)
        return _listed(source, start, key) if start else None
    if own.inherited:
        return None
    match own.value:
        case tree.Sequence(flow=True) as listed:
            return _in_flow(source, listed, bool(listed.items), '"', '"')
        case tree.Sequence() as listed:
            return _under(source, own.key, listed.start.column, '- "', '"')
        case Scalar(null=True):
            return _under(source, own.key, own.key.start.column + 2, '- "', '"')
        case _:
            return None


def adds_host(source: Source, service: Pair, own: Pair | None) -> tuple[Spot | None, str]:
    """Where host.docker.internal goes into the service's extra_hosts, and in which form."""
    name, value = HOST_GATEWAY
    if own is not None and not own.inherited and isinstance(own.value, tree.Mapping):
        piece = f'{name}: "{value}"'
        if own.value.flow:
            return _in_flow(source, own.value, bool(own.value.pairs), "", ""), piece
        return _under(source, own.key, own.value.start.column, "", ""), piece
    return adds_entry(source, service, own, "extra_hosts"), f"{name}:{value}"


class _Start(Struct, frozen=True):
    """Where a new key of a service can stand: below a line, or first in a flow mapping."""

    line: int
    before: str
    after: str
    indent: str = ""
    flow: bool = False


def _listed(source: Source, start: _Start, key: str) -> Spot | None:
    """A new list with one entry."""
    if start.flow:
        return source.spot(start.line, f'{start.before}{key}: ["', f'"]{start.after}')
    return source.spot(start.line, f'{start.before}{key}:\n{start.indent}  - "', f'"{start.after}')


def _new_key(source: Source, service: Pair) -> _Start | None:
    if service.inherited:
        return None
    match service.value:
        case tree.Mapping(flow=True) as mapping:
            line, at = source.line(mapping.start.line), mapping.start.column + 1
            if line is None:
                return None
            return _Start(mapping.start.line, line[:at], (", " if mapping.pairs else "") + line[at:], flow=True)
        case tree.Mapping() as mapping:
            neighbour = _best_neighbour(source, mapping)
            found = _below(source, neighbour, mapping.start.column) if neighbour else None
            return found or _below(source, service.key, mapping.start.column)
        case Scalar(null=True):
            return _below(source, service.key, service.key.start.column + 2)
        case _:
            return None


def _best_neighbour(source: Source, mapping: tree.Mapping) -> Scalar | None:
    """The image's key, or the build's, if its value ends on the same line: people look for the ports below it."""
    for key, value in mapping.pairs:
        single = isinstance(value, Scalar) and value.end.line == key.start.line and value.style not in ("|", ">")
        alone = source.raw(key.start.line)
        if key.value in ("image", "build") and single and alone and alone[: key.start.column].isspace():
            return key
    return None


def _below(source: Source, key: Scalar, column: int) -> _Start | None:
    """Under the line of a key, which holds all of its value or none of it."""
    line = source.line(key.start.line)
    if line is None or not (_is_bare(line, key) or key.value in ("image", "build")):
        return None
    indent = " " * column
    return _Start(key.start.line, f"{line}\n{indent}", "", indent)


def _is_bare(line: str, key: Scalar) -> bool:
    return bool(re.fullmatch(_BARE.format(re.escape(key.value)), line))


def _under(source: Source, key: Scalar, column: int, before: str, after: str) -> Spot | None:
    """First below a key whose value begins on a later line."""
    line = source.line(key.start.line)
    if line is None or not _is_bare(line, key):
        return None
    return source.spot(key.start.line, f"{line}\n{' ' * column}{before}", after)


def _in_flow(source: Source, node: tree.Sequence | tree.Mapping, filled: bool, before: str, after: str) -> Spot | None:
    """First behind the bracket."""
    line, at = source.line(node.start.line), node.start.column + 1
    if line is None:
        return None
    return source.spot(node.start.line, f"{line[:at]}{before}", f"{after}{', ' if filled else ''}{line[at:]}")
