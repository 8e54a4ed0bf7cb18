"""The deep look, which only a failure pays for: why it failed, on the word of the kernel's witnesses."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from time import monotonic
from typing import TYPE_CHECKING, TypeVar

from msgspec.structs import replace

from diagnose.analysis.publication import RESERVES
from diagnose.analysis.reach import listeners_on, may_be_reached, reached, unmapped
from diagnose.analysis.refusal import Refusal, icmp_text, refusal
from diagnose.analysis.wire import wants_first_hop
from diagnose.collect import cgroups, later
from diagnose.collect.case import PROBE_SECONDS, REMOTE_TIMEOUT, SILENCE, Case, Machine, Order, flow_of
from diagnose.collect.compose import ProjectLook
from diagnose.collect.containers import ContainerLook, with_names
from diagnose.collect.hostward import Hostward
from diagnose.collect.units import UnitLook
from diagnose.model.attempt import Acceptance, Attempt, Outcome
from diagnose.model.elsewhere import Elsewhere
from diagnose.model.fact import NOT_LINUX, NOT_NEEDED, PASSIVE, Fact, Known, Reason, Unknown
from diagnose.model.firewall import Shadow
from diagnose.model.names import HostsFile, ResolverConfig
from diagnose.model.network import Endpoint, SocketRow
from diagnose.probes import connect, links, names, namespaces, policy, routes, sockets
from diagnose.probes.bounded import Asked
from diagnose.probes.connect import IS_LINUX, Dial
from diagnose.probes.deferral import Deferrals
from diagnose.probes.witness import Silence, Witnesses

T = TypeVar("T")

CANDIDATE_WAIT = 0.25
"""Seconds that another listener of this machine has to answer."""
FIRST_HOP_WAIT = 0.5
FIREWALL_SECONDS = 3.0
_CANDIDATES = 8
_WALKS = 64
"""Endpoints whose walk is looked at in one run; the silent ones come first."""


if TYPE_CHECKING:
    from diagnose.probes.side import Arrived
    from diagnose.probes.sockets import ListenersBefore
    from diagnose.probes.wire import Recorder


class DeepLook:
    """The second wave of one run; `close` takes down what the witnesses needed, after the answer."""

    def __init__(
        self, order: Order, recorder: Recorder | None, before: ListenersBefore, side: Arrived | None = None
    ) -> None:
        """`before`: the listeners as they were before the attempts."""
        self.order = order
        self._before = before
        self._side = side
        self._recorder = recorder
        self._witnesses = Witnesses()
        self._deferrals = Deferrals()
        self._silences: dict[Endpoint, Silence] = {}
        self._candidates: dict[Endpoint, Attempt] = {}
        self._hostward: Hostward | None = None

    def close(self) -> None:
        """Removes the tracing instance; takes about 50 ms."""
        self._witnesses.close()

    def look(self, cases: Sequence[Case], machine: Machine) -> Machine:
        """Completes the attempts of the cases, and gives the machine with what the failures ask for."""
        troubled = cases if self.order.deep else [case for case in cases if case.troubled]
        looks = _Looks(troubled, machine, self.order, self._side)
        if self._side is not None and self._side.side.entered and not self.order.passive and IS_LINUX:
            self._hostward = Hostward(self._side, [dial for case in troubled for dial in case.dials])
        units = UnitLook(cases if self.order.deep else troubled, machine, self.order, self._side)
        self._ask_who_reset(cases)
        suspects = self._suspects(cases, machine)
        firewall = self._ask_firewall(suspects, _near_ports(cases), count=_rules_matter(cases, machine))
        if self._hostward is not None:
            self._hostward.ask()
        for case in cases:
            self._break_silence(case)
        self._end_half_open(cases, firewall)
        units.await_activation(troubled)
        connect.wait([dial for case in cases for dial in case.dials], monotonic() + self._longest())
        for case in cases:
            self._finish(case)
        self._ask_who_reset(cases)  # what was refused only now
        for case in cases:
            case.candidates = self._other_addresses(case, machine, firewall)
            case.cgroup_filters = cgroups.look(case, machine, always=self.order.deep)
        machine = with_names(looks.added_to(machine, firewall))
        later.look(cases, machine)
        units.finish(troubled)
        if self._hostward is not None:
            machine = replace(machine, host_firewall=self._hostward.rules())
        for case in cases:
            case.attempts = [self._with_raw_reply(attempt, machine) for attempt in case.attempts]
            case.attempts = [self._with_trace(attempt, machine) for attempt in case.attempts]
        return machine

    def _with_trace(self, attempt: Attempt, machine: Machine) -> Attempt:
        """What the machine's own rules do to one more packet; after the copy, which would else hold our table too."""
        if not self.order.trace or attempt.outcome.works:
            return attempt
        if not attempt.local:
            return replace(attempt, traced=Unknown(Reason.NOT_VISIBLE, "a connection to another machine is not traced"))
        if not IS_LINUX:
            return replace(attempt, traced=NOT_LINUX)
        from diagnose.probes.trace_on_machine import trace  # only for whoever asks for it

        walks = machine.firewall.value.walks if isinstance(machine.firewall, Known) else ()
        walk = next((one for one in walks if Endpoint(one.address, one.port) == attempt.endpoint), None)
        return replace(attempt, traced=trace(attempt.endpoint, walk))

    def _with_raw_reply(self, attempt: Attempt, machine: Machine) -> Attempt:
        """The packet that answered another machine's refusal, and where needed the one that a first router sends."""
        if attempt.local or attempt.outcome.works:
            return attempt
        if not IS_LINUX:
            return replace(attempt, wire=NOT_LINUX, sent=NOT_LINUX)
        flow = flow_of(attempt)
        if self._recorder is None or flow is None:
            return attempt
        from diagnose.probes.wire import first_hop  # loaded already: there is a recorder

        attempt = replace(attempt, wire=self._recorder.replies(flow), sent=self._recorder.sent(flow))
        if not wants_first_hop(attempt, machine.routing):
            return attempt
        return replace(attempt, first_hop=first_hop(attempt.address, attempt.port, FIRST_HOP_WAIT))

    def _suspects(self, cases: Sequence[Case], machine: Machine) -> tuple[Endpoint, ...]:
        """The local endpoints whose failure a firewall rule may have caused."""
        local = [attempt for case in cases for attempt in case.attempts if attempt.local]
        found = {one.endpoint: one for one in local if self.order.deep or _firewall_may_explain(one, machine)}
        urgent = sorted(found, key=lambda where: (found[where].outcome is Outcome.REFUSED, where))
        return tuple(urgent[:_WALKS])

    def _ask_firewall(
        self, suspects: tuple[Endpoint, ...], near: Mapping[Endpoint, int], *, count: bool
    ) -> Asked[Shadow] | Unknown:
        """`count`: even without a suspect, whether there are rules at all is worth knowing."""
        if self.order.passive:
            return PASSIVE
        if not suspects and not count:
            return NOT_NEEDED
        if not IS_LINUX:
            return NOT_LINUX
        from diagnose.probes import shadow  # brings subprocess with it: only where rules must be read

        return Asked("firewall rules", lambda: shadow.look(suspects, FIREWALL_SECONDS, near), FIREWALL_SECONDS + 0.5)

    def _break_silence(self, case: Case) -> None:
        """Ends the wait for a silent local address where a witness tells what the timeout would tell."""
        for dial in case.dials:
            if dial.local and (dial.silent or dial.half_open):
                silence = self._witnesses.silent(dial.endpoint, self._before, half_open=dial.half_open)
                self._silences[dial.endpoint] = silence
                if silence.settled:
                    dial.settle()
            elif dial.local and dial.overflowed:
                self._silences[dial.endpoint] = self._witnesses.overflowed(dial.endpoint, self._before)
            elif dial.silent and self._hostward is not None and self._hostward.reaches(dial.endpoint):
                silence = self._witnesses.dropped_beyond(dial.endpoint)
                self._silences[dial.endpoint] = silence
                if silence.settled:
                    dial.settle()

    def _end_half_open(self, cases: Sequence[Case], firewall: Asked[Shadow] | Unknown) -> None:
        """Ends the wait for a handshake whose last packet is lost where the rules tell which of them stops it."""
        for dial in [dial for case in cases for dial in case.dials if dial.half_open]:
            match _fact(firewall):
                case Known(value=shadow):
                    walk = shadow.walk(dial.endpoint.address)
                    if walk is not None and walk.packet == "ack" and walk.decider is not None:
                        dial.settle()
                case Unknown():
                    return

    def _longest(self) -> float:
        return (self.order.timeout or REMOTE_TIMEOUT) + SILENCE

    def _ask_who_reset(self, cases: Sequence[Case]) -> None:
        untold = [one for case in cases for one in case.attempts if one.reset == NOT_NEEDED]
        told = self._witnesses.refused(untold)
        for case in cases:
            case.attempts = [replace(one, reset=told.get(one.endpoint, one.reset)) for one in case.attempts]

    def _finish(self, case: Case) -> None:
        witnessed = {attempt.endpoint: attempt for attempt in case.attempts}
        case.attempts = [case.beyond(self._finished(dial, witnessed)) for dial in case.dials]

    def _finished(self, dial: Dial, witnessed: dict[Endpoint, Attempt]) -> Attempt:
        attempt = dial.attempt()
        silence = self._silences.get(dial.endpoint)
        if silence and (attempt.outcome is Outcome.UNANSWERED or attempt.half_open or attempt.overflowed):
            return replace(attempt, drops=silence.drops, queue=silence.queue, datagram=silence.datagram)
        return replace(attempt, reset=witnessed[dial.endpoint].reset)

    def _other_addresses(self, case: Case, machine: Machine, firewall: Asked[Shadow] | Unknown) -> tuple[Attempt, ...]:
        """Whether the port answers where else it listens, where it listens only now, and where NAT leads it on."""
        if not isinstance(machine.tables.listeners, Known):
            return ()
        rows = listeners_on(machine.tables.listeners.value, case.target.port)
        unserved = [one for one in case.attempts if one.local and _nothing_takes(one, rows)]
        tried = {one.endpoint for one in case.attempts}
        led_on = _led_on(unserved, firewall)
        others = sorted({where for row in rows if (where := _dialled_as(row)) not in tried}) if unserved else []
        others += [where for where in led_on if where not in tried and where not in others]
        # refused, and a moment later a listener is there: does it answer now?
        others += [one.endpoint for one in case.attempts if _listened_since(one, rows)]
        return self._answers(others[:_CANDIDATES])

    def _answers(self, wanted: Sequence[Endpoint]) -> tuple[Attempt, ...]:
        """What became of a connection to each, made once for all targets."""
        dials = [
            Dial(
                where,
                local=True,
                timeout=CANDIDATE_WAIT,
                server_side=sockets.server_side,
                held_back=self._deferrals.held_back,
            )
            for where in wanted
            if where not in self._candidates
        ]
        connect.wait(dials, monotonic() + CANDIDATE_WAIT + SILENCE)
        for dial in dials:
            dial.settle()
            self._candidates[dial.endpoint] = dial.attempt()
        return tuple(self._candidates[where] for where in wanted)


