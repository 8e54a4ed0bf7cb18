"""A path walked one component at a time, so that the owner of a link is known before the link is followed."""

from __future__ import annotations

import errno
import os
import stat
from collections import deque
from collections.abc import Callable

from msgspec import Struct

from diagnose import seccomp

_MOST_LINKS = 40
"""As many as the kernel follows (path_resolution(7))."""
_O_PATH: int | None = getattr(os, "O_PATH", None)
_DIRECTORY = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
_OWN_DESCRIPTORS = "/proc/self/fd"

Follow = Callable[[os.stat_result], None]
"""Is shown each link before it is followed; raises OSError where it must not be."""


class Place(Struct, frozen=True):
    """Where a path ends; its directory cannot be exchanged any more. `close` lets go of it."""

    directory: int
    """A descriptor of the last component's directory, for *at() calls only."""
    name: str
    """The last component; never a link when it was looked at."""
    status: os.stat_result | None
    """What stands there; None: nothing."""
    passed: tuple[os.stat_result, ...] = ()
    """The directories that were searched on the way."""
    link_owners: frozenset[int] = frozenset()
    """The users whose links were followed."""
    file: int | None = None
    """A descriptor of what stands there that reads and writes nothing (O_PATH); None: nothing, or no such flag here."""
    descriptor: int | None = None
    """The path means this open descriptor of our own: /dev/stdout, /dev/fd/N."""

    def close(self) -> None:
        """Closes its descriptors."""
        os.close(self.directory)
        if self.file is not None:
            os.close(self.file)

    def open(self, flags: int) -> int:
        """A descriptor of the very file that was looked at; OSError."""
        flags |= os.O_CLOEXEC | os.O_NOCTTY
        if self.file is not None and os.path.isdir(_OWN_DESCRIPTORS):
            return os.open(f"{_OWN_DESCRIPTORS}/{self.file}", flags)
        opened = os.open(self.name, flags | os.O_NOFOLLOW, dir_fd=self.directory)
        if self.status is None or not os.path.samestat(os.fstat(opened), self.status):
            os.close(opened)
            raise OSError(errno.ESTALE, "it was exchanged in this moment")
        return opened

    def searchable(self, uid: int, gid: int | None = None) -> bool:
        """Whether this user may come here by the modes of the directories; other groups and lists do not count."""
        return all(permits(one, 1, uid, gid) for one in self.passed)


def permits(status: os.stat_result, right: int, uid: int, gid: int | None = None) -> bool:
    """Whether the mode gives this user the right: 4 to read, 2 to write, 1 to search."""
    shift = 6 if status.st_uid == uid else 3 if gid is not None and status.st_gid == gid else 0
    return uid == 0 or (status.st_mode >> shift) & right == right


def mount_of(descriptor: int) -> int | None:
    """The number of the mount that an open file was reached through (proc_pid_fdinfo(5)); None: not known here."""
    try:
        with open(f"/proc/self/fdinfo/{descriptor}", encoding="ascii", errors="backslashreplace") as told:
            return next((int(line[len("mnt_id:") :]) for line in told if line.startswith("mnt_id:")), None)
    except OSError:
        return None


def find(path: str, follow: Follow) -> Place:
    """Walks to the last component, which need not exist; a link in its place is followed like any other. OSError."""
    walk = _Walk(path, follow)
    try:
        return walk.to_the_end()
    except BaseException:
        os.close(walk.directory)
        raise


class _Walk:
    def __init__(self, path: str, follow: Follow) -> None:
        if not path:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        self._left = deque(_parts(path))
        self._follow = follow
        self._passed: list[os.stat_result] = []
        self._owners: list[int] = []
        self.directory = _opened("/" if path.startswith("/") else ".")
        self._passed.append(os.fstat(self.directory))

    def to_the_end(self) -> Place:
        """Component by component."""
        while self._left:
            name = self._left.popleft()
            status, here = _seen(self.directory, name)
            if status is None and self._left:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
            if not self._left and (number := _own_descriptor(self.directory, name, status)) is not None:
                _close(here)
                return self._place(name, None, None, number)
            if status is not None and stat.S_ISLNK(status.st_mode):
                self._through(name, status, here)
            elif self._left:
                self._into(name, here)
            else:
                return self._place(name, status, here)
        return self._place(".", os.fstat(self.directory), None)

    def _place(
        self, name: str, status: os.stat_result | None, file: int | None, descriptor: int | None = None
    ) -> Place:
        return Place(
            self.directory, name, status, tuple(self._passed), frozenset(self._owners), file, descriptor=descriptor
        )

    def _through(self, name: str, status: os.stat_result, here: int | None) -> None:
        """What the link says comes next."""
        try:
            self._follow(status)
            if len(self._owners) == _MOST_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
            self._owners.append(status.st_uid)
            seccomp.require("readlinkat")
            target = os.readlink(name, dir_fd=self.directory) if here is None else os.readlink("", dir_fd=here)
        finally:
            _close(here)
        self._left.extendleft(reversed(_parts(target)))
        if target.startswith("/"):
            self._go(_opened("/"))

    def _into(self, name: str, here: int | None) -> None:
        if here is None:
            here = os.open(name, _DIRECTORY, dir_fd=self.directory)
        elif not stat.S_ISDIR(os.fstat(here).st_mode):
            os.close(here)
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        self._go(here)

    def _go(self, directory: int) -> None:
        os.close(self.directory)
        self.directory = directory
        self._passed.append(os.fstat(directory))


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]


def _opened(path: str) -> int:
    return os.open(path, _DIRECTORY | (_O_PATH or 0))


def _seen(directory: int, name: str) -> tuple[os.stat_result | None, int | None]:
    """What stands there, and with O_PATH a descriptor of that very thing, a link included."""
    try:
        if _O_PATH is None:
            return os.stat(name, dir_fd=directory, follow_symlinks=False), None
        here = os.open(name, _O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    except FileNotFoundError:
        return None, None
    return os.fstat(here), here


def _own_descriptor(directory: int, name: str, status: os.stat_result | None) -> int | None:
    """Whether this is /proc/self/fd/N, open or not; the text of that link says less than the descriptor itself."""
    if not (name.isascii() and name.isdecimal()) or (status is not None and not stat.S_ISLNK(status.st_mode)):
        return None
    try:
        own = os.stat(_OWN_DESCRIPTORS)
    except OSError:
        return None
    return int(name) if os.path.samestat(own, os.fstat(directory)) else None


def _close(descriptor: int | None) -> None:
    if descriptor is not None:
        os.close(descriptor)
