"""Random rule sets, really loaded: what netdiag says of them is what a connect meets there.

NETDIAG_FUZZ sets how many; then they are others at every run, and one that fails is kept among the seeds.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, seed, settings

from tests.fidelity.child import Child
from tests.fidelity.generate import rule_sets
from tests.fidelity.judgement import faults
from tests.fidelity.rulesets import RuleSet

pytestmark = pytest.mark.fuzz

SEEDS = Path(__file__).with_name("seeds")
FUZZING = "NETDIAG_FUZZ" in os.environ
COUNT = int(os.environ.get("NETDIAG_FUZZ", "200"))
TOGETHER = 10
"""Rule sets for one run of hypothesis: behind its tenth valid example it varies those it had, instead of new ones."""
FIRST = int.from_bytes(os.urandom(4), "big") if FUZZING else 0
"""Number of the first run: the same rule sets each time, except where they are to be new."""


def told_truly(rules: RuleSet, child: Child, tally: Counter[str]) -> None:
    """Fails with everything that is wrong about the answer, and the rule set as a person would load it."""
    trial = child.try_out(rules)
    if trial.refused:
        tally["refused by their own tool"] += 1
        return
    tally["rule sets"] += 1
    found = list(faults(rules, trial, tally))
    assert not found, "\n".join([*found, rules.text()])


@pytest.mark.parametrize("kept", sorted(SEEDS.glob("*.json")), ids=lambda path: path.stem)
def test_a_rule_set_that_failed_once_is_told_truly(kept: Path, child: Child, tally: Counter[str]) -> None:
    told_truly(msgspec.json.decode(kept.read_bytes(), type=RuleSet), child, tally)


@pytest.mark.parametrize("number", range(FIRST, FIRST + COUNT // TOGETHER))
def test_random_rule_sets_are_told_truly(number: int, child: Child, tally: Counter[str]) -> None:
    failed: list[tuple[RuleSet, str]] = []

    @seed(number)
    @settings(
        max_examples=TOGETHER,
        deadline=None,
        database=None,
        report_multiple_bugs=False,
        print_blob=False,
        suppress_health_check=list(HealthCheck),
    )
    @given(rule_sets())
    def run(rules: RuleSet) -> None:
        try:
            told_truly(rules, child, tally)
        except AssertionError as error:
            failed.append((rules, str(error).partition("\n")[0]))
            raise

    try:
        run()
    finally:
        if failed and FUZZING:
            _keep(*failed[-1])  # hypothesis ends with the simplest that it found


def _keep(rules: RuleSet, why: str) -> None:
    name = hashlib.sha256(rules.text().encode()).hexdigest()[:10]
    data = msgspec.json.format(msgspec.json.encode(msgspec.structs.replace(rules, why=why)), indent=1)
    SEEDS.joinpath(f"{why.partition(':')[0]}-{name}.json").write_bytes(data + b"\n")


def test_nearly_every_generated_rule_set_is_taken_by_its_own_tool(child: Child, tally: Counter[str]) -> None:
    assert tally["refused by their own tool"] <= 0.05 * tally["rule sets"]
