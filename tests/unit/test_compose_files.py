"""Compose files as people write them -> services, their ports, and what they are told about hosts and addresses."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from diagnose.model.compose import PortEntry, Service, Unread
from diagnose.parse.compose import ComposeFile, joined, parse_file
from diagnose.parse.yaml_tree import YamlError

RAW = Path(__file__).parents[2] / "fixtures/raw/compose"
FILES = sorted(RAW.iterdir())
SECRETS = ("hunter2", "correct-horse", "guest:guest")


def read(text: str, /, path: str = "/srv/compose.yaml", **variables: str) -> ComposeFile:
    return parse_file(path, text, variables)


def services(text: str, /, **variables: str) -> dict[str, Service]:
    found, _ = joined([read(text, **variables)], {}, {})
    return {one.name: one for one in found}


def sample(name: str, **variables: str) -> dict[str, Service]:
    return services((RAW / name).read_text(), **variables)


def with_ports(*entries: str) -> tuple[PortEntry, ...]:
    lines = "".join(f"      - {entry}\n" for entry in entries)
    return services(f"services:\n  a:\n    image: x\n    ports:\n{lines}")["a"].ports


def brief(entry: PortEntry) -> tuple[str, int | None, int, int, int, str]:
    return entry.address, entry.host_port, entry.container_port, entry.count, entry.choices, entry.protocol


def why(text: str) -> str:
    with pytest.raises(YamlError) as refused:
        read(text)
    return str(refused.value)


# ports


@pytest.mark.parametrize(
    ("written", "means"),
    [
        ('"8080:80"', ("", 8080, 80, 1, 1, "tcp")),
        ("8080:80", ("", 8080, 80, 1, 1, "tcp")),
        ("22:22", ("", 22, 22, 1, 1, "tcp")),
        ("80", ("", None, 80, 1, 1, "tcp")),
        ("'127.0.0.1:8080:80'", ("127.0.0.1", 8080, 80, 1, 1, "tcp")),
        ('"127.0.0.1::80"', ("127.0.0.1", None, 80, 1, 1, "tcp")),
        ('"0:80"', ("", None, 80, 1, 1, "tcp")),
        ('"[::1]:8080:80"', ("::1", 8080, 80, 1, 1, "tcp")),
        ('"::1:8080:80"', ("::1", 8080, 80, 1, 1, "tcp")),
        ('"8000-8005:80-85"', ("", 8000, 80, 6, 1, "tcp")),
        ('"8000-8005:80"', ("", 8000, 80, 1, 6, "tcp")),
        ('"3000-3002"', ("", None, 3000, 3, 1, "tcp")),
        ('"5353:53/udp"', ("", 5353, 53, 1, 1, "udp")),
        ("{target: 80}", ("", None, 80, 1, 1, "tcp")),
        ("{target: 80, published: 8080}", ("", 8080, 80, 1, 1, "tcp")),
        ('{target: 80, published: "8080", host_ip: 127.0.0.1, protocol: udp}', ("127.0.0.1", 8080, 80, 1, 1, "udp")),
        ('{target: 80, published: "8080-8089"}', ("", 8080, 80, 1, 10, "tcp")),
    ],
)
def test_a_port_in_either_syntax_is_read(written: str, means: tuple[str, int | None, int, int, int, str]) -> None:
    (entry,) = with_ports(written)
    assert brief(entry) == means


@pytest.mark.parametrize(
    "written",
    ['"http:80"', '"80:"', '"70000:80"', '"80:0"', '"8000-8001:80-85"', '"9-8:9-8"', "{published: 80}", "[80]", '""'],
)
def test_an_entry_that_is_no_port_is_left_out_and_noted_where_it_can_be(written: str) -> None:
    text = f"services:\n  a:\n    ports:\n      - {written}\n"
    assert services(text)["a"].ports == ()


def test_a_range_knows_which_port_is_behind_which() -> None:
    (pairs,), (choice,) = with_ports("8000-8005:80-85"), with_ports("8000-8005:80")
    assert (pairs.inside(8003), pairs.outside(83), pairs.inside(8006), pairs.outside(86)) == (83, 8003, None, None)
    assert (choice.inside(8003), choice.outside(80), choice.concerns(80), choice.concerns(81)) == (
        80,
        None,
        True,
        False,
    )


def test_the_lines_of_ports_are_those_of_an_editor() -> None:
    assert [(one.line, one.container_port) for one in sample("web-and-database.yaml")["web"].ports] == [(11, 8000)]
    proxy = sample("long-ports.yaml")["proxy"]
    assert [(one.line, one.host_port) for one in proxy.ports] == [(5, 8080), (9, 8443), (12, 8083), (13, 5353)]


def test_variables_are_replaced_as_compose_replaces_them() -> None:
    ftp = sample("ranges-and-variables.yaml", WEB_PORT="9999", ALL_OF_IT="1234:4321")["ftp"]
    assert [brief(one)[:3] for one in ftp.ports[3:]] == [
        ("127.0.0.1", 9999, 80),
        ("::1", 8082, 82),
        ("", 5353, 53),
        ("127.0.0.1", None, 7000),
        ("", 1234, 4321),
        ("", None, 9999),
    ]


def test_a_variable_that_is_required_and_not_set_is_noted_and_costs_its_entry_only() -> None:
    file = read((RAW / "ranges-and-variables.yaml").read_text())
    assert Unread(file.path, 16, _required("TAG")) in file.unread
    assert Unread(file.path, 18, _required("NEEDED")) in file.unread
    assert file.name == "Range-Demo"


def _required(name: str) -> str:
    return f"the variable {name} is not set, and Compose refuses to start without it"


# what else is said of a service


def test_a_usual_file_is_understood() -> None:
    found = sample("web-and-database.yaml")
    assert set(found) == {"web", "db", "redis"}
    assert (found["db"].image, found["db"].healthcheck, found["web"].healthcheck) == ("postgres", True, False)
    assert found["web"].depends_on == ("db",)
    assert found["redis"].expose == (6379,)
    assert [(one.variable, one.host, one.port, one.scheme) for one in found["web"].references] == [
        ("DATABASE_URL", "localhost", 5432, "postgres"),
        ("REDIS_URL", "localhost", 6379, "redis"),
    ]
    assert found["db"].references == ()


def test_networks_modes_names_and_extra_hosts_are_understood() -> None:
    found = sample("networks.yml")
    assert (found["torrent"].network_mode, found["agent"].network_mode) == ("service:vpn", "host")
    assert found["back"].names == ("back", "the-api", "api.internal")
    assert found["front"].shares_network(found["back"])
    assert not found["front"].shares_network(found["alone"])
    assert not found["front"].shares_network(found["agent"])
    assert found["flowing"].shares_network(found["vpn"])
    assert (found["agent"].extra_hosts, found["front"].extra_hosts) == (("somehost",), ("otherhost",))


def test_merge_keys_and_aliases_are_followed_and_not_offered_for_change() -> None:
    found = sample("anchors.yaml")
    app, worker, beat, queue = found["app"], found["worker"], found["beat"], found["queue"]
    assert [brief(one)[1:3] for one in app.ports] == [(3000, 3000)]
    assert (app.port_spot, app.ports[0].entry_spot, beat.port_spot, beat.ports[0].entry_spot) == (None,) * 4
    assert [(one.variable, one.port, one.spot) for one in app.references] == [
        ("DB_HOST", None, None),
        ("DB_PORT", 15432, None),
    ]
    assert {one.variable for one in worker.references} == {"DB_HOST", "DB_PORT", "QUEUE_URL"}
    assert worker.ports == ()
    assert worker.port_spot
    assert queue.port_spot
    assert found["db"].names == ("db", "database")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("services:\n  a: &a\n    ports: ['1:1']\n  b:\n    <<: *a\n    ports: ['2:2']\n", 2),
        ("services:\n  a: &a\n    ports: ['1:1']\n  b:\n    ports: ['2:2']\n    <<: *a\n", 2),
        ("services:\n  a: &a\n    ports: ['1:1']\n  b: *a\n", 1),
    ],
)
def test_what_a_service_says_itself_wins_over_what_it_merges(text: str, says: int) -> None:
    assert [one.host_port for one in services(text)["b"].ports] == [says]


# files together


def test_a_later_file_adds_ports_and_wins_where_there_is_one_value() -> None:
    base = read(
        "services:\n  a:\n    image: x\n    environment: {DB_HOST: localhost}\n    ports: ['1:1']\n", "/c/a.yml"
    )
    over = read("services:\n  a:\n    image: y\n    environment: [DB_HOST=b]\n    ports: ['2:2']\n  b:\n", "/c/b.yml")
    (a, b), _ = joined([base, over], {}, {})
    assert (a.image, a.file, [(one.file, one.host_port) for one in a.ports]) == (
        "y",
        "/c/a.yml",
        [("/c/a.yml", 1), ("/c/b.yml", 2)],
    )
    assert [(one.variable, one.host) for one in a.references] == [("DB_HOST", "b")]
    assert b.port_spot
    assert b.port_spot.file == "/c/b.yml"


def test_a_later_file_may_replace_a_list_or_empty_it() -> None:
    base = read("services:\n  a:\n    ports: ['1:1']\n")
    for tag, left in (("!override", [2]), ("!reset", [])):
        (a,), _ = joined([base, read(f"services:\n  a:\n    ports: {tag} ['2:2']\n")], {}, {})
        assert [one.host_port for one in a.ports] == left


def test_a_service_takes_over_what_it_extends_in_its_own_file_and_in_others() -> None:
    own = "services:\n  base:\n    image: x\n    ports: ['1:1']\n  a:\n    extends: base\n    ports: ['2:2']\n"
    (a, _), _ = joined([read(own)], {}, {})
    assert (a.name, a.image, [one.host_port for one in a.ports]) == ("a", "x", [1, 2])
    assert a.ports[0].entry_spot is None
    file = read("services:\n  a:\n    extends: {file: common/base.yml, service: base}\n")
    assert file.others == ("/srv/common/base.yml",)
    other = read("services:\n  base:\n    image: z\n", "/srv/common/base.yml")
    (a,), unread = joined([file], {other.path: other}, {})
    assert (a.image, unread) == ("z", ())


def test_services_that_extend_each_other_in_a_circle_end() -> None:
    (a, b), unread = joined(
        [read("services:\n  a:\n    extends: b\n    image: x\n  b:\n    extends: a\n    ports: ['1:1']\n")], {}, {}
    )
    assert (a.name, a.image, b.name) == ("a", "x", "b")
    assert unread


def test_files_that_are_included_bring_their_services() -> None:
    file = read(
        "include:\n  - infra/db.yaml\n  - path: [more.yaml]\n  - {path: x.yaml, env_file: y}\nservices:\n  a:\n"
    )
    assert file.includes == ("/srv/infra/db.yaml", "/srv/more.yaml")
    assert [one.line for one in file.unread] == [4]
    others = {path: read("services:\n  db:\n    image: z\n", path) for path in file.includes}
    found, _ = joined([file], others, {})
    assert [one.name for one in found] == ["a", "db"]


def test_files_that_include_each_other_end() -> None:
    one, two = read("include: [b.yaml]\n", "/srv/a.yaml"), read("include: [a.yaml]\nservices: {x: }\n", "/srv/b.yaml")
    found, _ = joined([one], {"/srv/a.yaml": one, "/srv/b.yaml": two}, {})
    assert [service.name for service in found] == ["x"]


def test_env_files_name_hosts_as_well_and_the_environment_wins() -> None:
    file = read("services:\n  a:\n    env_file: [.env.app, {path: b.env}]\n    environment: {DB_PORT: 1}\n  db:\n")
    texts = {
        "/srv/.env.app": "# DB_HOST=x\nDB_HOST=localhost\nDB_PORT=15432\nDB_PASSWORD=hunter2\nexport CACHE_HOST=db\n",
        "/srv/b.env": 'QUOTED_HOST="localhost"\n',
    }
    (a, _), _ = joined([file], {}, texts)
    assert {(one.variable, one.file, one.line, one.port) for one in a.references} == {
        ("DB_PORT", "/srv/compose.yaml", 4, 1),
        ("DB_HOST", "/srv/.env.app", 2, None),
        ("CACHE_HOST", "/srv/.env.app", 5, None),
    }


# what must not be kept, and what must not be believed


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_no_secret_of_a_file_is_kept(path: Path) -> None:
    file = read(path.read_text(), **dict.fromkeys(("DB_PASSWORD", "TAG", "NEEDED"), "hunter2"))
    found, unread = joined([file], {}, {})
    kept = msgspec.json.encode((found, unread)).decode()
    assert not [secret for secret in SECRETS if secret in kept]


@pytest.mark.parametrize(
    "entry",
    [
        "SECRET: s3cr3t",
        "SOME_HOST: s3cr3t",
        "API_URL: https://example.org/s3cr3t",
        "API_URL: https://localhost/hooks/s3cr3ts3cr3ts3cr3ts3cr3t",
        "DATABASE_URL: postgres://localhost:s3cr3t@localhost/x",
        "DATABASE_URL: Host=localhost;Port=5432;Password=s3cr3t",
        "LOGIN: s3cr3t:1234",
        "PIN: 5432",
    ],
)
def test_a_value_that_names_neither_this_machine_nor_a_service_is_not_kept(entry: str) -> None:
    found = services(f"services:\n  a:\n    environment:\n      {entry}\n  b:\n")
    kept = msgspec.json.encode(found).decode()
    assert "s3cr3t" not in kept
    assert "PIN" not in kept


def test_a_line_with_values_of_unknown_worth_is_never_kept_whole() -> None:
    found = services("services:\n  a: {image: x, environment: {LICENCE: s3cr3t, DB_HOST: localhost}}\n")
    assert "s3cr3t" not in msgspec.json.encode(found).decode()
    assert found["a"].port_spot is None


BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 60))
MERGE_BOMB = "a0: &a0 {x: y}\n" + "".join(
    f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}\n" for i in range(1, 60)
)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "it is empty"),
        ("# nothing\n", "it is empty"),
        ("just text\n", "it is no mapping"),
        ("- a\n- b\n", "it is no mapping"),
        ("services: [a]\n", "line 1: services is no mapping"),
        ("services:\n\ta:\n", "line 2: a tab in the indentation, where YAML allows spaces only"),
        ("services:\n  a:\n    ports: [80\n", "line 4: "),
        ("services:\n  a:\n   image: x\n  image: y\n z: 1\n", "line 5: "),
        ("services:\n  a:\n  a:\n", "line 3: the same key twice"),
        ("services:\n  a:\n    image: x\n    image: y\n", "line 4: the same key twice"),
        ("a: *secret\n", "line 1: an alias without its anchor"),
        ("services: &a\n  a: *a\n", "line 2: an alias without its anchor"),
        ("a: b\n---\nc: d\n", "line 2: a second document"),
        ("a: \x00\n", "a character that YAML does not allow"),
        ("a: \ud800\n", "a character that YAML does not allow"),
        ("a: " + "[" * 70 + "]" * 70, "nested deeper"),
        ("- " * 5000, "nested deeper"),
        ("a: b\n" * 60_000, "it has more than"),
        (f"{MERGE_BOMB}services:\n  a:\n    <<: *a59\n", "more than 10000 merges"),
    ],
    ids=lambda value: value[:24].encode("unicode_escape").decode() if isinstance(value, str) else None,
)
def test_what_is_no_compose_file_is_refused_in_one_line(text: str, says: str) -> None:
    message = why(text)
    assert says in message
    assert message.isprintable()
    assert "secret" not in message


def test_an_alias_bomb_stays_as_small_as_its_text() -> None:
    assert set(services(f"{BOMB}services:\n  a:\n    ports: *a59\n")) == {"a"}
    found = services(f"{BOMB}services:\n  a:\n    environment: *a59\n    command: *a59\n    networks: *a59\n")
    assert found["a"].networks == ()


@pytest.mark.parametrize("key", ["ports", "environment", "networks", "command", "extra_hosts", "depends_on", "expose"])
@pytest.mark.parametrize("value", ["1", "text", "[[1]]", "{a: {b: c}}", "[{a: b}]", "", "~", "[null]", "!x y", "- "])
def test_a_value_of_another_kind_than_compose_wants_is_no_crash(key: str, value: str) -> None:
    assert set(services(f"services:\n  a:\n    {key}: {value if value != '- ' else chr(10) + '    - '}\n  b:\n")) == {
        "a",
        "b",
    }


def test_windows_line_ends_and_a_byte_order_mark_do_no_harm() -> None:
    text = (RAW / "web-and-database.yaml").read_text().replace("\n", "\r\n")
    windows = services(text)
    plain = sample("web-and-database.yaml")
    assert [one.line for one in windows["web"].ports] == [one.line for one in plain["web"].ports]
    assert windows["db"].port_spot
    assert "\r" not in windows["db"].port_spot.before


def test_a_file_whose_lines_an_editor_counts_otherwise_gets_no_edit() -> None:
    found = services("# one\x85# two\nservices:\n  a:\n    image: x\n    ports: ['1:1']\n")
    assert found["a"].port_spot is None
    assert found["a"].ports[0].entry_spot is None


def test_the_same_anchor_twice_is_legal() -> None:
    found = services("services:\n  a:\n    ports: &p ['1:1']\n  b:\n    ports: &p ['2:2']\n  c:\n    ports: *p\n")
    assert [one.host_port for one in found["c"].ports] == [2]


def test_a_profile_is_known() -> None:
    assert services("services:\n  a:\n    profiles: [debug]\n")["a"].profiles == ("debug",)


def test_everything_that_is_read_can_be_recorded() -> None:
    for path in FILES:
        found = list(services(path.read_text()).values())
        assert msgspec.json.decode(msgspec.json.encode(found), type=list[Service]) == found
        assert json.loads(msgspec.json.encode(found))
