"""What may hang beyond any interrupt is done in a process of its own, which is killed."""

from __future__ import annotations

import os
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

from diagnose import temporary

_POLLIN = 0x001
_LAST_WAIT = 0.2
"""Seconds for a killed process to go: one that hangs in the kernel (a file in FUSE) goes when it can, unwaited for."""

Work = Callable[[int], object]
"""Writes to the descriptor that it is given."""


class Child:
    """The process at work; `status` is how it ended, once it has (wait(2))."""

    def __init__(self, pid: int, reading: int) -> None:
        self.pid = pid
        self.reading = reading
        self.status = 0

    def chunks(self, deadline: float) -> Iterator[bytes]:
        """What it writes, until it ends or the monotonic clock reads `deadline`."""
        from select import poll  # absent on Windows, where nothing forks

        ready = poll()
        ready.register(self.reading, _POLLIN)
        while True:
            left = deadline - time.monotonic()
            if left <= 0 or not ready.poll(left * 1000 + 1):
                return
            data = os.read(self.reading, 1 << 16)
            if not data:
                return
            yield data

    def lines(self, deadline: float) -> Iterator[bytes]:
        """The same by whole lines, without their ends."""
        rest = b""
        for data in self.chunks(deadline):
            *lines, rest = (rest + data).split(b"\n")
            yield from lines


@contextmanager
def apart(work: Work, deadline: float) -> Iterator[Child]:
    """Forks, for as long as the block lasts. OSError when it cannot be forked.

    Call it before any thread starts but the one that waits for signals, which holds no lock.
    """
    reading, writing = os.pipe()

    def fork() -> int:
        # signals are blocked here: none may reach the child while it still has our handlers
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of that thread (Python 3.12)
            pid = os.fork()
        if pid == 0:
            _be_the_child(work, deadline, writing)
        return pid

    try:
        pid, held = temporary.make(fork, _kill)
    except OSError:
        os.close(reading)
        os.close(writing)
        raise
    child = Child(pid, reading)
    try:
        os.close(writing)
        yield child
    finally:
        os.close(reading)
        _kill(pid)
        held.let_go()  # before its number may become another process's
        child.status = _reaped(pid)


def _kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def write(descriptor: int, data: bytes) -> None:
    """All of it."""
    while data:
        data = data[os.write(descriptor, data) :]


def _be_the_child(work: Work, deadline: float, writing: int) -> NoReturn:
    """Works, and exits without touching the parent's buffers."""
    try:
        _forget_handlers()
        _let_go_of_our_output()
        # SIGALRM's default action ends us even when the parent was killed without a chance to do it
        signal.setitimer(signal.ITIMER_REAL, max(deadline - time.monotonic(), 0.001))
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        work(writing)
    finally:
        os._exit(0)


def _let_go_of_our_output() -> None:
    """So that whoever reads what we print hears of its end, though a child hangs in the kernel beyond ours."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)


def _reaped(pid: int) -> int:
    """How it ended; SIGKILL as well while the kernel holds it."""
    ends = time.monotonic() + _LAST_WAIT
    pause = 0.0002
    while (found := os.waitpid(pid, os.WNOHANG)) == (0, 0):
        if time.monotonic() > ends:
            return signal.SIGKILL
        time.sleep(pause)
        pause = min(pause * 2, 0.01)
    return found[1]


def _forget_handlers() -> None:
    """What is ignored stays ignored, as after an exec (nohup)."""
    signal.set_wakeup_fd(-1)
    for number in temporary.ENDING:
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
