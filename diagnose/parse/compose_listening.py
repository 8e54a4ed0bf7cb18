"""The command of a service: where it tells the server to listen on loopback, or leaves it to a default that does."""

from __future__ import annotations

import re
from collections.abc import Iterator

from diagnose.model.compose import Listening, Spot
from diagnose.parse.compose_edit import Source, piece_spot
from diagnose.parse.compose_environment import LOOPBACK
from diagnose.parse.yaml_tree import Mapping, Node, Pair, Scalar, Sequence

_OPTION = re.compile(
    r"--?(?:host|hostname|bind|bind-address|address|addr|listen|listen-address|listen-host|ip|interface|dev-addr"
    r"|http-address|http-host|server\.address|server-name|b|H|a|l|S)|runserver",
    re.ASCII,
)
_ADDRESS = re.compile(rf"({LOOPBACK})(?::\d{{1,5}})?/?", re.IGNORECASE)
_WORD = re.compile(r"""[^\s"',]+""")
_SHELL = re.compile(r"[;&|<>$`\\(){}#\"']")
_DEFAULTS = (
    (re.compile(r"(?:\S*/)?uvicorn\s"), " --host 0.0.0.0"),
    (re.compile(r"(?:python3?\s+-m\s+|\S*/)?flask\s+(?:\S+\s+)*run\b"), " --host=0.0.0.0"),
    (re.compile(r"(?:npx\s+|\S*/)?vite(?:\s+(?:dev|serve|preview))?(?=\s+-|$)"), " --host 0.0.0.0"),
    (re.compile(r"(?:npx\s+|\S*/)?ng\s+serve\b"), " --host 0.0.0.0"),
    (re.compile(r"(?:npx\s+|\S*/)?(?:webpack\s+serve|webpack-dev-server)\b"), " --host 0.0.0.0"),
    (re.compile(r"(?:bundle\s+exec\s+|\S*/)?rails\s+(?:s|server)\b"), " -b 0.0.0.0"),
    (re.compile(r"(?:bundle\s+exec\s+|\S*/)?jekyll\s+(?:s|serve)\b"), " --host 0.0.0.0"),
    (re.compile(r"(?:\S*/)?hugo\s+(?:server|serve)\b"), " --bind 0.0.0.0"),
    (re.compile(r"(?:\S*/)?jupyter[\s-](?:lab|notebook|server)\b"), " --ip=0.0.0.0"),
    (re.compile(r"(?:\S*/)?gunicorn\s"), " --bind 0.0.0.0:8000"),
    (re.compile(r"(?:python3?\s+)?(?:\S*/)?manage\.py\s+runserver$"), " 0.0.0.0:8000"),
    (re.compile(r"(?:\S*/)?mkdocs\s+serve\b"), " --dev-addr=0.0.0.0:8000"),
)
"""Servers that listen on loopback unless they are told otherwise, and how each is told (their own --help)."""


def in_command(source: Source, command: Pair) -> Iterator[Listening]:
    """The loopback addresses of its options; where there is none, the option that its server lacks."""
    if command.inherited:
        return
    found = list(_given(source, command.value))
    yield from found or _lacking(source, command.value)


def _given(source: Source, node: Node) -> Iterator[Listening]:
    previous = ""
    for line, word, start in _words(source, node):
        option, equals, value = word.partition("=")
        given = value if equals and _OPTION.fullmatch(option) else word if _OPTION.fullmatch(previous) else ""
        address = _ADDRESS.fullmatch(given)
        if address:
            begin = start + len(word) - len(given)
            text = source.line(line)
            if text is not None:
                end = begin + len(address[1])
                yield Listening(Spot(source.path, line, text[:begin], text[end:]), "0.0.0.0")
        previous = word


def _words(source: Source, node: Node) -> Iterator[tuple[int, str, int]]:
    """Line, word, and the column where it begins, in the order of the command."""
    match node:
        case Scalar():
            for number in range(node.start.line, node.end.line + 1):
                text = source.raw(number) or ""
                first = node.start.column if number == node.start.line else 0
                last = node.end.column if number == node.end.line else len(text)
                yield from ((number, one[0], one.start()) for one in _WORD.finditer(text, first, last))
        case Sequence(items=items):
            for item in items:
                yield from _words(source, item) if isinstance(item, Scalar) else ()
        case Mapping():
            return


def _lacking(source: Source, node: Node) -> Iterator[Listening]:
    """A plain command of one server, without any option for the address."""
    if not isinstance(node, Scalar) or _SHELL.search(node.value):
        return
    command = node.value.strip()
    if any(_OPTION.fullmatch(word.partition("=")[0]) and word != "runserver" for word in command.split()):
        return
    for program, option in _DEFAULTS:
        if program.match(f"{command} " if program.pattern.endswith(r"\s") else command):
            spot = piece_spot(source, node, len(node.value), len(node.value))
            if spot:
                yield Listening(spot, option)
            return
