"""The addresses of a network namespace in /proc/PID/net/fib_trie and if_inet6 (fib_trie.c, addrconf.c)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import IPv6Address

_LOCAL = re.compile(r"\|-- ([0-9.]+)\n(?:\s+/\d+ (?!host LOCAL).*\n)*\s+/32 host LOCAL")
_GLOBAL = "00"
"""Scope of an IPv6 address that is neither the host's own nor the link's (IPV6_ADDR_SCOPE_MASK, net/ipv6.h)."""


def ipv4(text: str) -> Iterator[str]:
    """The addresses in fib_trie that are the namespace's own, each once, without loopback."""
    yield from (found for found in dict.fromkeys(_LOCAL.findall(text)) if not found.startswith("127."))


def ipv6(text: str) -> Iterator[str]:
    """The addresses in if_inet6 without those of loopback and of one link; ValueError when it is no such table."""
    for line in text.splitlines():
        address, _index, _length, scope, *_ = line.split()
        if scope == _GLOBAL:
            yield str(IPv6Address(bytes.fromhex(address)))
