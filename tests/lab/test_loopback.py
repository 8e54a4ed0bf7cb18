"""Faults of the loopback interface itself."""

from __future__ import annotations

from tests.lab.machine import Machine
from tests.lab.protocol import Scenario, proven


def test_loopback_that_is_down_blocks_a_healthy_server(machine: Machine, scenario: Scenario) -> None:
    machine.serve()
    machine.run("ip", "link", "set", "lo", "down")
    fault = proven("loopback/interface-down")
    scenario.says(fault, as_nobody=fault)


def test_loopback_that_is_down_blocks_ipv6(machine: Machine, scenario: Scenario) -> None:
    machine.serve("accepts", "::1")
    machine.run("ip", "link", "set", "lo", "down")
    fault = proven("loopback/interface-down")
    scenario.says(fault, as_nobody=fault, target=f"[::1]:{machine.port}")


def test_loopback_that_is_down_is_seen_by_looking_only(machine: Machine) -> None:
    machine.serve()
    machine.run("ip", "link", "set", "lo", "down")
    answer = machine.netdiag("run", "--json", "--passive", f"127.0.0.1:{machine.port}")
    assert proven("loopback/interface-down").is_said_by(answer), str(answer)


def test_loopback_without_its_ipv4_address_is_named(machine: Machine, scenario: Scenario) -> None:
    machine.serve("accepts", "0.0.0.0")
    machine.run("ip", "address", "del", "127.0.0.1/8", "dev", "lo")
    fault = proven("loopback/address-missing")
    scenario.says(fault, as_nobody=fault)


def test_loopback_without_its_ipv6_address_is_named(machine: Machine, scenario: Scenario) -> None:
    machine.serve("accepts", "::")
    machine.run("ip", "address", "del", "::1/128", "dev", "lo")
    fault = proven("loopback/address-missing")
    scenario.says(fault, as_nobody=fault, target=f"[::1]:{machine.port}")


def test_a_deleted_local_route_is_named(machine: Machine, scenario: Scenario) -> None:
    machine.serve()
    machine.run("ip", "route", "del", "local", "127.0.0.0/8", "dev", "lo", "table", "local")
    machine.run("ip", "route", "del", "local", "127.0.0.1", "dev", "lo", "table", "local")
    fault = proven("loopback/route-missing")
    scenario.says(fault, as_nobody=fault)


def test_a_deleted_local_rule_is_named(machine: Machine, scenario: Scenario) -> None:
    machine.serve()
    machine.run("ip", "rule", "del", "pref", "0")
    fault = proven("loopback/route-missing")
    scenario.says(fault, as_nobody=fault)


def test_a_rule_that_prohibits_loopback_is_named(machine: Machine, scenario: Scenario) -> None:
    machine.serve()
    machine.run("ip", "rule", "add", "pref", "50", "lookup", "local")
    machine.run("ip", "rule", "add", "pref", "20", "to", "127.0.0.0/8", "prohibit")
    machine.run("ip", "rule", "del", "pref", "0")
    fault = proven("loopback/route-missing")
    scenario.says(fault, as_nobody=fault)


def test_loopback_routed_into_a_tunnel_is_named(machine: Machine, scenario: Scenario) -> None:
    machine.serve()
    machine.run("sysctl", "-w", "net.ipv6.conf.default.disable_ipv6=1")
    machine.run("ip", "link", "add", "tun9", "type", "veth", "peer", "name", "tun9-far")
    machine.run("ip", "address", "add", "10.9.0.1/24", "dev", "tun9")
    machine.run("ip", "link", "set", "tun9", "up")
    machine.run("ip", "link", "set", "tun9-far", "up")
    machine.run("ip", "route", "add", "default", "dev", "tun9", "table", "51")
    machine.run("ip", "rule", "add", "pref", "50", "lookup", "51")
    machine.run("ip", "rule", "add", "pref", "60", "lookup", "local")
    machine.run("ip", "rule", "del", "pref", "0")
    fault = proven("loopback/routed-elsewhere")
    scenario.says(fault, as_nobody=fault)
