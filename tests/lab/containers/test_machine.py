"""The machine with an engine, before anything is broken on it."""

from __future__ import annotations

from tests.lab.docker import DockerMachine
from tests.lab.protocol import Scenario, works


def test_a_published_port_of_a_healthy_container_is_reachable(machine: DockerMachine, scenario: Scenario) -> None:
    machine.web("web", "0.0.0.0", 80, options=("--publish", f"127.0.0.1:{machine.port}:80"))
    scenario.says(works())
