"""How the command behaves on a hostile machine: it changes nothing, leaves nothing, and prints nothing raw."""

from __future__ import annotations

import contextlib
import json
import re
import resource
import signal
import subprocess
import sys

import pytest

from tests.lab.machine import INSTALLED, NOBODY, ROOT, Machine, nothing_left_behind, wait_for
from tests.lab.protocol import no_cause, proven, works

RAW = re.compile(rb"[\x00-\x09\x0b-\x1f\x7f]")


def test_looking_only_sends_and_binds_nothing(machine: Machine) -> None:
    machine.serve()
    before = machine.run("cat", "/proc/net/snmp")
    answer = machine.netdiag("run", "--json", "--passive", f"localhost:{machine.port}")
    assert no_cause("inconclusive").is_said_by(answer), str(answer)
    assert answer.report["attempts"] == []
    assert machine.run("cat", "/proc/net/snmp") == before


@pytest.mark.parametrize("bind", [(), ("--bind",)])
@pytest.mark.parametrize("form", ["text", "markdown", "json"])
def test_hostile_names_of_processes_never_reach_the_terminal_raw(
    machine: Machine, form: str, bind: tuple[str, ...]
) -> None:
    hostile = (b"\x1b[2J\x1b]0;owned\x07", b"\nroot cause: none\n", b"\xff\xfe", b"--password=hunter2secret")
    machine.serve("accepts", "127.0.0.1", 0, "name=\x1b[31mred\nnew", arguments=hostile)
    answer = machine.netdiag("run", "--format", form, *bind, f"127.0.0.1:{machine.port}")
    assert str(machine.port) in answer.text
    assert not RAW.search(answer.stdout), answer.stdout
    assert b"hunter2secret" not in answer.stdout
    assert not [line for line in answer.text.splitlines() if line.startswith("root cause: none")]
    answer.stdout.decode()


