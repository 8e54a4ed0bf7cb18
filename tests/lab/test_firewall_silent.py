"""Rules in every place where a packet of a local connection passes, for both families and every backend."""

from __future__ import annotations

import pytest

from tests.lab.machine import NOBODY, ROOT, Machine, Server, start
from tests.lab.protocol import Diagnosis, Scenario, likely, no_cause, proven, works

DROPS, REJECTS, POLICY = "firewall/rule-drops", "firewall/rule-rejects", "firewall/policy-drops"
REPLY, REDIRECTS = "firewall/reply-dropped", "firewall/redirects"
QUEUE, LIMITS = "firewall/queue-without-reader", "firewall/limits-connections"
SILENT = (likely("firewall/silent"), no_cause())

FAMILIES = pytest.mark.parametrize("family", ["ip", "ip6"])
TOOLS = ("iptables-nft", "iptables-legacy", "ip6tables-nft", "ip6tables-legacy")
EVERY_TOOL = pytest.mark.parametrize("tool", TOOLS)


def address_of(family: str) -> str:
    """Loopback, by nft's family or by iptables' tool."""
    return "::1" if "6" in family else "127.0.0.1"


def target_of(family: str, machine: Machine) -> str:
    """What is dialled there."""
    return f"[::1]:{machine.port}" if "6" in family else f"127.0.0.1:{machine.port}"


def beside_another(machine: Machine, tool: str, table: str, chain: str, *rule: str) -> None:
    """A rule of iptables about this port, after the same one about another port."""
    words = ("-p", "tcp", "--dport")
    machine.run(tool, "-t", table, "-A", chain, *words, "9", *rule)
    machine.run(tool, "-t", table, "-A", chain, *words, str(machine.port), *rule)


@pytest.mark.parametrize(
    ("tool", "table", "chain"),
    [
        ("iptables-nft", "raw", "OUTPUT"),
        ("iptables-nft", "mangle", "POSTROUTING"),
        ("iptables-legacy", "mangle", "INPUT"),
        ("iptables-legacy", "security", "OUTPUT"),
        ("ip6tables-nft", "security", "INPUT"),
        ("ip6tables-nft", "mangle", "OUTPUT"),
        ("ip6tables-legacy", "raw", "PREROUTING"),
        ("ip6tables-legacy", "mangle", "POSTROUTING"),
    ],
)
def test_a_drop_in_a_table_that_few_look_into_is_named(
    machine: Machine, scenario: Scenario, tool: str, table: str, chain: str
) -> None:
    machine.serve("accepts", address_of(tool))
    beside_another(machine, tool, table, chain, "-j", "DROP")
    answer = scenario.says(proven(DROPS), as_nobody=SILENT, target=target_of(tool, machine))
    assert answer.cause
    assert answer.cause["title"].startswith(f"{tool} -t {table} {chain} rule 2 ")


@pytest.mark.parametrize(
    ("family", "hook"), [("ip", "prerouting"), ("ip6", "input"), ("ip6", "output"), ("ip", "postrouting")]
)
def test_an_answer_is_followed_to_the_rule_that_drops_it(
    machine: Machine, scenario: Scenario, family: str, hook: str
) -> None:
    machine.serve("accepts", address_of(family))
    machine.chain(hook, "tcp sport 9 drop", f"tcp sport {machine.port} drop", family=family)
    scenario.says(proven(REPLY), as_nobody=likely(REPLY), target=target_of(family, machine))


@EVERY_TOOL
def test_an_answer_dropped_by_any_backend_is_told_from_a_dropped_request(
    machine: Machine, scenario: Scenario, tool: str
) -> None:
    machine.serve("accepts", address_of(tool))
    machine.run(tool, "-A", "INPUT", "-p", "tcp", "--dport", str(machine.port), "-j", "ACCEPT")
    machine.run(tool, "-A", "INPUT", "-p", "tcp", "--sport", str(machine.port), "-j", "DROP")
    scenario.says(proven(REPLY), as_nobody=likely(REPLY), target=target_of(tool, machine))


