"""The nf_tables rule set as the kernel dumps it, read and written back as bytes (linux/netfilter/nf_tables.h).

The expressions of a rule stay opaque: what the kernel dumped is what it is given again, whichever tool and version
made the rule. Only what names a rule to people (reject, comment, state) is looked into.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator, Mapping
from enum import IntEnum
from itertools import groupby, pairwise
from operator import attrgetter
from typing import Literal

from msgspec import Struct

from diagnose.parse import nfnetlink as nl

SUBSYSTEM = 10
"""NFNL_SUBSYS_NFTABLES."""


class Kind(IntEnum):
    """The messages that hold a part of a rule set (enum nf_tables_msg_types)."""

    TABLE = 0
    CHAIN = 3
    RULE = 6
    SET = 9
    ELEMENTS = 12
    OBJECT = 18
    FLOWTABLE = 22

    @property
    def get(self) -> int:
        """The request that dumps parts of this kind."""
        return SUBSYSTEM << 8 | int(self) + 1

    @property
    def new(self) -> int:
        """The request that creates one, and the message that a dump holds."""
        return SUBSYSTEM << 8 | int(self)


_DELETE_CHAIN = SUBSYSTEM << 8 | 5
GET_GENERATION = SUBSYSTEM << 8 | 16
TRACE = SUBSYSTEM << 8 | 17
BATCH_BEGIN, BATCH_END = 0x10, 0x11

FAMILIES = {1: "inet", 2: "ip", 3: "arp", 5: "netdev", 7: "bridge", 10: "ip6"}
"""enum of NFPROTO_ (linux/netfilter.h)."""
_HOOKS = ("prerouting", "input", "forward", "output", "postrouting")
_NETDEV_HOOKS = ("ingress", "egress")

_DORMANT, _OWNER = 1, 2
_CHAIN_BINDING = 4
_SET_ANONYMOUS, _SET_INTERVAL, _SET_TIMEOUT = 1, 4, 16

_EXPRESSIONS, _USERDATA = 4, 7
"""NFTA_RULE_EXPRESSIONS, _USERDATA."""
_GIVEN = frozenset({_EXPRESSIONS, _USERDATA})

_KEPT = {
    # everything but handles, use counts and the ids that hold within one transaction only
    Kind.TABLE: frozenset({1, 6}),
    Kind.CHAIN: frozenset({1, 3, 4, 5, 7, 12}),
    Kind.SET: frozenset({1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 15, 17, 18}),
    Kind.ELEMENTS: frozenset({1, 2, 3}),
    Kind.OBJECT: frozenset({1, 2, 3, 4, 8}),
    Kind.FLOWTABLE: frozenset({1, 2, 3, 7}),
}


class TableKey(Struct, frozen=True, order=True):
    """Family number and name of a table."""

    family: int
    name: bytes


class ChainKey(Struct, frozen=True, order=True):
    """A chain of a table."""

    table: TableKey
    name: bytes


class Table(Struct, frozen=True):
    """A table, as dumped."""

    key: TableKey
    body: bytes
    flags: int

    @property
    def dormant(self) -> bool:
        """Its chains are not hooked in."""
        return bool(self.flags & _DORMANT)

    @property
    def owned(self) -> bool:
        """Only the socket of the program that made it may change it (flags owner)."""
        return bool(self.flags & _OWNER)


class Hook(Struct, frozen=True):
    """Where a base chain is hooked in."""

    name: str
    priority: int
    kind: str
    """filter, nat or route."""
    drops: bool
    """The policy is drop."""
    devices: tuple[bytes, ...] = ()


class Chain(Struct, frozen=True):
    """A chain, as dumped; only a base chain has a hook."""

    key: ChainKey
    body: bytes
    hook: Hook | None
    anonymous: bool


class Rule(Struct, frozen=True):
    """A rule: of thousands a walk meets few, so what it was given is read when it is asked for."""

    chain: ChainKey
    handle: int
    given: bytes
    """Its expressions and user data, the attributes as dumped."""

    @property
    def expressions(self) -> bytes:
        """The list of its expressions; ValueError when it is torn."""
        return nl.by_type(self.given).get(_EXPRESSIONS, b"")

    @property
    def userdata(self) -> bytes:
        """What the tool that made the rule keeps with it; ValueError when it is torn."""
        return nl.by_type(self.given).get(_USERDATA, b"")


class Set(Struct, frozen=True):
    """A set or map, as dumped, with the messages that hold its elements."""

    table: TableKey
    name: bytes
    body: bytes
    flags: int
    elements: tuple[bytes, ...] = ()


class Other(Struct, frozen=True):
    """A named object (counter, quota, limit ...) or a flowtable, as dumped."""

    kind: Kind
    table: TableKey
    name: bytes
    body: bytes


def devices(other: Other) -> tuple[bytes, ...]:
    """The devices that a flowtable is bound to (enum nft_flowtable_hook_attributes)."""
    if other.kind is not Kind.FLOWTABLE:
        return ()
    hook = nl.by_type(nl.by_type(other.body, nl.GENERIC).get(3, b""))
    return tuple(nl.name(value) for _, value in nl.walk(hook.get(3, b"")))


class Ruleset(Struct, frozen=True):
    """All tables of a network namespace."""

    tables: tuple[Table, ...]
    chains: tuple[Chain, ...]
    rules: tuple[Rule, ...]
    sets: tuple[Set, ...]
    others: tuple[Other, ...]
    generation: int = 0
    """Every transaction makes a new one."""

    def only(self, wanted: Iterable[TableKey]) -> Ruleset:
        """The part that lies in these tables."""
        keys = frozenset(wanted)
        return Ruleset(
            tuple(t for t in self.tables if t.key in keys),
            tuple(c for c in self.chains if c.key.table in keys),
            tuple(r for r in self.rules if r.chain.table in keys),
            tuple(s for s in self.sets if s.table in keys),
            tuple(o for o in self.others if o.table in keys),
        )


EMPTY = Ruleset((), (), (), (), ())


class Expression(Struct, frozen=True):
    """One expression of a rule: its name, and its attributes as bytes."""

    name: str
    data: bytes


Message = tuple[int, bytes]
"""Type and payload of a netlink message; the payload opens with struct nfgenmsg."""


def ruleset(messages: Iterable[Message]) -> Ruleset:
    """The rule set in the messages of its dumps; ValueError when they are not what nf_tables.h describes."""
    tables: list[Table] = []
    chains: list[Chain] = []
    rules: list[Rule] = []
    sets: dict[tuple[TableKey, bytes], Set] = {}
    others: list[Other] = []
    filling: dict[tuple[TableKey, bytes], list[bytes]] = {}
    one_after_another = _RuleReader()
    for kind, payload in messages:
        if kind == _NEW_RULE and (rule := one_after_another.read(payload)) is not None:
            rules.append(rule)
            continue
        if kind >> 8 != SUBSYSTEM or len(payload) < nl.GENERIC:
            raise ValueError(f"netlink message {kind:#x} is not of nf_tables")
        try:
            found = nl.by_type(payload, nl.GENERIC)
            key = TableKey(payload[0], nl.name(found[1]))
            match kind & 0xFF:
                case Kind.TABLE:
                    tables.append(Table(key, payload, nl.number(found.get(2))))
                case Kind.CHAIN:
                    chains.append(_chain(key, payload, found))
                case Kind.RULE:
                    chain = ChainKey(key, nl.name(found[2]))
                    rules.append(Rule(chain, nl.number(found[3]), nl.keep(payload, nl.GENERIC, _GIVEN)))
                    one_after_another = _RuleReader(payload, chain)
                case Kind.SET:
                    name = nl.name(found[2])
                    sets[key, name] = Set(key, name, payload, nl.number(found.get(3)))
                case Kind.ELEMENTS:
                    filling.setdefault((key, nl.name(found[2])), []).append(payload)
                case Kind.OBJECT | Kind.FLOWTABLE:
                    others.append(Other(Kind(kind & 0xFF), key, nl.name(found[2]), payload))
                case _:
                    raise ValueError(f"netlink message {kind:#x} holds no part of a rule set")
        except KeyError as error:
            raise ValueError(f"netlink message {kind:#x} lacks attribute {error}") from error
    filled = tuple(Set(s.table, s.name, s.body, s.flags, tuple(filling.get(where, ()))) for where, s in sets.items())
    return Ruleset(tuple(tables), tuple(chains), tuple(rules), filled, tuple(others))


def _chain(table: TableKey, payload: bytes, found: Mapping[int, bytes]) -> Chain:
    hook = _hook(table.family, found) if 4 in found else None
    anonymous = bool(nl.number(found.get(10)) & _CHAIN_BINDING)
    return Chain(ChainKey(table, nl.name(found[3])), payload, hook, anonymous)


def _hook(family: int, found: Mapping[int, bytes]) -> Hook:
    hook = nl.by_type(found[4])
    names = _NETDEV_HOOKS if family == 5 else _HOOKS
    number = nl.number(hook[1])
    devices = tuple(nl.name(value) for _, value in nl.walk(hook[4])) if 4 in hook else ()
    return Hook(
        # hook 5 of inet is its ingress, bound to devices as netdev's
        names[number] if number < len(names) else "ingress",
        nl.signed(hook[2]),
        nl.name(found.get(7, b"filter")).decode("ascii", "backslashreplace"),
        nl.number(found.get(5), 1) == 0,
        devices or ((nl.name(hook[3]),) if 3 in hook else ()),
    )


_NEW_RULE = Kind.RULE.new
_CHAIN_OF = attrgetter("chain")
_NUMBER = struct.Struct("=4s8s")
"""An attribute of 64 bits: its header and its value."""
_HANDLE_HEAD, _POSITION_HEAD = (nl.attribute(kind, bytes(8))[:4] for kind in (3, 6))
_HEAD = struct.Struct("=HH")


class _RuleReader:
    """Reads the rules that follow one of the same chain: they open with the same bytes, and that is quick to see."""

    def __init__(self, first: bytes = b"", chain: ChainKey | None = None) -> None:
        self._chain = chain
        self._opening = b"" if chain is None else _opening(first[: nl.GENERIC], chain)

    def read(self, payload: bytes) -> Rule | None:
        """The rule; None when the message is not exactly like the ones before, and needs a closer look."""
        at = len(self._opening)
        if self._chain is None or len(payload) < at + _NUMBER.size or not payload.startswith(self._opening):
            return None
        head, handle = _NUMBER.unpack_from(payload, at)
        at += _NUMBER.size
        if head != _HANDLE_HEAD:
            return None
        if payload[at : at + _HEAD.size] == _POSITION_HEAD:
            at += _NUMBER.size
        given = payload[at:]
        return Rule(self._chain, int.from_bytes(handle, "big"), given) if _is_given(given) else None


def _opening(generic: bytes, chain: ChainKey) -> bytes:
    """How a message about a rule of this chain begins."""
    return generic + nl.text(1, chain.table.name) + nl.text(2, chain.name)


def _is_given(attributes: bytes) -> bool:
    """Expressions, perhaps user data behind them, and nothing else."""
    at = 0
    for wanted in (_EXPRESSIONS, _USERDATA):
        if at + _HEAD.size > len(attributes):
            return False
        length, kind = _HEAD.unpack_from(attributes, at)
        at += (length + 3) & ~3
        if kind & nl.TYPE_MASK != wanted or length < _HEAD.size:
            return False
        if at == len(attributes):
            return True
    return False


# ------ what is said of a rule


def expressions(rule: Rule) -> Iterator[Expression]:
    """The rule's expressions in order; ValueError when they are torn."""
    for _, element in nl.walk(rule.expressions):
        found = nl.by_type(element)
        yield Expression(nl.name(found.get(1, b"")).decode("ascii", "backslashreplace"), found.get(2, b""))


