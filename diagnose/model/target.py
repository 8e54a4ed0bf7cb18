"""What the user asked about."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from msgspec import Struct

from diagnose.model.bounds import Few, Port, Seconds

COMPOSE = "compose:"
"""How a target begins that names a service: compose:SERVICE:PORT."""


class Intent(StrEnum):
    """Reach a server, or start one."""

    CONNECT = "connect"
    BIND = "bind"


class Standing(StrEnum):
    """What is known of a Compose service's port before anything is dialled."""

    ASKED = "asked"
    """Nobody has looked yet."""
    INSIDE = "inside"
    """We are in a container ourselves: the service is dialled by its name."""
    PUBLISHED = "published"
    """The engine says where."""
    DECLARED = "declared"
    """The compose file says where, and no engine could be asked."""
    UNPUBLISHED = "unpublished"
    """The engine says that the running container does not publish it."""
    UNDECLARED = "undeclared"
    """The compose file does not publish it, and no engine could be asked."""
    STOPPED = "stopped"
    """The engine says that no container of the service runs."""

    @property
    def dialled(self) -> bool:
        """Whether there is an address to dial: elsewhere only somebody else would answer."""
        return self in (Standing.INSIDE, Standing.PUBLISHED, Standing.DECLARED)


class ServicePort(Struct, frozen=True):
    """A port of a Compose service, as the container has it."""

    service: str
    port: Port
    project: str = ""
    standing: Standing = Standing.ASKED


class Target(Struct, frozen=True):
    """A host and a TCP port, with what the user typed (passwords masked)."""

    input: str
    host: str
    port: Port
    scheme: str | None = None
    transport: Literal["tcp"] = "tcp"
    service: ServicePort | None = None
    """Where the user named a Compose service; host and port are then what is dialled for it."""

    @property
    def address(self) -> str:
        """The target as netdiag takes it: what was typed may hold a masked password."""
        return address(self.input, self.host, self.port)


def address(typed: str, host: str, port: int) -> str:
    """host:port; a Compose service by what was typed, since its port of the host may be another one tomorrow."""
    if typed.startswith(COMPOSE) and typed.count(":") == 2:
        return typed
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Scope(Struct, frozen=True):
    """What the user allowed: recorded, so that a replay judges by the same terms."""

    timeout: Seconds
    """Seconds that one unanswered attempt may take."""
    passive: bool = False
    only: Few[str] = ()
    skip: Few[str] = ()

    def runs(self, check: str) -> bool:
        """Whether the check of this name was asked for."""
        return (not self.only or check in self.only) and check not in self.skip
