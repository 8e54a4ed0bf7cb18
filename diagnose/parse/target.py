"""What the user typed -> Target; no password, token, query value or path leaves this module."""

from __future__ import annotations

import re
import unicodedata
from ipaddress import AddressValueError, IPv6Address
from typing import TYPE_CHECKING

from diagnose.model.target import COMPOSE, ServicePort, Target

if TYPE_CHECKING:
    from urllib.parse import SplitResult

MASK = "***"
LONGEST = 8192
"""Characters of a target; servers take no longer URL either (RFC 9110, 4.1 recommends 8000 octets)."""

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
NOT_TCP = {
    **dict.fromkeys(("udp", "udp4", "udp6", "quic", "dtls", "coap", "tftp", "ntp", "snmp"), "UDP"),
    **dict.fromkeys(("sctp", "dccp"), "another transport"),
    **dict.fromkeys(("icmp", "ping"), "ICMP"),
    **dict.fromkeys(("unix", "http+unix", "https+unix", "unix+http", "ipc", "npipe", "fd"), "a socket of this machine"),
    "vsock": "a socket of a virtual machine",
    "file": "a file",
}
"""Schemes that are no TCP connection, and what they name."""

_SCHEME = re.compile(r"^(?:jdbc:)?([A-Za-z][A-Za-z0-9.+-]*)://")
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=", re.ASCII)
_NO_SLASHES = re.compile(r"([a-z][a-z0-9+]*):/?(?=[^/])", re.ASCII | re.IGNORECASE)
_SERVICE = re.compile(r"[A-Za-z0-9._-]+", re.ASCII)
"""As the Compose specification has it."""
_HOST = re.compile(r"[A-Za-z0-9_.-]+", re.ASCII)
_WORD = re.compile(r"@?[A-Za-z_][A-Za-z0-9_.-]{0,31}|\d{1,3}", re.ASCII)
"""A path segment or the name of a query value that is shown."""
_WEB = ("http", "https", "ws", "wss")
_SPELLINGS = {0x3002: ".", 0xFF61: ".", **dict.fromkeys((0x2010, 0x2011, 0x2012, 0x2013, 0x2212), "-")}
"""Full stops and hyphens of other scripts, which Unicode does not fold to ASCII (RFC 3490, 3.1)."""


class BadTargetError(ValueError):
    """The text names no host and TCP port; the message is one line for the user, with an example that works."""


class FlawError(ValueError):
    """What is wrong with a text, as the end of a sentence that begins with the text."""


def parse_target(text: str) -> Target:
    """Reads host:port, [v6]:port, :port, port, a URL or a DSN. Raises BadTargetError."""
    try:
        return read_target(text)
    except FlawError as flaw:
        from diagnose.parse.target_hint import hint  # most targets are good

        raise BadTargetError(hint(text, str(flaw))) from None


def read_target(text: str) -> Target:
    """As parse_target; raises FlawError, whose message holds nothing of the text but numbers and known words."""
    if len(text) > LONGEST:
        raise FlawError(f"has {len(text)} characters, and no target has more than {LONGEST}")
    if not text.strip():
        raise FlawError("is empty")
    if any(c.isspace() or not c.isprintable() for c in text):
        raise FlawError("has a space or a control character in it")
    _refuse_another_transport(text)
    if _SCHEME.match(text):
        return _from_url(text)
    if text.startswith(COMPOSE) and not text.removeprefix(COMPOSE).isdigit():
        return _from_compose(text)
    _refuse_half_a_url(text)
    host, port = _split_address(text)
    return Target(text, _checked_host(host or "localhost"), _checked_port(port))


def folded(text: str) -> str:
    """The text with what only looks like ASCII in its place: fullwidth letters, digits of other scripts (NFKC)."""
    plain = unicodedata.normalize("NFKC", text.translate(_SPELLINGS))
    return "".join(str(unicodedata.decimal(c, c)) for c in plain)


def _refuse_another_transport(text: str) -> None:
    scheme, colon, rest = text.partition(":")
    named = NOT_TCP.get(scheme.lower()) if colon else None
    if named is None and text.startswith("/"):
        named = "a path"
    if named is not None and not rest.isdigit():  # a host may be called so
        raise FlawError(f"names {named}, and netdiag connects by TCP")


def _refuse_half_a_url(text: str) -> None:
    """What has something of a URL, and no scheme that makes it one."""
    if _ASSIGNMENT.match(text):
        raise FlawError("sets a variable: give its value alone")
    scheme = _NO_SLASHES.match(text)
    if scheme and scheme[1].lower() in (*DEFAULT_PORTS, "tcp", "tls", "ssl") and ":" in text[scheme.end() :]:
        raise FlawError("has a scheme without the two slashes behind it")
    if re.search(r":\d{1,5}[/?#]", text):
        raise FlawError("has a path or a query, and no scheme such as http://")


def _from_compose(text: str) -> Target:
    """compose:SERVICE:PORT, the port being the container's."""
    service, colon, port = text.removeprefix(COMPOSE).partition(":")
    if not _SERVICE.fullmatch(service):
        raise FlawError("names no service")
    if not colon:
        raise FlawError("has no port: that of the container, not the published one")
    number = _checked_port(port)
    return Target(text, service, number, service=ServicePort(service, number))


