"""What a remedy opens: the port that was asked about, and no other that was shut before."""

from __future__ import annotations

import pytest

from tests.lab.machine import Answer, Machine
from tests.lab.protocol import Scenario, works
from tests.lab.test_firewall_owners import first, mends_and_leaves_shut

NATIVE = {
    "a policy that accepts no loopback": ("input", "drop", "tcp dport 22 accept"),
    "a drop of many ports": ("input", "accept", "tcp dport { PORT, NEXT, 9 } drop"),
    "a drop of a range": ("output", "accept", "tcp dport PORT-NEXT drop"),
    "a drop of everything": ("input", "accept", "tcp dport 9 accept", "iifname lo drop"),
    "a reject of everything": ("output", "accept", "oifname lo reject with tcp reset"),
    "dropped answers": ("input", "accept", "tcp sport { PORT, NEXT } drop"),
    "a verdict map": ("input", "accept", "tcp dport vmap { PORT : drop, NEXT : drop }"),
}
COMMANDS = {
    "many ports of iptables-nft": ("iptables-nft -A INPUT -p tcp -m multiport --dports PORT,NEXT -j REJECT",),
    "many ports of iptables-legacy": ("iptables-legacy -A OUTPUT -p tcp --dport PORT:NEXT -j DROP",),
    "a policy of iptables-legacy": (
        "iptables-legacy -A INPUT -p tcp --dport 22 -j ACCEPT",
        "iptables-legacy -P INPUT DROP",
    ),
    "both policies of iptables-nft": ("iptables-nft -P INPUT DROP", "iptables-nft -P OUTPUT DROP"),
    "a redirect of iptables-nft": (
        "iptables-nft -t nat -A OUTPUT -p tcp -m multiport --dports PORT,NEXT -j REDIRECT --to-ports 9",
    ),
}


def two_servers(machine: Machine) -> None:
    machine.serve()
    machine.serve("accepts", "127.0.0.1", machine.port + 1)


def ports(text: str, machine: Machine) -> str:
    return text.replace("PORT", str(machine.port)).replace("NEXT", str(machine.port + 1))


def asked(machine: Machine) -> Answer:
    return machine.netdiag("run", "--json", f"127.0.0.1:{machine.port}")


def opened_by(answer: Answer) -> list[str]:
    """What the first remedy opened beside, as rehearsed."""
    opens: list[str] = first(answer)["rehearsal"]["opens"]
    return opens


@pytest.mark.parametrize("fault", NATIVE)
def test_a_port_that_rules_of_nft_had_shut_stays_shut(machine: Machine, scenario: Scenario, fault: str) -> None:
    two_servers(machine)
    hook, policy, *rules = NATIVE[fault]
    machine.chain(hook, *(ports(rule, machine) for rule in rules), family="inet", policy=policy)
    answer = asked(machine)
    assert answer.report["verdict"] == "unreachable"
    assert opened_by(answer) == []
    mends_and_leaves_shut(machine, scenario, answer)


@pytest.mark.parametrize("fault", COMMANDS)
def test_a_port_that_rules_of_iptables_had_shut_stays_shut(machine: Machine, scenario: Scenario, fault: str) -> None:
    two_servers(machine)
    for command in COMMANDS[fault]:
        machine.run(*ports(command, machine).split())
    answer = asked(machine)
    assert answer.report["verdict"] == "unreachable"
    assert opened_by(answer) == []
    mends_and_leaves_shut(machine, scenario, answer)


def test_a_remedy_that_opens_more_says_what_it_opens_and_opens_just_that(machine: Machine, scenario: Scenario) -> None:
    two_servers(machine)
    machine.chain("input", ports("tcp dport { PORT, NEXT } drop", machine))
    answer = asked(machine)
    assert answer.cause
    wider = next(one for one in answer.cause["remedies"] if one["rehearsal"]["opens"])
    assert wider["rehearsal"]["opens"] == [f"127.0.0.1:{machine.port + 1} from this machine"]
    scenario.execute(wider["commands"])
    for port in (machine.port, machine.port + 1):
        assert works().is_said_by(machine.netdiag("run", "--json", f"127.0.0.1:{port}"))
