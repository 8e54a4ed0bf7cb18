"""The machine's rule sets, addresses and sysctls, read from its own network namespace."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Collection, Iterator, Mapping

from msgspec import Struct

from diagnose.model.network import SocketRow, is_loopback
from diagnose.parse import nfnetlink, nft, xtables
from diagnose.parse.ipset import IpSet
from diagnose.parse.nft import Ruleset
from diagnose.parse.xtables import Block
from diagnose.probes.netlink import ROUTE, Netlink, attributes
from diagnose.probes.shadow import netfilter
from diagnose.probes.shadow.presence import legacy_tables

_GET_LINK, _GET_ADDRESS, _GET_RULE = 18, 22, 34
_RULE = struct.Struct("=BBBBBBBBI")
"""struct fib_rule_hdr."""
_FRA_PRIORITY, _LOCAL_TABLE, _TO_TABLE = 6, 255, 1
_SELECTORS = frozenset({1, 2, 3, 10, 12, 16, 17, 20, 22, 23, 24})
"""FRA_DST, _SRC, _IIFNAME, _FWMARK, _TUN_ID, _FWMASK, _OIFNAME, _UID_RANGE, _IP_PROTO, _SPORT_RANGE, _DPORT_RANGE."""
_LINK = struct.Struct("=BxHiII")
"""struct ifinfomsg."""
_ADDRESS = struct.Struct("=BBBBI")
"""struct ifaddrmsg."""
_IFLA_IFNAME, _IFLA_MTU, _IFA_ADDRESS, _IFA_LOCAL = 3, 4, 1, 2
_ASKS_SET = tuple(nfnetlink.text(1, name) for name in (b"set", b"SET"))
"""The name of such an xt extension in an expression of nf_tables."""
LOOPBACK = 1
"""Index of lo in every namespace."""

_SYSCTLS = (
    "ipv4/ip_local_port_range",
    "ipv4/ip_nonlocal_bind",
    "ipv4/ip_forward",
    "ipv4/fwmark_reflect",
    "ipv4/tcp_fwmark_accept",
    "ipv4/tcp_syncookies",
    "ipv4/tcp_timestamps",
    "ipv4/tcp_ecn",
    "ipv4/tcp_sack",
    "ipv4/tcp_window_scaling",
    "ipv4/ip_default_ttl",
    "ipv6/conf/lo/hop_limit",
    "ipv4/conf/all/rp_filter",
    "ipv4/conf/lo/rp_filter",
    "ipv4/conf/all/route_localnet",
    "ipv4/conf/lo/route_localnet",
    "ipv4/conf/all/accept_local",
    "ipv4/conf/lo/accept_local",
    "ipv4/conf/all/src_valid_mark",
    "ipv4/conf/lo/src_valid_mark",
    "ipv6/conf/all/disable_ipv6",
    "ipv6/conf/lo/disable_ipv6",
    "ipv6/conf/all/forwarding",
    "ipv6/fwmark_reflect",
    "netfilter/nf_conntrack_tcp_loose",
    "netfilter/nf_conntrack_tcp_be_liberal",
    "netfilter/nf_conntrack_helper",
)
"""Under /proc/sys/net, of this namespace: what decides about a packet to oneself beside the rules."""


_OF_INTERFACES = ("route_localnet", "accept_local", "rp_filter", "src_valid_mark")
_REROUTING = ("output", "prerouting", "postrouting")


class Link(Struct, frozen=True):
    """An interface."""

    index: int
    mtu: int
    """It decides about the MSS that a SYN offers."""


class LocalAddress(Struct, frozen=True):
    """An address of an interface."""

    index: int
    interface: str
    family: int
    prefix: int
    scope: int
    address: str


class Machine(Struct, frozen=True):
    """All that the copy is made of."""

    rules: Ruleset
    blocks: tuple[Block, ...]
    addresses: tuple[LocalAddress, ...]
    links: dict[str, Link]
    """By name."""
    sysctls: dict[str, str]
    listeners: tuple[SocketRow, ...]
    ip_sets: tuple[IpSet, ...]
    """Those that rules know by their index; none when no rule asks for one."""
    local_table_first: bool
    """Packets to oneself go by the local table, whatever mark they bear."""
    queues: Mapping[int, str]
    """NFQUEUE numbers that a program serves, and which."""
    hidden_sysctls: tuple[str, ...] = ()
    """Which of them could not be read: the copy has the kernel's defaults in their place."""
    listeners_known: bool = True
    """False: `listeners` is empty because the socket table could not be read."""

    def is_elsewhere(self, address: str) -> bool:
        """Whether packets to this address leave this network namespace."""
        return not is_loopback(address) and all(own.address != address for own in self.addresses)

    @property
    def size(self) -> int:
        """How many rules there are: policies that let everything pass are none."""
        return size(self.rules, self.blocks)


