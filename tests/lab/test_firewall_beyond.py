"""Two faults in a row: a rule, and behind it something that would not work without the rule either."""

from __future__ import annotations

from typing import Any

import pytest

from tests.lab.machine import NOBODY, ROOT, Answer, Machine
from tests.lab.protocol import Scenario, likely, no_cause, proven, works

DROPS, REJECTS = "firewall/rule-drops", "firewall/rule-rejects"
POLICY, REPLY = "firewall/policy-drops", "firewall/reply-dropped"
CLOSED = "refused/nothing-listening"
ONLY_THIS = "This lifts this block only"

NATIVE = {
    "a drop": ("ip", "input", "tcp dport PORT drop", DROPS),
    "a reset": ("ip", "output", "tcp dport PORT reject with tcp reset", REJECTS),
    "an ICMP error": ("inet", "input", "tcp dport PORT reject with icmpx host-unreachable", REJECTS),
    "a verdict map": ("ip", "input", "tcp dport vmap { PORT : drop }", DROPS),
    "a dropped answer": ("ip", "output", "tcp sport PORT drop", REPLY),
    "a policy": ("inet", "input", "tcp dport 22 accept", POLICY),
    "an ICMPv6 error": ("ip6", "input", "tcp dport PORT reject with icmpv6 admin-prohibited", REJECTS),
    "an IPv6 reset": ("inet", "prerouting", "meta nfproto ipv6 tcp dport PORT reject with tcp reset", REJECTS),
}
COMMANDS = {
    "a reject of iptables-nft": ("iptables-nft -A INPUT -p tcp --dport PORT -j REJECT", REJECTS),
    "a drop of iptables-legacy": ("iptables-legacy -A OUTPUT -p tcp --dport PORT -j DROP", DROPS),
    "a policy of ip6tables-legacy": ("ip6tables-legacy -P INPUT DROP", POLICY),
    "a reset of ip6tables-nft": (
        "ip6tables-nft -A INPUT -p tcp --dport PORT -j REJECT --reject-with tcp-reset",
        REJECTS,
    ),
}


def first(answer: Answer) -> dict[str, Any]:
    """The first remedy."""
    assert answer.cause
    found: dict[str, Any] = answer.cause["remedies"][0]
    return found


def lifts_the_first_only(answer: Answer) -> None:
    """Every command that is offered says that it does not fix the whole."""
    assert answer.cause
    offered = [one for one in answer.cause["remedies"] if one["commands"]]
    assert offered
    for remedy in offered:
        assert ONLY_THIS in remedy["summary"], remedy
        assert not (remedy["rehearsal"] and remedy["rehearsal"]["mended"]), remedy


def weaker(code: str) -> tuple[Any, ...]:
    """What an ordinary user may be told of the rule."""
    return (*(likely(one) for one in ("firewall/silent", code)), no_cause())


@pytest.mark.parametrize("fault", NATIVE)
def test_a_rule_of_nft_in_front_of_a_port_that_nothing_listens_on_is_one_of_two_faults(
    machine: Machine, scenario: Scenario, fault: str
) -> None:
    family, hook, rule, code = NATIVE[fault]
    machine.chain(
        hook, rule.replace("PORT", str(machine.port)), family=family, policy="drop" if code == POLICY else "accept"
    )
    machine.serve("accepts", "127.0.0.1", machine.port + 20)
    address = "[::1]" if "6" in fault else "127.0.0.1"
    answer = scenario.says(
        proven(code), as_nobody=weaker(code), target=f"{address}:{machine.port}", then=proven(CLOSED)
    )
    assert CLOSED in answer.codes
    lifts_the_first_only(answer)


@pytest.mark.parametrize("fault", COMMANDS)
def test_a_rule_of_iptables_in_front_of_a_port_that_nothing_listens_on_is_one_of_two_faults(
    machine: Machine, scenario: Scenario, fault: str
) -> None:
    command, code = COMMANDS[fault]
    machine.run(*command.replace("PORT", str(machine.port)).split())
    address = "[::1]" if command.startswith("ip6") else "127.0.0.1"
    answer = scenario.says(
        proven(code), as_nobody=weaker(code), target=f"{address}:{machine.port}", then=proven(CLOSED)
    )
    assert CLOSED in answer.codes
    lifts_the_first_only(answer)


