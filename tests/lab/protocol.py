"""What every scenario holds: cause and certainty, as root and as an ordinary user, and that the remedy mends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from diagnose.model.finding import Edit
from tests.edits import applied
from tests.lab.machine import NOBODY, ROOT, Answer, Machine
from tests.lab.record import record, summary

RANK = ("possible", "likely", "proven")


@dataclass(frozen=True)
class Diagnosis:
    """What the scenario knows to be true, because it injected it."""

    code: str | None
    confidence: str | None
    verdict: str
    exit_code: int

    def is_said_by(self, answer: Answer) -> bool:
        """Whether the run came to the same."""
        cause = answer.cause
        said = (cause["code"], cause["confidence"]) if cause else (None, None)
        return (*said, answer.report["verdict"], answer.exit_code) == (
            self.code,
            self.confidence,
            self.verdict,
            self.exit_code,
        )

    def weaker(self) -> tuple[Diagnosis, ...]:
        """The same cause, less sure, or no cause at all: what honesty allows to whoever sees less."""
        less = RANK[1 : RANK.index(self.confidence or "likely")]
        same = tuple(Diagnosis(self.code, one, self.verdict, self.exit_code) for one in less)
        return (self, *same, no_cause(self.verdict))


def proven(code: str, verdict: str = "unreachable") -> Diagnosis:
    """The kernel or the peer said so."""
    return Diagnosis(code, "proven", verdict, 1)


def likely(code: str, verdict: str = "unreachable") -> Diagnosis:
    """All else is excluded."""
    return Diagnosis(code, "likely", verdict, 1)


def no_cause(verdict: str = "unreachable") -> Diagnosis:
    """It does not work, and nobody can tell why."""
    return Diagnosis(None, None, verdict, 0 if verdict in ("reachable", "bindable") else 3)


def works(verdict: str = "reachable") -> Diagnosis:
    """Nothing stands in the way."""
    return Diagnosis(None, None, verdict, 0)


@dataclass(frozen=True)
class Scenario:
    """One fault on one machine, asked about in one way; `says` runs the whole protocol."""

    machine: Machine
    name: str
    recordings: Path | None = None

    def says(
        self,
        as_root: Diagnosis,
        *,
        as_nobody: Diagnosis | tuple[Diagnosis, ...] | None = None,
        target: str | None = None,
        arguments: tuple[str, ...] = (),
        rooted: tuple[str, ...] = (),
        by_hand: Callable[[], object] | None = None,
        then: Diagnosis | None = None,
    ) -> Answer:
        """Diagnose as an ordinary user and as root, then mend it with the first remedy and diagnose again.

        rooted are the options that an ordinary user is refused; by_hand is what a person does where the first remedy
        is prose; then is what is left once it is mended.
        """
        asked = (target or f"127.0.0.1:{self.machine.port}", *arguments)
        theirs = self.diagnose(asked, NOBODY, as_nobody or as_root.weaker())
        asked_by_root = (*asked, *rooted)
        answer = self.diagnose(asked_by_root, ROOT, as_root)
        self.keep(asked, answer, theirs, rooted)
        if answer.exit_code != 0:
            self.mend(
                answer, asked_by_root, by_hand, then or works("bindable" if "--bind" in arguments else "reachable")
            )
        return answer

    def diagnose(self, asked: tuple[str, ...], uid: int, expected: Diagnosis | tuple[Diagnosis, ...]) -> Answer:
        """One run that must come to one of the expected diagnoses."""
        answer = self.machine.netdiag("run", "--json", *asked, uid=uid)
        allowed = expected if isinstance(expected, tuple) else (expected,)
        wanted = "\n  ".join(map(str, allowed))
        assert any(one.is_said_by(answer) for one in allowed), f"as user {uid}: wanted\n  {wanted}\nbut\n{answer}"
        return answer

    def keep_as_root(self, *asked: str, before: tuple[str, ...] = ()) -> None:
        """Record the machine as root sees it; `before`: a command that runs netdiag."""
        if self.recordings is not None:
            record(self.machine, self.recordings, self.name, asked, ROOT, before)

    def keep(self, asked: tuple[str, ...], as_root: Answer, as_nobody: Answer, rooted: tuple[str, ...] = ()) -> None:
        """Record the machine, and once more as an ordinary user where that user sees it otherwise."""
        if self.recordings is None:
            return
        record(self.machine, self.recordings, self.name, (*asked, *rooted), ROOT)
        if summary(as_root.report, 0) != summary(as_nobody.report, 0):
            record(self.machine, self.recordings, f"{self.name} as an ordinary user", asked, NOBODY)

    def mend(
        self, answer: Answer, asked: tuple[str, ...], by_hand: Callable[[], object] | None, then: Diagnosis
    ) -> None:
        """Execute the first remedy exactly as printed, diagnose again, and take it back by its undo."""
        assert answer.cause is not None
        assert answer.cause["remedies"], f"no remedy\n{answer}"
        remedy = answer.cause["remedies"][0]
        assert remedy["risk"] != "destructive", f"the first remedy is destructive\n{answer}"
        for file in sorted({edit["file"] for edit in remedy["edits"] if "compose" in Path(edit["file"]).name}):
            self.edit(file, remedy["edits"])
        if not remedy["commands"]:
            assert by_hand, f"the first remedy is prose: the scenario must say what the person does\n{answer}"
            by_hand()
        elif is_diagnosis(remedy["commands"][0]):
            self.dial(remedy)
            return
        else:
            self.execute(remedy["commands"])
        after = self.machine.netdiag("run", "--json", *asked)
        assert then.is_said_by(after), (
            f"after {remedy['summary']!r} wanted\n  {then}\nbut\n{after}\nfirst it was\n{answer}"
        )
        if remedy["undo"]:
            self.execute(remedy["undo"])
            again = self.machine.netdiag("run", "--json", *asked)
            said = again.cause and again.cause["code"]
            assert said == answer.cause["code"], (
                f"the undo did not bring the fault back\n{again}\nfirst it was\n{answer}"
            )

    def edit(self, file: str, edits: list[dict[str, Any]]) -> None:
        """Change the file as a person would."""
        ours = [Edit(edit["file"], edit["line"], edit["text"]) for edit in edits if edit["file"] == file]
        self.machine.write(file, applied(self.machine.run("cat", file), ours))

    def dial(self, remedy: dict[str, Any]) -> None:
        """The remedy is to dial another target: netdiag itself must find it well."""
        for command in remedy["commands"]:
            argv = command["argv"]
            at = argv.index("netdiag")
            uid = ROOT if command["needs_root"] else NOBODY
            well = self.machine.netdiag(*argv[at + 1 :], uid=uid, before=tuple(argv[:at]))
            assert well.exit_code == 0, f"{argv} exits {well.exit_code}: {well.text}{well.stderr!r}"

    def execute(self, commands: list[dict[str, Any]]) -> None:
        """Run commands as they stand."""
        for command in commands:
            assert command["argv"][0] != "sudo"
            self.machine.run(*command["argv"])


def is_diagnosis(command: dict[str, Any]) -> bool:
    """Whether the command runs netdiag, here or in another namespace."""
    argv: list[str] = command["argv"]
    return ("netdiag", "run") in pairwise(argv)
