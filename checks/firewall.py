"""firewall: a rule, or silence, in the way."""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum, auto

from msgspec.structs import replace

from diagnose.analysis.beyond import (
    Beyond,
    Served,
    Unserved,
    answered_by_a_reset,
    as_far_as_they_go,
    beyond,
    in_words,
    served_elsewhere,
)
from diagnose.analysis.mending import NO_COMMAND, mending, tried_remedies
from diagnose.analysis.neighbour import listener_there, run_inside
from diagnose.analysis.publication import (
    DIALS_INSIDE,
    RESERVES,
    Publication,
    holder_of,
    may_be_translated,
    publications,
)
from diagnose.analysis.reach import failing, may_be_reached, reached, severity, unmapped
from diagnose.analysis.refusal import Refusal, icmp_text, refusal, rejected_by_icmp
from diagnose.analysis.rehearsal import derived
from diagnose.analysis.rule_owner import Owner, brings_back, maker, maker_on
from diagnose.analysis.traced import TRACE, as_traced, passed_it, same_rule, stopped_by, traced_lines
from diagnose.analysis.walk import (
    destination_rewrite,
    limits,
    listing_of,
    powerless_accepts,
    queue_rule,
    rule_line,
    rule_name,
    rule_title,
    unlisted,
    walk_lines,
)
from diagnose.analysis.wire import (
    BoxOnTheWay,
    HostItself,
    Meaning,
    ThisMachine,
    Undetermined,
    dropped_here,
    held_back,
    sender,
)
from diagnose.analysis.wire import meaning as icmp_meaning
from diagnose.analysis.wording import connect_evidence, dial_instead, row_text, title
from diagnose.model.attempt import AckWitness, Attempt, DatagramWitness, Drop, Outcome
from diagnose.model.check import Check
from diagnose.model.elsewhere import OtherListener
from diagnose.model.fact import NOT_NEEDED, Known, Missing, Reason, Unknown
from diagnose.model.finding import Cause, Command, Confidence, Evidence, Finding, Remedy, Stage
from diagnose.model.firewall import Backend, RuleRef, Shadow, Step, Walk
from diagnose.model.network import RouteKind, SocketRow, TcpState, is_loopback
from diagnose.model.snapshot import Snapshot
from diagnose.model.target import Intent

RULE_DROPS = Cause(
    "firewall/rule-drops", Stage.FIREWALL, "A firewall rule drops the packets: silence until the timeout"
)
RULE_REJECTS = Cause(
    "firewall/rule-rejects", Stage.FIREWALL, 'A firewall rule answers no; clients show it as "refused" or "no route"'
)
POLICY_DROPS = Cause(
    "firewall/policy-drops", Stage.FIREWALL, "No rule accepts the packet, and the chain's policy drops the rest"
)
REPLY_DROPPED = Cause(
    "firewall/reply-dropped", Stage.FIREWALL, "The connection arrives, and a rule drops the answer on its way back"
)
REDIRECTS = Cause(
    "firewall/redirects", Stage.FIREWALL, "A NAT rule sends the connection somewhere else than where it was dialled"
)
QUEUE_WITHOUT_READER = Cause(
    "firewall/queue-without-reader", Stage.FIREWALL, "A rule hands the packet to a program that is not running"
)
LIMITS_CONNECTIONS = Cause(
    "firewall/limits-connections", Stage.FIREWALL, "A rule that counts connections lets no more of them through"
)
SILENT = Cause("firewall/silent", Stage.FIREWALL, "No answer at all, and the rules that could explain it are not known")

NETFILTER = "NETFILTER_DROP"


class Witness(Enum):
    """What the machine itself says of the walk in the copy."""

    AGREES = auto()
    SILENT = auto()
    DISAGREES = auto()
    OVERRULES = auto()
    """Its own trace names the rule, and the copy tells otherwise."""


def judge(snapshot: Snapshot) -> Iterator[Finding | Missing]:
    """Which rule or policy stands in the way, on the word of two witnesses."""
    if snapshot.intent is Intent.BIND:
        return
    if not snapshot.attempts and snapshot.only_looked and isinstance(snapshot.firewall, Unknown):
        yield Missing("firewall rules", snapshot.firewall)
    for attempt in failing(snapshot):
        if not _suspect(snapshot, attempt):
            continue
        if isinstance(attempt.traced, Unknown) and attempt.traced != NOT_NEEDED:
            yield Missing("trace on this machine", attempt.traced)
        if attempt.local:
            if isinstance(attempt.drops, Unknown) and attempt.drops != NOT_NEEDED:
                yield Missing("the kernel's drop reason", attempt.drops)
            yield from _on_this_machine(snapshot, attempt)
        else:
            yield from _on_the_way(snapshot, attempt)


def _suspect(snapshot: Snapshot, attempt: Attempt) -> bool:
    """Whether a rule can be behind this symptom at all."""
    match attempt.outcome:
        case Outcome.UNANSWERED:
            return not _dropped_at_listener(attempt)
        case Outcome.NOT_ACCEPTED:
            return attempt.half_open and not _overflowed(attempt)
        case Outcome.RESET:
            return _rejected_later(snapshot, attempt)
        case Outcome.REFUSED:
            whose = refusal(attempt)
            if whose is Refusal.KERNEL:
                return _listener_behind(snapshot, attempt) or _sent_elsewhere(snapshot, attempt)
            return whose is not Refusal.UNCLEAR or _listener_behind(snapshot, attempt)
        case _:
            return rejected_by_icmp(attempt)


def _rejected_later(snapshot: Snapshot, attempt: Attempt) -> bool:
    """Whether a rule answers no to a packet that follows the first."""
    match snapshot.firewall:
        case Known(value=shadow):
            walk = shadow.walk(attempt.address)
            return walk is not None and walk.verdict == "reject" and walk.packet != "syn"
        case Unknown():
            return False


def _sent_elsewhere(snapshot: Snapshot, attempt: Attempt) -> bool:
    """Whether the kernel refused another destination than the one dialled."""
    match snapshot.firewall:
        case Known(value=shadow):
            walk = shadow.walk(attempt.address)
            return walk is not None and destination_rewrite(walk) is not None
        case Unknown():
            return False


def _dropped_at_listener(attempt: Attempt) -> bool:
    match attempt.queue:
        case Known(value=witness):
            return witness.dropped_ours and not _dropped_by_netfilter(attempt)
        case _:
            return False


def _overflowed(attempt: Attempt) -> bool:
    """Whether the accept queue had no room while we tried: then its kernel dropped the last ACK, and no rule."""
    match attempt.queue:
        case Known(value=witness):
            return witness.overflowed and not _dropped_by_netfilter(attempt)
        case _:
            return False


def _dropped_by_netfilter(attempt: Attempt) -> bool:
    match attempt.drops:
        case Known(value=drops):
            return any(_by_netfilter(one) for one in drops)
        case _:
            return False


def _dropped_by_a_filter(attempt: Attempt) -> bool:
    """Whether the kernel names a filter of a cgroup or a socket, which no rule set shows."""
    match attempt.drops:
        case Known(value=drops):
            return any(one.reason in ("BPF_CGROUP_EGRESS", "SOCKET_FILTER") for one in drops)
        case _:
            return False


def _by_traffic_control(attempt: Attempt) -> Drop | None:
    """The drop of our packet by a filter of traffic control (tc), where the kernel says so or has little else to do.

    Without a reason (before Linux 5.17) it is the likely one of the few for which these functions free a packet.
    """
    for drop in attempt.drops.value if isinstance(attempt.drops, Known) else ():
        if drop.reason in _TRAFFIC_CONTROL or (drop.reason == _UNSAID and drop.symbol in _WHERE_FILTERS_ARE):
            return drop
    return None


