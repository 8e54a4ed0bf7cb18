"""Netfilter's netlink socket: dumps of nf_tables, transactions, and the trace of packets."""

from __future__ import annotations

import errno
import os
import socket
import struct
import time
from collections.abc import Iterable, Iterator

import msgspec

from diagnose.parse import ipset, nfnetlink, nft, xt_trace
from diagnose.parse.ipset import IpSet
from diagnose.parse.nft import ChainKey, Kind, Message, Rule, Ruleset
from diagnose.probes.netlink import Netlink

NETFILTER = 12
"""NETLINK_NETFILTER, netlink(7)."""
_SOL_NETLINK, _ADD_MEMBERSHIP, _EXT_ACK, _CAP_ACK = 270, 1, 11, 10
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33
_GROUP_TRACE = 9
"""NFNLGRP_NFTRACE."""
_REQUEST, _ACK, _EXCLUSIVE, _CREATE, _APPEND = 0x01, 0x04, 0x200, 0x400, 0x800
_HEADER = struct.Struct("=IHHII")
_NLMSG_ERROR = 2
_BUFFER = 1 << 20
_MANY = 1 << 26
"""Bytes of a rule set that are read at most: some 150,000 rules."""
_ERROR_TEXT = 1
"""NLMSGERR_ATTR_MSG."""


class RefusedError(OSError):
    """The kernel did not take a transaction: the errno, and its own words where it has some."""

    def __init__(self, number: int, words: str) -> None:
        super().__init__(number, f"{os.strerror(number)}{': ' + words if words else ''}")


def dump(until: float) -> Ruleset:
    """Every table of the current network namespace, as one generation; `until` is by time.monotonic.

    Empty where the kernel has no nf_tables. OSError with the kernel's errno (EPERM without CAP_NET_ADMIN, EFBIG when
    there is more than can be copied), InterruptedError when it changed during every attempt, TimeoutError when it was
    not read in time, ValueError when unreadable.
    """
    try:
        client = Netlink(NETFILTER, _time_left(until))
    except OSError as error:
        if error.errno in (errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT):
            return nft.EMPTY
        raise
    with client:
        try:
            _generation(client)
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.EOPNOTSUPP):  # no such subsystem (nfnetlink_rcv_msg)
                return nft.EMPTY
            raise
        for _ in range(5):
            before = _generation(client)
            rules = _Dump(client, until).rules()
            if _generation(client) == before:
                return msgspec.structs.replace(rules, generation=before)
    raise InterruptedError(errno.EINTR, "the rule set changed while it was read")


def dump_rules(until: float, chain: ChainKey | None = None) -> tuple[Rule, ...]:
    """The rules alone, of one chain or of all; errors as those of `dump`."""
    wanted = nfnetlink.generic(0) if chain is None else nft.opening(chain)
    with Netlink(NETFILTER, _time_left(until)) as client:
        return nft.ruleset(_Dump(client, until).part(Kind.RULE, wanted)).rules


def _time_left(until: float) -> float:
    return max(0.01, until - time.monotonic())


def generation(timeout: float) -> int:
    """The number of the present rule set; OSError with the kernel's errno."""
    with Netlink(NETFILTER, timeout) as client:
        return _generation(client)


def ip_sets(timeout: float) -> tuple[IpSet, ...]:
    """The IP sets of the current network namespace; OSError with the kernel's errno, ValueError when unreadable."""
    with Netlink(NETFILTER, timeout) as client:
        return ipset.sets(client.dump(ipset.SAVE, ipset.dump_request()))


def make_ip_sets(known: tuple[IpSet, ...], timeout: float) -> None:
    """Makes these IP sets in the current network namespace, which has none; OSError with the kernel's errno."""
    with Netlink(NETFILTER, timeout) as client:
        for kind, payload in ipset.clone(known):
            client.request(kind, _CREATE | _EXCLUSIVE, payload)


