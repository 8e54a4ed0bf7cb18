"""The raw reply to one SYN, in a client, a router and a server of their own: three network namespaces."""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, TypeVar

import pytest
from msgspec import structs

from diagnose.analysis.wire import (
    BoxOnTheWay,
    HostItself,
    Meaning,
    Sender,
    ThisMachine,
    Undetermined,
    dropped_here,
    sender,
)
from diagnose.analysis.wire import wants_first_hop as wants
from diagnose.model.attempt import Attempt, Outcome, WireReply
from diagnose.model.fact import Fact, Known, Reason, Unknown
from diagnose.model.finding import Confidence
from diagnose.model.network import Endpoint, RouteKind, RouteLookup, Routing, family_of
from diagnose.probes import wire
from diagnose.probes.wire import Flow, Recorder

pytestmark = [pytest.mark.lab]

T = TypeVar("T")
Place = Literal["client", "router", "server"]
CLIENT, NEAR, FAR, SERVER = "10.9.1.2", "10.9.1.1", "10.9.2.1", "10.9.2.2"
CLIENT6, NEAR6, FAR6, SERVER6 = "fd09:1::2", "fd09:1::1", "fd09:2::1", "fd09:2::2"
PORT = 8081
CLONE_NEWNET = 0x40000000
SETUP = f"""
set -e
for place in client router server; do ip netns add $P-$place; ip -n $P-$place link set lo up; done
ip link add near netns $P-client type veth peer name near netns $P-router
ip link add far netns $P-router type veth peer name far netns $P-server
up() {{ ip -n $P-$1 addr add $3/24 dev $2; ip -n $P-$1 addr add $4/64 dev $2 nodad; ip -n $P-$1 link set $2 up; }}
up client near {CLIENT} {CLIENT6}
up router near {NEAR} {NEAR6}
up router far {FAR} {FAR6}
up server far {SERVER} {SERVER6}
ip netns exec $P-router sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
ip -n $P-client route add default via {NEAR}
ip -n $P-client -6 route add default via {NEAR6}
ip -n $P-server route add default via {FAR}
ip -n $P-server -6 route add default via {FAR6}
"""


class Net:
    """client -- router -- server."""

    def __init__(self) -> None:
        self.prefix = f"ndwire{os.getpid()}"

    def sh(self, script: str) -> None:
        environment = {**os.environ, "P": self.prefix}
        subprocess.run(["sh", "-c", script], check=True, env=environment, capture_output=True, timeout=20)

    def rule(self, place: Place, hook: str, rule: str) -> None:
        chain = f"add table inet t; add chain inet t c {{ type filter hook {hook} priority 0; }}"
        self.sh(f"ip netns exec $P-{place} nft '{chain}; add rule inet t c tcp dport {PORT} {rule}'")

    def inside(self, place: Place, ask: Callable[[], T]) -> T:
        """Asks in a thread that lives in the namespace; other threads stay where they are (setns(2))."""
        answers: list[T] = []

        def live() -> None:
            enter(f"{self.prefix}-{place}")
            answers.append(ask())

        thread = threading.Thread(target=live)
        thread.start()
        thread.join(30)
        return answers[0]


