"""The text of compose files -> the services that they describe (the Compose specification, compose-spec.io)."""

from __future__ import annotations

import os.path
import re
from collections.abc import Iterator, Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from diagnose.model.compose import Listening, PortEntry, Reference, Service, Spot, Unread
from diagnose.parse import yaml_tree as tree
from diagnose.parse.compose_edit import Source, adds_entry, adds_host, piece_spot, scalar_spot
from diagnose.parse.compose_environment import listens_by, reference
from diagnose.parse.compose_listening import in_command
from diagnose.parse.interpolation import NotSetError, interpolate
from diagnose.parse.yaml_tree import Node, Pair, Scalar, YamlError, parse_yaml

_MOST_MERGES = 10_000
"""Mappings taken in by << in one file: a bomb has more, no real file has."""
_MOST_EXTENDS = 16
_RANGE = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?")
_OVERRIDE, _RESET = "!override", "!reset"


class Extends(Struct, frozen=True):
    """Another service whose description this one starts from; the file is None where it is the same."""

    file: str | None
    service: str


class Part(Struct, frozen=True, kw_only=True):
    """What one file says of a service."""

    service: Service
    replaced: frozenset[str] = frozenset()
    """Keys that take nothing over from the files before."""
    extends: Extends | None = None
    env_files: tuple[str, ...] = ()
    commanded: tuple[Listening, ...] | None = None
    """By its command, on which address to listen; None: it gives no command."""


class ComposeFile(Struct, frozen=True, kw_only=True):
    """One file, not yet joined with others."""

    path: str
    name: str | None = None
    parts: tuple[Part, ...] = ()
    includes: tuple[str, ...] = ()
    unread: tuple[Unread, ...] = ()

    @property
    def others(self) -> tuple[str, ...]:
        """The files that it refers to: included, or with a service that it extends."""
        extended = (part.extends.file for part in self.parts if part.extends and part.extends.file)
        return tuple(dict.fromkeys((*self.includes, *extended)))


def parse_file(path: str, text: str, variables: Mapping[str, str]) -> ComposeFile:
    """Reads one file; what it refers to is named only. Raises YamlError."""
    return _File(path, text, variables).read()


