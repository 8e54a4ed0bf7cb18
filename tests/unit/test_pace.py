"""Deadlines that grow with the time that netdiag takes to load."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

DEADLINES = """
from diagnose import pace
pace.measure({seconds})
from diagnose.collect import case, containers, deep
from diagnose.probes import connect, witness
print(case.PROBE_SECONDS, deep.FIREWALL_SECONDS, witness.TRACE_WAIT, connect.CLOSE_GRACE, case.LOCAL_TIMEOUT)
parts = case.PROBE_SECONDS + containers._ENGINE_SECONDS
print(containers._SECONDS > parts)
"""


@pytest.mark.parametrize(
    ("seconds", "deadlines"),
    [(0.01, "2.0 3.0 0.1 0.01 1.0"), (1.5, "20.0 30.0 1.0 0.1 1.0"), (60.0, "40.0 60.0 2.0 0.2 1.0")],
    ids=["quick", "ten times slower", "bounded"],
)
def test_a_slow_machine_gets_longer_for_its_own_work_and_others_no_longer_to_answer(
    seconds: float, deadlines: str
) -> None:
    told = subprocess.run(
        [sys.executable, "-c", DEADLINES.format(seconds=seconds)],
        capture_output=True,
        text=True,
        check=True,
        cwd=os.path.dirname(os.path.dirname(os.path.dirname(__file__))),
    )
    assert told.stdout.splitlines() == [deadlines, "True"]
