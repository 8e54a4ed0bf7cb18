"""A real podman, asked over its socket, which speaks Docker's language."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.docker import APPLETS, BUSYBOX
from tests.lab.machine import NOBODY, ROOT, Machine, wait_for
from tests.lab_probes.test_engines import look

pytestmark = [pytest.mark.lab]

PORT = 18200
SOCKET = "/run/podman/podman.sock"
LIMITS = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024")
"""Where root lacks CAP_SYS_RESOURCE podman cannot raise its own."""


class PodmanMachine(Machine):
    """Its containers have no network but their own loopback, so no plugin is needed."""

    def __enter__(self) -> PodmanMachine:
        super().__enter__()
        self.run("mkdir", "-p", str(Path(SOCKET).parent))
        self.root_directory()
        argv = [*self.command("system", "service", "--time=0"), f"unix://{SOCKET}"]
        self.service = subprocess.Popen(
            self.inside(argv), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_for(lambda: self.run("sh", "-c", f"test -S {SOCKET} && echo yes", check=False), "podman's socket", 20)
        return self

    def __exit__(self, *error: object) -> None:
        self.podman("rm", "--all", "--force", "--time=0", check=False)
        self.service.terminate()
        self.service.wait(10)
        super().__exit__(*error)

    def command(self, *arguments: str) -> list[str]:
        """Podman with all that it keeps in this machine's own place."""
        place = self.scratch / "podman"
        kept = ["--root", f"{place}/root", "--runroot", f"{place}/run", "--network-config-dir", f"{place}/net"]
        runtime = shutil.which("runc", path="/usr/sbin:/usr/bin:/sbin:/bin") or "runc"
        return ["podman", *kept, "--cgroup-manager=cgroupfs", "--runtime", runtime, "--storage-driver=vfs", *arguments]

    def podman(self, *arguments: str, check: bool = True) -> str:
        """Standard output of the podman command in this machine."""
        return self.run(*self.command(*arguments), check=check)

    def root_directory(self) -> None:
        """What its containers run on: static busybox."""
        programs = self.scratch / "rootfs" / "bin"
        programs.mkdir(parents=True)
        shutil.copy(BUSYBOX, programs / "busybox")
        for applet in APPLETS:
            (programs / applet).symlink_to("busybox")
        for name in ("dev", "etc", "proc", "run", "sys", "tmp"):
            (self.scratch / "rootfs" / name).mkdir()

    def container(self, verb: tuple[str, ...], name: str, *command: str, options: tuple[str, ...] = ()) -> str:
        """Make a container, and run it in the background where the verb says so; its id."""
        place = str(self.scratch / "rootfs")
        return self.podman(*verb, "--name", name, *LIMITS, *options, "--rootfs", place, *command).strip()


@pytest.fixture(scope="module")
def machine() -> Iterator[PodmanMachine]:
    """One podman for all of these."""
    if os.geteuid() != 0 or sys.platform != "linux":
        pytest.skip("needs root on Linux")
    missing = [tool for tool in ("podman", "conmon", "runc", BUSYBOX) if shutil.which(tool) is None]
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
