"""Podman, which keeps a published port by conmon and leads into the container by NAT rules alone."""

from __future__ import annotations

import os
import shutil
import zlib
from collections.abc import Iterator

import pytest

from tests.lab.machine import wait_for
from tests.lab.podman import NEEDED, PodmanMachine
from tests.lab.protocol import Scenario, likely, proven, works

RUN = ("run", "--detach")
PLUGIN = "/usr/lib/cni/portmap"


@pytest.fixture
def machine(_lab: None, request: pytest.FixtureRequest) -> Iterator[PodmanMachine]:
    missing = [tool for tool in (*NEEDED, PLUGIN) if shutil.which(tool) is None and not os.path.exists(tool)]
    if missing:
        pytest.skip(f"the lab needs tools that are not installed: {', '.join(missing)}")
    with PodmanMachine(port=20000 + zlib.crc32(request.node.name.encode()) % 12000) as machine:
        yield machine


def web(machine: PodmanMachine, name: str, port: int, listens: str = "0.0.0.0:80") -> None:
    """A container whose port 80 is published on this port of the machine."""
    serve = ("httpd", "-f", "-p", listens, "-h", "/tmp")
    machine.container(RUN, name, *serve, options=("--publish", f"{port}:80"))
    wait_for(lambda: "tentative" not in machine.run("ip", "-o", "address"), "addresses to settle", 10)


def test_a_nat_rule_of_podman_that_is_gone_is_written_anew_by_podman(
    machine: PodmanMachine, scenario: Scenario
) -> None:
    web(machine, "app", machine.port)
    assert works().is_said_by(machine.netdiag("run", "--json", f"127.0.0.1:{machine.port}"))
    machine.run("iptables", "-t", "nat", "-F")
    answer = scenario.says(
        proven("container/nat-missing"), as_nobody=(proven("hung/not-accepting"), likely("hung/not-accepting"))
    )
    assert answer.cause["remedies"][0]["commands"][0]["argv"] == ["podman", "network", "reload", "app"]  # type: ignore[index]


def test_a_server_on_loopback_in_a_podman_container_refuses_and_no_rule_is_blamed(
    machine: PodmanMachine, scenario: Scenario
) -> None:
    web(machine, "app", machine.port, "127.0.0.1:80")

    def listen_on_all() -> None:
        machine.podman("rm", "--force", "--time=0", "app")
        web(machine, "app", machine.port)

    answer = scenario.says(proven("container/binds-loopback-inside"), by_hand=listen_on_all)
    assert answer.report["root_cause"]["code"] == "container/binds-loopback-inside"
