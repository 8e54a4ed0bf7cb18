"""Random rule sets: what the shadow says has to be what a real connect meets there, and the rule the one that met it.

The oracle is the namespace itself: the end of a real connect, nftrace of the machine's own tables, the counters of
iptables-legacy. NETDIAG_FUZZ sets how many rule sets are tried.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random

import pytest

from diagnose.model.attempt import Outcome
from diagnose.model.fact import Known
from diagnose.model.firewall import Backend, RuleRef, Walk
from diagnose.model.network import Endpoint
from diagnose.parse import nft, nft_trace, xtables
from diagnose.parse.nft_trace import Code, Event, Said
from diagnose.probes.shadow import legacy, look, machine
from diagnose.probes.shadow.netfilter import Tracer
from tests.lab_probes.test_shadow import PORT, V4, V6, in_namespace, listeners, pytestmark, real, sh

__all__ = ["pytestmark"]

COUNT = int(os.environ.get("NETDIAG_FUZZ", "16"))

PORTS = (*[str(PORT)] * 3, "80", "8000-8100", "{ 22, 8080 }", "{ 80, 443 }", "{ 1-100, 8080-8090 }", "!= 22", "!= 8080")
ANY_FAMILY = (
    "tcp flags syn",
    "tcp flags & (syn|ack) == syn",
    "tcp flags & (syn|ack) == (syn|ack)",
    "meta l4proto tcp",
    "meta l4proto { tcp, udp }",
    "meta mark 1",
    "meta mark & 0x3 == 0x1",
    "tcp dport @some",
    "tcp dport @ranges",
    "tcp sport @some",
    "meta skuid 0",
    "meta skuid 1000",
    "counter",
    'iifname "lo"',
    'iifname "eth*"',
    'iifname != "lo"',
)
WITH_STATE = (
    "ct state new",
    "ct state established",
    "ct state invalid",
    "ct state { new, untracked }",
    "fib daddr type local",
)
BY_ADDRESS = {
    "ip": (
        "ip saddr 127.0.0.1",
        "ip daddr 10.0.0.0/8",
        "ip saddr { 127.0.0.1, 10.0.0.0/8 }",
        "ip saddr . tcp dport @pairs",
    ),
    "ip6": ("ip6 saddr ::1", "ip6 daddr fe80::/10"),
}
SETS = """
    set some { type inet_service; elements = { 22, 8080, 443 }
    }
    set ranges { type inet_service; flags interval; elements = { 8000-8100, 1-99 }
    }
    set pairs { type ipv4_addr . inet_service; flags interval; elements = { 127.0.0.0/8 . 8080, 10.0.0.0/8 . 1-100 }
    }
"""


def native_table(random: Random, number: int) -> str:
    """A table in nft's language."""
    family = random.choice(("ip", "ip6", "inet", "inet", "inet", "netdev"))
    chains = [f"u{i}" for i in range(random.choice((0, 0, 1, 2, 3)))]
    parts = [f"table {family} t{number} {{", SETS]
    for place, chain in enumerate(chains):
        parts += [f"chain {chain} {{", *rules(random, family, chains[:place], None, random.choice((0, 1, 2, 3))), "}"]
    for place in range(random.choice((1, 1, 2))):
        hook = "ingress" if family == "netdev" else random.choice(("input", "output", "prerouting", "postrouting"))
        where = f"{hook} device lo" if family == "netdev" else hook
        priority = random.choice((-310, -155, -20, -5, 5, 10, 60, 120)) + number * 3 + place
        policy = random.choice(("accept", "accept", "accept", "drop"))
        parts.append(f"chain b{place} {{ type filter hook {where} priority {priority}; policy {policy};")
        parts += [*rules(random, family, chains, hook, random.choice((1, 2, 3, 5))), "}"]
    if family in ("ip", "inet") and random.random() < 0.15:
        redirect = f"tcp dport {random.choice((PORT, 80))} redirect to :{random.choice((9090, 9091))}"
        parts.append(f"chain n {{ type nat hook output priority {-100 + number};\n{redirect}\n}}")
    return "\n".join([*parts, "}"])


def rules(random: Random, family: str, chains: list[str], hook: str | None, count: int) -> Iterator[str]:
    for _ in range(count):
        if random.random() < 0.1:
            first, second = random.sample((22, 80, PORT, 443), 2)
            verdicts = ["accept", "drop", "return", *(f"jump {chain}" for chain in chains)]
            pairs = f"{first} : {random.choice(verdicts)}, {second} : {random.choice(verdicts)}"
            yield f"tcp {random.choice(('dport', 'sport'))} vmap {{ {pairs} }}"
        else:
            yield one_rule(random, family, chains, hook)


def one_rule(random: Random, family: str, chains: list[str], hook: str | None) -> str:
    verdicts = ["accept", "drop", "drop", "return", "counter", "meta mark set 1"]
    if family != "netdev" and hook in ("input", "output", None):
        verdicts += ["reject", "meta l4proto tcp reject with tcp reset"]
    verdicts += [f"{how} {chain}" for chain in chains for how in ("jump", "goto")]
    addresses = BY_ADDRESS["ip6" if family == "ip6" or (family != "ip" and random.random() < 0.5) else "ip"]
    tests = (*ANY_FAMILY, *addresses, *(WITH_STATE if family != "netdev" else ()))
    matches = [
        f"tcp {random.choice(('dport', 'sport'))} {random.choice(PORTS)}"
        if random.random() < 0.4
        else random.choice(tests)
        for _ in range(random.choice((0, 1, 1, 1, 2, 3)))
    ]
    return f"{' '.join(matches)} {random.choice(verdicts)}"


