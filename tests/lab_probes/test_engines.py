"""A real Docker Engine, asked: what it tells, and what is left when it cannot be asked."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.docker import DockerMachine
from tests.lab.machine import NOBODY, ROOT, Machine, Server, start, wait_for

pytestmark = [pytest.mark.lab]

PORT = 18090
LOOK = """
import sys, msgspec
from diagnose.probes import engines, forwarders, insides, namespaces
port, named = int(sys.argv[1]), sys.argv[2:]
others = namespaces.look([port], 5.0).value
ids = {one.container.id for one in others.elsewhere[port].listeners if one.container}
told = engines.look(lambda: [engines.Question(port, names=frozenset(named), ids=frozenset(ids))], 1.0)[port]
seen = forwarders.look([port], 1.0)
dialled = {one.target.address for one in seen.value}
inside = insides.look(others.namespaces, insides.Wanted(port, frozenset(ids), frozenset(dialled)))
print(msgspec.json.encode({"engines": told, "insides": inside, "forwarders": seen.value}).decode())
"""


@pytest.fixture(scope="module")
def machine() -> Iterator[DockerMachine]:
    """One engine for all of these, whose containers outlive it; each test has a port and containers of its own."""
    if os.geteuid() != 0 or sys.platform != "linux" or shutil.which("dockerd", path="/usr/sbin:/sbin") is None:
        pytest.skip("needs root on Linux, and dockerd")
    with DockerMachine(port=PORT, daemon=("--live-restore",)) as machine:
        yield machine


@pytest.fixture
def port(request: pytest.FixtureRequest, machine: DockerMachine) -> Iterator[int]:
    """A port that no other test has; the containers go after the test."""
    machine.port += 1
    yield machine.port
    machine.docker("rm", "--force", "--volumes", *machine.docker("ps", "--all", "--quiet").split(), check=False)


def look(machine: Machine, port: int, *names: str, uid: int = ROOT) -> dict[str, Any]:
    """What is found in this machine."""
    found: dict[str, Any] = json.loads(machine.run(sys.executable, "-c", LOOK, str(port), *names, uid=uid))
    return found


def containers(seen: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What the only engine tells, by name."""
    (engine,) = seen["engines"]
    assert engine["containers"]["fact"] == "known", engine
    return {one["container"]["name"]: one for one in engine["containers"]["value"]}


def reason(seen: dict[str, Any]) -> str:
    """Why the only engine tells nothing."""
    (engine,) = seen["engines"]
    assert engine["containers"]["fact"] == "unknown", engine
    return str(engine["containers"]["reason"])


def publish(port: int, inside: int = 80, address: str = "127.0.0.1") -> tuple[str, ...]:
    """The option of docker run."""
    return ("--publish", f"{address}:{port}:{inside}")


def test_a_published_port_is_followed_to_the_listener_inside(machine: DockerMachine, port: int) -> None:
    number = machine.web("web", "127.0.0.1", 80, options=publish(port))
    machine.web("decoy", "0.0.0.0", 80, options=publish(port + 1000))
    seen = look(machine, port)
    told = containers(seen)["web"]
    assert told["status"] == "running"
    assert told["pid"] == machine.pid("web")
    assert told["published"] == [{"address": "127.0.0.1", "port": port, "container_port": 80}]
    assert told["attachments"][0]["addresses"] == [machine.address("web")]
    (forwarder,) = seen["forwarders"]
    assert forwarder["program"] == "docker-proxy"
    assert forwarder["listens"] == {"address": "127.0.0.1", "port": port}
    assert forwarder["target"] == {"address": machine.address("web"), "port": 80}
    (inside,) = [one for one in seen["insides"] if one["container"]["id"] == number]
    assert inside["addresses"] == [machine.address("web")]
    assert inside["frozen"] == {"fact": "known", "value": False}
    assert [one["local"] for one in inside["listeners"]["value"]] == [{"address": "127.0.0.1", "port": 80}]
    assert inside["namespace"] == Path(f"/proc/{machine.pid('web')}/ns/net").stat().st_ino


def test_an_ordinary_user_finds_the_listener_and_the_forwarder_without_the_engine(
    machine: DockerMachine, port: int
) -> None:
    number = machine.web("web", "0.0.0.0", 80, options=publish(port))
    seen = look(machine, port, uid=NOBODY)
    assert reason(seen) == "needs root"
    assert seen["engines"][0]["containers"]["lift"] == "run it again with sudo"
    assert seen["forwarders"][0]["target"] == {"address": machine.address("web"), "port": 80}
    (inside,) = seen["insides"]
    assert inside["container"] == {"engine": "docker", "id": number, "name": None}
    assert [one["local"]["port"] for one in inside["listeners"]["value"]] == [80]
    assert inside["frozen"]["value"] is False


