"""A half-open connection: the listener's wish, or an ACK that was lost, on an idle and on a busy machine."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from diagnose.model.attempt import AckWitness
from diagnose.model.fact import Fact, Known, Unknown
from diagnose.model.network import Endpoint, family_of
from diagnose.probes.connect import SENT_AGAIN
from diagnose.probes.deferral import Deferrals, counted
from tests.lab_probes.own_network import as_nobody, own_network

pytestmark = [pytest.mark.lab]

PORT, OTHER = 8080, 8081
ADDRESSES = pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
DEFERRING_CLIENTS = """
import socket, struct, sys, time
while True:
    with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    time.sleep(float(sys.argv[2]))
"""


@pytest.fixture(autouse=True)
def _network() -> Iterator[None]:
    with own_network():
        yield


@contextmanager
def listening(address: str, port: int = PORT, *, defers: bool = True) -> Iterator[socket.socket]:
    """A listener that wants data first, or an ordinary one, and nobody who accepts."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as server:
        if defers:
            server.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 30)
        server.bind((address, port))
        server.listen(512)
        yield server


@contextmanager
def others(pause: float) -> Iterator[None]:
    """Another listener that defers, and a client of it every so many seconds."""
    with listening("127.0.0.1", OTHER):
        argv = [sys.executable, "-I", "-S", "-c", DEFERRING_CLIENTS, str(OTHER), str(pause)]
        with subprocess.Popen(argv) as client:
            time.sleep(0.2)
            yield
            client.kill()


def lose_the_ack() -> None:
    """A rule that takes nothing but an ACK without data."""
    rule = ("add", "rule", "inet", "f", "input", "tcp", "dport", str(PORT), "tcp", "flags", "==", "ack", "drop")
    for words in (
        ("add", "table", "inet", "f"),
        ("add", "chain", "inet", "f", "input", "{", "type", "filter", "hook", "input", "priority", "0", ";", "}"),
        rule,
    ):
        subprocess.run(["nft", *words], check=True)


def told(address: str) -> tuple[bool, bool] | Unknown:
    match counted(Endpoint(address, PORT)):
        case Known(value=AckWitness(held_back=held_back, distinct=distinct)):
            return held_back, distinct
        case Unknown() as unknown:
            return unknown


def told_in_the_end(address: str) -> tuple[bool, bool] | Unknown:
    """The first distinct word: beside other tests the processors may be too busy for a look, and then it says less."""
    said = told(address)
    for _ in range(5):
        if not isinstance(said, tuple) or said[1]:
            return said
        said = told(address)
    return said


@ADDRESSES
def test_an_ack_that_the_listener_holds_back_is_told_and_no_program_hears_of_it(address: str) -> None:
    with listening(address) as server:
        assert told_in_the_end(address) == (True, True)
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()


@ADDRESSES
@pytest.mark.parametrize("defers", [True, False])
def test_a_lost_ack_is_told_whether_the_listener_defers_or_not(address: str, defers: bool) -> None:
    lose_the_ack()
    with listening(address, defers=defers):
        assert told_in_the_end(address) == (False, True)


def test_an_ordinary_user_is_told_as_well() -> None:
    with listening("127.0.0.1"):
        assert as_nobody(lambda: told_in_the_end("127.0.0.1")) == (True, True)


@pytest.mark.parametrize("pause", [0.01, 0.001, 0.0])
@pytest.mark.parametrize("lost", [False, True])
def test_others_that_defer_are_never_taken_for_ours(pause: float, lost: bool) -> None:
    if lost:
        lose_the_ack()
    with listening("127.0.0.1"), others(pause):
        for _ in range(10):
            said = told("127.0.0.1")
            assert isinstance(said, tuple), said
            held_back, distinct = said
            assert held_back is not lost or not distinct


def test_connections_that_are_made_are_none_to_ask_about() -> None:
    with listening("127.0.0.1", defers=False):
        assert isinstance(told("127.0.0.1"), Unknown)


@pytest.mark.parametrize("lost", [False, True])
def test_after_a_second_what_the_kernel_sends_again_tells(lost: bool) -> None:
    if lost:
        lose_the_ack()
    with listening("127.0.0.1"), socket.create_connection(("127.0.0.1", PORT)) as client:
        time.sleep(SENT_AGAIN)
        here = Endpoint(*client.getsockname())
        witness: Fact[AckWitness] = Deferrals().held_back(Endpoint("127.0.0.1", PORT), here, SENT_AGAIN)
    assert isinstance(witness, Known)
    assert (witness.value.held_back, witness.value.distinct) == (not lost, True)
    assert family_of(here.address) == "ipv4"
