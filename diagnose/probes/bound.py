"""TCP sockets that are bound and neither listen nor are connected, where sock_diag does not list them (before 6.8).

No table of /proc/net has such a socket, so its inode is one of /proc/PID/fd that no table knows. What it is bound to
is asked of a duplicate of the descriptor (pidfd_getfd(2), getsockname(2)), which is closed at once: the program that
holds the socket notices nothing.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Collection, Iterator
from typing import NamedTuple

from diagnose import seccomp
from diagnose.model.fact import Fact, Known, Reason, Unknown
from diagnose.model.network import Endpoint, SocketRow, TcpState
from diagnose.probes.syscalls import duplicate

_TABLES = "/proc/thread-self/net"
_INODE_COLUMNS = {
    **dict.fromkeys(("tcp", "tcp6", "udp", "udp6", "udplite", "udplite6", "raw", "raw6", "icmp", "icmp6"), 9),
    "unix": 6,
    "netlink": 9,
    "packet": 8,
}
"""Tables by name, each with the column of the inode; a kernel lacks some."""
_NAMESPACE_OF_SOCKET = 0x894C
"""SIOCGSKNS (linux/sockios.h)."""
_ENDED = (errno.ESRCH, errno.EBADF, errno.ENOENT)
_CLOCK_EVERY = 32
_MOST = 4096
"""Sockets of which a duplicate is made in one look."""
_NO_PEER = {socket.AF_INET: "0.0.0.0", socket.AF_INET6: "::"}


class _Seen(NamedTuple):
    """A descriptor of a socket that no table has."""

    pid: int
    number: int


class _Look:
    """One pass over the descriptors of this network namespace's processes."""

    def __init__(self, ports: Collection[int], ends: float) -> None:
        self._ports = ports
        self._ends = ends
        self._home = os.stat("/proc/thread-self/ns/net")
        self.hidden = 0
        """Processes and sockets that could not be looked into."""

    def rows(self) -> list[SocketRow]:
        """The sockets bound to the ports; TimeoutError, and OSError where no table can be read."""
        listed = _listed_inodes()
        held: dict[bytes, list[_Seen]] = {}
        for seen, inode in self._descriptors():
            if inode not in listed:
                held.setdefault(inode, []).append(seen)
        if len(held) > _MOST:
            raise TimeoutError
        # what is in a table by now was connected, or began to listen, while we looked
        return [row for inode, seen in held.items() if (row := self._row(int(inode), seen))]

    def _descriptors(self) -> Iterator[tuple[_Seen, bytes]]:
        pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
        if 1 not in pids:
            self.hidden += 1  # hidepid (proc(5)): who knows how many
        for at, pid in enumerate(pids):
            if at % _CLOCK_EVERY == 0 and time.monotonic() > self._ends:
                raise TimeoutError
            try:
                yield from _sockets_of(pid)
            except (FileNotFoundError, ProcessLookupError):
                continue  # it has ended
            except OSError:
                self.hidden += 1

    def _row(self, inode: int, seen: Collection[_Seen]) -> SocketRow | None:
        """By the first of its descriptors that is still there."""
        for one in seen:
            if time.monotonic() > self._ends:
                raise TimeoutError
            try:
                with socket.socket(fileno=duplicate(one.pid, one.number)) as sock:
                    return self._bound(sock, inode, one.pid)
            except OSError as error:
                if error.errno == errno.ENOSYS:
                    raise
                if error.errno not in _ENDED:
                    self.hidden += 1
                    return None
        return None

    def _bound(self, sock: socket.socket, inode: int, pid: int) -> SocketRow | None:
        status = os.fstat(sock.fileno())
        if status.st_ino != inode or sock.family not in _NO_PEER or sock.type != socket.SOCK_STREAM:
            return None  # the number is another file's by now, or it is none of TCP's
        if sock.proto != socket.IPPROTO_TCP or not self._is_of_ours(sock, pid):
            return None
        address, port = sock.getsockname()[:2]
        if port not in self._ports or sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != TcpState.CLOSE:
            return None
        six = sock.family == socket.AF_INET6
        device = sock.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16).rstrip(b"\0")
        return SocketRow(
            local=Endpoint(address.partition("%")[0], port),
            peer=Endpoint(_NO_PEER[sock.family], 0),
            state=TcpState.BOUND_INACTIVE,
            family="ipv6" if six else "ipv4",
            inode=inode,
            uid=status.st_uid,
            v6only=bool(sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)) if six else None,
            device=device.decode("utf-8", "backslashreplace") or None,
        )

    def _is_of_ours(self, sock: socket.socket, pid: int) -> bool:
        """Whether it was made in this network namespace: its process may have left the one that it was made in.

        An ordinary user may ask only where the process is.
        """
        import fcntl

        try:
            made_in = fcntl.ioctl(sock.fileno(), _NAMESPACE_OF_SOCKET)
        except PermissionError:
            return os.path.samestat(os.stat(f"/proc/{pid}/ns/net"), self._home)
        try:
            return os.path.samestat(os.fstat(made_in), self._home)
        finally:
            os.close(made_in)


def look(ports: Collection[int], seconds: float) -> Fact[tuple[SocketRow, ...]]:
    """The bound, idle TCP sockets of this network namespace on these ports.

    An ordinary user may look into processes of that user only, and not where Yama forbids it. What is found is
    known; that there is none is known only where every process could be looked into.
    """
    search: _Look | None = None
    try:
        search = _Look(ports, time.monotonic() + seconds)
        found = search.rows()
    except TimeoutError:
        return Unknown(Reason.DEADLINE, f"the sockets of all processes could not be looked at within {seconds:g} s")
    except OSError as error:
        if error.errno == errno.ENOSYS:
            return Unknown(Reason.KERNEL_TOO_OLD, "this kernel does not list bound sockets", "Linux 5.6 or newer")
        return Unknown(Reason.FAILED, f"{error.filename or 'pidfd_getfd'}: {error.strerror}")
    if not found and search.hidden:
        root = os.geteuid() == 0
        detail = f"{search.hidden} of the processes and sockets here hide what they are bound to"
        return Unknown(Reason.NOT_VISIBLE if root else Reason.NEEDS_ROOT, detail, None if root else _LIFT)
    return Known(tuple(sorted(found, key=lambda row: (row.local, row.inode))))


_LIFT = "run it again with sudo"


def _listed_inodes() -> frozenset[bytes]:
    """Those of every table; OSError where there is none at all."""
    found: set[bytes] = set()
    tables = 0
    for name, column in _INODE_COLUMNS.items():
        try:
            with open(f"{_TABLES}/{name}", "rb") as table:
                rows = [line.split() for line in table]
        except OSError:
            continue  # its sockets are asked what they are, one by one
        tables += 1
        found.update(row[column] for row in rows[1:] if len(row) > column)
    if not tables:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), _TABLES)
    return frozenset(found)


def _sockets_of(pid: int) -> Iterator[tuple[_Seen, bytes]]:
    """The descriptors of a process that are sockets, each with its inode; OSError where it hides them."""
    seccomp.require("readlinkat")
    directory = os.open(f"/proc/{pid}/fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in os.listdir(directory):
            try:
                link = os.readlink(name.encode(), dir_fd=directory)
            except FileNotFoundError:
                continue  # closed meanwhile
            if link.startswith(b"socket:["):
                yield _Seen(pid, int(name)), link[8:-1]
    finally:
        os.close(directory)