def test_a_container_of_another_engine_with_the_same_address_is_not_taken_for_it(
    machine: DockerMachine, port: int
) -> None:
    with DockerMachine(port=PORT) as other:
        other.web("theirs", "0.0.0.0", 80)
        number = machine.web("ours", "0.0.0.0", 80, options=publish(port))
        assert other.address("theirs") == machine.address("ours")
        for uid in (ROOT, NOBODY):
            assert [one["container"]["id"] for one in look(machine, port, uid=uid)["insides"]] == [number]


def test_a_member_of_the_docker_group_needs_no_root(machine: DockerMachine, port: int) -> None:
    machine.web("web", "0.0.0.0", 80, options=publish(port))
    machine.run("chgrp", str(NOBODY), "/run/docker.sock")
    try:
        assert list(containers(look(machine, port, uid=NOBODY))) == ["web"]
    finally:
        machine.run("chgrp", "0", "/run/docker.sock")


@pytest.mark.parametrize("uid", [ROOT, NOBODY], ids=["root", "nobody"])
def test_a_paused_container_is_seen_to_be_frozen_by_any_user(machine: DockerMachine, port: int, uid: int) -> None:
    number = machine.web("web", "0.0.0.0", 80, options=publish(port))
    machine.docker("pause", "web")
    seen = look(machine, port, uid=uid)
    machine.docker("unpause", "web")
    (inside,) = [one for one in seen["insides"] if one["container"]["id"] == number]
    assert inside["frozen"] == {"fact": "known", "value": True}
    if uid == ROOT:
        assert containers(seen)["web"]["status"] == "paused"


def test_a_container_that_ended_is_found_by_the_port_that_it_would_publish(machine: DockerMachine, port: int) -> None:
    machine.container("ended", "sh", "-c", "exit 3", options=publish(port))
    machine.container("decoy", "sh", "-c", "exit 4", options=publish(port + 1000))
    machine.until_status("ended", "exited")
    told = containers(look(machine, port))
    assert told["ended"]["exit_code"] == 3
    assert told["ended"]["published"] == [{"address": "127.0.0.1", "port": port, "container_port": 80}]


def test_a_container_that_could_not_start_is_told_with_the_engine_s_words(machine: DockerMachine, port: int) -> None:
    machine.serve(port=port)
    machine.docker("run", "--detach", "--name", "late", *publish(port), "lab", "sleep", "100", check=False)
    told = containers(look(machine, port))["late"]
    assert told["status"] == "created"
    assert told["exit_code"] is None
    assert "address already in use" in told["error"]


def test_a_container_that_keeps_restarting_is_told_with_its_last_exit_code(machine: DockerMachine, port: int) -> None:
    form = "{{.State.Status}} {{.RestartCount}}"
    machine.container("loop", "sh", "-c", "exit 7", options=("--restart=always", *publish(port)))
    wait_for(lambda: "restarting 5" in machine.docker("inspect", "--format", form, "loop"), "a pause of 3.2 s", 20)
    told = containers(look(machine, port))["loop"]
    assert (told["status"], told["exit_code"]) == ("restarting", 7)


def test_a_container_killed_for_want_of_memory_is_told_so(machine: DockerMachine, port: int) -> None:
    # the engine may hear of the kill only after the end of a container that it ends at once, and then says false
    eat = "(x=a; while true; do x=$x$x; done); sleep 1; exit 137"
    machine.container("hungry", "sh", "-c", eat, options=("--memory=8m", "--memory-swap=8m", *publish(port)))
    machine.until_status("hungry", "exited")
    told = containers(look(machine, port))["hungry"]
    assert told["out_of_memory"] is True
    assert told["exit_code"] == 137


def test_the_port_inside_counts_as_well_and_one_that_the_engine_chose(machine: DockerMachine, port: int) -> None:
    machine.web("web", "0.0.0.0", port, options=("--publish", str(port)))
    told = containers(look(machine, port))["web"]
    assert {one["container_port"] for one in told["published"]} == {port}
    assert all(one["port"] >= 32768 for one in told["published"])