IPTABLES_CHAINS = {
    "filter": ("INPUT", "OUTPUT"),
    "raw": ("PREROUTING", "OUTPUT"),
    "mangle": ("PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"),
    "security": ("INPUT", "OUTPUT"),
}
IPTABLES_MATCHES = (
    f"-p tcp --dport {PORT}",
    "-p tcp --dport 8000:8100",
    f"-p tcp --sport {PORT}",
    f"-p tcp -m multiport --dports 80,{PORT}",
    "-p tcp --syn",
    "-m conntrack --ctstate NEW",
    "-m conntrack --ctstate ESTABLISHED",
    "-m mark --mark 1",
    '-m comment --comment "a b"',
    "-m addrtype --dst-type LOCAL",
)


def iptables_commands(random: Random) -> Iterator[str]:
    """Commands of one backend and family; those that it refuses are left out."""
    tool = f"{random.choice(('iptables', 'iptables', 'ip6tables'))}-{random.choice(('legacy', 'nft'))}"
    table = random.choice(("filter", "filter", "filter", "raw", "mangle", "security"))
    chain = random.choice(IPTABLES_CHAINS[table])
    yield f"{tool} -t {table} -N OWN"
    for _ in range(random.choice((1, 2, 3))):
        matches = random.sample(IPTABLES_MATCHES, random.choice((0, 1, 1, 2)))
        if sum("-p tcp" in match for match in matches) > 1:
            matches = matches[:1]
        targets = ["ACCEPT", "DROP", "DROP", "RETURN"]
        targets += {"filter": ["REJECT", "REJECT"], "mangle": ["MARK --set-mark 1"]}.get(table, [])
        where = random.choice((chain, chain, "OWN"))
        targets += ["OWN"] if where != "OWN" else []
        yield f"{tool} -t {table} -A {where} {' '.join(matches)} -j {random.choice(targets)}"
    if table == "filter" and random.random() < 0.2:
        yield f"{tool} -P {chain} DROP"


def inject(seed: int) -> None:
    """The rule set of this seed; what nft or iptables refuses is not part of it."""
    random = Random(seed)
    for number in range(random.choice((0, 1, 1, 2, 3))):
        subprocess.run(
            ["nft", "-f", "-"], input=native_table(random, number), capture_output=True, text=True, check=False
        )
    for _ in range(random.choice((0, 1, 1, 2))):
        for command in iptables_commands(random):
            subprocess.run(shlex.split(command), capture_output=True, check=False)


# ------ the oracle


class Met:
    """What a real connect met in this namespace."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.legacy: set[tuple[bool, str, str, int]] = set()
        """Family is IPv6, table, chain and line (0: the policy) of each rule that counted a packet."""

    def shows(self, decider: RuleRef) -> bool:
        if decider.backend in (Backend.IPTABLES_LEGACY, Backend.IP6TABLES_LEGACY):
            return (decider.family == "ip6", decider.table, decider.chain, decider.line or 0) in self.legacy
        stopping = [
            event
            for event in self.events
            if event.code in (Code.DROP, Code.QUEUE)
            and (nft.readable(event.chain.table.name), nft.readable(event.chain.name)) == (decider.table, decider.chain)
        ]
        if decider.policy:
            return any(event.said is Said.POLICY for event in stopping)
        if decider.backend is Backend.NFT:
            return any(event.handle == decider.handle for event in stopping)
        listed = sh(f"{decider.backend.value} -t {decider.table} -S {decider.chain} {decider.line}").strip()
        return bool(stopping) and listed == f"-A {decider.chain} {decider.text}"


@contextmanager
def watched() -> Iterator[Met]:
    """Traces the machine's own tables and reads its own counters around what is done inside."""
    chains = ("a { type filter hook output", "b { type filter hook prerouting")
    for chain in chains:
        sh(f"nft 'table inet oracle {{ chain {chain} priority -2147483648; meta nftrace set 1; }} ; }}'")
    tracer = Tracer()
    before = counted()
    met = Met()
    try:
        yield met
        met.events = [nft_trace.event(payload) for payload in tracer.read()]
        met.legacy = {where for where, packets in counted().items() if packets > before[where]}
    finally:
        tracer.close()
        sh("nft delete table inet oracle")


def counted() -> dict[tuple[bool, str, str, int], int]:
    found: dict[tuple[bool, str, str, int], int] = {}
    for block in machine.blocks():
        again = legacy.read(legacy.SIDES[1 if block.layout.six else 0], block.info.table)
        for rule in xtables.rules(again):
            if rule.line or rule.policy:
                where = (again.layout.six, again.info.table, rule.chain, rule.line)
                (found[where],) = xtables.matched(again, [rule.offset])
    return found


def compare(endpoint: Endpoint, walk: Walk) -> None:
    with watched() as met:
        outcome = real(endpoint)
    if walk.doubts:
        return
    taken = walk.outcome if walk.outcome is not Outcome.NOT_ACCEPTED else Outcome.CONNECTED
    assert taken is outcome, walk
    if walk.decider is None:
        assert walk.verdict == "accept", walk
        assert outcome is Outcome.CONNECTED or walk.arrives is not None, walk
    else:
        assert met.shows(walk.decider), (walk, met.events, met.legacy)
        assert walk.decider.text, walk


@in_namespace
@pytest.mark.parametrize("seed", range(COUNT))
def test_the_rule_that_the_shadow_names_is_the_one_that_a_real_connect_meets(seed: int) -> None:
    inject(seed)
    with listeners(9090):
        fact = look((V4, V6), 20.0)
        assert isinstance(fact, Known), fact
        assert fact.value.uncarried == ()
        for endpoint, walk in zip((V4, V6), fact.value.walks, strict=True):
            compare(endpoint, walk)