_TRAFFIC_CONTROL = ("TC_INGRESS", "TC_EGRESS")
_UNSAID = "NOT_SPECIFIED"
_WHERE_FILTERS_ARE = {"__netif_receive_skb_core": "ingress", "__dev_queue_xmit": "egress"}
"""sch_handle_ingress and sch_handle_egress are inlined into them (net/core/dev.c)."""


def _by_netfilter(drop: Drop) -> bool:
    """A queue without a reader has no reason of its own, but a function that only drops for that (nf_queue.c)."""
    return drop.reason == NETFILTER or drop.symbol == "nf_queue"


def _listener_behind(snapshot: Snapshot, attempt: Attempt) -> bool:
    match snapshot.listeners:
        case Known(value=rows):
            return bool(reached(rows, attempt.address, attempt.port))
        case _:
            return False


def _on_this_machine(snapshot: Snapshot, attempt: Attempt) -> Iterator[Finding | Missing]:
    filtered = _by_traffic_control(attempt)
    if filtered is not None:
        yield _filtered(snapshot, attempt, filtered)
    match snapshot.firewall:
        case Unknown() as unknown:
            if unknown != NOT_NEEDED:
                yield Missing("firewall rules", unknown)
            told = stopped_by(attempt)
            if told is not None:
                yield _told_by_the_machine(snapshot, attempt, None, told)
            else:
                yield from _by_witnesses_alone(snapshot, attempt)
        case Known(value=shadow):
            yield from _by_the_rules(snapshot, attempt, shadow)


def _by_the_rules(snapshot: Snapshot, attempt: Attempt, shadow: Shadow) -> Iterator[Finding | Missing]:
    walk = shadow.walk(attempt.address)
    told = stopped_by(attempt)
    if told is not None and not (walk and (told.rule == walk.decider or limits(walk))):
        yield _told_by_the_machine(snapshot, attempt, walk, told)
        return
    if walk is not None and walk.decider is not None and walk.reader is not None:
        yield _left_to_a_program(snapshot, attempt, walk, walk.decider)
        if not _nothing_behind(walk):
            yield from _by_witnesses_alone(snapshot, attempt)
        return
    if walk is not None and walk.verdict == "unknown" and _ends_alike_where_nat_leads(attempt, walk):
        pass
    elif walk is None or walk.verdict == "unknown":
        doubts = "; ".join((*(walk.doubts if walk else ()), *shadow.uncarried)) or "the copy gave no walk"
        yield Missing("firewall walk", Unknown(Reason.FAILED, doubts))
        yield from _by_witnesses_alone(snapshot, attempt)
        return
    if walk.decider is not None:
        if not walk.decider.text:
            yield Missing("the rule's text", unlisted(walk.decider.backend, late=shadow.late))
        yield _decided(snapshot, attempt, walk, walk.decider)
        return
    rewrite = destination_rewrite(walk)
    if rewrite is not None and walk.arrives is None:
        yield _sent_nowhere(snapshot, attempt, walk, rewrite)
    elif rewrite is not None:
        yield _redirected(snapshot, attempt, walk, rewrite)
    elif limits(walk) and _stopped_by_a_rule(attempt):
        yield _limited(snapshot, attempt, walk)
    else:
        yield from _by_witnesses_alone(snapshot, attempt)


def _ends_alike_where_nat_leads(attempt: Attempt, walk: Walk) -> bool:
    """Whether NAT leads it elsewhere, and the kernel ends it there with an error, in the copy as on the machine."""
    led = walk.decider is None and destination_rewrite(walk) is not None
    return led and walk.outcome is attempt.outcome and attempt.outcome is not Outcome.UNANSWERED


def _left_to_a_program(snapshot: Snapshot, attempt: Attempt, walk: Walk, decider: RuleRef) -> Finding:
    """Likely where nothing else stops it: what follows the queue, the copy shows only with the rule passed by."""
    elsewhere = _dropped_by_netfilter(attempt) or _dropped_by_a_filter(attempt) or not _nothing_behind(walk)
    excluded = _all_else_excluded(snapshot, attempt) and not elsewhere
    _, seen = _machine_says(snapshot, attempt, walk)
    silent = attempt.outcome is Outcome.UNANSWERED
    return Finding(
        code=(RULE_DROPS if silent else RULE_REJECTS).code,
        title=rule_title(
            decider, f"hands {attempt.endpoint} to a program, which says no", "hands this connection to a program"
        ),
        severity=severity(snapshot, attempt),
        confidence=Confidence.LIKELY if excluded else Confidence.POSSIBLE,
        explanation=f"This rule leaves the connection's first packet to a program: {walk.reader}. It reads the queue, "
        "so it has the packet; the connection goes no further. Application firewalls (OpenSnitch, Portmaster) and "
        "intrusion detections (Suricata) work so. "
        + (
            "With this rule passed by, nothing else in the copy of the rules stops it. "
            if _nothing_behind(walk)
            else ""
        )
        + ("The server itself is there, and its queue has room. " if excluded else "")
        + (f"{brings_back(maker_on(walk))}." if brings_back(maker_on(walk)) else ""),
        evidence=(
            Evidence(rule_line(decider), listing_of(decider)),
            Evidence(f"the queue is read by {walk.reader}", "/proc/net/netfilter/nfnetlink_queue"),
            *walk_lines(walk),
            *seen,
            connect_evidence(attempt),
        ),
        remedies=(
            Remedy(
                summary=f"Allow this connection in the settings of the program that decides, {walk.reader}: it keeps "
                "that over a reboot, while a change to the rule lasts until the program starts again. Whether it mends "
                "this could not be tried in the copy of the rules, where nobody reads the queue."
            ),
            *_past_the_rule(snapshot, attempt, walk),
        ),
        explains=("firewall/silent", "resolution/prefers-other-family"),
    )


def _past_the_rule(snapshot: Snapshot, attempt: Attempt, walk: Walk) -> tuple[Remedy, ...]:
    """What has let the connection pass in the copy, each claiming no more than it was seen to do."""
    tried = [one for one in tried_remedies(walk) if one not in NO_COMMAND]
    return as_far_as_they_go(tried, walk, beyond(snapshot, attempt, walk), attempt.endpoint)


def _nothing_behind(walk: Walk) -> bool:
    """Whether in the copy one command against this rule alone has let the connection through."""
    return any(one.mended and len(one.remedy.commands) == 1 for one in derived(walk))


def _stopped_by_a_rule(attempt: Attempt) -> bool:
    """Whether the machine itself says that a rule stopped the packet, whatever happened to it in the copy."""
    if attempt.outcome is Outcome.UNANSWERED or attempt.half_open:
        return _dropped_by_netfilter(attempt)
    if rejected_by_icmp(attempt):
        return True
    return attempt.outcome is Outcome.REFUSED and refusal(attempt) is Refusal.NOT_KERNEL


def _told_by_the_machine(snapshot: Snapshot, attempt: Attempt, copied: Walk | None, told: Step) -> Finding:
    """The rule that the machine's own trace names, where the copy does not name it."""
    walk = as_traced(attempt, told, copied)
    return _decided(snapshot, attempt, walk, told.rule, overruled=True)


