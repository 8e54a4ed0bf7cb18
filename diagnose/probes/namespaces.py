"""Who listens on a port in the other network namespaces of this machine, read from /proc without entering any."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

from diagnose import seccomp
from diagnose.model.bounds import FEW
from diagnose.model.elsewhere import Elsewhere, OtherListener, Residence
from diagnose.model.fact import NOT_LINUX, Fact, Known, Reason, Unknown
from diagnose.model.network import Family, SocketRow, TcpState, is_wildcard
from diagnose.parse import addresses, proc_net
from diagnose.parse.cgroup import Membership, membership
from diagnose.probes import residence
from diagnose.probes.processes import describe

NAMES = "/run/netns"
"""Where `ip netns add` mounts the namespaces that it names (ip-netns(8))."""
_TABLES: tuple[tuple[str, str, Family], ...] = (("tcp", "sockstat", "ipv4"), ("tcp6", "sockstat6", "ipv6"))
_LISTEN = f"{TcpState.LISTEN:02X}".encode()
_CHUNK = 1 << 16
_SHORT = 4096 - 256
"""A table that goes on fills a page but for less than a row (seq_read_iter, fs/seq_file.c)."""
_IN_USE = re.compile(rb"^TCP6?: inuse (\d+)", re.MULTILINE)
_CLOCK_EVERY = 64


class _LateError(Exception):
    """The deadline has passed."""


class Namespace(NamedTuple):
    """Another network namespace."""

    inode: int
    pids: tuple[int, ...]
    """The processes in it, lowest first."""
    listeners: tuple[SocketRow, ...] = ()
    """Of every port."""


class Others(NamedTuple):
    """The other network namespaces of this machine that could be looked into."""

    elsewhere: dict[int, Elsewhere]
    """By port."""
    namespaces: tuple[Namespace, ...]


class _Survey:
    """One pass over the processes: which namespaces there are, and what could not be told."""

    def __init__(self, ends: float) -> None:
        self.ends = ends
        self.unreadable = 0
        self.namespaces = self._others()

    def on_time(self) -> None:
        """Raises _LateError when the deadline has passed."""
        if time.monotonic() > self.ends:
            raise _LateError

    def _others(self) -> tuple[Namespace, ...]:
        directory = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            pids = sorted(int(name) for name in os.listdir(directory) if name.isdigit())
            told, hidden = self._by_link(pids, directory)
            own = told.pop(os.stat("/proc/self/ns/net").st_ino, [])
            tables = self._by_table(hidden, directory)
            self.own = (*own, *tables.pop(os.stat("/proc/self/net/tcp").st_ino, []))
            if tables:
                self._join(told, tables, directory)
        finally:
            os.close(directory)
        if pids and pids[0] != 1:
            self.unreadable += 1  # hidepid (proc(5)) leaves out other users' processes: who knows how many
        self.names, unseen = _named(told)
        self.unreadable += unseen
        return tuple(Namespace(inode, tuple(sorted(pids))) for inode, pids in sorted({**told, **tables}.items()))

    def _by_link(self, pids: Iterable[int], directory: int) -> tuple[dict[int, list[int]], list[int]]:
        """Pids by the namespace that /proc/PID/ns/net names ("net:[4026531840]"), and those that do not tell."""
        seccomp.require("readlinkat")
        told: dict[int, list[int]] = {}
        hidden: list[int] = []
        for at, pid in enumerate(pids):
            if at % _CLOCK_EVERY == 0:
                self.on_time()
            try:
                inode = int(os.readlink(f"{pid}/ns/net", dir_fd=directory)[5:-1])
            except PermissionError:
                hidden.append(pid)
            except OSError:
                continue  # ended, or a zombie, which is in no namespace any more
            else:
                told.setdefault(inode, []).append(pid)
        return told, hidden

    def _by_table(self, pids: Iterable[int], directory: int) -> dict[int, list[int]]:
        """Pids by the inode of their /proc/PID/net/tcp: each namespace has one of its own, and any user may stat it."""
        found: dict[int, list[int]] = {}
        for at, pid in enumerate(pids):
            if at % _CLOCK_EVERY == 0:
                self.on_time()
            try:
                inode = os.stat(f"{pid}/net/tcp", dir_fd=directory).st_ino
            except PermissionError:
                self.unreadable += 1
            except OSError:
                continue
            else:
                found.setdefault(inode, []).append(pid)
        return found

    def _join(self, told: dict[int, list[int]], tables: dict[int, list[int]], directory: int) -> None:
        """Moves processes that hide their link to the namespace whose table they share."""
        for inode, pids in told.items():
            for table in self._by_table(pids[:1], directory):
                told[inode] = pids + tables.pop(table, [])


def survey(seconds: float) -> Fact[tuple[Namespace, ...]]:
    """The other network namespaces that have a process, without what listens there; half a millisecond each saved."""
    if not sys.platform.startswith("linux"):
        return NOT_LINUX
    try:
        return Known(_Survey(time.monotonic() + seconds).namespaces)
    except _LateError:
        return Unknown(Reason.DEADLINE, f"the processes of this machine could not be read within {seconds:g} s")
    except OSError as error:
        return Unknown(Reason.FAILED, f"{error.filename or '/proc'}: {error.strerror}")


def look(ports: Collection[int], seconds: float) -> Fact[Others]:
    """Per port, the LISTEN rows of every other network namespace that has a process, within so many seconds.

    A namespace that only a mount under /run/netns keeps has no process to read it through, and is counted as
    unreadable. Namespaces that our own children made are left out.
    """
    if not sys.platform.startswith("linux"):
        return NOT_LINUX
    try:
        return Known(_look(frozenset(ports), _Survey(time.monotonic() + seconds)))
    except _LateError:
        return Unknown(Reason.DEADLINE, f"the processes of this machine could not be read within {seconds:g} s")
    except OSError as error:
        return Unknown(Reason.FAILED, f"{error.filename or '/proc'}: {error.strerror}")
    except ValueError as error:
        return Unknown(Reason.UNPARSABLE, f"/proc/PID/net/tcp: {error}")


def _look(ports: frozenset[int], survey: _Survey) -> Others:
    found: dict[int, list[OtherListener]] = {port: [] for port in ports}
    read: list[Namespace] = []
    for namespace in survey.namespaces:
        survey.on_time()
        try:
            rows = _listening(namespace)
        except PermissionError:
            survey.unreadable += 1
            continue
        if rows is None or _is_ours(namespace.pids[0]):
            continue
        read.append(namespace._replace(listeners=tuple(rows)))
        for listener in _described(namespace, [row for row in rows if row.local.port in ports], survey):
            found[listener.local.port].append(listener)
    ours = residence.of_process(os.getpid(), survey.own) if any(found.values()) else Residence()
    elsewhere = {
        port: Elsewhere(tuple(sorted(each, key=_order)), len(read), survey.unreadable, ours)
        for port, each in found.items()
    }
    return Others(elsewhere, tuple(read))


def _order(listener: OtherListener) -> tuple[int, str, int]:
    return listener.namespace, listener.local.address, listener.process.pid if listener.process else 0


def _listening(namespace: Namespace) -> list[SocketRow] | None:
    """The listening rows, read through the first process that is still there; None when all have ended."""
    for pid in namespace.pids:
        try:
            used = [(name, family) for name, counters, family in _TABLES if _has_sockets(pid, counters)]
            return [row for name, family in used for row in _rows(f"/proc/{pid}/net/{name}", family)]
        except (FileNotFoundError, ProcessLookupError):
            continue
    return None


def _has_sockets(pid: int, counters: str) -> bool:
    """Whether the namespace has TCP sockets of the family, TIME-WAIT aside, by its own count.

    Every read of a table walks the whole hash that all namespaces share, 2 ms on a large machine, however few the rows.
    """
    try:
        with open(f"/proc/{pid}/net/{counters}", "rb") as file:
            told = _IN_USE.search(file.read())
    except FileNotFoundError:
        if counters == "sockstat6" and os.path.exists(f"/proc/{pid}/net/sockstat"):
            return False  # a kernel without IPv6
        raise
    return told is None or int(told[1]) > 0


def _rows(path: str, family: Family) -> Iterator[SocketRow]:
    """The listening rows of one table.

    The kernel lists the listening sockets before all others (tcp_seq_start, net/ipv4/tcp_ipv4.c), so the reading
    stops at the first row in another state: a table of many thousand connections costs one read.
    """
    text = b""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        while chunk := os.read(descriptor, _CHUNK):
            text += chunk
            last = text[: text.rfind(b"\n")].rpartition(b"\n")[2].split(maxsplit=4)
            if len(chunk) < _SHORT or (len(last) > 4 and last[3] not in (_LISTEN, b"st")):
                break
    finally:
        os.close(descriptor)
    whole = text[: text.rfind(b"\n") + 1].decode("ascii", "backslashreplace")
    return (row for row in proc_net.tcp(whole, family, ()) if row.state is TcpState.LISTEN)


def _described(namespace: Namespace, rows: list[SocketRow], survey: _Survey) -> Iterator[OtherListener]:
    if not rows:
        return
    holders = _holders(namespace.pids, {row.inode for row in rows}, survey)
    for row in rows:
        holder = holders.get(row.inode)
        process = describe(holder) if holder is not None else None
        lives = Membership(process.unit, None, process.container) if process else _shared_by_all(namespace.pids)
        yield OtherListener(
            namespace.inode,
            row.local,
            name=survey.names.get(namespace.inode),
            process=process,
            container=lives.container,
            unit=lives.unit,
            init=namespace.pids[0],
            init_program=_program(namespace.pids[0]),
            residence=residence.of_process(holder, namespace.pids),
            addresses=addresses_of(namespace.pids)[:FEW] if is_wildcard(row.local.address) else (),
        )


def addresses_of(pids: Iterable[int]) -> tuple[str, ...]:
    """A namespace's own, without those of loopback and of one link, through the first process that is still there."""
    for pid in pids:
        if table := _text(f"/proc/{pid}/net/fib_trie"):
            return (*addresses.ipv4(table), *addresses.ipv6(_text(f"/proc/{pid}/net/if_inet6")))
    return ()


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="backslashreplace") as file:
            return file.read()
    except OSError:
        return ""


