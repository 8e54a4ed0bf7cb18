"""Faults of the name and of the two IP families."""

from __future__ import annotations

import shutil

import pytest

from tests.lab.machine import NOBODY, ROOT, Answer, Machine
from tests.lab.protocol import Scenario, proven, works

BROKEN, ELSEWHERE = "resolution/hosts-file-broken", "resolution/localhost-elsewhere"


def warnings(answer: Answer) -> list[str]:
    """The codes of the warnings."""
    return [one["code"] for one in answer.report["findings"] if one["severity"] == "warning"]


def localhost(machine: Machine) -> str:
    """The target that people type."""
    return f"localhost:{machine.port}"


def test_localhost_is_ipv6_first_and_the_server_ipv4_only(machine: Machine, scenario: Scenario) -> None:
    machine.serve()
    machine.serve("accepts", "::1", machine.port + 1)
    answer = scenario.says(works(), as_nobody=works(), target=localhost(machine))
    assert warnings(answer) == ["resolution/prefers-other-family"]
    assert "reachable over IPv4 only" in machine.netdiag("run", localhost(machine)).text
    by_address = answer.report["findings"][0]["remedies"][0]
    scenario.dial(by_address)


def test_the_clients_that_fail_on_a_refused_first_address_are_those_that_are_named(machine: Machine) -> None:
    machine.serve()
    name = localhost(machine)
    clients = {
        "curl": ("curl", "--silent", "--max-time", "1", f"telnet://{name}"),
        "bash": ("bash", "-c", f"exec 3<>/dev/tcp/localhost/{machine.port}"),
        "python": ("/run/python3", "-I", "-c", CONNECT.format(machine.port)),
        "busybox": ("timeout", "1", "busybox", "wget", "-q", "-O", "-", f"http://{name}/"),
        "node": ("node", "-e", NODE.format(machine.port)),
        "node 17 to 19": ("node", "--no-network-family-autoselection", "-e", NODE.format(machine.port)),
    }
    refused = {client for client, argv in clients.items() if shutil.which(argv[0]) and is_refused(machine, argv)}
    fails = {"busybox", "node 17 to 19"} if shutil.which("node") else {"busybox"}
    assert refused == fails


CONNECT = "import socket; socket.create_connection(('localhost', {}))"
NODE = "require('net').connect({}, 'localhost').on('connect', function () {{ process.exit(0) }})"


def is_refused(machine: Machine, argv: tuple[str, ...]) -> bool:
    """Whether the client says so."""
    told = machine.run("sh", "-c", '"$@" 2>&1; true', "sh", *argv)
    return "refused" in told.lower()


def test_a_silent_first_address_is_still_a_fault(machine: Machine, scenario: Scenario) -> None:
    machine.serve()
    machine.chain("input", f"tcp dport {machine.port} drop", family="ip6")
    scenario.says(proven("firewall/rule-drops", "degraded"), target=localhost(machine), then=works())


def test_a_first_address_whose_rejection_clients_do_not_hear_is_a_fault(machine: Machine, scenario: Scenario) -> None:
    """netdiag reads the ICMPv6 error at once; an ordinary connect(2) waits for it and sends again."""
    machine.serve()
    machine.chain("output", f"tcp dport {machine.port} reject", family="ip6")
    scenario.says(proven("firewall/rule-rejects", "degraded"), target=localhost(machine), then=works())


def test_a_first_address_that_a_rule_refuses_at_once_is_a_warning(machine: Machine, scenario: Scenario) -> None:
    machine.serve("accepts", "::")
    machine.chain("output", f"tcp dport {machine.port} reject with tcp reset", family="ip6")
    answer = scenario.says(works(), target=localhost(machine))
    assert warnings(answer) == ["resolution/prefers-other-family", "firewall/rule-rejects"]


@pytest.mark.parametrize(
    "line",
    [
        "hosts:          files mdns4_minimal [NOTFOUND=return] dns",
        "hosts:\tfiles [!UNAVAIL=return] dns",
        "hosts: files dns [SUCCESS=continue] # as it was",
    ],
)
def test_the_hosts_line_of_nsswitch_is_quoted_as_it_stands_but_for_a_comment(machine: Machine, line: str) -> None:
    machine.write("/etc/nsswitch.conf", f"# hosts: old\npasswd: files\n{line}\n")
    for uid in (ROOT, NOBODY):
        answer = machine.netdiag("run", "--json", f"db.local:{machine.port}", uid=uid)
        assert answer.cause
        quoted = [one["text"] for one in answer.cause["evidence"] if one["source"] == "/etc/nsswitch.conf"]
        assert quoted == [line.replace("as it was", "***")]


def test_a_hosts_line_that_reads_the_file_behind_a_hash_is_not_said_to_skip_it(machine: Machine) -> None:
    machine.write("/etc/nsswitch.conf", "hosts: dns # files\n")
    answer = machine.netdiag("run", "--json", f"db.local:{machine.port}")
    assert answer.cause
    assert "never read" not in answer.cause["explanation"]


def test_localhost_works_on_its_first_address_whatever_the_second_does(machine: Machine, scenario: Scenario) -> None:
    machine.serve("accepts", "::1")
    scenario.says(works(), target=localhost(machine))


