"""The trace on the machine itself beside the walk in the copy."""

from __future__ import annotations

from msgspec.structs import replace

from diagnose.analysis.traced import as_traced, passed_it, same_rule, stopped_by, traced_lines
from diagnose.model.attempt import Attempt, Outcome
from diagnose.model.fact import Known, Reason, Unknown
from diagnose.model.firewall import Backend, RuleRef, Step, Walk

RULE = RuleRef(Backend.NFT, "inet", "guard", "input", "tcp dport 8080 drop", handle=3)
OTHER = replace(RULE, table="late", handle=9)
LEGACY = RuleRef(Backend.IPTABLES_LEGACY, "ip", "filter", "INPUT", "-p tcp -j DROP", line=1)
STEPS = (
    Step("syn", "output", replace(RULE, chain="output", text="accept"), "accept"),
    Step("syn", "input", RULE, "drop"),
)
ATTEMPT = Attempt(
    address="127.0.0.1", port=8080, family="ipv4", outcome=Outcome.UNANSWERED, ms=100.0, traced=Known(STEPS)
)
WALK = Walk("127.0.0.1", 8080, Outcome.UNANSWERED, STEPS, RULE, "drop")


def test_a_trace_that_ends_with_the_rule_of_the_copy_agrees() -> None:
    assert same_rule(ATTEMPT, WALK)
    assert not passed_it(ATTEMPT, WALK)


def test_a_trace_that_ends_with_another_rule_is_told_with_what_the_copy_said_as_a_doubt() -> None:
    walk = replace(WALK, decider=OTHER)
    assert not same_rule(ATTEMPT, walk)
    step = stopped_by(ATTEMPT)
    assert step is not None
    told = as_traced(ATTEMPT, step, walk)
    assert told.decider == RULE
    assert told.doubts == ("the copy of the rules stops it at nft inet late input handle 9",)


def test_a_packet_that_passes_where_the_copy_stops_it_contradicts_the_copy() -> None:
    passing = replace(ATTEMPT, traced=Known(STEPS[:1]))
    assert passed_it(passing, WALK)
    assert traced_lines(passing)[0].text == "no rule of nf_tables stopped our packet"


def test_rules_that_no_trace_tells_of_are_not_contradicted_by_it() -> None:
    passing = replace(ATTEMPT, traced=Known(STEPS[:1]))
    assert not passed_it(passing, replace(WALK, decider=LEGACY))
    assert not passed_it(passing, replace(WALK, decider=replace(RULE, family="netdev")))


def test_without_a_trace_nothing_is_said_of_it() -> None:
    untold = replace(ATTEMPT, traced=Unknown(Reason.NEEDS_ROOT))
    assert stopped_by(untold) is None
    assert not passed_it(untold, WALK)
    assert not same_rule(untold, WALK)
    assert traced_lines(untold) == ()
