"""What bounds this very process: its capabilities, seccomp, AppArmor, and the systemd unit that it runs in."""

from __future__ import annotations

import os

from diagnose.model.confinement import Confinement
from diagnose.model.fact import Fact, Known, Reason, Unknown
from diagnose.parse.cgroup import membership

_FIRST_USERS = "user:[4026531837]"
"""PROC_USER_INIT_INO (linux/proc_ns.h): the user namespace that the machine starts with."""
_PROFILES = ("/proc/self/attr/apparmor/current", "/proc/self/attr/current")
"""The second is AppArmor's where the kernel stacks no security modules (before Linux 5.1)."""


def look() -> Fact[Confinement]:
    """As /proc/self shows it."""
    try:
        status = _facts(_text("/proc/self/status"))
    except OSError as error:
        return Unknown(Reason.FAILED, f"/proc/self/status: {error.strerror}")
    try:
        lives = membership(_text("/proc/self/cgroup"))
    except OSError:
        lives = membership("")
    return Known(
        Confinement(
            effective=int(status.get("CapEff", "0"), 16),
            bounding=int(status.get("CapBnd", "0"), 16),
            seccomp=status.get("Seccomp", "0") == "2",
            profile=_profile(),
            unit=lives.unit,
            unit_owner=lives.unit_owner,
            own_users=_own_users(),
        )
    )


def _facts(status: str) -> dict[str, str]:
    return {name: value.strip() for name, _, value in (line.partition(":") for line in status.splitlines())}


def _profile() -> str | None:
    """AppArmor's alone: SELinux and Smack have a label of another form in the file that they share."""
    for path in _PROFILES:
        try:
            text = _text(path).strip("\0\n ")
        except OSError:
            continue
        return text if text.endswith(")") and " (" in text else None
    return None


def _own_users() -> bool:
    try:
        return os.readlink("/proc/self/ns/user") != _FIRST_USERS
    except OSError:
        return False


def _text(path: str) -> str:
    with open(path, encoding="utf-8", errors="backslashreplace") as file:
        return file.read()
