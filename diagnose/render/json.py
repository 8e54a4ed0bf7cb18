"""The report as scripts read it, and its JSON Schema, generated from the types."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from diagnose.model.report import Report, Reports


def render_json(reports: Sequence[Report]) -> str:
    """One object for one target, the list under one roof for several."""
    content = reports[0] if len(reports) == 1 else Reports(reports=tuple(reports))
    return harmless(msgspec.json.format(msgspec.json.encode(content), indent=2).decode()) + "\n"


def render_jsonl(reports: Sequence[Report]) -> str:
    """One object a line, one line a target (JSON Lines): each is a whole report."""
    return "".join(f"{harmless(msgspec.json.encode(report).decode())}\n" for report in reports)


def harmless(text: str) -> str:
    """The same JSON, with what would act on a terminal (DEL, C1 controls, bidi overrides ...) written as escapes."""
    if text.isascii() and "\x7f" not in text:
        return text
    return "".join(c if c.isprintable() or c == "\n" else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    units = character.encode("utf-16-be")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))


def report_schema() -> str:
    """The JSON Schema (2020-12) of what render_json gives."""
    shapes, components = msgspec.json.schema_components((Report, Reports), ref_template="#/$defs/{name}")
    schema = {"$schema": _DIALECT, "anyOf": list(shapes), "$defs": components}
    return msgspec.json.format(msgspec.json.encode(schema), indent=2).decode() + "\n"


_DIALECT = "https://json-schema.org/draft/2020-12/schema"
