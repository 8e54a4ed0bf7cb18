"""What the user asked about."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from msgspec import Struct


class Intent(StrEnum):
    """Reach a server, or start one."""

    CONNECT = "connect"
    BIND = "bind"


class Target(Struct, frozen=True):
    """A host and a TCP port, with what the user typed (passwords masked)."""

    input: str
    host: str
    port: int
    scheme: str | None = None
    transport: Literal["tcp"] = "tcp"

    @property
    def address(self) -> str:
        """host:port, as netdiag takes it: what was typed may hold a masked password."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Scope(Struct, frozen=True):
    """What the user allowed: recorded, so that a replay judges by the same terms."""

    timeout: float
    """Seconds that one unanswered attempt may take."""
    passive: bool = False
    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()

    def runs(self, check: str) -> bool:
        """Whether the check of this name was asked for."""
        return (not self.only or check in self.only) and check not in self.skip