def size(rules: Ruleset, blocks: Collection[Block]) -> int:
    """How many rules there are, with the policies that drop; of iptables-legacy with every policy."""
    dropping = sum(1 for chain in rules.chains if chain.hook is not None and chain.hook.drops)
    return len(rules.rules) + dropping + sum(block.info.entries for block in blocks)


def blocks() -> tuple[Block, ...]:
    """The tables of iptables-legacy and ip6tables-legacy."""
    named = [legacy_tables(kind) for kind in ("ip", "ip6")]
    if not any(named):
        return ()
    # most machines have none, and need not pay for the import of ctypes
    from diagnose.probes.shadow import legacy

    return tuple(legacy.read(side, name) for side, names in zip(legacy.SIDES, named, strict=True) for name in names)


def changed(rules: Ruleset, known: tuple[Block, ...]) -> bool:
    """Whether the rule sets are others now; OSError and ValueError as when they were read."""
    if rules.generation and netfilter.generation(1.0) != rules.generation:
        return True
    return [xtables.canonical(block) for block in blocks()] != [xtables.canonical(block) for block in known]


def ip_sets(rules: Ruleset, blocks: tuple[Block, ...], timeout: float) -> tuple[IpSet, ...]:
    """The IP sets, where an xt match or target asks for one."""
    native = any(nft.extended(rule) and any(mark in rule.given for mark in _ASKS_SET) for rule in rules.rules)
    if not native and not any(name in block.data for block in blocks for name in (b"set\0", b"SET\0")):
        return ()
    try:
        return netfilter.ip_sets(timeout)
    except (OSError, ValueError):
        # none that could be read: a rule that needs one will not load, and is told as not copied
        return ()


def links(timeout: float) -> tuple[dict[str, Link], tuple[LocalAddress, ...]]:
    """Every interface by name, and every address."""
    with Netlink(ROUTE, timeout) as client:
        names = dict(_links(client))
        by_index = {link.index: name for name, link in names.items()}
        return names, tuple(_addresses(client, by_index))


def local_table_first(timeout: float) -> bool:
    """Whether every packet is first looked up in the local table, so that no mark of a rule can lead it elsewhere.

    True for families that the kernel does not have.
    """
    with Netlink(ROUTE, timeout) as client:
        found = [body for _, body in client.dump(_GET_RULE, _RULE.pack(0, 0, 0, 0, 0, 0, 0, 0, 0))]
    families = {body[0] for body in found} & {socket.AF_INET, socket.AF_INET6}
    return all(any(_asks_local_first(body) for body in found if body[0] == family) for family in families)


def _asks_local_first(body: bytes) -> bool:
    _, to_length, from_length, service, table, _, _, action, flags = _RULE.unpack_from(body)
    told = attributes(body, _RULE.size)
    unconditional = not (to_length or from_length or service or flags or told.keys() & _SELECTORS)
    priority = int.from_bytes(told.get(_FRA_PRIORITY, b""), nfnetlink.BYTE_ORDER)
    return unconditional and priority == 0 and table == _LOCAL_TABLE and action == _TO_TABLE


def _links(client: Netlink) -> Iterator[tuple[str, Link]]:
    for _, body in client.dump(_GET_LINK, _LINK.pack(0, 0, 0, 0, 0)):
        index = _LINK.unpack_from(body)[2]
        found = attributes(body, _LINK.size)
        name = found.get(_IFLA_IFNAME, b"").rstrip(b"\0")
        yield nft.readable(name), Link(index, int.from_bytes(found.get(_IFLA_MTU, b""), nfnetlink.BYTE_ORDER))


