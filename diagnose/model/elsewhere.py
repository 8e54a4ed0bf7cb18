"""Listeners on the target's port in other network namespaces."""

from __future__ import annotations

from msgspec import Struct

from diagnose.model.bounds import Address, Count, Few, Handle, Pid, Some
from diagnose.model.network import Endpoint
from diagnose.model.process import Container, Process


class Residence(Struct, frozen=True, order=True):
    """Whose network namespace a process is in, and what put it there."""

    machine: bool | None = None
    """Whether it is the one of the machine's first process; None: could not be determined."""
    unit: str | None = None
    """The process's systemd unit, where systemd started it in this namespace (PrivateNetwork= and its kin)."""
    shared_with: Few[str] = ()
    """Other units that systemd started in it (JoinsNamespaceOf=)."""
    launcher: str = ""
    """Where no unit did: the program of the outermost process in it, whose parent is outside."""
    launcher_pid: Pid = 0


class OtherListener(Struct, frozen=True, order=True):
    """A LISTEN row on the target's port in another network namespace."""

    namespace: Handle
    """Inode of the namespace (or, where that is hidden, of its /proc/PID/net/tcp)."""
    local: Endpoint
    name: str | None = None
    """Name under /run/netns, if it has one."""
    process: Process | None = None
    """The listener's holder; where it is hidden, None."""
    container: Container | None = None
    unit: str | None = None
    init: Pid = 0
    """A pid inside that namespace: the lowest seen."""
    init_program: str = ""
    """What runs as that pid (comm): any user may read it, the listener's holder not."""
    residence: Residence = Residence()
    """Of the holder; where it is hidden, of the namespace as far as all its processes agree."""
    addresses: Few[Address] = ()
    """Of a wildcard: its namespace's own, without those of loopback and of one link; as many as were read."""


class Elsewhere(Struct, frozen=True):
    """What other namespaces were seen, and who listens on this port there."""

    listeners: Some[OtherListener]
    namespaces: Count
    """How many other namespaces were looked into."""
    unreadable: Count = 0
    """Processes whose namespace could not be told, and named namespaces without a process to read them through."""
    ours: Residence = Residence()
    """Of the process that looked."""