def comment(rule: Rule) -> str | None:
    """The comment in the rule's user data (libnftnl/udata.h), or of an xt comment match."""
    offset = 0
    while offset + 2 <= len(rule.userdata):
        kind, length = rule.userdata[offset], rule.userdata[offset + 1]
        if kind == 0:
            return readable(nl.name(rule.userdata[offset + 2 : offset + 2 + length]))
        offset += 2 + length
    for expression in expressions(rule):
        if expression.name == "match":
            name, info = extension(expression)
            if name == "comment":
                return readable(nl.name(info))
    return None


def extension(expression: Expression) -> tuple[str, bytes]:
    """Name and data of an xt match or target inside nf_tables (enum nft_match_attributes)."""
    found = nl.by_type(expression.data)
    return nl.name(found.get(1, b"")).decode("ascii", "backslashreplace"), found.get(3, b"")


def extended(rule: Rule) -> bool:
    """By its bytes alone the rule may have an xt match or target; most rules have none, and need no closer look."""
    return b"match" in rule.given or b"target" in rule.given


def readable(value: bytes) -> str:
    """Bytes of the kernel as text; what is no UTF-8 is kept as an escape."""
    return value.decode("utf-8", "backslashreplace")


_ICMP = {
    0: "net-unreachable",
    1: "host-unreachable",
    2: "prot-unreachable",
    3: "port-unreachable",
    9: "net-prohibited",
    10: "host-prohibited",
    13: "admin-prohibited",
}
_ICMP6 = {0: "no-route", 1: "admin-prohibited", 3: "addr-unreachable", 4: "port-unreachable", 5: "policy-fail"}
_ICMPX = {0: "no-route", 1: "port-unreachable", 2: "host-unreachable", 3: "admin-prohibited"}


