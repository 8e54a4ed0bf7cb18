"""Who answered for a remote target, and which packets are ours: without a network."""

from __future__ import annotations

import struct
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from diagnose.analysis.wire import (
    BoxOnTheWay,
    HostItself,
    Meaning,
    ThisMachine,
    Undetermined,
    dropped_here,
    held_back,
    meaning,
    sender,
    wants_first_hop,
)
from diagnose.model.attempt import Attempt, IcmpError, Outcome, WireReply
from diagnose.model.fact import NOT_NEEDED, Fact, Known, Reason, Unknown
from diagnose.model.finding import Confidence
from diagnose.model.network import Endpoint, Interface, Links, RouteKind, RouteLookup, Routing
from diagnose.probes.wire import Flow, Frame, Recorder, _key, _keys, _once

TARGET, GATEWAY, HERE = "192.0.2.9", "198.51.100.1", "198.51.100.2"
ROUTED = Known(Routing((RouteLookup(TARGET, RouteKind.UNICAST, "eth0", GATEWAY),), (), ()))
ON_LINK = Known(Routing((RouteLookup(TARGET, RouteKind.UNICAST, "eth0"),), (), ()))
EXPIRED = WireReply("icmp", GATEWAY, 64, 11, 0, "eth0", "02:00:00:00:00:01")


def reset(ttl: int, interface: str = "eth0", link: str | None = "02:00:00:00:00:01") -> WireReply:
    return WireReply("reset", TARGET, ttl, interface=interface, link=link)


def attempt(
    wire: Fact[tuple[WireReply, ...]] = NOT_NEEDED,
    *,
    icmp: tuple[IcmpError, ...] = (),
    first_hop: Fact[tuple[WireReply, ...]] = NOT_NEEDED,
    local: bool = False,
) -> Attempt:
    return Attempt(
        address=TARGET,
        port=80,
        family="ipv4",
        outcome=Outcome.REFUSED,
        ms=1.0,
        source=Endpoint(HERE, 40000),
        local=local,
        icmp=Known(icmp),
        wire=wire,
        first_hop=first_hop,
    )


def test_an_ordinary_user_learns_the_box_from_the_error_queue() -> None:
    match sender(attempt(icmp=(IcmpError("icmp", 3, 13, GATEWAY),)), NOT_NEEDED):
        case BoxOnTheWay() as box:
            assert (box.address, box.confidence, box.meaning) == (GATEWAY, Confidence.PROVEN, Meaning.PROHIBITED)
        case other:
            raise AssertionError(other)


def test_an_error_from_the_target_is_the_targets_own_word() -> None:
    match sender(attempt(icmp=(IcmpError("icmp", 3, 3, TARGET),)), NOT_NEEDED):
        case HostItself() as host:
            assert (host.confidence, host.meaning) == (Confidence.PROVEN, Meaning.PORT_UNREACHABLE)
        case other:
            raise AssertionError(other)


def test_an_error_from_our_own_source_address_is_this_machines() -> None:
    match sender(attempt(icmp=(IcmpError("icmp", 3, 1, HERE),)), NOT_NEEDED):
        case ThisMachine() as this:
            assert this.meaning is Meaning.HOST_UNREACHABLE
        case other:
            raise AssertionError(other)


def test_an_error_from_another_of_our_addresses_is_this_machines() -> None:
    links = Known(Links((Interface("eth1", True, ("203.0.113.7",)),)))
    seen = attempt(icmp=(IcmpError("icmp", 3, 13, "203.0.113.7"),))
    assert isinstance(sender(seen, NOT_NEEDED, links), ThisMachine)


def test_advice_about_packet_sizes_and_routes_accuses_nobody() -> None:
    for type_, code in ((3, 4), (4, 0), (5, 1)):
        assert isinstance(sender(attempt(icmp=(IcmpError("icmp", type_, code, GATEWAY),)), ROUTED), Undetermined)


def test_a_reset_that_passed_routers_could_be_anybodys() -> None:
    for ttl in (63, 55, 127, 116, 254, 1):
        assert isinstance(sender(attempt(Known((reset(ttl),))), ROUTED), Undetermined)


def test_an_unlowered_reset_by_a_gateway_proves_nothing_without_the_first_hop() -> None:
    seen = attempt(Known((reset(64),)))
    assert wants_first_hop(seen, ROUTED)
    assert isinstance(sender(seen, ROUTED), Undetermined)


def test_an_unlowered_reset_from_the_router_that_lets_a_syn_expire_is_a_boxs() -> None:
    match sender(attempt(Known((reset(64),)), first_hop=Known((EXPIRED,))), ROUTED):
        case BoxOnTheWay() as box:
            assert (box.address, box.confidence) == (GATEWAY, Confidence.LIKELY)
        case other:
            raise AssertionError(other)


def test_a_first_hop_that_answers_itself_may_be_the_target() -> None:
    assert isinstance(sender(attempt(Known((reset(64),)), first_hop=Known((reset(64),))), ROUTED), Undetermined)


def test_a_silent_first_hop_proves_nothing() -> None:
    assert isinstance(sender(attempt(Known((reset(64),)), first_hop=Known(())), ROUTED), Undetermined)


def test_a_reset_handed_over_by_another_neighbour_is_not_the_routers() -> None:
    seen = attempt(Known((reset(64, link="02:00:00:00:00:99"),)), first_hop=Known((EXPIRED,)))
    assert isinstance(sender(seen, ROUTED), Undetermined)


def test_a_tunnel_shows_no_neighbour_and_so_no_sender() -> None:
    seen = attempt(Known((reset(64, "wg0", None),)), first_hop=Known((EXPIRED,)))
    assert isinstance(sender(seen, ON_LINK), Undetermined)
    assert not wants_first_hop(seen, ROUTED)


