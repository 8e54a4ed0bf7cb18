"""The settings of the usual servers and forwarders that decide on which address and port they listen."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from diagnose.model.process import Process

_ADDRESS: Mapping[str, str] = MappingProxyType(
    {
        "postgres": "listen_addresses in postgresql.conf",
        "mysqld": "bind-address under [mysqld] in my.cnf",
        "mariadbd": "bind-address under [mysqld] in my.cnf",
        "redis-server": "bind in redis.conf",
        "mongod": "net.bindIp in mongod.conf",
        "nginx": "listen in the server block",
        "kubectl": "kubectl port-forward --address ADDRESS",
        "docker-proxy": "the address in the container's published port (-p ADDRESS:PORT:CONTAINER_PORT)",
        "rootlessport": "the address in the container's published port (-p ADDRESS:PORT:CONTAINER_PORT)",
        "gunicorn": "gunicorn --bind ADDRESS:PORT",
        "uvicorn": "uvicorn --host ADDRESS",
        "flask": "flask run --host ADDRESS",
    }
)
_PORT: Mapping[str, str] = MappingProxyType(
    {
        "postgres": "port in postgresql.conf (clients: PGPORT, or the port in the URL)",
        "pgbouncer": "listen_port in pgbouncer.ini",
        "mysqld": "port under [mysqld] in my.cnf",
        "mariadbd": "port under [mysqld] in my.cnf",
        "redis-server": "port in redis.conf",
        "valkey-server": "port in valkey.conf",
        "mongod": "net.port in mongod.conf",
        "memcached": "memcached -p PORT",
        "sshd": "Port in sshd_config",
        "mosquitto": "listener in mosquitto.conf",
        "nats-server": "port in the server's configuration, or nats-server -p PORT",
        "beam.smp": "listeners.tcp.default in rabbitmq.conf",
        "rabbitmq-server": "listeners.tcp.default in rabbitmq.conf",
    }
)
_SSH_SERVERS = frozenset(("sshd", "sshd-session"))
"""OpenSSH before and since 9.8, which serves each client by a program of its own."""


def address_setting(process: Process | None) -> str | None:
    """The setting that decides on which address this program listens, as people find it in its manual."""
    return _ADDRESS.get(process.program) if process else None


def port_setting(process: Process | None) -> str | None:
    """The same for the port."""
    return _PORT.get(process.program) if process else None


def serves_ssh(process: Process | None) -> bool:
    """Whether the holder is OpenSSH's server: the port may be one that a client forwards with ssh -R."""
    return process is not None and process.program in _SSH_SERVERS


def forwards_by_ssh(process: Process | None) -> bool:
    """Whether the holder is OpenSSH's client: the port is one that it forwards with ssh -L or -D."""
    return process is not None and process.program == "ssh"
