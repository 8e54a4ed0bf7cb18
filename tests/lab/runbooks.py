"""Runbooks carried out on a machine of the lab."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import jsonschema

from diagnose.runbook.schema import result_schema
from tests.lab.machine import ROOT, Machine

EXIT_CODES = {"works": 0, "fix": 1, "escalate": 3}
Result = dict[str, Any]


@cache
def schema() -> Any:
    """Of a result."""
    return json.loads(result_schema())


def carry_out(machine: Machine, name: str, *arguments: str, uid: int = ROOT, **inputs: object) -> Result:
    """The result as scripts read it, held against its schema and its exit code."""
    given = [word for key, value in inputs.items() for word in ("--set", f"{key}={value}")]
    answer = machine.netdiag("runbook", "run", name, *given, *arguments, "--json", uid=uid)
    assert answer.stdout, f"{answer.argv}: exit {answer.exit_code}, {answer.stderr!r}"
    result: Result = json.loads(answer.stdout)
    jsonschema.validate(result, schema())
    assert EXIT_CODES[result["end"]] == answer.exit_code, result
    return result


def causes(result: Result) -> list[str | None]:
    """The code of each diagnosis on the path."""
    reports = [one["report"] for one in result["path"] if one.get("report")]
    return [report["root_cause"] and report["root_cause"]["code"] for report in reports]


def steps(result: Result) -> list[str]:
    """The path."""
    return [one["step"] for one in result["path"]]


def first_commands(result: Result) -> list[dict[str, Any]]:
    """Of the first remedy of the last diagnosis."""
    reports = [one["report"] for one in result["path"] if one.get("report")]
    found: list[dict[str, Any]] = reports[-1]["root_cause"]["remedies"][0]["commands"]
    return found
