"""The far end of a scenario: one process that listens, or only pretends to. Runs on the standard library alone.

usage: server.py CONDUCT ADDRESS PORT [OPTION ...]

Says "ready" on standard output once the fault stands, and then goes on until it is killed.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import selectors
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable

PR_SET_NAME, PR_SET_PDEATHSIG = 15, 1
SO_REUSEPORT = 15
PTRACE_ATTACH = 16


def bound(address: str, port: int, options: frozenset[str], kind: int = socket.SOCK_STREAM) -> socket.socket:
    """A socket bound to address and port; "::" is dual-stack unless the option v6only is given."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    one = socket.socket(family, kind)
    if kind == socket.SOCK_STREAM and "plain" not in options:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if "shared" in options or "reuseport" in options:
        one.setsockopt(socket.SOL_SOCKET, SO_REUSEPORT, 1)
    if family == socket.AF_INET6:
        one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, "v6only" in options)
    device = next((option[7:] for option in options if option.startswith("device=")), None)
    if device is not None:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
    one.bind((address, port))
    return one


def ready() -> None:
    """Tell the test that the fault stands."""
    print("ready", flush=True)


def rest() -> None:
    """Live on without doing anything."""
    while True:
        time.sleep(3600)


def take(listener: socket.socket, late: float = 0.0) -> None:
    """Accept every connection, say nothing, and keep it until the client goes: what an idle HTTP server does."""
    watch = selectors.DefaultSelector()
    watch.register(listener, selectors.EVENT_READ)
    while True:
        for key, _ in watch.select():
            if key.fileobj is listener:
                time.sleep(late)
                watch.register(listener.accept()[0], selectors.EVENT_READ)
                continue
            client = key.fileobj
            assert isinstance(client, socket.socket)
            if not received(client):
                watch.unregister(client)
                client.close()


def received(client: socket.socket) -> bytes:
    """What the client sent; empty when it has gone."""
    try:
        return client.recv(4096)
    except ConnectionError:
        return b""


def accepts(address: str, port: int, options: frozenset[str]) -> None:
    """A healthy server."""
    listener = bound(address, port, options)
    listener.listen(128)
    ready()
    take(listener)


def accepts_late(address: str, port: int, options: frozenset[str]) -> None:
    """A healthy server under load: it needs 100 ms to come to accept."""
    listener = bound(address, port, options)
    listener.listen(128)
    ready()
    take(listener, late=0.1)


def defers(address: str, port: int, options: frozenset[str]) -> None:
    """A healthy server that is woken by the first data only (TCP_DEFER_ACCEPT, tcp(7))."""
    listener = bound(address, port, options)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 30)
    listener.listen(128)
    ready()
    take(listener)


def defers_all_the_time(address: str, port: int, options: frozenset[str]) -> None:
    """A noisy neighbour: clients without data at a server that wants some, as fast as it can."""
    listener = bound(address, port, options)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 30)
    listener.listen(128)
    ready()
    while True:
        with socket.create_connection((address, port)) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def hangs_up(address: str, port: int, options: frozenset[str]) -> None:
    """Takes every connection and ends it without a word: a forwarder whose far side refuses."""
    listener = bound(address, port, options)
    listener.listen(128)
    ready()
    while True:
        listener.accept()[0].close()


def never_accepts(address: str, port: int, options: frozenset[str]) -> None:
    """The kernel completes connections into a long queue that nobody empties."""
    listener = bound(address, port, options)
    listener.listen(128)
    ready()
    rest()


def full(address: str, port: int, options: frozenset[str]) -> None:
    """The accept queue of one is filled to the brim, and a client is already turned away."""
    listener = bound(address, port, options)
    listener.listen(1)
    clients = []
    for _ in range(4):
        client = socket.socket(listener.family)
        client.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            client.connect((address, port))
        clients.append(client)
        time.sleep(0.02)
    ready()
    rest()