def _from_url(text: str) -> Target:
    scheme = _SCHEME.match(text)
    assert scheme is not None
    name = scheme[1].lower()
    if name.endswith("+srv"):
        raise FlawError("names its servers by a DNS SRV record: give one of them with its port")
    prefix, rest = text[: scheme.end()], text[scheme.end() :]
    parts = _split_url(f"//{rest.replace(';', '/;', 1) if prefix.startswith('jdbc:') else rest}")
    if name not in _WEB and ("@" in parts.path or ("@" not in parts.netloc and "@" in rest)):
        raise FlawError("has a password that is not escaped: write / in it as %2F, ? as %3F, # as %23, @ as %40")
    authority = parts.netloc.rpartition("@")[2]
    if "," in authority:
        raise FlawError("names several servers: give them one by one")
    if not authority or authority.startswith(":"):
        raise FlawError("has no host")
    base = name.partition("+")[0]
    bare = authority.startswith("[") and authority.endswith("]")
    host, port = _split_address(authority) if ":" in authority and not bare else (authority, "")
    if not port and base not in DEFAULT_PORTS:
        raise FlawError("has no port, and there is no default one for its scheme")
    number = _checked_port(port) if port else DEFAULT_PORTS[base]
    return Target(_shown(prefix, parts), _checked_host(host.replace("%25", "%")), number, scheme=name)


def _split_url(text: str) -> SplitResult:
    from urllib.parse import urlsplit  # most targets are no URL

    try:
        return urlsplit(text)
    except ValueError as error:
        raise FlawError("is no URL that can be read") from error


def _shown(prefix: str, parts: SplitResult) -> str:
    """The URL without the user, without values, and with the first segment of its path only."""
    user, at, authority = parts.netloc.rpartition("@")
    first, slash, others = parts.path.removeprefix("/").partition("/")
    segment, semicolon, _ = first.partition(";")
    path = "/" if parts.path else ""
    path += segment if _WORD.fullmatch(segment) or not segment else MASK
    path += f";{MASK}" if semicolon else ""
    path += f"/{MASK}" if others else slash
    query = "&".join(map(_shown_value, parts.query.split("&"))) if parts.query else ""
    return "".join(
        (
            f"{prefix}{MASK if user else ''}{at}{authority}",
            path.replace("/;", ";") if prefix.startswith("jdbc:") else path,
            f"?{query}" if query else "",
            f"#{MASK}" if parts.fragment else "",
        )
    )


def _shown_value(pair: str) -> str:
    name, equals, value = pair.partition("=")
    if not equals or not _WORD.fullmatch(name):
        return MASK
    return f"{name}={MASK if value else ''}"


def _split_address(text: str) -> tuple[str, str]:
    if text.isascii() and text.isdigit():
        return "", text
    if text.startswith("["):
        host, bracket, rest = text.partition("]")
        if not bracket or not rest.startswith(":"):
            raise FlawError("has no port behind the bracket")
        return host + "]", rest[1:]
    if text.count(":") > 1:
        raise FlawError("has more than one colon: an IPv6 address needs brackets")
    host, colon, port = text.partition(":")
    if not colon and ":" in folded(text):
        raise FlawError("has characters that only look like ASCII")
    if not colon:
        raise FlawError("has no port")
    return host, port


def _checked_host(host: str) -> str:
    if host.startswith("["):
        return _checked_ipv6(host[1:-1])
    name = host if host.isascii() else _checked_unicode(host)
    if not _HOST.fullmatch(name) or len(name) > 253 or ".." in name or name.startswith((".", "-")):
        raise FlawError("has a host that is neither a name nor an address")
    return unicodedata.normalize("NFC", host)


def _checked_unicode(host: str) -> str:
    """The name as DNS carries it (RFC 3490)."""
    if any(folded(c).isascii() for c in host if not c.isascii()):
        raise FlawError("has characters that only look like ASCII")
    if any(unicodedata.category(label[:1] or "a").startswith("M") for label in host.split(".")):
        raise FlawError("has a host in which a label begins with a combining mark")
    try:
        return host.encode("idna").decode("ascii")
    except UnicodeError:
        raise FlawError("has a host that DNS cannot carry (RFC 3490)") from None


def _checked_ipv6(text: str) -> str:
    address, percent, zone = text.partition("%")
    try:
        parsed = IPv6Address(address)
    except AddressValueError as error:
        raise FlawError("has no IPv6 address in its brackets") from error
    if percent and not _HOST.fullmatch(zone):
        raise FlawError("has a zone that is no interface name")
    plain = f"::ffff:{parsed.ipv4_mapped}" if parsed.ipv4_mapped else parsed.compressed
    return f"{plain}%{zone}" if percent else plain


def _checked_port(text: str) -> int:
    if not text:
        raise FlawError("has no port: it is missing behind the colon")
    if not (text.isascii() and text.isdigit()) or len(text) > 9:
        raise FlawError("has a port that is not a number")
    port = int(text)
    if not 1 <= port <= 65535:
        raise FlawError(f"has port {port}, which is not between 1 and 65535")
    if text.startswith("0"):
        raise FlawError("has a port that begins with a zero")
    return port
