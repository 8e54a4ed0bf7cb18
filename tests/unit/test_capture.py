"""Which packets of a busy port are our own connection's."""

from __future__ import annotations

import struct

from diagnose.model.network import Endpoint
from diagnose.probes.wire import Flow, Frame, _keys, _ours
from diagnose.probes.wire_filter import ETH_P_IP, TCP

OURS = Flow(Endpoint("127.0.0.1", 40001), Endpoint("127.0.0.1", 80))
SYN, SYN_ACK, ACK = 0x02, 0x12, 0x10


def packet(sequence: int, flags: int, source: int = 40001, target: int = 80) -> Frame:
    """A TCP packet over lo."""
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 40, 0, 0, 64, TCP, 0, b"\x7f\0\0\x01", b"\x7f\0\0\x01")
    tcp = struct.pack("!HHIIBBHHH", source, target, sequence, 0, 0x50, flags, 0, 0, 0)
    return Frame(0, 0, "lo", ETH_P_IP, 4, 772, b"", ip + tcp)


def kept(*frames: Frame) -> list[Frame]:
    """Those of our one connection."""
    return list(_ours(frames, dict.fromkeys(_keys(OURS), OURS)))


def test_both_directions_of_a_connection_are_kept_and_no_other_port() -> None:
    ours = [packet(7, SYN), packet(9, SYN_ACK, 80, 40001), packet(8, ACK)]
    assert kept(packet(1, SYN, 40002), *ours, packet(2, SYN_ACK, 80, 40002)) == ours


def test_a_repeated_first_packet_is_still_ours() -> None:
    assert kept(packet(7, SYN), packet(7, SYN), packet(8, ACK)) == [packet(7, SYN), packet(7, SYN), packet(8, ACK)]


def test_whoever_is_given_our_port_afterwards_is_not_kept() -> None:
    assert kept(packet(7, SYN), packet(5, SYN), packet(6, ACK)) == [packet(7, SYN)]


def test_a_torn_packet_opens_nothing() -> None:
    torn = Frame(0, 0, "lo", ETH_P_IP, 4, 772, b"", packet(7, SYN).packet[:26])
    assert kept(torn) == [torn]
