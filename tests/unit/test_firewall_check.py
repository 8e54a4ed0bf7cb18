"""firewall: which rule, on whose word, and when no rule may be blamed."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from checks.firewall import CHECK
from diagnose.analysis.firewall_remedies import candidates
from diagnose.analysis.rehearsal import obstacle
from diagnose.analysis.walk import rule_title
from diagnose.engine import diagnose
from diagnose.model.attempt import Attempt, DatagramWitness, Drop, FilterHook, Outcome, ResetWitness
from diagnose.model.fact import NOT_NEEDED, Fact, Known, Reason, Unknown
from diagnose.model.finding import Command, Confidence, Finding, Severity
from diagnose.model.firewall import Backend, End, NetfilterProgram, Rehearsed, RuleRef, Shadow, Step, Walk
from diagnose.model.network import RouteKind, RouteLookup, Routing, SocketRow, TcpState
from diagnose.model.report import CheckOutcome
from diagnose.model.snapshot import Snapshot
from tests.scenes import (
    ALICE,
    BLURRED_RESET,
    KERNEL_RESET,
    NEEDS_ROOT,
    ROOT,
    RULE_RESET,
    at,
    connected,
    dialled,
    ended,
    full_queue,
    half_open,
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
    taken,
    unanswered,
    unreachable,
    walk_to,
    wanted,
)

HERE, THERE = "127.0.0.1:8080", "198.51.100.7:8080"
SERVER = rows(listening(HERE))
DROPS, REJECTS = walk_to("127.0.0.1", rule()), walk_to("127.0.0.1", rule("reject with tcp reset"), "reject")
POLICY = walk_to("127.0.0.1", rule(policy=True))
PASSES = walk_to("127.0.0.1", None, "accept")
DROPPED = unanswered(HERE, drop="NETFILTER_DROP", queue=roomy_queue(HERE))
PROVEN, LIKELY = (Severity.PROBLEM, Confidence.PROVEN), (Severity.PROBLEM, Confidence.LIKELY)
POSSIBLE = (Severity.PROBLEM, Confidence.POSSIBLE)


def said(snapshot: Snapshot) -> list[tuple[str, Severity, Confidence]]:
    return [(one.code, one.severity, one.confidence) for one in CHECK.judge(snapshot) if isinstance(one, Finding)]


def missing(snapshot: Snapshot) -> list[str]:
    return [one.fact for one in CHECK.judge(snapshot) if not isinstance(one, Finding)]


def root(snapshot: Snapshot) -> Finding:
    found = diagnose(snapshot, [CHECK]).root_cause
    assert found is not None
    return found


def met(attempt: Attempt, *walks: Walk) -> Snapshot:
    """A healthy server behind these rules."""
    return dialled(str(attempt.endpoint), attempt, listeners=SERVER, firewall=shadow(*walks))


# a packet that is sent elsewhere


TO_ANOTHER = Step("syn", "output", rule("tcp dport 8080 dnat to 203.0.113.7:80"), "dnat")
ASTRAY = replace(
    PASSES, arrives=at("203.0.113.7:80"), leaves=True, outcome=Outcome.UNANSWERED, steps=(TO_ANOTHER,), hook="output"
)


def removed(walk: Walk) -> Walk:
    """With the rule's removal tried in the copy, where it mended it."""
    return replace(walk, rehearsals=Known((rehearsed(walk),)))


def test_a_rule_that_hides_a_server_is_removed() -> None:
    found = root(met(unanswered(HERE), removed(ASTRAY)))
    assert (found.code, found.confidence) == ("firewall/redirects", Confidence.LIKELY)
    assert found.remedies[0].summary.startswith("Remove the rule from chain")


def test_a_rule_that_hides_nobody_is_not_removed_for_nobody_would_answer_then() -> None:
    nobody = dialled(HERE, unanswered(HERE), listeners=rows(), firewall=shadow(removed(ASTRAY)))
    found = root(nobody)
    assert found.remedies[0].commands[0].argv == ("netdiag", "run", "203.0.113.7:80")
    assert not any(one.summary.startswith("Remove the rule") for one in found.remedies)


@pytest.mark.parametrize(("drop", "confidence"), [("NETFILTER_DROP", Confidence.PROVEN), (None, Confidence.LIKELY)])
def test_a_rule_that_sends_loopback_s_packet_where_it_may_not_go_is_named(
    drop: str | None, confidence: Confidence
) -> None:
    walk = removed(replace(ASTRAY, verdict="unroutable", arrives=None, leaves=False))
    attempt = unanswered(HERE, drop=drop) if drop else unanswered(HERE)
    found = root(met(attempt, walk))
    assert (found.code, found.confidence) == ("firewall/redirects", confidence)
    assert found.remedies[0].summary.startswith("Remove the rule from chain")
    assert "route_localnet" in found.explanation


# two witnesses


@pytest.mark.parametrize(
    ("walk", "code"),
    [(DROPS, "firewall/rule-drops"), (POLICY, "firewall/policy-drops")],
    ids=["rule", "policy"],
)
def test_the_copy_and_the_kernels_drop_reason_together_prove_it(walk: Walk, code: str) -> None:
    assert said(met(DROPPED, walk)) == [(code, *PROVEN)]


@pytest.mark.parametrize(
    "attempt",
    [refused(HERE, RULE_RESET), rejected(HERE), rejected(HERE, 3, 3, "ECONNREFUSED")],
    ids=lambda one: one.errno,
)
def test_the_copy_and_a_refusal_that_the_kernel_did_not_send_together_prove_a_reject(attempt: Attempt) -> None:
    assert said(met(attempt, REJECTS)) == [("firewall/rule-rejects", *PROVEN)]


