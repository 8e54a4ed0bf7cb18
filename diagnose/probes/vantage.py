"""From where and as whom we look."""

from __future__ import annotations

import os
import sys

from diagnose.model.process import Container
from diagnose.model.snapshot import Vantage
from diagnose.probes import regular_file

CAP_NET_ADMIN, CAP_NET_RAW = 12, 13
"""Bit numbers (include/uapi/linux/capability.h)."""


def look(container: Container | None = None) -> Vantage:
    """This process's machine, user and network namespace; never fails: what cannot be read is empty or None."""
    uid = _uid()
    caller = _caller(uid)
    hostname, kernel = _system()
    return Vantage(
        hostname=_text(hostname),
        platform=sys.platform,
        kernel=_text(kernel),
        user=_text(_user(uid)),
        uid=uid,
        privileged=_is_privileged(uid),
        network_namespace=_namespace(),
        container=container,
        sudo_user=_text(caller[0]) if caller else None,
        sudo_uid=caller[1] if caller else None,
    )


def _caller(uid: int) -> tuple[str, int | None] | None:
    """Name and uid of the user who became root for this command; None where nobody did, or root itself.

    sudo sets SUDO_USER and SUDO_UID (sudo(8)), doas DOAS_USER (doas(1)), pkexec PKEXEC_UID (pkexec(1)).
    """
    if uid != 0 or sys.platform == "win32":
        return None
    named = os.environ.get("SUDO_USER") or os.environ.get("DOAS_USER")
    told = os.environ.get("SUDO_UID") or os.environ.get("PKEXEC_UID", "")
    number = int(told) if told.isascii() and told.isdecimal() and len(told) < 11 else None
    if number is None and named:
        number = _uid_of(named)
    if number == 0 or (number is None and not named):
        return None
    return named or _user(number or 0), number


def _uid_of(user: str) -> int | None:
    """The number of an account of /etc/passwd."""
    wanted = os.fsencode(user)
    return next((int(uid) for uid, name in _accounts().items() if os.fsencode(name) == wanted and uid.isdigit()), None)


def _text(name: str) -> str:
    """A name as JSON can carry it: bytes that are no UTF-8 become backslash escapes."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _system() -> tuple[str, str]:
    if sys.platform == "win32":
        import socket  # here only: elsewhere os.uname knows both without it

        version = sys.getwindowsversion()
        return socket.gethostname(), f"{version.major}.{version.minor}.{version.build}"
    names = os.uname()
    return names.nodename, names.release


def _uid() -> int:
    if sys.platform == "win32":
        return -1
    return os.geteuid()


def _user(uid: int) -> str:
    """The account's name; its number where it has none that is known at once."""
    if sys.platform == "win32":
        return os.environ.get("USERNAME", "")
    if sys.platform == "darwin":  # accounts are in no file there
        import pwd

        try:
            return pwd.getpwuid(uid).pw_name
        except KeyError:
            return str(uid)
    return _accounts().get(str(uid).encode(), str(uid))


def _accounts() -> dict[bytes, str]:
    """Names by uid from /etc/passwd alone: getpwuid(3) may ask a directory server and wait for it."""
    try:
        rows = [line.split(b":") for line in regular_file.read("/etc/passwd").content.split(b"\n")]
    except OSError:
        return {}
    return {row[2]: os.fsdecode(row[0]) for row in reversed(rows) if len(row) > 2}


def _is_privileged(uid: int) -> bool:
    if sys.platform == "win32":
        import ctypes

        return bool(ctypes.windll.shell32.IsUserAnAdmin())
    if sys.platform != "linux":
        return uid == 0
    return uid == 0 and has_capability(CAP_NET_ADMIN)


def has_capability(number: int) -> bool:
    """Whether the kernel grants it to this process (capabilities(7)); only Linux has them."""
    return sys.platform == "linux" and bool(effective_capabilities() >> number & 1)


def effective_capabilities() -> int:
    """CapEff of proc_pid_status(5); none where /proc is not mounted."""
    try:
        with open("/proc/self/status", "rb") as status:
            return next((int(line[7:], 16) for line in status if line.startswith(b"CapEff:")), 0)
    except OSError:
        return 0


def _namespace() -> int | None:
    if sys.platform != "linux":
        return None
    try:
        return os.stat("/proc/self/ns/net").st_ino
    except OSError:
        return None
