"""The runbooks about containers, with a real Docker Engine; root alone may look from inside one."""

from __future__ import annotations

import pytest

from tests.lab.docker import DockerMachine
from tests.lab.machine import NOBODY, ROOT
from tests.lab.protocol import Scenario, likely, no_cause
from tests.lab.record import record
from tests.lab.runbooks import carry_out, causes, first_commands, steps

BRIDGE = "172.17.0.1"
"""The host's own address on the engine's default bridge."""
FROM = ("--from", "container:app")


def test_container_cannot_reach_host_says_what_localhost_is_inside(machine: DockerMachine) -> None:
    machine.serve()
    machine.container("app", "sleep", "1000")
    result = carry_out(machine, "container-cannot-reach-host", container="app", target=f"localhost:{machine.port}")
    assert (result["end"], causes(result)) == ("fix", ["container/own-localhost"])


def test_container_cannot_reach_host_ends_well_once_the_server_is_on_the_bridge(machine: DockerMachine) -> None:
    machine.container("app", "sleep", "1000")
    machine.serve(address="127.0.0.1")
    target = f"{BRIDGE}:{machine.port}"
    result = carry_out(machine, "container-cannot-reach-host", container="app", target=target)
    assert (result["end"], causes(result)) == ("fix", ["container/host-loopback-only"])
    machine.serve(address=BRIDGE)
    assert carry_out(machine, "container-cannot-reach-host", container="app", target=target)["end"] == "works"
    theirs = carry_out(machine, "container-cannot-reach-host", uid=NOBODY, container="app", target=target)
    assert theirs["end"] == "escalate"


def test_a_container_that_does_not_run_is_no_place_to_look_from_and_it_says_so(machine: DockerMachine) -> None:
    machine.container("app", "true")
    machine.until_status("app", "exited")
    result = carry_out(machine, "container-cannot-reach-host", container="app", target=f"localhost:{machine.port}")
    assert result["end"] == "escalate"
    assert "does not run" in result["escalation"]["reason"]


def test_a_server_of_the_host_that_does_not_run_is_no_fault_of_the_container(
    machine: DockerMachine, scenario: Scenario
) -> None:
    machine.container("app", "sleep", "1000")
    machine.serve(address=BRIDGE, port=machine.port + 300)
    asked = (f"{BRIDGE}:{machine.port}", *FROM)
    answer = scenario.diagnose(asked, ROOT, likely("refused/nothing-listening"))
    scenario.keep(asked, answer, answer)
    result = carry_out(machine, "container-cannot-reach-host", container="app", target=asked[0])
    assert (result["end"], causes(result)) == ("fix", ["refused/nothing-listening"])


def test_an_ordinary_user_cannot_look_from_a_container_and_is_sent_to_sudo(
    machine: DockerMachine, scenario: Scenario
) -> None:
    machine.container("app", "sleep", "1000")
    machine.serve(address=BRIDGE)
    pid = machine.pid("app")
    target = f"{BRIDGE}:{machine.port}"
    asked = (target, "--from", f"pid:{pid}")
    theirs = scenario.diagnose(asked, NOBODY, no_cause("inconclusive"))
    assert theirs.exit_code == 3
    if scenario.recordings is not None:
        record(machine, scenario.recordings, scenario.name, asked, NOBODY)


@pytest.mark.parametrize("uid", [ROOT, NOBODY], ids=["root", "nobody"])
def test_host_cannot_reach_container_finds_the_server_on_the_container_s_loopback(
    machine: DockerMachine, uid: int
) -> None:
    machine.web("web", "127.0.0.1", 80, options=("--publish", f"{machine.port}:80"))
    result = carry_out(machine, "host-cannot-reach-container", uid=uid, port=f"127.0.0.1:{machine.port}")
    if uid == ROOT:
        assert (result["end"], causes(result)) == ("fix", ["container/binds-loopback-inside"])
    else:
        assert result["end"] in ("fix", "escalate")
        assert causes(result) in ([None], ["container/binds-loopback-inside"])


@pytest.mark.parametrize("uid", [ROOT, NOBODY], ids=["root", "nobody"])
def test_host_cannot_reach_container_finds_the_one_that_has_exited(
    machine: DockerMachine, scenario: Scenario, uid: int
) -> None:
    machine.web("web", "0.0.0.0", 80, options=("--publish", f"{machine.port}:80"))
    asked = f"127.0.0.1:{machine.port}"
    assert carry_out(machine, "host-cannot-reach-container", uid=uid, port=asked)["end"] == "works"
    machine.docker("stop", "web")
    result = carry_out(machine, "host-cannot-reach-container", uid=uid, port=asked)
    if uid == NOBODY:
        assert result["end"] == "escalate", "the engine's socket is not for this user"
        assert "sudo" in result["path"][0]["said"]
        return
    assert (result["end"], causes(result)) == ("fix", ["container/not-running"]), result
    scenario.execute(first_commands(result))
    assert carry_out(machine, "host-cannot-reach-container", port=asked)["end"] == "works"


def test_database_on_localhost_looks_from_the_application_s_container_and_comes_back(machine: DockerMachine) -> None:
    """Two diagnoses of one run from two network namespaces."""
    machine.serve("accepts", "127.0.0.1", 0, "name=postgres")
    machine.container("app", "sleep", "1000")
    yes = ("--answer", "container=yes")
    result = carry_out(machine, "database-on-localhost", *yes, db=f"localhost:{machine.port}", app="app")
    assert (result["end"], steps(result)) == ("fix", ["reach", "container", "inside"])
    assert causes(result) == [None, "container/own-localhost"]
    namespaces = [one["report"]["vantage"]["network_namespace"] for one in result["path"] if one.get("report")]
    assert len(set(namespaces)) == 2
    theirs = carry_out(machine, "database-on-localhost", *yes, db=f"localhost:{machine.port}", app="app", uid=NOBODY)
    assert theirs["end"] == "escalate"
