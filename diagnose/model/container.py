"""Containers: what their engines tell of them, and what the kernel shows of them from outside."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from diagnose.model.bounds import Address, Count, ExitStatus, Few, Handle, Pid, Port, Some, Uid
from diagnose.model.fact import NOT_NEEDED, Fact
from diagnose.model.network import Endpoint, SocketRow
from diagnose.model.process import Container


class Status(StrEnum):
    """The state of a container, by Docker's names (`State.Status` of the Engine API)."""

    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    RESTARTING = "restarting"
    REMOVING = "removing"
    EXITED = "exited"
    DEAD = "dead"
    OTHER = "other"


class Published(Struct, frozen=True, order=True):
    """A TCP port of the container that the engine was told to open on the host."""

    address: Address
    """On the host: 0.0.0.0, ::, 127.0.0.1 ..."""
    port: Port
    """On the host."""
    container_port: Port


class Attachment(Struct, frozen=True, order=True):
    """The container's end of one of the engine's networks."""

    network: str
    addresses: tuple[Address, ...]
    gateways: tuple[Address, ...]
    """The host's own addresses on the network's bridge."""
    names: tuple[str, ...] = ()
    """How the network's other containers may call it."""


class ComposeService(Struct, frozen=True, order=True):
    """The service of a Compose project that a container was made for (its labels com.docker.compose.*)."""

    project: str
    service: str
    directory: str | None = None
    files: tuple[str, ...] = ()


class EngineContainer(Struct, frozen=True, kw_only=True):
    """A container as its engine describes it."""

    container: Container
    status: Status
    image: str = ""
    pid: Pid = 0
    """Its first process, as the engine counts pids; 0: none runs."""
    exit_code: ExitStatus | None = None
    """Of its last run; None while it runs, or where it never did."""
    out_of_memory: bool = False
    """The kernel killed its last run for want of memory."""
    health: str | None = None
    """starting, healthy, unhealthy; None: it has no health check."""
    error: str = ""
    """Why the engine could not start it, in the engine's words."""
    network_mode: str = "default"
    """host: it has the host's own network; container:ID: another container's."""
    published: tuple[Published, ...] = ()
    attachments: tuple[Attachment, ...] = ()
    extra_hosts: tuple[str, ...] = ()
    compose: ComposeService | None = None

    def publishes(self, port: int) -> tuple[Published, ...]:
        """The entries for this port of the host."""
        return tuple(one for one in self.published if one.port == port)


class Engine(Struct, frozen=True):
    """A container engine of this machine."""

    name: str
    """docker or podman."""
    address: str
    """Where it was asked: unix:///run/docker.sock ..."""
    containers: Fact[Some[EngineContainer]]
    """Those that have to do with the target: by their published or inner ports, by a listener, by name."""
    unseen: Count = 0
    """Containers that may have to do with it as well, and were too many to be asked for."""


class Inside(Struct, frozen=True):
    """The network namespace of a running container, read through /proc without entering it."""

    container: Container
    namespace: Handle
    pid: Pid
    """A process inside."""
    addresses: tuple[Address, ...]
    listeners: Fact[Some[SocketRow]]
    """Every TCP listener in there."""
    frozen: Fact[bool] = NOT_NEEDED
    """Whether its cgroup is frozen (freezer.state, cgroup.freeze): paused, by whoever did it."""
    owner: Uid = 0
    """The user whose engine runs it, by podman's own process next to it (conmon); 0: root's, or not told."""


class Forwarder(Struct, frozen=True, order=True):
    """A process that takes connections on a port of the host for a container, by its own command line."""

    pid: Pid
    program: str
    """docker-proxy ..."""
    listens: Endpoint
    target: Endpoint
    """Where it connects to; inside another namespace the port alone counts."""
    namespace: Handle = 0
    """The network namespace in which it connects, where that is another than the one it listens in; 0: not known."""


class Containers(Struct, frozen=True):
    """Everything about containers that may have to do with one target."""

    engines: Few[Engine] = ()
    """Those whose socket is here; none: there is no engine."""
    insides: Some[Inside] = ()
    forwarders: Fact[Some[Forwarder]] = NOT_NEEDED
    host: Inside | None = None
    """The network namespace of the host, where we look from a container's or another's."""
    cabled: Fact[bool] = NOT_NEEDED
    """Whether an interface of ours has its other end in another namespace: without one NAT leads into no container."""