class _Looks:
    """The cheap looks at the machine that a failure asks for, under way side by side."""

    def __init__(self, cases: Sequence[Case], machine: Machine, order: Order, side: Arrived | None) -> None:
        addresses = sorted({address for case in cases for address in case.addresses})
        ports = sorted({case.target.port for case in cases})
        self._ports = ports
        self._hosts, self._resolver = _name_files(side)  # forks, so it comes before all threads
        self._links = Asked("interfaces", links.look, PROBE_SECONDS)
        self._policy = _asked("port sysctls", policy.look)
        self._routing = _asked("routes", lambda: routes.look(addresses, ports[0] if len(ports) == 1 else 0))
        self._project = ProjectLook()
        self._others = _asked("other network namespaces", lambda: namespaces.look(ports, PROBE_SECONDS))
        self._containers = ContainerLook(
            cases, machine, lambda: _fact(self._others), side, ask=not order.passive, always=order.deep
        )

    def added_to(self, machine: Machine, firewall: Asked[Shadow] | Unknown) -> Machine:
        """The machine with these facts, each waited for until its own deadline."""
        seen = self._containers.by_port()
        return replace(
            machine,
            links=self._links.fact() if machine.links == NOT_NEEDED else machine.links,
            policy=_fact(self._policy),
            routing=_fact(self._routing),
            hosts=self._hosts,
            resolver=self._resolver,
            elsewhere=self._elsewhere(),
            containers=seen,
            compose=self._project.by_port({**dict.fromkeys(self._ports, NOT_NEEDED), **seen}),
            firewall=_fact(firewall),
        )

    def _elsewhere(self) -> dict[int, Fact[Elsewhere]]:
        match _fact(self._others):
            case Known(value=others):
                return {port: Known(seen) for port, seen in others.elsewhere.items()}
            case Unknown() as unknown:
                return dict.fromkeys(self._ports, unknown)


