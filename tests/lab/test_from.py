"""--from netns:NAME and pid:N: another network namespace on the same machine, and other files for its names."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.lab.cgroups import cgroup, unified
from tests.lab.machine import INSTALLED, NOBODY, ROOT, Answer, Machine, nothing_left_behind, wait_for
from tests.lab.protocol import Scenario


def from_(machine: Machine, origin: str, *arguments: str, uid: int = 0) -> Answer:
    """One run from that side, as JSON."""
    return machine.netdiag("run", "--json", "--from", origin, *arguments, uid=uid)


def of(server_pid: int) -> str:
    return f"pid:{server_pid}"


@pytest.fixture
def blue(machine: Machine) -> Machine:
    """The machine has a network namespace named blue, with lo up."""
    machine.run("ip", "netns", "add", "blue")
    machine.run("ip", "-n", "blue", "link", "set", "lo", "up")
    return machine


@contextmanager
def serving_in(machine: Machine, namespace: str, address: str, port: int) -> Iterator[int]:
    """A server in a named namespace of the machine; its pid."""
    script = ["/run/python3", "-I", "-S", "/run/server.py", "accepts", address, str(port)]
    argv = machine.inside(["nsenter", f"--net=/run/netns/{namespace}", *script])
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        try:
            yield process.pid
        finally:
            process.kill()


def hidden_root(machine: Machine, *setup: str) -> subprocess.Popen[bytes]:
    """A process in the machine's network, with a mount namespace and files of its own; the caller kills it."""
    script = "; ".join(["set -e", "mount -t tmpfs lab /mnt", *setup, "echo ready", "exec sleep 100"])
    argv = machine.inside(["unshare", "--mount", "--propagation", "private", "sh", "-c", script])
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process


@contextmanager
def other_files(machine: Machine, **files: str) -> Iterator[str]:
    """A process that sees files of its own under /etc (hosts, resolv_conf ...); how --from names it."""
    setup = []
    for name, content in files.items():
        file = name.replace("_conf", ".conf")
        machine.write(f"/run/theirs/{file}", content)
        setup.append(f"mount --bind /run/theirs/{file} /etc/{file}")
    process = hidden_root(machine, *setup)
    try:
        yield of(process.pid)
    finally:
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()


# whose localhost


def test_a_server_of_a_named_namespace_is_reached_from_there_and_not_from_here(blue: Machine) -> None:
    with serving_in(blue, "blue", "127.0.0.1", blue.port):
        there = from_(blue, "netns:blue", f"127.0.0.1:{blue.port}")
        here = blue.netdiag("run", "--json", f"127.0.0.1:{blue.port}")
    assert (there.report["verdict"], there.exit_code) == ("reachable", 0), there
    assert here.report["verdict"] == "unreachable", here
    assert there.report["vantage"]["network_namespace"] != here.report["vantage"]["network_namespace"]


def test_a_server_of_this_namespace_is_not_taken_for_one_of_the_named_namespace(blue: Machine) -> None:
    blue.serve()
    answer = from_(blue, "netns:blue", f"127.0.0.1:{blue.port}")
    assert answer.report["verdict"] == "unreachable", answer
    assert answer.cause
    assert answer.cause["code"] in ("container/other-namespace", "refused/nothing-listening")


def test_a_rule_of_the_named_namespace_is_deleted_from_here_as_printed(blue: Machine, scenario: Scenario) -> None:
    with serving_in(blue, "blue", "127.0.0.1", blue.port):
        rules = f"""table inet guard {{
            chain input {{ type filter hook input priority 0; policy accept;
            tcp dport {blue.port} drop
            tcp dport {blue.port + 1} drop
            }}
        }}"""
        blue.run("nsenter", "--net=/run/netns/blue", "nft", "-f", "-", stdin=rules)
        blue.nft(rules.replace("drop", "accept"))
        answer = from_(blue, "netns:blue", f"127.0.0.1:{blue.port}")
        assert answer.cause
        assert (answer.cause["code"], answer.cause["confidence"]) == ("firewall/rule-drops", "proven"), answer
        first = answer.cause["remedies"][0]
        assert first["commands"][0]["argv"][:2] == ["nsenter", "--net=/run/netns/blue"], answer
        scenario.keep_as_root("--from", "netns:blue", f"127.0.0.1:{blue.port}")
        for command in first["commands"]:
            blue.run(*command["argv"])
        mended = from_(blue, "netns:blue", f"127.0.0.1:{blue.port}")
        assert mended.report["verdict"] == "reachable", mended
        for command in first["undo"]:
            blue.run(*command["argv"])
        again = from_(blue, "netns:blue", f"127.0.0.1:{blue.port}")
        assert again.cause
        assert again.cause["code"] == "firewall/rule-drops", again