class _File:
    """One file while it is read."""

    def __init__(self, path: str, text: str, variables: Mapping[str, str]) -> None:
        self.path = path
        self.variables = variables
        self.source = Source(path, tree.lines_of(text))
        self.unread: list[Unread] = []
        self._root = parse_yaml(text)
        self._merges = 0

    def read(self) -> ComposeFile:
        if not isinstance(self._root, tree.Mapping):
            raise YamlError("it is no mapping with services in it" if self._root else "it is empty")
        top = self.pairs(self._root)
        parts: list[Part] = []
        services = top.get("services")
        if services and isinstance(services.value, tree.Mapping):
            for key, value in services.value.pairs:
                if not _is_merge(key):
                    parts += self._part(key, value)
            self.pairs(services.value)  # refuses a service that is there twice
        elif services and not _is_null(services.value):
            raise YamlError(f"line {services.key.start.line}: services is no mapping")
        name = top.get("name")
        return ComposeFile(
            path=self.path,
            name=self.text(name.value) if name else None,
            parts=tuple(parts),
            includes=tuple(self._includes(top["include"].value)) if "include" in top else (),
            unread=tuple(self.unread),
        )

    # nodes

    def pairs(self, node: tree.Mapping) -> dict[str, Pair]:
        """The mapping's own pairs, over those that << brings."""
        own: dict[str, Pair] = {}
        merged: dict[str, Pair] = {}
        for key, value in node.pairs:
            if _is_merge(key):
                for pair in self._merged(value):
                    merged.setdefault(pair.key.value, replace(pair, inherited=True))
            elif key.value in own:
                raise YamlError(f"line {key.start.line}: the same key twice in one mapping")
            else:
                own[key.value] = Pair(key, value, inherited=_shared(key, value))
        return merged | own

    def _merged(self, node: Node) -> Iterator[Pair]:
        for one in node.items if isinstance(node, tree.Sequence) else (node,):
            self._merges += 1
            if self._merges > _MOST_MERGES:
                raise YamlError(f"line {node.start.line}: more than {_MOST_MERGES} merges")
            if isinstance(one, tree.Mapping):
                yield from self.pairs(one).values()

    def text(self, node: Node) -> str | None:
        """A scalar with its variables replaced; None: it is none, or cannot be completed, which is noted."""
        if not isinstance(node, Scalar) or node.null:
            return None
        try:
            return interpolate(node.value, self.variables)
        except NotSetError as error:
            self.note(node, str(error))
            return None

    def note(self, node: Node, why: str) -> None:
        """Something that is not known of the project."""
        self.unread.append(Unread(self.path, node.start.line, why))

    def texts(self, node: Node) -> Iterator[str]:
        """The scalars of a list, or the keys of a mapping."""
        match node:
            case tree.Sequence(items=items):
                yield from (text for item in items if (text := self.text(item)) is not None)
            case tree.Mapping():
                yield from self.pairs(node)
            case Scalar():
                text = self.text(node)
                if text is not None:
                    yield text

    def beside(self, path: str) -> str:
        """A path that the file names, from its own directory; what is fetched from elsewhere as it is."""
        if "://" in path:
            return path
        return os.path.normpath(os.path.join(os.path.dirname(self.path), path))

    # a service

    def _part(self, key: Scalar, node: Node) -> Iterator[Part]:
        if not isinstance(node, tree.Mapping) and not _is_null(node):
            self.note(key, f"the service {key.value} is no mapping")
            return
        found = self.pairs(node) if isinstance(node, tree.Mapping) else {}
        own = Pair(key, node, inherited=_shared(key, node))
        ports, hosts = found.get("ports"), found.get("extra_hosts")
        environment = list(self._environment(found["environment"])) if "environment" in found else []
        command = next((found[name] for name in ("command", "entrypoint") if name in found), None)
        spot, piece = adds_host(self.source, own, hosts)
        service = Service(
            name=key.value,
            file=self.path,
            line=key.start.line,
            image=_repository(self._named(found, "image")),
            container_name=self._named(found, "container_name"),
            ports=tuple(self._ports(ports)) if ports else (),
            port_spot=adds_entry(self.source, own, ports, "ports"),
            expose=tuple(self._exposed(found["expose"].value)) if "expose" in found else (),
            network_mode=self._named(found, "network_mode"),
            networks=tuple(self.texts(found["networks"].value)) if "networks" in found else (),
            aliases=tuple(self._aliases(found["networks"].value)) if "networks" in found else (),
            extra_hosts=tuple(self._extra_hosts(hosts.value)) if hosts else (),
            extra_host_spot=spot,
            extra_host_piece=piece,
            references=tuple(one for one in environment if isinstance(one, Reference)),
            listening=tuple(one for one in environment if isinstance(one, Listening)),
            depends_on=tuple(self.texts(found["depends_on"].value)) if "depends_on" in found else (),
            healthcheck="healthcheck" in found,
            profiles=tuple(self.texts(found["profiles"].value)) if "profiles" in found else (),
        )
        yield Part(
            service=service,
            replaced=frozenset(name for name, pair in found.items() if pair.value.tag in (_OVERRIDE, _RESET)),
            extends=self._extends(found["extends"].value) if "extends" in found else None,
            env_files=tuple(self._env_files(found["env_file"].value)) if "env_file" in found else (),
            commanded=tuple(in_command(self.source, command)) if command else None,
        )

    def _named(self, found: Mapping[str, Pair], key: str) -> str:
        return (self.text(found[key].value) or "") if key in found else ""

    def _extends(self, node: Node) -> Extends | None:
        match node:
            case Scalar():
                service = self.text(node)
                return Extends(None, service) if service else None
            case tree.Mapping():
                found = self.pairs(node)
                service = self._named(found, "service")
                file = self._named(found, "file")
                return Extends(self.beside(file) if file else None, service) if service else None
            case _:
                return None

    def _includes(self, node: Node) -> Iterator[str]:
        """Paths; of an entry with a directory or variables of its own, only that it is not followed."""
        for item in node.items if isinstance(node, tree.Sequence) else ():
            if isinstance(item, tree.Mapping):
                found = self.pairs(item)
                if "env_file" in found or "project_directory" in found:
                    self.note(item, "an include with an env_file or project_directory of its own")
                elif "path" in found:
                    yield from map(self.beside, self.texts(found["path"].value))
            else:
                yield from map(self.beside, self.texts(item))

    def _env_files(self, node: Node) -> Iterator[str]:
        for item in node.items if isinstance(node, tree.Sequence) else (node,):
            if isinstance(item, tree.Mapping):
                path = self._named(self.pairs(item), "path")
                yield from [self.beside(path)] if path else []
            else:
                yield from map(self.beside, self.texts(item))

    def _aliases(self, node: Node) -> Iterator[str]:
        for pair in self.pairs(node).values() if isinstance(node, tree.Mapping) else ():
            of_network = self.pairs(pair.value) if isinstance(pair.value, tree.Mapping) else {}
            if "aliases" in of_network:
                yield from self.texts(of_network["aliases"].value)

    def _extra_hosts(self, node: Node) -> Iterator[str]:
        for text in self.texts(node):
            yield re.split(r"[:=]", text, maxsplit=1)[0]

    def _exposed(self, node: Node) -> Iterator[int]:
        for text in self.texts(node) if isinstance(node, tree.Sequence) else ():
            bounds = _RANGE.fullmatch(text.removesuffix("/tcp"))
            if bounds:
                yield from range(int(bounds[1]), min(int(bounds[2] or bounds[1]), int(bounds[1]) + 1000) + 1)

    def _environment(self, pair: Pair) -> Iterator[Reference | Listening]:
        node = pair.value
        several = isinstance(node, (tree.Mapping, tree.Sequence)) and node.flow
        for name, value, scalar, offset, inherited in self._variables(node):
            shared = pair.inherited or inherited or several
            raw = scalar.value[offset:]
            spot = None if shared else piece_spot(self.source, scalar, offset, len(scalar.value))
            listening = listens_by(name, value, raw, spot)
            found = listening or reference(name, value, raw, spot, self.path, scalar.start.line)
            if found:
                yield found

    def _variables(self, node: Node) -> Iterator[tuple[str, str, Scalar, int, bool]]:
        """Name, value, the scalar that the value stands in and from which character on, and whether others share it."""
        match node:
            case tree.Mapping():
                for name, pair in self.pairs(node).items():
                    value = self.text(pair.value)
                    if value is not None and isinstance(pair.value, Scalar):
                        yield name, value, pair.value, 0, pair.inherited
            case tree.Sequence(items=items):
                for item in items:
                    text = self.text(item)
                    if text is not None and isinstance(item, Scalar) and "=" in item.value:
                        name, _, value = text.partition("=")
                        yield name, value, item, item.value.index("=") + 1, item.start < node.start
            case Scalar():
                return

    # ports

    def _ports(self, pair: Pair) -> Iterator[PortEntry]:
        if not isinstance(pair.value, tree.Sequence):
            if not _is_null(pair.value):
                self.note(pair.value, "ports is no list")
            return
        if pair.value.tag == _RESET:
            return
        for item in pair.value.items:
            shared = pair.inherited or item.start < pair.value.start
            match item:
                case Scalar():
                    entry = self._short(item, shared=shared)
                case tree.Mapping():
                    entry = self._long(item, shared=shared)
                case _:
                    entry = None
            if entry:
                yield entry

    def _short(self, item: Scalar, *, shared: bool) -> PortEntry | None:
        """[[ADDRESS:]HOST:]CONTAINER[/PROTOCOL], each of the two ports a range perhaps."""
        text = self.text(item)
        if text is None:
            return None
        mapping, _, protocol = text.partition("/")
        pieces = _pieces(mapping)
        address = ":".join(pieces[:-2]).strip("[]")
        entry = _entry(self.path, item, pieces[-1], pieces[-2] if len(pieces) > 1 else "", address, protocol)
        if entry is None:
            self.note(item, "an entry of ports that is none")
            return None
        return entry if shared else _with_short_spots(self.source, item, entry, len(pieces))

    def _long(self, item: tree.Mapping, *, shared: bool) -> PortEntry | None:
        found = self.pairs(item)
        target, published = self._named(found, "target"), self._named(found, "published")
        entry = _entry(
            self.path, item, target, published, self._named(found, "host_ip"), self._named(found, "protocol")
        )
        if entry is None:
            self.note(item, "an entry of ports that is none")
            return None
        return entry if shared else _with_long_spots(self.source, item, found, entry)


