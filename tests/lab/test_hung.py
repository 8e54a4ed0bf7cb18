"""Faults where the kernel completes the connection and nobody takes it, and healthy servers that only look like it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.lab.machine import NOBODY, ROOT, Machine
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


@pytest.mark.parametrize("timeout", ["0.03", "0.3"])
def test_a_full_accept_queue_keeps_its_cause_where_the_wait_is_over_before_the_witnesses_are_asked(
    machine: Machine, scenario: Scenario, timeout: str
) -> None:
    machine.serve("full")
    asked = (f"127.0.0.1:{machine.port}", "--timeout", timeout)
    for uid in (ROOT, NOBODY):
        scenario.diagnose(asked, uid, FULL)


def test_a_dropped_packet_keeps_its_rule_where_the_wait_is_over_before_the_witnesses_are_asked(
    machine: Machine, scenario: Scenario
) -> None:
    machine.serve()
    machine.chain("input", f"tcp dport {machine.port} drop")
    scenario.diagnose((f"127.0.0.1:{machine.port}", "--timeout", "0.03"), ROOT, proven("firewall/rule-drops"))


def test_a_master_whose_only_worker_serves_an_idle_client_is_not_the_one_to_look_at(
    machine: Machine, scenario: Scenario
) -> None:
    master = machine.serve("has_workers", "127.0.0.1", 0, "workers=1", "idle=1")
    (worker,) = workers(master.pid)

    def restart() -> None:
        master.kill()
        machine.serve()

    answer = scenario.says(IDLE, as_nobody=IDLE, by_hand=restart)
    assert answer.cause
    advice = " ".join(remedy["summary"] for remedy in answer.cause["remedies"])
    assert f"pid {worker})" in advice, str(answer)
    assert str(master.pid) not in advice, str(answer)
    assert f"(pid {worker}) has a connection from 127.0.0.1:" in str(answer)


def test_workers_that_are_all_stopped_are_named_and_their_master_is_not(machine: Machine, scenario: Scenario) -> None:
    master = machine.serve("has_workers", "127.0.0.1", 0, "workers=2")
    for pid in workers(master.pid):
        os.kill(pid, signal.SIGSTOP)
    answer = scenario.says(likely("hung/process-stopped"), as_nobody=IDLE)
    assert answer.cause
    assert answer.cause["remedies"][0]["commands"][0]["argv"] == ["kill", "-CONT", *map(str, workers(master.pid))]


def test_of_two_servers_that_share_a_port_the_stopped_one_is_named(machine: Machine, scenario: Scenario) -> None:
    healthy = machine.serve("accepts", "127.0.0.1", 0, "shared")
    stopped = machine.serve("accepts", "127.0.0.1", 0, "shared")
    stopped.stop()
    for _ in range(12):  # the kernel chooses one of the two for each connection
        answer = machine.netdiag("run", "--json", f"127.0.0.1:{machine.port}")
        if answer.exit_code:
            break
    assert likely("hung/process-stopped").is_said_by(answer), str(answer)
    assert str(stopped.pid) in str(answer.cause), str(answer)
    assert str(healthy.pid) not in str(answer.cause), str(answer)


@pytest.mark.parametrize("uid", [ROOT, NOBODY])
def test_a_server_that_ends_at_each_client_and_is_started_again_is_said_to_be(machine: Machine, uid: int) -> None:
    machine.serve("restarts", uid=uid)
    answer = machine.netdiag("run", "--json", f"127.0.0.1:{machine.port}", uid=uid)
    assert proven("hung/closes-at-once").is_said_by(answer), str(answer)
    assert answer.cause
    assert "new process" in answer.cause["explanation"], str(answer)
    assert "started at" in str(answer), str(answer)
    assert "why the server ends" in answer.cause["remedies"][0]["summary"], str(answer)


def workers(master: int) -> list[int]:
    """The children of a server."""
    return [int(pid) for pid in Path(f"/proc/{master}/task/{master}/children").read_text().split()]