def _decided(snapshot: Snapshot, attempt: Attempt, walk: Walk, decider: RuleRef, *, overruled: bool = False) -> Finding:
    witness, seen = _machine_says(snapshot, attempt, walk)
    if overruled:
        witness = Witness.OVERRULES
    walk = _with_programs(attempt, walk)
    cause = _cause_of(walk, decider)
    behind = beyond(snapshot, attempt, _walk_of(snapshot, attempt))
    return Finding(
        code=cause.code,
        title=rule_title(decider, f"{_does(walk)} {_packet(attempt, walk)}", f"{_does(walk)} this connection"),
        severity=severity(snapshot, attempt),
        confidence=_confidence(witness, walk),
        explanation=_explanation(attempt, walk, decider, witness, behind),
        evidence=(
            Evidence(rule_line(decider), listing_of(decider)),
            *(Evidence(f"powerless: {rule_line(rule)}", listing_of(rule)) for rule in powerless_accepts(walk)),
            *(walk_lines(walk, TRACE) if overruled else (*walk_lines(walk), *traced_lines(attempt))),
            *seen,
            *(_ack_evidence(attempt) if attempt.half_open else ()),
            connect_evidence(attempt),
            *_listener_evidence(snapshot, attempt),
            *(Evidence(doubt, "copy of the rules") for doubt in walk.doubts),
        ),
        remedies=_remedies(snapshot, attempt, walk, behind),
        explains=("firewall/silent", "resolution/prefers-other-family"),
    )


_SERVES_NODEPORTS = "kube-proxy's nftables mode serves NodePorts on the node's addresses; it answers there"


def _walk_of(snapshot: Snapshot, attempt: Attempt) -> Walk | None:
    return snapshot.firewall.value.walk(attempt.address) if isinstance(snapshot.firewall, Known) else None


def _listener_evidence(snapshot: Snapshot, attempt: Attempt) -> tuple[Evidence, ...]:
    match snapshot.listeners:
        case Known(value=rows) if reached(rows, attempt.address, attempt.port):
            return (Evidence(f"a socket listens for {attempt.endpoint}", "sock_diag"),)
        case Known(value=rows) if not may_be_reached(rows, attempt.address, attempt.port):
            return (Evidence(f"no TCP socket listens for {attempt.endpoint}", "sock_diag"),)
        case _:
            return ()


def _remedies(snapshot: Snapshot, attempt: Attempt, walk: Walk, behind: Beyond) -> tuple[Remedy, ...]:
    """How to get past the rule, or, where nothing listens behind it and NAT serves another address, how to go there."""
    copied = _walk_of(snapshot, attempt)
    served = served_elsewhere(snapshot, copied) if copied is not None and isinstance(behind, Unserved) else None
    if served is not None:
        return (
            dial_instead(
                served,
                f"Connect to {served}: NAT rules of this machine serve the port there, and not on {attempt.address} "
                f"({_SERVES_NODEPORTS if maker_on(walk).owner is Owner.KUBERNETES else 'it answers there'}). An accept "
                f"would not help, because nothing listens on {attempt.endpoint}",
            ),
        )
    tried = mending(walk, _banned(attempt), _owner_tools(snapshot))
    return as_far_as_they_go(tried, walk, behind, attempt.endpoint)


def _with_programs(attempt: Attempt, walk: Walk) -> Walk:
    """A BPF program may have dropped it instead: a doubt, unless the kernel says that nf_tables itself did.

    Such a program sends no answer, so a reject was none of its doing. One that is asked at another hook than the one
    that dropped the packet let it pass or has not seen it.
    """
    drops = attempt.drops.value if isinstance(attempt.drops, Known) else ()
    if walk.verdict != "drop" or any(one.symbol.startswith("nft_") for one in drops):
        return walk
    hook = next((one.hook for one in drops if _by_netfilter(one)), "")
    asked = (one for one in walk.beside if isinstance(one, str) or not hook or one.hook == hook)
    return replace(walk, doubts=(*walk.doubts, *map(str, asked)))


def _cause_of(walk: Walk, decider: RuleRef) -> Cause:
    if walk.verdict == "reject":
        return RULE_REJECTS
    if walk.packet == "reply":
        return REPLY_DROPPED
    if queue_rule(walk):
        return QUEUE_WITHOUT_READER
    return POLICY_DROPS if decider.policy else RULE_DROPS


def _banned(attempt: Attempt) -> str:
    """The address that a ban of ours would be about."""
    return attempt.source.address if attempt.source else attempt.address


def _owner_tools(snapshot: Snapshot) -> tuple[str, ...]:
    return snapshot.firewall.value.owner_tools if isinstance(snapshot.firewall, Known) else ()


def _redirected(snapshot: Snapshot, attempt: Attempt, walk: Walk, rewrite: Step) -> Finding:
    by_kernel = attempt.outcome is Outcome.REFUSED and refusal(attempt) is Refusal.KERNEL
    behind = _listener_behind(snapshot, attempt)
    agrees = by_kernel and behind  # the kernel does not refuse a port that listens: it was asked for another one
    published, serves = _led_as_published(snapshot, attempt, walk), _serves(snapshot, attempt)
    confidence = Confidence.PROVEN if agrees and not walk.doubts else Confidence.LIKELY
    return Finding(
        code=REDIRECTS.code,
        title=rule_title(
            rewrite.rule, f"sends {attempt.endpoint} to {walk.arrives}", "sends this connection elsewhere"
        ),
        severity=severity(snapshot, attempt),
        # the rule of a published port does what it is there for: what is wrong, is wrong at the far end
        confidence=Confidence.POSSIBLE if published or _may_be_published(snapshot, rewrite) else confidence,
        explanation=f"A NAT rule changes the destination before the packet arrives: the connection to "
        f"{attempt.endpoint} goes to {walk.arrives}{_what_came_of_it(attempt, by_kernel)}. "
        + ("That is where the port is published to: the rule is as its engine wants it. " if published else "")
        + (
            f"The listener of {attempt.endpoint} itself does not get the connection."
            if behind and serves and not published
            else ""
        ),
        evidence=(
            Evidence(rule_line(rewrite.rule), listing_of(rewrite.rule)),
            *walk_lines(walk),
            connect_evidence(attempt),
            *((Evidence(f"a socket listens for {attempt.endpoint}", "sock_diag"),) if behind else ()),
            *((Evidence("the kernel's own TCP sent the reset", "/proc/net/snmp"),) if by_kernel else ()),
        ),
        remedies=_back_or_onward(snapshot, attempt, walk),
        explains=("firewall/silent", "refused/nothing-listening", "resolution/prefers-other-family"),
    )


def _what_came_of_it(attempt: Attempt, by_kernel: bool) -> str:
    """How the attempt ended, and no more: whether the packet has got as far as that place is not known."""
    if by_kernel:
        return ", and this machine's kernel refused it: nothing takes it there"
    if attempt.outcome is Outcome.UNANSWERED:
        return "; no answer came back"
    return f"; the attempt ended with {attempt.errno or attempt.outcome.value}"


def _back_or_onward(snapshot: Snapshot, attempt: Attempt, walk: Walk) -> tuple[Remedy, ...]:
    """Past the rule, where somebody would answer there; else the far end is what has to answer."""
    assert walk.arrives is not None
    wanted = Remedy(summary=f"Or start the program that should answer at {walk.arrives}, if the rule is wanted.")
    published = _led_as_published(snapshot, attempt, walk)
    if not published and (_serves(snapshot, attempt) or _published_here(snapshot, attempt)):
        return (*_past_the_rule(snapshot, attempt, walk), wanted)
    ask = dial_instead(walk.arrives, "Ask about the far end: netdiag says why nothing answers there")
    return (ask,) if published else (ask, wanted)


