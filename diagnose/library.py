"""The runbooks of this machine: those that come with netdiag, the user's own, and the system's.

A runbook is data, and only that; a file in one of these directories counts where root or the person who asks has
written it, and nobody else can have. Under sudo that person is the caller, and root reads nothing for him that he
may not read himself.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import Path

from msgspec import Struct

from diagnose.probes import regular_file
from diagnose.runbook.model import SUFFIX
from diagnose.runbook.nodes import LARGEST
from diagnose.runbook.parse import NAME

SHIPPED = Path(__file__).parent / "runbook" / "shipped"
_MOST = 1000
"""Files of one directory that are listed."""


class Source(StrEnum):
    """Where a runbook comes from; the first that has a name is taken."""

    USER = "user"
    SYSTEM = "system"
    SHIPPED = "shipped"


class Place(Struct, frozen=True):
    """A runbook's file, by the name that it is called by."""

    name: str
    path: str
    source: Source


def directories(environment: Mapping[str, str] = os.environ) -> tuple[tuple[Source, str], ...]:
    """Where runbooks are looked for, in order (XDG Base Directory Specification, and what other systems have)."""
    home = _home(environment)
    match sys.platform:
        case "win32":
            user = [os.path.join(environment[name], "netdiag") for name in ("APPDATA",) if environment.get(name)]
            system = [os.path.join(environment[name], "netdiag") for name in ("PROGRAMDATA",) if environment.get(name)]
        case "darwin":
            user = [os.path.join(home, "Library", "Application Support", "netdiag"), *_xdg(home, environment)]
            system = ["/Library/Application Support/netdiag", "/etc/netdiag"]
        case _:
            user, system = _xdg(home, environment), ["/etc/netdiag"]
    return (
        *((Source.USER, os.path.join(one, "runbooks")) for one in user),
        *((Source.SYSTEM, os.path.join(one, "runbooks")) for one in system),
        (Source.SHIPPED, str(SHIPPED)),
    )


def _xdg(home: str, environment: Mapping[str, str]) -> list[str]:
    """A relative path in these variables is ignored, as the specification asks."""
    bases = (("XDG_CONFIG_HOME", ".config"), ("XDG_DATA_HOME", os.path.join(".local", "share")))
    given = [(environment.get(name, ""), os.path.join(home, usual)) for name, usual in bases]
    return list(dict.fromkeys(os.path.join(one if os.path.isabs(one) else usual, "netdiag") for one, usual in given))


def caller() -> int | None:
    """The uid of the user who runs this by sudo; None: nobody does."""
    given = os.environ.get("SUDO_UID", "")
    by_sudo = sys.platform != "win32" and os.geteuid() == 0 and given.isascii() and given.isdecimal()
    return int(given) if by_sudo and len(given) < 11 else None


def _home(environment: Mapping[str, str]) -> str:
    uid = caller()
    if uid is not None:
        import pwd  # not on Windows

        try:
            return pwd.getpwuid(uid).pw_dir
        except (KeyError, OverflowError):
            pass  # a user of whom nothing is known has no directory of runbooks
    return environment.get("HOME") or os.path.expanduser("~")


def places() -> tuple[tuple[Place, ...], tuple[str, ...]]:
    """All runbooks by their files, in the order in which they are looked for; and a line for each that is left out."""
    found: list[Place] = []
    left_out: list[str] = []
    for source, directory in directories():
        for name in _names(directory, left_out):
            place = Place(name, os.path.join(directory, name + SUFFIX), source)
            why = _objection(place)
            if why:
                left_out.append(f"{place.path!r} is left out: {why}")
            else:
                found.append(place)
    return tuple(found), tuple(left_out)


def _names(directory: str, left_out: list[str]) -> Iterator[str]:
    try:
        names = sorted(os.listdir(directory))[:_MOST]
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        left_out.append(f"{directory!r} is left out: {error.strerror}")
        return
    for name in names:
        stem = name.removesuffix(SUFFIX)
        if stem != name and NAME.fullmatch(stem):
            yield stem


def _objection(place: Place) -> str | None:
    """Why a file of these directories is not taken: another user may have put it there."""
    if place.source is Source.SHIPPED or sys.platform == "win32":
        return None
    trusted = {0, os.geteuid(), caller()}
    for path in (os.path.dirname(place.path), place.path):
        try:
            status = os.stat(path)
        except OSError as error:
            return error.strerror
        if status.st_uid not in trusted:
            return f"{'it' if path == place.path else 'its directory'} belongs to another user (uid {status.st_uid})"
        if status.st_mode & stat.S_IWOTH:
            return f"{'it' if path == place.path else 'its directory'} can be written by every user"
    return None


def read(path: str) -> bytes:
    """The bytes of a runbook: a regular file of a limited size. Raises OSError with a reason for people."""
    return regular_file.read_of_others(path, LARGEST, viewer=caller())
