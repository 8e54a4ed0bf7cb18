"""Snapshots in the words of a test: what the machine said, without a machine."""

from __future__ import annotations

from typing import Literal, TypedDict, Unpack

from msgspec.structs import replace

from diagnose.analysis.firewall_remedies import candidates
from diagnose.model.attempt import (
    Acceptance,
    AckWitness,
    Attempt,
    BindAttempt,
    Drop,
    IcmpError,
    Outcome,
    QueueWitness,
    ResetWitness,
)
from diagnose.model.cgroup import CgroupFilters
from diagnose.model.container import Containers
from diagnose.model.elsewhere import Elsewhere
from diagnose.model.fact import NOT_NEEDED, Fact, Known, Reason, Unknown
from diagnose.model.finding import Cause, Confidence, Evidence, Finding, Severity, Stage
from diagnose.model.firewall import Backend, Rehearsed, RuleRef, Shadow, Step, Walk
from diagnose.model.later import Later
from diagnose.model.names import HostsFile, Resolution, ResolvedAddress, ResolverConfig
from diagnose.model.network import (
    Endpoint,
    Interface,
    Links,
    PortPolicy,
    RouteKind,
    RouteLookup,
    Routing,
    SocketRow,
    TcpState,
    family_of,
    is_loopback,
)
from diagnose.model.process import Holder, Holders, Process
from diagnose.model.snapshot import Snapshot, Vantage
from diagnose.model.target import Intent, Scope
from diagnose.model.unit import Units
from diagnose.parse.target import parse_target

ROOT = Vantage(
    hostname="box",
    platform="linux",
    kernel="6.18.0",
    user="root",
    uid=0,
    privileged=True,
    network_namespace=4026531840,
    container=None,
)
ALICE = Vantage(
    hostname="box",
    platform="linux",
    kernel="6.18.0",
    user="alice",
    uid=1000,
    privileged=False,
    network_namespace=4026531840,
    container=None,
)
LO = Interface("lo", True, ("127.0.0.1", "::1"))
LINKS = Known(Links((Interface("eth0", True, ("192.0.2.10",)), LO)))
POLICY = PortPolicy(
    ephemeral_low=32768,
    ephemeral_high=60999,
    reserved=(),
    unprivileged_start=1024,
    nonlocal_bind_v4=False,
    nonlocal_bind_v6=False,
    bindv6only=False,
    ipv6_disabled_all=False,
    ipv6_disabled_lo=False,
    ipv6_available=True,
)
NEEDS_ROOT = Unknown(Reason.NEEDS_ROOT, "", "run it again with sudo")
KERNEL_RESET = Known(ResetWitness(by_kernel=True, distinct=True, source="OutRsts", probes=2, counted=2))
RULE_RESET = Known(ResetWitness(by_kernel=False, distinct=True, source="OutRsts", probes=2, counted=0))
BLURRED_RESET = Known(ResetWitness(by_kernel=True, distinct=False, source="OutRsts", probes=2, counted=9, background=7))
NO_ICMP: Fact[tuple[IcmpError, ...]] = Known(())
WHEN = "2026-11-23T10:00:00Z"


class Facts(TypedDict, total=False):
    """The facts of a snapshot that a scene may say otherwise."""

    names: Fact[Resolution]
    candidates: tuple[Attempt, ...]
    links: Fact[Links]
    sockets: Fact[tuple[SocketRow, ...]]
    listeners: Fact[tuple[SocketRow, ...]]
    bound: Fact[tuple[SocketRow, ...]]
    udp: Fact[tuple[SocketRow, ...]]
    holders: Fact[Holders]
    policy: Fact[PortPolicy]
    routing: Fact[Routing]
    hosts: Fact[HostsFile]
    resolver: Fact[ResolverConfig]
    elsewhere: Fact[Elsewhere]
    firewall: Fact[Shadow]
    cgroup_filters: Fact[CgroupFilters]
    containers: Fact[Containers]
    ufw: Fact[bool]
    later: Fact[Later]
    units: Fact[Units]


