"""Names asked for on machines whose resolver is broken, slow or gone."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.machine import NOBODY, ROOT, Machine, wait_for

pytestmark = [pytest.mark.lab]

RESOLVE = """
import os, signal, sys, time
from diagnose.probes import names
started = time.monotonic()
found = names.resolve(sys.argv[2:], started + float(sys.argv[1]), False)
for host, fact in found.items():
    told = fact.value
    print(host, *(one.address for one in told.addresses), told.error or "")
print(time.monotonic() - started)
print(len(open(f"/proc/self/task/{os.getpid()}/children").read().split()))
"""
"""Prints a line for each host, then the seconds it took, then how many children are left."""


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    with Machine(port=18080) as machine:
        yield machine


@pytest.fixture(autouse=True)
def _healthy(machine: Machine) -> None:
    machine.write("/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n")
    machine.write("/etc/resolv.conf", "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
    machine.write("/etc/gai.conf", "")


def resolve(machine: Machine, *hosts: str, seconds: float = 3.0, uid: int = ROOT) -> tuple[dict[str, list[str]], float]:
    """What each host resolves to (addresses, or the error), and how long all of it took; no child may be left."""
    *lines, took, children = machine.run(sys.executable, "-c", RESOLVE, str(seconds), *hosts, uid=uid).splitlines()
    assert children == "0"
    return {words[0]: words[1:] for words in (line.split() for line in lines)}, float(took)


def silence_dns(machine: Machine) -> None:
    """A name server that never answers."""
    machine.run("nft", "flush ruleset")
    machine.chain("input", "udp dport 53 drop")
    machine.write("/etc/resolv.conf", "nameserver 127.0.0.1\noptions timeout:30 attempts:1\n")


def test_localhost_is_ipv6_first_whatever_the_order_in_the_file(machine: Machine) -> None:
    assert resolve(machine, "localhost")[0]["localhost"] == ["::1", "127.0.0.1"]


def test_gai_conf_turns_the_order_round(machine: Machine) -> None:
    machine.write("/etc/gai.conf", "precedence ::ffff:0:0/96 100\n")
    assert resolve(machine, "localhost")[0]["localhost"] == ["127.0.0.1", "::1"]


def test_ipv6_that_is_off_is_sorted_last(machine: Machine) -> None:
    machine.run("sysctl", "-w", "net.ipv6.conf.lo.disable_ipv6=1")
    try:
        assert resolve(machine, "localhost")[0]["localhost"] == ["127.0.0.1", "::1"]
    finally:
        machine.run("sysctl", "-w", "net.ipv6.conf.lo.disable_ipv6=0")


def test_without_a_name_server_the_error_is_named(machine: Machine) -> None:
    found, _ = resolve(machine, "nowhere.test", "127.0.0.256", "localhost.")
    assert found["nowhere.test"] == ["EAI_AGAIN"]
    assert found["127.0.0.256"] == ["EAI_AGAIN"]


def test_an_ordinary_user_does_not_get_what_root_gets_from_a_private_hosts_file(machine: Machine) -> None:
    machine.write("/etc/hosts", "127.0.0.1 localhost\n", mode=0o600)
    assert resolve(machine, "localhost")[0]["localhost"] == ["127.0.0.1"]
    assert resolve(machine, "localhost", uid=NOBODY)[0]["localhost"] == ["EAI_AGAIN"]
    look = "from diagnose.probes.names import hosts_file as f; v = f().value; print(v.readable, oct(v.mode), v.entries)"
    assert machine.run(sys.executable, "-c", look, uid=NOBODY) == "False 0o600 ()\n"


def test_a_name_that_hangs_is_stopped_and_holds_up_no_other(machine: Machine) -> None:
    silence_dns(machine)
    found, took = resolve(machine, "slow.test", "localhost", "slower.test", seconds=0.3)
    assert found["localhost"] == ["::1", "127.0.0.1"]
    assert found["slow.test"] == found["slower.test"] == ["DEADLINE"]
    assert took < 1.0


def test_more_names_than_are_asked_for_at_once_are_all_answered(machine: Machine) -> None:
    many = [f"name{number}" for number in range(100)]
    machine.write("/etc/hosts", "127.0.0.9 " + " ".join(many) + "\n")
    found, _ = resolve(machine, *many)
    assert all(found[name] == ["127.0.0.9"] for name in many)


def test_ctrl_c_ends_the_question_and_its_process(machine: Machine) -> None:
    silence_dns(machine)
    script = """
import os, signal, time
from diagnose.probes import names
signal.signal(signal.SIGALRM, signal.default_int_handler)
signal.setitimer(signal.ITIMER_REAL, 0.2)
started = time.monotonic()
try:
    names.resolve(["slow.test"], started + 20, False)
except KeyboardInterrupt:
    print("stopped", time.monotonic() - started < 5, repr(open(f"/proc/self/task/{os.getpid()}/children").read()))
"""
    assert machine.run(sys.executable, "-c", script) == "stopped True ''\n"


def test_a_killed_parent_leaves_a_process_that_ends_at_the_deadline(machine: Machine) -> None:
    silence_dns(machine)
    mark = f"netdiag-test-{time.monotonic_ns()}"
    script = """
import signal, time
from diagnose.probes import names
signal.setitimer(signal.ITIMER_REAL, 0.2)
names.resolve(["slow.test"], time.monotonic() + 0.8, False)
"""
    done = subprocess.run(machine.inside([sys.executable, "-c", script, mark]), capture_output=True, check=False)
    assert done.returncode != 0, "the parent should have died of SIGALRM"

    def gone() -> bool:
        return not any(mark.encode() in command for command in command_lines())

    wait_for(gone, "the child to end by itself")


def command_lines() -> Iterator[bytes]:
    """Those of every process."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            yield path.read_bytes()
        except OSError:
            continue


def test_what_the_parent_had_not_flushed_is_printed_once(machine: Machine) -> None:
    script = """
import time
from diagnose.probes import names
print("once")
names.resolve(["localhost"], time.monotonic() + 2, False)
"""
    assert machine.run(sys.executable, "-c", script) == "once\n"


def test_the_files_behind_the_resolver_are_read(machine: Machine) -> None:
    machine.write("/etc/gai.conf", "# no\nprecedence ::ffff:0:0/96  100\n")
    look = (
        "from diagnose.probes.names import configuration as f; v = f().value;"
        "print(v.nsswitch_hosts, v.nameservers, v.gai_lines)"
    )
    told = machine.run(sys.executable, "-c", look)
    assert told == "('files', 'dns') ('127.0.0.1',) ('precedence ::ffff:0:0/96 100',)\n"
