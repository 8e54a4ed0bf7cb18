"""A fault of the list: how it is made, what netdiag must say of it, and what its first remedy must do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from tests.vm.kernels import NAMES
from tests.vm.place import Here, Namespace

Place = Namespace | Here


class Remedy(StrEnum):
    """What must come of the first remedy of the root cause."""

    FIXES = "fixes"
    """Its commands, executed as printed, and the fault is gone."""
    LEADS = "leads"
    """It runs netdiag on another target, which works."""
    PERSON = "person"
    """A person acts: the fault says how, and is gone."""
    AGAIN = "again"
    """netdiag is to be run in another way, as root or outside of its sandbox: nothing is executed."""
    NONE = "none"
    """Nothing is wrong, or no cause can be named."""


@dataclass(frozen=True)
class Expected:
    """What one user must be told."""

    verdict: str
    code: str | None
    confidence: str | None
    remedy: Remedy

    def __str__(self) -> str:
        return f"{self.verdict}: {self.code} ({self.confidence})" if self.code else self.verdict


Answers = tuple[Expected, ...]
"""Every one of them is right; the first is the one to hope for."""


@dataclass(frozen=True)
class Fault:
    """Its name is a sentence; its set-up leaves a server there that would answer if the fault were not."""

    name: str
    make: Callable[[Place], object]
    root: Answers
    user: Answers
    target: str = "127.0.0.1:{port}"
    arguments: tuple[str, ...] = ()
    rooted: tuple[str, ...] = ()
    """Options that an ordinary user is refused, given to root only."""
    by_person: Callable[[Place], object] | None = None
    """What a person does where the remedy is prose or an edit."""
    confined: tuple[str, ...] = ()
    """Properties of a transient unit that netdiag itself is run in, where that is the fault."""
    apart: bool = False
    """Whether being asked changes it, so that each user needs a place of their own."""
    afterwards: Callable[[Place], object] | None = None
    """Asserts what must be so besides, once the remedy was executed."""
    on: Mapping[str, tuple[Answers, Answers]] = field(default_factory=dict)
    """Kernels on which root and the user are told something else."""
    kernels: tuple[str, ...] = NAMES
    """Where it can be made."""
    machine: bool = False
    """Made on the guest itself, as systemd and engines are in no namespace of a test's own."""
    silent: bool = False
    """A rule drops without a word: root must be told which one, proven, on every kernel that can report it."""
    keep: bool = False
    """Recorded for fixtures/machines."""
    seconds: int = 900
    """A hang is given up after so many; a guest on a busy machine needs minutes for what it does in seconds alone."""

    def expected(self, kernel: str) -> tuple[Answers, Answers]:
        """What root and the user must be told there."""
        return self.on.get(kernel, (self.root, self.user))


def _answer(verdict: str, code: str, confidence: str, remedy: Remedy) -> Answers:
    return (Expected(verdict, code, confidence, remedy),)


def proven(code: str, remedy: Remedy = Remedy.FIXES, verdict: str = "unreachable") -> Answers:
    """The kernel or the peer said so."""
    return _answer(verdict, code, "proven", remedy)


def likely(code: str, remedy: Remedy = Remedy.FIXES, verdict: str = "unreachable") -> Answers:
    """Everything else is excluded."""
    return _answer(verdict, code, "likely", remedy)


def no_cause(verdict: str = "unreachable") -> Answers:
    """It does not work, and no cause can be named."""
    return (Expected(verdict, None, None, Remedy.NONE),)


def works(verdict: str = "reachable") -> Answers:
    """Nothing stands in the way."""
    return (Expected(verdict, None, None, Remedy.NONE),)
