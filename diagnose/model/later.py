"""What became of a server that refused or ended a connection."""

from __future__ import annotations

from msgspec import Struct

from diagnose.model.bounds import Milliseconds, Some
from diagnose.model.fact import Fact
from diagnose.model.network import SocketRow
from diagnose.model.process import Holders


class Later(Struct, frozen=True):
    """The listening sockets on the target's port a moment after the attempts, and their holders."""

    ms: Milliseconds
    """Since the attempts began."""
    listeners: Some[SocketRow]
    holders: Fact[Holders]
