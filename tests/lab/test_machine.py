"""The lab itself: what it makes is apart from this machine, and what a run would leave behind is noticed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab.machine import NOBODY, REPOSITORY, Machine, abandoned, nothing_left_behind, tracing_instances

MOUNTED_BY_EIGHT = """
import threading
from concurrent.futures import ThreadPoolExecutor
from tests import tracefs

everyone, thread, look = threading.Barrier(8, timeout=20), threading.local(), tracefs.is_mounted

def look_together():
    seen = look()
    if not hasattr(thread, "looked"):
        thread.looked = True
        everyone.wait()
        assert not seen
    return seen

tracefs.is_mounted = look_together
with ThreadPoolExecutor(8) as pool:
    for done in [pool.submit(tracefs.mount_tracefs) for _ in range(8)]:
        done.result()
"""
"""Eight test processes, as threads, that all see tracefs missing before the first of them mounts it."""


def test_a_machine_has_rules_files_and_interfaces_of_its_own(machine: Machine) -> None:
    hosts, instances = Path("/etc/hosts").read_bytes(), tracing_instances()
    machine.chain("input", "tcp dport 9 drop")
    machine.write("/etc/hosts", "10.98.76.54 localhost\n")
    machine.run("ip", "link", "set", "lo", "down")
    rules = subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, check=True).stdout
    assert "guard" not in rules
    assert Path("/etc/hosts").read_bytes() == hosts
    assert (
        "LOOPBACK,UP" in subprocess.run(["ip", "link", "show", "lo"], capture_output=True, text=True, check=True).stdout
    )
    assert not abandoned(tracing_instances() - instances)


def test_test_processes_that_all_find_tracefs_missing_mount_it_without_a_failure(machine: Machine) -> None:
    machine.run("umount", "--lazy", "/sys/kernel/tracing")
    machine.run("env", "-C", str(REPOSITORY), sys.executable, "-B", "-c", MOUNTED_BY_EIGHT)
    assert "instances" in machine.run("ls", "/sys/kernel/tracing")


def test_test_processes_say_why_tracefs_cannot_be_mounted(machine: Machine) -> None:
    machine.run("umount", "--lazy", "/sys/kernel/tracing")
    argv = ["env", "-C", str(REPOSITORY), sys.executable, "-B", "-c", "from tests.tracefs import *; mount_tracefs()"]
    done = subprocess.run(machine.inside(argv, NOBODY), capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "tracefs cannot be mounted on /sys/kernel/tracing: mount:" in done.stderr


def test_a_machine_is_gone_when_its_test_is(machine: Machine) -> None:
    with Machine(port=machine.port) as other:
        server = other.serve("never_accepts")
        server.stop()
        keeper, scratch = other.keeper.pid, other.scratch
    assert not Path(f"/proc/{server.pid}").exists()
    assert not Path(f"/proc/{keeper}").exists()
    assert not scratch.exists()
    assert str(scratch) not in Path("/proc/self/mountinfo").read_text()


def test_an_ordinary_user_of_the_machine_has_no_group_and_no_capability(machine: Machine) -> None:
    status = machine.run("cat", "/proc/self/status", uid=NOBODY)
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert (fields["Uid"].split()[0], fields["Groups"].strip(), int(fields["CapEff"], 16)) == (str(NOBODY), "", 0)


@pytest.mark.parametrize(
    ("left", "noticed"),
    [
        ("sleep 2 &", "its processes to end"),
        ("setsid -f env -i sleep 2", "its processes to end"),
        ("nft add table ip left", "table ip left"),
        ("iptables-legacy -A INPUT -p tcp --dport 9 -j DROP", "dport 9"),
        ("mount -t tmpfs lab /mnt", "/mnt"),
        ("echo >core", "core"),
        ("sysctl -q net.ipv4.ip_unprivileged_port_start=80", "80"),
        ("mkdir /sys/kernel/tracing/instances/left-by-the-lab", "its tracing instance to go"),
    ],
)
def test_what_a_run_leaves_behind_is_noticed(machine: Machine, left: str, noticed: str) -> None:
    try:
        with pytest.raises(AssertionError, match=noticed), nothing_left_behind(machine, patience=0.2):
            machine.run("sh", "-c", f"exec >&- 2>&-; {left}")
    finally:
        if "tracing" in left:
            Path("/sys/kernel/tracing/instances/left-by-the-lab").rmdir()


@pytest.mark.parametrize(("lab", "exit_code"), [("", 0), ("required", 1)])
def test_a_scenario_that_cannot_run_is_skipped_and_fails_only_where_the_lab_is_required(
    machine: Machine, lab: str, exit_code: int
) -> None:
    one = f"{__file__}::test_a_machine_is_gone_when_its_test_is"
    pytest_there = [sys.executable, "-B", "-m", "pytest", "-q", "-p", "no:cacheprovider", one]
    there = ["env", "-C", str(REPOSITORY), f"NETDIAG_LAB={lab}", *pytest_there]
    run = subprocess.run(machine.inside(there, NOBODY), capture_output=True, text=True, check=False)
    assert run.returncode == exit_code, run.stdout
    assert "the lab needs root" in run.stdout
