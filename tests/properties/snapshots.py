"""Arbitrary snapshots, built from the types themselves: whatever fields a fact gets, they are made up here too.

Many values of each fact are made once, by a generator with a fixed seed; hypothesis chooses how they come together.
So a snapshot costs a millisecond, and a failing one shrinks to the few facts that matter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from random import Random
from typing import Any, TypeVar

import msgspec.inspect as types
from hypothesis import strategies as st
from msgspec.structs import replace

from diagnose.model.attempt import Attempt, BindAttempt, Outcome
from diagnose.model.container import Containers, EngineContainer, Forwarder, Published
from diagnose.model.fact import NOT_NEEDED, Fact, Known, Unknown
from diagnose.model.finding import Finding, Risk
from diagnose.model.firewall import Backend, Rehearsed, RuleRef, Shadow, Walk
from diagnose.model.names import Resolution, ResolvedAddress
from diagnose.model.network import SocketRow, TcpState, family_of
from diagnose.model.report import CheckReport, Report
from diagnose.model.snapshot import Program, Snapshot
from diagnose.model.target import Intent
from tests.scenes import (
    ALICE,
    NEEDS_ROOT,
    POLICY,
    RULE_RESET,
    connected,
    denied,
    dialled,
    full_queue,
    held,
    listening,
    not_accepted,
    process,
    refused,
    rejected,
    resolved,
    roomy_queue,
    rows,
    rule,
    shadow,
    taken,
    udp_socket,
    unanswered,
    unreachable,
    walk_to,
    wanted,
)

T = TypeVar("T", Attempt, BindAttempt)

OF_EACH = 150
"""How many values of each fact are made."""
USUAL = 8080
"""In a table of sockets this port stands for the target's."""
LOCAL = ["127.0.0.1", "::1", "127.0.0.2", "0.0.0.0", "::", "::ffff:127.0.0.1", "192.0.2.10", "fe80::1"]
ADDRESSES = [*["127.0.0.1", "::1"] * 5, *LOCAL, "198.51.100.7", "2001:db8::1", "fe80::2%eth0"]
PORTS = [*[USUAL] * 6, 8081, 8808, 80, 443, 5432, 5433, 62893, 1, 65535]
CHECKS = ["in-use", "refused", "firewall", "resolution", "container", "loopback", "hung"]
HOSTILE = "\x00\n\r\t\x1b\x07\x7f\x9b\u202e\u2066\u200b\u2028\ufeffé字😀`|*_#[]\\\"'$;&%{}abc -.:/=0123"
WORDS = ["", "lo", "eth0", "python3", "node", "docker-proxy", "alice", "root", "tcp dport 8080 drop", "filter", "input"]
CONNECT_ENDS = {
    Outcome.BOUND: Outcome.CONNECTED,
    Outcome.ADDRESS_IN_USE: Outcome.UNANSWERED,
    Outcome.NAME_NOT_FOUND: Outcome.REFUSED,
}
"""Ends that no connect has, and what stands for them here."""
BIND_ENDS = {
    Outcome.BOUND: Outcome.BOUND,
    Outcome.CONNECTED: Outcome.BOUND,
    Outcome.NOT_ACCEPTED: Outcome.BOUND,
    Outcome.DENIED: Outcome.DENIED,
    Outcome.ADDRESS_UNAVAILABLE: Outcome.ADDRESS_UNAVAILABLE,
    Outcome.OTHER: Outcome.OTHER,
}
"""What stands for each end in a bind; all others for an address in use."""
ERRNOS = [None, "ECONNREFUSED", "EHOSTUNREACH", "ENETUNREACH", "EADDRINUSE", "EACCES", "EPERM", "EINVAL", "4711"]
NEVER = ()
ONCE_IN_A_WHILE = [*[NEVER] * 7, *((one,) for one in CHECKS)]