def _addresses(client: Netlink, names: dict[int, str]) -> Iterator[LocalAddress]:
    for _, body in client.dump(_GET_ADDRESS, _ADDRESS.pack(0, 0, 0, 0, 0)):
        family, prefix, _, scope, index = _ADDRESS.unpack_from(body)
        found = attributes(body, _ADDRESS.size)
        packed = found.get(_IFA_LOCAL) or found.get(_IFA_ADDRESS, b"")
        if family in (socket.AF_INET, socket.AF_INET6) and packed:
            yield LocalAddress(index, names.get(index, ""), family, prefix, scope, socket.inet_ntop(family, packed))


def sysctls(rerouting: Collection[str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """The deciding sysctls that this kernel has, by their path under /proc/sys/net, and those that are hidden.

    With those of the interfaces by which a packet may leave whose destination a rule changes. Where /proc has no
    sysctls at all (ProcSubset=pid, systemd.exec(5)), all of them are hidden.
    """
    found: dict[str, str] = {}
    if not os.path.isdir("/proc/sys/net/ipv4"):
        return found, ("ipv4", "ipv6", "netfilter")
    hidden: list[str] = []
    for name in (*_SYSCTLS, *(f"ipv4/conf/{each}/{one}" for each in sorted(rerouting) for one in _OF_INTERFACES)):
        try:
            with open(f"/proc/sys/net/{name}", encoding="ascii", errors="backslashreplace") as file:
                found[name] = file.read().strip()
        except (FileNotFoundError, IsADirectoryError):
            continue  # this kernel decides without it
        except PermissionError:
            hidden.append(name)
    return found, tuple(hidden)


def queues() -> dict[int, str]:
    """The NFQUEUE numbers that a program has bound, and which (nfnetlink_queue.c, seq_show: number, netlink port)."""
    try:
        with open(
            "/proc/thread-self/net/netfilter/nfnetlink_queue", encoding="ascii", errors="backslashreplace"
        ) as file:
            rows = [line.split() for line in file if line.split()]
    except FileNotFoundError:
        return {}
    return {int(number): _program(port) for number, port, *_ in rows}


def _program(port: str) -> str:
    """Who has this netlink port: the first socket of a process has its pid as the port (netlink(7))."""
    try:
        with open(f"/proc/{port}/comm", encoding="utf-8", errors="backslashreplace") as file:
            return f"{file.read().rstrip()} (pid {port}, by its netlink port)"
    except OSError:
        return f"an unknown program (netlink port {port})"


def changes_addresses(rules: Ruleset, blocks: tuple[Block, ...]) -> bool:
    """Whether there is nat on the way of a packet to oneself."""
    native = any(c.hook is not None and c.hook.kind == "nat" and c.hook.name in _REROUTING for c in rules.chains)
    return native or any(block.info.table == "nat" for block in blocks)


def rerouting(rules: Ruleset, blocks: tuple[Block, ...], addresses: Collection[LocalAddress]) -> frozenset[str]:
    """The interfaces with an address, where rules may send a packet to oneself elsewhere (a container's bridge), or
    may let it come from elsewhere (masquerade looks for an address on every interface).
    """
    if not changes_addresses(rules, blocks):
        return frozenset()
    return frozenset(address.interface for address in addresses) - {"lo", ""}


def addresses_needed(machine: Machine, dialled: Collection[str], needed: Collection[str]) -> Iterator[LocalAddress]:
    """The addresses of these interfaces; of lo those that are dialled, or that nat may take."""
    nat = changes_addresses(machine.rules, machine.blocks)
    for one in machine.addresses:
        if one.interface in needed or (one.interface == "lo" and (one.address in dialled or (nat and not one.scope))):
            yield one


def interfaces_needed(machine: Machine, dialled: Collection[str]) -> tuple[str, ...]:
    """The interfaces, lo aside, that hold a dialled address, that a chain is bound to, or that nat may need.

    In the order in which the kernel looks through them for an address (inet_select_addr, net/ipv4/devinet.c).
    """
    holders = {a.interface for a in machine.addresses if a.address in dialled}
    holders |= rerouting(machine.rules, machine.blocks, machine.addresses)
    bound = {
        os.fsdecode(device) for chain in machine.rules.chains if chain.hook is not None for device in chain.hook.devices
    }
    offloading = {os.fsdecode(device) for other in machine.rules.others for device in nft.devices(other)}
    needed = (holders | bound | offloading) - {"lo", ""}
    return tuple(sorted(needed, key=lambda name: (machine.links[name].index if name in machine.links else 0, name)))
