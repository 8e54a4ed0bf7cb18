"""Faults of the bind side: something has the port, or may not have it."""

from __future__ import annotations

import pytest

from tests.lab.machine import NOBODY, Machine
from tests.lab.protocol import Scenario, no_cause, proven, works

BIND = ("--bind",)


def test_a_free_port_is_bindable_beside_its_listening_neighbours(machine: Machine, scenario: Scenario) -> None:
    machine.serve(port=machine.port + 1)
    machine.serve(address="127.0.0.2")
    machine.serve("datagrams")
    scenario.says(works("bindable"), arguments=BIND)


def test_a_live_listener_has_the_port(machine: Machine, scenario: Scenario) -> None:
    holder = machine.serve()
    decoy = machine.serve(port=machine.port + 1)
    answer = scenario.says(proven("in-use/listener", "not-bindable"), arguments=BIND)
    assert answer.cause
    assert str(holder.pid) in answer.cause["title"] + str(answer.cause["evidence"])
    assert str(decoy.pid) not in str(answer.cause)


def test_a_stopped_listener_keeps_the_port_until_it_is_resumed_to_end(machine: Machine, scenario: Scenario) -> None:
    holder = machine.serve()
    machine.serve(port=machine.port + 1).stop()
    holder.stop()
    answer = scenario.says(proven("in-use/listener", "not-bindable"), arguments=BIND)
    assert answer.cause
    assert f"(pid {holder.pid}, stopped)" in answer.cause["title"]
    commands = [one["argv"] for one in answer.cause["remedies"][0]["commands"]]
    assert commands == [["kill", "-TERM", str(holder.pid)], ["kill", "-CONT", str(holder.pid)]]


def test_a_stopped_listener_of_an_ordinary_user_is_ended_by_that_user(machine: Machine) -> None:
    holder = machine.serve(uid=NOBODY)
    holder.stop()
    answer = machine.netdiag("run", "--json", "--bind", f"127.0.0.1:{machine.port}", uid=NOBODY)
    assert proven("in-use/listener", "not-bindable").is_said_by(answer), str(answer)
    assert answer.cause
    for command in answer.cause["remedies"][0]["commands"]:
        assert not command["needs_root"]
        machine.run(*command["argv"], uid=NOBODY)
    holder.process.wait(5)
    again = machine.netdiag("run", "--json", "--bind", f"127.0.0.1:{machine.port}", uid=NOBODY)
    assert works("bindable").is_said_by(again), str(again)


def test_a_listener_under_a_debugger_keeps_the_port_until_the_debugger_goes(
    machine: Machine, scenario: Scenario
) -> None:
    holder = machine.serve()
    debugger = machine.serve("traces", "-", holder.pid)
    answer = scenario.says(proven("in-use/listener", "not-bindable"), arguments=BIND)
    assert answer.cause
    assert f"(pid {holder.pid}, traced)" in answer.cause["title"]
    assert str(debugger.pid) in answer.cause["explanation"]


def test_a_listener_whose_first_thread_has_ended_is_named_and_can_be_ended(
    machine: Machine, scenario: Scenario
) -> None:
    holder = machine.serve("leader_ends")
    answer = scenario.says(proven("in-use/listener", "not-bindable"), arguments=BIND)
    assert answer.cause
    assert f"(pid {holder.pid})" in answer.cause["title"]
    assert "zombie" in answer.cause["explanation"]


def test_an_ordinary_user_sees_that_the_first_thread_of_their_listener_has_ended(machine: Machine) -> None:
    holder = machine.serve("leader_ends", uid=NOBODY)
    answer = machine.netdiag("run", "--json", "--bind", f"127.0.0.1:{machine.port}", uid=NOBODY)
    assert answer.cause
    assert f"(pid {holder.pid})" in answer.cause["title"], str(answer)


def test_two_listeners_that_share_the_port_are_not_called_impossible(machine: Machine, scenario: Scenario) -> None:
    machine.serve("accepts", "127.0.0.1", 0, "reuseport")
    machine.serve("accepts", "127.0.0.1", 0, "reuseport")
    answer = scenario.says(proven("in-use/listener", "not-bindable"), arguments=BIND)
    assert answer.cause
    assert "SO_REUSEPORT" in answer.cause["explanation"]
    assert "Only one" not in answer.cause["explanation"]


