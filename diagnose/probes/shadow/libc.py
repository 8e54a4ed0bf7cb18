"""The few calls of libc that Python 3.11 does not have."""

from __future__ import annotations

import ctypes
import os

from diagnose import seccomp

_LIBC = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNET = 0x40000000


def _check(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


class NoNamespaceError(Exception):
    """The kernel gives this process no network namespace of its own."""


def unshare_network() -> None:
    """Gives this thread, and only it, a network namespace of its own (unshare(2)).

    The namespace ends with the thread and its sockets, so with the process, however that ends. NoNamespaceError
    without CAP_SYS_ADMIN, OSError with any other errno.
    """
    seccomp.require("unshare", "listen", "accept4")  # a namespace of ours is for a server of ours
    try:
        _check(_LIBC.unshare(_CLONE_NEWNET))
    except PermissionError as error:
        raise NoNamespaceError from error


def filesystem_user(uid: int) -> None:
    """The user as whom this thread opens sockets and files (setfsuid(2)): the owner that rules see."""
    seccomp.require("setfsuid")
    _LIBC.setfsuid(uid)


def read_option(descriptor: int, level: int, option: int, request: bytes, size: int, skipped: int = 0) -> bytes:
    """getsockopt(2) for options that read their buffer before they fill it; without its first bytes."""
    buffer = ctypes.create_string_buffer(request, size)
    length = ctypes.c_uint32(size)
    _check(_LIBC.getsockopt(descriptor, level, option, buffer, ctypes.byref(length)))
    return memoryview(buffer)[skipped : length.value].tobytes()


def replace_table(descriptor: int, level: int, option: int, head: bytes, counters: int, entries: bytes) -> None:
    """setsockopt(2) of struct ipt_replace: head, pointer to room for the old table's counters, entries."""
    room = ctypes.create_string_buffer(16 * counters)
    pointer = bytes(ctypes.c_void_p(ctypes.addressof(room)))
    request = head + pointer + entries
    _check(_LIBC.setsockopt(descriptor, level, option, request, len(request)))
