"""A line that helps after a bad target: what was wrong with it, and what was probably meant."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from ipaddress import ip_address

from diagnose.model.target import COMPOSE, Target, address
from diagnose.parse.target import DEFAULT_PORTS, LONGEST, MASK, NOT_TCP, FlawError, folded, read_target

DEFAULT = "127.0.0.1:62893"
COMPOSE_DEFAULT = f"{COMPOSE}db:5432"
SERVICES = {
    **DEFAULT_PORTS,
    "dns": 53,
    "domain": 53,
    "finger": 79,
    "git": 9418,
    "http-alt": 8080,
    "kerberos": 88,
    "microsoft-ds": 445,
    "ms-sql-s": 1433,
    "nfs": 2049,
    "pop3s": 995,
    "rdp": 3389,
    "rsync": 873,
    "rtsp": 554,
    "sip": 5060,
    "smb": 445,
    "submission": 587,
    "www": 80,
    "x11": 6000,
}
"""Ports by the names that /etc/services, or people, give them."""

_ANY_PORT = DEFAULT.partition(":")[2]
_ABSTRACT = ("tcp", "tls", "ssl")
"""Schemes that say nothing of the protocol."""
_TRANSPORTS = ("UDP", "ICMP", "another transport")
"""What has hosts, and is not TCP."""
_WILDCARDS = ("*", "0.0.0.0", "any")
_KEYS = ("host", "hostname", "hostaddr", "server", "addr", "address", "source", "port")
"""Settings whose values are a place."""
_SCHEMES = {*SERVICES, *NOT_TCP, *_ABSTRACT, "jdbc", "compose"}
_LONGEST_SHOWN = 80
_FIRST_WORDS = 3
"""A host, a port, and what is behind them: a number further on may be a password."""
_QUOTES = "\"'`\u2018\u2019\u201c\u201d\u201e\u00ab\u00bb<>(){}"
_TRAILING = ".,;!?"

_ASSIGNMENT = re.compile(r"(?:export\s+)?[A-Za-z_]\w{0,63}=(.+)", re.ASCII | re.DOTALL)
_VARIABLE = re.compile(r"[A-Z][A-Z0-9_]{0,40}=", re.ASCII)
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+-]{0,30})(:/{0,2}|//)(?=[^/]|$)", re.ASCII)
_GO_DSN = re.compile(r"\btcp\(([^()]{1,300})\)", re.ASCII)
_SETTING = re.compile(rf"(?:^|[\s;,?&:])({'|'.join(_KEYS)})\s?=\s?([^\s;&]{{1,300}})", re.IGNORECASE)
_BRACKETED = re.compile(r"(\[[0-9A-Fa-f:.%\w-]{2,60}\])(?::(\d{1,5}))?", re.ASCII)
_PORT = re.compile(r"0*(\d{1,5})\W*", re.ASCII)
_NUMERIC = re.compile(r"0|\d{1,3}(?:\.\d{1,3}){1,3}", re.ASCII)
"""0 and 127.1 (inet_aton(3)); a longer number is a mistyped port rather than a host."""
_NUMBER = re.compile(r"\d{1,5}", re.ASCII)
_NAME = re.compile(r"[a-z][a-z-]{0,30}(?:\.[a-z][a-z-]{0,30}){0,5}", re.ASCII)
_HOST = re.compile(r"[a-z][a-z-]{0,30}\d{0,3}(?:\.[a-z][a-z-]{0,30}\d{0,3}){0,5}", re.ASCII)
_TOKEN = re.compile(
    r"(?P<address>(?<![\w.])\[?[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,8}(?:%\w{1,15})?\]?)"
    rf"|(?P<delimiter>[\s:/?#;,=|\[\]\\*{_QUOTES}]+?)"
    rf"|(?P<word>[^\s:/?#;,=|\[\]\\*{_QUOTES}]+)"
)


def hint(text: str, flaw: str) -> str:
    """The whole line: the text without anything that may be a secret, its flaw, and an example that works."""
    subject = "the target" if not text.strip() or len(text) > LONGEST else repr(skeleton(text))
    return f"{subject} {flaw}; for example: netdiag run {shlex.quote(likely_meant(text))}"


def likely_meant(text: str) -> str:
    """A target that can be read, the nearest to the text that is found; host, port and scheme only."""
    shown = " ".join((skeleton(text), *_from_settings(text[:LONGEST])))
    for candidate in _candidates(text[:LONGEST]):
        try:
            target = read_target(candidate)
        except FlawError:
            continue
        if _may_be_repeated(target, shown):
            return _spelled(target)
    return COMPOSE_DEFAULT if text.startswith(COMPOSE) else DEFAULT


def _may_be_repeated(target: Target, shown: str) -> bool:
    """Whether the host is no secret: what is hidden of the text is not in the example either."""
    name = target.service.service if target.service is not None else target.host
    if target.service is None and (name == "localhost" or _is_address(name) or _NUMERIC.fullmatch(name)):
        return True
    return bool(_HOST.fullmatch(name)) and name in re.split(r"[^\w.-]+", shown)


def _spelled(target: Target) -> str:
    if target.service is not None:
        return f"{COMPOSE}{target.service.service}:{target.port}"
    where = address("", target.host, target.port)
    return f"{target.scheme}://{where}" if target.scheme in DEFAULT_PORTS else where


def _candidates(text: str) -> Iterator[str]:
    """Repairs of the text, the likeliest first."""
    visible = "".join(c for c in text if c.isprintable() or c.isspace()).strip()
    plain = folded(visible).strip().strip(_QUOTES).rstrip(_TRAILING).strip()
    assigned = _ASSIGNMENT.fullmatch(plain)
    value = assigned[1].strip().strip(_QUOTES) if assigned else plain
    if re.fullmatch(r"[^\W\d][\w-]*", value) and (assigned or not _NAME.fullmatch(value)):
        yield from _from_settings(plain)
        return  # one word, which may be anything
    if plain.startswith(COMPOSE):
        service, _, port = plain.removeprefix(COMPOSE).partition(":")
        yield f"{COMPOSE}{service}:{_port(port) or 5432}"
        return
    yield from _from_settings(plain)
    dsn = _GO_DSN.search(value)
    if dsn:
        yield dsn[1]
    yield from (word for word in value.split()[:50] if ":" in word)
    yield from _repairs(value)


def _from_settings(text: str) -> Iterator[str]:
    """host=... port=..., as libpq and ADO.NET write a server."""
    said = {name.lower(): value.strip(_QUOTES) for name, value in _SETTING.findall(text)}
    port = said.pop("port", "")
    for value in said.values():
        host, _, own = value.removeprefix("tcp:").replace(",", ":").partition(":")
        yield f"{host}:{_port(own) or _port(port) or _ANY_PORT}"


def _repairs(text: str) -> Iterator[str]:
    kind = NOT_TCP.get(text.partition(":")[0].lower())
    if text.startswith("/") or (kind and kind not in _TRANSPORTS):
        return  # a path: nothing in it is a host
    yield text
    scheme = _SCHEME.match(text)
    name = scheme[1].lower().removesuffix("+srv") if scheme else ""
    rest = text[scheme.end() :].rpartition("@")[2] if scheme else ""
    if name in DEFAULT_PORTS:
        port = str(DEFAULT_PORTS[name])
        yield from (f"{name}://{one}" for one in _address_repairs(rest or "localhost", port))
    elif name in _ABSTRACT or kind or (scheme and "//" in scheme[2]):
        yield from _address_repairs(rest, _ANY_PORT)
    else:
        yield from _address_repairs(text.rpartition("@")[2], _ANY_PORT)


def _address_repairs(text: str, port: str) -> Iterator[str]:
    """Host and port from the beginning of a text without a scheme and a user; `port` where it has none."""
    text = text.partition("->")[0]
    if len(text) < 100:
        host, _, last = text.rpartition(":")
        yield from (f"[{host}]:{_port(last)}", f"[{text}]:{port}")
    bracketed = _BRACKETED.match(text)
    if bracketed:
        yield f"{bracketed[1]}:{_port(bracketed[2] or '') or port}"
        return
    words = [word for word in re.split(r"[\s:/?#;,]+", text, maxsplit=4) if word and word.lower() != "port"]
    if text.startswith(("/", ":")) or (words and _port(words[0])):
        words = ["localhost", *([] if text.startswith("/") else words)]
    elif len(words) > 1 and words[0].lower() in SERVICES and not _port(words[1]):
        words = [words[1], words[0]]  # ssh HOST
    if words:
        host = "localhost" if words[0] in _WILDCARDS else words[0]
        yield f"{host}:{(_port(words[1]) if len(words) > 1 else '') or port}"


def _port(word: str) -> str:
    """The port that a word names, as a plain number; empty where it names none."""
    digits = _PORT.fullmatch(word)
    if digits and 1 <= int(digits[1]) <= 65535:
        return str(int(digits[1]))
    return str(SERVICES.get(word.lower(), ""))


def skeleton(text: str) -> str:
    """The text with everything replaced that is no address, port, known word or plain host name at its beginning."""
    cut = text[: _LONGEST_SHOWN * 4]
    before, at, rest = cut.rpartition("@")
    shown = f"{_opening(before)}{MASK}@" if at else ""
    after, key, words = "", "", 0
    single = len(_TOKEN.findall(cut)) == 1
    for token in _TOKEN.finditer(rest if at else cut):
        if token["delimiter"]:
            after += token[0]
            shown += token[0]
            continue
        harmless = _NAME.fullmatch(token[0]) if single else _is_harmless(token[0], words, after, key)
        shown += token[0] if harmless or _is_address(token[0]) else MASK
        after, key, words = "", token[0].lower(), words + 1
    return shown if len(shown) <= _LONGEST_SHOWN else f"{shown[:_LONGEST_SHOWN]}..."


def _opening(before: str) -> str:
    """What may be shown of the text before an @: the name of a variable, and a known scheme."""
    variable = _VARIABLE.match(before)
    name = variable[0] if variable else ""
    scheme = _SCHEME.match(before, len(name))
    return name + (scheme[0] if scheme and _is_known(scheme[1]) else "")


def _is_harmless(word: str, before: int, after: str, key: str) -> bool:
    """Whether a word may be shown that stands behind so many others, this delimiter and this word."""
    if "=" in after and key not in _KEYS and not (before == 1 and _is_known(word)):
        return False
    if _is_known(word) or (before == 0 and word.lower() in _KEYS):
        return True
    behind_scheme = after.endswith("//") or (before == 1 and key in _SCHEMES and after in (":", ":/", "/"))
    if any(mark in after for mark in "?#/") and not behind_scheme:
        return False
    if _NUMBER.fullmatch(folded(word)):
        return before < _FIRST_WORDS
    return (before == 0 or "=" in after or behind_scheme) and bool(_HOST.fullmatch(word))


def _is_known(word: str) -> bool:
    name = word.lower()
    return name == "localhost" or name in _SCHEMES or name.partition("+")[0] in _SCHEMES


def _is_address(word: str) -> bool:
    try:
        ip_address(word.strip("[]").partition("%")[0])
    except ValueError:
        return False
    return True
