"""The shadow names the rule that really stops a connect: each rule set here is real, in a namespace of its own."""

from __future__ import annotations

import functools
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from diagnose.model.attempt import Outcome
from diagnose.model.fact import Fact, Known, Reason, Unknown
from diagnose.model.firewall import Backend, Shadow, Walk
from diagnose.model.network import Endpoint, family_of
from diagnose.probes.connect import outcome_of, report_icmp_errors
from diagnose.probes.shadow import libc, look, looking, tool

_TOOLS = ("nft", "iptables-nft", "ip6tables-nft", "iptables-legacy", "ip6tables-legacy", "ip")
_MISSING = [tool for tool in _TOOLS if shutil.which(tool, path="/usr/sbin:/sbin:/usr/bin:/bin") is None]

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(
        sys.platform != "linux" or os.geteuid() != 0 or bool(_MISSING),
        reason=f"needs Linux, root and {', '.join(_MISSING) or 'the firewall tools'}",
    ),
]

PORT = 8080
V4, V6 = Endpoint("127.0.0.1", PORT), Endpoint("::1", PORT)
DEADLINE = 10.0


def in_namespace(test: Callable[..., None]) -> Callable[..., None]:
    """Runs the test in a thread that has a network namespace of its own, with lo up and listeners on the port."""

    @functools.wraps(test)
    def run(*args: object, **kwargs: object) -> None:
        failures: list[BaseException] = []

        def body() -> None:
            try:
                libc.unshare_network()
                sh("ip link set lo up")
                with listeners():
                    test(*args, **kwargs)
            except BaseException as error:  # noqa: BLE001 (raised again in the test's own thread)
                failures.append(error)

        thread = threading.Thread(target=body)
        thread.start()
        thread.join()
        for failure in failures:
            raise failure

    return run


