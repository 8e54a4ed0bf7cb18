"""The remedies that the shadow rehearsed, executed as printed where the rules are real."""

from __future__ import annotations

import re
import socket
import subprocess
from contextlib import ExitStack

import pytest

from diagnose.analysis.mending import tried_remedies
from diagnose.analysis.rehearsal import derived
from diagnose.model.attempt import Outcome
from diagnose.model.fact import Known
from diagnose.model.finding import Command
from diagnose.model.firewall import Rehearsed, Walk
from diagnose.model.network import Endpoint
from tests.lab_probes.test_shadow import (
    INPUT,
    PORT,
    V4,
    V6,
    in_namespace,
    listeners,
    nft,
    pytestmark,
    real,
    sh,
    shadow,
)

__all__ = ["pytestmark"]


def rehearsed(walk: Walk) -> tuple[Rehearsed, ...]:
    assert isinstance(walk.rehearsals, Known), walk
    return walk.rehearsals.value


def execute(commands: tuple[Command, ...]) -> None:
    """As printed: no shell, no placeholders."""
    for command in commands:
        done = subprocess.run(command.argv, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (command, done.stderr)


def rules() -> str:
    """Every rule of this namespace, without counters, and without comments: an undo does not show them."""
    legacy = "; ".join(f"{tool}-save | grep -v '^[#:]' || true" for tool in ("iptables-legacy", "ip6tables-legacy"))
    text = _COMMENT.sub("", sh(f"nft -s list ruleset; {legacy}"))
    return re.sub(" +", " ", text)


_COMMENT = re.compile(r""" (?:-m comment --comment|comment) (?:"(?:[^"\\]|\\.)*"|\S+)""")


FAULTS = {
    "an nft drop of this port": (V4, [f"add rule inet t i tcp dport {PORT} drop"], []),
    "an nft reject between other rules": (
        V6,
        [
            "add rule inet t i tcp dport 22 accept",
            f"add rule inet t i tcp dport {PORT} counter reject with tcp reset",
            "add rule inet t i tcp dport 23 drop",
        ],
        [],
    ),
    "an nft drop of many ports": (V4, ["add rule inet t i tcp dport { 22, 8000-9000 } drop"], []),
    "a named set that holds the port": (
        V4,
        [
            "add set inet t closed { type inet_service ; }",
            f"add element inet t closed {{ 22, {PORT} }}",
            "add rule inet t i tcp dport @closed drop",
        ],
        [],
    ),
    "a policy that accepts no loopback": (
        V4,
        ["add chain inet t i { policy drop ; }", "add rule inet t i tcp dport 22 accept"],
        [],
    ),
    "a dropped answer": (V4, [f"add rule inet t o tcp sport {PORT} drop"], []),
    "a drop at ingress": (
        V4,
        [
            "add table netdev x",
            "add chain netdev x i { type filter hook ingress device lo priority 0 ; }",
            f"add rule netdev x i tcp dport {PORT} drop",
        ],
        [],
    ),
    "two tables in a row": (
        V4,
        [
            f"add rule inet t i tcp dport {PORT} drop",
            "add table ip u",
            "add chain ip u o { type filter hook output priority 5 ; }",
            f"add rule ip u o tcp dport {PORT} reject",
        ],
        [],
    ),
    "iptables-nft": (
        V4,
        [],
        [
            "iptables-nft -A INPUT -p tcp --dport 22 -j ACCEPT",
            f"iptables-nft -A INPUT -p tcp --dport {PORT} -m comment --comment 'go away' -j REJECT",
            "iptables-nft -A INPUT -p tcp --dport 23 -j DROP",
        ],
    ),
    "ip6tables-nft with many ports": (
        V6,
        [],
        [f"ip6tables-nft -A OUTPUT -p tcp -m multiport --dports 22,{PORT} -j DROP"],
    ),
    "iptables-legacy over both ways": (
        V4,
        [],
        [f"iptables-legacy -A {chain} -p tcp --dport {PORT} -j DROP" for chain in ("INPUT", "OUTPUT")],
    ),
    "iptables-legacy raw": (V4, [], [f"iptables-legacy -t raw -A PREROUTING -p tcp --dport {PORT} -j DROP"]),
    "a comment with quotes and a backslash": (
        V4,
        [],
        [
            f"iptables-legacy -A INPUT -p tcp --dport {PORT} -m comment "
            """--comment 'it'"'"'s a "quoted" \\ one' -j DROP"""
        ],
    ),
    "ip6tables-legacy": (V6, [], [f"ip6tables-legacy -A INPUT -p tcp --dport {PORT} -j REJECT"]),
    "a policy of iptables-legacy": (
        V4,
        [],
        ["iptables-legacy -P INPUT DROP", "iptables-legacy -A INPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT"],
    ),
    "legacy beside nft": (
        V4,
        [f"add rule inet t i tcp dport {PORT} drop"],
        [
            f"iptables-legacy -A INPUT -p tcp --dport {PORT} -j DROP",
            f"iptables-nft -A INPUT -p tcp --dport {PORT} -j DROP",
        ],
    ),
    "a table of both kinds": (
        V4,
        [],
        [
            "iptables-nft -A INPUT -p tcp -m multiport --dports 22,23 -j ACCEPT",
            f"nft add rule ip filter INPUT tcp dport {{ 24, {PORT} }} counter drop",
        ],
    ),
}


def inject(fault: str) -> Endpoint:
    endpoint, native, commands = FAULTS[fault]
    if native:
        nft("table inet t { chain i { type filter hook input priority 0; } }")
        nft("table inet t { chain o { type filter hook output priority 0; } }")
        for line in native:
            nft(line)
    for command in commands:
        sh(command)
    return endpoint


@in_namespace
@pytest.mark.parametrize("fault", FAULTS)
def test_every_remedy_that_mended_the_copy_mends_the_machine_and_its_undo_restores_it(fault: str) -> None:
    endpoint = inject(fault)
    broken = real(endpoint)
    assert broken is not Outcome.CONNECTED
    before = rules()
    number = 0
    while True:
        # looked at anew each time: a rule that an undo brought back has another handle
        (walk,) = shadow(endpoint).walks
        assert [one.remedy for one in derived(walk)] == [one.remedy for one in rehearsed(walk)], (
            "each follows from facts"
        )
        offered = [one for one in rehearsed(walk) if one.mended]
        assert offered
        if number == len(offered):
            return
        one = offered[number]
        number += 1
        assert one.remedy is not None
        assert one.remedy.commands == one.commands
        execute(one.commands)
        assert real(endpoint) is Outcome.CONNECTED, one
        if not one.remedy.undo:
            return  # what no command undoes ends the test of this fault
        execute(one.remedy.undo)
        assert real(endpoint) is broken
        assert rules() == before, one


@in_namespace
def test_the_first_remedy_of_a_rule_for_this_port_alone_can_be_undone() -> None:
    nft(f"table inet filter {{ {INPUT} tcp dport {PORT} drop\n }} }}")
    (walk,) = shadow(V4).walks
    first = rehearsed(walk)[0]
    assert [command.argv for command in first.commands] == [
        ("nft", "delete", "rule", "inet", "filter", "input", "handle", "2")
    ]
    assert first.remedy is not None
    assert [command.argv for command in first.remedy.undo] == [
        ("nft", "add", "rule", "inet", "filter", "input", "tcp", "dport", str(PORT), "drop")
    ]


@in_namespace
def test_what_else_a_remedy_opens_is_told() -> None:
    nft(f"table inet filter {{ {INPUT} tcp dport {{ 9001, {PORT} }} drop\n }} }}")
    with listeners(9001):
        (walk,) = shadow(V4).walks
    narrow, wide = rehearsed(walk)
    assert narrow.opens == ()
    assert "127.0.0.1:9001 from this machine" in wide.opens


@in_namespace
def test_a_table_that_a_program_owns_gets_no_command_that_would_be_refused() -> None:
    owner = subprocess.Popen(["nft", "-i"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert owner.stdin is not None
    assert owner.stdout is not None
    try:
        owner.stdin.write(
            "add table inet own { flags owner; }\nadd chain inet own i { type filter hook input priority 0; }\n"
            f"add rule inet own i tcp dport {PORT} drop\nlist table inet own\n"
        )
        owner.stdin.flush()
        while "tcp dport" not in owner.stdout.readline():
            pass
        (walk,) = shadow(V4).walks
        assert walk.decider is not None
        assert walk.decider.table == "own"
        assert [one for one in rehearsed(walk) if one.mended] == []
    finally:
        owner.kill()
        owner.communicate()


@in_namespace
@pytest.mark.parametrize("endpoint", [V4, V6], ids=str)
def test_a_remedy_that_would_open_the_port_to_the_network_says_so(endpoint: Endpoint) -> None:
    sh("ip link add eth0 type veth peer name far; ip link set eth0 up; ip link set far up")
    sh("ip addr add 192.0.2.5/24 dev eth0; ip addr add 2001:db8:1::5/64 dev eth0 nodad")
    nft(f"table inet filter {{ {INPUT} tcp dport {{ 9001, {PORT} }} drop\n }} }}")
    with listeners(9001):
        (walk,) = shadow(endpoint).walks
    accept, removal = rehearsed(walk)
    assert accept.opens == ()
    assert f"192.0.2.5:{PORT} from the network" in removal.opens
    assert "192.0.2.5:9001 from the network" in removal.opens
    assert f"[2001:db8:1::5]:{PORT} from the network" in removal.opens


@in_namespace
def test_a_port_that_the_network_reaches_already_is_not_told_as_opened() -> None:
    sh("ip link add eth0 type veth peer name far; ip link set eth0 up; ip link set far up")
    sh("ip addr add 192.0.2.5/24 dev eth0")
    nft(f"table inet filter {{ {INPUT} iif lo tcp dport {PORT} drop\n }} }}")
    (walk,) = shadow(V4).walks
    assert [one.opens for one in rehearsed(walk)] == [(f"[::1]:{PORT} from this machine",), ()]


@in_namespace
def test_a_port_closed_to_the_network_by_iptables_legacy_is_told_as_opened_too() -> None:
    sh("ip link add eth0 type veth peer name far; ip link set eth0 up; ip link set far up")
    sh("ip addr add 192.0.2.5/24 dev eth0")
    sh(f"iptables-legacy -A INPUT -p tcp --dport {PORT} -j DROP")
    (walk,) = shadow(V4).walks
    opened = {one.commands[0].argv[3]: one.opens for one in rehearsed(walk)}
    assert opened == {"-D": (f"192.0.2.5:{PORT} from the network",), "-I": ()}


@in_namespace
def test_the_same_port_on_another_address_is_told_when_a_remedy_opens_it() -> None:
    nft(f"table inet filter {{ {INPUT} tcp dport {PORT} drop\n }} }}")
    (walk,) = shadow(V4).walks
    opened = {one.commands[0].argv[1]: one.opens for one in rehearsed(walk)}
    assert opened["insert"] == ()
    assert opened["delete"] == (f"[::1]:{PORT} from this machine",)


@in_namespace
def test_a_listener_on_the_machine_s_own_address_is_dialled_from_the_machine_as_well() -> None:
    sh("ip link add eth0 type veth peer name far; ip link set eth0 up; ip link set far up")
    sh("ip addr add 192.0.2.5/24 dev eth0")
    nft(f"table inet filter {{ {INPUT} tcp dport {{ 9001, {PORT} }} iif lo drop\n }} }}")
    with socket.create_server(("192.0.2.5", 9001)):
        (walk,) = shadow(V4).walks
    wide = rehearsed(walk)[-1]
    assert "192.0.2.5:9001 from this machine" in wide.opens
    assert not any("network" in one for one in wide.opens)


@in_namespace
def test_more_listeners_than_can_be_tried_are_told_as_not_tried() -> None:
    nft(f"table inet filter {{ {INPUT} tcp dport {PORT} drop\n }} }}")
    with ExitStack() as stack:
        for port in range(9100, 9200):
            stack.enter_context(socket.create_server(("127.0.0.1", port)))
        (walk,) = shadow(V4).walks
    assert all(one.opens[-1].endswith("more listeners were not tried from this machine") for one in rehearsed(walk))


@in_namespace
def test_the_remedy_with_the_smallest_opening_comes_first_in_the_report() -> None:
    sh("ip link add eth0 type veth peer name far; ip link set eth0 up; ip link set far up")
    sh("ip addr add 192.0.2.5/24 dev eth0")
    nft(f"table inet filter {{ {INPUT} tcp dport {PORT} drop\n }} }}")
    (walk,) = shadow(V4).walks
    assert [one.commands[0].argv[1] for one in rehearsed(walk)] == ["delete", "insert"]
    ordered = tried_remedies(walk)
    assert [one.commands[0].argv[1] for one in ordered] == ["insert", "delete"]
    assert [len(one.rehearsal.opens) if one.rehearsal else None for one in ordered] == [0, 2]
