"""A fact is known, or carries the reason why it is not: "could not look" is a value."""

from __future__ import annotations

from enum import StrEnum
from typing import Generic, TypeVar

from msgspec import Struct

T = TypeVar("T")


class Reason(StrEnum):
    """Why a fact is not known."""

    NEEDS_ROOT = "needs root"
    TOOL_MISSING = "tool missing"
    NOT_LINUX = "not Linux"
    KERNEL_TOO_OLD = "kernel too old to tell"
    NOT_MOUNTED = "not mounted"
    NOT_NEEDED = "not needed"
    NOT_VISIBLE = "not visible from here"
    UNPARSABLE = "unparsable"
    DEADLINE = "deadline"
    PASSIVE = "passive"
    FAILED = "failed"


class Known(Struct, Generic[T], frozen=True, tag="known", tag_field="fact"):
    """What the machine said."""

    value: T


class Unknown(Struct, frozen=True, tag="unknown", tag_field="fact", omit_defaults=True):
    """Nobody could look: never to be read as "nothing there"."""

    reason: Reason
    detail: str = ""
    lift: str | None = None
    """What would make it known, as a person would type or do it."""

    def __str__(self) -> str:
        return f"{self.reason.value}: {self.detail}" if self.detail else self.reason.value


Fact = Known[T] | Unknown

NOT_NEEDED = Unknown(Reason.NOT_NEEDED)
NOT_LINUX = Unknown(Reason.NOT_LINUX)
PASSIVE = Unknown(Reason.PASSIVE, "--passive looks only", "run again without --passive")


class Missing(Struct, frozen=True):
    """A fact that a check asked for by name and did not get."""

    fact: str
    unknown: Unknown
