"""The containers that may have to do with a failure: what their engines say, and what the kernel shows without them."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from ipaddress import ip_address
from typing import TYPE_CHECKING

from msgspec.structs import replace

from diagnose.collect.case import PROBE_SECONDS, Case, Machine
from diagnose.model.attempt import Attempt
from diagnose.model.container import Containers, Engine, EngineContainer, Forwarder, Inside
from diagnose.model.elsewhere import Elsewhere
from diagnose.model.fact import NOT_LINUX, Fact, Known, Unknown
from diagnose.model.process import Container, Holders, Process
from diagnose.model.target import Target
from diagnose.pace import patient
from diagnose.probes.bounded import Asked
from diagnose.probes.connect import IS_LINUX
from diagnose.probes.namespaces import Others

if TYPE_CHECKING:
    from diagnose.probes.engines import Question
    from diagnose.probes.side import Arrived

_ENGINE_SECONDS = patient(1.5, 8.0)
_FORWARDER_SECONDS = patient(0.3)
_SECONDS = PROBE_SECONDS + _ENGINE_SECONDS + patient(0.5)
"""For all of it: more than all parts together, each of which has a deadline of its own and loses its own fact only."""


class ContainerLook:
    """Under way from the moment that it is made."""

    def __init__(
        self,
        cases: Sequence[Case],
        machine: Machine,
        others: Callable[[], Fact[Others]],
        side: Arrived | None = None,
        *,
        ask: bool,
        always: bool,
    ) -> None:
        """`others`: waits for the other network namespaces. `ask`: else no engine is asked anything."""
        self._side = side
        self._cases = [case for case in cases if always or _wants(case)]
        self._machine = machine
        self._others = others
        self._ask = ask
        self._asked = Asked("containers", self._look, _SECONDS) if self._cases and IS_LINUX else None

    def by_port(self) -> dict[int, Fact[Containers]]:
        """What was found, waited for until the deadline."""
        match self._asked.fact() if self._asked else NOT_LINUX:
            case Known(value=found):
                return {port: Known(one) for port, one in found.items()}
            case Unknown() as unknown:
                return dict.fromkeys(self._ports(), unknown)

    def _ports(self) -> frozenset[int]:
        return frozenset(case.target.port for case in self._cases)

    def _look(self) -> Fact[dict[int, Containers]]:
        if self._side is not None:
            self._side.leave()  # the engines are ours, wherever we look from
        # here only: what works, and other platforms, need none of them
        from diagnose.probes import engines, forwarders, insides

        ports = self._ports()
        forwarding = Asked("forwarders", lambda: forwarders.look(ports, _FORWARDER_SECONDS), PROBE_SECONDS)
        told = engines.look(self._questions, _ENGINE_SECONDS, ask=self._ask)
        seen = forwarding.fact()
        host = self._host(os.stat("/proc/thread-self/ns/net").st_ino if self._side is not None else None)
        cabled = insides.cabled()
        return Known(
            {port: Containers(told[port], self._insides(port, told[port], seen), seen, host, cabled) for port in ports}
        )

    def _host(self, home: int | None) -> Inside | None:
        from diagnose.probes import insides

        others = self._others()
        elsewhere = self._machine.vantage.side is not None or self._machine.vantage.container is not None
        return insides.host(others.value.namespaces, home) if elsewhere and isinstance(others, Known) else None

    def _questions(self) -> tuple[Question, ...]:
        from diagnose.probes.engines import Question

        return tuple(
            Question(
                port=port,
                addresses=frozenset(one for case in self._on(port) for one in case.addresses),
                names=frozenset(name for case in self._on(port) for name in _names_in(case.target)),
                ids=frozenset(one.id for one in self._known_already(port) if one.id),
            )
            for port in sorted(self._ports())
        )

    def _on(self, port: int) -> list[Case]:
        return [case for case in self._cases if case.target.port == port]

    def _known_already(self, port: int) -> list[Container]:
        """The container that we run in, those that listen on the port, and those that hold what was found so far."""
        holders = self._machine.holders.value.found if isinstance(self._machine.holders, Known) else ()
        others = self._others()
        listeners = others.value.elsewhere[port].listeners if isinstance(others, Known) else ()
        known = [
            self._machine.vantage.container,
            *(one.process.container for one in holders),
            *(one.container for one in listeners),
        ]
        return [one for one in known if one]

    def _ends(self, port: int) -> list[int]:
        """The namespaces in which our own connections were seen to end."""
        found = [one.behind for case in self._on(port) for one in case.attempts]
        return [one.value.namespace for one in found if isinstance(one, Known)]

    def _insides(
        self, port: int, engines: Collection[Engine], forwarding: Fact[tuple[Forwarder, ...]]
    ) -> tuple[Inside, ...]:
        from diagnose.probes import insides

        others = self._others()
        if isinstance(others, Unknown):
            return ()
        told = _told(engines)
        dialled = [one.target.address for one in forwarding.value] if isinstance(forwarding, Known) else []
        relayed = [one.namespace for one in forwarding.value] if isinstance(forwarding, Known) else []
        hosts = [one.network_mode.removeprefix("container:") for one in told]
        wanted = insides.Wanted(
            port=port,
            ids=frozenset((*(one.container.id for one in told), *hosts)),
            addresses=frozenset((*dialled, *(one for case in self._on(port) for one in case.addresses))),
            namespaces=frozenset((*relayed, *self._ends(port))) - {0},
        )
        names = _names(engines)
        found = insides.look(others.value.namespaces, wanted)
        return tuple(replace(one, container=_named(one.container, names)) for one in found)


def _names_in(target: Target) -> Iterator[str]:
    """How the target names a container: as its host, or as a Compose service."""
    yield target.host
    if target.service:
        yield target.service.service


def _wants(case: Case) -> bool:
    """Whether a container of this machine may be behind the failure: it is behind no other machine's."""
    return not case.attempts or any(not one.outcome.works and _may_be_here(one) for one in case.attempts)


