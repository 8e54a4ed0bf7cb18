"""What mends a broken link, in the terms of the engine: published on this machine only, never on the world."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from diagnose.analysis import compose
from diagnose.analysis.compose_target import declared_entry
from diagnose.analysis.publication import Publication, bridge_address, callable_name, container_name
from diagnose.analysis.wording import dial_instead
from diagnose.model.attempt import Attempt
from diagnose.model.container import EngineContainer, Published, Status
from diagnose.model.finding import Command, Remedy, Risk
from diagnose.model.network import Endpoint, is_wildcard
from diagnose.model.process import Container, Process
from diagnose.model.snapshot import Snapshot


class _Caller(NamedTuple):
    """Whose engine is asked, and by whom: root's own podman does not know the containers of another user's."""

    owner: int = 0
    reader: int = 0


_ROOT = _Caller()


def _engine(container: Container, *words: str, caller: _Caller = _ROOT) -> Command:
    """A command of the engine, which runs as root: a member of the group docker needs no sudo.

    An engine without root is asked by its user, or by root in that user's own service manager.
    """
    name = callable_name(container) or container_name(container)
    argv = (container.engine, *words, name)
    if caller.owner == 0:
        return Command(argv, needs_root=True)
    if caller.owner == caller.reader:
        return Command(argv)
    manager = ("systemd-run", f"--machine={caller.owner}@.host", "--user", "--quiet", "--wait", "--collect")
    return Command((*manager, *argv), needs_root=True)


def _caller(snapshot: Snapshot, one: Publication) -> _Caller:
    return _Caller(one.inside.owner if one.inside is not None else 0, snapshot.vantage.reader_uid)


def start_again(told: EngineContainer) -> tuple[Remedy, ...]:
    """Start it; its log, where it did not end by somebody's will."""
    log = Remedy(
        summary="Read the end of its log: it says why it ended",
        commands=(_engine(told.container, "logs", "--tail", "50"),),
    )
    if told.status is Status.RESTARTING:
        return (log,)
    start = Remedy(
        summary=f"Start container {container_name(told.container)} again",
        commands=(_engine(told.container, "start"),),
        undo=(_engine(told.container, "stop"),),
        survives_reboot=None,
    )
    return (start, log) if told.exit_code else (start,)


def unpause(snapshot: Snapshot, one: Publication, *, by_engine: bool, asked: bool) -> tuple[Remedy, ...]:
    """Let it go on; `asked`: the engine has told whether it was its doing."""
    if asked and not by_engine:
        return (Remedy(summary=f"Thaw the cgroup of {one.name}: whoever froze it did not tell the engine."),)
    where = "" if asked else ", if it was the engine that paused it"
    return (go_on(one.container, where, _caller(snapshot, one)),)


def go_on(container: Container, where: str = "", caller: _Caller = _ROOT) -> Remedy:
    """Let it go on by its engine."""
    return Remedy(
        summary=f"Let container {container_name(container)} go on{where}",
        commands=(_engine(container, "unpause", caller=caller),),
        undo=(_engine(container, "pause", caller=caller),),
        survives_reboot=None,
    )


def publish(
    snapshot: Snapshot, told: EngineContainer, port: int, container_port: int, *, loopback: bool
) -> tuple[Remedy, ...]:
    """The very line of the compose file; dial it where it is; publish it, which needs a new container."""
    service = compose.service_of(snapshot, told.container)
    line = compose.publish(snapshot, service, container_port, host_port=port) if service else None
    found: list[Remedy] = [line] if line else []
    addresses = [address for each in told.attachments for address in each.addresses]
    if addresses and not loopback:
        found.append(_dial_directly(Endpoint(addresses[0], container_port)))
    if line is None:
        found.append(_recreate(told.container, f"-p 127.0.0.1:{port}:{container_port}", loopback=loopback))
    return tuple(found)


def publish_here(snapshot: Snapshot, attempt: Attempt, entries: Iterable[Publication]) -> tuple[Remedy, ...]:
    """Dial one of the addresses where it is published; or publish it on the dialled one."""
    first, *_ = entries
    project, service = compose.project_of(snapshot), compose.service_of(snapshot, first.container)
    entry = declared_entry(project, service, first.entry.container_port) if service else None
    line = compose.publish_at(snapshot, service, entry, attempt.address) if service and entry else None
    option = f"-p {Endpoint(attempt.address, attempt.port)}:{first.entry.container_port}"
    return (
        dial_instead(dialled_as(first.entry), "Dial the address on which it is published"),
        line or _recreate(first.container, option, loopback=False),
    )


