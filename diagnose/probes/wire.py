"""The packets of our own probe, as they pass this machine's interfaces (packet(7)); dissected and kept with scapy."""

from __future__ import annotations

import select
import socket
import struct
import sys
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping
from importlib import import_module
from io import BytesIO
from ipaddress import IPv6Address, ip_address
from types import ModuleType
from typing import Self

from msgspec import Struct
from msgspec.structs import replace

from diagnose.model.attempt import WireReply
from diagnose.model.fact import NOT_LINUX, Fact, Known, Reason, Unknown
from diagnose.model.network import Endpoint
from diagnose.probes import wire_filter
from diagnose.probes.wire_filter import ETH_P_IP, ICMP, ICMP_ERRORS, ICMPV6, ICMPV6_INFORMATIONAL, SNAP_BYTES, TCP

ETH_P_ALL = 0x0003

# include/uapi/asm-generic/socket.h and linux/if_packet.h: Python's socket module has no names for them
SO_RCVBUFFORCE, SO_TIMESTAMPNS = 33, 35
SOL_PACKET, PACKET_STATISTICS = 263, 6

IP_RECVERR, IPV6_RECVERR = 11, 25

BUFFER_BYTES = 16 << 20
MOST_FRAMES = 100_000
LINKTYPE_LINUX_SLL = 113
"""Packets of any kind of interface in one file (tcpdump.org/linktypes)."""

NEEDS_CAP_NET_RAW = Unknown(Reason.NEEDS_ROOT, "raw packets take CAP_NET_RAW (packet(7))", "run again as root")

Key = tuple[bytes, int, bytes, int]
"""Source address, source port, destination address, destination port, as on the wire."""


class Flow(Struct, frozen=True):
    """One connection of ours, by both of its ends."""

    local: Endpoint
    remote: Endpoint


class Capture(Struct, frozen=True):
    """Packets as a file, how many they are, and how many more the kernel had no room for."""

    pcap: bytes
    """As pcap-savefile(5) has it."""
    packets: int
    lost: int


class Frame(Struct, frozen=True):
    """One packet from its network header on, and where it was seen."""

    seconds: int
    microseconds: int
    interface: str
    protocol: int
    """Ethertype."""
    kind: int
    """PACKET_HOST, PACKET_OUTGOING ... (packet(7))."""
    hardware: int
    """ARPHRD_ number of the interface."""
    sender: bytes
    """Link-layer address."""
    packet: bytes

    @property
    def time(self) -> float:
        """Seconds since the epoch."""
        return self.seconds + self.microseconds / 1e6


