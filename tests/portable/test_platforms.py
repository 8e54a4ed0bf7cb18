"""macOS and Windows: the portable part works, the rest is "not Linux", and nothing is made up (see stand_in.py)."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.portable.command import LINUX, PLATFORMS, closed, listening, netdiag, published_schema

NO_SUCH_NAME = "no-such-name.invalid"
"""RFC 6761: it never exists."""

# a process of its own that listens, says so, and waits
SERVER = """
import socket, time
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
time.sleep(30)
"""


@pytest.fixture(params=PLATFORMS)
def platform(request: pytest.FixtureRequest) -> str:
    """sys.platform there."""
    return str(request.param)


def test_a_server_is_reached_and_its_program_named(platform: str) -> None:
    with listening() as port:
        answer = netdiag(platform, "run", "--json", f"127.0.0.1:{port}")
    assert (answer.exit_code, answer.report["verdict"]) == (0, "reachable")
    assert answer.report["vantage"]["platform"] == platform
    assert f"(pid {os.getpid()}) listens on 127.0.0.1:{port}" in answer.report["findings"][0]["title"]
    assert answer.report["vantage"]["network_namespace"] is None


def test_localhost_is_resolved_without_a_fork(platform: str) -> None:
    with listening() as port:
        answer = netdiag(platform, "run", "--json", f"localhost:{port}")
    assert "connected" in [attempt["outcome"] for attempt in answer.report["attempts"]]


def test_a_closed_port_is_refused_and_the_cause_is_no_surer_than_what_was_seen(platform: str) -> None:
    with closed() as port:
        answer = netdiag(platform, "run", "--json", f"127.0.0.1:{port}")
    assert (answer.exit_code, answer.report["verdict"]) == (1, "unreachable")
    assert (answer.cause["code"], answer.cause["confidence"]) == ("refused/nothing-listening", "likely")
    assert [attempt["errno"] for attempt in answer.report["attempts"]] == ["ECONNREFUSED"]


def test_what_a_failure_needs_linux_for_is_listed_as_not_checked(platform: str) -> None:
    with closed() as port:
        answer = netdiag(platform, "run", "--json", f"127.0.0.1:{port}")
    assert answer.not_linux >= {
        "bound sockets",
        "other network namespaces",
        "port sysctls",
        "resolver configuration",
        "routes",
        "who sent the reset",
    }


def test_a_check_that_needed_what_only_linux_tells_is_not_clear(platform: str) -> None:
    with closed() as port:
        answer = netdiag(platform, "run", "--json", f"127.0.0.1:{port}")
    skipped = {check["name"]: check["reason"] for check in answer.report["checks"] if check["outcome"] == "skipped"}
    assert skipped["container"] == "containers: not Linux; other network namespaces: not Linux"
    assert answer.checks["refused"] == "found"


def test_a_server_on_the_other_family_is_found(platform: str) -> None:
    with listening("::1") as port:
        answer = netdiag(platform, "run", "--json", f"127.0.0.1:{port}")
    assert answer.cause["code"] == "refused/other-family"
    assert answer.cause["remedies"][0]["commands"][0]["argv"] == ["netdiag", "run", f"[::1]:{port}"]


def test_a_stopped_server_is_found_though_its_side_of_the_connection_is_not_seen(platform: str) -> None:
    with subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        os.kill(server.pid, signal.SIGSTOP)
        answer = netdiag(platform, "run", "--json", f"127.0.0.1:{port}")
        server.kill()
    assert answer.cause["code"] == "hung/process-stopped"


def test_a_taken_port_cannot_be_bound_and_its_holder_is_named(platform: str) -> None:
    with listening() as port:
        answer = netdiag(platform, "run", "--bind", "--json", f"127.0.0.1:{port}")
    assert (answer.exit_code, answer.report["verdict"]) == (1, "not-bindable")
    assert answer.cause["code"] == "in-use/listener"
    assert f"(pid {os.getpid()})" in answer.cause["title"]


def test_a_free_port_can_be_bound(platform: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    answer = netdiag(platform, "run", "--bind", "--json", f"127.0.0.1:{port}")
    assert (answer.exit_code, answer.report["verdict"]) == (0, "bindable")


def test_an_address_of_no_interface_cannot_be_bound(platform: str) -> None:
    answer = netdiag(platform, "run", "--bind", "--json", "203.0.113.77:8080")
    assert answer.cause["code"] == "in-use/address-not-local"
    interfaces = [one["text"] for one in answer.cause["evidence"] if one["source"] == "interfaces"]
    assert any("127.0.0.1" in text for text in interfaces)


def test_a_name_that_does_not_exist_is_the_cause(platform: str) -> None:
    answer = netdiag(platform, "run", "--json", f"{NO_SUCH_NAME}:80")
    assert answer.exit_code == 1
    assert answer.cause["code"] == "resolution/not-found"
    assert "resolver configuration" in answer.not_linux


def test_looking_only_says_what_it_saw_and_that_it_is_not_known_whether_it_works(platform: str) -> None:
    with listening() as port:
        answer = netdiag(platform, "run", "--passive", "--json", f"127.0.0.1:{port}")
    assert (answer.exit_code, answer.report["verdict"]) == (3, "inconclusive")
    assert answer.codes == {"in-use/listener"}
    assert answer.checks["firewall"] == "skipped"


@pytest.mark.skipif(Path("/etc/hosts").is_file() is False, reason="needs a hosts file")
def test_looking_only_reads_the_hosts_file_of_that_platform() -> None:
    there = netdiag("darwin", "run", "--passive", "--json", "localhost:1")
    assert there.checks["resolution"] == "clear"
    absent = netdiag("win32", "run", "--passive", "--json", "localhost:1")
    (said,) = [one["reason"] for one in absent.report["not_checked"] if one["fact"] == "name resolution"]
    assert said.startswith("passive:")
    assert "does not exist" in said


def test_several_targets_are_one_valid_document(platform: str) -> None:
    with listening() as open_port, closed() as port:
        answer = netdiag(platform, "run", "--json", f"127.0.0.1:{open_port}", f"127.0.0.1:{port}")
    assert [one["verdict"] for one in answer.report["reports"]] == ["reachable", "unreachable"]
    assert answer.exit_code == 1


@pytest.mark.parametrize("form", ["text", "markdown"])
def test_people_read_the_same(platform: str, form: str) -> None:
    with closed() as port:
        answer = netdiag(platform, "run", "--format", form, f"127.0.0.1:{port}")
    assert f"Nothing listens on 127.0.0.1:{port}" in answer.stdout.decode()
    assert "not Linux" in answer.stdout.decode()


@pytest.mark.parametrize("option", [("--pcap", "p.pcap"), ("--trace",)])
def test_what_only_the_linux_kernel_shows_is_refused(platform: str, option: tuple[str, ...], tmp_path: Path) -> None:
    answer = netdiag(platform, "run", *option, "127.0.0.1:1")
    assert (answer.exit_code, answer.stdout) == (2, b"")
    assert answer.stderr == f"netdiag: {option[0]} asks the Linux kernel, and this is not Linux: leave it out\n"


def test_the_other_commands_need_no_linux(platform: str) -> None:
    assert netdiag(platform, "schema").stdout == netdiag(LINUX, "schema").stdout
    assert netdiag(platform, "checks").stdout == netdiag(LINUX, "checks").stdout
    code = "refused/nothing-listening"
    assert netdiag(platform, "explain", code).stdout == netdiag(LINUX, "explain", code).stdout
    assert netdiag(platform, "--version").exit_code == 0


def test_a_bad_target_is_one_line(platform: str) -> None:
    answer = netdiag(platform, "run", "127.0.0.1:70000")
    assert answer.exit_code == 2
    assert len(answer.stderr.splitlines()) == 1


def test_the_schema_is_that_of_linux() -> None:
    assert published_schema()["$defs"]