def _serves(snapshot: Snapshot, attempt: Attempt) -> bool:
    """Whether a program may answer at the dialled address itself, and not only have the port for a container."""
    match snapshot.listeners:
        case Known(value=rows) if not may_be_reached(rows, attempt.address, attempt.port):
            return False
        case _:
            holder = holder_of(snapshot, attempt.address, attempt.port)
            return holder is None or holder.program not in RESERVES | DIALS_INSIDE


def _led_as_published(snapshot: Snapshot, attempt: Attempt, walk: Walk) -> bool:
    """Whether the NAT rule leads to the very port of the container that publishes the dialled one."""
    return any(
        walk.arrives is not None
        and walk.arrives.port == one.entry.container_port
        and walk.arrives.address in (*(one.inside.addresses if one.inside else ()), *_addresses(one))
        for one in _published_here(snapshot, attempt)
    )


_ENGINES = (Owner.DOCKER, Owner.PODMAN, Owner.CNI, Owner.KUBERNETES)


def _may_be_published(snapshot: Snapshot, rewrite: Step) -> bool:
    """Whether it is an engine's rule, and what the engine publishes was wanted and could not be had."""
    unknown = isinstance(snapshot.containers, Unknown) and snapshot.containers != NOT_NEEDED
    return unknown and maker(rewrite.rule).owner in _ENGINES


def _published_here(snapshot: Snapshot, attempt: Attempt) -> list[Publication]:
    entries = publications(snapshot, attempt.port)
    return [one for one in entries if one.is_running and one.covers(attempt.address)]


def _addresses(one: Publication) -> Iterator[str]:
    for attachment in one.described.attachments if one.described else ():
        yield from attachment.addresses


def _sent_nowhere(snapshot: Snapshot, attempt: Attempt, walk: Walk, rewrite: Step) -> Finding:
    """The kernel has no way for the rewritten packet: loopback's leaves by no other interface (route_localnet).

    From any other address the copy alone does not show that: it has only the routes of the interfaces' own addresses.
    """
    seen = isinstance(attempt.drops, Known) and any(map(_by_netfilter, attempt.drops.value))
    loopback = is_loopback(attempt.address) and ":" not in attempt.address
    if not (seen or loopback) or _dropped_otherwise(attempt):
        return _sent_elsewhere_unseen(snapshot, attempt, walk, rewrite)
    localnet = (
        ": one from 127.0.0.0/8 leaves by another interface than lo only where that interface has route_localnet"
        if loopback
        else ""
    )
    return Finding(
        code=REDIRECTS.code,
        title=rule_title(
            rewrite.rule, f"sends {attempt.endpoint} where it may not go", "sends this connection where it may not go"
        ),
        severity=severity(snapshot, attempt),
        confidence=Confidence.PROVEN if seen and not walk.doubts else Confidence.LIKELY,
        explanation="A NAT rule changes the destination before the packet leaves, and to the new one the kernel has no "
        f"way for this packet{localnet}. It is dropped.",
        evidence=(
            Evidence(rule_line(rewrite.rule), listing_of(rewrite.rule)),
            *walk_lines(walk),
            *_drops(attempt),
            connect_evidence(attempt),
        ),
        remedies=(
            *(_past_the_rule(snapshot, attempt, walk) if _serves(snapshot, attempt) else ()),
            Remedy(
                summary="If the rule is wanted, connect to the destination that it names: that needs no NAT. "
                + (
                    "To let loopback out, the interface needs route_localnet=1 (sysctl net.ipv4.conf), and what leaves "
                    "by it a masquerade rule; the network may then reach what listens on 127.0.0.1."
                    if loopback
                    else "If it is not reached so either, its route is missing: see ip route get."
                )
            ),
        ),
        explains=("firewall/silent", "resolution/prefers-other-family"),
    )


def _sent_elsewhere_unseen(snapshot: Snapshot, attempt: Attempt, walk: Walk, rewrite: Step) -> Finding:
    """A rule changes the destination to one that the copy has no route to; what became of the packet is not known."""
    return Finding(
        code=REDIRECTS.code,
        title=rule_title(
            rewrite.rule, f"sends connections to {attempt.endpoint} elsewhere", "sends this connection elsewhere"
        ),
        severity=severity(snapshot, attempt),
        confidence=Confidence.LIKELY,
        explanation="A NAT rule changes the destination before the packet leaves, to the one that the rule names"
        f"{_what_came_of_it(attempt, by_kernel=False)}. Whether the packet arrives there was not checked.",
        evidence=(
            Evidence(rule_line(rewrite.rule), listing_of(rewrite.rule)),
            *walk_lines(walk),
            *_drops(attempt),
            connect_evidence(attempt),
        ),
        remedies=(
            *(_past_the_rule(snapshot, attempt, walk) if _serves(snapshot, attempt) else ()),
            Remedy(
                summary="If the rule is wanted, connect to the destination that it names: that needs no NAT. If that "
                "does not work either, the fault is there or on the way: see ip route get."
            ),
        ),
        explains=("firewall/silent", "resolution/prefers-other-family"),
    )


def _drops(attempt: Attempt) -> Iterator[Evidence]:
    for drop in attempt.drops.value if isinstance(attempt.drops, Known) else ():
        yield Evidence(f"the kernel freed our packet: {drop.words}", "tracefs skb:kfree_skb")


def _limited(snapshot: Snapshot, attempt: Attempt, walk: Walk) -> Finding:
    rules = limits(walk)
    first = rules[0].rule
    _, seen = _machine_says(snapshot, attempt, walk)
    return Finding(
        code=LIMITS_CONNECTIONS.code,
        title=rule_title(first, f"lets no more connections to {attempt.endpoint} through", "limits these connections"),
        severity=severity(snapshot, attempt),
        confidence=Confidence.LIKELY if len(rules) == 1 else Confidence.POSSIBLE,
        explanation="This rule counts connections or packets, and what it has counted decides. In a fresh copy of "
        "the rules, which has counted nothing, the same connection passes; on the machine itself netfilter stops it.",
        evidence=(
            *(Evidence(rule_line(step.rule), listing_of(step.rule)) for step in rules),
            *seen,
            connect_evidence(attempt),
        ),
        remedies=(
            Remedy(
                summary="Close idle connections or wait until the rate falls, and try again; if that helps for a "
                "while, raise the limit in whatever made the rule."
            ),
        ),
        explains=("firewall/silent", "resolution/prefers-other-family"),
    )


def _machine_says(snapshot: Snapshot, attempt: Attempt, walk: Walk) -> tuple[Witness, tuple[Evidence, ...]]:
    """Whether the machine's own witnesses tell the same story as the copy."""
    witness, seen = _first_witness(snapshot, attempt, walk)
    if witness is Witness.SILENT and same_rule(attempt, walk):
        return Witness.AGREES, seen
    return (Witness.DISAGREES if passed_it(attempt, walk) else witness), seen


def _first_witness(snapshot: Snapshot, attempt: Attempt, walk: Walk) -> tuple[Witness, tuple[Evidence, ...]]:
    """What the drop reason, the server's end, the error queue or the counter of resets says."""
    match attempt.drops:
        case Known(value=(first, *_) as drops):
            same = any(_by_netfilter(one) and _same_drop(snapshot, one, walk) for one in drops)
            agrees = same or answered_by_a_reset(drops, walk)
            said = _freed(first)
            return (Witness.AGREES if agrees else Witness.DISAGREES), (said,)
        case _:
            pass
    if attempt.half_open:
        return (Witness.AGREES if walk.packet == "ack" else Witness.DISAGREES), _ack_evidence(attempt)
    if walk.verdict == "drop":
        return Witness.SILENT, ()
    icmp = icmp_text(attempt)
    if icmp:
        return Witness.AGREES, (Evidence(icmp, "error queue (IP_RECVERR)"),)
    if attempt.outcome is Outcome.REFUSED:
        return _reset_says(attempt)
    return Witness.SILENT, ()


