"""Which lines of a compose file may be shown: those of keys, ports, addresses and commands in which all is harmless."""

from __future__ import annotations

import re
from functools import lru_cache

from diagnose.model.hidden import MASK
from diagnose.parse import harmless
from diagnose.parse.harmless import words
from diagnose.parse.mask import mask_command
from diagnose.parse.programs import WORDS
from diagnose.parse.values import KINDS

_COMMENT = f"# {MASK}"
_KEY = r"<<|[A-Za-z_][A-Za-z0-9_.-]{0,63}"
_LONGEST_KEY = 16
"""Characters of a key that need not be made of words."""
_ENTRY = rf"(\s*(?:-\s+)*)(?:([\"']?)({_KEY})\2\s*:(?=\s|$)\s*)?(.*)"
_VARIABLE = r"\$\{(\w+)(?::?[-?+=]([^${}]*))?\}|\$(\w+)"
_COMMANDS = ("command", "entrypoint")
_NUMBERS = ("port", "ports", "target", "published", "expose", "replicas", "timeout", "retries")
_HOSTS = (
    "addr",
    "address",
    "bind",
    "broker",
    "endpoint",
    "host",
    "hostname",
    "hosts",
    "ip",
    "listen",
    "peer",
    "server",
)
_USERS = words("admin api app db default dev django guest mysql postgres rails root sa test user web www")
_VALUES = WORDS | words(
    "always unless-stopped on-failure host-gateway ingress disable allow prefer require verify-ca verify-full"
)
_OPTIONS = ("Host", "Server", "Data Source", "Address", "Addr", "Port")


@lru_cache(maxsize=256)
def shown(line: str) -> str | None:
    """The line, with *** in the place of its comment; None: something else in it may be a secret."""
    at = _comment(line)
    if at is None:
        return None
    body, comment = line[:at], line[at:]
    if not _is_open(body):
        return None
    return f"{body}{_COMMENT}" if comment.strip("# \t") else line


def _comment(line: str) -> int | None:
    """Where the comment begins, else the length; None: a quotation has no end in this line."""
    quote = ""
    for at, character in enumerate(line):
        before = line[at - 1] if at else " "
        if quote:
            quote = "" if character == quote and before != "\\" else quote
        elif character in "\"'" and before in " \t[{,:-":
            quote = character
        elif character == "#" and before in " \t":
            return at
    return None if quote else len(line)


def _is_open(body: str) -> bool:
    found = re.fullmatch(_ENTRY, body.rstrip())
    if found is None:
        return False
    _, _, key, value = found.groups()
    if key is not None and not _is_key(key):
        return False
    return _is_value(key or "", value)


def _is_key(key: str) -> bool:
    return len(key) <= _LONGEST_KEY or harmless.is_name(key.lower())


def _is_value(key: str, value: str) -> bool:
    """What stands behind a key, or as an entry of a list."""
    value = re.sub(r"^(?:[&*]([A-Za-z][A-Za-z_-]{0,30})|!reset|!override)\s*", "", value).strip()
    if not value or value in ("|", ">", "|-", ">-", "|+", ">+", "[]", "{}"):
        return True
    if value[0] in "[{" and value[-1] in "]}":
        return _is_flow(key, value)
    if value[0] in "[{":
        return False
    plain = _unquoted(value)
    return _is_command(plain) if key in _COMMANDS else _is_scalar(key, plain)


def _is_flow(key: str, value: str) -> bool:
    """A list or a mapping on one line."""
    parts = _parts(value[1:-1])
    if key in _COMMANDS:
        return _is_command(" ".join(_unquoted(part) for part in parts))
    return all(_is_open(f"{key}: {part}" if value[0] == "[" else part) for part in parts)


def _parts(text: str) -> list[str]:
    """Between the commas that stand in no quotation and no bracket."""
    parts, depth, quote, start = [], 0, "", 0
    for at, character in enumerate(text):
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        elif character in "[{":
            depth += 1
        elif character in "]}":
            depth -= 1
        elif character == "," and depth == 0:
            parts.append(text[start:at].strip())
            start = at + 1
    return [part for part in (*parts, text[start:].strip()) if part]


