"""Connects to every address at once, and after a connect: did somebody take it?"""

from __future__ import annotations

import errno
import select
import socket
import struct
import sys
import time
from collections.abc import Callable, Sequence
from enum import Enum, auto
from typing import Literal

from diagnose import seccomp
from diagnose.model.attempt import Acceptance, AckWitness, Attempt, IcmpError, Outcome
from diagnose.model.fact import NOT_LINUX, NOT_NEEDED, Fact, Known, Reason, Unknown
from diagnose.model.network import Endpoint, family_of
from diagnose.pace import patient

IS_LINUX = sys.platform.startswith("linux")

# linux/in.h, linux/in6.h, linux/errqueue.h: the socket module does not name them
IP_RECVERR = 11
IPV6_RECVERR = 25
MSG_ERRQUEUE = 0x2000
_EXTENDED_ERR = struct.Struct("=IBBBBII")
_ORIGINS: dict[int, Literal["local", "icmp", "icmp6"]] = {1: "local", 2: "icmp", 3: "icmp6"}

CLOSE_GRACE = patient(0.010)
"""Seconds after the server took the connection in which a close counts as "closed at once"."""
_SELF_CONNECTS = 5
_READABLE = 0x001  # POLLIN and POLLOUT by number: the select module of Windows does not name them
_WRITABLE = 0x004
_SELECT_MOST = 500
"""FD_SETSIZE of Python on Windows is 512."""
_SELECT_TURN = 0.010
"""Seconds after which it is the turn of those beyond that number."""
_POLL_FIRST = 0.0005
_POLL_LAST = 0.008
SENT_AGAIN = 1.1
"""Seconds after its SYN when the kernel has surely sent a SYN-ACK again whose ACK did not come."""
_LONGER = 0.15
"""Seconds that a wait may last longer for that."""
_HALF_OPEN_LOOKS = 2
"""Looks after which a connection that is still half-open is more than the last instant of its handshake."""

_OUTCOMES = {
    errno.ECONNREFUSED: Outcome.REFUSED,
    errno.ETIMEDOUT: Outcome.UNANSWERED,
    errno.ENETUNREACH: Outcome.UNREACHABLE,
    errno.EHOSTUNREACH: Outcome.UNREACHABLE,
    errno.ENETDOWN: Outcome.UNREACHABLE,
    errno.EACCES: Outcome.DENIED,
    errno.EPERM: Outcome.DENIED,
    errno.EADDRNOTAVAIL: Outcome.ADDRESS_UNAVAILABLE,
    errno.ECONNRESET: Outcome.RESET,
    errno.EADDRINUSE: Outcome.ADDRESS_IN_USE,
    # the one that Windows has under two numbers: SO_ERROR and connect_ex give that of Winsock (winerror.h)
    getattr(errno, "WSAEACCES", errno.EACCES): Outcome.DENIED,
}


def outcome_of(number: int) -> Outcome:
    """The one place where an errno gets its name as an outcome."""
    return _OUTCOMES.get(number, Outcome.OTHER)


def errno_name(number: int) -> str:
    """ECONNREFUSED for 111, and for 10061, which Windows calls WSAECONNREFUSED."""
    return errno.errorcode.get(number, str(number)).removeprefix("WSA")


def report_icmp_errors(sock: socket.socket) -> None:
    """Sets IP_RECVERR or IPV6_RECVERR, before connect: an ICMP error ends the attempt at once and can be read."""
    if not IS_LINUX:
        return
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, 1)
    sock.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)


