"""Targets -> snapshots, in waves: cheap first, deep on demand. Here a probe's failure becomes "could not look"."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import TypeVar

from msgspec import Struct
from msgspec.structs import replace

from diagnose import __version__
from diagnose.analysis.ports import near_misses
from diagnose.analysis.reach import listeners_on, reached, unmapped
from diagnose.analysis.refusal import Refusal, icmp_text, refusal
from diagnose.analysis.wire import wants_first_hop
from diagnose.model.attempt import Attempt, BindAttempt, Outcome
from diagnose.model.elsewhere import Elsewhere
from diagnose.model.fact import NOT_LINUX, NOT_NEEDED, PASSIVE, Fact, Known, Reason, Unknown
from diagnose.model.firewall import Shadow
from diagnose.model.names import HostsFile, Resolution, ResolverConfig
from diagnose.model.network import (
    Endpoint,
    Links,
    PortPolicy,
    Routing,
    SocketRow,
    is_loopback,
    is_wildcard,
)
from diagnose.model.process import Holders
from diagnose.model.snapshot import Snapshot, Vantage
from diagnose.model.target import Intent, Scope, Target
from diagnose.probes import (
    bind,
    connect,
    containers,
    links,
    names,
    namespaces,
    policy,
    processes,
    routes,
    shadow,
    sockets,
    vantage,
    wire,
)
from diagnose.probes.bounded import Asked
from diagnose.probes.connect import IS_LINUX, Dial
from diagnose.probes.witness import Silence, Witnesses

T = TypeVar("T")

LOCAL_TIMEOUT = 1.0
REMOTE_TIMEOUT = 3.0
"""Seconds that one unanswered attempt may take where the user gave no --timeout."""
SILENCE = 0.050
"""Seconds without an answer from a local address after which the deep look begins."""
CANDIDATE_WAIT = 0.25
"""Seconds that another listener of this machine has to answer."""
FIRST_HOP_WAIT = 0.5
_CANDIDATES = 8
_NEAR_MISS_PORTS = 64
"""With more ports asked for at once, near misses are not named by their holders."""
FIREWALL_SECONDS = 3.0
PROBE_SECONDS = 2.0
"""Deadline of one probe of the machine."""
RESOLVER_SECONDS = 15.0
"""glibc gives up by itself after 10 s with one silent server (resolv.conf(5): timeout 5, attempts 2)."""


class Order(Struct, frozen=True, kw_only=True):
    """What the user asked for."""

    targets: tuple[Target, ...]
    intent: Intent = Intent.CONNECT
    timeout: float | None = None
    passive: bool = False
    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    deep: bool = False
    """Collect what a later reader of the recording may want, needed now or not."""
    capture: bool = False
    """Keep the packets of the attempts."""


class _Case:
    """One target, while its facts come together."""

    def __init__(self, target: Target, resolution: Fact[Resolution]) -> None:
        self.target = target
        self.resolution = resolution
        self.dials: list[Dial] = []
        self.silences: dict[Endpoint, Silence] = {}
        self.attempts: list[Attempt] = []
        self.binds: tuple[BindAttempt, ...] = ()
        self.candidates: tuple[Attempt, ...] = ()

    @property
    def addresses(self) -> tuple[str, ...]:
        """What the name resolves to, each once, in the resolver's order."""
        match self.resolution:
            case Known(value=resolution):
                return tuple(dict.fromkeys(one.address for one in resolution.addresses))
            case Unknown():
                return ()

    @property
    def troubled(self) -> bool:
        """Whether something failed, so that the deep look is worth its time."""
        tried = (*self.attempts, *self.binds)
        return not tried or any(not one.outcome.works for one in tried) or self._fails_without_reuse()

    def _fails_without_reuse(self) -> bool:
        return any(not one.plain_outcome.works for one in self.binds)


class _Machine(Struct, frozen=True, kw_only=True):
    """What is the same for every target of one run."""

    vantage: Vantage
    links: Fact[Links]
    tables: sockets.SocketTables
    holders: Fact[Holders]
    policy: Fact[PortPolicy] = NOT_NEEDED
    routing: Fact[Routing] = NOT_NEEDED
    hosts: Fact[HostsFile] = NOT_NEEDED
    resolver: Fact[ResolverConfig] = NOT_NEEDED
    elsewhere: dict[int, Fact[Elsewhere]] = {}
    firewall: Fact[Shadow] = NOT_NEEDED


