"""Standard streams that are closed, full or gone: they change no exit code but that of a report nobody could get."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from checks import CAUSES
from diagnose.recording import encode
from tests.portable.command import closed, environment, listening
from tests.scenes import dialled, held, process, refused, rows
from tests.scenes import listening as row

pty = pytest.importorskip("pty")
pytestmark = pytest.mark.skipif(os.name != "posix", reason="a shell closes the streams, and /dev/full is full")

NETDIAG = (sys.executable, "-m", "diagnose")
HERE = "127.0.0.1:8080"
REPORTS = (
    ("--help",),
    ("run", "--help"),
    ("--version",),
    ("checks",),
    ("schema",),
    ("explain", CAUSES[0].code),
    ("--show-completion", "bash"),
)
WITHOUT_OUTPUT = (">&-", ">/dev/full")
WITHOUT_ERRORS = ("2>&-", "2>/dev/full", "2>/dev/full <&-", "<&-")


def run(redirection: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[bytes]:
    """The command with its streams redirected by a shell."""
    script = f'exec "$@" {redirection}'
    env = {**environment(), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1", **variables}
    return subprocess.run(
        ["bash", "-c", script, "bash", *NETDIAG, *arguments], capture_output=True, timeout=30, check=False, env=env
    )


def named(folder: Path, program: str = "nginx") -> str:
    """A recording whose diagnosis exits with 1."""
    path = folder / "seen.json"
    path.write_bytes(encode((dialled(HERE, refused(HERE)),)))
    return str(path)


@pytest.mark.parametrize("redirection", WITHOUT_ERRORS)
def test_a_healthy_server_is_healthy_whatever_becomes_of_standard_error(redirection: str) -> None:
    with listening() as port:
        done = run(redirection, "run", "--json", f"127.0.0.1:{port}")
    assert done.returncode == 0, done
    assert json.loads(done.stdout)["verdict"] == "reachable"


@pytest.mark.parametrize("redirection", WITHOUT_ERRORS)
def test_a_named_cause_and_bad_usage_keep_their_codes(redirection: str) -> None:
    with closed() as port:
        assert run(redirection, "run", f"127.0.0.1:{port}").returncode == 1
    assert run(redirection, "run", "127.0.0.1:99999").returncode == 2
    assert run(redirection, "run", "--nonsense", HERE).returncode == 2
    assert run(redirection, "replay", "/nonexistent").returncode == 2


@pytest.mark.parametrize("redirection", [*WITHOUT_OUTPUT, ">&- <&-"])
@pytest.mark.parametrize("arguments", REPORTS, ids=" ".join)
def test_a_report_that_could_not_be_written_is_one_line_and_2(arguments: tuple[str, ...], redirection: str) -> None:
    done = run(redirection, *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(b"netdiag: cannot write to standard output: ")
    assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize("redirection", WITHOUT_OUTPUT)
def test_the_same_for_a_diagnosis(redirection: str, tmp_path: Path) -> None:
    done = run(redirection, "replay", named(tmp_path))
    assert (done.returncode, done.stderr.count(b"\n")) == (2, 1)
    with listening() as port:
        done = run(redirection, "run", f"127.0.0.1:{port}")
    assert (done.returncode, done.stderr.count(b"\n")) == (2, 1)


@pytest.mark.parametrize("redirection", [">&- 2>&-", ">/dev/full 2>/dev/full", "<&- >&- 2>&-", ">&- 2>/dev/full"])
def test_with_both_of_them_gone_it_is_2(redirection: str, tmp_path: Path) -> None:
    assert run(redirection, "replay", named(tmp_path)).returncode == 2
    assert run(redirection, "--help").returncode == 2


@pytest.mark.parametrize("redirection", WITHOUT_OUTPUT)
def test_standard_output_that_nothing_is_written_to_may_be_gone(redirection: str, tmp_path: Path) -> None:
    done = run(redirection, "replay", "--output", str(tmp_path / "report"), named(tmp_path))
    assert (done.returncode, done.stderr) == (1, b"")
    assert (tmp_path / "report").read_text().startswith(HERE)


def without_reader(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Into a pipe whose reader has gone."""
    ours, theirs = os.pipe()
    os.close(ours)
    with os.fdopen(theirs, "wb") as gone:
        return subprocess.run(
            [*NETDIAG, *arguments], stdout=gone, stderr=subprocess.PIPE, check=False, env=environment()
        )


