"""Rules that firewalls, engines and VPNs made: their own commands where these mend it, and their names where not."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from subprocess import DEVNULL, Popen
from typing import Any

import pytest

from tests.lab.machine import Answer, Machine, wait_for
from tests.lab.protocol import Scenario, likely, no_cause, proven, works

DROPS, REJECTS, POLICY = "firewall/rule-drops", "firewall/rule-rejects", "firewall/policy-drops"
SILENT = (likely("firewall/silent"), no_cause())
FORGET_LOOPBACK = "sed -i '/ -i lo -j ACCEPT/d' /etc/ufw/before.rules /etc/ufw/before6.rules"


def first(answer: Answer) -> dict[str, Any]:
    """The remedy that the scenario has executed as printed."""
    assert answer.cause
    remedy: dict[str, Any] = answer.cause["remedies"][0]
    return remedy


def mends_and_leaves_shut(machine: Machine, scenario: Scenario, answer: Answer) -> None:
    """The first remedy mends it, and the port beside it stays as it was."""
    beside = f"127.0.0.1:{machine.port + 1}"
    scenario.execute(first(answer)["commands"])
    assert works().is_said_by(machine.netdiag("run", "--json", f"127.0.0.1:{machine.port}"))
    assert machine.netdiag("run", "--json", beside).report["verdict"] == "unreachable"


# ------ ufw


def ufw(machine: Machine, *rules: str, forget_loopback: bool = True) -> None:
    """ufw switched on with these rules; without its accept for loopback, rules for ports concern loopback too."""
    if shutil.which("ufw") is None:
        pytest.skip("ufw is not installed")
    if forget_loopback:
        machine.run("sh", "-c", FORGET_LOOPBACK)
    machine.run("ufw", "--force", "enable")
    for rule in rules:
        machine.run("ufw", *rule.split())


def test_a_deny_of_ufw_is_mended_by_an_allow_of_ufw(machine: Machine, scenario: Scenario) -> None:
    machine.serve()
    ufw(machine, f"allow {machine.port + 2}/tcp", f"deny {machine.port}/tcp", "deny 9")
    answer = scenario.says(proven(DROPS), as_nobody=SILENT)
    allow = ["ufw", "prepend", "allow", "in", "on", "lo", "to", "127.0.0.1", "port", str(machine.port), "proto", "tcp"]
    assert [command["argv"] for command in first(answer)["commands"]] == [allow]
    assert first(answer)["survives_reboot"]
    assert first(answer)["rehearsal"]["mended"]
    assert "ufw" in answer.cause["explanation"]  # type: ignore[index]


def test_a_deny_of_ufw_on_ipv6_is_mended_by_an_allow_of_ufw(machine: Machine, scenario: Scenario) -> None:
    machine.serve("accepts", "::1")
    ufw(machine, f"reject {machine.port}/tcp")
    # everything but this port is dropped, so that no reset of the kernel is to be had for a comparison
    answer = scenario.says(proven(REJECTS), as_nobody=(likely(REJECTS), no_cause()), target=f"[::1]:{machine.port}")
    assert first(answer)["commands"][0]["argv"][:3] == ["ufw", "prepend", "allow"]


def test_ufw_on_iptables_legacy_is_mended_by_an_allow_of_ufw(machine: Machine, scenario: Scenario) -> None:
    machine.serve()
    for tool in ("iptables", "ip6tables"):
        for name in (tool, f"{tool}-save", f"{tool}-restore"):
            legacy = name.replace(tool, f"{tool}-legacy")
            machine.run("ln", "-sf", f"/usr/sbin/{legacy}", f"/etc/alternatives/{name}")
    ufw(machine, f"deny {machine.port}/tcp", "deny 9")
    answer = scenario.says(proven(DROPS), as_nobody=SILENT)
    assert first(answer)["commands"][0]["argv"][:3] == ["ufw", "prepend", "allow"]
    assert "iptables-legacy" in str(answer.cause)


def test_ufws_policy_without_its_accept_for_loopback_is_mended_for_one_port_only(
    machine: Machine, scenario: Scenario
) -> None:
    machine.serve()
    machine.serve("accepts", "127.0.0.1", machine.port + 1)
    ufw(machine)
    answer = scenario.diagnose((f"127.0.0.1:{machine.port}",), 0, proven(POLICY))
    assert first(answer)["commands"][0]["argv"][0] == "ufw"
    mends_and_leaves_shut(machine, scenario, answer)
    machine.run("ufw", "reload")  # it lasts
    assert works().is_said_by(machine.netdiag("run", "--json", f"127.0.0.1:{machine.port}"))


def test_a_drop_before_ufws_user_rules_is_not_answered_with_a_command_of_ufw_that_comes_too_late(
    machine: Machine, scenario: Scenario
) -> None:
    machine.serve()
    drop = f"-A ufw-before-input -p tcp --dport {machine.port} -j DROP"
    machine.run("sed", "-i", f"s/^-A ufw-before-input -i lo -j ACCEPT/{drop}\\n&/", "/etc/ufw/before.rules")
    ufw(machine, forget_loopback=False)
    answer = scenario.says(proven(DROPS), as_nobody=SILENT)
    assert first(answer)["commands"][0]["argv"][0] == "iptables-nft"
    assert first(answer)["rehearsal"]["mended"]
    assert "/etc/ufw" in first(answer)["summary"]


def test_a_deny_of_ufw_for_the_network_is_innocent_on_loopback(machine: Machine, scenario: Scenario) -> None:
    ufw(machine, f"deny {machine.port}/tcp", forget_loopback=False)
    closed = proven("refused/nothing-listening")
    scenario.says(closed, as_nobody=closed, by_hand=machine.serve)


def test_where_ufw_is_switched_off_its_leftover_rules_are_mended_without_it(
    machine: Machine, scenario: Scenario
) -> None:
    machine.serve()
    ufw(machine, f"deny {machine.port}/tcp")
    machine.run("sed", "-i", "s/ENABLED=yes/ENABLED=no/", "/etc/ufw/ufw.conf")
    answer = scenario.says(proven(DROPS), as_nobody=SILENT)
    assert first(answer)["commands"][0]["argv"][0] == "iptables-nft"
    assert "ufw" in first(answer)["summary"]


# ------ firewalld


@pytest.fixture
def firewalld(machine: Machine) -> Iterator[Machine]:
    """A machine with a bus of its own and firewalld on it, with its defaults."""
    with contextlib.ExitStack() as stack:
        for needed in ("firewalld", "firewall-cmd", "dbus-daemon"):
            if shutil.which(needed) is None:
                pytest.skip(f"{needed} is not installed")
        machine.run("mkdir", "/run/dbus")
        stack.enter_context(daemon(machine, "dbus-daemon", "--system", "--nofork", "--nopidfile"))
        wait_for(lambda: machine.run("sh", "-c", "ls /run/dbus/system_bus_socket", check=False), "the bus")
        stack.enter_context(daemon(machine, "firewalld", "--nofork", "--nopid"))
        wait_for(lambda: "running" in machine.run("firewall-cmd", "--state", check=False), "firewalld", 10.0)
        yield machine


@contextlib.contextmanager
def daemon(machine: Machine, *argv: str) -> Iterator[None]:
    with Popen(machine.inside(argv), stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL) as process:
        try:
            yield
        finally:
            process.kill()


def forget_loopback(machine: Machine) -> None:
    """The accept for loopback is taken out of firewalld's table, as a clumsy script would."""
    listed = machine.run("nft", "-a", "list", "chain", "inet", "firewalld", "filter_INPUT")
    handle = next(line.split()[-1] for line in listed.splitlines() if 'iifname "lo" accept' in line)
    machine.nft(f"delete rule inet firewalld filter_INPUT handle {handle}")


