"""A real podman, asked over its socket, which speaks Docker's language."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.machine import NOBODY, ROOT, wait_for
from tests.lab.podman import NEEDED, SOCKET, PodmanMachine
from tests.lab_probes.test_engines import look

pytestmark = [pytest.mark.lab]

PORT = 18200


@pytest.fixture(scope="module")
def machine() -> Iterator[PodmanMachine]:
    """One podman for all of these."""
    if os.geteuid() != 0 or sys.platform != "linux":
        pytest.skip("needs root on Linux")
    missing = [tool for tool in NEEDED if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"needs tools that are not installed: {', '.join(missing)}")
    with PodmanMachine(port=PORT) as machine:
        yield machine


RUN, CREATE = ("run", "--detach"), ("create",)


def told(seen: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What podman tells, by name."""
    (engine,) = seen["engines"]
    assert (engine["name"], engine["address"]) == ("podman", f"unix://{SOCKET}")
    assert engine["containers"]["fact"] == "known", engine
    return {one["container"]["name"]: one for one in engine["containers"]["value"]}


def test_a_container_that_never_started_is_found_by_the_port_that_it_would_publish(machine: PodmanMachine) -> None:
    machine.container(CREATE, "made", "sleep", "100", options=("--publish", f"127.0.0.1:{PORT}:80"))
    machine.container(CREATE, "decoy", "sleep", "100", options=("--publish", f"127.0.0.1:{PORT + 1}:80"))
    found = told(look(machine, PORT))
    assert list(found) == ["made"]
    assert (found["made"]["status"], found["made"]["exit_code"]) == ("created", None)
    assert found["made"]["published"] == [{"address": "127.0.0.1", "port": PORT, "container_port": 80}]


def test_a_listener_inside_is_found_and_its_container_named(machine: PodmanMachine) -> None:
    inside = PORT + 2
    number = machine.container(RUN, "web", "httpd", "-f", "-p", f"127.0.0.1:{inside}", options=("--network=none",))
    wait_for(lambda: look(machine, inside)["insides"], "the server of web to listen", 10)
    seen = look(machine, inside)
    assert told(seen)["web"]["status"] == "running"
    assert told(seen)["web"]["network_mode"] == "none"
    (one,) = seen["insides"]
    assert (one["container"]["engine"], one["container"]["id"]) == ("podman", number)
    assert one["listeners"]["value"][0]["local"] == {"address": "127.0.0.1", "port": inside}
    assert one["pid"] == told(seen)["web"]["pid"]


def test_a_container_that_ended_is_found_by_its_name(machine: PodmanMachine) -> None:
    machine.container(RUN, "ended", "sh", "-c", "exit 3", options=("--network=none", "--env=TOKEN=hunter2"))
    wait_for(lambda: told(look(machine, 1, "ended"))["ended"]["status"] == "exited", "its end", 10)
    seen = look(machine, 1, "ended")
    assert told(seen)["ended"]["exit_code"] == 3
    assert "hunter2" not in json.dumps(seen)


def test_an_ordinary_user_learns_that_podman_may_be_here(machine: PodmanMachine) -> None:
    machine.run("chmod", "0700", str(Path(SOCKET).parent))
    (engine,) = look(machine, PORT, uid=NOBODY)["engines"]
    assert (engine["name"], engine["containers"]["reason"]) == ("podman", "needs root")
    assert told(look(machine, PORT, uid=ROOT))
