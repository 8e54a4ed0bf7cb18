"""The same connect as on the machine, made in the copy, with the kernel telling what its rules do to each packet."""

from __future__ import annotations

import errno
import os
import select
import socket
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack

from msgspec import Struct

from diagnose.model.attempt import Outcome
from diagnose.model.firewall import Approach, Dialled, End, endpoint_of
from diagnose.model.network import Endpoint, SocketRow, family_of, is_wildcard
from diagnose.pace import patient
from diagnose.parse import nft_trace, xt_trace, xtables
from diagnose.parse.nfnetlink import BYTE_ORDER
from diagnose.parse.nft_trace import Code, Event, Packet
from diagnose.parse.xtables import Block
from diagnose.parse.xtables_state import Extended, Sibling
from diagnose.probes.connect import outcome_of, report_icmp_errors
from diagnose.probes.shadow import legacy, libc
from diagnose.probes.shadow.copy import Copy
from diagnose.probes.shadow.netfilter import EntryTracer, Tracer
from diagnose.probes.shadow.outside import UNIVERSE, Cable

_PATIENCE = patient(0.25)
"""Seconds for a probe whose packets vanish without a rule that the kernel names."""
_KNOCK = patient(0.02)
"""Seconds for a packet from the network that vanishes without a rule that the kernel names."""
_AFTERMATH = patient(0.003)
"""Seconds for the reset or ICMP error of a rule that the kernel has already named."""
_LISTENERS = 1024
"""So many of the machine's listeners are stood in for at most."""
_STOPPING = frozenset({Code.DROP, Code.STOLEN, Code.QUEUE})


class Matched(Struct, frozen=True):
    """The rules of one table of iptables-legacy that a probe met, and the siblings of rules that it might have met."""

    block: Block
    rules: tuple[xtables.Rule, ...]
    siblings: tuple[Sibling, ...]


class Met(Struct, frozen=True):
    """A packet of a probe met a rule or policy of iptables-legacy, or a sibling."""

    packet: Packet
    hook: str
    block: Block
    entry: xtables.Rule | Sibling


class Probe(Struct, frozen=True):
    """One connect in the copy."""

    endpoint: Endpoint
    outcome: Outcome
    source: Endpoint | None
    events: tuple[Event, ...]
    lost: bool
    """Trace messages were lost: what they said is not known."""
    matched: tuple[Matched, ...]
    met: tuple[Met, ...] | None = None
    """What each packet met in iptables-legacy, in order; None: this kernel tells no more than `matched`."""
    left: Endpoint | None = None
    """Where the SYN was sent out of this network namespace, past every rule."""
    came: Approach | None = None
    """None: it was made in the copy itself."""
    end: End = End.UNTOLD


