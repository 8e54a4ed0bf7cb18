"""Random valid rule sets, mostly about the port that is probed, so that most of them do something to a connect.

Read it from the end: a rule set is one to three parts, a part is a table of nft or the tables of one iptables.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy
from msgspec import Struct

from tests.fidelity.rulesets import DEAD, NEIGHBOUR, PORT, Chain, Load, NftTable, RuleSet, Xtables, XtChain, XtTable

HOOKS = ("input", "output", "prerouting", "postrouting")
"""Where a packet to oneself passes; forward is never on its way."""
PRIORITIES = (-300, -150, -10, 0, 0, 0, 0, 10, 100, 300)
MARKS = ("1", "2", "0x10")
COMMENTS = ("let the web in", "it's ours", "drop # handle 99", "a; b } c", "-j ACCEPT", "größer", "27431 accept")

PORTS = (
    *(str(PORT),) * 6,
    str(NEIGHBOUR),
    "22",
    "!= 22",
    f"!= {PORT}",
    "1024-65535",
    f"{PORT - 1}-{PORT + 5}",
    f"{{ 22, {PORT} }}",
    f"{{ 22, {PORT - 10}-{PORT + 10}, 40000-50000 }}",
    "{ 22, 80 }",
    f"!= {{ 22, {PORT} }}",
    "@ports",
    "@ranges",
    "!= @ranges",
    "@timed",
)
"""What a port of TCP may be compared with; the names are those of SETS.