class Collection:
    """One run over all targets; `close` takes down what observing needed for a moment."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self._witnesses = Witnesses()
        self._recorder: wire.Recorder | None = None
        self._flows: tuple[wire.Flow, ...] = ()

    def snapshots(self) -> tuple[Snapshot, ...]:
        """Looks, in waves, and writes down what it saw."""
        started, clock = datetime.now(UTC), monotonic()
        cases = self._resolved()
        machine = self._first_wave(cases)
        if self.order.deep or any(case.troubled for case in cases):
            machine = self._second_wave(cases, machine)
        duration = round((monotonic() - clock) * 1000, 3)
        self._flows = tuple(flow for case in cases for dial in case.dials if (flow := _flow(dial.attempt())))
        return tuple(self._snapshot(case, machine, started, duration) for case in cases)

    def save_capture(self, path: Path) -> Unknown | None:
        """Writes the packets of the attempts; what stood in the way of keeping any. OSError: the file's."""
        if self._recorder is None:
            return Unknown(Reason.PASSIVE, "nothing was sent")
        saved = self._recorder.save(str(path), self._flows)
        return saved if isinstance(saved, Unknown) else None

    def close(self) -> None:
        """Takes down what observing needed for a moment; about 50 ms, so after the answer."""
        self._witnesses.close()
        if self._recorder is not None:
            self._recorder.close()

    def _resolved(self) -> list[_Case]:
        hosts = tuple(dict.fromkeys(target.host for target in self.order.targets))
        found = names.resolve(hosts, monotonic() + RESOLVER_SECONDS, self.order.passive)
        return [_Case(target, found[target.host]) for target in self.order.targets]

    # first wave: the attempt itself, and who sits on the port

    def _first_wave(self, cases: Sequence[_Case]) -> _Machine:
        link_fact = links.look()
        if not self.order.passive:
            self._listen_to_the_wire(cases, link_fact)
            for case in cases:
                self._try(case, link_fact)
        ports = frozenset(case.target.port for case in cases)
        tables = sockets.look(ports)
        inodes = _inodes(tables, ports)
        held = Asked("socket owners", lambda: processes.holders(inodes, PROBE_SECONDS), PROBE_SECONDS)
        connect.wait([dial for case in cases for dial in case.dials], monotonic() + SILENCE)
        machine = _Machine(
            vantage=vantage.look(containers.inside()), links=link_fact, tables=tables, holders=held.fact()
        )
        for case in cases:
            _settle_stopped(case, machine)
        return machine

    def _listen_to_the_wire(self, cases: Sequence[_Case], link_fact: Fact[Links]) -> None:
        """From before the first packet on: asked for, or because another machine's raw reply tells who sent it."""
        addresses = {address for case in cases for address in case.addresses}
        remote = any(not _is_local(address, link_fact) for address in addresses)
        if self.order.intent is Intent.CONNECT and (self.order.capture or (remote and IS_LINUX)):
            self._recorder = wire.Recorder(sorted({case.target.port for case in cases}))

    def _try(self, case: _Case, link_fact: Fact[Links]) -> None:
        endpoints = [Endpoint(address, case.target.port) for address in case.addresses]
        if self.order.intent is Intent.BIND:
            case.binds = tuple(bind.attempt(one.address, one.port) for one in endpoints)
        else:
            case.dials = [self._dial(endpoint, link_fact) for endpoint in endpoints]

    def _dial(self, endpoint: Endpoint, link_fact: Fact[Links]) -> Dial:
        local = _is_local(endpoint.address, link_fact)
        timeout = self.order.timeout or (LOCAL_TIMEOUT if local else REMOTE_TIMEOUT)
        return Dial(endpoint, local=local, timeout=timeout, server_side=sockets.server_side)

    # second wave: why it failed

    def _second_wave(self, cases: Sequence[_Case], machine: _Machine) -> _Machine:
        looks = _Looks(cases if self.order.deep else [case for case in cases if case.troubled])
        for case in cases:
            case.attempts = [self._witnesses.refused(dial.attempt()) for dial in case.dials]
        suspects = self._suspects(cases, machine)
        firewall = self._ask_firewall(suspects)
        for case in cases:
            self._break_silence(case)
        connect.wait([dial for case in cases for dial in case.dials], monotonic() + self._longest())
        for case in cases:
            self._finish(case)
            case.candidates = self._other_listeners(case, machine)
        machine = looks.added_to(machine, firewall)
        for case in cases:
            case.attempts = [self._with_raw_reply(attempt, machine) for attempt in case.attempts]
        return machine

    def _with_raw_reply(self, attempt: Attempt, machine: _Machine) -> Attempt:
        """The packet that answered another machine's refusal, and where needed the one that a first router sends."""
        flow = _flow(attempt)
        if attempt.local or attempt.outcome.works or self._recorder is None or flow is None:
            return attempt
        attempt = replace(attempt, wire=self._recorder.replies(flow))
        if not wants_first_hop(attempt, machine.routing):
            return attempt
        return replace(attempt, first_hop=wire.first_hop(attempt.address, attempt.port, FIRST_HOP_WAIT))

    def _suspects(self, cases: Sequence[_Case], machine: _Machine) -> tuple[Endpoint, ...]:
        """The local endpoints whose failure a firewall rule may have caused."""
        found = {
            attempt.endpoint
            for case in cases
            for attempt in case.attempts
            if attempt.local and (self.order.deep or _firewall_may_explain(attempt, machine))
        }
        return tuple(sorted(found))

    def _ask_firewall(self, suspects: tuple[Endpoint, ...]) -> Asked[Shadow] | Unknown:
        if self.order.passive:
            return PASSIVE
        if not suspects:
            return NOT_NEEDED
        if not IS_LINUX:
            return NOT_LINUX
        return Asked("firewall rules", lambda: shadow.look(suspects, FIREWALL_SECONDS), FIREWALL_SECONDS + 0.5)

    def _break_silence(self, case: _Case) -> None:
        """Ends the wait for a silent local address where a witness tells what the timeout would tell."""
        for dial in case.dials:
            if dial.local and dial.silent:
                silence = self._witnesses.silent(dial.endpoint)
                case.silences[dial.endpoint] = silence
                if silence.settled:
                    dial.settle()

    def _longest(self) -> float:
        return (self.order.timeout or REMOTE_TIMEOUT) + SILENCE

    def _finish(self, case: _Case) -> None:
        witnessed = {attempt.endpoint: attempt for attempt in case.attempts}
        case.attempts = [self._finished(case, dial, witnessed) for dial in case.dials]

    def _finished(self, case: _Case, dial: Dial, witnessed: dict[Endpoint, Attempt]) -> Attempt:
        attempt = dial.attempt()
        silence = case.silences.get(dial.endpoint)
        if silence and attempt.outcome is Outcome.UNANSWERED:
            return replace(attempt, drops=silence.drops, queue=silence.queue)
        return replace(attempt, reset=witnessed[dial.endpoint].reset)

    def _other_listeners(self, case: _Case, machine: _Machine) -> tuple[Attempt, ...]:
        """Whether the port answers at the other local addresses where it listens."""
        if not isinstance(machine.tables.listeners, Known):
            return ()
        rows = listeners_on(machine.tables.listeners.value, case.target.port)
        refused = any(one.local and one.outcome is Outcome.REFUSED for one in case.attempts)
        tried = {one.endpoint for one in case.attempts}
        others = sorted({where for row in rows if (where := _dialled_as(row)) not in tried}) if refused else []
        dials = [
            Dial(where, local=True, timeout=CANDIDATE_WAIT, server_side=sockets.server_side)
            for where in others[:_CANDIDATES]
        ]
        connect.wait(dials, monotonic() + CANDIDATE_WAIT + SILENCE)
        return tuple(dial.attempt() for dial in dials)

    def _snapshot(self, case: _Case, machine: _Machine, started: datetime, duration: float) -> Snapshot:
        port = case.target.port
        return Snapshot(
            netdiag=__version__,
            started_at=started.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            duration_ms=duration,
            target=case.target,
            intent=self.order.intent,
            scope=self._scope(case),
            vantage=machine.vantage,
            names=case.resolution,
            attempts=tuple(case.attempts or (dial.attempt() for dial in case.dials)),
            binds=case.binds,
            candidates=case.candidates,
            links=machine.links,
            sockets=_on_port(machine.tables.tcp, port),
            listeners=machine.tables.listeners,
            bound=_on_port(machine.tables.bound, port),
            udp=_on_port(machine.tables.udp, port),
            holders=machine.holders,
            policy=machine.policy,
            routing=machine.routing,
            hosts=machine.hosts,
            resolver=machine.resolver,
            elsewhere=machine.elsewhere.get(port, NOT_NEEDED),
            firewall=_walks_to(machine.firewall, case),
        )

    def _scope(self, case: _Case) -> Scope:
        timeouts = [dial.timeout for dial in case.dials]
        timeout = max(timeouts, default=self.order.timeout or LOCAL_TIMEOUT)
        return Scope(timeout, self.order.passive, self.order.only, self.order.skip)


