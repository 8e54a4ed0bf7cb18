"""Where a cgroup of version 2 is: its path in the hierarchy and its directory in a mount (cgroups(7), proc(5))."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

_OCTAL = re.compile(r"\\([0-7]{3})")
_OUTSIDE = "/.."


class Mount(NamedTuple):
    """A cgroup2 file system, of which a part may be mounted only."""

    root: str
    point: str


def place(text: str) -> str | None:
    """The version 2 path in /proc/PID/cgroup; None: the process has none, or it lies outside our cgroup namespace."""
    for line in text.splitlines():
        if line.startswith("0::/"):
            path = line.removeprefix("0::").removesuffix(" (deleted)")
            return None if path.startswith(_OUTSIDE) else path
    return None


def mounts(mountinfo: str) -> tuple[Mount, ...]:
    """The cgroup2 mounts in /proc/self/mountinfo, the widest first."""
    found: list[Mount] = []
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields = before.split(" ")
        if after.split(" ")[0] == "cgroup2" and len(fields) > 4:
            found.append(Mount(_unescaped(fields[3]), _unescaped(fields[4])))
    return tuple(sorted(found, key=lambda one: (len(one.root), one.point)))


def directory(path: str, among: Iterable[Mount]) -> str | None:
    """The directory of a cgroup; None: no mount shows it."""
    for mount in among:
        root = mount.root.rstrip("/")
        if path == root or path.startswith(f"{root}/"):
            return f"{mount.point.rstrip('/')}{path.removeprefix(root)}".rstrip("/")
    return None


def _unescaped(field: str) -> str:
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), field)
