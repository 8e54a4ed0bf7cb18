"""Every cause is seen on a recorded machine, and each check is seen clear on another."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from checks import CAUSES, CHECKS
from diagnose.engine import diagnose
from diagnose.model.report import CheckOutcome
from diagnose.recording import decode

MACHINES = Path(__file__).parents[2] / "fixtures" / "machines"
EXPECTED = [json.loads(path.read_text()) for path in sorted(MACHINES.glob("*/expected.json"))]
REPORTS = [
    diagnose(snapshot, CHECKS)
    for path in sorted(MACHINES.glob("*/snapshot.json"))
    for snapshot in decode(path.read_bytes())
]


@pytest.mark.parametrize("code", [cause.code for cause in CAUSES])
def test_a_recorded_machine_shows_the_cause(code: str) -> None:
    assert any(code in machine["findings"] for machine in EXPECTED)


@pytest.mark.parametrize("code", [cause.code for cause in CAUSES])
def test_on_another_recorded_machine_its_check_is_clear(code: str) -> None:
    check = code.partition("/")[0]
    clear = [
        one
        for one in REPORTS
        if all(finding.code != code for finding in one.findings)
        and any(line.name == check and line.outcome is CheckOutcome.CLEAR for line in one.checks)
    ]
    assert clear


def test_the_causes_of_recorded_machines_are_all_in_the_catalogue() -> None:
    found = {code for machine in EXPECTED for code in machine["findings"]}
    assert found - {cause.code for cause in CAUSES} == set()
