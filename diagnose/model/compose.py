"""A Compose project as its files describe it, with the places in them that a remedy may have to change.

No value of an environment variable is kept, only where one names this machine or another service.
"""

from __future__ import annotations

from msgspec import Struct

from diagnose.model.bounds import Few, Line, Port

DEFAULT_NETWORK = "default"


class Spot(Struct, frozen=True, order=True):
    """A place in a file: its line becomes `before`, a new piece, and `after`, which may be several lines.

    No line that may hold a secret ever becomes one, and none has its comment: # *** stands there.
    """

    file: str
    line: Line
    """The first is 1."""
    before: str
    after: str

    def holding(self, piece: str) -> str:
        """What stands in the place of the line, with this piece in it."""
        return f"{self.before}{piece}{self.after}"


class PortEntry(Struct, frozen=True, kw_only=True):
    """An entry of `ports:`; the spots are None where nobody can change that piece alone."""

    file: str
    line: Line
    container_port: Port
    host_port: Port | None = None
    """None: the engine picks any free one."""
    count: Port = 1
    """How many consecutive ports it publishes one to one."""
    choices: Port = 1
    """Of how many consecutive ports of the host the engine picks one for the container's single port."""
    address: str = ""
    """Of the host; empty: all of its addresses."""
    protocol: str = "tcp"
    container_spot: Spot | None = None
    host_spot: Spot | None = None
    address_spot: Spot | None = None
    entry_spot: Spot | None = None
    """The whole entry, in the short syntax."""

    def inside(self, host_port: int) -> int | None:
        """The container's port behind this one of the host."""
        if self.host_port is None or not 0 <= host_port - self.host_port < max(self.count, self.choices):
            return None
        return self.container_port + (host_port - self.host_port if self.count > 1 else 0)

    def outside(self, container_port: int) -> int | None:
        """The host's port for this one of the container; None: another entry's, or the engine picks it."""
        offset = container_port - self.container_port
        if self.host_port is None or self.choices > 1 or not 0 <= offset < self.count:
            return None
        return self.host_port + offset

    def concerns(self, container_port: int) -> bool:
        """Whether it publishes this port of the container, on whichever port of the host."""
        return 0 <= container_port - self.container_port < self.count


class Reference(Struct, frozen=True, kw_only=True):
    """An environment variable of a service that names a host, a port, or both."""

    variable: str
    file: str
    line: Line
    host: str | None = None
    port: Port | None = None
    scheme: str | None = None
    spot: Spot | None = None
    """The host, the port, or host:port in it."""

    def naming(self, host: str, port: int) -> str:
        """What to put into its spot so that it names these."""
        if self.host is None:
            return str(port)
        return host if self.port is None else f"{host}:{port}"


class Listening(Struct, frozen=True):
    """Where a service is told on which address to listen, and what makes that every address of the container."""

    spot: Spot
    piece: str


class Service(Struct, frozen=True, kw_only=True):
    """A service of the project, all of its files taken together."""

    name: str
    file: str
    line: Line
    image: str = ""
    """Without tag and digest."""
    container_name: str = ""
    ports: tuple[PortEntry, ...] = ()
    port_spot: Spot | None = None
    """Where an entry in the short syntax, in double quotes, can be added."""
    expose: tuple[Port, ...] = ()
    network_mode: str = ""
    """host, none, service:NAME, container:NAME; empty: its networks."""
    networks: tuple[str, ...] = ()
    """Empty: the project's default network."""
    aliases: tuple[str, ...] = ()
    extra_hosts: tuple[str, ...] = ()
    """The names only."""
    extra_host_spot: Spot | None = None
    """Where `host.docker.internal:host-gateway` can be added, quoted as the list or map there needs it."""
    extra_host_piece: str = ""
    references: tuple[Reference, ...] = ()
    listening: tuple[Listening, ...] = ()
    depends_on: tuple[str, ...] = ()
    healthcheck: bool = False
    profiles: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """How the other services of its networks may call it."""
        return tuple(dict.fromkeys((self.name, *([self.container_name] if self.container_name else []), *self.aliases)))

    def shares_network(self, other: Service) -> bool:
        """Whether the two find each other by name."""
        if self.network_mode or other.network_mode:
            return False
        return bool(set(self.networks or (DEFAULT_NETWORK,)) & set(other.networks or (DEFAULT_NETWORK,)))


class Unread(Struct, frozen=True, order=True):
    """A part of the project that is not known."""

    file: str
    line: Line | None
    why: str


class ComposeProject(Struct, frozen=True, kw_only=True):
    """The project of a directory."""

    name: str
    directory: str
    files: tuple[str, ...]
    services: Few[Service] = ()
    unread: tuple[Unread, ...] = ()
    call: Few[str] = ()
    """How Compose is called for it from anywhere; empty: it is not installed here."""

    def service(self, name: str) -> Service | None:
        """The service of this name."""
        return next((one for one in self.services if one.name == name), None)
