"""The JSON Schema of a runbook, from the same words that parse.py reads by."""

from __future__ import annotations

from typing import Any

import msgspec

from diagnose.runbook.model import SCHEMA
from diagnose.runbook.parse import (
    ATTACHABLE,
    CONFIDENCES,
    INPUT,
    LONGEST_GLOB,
    LONGEST_NAME,
    MOST_STEPS,
    NAME,
    OUTCOMES,
    STEP,
    VERDICTS,
)
from diagnose.runbook.result import Result

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_TEXT = {"type": "string", "minLength": 1}
_PLACEHOLDERS = "{input}, {verdict}, {exit_code}, {root_cause.code|title|explanation}, {finding.code|title|...}"


def _some(item: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [item, {"type": "array", "items": item, "minItems": 1}]}


def _one_of(names: tuple[str, ...]) -> dict[str, Any]:
    return _some({"enum": list(names)})


def _object(properties: dict[str, Any], *required: str, about: str = "") -> dict[str, Any]:
    described = {"description": about} if about else {}
    return {
        **described,
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


_GLOBS = _some({**_TEXT, "maxLength": LONGEST_GLOB})
_THEN = {"description": "A step's id, or an end: works, fix (a cause with its remedies), escalate.", **_TEXT}
_SAY = {"description": f"What the person is told; it may have {_PLACEHOLDERS}.", **_TEXT}
_WHEN = {
    **_object(
        {
            "code": {"description": "Patterns of the root cause's code, such as refused/*.", **_GLOBS},
            "finding": {"description": "Patterns of the code of any finding.", **_GLOBS},
            "verdict": _one_of(VERDICTS),
            "confidence": {
                "description": "Of the root cause; with finding and without code, of that finding.",
                **_one_of(CONFIDENCES),
            },
            "check": {"type": "object", "additionalProperties": _one_of(OUTCOMES), "minProperties": 1},
            "not_checked": {"description": "Patterns of facts that were not checked.", **_GLOBS},
        },
        about="Keys are ANDed, the values of one key ORed.",
    ),
    "minProperties": 1,
}
_WITH = _object(
    {
        "bind": {"type": "boolean"},
        "from": {"description": "container:NAME, pid:N or netns:NAME; it may have {input}.", **_TEXT},
        "check": _some(_TEXT),
        "skip": _some(_TEXT),
        "timeout": {"type": "number", "minimum": 0.01, "maximum": 3600},
        "trace": {"type": "boolean"},
    },
    about="As the options of netdiag run.",
)
_STEP_ID = {"type": "string", "pattern": f"^{STEP.pattern}$", "maxLength": LONGEST_NAME}
_RUN = _object(
    {
        "id": _STEP_ID,
        "run": {"description": "The target of a diagnosis; it may have {input}.", "type": ["string", "integer"]},
        "with": _WITH,
        "branches": {
            "description": "The first that fits is taken; where none fits, the runbook escalates and says so.",
            "type": "array",
            "minItems": 1,
            "items": {
                "anyOf": [
                    _object({"when": _WHEN, "say": _SAY, "then": _THEN}, "when", "then"),
                    _object({"otherwise": {"const": True}, "say": _SAY, "then": _THEN}, "otherwise", "then"),
                ]
            },
        },
    },
    "id",
    "run",
    "branches",
    about="A diagnosis.",
)
_ASK = _object(
    {
        "id": _STEP_ID,
        "ask": {"description": "A question to the person; it may have {input}.", **_TEXT},
        "choices": {
            "type": "object",
            "minProperties": 1,
            "additionalProperties": {"anyOf": [_THEN, _object({"then": _THEN, "say": _SAY}, "then")]},
        },
    },
    "id",
    "ask",
    "choices",
    about="A question.",
)
_RUNBOOK = _object(
    {
        "schema": {"const": SCHEMA},
        "name": {"type": "string", "pattern": f"^{NAME.pattern}$", "maxLength": LONGEST_NAME},
        "title": _TEXT,
        "when": {"description": "Markdown: how a person recognises the case.", **_TEXT},
        "inputs": {
            "type": "object",
            "propertyNames": {"pattern": f"^{INPUT.pattern}$", "maxLength": LONGEST_NAME},
            "additionalProperties": _object({"ask": _TEXT, "default": {"type": ["string", "number"]}}, "ask"),
        },
        "steps": {"type": "array", "minItems": 1, "maxItems": MOST_STEPS, "items": {"anyOf": [_RUN, _ASK]}},
        "escalate": _object({"to": _TEXT, "say": _SAY, "attach": _one_of(ATTACHABLE)}),
    },
    "schema",
    "name",
    "title",
    "steps",
    about="A runbook that netdiag carries out; netdiag runbook check also looks at codes, steps and placeholders.",
)


def runbook_schema() -> str:
    """Of the file (2020-12)."""
    return _written({"$schema": _DIALECT, "title": SCHEMA, **_RUNBOOK})


def result_schema() -> str:
    """Of what `runbook run --format json` prints (2020-12)."""
    (shape,), components = msgspec.json.schema_components((Result,), ref_template="#/$defs/{name}")
    return _written({"$schema": _DIALECT, **shape, "$defs": components})


def _written(schema: dict[str, Any]) -> str:
    return msgspec.json.format(msgspec.json.encode(schema), indent=2).decode() + "\n"
