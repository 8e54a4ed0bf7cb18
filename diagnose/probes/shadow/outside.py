"""The network as the copy has it: packets put on the far end of a cable whose near end is the machine's interface."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Iterator

from diagnose.model.network import Endpoint, SocketRow, is_wildcard
from diagnose.probes.shadow.machine import LocalAddress

_ANYWHERE = {socket.AF_INET: "198.51.100.77", socket.AF_INET6: "2001:db8::77"}
"""Addresses that belong to nobody (RFC 5737, RFC 3849)."""
_ETHERTYPES = {socket.AF_INET: 0x0800, socket.AF_INET6: 0x86DD}
_TCP, _SYN = 6, 0x02
UNIVERSE = 0
"""RT_SCOPEUNIVERSE."""


def face(addresses: Iterable[LocalAddress]) -> tuple[LocalAddress, ...]:
    """The first address of each family by which the network knows this machine."""
    found: dict[int, LocalAddress] = {}
    for address in addresses:
        if address.interface != "lo" and address.scope == UNIVERSE:
            found.setdefault(address.family, address)
    return tuple(found.values())


def doors(listeners: Iterable[SocketRow], known_as: Iterable[LocalAddress]) -> list[Endpoint]:
    """Where the network could reach a listener of this machine, if the rules let it."""
    faces = {address.family: address.address for address in known_as}
    found: set[Endpoint] = set()
    for row in listeners:
        family = socket.AF_INET if row.family == "ipv4" else socket.AF_INET6
        own = faces.get(family)
        if own is not None and (is_wildcard(row.local.address) or row.local.address == own):
            found.add(Endpoint(own, row.local.port))
        if row.local.address == "::" and row.v6only is False and socket.AF_INET in faces:
            found.add(Endpoint(faces[socket.AF_INET], row.local.port))
    return sorted(found)


class Cable:
    """The far end of the interface's cable in this namespace; what is sent on it the machine receives."""

    def __init__(self, near: str, far: str) -> None:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
            sock.bind((near, 0))
            self._near = bytes(sock.getsockname()[4])
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC)
        self._socket.bind((far, 0))
        self._port = 40000

    def close(self) -> None:
        """Give the socket back."""
        self._socket.close()

    def knock(self, door: Endpoint, address: str | None = None, port: int = 0) -> Endpoint:
        """Sends a SYN there from this address and port, or from somewhere on the network; where from."""
        self._port += 1
        family = socket.AF_INET6 if ":" in door.address else socket.AF_INET
        source = Endpoint(address or _ANYWHERE[family], port or self._port)
        self._socket.send(
            self._near + b"\x02netd" + b"\0" + struct.pack(">H", _ETHERTYPES[family]) + _syn(source, door)
        )
        return source


def _syn(source: Endpoint, target: Endpoint) -> bytes:
    """An IP packet with a TCP SYN (RFC 9293, RFC 791, RFC 8200)."""
    family = socket.AF_INET6 if ":" in target.address else socket.AF_INET
    ends = socket.inet_pton(family, source.address) + socket.inet_pton(family, target.address)
    options = b"\x02\x04\x05\xb4"
    segment = struct.pack(">HHIIBBHHH", source.port, target.port, 1, 0, 6 << 4, _SYN, 64240, 0, 0) + options
    pseudo = ends + struct.pack(">II", len(segment), _TCP)
    segment = segment[:16] + struct.pack(">H", _checksum(pseudo + segment)) + segment[18:]
    if family == socket.AF_INET6:
        return struct.pack(">IHBB", 6 << 28, len(segment), _TCP, 64) + ends + segment
    header = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(segment), 1, 0x4000, 64, _TCP, 0) + ends
    return header[:10] + struct.pack(">H", _checksum(header)) + header[12:] + segment


def _checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    total = sum(_words(data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _words(data: bytes) -> Iterator[int]:
    return (word for (word,) in struct.iter_unpack(">H", data + b"\0" * (len(data) % 2)))
