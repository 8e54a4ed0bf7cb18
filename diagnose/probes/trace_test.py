"""Whether this kernel's trace reports the drop of a packet by a rule: tried with a rule and a packet of our own.

Kernels differ in what they print (diagnose.parse.freed), so that a trace without a drop proves nothing until it has
reported one that is sure to have happened.
"""

from __future__ import annotations

from collections.abc import Iterable

from diagnose.model.attempt import Drop
from diagnose.model.fact import Fact, Known, Reason, Unknown
from diagnose.parse import nfnetlink as nl
from diagnose.parse.nft import Kind, Message
from diagnose.probes.bounded import NO_THREAD, started
from diagnose.probes.netlink import ROUTE, Netlink
from diagnose.probes.shadow import libc
from diagnose.probes.shadow.copy import loopback_up
from diagnose.probes.shadow.netfilter import Writer
from diagnose.probes.tracing import Tracer

_SECONDS = 0.5
_WAIT = 0.1
"""Seconds for which the trace of the connect is read."""
_ADDRESS, _PORT = "127.0.0.1", 9
_IPV4, _INPUT, _POLICY_DROP = 2, 1, 0


def reported_drop(tracer: Tracer) -> Fact[Drop]:
    """What the trace reports of a packet that a chain of ours drops, in a network namespace of our own.

    Unknown with KERNEL_TOO_OLD: it was dropped, and the trace does not show it; with another reason: it could not be
    tried (no namespace to be had, no nf_tables in this kernel, no time).
    """
    found: list[Fact[Drop]] = []
    tasks = started([lambda: found.append(_tried(tracer))])
    if not tasks:
        return NO_THREAD
    tasks[0].wait(_SECONDS)
    return found[0] if found else Unknown(Reason.DEADLINE, "the trace of a drop of our own was not ready in time")


def _tried(tracer: Tracer) -> Fact[Drop]:
    try:
        libc.unshare_network()  # of this thread only, and gone with it
        with Netlink(ROUTE) as client:
            loopback_up(client)
        writer = Writer()
        try:
            writer.commit(_chain())
            traced = tracer.probe(_ADDRESS, _PORT, _WAIT)
        finally:
            writer.close()
    except libc.NoNamespaceError:
        return Unknown(Reason.NEEDS_ROOT, "no network namespace of our own can be had")
    except OSError as error:
        return Unknown(Reason.FAILED, f"a drop of our own for the trace: {error.strerror}")
    match traced.drops:
        case Known(value=(first, *_)):
            return Known(first)
        case Known():
            return Unknown(Reason.FAILED, "the connect to a chain of ours that drops everything was answered")
        case Unknown(reason=Reason.NOT_VISIBLE):
            return Unknown(Reason.KERNEL_TOO_OLD, "the drop of a packet by a rule of our own is not reported either")
        case Unknown() as unknown:
            return unknown


def _chain() -> Iterable[Message]:
    """`table ip netdiag { chain input { type filter hook input priority 0; policy drop; } }`."""
    where, table = nl.generic(_IPV4), nl.text(1, b"netdiag")
    hook = nl.nest(4, nl.u32(1, _INPUT) + nl.u32(2, 0))
    yield Kind.TABLE.new, where + table
    yield Kind.CHAIN.new, where + table + nl.text(3, b"input") + hook + nl.u32(5, _POLICY_DROP) + nl.text(7, b"filter")
