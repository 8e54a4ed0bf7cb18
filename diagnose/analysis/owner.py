"""Who owns a socket, said so that a hidden owner never reads as none."""

from __future__ import annotations

from functools import lru_cache

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
    processes = _by_inode(_Same(seen)).get(row.inode, ())
    if processes:
        return Owned(processes)
    if seen.unlisted:
        return Hidden(row.uid, f"look from the host, outside any container: {seen.unlisted}")
    return Hidden(row.uid, "run it again with sudo") if seen.unreadable else Unheld()


class _Same:
    """The holders by identity: to hash or compare them would take as long as to look through them."""

    def __init__(self, holders: Holders) -> None:
        self.holders = holders

    def __hash__(self) -> int:
        return id(self.holders)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.holders is self.holders


@lru_cache(maxsize=2)
def _by_inode(seen: _Same) -> dict[int, tuple[Process, ...]]:
    """Looked through once, and not for each socket again."""
    found: dict[int, list[Process]] = {}
    for one in seen.holders.found:
        found.setdefault(one.inode, []).append(one.process)
    return {inode: tuple(processes) for inode, processes in found.items()}
