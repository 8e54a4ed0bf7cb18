"""Where this machine's routing sends packets for the target's addresses (rtnetlink(7), linux/fib_rules.h)."""

from __future__ import annotations

import errno
import socket
import struct
import sys
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from diagnose.analysis.argument import is_plain
from diagnose.model.fact import NOT_LINUX, Fact, Known, Reason, Unknown
from diagnose.model.network import Family, LocalRoute, RouteKind, RouteLookup, Routing, RoutingRule
from diagnose.probes.connect import errno_name
from diagnose.probes.netlink import ROUTE, Netlink, attribute, attributes

_GET_ROUTE, _GET_RULE = 26, 34
_ROUTE_HEADER = struct.Struct("=BBBBBBBBI")
"""struct rtmsg: family, dst_len, src_len, tos, table, protocol, scope, type, flags; fib_rule_hdr has the same size."""
_F_LOOKUP_TABLE = 0x1000
_DST, _OIF, _GATEWAY, _TABLE, _IP_PROTO, _DPORT, _VIA = 1, 4, 5, 15, 27, 29, 18
_U32 = struct.Struct("=I")
_MAIN, _LOCAL = 254, 255

_SOL_NETLINK, _GET_STRICT_CHK = 270, 12
"""Lets a dump name one table (Linux 4.20)."""

_TYPES = {
    1: "unicast",
    2: "local",
    3: "broadcast",
    4: "anycast",
    5: "multicast",
    6: "blackhole",
    7: "unreachable",
    8: "prohibit",
    9: "throw",
}
_KINDS = {
    "local": RouteKind.LOCAL,
    "unicast": RouteKind.UNICAST,
    "broadcast": RouteKind.BROADCAST,
    "blackhole": RouteKind.BLACKHOLE,
    "unreachable": RouteKind.UNREACHABLE,
    "prohibit": RouteKind.PROHIBIT,
}
_REFUSALS = {
    errno.EACCES: RouteKind.PROHIBIT,
    errno.EINVAL: RouteKind.BLACKHOLE,
    errno.EHOSTUNREACH: RouteKind.UNREACHABLE,
    errno.ENETUNREACH: RouteKind.NO_ROUTE,
}
"""What the lookup fails with; an `unreachable` rule, unlike such a route, fails as if there were no route."""

_FAMILIES: dict[Family, int] = {"ipv4": socket.AF_INET, "ipv6": socket.AF_INET6}
_VERSIONS: dict[Family, int] = {"ipv4": 4, "ipv6": 6}
_LOOPBACK = {"ipv4": ip_network("127.0.0.0/8"), "ipv6": ip_network("::1/128")}

# linux/fib_rules.h
_ACTIONS = {1: "lookup", 2: "goto", 3: "nop", 6: "blackhole", 7: "unreachable", 8: "prohibit"}
_INVERT = 0x2
_FRA_DST, _FRA_SRC, _FRA_IIF, _FRA_GOTO, _FRA_PRIORITY, _FRA_MARK = 1, 2, 3, 4, 6, 10
_FRA_SUPPRESS_GROUP, _FRA_SUPPRESS_LENGTH, _FRA_TABLE, _FRA_MASK, _FRA_OIF = 13, 14, 15, 16, 17
_FRA_L3MDEV, _FRA_UIDS, _FRA_IP_PROTO, _FRA_SPORTS, _FRA_DPORTS = 19, 20, 22, 23, 24
_FRA_SPOKEN = frozenset({1, 2, 3, 4, 6, 10, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24})
"""Those that the words of a rule tell, or that do not decide (pad, protocol)."""
_IP_PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 58: "ipv6-icmp", 132: "sctp"}
_NO_LIMIT = 0xFFFFFFFF


def look(addresses: Sequence[str], port: int = 0) -> Fact[Routing]:
    """The lookup for each address as this user's TCP connect makes it, the rules, and the routes that cover them.

    Tables other than `local` are read only where a loopback address is not routed as local.
    """
    if not sys.platform.startswith("linux"):
        return NOT_LINUX
    try:
        kernel = _Rtnetlink(ROUTE)
        with kernel:
            lookups = tuple(kernel.lookup(address, port) for address in addresses)
            rules = tuple(rule for family in _families(addresses) for rule in kernel.rules(family))
            routes = sorted(set(_routes(kernel, addresses, lookups, rules)))
            return Known(Routing(lookups, rules, tuple(routes)))
    except TimeoutError as error:
        return Unknown(Reason.DEADLINE, f"rtnetlink: {error}")
    except OSError as error:
        return Unknown(Reason.FAILED, f"rtnetlink: {error.strerror}")
    except (ValueError, struct.error) as error:
        return Unknown(Reason.UNPARSABLE, f"rtnetlink: {error}")


