"""Texts with placeholders: read once, filled in one pass, so that a value is never read as a placeholder."""

from __future__ import annotations

import re
from collections.abc import Callable

from msgspec import Struct

from diagnose.runbook.model import Slot, Template

FIELDS = ("code", "title", "severity", "confidence", "explanation")
"""Of a finding."""
OF_REPORT = (
    "root_cause.code",
    "root_cause.title",
    "root_cause.explanation",
    *(f"finding.{field}" for field in FIELDS),
    "verdict",
    "exit_code",
)
"""Placeholders that a diagnosis fills in; `finding` is the one that the branch has met, else the first."""
RESERVED = ("root_cause", "finding", "verdict", "exit_code")

_TOKEN = re.compile(r"\{\{|\}\}|\{([^{}\n]*)\}|[{}]")


class Brace(Struct, frozen=True):
    """A brace that belongs to no placeholder, by its offset in the text."""

    offset: int


class Piece(Struct, frozen=True):
    """A part of a filled text."""

    text: str
    value: bool = False
    """It was given by the person who runs the runbook: data, shown in quotes."""


Said = tuple[Piece, ...]


def read_template(text: str) -> tuple[Template, tuple[tuple[str, int], ...], tuple[Brace, ...]]:
    """The template, its placeholders with their offsets, and the braces that are wrong; {{ and }} are plain braces."""
    parts: list[str | Slot] = []
    slots: list[tuple[str, int]] = []
    braces: list[Brace] = []
    end = 0
    for token in _TOKEN.finditer(text):
        parts.append(text[end : token.start()])
        end = token.end()
        if token[1] is not None:
            parts.append(Slot(token[1]))
            slots.append((token[1], token.start()))
        elif len(token[0]) == 2:
            parts.append(token[0][0])
        else:
            braces.append(Brace(token.start()))
    parts.append(text[end:])
    return Template(tuple(part for part in parts if part != "")), tuple(slots), tuple(braces)


def filled(template: Template, value_of: Callable[[str], Piece]) -> Said:
    """The text with its values, each a piece of its own."""
    return tuple(Piece(part) if isinstance(part, str) else value_of(part.name) for part in template.parts)


def plain(said: Said) -> str:
    """The text alone, with values as they are: for what is a target, or is never shown."""
    return "".join(piece.text for piece in said)


def quoted(said: Said) -> str:
    """The text for people: a value stands between quotes, and nothing in it ends the line or acts on a terminal."""
    return "".join(repr(piece.text) if piece.value else piece.text for piece in said)
