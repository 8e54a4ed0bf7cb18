"""Faults on the way back, by NAT, by queues and by counting rules, and rules in unusual places."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from subprocess import PIPE, Popen

import pytest

from tests.lab.machine import NOBODY, ROOT, Machine
from tests.lab.protocol import Scenario, likely, no_cause, proven, works

REPLY, REDIRECTS = "firewall/reply-dropped", "firewall/redirects"
QUEUE, LIMITS = "firewall/queue-without-reader", "firewall/limits-connections"
SILENT = (likely("firewall/silent"), no_cause())


def test_an_answer_that_a_rule_drops_on_its_way_back_is_told_from_a_dropped_request(
    machine: Machine, scenario: Scenario
) -> None:
    machine.serve()
    machine.chain("output", f"tcp dport {machine.port} accept", f"tcp sport {machine.port} drop")
    scenario.says(proven(REPLY), as_nobody=likely(REPLY))


def test_an_answer_dropped_by_iptables_legacy_is_told_from_a_dropped_request(
    machine: Machine, scenario: Scenario
) -> None:
    machine.serve()
    port = str(machine.port)
    machine.run("iptables-legacy", "-A", "OUTPUT", "-p", "tcp", "--dport", port, "-j", "ACCEPT")
    machine.run("iptables-legacy", "-A", "OUTPUT", "-p", "tcp", "--sport", port, "-j", "DROP")
    scenario.says(proven(REPLY), as_nobody=likely(REPLY))


def test_a_handshake_whose_last_packet_a_rule_drops_is_no_connection(machine: Machine, scenario: Scenario) -> None:
    machine.serve()
    machine.chain("input", f"tcp dport {machine.port} tcp flags & (syn|ack) == ack drop", "tcp dport 1 drop")
    scenario.says(proven("firewall/rule-drops"), as_nobody=likely("firewall/rule-drops"))


def test_of_several_rules_of_iptables_legacy_that_met_the_connection_the_one_that_dropped_it_is_named(
    machine: Machine, scenario: Scenario
) -> None:
    machine.serve()
    port = str(machine.port)
    for rule in ("--syn -j CLIENTS", f"--dport {port} -j REJECT --reject-with tcp-reset"):
        if "CLIENTS" in rule:
            machine.run("iptables-legacy", "-N", "CLIENTS")
        machine.run("iptables-legacy", "-A", "INPUT", "-p", "tcp", *rule.split())
    machine.run("iptables-legacy", "-A", "CLIENTS", "-p", "tcp", "--dport", "1", "-j", "DROP")
    machine.run("iptables-legacy", "-A", "OUTPUT", "-p", "tcp", "--tcp-flags", "RST", "RST", "-j", "DROP")
    scenario.says(proven("firewall/rule-rejects"), as_nobody=SILENT)


@pytest.mark.parametrize("tool", ["nft", "iptables-legacy"])
def test_a_rule_for_the_client_s_own_port_is_told_from_those_for_other_clients(
    machine: Machine, scenario: Scenario, tool: str
) -> None:
    machine.serve()
    machine.run("sysctl", "-qw", "net.ipv4.ip_local_port_range=20000 20199")
    slices = [f"{low}-{low + 1}" for low in range(20000, 20200, 2)]  # the next connect comes from another one
    if tool == "nft":
        machine.chain("input", *(f"tcp dport {machine.port} tcp sport {ports} counter drop" for ports in slices))
    else:
        match = f"-A INPUT -p tcp --dport {machine.port} --sport"
        rules = "".join(f"{match} {ports.replace('-', ':')} -j DROP\n" for ports in slices)
        machine.run("iptables-legacy-restore", stdin=f"*filter\n{rules}COMMIT\n")
    answer = scenario.diagnose((f"127.0.0.1:{machine.port}",), ROOT, proven("firewall/rule-drops"))
    assert answer.cause
    named = re.search(r"sport (\d+)", answer.cause["evidence"][0]["text"])
    assert named, answer.cause["evidence"]
    if tool == "nft":
        listing = machine.run("nft", "list", "chain", "ip", "guard", "input")
        counted = re.findall(r"sport (\d+)-\d+ counter packets [1-9]", listing)
    else:
        listing = machine.run("iptables-legacy", "-vnxL", "INPUT")
        counted = re.findall(r"^ +[1-9]\d* .* spts:(\d+):", listing, re.MULTILINE)
    assert named[1] in counted, (named[1], counted)


def test_a_masquerade_without_an_address_is_named(machine: Machine, scenario: Scenario) -> None:
    machine.serve()
    match = ("-p", "tcp", "--dport", str(machine.port))
    machine.run("iptables-legacy", "-t", "nat", "-A", "POSTROUTING", *match, "-j", "MASQUERADE")
    scenario.says(proven("firewall/rule-drops"), as_nobody=SILENT)


def test_a_redirect_to_a_dead_port_hides_a_healthy_server(machine: Machine, scenario: Scenario) -> None:
    machine.serve()
    nat = ("add table ip hijack", "add chain ip hijack out { type nat hook output priority -100 ; }")
    machine.nft(*nat, f"add rule ip hijack out tcp dport {machine.port} redirect to :{machine.port + 7}")
    answer = scenario.says(proven(REDIRECTS), as_nobody=no_cause())
    assert answer.cause
    removed, narrower, prose = answer.cause["remedies"]
    assert (removed["rehearsal"], narrower["rehearsal"]) == ({"mended": True, "opens": []},) * 2
    assert "changes its destination" in narrower["summary"]
    assert not prose["commands"]


def test_a_rule_that_sends_loopback_s_packets_where_they_may_not_go_hides_a_healthy_server(
    machine: Machine, scenario: Scenario
) -> None:
    machine.serve()
    # a cable that is still looking for doubles of its address would change while the test looks
    machine.run("sysctl", "-qw", "net.ipv6.conf.default.addr_gen_mode=1")
    machine.run("ip", "link", "add", "out", "type", "veth", "peer", "name", "far")
    machine.run("ip", "address", "add", "192.0.2.1/24", "dev", "out")
    for end in ("out", "far"):
        machine.run("ip", "link", "set", end, "up")
    nat = ("add table ip hijack", "add chain ip hijack out { type nat hook output priority -100 ; }")
    machine.nft(*nat, f"add rule ip hijack out tcp dport {machine.port} dnat to 192.0.2.7:80")
    scenario.says(proven(REDIRECTS), as_nobody=SILENT)


def test_a_stopped_server_behind_a_redirect_is_not_called_reachable(machine: Machine, scenario: Scenario) -> None:
    behind = machine.port + 7
    server = machine.serve("accepts", "127.0.0.1", behind)
    nat = ("add table ip hijack", "add chain ip hijack out { type nat hook output priority -100 ; }")
    machine.nft(*nat, f"add rule ip hijack out tcp dport {machine.port} redirect to :{behind}")
    scenario.diagnose((f"127.0.0.1:{machine.port}",), ROOT, works())
    server.stop()
    for uid in (NOBODY, ROOT):
        answer = scenario.diagnose((f"127.0.0.1:{machine.port}",), uid, proven("hung/not-accepting"))
        assert answer.cause
        assert answer.cause["remedies"][0]["commands"][0]["argv"][1:] == ["run", f"127.0.0.1:{behind}"]


def test_a_redirect_to_a_dead_port_where_nothing_listens_either_is_mended_at_the_far_end(
    machine: Machine, scenario: Scenario
) -> None:
    nat = ("add table ip hijack", "add chain ip hijack out { type nat hook output priority -100 ; }")
    machine.nft(*nat, f"add rule ip hijack out tcp dport {machine.port} redirect to :{machine.port + 7}")
    answer = scenario.diagnose((f"127.0.0.1:{machine.port}",), ROOT, likely(REDIRECTS))
    assert answer.cause
    assert answer.cause["remedies"][0]["commands"][0]["argv"] == ["netdiag", "run", f"127.0.0.1:{machine.port + 7}"]


def test_a_redirect_of_many_ports_is_passed_by_for_the_one_dialled(machine: Machine, scenario: Scenario) -> None:
    machine.serve()
    match = ("-p", "tcp", "-m", "multiport", "--dports", f"{machine.port},{machine.port + 1}")
    machine.run("iptables-nft", "-t", "nat", "-A", "OUTPUT", *match, "-j", "REDIRECT", "--to-ports", "9")
    answer = scenario.says(proven(REDIRECTS), as_nobody=no_cause())
    assert answer.cause
    first = answer.cause["remedies"][0]
    assert first["rehearsal"]["mended"]
    assert "-I" in first["commands"][0]["argv"]


def test_a_redirect_by_iptables_hides_a_healthy_server(machine: Machine, scenario: Scenario) -> None:
    machine.serve()
    match = ("-o", "lo", "-p", "tcp", "--dport", str(machine.port))
    machine.run("iptables-nft", "-t", "nat", "-A", "OUTPUT", *match, "-j", "REDIRECT", "--to-ports", "9")
    scenario.says(proven(REDIRECTS), as_nobody=no_cause())


def test_a_redirect_of_another_port_is_innocent(machine: Machine, scenario: Scenario) -> None:
    nat = ("add table ip hijack", "add chain ip hijack out { type nat hook output priority -100 ; }")
    machine.nft(*nat, f"add rule ip hijack out tcp dport {machine.port + 1} redirect to :9")
    closed = proven("refused/nothing-listening")
    scenario.says(closed, as_nobody=closed, by_hand=machine.serve)


@pytest.mark.parametrize("tool", ["iptables-nft", "iptables-legacy"])
def test_a_queue_that_nobody_reads_is_named(machine: Machine, scenario: Scenario, tool: str) -> None:
    machine.serve()
    match = ("-p", "tcp", "--dport", str(machine.port))
    machine.run(tool, "-A", "INPUT", *match, "-j", "NFQUEUE", "--queue-num", "77")

    def remove_the_leftover() -> None:
        machine.run(tool, "-D", "INPUT", *match, "-j", "NFQUEUE", "--queue-num", "77")

    scenario.says(proven(QUEUE), as_nobody=SILENT, by_hand=remove_the_leftover)


@contextlib.contextmanager
def clients(machine: Machine, count: int) -> Iterator[None]:
    """Connections that stay, so that a rule counts them."""
    script = (
        "import socket,sys\n"
        f"kept=[socket.create_connection(('127.0.0.1',{machine.port})) for _ in range({count})]\n"
        "print('up',flush=True)\nsys.stdin.read()"
    )
    argv = machine.inside(("python3", "-I", "-S", "-c", script))
    with Popen(argv, stdin=PIPE, stdout=PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        yield


def test_a_rule_that_counts_connections_is_named_when_its_number_is_reached(
    machine: Machine, scenario: Scenario
) -> None:
    machine.serve()
    match = ("-p", "tcp", "--syn", "--dport", str(machine.port))
    limit = ("-m", "connlimit", "--connlimit-above")
    machine.run("iptables-legacy", "-A", "INPUT", *match, *limit, "2", "-j", "DROP")

    def raise_the_limit() -> None:
        machine.run("iptables-legacy", "-R", "INPUT", "1", *match, *limit, "50", "-j", "DROP")

    with clients(machine, 2):
        scenario.says(likely(LIMITS), as_nobody=SILENT, by_hand=raise_the_limit)


def test_an_accept_that_does_not_help_is_named_beside_the_drop(machine: Machine, scenario: Scenario) -> None:
    machine.serve()
    machine.nft(
        "add table inet hope",
        "add chain inet hope input { type filter hook input priority -10 ; }",
        f"add rule inet hope input tcp dport {machine.port} accept",
    )
    machine.chain("input", f"tcp dport {machine.port} drop", family="inet")
    answer = scenario.says(proven("firewall/rule-drops"), as_nobody=SILENT)
    assert answer.cause
    assert "does not help" in answer.cause["explanation"]


WALK = "copy of the rules, traced"


def test_the_walk_tells_every_rewrite_and_every_packet_on_its_way_out_and_in_and_back(
    machine: Machine, scenario: Scenario
) -> None:
    machine.serve("accepts", "127.0.0.1", machine.port + 7)
    machine.nft(
        "add table ip early",
        "add chain ip early out { type route hook output priority -150 ; }",
        f'add rule ip early out tcp dport {machine.port} meta mark set 0x7 comment "to the tunnel"',
        "add table ip nat",
        "add chain ip nat out { type nat hook output priority -100 ; }",
        f"add rule ip nat out tcp dport {machine.port} redirect to :{machine.port + 7}",
        "add chain ip nat post { type nat hook postrouting priority 100 ; }",
        "add rule ip nat post meta mark 0x7 snat to 127.0.0.2",
        "add table inet fw",
        "add chain inet fw apps",
        "add rule inet fw apps tcp flags & (syn | ack) == (syn | ack) drop",
        "add chain inet fw input { type filter hook input priority 0 ; }",
        "add rule inet fw input iifname lo jump apps",
    )
    text = machine.netdiag("run", f"127.0.0.1:{machine.port}").text
    answer = scenario.says(proven(REPLY), as_nobody=(likely(REPLY), *SILENT))
    assert answer.cause
    walk = [(one["text"], one["detail"]) for one in answer.cause["evidence"] if one["source"] == WALK]
    told = [text.partition(": ")[2] for text, detail in walk if not detail]
    mark, redirect, source = told[:3]
    assert "meta mark set 0x00000007" in mark
    assert 'comment "***"' in mark  # what was written there is not shown
    assert f"redirect to :{machine.port + 7}" in redirect
    assert "snat to 127.0.0.2" in source
    places = [text.partition(": ")[0] for text, _ in walk]
    assert [one for one in places if one.startswith("syn ")] == sorted(
        (one for one in places if one.startswith("syn ")), key=("syn output", "syn postrouting", "syn input").index
    )
    assert "syn-ack input" in places
    assert "iptables" not in str(walk)
    assert "syn output: nft ip early out handle" in text
    assert not [line for line in text.splitlines() if len(line) > 80 and not is_command(line)]


def is_command(line: str) -> bool:
    """Commands are kept in one piece, to be copied."""
    return line.strip().removeprefix("undo: ").startswith("nft ")


def test_a_drop_at_the_ingress_of_the_loopback_interface_is_named(machine: Machine, scenario: Scenario) -> None:
    machine.serve()
    machine.nft(
        "add table netdev early",
        "add chain netdev early lo { type filter hook ingress device lo priority 0 ; }",
        f"add rule netdev early lo tcp dport {machine.port} drop",
    )
    scenario.says(proven("firewall/rule-drops"), as_nobody=SILENT)


def test_a_port_in_a_set_that_is_dropped_is_taken_out_of_the_set(machine: Machine, scenario: Scenario) -> None:
    machine.serve()
    machine.nft(
        "add table inet fw",
        "add set inet fw closed { type inet_service ; }",
        f"add element inet fw closed {{ {machine.port}, {machine.port + 1} }}",
        "add chain inet fw input { type filter hook input priority 0 ; }",
        "add rule inet fw input tcp dport @closed drop",
    )
    scenario.says(proven("firewall/rule-drops"), as_nobody=SILENT)


def test_a_ban_of_fail2ban_on_this_machine_is_lifted_in_its_words(machine: Machine, scenario: Scenario) -> None:
    machine.serve()
    machine.run("iptables-nft", "-N", "f2b-web")
    machine.run("iptables-nft", "-A", "f2b-web", "-s", "127.0.0.1/32", "-j", "REJECT")
    machine.run("iptables-nft", "-A", "f2b-web", "-j", "RETURN")
    machine.run("iptables-nft", "-I", "INPUT", "-p", "tcp", "-j", "f2b-web")
    rejects = "firewall/rule-rejects"
    answer = scenario.diagnose((f"127.0.0.1:{machine.port}",), 0, proven(rejects))
    assert answer.cause
    first, *others = answer.cause["remedies"]
    unban = ["fail2ban-client", "set", "web", "unbanip", "127.0.0.1"]
    assert any(other["commands"][0]["argv"] == unban for other in others)
    assert first["rehearsal"], "where fail2ban does not run, its own command cannot come first"
    scenario.execute(first["commands"])
    assert works().is_said_by(machine.netdiag("run", "--json", f"127.0.0.1:{machine.port}"))


def test_a_server_that_hangs_up_at_once_is_not_called_reachable(machine: Machine, scenario: Scenario) -> None:
    hang_up = machine.serve("hangs_up")

    def mend() -> None:
        hang_up.kill()
        machine.serve()

    closes = proven("hung/closes-at-once")
    scenario.says(closes, as_nobody=closes, by_hand=mend)


def test_a_listener_bound_to_an_interface_refuses_loopback(machine: Machine, scenario: Scenario) -> None:
    machine.run("ip", "link", "add", "lan9", "type", "veth", "peer", "name", "far9")
    machine.run("ip", "link", "set", "lan9", "up")
    server = machine.serve("accepts", "0.0.0.0", 0, "device=lan9")

    def unbind() -> None:
        server.kill()
        machine.serve("accepts", "0.0.0.0")

    device = proven("refused/other-device")
    scenario.says(device, as_nobody=device, by_hand=unbind)
