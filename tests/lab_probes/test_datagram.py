"""Which rules forbid a datagram, and which leave no trace of it."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator

import pytest

from diagnose.model.attempt import DatagramWitness
from diagnose.model.fact import Fact, Known, Reason, Unknown
from diagnose.model.network import Endpoint
from diagnose.probes.datagram import leaves
from tests.lab_probes.own_network import as_nobody, own_network

pytestmark = [pytest.mark.lab]

PORT = 8080
ADDRESSES = pytest.mark.parametrize("address", ["127.0.0.1", "::1"])


@pytest.fixture(autouse=True)
def _network() -> Iterator[None]:
    with own_network():
        yield


def told(address: str = "127.0.0.1") -> Fact[DatagramWitness]:
    return as_nobody(lambda: leaves(Endpoint(address, PORT)))


def chain(hook: str, rule: str, policy: str = "accept", where: str = "") -> None:
    """A base chain of nft with one rule."""
    table = "netdev" if where else "inet"
    head = f"type filter hook {hook} {where} priority 0 ; policy {policy} ;"
    script = f"add table {table} t\nadd chain {table} t c {{ {head} }}\nadd rule {table} t c {rule}\n"
    subprocess.run(["nft", "-f", "-"], input=script.encode(), check=True)


@ADDRESSES
def test_without_rules_it_leaves(address: str) -> None:
    assert told(address) == Known(DatagramWitness(False))


@ADDRESSES
@pytest.mark.parametrize("hook", ["output", "postrouting"])
def test_a_rule_on_the_way_out_forbids_it(address: str, hook: str) -> None:
    chain(hook, f"meta l4proto {{ tcp, udp }} th dport {PORT} drop")
    assert told(address) == Known(DatagramWitness(True))


@ADDRESSES
def test_a_policy_forbids_one_to_any_port(address: str) -> None:
    chain("output", "tcp dport 22 accept", "drop")
    assert told(address) == Known(DatagramWitness(True, elsewhere=True))


@pytest.mark.parametrize("table", ["raw", "mangle", "filter", "security"])
@pytest.mark.parametrize("tool", ["iptables-nft", "iptables-legacy", "ip6tables-nft", "ip6tables-legacy"])
def test_a_rule_of_iptables_for_what_goes_out_forbids_it(tool: str, table: str) -> None:
    match = ("-p", "udp", "--dport", str(PORT))
    subprocess.run([tool, "-t", table, "-A", "OUTPUT", *match, "-j", "DROP"], check=True)
    assert told("::1" if "6" in tool else "127.0.0.1") == Known(DatagramWitness(True))


@pytest.mark.parametrize(
    ("hook", "rule", "where"),
    [
        ("output", f"tcp dport {PORT} drop", ""),
        ("prerouting", f"udp dport {PORT} drop", ""),
        ("input", f"udp dport {PORT} drop", ""),
        ("ingress", f"udp dport {PORT} drop", "device lo"),
        ("egress", f"udp dport {PORT} drop", "device lo"),
    ],
)
def test_what_stops_it_later_or_stops_tcp_alone_is_not_told(hook: str, rule: str, where: str) -> None:
    chain(hook, rule, where=where)
    assert told() == Known(DatagramWitness(False))


@pytest.mark.parametrize("bound", ["127.0.0.1", "0.0.0.0", "::"])
def test_a_port_that_a_udp_socket_has_is_left_alone(bound: str) -> None:
    with socket.socket(socket.AF_INET6 if ":" in bound else socket.AF_INET, socket.SOCK_DGRAM) as program:
        program.bind((bound, PORT))
        program.setblocking(False)
        said = told()
        assert isinstance(said, Unknown)
        assert said.reason is Reason.NOT_NEEDED
        with pytest.raises(BlockingIOError):
            program.recvfrom(1)