def dialled(
    target: str,
    *attempts: Attempt,
    seen_by: Vantage = ROOT,
    passive: bool = False,
    only: tuple[str, ...] = (),
    skip: tuple[str, ...] = (),
    **facts: Unpack[Facts],
) -> Snapshot:
    """A machine where the target was dialled and this came of it; nothing else is there unless it is said."""
    plain = _quiet(target, [one.address for one in attempts], seen_by)
    return replace(plain, attempts=attempts, scope=Scope(1.0, passive, only, skip), **facts)


def wanted(target: str, *binds: BindAttempt, seen_by: Vantage = ROOT, **facts: Unpack[Facts]) -> Snapshot:
    """A machine where a server was to be started on the target."""
    plain = _quiet(target, [one.address for one in binds], seen_by)
    return replace(plain, intent=Intent.BIND, binds=binds, **facts)


def _quiet(text: str, addresses: list[str], seen_by: Vantage) -> Snapshot:
    """Nothing listens, nothing was tried, and the cheap facts are all known."""
    target = parse_target(text)
    nothing: Fact[tuple[SocketRow, ...]] = Known(())
    return Snapshot(
        netdiag="0.1.0",
        started_at=WHEN,
        duration_ms=12.5,
        target=target,
        intent=Intent.CONNECT,
        scope=Scope(1.0),
        vantage=seen_by,
        names=resolved(target.host, *dict.fromkeys(addresses)),
        links=LINKS,
        routing=Known(Routing(tuple(map(_route_to, addresses)), (), ())),
        sockets=nothing,
        listeners=nothing,
        bound=nothing,
        udp=nothing,
        holders=Known(Holders((), 0)),
    )


def _route_to(address: str) -> RouteLookup:
    """What the kernel says of an address: this machine's own, or one behind eth0."""
    own = is_loopback(address) or address in LINKS.value.interfaces[0].addresses
    return RouteLookup(address, RouteKind.LOCAL, "lo") if own else RouteLookup(address, RouteKind.UNICAST, "eth0")


def resolved(host: str, *addresses: str, error: str | None = None) -> Fact[Resolution]:
    """What the resolver gave, in its order."""
    found = tuple(ResolvedAddress(one, family_of(one)) for one in addresses)
    return Known(Resolution(host, found, 0.4, error, literal=addresses == (host,)))


def at(text: str) -> Endpoint:
    """[::1]:80 as an endpoint."""
    host, _, port = text.rpartition(":")
    return Endpoint(host.strip("[]"), int(port))


# what came of a connect


def _attempt(where: str, outcome: Outcome, errno: str | None, ms: float, *, local: bool = True) -> Attempt:
    endpoint = at(where)
    return Attempt(
        address=endpoint.address,
        port=endpoint.port,
        family=family_of(endpoint.address),
        outcome=outcome,
        errno=errno,
        ms=ms,
        local=local,
        icmp=NO_ICMP,
    )


def connected(where: str) -> Attempt:
    """The connection was made and taken."""
    return replace(_attempt(where, Outcome.CONNECTED, None, 0.2), acceptance=Known(Acceptance.ACCEPTED))


def refused(where: str, reset: Fact[ResetWitness] = KERNEL_RESET, *, local: bool = True) -> Attempt:
    """ECONNREFUSED, and who sent the reset."""
    return replace(_attempt(where, Outcome.REFUSED, "ECONNREFUSED", 0.1, local=local), reset=reset)


def rejected(where: str, icmp_type: int = 3, code: int = 13, errno: str = "EHOSTUNREACH") -> Attempt:
    """An ICMP error came instead of an answer."""
    attempt = _attempt(where, Outcome.REFUSED if errno == "ECONNREFUSED" else Outcome.UNREACHABLE, errno, 0.1)
    origin: Literal["icmp", "icmp6"] = "icmp" if attempt.family == "ipv4" else "icmp6"
    return replace(attempt, icmp=Known((IcmpError(origin, icmp_type, code, attempt.address),)))


