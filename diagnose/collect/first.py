"""Targets -> snapshots, in waves: cheap first, deep on demand. Here a probe's failure becomes "could not look"."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from time import monotonic
from typing import TYPE_CHECKING

from msgspec.structs import replace

from diagnose import __version__
from diagnose.analysis.ports import near, near_misses
from diagnose.analysis.publication import PAST_UFW
from diagnose.analysis.reach import reached, unmapped
from diagnose.collect.case import LOCAL_TIMEOUT, PROBE_SECONDS, REMOTE_TIMEOUT, SILENCE, Case, Machine, Order, flow_of
from diagnose.model.attempt import Attempt, Outcome
from diagnose.model.fact import NOT_NEEDED, PASSIVE, Fact, Known, Reason, Unknown
from diagnose.model.firewall import Shadow
from diagnose.model.names import HostsFile, Resolution
from diagnose.model.network import Endpoint, Links, Routing, SocketRow, is_loopback, is_wildcard
from diagnose.model.process import Process
from diagnose.model.snapshot import Snapshot, Vantage
from diagnose.model.target import Intent, Scope
from diagnose.parse.hosts import about
from diagnose.probes import bind, connect, containers, links, names, processes, program, sockets, vantage
from diagnose.probes.bounded import Asked
from diagnose.probes.connect import IS_LINUX, Dial

if TYPE_CHECKING:
    from diagnose.collect.deep import DeepLook
    from diagnose.model.attempt import AckWitness
    from diagnose.probes.deferral import Deferrals
    from diagnose.probes.side import Arrived
    from diagnose.probes.side_files import SideFiles
    from diagnose.probes.wire import Recorder

DOCKER_SOCKETS = ("/run/docker.sock", "/var/run/docker.sock")
"""Where one of these is, a hidden process of root may be docker-proxy."""
RESOLVER_SECONDS = 15.0
"""glibc gives up by itself after 10 s with one silent server (resolv.conf(5): timeout 5, attempts 2)."""
_INSTANCE_GRACE = 0.35
"""Seconds that systemd and an instance have, from the connection on, before one that is not closed works."""
_FEW = 100
"""Attempts at once for which the usual limits of open files do."""
_NEAR_MISS_PORTS = 64
"""With more ports asked for at once, near misses are not named by their holders."""


class Collection:
    """One run over all targets; `close` takes down what observing needed for a moment."""

    def __init__(self, order: Order, side: Arrived | None = None) -> None:
        self.order = order
        self._side = side
        self._recorder: Recorder | None = None
        self._deep: DeepLook | None = None
        self._cases: tuple[Case, ...] = ()
        self._deferrals: Deferrals | None = None
        self._before = sockets.ListenersBefore(PASSIVE, b"")

    def snapshots(self) -> tuple[Snapshot, ...]:
        """Looks, in waves, and writes down what it saw."""
        if self._side is not None and not self._side.side.entered:
            from diagnose.collect import outside  # only where --from lacks the right

            return outside.look(self.order, self._side)
        started, clock = datetime.now(UTC), monotonic()
        cases = self._resolved()
        machine = self._first_wave(cases)
        if self.order.deep or any(case.troubled for case in cases):
            machine = self._look_deeper(cases, machine)
        elif self._side is not None:
            self._ask_their_cgroup(cases, machine)
        if self._side is not None:
            machine = replace(machine, vantage=replace(machine.vantage, side=self._side.now()))
        duration = round((monotonic() - clock) * 1000, 3)
        self._cases = tuple(cases)
        return tuple(self._snapshot(case, machine, started, duration) for case in cases)

    def capture(self, path: str) -> tuple[bytes | None, str | None]:
        """The packets of the attempts as a pcap for this file; one line where none or not all could be kept."""
        if self._recorder is None:
            why = PASSIVE if self.order.passive else Unknown(Reason.NOT_NEEDED, "a bind sends no packet")
            return None, f"no packets were kept: {why}"
        attempts = [attempt for case in self._cases for attempt in case.attempts]
        match self._recorder.capture([flow for one in attempts if (flow := flow_of(one))]):
            case Unknown() as why:
                return None, f"no packets were kept: {why}"
            case Known(value=kept) if kept.lost:
                return kept.pcap, f"{path!r} may lack some packets: {kept.lost} did not fit the capture's buffer"
            case Known(value=kept):
                return kept.pcap, None

    def close(self) -> None:
        """Takes down what observing needed for a moment; about 50 ms, so after the answer."""
        if self._deep is not None:
            self._deep.close()  # and with it what an earlier run, killed, has left
        if self._recorder is not None:
            self._recorder.close()

    def _resolved(self) -> list[Case]:
        hosts = tuple(dict.fromkeys(target.host for target in self.order.targets))
        deadline = monotonic() + RESOLVER_SECONDS
        if self._side is None or self._side.files is None:
            found = names.resolve(hosts, deadline, self.order.passive)
        else:
            found = _resolved_there(self._side.files, hosts, deadline, self.order.passive)
        return [Case(target, found[target.host]) for target in self.order.targets]

    def _look_deeper(self, cases: Sequence[Case], machine: Machine) -> Machine:
        from diagnose.collect.deep import DeepLook  # a target that works does not pay for its modules

        self._deep = DeepLook(self.order, self._recorder, self._before, self._side)
        return self._deep.look(cases, machine)

    def _first_wave(self, cases: Sequence[Case]) -> Machine:
        link_fact = links.look(gateways=True) if any(_beyond_loopback(case) for case in cases) else NOT_NEEDED
        ports = frozenset(case.target.port for case in cases)
        if not self.order.passive:
            if self.order.intent is Intent.CONNECT:
                self._before = sockets.listeners_before(ports)
            _make_room_for(sum(len(case.addresses) for case in cases))
            self._listen_to_the_wire(cases, link_fact)
            for case in cases:
                self._try(case, link_fact)
            self._listen_to_ourselves(cases)
        tables = sockets.look(
            ports,
            listening=ports.union(*(near(port) for port in ports)),
            origins=self.order.intent is Intent.BIND,
        )
        inodes = _inodes(tables, ports)
        held = Asked("socket owners", lambda: processes.holders(inodes, PROBE_SECONDS), PROBE_SECONDS)
        seen = self._vantage()
        machine = Machine(vantage=seen, program=program.look(), links=link_fact, tables=tables, holders=held.fact())
        for case in cases:
            _settle_stopped(case, machine)
        longer = [_INSTANCE_GRACE for case in cases if _leave_to_instances(case, machine)]
        connect.wait([dial for case in cases for dial in case.dials], monotonic() + max([SILENCE, *longer]))
        for case in cases:
            case.attempts = [dial.attempt() for dial in case.dials]
            self._look_behind(case, machine)
            case.ufw = _ufw_beside_an_engine(case, machine)
        return machine

    def _look_behind(self, case: Case, machine: Machine) -> None:
        """Connections that were taken for others: a forwarder's, and those that NAT leads to another namespace."""
        for attempt in case.attempts:
            if not (attempt.local and attempt.outcome is Outcome.CONNECTED and IS_LINUX):
                continue
            # a forwarder has its end of the connection here: what ends elsewhere was led there by NAT
            translated = _translated(attempt)
            forwarder = None if translated else _forwarding(attempt, machine)
            if forwarder is None and not translated:
                continue
            from diagnose.probes import behind  # for containers only

            case.behind[attempt.endpoint] = behind.look(attempt.endpoint, forwarder, self._timeout(local=True))
        case.attempts = [case.beyond(attempt) for attempt in case.attempts]

    def _ask_their_cgroup(self, cases: Sequence[Case], machine: Machine) -> None:
        """What works for us may be forbidden to the processes of that side."""
        from diagnose.collect import cgroups

        for case in cases:
            case.cgroup_filters = cgroups.look(case, machine, always=False)

    def _vantage(self) -> Vantage:
        """Ours, or that of the side that we stand on."""
        if self._side is None:
            return vantage.look(containers.inside())
        seen = vantage.look(self._side.container)
        return replace(seen, origin=str(self._side.origin), side=self._side.side)

    def _listen_to_the_wire(self, cases: Sequence[Case], link_fact: Fact[Links]) -> None:
        """From before the first packet on: asked for, or because another machine's raw reply tells who sent it."""
        addresses = {address for case in cases for address in case.addresses}
        remote = any(not _is_local(address, link_fact) for address in addresses)
        if self.order.intent is Intent.CONNECT and (self.order.capture or (remote and IS_LINUX)):
            from diagnose.probes.wire import Recorder  # raw sockets: only for captures and other machines

            self._recorder = Recorder(sorted({case.target.port for case in cases}))

    def _listen_to_ourselves(self, cases: Sequence[Case]) -> None:
        """Now that our own ports are known; the target's may be a busy one."""
        if self._recorder is not None:
            sources = [dial.source for case in cases for dial in case.dials]
            self._recorder.narrow({one.port for one in sources if one is not None})

    def _try(self, case: Case, link_fact: Fact[Links]) -> None:
        service = case.target.service
        if service and not service.standing.dialled:
            return  # only somebody else could answer there
        endpoints = [Endpoint(address, case.target.port) for address in case.addresses]
        if self.order.intent is Intent.BIND:
            case.binds = tuple(bind.attempt(one.address, one.port) for one in endpoints)
        else:
            case.dials = [self._dial(endpoint, link_fact) for endpoint in endpoints]

    def _dial(self, endpoint: Endpoint, link_fact: Fact[Links]) -> Dial:
        local = _is_local(endpoint.address, link_fact)
        timeout = self._timeout(local=local)
        return Dial(endpoint, local=local, timeout=timeout, server_side=sockets.server_side, held_back=self._held_back)

    def _timeout(self, *, local: bool) -> float:
        return self.order.timeout or (LOCAL_TIMEOUT if local else REMOTE_TIMEOUT)

    def _held_back(self, server: Endpoint, client: Endpoint, age: float) -> Fact[AckWitness]:
        if self._deferrals is None:
            from diagnose.probes.deferral import Deferrals  # only where a connection stays half-open

            self._deferrals = Deferrals()
        return self._deferrals.held_back(server, client, age)

    def _snapshot(self, case: Case, machine: Machine, started: datetime, duration: float) -> Snapshot:
        port = case.target.port
        return Snapshot(
            netdiag=__version__,
            started_at=started.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            duration_ms=duration,
            target=case.target,
            intent=self.order.intent,
            scope=self._scope(case),
            vantage=machine.vantage,
            program=machine.program,
            names=case.resolution,
            attempts=tuple(case.attempts),
            binds=case.binds,
            candidates=case.candidates,
            later=case.later,
            units=case.units,
            links=machine.links,
            sockets=_on_port(machine.tables.tcp, port),
            listeners=machine.tables.listeners,
            bound=_on_port(machine.tables.bound, port),
            udp=_on_port(machine.tables.udp, port),
            holders=machine.holders,
            policy=machine.policy,
            routing=_ways_to(machine.routing, case),
            hosts=_about(machine.hosts, case.target.host),
            resolver=machine.resolver,
            elsewhere=machine.elsewhere.get(port, NOT_NEEDED),
            containers=machine.containers.get(port, NOT_NEEDED),
            compose=machine.compose.get(port, NOT_NEEDED),
            firewall=_walks_to(machine.firewall, case),
            host_firewall=_walks_to(machine.host_firewall, case),
            cgroup_filters=case.cgroup_filters,
            ufw=case.ufw,
        )

    def _scope(self, case: Case) -> Scope:
        timeouts = [dial.timeout for dial in case.dials]
        timeout = max(timeouts, default=self.order.timeout or LOCAL_TIMEOUT)
        return Scope(timeout, self.order.passive, self.order.only, self.order.skip)


