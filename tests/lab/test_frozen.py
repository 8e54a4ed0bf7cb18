"""Servers whose cgroup is frozen, by either version of the freezer, and what only looks like it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.lab.cgroups import Cgroup, cgroup, unified
from tests.lab.machine import NOBODY, Machine, wait_for
from tests.lab.protocol import Diagnosis, Scenario, likely, proven, works

FROZEN, IDLE = proven("hung/frozen"), proven("hung/not-accepting")
VERSION_1 = Path("/sys/fs/cgroup/freezer")


@pytest.fixture
def group(_lab: None) -> Iterator[Cgroup]:
    """A cgroup of the scenario's own, of version 2; it is thawed in the end."""
    if unified() is None:
        pytest.skip("the cgroup2 file system is not mounted")
    with cgroup("frozen") as made:
        try:
            yield made
        finally:
            freeze(made.path, "0")


@contextmanager
def freezer_of_version_1() -> Iterator[Path]:
    """A cgroup of the old freezer; afterwards it is thawed and gone."""
    if not (VERSION_1 / "cgroup.procs").exists():
        pytest.skip("the freezer of cgroup version 1 is not mounted")
    path = VERSION_1 / f"netdiag-lab-{os.getpid()}"
    path.mkdir()
    try:
        yield path
    finally:
        (path / "freezer.state").write_text("THAWED")
        for pid in (path / "cgroup.procs").read_text().split():
            (VERSION_1 / "cgroup.procs").write_text(pid)
        wait_for(lambda: not (path / "cgroup.procs").read_text().split(), f"{path} to be empty")
        path.rmdir()


def freeze(path: Path, value: str = "1") -> None:
    (path / "cgroup.freeze").write_text(value)
    wait_for(lambda: f"frozen {value}" in (path / "cgroup.events").read_text(), f"{path} to say frozen {value}")


def test_a_server_in_a_frozen_cgroup_is_named_and_thawed(machine: Machine, scenario: Scenario, group: Cgroup) -> None:
    with group.around():
        machine.serve()
    machine.serve(port=machine.port + 1)
    freeze(group.path)
    answer = scenario.says(FROZEN, as_nobody=likely("hung/frozen"))
    assert answer.cause
    assert str(group.path) in str(answer.cause["evidence"])


def test_a_server_below_a_frozen_cgroup_is_thawed_where_the_freeze_is(
    machine: Machine, scenario: Scenario, group: Cgroup
) -> None:
    inner = group.path / "inner"
    inner.mkdir()
    try:
        server = machine.serve(uid=NOBODY)
        (inner / "cgroup.procs").write_text(str(server.pid))
        freeze(group.path)
        answer = scenario.says(FROZEN, as_nobody=FROZEN)
        assert answer.cause
        file = f"{group.path}/cgroup.freeze"
        assert [c["argv"][-1] for c in answer.cause["remedies"][0]["commands"]] == [file]
        freeze(group.path, "0")
        server.kill()
        wait_for(lambda: not (inner / "cgroup.procs").read_text(), "the server to be gone")
    finally:
        freeze(group.path, "0")
        inner.rmdir()


def test_a_server_frozen_by_version_1_of_the_freezer_is_named_and_thawed(machine: Machine, scenario: Scenario) -> None:
    with freezer_of_version_1() as path:
        server = machine.serve()
        (path / "cgroup.procs").write_text(str(server.pid))
        (path / "freezer.state").write_text("FROZEN")
        scenario.says(FROZEN, as_nobody=(IDLE, likely("hung/not-accepting")))


def test_a_frozen_cgroup_that_does_not_hold_the_server_is_not_accused(
    machine: Machine, scenario: Scenario, group: Cgroup
) -> None:
    with group.around():
        machine.serve(port=machine.port + 1)
    machine.serve()
    freeze(group.path)
    scenario.says(works())


def test_a_port_that_a_frozen_process_has_is_free_after_it_is_thawed_and_stopped(
    machine: Machine, scenario: Scenario
) -> None:
    with freezer_of_version_1() as path:
        server = machine.serve()
        (path / "cgroup.procs").write_text(str(server.pid))
        (path / "freezer.state").write_text("FROZEN")
        taken = Diagnosis("in-use/listener", "proven", "not-bindable", 1)
        answer = scenario.says(taken, as_nobody=taken, arguments=("--bind",))
        assert answer.cause
        assert "frozen" in answer.cause["explanation"]
