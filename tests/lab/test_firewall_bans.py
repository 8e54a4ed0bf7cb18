"""Bans of a fail2ban that really runs: lifted in its own words, for one address, and lasting."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator

import pytest

from tests.lab.machine import Machine, wait_for
from tests.lab.protocol import Scenario, likely, no_cause, proven, works
from tests.lab.test_firewall_owners import daemon, first

REJECTS, DROPS = "firewall/rule-rejects", "firewall/rule-drops"
JAIL = """[DEFAULT]
ignoreself = false
ignoreip =
banaction = {action}
backend = polling
[web]
enabled = true
port = {port}
filter =
failregex = ^bad <HOST>$
logpath = /run/jail/log
"""


@pytest.fixture
def fail2ban(machine: Machine, request: pytest.FixtureRequest) -> Iterator[Machine]:
    """A machine on which fail2ban guards the port (and the next) by the action of its own that the test names."""
    for needed in ("fail2ban-server", "fail2ban-client"):
        if shutil.which(needed) is None:
            pytest.skip(f"{needed} is not installed")
    if request.param.startswith("iptables-ipset") and shutil.which("ipset") is None:
        pytest.skip("ipset is not installed")
    machine.run("sh", "-c", "rm -rf /etc/fail2ban/jail.d/*; mkdir -p /run/fail2ban /run/jail; : >/run/jail/log")
    machine.write(
        "/etc/fail2ban/jail.local", JAIL.format(action=request.param, port=f"{machine.port},{machine.port + 1}")
    )
    machine.write("/etc/fail2ban/fail2ban.local", "[Definition]\ndbfile = None\nallowipv6 = yes\n")
    with contextlib.ExitStack() as stack:
        stack.enter_context(daemon(machine, "fail2ban-server", "-f", "--logtarget", "/run/jail/out", "start"))
        wait_for(lambda: "pong" in machine.run("fail2ban-client", "ping", check=False), "fail2ban", 15.0)
        wait_for(lambda: "web" in machine.run("fail2ban-client", "status", check=False), "its jail", 15.0)
        yield machine


def ban(machine: Machine, address: str) -> None:
    """As the jail's filter would; the rules come a moment later."""
    machine.run("fail2ban-client", "set", "web", "banip", address)
    wait_for(lambda: f"[web] Ban {address}" in machine.run("cat", "/run/jail/out"), "the ban")
    wait_for(lambda: not serves(machine, address), "its rule", 5.0)


def serves(machine: Machine, address: str) -> bool:
    return works().is_said_by(machine.netdiag("run", "--json", f"{bracketed(address)}:{machine.port}"))


def bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address


ACTIONS = ("nftables-multiport", "nftables-allports", "iptables-multiport", "iptables-ipset-proto6")


@pytest.mark.parametrize("fail2ban", ACTIONS, indirect=True)
def test_a_ban_of_this_machine_is_lifted_by_fail2ban_itself(fail2ban: Machine, scenario: Scenario) -> None:
    fail2ban.serve()
    fail2ban.run("fail2ban-client", "set", "web", "banip", "192.0.2.9")  # somebody else, who stays banned
    ban(fail2ban, "127.0.0.1")
    answer = scenario.says(proven(REJECTS), as_nobody=(likely(REJECTS), no_cause()))
    assert [command["argv"] for command in first(answer)["commands"]] == [
        ["fail2ban-client", "set", "web", "unbanip", "127.0.0.1"]
    ]
    assert first(answer)["rehearsal"] is None
    assert "not tried in the copy" in first(answer)["summary"]
    assert "fail2ban" in answer.cause["explanation"]  # type: ignore[index]
    assert "192.0.2.9" in fail2ban.run("fail2ban-client", "get", "web", "banip")


@pytest.mark.parametrize("fail2ban", ["nftables-multiport"], indirect=True)
def test_a_ban_on_ipv6_is_lifted_by_fail2ban_itself(fail2ban: Machine, scenario: Scenario) -> None:
    fail2ban.serve("accepts", "::1")
    ban(fail2ban, "::1")
    answer = scenario.says(proven(REJECTS), as_nobody=(likely(REJECTS), no_cause()), target=f"[::1]:{fail2ban.port}")
    assert first(answer)["commands"][0]["argv"][-1] == "::1"


@pytest.mark.parametrize("fail2ban", ["nftables-multiport"], indirect=True)
def test_lifting_a_ban_tells_which_other_ports_of_the_jail_it_opens(fail2ban: Machine, scenario: Scenario) -> None:
    fail2ban.serve()
    fail2ban.serve("accepts", "127.0.0.1", fail2ban.port + 1)
    ban(fail2ban, "127.0.0.1")
    answer = scenario.diagnose((f"127.0.0.1:{fail2ban.port}",), 0, proven(REJECTS))
    assert f"127.0.0.1:{fail2ban.port + 1}" in first(answer)["summary"]


@pytest.mark.parametrize("fail2ban", ["nftables-multiport"], indirect=True)
def test_a_ban_of_somebody_else_is_innocent(fail2ban: Machine, scenario: Scenario) -> None:
    fail2ban.run("fail2ban-client", "set", "web", "banip", "192.0.2.9")
    closed = proven("refused/nothing-listening")
    scenario.says(closed, as_nobody=closed, by_hand=fail2ban.serve)
