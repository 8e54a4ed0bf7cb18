"""Starting a server on a port that an engine keeps for a container."""

from __future__ import annotations

import pytest

from tests.lab.docker import DockerMachine
from tests.lab.protocol import Diagnosis, Scenario

NOT_BINDABLE = Diagnosis("in-use/container-port", "proven", "not-bindable", 1)
UNSEEN = (
    Diagnosis("in-use/listener", "proven", "not-bindable", 1),
    Diagnosis("in-use/overlapping-address", "proven", "not-bindable", 1),
)
"""An ordinary user does not see who holds root's sockets."""


def test_the_container_that_has_the_port_is_named_and_stopped(machine: DockerMachine, scenario: Scenario) -> None:
    machine.web("decoy", "0.0.0.0", 80, options=("--publish", f"127.0.0.1:{machine.port + 1}:80"))
    machine.web("app", "0.0.0.0", 80, options=("--publish", f"127.0.0.1:{machine.port}:80"))
    answer = scenario.says(NOT_BINDABLE, as_nobody=UNSEEN, arguments=("--bind",))
    assert answer.cause["remedies"][0]["commands"][0]["argv"] == ["docker", "stop", "app"]  # type: ignore[index]


@pytest.mark.parametrize("machine", [("--userland-proxy=false",)], ids=["no proxy"], indirect=True)
def test_without_a_proxy_the_engine_keeps_the_port_for_the_container_itself(
    machine: DockerMachine, scenario: Scenario
) -> None:
    machine.web("app", "0.0.0.0", 80, options=("--publish", f"0.0.0.0:{machine.port}:80"))
    answer = scenario.says(NOT_BINDABLE, as_nobody=UNSEEN, arguments=("--bind",))
    assert "dockerd" in answer.cause["title"]  # type: ignore[index]


def test_a_proxy_that_outlived_its_container_is_left_over(machine: DockerMachine) -> None:
    machine.serve("accepts", "127.0.0.1", 0, "name=docker-proxy")
    answer = machine.netdiag("run", "--json", "--bind", f"127.0.0.1:{machine.port}")
    assert answer.cause
    assert (answer.cause["code"], answer.cause["confidence"]) == ("in-use/container-port", "likely")
    assert "no container publishes it" in answer.cause["title"]
