"""Who owns a socket, said so that a hidden owner never reads as none."""

from __future__ import annotations

from msgspec import Struct

from diagnose.model.fact import Fact, Unknown
from diagnose.model.network import SocketRow
from diagnose.model.process import Holders, Process


class Owned(Struct, frozen=True):
    """Every process that was seen to hold the socket, by pid; more may be hidden."""

    processes: tuple[Process, ...]


class Hidden(Struct, frozen=True):
    """The owner was not among the processes that could be looked into."""

    uid: int
    """The user who made the socket."""
    lift: str
    """What would show the owner."""


class Unheld(Struct, frozen=True):
    """No process has a descriptor of it: TIME-WAIT, an unaccepted connection, or a socket of the kernel's own."""


class OwnerUnknown(Struct, frozen=True):
    """Nobody could look."""

    unknown: Unknown


Owner = Owned | Hidden | Unheld | OwnerUnknown


def owner(row: SocketRow, holders: Fact[Holders]) -> Owner:
    """The owner of a socket, from its inode."""
    if row.inode == 0:
        return Unheld()
    if isinstance(holders, Unknown):
        return OwnerUnknown(holders)
    seen = holders.value
    processes = tuple(one.process for one in seen.found if one.inode == row.inode)
    if processes:
        return Owned(processes)
    if seen.unlisted:
        return Hidden(row.uid, f"look from the host, outside any container: {seen.unlisted}")
    return Hidden(row.uid, "run it again with sudo") if seen.unreadable else Unheld()
