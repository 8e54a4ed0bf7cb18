"""Which listener a dialled address reaches, and which attempts matter."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum, auto
from ipaddress import IPv6Address, ip_address

from diagnose.model.attempt import Attempt
from diagnose.model.finding import Severity
from diagnose.model.network import SocketRow, TcpState, family_of, is_loopback, is_wildcard
from diagnose.model.snapshot import Snapshot
from diagnose.model.target import Intent


class Coverage(Enum):
    """Whether a listener takes connections to an address."""

    YES = auto()
    NO = auto()
    UNKNOWN = auto()
    """An IPv6 wildcard whose v6only flag could not be read, seen from IPv4."""
    OTHER_DEVICE = auto()
    """It would, but is bound to a network device."""


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


def failing(snapshot: Snapshot) -> tuple[Attempt, ...]:
    """The attempts that did not work, the ones that the user meets first, first."""
    return tuple(one for one in snapshot.attempts if not one.outcome.works)


def severity(snapshot: Snapshot, attempt: Attempt) -> Severity:
    """A failed address behind the first working one is information; before it, a problem."""
    if snapshot.intent is Intent.BIND:
        return Severity.INFO
    working = first_working(snapshot)
    if working is None or snapshot.attempts.index(attempt) < working:
        return Severity.PROBLEM
    same = [one for one in snapshot.attempts if one.address == attempt.address]
    return Severity.PROBLEM if any(one.outcome.works for one in same) else Severity.INFO
