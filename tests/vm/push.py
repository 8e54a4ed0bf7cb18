"""The checkout under test, on its way into the guest."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from tests.vm.guest import Guest
from tests.vm.recipe import REPOSITORY

PRODUCT = ("diagnose", "checks", "netdiag_entry.py")
TESTS = ("tests", "pyproject.toml")
CHECKOUT = "/opt/checkout"
_PUSHED = "pushed"
_INSTALL_SECONDS = 600
_INSTALL = f"""
import compileall, pathlib, shutil, sysconfig
share, site, checkout = pathlib.Path("/share/{_PUSHED}"), pathlib.Path(sysconfig.get_path("purelib")), "{CHECKOUT}"
shutil.copytree(share / "product", site, dirs_exist_ok=True)
shutil.copytree(share / "tests", checkout, dirs_exist_ok=True)
for name in ("diagnose", "checks"):
    assert compileall.compile_dir(site / name, quiet=1), name
assert compileall.compile_file(site / "netdiag_entry.py", quiet=1)
"""


def push(guest: Guest) -> None:
    """netdiag is installed beside its dependencies, its tests stand in a checkout without it.

    Raises RuntimeError with the guest's words.
    """
    place = guest.share / _PUSHED
    for name, parts in (("product", PRODUCT), ("tests", TESTS)):
        for part in parts:
            copy(REPOSITORY / part, place / name / part)
    done = guest.run("push", "/opt/netdiag/bin/python3", "-c", _INSTALL, seconds=_INSTALL_SECONDS)
    if done.status != 0:
        raise RuntimeError(f"netdiag could not be installed in the guest: {done.output}")


def copy(source: Path, target: Path) -> None:
    """A file, or a folder without what Python made of it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(source, target)


def sources() -> Iterator[Path]:
    """Every file that decides what a run in a guest finds."""
    for part in (*PRODUCT, *TESTS):
        path = REPOSITORY / part
        found = path.rglob("*") if path.is_dir() else [path]
        yield from sorted(one for one in found if one.is_file() and "__pycache__" not in one.parts)


def checkout_digest() -> str:
    """Twelve hex digits that change with the product or its tests."""
    digest = hashlib.sha256()
    for path in sources():
        digest.update(str(path.relative_to(REPOSITORY)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]
