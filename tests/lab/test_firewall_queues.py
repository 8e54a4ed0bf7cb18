"""Application firewalls behind NFQUEUE that run: the program that says no is named, one that says yes is innocent."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lab.machine import Machine, Server, start
from tests.lab.protocol import Scenario, likely, no_cause, proven, works

READER = Path(__file__).with_name("queue_reader.py")
DROPS, SILENT = "firewall/rule-drops", (likely("firewall/silent"), no_cause())


def reader(machine: Machine, number: int, verdict: int) -> Server:
    """A program that decides about this queue."""
    machine.run("cp", "/dev/stdin", "/run/queue_reader.py", stdin=READER.read_bytes())
    argv = ("/run/python3", "-I", "-S", "/run/queue_reader.py", str(number), str(verdict))
    server = Server(start(machine.inside(argv)))
    machine.servers.append(server)
    return server


def queued(machine: Machine, tool: str, chain: str, number: int) -> None:
    match = ("-p", "tcp", "--syn", "--dport", str(machine.port))
    machine.run(tool, "-A", chain, *match, "-j", "NFQUEUE", "--queue-num", str(number))


@pytest.mark.parametrize("tool", ["iptables-nft", "iptables-legacy"])
def test_an_application_firewall_that_says_no_is_named(machine: Machine, scenario: Scenario, tool: str) -> None:
    machine.serve()
    reader(machine, 8, 1)  # another program, which lets everything through
    denies = reader(machine, 7, 0)
    queued(machine, tool, "OUTPUT", 7)

    def allow_it_there() -> None:
        denies.kill()
        reader(machine, 7, 1)

    answer = scenario.says(likely(DROPS), as_nobody=SILENT, by_hand=allow_it_there)
    assert answer.cause
    assert f"pid {denies.pid}" in answer.cause["explanation"]
    assert "settings" in answer.cause["remedies"][0]["summary"]
    accept = next(one for one in answer.cause["remedies"] if one["commands"])
    assert accept["rehearsal"] == {"mended": True, "opens": []}


def test_going_past_an_application_firewall_for_one_connection_works_as_printed(
    machine: Machine, scenario: Scenario
) -> None:
    machine.serve()
    reader(machine, 7, 0)
    queued(machine, "iptables-nft", "INPUT", 7)
    answer = scenario.diagnose((f"127.0.0.1:{machine.port}",), 0, likely(DROPS))
    accept = next(one for one in answer.cause["remedies"] if one["commands"])  # type: ignore[index]
    scenario.execute(accept["commands"])
    assert works().is_said_by(machine.netdiag("run", "--json", f"127.0.0.1:{machine.port}"))


def test_an_application_firewall_that_says_yes_is_innocent(machine: Machine, scenario: Scenario) -> None:
    reader(machine, 7, 1)
    queued(machine, "iptables-nft", "OUTPUT", 7)
    closed = proven("refused/nothing-listening")
    scenario.says(closed, as_nobody=closed.weaker(), by_hand=machine.serve)


def test_a_drop_behind_an_application_firewall_that_says_yes_is_not_put_on_the_program(
    machine: Machine, scenario: Scenario
) -> None:
    machine.serve()
    reader(machine, 7, 1)
    queued(machine, "iptables-nft", "OUTPUT", 7)
    machine.chain("input", f"tcp dport {machine.port} drop")
    answer = machine.netdiag("run", "--json", f"127.0.0.1:{machine.port}")
    assert answer.cause is None or "hands" not in answer.cause["title"], str(answer)