@pytest.mark.parametrize("bound", ["10.77.0.2", "0.0.0.0"])
@pytest.mark.parametrize("uid", [ROOT, NOBODY])
def test_a_reset_by_a_rule_of_the_neighbouring_namespace_is_no_closed_port(blue: Machine, uid: int, bound: str) -> None:
    blue.run("ip", "link", "add", "to-blue", "type", "veth", "peer", "name", "from-blue", "netns", "blue")
    for place, device, address in (("", "to-blue", "10.77.0.1/24"), ("blue", "from-blue", "10.77.0.2/24")):
        ip = ("ip", *(("-n", place) if place else ()))
        blue.run(*ip, "addr", "add", address, "dev", device)
        blue.run(*ip, "link", "set", device, "addrgenmode", "none", "up")
    rule = f"tcp dport {blue.port} reject with tcp reset"
    rules = f"table inet guard {{ chain input {{ type filter hook input priority 0; {rule}\n}}\n}}"
    blue.run("nsenter", "--net=/run/netns/blue", "nft", "-f", "-", stdin=rules)
    with serving_in(blue, "blue", bound, blue.port):
        answer = blue.netdiag("run", "--json", f"10.77.0.2:{blue.port}", uid=uid)
    assert answer.cause, answer
    assert (answer.cause["code"], answer.cause["confidence"]) == ("firewall/rule-rejects", "likely"), answer
    closed = blue.netdiag("run", "--json", f"10.77.0.2:{blue.port + 1}", uid=uid)
    assert closed.cause, closed
    assert closed.cause["code"] == "refused/nothing-listening", closed


def test_lo_that_is_down_in_the_named_namespace_is_set_up_there_as_printed(machine: Machine) -> None:
    machine.run("ip", "netns", "add", "red")
    answer = from_(machine, "netns:red", f"127.0.0.1:{machine.port}")
    assert answer.cause
    assert answer.cause["code"] == "loopback/interface-down", answer
    command = answer.cause["remedies"][0]["commands"][0]
    assert command["argv"][:2] == ["nsenter", "--net=/run/netns/red"]
    machine.run(*command["argv"])
    assert "LOOPBACK,UP" in machine.run("ip", "-n", "red", "link")


def test_a_port_is_free_over_there_though_it_is_taken_here(blue: Machine) -> None:
    blue.serve()
    answer = from_(blue, "netns:blue", "--bind", f"127.0.0.1:{blue.port}")
    assert (answer.report["verdict"], answer.exit_code) == ("bindable", 0), answer


def test_a_process_is_looked_from_by_its_number(machine: Machine, another: Machine) -> None:
    server = another.serve()
    answer = from_(machine, of(server.pid), f"127.0.0.1:{machine.port}")
    assert answer.report["verdict"] == "reachable", answer
    assert answer.report["vantage"]["from"] == of(server.pid)


def test_a_process_of_our_own_namespace_sees_what_we_see(machine: Machine) -> None:
    server = machine.serve()
    with nothing_left_behind(machine):
        answer = from_(machine, of(server.pid), f"localhost:{machine.port}")
    assert answer.report["verdict"] == "reachable", answer
    assert "resolution/prefers-other-family" in answer.codes, "::1 first, and it listens on 127.0.0.1 only"
    assert answer.report["vantage"]["side"]["namespace"] is None


def test_a_recording_from_another_side_is_replayed_without_it(blue: Machine) -> None:
    with serving_in(blue, "blue", "127.0.0.1", blue.port + 1):
        blue.run("mkdir", "/run/kept")
        answer = from_(blue, "netns:blue", "--record", "/run/kept/case.json", f"127.0.0.1:{blue.port}")
    blue.run("ip", "netns", "delete", "blue")
    again = blue.netdiag("replay", "--json", "/run/kept/case.json")
    assert json.loads(again.stdout) == answer.report


# its names


def test_names_are_those_of_its_hosts_file(machine: Machine) -> None:
    machine.serve(address="127.0.0.9")
    with other_files(machine, hosts="127.0.0.9 db.internal\n") as origin:
        there = from_(machine, origin, f"db.internal:{machine.port}")
    assert [one["address"] for one in there.report["attempts"]] == ["127.0.0.9"], there
    assert there.report["verdict"] == "reachable", there
    here = machine.netdiag("run", "--json", f"db.internal:{machine.port}")
    assert here.cause
    assert here.cause["code"] == "resolution/not-found", here