@EVERY_TOOL
def test_a_policy_without_lo_is_named_on_both_families_and_backends(
    machine: Machine, scenario: Scenario, tool: str
) -> None:
    machine.serve("accepts", address_of(tool))
    established = ("-m", "conntrack", "--ctstate", "ESTABLISHED,RELATED", "-j", "ACCEPT")
    for chain in ("INPUT", "OUTPUT"):
        machine.run(tool, "-A", chain, *established)
        machine.run(tool, "-P", chain, "DROP")
    scenario.says(proven(POLICY), as_nobody=SILENT, target=target_of(tool, machine))


@pytest.mark.parametrize(
    ("family", "table", "hook"), [("ip", "netdev", "egress"), ("ip6", "netdev", "ingress"), ("ip", "inet", "ingress")]
)
def test_a_drop_before_or_behind_the_ip_layer_is_named(
    machine: Machine, scenario: Scenario, family: str, table: str, hook: str
) -> None:
    machine.serve("accepts", address_of(family))
    machine.nft(
        f"add table {table} early",
        f"add chain {table} early lo {{ type filter hook {hook} device lo priority 0 ; }}",
        f"add rule {table} early lo tcp dport 9 drop",
        f"add rule {table} early lo tcp dport {machine.port} drop",
    )
    scenario.says(proven(DROPS), as_nobody=SILENT, target=target_of(family, machine))


def test_an_answer_dropped_at_the_ingress_of_lo_is_told_from_a_dropped_request(
    machine: Machine, scenario: Scenario
) -> None:
    machine.serve("accepts", "::1")
    machine.nft(
        "add table netdev early",
        "add chain netdev early lo { type filter hook ingress device lo priority 0 ; }",
        f"add rule netdev early lo tcp sport {machine.port} drop",
    )
    scenario.says(proven(REPLY), as_nobody=likely(REPLY), target=f"[::1]:{machine.port}")


@EVERY_TOOL
def test_a_queue_on_the_way_out_that_nobody_reads_is_named(machine: Machine, scenario: Scenario, tool: str) -> None:
    machine.serve("accepts", address_of(tool))
    match = ("-p", "tcp", "--dport", str(machine.port), "-j", "NFQUEUE", "--queue-num", "7")
    machine.run(tool, "-A", "OUTPUT", *match)
    scenario.says(
        proven(QUEUE),
        as_nobody=SILENT,
        target=target_of(tool, machine),
        by_hand=lambda: machine.run(tool, "-D", "OUTPUT", *match),
    )


def test_a_legacy_drop_is_found_behind_clean_nft_rules_on_ipv6(machine: Machine, scenario: Scenario) -> None:
    machine.serve("accepts", "::1")
    machine.chain("input", f"tcp dport {machine.port} accept", family="ip6")
    machine.run("ip6tables-nft", "-A", "INPUT", "-p", "tcp", "--dport", str(machine.port), "-j", "ACCEPT")
    machine.run("ip6tables-legacy", "-A", "INPUT", "-p", "tcp", "--dport", str(machine.port), "-j", "DROP")
    answer = scenario.says(proven(DROPS), as_nobody=SILENT, target=f"[::1]:{machine.port}")
    assert answer.cause
    assert "ip6tables-legacy" in answer.cause["title"]


# rules that count


def spend(machine: Machine, family: str) -> None:
    """One connection, which is all that the rule allows."""
    script = f"import socket; socket.create_connection(({address_of(family)!r}, {machine.port}), timeout=2)"
    machine.run("/run/python3", "-I", "-S", "-c", script)


@FAMILIES
def test_a_rate_of_nft_that_is_spent_is_named(machine: Machine, scenario: Scenario, family: str) -> None:
    machine.serve("accepts", address_of(family))
    rule = f"tcp dport {machine.port} ct state new limit rate over 1/hour burst 1 packets drop"
    machine.chain("input", rule, family=family)
    spend(machine, family)
    by_hand = lambda: machine.nft(f"flush chain {family} guard input")  # noqa: E731
    scenario.says(likely(LIMITS), as_nobody=SILENT, target=target_of(family, machine), by_hand=by_hand)


@EVERY_TOOL
def test_a_rate_of_iptables_that_is_spent_is_named(machine: Machine, scenario: Scenario, tool: str) -> None:
    machine.serve("accepts", address_of(tool))
    rate = ("--hashlimit-above", "1/hour", "--hashlimit-burst", "1", "--hashlimit-name", "calls")
    match = ("-p", "tcp", "--syn", "--dport", str(machine.port), "-m", "hashlimit", *rate, "-j", "DROP")
    machine.run(tool, "-A", "INPUT", *match)
    spend(machine, tool)
    scenario.says(
        likely(LIMITS),
        as_nobody=SILENT,
        target=target_of(tool, machine),
        by_hand=lambda: machine.run(tool, "-D", "INPUT", *match),
    )