def _same_drop(snapshot: Snapshot, drop: Drop, walk: Walk) -> bool:
    """Whether it is the packet that the walk lost, dropped by the part of the kernel that has the decider.

    nf_tables frees in nft_do_chain since Linux 6.7, before that in nf_hook_slow, as iptables-legacy does.
    """
    if walk.decider is None:
        return True
    by_nft = drop.symbol == "nft_do_chain"
    by_hook = drop.symbol == "nf_hook_slow"
    legacy = walk.decider.backend in (Backend.IPTABLES_LEGACY, Backend.IP6TABLES_LEGACY)
    elsewhere = by_nft if legacy else by_hook and _version(snapshot.vantage.kernel) > _NFT_FREES_ITSELF
    return drop.packet == walk.packet and not elsewhere and (not drop.hook or walk.hook in ("", drop.hook))


_NFT_FREES_ITSELF = (6, 7)


def _version(release: str) -> tuple[int, ...]:
    """(6, 18) for 6.18.0-1-amd64."""
    return tuple(int(part) for part in release.split(".")[:2] if part.isdecimal() and len(part) < 10)


def _freed(drop: Drop) -> Evidence:
    packet = {"syn": "our packet", "reply": "the answer", "ack": "our ACK of the answer"}[drop.packet]
    return Evidence(f"the kernel freed {packet}: {drop.words}", "tracefs skb:kfree_skb")


def _first_freed(attempt: Attempt) -> tuple[Evidence, ...]:
    """Where the kernel freed the first of our packets that it has reported; nothing where it reported none."""
    drops = attempt.drops.value if isinstance(attempt.drops, Known) else ()
    return tuple(_freed(one) for one in drops[:1])


def _reset_says(attempt: Attempt) -> tuple[Witness, tuple[Evidence, ...]]:
    source = "/proc/net/snmp"
    match refusal(attempt):
        case Refusal.NOT_KERNEL:
            text = "a reset came back, but the kernel's TCP sent none (OutRsts did not rise): a rule made it"
            return Witness.AGREES, (Evidence(text, source),)
        case Refusal.KERNEL:
            return Witness.DISAGREES, (Evidence("the kernel's own TCP sent the reset", source),)
        case _:
            return Witness.SILENT, ()


def _confidence(witness: Witness, walk: Walk) -> Confidence:
    match witness:
        case Witness.AGREES:
            return Confidence.LIKELY if walk.doubts else Confidence.PROVEN
        case Witness.SILENT | Witness.OVERRULES:
            return Confidence.LIKELY
        case Witness.DISAGREES:
            return Confidence.POSSIBLE


def _explanation(attempt: Attempt, walk: Walk, decider: RuleRef, witness: Witness, behind: Beyond) -> str:
    what = "The policy of this chain" if decider.policy else "This rule"
    text = f"{what} stops {_PACKETS[walk.packet]}: {_felt(attempt, walk)}."
    if _masquerades(decider):
        text += " It should give the packet another source address, and drops it where the kernel finds none."
    text += _behind_in_words(attempt, walk, behind)
    back = brings_back(maker_on(walk))
    text += f" {back}." if back else ""
    for accept in powerless_accepts(walk):
        text += (
            f" The accept in {rule_name(accept)} does not help: a packet must pass every chain, and an accept ends "
            "only its own."
        )
    match witness:
        case Witness.AGREES:
            text += f" Two witnesses agree: the walk through {_copy(walk)} of the rules, and the machine itself."
        case Witness.SILENT:
            text += f" The walk through {_copy(walk)} of the rules shows it; no witness on the machine confirms it."
        case Witness.OVERRULES:
            text += " The trace of our packet on the machine itself shows it; a copy of the rules does not confirm it."
        case Witness.DISAGREES:
            text += " What the machine itself shows contradicts it, so take this as a hint only."
    return text


def _copy(walk: Walk) -> str:
    return "a copy" if walk.doubts else "an exact copy"


def _felt(attempt: Attempt, walk: Walk) -> str:
    """What the client meets: by how our own attempt ended, since the rule's own answer may be stopped as well."""
    if walk.packet == "ack" and (walk.verdict == "drop" or attempt.half_open):
        return "for the client the connection is established, and the server never gets it"
    if walk.verdict == "drop":
        return "the client gets no answer and waits until its timeout"
    how = f" with {walk.reject_with}" if walk.reject_with else ""
    if attempt.outcome is Outcome.UNANSWERED:
        return (
            f"it rejects{how}, but no such answer came back to our own attempt, so the client gets no error and waits "
            "until its timeout (a rule may stop the answer too)"
        )
    alike = ", as if nothing listened" if attempt.errno == "ECONNREFUSED" else ""
    who = "An ordinary program gets" if attempt.family == "ipv6" else "A program that waits in connect(2) gets"
    late = (
        f". {who} an ICMP error only when the kernel repeats the packet, after about a second"
        if rejected_by_icmp(attempt)
        else ""
    )
    return f"it rejects{how}, and the client gets {attempt.errno or attempt.outcome.value}{alike}{late}"


def _behind_in_words(attempt: Attempt, walk: Walk, behind: Beyond) -> str:
    """Whether the rule is all that is in the way, as far as that is known."""
    if not isinstance(behind, Served):
        clause = in_words(behind, attempt.endpoint)
        return f" {clause[0].upper()}{clause[1:]}."
    if _nothing_behind(walk):
        return " A socket listens behind it, and in the copy of the rules nothing else stops the connection."
    return " A socket listens behind it."


def _masquerades(rule: RuleRef) -> bool:
    """Whether it gives packets another source address, and does not only speak of it in its comment."""
    bare = _QUOTED.sub("", rule.text)
    return f" {'masquerade' if rule.backend is Backend.NFT else '-j MASQUERADE'} " in f" {bare} "


_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_PACKETS = {
    "syn": "the connection's first packet",
    "reply": "the answer on its way back",
    "ack": "the handshake's last packet, the client's ACK",
}


def _does(walk: Walk) -> str:
    if queue_rule(walk):
        return "queues for an absent program"
    return "drops" if walk.verdict == "drop" else "rejects"


def _packet(attempt: Attempt, walk: Walk) -> str:
    ours = {"reply": f"replies from {attempt.endpoint}", "ack": f"the last ACK to {attempt.endpoint}"}
    return ours.get(walk.packet, str(attempt.endpoint))


def _filtered(snapshot: Snapshot, attempt: Attempt, drop: Drop) -> Finding:
    """A filter of traffic control: no rule set has it, and no copy shows it."""
    what = {"syn": f"packets to {attempt.endpoint}", "reply": f"replies from {attempt.endpoint}"}
    packet = what.get(drop.packet, f"the last ACK to {attempt.endpoint}")
    side = drop.hook or _WHERE_FILTERS_ARE[drop.symbol]
    told = drop.reason in _TRAFFIC_CONTROL
    return Finding(
        code=SILENT.code,
        title=title(f"A traffic control filter (tc) drops {packet}"),
        severity=severity(snapshot, attempt),
        confidence=Confidence.PROVEN if told else Confidence.LIKELY,
        explanation="The connection gets no answer of any kind, because a filter or BPF program of traffic control "
        f"drops the packet at the interface's {side} side. It is not a firewall rule: neither nft nor iptables lists "
        "it, and the copy of the rules does not contain it."
        + ("" if told else " This kernel gives no reason for the drop; the function rarely drops for another one."),
        evidence=(_freed(drop), connect_evidence(attempt), *_listener_evidence(snapshot, attempt)),
        remedies=(
            Remedy(
                summary=f"See which filter it is: tc filter show dev lo {side} (for a packet that leaves by another "
                "interface, that one's name). Delete it by its preference, or change the settings of the program that "
                "made it (a service mesh, Cilium, a traffic shaper), which makes it again when it starts."
            ),
        ),
        explains=("resolution/prefers-other-family",),
    )


