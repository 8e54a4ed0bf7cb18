"""What the machine's own rules do to our packets: a temporary table makes the kernel trace these and no others."""

from __future__ import annotations

import errno
import os
import select
import socket
import time
from collections.abc import Iterable

from diagnose.model.fact import Fact, Known, Reason, Unknown
from diagnose.model.firewall import RuleRef, Step, Walk
from diagnose.model.network import Endpoint
from diagnose.pace import patient
from diagnose.parse import nfnetlink as nl
from diagnose.parse import nft, nft_trace
from diagnose.parse.nft import Chain, Kind, Message, Rule, Ruleset, TableKey
from diagnose.parse.nft_trace import Code, Event
from diagnose.parse.rule_text import hide_in_rule
from diagnose.probes.connect import report_icmp_errors
from diagnose.probes.shadow import netfilter
from diagnose.probes.shadow.copy import FIRST, TRACE, expression
from diagnose.probes.shadow.netfilter import RefusedError, Tracer, Writer
from diagnose.probes.shadow.walking import Reader, evaluated
from diagnose.probes.shadow.words import Asking, Listings, Words

_PATIENCE = patient(0.25)
"""Seconds for packets that vanish without a rule of nf_tables."""
_LISTING = patient(1.0)
"""Seconds for the kernel, and then for the tools that print its rules."""
_OWNER = 2
"""NFT_TABLE_F_OWNER: the table goes with the netlink socket that made it, kill -9 included (Linux 5.12)."""
_HOOKS = ((b"prerouting", 0), (b"output", 3))
_REGISTER = 1
_L4PROTO, _TCP = 16, 6
_NETWORK, _TRANSPORT = 1, 2
_ENDS = (Code.DROP, Code.STOLEN, Code.QUEUE)


def trace(endpoint: Endpoint, walk: Walk | None) -> Fact[tuple[Step, ...]]:
    """The steps of one more connect to this local endpoint, by rules in the names that the walk in the copy has.

    Needs CAP_NET_ADMIN. For a quarter of a second at most the machine has one more table, whose chains accept
    everything: it changes no verdict. Rules of iptables-legacy cannot be traced.
    """
    try:
        rules = netfilter.dump(time.monotonic() + _LISTING)
        events = _events(endpoint)
        return Known(_steps(events, rules, walk))
    except PermissionError:
        return _NEEDS_ROOT
    except RefusedError as error:
        return _refused(error)
    except TimeoutError:
        return Unknown(Reason.DEADLINE, "the kernel did not answer in time")
    except OSError as error:
        if error.errno == errno.ENOBUFS:
            return Unknown(Reason.FAILED, "the kernel told more than could be read")
        return Unknown(Reason.FAILED, f"the trace of our packets: {error.strerror}")
    except ValueError as error:
        return Unknown(Reason.UNPARSABLE, f"the trace of our packets: {error}")


_NEEDS_ROOT = Unknown(Reason.NEEDS_ROOT, "a trace takes a table of its own beside the rules", "run it again with sudo")


def _refused(error: RefusedError) -> Unknown:
    match error.errno:
        case errno.EPERM | errno.EACCES:
            return _NEEDS_ROOT
        case errno.EOPNOTSUPP | errno.EINVAL:
            return Unknown(Reason.KERNEL_TOO_OLD, "a table cannot be tied to our socket (Linux 5.12)")
        case _:
            return Unknown(Reason.FAILED, f"the table for the trace: {error.strerror}")


# ------ the connect and what the kernel tells of it


def _events(endpoint: Endpoint) -> list[Event]:
    six = ":" in endpoint.address
    tracer, writer = Tracer(), Writer()
    sock = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.bind(("::" if six else "0.0.0.0", 0))
        port: int = sock.getsockname()[1]
        report_icmp_errors(sock)
        writer.commit(_table(endpoint, port))
        sock.connect_ex(_sockaddr(endpoint))
        return _until_it_ends(tracer, sock, port)
    finally:
        writer.close()  # and with it the table, before the end of a connection that was made
        tracer.close()
        sock.close()


def _until_it_ends(tracer: Tracer, sock: socket.socket, port: int) -> list[Event]:
    """The messages of our connection up to the one that ends it, or to its answer, or until patience ends."""
    poller = select.poll()
    poller.register(sock, select.POLLOUT)
    poller.register(tracer, select.POLLIN)
    until = time.monotonic() + _PATIENCE
    events: list[Event] = []
    answered = False
    while True:
        events += map(nft_trace.event, tracer.read())
        ours = nft_trace.of_connection(events, port)
        left = until - time.monotonic()
        if answered or left <= 0 or any(one.code in _ENDS for one in ours):
            return ours
        ready = poller.poll(left * 1000)
        # what was told of the packets stands in the tracer's buffer before their answer is in ours: one more read
        answered = any(number == sock.fileno() for number, _ in ready)


def _sockaddr(endpoint: Endpoint) -> tuple[str, int] | tuple[str, int, int, int]:
    address, _, zone = endpoint.address.partition("%")
    if ":" not in address:
        return address, endpoint.port
    scope = (int(zone) if zone.isdigit() else socket.if_nametoindex(zone)) if zone else 0
    return address, endpoint.port, 0, scope


