"""Which program is run, and what it is given: as root nothing that the caller has chosen."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("the tools are Linux's", allow_module_level=True)

from diagnose.probes.shadow import tool

EVIL = {"LD_PRELOAD": "/tmp/evil.so", "XTABLES_LIBDIR": "/tmp/evil", "IFS": "/", "BASH_ENV": "/tmp/evil"}


def program(folder: Path, name: str = "nft") -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The caller's own folder in front, then the system's and the administrator's."""
    monkeypatch.setattr(tool, "_SYSTEM", (str(tmp_path / "system"),))
    monkeypatch.setattr(tool, "_LOCAL", (str(tmp_path / "local"),))
    monkeypatch.setenv("PATH", f"{tmp_path / 'caller'}:.:relative")
    program(tmp_path / "caller")
    return tmp_path


@pytest.fixture(params=[True, False], ids=["as root", "as a user"])
def rights(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr(tool, "has_rights", lambda: request.param)
    return bool(request.param)


def test_the_caller_s_path_is_asked_by_ordinary_users_only(places: Path, rights: bool) -> None:
    assert tool.find("nft") == (None if rights else str(places / "caller" / "nft"))
    ours = program(places / "system")
    assert tool.find("nft") == str(ours if rights else places / "caller" / "nft")
    (places / "caller" / "nft").unlink()
    assert tool.find("nft") == str(ours)


def test_what_others_than_root_can_replace_is_not_run_as_root(
    places: Path, rights: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = program(places / "local", "iptables-save")
    monkeypatch.setattr(tool, "_is_roots_alone", lambda path: path != str(ours.parent))
    assert tool.find("iptables-save") == (None if rights else str(ours))
    monkeypatch.setattr(tool, "_is_roots_alone", lambda path: True)
    assert tool.find("iptables-save") == str(ours)


@pytest.mark.parametrize("mode", [0o775, 0o777, 0o757])
def test_a_folder_that_others_may_write_is_not_root_s_alone(tmp_path: Path, mode: int) -> None:
    tmp_path.chmod(mode)
    assert not tool._is_roots_alone(str(tmp_path))


def test_neither_a_relative_place_nor_a_folder_is_a_program(places: Path, rights: bool) -> None:
    (places / "system").mkdir()
    (places / "system" / "ufw").mkdir()
    assert tool.find("ufw", "gone") is None


def test_root_s_tools_get_nothing_of_the_caller_s_environment(rights: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in EVIL.items():
        monkeypatch.setenv(name, value)
    given = tool.environment()
    assert given["LC_ALL"] == "C"
    if rights:
        assert given == {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
    else:
        assert EVIL.items() <= given.items()


@pytest.mark.parametrize(
    ("real", "effective", "capabilities", "more"),
    [(0, 0, 1, True), (1000, 1000, 0, False), (1000, 0, 0, True), (1000, 1001, 0, True), (1000, 1000, 1 << 12, True)],
)
def test_whoever_may_more_than_an_ordinary_user_has_rights(
    real: int, effective: int, capabilities: int, more: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getuid", lambda: real)
    monkeypatch.setattr(os, "geteuid", lambda: effective)
    monkeypatch.setattr(tool, "effective_capabilities", lambda: capabilities)
    assert tool.has_rights() is more
