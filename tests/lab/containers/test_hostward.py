"""From a container to the host: its name, its loopback, and its firewall."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import pytest

from tests.lab.docker import DockerMachine
from tests.lab.machine import ROOT, Answer
from tests.lab.protocol import Diagnosis, Scenario, likely, proven, works

FROM = ("--from", "container:app")
BRIDGE = "172.17.0.1"
"""The host's own address on the engine's default bridge."""


def says(
    machine: DockerMachine,
    scenario: Scenario,
    expected: Diagnosis,
    host: str = BRIDGE,
    by_hand: Callable[[], object] | None = None,
) -> Answer:
    """The protocol for root alone: an ordinary user may not look from a container (test_from)."""
    asked = (f"{host}:{machine.port}", *FROM)
    answer = scenario.diagnose(asked, ROOT, expected)
    scenario.keep(asked, answer, answer)
    if answer.exit_code:
        scenario.mend(answer, asked, by_hand, works())
    return answer


def first_command(answer: Answer) -> list[str]:
    """Of the first remedy."""
    assert answer.cause
    argv: list[str] = answer.cause["remedies"][0]["commands"][0]["argv"]
    return argv


@pytest.fixture(autouse=True)
def _container(machine: DockerMachine) -> None:
    """The one that is looked from."""
    machine.container("app", "sleep", "1000")


def test_a_server_on_the_host_s_loopback_is_out_of_a_container_s_reach(
    machine: DockerMachine, scenario: Scenario
) -> None:
    machine.serve(address="127.0.0.1")
    answer = says(
        machine,
        scenario,
        proven("container/host-loopback-only"),
        by_hand=lambda: machine.serve(address=BRIDGE),
    )
    assert f"127.0.0.1:{machine.port}" in str(answer.cause)


def test_a_server_on_the_bridge_is_reached_from_a_container(machine: DockerMachine, scenario: Scenario) -> None:
    machine.serve(address=BRIDGE)
    says(machine, scenario, works())


def test_the_name_of_the_host_is_not_known_in_a_container_that_did_not_ask_for_it(
    machine: DockerMachine, scenario: Scenario
) -> None:
    machine.serve(address=BRIDGE)
    asked = (f"host.docker.internal:{machine.port}", *FROM)
    allowed = (proven("container/host-name-missing"), likely("container/host-name-missing"))
    answer = scenario.diagnose(asked, ROOT, allowed)
    scenario.keep(asked, answer, answer)
    scenario.mend(answer, asked, None, works())
    assert "--add-host=host.docker.internal:host-gateway" in str(answer.cause)


@pytest.mark.parametrize("action", ["drop", "reject", "reject with tcp reset"])
def test_a_rule_of_the_host_for_its_bridge_is_named_and_mended_on_the_host(
    machine: DockerMachine, scenario: Scenario, action: str
) -> None:
    machine.serve(address=BRIDGE)
    machine.chain("input", "iifname eth7 drop", f"iifname docker0 tcp dport {machine.port} {action}")
    sure = likely if action == "reject with tcp reset" else proven
    answer = says(machine, scenario, sure("container/host-firewall"))
    assert first_command(answer)[0] == "nft"
    assert answer.cause["remedies"][0]["rehearsal"]["mended"]  # type: ignore[index]


def test_a_policy_of_the_host_that_lets_loopback_in_stops_the_bridge(
    machine: DockerMachine, scenario: Scenario
) -> None:
    machine.serve(address=BRIDGE)
    machine.chain("input", "iifname lo accept", "ct state established,related accept", policy="drop")
    answer = says(machine, scenario, proven("container/host-firewall"))
    assert "docker0" in first_command(answer)


def test_ufw_s_default_stops_the_bridge_and_ufw_itself_lets_it_in(machine: DockerMachine, scenario: Scenario) -> None:
    if shutil.which("ufw") is None:
        pytest.skip("ufw is not installed")
    machine.serve(address=BRIDGE)
    machine.run("ufw", "--force", "enable")
    answer = says(machine, scenario, proven("container/host-firewall"))
    assert first_command(answer)[:6] == ["ufw", "prepend", "allow", "in", "on", "docker0"]


def test_a_rule_for_another_bridge_is_innocent(machine: DockerMachine) -> None:
    machine.chain("input", f"iifname br-other tcp dport {machine.port} drop")
    answer = machine.netdiag("run", "--json", *FROM, f"{BRIDGE}:{machine.port}")
    assert "container/host-firewall" not in answer.codes
    assert answer.report["attempts"][0]["outcome"] == "refused"
