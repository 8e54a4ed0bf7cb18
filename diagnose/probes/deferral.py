"""A half-open connection: does the listener hold back our last ACK until data comes, or did it never arrive? Any user.

A listener with TCP_DEFER_ACCEPT (tcp(7)) counts each ACK without data that it holds back, `TcpExt: TCPDeferAcceptDrop`
in /proc/net/netstat (tcp_check_req, net/ipv4/tcp_minisocks.c; both families share it). An ACK that a rule dropped is
not counted. The counter belongs to the whole network namespace, so that other deferring listeners must be told from
ours.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import sys
import time
from typing import Any

from diagnose.model.attempt import Acceptance, AckWitness
from diagnose.model.fact import NOT_LINUX, Fact, Known, Reason, Unknown
from diagnose.model.network import Endpoint
from diagnose.pace import patient
from diagnose.probes import sockets
from diagnose.probes.connect import SENT_AGAIN, errno_name
from diagnose.probes.reset import Dialled

NETSTAT = "/proc/net/netstat"
SLOTS = 8
CHANCE = 1e-6
"""How probable it may be that others' ACKs were counted in every slot that held a connect of ours."""
BUDGET = patient(0.2)
"""Seconds after which no new round begins."""
RUN_SECONDS = patient(1.0)
"""For all targets of a run together; the others wait for what the kernel does after a second."""
_ZEROS = 3
"""Connects whose ACK was not counted that prove that it does not arrive: one may be counted late on a busy machine."""
_MADE = 3
"""Connects that did not stay half-open after which no more are made: a program takes those."""
_LATE = 0.001
"""Seconds after which a counter that has not moved is read again."""
_ANSWER = patient(0.050)
"""Seconds that a connect may take; on this machine it takes a tenth of a millisecond."""
_SPARE = 1.25
"""A slot is so much longer than the longest connect so far."""
_SILENTLY = struct.pack("ii", 1, 0)
"""SO_LINGER that closes by a reset: the kernel forgets a half-open connection, and the program never hears of it."""


class Deferrals:
    """The half-open connections of one run."""

    def __init__(self) -> None:
        self._left = RUN_SECONDS

    def held_back(self, server: Endpoint, client: Endpoint, age: float) -> Fact[AckWitness]:
        """Of a connection half-open `age` seconds after its SYN: at once by the counter, else after a second."""
        if age >= SENT_AGAIN:
            return _sent_again(server, client)
        if self._left <= 0:
            return Known(AckWitness(held_back=True, distinct=False, source="TCPDeferAcceptDrop", probes=0))
        began = time.monotonic()
        witness = counted(server)
        self._left -= time.monotonic() - began
        return witness


def counted(endpoint: Endpoint) -> Fact[AckWitness]:
    """Connects of our own, each in one of several slots of the same length that a die has chosen, until it is distinct.

    About 20 ms where the listener defers, 5 ms where the ACK is lost. No program sees these connects as long as they
    stay half-open.
    """
    if not sys.platform.startswith("linux"):
        return NOT_LINUX
    try:
        with _Counter() as counter:
            return _Experiment(counter, endpoint).run()
    except _NotHalfOpenError as error:
        return error.unknown
    except OSError as error:
        return Unknown(Reason.FAILED, f"{error.filename or NETSTAT}: {error.strerror}")


def _sent_again(server: Endpoint, client: Endpoint) -> Fact[AckWitness]:
    match sockets.sent_again(server, client):
        case Known(value=times):
            return Known(AckWitness(held_back=not times, distinct=True, source="retransmissions", counted=times))
        case Unknown() as unknown:
            return unknown


class _NotHalfOpenError(Exception):
    """A connect did not come as far as the first one: nothing can be said about its last ACK."""

    def __init__(self, unknown: Unknown) -> None:
        super().__init__(str(unknown))
        self.unknown = unknown


