"""A recording is anybody's: what netdiag itself would have written of the machine is derived again, or left out.

Names, rules and rows are the machine's, and data wherever they come from. But a recording also holds texts that are
netdiag's own: how it is called, how Compose is called, what a line of a file is to become, what a person may do to
learn more, what --from was given. Nothing else than netdiag's own may be said in its name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any, TypeVar

from msgspec import inspect
from msgspec.structs import replace

from diagnose.model.attempt import Attempt, BindAttempt, Drop
from diagnose.model.compose import ComposeProject, Listening, PortEntry, Reference, Service, Spot
from diagnose.model.container import EngineContainer
from diagnose.model.fact import Unknown
from diagnose.model.names import HostsFile
from diagnose.model.network import RouteLookup
from diagnose.model.process import Container
from diagnose.model.rule import RuleRef
from diagnose.model.side import Side
from diagnose.model.snapshot import Program, Snapshot, Vantage
from diagnose.model.target import Target
from diagnose.parse.compose_edit import HOST_GATEWAY
from diagnose.parse.compose_environment import listens_by, reference
from diagnose.parse.origin import BadOriginError, parse_origin
from diagnose.parse.target import BadTargetError, parse_target

LIFTS = frozenset(
    (
        "Linux 5.6 or newer",
        "Linux 5.8 or newer",
        "Linux 6.8 or newer",
        "allow it more than a second (--timeout)",
        "docker ps",
        "mount -t tracefs tracefs /sys/kernel/tracing, as root",
        "pip install netifaces2",
        "raise it (ulimit -u, ulimit -v)",
        "raise user.max_net_namespaces",
        "run again",
        "run again as root",
        "run again with sudo",
        "run again without --passive",
        "run it again with sudo",
        "run it as administrator",
        "run it on the host",
        "run it on the host as root",
        "run it on the host itself, with sudo",
        "sudo",
        "sudo netdiag run --passive",
    )
)
"""What the probes say would make a fact known: it tells a person to run something, so no recording adds to it."""

_ASKED = ("docker", "podman")
_ENGINES = frozenset((*_ASKED, "containerd", "cri-o", "kubernetes", "lxc", "systemd-nspawn", "unknown"))
"""As cgroups and mounts tell them (diagnose.parse.cgroup, diagnose.parse.container)."""
_NAMESPACE = re.compile(r"/proc/[1-9]\d{0,9}/ns/net|(?:/var)?/run/netns/[^/\s]{1,255}", re.ASCII)
_HOSTS = re.compile(
    r"/etc/hosts|[A-Za-z]:[\\/](?:[\w. -]{1,100}[\\/]){1,8}System32\\drivers\\etc\\hosts", re.ASCII | re.IGNORECASE
)


_ERRNO = re.compile(r"[A-Z][A-Z0-9_]{1,30}|errno \d{1,6}|\d{1,6}", re.ASCII)
_REASON = re.compile(r"[A-Za-z0-9_]{1,64}", re.ASCII)
"""Of enum skb_drop_reason, or its number where the kernel prints that."""
_FUNCTION = re.compile(r"[\w.+-]{0,128}(?: \[[\w-]{1,64}\])?", re.ASCII)
_FAMILIES = frozenset({"ip", "ip6", "inet", "arp", "bridge", "netdev"})


def as_foreign(snapshot: Snapshot) -> Snapshot:
    """The snapshot with nothing in it that only netdiag may say. Raises ValueError, in words for the user."""
    return _of_snapshots()(snapshot)  # type: ignore[no-any-return]


def _unknown(one: Unknown) -> Unknown:
    return one if one.lift is None or one.lift in LIFTS else replace(one, lift=None)


def _program(_one: Program) -> Program:
    """By its name: a path in a recording could be that of anything."""
    return Program()


def _vantage(one: Vantage) -> Vantage:
    if one.origin is not None:
        try:
            parse_origin(one.origin)
        except BadOriginError as error:
            raise ValueError(str(error)) from None
    return one


def _side(one: Side) -> Side:
    if one.namespace is not None and not _NAMESPACE.fullmatch(one.namespace):
        raise ValueError(f"{one.namespace!r} is no network namespace")
    return one


def _target(one: Target) -> Target:
    try:
        read = parse_target(one.address)
    except BadTargetError as error:
        raise ValueError(str(error)) from None
    named = one.service.service if one.service else None
    same = (read.service.service if read.service else None) == named if named else read.host == one.host
    if not same or one.address.startswith("-"):
        raise ValueError(f"{one.address!r} is not its target")
    return replace(one, input=_typed(one))


def _typed(one: Target) -> str:
    """What was typed, as netdiag shows it; where that is not this target, its address: it is the report's headline."""
    try:
        read = parse_target(one.input)
    except BadTargetError:
        return one.address
    if one.service is not None:
        if read.service is None or (read.service.service, read.service.port) != (one.service.service, one.service.port):
            raise ValueError(f"{one.input!r} is not its target")
        return read.input
    return read.input if (read.host, read.port, read.scheme) == (one.host, one.port, one.scheme) else one.address


