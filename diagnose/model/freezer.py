"""Cgroups that the kernel holds still: a paused container, `systemctl freeze`, a write into cgroup.freeze."""

from __future__ import annotations

from msgspec import Struct

from diagnose.model.bounds import Few, Inode, Pid, Some
from diagnose.model.process import Container


class FrozenCgroup(Struct, frozen=True, order=True):
    """A frozen cgroup, with the processes and listening sockets of the target's port that belong to it."""

    directory: str
    files: Few[str]
    """What thaws it, outermost first: cgroup.freeze of each cgroup on its path that is frozen by itself, or with
    version 1 freezer.state (cgroup-v2.rst, freezer-subsystem.rst)."""
    pids: Some[Pid] = ()
    container: Container | None = None
    """The container that is frozen; None: it is none, or a cgroup around the container is."""
    inodes: Some[Inode] = ()
    """Listening sockets that were made in it; a socket stays with its cgroup when its process moves."""

    @property
    def is_version_1(self) -> bool:
        """Whether it belongs to the freezer of cgroup version 1, where not even SIGKILL ends a frozen process."""
        return any(one.endswith("/freezer.state") for one in self.files)
