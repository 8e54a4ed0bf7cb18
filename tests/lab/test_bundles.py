"""Bundles of real faults: what root or an ordinary user sends is answered alike by anybody who opens it."""

from __future__ import annotations

import json

import pytest

from tests.lab.machine import NOBODY, ROOT, Answer, Machine

NAMES = {
    "a host of the hosts file": "quillhall.corvane.test",
    "a user": "thistledown",
    "a chain": "linnetguard",
    "a comment": "ticket by Ashgrove",
    "a public address": "151.101.65.69",
    "a program": "dovecotte",
}


def plant(machine: Machine) -> None:
    """Names that identify, where a machine has them."""
    machine.write(
        "/etc/hosts", f"127.0.0.1 localhost\n{NAMES['a public address']} {NAMES['a host of the hosts file']}\n"
    )
    machine.run("install", "-d", "-m", "777", "/run/sent")


def bundled(machine: Machine, *asked: str, uid: int) -> tuple[Answer, Answer]:
    """The run itself, and what an ordinary user reads in the bundle of it."""
    ran = machine.netdiag("run", "--json", *asked, uid=uid)
    made = machine.netdiag("bundle", *asked, "-o", f"/run/sent/{uid}.zip", uid=uid)
    assert made.exit_code == ran.exit_code, f"{made.text}{made.stderr!r}"
    assert b"Written" in made.stdout, f"{made.text}{made.stderr!r}"
    assert machine.run("stat", "-c", "%a %u", f"/run/sent/{uid}.zip").split() == ["600", str(uid)]
    machine.run("install", "-m", "644", f"/run/sent/{uid}.zip", "/run/sent/received.zip")
    return ran, machine.netdiag("replay", "--json", "/run/sent/received.zip", uid=NOBODY)


def answered_alike(ran: Answer, replayed: Answer) -> None:
    assert replayed.exit_code == ran.exit_code
    assert replayed.report["verdict"] == ran.report["verdict"]
    found = [[(one["code"], one["confidence"]) for one in answer.report["findings"]] for answer in (ran, replayed)]
    assert found[0] == found[1]


def names_nobody(machine: Machine) -> None:
    """No name is in any member, packed or not."""
    script = (
        "import sys, zipfile; z = zipfile.ZipFile('/run/sent/received.zip'); "
        "sys.stdout.write(''.join(n + z.read(n).decode() for n in z.namelist()))"
    )
    text = machine.run("/run/python3", "-c", script)
    assert (
        json.loads(
            machine.run(
                "/run/python3",
                "-c",
                script.replace("n + z.read(n)", "z.read('manifest.json')").replace(
                    "for n in z.namelist()", "for n in [0]"
                ),
            )
        )["schema"]
        == "netdiag.bundle/1"
    )
    assert [place for place, name in NAMES.items() if name in text] == []


@pytest.mark.parametrize("uid", [ROOT, NOBODY], ids=["root", "nobody"])
def test_a_drop_rule_is_named_alike_by_whoever_opens_the_bundle(machine: Machine, uid: int) -> None:
    plant(machine)
    machine.serve("accepts", "127.0.0.1", 0, f"name={NAMES['a program']}", uid=NOBODY)
    machine.nft(
        "add table inet corvanefw",
        f"add chain inet corvanefw {NAMES['a chain']}",
        f"add rule inet corvanefw {NAMES['a chain']} ip saddr != {NAMES['a public address']} tcp dport {machine.port} "
        f'drop comment "{NAMES["a comment"]}"',
    )
    machine.nft(
        "table inet corvanefw {\nchain input {",
        f"type filter hook input priority 0; policy accept;\niifname lo jump {NAMES['a chain']}\n}}\n}}",
    )
    ran, replayed = bundled(machine, f"127.0.0.1:{machine.port}", uid=uid)
    answered_alike(ran, replayed)
    assert (ran.cause and ran.cause["code"]) == ("firewall/rule-drops" if uid == ROOT else "firewall/silent")
    names_nobody(machine)


@pytest.mark.parametrize("uid", [ROOT, NOBODY], ids=["root", "nobody"])
def test_a_port_in_use_is_named_alike_by_whoever_opens_the_bundle(machine: Machine, uid: int) -> None:
    plant(machine)
    machine.serve("accepts", "127.0.0.1", 0, f"name={NAMES['a program']}")
    ran, replayed = bundled(machine, f"127.0.0.1:{machine.port}", "--bind", uid=uid)
    answered_alike(ran, replayed)
    assert ran.cause
    assert ran.cause["code"] == "in-use/listener"
    names_nobody(machine)


@pytest.mark.parametrize("uid", [ROOT, NOBODY], ids=["root", "nobody"])
def test_a_name_of_the_hosts_file_is_no_name_in_the_bundle(machine: Machine, uid: int) -> None:
    plant(machine)
    machine.serve()
    ran, replayed = bundled(machine, f"{NAMES['a host of the hosts file']}:{machine.port}", "--timeout", "0.2", uid=uid)
    answered_alike(ran, replayed)
    names_nobody(machine)


def test_packets_are_sent_only_by_those_who_agree(machine: Machine) -> None:
    plant(machine)
    machine.serve()
    asked = (f"127.0.0.1:{machine.port}", "-o", "/run/sent/case.zip", "--pcap")
    assert machine.netdiag("bundle", *asked).exit_code == 2
    assert machine.run("ls", "/run/sent") == ""
    assert machine.netdiag("bundle", *asked, "--keep", "packets").exit_code == 0
    shown = machine.netdiag("bundle", "show", "/run/sent/case.zip").text
    assert "WARNING: capture.pcap holds packets" in shown
    assert machine.netdiag("replay", "--json", "/run/sent/case.zip").report["verdict"] == "reachable"
