"""compose:SERVICE:PORT -> what to dial for it, by the engine's word before the compose file's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import ip_address

from msgspec.structs import replace

from diagnose.model.compose import ComposeProject, PortEntry, Service
from diagnose.model.container import Engine, EngineContainer, Published, Status
from diagnose.model.fact import Fact, Known, Unknown
from diagnose.model.network import is_wildcard
from diagnose.model.target import Intent, ServicePort, Standing, Target

_WITH_PORTS = (Status.RUNNING, Status.PAUSED)
"""A paused container keeps its published ports."""
_AT_MOST = 12
"""Names that one line lists."""


class NotLocatedError(LookupError):
    """There is no such service, or no port of this host stands for it; the message is one line for the user."""


def located(target: Target, intent: Intent, project: Fact[ComposeProject | None], engines: Sequence[Engine]) -> Target:
    """The target with the host and port to dial, or to bind. Raises NotLocatedError."""
    asked = target.service
    if asked is None:
        return target
    known = project.value if isinstance(project, Known) else None
    containers = _of_service(engines, asked.service, known)
    named = {one.compose.project for one in containers if one.compose}
    if len(named) > 1:
        raise NotLocatedError(
            f"a service {asked.service!r} is in the projects {_listed(named)}: call netdiag in the directory of one"
        )
    service = known.service(asked.service) if known else None
    if service is None and not containers:
        raise NotLocatedError(_unknown(asked, project, engines))
    asked = replace(asked, project=known.name if known else next(iter(named)))
    if intent is Intent.BIND:
        return _to_bind(replace(target, service=asked), known, service, containers)
    return _to_dial(replace(target, service=asked), known, service, containers, engines)


def seen_from_inside(target: Target) -> Target:
    """In a container the service is reached by its own name and the container's own port."""
    if target.service is None:
        return target
    return replace(target, service=replace(target.service, standing=Standing.INSIDE))


def _of_service(engines: Iterable[Engine], service: str, project: ComposeProject | None) -> tuple[EngineContainer, ...]:
    return tuple(
        one
        for one in everyone(engines)
        if one.compose and one.compose.service == service and (project is None or one.compose.project == project.name)
    )


def everyone(engines: Iterable[Engine]) -> tuple[EngineContainer, ...]:
    """The containers of all engines that told of them."""
    return tuple(one for engine in engines if isinstance(engine.containers, Known) for one in engine.containers.value)


def _to_dial(
    target: Target,
    project: ComposeProject | None,
    service: Service | None,
    containers: Sequence[EngineContainer],
    engines: Sequence[Engine],
) -> Target:
    assert target.service is not None
    port = target.service.port
    running = [one for one in containers if one.status in _WITH_PORTS]
    for one in running:
        for place in _published(one, port, engines):
            return _standing(target, Standing.PUBLISHED, place.address, place.port)
    if running:
        return _standing(target, Standing.UNPUBLISHED, "127.0.0.1", port)
    told = bool(engines) and all(isinstance(one.containers, Known) and not one.unseen for one in engines)
    declared = _declared(target.service, project, service) if service else None
    if containers or told:
        address, outside = declared or ("127.0.0.1", port)
        return _standing(target, Standing.STOPPED, address, outside or port)
    if declared is None:
        return _standing(target, Standing.UNDECLARED, "127.0.0.1", port)
    address, outside = declared
    if outside is None:
        raise NotLocatedError(
            f"the engine picks the port of this host for {target.input}, and no engine could be asked which: "
            f"docker port shows it, then netdiag run 127.0.0.1:PORT"
        )
    return _standing(target, Standing.DECLARED, address, outside)


