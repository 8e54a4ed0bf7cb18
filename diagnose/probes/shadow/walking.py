"""From what the kernel told of a probe in the copy to the walk, in the names that the machine has for its rules."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, Protocol

from msgspec import Struct, field

from diagnose.model.attempt import Outcome
from diagnose.model.firewall import RuleRef, Step, Walk
from diagnose.model.network import Endpoint
from diagnose.parse import nft, xtables
from diagnose.parse.nft import Chain, ChainKey, Rule, TableKey
from diagnose.parse.nft_trace import Code, Event, Packet, PacketKind, Said
from diagnose.parse.rule_text import hide_in_rule
from diagnose.parse.xtables import Block
from diagnose.parse.xtables_state import Sibling
from diagnose.probes.shadow.copy import Copy
from diagnose.probes.shadow.probing import Matched, Met, Probe, arrival, queues_of, stops
from diagnose.probes.shadow.words import Words

_STOPPING = {Code.DROP: "drop", Code.STOLEN: "stolen", Code.QUEUE: "queue"}
_MAY_STOP = frozenset({"MASQUERADE"})
"""Targets that stop a packet when they find no address for it (nf_nat_masquerade.c)."""
_REWRITES = ("dnat", "redirect", "netmap")
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
        arrives = arrival(probe.events, self._copy.observer)
        one_way = stop is not None and stop.packet == "syn"
        if probe.met is None:
            steps += [step for table in probe.matched for step in self._legacy_steps(table, one_way=one_way)]
        else:
            steps += self._met_steps(probe.met)
        depends = tuple(dict.fromkeys(self._depends(probe, rules, stop)))
        stranded = stop is None and not probe.lost and _stranded(probe, evaluations, steps)
        verdict = "unroutable" if stranded else self._verdict(probe, stop, arrives)
        return Walk(
            address=probe.endpoint.address,
            port=probe.endpoint.port,
            outcome=probe.outcome,
            steps=tuple(steps),
            decider=None if stop is None else stop.rule,
            verdict=verdict,
            packet="syn" if stop is None else _whose(stop.packet),
            hook="" if stop is None else stop.hook,
            reject_with=None if stop is None else stop.reject_with,
            doubts=tuple(self._doubts(probe, stop, depends, verdict)),
            seen_as=None if stop is None else _seen_as(stop, probe.endpoint),
            depends=depends,
            arrives=arrives,
            leaves=probe.left is not None,
            came=probe.came,
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
            if event.code not in _STOPPING or event.said is Said.RETURN or event.bypass:
                continue
            reference = self._reader.reference(event)
            if reference is None:
                continue
            rule = self._copy.rules.get((event.chain.table, event.handle)) if event.said is Said.RULE else None
            reject = nft.reject_with(rule) if rule is not None and event.code is Code.DROP else None
            verdict = "reject" if reject else _STOPPING[event.code]
            queue = event.queue if event.code is Code.QUEUE else None
            hook = self._reader.hook(evaluation.base)
            yield Stop(evaluation.packet.kind, reference, verdict, reject, hook, evaluation.packet, queue)

    def _legacy_stop(
        self, probe: Probe, place: str, packet: PacketKind, evaluations: Sequence[Evaluation]
    ) -> Stop | None:
        """The rule of iptables-legacy that stopped a packet at this hook; None when it cannot be told."""
        six = ":" in probe.endpoint.address
        seen = [e.packet for e in evaluations if e.packet.kind == packet]
        if probe.met is not None:
            met = [one for one in probe.met if one.packet.kind == packet and one.block.layout.six == six]
            return self._stopped_by(met[-1], seen[-1]) if met and met[-1].hook == place else None
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
        return self._legacy_stop_by(*candidates[0], place, seen[-1])

    def _stopped_by(self, last: Met, headers: Packet) -> Stop | None:
        """The last entry that a packet met, if it is one that lets a packet go no further."""
        rule = last.entry
        if not isinstance(rule, xtables.Rule) or not (stops(rule) or rule.target in _MAY_STOP):
            return None
        return self._legacy_stop_by(last.block, rule, last.hook, headers)

    def _legacy_stop_by(self, block: Block, rule: xtables.Rule, hook: str, headers: Packet) -> Stop:
        reject = xtables.reject_with(rule, block.layout)
        queue = next(iter(queues_of(rule)), None)
        verdict = "queue" if queue is not None else "reject" if reject else "drop"
        return Stop(headers.kind, self._words.legacy(block, rule), verdict, reject, hook, headers, queue)

    def _met_steps(self, met: Iterable[Met]) -> Iterable[Step]:
        for one in met:
            rule = one.entry
            if isinstance(rule, xtables.Rule) and (rule.line or rule.policy):
                yield Step(one.packet.kind, one.hook, self._words.legacy(one.block, rule), _legacy_verdict(rule))

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
        for one in probe.met or ():
            sibling = one.entry
            kind = one.packet.kind
            if isinstance(sibling, Sibling) and kind in told and (sibling.cause != "sender" or kind == "syn-ack"):
                reference = self._words.legacy(one.block, sibling.rule)
                yield Step(kind, one.hook, reference, _legacy_verdict(sibling.rule))
        for table in probe.matched if probe.met is None else ():
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
            # sent elsewhere and refused there by the kernel's TCP, or out of here: the rules let it pass
            passed = probe.outcome.works or probe.left or (arrives and probe.outcome is Outcome.REFUSED)
            return "accept" if passed else "unknown"
        if self._read_queues(probe):
            return "unknown"
        if stop.verdict == "stolen":
            return "unknown"
        return "reject" if stop.verdict == "reject" else "drop"

    def _read_queues(self, probe: Probe) -> frozenset[int]:
        """The queues to which a rule handed packets of the probe, and that a program of the machine reads."""
        handed = {event.queue for event in probe.events if event.code is Code.QUEUE}
        for table in probe.matched:
            handed.update(queue for rule in table.rules for queue in queues_of(rule))
        return frozenset(self._copy.machine.queues.keys() & handed)

    def _doubts(self, probe: Probe, stop: Stop | None, depends: Sequence[Step], verdict: str) -> Iterable[str]:
        if probe.lost:
            yield "the kernel told more than could be read of this walk"
        if verdict == "unknown" and stop is None and not probe.lost:
            yield "the probe failed in the copy and the kernel named no rule"
        for queue in sorted(self._read_queues(probe)):
            yield f"a program on this machine decides about queue {queue}: {self._copy.machine.queues[queue]}"
        if stop is not None and stop.verdict == "stolen":
            yield "the rule takes the packet out of the way; what then happens to it is not told"
        for step in depends:
            shown = hide_in_rule(step.rule).text
            yield f"whether a rule matches depends on what no copy has (counts, chance, whose socket): {shown}"
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


def _stranded(probe: Probe, evaluations: Sequence[Evaluation], steps: Iterable[Step]) -> bool:
    """Whether the SYN went no further than the rule that changed its destination: the kernel found no way there.

    nf_nat looks the route up anew behind the output hook, and drops what has none (ip_route_me_harder, netfilter.c).
    """
    if any(stops(rule) for table in probe.matched for rule in table.rules):
        return False
    rewritten = any(step.verdict.partition(" ")[0] in _REWRITES for step in steps)
    return rewritten and _vanished(evaluations, "syn") == "output"


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
