"""The command line of docker-proxy (cmd/docker-proxy/main_linux.go of moby)."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address

from diagnose.model.network import Endpoint


def ends(arguments: Sequence[str]) -> tuple[Endpoint, Endpoint] | None:
    """Where it listens and where it dials; None: it forwards no TCP, or that is no such command line."""
    options = _options(arguments)
    try:
        if options.get("proto", "tcp") != "tcp":
            return None
        return _end(options, "host"), _end(options, "container")
    except (KeyError, ValueError):
        return None


def _options(arguments: Sequence[str]) -> dict[str, str]:
    """Go's flags: -name value, -name=value, one dash or two; the last one counts."""
    found: dict[str, str] = {}
    rest = iter(arguments)
    for argument in rest:
        if argument.startswith("-"):
            name, equals, value = argument.lstrip("-").partition("=")
            if equals or name not in ("use-listen-fd", "version"):  # these take no value
                found[name] = value if equals else next(rest, "")
    return found


def _end(options: dict[str, str], side: str) -> Endpoint:
    port = int(options[f"{side}-port"])
    if not 0 < port < 65536:
        raise ValueError(f"{port} is no port")
    return Endpoint(str(ip_address(options[f"{side}-ip"])), port)
