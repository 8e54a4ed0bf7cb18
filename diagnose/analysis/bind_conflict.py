"""Which sockets stand in the way of a bind on Linux: the kernel's rule for two sockets and one port.

Two sockets conflict when one's address covers the other's and no two different devices keep them apart
(inet_rcv_saddr_equal and inet_bind_conflict, net/ipv4/inet_connection_sock.c). SO_REUSEADDR does not help against
a listener. Kernels 5.10, 6.1, 6.12 and 6.18 agree on every pair but the one that is called PERHAPS_MAPPED_WILDCARD.
"""

from __future__ import annotations

from enum import StrEnum
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address

from diagnose.model.network import SocketRow


class Conflict(StrEnum):
    """Why a wanted address and a held one exclude each other."""

    SAME_ADDRESS = "same address"
    SAME_IPV4 = "same IPv4 address in another form"
    HELD_WILDCARD = "the held wildcard has every address of its family"
    WANTED_WILDCARD = "the wanted wildcard would have every address of its family, the held one too"
    HELD_DUAL_STACK = "the held dual-stack wildcard has every IPv4 address too"
    WANTED_DUAL_STACK = "the wanted dual-stack wildcard would have every IPv4 address, the held one too"
    PERHAPS_MAPPED_WILDCARD = "the held ::ffff:0.0.0.0 has every IPv4 address too, but not on every kernel"
    PERHAPS_DUAL_STACK = "the held IPv6 wildcard has every IPv4 address too, if it is dual-stack: that is not known"

    @property
    def certain(self) -> bool:
        """False: the facts do not tell whether there is a conflict."""
        return self not in (Conflict.PERHAPS_DUAL_STACK, Conflict.PERHAPS_MAPPED_WILDCARD)

    @property
    def overlapping(self) -> bool:
        """Whether the two addresses differ as written."""
        return self is not Conflict.SAME_ADDRESS

    def sentence(self, wanted: str, held: str) -> str:
        """Which pair, and why, for a person."""
        match self:
            case Conflict.SAME_ADDRESS:
                return f"{held} is already taken."
            case Conflict.SAME_IPV4:
                return f"{held} is {wanted} in another form: an IPv4-mapped IPv6 address is that IPv4 address."
            case Conflict.HELD_WILDCARD:
                return f"{held} stands for every address of its family, so {wanted} is taken with it."
            case Conflict.WANTED_WILDCARD:
                return f"{wanted} stands for every address of its family, and {held} is one of them."
            case Conflict.HELD_DUAL_STACK:
                return f"The socket on {held} is dual-stack: it has every IPv4 address as well, {wanted} included."
            case Conflict.WANTED_DUAL_STACK:
                return f"A dual-stack socket on {wanted} needs every IPv4 address as well, and {held} is taken."
            case Conflict.PERHAPS_MAPPED_WILDCARD:
                return (
                    f"{held} stands for every IPv4 address, and {wanted} is one of them: most kernels let only one of "
                    "the two have the port, some both (seen on Linux 6.1)."
                )
            case Conflict.PERHAPS_DUAL_STACK:
                return f"If the socket on {held} is dual-stack, it has {wanted} too: its IPV6_V6ONLY flag is not known."


def conflict(wanted: str, v6only: bool, row: SocketRow, device: str | None = None) -> Conflict | None:
    """How this row of the same port conflicts with a bind to the wanted literal; None when both can be.

    `v6only` is IPV6_V6ONLY of the wanted socket, `device` what it is bound to; a zone ("fe80::1%eth0") is a device.
    """
    literal, _, zone = wanted.partition("%")
    mine = zone or device
    if mine and row.device and mine != row.device:
        return None
    new, old = _parsed(literal), _parsed(row.local.address)
    new4, old4 = _ipv4(literal), _ipv4(row.local.address)
    if new4 and old4 == 0 and isinstance(new, IPv6Address) and isinstance(old, IPv6Address):
        return Conflict.PERHAPS_MAPPED_WILDCARD
    if new4 is not None and old4 is not None:
        return _ipv4_pair(new4, old4, same=new == old)
    if new4 is not None:
        return _held_ipv6(old, row.v6only)
    if old4 is not None:
        return Conflict.WANTED_DUAL_STACK if int(new) == 0 and not v6only else None
    if new == old:
        return Conflict.SAME_ADDRESS
    if int(old) == 0:
        return Conflict.HELD_WILDCARD
    return Conflict.WANTED_WILDCARD if int(new) == 0 else None


def _ipv4_pair(new: int, old: int, *, same: bool) -> Conflict | None:
    if new == old:
        return Conflict.SAME_ADDRESS if same else Conflict.SAME_IPV4
    if old == 0:
        return Conflict.HELD_WILDCARD
    return Conflict.WANTED_WILDCARD if new == 0 else None


def _held_ipv6(old: object, v6only: bool | None) -> Conflict | None:
    """An IPv4 address is wanted, and an IPv6 socket is there."""
    if not isinstance(old, IPv6Address) or int(old) != 0 or v6only:
        return None
    return Conflict.HELD_DUAL_STACK if v6only is False else Conflict.PERHAPS_DUAL_STACK


@lru_cache(maxsize=1 << 14)
def _ipv4(literal: str) -> int | None:
    """The IPv4 address that a literal stands for, as a number; None for a real IPv6 one."""
    address = _parsed(literal)
    if isinstance(address, IPv6Address):
        return int(address.ipv4_mapped) if address.ipv4_mapped is not None else None
    return int(address)


@lru_cache(maxsize=1 << 14)
def _parsed(literal: str) -> IPv4Address | IPv6Address:
    """Remembered: a table of sockets has few addresses, many times."""
    return ip_address(literal)
