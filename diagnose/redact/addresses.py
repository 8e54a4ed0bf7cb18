"""Public addresses and link-layer addresses, each replaced by one that nobody has; the others mean the same everywhere.

Neighbours stay neighbours: what shares a /24 (IPv4) or a /64 (IPv6) does so afterwards. An IPv6 address that was made
of a link-layer address (RFC 4291, appendix A) gets the one that its replacement would have made.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address

_ROOM4 = ((int(IPv4Address("198.18.0.0")), 512), (int(IPv4Address("240.0.0.0")), 1 << 19))
"""Where a /24 is taken from, and how many there are: benchmarks (RFC 2544), and what is reserved (RFC 1112)."""
_ROOM6 = int(IPv6Address("2001:db8::"))
"""Documentation (RFC 3849)."""
_HOST6 = (1 << 64) - 1
_EUI = 0xFFFE << 24
_EUI_MASK = 0xFFFF << 24
_FLIPPED = 0x02 << 56
_LINK = re.compile(r"(?:[0-9a-f]{2}:){5}[0-9a-f]{2}", re.IGNORECASE)
_OWN_LINK = "02:00:00:"
_MEANT6 = ("2002:", "2001:0:", "2001::")
"""6to4 and Teredo, of which the kind of an address decides its order (RFC 6724)."""
_SHARED = 100 << 24 | 64 << 16
"""100.64.0.0/10 (RFC 6598)."""


def is_public4(address: IPv4Address) -> bool:
    """Whether it is one machine's in the whole world."""
    shared = int(address) >> 22 == _SHARED >> 22
    return not (shared or address.is_private or address.is_multicast or address.is_reserved or address.is_link_local)


def is_public6(address: IPv6Address) -> bool:
    """The same; an IPv4-mapped one counts as the IPv4 address in it."""
    if address.ipv4_mapped is not None:
        return is_public4(address.ipv4_mapped)
    if address.is_multicast or address.is_loopback or address.is_unspecified or address.is_link_local:
        return False
    top = int(address) >> 112
    own = top >> 9 == 0xFC >> 1 or top >> 6 == 0xFEC0 >> 6 or top == 0xFE00
    return not own and int(address) >> 96 != _ROOM6 >> 96


class Addresses:
    """The replacements that were given so far."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._given: dict[str, str] = {}
        self._nets: dict[int, int] = {}
        self._hosts: dict[int, dict[int, int]] = {}
        self._links: dict[str, str] = {}
        self._taken = frozenset(_net_of(one) for one in taken)
        """Networks that the snapshot has already, of those that are given: one is not given twice."""
        self._next = 0
        self.also: tuple[str, ...] = ()
        """Texts that no address may contain, public or not."""

    @property
    def given(self) -> dict[str, str]:
        """Each replacement by what it stands for."""
        return self._given | self._links

    def address(self, text: str, prefix: str = "") -> str:
        """The replacement of an address without its zone; itself where it stays. ValueError: it is none.

        `prefix`: how many bits count, where it is a network.
        """
        found = ip_address(text)
        if prefix == "0" or (":" in text and prefix in ("16", "32", "96") and int(found) & _HOST6 == 0):
            return text  # what whole kinds of addresses have in common
        wanted = any(one in text for one in self.also) and not self._is_own(found)
        if isinstance(found, IPv4Address):
            return self._remember(text, str(self._v4(found))) if wanted or is_public4(found) else text
        mapped = found.ipv4_mapped
        if mapped is not None:
            return self._remember(text, f"::ffff:{self._v4(mapped)}") if wanted or is_public4(mapped) else text
        if wanted or is_public6(found):
            return self._remember(text, self._v6(text, found))
        changed = self._of_link(found)
        return text if changed == found else self._remember(text, str(changed))

    def link(self, text: str) -> str:
        """The replacement of a link-layer address."""
        low = text.lower()
        if low.startswith((_OWN_LINK, "33:33:", "01:00:5e:", "01:80:c2:")) or low in (
            "00:00:00:00:00:00",
            "ff:ff:ff:ff:ff:ff",
        ):
            return text
        if low not in self._links:
            number = len(self._links) + 1
            self._links[low] = ":".join(("02:00:00", *(f"{number >> shift & 255:02x}" for shift in (16, 8, 0))))
        return self._links[low]

    @staticmethod
    def is_link(text: str) -> bool:
        """Six bytes with colons between them."""
        return bool(_LINK.fullmatch(text))

    def _remember(self, text: str, token: str) -> str:
        self._given[text] = token
        return token

    @staticmethod
    def _is_own(address: IPv4Address | IPv6Address) -> bool:
        return _net_of(str(address)) is not None

    def _v4(self, address: IPv4Address) -> IPv4Address:
        net, host = int(address) >> 8, int(address) & 255
        return IPv4Address(self._base4(self._number(net)) | self._host(net, host, 255))

    def _v6(self, text: str, address: IPv6Address) -> str:
        net, host = int(address) >> 64, int(address) & _HOST6
        number = self._number(net + (1 << 32))
        low = self._host(net + (1 << 32), host, _HOST6)
        if text.lower().startswith(_MEANT6):
            kept = int(address) >> 112 << 112
            return str(IPv6Address(kept | 0xDB8 << 96 | number << 64 | low))
        return str(IPv6Address(_ROOM6 | number << 64 | low))

    def _of_link(self, address: IPv6Address) -> IPv6Address:
        """A local one with a link-layer address in it gets the other link-layer address."""
        low = int(address) & _HOST6
        if low & _EUI_MASK != _EUI or int(address) >> 64 == 0:
            return address
        bits = low ^ _FLIPPED
        digits = f"{bits >> 40 & 0xFFFFFF:06x}{bits & 0xFFFFFF:06x}"
        link = self.link(":".join(digits[at : at + 2] for at in range(0, 12, 2))).replace(":", "")
        new = (int(link[:6], 16) << 40 | _EUI | int(link[6:], 16)) ^ _FLIPPED
        return IPv6Address(int(address) >> 64 << 64 | new)

    def _number(self, net: int) -> int:
        if net not in self._nets:
            self._next += 1
            while self._next in self._taken:
                self._next += 1
            self._nets[net] = self._next
        return self._nets[net]

    def _host(self, net: int, host: int, last: int) -> int:
        """The first and the last stay what they are: a network's own address, and its broadcast."""
        if host in (0, last):
            return host
        known = self._hosts.setdefault(net, {})
        return known.setdefault(host, len(known) + 1)

    @staticmethod
    def _base4(number: int) -> int:
        first, count = _ROOM4[0]
        if number < count:
            return first + (number << 8)
        return _ROOM4[1][0] + (number - count) % _ROOM4[1][1] * 256


def _net_of(text: str) -> int | None:
    """The number of the network that was given, of an address from one; None: it is not from one."""
    try:
        found = ip_address(text)
    except ValueError:
        return None
    if isinstance(found, IPv4Address):
        first, count = _ROOM4[0]
        return (int(found) - first) >> 8 if 0 <= int(found) - first < count << 8 else None
    return int(found) >> 64 & 0xFFFFFFFF if int(found) >> 96 == _ROOM6 >> 96 else None
