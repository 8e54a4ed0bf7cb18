"""What a service manager says of a unit, and what a unit's own words say of a port (systemd.socket(5) and others)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from msgspec.structs import replace

from diagnose.model.unit import Tie, Unit, stream_address

MANAGER = "org.freedesktop.systemd1"
UNIT, SERVICE, SOCKET = f"{MANAGER}.Unit", f"{MANAGER}.Service", f"{MANAGER}.Socket"
PROPERTIES: Mapping[str, tuple[tuple[str, str], ...]] = {
    "service": (
        *((UNIT, name) for name in ("StateChangeTimestamp", "Transient", "InvocationID", "ConditionResult")),
        (UNIT, "ConditionTimestamp"),
        *((SERVICE, name) for name in ("Result", "MainPID", "ControlPID", "ExecMainCode", "ExecMainStatus")),
        *((SERVICE, name) for name in ("NRestarts", "Type", "RestrictAddressFamilies")),
        *((SERVICE, name) for name in ("SocketBindDeny", "SocketBindAllow")),
    ),
    "socket": (
        (UNIT, "StateChangeTimestamp"),
        (UNIT, "Transient"),
        *((SOCKET, name) for name in ("Result", "Accept", "NConnections", "MaxConnections", "Listen")),
    ),
}
"""What is asked of a unit, by the kind of unit."""
WORDS = tuple((SERVICE, name) for name in ("ExecStart", "Environment", "EnvironmentFiles"))
"""Where the words of a service can have a port."""
_ENDS = {1: "exited", 2: "killed", 3: "dumped"}
"""CLD_EXITED, CLD_KILLED, CLD_DUMPED (waitid(2))."""
_FAMILIES = {2: "AF_INET", 10: "AF_INET6"}
_TCP = 6

Listed = tuple[str, str, str, str, str, str, str, int, str, str]
"""An entry of ListUnits: name, description, load, active and sub state, followed, path, job's number, type and path."""


def label(name: str) -> str:
    """The last part of a unit's object path: each byte but letters and digits as _ and its hexadecimal number."""
    raw = name.encode("utf-8", "surrogateescape")
    plain = (chr(one).isalnum() and one < 128 and not (at == 0 and chr(one).isdigit()) for at, one in enumerate(raw))
    return "".join(chr(one) if keep else f"_{one:02x}" for one, keep in zip(raw, plain, strict=True)) or "_"


def unit(listed: Listed, tie: Tie, tied_by: str, owner: int | None) -> Unit:
    """The unit by its entry in the manager's list."""
    name, _, load, active, sub, _, _, _, job, _ = listed
    return Unit(name=name, tie=tie, tied_by=tied_by, owner=owner, load=load, active=active, sub=sub, job=job)


def described(one: Unit, said: Mapping[str, Any], port: int, families: Sequence[int]) -> Unit:
    """The unit with what these properties say; one that the manager does not know is left as it was."""
    return replace(
        one,
        since=_time(said.get("StateChangeTimestamp", 0)),
        transient=bool(said.get("Transient", False)),
        result=str(said.get("Result", "")),
        main=int(said.get("MainPID", 0)),
        control=int(said.get("ControlPID", 0)),
        exited=_ENDS.get(said.get("ExecMainCode", 0), ""),
        status=int(said.get("ExecMainStatus", 0)),
        restarts=int(said.get("NRestarts", 0)),
        invocation=bytes(said.get("InvocationID", ())).hex(),
        conditions_met=bool(said.get("ConditionResult", True)) or not said.get("ConditionTimestamp", 0),
        kind=str(said.get("Type", "")),
        families_denied=_denies_families(said.get("RestrictAddressFamilies"), families),
        bind_denied=_denies_bind(said, port, families),
        accept=bool(said.get("Accept", False)),
        connections=int(said.get("NConnections", 0)),
        most_connections=int(said.get("MaxConnections", 0)),
        listens_on=tuple(where for kind, where in said.get("Listen", ()) if kind == "Stream")[:_MOST_ADDRESSES],
    )


_MOST_ADDRESSES = 64


