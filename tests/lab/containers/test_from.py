"""--from container:NAME: its localhost, its names, and the ground it stands on, which is hostile."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.lab.docker import DockerMachine
from tests.lab.machine import NOBODY, Answer, nothing_left_behind, wait_for
from tests.lab.protocol import Scenario

SECRET = "netdiag-lab-secret"
"""A word that only the host's own files hold."""


def from_(machine: DockerMachine, name: str, *arguments: str, uid: int = 0) -> Answer:
    """One run from that container, as JSON."""
    return machine.netdiag("run", "--json", "--from", f"container:{name}", *arguments, uid=uid)


def addresses(answer: Answer) -> list[str]:
    return [one["address"] for one in answer.report["attempts"]]


def reasons(answer: Answer) -> str:
    return "\n".join(f"{one['fact']}: {one['reason']}" for one in answer.report["not_checked"])


def inside(machine: DockerMachine, name: str, script: str) -> str:
    """What a shell in the container prints."""
    return machine.docker("exec", name, "sh", "-c", script)


# whose localhost


def test_localhost_of_a_container_is_its_own_and_not_the_host_s(machine: DockerMachine, scenario: Scenario) -> None:
    machine.serve()
    machine.web("web", "127.0.0.1", machine.port + 1)
    theirs = from_(machine, "web", f"localhost:{machine.port + 1}")
    assert (theirs.report["verdict"], theirs.exit_code) == ("reachable", 0), theirs
    ours = from_(machine, "web", f"localhost:{machine.port}")
    assert (ours.report["verdict"], ours.exit_code) == ("unreachable", 1), ours
    assert ours.cause
    assert (ours.cause["code"], ours.cause["confidence"]) == ("container/own-localhost", "proven"), ours
    scenario.keep_as_root("--from", "container:web", f"localhost:{machine.port}")
    vantage = ours.report["vantage"]
    assert (vantage["from"], vantage["container"]["name"]) == ("container:web", "web")
    assert vantage["network_namespace"] == os.stat(f"/proc/{machine.pid('web')}/ns/net").st_ino


def test_a_port_that_another_container_publishes_is_not_looked_for_in_this_one(machine: DockerMachine) -> None:
    machine.web("db", "0.0.0.0", 80, options=("--publish", f"127.0.0.1:{machine.port}:80"))
    machine.web("app", "127.0.0.1", 80)
    answer = from_(machine, "app", f"localhost:{machine.port}")
    assert answer.cause
    assert answer.cause["code"] == "container/own-localhost", answer
    assert not {"container/nat-missing", "container/port-not-published", "container/published-elsewhere"} & {
        *answer.codes
    }


def test_the_container_is_found_by_a_part_of_its_id_and_without_its_engine_as_well(machine: DockerMachine) -> None:
    number = machine.web("web", "127.0.0.1", machine.port)
    assert from_(machine, number[:12], f"127.0.0.1:{machine.port}").report["verdict"] == "reachable"
    with machine.engine_that_hangs():
        answer = from_(machine, number[:12], f"127.0.0.1:{machine.port}")
    assert answer.report["verdict"] == "reachable", answer


def test_a_paused_container_is_looked_from_all_the_same(machine: DockerMachine) -> None:
    machine.web("web", "127.0.0.1", machine.port)
    machine.docker("pause", "web")
    answer = from_(machine, "web", f"localhost:{machine.port}")
    assert answer.report["verdict"] == "unreachable", answer
    assert addresses(answer) == ["127.0.0.1"], answer
    machine.docker("unpause", "web")
    assert from_(machine, "web", f"localhost:{machine.port}").report["verdict"] == "reachable"