def test_a_hostile_comment_in_a_rule_never_reaches_the_terminal_raw(machine: Machine) -> None:
    machine.serve()
    port = str(machine.port)
    comment = "\x1b[2Jaccept\nroot cause: none"
    machine.run(
        "iptables-legacy", "-A", "INPUT", "-p", "tcp", "--dport", port,
        "-m", "comment", "--comment", comment, "-j", "DROP",
    )  # fmt: skip
    answer = machine.netdiag("run", f"127.0.0.1:{port}")
    assert not RAW.search(answer.stdout), answer.stdout
    assert answer.exit_code in (1, 3)


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("after", [0.05, 0.15, 0.4])
def test_an_interrupted_run_leaves_nothing_behind(
    machine: Machine, signal_number: signal.Signals, after: float
) -> None:
    machine.serve("never_accepts")
    machine.serve(port=machine.port + 1)
    machine.chain("input", f"tcp dport {machine.port + 1} drop")
    targets = [f"127.0.0.1:{machine.port}", f"127.0.0.1:{machine.port + 1}"]
    with nothing_left_behind(machine):
        run = subprocess.Popen(
            machine.inside([INSTALLED, "run", "--timeout", "5", *targets]),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        with pytest.raises(subprocess.TimeoutExpired):
            run.wait(after)
        run.send_signal(signal_number)
        _, errors = run.communicate(timeout=3)
    assert b"diagnose" not in errors, errors.decode()
    # a signal that comes before our first line meets the interpreter's own start-up, which ends with 1 and says so
    assert run.returncode in (128 + signal_number, -signal_number) or b"init_import_site" in errors, run.returncode


def test_what_a_killed_run_left_is_removed_by_the_next_one(machine: Machine) -> None:
    machine.serve()
    machine.chain("input", f"tcp dport {machine.port} drop")
    target = f"127.0.0.1:{machine.port}"
    with nothing_left_behind(machine):
        for after in (0.1, 0.15, 0.2, 0.25):
            run = subprocess.Popen(machine.inside([INSTALLED, "run", target]), stdout=subprocess.DEVNULL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                run.wait(after)
            run.kill()
            run.wait()
        machine.netdiag("run", target)


@pytest.mark.parametrize("option", ["--record", "--output"])
def test_a_full_disk_gives_one_line_and_no_traceback(machine: Machine, option: str) -> None:
    machine.run("mkdir", "/run/full")
    machine.run("mount", "-t", "tmpfs", "-o", "size=4k,mode=777", "lab", "/run/full")
    machine.run("sh", "-c", "head -c 4096 /dev/zero >/run/full/ballast")
    answer = machine.netdiag("run", option, "/run/full/file", f"127.0.0.1:{machine.port}")
    assert answer.exit_code not in (0, 1), answer
    errors = answer.stderr.decode().strip().splitlines()
    assert len(errors) == 1, errors
    assert "/run/full/file" in errors[0]


def test_a_recording_of_a_fault_says_the_same_on_another_machine(machine: Machine, another: Machine) -> None:
    machine.serve()
    machine.chain("input", f"tcp dport {machine.port} drop")
    there = machine.scratch / "recording"
    there.mkdir()
    first = machine.netdiag("run", "--json", "--record", f"{there}/snapshot.json", f"127.0.0.1:{machine.port}")
    again = another.netdiag("replay", "--json", f"{there}/snapshot.json", uid=ROOT)
    assert proven("firewall/rule-drops").is_said_by(first), str(first)
    assert again.exit_code == first.exit_code
    assert {**again.report, "netdiag": ""} == {**first.report, "netdiag": ""}


def test_several_targets_share_one_report_and_the_worst_exit_code(machine: Machine) -> None:
    machine.serve()
    answer = machine.netdiag("run", "--json", f"127.0.0.1:{machine.port}", f"127.0.0.1:{machine.port + 1}")
    reports = json.loads(answer.stdout)
    assert reports["schema"] == "netdiag.reports/1"
    assert [one["verdict"] for one in reports["reports"]] == ["reachable", "unreachable"]
    assert answer.exit_code == 1


def test_ten_thousand_targets_take_less_than_half_a_minute_of_a_processor(machine: Machine) -> None:
    machine.serve()
    ports = [f"127.0.0.1:{20000 + number}" for number in range(5000)]
    addresses = [f"127.1.{number >> 8}.{number & 255}:{machine.port}" for number in range(4999)]
    argv = machine.inside([INSTALLED, "run", "--json", f"127.0.0.1:{machine.port}", *ports, *addresses])
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=150, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    reports = json.loads(run.stdout)["reports"]
    assert len(reports) == 10_000
    assert run.returncode == 1
    assert {report["verdict"] for report in reports} == {"reachable", "unreachable"}
    # and as much time goes by, unless the machine has much else to do: `make bench` measures that
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 25


def test_a_remedy_is_never_printed_with_a_shell_of_its_own(machine: Machine) -> None:
    machine.serve("accepts", "127.0.0.1", 0, "name=$(reboot);`x`")
    answer = machine.netdiag("run", "--json", "--bind", f"127.0.0.1:{machine.port}")
    assert answer.cause
    for remedy in answer.cause["remedies"]:
        for command in remedy["commands"]:
            assert command["argv"][0] not in ("sh", "bash", "sudo"), command
            assert not [word for word in command["argv"] if "reboot" in word], command


def test_a_healthy_server_is_reported_in_a_blink_and_without_a_word_on_standard_error(machine: Machine) -> None:
    machine.serve()
    answer = machine.netdiag("run", f"127.0.0.1:{machine.port}", uid=NOBODY)
    assert "reachable" in answer.text
    assert answer.exit_code == 0
    assert answer.stderr == b""


def test_packets_of_our_own_probe_and_only_those_are_kept(machine: Machine) -> None:
    machine.serve()
    machine.serve("refused_all_the_time", "127.0.0.1", machine.port + 300)
    there = machine.scratch / "capture"
    there.mkdir()
    answer = machine.netdiag("run", "--json", "--pcap", f"{there}/probe.pcap", f"127.0.0.1:{machine.port}")
    assert works().is_said_by(answer), str(answer)
    wait_for((there / "probe.pcap").exists, "the capture")
    capture = (there / "probe.pcap").read_bytes()
    assert capture[:4] in (b"\xd4\xc3\xb2\xa1", b"\x4d\x3c\xb2\xa1", b"\x0a\x0d\x0d\x0a"), capture[:4]
    assert machine.port.to_bytes(2) in capture
    assert (machine.port + 300).to_bytes(2) not in capture


@pytest.mark.parametrize("name", ["compose.yaml", ".env", "docker-compose.override.yml"])
@pytest.mark.parametrize("target", ["/proc/kmsg", "/etc/shadow"])
def test_root_reads_nothing_through_another_user_s_link_in_a_compose_project(
    machine: Machine, name: str, target: str
) -> None:
    machine.write("/etc/shadow", "root:hunter2secret:::\n", mode=0o600)
    there = "/run/project"
    machine.run("sh", "-c", f"mkdir {there}; chown {NOBODY} {there}; cd {there}; ln -s {target} {name}")
    if name != "compose.yaml":
        machine.write(f"{there}/compose.yaml", 'services:\n  web:\n    ports: ["8080:80"]\n')
    machine.run("chown", "-h", str(NOBODY), f"{there}/{name}")
    answer = machine.netdiag("run", "compose:web:80", before=("env", f"--chdir={there}"))
    assert answer.exit_code == 2, answer.stderr
    assert f"{there}/{name}: ".encode() in answer.stderr
    assert b"never opened" in answer.stderr or b"may not read it" in answer.stderr
    assert b"hunter2" not in answer.stdout + answer.stderr


@pytest.mark.parametrize("before", [(), ("env", "--ignore-signal=CHLD"), ("env", "--block-signal")])
def test_a_server_by_its_name_is_found_whatever_the_parent_does_with_signals(
    machine: Machine, before: tuple[str, ...]
) -> None:
    machine.serve("accepts", "::", 0)
    assert works().is_said_by(machine.netdiag("run", "--json", f"localhost:{machine.port}", before=before))
    closed = machine.netdiag("run", "--json", f"localhost:{machine.port + 1}", before=before, uid=NOBODY)
    assert proven("refused/nothing-listening").is_said_by(closed), str(closed)


@pytest.mark.parametrize("amount", [0, 2, 3, 4, 6, 8])
def test_a_user_who_may_have_no_more_processes_is_told_less_and_nothing_wrong(machine: Machine, amount: int) -> None:
    """For a user of its own: the limit counts all processes of a user (RLIMIT_NPROC, getrlimit(2))."""
    machine.serve()
    machine.serve("never_accepts", "127.0.0.1", machine.port + 1)
    uid, limit = 70000 + machine.port, ("prlimit", f"--nproc={amount}")
    assert machine.netdiag("run", f"127.0.0.1:{machine.port}", uid=uid, before=limit).exit_code == 0
    hung = machine.netdiag("run", "--json", f"127.0.0.1:{machine.port + 1}", uid=uid, before=limit)
    assert proven("hung/not-accepting").is_said_by(hung), str(hung)
    closed = machine.netdiag("run", "--json", f"localhost:{machine.port + 2}", uid=uid, before=limit)
    named, unknown = proven("refused/nothing-listening"), no_cause("inconclusive")
    assert named.is_said_by(closed) or unknown.is_said_by(closed), str(closed)
    for answer in (hung, closed):
        assert answer.stderr == b""
        assert amount > 6 or "RLIMIT_NPROC" in str(answer.report["not_checked"]), str(answer)


@pytest.mark.parametrize("limit", ["--as=60000000", "--as=150000000", "--data=60000000", "--nofile=8", "--nofile=40"])
@pytest.mark.parametrize("uid", [ROOT, NOBODY])
def test_a_limit_that_is_too_small_is_one_line_and_no_cause(machine: Machine, limit: str, uid: int) -> None:
    machine.serve()
    machine.chain("input", f"tcp dport {machine.port} drop")
    answer = machine.netdiag("run", "--json", f"127.0.0.1:{machine.port}", uid=uid, before=("prlimit", limit))
    assert (answer.exit_code, answer.stdout) == (70, b"")
    assert re.fullmatch(rb"netdiag: cannot start: it needs [^\n]*ulimit -[vdn], RLIMIT_[A-Z]+\)\n", answer.stderr)


@pytest.mark.parametrize("limit", ["--as=300000000", "--nofile=60", "--stack=1048576", "--fsize=0", "--memlock=0"])
def test_a_limit_that_does_changes_no_cause(machine: Machine, limit: str) -> None:
    machine.serve()
    machine.chain("input", f"tcp dport {machine.port} drop")
    answer = machine.netdiag("run", "--json", f"127.0.0.1:{machine.port}", before=("prlimit", limit))
    assert answer.stderr == b""
    assert answer.cause
    assert answer.cause["code"] in ("firewall/rule-drops", "firewall/silent")


def test_a_limit_of_processor_time_ends_the_run_and_leaves_nothing_behind(machine: Machine) -> None:
    """The signal that the kernel sends then (SIGXCPU), at a moment of our own."""
    machine.serve("never_accepts")
    with nothing_left_behind(machine):
        run = subprocess.Popen(
            machine.inside([INSTALLED, "run", "--timeout", "5", f"127.0.0.1:{machine.port}"]), stderr=subprocess.PIPE
        )
        with pytest.raises(subprocess.TimeoutExpired):
            run.wait(1.0)
        run.send_signal(signal.SIGXCPU)
        _, errors = run.communicate(timeout=3)
    assert run.returncode == 128 + signal.SIGXCPU
    assert errors.startswith(b"netdiag: the limit of CPU time is used up")


def test_what_lies_in_the_current_folder_is_never_executed_as_root(machine: Machine) -> None:
    machine.serve()
    there = machine.scratch / "theirs"
    there.mkdir()
    for name in ("checks.py", "typer.py", "msgspec.py"):
        (there / name).write_text(f"open('{there}/executed', 'w')\n")
    command = (f"--chdir={there}", sys.executable, "-m", "diagnose", "run", f"127.0.0.1:{machine.port}")
    assert "reachable" in machine.run("env", *command)
    assert not (there / "executed").exists()
