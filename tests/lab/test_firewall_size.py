"""A drop behind very many rules: named as surely as one that stands alone."""

from __future__ import annotations

from typing import Any

import pytest

from tests.lab.machine import Answer, Machine
from tests.lab.many_rules import iptables_table, nft_table

_TRIES = 5
"""On a machine that is busy with other things the rules may not be read in time; then the answer says so."""
_RULES = ("firewall rules", "the rule's text")


def told(machine: Machine) -> Answer:
    """The first answer that had the time to look at the rules; those before it have blamed no rule without a look."""
    for _ in range(_TRIES):
        answer = machine.netdiag("run", f"127.0.0.1:{machine.port}", "--json")
        missing = [one["fact"] for one in answer.report["not_checked"] if one["fact"] in _RULES]
        if not missing:
            return answer
        if "firewall rules" in missing:
            assert answer.cause, answer
            assert (answer.cause["code"], answer.cause["confidence"]) == ("firewall/silent", "likely"), answer
    pytest.skip(f"this machine is too busy to read its rules within the deadline, {_TRIES} times")


def mended_by_the_first_remedy(machine: Machine, cause: dict[str, Any]) -> bool:
    for command in cause["remedies"][0]["commands"]:
        machine.run(*command["argv"])
    answer = machine.netdiag("run", f"127.0.0.1:{machine.port}", "--json")
    return bool(answer.report["verdict"] == "reachable")


@pytest.mark.parametrize("intervals", [False, True], ids=["addresses", "ranges"])
def test_a_drop_behind_ten_thousand_rules_of_nft_is_proven_and_mended(machine: Machine, intervals: bool) -> None:
    machine.serve()
    machine.run("nft", "-f", "-", stdin=nft_table(machine.port, intervals=intervals))
    cause = told(machine).cause
    assert cause
    assert (cause["code"], cause["confidence"]) == ("firewall/rule-drops", "proven")
    assert any(f"tcp dport {machine.port} drop" in evidence["text"] for evidence in cause["evidence"])
    assert mended_by_the_first_remedy(machine, cause)


@pytest.mark.parametrize("backend", ["nft", "legacy"])
def test_a_drop_behind_ten_thousand_rules_of_iptables_is_proven_and_mended(machine: Machine, backend: str) -> None:
    machine.serve()
    machine.run(f"iptables-{backend}-restore", stdin=iptables_table(machine.port))
    cause = told(machine).cause
    assert cause
    assert (cause["code"], cause["confidence"]) == ("firewall/rule-drops", "proven")
    assert any(f"--dport {machine.port} -j DROP" in evidence["text"] for evidence in cause["evidence"])
    assert mended_by_the_first_remedy(machine, cause)
