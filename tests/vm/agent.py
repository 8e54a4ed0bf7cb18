#!/usr/bin/python3
"""The guest's end: runs the jobs that stand in the shared folder, one by one, until the folder says stop.

A job is in/NAME.json with {"argv": [...], "seconds": N}; its output goes to out/NAME.log, its status to out/NAME.rc.
Runs on the guest's own Python, with the standard library alone.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

SHARE = Path("/share")
OUT_OF_TIME = 124
ENVIRONMENT = {
    **os.environ,
    "PATH": "/opt/netdiag/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
}


def main() -> None:
    """Mount the share, say that the guest is up, and work."""
    own = Path("/proc/self/cgroup").read_text()
    if "session-" not in own:
        sys.exit(
            f"not in the scope of a session, where no unit can be stopped under it: {own}"
        )  # the login tries again
    SHARE.mkdir(exist_ok=True)
    options = "trans=virtio,version=9p2000.L,cache=none"
    subprocess.run(["mount", "-t", "9p", "-o", options, "share", str(SHARE)], check=True)
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    state = subprocess.run(["systemctl", "is-system-running"], capture_output=True, text=True, check=False)
    ready = {"uptime": uptime, "kernel": platform.release(), "state": state.stdout.strip()}
    publish(SHARE / "out" / "ready", json.dumps(ready))
    while not (SHARE / "stop").exists():
        for path in sorted((SHARE / "in").glob("*.json")):
            work(path)
        time.sleep(0.3)
    subprocess.run(["systemctl", "poweroff"], check=True)


def work(path: Path) -> None:
    """One job."""
    job = json.loads(path.read_text())
    path.unlink()
    log = SHARE / "out" / f"{path.stem}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            job["argv"], stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=ENVIRONMENT
        )
        try:
            status = process.wait(job["seconds"])
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            status = OUT_OF_TIME
    publish(SHARE / "out" / f"{path.stem}.rc", str(status))


def publish(path: Path, text: str) -> None:
    """Write it whole or not at all."""
    draft = path.with_name(f".{path.name}")
    draft.write_text(text)
    draft.rename(path)


if __name__ == "__main__":
    main()
