"""Who sent the reset: the kernel's TCP, which counts its own, or somebody who only looks like it. Any user.

A port without a socket makes the kernel count one more `Tcp: OutRsts` in /proc/net/snmp (tcp_v4_send_reset and
tcp_v6_send_reset, net/ipv4/tcp_ipv4.c and net/ipv6/tcp_ipv6.c; both families share it); a rule that rejects with a
reset counts none. The counter belongs to the whole network namespace, so that others' resets must be told from ours.
"""

from __future__ import annotations

import errno
import math
import os
import select
import socket
import sys
import time
from collections.abc import Collection
from contextlib import ExitStack
from typing import Any

from diagnose.model.attempt import ResetWitness
from diagnose.model.fact import NOT_LINUX, Fact, Known, Reason, Unknown
from diagnose.model.network import Endpoint
from diagnose.pace import patient
from diagnose.probes.connect import errno_name, read_icmp_errors, report_icmp_errors

SNMP = "/proc/net/snmp"
ROUNDS = 96
GROUP = 64
"""Endpoints that are told together, as long as the kernel refuses all of them."""
BUDGET = patient(0.040)
"""Seconds after which no new round begins."""
PATIENCE = patient(0.160)
"""Seconds more as long as the counter has moved for our probes alone."""
CHANCE = 2.5e-7
"""How probable others' resets may be to look like ours at one of the judgements; together at most 1e-6."""
_JUDGEMENTS = (22, 44)
"""Rounds after which it is judged, and once more at the end: 2^-22 is below CHANCE."""
_ANSWER = patient(0.050)
"""Seconds that an attempt may take; a refusal on this machine takes less than a millisecond."""
_LATE = 0.001
"""Seconds after which a counter that has not moved is read again: the kernel counts after it has sent."""
_ZEROS = 3
"""Probes that counted nothing at once which prove as much as one that counted nothing after that time."""


def who_reset(address: str, port: int) -> Fact[ResetWitness]:
    """Refused connects of our own in turn with waits of the same length, until the counter's answer is distinct.

    `by_kernel` false: not by the TCP of this network namespace (a rule, or another namespace or host behind it).
    """
    endpoint = Endpoint(address, port)
    return who_reset_each((endpoint,), BUDGET)[endpoint]


def who_reset_each(endpoints: Collection[Endpoint], seconds: float) -> dict[Endpoint, Fact[ResetWitness]]:
    """The same for many: those that the kernel refuses are told in groups, the others one by one.

    What is not told after so many seconds is Unknown.
    """
    if not sys.platform.startswith("linux"):
        return dict.fromkeys(endpoints, NOT_LINUX)
    found: dict[Endpoint, Fact[ResetWitness]] = {}
    deadline = time.monotonic() + seconds
    ordered = sorted(endpoints)
    groups = [tuple(ordered[start : start + GROUP]) for start in range(0, len(ordered), GROUP)]
    while groups:
        group = groups.pop(0)
        if found and time.monotonic() > deadline:
            found |= dict.fromkeys(group, Unknown(Reason.DEADLINE, "too many targets to tell whose reset each got"))
            continue
        told = _told(group)
        if len(group) == 1 or _surely_ours(told):
            found |= dict.fromkeys(group, told)
        else:
            half = len(group) // 2
            groups[:0] = [group[:half], group[half:]]
    return found


def _told(group: tuple[Endpoint, ...]) -> Fact[ResetWitness]:
    try:
        with _Counter() as counter:
            return _Experiment(counter, group).run()
    except _NoResetError as error:
        return error.unknown
    except OSError as error:
        return Unknown(Reason.FAILED, f"{error.filename or SNMP}: {error.strerror}")


def _surely_ours(told: Fact[ResetWitness]) -> bool:
    return isinstance(told, Known) and told.value.by_kernel and told.value.distinct