def reject_with(rule: Rule) -> str | None:
    """How the rule rejects, in nft's words; None when it does not."""
    for expression in expressions(rule):
        if expression.name == "reject":
            found = nl.by_type(expression.data)
            return _native_reject(rule.chain.table.family, nl.number(found.get(1)), nl.number(found.get(2)))
        if expression.name == "target":
            name, info = extension(expression)
            if name == "REJECT":
                return xt_reject(rule.chain.table.family == 10, info)
    return None


def _native_reject(family: int, kind: int, code: int) -> str:
    if kind == 1:
        return "tcp reset"
    if kind == 2:
        return f"icmpx {_ICMPX.get(code, code)}"
    return f"icmpv6 {_ICMP6.get(code, code)}" if family == 10 else f"icmp {_ICMP.get(code, code)}"


_XT_REJECT = (
    "icmp net-unreachable",
    "icmp host-unreachable",
    "icmp prot-unreachable",
    "icmp port-unreachable",
    "icmp echo-reply",
    "icmp net-prohibited",
    "icmp host-prohibited",
    "tcp reset",
    "icmp admin-prohibited",
)
_XT_REJECT6 = (
    "icmpv6 no-route",
    "icmpv6 admin-prohibited",
    "icmpv6 not-neighbour",
    "icmpv6 addr-unreachable",
    "icmpv6 port-unreachable",
    "icmpv6 echo-reply",
    "tcp reset",
    "icmpv6 policy-fail",
    "icmpv6 reject-route",
)


