"""Where and why the kernel freed a packet: an event of skb:kfree_skb and the stack behind it.

What an event says depends on the kernel (include/trace/events/skb.h): before Linux 5.18 it gives no reason for most
drops, before 6.4 (and with hashed pointers) its location is a number. The stack says who freed it on every kernel.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from diagnose.model.attempt import Drop, FilterHook
from diagnose.parse.ftrace import Event

_LOCATION = re.compile(r"location=([A-Za-z_][^+\s]*)\+0x")
_REASON = re.compile(r"reason: ?(\S+)")
_UNSAID = "NOT_SPECIFIED"

_FREEING = (
    "trace_event_",
    "__traceiter_",
    "__bpf_trace_",
    "perf_trace_",
    "kfree_skb",
    "__kfree_skb",
    "sk_skb_reason_drop",
)
"""The tracepoint itself and what frees a packet for any other function, innermost in a stack."""
_ONE_REASON = {
    "nf_hook_slow": "NETFILTER_DROP",  # its case NF_DROP, and nothing else
    "ip_finish_output": "BPF_CGROUP_EGRESS",  # its default case
    "ip6_finish_output": "BPF_CGROUP_EGRESS",
}
"""Functions that free a packet for one reason only (net/netfilter/core.c, net/ipv{4,6}/ip{,6}_output.c)."""
_ASKED = ("nf_hook_slow", "nf_hook_slow_list")
_ASKS: dict[str, FilterHook] = {
    "ip_rcv": "prerouting",
    "ip_sublist_rcv": "prerouting",
    "ip_list_rcv": "prerouting",
    "ipv6_rcv": "prerouting",
    "ip6_sublist_rcv": "prerouting",
    "ipv6_list_rcv": "prerouting",
    "ip_local_deliver": "input",
    "ip6_input": "input",
    "ip_forward": "forward",
    "ip6_forward": "forward",
    "__ip_local_out": "output",
    "ip_local_out": "output",
    "__ip6_local_out": "output",
    "ip6_local_out": "output",
    "ip6_xmit": "output",
    "ip_output": "postrouting",
    "ip_mc_output": "postrouting",
    "ip6_output": "postrouting",
    "__netif_receive_skb_core": "ingress",
    "__dev_queue_xmit": "egress",
}
"""The function that asks netfilter at each hook: the next one in the stack behind nf_hook_slow."""
_BY_TRAFFIC_CONTROL: dict[str, FilterHook] = {"TC_INGRESS": "ingress", "TC_EGRESS": "egress"}


def freed(event: Event) -> Drop | None:
    """The drop that a kfree_skb event is about, as one of our SYN; None: neither text nor stack names the function."""
    symbol = _symbol(event)
    if not symbol:
        return None
    found = _REASON.search(event.text)
    reason = found[1] if found else _UNSAID
    inferred = reason == _UNSAID and symbol in _ONE_REASON
    if inferred:
        reason = _ONE_REASON[symbol]
    return Drop(reason, symbol, hook=_BY_TRAFFIC_CONTROL.get(reason) or hook_of(event.stack), inferred=inferred)


def hook_of(stack: Sequence[str]) -> FilterHook:
    """At which hook netfilter was asked when it freed the packet; empty: it was not at work, or its caller is new."""
    asked = False
    for function in map(_plain, stack):
        if function in _ASKED:
            asked = True
        elif asked:
            return _ASKS.get(function, "")
    return ""


def _symbol(event: Event) -> str:
    found = _LOCATION.search(event.text)
    if found:
        return _plain(found[1])
    return next((_plain(name) for name in event.stack if not name.startswith(_FREEING)), "")


def _plain(function: str) -> str:
    """Without what the compiler has put behind the name of a copy (".constprop.0", ".isra.0", ".part.0")."""
    return function.partition(".")[0]
