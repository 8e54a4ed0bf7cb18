"""Calls the kernel's witnesses to a failed attempt: who reset it, who dropped it, whose queue was full."""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic, sleep
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from diagnose.analysis.reach import reached
from diagnose.model.attempt import Attempt, DatagramWitness, Drop, Outcome, QueueWitness, ResetWitness
from diagnose.model.fact import NOT_NEEDED, Fact, Known, Reason, Unknown
from diagnose.model.network import Endpoint, SocketRow
from diagnose.pace import patient
from diagnose.probes import datagram, reset, sockets
from diagnose.probes.connect import Dial, wait

if TYPE_CHECKING:
    from diagnose.probes.sockets import ListenersBefore
    from diagnose.probes.tracing import TracedConnect, Tracer

TRACE_WAIT = patient(0.1)
"""Seconds for which the trace of one connect is read."""
RESETS_SECONDS = patient(2.0)
"""For all targets together."""
TRACES_SECONDS = patient(3.0)
"""For all targets that the counter does not settle, together; those beyond it keep what the counter says."""
_QUEUE_LOOKS = 3
_FURTHER_LOOKS = 2
"""At the trace of one more connect each, where the first showed no drop."""
_TCP_INPUT = ("tcp_v4_rcv", "tcp_v6_rcv")


class Silence(Struct, frozen=True):
    """What the witnesses say of an attempt without an answer."""

    drops: Fact[tuple[Drop, ...]]
    queue: Fact[QueueWitness]
    datagram: Fact[DatagramWitness] = NOT_NEEDED

    @property
    def settled(self) -> bool:
        """Whether the kernel has told what the timeout would tell."""
        dropped = isinstance(self.drops, Known) and not all(map(_arrived, self.drops.value))
        return dropped or (isinstance(self.queue, Known) and self.queue.value.dropped_ours)


def _arrived(drop: Drop) -> bool:
    """An ACK that TCP itself freed has come to the listener, which may hold it back (tcp_check_req)."""
    return drop.packet == "ack" and drop.symbol in _TCP_INPUT and drop.reason != "SOCKET_FILTER"


class Witnesses:
    """The witnesses of one run; `close` takes about 50 ms, so after the answer."""

    def __init__(self) -> None:
        self._tracer: Fact[Tracer] | None = None
        self._reports: Fact[Drop] | None = None
        """What this kernel's trace reports of a drop of our own making; None: not tried."""

    def close(self) -> None:
        """Removes the tracing instance, and those of runs that were killed; 0.2 ms where there are none."""
        if isinstance(self._tracer, Known):
            self._tracer.value.close()
        else:
            from diagnose.probes.tracing import sweep

            sweep()
        self._tracer = None

    def refused(self, attempts: Sequence[Attempt]) -> dict[Endpoint, Fact[ResetWitness]]:
        """Who sent the resets that these attempts got; this machine's own only."""
        wanted = {one.endpoint for one in attempts if _was_reset_here(one)}
        if not wanted:
            return {}
        counted = reset.who_reset_each(wanted, RESETS_SECONDS)
        until = monotonic() + TRACES_SECONDS
        return {endpoint: self._reset(endpoint, fact, until) for endpoint, fact in counted.items()}

    def _reset(self, endpoint: Endpoint, counted: Fact[ResetWitness], until: float) -> Fact[ResetWitness]:
        """By the counter that any user may read, else by the trace while there is time (time.monotonic)."""
        if (isinstance(counted, Known) and counted.value.distinct) or monotonic() > until:
            return counted
        traced = self._traced(endpoint)
        return traced.reset if traced is not None and isinstance(traced.reset, Known) else counted

    def overflowed(self, endpoint: Endpoint, before: ListenersBefore) -> Silence:
        """What the listener's counters say of a connection that waits for room in its accept queue."""
        return Silence(NOT_NEEDED, _queue(endpoint, before))

    def silent(self, endpoint: Endpoint, before: ListenersBefore, *, half_open: bool = False) -> Silence:
        """Sends one more SYN and asks who dropped it, and whether the listener's own counter rose since `before`.

        `half_open`: it is answered, and asked for is who dropped the ACK of that answer.
        """
        traced = self._traced(endpoint, half_open=half_open)
        if traced is None:
            drops: Fact[tuple[Drop, ...]] = self._tracer if isinstance(self._tracer, Unknown) else _NO_TRACE
            _nudge(endpoint)
        else:
            drops = traced.drops
        silence = Silence(drops, _queue(endpoint, before))
        if half_open or silence.settled:
            return silence
        if traced is not None and _shows_nothing(drops):
            silence = replace(silence, drops=self._looked_again(endpoint, drops))
        return silence if silence.settled else replace(silence, datagram=datagram.leaves(endpoint))

    def _looked_again(self, endpoint: Endpoint, drops: Fact[tuple[Drop, ...]]) -> Fact[tuple[Drop, ...]]:
        """The trace of further connects, until one shows a drop; then whether this kernel would show one at all.

        An answer that another thread has dropped (ksoftirqd, where the processor is scarce) is not told for ours.
        """
        for _ in range(_FURTHER_LOOKS):
            if not _shows_nothing(drops):
                return drops
            traced = self._traced(endpoint)
            if traced is None:
                return drops
            drops = traced.drops
        return _tested(drops, self._tested_report()) if _shows_nothing(drops) else drops

    def _tested_report(self) -> Fact[Drop]:
        if self._reports is None and isinstance(self._tracer, Known):
            from diagnose.probes.trace_test import reported_drop  # only where a trace shows nothing

            self._reports = reported_drop(self._tracer.value)
        return self._reports if self._reports is not None else _NO_TRACE

    def dropped_beyond(self, endpoint: Endpoint) -> Silence:
        """Sends one more SYN to another network namespace of this machine, and asks who dropped it there."""
        traced = self._traced(endpoint)
        drops: Fact[tuple[Drop, ...]] = self._tracer if isinstance(self._tracer, Unknown) else _NO_TRACE
        return Silence(traced.drops if traced is not None else drops, NOT_NEEDED)

    def _traced(self, endpoint: Endpoint, *, half_open: bool = False) -> TracedConnect | None:
        if self._tracer is None:
            from diagnose.probes.tracing import open_tracer  # only where the counters do not settle it

            self._tracer = open_tracer()
        if isinstance(self._tracer, Unknown):
            return None
        try:
            return self._tracer.value.probe(endpoint.address, endpoint.port, TRACE_WAIT, half_open=half_open)
        except OSError as error:
            self.close()
            self._tracer = Unknown(Reason.FAILED, f"tracefs: {error}")
            return None