def sh(command: str, given: str | None = None) -> str:
    """A command, run in the namespace of this thread."""
    done = subprocess.run(["sh", "-ec", command], input=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


def nft(rules: str) -> None:
    """A rule set in nft's own language, which wants a line's end behind each brace."""
    sh("nft -f -", re.sub(r"\} (?=\})", "}\n", rules))


@contextmanager
def listeners(*ports: int) -> Iterator[None]:
    """Servers on both families."""
    with ExitStack() as stack:
        for port in ports or (PORT,):
            for family, address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
                server = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
                if family == socket.AF_INET6:
                    server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                server.bind((address, port))
                server.listen(16)
        yield


def real(endpoint: Endpoint) -> Outcome:
    """How a connect in this namespace ends."""
    family = socket.AF_INET6 if family_of(endpoint.address) == "ipv6" else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.settimeout(0.2)
        report_icmp_errors(sock)
        try:
            sock.connect((endpoint.address, endpoint.port))
        except TimeoutError:
            return Outcome.UNANSWERED
        except OSError as error:
            return outcome_of(error.errno or 0)
        return Outcome.CONNECTED


def shadow(*endpoints: Endpoint) -> Shadow:
    """The fact, which has to be known."""
    fact = look(endpoints, DEADLINE)
    assert isinstance(fact, Known), fact
    return fact.value


def walk(endpoint: Endpoint = V4) -> Walk:
    """The walk to an endpoint, which has to end as a connect in this namespace does."""
    (found,) = shadow(endpoint).walks
    assert found.outcome is real(endpoint)
    return found


def handle(text: str) -> int:
    """The handle of the one rule with this text, as nft lists it."""
    found = [line for line in sh("nft -a list ruleset").splitlines() if text in line and "# handle" in line]
    assert len(found) == 1, found
    match = re.search(r"# handle (\d+)$", found[0])
    assert match
    return int(match[1])


def decided(found: Walk) -> tuple[str, str, str, str]:
    """Backend, table, chain and text of the decider."""
    assert found.decider is not None, found
    return found.decider.backend.value, found.decider.table, found.decider.chain, found.decider.text


INPUT = "chain input { type filter hook input priority 0; policy accept;"


# ------ the simple ones


@in_namespace
def test_a_machine_without_rules_lets_everything_pass_and_has_none() -> None:
    found = shadow(V4, V6)
    assert found.rules == 0
    assert [(w.verdict, w.decider, w.outcome) for w in found.walks] == [("accept", None, Outcome.CONNECTED)] * 2


@in_namespace
@pytest.mark.parametrize("endpoint", [V4, V6], ids=str)
def test_an_nft_drop_is_named_with_its_handle_on_the_machine(endpoint: Endpoint) -> None:
    nft(f"""table inet filter {{ {INPUT}
        tcp dport 8081 drop
        udp dport {PORT} drop
        tcp dport 22 accept
        }} }}""")
    sh("nft delete rule inet filter input handle 2")
    sh(f"nft add rule inet filter input tcp dport {PORT} drop")
    found = walk(endpoint)
    assert decided(found) == ("nft", "filter", "input", f"tcp dport {PORT} drop")
    assert found.decider is not None
    assert found.decider.handle == handle(f"tcp dport {PORT} drop")
    assert (found.verdict, found.packet, found.hook, found.doubts) == ("drop", "syn", "input", ())


@in_namespace
@pytest.mark.parametrize(
    ("statement", "endpoint", "told", "outcome"),
    [
        ("reject with tcp reset", V4, "tcp reset", Outcome.REFUSED),
        ("reject with tcp reset", V6, "tcp reset", Outcome.REFUSED),
        ("reject", V4, "icmpx port-unreachable", Outcome.REFUSED),
        ("reject", V6, "icmpx port-unreachable", Outcome.REFUSED),
        ("reject with icmpx admin-prohibited", V4, "icmpx admin-prohibited", Outcome.UNREACHABLE),
        ("reject with icmpx admin-prohibited", V6, "icmpx admin-prohibited", Outcome.DENIED),
        ("reject with icmp type net-unreachable", V4, "icmp net-unreachable", Outcome.UNREACHABLE),
    ],
)
def test_an_nft_reject_is_told_with_what_it_sends(
    statement: str, endpoint: Endpoint, told: str, outcome: Outcome
) -> None:
    nft(f"table inet filter {{ {INPUT} tcp dport {PORT} {statement}\n }} }}")
    found = walk(endpoint)
    assert (found.verdict, found.reject_with, found.outcome, found.packet) == ("reject", told, outcome, "syn")
    assert found.decider is not None
    assert found.decider.handle == 2


@in_namespace
def test_a_drop_on_the_way_out_is_named_at_output() -> None:
    nft(f"table ip t {{ chain o {{ type filter hook output priority 0; tcp dport {PORT} drop\n }} }}")
    found = walk()
    assert (found.hook, found.packet) == ("output", "syn")
    assert decided(found) == ("nft", "t", "o", f"tcp dport {PORT} drop")


@in_namespace
@pytest.mark.parametrize("hook", ["input", "output"])
def test_a_policy_that_accepts_no_loopback_is_the_decider(hook: str) -> None:
    nft(f"table inet filter {{ chain c {{ type filter hook {hook} priority 0; policy drop; tcp dport 22 accept\n }} }}")
    found = walk()
    assert found.decider is not None
    assert found.decider.policy
    assert decided(found) == ("nft", "filter", "c", "policy drop")
    assert (found.verdict, found.hook) == ("drop", hook)


# ------ the backends of iptables


@in_namespace
def test_a_reject_of_iptables_nft_is_named_by_line_and_in_its_own_words() -> None:
    sh("iptables-nft -A INPUT -p tcp --dport 8081 -j REJECT")
    sh(f"iptables-nft -A INPUT -p tcp --dport {PORT} -m comment --comment 'no way' -j REJECT --reject-with tcp-reset")
    found = walk()
    text = f"-p tcp -m tcp --dport {PORT} -m comment --comment *** -j REJECT --reject-with tcp-reset"
    assert decided(found) == ("iptables-nft", "filter", "INPUT", text)
    assert found.decider is not None
    assert (found.decider.line, found.decider.handle, found.decider.comment) == (2, None, "***")
    assert (found.verdict, found.reject_with) == ("reject", "tcp reset")


@in_namespace
@pytest.mark.parametrize("chain", ["INPUT", "OUTPUT"])
def test_a_drop_of_iptables_legacy_is_named_by_line(chain: str) -> None:
    sh(f"iptables-legacy -A {chain} -p tcp --dport 8081 -j DROP")
    sh(f"iptables-legacy -A {chain} -p tcp --dport {PORT} -j DROP")
    sh("nft add table ip empty")
    found = walk()
    assert decided(found) == ("iptables-legacy", "filter", chain, f"-p tcp -m tcp --dport {PORT} -j DROP")
    assert found.decider is not None
    assert (found.decider.line, found.hook, found.verdict) == (2, chain.lower(), "drop")


@in_namespace
def test_a_drop_in_the_raw_table_of_iptables_legacy_is_found() -> None:
    sh(f"iptables-legacy -t raw -A PREROUTING -p tcp --dport {PORT} -j DROP")
    found = walk()
    assert decided(found) == ("iptables-legacy", "raw", "PREROUTING", f"-p tcp -m tcp --dport {PORT} -j DROP")
    assert found.hook == "prerouting"


@in_namespace
def test_the_ipv6_side_of_iptables_legacy_is_its_own() -> None:
    sh(f"ip6tables-legacy -A INPUT -p tcp --dport {PORT} -j REJECT --reject-with icmp6-adm-prohibited")
    sh("iptables-legacy -A INPUT -p tcp --dport 8081 -j DROP")
    found = walk(V6)
    assert found.decider is not None
    assert (found.decider.backend, found.decider.family) == (Backend.IP6TABLES_LEGACY, "ip6")
    assert (found.verdict, found.reject_with, found.outcome) == ("reject", "icmpv6 admin-prohibited", Outcome.DENIED)
    assert walk(V4).verdict == "accept"


@in_namespace
@pytest.mark.parametrize("tool", ["iptables-legacy", "iptables-nft"])
def test_a_drop_in_a_chain_that_is_jumped_to_is_named_there(tool: str) -> None:
    sh(f"{tool} -N guard; {tool} -A INPUT -j guard; {tool} -A guard -p tcp --dport 22 -j ACCEPT")
    sh(f"{tool} -A guard -p tcp --dport {PORT} -j DROP; {tool} -A INPUT -i lo -j ACCEPT")
    found = walk()
    assert decided(found) == (tool, "filter", "guard", f"-p tcp -m tcp --dport {PORT} -j DROP")
    assert found.decider is not None
    assert found.decider.line == 2


@in_namespace
@pytest.mark.parametrize("tool", ["iptables-legacy", "iptables-nft"])
def test_a_policy_of_iptables_is_the_decider(tool: str) -> None:
    sh(f"{tool} -P INPUT DROP; {tool} -A INPUT -p tcp --dport 22 -j ACCEPT")
    found = walk()
    assert decided(found) == (tool, "filter", "INPUT", "policy drop")
    assert found.decider is not None
    assert (found.decider.policy, found.decider.line) == (True, None)


# ------ what nft has beside plain rules


@in_namespace
def test_a_set_that_holds_the_port_is_carried() -> None:
    nft(f"""table inet filter {{
        set closed {{ type inet_service; flags interval; elements = {{ 1-100, 8000-8100 }}
        }}
        {INPUT} tcp dport 9 drop
        tcp dport @closed drop
        }} }}""")
    found = walk()
    assert decided(found) == ("nft", "filter", "input", "tcp dport @closed drop")


@in_namespace
def test_a_verdict_map_that_jumps_leads_to_the_rule_behind_it() -> None:
    nft(f"""table inet filter {{
        chain guard {{
            ip saddr 10.0.0.0/8 accept
            counter drop
        }}
        map doors {{ type inet_service : verdict; elements = {{ 22 : accept, {PORT} : jump guard }}
        }}
        {INPUT} tcp dport vmap @doors
        iif lo accept
        }} }}""")
    found = walk()
    assert found.decider is not None
    assert (found.decider.chain, found.decider.handle) == ("guard", handle("counter packets"))
    assert [step.verdict for step in found.steps if step.packet == "syn"] == ["jump guard", "drop"]


@in_namespace
def test_the_map_itself_is_the_decider_when_it_holds_the_drop() -> None:
    nft(f"table inet filter {{ {INPUT} tcp dport vmap {{ 22 : accept, {PORT} : drop }}\n }} }}")
    found = walk()
    assert found.decider is not None
    assert found.decider.handle == handle("vmap")
    assert found.verdict == "drop"


@in_namespace
def test_concatenations_and_timeouts_are_carried() -> None:
    nft(f"""table inet filter {{
        set pairs {{ type ipv4_addr . inet_service; flags interval; elements = {{ 127.0.0.0/8 . 8000-8090 }}
        }}
        set banned {{ type ipv4_addr; flags dynamic,timeout; timeout 1h; elements = {{ 127.0.0.1 timeout 10m }}
        }}
        {INPUT} ip saddr @banned tcp dport 22 drop
        ip saddr . tcp dport @pairs drop
        }} }}""")
    found = walk()
    assert decided(found)[3] == "ip saddr . tcp dport @pairs drop"
    assert shadow(V4).uncarried == ()


@in_namespace
def test_an_anonymous_chain_is_carried() -> None:
    nft(f"""table inet filter {{ {INPUT}
        iif lo jump {{
            tcp dport {PORT} drop
        }}
        }} }}""")
    found = walk()
    assert found.verdict == "drop"
    assert found.decider is not None
    assert (found.decider.chain, found.decider.text) == ("input", f'iif "lo" jump {{ tcp dport {PORT} drop }}')


@in_namespace
def test_a_comment_that_looks_like_a_rule_misleads_nobody() -> None:
    nft(f"""table inet filter {{ {INPUT}
        tcp dport 22 drop comment "\x1b[31m drop # handle 9"
        tcp dport {PORT} drop comment "it's \x1b[2J # handle 2"
        }} }}""")
    found = walk()
    assert found.decider is not None
    assert found.decider.comment == "***"
    assert found.decider.handle == handle(f"tcp dport {PORT} drop")
    assert found.decider.text == f'tcp dport {PORT} drop comment "***"'


@in_namespace
def test_an_accept_in_another_table_does_not_hide_the_drop_behind_it() -> None:
    nft(f"""
        table inet early {{ chain c {{ type filter hook input priority -10; tcp dport {PORT} accept
        }} }}
        table inet late {{ {INPUT} tcp dport {PORT} drop
        }} }}""")
    found = walk()
    assert decided(found)[1] == "late"
    assert [(s.rule.table, s.verdict) for s in found.steps] == [("early", "accept"), ("late", "drop")]


@in_namespace
def test_a_drop_at_ingress_of_lo_is_found() -> None:
    nft(f"table netdev x {{ chain i {{ type filter hook ingress device lo priority 0; tcp dport {PORT} drop\n }} }}")
    found = walk()
    assert decided(found) == ("nft", "x", "i", f"tcp dport {PORT} drop")
    assert found.decider is not None
    assert (found.decider.family, found.hook) == ("netdev", "ingress")


@in_namespace
def test_a_dropped_answer_is_told_from_a_dropped_request() -> None:
    nft(f"table inet filter {{ {INPUT} tcp sport {PORT} drop\n }} }}")
    found = walk()
    assert (found.verdict, found.packet, found.hook) == ("drop", "reply", "input")
    assert decided(found)[3] == f"tcp sport {PORT} drop"


@in_namespace
def test_a_dropped_answer_is_told_for_iptables_legacy_too() -> None:
    sh(f"iptables-legacy -A OUTPUT -p tcp --sport {PORT} -j DROP")
    found = walk()
    assert (found.verdict, found.packet, found.hook) == ("drop", "reply", "output")
    assert decided(found)[3] == f"-p tcp -m tcp --sport {PORT} -j DROP"


@in_namespace
def test_a_table_of_both_kinds_is_carried_and_its_native_rule_named_by_handle() -> None:
    sh("iptables-nft -A INPUT -p tcp --dport 22 -m comment --comment ssh -j ACCEPT")
    sh(f"nft add rule ip filter INPUT tcp dport '{{ 1, {PORT} }}' counter drop")
    sh("iptables-nft -A INPUT -p tcp -m multiport --dports 8081,8082 -j DROP")
    found = walk()
    assert found.decider is not None
    assert found.decider.backend is Backend.NFT
    assert found.decider.handle == handle(f"{{ 1, {PORT} }}")
    assert f"tcp dport {{ 1, {PORT} }}" in found.decider.text
    assert shadow(V4).uncarried == ()


@in_namespace
def test_a_rule_of_iptables_in_a_table_of_both_kinds_keeps_its_own_words() -> None:
    sh("nft add table ip filter; iptables-nft -A INPUT -p tcp --dport 22 -j ACCEPT")
    sh("nft add rule ip filter INPUT tcp dport 9 counter drop")
    sh(f"iptables-nft -A INPUT -p tcp -m multiport --dports 8081,{PORT} -j DROP")
    found = walk()
    assert decided(found) == ("iptables-nft", "filter", "INPUT", f"-p tcp -m multiport --dports 8081,{PORT} -j DROP")


@in_namespace
def test_rules_for_an_interface_that_is_gone_do_not_spoil_the_copy() -> None:
    sh("ip link add e0 type veth peer name e1")
    nft(f"table inet filter {{ {INPUT} iif e0 accept\niifname nowhere accept\ntcp dport {PORT} drop\n }} }}")
    sh("ip link del e0")
    found = walk()
    assert decided(found)[3] == f"tcp dport {PORT} drop"
    assert shadow(V4).uncarried == ()


@in_namespace
def test_an_address_of_another_interface_is_dialled_as_on_the_machine() -> None:
    sh("ip link add e0 type veth peer name e1; ip addr add 10.1.2.3/24 dev e0; ip link set e0 up; ip link set e1 up")
    nft(f"""
        table netdev x {{ chain i {{ type filter hook ingress device e0 priority 0; drop
        }} }}
        table inet filter {{ {INPUT} ip daddr 10.1.2.3 iif lo tcp dport {PORT} reject\n }} }}""")
    found = walk(Endpoint("10.1.2.3", PORT))
    assert decided(found)[3].startswith(f'ip daddr 10.1.2.3 iif "lo" tcp dport {PORT} reject')
    assert walk(V4).verdict == "accept"


# ------ what a copy cannot know


@in_namespace
def test_two_chains_of_one_priority_that_both_stop_it_are_a_doubt() -> None:
    nft(f"""
        table inet one {{ {INPUT} tcp dport {PORT} drop\n }} }}
        table inet two {{ {INPUT} tcp dport {PORT} reject\n }} }}""")
    (found,) = shadow(V4).walks
    assert found.doubts


@in_namespace
def test_two_chains_of_one_priority_of_which_one_stops_it_are_no_doubt() -> None:
    nft(f"""
        table inet one {{ {INPUT} tcp dport {PORT} drop\n }} }}
        table inet two {{ {INPUT} tcp dport {PORT} accept\n }} }}""")
    found = walk()
    assert (decided(found)[1], found.doubts) == ("one", ())


@in_namespace
def test_legacy_and_nft_of_one_priority_that_both_stop_it_are_a_doubt() -> None:
    nft(f"table ip one {{ {INPUT} tcp dport {PORT} drop\n }} }}")
    sh(f"iptables-legacy -A INPUT -p tcp --dport {PORT} -j REJECT")
    (found,) = shadow(V4).walks
    assert found.doubts


@in_namespace
@pytest.mark.parametrize(
    "rule",
    [
        "limit rate over 1/day burst 1 packets drop",
        "ct count over 1 drop",
        "numgen random mod 2 0 drop",
        "quota over 1 mbytes drop",
    ],
)
def test_a_rule_whose_state_no_copy_has_is_told_when_it_could_match(rule: str) -> None:
    nft(f"table inet filter {{ {INPUT} tcp dport 8081 {rule}\ntcp dport {PORT} {rule}\ntcp dport {PORT} reject\n }} }}")
    (found,) = shadow(V4).walks
    assert [step.rule.text.split()[:3] for step in found.depends] == [["tcp", "dport", str(PORT)]]
    assert found.doubts


@in_namespace
@pytest.mark.parametrize(
    "match",
    ["-m limit --limit 1/hour", "-m connlimit --connlimit-above 1", "-m statistic --mode random --probability 0.5"],
)
@pytest.mark.parametrize("tool", ["iptables-legacy", "iptables-nft"])
def test_a_rule_of_iptables_whose_state_no_copy_has_is_told(tool: str, match: str) -> None:
    sh(f"{tool} -A INPUT -p tcp --dport 8081 {match} -j DROP")
    sh(f"{tool} -A INPUT -p tcp --dport {PORT} {match} -j DROP; {tool} -A INPUT -p tcp --dport {PORT} -j REJECT")
    (found,) = shadow(V4).walks
    assert [step.rule.line for step in found.depends] == [2]
    assert found.doubts


@in_namespace
def test_a_stateful_rule_for_another_port_is_no_doubt() -> None:
    nft(f"table inet filter {{ {INPUT} tcp dport 22 limit rate 1/day accept\ntcp dport {PORT} reject\n }} }}")
    found = walk()
    assert (found.depends, found.doubts, found.verdict) == ((), (), "reject")


@in_namespace
@pytest.mark.parametrize("tool", ["iptables-legacy", "iptables-nft"])
def test_a_queue_that_no_program_serves_stops_the_packet(tool: str) -> None:
    sh(f"{tool} -A OUTPUT -p tcp --dport {PORT} -j NFQUEUE --queue-num 7")
    found = walk()
    assert found.verdict == "drop"
    assert decided(found)[3] == f"-p tcp -m tcp --dport {PORT} -j NFQUEUE --queue-num 7"
    assert any(step.verdict.startswith(("queue", "nfqueue")) for step in found.steps)


@in_namespace
def test_a_redirect_is_told_with_where_the_packet_went() -> None:
    nft(f"table ip n {{ chain o {{ type nat hook output priority -100; tcp dport {PORT} redirect to :9999\n }} }}")
    found = walk()
    assert found.arrives == Endpoint("127.0.0.1", 9999)
    assert (found.outcome, found.decider) == (Outcome.REFUSED, None)


# ------ the rest


@in_namespace
def test_the_owner_of_a_listener_is_the_one_that_owner_rules_see() -> None:
    nft(f"table inet t {{ chain o {{ type filter hook output priority 0; tcp sport {PORT} meta skuid 1234 drop\n }} }}")
    assert walk().verdict == "accept"


@in_namespace
def test_nothing_is_left_of_the_copy() -> None:
    nft(f"table inet filter {{ {INPUT} tcp dport {PORT} drop\n }} }}")
    before = sh("nft list ruleset"), sh("ip -o addr"), sh("ls /run/netns 2>/dev/null || true")
    threads = threading.active_count()
    shadow(V4, V6)
    assert threading.active_count() == threads
    assert (sh("nft list ruleset"), sh("ip -o addr"), sh("ls /run/netns 2>/dev/null || true")) == before


def test_an_ordinary_user_is_told_what_sudo_would_add() -> None:
    code = (
        "import os\n"
        "from diagnose.probes.shadow import look, machine\n"
        "from diagnose.model.network import Endpoint\n"
        "os.setgid(65534); os.setuid(65534)\n"
        "fact = look([Endpoint('127.0.0.1', 8080)], 2.0)\n"
        "print(type(fact).__name__, fact.reason.value, fact.lift)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "Unknown needs root run it again with sudo", done.stderr


@in_namespace
def test_a_deadline_that_is_over_is_told_and_not_waited_for() -> None:
    nft(f"table inet filter {{ {INPUT} tcp dport {PORT} drop\n }} }}")
    fact = look([V4], 0.001)
    assert isinstance(fact, Unknown)
    assert fact.reason is Reason.DEADLINE


@in_namespace
def test_a_handshake_whose_last_packet_is_dropped_is_connected_for_the_client_alone() -> None:
    nft(f"table inet filter {{ {INPUT} tcp dport {PORT} tcp flags & (syn|ack) == ack drop\n }} }}")
    (found,) = shadow(V4).walks
    assert (found.outcome, found.packet, found.verdict) == (Outcome.NOT_ACCEPTED, "ack", "drop")
    assert real(V4) is Outcome.CONNECTED


@in_namespace
@pytest.mark.parametrize("tool", ["iptables-legacy", "ip6tables-legacy"])
def test_a_reject_whose_answer_is_dropped_as_well_is_still_the_decider(tool: str) -> None:
    sh(f"{tool} -A INPUT -p tcp --dport {PORT} -j REJECT; {tool} -A INPUT -p tcp --sport 1:65535 -j DROP")
    sh(f"{tool} -P INPUT DROP")
    found = walk(V6 if tool.startswith("ip6") else V4)
    assert found.decider is not None
    assert (found.decider.line, found.verdict, found.packet, found.outcome) == (1, "reject", "syn", Outcome.UNANSWERED)


@in_namespace
@pytest.mark.skipif(shutil.which("ipset", path="/usr/sbin:/sbin:/usr/bin") is None, reason="needs ipset")
@pytest.mark.parametrize("tool", ["iptables-legacy", "iptables-nft"])
def test_ip_sets_are_carried_with_the_index_by_which_rules_know_them(tool: str) -> None:
    sh("ipset create gone hash:ip; ipset create banned hash:net timeout 600; ipset add banned 127.0.0.0/8")
    sh("ipset create other bitmap:ip range 10.0.0.0/24; ipset add other 10.0.0.3; ipset destroy gone")
    sh(f"{tool} -A INPUT -m set --match-set other src -j DROP; {tool} -A INPUT -m set --match-set banned src -j DROP")
    found = walk()
    assert found.decider is not None
    assert (found.decider.line, found.decider.text) == (2, "-m set --match-set banned src -j DROP")
    assert found.doubts == ()


@in_namespace
def test_a_routing_rule_before_the_local_table_is_told_as_not_copied() -> None:
    nft(f"table inet filter {{ {INPUT} tcp dport {PORT} drop\n }} }}")
    sh("ip rule add pref 10 lookup local; ip rule del pref 0; ip rule add pref 5 fwmark 7 blackhole")
    (found,) = shadow(V4).walks
    assert any("routing rules" in doubt for doubt in found.doubts)


@in_namespace
def test_a_queue_that_a_program_serves_is_left_to_the_program() -> None:
    sh(f"iptables-nft -A OUTPUT -p tcp --dport {PORT} -j NFQUEUE --queue-num 7")
    # NFQNL_MSG_CONFIG with NFQNL_CFG_CMD_BIND for queue 7 (linux/netfilter/nfnetlink_queue.h)
    body = struct.pack(">BBH", 0, 0, 7) + struct.pack("=HH", 8, 1) + struct.pack(">BBH", 1, 0, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12) as program:
        program.bind((0, 0))
        program.send(struct.pack("=IHHII", 16 + len(body), 3 << 8 | 2, 5, 1, 0) + body)
        program.recv(4096)
        (found,) = shadow(V4).walks
    assert found.verdict == "unknown"
    assert any("queue 7" in doubt for doubt in found.doubts)


@in_namespace
def test_without_the_tools_the_rule_is_named_though_it_has_no_words(monkeypatch: pytest.MonkeyPatch) -> None:
    nft(f"table inet filter {{ {INPUT} tcp dport {PORT} drop\n }} }}")
    sh(f"ip6tables-legacy -A INPUT -p tcp --dport {PORT} -j DROP")
    monkeypatch.setattr(tool, "_SYSTEM", ())
    monkeypatch.setattr(tool, "_LOCAL", ())
    monkeypatch.setenv("PATH", "/nowhere")
    found = shadow(V4, V6)
    native, old = (one.decider for one in found.walks)
    assert native is not None
    assert old is not None
    assert (native.handle, native.text) == (2, "")
    assert (old.backend, old.line, old.text) == (Backend.IP6TABLES_LEGACY, 1, "")
    assert [why.split()[0] for why in found.wordless] == ["nft", "ip6tables-legacy-save"]


@in_namespace
def test_an_answer_is_sent_in_the_name_of_the_listener_s_owner() -> None:
    port = Endpoint("127.0.0.1", 8099)
    nft("table inet t { chain o { type filter hook output priority 0; tcp sport 8099 meta skuid 1234 drop\n } }")
    libc.filesystem_user(1234)
    try:
        with listeners(8099):
            libc.filesystem_user(0)
            found = walk(port)
    finally:
        libc.filesystem_user(0)
    assert (found.packet, found.verdict, found.doubts) == ("reply", "drop", ())


@in_namespace
def test_a_walk_that_nothing_stops_is_told_up_to_the_end_of_the_handshake() -> None:
    nft(f"table inet filter {{ {INPUT} tcp dport {PORT} accept\n }} }}")
    (found,) = shadow(V4).walks
    assert [(step.packet, step.verdict) for step in found.steps] == [
        ("syn", "accept"),
        ("syn-ack", "accept"),
        ("other", "accept"),
    ]


def in_user_namespace(before_the_look: str) -> str:
    """What a root of a user namespace, with a drop rule in a network namespace of its own, is told."""
    code = (
        "import ctypes, struct, subprocess\n"
        "from diagnose.probes.shadow import look\n"
        "from diagnose.model.network import Endpoint\n"
        "subprocess.run(['ip', 'link', 'set', 'lo', 'up'], check=True)\n"
        "rules = 'table ip t { chain c { type filter hook input priority 0; tcp dport 8080 drop; } ; }'\n"
        "subprocess.run(['nft', rules], check=True)\n"
        f"{before_the_look}\n"
        "fact = look([Endpoint('127.0.0.1', 8080)], 5.0)\n"
        "print(getattr(fact, 'detail', '') or fact.value.walks[0].decider.text)"
    )
    command = ["unshare", "-Urn", sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_root_of_a_user_namespace_has_a_shadow() -> None:
    assert in_user_namespace("") == "tcp dport 8080 drop"


def test_root_without_the_right_to_make_a_namespace_is_told_so() -> None:
    # capset(2): CAP_NET_ADMIN alone stays in force
    head, data = "struct.pack('=II', 0x20080522, 0)", "struct.pack('=6I', 4096, 4096, 0, 0, 0, 0)"
    without = f"assert ctypes.CDLL(None).capset({head}, {data}) == 0"
    told = "a network namespace for the copy of the rule sets cannot be made without CAP_SYS_ADMIN"
    assert in_user_namespace(without) == told


@in_namespace
def test_rules_that_change_all_the_time_are_a_doubt(monkeypatch: pytest.MonkeyPatch) -> None:
    nft(f"table inet filter {{ {INPUT} tcp dport {PORT} drop\n }} }}")
    look_again = looking._Expedition.fact

    def meddled(expedition: looking._Expedition) -> Fact[Shadow]:
        fact = look_again(expedition)
        sh("nft add rule inet filter input tcp dport 9 accept")
        return fact

    monkeypatch.setattr(looking._Expedition, "fact", meddled)
    (found,) = shadow(V4).walks
    assert found.doubts == ("the rule sets changed while they were looked at",)


@in_namespace
def test_rules_that_changed_once_are_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    sh(f"iptables-legacy -A INPUT -p tcp --dport {PORT} -j DROP")
    look_again = looking._Expedition.fact

    def meddled(expedition: looking._Expedition) -> Fact[Shadow]:
        fact = look_again(expedition)
        sh(f"iptables-legacy -R INPUT 1 -p tcp --dport {PORT} -j REJECT")
        return fact

    monkeypatch.setattr(looking._Expedition, "fact", meddled)
    (found,) = shadow(V4).walks
    assert (found.verdict, found.doubts) == ("reject", ())
