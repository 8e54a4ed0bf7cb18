"""The command lines of pasta and slirp4netns: which ports they forward, and which network namespace they lead to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ipaddress import ip_address
from typing import NamedTuple

from diagnose.model.network import Endpoint

_PASTA_WORDS = (
    "-a --address -n --netmask -M --mac-addr -m --mtu -g --gateway -i --interface -o --outbound -D --dns -S --search "
    "-H --hostname --fqdn -l --log-file --log-size --runas -p --pcap -P --pid -t --tcp-ports -u --udp-ports "
    "-T --tcp-ns -U --udp-ns --userns --netns -I --ns-ifname --ns-mac-addr --map-host-loopback --map-guest-addr "
    "--dns-forward --dns-host --outbound-if4 --outbound-if6 -F --fd"
)
_PASTA_VALUES = frozenset(_PASTA_WORDS.split())
"""pasta's options that take a word (pasta(1))."""
_SLIRP_WORDS = (
    "-e --exit-fd -r --ready-fd -m --mtu --cidr --netns-type --userns-path --outbound-addr --outbound-addr6 "
    "-a --api-socket --macaddress"
)
_SLIRP_VALUES = frozenset(_SLIRP_WORDS.split())
"""slirp4netns's (slirp4netns(1))."""


class Forward(NamedTuple):
    """A port of the host, and the one that it leads to."""

    listens: Endpoint
    port: int


class Leading(NamedTuple):
    """Where a command line leads: to the namespace of a process, or to one that is mounted somewhere."""

    pid: int = 0
    path: str = ""


def pasta_forwards(arguments: Sequence[str]) -> tuple[Forward, ...]:
    """The TCP ports that pasta was told to forward one by one (-t); ranges included, `all` and `auto` not."""
    specifications = (value for name, value in _options(arguments, _PASTA_VALUES) if name in ("-t", "--tcp-ports"))
    return tuple(forward for one in specifications for forward in _forwards(one))


def pasta_leads(arguments: Sequence[str]) -> Leading:
    """By --netns, else by the pid that stands alone."""
    options = list(_options(arguments, _PASTA_VALUES))
    named = next((value for name, value in options if name == "--netns"), "")
    if named:
        return Leading(path=named if "/" in named else f"/run/netns/{named}")
    alone = [value for name, value in options if name == ""]
    return Leading(pid=int(alone[0])) if len(alone) == 1 and _is_pid(alone[0]) else Leading()


def slirp_leads(arguments: Sequence[str]) -> Leading:
    """The first word that stands alone: a pid, or with --netns-type=path a path (slirp4netns(1))."""
    alone = [value for name, value in _options(arguments, _SLIRP_VALUES) if name == ""]
    if not alone:
        return Leading()
    return Leading(pid=int(alone[0])) if _is_pid(alone[0]) else Leading(path=alone[0])


def _is_pid(word: str) -> bool:
    return word.isascii() and word.isdigit() and 0 < int(word) < 1 << 32


def _options(arguments: Sequence[str], with_value: frozenset[str]) -> Iterator[tuple[str, str]]:
    """Name and value, as getopt_long(3) reads them; a word that stands alone has no name."""
    rest = iter(arguments)
    for argument in rest:
        name, equals, value = argument.partition("=")
        if not argument.startswith("-"):
            if argument:
                yield "", argument
        elif argument.startswith("--") and equals:
            yield name, value
        elif argument in with_value:
            yield argument, next(rest, "")
        elif not argument.startswith("--") and argument[:2] in with_value:
            yield argument[:2], argument[2:]
        else:
            yield argument, ""


def _forwards(specification: str) -> Iterator[Forward]:
    """`[ADDRESS][%INTERFACE]/PORTS` or `PORTS`: nothing where it is not understood whole."""
    where, slash, ports = specification.rpartition("/")
    address = where.partition("%")[0] if slash else ""
    try:
        listens = (str(ip_address(address)),) if address else ("0.0.0.0", "::")
        pairs = [pair for part in ports.split(",") for pair in _pairs(part)]
    except ValueError:
        return
    for outside, inside in pairs:
        yield from (Forward(Endpoint(one, outside), inside) for one in listens)


def _pairs(part: str) -> Iterator[tuple[int, int]]:
    """`22`, `22:23`, `22-80`, `22-80:32-90`; ValueError for anything else (`all`, `auto`, `none`, exclusions)."""
    outer, colon, inner = part.partition(":")
    outside = _range(outer)
    inside = _range(inner) if colon else outside
    if len(outside) != len(inside):
        raise ValueError(f"{part}: two ranges of different lengths")
    yield from zip(outside, inside, strict=True)


def _range(text: str) -> range:
    first, dash, last = text.partition("-")
    low, high = int(first), int(last if dash else first)
    if not 0 < low <= high < 65536:
        raise ValueError(f"{text} is no range of ports")
    return range(low, high + 1)
