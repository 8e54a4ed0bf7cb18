"""Rule sets that people have asked about in public, made again: what is right of them, for root and for others."""

from __future__ import annotations

import pytest

from tests.lab.machine import NOBODY, ROOT, Machine
from tests.lab.protocol import Scenario, likely, no_cause, proven, works

DROPS, REJECTS, POLICY = "firewall/rule-drops", "firewall/rule-rejects", "firewall/policy-drops"
REDIRECTS = "firewall/redirects"
SILENT = (likely("firewall/silent"), no_cause())
REPORTS = {
    "a benchmark's rule against spoofed loopback addresses, before the accept of lo": (
        "127.0.0.1",
        ("iptables-nft -A INPUT -s 127.0.0.0/8 -j DROP", "iptables-nft -A INPUT -i lo -j ACCEPT"),
        DROPS,
    ),
    "an output policy, with loopback accepted on the way in only": (
        "127.0.0.1",
        (
            "iptables-nft -A INPUT -i lo -j ACCEPT",
            "iptables-nft -A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
            "iptables-nft --policy INPUT DROP",
            "iptables-nft --policy OUTPUT DROP",
        ),
        POLICY,
    ),
    "a VPN's kill switch that flushes the accepts of lo": (
        "127.0.0.1",
        (
            "iptables-legacy -A OUTPUT -o tun0 -j ACCEPT",
            "iptables-legacy --policy INPUT DROP",
            "iptables-legacy --policy OUTPUT DROP",
        ),
        POLICY,
    ),
    "a distribution's last rule, without the accept of lo": (
        "127.0.0.1",
        (
            "iptables-legacy -A INPUT -m state --state ESTABLISHED,RELATED -j ACCEPT",
            "iptables-legacy -A INPUT -p icmp -j ACCEPT",
            "iptables-legacy -A INPUT -j REJECT --reject-with icmp-host-prohibited",
        ),
        REJECTS,
    ),
    "an IPv6 rule set that rejects the rest, loopback included": (
        "::1",
        (
            "ip6tables-nft -A INPUT -p tcp --dport 22 -j ACCEPT",
            "ip6tables-nft -A INPUT -j REJECT --reject-with icmp6-port-unreachable",
        ),
        REJECTS,
    ),
    "loopback that is not tracked, under a policy that accepts established connections": (
        "127.0.0.1",
        (
            "nft add table inet fw",
            "nft add chain inet fw raw { type filter hook output priority -300 ; }",
            "nft add rule inet fw raw oifname lo notrack",
            "nft add chain inet fw in { type filter hook input priority 0 ; policy drop ; }",
            "nft add rule inet fw in ct state established,related accept",
        ),
        POLICY,
    ),
}


@pytest.mark.parametrize("report", REPORTS)
def test_a_rule_set_that_somebody_has_asked_about_is_named_and_fixed(
    machine: Machine, scenario: Scenario, report: str
) -> None:
    address, commands, code = REPORTS[report]
    machine.serve("accepts", address)
    for command in commands:
        machine.run(*command.split())
    target = f"[{address}]:{machine.port}" if ":" in address else f"{address}:{machine.port}"
    answer = scenario.says(proven(code), as_nobody=(*SILENT, likely(code)), target=target)
    assert answer.cause
    assert answer.cause["remedies"][0]["rehearsal"]["mended"]


def test_a_rule_for_spoofed_loopback_addresses_alone_is_innocent(machine: Machine, scenario: Scenario) -> None:
    machine.serve()
    machine.run("iptables-nft", "-A", "INPUT", "!", "-i", "lo", "-d", "127.0.0.0/8", "-j", "REJECT")
    scenario.says(works())


def test_an_ipv4_rule_is_passed_by_where_localhost_answers_on_ipv6(machine: Machine, scenario: Scenario) -> None:
    machine.serve("accepts", "::")
    machine.run(*f"iptables-nft -A INPUT -p tcp --dport {machine.port} -j DROP".split())
    answer = scenario.says(works(), target=f"localhost:{machine.port}")
    assert DROPS in answer.codes
    scenario.says(proven(DROPS), as_nobody=SILENT)