# rules for some users only


@EVERY_TOOL
def test_a_rule_for_this_user_only_stops_this_user_only(machine: Machine, scenario: Scenario, tool: str) -> None:
    machine.serve("accepts", address_of(tool))
    beside_another(machine, tool, "filter", "OUTPUT", "-m", "owner", "--uid-owner", str(NOBODY), "-j", "DROP")
    target = target_of(tool, machine)
    scenario.says(works(), as_nobody=SILENT, target=target)
    theirs = machine.netdiag("run", "--json", target, uid=NOBODY)
    assert theirs.cause
    (remedy,) = theirs.cause["remedies"]
    assert "If it works for root" in remedy["summary"]


@EVERY_TOOL
def test_a_rule_for_root_only_is_named_for_root(machine: Machine, scenario: Scenario, tool: str) -> None:
    machine.serve("accepts", address_of(tool))
    beside_another(machine, tool, "filter", "OUTPUT", "-m", "owner", "--uid-owner", str(ROOT), "-j", "DROP")
    scenario.says(proven(DROPS), as_nobody=works(), target=target_of(tool, machine))


# nat and conntrack


@EVERY_TOOL
def test_a_destination_nat_to_a_dead_port_hides_a_healthy_server(
    machine: Machine, scenario: Scenario, tool: str
) -> None:
    machine.serve("accepts", address_of(tool))
    dead = "[::1]:9" if "6" in tool else "127.0.0.1:9"
    beside_another(machine, tool, "nat", "OUTPUT", "-j", "DNAT", "--to-destination", dead)
    scenario.says(proven(REDIRECTS), as_nobody=no_cause(), target=target_of(tool, machine))


@EVERY_TOOL
def test_loopback_that_is_not_tracked_meets_a_policy_that_asks_for_a_state(
    machine: Machine, scenario: Scenario, tool: str
) -> None:
    machine.serve("accepts", address_of(tool))
    machine.run(tool, "-t", "raw", "-A", "OUTPUT", "-o", "lo", "-j", "NOTRACK")
    machine.run(tool, "-A", "INPUT", "-m", "conntrack", "--ctstate", "NEW,ESTABLISHED", "-j", "ACCEPT")
    machine.run(tool, "-P", "INPUT", "DROP")
    scenario.says(proven(POLICY), as_nobody=SILENT, target=target_of(tool, machine))


@FAMILIES
def test_loopback_that_nft_does_not_track_meets_a_policy_that_asks_for_a_state(
    machine: Machine, scenario: Scenario, family: str
) -> None:
    machine.serve("accepts", address_of(family))
    machine.nft(
        f"add table {family} early",
        f"add chain {family} early out {{ type filter hook output priority -300 ; }}",
        f"add rule {family} early out oifname lo notrack",
    )
    machine.chain("input", "ct state new,established accept", family=family, policy="drop")
    scenario.says(proven(POLICY), as_nobody=SILENT, target=target_of(family, machine))


# every way to say no, and the errno that a client shows for it

V4 = {
    "icmp net-unreachable": "ENETUNREACH",
    "icmp host-unreachable": "EHOSTUNREACH",
    "icmp prot-unreachable": "ENOPROTOOPT",
    "icmp port-unreachable": "ECONNREFUSED",
    "icmp net-prohibited": "ENETUNREACH",
    "icmp host-prohibited": "EHOSTUNREACH",
    "icmp admin-prohibited": "EHOSTUNREACH",
    "tcp reset": "ECONNREFUSED",
}
V6 = {
    "icmpv6 no-route": "ENETUNREACH",
    "icmpv6 admin-prohibited": "EACCES",
    "icmpv6 addr-unreachable": "EHOSTUNREACH",
    "icmpv6 port-unreachable": "ECONNREFUSED",
    "icmpv6 policy-fail": "EACCES",
    "icmpv6 reject-route": "EACCES",
    "tcp reset": "ECONNREFUSED",
}
WAYS = [("ip", "input", *pair) for pair in V4.items()] + [("ip6", "input", *pair) for pair in V6.items()]
WAYS_OUT = [("ip", "output", "icmp prot-unreachable", "ENOPROTOOPT"), ("ip6", "output", "icmpv6 policy-fail", "EACCES")]


