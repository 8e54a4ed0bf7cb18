"""Processes that forward a port of the host to a container, by their own command lines, which any user may read."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Collection

from diagnose.model.container import Forwarder
from diagnose.model.fact import NOT_LINUX, Fact, Known, Reason, Unknown
from diagnose.parse.docker_proxy import ends
from diagnose.probes.containers import in_first_pid_namespace

_PROGRAM = "docker-proxy"
_CLOCK_EVERY = 64
_COMMAND_LIMIT = 4096


def look(ports: Collection[int], seconds: float) -> Fact[tuple[Forwarder, ...]]:
    """The docker-proxy processes of root in our network namespace that say to listen on one of the ports.

    It is a process's own word: whoever relies on it asks as well whether it holds the listener. Those of other users
    are left out: an engine that is not root's forwards from a namespace of its own.
    """
    if not sys.platform.startswith("linux"):
        return NOT_LINUX
    deadline = time.monotonic() + seconds
    found: list[Forwarder] = []
    try:
        pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
        here = os.stat("/proc/self/net/tcp").st_ino
    except OSError as error:
        return Unknown(Reason.FAILED, f"{error.filename or '/proc'}: {error.strerror}")
    if 1 not in pids:
        return Unknown(Reason.NOT_VISIBLE, "other users' processes are hidden here (hidepid)", "run it again with sudo")
    if not in_first_pid_namespace():
        return Unknown(
            Reason.NOT_VISIBLE, "only the processes of our own PID namespace are listed", "run it on the host"
        )
    for at, pid in enumerate(pids):
        if at % _CLOCK_EVERY == 0 and time.monotonic() > deadline:
            return Unknown(Reason.DEADLINE, f"looked at {at} of {len(pids)} processes")
        forwarder = _forwarder(pid, here)
        if forwarder and forwarder.listens.port in ports:
            found.append(forwarder)
    return Known(tuple(sorted(found)))


def _forwarder(pid: int, here: int) -> Forwarder | None:
    """None as well where the process has ended."""
    try:
        with open(f"/proc/{pid}/comm", "rb") as comm:
            if comm.read() != _PROGRAM.encode() + b"\n":
                return None
        if os.stat(f"/proc/{pid}").st_uid != 0 or os.stat(f"/proc/{pid}/net/tcp").st_ino != here:
            return None
        with open(f"/proc/{pid}/cmdline", "rb") as command:
            arguments = command.read(_COMMAND_LIMIT).decode("utf-8", "backslashreplace").split("\0")
    except OSError:
        return None
    told = ends(arguments[1:])
    return Forwarder(pid, _PROGRAM, *told) if told else None