class Recorder:
    """Keeps what passes after it was made, so make it before the probe; where it may not look, its facts say so."""

    def __init__(self, ports: Collection[int] = ()) -> None:
        """The target's ports keep other people's packets away; none given: every TCP packet is looked at."""
        opened = _open(ports)
        self._socket = opened.value if isinstance(opened, Known) else None
        self._obstacle = opened if isinstance(opened, Unknown) else None
        self._frames: list[Frame] = []
        self._buffer = bytearray(SNAP_BYTES)
        came, lost = _statistics(self._socket) if self._socket else (0, 0)
        self._waiting = came - lost
        self._lost = 0  # what did not fit so far is nobody's probe
        self._door = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def narrow(self, ports: Collection[int]) -> None:
        """From now on only packets with these ports, our own ends: what others send to the target fills no buffer."""
        with self._door:
            if not self._socket or not ports:
                return
            try:
                wire_filter.attach(self._socket, ports)
            except OSError:
                return  # the wider filter stays: it lets through all that this one would

    def close(self) -> None:
        """Ends the recording: ask before. The kernel takes about 10 ms to let go (packet_release)."""
        with self._door:
            if self._socket:
                self._socket.close()
            self._socket = None

    def replies(self, flow: Flow) -> Fact[tuple[WireReply, ...]]:
        """What has answered our SYN, in order; known and empty: nothing came in, an ICMP error neither."""
        kept = self._kept((flow,))
        if isinstance(kept, Unknown):
            return kept
        answers = tuple(_answers(kept.value, flow))
        if not answers and self._lost:
            return self._incomplete()
        return Known(answers)

    def sent(self, flow: Flow) -> Fact[int]:
        """How many packets of this connection left so far: none when a rule, or a silent neighbour, held them back."""
        kept = self._kept((flow,))
        if isinstance(kept, Unknown):
            return kept
        outgoing = next(_keys(flow))
        count = sum(_key(frame.packet) == outgoing and frame.kind == socket.PACKET_OUTGOING for frame in kept.value)
        if not count and self._lost:
            return self._incomplete()
        return Known(count)

    def capture(self, flows: Iterable[Flow]) -> Fact[Capture]:
        """The packets of these connections, and the ICMP errors that quote them."""
        kept = self._kept(flows)
        if isinstance(kept, Unknown):
            return kept
        _load_scapy()
        from scapy.utils import RawPcapWriter

        file = BytesIO()
        writer = RawPcapWriter(file, linktype=LINKTYPE_LINUX_SLL, snaplen=SNAP_BYTES)
        writer.write_header(None)
        for frame in kept.value:
            writer.write_packet(_cooked(frame), sec=frame.seconds, usec=frame.microseconds)
        return Known(Capture(file.getvalue(), len(kept.value), self._lost))

    def _incomplete(self) -> Unknown:
        return Unknown(Reason.FAILED, f"{self._lost} packets did not fit the capture's buffer", "run again")

    def _kept(self, flows: Iterable[Flow]) -> Fact[tuple[Frame, ...]]:
        if self._obstacle:
            return self._obstacle
        try:
            with self._door:
                self._drain()
                frames = tuple(self._frames)
        except OSError as error:
            return Unknown(Reason.FAILED, f"the packet socket: {error.strerror}")
        return Known(tuple(_once(_ours(frames, {key: flow for flow in flows for key in _keys(flow)}))))

    def _drain(self) -> None:
        """What has come so far; on a busy port there is always more, which is left for the next time."""
        if self._socket is None:
            return
        came, lost = _statistics(self._socket)
        self._lost += lost
        self._waiting += came - lost
        while self._waiting and len(self._frames) < MOST_FRAMES and (frame := _receive(self._socket, self._buffer)):
            self._frames.append(frame)
            self._waiting -= 1


def first_hop(address: str, port: int, timeout: float) -> Fact[tuple[WireReply, ...]]:
    """What answers a SYN that no router may pass on: the next machine itself, or its "time exceeded"; seconds."""
    try:
        return _first_hop(address, port, timeout)
    except OSError as error:
        return Unknown(Reason.FAILED, f"a SYN with TTL 1: {error.strerror}")


def _first_hop(address: str, port: int, timeout: float) -> Fact[tuple[WireReply, ...]]:
    family, _, _, _, target = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)[0]
    ipv6 = family == socket.AF_INET6
    with Recorder((port,)) as recorder, socket.socket(family, socket.SOCK_STREAM) as sock:
        level = socket.IPPROTO_IPV6 if ipv6 else socket.IPPROTO_IP
        sock.setsockopt(level, socket.IPV6_UNICAST_HOPS if ipv6 else socket.IP_TTL, 1)
        sock.setsockopt(level, IPV6_RECVERR if ipv6 else IP_RECVERR, 1)  # an ICMP error ends the wait
        sock.setblocking(False)
        sock.connect_ex(target)
        local = sock.getsockname()
        _wait(sock, timeout)
        return recorder.replies(Flow(Endpoint(local[0], local[1]), Endpoint(address, port)))


def _wait(sock: socket.socket, timeout: float) -> None:
    poll = select.poll()
    poll.register(sock, select.POLLOUT)
    poll.poll(timeout * 1000)


