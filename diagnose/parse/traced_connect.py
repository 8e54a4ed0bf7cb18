"""Joins the events of a trace to one connect: what became of its packets.

The thread that an event names is the one that a softirq interrupted, so a drop is joined by packet: the stack of
net_dev_queue shows the packet that our connect sent, and only a drop of that packet is ours
(include/trace/events/{skb,net,tcp}.h).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from msgspec import Struct
from msgspec.structs import replace

from diagnose.model.attempt import Drop
from diagnose.parse.freed import freed
from diagnose.parse.ftrace import Event

# functions that send a packet of their own from within a hook: what is queued or freed below them is not our SYN
_SENDS_ANOTHER = ("nf_send_", "nf_dup_", "nft_reject", "reject_tg", "nft_dup", "nft_fwd", "tee_tg", "icmp", "__icmp")
_SOFTIRQ_ENTRY = ("handle_softirqs", "__do_softirq", "run_ksoftirqd")
_TCP_INPUT = ("tcp_v4_rcv", "tcp_v6_rcv")
_TCP_RESET = ("tcp_v4_send_reset", "tcp_v6_send_reset")
_NO_SOCKET = "NO_SOCKET"
_HERE = "lo"
"""The interface by which a packet to this namespace's own addresses goes."""


ResetEvent = Literal["tcp_send_reset", "net_dev_queue", "kfree_skb"]
"""tcp_send_reset: its own (without a socket it fires since Linux 6.10); net_dev_queue: the stack of its sending;
kfree_skb: TCP freed our SYN for want of a socket."""


class Told(Struct, frozen=True):
    """What the events say of one connect."""

    drops: tuple[Drop, ...] = ()
    reset: ResetEvent | None = None
    """Which event shows that this namespace's TCP reset the connect; None: none does."""
    packets: frozenset[str] = frozenset()
    """The addresses of our SYN and of what answered it."""
    left: bool = False
    """The socket has left SYN-SENT: an answer came, and addresses of packets may be used again."""
    ack: tuple[Drop, ...] = ()
    """Where the ACK of that answer was freed, as long as the kernel was at work on nothing else meanwhile."""


def told(trace: Sequence[Event], thread: int, source: int, target: int) -> Told:
    """Joins the events to the connect that `thread` made from port `source` to port `target`."""
    ours, after, left = _window(trace, thread, source, target)
    syns: set[str] = set()
    replies: set[str] = set()
    drops: list[Drop] = []
    received: dict[int, str] = {}
    resets: set[ResetEvent] = set()
    strayed = False
    for event in ours:
        packet = event.packet
        if event.name == "tcp_send_reset":
            if _joins(event.fields(), source, target):
                resets.add("tcp_send_reset")
        elif event.name == "kfree_skb":
            whose = _whose(event, packet, thread, syns, replies, received)
            if whose and (drop := freed(event)):
                drops.append(replace(drop, packet=whose))
                if drop.reason == _NO_SOCKET and whose == "syn" and _works_on(event, thread, packet, received):
                    resets.add("kfree_skb")
        elif event.pid != thread:
            continue
        elif event.in_task:
            received.pop(event.cpu, None)
            if packet and event.name == "net_dev_queue" and _sends_syn(event):
                syns.add(packet)
        elif event.in_softirq and event.name == "netif_receive_skb":
            received[event.cpu] = packet
        elif event.name == "net_dev_queue" and packet not in syns and _answers_one_of(event, syns, received):
            if packet:
                replies.add(packet)
            if _sends_reset(event):
                resets.add("net_dev_queue")
        strayed = strayed or (packet in syns and event.fields().get("dev", _HERE) != _HERE)
    ack = _ack_freed(after, thread, replies, received)
    return Told(tuple(drops), _surest(resets, strayed=strayed), frozenset(syns | replies), left, ack)


def _surest(resets: set[ResetEvent], *, strayed: bool) -> ResetEvent | None:
    """A SYN that has been on another interface than lo may have been reset by another namespace's TCP."""
    for one in get_args(ResetEvent):
        if one in resets and (one == "tcp_send_reset" or not strayed):
            found: ResetEvent = one
            return found
    return None


