"""What engines answered on real machines, read."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from diagnose.model.container import ComposeService, Published, Status
from diagnose.parse.engine import described, listed
from tests.engine import RAW


def answer(name: str) -> Any:
    """As it was recorded."""
    return json.loads((RAW / f"{name}.json").read_bytes())


def test_a_running_container_is_described_with_the_ports_that_are_open() -> None:
    told = described(answer("docker/20.10-running"), "docker")
    assert (told.container.engine, told.container.name, told.status) == ("docker", "web", Status.RUNNING)
    assert told.publishes(21000) == (Published("127.0.0.1", 21000, 80),)
    assert {one.address for one in told.publishes(32768)} == {"0.0.0.0", "::"}, "a port that the engine chose"
    assert told.exit_code is None
    assert told.health == "healthy"
    assert told.network_mode == "n1"
    assert told.compose == ComposeService("p", "web")
    (attached,) = told.attachments
    assert attached.addresses == ("172.30.0.2", "fd00:9::2")
    assert attached.gateways == ("172.30.0.1", "fd00:9::1")
    assert attached.names[:2] == ("web", "foo")
    assert told.extra_hosts == ("x.test:host-gateway",)


def test_of_a_container_that_ended_it_is_told_how_and_what_it_would_publish() -> None:
    told = described(answer("docker/20.10-exited"), "docker")
    assert (told.status, told.exit_code, told.pid) == (Status.EXITED, 1, 0)
    assert told.publishes(21001) == (Published("0.0.0.0", 21001, 80), Published("::", 21001, 80))


def test_a_paused_container_still_has_its_ports() -> None:
    told = described(answer("docker/20.10-paused"), "docker")
    assert told.status is Status.PAUSED
    assert told.publishes(21003)


def test_the_host_s_network_is_told_by_its_mode() -> None:
    assert described(answer("docker/20.10-host-network"), "docker").network_mode == "host"


def test_podman_describes_a_container_the_same_way() -> None:
    told = described(answer("podman/4.3.1-running"), "podman")
    assert (told.container.engine, told.container.name, told.status) == ("podman", "web", Status.RUNNING)
    assert told.published == (Published("127.0.0.1", 22000, 80),)
    assert told.attachments[0].addresses == ("10.88.0.2",)
    assert told.attachments[0].gateways == ("10.88.0.1",)
    ended = described(answer("podman/4.3.1-exited"), "podman")
    assert (ended.status, ended.exit_code) == (Status.EXITED, 1)
    assert ended.published == (Published("0.0.0.0", 22001, 80),), "without an address podman leaves IPv6 out"
    created = described(answer("podman/4.3.1-created"), "podman")
    assert (created.status, created.exit_code) == (Status.CREATED, None)


def test_neither_the_environment_nor_the_command_is_kept() -> None:
    raw = answer("docker/20.10-running")
    assert raw["Config"]["Env"] == ["SECRET=x"]
    raw["Config"]["Labels"]["password"] = "hunter2"
    kept = msgspec.json.encode(described(raw, "docker"))
    assert b"SECRET" not in kept
    assert b"hunter2" not in kept
    assert b"/www" not in kept


def test_a_secret_in_the_engine_s_own_words_is_masked() -> None:
    raw = answer("docker/20.10-exited")
    raw["State"]["Error"] = 'exec: "app --password=hunter2": not found'
    assert "hunter2" not in described(raw, "docker").error


def test_the_list_has_the_ports_of_those_that_run_only() -> None:
    rows = {next(iter(row.names)): row for row in listed(answer("docker/20.10-list"))}
    assert rows["paused"].published == {21003}
    assert rows["paused"].exposed == {80}
    assert rows["paused"].tells_its_ports
    assert not rows["dead"].tells_its_ports
    assert not rows["hostnet"].tells_its_ports


@pytest.mark.parametrize(
    "change",
    [
        {"Id": None},
        {"State": []},
        {"State": {"Pid": "1"}},
        {"HostConfig": {"PortBindings": {"80/tcp": [{"HostIp": "nowhere", "HostPort": "80"}]}}},
        {"HostConfig": {"PortBindings": {"80/tcp": [{"HostIp": "", "HostPort": "80000"}]}}},
        {"HostConfig": {"PortBindings": {"http/tcp": [{"HostIp": "", "HostPort": "80"}]}}},
        {"NetworkSettings": {"Networks": {"n": {"IPAddress": "\x1b[2J"}}}},
        {"Name": {"a": 1}},
    ],
    ids=str,
)
def test_nonsense_is_no_answer(change: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        described(answer("docker/20.10-running") | change, "docker")


@pytest.mark.parametrize(
    "nonsense", [None, {}, [1], [[]], [{}], [{"Id": 5}], "[]", [{"Id": "1", "Ports": [{"PublicPort": "x"}]}]]
)
def test_a_list_of_nonsense_is_no_answer(nonsense: object) -> None:
    with pytest.raises(ValueError):
        listed(nonsense)