def _repository(image: str) -> str:
    """The image without its tag and digest."""
    folder, slash, name = image.partition("@")[0].rpartition("/")
    return f"{folder}{slash}{name.partition(':')[0]}"


def _is_merge(key: Scalar) -> bool:
    return key.value == "<<" and not key.style


def _is_null(node: Node) -> bool:
    return isinstance(node, Scalar) and node.null


def _shared(key: Scalar, value: Node) -> bool:
    """Whether the value is an alias: its text stands before its key."""
    return value.start < key.start


def _pieces(mapping: str) -> list[str]:
    """Split at the colons that stand neither in [] nor in ${}."""
    pieces, depth = [""], 0
    for character in mapping:
        depth += (character in "[{") - (character in "]}")
        if character == ":" and depth <= 0:
            pieces.append("")
        else:
            pieces[-1] += character
    return pieces


def _entry(path: str, node: Node, inside: str, outside: str, address: str, protocol: str) -> PortEntry | None:
    container, host = _RANGE.fullmatch(inside), _RANGE.fullmatch(outside)
    if container is None or (outside and host is None):
        return None
    first, last = int(container[1]), int(container[2] or container[1])
    low = int(host[1]) if host else 0
    high = int(host[2] or host[1]) if host else 0
    if not (0 < first <= last <= 65535 and low <= high <= 65535):
        return None
    if host and last > first and high - low != last - first:
        return None
    return PortEntry(
        file=path,
        line=node.start.line,
        container_port=first,
        host_port=low or None,  # 0 asks for any, as an empty one does
        count=last - first + 1,
        choices=high - low + 1 if host and first == last else 1,
        address=address,
        protocol=protocol or "tcp",
    )


