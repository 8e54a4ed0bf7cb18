"""Names are data: what the machine's rules, sets and interfaces are called is run by nobody, as root or not."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.lab.machine import NOBODY, ROOT, Answer, Machine
from tests.lab.protocol import Scenario, likely, no_cause, proven, works

RAW_NFT = Path(__file__).with_name("raw_nft.py")
INET = 1
FLUSHES = "a b accept; flush ruleset; #"
DROPS, REJECTS = "firewall/rule-drops", "firewall/rule-rejects"
HOSTILE = (
    FLUSHES,
    "-f /tmp/x",
    'x"; flush ruleset; #',
    "x\nflush ruleset\n",
    "x\\",
    "$x",
    "@x",
    "accept",
    "ip",
    "x\x1b[2J\x1b]0;t\x07",
    "x\u202ey",
    "\udcff",
)


def make(machine: Machine, *entries: list[Any]) -> None:
    """What nft itself could not name, by netlink."""
    machine.run("cp", "/dev/stdin", "/run/raw_nft.py", stdin=RAW_NFT.read_bytes())
    machine.run("/run/python3", "-I", "-S", "/run/raw_nft.py", stdin=json.dumps(entries))


def hostile_table(machine: Machine, name: str, verdict: str = "drop") -> None:
    """A table and a chain of that name, with a rule for the port; and decoys beside it."""
    machine.chain("output", "tcp dport 9 drop", f"tcp sport {machine.port} accept")
    make(
        machine,
        ["table", INET, name],
        ["base", INET, name, name, "input"],
        ["drop", INET, name, name, 9],
        [verdict, INET, name, name, machine.port],
    )


TOOLS = ("nft", "iptables-nft", "iptables-legacy", "iptables-nft-restore", "ipset")


def offers_no_command_about(answer: Answer, name: str, machine: Machine, *, part: bool = False) -> None:
    """Neither in the report nor in the copy, where remedies are tried."""
    runs = machine.watched()
    assert runs, "the rules were listed by no tool"
    assert [run for run in runs if name in run.split("\0") or (part and name in run)] == []
    assert answer.cause
    for remedy in answer.cause["remedies"]:
        for command in (*remedy["commands"], *remedy["undo"]):
            assert name not in command["argv"], command
            assert not (part and any(name in word for word in command["argv"])), command


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_a_rule_of_a_table_whose_name_is_a_command_is_named_and_the_name_is_not_run(
    machine: Machine, scenario: Scenario, name: str
) -> None:
    machine.serve()
    hostile_table(machine, name)
    machine.watch_tools(*TOOLS)
    asked = (f"127.0.0.1:{machine.port}",)
    scenario.diagnose(asked, NOBODY, (likely("firewall/silent"), no_cause()))
    answer = scenario.diagnose(asked, ROOT, proven(DROPS))
    offers_no_command_about(
        answer, name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace"), machine
    )
    assert answer.cause
    assert answer.cause["remedies"]
    assert "handle" in answer.cause["title"] or answer.cause["title"].endswith("...")
    for form in ("text", "markdown"):
        page = machine.netdiag("run", "--format", form, *asked).text
        assert page.replace("\n", "").isprintable()
        assert not any(line.strip() == "flush ruleset" for line in page.splitlines())


def test_a_reject_of_a_table_whose_name_includes_a_file_opens_no_file(machine: Machine, scenario: Scenario) -> None:
    machine.serve()
    name = 'x; include "/run/canary"; #'
    machine.write("/run/canary", "add table inet canary\n")
    machine.run("touch", "-a", "-d", "2001-01-01", "-m", "-d", "2002-02-02", "/run/canary")
    machine.run("mount", "-o", "remount,strictatime", "/run")
    hostile_table(machine, name, "reject")
    machine.watch_tools(*TOOLS)
    before = machine.run("stat", "-c", "%X", "/run/canary")
    answer = scenario.diagnose((f"127.0.0.1:{machine.port}",), ROOT, proven(REJECTS))
    offers_no_command_about(answer, name, machine)
    assert machine.run("stat", "-c", "%X", "/run/canary") == before
    machine.run("cat", "/run/canary")
    assert machine.run("stat", "-c", "%X", "/run/canary") != before, "a file that was opened would have been seen"


def test_a_rule_beside_a_table_whose_name_is_a_command_is_removed_as_printed(
    machine: Machine, scenario: Scenario
) -> None:
    machine.serve()
    machine.chain("input", f"tcp dport {machine.port} drop", "tcp dport 9 drop")
    make(
        machine,
        ["table", INET, FLUSHES],
        ["base", INET, FLUSHES, FLUSHES, "input"],
        ["drop", INET, FLUSHES, FLUSHES, 7],
    )
    answer = scenario.says(proven(DROPS), as_nobody=(likely("firewall/silent"), no_cause()))
    assert answer.cause
    assert answer.cause["remedies"][0]["commands"][0]["argv"][:6] == ["nft", "delete", "rule", "ip", "guard", "input"]
    left = machine.run("nft", "list", "ruleset")
    assert FLUSHES in left
    assert "tcp dport 9 drop" in left


def test_a_set_whose_name_is_a_command_gives_no_word_to_one(machine: Machine, scenario: Scenario) -> None:
    machine.serve()
    ports = "s } ; flush ruleset; #"
    make(
        machine,
        ["table", INET, "guard"],
        ["ports", INET, "guard", ports],
        ["port", INET, "guard", ports, machine.port],
        ["port", INET, "guard", ports, 9],
        ["base", INET, "guard", "input", "input"],
        ["in", INET, "guard", "input", machine.port, ports],
    )
    machine.watch_tools(*TOOLS)
    answer = scenario.says(proven(DROPS), as_nobody=(likely("firewall/silent"), no_cause()))
    offers_no_command_about(answer, "flush", machine, part=True)
    assert answer.cause
    assert answer.cause["remedies"][0]["commands"][0]["argv"][:6] == ["nft", "insert", "rule", "inet", "guard", "input"]


def test_a_jump_to_a_chain_whose_name_lends_other_rules_its_words_does_not(
    machine: Machine, scenario: Scenario
) -> None:
    machine.serve()
    lends = f"x # handle 3\n\t\ttcp dport {machine.port} accept # handle 4\n\t}}\n\tchain y {{"
    make(
        machine,
        ["table", INET, "guard"],
        ["base", INET, "guard", "input", "input"],
        ["chain", INET, "guard", lends],
        ["jump", INET, "guard", "input", lends],
        ["drop", INET, "guard", "input", machine.port],
    )
    answer = scenario.says(proven(DROPS), as_nobody=(likely("firewall/silent"), no_cause()))
    assert answer.cause
    assert "accept # handle" not in answer.cause["evidence"][0]["text"]


def test_a_comment_that_ends_the_command_is_no_undo(machine: Machine, scenario: Scenario) -> None:
    machine.serve()
    posing = 'x"; flush ruleset; add rule inet guard input comment "y'
    make(
        machine,
        ["table", INET, "guard"],
        ["base", INET, "guard", "input", "input"],
        ["drop", INET, "guard", "input", 9],
        ["comment", INET, "guard", "input", machine.port, posing],
    )
    machine.watch_tools(*TOOLS)
    answer = scenario.says(proven(DROPS), as_nobody=(likely("firewall/silent"), no_cause()))
    offers_no_command_about(answer, "flush", machine, part=True)
    assert "tcp dport 9 drop" in machine.run("nft", "list", "ruleset")


CANARY = "#!/bin/sh\ntouch /run/ran\n"


@pytest.mark.parametrize("option", ["-M", "--modprobe", "--modp"])
def test_a_chain_of_iptables_whose_name_is_an_option_runs_no_program(
    machine: Machine, scenario: Scenario, option: str
) -> None:
    machine.serve()
    machine.write("/run/evil", CANARY, mode=0o755)
    chain = f"x {option} /run/evil"
    machine.run("iptables-nft", "-A", "INPUT", "-p", "tcp", "--dport", "9", "-j", "DROP")
    make(
        machine,
        ["chain", 2, "filter", chain],
        ["drop", 2, "filter", chain, machine.port],
        ["jump", 2, "filter", "INPUT", chain],
    )
    machine.watch_tools(*TOOLS)
    answer = scenario.diagnose((f"127.0.0.1:{machine.port}",), ROOT, proven(DROPS))
    offers_no_command_about(answer, "/run/evil", machine, part=True)
    assert machine.run("sh", "-c", "ls /run/ran", check=False) == ""


def test_a_legacy_rule_for_an_interface_whose_name_is_an_option_runs_no_program(
    machine: Machine, scenario: Scenario
) -> None:
    machine.serve()
    machine.write("/run/e", CANARY, mode=0o755)
    posing = "lo -M /run/e"
    match = ("-p", "tcp", "--dport", str(machine.port))
    machine.run("iptables-legacy", "-A", "INPUT", *match, "!", "-i", posing, "-j", "DROP")
    machine.run("iptables-legacy", "-A", "INPUT", "-p", "tcp", "--dport", "9", "-j", "DROP")
    machine.watch_tools(*TOOLS)
    answer = scenario.says(proven(DROPS), as_nobody=(likely("firewall/silent"), no_cause()))
    offers_no_command_about(answer, "/run/e", machine, part=True)
    assert machine.run("sh", "-c", "ls /run/ran", check=False) == ""


def test_tools_of_the_caller_s_path_and_environment_are_not_run_as_root(machine: Machine, scenario: Scenario) -> None:
    machine.serve()
    machine.chain("input", f"tcp dport {machine.port} drop")
    machine.run("iptables-legacy", "-A", "INPUT", "-p", "tcp", "--dport", "9", "-j", "DROP")
    for tool in ("nft", "iptables-save", "iptables-legacy-save", "iptables", "ufw"):
        machine.write(f"/run/evil/{tool}", f'{CANARY}env >/run/seen\nexec /usr/sbin/{tool} "$@"\n', mode=0o755)
    hostile = ("env", "PATH=/run/evil:/run/bin:/usr/sbin:/usr/bin", "XTABLES_LIBDIR=/run/evil", "IFS=/", "SECRET=Zq7")
    answer = machine.netdiag("run", "--json", f"127.0.0.1:{machine.port}", before=hostile)
    assert proven(DROPS).is_said_by(answer)
    assert answer.cause
    assert answer.cause["remedies"][0]["rehearsal"] == {"mended": True, "opens": []}
    assert machine.run("sh", "-c", "ls /run/ran /run/seen", check=False) == ""


def test_a_namespace_whose_name_is_an_option_is_entered_by_its_path(
    machine: Machine, another: Machine, scenario: Scenario
) -> None:
    another.serve(address="127.0.0.1")
    machine.run("sh", "-c", "mkdir -p /run/netns && touch -- '/run/netns/-x y'")
    machine.run("mount", "--bind", f"/proc/{another.keeper.pid}/ns/net", "/run/netns/-x y")
    answer = machine.netdiag("run", "--json", f"127.0.0.1:{machine.port}")
    assert answer.cause
    assert answer.cause["code"] == "container/other-namespace"
    (first, *_) = answer.cause["remedies"]
    assert first["commands"][0]["argv"][:2] == ["nsenter", "--net=/run/netns/-x y"]
    scenario.execute(first["commands"])
    assert works().is_said_by(machine.netdiag("run", "--json", "--from", "netns:-x y", f"127.0.0.1:{machine.port}")), (
        os.fspath(machine.scratch)
    )
