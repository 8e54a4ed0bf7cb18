"""Signals at any moment of any run: nothing temporary is left, and the code is the signal's or the diagnosis's own.

60 runs in the lab, the same at each run; with NETDIAG_FUZZ (make fuzz) 500, at other moments each time.
"""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from diagnose.recording import decode
from tests.lab.machine import INSTALLED, Machine, nothing_left_behind

pytestmark = [pytest.mark.fuzz]

FUZZING = "NETDIAG_FUZZ" in os.environ
RUNS = 500 if FUZZING else 60
TOGETHER = 3
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
LONGEST = 1.0
"""Seconds into a run after which no first signal comes: few runs take longer."""
ENDS_WITHIN = 5.0
"""Seconds from the last signal to the end, on a machine where everything else is busy, too."""
DIAGNOSES = (0, 1, 3)
STARTING = re.compile(rb"Traceback|Fatal Python error: init_")
OURS = re.compile(rb"/diagnose/|netdiag_entry.py\", line \d+, in _(?!undo)")


def storm(machine: Machine, folder: Path, number: int, chance: random.Random) -> str | None:
    """One run and its signals; what is wrong about its end."""
    record, capture, report = (folder / f"{number}.{name}" for name in ("json", "pcap", "txt"))
    healthy, hung, dropped, rejected = (f"127.0.0.1:{machine.port + offset}" for offset in range(4))
    options: list[str] = chance.choice(
        (
            [],
            ["--trace"],
            ["--pcap", str(capture)],
            ["--record", str(record)],
            ["--output", str(report)],
            ["--from", f"pid:{machine.servers[-1].pid}"],
            ["--trace", "--pcap", str(capture), "--record", str(record)],
        )
    )
    targets = [
        dropped,
        *chance.sample((healthy, hung, rejected, f"localhost:{machine.port + 2}"), chance.randint(0, 2)),
    ]
    run = subprocess.Popen(
        machine.inside([INSTALLED, "run", *options, *targets]),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    sent: list[signal.Signals] = []
    pauses = [chance.uniform(0.02, LONGEST), *(chance.choice((0.0, 0.001, 0.02)) for _ in range(chance.randrange(8)))]
    for pause in pauses:
        time.sleep(pause)
        if run.poll() is None:
            sent.append(chance.choice(SIGNALS))
            run.send_signal(sent[-1])
    began = time.monotonic()
    try:
        _, errors = run.communicate(timeout=20)
    except subprocess.TimeoutExpired:
        run.kill()
        run.communicate()
        return f"{options} {targets}: it went on after {sent}"
    what = f"{options} {targets} after {pauses} {[one.name for one in sent]}: exit {run.returncode}: {errors.decode()}"
    allowed = {code for one in sent for code in (128 + one, -one)} | set(DIAGNOSES)
    # a signal that comes before our first line meets the interpreter's own start-up, which reports it in its own words
    starting = signal.SIGINT in sent and STARTING.search(errors) is not None and not OURS.search(errors)
    if run.returncode not in allowed or (errors not in (b"", b"netdiag: interrupted\n") and not starting):
        return what
    if sent and time.monotonic() - began > ENDS_WITHIN:
        return f"{what}: too late"
    return _half_written(record, what)


def _half_written(record: Path, what: str) -> str | None:
    try:
        decode(record.read_bytes())
    except FileNotFoundError:
        return None
    except (ValueError, msgspec.DecodeError) as error:
        return f"{what}: half a recording: {error}"
    return None


def test_signals_at_any_moment_leave_nothing_behind(machine: Machine) -> None:
    machine.serve()
    machine.serve("never_accepts", "127.0.0.1", machine.port + 1)
    for offset in (2, 3):
        machine.serve("accepts", "127.0.0.1", machine.port + offset)
    machine.chain("input", f"tcp dport {machine.port + 2} drop", f"tcp dport {machine.port + 3} reject with tcp reset")
    folder = machine.scratch / "storm"
    folder.mkdir()
    first = random.SystemRandom().randrange(1 << 32) if FUZZING else 0
    with nothing_left_behind(machine, patience=10), ThreadPoolExecutor(TOGETHER) as pool:
        ends = pool.map(
            lambda number: storm(machine, folder, number, random.Random(first + number)),
            range(RUNS),
        )
        wrong = [end for end in ends if end is not None]
    assert not wrong, f"{len(wrong)} of {RUNS} (first {first}):\n" + "\n".join(wrong)
    left = [path.name for path in folder.iterdir() if path.suffix not in (".json", ".pcap", ".txt")]
    assert not left, left
