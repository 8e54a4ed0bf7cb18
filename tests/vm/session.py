"""One kernel's whole run: boot, push, the faults with a new guest where one is lost, the probes' own tests."""

from __future__ import annotations

import json
import shutil
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.vm.fault import Fault
from tests.vm.guest import Guest, GuestLostError
from tests.vm.images import Image
from tests.vm.push import CHECKOUT, InstallationError, push
from tests.vm.results import USERS, Seen, decode

PYTHON = "/opt/netdiag/bin/python3"
PROBE_SECONDS = 1800
_RESULTS, _NAMES, _MACHINES, _PROBES = "results.jsonl", "names.json", "machines", "probes.xml"


@dataclass(frozen=True)
class Probes:
    """What came of tests/lab_probes."""

    passed: int = 0
    failed: tuple[str, ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()
    """Tests and their reasons."""
    error: str = ""


@dataclass
class Run:
    """What came of one kernel."""

    kernel: str
    release: str = ""
    systemd: str = ""
    seconds: float = 0.0
    seen: list[Seen] = field(default_factory=list)
    probes: Probes | None = None


@dataclass(frozen=True)
class Wish:
    """What a run is asked to do."""

    faults: tuple[Fault, ...]
    probes: bool
    machines: Path | None
    """Where recorded machines go."""
    deadline: float
    """By time.monotonic()."""


def run_kernel(image: Image, cache: Path, wish: Wish) -> Run:
    """Boot as often as it takes; raises UnavailableError where no guest comes up."""
    run, begin = Run(image.kernel.name), time.monotonic()
    left = [fault for fault in wish.faults if image.kernel.name in fault.kernels]
    probes = wish.probes
    while (left or probes) and time.monotonic() < wish.deadline:
        with Guest(image, cache) as guest:
            run.release = guest.ready["kernel"]
            print(f"  {run.release} is up ({guest.ready['state']})", flush=True)
            push(guest)
            left = try_faults(guest, run, left, wish)
            if not left and probes:
                run.probes, probes = try_probes(guest), False
    run.seconds = time.monotonic() - begin
    return run


def try_faults(guest: Guest, run: Run, faults: Sequence[Fault], wish: Wish) -> list[Fault]:
    """The faults that are left when the guest is lost; nearly always none."""
    if not faults:
        return []
    out = guest.share / "out"
    (guest.share / _NAMES).write_text(json.dumps([fault.name for fault in faults]))
    argv = [PYTHON, "-m", "tests.vm.inside", run.kernel, f"/share/out/{_RESULTS}", f"/share/{_NAMES}"]
    if wish.machines is not None:
        argv.append(f"/share/out/{_MACHINES}")
    seconds = min(sum(fault.seconds for fault in faults), max(wish.deadline - time.monotonic(), 1))
    lost = ""
    try:
        done = guest.run("faults", "/usr/bin/env", f"--chdir={CHECKOUT}", *argv, seconds=seconds)
        lost = "" if done.status == 0 else f"the list ended with status {done.status}: {done.output[-2000:]}"
    except GuestLostError as gone:
        lost = str(gone)
    results = out / _RESULTS
    lines = results.read_text(errors="replace").splitlines(keepends=True) if results.exists() else []
    seen, unfinished = decode(lines)
    if lost and not lines:
        raise InstallationError(lost)
    told = {(one.fault, one.user) for one in seen}
    untold = [(name, user) for name in unfinished for user in USERS if (name, user) not in told]
    run.seen += [*seen, *(Seen(fault=name, user=user, error=lost) for name, user in untold)]
    if wish.machines is not None and (out / _MACHINES).is_dir():
        shutil.copytree(out / _MACHINES, wish.machines, dirs_exist_ok=True)
    if not lost:
        return []
    over = {name for name, _ in told} | set(unfinished)
    return [fault for fault in faults if fault.name not in over]


def try_probes(guest: Guest) -> Probes:
    """tests/lab_probes, as far as they can run."""
    options = ("-q", "-p", "no:cacheprovider", f"--junitxml=/share/out/{_PROBES}", "tests/lab_probes")
    try:
        done = guest.run(
            "probes", "/usr/bin/env", f"--chdir={CHECKOUT}", PYTHON, "-m", "pytest", *options, seconds=PROBE_SECONDS
        )
    except GuestLostError as gone:
        return Probes(error=str(gone))
    report = guest.share / "out" / _PROBES
    if not report.exists():
        return Probes(error=f"pytest ended with status {done.status}: {done.output[-2000:]}")
    return read_probes(report.read_text(), done.output)


def read_probes(xml: str, output: str = "") -> Probes:
    """pytest's own report, in JUnit's form."""
    passed, failed, skipped = 0, [], []
    for case in ElementTree.fromstring(xml).iter("testcase"):
        name = f"{case.get('classname', '').rpartition('.')[2]}::{case.get('name')}"
        bad = case.find("failure") if case.find("failure") is not None else case.find("error")
        skip = case.find("skipped")
        if bad is not None:
            failed.append(f"{name}: {(bad.get('message') or '').partition(chr(10))[0]}")
        elif skip is not None:
            skipped.append((name, skip.get("message") or ""))
        else:
            passed += 1
    return Probes(passed, tuple(failed), tuple(skipped))
