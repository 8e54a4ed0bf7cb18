"""Traces as kernels wrote them: which of our packets was dropped, by what and where, and who sent the reset.

Each file begins with kernel, options, the thread and the two ports; recorded in network namespaces with one rule each
(10 to 40 lines an event, other processes' events left out). The names are those of the rules.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

import pytest

from diagnose.model.attempt import Drop, FilterHook
from diagnose.parse.ftrace import events
from diagnose.parse.traced_connect import ResetEvent, Told, told

TRACES = Path(__file__).with_name("traces")
KERNELS = ("5.10", "6.1", "6.12", "6.18")
WITH_MODULES = ("5.10", "6.1", "6.12")
"""The host with 6.18 has neither nft's queue nor filters of traffic control."""


def read(kernel: str, name: str) -> Told:
    head, _, text = (TRACES / kernel / f"{name}.txt").read_text().partition("\n")
    number = {key: int(value) for key, value in re.findall(r"(thread|source|target)=(\d+)", head)}
    return told(events(text.split("\n")), number["thread"], number["source"], number["target"])


def by_nft(kernel: str, hook: FilterHook, packet: Literal["syn", "reply", "ack"] = "syn") -> Drop:
    """nf_tables frees the packet itself since Linux 6.7."""
    return netfilter(kernel, "nft_do_chain" if kernel in ("6.12", "6.18") else "nf_hook_slow", hook, packet)


def netfilter(kernel: str, symbol: str, hook: FilterHook, packet: Literal["syn", "reply", "ack"] = "syn") -> Drop:
    return Drop("NETFILTER_DROP", symbol, packet, hook, inferred=kernel == "5.10")


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(
    ("name", "hook"),
    [
        ("nft-input", "input"),
        ("nft-output6", "output"),
        ("nft-postrouting", "postrouting"),
        ("nft-prerouting6", "prerouting"),
        ("nft-icmp", "input"),
        ("nft-reset", "input"),
        ("netdev-ingress", "ingress"),
    ],
)
def test_a_drop_by_a_rule_of_nf_tables_is_told_with_its_hook_on_every_kernel(
    kernel: str, name: str, hook: FilterHook
) -> None:
    assert read(kernel, name).drops == (by_nft(kernel, hook),)
    assert read(kernel, name).reset is None


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(
    ("name", "hook"), [("legacy-input", "input"), ("legacy-security-output", "output"), ("legacy6-output", "output")]
)
def test_a_drop_by_the_old_iptables_is_told_with_its_hook_on_every_kernel(
    kernel: str, name: str, hook: FilterHook
) -> None:
    assert read(kernel, name).drops == (netfilter(kernel, "nf_hook_slow", hook),)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_dropped_answer_is_the_reply_on_every_kernel(kernel: str) -> None:
    assert read(kernel, "nft-reply").drops == (by_nft(kernel, "output", "reply"),)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_queue_without_a_reader_is_known_by_its_function(kernel: str) -> None:
    assert read(kernel, "legacy-queue").drops == (Drop("NOT_SPECIFIED", "nf_queue", hook="input"),)


@pytest.mark.parametrize("kernel", WITH_MODULES)
def test_nft_s_queue_without_a_reader_is_known_by_its_function(kernel: str) -> None:
    assert read(kernel, "nft-queue").drops == (Drop("NOT_SPECIFIED", "nf_queue", hook="input"),)


@pytest.mark.parametrize("kernel", ["6.1", "6.12"])
@pytest.mark.parametrize(
    ("name", "drop"),
    [
        ("tc-ingress", Drop("TC_INGRESS", "__netif_receive_skb_core", hook="ingress")),
        ("tc-egress", Drop("TC_EGRESS", "__dev_queue_xmit", hook="egress")),
    ],
)
def test_a_drop_by_traffic_control_is_told_with_its_side(kernel: str, name: str, drop: Drop) -> None:
    assert read(kernel, name).drops == (drop,)


@pytest.mark.parametrize(
    ("name", "symbol"), [("tc-ingress", "__netif_receive_skb_core"), ("tc-egress", "__dev_queue_xmit")]
)
def test_an_old_kernel_s_drop_by_traffic_control_has_no_reason(name: str, symbol: str) -> None:
    assert read("5.10", name).drops == (Drop("NOT_SPECIFIED", symbol),)


SHOWN_BY: dict[str, ResetEvent] = {
    "5.10": "net_dev_queue",
    "6.1": "net_dev_queue",
    "6.12": "tcp_send_reset",
    "6.18": "tcp_send_reset",
}


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", ["closed", "closed6"])
def test_a_closed_port_is_reset_by_the_kernel_whether_or_not_its_own_event_fires(kernel: str, name: str) -> None:
    assert read(kernel, name).reset == SHOWN_BY[kernel]


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_healthy_connect_has_neither_drop_nor_reset(kernel: str) -> None:
    found = read(kernel, "healthy")
    assert (found.drops, found.reset, found.left) == ((), None, True)


def test_an_empty_reason_is_none_and_not_the_next_word() -> None:
    # as Linux 6.1 prints it with nohash-ptr: the first string of each event is blank
    assert read("6.1", "nft-input-nohash-ptr").drops == (netfilter("5.10", "nf_hook_slow", "input"),)