def _generation(client: Netlink) -> int:
    answers = client.request(nft.GET_GENERATION, 0, nfnetlink.generic(0))
    return nfnetlink.number(nfnetlink.by_type(answers[0], nfnetlink.GENERIC).get(1)) if answers else 0


class _Dump:
    """One attempt to read a rule set, bounded in time and in memory."""

    def __init__(self, client: Netlink, until: float) -> None:
        self._client = client
        self._until = until
        self._room = _MANY

    def rules(self) -> Ruleset:
        """All of it."""
        everything = nfnetlink.generic(0)
        tables = self.part(Kind.TABLE, everything)
        if not tables:
            return nft.EMPTY
        sets = self.part(Kind.SET, everything)
        messages: list[Message] = [*tables, *sets]
        for kind in (Kind.CHAIN, Kind.RULE, Kind.OBJECT):
            messages += self.part(kind, everything)
        messages += self._flowtables(everything)
        for one in nft.ruleset(sets).sets:
            where = nfnetlink.text(1, one.table.name) + nfnetlink.text(2, one.name)
            messages += self.part(Kind.ELEMENTS, nfnetlink.generic(one.table.family) + where)
        return nft.ruleset(messages)

    def part(self, kind: Kind, wanted: bytes) -> list[Message]:
        """The parts of one kind."""
        found = self._client.dump(kind.get, wanted, until=self._until, at_most=self._room)
        self._room -= sum(len(payload) for _, payload in found)
        return found

    def _flowtables(self, wanted: bytes) -> list[Message]:
        try:
            return self.part(Kind.FLOWTABLE, wanted)
        except OSError as error:
            if error.errno in (errno.EOPNOTSUPP, errno.EINVAL):  # kernels before 4.16 have no flowtables
                return []
            raise


class Writer:
    """A socket that writes rule sets into the namespace in which it was opened.

    It stays open as long as the copy: tables with `flags owner` go with it.
    """

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETFILTER)
        self._socket.settimeout(5.0)
        self._socket.setsockopt(_SOL_NETLINK, _EXT_ACK, 1)
        self._socket.setsockopt(_SOL_NETLINK, _CAP_ACK, 1)

    def close(self) -> None:
        """Give the socket back."""
        self._socket.close()

    def commit(self, messages: Iterable[Message], *, append: bool = True) -> None:
        """One transaction; RefusedError with the first message that the kernel did not take.

        Rules go to the end of their chain, or, without `append`, before the rule that they name as their position.
        """
        parts = [self._frame(nft.BATCH_BEGIN, _REQUEST, 0, nfnetlink.generic(0, nft.SUBSYSTEM))]
        count = 0
        for count, (kind, payload) in enumerate(messages, 1):
            flags = _REQUEST | _CREATE | (_APPEND if append else 0)
            parts.append(self._frame(kind, flags, count, payload))
        if not count:
            return
        parts.append(self._frame(nft.BATCH_END, _REQUEST, count + 1, nfnetlink.generic(0, nft.SUBSYSTEM)))
        # the answer to a request of its own ends the errors of the transaction: without one there is no answer at all
        data = b"".join(parts)
        self._grow(len(data), count)
        self._socket.send(data)
        self._socket.send(self._frame(nft.GET_GENERATION, _REQUEST | _ACK, count + 2, nfnetlink.generic(0)))
        self._raise_first_error(count + 2)

    def _frame(self, kind: int, flags: int, sequence: int, payload: bytes) -> bytes:
        return nfnetlink.message(kind, flags, sequence, payload)

    def _grow(self, size: int, count: int) -> None:
        _enlarge(self._socket, _SO_SNDBUFFORCE, socket.SO_SNDBUF, max(size + 4096, 1 << 18))
        # an error for each message at worst
        _enlarge(self._socket, _SO_RCVBUFFORCE, socket.SO_RCVBUF, max(count * 1024, 1 << 18))

    def _raise_first_error(self, last: int) -> None:
        first: RefusedError | None = None
        while True:
            for kind, sequence, body in _messages(self._socket.recv(_BUFFER)):
                if kind != _NLMSG_ERROR:
                    continue
                number = -int.from_bytes(body[:4], nfnetlink.BYTE_ORDER, signed=True)
                if sequence == last:
                    if first is not None:
                        raise first
                    return
                if number and first is None:
                    first = RefusedError(number, _words(body))


