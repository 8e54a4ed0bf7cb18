"""Rules that let a connection begin and stop it before the server has it."""

from __future__ import annotations

import pytest

from tests.lab.machine import Machine
from tests.lab.protocol import Scenario, likely, proven, works

DROPS, REJECTS = "firewall/rule-drops", "firewall/rule-rejects"


@pytest.mark.parametrize("hook", ["input", "output"])
@pytest.mark.parametrize("conduct", ["accepts", "defers"])
@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_a_rule_that_drops_only_the_last_ack_is_told_from_a_server_that_waits_for_data(
    machine: Machine, scenario: Scenario, hook: str, conduct: str, address: str
) -> None:
    machine.serve(conduct, address)
    machine.chain(
        hook, "tcp dport 9 tcp flags == ack drop", f"tcp dport {machine.port} tcp flags == ack drop", family="inet"
    )
    host = f"[{address}]" if ":" in address else address
    answer = scenario.says(proven(DROPS), as_nobody=likely(DROPS), target=f"{host}:{machine.port}")
    assert answer.cause
    assert "last ACK" in answer.cause["title"]
    assert answer.report["attempts"][0]["outcome"] == "not-accepted"
    assert answer.report["attempts"][0]["ms"] < 1000, "it waited for its timeout, though the kernel had told"


def test_a_rule_of_iptables_legacy_that_drops_only_the_last_ack_is_named(machine: Machine, scenario: Scenario) -> None:
    machine.serve("defers")
    match = ("-p", "tcp", "--dport", str(machine.port), "--tcp-flags", "ALL", "ACK")
    machine.run("iptables-legacy", "-A", "INPUT", *match, "-j", "DROP")
    scenario.says(proven(DROPS), as_nobody=likely(DROPS))


def test_a_state_that_loopback_never_gets_stops_the_last_ack(machine: Machine, scenario: Scenario) -> None:
    machine.serve()
    machine.chain("output", "oifname lo notrack", priority=-300)
    machine.chain("input", "tcp flags & (syn | ack) == syn accept", "ct state established accept", policy="drop")
    scenario.diagnose((f"127.0.0.1:{machine.port}",), 65534, (likely(DROPS), likely("firewall/reply-dropped")))


def test_a_reset_for_the_last_ack_is_a_rule_s_and_not_the_server_s(machine: Machine, scenario: Scenario) -> None:
    machine.serve()
    machine.chain("input", f"tcp dport {machine.port} tcp flags == ack reject with tcp reset")
    scenario.says(likely(REJECTS))


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_a_server_that_waits_for_data_is_reached_beside_others_that_do(
    machine: Machine, scenario: Scenario, address: str
) -> None:
    machine.serve("defers_all_the_time", "127.0.0.1", machine.port + 300)
    machine.serve("defers", address)
    host = f"[{address}]" if ":" in address else address
    scenario.says(works(), target=f"{host}:{machine.port}")


def test_a_lost_ack_is_told_beside_others_that_wait_for_data(machine: Machine, scenario: Scenario) -> None:
    machine.serve("defers_all_the_time", "127.0.0.1", machine.port + 300)
    machine.serve("defers")
    machine.chain("input", f"tcp dport {machine.port} tcp flags == ack drop")
    scenario.says(proven(DROPS), as_nobody=likely(DROPS))


def test_a_server_that_waits_for_data_is_reached_and_known_to_wait(machine: Machine, scenario: Scenario) -> None:
    machine.serve("defers")
    answer = scenario.says(works())
    assert not answer.report["not_checked"]