@pytest.mark.parametrize("rule", ["drop", "reject with tcp reset", "reject"])
def test_a_rule_in_front_of_a_stopped_server_is_one_of_two_faults(
    machine: Machine, scenario: Scenario, rule: str
) -> None:
    machine.serve().stop()
    machine.chain("input", f"tcp dport {machine.port} {rule}")
    code, stopped = DROPS if rule == "drop" else REJECTS, "hung/process-stopped"
    answer = scenario.says(
        proven(code), as_nobody=(*weaker(code), likely(stopped), proven(stopped)), then=proven(stopped)
    )
    assert stopped in answer.codes
    lifts_the_first_only(answer)


@pytest.mark.parametrize("rule", ["drop", "reject with tcp reset"])
def test_a_rule_in_front_of_a_full_accept_queue_is_one_of_two_faults(
    machine: Machine, scenario: Scenario, rule: str
) -> None:
    machine.serve("full")
    machine.chain("input", f"tcp dport {machine.port} {rule}")
    code, full = DROPS if rule == "drop" else REJECTS, "hung/accept-queue-full"
    answer = scenario.says(proven(code), as_nobody=(*weaker(code), likely(full), proven(full)), then=proven(full))
    assert full in answer.codes
    lifts_the_first_only(answer)


@pytest.mark.parametrize("rule", ["drop", "reject with tcp reset"])
@pytest.mark.parametrize(("address", "cause"), [("::1", "other-family"), ("127.0.0.2", "other-address")])
def test_a_rule_in_front_of_a_server_that_has_another_address_is_one_of_two_faults(
    machine: Machine, scenario: Scenario, rule: str, address: str, cause: str
) -> None:
    machine.serve("accepts", address)
    machine.chain("input", f"ip daddr 127.0.0.1 tcp dport {machine.port} {rule}")
    code, other = DROPS if rule == "drop" else REJECTS, f"refused/{cause}"
    answer = scenario.says(proven(code), as_nobody=(*weaker(code), likely(other), proven(other)), then=proven(other))
    assert other in answer.codes
    lifts_the_first_only(answer)


def test_a_reject_in_front_of_a_redirect_to_a_live_port_is_the_only_fault(machine: Machine, scenario: Scenario) -> None:
    machine.serve("accepts", "127.0.0.1", machine.port + 7)
    machine.nft(
        "add table ip lead",
        "add chain ip lead out { type nat hook output priority -100 ; }",
        f"add rule ip lead out tcp dport {machine.port} redirect to :{machine.port + 7}",
    )
    machine.chain("output", f"tcp dport {machine.port} reject with tcp reset", priority=-200)
    answer = scenario.says(proven(REJECTS), as_nobody=weaker(REJECTS))
    assert CLOSED not in answer.codes
    assert first(answer)["rehearsal"]["mended"]


def test_a_drop_in_front_of_a_redirect_to_a_dead_port_is_lifted_with_the_redirect(
    machine: Machine, scenario: Scenario
) -> None:
    machine.serve()
    machine.nft(
        "add table ip lead",
        "add chain ip lead out { type nat hook output priority -100 ; }",
        f"add rule ip lead out tcp dport {machine.port} redirect to :{machine.port + 7}",
    )
    machine.chain("output", f"tcp dport {machine.port} drop", priority=-200)
    answer = scenario.says(proven(DROPS), as_nobody=weaker(DROPS))
    assert first(answer)["rehearsal"]["mended"]
    assert len(first(answer)["commands"]) == 2


def leads_on(answer: Answer, where: str, rule: str) -> None:
    """The far end is named, and the rule that leads there is left alone."""
    assert answer.cause
    assert f"NAT leads the connection on to {where}, where nothing listens" in answer.cause["explanation"]
    assert CLOSED not in answer.codes
    lifts_the_first_only(answer)
    for remedy in answer.cause["remedies"]:
        assert len(remedy["commands"]) == 1, remedy
        assert rule not in str(remedy["commands"])
        assert "one after the other" not in remedy["summary"]


