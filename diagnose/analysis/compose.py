"""What a Compose project says of the target: which service is meant, from where it is dialled, what mends it there."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from enum import Enum, auto
from types import MappingProxyType

from msgspec import Struct

from diagnose.analysis.compose_target import declared_entry, dialled, everyone
from diagnose.model.compose import ComposeProject, PortEntry, Reference, Service, Spot
from diagnose.model.container import ComposeService, EngineContainer, Status
from diagnose.model.fact import Known, Unknown
from diagnose.model.finding import Command, Edit, Remedy, Risk
from diagnose.model.network import TcpState
from diagnose.model.process import Container
from diagnose.model.snapshot import Snapshot

_HIGHER = 10_000
"""What is added to a port that is taken on the host: 5432 becomes 15432, as people do it."""
_LOOPBACK = re.compile(r"localhost|127(?:\.\d{1,3}){3}|::1|0\.0\.0\.0")
_HOST_NAMES = ("host.docker.internal", "host.containers.internal")
_DEFAULTS: Mapping[str, int] = MappingProxyType(
    {"postgres": 5432, "postgresql": 5432, "mysql": 3306, "mariadb": 3306, "redis": 6379, "mongodb": 27017}
    | {"amqp": 5672, "http": 80, "https": 443, "ws": 80, "nats": 4222, "mqtt": 1883, "memcached": 11211}
)
"""Ports that URLs of these schemes leave out."""
_IMAGES: Mapping[str, tuple[int, ...]] = MappingProxyType(
    {"postgres": (5432,), "postgis": (5432,), "mysql": (3306,), "mariadb": (3306,), "redis": (6379,)}
    | {"valkey": (6379,), "mongo": (27017,), "rabbitmq": (5672, 15672), "memcached": (11211,), "nginx": (80,)}
    | {"httpd": (80,), "caddy": (80, 443), "traefik": (80, 8080), "elasticsearch": (9200,), "opensearch": (9200,)}
    | {"kafka": (9092,), "zookeeper": (2181,), "minio": (9000, 9001), "nats": (4222,)}
    | {
        "clickhouse-server": (8123, 9000),
        "cassandra": (9042,),
        "influxdb": (8086,),
        "grafana": (3000,),
        "prometheus": (9090,),
        "vault": (8200,),
    }
    | {"consul": (8500,), "etcd": (2379,), "neo4j": (7474, 7687), "adminer": (8080,), "keycloak": (8080,)}
    | {"mailhog": (1025, 8025), "mailpit": (1025, 8025), "localstack": (4566,), "eclipse-mosquitto": (1883,)}
)
"""Where the servers of these images listen unless they are told otherwise (their EXPOSE lines)."""


Pieces = tuple[tuple[Spot, str], ...]
"""What goes where."""


class How(Enum):
    """How a service came to be the one that is meant."""

    NAMED = auto()
    """The target names it."""
    HOST_PORT = auto()
    """It has the dialled port on the host."""
    CONTAINER_PORT = auto()
    """Its server listens on the dialled port in its container."""


class Meant(Struct, frozen=True):
    """A service, and the port of it, as its container has it."""

    service: Service
    port: int
    how: How


def project_of(snapshot: Snapshot) -> ComposeProject | None:
    """The project, if it could be read."""
    return snapshot.compose.value if isinstance(snapshot.compose, Known) else None


def labels_of(containers: Iterable[EngineContainer]) -> tuple[ComposeService, ...]:
    """What the containers were made for, those that run first; each with files can be read as a project."""
    ordered = sorted(containers, key=lambda one: one.status is not Status.RUNNING)
    return tuple(dict.fromkeys(one.compose for one in ordered if one.compose))


def service_of(snapshot: Snapshot, container: Container) -> Service | None:
    """The service of the project that this container was made for, by the engine's labels."""
    project = project_of(snapshot)
    described = next((one for one in _containers(snapshot) if _is_same(one.container, container)), None)
    return _made_for(project, described) if project is not None and described is not None else None


def _made_for(project: ComposeProject, told: EngineContainer) -> Service | None:
    made = told.compose
    return project.service(made.service) if made is not None and made.project == project.name else None


def asking(snapshot: Snapshot) -> Service | None:
    """The service whose container it was dialled from; None: from the host, or from a container of no service."""
    inside = snapshot.vantage.container
    if inside:
        return service_of(snapshot, inside)
    origin = snapshot.vantage.origin or ""
    name = origin.removeprefix("container:")
    return service_of(snapshot, Container("", name, name)) if name != origin else None


