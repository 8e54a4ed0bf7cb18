"""The project of a directory, found and named as Compose does it; hostile files cost themselves only."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from diagnose.model.compose import ComposeProject
from diagnose.model.container import ComposeService
from diagnose.model.fact import Known, Reason, Unknown
from diagnose.probes import compose

ONE = "services:\n  a:\n    image: x\n"
needs_fifo = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs here")


def look(folder: Path, **environment: str) -> ComposeProject | None:
    fact = compose.look(str(folder), environment)
    assert isinstance(fact, Known), fact
    return fact.value


def project(folder: Path, **environment: str) -> ComposeProject:
    found = look(folder, **environment)
    assert found is not None
    return found


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def services(found: ComposeProject) -> list[str]:
    return [one.name for one in found.services]


def test_a_directory_without_a_file_has_no_project(tmp_path: Path) -> None:
    assert look(tmp_path) is None


def test_the_first_of_the_usual_names_is_taken_and_its_override_laid_over_it(tmp_path: Path) -> None:
    for name in reversed(compose.NAMES):
        (tmp_path / name).write_text(f"services:\n  {name.replace('.', '-')}:\n")
        assert services(project(tmp_path)) == [name.replace(".", "-")]
    (tmp_path / "compose.override.yml").write_text("services:\n  more:\n")
    assert services(project(tmp_path)) == ["compose-yaml", "more"]
    assert project(tmp_path).files == (str(tmp_path / "compose.yaml"), str(tmp_path / "compose.override.yml"))


def test_a_directory_above_counts_where_this_one_has_no_file(tmp_path: Path) -> None:
    write(tmp_path, compose_yaml=ONE)
    below = tmp_path / "src/deep"
    below.mkdir(parents=True)
    assert project(below).directory == str(tmp_path)


def test_the_project_is_called_as_compose_calls_it(tmp_path: Path) -> None:
    folder = tmp_path / "_My Shop.2"
    folder.mkdir()
    write(folder, compose_yaml=ONE)
    assert project(folder).name == "myshop2"
    write(folder, compose_yaml=f"name: Named\n{ONE}")
    assert project(folder).name == "named"
    assert project(folder, COMPOSE_PROJECT_NAME="other").name == "other"
    (folder / ".env").write_text("COMPOSE_PROJECT_NAME=from-file\n")
    assert project(folder).name == "from-file"


def test_files_that_the_environment_names_are_taken_instead(tmp_path: Path) -> None:
    write(tmp_path, compose_yaml=ONE, dev__x_yaml="services:\n  x:\n", dev__y_yaml="services:\n  y:\n")
    both = f"dev/x.yaml{os.pathsep}dev/y.yaml"
    found = project(tmp_path, COMPOSE_FILE=both)
    assert (services(found), found.directory) == (["x", "y"], str(tmp_path / "dev"))
    assert services(project(tmp_path, COMPOSE_FILE="dev/x.yaml;dev/y.yaml", COMPOSE_PATH_SEPARATOR=";")) == ["x", "y"]
    (tmp_path / ".env").write_text("COMPOSE_FILE=dev/y.yaml\n")
    assert services(project(tmp_path)) == ["y"]


def test_variables_come_from_the_environment_before_the_project_s_env_file(tmp_path: Path) -> None:
    write(tmp_path, compose_yaml="services:\n  a:\n    ports: ['${PORT:-1}:80', '${OTHER}:81']\n")
    (tmp_path / ".env").write_text("# PORT=7\nexport PORT=2 # why\nOTHER='3'\n")
    assert [one.host_port for one in project(tmp_path).services[0].ports] == [2, 3]
    assert [one.host_port for one in project(tmp_path, PORT="4").services[0].ports] == [4, 3]


def test_a_file_named_by_the_environment_that_is_not_there_is_said(tmp_path: Path) -> None:
    fact = compose.look(str(tmp_path), {"COMPOSE_FILE": "gone.yaml"})
    assert fact == Unknown(Reason.FAILED, f"{tmp_path}/gone.yaml: No such file or directory")


def test_a_file_that_cannot_be_parsed_is_said_with_its_line(tmp_path: Path) -> None:
    write(tmp_path, compose_yaml="services:\n\ta:\n")
    fact = compose.look(str(tmp_path), {})
    assert isinstance(fact, Unknown)
    assert (fact.reason, fact.detail) == (
        Reason.UNPARSABLE,
        f"{tmp_path}/compose.yaml: line 2: a tab in the indentation, where YAML allows spaces only",
    )


def test_included_and_extended_files_are_read_below_the_directory_and_named_where_they_are_not(tmp_path: Path) -> None:
    (tmp_path / "outside.yaml").write_text("services:\n  out:\n    image: y\n")
    folder = tmp_path / "p"
    write(
        folder,
        compose_yaml="include: [sub/db.yaml, ../outside.yaml, gone.yaml, 'oci://registry/x']\n"
        "services:\n  a:\n    extends: {file: sub/base.yaml, service: base}\n    env_file: [a.env, /etc/hostname]\n",
        sub__db_yaml="services:\n  db:\n    image: z\n",
        sub__base_yaml="services:\n  base:\n    image: w\n",
        a_env="DB_HOST=localhost\n",
    )
    found = project(folder)
    assert [(one.name, one.image) for one in found.services] == [("a", "w"), ("db", "z")]
    assert [one.variable for one in found.services[0].references] == ["DB_HOST"]
    assert {Path(one.file).name: one.why.rpartition(": ")[2] for one in found.unread} == {
        "outside.yaml": "it lies outside of the project's directory",
        "gone.yaml": "No such file or directory",
        "x": "it lies outside of the project's directory",
        "hostname": "it lies outside of the project's directory",
    }


def test_a_symbolic_link_does_not_lead_out(tmp_path: Path) -> None:
    (tmp_path / "outside.yaml").write_text("services:\n  out:\n")
    folder = tmp_path / "p"
    write(folder, compose_yaml=f"include: [link.yaml]\n{ONE}")
    (folder / "link.yaml").symlink_to(tmp_path / "outside.yaml")
    found = project(folder)
    assert (services(found), len(found.unread)) == (["a"], 1)


@needs_fifo
def test_what_is_no_regular_file_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    assert "no regular file" in str(compose.look(str(tmp_path), {"COMPOSE_FILE": "pipe.yaml"}))
    assert "no regular file" in str(compose.look(str(tmp_path), {"COMPOSE_FILE": "/dev/zero"}))
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s.yaml"))
        assert "no regular file" in str(compose.look(str(tmp_path), {"COMPOSE_FILE": "s.yaml"}))
    assert compose.look(str(tmp_path), {}) == Known(None)
    os.mkfifo(tmp_path / "compose.yaml")
    assert "no regular file" in str(compose.look(str(tmp_path), {}))  # Compose would wait for it


def test_a_huge_file_or_one_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_bytes(b"# " + b"x" * (1 << 19))
    assert "bytes" in str(compose.look(str(tmp_path), {}))
    (tmp_path / "compose.yaml").write_bytes(b"\xff\xfea\x00")
    assert "no UTF-8 text" in str(compose.look(str(tmp_path), {}))
    assert "NUL" in str(compose.look(str(tmp_path), {"COMPOSE_FILE": "a\x00b"}))


def test_a_chain_of_a_thousand_includes_ends(tmp_path: Path) -> None:
    for number in range(1000):
        (tmp_path / f"{number}.yaml").write_text(f"include: [{number + 1}.yaml]\nservices:\n  s{number}:\n")
    found = project(tmp_path, COMPOSE_FILE="0.yaml")
    assert 30 <= len(found.services) <= 40
    assert [one.why for one in found.unread] == ["more than 32 files"]


def test_the_files_that_a_container_s_labels_name_make_its_project(tmp_path: Path) -> None:
    write(tmp_path, compose_yaml=ONE, more_yaml="services:\n  b:\n")
    label = ComposeService("called-so", "a", str(tmp_path), ("compose.yaml", str(tmp_path / "more.yaml")))
    fact = compose.of_labels([ComposeService("x", "y"), label], {})
    assert isinstance(fact, Known)
    assert fact.value
    assert (fact.value.name, services(fact.value)) == ("called-so", ["a", "b"])
    assert compose.of_labels([ComposeService("x", "y")], {}) == Known(None)
    gone = ComposeService("x", "y", "/nowhere", ("compose.yaml",))
    assert "No such file" in str(compose.of_labels([gone], {}))


def executable(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\nexit 1\n")
    path.chmod(0o755)


def test_compose_is_called_as_it_is_installed_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, programs, home = tmp_path / "p", tmp_path / "bin", tmp_path / "home"
    write(folder, compose_yaml=ONE)
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setattr(compose, "_PLUGINS", ("~/.docker/cli-plugins",))
    file = str(folder / "compose.yaml")
    assert project(folder).call == ()
    executable(programs / "docker-compose")
    assert project(folder).call == ("docker-compose", "-f", file)
    executable(home / ".docker/cli-plugins/docker-compose")
    assert project(folder).call == ("docker-compose", "-f", file)
    executable(programs / "docker")
    assert project(folder).call == ("docker", "compose", "-f", file)
    assert project(folder, COMPOSE_PROJECT_NAME="x").call == ("docker", "compose", "-p", "x", "-f", file)