def xt_reject(six: bool, info: bytes) -> str:
    """How an xt REJECT target rejects (enum ipt_reject_with, ip6t_reject_with), in nft's words."""
    names = _XT_REJECT6 if six else _XT_REJECT
    with_ = int.from_bytes(info[:4], nl.BYTE_ORDER)
    return names[with_] if with_ < len(names) else f"code {with_}"


_VERDICTS = {0: "drop", 1: "accept", 3: "queue", -3: "jump", -4: "goto", -5: "return"}
_NATS = {0: "snat", 1: "dnat"}
_XT_NATS = {"DNAT": "dnat", "SNAT": "snat", "REDIRECT": "redirect", "MASQUERADE": "masquerade", "NETMAP": "netmap"}


def rewrites(rule: Rule) -> str | None:
    """snat, dnat, redirect, masquerade or netmap, when the rule changes addresses."""
    for expression in expressions(rule):
        match expression.name:
            case "nat":
                return _NATS.get(nl.number(nl.by_type(expression.data).get(1)), "nat")
            case "masq":
                return "masquerade"
            case "redir":
                return "redirect"
            case "target":
                name = _XT_NATS.get(extension(expression)[0])
                if name is not None:
                    return name
    return None


def intent(rule: Rule) -> str:
    """What the rule does with a packet that it matches, as far as its last expression says."""
    changed = rewrites(rule)
    if changed is not None:
        return changed
    if reject_with(rule) is not None:
        return "reject"
    for expression in expressions(rule):
        found = nl.by_type(expression.data)
        if expression.name == "immediate" and nl.number(found.get(1)) == 0:
            verdict = nl.by_type(nl.by_type(found.get(2, b"")).get(2, b""))
            code = nl.signed(verdict[1]) if 1 in verdict else -1
            name = _VERDICTS.get(code if code < 0 else code & 0xFF, "continue")
            return f"{name} {readable(nl.name(verdict[2]))}" if 2 in verdict else name
        if expression.name == "target":
            return extension(expression)[0].lower()
        if expression.name == "queue":
            return "queue"
    return "continue"


# ------ written back


def clone(
    rules: Ruleset, base_chains: Iterable[Chain], reverse: frozenset[tuple[TableKey, bytes]]
) -> Iterator[Message]:
    """The requests that create this rule set where there is none, in an order that meets every reference.

    Base chains come in the order given, which is the order of their registration. The elements of the sets in
    `reverse` are given back to front: an interval set is dumped from its end.
    """
    for table in rules.tables:
        flags = nl.u32(2, table.flags & (_DORMANT | _OWNER))
        yield Kind.TABLE.new, table.body[:4] + nl.keep(table.body, nl.GENERIC, _KEPT[Kind.TABLE]) + flags
    for chain in (*(c for c in rules.chains if c.hook is None), *base_chains):
        yield Kind.CHAIN.new, _verbatim(Kind.CHAIN, chain.body)
    for other in rules.others:
        yield other.kind.new, _requested(other.kind, other.body)
    for identity, one in enumerate(rules.sets, 1):
        yield Kind.SET.new, _verbatim(Kind.SET, one.body) + nl.u32(10, identity)
        backwards = (one.table, one.name) in reverse
        for body in one.elements[::-1] if backwards else one.elements:
            yield Kind.ELEMENTS.new, _reversed(body) if backwards else _requested(Kind.ELEMENTS, body)
    timeless = frozenset((s.table, s.name) for s in rules.sets if not s.flags & _SET_TIMEOUT)
    held = by_chain(rules)
    # a chain that stands within a rule is closed by it, and the innermost was made last
    inline = [chain.key for chain in reversed(rules.chains) if chain.anonymous and chain.key in held]
    for key in dict.fromkeys((*inline, *held)):
        head = opening(key)
        for rule in held[key]:
            yield _NEW_RULE, head + _as_taken(rule, timeless) + compatibility(rule)


def names(rules: Ruleset) -> Iterator[tuple[TableKey, bytes]]:
    """Every name that a listing has without quotes, with its table: of tables, chains, sets, objects and flowtables."""
    for table in rules.tables:
        yield table.key, table.key.name
    for chain in rules.chains:
        yield chain.key.table, chain.key.name
    for one in rules.sets:
        yield one.table, one.name
    for other in rules.others:
        yield other.table, other.name


