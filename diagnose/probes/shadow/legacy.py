"""iptables-legacy's tables in the kernel: read and written as the tool does (linux/netfilter_ipv4/ip_tables.h)."""

from __future__ import annotations

import errno
import socket

from msgspec import Struct

from diagnose.parse import xtables
from diagnose.parse.nfnetlink import BYTE_ORDER
from diagnose.parse.xtables import Block
from diagnose.probes.shadow import libc

_SO_INFO, _SO_ENTRIES, _SO_REPLACE = 64, 65, 64
_MANY = 1 << 26
"""Bytes of one table that are read at most."""


class Side(Struct, frozen=True):
    """One of the two families, which have tables of their own."""

    family: socket.AddressFamily
    level: int
    layout: xtables.Layout


SIDES = (
    Side(socket.AF_INET, socket.IPPROTO_IP, xtables.IPV4),
    Side(socket.AF_INET6, socket.IPPROTO_IPV6, xtables.IPV6),
)


def read(side: Side, table: str) -> Block:
    """One table as it stands; OSError with the kernel's errno, ValueError when it is not what the header describes."""
    with socket.socket(side.family, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.IPPROTO_RAW) as sock:
        for _ in range(5):
            info = _info(sock, side, table)
            try:
                return Block(side.layout, info, _entries(sock, side, info))
            except OSError as error:
                if error.errno != errno.EAGAIN:  # the table's size changed between the two calls
                    raise
    raise InterruptedError(errno.EINTR, f"table {table} changed while it was read")


def write(side: Side, block: Block) -> None:
    """Makes the table of the current namespace this one; OSError with the kernel's errno."""
    with socket.socket(side.family, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.IPPROTO_RAW) as sock:
        current = _info(sock, side, block.info.table)
        head, entries = xtables.replacement(block, current)
        libc.replace_table(sock.fileno(), side.level, _SO_REPLACE, head, current.entries, entries)


def _info(sock: socket.socket, side: Side, table: str) -> xtables.Info:
    request = table.encode()[:31]
    return xtables.info(libc.read_option(sock.fileno(), side.level, _SO_INFO, request, xtables.INFO_SIZE))


def _entries(sock: socket.socket, side: Side, info: xtables.Info) -> bytes:
    if info.size > _MANY:
        raise OSError(errno.EFBIG, f"table {info.table} has {info.size} bytes, more than is read at most")
    request = info.table.encode().ljust(32, b"\0") + info.size.to_bytes(4, BYTE_ORDER)
    size = xtables.ENTRIES_HEADER + info.size
    return libc.read_option(sock.fileno(), side.level, _SO_ENTRIES, request, size, xtables.ENTRIES_HEADER)
