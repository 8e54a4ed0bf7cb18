"""What --from names: a container, a process, a named network namespace; and what the machine sees of it."""

from __future__ import annotations

from msgspec import Struct

from diagnose.model.bounds import Pid


class OfContainer(Struct, frozen=True):
    """container:NAME, by its engine's name for it or by its id."""

    name: str

    def __str__(self) -> str:
        return f"container:{self.name}"


class OfProcess(Struct, frozen=True):
    """pid:N."""

    pid: Pid

    def __str__(self) -> str:
        return f"pid:{self.pid}"


class OfNamespace(Struct, frozen=True):
    """netns:NAME, as `ip netns` lists it."""

    name: str

    def __str__(self) -> str:
        return f"netns:{self.name}"


Origin = OfContainer | OfProcess | OfNamespace


class Side(Struct, frozen=True):
    """Where --from looks from, as this machine knows it: its commands run here, not in there."""

    name: str
    """For people: container web, process 4711 (nginx), network namespace blue."""
    namespace: str | None
    """The path by which a command here enters its network namespace; None: it is the machine's own."""
    pid: Pid | None = None
    """The process whose eyes these are; None: a namespace alone."""
    user: str | None = None
    """Of that process: its name on this machine, or its number; None: a namespace alone."""
    own_files: bool = True
    """It reads this machine's /etc/hosts and resolver, so the machine's own resolver is asked from there."""
    entered: bool = True
    """False: that needs root, and only what /proc shows of it from outside was read."""
    confined: tuple[str, ...] = ()
    """What holds that process and not us, though we stand in its network namespace."""
    ended: bool = False
    """The process ended while we looked."""