class _Rtnetlink(Netlink):
    """Routes, rules and lookups."""

    def lookup(self, address: str, port: int) -> RouteLookup:
        """`ip route get ADDRESS ipproto tcp dport PORT`, with the table that decided."""
        ip, device = _dialled(address)
        family = socket.AF_INET if ip.version == 4 else socket.AF_INET6
        header = _ROUTE_HEADER.pack(family, ip.max_prefixlen, 0, 0, 0, 0, 0, 0, _F_LOOKUP_TABLE)
        payload = header + attribute(_DST, ip.packed) + attribute(_IP_PROTO, b"\x06")
        if device:
            payload += attribute(_OIF, _U32.pack(device))
        if port:
            payload += attribute(_DPORT, port.to_bytes(2, "big"))
        try:
            body = self.request(_GET_ROUTE, 0, payload)[0]
        except OSError as error:
            if error.errno is None or isinstance(error, TimeoutError):
                raise
            kind = _REFUSALS.get(error.errno, RouteKind.OTHER)
            return RouteLookup(address, kind, errno=errno_name(error.errno))
        found = attributes(body, _ROUTE_HEADER.size)
        kind = _KINDS.get(_TYPES.get(_ROUTE_HEADER.unpack_from(body)[7], ""), RouteKind.OTHER)
        return RouteLookup(address, kind, _device(found), _gateway(found), table=_table(body, found))

    def rules(self, family: Family) -> Iterator[RoutingRule]:
        """`ip rule`, in the order in which they are tried; none where the kernel lacks the family or rules."""
        header = _ROUTE_HEADER.pack(_FAMILIES[family], 0, 0, 0, 0, 0, 0, 0, 0)
        try:
            messages = self.dump(_GET_RULE, header)
        except OSError as error:
            if error.errno not in (errno.EAFNOSUPPORT, errno.EOPNOTSUPP):
                raise
            return
        for _, body in messages:
            if body[0] == _FAMILIES[family]:
                yield _rule(family, body)

    def table(self, family: Family, table: int) -> Iterator[LocalRoute]:
        """The routes of one table."""
        try:
            self._socket.setsockopt(_SOL_NETLINK, _GET_STRICT_CHK, 1)
        except OSError as error:
            if error.errno != errno.ENOPROTOOPT:  # an older kernel dumps every table instead
                raise
        header = _ROUTE_HEADER.pack(_FAMILIES[family], 0, 0, 0, 0, 0, 0, 0, 0)
        try:
            messages = self.dump(_GET_ROUTE, header + attribute(_TABLE, _U32.pack(table)))
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.EAFNOSUPPORT, errno.EOPNOTSUPP):
                raise
            return  # the kernel makes a table with its first route
        for _, body in messages:
            if body[0] == _FAMILIES[family]:
                route = _route(family, body)
                if route.table == table:
                    yield route


def _families(addresses: Sequence[str]) -> list[Family]:
    versions = {_dialled(address)[0].version for address in addresses}
    return [family for family in _FAMILIES if _VERSIONS[family] in versions]


def _dialled(address: str) -> tuple[IPv4Address | IPv6Address, int]:
    """What the kernel looks up when this is dialled, and the index of the zone's interface, 0 without a zone."""
    text, _, zone = address.partition("%")
    ip = ip_address(text)
    if isinstance(ip, IPv6Address):
        if ip.ipv4_mapped:
            return ip.ipv4_mapped, 0
        if ip.is_unspecified:
            return IPv6Address(1), 0
    return ip, (int(zone) if zone.isdigit() else socket.if_nametoindex(zone)) if zone else 0


def _routes(
    kernel: _Rtnetlink, addresses: Sequence[str], lookups: Sequence[RouteLookup], rules: Sequence[RoutingRule]
) -> Iterator[LocalRoute]:
    """The routes that cover an address or lie in the loopback network, from each table that matters."""
    for family in _families(addresses):
        tables = {_LOCAL}
        if any(one.kind is not RouteKind.LOCAL and _dialled(one.address)[0].is_loopback for one in lookups):
            tables |= {rule.table for rule in rules if rule.family == family and rule.table is not None}
        ours = [ip for ip, _ in map(_dialled, addresses) if ip.version == _VERSIONS[family]]
        for table in sorted(tables):
            yield from (route for route in kernel.table(family, table) if _covers(route, ours))


