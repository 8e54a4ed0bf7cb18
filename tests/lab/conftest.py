"""The machine and the scenario that the lab's tests are written with."""

from __future__ import annotations

import os
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.machine import Machine, missing_tools
from tests.lab.protocol import Scenario

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder is the lab."""
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.lab)


@pytest.fixture(scope="session")
def _lab() -> None:
    """Skips where the lab cannot run, with the reason."""
    if sys.platform != "linux":
        pytest.skip("the lab makes real faults in Linux namespaces: this is not Linux")
    if os.geteuid() != 0:
        pytest.skip("the lab needs root: run `sudo make lab`")
    missing = sorted(missing_tools())
    if missing:
        pytest.skip(f"the lab needs tools that are not installed: {', '.join(missing)}")


@pytest.fixture
def machine(_lab: None, request: pytest.FixtureRequest) -> Iterator[Machine]:
    """A machine of its own; its port depends on the test's name only, so that recordings are stable."""
    with Machine(port=20000 + zlib.crc32(request.node.name.encode()) % 12000) as machine:
        yield machine


@pytest.fixture
def another(_lab: None, machine: Machine) -> Iterator[Machine]:
    """A second machine on the same kernel: another network namespace, like a container's."""
    with Machine(port=machine.port) as another:
        yield another


@pytest.fixture
def scenario(machine: Machine, request: pytest.FixtureRequest) -> Scenario:
    """The protocol that every scenario holds, on the first machine."""
    folder = request.config.getoption("--record-machines")
    sentence = request.node.name.removeprefix("test_").replace("_", " ")
    return Scenario(machine, sentence, Path(folder) if folder else None)