def test_firewalld_with_its_defaults_is_innocent_on_loopback(firewalld: Machine, scenario: Scenario) -> None:
    closed = proven("refused/nothing-listening")
    scenario.says(closed, as_nobody=closed, by_hand=firewalld.serve)


def test_the_panic_mode_of_firewalld_is_named_and_left(firewalld: Machine, scenario: Scenario) -> None:
    firewalld.serve()
    firewalld.run("firewall-cmd", "--panic-on")
    answer = scenario.says(proven(POLICY), as_nobody=SILENT)
    assert first(answer)["commands"][0]["argv"] == ["firewall-cmd", "--panic-off"]
    assert "panic mode" in first(answer)["summary"]


def test_a_zone_of_firewalld_is_opened_for_this_connection_now_and_for_good(
    firewalld: Machine, scenario: Scenario
) -> None:
    firewalld.serve()
    firewalld.serve("accepts", "127.0.0.1", firewalld.port + 1)
    forget_loopback(firewalld)
    answer = scenario.diagnose((f"127.0.0.1:{firewalld.port}",), 0, proven(REJECTS))
    commands = [command["argv"] for command in first(answer)["commands"]]
    assert [argv[:2] for argv in commands] == [
        ["firewall-cmd", "--zone=public"],
        ["firewall-cmd", "--permanent"],
    ]
    mends_and_leaves_shut(firewalld, scenario, answer)
    scenario.execute(first(answer)["undo"])
    assert proven(REJECTS).is_said_by(firewalld.netdiag("run", "--json", f"127.0.0.1:{firewalld.port}"))