CHOICES: dict[str, list[Any]] = {
    "address": ADDRESSES,
    "sender": ADDRESSES,
    "gateway": [None, "192.0.2.1", "fe80::1"],
    "gateways": [(), ("172.17.0.1",), ("172.18.0.1", "fd00:9::1")],
    "container_port": PORTS,
    "network_mode": ["default", "bridge", "host", "none", "back", "container:" + "2e" * 32],
    "health": [None, "starting", "healthy", "unhealthy"],
    "addresses": [(), ("127.0.0.1", "::1"), ("127.0.0.1",), ("::1",), ("192.0.2.10", "fe80::1")],
    "port": PORTS,
    "inode": [0, 1, 2, 3],
    "host": ["localhost", "localhost", "db", "my-host.example.org", "127.1", "127.0.0.1", "::1"],
    "errno": ERRNOS,
    "plain_errno": ERRNOS,
    "error": [*[None] * 9, "EAI_NONAME", "EAI_AGAIN", "DEADLINE"],
    "reason": ["NETFILTER_DROP", "NO_SOCKET", "TCP_LISTEN_OVERFLOW", "NOT_SPECIFIED"],
    "destination": ["127.0.0.0/8", "127.0.0.1/32", "::1/128", "192.0.2.10/32"],
    "path": ["/etc/hosts"],
    "table": ["filter", "nat", "fw"],
    "doubts": [(), (), ("two chains of equal priority",)],
    "uncarried": [(), (), ("a set\x1b that could not be read",)],
    "chain": ["input", "INPUT", "output"],
    "engine": ["docker", "podman", "lxc"],
    "id": ["1f" * 32, "2e" * 32, "3d" * 32, "4c" * 32],
    "unit": [None, None, "db.service", "user@1000.service", "-"],
    "device": [None, None, None, "lo", "eth0"],
    "platform": ["linux", "linux", "linux", "darwin", "win32"],
    "reserved": [(), ((8080, 8080),), ((1, 1024), (60000, 65535))],
    "state": ["S", "S", "R", "T", "D", "t", "Z"],
    "argv": [("nft", "delete", "rule", "inet", "filter", "input", "handle", "5"), ("iptables", "-D", "INPUT", "1")],
    "only": ONCE_IN_A_WHILE,
    "skip": ONCE_IN_A_WHILE,
    "passive": [*[False] * 9, True],
    "origin": [None, None, "pid:4711", "netns:blue", "container:web"],
    "sudo_user": [None, None, "alice"],
    "schema": ["netdiag.snapshot/1"],
}
"""Fields whose values a probe takes from a smaller set than their type's."""


