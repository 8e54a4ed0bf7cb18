"""The hosts and ports that an error message names, in the spellings of the common runtimes and clients."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from ipaddress import ip_address

from diagnose.model.target import address
from diagnose.parse.target import BadTargetError, parse_target


class Nearness(Enum):
    """How closely a message ties an endpoint to what failed."""

    FAILED = "failed"
    """It stands where the runtime or the client puts the endpoint that failed."""
    NAMED = "named"
    """It stands somewhere in the message."""


@dataclass(frozen=True)
class Endpoint:
    """A host, a port, or both; None for what the message does not say."""

    host: str | None
    port: int | None
    nearness: Nearness = Nearness.NAMED

    @property
    def is_name(self) -> bool:
        """Whether the host is a name, and no address."""
        return self.host is not None and not is_address(self.host)

    def __str__(self) -> str:
        return address("", self.host or "localhost", self.port or 0)


def is_address(host: str) -> bool:
    """Whether the text is an IPv4 or IPv6 address, with a zone or without."""
    try:
        ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def find_endpoints(text: str) -> tuple[Endpoint, ...]:
    """Every endpoint of the message, in its order.

    Each part of the text is read once, by the first spelling that fits.
    """
    left = _without_noise(text)
    found: list[tuple[int, Endpoint]] = []
    for spelling in _SPELLINGS:
        left = spelling.take(left, found)
    return tuple(endpoint for _, endpoint in sorted(found, key=lambda one: one[0]))


_V4 = r"\d{1,3}(?:\.\d{1,3}){3}"
_V6 = r"(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?:%\w{1,15})?"
_NAME = r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?"
_ANY = rf"(?:\[{_V6}\]|{_NAME})"
_PORT = r"\d{1,5}(?![\d.]*\d)"
_Q = "[\"'`\u2018\u2019\u201c\u201d\\\\]{0,2}"

_FAILED_AT = (
    r"(?:\bconnect(?: E[A-Z]{4,20}|\(\)(?: to)?)|\blisten(?: E[A-Z]{4,20}(?:: [a-z ]{4,30})?)|\bE[A-Z]{6,20}:? connect"
    r"|\b(?:dial|listen) (?:tcp|udp)[46]?|\bbind\(\) (?:to|failed for)|\bBind for|\bConnect call failed"
    r"|\bbind on address|\bCould not connect to \w{1,20} at|\bupstream:"
    r"|\bexposing port TCP|\bclosed by|\b(?:read|write) tcp[46]? \S{1,60}->):?\s?\(?" + _Q + r"(?:tcp://)?"
)
"""What stands directly before the endpoint that failed."""

_NOISE = (
    r"\x1b\[[0-9;?]{0,20}[A-Za-z]",  # colours
    r"\b\d{4}[-/]\d\d[-/]\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d{1,9})?(?:Z|[+-]\d\d:?\d\d)?",
    r"\b\d{1,2}:\d\d:\d\d(?:[.,]\d{1,9})?\b",
    r"\b\d{1,2}:\d\d ?(?:AM|PM)\b",
    r"- Local \([^()\s]{1,60}\)",  # Node's own end of the connection
    rf"\blocal(?:_?address| address)?[=: ]{{1,3}}{_ANY}:\d{{1,5}}",
    rf"\bfrom /?{_ANY}:\d{{1,5}}",
    r"\b(?:[Ss]ee|[Vv]isit|[Rr]ead):? https?://[^\s)]{1,500}",
    r"\b(?:[Ss]ee(?: also)?|[Cc]onsult|[Rr]efer to|[Bb]ackground on|[Hh]elp|[Dd]ocs|[Dd]ocumentation|[Dd]etails"
    r"|[Ii]nfo(?:rmation)?|[Ll]earn more|[Tt]roubleshoot(?:ing)?)[\w ]{0,30}:?\s{1,2}<?https?://[^\s)]{1,500}",
    r"\(https?://nodejs\.org/[^\s)]{1,500}\)",
    r"\bproxying request [^\s]{1,500}(?= to )",  # the proxy's own address
    rf"(?<=\s)on {_ANY}:53\b",  # the resolver that a lookup asked
    rf"(?<=tcp ){_ANY}:\d{{1,5}}(?=->)",
    r"\b(?:client|server): [^,\s]{1,255},",  # nginx: who asked it, and under which name
    r"\brequest: \"[^\"]{0,1000}\"",
    r"\bhost: \"[^\"]{0,255}\"",
    r"\(?\bnode:[a-z_/]{1,60}:\d{1,6}(?::\d{1,6})?\)?",
    r"[\w./@\\-]{0,200}\.(?:c|cc|cpp|cs|cjs|ex|exs|go|h|java|js|jsx|kt|lua|mjs|php|pl|py|rb|rs|scala|swift|ts|tsx|vue)"
    r":\d{1,7}(?::\d{1,6})?\b",  # places in source code
    r"\b(?:trying|using)(?: (?:another|available|free))?(?: port)? \d{1,5}\b",  # what it does instead
    r"\berrno[=: ]{1,3}-?\d{1,5}",
    r"\b(?:code|status|exit|line|pid|errno|error|attempt|retry|column|level|uid|gid|version)[=:]\d{1,9}\b",
    r"\b[0-9A-Fa-f]{2}(?::[0-9A-Fa-f]{2}){5}\b",  # link-layer addresses
    r"\bsha256:[0-9a-f]{8,64}",
)
_NOISES = re.compile("|".join(f"(?:{one})" for one in _NOISE))


def _without_noise(text: str) -> str:
    """The text with blanks where it speaks of other things: times, source lines, our own end of a connection."""
    text = re.sub(r"(?i)%5B", "[", re.sub(r"(?i)%5D", "]", text))  # gRPC escapes its IPv6 addresses
    text = re.sub(r"(?<=[\s\"'])ipv[46]:(?=[\[\d])", "     ", text)
    return _NOISES.sub(lambda noise: " " * len(noise[0]), text)


@dataclass(frozen=True)
class _Spelling:
    """One way to write an endpoint."""

    pattern: re.Pattern[str]
    read: Callable[[re.Match[str]], Endpoint | None]

    def take(self, text: str, found: list[tuple[int, Endpoint]]) -> str:
        """The text without the endpoints that are written so."""
        for match in self.pattern.finditer(text):
            endpoint = self.read(match)
            if endpoint is not None:
                found.append((match.start(), endpoint))
                text = text[: match.start()] + " " * (match.end() - match.start()) + text[match.end() :]
        return text


def _port(text: str | None) -> int | None:
    number = int(text) if text else 0
    return number if 1 <= number <= 65535 and not (text or "").startswith("0") else None


def _host(text: str | None) -> str | None:
    """The host without brackets; None for the words and numbers that only stand where a host could."""
    host = (text or "").strip("[]").rstrip(".")
    if (
        not host
        or host.isdigit()
        or host.lower() in _NO_HOSTS
        or (re.fullmatch(r"[\d.]+", host) and not is_address(host))
    ):
        return None
    if ":" in host:
        return _compressed(host)
    return host


def _compressed(host: str) -> str | None:
    plain, percent, zone = host.partition("%")
    try:
        return f"{ip_address(plain).compressed}{percent}{zone}"
    except ValueError:
        return None


_BEHIND_A_URL = "'\"`.,;:!?)>}\u2019\u201d"
_NO_HOSTS = frozenset(
    re.split(
        " ",
        "a address admin all an and any at bind by code connect connection debug default distribution error "
        "errno failed for from host http https in is line listen listening local localport management message "
        "of on or pid port ports proxy remote same server socket specified status syscall tcp tcp4 tcp6 the "
        "to type udp unknown upstream url",
    )
)
"""Words that stand where a host could, and are none."""


def _near(match: re.Match[str]) -> Nearness:
    return Nearness.FAILED if match.groupdict().get("near") else Nearness.NAMED


def _pair(match: re.Match[str]) -> Endpoint | None:
    """host and port, both needed."""
    host, port = _host(match["host"] or match.groupdict().get("quoted")), _port(match["port"])
    return Endpoint(host, port, _near(match)) if host and port else None


def _resolved(match: re.Match[str]) -> Endpoint | None:
    """A name with the address it was resolved to: the name counts."""
    host, port = _host(match["host"]), _port(match["port"])
    return Endpoint(_host(match["name"]) or host, port, _near(match)) if host and port else None


def _any_host(match: re.Match[str]) -> Endpoint | None:
    """A port of every address, or of one that is not said."""
    port = _port(match["port"])
    return Endpoint(None, port, _near(match)) if port else None


def _only_host(match: re.Match[str]) -> Endpoint | None:
    host = _host(match["host"])
    return Endpoint(host, None) if host else None


def _url(match: re.Match[str]) -> Endpoint | None:
    text = match["url"].rstrip(_BEHIND_A_URL)
    if "[" not in text:
        text = text.rstrip(_BEHIND_A_URL + "]")
    try:
        target = parse_target(text)
    except BadTargetError:
        return None
    host = _host(target.host)
    return Endpoint(host, target.port, _near(match)) if host else None


def _spelling(pattern: str, read: Callable[[re.Match[str]], Endpoint | None], flags: int = 0) -> _Spelling:
    return _Spelling(re.compile(pattern, flags), read)


_END = r"(?![\w-]|:\w|\.\d)"
"""What may not stand behind a port: more of a number, a source line's column, an address."""
_PLACE = (
    r"(?:(?<=\bto )|(?<=\bat )|(?<=\bon )|(?<=\bwith )|(?<=\bfor )|(?<=\bhost )|(?<=\bserver )"
    r"|(?<=\breach )|(?<=\btarget )|(?<=[=@(,\[`'\"\u2018\u201c])|(?<=^))"
)
"""What stands before a name without a dot, lest `retries:3` be taken for one."""
_SURE = rf"(?:localhost|{_V4}|[A-Za-z0-9_-]{{1,63}}(?:\.[A-Za-z0-9_-]{{1,63}}){{1,10}})"
"""A host that no other word looks like."""
_NEAR = f"(?P<near>{_FAILED_AT})"

