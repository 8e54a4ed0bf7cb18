"""denial.py ERRNO PATH LOG -- ARGUMENTS: netdiag, to which the system answers so whenever it asks for that path.

Numbers in a path under /proc stand for any ("/proc/N/stat"). The paths under /proc and /sys that it asked for are
appended to LOG, one a line. Before anything of netdiag is loaded, Python's own doors to the file system are replaced;
the processes that it forks inherit that.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import re
import sys
from collections.abc import Callable
from typing import Any

_DOORS = ("open", "listdir", "scandir", "readlink", "stat", "lstat", "statvfs", "mkdir", "access")
_readlink = os.readlink


def general(path: str) -> str:
    """The path with N for every number that names a process, thread or descriptor."""
    if not path.startswith("/proc/"):
        return re.sub(r"/netdiag-\d+-\d+", "/netdiag-N-N", path)  # the tracing instance of this run
    return re.sub(r"(?<=/)(\d+|self|thread-self)(?=/|$)", "N", path)


def absolute(path: Any, directory: int | None) -> str | None:
    """What the kernel would look up; None for a descriptor."""
    if isinstance(path, int):
        return None
    text = os.fsdecode(path)
    if not text.startswith("/") and directory is not None:
        try:
            text = os.path.normpath(os.path.join(_readlink(f"/proc/self/fd/{directory}"), text))
        except OSError:
            return None
    return general(text)


def install(number: int, denied: str, log: str) -> None:
    """Replaces the doors."""
    writing = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)

    def guarded(door: Callable[..., Any]) -> Callable[..., Any]:
        def ask(path: Any = ".", *arguments: Any, **named: Any) -> Any:
            wanted = absolute(path, named.get("dir_fd"))
            if wanted is not None and wanted.startswith(("/proc", "/sys")):
                os.write(writing, f"{wanted}\n".encode())
                if wanted == denied:
                    raise OSError(number, os.strerror(number), path)
            return door(path, *arguments, **named)

        return ask

    for name in _DOORS:
        setattr(os, name, guarded(getattr(os, name)))
    opened = guarded(builtins.open)
    builtins.open = io.open = opened


def main() -> None:
    """Runs netdiag behind the doors."""
    name, denied, log, _, *arguments = sys.argv[1:]
    sys.argv = ["netdiag", *arguments]
    install(getattr(errno, name), denied, log)
    import netdiag_entry

    netdiag_entry.main()


if __name__ == "__main__":
    main()
