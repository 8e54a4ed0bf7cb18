"""filtered.py ACTION NUMBER -- COMMAND: runs a command under a seccomp filter that answers this system call so.

ACTION is `kill` (SECCOMP_RET_KILL_PROCESS, what systemd's SystemCallFilter= does) or the name of an errno.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys

_LOAD_NUMBER, _EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_SET_SECCOMP, _FILTER, _NO_NEW_PRIVILEGES = 22, 2, 38


def install(action: str, number: int) -> None:
    """One filter on this process and those that it starts (seccomp(2)); OSError."""
    answer = _KILL if action == "kill" else _ERRNO | getattr(errno, action)
    code = b"".join(
        struct.pack("=HBBI", *instruction)
        for instruction in (
            (_LOAD_NUMBER, 0, 0, 0),
            (_EQUAL, 0, 1, number),
            (_RETURN, 0, 0, answer),
            (_RETURN, 0, 0, _ALLOW),
        )
    )
    instructions = ctypes.create_string_buffer(code)
    program = struct.pack("=HxxxxxxQ", len(code) // 8, ctypes.addressof(instructions))
    libc = ctypes.CDLL(None, use_errno=True)
    if os.geteuid() != 0:
        libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    if libc.prctl(_SET_SECCOMP, _FILTER, program, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "no filter could be installed")


if __name__ == "__main__":
    install(sys.argv[1], int(sys.argv[2]))
    os.execvp(sys.argv[4], sys.argv[4:])