@pytest.mark.parametrize(
    ("attempt", "walk"),
    [
        (unanswered(HERE, drops=NEEDS_ROOT), DROPS),
        (unanswered(HERE, drops=Known(())), DROPS),
        (refused(HERE, BLURRED_RESET), REJECTS),
        (refused(HERE, NEEDS_ROOT), REJECTS),
    ],
    ids=["no tracing", "nothing traced", "busy counter", "no counter"],
)
def test_the_copy_alone_makes_it_likely(attempt: Attempt, walk: Walk) -> None:
    assert [one[1:] for one in said(met(attempt, walk))] == [LIKELY]


@pytest.mark.parametrize(
    ("attempt", "walk"),
    [
        (unanswered(HERE, drop="TCP_LISTEN_OVERFLOW"), DROPS),
        (refused(HERE, KERNEL_RESET), REJECTS),
    ],
    ids=["dropped elsewhere", "refused by the kernel"],
)
def test_where_the_machine_says_otherwise_the_copy_is_only_a_hint(attempt: Attempt, walk: Walk) -> None:
    assert [one[1:] for one in said(met(attempt, walk))] == [POSSIBLE]


def test_what_the_copy_could_not_carry_leaves_it_likely() -> None:
    doubtful = walk_to("127.0.0.1", rule(), doubts=("the order of two chains of equal priority",))
    assert said(met(DROPPED, doubtful)) == [("firewall/rule-drops", *LIKELY)]
    assert any("equal priority" in one.text for one in root(met(DROPPED, doubtful)).evidence)


@pytest.mark.parametrize(
    ("ref", "told"),
    [
        (rule("masquerade", chain="out"), True),
        (rule("-A POSTROUTING -j MASQUERADE --random", backend=Backend.IPTABLES_NFT, handle=None, line=1), True),
        (rule('drop comment "before we masquerade it"'), False),
        (rule("-A INPUT -m comment --comment masquerade -j DROP", backend=Backend.IPTABLES_NFT, handle=None), False),
    ],
)
def test_a_rule_that_only_speaks_of_masquerading_lacks_no_address(ref: RuleRef, told: bool) -> None:
    found = root(met(DROPPED, walk_to("127.0.0.1", ref)))
    assert ("drops it where the kernel finds none" in found.explanation) is told


def test_a_rule_that_stops_the_answer_is_told_apart_from_one_that_stops_the_request() -> None:
    answer = walk_to("127.0.0.1", rule("tcp sport 8080 drop", chain="output"), packet="reply")
    lost = Known((Drop("NETFILTER_DROP", "nft_do_chain", packet="reply"),))
    found = root(met(replace(DROPPED, drops=lost), answer))
    assert found.code == "firewall/reply-dropped"
    assert "replies from 127.0.0.1:8080" in found.title


@pytest.mark.parametrize(
    ("ref", "name"),
    [
        (rule(), "nft inet filter input handle 5 drops 127.0.0.1:8080"),
        (rule(policy=True), "nft inet filter input policy drops 127.0.0.1:8080"),
        (
            rule(backend=Backend.IPTABLES_LEGACY, chain="INPUT", handle=None, line=2),
            "iptables-legacy INPUT rule 2 drops 127.0.0.1:8080",
        ),
        (
            rule(backend=Backend.IPTABLES_NFT, chain="INPUT", handle=None, line=1),
            "iptables-nft INPUT rule 1 drops 127.0.0.1:8080",
        ),
    ],
)
def test_the_rule_is_named_as_its_own_tool_names_it(ref: RuleRef, name: str) -> None:
    assert root(met(unanswered(HERE), walk_to("127.0.0.1", ref))).title == name


def test_the_rule_stands_in_the_evidence_with_the_command_that_lists_it() -> None:
    first = root(met(DROPPED, DROPS)).evidence[0]
    assert (first.text, first.source) == (
        "filter input: tcp dport 8080 drop # handle 5",
        "nft -a list chain inet filter input",
    )


def test_why_a_rule_has_no_words_is_told_with_what_would_lift_it() -> None:
    wordless = met(DROPPED, walk_to("127.0.0.1", rule("")))
    late = replace(wordless, firewall=Known(replace(wordless.firewall.value, late=True)))  # type: ignore[union-attr]
    told = [one.unknown for seen in (wordless, late) for one in CHECK.judge(seen) if not isinstance(one, Finding)]
    assert [(why.reason, why.lift is None) for why in told] == [(Reason.TOOL_MISSING, False), (Reason.DEADLINE, True)]


# remedies


def test_only_what_mended_the_copy_is_offered_the_smallest_opening_first() -> None:
    wide = ("127.0.0.1:5432 from the network", "127.0.0.1:22 from this machine")
    tried = (rehearsed(DROPS, 0, opens=wide), rehearsed(DROPS, 1))
    found = root(met(DROPPED, replace(DROPS, rehearsals=Known(tried))))
    assert [one.commands for one in found.remedies] == [one.commands for one in reversed(tried)]
    assert [one.rehearsal and one.rehearsal.mended for one in found.remedies] == [True, True]
    found = root(met(DROPPED, replace(DROPS, rehearsals=Known((rehearsed(DROPS, mended=False), tried[1])))))
    assert [one.commands for one in found.remedies] == [tried[1].commands]