def _covers(route: LocalRoute, addresses: Sequence[IPv4Address | IPv6Address]) -> bool:
    if route.destination == "default":
        return True
    network = ip_network(route.destination)
    loopback = _LOOPBACK[route.family]
    inside = network.prefixlen >= loopback.prefixlen and network.network_address in loopback
    return inside or any(ip in network for ip in addresses)


def _route(family: Family, body: bytes) -> LocalRoute:
    header = _ROUTE_HEADER.unpack_from(body)
    found = attributes(body, _ROUTE_HEADER.size)
    destination = _prefix(found.get(_DST), header[1], "default")
    return LocalRoute(family, _table(body, found), _TYPES.get(header[7], str(header[7])), destination, _device(found))


def _prefix(packed: bytes | None, length: int, everything: str) -> str:
    """A network as `ip` prints it: without its length where it is one address."""
    if packed is None or length == 0:
        return everything
    ip = ip_address(packed)
    return str(ip) if length == ip.max_prefixlen else f"{ip}/{length}"


def _table(body: bytes, found: dict[int, bytes]) -> int:
    return _number(found[_TABLE]) if _TABLE in found else int(_ROUTE_HEADER.unpack_from(body)[4])


def _device(found: dict[int, bytes]) -> str | None:
    if _OIF not in found:
        return None
    index = _number(found[_OIF])
    try:
        return socket.if_indextoname(index)
    except OSError:
        return f"interface {index}"


def _gateway(found: dict[int, bytes]) -> str | None:
    if _GATEWAY in found:
        return str(ip_address(found[_GATEWAY]))
    via = found.get(_VIA, b"")[2:]  # a gateway of the other family, after its family
    return str(ip_address(via)) if len(via) in (4, 16) else None


def _rule(family: Family, body: bytes) -> RoutingRule:
    _, dst_len, src_len, tos, table, _, _, action, flags = _ROUTE_HEADER.unpack_from(body)
    found = attributes(body, _ROUTE_HEADER.size)
    name = _ACTIONS.get(action, str(action))
    words = ["not"] if flags & _INVERT else []
    words += ["from", _prefix(found.get(_FRA_SRC), src_len, "all")]
    if dst_len:
        words += ["to", _prefix(found.get(_FRA_DST), dst_len, "all")]
    words += _selector_words(tos, found)
    if name == "goto":
        words += ["goto", str(_number(found[_FRA_GOTO]))]
    target = _number(found[_FRA_TABLE]) if _FRA_TABLE in found else table
    return RoutingRule(
        family,
        _number(found[_FRA_PRIORITY]) if _FRA_PRIORITY in found else 0,
        name,
        target if name == "lookup" and target else None,
        " ".join(words),
    )


def _selector_words(tos: int, found: dict[int, bytes]) -> Iterator[str]:
    """What else a rule asks for, in the words that `ip rule` takes; "?N" for an attribute that it has no word for."""
    if tos:
        yield from ("tos", hex(tos))
    if _FRA_MARK in found:
        mask = _number(found[_FRA_MASK]) if _FRA_MASK in found else _NO_LIMIT
        mark = hex(_number(found[_FRA_MARK]))
        yield from ("fwmark", mark if mask == _NO_LIMIT else f"{mark}/{mask:#x}")
    for kind, word in ((_FRA_IIF, "iif"), (_FRA_OIF, "oif")):
        if kind in found:
            name = found[kind].rstrip(b"\0").decode(errors="backslashreplace")
            # the kernel takes any: in the words of a rule it has to be one
            yield from (word, name) if is_plain(name) else (word, f"?{kind}")
    if found.get(_FRA_L3MDEV, b"\0") != b"\0":
        yield "l3mdev"
    if _FRA_UIDS in found:
        yield from ("uidrange", "{}-{}".format(*struct.unpack("=II", found[_FRA_UIDS])))
    if _FRA_IP_PROTO in found:
        number = found[_FRA_IP_PROTO][0]
        yield from ("ipproto", _IP_PROTOCOLS.get(number, str(number)))
    for kind, word in ((_FRA_SPORTS, "sport"), (_FRA_DPORTS, "dport")):
        if kind in found:
            first, last = struct.unpack("=HH", found[kind])
            yield from (word, str(first) if first == last else f"{first}-{last}")
    for kind, word in ((_FRA_SUPPRESS_LENGTH, "suppress_prefixlength"), (_FRA_SUPPRESS_GROUP, "suppress_ifgroup")):
        if kind in found and _number(found[kind]) != _NO_LIMIT:
            yield from (word, str(_number(found[kind])))
    yield from (f"?{kind}" for kind in sorted(found.keys() - _FRA_SPOKEN))


def _number(packed: bytes) -> int:
    number: int = _U32.unpack(packed)[0]
    return number
