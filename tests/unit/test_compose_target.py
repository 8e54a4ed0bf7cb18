"""compose:SERVICE:PORT -> what is dialled or bound for it, and one line where nothing can be."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from checks import CHECKS
from diagnose.analysis.compose_target import NotLocatedError, located, seen_from_inside
from diagnose.engine import diagnose
from diagnose.model.compose import ComposeProject
from diagnose.model.container import ComposeService, Engine, EngineContainer, Published, Status
from diagnose.model.fact import Fact, Known, Reason, Unknown
from diagnose.model.process import Container
from diagnose.model.report import Verdict
from diagnose.model.target import Intent, ServicePort, Standing, Target
from diagnose.parse.compose import joined, parse_file
from diagnose.parse.target import BadTargetError, parse_target
from tests.scenes import dialled, wanted

TEXT = """
services:
  db:
    image: postgres
    ports: ["127.0.0.1:15432:5432", "5433", "[::1]:8082:82", "192.0.2.1:90:90", "6000-6009:60"]
  app:
    image: app
    ports: ["8080:80"]
  vpn:
    ports: ["8888:8888"]
  torrent:
    network_mode: "service:vpn"
  agent:
    network_mode: host
"""
DENIED = Engine("docker", "unix:///run/docker.sock", Unknown(Reason.NEEDS_ROOT))


def project(text: str = TEXT, name: str = "shop") -> Fact[ComposeProject | None]:
    services, _ = joined([parse_file("/srv/shop/compose.yaml", text, {})], {}, {})
    return Known(ComposeProject(name=name, directory="/srv/shop", files=("/srv/shop/compose.yaml",), services=services))


def container(
    service: str, *published: Published, project: str = "shop", status: Status = Status.RUNNING, mode: str = "default"
) -> EngineContainer:
    name = f"{project}-{service}-1"
    return EngineContainer(
        container=Container("docker", name.encode().hex().ljust(64, "0"), name),
        status=status,
        published=published,
        network_mode=mode,
        compose=ComposeService(project, service),
    )


def engine(*containers: EngineContainer) -> Engine:
    return Engine("docker", "unix:///run/docker.sock", Known(containers))


def found(
    typed: str, *engines: Engine, intent: Intent = Intent.CONNECT, there: bool = True
) -> tuple[str, int, Standing]:
    target = located(parse_target(typed), intent, project() if there else Known(None), engines)
    assert target.service
    assert target.input == typed
    return target.host, target.port, target.service.standing


def refusal(typed: str, *engines: Engine, intent: Intent = Intent.CONNECT, there: bool = True) -> str:
    with pytest.raises(NotLocatedError) as refused:
        found(typed, *engines, intent=intent, there=there)
    assert "\n" not in str(refused.value)
    return str(refused.value)


# what is typed


def test_a_service_and_its_container_port_are_a_target() -> None:
    assert parse_target("compose:db:5432") == Target(
        "compose:db:5432", "db", 5432, service=ServicePort("db", 5432, "", Standing.ASKED)
    )
    assert parse_target("compose:my_app.web-1:80").host == "my_app.web-1"
    assert parse_target("compose:db:5432").address == "compose:db:5432"


def test_a_host_that_is_called_compose_is_still_one() -> None:
    assert (parse_target("compose:80").host, parse_target("compose:80").service) == ("compose", None)


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ("compose:", "names no service"),
        ("compose::80", "names no service"),
        ("compose:db", "that of the container, not the published one"),
        ("compose:db:", "no port: it is missing"),
        ("compose:db:0", "not between 1 and 65535"),
        ("compose:db:http", "not a number"),
        ("compose:db:80:90", "not a number"),
        ("compose:d b:80", "space"),
        ("compose:é:80", "names no service"),
    ],
)
def test_a_bad_one_gets_one_line_and_an_example(typed: str, says: str) -> None:
    with pytest.raises(BadTargetError) as refused:
        parse_target(typed)
    assert says in str(refused.value)
    assert "netdiag run " in str(refused.value)


# where it leads, by the engine


def test_the_engine_says_where_the_port_is_published_and_the_file_does_not() -> None:
    there = engine(container("db", Published("127.0.0.1", 25432, 5432)))
    assert found("compose:db:5432", there) == ("127.0.0.1", 25432, Standing.PUBLISHED)
    assert found("compose:db:5432", there, there=False) == ("127.0.0.1", 25432, Standing.PUBLISHED)


@pytest.mark.parametrize(
    ("published", "host"),
    [
        ([Published("0.0.0.0", 1, 80), Published("::", 1, 80)], "127.0.0.1"),
        ([Published("::", 1, 80)], "::1"),
        ([Published("192.0.2.1", 1, 80)], "192.0.2.1"),
        ([Published("192.0.2.1", 2, 80), Published("127.0.0.1", 1, 80)], "127.0.0.1"),
        ([Published("nonsense", 1, 80)], "127.0.0.1"),
    ],
)
def test_a_client_on_this_host_dials_loopback_where_it_can(published: list[Published], host: str) -> None:
    assert found("compose:db:80", engine(container("db", *published))) == (host, 1, Standing.PUBLISHED)


def test_a_running_container_without_the_port_is_not_dialled_wherever_the_file_says() -> None:
    assert found("compose:db:5432", engine(container("db"))) == ("127.0.0.1", 5432, Standing.UNPUBLISHED)
    assert not Standing.UNPUBLISHED.dialled


def test_a_service_without_a_running_container_is_not_dialled_since_somebody_else_would_answer() -> None:
    gone = engine(container("db", status=Status.EXITED))
    assert found("compose:db:5432", gone) == ("127.0.0.1", 15432, Standing.STOPPED)
    assert found("compose:db:5432", engine()) == ("127.0.0.1", 15432, Standing.STOPPED)
    assert found("compose:db:1", engine()) == ("127.0.0.1", 1, Standing.STOPPED)


def test_the_network_of_another_container_or_of_the_host_is_followed() -> None:
    vpn = container("vpn", Published("0.0.0.0", 8888, 8888))
    torrent = container("torrent", mode=f"container:{vpn.container.id}")
    assert found("compose:torrent:8888", engine(vpn, torrent)) == ("127.0.0.1", 8888, Standing.PUBLISHED)
    assert found("compose:agent:9100", engine(container("agent", mode="host")))[:2] == ("127.0.0.1", 9100)
    itself = container("torrent")
    loop = replace(itself, network_mode=f"container:{itself.container.id}")
    assert found("compose:torrent:8888", engine(loop))[2] is Standing.UNPUBLISHED


def test_another_project_s_service_of_the_same_name_is_not_meant() -> None:
    other = container("db", Published("127.0.0.1", 1, 5432), project="blog")
    assert found("compose:db:5432", engine(other)) == ("127.0.0.1", 15432, Standing.STOPPED)
    both = engine(other, container("db", Published("127.0.0.1", 2, 5432)))
    assert "is in the projects blog, shop" in refusal("compose:db:5432", both, there=False)


# where it leads, by the file


def test_without_an_engine_the_file_says_where() -> None:
    assert found("compose:db:5432") == ("127.0.0.1", 15432, Standing.DECLARED)
    assert found("compose:db:5432", DENIED) == ("127.0.0.1", 15432, Standing.DECLARED)
    assert found("compose:app:80") == ("127.0.0.1", 8080, Standing.DECLARED)
    assert found("compose:db:82") == ("::1", 8082, Standing.DECLARED)
    assert found("compose:db:90") == ("192.0.2.1", 90, Standing.DECLARED)
    assert found("compose:torrent:8888") == ("127.0.0.1", 8888, Standing.DECLARED)
    assert found("compose:agent:9100") == ("127.0.0.1", 9100, Standing.DECLARED)


def test_a_port_that_the_file_does_not_publish_is_not_dialled() -> None:
    assert found("compose:db:1234") == ("127.0.0.1", 1234, Standing.UNDECLARED)


@pytest.mark.parametrize("typed", ["compose:db:5433", "compose:db:60"])
def test_a_port_that_the_engine_picks_is_not_guessed(typed: str) -> None:
    assert "no engine could be asked" in refusal(typed)


def test_to_bind_means_the_port_of_the_host_that_compose_wants() -> None:
    assert found("compose:db:5432", intent=Intent.BIND) == ("127.0.0.1", 15432, Standing.DECLARED)
    assert found("compose:app:80", intent=Intent.BIND) == ("0.0.0.0", 8080, Standing.DECLARED)
    there = engine(container("db", Published("::", 25432, 5432)))
    assert found("compose:db:5432", there, intent=Intent.BIND, there=False) == ("::", 25432, Standing.PUBLISHED)
    assert "there is none to bind" in refusal("compose:db:1234", intent=Intent.BIND)


def test_in_a_container_the_service_is_dialled_by_its_name() -> None:
    target = seen_from_inside(parse_target("compose:db:5432"))
    assert target.service
    assert (target.host, target.port, target.service.standing) == ("db", 5432, Standing.INSIDE)
    plain = parse_target("localhost:80")
    assert seen_from_inside(plain) == plain == located(plain, Intent.CONNECT, Known(None), ())


# there is none


def test_a_service_that_is_not_there_is_refused_with_those_that_are() -> None:
    assert refusal("compose:dbb:5432") == (
        "/srv/shop/compose.yaml has no service 'dbb'; it has agent, app, db, torrent, vpn"
    )
    assert "services with a container here: app" in refusal("compose:db:1", engine(container("app")), there=False)
    assert refusal("compose:db:1", there=False).startswith("no compose.yaml is in this directory or above it")


def test_a_file_that_cannot_be_read_is_why_there_is_none() -> None:
    broken = Unknown(Reason.UNPARSABLE, "/srv/compose.yaml: line 3: a tab in the indentation")
    with pytest.raises(NotLocatedError, match=r"cannot be read: unparsable: .*line 3"):
        located(parse_target("compose:db:1"), Intent.CONNECT, broken, ())
    there = located(parse_target("compose:db:1"), Intent.CONNECT, broken, [engine(container("db"))])
    assert there.service == ServicePort("db", 1, "shop", Standing.UNPUBLISHED)


def test_a_hundred_services_are_not_all_listed() -> None:
    many = project("services:\n" + "".join(f"  s{number}:\n" for number in range(100)))
    with pytest.raises(NotLocatedError, match="and 88 more"):
        located(parse_target("compose:x:1"), Intent.CONNECT, many, ())


# what is said of it


@pytest.mark.parametrize(
    ("standing", "verdict"),
    [
        (Standing.UNPUBLISHED, Verdict.UNREACHABLE),
        (Standing.STOPPED, Verdict.UNREACHABLE),
        (Standing.UNDECLARED, Verdict.INCONCLUSIVE),
    ],
)
def test_what_only_the_file_says_is_no_verdict(standing: Standing, verdict: Verdict) -> None:
    seen = dialled("127.0.0.1:5432")
    target = replace(seen.target, input="compose:db:5432", service=ServicePort("db", 5432, "shop", standing))
    report = diagnose(replace(seen, target=target), CHECKS)
    assert (report.verdict, report.attempts) == (verdict, ())
    assert report.target.address == "compose:db:5432"
    assert (report.target.host, report.target.port) == ("127.0.0.1", 5432)
    assert diagnose(wanted("127.0.0.1:5432"), CHECKS).target.address == "127.0.0.1:5432"
