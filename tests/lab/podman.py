"""A machine with a real podman of its own, and its service where Docker's language is spoken."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path

from tests.lab.docker import APPLETS, BUSYBOX
from tests.lab.machine import Machine, wait_for

PODMAN = "/usr/bin/podman"
NEEDED = (PODMAN, "conmon", "runc", BUSYBOX)
SOCKET = "/run/podman/podman.sock"
SHARED = ("/dev/shm", "/var/lib/cni")
"""Where podman and CNI keep locks and addresses whatever they are told: two machines at once would share them."""
LIMITS = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024")
"""Where root lacks CAP_SYS_RESOURCE podman cannot raise its own."""


class PodmanMachine(Machine):
    """Use it as a context manager; its command is called podman, as on every machine."""

    def __enter__(self) -> PodmanMachine:
        super().__enter__()
        self.run("mkdir", "-p", str(Path(SOCKET).parent), "/var/lib/cni")
        for shared in SHARED:
            self.run("mount", "-t", "tmpfs", "-o", "mode=1777", "lab", shared)
        self.root_directory()
        called = shlex.join(self.command())
        self.write("/run/bin/podman", f'#!/bin/sh\nexec {called} "$@"\n', 0o755)
        argv = [*self.command("system", "service", "--time=0"), f"unix://{SOCKET}"]
        self.service = subprocess.Popen(
            self.inside(argv), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_for(lambda: self.run("sh", "-c", f"test -S {SOCKET} && echo yes", check=False), "podman's socket", 20)
        return self

    def __exit__(self, *error: object) -> None:
        self.podman("rm", "--all", "--force", "--time=0", check=False)
        self.service.terminate()
        self.service.wait(10)
        super().__exit__(*error)

    def command(self, *arguments: str) -> list[str]:
        """Podman with all that it keeps in this machine's own place."""
        place = self.scratch / "podman"
        kept = ["--root", f"{place}/root", "--runroot", f"{place}/run", "--network-config-dir", f"{place}/net"]
        runtime = shutil.which("runc", path="/usr/sbin:/usr/bin:/sbin:/bin") or "runc"
        return [PODMAN, *kept, "--cgroup-manager=cgroupfs", "--runtime", runtime, "--storage-driver=vfs", *arguments]

    def podman(self, *arguments: str, check: bool = True) -> str:
        """Standard output of the podman command in this machine."""
        return self.run(*self.command(*arguments), check=check)

    def root_directory(self) -> None:
        """What its containers run on: static busybox."""
        programs = self.scratch / "rootfs" / "bin"
        programs.mkdir(parents=True)
        shutil.copy(BUSYBOX, programs / "busybox")
        for applet in APPLETS:
            (programs / applet).symlink_to("busybox")
        for name in ("dev", "etc", "proc", "run", "sys", "tmp"):
            (self.scratch / "rootfs" / name).mkdir()

    def container(self, verb: tuple[str, ...], name: str, *command: str, options: tuple[str, ...] = ()) -> str:
        """Make a container, and run it in the background where the verb says so; its id."""
        place = str(self.scratch / "rootfs")
        return self.podman(*verb, "--name", name, *LIMITS, *options, "--rootfs", place, *command).strip()
