"""What recorded.txt of a machine from a guest says: how it was made, and the versions of all that made it."""

from __future__ import annotations

import platform
import subprocess

from tests.lab.record import tools


def describe(sentence: str, asked: tuple[str, ...], user: str, *, machine: bool) -> str:
    """The file's text."""
    where = "the guest itself" if machine else "network and mount namespaces of a guest"
    systemd = subprocess.run(["systemctl", "--version"], capture_output=True, text=True, check=True).stdout
    return (
        f"{sentence}\nnetdiag run {' '.join(asked)}\nas {user}, in {where} (tests/vm)\n"
        f"Linux {platform.release()} {platform.machine()}\n{systemd.partition(chr(10))[0]}\n{tools()}"
    )
