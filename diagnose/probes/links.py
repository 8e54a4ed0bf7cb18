"""The interfaces of this machine, their addresses, and where packets leave it: netifaces, and the flags it lacks."""

from __future__ import annotations

import errno
import socket
import struct
import sys
from typing import Any

from diagnose.model.fact import NOT_NEEDED, Fact, Known, Reason, Unknown
from diagnose.model.network import Family, Gateway, Interface, Links

_SIOCGIFFLAGS = 0x8913  # linux/sockios.h
_IFF_UP = 0x1
_IFREQ = struct.Struct("16sh22x")  # linux/if.h: the name, then the flags


def look(*, gateways: bool = False) -> Fact[Links]:
    """The interfaces and addresses; the gateways only where they are wanted: netifaces runs `ip` for them (5 ms)."""
    try:
        import netifaces  # 10 ms: it imports subprocess
    except ImportError as error:
        return Unknown(Reason.TOOL_MISSING, f"netifaces: {error}", "pip install netifaces2")
    try:
        addresses = _addresses(netifaces)
        up = _linux_flags(sorted(addresses)) if sys.platform.startswith("linux") else _portable_flags()
    except (OSError, RuntimeError, ValueError) as error:
        return Unknown(Reason.FAILED, f"interfaces: {error}")
    interfaces = tuple(Interface(name, up.get(name, False), tuple(sorted(found))) for name, found in addresses.items())
    return Known(Links(tuple(sorted(interfaces)), _gateways(netifaces) if gateways else NOT_NEEDED))


def _addresses(netifaces: Any) -> dict[str, set[str]]:
    """The IP addresses by interface; an interface without any is there too, an alias label (e0:1) is its interface."""
    found: dict[str, set[str]] = {name: set() for _, name in socket.if_nameindex()}
    for name in netifaces.interfaces():
        families = netifaces.ifaddresses(name)
        entries = (*families.get(netifaces.AF_INET, ()), *families.get(netifaces.AF_INET6, ()))
        interface = name if name in found else name.partition(":")[0]
        found.setdefault(interface, set()).update(one["addr"].partition("%")[0] for one in entries if one.get("addr"))
    return found


def _linux_flags(names: list[str]) -> dict[str, bool]:
    """Whether each is set up (netdevice(7))."""
    import fcntl  # not on Windows

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        up: dict[str, bool] = {}
        for name in names:
            request = _IFREQ.pack(name.encode(errors="surrogateescape")[:15], 0)
            try:
                up[name] = bool(_IFREQ.unpack(fcntl.ioctl(sock, _SIOCGIFFLAGS, request))[1] & _IFF_UP)
            except OSError as error:
                if error.errno != errno.ENODEV:  # gone since it was listed
                    raise
        return up


def _portable_flags() -> dict[str, bool]:
    import psutil  # 40 ms, and only where the kernel is not Linux

    return {name: stats.isup for name, stats in psutil.net_if_stats().items()}


def _gateways(netifaces: Any) -> Fact[tuple[Gateway, ...]]:
    families: dict[int, Family] = {netifaces.AF_INET: "ipv4", netifaces.AF_INET6: "ipv6"}
    try:
        table = netifaces.gateways()
    except NotImplementedError:
        return Unknown(Reason.NOT_LINUX, "netifaces lists gateways on Linux only")
    except (OSError, RuntimeError, ValueError, LookupError) as error:
        return Unknown(Reason.FAILED, f"netifaces.gateways: {type(error).__name__}: {error}")
    found = {
        Gateway(entry[0], entry[1], family)
        for number, family in families.items()
        for entry in table.get(number, ())
        if len(entry) > 2 and entry[2]
    }
    return Known(tuple(sorted(found)))
