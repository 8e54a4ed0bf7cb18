"""The Compose project of a directory: its files as Compose finds them, and how Compose itself is called here."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

from diagnose.model.compose import ComposeProject, Unread
from diagnose.model.container import ComposeService
from diagnose.model.fact import Fact, Known, Reason, Unknown
from diagnose.parse.interpolation import parse_env_file
from diagnose.probes import regular_file

if TYPE_CHECKING:
    from diagnose.parse.compose import ComposeFile

NAMES = ("compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml")
"""In the order in which Compose takes them (compose-go, cli.DefaultFileNames)."""
OVERRIDES = (
    "compose.override.yml",
    "compose.override.yaml",
    "docker-compose.override.yml",
    "docker-compose.override.yaml",
)
_LARGEST = 1 << 18
"""Bytes of a file that is read."""
_MOST_FILES = 32
_PLUGINS = (
    "~/.docker/cli-plugins",
    "/usr/local/lib/docker/cli-plugins",
    "/usr/local/libexec/docker/cli-plugins",
    "/usr/lib/docker/cli-plugins",
    "/usr/libexec/docker/cli-plugins",
)
"""Where docker looks for its plugins (docker/cli, cli-plugins/manager)."""


class _UnreadableError(Exception):
    """Why a file could not be read."""


class _Place(Struct, frozen=True):
    """Which files make the project, and what it is called, where that is said."""

    directory: str
    files: tuple[str, ...]
    name: str = ""
    viewer: int | None = None
    """The user who is shown files that a container's labels name, and must be allowed to read them; None: we are."""


def look(directory: str, environment: Mapping[str, str]) -> Fact[ComposeProject | None]:
    """The project that `docker compose` would take in this directory; None: there is none."""
    try:
        place = _found(directory, environment)
    except _UnreadableError as why:
        return Unknown(Reason.FAILED, str(why))
    return Known(None) if place is None else _project(place, environment)


def of_labels(services: Iterable[ComposeService], environment: Mapping[str, str]) -> Fact[ComposeProject | None]:
    """The project that these containers were made from, by the files that their labels name; None: no label does."""
    for service in services:
        files = tuple(os.path.normpath(os.path.join(service.directory or "/", one)) for one in service.files)
        if files:
            directory = service.directory or os.path.dirname(files[0])
            return _project(_Place(directory, files, service.project, _viewer()), environment)
    return Known(None)


def _found(directory: str, environment: Mapping[str, str]) -> _Place | None:
    """By COMPOSE_FILE, else the first of the usual names here or in the nearest directory above, and its override."""
    settings = {**_dotenv(directory, environment), **environment}
    name = settings.get("COMPOSE_PROJECT_NAME", "")
    if given := settings.get("COMPOSE_FILE"):
        separator = settings.get("COMPOSE_PATH_SEPARATOR") or os.pathsep
        files = tuple(os.path.normpath(os.path.join(directory, one)) for one in given.split(separator) if one)
        return _Place(os.path.dirname(files[0]), files, name) if files else None
    for above in _upwards(directory):
        first = _first(above, NAMES)
        if first:
            override = _first(above, OVERRIDES)
            files = (first, override) if override else (first,)
            return _Place(above, files, {**_dotenv(above, environment), **settings}.get("COMPOSE_PROJECT_NAME", ""))
    return None


def _upwards(directory: str) -> Iterator[str]:
    while True:
        yield directory
        parent = os.path.dirname(directory)
        if parent == directory:
            return
        directory = parent


def _first(directory: str, names: Sequence[str]) -> str | None:
    paths = (os.path.join(directory, name) for name in names)
    return next((path for path in paths if os.path.exists(path)), None)


def _dotenv(directory: str, environment: Mapping[str, str], viewer: int | None = None) -> dict[str, str]:
    path = os.path.join(directory, ".env")
    there = os.path.exists(path) and not os.path.isdir(path)
    return parse_env_file(_text(path, viewer=viewer), environment) if there else {}


def _viewer() -> int | None:
    """The caller of sudo: labels are written by whoever made the container, and root could read any file."""
    caller = os.environ.get("SUDO_UID", "")
    return int(caller) if sys.platform != "win32" and os.geteuid() == 0 and caller.isdecimal() else None