def _enlarge(sock: socket.socket, beyond_limit: int, within_limit: int, size: int) -> None:
    try:
        sock.setsockopt(socket.SOL_SOCKET, beyond_limit, size)
    except PermissionError:  # root of a user namespace only
        sock.setsockopt(socket.SOL_SOCKET, within_limit, size)


def _messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Type, sequence number and payload of each message of a datagram."""
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind, _, sequence, _ = _HEADER.unpack_from(data, offset)
        if length < _HEADER.size:
            raise OSError(errno.EBADMSG, "netlink message shorter than its header")
        yield kind, sequence, data[offset + _HEADER.size : offset + length]
        offset += (length + 3) & ~3


def _words(body: bytes) -> str:
    """The kernel's own text for an error (NLMSGERR_ATTR_MSG); with NETLINK_CAP_ACK only the header is echoed."""
    try:
        found = nfnetlink.by_type(body, 4 + _HEADER.size)
    except ValueError:
        return ""
    return nft.readable(nfnetlink.name(found.get(_ERROR_TEXT, b"")))


class Tracer:
    """The trace messages of the namespace in which it was opened."""

    def __init__(self) -> None:
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, NETFILTER
        )
        # without a port of its own a socket is passed over, as the sender's would be (do_one_broadcast, af_netlink.c)
        self._socket.bind((0, 0))
        _enlarge(self._socket, _SO_RCVBUFFORCE, socket.SO_RCVBUF, 8 << 20)
        self._socket.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, _GROUP_TRACE)

    def fileno(self) -> int:
        """For poll."""
        return self._socket.fileno()

    def close(self) -> None:
        """Give the socket back."""
        self._socket.close()

    def read(self) -> Iterator[bytes]:
        """The payloads that have come until now; OSError ENOBUFS when some were lost."""
        while True:
            try:
                data = self._socket.recv(_BUFFER)
            except BlockingIOError:
                return
            for kind, _, body in _messages(data):
                if kind == nft.TRACE:
                    yield body


class EntryTracer:
    """The lines that iptables-legacy writes about traced packets, in the namespace in which it was opened.

    OSError where the kernel has no such log (nfnetlink_log).
    """

    def __init__(self) -> None:
        with Netlink(NETFILTER) as client:
            for family in (socket.AF_INET, socket.AF_INET6):
                client.request(
                    xt_trace.CONFIGURE, 0, nfnetlink.generic(family) + xt_trace.command(xt_trace.BIND_FAMILY)
                )
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, NETFILTER
        )
        try:
            _enlarge(self._socket, _SO_RCVBUFFORCE, socket.SO_RCVBUF, 8 << 20)
            for asked in (xt_trace.command(xt_trace.BIND), xt_trace.headers_at_once()):
                self._configure(nfnetlink.generic(0) + asked)
        except OSError:
            self._socket.close()
            raise

    def _configure(self, payload: bytes) -> None:
        self._socket.send(nfnetlink.message(xt_trace.CONFIGURE, _REQUEST | _ACK, 1, payload))
        for kind, _, body in _messages(self._socket.recv(_BUFFER)):
            number = -int.from_bytes(body[:4], nfnetlink.BYTE_ORDER, signed=True) if kind == _NLMSG_ERROR else 0
            if number:
                raise RefusedError(number, _words(body))

    def close(self) -> None:
        """Give the socket back, and with it the group."""
        self._socket.close()

    def read(self) -> Iterator[bytes]:
        """The payloads that have come until now; OSError ENOBUFS when some were lost."""
        while True:
            try:
                data = self._socket.recv(_BUFFER)
            except BlockingIOError:
                return
            for kind, _, body in _messages(data):
                if kind == xt_trace.PACKET:
                    yield body
