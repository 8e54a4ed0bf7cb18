"""What a connect really meets in this network namespace: its end, the kernel's trace, the counters of iptables-legacy.

Nothing here is the shadow's: the trace has a parser of its own, and the counters are what iptables-legacy-save prints.
"""

from __future__ import annotations

import errno
import re
import select
import socket
import struct
import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence
from ipaddress import ip_address

from msgspec import Struct

from tests.fidelity.listeners import Listeners, owned_socket

PROMPT, PATIENT = 0.03, 2.0
"""Seconds for an answer after a rule was seen to stop a packet, and where none was."""

Attributes = dict[int, bytes]


class Where(Struct, frozen=True, order=True):
    """A rule or policy of this namespace; `place` is nft's handle or the line of iptables-legacy, 0 for a policy."""

    legacy: bool
    family: str
    table: str
    chain: str
    place: int


class Stop(Struct, frozen=True):
    """Where the connection's first lost packet was lost."""

    packet: str
    """syn, syn-ack, ack, reset or icmp."""
    hook: str
    by: tuple[Where, ...]
    """One rule; several where counters alone cannot tell which of them it was."""


class Real(Struct, frozen=True):
    """A connect, and what the kernel told of it."""

    address: str
    port: int
    outcome: str
    """connected, not-accepted, unanswered, or the name of its errno."""
    stop: Stop | None
    arrived: tuple[str, int] | None
    """Where its SYN was last seen to go."""


class Seen(Struct, frozen=True):
    """One line of the trace: a packet met a rule or a policy."""

    packet: str
    source: tuple[str, int]
    target: tuple[str, int]
    where: Where
    stops: bool


# ------ the trace of nf_tables (linux/netfilter/nf_tables.h, enum nft_trace_attributes)

_OBSERVER = "observer"
_PLACES = [(hook, end) for hook in ("output", "postrouting", "prerouting", "input") for end in ("in", "out")]
_CHAINS = "\n".join(
    f"chain {hook}_{end} {{ type filter hook {hook} priority {2**31 - 1 if end == 'out' else -(2**31)};\n"
    + ("meta nftrace set 1\n" if hook in ("output", "prerouting") and end == "in" else "")
    + "}"
    for hook, end in _PLACES
)
_FAMILIES = {1: "inet", 2: "ip", 5: "netdev", 10: "ip6"}
_NETFILTER, _GROUP_TRACE, _TRACE = 12, 9, 0x0A11
_DROP, _STOLEN, _QUEUE = 0, 2, 3
_BYPASS = 0x8000
"""Of a queue that no program reads."""
_POLICY, _RULE = 1, 3


