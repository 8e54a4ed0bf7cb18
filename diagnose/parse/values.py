"""Values of options and operands: what may be shown of one whose kind is known."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

from diagnose.model.hidden import MASK
from diagnose.parse import harmless, programs
from diagnose.parse.harmless import anything

_BRACKETS = {"[": "]", "(": ")"}


@lru_cache(maxsize=1)
def _by_name() -> dict[str, str]:
    return {word: kind for kind, words in programs.BY_NAME.items() for word in words.split()}


def kind_of(name: str) -> str:
    """The kind of a long option's value, by its name; empty: not known."""
    words = re.split(r"[.-]", name)
    if name in programs.FLAGS or words[0] in _SWITCHES:
        return ""
    if words[0] in ("max", "min", "num", "timeout"):
        return "number"
    return _by_name().get(name) or _by_name().get(words[-1], "")


SWITCHED = ("true", "false", "on", "off", "yes", "no")
_SWITCHES = ("no", "enable", "disable", "allow", "skip", "with", "without")


def is_flag(name: str) -> bool:
    return name in programs.FLAGS or name.partition("-")[0] in _SWITCHES


# ------ kinds of values


def _port(word: str) -> str:
    return word if all(map(harmless.is_port, word.split(","))) else anything(word)


def _number(word: str) -> str:
    return word if harmless.is_number(word) else MASK


def _range(word: str) -> str:
    return word if all(map(harmless.is_number, word.split(":"))) else MASK


def _listen(word: str) -> str:
    """An address, a port, both, a URL, or a socket file; several with commas between them."""
    if "," in word and "://" not in word:
        return ",".join(map(_listen, word.split(",")))
    if word == MASK or harmless.is_endpoint(word, single=":" in word) or harmless.is_port(word):
        return word
    scheme, colon, rest = word.partition(":")
    if colon and scheme in ("unix", "fd") and not rest.startswith("//"):
        return f"{scheme}:{harmless.path(rest)}"
    return anything(word)


def _host(word: str) -> str:
    """host:port, or a host name with dots."""
    if "," in word and "://" not in word:
        return ",".join(map(_host, word.split(",")))
    if word == MASK:
        return word
    named = ":" in word and harmless.is_endpoint(word)
    return word if named or harmless.is_endpoint(word, single=False) else anything(word)


def _remote(word: str) -> str:
    """A host by its name alone, as an operand."""
    return word if harmless.is_endpoint(word) or harmless.is_port(word) else anything(word)


def _url(word: str) -> str:
    return harmless.url(word) if "://" in word else _listen(word) if harmless.is_rooted(word) else _host(word)


def _urls(word: str) -> str:
    parts = re.split(r"([;,])", word)
    return "".join(part if part in ";," else _url(part) for part in parts)


def path(word: str) -> str:
    if harmless.is_rooted(word):
        return harmless.path(word)
    if harmless.is_file(word) or harmless.is_folder(word):
        return word
    return anything(word)


def _paths(word: str) -> str:
    """A class path."""
    parts = word.split(":")
    return ":".join(
        part if part == MASK else path(part.removesuffix("/*")) + part[len(part.removesuffix("/*")) :] for part in parts
    )


def script(word: str) -> str:
    if harmless.is_rooted(word):
        return harmless.path(word)
    return word if harmless.is_script(word) else MASK


def module(word: str) -> str:
    return word if harmless.is_module(word) else MASK


def _app(word: str) -> str:
    """module:attribute, where a server finds the application."""
    module, _, attribute = word.partition(":")
    named = not attribute or harmless.is_module(attribute.removesuffix("()"))
    known = harmless.is_module(module) or harmless.is_file(module)
    return word if known and named and word[-1] != ":" else anything(word)


def _known_word(word: str) -> str:
    return word if word in programs.WORDS else anything(word)


def _task(word: str) -> str:
    return word if word in programs.TASKS else anything(word)


def _forward(word: str) -> str:
    """Ports and hosts with colons between them: 8080:localhost:5000, 127.0.0.1:8080:80, 8080:80/tcp."""
    if harmless.is_rooted(word):
        return MASK
    plain = re.sub(r"\[([0-9A-Fa-f:.]+)\]", lambda found: "*" if harmless.is_address(found[1]) else "?", word)
    parts = re.sub(r"/(?:tcp|udp)$", "", plain).split(":")
    ports = sum(map(harmless.is_port, parts))
    fine = all(not part or harmless.is_port(part) or harmless.is_host(part) for part in parts)
    return word if fine and ports > 0 and len(parts) <= 4 else anything(word)