def _by_witnesses_alone(snapshot: Snapshot, attempt: Attempt) -> Iterator[Finding]:
    """Without a rule to name: what errno, error queue, counters and the drop reason tell any user."""
    if _by_traffic_control(attempt) is not None:
        return
    if attempt.half_open:
        yield _ack_lost(snapshot, attempt)
        return
    if attempt.outcome is Outcome.UNANSWERED:
        half_open = _half_open(snapshot, attempt)
        yield _answer_lost(snapshot, attempt, half_open) if half_open else _silent(snapshot, attempt)
        return
    whose = refusal(attempt) if attempt.outcome is Outcome.REFUSED else Refusal.ICMP
    behind = _listener_behind(snapshot, attempt)
    if whose in (Refusal.ICMP, Refusal.NOT_KERNEL):
        yield _rejected_by_somebody(snapshot, attempt, whose, behind)
    elif behind and isinstance(snapshot.firewall, Unknown):
        yield _refused_beside_a_listener(snapshot, attempt, whose)


_OR_A_CONTAINER = ", or the far end of a NAT rule that leads into a container."


_OR_NO_ROUTE = " A NAT rule that sends it where the kernel has no route ends with the same error."


def _may_be_routing(attempt: Attempt) -> bool:
    """Whether the kernel sends such an ICMP error itself, for a packet that it has no way for."""
    errors = attempt.icmp.value if isinstance(attempt.icmp, Known) else ()
    said = {icmp_meaning(attempt.family, one.type, one.code) for one in errors}
    return bool(said & {Meaning.NO_ROUTE, Meaning.HOST_UNREACHABLE})


def _rejected_by_somebody(snapshot: Snapshot, attempt: Attempt, whose: Refusal, behind: bool) -> Finding:
    by_icmp = whose is Refusal.ICMP
    icmp = icmp_text(attempt)
    translated = may_be_translated(snapshot, attempt.address, attempt.port)
    seen = (
        Evidence(icmp, "error queue (IP_RECVERR)")
        if icmp
        else Evidence("a reset came back, but the kernel's TCP sent none (OutRsts did not rise)", "/proc/net/snmp")
    )
    passed = _rules_pass(snapshot, attempt)
    alike = ", as if nothing listened" if attempt.errno == "ECONNREFUSED" else ""
    return Finding(
        code=RULE_REJECTS.code,
        title=title(f"A firewall rule rejects {attempt.endpoint}; which one is not known"),
        severity=severity(snapshot, attempt),
        confidence=Confidence.LIKELY if (by_icmp or behind) and not translated and not passed else Confidence.POSSIBLE,
        explanation=(
            f"Clients get {attempt.errno or attempt.outcome.value}{alike}. But a closed port on "
            "this machine is refused by the kernel's TCP, and this refusal was not: something between the client "
            f"and the socket made it. On one machine that is a firewall rule{_OR_A_CONTAINER if translated else '.'}"
            f"{_OR_NO_ROUTE if _may_be_routing(attempt) else ''}"
            f"{_COPY_PASSES if passed else ''}"
        ),
        evidence=(
            seen,
            connect_evidence(attempt),
            *((Evidence(f"a socket listens for {attempt.endpoint}", "sock_diag"),) if behind else ()),
        ),
        remedies=_look_with_root(snapshot),
        explains=("resolution/prefers-other-family",),
    )


def _refused_beside_a_listener(snapshot: Snapshot, attempt: Attempt, whose: Refusal) -> Finding:
    """Nothing but a hint: what else refuses there is rare, and the rules that could tell were not read."""
    by_kernel = whose is Refusal.KERNEL
    text = "the kernel's own TCP sent the reset" if by_kernel else "who sent the reset is not distinct"
    nat = "asked for another port: a NAT rule sends the connection elsewhere"
    why = (
        f"The kernel does not refuse a port that listens, unless it was {nat}."
        if by_kernel
        else ("Either a rule rejects it, or a NAT rule sends it elsewhere; other traffic on this machine hides which.")
    )
    return Finding(
        code=(REDIRECTS if by_kernel else RULE_REJECTS).code,
        title=title(f"{attempt.endpoint} is refused though a listener is there"),
        severity=severity(snapshot, attempt),
        confidence=Confidence.POSSIBLE,
        explanation=f"{why} Or the program has stopped listening meanwhile. The rules could not be read.",
        evidence=(
            Evidence(f"a socket listens for {attempt.endpoint}", "sock_diag"),
            Evidence(text, "/proc/net/snmp"),
            connect_evidence(attempt),
        ),
        remedies=_look_with_root(snapshot),
    )


def _half_open(snapshot: Snapshot, attempt: Attempt) -> SocketRow | None:
    """The server's side of our connection, waiting for us: the SYN has arrived."""
    rows = snapshot.sockets.value if isinstance(snapshot.sockets, Known) else ()
    waiting = (row for row in rows if row.state in (TcpState.SYN_RECV, TcpState.NEW_SYN_RECV))
    ours = attempt.source
    return next(
        (
            row
            for row in waiting
            if ours and row.peer.port == ours.port and unmapped(row.peer.address) == unmapped(ours.address)
        ),
        None,
    )


def _answer_lost(snapshot: Snapshot, attempt: Attempt, row: SocketRow) -> Finding:
    return Finding(
        code=REPLY_DROPPED.code,
        title=title(f"The answer from {attempt.endpoint} does not come back; which rule is not known"),
        severity=severity(snapshot, attempt),
        confidence=Confidence.POSSIBLE if _dropped_by_a_filter(attempt) else Confidence.LIKELY,
        explanation="The connection's first packet has arrived: the kernel waits for ours with a half-open connection. "
        "Its answer is lost on the way back. On one machine that is a firewall rule for the answers, or a filter on "
        "the cgroup of either end (systemd's IPAddressDeny=)."
        + (_COPY_PASSES if _rules_pass(snapshot, attempt) else ""),
        evidence=(Evidence(row_text(row), "sock_diag"), *_first_freed(attempt), connect_evidence(attempt)),
        remedies=_look_with_root(snapshot),
        explains=("firewall/silent", "resolution/prefers-other-family"),
    )


def _ack_lost(snapshot: Snapshot, attempt: Attempt) -> Finding:
    return Finding(
        code=RULE_DROPS.code,
        title=title(f"The last ACK to {attempt.endpoint} does not arrive; which rule is not known"),
        severity=severity(snapshot, attempt),
        confidence=Confidence.POSSIBLE if _dropped_by_a_filter(attempt) else Confidence.LIKELY,
        explanation="The connection's first packet has arrived and its answer has come back, so that the client takes "
        "the connection for made. The client's ACK, the third packet of the handshake, does not reach the server: the "
        "program never gets it. On one machine that is a firewall rule (one that looks at TCP's flags or at the "
        "connection's state), or a filter on the cgroup of either end."
        + (_COPY_PASSES if _rules_pass(snapshot, attempt) else ""),
        evidence=(*_first_freed(attempt), *_ack_evidence(attempt), connect_evidence(attempt)),
        remedies=_look_with_root(snapshot),
        explains=("firewall/silent", "resolution/prefers-other-family"),
    )


