"""How one connect or bind ended, and what the kernel's witnesses say of it."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from msgspec import Struct

from diagnose.model.bounds import Address, Count, Few, Handle, Milliseconds, Octet, Pid, Port
from diagnose.model.fact import NOT_NEEDED, Fact, Known
from diagnose.model.network import Endpoint, Family
from diagnose.model.rule import Step


class Outcome(StrEnum):
    """One name for each way that an attempt can end."""

    CONNECTED = "connected"
    REFUSED = "refused"
    UNANSWERED = "unanswered"
    UNREACHABLE = "unreachable"
    DENIED = "denied"
    ADDRESS_UNAVAILABLE = "address-unavailable"
    RESET = "reset"
    CLOSED = "closed"
    NOT_ACCEPTED = "not-accepted"
    NAME_NOT_FOUND = "name-not-found"
    BOUND = "bound"
    ADDRESS_IN_USE = "address-in-use"
    OTHER = "other"

    @property
    def works(self) -> bool:
        """Whether the user got what the attempt was for."""
        return self in (Outcome.CONNECTED, Outcome.BOUND)


class Acceptance(StrEnum):
    """What the server side's row of our own connection shows."""

    ACCEPTED = "accepted"
    PENDING = "pending"
    """Completed by the kernel, in the accept queue: the program has not taken it."""
    DEFERRED = "deferred"
    """SYN-RECV: the server waits for data first (TCP_DEFER_ACCEPT); healthy."""
    HALF_OPEN = "half-open"
    """SYN-RECV: for the client it is made, and the server's end does not have the client's last ACK."""
    OVERFLOWED = "overflowed"
    """SYN-RECV while the accept queue is full: the kernel drops the client's last ACK until the program accepts."""


class IcmpError(Struct, frozen=True):
    """An entry of the socket's error queue (IP_RECVERR, ip(7); IPV6_RECVERR, ipv6(7))."""

    origin: Literal["local", "icmp", "icmp6"]
    type: Octet
    code: Octet
    sender: Address | None = None


class ResetWitness(Struct, frozen=True):
    """Whether the kernel's TCP itself sent the reset that we got, because no socket wanted the packet."""

    by_kernel: bool
    distinct: bool
    """False: other traffic moved the counter as well, so it proves nothing."""
    source: Literal["OutRsts", "tcp_send_reset", "net_dev_queue", "kfree_skb"]
    """net_dev_queue: by the stack of the packet's sending; kfree_skb: TCP freed our packet for want of a socket."""
    probes: Count = 1
    counted: Count = 0
    background: Count = 0


class AckWitness(Struct, frozen=True):
    """Whether a connection is half-open because the listener wants data first, or because our last ACK was lost."""

    held_back: bool
    """False: the ACK did not reach the listener."""
    distinct: bool
    """False: other traffic moved the counter as well, so it proves nothing."""
    source: Literal["TCPDeferAcceptDrop", "retransmissions"]
    """The counter of ACKs held back, or whether the kernel sent its SYN-ACK again, as it does for a lost ACK alone."""
    probes: Count = 1
    """Connects that stayed half-open."""
    counted: Count = 0
    background: Count = 0


FilterHook = Literal["", "prerouting", "input", "forward", "output", "postrouting", "ingress", "egress"]
"""A place where netfilter or traffic control looks at a packet; empty: not known."""


class Drop(Struct, frozen=True):
    """Where and why the kernel freed our packet (tracepoint skb:kfree_skb)."""

    reason: str
    """Name from enum skb_drop_reason: NETFILTER_DROP, NO_SOCKET ...; NOT_SPECIFIED: the kernel gives none."""
    symbol: str
    """The function that dropped it, without offset: nft_do_chain, nf_hook_slow ..."""
    packet: Literal["syn", "reply", "ack"] = "syn"
    """ack: our last one of the handshake."""
    hook: FilterHook = ""
    """At which hook the function was at work, by the kernel's stack."""
    inferred: bool = False
    """The kernel gave no reason (before Linux 5.18): it is the only one for which this function frees a packet."""

    @property
    def words(self) -> str:
        """Reason and place: "NETFILTER_DROP in nft_do_chain, hook input"."""
        place = f"{self.reason} in {self.symbol}" + (f", hook {self.hook}" if self.hook else "")
        return f"{place} (its only reason: this kernel prints none)" if self.inferred else place


class QueueWitness(Struct, frozen=True):
    """The listener's own counters around our attempt (sock_diag): before it began, and when it had no answer."""

    listener: Endpoint
    drops_before: Count
    drops_after: Count
    queue: Count
    backlog: Count
    full_before: bool = False
    """The queue was over its limit before our attempt."""
    overflows: Count = 0
    """By how much ListenOverflows of /proc/net/netstat rose meanwhile, for all listeners of this namespace together."""

    @property
    def dropped_ours(self) -> bool:
        """The queue is over its limit and the drop counter rose while we waited."""
        return self.drops_after > self.drops_before and self.queue > self.backlog

    @property
    def overflowed(self) -> bool:
        """It dropped packets while we tried, for want of room in the queue, which may have room again by now.

        A filter of the socket counts in the drop counter as well, but in ListenOverflows does not.
        """
        full = self.queue > self.backlog or self.full_before or self.overflows > 0
        return self.drops_after > self.drops_before and full


