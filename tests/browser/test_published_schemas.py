"""SARIF and JUnit against the schemas that their owners publish, for every recorded machine."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import jsonschema
import pytest
import xmlschema

from checks import CAUSES, CHECKS
from diagnose.engine import diagnose
from diagnose.model.report import Report
from diagnose.recording import decode
from diagnose.render.junit import render_junit
from diagnose.render.sarif import render_sarif

pytestmark = [pytest.mark.browser]

SCHEMAS = Path(sys.prefix) / "schemas"
MACHINES = Path(__file__).resolve().parents[2] / "fixtures" / "machines"
CODES = {cause.code: cause for cause in CAUSES}


def published(name: str) -> Path:
    """The schema's file; `make browser` fetches it."""
    path = SCHEMAS / name
    if not path.exists():
        reason = f"{name} is not here (make browser fetches it)"
        pytest.fail(reason) if os.environ.get("NETDIAG_LAB") == "required" else pytest.skip(reason)
    return path


@pytest.fixture(scope="module")
def reports() -> list[Report]:
    """What every recorded machine comes to."""
    files = sorted(MACHINES.glob("*/snapshot.json"))
    return [diagnose(snapshot, CHECKS) for file in files for snapshot in decode(file.read_bytes())]


def test_sarif_is_valid_by_the_schema_of_oasis(reports: list[Report]) -> None:
    schema = json.loads(published("sarif-2.1.0.json").read_text(encoding="utf-8-sig"))
    checker = jsonschema.validators.validator_for(schema)(schema, format_checker=jsonschema.FormatChecker())
    document = json.loads(render_sarif(reports, CODES))
    assert len(document["runs"][0]["results"]) >= len(reports)
    assert not [error.message for error in checker.iter_errors(document)]


def test_junit_is_valid_by_the_schema_of_jenkins(reports: list[Report], tmp_path: Path) -> None:
    schema = xmlschema.XMLSchema(str(published("junit-10.xsd")))
    file = tmp_path / "junit.xml"
    file.write_text(render_junit(reports), encoding="utf-8")
    schema.validate(str(file))