def _project(place: _Place, environment: Mapping[str, str]) -> Fact[ComposeProject | None]:
    """Reads the files of the project and those that they refer to."""
    from diagnose.parse.compose import joined, parse_file  # and with it the YAML library
    from diagnose.parse.yaml_tree import YamlError

    path = place.directory
    try:
        variables = {**_dotenv(place.directory, environment, place.viewer), **environment}
        files = []
        for path in place.files:
            files.append(parse_file(path, _text(path, viewer=place.viewer), variables))
    except YamlError as error:
        return Unknown(Reason.UNPARSABLE, f"{path}: {error}")
    except _UnreadableError as error:
        return Unknown(Reason.FAILED, str(error))
    reading = _Reading(place, variables)
    others = reading.others([other for file in files for other in file.others])
    env_files = {one for file in (*files, *others.values()) for part in file.parts for one in part.env_files}
    services, unread = joined(files, others, reading.texts(env_files))
    usual = normalized(next((file.name for file in reversed(files) if file.name), None) or _base(place.directory))
    name = normalized(place.name) or usual
    return Known(
        ComposeProject(
            name=name,
            directory=place.directory,
            files=place.files,
            services=services,
            unread=tuple(sorted({*unread, *reading.unread})),
            call=_call(place.files, name if name != usual else ""),
        )
    )


def normalized(name: str) -> str:
    """The name as Compose makes it: lower case letters, digits, - and _, the first a letter or digit."""
    return re.sub(r"[^-_a-z0-9]", "", name.lower()).lstrip("-_")


def _base(directory: str) -> str:
    return os.path.basename(os.path.abspath(directory))


class _Reading:
    """The files that the project's own files refer to, as far as they lie below its directory."""

    def __init__(self, place: _Place, variables: Mapping[str, str]) -> None:
        self._root = os.path.realpath(place.directory)
        self._viewer = place.viewer
        self._variables = variables
        self.unread: list[Unread] = []

    def others(self, wanted: list[str]) -> dict[str, ComposeFile]:
        """Those that are included or extended, and those that they themselves include and extend."""
        from diagnose.parse.compose import parse_file
        from diagnose.parse.yaml_tree import YamlError

        found: dict[str, ComposeFile] = {}
        seen: set[str] = set()
        while wanted:
            path = wanted.pop(0)
            if path in seen:
                continue
            seen.add(path)
            try:
                found[path] = parse_file(path, self._below(path, len(seen)), self._variables)
                wanted += found[path].others
            except (YamlError, _UnreadableError) as error:
                self.unread.append(Unread(path, None, str(error)))
        return found

    def texts(self, paths: Iterable[str]) -> dict[str, str]:
        """The text of each that could be read."""
        found: dict[str, str] = {}
        for number, path in enumerate(sorted(paths), start=1):
            try:
                found[path] = self._below(path, number)
            except _UnreadableError as error:
                self.unread.append(Unread(path, None, str(error)))
        return found

    def _below(self, path: str, number: int) -> str:
        if number > _MOST_FILES:
            raise _UnreadableError(f"more than {_MOST_FILES} files")
        if "://" in path:
            raise _UnreadableError("it lies outside of the project's directory")
        return _text(path, self._root, self._viewer)


def _text(path: str, below: str | None = None, viewer: int | None = None) -> str:
    """The file's text, if it is a regular one of a reasonable size; whatever else stands there is not opened."""
    try:
        data = regular_file.read_of_others(path, _LARGEST, below, viewer)
    except OSError as error:
        raise _UnreadableError(f"{path}: {error.strerror}") from None
    except ValueError:
        raise _UnreadableError("its name holds a NUL") from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise _UnreadableError(f"{path} is no UTF-8 text") from None


def _call(files: Sequence[str], name: str) -> tuple[str, ...]:
    """The plugin where docker has it, else the program of its own; with the files, so that it works from anywhere."""
    if sys.platform == "win32":
        plugins = [os.path.expandvars(r"%ProgramFiles%\Docker\cli-plugins\docker-compose.exe")]
    else:
        plugins = [os.path.join(os.path.expanduser(folder), "docker-compose") for folder in _PLUGINS]
    if shutil.which("docker") and any(os.access(one, os.X_OK) for one in plugins):
        tool: tuple[str, ...] = ("docker", "compose")
    elif shutil.which("docker-compose"):
        tool = ("docker-compose",)
    else:
        return ()
    named = ("-p", name) if name else ()
    return (*tool, *named, *(word for file in files for word in ("-f", file)))
