"""Routes, rules and lookups as the kernel tells them, and the remedies of the loopback check, executed."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import time

import pytest

from checks import loopback
from diagnose.model.attempt import Attempt
from diagnose.model.fact import Known
from diagnose.model.finding import Command, Confidence, Finding, Severity
from diagnose.model.names import Resolution, ResolvedAddress
from diagnose.model.network import LocalRoute, RouteKind, RouteLookup, Routing, RoutingRule, family_of
from diagnose.model.snapshot import Snapshot, Vantage
from diagnose.model.target import Intent, Scope, Target
from diagnose.probes import links, policy, routes
from diagnose.probes.connect import errno_name, outcome_of
from tests.lab_probes.namespace import in_namespace, sh

pytestmark = pytest.mark.lab

TUNNEL = """
ip link add tun9 type veth peer name tun9-far
ip addr add 10.9.0.1/24 dev tun9
ip link set tun9 up
ip link set tun9-far up
"""
VPN = f"""{TUNNEL}
ip route add default dev tun9 table 51
ip rule add pref 50 lookup 51
ip rule add pref 60 lookup local
ip rule del pref 0 lookup local
"""


def routing(*addresses: str, port: int = 0) -> Routing:
    fact = routes.look(addresses, port)
    assert isinstance(fact, Known)
    return fact.value


def lookup(address: str, port: int = 0) -> RouteLookup:
    found = routing(address, port=port).lookup(address)
    assert found is not None
    return found


def test_loopback_addresses_are_local_routes_by_lo() -> None:
    found = in_namespace("", lambda: routing("127.0.0.1", "::1", "::ffff:127.0.0.1", "0.0.0.0", "::"))
    assert [one.kind for one in found.lookups] == [RouteKind.LOCAL] * 5
    assert {one.device for one in found.lookups} == {"lo"}
    assert LocalRoute("ipv4", 255, "local", "127.0.0.0/8", "lo") in found.local_routes
    assert LocalRoute("ipv6", 255, "local", "::1", "lo") in found.local_routes
    assert RoutingRule("ipv4", 0, "lookup", 255, "from all") in found.rules


def test_another_machine_is_reached_by_its_gateway() -> None:
    script = f"{TUNNEL}\nip route add default via 10.9.0.2"
    found = in_namespace(script, lambda: lookup("192.0.2.7"))
    assert found == RouteLookup("192.0.2.7", RouteKind.UNICAST, "tun9", "10.9.0.2", None, 254)


@pytest.mark.parametrize(
    ("change", "kind", "name"),
    [
        ("ip rule del pref 0", RouteKind.NO_ROUTE, "ENETUNREACH"),
        ("ip rule add pref 1 prohibit; ip rule del pref 0", RouteKind.PROHIBIT, "EACCES"),
        ("ip rule add pref 1 blackhole; ip rule del pref 0", RouteKind.BLACKHOLE, "EINVAL"),
        ("ip rule add pref 1 unreachable; ip rule del pref 0", RouteKind.NO_ROUTE, "ENETUNREACH"),
        (
            "ip route add unreachable 127.0.0.0/8 table 7; ip rule add pref 7 lookup 7; ip rule del pref 0",
            RouteKind.UNREACHABLE,
            "EHOSTUNREACH",
        ),
    ],
)
def test_a_refused_lookup_says_by_its_errno_what_refused_it(change: str, kind: RouteKind, name: str) -> None:
    found = in_namespace(change, lambda: lookup("127.0.0.1"))
    assert (found.kind, found.errno) == (kind, name)


def test_the_lookup_is_made_for_the_port_where_a_rule_names_one() -> None:
    rule = "ip rule add pref 0 ipproto tcp dport 81 prohibit"
    script = f"ip rule add pref 1 lookup local; {rule}; ip rule del pref 0 lookup local"
    open_, shut = in_namespace(script, lambda: (lookup("127.0.0.1", 80), lookup("127.0.0.1", 81)))
    assert open_.kind is RouteKind.LOCAL
    assert shut.kind is RouteKind.PROHIBIT


def test_a_rule_is_told_in_the_words_that_ip_rule_takes() -> None:
    words = "not from 10.0.0.0/8 to 127.0.0.0/8 fwmark 0x3/0xff iif lo uidrange 0-70 ipproto tcp dport 80-90"
    commands = f"ip -4 rule add pref 9 {words} prohibit"
    found = in_namespace(commands, lambda: routing("127.0.0.1"))
    rule = next(one for one in found.rules if one.priority == 9)
    assert (rule.selector, rule.action) == (words, "prohibit")
    in_namespace(commands, lambda: sh(f"ip -4 rule del pref 9 {rule.selector} {rule.action}"))


def test_an_ordinary_user_gets_the_same_routing() -> None:
    def as_nobody() -> tuple[Routing, Routing]:
        mine = routing("127.0.0.1")
        os.setuid(65534)
        return mine, routing("127.0.0.1")

    mine, theirs = in_namespace(VPN, as_nobody)
    assert mine == theirs


# the check on real faults: its finding, its first remedy, and its undo


def snapshot(address: str, number: int) -> Snapshot:
    attempt = Attempt(
        address=address,
        port=80,
        family=family_of(address),
        outcome=outcome_of(number),
        ms=1.0,
        errno=errno_name(number),
    )
    return Snapshot(
        netdiag="0",
        started_at="2026-01-01T00:00:00.000Z",
        duration_ms=1.0,
        target=Target(address, address, 80),
        intent=Intent.CONNECT,
        scope=Scope(1.0),
        vantage=Vantage("h", "linux", "6", "root", 0, True, 1, None),
        names=Known(Resolution(address, (ResolvedAddress(address, family_of(address)),), 0.1)),
        attempts=(attempt,),
        links=links.look(),
        routing=routes.look((address,)),
        policy=policy.look(),
    )


def dial(address: str) -> int:
    """The errno of a connect to a port where nothing listens; ETIMEDOUT for silence."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as sock:
        sock.settimeout(0.05)
        number = sock.connect_ex((address, 80))
        return errno.ETIMEDOUT if number == errno.EAGAIN else number


