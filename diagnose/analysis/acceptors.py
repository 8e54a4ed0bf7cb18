"""Which of the processes that hold a listening socket should accept its connections."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from diagnose.model.process import Process

_SOCKET_KEEPERS = frozenset(("systemd", "init", "inetd", "xinetd"))
"""Programs that open a socket for a service and leave it to that service once it runs."""


class Acceptors(Struct, frozen=True):
    """The holders of a listening socket by what they are there for, each part by pid."""

    likely: tuple[Process, ...]
    """Those that should accept; several: each of them may, and which one does not is not known."""
    masters: tuple[Process, ...] = ()
    """Those that opened it for workers of theirs, and as a rule accept nothing themselves."""


def acceptors(holders: Iterable[Process]) -> Acceptors:
    """Workers before the master that forked them, and a service before the service manager that opened its socket.

    A worker is a child that runs its parent's own program. A child that runs another program may have inherited the
    socket by accident, or be the server that its parent has started: then both are likely.
    """
    processes = tuple(sorted(dict.fromkeys(holders), key=lambda one: one.pid))
    kept = tuple(one for one in processes if not _keeps_sockets(one)) or processes
    masters = tuple(one for one in kept if any(_is_worker(other, one) for other in kept))
    return Acceptors(tuple(one for one in kept if one not in masters), masters)


def _keeps_sockets(process: Process) -> bool:
    """Whether it is a service manager, or a child of it that is about to execute a service's program."""
    return process.program in _SOCKET_KEEPERS or (process.executable or "").endswith("/systemd-executor")


def _is_worker(process: Process, master: Process) -> bool:
    if process.parent != master.pid or process.pid == master.pid:
        return False
    if process.executable is not None and master.executable is not None:
        return process.executable == master.executable
    return process.program == master.program
