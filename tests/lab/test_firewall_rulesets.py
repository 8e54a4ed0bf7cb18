"""Rule sets that libvirt, podman and wg-quick really made (fixtures/raw/owners): innocent until somebody meddles."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lab.machine import Machine
from tests.lab.protocol import Scenario, likely, no_cause, proven
from tests.lab.test_firewall_owners import first

RAW = Path(__file__).parents[2] / "fixtures" / "raw" / "owners"
MADE = sorted(path.name for path in RAW.glob("*.ip*tables"))
DROPS, REJECTS = "firewall/rule-drops", "firewall/rule-rejects"
SILENT = (likely("firewall/silent"), no_cause())


def load(machine: Machine, name: str, tool: str = "iptables-nft") -> None:
    tool = tool.replace("iptables", name.rpartition(".")[2])
    machine.run(f"{tool}-restore", "--noflush", stdin=(RAW / name).read_text())


@pytest.mark.parametrize("tool", ["iptables-nft", "iptables-legacy"])
@pytest.mark.parametrize("name", MADE)
def test_the_rules_of_a_program_are_innocent_on_loopback(
    machine: Machine, scenario: Scenario, name: str, tool: str
) -> None:
    load(machine, name, tool)
    address = "::1" if name.endswith(".ip6tables") else "127.0.0.1"
    target = f"[{address}]:{machine.port}" if ":" in address else f"{address}:{machine.port}"
    closed = proven("refused/nothing-listening")
    scenario.says(closed, as_nobody=closed.weaker(), target=target, by_hand=lambda: machine.serve("accepts", address))


@pytest.mark.parametrize("tool", ["iptables-nft", "iptables-legacy"])
def test_a_drop_in_a_chain_of_libvirt_is_told_as_libvirts(machine: Machine, scenario: Scenario, tool: str) -> None:
    machine.serve()
    load(machine, "libvirt-9.0.0.iptables", tool)
    machine.run(tool, "-I", "LIBVIRT_INP", "-p", "tcp", "--dport", str(machine.port), "-j", "DROP")
    answer = scenario.says(proven(DROPS), as_nobody=SILENT)
    assert "The rule is libvirt's" in first(answer)["summary"]
    assert "virsh net-edit" in first(answer)["summary"]
    assert first(answer)["rehearsal"]["mended"]


@pytest.mark.parametrize("tool", ["iptables-nft", "iptables-legacy"])
def test_a_kill_switch_that_forgets_the_local_addresses_is_mended_for_this_connection_only(
    machine: Machine, scenario: Scenario, tool: str
) -> None:
    machine.serve()
    machine.run(tool, "-I", "OUTPUT", "!", "-o", "wg0", "-m", "mark", "!", "--mark", "51820", "-j", "REJECT")
    # the reject stops every packet, its own ICMP error as well
    answer = scenario.says(proven(REJECTS), as_nobody=SILENT)
    assert first(answer)["rehearsal"] == {"mended": True, "opens": []}
    assert "-I" in first(answer)["commands"][0]["argv"]
