"""Recorded machines, each diagnosed again without touching this one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from diagnose.cli import app

MACHINES = Path(__file__).parents[1] / "fixtures" / "machines"
RECORDED = sorted(path.parent for path in MACHINES.glob("*/snapshot.json"))


@pytest.mark.parametrize("machine", RECORDED, ids=lambda path: path.name)
def test_a_recorded_machine_is_diagnosed_as_when_it_was_recorded(machine: Path) -> None:
    result = CliRunner().invoke(app, ["replay", "--json", str(machine / "snapshot.json")])
    report = json.loads(result.stdout)
    assert "No command is given for it" not in result.stdout, "a remedy's command is of no grammar that is known"
    cause = report["root_cause"]
    assert {
        "verdict": report["verdict"],
        "root_cause": cause and cause["code"],
        "confidence": cause and cause["confidence"],
        "exit_code": result.exit_code,
        "findings": [finding["code"] for finding in report["findings"]],
    } == json.loads((machine / "expected.json").read_text())


@pytest.mark.parametrize("machine", RECORDED, ids=lambda path: path.name)
def test_a_root_cause_is_never_without_a_remedy(machine: Path) -> None:
    report = json.loads(CliRunner().invoke(app, ["replay", "--json", str(machine / "snapshot.json")]).stdout)
    cause = report["root_cause"]
    assert cause is None or cause["remedies"], f"{cause['code']}: {cause['title']}"


def test_every_recorded_machine_says_how_it_was_recorded() -> None:
    assert all("Linux" in (path / "recorded.txt").read_text() for path in RECORDED)