def without(chain: ChainKey) -> Message:
    """The request that takes away a chain to which nothing jumps, and its rules."""
    return _DELETE_CHAIN, nl.generic(chain.table.family) + nl.text(1, chain.table.name) + nl.text(3, chain.name)


def opening(chain: ChainKey) -> bytes:
    """How a request about a rule of this chain begins."""
    return _opening(nl.generic(chain.table.family), chain)


def _verbatim(kind: Kind, body: bytes) -> bytes:
    return body[: nl.GENERIC] + nl.keep(body, nl.GENERIC, _KEPT[kind])


def _requested(kind: Kind, body: bytes) -> bytes:
    """The part as a request: without what the kernel tells of expressions and objects and does not take."""
    if kind is Kind.ELEMENTS and b"quota\0" not in body:
        return _verbatim(kind, body)
    found = nl.by_type(body, nl.GENERIC)
    match kind:
        case Kind.ELEMENTS:
            number, changed = 3, b"".join(nl.nest(1, _takeable_element(one)) for _, one in nl.walk(_listed(body)))
        case Kind.OBJECT if nl.number(found.get(3)) == _QUOTA_OBJECT and _spent(found.get(4, b"")):
            number, changed = 4, _takeable_quota(found.get(4, b""))
        case _:
            return _verbatim(kind, body)
    return body[: nl.GENERIC] + nl.keep(body, nl.GENERIC, _KEPT[kind] - {number}) + nl.nest(number, changed)


_NONE: frozenset[bytes] = frozenset()


def _as_taken(rule: Rule, timeless: frozenset[tuple[TableKey, bytes]]) -> bytes:
    """A rule's expressions and user data, as nf_tables takes them; the sets in `timeless` have no timeouts."""
    given = rule.given
    if not _holds_untaken(given):
        return given
    names = frozenset(name for table, name in timeless if table == rule.chain.table) if b"dynset" in given else _NONE
    told = [one for _, one in nl.walk(rule.expressions)]
    taken = [_takeable(one, names) for one in told]
    if taken == told:
        return given
    changed = b"".join(nl.nest(1, one) for one in taken)
    return nl.nest(_EXPRESSIONS, changed) + nl.keep(given, 0, frozenset({_USERDATA}))


def _holds_untaken(given: bytes) -> bool:
    return any(name in given for name in _UNTAKEN)


_UNTAKEN = (b"exthdr\0", b"quota\0", b"dynset\0")


_QUOTA_OBJECT = 2
"""NFT_OBJECT_QUOTA."""
_DREG, _EXTHDR_OP, _SREG = 1, 6, 7
_SET_OPTION, _STRIP_OPTION = frozenset({2, 3, 4, _EXTHDR_OP, _SREG}), frozenset({2, _EXTHDR_OP})
_QUOTA_FLAGS, _QUOTA_INVERTED = 2, 1
_QUOTA_KEPT = frozenset({1, 4})
_DYNSET_SET, _DYNSET_TIMEOUT = 1, 6
_ELEMENT_EXPRESSION, _ELEMENT_EXPRESSIONS = 7, 11


def _takeable(element: bytes, timeless: frozenset[bytes] = _NONE) -> bytes:
    """An expression as nf_tables takes it (the init functions in nft_exthdr.c, nft_quota.c and nft_dynset.c)."""
    found = nl.by_type(element)
    name, data = nl.name(found.get(1, b"")), found.get(2, b"")
    if name == b"exthdr" and _DREG not in nl.by_type(data):
        kept = _SET_OPTION if _SREG in nl.by_type(data) else _STRIP_OPTION
        return nl.text(1, name) + nl.nest(2, nl.keep(data, 0, kept))
    if name == b"dynset" and nl.name(nl.by_type(data).get(_DYNSET_SET, b"")) in timeless:
        return nl.text(1, name) + nl.nest(2, nl.keep(data, 0, frozenset(range(32)) - {_DYNSET_TIMEOUT}))
    if name == b"quota" and _spent(data):
        return nl.text(1, name) + nl.nest(2, _takeable_quota(data))
    return element


def _takeable_element(element: bytes) -> bytes:
    """An element of a set with its expressions as nf_tables takes them."""
    found = nl.by_type(element)
    changed = nl.keep(element, 0, frozenset(range(32)) - {_ELEMENT_EXPRESSION, _ELEMENT_EXPRESSIONS})
    if _ELEMENT_EXPRESSION in found:
        changed += nl.nest(_ELEMENT_EXPRESSION, _takeable(found[_ELEMENT_EXPRESSION]))
    if _ELEMENT_EXPRESSIONS in found:
        listed = b"".join(nl.nest(1, _takeable(one)) for _, one in nl.walk(found[_ELEMENT_EXPRESSIONS]))
        changed += nl.nest(_ELEMENT_EXPRESSIONS, listed)
    return changed


