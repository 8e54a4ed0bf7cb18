"""The kernel's witness of one connect: who dropped it, who reset it, and never somebody else's drop."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, TypeVar

import pytest

from diagnose.model.attempt import Drop, FilterHook, ResetWitness
from diagnose.model.fact import Fact, Known, Reason, Unknown
from diagnose.model.network import Endpoint
from diagnose.parse.traced_connect import ResetEvent
from diagnose.probes import sockets, tracing
from diagnose.probes.trace_test import reported_drop
from diagnose.probes.tracing import TracedConnect, Tracer
from diagnose.probes.witness import Witnesses
from tests.lab_probes.namespace import in_namespace, nft

pytestmark = pytest.mark.lab

T = TypeVar("T")
INSTANCES = Path("/sys/kernel/tracing/instances")
SILENCE = 0.1
LISTENING, CLOSED, IN_DROP, IN_RESET, IN_ICMP, OUT_DROP, OUT_RESET, REPLY_DROP, FLOODED = range(2001, 2010)
RULES = f"""
table inet t {{
 chain in {{ type filter hook input priority 0;
  tcp dport {IN_DROP} drop
  tcp dport {FLOODED} drop
  udp dport {FLOODED} drop
  tcp dport {IN_RESET} reject with tcp reset
  tcp dport {IN_ICMP} reject
 }}
 chain out {{ type filter hook output priority 0;
  tcp dport {OUT_DROP} drop
  tcp dport {OUT_RESET} reject with tcp reset
  tcp sport {REPLY_DROP} drop
 }}
}}
"""
KERNEL = tuple(int(part) for part in os.uname().release.split(".")[:2])
SAYS_WHY = KERNEL >= (5, 18)
"""Whether kfree_skb has a reason for what netfilter drops."""


def by_netfilter(hook: FilterHook, symbol: str = "nf_hook_slow", packet: Literal["syn", "reply"] = "syn") -> Drop:
    return Drop("NETFILTER_DROP", symbol, packet, hook, inferred=not SAYS_WHY)


def by_nft(hook: FilterHook, packet: Literal["syn", "reply"] = "syn") -> Drop:
    """nf_tables frees the packet itself since Linux 6.7."""
    return by_netfilter(hook, "nft_do_chain" if KERNEL >= (6, 7) else "nf_hook_slow", packet)


def at(port: int) -> FilterHook:
    """The hook that has the rule for this port."""
    return "output" if port in (OUT_DROP, OUT_RESET) else "input"


WAITING = "print('ready', flush=True)\ntime.sleep(30)"
FLOOD = """
import socket, sys, time
end = time.monotonic() + float(sys.argv[2])
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
while time.monotonic() < end:
    for _ in range(20):
        with socket.socket() as tcp:
            tcp.setblocking(False)
            tcp.connect_ex(("127.0.0.1", int(sys.argv[1])))
        udp.sendto(b"x", ("127.0.0.1", int(sys.argv[1])))
