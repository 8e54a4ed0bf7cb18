"""The machine of these scenarios has a real Docker Engine."""

from __future__ import annotations

import os
import shutil
import zlib
from collections.abc import Iterator

import pytest

from tests.lab.docker import BUSYBOX, ENGINE_TOOLS, DockerMachine


@pytest.fixture
def machine(_lab: None, request: pytest.FixtureRequest) -> Iterator[DockerMachine]:
    """Parametrized indirectly it takes options of dockerd; its port depends on the test's name only."""
    path = "/usr/sbin:/sbin:" + os.environ["PATH"]
    missing = [tool for tool in (*ENGINE_TOOLS, BUSYBOX) if shutil.which(tool, path=path) is None]
    if missing:
        pytest.skip(f"the lab needs tools that are not installed: {', '.join(missing)}")
    port = 20000 + zlib.crc32(request.node.name.encode()) % 12000
    with DockerMachine(port=port, daemon=getattr(request, "param", ())) as machine:
        yield machine