def enter(namespace: str) -> None:
    descriptor = os.open(f"/run/netns/{namespace}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        assert ctypes.CDLL(None, use_errno=True).setns(descriptor, CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
    finally:
        os.close(descriptor)


@pytest.fixture(scope="module")
def topology() -> Iterator[Net]:
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    net = Net()
    try:
        net.sh(SETUP)
        net.inside("client", lambda: settle(SERVER6))
        yield net
    finally:
        net.sh("for place in client router server; do ip netns del $P-$place || true; done")


@pytest.fixture
def net(topology: Net) -> Iterator[Net]:
    yield topology
    topology.sh("for place in client router server; do ip netns exec $P-$place nft flush ruleset; done")


def settle(address: str) -> None:
    """IPv6 on a fresh veth answers when its link-local addresses are no longer tentative."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as sock:
            sock.settimeout(0.2)
            try:
                sock.connect((address, 1))
            except ConnectionRefusedError:
                return
            except OSError:
                time.sleep(0.05)
    raise AssertionError("IPv6 does not come up between the namespaces")


def dial(address: str, port: int = PORT, wait: float = 0.15) -> tuple[socket.socket, Flow]:
    """A connect that has ended, or has had no answer; the socket is open, the caller closes it."""
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    sock.setblocking(False)
    sock.connect_ex((address, port))
    local = sock.getsockname()
    wire._wait(sock, wait)
    return sock, Flow(Endpoint(local[0], local[1]), Endpoint(address, port))


def replies(address: str, port: int = PORT) -> Fact[tuple[WireReply, ...]]:
    with Recorder((port,)) as recorder:
        sock, flow = dial(address, port)
        sock.close()
        return recorder.replies(flow)


def attempt(address: str, gateway: str | None) -> tuple[Attempt, Known[Routing]]:
    """What the probes would write down of one connect, by one who asks no error queue."""
    routing = Known(Routing((RouteLookup(address, RouteKind.UNICAST, "near", gateway),), (), ()))
    seen = Attempt(
        address=address,
        port=PORT,
        family=family_of(address),
        outcome=Outcome.REFUSED,
        ms=1.0,
        source=Endpoint(CLIENT6 if ":" in address else CLIENT, 40000),
        local=False,
        wire=replies(address),
    )
    if wants(seen, routing):
        seen = structs.replace(seen, first_hop=wire.first_hop(address, PORT, 1.0))
    return seen, routing


def who(net: Net, address: str, gateway: str | None) -> Sender:
    return net.inside("client", lambda: sender(*attempt(address, gateway)))


BOTH = pytest.mark.parametrize(("server", "gateway", "client"), [(SERVER, NEAR, CLIENT), (SERVER6, NEAR6, CLIENT6)])


@BOTH
def test_a_closed_port_behind_a_router_resets_with_a_lowered_ttl(
    net: Net, server: str, gateway: str, client: str
) -> None:
    match net.inside("client", lambda: replies(server)):
        case Known(value=(reply,)):
            assert (reply.kind, reply.sender, reply.ttl, reply.interface) == ("reset", server, 63, "near")
            assert reply.link is not None
        case other:
            raise AssertionError(other)
    assert isinstance(who(net, server, gateway), Undetermined)


@BOTH
def test_a_reset_by_the_router_is_told_from_the_hosts_own(net: Net, server: str, gateway: str, client: str) -> None:
    net.rule("router", "forward", "reject with tcp reset")
    match who(net, server, gateway):
        case BoxOnTheWay() as box:
            assert (box.address, box.confidence) == (gateway, Confidence.LIKELY)
        case other:
            raise AssertionError(other)


@BOTH
def test_a_rule_that_answers_before_routing_looks_like_the_gateways_own_address(
    net: Net, server: str, gateway: str, client: str
) -> None:
    net.rule("router", "prerouting", "reject with tcp reset")
    assert isinstance(who(net, server, gateway), Undetermined)


@BOTH
def test_an_icmp_error_names_the_router_that_rejects(net: Net, server: str, gateway: str, client: str) -> None:
    net.rule("router", "forward", "reject with icmpx type admin-prohibited")
    match who(net, server, gateway):
        case BoxOnTheWay() as box:
            assert (box.address, box.confidence, box.meaning) == (gateway, Confidence.PROVEN, Meaning.PROHIBITED)
        case other:
            raise AssertionError(other)


@BOTH
def test_an_icmp_error_by_the_target_is_the_targets(net: Net, server: str, gateway: str, client: str) -> None:
    net.rule("server", "input", "reject with icmpx type port-unreachable")
    match who(net, server, gateway):
        case HostItself() as host:
            assert (host.confidence, host.meaning) == (Confidence.PROVEN, Meaning.PORT_UNREACHABLE)
        case other:
            raise AssertionError(other)


@BOTH
def test_a_drop_on_the_way_is_silence(net: Net, server: str, gateway: str, client: str) -> None:
    net.rule("router", "forward", "drop")
    assert net.inside("client", lambda: replies(server)) == Known(())
    assert who(net, server, gateway) == Undetermined("no reply came back to this machine")


@BOTH
@pytest.mark.parametrize("how", ["tcp reset", "icmpx type admin-prohibited"])
def test_a_rule_on_the_way_out_of_this_machine_is_this_machines(
    net: Net, server: str, gateway: str, client: str, how: str
) -> None:
    net.rule("client", "output", f"reject with {how}")
    assert isinstance(who(net, server, gateway), ThisMachine)


@BOTH
@pytest.mark.parametrize(("place", "hook", "count"), [("client", "output", 0), ("router", "forward", 1)])
def test_a_drop_here_is_told_from_one_on_the_way_by_what_left(
    net: Net, server: str, gateway: str, client: str, place: Place, hook: str, count: int
) -> None:
    net.rule(place, hook, "drop")

    def sent() -> Fact[int]:
        with Recorder((PORT,)) as recorder:
            sock, flow = dial(server)
            sock.close()
            return recorder.sent(flow)

    assert net.inside("client", sent) == Known(count)


@BOTH
def test_an_answer_that_this_machine_drops_was_seen_to_come_in(
    net: Net, server: str, gateway: str, client: str
) -> None:
    chain = "add table inet t; add chain inet t c { type filter hook input priority 0; }"
    net.sh(f"ip netns exec $P-client nft '{chain}; add rule inet t c tcp sport {PORT} drop'")
    seen, _ = net.inside("client", lambda: attempt(server, gateway))
    answer = dropped_here(structs.replace(seen, outcome=Outcome.UNANSWERED, ms=150.0))
    assert answer is not None
    assert (answer.kind, answer.sender) == ("reset", server)


@pytest.mark.parametrize(("far", "gateway"), [(FAR, NEAR), (FAR6, NEAR6)])
def test_the_gateways_own_other_address_is_not_called_a_box_on_the_way(net: Net, far: str, gateway: str) -> None:
    match net.inside("client", lambda: replies(far)):
        case Known(value=(reply,)):
            assert reply.ttl == 64
        case other:
            raise AssertionError(other)
    assert isinstance(who(net, far, gateway), Undetermined)


@pytest.mark.parametrize("near", [NEAR, NEAR6])
def test_a_reset_on_the_targets_own_link_is_the_hosts(net: Net, near: str) -> None:
    match who(net, near, None):
        case HostItself() as host:
            assert host.confidence is Confidence.LIKELY
        case other:
            raise AssertionError(other)


def test_no_route_behind_the_router_is_no_rule(net: Net) -> None:
    net.sh("ip -n $P-router route add unreachable 10.9.3.0/24")
    match who(net, "10.9.3.3", NEAR):
        case BoxOnTheWay() as box:
            assert (box.address, box.meaning) == (NEAR, Meaning.HOST_UNREACHABLE)
        case other:
            raise AssertionError(other)


def test_a_target_that_answers_past_the_gateway_is_not_called_a_box(net: Net) -> None:
    """A server with a leg on our link: asked at its far address by the gateway, it answers directly with TTL 64."""
    net.sh(
        f"""
        ip netns add $P-leg
        ip -n $P-leg link add far type veth peer name leg netns $P-router
        ip -n $P-leg link add near type veth peer name leg netns $P-client
        for at in leg:far leg:near router:leg client:leg; do ip -n $P-${{at%:*}} link set ${{at#*:}} up; done
        ip -n $P-router addr add 10.9.4.1/24 dev leg
        ip -n $P-leg addr add 10.9.4.2/24 dev far
        ip -n $P-leg addr add 10.9.5.2/24 dev near
        ip -n $P-leg route add {CLIENT} dev near
        ip -n $P-client addr add 10.9.5.1/24 dev leg
        for where in all far near; do ip netns exec $P-leg sysctl -qw net.ipv4.conf.$where.rp_filter=0; done
        """
    )
    try:
        match net.inside("client", lambda: replies("10.9.4.2")):
            case Known(value=(reply,)):
                assert (reply.ttl, reply.interface) == (64, "leg")
            case unexpected:
                raise AssertionError(unexpected)
        match who(net, "10.9.4.2", NEAR):
            case Undetermined(why=why):
                assert "not from the router at" in why
            case other:
                raise AssertionError(other)
    finally:
        net.sh("ip netns del $P-leg")


def saved(path: Path) -> list[Any]:
    wire._load_scapy()
    from scapy.utils import rdpcap

    return list(rdpcap(str(path)))


def written(captured: Fact[wire.Capture], path: Path) -> Fact[int]:
    """Keeps the file; how many packets are in it, where none is missing."""
    if isinstance(captured, Unknown):
        return captured
    path.write_bytes(captured.value.pcap)
    assert captured.value.lost == 0
    return Known(captured.value.packets)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_the_capture_holds_our_own_packets_once_and_nobody_elses(net: Net, address: str, tmp_path: Path) -> None:
    path = tmp_path / "probe.pcap"

    def record() -> tuple[Fact[int], int]:
        with Recorder((PORT,)) as recorder:
            for _ in range(5):
                dial(address, wait=0.01)[0].close()
            sock, flow = dial(address)
            sock.close()
            dial(address, PORT + 1, wait=0.01)[0].close()
            return written(recorder.capture([flow]), path), flow.local.port

    fact, source = net.inside("client", record)
    assert fact == Known(2)
    packets = saved(path)
    assert [(packet["TCP"].sport, packet["TCP"].dport, str(packet["TCP"].flags)) for packet in packets] == [
        (source, PORT, "S"),
        (PORT, source, "RA"),
    ]
    assert all(abs(float(packet.time) - time.time()) < 60 for packet in packets)


def test_the_capture_of_the_unspecified_address_holds_what_the_kernel_dialled(net: Net, tmp_path: Path) -> None:
    path = tmp_path / "probe.pcap"

    def record() -> Fact[int]:
        with Recorder((PORT,)) as recorder:
            sock, flow = dial("0.0.0.0")
            sock.close()
            return written(recorder.capture([flow]), path)

    assert net.inside("client", record) == Known(2)


@BOTH
def test_the_capture_holds_the_icmp_error_that_quotes_us(
    net: Net, server: str, gateway: str, client: str, tmp_path: Path
) -> None:
    net.rule("router", "forward", "reject with icmpx type admin-prohibited")
    path = tmp_path / "probe.pcap"

    def record() -> Fact[int]:
        with Recorder((PORT,)) as recorder:
            sock, flow = dial(server)
            sock.close()
            return written(recorder.capture([flow]), path)

    assert net.inside("client", record) == Known(2)
    assert saved(path)[1].payload.src == gateway


def test_a_capture_of_a_whole_conversation_is_in_order(net: Net, tmp_path: Path) -> None:
    path = tmp_path / "probe.pcap"

    def record() -> Fact[int]:
        listener = socket.create_server(("127.0.0.1", PORT))
        with Recorder((PORT,)) as recorder, listener:
            sock, flow = dial("127.0.0.1")
            sock.close()
            return written(recorder.capture([flow]), path)

    assert isinstance(net.inside("client", record), Known)
    assert [str(packet["TCP"].flags) for packet in saved(path)][:4] == ["S", "SA", "A", "FA"]


def test_other_peoples_packets_do_not_reach_the_recorder(net: Net) -> None:
    def count() -> list[int]:
        with Recorder((PORT,)) as recorder:
            for _ in range(20):
                dial("127.0.0.1", PORT + 1, wait=0.01)[0].close()
            recorder._drain()
            return [len(recorder._frames), recorder._lost]

    assert net.inside("client", count) == [0, 0]


def test_many_ports_are_recorded_without_a_filter_on_them(net: Net) -> None:
    def ask() -> Fact[tuple[WireReply, ...]]:
        with Recorder(range(PORT, PORT + 200)) as recorder:
            sock, flow = dial("127.0.0.1", PORT + 150)
            sock.close()
            return recorder.replies(flow)

    match net.inside("client", ask):
        case Known(value=(reply,)):
            assert reply.kind == "reset"
        case other:
            raise AssertionError(other)


def test_a_fresh_home_stays_empty_and_nothing_is_printed(net: Net, tmp_path: Path) -> None:
    script = f"""
import socket
from diagnose.model.network import Endpoint
from diagnose.probes.wire import Flow, Recorder
with Recorder() as recorder:
    sock = socket.socket(); sock.setblocking(False); sock.connect_ex(("127.0.0.1", {PORT}))
    flow = Flow(Endpoint("127.0.0.1", sock.getsockname()[1]), Endpoint("127.0.0.1", {PORT}))
    assert recorder.replies(flow).value[0].kind == "reset"
"""
    environment = {"HOME": str(tmp_path), "PATH": os.environ["PATH"], "PYTHONPATH": os.getcwd()}
    command = ["ip", "netns", "exec", f"{net.prefix}-client", sys.executable, "-c", script]
    done = subprocess.run(command, env=environment, capture_output=True, cwd=tmp_path, timeout=20, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert list(tmp_path.iterdir()) == []


def test_an_ordinary_user_is_told_what_would_lift_it() -> None:
    if os.geteuid() != 0:
        pytest.skip("becoming nobody needs root")
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setuid(65534)
        with Recorder() as recorder:
            fact = recorder.replies(Flow(Endpoint("127.0.0.1", 1), Endpoint("127.0.0.1", 2)))
        told = isinstance(fact, Unknown) and fact.reason is Reason.NEEDS_ROOT and fact.lift is not None
        os.write(writer, b"told" if told else b"silent")
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writer)
    assert os.read(reader, 16) == b"told"
    os.close(reader)