def test_a_rule_inside_the_container_is_deleted_from_the_host_as_printed(machine: DockerMachine) -> None:
    machine.web("web", "127.0.0.1", machine.port)
    namespace = f"--net=/proc/{machine.pid('web')}/ns/net"
    machine.run(
        "nsenter", namespace, "iptables-nft", "-A", "INPUT", "-p", "tcp", "--dport", str(machine.port), "-j", "DROP"
    )
    answer = from_(machine, "web", f"127.0.0.1:{machine.port}")
    assert answer.cause
    assert (answer.cause["code"], answer.cause["confidence"]) == ("firewall/rule-drops", "proven"), answer
    for command in answer.cause["remedies"][0]["commands"]:
        assert command["argv"][:2] == ["nsenter", namespace]
        machine.run(*command["argv"])
    assert from_(machine, "web", f"127.0.0.1:{machine.port}").report["verdict"] == "reachable"


# its names


def test_a_service_of_a_network_of_its_own_is_found_by_the_engine_s_dns(
    machine: DockerMachine, scenario: Scenario
) -> None:
    machine.docker("network", "create", "shop")
    machine.web("db", "0.0.0.0", machine.port, options=("--network", "shop", "--network-alias", "database"))
    machine.web("app", "127.0.0.1", machine.port + 1, options=("--network", "shop"))
    machine.web("stranger", "127.0.0.1", machine.port + 1)
    for name in ("db", "database"):
        there = from_(machine, "app", f"{name}:{machine.port}")
        assert there.report["verdict"] == "reachable", there
        assert addresses(there) == [machine.address("db")]
    scenario.keep_as_root("--from", "container:app", f"db:{machine.port}")
    here = machine.netdiag("run", "--json", f"db:{machine.port}")
    assert here.cause
    assert here.cause["code"] == "resolution/not-found", here
    other = from_(machine, "stranger", f"db:{machine.port}")
    assert other.report["verdict"] == "unreachable", other


def test_the_container_s_hosts_file_says_what_a_name_means(machine: DockerMachine) -> None:
    machine.web("web", "127.0.0.1", machine.port, options=("--add-host", "shop.internal:127.0.0.1"))
    machine.write("/etc/hosts", "127.0.0.1 localhost\n10.9.9.9 shop.internal\n")
    answer = from_(machine, "web", f"shop.internal:{machine.port}")
    assert (answer.report["verdict"], addresses(answer)) == ("reachable", ["127.0.0.1"]), answer


# hostile ground


@contextmanager
def trap(machine: DockerMachine, script: str) -> Iterator[str]:
    """A container that has changed its own files by this script; its name."""
    machine.container(
        "trap", "sleep", "1000", options=("--cap-add", "SYS_ADMIN", "--security-opt", "seccomp=unconfined")
    )
    inside(machine, "trap", f"umount /etc/hosts /etc/resolv.conf /etc/hostname; rm -f /etc/hosts; set -e; {script}")
    yield "trap"


def not_read(machine: DockerMachine, name: str) -> str:
    """What is said of a name that nobody could look up, with no verdict about it and nothing of ours in it."""
    started = time.monotonic()
    with nothing_left_behind(machine):
        answer = from_(machine, name, f"somebody:{machine.port}")
    assert time.monotonic() - started < 8, "it waited"
    assert (answer.report["verdict"], answer.cause, answer.exit_code) == ("inconclusive", None, 3), answer
    assert SECRET.encode() not in answer.stdout + answer.stderr
    return reasons(answer)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("ln -s /proc/1/root/etc/hosts /etc/hosts", "/proc that leads out of its root"),
        ("ln -s /proc/self/root/../etc/shadow /etc/hosts", "leads nowhere from here"),
        ("mkfifo /etc/hosts", "a FIFO"),
        ("mknod /etc/hosts c 1 5", "a device"),
        ("mknod /etc/hosts b 8 0", "a device"),
        ("mkdir /etc/hosts", "a directory"),
        ("truncate -s 10G /etc/hosts", "10737418240 bytes"),
        ("ln -s /proc/kmsg /etc/hosts", "the kernel's own"),
        ("ln -s /proc/cpuinfo /etc/hosts", "the kernel's own"),
        ("ln -s /sys/kernel/notes /etc/hosts", "the kernel's own"),
        ("ln -s hosts /etc/hosts", "not followed"),
        ("mkfifo /etc/nsswitch.conf", "a FIFO"),
        ("rm -f /etc/resolv.conf; mkfifo /etc/resolv.conf", "a FIFO"),
    ],
)
def test_a_file_that_is_a_trap_is_never_opened(machine: DockerMachine, script: str, said: str) -> None:
    with trap(machine, script) as name:
        assert said in not_read(machine, name)


