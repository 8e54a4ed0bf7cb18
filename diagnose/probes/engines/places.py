"""Where the container engines of this machine listen: their usual sockets, and those that the user has chosen.

DOCKER_HOST and the context in use are read as docker does (docs.docker.com/engine/manage-resources/contexts), under
sudo those of the calling user as well. Nothing that is found there is ever run.
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from ipaddress import ip_address
from typing import NamedTuple, TypeVar

import msgspec
from msgspec import Struct

from diagnose.model.fact import Reason, Unknown
from diagnose.pace import patient
from diagnose.parse.harmless import url
from diagnose.probes import regular_file

DOCKER = ("/run/docker.sock", "/var/run/docker.sock")
PODMAN = ("/run/podman/podman.sock",)
_OF_A_USER = ("docker.sock", "podman/podman.sock")
_PROGRAMS = ("/usr/bin/dockerd", "/usr/sbin/dockerd", "/usr/local/bin/dockerd")
_CONNECT = patient(0.2)
"""Seconds that an engine has to take a connection: it is on this machine, and the kernel only queues it."""
_FILE_LIMIT = 1 << 20
_NOT_HERE = Unknown(Reason.NOT_VISIBLE, "only engines of this machine are asked, and those without TLS")
_ASLEEP = Unknown(Reason.FAILED, "dockerd does not run; to ask at its socket would start it", "docker ps")
_DOWN = "nothing listens at its socket: the engine does not run"

T = TypeVar("T")


class Place(NamedTuple):
    """An engine's address."""

    engine: str
    """docker or podman, by the address only."""
    address: str
    """unix:///run/docker.sock, tcp://127.0.0.1:2375 ..."""
    trouble: Unknown | None = None
    """Why it cannot be asked there."""

    @property
    def shown(self) -> str:
        """The address without users, and without parts of a path that are no words."""
        return url(self.address)


class _Chosen(NamedTuple):
    address: str
    owner: int | None = None
    """Only a socket of this user's counts: somebody else has chosen it for us."""


class _Config(Struct, frozen=True):
    current: str = msgspec.field(name="currentContext", default="")


class _Endpoint(Struct, frozen=True):
    host: str = msgspec.field(name="Host", default="")


class _Context(Struct, frozen=True):
    endpoints: dict[str, _Endpoint] = msgspec.field(name="Endpoints", default={})


def look(*, connect: bool = True) -> tuple[Place, ...]:
    """Every engine of which there is a trace, each once; where it can be told already that it cannot be asked, why."""
    found: dict[object, Place] = {}
    for chosen in (*_chosen(), *(_Chosen(f"unix://{path}") for path in _usual())):
        if chosen.address.startswith("unix://"):
            _add_socket(found, chosen, connect)
        else:
            found.setdefault(chosen.address, _elsewhere(chosen.address, connect))
    return tuple(found.values())


def _chosen() -> Iterator[_Chosen]:
    for name in ("DOCKER_HOST", "CONTAINER_HOST"):  # the latter is podman's
        if address := os.environ.get(name):
            yield _Chosen(os.fsencode(address).decode("utf-8", "backslashreplace"))
    own = os.environ.get("DOCKER_CONFIG") or f"{os.environ.get('HOME', '')}/.docker"
    if address := _of_context(own, os.environ.get("DOCKER_CONTEXT")):
        yield _Chosen(address)
    caller = _caller()
    home = _home(caller) if caller is not None else None
    if home and (address := _of_context(f"{home}/.docker", None)):
        yield _Chosen(address, caller)


def _usual() -> Iterator[str]:
    yield from (*DOCKER, *PODMAN)
    own = os.environ.get("XDG_RUNTIME_DIR", "")
    directories = [own.rstrip("/")] if own.startswith("/") else []
    directories += [f"/run/user/{uid}" for uid in (os.getuid(), _caller()) if uid is not None]
    yield from (f"{directory}/{name}" for directory in dict.fromkeys(directories) for name in _OF_A_USER)


def _caller() -> int | None:
    """Who called sudo."""
    uid = os.environ.get("SUDO_UID", "")
    return int(uid) if uid.isdecimal() else None


def _home(uid: int) -> str | None:
    """By /etc/passwd alone: getpwuid(3) may ask a directory server and wait for it."""
    for line in _accounts().decode("utf-8", "surrogateescape").splitlines():
        fields = line.split(":")
        if len(fields) > 5 and fields[2] == str(uid):
            return fields[5]
    return None


