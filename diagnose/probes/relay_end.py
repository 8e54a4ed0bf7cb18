"""The end of a connection that a relay of a container engine accepted, in the namespace where the relay connects.

pasta, slirp4netns, rootlessport and rootlesskit accept in the server's place. Their own connection to the server is in
the tables of the other network namespace, which any user may read through /proc/PID/net. It has no address of ours, so
it is known by its time: it was not there before we connected.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from msgspec.structs import replace

from diagnose.model.attempt import Acceptance, Behind
from diagnose.model.fact import Fact, Known, Reason, Unknown
from diagnose.model.network import Endpoint, SocketRow, TcpState
from diagnose.pace import patient
from diagnose.parse import proc_net
from diagnose.parse.docker_proxy import ends
from diagnose.probes import forwarders, insides
from diagnose.probes.forwarders import Relay
from diagnose.probes.namespaces import Namespace

_PAUSE = 0.004
_COMPLETED = (TcpState.ESTABLISHED, TcpState.CLOSE_WAIT)
_HALF = (TcpState.SYN_RECV, TcpState.NEW_SYN_RECV)


_SETTLES = patient(0.2)
"""Seconds in which a relay that is late would have gone on."""


class _Row(NamedTuple):
    row: SocketRow
    namespace: Namespace

    @property
    def key(self) -> tuple[int, Endpoint, Endpoint]:
        """What names one connection on this machine."""
        return self.namespace.inode, self.row.local, self.row.peer


class Watch:
    """Connections to a relay, and what becomes of them inside the namespaces that it may lead to."""

    def __init__(self, relays: Sequence[Relay], port: int | None, others: Sequence[Namespace]) -> None:
        """`port`: where the server listens inside; None: not known. Made before the connection that is watched."""
        self._relays = tuple(relays)
        self._port = port
        linked = [one for one in others if any(relay.leads_to(one) for relay in relays)]
        self._linked = bool(linked)
        self._wanted = tuple(linked or others)
        self._others = tuple(others)
        self._earlier = frozenset(one.key for one in self._rows(self._others))

    def until_taken(self, sock: socket.socket, dialled: Endpoint, seconds: float) -> Fact[Behind]:
        """What the far end shows when a program has accepted it, or in the end."""
        began = time.monotonic()
        seen: _Row | None = None
        while True:
            hung_up = _hung_up(sock)  # asked before the far end is, which may end in between
            last = self._far_end()
            seen = last or seen
            waited = time.monotonic() - began
            if seen is not None and (seen.row.inode or insides.frozen(seen.namespace.pids[0]) == Known(True)):
                break
            if (seen is None and hung_up) or waited >= seconds:
                break
            time.sleep(_PAUSE)
        ms = round(waited * 1000, 3)
        if last is None and seen is not None and not seen.row.inode:
            seen = None  # what was there for a moment only waits no longer
        if seen is not None:
            return Known(self._found(seen, ms))
        target = Endpoint(dialled.address, self._port or dialled.port)
        if hung_up:
            return Known(Behind(target, 0, Acceptance.ACCEPTED, ms, self._program, hung_up=True))
        return self._nothing_seen(target, ms)

    def _found(self, seen: _Row, ms: float) -> Behind:
        acceptance = Acceptance.ACCEPTED if seen.row.inode else Acceptance.PENDING
        at = seen.namespace
        return Behind(_plain(seen.row.local), at.pids[0], acceptance, ms, self._program, namespace=at.inode)

    def _nothing_seen(self, target: Endpoint, ms: float) -> Fact[Behind]:
        """The relay keeps our connection, and no server's end of its own is there.

        Looked at twice: a relay that is late has only begun, and a first packet inside a machine is answered at once.
        """
        first = self._waiting(target)
        time.sleep(_SETTLES)
        if first is not None and first == self._waiting(target) and self._far_end() is None:
            return Known(Behind(first[0], 0, Acceptance.PENDING, ms, self._program))
        return Unknown(Reason.NOT_VISIBLE, f"{self._program} accepts in the server's place; its own end was not seen")

    def _waiting(self, target: Endpoint) -> tuple[Endpoint, frozenset[object]] | None:
        """What the relay waits for an answer from, and by which connections; None: it may be served."""
        later = [one for one in self._rows(self._wanted, half=True) if one.key not in self._earlier]
        unanswered = next((one.row.peer for one in later if one.row.state is TcpState.SYN_SENT), None)
        if any(one.row.state in _HALF for one in later):
            return None  # a server may want data first (TCP_DEFER_ACCEPT)
        if unanswered is None and not self._linked:
            return None
        return (_plain(unanswered) if unanswered is not None else target), frozenset(one.key for one in later)

    @property
    def _program(self) -> str:
        return " or ".join(f"{one.program} (pid {one.pid})" for one in self._relays)

    def _far_end(self) -> _Row | None:
        """One that no program has accepted yet, else one that was accepted: past proxies, the last that is seen."""
        later = [one for one in self._rows(self._wanted) if one.key not in self._earlier]
        found = next((one for one in later if one.row.inode == 0), later[0] if later else None)
        target = _proxied(found) if found is not None and found.row.inode else None
        if target is None:
            return found
        beyond = [one for one in self._rows(self._others) if one.key not in self._earlier and one.row.local == target]
        return next((one for one in beyond if one.row.inode == 0), beyond[0] if beyond else None)

    def _rows(self, namespaces: Iterable[Namespace], *, half: bool = False) -> Iterator[_Row]:
        """The servers' ends of connections in there; `half`: and those that are not completed, of both ends."""
        for namespace in namespaces:
            for row in _table(namespace, self._port if namespace in self._wanted else None, half=half):
                yield _Row(row, namespace)


def _table(namespace: Namespace, port: int | None, *, half: bool) -> Iterator[SocketRow]:
    """Read through the first process that is still there."""
    for pid in namespace.pids:
        try:
            texts = [(_read(f"/proc/{pid}/net/{name}"), family) for name, family in proc_net.TABLES]
        except (FileNotFoundError, ProcessLookupError):
            continue
        except PermissionError:
            return
        texts = [(text, family) for text, family in texts if text]
        ports = {port} if port else {row.local.port for one in texts for row in proc_net.tcp(*one, ())}
        rows = [row for one in texts for row in proc_net.tcp(*one, ports)]
        yield from (row for row in rows if row.state in _COMPLETED or (half and row.state in _HALF))
        if half:
            asking = [row for one in texts for row in proc_net.connections(*one, ports)]
            yield from (row for row in asking if row.state is TcpState.SYN_SENT)
        return


def _read(path: str) -> str:
    """Empty where the kernel has no IPv6; FileNotFoundError where the process has ended."""
    try:
        with open(path, encoding="ascii", errors="backslashreplace") as file:
            return file.read()
    except FileNotFoundError:
        if path.endswith("6") and os.path.exists(path[:-1]):
            return ""
        raise


def _proxied(found: _Row) -> Endpoint | None:
    """Where a docker-proxy inside the namespace connects to for this port: the proxy of an engine without root."""
    for pid in found.namespace.pids:
        told = ends(forwarders.arguments(pid)) if forwarders.comm(pid) == forwarders.PROXY else None
        if told is not None and told[0].port == found.row.local.port:
            return told[1]
    return None


def _hung_up(sock: socket.socket) -> bool:
    """Whether our connection was closed before any byte."""
    try:
        return sock.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def _plain(endpoint: Endpoint) -> Endpoint:
    """127.0.0.1 for ::ffff:127.0.0.1, as an IPv6 socket shows an address of IPv4."""
    return replace(endpoint, address=endpoint.address.removeprefix("::ffff:"))
