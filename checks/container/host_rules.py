"""A rule of the host that stops what a container, or another namespace of this machine, sends to it."""

from __future__ import annotations

from collections.abc import Iterator

from checks.container.causes import HOST_FIREWALL
from diagnose.analysis.beyond import as_far_as_they_go, beyond_by_the_copy
from diagnose.analysis.mending import mending
from diagnose.analysis.reach import failing, severity
from diagnose.analysis.refusal import icmp_text
from diagnose.analysis.rule_owner import brings_back, maker_on
from diagnose.analysis.walk import listing_of, powerless_accepts, rule_line, rule_title, walk_lines
from diagnose.analysis.wording import connect_evidence
from diagnose.model.attempt import Attempt, Outcome
from diagnose.model.fact import NOT_NEEDED, Known, Missing, Unknown
from diagnose.model.finding import Confidence, Evidence, Finding
from diagnose.model.firewall import RuleRef, Shadow, Walk
from diagnose.model.snapshot import Snapshot

_EXPLAINED = ("firewall/silent", "firewall/rule-rejects", "refused/nothing-listening", "container/host-loopback-only")


def judge(snapshot: Snapshot) -> Iterator[Finding | Missing]:
    """By the walk through a copy of the host's rules, and by what the host did to the packet itself."""
    match snapshot.host_firewall:
        case Unknown() as unknown:
            if unknown != NOT_NEEDED:
                yield Missing("the host's firewall rules", unknown)
        case Known(value=shadow):
            for attempt in failing(snapshot):
                walk = shadow.walk(attempt.address)
                if attempt.local or walk is None or walk.decider is None or walk.verdict not in ("drop", "reject"):
                    continue
                if _fits(attempt, walk):
                    yield _stopped(snapshot, attempt, shadow, walk, walk.decider)


def _fits(attempt: Attempt, walk: Walk) -> bool:
    """Whether what the client met can be this rule's doing."""
    if attempt.outcome is Outcome.UNANSWERED:
        return walk.verdict == "drop"
    return walk.verdict == "reject" and (attempt.outcome is Outcome.REFUSED or icmp_text(attempt) is not None)


def _stopped(snapshot: Snapshot, attempt: Attempt, shadow: Shadow, walk: Walk, decider: RuleRef) -> Finding:
    came = walk.came
    way = f"what comes in by {came.interface}" if came is not None else "it"
    agrees, seen = _host_says(attempt, walk)
    back = brings_back(maker_on(walk))
    source = came.source if came is not None else attempt.address
    return Finding(
        code=HOST_FIREWALL.code,
        title=rule_title(decider, f"{walk.verdict}s {way}", before="The host's "),
        severity=severity(snapshot, attempt),
        confidence=Confidence.PROVEN if agrees and not walk.doubts else Confidence.LIKELY,
        explanation=f"{attempt.endpoint} is the host itself. "
        + (f"The packets come to it by {came.interface}, as from another machine: " if came is not None else "")
        + ("rules for the loopback interface do not apply to them." if came is not None else "")
        + (f" {back}." if back else ""),
        evidence=(
            Evidence(rule_line(decider), f"{listing_of(decider)}, on the host"),
            *(Evidence(f"powerless: {rule_line(rule)}", listing_of(rule)) for rule in powerless_accepts(walk)),
            *walk_lines(walk, "copy of the host's rules, traced"),
            *seen,
            connect_evidence(attempt),
            *(Evidence(doubt, "copy of the rules") for doubt in walk.doubts),
        ),
        remedies=as_far_as_they_go(
            mending(walk, source, shadow.owner_tools), walk, beyond_by_the_copy(walk), attempt.endpoint
        ),
        explains=_EXPLAINED,
    )


def _host_says(attempt: Attempt, walk: Walk) -> tuple[bool, tuple[Evidence, ...]]:
    """Whether the host's own kernel tells the same: the drop of our packet, or the ICMP error that it sent."""
    match attempt.drops:
        case Known(value=(first, *_) as drops):
            text = f"the kernel freed our packet: {first.words}"
            return any(one.reason == "NETFILTER_DROP" for one in drops), (Evidence(text, "tracefs skb:kfree_skb"),)
        case _:
            pass
    icmp = icmp_text(attempt)
    if walk.verdict == "reject" and icmp:
        return True, (Evidence(icmp, "error queue (IP_RECVERR)"),)
    return False, ()