def _may_be_here(attempt: Attempt) -> bool:
    return attempt.local or ip_address(attempt.address.partition("%")[0]).is_private


def with_names(machine: Machine) -> Machine:
    """The machine with its containers called as their engines call them."""
    known = [one.value for one in machine.containers.values() if isinstance(one, Known)]
    names = _names([engine for found in known for engine in found.engines])
    if not names:
        return machine
    inside = machine.vantage.container
    return replace(
        machine,
        vantage=replace(machine.vantage, container=_named(inside, names)) if inside else machine.vantage,
        holders=_holders(machine.holders, names),
        elsewhere={port: _elsewhere(seen, names) for port, seen in machine.elsewhere.items()},
    )


def _told(engines: Collection[Engine]) -> list[EngineContainer]:
    return [one for engine in engines if isinstance(engine.containers, Known) for one in engine.containers.value]


def _names(engines: Collection[Engine]) -> dict[str, str]:
    return {one.container.id: one.container.name for one in _told(engines) if one.container.name}


def _named(container: Container, names: Mapping[str, str]) -> Container:
    """By its id, which it may know itself by a part only (its host name)."""
    found = [name for number, name in names.items() if container.id and number.startswith(container.id)]
    return replace(container, name=found[0]) if len(found) == 1 and not container.name else container


def _process(process: Process, names: Mapping[str, str]) -> Process:
    return replace(process, container=_named(process.container, names)) if process.container else process


def _holders(holders: Fact[Holders], names: Mapping[str, str]) -> Fact[Holders]:
    if isinstance(holders, Unknown):
        return holders
    found = tuple(replace(one, process=_process(one.process, names)) for one in holders.value.found)
    return Known(replace(holders.value, found=found))


def _elsewhere(seen: Fact[Elsewhere], names: Mapping[str, str]) -> Fact[Elsewhere]:
    if isinstance(seen, Unknown):
        return seen
    listeners = tuple(
        replace(
            one,
            container=_named(one.container, names) if one.container else None,
            process=_process(one.process, names) if one.process else None,
        )
        for one in seen.value.listeners
    )
    return Known(replace(seen.value, listeners=listeners))