@pytest.mark.parametrize("stops", ["drop", "reject with tcp reset", "reject"])
@pytest.mark.parametrize("hook", ["output", "input"])
def test_a_rule_behind_a_dnat_to_a_dead_port_is_lifted_without_the_dnat(
    machine: Machine, scenario: Scenario, stops: str, hook: str
) -> None:
    machine.run("ip", "address", "add", "10.9.8.1/32", "dev", "lo")
    machine.serve("accepts", "10.9.8.1", machine.port)
    machine.nft(
        "add table ip lead",
        "add chain ip lead out { type nat hook output priority -100 ; }",
        f"add rule ip lead out ip daddr 127.0.0.1 tcp dport {machine.port} dnat to 10.9.8.1:{machine.port + 7}",
    )
    machine.chain(hook, f"tcp dport {machine.port + 7} {stops}")
    code = DROPS if stops == "drop" else REJECTS
    answer = scenario.diagnose((f"127.0.0.1:{machine.port}",), ROOT, proven(code))
    leads_on(answer, f"10.9.8.1:{machine.port + 7}", "lead")


def test_a_reject_behind_an_ipv6_redirect_to_a_dead_port_is_lifted_without_the_redirect(
    machine: Machine, scenario: Scenario
) -> None:
    port, to = str(machine.port), str(machine.port + 7)
    machine.run(*f"ip6tables-nft -t nat -A OUTPUT -p tcp --dport {port} -j REDIRECT --to-ports {to}".split())
    machine.run(*f"ip6tables-nft -A INPUT -p tcp --dport {to} -j REJECT".split())
    answer = scenario.diagnose((f"[::1]:{port}",), ROOT, proven(REJECTS))
    leads_on(answer, f"[::1]:{to}", "nat")


def test_a_drop_behind_a_redirect_to_a_live_port_is_the_only_fault(machine: Machine, scenario: Scenario) -> None:
    machine.serve("accepts", "127.0.0.1", machine.port + 7)
    machine.nft(
        "add table ip lead",
        "add chain ip lead out { type nat hook output priority -100 ; }",
        f"add rule ip lead out tcp dport {machine.port} redirect to :{machine.port + 7}",
    )
    machine.chain("input", f"tcp dport {machine.port + 7} drop")
    answer = scenario.says(proven(DROPS), as_nobody=weaker(DROPS))
    assert CLOSED not in answer.codes
    assert first(answer)["rehearsal"]["mended"]
    assert len(first(answer)["commands"]) == 1


# ------ what NAT serves on another address of the machine


def node_ports(machine: Machine, served: str, *, table: str = "kube-proxy") -> None:
    """kube-proxy's nftables mode: a NodePort on the node's address, and a reject of the same port on loopback."""
    machine.run("ip", "address", "add", "10.9.8.1/24", "dev", "lo")
    machine.nft(
        f"table ip {table} {{",
        "set nodeport-ips { type ipv4_addr; elements = { 10.9.8.1 } }",
        "map no-endpoint-services { type ipv4_addr . inet_proto . inet_service : verdict; flags interval; elements = {",
        f"127.0.0.0/8 . tcp . {machine.port} : goto reject-chain, 10.96.0.5 . tcp . 80 : goto reject-chain }} }}",
        "map service-nodeports { type inet_proto . inet_service : verdict;",
        f"elements = {{ tcp . {machine.port} : goto external-web }} }}",
        "chain reject-chain { reject; }",
        "chain filter-output { type filter hook output priority -110; ct state new jump service-endpoints-check; }",
        "chain service-endpoints-check { ip daddr . meta l4proto . th dport vmap @no-endpoint-services; }",
        "chain nat-output { type nat hook output priority -100; jump services; }",
        "chain services { ip daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports; }",
        f"chain external-web {{ meta l4proto tcp dnat to {served}; }}",
        "}",
    )


