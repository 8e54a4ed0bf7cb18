"""The end of a connection that was taken for others: in a container, behind docker-proxy or behind a NAT rule.

The kernel completes a connection for a server that does not take it, and so does a forwarder. Whether the server
itself took it shows in the table of its own network namespace, which any user may read through /proc/PID/net.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Collection, Iterable, Iterator

from diagnose.analysis.reach import may_be_reached
from diagnose.model.attempt import Acceptance, Behind
from diagnose.model.container import Forwarder
from diagnose.model.fact import Fact, Known, Reason, Unknown
from diagnose.model.network import Endpoint, Family, SocketRow, TcpState, family_of, is_wildcard
from diagnose.pace import patient
from diagnose.parse import proc_net
from diagnose.probes import forwarders, insides, namespaces, relay_end
from diagnose.probes.forwarders import Relay
from diagnose.probes.namespaces import Namespace

_SURVEY_SECONDS = patient(0.5)
_CONNECT_SECONDS = patient(0.25)
_PAUSE = 0.004
_GRACE = patient(0.1)
"""Seconds for the far end of the connection to appear where a server is there for it; a forwarder dials at once."""
_TABLES: tuple[tuple[str, Family], ...] = (("tcp", "ipv4"), ("tcp6", "ipv6"))


def look(dialled: Endpoint, forwarder: int | None, seconds: float) -> Fact[Behind]:
    """Watches one more connection to the endpoint until the program in there takes it, at most so long.

    `forwarder`: the pid of the forwarder that accepted the first one; 0: some process that is hidden from us may be
    one; None: there is none, and NAT leads to another namespace.
    """
    try:
        found: Fact[Forwarder | None] = Known(None) if forwarder is None else _forwarder(dialled, forwarder)
        relays = _relays(dialled, forwarder, found)
        if isinstance(found, Unknown) and not relays:
            return found
        others = namespaces.survey(_SURVEY_SECONDS)
        if isinstance(others, Unknown):
            return others
        if relays:
            port = found.value.target.port if isinstance(found, Known) and found.value else None
            watched = relay_end.Watch(relays, port, others.value)
            with _connected(dialled) as sock:
                return watched.until_taken(sock, dialled, seconds)
        assert isinstance(found, Known)
        target, program = _far(found.value)
        earlier = _dialling(target)
        wanted = [one for one in others.value if target is None or insides.has_address(one, target.address)]
        with _connected(dialled) as sock:
            watch = _Watch(sock, target, earlier, wanted)
            return watch.until_taken(seconds, program)
    except OSError as error:
        return Unknown(Reason.FAILED, f"one more connection to {dialled}: {error.strerror or error}")
    except ValueError as error:
        return Unknown(Reason.UNPARSABLE, f"/proc/PID/net/tcp: {error}")


def _forwarder(dialled: Endpoint, pid: int) -> Fact[Forwarder | None]:
    """The forwarder with this pid, or where that is 0 the one that says to have the port."""
    match forwarders.look({dialled.port}, _SURVEY_SECONDS):
        case Known(value=found):
            ours = _taking(found, dialled.address) if pid == 0 else [one for one in found if one.pid == pid]
            if len({one.target for one in ours}) > 1:
                return Unknown(Reason.NOT_VISIBLE, "several forwarders say to have the port", "run it again with sudo")
            return Known(ours[0]) if ours else Unknown(Reason.NOT_NEEDED, "no forwarder has the port")
        case Unknown() as unknown:
            return unknown


def _relays(dialled: Endpoint, pid: int | None, found: Fact[Forwarder | None]) -> tuple[Relay, ...]:
    """Those that connect inside another namespace: the one with this pid, else all that may have the port."""
    if pid is None:
        return ()
    if isinstance(found, Known) and found.value is not None:
        pid = found.value.pid
    pids = (pid,) if pid else forwarders.relays_at(dialled.port)
    return tuple(one for one in map(forwarders.relay, pids) if one is not None)


def _far(forwarder: Forwarder | None) -> tuple[Endpoint | None, str | None]:
    """Where it dials, and what it is."""
    return (forwarder.target, f"{forwarder.program} (pid {forwarder.pid})") if forwarder else (None, None)


def _taking(found: Iterable[Forwarder], address: str) -> list[Forwarder]:
    """Those that say to listen where the address leads: the exact one before the wildcards."""
    exact = [one for one in found if one.listens.address == address]
    return exact or [one for one in found if is_wildcard(one.listens.address)]


def _connected(dialled: Endpoint) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in dialled.address else socket.AF_INET, socket.SOCK_STREAM)
    sock.settimeout(_CONNECT_SECONDS)
    try:
        sock.connect((dialled.address, dialled.port))
    except OSError:
        sock.close()
        raise
    sock.setblocking(False)
    return sock


class _Watch:
    """One connection of ours, and its far end in another network namespace."""

    def __init__(
        self, sock: socket.socket, target: Endpoint | None, earlier: Collection[int], others: Iterable[Namespace]
    ) -> None:
        self._sock = sock
        self._own = sock.getsockname()[1]
        self._target = target
        self._earlier = frozenset(earlier)
        self._others = tuple(others)

    def until_taken(self, seconds: float, program: str | None) -> Fact[Behind]:
        """What the far end shows when a program has taken it, or in the end."""
        began = time.monotonic()
        seen: tuple[SocketRow, int] | None = None
        while True:
            hung_up = self._hung_up()  # asked before the far end is, which may end in between
            seen = self._far_end() or seen
            waited = time.monotonic() - began
            if seen is None and hung_up:
                break
            if seen is not None and (seen[0].inode or insides.frozen(seen[1]) == Known(True)):
                break
            if waited >= (seconds if seen is not None or self._unanswered() or self._nobody_listens() else _GRACE):
                break
            time.sleep(_PAUSE)
        if seen is None and self._target is not None and self._unanswered():
            return Known(Behind(self._target, 0, Acceptance.PENDING, round(waited * 1000, 3), program))
        if seen is None and self._target is not None and hung_up and not self._may_be_taken():
            ended = round(waited * 1000, 3)
            return Known(Behind(self._target, 0, Acceptance.ACCEPTED, ended, program, hung_up=True))
        if seen is None:
            return Unknown(Reason.NOT_VISIBLE, "the far end of the connection was not seen in any network namespace")
        row, pid = seen
        acceptance = Acceptance.ACCEPTED if row.inode else Acceptance.PENDING
        here = pid == os.getpid()
        return Known(Behind(_plain(row.local), pid, acceptance, round(waited * 1000, 3), program, here))

    def _hung_up(self) -> bool:
        """Whether our connection was closed before any byte."""
        try:
            return self._sock.recv(1, socket.MSG_PEEK) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True

    def _nobody_listens(self) -> bool:
        """Whether the forwarder dials a namespace that we see, and nobody in there would take it."""
        return self._target is not None and bool(self._others) and not self._may_be_taken()

    def _may_be_taken(self) -> bool:
        """Whether anything at the far end would take the forwarder's connection."""
        wanted = self._target
        return wanted is not None and any(
            may_be_reached(one.listeners, wanted.address, wanted.port) for one in self._others
        )

    def _unanswered(self) -> bool:
        """Whether the forwarder is still waiting for an answer to its own first packet."""
        return bool(_dialling(self._target, TcpState.SYN_SENT) - self._earlier)

    def _far_end(self) -> tuple[SocketRow, int] | None:
        """One that nobody has taken yet, else one that was taken; with a pid there.

        Connections are taken in the order in which they came: as long as one of these waits, the last one does.
        """
        ports = {self._own} if self._target is None else _dialling(self._target) - self._earlier
        found = [
            (row, namespace.pids[0])
            for namespace in (self._others if ports else ())
            for row in _in(namespace, self._target, ports)
            if row.state in (TcpState.ESTABLISHED, TcpState.CLOSE_WAIT)
        ]
        found += self._led_back()
        return next((one for one in found if one[0].inode == 0), found[0] if found else None)

    def _led_back(self) -> list[tuple[SocketRow, int]]:
        """Where NAT leads to another socket of our own namespace: its end, which is not ours."""
        if self._target is not None:
            return []
        rows = [row for _, family in _TABLES for row in _rows("/proc/thread-self/net", family, {self._own})]
        taken = (TcpState.ESTABLISHED, TcpState.CLOSE_WAIT)
        return [(row, os.getpid()) for row in rows if row.state in taken and row.local.port != self._own]


