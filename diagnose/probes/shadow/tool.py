"""The firewall's own tools, run beside us and never waited for beyond the deadline."""

from __future__ import annotations

import fcntl
import os
import subprocess
import time
from collections.abc import Sequence

from diagnose import temporary
from diagnose.signals import unblocked

_SYSTEM = ("/usr/sbin", "/sbin", "/usr/local/sbin")
"""Where they are though an ordinary user's PATH does not say so."""


def find(*names: str) -> str | None:
    """Path of the first of these programs that is installed."""
    folders = [*os.environ.get("PATH", os.defpath).split(os.pathsep), *_SYSTEM]
    for name in names:
        for folder in folders:
            path = os.path.join(folder or ".", name)
            if os.path.isabs(path) and os.access(path, os.X_OK):
                return path
    return None


class Run:
    """A tool that was started; it runs in the network namespace of the thread that started it.

    OSError when it cannot be started.
    """

    def __init__(self, argv: Sequence[str]) -> None:
        self.argv = tuple(argv)
        self._process, self._held = temporary.make(self._start, subprocess.Popen.kill)
        assert self._process.stdout is not None
        _widen(self._process.stdout.fileno())

    def _start(self) -> subprocess.Popen[bytes]:
        with unblocked():
            return subprocess.Popen(
                self.argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={**os.environ, "LC_ALL": "C"},
            )

    def wait(self, until: float, given: str = "") -> tuple[int, str, str]:
        """Its status, output and complaints; TimeoutError and it is killed when it runs beyond `until`."""
        try:
            out, complaints = self._process.communicate(given.encode(), max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired as error:
            self.end()
            raise TimeoutError(f"{self.argv[0]} ran beyond the deadline") from error
        self._held.let_go()
        return self._process.returncode, _text(out), _text(complaints)

    def end(self) -> None:
        """Kills it if it still runs."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()
        self._held.let_go()


def _widen(pipe: int) -> None:
    """Makes room for some 10,000 rules, so that the tool has printed them by the time that they are read."""
    try:
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, 1 << 20)
    except OSError:
        pass  # root of a user namespace with many pipes open: then it waits for us to read (pipe(7))


def _text(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")
