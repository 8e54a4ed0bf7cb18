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
from typing import Any

from diagnose.model.attempt import ResetWitness
from diagnose.model.fact import NOT_LINUX, Fact, Known, Reason, Unknown
from diagnose.probes.connect import errno_name, read_icmp_errors, report_icmp_errors

SNMP = "/proc/net/snmp"
ROUNDS = 96
BUDGET = 0.040
"""Seconds after which no new round begins."""
CHANCE = 2.5e-7
"""How probable others' resets may be to look like ours at one of the judgements; together at most 1e-6."""
_JUDGEMENTS = (22, 44)
"""Rounds after which it is judged, and once more at the end: 2^-22 is below CHANCE."""
_ANSWER = 0.050
"""Seconds that an attempt may take; a refusal on this machine takes less than a millisecond."""
_LATE = 0.001
"""Seconds after which a counter that has not moved is read again: the kernel counts after it has sent."""
_ZEROS = 3
"""Probes that counted nothing at once which prove as much as one that counted nothing after that time."""


def who_reset(address: str, port: int) -> Fact[ResetWitness]:
    """Refused connects of our own in turn with waits of the same length, until the counter's answer is distinct.

    `by_kernel` false: not by the TCP of this network namespace (a rule, or another namespace or host behind it).
    """
    if not sys.platform.startswith("linux"):
        return NOT_LINUX
    try:
        with _Counter() as counter:
            return _Experiment(counter, address, port).run()
    except _NoResetError as error:
        return error.unknown
    except OSError as error:
        return Unknown(Reason.FAILED, f"{error.filename or SNMP}: {error.strerror}")


def ours_for_sure(probes: list[int], controls: list[int]) -> bool:
    """Whether the counter rose by exactly one for each probe, and not while we waited, beyond what chance would do.

    If our probes counted nothing, others would have to send just one reset in the one window of a round and none in
    the other, and as the order is thrown, at best every second time in the right one. (That the probes' windows
    hold more is no proof: where processors are scarce the others run in bursts, and that is not by chance.)
    """
    rounds = list(zip(probes, controls, strict=True))
    clean = sum(pair == (1, 0) for pair in rounds)
    chance = sum(math.comb(len(rounds), count) for count in range(clean, len(rounds) + 1)) / 2 ** len(rounds)
    return min(probes, default=0) > 0 and chance <= CHANCE


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
    """Rounds of two windows each: one with a refused connect, one with a wait at least as long."""

    def __init__(self, counter: _Counter, address: str, port: int) -> None:
        self._counter = counter
        self._port = port
        found = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)[0]
        self._family: int = found[0]
        self._sockaddr: Any = found[4]
        self._probes: list[int] = []
        self._controls: list[int] = []
        self._length = 0.0
        self._late_zero = False

    def run(self) -> Fact[ResetWitness]:
        """Until a probe counted nothing, or all of them surely did, or the budget is spent."""
        if not self._counter.read() and not self._counts_at_all():
            return Unknown(Reason.NOT_VISIBLE, f"{SNMP}: Tcp: OutRsts does not move on this machine")
        deadline = time.monotonic() + BUDGET
        coins = int.from_bytes(os.urandom(ROUNDS // 8), "big")
        for turn in range(ROUNDS):
            waits_first = coins >> turn & 1 and turn  # the first wait must know how long a probe takes
            if waits_first:
                self._control()
            self._probe()
            if self._late_zero or self._probes.count(0) >= _ZEROS:
                return self._witness(by_kernel=False, distinct=True)
            if not waits_first:
                self._control()
            if turn + 1 in _JUDGEMENTS and ours_for_sure(self._probes, self._controls):
                break
            if time.monotonic() > deadline:
                break
        return self._witness(by_kernel=True, distinct=ours_for_sure(self._probes, self._controls))

    def _witness(self, *, by_kernel: bool, distinct: bool) -> Fact[ResetWitness]:
        return Known(
            ResetWitness(
                by_kernel=by_kernel,
                distinct=distinct,
                source="OutRsts",
                probes=len(self._probes),
                counted=sum(self._probes),
                background=sum(self._controls),
            )
        )

    def _probe(self) -> None:
        with socket_apart(self._family, self._port) as sock:
            began, before = time.monotonic(), self._counter.read()
            _be_refused(sock, self._sockaddr)
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
        with socket.socket(self._family, socket.SOCK_STREAM) as holder:
            try:
                holder.bind((self._sockaddr[0], 0, *self._sockaddr[2:]))
                with socket_apart(self._family, self._port) as sock:
                    _be_refused(sock, holder.getsockname())
            except (OSError, _NoResetError):
                return False
            time.sleep(_LATE)
            return self._counter.read() > 0


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
