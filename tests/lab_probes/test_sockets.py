"""The socket tables, asked of the kernel about sockets that the test has just made."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Iterator

import pytest

from diagnose.model.attempt import Acceptance
from diagnose.model.fact import Fact, Known, Reason, Unknown
from diagnose.model.network import Endpoint, SocketRow, TcpState
from diagnose.probes import sockets
from diagnose.probes.netlink import ROUTE, Netlink
from tests.lab_probes.own_network import as_nobody, own_network

pytestmark = [pytest.mark.lab]

PORT = 8080
LOCALHOST = Endpoint("127.0.0.1", PORT)


@pytest.fixture(autouse=True)
def _network() -> Iterator[None]:
    with own_network():
        yield


def listener(address: str, port: int = PORT, backlog: int = 8, v6only: bool | None = None) -> socket.socket:
    """A listening socket."""
    one = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if v6only is not None:
        one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, v6only)
    one.bind((address, port))
    one.listen(backlog)
    return one


def dial(address: str, port: int = PORT) -> tuple[socket.socket, Endpoint]:
    """A connection, and its own end."""
    client = socket.create_connection((address, port), timeout=1)
    return client, Endpoint(*client.getsockname()[:2])


def inode(one: socket.socket) -> int:
    """What /proc/PID/fd calls the socket."""
    return os.fstat(one.fileno()).st_ino


def known(fact: Fact[tuple[SocketRow, ...]]) -> tuple[SocketRow, ...]:
    """The rows."""
    assert isinstance(fact, Known), fact
    return fact.value


def server_side(client: Endpoint, server: Endpoint = LOCALHOST) -> Acceptance | Reason:
    """What is said of the connection, or why nothing is."""
    match sockets.server_side(server, client):
        case Known(value=acceptance):
            return acceptance
        case Unknown(reason=reason):
            return reason


def test_a_listener_is_told_with_its_inode_queue_backlog_and_drops() -> None:
    with listener("127.0.0.1", backlog=7) as held, dial("127.0.0.1")[0]:
        (row,) = known(sockets.look([PORT]).listeners)
        assert (row.local, row.state, row.inode) == (LOCALHOST, TcpState.LISTEN, inode(held))
        assert (row.queue, row.backlog, row.drops) == (1, 7, 0)


def test_v6only_is_told_of_ipv6_listeners_and_not_of_ipv4_ones() -> None:
    with listener("::", 1, v6only=True), listener("::", 2, v6only=False), listener("127.0.0.1", 3):
        rows = {row.local.port: row.v6only for row in known(sockets.look([1, 2, 3]).listeners)}
    assert rows == {1: True, 2: False, 3: None}


def test_listeners_of_other_ports_are_listed_among_the_listeners_only() -> None:
    with listener("127.0.0.1"), listener("127.0.0.1", PORT + 1):
        tables = sockets.look([PORT])
    assert [row.local.port for row in known(tables.listeners)] == [PORT, PORT + 1]
    assert [row.local.port for row in known(tables.tcp)] == [PORT]


@pytest.mark.parametrize("ports", [[PORT], range(PORT - 50, PORT + 50)], ids=["one port", "a hundred ports"])
def test_a_connection_is_told_by_its_local_port_in_every_state(ports: list[int]) -> None:
    with listener("127.0.0.1") as held:
        one, one_end = dial("127.0.0.1")
        two, two_end = dial("127.0.0.1")
        served = held.accept()[0]
        held.accept()[0].close()
        two.close()
        rows = known(sockets.look(ports).tcp)
        states = {row.peer: row.state for row in rows if row.state is not TcpState.LISTEN}
        assert states == {one_end: TcpState.ESTABLISHED, two_end: TcpState.TIME_WAIT}
        served.close()
        one.close()


@pytest.mark.parametrize("sent", [0, 1, 100_000])
@pytest.mark.parametrize("ends", [False, True], ids=["open", "half-closed"])
@pytest.mark.parametrize("user", ["root", "nobody"])
def test_it_is_told_which_end_opened_a_connection_whatever_went_over_it(sent: int, ends: bool, user: str) -> None:
    with listener("127.0.0.1") as server, socket.socket() as client:
        client.bind(("127.0.0.1", 700))
        client.connect(("127.0.0.1", PORT))
        with server.accept()[0] as served:
            for one, other in ((client, served), (served, client)):
                one.sendall(b"x" * sent)
                taken = 0
                while taken < sent:
                    taken += len(other.recv(1 << 20))
            if ends:
                client.shutdown(socket.SHUT_WR)
            time.sleep(0.1)  # for the last acknowledgement, which may be delayed by 40 ms
            look = sockets.look if user == "root" else lambda *a, **k: as_nobody(lambda: sockets.look(*a, **k))
            rows = known(look((PORT, 700), origins=True).tcp)
            opened = {row.local.port: row.opened_here for row in rows if row.state is not TcpState.LISTEN}
            assert opened == {700: True, PORT: False}
            unasked = known(sockets.look((PORT, 700)).tcp)
            assert {row.opened_here for row in unasked} == {None}


def test_a_dual_stack_listeners_connections_keep_the_form_that_the_kernel_shows() -> None:
    with listener("::", v6only=False), dial("127.0.0.1")[0]:
        rows = known(sockets.look([PORT]).tcp)
    assert [row.local.address for row in rows] == ["::", "::ffff:127.0.0.1"]


def test_a_device_is_told_by_its_name() -> None:
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")
        held.bind(("127.0.0.1", PORT))
        held.listen()
        (row,) = known(sockets.look([PORT]).listeners)
    assert row.device == "lo"


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_a_socket_that_is_bound_and_does_not_listen_is_told_once_and_on_its_port_only(address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as held, socket.socket(family) as other:
        held.bind((address, PORT))
        other.bind((address, PORT + 1))
        tables = sockets.look([PORT, PORT + 2])
        (row,) = known(tables.bound)
        assert (row.local, row.state, row.inode) == (Endpoint(address, PORT), TcpState.BOUND_INACTIVE, inode(held))
        assert known(tables.tcp) == ()


def test_no_bound_sockets_on_an_old_kernel_are_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    # no older kernel is at hand: only its name is
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "old", "5.15.0-91-generic", "", "")))
    fact = sockets.look([PORT]).bound
    assert isinstance(fact, Unknown)
    assert fact.reason is Reason.KERNEL_TOO_OLD


def test_udp_sockets_are_told_apart_from_tcp_ones() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as held:
        held.bind(("127.0.0.1", PORT))
        tables = sockets.look([PORT])
    assert [row.local for row in known(tables.udp)] == [LOCALHOST]
    assert known(tables.tcp) == ()


def test_an_ordinary_user_gets_the_same_tables_as_root() -> None:
    with listener("::", v6only=True), dial("::1")[0], socket.socket() as idle:
        idle.bind(("127.0.0.1", PORT))
        assert as_nobody(lambda: sockets.look([PORT])) == sockets.look([PORT])


def test_without_netlink_proc_tells_the_same_sockets_and_what_it_cannot_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        listener("::", v6only=True),
        dial("::1")[0],
        listener("127.0.0.1", 9),
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams,
    ):
        datagrams.bind(("127.0.0.1", PORT))
        full = sockets.look([PORT])

        def refuse(_: int) -> Netlink:
            raise PermissionError(13, "a sandbox forbids AF_NETLINK")

        monkeypatch.setattr(sockets, "Netlink", refuse)
        less = sockets.look([PORT])
        witness = sockets.listener_witness("127.0.0.1", PORT)
        acceptance = server_side(Endpoint("::1", 1), Endpoint("::1", PORT))

    def key(row: SocketRow) -> tuple[object, ...]:
        return row.local, row.peer, row.state, row.family, row.inode, row.uid

    for one, other in zip(full, less, strict=True):
        if isinstance(other, Known):
            assert list(map(key, known(one))) == list(map(key, other.value))
    assert less.bound == Unknown(Reason.FAILED, "sock_diag: EACCES")
    assert {row.v6only for row in known(less.listeners)} == {None}
    assert isinstance(witness, Unknown)
    assert acceptance is Reason.FAILED


def test_off_linux_psutil_tells_the_listeners_by_pid() -> None:
    """Forced here: a stand-in for macOS and Windows, where there is nothing else."""
    with listener("127.0.0.1"), dial("127.0.0.1")[0]:
        tables = sockets.look([PORT], portable=True)
    assert [(row.local, row.inode) for row in known(tables.listeners)] == [(LOCALHOST, os.getpid())]
    assert [row.state for row in known(tables.tcp)] == [TcpState.LISTEN, TcpState.ESTABLISHED]
    assert tables.bound == Unknown(Reason.NOT_LINUX)


@pytest.mark.parametrize(("held", "dialled"), [("127.0.0.1", "127.0.0.1"), ("::", "127.0.0.1"), ("::", "::1")])
def test_a_connection_is_pending_until_the_program_takes_it(held: str, dialled: str) -> None:
    with listener(held) as server:
        client, end = dial(dialled)
        target = Endpoint(dialled, PORT)
        assert server_side(end, target) is Acceptance.PENDING
        served = server.accept()[0]
        assert server_side(end, target) is Acceptance.ACCEPTED
        client.close()
        assert server_side(end, target) is Acceptance.ACCEPTED  # CLOSE-WAIT, but held
        served.close()


def test_a_connection_that_the_client_has_half_closed_is_still_pending() -> None:
    with listener("127.0.0.1"):
        client, end = dial("127.0.0.1")
        client.shutdown(socket.SHUT_WR)
        assert server_side(end) is Acceptance.PENDING
        client.close()


def test_a_connection_that_the_program_took_and_closed_was_taken() -> None:
    with listener("127.0.0.1") as server:
        client, end = dial("127.0.0.1")
        server.accept()[0].close()
        assert server_side(end) is Acceptance.ACCEPTED  # FIN-WAIT without an inode
        client.close()
        assert server_side(end) is Acceptance.ACCEPTED  # TIME-WAIT


def test_a_connection_whose_listener_went_before_it_was_taken_is_not_visible() -> None:
    with listener("127.0.0.1"):
        client, end = dial("127.0.0.1")
    assert server_side(end) is Reason.NOT_VISIBLE
    client.close()


def test_a_deferred_accept_is_half_open_and_its_answer_is_not_sent_again() -> None:
    with socket.socket() as server:
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 10)
        server.bind(("127.0.0.1", PORT))
        server.listen()
        client, end = dial("127.0.0.1")
        assert server_side(end) is Acceptance.HALF_OPEN
        time.sleep(1.1)
        assert sockets.sent_again(LOCALHOST, end) == Known(0)
        client.close()


def test_a_connection_that_is_made_is_not_half_open() -> None:
    with listener("127.0.0.1"):
        client, end = dial("127.0.0.1")
        assert isinstance(sockets.sent_again(LOCALHOST, end), Unknown)
        client.close()


def test_the_listener_itself_is_never_taken_for_our_connection() -> None:
    with listener("127.0.0.1"):
        assert server_side(Endpoint("127.0.0.1", 3)) is Reason.NOT_VISIBLE


def test_a_connection_to_a_server_bound_to_a_device_is_found() -> None:
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")
        server.bind(("127.0.0.1", PORT))
        server.listen()
        client, end = dial("127.0.0.1")
        assert server_side(end) is Acceptance.PENDING
        client.close()


def test_an_ordinary_user_sees_whether_roots_server_took_the_connection() -> None:
    with listener("127.0.0.1") as server:
        client, end = dial("127.0.0.1")
        assert as_nobody(lambda: server_side(end)) is Acceptance.PENDING
        served = server.accept()[0]
        assert as_nobody(lambda: server_side(end)) is Acceptance.ACCEPTED
        served.close()
        client.close()


def test_the_witness_sees_a_full_queue_drop_what_comes() -> None:
    with listener("127.0.0.1", backlog=0):
        first = dial("127.0.0.1")[0]
        (before,) = known(sockets.listener_witness("127.0.0.1", PORT))
        with socket.socket() as late:
            late.setblocking(False)
            late.connect_ex(("127.0.0.1", PORT))
            time.sleep(0.02)
            (after,) = known(sockets.listener_witness("127.0.0.1", PORT))
        assert (before.queue, before.backlog, before.drops) == (1, 0, 0)
        assert after.drops == 1
        first.close()


def test_the_witness_of_an_ipv6_address_leaves_ipv4_listeners_out() -> None:
    with listener("127.0.0.1"), listener("::1"):
        assert [row.local.address for row in known(sockets.listener_witness("::1", PORT))] == ["::1"]
        assert {row.local.address for row in known(sockets.listener_witness("127.0.0.1", PORT))} == {"127.0.0.1", "::1"}


def test_rows_are_sorted() -> None:
    held = [listener("127.0.0.1", port) for port in (9, 7, 8)]
    assert [row.local.port for row in known(sockets.look([8]).listeners)] == [7, 8, 9]
    for one in held:
        one.close()


def test_a_refused_request_raises_the_kernels_errno() -> None:
    with Netlink(ROUTE) as netlink, pytest.raises(OSError) as caught:
        netlink.request(26, 0, b"\xff" * 12)  # RTM_GETROUTE of no family that there is
    assert caught.value.errno


def test_a_dump_is_whole_and_ends() -> None:
    held = [listener("127.0.0.1", port) for port in range(1000, 1600)]
    rows = known(sockets.look([PORT]).listeners)
    assert [row.local.port for row in rows] == list(range(1000, 1600))
    for one in held:
        one.close()


if sys.platform != "linux":
    pytestmark.append(pytest.mark.skip(reason="the kernel's tables are Linux's"))