class _Counter:
    """`TcpExt: TCPDeferAcceptDrop` of this network namespace."""

    def __init__(self) -> None:
        self._file = os.open(NETSTAT, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._column = self._line(0).index(b"TCPDeferAcceptDrop")
            self.read()
        except (ValueError, IndexError):
            os.close(self._file)
            unparsable = Unknown(Reason.UNPARSABLE, f"{NETSTAT} has no TcpExt: TCPDeferAcceptDrop")
            raise _NotHalfOpenError(unparsable) from None
        except BaseException:
            os.close(self._file)
            raise

    def __enter__(self) -> _Counter:
        return self

    def __exit__(self, *exception: object) -> None:
        os.close(self._file)

    def read(self) -> int:
        """The number of ACKs held back so far; about 40 microseconds."""
        return int(self._line(1)[self._column])

    def _line(self, row: int) -> list[bytes]:
        return os.pread(self._file, 1 << 16, 0).split(b"\n", 2)[row].split()


class _Experiment:
    """If our ACKs were not counted, the slots of a round would be alike, and others' counts fall into any of them.

    Then a round of SLOTS slots, of which some number n count anything, has something in ours by a chance of n / SLOTS.
    """

    def __init__(self, counter: _Counter, endpoint: Endpoint) -> None:
        self._counter = counter
        self._endpoint = endpoint
        self._dialled = Dialled(endpoint)
        self._longest = 0.0
        self._probes = 0
        self._zeros = 0
        self._made = 0
        self._counted = 0
        self._background = 0
        self._chance = 1.0

    def run(self) -> Fact[AckWitness]:
        """Until some ACKs of ours were not counted, or all of them surely were, or the budget is spent."""
        deadline = time.monotonic() + BUDGET
        while time.monotonic() < deadline and self._made < _MADE:
            if not self._probes or self._zeros:
                self._probe()
            else:
                self._round()
            if self._zeros >= _ZEROS:
                return self._witness(held_back=False, distinct=True)
            if self._chance <= CHANCE and not self._zeros:
                return self._witness(held_back=True, distinct=True)
        if not self._probes:
            return Unknown(Reason.FAILED, "repeated connects did not stay half-open")
        return self._witness(held_back=not self._zeros, distinct=False)

    def _witness(self, *, held_back: bool, distinct: bool) -> Fact[AckWitness]:
        return Known(
            AckWitness(
                held_back=held_back,
                distinct=distinct,
                source="TCPDeferAcceptDrop",
                probes=self._probes,
                counted=self._counted,
                background=self._background,
            )
        )

    def _round(self) -> None:
        length = self._longest * _SPARE
        ours = os.urandom(1)[0] % SLOTS
        counts: list[int] = []
        fair = True
        before = self._counter.read()
        for slot in range(SLOTS):
            ends = time.monotonic() + length
            if slot == ours:
                fair = self._probe() and time.monotonic() <= ends
            # sleeping, not spinning: others get at least the processor time that they have while our connect is made
            time.sleep(max(0.0, ends - time.monotonic()))
            after = self._counter.read()
            counts.append(after - before)
            before = after
        self._background += sum(counts) - counts[ours]
        if fair:
            self._chance *= sum(count > 0 for count in counts) / SLOTS

    def _probe(self) -> bool:
        """One connect that stays half-open; false: it was not, or was counted late."""
        began, before = time.monotonic(), self._counter.read()
        with self._dialled.socket() as sock:
            _connected(sock, self._dialled.sockaddr)
            counted = self._counter.read() - before
            at_once = counted > 0
            if not at_once:
                time.sleep(_LATE)
                counted = self._counter.read() - before
            if not self._half_open(sock):
                self._made += 1
                return False
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _SILENTLY)
        self._probes += 1
        self._counted += counted
        if not counted:
            self._zeros += 1
        if at_once:
            self._longest = max(self._longest, time.monotonic() - began)
        elif counted:
            self._longest = max(self._longest, _LATE)
        return at_once

    def _half_open(self, sock: socket.socket) -> bool:
        address, port = sock.getsockname()[:2]
        return sockets.server_side(self._endpoint, Endpoint(address, port)) == Known(Acceptance.HALF_OPEN)


def _connected(sock: socket.socket, sockaddr: Any) -> None:
    """One connect; _NotHalfOpenError when it is not made."""
    number = sock.connect_ex(sockaddr)
    if number == errno.EINPROGRESS:
        poller = select.poll()
        poller.register(sock, select.POLLOUT)
        made = poller.poll(_ANSWER * 1000)
        number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) if made else errno.ETIMEDOUT
    if number:
        raise _NotHalfOpenError(Unknown(Reason.FAILED, f"a repeated connect ended with {errno_name(number)}"))
