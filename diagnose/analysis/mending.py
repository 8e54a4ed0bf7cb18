"""Remedies for the rule that stopped a walk, in the order in which a person should try them."""

from __future__ import annotations

from msgspec.structs import replace

from diagnose.analysis.firewall_remedies import candidates, unspeakable
from diagnose.analysis.owner_places import owner_effect
from diagnose.analysis.owner_remedies import FAIL2BAN_CLIENT, owner_remedies, unban
from diagnose.analysis.rehearsal import Derived, derived
from diagnose.analysis.walk import queue_rule
from diagnose.model.fact import Known, Reason, Unknown
from diagnose.model.finding import Rehearsal, Remedy
from diagnose.model.firewall import Backend, Walk


def mending(walk: Walk, banned: str, tools: tuple[str, ...]) -> tuple[Remedy, ...]:
    """The owner's own command first where its program is at work, for what goes past it does not last.

    `banned`: the address that a ban would be about. `tools`: the owners' commands that are at work.
    """
    lifted, owned = unban(walk, banned, tools), tuple(owner_remedies(walk, tools))
    general = tried_remedies(walk, owned=bool(owned))
    if FAIL2BAN_CLIENT in tools:
        return (*lifted, *general)
    if owned and general[0] in NO_COMMAND:
        general = ()  # the owner's command is the one that fixes it
    return (*owned, *_reader_first(walk), *general, *lifted)


def _reader_first(walk: Walk) -> tuple[Remedy, ...]:
    if not queue_rule(walk):
        return ()
    return (
        Remedy(
            summary="If this machine should have the program that decides (an application firewall or an intrusion "
            "detection: OpenSnitch, Portmaster, Suricata ...), start it again. If not, remove its rule."
        ),
    )


def tried_remedies(walk: Walk, *, owned: bool = False) -> tuple[Remedy, ...]:
    """The candidates that mended the copy, the smallest opening first; without a rehearsal, none is claimed.

    `owned`: what the owner's command adds is left out, because that command is given.
    """
    match walk.rehearsals:
        case Known(value=tried):
            kept = derived(walk)
            effect = owner_effect(walk) if owned else None
            shown = (one for one in kept if effect is None or one.remedy.commands != effect.commands)
            mended = sorted((one for one in shown if one.mended), key=lambda one: len(one.opens))
            none = by_hand(walk) if len(kept) == len(tried) else UNFOUNDED
            return tuple(_rehearsed(one) for one in mended) or (none,)
        case Unknown(reason=Reason.TOOL_MISSING) as unknown:
            return tuple(_described(remedy, unknown) for remedy in _general(walk)) or (by_hand(walk),)
        case Unknown() as unknown:
            return tuple(_untried(remedy, unknown) for remedy in _general(walk)) or (by_hand(walk),)


def _general(walk: Walk) -> tuple[Remedy, ...]:
    """The candidates without what the owner's own command adds."""
    effect = owner_effect(walk)
    return tuple(one for one in candidates(walk) if effect is None or one.commands != effect.commands)


def _rehearsed(tried: Derived) -> Remedy:
    return replace(tried.remedy, rehearsal=Rehearsal(True, tried.opens))


def _untried(remedy: Remedy, missing: Unknown) -> Remedy:
    why = f" ({missing.detail})" if missing.detail else ""
    return replace(
        remedy,
        summary=f"{remedy.summary} It was not tried in a copy of the rules{why}: whether another rule stops the packet "
        "behind this one, and what else it opens, is not known.",
    )


def _described(remedy: Remedy, missing: Unknown) -> Remedy:
    """A remedy whose tool is not on this machine: what to do in words, since the command would not run."""
    return Remedy(summary=f"{remedy.summary} The command for it cannot be given: {missing.detail}.", risk=remedy.risk)


def by_hand(walk: Walk) -> Remedy:
    """What is left where no command is offered; why there is none, where the rule's own names forbid it."""
    why = unspeakable(walk)
    if why is None:
        return BY_HAND
    instead = (
        "A program that speaks netlink or JSON (nft -j -f FILE, the nftables module of Python) takes the names of the "
        "table and the chain as they are, and deletes the rule by its handle"
        if walk.decider is not None and walk.decider.backend is Backend.NFT
        else "Have the program that made the rule take it back, or delete it by its number in its chain"
    )
    return Remedy(
        summary=f"No command is given for this rule: {why}, and could act on something else. {instead}. The usual "
        "tools make no such names: find out which program did."
    )


BY_HAND = Remedy(
    summary="No single command mended a copy of the rules: change the rule named above by hand, in the tool that owns "
    "it, and run netdiag again. An accept in another table does not undo it."
)

UNFOUNDED = Remedy(
    summary="What was rehearsed does not follow from the facts that were recorded with it, so no command is given: "
    "run netdiag on the machine itself, or change the rule named above by hand, in the tool that owns it."
)
NO_COMMAND = (BY_HAND, UNFOUNDED)
