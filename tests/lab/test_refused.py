"""Faults where this machine itself answers no."""

from __future__ import annotations

import pytest

from tests.lab.machine import NOBODY, ROOT, Machine
from tests.lab.protocol import Scenario, likely, proven

NOTHING_LISTENS = proven("refused/nothing-listening")


def test_a_server_on_both_loopbacks_is_on_another_address_and_not_of_another_family(
    machine: Machine, scenario: Scenario
) -> None:
    """As sshd listens for ssh -R without GatewayPorts."""
    machine.run("ip", "address", "add", "10.9.8.1/32", "dev", "lo")
    machine.serve("accepts", "127.0.0.1", 0, "name=sshd")
    machine.serve("accepts", "::1", 0, "name=sshd")
    fault = proven("refused/other-address")
    answer = scenario.says(
        fault, as_nobody=fault, target=f"10.9.8.1:{machine.port}", by_hand=lambda: machine.serve("accepts", "10.9.8.1")
    )
    assert "refused/other-family" not in answer.codes
    assert "only over" not in str(answer.report)


def test_a_port_where_nothing_listens_is_refused_by_the_kernel(machine: Machine, scenario: Scenario) -> None:
    machine.serve(port=machine.port + 300)
    scenario.says(NOTHING_LISTENS, as_nobody=NOTHING_LISTENS, by_hand=machine.serve)


def test_nothing_listens_on_ipv6_either(machine: Machine, scenario: Scenario) -> None:
    scenario.says(
        NOTHING_LISTENS,
        as_nobody=NOTHING_LISTENS,
        target=f"[::1]:{machine.port}",
        by_hand=lambda: machine.serve("accepts", "::1"),
    )


def test_nothing_listens_on_either_address_of_localhost(machine: Machine, scenario: Scenario) -> None:
    scenario.says(
        NOTHING_LISTENS,
        as_nobody=NOTHING_LISTENS,
        target=f"localhost:{machine.port}",
        by_hand=lambda: machine.serve("accepts", "::"),
    )


@pytest.mark.parametrize("noise", ["127.0.0.1", "::1"])
def test_nothing_listens_on_a_machine_that_refuses_others_all_the_time(
    machine: Machine, scenario: Scenario, noise: str
) -> None:
    machine.serve("refused_all_the_time", noise, machine.port + 300)
    scenario.says(NOTHING_LISTENS, by_hand=machine.serve)


def test_a_socket_that_is_bound_and_never_listens_refuses(machine: Machine, scenario: Scenario) -> None:
    holder = machine.serve("binds")

    def listen_instead() -> None:
        holder.kill()
        machine.serve()

    scenario.says(NOTHING_LISTENS, by_hand=listen_instead)


def test_a_database_that_took_the_next_free_port_is_the_likely_one(machine: Machine, scenario: Scenario) -> None:
    machine.serve("accepts", "127.0.0.1", 5433, "name=postgres")
    scenario.says(likely("refused/other-port"), as_nobody=NOTHING_LISTENS, target="127.0.0.1:5432")


def test_a_program_of_another_kind_on_a_near_port_is_only_a_candidate(machine: Machine, scenario: Scenario) -> None:
    machine.serve("accepts", "127.0.0.1", 5433, "name=node")
    answer = scenario.says(NOTHING_LISTENS, target="127.0.0.1:5432", by_hand=lambda: machine.serve(port=5432))
    assert ("refused/other-port", "possible") in {(f["code"], f["confidence"]) for f in answer.report["findings"]}


def test_two_near_listeners_are_candidates_and_neither_is_accused(machine: Machine, scenario: Scenario) -> None:
    machine.serve(port=3001)
    machine.serve(port=3002)
    answer = scenario.says(NOTHING_LISTENS, target="127.0.0.1:3000", by_hand=lambda: machine.serve(port=3000))
    assert "3001" in str(answer.report["findings"])
    assert "3002" in str(answer.report["findings"])


def test_a_server_on_another_local_address_answers_there(machine: Machine, scenario: Scenario) -> None:
    machine.serve("accepts", "127.0.0.2")
    machine.serve(port=machine.port + 1)
    scenario.says(proven("refused/other-address"), as_nobody=proven("refused/other-address"))


def test_a_server_on_ipv6_only_is_not_reached_over_ipv4(machine: Machine, scenario: Scenario) -> None:
    machine.serve("accepts", "::1")
    machine.serve(port=machine.port + 1)
    scenario.says(proven("refused/other-family"), as_nobody=proven("refused/other-family"))