def test_a_hosts_file_without_localhost_is_theirs_and_no_command_touches_ours(machine: Machine) -> None:
    machine.serve()
    with other_files(machine, hosts="127.0.0.1 other\n", resolv_conf="nameserver 127.0.0.1\n") as origin:
        answer = from_(machine, origin, f"localhost:{machine.port}")
    assert answer.cause
    assert answer.cause["code"] == "resolution/hosts-file-broken", answer
    for remedy in answer.cause["remedies"]:
        assert not remedy["commands"], answer
        assert all(edit["file"].startswith("/etc/hosts of process ") for edit in remedy["edits"]), answer


def test_a_module_that_is_not_run_from_outside_makes_no_answer_certain(machine: Machine) -> None:
    machine.serve()
    files = {"hosts": "127.0.0.1 db\n", "resolv_conf": "nameserver 127.0.0.1\n", "nsswitch_conf": "hosts: sss files\n"}
    with other_files(machine, **files) as origin:
        found = from_(machine, origin, f"db:{machine.port}")
        lost = from_(machine, origin, f"nobody:{machine.port}")
    assert found.report["verdict"] == "reachable", found
    assert any("sss" in one["reason"] for one in found.report["not_checked"]), found
    assert (lost.report["verdict"], lost.cause) == ("inconclusive", None), lost
    assert any("sss" in one["reason"] for one in lost.report["not_checked"]), lost


def test_a_hosts_file_that_its_user_may_not_read_does_not_count(machine: Machine) -> None:
    machine.serve()
    machine.write("/run/theirs/hosts", "127.0.0.1 db\n", 0o600)
    setup = "mount --bind /run/theirs/hosts /etc/hosts"
    script = f"{setup}; echo ready; exec setpriv --reuid {NOBODY} --regid {NOBODY} --clear-groups sleep 100"
    argv = machine.inside(["unshare", "--mount", "--propagation", "private", "sh", "-c", script])
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            wait_for(lambda: machine.run("cat", f"/proc/{process.pid}/comm").startswith("sleep"), "it to become nobody")
            answer = from_(machine, of(process.pid), f"db:{machine.port}")
        finally:
            process.kill()
    assert answer.report["verdict"] == "unreachable", answer
    assert "resolution/not-found" in answer.codes or "resolution/hosts-file-broken" in answer.codes, answer


def test_the_files_of_a_named_namespace_lie_over_those_of_the_machine(blue: Machine) -> None:
    blue.write("/etc/netns/blue/hosts", "127.0.0.7 db.internal\n")
    with serving_in(blue, "blue", "127.0.0.7", blue.port):
        answer = from_(blue, "netns:blue", f"db.internal:{blue.port}")
    assert answer.report["verdict"] == "reachable", answer
    assert [one["address"] for one in answer.report["attempts"]] == ["127.0.0.7"], answer


HANGING = """
import ctypes, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
device = os.open("/dev/fuse", os.O_RDWR)
options = f"fd={device},rootmode=100644,user_id=0,group_id=0,allow_other".encode()
if libc.mount(b"lab", b"/etc/hosts", b"fuse.lab", 0, options):
    sys.exit(f"mount: {os.strerror(ctypes.get_errno())}")
request = os.read(device, 1 << 17)
unique = struct.unpack_from("=IIQ", request)[2]
answer = struct.pack("=IIIIHHIIHHI28x", 7, 31, 65536, 0, 0, 0, 4096, 1, 0, 0, 0)
os.write(device, struct.pack("=IiQ", 16 + len(answer), 0, unique) + answer)
print("ready", flush=True)
while True:
    os.read(device, 1 << 17)  # and no answer
"""
"""A hosts file on a file system of its own (FUSE) that never answers, not even a signal."""


def test_a_hosts_file_that_never_answers_costs_seconds_and_not_the_run(machine: Machine) -> None:
    machine.write("/run/hanging.py", HANGING)
    machine.serve()
    argv = machine.inside(["unshare", "--mount", "--propagation", "private", "/run/python3", "-I", "/run/hanging.py"])
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            if process.stdout.readline() != b"ready\n":
                pytest.skip(f"no FUSE here: {process.stderr.read().decode()}")
            by_name = ["/run/bin/netdiag", "run", "--json", "--from", of(process.pid), f"localhost:{machine.port}"]
            started = time.monotonic()
            done = subprocess.run(machine.inside(by_name), capture_output=True, timeout=40, check=False)
            took = time.monotonic() - started
        finally:
            process.kill()
    report = json.loads(done.stdout)
    assert (report["verdict"], report["root_cause"], done.returncode) == ("inconclusive", None, 3), report
    assert any(
        "/etc/hosts" in f"{one}" or re.search(r"within [\d.]+ s", one["reason"]) for one in report["not_checked"]
    ), report
    assert took < 20, took


