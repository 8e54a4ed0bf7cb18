"""Names as that side's C library would answer them, without a line of its code: its files, its order, its DNS servers.

What its libraries would add (the modules of nsswitch.conf, nss(5)) cannot be had without running them as root, and is
never guessed: an answer that one of them might have given first is uncertain, and no answer is no answer then.
localhost is a name like any other here, as it is for glibc and musl: the hosts file has it or has it not.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from diagnose.analysis.address_order import Policy, Reach, in_order, policy
from diagnose.model.fact import Fact, Known, Reason, Unknown
from diagnose.model.names import HostsFile, Resolution, ResolvedAddress, ResolverConfig
from diagnose.model.network import family_of
from diagnose.parse.hosts import parse_hosts, starts_with_bom
from diagnose.parse.nsswitch import (
    Service,
    parse_gai,
    parse_nameservers,
    parse_nsswitch_hosts,
    parse_services,
    quoted_hosts_line,
)
from diagnose.parse.resolv import ResolvConf, parse_resolv
from diagnose.probes.names import ask_in_child
from diagnose.probes.side_files import GAI, HOST_CONF, HOSTS, NSSWITCH, RESOLV, SideFile, SideFiles

if TYPE_CHECKING:
    from diagnose.probes.side_dns import Ending

USUAL = (Service("files"), Service("dns"))
"""Where no nsswitch.conf says otherwise (nss/nss_database.c), and what musl does always."""
_LOCAL_ONLY = ("mdns", "mdns4", "mdns6", "mdns_minimal", "mdns4_minimal", "mdns6_minimal")
"""Modules that answer for names below .local, and leave all others to the next service."""


class _Library(Struct, frozen=True):
    """All that decides what a name means over there."""

    hosts: HostsFile
    services: tuple[Service, ...]
    dns: ResolvConf
    policy: Policy
    every_line: bool
    """All lines of the hosts file with the name count, not the first alone."""
    exact: bool
    """The hosts file is compared by the letter."""
    musl: bool


def ask(files: SideFiles, names: Sequence[str], deadline: float) -> dict[str, Fact[Resolution]]:
    """What each name means there; call it from its network namespace, and before any thread starts."""
    library = _library(files)
    if isinstance(library, Unknown):
        return dict.fromkeys(names, library)
    return ask_in_child(names, deadline, lambda host: _answered(host, library.value))


def hosts_file(files: SideFiles) -> Fact[HostsFile]:
    """Its hosts file."""
    match files.files[HOSTS]:
        case Known(value=file):
            return Known(_hosts(file, files))
        case Unknown() as unknown:
            return unknown


def configuration(files: SideFiles) -> Fact[ResolverConfig]:
    """The files that steer its resolver."""
    match files.content(NSSWITCH), files.content(RESOLV), files.content(GAI):
        case Known(value=nsswitch), Known(value=resolv), Known(value=gai):
            servers = parse_nameservers(resolv)
            if files.musl:
                return Known(ResolverConfig(("files", "dns"), servers, ()))
            services, line = parse_nsswitch_hosts(nsswitch), quoted_hosts_line(nsswitch)
            return Known(ResolverConfig(services, servers, parse_gai(gai), line))
        case contents:
            return next(one for one in contents if isinstance(one, Unknown))


def _hosts(file: SideFile, files: SideFiles) -> HostsFile:
    readable = files.readable(file)
    content = file.content if readable else b""
    return HostsFile(
        file.path,
        file.mode,
        file.owner,
        readable=readable,
        bom=starts_with_bom(content),
        entries=parse_hosts(content),
        exists=file.exists,
        inside=files.inside,
    )


def _library(files: SideFiles) -> Fact[_Library]:
    """Unknown when one of the files that decide could not be read."""
    hosts = hosts_file(files)
    if isinstance(hosts, Unknown):
        return hosts
    contents = [files.content(path) for path in (NSSWITCH, RESOLV, GAI, HOST_CONF)]
    unread = next((one for one in contents if isinstance(one, Unknown)), None)
    if unread is not None:
        return unread
    nsswitch, resolv, gai, host_conf = (one.value for one in contents if isinstance(one, Known))
    return Known(
        _Library(
            hosts=hosts.value,
            services=USUAL if files.musl else parse_services(nsswitch) or USUAL,
            dns=parse_resolv(resolv),
            policy=policy(() if files.musl else parse_gai(gai)),
            every_line=files.musl or _multi(host_conf),
            exact=files.musl,
            musl=files.musl,
        )
    )


def _multi(content: bytes) -> bool:
    """Whether host.conf says `multi on`: without it glibc takes the first line of a name only (host.conf(5))."""
    words = [line.split() for line in content.decode("utf-8", "backslashreplace").splitlines()]
    told = [each[1].lower() for each in words if len(each) >= 2 and each[0] == "multi"]
    return bool(told) and told[-1] == "on"


def _answered(host: str, library: _Library) -> Fact[Resolution]:
    """The services in turn, until one has the answer; runs in the child."""
    started = time.monotonic()
    try:
        asked = host if host.isascii() else host.encode("idna").decode("ascii")
    except UnicodeError:
        return Known(Resolution("", (), _ms(started), "EAI_IDN_ENCODE", source="files and DNS"))
    doubts: list[str] = []
    error = "EAI_NONAME"
    for service in library.services:
        addresses: tuple[str, ...] = ()
        match service.name:
            case "files":
                addresses, status, error = _from_hosts(asked, library)
            case "dns":
                addresses, status, error = _from_dns(asked, library)
            case name if name in _LOCAL_ONLY and not asked.lower().rstrip(".").endswith(".local"):
                status = "unavail"
            case name:
                doubts.append(name)
                status = "unavail"
        follows = service.after(status)
        if addresses and follows != "return":
            doubts.append(f"{service.name} [SUCCESS={follows}]")
        if addresses:
            return Known(_resolution(addresses, library, started, doubts))
        if follows == "return" and service.name not in doubts:
            break
    if doubts:
        return Unknown(
            Reason.NOT_VISIBLE,
            f"nsswitch.conf asks {', '.join(doubts)} for names, which is not run from outside, and nobody else knows "
            "this one",
        )
    return Known(Resolution("", (), _ms(started), error, source="files and DNS"))


def _resolution(addresses: tuple[str, ...], library: _Library, started: float, doubts: Sequence[str]) -> Resolution:
    ordered = _in_order(tuple(dict.fromkeys(addresses)), library.policy)
    found = tuple(ResolvedAddress(address, family_of(address)) for address in ordered)
    return Resolution("", found, _ms(started), source="files and DNS", doubts=tuple(doubts))


def _from_hosts(host: str, library: _Library) -> tuple[tuple[str, ...], str, str]:
    """Addresses, status and what getaddrinfo would say if this was the last service."""
    file = library.hosts
    if not file.readable:
        return (), "unavail", "EAI_NONAME"
    lines = [one for one in file.mapping(host) if not library.exact or host in one.names]
    found = tuple(one.address for one in (lines if library.every_line else lines[:1]))
    return found, "success" if found else "notfound", "EAI_NONAME"


def _from_dns(host: str, library: _Library) -> tuple[tuple[str, ...], str, str]:
    """Addresses, status and what getaddrinfo would say if this was the last service."""
    from diagnose.probes.side_dns import Ending, ask  # 60 ms, and only where the files do not have the name

    answer = ask(host, library.dns, musl=library.musl)
    statuses: dict[Ending, tuple[str, str]] = {
        Ending.FOUND: ("success", ""),
        Ending.NO_DATA: ("notfound", "EAI_NODATA"),
        Ending.NOT_FOUND: ("notfound", "EAI_NONAME"),
        Ending.SERVER_FAILED: ("unavail", "EAI_AGAIN"),
        Ending.SILENT: ("unavail", "EAI_AGAIN"),
    }
    return answer.addresses, *statuses[answer.ending]


def _in_order(addresses: tuple[str, ...], rules: Policy) -> tuple[str, ...]:
    if len(addresses) < 2:
        return addresses
    prefixes = _prefixes() if sum(":" not in address for address in addresses) > 1 else {}
    sources = {address: _source(address) for address in addresses}
    return in_order(
        [Reach(address, source, prefixes.get(source or "", 32)) for address, source in sources.items()], rules
    )


def _source(address: str) -> str | None:
    """Our address for this one: a connect of UDP asks the routes, and sends nothing."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            base, _, zone = address.partition("%")
            sock.connect((base, 53, 0, socket.if_nametoindex(zone)) if zone else (base, 53))
            return str(sock.getsockname()[0]).partition("%")[0]
    except OSError:
        return None


def _prefixes() -> dict[str, int]:
    """The length of the network that each of our IPv4 addresses is in."""
    import netifaces

    found: dict[str, int] = {}
    for name in netifaces.interfaces():
        rows: Any = netifaces.ifaddresses(name)
        for row in rows.get(netifaces.AF_INET, ()):
            mask = row.get("mask") or row.get("netmask")
            if row.get("addr") and mask:
                found[row["addr"]] = int.from_bytes(socket.inet_aton(mask), "big").bit_count()
    return found


def _ms(started: float) -> float:
    return round((time.monotonic() - started) * 1000, 3)
