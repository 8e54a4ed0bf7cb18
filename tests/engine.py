"""A socket that answers as a container engine does, or as none should."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

RAW = Path(__file__).parents[1] / "fixtures" / "raw"
Answer = Callable[[socket.socket, str], None]
"""What is done with a connection, and the path asked for."""


DOCKER = "Server: Docker/20.10.24 (linux)\r\nApi-Version: 1.41\r\n"
PODMAN = "Server: Libpod/4.3.1 (linux)\r\nApi-Version: 1.41\r\nLibpod-Api-Version: 4.3.1\r\n"


def http(body: bytes, status: str = "200 OK", headers: str = "Content-Type: application/json\r\n") -> bytes:
    """A response."""
    return f"HTTP/1.1 {status}\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body


class FakeEngine:
    """Answers what was recorded from a real one; `broken` answers instead, where the path ends so."""

    def __init__(self, path: Path | None, headers: str, containers: dict[str, bytes]) -> None:
        """`path`: of its socket; None: a port of loopback."""
        self.headers, self.containers = headers, containers
        self.asked: list[str] = []
        self.broken: dict[str, Answer] = {}
        self._listener = socket.socket(socket.AF_UNIX if path else socket.AF_INET)
        self._listener.bind(str(path) if path else ("127.0.0.1", 0))
        self._listener.listen(16)
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        """Takes no more connections."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    @property
    def port(self) -> int:
        """On loopback."""
        port: int = self._listener.getsockname()[1]
        return port

    def list(self) -> bytes:
        """The list of all."""
        return self.containers.get("", b"[]")

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._converse, args=(connection,), daemon=True).start()

    def _converse(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            text = b""
            while chunk := connection.recv(65536):
                text += chunk
                while b"\r\n\r\n" in text:
                    head, _, text = text.partition(b"\r\n\r\n")
                    self._answer(connection, head.split()[1].decode())

    def _answer(self, connection: socket.socket, path: str) -> None:
        self.asked.append(path)
        plain = path.partition("?")[0]
        for end, answer in self.broken.items():
            if plain.endswith(end):
                answer(connection, plain)
                return
        if plain.endswith("/_ping"):
            connection.sendall(http(b"OK", headers=self.headers))
        elif plain.endswith("/containers/json"):
            connection.sendall(http(self.list()))
        else:
            name = plain.split("/")[-2]
            found = [body for number, body in self.containers.items() if number and number.startswith(name)]
            connection.sendall(http(found[0]) if found else http(b'{"message":"No such container"}', "404 Not Found"))


def recorded(*names: str) -> dict[str, bytes]:
    """Containers as they were recorded, by id; the list of all under the empty one."""
    bodies = [(RAW / f"{name}.json").read_bytes() for name in names]
    return {json.loads(body)["Id"]: body for body in bodies}


@contextmanager
def hanging() -> Iterator[Answer]:
    """An engine that says nothing until the test is over."""
    over = threading.Event()
    try:
        yield lambda connection, path: (over.wait(5), None)[1]
    finally:
        over.set()


def drip(connection: socket.socket, path: str) -> None:
    """A byte now and then, for ever."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n[")
    for _ in range(100):
        connection.sendall(b" ")
        time.sleep(0.05)


def flood(connection: socket.socket, path: str) -> None:
    """More than anybody wants to have in memory."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    chunk = b"100000\r\n" + b" " * (1 << 20) + b"\r\n"
    for _ in range(64):
        connection.sendall(chunk)
    connection.sendall(b"0\r\n\r\n")


def says(answer: bytes) -> Answer:
    """Always these bytes."""

    def say(connection: socket.socket, path: str) -> None:
        connection.sendall(answer)
        connection.close()

    return say
