"""Healthy servers in a process of their own: they accept at once and then wait in silence, as HTTP does."""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import socket
import time
from collections.abc import Iterable

from diagnose.probes.shadow import libc

_LIBC = ctypes.CDLL(None)


class Listeners:
    """A child that accepts on whatever sockets it was given last, and tells from which port each client came."""

    def __init__(self) -> None:
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._taken: set[int] = set()
        if os.fork() == 0:
            self._channel.close()
            _serve(theirs)
        theirs.close()
        self._channel.setblocking(False)

    def open(self, where: Iterable[tuple[str, int]], owner: int) -> None:
        """Sockets in this namespace, owned by that user; those of before are closed."""
        sockets = [_socket(address, port, owner) for address, port in where]
        with contextlib.ExitStack() as stack:
            for sock in sockets:
                stack.callback(sock.close)
            socket.send_fds(self._channel, [b"open"], [sock.fileno() for sock in sockets])
        self._taken.clear()

    def took(self, port: int) -> bool:
        """Whether a client from this port was accepted."""
        while True:
            try:
                self._taken.add(int(self._channel.recv(64)))
            except BlockingIOError:
                return port in self._taken


def owned_socket(address: str, owner: int) -> socket.socket:
    """A TCP socket of that address's family that owner rules take for that user's and its group's."""
    libc.filesystem_user(owner)
    _LIBC.setfsgid(owner)
    try:
        return socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    finally:
        _LIBC.setfsgid(os.getegid())
        libc.filesystem_user(os.geteuid())


def _socket(address: str, port: int, owner: int) -> socket.socket:
    sock = owned_socket(address, owner)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    for _ in range(100):
        with contextlib.suppress(OSError):  # ::1 is there a moment after lo is up
            sock.bind((address, port))
            break
        time.sleep(0.01)
    sock.listen(64)
    return sock


def _serve(channel: socket.socket) -> None:
    """Until the parent is gone."""
    listeners: dict[int, socket.socket] = {}
    clients: list[socket.socket] = []
    poller = select.poll()
    poller.register(channel, select.POLLIN)
    while True:
        for number, _ in poller.poll():
            if number == channel.fileno():
                numbers = _received(channel)
                for old in (*listeners.values(), *clients):
                    with contextlib.suppress(KeyError):
                        poller.unregister(old)
                    old.close()
                clients = []
                listeners = {one: socket.socket(fileno=one) for one in numbers}
                for one in listeners.values():
                    one.setblocking(False)
                    poller.register(one, select.POLLIN)
                break
            with contextlib.suppress(BlockingIOError):
                client, peer = listeners[number].accept()
                clients.append(client)
                channel.send(str(peer[1]).encode())


def _received(channel: socket.socket) -> list[int]:
    try:
        message, numbers, _, _ = socket.recv_fds(channel, 16, 16)
    except ConnectionResetError:
        message = b""
    if not message:
        os._exit(0)
    return numbers
