"""From what the kernel told of a probe in the copy to the walk, in the names that the machine has for its rules."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, Protocol

from msgspec import Struct, field

from diagnose.model.attempt import Outcome
from diagnose.model.firewall import RuleRef, Step, Walk
from diagnose.model.network import Endpoint
from diagnose.parse import nft, xtables
from diagnose.parse.nfnetlink import BYTE_ORDER
from diagnose.parse.nft import Chain, ChainKey, Rule, TableKey
from diagnose.parse.nft_trace import Code, Event, Packet, PacketKind, Said
from diagnose.parse.xtables import Block
from diagnose.probes.shadow.copy import Copy
from diagnose.probes.shadow.probing import Matched, Probe, stops
from diagnose.probes.shadow.words import Words

_STOPPING = {Code.DROP: "drop", Code.STOLEN: "stolen", Code.QUEUE: "queue"}
_ORDER: tuple[PacketKind, ...] = ("syn", "syn-ack", "other", "reset", "icmp")
"""The packets of a connect as each follows from the one before; other: the client's last of the handshake.

A reset and an ICMP error answer one of these: who stops the answer has not stopped the connection.
"""
_ROUTE = (
    "output_in",
    "output_out",
    "postrouting_in",
    "postrouting_out",
    "prerouting_in",
    "prerouting_out",
    "input_in",
    "input_out",
)
"""The observers in the order in which a packet to oneself meets them."""


class Evaluation(Struct):
    """One packet's way through one base chain, and the chains that it jumps to."""

    packet: Packet
    base: ChainKey
    events: list[Event] = field(default_factory=list)


class Stop(Struct, frozen=True):
    """A rule or policy that let a packet go no further."""

    packet: PacketKind
    rule: RuleRef
    verdict: str
    reject_with: str | None
    hook: str
    headers: Packet | None
    queue: int | None = None


class Names(Protocol):
    """What people call a rule or a policy."""

    def rule(self, rule: Rule) -> RuleRef:
        """A rule of nf_tables."""

    def policy(self, chain: Chain) -> RuleRef:
        """The policy of a base chain."""


class Reader:
    """Reads the kernel's trace messages as steps, by the rules of the namespace that they are from."""

    def __init__(self, rules: Mapping[tuple[TableKey, int], Rule], chains: Iterable[Chain], names: Names) -> None:
        self._rules = rules
        self._chains = {chain.key: chain for chain in chains}
        self._names = names

    def steps(self, evaluation: Evaluation) -> Iterable[Step]:
        """What happened to one packet in one base chain."""
        hook = self.hook(evaluation.base)
        for event in evaluation.events:
            reference = self.reference(event)
            if reference is None:
                continue
            yield Step(evaluation.packet.kind, hook, reference, self._said(event))

    def reference(self, event: Event) -> RuleRef | None:
        """The rule or policy that a message is about; None: it is none of these rules."""
        if event.said is Said.POLICY:
            chain = self._chains.get(event.chain)
            return None if chain is None else self._names.policy(chain)
        rule = self._rules.get((event.chain.table, event.handle))
        return None if rule is None else self._names.rule(rule)

    def _said(self, event: Event) -> str:
        if event.code in (Code.JUMP, Code.GOTO):
            return f"{event.code.name.lower()} {nft.readable(event.target)}"
        rule = self._rules.get((event.chain.table, event.handle)) if event.said is Said.RULE else None
        if rule is not None and event.code is Code.DROP and nft.reject_with(rule):
            return "reject"
        if rule is not None and event.code is Code.ACCEPT:
            return nft.rewrites(rule) or "accept"
        return event.code.name.lower()

    def hook(self, base: ChainKey) -> str:
        """Where a base chain is hooked in; empty: not known."""
        chain = self._chains.get(base)
        return "" if chain is None or chain.hook is None else chain.hook.name