"""


def opened() -> Tracer:
    fact = tracing.open_tracer()
    assert isinstance(fact, Known), fact
    return fact.value


@contextmanager
def serving(port: int, address: str = "127.0.0.1") -> Iterator[None]:
    """A server that accepts and hangs up."""
    with socket.create_server((address, port), family=socket.AF_INET6 if ":" in address else socket.AF_INET) as server:

        def serve() -> None:
            while True:
                try:
                    server.accept()[0].close()
                except OSError:
                    return

        threading.Thread(target=serve, daemon=True).start()
        yield
        server.shutdown(socket.SHUT_RDWR)


def traced(port: int, address: str = "127.0.0.1", rules: str = RULES) -> TracedConnect:
    """One traced connect in a namespace with the rules and a server behind two of its ports."""

    def probe() -> TracedConnect:
        nft(rules)
        with serving(LISTENING, address), serving(REPLY_DROP, address), opened() as tracer:
            return tracer.probe(address, port, SILENCE)

    return in_namespace("", probe)


def value(fact: Fact[T]) -> T:
    assert isinstance(fact, Known), fact
    return fact.value


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("port", [IN_DROP, OUT_DROP])
def test_a_drop_on_the_way_in_or_out_is_told_at_once_with_its_reason_and_place(port: int, address: str) -> None:
    said = traced(port, address)
    assert (said.connected, said.errno) == (False, None)
    assert value(said.drops) == (by_nft(at(port)),)
    assert said.ms < SILENCE * 1000


def test_a_dropped_answer_is_told_from_a_dropped_syn() -> None:
    assert value(traced(REPLY_DROP).drops) == (by_nft("output", "reply"),)


def test_a_drop_by_the_old_iptables_is_told_by_its_place() -> None:
    def probe() -> TracedConnect:
        with opened() as tracer:
            return tracer.probe("127.0.0.1", IN_DROP, SILENCE)

    said = in_namespace(f"iptables-legacy -A INPUT -p tcp --dport {IN_DROP} -j DROP", probe)
    assert value(said.drops) == (by_netfilter("input"),)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_a_closed_port_is_reset_by_the_kernel_itself(address: str) -> None:
    said = traced(CLOSED, address)
    place = "tcp_v6_rcv" if ":" in address else "tcp_v4_rcv"
    assert said.errno == "ECONNREFUSED"
    assert value(said.drops) == (Drop("NO_SOCKET" if SAYS_WHY else "NOT_SPECIFIED", place),)
    # without a socket the kernel's own event for a reset fires since Linux 6.10
    shown: ResetEvent = "tcp_send_reset" if KERNEL >= (6, 10) else "net_dev_queue"
    assert value(said.reset) == ResetWitness(by_kernel=True, distinct=True, source=shown, counted=1)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("port", [IN_RESET, OUT_RESET])
def test_a_rules_reset_is_not_the_kernels_own(port: int, address: str) -> None:
    said = traced(port, address)
    assert said.errno == "ECONNREFUSED"
    assert value(said.drops) == (by_nft(at(port)),)
    assert value(said.reset) == ResetWitness(by_kernel=False, distinct=True, source="kfree_skb")


def test_an_icmp_refusal_is_no_reset() -> None:
    said = traced(IN_ICMP)
    assert said.errno == "ECONNREFUSED"
    assert value(said.drops) == (by_nft("input"),)
    assert isinstance(said.reset, Unknown)


def test_a_healthy_connect_has_no_drop_and_names_its_source() -> None:
    said = traced(LISTENING)
    assert said.connected
    assert value(said.drops) == ()
    assert said.source is not None
    assert said.source.address == "127.0.0.1"


def test_silence_without_a_line_is_unknown_and_not_no_drop() -> None:
    def probe() -> TracedConnect:
        with socket.socket() as full, socket.socket() as first, socket.socket() as second, opened() as tracer:
            full.bind(("127.0.0.1", LISTENING))
            full.listen(0)
            for one in (first, second):
                one.setblocking(False)
                one.connect_ex(("127.0.0.1", LISTENING))
            return tracer.probe("127.0.0.1", LISTENING, SILENCE)

    said = in_namespace("", probe)
    assert not said.connected
    assert isinstance(said.drops, Unknown)
    assert said.drops.reason is Reason.NOT_VISIBLE


def test_a_drop_of_our_own_making_shows_what_this_kernel_reports() -> None:
    before = os.readlink("/proc/self/ns/net")
    with opened() as tracer:
        assert value(reported_drop(tracer)) == by_nft("input")
    assert os.readlink("/proc/self/ns/net") == before


def test_a_trace_that_does_not_show_a_drop_of_our_own_is_no_witness(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "_IP_ONLY", "protocol == 0x0806")  # this trace has no drop of any TCP packet
    with opened() as tracer:
        fact = reported_drop(tracer)
    assert isinstance(fact, Unknown)
    assert fact.reason is Reason.KERNEL_TOO_OLD


def test_silence_that_the_trace_does_not_show_says_what_this_kernel_would_report(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def drops() -> Fact[tuple[Drop, ...]]:
        with socket.socket() as full, socket.socket() as first, socket.socket() as second:
            full.bind(("127.0.0.1", LISTENING))
            full.listen(0)
            for one in (first, second):
                one.setblocking(False)
                one.connect_ex(("127.0.0.1", LISTENING))
            witnesses = Witnesses()
            try:
                # of a listener whose counters are not known nothing but the trace could tell
                before = sockets.ListenersBefore(Unknown(Reason.FAILED, ""), b"")
                return witnesses.silent(Endpoint("127.0.0.1", LISTENING), before).drops
            finally:
                witnesses.close()

    fact = in_namespace("", drops)
    assert isinstance(fact, Unknown)
    assert by_nft("input").words in fact.detail


@contextmanager
def flood(count: int, seconds: float) -> Iterator[None]:
    """Processes that are dropped and reset without end, in the namespace of the caller."""
    argv = [sys.executable, "-c", FLOOD, str(FLOODED), str(seconds)]
    processes = [subprocess.Popen(argv) for _ in range(count)]
    try:
        time.sleep(0.2)
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def under_load(port: int, rounds: int) -> Callable[[], Counter[str]]:
    """What `rounds` probes of a port said while others are dropped at full speed in the same namespace."""

    def probes() -> Counter[str]:
        said: Counter[str] = Counter()
        nft(RULES)
        with serving(LISTENING), opened() as tracer, flood(1, 10):
            for _ in range(rounds):
                drops = tracer.probe("127.0.0.1", port, SILENCE).drops
                said[", ".join(map(str, drops.value)) if isinstance(drops, Known) else "unknown"] += 1
        return said

    return probes


def test_no_foreign_drop_is_blamed_on_a_healthy_connect_under_load() -> None:
    said = in_namespace("", under_load(LISTENING, 100))
    assert set(said) <= {"", "unknown"}, said
    assert said[""] >= 95


def test_every_drop_found_under_load_is_ours() -> None:
    said = in_namespace("", under_load(IN_DROP, 50))
    # a stack that is lost under load costs the hook, and nothing else
    ours = {str(by_nft("input")), str(by_nft(""))}
    assert set(said) <= {*ours, "unknown"}, said
    assert sum(said[one] for one in ours) >= 45


def test_drops_in_other_namespaces_are_not_ours() -> None:
    def beside() -> Counter[str]:
        nft(RULES)
        with flood(1, 10):
            return in_namespace("", lambda: healthy(50))

    def healthy(rounds: int) -> Counter[str]:
        with serving(LISTENING), opened() as tracer:
            return Counter(str(tracer.probe("127.0.0.1", LISTENING, SILENCE).drops) for _ in range(rounds))

    assert set(in_namespace("", beside)) == {str(Known(()))}


def instances() -> set[str]:
    return {one.name for one in INSTANCES.iterdir() if one.name.startswith(tracing.PREFIX)}


def test_the_instance_is_gone_after_closing_twice_and_after_an_exception() -> None:
    tracer = opened()
    assert tracing._instance() in instances()
    tracer.close()
    tracer.close()
    assert tracing._instance() not in instances()
    with pytest.raises(ZeroDivisionError), opened():
        raise ZeroDivisionError
    assert tracing._instance() not in instances()


def test_a_second_tracer_of_one_process_does_not_take_the_first_ones_instance() -> None:
    with opened():
        assert isinstance(tracing.open_tracer(), Unknown)
        assert tracing._instance() in instances()


def child(script: str, before: str = "") -> subprocess.Popen[str]:
    """A Python process that has run `t = a tracer`, and the script up to its word that it is ready."""
    head = f"import time\nfrom diagnose.probes import tracing\n{before}t = tracing.open_tracer().value\n"
    process = subprocess.Popen([sys.executable, "-c", head + script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize(
    "script",
    [
        "with t:\n    print('ready', flush=True)\n    time.sleep(30)",
        WAITING,
    ],
)
def test_repeated_interrupts_leave_no_instance_behind(script: str) -> None:
    process = child(script)
    for _ in range(3):
        process.send_signal(signal.SIGINT)
        time.sleep(0.01)
    process.communicate()
    assert not {name for name in instances() if name.startswith(f"{tracing.PREFIX}{process.pid}-")}


def test_what_a_kill_leaves_behind_the_next_run_removes_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "PREFIX", "netdiag-swept-")  # or a run of another test removes it first
    ours = f"tracing.PREFIX = {tracing.PREFIX!r}\n"
    killed, alive = child(WAITING, ours), child(WAITING, ours)
    try:
        killed.kill()
        killed.communicate()
        prefix = f"{tracing.PREFIX}{killed.pid}-"
        assert any(name.startswith(prefix) for name in instances())
        assert any(name.startswith(prefix) for name in tracing.sweep())
        assert not any(name.startswith(prefix) for name in instances())
        assert any(name.startswith(f"{tracing.PREFIX}{alive.pid}-") for name in instances())
    finally:
        alive.kill()
        alive.communicate()
        tracing.sweep()


def test_an_ordinary_user_is_told_what_root_would_add() -> None:
    def as_nobody() -> Fact[Tracer]:
        os.setuid(65534)
        return tracing.open_tracer()

    fact = in_namespace("", as_nobody)
    assert isinstance(fact, Unknown)
    assert fact.reason is Reason.NEEDS_ROOT
    assert fact.lift


def test_tracefs_that_is_not_mounted_is_not_mounted_for_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "TRACEFS", ("/nowhere",))
    fact = tracing.open_tracer()
    assert isinstance(fact, Unknown)
    assert fact.reason is Reason.NOT_MOUNTED
