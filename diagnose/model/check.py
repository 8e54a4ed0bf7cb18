"""A check: its causes, and one pure function from a snapshot to what it has to say."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from msgspec import Struct

from diagnose.model.fact import Missing
from diagnose.model.finding import Cause, Finding
from diagnose.model.snapshot import Snapshot

Judge = Callable[[Snapshot], Iterable[Finding | Missing]]


class Check(Struct, frozen=True):
    """Yields its findings, and a Missing for each fact that it needed and did not get."""

    name: str
    causes: tuple[Cause, ...]
    judge: Judge
    premises: tuple[str, ...] = ()
    """Facts of a snapshot that only tell it whether it has anything to ask: to know them makes no check clear."""