def test_a_v6only_wildcard_is_not_reached_over_ipv4(machine: Machine, scenario: Scenario) -> None:
    machine.serve("accepts", "::", 0, "v6only")
    machine.serve("accepts", "::", machine.port + 1)
    scenario.says(proven("refused/other-family"), as_nobody=proven("refused/other-family"))


def test_a_server_on_ipv4_only_is_not_reached_over_ipv6(machine: Machine, scenario: Scenario) -> None:
    machine.serve()
    scenario.says(
        proven("refused/other-family"), as_nobody=proven("refused/other-family"), target=f"[::1]:{machine.port}"
    )


def test_a_server_that_speaks_udp_only_refuses_tcp(machine: Machine, scenario: Scenario) -> None:
    machine.serve("datagrams")
    scenario.says(proven("refused/udp-only"), as_nobody=proven("refused/udp-only"), by_hand=machine.serve)


def test_a_udp_server_on_another_address_is_no_reason(machine: Machine, scenario: Scenario) -> None:
    machine.serve("datagrams", "127.0.0.2")
    scenario.says(NOTHING_LISTENS, by_hand=machine.serve)


def test_a_database_on_the_next_port_of_both_families_is_reached_by_the_name_without_the_url_s_secrets(
    machine: Machine, scenario: Scenario
) -> None:
    machine.serve("accepts", "127.0.0.1", 5433, "name=postgres")
    machine.serve("accepts", "::1", 5433, "name=postgres")
    answer = scenario.says(
        likely("refused/other-port"), as_nobody=NOTHING_LISTENS, target="postgres://app:hunter2@localhost:5432/secrets"
    )
    assert answer.cause
    (connect, configure) = answer.cause["remedies"]
    assert connect["commands"][0]["argv"][-1] == "localhost:5433"
    assert "port in postgresql.conf" in configure["summary"]
    assert "hunter2" not in answer.text


def test_a_database_on_the_next_port_of_the_other_family_only_has_a_remedy_too(
    machine: Machine, scenario: Scenario
) -> None:
    machine.serve("accepts", "::1", 5433, "name=postgres")
    answer = scenario.says(likely("refused/other-port"), as_nobody=NOTHING_LISTENS, target="127.0.0.1:5432")
    assert answer.cause
    assert answer.cause["remedies"][0]["commands"][0]["argv"][-1] == "[::1]:5433"


def test_a_port_that_sshd_forwards_listens_on_loopback_until_its_gateway_ports_say_otherwise(
    machine: Machine, scenario: Scenario
) -> None:
    machine.run("ip", "address", "add", "10.9.8.1/32", "dev", "lo")
    forwarded = machine.serve("accepts", "127.0.0.1", 0, "name=sshd")
    machine.serve("accepts", "::1", 0, "name=sshd")

    def forward_again() -> None:
        forwarded.kill()
        machine.serve("accepts", "0.0.0.0", 0, "name=sshd")

    answer = scenario.says(
        proven("refused/other-address"),
        as_nobody=proven("refused/other-address"),
        target=f"10.9.8.1:{machine.port}",
        by_hand=forward_again,
    )
    assert "GatewayPorts" in str(answer.cause)
    assert "refused/other-family" not in answer.codes


def test_a_server_on_the_other_family_that_is_slow_to_accept_is_the_same_cause_less_certain(
    machine: Machine, scenario: Scenario
) -> None:
    machine.serve("never_accepts", "::1")
    answer = scenario.diagnose((f"127.0.0.1:{machine.port}",), ROOT, likely("refused/other-family"))
    assert "not known" in str(answer.cause)
    assert "refused/nothing-listening" not in answer.codes


@pytest.mark.parametrize("uid", [ROOT, NOBODY])
def test_a_server_that_comes_up_a_moment_after_the_attempt_is_said_to_be_there_now(machine: Machine, uid: int) -> None:
    """The gap of a restart loop: the answer depends on the moment, and each one is true."""
    machine.serve("comes_and_goes")
    for _ in range(150):  # one in five or so meets the gap just before its end
        answer = machine.netdiag("run", "--json", f"127.0.0.1:{machine.port}", uid=uid)
        if answer.cause and "just then" in answer.cause["explanation"]:
            break
        assert not answer.cause or answer.cause["code"] in ("refused/nothing-listening", "hung/closes-at-once")
    assert answer.cause, str(answer)
    assert answer.cause["code"] == "refused/nothing-listening", str(answer)
    assert "just then" in answer.cause["explanation"], str(answer)
    assert "listens there now" in answer.cause["remedies"][0]["summary"] or "listens now" in str(answer.cause), str(
        answer
    )