class Prober:
    """Listeners like the machine's, and a socket for the kernel's trace, in the namespace of this thread."""

    def __init__(self, copy: Copy, dialled: Sequence[Dialled]) -> None:
        endpoints = [endpoint_of(one) for one in dialled]
        self._copy = copy
        self._stack = ExitStack()
        self._tracer = Tracer()
        self._stack.callback(self._tracer.close)
        self._entries = self._entry_tracer()
        self._listeners: list[tuple[socket.socket, End]] = []
        for row in _first(copy.machine.listeners, endpoints):
            self._listen(row.local, row.uid, v6only=row.v6only, device=row.device)
        self._stand_ins = frozenset(one for one in endpoints if self._listen(one, os.geteuid(), self._own_end()))

    def _own_end(self) -> End:
        """What a listener of the copy's own shows: nothing, where the machine's could not be read."""
        return End.STAND_IN if self._copy.machine.listeners_known else End.UNTOLD

    def stands_in_at(self, endpoint: Endpoint) -> bool:
        """Whether only the copy has a listener there, and not the machine."""
        return self._copy.machine.listeners_known and endpoint in self._stand_ins

    def close(self) -> None:
        """Give the sockets back."""
        self._stack.close()

    def listen_on_the_face(self) -> None:
        """Stand-ins for the listeners at addresses that the copy was given only now."""
        faces = {address.address for address in self._copy.face}
        for row in _first([one for one in self._copy.machine.listeners if one.local.address in faces], ()):
            self._listen(row.local, row.uid, v6only=row.v6only, device=row.device)

    def _entry_tracer(self) -> EntryTracer | None:
        if not self._copy.entries_traced:
            return None
        try:
            tracer = EntryTracer()
        except OSError:
            return None  # a kernel without this log: what is left are the counters
        self._stack.callback(tracer.close)
        return tracer

    def _listen(
        self,
        endpoint: Endpoint,
        uid: int,
        end: End = End.LISTENER,
        *,
        v6only: bool | None = None,
        device: str | None = None,
    ) -> bool:
        """A listener with the owner that the machine's has, which is who owner rules see behind an answer.

        False where the copy lacks the address or device, or something listens there already.
        """
        six = family_of(endpoint.address) == "ipv6"
        libc.filesystem_user(uid)
        try:
            sock = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_STREAM)
        finally:
            libc.filesystem_user(os.geteuid())
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if six:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(bool(v6only)))
            if device is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
            sock.bind(_sockaddr(endpoint))
            sock.listen(64)
            sock.setblocking(False)
        except OSError:
            sock.close()
            return False
        self._stack.callback(sock.close)
        self._listeners.append((sock, end))
        return True

    def probe(self, dialled: Dialled, until: float, near: int = 0) -> Probe:
        """One connect to it, from the port `near` or from any; `until` is by time.monotonic."""
        return self._comes(dialled, until, near) if isinstance(dialled, Approach) else self._goes(dialled, until, near)

    def _comes(self, approach: Approach, until: float, near: int) -> Probe:
        """A SYN on the cable of its interface, as a container's comes from its bridge, up to the answer's way out."""
        before = self._counters()
        _, lost = self._read()
        self._met(0)
        far = self._copy.cables.get(approach.interface)
        if far is None:
            return Probe(approach.endpoint, Outcome.UNANSWERED, None, (), True, (), None, came=approach)
        cable = Cable(approach.interface, far)
        try:
            source = cable.knock(approach.endpoint, approach.source, near)
            events, outcome, lost_later = self._answered(source.port, before, min(until, time.monotonic() + _PATIENCE))
        finally:
            cable.close()
        met, lost_entries = self._met(source.port)
        lost = lost or lost_later or lost_entries
        end = self._end_of(arrival(events, self._copy.observer) or approach.endpoint) if outcome.works else End.UNTOLD
        return Probe(
            approach.endpoint, outcome, source, events, lost, self._deltas(before), met, came=approach, end=end
        )

    def _end_of(self, arrived: Endpoint) -> End:
        """Whose listener has answered there."""
        return self._own_end() if arrived in self._stand_ins else End.LISTENER

    def _answered(self, port: int, before: list[Block], until: float) -> tuple[tuple[Event, ...], Outcome, bool]:
        """What is told of the connection from this port until its answer leaves, or it is stopped, or nothing comes."""
        events: tuple[Event, ...] = ()
        lost = False
        while True:
            more, lost_now = self._read()
            events, lost = (*events, *more), lost or lost_now
            ours = nft_trace.of_connection(events, port)
            stopped = any(event.code in _STOPPING for event in ours) or any(
                stops(rule) for table in self._deltas(before) for rule in table.rules
            )
            if stopped or time.monotonic() >= until:
                rejected = any(event.packet is not None and event.packet.kind in ("reset", "icmp") for event in ours)
                return tuple(ours), Outcome.REFUSED if rejected else Outcome.UNANSWERED, lost
            if any(self._leaves(event, "syn-ack") for event in ours):
                return tuple(ours), Outcome.CONNECTED, lost
            time.sleep(0.001)

    def _leaves(self, event: Event, kind: str) -> bool:
        """Whether such a packet has passed the last hook on the way out."""
        place = (event.chain.table.name, event.chain.name)
        return (
            place == (self._copy.observer, b"postrouting_out")
            and event.packet is not None
            and (event.packet.kind == kind)
        )

    def _goes(self, endpoint: Endpoint, until: float, near: int) -> Probe:
        before = self._counters()
        _, lost = self._read()
        self._met(0)
        six = family_of(endpoint.address) == "ipv6"
        with socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_STREAM) as sock:
            sock.setblocking(False)
            report_icmp_errors(sock)
            if near:
                _bind_near(sock, near)
            number = sock.connect_ex(_sockaddr(endpoint))
            source = _source(sock)
            port = source.port if source is not None else 0
            watch = _Watch(self, before, port, min(until, time.monotonic() + _PATIENCE))
            outcome = watch.outcome(sock, number)
            # before the connection is closed: its end is not part of the walk
            last, lost_later = self._read()
            matched = self._deltas(before)
            met, lost_entries = self._met(port)
            watch.close()
        events = tuple(nft_trace.of_connection((*watch.events, *last), port))
        left = self.sent_out(events)
        lost = lost or watch.lost or lost_later or lost_entries
        end = End.AWAY if left is not None else watch.end
        return Probe(endpoint, outcome, source, events, lost, matched, met, left, end=end)

    def at_other_addresses(self, asked: Endpoint, limit: int, until: float) -> list[Probe]:
        """Connects to the same port on other addresses of the machine."""
        family = socket.AF_INET6 if family_of(asked.address) == "ipv6" else socket.AF_INET
        known = (one for one in self._copy.machine.addresses if one.family == family and one.scope == UNIVERSE)
        others = list(dict.fromkeys(one.address for one in known if one.address != asked.address))
        return [self.probe(Endpoint(one, asked.port), until) for one in others[:limit]]

    def sent_out(self, events: Iterable[Event]) -> Endpoint | None:
        """Where a SYN went that passed the last hook on the way out and is for another namespace or machine."""
        for packet in (one.packet for one in events if self._leaves(one, "syn")):
            if packet is not None and self._copy.machine.is_elsewhere(packet.destination):
                return Endpoint(packet.destination, packet.destination_port)
        return None

    def reached_from_outside(self, doors: Iterable[Endpoint]) -> frozenset[Endpoint]:
        """The doors at which a SYN from the network arrives, past every rule."""
        reached: set[Endpoint] = set()
        for face in self._copy.face:
            cable = Cable(face.interface, self._copy.cables[face.interface])
            try:
                reached.update(door for door in doors if door.address == face.address and self._arrives(cable, door))
            finally:
                cable.close()
        return frozenset(reached)

    def _arrives(self, cable: Cable, door: Endpoint) -> bool:
        self._read()
        source = cable.knock(door)
        events: tuple[Event, ...] = ()
        until = time.monotonic() + _KNOCK
        while True:
            more, _ = self._read()
            events += more
            ours = [
                e for e in nft_trace.of_connection(events, source.port) if e.packet is None or e.packet.kind == "syn"
            ]
            if any(event.chain.name == b"input_out" for event in ours):
                return True
            if any(event.code in _STOPPING for event in ours) or time.monotonic() >= until:
                return False
            time.sleep(0.001)

    def _read(self) -> tuple[tuple[Event, ...], bool]:
        events: list[Event] = []
        try:
            for payload in self._tracer.read():
                events.append(nft_trace.event(payload))  # noqa: PERF401 (what came before an error counts)
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            return tuple(events), True
        return tuple(events), False

    def _met(self, port: int) -> tuple[tuple[Met, ...] | None, bool]:
        """What the packets of the connection from this port have met since, and whether some of it was lost."""
        if self._entries is None:
            return None, False
        found: list[Met] = []
        places: dict[tuple[bool, str, str], list[xtables.Rule | Sibling]] = {}
        blocks = {(table.block.layout.six, table.block.info.table): table for table in self._copy.tables}
        try:
            for payload in self._entries.read():
                told = xt_trace.entry(payload)
                if told is None or not told.packet.of_connection(port):
                    continue
                table = blocks[told.six, told.table]
                chain = told.six, told.table, told.chain
                if chain not in places:
                    places[chain] = _in_order(table, told.chain)
                found.append(Met(told.packet, told.hook, table.block, places[chain][told.number - 1]))
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            return tuple(found), True
        except LookupError:
            return tuple(found), True  # a table that the copy did not write
        return tuple(found), False

    def _accept(self) -> tuple[socket.socket, End] | None:
        """The server's side of a connection, if a server took one, and which."""
        for listener, end in self._listeners:
            try:
                return listener.accept()[0], end
            except BlockingIOError:
                continue
        return None

    def _counters(self) -> list[Block]:
        return [_counted(table) for table in self._copy.tables]

    def _deltas(self, before: list[Block]) -> tuple[Matched, ...]:
        found: list[Matched] = []
        for table, then, now in zip(self._copy.tables, before, self._counters(), strict=True):
            offsets = [offset for _, offset in table.rules] + [sibling.offset for sibling in table.siblings]
            moved = xtables.moved(then, now, offsets)
            rules = tuple(rule for rule, offset in table.rules if offset in moved)
            siblings = tuple(sibling for sibling in table.siblings if sibling.offset in moved)
            found.append(Matched(table.block, rules, siblings))
        return tuple(found)