class _Looks:
    """The cheap looks at the machine that a failure asks for, under way side by side."""

    def __init__(self, cases: Sequence[_Case]) -> None:
        addresses = sorted({address for case in cases for address in case.addresses})
        ports = sorted({case.target.port for case in cases})
        self._ports = ports
        self._policy = _asked("port sysctls", policy.look)
        self._routing = _asked("routes", lambda: routes.look(addresses))
        self._hosts = Asked("hosts file", names.hosts_file, PROBE_SECONDS)
        self._resolver = Asked("resolver configuration", names.configuration, PROBE_SECONDS)
        self._elsewhere = _asked("other network namespaces", lambda: Known(namespaces.look(ports, PROBE_SECONDS)))

    def added_to(self, machine: _Machine, firewall: Asked[Shadow] | Unknown) -> _Machine:
        """The machine with these facts, each waited for until its own deadline."""
        return replace(
            machine,
            policy=_fact(self._policy),
            routing=_fact(self._routing),
            hosts=self._hosts.fact(),
            resolver=self._resolver.fact(),
            elsewhere=self._by_port(),
            firewall=_fact(firewall),
        )

    def _by_port(self) -> dict[int, Fact[Elsewhere]]:
        match _fact(self._elsewhere):
            case Known(value=by_port):
                return by_port
            case Unknown() as unknown:
                return dict.fromkeys(self._ports, unknown)


