"""What is inside the network namespaces of containers, read through /proc by any user, without entering them."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import NamedTuple

from msgspec.structs import replace

from diagnose.model.container import Inside
from diagnose.model.fact import Fact, Known, Reason, Unknown
from diagnose.model.process import Container
from diagnose.parse import unified
from diagnose.parse.cgroup import membership
from diagnose.probes.containers import in_first_pid_namespace
from diagnose.probes.namespaces import Namespace, addresses_of
from diagnose.probes.netlink import ROUTE, Netlink, attribute, attributes

_TEXT_LIMIT = 1 << 20
_GET_NSID, _NSID, _NSID_OF_PID = 90, 1, 2
"""RTM_GETNSID and its attributes (linux/rtnetlink.h, linux/net_namespace.h)."""
_RTGENMSG = bytes(4)
_GET_LINK, _LINK_NETNSID = 18, 37
"""RTM_GETLINK and IFLA_LINK_NETNSID (linux/if_link.h)."""
_IFINFOMSG = bytes(16)
_NUMBER = struct.Struct("=i")
_PROCESSES = 512
"""So many processes of one namespace are asked which container they are of."""


class Wanted(NamedTuple):
    """Which containers are looked into: by a listener's port, id, address, or the namespace that a relay leads to."""

    port: int
    ids: frozenset[str] = frozenset()
    addresses: frozenset[str] = frozenset()
    namespaces: frozenset[int] = frozenset()

    def match(self, namespace: Namespace) -> bool:
        """Whether something in there is wanted."""
        if namespace.inode in self.namespaces or any(row.local.port == self.port for row in namespace.listeners):
            return True
        found = container_of(namespace.pids[0])
        if found is None or found.id in self.ids:
            return found is not None
        return bool(self.addresses.intersection(addresses_of(namespace.pids))) and _is_cabled(namespace.pids[0])


def look(namespaces: Iterable[Namespace], wanted: Wanted) -> tuple[Inside, ...]:
    """The wanted ones; of containers that share a namespace all."""
    mounted = _text("/proc/self/mountinfo")
    found = [inside for one in namespaces if wanted.match(one) for inside in _inside(one, mounted)]
    return tuple(sorted(found, key=lambda one: (one.namespace, one.container)))


def host(namespaces: Iterable[Namespace], home: int | None) -> Inside | None:
    """The namespace that we come from by its inode; None: that which the machine started with, if it can be told."""
    wanted = (one for one in namespaces if (one.pids[0] == 1 if home is None else one.inode == home))
    first = next(wanted, None)
    if first is None or (home is None and not in_first_pid_namespace()):
        return None
    own = addresses_of(first.pids)
    return Inside(Container("host", ""), first.inode, first.pids[0], own, Known(first.listeners))


def container_of(pid: int) -> Container | None:
    """By the paths of its cgroups; None as well when it has ended."""
    return membership(_text(f"/proc/{pid}/cgroup")).container


def has_address(namespace: Namespace, address: str) -> bool:
    """Whether the address belongs to the namespace."""
    return address in addresses_of(namespace.pids)


def frozen(pid: int) -> Fact[bool]:
    """Whether the process stands still by the freezer of its cgroup."""
    return _frozen(pid, _text("/proc/self/mountinfo"))


def _inside(namespace: Namespace, mounted: str) -> Iterator[Inside]:
    for container, pid in _containers(namespace.pids[:_PROCESSES]).items():
        monitor = _monitor(pid, container)
        yield Inside(
            container=replace(container, name=container.name or monitor.container_name),
            namespace=namespace.inode,
            pid=pid,
            addresses=addresses_of(namespace.pids),
            listeners=Known(namespace.listeners),
            frozen=_frozen(pid, mounted),
            owner=monitor.user,
        )


class _Monitor(NamedTuple):
    """What podman's own process next to a container shows to any user."""

    user: int = 0
    container_name: str | None = None


def _monitor(pid: int, container: Container) -> _Monitor:
    """By the parent of the container's first process; nothing where that is no conmon, or has ended."""
    parent = _field(pid, "PPid:")
    words = _text(f"/proc/{parent}/cmdline").split("\0") if _text(f"/proc/{parent}/comm") == "conmon\n" else []
    told = dict(pairwise(words))
    if told.get("-c") != container.id:
        return _Monitor()
    return _Monitor(_field(parent, "Uid:"), told.get("-n"))


def _field(pid: int, name: str) -> int:
    """The first number of a line of its status; 0 when it has ended."""
    lines = (line.split() for line in _text(f"/proc/{pid}/status").splitlines() if line.startswith(name))
    return next((int(words[1]) for words in lines), 0)


def _containers(pids: Iterable[int]) -> dict[Container, int]:
    """The containers of these processes, each with its lowest pid."""
    found: dict[Container, int] = {}
    for pid in pids:
        if container := container_of(pid):
            found.setdefault(container, pid)
    return found


def cabled() -> Fact[bool]:
    """Whether an interface of our namespace has its other end in another one (a veth pair): any user may ask."""
    try:
        with Netlink(ROUTE) as kernel:
            links = kernel.dump(_GET_LINK, _IFINFOMSG)
        return Known(any(_LINK_NETNSID in attributes(body, len(_IFINFOMSG)) for _, body in links))
    except (OSError, ValueError, struct.error) as error:
        return Unknown(Reason.FAILED, f"interfaces: {error}")


def _is_cabled(pid: int) -> bool:
    """Whether our namespace has the other end of one of its links: the kernel has numbered it here (rtnetlink(7)).

    Engines beside each other give out the same addresses, each on a bridge of its own. True where it cannot be told.
    """
    try:
        with Netlink(ROUTE) as kernel:
            (answer,) = kernel.request(_GET_NSID, 0, _RTGENMSG + attribute(_NSID_OF_PID, _NUMBER.pack(pid)))
        return bool(_NUMBER.unpack(attributes(answer, len(_RTGENMSG))[_NSID])[0] >= 0)
    except (OSError, ValueError, KeyError, struct.error):
        return True


def _frozen(pid: int, mounted: str) -> Fact[bool]:
    """By the state of its cgroup, which tells of a frozen cgroup above, too (freezer-subsystem.rst, cgroup-v2.rst)."""
    cgroup = _text(f"/proc/{pid}/cgroup")
    place, places = unified.place(cgroup), unified.mounts(mounted)
    above, old_places = unified.freezer_place(cgroup), unified.freezer_mounts(mounted)
    states = [
        _says(unified.directory(place, places) if place else None, "cgroup.events", "frozen 1"),
        _says(unified.directory(above, old_places) if above else None, "freezer.state", "FROZEN"),
    ]
    known = [one for one in states if one is not None]
    return Known(any(known)) if known else Unknown(Reason.NOT_VISIBLE, f"the freezer of process {pid} is not seen here")


def _says(directory: str | None, name: str, line: str) -> bool | None:
    """Whether the file has this line; None: there is no such file."""
    text = _text(f"{directory}/{name}") if directory else ""
    return line in text.splitlines() if text else None


def _text(path: str) -> str:
    """The start of a file; empty where it may not be read, or the process has ended."""
    try:
        with open(path, "rb") as file:
            return file.read(_TEXT_LIMIT).decode("utf-8", "backslashreplace")
    except OSError:
        return ""
