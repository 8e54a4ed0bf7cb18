"""Recordings: written, read, and refused in one line when they are none."""

from __future__ import annotations

import json

import pytest

from diagnose.model.container import (
    Attachment,
    ComposeService,
    Containers,
    Engine,
    EngineContainer,
    Forwarder,
    Inside,
    Published,
    Status,
)
from diagnose.model.fact import NOT_NEEDED, Known
from diagnose.model.network import Endpoint
from diagnose.model.process import Container
from diagnose.model.snapshot import Snapshot
from diagnose.recording import BadRecordingError, decode, encode
from tests.scenes import (
    NEEDS_ROOT,
    connected,
    dialled,
    full_queue,
    held,
    listening,
    process,
    refused,
    resolved,
    rows,
    rule,
    shadow,
    taken,
    unanswered,
    walk_to,
    wanted,
)

HERE = "127.0.0.1:8080"
PLAIN = dialled(HERE, refused(HERE))
WEB = Container("docker", "1f" * 32, "web")
CONTAINERS = Containers(
    engines=(
        Engine(
            "docker",
            "unix:///run/docker.sock",
            Known(
                (
                    EngineContainer(
                        container=WEB,
                        status=Status.RUNNING,
                        published=(Published("127.0.0.1", 8080, 80),),
                        attachments=(Attachment("back", ("172.18.0.2",), ("172.18.0.1",), ("web",)),),
                        compose=ComposeService("shop", "web", "/srv/shop", ("compose.yaml",)),
                    ),
                )
            ),
            unseen=3,
        ),
        Engine("podman", "unix:///run/podman/podman.sock", NEEDS_ROOT),
    ),
    insides=(Inside(WEB, 4026532000, 77, ("172.18.0.2",), rows(listening("127.0.0.1:80")), Known(False)),),
    forwarders=Known((Forwarder(70, "docker-proxy", Endpoint("127.0.0.1", 8080), Endpoint("172.18.0.2", 80)),)),
)
SEEN = {
    "nothing listens": PLAIN,
    "it works": dialled(HERE, connected(HERE), listeners=rows(listening(HERE)), holders=held((1, process()))),
    "a rule drops": dialled(
        HERE,
        unanswered(HERE, drop="NETFILTER_DROP", queue=full_queue(HERE)),
        firewall=shadow(walk_to("127.0.0.1", rule())),
    ),
    "it could not be looked at": dialled(HERE, refused(HERE), listeners=NEEDS_ROOT, firewall=NEEDS_ROOT),
    "the port is taken": wanted(HERE, taken(HERE), listeners=rows(listening(HERE))),
    "the name is not known": dialled("nowhere:80", names=resolved("nowhere", error="EAI_NONAME")),
    "containers were seen": dialled(HERE, refused(HERE), containers=Known(CONTAINERS)),
    "hostile text": dialled(HERE, refused(HERE), holders=held((1, process("a\x1b[2J\n", command="\\xff\u202e\x00")))),
}


@pytest.mark.parametrize("snapshot", SEEN.values(), ids=SEEN)
def test_what_was_recorded_is_what_is_read(snapshot: Snapshot) -> None:
    assert decode(encode([snapshot])) == (snapshot,)


def test_several_snapshots_are_read_in_the_order_in_which_they_were_recorded() -> None:
    many = tuple(SEEN.values())
    assert decode(encode(many)) == many


def test_the_same_snapshot_is_always_recorded_as_the_same_bytes() -> None:
    assert encode([PLAIN]) == encode(decode(encode([PLAIN])))


def test_a_recording_is_json_that_names_its_schema() -> None:
    assert json.loads(encode([PLAIN]))["schema"] == "netdiag.snapshot/1"
    assert json.loads(encode([PLAIN, PLAIN]))["schema"] == "netdiag.snapshots/1"


def test_a_recording_of_a_dsn_has_no_password() -> None:
    seen = dialled("postgres://u:hunter2@localhost/db", refused("127.0.0.1:5432"))
    assert b"hunter2" not in encode([seen])


def test_a_key_that_this_version_does_not_know_is_left_out() -> None:
    newer = json.loads(encode([PLAIN])) | {"something_new": 1}
    assert decode(json.dumps(newer).encode()) == (PLAIN,)


def _without(key: str) -> bytes:
    content = json.loads(encode([PLAIN]))
    del content[key]
    return json.dumps(content).encode()


def _with(**changes: object) -> bytes:
    return json.dumps(json.loads(encode([PLAIN])) | changes).encode()


def _with_containers(address: bytes) -> bytes:
    return encode([SEEN["containers were seen"]]).replace(address, b'"nowhere"')


@pytest.mark.parametrize(
    ("data", "what_is_wrong"),
    [
        (b"", "is no netdiag recording"),
        (b"\x00\xff\xfe", "is no netdiag recording"),
        (b"null", "is no netdiag recording"),
        (b"[]", "is no netdiag recording"),
        (b"{}", "is no netdiag recording"),
        (b'{"schema": 1}', "is no netdiag recording"),
        (b"[" * 100_000, "is no netdiag recording"),
        (b'{"schema": "netdiag.snapshot/1", "x": ' + b"[" * 100_000, "is no netdiag recording"),
        (b'{"schema": "netdiag.report/1"}', "has the schema 'netdiag.report/1'; this version reads netdiag.snapshot/1"),
        (b'{"schema": "netdiag.snapshot/2"}', "has the schema 'netdiag.snapshot/2'"),
        (b'{"schema": "netdiag.snapshot/1"}', "is a damaged recording"),
        (b'{"schema": "netdiag.snapshots/1"}', "is a damaged recording"),
        (b'{"schema": "netdiag.snapshots/1", "snapshots": [{}]}', "is a damaged recording"),
        (encode([PLAIN])[:-40], "is no netdiag recording"),
        (_without("target"), "is a damaged recording"),
        (_without("vantage"), "is a damaged recording"),
        (_with(intent="fly"), "is a damaged recording"),
        (_with(attempts=[{"address": "127.0.0.1"}]), "is a damaged recording"),
        (_with(listeners=[]), "is a damaged recording"),
        (_with(listeners={"fact": "guessed", "value": []}), "is a damaged recording"),
        (_with(duration_ms="fast"), "is a damaged recording"),
        (_with(duration_ms=10**400), "is a damaged recording"),
        (_with_containers(b'"172.18.0.2"'), "is a damaged recording: 'nowhere' is no address"),
        (_with_containers(b'"172.18.0.1"'), "is a damaged recording: 'nowhere' is no address"),
    ],
)
def test_what_is_no_recording_is_refused_in_one_line(data: bytes, what_is_wrong: str) -> None:
    with pytest.raises(BadRecordingError) as refusal:
        decode(data)
    message = str(refusal.value)
    assert message.startswith(what_is_wrong)
    assert message.isprintable()


def test_a_recording_of_an_older_version_has_what_it_did_not_know_as_not_needed() -> None:
    older = {key: value for key, value in json.loads(encode([PLAIN])).items() if key in REQUIRED}
    (read,) = decode(json.dumps(older).encode())
    assert all(unknown == NOT_NEEDED for _, unknown in read.facts())


REQUIRED = {"schema", "netdiag", "started_at", "duration_ms", "target", "intent", "scope", "vantage"}
"""What every recording has had from the first version on: no key is ever added to this list."""
