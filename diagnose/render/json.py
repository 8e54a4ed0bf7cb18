"""The report as scripts read it, and its JSON Schema, generated from the types."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from diagnose.model.report import Report, Reports


def render_json(reports: Sequence[Report]) -> str:
    """One object for one target, the list under one roof for several."""
    content = reports[0] if len(reports) == 1 else Reports(reports=tuple(reports))
    return msgspec.json.format(msgspec.json.encode(content), indent=2).decode() + "\n"


def report_schema() -> str:
    """The JSON Schema (2020-12) of what render_json gives."""
    schema: dict[str, Any] = msgspec.json.schema(Report | Reports)
    return msgspec.json.format(msgspec.json.encode({"$schema": _DIALECT, **schema}), indent=2).decode() + "\n"


_DIALECT = "https://json-schema.org/draft/2020-12/schema"
