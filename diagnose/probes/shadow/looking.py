"""The firewall's fact: what the machine's rules do to a connect to each endpoint."""

from __future__ import annotations

import errno
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING

import msgspec

from diagnose.model.attempt import Outcome
from diagnose.model.fact import NOT_LINUX, Fact, Known, Reason, Unknown
from diagnose.model.firewall import Approach, Dialled, Rehearsed, RuleRef, Shadow, Walk, endpoint_of
from diagnose.model.network import Endpoint
from diagnose.pace import patient
from diagnose.probes.bounded import NO_THREAD, started

if TYPE_CHECKING:
    from diagnose.parse.nft import Ruleset
    from diagnose.parse.xtables import Block
    from diagnose.probes.shadow.copy import Copy
    from diagnose.probes.shadow.machine import Machine
    from diagnose.probes.shadow.probing import Probe, Prober
    from diagnose.probes.shadow.words import Words

_LIFT = "run it again with sudo"
_NAMESPACES = "raise user.max_net_namespaces"
_CHOSEN_AGAIN: Mapping[Endpoint, int] = MappingProxyType({})
_TOO_LATE = Unknown(Reason.DEADLINE, "no time was left to try the remedies in the copy")
_RESERVE = 0.1
"""Seconds before the deadline at which a tool that has not printed its rules yet is left out."""
_COPYING = 2
"""Writing the rule sets and listing them again takes this many times as long as reading them, at the very least."""
_OTHER_ADDRESSES = 4
"""So many of the machine's other addresses are tried in the copy for a port that nothing listens on."""
_PATIENCE = patient(1.5)
"""Seconds after which no rehearsal should be under way."""


def look(dialled: Sequence[Dialled], deadline: float, near: Mapping[Endpoint, int] = _CHOSEN_AGAIN) -> Fact[Shadow]:
    """Walks a copy of the rule sets of this network namespace to each of these local endpoints; `deadline` in seconds.

    With no endpoint, it is only counted which rules there are.

    `near`: the port from which each of them was dialled on the machine, for rules may ask for it; without it the
    kernel chooses one.
    Needs CAP_NET_ADMIN to read the rules and CAP_SYS_ADMIN for the copy; changes nothing on the machine.
    """
    if sys.platform != "linux":
        return NOT_LINUX
    until = time.monotonic() + deadline
    try:
        return _beside_programs(_looked(dialled, until, near))
    except PermissionError as error:
        return Unknown(Reason.NEEDS_ROOT, f"the rule sets cannot be read: {error.strerror}", _LIFT)
    except TimeoutError:
        return Unknown(Reason.DEADLINE, "there are more rules than can be read and copied in time")
    except OSError as error:
        reason = Reason.UNPARSABLE if error.errno == errno.EFBIG else Reason.FAILED
        return Unknown(reason, f"the rule sets cannot be read: {error.strerror}")
    except ValueError as error:
        return Unknown(Reason.UNPARSABLE, f"the rule sets cannot be read: {error}")


def _looked(dialled: Sequence[Dialled], until: float, near: Mapping[Endpoint, int]) -> Fact[Shadow]:
    """The fact, looked at again when the rule sets changed meanwhile; errors of the reading are raised."""
    from diagnose.probes.shadow.presence import any_table

    if not any_table(max(0.05, until - time.monotonic())):
        return Known(Shadow(tuple(map(_untouched, dialled))))
    # only a machine that has rules pays for these imports
    from diagnose.probes.shadow import machine, netfilter

    for attempt in range(2):
        begun = time.monotonic()
        rules = netfilter.dump(begun + (until - begun) / (1 + _COPYING))
        blocks = machine.blocks()
        ended = time.monotonic()
        if ended + _COPYING * (ended - begun) > until:
            raise TimeoutError
        if not rules.tables and not blocks:
            return Known(Shadow(tuple(map(_untouched, dialled))))
        if not dialled:
            return Known(Shadow((), rules=machine.size(rules, blocks)))
        fact = _Expedition(rules, blocks, dialled, near, until).fact()
        if time.monotonic() >= until:
            return _doubted(fact, "no time was left to see whether the rule sets had changed meanwhile")
        if not machine.changed(rules, blocks):
            break
        if attempt:
            return _doubted(fact, "the rule sets changed while they were looked at")
    return fact