def test_a_container_that_only_listens_is_found_by_its_listener(machine: DockerMachine, port: int) -> None:
    number = machine.web("web", "0.0.0.0", port)
    seen = look(machine, port)
    assert containers(seen)["web"]["published"] == []
    assert [one["container"]["id"] for one in seen["insides"]] == [number]


def test_containers_that_share_a_network_are_told_apart(machine: DockerMachine, port: int) -> None:
    first = machine.web("web", "0.0.0.0", port)
    second = machine.container("beside", "sleep", "100", options=("--network=container:web",))
    seen = look(machine, port, "beside")
    assert containers(seen)["beside"]["network_mode"] == f"container:{first}"
    assert {one["container"]["id"] for one in seen["insides"]} == {first, second}


def test_networks_and_names_are_told_for_both_families(machine: DockerMachine, port: int) -> None:
    machine.docker("network", "create", "--ipv6", "--subnet=fd00:77::/64", "--subnet=172.29.0.0/24", "back")
    machine.web("db", "0.0.0.0", port, options=("--network=back", "--network-alias=database"))
    seen = look(machine, port)
    (attached,) = containers(seen)["db"]["attachments"]
    assert attached["network"] == "back"
    assert attached["addresses"] == ["172.29.0.2", "fd00:77::2"]
    assert attached["gateways"] == ["172.29.0.1", "fd00:77::1"]
    assert attached["names"][:2] == ["db", "database"]
    assert seen["insides"][0]["addresses"] == ["172.29.0.2", "fd00:77::2"]
    machine.docker("rm", "--force", "db")
    machine.docker("network", "rm", "back")


def test_what_a_secret_holds_is_nowhere(machine: DockerMachine, port: int) -> None:
    options = ("--env=DB_PASSWORD=hunter2", "--label=token=hunter3", *publish(port))
    machine.container("web", "sleep", "100", options=options)
    assert "hunter" not in json.dumps(look(machine, port))


# ------ an engine that cannot be asked


def test_an_engine_that_hangs_costs_its_own_facts_only(machine: DockerMachine, port: int) -> None:
    machine.web("web", "0.0.0.0", 80, options=publish(port))
    with machine.engine_that_hangs():
        seen = look(machine, port)
    assert reason(seen) == "deadline"
    assert seen["forwarders"]
    assert seen["insides"]


def test_an_engine_that_was_stopped_leaves_what_the_kernel_shows(machine: DockerMachine, port: int) -> None:
    number = machine.web("web", "0.0.0.0", port)
    os.kill(machine.daemon_pid(), signal.SIGTERM)
    machine.engine.wait(10)
    try:
        seen = look(machine, port)
        assert seen["engines"] == []
        assert [one["container"]["id"] for one in seen["insides"]] == [number]
    finally:
        machine.start_engine()
    assert list(containers(look(machine, port))) == ["web"]


def test_a_machine_without_an_engine_has_none(machine: DockerMachine, port: int) -> None:
    machine.run("mv", "/run/docker.sock", "/run/away.sock")
    try:
        assert look(machine, port)["engines"] == []
    finally:
        machine.run("mv", "/run/away.sock", "/run/docker.sock")


def test_a_container_that_dies_while_we_look_is_an_answer_like_any_other(machine: DockerMachine, port: int) -> None:
    for attempt in range(3):
        machine.web("brief", "0.0.0.0", port, options=publish(port, port))
        killer = subprocess.Popen(machine.inside(["sh", "-c", f"sleep {0.1 * attempt}; docker kill brief >/dev/null"]))
        seen = look(machine, port)
        killer.wait(10)
        told = containers(seen).get("brief")
        assert told is None or told["status"] in ("running", "exited", "removing")
        machine.docker("rm", "--force", "brief")


def test_a_process_that_only_calls_itself_docker_proxy_is_none(machine: DockerMachine, port: int) -> None:
    words = ["-proto", "tcp", "-host-ip", "127.0.0.1", "-host-port", str(port), "-container-ip", "6.6.6.6"]
    script = (
        "import ctypes, time; ctypes.CDLL(None).prctl(15, b'docker-proxy'); print('ready', flush=True); time.sleep(60)"
    )
    impostor = Server(start(machine.inside([sys.executable, "-c", script, *words, "-container-port", "80"], NOBODY)))
    try:
        wait_for(lambda: Path(f"/proc/{impostor.pid}/comm").read_text() == "docker-proxy\n", "the new name")
        assert look(machine, port)["forwarders"] == []
    finally:
        impostor.kill()
