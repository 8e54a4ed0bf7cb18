"""What the loopback check says, and when it keeps silent."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from checks import loopback
from diagnose.model.attempt import Attempt, BindAttempt, Outcome
from diagnose.model.fact import NOT_LINUX, NOT_NEEDED, Fact, Known, Missing, Reason, Unknown
from diagnose.model.finding import Confidence, Finding, Severity
from diagnose.model.names import Resolution, ResolvedAddress
from diagnose.model.network import (
    Interface,
    Links,
    LocalRoute,
    PortPolicy,
    RouteKind,
    RouteLookup,
    Routing,
    RoutingRule,
    family_of,
)
from diagnose.model.snapshot import Snapshot, Vantage
from diagnose.model.target import Intent, Scope, Target

LO = Interface("lo", True, ("127.0.0.1", "::1"))
LO_DOWN = Interface("lo", False, ("127.0.0.1",))
ETH = Interface("eth0", True, ("192.0.2.5",))
LOCAL_FIRST = RoutingRule("ipv4", 0, "lookup", 255, "from all")
MAIN = RoutingRule("ipv4", 32766, "lookup", 254, "from all")
LOCAL_ENTRY = LocalRoute("ipv4", 255, "local", "127.0.0.0/8", "lo")
LOCAL = RouteLookup("127.0.0.1", RouteKind.LOCAL, "lo", table=255)
NO_ROUTE = RouteLookup("127.0.0.1", RouteKind.NO_ROUTE, errno="ENETUNREACH")
POLICY = PortPolicy(32768, 60999, (), 1024, False, False, False, False, False, True)


def attempt(address: str, outcome: Outcome = Outcome.UNREACHABLE, errno: str | None = "ENETUNREACH") -> Attempt:
    return Attempt(address=address, port=80, family=family_of(address), outcome=outcome, ms=0.1, errno=errno)


def routing(
    lookup: RouteLookup = LOCAL, *rules: RoutingRule, routes: tuple[LocalRoute, ...] = (LOCAL_ENTRY,)
) -> Routing:
    return Routing((lookup,), rules or (LOCAL_FIRST, MAIN), routes)


def snapshot(
    *attempts: Attempt,
    interfaces: tuple[Interface, ...] = (LO, ETH),
    routes: Fact[Routing] = NOT_NEEDED,
    policy: Fact[PortPolicy] = Known(POLICY),  # noqa: B008 - frozen
) -> Snapshot:
    addresses = tuple(ResolvedAddress(one.address, one.family) for one in attempts)
    return Snapshot(
        netdiag="0",
        started_at="2026-01-01T00:00:00.000Z",
        duration_ms=1.0,
        target=Target("localhost", "localhost", 80),
        intent=Intent.CONNECT,
        scope=Scope(1.0),
        vantage=Vantage("h", "linux", "6", "u", 1000, False, 1, None),
        names=Known(Resolution("localhost", addresses, 0.1)),
        attempts=attempts,
        links=Known(Links(interfaces)),
        routing=routes,
        policy=policy,
    )


def passive(*addresses: str, interfaces: tuple[Interface, ...]) -> Snapshot:
    seen = snapshot(*(attempt(address) for address in addresses), interfaces=interfaces)
    return replace(seen, attempts=(), scope=Scope(1.0, passive=True))


def bound(address: str, outcome: Outcome, interfaces: tuple[Interface, ...]) -> Snapshot:
    one = BindAttempt(
        address=address,
        port=80,
        family=family_of(address),
        outcome=outcome,
        errno=None if outcome is Outcome.BOUND else "EADDRNOTAVAIL",
        plain_outcome=outcome,
        plain_errno=None,
        ms=0.1,
    )
    return replace(snapshot(interfaces=interfaces), intent=Intent.BIND, binds=(one,))


def findings(seen: Snapshot) -> list[Finding]:
    return [said for said in loopback.judge(seen) if isinstance(said, Finding)]


def said(seen: Snapshot) -> list[tuple[str, Severity]]:
    return [(one.code, one.severity) for one in findings(seen)]


def missing(seen: Snapshot) -> list[str]:
    return [one.fact for one in loopback.judge(seen) if isinstance(one, Missing)]


def commands(finding: Finding) -> list[str]:
    return [" ".join(command.argv) for command in finding.remedies[0].commands]


def test_nothing_is_said_while_the_target_works() -> None:
    works = attempt("127.0.0.1", Outcome.CONNECTED, None)
    assert list(loopback.judge(snapshot(works, interfaces=(LO_DOWN,)))) == []
    assert list(loopback.judge(replace(snapshot(works), links=Unknown(Reason.FAILED)))) == []


@pytest.mark.parametrize("outcome", [Outcome.UNANSWERED, Outcome.UNREACHABLE, Outcome.ADDRESS_UNAVAILABLE])
@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "::ffff:127.0.0.1", "0.0.0.0", "192.0.2.5"])
def test_lo_that_is_down_blocks_every_address_of_this_machine(address: str, outcome: Outcome) -> None:
    assert said(snapshot(attempt(address, outcome), interfaces=(LO_DOWN, ETH))) == [
        ("loopback/interface-down", Severity.PROBLEM)
    ]


def test_lo_that_is_down_is_no_concern_of_another_machines_address() -> None:
    assert said(snapshot(attempt("198.51.100.1", Outcome.UNANSWERED), interfaces=(LO_DOWN, ETH))) == []


def test_lo_that_is_down_did_not_refuse() -> None:
    assert said(snapshot(attempt("127.0.0.1", Outcome.REFUSED), interfaces=(LO_DOWN,))) == []


def test_lo_that_is_down_explains_what_follows_from_it() -> None:
    (finding,) = findings(snapshot(attempt("127.0.0.1"), attempt("::1"), interfaces=(LO_DOWN,)))
    assert finding.confidence is Confidence.PROVEN
    assert {"loopback/address-missing", "loopback/route-missing", "firewall/silent"} <= set(finding.explains)
    assert commands(finding) == ["ip link set lo up"]
    assert len([one for one in finding.evidence if one.source == "connect(2)"]) == 2


def test_lo_that_is_down_is_a_verdict_without_sending_anything_where_nothing_else_is_the_target() -> None:
    assert said(passive("127.0.0.1", "::1", interfaces=(LO_DOWN,))) == [("loopback/interface-down", Severity.PROBLEM)]
    assert said(passive("127.0.0.1", "198.51.100.1", interfaces=(LO_DOWN,))) == [
        ("loopback/interface-down", Severity.WARNING)
    ]


def test_an_address_that_works_beside_a_missing_one_keeps_a_passive_look_from_a_verdict() -> None:
    seen = passive("::1", "127.0.0.1", interfaces=(Interface("lo", True, ("127.0.0.1",)),))
    seen = replace(seen, routing=Known(routing()))
    assert said(seen) == [("loopback/address-missing", Severity.WARNING)]


def test_a_bind_that_works_while_lo_is_down_is_warned_of() -> None:
    assert said(bound("127.0.0.1", Outcome.BOUND, (LO_DOWN,))) == [("loopback/interface-down", Severity.WARNING)]


def test_a_bind_for_want_of_the_address_is_explained() -> None:
    without = (Interface("lo", True, ("::1",)),)
    assert said(bound("127.0.0.1", Outcome.ADDRESS_UNAVAILABLE, without)) == [
        ("loopback/address-missing", Severity.PROBLEM)
    ]
    assert said(bound("::1", Outcome.ADDRESS_UNAVAILABLE, (LO_DOWN,))) == [
        ("loopback/interface-down", Severity.PROBLEM)
    ]


def test_a_bind_to_a_port_in_use_is_not_about_lo() -> None:
    assert said(bound("127.0.0.1", Outcome.ADDRESS_IN_USE, (LO_DOWN,))) == []


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.53"])
def test_a_missing_ipv4_address_is_named_with_the_command_that_puts_it_back(address: str) -> None:
    (finding,) = findings(snapshot(attempt(address), interfaces=(Interface("lo", True, ("::1",)),)))
    assert finding.code == "loopback/address-missing"
    assert commands(finding) == ["ip -4 addr add 127.0.0.1/8 dev lo"]


def test_a_missing_ipv6_address_behind_one_that_works_is_information() -> None:
    lo = Interface("lo", True, ("127.0.0.1",))
    gone = attempt("::1", Outcome.ADDRESS_UNAVAILABLE, "EADDRNOTAVAIL")
    works = attempt("127.0.0.1", Outcome.CONNECTED, None)
    assert said(snapshot(works, gone, interfaces=(lo,))) == [("loopback/address-missing", Severity.INFO)]
    assert said(snapshot(gone, works, interfaces=(lo,))) == [("loopback/address-missing", Severity.WARNING)]


def test_ipv6_that_is_switched_off_is_not_a_missing_address() -> None:
    gone = attempt("::1", Outcome.ADDRESS_UNAVAILABLE, "EADDRNOTAVAIL")
    lo = (Interface("lo", True, ("127.0.0.1",)),)
    for off in (replace(POLICY, ipv6_disabled_lo=True), replace(POLICY, ipv6_available=False)):
        nowhere = Known(routing(RouteLookup("::1", RouteKind.NO_ROUTE, errno="ENETUNREACH")))
        assert said(snapshot(gone, interfaces=lo, policy=Known(off), routes=nowhere)) == []


def test_without_the_sysctls_a_missing_ipv6_address_is_not_judged() -> None:
    gone = attempt("::1", Outcome.ADDRESS_UNAVAILABLE, "EADDRNOTAVAIL")
    seen = snapshot(gone, interfaces=(Interface("lo", True, ("127.0.0.1",)),), policy=Unknown(Reason.FAILED))
    assert said(seen) == []
    assert "port sysctls" in missing(seen)


def test_facts_that_are_not_known_are_missed_and_not_taken_for_fine() -> None:
    assert missing(replace(snapshot(attempt("127.0.0.1")), links=Unknown(Reason.FAILED))) == ["interfaces"]
    assert missing(snapshot(attempt("127.0.0.1"), routes=Unknown(Reason.DEADLINE))) == ["routes"]


def test_off_linux_the_routes_are_missed() -> None:
    mac = (Interface("lo0", True, ("127.0.0.1", "::1")),)
    seen = snapshot(attempt("127.0.0.1", Outcome.UNANSWERED), interfaces=mac, routes=NOT_LINUX)
    assert list(loopback.judge(seen)) == [Missing("routes", NOT_LINUX)]


@pytest.mark.parametrize("outcome", [Outcome.REFUSED, Outcome.UNANSWERED, Outcome.NOT_ACCEPTED, Outcome.RESET])
def test_a_failure_with_everything_in_place_is_not_about_lo(outcome: Outcome) -> None:
    assert list(loopback.judge(snapshot(attempt("127.0.0.1", outcome), routes=Known(routing())))) == []


def test_a_refusal_contradicts_a_lookup_that_fails() -> None:
    seen = snapshot(attempt("127.0.0.1", Outcome.REFUSED, "ECONNREFUSED"), routes=Known(routing(NO_ROUTE, MAIN)))
    assert said(seen) == []


def test_a_deleted_local_rule_is_put_back() -> None:
    (finding,) = findings(snapshot(attempt("127.0.0.1"), routes=Known(routing(NO_ROUTE, MAIN))))
    assert finding.code == "loopback/route-missing"
    assert commands(finding) == ["ip -4 rule add pref 0 lookup local"]
    assert "is missing" in finding.explanation


def test_only_the_entry_that_is_gone_is_put_back_and_the_preferred_source_comes_first() -> None:
    empty = Known(routing(NO_ROUTE, routes=()))
    (finding,) = findings(snapshot(attempt("127.0.0.1"), routes=empty))
    assert commands(finding) == [
        "ip -4 route add local 127.0.0.1 dev lo table local src 127.0.0.1",
        "ip -4 route add local 127.0.0.0/8 dev lo table local src 127.0.0.1",
    ]
    one_left = Known(
        routing(replace(NO_ROUTE, address="127.0.0.9"), routes=(replace(LOCAL_ENTRY, destination="127.0.0.1"),))
    )
    (finding,) = findings(snapshot(attempt("127.0.0.9"), routes=one_left))
    assert commands(finding) == ["ip -4 route add local 127.0.0.0/8 dev lo table local src 127.0.0.1"]


def test_a_rule_about_loopback_alone_is_deleted_by_its_number_and_all_its_words() -> None:
    rule = RoutingRule("ipv4", 20, "prohibit", None, "from all to 127.0.0.0/8")
    prohibited = RouteLookup("127.0.0.1", RouteKind.PROHIBIT, errno="EACCES")
    last = replace(LOCAL_FIRST, priority=50)
    seen = snapshot(attempt("127.0.0.1", Outcome.DENIED, "EACCES"), routes=Known(routing(prohibited, rule, last)))
    (finding,) = findings(seen)
    assert finding.title == "Routing prohibits this machine's own 127.0.0.1"
    assert commands(finding) == ["ip -4 rule del pref 20 from all to 127.0.0.0/8 prohibit"]
    assert finding.remedies[0].undo[0].argv == (
        *("ip", "-4", "rule", "add", "pref", "20", "from", "all", "to", "127.0.0.0/8", "prohibit"),
    )


def test_a_wide_rule_is_left_alone_and_the_local_table_asked_before_it() -> None:
    rule = RoutingRule("ipv4", 50, "lookup", 51, "from all")
    out = RouteLookup("127.0.0.1", RouteKind.UNICAST, "wg0", table=51)
    default = LocalRoute("ipv4", 51, "unicast", "default", "wg0")
    rules = (rule, replace(LOCAL_FIRST, priority=60), MAIN)
    known = Known(routing(out, *rules, routes=(default, LOCAL_ENTRY)))
    (finding,) = findings(snapshot(attempt("127.0.0.1", Outcome.UNANSWERED, None), routes=known))
    assert finding.code == "loopback/routed-elsewhere"
    assert finding.title == "127.0.0.1 is routed out of wg0 instead of lo"
    assert commands(finding) == ["ip -4 rule add pref 0 lookup local"]
    assert any("table 51: unicast default dev wg0" in one.text for one in finding.evidence)


def test_a_rule_whose_words_are_not_all_known_is_not_put_into_a_command() -> None:
    rule = RoutingRule("ipv4", 0, "prohibit", None, "from all ?25")
    prohibited = RouteLookup("127.0.0.1", RouteKind.PROHIBIT, errno="EACCES")
    seen = snapshot(attempt("127.0.0.1"), routes=Known(routing(prohibited, rule, LOCAL_FIRST)))
    (finding,) = findings(seen)
    assert finding.remedies[0].commands == ()


def test_rules_that_do_not_lead_to_what_the_kernel_said_give_no_command() -> None:
    seen = snapshot(attempt("127.0.0.1"), routes=Known(routing(NO_ROUTE)))
    (finding,) = findings(seen)
    assert finding.confidence is Confidence.PROVEN
    assert finding.remedies[0].commands == ()
    assert "could not be determined" in finding.explanation


def test_a_local_answer_of_the_lookup_is_enough_though_the_address_is_gone() -> None:
    seen = snapshot(attempt("127.0.0.1"), interfaces=(Interface("lo", True, ("::1",)),), routes=Known(routing()))
    assert said(seen) == []


def test_every_title_is_short_and_has_no_final_stop() -> None:
    long = Interface("lo", True, ("2001:db8:1111:2222:3333:4444:5555:6666",))
    lookup = RouteLookup(long.addresses[0], RouteKind.UNREACHABLE, errno="EHOSTUNREACH")
    seen = snapshot(attempt(long.addresses[0]), interfaces=(long,), routes=Known(Routing((lookup,), (), ())))
    (finding,) = findings(seen)
    assert len(finding.title) <= 80
    assert not finding.title.endswith(".")