def _attempt(one: Attempt) -> Attempt:
    return replace(one, errno=_symbol(one.errno, _ERRNO))


def _bind(one: BindAttempt) -> BindAttempt:
    return replace(one, errno=_symbol(one.errno, _ERRNO), plain_errno=_symbol(one.plain_errno, _ERRNO))


def _lookup(one: RouteLookup) -> RouteLookup:
    return replace(one, errno=_symbol(one.errno, _ERRNO))


def _drop(one: Drop) -> Drop:
    return replace(one, reason=_symbol(one.reason, _REASON), symbol=_symbol(one.symbol, _FUNCTION))


def _rule(one: RuleRef) -> RuleRef:
    if one.family not in _FAMILIES:
        raise ValueError(f"{one.family!r} is no family of rules")
    return one


S = TypeVar("S", str, str | None)


def _symbol(text: S, pattern: re.Pattern[str]) -> S:
    if text is not None and not pattern.fullmatch(text):
        raise ValueError(f"{text!r} is no name that the kernel gives")
    return text


def _hosts_file(one: HostsFile) -> HostsFile:
    if not _HOSTS.fullmatch(one.path):
        raise ValueError(f"{one.path!r} is no hosts file")
    return one


def _container(one: Container) -> Container:
    """An engine's name is its program's as well."""
    return one if one.engine in _ENGINES else replace(one, engine="unknown")


def _described(one: EngineContainer) -> EngineContainer:
    if one.container.engine not in _ASKED:
        raise ValueError(f"{one.container.engine!r} is no engine that netdiag asks")
    return one


# ------ compose: how it is called, and what a line of its files becomes


def _project(one: ComposeProject) -> ComposeProject:
    return replace(one, call=_call(one), services=tuple(_service(each, one) for each in one.services))


def _call(project: ComposeProject) -> tuple[str, ...]:
    """As netdiag calls it for these files and this name (probes.compose); empty for any other call."""
    files = tuple(word for file in project.files for word in ("-f", file))
    absolute = all(re.match(r"/|[A-Za-z]:[\\/]", file) and file.isprintable() for file in project.files)
    named = ("-p", project.name) if re.fullmatch(r"[a-z0-9][-_a-z0-9]*", project.name) else ()
    tools = (("docker", "compose"), ("docker-compose",))
    calls = {(*tool, *name, *files) for tool in tools for name in ((), named)}
    return project.call if absolute and project.files and project.call in calls else ()


_ENTRY = r"""["']?[\w.:\[\]${}-]*(?:/(?:tcp|udp))?["']?"""
_ITEM = re.compile(rf"\s*- {_ENTRY}\s*", re.ASCII)
_LONG = re.compile(r"""\s*(?:- )?(?:target|published|host_ip|protocol|mode): ["']?[\w.:]*["']?\s*""", re.ASCII)
_FLOW = re.compile(rf"\s*(?:ports|extra_hosts): \[\s*{_ENTRY}(?:\s*,\s*{_ENTRY})*\s*\]\s*", re.ASCII)
_HOST = re.compile(rf"\s*(?:- )?[\"']?{re.escape(HOST_GATEWAY[0])}: ?[\"']?{HOST_GATEWAY[1]}[\"']?\s*")
_VARIABLE = re.compile(
    r"""\s*(?:- |export )?(["']?)(\w{1,100})\1?(?:: ?|=)(["']?)([\w.+:/@?=&%,~\[\]*-]*)\3\1?\s*""", re.ASCII
)
_LONGEST = 1000


def _service(one: Service, project: ComposeProject) -> Service:
    """Without the places of which a recording alone says what stands there; the prose names the line all the same."""
    keys = ("ports", "extra_hosts", one.name)
    piece = one.extra_host_piece
    of_engine = piece in (":".join(HOST_GATEWAY), f'{HOST_GATEWAY[0]}: "{HOST_GATEWAY[1]}"')
    return replace(
        one,
        ports=tuple(_entry(each, project) for each in one.ports),
        port_spot=_spot(one.port_spot, "127.0.0.1:1:1", project, keys),
        extra_host_spot=_spot(one.extra_host_spot, piece, project, keys) if of_engine else None,
        extra_host_piece=piece if of_engine else "",
        references=tuple(_reference(each, project) for each in one.references),
        listening=tuple(each for each in one.listening if _listens(each, project)),
    )