def test_a_rule_given_to_firewalld_for_iptables_is_found_there(firewalld: Machine, scenario: Scenario) -> None:
    firewalld.serve()
    port = str(firewalld.port)
    direct = ("ipv4", "filter", "INPUT", "0", "-p", "tcp", "--dport", port, "-j", "DROP")
    firewalld.run("firewall-cmd", "--direct", "--add-rule", *direct)
    scenario.says(proven(DROPS), as_nobody=SILENT)


# ------ from another namespace: an owner accepts lo before any rule of its user


def client(machine: Machine) -> str:
    """A namespace named client, cabled to the machine; the address that it connects to."""
    machine.run("mkdir", "-p", "/run/netns")
    machine.run("ip", "netns", "add", "client")
    # an address that is tentative for a second would look like a change that netdiag made
    machine.run("sysctl", "-wq", "net.ipv6.conf.default.accept_dad=0")
    machine.run("ip", "link", "add", "v0", "type", "veth", "peer", "name", "v1", "netns", "client")
    machine.run("ip", "addr", "add", "10.1.0.1/24", "dev", "v0")
    machine.run("ip", "link", "set", "v0", "up")
    machine.run("ip", "-n", "client", "addr", "add", "10.1.0.2/24", "dev", "v1")
    machine.run("ip", "-n", "client", "link", "set", "v1", "up")
    machine.serve("accepts", "0.0.0.0")
    return f"10.1.0.1:{machine.port}"


def from_client(machine: Machine, target: str) -> Answer:
    return machine.netdiag("run", "--json", "--from", "netns:client", target)


def is_fixed_by_its_owner(machine: Machine, scenario: Scenario, target: str, program: str) -> Answer:
    """The first remedy is the owner's own, was rehearsed at the owner's place, fixes it, and its undo takes it back."""
    answer = from_client(machine, target)
    assert answer.cause is not None, answer
    assert (answer.cause["code"], answer.exit_code) == ("container/host-firewall", 1), answer
    assert {command["argv"][0] for command in first(answer)["commands"]} == {program}, answer
    # under a load that leaves no time to try it, the report says so
    untried = "It was not tried in a copy of the rules" in first(answer)["summary"]
    assert untried if first(answer)["rehearsal"] is None else first(answer)["rehearsal"]["mended"], answer
    assert first(answer)["survives_reboot"]
    assert "tables-nft-save" not in str(answer.cause["remedies"]), answer
    scenario.execute(first(answer)["commands"])
    assert from_client(machine, target).report["verdict"] == "reachable"
    scenario.execute(first(answer)["undo"])
    assert from_client(machine, target).report["verdict"] == "unreachable"
    return answer


@pytest.mark.parametrize("rule", ["", "deny {port}/tcp", "reject {port}/tcp", "deny from 10.1.0.0/24"])
def test_what_ufw_stops_from_another_namespace_is_allowed_in_ufw(
    machine: Machine, scenario: Scenario, rule: str
) -> None:
    target = client(machine)
    ufw(machine, "allow 22/tcp", *([rule.format(port=machine.port)] if rule else []), forget_loopback=False)
    answer = is_fixed_by_its_owner(machine, scenario, target, "ufw")
    assert first(answer)["commands"][0]["argv"][:6] == ["ufw", "prepend", "allow", "in", "on", "v0"]


