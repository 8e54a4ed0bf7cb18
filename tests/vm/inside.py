"""Runs in the guest: makes the faults one after another, asks netdiag, executes what it advises, reports line by line.

usage: python -m tests.vm.inside KERNEL RESULTS FAULTS [MACHINES]

FAULTS is a JSON file with the names of those to make; RESULTS grows by a line for each user, so that a crash loses one
fault only; MACHINES is a folder for recorded machines.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec

from tests.lab.machine import ROOT, Answer
from tests.lab.record import slug, summary
from tests.tracefs import mount_tracefs
from tests.vm.fault import Answers, Expected, Fault, Place, Remedy
from tests.vm.faults import FAULTS
from tests.vm.place import USER_ID, Here, Namespace
from tests.vm.recorded import describe
from tests.vm.results import Began, Seen, must_fix

UIDS = {"root": ROOT, "user": USER_ID}


class Trial:
    """One fault on this kernel."""

    def __init__(self, fault: Fault, kernel: str, machines: Path | None) -> None:
        self.fault = fault
        self.kernel = kernel
        self.machines = machines if fault.keep else None
        self.port = 20000 + zlib.crc32(fault.name.encode()) % 12000
        self.asked = (fault.target.format(port=self.port), *fault.arguments)

    def run(self) -> Iterator[Seen]:
        """What the ordinary user saw and what root saw; a second round where the user's own remedy is another one."""
        as_root, as_user = self.fault.expected(self.kernel)
        if self.fault.apart:
            for user, expected in (("user", as_user), ("root", as_root)):
                with self.made() as place:
                    yield self.judge(place, user, self.ask(place, user), expected)
            return
        with self.made() as place:
            theirs, ours = self.ask(place, "user"), self.ask(place, "root")
            keep(self, place, ours, theirs)
            root = self.judge(place, "root", ours, as_root)
            yield root
            fixed_for_both = root.fixed and same_commands(ours, theirs)
            if fixed_for_both and answered(theirs, as_user).remedy is Remedy.FIXES:
                yield seen(self, "user", theirs, fixed=self.well(place, "user"))
                return
            if root.fixed is None or answered(theirs, as_user).remedy is Remedy.LEADS:
                yield self.judge(place, "user", theirs, as_user)
                return
        if not must_act(theirs, as_user):
            yield seen(self, "user", theirs, fixed=None)
            return
        with self.made() as place:
            yield self.judge(place, "user", self.ask(place, "user"), as_user)

    @contextmanager
    def made(self) -> Iterator[Place]:
        """The place with the fault in it."""
        with Here(self.port) if self.fault.machine else Namespace(port=self.port) as place:
            self.fault.make(place)
            yield place

    def ask(self, place: Place, user: str) -> Reply:
        """One run of the command."""
        record = self.recording(place) if self.machines else None
        options = ("--record", str(record)) if record else ()
        answer = self.netdiag(place, user, *options)
        reply = Reply(answer, answer.report)
        if record:
            reply.snapshot = record.read_bytes()
            record.unlink()
        return reply

    def recording(self, place: Place) -> Path:
        """Where every user may write one."""
        folder = place.scratch / "recording" if isinstance(place, Namespace) else Path("/var/tmp/netdiag-recording")
        folder.mkdir(exist_ok=True)
        folder.chmod(0o777)
        return folder / "snapshot.json"

    def judge(self, place: Place, user: str, reply: Reply, expected: Answers) -> Seen:
        """Execute the first remedy where it must help, and see whether it did."""
        wanted = answered(reply, expected)
        if reply.remedy is None or not must_fix(wanted.remedy):
            return seen(self, user, reply, fixed=None)
        try:
            fixed = self.act(place, user, reply, wanted.remedy)
            if self.fault.afterwards is not None:
                self.fault.afterwards(place)
        except AssertionError as error:
            return seen(self, user, reply, fixed=False, error=str(error))
        return seen(self, user, reply, fixed=fixed)

    def act(self, place: Place, user: str, reply: Reply, kind: Remedy) -> bool:
        """Whether the remedy fixed it."""
        remedy = reply.remedy
        assert remedy is not None
        commands: list[dict[str, Any]] = remedy["commands"]
        if kind is Remedy.PERSON:
            assert self.fault.by_person is not None, "the list does not say what a person does"
            self.fault.by_person(place)
            return self.well(place, user)
        assert commands, f"the first remedy has no command: {remedy['summary']}"
        assert remedy["risk"] != "destructive", f"the first remedy is destructive: {remedy['summary']}"
        if kind is Remedy.LEADS:
            return all(led(place, command, UIDS[user]) for command in commands)
        for command in commands:
            place.run(*command["argv"], uid=ROOT if command["needs_root"] else UIDS[user])
        return self.well(place, user)

    def well(self, place: Place, user: str) -> bool:
        """Whether the target works by now."""
        return self.netdiag(place, user).exit_code == 0

    def netdiag(self, place: Place, user: str, *options: str) -> Answer:
        """The command as the fault has it started."""
        words = ("run", "--json", *self.asked, *(self.fault.rooted if user == "root" else ()), *options)
        if self.fault.confined:
            assert isinstance(place, Here), "transient units are the guest's"
            return place.confined(self.fault.confined, words, UIDS[user])
        return place.netdiag(*words, uid=UIDS[user])