def _entry(one: PortEntry, project: ComposeProject) -> PortEntry:
    return replace(
        one,
        container_spot=_spot(one.container_spot, "1", project),
        host_spot=_spot(one.host_spot, "1", project),
        address_spot=_spot(one.address_spot, "127.0.0.1", project),
        entry_spot=_spot(one.entry_spot, "127.0.0.1:1:1", project),
    )


def _spot(one: Spot | None, piece: str, project: ComposeProject, keys: tuple[str, ...] = ()) -> Spot | None:
    """The spot where each line of what it makes is an entry of a list of ports or hosts, or the bare key above it."""
    if one is None or not _has(project, one):
        return None
    lines = one.holding(piece).split("\n")
    bare = rf"\s*[\"']?(?:{'|'.join(map(re.escape, keys))})[\"']?:\s*" if keys else "(?!)"
    fit = all(
        re.fullmatch(bare, line) or any(form.fullmatch(line) for form in (_ITEM, _LONG, _FLOW, _HOST)) for line in lines
    )
    return one if fit and len(lines) <= 3 else None


def _has(project: ComposeProject, one: Spot) -> bool:
    """Whether the file is the project's, and the line no longer than one that is shown."""
    short = len(one.before) + len(one.after) <= _LONGEST
    return short and (one.file in project.files or one.file == f"{project.directory.rstrip('/')}/.env")


def _reference(one: Reference, project: ComposeProject) -> Reference:
    """With its spot where the line, read again, is that variable and names that host and port."""
    spot = one.spot
    if spot is None:
        return one
    found = _variable(spot, one.naming(one.host or "", one.port or 0), project)
    again = reference(one.variable, found[1], found[1], spot, one.file, one.line) if found else None
    same = found is not None and again is not None and found[0] == one.variable
    named = same and again is not None and (again.host, again.port) == (one.host, one.port)
    return one if named else replace(one, spot=None)


def _listens(one: Listening, project: ComposeProject) -> bool:
    """Whether the line, read again, is a variable by which a server is told where to listen."""
    found = _variable(one.spot, "127.0.0.1", project)
    return one.piece == "0.0.0.0" and found is not None and listens_by(*found, found[1], one.spot) is not None


def _variable(spot: Spot, piece: str, project: ComposeProject) -> tuple[str, str] | None:
    """Name and value of the one variable that the line sets."""
    found = _VARIABLE.fullmatch(spot.holding(piece)) if _has(project, spot) else None
    return (found[2], found[4]) if found else None


# ------ everywhere in a snapshot

_OURS: Mapping[type, Callable[[Any], Any]] = {
    Unknown: _unknown,
    Program: _program,
    Vantage: _vantage,
    Side: _side,
    Target: _target,
    HostsFile: _hosts_file,
    Container: _container,
    EngineContainer: _described,
    ComposeProject: _project,
    Attempt: _attempt,
    BindAttempt: _bind,
    RouteLookup: _lookup,
    Drop: _drop,
    RuleRef: _rule,
}
_Again = Callable[[Any], Any]
"""The value as it may stand; itself where nothing is to be changed."""


@cache
def _of_snapshots() -> _Again:
    found = _again(inspect.type_info(Snapshot))
    assert found is not None
    return found


def _again(info: inspect.Type) -> _Again | None:
    """None: values of this type hold nothing of ours."""
    match info:
        case inspect.VarTupleType(item_type=item):
            return _of_items(_again(item))
        case inspect.UnionType(types=kinds):
            return _of_either(kinds)
        case inspect.StructType(cls=kind, fields=fields):
            return _of_fields(getattr(kind, "__origin__", kind), fields)
        case _:
            return None


def _of_items(item: _Again | None) -> _Again | None:
    return None if item is None else lambda values: tuple(map(item, values))


def _of_either(kinds: tuple[inspect.Type, ...]) -> _Again | None:
    """By the class of the value; a list is the only one of its union."""
    found = {_class_of(kind): again for kind in kinds if (again := _again(kind)) is not None}
    return (lambda value: found.get(type(value), _itself)(value)) if found else None


def _class_of(info: inspect.Type) -> type:
    return getattr(info.cls, "__origin__", info.cls) if isinstance(info, inspect.StructType) else tuple


def _itself(value: Any) -> Any:
    return value


def _of_fields(kind: type, fields: tuple[inspect.Field, ...]) -> _Again | None:
    found = tuple((one.name, inner) for one in fields if (inner := _again(one.type)) is not None)
    whole = _OURS.get(kind)
    if whole is None and not found:
        return None

    def again(value: Any) -> Any:
        changes = dict(_changes(value, found))
        changed = replace(value, **changes) if changes else value
        return whole(changed) if whole is not None else changed

    return again


def _changes(value: Any, fields: tuple[tuple[str, _Again], ...]) -> Iterator[tuple[str, Any]]:
    for name, again in fields:
        old = getattr(value, name)
        new = again(old)
        if new is not old and new != old:
            yield name, new
