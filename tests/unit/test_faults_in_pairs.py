"""Two faults at once, judged by all the checks: the first block that is really in force is the root cause."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from checks import CHECKS
from diagnose.engine import diagnose, exit_code
from diagnose.model.attempt import Attempt, Drop, Outcome
from diagnose.model.fact import NOT_NEEDED, Fact, Known, Unknown
from diagnose.model.finding import Confidence, Severity
from diagnose.model.firewall import End, Shadow
from diagnose.model.network import Interface, Links
from diagnose.model.report import Report, Verdict
from diagnose.model.snapshot import Snapshot
from tests.scenes import (
    ALICE,
    NEEDS_ROOT,
    RULE_RESET,
    at,
    connected,
    dialled,
    ended,
    full_queue,
    held,
    listening,
    not_accepted,
    process,
    refused,
    rehearsed,
    rejected,
    resolved,
    roomy_queue,
    rows,
    rule,
    shadow,
    unanswered,
    unavailable,
    unreachable,
    walk_to,
)

V4, V6, LAN = "127.0.0.1:8080", "[::1]:8080", "192.0.2.10:8080"
SERVER = rows(listening(V4))
RUNS, STOPPED = held((1, process())), held((1, process(state="T")))
LO_DOWN = Known(Links((Interface("lo", False, ("127.0.0.1", "::1")),)))
DROPS = shadow(walk_to("127.0.0.1", rule()))
DROPPED = unanswered(V4, drop="NETFILTER_DROP", queue=roomy_queue(V4))


def judged(snapshot: Snapshot) -> Report:
    return diagnose(snapshot, CHECKS)


def root(snapshot: Snapshot) -> str | None:
    cause = judged(snapshot).root_cause
    return cause.code if cause else None


def problems(snapshot: Snapshot) -> set[str]:
    return {one.code for one in judged(snapshot).findings if one.severity is Severity.PROBLEM}


def test_a_rule_comes_before_the_stopped_process_behind_it() -> None:
    seen = dialled(V4, DROPPED, listeners=SERVER, holders=STOPPED, firewall=DROPS)
    assert root(seen) == "firewall/rule-drops"
    assert "hung/process-stopped" in problems(seen)


def test_a_rule_comes_before_the_closed_port_behind_it() -> None:
    seen = dialled(V4, refused(V4, RULE_RESET), firewall=shadow(walk_to("127.0.0.1", rule(), "reject")))
    assert root(seen) == "firewall/rule-rejects"
    assert "refused/nothing-listening" in problems(seen)


def test_a_stopped_process_comes_before_a_firewall_that_is_only_possible() -> None:
    seen = dialled(V4, unanswered(V4), listeners=SERVER, holders=STOPPED, firewall=NEEDS_ROOT, seen_by=ALICE)
    assert root(seen) == "hung/process-stopped"
    assert "firewall/silent" in problems(seen)


def test_the_interface_comes_before_the_rules() -> None:
    assert root(dialled(V4, unreachable(V4), links=LO_DOWN, listeners=SERVER, holders=RUNS, firewall=DROPS)) == (
        "loopback/interface-down"
    )


def test_an_interface_that_is_down_is_a_verdict_even_when_nothing_was_sent() -> None:
    report = judged(dialled(V4, passive=True, names=resolved("127.0.0.1", "127.0.0.1"), links=LO_DOWN))
    assert (report.verdict, exit_code([report])) == (Verdict.UNREACHABLE, 1)


def test_the_name_comes_before_a_server_that_has_only_the_other_family() -> None:
    seen = dialled("localhost:8080", refused(V6), connected(V4), listeners=SERVER, holders=RUNS)
    report = judged(seen)
    assert (report.verdict, report.root_cause) == (Verdict.REACHABLE, None)
    warnings = [one.code for one in report.findings if one.severity is Severity.WARNING]
    assert warnings == ["resolution/prefers-other-family"], "what it explains is no warning of its own"


def test_a_rule_for_the_first_family_explains_why_the_other_one_is_used() -> None:
    both = rows(listening("[::]:8080", v6only=False))
    first = unanswered(V6, drop="NETFILTER_DROP", queue=roomy_queue(V6))
    seen = dialled("localhost:8080", first, connected(V4), listeners=both, firewall=shadow(walk_to("::1", rule())))
    assert judged(seen).verdict is Verdict.DEGRADED
    assert root(seen) == "firewall/rule-drops"


@pytest.mark.parametrize(
    ("attempt", "code"),
    [
        (not_accepted(V4), "hung/process-stopped"),
        (unanswered(V4, queue=full_queue(V4)), "hung/process-stopped"),
    ],
    ids=["not accepted", "queue full"],
)
def test_a_stopped_server_is_the_cause_though_localhost_is_first_an_address_it_never_had(
    attempt: Attempt, code: str
) -> None:
    seen = dialled("localhost:8080", refused(V6), attempt, listeners=SERVER, holders=STOPPED)
    assert root(seen) == code


@pytest.mark.parametrize(
    ("attempt", "code"),
    [
        (not_accepted(V4), "hung/not-accepting"),
        (unanswered(V4, queue=full_queue(V4)), "hung/accept-queue-full"),
        (ended(V4, Outcome.CLOSED), "hung/closes-at-once"),
    ],
    ids=lambda one: one if isinstance(one, str) else "",
)
def test_a_server_that_hangs_is_the_cause_though_localhost_is_first_an_address_it_never_had(
    attempt: Attempt, code: str
) -> None:
    assert root(dialled("localhost:8080", refused(V6), attempt, listeners=SERVER, holders=RUNS)) == code


def test_where_both_families_are_refused_the_family_is_not_the_trouble() -> None:
    seen = dialled(
        "localhost:8080", refused(V6), refused(V4), listeners=rows(listening(LAN)), candidates=(connected(LAN),)
    )
    assert root(seen) == "refused/other-address"


@pytest.mark.parametrize("attempts", [(refused(V4), unavailable(V6)), (unavailable(V6), refused(V4))])
def test_an_address_that_is_not_there_does_not_hide_the_closed_port(attempts: tuple[Attempt, ...]) -> None:
    assert root(dialled("localhost:8080", *attempts)) == "refused/nothing-listening"


def test_an_address_that_is_not_there_behind_a_working_one_is_no_fault() -> None:
    report = judged(dialled("localhost:8080", connected(V4), unavailable(V6), listeners=SERVER, holders=RUNS))
    assert (report.verdict, exit_code([report])) == (Verdict.REACHABLE, 0)


def test_a_far_address_behind_the_working_one_does_not_become_the_cause() -> None:
    far = refused("198.51.100.7:8080", local=False)
    seen = dialled("db:8080", refused(V4), connected(LAN), far, listeners=rows(listening(LAN)))
    report = judged(seen)
    assert report.root_cause is None
    (warning,) = [one for one in report.findings if one.severity is Severity.WARNING]
    assert (warning.code, "127.0.0.1:8080" in warning.title) == ("refused/other-address", True)


def test_nothing_is_told_twice_where_a_name_has_two_addresses() -> None:
    seen = dialled("localhost:8080", refused(V6), refused(V4), listeners=rows(listening("127.0.0.1:8081")))
    told = [(one.code, one.title) for one in judged(seen).findings]
    assert len(told) == len(set(told))


def test_an_ordinary_user_gets_the_same_cause_or_an_honest_lower_confidence() -> None:
    as_root = judged(dialled(V4, DROPPED, listeners=SERVER, holders=RUNS, firewall=DROPS)).root_cause
    as_alice = judged(
        dialled(
            V4,
            unanswered(V4, queue=roomy_queue(V4)),
            listeners=SERVER,
            holders=held(hidden=9),
            firewall=NEEDS_ROOT,
            seen_by=ALICE,
        )
    ).root_cause
    assert as_root is not None
    assert as_alice is not None
    assert (as_root.code, as_root.confidence) == ("firewall/rule-drops", Confidence.PROVEN)
    assert (as_alice.code, as_alice.confidence) == ("firewall/silent", Confidence.LIKELY)


REJECTED = shadow(walk_to("127.0.0.1", rule("reject with tcp reset"), "reject"))
FULL = rows(replace(listening(V4), queue=2, backlog=1))


@pytest.mark.parametrize(
    ("attempt", "rules", "code"),
    [
        (unanswered(V4, drop="NETFILTER_DROP"), DROPS, "firewall/rule-drops"),
        (refused(V4, RULE_RESET), REJECTED, "firewall/rule-rejects"),
        (rejected(V4), REJECTED, "firewall/rule-rejects"),
        (unanswered(V4), REJECTED, "firewall/rule-rejects"),
    ],
    ids=["drop", "reset", "icmp", "reject without an answer"],
)
@pytest.mark.parametrize(
    ("facts", "second"),
    [
        ({"listeners": rows()}, "refused/nothing-listening"),
        ({"listeners": SERVER, "holders": STOPPED}, "hung/process-stopped"),
        ({"listeners": FULL, "holders": RUNS}, "hung/accept-queue-full"),
        ({"listeners": rows(listening(V6)), "candidates": (connected(V6),)}, "refused/other-family"),
        (
            {"listeners": rows(listening("127.0.0.2:8080")), "candidates": (connected("127.0.0.2:8080"),)},
            "refused/other-address",
        ),
    ],
    ids=["nothing", "stopped", "full", "other family", "other address"],
)
def test_what_would_fail_without_the_rule_as_well_is_a_finding_behind_it(
    attempt: Attempt, rules: Fact[Shadow], code: str, facts: dict[str, Any], second: str
) -> None:
    if second == "hung/accept-queue-full" and attempt.outcome is Outcome.UNANSWERED:
        attempt = replace(attempt, queue=full_queue(V4))
    snapshot = dialled(V4, attempt, firewall=rules, **facts)
    if second == "hung/accept-queue-full" and isinstance(attempt.drops, Unknown) and attempt.queue != NOT_NEEDED:
        assert root(snapshot) == second  # the queue's own counter says that it dropped ours: no rule did
        return
    assert root(snapshot) == code
    assert second in problems(snapshot)


def test_behind_a_rule_that_a_witness_contradicts_nothing_else_becomes_the_root_cause() -> None:
    contradicted = unanswered(V4, drops=Known((Drop("NO_SOCKET", "tcp_v4_rcv"),)))
    assert root(dialled(V4, contradicted, listeners=rows(), firewall=DROPS)) is None


def test_a_reset_of_the_kernel_that_a_rule_drops_proves_the_lost_answer_and_the_missing_listener() -> None:
    drops: Fact[tuple[Drop, ...]] = Known((Drop("NO_SOCKET", "tcp_v4_rcv"),))
    answer = shadow(walk_to("127.0.0.1", rule("tcp sport 8080 drop"), packet="reply"))
    snapshot = dialled(V4, unanswered(V4, drops=drops), listeners=rows(), firewall=answer)
    found = judged(snapshot).root_cause
    assert found
    assert (found.code, found.confidence) == ("firewall/reply-dropped", Confidence.PROVEN)
    assert "refused/nothing-listening" in problems(snapshot)


@pytest.mark.parametrize("tried", [True, False])
def test_where_nat_leads_the_port_to_nothing_the_port_asked_about_lacks_no_program(tried: bool) -> None:
    walk = replace(walk_to("127.0.0.1", rule()), seen_as=at("127.0.0.1:8999"))
    led = replace(rehearsed(walk), at=at("127.0.0.1:8999"))
    walk = replace(walk, rehearsals=Known((led,))) if tried else walk
    snapshot = dialled(V4, unanswered(V4, drop="NETFILTER_DROP"), listeners=rows(), firewall=shadow(walk))
    assert problems(snapshot) == {"firewall/rule-drops"}


def test_where_nat_leads_the_port_to_a_listener_nothing_is_missing_behind_the_rule() -> None:
    walk = walk_to("127.0.0.1", rule(), "reject")
    led = replace(rehearsed(walk), end=End.LISTENER, at=at("127.0.0.1:9090"))
    walk = replace(walk, rehearsals=Known((led,)))
    snapshot = dialled(V4, refused(V4, RULE_RESET), listeners=rows(), firewall=shadow(walk))
    assert problems(snapshot) == {"firewall/rule-rejects"}
