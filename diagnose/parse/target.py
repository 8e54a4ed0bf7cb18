"""What the user typed -> Target; the password never leaves this module."""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv6Address
from typing import TYPE_CHECKING

from diagnose.model.target import COMPOSE, ServicePort, Target

if TYPE_CHECKING:
    from urllib.parse import SplitResult

EXAMPLE = "for example: netdiag run 127.0.0.1:62893"
COMPOSE_EXAMPLE = "for example: netdiag run compose:db:5432"
MASK = "***"

DEFAULT_PORTS = {
    "amqp": 5672,
    "amqps": 5671,
    "cassandra": 9042,
    "clickhouse": 9000,
    "elasticsearch": 9200,
    "ftp": 21,
    "grpc": 50051,
    "http": 80,
    "https": 443,
    "imap": 143,
    "imaps": 993,
    "kafka": 9092,
    "ldap": 389,
    "ldaps": 636,
    "mariadb": 3306,
    "memcached": 11211,
    "mongodb": 27017,
    "mqtt": 1883,
    "mqtts": 8883,
    "mssql": 1433,
    "mysql": 3306,
    "nats": 4222,
    "oracle": 1521,
    "pop3": 110,
    "postgres": 5432,
    "postgresql": 5432,
    "redis": 6379,
    "rediss": 6379,
    "sftp": 22,
    "smtp": 25,
    "smtps": 465,
    "sqlserver": 1433,
    "ssh": 22,
    "telnet": 23,
    "vnc": 5900,
    "ws": 80,
    "wss": 443,
}

_SCHEME = re.compile(r"^(?:jdbc:)?([A-Za-z][A-Za-z0-9.+-]*)://")
_SERVICE = re.compile(r"[A-Za-z0-9._-]+", re.ASCII)
"""As the Compose specification has it."""
_HOST = re.compile(r"^[\w.-]+$")
_SECRET_KEY = re.compile(
    r"""((?:^|[?&;,\s])[^=?&;,\s]*(?:pass|pwd|secret|token|key|auth|cred|sig)[^=?&;,\s]*=)('[^']*'?|"[^"]*"?|[^&;\s]*)""",
    re.IGNORECASE,
)
_WEB = ("http", "https", "ws", "wss")


class BadTargetError(ValueError):
    """The text names no host and TCP port; the message is one line for the user."""


def parse_target(text: str) -> Target:
    """Reads host:port, [v6]:port, :port, port, a URL or a DSN. Raises BadTargetError."""
    if not text.strip():
        raise BadTargetError(f"the target is empty; {EXAMPLE}")
    shown = masked(text)
    if any(c.isspace() or not c.isprintable() for c in text):
        raise BadTargetError(f"the target {shown!r} has a space or a control character in it; {EXAMPLE}")
    if _SCHEME.match(text):
        return _from_url(text, shown)
    if text.startswith(COMPOSE) and not text.removeprefix(COMPOSE).isdigit():
        return _from_compose(text, shown)
    host, port = _split_address(text, shown)
    return Target(shown, _checked_host(host or "localhost", shown), _checked_port(port, shown))


def _from_compose(text: str, shown: str) -> Target:
    """compose:SERVICE:PORT, the port being the container's."""
    service, colon, port = text.removeprefix(COMPOSE).partition(":")
    if not _SERVICE.fullmatch(service):
        raise BadTargetError(f"no service is named in {shown!r}; {COMPOSE_EXAMPLE}")
    if not colon:
        raise BadTargetError(f"{shown!r} has no port: that of the container, not the published one; {COMPOSE_EXAMPLE}")
    number = _checked_port(port, shown, COMPOSE_EXAMPLE)
    return Target(shown, service, number, service=ServicePort(service, number))


def masked(text: str) -> str:
    """The text without its passwords and tokens, fit to be shown; rather too much is masked than too little."""
    scheme = _SCHEME.match(text)
    if scheme:
        text = text[: scheme.end()] + _without_userinfo(text[scheme.end() :], scheme[1].lower() in _WEB)
    elif "@" in text:
        text = f"{MASK}@{text.rpartition('@')[2]}"
    return _SECRET_KEY.sub(rf"\g<1>{MASK}", text)


