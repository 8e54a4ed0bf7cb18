"""Variables in a compose file ($VAR, ${VAR:-default} ...), and the .env file that some of them come from.

https://docs.docker.com/reference/compose-file/interpolation/
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_DEEPEST = 16
_ENTRY = re.compile(r"\s*(?:export\s+)?([A-Za-z_][\w.-]*)\s*[=:](.*)", re.ASCII)
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\", "$": "$"}


class NotSetError(ValueError):
    """The text cannot be completed; the message says why in one line, and quotes names only."""


def interpolate(text: str, variables: Mapping[str, str], depth: int = 0) -> str:
    """The text with its variables replaced; one that is not set becomes empty. Raises NotSetError."""
    if "$" not in text:
        return text
    done, rest = "", text
    while (found := rest.find("$")) >= 0:
        done, rest = done + rest[:found], rest[found + 1 :]
        if rest.startswith("$"):
            done, rest = done + "$", rest[1:]
        elif rest.startswith("{"):
            inner = _braced(rest)
            done += _substituted(inner, variables, depth)
            rest = rest[len(inner) + 2 :]
        elif name := _NAME.match(rest):
            done += variables.get(name[0], "")
            rest = rest[name.end() :]
        else:
            raise NotSetError("a $ that starts no variable, where $$ would be a plain $")
    return done + rest


def _braced(text: str) -> str:
    """What stands between this brace and the one that closes it."""
    open_braces = 0
    for index, character in enumerate(text):
        if character == "{" and (index == 0 or text[index - 1] == "$"):
            open_braces += 1
        elif character == "}":
            open_braces -= 1
            if open_braces == 0:
                return text[1:index]
    raise NotSetError("a ${ without its }")


def _substituted(inner: str, variables: Mapping[str, str], depth: int) -> str:
    name = _NAME.match(inner)
    if name is None or depth > _DEEPEST:
        raise NotSetError("a ${ } that starts with no variable")
    value, rest = variables.get(name[0]), inner[name.end() :]
    if not rest:
        return value or ""
    operator = rest[:2] if rest.startswith(":") else rest[:1]
    given = bool(value) if operator.startswith(":") else value is not None
    word = rest[len(operator) :]
    match operator.removeprefix(":"):
        case "-":
            return value or "" if given else interpolate(word, variables, depth + 1)
        case "+":
            return interpolate(word, variables, depth + 1) if given else ""
        case "?" if given:
            return value or ""
        case "?":
            raise NotSetError(f"the variable {name[0]} is not set, and Compose refuses to start without it")
        case _:
            raise NotSetError("a ${ } that Compose does not know")


def parse_env_file(text: str, variables: Mapping[str, str]) -> dict[str, str]:
    """NAME=VALUE lines; values may use earlier ones, and `variables`, which win. Lines of another form are skipped."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        entry = _ENTRY.fullmatch(line)
        if entry is None or line.lstrip().startswith("#"):
            continue
        try:
            found[entry[1]] = env_value(entry[2], {**found, **variables})
        except NotSetError:
            continue
    return found


def env_value(raw: str, variables: Mapping[str, str]) -> str:
    """The value of one such line. Raises NotSetError."""
    raw = raw.strip()
    if raw.startswith("'") and (end := raw.find("'", 1)) > 0:
        return raw[1:end]
    if raw.startswith('"') and (closed := re.match(r'"((?:[^"\\]|\\.)*)"', raw)):
        plain = re.sub(r"\\(.)", lambda m: "$$" if m[1] == "$" else _ESCAPES.get(m[1], m[0]), closed[1])
        return interpolate(plain, variables)
    return interpolate(re.split(r"(?:^|\s)#", raw, maxsplit=1)[0].strip(), variables)