class Walker:
    """Reads the probes of one copy."""

    def __init__(self, copy: Copy, words: Words) -> None:
        self._copy = copy
        self._words = words
        self._reader = Reader(copy.rules, copy.carried.chains, words)

    def walk(self, probe: Probe) -> Walk:
        """What the probe met."""
        evaluations = list(evaluated(probe.events))
        rules = [e for e in evaluations if e.base.table.name != self._copy.observer]
        steps = [step for e in rules for step in self._reader.steps(e)]
        stop = None if probe.outcome.works else self._stop(probe, rules, evaluations)
        arrives = _arrival(probe.events, self._copy.observer)
        one_way = stop is not None and stop.packet == "syn"
        steps += [step for table in probe.matched for step in self._legacy_steps(table, one_way=one_way)]
        depends = tuple(dict.fromkeys(self._depends(probe, rules, stop)))
        return Walk(
            address=probe.endpoint.address,
            port=probe.endpoint.port,
            outcome=probe.outcome,
            steps=tuple(steps),
            decider=None if stop is None else stop.rule,
            verdict=self._verdict(probe, stop, arrives),
            packet="syn" if stop is None else _whose(stop.packet),
            hook="" if stop is None else stop.hook,
            reject_with=None if stop is None else stop.reject_with,
            doubts=tuple(self._doubts(probe, stop, depends, arrives)),
            seen_as=None if stop is None else _seen_as(stop, probe.endpoint),
            depends=depends,
            arrives=arrives,
            reader=None if stop is None or stop.queue is None else self._copy.machine.queues.get(stop.queue),
        )

    # ------ who stopped it

    def _stop(self, probe: Probe, rules: Sequence[Evaluation], all_of_them: Sequence[Evaluation]) -> Stop | None:
        """The first packet of the connection that was stopped, and by what; None when it cannot be told."""
        for packet in _ORDER:
            native = [s for e in rules if e.packet.kind == packet for s in self._native_stops(e)]
            if native:
                return native[0]
            place = _vanished(all_of_them, packet)
            if place is not None:
                return self._legacy_stop(probe, place, packet, all_of_them)
        return None

    def _native_stops(self, evaluation: Evaluation) -> Iterable[Stop]:
        for event in evaluation.events:
            if event.code not in _STOPPING or event.said is Said.RETURN:
                continue
            reference = self._reader.reference(event)
            if reference is None:
                continue
            rule = self._copy.rules.get((event.chain.table, event.handle)) if event.said is Said.RULE else None
            reject = nft.reject_with(rule) if rule is not None and event.code is Code.DROP else None
            verdict = "reject" if reject else _STOPPING[event.code]
            if rule is not None and nft.rewrites(rule) is not None:
                # no address to rewrite to (nf_nat_masquerade.c): one that the machine may have, and the copy has not
                verdict = "stolen"
            queue = event.queue if event.code is Code.QUEUE else None
            hook = self._reader.hook(evaluation.base)
            yield Stop(evaluation.packet.kind, reference, verdict, reject, hook, evaluation.packet, queue)

    def _legacy_stop(
        self, probe: Probe, place: str, packet: PacketKind, evaluations: Sequence[Evaluation]
    ) -> Stop | None:
        """The one rule of iptables-legacy that can have stopped a packet at this hook."""
        six = ":" in probe.endpoint.address
        found = [
            (table.block, rule)
            for table in probe.matched
            if table.block.layout.six == six
            for rule in table.rules
            if stops(rule) and rule.hook in (None, place)
        ]
        candidates = _narrowed(found, place, evaluations)
        if len(candidates) != 1:
            return None
        block, rule = candidates[0]
        reject = xtables.reject_with(rule, block.layout)
        queue = int.from_bytes(rule.data[:2], BYTE_ORDER) if rule.target == "NFQUEUE" else None
        verdict = "queue" if queue is not None else "reject" if reject else "drop"
        seen = [e.packet for e in evaluations if e.packet.kind == packet]
        return Stop(packet, self._words.legacy(block, rule), verdict, reject, place, seen[-1], queue)

    def _legacy_steps(self, table: Matched, *, one_way: bool) -> Iterable[Step]:
        for rule in table.rules:
            if rule.line == 0 and not rule.policy:
                continue
            reference = self._words.legacy(table.block, rule)
            yield Step("syn" if one_way else "other", rule.hook or "", reference, _legacy_verdict(rule))

    # ------ what the copy cannot know

    def _depends(self, probe: Probe, rules: Sequence[Evaluation], stop: Stop | None) -> Iterable[Step]:
        """The rules of which a copy cannot tell whether they match, and that would match otherwise."""
        told: tuple[PacketKind, ...] = (
            ("syn",) if stop is not None and stop.packet == "syn" else ("syn", "syn-ack", "other")
        )
        for evaluation in rules:
            for event in evaluation.events if evaluation.packet.kind in told else ():
                rule, cause = self._copy.siblings.get((event.chain.table, event.handle), (None, None))
                if rule is not None and (cause != "sender" or evaluation.packet.kind == "syn-ack"):
                    yield Step(
                        evaluation.packet.kind,
                        self._reader.hook(evaluation.base),
                        self._words.rule(rule),
                        nft.intent(rule),
                    )
        for table in probe.matched:
            for sibling in table.siblings:
                if sibling.cause != "sender" or len(told) > 1:
                    reference = self._words.legacy(table.block, sibling.rule)
                    yield Step("other", sibling.rule.hook or "", reference, _legacy_verdict(sibling.rule))
        for rule in self._copy.unprobed:
            yield Step("other", "", self._words.rule(rule), nft.intent(rule))

    # ------ what is to be thought of it

    def _verdict(
        self, probe: Probe, stop: Stop | None, arrives: Endpoint | None
    ) -> Literal["accept", "drop", "reject", "unknown"]:
        if probe.lost:
            return "unknown"
        if stop is None:
            # sent elsewhere and refused there by the kernel's TCP: the rules let it pass
            return "accept" if probe.outcome.works or (arrives and probe.outcome is Outcome.REFUSED) else "unknown"
        if stop.queue is not None and stop.queue in self._copy.machine.queues:
            return "unknown"
        if stop.verdict == "stolen":
            return "unknown"
        return "reject" if stop.verdict == "reject" else "drop"

    def _doubts(
        self, probe: Probe, stop: Stop | None, depends: Sequence[Step], arrives: Endpoint | None
    ) -> Iterable[str]:
        if probe.lost:
            yield "the kernel told more than could be read of this walk"
        if self._verdict(probe, stop, arrives) == "unknown" and stop is None and not probe.lost:
            yield "the probe failed in the copy and the kernel named no rule"
        if stop is not None and stop.queue is not None and stop.queue in self._copy.machine.queues:
            yield f"a program on this machine decides about queue {stop.queue}: {self._copy.machine.queues[stop.queue]}"
        if stop is not None and stop.verdict == "stolen":
            yield "the rule takes the packet out of the way; what then happens to it is not told"
        for step in depends:
            yield f"whether a rule matches depends on what no copy has (counts, chance, whose socket): {step.rule.text}"
        yield from (f"not copied: {part}" for part in self._copy.doubts)


