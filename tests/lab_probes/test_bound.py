"""Bound sockets found by their descriptors, held against what sock_diag lists (Linux 6.8 and newer)."""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest
from msgspec.structs import replace

from diagnose.model.fact import Known, Reason, Unknown
from diagnose.probes import bound, sockets

pytestmark = pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="needs root on Linux")

HELD = """
import os, socket, sys, time
address, port = sys.argv[1], int(sys.argv[2])
if sys.argv[3:]:
    os.setuid(int(sys.argv[3]))
one = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
one.bind((address, port))
print(one.getsockname()[1], flush=True)
time.sleep(60)
"""


@pytest.fixture
def hold() -> Iterator[object]:
    """Starts processes that hold a bound socket each, and gives its port."""
    held: list[subprocess.Popen[bytes]] = []

    def start(address: str, *before: str, uid: str = "0") -> int:
        process = subprocess.Popen(
            [*before, sys.executable, "-c", HELD, address, "0", uid], stdout=subprocess.PIPE, bufsize=0
        )
        held.append(process)
        assert process.stdout is not None
        return int(process.stdout.readline())

    yield start
    for process in held:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0", "::1", "::"])
def test_what_is_found_by_descriptors_is_what_sock_diag_lists(hold, address: str) -> None:  # type: ignore[no-untyped-def]
    port = hold(address)
    listed = sockets.look({port}).bound
    if isinstance(listed, Unknown):
        pytest.skip("this kernel does not list them: there is nothing to compare with")
    assert len(listed.value) == 1
    assert bound.look({port}, 5.0) == Known(tuple(replace(row, drops=None) for row in listed.value))


def test_listening_connected_and_datagram_sockets_are_none_of_them() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(type=socket.SOCK_DGRAM) as datagrams:
        port = server.getsockname()[1]
        datagrams.bind(("127.0.0.1", port))
        with socket.create_connection(("127.0.0.1", port)) as client, server.accept()[0]:
            ports = {port, client.getsockname()[1]}
            found = bound.look(ports, 5.0)
    assert found == Known(()) or isinstance(found, Unknown)


def test_a_socket_of_another_network_namespace_is_none_of_ours(hold) -> None:  # type: ignore[no-untyped-def]
    port = hold("0.0.0.0", "unshare", "--net")
    found = bound.look({port}, 5.0)
    assert found == Known(()) or isinstance(found, Unknown)


def test_the_socket_that_is_asked_stays_as_it_was() -> None:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        before = fcntl.fcntl(one, fcntl.F_GETFL), one.getsockname(), one.getblocking()
        descriptors = sorted(os.listdir("/proc/self/fd"))
        found = bound.look({one.getsockname()[1]}, 5.0)
        assert sorted(os.listdir("/proc/self/fd")) == descriptors
        assert (fcntl.fcntl(one, fcntl.F_GETFL), one.getsockname(), one.getblocking()) == before
        assert isinstance(found, Known)
        assert [row.inode for row in found.value] == [os.fstat(one.fileno()).st_ino]
        one.listen()  # nobody has it shut down


def test_a_user_who_may_not_look_does_not_hear_that_there_is_none(hold) -> None:  # type: ignore[no-untyped-def]
    port = hold("127.0.0.1")
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        os.setuid(65534)
        found = bound.look({port}, 5.0)
        told = isinstance(found, Unknown) and found.reason is Reason.NEEDS_ROOT
        os.write(writing, b"+" if told else repr(found).encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reading, 4096) == b"+"


def test_the_deadline_holds() -> None:
    found = bound.look({1}, -1.0)
    assert isinstance(found, Unknown)
    assert found.reason is Reason.DEADLINE