def serves_one_at_a_time(address: str, port: int, options: frozenset[str]) -> None:
    """A development server: whoever is connected is served for 0.1 s, and all others wait for that."""
    listener = bound(address, port, options)
    listener.listen(128)
    ready()
    while True:
        client = listener.accept()[0]
        time.sleep(0.1)
        client.close()


def has_workers(address: str, port: int, options: frozenset[str]) -> None:
    """A master that accepts nothing, and workers=N that serve one client each until it goes; idle=N clients come."""
    wanted = dict(option.split("=", 1) for option in options if "=" in option)
    listener = bound(address, port, options)
    listener.listen(128)
    for _ in range(int(wanted["workers"])):
        if os.fork() == 0:
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, 9, 0, 0, 0)
            while True:
                client = listener.accept()[0]
                while received(client):
                    pass
                client.close()
    clients = [socket.create_connection((address, port)) for _ in range(int(wanted.get("idle", "0")))]
    time.sleep(0.1)
    ready()
    rest()
    del clients


def restarts(address: str, port: int, options: frozenset[str]) -> None:
    """A server that ends at its first client, under a loop that starts it again after 0.1 s."""
    first = True
    while True:
        child = os.fork()
        if child == 0:
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, 9, 0, 0, 0)
            listener = bound(address, port, options)
            listener.listen(128)
            if first:
                ready()
            listener.accept()
            os._exit(3)
        os.waitpid(child, 0)
        first = False
        time.sleep(0.1)


def comes_and_goes(address: str, port: int, options: frozenset[str]) -> None:
    """A server that stays up for 0.1 s and is back after as long."""
    ready()
    while True:
        with bound(address, port, options) as listener:
            listener.listen(128)
            time.sleep(0.1)
        time.sleep(0.1)


def binds(address: str, port: int, options: frozenset[str]) -> None:
    """Holds the port without listening."""
    holder = bound(address, port, options)
    ready()
    rest()
    holder.close()


def datagrams(address: str, port: int, options: frozenset[str]) -> None:
    """Speaks UDP on the port."""
    endpoint = bound(address, port, options, socket.SOCK_DGRAM)
    ready()
    while True:
        endpoint.recvfrom(4096)


def calls_out(address: str, port: int, options: frozenset[str]) -> None:
    """A client whose own end of a connection has the port (the namespace hands out no other one)."""
    listener = bound(address, 1, options)
    listener.listen(8)
    client = socket.create_connection((address, 1))
    assert client.getsockname()[1] == port, client.getsockname()
    ready()
    take(listener)


def calls_out_by_its_own_port(address: str, port: int, options: frozenset[str]) -> None:
    """A client that has bound its own port, which the kernel gives to nobody, towards a server on one that it gives."""
    listener = bound(address, 0, options)
    listener.listen(8)
    client = bound(address, port, options | {"plain"})
    client.connect(listener.getsockname())
    ready()
    take(listener)


def leader_ends(address: str, port: int, options: frozenset[str]) -> None:
    """A server whose first thread has ended, while another serves: its process is shown as a zombie."""
    listener = bound(address, port, options)
    listener.listen(128)
    threading.Thread(target=take, args=(listener,)).start()
    ready()
    ctypes.CDLL(None).syscall(93 if platform.machine() == "aarch64" else 60, 0)  # exit(2) of this thread alone


def traces(_: str, pid: int, __: frozenset[str]) -> None:
    """A debugger that holds the process with this pid (in the place of a port)."""
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.ptrace(PTRACE_ATTACH, pid, None, None) == 0, ctypes.get_errno()
    os.waitpid(pid, 0)
    ready()
    rest()


def joined_to_itself(address: str, port: int, _: frozenset[str]) -> None:
    """A client that was given the very port that it dials, and so met itself (the namespace hands out no other one)."""
    met = socket.create_connection((address, port))
    assert met.getsockname() == met.getpeername()
    ready()
    rest()


