"""Listeners in other network namespaces, and the container around us, on machines made for the test."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.lab.machine import NOBODY, ROOT, SERVER, Machine, Server, start

pytestmark = [pytest.mark.lab]

PORT = 18081
UNIFIED = Path("/sys/fs/cgroup/unified")
ID = "0123456789abcdef" * 4
LOOK = f"""
import sys, msgspec
from diagnose.model.fact import Known
from diagnose.probes import namespaces
seen = namespaces.look([{PORT}, 1], float(sys.argv[1]))
found = seen.value.elsewhere if isinstance(seen, Known) else {{}}
print(msgspec.json.encode({{port: Known(found[port]) if found else seen for port in [{PORT}, 1]}}).decode())
"""
INSIDE = """
import msgspec
from diagnose.probes import containers
print(msgspec.json.encode(containers.inside()).decode())
"""


@pytest.fixture
def machine() -> Iterator[Machine]:
    with Machine(port=PORT) as machine:
        yield machine


@pytest.fixture
def another() -> Iterator[Machine]:
    with Machine(port=PORT) as machine:
        yield machine


def look(machine: Machine, uid: int = ROOT, port: int = PORT, seconds: float = 5.0) -> dict[str, Any]:
    """What is seen of the other namespaces from this machine, for the port."""
    told = json.loads(machine.run(sys.executable, "-c", LOOK, str(seconds), uid=uid))
    found: dict[str, Any] = told[str(port)]
    return found


def inode(machine: Machine) -> int:
    """The number of the machine's network namespace."""
    return Path(f"/proc/{machine.keeper.pid}/ns/net").stat().st_ino


def test_a_listener_in_another_namespace_is_found_with_its_holder(machine: Machine, another: Machine) -> None:
    server = another.serve()
    another.serve("accepts", "::1")
    machine.serve()
    seen = look(machine)["value"]
    assert [one["local"]["address"] for one in seen["listeners"]] == ["127.0.0.1", "::1"]
    first = seen["listeners"][0]
    assert first["namespace"] == inode(another)
    assert first["process"]["pid"] == server.pid
    assert first["init"] == another.keeper.pid
    assert seen["namespaces"] >= 1
    assert look(machine, port=1)["value"]["listeners"] == []


def test_an_ordinary_user_finds_it_too_but_not_its_holder(machine: Machine, another: Machine) -> None:
    another.serve()
    (found,) = look(machine, NOBODY)["value"]["listeners"]
    assert found["local"] == {"address": "127.0.0.1", "port": PORT}
    assert found["process"] is None
    assert found["init"] == another.keeper.pid
    assert found["init_program"] == "sleep"


def test_an_ordinary_user_sees_the_holder_that_is_his_own(machine: Machine, another: Machine) -> None:
    server = another.serve(uid=NOBODY)
    (found,) = look(machine, NOBODY)["value"]["listeners"]
    assert found["process"]["pid"] == server.pid


def test_processes_that_hide_their_link_are_of_the_namespace_whose_table_they_share(
    machine: Machine, another: Machine
) -> None:
    another.serve()
    another.serve("accepts", "127.0.0.2", uid=NOBODY)
    found = look(machine, NOBODY)["value"]["listeners"]
    assert {one["namespace"] for one in found} == {inode(another)}


def test_connections_and_other_ports_are_no_listeners(machine: Machine, another: Machine) -> None:
    another.serve(port=PORT + 1)
    assert look(machine)["value"]["listeners"] == []


def test_a_namespace_made_by_our_own_child_is_left_out(machine: Machine) -> None:
    script = f"""
import subprocess, sys
child = subprocess.Popen(["unshare", "--net", sys.executable, "-I", "-S", {str(SERVER)!r}, "accepts", "0.0.0.0",
                          "{PORT}"], stdout=subprocess.PIPE)
assert child.stdout.readline() == b"ready\\n"
{LOOK}
child.kill()
child.wait()
"""
    told = json.loads(machine.run(sys.executable, "-c", script, "5"))
    assert told[str(PORT)]["value"]["listeners"] == []


def test_a_named_namespace_is_told_by_its_name(machine: Machine) -> None:
    machine.run("ip", "netns", "add", "blue")
    server = Server(
        start(
            machine.inside(
                [
                    "nsenter",
                    "--net=/run/netns/blue",
                    sys.executable,
                    "-I",
                    "-S",
                    str(SERVER),
                    "accepts",
                    "0.0.0.0",
                    str(PORT),
                ]
            )
        )
    )
    machine.servers.append(server)
    (found,) = look(machine)["value"]["listeners"]
    assert (found["name"], found["process"]["pid"]) == ("blue", server.pid)


def test_a_named_namespace_without_a_process_could_not_be_looked_into(machine: Machine) -> None:
    before = look(machine)["value"]["unreadable"]
    machine.run("ip", "netns", "add", "empty")
    assert look(machine)["value"]["unreadable"] == before + 1
    machine.run("install", "/dev/null", "/run/netns/leftover")
    assert look(machine)["value"]["unreadable"] == before + 1


def test_time_that_is_over_is_told_and_not_taken_for_nothing_found(machine: Machine, another: Machine) -> None:
    another.serve()
    fact = look(machine, seconds=0.0)
    assert (fact["fact"], fact["reason"]) == ("unknown", "deadline")


@contextmanager
def cgroup(*parts: str) -> Iterator[Path]:
    """Directories below the unified hierarchy, gone afterwards."""
    made: list[Path] = []
    try:
        for part in parts:
            made.append((made[-1] if made else UNIFIED) / part)
            made[-1].mkdir()
        yield made[-1]
    finally:
        for path in reversed(made):
            path.rmdir()


@pytest.mark.parametrize("uid", [ROOT, NOBODY])
def test_the_cgroup_names_the_container(machine: Machine, another: Machine, uid: int) -> None:
    if not UNIFIED.is_dir():
        pytest.skip(f"no {UNIFIED}")
    server = another.serve()
    with cgroup(f"netdiag-test-{os.getpid()}", f"docker-{ID}.scope") as scope:
        for pid in (server.pid, another.keeper.pid):
            (scope / "cgroup.procs").write_text(str(pid))
        try:
            (found,) = look(machine, uid)["value"]["listeners"]
            assert (found["container"]["engine"], found["container"]["id"]) == ("docker", ID)
        finally:
            for pid in (server.pid, another.keeper.pid):
                (UNIFIED / "cgroup.procs").write_text(str(pid))


def inside(machine: Machine, *before: str) -> Any:
    """The container that a process of this machine finds itself in."""
    return json.loads(machine.run(*before, sys.executable, "-c", INSIDE))


def test_namespaces_of_its_own_do_not_make_a_container(machine: Machine) -> None:
    assert inside(machine) is None
    assert inside(machine, "unshare", "--pid", "--fork", "--mount-proc", "--ipc", "--uts") is None


def test_podman_s_marker_made_since_the_start_is_one(machine: Machine) -> None:
    machine.write("/run/.containerenv", f'engine="podman-5.0.0"\nname="web"\nid="{ID}"\n')
    assert inside(machine) == {"engine": "podman", "id": ID, "name": "web"}