def _destination(word: str) -> str:
    """Where ssh goes: the host, without the user."""
    if "://" in word:
        return harmless.url(word)
    _, at, host = word.rpartition("@")
    shown = host if host == MASK or harmless.is_endpoint(host) else MASK
    return f"{MASK}@{shown}" if at else shown


def _resource(word: str) -> str:
    kind, slash, name = word.partition("/")
    if kind not in programs.RESOURCES:
        return MASK
    return f"{kind}/{name if harmless.is_name(name) else MASK}" if slash else kind


def _socat(word: str) -> str:
    """An address of socat: TCP-LISTEN:8080,fork or TCP:localhost:5000."""
    address, *options = word.split(",")
    keyword, *parts = address.split(":")
    if keyword.lower() not in programs.SOCAT:
        return anything(word)
    unix = keyword.lower().startswith(("unix", "open", "file"))
    shown = [path(one) if unix else one if _is_end(one) else MASK for one in parts]
    return ",".join((":".join((keyword, *shown)), *(one if _is_socat(one) else MASK for one in options)))


def _is_end(word: str) -> bool:
    return harmless.is_port(word) or harmless.is_host(word)


def _is_socat(option: str) -> bool:
    name, equals, value = option.partition("=")
    return (name in programs.SOCAT_OPTIONS and not equals) or (name == "bind" and harmless.is_address(value))


def _redis(word: str) -> str:
    return word if harmless.is_endpoint(word, single=False) or word in ("[cluster]", "[sentinel]") else path(word)


def in_title(word: str) -> str:
    """An address, a version, a path, in brackets perhaps, as servers put them into their titles."""
    if word[:1] in _BRACKETS and word[-1:] == _BRACKETS[word[:1]]:
        inner = word[1:-1]
        return f"{word[0]}{inner if inner == MASK else _bracketed(inner)}{word[-1]}"
    address, bracket, port = word.partition("(")
    if bracket and port.endswith(")") and harmless.is_address(address) and harmless.is_port(port[:-1]):
        return word
    return word if word == MASK or harmless.is_endpoint(word, single=False) else anything(word)


def _bracketed(inner: str) -> str:
    if "://" in inner:
        return _urls(inner)
    return _app(inner) if ":" in inner else anything(inner)


def _title_path(word: str) -> str:
    return harmless.path(word) if harmless.is_rooted(word) else anything(word)


def _directive(word: str) -> str:
    return word if word in ("daemon off;", "daemon on;", "daemon") else MASK


def _property(word: str) -> str:
    """NAME=VALUE of a Java property."""
    name, equals, value = word.partition("=")
    if not equals or not harmless.is_option_name(name):
        return MASK
    kind = kind_of(name)
    shown = KINDS[kind](value) if kind else _known_word(value)
    return f"{name}={value}" if shown == value and MASK not in value else MASK


def _setting(word: str) -> str:
    """NAME=VALUE of PostgreSQL or of ssh, where the value is no secret."""
    name, _, value = word.partition("=")
    if not harmless.is_module(name) or not value or MASK in value:
        return MASK
    numeric = harmless.is_number(value) and (name == "port" or name.startswith(("max_", "ServerAlive", "Connect")))
    return word if numeric or value in programs.WORDS or anything(value) == value or value == "*" else MASK


KINDS: dict[str, Callable[[str], str]] = {
    "": anything,
    "app": _app,
    "class": module,
    "destination": _destination,
    "directive": _directive,
    "endpoint": _listen,
    "forward": _forward,
    "host": _host,
    "listen": _listen,
    "module": module,
    "number": _number,
    "path": path,
    "paths": _paths,
    "pgsetting": _setting,
    "port": _port,
    "property": _property,
    "publish": _forward,
    "range": _range,
    "redis": _redis,
    "remote": _remote,
    "resource": _resource,
    "socat": _socat,
    "sshoption": _setting,
    "task": _task,
    "title": in_title,
    "titlepath": _title_path,
    "url": _url,
    "urls": _urls,
    "word": _known_word,
}
