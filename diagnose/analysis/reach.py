"""Which listener a dialled address reaches, and which attempts matter."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum, auto
from functools import lru_cache
from ipaddress import IPv6Address, ip_address

from diagnose.model.attempt import Attempt, Outcome
from diagnose.model.fact import Known
from diagnose.model.finding import Severity
from diagnose.model.network import SocketRow, TcpState, family_of, is_loopback, is_wildcard
from diagnose.model.snapshot import Snapshot
from diagnose.model.target import Intent

_ADDRESSES = 1 << 14
"""Of so many it is remembered what they mean: tables of sockets have few, many times."""


class Coverage(Enum):
    """Whether a listener takes connections to an address."""

    YES = auto()
    NO = auto()
    UNKNOWN = auto()
    """An IPv6 wildcard whose v6only flag could not be read, seen from IPv4."""
    OTHER_DEVICE = auto()
    """It would, but is bound to a network device."""


@lru_cache(maxsize=_ADDRESSES)
def unmapped(address: str) -> str:
    """127.0.0.1 for ::ffff:127.0.0.1; everything else as it is, without zone."""
    plain = address.partition("%")[0]
    parsed = ip_address(plain)
    mapped = parsed.ipv4_mapped if isinstance(parsed, IPv6Address) else None
    return str(mapped) if mapped else plain


def covers(row: SocketRow, address: str) -> Coverage:
    """Whether this LISTEN row takes connections to the address (port aside; inet_lookup_listener in the kernel)."""
    wanted, listening = unmapped(address), unmapped(row.local.address)
    if is_wildcard(wanted):  # as a destination it means this machine (ip(7), ipv6(7))
        wanted = "127.0.0.1" if wanted == "0.0.0.0" else "::1"
    if wanted == listening or (is_wildcard(listening) and family_of(wanted) == family_of(listening)):
        return _on_device(row, wanted)
    if listening == "::" and family_of(wanted) == "ipv4":
        if row.v6only is None:
            return Coverage.UNKNOWN
        return Coverage.NO if row.v6only else _on_device(row, wanted)
    return Coverage.NO


def _on_device(row: SocketRow, wanted: str) -> Coverage:
    """A packet to another of this machine's own addresses counts as come in by that address's interface, not by lo."""
    fits = row.device is None or (row.device == "lo" and is_loopback(wanted))
    return Coverage.YES if fits else Coverage.OTHER_DEVICE


def listeners_on(rows: Iterable[SocketRow], port: int) -> tuple[SocketRow, ...]:
    """The LISTEN rows of the port."""
    return tuple(row for row in rows if row.state is TcpState.LISTEN and row.local.port == port)


def reached(rows: Iterable[SocketRow], address: str, port: int) -> tuple[SocketRow, ...]:
    """The listeners that a connect to the address reaches: the exact address before the wildcards."""
    covering = [row for row in listeners_on(rows, port) if covers(row, address) is Coverage.YES]
    exact = [row for row in covering if not is_wildcard(unmapped(row.local.address))]
    return tuple(exact or covering)


def may_be_reached(rows: Iterable[SocketRow], address: str, port: int) -> tuple[SocketRow, ...]:
    """The listeners of which it cannot be excluded that they take the address."""
    return tuple(row for row in listeners_on(rows, port) if covers(row, address) is not Coverage.NO)


def first_working(snapshot: Snapshot) -> int | None:
    """Index of the first attempt that worked."""
    return next((i for i, one in enumerate(snapshot.attempts) if one.outcome.works), None)


def fails_at_once(attempt: Attempt) -> bool:
    """Whether every client gets an error for this address without a wait, and so may go on to the next one.

    An ICMPv6 error that comes while connect(2) still holds the socket is lost on it, as on lo it always does
    (tcp_v6_err, net/ipv6/tcp_ipv6.c): netdiag reads it from the error queue, other clients wait and send again.
    """
    lost = (
        attempt.local and isinstance(attempt.icmp, Known) and any(one.origin == "icmp6" for one in attempt.icmp.value)
    )
    return attempt.outcome in _ERRORS and attempt.ms < _FIRST_RETRANSMISSION and not lost


_ERRORS = (Outcome.REFUSED, Outcome.UNREACHABLE, Outcome.ADDRESS_UNAVAILABLE, Outcome.DENIED)
_FIRST_RETRANSMISSION = 1000.0
"""Milliseconds after which a SYN is sent again (TCP_TIMEOUT_INIT): what comes later was waited for."""


def failing(snapshot: Snapshot) -> tuple[Attempt, ...]:
    """The attempts that did not work, the ones that the user meets first, first."""
    return tuple(one for one in snapshot.attempts if not one.outcome.works)


def severity(snapshot: Snapshot, attempt: Attempt) -> Severity:
    """Behind the first working address information; before it, a warning where clients get an error at once."""
    if snapshot.intent is Intent.BIND:
        return Severity.INFO
    working = first_working(snapshot)
    same = [one for one in snapshot.attempts if one.address == attempt.address]
    if working is None or any(one.outcome.works for one in same):
        return Severity.PROBLEM
    if snapshot.attempts.index(attempt) > working:
        return Severity.INFO
    return Severity.WARNING if all(map(fails_at_once, same)) else Severity.PROBLEM
