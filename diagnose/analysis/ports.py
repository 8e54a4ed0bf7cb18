"""What a port number itself tells, and which listeners are near misses of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from diagnose.model.network import SocketRow, TcpState

NEAR = 10
DYNAMIC = (49152, 65535)
"""RFC 6335 section 6; also the ephemeral range of macOS and Windows."""

PROGRAMS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "postgres": ("postgres", "postmaster", "pgbouncer"),
        "mysql": ("mysqld", "mariadbd"),
        "redis": ("redis-server", "valkey-server", "keydb-server"),
        "mongodb": ("mongod", "mongos"),
        "memcached": ("memcached",),
        "ssh": ("sshd",),
        "amqp": ("beam.smp", "rabbitmq-server"),
        "mqtt": ("mosquitto",),
        "nats": ("nats-server",),
    }
)
SERVICES: Mapping[int, str] = MappingProxyType(
    {
        22: "ssh",
        1883: "mqtt",
        3306: "mysql",
        4222: "nats",
        5432: "postgres",
        5672: "amqp",
        6379: "redis",
        11211: "memcached",
        27017: "mongodb",
    }
)
_SAME = {"postgresql": "postgres", "mariadb": "mysql", "rediss": "redis", "amqps": "amqp", "mqtts": "mqtt"}


def expected_programs(port: int, scheme: str | None) -> tuple[str, ...]:
    """The programs (comm) that usually serve this scheme, or this port where no scheme says otherwise."""
    name = (scheme or "").partition("+")[0]
    service = _SAME.get(name, name) if name else SERVICES.get(port, "")
    return PROGRAMS.get(service, ())


def near_misses(listeners: Iterable[SocketRow], port: int) -> tuple[SocketRow, ...]:
    """Listeners on a port that a typing slip or a "next free port" makes of this one, the nearest first."""
    near = [
        row
        for row in listeners
        if row.state is TcpState.LISTEN and row.local.port != port and _is_near(row.local.port, port)
    ]
    return tuple(sorted(near, key=lambda row: (abs(row.local.port - port), row)))


def _is_near(one: int, other: int) -> bool:
    return abs(one - other) <= NEAR or _swapped(str(one), str(other))


def _swapped(one: str, other: str) -> bool:
    """Whether two neighbouring digits changed places."""
    if len(one) != len(other):
        return False
    different = [i for i in range(len(one)) if one[i] != other[i]]
    return (
        len(different) == 2
        and different[1] == different[0] + 1
        and one[different[0]] == other[different[1]]
        and one[different[1]] == other[different[0]]
    )


def port_note(port: int) -> str | None:
    """What the number alone tells a person who wonders why nobody listens there."""
    if DYNAMIC[0] <= port <= DYNAMIC[1]:
        return (
            f"Port {port} lies in the dynamic range {DYNAMIC[0]}-{DYNAMIC[1]}: such a port is usually handed out at "
            "random, so the program that printed it has probably restarted with another one. Look up its current port "
            "(its newest log line, its window, its configuration)."
        )
    return None