def _name_files(side: Arrived | None) -> tuple[Fact[HostsFile], Fact[ResolverConfig]]:
    """The resolver's files: this machine's, or those that were read of that side."""
    if side is None or side.files is None:
        return names.files(PROBE_SECONDS)
    from diagnose.probes import side_names  # loaded already

    return side_names.hosts_file(side.files), side_names.configuration(side.files)


def _asked(name: str, probe: Callable[[], Fact[T]]) -> Asked[T] | Unknown:
    return Asked(name, probe, PROBE_SECONDS) if IS_LINUX else NOT_LINUX


def _fact(asked: Asked[T] | Unknown) -> Fact[T]:
    return asked if isinstance(asked, Unknown) else asked.fact()


def _near_ports(cases: Sequence[Case]) -> Mapping[Endpoint, int]:
    """Our own port of each connect, for which rules may ask."""
    sources = [(dial.endpoint, dial.source) for case in cases for dial in case.dials]
    return {endpoint: source.port for endpoint, source in sources if source is not None}


def _rules_matter(cases: Sequence[Case], machine: Machine) -> bool:
    """Whether silence of another machine may be the doing of rules here, and root can tell that there are none."""
    silent = (one for case in cases for one in case.attempts if not one.local and one.outcome is Outcome.UNANSWERED)
    return machine.vantage.privileged and any(silent)