def _doubted(fact: Fact[Shadow], doubt: str) -> Fact[Shadow]:
    """The fact with one more doubt about each walk."""
    match fact:
        case Known(value=shadow):
            walks = tuple(msgspec.structs.replace(walk, doubts=(*walk.doubts, doubt)) for walk in shadow.walks)
            return Known(msgspec.structs.replace(shadow, walks=walks))
        case Unknown():
            return fact


def _beside_programs(fact: Fact[Shadow]) -> Fact[Shadow]:
    """The fact with the BPF programs that netfilter asks beside the rules."""
    from diagnose.probes import bpf

    try:
        programs = [one for one in bpf.netfilter_programs() if one.hook != "forward"]
    except OSError as error:
        return _doubted(fact, f"whether netfilter asks a BPF program as well could not be seen: {error.strerror}")
    if isinstance(fact, Unknown) or not programs:
        return fact
    walks = tuple(
        msgspec.structs.replace(walk, beside=tuple(one for one in programs if _is_asked(one.family, walk)))
        for walk in fact.value.walks
    )
    return Known(msgspec.structs.replace(fact.value, walks=walks))


def _is_asked(family: str, walk: Walk) -> bool:
    return family == ("ip6" if ":" in walk.address else "ip")


def _untouched(dialled: Dialled) -> Walk:
    endpoint = endpoint_of(dialled)
    came = dialled if isinstance(dialled, Approach) else None
    return Walk(endpoint.address, endpoint.port, Outcome.CONNECTED, (), None, "accept", came=came)


