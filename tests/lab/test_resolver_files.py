"""Something else than a regular file where the resolver reads one: no run hangs, grows, or names a false cause."""

from __future__ import annotations

import json
import subprocess
import time

import pytest

from tests.lab.machine import INSTALLED, NOBODY, ROOT, Answer, Machine
from tests.lab.protocol import Scenario, no_cause, proven, works
from tests.lab.test_from import HANGING

BROKEN = "resolution/hosts-file-broken"
USERS = pytest.mark.parametrize("uid", [ROOT, NOBODY], ids=["root", "nobody"])
MEASURE = """
import resource, subprocess, sys
done = subprocess.run(sys.argv[1:], capture_output=True, timeout=25)
sys.stdout.buffer.write(done.stdout)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024, file=sys.stderr)
sys.exit(done.returncode)
"""
"""Runs a command, then prints on standard error how many MiB its largest process took."""


def localhost(machine: Machine) -> str:
    return f"localhost:{machine.port}"


def in_its_place(machine: Machine, path: str, what: str) -> None:
    """Puts it where the file stands."""
    match what:
        case "fifo":
            machine.run("sh", "-c", f"rm -f {path}; mkfifo -m 644 {path}")
        case "directory":
            machine.run("sh", "-c", f"rm -f {path}; mkdir {path}")
        case "socket":
            script = f"import socket; socket.socket(socket.AF_UNIX).bind({path!r})"
            machine.run("sh", "-c", f'rm -f {path}; /run/python3 -c "{script}"')
        case "sparse":
            machine.run("truncate", "-s", "1G", path)
        case device:
            machine.run("mount", "--bind", device, path)


def measured(machine: Machine, *arguments: str, uid: int = ROOT) -> tuple[Answer, int]:
    """The answer, and the MiB that it took."""
    answer = machine.netdiag(*arguments, uid=uid, before=("/run/python3", "-c", MEASURE))
    return answer, int(answer.stderr.split()[-1])


@pytest.mark.parametrize("what", ["fifo", "directory"])
def test_a_hosts_file_that_is_no_file_is_moved_aside(machine: Machine, scenario: Scenario, what: str) -> None:
    machine.serve()
    in_its_place(machine, "/etc/hosts", what)
    answer = scenario.says(proven(BROKEN), as_nobody=proven(BROKEN), target=localhost(machine))
    assert answer.cause
    kind = {"fifo": "a FIFO", "directory": "a directory"}[what]
    assert answer.cause["title"] == f"/etc/hosts is {kind}, not a regular file"
    assert answer.seconds < 14


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/null"])
def test_a_device_that_is_mounted_over_the_hosts_file_is_unmounted(
    machine: Machine, scenario: Scenario, device: str
) -> None:
    machine.serve("accepts", "::")
    in_its_place(machine, "/etc/hosts", device)
    answer = scenario.says(proven(BROKEN), as_nobody=proven(BROKEN), target=localhost(machine))
    assert answer.cause
    assert answer.cause["title"] == "/etc/hosts is a device, not a regular file"


def test_a_socket_in_the_place_of_the_hosts_file_is_moved_aside(machine: Machine, scenario: Scenario) -> None:
    machine.serve()
    in_its_place(machine, "/etc/hosts", "socket")
    scenario.says(proven(BROKEN), as_nobody=proven(BROKEN), target=localhost(machine))


@USERS
@pytest.mark.parametrize("what", ["fifo", "directory", "socket", "/dev/zero", "/dev/random", "sparse"])
def test_looking_only_does_not_wait_for_the_hosts_file(machine: Machine, what: str, uid: int) -> None:
    machine.serve()
    in_its_place(machine, "/etc/hosts", what)
    answer, size = measured(machine, "run", "--json", "--passive", localhost(machine), uid=uid)
    assert no_cause("inconclusive").is_said_by(answer), str(answer)
    (missing,) = [one for one in answer.report["not_checked"] if one["fact"] == "name resolution"]
    assert "/etc/hosts" in missing["reason"]
    problems = [one["code"] for one in answer.report["findings"] if one["severity"] != "info"]
    assert problems == ([] if what == "sparse" else [BROKEN])
    assert (answer.seconds < 12, size < 200) == (True, True), (answer.seconds, size)


