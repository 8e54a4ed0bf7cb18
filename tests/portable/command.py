"""The command on a platform that is not there, and servers for it to find."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema

REPOSITORY = Path(__file__).resolve().parents[2]
STAND_IN = Path(__file__).with_name("stand_in.py")
PLATFORMS = ("darwin", "win32")
LINUX = "linux"


@dataclass(frozen=True)
class Answer:
    """What one run printed, and how it ended."""

    exit_code: int
    stdout: bytes
    stderr: str

    @property
    def report(self) -> dict[str, Any]:
        """The JSON report, held against the published schema."""
        report: dict[str, Any] = json.loads(self.stdout)
        jsonschema.validate(report, published_schema())
        return report

    @property
    def cause(self) -> dict[str, Any]:
        """The root cause."""
        cause: dict[str, Any] | None = self.report["root_cause"]
        assert cause, self.report
        return cause

    @property
    def codes(self) -> set[str]:
        """The codes of all findings."""
        return {finding["code"] for finding in self.report["findings"]}

    @property
    def checks(self) -> dict[str, str]:
        """The outcome of each check."""
        return {check["name"]: check["outcome"] for check in self.report["checks"]}

    @property
    def not_linux(self) -> set[str]:
        """The facts that were not looked at because this is not Linux."""
        return {one["fact"] for one in self.report["not_checked"] if one["reason"] == "not Linux"}


def argv(platform: str, *arguments: str) -> list[str]:
    """The command line that runs netdiag there."""
    return [sys.executable, str(STAND_IN), platform, *arguments]


def netdiag(platform: str, *arguments: str) -> Answer:
    """Runs the whole command; whatever Linux alone has, and is asked for all the same, is a line on standard error."""
    command = argv(platform, *arguments) if platform != LINUX else [sys.executable, "-m", "diagnose", *arguments]
    done = subprocess.run(command, capture_output=True, timeout=30, check=False, env=environment())
    answer = Answer(done.returncode, done.stdout, done.stderr.decode())
    assert "Traceback" not in answer.stderr, answer.stderr
    assert "stand-in:" not in answer.stderr, answer.stderr
    assert answer.exit_code != 70, answer.stderr
    return answer


def environment() -> dict[str, str]:
    """Our own, in which the checkout is found."""
    return {**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1"}


@cache
def published_schema() -> dict[str, Any]:
    """What `netdiag schema` prints on Linux."""
    schema: dict[str, Any] = json.loads(netdiag(LINUX, "schema").stdout)
    return schema


@contextmanager
def listening(address: str = "127.0.0.1") -> Iterator[int]:
    """The port of a server in this process, which accepts and then waits in silence."""
    with socket.create_server((address, 0), family=socket.AF_INET6 if ":" in address else socket.AF_INET) as server:
        threading.Thread(target=_accept, args=(server,), daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


def _accept(server: socket.socket) -> None:
    taken = []
    try:
        while True:
            taken.append(server.accept())
    except OSError:  # the server was shut down
        for connection, _ in taken:
            connection.close()


@contextmanager
def closed(address: str = "127.0.0.1") -> Iterator[int]:
    """A port that nobody else gets meanwhile and on which nobody listens."""
    with socket.socket() as holder:
        holder.bind((address, 0))
        yield holder.getsockname()[1]