def test_where_nothing_mended_the_copy_no_command_is_offered() -> None:
    found = root(met(DROPPED, replace(DROPS, rehearsals=Known((rehearsed(DROPS, mended=False),)))))
    assert [one.commands for one in found.remedies] == [()]


def test_an_unrehearsed_remedy_does_not_claim_a_rehearsal() -> None:
    found = root(met(DROPPED, DROPS))
    assert found.remedies
    assert all(one.rehearsal is None for one in found.remedies)


def test_a_command_whose_tool_is_missing_is_told_in_words() -> None:
    walk = replace(DROPS, rehearsals=Unknown(Reason.TOOL_MISSING, "nft is not installed"))
    assert all(not one.commands for one in root(met(DROPPED, walk)).remedies)


# what lies behind the rule


PASSES_THEN = replace(rehearsed(DROPS), end=End.STAND_IN)


def behind(attempt: Attempt, walk: Walk, tried: Rehearsed, **facts: Any) -> Snapshot:
    """The walk with its first candidate tried, and what came of the probe then."""
    tested = replace(walk, rehearsals=Known((replace(rehearsed(walk), end=tried.end, at=tried.at),)))
    return dialled(str(attempt.endpoint), attempt, firewall=shadow(tested), **facts)


@pytest.mark.parametrize(("attempt", "walk"), [(DROPPED, DROPS), (refused(HERE, RULE_RESET), REJECTS)])
@pytest.mark.parametrize(
    ("facts", "tried", "said"),
    [
        ({"listeners": rows()}, PASSES_THEN, "nothing listens on 127.0.0.1:8080"),
        ({"listeners": rows()}, replace(PASSES_THEN, end=End.UNTOLD), "nothing listens on 127.0.0.1:8080"),
        (
            {"listeners": SERVER, "holders": held((1, process(state="T")))},
            replace(PASSES_THEN, end=End.LISTENER),
            "the program that listens there, python3 (pid 4242), is stopped or paused",
        ),
        (
            {"listeners": rows(replace(listening(HERE), queue=2, backlog=1))},
            replace(PASSES_THEN, end=End.LISTENER),
            "accept queue of 127.0.0.1:8080 is full (2 pending connections, backlog 1)",
        ),
        (
            {"listeners": rows()},
            replace(PASSES_THEN, end=End.AWAY, at=at("172.17.0.2:80")),
            "NAT leads the connection on to 172.17.0.2:80",
        ),
        ({"listeners": NEEDS_ROOT}, replace(PASSES_THEN, end=End.UNTOLD), "the listeners could not be read"),
    ],
    ids=["nothing", "an older recording", "stopped", "full", "away", "listeners not known"],
)
def test_a_remedy_that_only_lifts_the_first_block_does_not_claim_to_fix_it(
    attempt: Attempt, walk: Walk, facts: dict[str, Any], tried: Rehearsed, said: str
) -> None:
    found = root(behind(attempt, walk, tried, **facts))
    (remedy,) = found.remedies
    assert remedy.rehearsal is not None
    assert not remedy.rehearsal.mended
    assert said in remedy.summary
    known = tried.end is not End.AWAY and facts["listeners"] != NEEDS_ROOT
    assert ("This lifts this block only" in remedy.summary) is known
    assert ("was not checked" in remedy.summary) is not known
    assert said.lower() in found.explanation.lower()


def test_a_listener_that_nat_leads_to_is_behind_the_rule_though_none_has_the_port() -> None:
    tried = replace(PASSES_THEN, end=End.LISTENER, at=at("127.0.0.1:9090"))
    (remedy,) = root(behind(DROPPED, DROPS, tried, listeners=rows())).remedies
    assert remedy.rehearsal is not None
    assert remedy.rehearsal.mended


LED_ON = replace(DROPS, seen_as=at("192.0.2.10:8999"), hook="output")
"""A filter that drops what a NAT rule has already sent elsewhere."""


def test_where_nat_leads_on_to_nothing_that_end_is_named_and_not_the_port_asked_about() -> None:
    tried = replace(PASSES_THEN, end=End.UNTOLD, at=at("192.0.2.10:8999"))
    seen = behind(DROPPED, LED_ON, tried, listeners=rows())
    found = root(seen)
    (remedy,) = found.remedies
    where = "NAT leads the connection on to 192.0.2.10:8999, where nothing listens"
    assert where in found.explanation
    assert where in remedy.summary
    assert "This lifts this block only" in remedy.summary
    assert remedy.rehearsal is not None
    assert not remedy.rehearsal.mended
    for text in (found.explanation, remedy.summary):
        assert f"othing listens on {HERE}" not in text


@pytest.mark.parametrize("listeners", [rows(listening("192.0.2.10:8999")), NEEDS_ROOT], ids=["one", "not known"])
def test_where_nat_leads_on_to_what_may_be_served_nothing_is_said_to_be_missing(listeners: Any) -> None:
    tried = replace(PASSES_THEN, end=End.UNTOLD, at=at("192.0.2.10:8999"))
    found = root(behind(DROPPED, LED_ON, tried, listeners=listeners))
    assert "NAT leads it on to 192.0.2.10:8999" in found.explanation
    assert "nothing listens" not in found.explanation.lower()


@pytest.mark.parametrize("listeners", [rows(), SERVER], ids=["nothing", "a listener that NAT goes past"])
def test_where_no_remedy_was_tried_nat_still_leads_past_the_port_asked_about(listeners: Any) -> None:
    found = root(dialled(HERE, DROPPED, listeners=listeners, firewall=shadow(LED_ON)))
    assert "NAT leads it on to 192.0.2.10:8999" in found.explanation
    assert "listens behind it" not in found.explanation


