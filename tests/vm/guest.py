"""One virtual machine: boots an image, runs jobs in it one by one, and is gone at the end."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.vm.images import Image
from tests.vm.needs import QEMU, UnavailableError

BOOT_SECONDS = 1800
KVM_SECONDS = 60
"""With hardware virtualisation a guest is up in a few seconds; where it is not after these, it never will be."""
MEGABYTES = 2048
NICE = 5
_COMMAND_LINE = (
    "root=/dev/vda rw console=ttyS0 quiet loglevel=3 panic=-1 mitigations=off apparmor=1 security=apparmor "
    "systemd.show_status=0 systemd.getty_auto=0 net.ifnames=0"
)
_LAST_WORDS = 12


class GuestLostError(Exception):
    """It crashed, or hangs: what it was doing is lost."""


@dataclass(frozen=True)
class Done:
    """What became of a job."""

    status: int
    output: str


class Guest:
    """Use it as a context manager. Its only way outside is the folder `share`; it has no network."""

    def __init__(self, image: Image, cache: Path) -> None:
        self.image = image
        self.cache = cache
        self.share = Path(tempfile.mkdtemp(prefix=f"share-{image.kernel.name}-", dir=cache))
        self.log = cache / "logs" / f"serial-{image.kernel.name}.log"
        self.log.parent.mkdir(exist_ok=True)
        self.process: subprocess.Popen[bytes] | None = None
        for folder in ("in", "out"):
            (self.share / folder).mkdir()

    def __enter__(self) -> Guest:
        try:
            self._boot()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None and self.alive():
            (self.share / "stop").touch()
            assert self.process is not None
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                pass
        self._end()

    def _end(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.share, ignore_errors=True)

    def alive(self) -> bool:
        """Whether qemu runs."""
        return self.process is not None and self.process.poll() is None

    def _boot(self) -> None:
        verdict = self.cache / "kvm-does-not-boot"
        here = Path("/proc/sys/kernel/random/boot_id").read_text() if os.access("/dev/kvm", os.R_OK | os.W_OK) else ""
        if here and not (verdict.exists() and verdict.read_text() == here):
            self._start("kvm", "host")
            if self._up(KVM_SECONDS):
                return
            assert self.process is not None
            self.process.kill()
            self.process.wait()
            verdict.write_text(here)
        self._start("tcg,thread=single", "max,la57=off")
        if not self._up(BOOT_SECONDS):
            what = f"was not up after {BOOT_SECONDS} s" if self.alive() else "ended before it was up"
            words = " | ".join(self.last_words()) or "nothing"
            name = self.image.kernel.name
            raise UnavailableError(f"the guest with kernel {name} {what}; its console ({self.log}) ends with: {words}")

    def _start(self, accelerator: str, processor: str) -> None:
        image = self.image
        argv = [
            "nice",
            "-n",
            str(max(NICE - os.nice(0), 0)),
            QEMU,
            "-machine",
            "q35",
            "-accel",
            accelerator,
            "-cpu",
            processor,
            "-smp",
            "1",
        ]
        argv += ["-m", str(MEGABYTES), "-nodefaults", "-display", "none", "-no-reboot"]
        argv += ["-kernel", str(image.vmlinuz), "-initrd", str(image.initrd), "-append", _COMMAND_LINE]
        argv += ["-drive", f"file={image.disk},format=raw,if=virtio,snapshot=on"]
        argv += ["-virtfs", f"local,path={self.share},mount_tag=share,security_model=none,id=share"]
        argv += ["-device", "virtio-rng-pci", "-serial", f"file:{self.log}"]
        with (self.cache / "logs" / f"qemu-{image.kernel.name}.log").open("wb") as log:
            environment = {**os.environ, "TMPDIR": str(self.cache)}
            self.process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, env=environment
            )

    def _up(self, seconds: float) -> bool:
        """Whether the guest's agent reports within so many seconds."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.alive():
            if (self.share / "out" / "ready").exists():
                return True
            time.sleep(0.2)
        return False

    @property
    def ready(self) -> dict[str, str]:
        """What the agent said when it came up: the kernel's release, the state of systemd."""
        said: dict[str, str] = json.loads((self.share / "out" / "ready").read_text())
        return said

    def last_words(self) -> list[str]:
        """The end of the console."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return [line.strip() for line in text.splitlines() if line.strip()][-_LAST_WORDS:]

    def run(self, name: str, *argv: str, seconds: float) -> Done:
        """A program in the guest, as root; GuestLostError where the guest ends, or is silent for longer than that."""
        out = self.share / "out"
        draft = self.share / "in" / f".{name}"
        draft.write_text(json.dumps({"argv": argv, "seconds": seconds}))
        draft.rename(self.share / "in" / f"{name}.json")
        end = time.monotonic() + seconds + 30
        while not (out / f"{name}.rc").exists():
            if not self.alive():
                raise GuestLostError(f"the guest ended: {' | '.join(self.last_words())}")
            if time.monotonic() > end:
                raise GuestLostError(f"the guest said nothing for {seconds + 30:.0f} s")
            time.sleep(0.2)
        return Done(int((out / f"{name}.rc").read_text()), (out / f"{name}.log").read_text(errors="replace"))