def meant(snapshot: Snapshot) -> tuple[Meant, ...]:
    """The services that the target may mean: by name, else by their port on the host, else by that of the container."""
    project = project_of(snapshot)
    if project is None:
        return ()
    asked = snapshot.target.service
    if asked:
        service = project.service(asked.service)
        return (Meant(service, asked.port, How.NAMED),) if service else ()
    port = snapshot.target.port
    by_host = {(one.name, inside): one for one, inside in _behind_host_port(snapshot, project, port)}
    if by_host:
        return tuple(Meant(one, inside, How.HOST_PORT) for (_, inside), one in sorted(by_host.items(), key=_by_name))
    own = asking(snapshot)
    others = (one for one in project.services if own is None or one.name != own.name)
    return tuple(Meant(one, port, How.CONTAINER_PORT) for one in others if _serves(snapshot, one, port))


def _by_name(item: tuple[tuple[str, int], Service]) -> tuple[str, int]:
    return item[0]


def _behind_host_port(snapshot: Snapshot, project: ComposeProject, port: int) -> Iterator[tuple[Service, int]]:
    for service in project.services:
        for entry in service.ports:
            inside = entry.inside(port) if entry.protocol == "tcp" else None
            if inside is not None:
                yield service, inside
    for container in _containers(snapshot):
        found = _made_for(project, container)
        if found:
            yield from ((found, one.container_port) for one in container.publishes(port))


def _serves(snapshot: Snapshot, service: Service, port: int) -> bool:
    """Whether anything says that the service listens on this port of its container."""
    listed = port in service.expose or any(one.concerns(port) for one in service.ports if one.protocol == "tcp")
    told = any(one.variable == "PORT" and one.port == port for one in service.references)
    usual = port in _IMAGES.get(service.image.rpartition("/")[2], ())
    return listed or told or usual or _listens(snapshot, service, port)


def _listens(snapshot: Snapshot, service: Service, port: int) -> bool:
    project = project_of(snapshot)
    if project is None:
        return False
    insides = snapshot.containers.value.insides if isinstance(snapshot.containers, Known) else ()
    own = [
        one.container
        for one in _containers(snapshot)
        if one.compose is not None and (one.compose.project, one.compose.service) == (project.name, service.name)
    ]
    return any(
        row.state is TcpState.LISTEN and row.local.port == port
        for inside in (insides if own else ())
        if isinstance(inside.listeners, Known) and any(_is_same(one, inside.container) for one in own)
        for row in inside.listeners.value
    )


def _containers(snapshot: Snapshot) -> tuple[EngineContainer, ...]:
    match snapshot.containers:
        case Known(value=containers):
            return everyone(containers.engines)
        case Unknown():
            return ()


def _is_same(one: Container, other: Container) -> bool:
    """By id, which may be cut short to 12 digits, or by name."""
    short, long = sorted((one.id, other.id), key=len)
    return (len(short) >= 12 and long.startswith(short)) or (one.name is not None and one.name == other.name)


# remedies


def dial_by_name(snapshot: Snapshot) -> Remedy | None:
    """From a service's container: the name and port that the service meant has there; None: that is not the case."""
    own, other = asking(snapshot), _dialled_wrongly(snapshot)
    if own is None or other is None:
        return None
    name = _name(other)
    if not own.shares_network(other.service):
        return Remedy(
            summary=f"{own.name} and {other.service.name} share no network: list one and the same under networks: of "
            f"both, then {own.name} reaches it as {name}."
        )
    spots, places = _corrections(snapshot, own, other)
    summary = f"{own.name} reaches the service {other.service.name} as {name}: {_published_note(snapshot, other)}"
    if spots or places:
        summary += f" Write {name} where it says {snapshot.target.address}{_in_places(places)}"
    return _changed(snapshot, own, summary, spots)


def told_by_name(snapshot: Snapshot) -> str | None:
    """You dialled localhost:15432 from the service app; there it is db:5432. None: that is not the case."""
    own, other = asking(snapshot), _dialled_wrongly(snapshot)
    if own is None or other is None:
        return None
    note = _published_note(snapshot, other)
    return f"You dialled {snapshot.target.address} from the service {own.name}; there it is {_name(other)}: {note}"


