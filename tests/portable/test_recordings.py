"""A recording is judged alike wherever it is replayed (see stand_in.py)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.portable.command import LINUX, PLATFORMS, REPOSITORY, closed, listening, netdiag

MACHINES = sorted((REPOSITORY / "fixtures" / "machines").glob("*/snapshot.json"))


@pytest.mark.parametrize("platform", PLATFORMS)
def test_what_was_recorded_there_is_judged_alike_here(platform: str, tmp_path: Path) -> None:
    kept = str(tmp_path / "recording.json")
    with closed() as port:
        there = netdiag(platform, "run", "--json", "--record", kept, f"127.0.0.1:{port}")
    here = netdiag(LINUX, "replay", "--json", kept)
    assert (here.exit_code, here.report) == (there.exit_code, there.report)
    assert here.report["vantage"]["platform"] == platform


@pytest.mark.parametrize("platform", PLATFORMS)
def test_what_was_recorded_on_linux_is_judged_alike_there(platform: str, tmp_path: Path) -> None:
    kept = str(tmp_path / "recording.json")
    with listening("::1") as port:
        here = netdiag(LINUX, "run", "--json", "--record", kept, f"127.0.0.1:{port}")
    there = netdiag(platform, "replay", "--json", kept)
    assert (there.exit_code, there.stdout) == (here.exit_code, here.stdout)
    assert there.cause["code"] == "refused/other-family"


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("machine", MACHINES[:: max(1, len(MACHINES) // 8)], ids=lambda path: path.parent.name)
def test_recorded_machines_are_judged_alike_there(platform: str, machine: Path) -> None:
    for form in ("json", "text"):
        here = netdiag(LINUX, "replay", "--format", form, str(machine))
        there = netdiag(platform, "replay", "--format", form, str(machine))
        assert (there.exit_code, there.stdout) == (here.exit_code, here.stdout)
