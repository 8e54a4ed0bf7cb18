"""Rehearsed remedies, derived again from the facts: what a recording says of a command vouches for none of its own.

A snapshot may be anybody's. Its rehearsals are kept as far as their commands are those that netdiag itself makes of
the walk and of what stopped the probe after each remedy; the words are made here, and never read.
"""

from __future__ import annotations

import re

from msgspec import Struct

from diagnose.analysis.firewall_remedies import candidates, combined, without_undo
from diagnose.analysis.walk import destination_rewrite
from diagnose.model.fact import Known
from diagnose.model.finding import Remedy
from diagnose.model.firewall import End, Obstacle, Rehearsed, Walk
from diagnose.model.network import Endpoint

_OPENS = re.compile(
    r"(?:\[[0-9A-Fa-f:.]{2,45}(?:%[\w.-]{1,15})?\]|\d{1,3}(?:\.\d{1,3}){3}):\d{1,5} from (?:the network|this machine)"
    r"|\d{1,9} more listeners were not tried from (?:the network|this machine)",
    re.ASCII,
)
"""What a remedy may be said to open (probes.shadow.rehearsing)."""


class Derived(Struct, frozen=True):
    """A rehearsal whose remedy follows from the facts."""

    mended: bool
    opens: tuple[str, ...]
    remedy: Remedy
    end: End
    at: Endpoint | None


def obstacle(walk: Walk) -> Obstacle:
    """What the next remedy follows from."""
    return Obstacle(
        address=walk.address,
        port=walk.port,
        outcome=walk.outcome,
        decider=walk.decider,
        verdict=walk.verdict,
        packet=walk.packet,
        hook=walk.hook,
        seen_as=walk.seen_as,
        came=walk.came,
        reader=walk.reader,
        arrives=walk.arrives,
        rewrite=destination_rewrite(walk) if walk.decider is None else None,
    )


def derived(walk: Walk) -> tuple[Derived, ...]:
    """The rehearsals of this walk whose commands follow from it, in their order; the others are left out."""
    tried = walk.rehearsals.value if isinstance(walk.rehearsals, Known) else ()
    found = ((one, _remedy(walk, one)) for one in tried)
    return tuple(Derived(one.mended, one.opens, remedy, one.end, one.at) for one, remedy in found if remedy is not None)


def _remedy(walk: Walk, tried: Rehearsed) -> Remedy | None:
    """The remedy that has these very commands; with its undo where that was executed as well."""
    if not all(_OPENS.fullmatch(one) for one in tried.opens):
        return None
    following: list[Remedy] = []
    for one in tried.obstacles:
        remedy = next(iter(candidates(_walk_to(one))), None)
        if remedy is None:
            return None
        following.append(remedy)
    astray = walk.decider is None or any(one.decider is None for one in tried.obstacles)
    for first in candidates(walk):
        whole = combined((first, *following), astray=astray)
        if whole.commands == tried.commands:
            undone = tried.remedy is not None and tried.remedy.undo == whole.undo
            return whole if undone or not whole.undo else without_undo(whole)
    return None


def _walk_to(one: Obstacle) -> Walk:
    return Walk(
        address=one.address,
        port=one.port,
        outcome=one.outcome,
        steps=() if one.rewrite is None else (one.rewrite,),
        decider=one.decider,
        verdict=one.verdict,
        packet=one.packet,
        hook=one.hook,
        seen_as=one.seen_as,
        came=one.came,
        reader=one.reader,
        arrives=one.arrives,
    )
