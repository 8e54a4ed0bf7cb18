"""The chain from a port of the host to the process in a container: which entry covers an address, what is inside."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum

from msgspec import Struct

from diagnose.analysis.argument import is_container
from diagnose.analysis.owner import Owned, owner
from diagnose.analysis.reach import listeners_on, reached, unmapped
from diagnose.model.container import Containers, EngineContainer, Forwarder, Inside, Published, Status
from diagnose.model.fact import Known, Reason, Unknown
from diagnose.model.finding import Evidence
from diagnose.model.network import Endpoint, SocketRow, family_of, is_loopback, is_wildcard
from diagnose.model.process import Container, Process
from diagnose.model.snapshot import Snapshot

DIALS_INSIDE = frozenset({"docker-proxy", "rootlessport", "pasta", "pasta.avx2", "slirp4netns", "rootlesskit"})
"""Programs that take a published port's connections and dial the container for each."""
INSIDE_ITS_NAMESPACE = DIALS_INSIDE - {"docker-proxy"}
"""Of these the ones that connect inside the container's network namespace, and not from ours."""
RESERVES = frozenset({"dockerd", "conmon", "podman"})
"""Programs that only keep the port from others: a NAT rule is what leads into the container."""
PAST_UFW = frozenset({"docker-proxy", "dockerd", "conmon"})
"""Programs of engines whose NAT rules lead packets from the network past ufw's chains; rootless ones have none."""
GONE = frozenset({Status.CREATED, Status.EXITED, Status.DEAD, Status.RESTARTING, Status.REMOVING})


_OF_ROOT = frozenset({"docker-proxy", "dockerd"})
"""Programs that are an engine's only as root in our namespace: a rootless one has a namespace of its own."""


def is_of_an_engine(process: Process, programs: frozenset[str]) -> bool:
    """Whether it is one of these programs, and not somebody's own of the same name."""
    return process.program in programs and (process.uid == 0 or process.program not in _OF_ROOT)


class Source(StrEnum):
    """Who says that the port belongs to the container."""

    ENGINE = "engine"
    FORWARDER = "forwarder"
    """The command line of the process that holds the host's port."""
    CONNECTION = "connection"
    """Our own connection, whose other end was seen in the container's network namespace."""


class Publication(Struct, frozen=True):
    """One entry that leads from a port of the host into a container."""

    container: Container
    entry: Published
    source: Source
    described: EngineContainer | None = None
    inside: Inside | None = None
    """None: it does not run, or its namespace could not be read."""
    forwarder: Forwarder | None = None

    @property
    def name(self) -> str:
        """As people call the container."""
        return container_name(self.container)

    @property
    def is_running(self) -> bool:
        """Whether its engine says so, or a process of it was seen."""
        return self.inside is not None or (self.described is not None and self.described.status not in GONE)

    def covers(self, address: str) -> bool:
        """Whether the entry is for this address of the host."""
        dialled = unmapped(address)
        if is_wildcard(dialled):
            dialled = "127.0.0.1" if dialled == "0.0.0.0" else "::1"
        if self.entry.address == "":
            return True
        same = family_of(self.entry.address) == family_of(dialled)
        return self.entry.address == dialled or (is_wildcard(self.entry.address) and same)


def container_name(container: Container) -> str:
    """Its name, else the short id."""
    return container.name or container.id[:12] or container.engine


def callable_name(container: Container) -> str | None:
    """Its name, else the short id, as a command and --from take it; None: it has none that is one word to them."""
    names = (container.name, container.id[:12])
    return next((name for name in names if name and is_container(name)), None)


def inspecting(container: Container) -> str:
    """Where a person sees what its engine says of it."""
    name = callable_name(container)
    return f"{container.engine} inspect {name}" if name else f"the API of {container.engine}"


def containers_of(snapshot: Snapshot) -> Containers | None:
    """What is known of containers; None: nothing was looked at, or could be."""
    return snapshot.containers.value if isinstance(snapshot.containers, Known) else None


def described(seen: Containers) -> tuple[EngineContainer, ...]:
    """Every container that an engine told of."""
    return tuple(
        one for engine in seen.engines if isinstance(engine.containers, Known) for one in engine.containers.value
    )


