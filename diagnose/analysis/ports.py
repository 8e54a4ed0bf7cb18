"""What a port number itself tells, and which listeners are near misses of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType

from diagnose.model.network import SocketRow, TcpState

NEAR = 10
LAST = 65535
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


def near(port: int) -> frozenset[int]:
    """The ports that a typing slip or a "next free port" makes of this one."""
    beside = set(range(max(1, port - NEAR), min(LAST, port + NEAR) + 1))
    return frozenset(beside | set(_swapped(str(port)))) - {port}


def _swapped(digits: str) -> Iterator[int]:
    """The numbers with two neighbouring digits in each other's place."""
    for i in range(len(digits) - 1):
        number = int(digits[:i] + digits[i + 1] + digits[i] + digits[i + 2 :])
        if len(str(number)) == len(digits) and number <= LAST:
            yield number


def near_misses(listeners: Iterable[SocketRow], port: int) -> tuple[SocketRow, ...]:
    """The listeners on such ports, the nearest first."""
    ports = near(port)
    found = [row for row in listeners if row.state is TcpState.LISTEN and row.local.port in ports]
    return tuple(sorted(found, key=lambda row: (abs(row.local.port - port), row)))


def port_note(port: int) -> str | None:
    """What the number alone tells a person who wonders why nobody listens there."""
    if DYNAMIC[0] <= port <= DYNAMIC[1]:
        return (
            f"Port {port} lies in the dynamic range {DYNAMIC[0]}-{DYNAMIC[1]}: such a port is usually handed out at "
            "random, so the program that printed it has probably restarted with another one. Look up its current port "
            "(its newest log line, its window, its configuration)."
        )
    return None
