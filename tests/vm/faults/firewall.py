"""Rules that drop or reject, in every place where a packet of a local connection passes."""

from __future__ import annotations

from collections.abc import Callable

from tests.vm.fault import Answers, Fault, Place, Remedy, likely, no_cause, proven, works
from tests.vm.place import USER_ID

DROPS, REJECTS, POLICY = "firewall/rule-drops", "firewall/rule-rejects", "firewall/policy-drops"
REPLY, REDIRECTS = "firewall/reply-dropped", "firewall/redirects"
QUEUE, LIMITS, SILENT = "firewall/queue-without-reader", "firewall/limits-connections", "firewall/silent"

QUIET: Answers = likely(SILENT, Remedy.AGAIN)
"""What an ordinary user is told of every silent drop."""
QUIET_ON_OUTPUT: Answers = (*QUIET, *no_cause())
"""On the way out, too, but where the machine is slow: then other reasons for the silence are not excluded."""
SEEN_BY_USER: Answers = likely(REJECTS, Remedy.AGAIN)
V6 = "[::1]:{port}"
Make = Callable[[Place], object]


def behind(address: str, *steps: Make) -> Make:
    """A healthy server, and then what stands in its way."""

    def make(place: Place) -> None:
        place.serve("accepts", address)
        for step in steps:
            step(place)

    return make


def nft(hook: str, *rules: str, family: str = "ip", priority: int = 0, policy: str = "accept") -> Make:
    """A chain of nft with these rules."""
    return lambda place: place.chain(
        hook,
        *(rule.replace("PORT", str(place.port)) for rule in rules),
        family=family,
        priority=priority,
        policy=policy,
    )


def tool(*words: str) -> Make:
    """A command, with PORT in the place of the port."""
    return lambda place: place.run(*(word.replace("PORT", str(place.port)) for word in words))


def statements(*lines: str) -> Make:
    """Statements of nft."""
    return lambda place: place.nft(*(line.replace("PORT", str(place.port)) for line in lines))


def spend(address: str) -> Make:
    """One connection, which is all that a rule allows."""
    script = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=9)"
    return lambda place: place.run("/usr/bin/python3", "-I", "-S", "-c", script, address, str(place.port))


def iptables(name: str, chain: str, *match: str, table: str = "filter", jump: tuple[str, ...] = ("DROP",)) -> Make:
    """A rule of iptables for the port, after the same one for another port."""

    def make(place: Place) -> None:
        for port in ("9", str(place.port)):
            place.run(name, "-t", table, "-A", chain, "-p", "tcp", "--dport", port, *match, "-j", *jump)

    return make


def dropped(name: str, make: Make, target: str = "127.0.0.1:{port}", code: str = DROPS, *, keep: bool = False) -> Fault:
    """A silent drop: root is told the rule, the user that there is silence."""
    on_output = "output" in name.lower() or "postrouting" in name
    user = QUIET_ON_OUTPUT if on_output else QUIET
    return Fault(name, make, root=proven(code), user=user, target=target, silent=True, keep=keep)


def rejected(name: str, make: Make, target: str = "127.0.0.1:{port}", *, keep: bool = False) -> Fault:
    """A rule that answers no."""
    return Fault(name, make, root=proven(REJECTS), user=SEEN_BY_USER, target=target, keep=keep)


ESTABLISHED = ("-m", "conntrack", "--ctstate", "ESTABLISHED,RELATED", "-j", "ACCEPT")