def _time(microseconds: int) -> str | None:
    """Since the epoch; 0: never."""
    if not 0 < microseconds < 1 << 55:
        return None
    return datetime.fromtimestamp(microseconds // 1_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _denies_families(said: tuple[bool, tuple[str, ...]] | None, families: Sequence[int]) -> bool:
    """Whether sockets of none of these address families can be made; (False, ()) forbids nothing."""
    if not said or not families:
        return False
    only_these, named = said
    return all((_FAMILIES[family] in named) != only_these for family in families)


def _denies_bind(said: Mapping[str, Any], port: int, families: Sequence[int]) -> bool:
    """Whether for each family a rule of SocketBindDeny= matches and none of SocketBindAllow=, which comes first."""
    denied, allowed = said.get("SocketBindDeny", ()), said.get("SocketBindAllow", ())
    return bool(families) and all(
        any(_matches(one, port, family) for one in denied) and not any(_matches(one, port, family) for one in allowed)
        for family in families
    )


def _matches(rule: tuple[int, int, int, int], port: int, family: int) -> bool:
    """Family, protocol, number of ports and the first of them; 0 is any (systemd.resource-control(5))."""
    its_family, protocol, ports, first = rule
    return its_family in (0, family) and protocol in (0, _TCP) and (not ports or first <= port < first + ports)


def listens(listed: Iterable[tuple[str, str]], port: int) -> bool:
    """Whether one of the addresses of Listen is a TCP port of this number."""
    streams = (stream_address(where) for kind, where in listed if kind == "Stream")
    return any(one is not None and one[1] == port for one in streams)


# ------ what the words of a unit say

_OF_CLIENTS = (
    r"(?:connect|upstream|backend|remote|target|proxy|peer|forward|join|master|primary|origin|dest|url|uri|dsn|"
    r"database|broker|client|push|probe|wait|check|metrics|replica|seed|cluster|exporter|discovery|registry)"
)
_LOCAL = r"(?:127(?:\.\d+){3}|0\.0\.0\.0|localhost|\[?::1?\]?|\[::ffff:127(?:\.\d+){3}\]|\*|)"


_CLIENTS = frozenset(
    (
        "netdiag",
        "curl",
        "wget",
        "http",
        "https",
        "xh",
        "telnet",
        "nmap",
        "httping",
        "tcping",
        "wait-for-it",
        "wait-for-it.sh",
        "wait-for",
        "wait4ports",
        "dockerize",
        "goss",
        "check_http",
        "check_tcp",
        "pg_isready",
        "psql",
        "pg_dump",
        "mysql",
        "mariadb",
        "mysqladmin",
        "mysqldump",
        "redis-cli",
        "valkey-cli",
        "mongo",
        "mongosh",
        "mongodump",
        "ab",
        "wrk",
        "hey",
        "siege",
        "grpcurl",
        "grpc_health_probe",
        "websocat",
        "mosquitto_pub",
        "mosquitto_sub",
        "nats",
        "amqp-publish",
        "kcat",
        "kafkacat",
    )
)
_EITHER = frozenset(["nc", "ncat", "netcat", "nc.openbsd", "nc.traditional", "socat"])
"""They listen with an option or an address that says so."""
_WRAPPERS = frozenset(
    (
        "sh",
        "bash",
        "dash",
        "ash",
        "zsh",
        "ksh",
        "busybox",
        "env",
        "timeout",
        "nice",
        "ionice",
        "chrt",
        "taskset",
        "flock",
        "stdbuf",
        "sudo",
        "runuser",
        "su",
        "setpriv",
        "chronic",
        "strace",
    )
)
"""They run the program that follows."""
_LISTENS = re.compile(r"(?:-\w*l\w*|--listen|(?:TCP[46]?|OPENSSL|SSL)-L(?:ISTEN)?:.*)", re.IGNORECASE)


def is_of_a_client(argv: Sequence[str]) -> bool:
    """Whether a command line starts, directly or by a shell, a program that connects to a port and serves none."""
    words = [word for one in argv for word in re.split(r"[\s;|&()'\"`]+", one) if word]
    first = [word.rpartition("/")[2] for word in words[:1]]
    runs_others = bool(_WRAPPERS.intersection(first))
    programs = {word.rpartition("/")[2] for word in words if "=" not in word and "://" not in word}
    started = programs if runs_others else frozenset(first)
    if started & _EITHER and not any(_LISTENS.fullmatch(word) for word in words):
        return True
    return bool(started & _CLIENTS) or (runs_others and any("/dev/tcp/" in one for one in argv))


def port_in_command(argv: Sequence[str], port: int) -> bool:
    """Whether a command line has the port in a place where a server's own port stands, and not that of another one."""
    return not is_of_a_client(argv) and _has_port("\0".join(argv[1:]), port)


def port_in_environment(assignments: Iterable[str], port: int) -> bool:
    """Whether a variable such as PORT, LISTEN or BIND_ADDRESS has the port."""
    for one in assignments:
        name, _, value = one.partition("=")
        if re.search(r"PORT|LISTEN|BIND|ADDR", name, re.IGNORECASE) and _has_port(f"{name}={value}", port):
            return True
    return False


def port_in_file(text: str, port: int) -> bool:
    """Whether a line of a configuration or script has the port as that of a server; comments are passed over."""
    lines = (line for line in text.splitlines() if not line.lstrip().startswith(("#", ";", "//")))
    return any(_has_port(line, port) for line in lines)


def _has_port(text: str, port: int) -> bool:
    for found in re.finditer(rf"(?<![\d.]){port}(?!\w|\.\d)", text):
        before = text[max(0, found.start() - 60) : found.start()]
        word = re.split(r"[\s,;(){}\0]", before)[-1]
        host = re.search(r"(?:^|[/@='\"])([^/@='\"]*):$", word)
        if host is not None and not re.fullmatch(_LOCAL, host[1], re.IGNORECASE):
            continue
        if re.search(rf"{_OF_CLIENTS}[\w-]*[\s=:\0'\"]*(?:\w+://)?{_LOCAL}:?['\"]?$", before, re.IGNORECASE):
            continue
        return True
    return False


def paths_in_command(argv: Sequence[str]) -> Iterator[str]:
    """The absolute paths that a command line names, alone or behind an option."""
    for word in argv:
        found = re.fullmatch(r"(?:-{1,2}[\w-]+=)?(/[^\0\s]+)", word)
        if found:
            yield found[1]


def environment_paths(said: Iterable[tuple[str, bool]]) -> Iterator[str]:
    """The paths of EnvironmentFiles."""
    yield from (path for path, _ in said if path.startswith("/"))


def mentions(content: bytes, port: int) -> bool:
    """Whether a unit file has the number at all: a quick look, before its words are read."""
    digits = str(port).encode()
    at = content.find(digits)
    while at >= 0:
        around = content[at - 1 : at] if at else b"", content[at + len(digits) : at + len(digits) + 1]
        if not any(one.isdigit() for one in around):
            return True
        at = content.find(digits, at + 1)
    return False


def unit_of_file(path: str) -> str | None:
    """The unit that a unit file or drop-in belongs to; None: a template, or no service or socket."""
    *_, directory, name = path.split("/")
    unit_name = directory.removesuffix(".d") if name.endswith(".conf") and directory.endswith(".d") else name
    stem, _, kind = unit_name.rpartition(".")
    return unit_name if kind in ("service", "socket") and stem and not stem.endswith("@") else None


def instance_port(name: str, port: int) -> bool:
    """Whether the unit is an instance of a template that is called by the port: redis@6380.service."""
    return bool(re.fullmatch(rf"[^@]+@(?:.*[:-])?{port}\.service", name))


# ------ services that usually serve a port

USUAL: Mapping[int, tuple[str, ...]] = {
    22: ("ssh", "sshd"),
    25: ("postfix", "exim4"),
    53: ("named", "bind9", "unbound", "dnsmasq", "systemd-resolved"),
    80: ("nginx", "apache2", "httpd", "caddy", "lighttpd"),
    443: ("nginx", "apache2", "httpd", "caddy", "lighttpd"),
    631: ("cups",),
    1883: ("mosquitto",),
    2375: ("docker",),
    3000: ("grafana-server",),
    3306: ("mysql", "mariadb", "mysqld"),
    4222: ("nats-server",),
    5432: ("postgresql", "postgresql@*"),
    5672: ("rabbitmq-server",),
    6379: ("redis-server", "redis", "valkey-server", "valkey"),
    8086: ("influxdb",),
    9090: ("prometheus",),
    9200: ("elasticsearch", "opensearch"),
    11211: ("memcached",),
    15672: ("rabbitmq-server",),
    27017: ("mongod",),
}
"""Names of services, without their ending, as Debian and Fedora package them."""


def usual_units(port: int) -> tuple[str, ...]:
    """The services that usually serve this port; one with a star is a pattern."""
    return tuple(f"{name}.service" for name in USUAL.get(port, ()))