@pytest.mark.parametrize(
    ("address", "seen_as"),
    [("0.0.0.0", "127.0.0.1:8080"), ("::", "[::1]:8080"), ("::ffff:127.0.0.1", "127.0.0.1:8080")],
)
def test_an_address_that_the_kernel_writes_otherwise_is_not_one_that_nat_leads_to(address: str, seen_as: str) -> None:
    where = f"[{address}]:8080" if ":" in address else f"{address}:8080"
    walk = replace(walk_to(address, rule()), seen_as=at(seen_as))
    found = root(dialled(where, unanswered(where, drop="NETFILTER_DROP"), listeners=rows(), firewall=shadow(walk)))
    assert "NAT leads" not in found.explanation


@pytest.mark.parametrize("rewrites", [True, False])
def test_a_rule_that_leads_elsewhere_is_not_said_to_stop_the_connection(rewrites: bool) -> None:
    then = removed(ASTRAY) if rewrites else walk_to("127.0.0.1", rule(handle=6))
    following = candidates(then)[0]
    commands = (*candidates(DROPS)[0].commands, *following.commands)
    tried = Rehearsed(commands, mended=True, remedy=following, end=End.LISTENER, obstacles=(obstacle(then),))
    walk = replace(DROPS, rehearsals=Known((tried,)))
    (remedy,) = root(met(DROPPED, walk)).remedies
    assert remedy.commands == commands
    assert ("2 rules stop it" in remedy.summary) is not rewrites
    assert ("2 rules keep it from its listener" in remedy.summary) is rewrites


def test_where_nat_serves_another_address_no_accept_is_offered_for_a_port_that_nothing_listens_on() -> None:
    walk = replace(REJECTS, served_at=(at("192.0.2.10:8080"),))
    for served in (connected("192.0.2.10:8080"), refused("192.0.2.10:8080")):
        seen = behind(refused(HERE, RULE_RESET), walk, PASSES_THEN, listeners=rows(), candidates=(served,))
        first = root(seen).remedies[0]
        led = first.commands[0].argv == ("netdiag", "run", "192.0.2.10:8080")
        assert led is served.outcome.works


# what the client feels


@pytest.mark.parametrize(
    ("attempt", "said", "never"),
    [
        (refused(HERE, RULE_RESET), "the client gets ECONNREFUSED, as if nothing listened", "waits in connect"),
        (rejected(HERE), "the client gets EHOSTUNREACH. A program that waits in connect(2)", "as if nothing listened"),
        (rejected(HERE, 3, 3, "ECONNREFUSED"), "ECONNREFUSED, as if nothing listened. A program", "no error"),
        (unanswered(HERE), "the client gets no error and waits until its timeout", "as if nothing listened"),
    ],
    ids=["reset", "icmp", "port unreachable", "no answer"],
)
def test_what_a_reject_feels_like_follows_from_what_our_own_attempt_met(
    attempt: Attempt, said: str, never: str
) -> None:
    explanation = root(met(attempt, replace(REJECTS, reject_with="some error"))).explanation
    assert said in explanation
    assert never not in explanation


# titles


@pytest.mark.parametrize("policy", [True, False])
@pytest.mark.parametrize("length", [6, 30, 60, 120])
def test_a_title_leaves_out_whole_parts_of_a_long_name(length: int, policy: bool) -> None:
    place = replace(rule(policy=policy), table="t" * length, chain="c" * length)
    found = rule_title(place, "drops 127.0.0.1:8080", "drops this connection")
    assert len(found) <= 80
    known = {"nft", "inet", place.table, place.chain, "...", "handle", "5", "policy", "drops", "127.0.0.1:8080"}
    assert set(found.split()) <= known
    assert ("..." in found) is (length > 6)


def test_a_title_whose_end_is_too_long_says_it_shorter() -> None:
    far = "[fd00:1234:5678:9abc:def0:1234:5678:9abc]:65535"
    found = rule_title(rule(), f"queues for an absent program replies from {far}", "queues this connection")
    assert found == "nft inet filter input handle 5 queues this connection"


# without the rules


@pytest.mark.parametrize(
    "fact",
    [
        {"routing": Unknown(Reason.FAILED, "EMFILE")},
        {"links": Unknown(Reason.FAILED, "EMFILE")},
        {"listeners": Unknown(Reason.FAILED, "EMFILE")},
        {"containers": Unknown(Reason.DEADLINE)},
        {"routing": Known(Routing((RouteLookup("127.0.0.1", RouteKind.UNICAST, "eth0"),), (), ()))},
    ],
    ids=["routes", "interfaces", "listeners", "containers", "led elsewhere"],
)
def test_what_could_not_be_read_excludes_nothing(fact: dict[str, Any]) -> None:
    attempt = unanswered(HERE, queue=roomy_queue(HERE))
    facts: dict[str, Any] = {"listeners": SERVER, "firewall": NEEDS_ROOT, **fact}
    assert said(dialled(HERE, attempt, seen_by=ALICE, **facts)) == [("firewall/silent", *POSSIBLE)]