SILENT_DROPS = (
    dropped(
        "an nft rule drops the port on input",
        behind("127.0.0.1", nft("input", "tcp dport 9 drop", "tcp dport PORT drop")),
        keep=True,
    ),
    dropped("an nft rule drops the port on output", behind("127.0.0.1", nft("output", "tcp dport PORT drop"))),
    dropped(
        "an nft rule drops the port on prerouting",
        behind("127.0.0.1", nft("prerouting", "tcp dport PORT drop", priority=-150)),
    ),
    dropped(
        "an nft rule drops the port on postrouting", behind("127.0.0.1", nft("postrouting", "tcp dport PORT drop"))
    ),
    dropped(
        "an nft rule of the inet family drops IPv6 on input",
        behind("::1", nft("input", "ip6 daddr ::1 tcp dport PORT drop", family="inet")),
        V6,
        keep=True,
    ),
    dropped("an nft rule drops IPv6 on output", behind("::1", nft("output", "tcp dport PORT drop", family="ip6")), V6),
    dropped(
        "an nft rule in a chain that another jumps to drops the port",
        behind(
            "127.0.0.1",
            statements("add table ip guard", "add chain ip guard apps", "add rule ip guard apps tcp dport PORT drop"),
            nft("input", "iifname lo jump apps"),
        ),
    ),
    dropped(
        "an nft policy drops what no rule accepts",
        behind(
            "127.0.0.1",
            nft("input", "ct state established,related accept", "tcp dport 22 accept", family="inet", policy="drop"),
        ),
        code=POLICY,
        keep=True,
    ),
    dropped(
        "an nft rule at the ingress of lo drops the port",
        behind(
            "127.0.0.1",
            statements(
                "add table netdev early",
                "add chain netdev early lo { type filter hook ingress device lo priority 0 ; }",
                "add rule netdev early lo tcp dport PORT drop",
            ),
        ),
    ),
    dropped(
        "an iptables-nft rule drops the port on INPUT",
        behind("127.0.0.1", iptables("iptables-nft", "INPUT")),
        keep=True,
    ),
    dropped("an ip6tables-nft rule drops the port on INPUT", behind("::1", iptables("ip6tables-nft", "INPUT")), V6),
    dropped(
        "an iptables-nft policy drops what no rule accepts",
        behind(
            "127.0.0.1", tool("iptables-nft", "-A", "INPUT", *ESTABLISHED), tool("iptables-nft", "-P", "INPUT", "DROP")
        ),
        code=POLICY,
    ),
    dropped(
        "an iptables-legacy rule drops the port on INPUT",
        behind("127.0.0.1", iptables("iptables-legacy", "INPUT")),
        keep=True,
    ),
    dropped(
        "an iptables-legacy rule in the raw table drops the port on PREROUTING",
        behind("127.0.0.1", iptables("iptables-legacy", "PREROUTING", table="raw")),
    ),
    dropped(
        "an iptables-legacy rule in the mangle table drops the port on OUTPUT",
        behind("127.0.0.1", iptables("iptables-legacy", "OUTPUT", table="mangle")),
    ),
    dropped(
        "an iptables-legacy policy drops what no rule accepts",
        behind(
            "127.0.0.1",
            tool("iptables-legacy", "-A", "INPUT", *ESTABLISHED),
            tool("iptables-legacy", "-P", "INPUT", "DROP"),
        ),
        code=POLICY,
    ),
    dropped(
        "an ip6tables-legacy rule drops the port on OUTPUT", behind("::1", iptables("ip6tables-legacy", "OUTPUT")), V6
    ),
    dropped(
        "an ip6tables-legacy policy drops what no rule accepts",
        behind("::1", tool("ip6tables-legacy", "-P", "INPUT", "DROP")),
        V6,
        POLICY,
    ),
)

ANSWERS = (
    Fault(
        "an nft rule drops the answer on its way back",
        behind("127.0.0.1", nft("prerouting", "tcp sport 9 drop", "tcp sport PORT drop")),
        root=proven(REPLY),
        user=likely(REPLY, Remedy.AGAIN),
        silent=True,
        keep=True,
    ),
    Fault(
        "an nft rule drops the answer on output",
        behind("127.0.0.1", nft("output", "tcp sport PORT drop", family="inet")),
        root=proven(REPLY),
        user=likely(REPLY, Remedy.AGAIN),
        silent=True,
    ),
    Fault(
        "an iptables-legacy rule drops the answer on its way back",
        behind("127.0.0.1", tool("iptables-legacy", "-A", "INPUT", "-p", "tcp", "--sport", "PORT", "-j", "DROP")),
        root=proven(REPLY),
        user=likely(REPLY, Remedy.AGAIN),
        silent=True,
    ),
    Fault(
        "an nft rule drops only the last ACK of the handshake",
        behind("127.0.0.1", nft("input", "tcp dport PORT tcp flags == ack drop")),
        root=proven(DROPS),
        user=likely(DROPS, Remedy.AGAIN),
        silent=True,
    ),
)