@pytest.mark.parametrize(
    "script",
    [
        "ln -s /etc/shadow /etc/hosts",
        "ln -s ../../../../../../../../etc/shadow /etc/hosts",
        "rm -rf /etc; ln -s /../../../etc /etc",
        "mkdir /a; ln -s /.. /a/b; ln -s /a/b/../../etc/shadow /etc/hosts",
    ],
)
def test_a_link_leads_no_further_than_the_container_s_own_root(machine: DockerMachine, script: str) -> None:
    machine.write("/etc/shadow", f"127.0.0.1 somebody {SECRET}\n", 0o600)
    machine.serve()
    with trap(machine, script) as name:
        answer = from_(machine, name, f"somebody:{machine.port}")
    assert answer.report["verdict"] != "reachable", answer
    assert "127.0.0.1" not in addresses(answer), answer
    assert SECRET.encode() not in answer.stdout + answer.stderr


def test_no_module_of_the_container_is_ever_loaded(machine: DockerMachine, tmp_path: Path) -> None:
    canary = tmp_path / "canary.c"
    canary.write_text(
        "#include <fcntl.h>\n#include <unistd.h>\n__attribute__((constructor)) static void sing(void)\n"
        '{ int f = open("/run/sung", O_CREAT | O_WRONLY, 0644); if (f >= 0) close(f); }\n'
        "int _nss_canary_gethostbyname4_r(void) { return 0; }\n"
    )
    library = tmp_path / "libnss_canary.so.2"
    compiler = next((path for one in ("cc", "gcc", "clang") if (path := shutil.which(one))), None)
    if compiler is None:
        pytest.skip("no C compiler")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, canary], check=True)
    # the canary sings where its module is loaded
    machine.write("/run/libnss_canary.so.2", library.read_bytes(), 0o755)
    machine.write("/etc/nsswitch.conf", "hosts: canary files\n")
    machine.run("env", "LD_LIBRARY_PATH=/run", "getent", "ahosts", "localhost", check=False)
    assert machine.run("ls", "/run").split().count("sung") == 1
    machine.run("rm", "/run/sung")
    machine.write("/etc/nsswitch.conf", "hosts: files dns\n")
    with trap(
        machine, "printf 'hosts: canary files\\n' >/etc/nsswitch.conf; printf '127.0.0.1 db\\n' >/etc/hosts"
    ) as name:
        for folder in ("lib", "lib64", "usr/lib", "usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"):
            inside(machine, name, f"mkdir -p /{folder}")
            for module in ("canary", "files", "dns"):
                machine.docker("cp", str(library), f"{name}:/{folder}/libnss_{module}.so.2")
        found = from_(machine, name, f"db:{machine.port}")
        lost = from_(machine, name, f"nobody:{machine.port}")
        sung = inside(machine, name, "ls /run 2>/dev/null || true")
    assert addresses(found) == ["127.0.0.1"], found
    assert "canary" in reasons(found), found
    assert (lost.report["verdict"], lost.cause) == ("inconclusive", None), lost
    assert "sung" not in machine.run("ls", "/run") + sung


def test_escape_sequences_of_the_container_s_files_do_not_reach_the_terminal(machine: DockerMachine) -> None:
    script = (
        "printf '127.0.0.1\\033[2J localhost \\033]0;owned\\007\\n' >/etc/hosts; "
        "printf 'hosts: files \\033[31mevil\\n' >/etc/nsswitch.conf; printf 'nameserver \\033[31m\\n' >/etc/resolv.conf"
    )
    with trap(machine, script) as name:
        shown = machine.netdiag("run", "--from", f"container:{name}", f"localhost:{machine.port}")
    assert b"\x1b" not in shown.stdout + shown.stderr
    assert b"\x07" not in shown.stdout + shown.stderr


