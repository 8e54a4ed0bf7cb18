"""Unit files and drop-ins that have the number of a port in them (systemd.unit(5), "Unit File Load Path")."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from time import monotonic

from msgspec import Struct

from diagnose.parse.unit import mentions, unit_of_file

_SYSTEM = (
    "/etc/systemd/system",
    "/run/systemd/system",
    "/run/systemd/transient",
    "/run/systemd/generator",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
)
_USERS = ("/etc/systemd/user", "/usr/local/lib/systemd/user", "/usr/lib/systemd/user")
_FILES = 4096
_LARGEST = 1 << 16
"""Bytes of a unit file that are read."""
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class UnitFiles(Struct, frozen=True):
    """Names of units, each once."""

    with_port: tuple[str, ...]
    """One of their files has the number."""
    made_here: tuple[str, ...]
    """Their file stands where administrators put theirs, and not packages."""


def look(port: int, owner: int | None, seconds: float) -> UnitFiles:
    """Looks through the directories of one manager: files of a limited size and number, until the time is over."""
    ends = monotonic() + seconds
    found: dict[str, None] = {}
    here: dict[str, None] = {}
    left = _FILES
    for directory in _directories(owner):
        ours = directory.startswith(("/etc/", "/run/", "/home/", "/root/"))
        for path in _files(directory):
            left -= 1
            if left < 0 or monotonic() > ends:
                return UnitFiles(tuple(found), tuple(here))
            name = unit_of_file(path)
            if name is None:
                continue
            if ours and name.endswith(".service"):
                here[name] = None
            if mentions(_content(path), port):
                found[name] = None
    return UnitFiles(tuple(found), tuple(here))


def _directories(owner: int | None) -> tuple[str, ...]:
    if owner is None:
        return _SYSTEM
    runtime = f"/run/user/{owner}/systemd"
    home = os.environ.get("HOME", "") if owner == os.geteuid() else ""
    own = (f"{home}/.config/systemd/user",) if home.startswith("/") else ()
    return (*own, f"{runtime}/user", f"{runtime}/transient", *_USERS)


def _files(directory: str) -> Iterator[str]:
    """The units of a directory, and the drop-ins of the directories beside them."""
    try:
        with os.scandir(directory) as entries:
            names = sorted(one.name for one in entries)
    except OSError:
        return
    for name in names:
        if name.endswith((".service", ".socket")):
            yield f"{directory}/{name}"
        elif name.endswith((".service.d", ".socket.d")):
            try:
                yield from (f"{directory}/{name}/{one}" for one in sorted(os.listdir(f"{directory}/{name}")))
            except OSError:
                continue


def _content(path: str) -> bytes:
    """The start of a regular file; empty of anything else, and of a link that another user than root may have made."""
    try:
        status = os.stat(path, follow_symlinks=path.startswith(_OF_ROOT))
        if not stat.S_ISREG(status.st_mode):
            return b""
        opened = os.open(path, _READ)
    except OSError:
        return b""
    try:
        return os.read(opened, _LARGEST) if stat.S_ISREG(os.fstat(opened).st_mode) else b""
    except OSError:
        return b""
    finally:
        os.close(opened)


_OF_ROOT = ("/etc/", "/run/systemd/", "/usr/")
"""Where only root makes files."""
