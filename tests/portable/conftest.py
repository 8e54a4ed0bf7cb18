"""A machine of its own for what must not happen on this one."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.machine import Machine, missing_tools

PORT = 41873


@pytest.fixture
def machine() -> Iterator[Machine]:
    """As the lab's; its scratch folder takes files from every user."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("needs root on Linux")
    if missing := sorted(missing_tools()):
        pytest.skip(f"needs tools that are not installed: {', '.join(missing)}")
    with Machine(port=PORT) as machine:
        yield machine


@pytest.fixture
def folder(machine: Machine) -> Path:
    """Where every user of the machine may write."""
    shared = machine.scratch / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    return shared
