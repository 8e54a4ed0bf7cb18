"""Faults of whose localhost it is: a second network namespace stands for the container."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from threading import Thread

import pytest

from tests.lab.machine import NOBODY, ROOT, Machine
from tests.lab.protocol import Scenario, likely, no_cause, proven, works


def test_a_server_in_another_namespace_is_found_from_here(
    machine: Machine, another: Machine, scenario: Scenario
) -> None:
    server = another.serve()
    machine.serve(port=machine.port + 300)
    answer = scenario.says(likely("container/other-namespace"), as_nobody=likely("container/other-namespace"))
    assert answer.cause
    assert str(server.pid) in str(answer.cause)


def test_servers_in_two_other_namespaces_are_candidates_and_neither_is_accused(
    machine: Machine, another: Machine, scenario: Scenario
) -> None:
    with Machine(port=machine.port) as third:
        another.serve()
        third.serve()
        scenario.says(proven("refused/nothing-listening"), by_hand=machine.serve)


def test_a_server_in_another_namespace_is_no_candidate_while_one_here_is_stopped(
    machine: Machine, another: Machine, scenario: Scenario
) -> None:
    another.serve()
    machine.serve().stop()
    scenario.says(proven("hung/process-stopped"), as_nobody=proven("hung/not-accepting"))


def test_inside_a_container_localhost_is_the_container_s_own(
    machine: Machine, another: Machine, scenario: Scenario
) -> None:
    machine.write("/run/.containerenv", 'engine="podman-4.3.1"\nname="web"\nid="0123456789abcdef"\n')
    another.serve()
    answer = scenario.says(
        proven("container/own-localhost"),
        as_nobody=(proven("container/own-localhost"), likely("container/own-localhost"), no_cause()),
        by_hand=machine.serve,
    )
    container = answer.report["vantage"]["container"]
    assert container
    assert (container["engine"], container["name"]) == ("podman", "web")


def test_inside_a_container_its_own_stopped_server_is_the_cause(machine: Machine, scenario: Scenario) -> None:
    machine.write("/run/.containerenv", "")
    machine.serve().stop()
    scenario.says(proven("hung/process-stopped"), as_nobody=proven("hung/not-accepting"))


def test_a_client_in_a_sandbox_of_its_own_is_sent_out_of_it_and_not_to_the_server_s_unit(
    machine: Machine, scenario: Scenario
) -> None:
    server = socket.create_server(("127.0.0.1", 0))  # in the network namespace of the test itself: the machine's own
    target = f"127.0.0.1:{server.getsockname()[1]}"
    if os.stat("/proc/self/net/tcp").st_ino != os.stat("/proc/1/net/tcp").st_ino:
        pytest.skip("the tests run in a network namespace of their own")
    expected = likely("container/other-namespace")

    kept: list[socket.socket] = []

    def accept() -> None:
        with suppress(OSError):
            while True:
                kept.append(server.accept()[0])

    Thread(target=accept, daemon=True).start()
    try:
        for uid in (ROOT, NOBODY):
            answer = scenario.diagnose((target,), uid, expected)
            assert answer.cause
            assert answer.cause["title"].startswith("netdiag runs in its own network namespace"), str(answer)
            assert "systemctl" not in str(answer.cause["remedies"])
        scenario.mend(scenario.diagnose((target,), ROOT, expected), (target,), None, works())
    finally:
        for one in (server, *kept):
            one.close()
