"""The checkout under test, on its way into the guest."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Iterator
from pathlib import Path

from tests.vm.guest import Guest
from tests.vm.recipe import REPOSITORY

PRODUCT = ("diagnose", "checks", "netdiag_entry.py")
TESTS = ("tests", "pyproject.toml")
CHECKOUT = "/opt/checkout"
_PUSHED = "pushed.tar"
_INSTALL_SECONDS = 900
_INSTALL = f"""
import compileall, pathlib, sysconfig, tarfile
site, checkout = pathlib.Path(sysconfig.get_path("purelib")), pathlib.Path("{CHECKOUT}")
checkout.mkdir()
with tarfile.open("/share/{_PUSHED}") as pushed:
    pushed.extractall(checkout)
for name in {PRODUCT!r}:
    (checkout / name).rename(site / name)
    assert compileall.compile_dir(site / name, quiet=1) if (site / name).is_dir() else True, name
assert compileall.compile_file(site / "netdiag_entry.py", quiet=1)
"""


class InstallationError(Exception):
    """netdiag cannot be installed in the guest, or its list cannot be started there."""


def push(guest: Guest) -> None:
    """netdiag is installed beside its dependencies, its tests stand in a checkout without it.

    In one file, as each one that is opened over the share takes its time. Raises InstallationError.
    """
    with tarfile.open(guest.share / _PUSHED, "w") as pushed:
        for path in sources():
            pushed.add(path, path.relative_to(REPOSITORY), filter=owned_by_root)
    done = guest.run("push", "/opt/netdiag/bin/python3", "-c", _INSTALL, seconds=_INSTALL_SECONDS)
    if done.status != 0:
        raise InstallationError(f"netdiag could not be installed in the guest: {done.output}")


def owned_by_root(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """Whatever the checkout's umask and owner are, everybody in the guest may read it."""
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = "root"
    entry.mode = 0o755 if entry.mode & 0o100 else 0o644
    return entry


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