class _Watch:
    """Waits for the end of one connect, and no longer than the kernel needs to name what stopped it."""

    def __init__(self, prober: Prober, before: list[Block], port: int, until: float) -> None:
        self._prober = prober
        self._port = port
        self._before = before
        self._until = until
        self.events: list[Event] = []
        self.lost = False
        self.end = End.UNTOLD
        self._taken_side: socket.socket | None = None

    def close(self) -> None:
        """Ends the server's side with a reset, so that nothing of the connection is left."""
        if self._taken_side is not None:
            self._taken_side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            self._taken_side.close()

    def outcome(self, sock: socket.socket, number: int) -> Outcome:
        if number not in (0, errno.EINPROGRESS):
            return outcome_of(number)
        while True:
            if _writable(sock, 0):
                number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                return outcome_of(number) if number else self._taken()
            left = self._until - time.monotonic()
            if left <= 0:
                return Outcome.UNANSWERED
            if self._stopped():
                if _writable(sock, _AFTERMATH):
                    continue
                return Outcome.UNANSWERED
            _writable(sock, min(left, 0.005))

    def _taken(self) -> Outcome:
        """The client's side is up; the server's only with the last packet of the handshake."""
        while True:
            taken = self._prober._accept()
            if taken is not None:
                self._taken_side, self.end = taken
                return Outcome.CONNECTED
            if self._stopped() or time.monotonic() >= self._until:
                return Outcome.NOT_ACCEPTED
            time.sleep(0.001)

    def _stopped(self) -> bool:
        """The kernel said that a rule or policy stopped a packet of ours."""
        events, lost = self._prober._read()
        self.events += events
        self.lost |= lost
        ours = nft_trace.of_connection(self.events, self._port)
        if any(event.code in _STOPPING and not event.bypass for event in ours) or self._prober.sent_out(ours):
            return True
        return any(stops(rule) for table in self._prober._deltas(self._before) for rule in table.rules)