_SPELLINGS: tuple[_Spelling, ...] = (
    # wget: localhost (localhost)|127.0.0.1|:8080
    _spelling(
        rf"(?P<name>{_NAME}) \([^()\s]{{1,255}}\)\|(?P<host>[0-9A-Fa-f.:]{{2,45}})\|:(?P<port>{_PORT})", _resolved
    ),
    _spelling(rf"\bto (?P<name>{_NAME})\|(?P<host>[0-9A-Fa-f.:]{{2,45}})\|:(?P<port>{_PORT})", _resolved),
    # Node before version 13: ENOTFOUND db db:5432
    _spelling(rf"\b(?:ENOTFOUND|EAI_AGAIN) (?P<host>{_NAME}) (?P=host):(?P<port>{_PORT}){_END}", _pair),
    # nc: (UNKNOWN) [127.0.0.1] 8080 (?)
    _spelling(rf"(?P<name>(?<![\w.-]){_NAME})?\)? \[(?P<host>{_V4}|{_V6})\] (?P<port>{_PORT}) \(", _resolved),
    # Postfix: localhost[127.0.0.1]:25
    _spelling(rf"(?<![\w.-])(?P<name>{_NAME})\[(?P<host>{_V4}|{_V6})\]:(?P<port>{_PORT}){_END}", _resolved),
    # Docker: 0.0.0.0:3306:172.18.0.2:3306/tcp
    _spelling(rf"(?P<host>{_V4}|\[{_V6}\]):(?P<port>{_PORT}):(?:{_V4}|\[{_V6}\]):\d{{1,5}}/tcp", _pair),
    # Java: localhost/127.0.0.1:8080, /[0:0:0:0:0:0:0:1]:8080
    _spelling(
        rf"(?<![\w:/.])(?P<name>{_NAME})?/(?P<host>{_V4}|\[{_V6}\]|{_V6}(?=:)):(?P<port>{_PORT}){_END}", _resolved
    ),
    _spelling(rf"(?<![\w:/.])(?P<host>{_NAME})/<unresolved>:(?P<port>{_PORT})", _pair),
    _spelling(
        rf"(?P<near>\bupstream: {_Q})?(?P<url>(?:jdbc:)?[A-Za-z][A-Za-z0-9+.-]{{0,30}}://[^\s\"'`<>|,)\u201d\u2019]{{1,2000}})",
        _url,
    ),
    # curl, ssh: connect to localhost port 8080
    _spelling(rf"(?P<near>\b[Cc]onnect to (?:host )?)(?P<host>{_V6}|{_ANY}) port (?P<port>{_PORT})", _pair),
    # psql, Ruby: "localhost" (127.0.0.1), port 5432; localhost port 22; host "db" (::1) and ... on port 5432
    _spelling(
        rf"(?:\b(?:to|host|at|for|server|by) {_Q}(?P<host>{_V6}|{_ANY})|[\"'`](?P<quoted>{_V6}|{_ANY})){_Q}"
        rf"(?: \([^()\s]{{1,60}}\))?,?(?: and accepting\s+TCP/IP connections on)?\s+port[ =:]{{1,3}}(?P<port>{_PORT})",
        _pair,
    ),
    _spelling(rf"\b[Pp]ort (?P<port>{_PORT}) on (?P<host>{_V6}|{_ANY})", _pair),
    # Python: ('127.0.0.1', 5432), ('::1', 8080, 0, 0)
    _spelling(
        rf"(?P<near>Connect call failed |on address )?\(\\?['\"](?P<host>{_V6}|{_NAME})?\\?['\"], ?(?P<port>{_PORT})"
        r"(?:, ?\d+, ?\d+)?\)",
        lambda match: _pair(match) or _any_host(match),
    ),
    # SQL Server: tcp:localhost,1433, Data Source=localhost,1433
    _spelling(
        rf"\b(?:tcp:|(?:Data Source|Server|Address)=(?:tcp:)?)(?P<host>{_V4}|{_NAME}),(?P<port>{_PORT})",
        _pair,
        re.IGNORECASE,
    ),
    # host='localhost', port=8080; address: '::1', port: 5432; host=db port=5432
    _spelling(
        r"\b(?:host|hostname|hostaddr|address|addr|server|ip)\\?[\"']?\s?[=:]\s?"
        rf"{_Q}(?P<host>{_V6}|{_NAME}){_Q}[,;]?\s{{1,20}}{_Q}port{_Q}\s?[=:]\s?{_Q}(?P<port>{_PORT})",
        _pair,
        re.IGNORECASE,
    ),
    _spelling(rf"{_NEAR}\[(?P<host>{_V6}|{_V4})\]:(?P<port>{_PORT}){_END}", _pair),
    _spelling(rf"\[(?P<host>{_V6}|{_V4})\]:(?P<port>{_PORT}){_END}", _pair),
    # Node writes IPv6 without brackets: ::1:5432, :::3000
    _spelling(
        rf"(?P<near>{_FAILED_AT}|already in use )(?P<host>(?:[0-9A-Fa-f]{{0,4}}:){{1,7}}[0-9A-Fa-f]{{0,4}})"
        rf":(?P<port>{_PORT})(?![\w:])",
        _pair,
    ),
    _spelling(rf"(?<![\w:.])(?P<host>::1|::):(?P<port>{_PORT})(?![\w:.])", _pair),
    _spelling(rf"{_NEAR}(?P<host>{_NAME}):(?P<port>{_PORT}){_END}", _pair),
    _spelling(rf"(?<![\w.:/@-])(?P<host>{_SURE})(?:\([^()\s]{{1,60}}\))?`?:`?(?P<port>{_PORT}){_END}", _pair),
    _spelling(rf"{_PLACE}(?P<host>{_NAME})`?:`?(?P<port>{_PORT}){_END}", _pair, re.MULTILINE),
    _spelling(rf"{_NEAR}[*]?:(?P<port>{_PORT}){_END}", _any_host),
    _spelling(rf"(?<![\w.:\])`'\"])[*]?:(?P<port>{_PORT}){_END}", _any_host),
    _spelling(
        rf"\bports?\)?{_Q}(?: number| tcp)?(?: already in use)?[ =:#]{{1,3}}{_Q}(?P<port>{_PORT})",
        _any_host,
        re.IGNORECASE,
    ),
    _spelling(rf"(?P<near>\bE[A-Z]{{6,20}}:? (?:[a-z ]{{4,30}})?)(?P<port>{_PORT})\s*$", _any_host, re.MULTILINE),
    _spelling(
        r"(?:\bENOTFOUND|\bEAI_AGAIN|\blookup|\bresolve host:?|\bhost name"
        r"|\bhost(?:name)?(?=[:=]| [\"'`])[:=]?|\bserver on|\bserver at|\bto address"
        rf"|\bIPv[46] address) ?{_Q}(?P<host>{_V4}|{_V6}|{_NAME}){_Q}(?=[\s,.:;)]|$)",
        _only_host,
        re.IGNORECASE,
    ),
    _spelling(rf"\bconnect to (?P<host>{_SURE}|{_NAME}(?= \({_V4}\)))(?=[\s,.:;)]|$)", _only_host),
)
