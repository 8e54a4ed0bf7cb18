"""Rules of nf_tables whose match depends on a state that a copy does not have, and what is left of them without it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

from diagnose.parse import nfnetlink as nl
from diagnose.parse import nft
from diagnose.parse.nft import Expression, Kind, Rule, Ruleset, TableKey

STATEFUL_MATCHES = frozenset(
    {
        "condition",
        "connlimit",
        "cpu",
        "fuzzy",
        "hashlimit",
        "limit",
        "lscan",
        "nfacct",
        "nth",
        "psd",
        "quota",
        "quota2",
        "random",
        "rateest",
        "recent",
        "statistic",
    }
)
"""xt matches that count, limit, remember or leave it to chance."""
SENDER_MATCHES = frozenset({"cgroup", "owner"})
"""xt matches that ask who sent a packet: of an answer that is the listener, and in a copy it is ours."""
SOCKET_MATCHES = frozenset({"socket"})
"""xt matches that ask for the socket to which a packet goes."""
SILENT_TARGETS = frozenset({"LOG", "NFLOG", "ULOG"})
"""xt targets that change nothing about the packet."""

_STATEFUL = frozenset({"limit", "connlimit", "quota", "numgen", "hash"})
"""hash: of a connection's own port, which another connection does not have, or with a seed that no dump tells."""
_STATEFUL_OBJECTS = frozenset({2, 4, 5})
"""NFT_OBJECT_QUOTA, NFT_OBJECT_LIMIT, NFT_OBJECT_CONNLIMIT."""
_RANDOM, _CPU, _GID, _CGROUP = 24, 20, 11, 23
"""NFT_META_PRANDOM, _CPU, _SKGID, _CGROUP."""
_EFFECTIVE = frozenset({"immediate", "reject", "queue", "nat", "masq", "redir", "tproxy", "synproxy", "fwd", "notrack"})
_READS = {"cmp": 1, "range": 1, "bitwise": 1, "byteorder": 1, "lookup": 2}
"""Pure expressions that read a register, and the attribute that tells which."""
_LOADS = {
    "meta": 1,
    "ct": 1,
    "payload": 1,
    "exthdr": 1,
    "fib": 1,
    "rt": 1,
    "socket": 2,
    "immediate": 1,
    "osf": 1,
    "xfrm": 1,
    "tunnel": 2,
}
"""Pure expressions that fill a register, and the attribute that tells which."""
_UNTOLD = {"numgen": 1, "hash": 2}
"""Expressions that fill a register with what a copy cannot know."""
_DESTINATIONS = {"bitwise": 2, "byteorder": 2, "lookup": 3}
_VERDICT_REGISTER = 0
_NESTED = tuple(nl.text(1, name) for name in (b"limit", b"connlimit", b"quota"))
"""The name of such an expression inside another."""
_SUSPECT = (b"limit", b"quota", b"numgen", b"objref", b"dynset", b"socket", b"hash")
_SUSPECT_MATCHES = tuple(name.encode() for name in STATEFUL_MATCHES | SENDER_MATCHES | SOCKET_MATCHES)
_SUSPECT_KEYS = re.compile(
    re.escape(nl.u32(2, 0)[:-1]) + b"[" + re.escape(bytes((_RANDOM, _CPU, _GID, _CGROUP))) + b"]", re.DOTALL
)
"""Bytes without which a rule cannot be one of which a copy is not sure."""
_WHOLE = frozenset({1, 2, 3, 4, 8, 12, 16, 20})
"""Register numbers that begin a whole register of 16 bytes."""

Cause = Literal["state", "sender", "socket"]
"""state: counts, limits, chance; sender, socket: whose socket it is."""


