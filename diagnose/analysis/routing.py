"""Which rule or route decides about an address: the order of `ip rule`, and the longest prefix in each table."""

from __future__ import annotations

from enum import Enum, auto
from ipaddress import ip_address, ip_network

from msgspec import Struct

from diagnose.analysis.reach import unmapped
from diagnose.model.network import (
    Family,
    LocalRoute,
    RouteKind,
    RouteLookup,
    Routing,
    RoutingRule,
    family_of,
    is_wildcard,
)

LOCAL_TABLE = 255
_KINDS = {
    "local": RouteKind.LOCAL,
    "unicast": RouteKind.UNICAST,
    "broadcast": RouteKind.BROADCAST,
    "blackhole": RouteKind.BLACKHOLE,
    "unreachable": RouteKind.UNREACHABLE,
    "prohibit": RouteKind.PROHIBIT,
}
_REFUSALS = {
    "blackhole": RouteKind.BLACKHOLE,
    "prohibit": RouteKind.PROHIBIT,
    "unreachable": RouteKind.NO_ROUTE,  # a rule, unlike a route, fails with ENETUNREACH (net/ipv4/fib_rules.c)
}


class Match(Enum):
    """Whether a rule applies to a packet from this machine to an address."""

    YES = auto()
    NO = auto()
    MAYBE = auto()
    """It asks for a mark, a source, a user or something else that is not recorded."""


class Decider(Struct, frozen=True):
    """The rule that ended the lookup, and the route of its table, if it names one."""

    rule: RoutingRule
    route: LocalRoute | None = None


class Exhausted(Struct, frozen=True):
    """No rule led to any route."""


class Untold(Struct, frozen=True):
    """The rules as recorded do not lead to what the kernel's lookup gave."""


def destination(address: str) -> str:
    """The address that the kernel looks up: this machine's own for a wildcard, IPv4 for an IPv4-mapped one."""
    plain = unmapped(address)
    if is_wildcard(plain):
        return "127.0.0.1" if plain == "0.0.0.0" else "::1"
    return plain


def decider(routing: Routing, lookup: RouteLookup) -> Decider | Exhausted | Untold:
    """Follows the rules until one gives what the lookup gave."""
    address = destination(lookup.address)
    for rule in routing.rules:
        if rule.family != family_of(address):
            continue
        match = applies(rule, address)
        outcome = None if match is Match.NO else _outcome(routing, rule, address)
        if outcome is None:
            continue
        kind, route = outcome
        if kind is lookup.kind and (route is None or route.device == lookup.device):
            return Decider(rule, route)
        if match is Match.YES:
            return Untold()
    return Exhausted() if lookup.kind is RouteKind.NO_ROUTE else Untold()


def applies(rule: RoutingRule, address: str) -> Match:
    """Whether the rule's selector takes a packet to the address."""
    words = rule.selector.split()
    if words[:2] != ["from", "all"]:
        return Match.MAYBE
    rest = words[2:]
    if rest[:1] == ["to"] and len(rest) > 1:
        if ip_address(address) not in ip_network(rest[1], strict=False):
            return Match.NO
        rest = rest[2:]
    return Match.MAYBE if rest else Match.YES


def covering(routing: Routing, table: int, address: str) -> tuple[LocalRoute, ...]:
    """The routes of the table with the longest prefix that holds the address."""
    fitting = [route for route in routing.local_routes if route.table == table and _holds(route, address)]
    longest = max((_length(route) for route in fitting), default=0)
    return tuple(route for route in fitting if _length(route) == longest)


def asks_local_first(routing: Routing, family: Family, before: int | None) -> bool:
    """Whether an unconditional rule leads to the local table, of a lower number than `before`; None: anywhere."""
    return any(
        rule.family == family
        and rule.table == LOCAL_TABLE
        and rule.selector == "from all"
        and (before is None or rule.priority < before)
        for rule in routing.rules
    )


def _outcome(routing: Routing, rule: RoutingRule, address: str) -> tuple[RouteKind, LocalRoute | None] | None:
    """What the rule leads to; None: the lookup goes on with the next one."""
    if rule.action in _REFUSALS:
        return _REFUSALS[rule.action], None
    if rule.action != "lookup" or rule.table is None:
        return None
    routes = covering(routing, rule.table, address)
    if not routes or routes[0].kind == "throw":
        return None
    return _KINDS.get(routes[0].kind, RouteKind.OTHER), routes[0]


def _holds(route: LocalRoute, address: str) -> bool:
    if route.family != family_of(address):
        return False
    return route.destination == "default" or ip_address(address) in ip_network(route.destination)


def _length(route: LocalRoute) -> int:
    return 0 if route.destination == "default" else ip_network(route.destination).prefixlen