def _to_bind(
    target: Target, project: ComposeProject | None, service: Service | None, containers: Sequence[EngineContainer]
) -> Target:
    assert target.service is not None
    port = target.service.port
    if service:
        declared = _declared(target.service, project, service, dialled=False)
        if declared and declared[1]:
            return _standing(target, Standing.DECLARED, declared[0], declared[1])
    for one in containers:
        for entry in one.published:
            if entry.container_port == port:
                return _standing(target, Standing.PUBLISHED, entry.address, entry.port)
    raise NotLocatedError(f"{target.input} is published on no known port of this host: there is none to bind")


def _standing(target: Target, standing: Standing, address: str, port: int) -> Target:
    assert target.service is not None
    return replace(target, host=address, port=port, service=replace(target.service, standing=standing))


def _published(one: EngineContainer, port: int, engines: Sequence[Engine]) -> list[Published]:
    """Where this host opens the container's port, as a client here dials it; IPv4 loopback first."""
    if one.network_mode == "host":
        return [Published("127.0.0.1", port, port)]
    if one.network_mode.startswith("container:"):
        other = one.network_mode.removeprefix("container:")
        lenders = (each for each in everyone(engines) if other in (each.container.id, each.container.name))
        return [entry for lender in lenders if lender is not one for entry in _entries(lender, port)]
    return _entries(one, port)


def _entries(one: EngineContainer, port: int) -> list[Published]:
    found = [replace(entry, address=dialled(entry.address)) for entry in one.published if entry.container_port == port]
    return sorted(found, key=lambda entry: (entry.address != "127.0.0.1", ":" in entry.address, entry))


def dialled(address: str) -> str:
    """The address by which a client on this host reaches what is published on this one."""
    try:
        parsed = ip_address(address or "0.0.0.0")
    except ValueError:
        return "127.0.0.1"
    if not is_wildcard(str(parsed)):
        return str(parsed)
    return "127.0.0.1" if parsed.version == 4 else "::1"


def _declared(
    asked: ServicePort, project: ComposeProject | None, service: Service, *, dialled: bool = True
) -> tuple[str, int | None] | None:
    """The address and port of this host that the file asks for; the port is None where the engine picks it."""
    if service.network_mode == "host":
        return ("127.0.0.1" if dialled else "0.0.0.0"), asked.port
    entry = declared_entry(project, service, asked.port)
    if entry is None:
        return None
    outside = entry.outside(asked.port)
    if dialled:
        return _client_address(entry), outside
    return entry.address or "0.0.0.0", outside


def _client_address(entry: PortEntry) -> str:
    return dialled(entry.address)


def declared_entry(project: ComposeProject | None, service: Service, port: int) -> PortEntry | None:
    """The entry of `ports:` for this port of the service; that of the service whose network it uses, where it does."""
    lender = service.network_mode.removeprefix("service:") if service.network_mode.startswith("service:") else ""
    giving = project.service(lender) if project and lender else service
    entries = giving.ports if giving else ()
    found = [one for one in entries if one.protocol == "tcp" and one.concerns(port)]
    return min(found, key=lambda one: (one.outside(port) is None, _client_address(one) != "127.0.0.1"), default=None)


def _unknown(asked: ServicePort, project: Fact[ComposeProject | None], engines: Sequence[Engine]) -> str:
    """Why there is no such service, and which there are."""
    match project:
        case Unknown() as unknown:
            return f"the Compose project of this directory cannot be read: {unknown}"
        case Known(value=None):
            there = {one.compose.service for one in everyone(engines) if one.compose}
            seen = f"; services with a container here: {_listed(there)}" if there else ""
            return (
                f"no compose.yaml is in this directory or above it, and no container of a service {asked.service!r} "
                f"was found{seen}"
            )
        case Known(value=found):
            names = {one.name for one in found.services} if found else set()
            file = found.files[0] if found and found.files else ""
            return f"{file} has no service {asked.service!r}; it has {_listed(names) or 'none'}"


def _listed(names: Iterable[str]) -> str:
    ordered = sorted(names)
    return ", ".join(ordered[:_AT_MOST]) + (f" and {len(ordered) - _AT_MOST} more" if len(ordered) > _AT_MOST else "")