def read_icmp_errors(sock: socket.socket) -> Fact[tuple[IcmpError, ...]]:
    """Drains the error queue (recvmsg MSG_ERRQUEUE, ip(7))."""
    if not IS_LINUX:
        return NOT_LINUX
    found: list[IcmpError] = []
    while True:
        try:
            _, ancillary, _, _ = sock.recvmsg(512, 512, MSG_ERRQUEUE | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return Known(tuple(found))
        except OSError as error:
            return Unknown(Reason.FAILED, f"MSG_ERRQUEUE: {error.strerror}")
        found.extend(one for level, kind, data in ancillary if (one := _icmp_error(level, kind, data)))


def _icmp_error(level: int, kind: int, data: bytes) -> IcmpError | None:
    if (level, kind) not in ((socket.IPPROTO_IP, IP_RECVERR), (socket.IPPROTO_IPV6, IPV6_RECVERR)):
        return None
    _, origin, icmp_type, code, _, _, _ = _EXTENDED_ERR.unpack_from(data)
    if origin not in _ORIGINS:
        return None
    return IcmpError(_ORIGINS[origin], icmp_type, code, _offender(data[_EXTENDED_ERR.size :]))


def _offender(data: bytes) -> str | None:
    if len(data) < 2:
        return None
    (family,) = struct.unpack_from("=H", data)
    if family == socket.AF_INET and len(data) >= 8:
        return socket.inet_ntop(socket.AF_INET, data[4:8])
    if family == socket.AF_INET6 and len(data) >= 24:
        return socket.inet_ntop(socket.AF_INET6, data[8:24])
    return None


class _Phase(Enum):
    CONNECTING = auto()
    QUEUED = auto()
    """The kernel completed it; nobody is known to have taken it yet."""
    TAKEN = auto()
    """Taken: the grace runs in which a close would show."""
    DONE = auto()


ServerSide = Callable[[Endpoint, Endpoint], Fact[Acceptance]]
HeldBack = Callable[[Endpoint, Endpoint, float], Fact[AckWitness]]


def _nobody_asks(_server: Endpoint, _client: Endpoint, _age: float) -> Fact[AckWitness]:
    return NOT_NEEDED


class Dial:
    """One connect under way; `attempt` is what it is so far."""

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        local: bool,
        timeout: float,
        server_side: ServerSide,
        held_back: HeldBack = _nobody_asks,
    ) -> None:
        self.endpoint = endpoint
        self.local = local
        self.timeout = timeout
        self.grace = CLOSE_GRACE
        """Seconds after it was taken in which a close would show."""
        self.phase = _Phase.CONNECTING
        self._server_side = server_side
        self._held_back = held_back
        self._sock: socket.socket | None = None
        self._source: Endpoint | None = None
        self._outcome = Outcome.UNANSWERED
        self._errno: int | None = None
        self._call: Literal["socket", "connect", "other"] = "connect"
        self._icmp: Fact[tuple[IcmpError, ...]] = NOT_NEEDED
        self._acceptance: Fact[Acceptance] = NOT_NEEDED
        self._ack: Fact[AckWitness] = NOT_NEEDED
        self._half_open_looks = 0
        self._overflowed = False
        self._self_connected = 0
        self._pause = _POLL_FIRST
        self._taken_at = 0.0
        self._completed = 0.0
        self._ended = 0.0
        self._started = time.monotonic()
        self.next_look = self._started + timeout
        self._begin()

    @property
    def age(self) -> float:
        """Seconds since the connect."""
        return time.monotonic() - self._started

    @property
    def wakes_at(self) -> float:
        """When it must be looked at again though its socket is silent (monotonic clock)."""
        return min(self.next_look, self._started + self.timeout)

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        return self.phase is _Phase.DONE

    @property
    def silent(self) -> bool:
        """Whether nothing at all has come back, or had until we gave up."""
        return self.phase is _Phase.CONNECTING or (self.done and self._outcome is Outcome.UNANSWERED)

    @property
    def queued(self) -> bool:
        """Whether the kernel has completed it and nobody is known to have taken it."""
        return self.phase is _Phase.QUEUED

    @property
    def half_open(self) -> bool:
        """Whether the server's end of it is known to lack our last ACK, or was when we gave up."""
        return self._not_accepted and self._acceptance == Known(Acceptance.HALF_OPEN) and isinstance(self._ack, Known)

    @property
    def _not_accepted(self) -> bool:
        return self.queued or (self.done and self._outcome is Outcome.NOT_ACCEPTED)

    @property
    def overflowed(self) -> bool:
        """Whether the server's end of it waits for room in the accept queue, or did until we gave up."""
        return self._not_accepted and self._acceptance == Known(Acceptance.OVERFLOWED)

    @property
    def source(self) -> Endpoint | None:
        """Our end, as soon as the kernel has chosen it."""
        return self._source or (_bound(self._sock) if self._sock is not None else None)

    def fileno(self) -> int:
        """For poll(2); -1 when it has ended."""
        return self._sock.fileno() if self._sock is not None else -1

    @property
    def events(self) -> int:
        """What poll(2) should wait for; nothing while only the server's side is watched."""
        if self.phase is _Phase.CONNECTING:
            return _WRITABLE
        return _READABLE if self.phase in (_Phase.QUEUED, _Phase.TAKEN) else 0

    @property
    def _answered(self) -> float:
        """When the answer came: for a made connection its handshake, not the look at what became of it."""
        return self._completed if self._outcome is Outcome.CONNECTED and self._completed else self._ended

    def attempt(self) -> Attempt:
        """The outcome as a fact."""
        return Attempt(
            address=self.endpoint.address,
            port=self.endpoint.port,
            family=family_of(self.endpoint.address),
            outcome=self._outcome,
            ms=round((self._answered - self._started) * 1000, 3),
            errno=errno_name(self._errno) if self._errno else None,
            call=self._call,
            source=self._source,
            local=self.local,
            self_connected=self._self_connected,
            icmp=self._icmp,
            acceptance=self._acceptance,
            ack=self._ack,
        )

    def settle(self) -> None:
        """Ends the wait: a witness has told what the timeout would tell, or the time is over."""
        match self.phase:
            case _Phase.CONNECTING:
                self._end(Outcome.UNANSWERED)
            case _Phase.QUEUED:
                self._end(Outcome.NOT_ACCEPTED)
            case _Phase.TAKEN:
                self._end(Outcome.CONNECTED)
            case _Phase.DONE:
                return

    def advance(self, now: float) -> None:
        """Moves on by what the socket and the kernel's tables say at this moment."""
        if self.phase is _Phase.CONNECTING:
            self._after_connect(now)
        if self.phase in (_Phase.QUEUED, _Phase.TAKEN):
            self._look_for_close()
        if self.phase is _Phase.QUEUED:
            self._look_for_acceptance(now)
        if self.phase is _Phase.TAKEN and now - self._taken_at >= self.grace:
            self._end(Outcome.CONNECTED)
        if self.phase is not _Phase.DONE and now - self._started >= self.timeout:
            self._give_up()

    def _begin(self) -> None:
        family = socket.AF_INET6 if ":" in self.endpoint.address else socket.AF_INET
        self._call = "socket"
        try:
            self._sock = socket.socket(family, socket.SOCK_STREAM | getattr(socket, "SOCK_NONBLOCK", 0))
            self._call = "connect"
            self._sock.setblocking(False)
            report_icmp_errors(self._sock)
            number = self._sock.connect_ex(sockaddr(family, self.endpoint))
        except OSError as error:
            self._call = self._call if seccomp.is_about(error, self._call) else "other"
            self._fail(error.errno or errno.EIO)
            return
        if number in (0, errno.EINPROGRESS, errno.EWOULDBLOCK):
            self._after_connect(time.monotonic())  # on loopback the answer is there when connect(2) returns
        else:
            self._fail(number)

    def _after_connect(self, now: float) -> None:
        assert self._sock is not None
        number = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number:
            self._fail(number)
            return
        try:
            peer = self._sock.getpeername()
        except OSError:
            return  # still under way
        self._source = _endpoint(self._sock.getsockname())
        if self._sock.getsockname() == peer:
            self._leave_ourselves()
            return
        self.phase = _Phase.QUEUED
        self._completed = now
        self.next_look = now
        if not self.local:
            self._acceptance = Unknown(Reason.NOT_VISIBLE, "the end of the server is outside this network namespace")
            self._taken(now)

    def _leave_ourselves(self) -> None:
        """Joined to ourselves (simultaneous open): leaves without TIME-WAIT, which would hold the port, and redials."""
        assert self._sock is not None
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._sock.close()
        self._source = None
        self._self_connected += 1
        if self._self_connected > _SELF_CONNECTS:
            self._sock = None
            self._end(Outcome.OTHER)
        else:
            self._begin()

    def _look_for_acceptance(self, now: float) -> None:
        if now < self.next_look:
            return
        assert self._source is not None
        self._acceptance = self._server_side(self.endpoint, self._source)
        if self._acceptance == Known(Acceptance.OVERFLOWED):
            self._overflowed = True
        elif self._overflowed and self._acceptance == Known(Acceptance.HALF_OPEN):
            # the queue has room by now; the kernel repeats its SYN-ACK a second after the SYN, and not before
            self._acceptance = Known(Acceptance.OVERFLOWED)
        match self._acceptance:
            case Known(value=Acceptance.PENDING | Acceptance.OVERFLOWED):
                self.next_look = now + self._pause
                self._pause = min(self._pause * 2, _POLL_LAST)
            case Known(value=Acceptance.HALF_OPEN):
                self._while_half_open(now)
            case _:  # taken, or not to be seen: then a made connection is all that can be known
                self._taken(now)

    def _while_half_open(self, now: float) -> None:
        """The last instant of a handshake, a deferred accept, or an ACK that was lost; a lost one may still be late."""
        self._half_open_looks += 1
        if self._half_open_looks == _HALF_OPEN_LOOKS or (self._untold and self.age >= SENT_AGAIN):
            assert self._source is not None
            self._ack = self._held_back(self.endpoint, self._source, self.age)
        match self._ack:
            case Known(value=AckWitness(held_back=True, distinct=True)):
                self._acceptance = Known(Acceptance.DEFERRED)
                self._end(Outcome.CONNECTED)
            case Unknown() as unknown if self._half_open_looks > _HALF_OPEN_LOOKS:
                self._acceptance = unknown
                self._taken(now)
            case _:
                if self._untold and self.timeout + _LONGER >= SENT_AGAIN:
                    self.timeout = max(self.timeout, SENT_AGAIN + _POLL_LAST)
                self.next_look = now + self._pause
                self._pause = min(self._pause * 2, _POLL_LAST)

    @property
    def _untold(self) -> bool:
        """Whether the counter has not told whose wish it is that the connection is half-open."""
        return isinstance(self._ack, Known) and not self._ack.value.distinct

    def _give_up(self) -> None:
        """At the deadline: a connection of which it is not known that it failed was made."""
        if self._untold and self._acceptance == Known(Acceptance.HALF_OPEN):
            busy = "others move the counter that tells a deferred accept from a lost ACK (TCPDeferAcceptDrop)"
            self._acceptance = Unknown(Reason.NOT_VISIBLE, busy, "allow it more than a second (--timeout)")
            self._end(Outcome.CONNECTED)
        elif self._acceptance == Known(Acceptance.HALF_OPEN) and self._half_open_looks < _HALF_OPEN_LOOKS:
            # we came late to our own deadline: one look cannot tell a handshake under way from a lost ACK
            self.timeout = self.age + _POLL_LAST
            self.next_look = time.monotonic()
        else:
            self.settle()

    def _taken(self, now: float) -> None:
        self.phase = _Phase.TAKEN
        self._taken_at = now
        self.next_look = now + self.grace

    def _look_for_close(self) -> None:
        assert self._sock is not None
        try:
            first = self._sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return
        except OSError as error:
            self._fail(error.errno or errno.EIO)
            return
        if first:
            self._acceptance = Known(Acceptance.ACCEPTED)
            self._end(Outcome.CONNECTED)
        else:
            self._see_who_closed()
            self._end(Outcome.CLOSED)

    def _see_who_closed(self) -> None:
        """Whether a program had taken it: only then was it a program that closed it."""
        if self.local and self._source is not None and self._acceptance != Known(Acceptance.ACCEPTED):
            self._acceptance = self._server_side(self.endpoint, self._source)

    def _fail(self, number: int) -> None:
        self._errno = number
        if self._sock is not None:
            self._icmp = read_icmp_errors(self._sock)
            self._source = self._source or _bound(self._sock)
        self._end(outcome_of(number))

    def _end(self, outcome: Outcome) -> None:
        self._outcome = outcome
        self._ended = time.monotonic()
        self.phase = _Phase.DONE
        if self._sock is not None:
            self._source = self._source or _bound(self._sock)
            self._sock.close()
            self._sock = None