# what it does not share with the processes over there


def test_a_program_on_their_cgroup_is_not_taken_for_one_that_judges_us(machine: Machine, another: Machine) -> None:
    if unified() is None:
        pytest.skip("the cgroup2 file system is not mounted")
    server = another.serve()
    with cgroup("theirs") as theirs:
        theirs.filter("connect4")
        theirs.enter(server.pid)
        answer = from_(machine, of(server.pid), f"127.0.0.1:{machine.port}")
    assert answer.report["verdict"] == "reachable", answer
    assert any("lab_filter" in one["reason"] for one in answer.report["not_checked"]), answer


# not root, and not there


def test_an_ordinary_user_is_told_what_proc_shows_and_never_of_his_own_localhost(
    machine: Machine, another: Machine
) -> None:
    machine.serve()
    server = another.serve(port=machine.port + 1)
    answer = from_(machine, of(server.pid), f"127.0.0.1:{machine.port}", uid=NOBODY)
    assert (answer.report["verdict"], answer.exit_code, answer.cause) == ("inconclusive", 3, None), answer
    assert answer.report["attempts"] == [], answer
    assert b"needs root" in answer.stderr
    [lift] = [one["lift"] for one in answer.report["not_checked"] if one["fact"] == "vantage"]
    assert lift.startswith("sudo ")
    assert lift.endswith(f"run --from pid:{server.pid} 127.0.0.1:{machine.port}")
    seen = from_(machine, of(server.pid), f"localhost:{machine.port + 1}", uid=NOBODY)
    assert "in-use/listener" in seen.codes, seen
    assert seen.report["verdict"] == "inconclusive", seen


def test_every_fact_that_is_had_by_who_may_enter_is_had_or_listed_for_who_may_not(
    machine: Machine, another: Machine
) -> None:
    server = another.serve(port=machine.port + 1)
    for target in (f"127.0.0.1:{machine.port}", f"localhost:{machine.port}"):
        facts: dict[int, dict[str, Any]] = {}
        reports = {}
        for uid in (ROOT, NOBODY):
            case = f"{machine.scratch}/cwd/case.json"
            argv = [INSTALLED, "run", "--json", "--from", of(server.pid), "--record", case, target]
            done = subprocess.run(machine.inside(argv, uid), capture_output=True, timeout=20, check=False)
            reports[uid] = json.loads(done.stdout)
            recorded = json.loads(Path(case).read_text())
            (snapshot,) = recorded.get("snapshots", [recorded])
            facts[uid] = {name: fact for name, fact in snapshot.items() if isinstance(fact, dict) and "fact" in fact}
            Path(case).unlink()
        known = {name for name, fact in facts[ROOT].items() if fact["fact"] == "known"}
        assert len(known) >= 15, known
        for name in known:
            assert facts[NOBODY][name].get("reason") != "not needed", f"{name} is dropped without a word"
        unknown = [name for name, fact in facts[NOBODY].items() if fact.get("reason") not in (None, "not needed")]
        listed = reports[NOBODY]["not_checked"]
        assert len(listed) == len(unknown) + 1, (unknown, listed)  # and the vantage
        assert all(one["reason"] and one["lift"] for one in listed), listed


def test_a_named_namespace_is_closed_to_an_ordinary_user_and_nothing_of_ours_is_shown(blue: Machine) -> None:
    blue.serve()
    answer = from_(blue, "netns:blue", f"127.0.0.1:{blue.port}", uid=NOBODY)
    assert (answer.report["verdict"], answer.exit_code) == ("inconclusive", 3), answer
    assert answer.codes == [], answer


@pytest.mark.parametrize(
    ("origin", "said"),
    [
        ("web", "names no place"),
        ("host:web", "knows no 'host'"),
        ("pid:0", "no process number"),
        ("pid:4194303", "no process has the number"),
        ("netns:nope", "no network namespace is named"),
        ("netns:../../etc/passwd", "no name that"),
        ("container:web", "--from container:web: no container engine is here"),
    ],
)
def test_what_is_not_there_is_told_in_one_line_before_anything_is_tried(
    machine: Machine, origin: str, said: str
) -> None:
    answer = machine.netdiag("run", "--from", origin, f"localhost:{machine.port}")
    assert (answer.exit_code, answer.stdout) == (2, b"")
    assert said in answer.stderr.decode()
    assert answer.stderr.count(b"\n") == 1
