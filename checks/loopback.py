"""loopback: the interface, the addresses and the routes by which this machine reaches itself."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct
from msgspec.structs import replace

from diagnose.analysis.reach import severity
from diagnose.analysis.routing import (
    LOCAL_TABLE,
    Decider,
    Exhausted,
    Untold,
    asks_local_first,
    covering,
    decider,
    destination,
)
from diagnose.analysis.wording import connect_evidence, title
from diagnose.model.attempt import Attempt, BindAttempt, Outcome
from diagnose.model.check import Check
from diagnose.model.fact import Known, Missing, Unknown
from diagnose.model.finding import Cause, Command, Confidence, Evidence, Finding, Remedy, Severity, Stage
from diagnose.model.network import (
    Family,
    Interface,
    Links,
    LocalRoute,
    RouteKind,
    RouteLookup,
    Routing,
    RoutingRule,
    family_of,
    is_loopback,
)
from diagnose.model.snapshot import Snapshot
from diagnose.model.target import Intent

INTERFACE_DOWN = Cause(
    "loopback/interface-down", Stage.LOOPBACK, "lo is down: the machine cannot reach any address of its own"
)
ADDRESS_MISSING = Cause("loopback/address-missing", Stage.LOOPBACK, "127.0.0.1 or ::1 is not on lo")
ROUTE_MISSING = Cause(
    "loopback/route-missing", Stage.LOOPBACK, "The routing rules or tables refuse an address of this machine"
)
ROUTED_ELSEWHERE = Cause(
    "loopback/routed-elsewhere", Stage.LOOPBACK, "An address of this machine is routed out of another device"
)

_PREFIXES: dict[Family, str] = {"ipv4": "127.0.0.1/8", "ipv6": "::1/128"}
_FLAGS: dict[Family, str] = {"ipv4": "-4", "ipv6": "-6"}
_REFUSALS = (RouteKind.NO_ROUTE, RouteKind.UNREACHABLE, RouteKind.PROHIBIT, RouteKind.BLACKHOLE)
_REFUSING_WORDS = {
    RouteKind.PROHIBIT: "Routing prohibits",
    RouteKind.BLACKHOLE: "Routing blackholes",
    RouteKind.UNREACHABLE: "Routing rejects",
}
_ARRIVED = (Outcome.REFUSED, Outcome.RESET, Outcome.CLOSED, Outcome.NOT_ACCEPTED)
"""Ends for which packets went both ways."""
_CONSEQUENCES = ("firewall/silent", "resolution/prefers-other-family", "in-use/address-not-local")
_TABLES = {253: "default", 254: "main", 255: "local"}


class _Concerned(Struct, frozen=True):
    """An address of this machine that did not work, or where nothing was tried might not."""

    address: str
    """As the kernel looks it up: of the family that decides."""
    attempt: Attempt | BindAttempt | None
    severity: Severity

    @property
    def family(self) -> Family:
        """Of the lookup: IPv4 for an IPv4-mapped address."""
        return family_of(self.address)

    @property
    def arrived(self) -> bool:
        """Whether packets were answered, so that the way was free."""
        return isinstance(self.attempt, Attempt) and self.attempt.outcome in _ARRIVED

    def evidence(self) -> tuple[Evidence, ...]:
        """How it ended, in the words of the call."""
        match self.attempt:
            case Attempt() as attempt:
                return (connect_evidence(attempt),)
            case BindAttempt() as attempt:
                return (Evidence(f"bind to {attempt.endpoint}: {attempt.errno or attempt.outcome}", "bind(2)"),)
            case None:
                return ()


def judge(snapshot: Snapshot) -> Iterator[Finding | Missing]:
    """Whether this machine can reach its own addresses, as far as the target's are concerned."""
    match snapshot.links:
        case Unknown() as unknown:
            if _only_looked(snapshot) or any(_may_be_ours(one) for one in _tried(snapshot)):
                yield Missing("interfaces", unknown)
        case Known(value=links):
            yield from _judge(snapshot, links)


def _may_be_ours(one: Attempt | BindAttempt) -> bool:
    return _is_blocked(one) and (is_loopback(destination(one.address)) or isinstance(one, BindAttempt) or one.local)


