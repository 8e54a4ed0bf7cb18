"""Faults where the kernel completes the connection and nobody takes it, and healthy servers that only look like it."""

from __future__ import annotations

import pytest

from tests.lab.machine import NOBODY, Machine
from tests.lab.protocol import Scenario, likely, proven, works

STOPPED, FULL, IDLE = proven("hung/process-stopped"), proven("hung/accept-queue-full"), proven("hung/not-accepting")


def test_a_stopped_server_is_named_beside_a_decoy_that_runs(machine: Machine, scenario: Scenario) -> None:
    server = machine.serve()
    server.stop()
    machine.serve(port=machine.port + 1)
    answer = scenario.says(STOPPED, as_nobody=(STOPPED, IDLE))
    assert answer.cause
    assert str(server.pid) in str(answer.cause)


def test_an_ordinary_user_can_wake_their_own_stopped_server(machine: Machine, scenario: Scenario) -> None:
    machine.serve(uid=NOBODY).stop()
    answer = scenario.diagnose((f"127.0.0.1:{machine.port}",), NOBODY, STOPPED)
    assert answer.cause
    command = answer.cause["remedies"][0]["commands"][0]
    assert not command["needs_root"]
    machine.run(*command["argv"], uid=NOBODY)
    assert works().is_said_by(machine.netdiag("run", "--json", f"127.0.0.1:{machine.port}", uid=NOBODY))


def test_a_stopped_server_with_a_full_queue_is_stopped_first_of_all(machine: Machine, scenario: Scenario) -> None:
    machine.serve("full").stop()
    answer = machine.netdiag("run", "--json", f"127.0.0.1:{machine.port}")
    assert answer.cause
    assert answer.cause["code"] in ("hung/process-stopped", "hung/accept-queue-full"), str(answer)
    assert {"hung/process-stopped", "hung/accept-queue-full"} <= set(answer.codes) | set(answer.cause["explains"])


def test_a_full_accept_queue_drops_new_clients(machine: Machine, scenario: Scenario) -> None:
    server = machine.serve("full")
    machine.serve(port=machine.port + 1)

    def restart() -> None:
        server.kill()
        machine.serve()

    scenario.says(FULL, as_nobody=FULL, by_hand=restart)


def test_a_full_accept_queue_beside_an_innocent_drop_rule_is_the_queue_s(machine: Machine, scenario: Scenario) -> None:
    server = machine.serve("full")
    machine.chain("input", f"tcp dport {machine.port + 1} drop")

    def restart() -> None:
        server.kill()
        machine.serve()

    scenario.says(FULL, by_hand=restart)


def test_a_running_server_that_never_accepts_is_told_from_a_slow_one(machine: Machine, scenario: Scenario) -> None:
    server = machine.serve("never_accepts")
    machine.serve(port=machine.port + 1)

    def restart() -> None:
        server.kill()
        machine.serve()

    scenario.says(IDLE, as_nobody=IDLE, by_hand=restart)


@pytest.mark.parametrize("conduct", ["accepts", "accepts_late", "defers"])
@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_a_healthy_server_is_never_accused(machine: Machine, scenario: Scenario, conduct: str, address: str) -> None:
    machine.serve(conduct, address)
    host = f"[{address}]" if ":" in address else address
    answer = scenario.says(works(), target=f"{host}:{machine.port}")
    assert not [f for f in answer.report["findings"] if f["severity"] != "info"], str(answer)


def test_a_dual_stack_server_is_reached_over_ipv4(machine: Machine, scenario: Scenario) -> None:
    machine.serve("accepts", "::")
    scenario.says(works())


def test_a_stopped_process_that_does_not_own_the_port_is_not_accused(machine: Machine, scenario: Scenario) -> None:
    machine.serve(port=machine.port + 1).stop()
    machine.serve()
    scenario.says(works())


def test_a_healthy_server_is_reached_on_a_machine_that_refuses_others_all_the_time(
    machine: Machine, scenario: Scenario
) -> None:
    machine.serve()
    machine.serve("refused_all_the_time", "127.0.0.1", machine.port + 300)
    scenario.says(works())


def test_an_orphaned_listening_socket_is_not_accepted_by_anybody(machine: Machine, scenario: Scenario) -> None:
    holder = machine.serve("never_accepts", "127.0.0.1", 0, "name=sleep")

    def restart() -> None:
        holder.kill()
        machine.serve()

    scenario.says(IDLE, as_nobody=(IDLE, likely("hung/not-accepting")), by_hand=restart)