def _open(ports: Collection[int]) -> Fact[socket.socket]:
    if sys.platform != "linux":
        return NOT_LINUX
    try:
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, socket.htons(ETH_P_ALL))
    except PermissionError:
        return NEEDS_CAP_NET_RAW
    except OSError as error:
        return Unknown(Reason.FAILED, f"socket(AF_PACKET): {error.strerror}")
    try:
        wire_filter.attach(sock, ports)
        sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        _enlarge(sock)
    except OSError as error:
        sock.close()
        return Unknown(Reason.FAILED, f"setsockopt on a packet socket: {error.strerror}")
    return Known(sock)


def _enlarge(sock: socket.socket) -> None:
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)
    except PermissionError:  # CAP_NET_RAW without CAP_NET_ADMIN: as much as net.core.rmem_max allows
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)


def _statistics(sock: socket.socket) -> tuple[int, int]:
    """How many packets came since the last call, and how many of them did not fit."""
    came, lost = struct.unpack("=II", sock.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))
    return came, lost


def _receive(sock: socket.socket, buffer: bytearray) -> Frame | None:
    try:
        size, ancillary, _, address = sock.recvmsg_into((buffer,), 64)
    except BlockingIOError:
        return None
    interface, protocol, kind, hardware, sender = address
    seconds, nanoseconds = next((struct.unpack("=qq", data) for *_, data in ancillary if len(data) == 16), (0, 0))
    packet = bytes(memoryview(buffer)[:size])  # a buffer of the largest size for each would use up the mappings
    return Frame(seconds, nanoseconds // 1000, interface, protocol, kind, hardware, sender, packet)


def _keys(flow: Flow) -> Iterator[Key]:
    local = _on_the_wire(flow.local.address)
    remote = _on_the_wire(flow.remote.address)
    if not any(remote):  # the kernel dials itself when told the unspecified address (ip_route_output_key_hash)
        remote = local
    yield (local, flow.local.port, remote, flow.remote.port)
    yield (remote, flow.remote.port, local, flow.local.port)


def _on_the_wire(address: str) -> bytes:
    ip = ip_address(address.partition("%")[0])
    mapped = ip.ipv4_mapped if isinstance(ip, IPv6Address) else None
    return (mapped or ip).packed


def _key(packet: bytes) -> Key | None:
    """The ends of a TCP packet, or of the one that an ICMP error quotes; None: neither, or not its first fragment."""
    match packet[0] >> 4 if packet else 0:
        case 4 if len(packet) >= 20 and not struct.unpack_from("!H", packet, 6)[0] & 0x1FFF:
            length, protocol, source, destination = (packet[0] & 15) * 4, packet[9], packet[12:16], packet[16:20]
            quotes = protocol == ICMP and packet[length : length + 1] in map(_byte, ICMP_ERRORS)
        case 6 if len(packet) >= 40:
            length, protocol, source, destination = 40, packet[6], packet[8:24], packet[24:40]
            quotes = protocol == ICMPV6 and packet[40:41] < _byte(ICMPV6_INFORMATIONAL)
        case _:
            return None
    if quotes:
        return _key(packet[length + 8 :])
    if protocol != TCP or len(packet) < length + 4:
        return None
    ports = struct.unpack_from("!HH", packet, length)
    return (source, ports[0], destination, ports[1])


def _byte(value: int) -> bytes:
    return bytes((value,))


def _ours(frames: Iterable[Frame], flows: Mapping[Key, Flow]) -> Iterator[Frame]:
    """The packets of these connections, until a new one begins on the same ports: then somebody else has got ours."""
    begun: dict[Flow, bytes] = {}
    ended: set[Flow] = set()
    for frame in frames:
        key = _key(frame.packet)
        if key is None or key not in flows:
            continue
        flow, sequence = flows[key], _opening(frame.packet)
        if sequence and begun.setdefault(flow, sequence) != sequence:
            ended.add(flow)
        if flow not in ended:
            yield frame


def _opening(packet: bytes) -> bytes | None:
    """The sequence number of a SYN, the same where it is repeated; None: it is no SYN."""
    at, protocol = ((packet[0] & 15) * 4, packet[9]) if packet[0] >> 4 == 4 else (40, packet[6])
    is_syn = protocol == TCP and len(packet) > at + 13 and packet[at + 13] & 0x12 == 0x02
    return packet[at + 4 : at + 8] if is_syn else None


def _once(frames: Iterable[Frame]) -> Iterator[Frame]:
    """Each packet once: lo shows it going out and coming in, a bridge shows it again on its port.

    The same bytes in the same place twice are a retransmission, and stay.
    """
    first: dict[bytes, tuple[str, int]] = {}
    for frame in frames:
        place = (frame.interface, frame.kind)
        if first.setdefault(frame.packet, place) == place:
            yield frame


def _cooked(frame: Frame) -> bytes:
    """The packet behind a LINUX_SLL header (tcpdump.org/linktypes/LINKTYPE_LINUX_SLL)."""
    header = struct.pack(">HHH8sH", frame.kind, frame.hardware, len(frame.sender), frame.sender, frame.protocol)
    return header + frame.packet


def _answers(frames: tuple[Frame, ...], flow: Flow) -> Iterator[WireReply]:
    """The packets that came in for our connection, each kind of answer once: the first of its kind."""
    outgoing = next(_keys(flow))
    started: float | None = None
    seen: set[WireReply] = set()
    for frame in frames:
        ours = _key(frame.packet) == outgoing
        reply = _reply(frame)
        if reply and ours == (reply.kind == "icmp"):  # an ICMP error quotes what we sent
            if reply not in seen:
                seen.add(reply)
                yield replace(reply, ms=None if started is None else round((frame.time - started) * 1000, 3))
        elif ours and started is None:
            started = frame.time


def _reply(frame: Frame) -> WireReply | None:
    """The packet as an answer to a SYN; None: it is none."""
    _load_scapy()
    from scapy.layers import inet, inet6

    ip = inet.IP(frame.packet) if frame.protocol == ETH_P_IP else inet6.IPv6(frame.packet)
    ttl = ip.ttl if frame.protocol == ETH_P_IP else ip.hlim
    layer = ip.payload
    link = frame.sender.hex(":") if any(frame.sender) else None
    if isinstance(layer, inet.ICMP | inet6._ICMPv6):
        return WireReply("icmp", ip.src, ttl, layer.type, layer.code, frame.interface, link)
    if isinstance(layer, inet.TCP) and layer.flags.R:
        return WireReply("reset", ip.src, ttl, interface=frame.interface, link=link)
    if isinstance(layer, inet.TCP) and layer.flags.S and layer.flags.A:
        return WireReply("syn-ack", ip.src, ttl, interface=frame.interface, link=link)
    return None


_loading = threading.Lock()


def _load_scapy() -> None:
    """Imports scapy without its vendor tables and without a trace: 0.13 s instead of 0.38 s.

    scapy.main makes ~/.config and ~/.cache and fills ~/.cache/scapy as soon as it is imported, which a diagnosis
    may not do; scapy.route asks the kernel for every route, which nobody here uses.
    """
    stand_ins: dict[str, dict[str, object]] = {
        "scapy.main": {"SCAPY_CACHE_FOLDER": None},
        "scapy.libs.manuf": {"DATA": ""},
        "scapy.libs.bluetoothids": {"DATA": {}},
    }
    with _loading:
        if "scapy.layers.inet6" in sys.modules:
            return
        import logging

        logging.getLogger("scapy").setLevel(logging.CRITICAL)  # its warnings are about interfaces that nobody asked for
        missing = {name: content for name, content in stand_ins.items() if name not in sys.modules}
        for name, content in missing.items():
            sys.modules[name] = ModuleType(name)
            vars(sys.modules[name]).update(content)
        try:
            from scapy.config import conf

            conf.route_autoload = conf.route6_autoload = False
            import_module("scapy.layers.inet6")
        finally:
            for name in missing:
                del sys.modules[name]
