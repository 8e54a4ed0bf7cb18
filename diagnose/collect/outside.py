"""The side that --from names, seen by who may not enter it: what /proc shows of it to everybody, and nothing is tried.

Nothing of our own side is put in the place of what could not be seen there.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from time import monotonic

from msgspec.structs import replace

from diagnose import __version__
from diagnose.collect.case import LOCAL_TIMEOUT, PROBE_SECONDS, Order
from diagnose.model.fact import Fact, Known, Reason, Unknown
from diagnose.model.names import Resolution
from diagnose.model.network import SocketRow
from diagnose.model.snapshot import Snapshot, Vantage
from diagnose.model.target import Scope, Target
from diagnose.probes import names, processes, program, sockets, vantage
from diagnose.probes.side import Arrived

_HIDDEN = Unknown(Reason.NEEDS_ROOT)


def look(order: Order, side: Arrived) -> tuple[Snapshot, ...]:
    """A snapshot a target, without any attempt."""
    started, clock = datetime.now(UTC), monotonic()
    resolved = _literals(order.targets)
    ports = sorted({target.port for target in order.targets})
    listeners = sockets.of_process(side.process(), ports)
    inodes = frozenset(row.inode for row in listeners.value) if isinstance(listeners, Known) else frozenset()
    seen, called = _vantage(side), program.look()
    holders = processes.holders(inodes, PROBE_SECONDS)
    duration = round((monotonic() - clock) * 1000, 3)
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
            holders=holders,
            policy=_HIDDEN,
            routing=_HIDDEN,
            hosts=_HIDDEN,
            resolver=_HIDDEN,
            elsewhere=_HIDDEN,
            firewall=_HIDDEN,
            cgroup_filters=_HIDDEN,
        )
        for target in order.targets
    )


def _literals(targets: Sequence[Target]) -> dict[str, Fact[Resolution]]:
    """Addresses mean themselves; what a name means over there is not known."""
    unread = Unknown(Reason.NEEDS_ROOT, "its hosts file and DNS servers are hidden from this user")
    hosts = [target.host for target in targets]
    return names.resolve(hosts, monotonic(), passive=False, ask=lambda asked, _: dict.fromkeys(asked, unread))


def _vantage(side: Arrived) -> Vantage:
    seen = replace(vantage.look(side.container), network_namespace=None)
    return replace(seen, origin=str(side.origin), side=side.now())


def _on_port(rows: Fact[tuple[SocketRow, ...]], port: int) -> Fact[tuple[SocketRow, ...]]:
    match rows:
        case Known(value=found):
            return Known(tuple(row for row in found if row.local.port == port))
        case Unknown():
            return rows