# ------ the table


def _name() -> bytes:
    return f"netdiag-trace-{os.getpid()}".encode()


def _table(endpoint: Endpoint, port: int) -> Iterable[Message]:
    """A table that goes with its socket, and marks the packets between our port and the endpoint."""
    where = nl.generic(10 if ":" in endpoint.address else 2)
    table = nl.text(1, _name())
    yield Kind.TABLE.new, where + table + nl.u32(2, _OWNER)
    for name, hook in _HOOKS:
        hooked = nl.nest(4, nl.u32(1, hook) + nl.u32(2, FIRST)) + nl.u32(5, 1) + nl.text(7, b"filter")
        yield Kind.CHAIN.new, where + table + nl.text(3, name) + hooked
        for answer in (False, True):
            marks = nl.nest(4, _marks(endpoint, port, answer=answer))
            yield Kind.RULE.new, where + nl.text(1, _name()) + nl.text(2, name) + marks


def _marks(endpoint: Endpoint, port: int, *, answer: bool) -> bytes:
    """`ip daddr ADDRESS tcp sport OURS tcp dport PORT meta nftrace set 1`; of an answer the ends are exchanged."""
    six = ":" in endpoint.address
    address = socket.inet_pton(socket.AF_INET6 if six else socket.AF_INET, endpoint.address.partition("%")[0])
    source, destination = (8, 24) if six else (12, 16)
    ends = (endpoint.port, port) if answer else (port, endpoint.port)
    return (
        expression(b"meta", nl.u32(1, _REGISTER) + nl.u32(2, _L4PROTO))
        + _equals(bytes([_TCP]))
        + _payload(_NETWORK, source if answer else destination, len(address))
        + _equals(address)
        + _payload(_TRANSPORT, 0, 4)
        + _equals(b"".join(end.to_bytes(2, "big") for end in ends))
        + TRACE
    )


def _payload(base: int, offset: int, length: int) -> bytes:
    return expression(b"payload", nl.u32(1, _REGISTER) + nl.u32(2, base) + nl.u32(3, offset) + nl.u32(4, length))


def _equals(value: bytes) -> bytes:
    return expression(b"cmp", nl.u32(1, _REGISTER) + nl.u32(2, 0) + nl.nest(3, nl.attribute(1, value)))


# ------ in the names that people have for rules


def _steps(events: Iterable[Event], rules: Ruleset, walk: Walk | None) -> tuple[Step, ...]:
    by_handle = {(rule.chain.table, rule.handle): rule for rule in rules.rules}
    told = [one for one in evaluated(events) if one.base.table.name != _name()]
    named = _Named(rules, walk)
    reader = Reader(by_handle, rules.chains, named)
    steps = tuple(step for one in told for step in reader.steps(one))
    if not named.strangers:
        return steps
    named.ask()
    return tuple(step for one in told for step in reader.steps(one))


class _Named:
    """A rule as the walk in the copy calls it; for a rule that is not on that walk the tools are asked."""

    def __init__(self, rules: Ruleset, walk: Walk | None) -> None:
        self._rules = rules
        self._words = Words(rules, (), Listings())
        self._lines = _lines(rules)
        self._known = {_place(one): one for one in _mentioned(walk)}
        self.strangers = False
        """Rules were asked for that have no text yet."""

    def ask(self) -> None:
        """Lets the tools print the rules, within a second."""
        asking = Asking(self._rules, ())
        try:
            self._words = Words(self._rules, (), asking.listings(time.monotonic() + _LISTING))
        finally:
            asking.end()

    def rule(self, rule: Rule) -> RuleRef:
        """A rule of nf_tables."""
        named = self._words.rule(rule)
        line = self._lines[rule.chain.table, rule.handle]
        chain = (named.family, named.table, named.chain)
        known = self._known.get((*chain, "handle", rule.handle)) or self._known.get((*chain, "line", line))
        if known is None:
            self.strangers = True
        return known or hide_in_rule(named)

    def policy(self, chain: Chain) -> RuleRef:
        """The policy of a base chain."""
        return self._words.policy(chain)


_Place = tuple[str, str, str, str, int]


def _place(rule: RuleRef) -> _Place:
    chain = (rule.family, rule.table, rule.chain)
    return (*chain, "handle", rule.handle) if rule.handle is not None else (*chain, "line", rule.line or 0)


def _mentioned(walk: Walk | None) -> list[RuleRef]:
    if walk is None:
        return []
    found = [step.rule for step in walk.steps] + ([walk.decider] if walk.decider is not None else [])
    return [one for one in found if not one.policy and "legacy" not in one.backend.value]


def _lines(rules: Ruleset) -> dict[tuple[TableKey, int], int]:
    """The 1-based position of each rule in its chain."""
    lengths: dict[nft.ChainKey, int] = {}
    lines: dict[tuple[TableKey, int], int] = {}
    for rule in rules.rules:
        lengths[rule.chain] = lengths.get(rule.chain, 0) + 1
        lines[rule.chain.table, rule.handle] = lengths[rule.chain]
    return lines
