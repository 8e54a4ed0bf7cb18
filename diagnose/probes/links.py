"""The interfaces of this machine, their addresses, and where packets leave it: netifaces, and the flags it lacks."""

from __future__ import annotations

import errno
import socket
import struct
import sys
from typing import Any

from diagnose import seccomp
from diagnose.model.fact import NOT_LINUX, NOT_NEEDED, Fact, Known, Reason, Unknown
from diagnose.model.network import Family, Gateway, Interface, Links

_SIOCGIFFLAGS = 0x8913  # linux/sockios.h
_IFF_UP = 0x1
_IP_FAMILIES = (socket.AF_INET, socket.AF_INET6)
_IFREQ = struct.Struct("16sh22x")  # linux/if.h: the name, then the flags


def look(*, gateways: bool = False) -> Fact[Links]:
    """The interfaces and addresses; the gateways only where they are wanted: netifaces runs `ip` for them (5 ms)."""
    if not sys.platform.startswith("linux"):
        return _portable(gateways=gateways)
    try:
        import netifaces  # 10 ms: it imports subprocess
    except ImportError as error:
        return Unknown(Reason.TOOL_MISSING, f"netifaces: {error}", "pip install netifaces2")
    try:
        seccomp.require(*seccomp.INTERFACES)
        addresses = _addresses(netifaces)
        up = _flags(sorted(addresses))
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


def _flags(names: list[str]) -> dict[str, bool]:
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


def _portable(*, gateways: bool) -> Fact[Links]:
    """The same from psutil: on Windows netifaces lists no loopback, and two addresses on one adapter hang it."""
    import psutil  # 40 ms, and never on Linux

    try:
        up, addresses = psutil.net_if_stats(), psutil.net_if_addrs()
    except (OSError, psutil.Error) as error:
        return Unknown(Reason.FAILED, f"interfaces: {error}")
    found = {
        name: {one.address.partition("%")[0] for one in addresses.get(name, ()) if one.family in _IP_FAMILIES}
        for name in {*up, *addresses}
    }
    interfaces = (Interface(name, name in up and up[name].isup, tuple(sorted(found[name]))) for name in found)
    return Known(Links(tuple(sorted(interfaces)), NOT_LINUX if gateways else NOT_NEEDED))


def _gateways(netifaces: Any) -> Fact[tuple[Gateway, ...]]:
    families: dict[int, Family] = {netifaces.AF_INET: "ipv4", netifaces.AF_INET6: "ipv6"}
    try:
        table = netifaces.gateways()
    except (OSError, RuntimeError, ValueError, LookupError) as error:
        return Unknown(Reason.FAILED, f"netifaces.gateways: {type(error).__name__}: {error}")
    found = {
        Gateway(entry[0], entry[1], family)
        for number, family in families.items()
        for entry in table.get(number, ())
        if len(entry) > 2 and entry[2]
    }
    return Known(tuple(sorted(found)))
