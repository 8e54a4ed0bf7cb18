"""Holders of sockets: real processes, looked at as root and as an ordinary user."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest

from diagnose.model.fact import Fact, Known, Reason, Unknown
from diagnose.model.process import Holders
from diagnose.parse import mask
from diagnose.probes import processes
from tests.lab_probes.own_network import NOBODY, as_nobody

pytestmark = [pytest.mark.lab, pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")]

SLEEP = "import sys, time; print('ready', flush=True); time.sleep(60)"
needs_root = pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="needs root")
assert mask  # imported now: an ordinary user of the test may not be able to read it later


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    """A listening socket that children may inherit."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        one.listen()
        one.set_inheritable(True)
        yield one


@contextmanager
def running(*argv: str | bytes, uid: int = 0, pass_fds: tuple[int, ...] = ()) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has said that it is ready."""
    user = {"user": uid, "group": uid, "extra_groups": []} if uid else {}
    with subprocess.Popen(argv, stdout=subprocess.PIPE, pass_fds=pass_fds, **user) as child:  # type: ignore[call-overload]
        try:
            assert child.stdout
            assert child.stdout.readline() == b"ready\n"
            yield child
        finally:
            child.kill()


def inode(one: socket.socket) -> int:
    return os.fstat(one.fileno()).st_ino


def pids(fact: Fact[Holders]) -> list[int]:
    assert isinstance(fact, Known), fact
    return [one.process.pid for one in fact.value.found]


def shell(script: str) -> tuple[str, ...]:
    """A shell that says ready: every user may execute it."""
    return ("sh", "-c", f"echo ready; {script}")


def test_every_process_that_shares_the_socket_is_found(listening: socket.socket) -> None:
    fds = (listening.fileno(),)
    with running(*shell("sleep 60"), pass_fds=fds) as one, running(*shell("exec sleep 60"), pass_fds=fds) as two:
        time.sleep(0.1)
        found = pids(processes.holders([inode(listening)], 2.0))
        children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(one.pid)], capture_output=True, check=True)
    assert set(found) == {os.getpid(), one.pid, two.pid, *map(int, children.stdout.split())}
    assert found == sorted(found)


def test_a_socket_that_is_nobodys_has_no_holder() -> None:
    fact = processes.holders([1], 2.0)
    assert pids(fact) == []


def test_inode_zero_is_no_socket() -> None:
    assert processes.holders([0], 2.0) == Known(Holders((), 0))


@needs_root
def test_an_ordinary_user_is_told_that_processes_were_hidden(listening: socket.socket) -> None:
    wanted = inode(listening)

    def ask() -> Fact[Holders]:
        listening.close()  # inherited by the fork
        return processes.holders([wanted], 2.0)

    fact = as_nobody(ask)
    assert isinstance(fact, Known)
    assert fact.value.found == ()
    assert fact.value.unreadable > 0


@needs_root
def test_an_ordinary_user_sees_their_own_process(listening: socket.socket) -> None:
    with running(*shell("exec sleep 60"), uid=NOBODY, pass_fds=(listening.fileno(),)) as child:
        assert child.pid in pids(as_nobody(lambda: processes.holders([inode(listening)], 2.0)))


def test_a_look_that_runs_out_of_time_is_not_known() -> None:
    fact = processes.holders([1], -1.0)
    assert isinstance(fact, Unknown)
    assert fact.reason is Reason.DEADLINE


def test_a_process_is_described(listening: socket.socket) -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    with running(sys.executable, "-c", SLEEP, "--password", "hunter2") as child:
        seen = processes.describe(child.pid)
        assert seen
        started = datetime.fromisoformat(seen.started_at)
        assert abs((started - before).total_seconds()) <= 2
        assert (seen.pid, seen.parent, seen.tracer) == (child.pid, os.getpid(), 0)
        assert seen.state in ("R", "S")
        assert (seen.uid, seen.user) == (os.geteuid(), "root" if os.geteuid() == 0 else seen.user)
        assert seen.executable == os.path.realpath(sys.executable)
        assert "hunter2" not in seen.command
        assert seen.command.endswith("-c *** --password ***")


def test_a_stopped_process_is_described_as_stopped() -> None:
    with running(*shell("exec sleep 60")) as child:
        child.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WNOWAIT)
        seen = processes.describe(child.pid)
        assert seen
        assert seen.state == "T"


def test_hostile_text_survives_as_text_that_json_can_carry() -> None:
    name = b"\xff\x1b[31m) R 1 (\n"
    script = f"import ctypes; ctypes.CDLL(None).prctl(15, {name!r}, 0, 0, 0)\n{SLEEP}"
    with running(sys.executable, "-c", script, b"\xfe\xff\x1b]0;pwned\x07") as child:
        seen = processes.describe(child.pid)
    assert seen
    assert seen.program == "*** *** *** ***"
    assert seen.command.endswith(" -c *** ***")
    assert seen.parent == os.getpid()
    seen.program.encode("utf-8")


def test_a_process_that_has_ended_is_left_out() -> None:
    child = subprocess.Popen(["true"])
    child.wait()
    assert processes.describe(child.pid) is None


def test_off_linux_psutil_describes_the_process_by_its_pid() -> None:
    """Forced here: a stand-in for macOS and Windows, where there is nothing else."""
    fact = processes.holders([os.getpid()], 2.0, portable=True)
    assert isinstance(fact, Known)
    (holder,) = fact.value.found
    mine = processes.describe(os.getpid())
    assert mine
    assert (holder.inode, holder.process.pid, holder.process.uid) == (os.getpid(), os.getpid(), mine.uid)
    assert holder.process.program == mine.program
