"""What was asked, and what comes together for it while the machine is looked at."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from diagnose.model.attempt import Acceptance, Attempt, Behind, BindAttempt, Outcome
from diagnose.model.cgroup import CgroupFilters
from diagnose.model.compose import ComposeProject
from diagnose.model.container import Containers
from diagnose.model.elsewhere import Elsewhere
from diagnose.model.fact import NOT_NEEDED, Fact, Known, Unknown
from diagnose.model.firewall import Shadow
from diagnose.model.later import Later
from diagnose.model.names import HostsFile, Resolution, ResolverConfig
from diagnose.model.network import Endpoint, Links, PortPolicy, Routing
from diagnose.model.process import Holders
from diagnose.model.snapshot import Program, Vantage
from diagnose.model.target import Intent, Target
from diagnose.model.unit import Units

if TYPE_CHECKING:
    from diagnose.probes.connect import Dial
    from diagnose.probes.sockets import SocketTables
    from diagnose.probes.wire import Flow

REMOTE_TIMEOUT = 3.0
LOCAL_TIMEOUT = REMOTE_TIMEOUT if sys.platform == "win32" else 1.0
"""Seconds that one unanswered attempt may take where the user gave no --timeout.

Windows repeats a refused SYN three times, half a second apart, before it says so (Microsoft KB 175523): less would
make silence of every closed port.
"""
SILENCE = 0.050
"""Seconds without an answer from a local address after which the deep look begins."""
PROBE_SECONDS = 2.0
"""Deadline of one probe of the machine."""


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
    trace: bool = False
    """Let the machine's own rules tell what they do to a packet, by a table that is there for a moment."""


class Case:
    """One target, while its facts come together."""

    def __init__(self, target: Target, resolution: Fact[Resolution]) -> None:
        self.target = target
        self.resolution = resolution
        self.dials: list[Dial] = []
        self.attempts: list[Attempt] = []
        self.binds: tuple[BindAttempt, ...] = ()
        self.candidates: tuple[Attempt, ...] = ()
        self.later: Fact[Later] = NOT_NEEDED
        self.units: Fact[Units] = NOT_NEEDED
        self.cgroup_filters: Fact[CgroupFilters] = NOT_NEEDED
        self.ufw: Fact[bool] = NOT_NEEDED
        self.behind: dict[Endpoint, Fact[Behind]] = {}

    @property
    def addresses(self) -> tuple[str, ...]:
        """What the name resolves to, each once, in the resolver's order."""
        match self.resolution:
            case Known(value=resolution):
                return tuple(dict.fromkeys(one.address for one in resolution.addresses))
            case Unknown():
                return ()

    def beyond(self, attempt: Attempt) -> Attempt:
        """The attempt with what its end in another network namespace shows, which decides whether it works."""
        found = self.behind.get(attempt.endpoint, NOT_NEEDED)
        match found:
            case Known(value=Behind(hung_up=True, ms=ms)) if attempt.outcome is Outcome.CONNECTED:
                return replace(attempt, behind=found, outcome=Outcome.CLOSED, ms=ms)
            case Known(value=Behind(acceptance=Acceptance.PENDING, ms=ms)) if attempt.outcome is Outcome.CONNECTED:
                return replace(attempt, behind=found, outcome=Outcome.NOT_ACCEPTED, ms=ms)
            case Known(value=Behind(acceptance=acceptance)) if isinstance(attempt.acceptance, Unknown):
                return replace(attempt, behind=found, acceptance=Known(acceptance))
            case _:
                return replace(attempt, behind=found)

    @property
    def troubled(self) -> bool:
        """Whether something failed, so that the deep look is worth its time."""
        outcomes = [one.outcome for one in self.attempts]
        for bound in self.binds:
            outcomes += [bound.outcome, bound.plain_outcome]
        return not outcomes or not all(outcome.works for outcome in outcomes)


class Machine(Struct, frozen=True, kw_only=True):
    """What is the same for every target of one run."""

    vantage: Vantage
    program: Program
    links: Fact[Links]
    tables: SocketTables
    holders: Fact[Holders]
    policy: Fact[PortPolicy] = NOT_NEEDED
    routing: Fact[Routing] = NOT_NEEDED
    hosts: Fact[HostsFile] = NOT_NEEDED
    resolver: Fact[ResolverConfig] = NOT_NEEDED
    elsewhere: dict[int, Fact[Elsewhere]] = {}
    containers: dict[int, Fact[Containers]] = {}
    compose: dict[int, Fact[ComposeProject | None]] = {}
    firewall: Fact[Shadow] = NOT_NEEDED
    host_firewall: Fact[Shadow] = NOT_NEEDED


def flow_of(attempt: Attempt) -> Flow | None:
    """The attempt's connection by both of its ends; None: no packet can have left."""
    from diagnose.probes.wire import Flow  # only ever asked for where packets were recorded

    return Flow(attempt.source, attempt.endpoint) if attempt.source else None
