"""Recordings of real machines, changed by chance: each is refused in one line or diagnosed like any other.

6,000 of them, the same at each run, are part of the lab; NETDIAG_MUTANTS=N makes N others (`make fuzz`: 200,000),
from the number in NETDIAG_SEED on.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from checks import CHECKS
from diagnose.engine import diagnose, exit_code
from diagnose.model.finding import Command
from diagnose.model.report import CheckOutcome, Report
from diagnose.model.snapshot import Snapshot
from diagnose.recording import BadRecordingError, decode_foreign
from diagnose.render.json import render_json
from diagnose.render.markdown import render_markdown
from diagnose.render.text import Style, render_text
from tests.mutation.mutants import CANARY, mutant

pytestmark = [pytest.mark.lab, pytest.mark.fuzz]

COUNT = int(os.environ.get("NETDIAG_MUTANTS", "6000"))
FIRST = int(os.environ.get("NETDIAG_SEED", "0"))
TOGETHER = 250
LONGEST = 5.0
"""Seconds of a processor that one may take; on a busy machine as many as twelve times that go by."""
PROGRAMS = frozenset(
    (
        *("chmod", "docker", "docker-compose", "fail2ban-client", "firewall-cmd", "ip", "ip6tables-legacy"),
        *("ip6tables-nft", "ipset", "iptables-legacy", "iptables-nft", "kill", "netdiag", "nft", "nsenter", "podman"),
        *("journalctl", "mv", "sh", "ss", "sysctl", "systemctl", "systemd-run", "ufw", "umount"),
    )
)
"""Everything that a remedy ever runs."""


@pytest.mark.parametrize("first", range(FIRST, FIRST + COUNT, TOGETHER))
def test_mutants_are_refused_or_diagnosed(first: int) -> None:
    refused = 0
    for number in range(first, min(first + TOGETHER, FIRST + COUNT)):
        try:
            refused += _judged(mutant(number)) == 2
        except Exception as error:
            raise AssertionError(f"mutant {number} (python -m tests.mutation.mutants {number}): {error!r}") from error
    assert refused < TOGETHER * 0.85, "hardly any mutant is read: the test would not see much"


def _judged(data: bytes) -> int:
    """The exit code that `netdiag replay` gives; fails where it does what no recording may make it do."""
    started = time.process_time()
    with _no_longer_than(12 * LONGEST):
        refusal, snapshots = _read(data)
        assert refusal.isprintable()
        assert len(refusal) < 1000
        if not snapshots:
            return 2
        reports = [diagnose(snapshot, CHECKS) for snapshot in snapshots]
        for report in reports:
            _nothing_foreign_is_said(report)
        _can_be_shown(reports)
    assert time.process_time() - started < LONGEST
    code = exit_code(reports)
    assert code in (0, 1, 3)
    return code


def _read(data: bytes) -> tuple[str, tuple[Snapshot, ...]]:
    try:
        return "", decode_foreign(data)
    except BadRecordingError as error:
        return str(error), ()


def _nothing_foreign_is_said(report: Report) -> None:
    assert [one for one in report.checks if one.outcome is CheckOutcome.CRASHED] == []
    for gap in report.not_checked:
        assert CANARY not in (gap.lift or "")
    for finding in report.findings:
        for remedy in finding.remedies:
            for command in (*remedy.commands, *remedy.undo):
                _is_one_of_ours(command)
            for edit in remedy.edits:
                assert CANARY not in edit.text
                assert edit.file != "/etc/passwd"
            assert f"Run {CANARY}" not in remedy.summary
            assert CANARY not in (remedy.url or "")


def _is_one_of_ours(command: Command) -> None:
    assert command.argv[0] in PROGRAMS, command
    assert not any(CANARY in word for word in command.argv), command


def _can_be_shown(reports: list[Report]) -> None:
    for text in (render_text(reports, Style(80)), render_markdown(reports), render_json(reports)):
        assert text.replace("\n", "").isprintable()
        text.encode()


@contextmanager
def _no_longer_than(seconds: float) -> Iterator[None]:
    """Whatever hangs is ended, and named."""

    def late(_number: int, _frame: object) -> None:
        raise TimeoutError(f"it takes more than {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_a_mutant_is_made_from_its_number_alone() -> None:
    assert [mutant(number) for number in range(100)] == [mutant(number) for number in range(99, -1, -1)][::-1]