def test_under_sudo_every_command_that_needs_root_is_printed_with_sudo(machine: Machine) -> None:
    machine.serve()
    theirs = machine.serve(uid=NOBODY, port=machine.port + 1)
    as_root = machine.netdiag("run", "--bind", f"127.0.0.1:{machine.port}")
    assert "sudo" not in as_root.text
    for become in (("SUDO_USER=nobody", f"SUDO_UID={NOBODY}"), ("DOAS_USER=nobody",), (f"PKEXEC_UID={NOBODY}",)):
        for layout in ("text", "markdown"):
            answer = machine.netdiag(
                "run", "--bind", f"127.0.0.1:{machine.port}", "--format", layout, before=("env", *become)
            )
            lines = [line.strip() for line in answer.text.splitlines()]
            kills = [line for line in lines if line.startswith(("kill ", "sudo kill "))]
            assert kills
            assert all(line.startswith("sudo ") for line in kills), answer.text
            assert "not-bindable for root (nobody ran netdiag as root)" in " ".join(answer.text.split())
            of_their_own = machine.netdiag(
                "run", "--bind", f"127.0.0.1:{machine.port + 1}", "--format", layout, before=("env", *become)
            )
            assert f"\nkill {theirs.pid}" in of_their_own.text.replace(" " * 14, "")


def test_an_ordinary_user_is_told_that_the_owner_is_hidden_and_never_that_there_is_none(machine: Machine) -> None:
    machine.serve()
    answer = machine.netdiag("run", "--json", "--bind", f"127.0.0.1:{machine.port}", uid=NOBODY)
    assert proven("in-use/listener", "not-bindable").is_said_by(answer), str(answer)
    assert answer.cause
    assert "hidden" in str(answer.cause).lower()


def test_an_ordinary_user_sees_the_owner_of_their_own_listener(machine: Machine) -> None:
    holder = machine.serve(uid=NOBODY)
    answer = machine.netdiag("run", "--json", "--bind", f"127.0.0.1:{machine.port}", uid=NOBODY)
    assert answer.cause
    assert answer.cause["code"] == "in-use/listener"
    assert str(holder.pid) in answer.cause["title"] + str(answer.cause["evidence"])


@pytest.mark.parametrize(
    ("holder", "wanted"),
    [("0.0.0.0", "127.0.0.1"), ("127.0.0.1", "0.0.0.0"), ("::", "127.0.0.1"), ("::", "0.0.0.0"), ("::1", "::")],
)
def test_a_listener_on_an_overlapping_address_has_the_port(
    machine: Machine, scenario: Scenario, holder: str, wanted: str
) -> None:
    machine.serve("accepts", holder)
    machine.serve(port=machine.port + 1)
    host = f"[{wanted}]" if ":" in wanted else wanted
    scenario.says(proven("in-use/overlapping-address", "not-bindable"), target=f"{host}:{machine.port}", arguments=BIND)


def test_a_v6only_listener_does_not_have_the_port_for_ipv4(machine: Machine, scenario: Scenario) -> None:
    machine.serve("accepts", "::", 0, "v6only")
    scenario.says(works("bindable"), arguments=BIND)


def test_a_connection_in_time_wait_without_reuse_has_the_port(machine: Machine, scenario: Scenario) -> None:
    machine.serve("lingers", "127.0.0.1", 0, "plain")
    machine.serve(port=machine.port + 1)
    scenario.says(
        proven("in-use/time-wait", "not-bindable"),
        arguments=BIND,
        by_hand=lambda: machine.run("ss", "--kill", "--tcp", "state", "time-wait"),
    )


def test_a_connection_in_time_wait_with_reuse_is_only_a_warning(machine: Machine, scenario: Scenario) -> None:
    machine.serve("lingers")
    answer = scenario.says(works("bindable"), arguments=BIND)
    assert [(f["code"], f["severity"]) for f in answer.report["findings"]][:1] == [("in-use/time-wait", "warning")]


def test_an_outbound_connection_has_the_port_for_its_own_end(machine: Machine, scenario: Scenario) -> None:
    machine.run("sysctl", "-w", f"net.ipv4.ip_local_port_range={machine.port} {machine.port}")
    client = machine.serve("calls_out")
    machine.run("sysctl", "-w", f"net.ipv4.ip_local_port_range={machine.port - 100} {machine.port + 100}")
    machine.serve(port=machine.port + 1)
    scenario.says(
        proven("in-use/outbound-connection", "not-bindable"),
        arguments=BIND,
        by_hand=client.kill,
    )