def _takeable_quota(data: bytes) -> bytes:
    """A quota without the note that it is used up, which the bytes that it has used tell as well."""
    flags = nl.number(nl.by_type(data).get(_QUOTA_FLAGS)) & _QUOTA_INVERTED
    return nl.keep(data, 0, _QUOTA_KEPT) + nl.u32(_QUOTA_FLAGS, flags)


def _spent(quota: bytes) -> bool:
    return bool(nl.number(nl.by_type(quota).get(_QUOTA_FLAGS)) & ~_QUOTA_INVERTED)


def _reversed(body: bytes) -> bytes:
    turned = b"".join(reversed(nl.pieces(_listed(body))))
    return body[: nl.GENERIC] + nl.keep(body, nl.GENERIC, frozenset({1, 2})) + nl.nest(3, turned)


def _listed(body: bytes) -> bytes:
    """The list of elements in a message of them."""
    listed = nl.by_type(body, nl.GENERIC).get(3, b"")
    return listed + b"\0" * (-len(listed) % 4)


def elements(one: Set) -> list[bytes]:
    """The elements of a set, without what only time moves."""
    if not one.flags & _SET_TIMEOUT:
        return [piece for body in one.elements for piece in nl.pieces(_listed(body))]
    return [_timeless(element) for body in one.elements for _, element in nl.walk(_listed(body))]


def intervals(rules: Ruleset) -> frozenset[tuple[TableKey, bytes]]:
    """The sets of intervals."""
    return frozenset((s.table, s.name) for s in rules.sets if s.flags & _SET_INTERVAL)


_L4PROTO = 16
"""NFT_META_L4PROTO."""


def compatibility(rule: Rule) -> bytes:
    """NFTA_RULE_COMPAT for a rule with xt extensions: the protocol that they are checked against.

    The kernel takes it and does not dump it; iptables-nft derives it from `-p`, which is the rule's protocol test
    (nft_parse_compat, net/netfilter/nft_compat.c).
    """
    if not extended(rule):
        return b""
    parts = list(expressions(rule))
    for load, test in pairwise(parts):
        if test.name == "cmp" and _loads_protocol(rule.chain.table.family, load):
            found = nl.by_type(test.data)
            value = nl.by_type(found.get(3, b"")).get(1, b"")
            inverted = nl.number(found.get(2)) == 1
            if len(value) == 1:
                return nl.nest(5, nl.u32(1, value[0]) + nl.u32(2, 2 if inverted else 0))
    return b""


def _loads_protocol(family: int, part: Expression) -> bool:
    if part.name == "meta":
        return nl.number(nl.by_type(part.data).get(2)) == _L4PROTO
    if part.name == "payload":
        found = nl.by_type(part.data)
        where = (nl.number(found.get(2)), nl.number(found.get(3)), nl.number(found.get(4)))
        return where == (1, 6 if family == 10 else 9, 1)
    return False


# ------ compared


def differences(original: Ruleset, copy: Ruleset) -> dict[TableKey, str]:
    """The tables whose copy does not list equal to the original, each with the first difference.

    Not compared: handles, use counts, what only time moves (expiry of elements, `last`), and what rules have counted:
    an interface of the copy that comes up sends packets of its own (MLD, RFC 3810).
    """
    mine, theirs = _parts(original), _parts(copy)
    return {
        table.key: _first_difference(mine[table.key], theirs.get(table.key, []))
        for table in original.tables
        if mine[table.key] != theirs.get(table.key, [])
    }


_Part = tuple[str, object]
"""What it is, and what of it is compared."""


def _parts(rules: Ruleset) -> dict[TableKey, list[_Part]]:
    parts: dict[TableKey, list[_Part]] = {t.key: [("table", t.flags & _DORMANT)] for t in rules.tables}
    for chain in sorted(rules.chains, key=lambda c: c.key):
        parts[chain.key.table].append(("chain", _verbatim(Kind.CHAIN, chain.body)[nl.GENERIC :]))
    for one in sorted(rules.sets, key=lambda s: (s.table, s.name)):
        parts[one.table].append(("set", _verbatim(Kind.SET, one.body)[nl.GENERIC :]))
        parts[one.table].append(("elements", Contents(one)))
    for other in sorted(rules.others, key=lambda o: (o.table, o.kind, o.name)):
        parts[other.table].append(("object", _uncounted_object(other)))
    for key, held in sorted(by_chain(rules).items()):
        parts[key.table].append(("rules", (key.name, [Uncounted(rule) for rule in held])))
    return parts


def by_chain(rules: Ruleset) -> dict[ChainKey, list[Rule]]:
    """The rules of each chain that has some, in order."""
    found: dict[ChainKey, list[Rule]] = {}
    for chain, held in groupby(rules.rules, key=_CHAIN_OF):
        found.setdefault(chain, []).extend(held)
    return found


