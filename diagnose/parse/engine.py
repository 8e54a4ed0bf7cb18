"""What a container engine answers, by the Docker Engine API (docs.docker.com/reference/api/engine), podman too.

Of the environment, the command and the labels of a container nothing is kept but which Compose service it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from typing import TypeVar

import msgspec
from msgspec import Struct, field

from diagnose.model.container import Attachment, ComposeService, EngineContainer, Published, Status
from diagnose.model.process import Container
from diagnose.parse.mask import mask_text

T = TypeVar("T")

_PROJECT, _SERVICE = "com.docker.compose.project", "com.docker.compose.service"
_DIRECTORY, _FILES = "com.docker.compose.project.working_dir", "com.docker.compose.project.config_files"
_NAMELESS = frozenset({"bridge", "host", "none", "podman"})
"""The engines' own networks, in which containers have no names."""
_ERROR_LENGTH = 2000
_IN_USE = frozenset({Status.RUNNING, Status.PAUSED})
_ENDED = frozenset({Status.EXITED, Status.DEAD, Status.RESTARTING, Status.REMOVING})


class _Port(Struct, frozen=True):
    private: int = field(name="PrivatePort", default=0)
    public: int = field(name="PublicPort", default=0)
    kind: str = field(name="Type", default="tcp")


class _Network(Struct, frozen=True):
    address: str | None = field(name="IPAddress", default=None)
    address6: str | None = field(name="GlobalIPv6Address", default=None)
    gateway: str | None = field(name="Gateway", default=None)
    gateway6: str | None = field(name="IPv6Gateway", default=None)
    aliases: tuple[str, ...] | None = field(name="Aliases", default=None)
    names: tuple[str, ...] | None = field(name="DNSNames", default=None)
    """Engine 25 and newer."""


class _Networks(Struct, frozen=True):
    networks: dict[str, _Network | None] | None = field(name="Networks", default=None)


class _Mode(Struct, frozen=True):
    network: str = field(name="NetworkMode", default="")


class Listed(Struct, frozen=True):
    """A container in the list of all."""

    id: str = field(name="Id")
    name_list: tuple[str, ...] | None = field(name="Names", default=None)
    state: str = field(name="State", default="")
    labels: dict[str, str] | None = field(name="Labels", default=None)
    port_list: tuple[_Port, ...] | None = field(name="Ports", default=None)
    mode: _Mode | None = field(name="HostConfig", default=None)
    settings: _Networks | None = field(name="NetworkSettings", default=None)

    @property
    def names(self) -> frozenset[str]:
        """Its own name, and that of its Compose service."""
        own = {name.removeprefix("/") for name in self.name_list or ()}
        service = (self.labels or {}).get(_SERVICE)
        return frozenset(own | ({service} if service else set()))

    @property
    def published(self) -> frozenset[int]:
        """TCP ports of the host."""
        return frozenset(one.public for one in self.port_list or () if one.kind == "tcp" and one.public)

    @property
    def exposed(self) -> frozenset[int]:
        """TCP ports inside, published or not."""
        return frozenset(one.private for one in self.port_list or () if one.kind == "tcp")

    @property
    def addresses(self) -> frozenset[str]:
        """Its own, on the engine's networks."""
        networks = (self.settings.networks or {}).values() if self.settings else ()
        return frozenset(found for one in networks if one for found in (one.address, one.address6) if found)

    @property
    def tells_its_ports(self) -> bool:
        """Whether docker lists its published ports: not of those that do not run or are on the host's network."""
        mode = self.mode.network if self.mode else ""
        return _status(self.state) in _IN_USE and mode not in ("host", "none")


class _Binding(Struct, frozen=True):
    address: str = field(name="HostIp", default="")
    port: str = field(name="HostPort", default="")


_Bindings = dict[str, tuple[_Binding, ...] | None]


class _Health(Struct, frozen=True):
    status: str = field(name="Status", default="")


class _State(Struct, frozen=True):
    status: str = field(name="Status", default="")
    pid: int = field(name="Pid", default=0)
    exit_code: int = field(name="ExitCode", default=0)
    out_of_memory: bool = field(name="OOMKilled", default=False)
    error: str = field(name="Error", default="")
    health: _Health | None = field(name="Health", default=None)


class _HostConfig(Struct, frozen=True):
    network: str = field(name="NetworkMode", default="default")
    bindings: _Bindings | None = field(name="PortBindings", default=None)
    extra_hosts: tuple[str, ...] | None = field(name="ExtraHosts", default=None)


class _Config(Struct, frozen=True):
    image: str = field(name="Image", default="")
    labels: dict[str, str] | None = field(name="Labels", default=None)