_FIRST_NAMESPACES = frozenset({4026531833, 4026531840, 4026531956, 4026531992})
"""Inodes that kernels gave the network namespace they start with (linux/nsfs.h, or the first number handed out)."""
_HOST_INTERFACES = ("docker0", "podman0", "cni0", "cni-podman0", "virbr0", "lxcbr0", "lxdbr0")
"""Bridges that engines make on the host: seen in a container, it shares the host's network."""


def shares_host_network(snapshot: Snapshot) -> bool:
    """A container started with --network=host: its localhost is the host's."""
    if snapshot.vantage.network_namespace in _FIRST_NAMESPACES:
        return True
    match snapshot.links:
        case Known(value=links):
            return any(interface.name in _HOST_INTERFACES for interface in links.interfaces)
        case Unknown():
            return False


def ports_are_published_here(snapshot: Snapshot) -> bool:
    """Whether we look from where the engines open ports: not from a container's network namespace, or another's."""
    vantage = snapshot.vantage
    if vantage.side is not None:
        return vantage.side.namespace is None
    return vantage.container is None or shares_host_network(snapshot)


def publications(snapshot: Snapshot, port: int) -> tuple[Publication, ...]:
    """Every entry for this port of the host: as the engines tell, else as the forwarders' command lines say."""
    seen = containers_of(snapshot)
    if seen is None or not ports_are_published_here(snapshot):
        return ()
    forwarders = seen.forwarders.value if isinstance(seen.forwarders, Known) else ()
    listening = {one.listens: one for one in reversed(forwarders)}
    insides, addressed = _by_short_id(seen), _by_address(seen)
    told = [
        Publication(
            one.container,
            entry,
            Source.ENGINE,
            one,
            _same(insides.get(one.container.id[:_SHORT], ()), one.container),
            None if one.status in GONE else listening.get(Endpoint(entry.address, entry.port)),
        )
        for one in described(seen)
        for entry in one.publishes(port)
    ]
    known = {(one.entry.address, one.entry.port) for one in told if one.is_running}
    for one in forwarders:
        if one.listens.port == port and (one.listens.address, port) not in known:
            told += _by_forwarder(_where_it_connects(seen, addressed, one), one)
    covered = [one for one in told if one.is_running]
    return (*told, *_by_connection(snapshot, seen, port, covered))


def _where_it_connects(
    seen: Containers, addressed: Mapping[str, list[Inside]], forwarder: Forwarder
) -> Sequence[Inside]:
    """By the namespace where it is another than ours; its target is no address of ours then."""
    if forwarder.program in INSIDE_ITS_NAMESPACE:
        return [one for one in seen.insides if forwarder.namespace and one.namespace == forwarder.namespace]
    return addressed.get(forwarder.target.address, ())


def _by_connection(
    snapshot: Snapshot, seen: Containers, port: int, known: Sequence[Publication]
) -> Iterator[Publication]:
    """Where our own connections ended, if no engine and no command line tells of it."""
    for attempt in snapshot.attempts:
        if attempt.port != port or not isinstance(attempt.behind, Known):
            continue
        end = attempt.behind.value
        there = [one for one in seen.insides if end.namespace and one.namespace == end.namespace]
        if len(there) == 1 and not any(one.covers(attempt.address) for one in known):
            entry = Published(unmapped(attempt.address).partition("%")[0], port, end.server.port)
            yield Publication(there[0].container, entry, Source.CONNECTION, None, there[0])


def inside_of(seen: Containers, container: Container) -> Inside | None:
    """What the kernel shows of the container's namespace."""
    return _same(seen.insides, container)


def _by_short_id(seen: Containers) -> Mapping[str, list[Inside]]:
    """Whatever is the same container begins alike."""
    found: dict[str, list[Inside]] = {}
    for one in seen.insides:
        found.setdefault(one.container.id[:_SHORT], []).append(one)
    return found


def _by_address(seen: Containers) -> Mapping[str, list[Inside]]:
    found: dict[str, list[Inside]] = {}
    for one in seen.insides:
        for address in dict.fromkeys(one.addresses):
            found.setdefault(address, []).append(one)
    return found


