"""Random rule sets, really loaded: what netdiag says of them is what a connect meets there.

200 of them, the same at each run, are part of the lab. NETDIAG_FUZZ sets how many and makes them others at every run;
one that fails is then kept, in its simplest form, among the seeds.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.fidelity.child import Children
from tests.fidelity.generate import rule_sets
from tests.fidelity.judgement import faults
from tests.fidelity.rulesets import RuleSet
from tests.fidelity.trial import Trial

pytestmark = [pytest.mark.lab, pytest.mark.fuzz]

SEEDS = Path(__file__).with_name("seeds")
FUZZING = "NETDIAG_FUZZ" in os.environ
COUNT = int(os.environ.get("NETDIAG_FUZZ", "200"))
TOGETHER = 10
"""Rule sets for one run of hypothesis: behind its tenth valid example it varies those it had, instead of new ones."""
FIRST = int.from_bytes(os.urandom(4), "big") if FUZZING else 0
"""Number of the first run: the same rule sets each time, except where they are to be new."""


def told_truly(rules: RuleSet, trial: Trial, tally: Counter[str]) -> None:
    """Fails with everything that is wrong about the answer, and the rule set as a person would load it."""
    if trial.refused:
        tally["refused by their own tool"] += 1
        return
    tally["rule sets"] += 1
    found = list(faults(rules, trial, tally))
    assert not found, "\n".join([*found, rules.text()])


@pytest.mark.parametrize("kept", sorted(SEEDS.glob("*.json")), ids=lambda path: path.stem)
def test_a_rule_set_that_failed_once_is_told_truly(kept: Path, children: Children, tally: Counter[str]) -> None:
    rules = msgspec.json.decode(kept.read_bytes(), type=RuleSet)
    told_truly(rules, next(children.try_out([rules])), tally)


@pytest.mark.parametrize("number", range(FIRST, FIRST + COUNT // TOGETHER))
def test_random_rule_sets_are_told_truly(number: int, children: Children, tally: Counter[str]) -> None:
    generated: list[RuleSet] = []
    _with_each(number, generated.append, Phase.generate)
    for rules, trial in zip(generated, children.try_out(generated), strict=True):
        try:
            told_truly(rules, trial, tally)
        except AssertionError as error:
            if FUZZING:
                _keep_the_simplest(number, children, rules, str(error))
            raise


def _with_each(number: int, use: Callable[[RuleSet], None], *phases: Phase) -> None:
    """The rule sets of this number, as hypothesis makes them."""

    @seed(number)
    @settings(
        max_examples=TOGETHER,
        deadline=None,
        database=None,
        phases=phases,
        report_multiple_bugs=False,
        print_blob=False,
        suppress_health_check=list(HealthCheck),
    )
    @given(rule_sets())
    def run(rules: RuleSet) -> None:
        use(rules)

    run()


def _keep_the_simplest(number: int, children: Children, rules: RuleSet, why: str) -> None:
    """Has hypothesis look for the simplest rule set that fails; this one, where it fails no second time."""
    failed = [(rules, why)]

    def again(simpler: RuleSet) -> None:
        try:
            told_truly(simpler, next(children.try_out([simpler])), Counter())
        except AssertionError as error:
            failed.append((simpler, str(error)))
            raise

    try:
        _with_each(number, again, Phase.generate, Phase.shrink)
    except AssertionError:
        pass  # the test itself tells the failure
    _keep(*failed[-1])  # hypothesis ends with the simplest that it found


def _keep(rules: RuleSet, why: str) -> None:
    line = why.partition("\n")[0]
    name = hashlib.sha256(rules.text().encode()).hexdigest()[:10]
    data = msgspec.json.format(msgspec.json.encode(msgspec.structs.replace(rules, why=line)), indent=1)
    SEEDS.joinpath(f"{line.partition(':')[0]}-{name}.json").write_bytes(data + b"\n")


def test_nearly_every_generated_rule_set_is_taken_by_its_own_tool(children: Children, tally: Counter[str]) -> None:
    assert tally["refused by their own tool"] <= 0.05 * tally["rule sets"]
