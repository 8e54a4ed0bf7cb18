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


def record(machine: Machine, folder: Path, sentence: str, asked: tuple[str, ...], uid: int) -> None:
    """Run once more with --record, and keep the snapshot with what was said of it."""
    place = folder / re.sub(r"[^a-z0-9.]+", "-", sentence.lower()).strip("-")
    place.mkdir(parents=True, exist_ok=True)
    there = machine.scratch / "recording"
    there.mkdir(exist_ok=True)
    there.chmod(0o777)
    answer = machine.netdiag("run", "--json", *asked, "--record", str(there / "snapshot.json"), uid=uid)
    (place / "snapshot.json").write_bytes((there / "snapshot.json").read_bytes())
    (there / "snapshot.json").unlink()
    (place / "expected.json").write_text(json.dumps(summary(answer.report, answer.exit_code), indent=2) + "\n")
    (place / "recorded.txt").write_text(
        f"{sentence}\nnetdiag run {' '.join(asked)}\nas {'root' if uid == 0 else 'nobody'}, in network and mount "
        f"namespaces of its own (tests/lab)\nLinux {os.uname().release} {platform.machine()}\n{tools()}"
    )


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
