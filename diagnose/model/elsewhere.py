"""Listeners on the target's port in other network namespaces."""

from __future__ import annotations

from msgspec import Struct

from diagnose.model.bounds import Count, Handle, Pid, Some
from diagnose.model.network import Endpoint
from diagnose.model.process import Container, Process


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


class Elsewhere(Struct, frozen=True):
    """What other namespaces were seen, and who listens on this port there."""

    listeners: Some[OtherListener]
    namespaces: Count
    """How many other namespaces were looked into."""
    unreadable: Count = 0
    """Processes whose namespace could not be told, and named namespaces without a process to read them through."""