def _ack_evidence(attempt: Attempt) -> tuple[Evidence, ...]:
    """Why the half-open connection is no deferred accept."""
    half_open = Evidence(f"the server's end of our connection to {attempt.endpoint} is SYN-RECV", "sock_diag")
    match attempt.ack:
        case Known(value=AckWitness(distinct=True, held_back=False, source="TCPDeferAcceptDrop", probes=probes)):
            text = f"and not because it defers: of {probes} more connects the kernel held back fewer ACKs"
            return half_open, Evidence(text, "/proc/net/netstat TCPDeferAcceptDrop")
        case Known(value=AckWitness(distinct=True, held_back=False, counted=times)):
            return half_open, Evidence(f"it has sent its SYN-ACK again (times: {times})", "sock_diag idiag_retrans")
        case _:
            return (half_open,)


def _silent(snapshot: Snapshot, attempt: Attempt) -> Finding:
    dropped = _dropped_by_netfilter(attempt)
    excluded = _all_else_excluded(snapshot, attempt) and not _dropped_otherwise(attempt)
    passed = _rules_pass(snapshot, attempt)
    translated = may_be_translated(snapshot, attempt.address, attempt.port)
    beside = _beside_the_rules(snapshot, attempt)
    evidence = [connect_evidence(attempt), *beside]
    evidence += _first_freed(attempt)
    match attempt.queue:
        case Known(value=witness):
            text = (
                f"listener {witness.listener}: {witness.queue} of {witness.backlog} waiting, "
                f"drops {witness.drops_before} before and {witness.drops_after} after the probe"
            )
            evidence.append(Evidence(text, "sock_diag"))
        case _:
            pass
    where = "the packets vanish on this machine"
    outgoing = _forbidden_datagram(attempt)
    if outgoing is not None:
        evidence.append(Evidence(f"a UDP datagram {_whereto(attempt, outgoing)} is forbidden: EPERM", "send(2)"))
        where = where if outgoing.elsewhere else "packets vanish on their way out"
    forbidden = outgoing is not None and _queue_excluded(snapshot, attempt) and not _dropped_otherwise(attempt)
    return Finding(
        code=SILENT.code,
        title=title(f"No answer from {attempt.endpoint}: {where}"),
        severity=severity(snapshot, attempt),
        confidence=Confidence.LIKELY if (dropped or excluded or forbidden) and not translated else Confidence.POSSIBLE,
        explanation=(
            "The connection's first packet gets no answer of any kind. "
            + ("The listener is there, its queue has room and it dropped nothing. " if excluded else "")
            + ("The kernel names netfilter as what dropped it" if dropped else _MAY_SWALLOW)
            + (_OR_A_CONTAINER if translated else ".")
            + (" " + _ASKS_A_PROGRAM if beside else _COPY_PASSES if passed else _UNREAD)
            + (_FOR_UDP_PROVEN if outgoing else "")
        ),
        evidence=tuple(evidence),
        remedies=(_DETACH,) if beside else _look_with_root(snapshot),
        explains=("resolution/prefers-other-family",),
    )


_ASKS_A_PROGRAM = (
    "No rule stops it in a copy of the rules, but netfilter asks a BPF program as well, and its answer no copy can "
    "give: what it lets through shows on the machine only."
)
_DETACH = Remedy(
    summary="See who holds the BPF program (`bpftool link` lists it with the pid) and change its settings, or stop it: "
    "the program goes with the last that holds it, and comes back when that program starts again."
)


def _beside_the_rules(snapshot: Snapshot, attempt: Attempt) -> tuple[Evidence, ...]:
    """What decides about the packets and is no rule."""
    walk = snapshot.firewall.value.walk(attempt.address) if isinstance(snapshot.firewall, Known) else None
    return tuple(Evidence(str(program), "bpf(2)") for program in (walk.beside if walk is not None else ()))


_FOR_UDP_PROVEN = (
    " That something drops packets on their way out is proven for UDP only: the kernel tells a datagram's sender of "
    "such a drop, and leaves a TCP client waiting."
)


def _rules_pass(snapshot: Snapshot, attempt: Attempt) -> bool:
    """Whether the rules were read, and a copy of them lets this very connection pass."""
    walk = _walk_of(snapshot, attempt)
    return walk is not None and walk.verdict == "accept" and walk.decider is None


_MAY_SWALLOW = "A firewall rule or a filter on the cgroup of either end can swallow it so"
_UNREAD = " Which one does could not be read."
_COPY_PASSES = (
    " The rules of this network namespace were read, and a copy of them lets the connection pass: what stops it is no "
    "rule of theirs, or one that depends on what no copy has (counts, chance, whose process it is)."
)


def _dropped_otherwise(attempt: Attempt) -> bool:
    """Whether the kernel's drop reasons for our packets are known, and none of them is netfilter."""
    return isinstance(attempt.drops, Known) and bool(attempt.drops.value) and not _dropped_by_netfilter(attempt)


def _queue_excluded(snapshot: Snapshot, attempt: Attempt) -> bool:
    """Whether no accept queue can have dropped it: its listener's has room, or nothing listens."""
    match attempt.queue, snapshot.listeners:
        case Known(value=witness), _:
            return witness.drops_after == witness.drops_before and witness.queue <= witness.backlog
        case _, Known(value=rows):
            return not may_be_reached(rows, attempt.address, attempt.port)
        case _:
            return False


def _forbidden_datagram(attempt: Attempt) -> DatagramWitness | None:
    match attempt.datagram:
        case Known(value=DatagramWitness(forbidden=True) as witness):
            return witness
        case _:
            return None


def _whereto(attempt: Attempt, outgoing: DatagramWitness) -> str:
    others = "and to another port there" if outgoing.elsewhere else "and to no other port there"
    return f"to {attempt.endpoint} {others}"


def _all_else_excluded(snapshot: Snapshot, attempt: Attempt) -> bool:
    """A listener there, whose queue did not drop ours, and packets that the route leads to this machine itself.

    Each of them known: what could not be read excludes nothing.
    """
    if not (_listener_behind(snapshot, attempt) and isinstance(attempt.queue, Known)):
        return False
    return _queue_excluded(snapshot, attempt) and _led_to_this_machine(snapshot, attempt)


def _led_to_this_machine(snapshot: Snapshot, attempt: Attempt) -> bool:
    match snapshot.links, snapshot.routing:
        case Known(), Known(value=routing):
            lookup = routing.lookup(attempt.address)
            return lookup is not None and lookup.kind is RouteKind.LOCAL
        case _:
            return False


def _look_with_root(snapshot: Snapshot) -> tuple[Remedy, ...]:
    if snapshot.vantage.privileged:
        return (
            Remedy(
                summary="See which rules there are: nft list ruleset, iptables-legacy -S, ip6tables-legacy -S, and "
                "the programs attached to the cgroup (bpftool cgroup tree)."
            ),
        )
    again = Command(("netdiag", "run", snapshot.target.address), needs_root=True)
    summary = (
        "As root, netdiag reads the rules, and names the one that stops this connection, if one does. If it works for "
        "root, a rule may be for some users only: look for meta skuid and -m owner in what nft list ruleset and "
        "iptables-legacy -S print"
    )
    return (Remedy(summary=summary, commands=(again,)),)


