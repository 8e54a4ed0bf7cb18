"""/proc/net tables as Linux 6.18 printed them."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diagnose.model.network import Endpoint, TcpState
from diagnose.parse import proc_net

pytestmark = pytest.mark.skipif(sys.byteorder != "little", reason="the tables below are of a little-endian machine")

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
TCP = (
    HEAD + "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000002 00:00000000 00000000 65534        0 5432 1 0 100 0\n"
    "   1: 0100007F:1F90 0100007F:B3EA 01 00000005:0000000A 00:00000000 00000000     0        0 77 1 0 20 4 1 10 -1\n"
    "   2: 0100007F:1F90 0100007F:B3EC 06 00000000:00000000 03:00001769 00000000     0        0 0 3 0\n"
    "   3: 0100007F:B3EA 0100007F:1F90 01 00000000:00000000 00:00000000 00000000     0        0 78 1 0 20 4 1 10 -1\n"
    "   4: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 99 1 0 100 0 0 10 0\n"
)
TCP6 = (
    HEAD + "   0: 00000000000000000000000000000000:1F90 00000000000000000000000000000000:0000 0A 00000000:00000000 "
    "00:00000000 00000000     0        0 12 1 0 100 0 0 10 0\n"
    "   1: 0000000000000000FFFF00000100007F:1F90 0000000000000000FFFF00000100007F:B3EA 08 00000000:00000001 "
    "00:00000000 00000000     0        0 13 1 0 20 4 1 10 -1\n"
    "   2: 000080FE00000000FF005450B1FE4C2A:1F90 B80D0120000000000000000001000000:01BB 02 00000000:00000000 "
    "00:00000000 00000000     0        0 14 1 0 20 4 1 10 -1\n"
)
UDP = (
    "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer\n"
    "  100: 0100007F:1F90 00000000:0000 07 00000000:00000000 00:00000000 00000000   101        0 4711 2 0 9\n"
)


def test_a_listener_is_read_with_its_owner_and_inode() -> None:
    row = next(proc_net.tcp(TCP, "ipv4", [8080]))
    assert (row.local, row.state, row.uid, row.inode) == (Endpoint("127.0.0.1", 8080), TcpState.LISTEN, 65534, 5432)


def test_the_queue_of_a_listener_is_not_told_without_its_limit() -> None:
    row = next(proc_net.tcp(TCP, "ipv4", [8080]))
    assert (row.queue, row.backlog, row.drops) == (0, 0, None)


def test_the_queues_of_a_connection_are_told() -> None:
    row = list(proc_net.tcp(TCP, "ipv4", [8080]))[1]
    assert (row.peer, row.queue, row.backlog) == (Endpoint("127.0.0.1", 46058), 10, 5)


def test_all_rows_of_the_port_and_the_listeners_of_every_port_are_read() -> None:
    rows = [(row.local.port, row.state) for row in proc_net.tcp(TCP, "ipv4", [8080])]
    assert rows == [
        (8080, TcpState.LISTEN),
        (8080, TcpState.ESTABLISHED),
        (8080, TcpState.TIME_WAIT),
        (22, TcpState.LISTEN),
    ]


def test_ipv6_addresses_are_read_as_the_kernel_means_them() -> None:
    rows = list(proc_net.tcp(TCP6, "ipv6", [8080]))
    assert [row.local.address for row in rows] == ["::", "::ffff:127.0.0.1", "fe80::5054:ff:2a4c:feb1"]
    assert rows[2].peer == Endpoint("2001:db8::1", 443)


def test_v6only_is_not_known_from_here() -> None:
    assert {row.v6only for row in proc_net.tcp(TCP6, "ipv6", [8080])} == {None}


def test_udp_rows_are_read_with_their_drops() -> None:
    (row,) = proc_net.udp(UDP, "ipv4", [8080])
    assert (row.local, row.uid, row.drops) == (Endpoint("127.0.0.1", 8080), 101, 9)


def test_another_port_has_no_rows() -> None:
    assert list(proc_net.udp(UDP, "ipv4", [8081])) == []


def test_an_empty_table_has_no_rows() -> None:
    assert list(proc_net.tcp(HEAD, "ipv4", [8080])) == []


@pytest.mark.parametrize("text", ["", "permission denied\n", HEAD + "   0: 0100007F:1F90 rubbish\n"])
def test_what_is_no_socket_table_is_an_error_and_no_empty_table(text: str) -> None:
    with pytest.raises(ValueError):
        list(proc_net.tcp(text, "ipv4", [8080]))


@given(st.text(max_size=200))
def test_any_text_is_rows_or_an_error(text: str) -> None:
    try:
        rows = list(proc_net.tcp(HEAD + text, "ipv4", [8080]))
    except ValueError:
        return
    assert all(0 <= row.local.port <= 0xFFFF for row in rows)


def test_the_far_end_of_a_connection_is_found_by_its_peer_s_port() -> None:
    row = "   1: 020011AC:0050 010011AC:A3B2 01 00000000:00000000 00:00000000 00000000     0        0 0 1 x\n"
    other = "   2: 020011AC:0050 010011AC:A3B3 01 00000000:00000000 00:00000000 00000000     0        0 7 1 x\n"
    (found,) = proc_net.connections(HEAD + row + other, "ipv4", {0xA3B2})
    assert (str(found.local), str(found.peer), found.inode) == ("172.17.0.2:80", "172.17.0.1:41906", 0)
