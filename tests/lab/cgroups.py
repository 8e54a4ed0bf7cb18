"""Real cgroups with real programs: what systemd does for IPAddressDeny=, without systemd."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.lab.machine import wait_for

_BPF = {"x86_64": 321, "aarch64": 280}[os.uname().machine]
_PROG_LOAD, _PROG_ATTACH, _PROG_DETACH = 5, 8, 9
_ALLOW_MULTI = 2
_HOOKS = {
    "ingress": (8, 0),
    "egress": (8, 1),
    "sock_create": (9, 2),
    "bind4": (18, 8),
    "connect4": (18, 10),
    "connect6": (18, 11),
}
"""Program type and attach type (linux/bpf.h)."""
_TOLD_AT_LOAD = (9, 18)
"""Types of program that must say at once where they will be attached."""
_UNION = 128
NAME = b"lab_filter"

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass
class Cgroup:
    """A directory of the cgroup2 file system of its own."""

    path: Path
    held: list[int]

    def enter(self, pid: int) -> None:
        """Move a process in; sockets that it has already stay where they were made."""
        (self.path / "cgroup.procs").write_text(str(pid))

    @contextmanager
    def around(self) -> Iterator[None]:
        """This process, and with it everything that it starts meanwhile, is in here."""
        self.enter(os.getpid())
        try:
            yield
        finally:
            self.leave(os.getpid())

    def leave(self, pid: int) -> None:
        """Move a process to the cgroup above."""
        (self.path.parent / "cgroup.procs").write_text(str(pid))

    def filter(self, hook: str, *, passes: bool = False) -> int:
        """Attach a program of two instructions, which says yes or no to everything."""
        program = _load(hook, passes)
        self.held.append(program)
        self._attachment(_PROG_ATTACH, program, hook, _ALLOW_MULTI)
        return program

    def lift(self, hook: str, program: int) -> None:
        """Take it off again."""
        self._attachment(_PROG_DETACH, program, hook)

    def _attachment(self, command: int, program: int, hook: str, flags: int = 0) -> None:
        directory = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            _bpf(command, struct.pack("=IIII", directory, program, _HOOKS[hook][1], flags))
        finally:
            os.close(directory)


def unified() -> Path | None:
    """Where the cgroup2 file system is mounted."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, point, kind, *_ = line.split(" ")
        if kind == "cgroup2":
            return Path(point)
    return None


@contextmanager
def cgroup(name: str) -> Iterator[Cgroup]:
    """A new cgroup; afterwards its processes are in the one above, and it is gone."""
    top = unified()
    assert top is not None, "the cgroup2 file system is not mounted"
    path = top / f"netdiag-lab-{os.getpid()}-{name}"
    path.mkdir()
    made = Cgroup(path, [])
    try:
        yield made
    finally:
        for pid in (path / "cgroup.procs").read_text().split():
            made.leave(int(pid))
        for program in made.held:
            os.close(program)
        wait_for(lambda: _removed(path), f"{path} to be empty")


def _removed(path: Path) -> bool:
    try:
        path.rmdir()
    except OSError:
        return False
    return True


def _load(hook: str, passes: bool) -> int:
    kind, attach = _HOOKS[hook]
    code = struct.pack("=BBhi", 0xB7, 0, 0, int(passes)) + struct.pack("=BBhi", 0x95, 0, 0, 0)  # r0 = ...; exit
    instructions, licence = ctypes.create_string_buffer(code), ctypes.create_string_buffer(b"GPL")
    request = struct.pack(
        "=IIQQIIQII16sII",
        kind,
        len(code) // 8,
        ctypes.addressof(instructions),
        ctypes.addressof(licence),
        0,
        0,
        0,
        0,
        0,
        NAME,
        0,
        attach if kind in _TOLD_AT_LOAD else 0,
    )
    return _bpf(_PROG_LOAD, request)


def _bpf(command: int, request: bytes) -> int:
    result: int = _libc.syscall(_BPF, command, ctypes.create_string_buffer(request, _UNION), _UNION)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
