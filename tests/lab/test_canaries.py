"""Secrets of processes, rules and files, planted on a machine and looked for in everything that netdiag writes."""

from __future__ import annotations

import pytest

from tests.lab.machine import NOBODY, ROOT, Machine
from tests.lab.protocol import Scenario, likely, no_cause, proven

CANARIES = {
    "in the command line": "c4naryArgv9f8e7d",
    "in a rule's comment": "c4naryRule1b2a3c",
    "in a log prefix": "c4naryLog77e6d5",
    "behind a port of a compose file": "c4naryYaml5f6a7b",
    "in a value of a compose file": "c4naryEnv00aa11",
    "behind a # of the hosts file": "c4naryHosts3c4d5e",
    "in the name that a process gave itself": "c4naryComm2b",
}
ARGUMENTS = tuple(
    text.replace("X", CANARIES["in the command line"]).encode()
    for text in (
        "--jwt",
        "X",
        "-pX",
        "K=X",
        "u/X@db",
        '{"password":"a\\"X"}',
        "http://X@h/X?k=X",
        "--mot-de-passe",
        "X",
        "X",
    )
)
SILENT = (likely("firewall/silent"), no_cause())


def plant(machine: Machine, tool: str, uid: int) -> None:
    """A server with secrets in its arguments behind a rule with secrets in its comment, and files with some."""
    port = str(machine.port)
    name = f"name=web {CANARIES['in the name that a process gave itself']}"
    machine.serve("accepts", "127.0.0.1", 0, name, uid=uid, arguments=ARGUMENTS)
    comment, prefix = CANARIES["in a rule's comment"], CANARIES["in a log prefix"]
    if tool == "nft":
        drop = f'tcp dport {port} log prefix "{prefix}: " drop comment "old {comment} x"'
        machine.chain("input", "tcp dport 9 drop", f'ip daddr 127.0.0.1 accept comment "{comment}"', priority=-10)
        counted = f'limit rate over 1000/second burst 1000 packets drop comment "counts {comment}"'
        machine.chain("input", counted, drop, family="inet")
    elif tool:
        rule = ("-p", "tcp", "--dport", port)
        machine.run(tool, "-A", "INPUT", *rule, "-m", "comment", "--comment", f"old {comment} x", "-j", "DROP")
    machine.write(
        "/etc/hosts", f"# 127.0.0.1 app.test {CANARIES['behind a # of the hosts file']}\n127.0.0.1 localhost\n"
    )


def compose_file(port: int) -> str:
    value = CANARIES["in a value of a compose file"]
    return f"""services:
  web:
    image: nginx
    environment:
      TOKEN: {value}
      DATABASE_URL: postgres://u:{value}@localhost:{port}/x
    ports:
      - "{port}:80" # {CANARIES["behind a port of a compose file"]}
"""


@pytest.mark.parametrize("uid", [ROOT, NOBODY], ids=["root", "nobody"])
@pytest.mark.parametrize("tool", ["", "nft", "iptables-nft", "iptables-legacy"])
def test_no_secret_of_the_machine_is_in_any_output(machine: Machine, tool: str, uid: int) -> None:
    """Whatever is asked, and however the answer is written."""
    plant(machine, tool, uid)
    machine.run("install", "-d", "-m", "777", "/run/kept", "/run/shop")
    machine.write("/run/shop/compose.yaml", compose_file(machine.port))
    here = ("env", "--chdir=/run/shop")
    target = f"127.0.0.1:{machine.port}"
    written = ""
    asked = ((target,), (target, "--bind"), (target, "--passive"), ("app.test:80",), ("compose:web:80",))
    for number, question in enumerate(asked):
        record = f"/run/kept/{number}.json"
        answers = [machine.netdiag("run", "--record", record, *question, uid=uid, before=here)]
        answers += [machine.netdiag("replay", "--format", form, record) for form in ("json", "markdown")]
        assert all(answer.exit_code in (0, 1, 3) for answer in answers), str(answers[0])
        written += "".join(answer.text + answer.stderr.decode() for answer in answers) + machine.run("cat", record)
    assert [place for place, canary in CANARIES.items() if canary in written] == []
    assert "/run/python3 -I -S /run/server.py" in written
    assert tool != "nft" or uid != ROOT or f'tcp dport {machine.port} log prefix "***" drop comment "***"' in written


@pytest.mark.parametrize("tool", ["nft", "iptables-nft", "iptables-legacy"])
def test_a_drop_rule_whose_comment_is_not_shown_is_removed_and_put_back(
    machine: Machine, scenario: Scenario, tool: str
) -> None:
    """The comment is in none of the commands, and they do what they say."""
    machine.serve()
    port = str(machine.port)
    if tool == "nft":
        machine.chain("input", "tcp dport 9 drop", f'tcp dport {port} drop comment "ticket 4711 x"', family="inet")
    else:
        machine.run(tool, "-A", "INPUT", "-p", "tcp", "--dport", "9", "-j", "DROP")
        rule = (
            "-A",
            "INPUT",
            "-p",
            "tcp",
            "--dport",
            port,
            "-m",
            "comment",
            "--comment",
            "ticket 4711 x",
            "-j",
            "DROP",
        )
        machine.run(tool, *rule)
    answer = scenario.says(proven("firewall/rule-drops"), as_nobody=SILENT)
    assert answer.cause
    assert "4711" not in answer.text
    first = answer.cause["remedies"][0]
    assert (first["risk"], first["rehearsal"]["mended"]) == ("safe", True), first
    assert first["undo"], first