class DatagramWitness(Struct, frozen=True):
    """What an empty UDP datagram to the same address and port met on its way out.

    EPERM comes at once where netfilter's output or postrouting hook drops it, or a filter on our cgroup (cgroup_skb
    egress): for any user, and for UDP alone, as TCP is only silent there.
    """

    forbidden: bool
    elsewhere: bool = False
    """Whether one to another port of that address is forbidden as well."""


class WireReply(Struct, frozen=True):
    """The raw packet that answered our SYN, as captured on its way in."""

    kind: Literal["syn-ack", "reset", "icmp"]
    sender: Address
    ttl: Octet
    """Hop limit as received."""
    icmp_type: Octet | None = None
    icmp_code: Octet | None = None
    interface: str | None = None
    link: str | None = None
    """Link-layer address that handed it to us; None: the interface has none (lo, tunnels)."""
    ms: Milliseconds | None = None
    """Since our first packet left; None: none was seen to leave."""


class Behind(Struct, frozen=True):
    """The other end of our connection: behind a forwarder in another network namespace, or behind a NAT rule."""

    server: Endpoint
    """As it is called in there."""
    pid: Pid
    """A process in there; 0: the forwarder's own connection to it gets no answer."""
    acceptance: Acceptance
    ms: Milliseconds
    """How long it was watched."""
    forwarder: str | None = None
    """The program that took our connection and dialled for us; None: NAT led it there."""
    here: bool = False
    """NAT led it to another socket of our own namespace."""
    hung_up: bool = False
    """The forwarder closed it again before any byte, and nothing at its far end listens."""
    namespace: Handle = 0
    """The network namespace in which the connection ends; 0: not known, or ours."""


class Attempt(Struct, frozen=True, kw_only=True):
    """One connect to one address."""

    address: Address
    port: Port
    family: Family
    outcome: Outcome
    ms: Milliseconds
    errno: str | None = None
    call: Literal["socket", "connect", "other"] = "connect"
    """The system call that gave the errno; other: one that netdiag needs as well, and a seccomp filter forbids."""
    source: Endpoint | None = None
    """Our side, as the kernel chose it."""
    local: bool = True
    """The address belongs to this machine (this network namespace)."""
    self_connected: Count = 0
    """How often the kernel first joined us to ourselves (simultaneous open) before this outcome."""
    icmp: Fact[Few[IcmpError]] = NOT_NEEDED
    """The error queue; known and empty: no ICMP error was behind it."""
    acceptance: Fact[Acceptance] = NOT_NEEDED
    ack: Fact[AckWitness] = NOT_NEEDED
    reset: Fact[ResetWitness] = NOT_NEEDED
    drops: Fact[Few[Drop]] = NOT_NEEDED
    queue: Fact[QueueWitness] = NOT_NEEDED
    datagram: Fact[DatagramWitness] = NOT_NEEDED
    wire: Fact[Few[WireReply]] = NOT_NEEDED
    sent: Fact[Count] = NOT_NEEDED
    """Packets of this attempt that were seen to leave, the SYN and its repetitions."""
    first_hop: Fact[Few[WireReply]] = NOT_NEEDED
    """What answered a SYN that may pass no router (TTL 1)."""
    behind: Fact[Behind] = NOT_NEEDED
    """Asked for where the connection does not end in this network namespace: who took it took it for others."""
    traced: Fact[tuple[Step, ...]] = NOT_NEEDED
    """What nf_tables on the machine itself did to one more SYN and its answer (--trace); not iptables-legacy."""

    @property
    def endpoint(self) -> Endpoint:
        """What was dialled."""
        return Endpoint(self.address, self.port)

    @property
    def overflowed(self) -> bool:
        """Whether the server's end of it waited for room in the accept queue until we gave up."""
        return self.acceptance == Known(Acceptance.OVERFLOWED) and not self.outcome.works

    @property
    def half_open(self) -> bool:
        """Whether our last ACK of the handshake is known not to have arrived."""
        return self.acceptance == Known(Acceptance.HALF_OPEN) and not self.outcome.works


class BindAttempt(Struct, frozen=True, kw_only=True):
    """One bind, tried with and without SO_REUSEADDR, never listening."""

    address: Address
    port: Port
    family: Family
    outcome: Outcome
    """With SO_REUSEADDR: what decides."""
    errno: str | None
    call: Literal["socket", "bind", "other"] = "bind"
    """The system call that gave the errno; other: one that netdiag needs as well, and a seccomp filter forbids."""
    plain_outcome: Outcome
    """Without SO_REUSEADDR."""
    plain_errno: str | None
    ms: Milliseconds

    @property
    def endpoint(self) -> Endpoint:
        """What was asked for."""
        return Endpoint(self.address, self.port)
