"""/proc/PID/cgroup as the systemd unit and the container that a process lives in (cgroups(7))."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from diagnose.model.process import Container

_ID = re.compile(r"[0-9a-f]{64}")
_SCOPE = re.compile(
    r"(?:.*[:-])?(docker|libpod-payload|libpod|cri-containerd|crio|nerdctl|podman)[-:]([0-9a-f]{64})(?:\.scope)?"
)
_ENGINES = {
    "docker": "docker",
    "libpod": "podman",
    "libpod-payload": "podman",
    "podman": "podman",
    "cri-containerd": "containerd",
    "nerdctl": "containerd",
    "crio": "cri-o",
}
_USER_MANAGER = re.compile(r"user@(\d+)\.service")


class Membership(NamedTuple):
    """Where a process belongs."""

    unit: str | None = None
    """The innermost service."""
    unit_owner: int | None = None
    """Uid of the user whose service manager runs the unit; None: the system's."""
    container: Container | None = None
    """The outermost container: the one that this machine's own engine knows."""


def membership(text: str) -> Membership:
    """What the paths say: one line a hierarchy, `number:controllers:path`; of version 2 only `0::path`."""
    found = Membership()
    for line in text.splitlines():
        path = line.split(":", 2)[-1].split("/")
        place = _container(path)
        # a service below the container is one of the container's own service manager
        unit, owner = _unit(path if place is None else path[: place[0] + 1])
        found = Membership(
            unit=found.unit or unit,
            unit_owner=found.unit_owner if found.unit else owner,
            container=found.container or (place[1] if place else None),
        )
    return found


def _container(path: Sequence[str]) -> tuple[int, Container] | None:
    """The first part of a path that only a container engine gives, and where it is."""
    kubernetes = any("kubepods" in part for part in path)
    for at, part in enumerate(path):
        if scope := _SCOPE.fullmatch(part):
            return at, Container("kubernetes" if kubernetes else _ENGINES[scope[1]], scope[2])
        if _ID.fullmatch(part):
            return at, Container("kubernetes" if kubernetes else _engine_above(path[:at]), part)
        if found := _system_container(path[at - 1] if at else "", part):
            return at, found
    return None


def _engine_above(parents: Sequence[str]) -> str:
    """The engine that puts its containers below a directory of this name."""
    if "docker" in parents or "ecs" in parents:
        return "docker"
    if "libpod_parent" in parents:
        return "podman"
    return "containerd" if "default" in parents else "unknown"


def _system_container(parent: str, part: str) -> Container | None:
    """LXC and systemd-nspawn, which name what they run."""
    if part.startswith("lxc.payload."):
        return Container("lxc", name := part.removeprefix("lxc.payload."), name)
    if parent in ("lxc", "lxc.payload") and part:
        return Container("lxc", part, part)
    if part.startswith("systemd-nspawn@") and part.endswith(".service"):
        name = part.removeprefix("systemd-nspawn@").removesuffix(".service")
        return Container("systemd-nspawn", name, name)
    # libvirt names its machines machine-qemu\x2d1\x2dNAME.scope: no container
    if part.startswith("machine-") and part.endswith(".scope") and not part.startswith("machine-qemu"):
        name = part.removeprefix("machine-").removesuffix(".scope")
        return Container("systemd-nspawn", name, name)
    return None


def _unit(path: Sequence[str]) -> tuple[str | None, int | None]:
    """The innermost service, and the uid of its manager; a user's manager itself is no answer."""
    owner: int | None = None
    unit: str | None = None
    for part in path:
        if manager := _USER_MANAGER.fullmatch(part):
            owner, unit = int(manager[1]), None
        elif part.endswith(".service"):
            unit = part
    return (unit, owner) if unit else (None, None)
