"""From where and as whom."""

from __future__ import annotations

import os
import sys

import msgspec
import pytest

from diagnose.model.process import Container
from diagnose.probes import vantage


def test_it_names_this_machine_and_this_user() -> None:
    seen = vantage.look()
    assert (seen.hostname, seen.kernel, seen.uid) == (os.uname().nodename, os.uname().release, os.geteuid())
    assert seen.platform == sys.platform
    assert seen.user


def test_it_keeps_the_container_that_it_was_told() -> None:
    container = Container("docker", "0123456789ab")
    assert vantage.look(container).container == container


@pytest.mark.skipif(sys.platform != "linux", reason="network namespaces are Linux's")
def test_it_knows_its_network_namespace() -> None:
    assert vantage.look().network_namespace == os.stat("/proc/self/ns/net").st_ino


def test_the_caller_of_sudo_is_believed_from_root_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDO_USER", "ada")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert vantage.look().sudo_user == "ada"
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert vantage.look().sudo_user is None


@pytest.mark.skipif(sys.platform == "win32", reason="nobody becomes root there")
@pytest.mark.parametrize(
    ("environment", "caller"),
    [
        ({"SUDO_USER": "ada", "SUDO_UID": "1000"}, ("ada", 1000)),
        ({"SUDO_UID": "3999999999"}, ("3999999999", 3999999999)),
        ({"SUDO_USER": "no such user"}, ("no such user", None)),
        ({"DOAS_USER": "ada"}, ("ada", None)),
        ({"PKEXEC_UID": "3999999999"}, ("3999999999", 3999999999)),
        ({"SUDO_USER": "root", "SUDO_UID": "0"}, (None, None)),
        ({"DOAS_USER": "root"}, (None, None)),
        ({"SUDO_UID": "x"}, (None, None)),
        ({"SUDO_USER": ""}, (None, None)),
        ({}, (None, None)),
    ],
)
def test_whoever_became_root_for_this_command_is_not_root_in_their_own_shell(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], caller: tuple[str | None, int | None]
) -> None:
    for name in ("SUDO_USER", "SUDO_UID", "DOAS_USER", "PKEXEC_UID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    seen = vantage.look()
    assert (seen.sudo_user, seen.sudo_uid) == caller
    assert seen.is_root is (caller == (None, None))


def test_a_uid_without_an_account_is_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 3_999_999_999)
    seen = vantage.look()
    assert (seen.user, seen.privileged) == ("3999999999", False)


def test_names_that_are_no_utf8_still_fit_into_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("SUDO_USER", os.fsdecode(b"b\xff\n"))
    assert msgspec.json.decode(msgspec.json.encode(vantage.look()))["sudo_user"] == "b\\xff\n"
