"""Who answered for a target that is not this machine: the target, a box on the way, or this machine itself."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address, ip_address

from msgspec import Struct

from diagnose.model.attempt import Attempt, Outcome, WireReply
from diagnose.model.fact import NOT_NEEDED, Fact, Known, Unknown
from diagnose.model.finding import Confidence
from diagnose.model.network import Family, Links, Routing

INITIAL_TTLS = (64, 128, 255)
"""What systems put into their own packets; each router on the way takes one off (RFC 1812, section 5.3.1)."""


_MARGIN = 20.0
"""Milliseconds before the end of the wait in which an answer may just have come too late."""


class Meaning(StrEnum):
    """What an ICMP error says of the packet that it quotes."""

    PROHIBITED = "prohibited by a rule"
    PORT_UNREACHABLE = "port unreachable"
    """A rule as well: TCP itself answers a closed port with a reset (RFC 9293, section 3.10.7.1)."""
    NO_ROUTE = "no route to its network"
    HOST_UNREACHABLE = "the host does not answer on its link"
    EXPIRED = "passed too many routers"
    OTHER = "another error"


MEANINGS: dict[Family, dict[tuple[int, int], Meaning]] = {
    "ipv4": {  # RFC 792, RFC 1122 section 3.2.2.1, RFC 1812 section 5.2.7.1
        (3, 0): Meaning.NO_ROUTE,
        (3, 1): Meaning.HOST_UNREACHABLE,
        (3, 3): Meaning.PORT_UNREACHABLE,
        (3, 6): Meaning.NO_ROUTE,
        (3, 7): Meaning.HOST_UNREACHABLE,
        (3, 9): Meaning.PROHIBITED,
        (3, 10): Meaning.PROHIBITED,
        (3, 13): Meaning.PROHIBITED,
        (11, 0): Meaning.EXPIRED,
    },
    "ipv6": {  # RFC 4443, sections 3.1 and 3.3
        (1, 0): Meaning.NO_ROUTE,
        (1, 1): Meaning.PROHIBITED,
        (1, 3): Meaning.HOST_UNREACHABLE,
        (1, 4): Meaning.PORT_UNREACHABLE,
        (1, 5): Meaning.PROHIBITED,
        (1, 6): Meaning.NO_ROUTE,
        (3, 0): Meaning.EXPIRED,
    },
}
ADVICE: dict[Family, tuple[tuple[int, int | None], ...]] = {
    "ipv4": ((3, 4), (4, None), (5, None)),
    "ipv6": ((2, None),),
}
"""Fragmentation needed, source quench, redirect, packet too big: advice about a packet that may still arrive."""


class HostItself(Struct, frozen=True):
    """The target's own machine sent it."""

    why: str
    confidence: Confidence
    meaning: Meaning | None = None
    """What an ICMP error says; None: it was a reset."""


class ThisMachine(Struct, frozen=True):
    """The packet never left: this machine's own kernel or rules answered."""

    why: str
    meaning: Meaning | None = None


class BoxOnTheWay(Struct, frozen=True):
    """A router, firewall or the like between here and the target sent it."""

    address: str | None
    """What it calls itself, or the router that it sits at."""
    why: str
    confidence: Confidence
    meaning: Meaning | None = None


class Undetermined(Struct, frozen=True):
    """What was seen fits several senders, or nothing was seen."""

    why: str


Sender = HostItself | ThisMachine | BoxOnTheWay | Undetermined


class _Icmp(Struct, frozen=True):
    sender: str | None
    type: int
    code: int
    from_here: bool
    """It never came in from outside: the error queue calls it local, or it was seen on lo."""


def sender(attempt: Attempt, routing: Fact[Routing], links: Fact[Links] = NOT_NEEDED) -> Sender:
    """Who sent the answer that ended this attempt, as far as the answer itself tells."""
    if attempt.local:
        return ThisMachine("the address belongs to this machine")
    error = next((error for error in _errors(attempt) if not _is_advice(attempt.family, error)), None)
    if error:
        return _of_error(attempt, error, links)
    match attempt.wire:
        case Unknown() as unknown:
            return Undetermined(f"the raw reply is not known: {unknown}")
        case Known(value=replies):
            first = next((reply for reply in replies if reply.kind != "icmp"), None)
    if first is None:
        return Undetermined("no reply came back to this machine")
    if first.kind == "syn-ack":
        return Undetermined("the connection was answered, not refused")
    return _of_reset(attempt, first, routing)


def meaning(family: Family, type_: int, code: int) -> Meaning:
    """What an ICMP or ICMPv6 error of this type and code says."""
    return MEANINGS[family].get((type_, code), Meaning.OTHER)


def dropped_here(attempt: Attempt) -> WireReply | None:
    """The answer that came in while we still waited for one: this machine itself did not let it through.

    A rule here, the reverse-path filter (rp_filter, ip-sysctl), or an answer that is none to the kernel (bad numbers).
    """
    if attempt.outcome is not Outcome.UNANSWERED or not isinstance(attempt.wire, Known):
        return None
    in_time = attempt.ms - _MARGIN
    return next((one for one in attempt.wire.value if one.ms is not None and one.ms < in_time), None)


