"""A bundle from a container's localhost."""

from __future__ import annotations

import pytest

from tests.lab.docker import DockerMachine
from tests.lab.machine import NOBODY, ROOT
from tests.lab.test_bundles import answered_alike, bundled


@pytest.mark.parametrize("uid", [ROOT, NOBODY], ids=["root", "nobody"])
def test_a_containers_localhost_is_named_alike_by_whoever_opens_the_bundle(machine: DockerMachine, uid: int) -> None:
    machine.serve()
    machine.web("plumtree-web", "127.0.0.1", machine.port + 1)
    machine.run("install", "-d", "-m", "777", "/run/sent")
    asked = ("--from", "container:plumtree-web") if uid == ROOT else ()
    port = machine.port if uid == ROOT else machine.port + 1
    ran, replayed = bundled(machine, *asked, f"localhost:{port}", uid=uid)
    answered_alike(ran, replayed)
    if uid == ROOT:
        assert ran.cause
        assert ran.cause["code"] == "container/own-localhost"
        assert replayed.report["vantage"]["container"]["name"] == "container-1"
    assert "plumtree" not in replayed.text