def _unquoted(value: str) -> str:
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'" else value


def _is_command(text: str) -> bool:
    """A command in which nothing is hidden; its first word may be an option, or belong to the line above."""
    words = re.findall(r"[^\s\"']+", text)
    return mask_command(words) == " ".join(words)


def _is_scalar(key: str, value: str) -> bool:
    name, equals, rest = value.partition("=")
    if equals and not key and re.fullmatch(_KEY, name) and _is_key(name):
        key, value = name, rest  # an entry of `environment` as a list
    value = _without_variables(value)
    if not value or value in _VALUES:
        return True
    if key == "image":
        return _is_image(value)
    if value.isascii() and value.isdigit():
        return harmless.is_port(value) and (not key or key.lower().endswith(_NUMBERS))
    if "://" in value:
        return _is_url(value)
    if ";" in value:
        return all(_is_pair(part) for part in value.split(";"))
    kinds: list[str] = []
    kinds += ["forward"] if key in ("", "ports", "expose") else []
    kinds += ["path"] if key in ("", "build", "context", "dockerfile", "file", "env_file", "working_dir") else []
    if any(KINDS[kind](value) == value for kind in kinds) or _is_range(value) or _is_mapped(value):
        return True
    if _is_end(key, value):
        return True
    return " " in value and not key and _is_command(value)


def _is_end(key: str, value: str) -> bool:
    """host:port or an address; a host's name alone where the key says that it is one."""
    single = ":" in value or key.lower().endswith(_HOSTS)
    return harmless.is_endpoint(value, single=single) or harmless.anything(value) == value


def _without_variables(value: str) -> str:
    """With a port in the place of each variable, so that its place can be judged; a default stands for itself."""

    def default(found: re.Match[str]) -> str:
        given = found[2]
        return given or "1"

    return re.sub(_VARIABLE, default, value)


def _is_image(value: str) -> bool:
    """registry.example:5000/team/app:1.2, without a digest."""
    *folders, last = value.split("/")
    name, _, tag = last.partition(":")
    registry, *rest = folders or [""]
    parts = [*rest, name, tag or "1"]
    return (not registry or harmless.is_endpoint(registry)) and all(harmless.is_name(part) for part in parts)


def _is_range(value: str) -> bool:
    """3000-3001:3000-3001, 127.0.0.1:8000-8010:80/udp."""
    plain = re.sub(r"(\d{1,5})-(\d{1,5})", r"\1", value)
    return plain != value and KINDS["forward"](plain) == plain


def _is_mapped(value: str) -> bool:
    """name:ADDRESS of extra_hosts, service:NAME of network_mode."""
    name, _, rest = value.partition(":")
    return harmless.is_name(name) and (rest == "host-gateway" or harmless.is_address(rest) or _is_service(name, rest))


def _is_service(kind: str, name: str) -> bool:
    return kind in ("service", "container") and harmless.is_name(name)


def _is_pair(text: str) -> bool:
    name, equals, value = text.partition("=")
    return not text or (bool(equals) and name.strip() in _OPTIONS and KINDS["endpoint"](value) == value)


def _is_url(value: str) -> bool:
    """scheme://user:${PASSWORD}@host:port/database?sslmode=disable: a variable's name is no password."""
    scheme, _, rest = value.partition("://")
    authority, _, behind = rest.partition("/")
    user, at, host = authority.rpartition("@")
    name, colon, password = user.partition(":")
    if at and not (name in _USERS or (harmless.is_name(name) and colon)):
        return False
    if colon and password != "1":
        return False
    if harmless.url(f"{scheme}://{host}") != f"{scheme}://{host}":
        return False
    place, _, query = behind.partition("?")
    return _is_place(place) and all(one in _VALUES or _is_choice(one) for one in query.split("&") if one)


def _is_place(text: str) -> bool:
    parts = text.rstrip("/").split("/") if text else []
    return len(parts) <= 2 and all((part.isalpha() and harmless.is_word(part)) or len(part) <= 2 for part in parts)


def _is_choice(text: str) -> bool:
    name, _, value = text.partition("=")
    return harmless.is_name(name) and (value in _VALUES or (value.isdigit() and len(value) <= 2))