class _Settings(Struct, frozen=True):
    ports: _Bindings | None = field(name="Ports", default=None)
    networks: dict[str, _Network | None] | None = field(name="Networks", default=None)


class _Described(Struct, frozen=True):
    id: str = field(name="Id")
    name: str = field(name="Name", default="")
    state: _State = field(name="State", default_factory=_State)
    host: _HostConfig = field(name="HostConfig", default_factory=_HostConfig)
    config: _Config = field(name="Config", default_factory=_Config)
    settings: _Settings = field(name="NetworkSettings", default_factory=_Settings)


def listed(answer: object) -> tuple[Listed, ...]:
    """The answer to GET /containers/json, newest first; ValueError when it is none."""
    return _converted(answer, tuple[Listed, ...])


def described(answer: object, engine: str) -> EngineContainer:
    """The answer to GET /containers/ID/json; ValueError when it is none."""
    told = _converted(answer, _Described)
    state = told.state
    status = _status(state.status)
    return EngineContainer(
        container=Container(engine, told.id, told.name.removeprefix("/") or None),
        status=status,
        image=told.config.image,
        pid=state.pid,
        exit_code=state.exit_code if status in _ENDED else None,
        out_of_memory=state.out_of_memory,
        health=_health(state.health),
        error=mask_text(state.error[:_ERROR_LENGTH]),
        network_mode=told.host.network or "default",
        published=_published(told, engine),
        attachments=tuple(sorted(_attachments(told))),
        extra_hosts=told.host.extra_hosts or (),
        compose=_compose(told.config.labels or {}),
    )


def _converted(answer: object, kind: type[T]) -> T:
    try:
        return msgspec.convert(answer, kind)
    except (msgspec.ValidationError, RecursionError) as error:
        raise ValueError(str(error)) from None


def _status(text: str) -> Status:
    """Podman has some of its own (libpod/define/containerstate.go)."""
    translated = {"configured": "created", "initialized": "created", "stopped": "exited", "stopping": "running"}
    word = translated.get(text, text)
    return Status(word) if word in set(Status) else Status.OTHER


def _health(health: _Health | None) -> str | None:
    """None as well for "none", by which Docker says that there is no check."""
    return health.status if health and health.status in ("starting", "healthy", "unhealthy") else None


def _published(told: _Described, engine: str) -> tuple[Published, ...]:
    """What is open while it runs, with what was asked for: a port left to the engine's choice is known only then."""
    really = tuple(_entries(told.settings.ports or {}, engine))
    covered = {(one.port, one.container_port) for one in really}
    asked = _entries(told.host.bindings or {}, engine)
    return tuple(sorted({*really, *(one for one in asked if (one.port, one.container_port) not in covered)}))


def _entries(bindings: _Bindings, engine: str) -> Iterator[Published]:
    """By "80/tcp"; a port of the host that is left open, or a range to choose from, is none yet."""
    for key, found in bindings.items():
        number, _, kind = key.partition("/")
        if kind not in ("tcp", ""):
            continue
        for one in found or ():
            if one.port.isdecimal() and int(one.port):
                for address in _addresses(one.address, engine):
                    yield Published(address, _port(one.port), _port(number))


def _addresses(address: str, engine: str) -> tuple[str, ...]:
    """No address is every address; podman leaves IPv6 out (podman-run(1), --publish)."""
    if address:
        return (_ip(address),)
    return ("0.0.0.0",) if engine == "podman" else ("0.0.0.0", "::")


def _attachments(told: _Described) -> Iterator[Attachment]:
    for name, network in (told.settings.networks or {}).items():
        yield _attachment(name, network or _Network(), () if name in _NAMELESS else (told.name.removeprefix("/"),))


def _attachment(name: str, network: _Network, own: tuple[str, ...]) -> Attachment:
    return Attachment(
        network=name,
        addresses=tuple(_ip(one) for one in (network.address, network.address6) if one),
        gateways=tuple(_ip(one) for one in (network.gateway, network.gateway6) if one),
        names=tuple(dict.fromkeys((*own, *(network.names or ()), *(network.aliases or ())))),
    )


def _compose(labels: Mapping[str, str]) -> ComposeService | None:
    if _PROJECT not in labels or _SERVICE not in labels:
        return None
    files = tuple(one for one in labels.get(_FILES, "").split(",") if one)
    return ComposeService(labels[_PROJECT], labels[_SERVICE], labels.get(_DIRECTORY) or None, files)


def _ip(text: str) -> str:
    return str(ip_address(text))


def _port(text: str) -> int:
    if not 0 < (port := int(text)) < 65536:
        raise ValueError(f"{port} is no port")
    return port