def _narrowed(
    found: list[tuple[Block, xtables.Rule]], place: str, evaluations: Sequence[Evaluation]
) -> list[tuple[Block, xtables.Rule]]:
    """Of several rules that stopped packets of one connection, those that can have stopped the first."""
    for answer in ("reset", "icmp"):
        # a rule answered the first packet, and another stopped the answer
        if len(found) > 1 and any(e.packet.kind == answer for e in evaluations):
            rejects = [(b, r, xtables.reject_with(r, b.layout)) for b, r in found]
            return [(b, r) for b, r, how in rejects if how is not None and (how == "tcp reset") == (answer == "reset")]
    return found if len(found) == 1 else [one for one in found if one[1].hook == place]


def _legacy_verdict(rule: xtables.Rule) -> str:
    verdict = rule.target.lower() or "continue"
    return f"{verdict} {rule.destination}" if rule.destination is not None else verdict


def _whose(packet: PacketKind) -> Literal["syn", "reply", "ack"]:
    if packet == "syn":
        return "syn"
    return "ack" if packet == "other" else "reply"


def _seen_as(stop: Stop, dialled: Endpoint) -> Endpoint | None:
    headers = stop.headers
    if headers is None or stop.packet == "icmp":
        return None
    if stop.packet in ("syn", "other"):
        server = Endpoint(headers.destination, headers.destination_port)
    else:
        server = Endpoint(headers.source, headers.source_port)
    return None if server == Endpoint(dialled.address.partition("%")[0], dialled.port) else server


def _arrival(events: Iterable[Event], observer: bytes) -> Endpoint | None:
    """Where the SYN was going when it was last seen, if not where it was going at first."""
    seen = [
        Endpoint(event.packet.destination, event.packet.destination_port)
        for event in events
        if event.chain.table.name == observer and event.packet is not None and event.packet.kind == "syn"
    ]
    return seen[-1] if seen and seen[-1] != seen[0] else None


def evaluated(events: Iterable[Event]) -> Iterable[Evaluation]:
    """The messages by packet and base chain.

    The first of each has the headers. Walks can be nested (the reset of a reject rule goes out before the rule's own
    verdict is told), so the messages that follow are joined by the packet's id.
    """
    current: dict[int, Evaluation] = {}
    order: list[Evaluation] = []
    for event in events:
        if event.packet is not None:
            current[event.packet_id] = Evaluation(event.packet, event.chain)
            order.append(current[event.packet_id])
        if event.packet_id in current:
            current[event.packet_id].events.append(event)
    return order


def _vanished(evaluations: Sequence[Evaluation], packet: PacketKind) -> str | None:
    """The hook at which such a packet came in and did not go out; None: there was none, or it arrived."""
    seen = [nft.readable(e.base.name) for e in evaluations if e.packet.kind == packet]
    places = [place for place in _ROUTE if place in seen]
    if not places or places[-1] == "input_out":
        return None
    hook, _, side = places[-1].rpartition("_")
    return hook if side == "in" else "ingress"
