"""Faults made by rules, with a healthy server behind them."""

from __future__ import annotations

import pytest

from tests.lab.machine import NOBODY, Machine
from tests.lab.protocol import Scenario, likely, no_cause, proven, works

DROPS, REJECTS, POLICY = "firewall/rule-drops", "firewall/rule-rejects", "firewall/policy-drops"
SILENT = (likely("firewall/silent"), no_cause())


def guard(machine: Machine, rule: str) -> None:
    """A rule that matters, after one that does not."""
    machine.chain("input", "tcp dport 9 drop", rule.replace("PORT", str(machine.port)), family="inet")


def test_a_drop_rule_of_nft_is_named_over_a_healthy_listener(machine: Machine, scenario: Scenario) -> None:
    machine.serve()
    guard(machine, 'tcp dport PORT drop comment "left over"')
    answer = scenario.says(proven(DROPS), as_nobody=SILENT)
    assert answer.cause
    assert f"tcp dport {machine.port} drop" in str(answer.cause["evidence"])


def test_an_accept_in_another_table_does_not_undo_a_drop(machine: Machine, scenario: Scenario) -> None:
    machine.serve()
    machine.chain("input", "accept", priority=-10)
    guard(machine, "tcp dport PORT drop")
    scenario.says(proven(DROPS), as_nobody=SILENT)


def test_a_drop_rule_in_a_chain_jumped_to_is_named(machine: Machine, scenario: Scenario) -> None:
    machine.serve()
    machine.nft(
        "add table inet guard",
        "add chain inet guard apps",
        f"add rule inet guard apps tcp dport {machine.port + 1} accept",
        f"add rule inet guard apps tcp dport {machine.port} counter drop",
    )
    machine.chain("input", "iifname lo jump apps", family="inet")
    scenario.says(proven(DROPS), as_nobody=SILENT)


def test_a_drop_rule_on_the_way_out_is_named(machine: Machine, scenario: Scenario) -> None:
    machine.serve()
    machine.chain("output", f"tcp dport {machine.port} drop")
    scenario.says(proven(DROPS), as_nobody=SILENT)


def test_a_drop_rule_of_nft_on_ipv6_is_named(machine: Machine, scenario: Scenario) -> None:
    machine.serve("accepts", "::1")
    guard(machine, "ip6 daddr ::1 tcp dport PORT drop")
    scenario.says(proven(DROPS), as_nobody=SILENT, target=f"[::1]:{machine.port}")


@pytest.mark.parametrize("tool", ["iptables-nft", "iptables-legacy"])
def test_a_drop_rule_of_iptables_is_named_with_its_backend(machine: Machine, scenario: Scenario, tool: str) -> None:
    machine.serve()
    machine.run(tool, "-A", "INPUT", "-p", "tcp", "--dport", "9", "-j", "DROP")
    machine.run(tool, "-A", "INPUT", "-p", "tcp", "--dport", str(machine.port), "-j", "DROP")
    machine.run(tool, "-A", "INPUT", "-i", "lo", "-j", "ACCEPT")
    answer = scenario.says(proven(DROPS), as_nobody=SILENT)
    assert answer.cause
    assert tool in str(answer.cause)


@pytest.mark.parametrize("tool", ["ip6tables-nft", "ip6tables-legacy"])
def test_a_drop_rule_of_ip6tables_is_named_with_its_backend(machine: Machine, scenario: Scenario, tool: str) -> None:
    machine.serve("accepts", "::1")
    machine.run(tool, "-A", "INPUT", "-p", "tcp", "--dport", str(machine.port), "-j", "DROP")
    machine.run(tool.replace("ip6", "ip"), "-A", "INPUT", "-p", "tcp", "--dport", "9", "-j", "DROP")
    answer = scenario.says(proven(DROPS), as_nobody=SILENT, target=f"[::1]:{machine.port}")
    assert answer.cause
    assert tool in str(answer.cause)


def test_a_drop_rule_outside_the_filter_table_is_named(machine: Machine, scenario: Scenario) -> None:
    machine.serve()
    machine.run(
        "iptables-legacy", "-t", "raw", "-A", "PREROUTING", "-p", "tcp", "--dport", str(machine.port), "-j", "DROP"
    )
    scenario.says(proven(DROPS), as_nobody=SILENT)


def test_a_legacy_drop_is_found_behind_clean_nft_rules(machine: Machine, scenario: Scenario) -> None:
    machine.serve()
    guard(machine, "tcp dport PORT accept")
    machine.run("iptables-nft", "-A", "INPUT", "-p", "tcp", "--dport", str(machine.port), "-j", "ACCEPT")
    machine.run("iptables-legacy", "-A", "INPUT", "-p", "tcp", "--dport", str(machine.port), "-j", "DROP")
    answer = scenario.says(proven(DROPS), as_nobody=SILENT)
    assert answer.cause
    assert "iptables-legacy" in str(answer.cause)


def test_a_reset_sent_by_a_rule_of_nft_is_not_taken_for_a_refusal(machine: Machine, scenario: Scenario) -> None:
    machine.serve()
    guard(machine, "tcp dport PORT reject with tcp reset")
    scenario.says(proven(REJECTS), as_nobody=likely(REJECTS))


