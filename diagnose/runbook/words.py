"""Conditions and options of a runbook in words, for people."""

from __future__ import annotations

from collections.abc import Sequence

from diagnose.runbook.model import AskStep, Branch, Choice, End, When, With


def condition(branch: Branch | Choice) -> str:
    """When this way is taken."""
    if isinstance(branch, Choice):
        return f"the answer is {branch.name}"
    return "otherwise" if branch.when is None else " and ".join(_conditions(branch.when))


def _conditions(when: When) -> list[str]:
    found: list[str] = []
    about_finding = bool(when.finding) and not when.code
    if when.verdict:
        found.append(f"the verdict is {either(when.verdict)}")
    sure = f" ({either(when.confidence)})" if when.confidence else ""
    if when.code or (sure and not about_finding):
        found.append(f"the root cause is {either(when.code) + sure if when.code else either(when.confidence)}")
    if when.finding:
        found.append(f"{either(when.finding)} is found{sure if about_finding else ''}")
    found += [f"the check {name} is {either(outcomes)}" for name, outcomes in when.check]
    if when.not_checked:
        found.append(f"{either(when.not_checked)} was not checked")
    return found


def either(words: Sequence[str]) -> str:
    """a, b or c."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def options(given: With) -> tuple[str, ...]:
    """The options of a step, as `netdiag run` has them."""
    return (
        *(("--bind",) if given.bind else ()),
        *((f"--from {given.origin}",) if given.origin is not None else ()),
        *(f"--check {name}" for name in given.check),
        *(f"--skip {name}" for name in given.skip),
        *((f"--timeout {given.timeout:g}",) if given.timeout is not None else ()),
        *(("--trace",) if given.trace else ()),
    )


def destination(then: str, to: str | None) -> str:
    """Where a branch leads."""
    match then:
        case End.WORKS:
            return "it works"
        case End.FIX:
            return "fix the cause that was found"
        case End.ESCALATE:
            return f"escalate to {to}" if to else "escalate"
        case _:
            return f"go on with step {then}"


def answers(step: AskStep) -> str:
    """The choices of a question."""
    return either(tuple(choice.name for choice in step.choices))
