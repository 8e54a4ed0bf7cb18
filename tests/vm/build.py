"""Builds the disk of a guest: debootstrap, packages, kernels, netdiag's dependencies, an ext4 image.

Runs as root in a mount namespace of its own (tests.vm.images starts it), so that no mount outlives it.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.vm.recipe import AGENT, USER, Recipe, recipe_of

TRIES = 3
"""A package mirror times out now and then, and what came is kept."""
STEP_SECONDS = 1800
IMAGE_BYTES = 5 << 30
DEBIAN = "http://deb.debian.org/debian"
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux2014_x86_64", "manylinux_2_17_x86_64")
_APT = """
APT::Install-Recommends "false";
APT::Keep-Downloaded-Packages "true";
Acquire::Languages "none";
Acquire::Retries "5";
DPkg::Options { "--force-confold"; "--force-unsafe-io"; };
"""
_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
_ENTRY = """#!/opt/netdiag/bin/python3
import sys
from netdiag_entry import main
if __name__ == '__main__':
    sys.exit(main())
"""


class Builder:
    """One build; `into` becomes the folder with disk.img, vmlinuz-KERNEL and initrd-KERNEL."""

    def __init__(self, recipe: Recipe, cache: Path, scratch: Path) -> None:
        self.recipe = recipe
        self.root = scratch / "root"
        self.out = scratch / "image"
        self.debs = cache / "packages" / recipe.suite
        self.wheels = cache / "wheels" / recipe.python
        self.log = cache / "logs" / f"build-{recipe.suite}.log"
        for folder in (self.debs, self.wheels, self.log.parent, self.out):
            folder.mkdir(parents=True, exist_ok=True)
        self.log.write_bytes(b"")

    def build(self) -> None:
        """All the steps, each with its time."""
        steps: tuple[Callable[[], None], ...] = (
            self.bootstrap,
            self.own_files,
            self.packages,
            self.users_and_units,
            self.dependencies,
            self.kernels,
            self.image,
        )
        for step in steps:
            begin = time.monotonic()
            step()
            print(
                f"  {self.recipe.suite}: {step.__name__.replace('_', ' ')}, {time.monotonic() - begin:.0f} s",
                flush=True,
            )

    def run(self, *argv: str, tries: int = 1) -> None:
        """A program with its output in the log; SystemExit with the log's last words when it fails every time."""
        for left in reversed(range(tries)):
            with self.log.open("ab") as log:
                try:
                    done = subprocess.run(
                        argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, timeout=STEP_SECONDS, check=False
                    )
                except subprocess.TimeoutExpired:
                    sys.exit(f"{argv[0]} was not done after {STEP_SECONDS} s; see {self.log}")
            if done.returncode == 0:
                return
            if not left:
                last = self.log.read_text(errors="replace").strip().rpartition("\n")[2]
                sys.exit(f"{argv[0]} failed with status {done.returncode}: {without_urls(last)}; see {self.log}")

    def inside(self, *argv: str, tries: int = 1) -> None:
        """A program in the guest's root."""
        environment = [f"{name}={value}" for name, value in os.environ.items() if name.lower().endswith("_proxy")]
        given = ["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8", *environment]
        self.run("chroot", str(self.root), *given, "DEBIAN_FRONTEND=noninteractive", *argv, tries=tries)

    def bootstrap(self) -> None:
        """A minimal Debian."""
        for left in reversed(range(TRIES)):
            shutil.rmtree(self.root, ignore_errors=True)
            try:
                suite = self.recipe.suite
                self.run(
                    "debootstrap", "--variant=minbase", f"--cache-dir={self.debs}", suite, str(self.root), mirror()
                )
                return
            except SystemExit:
                if not left:
                    raise

    def packages(self) -> None:
        """What the recipe names, then the kernels of other releases; no service starts while it is built."""
        with self.mirrored():
            self.sources(self.recipe.suite)
            self.inside("apt-get", "update", "-q", tries=TRIES)
            self.inside("apt-get", "install", "-y", "-q", *self.recipe.packages, tries=TRIES)
            for name, source in self.recipe.kernels:
                if source != self.recipe.suite:
                    self.sources(source)
                    self.inside("apt-get", "update", "-q", tries=TRIES)
                    self.inside("apt-get", "install", "-y", "-q", self.newest(name), tries=TRIES)

    def newest(self, version: str) -> str:
        """The package of the newest signed kernel of that version."""
        argv = ["chroot", str(self.root), "apt-cache", "pkgnames", f"linux-image-{version}."]
        names = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()
        form = re.compile(rf"linux-image-{re.escape(version)}\.[0-9.+a-z]+(-[0-9]+)?-amd64")
        fit = [name for name in names if form.fullmatch(name)]
        if not fit:
            sys.exit(f"the mirror has no kernel {version}")
        return max(fit, key=lambda name: [int(number) for number in re.findall("[0-9]+", name)])

    @contextmanager
    def mirrored(self) -> Iterator[None]:
        """apt can reach the mirror with this machine's names and certificates; nothing of that stays on the disk."""
        archives, apt = self.place("/var/cache/apt/archives"), self.place("/etc/apt/apt.conf.d/99build")
        policy = self.place("/usr/sbin/policy-rc.d")
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
        shutil.copy("/etc/resolv.conf", self.place("/etc/resolv.conf"))
        certificates = self.place("/etc/build.crt")
        if Path(_BUNDLE).exists():
            shutil.copy(_BUNDLE, certificates)
        apt.write_text(_APT + (f'Acquire::https::CaInfo "/{certificates.relative_to(self.root)}";\n'))
        mounts = {"/proc": self.place("/proc"), str(self.debs): archives}
        for what, where in mounts.items():
            self.run("mount", "--bind", what, str(where))
        yield
        for where in mounts.values():
            self.run("umount", str(where))
        for path in (policy, apt, certificates, self.place("/etc/apt/sources.list"), self.place("/etc/resolv.conf")):
            path.unlink(missing_ok=True)
        shutil.rmtree(self.place("/var/lib/apt/lists"))

    def sources(self, suite: str) -> None:
        """Where apt looks from now on."""
        self.place("/etc/apt/sources.list").write_text(f"deb {mirror()} {suite} main\n")

    def place(self, path: str) -> Path:
        """A path of the guest, as it is here."""
        return self.root / path.lstrip("/")

    def own_files(self) -> None:
        """The recipe's; they come first, as packages keep what is there."""
        for path, text in self.recipe.files:
            there = self.place(path)
            there.parent.mkdir(parents=True, exist_ok=True)
            there.write_text(text)
        self.place(AGENT).chmod(0o755)

    def users_and_units(self) -> None:
        """The ordinary user; the agent's login, and no service but those that a fault starts; no resolver outside."""
        wanted = self.place("/etc/systemd/system/multi-user.target.wants")
        wanted.mkdir(parents=True, exist_ok=True)
        (wanted / "vm-login.service").symlink_to("/etc/systemd/system/vm-login.service")
        self.place("/etc/resolv.conf").write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
        self.inside("useradd", "--create-home", "--shell", "/bin/bash", USER)
        enabled = [self.place(f"/etc/systemd/{one}") for one in ("system", "user")]
        for unit in self.recipe.quiet:
            for link in [link for folder in enabled for link in folder.glob(f"*.wants/{unit}")]:
                link.unlink()

    def dependencies(self) -> None:
        """What netdiag and its tests import, in /opt/netdiag; netdiag itself comes with each run."""
        flags = [word for one in PLATFORMS for word in ("--platform", one)]
        target = ["--python-version", self.recipe.python, "--implementation", "cp", *flags, "--only-binary=:all:"]
        pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
        self.run(*pip, "download", "-q", "-d", str(self.wheels), *target, *self.recipe.wheels, tries=TRIES)
        there = self.place("/tmp/wheels")
        shutil.copytree(self.wheels, there)
        self.inside("python3", "-m", "venv", "/opt/netdiag")
        install = ("install", "-q", "--no-index", "--find-links", "/tmp/wheels")
        self.inside("/opt/netdiag/bin/pip", *install, *self.recipe.wheels)
        shutil.rmtree(there)
        entry = self.place("/opt/netdiag/bin/netdiag")
        entry.write_text(_ENTRY)
        entry.chmod(0o755)
        self.place("/usr/local/bin/netdiag").symlink_to("/opt/netdiag/bin/netdiag")

    def kernels(self) -> None:
        """qemu loads them itself: they stand beside the disk."""
        for name, _ in self.recipe.kernels:
            release = next(path.name for path in self.place("/lib/modules").iterdir() if is_of(path.name, name))
            shutil.copy(self.place(f"/boot/vmlinuz-{release}"), self.out / f"vmlinuz-{name}")
            shutil.copy(self.place(f"/boot/initrd.img-{release}"), self.out / f"initrd-{name}")

    def image(self) -> None:
        """The ext4 image; sparse, and without a journal, as nobody writes to it."""
        disk = self.out / "disk.img"
        with disk.open("wb") as file:
            file.truncate(IMAGE_BYTES)
        self.run("mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-d", str(self.root), str(disk))


