"""BPF programs that netfilter asks beside its rules: seen, and never taken for nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.machine import Machine, Server, start
from tests.lab.protocol import Scenario, likely, no_cause, proven

PROGRAM = Path(__file__).with_name("bpf.py")
DROPS, SILENT = "firewall/rule-drops", "firewall/silent"
UNSEEN = (likely(SILENT), no_cause())


@contextlib.contextmanager
def asked(machine: Machine, family: str, hook: str, verdict: int) -> Iterator[Server]:
    """Netfilter asks a program there, as long as its holder lives."""
    machine.run("cp", "/dev/stdin", "/run/bpf.py", stdin=PROGRAM.read_bytes())
    with machine.alone_with_programs():
        try:
            holder = Server(
                start(machine.inside(("/run/python3", "-I", "-S", "/run/bpf.py", family, hook, str(verdict))))
            )
        except AssertionError as error:
            if "OSError" in str(error):
                pytest.skip("this kernel's netfilter asks no BPF programs")
            raise
        try:
            yield holder
        finally:
            holder.kill()


@pytest.mark.parametrize("hook", ["input", "output"])
def test_a_bpf_program_of_netfilter_that_drops_is_named_though_no_rule_does(
    machine: Machine, scenario: Scenario, hook: str
) -> None:
    machine.serve()
    machine.chain("input", f"tcp dport {machine.port + 1} drop")
    with asked(machine, "ip", hook, 0) as holder:
        answer = scenario.says(likely(SILENT), as_nobody=UNSEEN, by_hand=holder.kill)
    assert "lab_netfilter" in str(answer.cause["evidence"])  # type: ignore[index]


def test_a_bpf_program_without_any_rules_is_named_as_well(machine: Machine, scenario: Scenario) -> None:
    machine.serve("accepts", "::1")
    with asked(machine, "ip6", "prerouting", 0) as holder:
        answer = scenario.says(likely(SILENT), as_nobody=UNSEEN, target=f"[::1]:{machine.port}", by_hand=holder.kill)
    assert "lab_netfilter" in str(answer.cause["evidence"])  # type: ignore[index]


def test_beside_a_bpf_program_a_drop_of_iptables_legacy_is_likely_at_most(machine: Machine, scenario: Scenario) -> None:
    machine.serve()
    machine.run("iptables-legacy", "-A", "INPUT", "-p", "tcp", "--dport", str(machine.port), "-j", "DROP")
    with asked(machine, "ip", "input", 1):
        answer = scenario.says(likely(DROPS), as_nobody=UNSEEN)
    assert "lab_netfilter" in str(answer.cause["evidence"])  # type: ignore[index]


@pytest.mark.parametrize(
    ("table", "chain", "hook"),
    [("security", "OUTPUT", "input"), ("raw", "PREROUTING", "input"), ("filter", "INPUT", "output")],
)
def test_a_bpf_program_at_another_hook_than_the_drop_takes_no_certainty_away(
    machine: Machine, scenario: Scenario, table: str, chain: str, hook: str
) -> None:
    machine.serve()
    rule = ("-p", "tcp", "--dport", str(machine.port), "-j", "DROP")
    machine.run("iptables-legacy", "-t", table, "-A", chain, *rule)
    with asked(machine, "ip", hook, 1):
        answer = scenario.says(proven(DROPS), as_nobody=UNSEEN)
    assert "lab_netfilter" not in str(answer.cause["evidence"])  # type: ignore[index]


def test_beside_a_bpf_program_a_drop_of_nftables_is_proven_by_the_kernels_own_word(
    machine: Machine, scenario: Scenario
) -> None:
    machine.serve()
    machine.chain("input", f"tcp dport {machine.port} drop")
    with asked(machine, "ip", "input", 1):
        scenario.says(proven(DROPS), as_nobody=UNSEEN)


def test_a_bpf_program_of_the_other_family_takes_no_certainty_away(machine: Machine, scenario: Scenario) -> None:
    machine.serve()
    machine.run("iptables-legacy", "-A", "INPUT", "-p", "tcp", "--dport", str(machine.port), "-j", "DROP")
    with asked(machine, "ip6", "input", 0):
        scenario.says(proven(DROPS), as_nobody=UNSEEN)
