"""macOS and Windows in a network of their own, as root and as an ordinary user (see stand_in.py)."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from tests.lab.machine import NOBODY, ROOT, Machine
from tests.portable.command import PLATFORMS, REPOSITORY, Answer, argv
from tests.portable.conftest import PORT

pytestmark = pytest.mark.lab
TARGET = f"127.0.0.1:{PORT}"
FAR = "10.77.3.2"


@pytest.fixture(params=PLATFORMS)
def platform(request: pytest.FixtureRequest) -> str:
    """sys.platform there."""
    return str(request.param)


@pytest.fixture
def neighbour(machine: Machine) -> Iterator[str]:
    """The address of another machine, on which nothing listens."""
    machine.run("ip", "netns", "add", "np-far")  # under the machine's own /run
    machine.run("ip", "link", "add", "near", "type", "veth", "peer", "name", "far", "netns", "np-far")
    machine.run("ip", "address", "add", "10.77.3.1/24", "dev", "near")
    machine.run("ip", "link", "set", "near", "up")
    machine.run("ip", "-n", "np-far", "address", "add", f"{FAR}/24", "dev", "far")
    machine.run("ip", "-n", "np-far", "link", "set", "far", "up")
    yield FAR
    machine.run("ip", "netns", "delete", "np-far")


def netdiag(machine: Machine, platform: str, *arguments: str, uid: int = ROOT) -> Answer:
    """Runs the whole command in the machine."""
    command = ["env", f"PYTHONPATH={REPOSITORY}", *argv(platform, "run", "--json", *arguments)]
    done = subprocess.run(machine.inside(command, uid), capture_output=True, timeout=60, check=False)
    assert done.stderr == b""
    return Answer(done.returncode, done.stdout, "")


def test_silence_has_no_cause_where_nobody_can_say_who_keeps_it(machine: Machine, platform: str) -> None:
    machine.serve()
    machine.chain("input", f"tcp dport {PORT} drop")
    answer = netdiag(machine, platform, TARGET)
    assert (answer.exit_code, answer.report["verdict"], answer.report["root_cause"]) == (3, "unreachable", None)
    (silent,) = [finding for finding in answer.report["findings"] if finding["code"] == "firewall/silent"]
    assert silent["confidence"] == "possible"
    assert {"firewall rules", "listener's queue"} <= answer.not_linux
    assert answer.checks["hung"] == "skipped"


def test_another_machine_s_refusal_is_no_surer_than_errno(machine: Machine, neighbour: str, platform: str) -> None:
    answer = netdiag(machine, platform, f"{neighbour}:{PORT}")
    assert (answer.cause["code"], answer.cause["confidence"]) == ("refused/nothing-listening", "likely")
    assert {"raw reply", "routes"} <= answer.not_linux


def test_a_thousand_targets_are_more_than_select_takes_at_once(machine: Machine, neighbour: str) -> None:
    machine.chain("output", f"ip daddr {neighbour} drop")
    targets = [f"{neighbour}:{port}" for port in range(20000, 21000)]
    answer = netdiag(machine, "win32", "--timeout", "1", *targets)
    outcomes = {attempt["outcome"] for report in answer.report["reports"] for attempt in report["attempts"]}
    assert outcomes == {"unanswered"}
    assert len(answer.report["reports"]) == 1000


def test_a_mac_s_user_who_may_not_see_the_sockets_is_not_told_that_there_are_none(machine: Machine) -> None:
    machine.serve()
    reached = netdiag(machine, "darwin", TARGET, uid=NOBODY)
    assert (reached.exit_code, reached.report["verdict"]) == (0, "reachable")
    refused = netdiag(machine, "darwin", f"127.0.0.1:{PORT + 1}", uid=NOBODY)
    assert (refused.exit_code, refused.report["root_cause"]) == (3, None)
    assert refused.checks["refused"] == "skipped"
    taken = netdiag(machine, "darwin", "--bind", TARGET, uid=NOBODY)
    assert (taken.exit_code, taken.report["verdict"], taken.checks["in-use"]) == (3, "not-bindable", "skipped")
    lifts = {one["fact"]: one["lift"] for one in taken.report["not_checked"]}
    assert lifts["listeners"] == "run it again with sudo"


def test_an_owner_that_the_system_hides_is_hidden_and_not_nobody(machine: Machine) -> None:
    machine.serve()
    answer = netdiag(machine, "win32", "--bind", TARGET, uid=NOBODY)
    assert answer.cause["code"] == "in-use/listener"
    assert answer.cause["title"] == f"A hidden process of another user listens on {TARGET}"
    assert "socket owners" in {one["fact"] for one in answer.report["not_checked"]}
