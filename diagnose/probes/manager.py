"""A service manager of systemd, asked over D-Bus: the system's, or a user's own (org.freedesktop.systemd1(5)).

Only what any user may ask, and nothing that changes a unit.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Mapping, Sequence
from time import monotonic
from typing import Any

from diagnose.parse.dbus import BadMessageError, Reader, Reply, call
from diagnose.parse.unit import MANAGER, PROPERTIES, SOCKET, UNIT, Listed, label

_BUS, _PRIVATE = "/run/dbus/system_bus_socket", "/run/systemd/private"
_ROOT = "/org/freedesktop/systemd1"
_HELLO = ("/org/freedesktop/DBus", "org.freedesktop.DBus", "Hello")
_BUFFER = 1 << 16
_LATE = "systemd did not answer in time"
_AT_ONCE = 100
"""Calls under way: the system's bus allows 128 (max_replies_per_connection, dbus-daemon(1))."""


class NoAnswerError(Exception):
    """The manager was not reached, or did not answer in time."""

    def __init__(self, why: str, *, late: bool = False) -> None:
        super().__init__(why)
        self.late = late
        """It was reached, and had not answered by the deadline."""


class Manager:
    """A connection to one; `close` it. Raises NoAnswerError when there is none."""

    def __init__(self, owner: int | None, seconds: float) -> None:
        self.owner = owner
        self._ends = monotonic() + seconds
        self._serial = 0
        self._reader = Reader()
        self._bus: str | None = None
        self._socket = self._connected(_places(owner))

    def close(self) -> None:
        """Ends the connection."""
        self._socket.close()

    def lists(
        self, *asked: tuple[Sequence[str], Sequence[str]], names: Sequence[str] = ()
    ) -> tuple[tuple[Listed, ...], ...]:
        """Several such lists at once, and last the units of these names, loaded or not."""
        calls = [("ListUnitsByPatterns", (tuple(states), tuple(patterns))) for states, patterns in asked]
        return self._list(*calls, ("ListUnitsByNames", (tuple(names),)))

    def addresses(self, sockets: Sequence[str]) -> tuple[tuple[tuple[str, str], ...], ...]:
        """What each socket unit listens on: kind and address."""
        replies = self._ask([_get(name, SOCKET, "Listen") for name in sockets])
        return tuple(one.values[0] if one.error is None and one.values else () for one in replies)

    def triggers(self, sockets: Sequence[str]) -> tuple[tuple[str, ...], ...]:
        """The units that each socket unit starts."""
        replies = self._ask([_get(name, UNIT, "Triggers") for name in sockets])
        return tuple(one.values[0] if one.error is None and one.values else () for one in replies)

    def properties(self, names: Sequence[str], only: Sequence[tuple[str, str]] = ()) -> tuple[Mapping[str, Any], ...]:
        """What is said of each of these services and sockets: all that is asked of their kind, or these alone."""
        wanted = [(name, *one) for name in names for one in only or PROPERTIES[name.rpartition(".")[2]]]
        said: dict[str, dict[str, Any]] = {name: {} for name in names}
        for (name, _, key), reply in zip(wanted, self._ask([_get(*one) for one in wanted]), strict=True):
            if reply.error is None and reply.values:
                said[name][key] = reply.values[0]
        return tuple(said[name] for name in names)

    def _list(self, *asked: tuple[str, tuple[Sequence[str], ...]]) -> tuple[tuple[Listed, ...], ...]:
        calls = [((_ROOT, f"{MANAGER}.Manager", method), arguments) for method, arguments in asked]
        return tuple(one.values[0] if one.error is None and one.values else () for one in self._ask(calls))

    def _ask(self, calls: Sequence[tuple[tuple[str, str, str], tuple[str | Sequence[str], ...]]]) -> list[Reply]:
        """Sends them, and gives the answers in the same order."""
        if len(calls) > _AT_ONCE:
            return [*self._ask(calls[:_AT_ONCE]), *self._ask(calls[_AT_ONCE:])]
        serials = [self._next() for _ in calls]
        sent = (
            call(serial, member, arguments, MANAGER if self._bus else None)
            for serial, (member, arguments) in zip(serials, calls, strict=True)
        )
        answers = self._exchange(b"".join(sent), frozenset(serials))
        return [answers[serial] for serial in serials]

    def _exchange(self, data: bytes, serials: frozenset[int]) -> dict[int, Reply]:
        answers: dict[int, Reply] = {}
        try:
            self._within()
            if data:
                self._socket.sendall(data)
            while len(answers) < len(serials):
                self._within()
                part = self._socket.recv(_BUFFER)
                if not part:
                    raise NoAnswerError("the connection to the service manager ended")
                answers.update((one.serial, one) for one in self._reader.feed(part) if one.serial in serials)
        except TimeoutError:
            raise NoAnswerError(_LATE, late=True) from None
        except (OSError, BadMessageError) as error:
            raise NoAnswerError(str(error)) from None
        return answers

    def _next(self) -> int:
        self._serial += 1
        return self._serial

    def _within(self) -> None:
        """The socket's own deadline is what is left of ours."""
        left = self._ends - monotonic()
        if left <= 0:
            raise NoAnswerError(_LATE, late=True)
        self._socket.settimeout(left)

    def _connected(self, places: Iterable[tuple[str, bool]]) -> socket.socket:
        failure = NoAnswerError("it has no socket")
        for path, bus in places:
            try:
                return self._opened(path, bus)
            except OSError as error:
                failure = NoAnswerError(f"{path}: {error.strerror}", late=isinstance(error, TimeoutError))
            except NoAnswerError as error:
                failure = error
        raise failure

    def _opened(self, path: str, bus: bool) -> socket.socket:
        """Authenticated as the user that we are (EXTERNAL), and on a bus with a name of our own."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            self._within()
            self._socket.connect(path)
            who = str(os.geteuid()).encode().hex().encode()
            # BEGIN at once: where it comes in one piece with the first call, systemd leaves that call unread
            self._socket.sendall(b"\0AUTH EXTERNAL " + who + b"\r\nBEGIN\r\n")
            answer = b""
            while not answer.endswith(b"\r\n"):
                self._within()
                part = self._socket.recv(512)
                answer += part
                if not part or len(answer) > 512:
                    raise NoAnswerError("it does not speak D-Bus")
            if not answer.startswith(b"OK"):
                raise NoAnswerError("it does not accept this user")
            self._bus, self._reader = (path if bus else None), Reader()
            if bus:
                serial = self._next()
                self._exchange(call(serial, _HELLO, (), "org.freedesktop.DBus"), frozenset({serial}))
        except BaseException:
            self._socket.close()
            raise
        return self._socket


def _places(owner: int | None) -> tuple[tuple[str, bool], ...]:
    """Where it is reached, and whether that is a bus with others on it."""
    if owner is not None:
        return ((f"/run/user/{owner}/systemd/private", False), (f"/run/user/{owner}/bus", True))
    return ((_BUS, True), (_PRIVATE, False)) if os.geteuid() == 0 else ((_BUS, True),)


def _get(name: str, interface: str, key: str) -> tuple[tuple[str, str, str], tuple[str, ...]]:
    path = f"{_ROOT}/unit/{label(name)}"
    return (path, "org.freedesktop.DBus.Properties", "Get"), (interface, key)


def is_of_this_network() -> bool:
    """Whether pid 1 is in our network namespace: what its units listen on elsewhere is not ours.

    /proc/PID/net/tcp is one file a namespace, and any user may look at its number (fs/proc/proc_net.c).
    """
    try:
        return os.stat("/proc/1/net/tcp").st_ino == os.stat("/proc/self/net/tcp").st_ino
    except OSError:
        return False