@pytest.mark.parametrize("arguments", REPORTS[:-1], ids=" ".join)
def test_a_reader_that_has_gone_is_no_error(arguments: tuple[str, ...]) -> None:
    done = without_reader(*arguments)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_reader_that_has_gone_changes_no_diagnosis(tmp_path: Path) -> None:
    done = without_reader("replay", named(tmp_path))
    assert (done.returncode, done.stderr) == (1, b"")
    with listening() as port:
        done = without_reader("run", f"127.0.0.1:{port}")
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.skipif(sys.platform != "linux", reason="/proc shows what the descriptors are")
def test_a_closed_stream_is_never_taken_by_a_file_of_ours(tmp_path: Path) -> None:
    script = "import os, netdiag_entry; netdiag_entry._occupy_standard_descriptors()\n"
    script += "open(os.environ['FOUND'], 'w').write(' '.join(os.readlink(f'/proc/self/fd/{n}') for n in (0, 1, 2)))"
    env = {**environment(), "FOUND": str(tmp_path / "found")}
    command = ["bash", "-c", 'exec "$@" <&- >&- 2>&-', "bash", sys.executable, "-c", script]
    subprocess.run(command, timeout=30, check=True, env=env)
    assert (tmp_path / "found").read_text() == "/dev/null /dev/null /dev/null"


def test_a_pipe_that_does_not_block_gets_the_whole_report() -> None:
    ours, theirs = os.pipe()
    os.set_blocking(theirs, False)
    with os.fdopen(ours, "rb") as reader:
        child = subprocess.Popen([*NETDIAG, "schema"], stdout=theirs, stderr=subprocess.PIPE, env=environment())
        os.close(theirs)
        shown = reader.read()
        child.communicate(timeout=30)
    assert child.returncode == 0
    assert json.loads(shown)


def held_by(folder: Path, program: str) -> str:
    path = folder / "seen.json"
    taken = dialled(HERE, refused(HERE), listeners=rows(row("127.0.0.1:8081")), holders=held((1, process(program))))
    path.write_bytes(encode((taken,)))
    return str(path)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8", "ascii:strict"])
def test_json_is_json_in_every_encoding(encoding: str, tmp_path: Path) -> None:
    done = run("", "replay", "--json", held_by(tmp_path, "é字😀"), PYTHONIOENCODING=encoding)
    assert done.returncode == 1
    shown = json.loads(done.stdout.decode("utf-8"))
    plain = json.loads(run("", "replay", "--json", held_by(tmp_path, "é字😀")).stdout)
    assert shown == plain
    assert "é字😀" in json.dumps(shown, ensure_ascii=False)


@pytest.mark.parametrize("encoding", ["ascii:strict", "latin-1:strict"])
@pytest.mark.parametrize("form", ["text", "markdown"])
def test_a_character_that_the_terminal_lacks_costs_no_report(encoding: str, form: str, tmp_path: Path) -> None:
    done = run("", "replay", "--format", form, held_by(tmp_path, "é字"), PYTHONIOENCODING=encoding)
    assert (done.returncode, done.stderr) == (1, b"")


@pytest.fixture
def waiting() -> Iterator[list[str]]:
    """A run that waits for a server which never accepts: long enough for a sign of life."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield [*NETDIAG, "run", "--timeout", "5", f"127.0.0.1:{server.getsockname()[1]}"]


def on_a_terminal(command: list[str], seconds: float, *, number: int = 0) -> tuple[int, str]:
    """The exit code and what the terminal shows, where it is the one that controls the command."""
    pid, ours = pty.fork()
    if pid == 0:
        os.execve(command[0], command, {**environment(), "TERM": "xterm"})
    time.sleep(seconds)
    if number:
        os.kill(pid, number)
    shown = b""
    try:
        while part := os.read(ours, 65536):
            shown += part
    except OSError:  # EIO: the last writer has gone
        pass
    os.close(ours)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), shown.decode()


def test_ctrl_c_clears_the_sign_of_life(waiting: list[str]) -> None:
    code, shown = on_a_terminal(waiting, 2.5, number=signal.SIGINT)
    assert code == 130
    assert "looking" in shown
    assert shown.endswith("\r\x1b[Knetdiag: interrupted\r\n")


def test_in_the_background_of_a_terminal_it_runs_and_ends_without_being_stopped(waiting: list[str]) -> None:
    """Where the terminal stops what writes to it from there (stty tostop), the run is not stopped by an ornament."""
    command = 'stty tostop; set -m; "$@" >/dev/null & pid=$!; wait $pid; echo "code $?"'
    _, shown = on_a_terminal(["/bin/bash", "-c", command, "bash", *waiting], 0)
    assert "looking" not in shown
    assert re.search(r"code 1\b", shown), shown


def test_a_signal_in_the_background_of_a_terminal_ends_it(waiting: list[str]) -> None:
    command = 'stty tostop; set -m; "$@" >/dev/null & pid=$!; sleep 1.5; kill -INT $pid; wait $pid; echo "code $?"'
    _, shown = on_a_terminal(["/bin/bash", "-c", command, "bash", *waiting], 0)
    assert "code 130" in shown


def test_a_terminal_that_goes_away_ends_the_run(waiting: list[str]) -> None:
    pid, ours = pty.fork()
    if pid == 0:
        os.execve(NETDIAG[0], waiting, {**environment(), "TERM": "xterm"})
    time.sleep(2)
    os.close(ours)  # SIGHUP
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 128 + signal.SIGHUP
