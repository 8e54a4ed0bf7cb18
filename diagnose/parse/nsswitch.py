"""The files that steer the resolver: nsswitch.conf(5), resolv.conf(5), gai.conf(5)."""

from __future__ import annotations


def parse_nsswitch_hosts(content: bytes) -> tuple[str, ...]:
    """The services of the hosts line in order, without the [NOTFOUND=return] actions; empty: no such line.

    The last hosts line counts (nss/nss_database.c).
    """
    services: tuple[str, ...] = ()
    for line in _lines(content):
        database, colon, rest = line.partition(":")
        if colon and database.strip() == "hosts":
            services = tuple(_without_actions(rest).split())
    return services


def _without_actions(text: str) -> str:
    before, bracket, rest = text.partition("[")
    return before + _without_actions(" " + rest.partition("]")[2]) if bracket else before


def parse_nameservers(content: bytes) -> tuple[str, ...]:
    """The nameserver lines of resolv.conf in order; the keyword must start the line, and glibc asks the first three."""
    words = (line.split() for line in _text(content).splitlines() if line.startswith("nameserver"))
    return tuple(each[1] for each in words if len(each) >= 2 and each[0] == "nameserver")


def parse_gai(content: bytes) -> tuple[str, ...]:
    """The active lines of gai.conf, each with its white space folded."""
    return tuple(" ".join(line.split()) for line in _lines(content))


def _lines(content: bytes) -> list[str]:
    cut = (line.partition("#")[0].strip() for line in _text(content).splitlines())
    return [line for line in cut if line]


def _text(content: bytes) -> str:
    return content.decode("utf-8", "backslashreplace")
