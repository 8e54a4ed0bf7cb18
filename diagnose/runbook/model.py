"""A runbook that has passed `check`: steps, their branches, and where each leads."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Literal

from msgspec import Struct

SCHEMA: Literal["netdiag.runbook/1"] = "netdiag.runbook/1"
SUFFIX = ".runbook.yaml"


class End(StrEnum):
    """How a runbook ends; no step has such an id."""

    WORKS = "works"
    FIX = "fix"
    ESCALATE = "escalate"

    @property
    def exit_code(self) -> int:
        """0 it works, 1 there is a fix, 3 another team goes on."""
        return {End.WORKS: 0, End.FIX: 1, End.ESCALATE: 3}[self]


ENDS = tuple(end.value for end in End)


class Slot(Struct, frozen=True):
    """A placeholder, by the name between its braces."""

    name: str


class Template(Struct, frozen=True):
    """A text of the author with placeholders."""

    parts: tuple[str | Slot, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The placeholders in their order, each once."""
        return tuple(dict.fromkeys(part.name for part in self.parts if isinstance(part, Slot)))

    def __str__(self) -> str:
        """As the author wrote it."""
        return "".join(f"{{{part.name}}}" if isinstance(part, Slot) else part for part in self.parts)


class Input(Struct, frozen=True):
    """What the person who runs it has to say."""

    ask: str
    default: str | None = None


class When(Struct, frozen=True):
    """A condition on one report: keys are ANDed, the values of a key ORed; an empty key asks nothing."""

    code: tuple[str, ...] = ()
    """Globs of the root cause's code."""
    finding: tuple[str, ...] = ()
    """Globs of any finding's code."""
    verdict: tuple[str, ...] = ()
    confidence: tuple[str, ...] = ()
    """Of the root cause; with `finding` and without `code`, of that finding."""
    check: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Names of checks with the outcomes that fit."""
    not_checked: tuple[str, ...] = ()
    """Globs of facts."""


class Branch(Struct, frozen=True):
    """Where a diagnosis leads; without `when` it fits every report."""

    when: When | None
    then: str
    say: Template | None = None


class Choice(Struct, frozen=True):
    """One answer to a question."""

    name: str
    then: str
    say: Template | None = None


class With(Struct, frozen=True):
    """The options of `netdiag run`."""

    bind: bool = False
    origin: Template | None = None
    """What stands behind `from`."""
    check: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    timeout: float | None = None
    trace: bool = False


class RunStep(Struct, frozen=True):
    """A diagnosis."""

    id: str
    target: Template
    options: With
    branches: tuple[Branch, ...]


class AskStep(Struct, frozen=True):
    """A question with a fixed set of answers."""

    id: str
    ask: Template
    choices: tuple[Choice, ...]


Step = RunStep | AskStep


class Escalate(Struct, frozen=True):
    """Which team takes over, and what it needs."""

    to: str | None = None
    say: Template | None = None
    attach: tuple[str, ...] = ()


class Runbook(Struct, frozen=True):
    """The first step is where it starts."""

    name: str
    title: str
    when: str
    """Markdown: how a person recognises the case."""
    inputs: Mapping[str, Input]
    steps: tuple[Step, ...]
    escalate: Escalate = Escalate()

    def step(self, name: str) -> Step | None:
        """The step of this id."""
        return next((step for step in self.steps if step.id == name), None)


def leads_to(step: Step) -> tuple[str, ...]:
    """The steps and ends behind a step, in order."""
    ways = step.branches if isinstance(step, RunStep) else step.choices
    return tuple(way.then for way in ways)