class Maker:
    """Makes up values of the model's types."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)

    def make(self, info: types.Type) -> Any:
        """A value of that type."""
        match info:
            case types.StructType(cls=kind, fields=fields):
                value = kind(**{one.name: self._field(one) for one in fields if one.name != "schema"})
                return LIKELY.get(kind, _as_it_is)(value)
            case types.UnionType(types=kinds):
                known = [one for one in kinds if isinstance(one, types.StructType) and one.tag == "known"]
                return self.make(self._random.choice([*kinds, *known * 3]))
            case types.NoneType():
                return None
            case types.BoolType():
                return self._random.random() < 0.5
            case types.IntType(ge=least, le=most):
                usual = [0, 1, 2, 3, 5, 1000, 65536, 2**40]
                return self._random.choice([one for one in usual if (least or 0) <= one <= (most or one)])
            case types.FloatType():
                return self._random.choice([0.0, 0.04, 1.0, 99.95, 3000.123])
            case types.StrType(min_length=None):
                return self._text()
            case types.StrType():
                return self._random.choice(ADDRESSES)
            case types.EnumType(cls=kind):
                return self._random.choice(list(kind))
            case types.LiteralType(values=values):
                return self._random.choice(list(values))
            case types.VarTupleType(item_type=item):
                return tuple(self.make(item) for _ in range(self._random.randrange(3)))
            case types.TupleType(item_types=items):
                return tuple(self.make(one) for one in items)
            case _:
                raise NotImplementedError(f"a fact has a {info}")

    def _field(self, field: types.Field) -> Any:
        fitting = [one for one in CHOICES.get(field.name, ()) if _fits(one, field.type)]
        return self._random.choice(fitting) if fitting else self.make(field.type)

    def _text(self) -> str:
        if self._random.random() < 0.6:
            return self._random.choice(WORDS)
        return "".join(self._random.choices(HOSTILE, k=self._random.randrange(1, 12)))


def _fits(value: Any, info: types.Type) -> bool:
    """Whether a chosen value is one of the type: a name may stand for a text here and for a number there."""
    match info:
        case types.UnionType(types=kinds):
            return any(_fits(value, one) for one in kinds)
        case types.NoneType():
            return value is None
        case types.BoolType():
            return isinstance(value, bool)
        case types.IntType():
            return isinstance(value, int) and not isinstance(value, bool)
        case types.StrType():
            return isinstance(value, str)
        case types.LiteralType(values=values):
            return value in values
        case types.VarTupleType(item_type=item):
            plain = not isinstance(item, types.StructType)
            return plain and isinstance(value, tuple) and all(_fits(one, item) for one in value)
        case types.TupleType(item_types=items):
            return isinstance(value, tuple) and len(value) == len(items) and all(map(_fits, value, items))
        case _:
            return False


# what no probe ever writes down: the fields of one fact agree with each other


def _as_it_is(one: Any) -> Any:
    return one


def _attempt(one: Attempt) -> Attempt:
    outcome = CONNECT_ENDS.get(one.outcome, one.outcome)
    by_icmp = isinstance(one.icmp, Known) and any(error.origin != "local" for error in one.icmp.value)
    reset = NOT_NEEDED if by_icmp else one.reset  # nobody asks who sent a reset that was none
    return replace(one, family=family_of(one.address), outcome=outcome, local=one.address in LOCAL, reset=reset)


def _bind(one: BindAttempt) -> BindAttempt:
    first, plain = (BIND_ENDS.get(end, Outcome.ADDRESS_IN_USE) for end in (one.outcome, one.plain_outcome))
    return replace(one, family=family_of(one.address), outcome=first, plain_outcome=plain)


def _row(one: SocketRow) -> SocketRow:
    local = replace(one.local, address=one.local.address.partition("%")[0])
    return replace(one, local=local, family=family_of(local.address))


def _rule(one: RuleRef) -> RuleRef:
    nft = one.backend is Backend.NFT
    number = None if one.policy else 5
    return replace(one, handle=number if nft else None, line=None if nft else number)


def _walk(one: Walk) -> Walk:
    return replace(one, decider=one.decider if one.verdict in ("drop", "reject") else None)


def _rehearsed(one: Rehearsed) -> Rehearsed:
    return replace(one, remedy=one.remedy and replace(one.remedy, commands=one.commands, risk=Risk.SAFE))


LIKELY: dict[Any, Callable[[Any], Any]] = {
    Attempt: _attempt,
    BindAttempt: _bind,
    SocketRow: _row,
    RuleRef: _rule,
    Walk: _walk,
    Rehearsed: _rehearsed,
    Finding: lambda one: replace(one, code="refused/nothing-listening", explains=("firewall/silent",)),
    CheckReport: lambda one: replace(one, name="refused"),
    Program: lambda _one: Program("netdiag", "/opt/netdiag/bin/netdiag"),
    ResolvedAddress: lambda one: replace(one, family=family_of(one.address)),
}


# and the facts of one snapshot agree with what was asked


def _likely(one: Snapshot) -> Snapshot:
    port = one.target.port
    names = _named(one.names, one.target.host, [*(a.address for a in one.attempts), *(b.address for b in one.binds)])
    tried = {a.address for a in names.value.addresses} if isinstance(names, Known) and not one.scope.passive else ()
    binding = one.intent is Intent.BIND
    return replace(
        one,
        attempts=_once(replace(a, port=port) for a in one.attempts if a.address in tried and not binding),
        binds=_once(replace(b, port=port) for b in one.binds if b.address in tried and binding),
        names=names,
        sockets=_on(one.sockets, port),
        udp=_on(one.udp, port, TcpState.CLOSE),
        bound=_on(one.bound, port, TcpState.BOUND_INACTIVE),
        listeners=_listening(one.listeners, port),
        candidates=tuple(replace(c, port=port) for c in one.candidates),
        containers=_containers(one.containers, port),
        firewall=_walks(one.firewall, port),
    )


def _once(tried: Iterable[T]) -> tuple[T, ...]:
    """One attempt to each address."""
    return tuple({one.address: one for one in tried}.values())


def _named(names: Fact[Resolution], host: str, tried: list[str]) -> Fact[Resolution]:
    if isinstance(names, Unknown):
        return names
    found = () if names.value.error else dict.fromkeys(tried or ["127.0.0.1"])
    addresses = tuple(ResolvedAddress(a, family_of(a)) for a in found)
    literal, odd = host in ADDRESSES, host == "127.1"
    return Known(replace(names.value, host=host, addresses=addresses, literal=literal, odd_literal=odd))


def _on(rows: Fact[tuple[SocketRow, ...]], port: int, state: TcpState | None = None) -> Fact[tuple[SocketRow, ...]]:
    if isinstance(rows, Unknown):
        return rows
    return Known(tuple(_moved(row, port, state or row.state) for row in rows.value))


def _listening(rows: Fact[tuple[SocketRow, ...]], port: int) -> Fact[tuple[SocketRow, ...]]:
    if isinstance(rows, Unknown):
        return rows
    ports = (port if row.local.port == USUAL else row.local.port for row in rows.value)
    return Known(tuple(_moved(row, to, TcpState.LISTEN) for row, to in zip(rows.value, ports, strict=True)))


def _moved(row: SocketRow, port: int, state: TcpState) -> SocketRow:
    return replace(row, local=replace(row.local, port=port), state=state)


def _containers(containers: Fact[Containers], port: int) -> Fact[Containers]:
    if isinstance(containers, Unknown):
        return containers
    seen = containers.value
    return Known(
        replace(
            seen,
            engines=tuple(replace(one, containers=_publishing(one.containers, port)) for one in seen.engines),
            insides=tuple(replace(one, listeners=_listening(one.listeners, port)) for one in seen.insides),
            host=seen.host and replace(seen.host, listeners=_listening(seen.host.listeners, port)),
            forwarders=_forwarding(seen.forwarders, port),
        )
    )


def _publishing(told: Fact[tuple[EngineContainer, ...]], port: int) -> Fact[tuple[EngineContainer, ...]]:
    if isinstance(told, Unknown):
        return told
    return Known(tuple(replace(one, published=_published(one.published, port)) for one in told.value))


def _published(entries: tuple[Published, ...], port: int) -> tuple[Published, ...]:
    return tuple(replace(one, port=port if one.port == USUAL else one.port) for one in entries)


def _forwarding(forwarders: Fact[tuple[Forwarder, ...]], port: int) -> Fact[tuple[Forwarder, ...]]:
    if isinstance(forwarders, Unknown):
        return forwarders
    return Known(tuple(replace(one, listens=replace(one.listens, port=port)) for one in forwarders.value))


def _walks(firewall: Fact[Shadow], port: int) -> Fact[Shadow]:
    if isinstance(firewall, Unknown):
        return firewall
    return Known(replace(firewall.value, walks=tuple(replace(w, port=port) for w in firewall.value.walks)))


# machines that make sense

_V4, _V6 = "127.0.0.1:8080", "[::1]:8080"
_PYTHON, _STOPPED = held((1, process())), held((1, process(state="T")))
TOLD = [
    dialled(_V4, refused(_V4)),
    dialled(_V4, refused(_V4), listeners=rows(listening("127.0.0.1:8081")), holders=_PYTHON),
    dialled(_V4, refused(_V4), udp=rows(udp_socket(_V4))),
    dialled("postgres://localhost:5433/", refused("127.0.0.1:5433"), listeners=rows(listening("127.0.0.1:5432"))),
    dialled("localhost:8080", refused(_V6), connected(_V4), listeners=rows(listening(_V4)), holders=_PYTHON),
    dialled(_V4, refused(_V4), listeners=rows(listening(_V6, v6only=True)), candidates=(connected(_V6),)),
    dialled(_V4, refused(_V4, RULE_RESET), listeners=rows(listening(_V4)), seen_by=ALICE, firewall=NEEDS_ROOT),
    dialled(
        _V4, rejected(_V4), listeners=rows(listening(_V4)), firewall=shadow(walk_to("127.0.0.1", rule(), "reject"))
    ),
    dialled(
        _V4,
        unanswered(_V4, drop="NETFILTER_DROP", queue=roomy_queue(_V4)),
        listeners=rows(listening(_V4)),
        firewall=shadow(walk_to("127.0.0.1", rule())),
    ),
    dialled(
        _V4,
        unanswered(_V4, drop="NETFILTER_DROP"),
        listeners=rows(listening(_V4)),
        firewall=shadow(walk_to("127.0.0.1", rule(policy=True))),
    ),
    dialled(_V4, unanswered(_V4, queue=full_queue(_V4)), listeners=rows(listening(_V4)), holders=_STOPPED),
    dialled(_V4, not_accepted(_V4), listeners=rows(listening(_V4)), holders=_STOPPED),
    dialled("198.51.100.7:8080", refused("198.51.100.7:8080", local=False)),
    dialled("198.51.100.7:8080", unanswered("198.51.100.7:8080", local=False)),
    dialled(_V4, unreachable(_V4)),
    dialled("nowhere:80", names=resolved("nowhere", error="EAI_NONAME")),
    dialled(_V4, passive=True, names=resolved("127.0.0.1", "127.0.0.1")),
    wanted(_V4, taken(_V4), listeners=rows(listening("0.0.0.0:8080")), holders=_PYTHON),
    wanted("127.0.0.1:80", denied("127.0.0.1:80"), seen_by=ALICE, policy=Known(POLICY)),
]

# what hypothesis chooses from


def _choices(info: types.Type) -> st.SearchStrategy[Any]:
    maker = Maker(seed=62893)
    if isinstance(info, types.EnumType):
        return st.sampled_from(list(info.cls))
    if isinstance(info, types.VarTupleType):
        made = [maker.make(info.item_type) for _ in range(OF_EACH)]
        return st.lists(st.sampled_from(made), min_size=1, max_size=3).map(tuple)
    return st.sampled_from([maker.make(info) for _ in range(OF_EACH)])


def _struct(kind: type[Any]) -> dict[str, st.SearchStrategy[Any]]:
    info = types.type_info(kind)
    assert isinstance(info, types.StructType)
    return {one.name: _choices(one.type) for one in info.fields if one.name != "schema"}


_FACTS = _struct(Snapshot)
_ANY = st.builds(Snapshot, **_FACTS)
_CHANGES = st.lists(st.sampled_from(sorted(_FACTS)), max_size=3, unique=True).flatmap(
    lambda names: st.fixed_dictionaries({name: _FACTS[name] for name in names})
)
_CHANGED = st.builds(lambda one, changes: replace(one, **changes), st.sampled_from(TOLD), _CHANGES)

snapshots: st.SearchStrategy[Snapshot] = st.one_of(_CHANGED, _ANY).map(_likely)
"""What a machine might have said, much that none ever will, and machines that make sense but for a fact or three."""

reports: st.SearchStrategy[Report] = st.builds(Report, **_struct(Report))
"""Reports that no engine need ever have made."""
