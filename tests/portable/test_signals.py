"""How signals end the process: at once, with its own exit code, and nothing temporary is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.portable.command import environment

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")

HEAD = """
import os, sys, time
from diagnose import signals, temporary
left = sys.argv[1]
def release(_): open(left, "a").write("released\\n")
signals.watch()
temporary.make(lambda: None, release)
"""
READY = "print('ready', flush=True)\n"
ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGALRM, signal.SIGXCPU)
SPAWNING = """
import ctypes
libc = ctypes.CDLL(None)
actions, pid = ctypes.create_string_buffer(512), ctypes.c_int()
arguments = (ctypes.c_char_p * 2)(b"true", None)
libc.posix_spawn_file_actions_init(actions)
libc.posix_spawn_file_actions_addopen(actions, 9, sys.argv[2].encode(), os.O_RDONLY, 0)
libc.posix_spawn(ctypes.byref(pid), b"/bin/true", actions, None, arguments, None)
"""
"""The child opens a FIFO before it is a program of its own, and until then only a kill ends its parent (vfork(2))."""
HANGS = {
    "sleeping": "time.sleep(60)",
    "computing": "while True: pass",
    "in a lock": "import threading; lock = threading.Lock(); lock.acquire(); lock.acquire()",
    "in the kernel beyond any handler": SPAWNING,
    "raising and catching": "\nwhile True:\n    try: raise ValueError\n    except BaseException: pass",
}


def process(script: str, *arguments: str) -> subprocess.Popen[bytes]:
    """A Python process that has said that it is ready."""
    child = subprocess.Popen(
        [sys.executable, "-c", HEAD + script, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"ready\n"
    return child


@pytest.mark.parametrize("number", ENDINGS)
def test_each_signal_releases_once_and_ends_with_its_own_code(number: signal.Signals, tmp_path: Path) -> None:
    child = process(READY + "time.sleep(60)", str(tmp_path / "left"))
    child.send_signal(number)
    _, errors = child.communicate(timeout=5)
    assert child.returncode == 128 + number
    assert (tmp_path / "left").read_text() == "released\n"
    said = {signal.SIGINT: b"netdiag: interrupted\n", signal.SIGXCPU: b"netdiag: the limit of CPU time"}
    assert errors.startswith(said.get(number, b""))
    assert errors.count(b"\n") == (number in said)


@pytest.mark.parametrize("hang", HANGS.values(), ids=HANGS)
def test_it_ends_at_once_whatever_the_main_thread_does(hang: str, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    child = process(READY + hang, str(tmp_path / "left"), str(fifo))
    time.sleep(0.1)  # for it to hang
    begun = time.monotonic()
    child.send_signal(signal.SIGTERM)
    child.wait(5)
    took = time.monotonic() - begun
    with os.fdopen(os.open(fifo, os.O_RDWR | os.O_NONBLOCK), "wb"):  # lets the program that is being started go on
        child.communicate(timeout=5)
    assert child.returncode == 128 + signal.SIGTERM
    assert (tmp_path / "left").read_text() == "released\n"
    assert took < 1.0, took  # 0.05 s alone; the tests' machine may be busy


def test_more_signals_do_not_end_the_release(tmp_path: Path) -> None:
    slow = f"temporary.make(lambda: None, lambda _: (time.sleep(0.5), release(_)))\n{READY}time.sleep(60)"
    child = process(slow, str(tmp_path / "left"))
    child.send_signal(signal.SIGINT)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGINT) * 5:
        time.sleep(0.01)
        child.send_signal(number)
    _, errors = child.communicate(timeout=5)
    assert (child.returncode, errors) == (130, b"netdiag: interrupted\n")
    assert (tmp_path / "left").read_text() == "released\nreleased\n"


def test_what_is_being_made_is_waited_for_and_released(tmp_path: Path) -> None:
    making = f"def make():\n    {READY}    time.sleep(0.1)\ntemporary.make(make, release)\ntime.sleep(60)"
    child = process(making, str(tmp_path / "left"))
    child.send_signal(signal.SIGTERM)
    child.communicate(timeout=5)
    assert child.returncode == 143
    assert (tmp_path / "left").read_text() == "released\nreleased\n"


def test_nothing_is_made_any_more_while_the_process_ends(tmp_path: Path) -> None:
    script = f"""
temporary.make(lambda: None, lambda _: time.sleep(0.3))
{READY}
while True:
    time.sleep(0.01)
    try: temporary.make(lambda: open(left, "a").write("made "), release)[1].let_go()
    except OSError as error: open(left, "a").write(f"refused {{error.errno}} "); time.sleep(60)
"""
    child = process(script, str(tmp_path / "left"))
    time.sleep(0.05)
    child.send_signal(signal.SIGTERM)
    child.communicate(timeout=5)
    text = (tmp_path / "left").read_text()
    assert text.endswith("released\n")
    assert text.count("refused") <= 1
    assert "made" not in text.partition("refused")[2]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP, signal.SIGTERM])
def test_a_signal_that_is_ignored_stays_ignored(number: signal.Signals, tmp_path: Path) -> None:
    """As nohup(1), and a shell for what it runs in the background, leave it."""
    script = f"import signal; signal.signal({int(number)}, signal.SIG_IGN)\n{HEAD}{READY}time.sleep(0.3); print('done')"
    child = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "left")], stdout=subprocess.PIPE, env=environment()
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"ready\n"
    child.send_signal(number)
    assert child.communicate(timeout=5)[0] == b"done\n"


def test_under_nohup_the_command_survives_the_end_of_the_terminal() -> None:
    script = "trap '' HUP INT; exec \"$@\""
    command = ["sh", "-c", script, "sh", sys.executable, "-m", "diagnose", "run", "--json", "192.0.2.1:9"]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment())
    assert child.stdout is not None
    time.sleep(0.1)
    for _ in range(20):
        time.sleep(0.02)
        if child.poll() is None:
            child.send_signal(signal.SIGHUP)
            child.send_signal(signal.SIGINT)
    shown, errors = child.communicate(timeout=30)
    assert child.returncode in (1, 3), errors
    assert shown.strip().startswith(b"{")


def test_a_program_that_is_started_meanwhile_has_no_signal_blocked(tmp_path: Path) -> None:
    script = f"""
from diagnose.probes.shadow.tool import Run
import subprocess
{READY}
shows = "import signal; print(signal.pthread_sigmask(signal.SIG_BLOCK, ()))"
print(Run([sys.executable, "-c", shows]).wait(time.monotonic() + 9)[1])
"""
    child = process(script, str(tmp_path / "left"))
    assert child.communicate(timeout=10)[0].strip() == b"set()"


def test_a_program_that_was_started_is_killed_with_us(tmp_path: Path) -> None:
    script = """
from diagnose.probes.shadow.tool import Run
run = Run(["sleep", "60"])
print("ready", run._process.pid, flush=True)
time.sleep(60)
"""
    child = subprocess.Popen(
        [sys.executable, "-c", HEAD + script, str(tmp_path / "left")], stdout=subprocess.PIPE, env=environment()
    )
    assert child.stdout is not None
    pid = int(child.stdout.readline().split()[1])
    child.send_signal(signal.SIGTERM)
    child.communicate(timeout=5)
    ends = time.monotonic() + 5
    while Path("/proc", str(pid)).exists() and "Z" not in Path("/proc", str(pid), "stat").read_text():
        assert time.monotonic() < ends, "it still runs"
        time.sleep(0.01)
