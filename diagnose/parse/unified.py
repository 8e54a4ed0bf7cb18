"""Where a cgroup is: its path in the hierarchy of version 2, or in the freezer's of version 1 (cgroups(7), proc(5))."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

_OCTAL = re.compile(r"\\([0-7]{3})")
_OUTSIDE = "/.."


class Mount(NamedTuple):
    """A cgroup file system, of which a part may be mounted only."""

    root: str
    point: str


def place(text: str) -> str | None:
    """The version 2 path in /proc/PID/cgroup; None: the process has none, or it lies outside our cgroup namespace."""
    return _place(text, re.compile(r"0::(/.*)"))


def freezer_place(text: str) -> str | None:
    """The same in the hierarchy of version 1 that has the freezer."""
    return _place(text, re.compile(r"\d+:(?:[^:]*,)?freezer(?:,[^:]*)?:(/.*)"))


def _place(text: str, pattern: re.Pattern[str]) -> str | None:
    for line in text.splitlines():
        if found := pattern.fullmatch(line):
            path = found[1].removesuffix(" (deleted)")
            return None if path.startswith(_OUTSIDE) else path
    return None


def mounts(mountinfo: str) -> tuple[Mount, ...]:
    """The cgroup2 mounts in /proc/self/mountinfo, the widest first."""
    return _mounts(mountinfo, "cgroup2")


def freezer_mounts(mountinfo: str) -> tuple[Mount, ...]:
    """Those of version 1 that show the freezer."""
    return _mounts(mountinfo, "cgroup", "freezer")


def _mounts(mountinfo: str, kind: str, option: str = "") -> tuple[Mount, ...]:
    found: list[Mount] = []
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields, told = before.split(" "), after.split(" ")
        if told[0] == kind and len(fields) > 4 and (not option or option in told[-1].split(",")):
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