def around(rules: Ruleset) -> dict[ChainKey, Rule]:
    """The rule within which each chain without a name stands (`jump { ... }`)."""
    found: dict[ChainKey, Rule] = {}
    for chain in rules.chains:
        if chain.anonymous:
            named = nl.text(2, chain.key.name)
            jumping = (r for r in rules.rules if r.chain.table == chain.key.table and named in r.given)
            found.update((chain.key, rule) for rule in jumping)
    return found


class Contents:
    """The elements of a set: equal to those of another whatever order they are listed in."""

    def __init__(self, one: Set) -> None:
        self._set = one

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Contents):
            return NotImplemented
        # an interval set is listed in its order, and so equal byte by byte: no need to take it apart
        return self._listed() == other._listed() or self._apart() == other._apart()

    __hash__ = None  # type: ignore[assignment]

    def _listed(self) -> bytes:
        return b"".join(map(_listed, self._set.elements))

    def _apart(self) -> object:
        """A set has each of its elements once; one that has not is compared by all that it lists."""
        found = elements(self._set)
        distinct = frozenset(found)
        return distinct if len(distinct) == len(found) else sorted(found)


_ELEMENT_TIMELESS = frozenset({1, 2, 3, 4, 6, 7, 9, 10, 11})


def _timeless(element: bytes) -> bytes:
    """The element without its expiry."""
    return nl.keep(element, 0, _ELEMENT_TIMELESS)


class Uncounted:
    """A rule: equal to another whatever they have counted."""

    def __init__(self, rule: Rule) -> None:
        self._rule = rule

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Uncounted):
            return NotImplemented
        one, another = self._rule, other._rule
        return one.given == another.given or (
            one.userdata == another.userdata and _shape(one, {}) == _shape(another, {})
        )

    __hash__ = None  # type: ignore[assignment]


_COUNTER_OBJECT = 1
"""NFT_OBJECT_COUNTER."""


def _uncounted_object(other: Other) -> bytes:
    found = nl.by_type(other.body, nl.GENERIC)
    kept = _KEPT[other.kind]
    if other.kind is Kind.OBJECT and nl.number(found.get(3)) in (_COUNTER_OBJECT, _QUOTA_OBJECT):
        size = nl.by_type(found.get(4, b"")).get(1, b"") if nl.number(found.get(3)) == _QUOTA_OBJECT else b""
        return nl.keep(other.body, nl.GENERIC, kept - {4}) + size
    return nl.keep(other.body, nl.GENERIC, kept)


def _first_difference(mine: list[_Part], theirs: list[_Part]) -> str:
    if not theirs:
        return "the table is not in the copy"
    for one, other in zip(mine, theirs, strict=False):
        if one != other:
            return f"{one[0]} listed otherwise in the copy"
    return f"{len(mine)} parts, {len(theirs)} in the copy"


def restored(before: Ruleset, after: Ruleset) -> bool:
    """Whether the rules and the named sets are the same again, whatever was counted or named anew meanwhile."""
    old, new = by_chain(before), by_chain(after)
    if old.keys() != new.keys() or _named_contents(before) != _named_contents(after):
        return False
    anonymous = _anonymous(before), _anonymous(after)
    loose = _loose(*anonymous)
    return all(
        len(held) == len(new[chain])
        and all(_same(one, other, anonymous, loose) for one, other in zip(held, new[chain], strict=True))
        for chain, held in old.items()
    )


_Held = Mapping[tuple[TableKey, bytes], list[bytes]]
"""The elements of anonymous sets."""


def _named_contents(rules: Ruleset) -> dict[tuple[TableKey, bytes], Contents]:
    return {(s.table, s.name): Contents(s) for s in rules.sets if not s.flags & _SET_ANONYMOUS}


def _anonymous(rules: Ruleset) -> _Held:
    return {(s.table, s.name): sorted(elements(s)) for s in rules.sets if s.flags & _SET_ANONYMOUS}


def _loose(one: _Held, other: _Held) -> frozenset[bytes]:
    """Names that stand for another anonymous set now."""
    return frozenset(
        name for table, name in one.keys() | other.keys() if one.get((table, name)) != other.get((table, name))
    )


def _same(one: Rule, other: Rule, anonymous: tuple[_Held, _Held], loose: frozenset[bytes]) -> bool:
    if one.given == other.given and not any(name in one.given for name in loose):
        return True
    # a comment is left out: what is not shown of a rule is in no command that makes it again
    same_data = _without_comment(one.userdata) == _without_comment(other.userdata)
    return same_data and _uncommented(_shape(one, anonymous[0])) == _uncommented(_shape(other, anonymous[1]))