def ours_for_sure(probes: list[int], controls: list[int], resets: int = 1) -> bool:
    """Whether the counter rose by exactly as much as each probe must cause, and not while we waited, beyond chance.

    If our probes counted nothing, others would have to send just one reset in the one window of a round and none in
    the other, and as the order is thrown, at best every second time in the right one. (That the probes' windows
    hold more is no proof: where processors are scarce the others run in bursts, and that is not by chance.)
    """
    rounds = list(zip(probes, controls, strict=True))
    clean = sum(pair == (resets, 0) for pair in rounds)
    chance = sum(math.comb(len(rounds), count) for count in range(clean, len(rounds) + 1)) / 2 ** len(rounds)
    return min(probes, default=0) >= resets and chance <= CHANCE


def socket_apart(family: int, target: int) -> socket.socket:
    """A socket that does not block, bound to a port that is not the target's: it is never joined to itself."""
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        report_icmp_errors(sock)
        sock.bind(("::" if family == socket.AF_INET6 else "0.0.0.0", 0))
        if sock.getsockname()[1] != target:
            return sock
        other = socket_apart(family, target)  # while this one holds the target's port, nobody else gets it
    except BaseException:
        sock.close()
        raise
    sock.close()
    return other


class _NoResetError(Exception):
    """An attempt did not end by a reset: nothing can be said about one."""

    def __init__(self, unknown: Unknown) -> None:
        super().__init__(str(unknown))
        self.unknown = unknown


