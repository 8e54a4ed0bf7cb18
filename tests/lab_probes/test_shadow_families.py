"""What a rule set has beside tables of ip and inet: other families, other hooks, sets of every kind."""

from __future__ import annotations

import shutil

import pytest

from diagnose.model.network import Endpoint
from tests.lab_probes.test_shadow import INPUT, PORT, V4, V6, decided, in_namespace, nft, pytestmark, sh, shadow, walk

__all__ = ["pytestmark"]

BRIDGED = (
    "ip link add br0 type bridge; ip link add port0 type veth peer name far0; ip link set port0 master br0;"
    "ip link set br0 up; ip link set port0 up; ip link set far0 up; ip addr add 192.0.2.5/24 dev br0"
)


# ------ hooks


@in_namespace
@pytest.mark.parametrize("family", ["netdev", "inet"])
@pytest.mark.parametrize("endpoint", [V4, V6], ids=str)
def test_a_drop_at_the_ingress_of_lo_is_named_in_either_family(family: str, endpoint: Endpoint) -> None:
    where = "type filter hook ingress device lo priority 0;"
    nft(f"table {family} x {{ chain i {{ {where} tcp dport 9 accept\ntcp dport {PORT} drop\n }} }}")
    found = walk(endpoint)
    assert decided(found) == ("nft", "x", "i", f"tcp dport {PORT} drop")
    assert (found.hook, found.packet, found.doubts) == ("ingress", "syn", ())


@in_namespace
@pytest.mark.parametrize("endpoint", [V4, V6], ids=str)
def test_a_drop_at_the_egress_of_lo_is_named(endpoint: Endpoint) -> None:
    nft(f"table netdev x {{ chain e {{ type filter hook egress device lo priority 0; tcp dport {PORT} drop\n }} }}")
    found = walk(endpoint)
    assert decided(found) == ("nft", "x", "e", f"tcp dport {PORT} drop")
    assert (found.hook, found.packet, found.doubts) == ("egress", "syn", ())


@in_namespace
def test_an_answer_dropped_at_the_egress_of_lo_is_told_from_a_request() -> None:
    nft(f"table netdev x {{ chain e {{ type filter hook egress device lo priority 0; tcp sport {PORT} drop\n }} }}")
    found = walk()
    assert (found.verdict, found.packet, found.hook) == ("drop", "reply", "egress")


@in_namespace
def test_chains_at_the_ingress_and_egress_of_other_interfaces_are_innocent() -> None:
    sh("ip link add e0 type veth peer name e1; ip link set e0 up; ip addr add 192.0.2.5/24 dev e0")
    nft("""table netdev x {
        chain i { type filter hook ingress device e0 priority 0; drop
        }
        chain e { type filter hook egress device e0 priority 0; drop
        } }""")
    assert walk().verdict == "accept"
    assert walk(Endpoint("192.0.2.5", PORT)).verdict == "accept"
    assert shadow(V4).uncarried == ()


# ------ bridges


@in_namespace
def test_rules_of_a_bridge_do_not_touch_a_connect_to_this_machine_s_own_address_on_it() -> None:
    sh(BRIDGED)
    hooks = ("prerouting", "input", "output", "postrouting", "forward")
    nft("table bridge b {" + "".join(f"chain {h} {{ type filter hook {h} priority 0; drop\n }}\n" for h in hooks) + "}")
    nft(f"table ip t {{ {INPUT} tcp dport 9 drop\n }} }}")
    found = shadow(V4, Endpoint("192.0.2.5", PORT))
    assert [(one.verdict, one.doubts) for one in found.walks] == [("accept", ())] * 2
    assert walk(Endpoint("192.0.2.5", PORT)).verdict == "accept"


@in_namespace
def test_a_drop_of_this_machine_s_own_address_on_a_bridge_is_named_beside_bridge_rules() -> None:
    sh(BRIDGED)
    nft("table bridge b { chain i { type filter hook input priority 0; accept\n } }")
    nft(f"table inet t {{ {INPUT} ip daddr 192.0.2.5 tcp dport {PORT} drop\n }} }}")
    found = walk(Endpoint("192.0.2.5", PORT))
    assert decided(found)[3] == f"ip daddr 192.0.2.5 tcp dport {PORT} drop"
    assert found.doubts == ()


@in_namespace
def test_a_drop_in_the_arp_family_is_innocent() -> None:
    nft("table arp a { chain i { type filter hook input priority 0; drop\n } }")
    assert walk().verdict == "accept"


# ------ sets of nft