def test_another_drop_reason_excludes_a_rule_though_the_queue_has_room() -> None:
    drops: Fact[tuple[Drop, ...]] = Known((Drop("TCP_MD5NOTFOUND", "tcp_v4_rcv"),))
    attempt = unanswered(HERE, queue=roomy_queue(HERE), drops=drops)
    assert said(dialled(HERE, attempt, listeners=SERVER, firewall=NEEDS_ROOT)) == [("firewall/silent", *POSSIBLE)]


def test_a_forbidden_datagram_does_not_exclude_a_queue_that_could_not_be_read() -> None:
    attempt = replace(unanswered(HERE), datagram=Known(DatagramWitness(forbidden=True)))
    seen = dialled(HERE, attempt, listeners=SERVER, firewall=NEEDS_ROOT, seen_by=ALICE)
    assert said(seen) == [("firewall/silent", *POSSIBLE)]
    assert said(replace(seen, listeners=rows())) == [("firewall/silent", *LIKELY)]


def test_rules_that_were_read_are_not_said_to_be_unread() -> None:
    for attempt in (unanswered(HERE), refused(HERE, RULE_RESET), half_open(HERE)):
        found = next(one for one in CHECK.judge(met(attempt, PASSES)) if isinstance(one, Finding))
        assert "could not be read" not in found.explanation
        assert "a copy of them lets the connection pass" in found.explanation


def test_an_error_that_routing_makes_too_is_not_only_a_filter_s() -> None:
    seen = dialled(HERE, rejected(HERE, 3, 1), listeners=SERVER, firewall=NEEDS_ROOT, seen_by=ALICE)
    assert "no route" in root(seen).explanation
    seen = dialled(HERE, rejected(HERE, 3, 13), listeners=SERVER, firewall=NEEDS_ROOT, seen_by=ALICE)
    assert "no route" not in root(seen).explanation


# another machine


@pytest.mark.parametrize("rules", [0, 7])
def test_a_packet_that_has_not_left_is_no_rule_s_doing_where_root_found_none(rules: int) -> None:
    attempt = replace(unanswered(THERE, local=False), sent=Known(0))
    seen = dialled(THERE, attempt, firewall=Known(Shadow((), rules=rules)))
    (found,) = [one for one in CHECK.judge(seen) if isinstance(one, Finding)]
    assert found.title == f"No packet to {THERE} has left this machine"
    assert ("a rule for outgoing packets" in found.explanation) is bool(rules)
    assert ("has no firewall rules" in found.explanation) is not bool(rules)
    assert "On this machine" in found.remedies[0].summary


def test_for_another_machine_s_silence_no_test_is_advised_that_proves_nothing() -> None:
    attempt = replace(unanswered(THERE, local=False), source=at("192.0.2.10:40000"))
    (found,) = [one for one in CHECK.judge(dialled(THERE, attempt)) if isinstance(one, Finding)]
    summary = found.remedies[0].summary
    assert "127.0.0.1" not in summary
    assert "packets from 192.0.2.10 arrive" in summary
    assert "proves nothing" in summary


def test_a_rewrite_that_ends_with_an_error_in_the_copy_as_well_is_told_as_a_redirect() -> None:
    to = at("203.0.113.7:80")
    walk = replace(
        ASTRAY, verdict="unknown", outcome=Outcome.UNREACHABLE, arrives=to, leaves=False, steps=(TO_ANOTHER,)
    )
    found = root(met(rejected(HERE, 3, 0, "ENETUNREACH"), replace(walk, doubts=("no rule was named",))))
    assert (found.code, found.confidence) == ("firewall/redirects", Confidence.LIKELY)
    assert "fails there" not in found.explanation
    assert "ENETUNREACH" in found.explanation


def test_a_rewrite_from_another_address_than_loopback_is_not_said_to_have_no_route() -> None:
    own = "192.0.2.10:8080"
    walk = replace(ASTRAY, address="192.0.2.10", verdict="unroutable", arrives=None, leaves=False, steps=(TO_ANOTHER,))
    found = root(dialled(own, unanswered(own), listeners=rows(listening(own)), firewall=shadow(walk)))
    assert found.code == "firewall/redirects"
    assert "no way" not in found.explanation
    assert "was not checked" in found.explanation


def test_silence_is_likely_a_rule_only_where_all_else_is_excluded() -> None:
    attempt = unanswered(HERE, queue=roomy_queue(HERE))
    seen = dialled(HERE, attempt, listeners=SERVER, firewall=NEEDS_ROOT, seen_by=ALICE)
    assert said(seen) == [("firewall/silent", *LIKELY)]


def test_silence_that_netfilter_made_is_likely_a_rule() -> None:
    seen = dialled(HERE, unanswered(HERE, drop="NETFILTER_DROP"), firewall=NEEDS_ROOT)
    assert said(seen) == [("firewall/silent", *LIKELY)]


@pytest.mark.parametrize(
    "seen",
    [
        dialled(HERE, unanswered(HERE, queue=roomy_queue(HERE)), firewall=NEEDS_ROOT),
        dialled(HERE, unanswered(HERE), listeners=SERVER, firewall=NEEDS_ROOT),
        dialled(HERE, unanswered(HERE, queue=roomy_queue(HERE)), listeners=NEEDS_ROOT, firewall=NEEDS_ROOT),
        dialled(HERE, unanswered(HERE, queue=full_queue(HERE, dropped=0)), listeners=SERVER, firewall=NEEDS_ROOT),
        dialled(THERE, unanswered(THERE, local=False)),
    ],
    ids=["no listener", "queue not known", "listeners not known", "queue full", "another machine"],
)
def test_any_other_silence_is_only_possibly_a_rule(seen: Snapshot) -> None:
    assert said(seen) == [("firewall/silent", *POSSIBLE)]


