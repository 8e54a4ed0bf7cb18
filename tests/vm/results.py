"""What came of a fault, as it travels from the guest, and whether that is what was expected."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec

from tests.vm.fault import Answers, Expected, Fault, Remedy

USERS = ("root", "user")


class Seen(msgspec.Struct, frozen=True, omit_defaults=True):
    """One fault as one user saw it."""

    fault: str
    user: str
    verdict: str = ""
    code: str | None = None
    confidence: str | None = None
    remedy: str = ""
    """What the first remedy was."""
    fixed: bool | None = None
    """Whether it, or what stands for it, was followed by a connection; None where nothing was executed."""
    seconds: float = 0.0
    error: str = ""
    """What went wrong in the guest, be it the set-up or netdiag itself."""
    report: str = ""
    """The whole answer, for the case that it is not what was expected."""

    def __str__(self) -> str:
        if self.error:
            return self.error
        said = f"{self.verdict}: {self.code} ({self.confidence})" if self.code else self.verdict
        return said if self.fixed is not False else f"{said}, and its first remedy did not fix it: {self.remedy}"


class Began(msgspec.Struct, frozen=True):
    """A fault is about to be made: where nothing follows, the guest did not survive it."""

    began: str


def is_as_expected(seen: Seen, expected: Answers) -> bool:
    """Whether one of the answers is the one that came, and its remedy did what it must."""
    return not seen.error and any(_is(seen, one) for one in expected)


def _is(seen: Seen, expected: Expected) -> bool:
    same = (seen.verdict, seen.code, seen.confidence) == (expected.verdict, expected.code, expected.confidence)
    return same and (seen.fixed is True or not must_fix(expected.remedy))


def must_fix(remedy: Remedy) -> bool:
    """Whether something is executed and must help."""
    return remedy in (Remedy.FIXES, Remedy.LEADS, Remedy.PERSON)


@dataclass(frozen=True)
class Wrong:
    """A result that is not what was expected."""

    fault: str
    user: str
    wanted: str
    came: str
    report: str = ""


def wrong_results(faults: Iterable[Fault], kernel: str, seen: Sequence[Seen]) -> list[Wrong]:
    """What is wrong or missing among the faults of this kernel."""
    found = {(one.fault, one.user): one for one in seen}
    wrong = []
    for fault in faults:
        if kernel not in fault.kernels:
            continue
        for user, expected in zip(USERS, fault.expected(kernel), strict=True):
            one = found.get((fault.name, user))
            wanted = " or ".join(map(str, expected))
            if one is None:
                wrong.append(Wrong(fault.name, user, wanted, "not run"))
            elif not is_as_expected(one, expected):
                wrong.append(Wrong(fault.name, user, wanted, str(one), one.report))
    return wrong


def decode(lines: Iterable[str]) -> tuple[list[Seen], list[str]]:
    """The results in a guest's file, and the names of the faults that began and did not end."""
    seen, open_faults = [], []
    for line in lines:
        if not line.endswith("\n"):
            continue
        if line.startswith('{"began"'):
            open_faults.append(msgspec.json.decode(line, type=Began).began)
            continue
        one = msgspec.json.decode(line, type=Seen)
        seen.append(one)
    complete = {one.fault for one in seen if {other.user for other in seen if other.fault == one.fault} >= set(USERS)}
    return seen, [name for name in open_faults if name not in complete]