def _about(hosts: Fact[HostsFile], host: str) -> Fact[HostsFile]:
    """The hosts file as it may be kept for this target."""
    return Known(about(hosts.value, host)) if isinstance(hosts, Known) else hosts


def _resolved_there(
    files: SideFiles, hosts: Sequence[str], deadline: float, passive: bool
) -> dict[str, Fact[Resolution]]:
    """The names by the files and the DNS servers of that side."""
    from diagnose.probes import side_names  # only with --from

    return names.resolve(
        hosts,
        deadline,
        passive,
        ask=lambda asked, until: side_names.ask(files, asked, until),
        read_hosts=lambda: side_names.hosts_file(files),
    )


def _make_room_for(sockets_at_once: int) -> None:
    """Raises this process's own limit of open files as far as it may, where the targets need it (setrlimit(2))."""
    if sockets_at_once < _FEW or not IS_LINUX:
        return
    import resource  # only for many targets, and not on Windows

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _beyond_loopback(case: Case) -> bool:
    """Whether the interfaces are needed to tell this machine's addresses from others'."""
    return not all(is_loopback(address) or is_wildcard(address) for address in case.addresses)


def _is_local(address: str, link_fact: Fact[Links]) -> bool:
    """Whether the address is this machine's own; where the interfaces are unknown, loopback only."""
    if is_loopback(address) or is_wildcard(address):
        return True
    return isinstance(link_fact, Known) and link_fact.value.holder(unmapped(address)) is not None