def _name(other: Meant) -> str:
    return f"{other.service.name}:{other.port}"


def _dialled_wrongly(snapshot: Snapshot) -> Meant | None:
    """The only other service that was meant by an address which, in a service's container, is not that service's."""
    own, found = asking(snapshot), meant(snapshot)
    if own is None or len(found) != 1 or own.network_mode == "host":
        return None
    other = found[0]
    wrongly = other.service.name != own.name and _means_host(snapshot.target.host, other.how)
    return other if wrongly else None


def _means_host(host: str, how: How) -> bool:
    """Whether whoever dialled this meant another service: by loopback, or by the host and its published port."""
    if how is How.NAMED:
        return False
    return bool(_LOOPBACK.fullmatch(host)) or (host in _HOST_NAMES and how is How.HOST_PORT)


def _published_note(snapshot: Snapshot, other: Meant) -> str:
    port = snapshot.target.port
    if other.how is How.HOST_PORT and port != other.port:
        return f"{port} is its port on the host only, and localhost in a container is that container itself."
    return "localhost in a container is that container itself."


def _in_places(places: Iterable[str]) -> str:
    listed = ", ".join(places)
    return f": {listed}." if listed else "."


def _corrections(snapshot: Snapshot, own: Service, other: Meant) -> tuple[Pieces, tuple[str, ...]]:
    """The variables that name the other service wrongly: those that can be changed, and where the others are."""
    spots: list[tuple[Spot, str]] = []
    places: list[str] = []
    for one, piece in _wrong(own, other, snapshot.target.port):
        if one.spot:
            spots.append((one.spot, piece))
        else:
            places.append(f"{one.variable} ({one.file}:{one.line})")
    return tuple(spots), tuple(places)


def _wrong(own: Service, other: Meant, port: int) -> Iterator[tuple[Reference, str]]:
    name, right = other.service.name, other.port
    ports = {one.variable: one for one in own.references if one.host is None}
    alone = [one for one in own.references if _names_host(one) and one.port is None and one.scheme is None]
    for one in own.references:
        if _names_host(one) and (one.port or _DEFAULTS.get((one.scheme or "").partition("+")[0])) == port:
            yield one, name if one.port is None and right == port else f"{name}:{right}"
        elif one.host in other.service.names and one.port == port != right:
            yield one, f"{name}:{right}"
    for one in alone:
        beside = ports.get(re.sub(r"HOST(?:NAME)?|SERVER|ADDR(?:ESS)?", "PORT", one.variable, flags=re.IGNORECASE))
        if beside is not None and beside.port == port:
            yield one, name
            if right != port:
                yield beside, str(right)
        elif beside is None and len(alone) == 1 and right == port:
            yield one, name


def _names_host(one: Reference) -> bool:
    return one.host is not None and (bool(_LOOPBACK.fullmatch(one.host)) or one.host in _HOST_NAMES)


def publish(
    snapshot: Snapshot, service: Service, port: int, *, host_port: int | None = None, address: str = "127.0.0.1"
) -> Remedy | None:
    """The line of `ports:` that opens this port of the service on this machine; None: it cannot have one.

    Where the file has the line already, only the container has to be made anew.
    """
    project = project_of(snapshot)
    giving = _lender(project, service)
    if project is None or giving is None or giving.network_mode:
        return None
    entry = declared_entry(project, service, port)
    if entry and entry.outside(port) is not None and dialled(entry.address) == address:
        summary = f"{_where(entry)} publishes port {port} already, but the container was made before: make it anew"
        return _changed(snapshot, giving, summary, ())
    outside = host_port or _free(snapshot, project, port)
    shown = f"[{address}]" if ":" in address else address
    piece = f"{shown}:{outside}:{port}"
    spot = entry.entry_spot if entry and entry.outside(port) is None and entry.count == 1 else giving.port_spot
    place = "" if spot else f", in {giving.file} under ports: of {giving.name}"
    summary = f'Publish port {port} of {service.name} on {shown}:{outside} of this machine: "{piece}"{place}.'
    return _changed(snapshot, giving, summary, ((spot, piece),) if spot else ())


def _lender(project: ComposeProject | None, service: Service) -> Service | None:
    """The service whose `ports:` count: that whose network it uses, where it does."""
    if project and service.network_mode.startswith("service:"):
        return project.service(service.network_mode.removeprefix("service:"))
    return service