def held_back(attempt: Attempt) -> bool:
    """No packet of an unanswered attempt left this machine.

    A rule on the way out swallowed it, or the next machine on the link did not tell its address (ARP, RFC 4861).
    """
    return attempt.outcome is Outcome.UNANSWERED and attempt.sent == Known(0)


def wants_first_hop(attempt: Attempt, routing: Fact[Routing]) -> bool:
    """Whether a SYN with TTL 1 would tell the target's own reset from one by a box at the gateway."""
    if attempt.local or not isinstance(attempt.wire, Known) or not isinstance(routing, Known):
        return False
    lookup = routing.value.lookup(attempt.address)
    gateway = lookup is not None and lookup.gateway is not None
    return gateway and any(r.kind == "reset" and r.ttl in INITIAL_TTLS and r.link for r in attempt.wire.value)


def _errors(attempt: Attempt) -> Iterator[_Icmp]:
    if isinstance(attempt.icmp, Known):
        for e in attempt.icmp.value:
            yield _Icmp(e.sender, e.type, e.code, e.origin == "local")
    if isinstance(attempt.wire, Known):
        for r in attempt.wire.value:
            if r.icmp_type is not None and r.icmp_code is not None:
                yield _Icmp(r.sender, r.icmp_type, r.icmp_code, r.interface == "lo")


def _is_advice(family: Family, error: _Icmp) -> bool:
    return not error.from_here and any(error.type == t and c in (None, error.code) for t, c in ADVICE[family])


def _of_error(attempt: Attempt, error: _Icmp, links: Fact[Links]) -> Sender:
    says = meaning(attempt.family, error.type, error.code) if error.sender else Meaning.OTHER
    told = f"ICMP{'v6' if attempt.family == 'ipv6' else ''} type {error.type} code {error.code}"
    if error.from_here or (error.sender and _is_ours(error.sender, attempt, links)):
        return ThisMachine(f"{told} came from this machine's own {error.sender or 'kernel'}", says)
    if error.sender is None:
        return Undetermined(f"{told} came without its sender's address")
    if _ip(error.sender) == _ip(attempt.address):
        return HostItself(f"{told} came from {error.sender} itself", Confidence.PROVEN, says)
    return BoxOnTheWay(error.sender, f"{told} came from {error.sender}, not the target", Confidence.PROVEN, says)


def _of_reset(attempt: Attempt, reset: WireReply, routing: Fact[Routing]) -> Sender:
    arrived = f"the reset arrived with TTL {reset.ttl}"
    if reset.interface == "lo":
        return ThisMachine(f"the reset came over lo, though {attempt.address} is not on this machine")
    if isinstance(routing, Unknown):
        return Undetermined(f"{arrived}, and the route is not known: {routing}")
    lookup = routing.value.lookup(attempt.address)
    if lookup is None:
        return Undetermined(f"{arrived}, and the route was not looked up")
    if reset.link is None:
        return Undetermined(f"{arrived} over {reset.interface}, which does not show who handed it over")
    if reset.ttl not in INITIAL_TTLS:
        return Undetermined(f"{arrived}: routers lie between, and any of them could have sent it in the target's name")
    if lookup.gateway is None:
        return HostItself(f"{arrived}, which no router has lowered, on the target's own link", Confidence.LIKELY)
    return _one_hop_away(attempt, reset, arrived, lookup.gateway)


def _one_hop_away(attempt: Attempt, reset: WireReply, arrived: str, gateway: str) -> Sender:
    """A reset that no router lowered though the way leads by one: that router's, or the target is its own address.

    A target with a leg on our link answers past the router: then the link-layer addresses differ.
    """
    near = f"{arrived}, which no router has lowered, though the way leads by {gateway}"
    if isinstance(attempt.first_hop, Unknown):
        return Undetermined(f"{near}; whether the target is {gateway} itself is not known: {attempt.first_hop}")
    expired = next((r for r in attempt.first_hop.value if _is_expired(attempt.family, r)), None)
    if expired is None:
        return Undetermined(f"{near}; the target may be that machine's own address")
    if expired.link != reset.link:
        return Undetermined(f"{near}; it came from {reset.link}, not from the router at {expired.link}")
    why = f"{near}; a SYN with TTL 1 expired at {expired.sender}, so the target lies behind it"
    return BoxOnTheWay(expired.sender, why, Confidence.LIKELY)


def _is_expired(family: Family, reply: WireReply) -> bool:
    if reply.icmp_type is None or reply.icmp_code is None:
        return False
    return meaning(family, reply.icmp_type, reply.icmp_code) is Meaning.EXPIRED


def _is_ours(address: str, attempt: Attempt, links: Fact[Links]) -> bool:
    ours = {_ip(attempt.source.address)} if attempt.source else set()
    if isinstance(links, Known):
        ours |= {_ip(one) for interface in links.value.interfaces for one in interface.addresses}
    return _ip(address) in ours


def _ip(address: str) -> IPv4Address | IPv6Address:
    ip = ip_address(address.partition("%")[0])
    return (ip.ipv4_mapped or ip) if isinstance(ip, IPv6Address) else ip