def _inodes(tables: sockets.SocketTables, ports: frozenset[int]) -> frozenset[int]:
    """The sockets whose holders a report may name: on a port asked for, or a near miss of it."""
    rows: list[SocketRow] = []
    for fact in (tables.tcp, tables.bound, tables.udp):
        rows.extend(fact.value if isinstance(fact, Known) else ())
    if isinstance(tables.listeners, Known):
        listening = tables.listeners.value
        rows.extend(row for row in listening if row.local.port in ports)
        if len(ports) <= _NEAR_MISS_PORTS:
            rows.extend(row for port in ports for row in near_misses(listening, port))
    return frozenset(row.inode for row in rows if row.inode)


def _leave_to_instances(case: Case, machine: Machine) -> bool:
    """Gives an instance of a service time to fail: a service manager that has the port alone may accept for one.

    (Accept=yes, systemd.socket(5).) Another user's holders are hidden, and nothing is known of them.
    """
    if not (isinstance(machine.tables.listeners, Known) and isinstance(machine.holders, Known)):
        return False
    found = False
    for dial in case.dials:
        rows = reached(machine.tables.listeners.value, dial.endpoint.address, dial.endpoint.port)
        inodes = {row.inode for row in rows}
        holders = [one.process for one in machine.holders.value.found if one.inode in inodes]
        if dial.local and holders and all(map(_is_systemd, holders)):
            dial.grace = _INSTANCE_GRACE - SILENCE
            found = True
    return found