class _Expedition:
    """A thread that enters a namespace of its own, and what it brings back."""

    def __init__(
        self,
        rules: Ruleset,
        blocks: tuple[Block, ...],
        dialled: Sequence[Dialled],
        near: Mapping[Endpoint, int],
        until: float,
    ) -> None:
        self._rules = rules
        self._blocks = blocks
        self._dialled = dialled
        self._near = near
        self._until = until
        self._begun = time.monotonic()
        self._cost = 0.0
        """Seconds that the first copy and its probes took."""
        self._unsure = ""
        """Why what mends the copy need not mend the machine."""
        self._mistake: Exception | None = None
        self._fact: Fact[Shadow] = Unknown(Reason.DEADLINE, "the copy of the rule sets was not ready in time")

    def fact(self) -> Fact[Shadow]:
        """What it brought back in time."""
        # a network namespace belongs to a thread: nothing of it is left when the thread ends, or the process dies
        tasks = started([self._run])
        if not tasks:
            return NO_THREAD
        tasks[0].wait(self._until - time.monotonic())
        if self._mistake is not None:
            raise self._mistake
        return self._fact

    def _run(self) -> None:
        try:
            self._fact = self._told()
        except Exception as mistake:  # noqa: BLE001 (raised again in the thread that asked)
            self._mistake = mistake

    def _told(self) -> Fact[Shadow]:
        from diagnose.probes.shadow.libc import NoNamespaceError

        try:
            return self._shadow()
        except NoNamespaceError:
            detail = "a network namespace for the copy of the rule sets cannot be made without CAP_SYS_ADMIN"
            return Unknown(Reason.NEEDS_ROOT, detail, "run it on the host itself, with sudo")
        except TimeoutError:
            return Unknown(Reason.DEADLINE, "the copy of the rule sets was not ready in time")
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EUSERS):  # unshare(2): a limit of /proc/sys/user (namespaces(7))
                detail = "no network namespace for the copy of the rule sets is to be had (user.max_net_namespaces)"
                return Unknown(Reason.FAILED, detail, _NAMESPACES)
            name = errno.errorcode.get(error.errno or 0, "")
            return Unknown(Reason.FAILED, f"the copy of the rule sets could not be made: {error.strerror} {name}")
        except ValueError as error:
            return Unknown(Reason.UNPARSABLE, f"the copy of the rule sets cannot be read: {error}")

    def _shadow(self) -> Fact[Shadow]:
        from diagnose.probes.shadow import owners
        from diagnose.probes.shadow.copy import shared_priorities
        from diagnose.probes.shadow.words import Asking, Words

        asking = Asking(self._rules, self._blocks)
        try:
            machine = self._machine()
            begun = time.monotonic()
            with self._copied(machine) as (copy, prober):
                probes = self._probes(prober)
                listings = asking.listings(self._until - _RESERVE)
                words = Words(self._rules, self._blocks, listings)
                walks = [
                    self._with_other_addresses(copy, prober, words, walk) for walk in self._walks(copy, probes, words)
                ]
                self._cost = time.monotonic() - begun
                shadow = Shadow(
                    tuple(map(_unrehearsed, walks)),
                    tuple(copy.uncarried),
                    machine.size,
                    tuple(listings.complaints),
                    owners.at_work(walks),
                    listings.late,
                )
                self._unsure = _unsure(copy)
                shared = shared_priorities(machine)
                if not shared:
                    return self._rehearsed(shadow, machine, walks, words, (copy, prober))
            walks = self._in_the_other_order(machine, walks, words, shared)
            return self._rehearsed(shadow, machine, walks, words)
        finally:
            asking.end()

    def _probes(self, prober: Prober) -> list[Probe]:
        """The connects as they were made on the machine; once in a copy, which remembers each (conntrack)."""
        return [prober.probe(one, self._until, self._near.get(endpoint_of(one), 0)) for one in self._dialled]

    def _machine(self) -> Machine:
        from diagnose.probes import sockets
        from diagnose.probes.shadow import machine

        links, addresses = machine.links(1.0)
        listening = sockets.look(()).listeners
        rows = listening.value if isinstance(listening, Known) else ()
        ip_sets = machine.ip_sets(self._rules, self._blocks, 1.0)
        known, hidden = machine.sysctls(machine.rerouting(self._rules, self._blocks, addresses))
        return machine.Machine(
            self._rules,
            self._blocks,
            addresses,
            links,
            known,
            rows,
            ip_sets,
            machine.local_table_first(1.0),
            machine.queues(),
            hidden,
            isinstance(listening, Known),
        )

    @contextmanager
    def _copied(
        self, machine: Machine, *, backwards: bool = False, rehearsal: bool = False
    ) -> Iterator[tuple[Copy, Prober]]:
        from diagnose.probes.shadow.copy import Copy
        from diagnose.probes.shadow.probing import Prober

        addresses = {endpoint_of(one).address.partition("%")[0] for one in self._dialled}
        interfaces = {one.interface for one in self._dialled if isinstance(one, Approach)}
        # siblings would shift the line numbers that the commands of a rehearsal name
        copy = Copy(machine, addresses, self._until, interfaces=interfaces, backwards=backwards, siblings=not rehearsal)
        try:
            copy.sow()
            copy.observe()
            prober = Prober(copy, self._dialled)
            try:
                yield copy, prober
            finally:
                prober.close()
        finally:
            copy.close()

    def _walks(self, copy: Copy, probes: Sequence[Probe], words: Words) -> list[Walk]:
        """The walks, with a decider in the words of iptables-nft only where these words make that very rule.

        Without the rules' comments: whatever is told, recorded or made of a walk has none.
        """
        from diagnose.parse.rule_text import hide_in_walk
        from diagnose.probes.shadow import proof
        from diagnose.probes.shadow.walking import Walker

        walker = Walker(copy, words)
        walks = [walker.walk(probe) for probe in probes]
        for decider in {walk.decider for walk in walks if walk.decider is not None}:
            rule = words.claimed(decider)
            if rule is None or copy.writer is None:
                continue
            if not proof.prints(rule, decider.text, copy.writer, self._until):
                words.native.add((rule.chain.table, rule.handle))
        if words.native:
            walks = [walker.walk(probe) for probe in probes]
        return list(map(hide_in_walk, walks))

    def _with_other_addresses(self, copy: Copy, prober: Prober, words: Words, walk: Walk) -> Walk:
        """The walk with the machine's other addresses at which NAT leads on what nothing listens for where it went.

        kube-proxy's nftables mode serves a NodePort on the node's addresses and not on loopback.
        """
        from diagnose.probes.shadow.machine import changes_addresses
        from diagnose.probes.shadow.walking import Walker

        asked = Endpoint(walk.address, walk.port)
        nats = changes_addresses(self._rules, self._blocks)
        if not nats or walk.came is not None or walk.arrives is not None or not prober.stands_in_at(asked):
            return walk
        walker = Walker(copy, words)
        others = [walker.walk(probe) for probe in prober.at_other_addresses(asked, _OTHER_ADDRESSES, self._until)]
        led_on = (one for one in others if one.arrives is not None or one.verdict == "unroutable")
        return msgspec.structs.replace(walk, served_at=tuple(Endpoint(one.address, one.port) for one in led_on))

    def _in_the_other_order(
        self, machine: Machine, walks: list[Walk], words: Words, shared: tuple[str, ...]
    ) -> list[Walk]:
        """A doubt for each walk that ends otherwise where chains of one priority run in the other order.

        The kernel runs the last registered first, and tells nobody which that was.
        """
        from diagnose.parse.rule_text import hide_in_walk
        from diagnose.probes.shadow.walking import Walker

        with self._copied(machine, backwards=True) as (copy, prober):
            walker = Walker(copy, words)
            others = [hide_in_walk(walker.walk(probe)) for probe in self._probes(prober)]
        return [_compared(one, other, shared) for one, other in zip(walks, others, strict=True)]

    def _rehearsed(
        self,
        shadow: Shadow,
        machine: Machine,
        walks: list[Walk],
        words: Words,
        spare: tuple[Copy, Prober] | None = None,
    ) -> Fact[Shadow]:
        """The shadow with these walks and their rehearsals; without them it stands from now on, if time runs out."""
        from diagnose.analysis.firewall_remedies import candidates
        from diagnose.probes.shadow.rehearsing import Latest, Rehearsals

        self._fact = Known(msgspec.structs.replace(shadow, walks=tuple(map(_unrehearsed, walks))))
        latest = Latest(self._cost, self._begun + _PATIENCE, self._until)
        rehearsals = Rehearsals(lambda: self._copied(machine, rehearsal=True), spare, words, latest)
        found: list[Walk] = []
        for walk in walks:
            if not candidates(walk):
                found.append(walk)
                continue
            tried: Fact[tuple[Rehearsed, ...]]
            if self._unsure:
                tried = Unknown(Reason.FAILED, self._unsure)
                found.append(msgspec.structs.replace(walk, rehearsals=tried))
                continue
            try:
                tried = Known(rehearsals.of(walk, self._dialled))
            except TimeoutError:
                tried = _TOO_LATE
            found.append(msgspec.structs.replace(walk, rehearsals=tried))
        return Known(msgspec.structs.replace(shadow, walks=tuple(found)))


