"""Relays of engines without root accept in the server's place: what counts is the server at the far end."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lab.machine import NOBODY, ROOT, Answer, Machine, Server, start
from tests.lab.protocol import Scenario, proven, works

RELAY = Path(__file__).with_name("relay.py")
NAMES = ("pasta", "rootlessport", "rootlesskit")
INSIDE = 8000


def relayed(machine: Machine, within: Server, program: str, port: int = INSIDE, *, hidden: bool = False) -> Server:
    """The machine's port leads to this port of the namespace that the server is in."""
    machine.run("install", "--mode=644", "/dev/stdin", "/run/relay.py", stdin=RELAY.read_bytes())
    namespace = f"/proc/{within.pid}/ns/net"
    if hidden:  # the way by which the relay names it leads nowhere for others
        namespace = "/run/hidden/namespace"
        machine.run("sh", "-c", f"mkdir -m 700 /run/hidden; ln -s /proc/{within.pid}/ns/net {namespace}")
    words = ("-t", f"{machine.port}:{port}", "--netns", namespace, "--name", program)
    server = Server(start(machine.inside(["/run/python3", "/run/relay.py", *words])))
    machine.servers.append(server)
    return server


def asked(machine: Machine, uid: int) -> Answer:
    return machine.netdiag("run", "--json", f"127.0.0.1:{machine.port}", uid=uid)


@pytest.mark.parametrize("program", NAMES)
@pytest.mark.parametrize("uid", [ROOT, NOBODY])
def test_a_server_behind_a_relay_is_reachable_and_nothing_is_left_open(
    machine: Machine, another: Machine, program: str, uid: int
) -> None:
    relayed(machine, another.serve("accepts", "127.0.0.1", INSIDE), program)
    answer = asked(machine, uid)
    assert works().is_said_by(answer), answer
    assert "the far end of the connection" not in [one["fact"] for one in answer.report["not_checked"]]


@pytest.mark.parametrize("program", NAMES)
def test_a_stopped_server_behind_a_relay_is_not_called_reachable(
    machine: Machine, another: Machine, scenario: Scenario, program: str
) -> None:
    server = another.serve("accepts", "127.0.0.1", INSIDE)
    another.serve("accepts", "127.0.0.1", INSIDE + 1)  # innocent
    relayed(machine, server, program)
    server.stop()
    hung = proven("hung/not-accepting")
    answer = scenario.diagnose((f"127.0.0.1:{machine.port}",), ROOT, hung)
    assert f"127.0.0.1:{INSIDE}" in answer.cause["title"]  # type: ignore[index]
    scenario.diagnose((f"127.0.0.1:{machine.port}",), NOBODY, hung)


def test_a_server_that_never_accepts_behind_a_relay_whose_namespace_is_hidden_is_seen_by_its_connection(
    machine: Machine, another: Machine, scenario: Scenario
) -> None:
    relayed(machine, another.serve("never_accepts", "127.0.0.1", INSIDE), "pasta", hidden=True)
    for uid in (ROOT, NOBODY):
        scenario.diagnose((f"127.0.0.1:{machine.port}",), uid, proven("hung/not-accepting"))


def test_a_relay_to_a_port_on_which_nothing_listens_is_not_called_reachable(
    machine: Machine, another: Machine, scenario: Scenario
) -> None:
    relayed(machine, another.serve("accepts", "127.0.0.1", INSIDE), "pasta", INSIDE + 5)
    for uid in (ROOT, NOBODY):
        scenario.diagnose((f"127.0.0.1:{machine.port}",), uid, proven("hung/closes-at-once"))


@pytest.mark.parametrize("uid", [ROOT, NOBODY])
def test_a_server_behind_a_relay_that_wants_data_first_is_no_failure(
    machine: Machine, another: Machine, uid: int
) -> None:
    relayed(machine, another.serve("defers", "127.0.0.1", INSIDE), "pasta")
    answer = asked(machine, uid)
    assert works().is_said_by(answer), str(answer)


def test_a_program_of_another_kind_that_forwards_is_judged_by_its_own_accept(
    machine: Machine, another: Machine
) -> None:
    server = another.serve("accepts", "127.0.0.1", INSIDE)
    relayed(machine, server, "socat")
    server.stop()
    assert works().is_said_by(asked(machine, ROOT))