def _is_systemd(process: Process) -> bool:
    """Whether it is the system's manager, or a child of it that is about to execute a service's program."""
    executor = (process.executable or "").endswith("/systemd-executor")
    return executor or (process.pid == 1 and process.program == "systemd")


def _settle_stopped(case: Case, machine: Machine) -> None:
    """Ends the wait for a server whose every holder is stopped: it cannot accept."""
    match machine.tables.listeners, machine.holders:
        case Known(value=rows), Known(value=holders):
            pass
        case _:
            return
    if holders.unreadable and not machine.vantage.privileged:
        return  # another user's process may hold it as well, and accept
    for dial in case.dials:
        inodes = {row.inode for row in reached(rows, dial.endpoint.address, dial.endpoint.port)}
        states = [one.process.state for one in holders.found if one.inode in inodes]
        if dial.queued and states and all(state == "T" for state in states):
            dial.settle()


def _forwarding(attempt: Attempt, machine: Machine) -> int | None:
    """The docker-proxy that took the connection, by the pid that holds the listener; 0: its holder is hidden."""
    rows = machine.tables.listeners.value if isinstance(machine.tables.listeners, Known) else ()
    inodes = {row.inode for row in reached(rows, attempt.address, attempt.port) if row.uid == 0}
    if not inodes or not isinstance(machine.holders, Known):
        return None
    held = [one.process for one in machine.holders.value.found if one.inode in inodes]
    if not held:
        return 0 if any(os.path.exists(path) for path in DOCKER_SOCKETS) else None
    return next((one.pid for one in held if one.program == "docker-proxy"), None)


def _translated(attempt: Attempt) -> bool:
    """Whether the server's end of the connection is not in this network namespace."""
    return isinstance(attempt.acceptance, Unknown) and attempt.acceptance.reason is Reason.NOT_VISIBLE


def _ufw_beside_an_engine(case: Case, machine: Machine) -> Fact[bool]:
    """Whether ufw is on, where a container engine has opened the target's port on every address."""
    rows = machine.tables.listeners.value if isinstance(machine.tables.listeners, Known) else ()
    holders = machine.holders.value.found if isinstance(machine.holders, Known) else ()
    open_to_all = {
        row.inode
        for address in case.addresses
        for row in reached(rows, address, case.target.port)
        if is_wildcard(row.local.address)
    }
    engines = [one for one in holders if one.inode in open_to_all and one.process.program in PAST_UFW]
    if not engines:
        return NOT_NEEDED
    from diagnose.probes import ufw  # beside a container only

    return ufw.is_on()


def _on_port(rows: Fact[tuple[SocketRow, ...]], port: int) -> Fact[tuple[SocketRow, ...]]:
    match rows:
        case Known(value=found):
            return Known(tuple(row for row in found if row.local.port == port))
        case Unknown():
            return rows


def _ways_to(routing: Fact[Routing], case: Case) -> Fact[Routing]:
    """The lookups of this target's addresses: those of ten thousand others are none of its business."""
    match routing:
        case Known(value=seen):
            wanted = case.addresses
            return Known(replace(seen, lookups=tuple(one for one in seen.lookups if one.address in wanted)))
        case Unknown():
            return routing


def _walks_to(firewall: Fact[Shadow], case: Case) -> Fact[Shadow]:
    match firewall:
        case Known(value=seen):
            walks = tuple(w for w in seen.walks if w.port == case.target.port and w.address in case.addresses)
            return Known(replace(seen, walks=walks))
        case Unknown():
            return firewall