def test_an_unlowered_reset_on_the_targets_link_is_at_most_likely_the_hosts() -> None:
    match sender(attempt(Known((reset(128),))), ON_LINK):
        case HostItself() as host:
            assert host.confidence is Confidence.LIKELY
        case other:
            raise AssertionError(other)


def test_a_reset_over_lo_for_a_remote_target_is_this_machines() -> None:
    assert isinstance(sender(attempt(Known((reset(64, "lo", None),))), ROUTED), ThisMachine)


def test_what_could_not_be_captured_is_said() -> None:
    unknown = Unknown(Reason.NEEDS_ROOT, "raw packets")
    match sender(attempt(unknown), ROUTED):
        case Undetermined(why=why):
            assert "needs root: raw packets" in why
        case other:
            raise AssertionError(other)


def test_an_answered_connection_has_no_refuser() -> None:
    seen = attempt(Known((WireReply("syn-ack", TARGET, 64, interface="eth0"), reset(64))))
    assert isinstance(sender(seen, ON_LINK), Undetermined)


def test_an_answer_that_came_in_and_was_not_taken_was_dropped_here() -> None:
    answer = structs.replace(reset(63), ms=0.4)
    silent = structs.replace(attempt(Known((answer,))), outcome=Outcome.UNANSWERED, ms=3000.0)
    assert dropped_here(silent) == answer
    assert dropped_here(structs.replace(silent, ms=10.0)) is None
    assert dropped_here(structs.replace(silent, wire=Known((reset(63),)))) is None
    assert dropped_here(structs.replace(silent, outcome=Outcome.REFUSED)) is None
    assert dropped_here(structs.replace(silent, wire=Known(()))) is None


def test_only_a_packet_that_nobody_saw_leave_was_held_back() -> None:
    silent = structs.replace(attempt(), outcome=Outcome.UNANSWERED)
    assert held_back(structs.replace(silent, sent=Known(0)))
    assert not held_back(structs.replace(silent, sent=Known(2)))
    assert not held_back(silent)
    assert not held_back(structs.replace(silent, sent=Known(0), outcome=Outcome.REFUSED))


def test_an_error_of_the_kernels_own_is_no_rules() -> None:
    match sender(attempt(icmp=(IcmpError("local", 0, 0),)), NOT_NEEDED):
        case ThisMachine() as this:
            assert this.meaning is Meaning.OTHER
        case other:
            raise AssertionError(other)


def test_a_local_address_is_this_machine() -> None:
    assert isinstance(sender(attempt(local=True), ROUTED), ThisMachine)
    assert not wants_first_hop(attempt(Known((reset(64),)), local=True), ROUTED)


def test_icmp_errors_are_read_by_their_family() -> None:
    assert meaning("ipv4", 3, 13) is Meaning.PROHIBITED
    assert meaning("ipv6", 1, 1) is Meaning.PROHIBITED
    assert meaning("ipv6", 1, 4) is Meaning.PORT_UNREACHABLE
    assert meaning("ipv6", 3, 0) is Meaning.EXPIRED
    assert meaning("ipv4", 12, 0) is Meaning.OTHER


def ipv4(source: bytes, destination: bytes, protocol: int, payload: bytes, fragment: int = 0) -> bytes:
    header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(payload), 1, fragment, 64, protocol, 0, source, destination)
    return header + payload


A, B = bytes((10, 0, 0, 1)), bytes((10, 0, 0, 2))
SYN = ipv4(A, B, 6, struct.pack("!HHIIHHHH", 4000, 80, 1, 0, 0x5002, 64240, 0, 0))


def test_an_icmp_error_counts_for_the_connection_that_it_quotes() -> None:
    error = ipv4(bytes((10, 0, 0, 9)), A, 1, bytes((3, 13, 0, 0, 0, 0, 0, 0)) + SYN[:28])
    assert _key(error) == _key(SYN) == (A, 4000, B, 80)


def test_an_echo_that_carries_a_packet_counts_for_nothing() -> None:
    assert _key(ipv4(B, A, 1, bytes(8) + SYN)) is None


def test_a_later_fragment_has_no_ports() -> None:
    assert _key(ipv4(A, B, 6, bytes(20), fragment=5)) is None


@given(st.binary(max_size=120))
def test_no_packet_breaks_the_sorting(packet: bytes) -> None:
    key = _key(packet)
    assert key is None or len(key) == 4


def test_mapped_and_scoped_addresses_are_as_on_the_wire() -> None:
    mapped = Flow(Endpoint("::ffff:10.0.0.1", 4000), Endpoint("::ffff:10.0.0.2", 80))
    assert (A, 4000, B, 80) in set(_keys(mapped))
    scoped = Flow(Endpoint("fe80::1%eth0", 1), Endpoint("fe80::2%eth0", 2))
    assert all(len(key[0]) == len(key[2]) == 16 for key in _keys(scoped))


def frame(interface: str, kind: int, packet: bytes) -> Frame:
    return Frame(1, 2, interface, 0x0800, kind, 772, bytes(6), packet)


def test_a_packet_seen_twice_is_kept_once_and_a_retransmission_twice() -> None:
    out, back = frame("lo", 4, SYN), frame("lo", 0, SYN)
    assert list(_once([out, back, out, back])) == [out, out]
    assert list(_once([frame("br0", 4, SYN), frame("veth1", 4, SYN)])) == [frame("br0", 4, SYN)]


def test_elsewhere_than_on_linux_the_capture_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")  # macOS cannot be had here
    with Recorder((80,)) as recorder:
        fact = recorder.capture(())
    assert isinstance(fact, Unknown)
    assert fact.reason is Reason.NOT_LINUX
