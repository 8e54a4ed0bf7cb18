"""What the virtual machines need from the machine that runs them, said in one line each where it is missing."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

UNAVAILABLE = 69
"""Exit code where something is missing (EX_UNAVAILABLE of sysexits.h)."""
QEMU = "qemu-system-x86_64"
PACKAGES = {
    QEMU: "qemu-system-x86",
    "debootstrap": "debootstrap",
    "mke2fs": "e2fsprogs",
    "unshare": "util-linux",
    "chroot": "coreutils",
}
"""Programs, and the Debian packages that have them."""
TO_BOOT = (QEMU,)
TO_BUILD = tuple(PACKAGES)
BUILD_BYTES = 6 << 30
BOOT_BYTES = 2 << 30
"""Free bytes: a root file system of 1.5 GiB, its image, and packages; what a running guest writes."""
_SYSTEM_FOLDERS = "/usr/sbin:/sbin"


class UnavailableError(Exception):
    """Something without which no guest can be built or booted; its text is one line for people."""


@dataclass(frozen=True)
class Host:
    """What was found out about this machine."""

    system: str
    architecture: str
    uid: int
    found: frozenset[str]
    """Programs."""
    free: int
    """Bytes, where the cache is."""
    cache: Path


def this_host(cache: Path) -> Host:
    """Looks; makes the cache's folder, as only a folder that is there has a file system."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UnavailableError(
            f"{cache}: {error.strerror}; say with NETDIAG_VM_CACHE where the images may be kept"
        ) from error
    path = f"{os.environ.get('PATH', os.defpath)}:{_SYSTEM_FOLDERS}"
    which: Callable[[str], str | None] = lambda program: shutil.which(program, path=path)  # noqa: E731
    return Host(
        system=sys.platform,
        architecture=platform.machine(),
        uid=os.geteuid(),
        found=frozenset(filter(which, PACKAGES)),
        free=shutil.disk_usage(cache).free,
        cache=cache,
    )


def lacking(host: Host, *, build: bool) -> str | None:
    """The line that says what is missing, None where nothing is."""
    if host.system != "linux" or host.architecture != "x86_64":
        return f"the guests are for Linux on x86_64, and this is {host.system} on {host.architecture}"
    programs = [name for name in (TO_BUILD if build else TO_BOOT) if name not in host.found]
    if programs:
        packages = " ".join(PACKAGES[name] for name in programs)
        return f"not installed: {', '.join(programs)}; on Debian and Ubuntu: sudo apt-get install {packages}"
    if build and host.uid != 0:
        return "a guest's disk is built as root: run it once with sudo (later runs need no root)"
    wanted = BUILD_BYTES if build else BOOT_BYTES
    if host.free < wanted:
        have, need = f"{host.free / (1 << 30):.1f}", wanted >> 30
        return f"{host.cache} has {have} GiB free and needs {need}; NETDIAG_VM_CACHE names another place"
    return None


def cache_folder(environment: dict[str, str]) -> Path:
    """Where images are kept: NETDIAG_VM_CACHE, else netdiag-vm under XDG_CACHE_HOME or ~/.cache."""
    if chosen := environment.get("NETDIAG_VM_CACHE"):
        return Path(chosen)
    base = environment.get("XDG_CACHE_HOME") or f"{environment.get('HOME', '/root')}/.cache"
    return Path(base) / "netdiag-vm"