SETS = {
    "timeouts": ("type inet_service; flags timeout; timeout 1h;", "22, {port} timeout 10m expires 5m", "tcp dport @s"),
    "timeouts of intervals": (
        "type ipv4_addr; flags interval,timeout;",
        "10.0.0.0/8 timeout 1h, 127.0.0.0/8 timeout 1h",
        "ip saddr @s",
    ),
    "a constant set": ("type inet_service; flags constant;", "22, {port}", "tcp dport @s"),
    "a set with counters": ("type inet_service; counter;", "22, {port}", "tcp dport @s"),
    "a set filled by packets": ("type ipv4_addr; flags dynamic; size 128;", "127.0.0.1", "ip saddr @s"),
    "merged intervals": ("type inet_service; flags interval; auto-merge;", "1-5000, 4000-9000", "tcp dport @s"),
    "elements with comments": (
        'type inet_service; comment "of };# handle 3";',
        '{port} comment "x }}"',
        "tcp dport @s",
    ),
    "intervals of pairs": (
        "type ipv4_addr . inet_service; flags interval;",
        "127.0.0.0/8 . 8000-8090, 10.0.0.1 . 22",
        "ip daddr . tcp dport @s",
    ),
    "interface names": ("type ifname;", '"lo", "eth0"', "iifname @s tcp dport {port}"),
    "marks": ("type mark;", "0, 7", "meta mark @s tcp dport {port}"),
}


@in_namespace
@pytest.mark.parametrize("kind", SETS)
def test_sets_of_every_kind_are_carried(kind: str) -> None:
    shape, elements, match = (part.replace("{port}", str(PORT)).replace("}}", "}") for part in SETS[kind])
    sh("nft -f -", f"table inet f {{\nset s {{ {shape} elements = {{ {elements} }}\n}}\n}}\n")
    nft(f"table inet f {{ {INPUT} tcp dport 9 accept\n{match} drop\n }} }}")
    found = walk()
    assert decided(found)[3] == f"{match} drop"
    assert (found.doubts, shadow(V4).uncarried) == ((), ())


# ------ IP sets


IP_SETS = {
    "hash:ip": ("", "{ip}", "src"),
    "hash:ip timeout": ("timeout 600 counters comment", '{ip} timeout 300 comment "a b"', "src"),
    "hash:net": ("timeout 600", "{net} timeout 300", "src"),
    "hash:net nomatch": ("", "{net}", "src"),
    "hash:ip,port": ("timeout 0", "{ip},tcp:8080", "src,dst"),
    "hash:net,port": ("", "{net},tcp:8000-8100", "src,dst"),
    "hash:ip,port,ip": ("", "{ip},tcp:8080,{ip}", "src,dst,dst"),
    "hash:ip,port,net": ("skbinfo", "{ip},8080,{net}", "src,dst,dst"),
    "hash:net,iface": ("", "{net},lo", "src,src"),
    "hash:ip forceadd": ("forceadd maxelem 10 hashsize 64", "{ip}", "src"),
    "bitmap:port": ("range 8000-9000 timeout 60", "8080", "dst"),
    "bitmap:ip": ("range 127.0.0.0/16 counters", "127.0.0.1", "src"),
}


def make_ip_set(kind: str, *, six: bool) -> None:
    """The set, with the address of lo in it; skips what this kernel has not."""
    if shutil.which("ipset", path="/usr/sbin:/sbin:/usr/bin") is None:
        pytest.skip("needs ipset")
    options, element, _ = IP_SETS[kind]
    family = "" if kind.startswith("bitmap") else f"family {'inet6' if six else 'inet'}"
    ip, net = ("::1", "::/1") if six else ("127.0.0.1", "127.0.0.0/8")
    sh(f"ipset create s {kind.split()[0]} {family} {options}")
    sh(f"ipset add s {element.format(ip=ip, net=net)}")
    if kind.endswith("nomatch"):
        sh(f"ipset add s {'::2/128' if six else '127.0.0.2/32'} nomatch")


@in_namespace
@pytest.mark.parametrize(
    ("kind", "tool"),
    [
        (kind, tool)
        for kind in IP_SETS
        for tool in ("iptables-legacy", "ip6tables-nft")
        if (kind, tool[2]) != ("bitmap:ip", "6")
    ],
)
def test_ip_sets_of_every_kind_are_carried(kind: str, tool: str) -> None:
    six = tool.startswith("ip6")
    make_ip_set(kind, six=six)
    sh(f"{tool} -A INPUT -p tcp --dport 9 -j DROP; {tool} -A INPUT -m set --match-set s {IP_SETS[kind][2]} -j DROP")
    found = walk(V6 if six else V4)
    assert found.decider is not None, found
    assert found.decider.text == f"-m set --match-set s {IP_SETS[kind][2]} -j DROP"
    assert found.doubts == ()


@in_namespace
def test_a_list_of_ip_sets_is_carried() -> None:
    make_ip_set("hash:ip", six=False)
    sh("ipset create all list:set size 8; ipset add all s; iptables-legacy -A INPUT -m set --match-set all src -j DROP")
    found = walk()
    assert (found.verdict, found.doubts) == ("drop", ())


@in_namespace
def test_what_is_not_in_an_ip_set_passes_in_the_copy_as_well() -> None:
    make_ip_set("hash:net nomatch", six=False)
    sh("ipset del s 127.0.0.0/8; iptables-legacy -A INPUT -m set --match-set s src -j DROP")
    assert walk().verdict == "accept"