def _free(snapshot: Snapshot, project: ComposeProject, port: int) -> int:
    """The same port on the host; another one where that is taken there."""
    taken = {one.port for container in _containers(snapshot) for one in container.published}
    if isinstance(snapshot.listeners, Known):
        taken |= {row.local.port for row in snapshot.listeners.value if row.state is TcpState.LISTEN}
    entries = [entry for service in project.services for entry in service.ports]
    candidates: Iterable[int] = (port, *range(port + _HIGHER, 65536), *range(port + 1, 65536))
    for one in candidates:
        if one not in taken and all(entry.inside(one) is None for entry in entries):
            return one
    return port


def correct_container_port(snapshot: Snapshot, service: Service, entry: PortEntry, port: int) -> Remedy:
    """The entry with the port on which the server really listens."""
    giving = _lender(project_of(snapshot), service) or service
    spot = entry.container_spot
    summary = f"{_where(entry)} leads to port {entry.container_port} of {service.name}: write {port} there."
    return _changed(snapshot, giving, summary, ((spot, str(port)),) if spot else ())


def publish_at(snapshot: Snapshot, service: Service, entry: PortEntry, address: str) -> Remedy:
    """The entry on this address of the machine."""
    giving = _lender(project_of(snapshot), service) or service
    spot = entry.address_spot
    shown = f"[{address}]" if ":" in address and entry.entry_spot else address
    summary = f"{_where(entry)} publishes it on {entry.address or 'every address'}: let it be {address}."
    return _changed(snapshot, giving, summary, ((spot, shown),) if spot else ())


def listen_everywhere(snapshot: Snapshot, service: Service) -> Remedy:
    """Inside the container every address; who reaches it from outside, `ports:` decides."""
    found = {(one.spot.file, one.spot.line): one for one in reversed(service.listening)}
    spots = tuple((one.spot, one.piece) for _, one in sorted(found.items()))
    how = "" if spots else " (mostly by --host 0.0.0.0 in its command:, or HOST=0.0.0.0 in its environment:)"
    summary = (
        f"Let the server of {service.name} listen on every address of its container{how}. Who reaches it from outside "
        "of the container, its ports: decide."
    )
    return _changed(snapshot, service, summary, spots)


def add_host_gateway(snapshot: Snapshot, service: Service) -> Remedy:
    """host.docker.internal in the service's extra_hosts."""
    spot = service.extra_host_spot
    place = "" if spot else f" (in {service.file}, under {service.name})"
    summary = (
        f"Give {service.name} the name host.docker.internal for this machine: extra_hosts: "
        f'["host.docker.internal:host-gateway"]{place}.'
    )
    return _changed(snapshot, service, summary, ((spot, service.extra_host_piece),) if spot else ())


def start(snapshot: Snapshot, service: Service) -> Remedy | None:
    """Make and start the service's container; None: Compose is not installed here."""
    commands = _up(snapshot, service)
    return Remedy(summary=f"Start the service {service.name}", commands=commands) if commands else None


def _where(entry: PortEntry) -> str:
    return f"{entry.file}:{entry.line}"


def _changed(snapshot: Snapshot, service: Service, summary: str, spots: Pieces) -> Remedy:
    """The edits, and what makes them work."""
    edits = tuple(Edit(spot.file, spot.line, spot.holding(piece)) for spot, piece in spots)
    commands = _up(snapshot, service)
    summary = summary.rstrip(".") + "."
    if commands:
        summary += f" Compose then makes the container of {service.name} anew; its volumes stay. "
    else:
        summary += f" Then let Compose make the container of {service.name} anew (docker compose up -d). "
    if edits:
        summary += "To undo it, put the old line back and do the same again."
    return Remedy(
        summary=summary.strip(),
        commands=commands,
        risk=Risk.DISRUPTIVE,
        survives_reboot=True,
        edits=edits,
    )


def _up(snapshot: Snapshot, service: Service) -> tuple[Command, ...]:
    """docker compose up -d SERVICE, callable from anywhere."""
    project = project_of(snapshot)
    if project is None or not project.call:
        return ()
    return (Command((*project.call, "up", "-d", service.name), needs_root=not _may_ask(snapshot)),)


def _may_ask(snapshot: Snapshot) -> bool:
    """Whether this user has talked to an engine."""
    engines = snapshot.containers.value.engines if isinstance(snapshot.containers, Known) else ()
    return any(isinstance(one.containers, Known) for one in engines)
