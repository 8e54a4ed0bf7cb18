"""From another side of this machine to the machine itself: what the host's rules do to a container's packets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from diagnose.model.fact import NOT_NEEDED, Fact, Known, Unknown
from diagnose.model.firewall import Approach, Shadow
from diagnose.model.network import Endpoint
from diagnose.pace import patient
from diagnose.probes import links, routes
from diagnose.probes.bounded import Asked

if TYPE_CHECKING:
    from diagnose.probes.connect import Dial
    from diagnose.probes.side import Arrived

T = TypeVar("T")

_LOOK_SECONDS = patient(0.5)
_FIREWALL_SECONDS = patient(3.0)


class Hostward:
    """The connects of that side that go to the host; everything here is asked in the host's own network namespace."""

    def __init__(self, side: Arrived, dials: Sequence[Dial]) -> None:
        self._side = side
        self._dials = [dial for dial in dials if not dial.local]
        self._addresses = self._at_home("the host's addresses", _own_addresses, _LOOK_SECONDS) if self._dials else None
        self._rules: Asked[Shadow] | None = None

    def reaches(self, endpoint: Endpoint) -> bool:
        """Whether this address, another machine's for that side, is the host's."""
        return endpoint.address in self._own()

    def ask(self) -> None:
        """Begins to look what the host's rules do to those of the connects that have not come off."""
        failing = [
            (dial.endpoint, source)
            for dial in self._dials
            if not dial.attempt().outcome.works and (source := dial.source) and self.reaches(dial.endpoint)
        ]
        if failing:
            self._rules = self._at_home("the host's firewall rules", lambda: _walked(failing), _FIREWALL_SECONDS + 0.5)

    def rules(self) -> Fact[Shadow]:
        """The walks, waited for."""
        return self._rules.fact() if self._rules is not None else NOT_NEEDED

    def _own(self) -> frozenset[str]:
        match self._addresses.fact() if self._addresses is not None else NOT_NEEDED:
            case Known(value=found):
                return found
            case Unknown():
                return frozenset()

    def _at_home(self, name: str, look: Callable[[], Fact[T]], seconds: float) -> Asked[T]:
        def at_home() -> Fact[T]:
            self._side.leave()  # this thread only, and those that it starts
            return look()

        return Asked(name, at_home, seconds)


def _own_addresses() -> Fact[frozenset[str]]:
    match links.look():
        case Known(value=seen):
            return Known(frozenset(address for one in seen.interfaces for address in one.addresses))
        case Unknown() as unknown:
            return unknown


def _walked(failing: Sequence[tuple[Endpoint, Endpoint]]) -> Fact[Shadow]:
    """The walks of those whose way in is known: the interface by which their source would be answered."""
    from diagnose.probes import shadow  # only where rules must be read

    sources = sorted({source.address for _, source in failing})
    match routes.look(sources, 0):
        case Known(value=routing):
            ways = {source: lookup.device for source in sources if (lookup := routing.lookup(source))}
        case Unknown() as unknown:
            return unknown
    found = [
        Approach(where, way, source.address)
        for where, source in failing
        if (way := ways.get(source.address)) and way != "lo"
    ]
    near = {where: source.port for where, source in failing}
    return shadow.look(found, _FIREWALL_SECONDS, near) if found else NOT_NEEDED
