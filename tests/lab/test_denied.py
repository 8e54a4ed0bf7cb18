"""What a sandbox denies to netdiag costs facts, which are named: no death without words, no bug, no false cause."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.lab.machine import INSTALLED, NOBODY, ROOT, Answer, Machine

pytestmark = [pytest.mark.fuzz]

FILTERED, DENIAL = (str(Path(__file__).with_name(name)) for name in ("filtered.py", "denial.py"))
FUZZING = "NETDIAG_FUZZ" in os.environ
"""Everything is denied at night (make fuzz); by day what systemd and AppArmor deny, and every third file."""
CALLS = {
    "accept4": 288, "bind": 49, "bpf": 321, "clock_nanosleep": 230, "clone3": 435, "close_range": 436, "connect": 42,
    "dup2": 33, "exit": 60, "fstatfs": 138, "geteuid": 107, "getpeername": 52, "getsockname": 51, "getsockopt": 55,
    "getuid": 102, "kill": 62, "listen": 50, "madvise": 28, "mkdir": 83, "mremap": 25, "pidfd_getfd": 438,
    "pidfd_open": 434, "poll": 7, "pselect6": 270, "readlinkat": 267, "recvfrom": 45, "recvmsg": 47, "rmdir": 84,
    "sendmsg": 46, "sendto": 44, "setfsuid": 122, "setitimer": 38, "setsockopt": 54, "socket": 41, "uname": 63,
    "unshare": 272, "vfork": 58, "wait4": 61,
}  # fmt: skip
"""What netdiag calls and the start of Python does not, by its number on x86_64 (`strace -f` of both).

Not in it: clone, pipe2, rt_sigprocmask and write. Whoever is killed at these can try nothing out, and say nothing.
"""
CANNOT_START = b"netdiag: cannot start: a seccomp filter forbids "
TRUE = ("firewall/rule-drops", "firewall/silent", "firewall/reply-dropped", None)
"""What may be said of a rule that drops by a netdiag that sees less."""


NAMED = ("could not be seen", "not copied: ")
"""How a finding says what it lacks."""


def drop(machine: Machine) -> None:
    """A server behind a rule that drops, and a decoy that drops another port."""
    machine.serve("accepts", "127.0.0.1")
    machine.chain("input", f"tcp dport {machine.port} drop", f"tcp dport {machine.port + 1} reject")


def summary(cause: dict[str, Any] | None) -> tuple[str, str] | None:
    return (cause["code"], cause["confidence"]) if cause else None


ITS_OWN = {"connect": "sandbox/seccomp", "socket": "sandbox/address-family"}
"""Calls without which no client connects: that they are forbidden is the cause."""


def fault_in(done: subprocess.CompletedProcess[bytes], well: Answer, call: str = "") -> str:
    """What is wrong with this run, as opposed to the same run without a denial; empty: nothing."""
    if done.returncode not in (1, 3):
        said = done.returncode == 70 and done.stderr.startswith(CANNOT_START) and done.stderr.count(b"\n") == 1
        return "" if said else f"exit {done.returncode}: {done.stderr.decode()!r}"
    report = json.loads(done.stdout)
    cause = report["root_cause"]
    if cause and cause["code"] == ITS_OWN.get(call):
        return ""
    if (cause and cause["code"]) not in TRUE:
        return f"a false cause: {cause['code']}: {cause['title']}"
    crashed = [one for one in report["checks"] if one["outcome"] == "crashed"]
    if crashed:
        return f"crashed: {crashed}"
    same = summary(cause) == summary(well.cause)
    words = " ".join((cause["explanation"], *(one["text"] for one in cause["evidence"]))) if cause else ""
    outcomes = {one["outcome"] for one in report["attempts"]}
    named = report["not_checked"] or any(text in words for text in NAMED) or outcomes == {"denied"}
    return "" if same or named else f"it does not say what it lacks: {done.stdout.decode()}"


def run(machine: Machine, *before: str, uid: int = ROOT) -> subprocess.CompletedProcess[bytes]:
    argv = machine.inside([*before, "run", "--json", f"127.0.0.1:{machine.port}"], uid)
    return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the numbers of the calls are those of x86_64")
@pytest.mark.parametrize("action", ["kill", "EPERM", "ENOSYS"] if FUZZING else ["kill", "EPERM"])
def test_a_seccomp_filter_that_forbids_any_one_call_costs_a_fact_and_not_the_run(machine: Machine, action: str) -> None:
    drop(machine)
    well = machine.netdiag("run", "--json", f"127.0.0.1:{machine.port}")
    assert summary(well.cause) == ("firewall/rule-drops", "proven"), str(well)
    faults = {}
    for name, number in CALLS.items():
        done = run(machine, sys.executable, FILTERED, action, str(number), "--", INSTALLED)
        if fault := fault_in(done, well, name):
            faults[name] = fault
    assert not faults


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the numbers of the calls are those of x86_64")
def test_a_server_that_works_is_reachable_though_a_filter_kills_at_bpf(machine: Machine) -> None:
    machine.serve("accepts", "127.0.0.1")
    for uid in (ROOT, NOBODY):
        done = run(machine, sys.executable, FILTERED, "kill", str(CALLS["bpf"]), "--", INSTALLED, uid=uid)
        assert done.returncode == 0, done.stderr
        assert {one["fact"] for one in json.loads(done.stdout)["not_checked"]} <= {"socket owners"}


@pytest.mark.parametrize("error", ["EACCES", "ENOENT"] if FUZZING else ["EACCES"])
def test_any_one_file_of_proc_or_sys_that_is_denied_costs_a_fact_and_not_the_run(machine: Machine, error: str) -> None:
    drop(machine)
    log = machine.scratch / "cwd" / "asked"
    well = machine.netdiag("run", "--json", f"127.0.0.1:{machine.port}")
    assert summary(well.cause) == ("firewall/rule-drops", "proven"), str(well)

    def denied(path: str, to: str) -> subprocess.CompletedProcess[bytes]:
        return run(machine, sys.executable, DENIAL, error, path, to, "--")

    assert not fault_in(denied("/nowhere", str(log)), well)
    paths = sorted(set(log.read_text(errors="backslashreplace").splitlines()))
    assert {"/proc/N/stat", "/proc/N/fd", "/sys/kernel/tracing/instances"} <= set(paths)
    faults = {}
    for path in paths if FUZZING else paths[::3]:
        if fault := fault_in(denied(path, "/dev/null"), well):
            faults[path] = fault
    assert not faults
