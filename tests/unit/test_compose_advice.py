"""What a Compose project says of a target: which service is meant, and remedies whose edits, applied, mend the file."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from msgspec.structs import replace

from diagnose.analysis.compose import (
    How,
    add_host_gateway,
    asking,
    correct_container_port,
    dial_by_name,
    labels_of,
    listen_everywhere,
    meant,
    publish,
    publish_at,
    service_of,
    start,
    told_by_name,
)
from diagnose.model.compose import ComposeProject, Service
from diagnose.model.container import ComposeService, Containers, Engine, EngineContainer, Inside, Published, Status
from diagnose.model.fact import Fact, Known, Reason, Unknown
from diagnose.model.finding import Command, Remedy, Risk
from diagnose.model.process import Container
from diagnose.model.snapshot import Snapshot
from diagnose.parse.compose import joined, parse_file
from tests.edits import applied
from tests.scenes import ALICE, ROOT, dialled, listening, refused, rows

FILE = "/srv/shop/compose.yaml"
CALL = ("docker", "compose", "-f", FILE)
TEXT = """\
services:
  app:
    image: app
    environment:
      DB_HOST: localhost
      DB_PORT: "15432"
      DATABASE_URL: postgres://app:${PW}@localhost:15432/app
      CACHE_URL: redis://localhost
      PEER: db:15432
      MAIL_HOST: 127.0.0.1
      PASSWORD_URL: postgres://app:hunter2@localhost:15432/app
  db:
    image: postgres:16
    ports:
      - "127.0.0.1:15432:5432"
  cache:
    image: redis
  web:
    image: web
    command: uvicorn web:app
    ports: ["8080:80"]
  lonely:
    image: x
    networks: [elsewhere]
    ports: ["7000:7000"]
  torrent:
    image: y
    network_mode: "service:web"
  agent:
    image: z
    network_mode: host
networks:
  elsewhere:
"""
APP = Container("docker", "a" * 64, "shop-app-1")


def container(service: str, *published: Published, where: Container | None = None) -> EngineContainer:
    name = f"shop-{service}-1"
    return EngineContainer(
        container=where or Container("docker", service.encode().hex().ljust(64, "0"), name),
        status=Status.RUNNING,
        published=published,
        compose=ComposeService("shop", service, "/srv/shop", (FILE,)),
    )


def known(*containers: EngineContainer, insides: tuple[Inside, ...] = ()) -> Fact[Containers]:
    return Known(Containers((Engine("docker", "unix:///run/docker.sock", Known(containers)),), insides))


def project(text: str = TEXT) -> ComposeProject:
    services, _ = joined([parse_file(FILE, text, {"PW": "x"})], {}, {})
    return ComposeProject(name="shop", directory="/srv/shop", files=(FILE,), services=services, call=CALL)


def scene(target: str, *containers: EngineContainer, inside: Container | None = None, text: str = TEXT) -> Snapshot:
    """Refused at this target, from this container or from the host."""
    port = target.rpartition(":")[2]
    seen = dialled(target, refused(f"127.0.0.1:{port}"), seen_by=replace(ROOT, container=inside))
    return replace(seen, compose=Known(project(text)), containers=known(*containers))


def from_app(target: str, *containers: EngineContainer, text: str = TEXT) -> Snapshot:
    return scene(target, container("app", where=APP), *containers, inside=APP, text=text)


def service(snapshot: Snapshot, name: str) -> Service:
    assert isinstance(snapshot.compose, Known)
    assert snapshot.compose.value
    found = snapshot.compose.value.service(name)
    assert found
    return found


def after(remedy: Remedy | None, text: str = TEXT) -> Any:
    """The services once the edits are made, as YAML has them."""
    assert remedy is not None
    assert remedy.edits
    assert {one.file for one in remedy.edits} == {FILE}
    return yaml.load(applied(text, remedy.edits), Loader=yaml.BaseLoader)["services"]


def before(text: str = TEXT) -> Any:
    return yaml.load(text, Loader=yaml.BaseLoader)["services"]


def up(name: str) -> tuple[Command, ...]:
    return (Command((*CALL, "up", "-d", name)),)


# who is meant


def test_the_service_that_has_the_port_on_the_host_is_meant() -> None:
    (found,) = meant(scene("localhost:15432"))
    assert (found.service.name, found.port, found.how) == ("db", 5432, How.HOST_PORT)


def test_the_engine_knows_ports_of_the_host_that_the_file_does_not() -> None:
    (found,) = meant(scene("localhost:49153", container("cache", Published("0.0.0.0", 49153, 6379))))
    assert (found.service.name, found.port, found.how) == ("cache", 6379, How.HOST_PORT)


def test_a_service_is_meant_by_the_usual_port_of_its_image_and_by_what_listens_inside() -> None:
    (found,) = meant(scene("localhost:6379"))
    assert (found.service.name, found.port, found.how) == ("cache", 6379, How.CONTAINER_PORT)
    there = container("lonely")
    inside = Inside(there.container, 1, 2, ("172.18.0.2",), Known((listening("0.0.0.0:4321"),)))
    seen = replace(scene("localhost:4321"), containers=known(there, insides=(inside,)))
    assert [one.service.name for one in meant(seen)] == ["lonely"]


def test_a_port_of_nobody_means_nobody() -> None:
    assert meant(scene("localhost:9999")) == ()
    assert meant(replace(scene("localhost:15432"), compose=Known(None))) == ()
    assert meant(replace(scene("localhost:15432"), compose=Unknown(Reason.UNPARSABLE))) == ()


def test_a_container_is_matched_to_its_service_by_id_even_cut_short_or_by_name() -> None:
    seen = from_app("localhost:1")
    for one in (APP, Container("docker", "a" * 12), Container("unknown", "", "shop-app-1")):
        found = service_of(seen, one)
        assert found
        assert found.name == "app"
    assert service_of(seen, Container("docker", "aaaa")) is None
    assert service_of(seen, Container("docker", "")) is None
    assert service_of(seen, Container("docker", "b" * 64, "other")) is None
    assert asking(scene("localhost:1")) is None
    named = replace(seen, vantage=replace(ROOT, origin="container:shop-app-1"))
    assert asking(named) == service(seen, "app")


def test_the_labels_of_those_that_run_come_first() -> None:
    gone = replace(container("db"), status=Status.EXITED)
    assert [one.service for one in labels_of([gone, container("app")])] == ["app", "db"]


# localhost in a container


def test_localhost_with_the_published_port_is_explained_as_the_service_and_its_own_port() -> None:
    seen = from_app("localhost:15432")
    assert told_by_name(seen) == (
        "You dialled localhost:15432 from the service app; there it is db:5432: 15432 is its port on the host only, "
        "and localhost in a container is that container itself."
    )
    remedy = dial_by_name(seen)
    wanted = before()
    wanted["app"]["environment"] |= {
        "DB_HOST": "db",
        "DB_PORT": "5432",
        "DATABASE_URL": "postgres://app:${PW}@db:5432/app",
        "PEER": "db:5432",
    }
    assert after(remedy) == wanted
    assert remedy
    assert "PASSWORD_URL (/srv/shop/compose.yaml:11)" in remedy.summary
    assert "hunter2" not in str(remedy)
    assert (remedy.commands, remedy.risk) == (up("app"), Risk.DISRUPTIVE)


def test_localhost_with_the_container_port_is_explained_as_well() -> None:
    seen = from_app("localhost:6379")
    assert told_by_name(seen) == (
        "You dialled localhost:6379 from the service app; there it is cache:6379: localhost in a container is that "
        "container itself."
    )
    wanted = before()
    wanted["app"]["environment"]["CACHE_URL"] = "redis://cache"
    assert after(dial_by_name(seen)) == wanted


def test_the_only_variable_with_a_host_is_changed_where_it_has_no_port_beside_it() -> None:
    text = "services:\n  app:\n    environment:\n      - DB_HOST=127.0.0.1\n  db:\n    image: postgres\n"
    changed = after(dial_by_name(from_app("127.0.0.1:5432", text=text)), text)
    assert changed["app"]["environment"] == ["DB_HOST=db"]
    two = text.replace("  db:", "      - MQ_HOST=localhost\n  db:")
    remedy = dial_by_name(from_app("127.0.0.1:5432", text=two))
    assert remedy
    assert remedy.edits == ()


def test_services_that_share_no_network_are_told_so() -> None:
    remedy = dial_by_name(from_app("localhost:7000"))
    assert remedy
    assert "share no network" in remedy.summary
    assert (remedy.edits, remedy.commands) == ((), ())


@pytest.mark.parametrize(
    "seen",
    [
        scene("localhost:15432"),
        from_app("localhost:9999"),
        from_app("db:15432"),
        scene("localhost:15432", container("agent", where=APP), inside=APP),
        scene("localhost:15432", container("db", where=APP), inside=APP),
        replace(from_app("localhost:15432"), compose=Known(None)),
    ],
    ids=["from the host", "nobody's port", "by name already", "the host's network", "its own port", "no project"],
)
def test_elsewhere_there_is_nothing_to_explain(seen: Snapshot) -> None:
    assert told_by_name(seen) is None
    assert dial_by_name(seen) is None


def test_the_host_by_its_name_and_the_published_port_is_a_service_as_well() -> None:
    told = told_by_name(from_app("host.docker.internal:15432"))
    assert told
    assert "there it is db:5432" in told


# what mends it


def test_a_port_is_published_on_loopback_only_on_the_same_port() -> None:
    seen = scene("localhost:6379", container("cache"))
    remedy = publish(seen, service(seen, "cache"), 6379)
    wanted = before()
    wanted["cache"]["ports"] = ["127.0.0.1:6379:6379"]
    assert after(remedy) == wanted
    assert remedy
    assert remedy.commands == up("cache")
    assert "0.0.0.0" not in str(remedy)


def test_a_port_of_the_host_that_is_taken_is_not_taken_again() -> None:
    seen = replace(scene("localhost:6379"), listeners=rows(listening("127.0.0.1:6379")))
    assert after(publish(seen, service(seen, "cache"), 6379))["cache"]["ports"] == ["127.0.0.1:16379:6379"]
    busy = replace(seen, containers=known(container("web", Published("0.0.0.0", 16379, 80))))
    assert after(publish(busy, service(busy, "cache"), 6379))["cache"]["ports"] == ["127.0.0.1:16380:6379"]
    other = publish(seen, service(seen, "cache"), 6379, host_port=7777, address="::1")
    assert after(other)["cache"]["ports"] == ["[::1]:7777:6379"]


def test_a_port_that_the_file_publishes_already_only_needs_the_container_made_anew() -> None:
    seen = scene("localhost:15432", container("db"))
    remedy = publish(seen, service(seen, "db"), 5432)
    assert remedy
    assert (remedy.edits, remedy.commands) == ((), up("db"))
    assert "/srv/shop/compose.yaml:15 publishes port 5432 already" in remedy.summary


def test_a_port_that_the_engine_would_pick_is_pinned() -> None:
    text = TEXT.replace('"127.0.0.1:15432:5432"', '"5432"')
    seen = scene("localhost:5432", text=text)
    assert after(publish(seen, service(seen, "db"), 5432), text)["db"]["ports"] == ["127.0.0.1:5432:5432"]


def test_in_another_service_s_network_the_port_is_published_there() -> None:
    seen = scene("localhost:8888")
    remedy = publish(seen, service(seen, "torrent"), 8888)
    assert after(remedy)["web"]["ports"] == ["127.0.0.1:8888:8888", "8080:80"]
    assert remedy
    assert remedy.commands == up("web")
    assert publish(seen, service(seen, "agent"), 1) is None


def test_where_no_line_can_be_changed_the_words_are_there_and_no_edit() -> None:
    text = "x: &x\n  ports: ['1:1']\nservices:\n  a:\n    <<: *x\n"
    seen = scene("localhost:5", text=text)
    remedy = publish(seen, service(seen, "a"), 5)
    assert remedy
    assert remedy.edits == ()
    assert '"127.0.0.1:5:5", in /srv/shop/compose.yaml under ports: of a' in remedy.summary


def test_the_container_port_of_an_entry_is_corrected_and_nothing_else() -> None:
    seen = scene("localhost:8080")
    web = service(seen, "web")
    assert after(correct_container_port(seen, web, web.ports[0], 8000))["web"]["ports"] == ["8080:8000"]


def test_an_entry_is_moved_to_the_address_that_was_dialled() -> None:
    text = TEXT.replace("127.0.0.1:15432", "192.168.1.5:15432")
    seen = scene("localhost:15432", text=text)
    db = service(seen, "db")
    assert after(publish_at(seen, db, db.ports[0], "127.0.0.1"), text)["db"]["ports"] == ["127.0.0.1:15432:5432"]
    assert after(publish_at(seen, db, db.ports[0], "::1"), text)["db"]["ports"] == ["[::1]:15432:5432"]


def test_a_server_inside_is_told_to_listen_everywhere_or_in_words() -> None:
    seen = scene("localhost:8080")
    remedy = listen_everywhere(seen, service(seen, "web"))
    assert after(remedy)["web"]["command"] == "uvicorn web:app --host 0.0.0.0"
    words = listen_everywhere(seen, service(seen, "cache"))
    assert words.edits == ()
    assert "--host 0.0.0.0" in words.summary


def test_the_host_gets_a_name_inside() -> None:
    seen = from_app("host.docker.internal:5000")
    changed = after(add_host_gateway(seen, service(seen, "app")))
    assert changed["app"]["extra_hosts"] == ["host.docker.internal:host-gateway"]


def test_commands_are_given_only_where_compose_is_installed_and_with_sudo_where_no_engine_answered() -> None:
    seen = scene("localhost:6379")
    assert isinstance(seen.compose, Known)
    assert seen.compose.value
    bare = replace(seen, compose=Known(replace(seen.compose.value, call=())))
    remedy = publish(bare, service(bare, "cache"), 6379)
    assert remedy
    assert remedy.commands == ()
    assert "docker compose up -d" in remedy.summary
    assert start(bare, service(bare, "cache")) is None
    denied = Containers((Engine("docker", "unix:///run/docker.sock", Unknown(Reason.NEEDS_ROOT)),))
    alone = replace(seen, vantage=ALICE, containers=Known(denied))
    found = start(alone, service(alone, "cache"))
    assert found
    assert found.commands == (Command((*CALL, "up", "-d", "cache"), needs_root=True),)
