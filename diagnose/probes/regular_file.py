"""Regular files of a reasonable size, whatever a machine has in their place.

What stands there is looked at before it is opened (O_PATH), since to open or read something else may wait for good (a
FIFO), never end (a device) or act (a watchdog, /proc/kmsg). Links are followed, as the C library and Compose follow
them; where other users may have made them, root reads only what those users could read themselves.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator

from msgspec import Struct

from diagnose.model.names import Kind
from diagnose.probes.path_walk import Place, find, permits

LARGEST = 1 << 23
"""Bytes of a file that is read: hosts files that block advertisements have up to some 2^22."""

KINDS: dict[int, Kind] = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
PSEUDO = frozenset(
    {
        0x9FA0,  # proc
        0x62656572,  # sysfs
        0x74726163,  # tracefs
        0x64626720,  # debugfs
        0x73636673,  # securityfs
        0x27E0EB,  # cgroup
        0x63677270,  # cgroup2
        0xCAFE4A11,  # bpf
        0x6165676C,  # pstore
        0xDE5E81E4,  # efivarfs
        0x62656570,  # configfs
        0x6E736673,  # nsfs
        0x19800202,  # mqueue
        0x42494E4D,  # binfmt_misc
        0x65735543,  # fusectl
        0xF97CFF8C,  # selinuxfs
        0x43415D53,  # smackfs
        0x67596969,  # rpc_pipefs
    }
)
"""File systems whose files are calls into the kernel: to read one may do something (linux/magic.h)."""
_READ = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOCTTY", 0)
_O_PATH: int | None = getattr(os, "O_PATH", None)
_ANYBODY = -1
"""A user of whom nothing is known: what all may read."""


class NotRegularError(OSError):
    """Something else than a regular file stands there."""

    def __init__(self, kind: Kind) -> None:
        super().__init__(errno.EINVAL, f"it is {kind} and no regular file: never opened")
        self.kind: Kind = kind


class RegularFile(Struct, frozen=True):
    """A file as it stands there."""

    mode: int
    """Permission bits."""
    owner: int
    content: bytes


def kind_of(status: os.stat_result) -> Kind | None:
    """What stands there instead of a regular file; None: it is one."""
    return None if stat.S_ISREG(status.st_mode) else KINDS.get(stat.S_IFMT(status.st_mode), "a device")


def read(path: str, largest: int = LARGEST) -> RegularFile:
    """A file of the system's own; raises NotRegularError, or OSError with a reason for people."""
    if _O_PATH is None:
        return _by_name(path, largest)
    place = os.open(path, _O_PATH | os.O_CLOEXEC)
    try:
        status = os.fstat(place)
        _check(place, status, largest)
        opened = os.open(f"/proc/self/fd/{place}" if os.path.isdir("/proc/self/fd") else path, _READ)
    finally:
        os.close(place)
    return _content(opened, status, largest)


def read_of_others(path: str, largest: int = LARGEST, below: str | None = None, viewer: int | None = None) -> bytes:
    """A file that other users may have put there, and linked; raises as `read` does.

    `below`: the real directory that it must lie in. `viewer`: a user who sees what is read, and must be allowed to.
    """
    real = os.path.realpath(path)
    _check_below(real, below)
    if _O_PATH is None or not os.path.isdir("/proc/self/fd"):
        return _by_name(real, largest).content
    place = find(path, lambda _: None)
    try:
        if place.file is None or place.status is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        _check_below(os.readlink(f"/proc/self/fd/{place.file}"), below)
        _check(place.file, place.status, largest)
        if os.geteuid() == 0:
            _check_readers(place, place.status, viewer)
        opened = place.open(_READ)
    finally:
        place.close()
    return _content(opened, place.status, largest).content


def _by_name(path: str, largest: int) -> RegularFile:
    """Looked at, opened without a wait, and looked at again."""
    _check(None, os.stat(path), largest)
    opened = os.open(path, _READ)
    return _content(opened, os.fstat(opened), largest)


def _check(place: int | None, status: os.stat_result, largest: int) -> None:
    if kind := kind_of(status):
        raise NotRegularError(kind)
    if place is not None and not status.st_blocks and _is_the_kernels(place):
        raise OSError(errno.EINVAL, "it is a file of the kernel's own: never opened")
    if status.st_size > largest:
        raise _too_large(f"{status.st_size} bytes", largest)


def _is_the_kernels(place: int) -> bool:
    """Whether it lies on such a file system, where no file has blocks."""
    from diagnose.probes.syscalls import file_system  # 2 ms, and never for an ordinary file

    return file_system(place) in PSEUDO


def _too_large(size: str, largest: int) -> OSError:
    return OSError(errno.EFBIG, f"it has {size}, and no more than {largest} are read")


def _content(opened: int, status: os.stat_result, largest: int) -> RegularFile:
    with open(opened, "rb") as file:
        if kind := kind_of(os.fstat(opened)):
            raise NotRegularError(kind)
        data = file.read(largest + 1)
    if len(data) > largest:
        raise _too_large(f"more than {largest} bytes", largest)
    return RegularFile(stat.S_IMODE(status.st_mode), status.st_uid, data)


def _check_below(real: str, below: str | None) -> None:
    if below is not None and not real.startswith(below.rstrip(os.sep) + os.sep):
        raise OSError(errno.EXDEV, "it lies outside of the project's directory")


def _check_readers(place: Place, status: os.stat_result, viewer: int | None) -> None:
    """No link of another user makes root read, and show, what that user may not read."""
    for uid in _makers(place, status, viewer):
        if not (place.searchable(uid) and permits(status, 4, uid)):
            who = "who made it what it is" if uid == _ANYBODY else f"uid {uid}, by whom it is read here,"
            raise PermissionError(errno.EPERM, f"{who} may not read it: not read")


def _makers(place: Place, status: os.stat_result, viewer: int | None) -> Iterator[int]:
    """Whoever may have chosen this file by a link: those of the links, and for a hard link those of the directory."""
    yield from place.link_owners - {0}
    if viewer is not None:
        yield viewer
    directory = place.passed[-1]
    if status.st_nlink > 1 and status.st_uid != directory.st_uid:
        if directory.st_uid != 0:
            yield directory.st_uid
        if directory.st_mode & 0o022:
            yield _ANYBODY