def test_an_ordinary_user_is_told_what_root_would_add() -> None:
    seen = dialled(HERE, unanswered(HERE), listeners=SERVER, firewall=NEEDS_ROOT, seen_by=ALICE)
    found = next(one for one in CHECK.judge(seen) if isinstance(one, Finding))
    assert found.remedies[0].commands[0].argv[1:] == ("run", HERE)
    assert found.remedies[0].commands[0].needs_root
    assert "firewall rules" in missing(seen)


@pytest.mark.parametrize(
    ("attempt", "sure"),
    [
        (refused(HERE, RULE_RESET), LIKELY),
        (rejected(HERE), LIKELY),
    ],
    ids=["reset", "icmp"],
)
def test_an_ordinary_user_learns_that_a_rule_rejects_a_healthy_server(
    attempt: Attempt, sure: tuple[Severity, Confidence]
) -> None:
    seen = dialled(HERE, attempt, listeners=SERVER, firewall=NEEDS_ROOT, seen_by=ALICE)
    assert said(seen) == [("firewall/rule-rejects", *sure)]
    assert diagnose(seen, [CHECK]).not_checked[0].fact == "firewall rules"


def test_a_reset_that_is_not_the_kernels_without_a_listener_is_only_possibly_a_rule() -> None:
    seen = dialled(HERE, refused(HERE, RULE_RESET), firewall=NEEDS_ROOT, seen_by=ALICE)
    assert said(seen) == [("firewall/rule-rejects", *POSSIBLE)]


def test_a_walk_that_could_not_be_told_is_missed() -> None:
    seen = met(DROPPED, walk_to("127.0.0.1", None, "unknown", doubts=("a queue",)))
    assert missing(seen) == ["firewall walk"]
    assert missing(met(DROPPED)) == ["firewall walk"]


def test_rules_that_let_it_pass_are_not_blamed_for_silence_beyond_possible() -> None:
    assert said(met(unanswered(HERE), PASSES)) == [("firewall/silent", *POSSIBLE)]


def test_a_half_open_connection_shows_that_the_answer_is_lost() -> None:
    ours = replace(unanswered(HERE), source=at("127.0.0.1:40000"))
    row = SocketRow(at(HERE), at("127.0.0.1:40000"), TcpState.SYN_RECV, "ipv4", 0, 0)
    seen = dialled(HERE, ours, listeners=SERVER, sockets=rows(row), firewall=NEEDS_ROOT)
    assert said(seen) == [("firewall/reply-dropped", *LIKELY)]


@pytest.mark.parametrize("peer", ["127.0.0.1:40001", "192.0.2.99:40000"])
def test_somebody_elses_half_open_connection_shows_nothing(peer: str) -> None:
    ours = replace(unanswered(HERE), source=at("127.0.0.1:40000"))
    row = SocketRow(at(HERE), at(peer), TcpState.SYN_RECV, "ipv4", 0, 0)
    seen = dialled(HERE, ours, listeners=SERVER, sockets=rows(row), firewall=NEEDS_ROOT)
    assert [one[0] for one in said(seen)] == ["firewall/silent"]


# what only looks like it


@pytest.mark.parametrize(
    "attempt",
    [
        connected(HERE),
        refused(HERE, KERNEL_RESET),
        not_accepted(HERE),
        unanswered(HERE, queue=full_queue(HERE)),
        unreachable(HERE),
        ended(HERE, Outcome.RESET),
        ended(HERE, Outcome.CLOSED),
    ],
    ids=lambda one: one.outcome.value,
)
def test_no_rule_is_blamed_for_what_the_kernel_or_the_server_did(attempt: Attempt) -> None:
    seen = dialled(HERE, attempt, listeners=SERVER if attempt.outcome is not Outcome.REFUSED else rows())
    assert said(seen) == []


def test_a_busy_counter_without_a_listener_blames_no_rule() -> None:
    assert said(dialled(HERE, refused(HERE, BLURRED_RESET), firewall=NEEDS_ROOT)) == []


def test_a_full_queue_is_no_rule_unless_netfilter_dropped_it() -> None:
    attempt = unanswered(HERE, queue=full_queue(HERE), drop="NETFILTER_DROP")
    assert said(met(attempt, DROPS)) == [("firewall/rule-drops", *PROVEN)]


def test_a_drop_reason_of_another_part_of_the_kernel_proves_no_rule() -> None:
    attempt = unanswered(HERE, drops=Known((Drop("NO_SOCKET", "tcp_v4_rcv"),)))
    assert said(dialled(HERE, attempt, firewall=NEEDS_ROOT)) == [("firewall/silent", *POSSIBLE)]


def test_for_someone_who_wants_to_bind_no_rule_is_in_the_way() -> None:
    assert said(wanted(HERE, taken(HERE), firewall=shadow(DROPS))) == []


def test_rules_for_an_address_behind_the_first_working_one_are_information() -> None:
    seen = dialled("localhost:8080", connected("[::1]:8080"), DROPPED, listeners=SERVER, firewall=shadow(DROPS))
    assert said(seen) == [("firewall/rule-drops", Severity.INFO, Confidence.PROVEN)]


def test_a_far_address_behind_the_first_working_one_is_information() -> None:
    seen = dialled("db:8080", connected("192.0.2.10:8080"), unanswered(THERE, local=False))
    assert [one[1] for one in said(seen)] == [Severity.INFO]


