"""Environment variables that say where to connect to, or where to listen."""

from __future__ import annotations

import re

from diagnose.model.compose import Listening, Reference, Spot
from diagnose.parse.harmless import is_host

_HOST = r"\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9_][\w.-]{0,252}"
_URL = re.compile(
    rf"(?:jdbc:)?([A-Za-z][A-Za-z0-9+.-]{{0,30}})://(?:[^/?#]*@)?({_HOST})(?::(\d{{1,5}}))?(?=[/?#,;]|$)", re.ASCII
)
_AUTHORITY = re.compile(rf"({_HOST}):(\d{{1,5}})", re.ASCII)
_ALONE = re.compile(_HOST, re.ASCII)
_WORDS = re.compile(
    r"(?:^|[;\s])(?:host|server|data source|address|addr)=([\w.-]+)(?:,(\d{1,5}))?", re.IGNORECASE | re.ASCII
)
_WORDS_PORT = re.compile(r"(?:^|[;\s])port=(\d{1,5})", re.IGNORECASE | re.ASCII)
_HOST_NAME = re.compile(
    r"(?:^|[_.]|[a-z]|PG|DB)(?:HOST|HOSTNAME|SERVER|ADDR|ADDRESS|ENDPOINT|URL|URI|BROKER)S?$", re.IGNORECASE
)
_PORT_NAME = re.compile(r"PORT$", re.IGNORECASE)
_LISTENS = re.compile(
    r"(?:.*_)?(?:BIND|LISTEN|BINDING)(?:_(?:ADDR|ADDRESS|HOST|IP|ON))?"
    r"|HOST|HOSTNAME|ADDR|ADDRESS|FLASK_RUN_HOST|UVICORN_HOST|NUXT_HOST|NITRO_HOST|VITE_HOST|SERVER_ADDRESS"
    r"|GRADIO_SERVER_NAME|STREAMLIT_SERVER_ADDRESS|JUPYTER_IP|ASPNETCORE_URLS",
    re.IGNORECASE,
)
"""Read by servers as the address to listen on (HOST by Express, Vite, Rails, Next ...)."""
LOOPBACK = r"(?:localhost|127(?:\.\d{1,3}){3}|\[?::1\]?)"
_LOOPBACK = re.compile(LOOPBACK, re.IGNORECASE)
_BIND_VALUE = re.compile(rf"(?:https?://|tcp://)?({LOOPBACK})(?::\d{{1,5}})?/?", re.IGNORECASE)

_TOKEN = re.compile(r"[\w+=-]{20,}", re.ASCII)
"""What may be a key in a URL's path or user."""


def reference(name: str, value: str, raw: str, spot: Spot | None, file: str, line: int) -> Reference | None:
    """What the variable names; `spot` is the place of `raw`, the value as it is written."""
    host, port, scheme = _names(name, value)
    if host is None and port is None:
        return None
    written = ":".join(part for part in (host, str(port) if port is not None else None) if part)
    return Reference(
        variable=name,
        file=file,
        line=line,
        host=host.strip("[]") if host else None,
        port=port,
        scheme=scheme,
        spot=_narrowed(spot, raw, written),
    )


def _names(name: str, value: str) -> tuple[str | None, int | None, str | None]:
    """Host, port and scheme that the value names."""
    if url := _URL.match(value):
        return url[2], _port(url[3]), url[1].lower()
    if authority := _AUTHORITY.fullmatch(value):
        return authority[1], _port(authority[2]), None
    if words := _WORDS.search(value):
        port = words[2] or (found[1] if (found := _WORDS_PORT.search(value)) else None)
        return words[1], _port(port), None
    # what else a variable of such a name holds may be a token
    if _HOST_NAME.search(name) and _ALONE.fullmatch(value) and is_host(value.strip("[]")):
        return value, None, None
    if _PORT_NAME.search(name) and value.isascii() and value.isdigit():
        return None, _port(value), None
    return None, None, None


def _port(text: str | None) -> int | None:
    number = int(text) if text and len(text) <= 5 else 0
    return number if 1 <= number <= 65535 else None


def _narrowed(spot: Spot | None, raw: str, written: str) -> Spot | None:
    """The spot of these words alone, where the raw value has them once, as a host or a port stands."""
    if spot is None:
        return None
    found = list(re.finditer(rf"(?:^|(?<=@)|(?<=//)){re.escape(written)}(?=[/?#,;]|$)", raw))
    if len(found) != 1:
        return None
    start, end = found[0].span()
    if _TOKEN.search(raw[:start]) or _TOKEN.search(raw[end:]):
        return None
    return Spot(spot.file, spot.line, spot.before + raw[:start], raw[end:] + spot.after)


def listens_by(name: str, value: str, raw: str, spot: Spot | None) -> Listening | None:
    """A variable that makes a server listen on the container's own loopback only."""
    if spot is None or not _LISTENS.fullmatch(name) or not _BIND_VALUE.fullmatch(value):
        return None
    found = _LOOPBACK.search(raw)
    if found is None or "$" in raw:
        return None
    start, end = found.span()
    return Listening(Spot(spot.file, spot.line, spot.before + raw[:start], raw[end:] + spot.after), "0.0.0.0")
