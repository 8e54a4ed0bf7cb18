"""A name asked of that side's DNS servers, from its network namespace, as glibc's resolver asks (res_query(3))."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from enum import Enum, auto
from typing import NamedTuple

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.query
import dns.rcode
import dns.rdatatype

from diagnose.parse.resolv import ResolvConf

PORT = 53
_KNOWS = dns.flags.AA | dns.flags.RA


class Ending(Enum):
    """How a question ended (h_errno of gethostbyname(3))."""

    FOUND = auto()
    NO_DATA = auto()
    """The name exists, without an address."""
    NOT_FOUND = auto()
    SERVER_FAILED = auto()
    SILENT = auto()
    """No server answered."""


class Answer(NamedTuple):
    """The addresses, IPv4 first, in the order of the answer."""

    ending: Ending
    addresses: tuple[str, ...] = ()


def ask(host: str, conf: ResolvConf, *, musl: bool = False, port: int = PORT) -> Answer:
    """The name as it stands and with the search domains, in the order that its dots ask for."""
    seen: list[Ending] = []
    for name in _candidates(host, conf, musl=musl):
        answer = _addresses(name, conf, port)
        if answer.ending in (Ending.FOUND, Ending.SILENT):
            return answer
        seen.append(answer.ending)
    return Answer(next((one for one in (Ending.NO_DATA, Ending.SERVER_FAILED) if one in seen), Ending.NOT_FOUND))


def _candidates(host: str, conf: ResolvConf, *, musl: bool) -> Iterator[dns.name.Name]:
    """The fully qualified names; one that is none (a label beyond 63 bytes) is left out.

    res_search, resolv/res_query.c; musl searches no domain for a name with enough dots (name_from_dns_search,
    src/network/lookup_name.c).
    """
    absolute, dots = host.endswith("."), host.count(".")
    as_it_stands_first = absolute or dots >= conf.ndots
    names = [] if absolute or (musl and as_it_stands_first) else [f"{host}.{domain}" for domain in conf.search]
    names.insert(0 if as_it_stands_first else len(names), host)
    for name in names:
        try:
            yield dns.name.from_text(name)
        except dns.exception.DNSException:
            continue


def _addresses(name: dns.name.Name, conf: ResolvConf, port: int) -> Answer:
    """A and AAAA; where nobody answers the first, nobody is asked the second."""
    first = _one(name, dns.rdatatype.A, conf, port)
    if first.ending is Ending.SILENT or conf.no_aaaa:
        return first
    second = _one(name, dns.rdatatype.AAAA, conf, port)
    addresses = first.addresses + second.addresses
    if addresses:
        return Answer(Ending.FOUND, addresses)
    endings = (first.ending, second.ending)
    order = (Ending.NO_DATA, Ending.SERVER_FAILED, Ending.SILENT, Ending.NOT_FOUND)
    return Answer(next(one for one in order if one in endings))


def _one(name: dns.name.Name, kind: dns.rdatatype.RdataType, conf: ResolvConf, port: int) -> Answer:
    """Every server in turn, as often as resolv.conf says, until one gives an answer."""
    ending = Ending.SILENT
    for turn in range(conf.attempts):
        seconds = conf.timeout if not turn else max(1, (conf.timeout << turn) // len(conf.servers))
        for server in conf.servers:
            try:
                response = _exchange(dns.message.make_query(name, kind), server, port, seconds, by_tcp=conf.by_tcp)
            except (OSError, EOFError, dns.exception.DNSException):
                continue
            answer = _read(response)
            if answer.ending is not Ending.SERVER_FAILED:
                return answer
            ending = Ending.SERVER_FAILED
    return Answer(ending)


def _exchange(
    query: dns.message.Message, server: str, port: int, seconds: float, *, by_tcp: bool
) -> dns.message.Message:
    """OSError, EOFError and DNSException: no answer. A connected socket hears at once that nobody serves the port."""
    if by_tcp:
        return dns.query.tcp(query, server, seconds, port)
    ends = time.monotonic() + seconds
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.connect((server, port))
        response = dns.query.udp(query, server, seconds, port, sock=sock, ignore_unexpected=True)
    if not response.flags & dns.flags.TC:
        return response
    return dns.query.tcp(query, server, max(ends - time.monotonic(), 0.001), port)


def _read(response: dns.message.Message) -> Answer:
    code = response.rcode()
    if code == dns.rcode.NXDOMAIN:
        return Answer(Ending.NOT_FOUND)
    if code != dns.rcode.NOERROR or not isinstance(response, dns.message.QueryMessage):
        return Answer(Ending.SERVER_FAILED)
    try:
        found = response.resolve_chaining().answer
    except dns.exception.DNSException:
        return Answer(Ending.SERVER_FAILED)
    addresses = tuple(row.address for row in found) if found is not None else ()
    if not addresses and not response.answer and not response.additional and not response.flags & _KNOWS:
        return Answer(Ending.SERVER_FAILED)  # it only refers to others: res_send.c goes on to the next server
    return Answer(Ending.FOUND if addresses else Ending.NO_DATA, addresses)
