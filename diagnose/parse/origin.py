"""What the user typed after --from -> Origin."""

from __future__ import annotations

import re

from diagnose.model.side import OfContainer, OfNamespace, OfProcess, Origin

EXAMPLES = "for example: --from container:web, --from pid:4711 or --from netns:blue"

_CONTAINER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
"""The names that engines give (Docker's restrictedNameChars), and ids."""
_MOST_PIDS = 1 << 22
"""PID_MAX_LIMIT (linux/threads.h)."""
_LONGEST_NAME = 255


class BadOriginError(ValueError):
    """The text names no place to look from; the message is one line for the user."""


def parse_origin(text: str) -> Origin:
    """Reads container:NAME, pid:N or netns:NAME. Raises BadOriginError."""
    kind, colon, name = text.partition(":")
    if not colon or not name:
        raise BadOriginError(f"--from {text!r} names no place to look from; {EXAMPLES}")
    match kind:
        case "container":
            return _container(name)
        case "pid":
            return _process(name)
        case "netns":
            return _namespace(name)
        case _:
            raise BadOriginError(f"--from knows no {kind!r}; {EXAMPLES}")


def _container(name: str) -> OfContainer:
    if not _CONTAINER.fullmatch(name):
        raise BadOriginError(f"--from container:{name!r} is no name or id of a container; {EXAMPLES}")
    return OfContainer(name)


def _process(name: str) -> OfProcess:
    if not (name.isascii() and name.isdecimal() and 0 < len(name) <= 7 and 0 < int(name) <= _MOST_PIDS):
        raise BadOriginError(f"--from pid:{name!r} is no process number; {EXAMPLES}")
    return OfProcess(int(name))


def _namespace(name: str) -> OfNamespace:
    """What ip-netns(8) takes for a name; invalid_name, ip/ipnetns.c."""
    if "/" in name or name in (".", "..") or len(name) > _LONGEST_NAME or not name.isprintable():
        raise BadOriginError(f"--from netns:{name!r} is no name that `ip netns` lists; {EXAMPLES}")
    return OfNamespace(name)
