"""An error message of a client or a server -> the target that it is about; nothing else of the text is kept."""

from __future__ import annotations

import re
from dataclasses import dataclass

from diagnose.model.target import Intent, address
from diagnose.parse.endpoints import Endpoint, Nearness, find_endpoints, is_address

LONGEST = 1 << 20
"""Characters of a text that is read."""


@dataclass(frozen=True)
class Meant:
    """The one target that a message is about."""

    target: str
    """As `netdiag run` takes it."""
    intent: Intent


@dataclass(frozen=True)
class Ambiguous:
    """A message that may be about several targets."""

    choices: tuple[Meant, ...]


@dataclass(frozen=True)
class Incomplete:
    """A message about a connection that names no port; the host, where it names one."""

    host: str | None


@dataclass(frozen=True)
class NoError:
    """A text that reports no failed connection."""


Reading = Meant | Ambiguous | Incomplete | NoError


def _any_of(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(patterns), re.IGNORECASE)


_NOT = r"(?:could ?n[o']t|can(?:no|['\u2019])t|unable to|failed to|error(?: while)?|trouble)"
_CONNECT = _any_of(
    r"\bE(?:CONNREFUSED|CONNRESET|CONNABORTED|HOSTUNREACH|NETUNREACH|TIMEDOUT|PIPE|PROTO|NOTFOUND)\b",
    r"\bEAI_\w+|ERR_(?:CONNECTION|EMPTY|SSL|CERT|NAME|PROXY|TUNNEL)\w+",
    r"(?:errno|os error|error|winerror)[ =:]{0,3}(?:111|110|113|101|104|61|60|54|65|10060|10061)\b",
    "refused|timed? ?out|unreachable|no route to host|hang up|broken pipe",
    r"reset by (?:peer|remote)|connection (?:was )?reset|closed (?:the )?connection",
    rf"{_NOT} (?:open(?: tcp)? connection|contact|connect|establish|reach|access|resolve|read response|translate)",
    r"connect(?:ion|ing)?(?:\(\)| call| attempts?)? (?:failed|error)|ConnectionError|ConnectException|connect: ",
    "connect(?:ion)? (?:was |is )?(?:closed|lost|aborted|terminated)",
    r"error \d+ connecting|fetch failed|possible to connect|could not be established|be reached|max retries exceeded",
    "getaddrinfo|not known|no such host|name resolution|UnknownHost",
    r"empty (?:reply|response)|unexpected (?:eof|end)|: EOF\b|wrong version number|handshake",
    r"deadline exceeded|refusing connections|lost connection|network-related|not (?:found or not )?accessible",
    r"(?:verify|invalid|bad|expired|untrusted|self.signed) certificate|\bx509\b|\b(?:SSL|TLS)Error",
    "certificate (?:problem|verif|has expired|is not|signed|validation)|HTTP (?:response|request) to (?:an )?HTTPS",
    "bad gateway|no live upstreams|no servers? available|server selection|NoBrokersAvailable",
    "dial tcp|is not running|is the server running",
)
_BIND = _any_of(
    "EADDRINUSE|listen EACCES|listen EADDRNOTAVAIL|bind EA",
    r"(?:errno|os error|winerror)[ =:]{0,3}(?:98|48|10048|10013)\b",
    r"\b(?:already|is|was|address|connection) in use\b|already being used|is already allocated",
    "already (?:be in use|running|listening)",
    "only one usage of each socket address",
    rf"{_NOT}(?: attempting to)? (?:bind|listen|start (?:the )?(?:server|listener))",
    r"\bbind(?:\(2?\))?(?: to \S{1,60})? failed|\bbind: |- bind\(2\)",
    r"ports? (?:is|are) not available|permission denied.{0,40}\bbind",
)
_CLIENTS_BIND = re.compile(r"\bconnect E(?:ADDRINUSE|ADDRNOTAVAIL)|dial tcp .{0,80}assign requested", re.IGNORECASE)
"""A client that found no local port: it is about a connection."""
_LOOPBACK = frozenset({"127.0.0.1", "::1"})
_WILDCARD = frozenset({"0.0.0.0", "::"})


def read_error(text: str) -> Reading:
    """What an error message is about.

    With a name and an address, the name counts; with a port only, the host is localhost.
    """
    text = text[:LONGEST]
    intents = _intents(text)
    if not intents:
        return NoError()
    endpoints = find_endpoints(text)
    with_port = [one for one in endpoints if one.port is not None]
    if not with_port:
        hosts = {one.host for one in endpoints if one.host}
        return Incomplete(hosts.pop() if len(hosts) == 1 else None)
    hosts_alone = {one.host for one in endpoints if one.port is None and one.host}
    meant = _targets(with_port, hosts_alone)
    choices = tuple(Meant(target, intent) for intent in intents for target in meant)
    return choices[0] if len(choices) == 1 else Ambiguous(choices)


def _intents(text: str) -> tuple[Intent, ...]:
    if _BIND.search(text) and not _CLIENTS_BIND.search(text):
        return (Intent.BIND,)
    return (Intent.CONNECT,) if _CONNECT.search(text) or _CLIENTS_BIND.search(text) else ()


def _targets(endpoints: list[Endpoint], hosts: set[str]) -> tuple[str, ...]:
    """The targets that the message may be about: those that failed, if it says which."""
    failed = [one for one in endpoints if one.nearness is Nearness.FAILED]
    ports = dict.fromkeys(one.port for one in failed or endpoints if one.port is not None)
    return tuple(target for port in ports for target in _of_port(port, endpoints, failed, hosts))


def _of_port(port: int, endpoints: list[Endpoint], failed: list[Endpoint], hosts: set[str]) -> tuple[str, ...]:
    """The targets with this port, by name where one is given."""
    own = [one for one in endpoints if one.port == port]
    names = dict.fromkeys((one.host or "").lower() for one in own if one.is_name)
    if names:
        return tuple(address("", name, port) for name in names)
    addresses = dict.fromkeys(one.host for one in [one for one in failed if one.port == port] or own if one.host)
    alone = {host for host in hosts if not is_address(host)} or hosts
    return _of_hosts([host for host in addresses if host] or sorted(alone), port)


def _of_hosts(hosts: list[str], port: int) -> tuple[str, ...]:
    """The targets with this port; where both families of one place failed, one target stands for both."""
    if not hosts:
        return (str(port),)
    if set(hosts) == _WILDCARD:
        return (address("", hosts[0], port),)
    if set(hosts) == _LOOPBACK:
        return (address("", "localhost", port),)
    return tuple(address("", host, port) for host in hosts)