def _same(insides: Iterable[Inside], container: Container) -> Inside | None:
    return next((one for one in insides if is_same(one.container, container)), None)


def is_same(one: Container, other: Container) -> bool:
    """By their ids, of which one may be cut short."""
    length = min(len(one.id), len(other.id))
    return length >= _SHORT and one.id[:length] == other.id[:length]


_SHORT = 12
"""Characters of a container's id that engines take for the whole."""


def _by_forwarder(found: Sequence[Inside], forwarder: Forwarder) -> Iterable[Publication]:
    """The container is the one whose namespace has the address that the forwarder dials."""
    entry = Published(forwarder.listens.address, forwarder.listens.port, forwarder.target.port)
    if len(found) == 1:  # two networks may use the same address
        yield Publication(found[0].container, entry, Source.FORWARDER, None, found[0], forwarder)


def holder_of(snapshot: Snapshot, address: str, port: int) -> Process | None:
    """The one process that holds the listener which a connect to the address reaches."""
    rows = snapshot.listeners.value if isinstance(snapshot.listeners, Known) else ()
    owners = [owner(row, snapshot.holders) for row in reached(rows, address, port)]
    held = [process for one in owners if isinstance(one, Owned) for process in one.processes]
    return held[0] if len({one.pid for one in held}) == 1 else None


def may_be_translated(snapshot: Snapshot, address: str, port: int) -> bool:
    """Whether a NAT rule may lead this port into a container, where the rules are not known.

    An engine is here, or that could not be seen; an interface of ours leads into another namespace, without which no
    container is to be reached; and what keeps the port is hidden from us or only keeps it. An engine that makes NAT
    rules here is root's, and so is the socket that keeps the port.
    """
    match snapshot.containers:
        case Unknown(reason=reason) if reason in (Reason.NOT_NEEDED, Reason.NOT_LINUX):
            return False
        case Known(value=seen) if not (seen.engines or seen.insides) or seen.cabled == Known(False):
            return False
        case _:
            pass
    rows = snapshot.listeners.value if isinstance(snapshot.listeners, Known) else ()
    users = {row.uid for row in reached(rows, address, port)}
    if users and not users & {0, -1}:
        return False
    holder = holder_of(snapshot, address, port)
    return holder is None or holder.program in RESERVES


def listening_inside(inside: Inside, port: int) -> tuple[SocketRow, ...] | None:
    """The listeners on a port in the container; None: not known."""
    return listeners_on(inside.listeners.value, port) if isinstance(inside.listeners, Known) else None


def open_inside(inside: Inside) -> tuple[SocketRow, ...]:
    """The listeners in the container that its network reaches."""
    rows = inside.listeners.value if isinstance(inside.listeners, Known) else ()
    return tuple(row for row in rows if not is_loopback(row.local.address))


def only_on_loopback(rows: Iterable[SocketRow]) -> bool:
    """Whether there are listeners, and nobody from outside the namespace reaches any of them."""
    found = tuple(rows)
    return bool(found) and all(is_loopback(row.local.address) for row in found)


def bridge_address(one: Publication) -> Endpoint | None:
    """Where the host itself reaches the container without the published port: its address on the engine's network."""
    addresses = [a for each in (one.described.attachments if one.described else ()) for a in each.addresses]
    if not addresses and one.forwarder is not None and one.forwarder.program not in INSIDE_ITS_NAMESPACE:
        addresses = [one.forwarder.target.address]
    return Endpoint(addresses[0], one.entry.container_port) if addresses else None


def entry_evidence(one: Publication) -> Evidence:
    """The entry in the words of whoever told it."""
    entry = f"{Endpoint(one.entry.address, one.entry.port)} leads to port {one.entry.container_port} of {one.name}"
    match one.source:
        case Source.ENGINE:
            return Evidence(f"published: {entry}", inspecting(one.container))
        case Source.FORWARDER:
            return Evidence(f"forwarded: {entry}", f"/proc/{one.forwarder.pid if one.forwarder else 0}/cmdline")
        case Source.CONNECTION:
            return Evidence(f"our own connection: {entry}", f"/proc/{one.inside.pid if one.inside else 0}/net/tcp")