def _judge(snapshot: Snapshot, links: Links) -> Iterator[Finding | Missing]:
    concerned = _concerned(snapshot, links)
    loopback = next((one for one in links.interfaces if one.name == "lo"), None)
    if loopback is None:  # not Linux, whose lo cannot be removed
        if concerned and isinstance(snapshot.routing, Unknown):
            yield Missing("routes", snapshot.routing)
        return
    if not loopback.up:
        yield from _interface_down(snapshot, concerned, loopback)
        return
    found: dict[str, list[Finding | Missing]] = {}
    for one in concerned:
        found[one.address] = [*_address_missing(snapshot, links, one)]
        if not any(isinstance(said, Finding) for said in found[one.address]):
            found[one.address] += _misrouted(snapshot, links, one)
    free = any(not any(isinstance(said, Finding) for said in saids) for saids in found.values())
    for said in (said for saids in found.values() for said in saids):
        # where nothing was tried, an address of the name that nothing blocks may work
        yield (
            replace(said, severity=Severity.WARNING) if _only_looked(snapshot) and free and _is_problem(said) else said
        )


def _is_problem(said: Finding | Missing) -> bool:
    return isinstance(said, Finding) and said.severity is Severity.PROBLEM


def _tried(snapshot: Snapshot) -> tuple[Attempt | BindAttempt, ...]:
    return (*snapshot.attempts, *snapshot.binds)


def _only_looked(snapshot: Snapshot) -> bool:
    return snapshot.only_looked and not _tried(snapshot)


def _concerned(snapshot: Snapshot, links: Links) -> tuple[_Concerned, ...]:
    """The target's addresses that are this machine's, each once, and how much their failure matters."""
    found: dict[str, _Concerned] = {}
    for one in _tried(snapshot):
        if _is_blocked(one) and _is_ours(one.address, links):
            weight = severity(snapshot, one) if isinstance(one, Attempt) else Severity.PROBLEM
            found.setdefault(destination(one.address), _Concerned(destination(one.address), one, weight))
    if _only_looked(snapshot) and isinstance(snapshot.names, Known):
        for resolved in snapshot.names.value.addresses:
            if _is_ours(resolved.address, links):
                address = destination(resolved.address)
                found.setdefault(address, _Concerned(address, None, Severity.PROBLEM))
    return tuple(found.values())


def _is_blocked(one: Attempt | BindAttempt) -> bool:
    """A bind asks for the address alone: whatever else it fails for is not about lo."""
    return not one.outcome.works if isinstance(one, Attempt) else one.outcome is Outcome.ADDRESS_UNAVAILABLE


def _is_ours(address: str, links: Links) -> bool:
    plain = destination(address)
    return is_loopback(plain) or links.holder(plain) is not None


# lo itself


def _interface_down(snapshot: Snapshot, concerned: tuple[_Concerned, ...], lo: Interface) -> Iterator[Finding]:
    stopped = [one for one in concerned if not one.arrived]
    if stopped:
        weight = min((one.severity for one in stopped), key=list(Severity).index)
        blocks = len(stopped) == len(_addresses(snapshot)) or not _only_looked(snapshot)
        yield _down(stopped, lo, weight if blocks else Severity.WARNING)
    elif any(one.outcome is Outcome.BOUND and is_loopback(one.address) for one in snapshot.binds):
        yield _down(stopped, lo, Severity.WARNING)


def _addresses(snapshot: Snapshot) -> tuple[str, ...]:
    return tuple(one.address for one in snapshot.names.value.addresses) if isinstance(snapshot.names, Known) else ()


def _down(stopped: list[_Concerned], lo: Interface, weight: Severity) -> Finding:
    holds = ", ".join(lo.addresses) or "none"
    return Finding(
        code=INTERFACE_DOWN.code,
        title="The loopback interface lo is down",
        severity=weight,
        confidence=Confidence.PROVEN,
        explanation="Whatever this machine sends to an address of its own goes through lo, other interfaces' addresses "
        "included. While lo is down such packets are lost without an answer, or there is no route at all, and ::1 does "
        "not exist. New network namespaces (unshare -n, sandboxes, hand-made containers) start like this.",
        evidence=(
            Evidence(f"lo: the flag UP is not set; its addresses: {holds}", "SIOCGIFFLAGS, netdevice(7)"),
            *(evidence for one in stopped for evidence in one.evidence()),
        ),
        remedies=(
            Remedy(
                summary="Bring lo up; the kernel puts 127.0.0.1/8 and ::1/128 on it by itself",
                commands=(_ip("link", "set", "lo", "up"),),
                undo=(_ip("link", "set", "lo", "down"),),
                survives_reboot=False,
            ),
        ),
        explains=(ADDRESS_MISSING.code, ROUTE_MISSING.code, ROUTED_ELSEWHERE.code, *_CONSEQUENCES),
    )


