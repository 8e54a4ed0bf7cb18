"""Rule sets of many thousands, and such as never hold still: the right rule, or the word that it could not be told."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from diagnose.model.fact import Fact, Known, Reason, Unknown
from diagnose.model.firewall import Shadow, Walk
from diagnose.parse import nfnetlink, nft
from diagnose.parse.nft import ChainKey, Kind, TableKey
from diagnose.probes.shadow import legacy, look, looking, netfilter
from diagnose.probes.shadow.netfilter import Writer
from tests.lab.many_rules import RULES, iptables_table, nft_table
from tests.lab_probes.test_shadow import INPUT, PORT, V4, decided, handle, in_namespace, pytestmark, sh
from tests.lab_probes.test_shadow import nft as load

__all__ = ["pytestmark"]

UNHURRIED = 120.0
"""Seconds: these tests are about which rule is named, whatever else the machine is busy with."""


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rehearsals are begun however long the copy took."""
    monkeypatch.setattr(looking, "_PATIENCE", UNHURRIED)


def walked() -> Walk:
    """The walk, which is sure and whose first remedy mended the copy."""
    fact = look([V4], UNHURRIED)
    assert isinstance(fact, Known), fact
    (walk,) = fact.value.walks
    assert (walk.verdict, walk.doubts, walk.depends, fact.value.uncarried) == ("drop", (), (), ())
    assert fact.value.rules >= RULES
    assert isinstance(walk.rehearsals, Known), walk.rehearsals
    assert walk.rehearsals.value[0].mended
    assert walk.rehearsals.value[0].remedy is not None
    assert walk.rehearsals.value[0].remedy.undo
    return walk


@pytest.mark.usefixtures("unhurried")
@pytest.mark.parametrize("intervals", [False, True], ids=["addresses", "ranges"])
@in_namespace
def test_a_drop_behind_ten_thousand_rules_and_a_long_list_is_named(intervals: bool) -> None:
    sh("nft -f -", nft_table(PORT, intervals=intervals))
    found = walked()
    assert decided(found) == ("nft", "filter", "input", f"tcp dport {PORT} drop")
    assert found.decider
    assert found.decider.handle == handle(f"tcp dport {PORT} drop")


@pytest.mark.usefixtures("unhurried")
@pytest.mark.parametrize("tool", ["iptables-nft", "iptables-legacy"])
@in_namespace
def test_a_drop_behind_ten_thousand_rules_of_iptables_is_named_by_its_line(tool: str) -> None:
    sh(f"{tool}-restore", iptables_table(PORT))
    found = walked()
    assert decided(found) == (tool, "filter", "INPUT", f"-p tcp -m tcp --dport {PORT} -j DROP")
    assert found.decider
    assert found.decider.line == RULES + 1


# ------ more than there is time or room for


LOADS: dict[str, Callable[[], object]] = {
    "nft": lambda: sh("nft -f -", nft_table(PORT, 30_000, 1)),
    "iptables-legacy": lambda: sh("iptables-legacy-restore", iptables_table(PORT, 30_000)),
}


@pytest.mark.parametrize("tool", LOADS)
@in_namespace
def test_rules_too_many_for_the_deadline_are_told_so_and_never_walked_by_half(tool: str) -> None:
    LOADS[tool]()
    for deadline in (0.02, 0.05, 0.1):
        begun = time.monotonic()
        fact = look([V4], deadline)
        assert isinstance(fact, Unknown)
        assert fact.reason is Reason.DEADLINE
        # an order of magnitude under what it takes, and far above what a busy machine adds
        assert time.monotonic() - begun < 5.0


@pytest.mark.parametrize("tool", LOADS)
@in_namespace
def test_more_rules_than_are_read_at_most_are_unparsable(tool: str) -> None:
    LOADS[tool]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(netfilter, "_MANY", 1 << 20)
        patch.setattr(legacy, "_MANY", 1 << 20)
        fact = look([V4], UNHURRIED)
    assert isinstance(fact, Unknown)
    assert fact.reason is Reason.UNPARSABLE


# ------ rules that never hold still


@contextmanager
def churning(chain: ChainKey) -> Iterator[Callable[[], int]]:
    """Adds to a chain and empties it again without end; gives how often it did."""
    stopped = threading.Event()
    rounds = 0

    def churn() -> None:
        nonlocal rounds
        writer = Writer()
        verdict = nfnetlink.nest(2, nfnetlink.nest(2, nfnetlink.u32(1, 1)))
        accept = nfnetlink.nest(1, nfnetlink.text(1, b"immediate") + nfnetlink.nest(2, nfnetlink.u32(1, 0) + verdict))
        add = Kind.RULE.new, nft.opening(chain) + nfnetlink.nest(4, accept)
        empty = nft.SUBSYSTEM << 8 | 8, nft.opening(chain)
        try:
            while not stopped.is_set():
                writer.commit([add])
                writer.commit([empty])
                rounds += 1
        finally:
            writer.close()

    thread = threading.Thread(target=churn)  # in the namespace of the thread that starts it
    thread.start()
    try:
        yield lambda: rounds
    finally:
        stopped.set()
        thread.join()


@in_namespace
def test_a_rule_set_that_never_holds_still_is_at_best_a_doubt() -> None:
    load(f"table inet filter {{ chain other {{ }}\n {INPUT} tcp dport {PORT} drop\n }} }}")
    with churning(ChainKey(TableKey(1, b"filter"), b"other")) as rounds:
        for _ in range(4):
            before = rounds()
            fact = look([V4], UNHURRIED)
            if rounds() > before:
                assert is_unsure(fact), fact


def is_unsure(fact: Fact[Shadow]) -> bool:
    match fact:
        case Known(value=seen):
            return all(walk.doubts for walk in seen.walks)
        case Unknown():
            return True