def _works_on(event: Event, thread: int, packet: str, received: dict[int, str]) -> bool:
    """Whether the packet was being received there, in our thread."""
    return event.pid == thread and event.in_softirq and packet != "" and received.get(event.cpu) == packet


def _sends_reset(event: Event) -> bool:
    """By its stack: TCP's own reset, sent for the packet that it was at work on."""
    for name in event.stack:
        if name in _TCP_RESET:
            return True
        if name in _TCP_INPUT:
            return False
    return False


def _ack_freed(after: Sequence[Event], thread: int, replies: set[str], received: dict[int, str]) -> tuple[Drop, ...]:
    """Where the ACK was freed that TCP sent for the answer: on its way out, or when it was received in our thread.

    Once another packet is received there, the ACK has gone its way, and its address may be another's.
    """
    ack, place = None, None
    for event in after:
        if event.pid != thread:
            continue
        sent = _sends_ack(event, replies, received)
        if event.name == "net_dev_queue" and ack is None and sent:
            ack = event.packet
        elif event.name == "netif_receive_skb" and event.in_softirq:
            received[event.cpu] = event.packet
            if place == event.cpu:
                return ()
            place = event.cpu if ack and event.packet == ack else place
        elif event.name == "kfree_skb" and (drop := freed(event)):
            arriving = event.in_softirq and place == event.cpu and event.packet == ack
            if arriving or (ack is None and sent):
                return (replace(drop, packet="ack"),)
    return ()


def _sends_ack(event: Event, replies: set[str], received: dict[int, str]) -> bool:
    """By its stack: sent by TCP for the answer, within connect, which had the socket locked, or at once."""
    if "__tcp_transmit_skb" not in event.stack or any(name.startswith(_SENDS_ANOTHER) for name in event.stack):
        return False
    within = event.in_task and "tcp_rcv_state_process" in event.stack and "tcp_connect" not in event.stack
    return within or _answers_one_of(event, replies, received)


def _window(trace: Sequence[Event], thread: int, source: int, target: int) -> tuple[list[Event], list[Event], bool]:
    """The events while the socket was in SYN-SENT, those after it, and whether it left that state."""
    inside: list[Event] = []
    begun = False
    for number, event in enumerate(trace):
        if event.name == "inet_sock_set_state":
            fields = event.fields()
            if (fields.get("sport"), fields.get("dport")) != (str(source), str(target)):
                continue
            if fields.get("newstate") == "TCP_SYN_SENT" and event.pid == thread and event.in_task:
                begun, inside = True, []
            elif begun and fields.get("oldstate") == "TCP_SYN_SENT":
                return inside, list(trace[number + 1 :]), True
        elif begun:
            inside.append(event)
    return inside, [], False


def _whose(
    event: Event, packet: str, thread: int, syns: set[str], replies: set[str], received: dict[int, str]
) -> Literal["syn", "reply"] | None:
    """Which of our packets the kernel freed there: "syn", "reply", or none of them."""
    if packet in syns or (event.pid == thread and event.in_task and _sends_syn(event)):
        return "syn"
    if event.pid != thread or not event.in_softirq:
        return None
    # an answer dropped on its way out, inside the reception of our SYN; or received again and dropped there
    if _answers_one_of(event, syns, received) or (packet in replies and received.get(event.cpu) == packet):
        return "reply"
    return None


def _sends_syn(event: Event) -> bool:
    """By its stack: connect's own packet on its way out, not one that a hook sent meanwhile."""
    return "tcp_connect" in event.stack and not any(name.startswith(_SENDS_ANOTHER) for name in event.stack)


def _answers_one_of(event: Event, syns: set[str], received: dict[int, str]) -> bool:
    """Whether TCP was at work on our SYN there: the packet received last on that CPU, and, by the stack, still is."""
    if not event.in_softirq or received.get(event.cpu) not in syns:
        return False
    for name in event.stack:
        if name.startswith(_SOFTIRQ_ENTRY):
            return False
        if name in _TCP_INPUT:
            return True
    return False


def _joins(fields: dict[str, str], source: int, target: int) -> bool:
    """A reset between exactly our two ports; older kernels print the received packet's direction."""
    ports = {_port(fields.get("src", "")), _port(fields.get("dest", ""))}
    return ports == {str(source), str(target)}


def _port(endpoint: str) -> str:
    return endpoint.rpartition(":")[2]