# its addresses


def _address_missing(snapshot: Snapshot, links: Links, one: _Concerned) -> Iterator[Finding | Missing]:
    wanted = _PREFIXES[one.family].partition("/")[0]
    if not is_loopback(one.address) or one.arrived or links.holder(wanted) or links.holder(one.address):
        return
    match _has_ipv6(snapshot) if one.family == "ipv6" else True:
        case Unknown() as unknown:
            yield Missing("port sysctls", unknown)
        case True:
            match snapshot.routing:
                case Known(value=routing) if _kind(routing, one.address) is RouteKind.LOCAL:
                    return  # whoever took the address away left a route that serves
                case _:
                    yield _missing(one, wanted, links)


def _has_ipv6(snapshot: Snapshot) -> bool | Unknown:
    """Where IPv6 is switched off, ::1 is missing for that reason, and adding it would fail."""
    match snapshot.policy:
        case Known(value=policy):
            return policy.ipv6_available and not policy.ipv6_disabled_lo
        case Unknown() as unknown:
            return unknown


def _missing(one: _Concerned, wanted: str, links: Links) -> Finding:
    prefix = _PREFIXES[one.family]
    lo = links.holder(wanted) or next((each for each in links.interfaces if each.name == "lo"), None)
    holds = ", ".join(lo.addresses) if lo and lo.addresses else "none"
    needs = "" if one.address == wanted else f" {one.address} is served by the network of that address."
    return Finding(
        code=ADDRESS_MISSING.code,
        title=f"The loopback interface lo has no {prefix}",
        severity=one.severity,
        confidence=Confidence.PROVEN,
        explanation=f"{wanted} is on no interface of this machine, so the kernel neither accepts packets for it nor "
        f"lets a server bind it.{needs} lo itself is up: the address was removed from it (ip addr del, ip addr flush), "
        "or not added when lo was set up.",
        evidence=(Evidence(f"lo: up; its addresses: {holds}", "netifaces"), *one.evidence()),
        remedies=(
            Remedy(
                summary=f"Put {prefix} back on lo; the kernel adds its routes",
                commands=(_ip(_FLAGS[one.family], "addr", "add", prefix, "dev", "lo"),),
                undo=(_ip(_FLAGS[one.family], "addr", "del", prefix, "dev", "lo"),),
                survives_reboot=False,
            ),
        ),
        explains=(ROUTE_MISSING.code, ROUTED_ELSEWHERE.code, *_CONSEQUENCES),
    )


# the routes to them


def _misrouted(snapshot: Snapshot, links: Links, one: _Concerned) -> Iterator[Finding | Missing]:
    if one.arrived and not is_loopback(one.address):
        return
    if not isinstance(one.attempt, Attempt) and snapshot.intent is Intent.BIND:
        return  # a bind asks no route
    match snapshot.routing:
        case Unknown() as unknown:
            yield Missing("routes", unknown)
        case Known(value=routing):
            lookup = next((each for each in routing.lookups if destination(each.address) == one.address), None)
            if lookup is None or lookup.kind in (RouteKind.LOCAL, RouteKind.BROADCAST, RouteKind.OTHER):
                return
            holder = links.holder(one.address) or links.holder(_PREFIXES[one.family].partition("/")[0])
            if holder is None:
                return  # that the address is missing says it all
            if lookup.kind in _REFUSALS:
                if not one.arrived:
                    yield _route_missing(one, lookup, routing, holder)
            else:
                yield _routed_elsewhere(one, lookup, routing, holder)


def _kind(routing: Routing, address: str) -> RouteKind | None:
    return next((each.kind for each in routing.lookups if destination(each.address) == address), None)


def _route_missing(one: _Concerned, lookup: RouteLookup, routing: Routing, holder: Interface) -> Finding:
    culprit = decider(routing, lookup)
    refusal = _REFUSING_WORDS.get(lookup.kind, "There is no route to")
    return Finding(
        code=ROUTE_MISSING.code,
        title=title(f"{refusal} this machine's own {one.address}"),
        severity=one.severity,
        confidence=Confidence.PROVEN,
        explanation=f"The kernel's own route lookup for {one.address} fails ({lookup.errno}), so no packet is sent. "
        f"{_why(culprit, routing, one)}",
        evidence=(_lookup_evidence(lookup), *_decider_evidence(culprit), *one.evidence()),
        remedies=_remedies(culprit, routing, one, holder),
        explains=_CONSEQUENCES,
    )