def test_with_nothing_failing_the_check_is_clear() -> None:
    seen = dialled(HERE, connected(HERE), firewall=NOT_NEEDED)
    assert diagnose(seen, [CHECK]).checks[0].outcome is CheckOutcome.CLEAR


def test_passive_without_the_rules_the_check_is_skipped() -> None:
    seen = dialled(HERE, passive=True, names=resolved("127.0.0.1", "127.0.0.1"), firewall=Unknown(Reason.PASSIVE))
    assert diagnose(seen, [CHECK]).checks[0].outcome is CheckOutcome.SKIPPED


# the handshake's last packet

LOST_ACK: Fact[tuple[Drop, ...]] = Known((Drop("NETFILTER_DROP", "nft_do_chain", packet="ack"),))


def test_a_rule_that_stops_only_the_last_ack_is_proven_by_copy_and_drop_reason() -> None:
    drops_ack = walk_to("127.0.0.1", rule("tcp flags == ack drop"), packet="ack")
    snapshot = met(half_open(HERE, drops=LOST_ACK), drops_ack)
    assert said(snapshot) == [("firewall/rule-drops", *PROVEN)]
    assert "last ACK" in root(snapshot).title


def test_an_ordinary_user_is_told_that_the_last_ack_is_lost_and_what_names_the_rule() -> None:
    snapshot = dialled(HERE, half_open(HERE), listeners=SERVER, firewall=NEEDS_ROOT, seen_by=ALICE)
    assert said(snapshot) == [("firewall/rule-drops", *LIKELY)]
    found = root(snapshot)
    assert found.remedies[0].commands == (Command(("netdiag", "run", HERE), needs_root=True),)
    assert any("TCPDeferAcceptDrop" in one.source for one in found.evidence)


def test_a_reset_after_the_connection_was_made_is_a_rule_s_where_the_copy_says_so() -> None:
    rejects_ack = walk_to("127.0.0.1", rule("reject with tcp reset"), "reject", packet="ack")
    assert said(met(ended(HERE, Outcome.RESET), rejects_ack)) == [("firewall/rule-rejects", *LIKELY)]


def test_a_connection_that_is_only_not_accepted_is_no_rule_s_doing() -> None:
    assert said(met(not_accepted(HERE), DROPS)) == []


# two witnesses about one packet


@pytest.mark.parametrize(
    ("drop", "backend", "kernel", "confidence"),
    [
        (Drop("NETFILTER_DROP", "nft_do_chain"), Backend.NFT, "6.18.0", Confidence.PROVEN),
        (Drop("NETFILTER_DROP", "nft_do_chain"), Backend.IPTABLES_LEGACY, "6.18.0", Confidence.POSSIBLE),
        (Drop("NETFILTER_DROP", "nf_hook_slow"), Backend.IPTABLES_LEGACY, "6.18.0", Confidence.PROVEN),
        (Drop("NETFILTER_DROP", "nf_hook_slow"), Backend.IPTABLES_NFT, "6.18.0", Confidence.POSSIBLE),
        (Drop("NETFILTER_DROP", "nf_hook_slow"), Backend.NFT, "6.1.0-18-amd64", Confidence.PROVEN),
        (Drop("NETFILTER_DROP", "nft_do_chain", packet="reply"), Backend.NFT, "6.18.0", Confidence.POSSIBLE),
        (Drop("NETFILTER_DROP", "nf_hook_slow", hook="input", inferred=True), Backend.NFT, "5.10.0", Confidence.PROVEN),
        (Drop("NETFILTER_DROP", "nf_hook_slow", hook="input"), Backend.NFT, "6.1.0", Confidence.PROVEN),
        (Drop("NETFILTER_DROP", "nf_hook_slow", hook="output"), Backend.NFT, "6.1.0", Confidence.POSSIBLE),
        (Drop("NOT_SPECIFIED", "tcp_v4_rcv"), Backend.NFT, "5.10.0", Confidence.POSSIBLE),
    ],
)
def test_the_kernel_must_have_dropped_that_packet_in_the_part_that_has_the_rule(
    drop: Drop, backend: Backend, kernel: str, confidence: Confidence
) -> None:
    walk = walk_to("127.0.0.1", rule(backend=backend, line=1))
    attempt = unanswered(HERE, drops=Known((drop,)), queue=roomy_queue(HERE))
    snapshot = replace(met(attempt, walk), vantage=replace(ROOT, kernel=kernel))
    assert [one[2] for one in said(snapshot)] == [confidence]


# BPF programs that netfilter asks beside its rules


@pytest.mark.parametrize(
    ("asked_at", "dropped_at", "confidence"),
    [
        ("output", "input", Confidence.PROVEN),
        ("prerouting", "input", Confidence.PROVEN),
        ("input", "input", Confidence.LIKELY),
        ("output", "", Confidence.LIKELY),
    ],
)
def test_only_a_program_that_is_asked_where_the_packet_was_dropped_is_a_doubt(
    asked_at: str, dropped_at: FilterHook, confidence: Confidence
) -> None:
    walk = walk_to("127.0.0.1", rule(backend=Backend.IPTABLES_LEGACY, line=1))
    walk = replace(walk, beside=(NetfilterProgram("ip", asked_at, 0, 7, "other"),))
    drop = Drop("NETFILTER_DROP", "nf_hook_slow", hook=dropped_at)
    attempt = unanswered(HERE, drops=Known((drop,)), queue=roomy_queue(HERE))
    found = root(met(attempt, walk))
    assert found.confidence is confidence
    assert ("a BPF program (other, id 7)" in str(found.evidence)) is (confidence is Confidence.LIKELY)


