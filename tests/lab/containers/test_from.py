"""--from container:NAME: its localhost, its names, and the ground it stands on, which is hostile."""

from __future__ import annotations

from tests.lab.docker import DockerMachine


def test_localhost_of_a_container_is_its_own_and_not_the_host_s(machine: DockerMachine) -> None:
    machine.serve()
    machine.web("web", "127.0.0.1", machine.port + 1)
    theirs = machine.netdiag("run", "--json", "--from", "container:web", f"localhost:{machine.port + 1}")
    assert (theirs.report["verdict"], theirs.exit_code) == ("reachable", 0), theirs
    ours = machine.netdiag("run", "--json", "--from", "container:web", f"localhost:{machine.port}")
    assert (ours.report["verdict"], ours.exit_code) == ("unreachable", 1), ours
    vantage = ours.report["vantage"]
    assert (vantage["from"], vantage["container"]["name"]) == ("container:web", "web")
