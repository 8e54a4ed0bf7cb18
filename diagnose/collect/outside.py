"""The side that --from names, seen by who may not enter it: what /proc shows of it to everybody, and nothing is tried.

Nothing of our own side is put in the place of what could not be seen there.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from time import monotonic

from msgspec.structs import replace

from diagnose import __version__
from diagnose.analysis.reach import listeners_on
from diagnose.collect.case import LOCAL_TIMEOUT, PROBE_SECONDS, Order
from diagnose.collect.compose import ProjectLook
from diagnose.model.fact import NOT_NEEDED, PASSIVE, Fact, Known, Reason, Unknown
from diagnose.model.names import Resolution
from diagnose.model.network import SocketRow, is_loopback, is_wildcard
from diagnose.model.snapshot import Snapshot, Vantage
from diagnose.model.target import Intent, Scope, Target
from diagnose.probes import names, processes, program, sockets, vantage
from diagnose.probes.side import Arrived

_LIFT = "run it again with sudo"
_HIDDEN = Unknown(Reason.NEEDS_ROOT, lift=_LIFT)
_UNASKED = Unknown(Reason.NEEDS_ROOT, "not looked for, as nothing was tried from there", _LIFT)


def look(order: Order, side: Arrived) -> tuple[Snapshot, ...]:
    """A snapshot a target, without any attempt."""
    started, clock = datetime.now(UTC), monotonic()
    resolved = _literals(order.targets)
    ports = sorted({target.port for target in order.targets})
    listeners, datagrams = sockets.of_process(side.process(), ports), sockets.udp_of_process(side.process(), ports)
    inodes = frozenset(row.inode for table in (listeners, datagrams) if isinstance(table, Known) for row in table.value)
    seen, called = _vantage(side), program.look()
    holders = processes.holders(inodes, PROBE_SECONDS)
    projects = ProjectLook().by_port(dict.fromkeys(ports, NOT_NEEDED))
    duration = round((monotonic() - clock) * 1000, 3)
    connecting = order.intent is Intent.CONNECT
    trying = connecting and not order.passive
    rules = PASSIVE if order.passive else _HIDDEN
    return tuple(
        Snapshot(
            netdiag=__version__,
            started_at=started.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            duration_ms=duration,
            target=target,
            intent=order.intent,
            scope=Scope(order.timeout or LOCAL_TIMEOUT, order.passive, order.only, order.skip),
            vantage=seen,
            program=called,
            names=resolved[target.host],
            links=_HIDDEN,
            sockets=_on_port(listeners, target.port),
            listeners=listeners,
            bound=_HIDDEN,
            udp=_on_port(datagrams, target.port),
            holders=holders,
            policy=_HIDDEN,
            routing=_HIDDEN,
            hosts=_HIDDEN,
            resolver=_HIDDEN,
            elsewhere=_HIDDEN,
            containers=_UNASKED,
            compose=projects[target.port],
            firewall=rules if connecting else NOT_NEEDED,
            host_firewall=_HIDDEN if trying and _may_lead_to_the_host(target) else NOT_NEEDED,
            cgroup_filters=_HIDDEN,
            confinement=_HIDDEN,
            freezers=_HIDDEN if trying else NOT_NEEDED,
            units=_HIDDEN if trying else NOT_NEEDED,
            ufw=_HIDDEN if connecting and _open_to_all(listeners, target.port) else NOT_NEEDED,
            later=_UNASKED if trying else NOT_NEEDED,
        )
        for target in order.targets
    )


def _literals(targets: Sequence[Target]) -> dict[str, Fact[Resolution]]:
    """Addresses mean themselves; what a name means over there is not known."""
    unread = Unknown(Reason.NEEDS_ROOT, "its hosts file and DNS servers are hidden from this user", _LIFT)
    hosts = [target.host for target in targets]
    return names.resolve(hosts, monotonic(), passive=False, ask=lambda asked, _: dict.fromkeys(asked, unread))


def _may_lead_to_the_host(target: Target) -> bool:
    """Whether a connection from there may go to the machine's own network namespace, through its rules."""
    try:
        return not is_loopback(target.host)
    except ValueError:
        return target.host != "localhost"


def _open_to_all(listeners: Fact[tuple[SocketRow, ...]], port: int) -> bool:
    """Whether the port listens on every address, so that a container engine may have opened it past ufw."""
    rows = listeners.value if isinstance(listeners, Known) else ()
    return any(is_wildcard(row.local.address) for row in listeners_on(rows, port))


def _vantage(side: Arrived) -> Vantage:
    seen = replace(vantage.look(side.container), network_namespace=None)
    return replace(seen, origin=str(side.origin), side=side.now())


def _on_port(rows: Fact[tuple[SocketRow, ...]], port: int) -> Fact[tuple[SocketRow, ...]]:
    match rows:
        case Known(value=found):
            return Known(tuple(row for row in found if row.local.port == port))
        case Unknown():
            return rows
