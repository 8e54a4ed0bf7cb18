"""Edits of compose files: applied mechanically they leave YAML that says the wished, and nothing else has changed."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from diagnose.model.compose import Service, Spot
from diagnose.model.finding import Edit
from diagnose.parse import compose_line
from diagnose.parse.compose import joined, parse_file
from diagnose.parse.yaml_tree import YamlError
from tests.edits import applied

RAW = Path(__file__).parents[2] / "fixtures/raw/compose"
VARIABLES = {"ALL_OF_IT": "1234:4321", "TAG": "1", "NEEDED": "8181"}
SAMPLES = [
    (path.name, one.name)
    for path in sorted(RAW.iterdir())
    for one in joined([parse_file(path.name, path.read_text(), VARIABLES)], {}, {})[0]
]
PIECE = "127.0.0.1:5432:5432"
WHOLE = {"address": "127.0.0.9", "host_port": 4343, "container_port": 4242}
UNTOUCHED = object()


def services(text: str) -> dict[str, Service]:
    found, _ = joined([parse_file("c.yaml", text, VARIABLES)], {}, {})
    return {one.name: one for one in found}


def plain(text: str) -> Any:
    """The file as text and lists of text: its own merge keys and aliases, no types."""
    return yaml.load(text, Loader=yaml.BaseLoader)


def put(text: str, spot: Spot, piece: str) -> Any:
    return plain(applied(text, [Edit(spot.file, spot.line, spot.holding(piece))]))


def with_change(text: str, name: str, key: str, value: Any) -> Any:
    wanted = deepcopy(plain(text))
    wanted["services"][name] = {**(wanted["services"][name] or {}), key: value}
    return wanted


def listed(text: str, name: str, key: str) -> list[Any]:
    service = plain(text)["services"][name] or {}
    return list(service.get(key) or [])


@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["lf", "crlf"])
@pytest.mark.parametrize(("file", "name"), SAMPLES)
def test_a_port_is_added_in_front_of_the_others(file: str, name: str, end: str) -> None:
    text = (RAW / file).read_text().replace("\n", end)
    spot = services(text)[name].port_spot
    if spot is None:
        assert (file, name) in {("anchors.yaml", "app"), ("anchors.yaml", "beat")}
        return
    assert put(text, spot, PIECE) == with_change(text, name, "ports", [PIECE, *listed(text, name, "ports")])


@pytest.mark.parametrize(("file", "name"), SAMPLES)
def test_a_name_for_the_host_is_added_to_a_list_or_a_mapping(file: str, name: str) -> None:
    text = (RAW / file).read_text()
    service = services(text)[name]
    assert service.extra_host_spot
    before = (plain(text)["services"][name] or {}).get("extra_hosts") or []
    gateway: Any = ["host.docker.internal:host-gateway"]
    wanted = {"host.docker.internal": "host-gateway", **before} if isinstance(before, dict) else [*gateway, *before]
    found = put(text, service.extra_host_spot, service.extra_host_piece)
    assert found == with_change(text, name, "extra_hosts", wanted)


@pytest.mark.parametrize(("file", "name"), SAMPLES)
def test_each_piece_of_each_port_is_changed_alone(file: str, name: str) -> None:
    text = (RAW / file).read_text()
    before = services(text)[name].ports
    for number, entry in enumerate(before):
        pieces = (
            (entry.container_spot, "4242", {"container_port": 4242}),
            (entry.host_spot, "4343", {"host_port": 4343}),
            (entry.address_spot, "127.0.0.9", {"address": "127.0.0.9"}),
            (
                entry.entry_spot,
                "127.0.0.9:4343:4242",
                {"address": "127.0.0.9", "host_port": 4343, "container_port": 4242},
            ),
        )
        for spot, piece, wanted in pieces:
            if spot is None:
                continue
            changed = applied(text, [Edit(spot.file, spot.line, spot.holding(piece))])
            after = services(changed)[name].ports
            assert len(after) == len(before), (entry, changed)
            assert {key: getattr(after[number], key) for key in wanted} == wanted
            for key in {"container_port", "host_port", "address"} - set(wanted):
                assert getattr(after[number], key) == getattr(entry, key), (key, changed)
            assert [one.host_port for one in after if one != after[number]] == [
                one.host_port for one in before if one != entry
            ]


def test_an_ipv6_address_goes_into_the_short_syntax_in_brackets() -> None:
    text = "services:\n  a:\n    ports:\n    - 8080:80\n"
    (entry,) = services(text)["a"].ports
    assert entry.address_spot
    assert put(text, entry.address_spot, "[::1]")["services"]["a"]["ports"] == ["[::1]:8080:80"]


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("literal", "uvicorn main:app --host 0.0.0.0 --port 8000"),
        ("equals", "flask run --host=0.0.0.0 --port=5000"),
        ("listed", ["gunicorn", "-b", "0.0.0.0:8000", "app:app"]),
        ("block", ["node", "server.js", "--listen", "0.0.0.0"]),
        ("folded", 'sh -c "python manage.py migrate &&\n       python manage.py runserver 0.0.0.0:8000"\n'),
        ("lacking", "npx vite --host 0.0.0.0"),
        ("quoted", "uvicorn main:app --host 0.0.0.0"),
        ("told", UNTOUCHED),
        ("other", UNTOUCHED),
        ("secret", UNTOUCHED),
    ],
)
def test_a_server_is_told_by_its_command_to_listen_on_every_address(name: str, command: Any) -> None:
    text = (RAW / "commands.yaml").read_text()
    listening = services(text)[name].listening
    if command is UNTOUCHED:
        assert listening == ()
        return
    (one,) = listening
    assert put(text, one.spot, one.piece) == with_change(text, name, "command", command)


def test_a_server_is_told_by_its_environment_to_listen_on_every_address() -> None:
    text = (RAW / "commands.yaml").read_text()
    listening = services(text)["environment"].listening
    edits = [Edit(one.spot.file, one.spot.line, one.spot.holding(one.piece)) for one in listening]
    wanted = {"HOST": "0.0.0.0", "ASPNETCORE_URLS": "http://0.0.0.0:5000", "DB_HOST": "127.0.0.1"}
    assert plain(applied(text, edits)) == with_change(text, "environment", "environment", wanted)


def test_django_rails_and_others_get_the_option_that_they_lack() -> None:
    commands = {
        "python manage.py runserver": "python manage.py runserver 0.0.0.0:8000",
        "flask --app shop run": "flask --app shop run --host=0.0.0.0",
        "bundle exec rails server": "bundle exec rails server -b 0.0.0.0",
        "gunicorn app:app": "gunicorn app:app --bind 0.0.0.0:8000",
        "hugo server": "hugo server --bind 0.0.0.0",
        "ng serve": "ng serve --host 0.0.0.0",
    }
    for before, after in commands.items():
        text = f"services:\n  a:\n    command: {before}\n"
        (one,) = services(text)["a"].listening
        assert put(text, one.spot, one.piece)["services"]["a"]["command"] == after
    for before in ("npm run dev", "gunicorn -b 0.0.0.0 a:b", "uvicorn a:b && true", "redis-server", "vite build"):
        assert services(f"services:\n  a:\n    command: {before}\n")["a"].listening == ()


@pytest.mark.parametrize(
    ("written", "after"),
    [
        ("DB: localhost:15432", "db:5432"),
        ("DB: 'localhost:15432'", "db:5432"),
        ("DB_URL: postgres://app@localhost:15432/x?y=1", "postgres://app@db:5432/x?y=1"),
        ("DB_URL: postgres://app:${PW}@127.0.0.1:15432/x", "postgres://app:${PW}@db:5432/x"),
        ('DB_URL: "jdbc:postgresql://localhost:15432/x"', "jdbc:postgresql://db:5432/x"),
        ("DB_URL: postgres://app:hunter2@localhost:15432/x", UNTOUCHED),
        ("DB: ${DB:-localhost:15432}", UNTOUCHED),
        ("DB_URL: Host=localhost;Port=15432", UNTOUCHED),
    ],
)
def test_a_variable_that_names_localhost_names_the_service_afterwards(written: str, after: Any) -> None:
    text = f"services:\n  app:\n    environment:\n      {written}\n  db:\n"
    (one,) = services(text)["app"].references
    assert (one.host, one.port) == ("localhost" if "127" not in written else "127.0.0.1", 15432)
    assert (one.spot is None) == (after is UNTOUCHED)
    if one.spot:
        found = put(text, one.spot, one.naming("db", 5432))["services"]["app"]["environment"]
        assert list(found.values()) == [after]


# any file


names = st.sampled_from(["a", "db", "my-app", "x.y", "the_api"])
ports = st.sampled_from(["80", "8080:80", "127.0.0.1:8080:80", "3000-3001:3000-3001", "53:53/udp"])
long_ports = st.fixed_dictionaries(
    {"target": st.sampled_from(["80", "443"])}, optional={"published": st.just("8080"), "host_ip": st.just("127.0.0.1")}
)
one_service = st.fixed_dictionaries(
    {},
    optional={
        "image": st.sampled_from(["nginx", "postgres:16"]),
        "ports": st.lists(ports | long_ports, max_size=3),
        "environment": st.dictionaries(st.sampled_from(["A", "DB_HOST", "PORT"]), st.sampled_from(["1", "localhost"])),
        "command": st.sampled_from(["sleep 1", "uvicorn a:b"]) | st.lists(st.just("x"), max_size=2),
        "extra_hosts": st.lists(st.just("x:1.2.3.4"), max_size=1) | st.dictionaries(st.just("x"), st.just("1.2.3.4")),
    },
)
projects = st.dictionaries(names, one_service | st.none(), min_size=1, max_size=3)


class Indented(yaml.SafeDumper):
    """Writes lists below their key as most people do, further in."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        """Never without an indent."""
        super().increase_indent(flow, False)


@given(
    projects,
    st.sampled_from([Indented, yaml.SafeDumper]),
    st.sampled_from([True, False, None]),
    st.sampled_from([2, 4, 8]),
    st.sampled_from([None, '"', "'"]),
    st.sampled_from([40, 4000]),
)
def test_in_a_file_of_any_style_an_entry_is_added_and_nothing_else_changed(
    project: dict[str, Any],
    dumper: type[yaml.SafeDumper],
    flow: bool | None,
    indent: int,
    quote: str | None,
    width: int,
) -> None:
    text = yaml.dump(
        {"services": project},
        Dumper=dumper,
        default_flow_style=flow,
        indent=indent,
        default_style=quote,
        width=width,
        sort_keys=False,
    )
    for name, service in services(text).items():
        if service.port_spot:
            found = put(text, service.port_spot, PIECE)
            assert found == with_change(text, name, "ports", [PIECE, *listed(text, name, "ports")])
        else:
            assert flow or quote or "{" in text or ": null" in text
        if service.extra_host_spot:
            found = put(text, service.extra_host_spot, service.extra_host_piece)["services"][name]["extra_hosts"]
            assert ("host.docker.internal" in found) or found[0] == "host.docker.internal:host-gateway"


@given(st.text(st.sampled_from("abc:- \n[]{}&*!|>'\"%#,?0123456789\t"), max_size=60))
def test_any_text_is_read_or_refused(tail: str) -> None:
    for text in (tail, f"services:\n  a:\n    ports: {tail}", f"services:\n  a: {tail}\n    environment:\n{tail}"):
        try:
            found = services(text)
        except YamlError:
            continue
        for one in found.values():
            if one.port_spot:
                assert one.port_spot.holding(PIECE)


# what is not shown


@pytest.mark.parametrize(
    ("line", "after"),
    [
        ('      - "8080:80" # hunter2', '      - "8080:80" # ***'),
        ('      - "8080:80"  # ***', '      - "8080:80"  # ***'),
        ("    image: postgres:16   # the token is hunter2", "    image: postgres:16   # ***"),
        ("    ports: [\"8080:80\", '127.0.0.1:81:81'] # x", "    ports: [\"8080:80\", '127.0.0.1:81:81'] # ***"),
        ("      DB_URL: postgres://app:${PW}@localhost:5432/shop?sslmode=disable", None),
        ("      - DB_PORT=15432", None),
        ("    command: uvicorn main:app --host 127.0.0.1", None),
        ('    command: ["gunicorn", "-b", "127.0.0.1:8000", "app:app"]', None),
        ("  web: {image: nginx, ports: [{target: 80, published: 8080}]}", None),
        ('      - "host.docker.internal:host-gateway"', None),
        ("    network_mode: service:db", None),
    ],
)
def test_a_line_is_shown_but_for_its_comment(line: str, after: str | None) -> None:
    assert compose_line.shown(line) == (line if after is None else after)


@pytest.mark.parametrize(
    "line",
    [
        "      KEY: hunter2",
        "      - KEY=hunter2",
        '      - "KEY=#hunter2"',
        "      PIN: 1234",
        "      - 'hunter2: x'",
        "      DB_URL: postgres://app:hunter2@localhost/x",
        "      DB_URL: redis://hunter2@localhost",
        "      DB_URL: postgres://app:${PW:-hunter2}@localhost/x",
        "      DB_URL: postgres://localhost/x?password=hunter2",
        "      DB_URL: Host=localhost;Password=hunter2",
        "    command: server --jwt hunter2 --host 127.0.0.1",
        "    command: [server, -phunter2]",
        "  web: {image: nginx, environment: {A: hunter2}, ports: ['8080:80']}",
        "    image: hunter2Hunter2zq",
        '    ports: ["8080:80", "hunter2:x:y"]',
        '    x: "a # hunter2',
    ],
)
def test_a_line_in_which_anything_may_be_secret_is_not_shown(line: str) -> None:
    assert compose_line.shown(line) is None


def test_an_edit_of_a_port_has_no_comment_of_the_file_in_it() -> None:
    text = 'services:\n  a:\n    ports:\n      - "8080:80" # hunter2\n'
    (entry,) = services(text)["a"].ports
    assert entry.address_spot
    assert entry.address_spot.holding("127.0.0.1") == '      - "127.0.0.1:8080:80" # ***'
    assert put(text, entry.address_spot, "127.0.0.1")["services"]["a"]["ports"] == ["127.0.0.1:8080:80"]
