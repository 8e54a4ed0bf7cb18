"""The kernel's trace file system for the lab, where the machine has not mounted it: netdiag itself never does."""

from __future__ import annotations

import subprocess
from pathlib import Path

TRACING = Path("/sys/kernel/tracing")


def mount_tracefs() -> None:
    """Mount tracefs unless it is mounted; safe when several test processes do it at the same time.

    It stays mounted, as systemd leaves it on other machines: another run of the lab may be using it.
    Raises RuntimeError with mount's own words where it cannot be mounted.
    """
    if is_mounted():
        return
    done = subprocess.run(
        ["mount", "-t", "tracefs", "tracefs", TRACING], capture_output=True, text=True, errors="replace", check=False
    )
    # mount fails with EBUSY where another process was faster: what counts is that it is there (mount(2))
    if not is_mounted():
        raise RuntimeError(f"tracefs cannot be mounted on {TRACING}: {done.stderr.strip()} (status {done.returncode})")


def is_mounted() -> bool:
    """Whether the trace file system is at its usual place."""
    return (TRACING / "instances").is_dir()
