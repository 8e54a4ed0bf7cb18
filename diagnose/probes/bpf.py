"""bpf(2) as far as looking needs it: which programs there are, what they are called, and where they are attached."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys
from collections.abc import Iterator

from diagnose import seccomp
from diagnose.model.firewall import NetfilterProgram

_PROGRAM_BY_ID, _INFO_BY_FD, _LINK_BY_ID, _NEXT_LINK = 13, 15, 30, 31
_UNION_SIZE = 128
_INFO_SIZE, _NAME_AT, _NAME_SIZE = 256, 64, 16
"""struct bpf_prog_info (linux/bpf.h)."""
_LINK_NETFILTER = 10
"""BPF_LINK_TYPE_NETFILTER, since Linux 6.4."""
_LINK = struct.Struct("=III4xIIiI")
"""struct bpf_link_info with its part for netfilter: type, id, program, family, hook, priority, flags."""
_HOOKS = ("prerouting", "input", "forward", "output", "postrouting")
_FAMILIES = {2: "ip", 10: "ip6"}

LIBC = ctypes.CDLL(None, use_errno=True)


def netfilter_programs() -> tuple[NetfilterProgram, ...]:
    """Those of every network namespace, by the links that hold them; OSError EPERM for an ordinary user."""
    return tuple(sorted(_netfilter_programs()))


def _netfilter_programs() -> Iterator[NetfilterProgram]:
    for number in _links():
        link = _told(_LINK_BY_ID, number)
        if not link:
            continue
        kind, _, program, family, hook, priority, _ = _LINK.unpack_from(link)
        if kind == _LINK_NETFILTER and hook < len(_HOOKS):
            yield NetfilterProgram(_FAMILIES.get(family, str(family)), _HOOKS[hook], priority, program, name(program))


def _links() -> Iterator[int]:
    number = 0
    while True:
        try:
            _, answer = call(_NEXT_LINK, struct.pack("=II", number, 0))
        except FileNotFoundError:
            return
        except OSError as error:
            # no bpf(2) here, or none that knows links: then netfilter asks no program
            if error.errno in (errno.ENOSYS, errno.EINVAL):
                return
            raise
        number = struct.unpack_from("=I", answer, 4)[0]
        yield number


def name(number: int) -> str:
    """What its maker called the program; empty where it is gone or has no name."""
    called = info(number)[_NAME_AT : _NAME_AT + _NAME_SIZE]
    return called.partition(b"\0")[0].decode(errors="backslashreplace")


def info(number: int) -> bytes:
    """The program's struct bpf_prog_info; empty where it is gone."""
    return _told(_PROGRAM_BY_ID, number)


def _told(by_id: int, number: int) -> bytes:
    """What the kernel tells of a program or link; empty where it is gone."""
    try:
        descriptor, _ = call(by_id, struct.pack("=III", number, 0, 0))
    except FileNotFoundError:
        return b""
    try:
        told = ctypes.create_string_buffer(_INFO_SIZE)
        call(_INFO_BY_FD, struct.pack("=IIQ", descriptor, _INFO_SIZE, ctypes.addressof(told)))
    finally:
        os.close(descriptor)
    return told.raw


def call(command: int, request: bytes) -> tuple[int, bytes]:
    """What bpf(2) returns, and its union afterwards; OSError with the kernel's errno."""
    seccomp.require("bpf")
    number = seccomp.BPF.get(os.uname().machine) if sys.maxsize > 1 << 32 else None
    if number is None:
        raise OSError(errno.ENOSYS, "the number of bpf(2) is not known on this machine")
    union = ctypes.create_string_buffer(request, _UNION_SIZE)
    result = syscall(number, command, ctypes.byref(union), _UNION_SIZE)
    return result, union.raw


def syscall(number: int, *arguments: object) -> int:
    """syscall(2); OSError with the kernel's errno."""
    result: int = LIBC.syscall(number, *arguments)
    if result < 0:
        failed = ctypes.get_errno()
        raise OSError(failed, os.strerror(failed))
    return result
