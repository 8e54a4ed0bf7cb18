"""The runbooks that come with netdiag, on real faults, as root and as an ordinary user."""

from __future__ import annotations

import pytest

from tests.lab.machine import NOBODY, ROOT, Machine
from tests.lab.protocol import Scenario
from tests.lab.runbooks import carry_out, causes, first_commands, steps

BOTH = pytest.mark.parametrize("uid", [ROOT, NOBODY], ids=["root", "nobody"])


@BOTH
def test_port_in_use_names_the_program_that_has_the_port(machine: Machine, uid: int) -> None:
    server = machine.serve(uid=uid)
    machine.serve(port=machine.port + 1)
    asked = f"127.0.0.1:{machine.port}"
    result = carry_out(machine, "port-in-use", uid=uid, server=asked)
    assert (result["end"], causes(result)) == ("fix", ["in-use/listener"])
    assert str(server.pid) in str(result["path"][0]["report"]["root_cause"])
    server.kill()
    result = carry_out(machine, "port-in-use", "--answer", "started=yes", uid=uid, server=asked)
    assert (result["end"], steps(result)) == ("works", ["bind", "started"])


@BOTH
def test_connection_refused_says_that_nothing_listens(machine: Machine, uid: int) -> None:
    machine.serve(port=machine.port + 300)
    asked = f"127.0.0.1:{machine.port}"
    result = carry_out(machine, "connection-refused", uid=uid, target=asked)
    assert (result["end"], causes(result)) == ("fix", ["refused/nothing-listening"])
    machine.serve()
    result = carry_out(machine, "connection-refused", "--answer", "where=no", uid=uid, target=asked)
    assert (result["end"], result["escalation"]) == ("works", None)


@BOTH
def test_works_with_127_but_not_localhost_names_the_address_that_fails(machine: Machine, uid: int) -> None:
    machine.serve(address="127.0.0.1")
    name = "works-with-127-but-not-localhost"
    result = carry_out(machine, name, uid=uid, port=machine.port)
    assert (result["end"], steps(result)) == ("fix", ["name"])
    found = [finding["code"] for finding in result["path"][0]["report"]["findings"]]
    assert "resolution/prefers-other-family" in found
    machine.serve(address="::1")
    assert carry_out(machine, name, uid=uid, port=machine.port)["end"] == "works"


@BOTH
def test_works_with_127_but_not_localhost_goes_on_where_the_name_is_not_to_blame(machine: Machine, uid: int) -> None:
    result = carry_out(machine, "works-with-127-but-not-localhost", uid=uid, port=machine.port)
    assert (result["end"], steps(result)) == ("fix", ["name", "address"])
    assert causes(result) == ["refused/nothing-listening"] * 2


@BOTH
def test_works_with_127_but_not_localhost_finds_a_broken_hosts_file(machine: Machine, uid: int) -> None:
    machine.serve(address="127.0.0.1")
    machine.write("/etc/hosts", "127.0.0.1 elsewhere\n")
    result = carry_out(machine, "works-with-127-but-not-localhost", uid=uid, port=machine.port)
    assert (result["end"], causes(result)) == ("fix", ["resolution/hosts-file-broken"])


def test_firewall_suspected_names_the_rule_and_its_remedy_lets_the_connection_pass(
    machine: Machine, scenario: Scenario
) -> None:
    machine.serve()
    machine.chain("input", f"tcp dport {machine.port + 1} drop", f"tcp dport {machine.port} drop")
    asked = f"127.0.0.1:{machine.port}"
    theirs = carry_out(machine, "firewall-suspected", uid=NOBODY, target=asked)
    assert theirs["end"] == "escalate"
    assert "sudo" in theirs["path"][0]["said"]
    assert theirs["escalation"]["to"] == "the network team"
    result = carry_out(machine, "firewall-suspected", target=asked)
    assert (result["end"], causes(result)) == ("fix", ["firewall/rule-drops"])
    scenario.execute(first_commands(result))
    assert carry_out(machine, "firewall-suspected", target=asked)["end"] == "works"


@BOTH
def test_firewall_suspected_acquits_the_firewall_of_a_server_that_is_not_there(machine: Machine, uid: int) -> None:
    machine.chain("input", f"tcp dport {machine.port + 1} drop")
    result = carry_out(machine, "firewall-suspected", uid=uid, target=f"127.0.0.1:{machine.port}")
    assert (result["end"], causes(result)) == ("fix", ["refused/nothing-listening"])
    assert "No firewall is to blame" in result["path"][0]["said"]


