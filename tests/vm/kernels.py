"""The kernels that the guests boot, and the release of Debian that each guest runs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Kernel:
    """One guest: its kernel's version, the release that it runs, and the release that the kernel comes from."""

    name: str
    suite: str
    source: str


KERNELS = (
    Kernel("5.10", suite="bookworm", source="bullseye"),
    Kernel("6.1", suite="bookworm", source="bookworm"),
    Kernel("6.12", suite="trixie", source="trixie"),
)
NAMES = tuple(kernel.name for kernel in KERNELS)
SUITES = tuple(dict.fromkeys(kernel.suite for kernel in KERNELS))


def kernel_named(name: str) -> Kernel:
    """The kernel of that name; KeyError where there is none."""
    return {kernel.name: kernel for kernel in KERNELS}[name]


def kernels_of(suite: str) -> tuple[Kernel, ...]:
    """Those that boot with this release; its own one comes first."""
    found = [kernel for kernel in KERNELS if kernel.suite == suite]
    return tuple(sorted(found, key=lambda kernel: kernel.source != suite))
