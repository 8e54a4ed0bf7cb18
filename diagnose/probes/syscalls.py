"""System calls that Python 3.11 does not have."""

from __future__ import annotations

import ctypes
import os
import struct

from diagnose import seccomp

_LIBC = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNET = 0x40000000
_OPENAT2, _PIDFD_GETFD = 437, 438
"""The same numbers for every architecture (include/uapi/asm-generic/unistd.h)."""
_RESOLVE_NO_MAGICLINKS, _RESOLVE_NO_SYMLINKS, _RESOLVE_IN_ROOT = 0x02, 0x04, 0x10
_OPEN_HOW = struct.Struct("=QQQ")
"""struct open_how: flags, mode, resolve (linux/openat2.h)."""
_RACES = 8
"""EAGAIN: a rename elsewhere raced with the walk, and it may be tried again (openat2(2))."""
_STATFS_SIZE = 256


def _check(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def enter_network(namespace: int) -> None:
    """Moves this thread, and those that it starts from now on, into the network namespace (setns(2)); OSError."""
    seccomp.require("setns")
    _check(_LIBC.setns(namespace, _CLONE_NEWNET))


def duplicate(pid: int, number: int) -> int:
    """A duplicate of that process's descriptor (pidfd_getfd(2)): the same open file, so nothing may be set on it.

    OSError: EPERM without the right to trace the process (ptrace(2)), ENOSYS before Linux 5.6, ESRCH and EBADF where
    the process or the descriptor is gone.
    """
    seccomp.require("pidfd_open", "pidfd_getfd")
    process = os.pidfd_open(pid)
    try:
        return _check(_LIBC.syscall(_PIDFD_GETFD, process, number, 0))
    finally:
        os.close(process)


def open_below(root: int, path: str, flags: int, *, links: bool = True) -> int:
    """Opens the path as if `root` were /: no link and no .. leads out, and none of /proc's magic links is followed.

    OSError: ENOSYS before Linux 5.6, ELOOP for a magic link, and without `links` for any.
    """
    seccomp.require("openat2")
    resolve = _RESOLVE_NO_MAGICLINKS | _RESOLVE_IN_ROOT | (0 if links else _RESOLVE_NO_SYMLINKS)
    how = _OPEN_HOW.pack(flags | os.O_CLOEXEC, 0, resolve)
    for _ in range(_RACES):
        try:
            return _check(_LIBC.syscall(_OPENAT2, root, os.fsencode(path), how, len(how)))
        except BlockingIOError:
            continue
    raise BlockingIOError(f"{path}: renamed again and again")


def file_system(descriptor: int) -> int:
    """The magic number of the file system that an open file lies on (fstatfs(2), linux/magic.h)."""
    seccomp.require("fstatfs")
    room = ctypes.create_string_buffer(_STATFS_SIZE)
    _check(_LIBC.fstatfs(descriptor, room))
    return ctypes.c_long.from_buffer(room).value & 0xFFFFFFFF
