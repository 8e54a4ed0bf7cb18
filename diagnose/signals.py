"""How a signal ends the process: a thread hears of it, releases what is temporary, and exits.

No other thread is interrupted, so nothing is raised in the middle of other work; and a thread that hangs in the kernel
delays nothing (exit_group(2)).
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from diagnose import seccomp, temporary
from diagnose.temporary import ENDING

_SAID = {"SIGINT": "interrupted", "SIGXCPU": "the limit of CPU time is used up (ulimit -t, RLIMIT_CPU)"}


def watch() -> None:
    """From now on each of these signals ends the process cleanly; those that are ignored stay ignored (nohup).

    Call it in the main thread, before any other thread starts: they inherit that these signals are blocked.
    """
    numbers = [number for number in ENDING if signal.getsignal(number) is not signal.SIG_IGN]
    heard = hasattr(signal, "pthread_sigmask") and _start_listener(numbers)
    for number in numbers:
        signal.signal(number, _heard_already if heard else _end_here)


def _start_listener(numbers: list[signal.Signals]) -> bool:
    """Whether there is a thread for it: this user may have no more (RLIMIT_NPROC)."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        seccomp.start_thread(lambda: _listen(reading, numbers))
    except RuntimeError:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)
        os.close(reading)
        os.close(writing)
        return False
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)  # the C handler writes the signal's number there at once
    return True


@contextmanager
def unblocked() -> Iterator[None]:
    """For as long as a program is started from this thread: it inherits which signals are blocked (execve(2))."""
    before = signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _listen(reading: int, numbers: list[signal.Signals]) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})  # a line on the terminal must not stop us (stty tostop)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)
    _end(os.read(reading, 1)[0])


def _heard_already(_number: int, _frame: FrameType | None) -> None:
    """There must be a handler for the number to be written."""


def _end_here(number: int, _frame: FrameType | None) -> None:
    _end(number)


def _end(number: int) -> NoReturn:
    errors = temporary.release_all()
    _say(_SAID.get(signal.Signals(number).name, ""))
    for error in errors:
        _say(f"not released: {error}")
    os._exit(128 + number)


def _say(text: str) -> None:
    """Past the buffers of Python, which another thread may hold locked; nothing where it would have to wait."""
    try:
        if text and (os.name == "nt" or select.select((), (2,), (), 0)[1]):
            os.write(2, f"netdiag: {text}\n".encode())
    except OSError:
        pass  # standard error is closed, full or gone: there is no other place to say it
