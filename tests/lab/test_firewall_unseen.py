"""What an ordinary user is told of rules that only root can read, beside others' connections as well."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.lab.machine import NOBODY, Answer, Machine
from tests.lab.protocol import Diagnosis, Scenario, likely, no_cause, proven, works

DROPS, REJECTS, REPLY = "firewall/rule-drops", "firewall/rule-rejects", "firewall/reply-dropped"
SILENT, FULL = "firewall/silent", "hung/accept-queue-full"


def busy(machine: Machine, address: str = "127.0.0.1") -> None:
    """Others are refused by the kernel, and wait for servers that want data first, as fast as they can."""
    machine.serve("refused_all_the_time", address, machine.port + 300)
    machine.serve("defers_all_the_time", address, machine.port + 301)


def asked(machine: Machine, scenario: Scenario, *expected: Diagnosis, target: str | None = None) -> Answer:
    """As an ordinary user; what settles it is a command that runs as it stands."""
    where = target or f"127.0.0.1:{machine.port}"
    answer = scenario.diagnose((where,), NOBODY, expected)
    blamed = [one for one in answer.report["findings"] if one["code"].startswith("firewall/")]
    for finding in blamed:
        (command,) = finding["remedies"][0]["commands"]
        assert command["argv"][-2:] == ["run", where]
        assert command["argv"][0].endswith("netdiag")
        assert command["needs_root"]
    assert blamed, str(answer)
    return answer


RULES: dict[str, tuple[str, Diagnosis]] = {
    "tcp dport PORT drop": ("input", likely(SILENT)),
    "tcp dport PORT counter drop": ("output", likely(SILENT)),
    "tcp sport PORT drop": ("input", likely(REPLY)),
    "tcp dport PORT tcp flags == ack drop": ("input", likely(DROPS)),
    "tcp dport PORT reject": ("input", likely(REJECTS)),
    "tcp dport PORT reject with icmpx admin-prohibited": ("output", likely(REJECTS)),
    "tcp dport PORT reject with tcp reset": ("input", likely(REJECTS)),
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("noise", [False, True])
@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_an_ordinary_user_is_told_how_far_the_packets_come_and_what_settles_it(
    machine: Machine, scenario: Scenario, rule: str, noise: bool, address: str
) -> None:
    machine.serve("accepts", address)
    if noise:
        busy(machine, address)
    hook, expected = RULES[rule]
    machine.chain(hook, rule.replace("PORT", str(machine.port)), family="inet")
    blurred = (no_cause(),) if noise and "reset" in rule else ()
    target = f"[::1]:{machine.port}" if ":" in address else f"127.0.0.1:{machine.port}"
    asked(machine, scenario, expected, *blurred, target=target)


@pytest.mark.parametrize("noise", [False, True])
def test_a_full_queue_is_not_taken_for_a_rule(machine: Machine, scenario: Scenario, noise: bool) -> None:
    machine.serve("full")
    if noise:
        busy(machine)
    machine.chain("input", "tcp dport 9 drop")
    answer = scenario.diagnose((f"127.0.0.1:{machine.port}",), NOBODY, proven(FULL))
    assert not [one for one in answer.report["findings"] if one["code"].startswith("firewall/")]


@pytest.mark.parametrize("noise", [False, True])
def test_a_closed_port_is_not_taken_for_a_rule(machine: Machine, scenario: Scenario, noise: bool) -> None:
    if noise:
        busy(machine)
    machine.chain("input", "tcp dport 9 reject with tcp reset")
    nothing = "refused/nothing-listening"
    answer = scenario.diagnose((f"127.0.0.1:{machine.port}",), NOBODY, (proven(nothing), likely(nothing)))
    assert not [one for one in answer.report["findings"] if one["code"].startswith("firewall/")]


@pytest.mark.parametrize("noise", [False, True])
def test_a_healthy_server_is_reached_on_a_busy_machine(machine: Machine, scenario: Scenario, noise: bool) -> None:
    machine.serve()
    if noise:
        busy(machine)
    scenario.diagnose((f"127.0.0.1:{machine.port}",), NOBODY, works())


HIJACKS: dict[str, Callable[[Machine], object]] = {
    "iptables-legacy": lambda m: m.run(
        *("iptables-legacy", "-t", "nat", "-A", "OUTPUT", "-p", "tcp", "--dport", str(m.port)),
        *("-j", "REDIRECT", "--to-ports", "9"),
    ),
    "nft": lambda m: m.nft(
        "add table ip n",
        "add chain ip n out { type nat hook output priority -100 ; }",
        f"add rule ip n out tcp dport {m.port} redirect to :9",
    ),
}


@pytest.mark.parametrize("tool", HIJACKS)
@pytest.mark.parametrize("noise", [False, True])
def test_a_refusal_beside_a_listener_is_nobody_s_proven_fault_and_root_can_tell(
    machine: Machine, scenario: Scenario, tool: str, noise: bool
) -> None:
    machine.serve()
    if noise:
        busy(machine)
    HIJACKS[tool](machine)
    answer = asked(machine, scenario, no_cause())
    assert any("though a listener is there" in one["title"] for one in answer.report["findings"])