def unanswered(
    where: str,
    *,
    drop: str | None = None,
    queue: Fact[QueueWitness] = NOT_NEEDED,
    drops: Fact[tuple[Drop, ...]] = NEEDS_ROOT,
    local: bool = True,
) -> Attempt:
    """Silence; `drop` is the kernel's reason for freeing our packet, where it told one."""
    told: Fact[tuple[Drop, ...]] = Known((Drop(drop, "nft_do_chain"),)) if drop else drops
    return replace(_attempt(where, Outcome.UNANSWERED, None, 1000.0, local=local), drops=told, queue=queue)


def not_accepted(where: str) -> Attempt:
    """The kernel completed it, and the program did not take it."""
    return replace(_attempt(where, Outcome.NOT_ACCEPTED, None, 1000.0), acceptance=Known(Acceptance.PENDING))


def half_open(where: str, *, drops: Fact[tuple[Drop, ...]] = NEEDS_ROOT) -> Attempt:
    """Made for the client, and the server's end has not got the client's last ACK."""
    lost = AckWitness(held_back=False, distinct=True, source="TCPDeferAcceptDrop", probes=3)
    attempt = _attempt(where, Outcome.NOT_ACCEPTED, None, 1000.0)
    return replace(attempt, acceptance=Known(Acceptance.HALF_OPEN), ack=Known(lost), drops=drops)


def ended(where: str, outcome: Outcome) -> Attempt:
    """The connection was made, and then ended like this."""
    errno = "ECONNRESET" if outcome is Outcome.RESET else None
    return replace(_attempt(where, outcome, errno, 0.3), acceptance=Known(Acceptance.ACCEPTED))


def unavailable(where: str) -> Attempt:
    """EADDRNOTAVAIL."""
    return _attempt(where, Outcome.ADDRESS_UNAVAILABLE, "EADDRNOTAVAIL", 0.0)


def unreachable(where: str, errno: str = "ENETUNREACH") -> Attempt:
    """The kernel has no way there."""
    return _attempt(where, Outcome.UNREACHABLE, errno, 0.0)


def full_queue(where: str, *, waiting: int = 2, backlog: int = 1, dropped: int = 1) -> Fact[QueueWitness]:
    """The listener's own counters: so many wait, so many may, and so many were dropped while we asked."""
    return Known(QueueWitness(at(where), 5, 5 + dropped, waiting, backlog))


def roomy_queue(where: str) -> Fact[QueueWitness]:
    """The listener has room and dropped nothing."""
    return full_queue(where, waiting=0, backlog=128, dropped=0)


# what came of a bind


def bound(where: str) -> BindAttempt:
    """The bind worked, with SO_REUSEADDR and without."""
    return _bind(where, Outcome.BOUND, None, Outcome.BOUND, None)


def bound_with_reuse_only(where: str) -> BindAttempt:
    """It works with SO_REUSEADDR alone."""
    return _bind(where, Outcome.BOUND, None, Outcome.ADDRESS_IN_USE, "EADDRINUSE")


def taken(where: str) -> BindAttempt:
    """EADDRINUSE."""
    return _bind(where, Outcome.ADDRESS_IN_USE, "EADDRINUSE", Outcome.ADDRESS_IN_USE, "EADDRINUSE")


def denied(where: str) -> BindAttempt:
    """EACCES."""
    return _bind(where, Outcome.DENIED, "EACCES", Outcome.DENIED, "EACCES")


def unbindable(where: str) -> BindAttempt:
    """EADDRNOTAVAIL."""
    return _bind(where, Outcome.ADDRESS_UNAVAILABLE, "EADDRNOTAVAIL", Outcome.ADDRESS_UNAVAILABLE, "EADDRNOTAVAIL")


def _bind(where: str, outcome: Outcome, errno: str | None, plain: Outcome, plain_errno: str | None) -> BindAttempt:
    endpoint = at(where)
    return BindAttempt(
        address=endpoint.address,
        port=endpoint.port,
        family=family_of(endpoint.address),
        outcome=outcome,
        errno=errno,
        plain_outcome=plain,
        plain_errno=plain_errno,
        ms=0.1,
    )


# sockets and who holds them