class States:
    """Which sets of a rule set keep a state with their elements."""

    def __init__(self, rules: Ruleset) -> None:
        self._sets: set[tuple[TableKey, bytes]] = set()
        every = b"".join(rule.given for rule in rules.rules)
        self._names = tuple(name for name in (*_SUSPECT, b"match") if name in every)
        self._keys = _SUSPECT_KEYS.search(every) is not None
        for one in rules.sets:
            found = nl.by_type(one.body, nl.GENERIC)
            if any(_nests(found.get(kind, b"")) for kind in (17, 18)) or any(map(_nests, one.elements)):
                self._sets.add((one.table, one.name))

    def cause(self, rule: Rule) -> Cause | None:
        """Why the copy cannot tell whether the rule matches; None: it can, or the rule would do nothing."""
        if not self._suspect(rule):
            return None
        parts = list(nft.expressions(rule))
        if not any(_effective(part) for part in parts):
            return None
        if any(self._stateful(rule, part) for part in parts):
            return "state"
        if any(part.name == "socket" or _extends(part, SOCKET_MATCHES) for part in parts):
            return "socket"
        return "sender" if any(_asks_sender(part) for part in parts) else None

    def _suspect(self, rule: Rule) -> bool:
        """By its bytes alone the rule may be one: nearly all are not, and need no closer look."""
        given = rule.given
        for name in self._names:
            if name in given and (name != b"match" or any(one in given for one in _SUSPECT_MATCHES)):
                return True
        if self._keys and _SUSPECT_KEYS.search(given):
            return True
        return bool(self._sets) and b"lookup" in given

    def sibling(self, rule: Rule) -> bytes:
        """The rule's expressions without state, verdict and effect: it matches when the rule may, and does nothing."""
        kept: list[bytes] = []
        tainted: set[int] = set()
        for (_, element), part in zip(nl.walk(rule.expressions), nft.expressions(rule), strict=True):
            if self._keep(rule, part, tainted):
                kept.append(nl.nest(1, element))
        return b"".join(kept)

    def _keep(self, rule: Rule, part: Expression, tainted: set[int]) -> bool:
        found = nl.by_type(part.data)
        if part.name == "match":
            return nft.extension(part)[0] not in STATEFUL_MATCHES | SENDER_MATCHES | SOCKET_MATCHES
        if part.name in _LOADS:
            return _keep_load(part, found, tainted)
        if part.name in _UNTOLD:
            tainted.add(_register(found, _UNTOLD[part.name]))
        if part.name not in _READS:
            return False
        source = _register(found, _READS[part.name])
        target = _register(found, _DESTINATIONS.get(part.name, 0)) if part.name in _DESTINATIONS else None
        pure = source not in tainted and not self._stateful(rule, part)
        if target is not None and not pure:
            tainted.add(target)
        return pure and not (part.name == "lookup" and target == _VERDICT_REGISTER)

    def _stateful(self, rule: Rule, part: Expression) -> bool:
        if part.name in _STATEFUL or _by_chance(part):
            return True
        found = nl.by_type(part.data)
        if part.name == "match":
            return nft.extension(part)[0] in STATEFUL_MATCHES
        if part.name == "lookup":
            return (rule.chain.table, nl.name(found.get(1, b""))) in self._sets
        if part.name == "objref":
            return 1 not in found or nl.number(found[1]) in _STATEFUL_OBJECTS
        return part.name == "dynset" and any(_nests(found.get(kind, b"")) for kind in (7, 10))


def siblings(rules: Ruleset) -> Iterator[tuple[Rule, Cause, bytes]]:
    """Each rule of which a copy cannot tell whether it matches, why, and the expressions of its sibling."""
    states = States(rules)
    for rule in rules.rules:
        cause = states.cause(rule)
        if cause is not None:
            yield rule, cause, states.sibling(rule)


def request(rule: Rule, before: int, expressions: bytes) -> tuple[int, bytes]:
    """The request that puts the sibling before the rule with this handle in the copy."""
    body = nft.opening(rule.chain)
    position = nl.attribute(6, before.to_bytes(8, "big"))
    return Kind.RULE.new, body + position + (nl.nest(4, expressions) if expressions else b"") + nft.compatibility(rule)


def _nests(data: bytes) -> bool:
    return any(name in data for name in _NESTED)


def _register(found: dict[int, bytes], attribute: int) -> int:
    """A register by its first 16-byte name: 1 to 4 are the same as 8 to 23 in fours (NFT_REG_1, NFT_REG32_00)."""
    number = nl.number(found.get(attribute))
    return number if number < 8 else (number - 8) // 4 + 1


def _by_chance(part: Expression) -> bool:
    return part.name == "meta" and nl.number(nl.by_type(part.data).get(2)) in (_RANDOM, _CPU)


def _extends(part: Expression, names: frozenset[str]) -> bool:
    return part.name == "match" and nft.extension(part)[0] in names


def _asks_sender(part: Expression) -> bool:
    if part.name == "meta":
        return nl.number(nl.by_type(part.data).get(2)) in (_GID, _CGROUP)
    if part.name == "match":
        return asks_sender(*nft.extension(part))
    return False


def asks_sender(match: str, data: bytes) -> bool:
    """The xt match asks for more of a packet's sender than the user, whom the copy's listener shares."""
    # struct xt_owner_match_info: two ranges of ids, then which of them count (XT_OWNER_GID is 2)
    return match == "cgroup" or (match == "owner" and len(data) > 16 and bool(data[16] & 2))


def _keep_load(part: Expression, found: dict[int, bytes], tainted: set[int]) -> bool:
    attribute = _LOADS[part.name]
    if attribute not in found:
        return False  # `meta set`, `ct set`, `tcp option set`: an effect
    register = _register(found, attribute)
    if part.name == "immediate" and register == _VERDICT_REGISTER:
        return False
    if part.name == "socket" or _asks_sender(part) or _by_chance(part):
        tainted.add(register)
        return False
    if nl.number(found[attribute]) in _WHOLE:
        tainted.discard(register)
    return True


def _effective(part: Expression) -> bool:
    found = nl.by_type(part.data)
    if part.name == "immediate":
        return nl.number(found.get(1)) == _VERDICT_REGISTER
    if part.name == "lookup":
        return 3 in found and nl.number(found[3]) == _VERDICT_REGISTER
    if part.name == "target":
        return nft.extension(part)[0] not in SILENT_TARGETS
    if part.name in ("meta", "ct"):
        return 1 not in found
    return part.name in _EFFECTIVE