def _asked(name: str, probe: Callable[[], Fact[T]]) -> Asked[T] | Unknown:
    return Asked(name, probe, PROBE_SECONDS) if IS_LINUX else NOT_LINUX


def _fact(asked: Asked[T] | Unknown) -> Fact[T]:
    return asked if isinstance(asked, Unknown) else asked.fact()


def _is_local(address: str, link_fact: Fact[Links]) -> bool:
    """Whether the address is this machine's own; where the interfaces are unknown, loopback only."""
    if is_loopback(address) or is_wildcard(address):
        return True
    return isinstance(link_fact, Known) and link_fact.value.holder(unmapped(address)) is not None


def _flow(attempt: Attempt) -> wire.Flow | None:
    return wire.Flow(attempt.source, attempt.endpoint) if attempt.source else None


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


def _settle_stopped(case: _Case, machine: _Machine) -> None:
    """Ends the wait for a server whose every holder is stopped: it cannot accept."""
    match machine.tables.listeners, machine.holders:
        case Known(value=rows), Known(value=holders):
            pass
        case _:
            return
    for dial in case.dials:
        inodes = {row.inode for row in reached(rows, dial.endpoint.address, dial.endpoint.port)}
        states = [one.process.state for one in holders.found if one.inode in inodes]
        if dial.queued and states and all(state == "T" for state in states):
            dial.settle()


def _firewall_may_explain(attempt: Attempt, machine: _Machine) -> bool:
    """Whether the rules must be looked at: not where the kernel has told that no rule is in the way."""
    if icmp_text(attempt) or attempt.outcome is Outcome.UNANSWERED:
        return True
    if attempt.outcome not in (Outcome.REFUSED, Outcome.RESET):
        return False
    if refusal(attempt) is Refusal.NOT_KERNEL:
        return True
    rows = machine.tables.listeners.value if isinstance(machine.tables.listeners, Known) else ()
    return bool(reached(rows, attempt.address, attempt.port))


def _dialled_as(row: SocketRow) -> Endpoint:
    address = unmapped(row.local.address)
    loopback = {"0.0.0.0": "127.0.0.1", "::": "::1"}
    return Endpoint(loopback.get(address, address), row.local.port)


def _on_port(rows: Fact[tuple[SocketRow, ...]], port: int) -> Fact[tuple[SocketRow, ...]]:
    match rows:
        case Known(value=found):
            return Known(tuple(row for row in found if row.local.port == port))
        case Unknown():
            return rows


def _walks_to(firewall: Fact[Shadow], case: _Case) -> Fact[Shadow]:
    match firewall:
        case Known(value=seen):
            walks = tuple(w for w in seen.walks if w.port == case.target.port and w.address in case.addresses)
            return Known(replace(seen, walks=walks))
        case Unknown():
            return firewall