def _routed_elsewhere(one: _Concerned, lookup: RouteLookup, routing: Routing, holder: Interface) -> Finding:
    culprit = decider(routing, lookup)
    gateway = f" to the gateway {lookup.gateway}" if lookup.gateway else ""
    return Finding(
        code=ROUTED_ELSEWHERE.code,
        title=title(f"{one.address} is routed out of {lookup.device} instead of lo"),
        severity=one.severity,
        confidence=Confidence.PROVEN,
        explanation=f"Packets to {one.address} leave this machine through {lookup.device}{gateway}: its own servers do "
        f"not get them. {_why(culprit, routing, one)}",
        evidence=(_lookup_evidence(lookup), *_decider_evidence(culprit), *one.evidence()),
        remedies=_remedies(culprit, routing, one, holder),
        explains=(*_CONSEQUENCES, "refused/nothing-listening"),
    )


def _why(culprit: Decider | Exhausted | Untold, routing: Routing, one: _Concerned) -> str:
    match culprit:
        case Decider(rule=rule, route=route):
            if route is None:
                return f"The rule {rule.priority} ({rule.action}) decides before the local table is asked."
            return f"The rule {rule.priority} leads to table {_table(route.table)}, whose {_route_text(route)} decides."
        case Exhausted() | Untold():
            return _what_is_gone(routing, one)


def _what_is_gone(routing: Routing, one: _Concerned) -> str:
    if not asks_local_first(routing, one.family, None):
        return "The rule that asks the local table first (0: from all lookup local) is missing."
    if not _has_entry(routing, one.address):
        return "The local table has no entry for it."
    return "Which rule it is could not be determined from the list of rules alone."


def _lookup_evidence(lookup: RouteLookup) -> Evidence:
    via = f" via {lookup.gateway}" if lookup.gateway else ""
    outcome = (
        f"{lookup.kind.value} ({lookup.errno})" if lookup.errno else f"{lookup.kind.value}{via} dev {lookup.device}"
    )
    return Evidence(f"route lookup for {lookup.address}: {outcome}", "rtnetlink RTM_GETROUTE")


def _decider_evidence(culprit: Decider | Exhausted | Untold) -> tuple[Evidence, ...]:
    if not isinstance(culprit, Decider):
        return ()
    said = [Evidence(f"{culprit.rule.priority}: {' '.join(_rule_words(culprit.rule))}", "rtnetlink RTM_GETRULE")]
    if culprit.route is not None:
        text = f"table {_table(culprit.route.table)}: {_route_text(culprit.route)}"
        said.append(Evidence(text, "rtnetlink RTM_GETROUTE"))
    return tuple(said)


def _route_text(route: LocalRoute) -> str:
    return f"{route.kind} {route.destination}" + (f" dev {route.device}" if route.device else "")


def _table(number: int) -> str:
    return _TABLES.get(number, str(number))


# what mends the routes


def _remedies(
    culprit: Decider | Exhausted | Untold, routing: Routing, one: _Concerned, holder: Interface
) -> tuple[Remedy, ...]:
    match culprit:
        case Untold() if not _is_asked_for_first(routing, one.family) or _has_entry(routing, one.address):
            return (_by_hand(one),)
        case Untold() | Exhausted():
            return (_restored(routing, one, holder, None),)
        case Decider(rule=rule) if "?" in rule.selector:
            return (_by_hand(one),)
        case Decider(route=LocalRoute(table=table) as route) if table == LOCAL_TABLE:
            return (_without_route(route, one),)
        case Decider(rule=rule, route=None) if _only_for_loopback(rule):
            return (_without_rule(rule, routing, one), _by_hand(one))
        case Decider(rule=rule) if rule.priority == 0:
            return (_without_rule(rule, routing, one), _by_hand(one))
        case Decider(rule=rule):
            return (_restored(routing, one, holder, rule.priority), _by_hand(one))


def _by_hand(one: _Concerned) -> Remedy:
    ip = f"ip {_FLAGS[one.family]}"
    return Remedy(
        summary=f"Find who changed the rules (a VPN, a kill switch, a routing script) with `{ip} rule` and "
        f"`{ip} route show table all`, and change it there: it may set them again"
    )


def _only_for_loopback(rule: RoutingRule) -> bool:
    words = rule.selector.split()
    return words[2:3] == ["to"] and is_loopback(words[3].partition("/")[0])


