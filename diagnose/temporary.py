"""Temporary resources: released on every way out of the process, by a signal too."""

from __future__ import annotations

import atexit
import errno
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")

ENDING = tuple(
    number
    for name in ("SIGHUP", "SIGINT", "SIGQUIT", "SIGALRM", "SIGTERM", "SIGUSR1", "SIGUSR2", "SIGXCPU")
    if (number := getattr(signal, name, None)) is not None
)
"""The signals whose default action ends a process that can still act (signal(7)); some are absent on Windows."""
_MAKING = 0.25
"""Seconds that the end of the process waits for a resource that is being made."""

_lock = threading.RLock()
_held: list[Held] = []
_owner = 0
_ending = False


class Held:
    """A resource that exists; `let_go` says that it no longer does."""

    def __init__(self, release: Callable[[], object]) -> None:
        self.release = release

    def let_go(self) -> None:
        """Harmless when repeated."""
        with _lock:
            if self in _held:
                _held.remove(self)


def make(maker: Callable[[], T], release: Callable[[T], object]) -> tuple[T, Held]:
    """Makes a resource and holds it, in one step that the end of the process cannot come between.

    `release` may be called in another thread. OSError (ECANCELED): the process is ending.
    """
    with _lock, _undisturbed():
        if _ending:
            raise OSError(errno.ECANCELED, "the process is ending")
        _register()
        made = maker()
        held = Held(lambda: release(made))
        _held.append(held)
        return made, held


def release_all() -> tuple[OSError, ...]:
    """Releases what is held, the newest first, and refuses to make more; the errors of those that stay."""
    global _ending
    if _owner != os.getpid():  # nothing was ever held, or this is a fork
        _ending = True
        return ()
    errors = []
    locked = _lock.acquire(timeout=_MAKING)
    with _undisturbed():
        _ending = True
        while _held:
            try:
                _held.pop().release()
            except OSError as error:
                errors.append(error)
    if locked:
        _lock.release()
    return tuple(errors)


def _register() -> None:
    """For whoever uses the probes without the command: the interpreter's own end releases as well."""
    global _owner
    if _owner != os.getpid():
        _owner = os.getpid()
        _held.clear()
        atexit.register(release_all)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """No handler of this thread runs meanwhile: where no thread waits for signals, handlers release by themselves."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
