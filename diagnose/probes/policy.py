"""The sysctls of this network namespace that decide who may have which port and address (ip-sysctl)."""

from __future__ import annotations

import os
import sys

from diagnose.model.fact import NOT_LINUX, Fact, Known, Reason, Unknown
from diagnose.model.network import PortPolicy

_SYSCTL = "/proc/sys/net"
_UNPRIVILEGED_START = 1024
"""Where the sysctl does not exist: kernels before 4.11 have it fixed (PROT_SOCK)."""


def look() -> Fact[PortPolicy]:
    """The policy as /proc/sys/net shows it to this process."""
    if not sys.platform.startswith("linux"):
        return NOT_LINUX
    try:
        low, high = (int(word) for word in _read("ipv4/ip_local_port_range").split())
        return Known(
            PortPolicy(
                ephemeral_low=low,
                ephemeral_high=high,
                reserved=port_ranges(_read("ipv4/ip_local_reserved_ports", "")),
                unprivileged_start=int(_read("ipv4/ip_unprivileged_port_start", str(_UNPRIVILEGED_START))),
                nonlocal_bind_v4=_is_set("ipv4/ip_nonlocal_bind"),
                nonlocal_bind_v6=_is_set("ipv6/ip_nonlocal_bind"),
                bindv6only=_is_set("ipv6/bindv6only"),
                ipv6_disabled_all=_is_set("ipv6/conf/all/disable_ipv6"),
                ipv6_disabled_lo=_is_set("ipv6/conf/lo/disable_ipv6"),
                ipv6_available=os.path.exists("/proc/net/if_inet6"),
            )
        )
    except OSError as error:
        return Unknown(Reason.FAILED, f"{error.filename}: {error.strerror}")
    except ValueError as error:
        return Unknown(Reason.UNPARSABLE, f"{_SYSCTL}: {error}")


def port_ranges(text: str) -> tuple[tuple[int, int], ...]:
    """The ranges of `8080,9000-9010`, ends included. ValueError when it is none."""
    ranges = []
    for part in text.strip().split(",") if text.strip() else ():
        first, dash, last = part.partition("-")
        ranges.append((int(first), int(last if dash else first)))
    return tuple(ranges)


def _is_set(name: str) -> bool:
    """Not 0; where the kernel lacks the sysctl (no IPv6), nothing is set."""
    return int(_read(name, "0")) != 0


def _read(name: str, absent: str | None = None) -> str:
    path = f"{_SYSCTL}/{name}"
    try:
        with open(path, encoding="ascii", errors="backslashreplace") as file:
            return file.read()
    except FileNotFoundError:
        if absent is None:
            raise
        return absent