class _Counter:
    """`Tcp: OutRsts` of this network namespace."""

    def __init__(self) -> None:
        self._file = os.open(SNMP, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._column = self._fields(0).index(b"OutRsts")
            self.read()
        except (ValueError, IndexError):
            os.close(self._file)
            raise _NoResetError(Unknown(Reason.UNPARSABLE, f"{SNMP} has no Tcp: OutRsts")) from None
        except BaseException:
            os.close(self._file)
            raise

    def __enter__(self) -> _Counter:
        return self

    def __exit__(self, *exception: object) -> None:
        os.close(self._file)

    def read(self) -> int:
        """The number of resets sent so far."""
        return int(self._fields(1)[self._column])

    def _fields(self, row: int) -> list[bytes]:
        lines = [line for line in os.pread(self._file, 1 << 14, 0).splitlines() if line.startswith(b"Tcp: ")]
        return lines[row].split()


class _Experiment:
    """Rounds of two windows each: one with a refused connect to each endpoint, one with a wait at least as long."""

    def __init__(self, counter: _Counter, group: tuple[Endpoint, ...]) -> None:
        self._counter = counter
        self._dialled = tuple(Dialled(endpoint) for endpoint in group)
        self._probes: list[int] = []
        self._controls: list[int] = []
        self._length = 0.0
        self._late_zero = False

    def run(self) -> Fact[ResetWitness]:
        """Until a probe counted nothing, or all of them surely did, or the budget is spent."""
        if not self._counter.read() and not self._counts_at_all():
            return Unknown(Reason.NOT_VISIBLE, f"{SNMP}: Tcp: OutRsts does not move on this machine")
        deadline = time.monotonic() + BUDGET * len(self._dialled)
        coins = int.from_bytes(os.urandom(ROUNDS // 8), "big")
        for turn in range(ROUNDS):
            waits_first = coins >> turn & 1 and turn  # the first wait must know how long a probe takes
            if waits_first:
                self._control()
            self._probe()
            if self._late_zero or self._probes.count(0) >= _ZEROS:
                return self._witness(by_kernel=False, distinct=True)
            if self._too_few():
                return self._witness(by_kernel=True, distinct=False)
            if not waits_first:
                self._control()
            if turn + 1 in _JUDGEMENTS and self._ours_for_sure():
                break
            if time.monotonic() > (deadline + PATIENCE if self._clean() else deadline):
                break
        return self._witness(by_kernel=True, distinct=self._ours_for_sure())

    def _clean(self) -> bool:
        """Whether nobody else has moved the counter yet: then only rounds are missing, as processors are scarce."""
        return not any(self._controls) and set(self._probes) == {len(self._dialled)}

    def _ours_for_sure(self) -> bool:
        return ours_for_sure(self._probes, self._controls, len(self._dialled))

    def _too_few(self) -> bool:
        """Whether a group holds one that the kernel did not refuse: then it must be split."""
        return len(self._dialled) > 1 and self._probes[-1] < len(self._dialled)

    def _witness(self, *, by_kernel: bool, distinct: bool) -> Fact[ResetWitness]:
        return Known(
            ResetWitness(
                by_kernel=by_kernel,
                distinct=distinct,
                source="OutRsts",
                probes=len(self._probes) * len(self._dialled),
                counted=sum(self._probes),
                background=sum(self._controls),
            )
        )

    def _probe(self) -> None:
        with ExitStack() as sockets:
            made = [(sockets.enter_context(one.socket()), one.sockaddr) for one in self._dialled]
            began, before = time.monotonic(), self._counter.read()
            for sock, sockaddr in made:
                _be_refused(sock, sockaddr)
            counted = self._counter.read() - before
            if 0 < counted < len(made):
                time.sleep(_LATE)
                counted = self._counter.read() - before
        self._length = time.monotonic() - began
        self._probes.append(counted)
        if not counted:
            time.sleep(_LATE)
            self._late_zero = self._counter.read() == before

    def _control(self) -> None:
        before = self._counter.read()
        # sleeping, not spinning: others get at least the processor time that they had while the probe ran
        time.sleep(self._length)
        self._controls.append(self._counter.read() - before)

    def _counts_at_all(self) -> bool:
        """A port that a socket holds without listening is refused by the kernel: does the counter move?"""
        first = self._dialled[0]
        with socket.socket(first.family, socket.SOCK_STREAM) as holder:
            try:
                holder.bind((first.sockaddr[0], 0, *first.sockaddr[2:]))
                with first.socket() as sock:
                    _be_refused(sock, holder.getsockname())
            except (OSError, _NoResetError):
                return False
            time.sleep(_LATE)
            return self._counter.read() > 0


class Dialled:
    """An endpoint in the form that connect(2) takes."""

    def __init__(self, endpoint: Endpoint) -> None:
        address = endpoint.address.encode()  # of a str getaddrinfo makes IDNA, and loads its tables for that
        found = socket.getaddrinfo(address, endpoint.port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)[0]
        self.family: int = found[0]
        self.sockaddr: Any = found[4]
        self._port = endpoint.port

    def socket(self) -> socket.socket:
        """A socket for one connect to it."""
        return socket_apart(self.family, self._port)


def _be_refused(sock: socket.socket, sockaddr: Any) -> None:
    """One connect; _NoResetError when it does not end by a reset."""
    number = sock.connect_ex(sockaddr)
    if number == errno.EINPROGRESS:
        number = _ending(sock)
    if number != errno.ECONNREFUSED:
        raise _NoResetError(_not_refused(number))
    match read_icmp_errors(sock):
        case Known(value=()):
            return
        case Known():
            raise _NoResetError(Unknown(Reason.NOT_NEEDED, "an ICMP error refused it, not a reset"))
        case Unknown() as unknown:
            raise _NoResetError(unknown)


def _ending(sock: socket.socket) -> int:
    """The errno of a connect under way; 0: connected, ETIMEDOUT: not within the time that a refusal takes."""
    if number := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
        return number
    poller = select.poll()
    poller.register(sock, select.POLLOUT)
    if not poller.poll(_ANSWER * 1000):
        return errno.ETIMEDOUT
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


def _not_refused(number: int) -> Unknown:
    if number == 0:
        return Unknown(Reason.FAILED, "a repeated connect was not refused but made: the port has come to life")
    return Unknown(Reason.FAILED, f"a repeated connect was not refused but ended with {errno_name(number)}")