REJECTIONS = (
    rejected(
        "an nft rule rejects with a TCP reset",
        behind("127.0.0.1", nft("input", "tcp dport PORT reject with tcp reset")),
        keep=True,
    ),
    rejected(
        "an nft rule rejects IPv6 with a TCP reset",
        behind("::1", nft("input", "tcp dport PORT reject with tcp reset", family="ip6")),
        V6,
    ),
    rejected(
        "an nft rule rejects with ICMP admin-prohibited",
        behind("127.0.0.1", nft("input", "tcp dport PORT reject with icmp admin-prohibited")),
    ),
    rejected(
        "an nft rule rejects IPv6 with ICMPv6 no-route",
        behind("::1", nft("input", "tcp dport PORT reject with icmpv6 no-route", family="ip6")),
        V6,
    ),
    rejected(
        "an nft rule rejects the port on output",
        behind("127.0.0.1", nft("output", "tcp dport PORT reject with tcp reset")),
    ),
    rejected(
        "an iptables-nft rule rejects with ICMP port-unreachable",
        behind("127.0.0.1", iptables("iptables-nft", "INPUT", jump=("REJECT",))),
    ),
    rejected(
        "an iptables-legacy rule rejects with a TCP reset",
        behind("127.0.0.1", iptables("iptables-legacy", "INPUT", jump=("REJECT", "--reject-with", "tcp-reset"))),
        keep=True,
    ),
    rejected(
        "an ip6tables-legacy rule rejects with ICMPv6 adm-prohibited",
        behind("::1", iptables("ip6tables-legacy", "INPUT", jump=("REJECT", "--reject-with", "icmp6-adm-prohibited"))),
        V6,
    ),
)

OTHERS = (
    Fault(
        "an nft rule that counts connections has let its number through",
        behind(
            "127.0.0.1",
            nft("input", "tcp dport PORT ct state new limit rate over 1/hour burst 1 packets drop"),
            spend("127.0.0.1"),
        ),
        root=likely(LIMITS, Remedy.PERSON),
        user=QUIET,
        by_person=lambda place: place.nft("flush chain ip guard input"),
    ),
    Fault(
        "an iptables-legacy rule redirects the port to one where nothing listens",
        behind(
            "127.0.0.1",
            iptables("iptables-legacy", "OUTPUT", table="nat", jump=("DNAT", "--to-destination", "127.0.0.1:9")),
        ),
        root=proven(REDIRECTS),
        user=no_cause(),
    ),
    Fault(
        "an nft rule queues the port to a program that does not run",
        behind("127.0.0.1", nft("input", "tcp dport PORT queue num 7")),
        root=proven(QUEUE, Remedy.PERSON),
        user=QUIET,
        by_person=lambda place: place.nft("flush chain ip guard input"),
        silent=True,
        keep=True,
    ),
    Fault(
        "an iptables-nft rule queues the port to a program that does not run",
        behind("127.0.0.1", iptables("iptables-nft", "OUTPUT", jump=("NFQUEUE", "--queue-num", "7"))),
        root=proven(QUEUE, Remedy.PERSON),
        user=QUIET,
        by_person=lambda place: place.run("iptables-nft", "-F", "OUTPUT"),
        silent=True,
    ),
    Fault(
        "an nft rule drops the ordinary user's packets only",
        behind("127.0.0.1", nft("output", f"meta skuid {USER_ID} tcp dport PORT drop")),
        root=works(),
        user=QUIET,
    ),
    Fault(
        "an iptables-nft rule drops root's packets only",
        behind("127.0.0.1", iptables("iptables-nft", "OUTPUT", "-m", "owner", "--uid-owner", "0")),
        root=proven(DROPS),
        user=works(),
        silent=True,
    ),
    Fault(
        "nft rules for another port stand in nobody's way",
        behind("127.0.0.1", nft("input", "tcp dport 9 drop", "tcp dport 10 reject", family="inet")),
        root=works(),
        user=works(),
    ),
)


def traffic_control(direction: str) -> Make:
    """A filter of tc on lo that drops the port."""

    def make(place: Place) -> None:
        place.serve()
        place.run("modprobe", "--all", "sch_ingress", "cls_flower", "act_gact")
        place.run("tc", "qdisc", "add", "dev", "lo", "clsact")
        words = f"tc filter add dev lo {direction} protocol ip flower ip_proto tcp dst_port {place.port} action drop"
        place.run(*words.split())

    return make


def by_traffic_control(direction: str, *, keep: bool = False) -> Fault:
    """No rule, so that no witness but the kernel's drop reason tells it; 5.10 has none."""
    return Fault(
        f"a filter of tc drops the port on {direction} of lo",
        traffic_control(direction),
        root=proven(SILENT, Remedy.PERSON),
        user=QUIET_ON_OUTPUT,
        by_person=lambda place: place.run("tc", "filter", "del", "dev", "lo", direction),
        on={"5.10": (likely(SILENT, Remedy.PERSON), QUIET_ON_OUTPUT)},
        keep=keep,
    )


TRAFFIC_CONTROL = (by_traffic_control("ingress", keep=True), by_traffic_control("egress"))

FAULTS = (*SILENT_DROPS, *ANSWERS, *REJECTIONS, *OTHERS, *TRAFFIC_CONTROL)