def _shows_nothing(drops: Fact[tuple[Drop, ...]]) -> bool:
    """Whether the trace was read, and has no line about our packet."""
    return isinstance(drops, Unknown) and drops.reason is Reason.NOT_VISIBLE


def _tested(drops: Fact[tuple[Drop, ...]], report: Fact[Drop]) -> Fact[tuple[Drop, ...]]:
    """A trace without a drop of our packet, with what is known of the kernel that wrote it."""
    match report:
        case Known(value=drop):
            return Unknown(
                Reason.NOT_VISIBLE,
                "the kernel reported no drop of our packet, though it does report one by a rule of our own "
                f"({drop.words})",
            )
        case Unknown(reason=Reason.KERNEL_TOO_OLD, detail=detail):
            return Unknown(Reason.KERNEL_TOO_OLD, f"the kernel reported no drop of our packet, and {detail}")
        case Unknown():
            return drops


_NO_TRACE = Unknown(Reason.FAILED, "no trace of the packet")


def _was_reset_here(attempt: Attempt) -> bool:
    if attempt.outcome is not Outcome.REFUSED or not attempt.local:
        return False
    return not (isinstance(attempt.icmp, Known) and attempt.icmp.value)


def _nudge(endpoint: Endpoint) -> None:
    """One more SYN, for the listener's counter to show; its outcome is not looked at."""
    dial = Dial(endpoint, local=True, timeout=0.005, server_side=lambda _server, _client: NOT_NEEDED)
    wait((dial,), monotonic() + 0.006)


def _queue(endpoint: Endpoint, before: ListenersBefore) -> Fact[QueueWitness]:
    """The listener's queue and drop counter, before and after; a softirq may count a moment late."""
    witness: Fact[QueueWitness] = NOT_NEEDED
    for _ in range(_QUEUE_LOOKS):
        witness = _compare(endpoint, before.listeners, sockets.listener_witness(endpoint.address, endpoint.port))
        if not isinstance(witness, Known) or witness.value.drops_after > witness.value.drops_before:
            break
        sleep(0.001)
    match witness:
        case Known(value=seen) if seen.drops_after > seen.drops_before:
            return Known(replace(seen, overflows=sockets.overflows_since(before)))
        case _:
            return witness


def _compare(
    endpoint: Endpoint, before: Fact[tuple[SocketRow, ...]], after: Fact[tuple[SocketRow, ...]]
) -> Fact[QueueWitness]:
    match before, after:
        case Unknown() as unknown, _:
            return unknown
        case _, Unknown() as unknown:
            return unknown
        case Known(value=earlier), Known(value=later):
            return _rise(endpoint, earlier, later)


def _rise(endpoint: Endpoint, earlier: tuple[SocketRow, ...], later: tuple[SocketRow, ...]) -> Fact[QueueWitness]:
    known = {row.inode: row for row in earlier}
    for row in reached(later, endpoint.address, endpoint.port):
        first = known.get(row.inode)
        if first is None:
            return Unknown(Reason.NOT_VISIBLE, "the listener was not there yet when the attempt began")
        if row.drops is None or first.drops is None:
            return Unknown(Reason.KERNEL_TOO_OLD, "the listener's drop counter is not told")
        full = first.queue > first.backlog
        return Known(QueueWitness(row.local, first.drops, row.drops, row.queue, row.backlog, full_before=full))
    return Unknown(Reason.NOT_NEEDED, "no listener takes this address")