A range has all of a client's ephemeral ports (32768-60999) or none: else two connects would not meet the same.
"""

SETS = {
    "@ports": (
        f"set ports {{ type inet_service; elements = {{ 22, {PORT} }}; }}",
        "set ports { type inet_service; elements = { 22, 80 }; }",
        "set ports { type inet_service; }",
        f"set ports {{ type inet_service; counter; elements = {{ 22 counter, {PORT} counter }}; }}",
        f'set ports {{ typeof tcp dport; size 9; elements = {{ {PORT} comment "it\'s ours" }}; }}',
    ),
    "@ranges": (
        f"set ranges {{ type inet_service; flags interval; elements = {{ 1-99, {PORT - 1}-{PORT + 1} }}; }}",
        f"set ranges {{ type inet_service; flags interval; auto-merge; elements = {{ {PORT}, {NEIGHBOUR} }}; }}",
        "set ranges { type inet_service; flags interval; elements = { 1-99, 200-299 }; }",
        "set ranges { type inet_service; flags interval; elements = { "
        + ", ".join(f"{low}-{low + 7}" for low in range(1, 30000, 30))
        + " }; }",
    ),
    "@timed": (
        f"set timed {{ type inet_service; flags timeout; elements = {{ {PORT} timeout 1h }}; }}",
        f'set timed {{ type inet_service; flags timeout; timeout 1h; elements = {{ 22, {PORT} comment "x" }}; }}',
        "set timed { type inet_service; flags interval, timeout; elements = { 1-99, 200-299 timeout 1h }; }",
        f"set timed {{ type inet_service; flags interval, timeout; elements = {{ {PORT - 9}-{PORT} timeout 1h }}; }}",
    ),
    "@hosts": (
        "set hosts { type ipv4_addr; flags interval; elements = { 10.0.0.0/8, 127.0.0.0/8 }; }",
        "set hosts { type ipv4_addr; flags interval; elements = { 127.0.0.0-127.0.0.9 }; }",
        "set hosts { type ipv4_addr; elements = { 10.0.0.1 }; }",
        "set hosts { type ipv4_addr; flags interval, timeout; elements = { 127.0.0.0/8 timeout 1h, 10.0.0.1 }; }",
    ),
    "@hosts6": (
        "set hosts6 { type ipv6_addr; flags interval; elements = { ::1, fe80::/10 }; }",
        "set hosts6 { type ipv6_addr; elements = { 2001:db8::1 }; }",
    ),
    "@pairs": (
        f"set pairs {{ type ipv4_addr . inet_service; flags interval; "
        f"elements = {{ 127.0.0.0/8 . {PORT}, 10.0.0.0/8 . 1-100 }}; }}",
        f"set pairs {{ type ipv4_addr . inet_service; elements = {{ 127.0.0.1 . {PORT}, 127.0.0.1 . 22 }}; }}",
        f"set pairs {{ type ipv4_addr . inet_service; elements = {{ 127.0.0.2 . {PORT} }}; }}",
        f"set pairs {{ type ipv4_addr . inet_service; flags interval, timeout; "
        f"elements = {{ 127.0.0.0/8 . 1-{PORT} timeout 1h }}; }}",
    ),
    "@verdicts": (
        f"map verdicts {{ type inet_service : verdict; elements = {{ 22 : accept, {PORT} : drop }}; }}",
        f"map verdicts {{ type inet_service : verdict; flags interval; "
        f"elements = {{ 1-99 : drop, {PORT} : accept }}; }}",
        f"map verdicts {{ type inet_service : verdict; elements = {{ {NEIGHBOUR} : drop }}; }}",
        f"map verdicts {{ typeof tcp dport : verdict; counter; elements = {{ {PORT} counter : drop }}; }}",
    ),
    "@marks": (f"map marks {{ type inet_service : mark; elements = {{ 22 : 2, {PORT} : 1 }}; }}",),
    "@trip": (
        "set trip { type ipv4_addr . inet_service . ipv4_addr; flags interval; "
        f"elements = {{ 127.0.0.0/8 . {PORT - 1}-{PORT + 1} . 127.0.0.1 }}; }}",
    ),
    "@ways": (
        f"map ways {{ type ipv4_addr . inet_service : verdict; flags interval; "
        f"elements = {{ 127.0.0.0/8 . 1-99 : accept, 127.0.0.0/8 . {PORT} : drop }}; }}",
        f"map ways {{ type ipv4_addr . inet_service : verdict; elements = {{ 127.0.0.1 . {PORT} : accept }}; }}",
    ),
    "@knocked": ("set knocked { type inet_service; size 64; flags dynamic; }",),
    "@seen": ("set seen { type inet_service; size 64; flags dynamic, timeout; timeout 1m; }",),
}
"""Named sets and maps: the declarations that each may have."""

OBJECTS = {
    "counter name kept": 'counter kept { comment "since boot"; }',
    "limit name slow": "limit slow { rate over 1/second burst 1 packets; }",
    "quota name spent": "quota spent { over 100 bytes; }",
    'ct helper set "ftp"': 'ct helper ftp { type "ftp" protocol tcp; }',
    'ct timeout set "short"': "ct timeout short { protocol tcp; policy = { established : 100 }; }",
    "synproxy name proxy": "synproxy proxy { mss 1460; wscale 7; timestamp sack-perm; }",
}
"""Stateful objects, by what a rule says to use them."""


class Place(Struct, frozen=True):
    """Where a rule stands: what it may ask and do depends on it."""

    family: str
    hooks: frozenset[str]
    """The hooks from which it can be reached."""
    below: tuple[str, ...] = ()
    """The chains that it may jump to."""

    @property
    def link(self) -> bool:
        """At the device: before conntrack and routing."""
        return bool(self.hooks & {"ingress", "egress"})

    @property
    def rejects(self) -> bool:
        """Whether the kernel takes a reject here (nft_reject_validate)."""
        return self.hooks <= {"input", "output", "prerouting", "ingress"}

    @property
    def versions(self) -> tuple[int, ...]:
        """The IP versions that come by."""
        return {"ip": (4,), "ip6": (6,)}.get(self.family, (4, 6))


@cache
def one_of(*choices: str) -> SearchStrategy[str]:
    """One of these texts."""
    return st.sampled_from(choices)


def few(strategy: SearchStrategy[str], most: int, least: int = 0) -> SearchStrategy[list[str]]:
    """Some of them."""
    return st.lists(strategy, min_size=least, max_size=most)


# ------ rules of nft

TCP = (
    "tcp flags syn",
    "tcp flags & (fin|syn|rst|ack) == syn",
    "tcp flags & (syn|ack) == (syn|ack)",
    "tcp flags & (syn|ack) == ack",
    "tcp flags rst",
    "tcp option maxseg exists",
    "tcp option maxseg size > 1460",
    "tcp option timestamp exists",
    "tcp window 1-65535",
    "tcp option sack-perm exists",
    "tcp doff 10",
    f"@th,16,16 {PORT}",
    f"jhash tcp dport mod 2 seed 0x1 {PORT % 2}",
)
META = (
    "meta l4proto tcp",
    "meta l4proto != udp",
    'iifname "lo"',
    'iifname "eth*"',
    'iifname != "lo"',
    "iif lo",
    'oifname "lo"',
    "meta mark 1",
    "meta mark & 0x3 == 0x1",
    "meta mark != 0",
    "meta mark { 1, 0x10 }",
    "meta skuid 0",
    "meta skuid 65534",
    "meta skuid != 0",
    "meta skuid 0-1000",
    "meta skgid 0",
    "meta cgroup 0",
    "meta length < 100",
    "meta length 60",
    f"meta mark . tcp dport {{ 0 . {PORT} }}",
    f"meta skuid . tcp dport {{ 0 . {PORT} }}",
    f'iifname . tcp dport {{ "lo" . {PORT} }}',
    "meta pkttype host",
    "meta protocol ip",
    "meta iiftype loopback",
    "meta iifgroup 0",
    'meta hour "00:00"-"23:59"',
    "meta priority 1:1",
)
STATE = (
    "ct state new",
    "ct state established",
    "ct state established,related",
    "ct state invalid",
    "ct state { new, untracked }",
    "ct state untracked",
    "ct direction original",
    "ct direction reply",
    "ct mark 1",
    "ct status dnat",
    "ct state . meta mark { new . 0 }",
    "fib saddr type local",
    "ct label 1",
    "ct zone 0",
    "ct status confirmed",
    "ct status assured",
    'ct helper "ftp"',
    "ct mark . meta mark { 0 . 0, 1 . 1 }",
)
ADDRESSES = {
    4: (
        "ip saddr 127.0.0.1",
        "ip daddr 127.0.0.1",
        "ip daddr 127.0.0.0/8",
        "ip saddr != 127.0.0.0/8",
        "ip daddr 10.0.0.0/8",
        "ip daddr { 127.0.0.1, 10.0.0.0/8 }",
        "ip saddr 127.0.0.0-127.0.0.9",
        "ip daddr @hosts",
        "ip saddr != @hosts",
        "ip saddr . tcp dport @pairs",
        f"ip daddr . tcp dport {{ 127.0.0.1 . {PORT}, 10.0.0.1 . 1-99 }}",
        f"ip saddr . ip daddr . tcp sport {{ 127.0.0.1 . 127.0.0.1 . {PORT} }}",
        "ip saddr . tcp dport . ip daddr @trip",
        f'iifname . ip saddr . tcp dport {{ "lo" . 127.0.0.0/8 . {PORT}-{NEIGHBOUR} }}',
        "ip ttl 64",
        "ip length 60",
        "ip dscp cs0",
        "ip protocol tcp",
        "ip frag-off & 0x1fff == 0",
        "ip option rr exists",
        f"ip saddr . ip daddr . tcp dport . tcp flags {{ 127.0.0.1 . 127.0.0.1 . {PORT} . syn }}",
    ),
    6: (
        "ip6 saddr ::1",
        "ip6 daddr ::1",
        "ip6 daddr fe80::/10",
        "ip6 saddr != ::1",
        "ip6 daddr { ::1, fe80::/10 }",
        "ip6 daddr @hosts6",
        f"ip6 daddr . tcp dport {{ ::1 . {PORT}, fe80::1 . 22 }}",
        "ip6 hoplimit 64",
        "ip6 nexthdr tcp",
        "exthdr hbh exists",
        f"ip6 saddr . tcp dport {{ ::1 . {PORT}, fe80::/64 . 1-99 }}",
    ),
}
COUNTING = (
    "limit rate 1/second burst 1 packets",
    "limit rate over 1/second burst 1 packets",
    "ct count over 1",
    "numgen inc mod 2 0",
    "quota over 100 bytes",
    "tcp sport @seen",
    "add @seen { tcp sport }",
    "update @seen { tcp sport limit rate over 1/second burst 1 packets }",
    "limit name slow",
    "quota name spent",
    "ct packets > 1",
    "ct bytes > 100",
    "add @knocked { tcp dport }",
    "update @knocked { tcp dport }",
    "tcp dport @knocked",
    "tcp dport != @knocked",
    "symhash mod 2 0",
    "meta random < 2147483648",
    "jhash tcp sport mod 2 0",
)
EFFECTS = (
    "counter",
    "counter",
    "counter name kept",
    "meta mark set 1",
    "meta mark set 0x10",
    "meta mark set meta mark | 0x2",
    "meta mark set tcp dport map @marks",
    'log prefix "netdiag "',
    "meta priority set 1:1",
    "meta nftrace set 1",
    f"tcp dport {PORT} tcp dport set {NEIGHBOUR}",
    "tcp option maxseg size set 1200",
    "reset tcp option sack-perm",
    "log group 5",
    "log flags all",
)
"""What a rule may do beside its verdict."""
REWRITES = {
    4: ("ip ttl set 5", "ip dscp set cs1", "ip saddr set 127.0.0.9"),
    6: ("ip6 hoplimit set 5", "ip6 dscp set cs1"),
}
STATEFUL_EFFECTS = (
    "ct mark set 1",
    "ct mark set meta mark",
    "meta mark set ct mark",
    "ct zone set 1",
    "ct label set 1",
    'meta l4proto tcp ct helper set "ftp"',
    'meta l4proto tcp ct timeout set "short"',
)
REJECTS = {
    4: ("net-unreachable", "host-unreachable", "prot-unreachable", "port-unreachable", "net-prohibited",
        "host-prohibited", "admin-prohibited"),
    6: ("no-route", "admin-prohibited", "addr-unreachable", "port-unreachable", "policy-fail", "reject-route"),
}  # fmt: skip
ANY_REJECTS = ("port-unreachable", "admin-prohibited", "no-route", "host-unreachable")


@cache
def port_match() -> SearchStrategy[str]:
    """The port asked for on the way there, or on the way back."""
    return st.builds("tcp {} {}".format, one_of("dport", "dport", "dport", "sport"), one_of(*PORTS))


@cache
def match(place: Place, version: int) -> SearchStrategy[str]:
    """One test of a packet."""
    found = [port_match(), port_match(), one_of(*TCP), one_of(*META), one_of(*ADDRESSES[version])]
    if not place.link:
        found += [one_of(*STATE), one_of(*STATE, "fib daddr type local")]
        found += [st.just("ct original ip daddr 127.0.0.1")] if version == 4 else []
    if place.hooks == {"input"} and not place.link:
        found.append(one_of("fib daddr type local", "fib daddr . iif type local"))
    if place.family == "inet":
        found.append(one_of("meta nfproto ipv4", f"meta nfproto . tcp dport {{ ipv4 . {PORT} }}"))
    return st.one_of(*found)


@cache
def reject(place: Place, version: int) -> SearchStrategy[str]:
    """Every kind of answer that a rule can give."""
    icmp = "icmp type" if version == 4 else "icmpv6 type"
    kinds = [st.just("reject"), st.just("meta l4proto tcp reject with tcp reset")]
    kinds.append(st.builds(f"reject with {icmp} {{}}".format, one_of(*REJECTS[version])))
    if place.family in ("inet", "netdev"):
        kinds.append(st.builds("reject with icmpx type {}".format, one_of(*ANY_REJECTS)))
    return st.one_of(*kinds)


@cache
def verdict(place: Place, version: int) -> SearchStrategy[str]:
    """How a rule ends; an empty one goes on to the next rule."""
    found = [one_of("accept", "accept", "drop", "drop", "return", "")]
    if place.rejects:
        found.append(reject(place, version))
    if place.below:
        found.append(st.builds("{} {}".format, one_of("jump", "jump", "goto"), one_of(*place.below)))
    found.append(one_of(f"jump {{ tcp dport {PORT} drop; }}", "goto { tcp dport 22 drop; accept; }", "drop"))
    return st.one_of(*found)


@st.composite
def plain_rule(draw: DrawFn, place: Place) -> str:
    """Tests, perhaps an effect, a verdict."""
    version = draw(st.sampled_from(place.versions))
    effects = (*EFFECTS, *REWRITES[version], *(() if place.link else STATEFUL_EFFECTS))
    parts = draw(few(match(place, version), 3))
    parts += draw(few(one_of(*effects), 1))
    if draw(st.integers(0, 19)) == 7:
        parts.append(draw(one_of(*(c for c in COUNTING if not (place.link and c.startswith("ct "))))))
    ending = draw(verdict(place, version))
    parts += [ending] if ending else [] if parts and parts[-1] in effects else ["counter"]
    if draw(st.integers(0, 4)) == 0:
        parts.append(f'comment "{draw(one_of(*COMMENTS))}"')
    return " ".join(parts)


@st.composite
def verdict_map(draw: DrawFn, place: Place) -> str:
    """A map from ports, states, interfaces or pairs of them to verdicts."""
    simple = st.one_of(
        one_of("accept", "drop", "return", "continue"),
        *(st.builds("{} {}".format, one_of("jump", "goto"), one_of(*place.below)) for _ in range(bool(place.below))),
    )
    first, second = draw(simple), draw(simple)
    port = f"tcp {{}} vmap {{{{ 22 : {first}, {PORT} : {second} }}}}".format
    kinds = [
        st.builds(port, one_of("dport", "dport", "sport")),
        st.just(f"tcp dport vmap {{ 1-99 : {first}, {PORT - 5}-{PORT} : {second} }}"),
        st.just("tcp dport vmap @verdicts"),
        st.just(f"meta l4proto . th dport vmap {{ udp . {PORT} : {first}, tcp . {PORT} : {second} }}"),
        st.just(f'iifname vmap {{ "lo" : {first}, "eth0" : {second} }}'),
        st.just(f"meta mark vmap {{ 0 : {first}, 1 : {second} }}"),
        st.just(f"tcp flags vmap {{ syn : {first}, syn | ack : {second} }}"),
        st.just(f'iifname . tcp dport vmap {{ "lo" . {PORT} : {first}, "eth0" . 22 : {second} }}'),
    ]
    if 4 in place.versions:
        kinds.append(
            st.just(f"ip saddr . tcp dport vmap {{ 127.0.0.1 . {PORT} : {first}, 10.0.0.1 . 1-9 : {second} }}")
        )
        kinds.append(st.just("ip daddr . tcp dport vmap @ways"))
    if not place.link:
        kinds.append(st.just(f"ct state vmap {{ new : {first}, established : {second} }}"))
        kinds.append(st.just(f"ct direction . meta mark vmap {{ original . 0 : {first}, reply . 0 : {second} }}"))
        kinds.append(
            st.just(f"ct state . tcp dport vmap {{ new . {PORT} : {first}, established . {PORT} : {second} }}")
        )
    kind: str = draw(st.one_of(*kinds))
    return kind


@cache
def rule(place: Place) -> SearchStrategy[str]:
    """A line of a chain."""
    special: list[SearchStrategy[str]] = []
    if place.hooks <= {"prerouting", "output"}:
        special.append(one_of(f"tcp dport {PORT} notrack", "notrack"))
    if place.hooks == {"prerouting"}:
        special.append(st.just(f"tcp dport {PORT} tproxy to :{NEIGHBOUR}"))
        special.append(one_of("socket transparent 0 meta mark set 1", "socket mark 0 drop"))
    if place.hooks == {"input"} and not place.link:
        special.append(one_of("socket wildcard 1 drop", f"tcp dport {PORT} synproxy name proxy"))
    return st.one_of(*[plain_rule(place)] * 7, verdict_map(place), *special)


@st.composite
def nat_rule(draw: DrawFn, family: str, hook: str) -> str:
    """Sends the connection elsewhere, or makes it come from elsewhere."""
    if hook == "postrouting" and draw(st.booleans()):
        return draw(one_of("masquerade", 'oifname "eth0" masquerade', "fib daddr type local masquerade"))
    port = draw(one_of(str(PORT), str(PORT), f"{{ 22, {PORT} }}", str(NEIGHBOUR), "1024-65535"))
    goals = ["redirect to :{}", "redirect to :{}", f"redirect to :tcp dport map {{{{ {PORT} : {{}} }}}}"]
    if family != "ip6":
        goals.append(f"dnat {'ip ' * (family == 'inet')}to 127.0.0.1:{{}}")
        goals.append(f"dnat {'ip ' * (family == 'inet')}to 127.0.0.5:{{}}")
    if family != "ip":
        goals.append(f"dnat {'ip6 ' * (family == 'inet')}to [::1]:{{}}")
    if family == "ip":
        goals.append(f"dnat to ip daddr . tcp dport map {{{{ 127.0.0.1 . {PORT} : 127.0.0.1 . {{}} }}}}")
    if hook in ("postrouting", "input"):
        goals = ["masquerade"] if hook == "postrouting" else ["counter"]
    goal = draw(st.sampled_from(goals)).format(draw(st.sampled_from((PORT, NEIGHBOUR, NEIGHBOUR, DEAD))))
    test = draw(one_of("", "", "counter ", "tcp flags syn ", "meta skuid 0 ", "ct state new "))
    return f"tcp dport {port} {test}{goal}"


# ------ tables of nft


@st.composite
def base_chain(draw: DrawFn, number: int, family: str, hook: str, below: tuple[str, ...]) -> Chain:
    """A chain that the kernel enters by itself."""
    device = " device lo" if hook in ("ingress", "egress") else ""
    kind = "route" if hook == "output" and draw(st.integers(0, 9)) == 0 else "filter"
    policy = draw(one_of("accept", "accept", "accept", "drop"))
    head = f"type {kind} hook {hook}{device} priority {draw(st.sampled_from(PRIORITIES))}; policy {policy};"
    rules = draw(few(rule(Place(family, frozenset({hook}), below)), 5))
    return Chain(f"b{number}", head, tuple(rules))


@st.composite
def nat_chain(draw: DrawFn, family: str) -> Chain:
    """A chain that only the first packet of a connection meets."""
    hook = draw(one_of("output", "output", "output", "prerouting", "postrouting", "postrouting", "input"))
    priority = draw(st.sampled_from((-100, -100, 0, 100)))
    rules = draw(few(nat_rule(family, hook), 2, least=1))
    policy = draw(one_of("accept", "accept", "accept", "drop"))
    return Chain("n0", f"type nat hook {hook} priority {priority}; policy {policy};", tuple(rules))


@st.composite
def nft_table(draw: DrawFn, name: str) -> NftTable:
    """Base chains at one to three hooks, and up to three chains that they jump to."""
    family = draw(one_of("ip", "ip6", "inet", "inet", "inet", "netdev"))
    hooks = draw(st.lists(hook_of(family), min_size=1, max_size=3))
    names = tuple(f"c{number}" for number in range(draw(st.sampled_from((0, 0, 1, 2, 3)))))
    chains: list[Chain] = []
    for place, own in enumerate(names):
        where = Place(family, frozenset(hooks), names[place + 1 :])
        chains.append(Chain(own, "", tuple(draw(few(rule(where), 3)))))
    chains.reverse()  # a chain is declared before what jumps to it
    chains += [draw(base_chain(number, family, hook, names)) for number, hook in enumerate(hooks)]
    if family != "netdev" and draw(st.integers(0, 4)) == 0:
        chains.append(draw(nat_chain(family)))
    later = draw(changes(family, name, chains, names, hooks)) if draw(st.integers(0, 3)) == 0 else ()
    lines = "\n".join((*(line for chain in chains for line in chain.rules), *later))
    sets = tuple(draw(one_of(*SETS[wanted])) for wanted in SETS if _mentions(lines, wanted))
    objects = tuple(declared for wanted, declared in OBJECTS.items() if _mentions(lines, wanted))
    asleep = ("flags dormant;",) if draw(st.integers(0, 19)) == 7 else ()
    return NftTable(family, name, (*asleep, *objects, *sets), tuple(chains), later)


def hook_of(family: str) -> SearchStrategy[str]:
    """Where a base chain of this family may be."""
    if family == "netdev":
        return one_of("ingress", "ingress", "egress")
    return one_of(*HOOKS, *HOOKS, "ingress") if family == "inet" else one_of(*HOOKS)


@st.composite
def changes(
    draw: DrawFn, family: str, name: str, chains: Sequence[Chain], below: tuple[str, ...], hooks: Sequence[str]
) -> tuple[str, ...]:
    """Rules that are put before those that a base chain has."""
    number = draw(st.integers(0, len(hooks) - 1))
    where = Place(family, frozenset({hooks[number]}), below)
    rules = draw(few(rule(where), 2, least=1))
    return tuple(f"insert rule {family} {name} b{number} {line}" for line in rules)


def _mentions(lines: str, name: str) -> bool:
    return any(f"{name}{end}" in f"{lines}\n" for end in (" ", "\n"))


# ------ rules of iptables

XT_TABLES = {
    "filter": ("INPUT", "OUTPUT"),
    "mangle": ("PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"),
    "raw": ("PREROUTING", "OUTPUT"),
    "security": ("INPUT", "OUTPUT"),
}
XT_PORTS = (
    *(f"-p tcp --dport {PORT}",) * 4,
    *(f"-p tcp --sport {PORT}",) * 2,
    f"-p tcp --dport {PORT - 5}:{PORT + 5}",
    f"-p tcp ! --dport {PORT}",
    "-p tcp --dport 22",
    f"-p tcp -m multiport --dports 22,{PORT}",
    f"-p tcp -m multiport --ports 80,{PORT - 1}:{PORT + 1}",
    f"-p tcp -m multiport ! --dports 22,{PORT}",
    f"-p udp --dport {PORT}",
    "-p tcp --syn",
    "-p tcp ! --syn",
    "-p tcp --tcp-flags SYN,ACK SYN,ACK",
    "-p tcp --tcp-flags RST RST",
    "-p tcp --tcp-option 2",
    f"-p tcp -m tcp --dport {PORT} -m tcpmss --mss 1:1460",
    f"-p tcp -m multiport --dports {PORT} -m ecn ! --ecn-tcp-cwr",
    "-p tcp",
    "",
)
XT_ANYWHERE = (
    "-m conntrack --ctstate NEW",
    "-m conntrack --ctstate RELATED,ESTABLISHED",
    "-m conntrack --ctstate INVALID",
    "-m conntrack --ctdir REPLY",
    "-m conntrack ! --ctstate ESTABLISHED",
    "-m state --state NEW",
    "-m mark --mark 1",
    "-m mark --mark 0x1/0x3",
    "-m mark ! --mark 0",
    "-m connmark --mark 1",
    "-m addrtype --dst-type LOCAL",
    "-m length --length 0:100",
    "-m length --length 60",
    "-m u32 --u32 0>>22&0x3C@0>>16=0:65535",
    "-m set --match-set ports dst",
    "-m set ! --match-set ports src",
    "-m set --match-set timed dst",
    "-m conntrack --ctstate UNTRACKED",
    "-m conntrack --ctstatus CONFIRMED",
    "-m connlabel --label 1",
    "-m dscp --dscp 0",
    "-m helper --helper ftp",
    "-m pkttype --pkt-type unicast",
    "-m cpu ! --cpu 999",
    "-m time --timestart 00:00 --timestop 23:59:59",
    f"-m conntrack --ctorigdstport {PORT}",
    '-m comment --comment "let the web in"',
    '-m comment --comment "it\'s \\"ours\\" -j ACCEPT # handle 9"',
)
XT_ADDRESSES = {
    4: ("-s 127.0.0.1", "-d 127.0.0.0/8", "! -d 127.0.0.1", "-s 10.0.0.0/8", "-m ttl --ttl-eq 64",
        "-m iprange --dst-range 127.0.0.0-127.0.0.9", "-m set --match-set hosts src", "-m set --match-set both dst",
        "-m set --match-set pairs dst,dst", "-m set ! --match-set hosts dst"),
    6: ("-s ::1", "-d ::1/128", "! -d ::1", "-d fe80::/10", "-m hl --hl-eq 64",
        "-m set --match-set hosts6 src"),
}  # fmt: skip
XT_INWARD = ("-i lo", "-i lo", "! -i lo", "-i eth+", "-m devgroup --src-group 0")
XT_OUTWARD = (
    "-o lo",
    "! -o lo",
    "-o eth+",
    "-m owner --uid-owner 0",
    "-m owner --uid-owner 65534",
    "-m owner ! --uid-owner 0",
    "-m owner --uid-owner 0 --gid-owner 0",
    "-m owner --gid-owner 65534",
    "-m owner --socket-exists",
    "-m cgroup --cgroup 0",
)
XT_COUNTING = (
    "-m limit --limit 1/sec --limit-burst 1",
    "-m statistic --mode nth --every 2 --packet 0",
    "-p tcp -m connlimit --connlimit-above 1",
    "-m hashlimit --hashlimit-name slow --hashlimit-above 1/sec --hashlimit-burst 1",
    "-m recent --name seen --set",
    "-m recent --name seen --rcheck",
    "-m connbytes --connbytes 100: --connbytes-dir both --connbytes-mode bytes",
    "-m quota --quota 100",
    "-m statistic --mode random --probability 0.5",
    "-m set --match-set knocked dst",
    "-m set ! --match-set knocked dst",
)
XT_REJECTS = {
    4: ("icmp-net-unreachable", "icmp-host-unreachable", "icmp-port-unreachable", "icmp-proto-unreachable",
        "icmp-net-prohibited", "icmp-host-prohibited", "icmp-admin-prohibited"),
    6: ("icmp6-no-route", "icmp6-adm-prohibited", "icmp6-addr-unreachable", "icmp6-port-unreachable",
        "icmp6-policy-fail", "icmp6-reject-route"),
}  # fmt: skip


class XtPlace(Struct, frozen=True):
    """Where a rule of iptables stands."""

    table: str
    chain: str
    version: int
    below: tuple[str, ...]


@cache
def xt_match(place: XtPlace) -> SearchStrategy[str]:
    """One test beside that of the port."""
    found = [one_of(*XT_ANYWHERE), one_of(*XT_ADDRESSES[place.version])]
    if place.chain in ("PREROUTING", "INPUT"):
        found.append(one_of(*XT_INWARD))
    if place.chain in ("OUTPUT", "POSTROUTING"):
        found.append(one_of(*XT_OUTWARD))
    return st.one_of(*found)


@cache
def xt_target(place: XtPlace, tcp: bool) -> SearchStrategy[str]:
    """How a rule ends; an empty one only counts."""
    found = [one_of("-j ACCEPT", "-j ACCEPT", "-j DROP", "-j DROP", "-j RETURN", "")]
    if place.table == "filter":
        found.append(st.builds("-j REJECT --reject-with {}".format, one_of(*XT_REJECTS[place.version])))
        found += [st.just("-j REJECT --reject-with tcp-reset")] if tcp else []
    if place.table == "mangle":
        found.append(one_of("-j MARK --set-mark 1", "-j MARK --set-xmark 0x10/0x10", "-j CONNMARK --save-mark"))
        found.append(one_of("-j CONNMARK --restore-mark", "-j DSCP --set-dscp 5"))
        found.append(one_of("-j TTL --ttl-set 5" if place.version == 4 else "-j HL --hl-set 5", "-j DROP"))
    if place.table == "mangle" and place.chain in ("OUTPUT", "POSTROUTING"):
        found.append(st.just("-j CLASSIFY --set-class 1:1"))
    if place.table == "mangle" and tcp and place.chain == "PREROUTING":
        found.append(st.just(f"-j TPROXY --on-port {NEIGHBOUR}"))
    if place.table == "raw":
        found.append(one_of("-j CT --notrack", "-j CT --notrack", "-j CT --zone 3"))
    if place.below:
        found.append(st.builds("{} {}".format, one_of("-j", "-j", "-g"), one_of(*place.below)))
    found.append(
        one_of(
            "-j LOG",
            "-j NFLOG",
            "-j SET --add-set knocked dst",
            "-j TRACE" if place.table == "raw" else "",
            "-j NFQUEUE --queue-balance 0:3",
            "-j NFQUEUE --queue-num 40000 --queue-bypass",
            "-j NFQUEUE --queue-num 5",
            "-j NFQUEUE --queue-num 5 --queue-bypass",
        )
    )
    return st.one_of(*found, found[0])


@st.composite
def xt_rule(draw: DrawFn, place: XtPlace) -> str:
    """A port, other tests, a target."""
    port = draw(one_of(*XT_PORTS))
    others = draw(st.lists(xt_match(place), max_size=2, unique_by=_module))
    if draw(st.integers(0, 29)) == 7:
        others += [draw(one_of(*(c for c in XT_COUNTING if "-p tcp" not in c or not port)))]
    return " ".join(word for word in (port, *others, draw(xt_target(place, port.startswith("-p tcp")))) if word)


def _module(match: str) -> str:
    """What may stand once in a rule: an option, or a module."""
    words = match.removeprefix("! ").split()
    return words[1] if words[0] == "-m" else words[0]


@st.composite
def xt_nat(draw: DrawFn, version: int) -> XtTable:
    """REDIRECT, DNAT and MASQUERADE."""
    local = "127.0.0.1" if version == 4 else "[::1]"
    goal = draw(st.sampled_from((NEIGHBOUR, NEIGHBOUR, DEAD, PORT)))
    target = draw(one_of(f"REDIRECT --to-ports {goal}", f"DNAT --to-destination {local}:{goal}"))
    test = draw(one_of("", "-o lo ", "-m owner --uid-owner 0 ", "-m conntrack --ctstate NEW "))
    port = draw(one_of(str(PORT), str(PORT), str(NEIGHBOUR)))
    rules = draw(st.sampled_from(((f"-p tcp --dport {port} {test}-j {target}",),) * 3 + ((),)))
    back = draw(
        st.sampled_from(((f"-p tcp --dport {goal} -j MASQUERADE",), ("-j MASQUERADE",), ("-o eth0 -j MASQUERADE",), ()))
    )
    return XtTable("nat", (XtChain("OUTPUT", "ACCEPT", rules), XtChain("POSTROUTING", "ACCEPT", back)))


@st.composite
def xt_table(draw: DrawFn, name: str, version: int) -> XtTable:
    """The built-in chains, and up to two of its own that they jump to."""
    own = tuple(f"OWN{number}" for number in range(draw(st.sampled_from((0, 0, 1, 2)))))
    chains: list[XtChain] = []
    for built_in in XT_TABLES[name]:
        place = XtPlace(name, built_in, version, own)
        policy = draw(one_of("ACCEPT", "ACCEPT", "ACCEPT", "DROP"))
        chains.append(XtChain(built_in, policy, tuple(draw(few(xt_rule(place), 3)))))
    for number, chain in enumerate(own):
        place = XtPlace(name, chain, version, own[number + 1 :])
        chains.append(XtChain(chain, "-", tuple(draw(few(xt_rule(place), 3)))))
    return XtTable(name, tuple(chains))


@st.composite
def xtables(draw: DrawFn, tool: str) -> Xtables:
    """One or two tables of one iptables; nft may have added to those of iptables-nft."""
    version = 6 if tool.startswith("ip6") else 4
    names = draw(st.lists(one_of("filter", "filter", "filter", *XT_TABLES), min_size=1, max_size=2, unique=True))
    tables = [draw(xt_table(name, version)) for name in names]
    if draw(st.integers(0, 3)) == 0:
        tables.append(draw(xt_nat(version)))
    added: list[str] = []
    if tool.endswith("-nft") and draw(st.integers(0, 5)) == 0:
        where = tables[0]
        chain = draw(one_of(*XT_TABLES[where.name]))
        family = "ip6" if version == 6 else "ip"
        place = Place(family, frozenset({chain.lower()}))
        how = draw(one_of("add", "insert"))
        lines = draw(
            few(plain_rule(place).filter(lambda line: "@" not in line and " name " not in f" {line}"), 2, least=1)
        )
        added = [f"{how} rule {family} {where.name} {chain} {line}" for line in lines]
    return Xtables(tool, tuple(tables), tuple(added))


# ------ rule sets

TOOLS = ("iptables-nft", "iptables-legacy", "ip6tables-nft", "ip6tables-legacy")


@st.composite
def rule_sets(draw: DrawFn) -> RuleSet:
    """One to three parts; each iptables at most once, since it replaces what it finds."""
    kinds: Sequence[str] = draw(st.lists(one_of("nft", "nft", "nft", *TOOLS), min_size=1, max_size=3).filter(_once))
    parts = tuple(draw(part(kind, f"t{number}")) for number, kind in enumerate(kinds))
    odd = draw(st.lists(st.sampled_from(ODDITIES), max_size=2, unique=True)) if draw(st.integers(0, 3)) == 0 else []
    before = tuple(load for oddity in odd for load in oddity)
    homes = (LOOPBACK, LOOPBACK, ("127.0.0.5", "::1"), *((ON_ETH0, ON_ETH0) if ETH0 in odd else ()))
    return RuleSet(
        parts,
        (*_ip_sets(parts), *before),
        listener=draw(st.sampled_from((0, 0, 0, NOBODY))),
        client=draw(st.sampled_from((0, 0, 0, 0, 0, NOBODY))),
        addresses=draw(st.sampled_from(homes)),
    )


NOBODY = 65534
LOOPBACK = ("127.0.0.1", "::1")
ON_ETH0 = ("192.0.2.1", "2001:db8::1")


def _sysctl(setting: str) -> tuple[Load, ...]:
    return (Load(("sysctl", "-qw", setting)),)


def _ip(*commands: str) -> tuple[Load, ...]:
    return tuple(Load(("ip", *command.split())) for command in commands)


ETH0 = _ip(
    "link add eth0 type veth peer name eth1",
    "address add 192.0.2.1/24 dev eth0",
    "address add 2001:db8::1/64 dev eth0 nodad",
    "link set eth0 up",
    "link set eth1 up",
)
ODDITIES = (
    _sysctl("net.ipv4.ip_default_ttl=128"),
    _sysctl("net.ipv6.conf.lo.hop_limit=128"),
    _sysctl("net.ipv4.tcp_timestamps=0"),
    _sysctl("net.ipv4.tcp_sack=0"),
    _sysctl("net.ipv4.tcp_window_scaling=0"),
    _sysctl("net.ipv4.tcp_ecn=1"),
    _sysctl("net.ipv4.fwmark_reflect=1"),
    _sysctl("net.ipv4.tcp_fwmark_accept=1"),
    _sysctl("net.ipv4.conf.all.rp_filter=1"),
    _sysctl("net.ipv4.conf.all.route_localnet=1"),
    _sysctl("net.ipv4.tcp_syncookies=2"),
    _ip("link set lo mtu 1500"),
    _ip("address add 192.0.2.1/32 dev lo"),
    ETH0,
    ETH0,
    ETH0,
)
"""What a machine may have otherwise than a fresh one, and rules may ask about."""


IP_SETS = {
    "ports": f"create ports bitmap:port range 1-65535\nadd ports 22\nadd ports {PORT}\n",
    "timed": f"create timed bitmap:port range 1-65535 timeout 3600\nadd timed {PORT} timeout 3000\n",
    "hosts": "create hosts hash:net\nadd hosts 127.0.0.0/8\nadd hosts 10.0.0.0/8\nadd hosts 127.0.0.5 nomatch\n",
    "hosts6": "create hosts6 hash:net family inet6\nadd hosts6 ::1\nadd hosts6 fe80::/10\n",
    "pairs": f"create pairs hash:ip,port\nadd pairs 127.0.0.1,tcp:{PORT}\nadd pairs 127.0.0.5,tcp:22\n",
    "both": "create inner hash:ip\nadd inner 127.0.0.1\ncreate both list:set\nadd both inner\n",
    "knocked": "create knocked bitmap:port range 1-65535 timeout 60\n",
}
"""IP sets that rules of iptables ask, and what `ipset restore` makes them of."""


def _ip_sets(parts: Sequence[NftTable | Xtables]) -> tuple[Load, ...]:
    """The IP sets that rules of iptables look into or add to."""
    lines = "\n".join(rule for part in parts if isinstance(part, Xtables) for rule in part.rules()) + "\n"
    made = "".join(text for name, text in IP_SETS.items() if f"-set {name} " in lines)
    return (Load(("ipset", "restore"), made),) if made else ()


@st.composite
def part(draw: DrawFn, kind: str, name: str) -> NftTable | Xtables:
    """A table of nft of that name, or the tables of an iptables."""
    return draw(nft_table(name)) if kind == "nft" else draw(xtables(kind))


def _once(kinds: Sequence[str]) -> bool:
    tools = [kind for kind in kinds if kind != "nft"]
    return len(tools) == len(set(tools))