@pytest.mark.parametrize(("family", "hook", "way", "errno"), [*WAYS, *WAYS_OUT])
def test_every_kind_of_reject_is_told_from_a_closed_port(
    machine: Machine, scenario: Scenario, family: str, hook: str, way: str, errno: str
) -> None:
    machine.serve("accepts", address_of(family))
    rules = (f"tcp dport {machine.port + 1} reject", f"tcp dport {machine.port} reject with {way}")
    machine.chain(hook, *rules, family=family)
    answer = scenario.says(proven(REJECTS), as_nobody=likely(REJECTS), target=target_of(family, machine))
    assert answer.report["attempts"][0]["errno"] == errno
    assert answer.report["attempts"][0]["ms"] < 1000, "the kernel tells of an ICMP error at once"


# what a datagram tells an ordinary user of a rule on the way out


def as_nobody(machine: Machine, scenario: Scenario, target: str, *expected: Diagnosis) -> str:
    """What an ordinary user is told, evidence and all."""
    return str(scenario.diagnose((target,), NOBODY, expected).report["findings"])


def everything_out(machine: Machine, way: str) -> None:
    """A rule that drops what leaves for this port, whatever the protocol."""
    port = str(machine.port)
    if way.startswith("nft"):
        family, hook = way.split()[1:]
        machine.chain(hook, f"meta l4proto {{ tcp, udp }} th dport {port} drop", family=family)
        return
    for protocol in ("tcp", "udp"):
        machine.run(way, "-A", "OUTPUT", "-p", protocol, "--dport", port, "-j", "DROP")


@pytest.mark.parametrize(
    ("way", "serving"),
    [("nft ip output", True), ("nft ip6 output", False), ("nft ip postrouting", False)]
    + [(tool, "nft" in tool) for tool in TOOLS],
)
def test_a_datagram_tells_an_ordinary_user_that_packets_are_dropped_on_their_way_out(
    machine: Machine, scenario: Scenario, way: str, serving: bool
) -> None:
    if serving:
        machine.serve("accepts", address_of(way))
    everything_out(machine, way)
    told = as_nobody(machine, scenario, target_of(way, machine), likely("firewall/silent"))
    assert "vanish on their way out" in told
    assert "EPERM" in told
    assert "proven for UDP only" in told


def test_a_policy_for_everything_is_not_called_one_for_this_port(machine: Machine, scenario: Scenario) -> None:
    machine.serve()
    machine.chain("output", "tcp dport 22 accept", policy="drop")
    told = as_nobody(machine, scenario, f"127.0.0.1:{machine.port}", likely("firewall/silent"))
    assert "vanish on this machine" in told
    assert "and to another port there" in told


@pytest.mark.parametrize("hook", ["input", "output"])
def test_a_rule_about_tcp_alone_or_on_the_way_in_forbids_no_datagram(
    machine: Machine, scenario: Scenario, hook: str
) -> None:
    machine.serve()
    matches = {"output": f"tcp dport {machine.port}", "input": f"meta l4proto {{ tcp, udp }} th dport {machine.port}"}
    machine.chain(hook, f"{matches[hook]} drop")
    told = as_nobody(machine, scenario, f"127.0.0.1:{machine.port}", likely("firewall/silent"))
    assert "EPERM" not in told


DATAGRAMS = """
import socket, sys, time
one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
one.bind(("127.0.0.1", int(sys.argv[1])))
print("ready", flush=True)
one.recvfrom(100)
open(sys.argv[2], "w").close()
time.sleep(60)
"""


def test_no_datagram_ever_reaches_a_program(machine: Machine, scenario: Scenario) -> None:
    machine.serve()
    machine.chain("input", f"tcp dport {machine.port} drop")
    met = machine.scratch / "met"
    argv = ["/run/python3", "-I", "-S", "-c", DATAGRAMS, str(machine.port), str(met)]
    machine.servers.append(Server(start(machine.inside(argv))))
    for uid in (NOBODY, ROOT):
        machine.netdiag("run", "--json", f"127.0.0.1:{machine.port}", uid=uid)
    assert not met.exists()
