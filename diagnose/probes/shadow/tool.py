"""The firewall's own tools, run beside us and never waited for beyond the deadline."""

from __future__ import annotations

import fcntl
import os
import stat
import subprocess
import time
from collections.abc import Sequence

from diagnose import seccomp, temporary
from diagnose.probes.vantage import effective_capabilities
from diagnose.signals import unblocked

_SYSTEM = ("/usr/sbin", "/usr/bin", "/sbin", "/bin")
"""Where the system has its programs, though an ordinary user's PATH may not say so."""
_LOCAL = ("/usr/local/sbin", "/usr/local/bin", "/run/current-system/sw/bin")
"""Where an administrator, or NixOS, has more of them: some systems let others than root write there."""


def find(*names: str) -> str | None:
    """Path of the first of these programs that is installed.

    With more rights than an ordinary user's, only where none but root puts programs; PATH is whatever the caller made
    it.
    """
    if has_rights():
        places = [*((folder, False) for folder in _SYSTEM), *((folder, True) for folder in _LOCAL)]
    else:
        folders = (*os.environ.get("PATH", os.defpath).split(os.pathsep), *_SYSTEM, *_LOCAL)
        places = [(folder, False) for folder in folders]
    for name in names:
        for folder, doubted in places:
            path = os.path.join(folder, name)
            if not os.path.isabs(path) or not os.access(path, os.X_OK) or os.path.isdir(path):
                continue
            if not doubted or (_is_roots_alone(folder) and _is_roots_alone(path)):
                return path
    return None


def has_rights() -> bool:
    """Whether this process may do more than an ordinary user: root, set-user-id, or with any capability."""
    return os.geteuid() == 0 or os.getuid() != os.geteuid() or effective_capabilities() != 0


def environment() -> dict[str, str]:
    """What a tool is given: its words in English; of the caller's environment nothing where it runs with rights."""
    if has_rights():
        return {"PATH": os.pathsep.join(_SYSTEM), "LC_ALL": "C"}
    return {**os.environ, "LC_ALL": "C"}


def _is_roots_alone(path: str) -> bool:
    """Whether none but root can change what stands there."""
    found = os.stat(path)
    return found.st_uid == 0 and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


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
        if seccomp.is_active():
            subprocess._USE_VFORK = False  # type: ignore[misc] # it cannot be tried out (subprocess.html)
        with unblocked():
            return subprocess.Popen(
                self.argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment(),
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
