"""Joining the trace's lines to one connect: only our own packet's drop is ours."""

from __future__ import annotations

from diagnose.model.attempt import Drop
from diagnose.parse.ftrace import complete, events
from diagnose.parse.traced_connect import Told, told
from diagnose.probes.tracing import _Story

THREAD, SOURCE, TARGET = 700, 50000, 8080
CONNECT = ("__dev_queue_xmit", "ip_output", "__tcp_transmit_skb", "tcp_connect", "__sys_connect")
RECEIVING = ("tcp_v4_rcv", "process_backlog", "handle_softirqs", *CONNECT)
ANSWERING = ("tcp_v4_send_synack", "tcp_conn_request", *RECEIVING)


class Trace:
    """Lines as the kernel writes them, one event a call."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._clock = 1.0

    def add(
        self, event: str, text: str, pid: int = THREAD, cpu: int = 0, context: str = ".", stack: tuple[str, ...] = ()
    ) -> Trace:
        head = f"          python3-{pid}     [{cpu:03}] ..{context}1. {self._clock:12.6f}: "
        self._clock += 0.000001
        self.lines.append(f"{head}{event}: {text}")
        if stack:
            self.lines += [f"{head}<stack trace>", *(f" => {name}" for name in stack)]
        return self

    def state(self, old: str, new: str, source: int = SOURCE, pid: int = THREAD, context: str = ".") -> Trace:
        text = (
            f"family=AF_INET protocol=IPPROTO_TCP sport={source} dport={TARGET} oldstate=TCP_{old} newstate=TCP_{new}"
        )
        return self.add("inet_sock_set_state", text, pid, context=context)

    def begun(self) -> Trace:
        return self.state("CLOSE", "SYN_SENT")

    def queued(
        self, packet: str, pid: int = THREAD, context: str = ".", stack: tuple[str, ...] = CONNECT, cpu: int = 0
    ) -> Trace:
        return self.add("net_dev_queue", f"dev=lo skbaddr={packet} len=74", pid, cpu, context, stack)

    def received(self, packet: str, pid: int = THREAD, cpu: int = 0) -> Trace:
        return self.add("netif_receive_skb", f"dev=lo skbaddr={packet} len=60", pid, cpu, "s", RECEIVING)

    def freed(
        self,
        packet: str,
        pid: int = THREAD,
        context: str = "s",
        stack: tuple[str, ...] = RECEIVING,
        reason: str = "NETFILTER_DROP",
        cpu: int = 0,
    ) -> Trace:
        where = f"rx_sk=0 protocol=2048 location=nft_do_chain+0x3e8/0x610 [nf_tables] reason: {reason}"
        return self.add("kfree_skb", f"skbaddr={packet} {where}", pid, cpu, context, stack)

    def told(self) -> Told:
        return told(events(self.lines), THREAD, SOURCE, TARGET)


DROPPED = (Drop("NETFILTER_DROP", "nft_do_chain"),)


def test_the_drop_of_the_packet_that_our_connect_queued_is_ours_in_whichever_thread_it_happens() -> None:
    trace = Trace().begun().queued("aa").freed("aa", pid=14, cpu=1, stack=("nft_do_chain", "run_ksoftirqd"))
    assert trace.told().drops == DROPPED


def test_a_foreign_drop_under_our_thread_is_not_ours() -> None:
    trace = Trace().begun().freed("ff").queued("aa").freed("ee").received("dd").freed("dd")
    assert trace.told().drops == ()


def test_a_drop_before_it_was_queued_is_ours_by_the_stack_of_connect() -> None:
    assert Trace().begun().freed("aa", context=".", stack=("nft_do_chain", *CONNECT)).told().drops == DROPPED


def test_a_packet_that_a_rule_sends_from_within_our_connect_is_not_our_syn() -> None:
    reset = ("nf_send_reset", "nft_reject_inet_eval", *CONNECT)
    trace = Trace().begun().queued("bb", stack=("__dev_queue_xmit", *reset)).freed("bb", context=".", stack=reset)
    assert trace.told().drops == ()
    assert trace.freed("aa", context=".", stack=("nft_do_chain", *CONNECT)).told().drops == DROPPED


def test_nothing_counts_after_the_socket_has_its_answer_because_addresses_are_used_again() -> None:
    trace = Trace().begun().queued("aa").state("SYN_SENT", "ESTABLISHED", pid=14, context="s").freed("aa")
    assert trace.told() == Told(packets=frozenset({"aa"}), left=True)


def test_another_sockets_answer_does_not_end_our_wait() -> None:
    trace = Trace().begun().queued("aa").state("SYN_SENT", "CLOSE", source=SOURCE + 1).freed("aa")
    assert trace.told() == Told(DROPPED, packets=frozenset({"aa"}))


def test_an_answer_dropped_on_its_way_out_is_the_reply() -> None:
    trace = Trace().begun().queued("aa").received("aa").freed("bb", stack=ANSWERING)
    assert trace.told().drops == (Drop("NETFILTER_DROP", "nft_do_chain", packet="reply"),)


def test_an_answer_dropped_on_its_way_in_is_the_reply() -> None:
    trace = Trace().begun().queued("aa").received("aa").queued("bb", context="s", stack=ANSWERING).received("bb")
    assert trace.freed("bb").told().drops == (Drop("NETFILTER_DROP", "nft_do_chain", packet="reply"),)


def test_what_a_timer_sends_after_our_syn_was_taken_is_not_its_answer() -> None:
    timer = ("nft_do_chain", "tcp_retransmit_timer", "run_timer_softirq", "handle_softirqs", *CONNECT)
    trace = Trace().begun().queued("aa").received("aa").freed("bb", stack=timer)
    assert trace.told().drops == ()


def test_the_answer_to_a_packet_received_after_ours_is_not_ours() -> None:
    trace = Trace().begun().queued("aa").received("aa").received("cc").freed("bb", stack=ANSWERING)
    assert trace.told().drops == ()


def test_a_reset_is_ours_only_between_both_our_ports() -> None:
    def reset(source: int, target: int) -> str | None:
        text = f"skbaddr=aa skaddr=0 src=127.0.0.1:{target} dest=127.0.0.1:{source} state=UNKNOWN reason=NO_SOCKET"
        return Trace().begun().queued("aa").add("tcp_send_reset", text, context="s").told().reset

    assert reset(SOURCE, TARGET)
    assert reset(TARGET, SOURCE)
    assert not reset(SOURCE, TARGET + 1)
    assert not reset(SOURCE + 1, TARGET)


def test_a_kernel_that_prints_no_reason_leaves_it_untold() -> None:
    trace = Trace().begun().queued("aa").add("kfree_skb", "skbaddr=aa protocol=2048 location=00000000c0ffee00")
    assert trace.told().drops == ()


def test_a_stack_belongs_to_its_event_though_an_interrupt_came_between() -> None:
    trace = Trace().add("net_dev_queue", "dev=lo skbaddr=aa len=74")
    trace.add("kfree_skb", "skbaddr=ff location=x reason: NO_SOCKET", context="s", stack=RECEIVING)
    head = trace.lines[0].partition(": ")[0]
    trace.lines += [f"{head}: <stack trace>", *(f" => {name}" for name in CONNECT)]
    assert [event.stack for event in events(trace.lines)] == [CONNECT, RECEIVING]


def test_a_task_name_cannot_forge_an_event() -> None:
    forged = "a-7 [000] ....."  # as long as a task's name may be
    line = f"{forged}-700    [001] ..s1.  1479.822838: kfree_skb: skbaddr=aa location=x reason: NO_SOCKET"
    event = events([line])[0]
    assert (event.pid, event.cpu, event.name) == (700, 1, "kfree_skb")


def test_lines_that_are_no_events_are_left_out() -> None:
    assert events(["CPU:1 [LOST 17 EVENTS]", "", " => tcp_connect", "nonsense"]) == []


def test_an_event_whose_stack_may_still_come_is_not_complete() -> None:
    trace = Trace().begun().queued("aa")
    assert complete(trace.lines) == 1
    assert complete(trace.lines[:1]) == 0
    assert complete(trace.begun().lines) == len(trace.lines) - 1


def test_an_event_that_is_read_before_its_stack_waits_for_it() -> None:
    trace = (
        Trace().begun().freed("aa", context=".", stack=("kfree_skb_reason", "nf_hook_slow", "__ip_local_out", *CONNECT))
    )
    head = trace.lines[:2]
    story = _Story(THREAD, SOURCE, TARGET)
    story.add("\n".join(head) + "\n")
    story.add("")
    assert not story.told.drops
    story.add("\n".join(trace.lines[2:]) + "\n")
    story.add("")
    assert [drop.hook for drop in story.told.drops] == ["output"]


def test_an_event_whose_stack_never_comes_is_read_at_the_second_look() -> None:
    trace = Trace().begun().queued("aa").freed("aa", stack=())
    story = _Story(THREAD, SOURCE, TARGET)
    story.add("\n".join(trace.lines) + "\n")
    story.add("")
    assert not story.told.drops
    story.add("")
    assert story.told.drops == DROPPED


SENDING_ACK = ("__dev_queue_xmit", "__tcp_transmit_skb", "tcp_rcv_state_process", "__release_sock", "__sys_connect")
TAKING_ACK = ("nft_do_chain", "handle_softirqs", *SENDING_ACK)
ACK_DROPPED = (Drop("NETFILTER_DROP", "nft_do_chain", packet="ack"),)


def answered() -> Trace:
    """The SYN has come in, its answer as well, and the socket has taken it."""
    trace = Trace().begun().queued("aa").received("aa").queued("bb", context="s", stack=ANSWERING).received("bb")
    return trace.state("SYN_SENT", "ESTABLISHED")


def test_the_drop_of_the_ack_that_answers_the_answer_is_told() -> None:
    trace = answered().queued("cc", stack=SENDING_ACK).received("cc").freed("cc", stack=TAKING_ACK)
    assert trace.told().ack == ACK_DROPPED
    assert not trace.told().drops


def test_the_drop_of_an_ack_on_its_way_out_is_told() -> None:
    assert answered().freed("cc", context=".", stack=("nft_do_chain", *SENDING_ACK)).told().ack == ACK_DROPPED


def test_an_ack_that_arrived_is_not_mixed_up_with_a_later_packet_at_its_address() -> None:
    trace = answered().queued("cc", stack=SENDING_ACK).received("cc").received("dd").received("cc")
    assert not trace.freed("cc", stack=TAKING_ACK).told().ack


def test_an_ack_freed_in_another_thread_is_not_told() -> None:
    trace = answered().queued("cc", stack=SENDING_ACK).received("cc")
    assert not trace.freed("cc", pid=14, stack=TAKING_ACK).told().ack


def test_what_a_rule_sends_meanwhile_is_not_the_ack() -> None:
    rejecting = ("nf_hook_slow", "nf_send_reset", "nft_reject_inet_eval", *SENDING_ACK)
    assert not answered().freed("cc", context=".", stack=rejecting).told().ack