def _with_short_spots(source: Source, item: Scalar, entry: PortEntry, pieces: int) -> PortEntry:
    """Each piece by its place in the text, if variables do not hide where one ends."""
    raw, _, _ = item.value.partition("/")
    found = _pieces(raw)
    whole = piece_spot(source, item, 0, len(item.value), quoted=True)
    if len(found) != pieces:
        return replace(entry, entry_spot=whole)
    container = len(raw) - len(found[-1])
    host = container - 1 - len(found[-2]) if pieces > 1 else 0
    single = entry.count == entry.choices == 1
    address = None
    if pieces > 1:
        end = host - 1 if pieces > 2 else 0
        address = piece_spot(source, item, 0, end, quoted=True, behind="" if pieces > 2 else ":")
    return replace(
        entry,
        container_spot=piece_spot(source, item, container, len(raw)) if single else None,
        host_spot=piece_spot(source, item, host, container - 1, quoted=True) if single and pieces > 1 else None,
        address_spot=address,
        entry_spot=whole,
    )


def _with_long_spots(source: Source, item: tree.Mapping, found: Mapping[str, Pair], entry: PortEntry) -> PortEntry:
    single = entry.count == entry.choices == 1
    target = found["target"]
    return replace(
        entry,
        container_spot=scalar_spot(source, target.value) if single and not target.inherited else None,
        host_spot=_long_spot(source, item, found, "published") if single else None,
        address_spot=_long_spot(source, item, found, "host_ip"),
    )


def _long_spot(source: Source, item: tree.Mapping, found: Mapping[str, Pair], key: str) -> Spot | None:
    """The value of the key, or where the key can be added behind the target."""
    if key in found:
        return None if found[key].inherited else scalar_spot(source, found[key].value)
    target = found["target"]
    line = source.line(target.key.start.line)
    if line is None or target.inherited or target.value.end.line != target.key.start.line:
        return None
    if item.flow:
        end = target.value.end.column
        return source.spot(target.key.start.line, f'{line[:end]}, {key}: "', f'"{line[end:]}')
    return source.spot(target.key.start.line, f'{line}\n{" " * target.key.start.column}{key}: "', '"')


# files together


def joined(
    files: Sequence[ComposeFile], others: Mapping[str, ComposeFile], env_files: Mapping[str, str]
) -> tuple[tuple[Service, ...], tuple[Unread, ...]]:
    """The services of the files, each over those before it, with what they include and extend, as far as it is there.

    `env_files` holds the text of those that services name.
    """
    join = _Join(others, env_files)
    for file in files:
        join.add(file, frozenset())
    vocabulary = {name for part in join.parts.values() for name in part.service.names}
    services = tuple(_finished(part, vocabulary) for _, part in sorted(join.parts.items()))
    return services, tuple(sorted(set(join.unread)))