def _accounts() -> bytes:
    try:
        return regular_file.read("/etc/passwd").content
    except OSError:
        return b""


def _of_context(directory: str, name: str | None) -> str | None:
    """The engine's address of the named context, else of the current one; None for the default one."""
    name = name or _decoded(f"{directory}/config.json", _Config()).current
    if not name or name == "default":
        return None
    import hashlib  # 3 ms that only those with a context pay

    number = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()
    context = _decoded(f"{directory}/contexts/meta/{number}/meta.json", _Context())
    return context.endpoints.get("docker", _Endpoint()).host or None


def _decoded(path: str, default: T) -> T:
    """A file of JSON; the default where there is none that can be read."""
    content = _read(path)
    if content is None:
        return default
    try:
        return msgspec.json.decode(content, type=type(default))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return default


def _read(path: str) -> bytes | None:
    """A regular file; nothing else is opened, and as root no file that the owner of a link on the way may not read."""
    try:
        return regular_file.read_of_others(path, _FILE_LIMIT)
    except (OSError, ValueError):
        return None


def _add_socket(found: dict[object, Place], chosen: _Chosen, connect: bool) -> None:
    """By the file itself: /var/run is /run, and docker's socket may be a link to podman's."""
    path = chosen.address.removeprefix("unix://")
    place = Place(_engine(os.path.realpath(path)), chosen.address)
    try:
        status = os.stat(path)
    except PermissionError as error:
        found.setdefault(place.address, place._replace(trouble=_denied(error)))
    except (OSError, ValueError):
        return  # there is none
    else:
        if stat.S_ISSOCK(status.st_mode) and chosen.owner in (None, status.st_uid):
            trouble = (_asleep(path) or _trouble(path, socket.AF_UNIX)) if connect else None
            found.setdefault((status.st_dev, status.st_ino), place._replace(trouble=trouble))


def _engine(address: str) -> str:
    return "podman" if "podman" in address else "docker"


def _elsewhere(address: str, connect: bool) -> Place:
    """An address that is no socket file: asked when it is a port of our own loopback."""
    place = Place(_engine(address), address)
    scheme, _, rest = address.partition("://")
    host, _, port = rest.rstrip("/").rpartition(":")
    host = "127.0.0.1" if host == "localhost" else host.strip("[]")
    secured = os.environ.get("DOCKER_TLS_VERIFY") or os.environ.get("DOCKER_CERT_PATH")
    try:
        loopback = ip_address(host).is_loopback and 0 < int(port) < 65536
    except ValueError:
        loopback = False
    if scheme not in ("tcp", "http") or not loopback or secured:
        return place._replace(trouble=_NOT_HERE)
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return Place(place.engine, f"tcp://{where}", _trouble((host, int(port)), family) if connect else None)


def _trouble(where: str | tuple[str, int], family: socket.AddressFamily) -> Unknown | None:
    """What a connect says, which costs nothing before the client library is loaded."""
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.settimeout(_CONNECT)
        try:
            probe.connect(where)
        except TimeoutError:
            return Unknown(Reason.DEADLINE, f"the engine took no connection within {_CONNECT:g} s")
        except PermissionError as error:
            return _denied(error)
        except ConnectionRefusedError:
            return Unknown(Reason.FAILED, _DOWN)
        except OSError as error:
            return Unknown(Reason.FAILED, error.strerror or str(error))
    return None


def _denied(error: OSError) -> Unknown:
    if os.geteuid() == 0:
        return Unknown(Reason.FAILED, f"{error.filename or 'its socket'}: {error.strerror}")
    return Unknown(Reason.NEEDS_ROOT, "its socket is not for this user", "run it again with sudo")


def _asleep(path: str) -> Unknown | None:
    """Whether systemd holds docker's socket for a dockerd that does not run: a connect would start it."""
    if path not in DOCKER or _program(1) != "systemd" or not any(map(os.path.exists, _PROGRAMS)):
        return None
    runs = any(name.isdigit() and _program(int(name)).startswith("dockerd") for name in os.listdir("/proc"))
    return None if runs else _ASLEEP


def _program(pid: int) -> str:
    """Its name (comm); empty when it has ended."""
    try:
        with open(f"/proc/{pid}/comm", "rb") as comm:
            return comm.read().decode("utf-8", "backslashreplace").rstrip("\n")
    except OSError:
        return ""