def arrival(events: Iterable[Event], observer: bytes) -> Endpoint | None:
    """Where the SYN was going when it was last seen, if not where it was going at first."""
    seen = [
        Endpoint(event.packet.destination, event.packet.destination_port)
        for event in events
        if event.chain.table.name == observer and event.packet is not None and event.packet.kind == "syn"
    ]
    return seen[-1] if seen and seen[-1] != seen[0] else None


def stops(rule: xtables.Rule) -> bool:
    """The rule of iptables-legacy, once it matches, lets the packet go no further."""
    if rule.policy:
        return rule.target == "DROP"
    if rule.target == "NFQUEUE":
        return not _bypassed(rule)
    return rule.target in ("DROP", "QUEUE", "REJECT", "TARPIT", "DELUDE", "STEAL", "SYNPROXY")


def _bypassed(rule: xtables.Rule) -> bool:
    """Its packets go on where no program reads the queue (struct xt_NFQ_info_v3: queue, queues, flags)."""
    return len(rule.data) >= 6 and bool(int.from_bytes(rule.data[4:6], BYTE_ORDER) & 1)


def queues_of(rule: xtables.Rule) -> range:
    """The queues to which the rule hands packets."""
    if rule.target != "NFQUEUE":
        return range(0)
    first, count = (int.from_bytes(rule.data[at : at + 2], BYTE_ORDER) for at in (0, 2))
    return range(first, first + max(1, count))


def _in_order(table: Extended, chain: str) -> list[xtables.Rule | Sibling]:
    """All entries of a chain of the copy."""
    rules: list[tuple[int, xtables.Rule | Sibling]] = [(at, rule) for rule, at in table.rules if rule.chain == chain]
    rules += [(sibling.offset, sibling) for sibling in table.siblings if sibling.rule.chain == chain]
    return [entry for _, entry in sorted(rules, key=lambda one: one[0])]


def _counted(table: Extended) -> Block:
    """The table with its counters, as the kernel has it now."""
    side = legacy.SIDES[1 if table.block.layout.six else 0]
    return legacy.read(side, table.block.info.table)


def _first(rows: Iterable[SocketRow], endpoints: Sequence[Endpoint]) -> list[SocketRow]:
    """The listeners to stand in for: those of the dialled ports and of one address before wildcards, once each."""
    ports = {endpoint.port for endpoint in endpoints}
    # one that is bound to another device would keep its port from a stand-in for the dialled address
    rows = [row for row in rows if row.device is None or row.local.port not in ports]
    ordered = sorted(rows, key=lambda r: (r.local.port not in ports, is_wildcard(r.local.address), r))
    seen: set[tuple[Endpoint, str | None]] = set()
    chosen: list[SocketRow] = []
    for row in ordered:
        if (row.local, row.device) not in seen and len(chosen) < _LISTENERS:
            seen.add((row.local, row.device))
            chosen.append(row)
    return chosen


def _writable(sock: socket.socket, seconds: float) -> bool:
    poller = select.poll()
    poller.register(sock, select.POLLOUT)
    return bool(poller.poll(seconds * 1000))


def _bind_near(sock: socket.socket, port: int) -> None:
    try:
        sock.bind(("", port))
    except OSError:
        return  # a stand-in listens there: on the machine the port was free for one connection only


def _source(sock: socket.socket) -> Endpoint | None:
    try:
        address, port = sock.getsockname()[:2]
    except OSError:
        return None
    return Endpoint(address, port)


def _sockaddr(endpoint: Endpoint) -> tuple[str, int] | tuple[str, int, int, int]:
    address, _, zone = endpoint.address.partition("%")
    if family_of(endpoint.address) == "ipv4":
        return address, endpoint.port
    index = int(zone) if zone.isdigit() else socket.if_nametoindex(zone) if zone else 0
    return address, endpoint.port, 0, index