def listening(
    where: str, inode: int = 1, *, v6only: bool | None = None, device: str | None = None, uid: int = 0
) -> SocketRow:
    """A LISTEN row."""
    local = at(where)
    family = family_of(local.address)
    peer = Endpoint("::" if family == "ipv6" else "0.0.0.0", 0)
    return SocketRow(
        local, peer, TcpState.LISTEN, family, inode, uid, v6only=v6only, device=device, queue=0, backlog=128, drops=0
    )


def udp_socket(where: str, inode: int = 1) -> SocketRow:
    """A UDP socket, as sock_diag shows it: unconnected."""
    local = at(where)
    family = family_of(local.address)
    return SocketRow(local, Endpoint("0.0.0.0", 0), TcpState.CLOSE, family, inode, 0)


def rows(*found: SocketRow) -> Fact[tuple[SocketRow, ...]]:
    """A socket table."""
    return Known(found)


def process(program: str = "python3", pid: int = 4242, *, state: str = "S", uid: int = 0, command: str = "") -> Process:
    """A process."""
    user = {0: "root", 1000: "alice"}.get(uid, f"user{uid}")
    return Process(pid, program, command or f"{program} -m server", uid, user, state, WHEN, parent=1)


def held(*pairs: tuple[int, Process], hidden: int = 0) -> Fact[Holders]:
    """Which process has which inode; so many processes could not be looked into."""
    return Known(Holders(tuple(Holder(inode, one) for inode, one in pairs), hidden))


# the firewall


def rule(
    text: str = "tcp dport 8080 drop",
    *,
    backend: Backend = Backend.NFT,
    chain: str = "input",
    handle: int | None = 5,
    line: int | None = None,
    policy: bool = False,
) -> RuleRef:
    """A rule, or with `policy` the policy of its chain."""
    family = "inet" if backend is Backend.NFT else "ip"
    return RuleRef(
        backend=backend,
        family=family,
        table="filter",
        chain=chain,
        text="policy drop" if policy else text,
        policy=policy,
        handle=None if policy else handle,
        line=line,
    )


def walk_to(
    address: str,
    decider: RuleRef | None,
    verdict: Literal["accept", "drop", "reject", "unknown"] = "drop",
    *,
    port: int = 8080,
    packet: Literal["syn", "reply", "ack"] = "syn",
    doubts: tuple[str, ...] = (),
    reject_with: str | None = None,
) -> Walk:
    """The walk of one probe through the copy of the rules."""
    outcome = {"drop": Outcome.UNANSWERED, "reject": Outcome.REFUSED}.get(verdict, Outcome.CONNECTED)
    steps = (Step("syn", "input", decider, verdict),) if decider else ()
    return Walk(
        address=address,
        port=port,
        outcome=outcome,
        steps=steps,
        decider=decider,
        verdict=verdict,
        packet=packet,
        hook="input" if decider else "",
        reject_with=reject_with,
        doubts=doubts,
    )


def shadow(*walks: Walk, uncarried: tuple[str, ...] = ()) -> Fact[Shadow]:
    """The copy of the rule sets, and the probes sent in it."""
    return Known(Shadow(walks, uncarried, rules=7))


# findings and checks, for the engine


def cause(code: str, stage: Stage = Stage.SOCKET) -> Cause:
    """A row of a catalogue made for the test."""
    return Cause(code, stage, f"about {code}")


def finding(
    code: str,
    severity: Severity = Severity.PROBLEM,
    confidence: Confidence = Confidence.PROVEN,
    *,
    title: str = "",
    explains: tuple[str, ...] = (),
) -> Finding:
    """A finding of that code."""
    return Finding(
        code=code,
        title=title or f"This is {code}",
        severity=severity,
        confidence=confidence,
        explanation=f"Because of {code}.",
        evidence=(Evidence(f"seen: {code}", "a source"),),
        explains=explains,
    )


def rehearsed(walk: Walk, candidate: int = 0, *, mended: bool = True, opens: tuple[str, ...] = ()) -> Rehearsed:
    """The walk's own candidate, by its place among them, as it was tried in the copy."""
    remedy = candidates(walk)[candidate]
    return Rehearsed(remedy.commands, mended, opens, remedy)