@pytest.mark.parametrize("table", ["kube-proxy", "ours"])
def test_a_node_port_that_is_rejected_on_loopback_is_served_on_the_node_s_address(
    machine: Machine, scenario: Scenario, table: str
) -> None:
    node_ports(machine, f"10.9.8.1:{machine.port + 5}", table=table)
    machine.serve("accepts", "10.9.8.1", machine.port + 5)
    answer = scenario.says(proven(REJECTS), as_nobody=(likely(REJECTS), no_cause()))
    assert answer.cause
    assert [one["argv"] for remedy in answer.cause["remedies"] for one in remedy["commands"]] == [
        ["netdiag", "run", f"10.9.8.1:{machine.port}"]
    ]
    assert "accept" not in str([remedy["commands"] for remedy in answer.cause["remedies"]])


def test_a_node_port_whose_far_end_is_down_is_not_offered_as_a_way_round(machine: Machine, scenario: Scenario) -> None:
    node_ports(machine, f"10.9.8.1:{machine.port + 5}")
    answer = scenario.diagnose((f"127.0.0.1:{machine.port}",), ROOT, proven(REJECTS))
    lifts_the_first_only(answer)


# ------ what clients feel


@pytest.mark.parametrize("kind", ["", "with tcp reset"])
@pytest.mark.parametrize("family", ["ip", "ip6"])
def test_a_reject_whose_own_answer_is_stopped_too_is_silence_for_the_client(
    machine: Machine, scenario: Scenario, family: str, kind: str
) -> None:
    address = "[::1]" if family == "ip6" else "127.0.0.1"
    machine.serve("accepts", address.strip("[]"))
    machine.chain("input", f"meta l4proto tcp reject {kind}" if kind else "reject", family=family)
    target = f"{address}:{machine.port}"
    answer = scenario.says(proven(REJECTS), as_nobody=weaker(REJECTS), target=target)
    assert answer.cause
    assert answer.report["attempts"][0]["outcome"] == "unanswered"
    assert "gets no error" in answer.cause["explanation"]
    assert "as if nothing listened" not in answer.cause["explanation"]


@pytest.mark.parametrize(
    ("family", "reject", "errno"),
    [
        ("ip", "icmp admin-prohibited", "EHOSTUNREACH"),
        ("ip", "icmp net-unreachable", "ENETUNREACH"),
        ("ip6", "icmpv6 admin-prohibited", "EACCES"),
        ("ip6", "icmpv6 no-route", "ENETUNREACH"),
    ],
)
def test_an_icmp_error_is_not_said_to_look_as_if_nothing_listened(
    machine: Machine, scenario: Scenario, family: str, reject: str, errno: str
) -> None:
    address = "[::1]" if family == "ip6" else "127.0.0.1"
    machine.serve("accepts", address.strip("[]"))
    machine.chain("input", f"tcp dport {machine.port} reject with {reject}", family=family)
    for uid in (ROOT, NOBODY):
        wanted = proven(REJECTS) if uid == ROOT else likely(REJECTS)
        answer = scenario.diagnose((f"{address}:{machine.port}",), uid, wanted)
        assert answer.cause
        assert errno in answer.cause["explanation"]
        assert "as if nothing listened" not in answer.cause["explanation"]


def test_a_rule_with_a_long_name_has_a_title_of_whole_words(machine: Machine, scenario: Scenario) -> None:
    machine.serve()
    table, chain = "a-table-of-some-product-with-a-long-name", "packets_that_come_in_by_the_loopback_interface"
    machine.nft(
        f"add table inet {table}",
        f"add chain inet {table} {chain} {{ type filter hook input priority 0 ; }}",
        f"add rule inet {table} {chain} tcp dport {machine.port} drop",
    )
    answer = scenario.says(proven(DROPS), as_nobody=weaker(DROPS))
    assert answer.cause
    assert len(answer.cause["title"]) <= 80
    known = {"nft", "inet", table, "...", "handle", "drops", f"127.0.0.1:{machine.port}"}
    assert {word for word in answer.cause["title"].split() if not word.isdecimal()} <= known


def test_a_healthy_server_behind_a_rule_is_fixed_by_the_remedy(machine: Machine, scenario: Scenario) -> None:
    machine.serve()
    machine.chain("input", f"tcp dport {machine.port} drop")
    answer = scenario.says(proven(DROPS), as_nobody=weaker(DROPS), then=works())
    assert first(answer)["rehearsal"]["mended"]
    assert ONLY_THIS not in first(answer)["summary"]
