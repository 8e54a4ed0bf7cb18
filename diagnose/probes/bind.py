"""Whether a server could take an address and a port: bound for real, never listening, closed at once."""

from __future__ import annotations

import errno
import os
import socket
import time
from typing import Literal

from diagnose import seccomp
from diagnose.model.attempt import BindAttempt, Outcome
from diagnose.model.network import family_of
from diagnose.probes.connect import errno_name, outcome_of

_REUSES = os.name == "posix"
"""On Windows SO_REUSEADDR takes a port away from whoever has it: there a server does without."""


def attempt(address: str, port: int) -> BindAttempt:
    """bind(2) with SO_REUSEADDR, as servers do, then without; IPV6_V6ONLY stays at the system's default."""
    started = time.perf_counter()
    outcome, error, call = _bind(address, port, reuse=_REUSES)
    plain_outcome, plain_error, _ = _bind(address, port, reuse=False)
    return BindAttempt(
        address=address,
        port=port,
        family=family_of(address),
        outcome=outcome,
        errno=error,
        call=call,
        plain_outcome=plain_outcome,
        plain_errno=plain_error,
        ms=(time.perf_counter() - started) * 1000,
    )


def _bind(address: str, port: int, *, reuse: bool) -> tuple[Outcome, str | None, Literal["socket", "bind", "other"]]:
    """How one bind ended, its errno by name, and the system call that gave it."""
    call: Literal["socket", "bind", "other"] = "socket"
    family = socket.AF_INET6 if family_of(address) == "ipv6" else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as sock:
            call = "bind"
            if reuse:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(_socket_address(address, port))
    except OSError as error:
        number = error.errno or errno.ENODEV  # if_nametoindex gives none
        return outcome_of(number), errno_name(number), call if seccomp.is_about(error, call) else "other"
    return Outcome.BOUND, None, call


def _socket_address(address: str, port: int) -> tuple[str, int] | tuple[str, int, int, int]:
    """sockaddr with the zone as an interface index (RFC 4007); OSError where there is no such interface."""
    literal, _, zone = address.partition("%")
    if not zone:
        return literal, port
    return literal, port, 0, int(zone) if zone.isdecimal() else socket.if_nametoindex(zone)
