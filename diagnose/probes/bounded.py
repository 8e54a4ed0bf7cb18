"""Runs probes side by side, each with its own deadline: one that hangs or fails costs its own fact only."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from time import monotonic
from typing import Generic, TypeVar

from diagnose import seccomp
from diagnose.model.fact import Fact, Reason, Unknown

T = TypeVar("T")

NO_THREAD = Unknown(
    Reason.FAILED,
    "no thread could be started for it: a limit of this user is too small (RLIMIT_NPROC, RLIMIT_AS), or a seccomp "
    "filter forbids it",
    "raise it (ulimit -u, ulimit -v)",
)
"""pthread_create(3): EAGAIN."""


class Task:
    """Work under way in a thread, which cannot hold up the interpreter's exit; RuntimeError when none can be had.

    Not a threading.Thread: its start waits, for ever where memory ends, until the thread has begun.
    """

    def __init__(self, work: Callable[[], object]) -> None:
        self._work = work
        self._done = threading.Event()
        seccomp.start_thread(self._run)

    def _run(self) -> None:
        try:
            self._work()
        finally:
            self._done.set()

    def wait(self, seconds: float) -> bool:
        """Whether it is done within so many seconds."""
        return self._done.wait(max(0.0, seconds))


def started(works: Iterable[Callable[[], object]]) -> list[Task]:
    """Starts as many of them as this process may have threads; gives those that are under way."""
    tasks: list[Task] = []
    for work in works:
        try:
            tasks.append(Task(work))
        except RuntimeError:
            break
    return tasks


class Asked(Generic[T]):
    """A probe under way in a daemon thread, which cannot hold up the interpreter's exit."""

    def __init__(self, name: str, probe: Callable[[], Fact[T]], seconds: float) -> None:
        self._name = name
        self._probe = probe
        self._answer: Fact[T] | None = None
        self._ends = monotonic() + seconds
        self._seconds = seconds
        self._tasks = started([self._run])
        if not self._tasks:  # not asked in this thread instead: it might hang
            self._answer = NO_THREAD

    def _run(self) -> None:
        try:
            self._answer = self._probe()
        except Exception as error:  # noqa: BLE001 - whatever breaks in a probe becomes "could not look"
            self._answer = Unknown(Reason.FAILED, f"{type(error).__name__}: {error}")

    @property
    def done(self) -> bool:
        """Whether the answer is there."""
        return self._answer is not None

    def fact(self) -> Fact[T]:
        """The answer, waited for until the deadline."""
        for task in self._tasks:
            task.wait(self._ends - monotonic())
        if self._answer is None:
            return Unknown(Reason.DEADLINE, f"{self._name} gave no answer within {self._seconds:g} s")
        return self._answer