@BOTH
def test_database_on_localhost_finds_that_it_listens_elsewhere(machine: Machine, uid: int) -> None:
    machine.run("ip", "address", "add", "10.9.8.1/32", "dev", "lo")
    machine.serve("accepts", "10.9.8.1", 0, "name=postgres")
    dsn = f"postgres://app:hunter2secret@127.0.0.1:{machine.port}/shop"
    result = carry_out(machine, "database-on-localhost", uid=uid, db=dsn)
    assert (result["end"], causes(result)) == ("fix", ["refused/other-address"])
    assert "hunter2secret" not in str(result)
    machine.serve("accepts", "127.0.0.1", 0, "name=postgres")
    assert carry_out(machine, "database-on-localhost", "--answer", "container=no", uid=uid, db=dsn)["end"] == "works"


@BOTH
def test_dev_server_not_reachable_finds_the_server_of_one_family(machine: Machine, uid: int) -> None:
    machine.serve(address="::1")
    asked = f"http://127.0.0.1:{machine.port}"
    result = carry_out(machine, "dev-server-not-reachable", uid=uid, url=asked)
    assert (result["end"], causes(result)) == ("fix", ["refused/other-family"])
    machine.serve()
    answers = ("--answer", "browser=this machine", "--answer", "page=yes")
    result = carry_out(machine, "dev-server-not-reachable", *answers, uid=uid, url=asked)
    assert (result["end"], steps(result)) == ("works", ["open", "browser", "page"])


@BOTH
def test_accepts_but_hangs_finds_the_stopped_server(machine: Machine, scenario: Scenario, uid: int) -> None:
    server = machine.serve(uid=uid)
    machine.serve(port=machine.port + 1)
    server.stop()
    asked = f"127.0.0.1:{machine.port}"
    result = carry_out(machine, "accepts-but-hangs", uid=uid, target=asked)
    assert (result["end"], causes(result)) == ("fix", ["hung/process-stopped"])
    scenario.execute(first_commands(result))
    assert carry_out(machine, "accepts-but-hangs", "--answer", "answer=yes", uid=uid, target=asked)["end"] == "works"


@BOTH
def test_accepts_but_hangs_asks_the_person_where_the_server_accepts(machine: Machine, uid: int) -> None:
    machine.serve()
    result = carry_out(
        machine, "accepts-but-hangs", "--answer", "answer=no", uid=uid, target=f"127.0.0.1:{machine.port}"
    )
    assert (result["end"], steps(result)) == ("escalate", ["reach", "answer"])


@BOTH
def test_https_or_proxy_trouble_finds_the_application_behind_the_proxy(machine: Machine, uid: int) -> None:
    machine.serve()
    url, upstream = f"https://127.0.0.1:{machine.port}", f"127.0.0.1:{machine.port + 1}"
    gateway = ("--answer", "symptom=502, 503 or 504")
    result = carry_out(machine, "https-or-proxy-trouble", *gateway, uid=uid, url=url, upstream=upstream)
    assert (result["end"], steps(result)) == ("fix", ["reach", "symptom", "upstream"])
    assert causes(result) == [None, "refused/nothing-listening"]
    certificate = ("--answer", "symptom=a certificate error")
    result = carry_out(machine, "https-or-proxy-trouble", *certificate, uid=uid, url=url, upstream=upstream)
    assert (result["end"], result["escalation"]["to"]) == ("escalate", "the web team")


def test_a_runbook_of_another_user_is_left_out_for_root(machine: Machine) -> None:
    text = machine.netdiag("runbook", "new", "port-in-use").text.replace("One line", "Not yours")
    machine.write("/etc/netdiag/runbooks/port-in-use.runbook.yaml", text)
    assert "Not yours" in machine.netdiag("runbook", "show", "port-in-use").text
    machine.run("chown", "65534", "/etc/netdiag/runbooks/port-in-use.runbook.yaml")
    shown = machine.netdiag("runbook", "show", "port-in-use")
    assert "Not yours" not in shown.text
    listed = machine.netdiag("runbook", "list")
    assert b"belongs to another user (uid 65534)" in listed.stderr


def test_under_sudo_root_reads_no_file_that_the_caller_may_not_read(machine: Machine) -> None:
    machine.write("/run/secret.runbook.yaml", "root's secret: {", 0o600)
    sudo = ("env", "SUDO_UID=65534", "SUDO_GID=65534")
    answer = machine.netdiag("runbook", "check", "/run/secret.runbook.yaml", before=sudo)
    assert answer.exit_code == 2
    assert "secret:" not in answer.text + answer.stderr.decode()
    assert b"may not read it" in answer.stderr
