"""What a guest's disk is made of; its hash is the name of the image, so that a change makes a new one."""

from __future__ import annotations

import hashlib
import json
import tomllib
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.vm.kernels import SUITES, kernels_of

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]
AGENT = "/usr/local/sbin/vm-agent"
USER = "user"

_COMMON = """
    systemd systemd-sysv udev dbus libpam-systemd login linux-image-amd64 initramfs-tools zstd kmod
    python3 python3-venv iproute2 nftables iptables conntrack ncat netcat-openbsd socat curl procps psmisc apparmor
    apparmor-utils busybox-static sudo ufw firewalld strace ca-certificates ipset
"""
_PACKAGES = {
    "bookworm": "",
    "trixie": "docker.io docker-cli podman crun netavark aardvark-dns passt uidmap slirp4netns dbus-user-session",
}
PYTHON = {"bookworm": "3.11", "trixie": "3.13"}
TEST_WHEELS = ("pytest", "jsonschema", "hypothesis")

_QUIET = """
    docker.service docker.socket containerd.service podman.service podman.socket podman-restart.service
    podman-auto-update.service podman-auto-update.timer podman-clean-transient.service firewalld.service ufw.service
    nftables.service apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service
    fstrim.timer systemd-networkd.service systemd-networkd.socket netfilter-persistent.service
"""
"""Units that packages enable, and that only the fault that needs them starts."""

FILES = {
    # a small initial file system: only what the disk and the share need
    "/etc/initramfs-tools/conf.d/small": "MODULES=list\nCOMPRESS=zstd\n",
    "/etc/initramfs-tools/modules": "virtio_pci\nvirtio_blk\next4\n9p\n9pnet_virtio\n",
    "/etc/hostname": "vm\n",
    "/etc/hosts": "127.0.0.1 localhost\n127.0.1.1 vm\n::1 localhost ip6-localhost ip6-loopback\n",
    "/etc/fstab": "/dev/vda / ext4 defaults,noatime 0 0\n",
    # root's login on the serial line is where the agent runs: a session's scope, which no remedy takes for a service.
    # Not serial-getty@ttyS0, which gives up where udev needs more than 90 s to announce the device.
    "/etc/systemd/system/vm-login.service": (
        "[Unit]\nAfter=systemd-user-sessions.service systemd-logind.service\nWants=systemd-logind.service\n"
        "[Service]\nExecStart=-/sbin/agetty --autologin root --noclear --keep-baud 115200 ttyS0 linux\n"
        "Type=idle\nRestart=always\nRestartSec=1\nUtmpIdentifier=ttyS0\nTTYPath=/dev/ttyS0\nTTYReset=yes\n"
        "TTYVHangup=yes\nIgnoreSIGPIPE=no\nSendSIGHUP=yes\n[Install]\nWantedBy=multi-user.target\n"
    ),
    "/root/.bash_profile": f'[ "$(tty)" = /dev/ttyS0 ] && exec {AGENT}\n',
}
"""Where each stands in the guest, and what it says."""


@dataclass(frozen=True)
class Recipe:
    """All that decides what is on a guest's disk."""

    suite: str
    packages: tuple[str, ...]
    kernels: tuple[tuple[str, str], ...]
    """Version and release that it comes from."""
    python: str
    wheels: tuple[str, ...]
    """Requirements of netdiag and of its tests."""
    quiet: tuple[str, ...]
    files: tuple[tuple[str, str], ...]
    steps: str
    """Hash of the code that carries it out."""

    @property
    def digest(self) -> str:
        """Twelve hex digits that change with anything in here."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def recipe_of(suite: str) -> Recipe:
    """The recipe of the release, as this checkout has it."""
    assert suite in SUITES, suite
    agent = (HERE / "agent.py").read_text()
    return Recipe(
        suite=suite,
        packages=tuple(f"{_COMMON} {_PACKAGES[suite]}".split()),
        kernels=tuple((kernel.name, kernel.source) for kernel in kernels_of(suite)),
        python=PYTHON[suite],
        wheels=(*requirements((REPOSITORY / "pyproject.toml").read_text()), *TEST_WHEELS),
        quiet=tuple(_QUIET.split()),
        files=tuple(sorted({**FILES, AGENT: agent}.items())),
        steps=hashlib.sha256((HERE / "build.py").read_bytes()).hexdigest(),
    )


def requirements(pyproject: str) -> tuple[str, ...]:
    """What the project needs at run time."""
    return tuple(tomllib.loads(pyproject)["project"]["dependencies"])
