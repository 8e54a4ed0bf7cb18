"""Runs probes side by side, each with its own deadline: one that hangs or fails costs its own fact only."""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import monotonic
from typing import Generic, TypeVar

from diagnose.model.fact import Fact, Reason, Unknown

T = TypeVar("T")


class Asked(Generic[T]):
    """A probe under way in a daemon thread, which cannot hold up the interpreter's exit."""

    def __init__(self, name: str, probe: Callable[[], Fact[T]], seconds: float) -> None:
        self._name = name
        self._probe = probe
        self._answer: Fact[T] | None = None
        self._ends = monotonic() + seconds
        self._seconds = seconds
        self._thread = threading.Thread(target=self._run, name=f"probe {name}", daemon=True)
        self._thread.start()

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
        self._thread.join(max(0.0, self._ends - monotonic()))
        if self._answer is None:
            return Unknown(Reason.DEADLINE, f"{self._name} gave no answer within {self._seconds:g} s")
        return self._answer