def test_a_client_that_bound_its_own_port_is_no_leftover_of_a_server(machine: Machine, scenario: Scenario) -> None:
    client = machine.serve("calls_out_by_its_own_port")
    machine.serve(port=machine.port + 1)
    cause = proven("in-use/outbound-connection", "not-bindable")
    answer = scenario.says(cause, as_nobody=cause, arguments=BIND, by_hand=client.kill)
    assert answer.cause
    assert "sysctl" not in str(answer.cause["remedies"]), "the kernel does not hand this port out"


def test_a_port_for_root_only_is_denied_to_an_ordinary_user(machine: Machine, scenario: Scenario) -> None:
    machine.serve(port=81)
    denied = proven("in-use/privileged-port", "not-bindable")
    answer = scenario.diagnose(("127.0.0.1:80", "--bind"), NOBODY, denied)
    scenario.says(works("bindable"), as_nobody=denied, target="127.0.0.1:80", arguments=BIND)
    assert answer.cause
    scenario.execute(answer.cause["remedies"][0]["commands"])
    scenario.diagnose(("127.0.0.1:80", "--bind"), NOBODY, works("bindable"))
    scenario.execute(answer.cause["remedies"][0]["undo"])
    scenario.diagnose(("127.0.0.1:80", "--bind"), NOBODY, denied)


def test_an_address_of_another_machine_cannot_be_bound(machine: Machine, scenario: Scenario) -> None:
    machine.serve()
    scenario.says(
        proven("in-use/address-not-local", "not-bindable"), target=f"10.98.76.54:{machine.port}", arguments=BIND
    )


def test_an_address_that_may_be_bound_without_being_local_is_bindable(machine: Machine, scenario: Scenario) -> None:
    machine.run("sysctl", "-w", "net.ipv4.ip_nonlocal_bind=1")
    scenario.says(works("bindable"), target=f"10.98.76.54:{machine.port}", arguments=BIND)


def test_the_holder_is_information_when_the_question_is_whether_it_answers(machine: Machine) -> None:
    machine.serve()
    answer = machine.netdiag("run", "--json", f"127.0.0.1:{machine.port}")
    assert works().is_said_by(answer), str(answer)
    assert {(f["code"], f["severity"]) for f in answer.report["findings"]} == {("in-use/listener", "info")}


def test_a_check_that_has_nothing_to_ask_is_not_called_clear(machine: Machine) -> None:
    target = f"127.0.0.1:{machine.port}"
    idle = {"firewall", "container", "hung", "exposure"}
    for arguments, asked in (
        (("--bind",), {"in-use", "resolution", "loopback", "sandbox"}),
        (("--bind", "--passive"), {"in-use", "resolution", "loopback"}),
        (("--passive",), {"in-use", "refused", "resolution", "loopback"}),
    ):
        checks = {
            one["name"]: one["outcome"] for one in machine.netdiag("run", "--json", *arguments, target).report["checks"]
        }
        assert not {name for name in idle if checks[name] in ("clear", "found")}, checks
        assert {name for name, outcome in checks.items() if outcome in ("clear", "found")} == asked, checks
    machine.serve()
    checks = {one["name"]: one["outcome"] for one in machine.netdiag("run", "--json", target).report["checks"]}
    assert set(checks.values()) == {"clear"}, checks


def test_looking_only_cannot_tell_whether_a_free_port_can_be_bound(machine: Machine) -> None:
    answer = machine.netdiag("run", "--json", "--bind", "--passive", f"127.0.0.1:{machine.port}")
    assert no_cause("inconclusive").is_said_by(answer), str(answer)


def test_a_socket_that_is_bound_and_never_listens_has_the_port(machine: Machine, scenario: Scenario) -> None:
    machine.serve("binds", "127.0.0.1", 0, "plain")
    cause = proven("in-use/bound-not-listening", "not-bindable")
    scenario.says(cause, as_nobody=cause, arguments=("--bind",))


def test_a_client_that_met_itself_has_the_port(machine: Machine, scenario: Scenario) -> None:
    machine.run("sysctl", "-w", f"net.ipv4.ip_local_port_range={machine.port} {machine.port}")
    machine.serve("joined_to_itself")
    machine.run("sysctl", "-w", f"net.ipv4.ip_local_port_range={machine.port - 100} {machine.port + 100}")
    cause = proven("in-use/self-connected", "not-bindable")
    scenario.says(cause, as_nobody=cause, arguments=("--bind",))


def test_a_connection_that_outlives_its_listener_has_the_port(machine: Machine, scenario: Scenario) -> None:
    machine.serve("outlives_its_listener")
    cause = proven("in-use/leftover-connection", "not-bindable")
    scenario.says(cause, as_nobody=cause, arguments=("--bind",))
