"""The snapshot of a recording that a step asks for; pure."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from diagnose.model.snapshot import Snapshot
from diagnose.model.target import Target
from diagnose.runbook.path import NotDone, Question


def recorded(question: Question, target: Target, snapshots: Sequence[Snapshot]) -> Snapshot | NotDone:
    """The first of this target, intent and vantage point, judged by the checks that the step names."""
    for one in snapshots:
        if _is_of(one, target) and one.intent is question.intent and one.vantage.origin == question.origin:
            return _scoped(one, question)
    held = ", ".join(dict.fromkeys(map(_name, snapshots)))
    return NotDone(f"{_asked(question)} is not in the recording, which holds {held}")


def _is_of(snapshot: Snapshot, target: Target) -> bool:
    seen = snapshot.target
    if target.service is not None or seen.service is not None:
        mine, theirs = target.service, seen.service
        return mine is not None and theirs is not None and (mine.service, mine.port) == (theirs.service, theirs.port)
    return (seen.host.casefold(), seen.port) == (target.host.casefold(), target.port)


def _scoped(snapshot: Snapshot, question: Question) -> Snapshot:
    if not question.check and not question.skip:
        return snapshot
    return replace(snapshot, scope=replace(snapshot.scope, only=question.check, skip=question.skip))


def _asked(question: Question) -> str:
    return f"{question.shown} ({question.intent.value}{f', from {question.origin}' if question.origin else ''})"


def _name(snapshot: Snapshot) -> str:
    origin = f", from {snapshot.vantage.origin}" if snapshot.vantage.origin else ""
    return f"{snapshot.target.address} ({snapshot.intent.value}{origin})"