class Tracer:
    """A socket for the trace of this namespace's own rules, and a table that asks for it at either end of each hook."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, _NETFILTER)
        self._socket.bind((0, 0))
        self._socket.setsockopt(socket.SOL_SOCKET, 33, 8 << 20)  # SO_RCVBUFFORCE
        self._socket.setsockopt(270, 1, _GROUP_TRACE)  # SOL_NETLINK, NETLINK_ADD_MEMBERSHIP
        self._around: dict[tuple[str, str, str], Where] = {}
        """The rule within which a chain without a name stands."""
        self._headers: dict[bytes, tuple[str, tuple[str, int], tuple[str, int]]] = {}
        self.seen: list[Seen] = []
        _run(("nft", "-f", "-"), f"table inet {_OBSERVER} {{\n{_CHAINS}\n}}\n")

    def close(self) -> None:
        """Takes the table away."""
        self._socket.close()
        _run(("nft", "delete", "table", "inet", _OBSERVER))

    def read(self) -> None:
        """Adds what the kernel has told since."""
        while True:
            try:
                data = self._socket.recv(1 << 20)
            except BlockingIOError:
                return
            for kind, body in _messages(data):
                if kind == _TRACE:
                    self._take(body[0], _attributes(body[4:]))

    def _take(self, family: int, told: Attributes) -> None:
        packet = told[6]
        if 8 in told:  # only the first line of a packet in each base chain has its headers
            self._headers[packet] = _packet(told[8], told.get(9, b""))
        kind = int.from_bytes(told[4], "big")
        if kind not in (_POLICY, _RULE) or packet not in self._headers:
            return
        verdict = _attributes(told[5])[1] if 5 in told else told[16]
        code = int.from_bytes(verdict, "big", signed=True)
        handle = int.from_bytes(told.get(3, b""), "big")  # the end of a chain has none
        where = Where(False, _FAMILIES[family], _name(told[1]), _name(told[2]), handle)
        where = self._around.get((where.family, where.table, where.chain), where)
        goal = _name(_attributes(told[5]).get(2, b"")) if 5 in told else ""
        if goal.startswith("__chain"):
            self._around[where.family, where.table, goal] = where
        # the number of a queue makes a verdict negative from 32768 on
        stops = not -5 <= code < 0 and code & 0xFF in (_DROP, _STOLEN, _QUEUE) and not code & _BYPASS
        self.seen.append(Seen(*self._headers[packet], where, stops))


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 16 <= len(data):
        length, kind = struct.unpack_from("=IH", data, at)
        yield kind, data[at + 16 : at + length]
        at += (length + 3) & ~3


def _attributes(data: bytes) -> Attributes:
    found: Attributes = {}
    at = 0
    while at + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, at)
        found[kind & 0x3FFF] = data[at + 4 : at + length]
        at += (length + 3) & ~3
    return found


def _name(value: bytes) -> str:
    return value.rstrip(b"\0").decode()


def _packet(network: bytes, transport: bytes) -> tuple[str, tuple[str, int], tuple[str, int]]:
    """What it is, from where, to where."""
    four = network[0] >> 4 == 4
    protocol = network[9] if four else network[6]
    ends = (network[12:16], network[16:20]) if four else (network[8:24], network[24:40])
    source, target = (str(ip_address(end)) for end in ends)
    if protocol != socket.IPPROTO_TCP:
        return "icmp", (source, 0), (target, 0)
    ports = struct.unpack_from("!HH", transport)
    flags = transport[13]
    kind = "reset" if flags & 4 else {0x02: "syn", 0x12: "syn-ack"}.get(flags & 0x12, "ack")
    return kind, (source, ports[0]), (target, ports[1])


# ------ iptables-legacy

_COUNTED = re.compile(r"^\[(\d+):\d+\] -A (\S+) ?(.*)$")
_POLICIES = re.compile(r"^:(\S+) (\S+) \[(\d+):\d+\]$")
_STOPS = re.compile(r"-j (DROP|REJECT|NFQUEUE|MASQUERADE)\b(?!.*--queue-bypass)")
"""MASQUERADE where it finds no address; what stands behind it then sees no packet."""
_BUILT_IN = {"output": "OUTPUT", "postrouting": "POSTROUTING", "prerouting": "PREROUTING", "input": "INPUT"}

Counters = dict[Where, int]


class Legacy:
    """The rules and policies of iptables-legacy that would stop a packet, and how many packets each has met."""

    def __init__(self, tools: Iterable[str]) -> None:
        self._tools = [tool for tool in tools if tool.endswith("legacy")]
        self._before = self._counters()

    def met(self, six: bool, hook: str) -> tuple[Where, ...]:
        """Those that have met a packet since, and that can have done so at this hook."""
        return tuple(
            where
            for where, packets in self._counters().items()
            if packets > self._before[where]
            and where.family == ("ip6" if six else "ip")
            and where.chain in (_BUILT_IN[hook], *self._own(where.chain))
        )

    @staticmethod
    def _own(chain: str) -> tuple[str, ...]:
        """A chain of the user's may have been jumped to from any hook."""
        return () if chain in _BUILT_IN.values() else (chain,)

    def _counters(self) -> Counters:
        found: Counters = {}
        for tool in self._tools:
            found.update(_stopping(_run((f"{tool}-save", "-c")), "ip6" if tool.startswith("ip6") else "ip"))
        return found


def _stopping(saved: str, family: str) -> Counters:
    found: Counters = {}
    lines: dict[str, int] = {}
    table = ""
    for text in saved.splitlines():
        if text.startswith("*"):
            table, lines = text[1:], {}
        elif policy := _POLICIES.match(text):
            if policy[2] == "DROP":
                found[Where(True, family, table, policy[1], 0)] = int(policy[3])
        elif rule := _COUNTED.match(text):
            lines[rule[2]] = lines.get(rule[2], 0) + 1
            if _STOPS.search(rule[3]):
                found[Where(True, family, table, rule[2], lines[rule[2]])] = int(rule[1])
    return found


# ------ connects


