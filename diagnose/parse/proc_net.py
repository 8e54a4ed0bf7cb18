"""/proc/net/tcp, tcp6, udp and udp6 as socket rows (proc_net_tcp.rst, net/ipv4/tcp_ipv4.c)."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator
from ipaddress import IPv4Address, IPv6Address

from diagnose.model.network import Endpoint, Family, SocketRow, TcpState

TABLES: tuple[tuple[str, Family], ...] = (("tcp", "ipv4"), ("tcp6", "ipv6"))
"""The files of TCP sockets, each of one family."""
_LISTEN = f"{TcpState.LISTEN:02X}"


def tcp(text: str, family: Family, ports: Collection[int]) -> Iterator[SocketRow]:
    """The rows on one of the local ports, and the listening rows of every port; ValueError when it is no such table."""
    wanted = {f"{port:04X}" for port in ports}
    for fields in _lines(text):
        if fields[3] == _LISTEN or fields[1].rpartition(":")[2] in wanted:
            yield _row(fields, family, TcpState(int(fields[3], 16)))


def connections(text: str, family: Family, peers: Collection[int]) -> Iterator[SocketRow]:
    """The rows with one of these ports at the other end; ValueError when it is no such table."""
    wanted = {f"{port:04X}" for port in peers}
    for fields in _lines(text):
        if fields[2].rpartition(":")[2] in wanted and fields[3] != _LISTEN:
            yield _row(fields, family, TcpState(int(fields[3], 16)))


def udp(text: str, family: Family, ports: Collection[int]) -> Iterator[SocketRow]:
    """The rows on one of the local ports; ValueError when it is no such table."""
    wanted = {f"{port:04X}" for port in ports}
    for fields in _lines(text):
        if fields[1].rpartition(":")[2] in wanted:
            yield _row(fields, family, TcpState(int(fields[3], 16)), drops=int(fields[12]))


def _lines(text: str) -> Iterator[list[str]]:
    """The fields of each line behind the heading: sl, local, remote, st, queues, timer, retransmits, uid, ..."""
    heading, *lines = text.splitlines() or [""]
    if "local_address" not in heading:
        raise ValueError("no heading of a socket table")
    for line in lines:
        fields = line.split()
        if len(fields) < 10:
            raise ValueError(f"a socket row of {len(fields)} fields")
        yield fields


def _row(fields: list[str], family: Family, state: TcpState, drops: int | None = None) -> SocketRow:
    """One row; v6only and device are not in these tables.

    The accept queue of a listener is left at 0: its limit is not told, and a length without a limit means nothing.
    """
    unsent, unread = (int(length, 16) for length in fields[4].split(":"))
    listening = state is TcpState.LISTEN
    return SocketRow(
        local=_endpoint(fields[1]),
        peer=_endpoint(fields[2]),
        state=state,
        family=family,
        inode=int(fields[9]),
        uid=int(fields[7]),
        queue=0 if listening else unread,
        backlog=0 if listening else unsent,
        drops=drops,
    )


def _endpoint(text: str) -> Endpoint:
    """ "0100007F:1F90": 32-bit words in this machine's byte order, and the port."""
    address, _, port = text.rpartition(":")
    words = [address[at : at + 8] for at in range(0, len(address), 8)]
    packed = b"".join(int(word, 16).to_bytes(4, sys.byteorder) for word in words)
    return Endpoint(_literal(packed), int(port, 16))


def _literal(packed: bytes) -> str:
    """The address as inet_ntop(3) writes it, IPv4-mapped addresses with their dotted part."""
    if len(packed) == 4:
        return str(IPv4Address(packed))
    address = IPv6Address(packed)
    return f"::ffff:{address.ipv4_mapped}" if address.ipv4_mapped else str(address)
