"""Processes, the containers and units they live in, and which sockets they hold."""

from __future__ import annotations

from msgspec import Struct

from diagnose.model.bounds import Count, Inode, Pid, Uid


class Container(Struct, frozen=True, order=True):
    """A container, as far as it could be told from outside or inside."""

    engine: str
    """docker, podman, containerd, kubernetes, lxc ... or "unknown"."""
    id: str
    name: str | None = None
    """None: the engine was not asked or did not answer."""


class Process(Struct, frozen=True, order=True):
    """A process; text from /proc is escaped where it is printed."""

    pid: Pid
    program: str
    """comm, as the kernel has it (at most 15 bytes); where the process has made it up, what is harmless of it."""
    command: str
    """What is harmless of the command line, *** for the rest; empty for kernel threads or where it is unreadable."""
    uid: Uid
    user: str
    state: str
    """One letter: R S D T t Z X I (proc_pid_stat(5))."""
    started_at: str
    """RFC 3339 UTC, to the second."""
    parent: Pid = 0
    tracer: Pid = 0
    """Pid of the debugger, or 0."""
    executable: str | None = None
    unit: str | None = None
    """systemd unit, from the cgroup path."""
    container: Container | None = None
    unit_owner: Uid | None = None
    """Uid of the user whose own service manager runs the unit; None: the system's."""


class Holder(Struct, frozen=True, order=True):
    """A process that has a file descriptor of the socket with this inode."""

    inode: Inode
    process: Process


class Holders(Struct, frozen=True):
    """Who holds which socket, among the processes that could be looked into."""

    found: tuple[Holder, ...]
    unreadable: Count
    """How many processes hid their descriptors (other users'): an owner may be among them."""
    unlisted: str | None = None
    """Why not even root may see every owner from here (a PID namespace of our own); None: root would."""