def outlives_its_listener(address: str, port: int, options: frozenset[str]) -> None:
    """A server that stopped listening and still serves a client."""
    listener = bound(address, port, options | {"plain"})
    listener.listen(1)
    client = socket.create_connection((address, port))
    served = listener.accept()[0]
    listener.close()
    ready()
    rest()
    served.close()
    client.close()


def lingers(address: str, port: int, options: frozenset[str]) -> None:
    """Served a client, closed first, and is gone but for the TIME-WAIT that the kernel keeps."""
    listener = bound(address, port, options)
    listener.listen(8)
    client = socket.create_connection((address, port))
    served, _ = listener.accept()
    served.close()
    listener.close()
    assert client.recv(1) == b""
    client.close()
    ready()
    rest()


def refused_all_the_time(address: str, port: int, _: frozenset[str]) -> None:
    """A noisy neighbour: clients that are refused by the kernel, as fast as it can."""
    ready()
    while True:
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as client:
            client.connect_ex((address, port))


def crowd(_: str, __: int, options: frozenset[str]) -> None:
    """A crowded machine: processes=N with sockets=M listening each, all gone when this one is."""
    wanted = dict(option.split("=", 1) for option in options)
    processes = int(wanted["processes"])
    alive, held = os.pipe()
    stands, told = os.pipe()
    for number in range(processes):
        if os.fork() == 0:
            os.close(held)
            address = f"127.1.{number // 250}.{number % 250 + 1}"
            kept = [bound(address, 0, frozenset()) for _ in range(int(wanted["sockets"]))]
            for one in kept:
                one.listen(1)
            os.write(told, b".")
            os.read(alive, 1)
            os._exit(0)
    for number in range(processes):
        assert os.read(stands, 1), number
    ready()
    rest()


def names(address: str, port: int, options: frozenset[str]) -> None:
    """A name server: answers A for NAME=ADDRESS options, and for any other name that it does not exist."""
    known = dict(option.split("=", 1) for option in options)
    endpoint = bound(address, port, frozenset(), socket.SOCK_DGRAM)
    ready()
    while True:
        query, client = endpoint.recvfrom(4096)
        endpoint.sendto(reply(query, known), client)


def reply(query: bytes, known: dict[str, str]) -> bytes:
    """The answer to one DNS query (RFC 1035, section 4)."""
    labels, at = [], 12
    while query[at]:
        labels.append(query[at + 1 : at + 1 + query[at]].decode())
        at += 1 + query[at]
    question = query[12 : at + 5]
    wanted = struct.unpack("!H", query[at + 1 : at + 3])[0]
    address = known.get(".".join(labels))
    found = [socket.inet_aton(address)] if address and wanted == 1 else []
    header = query[:2] + struct.pack("!HHHHH", 0x8180 if address else 0x8183, 1, len(found), 0, 0)
    return header + question + b"".join(b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 5, 4) + data for data in found)


CONDUCTS: dict[str, Callable[[str, int, frozenset[str]], None]] = {
    one.__name__: one
    for one in (
        accepts,
        accepts_late,
        defers,
        defers_all_the_time,
        hangs_up,
        never_accepts,
        full,
        serves_one_at_a_time,
        has_workers,
        restarts,
        comes_and_goes,
        binds,
        datagrams,
        calls_out,
        calls_out_by_its_own_port,
        leader_ends,
        traces,
        joined_to_itself,
        outlives_its_listener,
        lingers,
        refused_all_the_time,
        crowd,
        names,
    )
}


def main(conduct: str, address: str, port: str, *options: str) -> None:
    """Do as told; the option name=TEXT is what the kernel will call this process."""
    called = next((option[5:] for option in options if option.startswith("name=")), None)
    if called is not None:
        ctypes.CDLL(None).prctl(PR_SET_NAME, called.encode(errors="surrogateescape"), 0, 0, 0)
    CONDUCTS[conduct](address, int(port), frozenset(options))


if __name__ == "__main__":
    main(*sys.argv[1:])