def wait(dials: Sequence[Dial], until: float) -> None:
    """Moves all of them on until every one has ended or the monotonic clock reads `until`."""
    poller = select.poll() if hasattr(select, "poll") else None
    while True:
        now = time.monotonic()
        active = [dial for dial in dials if not dial.done]
        for dial in active:
            dial.advance(now)
        active = [dial for dial in active if not dial.done]
        if not active or now >= until:
            return
        pause = max(0.0, min(until, *(dial.wakes_at for dial in active)) - now)
        _await_events(active, pause, poller)


def _await_events(dials: Sequence[Dial], pause: float, poller: select.poll | None) -> None:
    if poller is None:  # Windows has no poll(2)
        watched = dials[:_SELECT_MOST]
        if len(dials) > len(watched):
            pause = min(pause, _SELECT_TURN)
        writing = [dial for dial in watched if dial.events == _WRITABLE]
        select.select([dial for dial in watched if dial.events == _READABLE], writing, writing, pause)
        return
    watched_fds = []
    for dial in dials:
        poller.register(dial.fileno(), dial.events)
        watched_fds.append(dial.fileno())
    poller.poll(pause * 1000)
    for fd in watched_fds:
        poller.unregister(fd)


def sockaddr(family: int, endpoint: Endpoint) -> tuple[str, int] | tuple[str, int, int, int]:
    """The endpoint in the form that connect(2) takes; OSError where its zone is no interface."""
    if family == socket.AF_INET:
        return (endpoint.address, endpoint.port)
    address, _, zone = endpoint.address.partition("%")
    scope = (int(zone) if zone.isdigit() else socket.if_nametoindex(zone)) if zone else 0
    return (address, endpoint.port, 0, scope)


def _endpoint(sockaddr: tuple[str, int]) -> Endpoint:
    return Endpoint(sockaddr[0].partition("%")[0], sockaddr[1])


def _bound(sock: socket.socket) -> Endpoint | None:
    try:
        name = sock.getsockname()
    except OSError:
        return None
    return _endpoint(name) if name[1] else None
