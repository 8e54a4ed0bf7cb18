"""One harmless call of each kind that a diagnosis makes, in a child process: does it come back? (see seccomp.py)"""

from __future__ import annotations

import _thread
import errno
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, NoReturn

from diagnose import seccomp

if TYPE_CHECKING:
    import ctypes

_Trial = Callable[[], object]

_PIDFD_GETFD, _OPENAT2, _LSM_LIST_MODULES = 438, 437, 461
_NEW_NETWORK, _NO_FLAG = 0x40000000, 1
"""CLONE_NEWNET, and a bit that is no flag of unshare(2): the filter sees the call, and the kernel refuses it."""
_NO_COMMAND = 0xFFFF
"""No command of bpf(2)."""

_THREAD_SECONDS = 0.05
_FAMILIES = tuple(
    getattr(socket, name)
    for name in ("AF_INET", "AF_INET6", "AF_NETLINK", "AF_PACKET", "AF_UNIX")
    if hasattr(socket, name)
)
_CAME, _DENIED = b"+", b"-"
_A_FILTERS_ANSWERS = (errno.EPERM, errno.EACCES, errno.ENOSYS)
_NOWHERE = ("127.0.0.1", 9)
_ON_SOCKETS: dict[str, Callable[[socket.socket], object]] = {
    "setsockopt": lambda sock: sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1),
    "getsockopt": lambda sock: sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR),
    "getsockname": lambda sock: sock.getsockname(),
    "getpeername": lambda sock: sock.getpeername(),
    "bind": lambda sock: sock.bind(_NOWHERE),
    "connect": lambda sock: sock.connect(_NOWHERE),
    "listen": lambda sock: sock.listen(1),
    "accept4": lambda sock: sock.accept(),
    "sendto": lambda sock: sock.send(b""),
    "recvfrom": lambda sock: sock.recv(1),
    "sendmsg": lambda sock: sock.sendmsg((b"",)),
    "recvmsg": lambda sock: sock.recvmsg(1),
}


def try_out(forbidden: set[str]) -> None:
    """Adds the names of the calls that a filter forbids, until no more can be forked."""
    names = [name for name, _ in _trials(forbidden)]
    at = 0
    while at < len(names):
        try:
            answered = _answered(at, forbidden)
        except OSError:
            break
        forbidden.update(name for name, came_back in zip(names[at:], answered, strict=False) if not came_back)
        at += len(answered)
        forbidden.update(names[at : at + 1])  # in which the child has ended
        at += 1


def _answered(first: int, forbidden: set[str]) -> list[bool]:
    """Of the calls from `first` on that a child survived, whether each came to the kernel; OSError: no fork.

    What the child wrote decides, and not wait(2), which the filter may forbid as well.
    """
    reading, writing = os.pipe()
    try:
        pid = os.fork()
        if pid == 0:
            _be_the_child(first, writing, forbidden)
    finally:
        os.close(writing)
    with open(reading, "rb") as answers:
        told = answers.read()
    if told and "wait4" not in forbidden:  # the child itself has waited, before all else
        os.waitpid(pid, 0)
    return [line == _CAME for line in told.split()]


def _be_the_child(first: int, writing: int, forbidden: set[str]) -> NoReturn:
    """Writes a line for each call that it has survived."""
    try:
        for name, trial in [*_trials(forbidden)][first:]:
            os.write(writing, _CAME + b"\n" if _comes_to_the_kernel(name, trial) else _DENIED + b"\n")
    finally:
        os._exit(0)


def _comes_to_the_kernel(name: str, trial: _Trial) -> bool:
    """The kernel itself answers none of these calls so; but for a raw socket, which needs CAP_NET_RAW."""
    try:
        trial()
    except OSError as error:
        return name.startswith("socket ") or error.errno not in _A_FILTERS_ANSWERS
    return True


def _trials(forbidden: set[str]) -> Iterator[tuple[str, _Trial]]:
    """The calls that a diagnosis makes and the start of the interpreter does not, in a form without effect."""
    yield "wait4", lambda: os.waitpid(-1, os.WNOHANG)
    yield "kill", lambda: os.kill(os.getpid(), 0)
    yield "dup2", lambda: os.dup2(-1, 0)
    yield "setitimer", lambda: signal.setitimer(signal.ITIMER_REAL, 0)
    yield "getpid", os.getpid
    yield "getuid", os.getuid
    yield "geteuid", os.geteuid
    yield "uname", os.uname
    yield "clock_nanosleep", lambda: time.sleep(1e-9)
    yield "rt_sigprocmask", lambda: signal.pthread_sigmask(signal.SIG_BLOCK, ())
    yield "pselect6", lambda: select.select((), (), (), 0)
    yield "poll", lambda: select.poll().poll(0)
    yield "mremap", lambda: bytearray(1 << 20).extend(bytes(1 << 21))
    yield "mkdir", lambda: os.mkdir("")
    yield "rmdir", lambda: os.rmdir("")
    yield "readlinkat", lambda: os.readlink("", dir_fd=-1)
    yield "pidfd_open", lambda: os.pidfd_open(-1)
    for family in _FAMILIES:
        yield f"socket {family:d}", partial(_made, family)
    for name, call in _ON_SOCKETS.items():
        yield name, partial(_on_a_closed_one, forbidden, call)
    yield "unshare", lambda: _checked(_libc().unshare(_NEW_NETWORK | _NO_FLAG))
    yield "setns", lambda: _checked(_libc().setns(-1, _NEW_NETWORK))
    yield "bpf", lambda: _checked(_libc().syscall(seccomp.BPF[os.uname().machine], _NO_COMMAND, None, 0))
    yield "pidfd_getfd", lambda: _checked(_libc().syscall(_PIDFD_GETFD, -1, -1, 0))
    yield "setfsuid", lambda: _libc().setfsuid(-1)
    yield "fstatfs", lambda: _checked(_libc().fstatfs(-1, None))
    yield "openat2", lambda: _checked(_libc().syscall(_OPENAT2, -1, None, None, 0))
    yield "lsm_list_modules", lambda: _checked(_libc().syscall(_LSM_LIST_MODULES, None, None, 1))
    yield "threads", _begin_and_end_a_thread  # the last: it may come to its end a moment later


def _made(family: int) -> None:
    """Closed at once: one that is forgotten is described in a warning, which asks for both of its ends."""
    socket.socket(family, socket.SOCK_RAW).close()


def _on_a_closed_one(forbidden: set[str], call: Callable[[socket.socket], object]) -> None:
    """On a socket whose descriptor was closed behind its back, every call ends with EBADF: the child is alone."""
    for family in _FAMILIES:
        if f"socket {family:d}" not in forbidden:
            try:
                sock = socket.socket(family, socket.SOCK_RAW if family == socket.AF_NETLINK else socket.SOCK_DGRAM)
            except OSError:
                continue
            os.close(sock.fileno())
            try:
                call(sock)
            finally:
                sock.detach()
            return


def _libc() -> ctypes.CDLL:
    import ctypes

    return ctypes.CDLL(None, use_errno=True)


def _checked(result: int) -> None:
    import ctypes

    if result < 0:
        raise OSError(ctypes.get_errno(), "")


def _begin_and_end_a_thread() -> None:
    """A thread ends by calls of its own (exit(2), madvise(2))."""
    _thread.start_new_thread(lambda: None, ())
    until = time.monotonic() + _THREAD_SECONDS
    while len(os.listdir("/proc/self/task")) > 1 and time.monotonic() < until:
        pass
