"""The container that we run in, and what its engine calls it."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterator

from diagnose.model.process import Container
from diagnose.parse.cgroup import membership
from diagnose.parse.container import of_containerenv, of_mounts, root_is_an_image

DOCKER_MARKER, PODMAN_MARKER, SYSTEMD_MARKER = "/.dockerenv", "/run/.containerenv", "/run/systemd/container"
DOCKER_SOCKET, PODMAN_SOCKET = "/var/run/docker.sock", "/run/podman/podman.sock"

_FIRST_PID_NAMESPACE = "pid:[4026531836]"
"""PROC_PID_INIT_INO (linux/proc_ns.h): the namespace that the machine started with."""
_SHORT_ID = re.compile(r"[0-9a-f]{12}")
_ASKABLE = re.compile(r"[0-9A-Za-z][0-9A-Za-z_.-]*")
_ANSWER_LIMIT = 1 << 20
"""Bytes of an engine's answer; a container's description has some 10 kB."""


def inside() -> Container | None:
    """The container that this process runs in; None where nothing says so, and off Linux.

    A network or mount namespace alone is no container, and neither is a marker file that came with the image of a
    virtual machine (/.dockerenv often does).
    """
    if not sys.platform.startswith("linux"):
        return None
    mounts = _text("/proc/self/mountinfo")
    return membership(_text("/proc/self/cgroup")).container or of_mounts(mounts) or _marked(mounts)


def _marked(mounts: str) -> Container | None:
    """The container that a marker names, if the marker was made for this start and not left over from an image."""
    if os.path.exists(PODMAN_MARKER) and (_is_mounted(PODMAN_MARKER) or _looks_like_container(mounts)):
        return of_containerenv(_text(PODMAN_MARKER))
    if os.path.exists(DOCKER_MARKER) and _looks_like_container(mounts):
        # the engine names the host for the container unless it is told another name
        host = os.uname().nodename
        return Container("docker", host if _SHORT_ID.fullmatch(host) else "")
    engine = _text(SYSTEMD_MARKER).strip()
    # systemd calls WSL a container; its localhost is the distribution's own, and Windows forwards to it
    return Container(engine, "") if engine and engine != "wsl" and not _in_first_pid_namespace() else None


def _is_mounted(path: str) -> bool:
    """Whether the file lies on another file system than /: a bind mount or a tmpfs, both made since the start."""
    try:
        return os.stat(path).st_dev != os.stat("/").st_dev
    except OSError:
        return False


def _looks_like_container(mounts: str) -> bool:
    """A PID namespace of our own, on a file system like those that engines make."""
    return not _in_first_pid_namespace() and root_is_an_image(mounts)


def _in_first_pid_namespace() -> bool:
    """True as well where it cannot be told: no container is better than a false one."""
    try:
        return os.readlink("/proc/self/ns/pid") == _FIRST_PID_NAMESPACE
    except OSError:
        return True


def _text(path: str) -> str:
    """A file's text; empty where there is none or it may not be read."""
    try:
        with open(path, encoding="utf-8", errors="backslashreplace") as file:
            return file.read()
    except OSError:
        return ""


def named(container: Container, seconds: float) -> Container:
    """The container with the name that its engine has for it.

    Asks the engine's own local socket; one that is absent, denied or silent costs the name and nothing else.
    """
    if container.name or not _ASKABLE.fullmatch(container.id):
        return container
    ends = time.monotonic() + seconds
    for socket_path in _sockets(container.engine):
        name = _ask(socket_path, container.id, ends)
        if name:
            return Container(container.engine, container.id, name)
    return container


def _sockets(engine: str) -> Iterator[str]:
    """Where the engine listens: the machine's, then the user's own (rootless)."""
    users = dict.fromkeys(uid for uid in (str(os.getuid()), os.environ.get("SUDO_UID", "")) if uid.isdecimal())
    if engine in ("docker", "unknown"):
        host = os.environ.get("DOCKER_HOST", "")
        if host.startswith("unix://"):
            yield host.removeprefix("unix://")
        yield DOCKER_SOCKET
        yield from (f"/run/user/{uid}/docker.sock" for uid in users)
    if engine in ("podman", "unknown"):
        yield PODMAN_SOCKET
        yield from (f"/run/user/{uid}/podman/podman.sock" for uid in users)


def _ask(socket_path: str, container_id: str, ends: float) -> str | None:
    """GET /containers/ID/json, which docker and podman both speak."""
    if not os.path.exists(socket_path):
        return None
    # 10 ms of imports that only a machine with an engine pays for
    import socket
    from http.client import HTTPConnection, HTTPException

    connection = HTTPConnection("localhost")
    try:
        connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.sock.settimeout(_left(ends))
        connection.sock.connect(socket_path)
        connection.request("GET", f"/containers/{container_id}/json")
        connection.sock.settimeout(_left(ends))
        response = connection.getresponse()
        if response.status != 200:
            return None
        body = b""
        while chunk := response.read1(1 << 16):
            body += chunk
            if len(body) > _ANSWER_LIMIT or time.monotonic() > ends:
                return None
        return _name(body)
    except (OSError, HTTPException):
        return None
    finally:
        connection.close()


def _left(ends: float) -> float:
    return max(ends - time.monotonic(), 0.001)


def _name(body: bytes) -> str | None:
    import msgspec

    try:
        told = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    name = told.get("Name") if isinstance(told, dict) else None
    return name.lstrip("/") or None if isinstance(name, str) else None