def test_a_million_lines_of_its_hosts_file_do_not_hold_the_run_up(machine: DockerMachine) -> None:
    with trap(machine, "yes '127.0.0.1 a' | head -c 1048576 >/etc/hosts") as name:
        started = time.monotonic()
        answer = from_(machine, name, f"a:{machine.port}")
    assert addresses(answer) in ([], ["127.0.0.1"]), answer
    assert time.monotonic() - started < 8


def test_an_engine_on_the_container_s_own_loopback_is_not_believed(machine: DockerMachine) -> None:
    """What DOCKER_HOST names is on our loopback, wherever --from looks from."""
    machine.web("web", "127.0.0.1", 2375)
    argv = machine.inside(["env", "DOCKER_HOST=tcp://127.0.0.1:2375", "/run/bin/netdiag", "run", "--json", "--from"])
    done = subprocess.run(
        [*argv, "container:web", f"localhost:{machine.port}"], capture_output=True, timeout=20, check=False
    )
    report: dict[str, Any] = json.loads(done.stdout)
    told = [one for one in report["not_checked"] if "2375" in f"{one['reason']} {one['fact']}"]
    assert all("Connection refused" in one["reason"] or "does not run" in one["reason"] for one in told), told
    assert inside(machine, "web", "cat /proc/net/tcp | grep -c :0947 || true").strip() == "1"


# a container that goes


def test_a_container_that_dies_during_the_run_is_told_of(machine: DockerMachine) -> None:
    machine.web("web", "0.0.0.0", 80)
    machine.run("ip", "link", "add", "out", "type", "veth", "peer", "name", "far")
    machine.run("ip", "link", "set", "out", "up")
    machine.run("ip", "route", "add", "203.0.113.0/24", "dev", "out")
    machine.chain("forward", "ip daddr 203.0.113.9 drop", priority=-10)  # the run waits for an answer from there
    argv = machine.inside(["/run/bin/netdiag", "run", "--json", "--timeout", "4", "--from", "container:web"])
    with subprocess.Popen([*argv, "203.0.113.9:80"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        inside = Path(f"/proc/{machine.pid('web')}/net/tcp")
        wait_for(lambda: " 097100CB:0050 02 " in inside.read_text(), "a connection attempt from the container", 20)
        machine.docker("kill", "web")
        out, err = process.communicate(timeout=20)
    assert err == b""
    report = json.loads(out)
    assert report["verdict"] in ("unreachable", "inconclusive"), report
    assert any(one["fact"] == "vantage" and "ended" in one["reason"] for one in report["not_checked"]), report


def test_what_does_not_run_is_told_in_one_line(machine: DockerMachine) -> None:
    machine.container("gone", "true", options=("--network", "none"))
    machine.until_status("gone", "exited")
    answer = machine.netdiag("run", "--from", "container:gone", f"localhost:{machine.port}")
    assert (answer.exit_code, answer.stdout) == (2, b"")
    assert "does not run (it is exited)" in answer.stderr.decode()
    answer = machine.netdiag("run", "--from", "container:nobody", f"localhost:{machine.port}")
    assert (answer.exit_code, answer.stdout, answer.stderr.count(b"\n")) == (2, b"", 1)
    assert "no container is called 'nobody'" in answer.stderr.decode()


# not root


def test_an_ordinary_user_never_gets_the_host_s_localhost_for_the_container_s(machine: DockerMachine) -> None:
    machine.serve()
    number = machine.web("web", "127.0.0.1", machine.port + 1)
    refused = machine.netdiag("run", "--from", "container:web", f"localhost:{machine.port}", uid=NOBODY)
    assert (refused.exit_code, refused.stdout) == (2, b"")
    assert "sudo" in refused.stderr.decode()
    answer = from_(machine, number[:12], f"127.0.0.1:{machine.port}", uid=NOBODY)
    assert (answer.report["verdict"], answer.exit_code, answer.report["attempts"]) == ("inconclusive", 3, []), answer
    there = from_(machine, number[:12], f"localhost:{machine.port + 1}", uid=NOBODY)
    assert there.codes == ["in-use/listener"], there