def _unsure(copy: Copy) -> str:
    if copy.doubts:
        return f"the copy is not whole: {'; '.join(copy.doubts)}"
    causes = {cause for _, cause in copy.siblings.values()}
    causes.update(sibling.cause for table in copy.tables for sibling in table.siblings)
    if "sender" in causes:
        # what the first walk does not meet, because it ends before, a mended one may
        return "rules ask for the group or cgroup behind an answer, which in the copy is netdiag's own"
    return ""


def _unrehearsed(walk: Walk) -> Walk:
    from diagnose.analysis.firewall_remedies import candidates

    return msgspec.structs.replace(walk, rehearsals=_TOO_LATE) if candidates(walk) else walk


def _compared(one: Walk, other: Walk, shared: tuple[str, ...]) -> Walk:
    if (one.decider, one.outcome, one.verdict, one.arrives) == (
        other.decider,
        other.outcome,
        other.verdict,
        other.arrives,
    ):
        return one
    found = f"it ends with {_name(other.decider)}" if other.decider is not None else f"it is {other.outcome.value}"
    if other.decider is None and other.arrives != one.arrives:
        found += f" at {other.arrives or other.address}"
    doubt = f"in which order these run cannot be read, and in the other order {found}: {'; '.join(shared)}"
    return msgspec.structs.replace(one, doubts=(*one.doubts, doubt))


def _name(rule: RuleRef) -> str:
    return f"{rule.family} {rule.table} {rule.chain}: {rule.text}"
