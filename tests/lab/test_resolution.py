"""Faults of the name and of the two IP families."""

from __future__ import annotations

import pytest

from tests.lab.machine import Machine
from tests.lab.protocol import Scenario, proven, works

BROKEN, ELSEWHERE = "resolution/hosts-file-broken", "resolution/localhost-elsewhere"


def localhost(machine: Machine) -> str:
    """The target that people type."""
    return f"localhost:{machine.port}"


def test_localhost_is_ipv6_first_and_the_server_ipv4_only(machine: Machine, scenario: Scenario) -> None:
    machine.serve()
    machine.serve("accepts", "::1", machine.port + 1)
    fault = proven("resolution/prefers-other-family", "degraded")
    scenario.says(fault, as_nobody=fault, target=localhost(machine))


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