def is_of(release: str, version: str) -> bool:
    """Whether 6.1.0-50-amd64 is a 6.1."""
    return release.startswith(f"{version}.")


def mirror() -> str:
    """NETDIAG_VM_MIRROR, else this machine's own one where it is Debian, else Debian's."""
    if chosen := os.environ.get("NETDIAG_VM_MIRROR"):
        return chosen
    if "\nID=debian\n" not in "\n" + Path("/etc/os-release").read_text():
        return DEBIAN
    listed = [*Path("/etc/apt/sources.list.d").glob("*.sources"), *Path("/etc/apt/sources.list.d").glob("*.list")]
    for path in (*sorted(listed), Path("/etc/apt/sources.list")):
        text = path.read_text() if path.exists() else ""
        found = re.search(r"(?m)^(?:URIs:\s*|deb\s+(?:\[[^]]*\]\s+)?)(https?://\S+?debian/?)(?:\s|$)", text)
        if found:
            return found[1]
    return DEBIAN


def without_urls(text: str) -> str:
    """A mirror's address may hold a password."""
    return re.sub(r"\w+://\S+", "URL", text)


def main(suite: str, cache: str, place: str) -> None:
    """Build into a scratch folder in the cache, and move it into its place when it is whole."""
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))  # the scratch folder goes with us
    with tempfile.TemporaryDirectory(prefix=f"build-{suite}-", dir=cache) as scratch:
        builder = Builder(recipe_of(suite), Path(cache), Path(scratch))
        builder.build()
        Path(place).parent.mkdir(parents=True, exist_ok=True)
        builder.out.rename(place)


if __name__ == "__main__":
    main(*sys.argv[1:])
