"""An engine that is installed, and has no container near, takes nothing from what an ordinary user is told."""

from __future__ import annotations

import pytest

from tests.lab.machine import NOBODY, Machine
from tests.lab.protocol import Scenario, likely, proven

REJECTS, DROPS = "firewall/rule-rejects", "firewall/silent"


def install_engines(machine: Machine) -> None:
    """What podman and a stopped Docker leave behind: a directory that is root's, and a socket without a listener."""
    machine.run("install", "-d", "-m", "700", "/run/podman")
    bind = "import socket; socket.socket(socket.AF_UNIX).bind('/run/docker.sock')"
    machine.run("/run/python3", "-c", bind)


def drop(machine: Machine, verdict: str) -> None:
    machine.chain("input", "tcp dport 9 accept", f"tcp dport {machine.port} {verdict}", family="inet")


@pytest.mark.parametrize(
    ("verdict", "as_root", "as_nobody"),
    [
        ("drop", "firewall/rule-drops", DROPS),
        ("reject with icmp port-unreachable", REJECTS, REJECTS),
        ("reject with tcp reset", REJECTS, REJECTS),
    ],
)
def test_a_rule_is_as_likely_next_to_an_installed_engine_as_without_one(
    machine: Machine, scenario: Scenario, verdict: str, as_root: str, as_nobody: str
) -> None:
    machine.serve()
    install_engines(machine)
    drop(machine, verdict)
    scenario.says(proven(as_root), as_nobody=likely(as_nobody))


@pytest.mark.parametrize("verdict", ["drop", "reject with tcp reset"])
def test_an_ordinary_user_is_told_the_same_on_a_machine_with_engines_and_on_one_without(
    machine: Machine, verdict: str
) -> None:
    machine.serve()
    drop(machine, verdict)
    target = f"127.0.0.1:{machine.port}"
    before = machine.netdiag("run", "--json", target, uid=NOBODY)
    install_engines(machine)
    after = machine.netdiag("run", "--json", target, uid=NOBODY)
    assert before.cause is not None
    assert after.cause is not None
    same = ("code", "confidence", "title", "explanation")
    assert [after.cause[key] for key in same] == [before.cause[key] for key in same]
    assert after.report["not_checked"] == before.report["not_checked"]
    assert after.exit_code == before.exit_code == 1


def test_where_an_interface_leads_into_another_namespace_an_engine_s_nat_rule_stays_possible(machine: Machine) -> None:
    machine.serve()
    install_engines(machine)
    machine.run("sh", "-c", "unshare --net sleep 60 >/dev/null 2>&1 & echo $! >/run/other; sleep 0.3")
    other = machine.run("cat", "/run/other").strip()
    machine.run("ip", "link", "add", "lab0", "type", "veth", "peer", "name", "lab1", "netns", other)
    drop(machine, "drop")
    answer = machine.netdiag("run", "--json", f"127.0.0.1:{machine.port}", uid=NOBODY)
    assert answer.cause is None
    assert answer.codes[0] == DROPS
    machine.run("kill", other)
