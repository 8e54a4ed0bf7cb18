"""resolv.conf as the resolver of glibc reads it (resolv.conf(5), resolv/res_init.c)."""

from __future__ import annotations

from ipaddress import ip_address

from msgspec import Struct

_MOST_SERVERS = 3
_LIMITS = {"ndots": 15, "timeout": 30, "attempts": 5}
"""RES_MAXNDOTS, RES_MAXRETRANS, RES_MAXRETRY (resolv.h)."""


class ResolvConf(Struct, frozen=True):
    """Whom the resolver asks, and for which names."""

    servers: tuple[str, ...] = ("127.0.0.1",)
    search: tuple[str, ...] = ()
    ndots: int = 1
    timeout: int = 5
    attempts: int = 2
    by_tcp: bool = False
    no_aaaa: bool = False


def parse_resolv(content: bytes) -> ResolvConf:
    """A keyword must start its line; of search and domain the last line counts, of nameserver the first three."""
    servers: list[str] = []
    search: tuple[str, ...] = ()
    options: list[str] = []
    for line in content.decode("utf-8", "backslashreplace").splitlines():
        keyword, *words = line.split() or ("",)
        if not line.startswith(keyword) or not words:
            continue
        if keyword == "nameserver" and _is_address(words[0]):
            servers.append(words[0])
        elif keyword == "search":
            search = tuple(words)
        elif keyword == "domain":
            search = (words[0],)
        elif keyword == "options":
            options += words
    numbers = {name: _number(options, name) for name in _LIMITS}
    return ResolvConf(
        servers=tuple(servers[:_MOST_SERVERS]) or ("127.0.0.1",),
        search=search,
        ndots=1 if numbers["ndots"] is None else numbers["ndots"],
        timeout=numbers["timeout"] or 5,
        attempts=numbers["attempts"] or 2,
        by_tcp="use-vc" in options,
        no_aaaa="no-aaaa" in options,
    )


def _is_address(word: str) -> bool:
    try:
        ip_address(word)
    except ValueError:
        return False
    return True


def _number(options: list[str], name: str) -> int | None:
    """Of the last option of this name, no larger than glibc allows."""
    told = [word.partition(":")[2] for word in options if word.startswith(f"{name}:")]
    numbers = [int(text) for text in told if text.isascii() and text.isdecimal() and len(text) < 10]
    return min(numbers[-1], _LIMITS[name]) if numbers else None