def test_a_program_in_words_from_an_older_recording_stays_a_doubt() -> None:
    walk = replace(walk_to("127.0.0.1", rule(backend=Backend.IPTABLES_LEGACY, line=1)), beside=("a BPF program",))
    drop = Drop("NETFILTER_DROP", "nf_hook_slow", hook="input")
    assert root(met(unanswered(HERE, drops=Known((drop,))), walk)).confidence is Confidence.LIKELY


# traffic control


@pytest.mark.parametrize(
    ("drop", "confidence", "words"),
    [
        (Drop("TC_INGRESS", "__netif_receive_skb_core", hook="ingress"), Confidence.PROVEN, ("packets to", "ingress")),
        (Drop("TC_EGRESS", "__dev_queue_xmit", hook="egress"), Confidence.PROVEN, ("packets to", "egress")),
        (Drop("TC_EGRESS", "__dev_queue_xmit", "reply", "egress"), Confidence.PROVEN, ("replies from", "egress")),
        (Drop("NOT_SPECIFIED", "__dev_queue_xmit"), Confidence.LIKELY, ("packets to", "egress")),
        (Drop("NOT_SPECIFIED", "__netif_receive_skb_core"), Confidence.LIKELY, ("packets to", "ingress")),
    ],
)
def test_a_filter_of_traffic_control_is_named_on_the_kernel_s_word(
    drop: Drop, confidence: Confidence, words: tuple[str, str]
) -> None:
    attempt = unanswered(HERE, drops=Known((drop,)), queue=roomy_queue(HERE))
    found = root(met(attempt, PASSES))
    assert (found.code, found.confidence) == ("firewall/silent", confidence)
    assert words[0] in found.title
    assert f"tc filter show dev lo {words[1]}" in found.remedies[0].summary


def test_a_rule_behind_a_filter_of_traffic_control_is_no_more_than_possible() -> None:
    attempt = unanswered(HERE, drops=Known((Drop("TC_INGRESS", "__netif_receive_skb_core", hook="ingress"),)))
    assert said(met(attempt, DROPS)) == [("firewall/silent", *PROVEN), ("firewall/rule-drops", *POSSIBLE)]


# the walk in the evidence


def test_the_walk_is_in_the_evidence_packet_by_packet_and_only_what_matters_for_everybody() -> None:
    mark = Step("syn", "output", rule("tcp dport 8080 meta mark set 7", chain="out"), "continue")
    passed = Step("syn", "postrouting", rule(policy=True, chain="post"), "accept")
    answer = Step("syn-ack", "output", rule("tcp sport 8080 accept", chain="out", handle=6), "accept")
    decider = rule("tcp sport 8080 drop")
    steps = (mark, passed, answer, Step("syn-ack", "input", decider, "drop"))
    walk = replace(walk_to("127.0.0.1", decider, packet="reply"), steps=steps)
    attempt = unanswered(HERE, drops=Known((Drop("NETFILTER_DROP", "nft_do_chain", packet="reply"),)))
    evidence = [one for one in root(met(attempt, walk)).evidence if one.source == "copy of the rules, traced"]
    assert [(one.text.partition(":")[0], one.detail) for one in evidence] == [
        ("syn output", False),
        ("syn postrouting", True),
        ("syn-ack output", True),
        ("syn-ack input", True),
    ]
    assert evidence[0].text.endswith("out handle 5: tcp dport 8080 meta mark set 7")


# a datagram that may not leave


@pytest.mark.parametrize("elsewhere", [True, False])
def test_a_forbidden_datagram_makes_silence_likely_where_nothing_else_excludes_the_rest(elsewhere: bool) -> None:
    attempt = replace(unanswered(HERE), datagram=Known(DatagramWitness(True, elsewhere)))
    snapshot = dialled(HERE, attempt, firewall=NEEDS_ROOT, seen_by=ALICE)
    assert said(snapshot) == [("firewall/silent", *LIKELY)]
    assert ("on their way out" in root(snapshot).title) is not elsewhere
    assert "proven for UDP only" in root(snapshot).explanation


def test_a_datagram_that_may_leave_tells_nothing() -> None:
    attempt = replace(unanswered(HERE), datagram=Known(DatagramWitness(False)))
    assert said(dialled(HERE, attempt, firewall=NEEDS_ROOT, seen_by=ALICE)) == [("firewall/silent", *POSSIBLE)]


# a refusal beside a listener, and no rules to read


@pytest.mark.parametrize(
    ("reset", "code"), [(KERNEL_RESET, "firewall/redirects"), (BLURRED_RESET, "firewall/rule-rejects")]
)
def test_a_refusal_beside_a_listener_is_a_hint_and_comes_with_the_command_that_settles_it(
    reset: Fact[ResetWitness], code: str
) -> None:
    snapshot = dialled(HERE, refused(HERE, reset), listeners=SERVER, firewall=NEEDS_ROOT, seen_by=ALICE)
    assert said(snapshot) == [(code, *POSSIBLE)]
    (found,) = (one for one in CHECK.judge(snapshot) if isinstance(one, Finding))
    assert found.remedies[0].commands == (Command(("netdiag", "run", HERE), needs_root=True),)


def test_a_refusal_beside_a_listener_is_nobody_s_where_the_rules_let_it_pass() -> None:
    assert said(met(refused(HERE, KERNEL_RESET), PASSES)) == []
