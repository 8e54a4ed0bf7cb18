"""The results as Markdown: which kernel gives which confidence."""

from __future__ import annotations

from collections.abc import Sequence

from tests.vm.fault import Fault
from tests.vm.results import USERS, Seen, is_as_expected
from tests.vm.session import Run

NOT_MADE, NOT_RUN, WRONG = "n/a", "not run", "**WRONG**"
_HEAD = """\
# Kernels

Written by `make vm` (CONTRIBUTING.md says how): every fault below was made on each kernel, in a virtual machine with
systemd as pid 1 and cgroup v2, and `netdiag run` was asked as root and as an ordinary user. A cell says how sure the
named cause is, as root / as the user, and whether the first remedy, executed as printed, fixed it.

- **proven**, **likely**: the root cause and its confidence; another cause than root's is named with it.
- **works**: nothing stands in the way, and netdiag says so. **no cause**: none can be named with certainty.
- **✓** the first remedy's commands fixed the connection, or led to where it works, or a person did what it says.
- **not run** the run ended before, or it was not asked for.
- **n/a** this fault cannot be made with this kernel or this release of Debian.
"""


def page(faults: Sequence[Fault], runs: Sequence[Run]) -> str:
    """The whole page."""
    return "\n".join([_HEAD, *fault_table(faults, runs), "", *machine_table(runs), "", *skips(runs)]).rstrip() + "\n"


def fault_table(faults: Sequence[Fault], runs: Sequence[Run]) -> list[str]:
    """A row for each fault, a column for each kernel."""
    names = [run.kernel for run in runs]
    rows = [["fault", *names]]
    rows += [[fault.name, *(cell(fault, run) for run in runs)] for fault in faults]
    return markdown(rows)


def cell(fault: Fault, run: Run) -> str:
    """What root saw, and what the user saw."""
    if run.kernel not in fault.kernels:
        return NOT_MADE
    found = {one.user: one for one in run.seen if one.fault == fault.name}
    both = []
    for user, expected in zip(USERS, fault.expected(run.kernel), strict=True):
        one = found.get(user)
        if one is None:
            both.append(NOT_RUN)
        elif not is_as_expected(one, expected):
            both.append(WRONG)
        else:
            both.append(said(one, found["root"].code if "root" in found else None))
    return " / ".join(both)


def said(seen: Seen, code_of_root: str | None) -> str:
    """One user's half of a cell."""
    if seen.code is None:
        return "works" if seen.verdict in ("reachable", "bindable") else "no cause"
    other = f" {seen.code}" if seen.user != "root" and seen.code != code_of_root else ""
    return f"{seen.confidence}{other}{' ✓' if seen.fixed else ''}"


def machine_table(runs: Sequence[Run]) -> list[str]:
    """What each guest was, and how its probes' own tests went."""
    rows = [["", *(run.kernel for run in runs)]]
    rows.append(["kernel", *(run.release or NOT_RUN for run in runs)])
    rows.append(["tests/lab_probes", *(probe_line(run) for run in runs)])
    return markdown(rows)


def probe_line(run: Run) -> str:
    """Counts."""
    if run.probes is None:
        return NOT_RUN
    if run.probes.error:
        return WRONG
    parts = [f"{run.probes.passed} passed"]
    parts += [f"{len(run.probes.failed)} failed"] if run.probes.failed else []
    parts += [f"{len(run.probes.skipped)} skipped"] if run.probes.skipped else []
    return ", ".join(parts)


def skips(runs: Sequence[Run]) -> list[str]:
    """Why tests of the probes were skipped: each reason once, with the kernels and how many tests it is about."""
    reasons: dict[str, dict[str, int]] = {}
    for run in runs:
        for _, reason in run.probes.skipped if run.probes else ():
            counts = reasons.setdefault(reason, {})
            counts[run.kernel] = counts.get(run.kernel, 0) + 1
    if not reasons:
        return []
    lines = ["Skipped in tests/lab_probes:", ""]
    for reason, counts in sorted(reasons.items()):
        where = ", ".join(f"{number} on {kernel}" for kernel, number in counts.items())
        lines.append(f"- {reason.replace('|', '/')} ({where})")
    return lines


def markdown(rows: Sequence[Sequence[str]]) -> list[str]:
    """A table; the first row is its head."""
    lines = ["| " + " | ".join(one.replace("|", "\\|") for one in row) + " |" for row in rows]
    return [lines[0], "|" + "---|" * len(rows[0]), *lines[1:]]