def _firewall_may_explain(attempt: Attempt, machine: Machine) -> bool:
    """Whether the rules must be looked at: where the kernel itself refused, for a NAT rule only, and as root only."""
    if icmp_text(attempt):
        return True
    if attempt.half_open or _kept_for_nat(attempt, machine):
        return True
    if attempt.outcome is Outcome.UNANSWERED:
        # else the kernel has completed it, and the program tarries
        return not isinstance(attempt.acceptance, Known) or attempt.acceptance.value is Acceptance.HALF_OPEN
    if attempt.outcome is Outcome.RESET:
        return machine.vantage.privileged
    if attempt.outcome is not Outcome.REFUSED:
        return False
    if refusal(attempt) is Refusal.NOT_KERNEL or machine.vantage.privileged:
        return True
    rows = machine.tables.listeners.value if isinstance(machine.tables.listeners, Known) else ()
    return bool(reached(rows, attempt.address, attempt.port))


def _kept_for_nat(attempt: Attempt, machine: Machine) -> bool:
    """Whether an engine only keeps the port from others: a NAT rule is what should have led the packet away."""
    rows = machine.tables.listeners.value if isinstance(machine.tables.listeners, Known) else ()
    inodes = {row.inode for row in reached(rows, attempt.address, attempt.port)}
    holders = machine.holders.value.found if isinstance(machine.holders, Known) else ()
    return any(one.inode in inodes and one.process.program in RESERVES for one in holders)


def _listened_since(attempt: Attempt, rows: tuple[SocketRow, ...]) -> bool:
    refused = attempt.local and attempt.outcome is Outcome.REFUSED and not icmp_text(attempt)
    return refused and bool(reached(rows, attempt.address, attempt.port))


def _nothing_takes(attempt: Attempt, rows: Sequence[SocketRow]) -> bool:
    """Whether it was refused, or stopped on the way to a port that no socket listens on."""
    if attempt.outcome is Outcome.REFUSED:
        return True
    return not attempt.outcome.works and not may_be_reached(rows, attempt.address, attempt.port)


def _led_on(unserved: Sequence[Attempt], firewall: Asked[Shadow] | Unknown) -> list[Endpoint]:
    """Other addresses of this machine from where its NAT rules lead the same port on."""
    match _fact(firewall) if unserved else NOT_NEEDED:
        case Known(value=shadow):
            asked = {one.endpoint for one in unserved}
            walks = [one for one in shadow.walks if Endpoint(one.address, one.port) in asked]
            return [where for walk in walks for where in walk.served_at]
        case Unknown():
            return []


def _dialled_as(row: SocketRow) -> Endpoint:
    address = unmapped(row.local.address)
    loopback = {"0.0.0.0": "127.0.0.1", "::": "::1"}
    return Endpoint(loopback.get(address, address), row.local.port)