def test_a_reset_sent_by_a_rule_is_told_apart_while_the_kernel_resets_others_all_the_time(
    machine: Machine, scenario: Scenario
) -> None:
    machine.serve()
    machine.serve("refused_all_the_time", "127.0.0.1", machine.port + 300)
    guard(machine, "tcp dport PORT reject with tcp reset")
    scenario.says(proven(REJECTS), as_nobody=(likely(REJECTS), no_cause()))


def test_a_reset_sent_by_a_rule_of_nft_on_ipv6_is_named(machine: Machine, scenario: Scenario) -> None:
    machine.serve("accepts", "::")
    guard(machine, "tcp dport PORT reject with tcp reset")
    scenario.says(proven(REJECTS), as_nobody=likely(REJECTS), target=f"[::1]:{machine.port}")


@pytest.mark.parametrize("reject", ["tcp-reset", "icmp-port-unreachable", "icmp-admin-prohibited"])
@pytest.mark.parametrize("tool", ["iptables-nft", "iptables-legacy"])
def test_a_reject_rule_of_iptables_is_named(machine: Machine, scenario: Scenario, tool: str, reject: str) -> None:
    machine.serve()
    port = ("-p", "tcp", "--dport", str(machine.port))
    machine.run(tool, "-A", "INPUT", *port, "-j", "REJECT", "--reject-with", reject)
    scenario.says(proven(REJECTS), as_nobody=likely(REJECTS))


def test_a_reject_rule_of_firewalld_s_kind_is_named_on_ipv6(machine: Machine, scenario: Scenario) -> None:
    machine.serve("accepts", "::1")
    guard(machine, "tcp dport PORT reject with icmpx admin-prohibited")
    scenario.says(proven(REJECTS), as_nobody=likely(REJECTS), target=f"[::1]:{machine.port}")


def test_a_reject_rule_for_this_user_only_is_named_for_this_user(machine: Machine, scenario: Scenario) -> None:
    machine.serve()
    machine.chain("output", f"meta skuid {NOBODY} tcp dport {machine.port} reject with tcp reset")
    scenario.says(works(), as_nobody=likely(REJECTS))


def test_a_policy_that_does_not_accept_loopback_is_named(machine: Machine, scenario: Scenario) -> None:
    machine.serve()
    rules = ("ct state established,related accept", "tcp dport 22 accept")
    machine.chain("input", *rules, family="inet", policy="drop")
    scenario.says(proven(POLICY), as_nobody=SILENT)


@pytest.mark.parametrize("tool", ["iptables-nft", "iptables-legacy"])
def test_a_policy_of_iptables_is_named(machine: Machine, scenario: Scenario, tool: str) -> None:
    machine.serve()
    machine.run(tool, "-A", "INPUT", "-p", "tcp", "--dport", "22", "-j", "ACCEPT")
    machine.run(tool, "-P", "INPUT", "DROP")
    scenario.says(proven(POLICY), as_nobody=SILENT)


def test_a_policy_of_ip6tables_leaves_ipv4_alone(machine: Machine, scenario: Scenario) -> None:
    machine.serve("accepts", "::")
    machine.run("ip6tables-legacy", "-P", "INPUT", "DROP")
    scenario.says(proven(POLICY), as_nobody=SILENT, target=f"[::1]:{machine.port}")
    scenario.says(works())


def test_a_silence_is_likely_a_rule_s_when_everything_else_is_excluded(machine: Machine, scenario: Scenario) -> None:
    machine.serve(uid=NOBODY)
    guard(machine, "tcp dport PORT drop")
    asked = (f"127.0.0.1:{machine.port}",)
    scenario.diagnose(asked, NOBODY, likely("firewall/silent"))


def test_a_silence_where_nothing_listens_has_no_proven_reason_for_an_ordinary_user(
    machine: Machine, scenario: Scenario
) -> None:
    guard(machine, "tcp dport PORT drop")
    asked = (f"127.0.0.1:{machine.port}",)
    answer = scenario.diagnose(asked, NOBODY, no_cause())
    assert ("firewall/silent", "possible") in {(f["code"], f["confidence"]) for f in answer.report["findings"]}


def test_a_rule_whose_tool_is_missing_is_never_fine_and_never_quoted_from_it(
    machine: Machine, scenario: Scenario
) -> None:
    machine.serve()
    guard(machine, "tcp dport PORT drop")
    target = f"127.0.0.1:{machine.port}"
    machine.remove_tools("nft")
    answer = machine.netdiag("run", "--json", target)
    assert likely("firewall/silent").is_said_by(answer) or proven(DROPS).is_said_by(answer), str(answer)
    assert answer.cause
    assert not [e for e in answer.cause["evidence"] if e["source"].startswith("nft ")], str(answer)
    assert answer.cause["code"] == DROPS or any("nft" in one["reason"] for one in answer.report["not_checked"])


def test_rules_for_another_port_stand_in_nobody_s_way(machine: Machine, scenario: Scenario) -> None:
    machine.serve()
    guard(machine, f"tcp dport {machine.port + 1} drop")
    for tool in ("iptables-nft", "iptables-legacy"):
        machine.run(tool, "-A", "INPUT", "-p", "tcp", "--dport", str(machine.port + 1), "-j", "REJECT")
    scenario.says(works())


def test_rules_for_another_port_are_not_why_nothing_listens(machine: Machine, scenario: Scenario) -> None:
    guard(machine, f"tcp dport {machine.port + 1} reject with tcp reset")
    scenario.says(proven("refused/nothing-listening"), by_hand=machine.serve)
