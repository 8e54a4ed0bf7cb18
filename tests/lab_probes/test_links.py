"""Interfaces, addresses, gateways and the port policy, as namespaces of their own show them."""

from __future__ import annotations

import sys

import psutil  # before sys.platform is forced: it chooses its own back end by it
import pytest

from diagnose.model.fact import NOT_NEEDED, Fact, Known, Reason, Unknown
from diagnose.model.network import Gateway, Interface, Links, PortPolicy
from diagnose.probes import links, policy
from tests.lab_probes.namespace import in_namespace

pytestmark = pytest.mark.lab

PAIR = """
ip link add e0 type veth peer name e1
ip addr add 10.9.0.1/24 dev e0
ip addr add 10.9.0.9/24 dev e0 label e0:alias
ip -6 addr add fd09::1/64 dev e0 nodad
"""


def looked(gateways: bool = False) -> Links:
    fact = links.look(gateways=gateways)
    assert isinstance(fact, Known), fact
    return fact.value


def test_a_fresh_loopback_that_is_up_has_both_addresses() -> None:
    found = in_namespace("", looked)
    assert found.interfaces == (Interface("lo", True, ("127.0.0.1", "::1")),)
    assert found.gateways == NOT_NEEDED


def test_interfaces_that_are_down_or_without_addresses_are_there_too() -> None:
    found = in_namespace(f"{PAIR} ip link set lo down", looked)
    assert [(one.name, one.up) for one in found.interfaces] == [("e0", False), ("e1", False), ("lo", False)]
    assert found.interfaces[1].addresses == ()


def test_the_address_of_an_alias_is_its_interfaces() -> None:
    holder = in_namespace(PAIR, looked).holder("10.9.0.9")
    assert holder is not None
    assert holder.name == "e0"


def test_gateways_of_both_families_are_listed_where_they_are_wanted() -> None:
    up = "ip link set e0 up; ip link set e1 up; ip route add default via 10.9.0.2; ip -6 route add default via fd09::2"
    found = in_namespace(f"{PAIR}{up}", lambda: looked(gateways=True))
    assert found.gateways == Known((Gateway("10.9.0.2", "e0", "ipv4"), Gateway("fd09::2", "e0", "ipv6")))


def test_off_linux_psutil_says_what_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forced on Linux: what another system's psutil answers is not tested here."""
    assert psutil.LINUX
    monkeypatch.setattr(sys, "platform", "darwin")
    lo = looked().holder("127.0.0.1")
    assert lo is not None
    assert lo.up


def read() -> PortPolicy:
    fact = policy.look()
    assert isinstance(fact, Known), fact
    return fact.value


def test_the_policy_is_this_namespaces_own() -> None:
    script = """
sysctl -qw net.ipv4.ip_local_port_range='20000 20999' net.ipv4.ip_local_reserved_ports=20005,20010-20019
sysctl -qw net.ipv4.ip_unprivileged_port_start=80 net.ipv4.ip_nonlocal_bind=1 net.ipv6.bindv6only=1
sysctl -qw net.ipv6.conf.lo.disable_ipv6=1
"""
    found = in_namespace(script, read)
    assert found == PortPolicy(
        ephemeral_low=20000,
        ephemeral_high=20999,
        reserved=((20005, 20005), (20010, 20019)),
        unprivileged_start=80,
        nonlocal_bind_v4=True,
        nonlocal_bind_v6=False,
        bindv6only=True,
        ipv6_disabled_all=False,
        ipv6_disabled_lo=True,
        ipv6_available=True,
    )
    assert found.hands_out(20004)
    assert not found.hands_out(20012)


def test_a_sysctl_that_cannot_be_read_is_not_guessed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy, "_SYSCTL", "/nowhere")
    fact: Fact[PortPolicy] = policy.look()
    assert isinstance(fact, Unknown)
    assert fact.reason is Reason.FAILED