def _without_userinfo(rest: str, web: bool) -> str:
    """What follows "://" without the password; a token may be all that a web URL has before its @."""
    if "@" not in rest:
        return rest
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if web and "@" not in authority and (":" not in authority or authority.rpartition(":")[2].isdigit()):
        return rest  # an @ in a path or query
    if not web or "@" not in authority:
        authority = rest[: rest.rindex("@") + 1]  # a password with / ? # or @ in it, not escaped
    userinfo, _, host = authority.rpartition("@")
    user, colon, _ = userinfo.partition(":")
    shown = MASK if web else f"{user}{colon}{MASK if colon else ''}"
    return f"{shown}@{host}{rest[len(authority) :]}"


def _from_url(text: str, shown: str) -> Target:
    scheme = _SCHEME.match(text)
    assert scheme is not None
    name = scheme[1].lower()
    if name.endswith("+srv"):
        raise BadTargetError(
            f"{shown!r} names its servers by a DNS SRV record; give one of them as host:port; {EXAMPLE}"
        )
    parts = _split_url(text.removeprefix("jdbc:").replace(";", "/", 1) if "jdbc:" in text else text, shown)
    if name not in _WEB and "@" not in parts.netloc and "@" in text:
        raise BadTargetError(f"a password stands unescaped in {shown!r}; write / in it as %2F, ? as %3F, # as %23")
    authority = parts.netloc.rpartition("@")[2]
    if "," in authority:
        raise BadTargetError(f"{shown!r} names several servers; give them one by one, {EXAMPLE}")
    if not authority or authority.startswith(":"):
        raise BadTargetError(f"{shown!r} has no host; for example: netdiag run {name}://localhost:8080/")
    base = name.partition("+")[0]
    if authority.startswith("[") and authority.endswith("]"):
        host, port = authority, ""
    elif ":" in authority:
        host, port = _split_address(authority, shown)
    else:
        host, port = authority, ""
    if not port and base not in DEFAULT_PORTS:
        raise BadTargetError(
            f"{shown!r} has no port and {base!r} has no default one; for example: netdiag run HOST:62893"
        )
    number = _checked_port(port, shown) if port else DEFAULT_PORTS[base]
    return Target(shown, _checked_host(host.replace("%25", "%"), shown), number, scheme=name)


def _split_url(text: str, shown: str) -> SplitResult:
    from urllib.parse import urlsplit  # most targets are no URL

    try:
        return urlsplit(text)
    except ValueError as error:
        raise BadTargetError(f"{shown!r} is no URL that can be read; {EXAMPLE}") from error


def _split_address(text: str, shown: str) -> tuple[str, str]:
    if text.isascii() and text.isdigit():
        return "", text
    if text.startswith("["):
        host, bracket, rest = text.partition("]")
        if not bracket or not rest.startswith(":"):
            raise BadTargetError(f"{shown!r} has no port behind the bracket; for example: netdiag run [::1]:62893")
        return host + "]", rest[1:]
    if text.count(":") > 1:
        raise BadTargetError(
            f"{shown!r} has more than one colon; an IPv6 address needs brackets, for example: netdiag run [::1]:62893"
        )
    host, colon, port = text.partition(":")
    if not colon:
        raise BadTargetError(f"{shown!r} has no port; for example: netdiag run {shown}:62893")
    return host, port


def _checked_host(host: str, shown: str) -> str:
    if host.startswith("["):
        return _checked_ipv6(host[1:-1], shown)
    if not _HOST.match(host) or len(host) > 253 or ".." in host or host.startswith((".", "-")):
        raise BadTargetError(f"the host in {shown!r} is neither a name nor an address; {EXAMPLE}")
    return host


def _checked_ipv6(text: str, shown: str) -> str:
    address, percent, zone = text.partition("%")
    try:
        parsed = IPv6Address(address)
    except AddressValueError as error:
        raise BadTargetError(
            f"no IPv6 address stands in the brackets of {shown!r}; for example: netdiag run [::1]:62893"
        ) from error
    if percent and not re.fullmatch(r"[\w.-]+", zone):
        raise BadTargetError(
            f"the zone in {shown!r} is no interface name; for example: netdiag run [fe80::1%eth0]:62893"
        )
    plain = f"::ffff:{parsed.ipv4_mapped}" if parsed.ipv4_mapped else parsed.compressed
    return f"{plain}%{zone}" if percent else plain


def _checked_port(text: str, shown: str, example: str = EXAMPLE) -> int:
    if not text:
        raise BadTargetError(f"the port is missing in {shown!r}; {example}")
    if not (text.isascii() and text.isdigit()) or len(text) > 9:
        raise BadTargetError(f"the port in {shown!r} is not a number; {example}")
    port = int(text)
    if not 1 <= port <= 65535:
        raise BadTargetError(f"port {port} in {shown!r} is not between 1 and 65535; {example}")
    return port