@USERS
@pytest.mark.parametrize("what", ["sparse", "/dev/zero"])
def test_a_hosts_file_without_end_does_not_fill_the_memory(machine: Machine, what: str, uid: int) -> None:
    machine.serve()
    in_its_place(machine, "/etc/hosts", what)
    answer, size = measured(machine, "run", "--json", localhost(machine), uid=uid)
    assert size < 200
    assert answer.seconds < 14
    problems = [one["code"] for one in answer.report["findings"] if one["severity"] != "info"]
    assert problems == ([BROKEN, "resolution/not-found"] if what == "/dev/zero" else [])
    if what == "sparse":
        assert no_cause("inconclusive").is_said_by(answer), str(answer)
        assert "1073741824 bytes" in json.dumps(answer.report["not_checked"])


@USERS
@pytest.mark.parametrize("what", ["fifo", "/dev/zero", "sparse", "directory"])
@pytest.mark.parametrize(
    "path", ["/etc/hosts", "/etc/resolv.conf", "/etc/nsswitch.conf", "/etc/gai.conf", "/etc/host.conf", "/etc/passwd"]
)
def test_an_address_is_diagnosed_whatever_stands_where_names_are_read(
    machine: Machine, path: str, what: str, uid: int
) -> None:
    machine.serve()
    in_its_place(machine, path, what)
    well, size = measured(machine, "run", "--json", f"127.0.0.1:{machine.port}", uid=uid)
    assert works().is_said_by(well), str(well)
    refused, larger = measured(machine, "run", "--json", f"127.0.0.1:{machine.port + 1}", uid=uid)
    allowed = proven("refused/nothing-listening").weaker()  # an ordinary user's proof gets weaker on a busy machine
    assert refused.cause, str(refused)
    assert any(one.is_said_by(refused) for one in allowed), str(refused)
    assert max(size, larger) < 200
    assert max(well.seconds, refused.seconds) < 12


@USERS
@pytest.mark.parametrize("path", ["/etc/resolv.conf", "/etc/nsswitch.conf", "/etc/host.conf"])
def test_another_file_of_the_resolver_that_is_a_fifo_is_named(machine: Machine, path: str, uid: int) -> None:
    machine.serve()
    in_its_place(machine, path, "fifo")
    answer = machine.netdiag("run", "--json", localhost(machine), uid=uid)
    assert (answer.exit_code, answer.codes) == (1, ["resolution/not-found"]), str(answer)
    assert answer.cause
    assert f"{path}: it is a FIFO and no regular file" in json.dumps(answer.cause["evidence"])
    assert answer.seconds < 12


def test_a_link_to_a_regular_hosts_file_is_followed(machine: Machine, scenario: Scenario) -> None:
    machine.serve()
    machine.write("/run/store/hosts", "127.0.0.1 localhost\n")
    machine.run("ln", "-sf", "/run/store/hosts", "/etc/hosts")
    scenario.says(works(), target=localhost(machine))


def test_a_hosts_file_of_a_hundred_thousand_lines_is_read(machine: Machine, scenario: Scenario) -> None:
    machine.serve()
    blocked = "".join(f"0.0.0.0 ads{number}.test\n" for number in range(100_000))
    machine.write("/etc/hosts", f"{blocked}127.0.0.1 localhost\n")
    scenario.says(works(), target=localhost(machine))
    answer = machine.netdiag("run", "--json", "--passive", localhost(machine))
    assert not [one for one in answer.report["not_checked"] if one["fact"] == "hosts file"], str(answer)


@pytest.mark.parametrize("arguments", [("--passive",), ()], ids=["looking-only", "asking"])
def test_a_hosts_file_that_never_answers_does_not_hold_the_run(machine: Machine, arguments: tuple[str, ...]) -> None:
    machine.write("/run/hanging.py", HANGING)
    machine.serve()
    argv = machine.inside(["/run/python3", "-I", "/run/hanging.py"])
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            if process.stdout.readline() != b"ready\n":
                pytest.skip(f"no FUSE here: {process.stderr.read().decode()}")
            started = time.monotonic()
            command = machine.inside([INSTALLED, "run", "--json", *arguments, localhost(machine)])
            done = subprocess.run(command, capture_output=True, timeout=45, check=False)
            took = time.monotonic() - started
        finally:
            process.kill()
    report = json.loads(done.stdout)
    assert (report["verdict"], report["root_cause"], done.returncode) == (
        "inconclusive" if arguments else report["verdict"],
        None,
        3,
    )
    assert took < (12 if arguments else 32), took