@pytest.fixture(params=["nftables", "iptables"])
def backend(request: pytest.FixtureRequest, machine: Machine) -> str:
    """What firewalld writes its rules with, told to it before it starts."""
    if shutil.which("firewalld") is None:
        pytest.skip("firewalld is not installed")
    machine.run("sed", "-i", f"s/^FirewallBackend=.*/FirewallBackend={request.param}/", "/etc/firewalld/firewalld.conf")
    return str(request.param)


RICH_DROP = 'rule family="ipv4" source address="10.1.0.0/24" port port="{port}" protocol="tcp" drop'


@pytest.mark.parametrize("fault", ["zone", "rich rule", "zone drop"])
def test_what_firewalld_stops_from_another_namespace_is_accepted_in_its_zone(
    backend: str, firewalld: Machine, scenario: Scenario, fault: str
) -> None:
    target = client(firewalld)
    if fault == "rich rule":
        rule = RICH_DROP.format(port=firewalld.port)
        firewalld.run("firewall-cmd", "--zone=public", f"--add-rich-rule={rule}")
    if fault == "zone drop":
        firewalld.run("firewall-cmd", "--zone=drop", "--change-interface=v0")
    answer = is_fixed_by_its_owner(firewalld, scenario, target, "firewall-cmd")
    zone = "drop" if fault == "zone drop" else "public"
    assert f"--zone={zone}" in first(answer)["commands"][0]["argv"]
    assert "The rule is firewalld's" in answer.cause["explanation"]  # type: ignore[index]


# ------ who else makes rules


@pytest.mark.parametrize(
    ("chain", "name"),
    [
        ("DOCKER", "Docker"),
        ("NETAVARK_INPUT", "Podman"),
        ("LIBVIRT_INP", "libvirt"),
        ("KUBE-FIREWALL", "kube-proxy"),
        ("ts-input", "Tailscale"),
        ("piavpn.INPUT", "Private Internet Access"),
    ],
)
def test_the_maker_of_a_chain_is_named_beside_a_remedy_that_was_rehearsed(
    machine: Machine, scenario: Scenario, chain: str, name: str
) -> None:
    machine.serve()
    for decoy, port in (("other-chain", 9), (chain, machine.port)):
        machine.run("iptables-nft", "-N", decoy)
        machine.run("iptables-nft", "-A", decoy, "-p", "tcp", "--dport", str(port), "-j", "DROP")
        machine.run("iptables-nft", "-A", "INPUT", "-j", decoy)
    answer = scenario.says(proven(DROPS), as_nobody=SILENT)
    assert f"The rule is {name}'s" in first(answer)["summary"]
    assert first(answer)["rehearsal"]["mended"]


def test_the_kill_switch_of_a_vpn_is_named_by_its_table(machine: Machine, scenario: Scenario) -> None:
    machine.serve()
    machine.nft(
        "add table inet mullvad",
        "add chain inet mullvad output { type filter hook output priority 0 ; policy drop ; }",
        "add rule inet mullvad output udp dport 53 accept",
        "add rule inet mullvad output ct state established accept",
    )
    answer = scenario.says(proven(POLICY), as_nobody=SILENT)
    assert "Mullvad VPN" in answer.cause["explanation"]  # type: ignore[index]


def test_a_ban_in_a_set_of_fail2ban_is_named_by_its_jail(machine: Machine, scenario: Scenario) -> None:
    machine.serve()
    machine.nft(
        "add table inet f2b-table",
        "add set inet f2b-table addr-set-web { type ipv4_addr ; elements = { 127.0.0.1 } }",
        "add chain inet f2b-table f2b-chain { type filter hook input priority -1 ; }",
        f"add rule inet f2b-table f2b-chain tcp dport {machine.port} ip saddr @addr-set-web reject",
    )
    answer = scenario.says(proven(REJECTS), as_nobody=likely(REJECTS))
    commands = [command["argv"] for remedy in answer.cause["remedies"] for command in remedy["commands"]]  # type: ignore[index]
    assert ["fail2ban-client", "set", "web", "unbanip", "127.0.0.1"] in commands
