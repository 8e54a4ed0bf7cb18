"""Less knowledge never makes netdiag surer, and no cause is named against the facts."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from checks import CHECKS
from diagnose.analysis.reach import reached
from diagnose.engine import diagnose
from diagnose.model.attempt import Attempt, Outcome
from diagnose.model.fact import Known, Reason, Unknown
from diagnose.model.finding import Confidence, Finding, Severity
from diagnose.model.snapshot import Snapshot
from tests.properties.snapshots import snapshots

HIDDEN = Unknown(Reason.NEEDS_ROOT, "hidden by the test", "run it again with sudo")
FACTS = ["links", "sockets", "listeners", "bound", "udp", "holders", "policy", "routing", "hosts", "resolver"]
FACTS += ["elsewhere", "firewall"]
ALONE = {"hung/not-accepting"}
"""Proven by our own connection; not told again where the holder is known to be stopped."""
WITNESSES = ["icmp", "reset", "drops", "queue", "wire", "first_hop"]


def proven(snapshot: Snapshot) -> set[str]:
    """The codes of the problems that are called proven."""
    return {
        one.code
        for one in diagnose(snapshot, CHECKS).findings
        if one.confidence is Confidence.PROVEN and one.severity is Severity.PROBLEM
    }


@given(snapshots, st.sampled_from(FACTS))
def test_a_fact_less_proves_nothing_new(snapshot: Snapshot, fact: str) -> None:
    assert proven(replace(snapshot, **{fact: HIDDEN})) - proven(snapshot) - ALONE == set()


@given(snapshots, st.sampled_from(WITNESSES))
def test_a_witness_less_proves_nothing_new(snapshot: Snapshot, witness: str) -> None:
    silent: dict[str, Any] = {witness: HIDDEN}
    fewer = replace(snapshot, attempts=tuple(replace(one, **silent) for one in snapshot.attempts))
    assert proven(fewer) - proven(snapshot) == set()


@given(snapshots)
def test_what_could_not_be_looked_at_never_changes_whether_it_works(snapshot: Snapshot) -> None:
    blind = replace(snapshot, **dict.fromkeys(FACTS, HIDDEN))
    if snapshot.attempts or snapshot.binds:
        assert diagnose(blind, CHECKS).verdict is diagnose(snapshot, CHECKS).verdict


def problems(snapshot: Snapshot, code: str) -> list[Finding]:
    return [one for one in diagnose(snapshot, CHECKS).findings if one.code == code]


@given(snapshots)
def test_a_listener_that_takes_the_address_is_never_said_not_to_be_there(snapshot: Snapshot) -> None:
    if isinstance(snapshot.listeners, Known):
        for one in snapshot.attempts:
            if one.local and reached(snapshot.listeners.value, one.address, one.port):
                denied = f"Nothing listens on {one.endpoint}"
                assert denied not in [found.title for found in problems(snapshot, "refused/nothing-listening")]


def _blames_netfilter(one: Attempt) -> bool:
    """Whether the machine itself says that a rule did it, or at least that something other than its TCP did."""
    dropped = isinstance(one.drops, Known) and any(
        drop.reason == "NETFILTER_DROP" or drop.symbol == "nf_queue" for drop in one.drops.value
    )
    icmp = isinstance(one.icmp, Known) and any(error.origin != "local" for error in one.icmp.value)
    reset = isinstance(one.reset, Known) and one.reset.value.distinct
    return dropped or icmp or reset


@given(snapshots)
def test_no_rule_is_proven_without_a_witness_on_the_machine_itself(snapshot: Snapshot) -> None:
    if any(code.startswith("firewall/") for code in proven(snapshot)):
        assert any(_blames_netfilter(one) for one in snapshot.attempts)


@given(snapshots)
def test_no_process_is_called_stopped_that_is_not(snapshot: Snapshot) -> None:
    if problems(snapshot, "hung/process-stopped"):
        assert isinstance(snapshot.holders, Known)
        assert any(one.process.state == "T" for one in snapshot.holders.value.found)


@given(snapshots)
def test_a_first_address_that_works_is_reachable_whatever_else_is_there(snapshot: Snapshot) -> None:
    if snapshot.attempts and snapshot.attempts[0].outcome is Outcome.CONNECTED:
        assert diagnose(snapshot, CHECKS).verdict.works
