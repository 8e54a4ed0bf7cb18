"""The order in which getaddrinfo gives the addresses of a name: RFC 6724 as glibc has it (gai.conf(5))."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cmp_to_key
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

from msgspec import Struct

Table = tuple[tuple[IPv6Network, int], ...]

_LABELS = (
    ("::1/128", 0),
    ("::/0", 1),
    ("2002::/16", 2),
    ("::/96", 3),
    ("::ffff:0:0/96", 4),
    ("fec0::/10", 5),
    ("fc00::/7", 6),
    ("2001::/32", 7),
)
_PRECEDENCES = (("::1/128", 50), ("::/0", 40), ("2002::/16", 30), ("::/96", 20), ("::ffff:0:0/96", 10))
_SCOPES_V4 = (("::ffff:169.254.0.0/112", 2), ("::ffff:127.0.0.0/104", 2), ("::ffff:0.0.0.0/96", 14))
_LINK_LOCAL, _SITE_LOCAL, _GLOBAL = 2, 5, 14


class Reach(Struct, frozen=True):
    """An address, and the one of ours that the kernel would send from."""

    address: str
    source: str | None
    """None: there is no way to it from here."""
    prefix: int = 32
    """Of the IPv4 network that the source is in."""


class Policy(Struct, frozen=True):
    """The tables that gai.conf may replace."""

    labels: Table
    precedences: Table
    scopes_v4: Table


def policy(lines: Sequence[str]) -> Policy:
    """The tables of gai.conf's active lines: one line of a kind replaces the whole table of that kind."""
    return Policy(
        _table(lines, "label", _LABELS), _table(lines, "precedence", _PRECEDENCES), _table(lines, "scopev4", _SCOPES_V4)
    )


def in_order(found: Sequence[Reach], rules: Policy) -> tuple[str, ...]:
    """The addresses, the first to be tried first; what no rule tells apart stays as it was."""

    def order(one: Reach, other: Reach) -> int:
        return _compare(one, other, rules)

    return tuple(one.address for one in sorted(found, key=cmp_to_key(order)))


def _table(lines: Sequence[str], keyword: str, usual: Sequence[tuple[str, int]]) -> Table:
    rows = [row for line in lines if (row := _row(line, keyword))]
    chosen = rows or [(IPv6Network(text), value) for text, value in usual]
    return tuple(sorted(chosen, key=lambda row: -row[0].prefixlen))


def _row(line: str, keyword: str) -> tuple[IPv6Network, int] | None:
    words = line.split()
    if len(words) != 3 or words[0] != keyword or not words[2].isdecimal():
        return None
    try:
        return IPv6Network(words[1], strict=False), int(words[2])
    except ValueError:
        return None


def _compare(one: Reach, other: Reach, rules: Policy) -> int:
    """Negative: `one` comes first. Rules 3, 4 and 7 need flags of interfaces, and hardly ever decide."""
    if (one.source is None) != (other.source is None):  # rule 1: avoid what cannot be reached
        return 1 if one.source is None else -1
    for mine, theirs in zip(_keys(one, rules), _keys(other, rules), strict=True):
        if mine != theirs:
            return mine - theirs
    return _longest_match(one, other)


def _keys(one: Reach, rules: Policy) -> tuple[int, int, int, int]:
    """Rules 2, 5, 6 and 8: matching scope, matching label, precedence, smaller scope."""
    scope = _scope(one.address, rules)
    same_scope = one.source is not None and _scope(one.source, rules) == scope
    label = _value(one.address, rules.labels, 1)
    same_label = one.source is not None and _value(one.source, rules.labels, 1) == label
    return int(not same_scope), int(not same_label), -_value(one.address, rules.precedences, 40), scope


def _longest_match(one: Reach, other: Reach) -> int:
    """Rule 9, between two of one family; IPv4 only where the address is in the source's own network."""
    if one.source is None or other.source is None:
        return 0
    first, second = _ip(one.address), _ip(other.address)
    if first.version != second.version:
        return 0
    return _unlike(one) - _unlike(other)


def _unlike(one: Reach) -> int:
    """How many bits are left where address and source begin to differ."""
    address, source = _ip(one.address), _ip(one.source or one.address)
    if address.version != source.version:
        return 0
    differ = (int(address) ^ int(source)).bit_length()
    if address.version == 6:
        return differ
    return differ if differ <= 32 - one.prefix else 0


def _scope(address: str, rules: Policy) -> int:
    ip = _ip(address)
    if isinstance(ip, IPv4Address):
        return _value(address, rules.scopes_v4, _GLOBAL)
    if ip.is_multicast:
        return ip.packed[1] & 0x0F
    if ip.is_link_local or ip.is_loopback:
        return _LINK_LOCAL
    return _SITE_LOCAL if ip.is_site_local else _GLOBAL


def _value(address: str, table: Table, otherwise: int) -> int:
    ip = _ip(address)
    mapped = ip if isinstance(ip, IPv6Address) else IPv6Address(b"\0" * 10 + b"\xff\xff" + ip.packed)
    return next((value for network, value in table if mapped in network), otherwise)


def _ip(address: str) -> IPv4Address | IPv6Address:
    return ip_address(address.partition("%")[0])
