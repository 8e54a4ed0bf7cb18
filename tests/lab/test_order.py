"""Two faults at once: the first block on the packet's path is the root cause, and the other one stays a finding."""

from __future__ import annotations

from tests.lab.machine import Machine
from tests.lab.protocol import Scenario, likely, no_cause, proven

SILENT = (likely("firewall/silent"), no_cause())


def drop(machine: Machine) -> None:
    """A rule in the way."""
    machine.chain("input", f"tcp dport {machine.port} drop")


def test_a_drop_rule_comes_before_a_stopped_server(machine: Machine, scenario: Scenario) -> None:
    machine.serve().stop()
    drop(machine)
    scenario.says(
        proven("firewall/rule-drops"),
        as_nobody=(*SILENT, likely("hung/process-stopped")),
        then=proven("hung/process-stopped"),
    )


def test_a_drop_rule_comes_before_the_lack_of_a_server(machine: Machine, scenario: Scenario) -> None:
    drop(machine)
    scenario.says(proven("firewall/rule-drops"), as_nobody=SILENT, then=proven("refused/nothing-listening"))


def test_a_reset_rule_comes_before_the_lack_of_a_server(machine: Machine, scenario: Scenario) -> None:
    machine.chain("input", f"tcp dport {machine.port} reject with tcp reset")
    scenario.says(
        proven("firewall/rule-rejects"),
        as_nobody=(likely("firewall/rule-rejects"), no_cause()),
        then=proven("refused/nothing-listening"),
    )


def test_loopback_that_is_down_comes_before_a_drop_rule(machine: Machine, scenario: Scenario) -> None:
    machine.serve()
    drop(machine)
    machine.run("ip", "link", "set", "lo", "down")
    scenario.says(proven("loopback/interface-down"), then=proven("firewall/rule-drops"))


def test_a_broken_hosts_file_comes_before_a_stopped_server(machine: Machine, scenario: Scenario) -> None:
    machine.serve("accepts", "::").stop()
    machine.write("/etc/hosts", "# 127.0.0.1 localhost\n127.0.0.1 other\n")
    target = f"localhost:{machine.port}"

    def put_the_line_back() -> None:
        machine.write("/etc/hosts", "127.0.0.1 localhost\n")

    scenario.says(
        proven("resolution/hosts-file-broken"),
        target=target,
        by_hand=put_the_line_back,
        then=proven("hung/process-stopped"),
    )


def test_a_missing_local_route_comes_before_a_server_on_another_family(machine: Machine, scenario: Scenario) -> None:
    machine.serve("accepts", "::1")
    machine.run("ip", "rule", "del", "pref", "0")
    scenario.says(proven("loopback/route-missing"), then=proven("refused/other-family"))


def test_a_stopped_server_comes_before_a_listener_on_a_near_port_and_another_address(
    machine: Machine, scenario: Scenario
) -> None:
    machine.serve().stop()
    machine.serve(port=machine.port + 1)
    machine.serve("accepts", "127.0.0.2")
    scenario.says(proven("hung/process-stopped"), as_nobody=proven("hung/not-accepting"))


def test_localhost_whose_first_address_is_dropped_by_a_rule_is_the_rule_s(machine: Machine, scenario: Scenario) -> None:
    machine.serve("accepts", "::")
    machine.run("ip6tables-legacy", "-A", "INPUT", "-p", "tcp", "--dport", str(machine.port), "-j", "DROP")
    answer = machine.netdiag("run", "--json", f"localhost:{machine.port}")
    assert answer.report["verdict"] == "degraded", str(answer)
    assert answer.cause
    assert answer.cause["code"] in ("firewall/rule-drops", "resolution/prefers-other-family"), str(answer)
    assert "firewall/rule-drops" in answer.codes, str(answer)