def _holders(pids: Iterable[int], inodes: Collection[int], survey: _Survey) -> dict[int, int]:
    """The first process of the namespace that holds each socket, as far as descriptors may be read."""
    wanted = {f"socket:[{inode}]": inode for inode in inodes}
    found: dict[int, int] = {}
    for pid in pids:
        survey.on_time()
        if len(found) == len(wanted):
            break
        for link in _descriptors(pid):
            if link in wanted:
                found.setdefault(wanted[link], pid)
    return found


def _descriptors(pid: int) -> Iterator[str]:
    """What the descriptors of a process point to; nothing where it hides them or has ended."""
    try:
        names = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return
    for name in names:
        try:
            yield os.readlink(f"/proc/{pid}/fd/{name}")
        except OSError:
            continue  # closed meanwhile


def _shared_by_all(pids: Iterable[int]) -> Membership:
    """Where the hidden holder lives, as far as every process of its namespace lives there."""
    lives = {_membership(pid) for pid in pids}
    return lives.pop() if len(lives) == 1 else Membership()


def _membership(pid: int) -> Membership:
    try:
        with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="backslashreplace") as file:
            return membership(file.read())
    except OSError:
        return Membership()


def _program(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="backslashreplace") as file:
            return file.read().rstrip("\n")
    except OSError:
        return ""


def _is_ours(pid: int) -> bool:
    """Whether the process descends from this one: a namespace of our own making says nothing of the machine."""
    own, seen = os.getpid(), 0
    while pid > 1 and seen < _CLOCK_EVERY:
        if pid == own:
            return True
        pid, seen = _parent(pid), seen + 1
    return False


def _parent(pid: int) -> int:
    """Field 4 of /proc/PID/stat; 0 when the process has ended."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[1])
    except OSError:
        return 0


def _named(seen: Collection[int]) -> tuple[dict[int, str], int]:
    """The names under /run/netns by namespace, and how many of these were not seen through a process."""
    names: dict[int, str] = {}
    own = os.stat("/proc/self/ns/net")
    try:
        entries = sorted(os.listdir(NAMES))
    except OSError:  # no directory: nothing was named
        return {}, 0
    for entry in entries:
        try:
            status = os.stat(f"{NAMES}/{entry}")
        except OSError:
            continue  # deleted meanwhile
        if status.st_dev == own.st_dev:  # else a file that is left over without its mount
            names.setdefault(status.st_ino, os.fsencode(entry).decode("utf-8", "backslashreplace"))
    return names, len(names.keys() - seen - {own.st_ino})
