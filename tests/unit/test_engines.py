"""Engines that answer, and those that hang, lie, or are not there: each costs its own facts only."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from diagnose.model.container import Engine, Status
from diagnose.model.fact import PASSIVE, Known, Reason, Unknown
from diagnose.probes import engines
from diagnose.probes.engines import NoSuchContainerError, Question, places
from tests.engine import DOCKER, PODMAN, RAW, Answer, FakeEngine, drip, flood, hanging, http, recorded, says

importlib.import_module("docker")  # on a busy machine that takes longer than an engine may
PATIENCE = 0.6
LIMIT = 2.0
"""Seconds that a look may really take, on a machine with much else to do."""


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeEngine]:
    """One that answers as docker 20.10 did; nothing else is on this machine."""
    for name in ("DOCKER_HOST", "CONTAINER_HOST", "DOCKER_CONTEXT", "XDG_RUNTIME_DIR", "SUDO_UID", "DOCKER_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(places, "DOCKER", (str(tmp_path / "docker.sock"),))
    monkeypatch.setattr(places, "PODMAN", (str(tmp_path / "podman.sock"),))
    containers = recorded("docker/20.10-running", "docker/20.10-exited", "docker/20.10-paused")
    containers[""] = (RAW / "docker/20.10-list.json").read_bytes()
    fake = FakeEngine(tmp_path / "docker.sock", DOCKER, containers)
    yield fake
    with contextlib.suppress(OSError):  # a test may have closed it
        fake.close()


def look(port: int, **question: frozenset[str]) -> tuple[Engine, ...]:
    """What the engines say of the port."""
    return engines.look(lambda: [Question(port, **question)], PATIENCE)[port]


def names(engine: Engine) -> list[str | None]:
    """The containers that it tells of."""
    assert isinstance(engine.containers, Known), engine.containers
    return [one.container.name for one in engine.containers.value]


def trouble(port: int = 21001) -> Unknown:
    """Why the only engine tells nothing, and soon."""
    started = time.monotonic()
    (one,) = look(port)
    assert time.monotonic() - started < LIMIT
    assert isinstance(one.containers, Unknown), one.containers
    return one.containers


@pytest.mark.parametrize(("port", "name"), [(21000, "web"), (21001, "dead"), (21003, "paused")])
def test_the_container_that_publishes_the_port_is_found_whether_it_runs_or_not(
    engine: FakeEngine, port: int, name: str
) -> None:
    (one,) = look(port)
    assert one.name == "docker"
    assert names(one) == [name]
    assert one.unseen == 0


def test_podman_tells_the_same_by_the_same_questions(engine: FakeEngine, tmp_path: Path) -> None:
    (tmp_path / "docker.sock").unlink()
    containers = recorded("podman/4.3.1-running", "podman/4.3.1-exited", "podman/4.3.1-created")
    containers[""] = (RAW / "podman/4.3.1-list.json").read_bytes()
    podman = FakeEngine(tmp_path / "podman.sock", PODMAN, containers)
    for port, name in ((22000, "web"), (22001, "dead"), (22002, "made")):
        (one,) = look(port)
        assert one.name == "podman"
        assert names(one) == [name]
        assert one.unseen == 0
    assert len(podman.asked) == 3 * 3, "its list has the ports of those that do not run, too"
    podman.close()


def test_the_engine_at_docker_s_socket_is_called_podman_where_it_is(engine: FakeEngine) -> None:
    engine.headers = PODMAN
    (one,) = look(21000)
    assert one.name == "podman"


def test_a_container_is_found_by_its_name_its_address_and_the_start_of_its_id(engine: FakeEngine) -> None:
    number = json.loads((RAW / "docker/20.10-paused.json").read_bytes())["Id"]
    for question in ({"names": {"paused"}}, {"addresses": {"172.17.0.3"}}, {"ids": {number[:12]}}):
        (one,) = look(1, **{key: frozenset(value) for key, value in question.items()})
        assert names(one) == ["paused"]


def test_a_container_that_vanishes_between_two_questions_is_left_out(engine: FakeEngine) -> None:
    engine.broken = {"/json": says(http(b'{"message":"No such container"}', "404 Not Found"))}
    engine.broken = {"/containers/json": says(http(engine.list())), **engine.broken}
    (one,) = look(21001)
    assert names(one) == []


@pytest.mark.parametrize("answer", [says(b""), says(http(b"{}")), says(http(b"{", "500 Internal Server Error"))])
def test_an_engine_that_stops_midway_tells_nothing_rather_than_half(engine: FakeEngine, answer: Answer) -> None:
    engine.broken = {"/containers/json": says(http(engine.list())), "/json": answer}
    assert trouble().reason in (Reason.FAILED, Reason.UNPARSABLE)


def test_an_engine_at_a_port_of_loopback_is_asked_there(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    second = FakeEngine(None, DOCKER, engine.containers)
    monkeypatch.setenv("DOCKER_HOST", f"tcp://localhost:{second.port}")
    monkeypatch.setenv("http_proxy", "http://192.0.2.1:3128")
    first, _ = look(21001)
    assert (first.name, first.address) == ("docker", f"tcp://127.0.0.1:{second.port}")
    assert names(first) == ["dead"]
    second.close()


def test_an_engine_that_systemd_would_start_is_not_started(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = {1: "systemd"}
    monkeypatch.setattr(places, "_PROGRAMS", ("/bin/sh",))
    monkeypatch.setattr(places, "_program", lambda pid: programs.get(pid, ""))
    told = trouble()
    assert "would start it" in told.detail
    assert engine.asked == []
    programs[os.getpid()] = "dockerd"
    assert names(look(21001)[0]) == ["dead"]


def test_a_context_of_the_user_who_called_sudo_leads_to_his_own_engine_only(
    engine: FakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "docker.sock").rename(tmp_path / "his.sock")
    home = tmp_path / "home"
    context(home, f"unix://{tmp_path}/his.sock")
    monkeypatch.setattr(places, "_home", lambda uid: str(home))
    monkeypatch.setenv("SUDO_UID", str(os.getuid() + 1))
    assert look(21001) == ()
    monkeypatch.setenv("SUDO_UID", str(os.getuid()))
    assert names(look(21001)[0]) == ["dead"]


def test_a_machine_without_an_engine_has_none(engine: FakeEngine, tmp_path: Path) -> None:
    (tmp_path / "docker.sock").unlink()
    assert look(21001) == ()


def test_a_socket_that_nobody_listens_at_is_an_engine_that_does_not_run(engine: FakeEngine) -> None:
    engine.close()
    told = trouble()
    assert told.reason is Reason.FAILED
    assert "does not run" in told.detail


@pytest.mark.parametrize("question", ["/_ping", "/containers/json", "/json"])
def test_an_engine_that_hangs_is_left_at_the_deadline(engine: FakeEngine, question: str) -> None:
    with hanging() as hang:
        engine.broken = {question: hang}
        assert trouble().reason is Reason.DEADLINE


@pytest.mark.parametrize("question", ["/_ping", "/containers/json"])
def test_an_engine_that_drips_is_left_at_the_deadline(engine: FakeEngine, question: str) -> None:
    engine.broken = {question: drip}
    assert trouble().reason is Reason.DEADLINE


NONSENSE: dict[str, Answer] = {
    "more than fits": flood,
    "no HTTP": says(b"garbage\r\n\r\n"),
    "nothing": says(b""),
    "no JSON": says(http(b"{")),
    "another shape": says(http(b'{"ApiVersion": 7, "Id": 5}')),
    "a list": says(http(b"[[]]")),
    "deep": says(http(b"[" * 100_000)),
    "an error": says(http(b'{"message":"no \x1b[2J password=hunter2"}', "500 Internal Server Error")),
    "an error without words": says(http(b"", "503 Service Unavailable")),
    "half an answer": says(http(b"[" + b" " * 1000)[:-500]),
    "elsewhere": says(b"HTTP/1.1 302 Found\r\nLocation: http://192.0.2.1/\r\nContent-Length: 0\r\n\r\n"),
    "a bomb": says(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\x1f\x8b\x08\x00"),
    "bytes": says(http(b"\xff\xfe\x00")),
    "a path": says(http(b"OK", headers="Api-Version: ../../images\r\n")),
    "an old version": says(http(b"OK", headers="Api-Version: 1.1\r\n")),
}


@pytest.mark.parametrize("question", ["/_ping", "/containers/json"])
@pytest.mark.parametrize("answer", NONSENSE.values(), ids=NONSENSE)
def test_an_engine_that_answers_nonsense_costs_its_facts_only(
    engine: FakeEngine, answer: Answer, question: str
) -> None:
    engine.broken = {question: answer}
    told = trouble()
    assert told.reason in (Reason.FAILED, Reason.UNPARSABLE)
    assert "hunter2" not in told.detail


def test_of_two_engines_one_that_hangs_does_not_cost_the_other_s_facts(engine: FakeEngine, tmp_path: Path) -> None:
    with hanging() as hang:
        second = FakeEngine(tmp_path / "podman.sock", PODMAN, {})
        second.broken = {"": hang}
        docker, podman = look(21001)
        second.close()
    assert names(docker) == ["dead"]
    assert isinstance(podman.containers, Unknown)
    assert (podman.name, podman.containers.reason) == ("podman", Reason.DEADLINE)


def test_two_names_of_one_socket_are_one_engine(engine: FakeEngine, tmp_path: Path) -> None:
    (tmp_path / "podman.sock").symlink_to(tmp_path / "docker.sock")
    assert len(look(21001)) == 1


def test_only_looking_asks_nobody(engine: FakeEngine) -> None:
    told = engines.look(lambda: [Question(21001)], PATIENCE, ask=False)
    assert [one.containers for one in told[21001]] == [PASSIVE]
    assert engine.asked == []


@pytest.mark.parametrize(
    "address",
    [
        "ssh://alice:hunter2@build.example.org",
        "tcp://192.0.2.7:2375",
        "tcp://build.example.org:2375",
        "tcp://:2375",
        "x",
    ],
)
def test_an_engine_of_another_machine_is_not_asked(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setenv("DOCKER_HOST", address)
    other, docker = look(21001)
    assert isinstance(other.containers, Unknown)
    assert other.containers.reason is Reason.NOT_VISIBLE
    assert "hunter2" not in other.address
    assert names(docker) == ["dead"]


def context(home: Path, host: str) -> None:
    """Make a context the current one, as `docker context use` does."""
    meta = home / ".docker/contexts/meta" / hashlib.sha256(b"mine").hexdigest()
    meta.mkdir(parents=True)
    (home / ".docker/config.json").write_text(json.dumps({"currentContext": "mine", "auths": {}}))
    (meta / "meta.json").write_text(json.dumps({"Name": "mine", "Endpoints": {"docker": {"Host": host}}}))


def test_the_context_in_use_says_where_the_engine_is(engine: FakeEngine, tmp_path: Path) -> None:
    (tmp_path / "docker.sock").rename(tmp_path / "other.sock")
    context(tmp_path, f"unix://{tmp_path}/other.sock")
    (one,) = look(21001)
    assert one.address == f"unix://{tmp_path}/other.sock"
    assert names(one) == ["dead"]


@pytest.mark.parametrize("config", [b"", b"[]", b"{", b'{"currentContext": 5}', b'{"currentContext": "../../gone"}'])
def test_a_broken_configuration_names_no_engine(engine: FakeEngine, tmp_path: Path, config: bytes) -> None:
    (tmp_path / ".docker").mkdir()
    (tmp_path / ".docker/config.json").write_bytes(config)
    assert len(look(21001)) == 1


def test_a_container_is_found_by_name_for_whoever_asks(engine: FakeEngine) -> None:
    number = json.loads((RAW / "docker/20.10-exited.json").read_bytes())["Id"]
    told = engines.find(number[:12], PATIENCE)
    assert isinstance(told, Known)
    assert told.value.status is Status.EXITED


@pytest.mark.parametrize("name", ["nobody", "../images", "", "a b", "-x"])
def test_a_container_that_no_engine_has_is_said_to_be_none(engine: FakeEngine, name: str) -> None:
    with pytest.raises(NoSuchContainerError, match="no container is called"):
        engines.find(name, PATIENCE)


def test_a_container_is_not_called_missing_while_an_engine_does_not_answer(engine: FakeEngine) -> None:
    with hanging() as hang:
        engine.broken = {"": hang}
        told = engines.find("web", PATIENCE)
    assert isinstance(told, Unknown)
    assert told.reason is Reason.DEADLINE


def test_of_very_many_that_do_not_run_the_newest_are_asked_and_the_others_counted(engine: FakeEngine) -> None:
    template = json.loads((RAW / "docker/20.10-exited.json").read_bytes())
    rows = [row for row in json.loads(engine.list()) if row["Names"] == ["/dead"]]
    engine.containers = {}
    for number in range(300):
        name = f"{number:064x}"
        engine.containers[name] = json.dumps({**template, "Id": name, "Name": f"/c{number}"}).encode()
    engine.containers[""] = json.dumps([{**rows[0], "Id": name} for name in engine.containers]).encode()
    (one,) = look(21001)
    seen = names(one)
    assert seen[:20] == [f"c{number}" for number in range(20)]
    assert len(seen) + one.unseen == 300
    assert len(engine.asked) < 100


def test_one_that_publishes_the_port_now_is_never_among_those_left_out(engine: FakeEngine) -> None:
    exited = next(row for row in json.loads(engine.list()) if row["Names"] == ["/dead"])
    crowd = [{**exited, "Id": f"{number:064x}"} for number in range(300)]
    engine.containers[""] = json.dumps([*crowd, *json.loads(engine.list())]).encode()
    (one,) = look(21003)
    assert names(one) == ["paused"]
    assert one.unseen > 200


@pytest.mark.parametrize("what", ["fifo", "/dev/zero", "credentials"])
def test_the_library_reads_no_configuration_of_the_user(
    engine: FakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    home = tmp_path / "home"
    (home / ".docker").mkdir(parents=True)
    config = home / ".docker" / "config.json"
    match what:
        case "fifo":
            os.mkfifo(config)
        case "credentials":
            config.write_text('{"proxies": {"default": {"httpProxy": "http://192.0.2.1:1"}}, "auths": {"r": {}}}')
        case device:
            config.symlink_to(device)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("DOCKER_CONFIG", raising=False)
    started = time.monotonic()
    (one,) = look(21000)
    assert names(one) == ["web"]
    assert time.monotonic() - started < LIMIT