def dialled_as(entry: Published) -> Endpoint:
    """How a client on this machine dials what is published there."""
    if not entry.address or is_wildcard(entry.address):
        return Endpoint("::1" if ":" in entry.address else "127.0.0.1", entry.port)
    return Endpoint(entry.address, entry.port)


def right_port(snapshot: Snapshot, one: Publication, ports: Sequence[int]) -> tuple[Remedy, ...]:
    """The very line of the compose file; dial the port that is open in there; publish that one."""
    project, service = compose.project_of(snapshot), compose.service_of(snapshot, one.container)
    entry = declared_entry(project, service, one.entry.container_port) if service else None
    found: list[Remedy] = []
    if service and entry and len(ports) == 1:
        found.append(compose.correct_container_port(snapshot, service, entry, ports[0]))
    by_file = bool(found)
    at = bridge_address(one)
    if at is not None and len(ports) == 1:
        found.append(_dial_directly(Endpoint(at.address, ports[0])))
    if ports and not by_file:
        options = " or ".join(f"-p 127.0.0.1:{one.entry.port}:{port}" for port in ports[:3])
        found.append(_recreate(one.container, options, loopback=False))
    elif not ports:
        found.append(
            Remedy(
                summary="Read the end of its log: the server in it has not come up",
                commands=(_engine(one.container, "logs", "--tail", "50", caller=_caller(snapshot, one)),),
            )
        )
    return tuple(found)


def bind_all_inside(snapshot: Snapshot, one: Publication) -> tuple[Remedy, ...]:
    """The server's own option; the published entry stays, and stays on loopback."""
    service = compose.service_of(snapshot, one.container)
    if service is not None:
        return (compose.listen_everywhere(snapshot, service),)
    port = one.entry.container_port
    safe = "" if _on_loopback(one) else f" Publish it as 127.0.0.1:{one.entry.port}:{port} to keep the network out."
    return (
        Remedy(
            summary=f"Let the server in {one.name} listen on 0.0.0.0:{port} (--host 0.0.0.0, HOST=0.0.0.0, flask run "
            f"--host=0.0.0.0, vite --host ...) and start the container anew with that.{safe}"
        ),
    )


def _on_loopback(one: Publication) -> bool:
    return one.entry.address in ("127.0.0.1", "::1")


def restore_nat(one: Publication, holder: Process | None, *, chains_stand: bool) -> tuple[Remedy, ...]:
    """The engine writes its rules anew: those of a container with its start, its chains with its own."""
    if one.container.engine == "podman":
        return (
            Remedy(
                summary=f"Let podman write the rules of {one.name} anew",
                commands=(_engine(one.container, "network", "reload"),),
                survives_reboot=None,
            ),
        )
    if chains_stand:
        return (
            Remedy(
                summary=f"Restart container {one.name}: the engine writes its NAT rule anew; its connections are lost",
                commands=(_engine(one.container, "restart"),),
                risk=Risk.DISRUPTIVE,
                survives_reboot=None,
            ),
        )
    unit = holder.unit if holder is not None and holder.program == "dockerd" else None
    return (
        Remedy(
            summary="Restart the engine: its chains are gone as well, and it writes them only when it starts. Without "
            "live-restore this stops every container. Then take the flush out of what reloads the firewall. Is "
            "the engine told to make no rules (iptables: false), let its proxy serve the port: userland-proxy true.",
            commands=(Command(("systemctl", "restart", unit), needs_root=True),) if unit else (),
            risk=Risk.DISRUPTIVE,
            survives_reboot=None,
        ),
    )


def let_loopback_out(one: Publication) -> tuple[Remedy, ...]:
    """Dial another address of this machine; or the sysctl, which only a masquerade rule makes whole."""
    at = bridge_address(one)
    direct = (_dial_directly(at),) if at is not None else ()
    return (
        *direct,
        Remedy(
            summary="Or let the engine's own proxy serve loopback: userland-proxy true in /etc/docker/daemon.json, and "
            "restart the engine. The sysctl net.ipv4.conf.BRIDGE.route_localnet=1 lets loopback out as well, and lets "
            "the network reach services on 127.0.0.1 where no rule forbids it."
        ),
    )


def _dial_directly(where: Endpoint) -> Remedy:
    return dial_instead(where, "Dial the container at its own address: from this machine that works without publishing")


def _recreate(container: Container, option: str, *, loopback: bool) -> Remedy:
    name = container_name(container)
    inside = " Its server must listen on 0.0.0.0 in there, too." if loopback else ""
    return Remedy(
        summary=f"Publish it on this machine: a container that exists takes no more ports, so make {name} anew with "
        f"{option} (in compose under ports:).{inside}"
    )
