"""The container that we run in."""

from __future__ import annotations

import os
import re
import sys

from diagnose.model.process import Container
from diagnose.parse.cgroup import membership
from diagnose.parse.container import of_containerenv, of_mounts, root_is_an_image

DOCKER_MARKER, PODMAN_MARKER, SYSTEMD_MARKER = "/.dockerenv", "/run/.containerenv", "/run/systemd/container"

_FIRST_PID_NAMESPACE = "pid:[4026531836]"
"""PROC_PID_INIT_INO (linux/proc_ns.h): the namespace that the machine started with."""
_SHORT_ID = re.compile(r"[0-9a-f]{12}")


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
    return Container(engine, "") if engine and engine != "wsl" and not in_first_pid_namespace() else None


def _is_mounted(path: str) -> bool:
    """Whether the file lies on another file system than /: a bind mount or a tmpfs, both made since the start."""
    try:
        return os.stat(path).st_dev != os.stat("/").st_dev
    except OSError:
        return False


def _looks_like_container(mounts: str) -> bool:
    """A PID namespace of our own, on a file system like those that engines make."""
    return not in_first_pid_namespace() and root_is_an_image(mounts)


def in_first_pid_namespace() -> bool:
    """Whether every process is listed; True too where it cannot be told: no container is better than a false one."""
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