def _dialling(target: Endpoint | None, state: TcpState | None = None) -> set[int]:
    """The near ports of this namespace's connections to the target, in this state or in any."""
    if target is None:
        return set()
    rows = _rows("/proc/thread-self/net", family_of(target.address), {target.port})
    return {row.local.port for row in rows if _plain(row.peer) == target and state in (None, row.state)}


def _in(namespace: Namespace, target: Endpoint | None, ports: set[int]) -> Iterator[SocketRow]:
    for pid in namespace.pids:
        try:
            families = [family for _, family in _TABLES]
            rows = [row for family in families for row in _rows(f"/proc/{pid}/net", family, ports)]
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended; another one may be there
        except PermissionError:
            return
        yield from (row for row in rows if target is None or _plain(row.local) == target)
        return


def _plain(endpoint: Endpoint) -> Endpoint:
    """127.0.0.1 for ::ffff:127.0.0.1, as an IPv6 socket shows a peer of IPv4."""
    return Endpoint(endpoint.address.removeprefix("::ffff:"), endpoint.port)


def _rows(folder: str, family: Family, peers: set[int]) -> list[SocketRow]:
    name = "tcp" if family == "ipv4" else "tcp6"
    with open(f"{folder}/{name}", encoding="ascii", errors="backslashreplace") as file:
        return list(proc_net.connections(file.read(), family, peers))