def connects(
    where: Sequence[tuple[str, int]], user: int, listeners: Listeners, tools: Iterable[str]
) -> tuple[Real, ...]:
    """Connects to each in turn as that user, and what the kernel told of it."""
    tracer = Tracer()
    try:
        return tuple(_connect(_Dial(*one, user), listeners, tracer, Legacy(tools)) for one in where)
    finally:
        tracer.close()


def works(address: str, port: int, listeners: Listeners, patience: float = 0.1) -> bool:
    """Whether a connect is made and taken; nothing is traced."""
    with _Dial(address, port, 0) as dial:
        dial.begin()
        until = time.monotonic() + patience
        while time.monotonic() < until and dial.errno is None:
            if dial.connected and listeners.took(dial.source):
                return True
            dial.wait(0.002)
        return False


def _connect(dial: _Dial, listeners: Listeners, tracer: Tracer, legacy: Legacy) -> Real:
    six = ":" in dial.address
    tracer.read()
    tracer.seen.clear()
    with dial:
        begun = time.monotonic()
        dial.begin()
        while True:
            tracer.read()
            ours = [one for one in tracer.seen if _of(one, dial.source)]
            outcome = _outcome(dial, listeners)
            if outcome is not None:
                break
            if time.monotonic() > begun + (PROMPT if _first_stop(ours, six, legacy) else PATIENT):
                outcome = "not-accepted" if dial.connected else "unanswered"
                break
            dial.wait(0.005)
        tracer.read()
        ours = [one for one in tracer.seen if _of(one, dial.source)]
    syn = [one for one in ours if one.packet == "syn"]
    return Real(
        address=dial.address,
        port=dial.port,
        outcome=outcome,
        stop=None if outcome == "connected" else _first_stop(ours, six, legacy),
        arrived=syn[-1].target if syn else None,
    )


def _outcome(dial: _Dial, listeners: Listeners) -> str | None:
    """How it has ended; None while it is under way."""
    if dial.connected and listeners.took(dial.source):
        return "connected"
    return errno.errorcode[dial.errno] if dial.errno is not None else None


def _of(seen: Seen, port: int) -> bool:
    """About a packet of the connection from this port, or an error that can answer one."""
    return seen.packet == "icmp" or port in (seen.source[1], seen.target[1])


def _first_stop(seen: Sequence[Seen], six: bool, legacy: Legacy) -> Stop | None:
    """A connection's packets follow from each other: the first of them that was lost is the one that counts."""
    for packet in ("syn", "syn-ack", "ack", "reset", "icmp"):
        lines = [one for one in seen if one.packet == packet]
        if lines and lines[-1].stops:  # a queue may be passed by: then more was seen of the packet
            return Stop(packet, "", (lines[-1].where,))
        passed = [one.where.chain for one in lines if one.where.table == _OBSERVER]
        last = max((place for place, (hook, end) in enumerate(_PLACES) if f"{hook}_{end}" in passed), default=None)
        if last is None or last == len(_PLACES) - 1:
            continue
        hook, end = _PLACES[last]
        return Stop(packet, hook, legacy.met(six, hook) if end == "in" else ())
    return None


class _Dial:
    """A connect under way; ICMP errors end it at once (IP_RECVERR, ip(7))."""

    def __init__(self, address: str, port: int, user: int) -> None:
        self.address = address
        self.port = port
        self.source = 0
        self.errno: int | None = None
        self.connected = False
        self._socket = owned_socket(address, user)
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.IPPROTO_IP, 11, 1)
        if ":" in address:
            self._socket.setsockopt(socket.IPPROTO_IPV6, 25, 1)

    def begin(self) -> None:
        """Sends the SYN."""
        number = self._socket.connect_ex((self.address, self.port))
        self.errno = number if number not in (0, errno.EINPROGRESS) else None
        self.source = self._socket.getsockname()[1]
        self.wait(0)

    def __enter__(self) -> _Dial:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def wait(self, seconds: float) -> None:
        """Until something happens, at most so long."""
        if self.connected or self.errno is not None:
            time.sleep(min(seconds, 0.001))
            return
        poller = select.poll()
        poller.register(self._socket, select.POLLOUT)
        if poller.poll(seconds * 1000):
            number = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            self.errno = number or None
            self.connected = not number


def _run(argv: tuple[str, ...], given: str = "") -> str:
    done = subprocess.run(argv, input=given, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"{' '.join(argv)}: {done.stderr.strip()}")
    return done.stdout
