"""How this very netdiag is called, so that a remedy that calls it works as printed."""

from __future__ import annotations

import os
import shutil
import sys

from diagnose.model.snapshot import Program

NAME = "netdiag"
SECURE_PATH = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin", "/snap/bin")
"""Debian's and Ubuntu's secure_path, which sudo puts in the place of PATH (sudoers(5))."""


def look(argv0: str = sys.argv[0]) -> Program:
    """The name, where PATH leads to the program that runs now; its absolute path otherwise."""
    ours = _executable(argv0)
    found = shutil.which(NAME)
    if ours is None:
        return Program(NAME, NAME if found is None or os.path.dirname(found) in SECURE_PATH else found)
    named = found is not None and os.path.realpath(found) == os.path.realpath(ours)
    in_secure_path = named and os.path.dirname(found or "") in SECURE_PATH
    return Program(NAME if named else ours, NAME if in_secure_path else ours)


def _executable(argv0: str) -> str | None:
    """The script that was started, if it is netdiag itself and not `python -m` or a test runner."""
    path = os.path.abspath(argv0)
    name = os.path.basename(path).removesuffix(".exe")
    return path if name == NAME and os.access(path, os.X_OK) and os.path.isfile(path) else None
