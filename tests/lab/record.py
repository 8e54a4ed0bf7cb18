"""Recorded machines: how `fixtures/machines/` grows."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.lab.machine import Machine


def record(
    machine: Machine, folder: Path, sentence: str, asked: tuple[str, ...], uid: int, before: tuple[str, ...] = ()
) -> None:
    """Run once more with --record, and keep the snapshot with what was said of it.

    A variant of a scenario that says what another variant of it says already is not kept.
    """
    there = machine.scratch / "recording"
    there.mkdir(exist_ok=True)
    there.chmod(0o777)
    file = there / "snapshot.json"
    answer = machine.netdiag("run", "--json", *asked, "--record", str(file), uid=uid, before=before)
    snapshot = file.read_bytes()
    file.unlink()
    expected = json.dumps(summary(answer.report, answer.exit_code), indent=2) + "\n"
    place, variants = folder / slug(sentence), folder.glob(slug(sentence.partition("[")[0]) + "*/expected.json")
    if not place.exists() and any(other.read_text() == expected for other in variants):
        return
    place.mkdir(parents=True, exist_ok=True)
    (place / "snapshot.json").write_bytes(snapshot)
    (place / "expected.json").write_text(expected)
    (place / "recorded.txt").write_text(
        f"{sentence}\nnetdiag run {' '.join(asked)}\nas {'root' if uid == 0 else 'nobody'}, in network and mount "
        f"namespaces of its own (tests/lab)\nLinux {os.uname().release} {platform.machine()}\n{tools()}"
    )


def slug(sentence: str) -> str:
    """The sentence as a folder's name on every system."""
    return re.sub(r"[^a-z0-9.]+", "-", sentence.lower()).strip("-")


def summary(report: dict[str, Any], exit_code: int) -> dict[str, Any]:
    """What a replay of the snapshot must say again."""
    cause = report["root_cause"]
    return {
        "verdict": report["verdict"],
        "root_cause": cause and cause["code"],
        "confidence": cause and cause["confidence"],
        "exit_code": exit_code,
        "findings": [finding["code"] for finding in report["findings"]],
    }


def tools() -> str:
    """Versions of what made the fault."""
    asked = (["nft", "--version"], ["iptables-nft", "--version"], ["iptables-legacy", "--version"], ["ip", "-V"])
    return "".join(subprocess.run(argv, capture_output=True, text=True, check=True).stdout for argv in asked)
