"""Programs of container engines that accept the connections of a published port and make one of their own for each.

docker-proxy connects to the container's address from our network namespace. pasta, slirp4netns, rootlessport and
rootlesskit, of engines without root, connect inside the other namespace. What they say of themselves in their command
lines any user may read.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

from diagnose.model.container import Forwarder
from diagnose.model.fact import NOT_LINUX, Fact, Known, Reason, Unknown
from diagnose.model.network import Endpoint, TcpState
from diagnose.parse import proc_net
from diagnose.parse.docker_proxy import ends
from diagnose.parse.relay_command import Leading, pasta_forwards, pasta_leads, slirp_leads
from diagnose.probes.containers import in_first_pid_namespace
from diagnose.probes.namespaces import Namespace

PROXY = "docker-proxy"
"""By comm."""
_PASTA = frozenset({"pasta", "pasta.avx2"})
_SLIRP = "slirp4netns"
RELAYS = _PASTA | {_SLIRP, "rootlessport", "rootlesskit"}
"""By comm: those that connect inside another network namespace. Any user runs them."""
_MONITOR = "conmon"
"""podman's process next to each container, in the mount namespace where podman keeps the network namespaces."""
_CLOCK_EVERY = 64
_COMMAND_LIMIT = 4096
_TEXT_LIMIT = 1 << 20
_DESCRIPTORS = 256
_DEPTH = 3
"""rootlesskit's child runs the engine, whose proxies are its children."""


class Relay(NamedTuple):
    """A process that accepts a port's connections and connects inside another network namespace."""

    pid: int
    program: str
    pids: frozenset[int] = frozenset()
    """Processes in the namespace that it leads to."""
    namespaces: frozenset[int] = frozenset()
    """Inodes of namespaces that it leads to."""

    def leads_to(self, namespace: Namespace) -> bool:
        """Whether this is the namespace, as far as that is known."""
        return namespace.inode in self.namespaces or not self.pids.isdisjoint(namespace.pids)


def look(ports: Collection[int], seconds: float) -> Fact[tuple[Forwarder, ...]]:
    """The processes in our network namespace that say to listen on one of the ports for a container.

    It is a process's own word: whoever relies on it asks as well whether it holds the listener. A docker-proxy of
    another user than root is left out, since an engine that is not root's has it in a namespace of its own; and a
    relay of a user who has no listener on the port.
    """
    if not sys.platform.startswith("linux"):
        return NOT_LINUX
    deadline = time.monotonic() + seconds
    found: list[Forwarder] = []
    try:
        pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
        here = os.stat("/proc/self/net/tcp").st_ino
        users = _listening_users(ports)
    except OSError as error:
        return Unknown(Reason.FAILED, f"{error.filename or '/proc'}: {error.strerror}")
    except ValueError as error:
        return Unknown(Reason.UNPARSABLE, f"/proc/self/net/tcp: {error}")
    if 1 not in pids:
        return Unknown(Reason.NOT_VISIBLE, "other users' processes are hidden here (hidepid)", "run it again with sudo")
    if not in_first_pid_namespace():
        return Unknown(
            Reason.NOT_VISIBLE, "only the processes of our own PID namespace are listed", "run it on the host"
        )
    for at, pid in enumerate(pids):
        if at % _CLOCK_EVERY == 0 and time.monotonic() > deadline:
            return Unknown(Reason.DEADLINE, f"looked at {at} of {len(pids)} processes")
        found += [one for one in _forwarders(pid, here, users) if one.listens.port in ports]
    return Known(tuple(sorted(found)))


def relays_at(port: int) -> tuple[int, ...]:
    """The relays of the users who listen on the port in our network namespace, lowest pid first.

    One that forwards other ports than this by its own command line is left out.
    """
    try:
        here = os.stat("/proc/self/net/tcp").st_ino
        users = {user for user, _ in _listening_users((port,))}
        pids = _pids()
    except (OSError, ValueError):
        return ()
    found = (pid for pid in pids if comm(pid) in RELAYS and _user(pid) in users and _is_here(pid, here))
    return tuple(pid for pid in found if _may_have(pid, port))


def _may_have(pid: int, port: int) -> bool:
    forwards = pasta_forwards(arguments(pid)) if comm(pid) in _PASTA else ()
    return not forwards or any(one.listens.port == port for one in forwards)


def relay(pid: int) -> Relay | None:
    """Where the relay with this pid leads; None where it is no relay, or has ended."""
    program = comm(pid)
    if program not in RELAYS:
        return None
    inside = frozenset(_beyond(pid, os.stat("/proc/self/net/tcp").st_ino))
    leading = _leading(program, arguments(pid))
    pids = inside | ({leading.pid} if leading.pid else frozenset())
    return Relay(pid, program, pids, frozenset((*_held_namespaces(pid), *_mounted(leading.path))))


