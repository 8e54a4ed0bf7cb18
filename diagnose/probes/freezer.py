"""Which of these processes and sockets belong to a frozen cgroup, read from cgroupfs by any user."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from msgspec.structs import replace

from diagnose.model.fact import Fact, Known, Reason, Unknown
from diagnose.model.freezer import FrozenCgroup
from diagnose.model.process import Container
from diagnose.parse import unified
from diagnose.parse.cgroup import membership
from diagnose.parse.unified import Mount
from diagnose.probes.sockets import listener_cgroups

_TEXT_LIMIT = 1 << 20
_CGROUPS = 20_000
"""Directories that are looked through for a cgroup that is known by its number only."""


class _Mounts(NamedTuple):
    unified: tuple[Mount, ...]
    freezer: tuple[Mount, ...]
    """Of version 1."""


def look(pids: Iterable[int], hidden: Collection[int], port: int) -> Fact[tuple[FrozenCgroup, ...]]:
    """The frozen cgroups among those of these processes, and of listening sockets on the port whose holder is hidden.

    Known and empty: none of them is frozen. `hidden` has the inodes of these sockets.
    """
    try:
        mountinfo = _text("/proc/self/mountinfo")
    except OSError as error:
        return Unknown(Reason.FAILED, f"/proc/self/mountinfo: {error.strerror}")
    mounted = _Mounts(unified.mounts(mountinfo), unified.freezer_mounts(mountinfo))
    if not mounted.unified and not mounted.freezer:
        return Unknown(Reason.NOT_MOUNTED, "no cgroup file system is mounted")
    found: dict[str, FrozenCgroup] = {}
    unseen: list[int] = []
    for pid in sorted(set(pids)):
        directories = _directories(pid, mounted)
        if directories is None:
            unseen.append(pid)
            continue
        for one in map(_frozen, directories):
            if one is not None:
                known = found.get(one.directory, one)
                found[one.directory] = replace(known, pids=(*known.pids, pid))
    for one in _of_sockets(hidden, port, mounted):
        known = found.get(one.directory, one)
        found[one.directory] = replace(known, inodes=one.inodes)
    if unseen and not found:
        return Unknown(Reason.NOT_VISIBLE, f"the cgroup of process {unseen[0]} is not mounted here")
    return Known(tuple(sorted(found.values())))


def _directories(pid: int, mounted: _Mounts) -> list[str] | None:
    """Where its cgroups are, of both versions; None: none is seen, or it has ended."""
    try:
        text = _text(f"/proc/{pid}/cgroup")
    except OSError:
        return None
    place, above = unified.place(text), unified.freezer_place(text)
    found = [
        unified.directory(place, mounted.unified) if place else None,
        unified.directory(above, mounted.freezer) if above else None,
    ]
    seen = [one for one in found if one is not None]
    return seen or None


def _of_sockets(inodes: Collection[int], port: int, mounted: _Mounts) -> list[FrozenCgroup]:
    """By the cgroup that each socket was made in, which sock_diag shows to any user (INET_DIAG_CGROUP_ID)."""
    made_in = listener_cgroups(port) if inodes and mounted.unified else None
    if not isinstance(made_in, Known):
        return []
    numbers = {inode: number for inode, number in made_in.value.items() if inode in inodes}
    found: list[FrozenCgroup] = []
    for number, directory in _by_number(frozenset(numbers.values()), mounted.unified[0].point).items():
        one = _frozen(directory)
        if one is not None:
            found.append(replace(one, inodes=_having(numbers, number)))
    return found


def _having(numbers: Mapping[int, int], wanted: int) -> tuple[int, ...]:
    return tuple(sorted(inode for inode, number in numbers.items() if number == wanted))


def _by_number(wanted: frozenset[int], top: str) -> dict[int, str]:
    """The directories by their inodes, which are the numbers of the cgroups (kernfs, 64-bit)."""
    found: dict[int, str] = {}
    waiting, seen = [top], 0
    while waiting and seen < _CGROUPS and len(found) < len(wanted):
        path, seen = waiting.pop(), seen + 1
        try:
            number = os.stat(path).st_ino
            if number in wanted:
                found[number] = path
            with os.scandir(path) as entries:
                waiting += [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
        except OSError:  # it is gone
            continue
    return found


def _frozen(directory: str) -> FrozenCgroup | None:
    """The cgroup with what holds it, where it is frozen: by itself or by one above it."""
    if _says(f"{directory}/cgroup.events", "frozen 1"):
        files = [f"{one}/cgroup.freeze" for one in _lineage(directory) if _says(f"{one}/cgroup.freeze", "1")]
        return FrozenCgroup(directory, tuple(files), container=_container(files))
    if _says(f"{directory}/freezer.state", "FROZEN"):
        above = [one for one in _lineage(directory) if _says(f"{one}/freezer.self_freezing", "1")]
        files = [f"{one}/freezer.state" for one in above]
        return FrozenCgroup(directory, tuple(files), container=_container(files))
    return None


def _container(files: Sequence[str]) -> Container | None:
    """The container that is frozen; None: something around it is, or it is none."""
    return membership(f"0::{os.path.dirname(files[0])}").container if files else None


def _lineage(directory: str) -> list[str]:
    """The directories above it and itself, from the top; those that are no cgroups have none of the files."""
    parts = directory.split("/")
    return ["/".join(parts[:end]) for end in range(2, len(parts) + 1)]


def _says(path: str, line: str) -> bool:
    """Whether the file has this line; without the file no."""
    try:
        return line in _text(path).splitlines()
    except OSError:
        return False


def _text(path: str) -> str:
    with open(path, "rb") as file:
        return file.read(_TEXT_LIMIT).decode("utf-8", "backslashreplace")