def test_localhost_ipv4_first_by_gai_conf_reaches_the_ipv4_server(machine: Machine, scenario: Scenario) -> None:
    machine.serve()
    machine.write("/etc/gai.conf", "precedence ::ffff:0:0/96 100\n")
    scenario.says(works(), target=localhost(machine))


def test_a_name_that_nobody_knows_is_not_found(machine: Machine, scenario: Scenario) -> None:
    machine.serve()
    machine.serve("names", "127.0.0.1", 53, "db.test=127.0.0.1")
    fault = proven("resolution/not-found")
    scenario.says(
        fault,
        as_nobody=fault,
        target=f"dbb.test:{machine.port}",
        by_hand=lambda: machine.write("/etc/hosts", "127.0.0.1 localhost dbb.test\n"),
    )
    scenario.says(works(), target=f"db.test:{machine.port}")


def test_a_name_under_localhost_that_only_browsers_know_is_not_found(machine: Machine, scenario: Scenario) -> None:
    machine.serve()
    machine.serve("names", "127.0.0.1", 53)
    fault = proven("resolution/not-found")
    name = f"app.localhost:{machine.port}"
    answer = machine.netdiag("run", "--json", name)
    assert fault.is_said_by(answer), str(answer)
    assert answer.cause
    assert "browser" in answer.cause["explanation"].lower()
    scenario.says(
        fault,
        as_nobody=fault,
        target=name,
        by_hand=lambda: machine.write("/etc/hosts", "127.0.0.1 localhost app.localhost\n"),
    )


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"# 127.0.0.1 localhost\n127.0.0.1 other\n",
        b"\xef\xbb\xbf127.0.0.1 localhost\n127.0.0.1 other\n",
        b"127.0.0.1 localhst\n",
    ],
    ids=["empty", "commented", "byte-order-mark", "misspelt"],
)
def test_a_hosts_file_that_does_not_map_localhost_is_broken(
    machine: Machine, scenario: Scenario, content: bytes
) -> None:
    machine.serve()
    machine.write("/etc/hosts", content)

    def put_the_line_back() -> None:
        machine.write("/etc/hosts", "127.0.0.1 localhost\n")

    scenario.says(
        proven(BROKEN),
        as_nobody=proven(BROKEN),
        target=localhost(machine),
        by_hand=put_the_line_back,
    )


def test_a_hosts_file_for_root_only_is_broken_for_everybody_else(machine: Machine, scenario: Scenario) -> None:
    machine.serve("accepts", "::")
    machine.write("/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n", mode=0o600)
    answer = scenario.says(works(), as_nobody=proven(BROKEN), target=localhost(machine))
    answer = machine.netdiag("run", "--json", localhost(machine), uid=65534)
    assert answer.cause
    scenario.execute(answer.cause["remedies"][0]["commands"])
    assert works().is_said_by(machine.netdiag("run", "--json", localhost(machine), uid=65534))


def test_carriage_returns_in_the_hosts_file_are_harmless(machine: Machine, scenario: Scenario) -> None:
    machine.serve()
    machine.write("/etc/hosts", "127.0.0.1 localhost\r\n")
    scenario.says(works(), target=localhost(machine))


def test_localhost_that_means_another_machine_is_elsewhere(machine: Machine, scenario: Scenario) -> None:
    machine.serve()
    machine.write("/etc/hosts", "10.98.76.54 localhost\n")
    fault = proven(ELSEWHERE)

    def put_the_line_back() -> None:
        machine.write("/etc/hosts", "127.0.0.1 localhost\n")

    scenario.says(fault, as_nobody=fault, target=localhost(machine), by_hand=put_the_line_back)


def test_ipv6_that_is_off_is_why_its_loopback_address_is_gone(machine: Machine, scenario: Scenario) -> None:
    machine.run("sysctl", "-w", "net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.lo.disable_ipv6=1")
    machine.serve("accepts", "::")
    fault = proven("resolution/ipv6-disabled")
    scenario.says(fault, as_nobody=fault, target=f"[::1]:{machine.port}")


def test_ipv6_that_is_off_is_information_where_localhost_works_over_ipv4(machine: Machine, scenario: Scenario) -> None:
    machine.run("sysctl", "-w", "net.ipv6.conf.all.disable_ipv6=1")
    machine.serve()
    scenario.says(works(), target=localhost(machine))


@pytest.mark.parametrize("literal", ["127.0.0.256", "127.0.0.1.1"])
def test_a_literal_that_is_no_address_is_asked_for_as_a_name(
    machine: Machine, scenario: Scenario, literal: str
) -> None:
    machine.serve()
    machine.serve("names", "127.0.0.1", 53)
    fault = proven("resolution/odd-address")
    scenario.says(
        fault,
        as_nobody=fault,
        target=f"{literal}:{machine.port}",
        by_hand=lambda: machine.write("/etc/hosts", f"127.0.0.1 {literal}\n"),
    )


@pytest.mark.parametrize("literal", ["127.1", "0177.0.0.1", "2130706433"])
def test_an_odd_literal_that_means_loopback_works(machine: Machine, scenario: Scenario, literal: str) -> None:
    machine.serve()
    scenario.says(works(), target=f"{literal}:{machine.port}")


def test_an_odd_literal_that_means_another_address_is_told(machine: Machine, scenario: Scenario) -> None:
    machine.serve("accepts", "127.0.0.10")
    fault = proven("resolution/odd-address")
    scenario.says(fault, as_nobody=fault, target=f"127.0.0.010:{machine.port}")
