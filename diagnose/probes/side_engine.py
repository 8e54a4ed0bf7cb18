"""Which process is the first of a container, by the word of the engine that runs it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from diagnose.model.fact import Fact, Known, Reason, Unknown
from diagnose.model.process import Container

SECONDS = 2.0
_ANSWER_LIMIT = 1 << 20


class Described(NamedTuple):
    """A container as its engine knows it."""

    container: Container
    pid: int
    """0: it does not run."""
    status: str


class _State(msgspec.Struct, rename="pascal"):
    pid: int = 0
    status: str = ""


class _Answer(msgspec.Struct, rename="pascal"):
    id: str
    name: str
    state: _State


def find(name_or_id: str) -> Fact[Described | None]:
    """The container of this name or id; None: the engines that answered have none; Unknown: none answered."""
    ends = time.monotonic() + SECONDS
    problem: Unknown | None = None
    answered = False
    for engine, path in _sockets():
        try:
            found = _ask(engine, path, name_or_id, ends)
        except PermissionError:
            problem = Unknown(Reason.NEEDS_ROOT, f"{path} may not be asked by this user")
        except OSError as error:
            problem = Unknown(Reason.FAILED, f"{path}: {error.strerror or error}")
        else:
            answered = True
            if found:
                return Known(found)
    return problem or (Known(None) if answered else Unknown(Reason.FAILED, "no engine's socket is here"))


def _sockets() -> Iterator[tuple[str, str]]:
    users = dict.fromkeys(uid for uid in (str(os.getuid()), os.environ.get("SUDO_UID", "")) if uid.isdecimal())
    host = os.environ.get("DOCKER_HOST", "")
    candidates = [("docker", host.removeprefix("unix://"))] if host.startswith("unix://") else []
    candidates += [("docker", "/var/run/docker.sock"), ("podman", "/run/podman/podman.sock")]
    candidates += [("docker", f"/run/user/{uid}/docker.sock") for uid in users]
    candidates += [("podman", f"/run/user/{uid}/podman/podman.sock") for uid in users]
    return (each for each in dict.fromkeys(candidates) if os.path.exists(each[1]))


def _ask(engine: str, path: str, name_or_id: str, ends: float) -> Described | None:
    """GET /containers/NAME/json, which docker and podman both speak; OSError when there is no answer."""
    import socket
    from http.client import HTTPConnection, HTTPException

    connection = HTTPConnection("localhost")
    try:
        connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.sock.settimeout(max(ends - time.monotonic(), 0.001))
        connection.sock.connect(path)
        connection.request("GET", f"/containers/{name_or_id}/json")
        response = connection.getresponse()
        body = response.read(_ANSWER_LIMIT)
    except HTTPException as error:
        raise OSError(f"no answer: {error}") from error
    finally:
        connection.close()
    if response.status == 404:
        return None
    try:
        told = msgspec.json.decode(body, type=_Answer)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise OSError(f"status {response.status}") from None
    return Described(Container(engine, told.id, told.name.lstrip("/") or None), told.state.pid, told.state.status)