def test_a_node_port_of_kube_proxy_on_loopback_has_no_rule_in_the_way_and_no_listener(
    machine: Machine, scenario: Scenario
) -> None:
    machine.run("ip", "address", "add", "10.9.8.1/24", "dev", "lo")
    machine.nft(
        "table ip kube-proxy {",
        "set nodeport-ips { type ipv4_addr; elements = { 10.9.8.1 } }",
        "map service-nodeports { type inet_proto . inet_service : verdict;",
        f"elements = {{ tcp . {machine.port} : goto external-web }} }}",
        "chain nat-output { type nat hook output priority -100; jump services; }",
        "chain services { ip daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports; }",
        f"chain external-web {{ meta l4proto tcp dnat to 10.9.8.1:{machine.port + 5}; }}",
        "}",
    )
    machine.serve("accepts", "10.9.8.1", machine.port + 5)
    for uid in (ROOT, NOBODY):
        answer = scenario.diagnose((f"127.0.0.1:{machine.port}",), uid, proven("refused/nothing-listening"))
        assert not [code for code in answer.codes if code.startswith("firewall/")]
    scenario.diagnose((f"10.9.8.1:{machine.port}",), ROOT, works())


# ------ NAT that leads out of this machine


def cable(machine: Machine) -> None:
    """A network of this machine's own on which nobody answers; its doubles are not looked for meanwhile."""
    machine.run("sysctl", "-qw", "net.ipv6.conf.default.addr_gen_mode=1")
    machine.run("ip", "link", "add", "out", "type", "veth", "peer", "name", "far")
    for end in ("out", "far"):
        machine.run("ip", "link", "set", end, "up")
    machine.run("ip", "address", "add", "10.7.0.1/24", "dev", "out")
    machine.run("ip", "-6", "address", "add", "fd00:44::1/64", "dev", "out", "nodad")
    for neighbour in ("10.7.0.2", "fd00:44::12"):
        machine.run("ip", "neigh", "add", neighbour, "lladdr", "02:00:00:00:00:09", "dev", "out")


def test_a_rule_that_leads_ipv6_loopback_away_is_not_said_to_fail_at_its_far_end(
    machine: Machine, scenario: Scenario
) -> None:
    cable(machine)
    machine.serve("accepts", "::1")
    dnat = f"-d ::1 -p tcp --dport {machine.port} -j DNAT --to-destination [fd00:44::12]:80"
    machine.run("ip6tables-nft", "-t", "nat", "-A", "OUTPUT", *dnat.split())
    machine.run("ip6tables-nft", "-t", "nat", "-A", "POSTROUTING", "-j", "MASQUERADE")
    answer = scenario.says(likely(REDIRECTS), as_nobody=SILENT, target=f"[::1]:{machine.port}")
    assert answer.cause
    assert "fails there" not in answer.cause["explanation"]


def test_a_rule_that_leads_ipv6_loopback_where_no_route_goes_is_not_taken_for_a_reject(
    machine: Machine, scenario: Scenario
) -> None:
    machine.run("ip", "-6", "address", "add", "fd00:44::1/64", "dev", "lo")
    machine.serve("accepts", "::1")
    dnat = f"-d ::1 -p tcp --dport {machine.port} -j DNAT --to-destination [fd00:44::12]:80"
    machine.run("ip6tables-nft", "-t", "nat", "-A", "OUTPUT", *dnat.split())
    answer = scenario.says(likely(REDIRECTS), as_nobody=(likely(REJECTS), no_cause()), target=f"[::1]:{machine.port}")
    assert answer.report["attempts"][0]["errno"] == "ENETUNREACH"


def test_a_rule_that_leads_an_own_address_out_by_the_default_route_is_not_said_to_have_no_route(
    machine: Machine, scenario: Scenario
) -> None:
    cable(machine)
    machine.run("ip", "route", "add", "default", "via", "10.7.0.2")
    machine.run("ip", "address", "add", "10.9.8.1/24", "dev", "lo")
    machine.serve("accepts", "10.9.8.1")
    machine.nft(
        "add table ip lead",
        "add chain ip lead out { type nat hook output priority -100 ; }",
        f"add rule ip lead out ip daddr 10.9.8.1 tcp dport {machine.port} dnat to 203.0.113.7:80",
    )
    answer = scenario.says(likely(REDIRECTS), as_nobody=SILENT, target=f"10.9.8.1:{machine.port}")
    assert answer.cause
    assert "no way" not in answer.cause["explanation"]


# ------ another machine


@pytest.mark.parametrize("rules", [False, True])
def test_a_packet_that_does_not_leave_is_no_rule_s_doing_where_root_finds_no_rule(
    machine: Machine, scenario: Scenario, rules: bool
) -> None:
    cable(machine)
    if rules:
        machine.chain("output", "tcp dport 9 drop")
    asked = (f"10.7.0.77:{machine.port}", "--timeout", "0.7")
    answer = scenario.diagnose(asked, ROOT, no_cause())
    found = next(one for one in answer.report["findings"] if one["code"] == "firewall/silent")
    assert found["title"].startswith("No packet to")
    assert ("a rule for outgoing packets" in found["explanation"]) is rules
    assert "127.0.0.1" not in found["remedies"][0]["summary"]
    scenario.diagnose(asked, NOBODY, no_cause())
