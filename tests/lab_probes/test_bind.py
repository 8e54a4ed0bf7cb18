"""Binding for real: how it ends, that it leaves nothing, and the matrix of conflicts pair by pair."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
from collections.abc import Iterator

import pytest

from diagnose.analysis.bind_conflict import conflict
from diagnose.model.attempt import Outcome
from diagnose.model.fact import Known
from diagnose.probes import bind, sockets
from tests.lab_probes.own_network import as_nobody, own_network

pytestmark = [pytest.mark.lab]

PORT = 8080
V6ONLY = " v6only"
ADDRESSES = (
    "127.0.0.1",
    "127.0.0.2",
    "127.0.0.6",  # what the kernel keeps in the IPv4 field of an IPv6 socket (LOOPBACK4_IPV6)
    "0.0.0.0",
    "::1",
    "::2",
    "::",
    "::" + V6ONLY,
    "::ffff:127.0.0.1",
    "::ffff:127.0.0.2",
    "::ffff:0.0.0.0",
    "fe80::1%v0",
    "fe80::1%v1",
)
DEVICES = (None, "lo", "v0")


@pytest.fixture(autouse=True)
def _network() -> Iterator[None]:
    with own_network():
        yield


def held(address: str, *, reuse: bool = True, device: str | None = None) -> socket.socket:
    """A socket bound as the words say."""
    literal, _, zone = address.removesuffix(V6ONLY).partition("%")
    one = socket.socket(socket.AF_INET6 if ":" in literal else socket.AF_INET)
    try:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse)
        if literal == "::":
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, address.endswith(V6ONLY))
        if device:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
        one.bind((literal, PORT, 0, socket.if_nametoindex(zone)) if zone else (literal, PORT))
    except OSError:
        one.close()
        raise
    return one


def outcomes(address: str = "127.0.0.1", port: int = PORT) -> tuple[Outcome, Outcome]:
    """With SO_REUSEADDR, and without."""
    tried = bind.attempt(address, port)
    return tried.outcome, tried.plain_outcome


IN_USE, FREE = (Outcome.ADDRESS_IN_USE,) * 2, (Outcome.BOUND,) * 2
ONLY_WITH_REUSE = (Outcome.BOUND, Outcome.ADDRESS_IN_USE)


def test_the_matrix_says_what_the_kernel_does_for_every_pair_of_addresses_and_devices() -> None:
    for command in (
        "ip link add v0 type veth peer name v1",
        "ip link set v0 up",
        "ip link set v1 up",
        "ip address add ::2/128 dev lo nodad",
        "ip address add fe80::1/64 dev v0 nodad",
        "ip address add fe80::1/64 dev v1 nodad",
    ):
        subprocess.run(command.split(), check=True)
    tried = 0
    for first, first_device in ((a, d) for a in ADDRESSES for d in DEVICES):
        try:
            listener = held(first, device=first_device)
        except OSError:
            continue  # a zone and a device that exclude each other
        with listener:
            listener.listen()
            listeners = sockets.look([PORT]).listeners
            assert isinstance(listeners, Known)
            (row,) = listeners.value
            for second, device in ((a, d) for a in ADDRESSES for d in DEVICES):
                try:
                    held(second, device=device).close()
                    kernel = True
                except OSError as error:
                    if error.errno != errno.EADDRINUSE:
                        continue
                    kernel = False
                wanted = second.removesuffix(V6ONLY)
                ours = conflict(wanted, second.endswith(V6ONLY), row, device)
                tried += 1
                if ours is not None and not ours.certain:
                    assert (first, second.startswith("::ffff:127.")) == ("::ffff:0.0.0.0", True), (first, second)
                    continue  # both answers are a kernel's: 6.1 lets both have the port, 5.10 and 6.12 do not
                assert (ours is None) is kernel, f"{first} on {first_device} then {second} on {device}: {ours}"
    assert tried > 1000


def test_a_free_port_is_bound_both_ways() -> None:
    assert outcomes() == FREE


def test_a_listener_has_the_port_both_ways() -> None:
    with held("127.0.0.1") as one:
        one.listen()
        assert outcomes() == IN_USE


@pytest.mark.parametrize(("reuse", "expected"), [(True, ONLY_WITH_REUSE), (False, IN_USE)])
def test_time_wait_depends_on_the_old_sockets_flag(reuse: bool, expected: tuple[Outcome, Outcome]) -> None:
    with held("127.0.0.1", reuse=reuse) as one:
        one.listen()
        with socket.create_connection(("127.0.0.1", PORT)):
            one.accept()[0].close()
    assert outcomes() == expected


@pytest.mark.parametrize(("reuse", "expected"), [(True, ONLY_WITH_REUSE), (False, IN_USE)])
def test_a_bound_socket_that_does_not_listen_has_the_port(reuse: bool, expected: tuple[Outcome, Outcome]) -> None:
    with held("127.0.0.1", reuse=reuse):
        assert outcomes() == expected


def test_a_privileged_port_is_denied_to_an_ordinary_user() -> None:
    tried = as_nobody(lambda: bind.attempt("127.0.0.1", 80))
    assert (tried.outcome, tried.errno) == (Outcome.DENIED, "EACCES")


def test_an_address_of_nobody_here_is_unavailable() -> None:
    tried = bind.attempt("192.0.2.1", PORT)
    assert (tried.outcome, tried.errno) == (Outcome.ADDRESS_UNAVAILABLE, "EADDRNOTAVAIL")


def test_a_zone_that_does_not_exist_is_an_error_and_no_crash() -> None:
    assert bind.attempt("fe80::1%nowhere", PORT).errno == "ENODEV"


def test_the_ipv6_wildcard_takes_ipv4_as_a_servers_would() -> None:
    with held("127.0.0.1") as one:
        one.listen()
        assert outcomes("::") == IN_USE
        with open("/proc/sys/net/ipv6/bindv6only", "w") as sysctl:
            sysctl.write("1")
        assert outcomes("::") == FREE


def test_the_attempt_leaves_nothing_and_never_listens() -> None:
    before = sockets.look([PORT])
    descriptors = os.listdir("/proc/self/fd")
    bind.attempt("127.0.0.1", PORT)
    assert sockets.look([PORT]) == before
    assert os.listdir("/proc/self/fd") == descriptors