def _forwarders(pid: int, here: int, users: Collection[tuple[int, Endpoint]]) -> Iterator[Forwarder]:
    """Nothing as well where the process has ended. `users`: who listens, and where."""
    program = comm(pid)
    if program == PROXY:
        told = ends(arguments(pid)) if _owner(pid) == 0 and _is_here(pid, here) else None
        if told:
            yield Forwarder(pid, PROXY, *told)
    elif program in _PASTA and _is_here(pid, here):
        user = _user(pid)
        said = pasta_forwards(arguments(pid))
        forwards = [one for one in said if any((user, each) in users for each in _bound_for(one.listens))]
        leads = relay(pid) if forwards else None
        number = min(leads.namespaces, default=0) or _number(leads.pids) if leads else 0
        for one in forwards:
            target = Endpoint("127.0.0.1", one.port)
            yield Forwarder(pid, program, one.listens, target, number)


def _bound_for(listens: Endpoint) -> tuple[Endpoint, ...]:
    """The listeners that may be meant: one of IPv6 on every address may take IPv4 as well."""
    both = (Endpoint("::", listens.port),) if listens.address == "0.0.0.0" else ()
    return (listens, *both)


def _number(pids: Iterable[int]) -> int:
    """The network namespace of these processes by its link, else by their table; 0 where none can be read."""
    for pid in sorted(pids):
        with contextlib.suppress(OSError):
            return int(os.readlink(f"/proc/{pid}/ns/net")[5:-1])
        with contextlib.suppress(OSError):
            return os.stat(f"/proc/{pid}/net/tcp").st_ino
    return 0


def _listening_users(ports: Collection[int]) -> frozenset[tuple[int, Endpoint]]:
    """Who has a listener on one of the ports, and where."""
    rows = [
        row
        for name, family in proc_net.TABLES
        if os.path.exists(f"/proc/self/net/{name}")
        for row in proc_net.tcp(_text(f"/proc/self/net/{name}"), family, ())
    ]
    listening = (one for one in rows if one.state is TcpState.LISTEN and one.local.port in ports)
    return frozenset((one.uid, one.local) for one in listening)


def _leading(program: str, arguments: list[str]) -> Leading:
    if program in _PASTA:
        return pasta_leads(arguments)
    return slirp_leads(arguments) if program == _SLIRP else Leading()


def _beyond(pid: int, here: int, depth: int = _DEPTH) -> Iterator[int]:
    """Its children and theirs that are in another network namespace (rootlessport's and rootlesskit's are)."""
    for child in _children(pid) if depth else ():
        if _is_here(child, here):
            yield from _beyond(child, here, depth - 1)
        else:
            yield child


def _children(pid: int) -> list[int]:
    """Of all its threads, each of which may have forked (proc_pid_children(5))."""
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return []
    return [int(word) for thread in threads for word in _text(f"/proc/{pid}/task/{thread}/children").split()]


def _held_namespaces(pid: int) -> list[int]:
    """The network namespaces that it keeps open, but ours; none where its descriptors are hidden."""
    try:
        names = os.listdir(f"/proc/{pid}/fd")[:_DESCRIPTORS]
        ours = os.stat("/proc/self/ns/net").st_ino
    except OSError:
        return []
    found = []
    for name in names:
        with contextlib.suppress(OSError):
            place = os.readlink(f"/proc/{pid}/fd/{name}")
            if place.startswith("net:[") and int(place[5:-1]) != ours:
                found.append(int(place[5:-1]))
    return found


def _mounted(path: str) -> list[int]:
    """The namespace that is mounted there, here or where podman's own processes are; none where that is hidden."""
    if not path.startswith("/"):
        return []
    system = os.stat("/proc/self/ns/net").st_dev
    monitors = (f"/proc/{pid}/root" for pid in _pids() if comm(pid) == _MONITOR)
    for root in ("", *monitors):
        with contextlib.suppress(OSError):
            seen = os.stat(f"{root}{path}")
            if seen.st_dev == system:
                return [seen.st_ino]
    return []


def _pids() -> list[int]:
    return sorted(int(name) for name in os.listdir("/proc") if name.isdigit())


def comm(pid: int) -> str:
    """Its name; empty when it has ended."""
    return _text(f"/proc/{pid}/comm").rstrip("\n")


def arguments(pid: int) -> list[str]:
    """The words of its command line behind the first; none when it has ended."""
    return _text(f"/proc/{pid}/cmdline", _COMMAND_LIMIT).split("\0")[1:]


def _owner(pid: int) -> int:
    """The owner of its directory; -1 when it has ended."""
    try:
        return os.stat(f"/proc/{pid}").st_uid
    except OSError:
        return -1


def _user(pid: int) -> int:
    """Its effective uid, also where it may not be dumped, so that its directory is root's; -1 when it has ended."""
    for line in _text(f"/proc/{pid}/status").splitlines():
        if line.startswith("Uid:"):
            return int(line.split()[2])
    return -1


def _is_here(pid: int, here: int) -> bool:
    """Whether it is in our network namespace."""
    try:
        return os.stat(f"/proc/{pid}/net/tcp").st_ino == here
    except OSError:
        return False


def _text(path: str, limit: int = _TEXT_LIMIT) -> str:
    """The start of a file; empty where it may not be read, or the process has ended."""
    try:
        with open(path, "rb") as file:
            return file.read(limit).decode("utf-8", "backslashreplace")
    except OSError:
        return ""
