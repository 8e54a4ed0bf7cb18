"""Who sent the reset, by the kernel's counter, on quiet and on busy machines."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from diagnose.model.attempt import ResetWitness
from diagnose.model.fact import Fact, Known, Reason, Unknown
from diagnose.probes.reset import who_reset
from tests.lab_probes.namespace import in_namespace, nft

pytestmark = pytest.mark.lab

CLOSED, REJECTED, BY_ICMP, DROPPED, FLOODED = range(2101, 2106)
RULES = f"""
table inet t {{
 chain in {{ type filter hook input priority 0;
  tcp dport {REJECTED} reject with tcp reset
  tcp dport {BY_ICMP} reject
  tcp dport {DROPPED} drop
 }}
}}
"""
OTHERS = """
import socket, sys, time
pause = float(sys.argv[2])
end = time.monotonic() + 20
while time.monotonic() < end:
    with socket.socket() as tcp:
        tcp.setblocking(False)
        tcp.connect_ex(("127.0.0.1", int(sys.argv[1])))
    if pause:
        time.sleep(pause)
"""


def asked(port: int, address: str = "127.0.0.1", user: int = 0) -> Fact[ResetWitness]:
    def ask() -> Fact[ResetWitness]:
        nft(RULES)
        os.setuid(user)
        return who_reset(address, port)

    return in_namespace("", ask)


@pytest.mark.parametrize("user", [0, 65534])
@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_a_closed_port_is_reset_by_the_kernel(address: str, user: int) -> None:
    said = asked(CLOSED, address, user)
    assert isinstance(said, Known)
    assert (said.value.by_kernel, said.value.distinct, said.value.source) == (True, True, "OutRsts")
    assert said.value.counted == said.value.probes


@pytest.mark.parametrize("user", [0, 65534])
@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_a_rules_reset_is_not_the_kernels(address: str, user: int) -> None:
    said = asked(REJECTED, address, user)
    assert isinstance(said, Known)
    assert (said.value.by_kernel, said.value.distinct) == (False, True)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_an_icmp_refusal_is_no_reset_and_costs_no_second(address: str) -> None:
    began = time.monotonic()
    said = asked(BY_ICMP, address)
    assert isinstance(said, Unknown)
    assert said.reason is Reason.NOT_NEEDED
    assert time.monotonic() - began < 0.9


def test_silence_ends_the_question_soon() -> None:
    said = asked(DROPPED)
    assert isinstance(said, Unknown)
    assert "ETIMEDOUT" in said.detail


def test_a_port_that_listens_by_now_is_not_judged() -> None:
    def ask() -> Fact[ResetWitness]:
        with socket.create_server(("127.0.0.1", CLOSED)):
            return who_reset("127.0.0.1", CLOSED)

    assert isinstance(in_namespace("", ask), Unknown)


def test_no_probe_is_ever_joined_to_itself() -> None:
    script = "sysctl -qw net.ipv4.ip_local_port_range='2100 2103'"
    for said in in_namespace(script, lambda: [who_reset("127.0.0.1", CLOSED) for _ in range(5)]):
        assert isinstance(said, Known), said
        assert said.value.by_kernel


@contextmanager
def others(count: int, pause: float) -> Iterator[None]:
    """Processes whose connects the kernel resets, in the namespace of the caller."""
    processes = [subprocess.Popen([sys.executable, "-c", OTHERS, str(FLOODED), str(pause)]) for _ in range(count)]
    try:
        time.sleep(0.2)
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def verdicts(port: int, count: int, pause: float, rounds: int) -> Counter[tuple[bool, bool]]:
    def ask() -> Counter[tuple[bool, bool]]:
        nft(RULES)
        with others(count, pause):
            said = [who_reset("127.0.0.1", port) for _ in range(rounds)]
        return Counter((one.value.by_kernel, one.value.distinct) for one in said if isinstance(one, Known))

    return in_namespace("", ask)


@pytest.mark.parametrize(("count", "pause"), [(1, 0.0), (3, 0.0), (1, 0.0005), (1, 0.01)])
@pytest.mark.parametrize(("port", "wrong"), [(CLOSED, False), (REJECTED, True)])
def test_on_a_busy_machine_it_is_never_wrong(port: int, wrong: bool, count: int, pause: float) -> None:
    said = verdicts(port, count, pause, 20)
    assert said.total() == 20
    assert said[wrong, True] == 0


@pytest.mark.parametrize(("port", "by_kernel"), [(CLOSED, True), (REJECTED, False)])
def test_among_a_hundred_resets_a_second_it_is_still_distinct(port: int, by_kernel: bool) -> None:
    # other tests may take the processors: then it says less, and the next ten are asked
    best = 0
    for _ in range(3):
        said = verdicts(port, 1, 0.01, 10)
        assert said[not by_kernel, True] == 0
        best = max(best, said[by_kernel, True])
        if best >= 8:
            break
    assert best >= 8