class Reply:
    """An answer whose report was held against the schema once."""

    def __init__(self, answer: Answer, report: dict[str, Any]) -> None:
        self.answer = answer
        self.report = report
        self.snapshot: bytes = b""

    @property
    def cause(self) -> dict[str, Any]:
        """The root cause, empty where none is named."""
        return self.report["root_cause"] or {}

    @property
    def remedy(self) -> dict[str, Any] | None:
        """The first one of the cause."""
        remedies = self.cause.get("remedies")
        return remedies[0] if remedies else None


def answered(reply: Reply, expected: Answers) -> Expected:
    """The expectation that came true, else the first."""
    said = (reply.report["verdict"], reply.cause.get("code"), reply.cause.get("confidence"))
    return next((one for one in expected if (one.verdict, one.code, one.confidence) == said), expected[0])


def must_act(reply: Reply, expected: Answers) -> bool:
    """Whether the remedy that the user was told is one to execute."""
    return reply.remedy is not None and must_fix(answered(reply, expected).remedy)


def same_commands(one: Reply, other: Reply) -> bool:
    """Whether both were told the same, so that it need not be executed twice."""
    return (one.remedy or {}).get("commands") == (other.remedy or {}).get("commands")


def led(place: Place, command: dict[str, Any], uid: int) -> bool:
    """Whether the netdiag run that the command is finds its target well; AssertionError where it does not."""
    argv: list[str] = command["argv"]
    assert any(Path(one).name == "netdiag" and other == "run" for one, other in pairwise(argv)), argv
    place.run(*argv, uid=ROOT if command["needs_root"] else uid)
    return True


def seen(trial: Trial, user: str, reply: Reply, *, fixed: bool | None, error: str = "") -> Seen:
    """The line that travels to the host."""
    remedy = reply.remedy
    words = [" ".join(command["argv"]) for command in remedy["commands"]] if remedy else []
    return Seen(
        fault=trial.fault.name,
        user=user,
        verdict=reply.report["verdict"],
        code=reply.cause.get("code"),
        confidence=reply.cause.get("confidence"),
        remedy="; ".join(words) or (remedy["summary"] if remedy else ""),
        fixed=fixed,
        seconds=round(reply.answer.seconds, 2),
        error=error,
        report=str(reply.answer),
    )


def keep(trial: Trial, place: Place, ours: Reply, theirs: Reply) -> None:
    """Record the machine as root saw it, and as the user saw it where that is something else."""
    if trial.machines is None:
        return
    sentence = f"{trial.fault.name} on {trial.kernel}"
    write_machine(trial, sentence, ours, "root")
    if summary(ours.report, 0) != summary(theirs.report, 0):
        write_machine(trial, f"{sentence} as an ordinary user", theirs, "an ordinary user")


def write_machine(trial: Trial, sentence: str, reply: Reply, user: str) -> None:
    """A folder as those of fixtures/machines."""
    assert trial.machines is not None
    folder = trial.machines / slug(sentence)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "snapshot.json").write_bytes(reply.snapshot)
    expected = json.dumps(summary(reply.report, reply.answer.exit_code), indent=2) + "\n"
    (folder / "expected.json").write_text(expected)
    (folder / "recorded.txt").write_text(describe(sentence, trial.asked, user, machine=trial.fault.machine))


class OutOfTimeError(Exception):
    """A fault took more than its time."""


@contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    """Raises OutOfTimeError in the block."""

    def ring(_number: int, _frame: object) -> None:
        raise OutOfTimeError(f"not done after {seconds} s")

    signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


def try_fault(fault: Fault, kernel: str, machines: Path | None) -> Iterator[Seen]:
    """The results of one fault, be it that it could not be made."""
    told = set()
    try:
        with time_limit(fault.seconds):
            for one in Trial(fault, kernel, machines).run():
                told.add(one.user)
                yield one
    except Exception:  # noqa: BLE001 (whatever it is goes to the host as this fault's result)
        error = traceback.format_exc(limit=-4)
        for user in UIDS:
            if user not in told:
                yield Seen(fault=fault.name, user=user, error=error)


def main(kernel: str, results: str, names: str, machines: str | None = None) -> None:
    """Every fault of the names, in the order of the list."""
    mount_tracefs()
    chosen = set(json.loads(Path(names).read_text()))
    with Path(results).open("ab") as file:

        def emit(line: msgspec.Struct) -> None:
            file.write(msgspec.json.encode(line) + b"\n")
            file.flush()
            os.fsync(file.fileno())

        for fault in FAULTS:
            if fault.name in chosen and kernel in fault.kernels:
                begin = time.monotonic()
                emit(Began(began=fault.name))
                for one in try_fault(fault, kernel, Path(machines) if machines else None):
                    emit(one)
                print(f"{time.monotonic() - begin:.0f} s {fault.name}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
