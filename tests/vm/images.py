"""The images that are there, and those that have to be built."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.vm.kernels import Kernel
from tests.vm.needs import UnavailableError, lacking, this_host
from tests.vm.recipe import REPOSITORY, recipe_of


@dataclass(frozen=True)
class Image:
    """What a guest boots from; never written to."""

    folder: Path
    kernel: Kernel

    @property
    def disk(self) -> Path:
        """An ext4 file system."""
        return self.folder / "disk.img"

    @property
    def vmlinuz(self) -> Path:
        """The kernel."""
        return self.folder / f"vmlinuz-{self.kernel.name}"

    @property
    def initrd(self) -> Path:
        """Its initial file system."""
        return self.folder / f"initrd-{self.kernel.name}"


def image_for(kernel: Kernel, cache: Path) -> Image:
    """The image of this checkout's recipe; built where it is not there. Raises UnavailableError."""
    folder = cache / "images" / f"{kernel.suite}-{recipe_of(kernel.suite).digest}"
    built = folder.is_dir()
    if (line := lacking(this_host(cache), build=not built)) is not None:
        raise UnavailableError(line)
    if not built:
        _build(kernel.suite, cache, folder)
    return Image(folder, kernel)


def _build(suite: str, cache: Path, folder: Path) -> None:
    """In a process with mounts of its own; images of older recipes make room."""
    print(f"building the disk of {suite} in {folder} (once; some minutes)", flush=True)
    argv = ["unshare", "--mount", "--propagation", "private", "--", sys.executable, "-m", "tests.vm.build"]
    environment = {**os.environ, "PATH": f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"}
    done = subprocess.run([*argv, suite, str(cache), str(folder)], cwd=REPOSITORY, env=environment, check=False)
    if done.returncode != 0 or not folder.is_dir():
        raise UnavailableError(f"the disk of {suite} could not be built: see above and {cache}/logs")
    for other in folder.parent.glob(f"{suite}-*"):
        if other != folder:
            shutil.rmtree(other)