def _on_the_way(snapshot: Snapshot, attempt: Attempt) -> Iterator[Finding]:
    """Another machine: what a client alone can know."""
    if attempt.outcome is Outcome.UNANSWERED:
        yield _no_answer_from_there(snapshot, attempt)
        return
    match sender(attempt, snapshot.routing, snapshot.links):
        case BoxOnTheWay(address=box, why=why, meaning=meaning) if _is_a_rule(meaning):
            where = f"A box on the way{f', {box},' if box else ''}"
            yield _rejected_far_away(snapshot, attempt, where, why, _ASK)
        case ThisMachine(why=why, meaning=meaning) if _is_a_rule(meaning):
            own = "This machine's own firewall"
            yield _rejected_far_away(snapshot, attempt, own, why, _look_with_root(snapshot)[0])
        case HostItself(why=why, meaning=meaning) if meaning is not None and _is_a_rule(meaning):
            yield _rejected_far_away(snapshot, attempt, f"The firewall of {attempt.address}", why, _ASK)
        case HostItself(why=why, meaning=None) | Undetermined(why=why) if attempt.outcome is Outcome.REFUSED and (
            there := listener_there(snapshot, attempt)
        ):
            yield _rejected_in_another_namespace(snapshot, attempt, there, why)
        case _:
            return


def _rejected_in_another_namespace(snapshot: Snapshot, attempt: Attempt, there: OtherListener, why: str) -> Finding:
    """The target is another network namespace of this machine: its listeners are known, its rules are not."""
    who = f"{there.process.program} (pid {there.process.pid})" if there.process else "A program"
    named = there.name if there.name and "/" not in there.name else None
    where = f"network namespace {named}" if named else f"the network namespace of process {there.init}"
    inside = run_inside(there, there.init, str(attempt.endpoint))
    return Finding(
        code=RULE_REJECTS.code,
        title=title(f"A reset answers for {attempt.endpoint}, where a server listens in another namespace"),
        severity=severity(snapshot, attempt),
        confidence=Confidence.LIKELY,
        explanation=f"{who} listens on {there.local} in {where} of this machine, which has the address "
        f"{attempt.address}, so its kernel would take the connection. A firewall rule there or on the way answered "
        "instead, unless another machine has the same address or the server has only just started.",
        evidence=(
            connect_evidence(attempt),
            Evidence(why, "raw reply"),
            Evidence(f"LISTEN {there.local} in {where}", "/proc/PID/net/tcp"),
        ),
        remedies=(
            Remedy(summary="Ask inside that namespace: as root, netdiag names the rule there", commands=(inside,)),
        ),
    )


def _is_a_rule(meaning: Meaning | None) -> bool:
    """A reset that the target did not send, or an ICMP error that only a rule makes of a TCP packet."""
    return meaning in (None, Meaning.PROHIBITED, Meaning.PORT_UNREACHABLE)


def _no_answer_from_there(snapshot: Snapshot, attempt: Attempt) -> Finding:
    ruleless = _has_no_rules(snapshot)
    came_in = dropped_here(attempt)
    if came_in is not None:
        text = f"the answer came in over {came_in.interface} while we waited, and did not get to our socket"
        return _silence_of(
            snapshot,
            attempt,
            f"The answer from {attempt.endpoint} is dropped on this machine",
            Confidence.LIKELY,
            "The other machine answers. Its answer reaches this machine and gets no further: "
            + ("a rule here drops it, or " if not ruleless else "this machine has no firewall rules, so ")
            + "the reverse-path filter (net.ipv4.conf.*.rp_filter) does, or the kernel takes it for no answer to this "
            "connection (wrong numbers or checksum).",
            _look_at_the_way_in(ruleless=ruleless),
            Evidence(text, "raw reply"),
        )
    if held_back(attempt):
        return _silence_of(
            snapshot,
            attempt,
            f"No packet to {attempt.endpoint} has left this machine",
            Confidence.POSSIBLE,
            "The next machine on the link may not answer for its address (ARP, neighbour discovery), for example "
            "because it is off"
            + (
                ". This machine has no firewall rules that could drop the packet."
                if ruleless
                else ", or a rule for outgoing packets here drops the packet: which of the two is not known."
            ),
            _look_at_the_way_out(attempt, ruleless=ruleless),
            Evidence("the capture of our own probe holds no outgoing packet", "raw packets"),
        )
    return _silence_of(
        snapshot,
        attempt,
        f"No answer at all from {attempt.endpoint}",
        Confidence.POSSIBLE,
        "Neither a connection nor a refusal came back. A firewall there or on the way, a host that is off, or a wrong "
        "address all look like this from here.",
        _look_there(attempt),
    )


def _has_no_rules(snapshot: Snapshot) -> bool:
    """Whether every rule set of this network namespace was looked at, and all are empty."""
    match snapshot.firewall:
        case Known(value=shadow):
            return shadow.rules == 0 and not shadow.uncarried
        case Unknown():
            return False


def _look_at_the_way_in(*, ruleless: bool) -> Remedy:
    rules = "" if ruleless else " and which rules it has (nft list ruleset, iptables-legacy -S, ip6tables-legacy -S)"
    return Remedy(
        summary="On this machine, see which counter rises with each attempt (nstat -az, IPReversePathFilter among "
        f"them){rules}."
    )


def _look_at_the_way_out(attempt: Attempt, *, ruleless: bool) -> Remedy:
    rules = "" if ruleless else " If it has answered, see the rules for outgoing packets (nft list ruleset)."
    return Remedy(
        summary=f"On this machine, see by which next machine the way leads (ip route get {attempt.address}) and "
        f"whether that has answered: ip neigh show lists it as FAILED or INCOMPLETE if not.{rules}"
    )


def _look_there(attempt: Attempt) -> Remedy:
    """What proves it: a connection that the host makes to itself goes by lo, which its rules may treat otherwise."""
    ours = attempt.source.address if attempt.source is not None else "this machine's address"
    return Remedy(
        summary=f"On {attempt.address} itself, see whether a program listens on port {attempt.port} for that address "
        f"(ss -ltn), whether packets from {ours} arrive while you try again (tcpdump -ni any tcp port {attempt.port}), "
        "and which rules apply to them (nft list ruleset, iptables -S INPUT). If no packet arrives, they are lost "
        "on the way. A test from that machine to itself proves nothing: it goes by the loopback interface, which its "
        "rules may treat otherwise."
    )


def _silence_of(
    snapshot: Snapshot,
    attempt: Attempt,
    headline: str,
    confidence: Confidence,
    explanation: str,
    remedy: Remedy,
    *seen: Evidence,
) -> Finding:
    return Finding(
        code=SILENT.code,
        title=title(headline),
        severity=severity(snapshot, attempt),
        confidence=confidence,
        explanation=explanation,
        evidence=(*seen, connect_evidence(attempt)),
        remedies=(remedy,),
    )


_ASK = Remedy(
    summary="Ask the administrator of that firewall to allow it: name your address, the target's, the port and TCP."
)


def _rejected_far_away(snapshot: Snapshot, attempt: Attempt, who: str, why: str, remedy: Remedy) -> Finding:
    """Likely at most: the rule itself is on another machine, or was not read."""
    return Finding(
        code=RULE_REJECTS.code,
        title=title(f"{who} rejects connections to {attempt.endpoint}"),
        severity=severity(snapshot, attempt),
        confidence=Confidence.LIKELY,
        explanation="The answer that ended the attempt did not come from the target's own TCP: a firewall or router "
        f"sent it. Clients get {attempt.errno or attempt.outcome.value}.",
        evidence=(Evidence(why, "the answer itself"), connect_evidence(attempt)),
        remedies=(remedy,),
    )


CHECK = Check(
    "firewall",
    (
        RULE_DROPS,
        RULE_REJECTS,
        POLICY_DROPS,
        REPLY_DROPPED,
        REDIRECTS,
        QUEUE_WITHOUT_READER,
        LIMITS_CONNECTIONS,
        SILENT,
    ),
    judge,
    premises=("names", "links"),
)
