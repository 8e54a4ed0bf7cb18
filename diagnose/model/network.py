"""Sockets, interfaces, routes: what the kernel's tables say."""

from __future__ import annotations

from enum import IntEnum, StrEnum
from functools import lru_cache
from ipaddress import ip_address
from typing import Literal

from msgspec import Struct

from diagnose.model.bounds import Address, Count, Few, Inode, Port, Uid, Word
from diagnose.model.fact import NOT_NEEDED, Fact

Family = Literal["ipv4", "ipv6"]

_ADDRESSES = 1 << 14
"""Of so many it is remembered what they are: tables of sockets have few, many times."""


class Endpoint(Struct, frozen=True, order=True):
    """An address and a port; IPv4-mapped IPv6 addresses stay as the kernel shows them."""

    address: Address
    port: Port

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


class TcpState(IntEnum):
    """TCP states by number (include/net/tcp_states.h)."""

    ESTABLISHED = 1
    SYN_SENT = 2
    SYN_RECV = 3
    FIN_WAIT1 = 4
    FIN_WAIT2 = 5
    TIME_WAIT = 6
    CLOSE = 7
    CLOSE_WAIT = 8
    LAST_ACK = 9
    LISTEN = 10
    CLOSING = 11
    NEW_SYN_RECV = 12
    BOUND_INACTIVE = 13

    @property
    def label(self) -> str:
        """The name as ss and netstat print it."""
        return self.name.replace("_", "-")


class SocketRow(Struct, frozen=True, order=True):
    """One socket of this network namespace."""

    local: Endpoint
    peer: Endpoint
    state: TcpState
    family: Family
    """The socket's own family: a dual-stack listener is an ipv6 socket."""
    inode: Inode
    """0: not attached to a file (not accepted yet, or TIME-WAIT). Off Linux the pid, -1 where that is hidden."""
    uid: Uid
    """-1: not told (psutil)."""
    v6only: bool | None = None
    """None: the source could not tell (/proc), or an IPv4 socket."""
    device: str | None = None
    """Interface that it is bound to (SO_BINDTODEVICE)."""
    queue: Count = 0
    """LISTEN: connections waiting in the accept queue; else unread bytes (Recv-Q)."""
    backlog: Count = 0
    """LISTEN: the length that the accept queue may have; else unsent bytes (Send-Q)."""
    drops: Count | None = None
    """Packets that the kernel dropped at this socket (SK_MEMINFO_DROPS); None: not told."""
    opened_here: bool | None = None
    """Whether this end of a connection sent the SYN; asked for with --bind only, and None where that is not known."""


class Interface(Struct, frozen=True, order=True):
    """A network interface and its addresses, without prefix length."""

    name: str
    up: bool
    addresses: tuple[Address, ...]


class Gateway(Struct, frozen=True, order=True):
    """A default gateway."""

    address: Address
    interface: str
    family: Family


class Links(Struct, frozen=True):
    """The interfaces of this namespace and where packets leave it."""

    interfaces: tuple[Interface, ...]
    gateways: Fact[tuple[Gateway, ...]] = NOT_NEEDED
    """Asked for only where a target is another machine."""

    def holder(self, address: str) -> Interface | None:
        """The interface that has this address."""
        return next((i for i in self.interfaces if address in i.addresses), None)


class RouteKind(StrEnum):
    """What the kernel's route lookup says of an address (rtm_type, or the errno that it gives)."""

    LOCAL = "local"
    UNICAST = "unicast"
    BROADCAST = "broadcast"
    OTHER = "other"
    UNREACHABLE = "unreachable"
    PROHIBIT = "prohibit"
    BLACKHOLE = "blackhole"
    NO_ROUTE = "no route"


class RouteLookup(Struct, frozen=True):
    """`ip route get ADDRESS`."""

    address: Address
    kind: RouteKind
    device: str | None = None
    gateway: Address | None = None
    errno: str | None = None
    table: Word | None = None


class RoutingRule(Struct, frozen=True, order=True):
    """A line of `ip rule`, with what decides whether it matches."""

    family: Family
    priority: Word
    action: str
    """lookup, blackhole, unreachable, prohibit, goto, nop."""
    table: Word | None = None
    selector: str = "from all"


class LocalRoute(Struct, frozen=True, order=True):
    """A route whose destination is the probed address or 127.0.0.0/8, in whichever table."""

    family: Family
    table: Word
    kind: str
    destination: str
    device: str | None = None


class Routing(Struct, frozen=True):
    """The lookup for each address of the target, with the rules and the local table behind it."""

    lookups: Few[RouteLookup]
    rules: tuple[RoutingRule, ...]
    local_routes: tuple[LocalRoute, ...]

    def lookup(self, address: str) -> RouteLookup | None:
        """The lookup of this address."""
        return next((one for one in self.lookups if one.address == address), None)


class PortPolicy(Struct, frozen=True):
    """The sysctls of this namespace that decide who may have which port and address."""

    ephemeral_low: Port
    ephemeral_high: Port
    reserved: tuple[tuple[Port, Port], ...]
    unprivileged_start: Word
    nonlocal_bind_v4: bool
    nonlocal_bind_v6: bool
    bindv6only: bool
    ipv6_disabled_all: bool
    ipv6_disabled_lo: bool
    ipv6_available: bool
    """False: the kernel has no IPv6 at all (/proc/net/if_inet6 is absent)."""

    def hands_out(self, port: int) -> bool:
        """Whether the kernel may give this port to an outbound connection (net.ipv4.ip_local_port_range)."""
        return self.ephemeral_low <= port <= self.ephemeral_high and not any(a <= port <= b for a, b in self.reserved)


@lru_cache(maxsize=_ADDRESSES)
def family_of(address: str) -> Family:
    """The IP family of a literal; an IPv6 zone is ignored. ValueError when it is no literal."""
    return "ipv6" if ip_address(address.partition("%")[0]).version == 6 else "ipv4"


def is_wildcard(address: str) -> bool:
    """0.0.0.0 or ::."""
    return address in ("0.0.0.0", "::")


@lru_cache(maxsize=_ADDRESSES)
def is_loopback(address: str) -> bool:
    """127.0.0.0/8, ::1, or an IPv4-mapped form of the first."""
    ip = ip_address(address.partition("%")[0])
    mapped = getattr(ip, "ipv4_mapped", None)
    return bool(mapped.is_loopback if mapped else ip.is_loopback)