class _Join:
    """The services while the files come together."""

    def __init__(self, others: Mapping[str, ComposeFile], env_files: Mapping[str, str]) -> None:
        self.parts: dict[str, Part] = {}
        self.unread: list[Unread] = []
        self._others = others
        self._env_files = env_files

    def add(self, file: ComposeFile, above: frozenset[str]) -> None:
        """Lays a file over what is there; `above` are the files that include it."""
        self.unread += file.unread
        for path in file.includes:
            if path in self._others and path not in above:
                self.add(self._others[path], above | {file.path, path})
        for part in file.parts:
            whole = self._with_env_files(self._extended(file, part, 0))
            before = self.parts.get(part.service.name)
            self.parts[part.service.name] = _over(before, whole) if before else whole

    def _extended(self, file: ComposeFile, part: Part, depth: int) -> Part:
        """The part over the service that it extends."""
        if part.extends is None:
            return part
        there = file if part.extends.file in (None, file.path) else self._others.get(part.extends.file or "")
        base = next((one for one in there.parts if one.service.name == part.extends.service), None) if there else None
        if there is None or base is None or depth > _MOST_EXTENDS:
            if there is not None:
                why = f"it extends the service {part.extends.service}, which is not there"
                self.unread.append(Unread(file.path, part.service.line, why))
            return part
        return _over(_borrowed(self._extended(there, base, depth + 1), part.service), part)

    def _with_env_files(self, part: Part) -> Part:
        """The variables that its env files set, under those of its own."""
        named = {one.variable for one in part.service.references}
        found: dict[str, Reference] = {}
        for path in part.env_files:
            for one in references_in(path, self._env_files.get(path, "")):
                if one.variable not in named:
                    found[one.variable] = one
        references = (*part.service.references, *found.values())
        return replace(part, service=replace(part.service, references=references))


def references_in(path: str, text: str) -> Iterator[Reference]:
    """The lines of an env file that name a host or a port."""
    lines = tree.lines_of(text)
    source = Source(path, lines)
    for number, line in enumerate(lines or (), start=1):
        name, equals, value = line.partition("=")
        plain = value.strip()
        if equals and not name.lstrip().startswith("#") and plain and not set(plain) & set("\"'$ #"):
            start = len(name) + 1 + value.index(plain)
            spot = source.spot(number, line[:start], line[start + len(plain) :])
            found = reference(name.removeprefix("export ").strip(), plain, plain, spot, path, number)
            if found:
                yield found


def _borrowed(part: Part, by: Service) -> Part:
    """What a service takes over from another: not its place, and no line of it is to be changed for this one's sake."""
    base = part.service
    service = replace(
        base,
        name=by.name,
        file=by.file,
        line=by.line,
        container_name="",
        ports=tuple(
            replace(one, container_spot=None, host_spot=None, address_spot=None, entry_spot=None) for one in base.ports
        ),
        port_spot=None,
        extra_host_spot=None,
        references=tuple(replace(one, spot=None) for one in base.references),
        listening=(),
    )
    return replace(part, service=service, extends=None, commanded=() if part.commanded is not None else None)


def _over(before: Part, after: Part) -> Part:
    """The two parts of a service as Compose merges them: lists add up, the later value wins."""
    old, new = before.service, after.service
    named = {one.variable for one in new.references}
    kept = () if "environment" in after.replaced else old.references
    return Part(
        service=replace(
            old,
            image=new.image or old.image,
            container_name=new.container_name or old.container_name,
            ports=new.ports if "ports" in after.replaced else (*old.ports, *new.ports),
            port_spot=old.port_spot or new.port_spot,
            expose=tuple(dict.fromkeys((*old.expose, *new.expose))),
            network_mode=new.network_mode or ("" if new.networks else old.network_mode),
            networks=tuple(dict.fromkeys((*old.networks, *new.networks))),
            aliases=tuple(dict.fromkeys((*old.aliases, *new.aliases))),
            extra_hosts=tuple(dict.fromkeys((*old.extra_hosts, *new.extra_hosts))),
            extra_host_spot=old.extra_host_spot or new.extra_host_spot,
            extra_host_piece=old.extra_host_piece if old.extra_host_spot else new.extra_host_piece,
            references=(*(one for one in kept if one.variable not in named), *new.references),
            listening=(*old.listening, *new.listening),
            depends_on=tuple(dict.fromkeys((*old.depends_on, *new.depends_on))),
            healthcheck=old.healthcheck or new.healthcheck,
            profiles=tuple(dict.fromkeys((*old.profiles, *new.profiles))),
        ),
        env_files=(*before.env_files, *after.env_files),
        commanded=before.commanded if after.commanded is None else after.commanded,
    )


_LOCAL = re.compile(r"localhost|127(?:\.\d{1,3}){3}|::1|0\.0\.0\.0|host\.(?:docker|containers)\.internal")


def _finished(part: Part, vocabulary: set[str]) -> Service:
    """The service; of what its variables hold only the words that are no secret: this machine, other services."""
    service = part.service
    return replace(
        service,
        references=tuple(
            one
            for one in service.references
            if one.host is None or one.host in vocabulary or _LOCAL.fullmatch(one.host)
        ),
        listening=(*(part.commanded or ()), *service.listening),
    )