def _restored(routing: Routing, one: _Concerned, holder: Interface, before: int | None) -> Remedy:
    """The kernel's own order again: the local table, with its entry for the address, before everything else."""
    commands, undo = _entries(routing, one, holder)
    what = ["the local table's entry"] if commands else []
    if not asks_local_first(routing, one.family, before):
        words = ("rule", "add", "pref", "0", "lookup", "local")
        commands.append(_ip(_FLAGS[one.family], *words))
        undo.insert(0, _ip(_FLAGS[one.family], "rule", "del", *words[2:]))
        what.append("the rule that asks the local table first")
    return Remedy(
        summary=f"Put back {' and '.join(what)}, as the kernel sets it up",
        commands=tuple(commands),
        undo=tuple(undo),
        survives_reboot=False,
    )


def _entries(routing: Routing, one: _Concerned, holder: Interface) -> tuple[list[Command], list[Command]]:
    """What adds the local table's routes for the address where they are gone, and what takes them away again."""
    if _has_entry(routing, one.address):
        return [], []
    flag, device = _FLAGS[one.family], holder.name
    routes: list[tuple[str, ...]]
    if not is_loopback(one.address):
        routes = [("local", one.address, "dev", device, "table", "local")]
    elif one.family == "ipv6":
        routes = [("local", "::1", "dev", "lo", "table", "local")]
    else:  # in this order: a preferred source must be a local address by then
        routes = [
            ("local", "127.0.0.1", "dev", "lo", "table", "local", "src", "127.0.0.1"),
            ("local", "127.0.0.0/8", "dev", "lo", "table", "local", "src", "127.0.0.1"),
        ]
    present = {route.destination for route in routing.local_routes if route.table == LOCAL_TABLE}
    absent = [words for words in routes if words[1] not in present]
    return (
        [_ip(flag, "route", "add", *words) for words in absent],
        [_ip(flag, "route", "del", *words) for words in reversed(absent)],
    )


def _has_entry(routing: Routing, address: str) -> bool:
    return any(route.kind == "local" for route in covering(routing, LOCAL_TABLE, address))


def _is_asked_for_first(routing: Routing, family: Family) -> bool:
    first = next((rule for rule in routing.rules if rule.family == family), None)
    return first is not None and first.table == LOCAL_TABLE and first.selector == "from all"


def _without_rule(rule: RoutingRule, routing: Routing, one: _Concerned) -> Remedy:
    flag, pref = _FLAGS[one.family], ("pref", str(rule.priority))
    commands = [_ip(flag, "rule", "del", *pref, *_rule_words(rule))]
    undo = [_ip(flag, "rule", "add", *pref, *_rule_words(rule))]
    local_first = ("pref", "0", "lookup", "local")
    if rule.priority == 0 and asks_local_first(routing, one.family, 1):
        # rules of one number run in the order in which they were added: the other one has to be the later again
        undo += [_ip(flag, "rule", "del", *local_first), _ip(flag, "rule", "add", *local_first)]
    elif not asks_local_first(routing, one.family, None):
        commands.append(_ip(flag, "rule", "add", *local_first))
        undo.insert(0, _ip(flag, "rule", "del", *local_first))
    return Remedy(
        summary=f"Delete the rule {rule.priority} ({' '.join(_rule_words(rule))})",
        commands=tuple(commands),
        undo=tuple(undo),
        survives_reboot=False,
    )


def _without_route(route: LocalRoute, one: _Concerned) -> Remedy:
    device = ("dev", route.device) if route.device else ()
    words = (route.kind, route.destination, *device, "table", _table(route.table))
    return Remedy(
        summary=f"Delete the route {_route_text(route)} from table {_table(route.table)}",
        commands=(_ip(_FLAGS[one.family], "route", "del", *words),),
        undo=(_ip(_FLAGS[one.family], "route", "add", *words),),
        survives_reboot=False,
    )


def _rule_words(rule: RoutingRule) -> tuple[str, ...]:
    """The rule as `ip rule` lists and takes it; goto's target is among the selector's words."""
    match rule.action:
        case "lookup" if rule.table is not None:
            return (*rule.selector.split(), "lookup", _table(rule.table))
        case "goto":
            return tuple(rule.selector.split())
        case action:
            return (*rule.selector.split(), action)


def _ip(*words: str) -> Command:
    return Command(("ip", *words), needs_root=True)


CHECK = Check("loopback", (INTERFACE_DOWN, ADDRESS_MISSING, ROUTE_MISSING, ROUTED_ELSEWHERE), judge)
