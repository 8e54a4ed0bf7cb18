"""What a process sees of the container that it runs in: its mounts (proc_pid_mountinfo(5)) and podman's marker."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from diagnose.model.process import Container

# The engines mount these files over the image's own, from a directory that is named for the container.
_FILES = frozenset({"/etc/hosts", "/etc/hostname", "/etc/resolv.conf"})
_SOURCES = (
    ("docker", re.compile(r"/containers/([0-9a-f]{64})/(?:hosts|hostname|resolv\.conf)$")),
    ("podman", re.compile(r"[-/](?:\w+-)?containers/([0-9a-f]{64})/userdata/")),
    ("kubernetes", re.compile(r"/pods/([0-9a-f]{8}-[0-9a-f-]{27})/etc-hosts$")),
    ("containerd", re.compile(r"/sandboxes/([0-9a-f]{64})/(?:hosts|hostname|resolv\.conf)$")),
)
_LAYERED = frozenset({"overlay", "fuse-overlayfs", "fuse.fuse-overlayfs", "aufs", "9p", "virtiofs"})
_ENTRY = re.compile(r'^(\w+)="?([^"\n]*)"?$', re.MULTILINE)


class _Mount(NamedTuple):
    root: str
    """The directory of the mounted filesystem that shows at the mount point."""
    point: str
    kind: str


def of_mounts(mountinfo: str) -> Container | None:
    """The container whose engine mounted its /etc/hosts, /etc/hostname or /etc/resolv.conf for us."""
    roots = [mount.root for mount in _mounts(mountinfo) if mount.point in _FILES]
    for engine, source in _SOURCES:
        for root in roots:
            if found := source.search(root):
                return Container(engine, found[1])
    return None


def root_is_an_image(mountinfo: str) -> bool:
    """Whether / is a stack of layers or a directory of a larger filesystem, as engines make it for their images."""
    roots = [mount for mount in _mounts(mountinfo) if mount.point == "/"]
    # of several mounts on / the last one is on top
    return bool(roots) and (roots[-1].kind in _LAYERED or roots[-1].root != "/")


def _mounts(mountinfo: str) -> Iterator[_Mount]:
    """Lines without the fields that this reads are skipped; none are known to exist."""
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(" "), after.split(" ")
        if len(fields) >= 5:
            yield _Mount(fields[3], fields[4], kind[0])


def of_containerenv(text: str) -> Container:
    """/run/.containerenv of podman: empty for ordinary containers, with name and id for privileged ones."""
    entries = dict(_ENTRY.findall(text))
    return Container("podman", entries.get("id", ""), entries.get("name") or None)