def _without_comment(userdata: bytes) -> bytes:
    """The attributes of a rule's user data but for the comment (libnftnl/udata.h)."""
    kept, offset = b"", 0
    while offset + 2 <= len(userdata):
        end = offset + 2 + userdata[offset + 1]
        kept += userdata[offset:end] if userdata[offset] else b""
        offset = end
    return kept


def _uncommented(shape: list[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
    """Without the matches of xtables that hold a comment."""
    return [
        (name, data) for name, data in shape if name != "match" or nl.name(nl.by_type(data).get(1, b"")) != b"comment"
    ]


_UNSTEADY = frozenset({"counter", "last"})


def _shape(rule: Rule, anonymous: _Held) -> list[tuple[str, bytes]]:
    """The expressions without counters, an anonymous set by what is in it."""
    shape: list[tuple[str, bytes]] = []
    for part in expressions(rule):
        data = b"" if part.name in _UNSTEADY else part.data
        name = nl.name(nl.by_type(part.data).get(1, b"")) if part.name == "lookup" else b""
        held = anonymous.get((rule.chain.table, name))
        if held is not None:
            data = data.replace(nl.text(1, name), b"") + b"".join(held)
        shape.append((part.name, data))
    return shape


# ------ nft's own listing: the words for people

_HANDLE = re.compile(r"^(?P<text>.*?)\s*# handle (?P<handle>\d+)$", re.DOTALL)


def listing(text: str, wanted: Mapping[tuple[str, str, str], tuple[int, ...]]) -> dict[tuple[str, str, str, int], str]:
    """The text of each rule in `nft -a list ruleset`, by (family, table, chain, handle).

    `wanted` gives the handles of each chain in order, as the kernel has them: a chain whose listing does not show
    exactly these (another version of nft) is left out rather than guessed. ValueError when the listing cannot be one
    of these chains: a string with line ends (a comment) can look like any part of a listing, but it can hide none.
    """
    found: dict[tuple[str, str, str, int], str] = {}
    seen: set[tuple[str, str, str]] = set()
    for where, lines in _chain_blocks(text):
        if where in seen:
            raise ValueError(f"chain {where[2]!r} is listed twice")
        seen.add(where)
        expected = wanted.get(where)
        rules = None if expected is None else _rules_of(lines, expected)
        if expected is not None and rules is not None:
            found.update({(*where, handle): rule for handle, rule in zip(expected, rules, strict=True)})
    return found


_TABLE_LINE = re.compile(r"^table (\w+) (.+) \{(?: # .*)?$")
_CHAIN_LINE = re.compile(r"^\tchain (.+) \{(?: # handle \d+)?$")
"""Names may hold anything but a line's end: the kernel asks nothing of them."""
_OTHER_LINE = re.compile(r"^\t\w[^\"]* \{(?: # handle \d+)?$")
"""A set, map, object or flowtable begins."""
_BASE_LINE = re.compile(r"^type \w+ hook \w+ (device|devices|priority)\b")


def _chain_blocks(text: str) -> Iterator[tuple[tuple[str, str, str], list[str]]]:
    table: tuple[str, str] | None = None
    block: tuple[str, str, str] | Literal["another"] | None = None
    lines: list[str] = []
    for line in text.split("\n"):
        if block is not None:
            if line == "\t}":
                if block != "another":
                    yield block, lines
                block = None
                continue
            if (line[:1] == "t" and _TABLE_LINE.match(line)) or (line[:2] == "\tc" and _CHAIN_LINE.match(line)):
                raise ValueError("a table or chain begins within another one")
            if block != "another":
                lines.append(line)
            elif _HANDLE.match(line):
                raise ValueError("a rule outside of a chain")
        elif line == "\t}":
            raise ValueError("a chain ends that has not begun")
        elif opened := _CHAIN_LINE.match(line):
            if table is None:
                raise ValueError("a chain outside of a table")
            block, lines = (*table, opened[1]), []
        elif opened := _TABLE_LINE.match(line):
            table = opened[1], opened[2]
        elif _OTHER_LINE.match(line):
            block = "another"


def _rules_of(lines: list[str], expected: tuple[int, ...]) -> list[str] | None:
    rules: list[str] = []
    pending = ""
    position = 0
    for line in lines:
        quoted = pending.count('"') % 2
        stripped = line.strip()
        if not pending and (_BASE_LINE.match(stripped) or stripped.startswith("comment ") or not stripped):
            continue
        # what stands within quotes is told as it is, line ends included
        pending = f"{pending}\n{line}" if quoted else f"{pending} {line.lstrip()}" if pending else line.lstrip()
        ended = _HANDLE.match(pending) if "# handle " in line else None
        if ended is None:
            continue
        if position >= len(expected) or int(ended["handle"]) != expected[position] or ended["text"].count('"') % 2:
            return None
        rules.append(ended["text"])
        pending, position = "", position + 1
    return rules if not pending and position == len(expected) else None
