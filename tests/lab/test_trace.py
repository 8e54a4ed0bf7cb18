"""`--trace`: the machine's own rules tell what they do to our packets, for a moment, and about nobody else's."""

from __future__ import annotations

import os
import re
import signal
from subprocess import DEVNULL, PIPE, Popen

import pytest

from tests.lab.machine import NETDIAG, NOBODY, Answer, Machine, wait_for
from tests.lab.protocol import Scenario, likely, proven

DROPS, REJECTS = "firewall/rule-drops", "firewall/rule-rejects"
TRACE = "nftrace on this machine"


def traced(answer: Answer) -> list[str]:
    """What the trace said, as evidence."""
    assert answer.cause
    return [one["text"] for one in answer.cause["evidence"] if one["source"] == TRACE]


def test_the_trace_names_the_rule_of_nft_that_the_copy_names(machine: Machine, scenario: Scenario) -> None:
    machine.serve()
    machine.chain("input", "tcp dport 9 drop", f"tcp dport {machine.port} drop", family="inet")
    answer = scenario.says(proven(DROPS), as_nobody=likely("firewall/silent"), rooted=("--trace",))
    assert traced(answer) == ["syn input: nft inet guard input handle 3: drop"]


@pytest.mark.parametrize(("tool", "address"), [("iptables-nft", "127.0.0.1"), ("ip6tables-nft", "::1")])
def test_the_trace_names_the_rule_of_iptables_that_the_copy_names(
    machine: Machine, scenario: Scenario, tool: str, address: str
) -> None:
    machine.serve("accepts", address)
    for port in (9, machine.port):
        machine.run(tool, "-A", "INPUT", "-p", "tcp", "--dport", str(port), "-j", "REJECT")
    target = f"[{address}]:{machine.port}" if ":" in address else f"{address}:{machine.port}"
    answer = scenario.says(proven(REJECTS), as_nobody=likely(REJECTS), target=target, rooted=("--trace",))
    assert traced(answer) == [f"syn input: {tool} INPUT rule 2: reject"]


def test_the_trace_proves_what_without_tracefs_is_likely(machine: Machine, scenario: Scenario) -> None:
    machine.serve()
    machine.chain("input", f"tcp dport {machine.port} drop")
    machine.run("umount", "--lazy", "/sys/kernel/tracing")
    asked = f"127.0.0.1:{machine.port}"
    scenario.diagnose((asked,), 0, likely(DROPS))
    scenario.diagnose((asked, "--trace"), 0, proven(DROPS))


def test_of_two_chains_of_one_priority_the_trace_names_the_one_that_came_first(
    machine: Machine, scenario: Scenario
) -> None:
    machine.serve()
    rule = f"tcp dport {machine.port}"
    base = "input { type filter hook input priority 0 ; }"
    for table, verdict in (("early", "drop"), ("late", "reject")):
        machine.nft(
            f"add table ip {table}", f"add chain ip {table} {base}", f"add rule ip {table} input {rule} {verdict}"
        )
    asked = (f"127.0.0.1:{machine.port}", "--trace")
    answer = scenario.diagnose(asked, 0, likely(REJECTS))
    assert traced(answer) == ["syn input: nft ip late input handle 2: reject"]
    machine.nft("delete chain ip early input", f"add chain ip early {base}", f"add rule ip early input {rule} drop")
    again = scenario.diagnose(asked, 0, likely(DROPS))
    assert len(traced(again)) == 1
    assert "ip early input" in traced(again)[0]


def test_a_drop_by_iptables_legacy_is_not_contradicted_by_the_trace_that_cannot_see_it(
    machine: Machine, scenario: Scenario
) -> None:
    machine.serve()
    machine.run("iptables-legacy", "-A", "INPUT", "-p", "tcp", "--dport", str(machine.port), "-j", "DROP")
    answer = scenario.diagnose((f"127.0.0.1:{machine.port}", "--trace"), 0, proven(DROPS))
    assert traced(answer) == ["no rule of nf_tables stopped our packet"]


def test_an_ordinary_user_is_refused_before_anything_is_probed(machine: Machine) -> None:
    machine.serve()
    before = machine.run("cat", "/proc/net/snmp")
    answer = machine.netdiag("run", "--json", "--trace", f"127.0.0.1:{machine.port}", uid=NOBODY)
    assert (answer.exit_code, answer.stdout) == (2, b"")
    assert answer.stderr.startswith(b"netdiag: --trace needs root (CAP_NET_ADMIN)")
    assert machine.run("cat", "/proc/net/snmp") == before


def test_a_trace_while_only_looking_is_refused(machine: Machine) -> None:
    answer = machine.netdiag("run", "--trace", "--passive", f"127.0.0.1:{machine.port}")
    assert answer.exit_code == 2
    assert b"--passive" in answer.stderr


def test_nobody_elses_packets_are_traced(machine: Machine) -> None:
    machine.serve()
    machine.serve("refused_all_the_time", "127.0.0.1", machine.port + 300)
    machine.chain("output", "tcp dport 9 drop")
    machine.chain("input", f"tcp dport {machine.port} drop")
    # another client of the very port, all the time
    knocking = f"while :; do nc -z -w 1 127.0.0.1 {machine.port}; done"
    with (
        Popen(machine.inside(("nft", "monitor", "trace")), stdin=DEVNULL, stdout=PIPE) as monitor,
        Popen(machine.inside(("sh", "-c", knocking)), stdin=DEVNULL, stderr=DEVNULL) as client,
    ):
        try:
            for _ in range(3):
                machine.netdiag("run", "--json", "--trace", f"127.0.0.1:{machine.port}")
        finally:
            client.kill()
            monitor.terminate()
        told = monitor.communicate(timeout=5)[0].decode()
    packets = re.findall(r"packet: .* tcp sport (\d+) tcp dport (\d+)", told)
    assert packets
    assert {there for _, there in packets} == {str(machine.port)}
    assert len({ours for ours, _ in packets}) == 3


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_the_table_vanishes_however_the_run_ends(machine: Machine, ending: signal.Signals) -> None:
    machine.serve()
    # a rule that no trace tells of: so the table is there for a while
    machine.run("iptables-legacy", "-A", "INPUT", "-p", "tcp", "--dport", str(machine.port), "-j", "DROP")
    argv = machine.inside((str(NETDIAG), "run", "--trace", f"127.0.0.1:{machine.port}"))
    process = Popen(argv, stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL)
    try:
        wait_for(lambda: "netdiag-trace" in machine.run("nft", "list", "tables"), "the table", 10.0)
        os.kill(process.pid, ending)
        process.wait(5)
        assert process.returncode != 0
        assert machine.run("nft", "list", "tables") == ""
    finally:
        process.kill()
        process.wait()
