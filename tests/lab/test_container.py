"""Faults of whose localhost it is: a second network namespace stands for the container."""

from __future__ import annotations

from tests.lab.machine import Machine
from tests.lab.protocol import Scenario, likely, no_cause, proven


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
