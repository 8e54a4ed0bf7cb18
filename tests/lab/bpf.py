"""BPF programs that netfilter asks, attached by raw bpf(2) in the network namespace of whoever runs this.

As a program: bpf.py FAMILY HOOK VERDICT attaches one and holds it; it says "ready" and then sleeps.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
import time

_BPF = {"x86_64": 321}.get(os.uname().machine, 280)
_PROG_LOAD, _LINK_CREATE = 5, 28
_TYPE_NETFILTER, _ATTACH_NETFILTER = 32, 45
_FAMILIES = {"ip": 2, "ip6": 10}
_HOOKS = {"prerouting": 0, "input": 1, "output": 3}
_libc = ctypes.CDLL(None, use_errno=True)


def attach(family: str, hook: str, verdict: int) -> int:
    """A program that says drop (0) or accept (1) to every packet; its link, which ends when it is closed."""
    code = struct.pack("=BBhi", 0xB7, 0, 0, verdict) + struct.pack("=BBhi", 0x95, 0, 0, 0)  # r0 = verdict; exit
    instructions, licence = ctypes.create_string_buffer(code), ctypes.create_string_buffer(b"GPL")
    places = ctypes.addressof(instructions), ctypes.addressof(licence)
    head = struct.pack("=IIQQIIQII16sII", _TYPE_NETFILTER, 2, *places, 0, 0, 0, 0, 0, b"lab_netfilter", 0, 45)
    program = _bpf(_PROG_LOAD, head)
    where = struct.pack("=IIiI", _FAMILIES[family], _HOOKS[hook], -5, 0)
    return _bpf(_LINK_CREATE, struct.pack("=IIII", program, 0, _ATTACH_NETFILTER, 0) + where)


def _bpf(command: int, request: bytes) -> int:
    union = ctypes.create_string_buffer(request, 152)
    result: int = _libc.syscall(_BPF, command, union, 152)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


if __name__ == "__main__":
    attach(sys.argv[1], sys.argv[2], int(sys.argv[3]))
    print("ready", flush=True)
    time.sleep(3600)
