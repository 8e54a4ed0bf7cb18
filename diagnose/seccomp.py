"""Which system calls a seccomp filter forbids, with an error or with the end of the process: tried out in children.

A process cannot read the filter that it is under, and when the filter kills, no handler runs and nothing is printed.
So where a filter is active (netdiag_entry.py looks), a child makes each call once, without effect. A call that ends the
child, or that the filter answers in the kernel's place, is refused with EPERM to this process before it is made: it
costs one fact, not the diagnosis.
"""

from __future__ import annotations

import _thread
import errno
import sys
from collections.abc import Callable

_SOCKET = ("setsockopt", "getsockopt", "getsockname", "getpeername", "recvfrom", "recvmsg", "poll", "sendto")
"""What every socket of a probe needs."""
INTERFACES = (*_SOCKET, "socket 16", "bind")
"""What the C library needs to list the interfaces over netlink, as getaddrinfo(3) does too (getifaddrs(3))."""
_CHILD = ("wait4", "kill", "dup2", "setitimer", "poll")
_NEEDS = {
    "socket.bind": ("bind",),
    "socket.getaddrinfo": INTERFACES,
    "socket.connect": ("connect",),
    "socket.sendmsg": ("sendmsg",),
    "os.fork": _CHILD,
    "subprocess.Popen": (*_CHILD, "pipe2"),
    "os.kill": ("kill",),
    "os.mkdir": ("mkdir", "rmdir"),  # what cannot be removed is not made
    "os.rmdir": ("rmdir",),
}
"""The interpreter's audit events (PEP 578) before these calls."""
_ESSENTIAL = ("getpid", "getuid", "geteuid", "clock_nanosleep", "pselect6", "rt_sigprocmask", "uname", "mremap")
"""Without these no diagnosis is possible."""
BPF = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "loongarch64": 280, "ppc64le": 361, "s390x": 351}
"""Number of bpf(2), for 64-bit programs (asm/unistd.h)."""


class ForbiddenError(PermissionError):
    """netdiag itself refuses a call, because a filter forbids one that goes with it."""

    def __init__(self, call: str) -> None:
        super().__init__(errno.EPERM, f"a seccomp filter forbids {call}(2)")
        self.call = call
        """The forbidden call."""


_forbidden: set[str] = set()
_active = False


def heed() -> str | None:
    """Tries the calls out, and from now on refuses those that a filter forbids. Call it before any thread starts.

    The name of a call without which no diagnosis is possible, where one is forbidden.
    """
    global _active
    from diagnose.syscall_trials import try_out

    _active = True
    try_out(_forbidden)
    if _forbidden:
        sys.addaudithook(_refuse)
    return next((name for name in _ESSENTIAL if name in _forbidden), None)


def require(*calls: str) -> None:
    """Raises ForbiddenError where one of the calls is forbidden."""
    for name in calls:
        if name in _forbidden:
            raise ForbiddenError(name.partition(" ")[0])


def is_about(error: OSError, call: str) -> bool:
    """Whether this very call gave the error, and not one that netdiag needs as well and may not make."""
    return not isinstance(error, ForbiddenError) or error.call == call


def start_thread(work: Callable[[], object]) -> None:
    """Starts a daemon thread (not a threading.Thread, whose start waits); RuntimeError when none can be had."""
    if "threads" in _forbidden:
        raise RuntimeError("a seccomp filter forbids to start a thread")
    _thread.start_new_thread(work, ())


def is_active() -> bool:
    """Whether this process is, or may be, under a filter."""
    return _active


def _refuse(event: str, arguments: tuple[object, ...]) -> None:
    """Stands before the calls that Python itself makes; the probes that go past it ask by `require`."""
    if event == "socket.__new__":
        require("socket", _family(arguments), *_SOCKET)
    elif event in _NEEDS:
        require(*_NEEDS[event])


def _family(arguments: tuple[object, ...]) -> str:
    """The trial that stands for this socket's address family."""
    family = arguments[1] if len(arguments) > 1 else None
    return f"socket {family:d}" if isinstance(family, int) else "socket"