def found(address: str) -> list[Finding]:
    return [one for one in loopback.judge(snapshot(address, dial(address))) if isinstance(one, Finding)]


def execute(commands: tuple[Command, ...]) -> None:
    for command in commands:
        subprocess.run(command.argv, check=True, capture_output=True)


def tables() -> str:
    """What a remedy may change, and its undo must give back."""
    commands = (
        "ip -4 rule",
        "ip -6 rule",
        "ip addr show lo",
        "ip -4 route show table local",
        "ip -6 route show table local",
    )
    return "\n".join(
        line.replace(" proto kernel", "")
        for command in commands
        for line in subprocess.run(command.split(), check=True, capture_output=True, text=True).stdout.splitlines()
    )


FAULTS = [
    ("ip link set lo down", "127.0.0.1", "loopback/interface-down"),
    ("ip link set lo down", "::1", "loopback/interface-down"),
    (f"{TUNNEL} ip link set lo down", "10.9.0.1", "loopback/interface-down"),
    ("ip addr del 127.0.0.1/8 dev lo", "127.0.0.1", "loopback/address-missing"),
    ("ip addr del 127.0.0.1/8 dev lo", "127.0.0.53", "loopback/address-missing"),
    (
        f"{TUNNEL} ip addr del 127.0.0.1/8 dev lo; ip route add default via 10.9.0.2",
        "127.0.0.1",
        "loopback/address-missing",
    ),
    ("ip addr del ::1/128 dev lo", "::1", "loopback/address-missing"),
    ("ip rule del pref 0", "127.0.0.1", "loopback/route-missing"),
    ("ip route flush table local", "127.0.0.1", "loopback/route-missing"),
    ("ip rule del pref 0; ip route flush table local", "127.0.0.1", "loopback/route-missing"),
    ("ip -6 route flush table local", "::1", "loopback/route-missing"),
    ("ip addr del 127.0.0.1/8 dev lo; ip addr add 127.0.0.1/32 dev lo", "127.0.0.9", "loopback/route-missing"),
    (
        "ip rule add pref 50 lookup local; ip rule add pref 20 to 127.0.0.0/8 prohibit; ip rule del pref 0",
        "127.0.0.1",
        "loopback/route-missing",
    ),
    (
        "ip rule add pref 50 lookup local; ip rule add pref 20 blackhole; ip rule del pref 0",
        "127.0.0.1",
        "loopback/route-missing",
    ),
    (
        "ip rule add pref 0 prohibit; ip rule del pref 0 lookup local; ip rule add pref 0 lookup local",
        "127.0.0.1",
        "loopback/route-missing",
    ),
    (
        "ip -6 rule add pref 10 prohibit; ip -6 rule add pref 20 lookup local; ip -6 rule del pref 0",
        "::1",
        "loopback/route-missing",
    ),
    ("ip route replace prohibit 127.0.0.1 table local", "127.0.0.1", "loopback/route-missing"),
    (
        "ip route add unreachable 127.0.0.0/8 table 7; ip rule add pref 7 lookup 7; ip rule add pref 8 lookup local; "
        "ip rule del pref 0",
        "127.0.0.1",
        "loopback/route-missing",
    ),
    (VPN, "127.0.0.1", "loopback/routed-elsewhere"),
    (f"{TUNNEL} ip route add default via 10.9.0.2; ip rule del pref 0", "127.0.0.1", "loopback/routed-elsewhere"),
    (
        f"{TUNNEL} ip route add default via 10.9.0.2; ip route flush table local",
        "127.0.0.1",
        "loopback/routed-elsewhere",
    ),
    (f"{TUNNEL} ip route del local 10.9.0.1 dev tun9 table local", "10.9.0.1", "loopback/routed-elsewhere"),
]


@pytest.mark.parametrize(("change", "address", "code"), FAULTS)
def test_each_fault_is_proven_mended_by_the_first_remedy_and_back_after_its_undo(
    change: str, address: str, code: str
) -> None:
    def scenario() -> tuple[list[Finding], int, list[Finding], str, str]:
        said, before = found(address), tables()
        execute(said[0].remedies[0].commands)
        time.sleep(0.02 if ":" in address else 0)  # the kernel makes an IPv6 address usable a moment later
        mended, after_mending = dial(address), found(address)
        execute(said[0].remedies[0].undo)
        return said, mended, after_mending, before, tables()

    said, mended, after_mending, before, after = in_namespace(change, scenario)
    assert [(one.code, one.confidence, one.severity) for one in said] == [(code, Confidence.PROVEN, Severity.PROBLEM)]
    assert mended == errno.ECONNREFUSED
    assert after_mending == []
    if code != "loopback/interface-down":  # the kernel puts the addresses on lo when it comes up for the first time
        assert sorted(before.splitlines()) == sorted(after.splitlines())


def test_ipv6_that_is_switched_off_is_left_to_the_check_of_names() -> None:
    assert in_namespace("sysctl -qw net.ipv6.conf.lo.disable_ipv6=1", lambda: found("::1")) == []


def test_a_healthy_machine_that_refuses_is_not_accused() -> None:
    assert in_namespace(TUNNEL, lambda: [*found("127.0.0.1"), *found("::1"), *found("10.9.0.1")]) == []


def test_an_address_of_another_machine_is_not_judged() -> None:
    assert in_namespace(TUNNEL, lambda: found("192.0.2.1")) == []
