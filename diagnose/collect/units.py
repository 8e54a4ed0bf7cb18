"""When systemd is asked for the units of a port, and how long a connection waits for a service that it starts."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from time import monotonic
from typing import TYPE_CHECKING

from msgspec.structs import replace

from diagnose.analysis.activation import activation, fails, is_activating
from diagnose.collect.case import LOCAL_TIMEOUT, Case, Machine, Order
from diagnose.model.attempt import Outcome
from diagnose.model.fact import NOT_NEEDED, Fact, Known
from diagnose.model.process import Process
from diagnose.model.unit import Tie, Unit, Units
from diagnose.probes import connect
from diagnose.probes.bounded import Asked
from diagnose.probes.connect import IS_LINUX, Dial

if TYPE_CHECKING:
    from diagnose.probes.side import Arrived

ACTIVATION_SECONDS = 10.0
"""How long a connection may wait for the service of a socket unit while systemd starts it."""
_BOOTED = "/run/systemd/system"
"""It is there where systemd is pid 1 (sd_booted(3))."""
_SECONDS = 10.0
"""For systemd to answer, which takes milliseconds but on the slowest of machines."""
_POLL = 0.05
_MOST_PORTS = 8
_ASKED_ABOUT = (Outcome.REFUSED, Outcome.RESET, Outcome.CLOSED, Outcome.NOT_ACCEPTED)
_ENDED = (Outcome.RESET, Outcome.CLOSED, Outcome.NOT_ACCEPTED)


class UnitLook:
    """The looks at the units of one run, under way side by side."""

    def __init__(self, cases: Sequence[Case], machine: Machine, order: Order, side: Arrived | None) -> None:
        self._order = order
        self._machine = machine
        self._asked: dict[int, Asked[Units]] = {}
        self._seen: dict[int, Fact[Units]] = {}
        if side is not None or order.passive or not IS_LINUX or not os.path.isdir(_BOOTED):
            return
        for case in cases:
            if (order.deep or _concerns(case)) and len(self._asked) < _MOST_PORTS:
                self._ask(case)

    def of(self, case: Case) -> Fact[Units]:
        """What was said of this target's port."""
        port = case.target.port
        if port not in self._seen and port in self._asked:
            self._seen[port] = self._asked[port].fact()
        return self._seen.get(port, NOT_NEEDED)

    def await_activation(self, cases: Sequence[Case]) -> None:
        """Lets connections wait longer while the service that is to accept them is being started."""
        if self._order.timeout is not None:
            return
        waiting = {case: found for case in cases if (found := self._for_services(case))}
        ends = monotonic() + ACTIVATION_SECONDS
        while waiting and monotonic() < ends:
            connect.wait([dial for dials in waiting.values() for dial in dials], monotonic() + _POLL)
            waiting = {case: left for case, dials in waiting.items() if (left := self._still_for_services(case, dials))}
        for dial in [dial for dials in waiting.values() for dial in dials]:
            dial.settle()

    def finish(self, cases: Sequence[Case]) -> None:
        """Gives each case its units, as they are now that its attempts are over."""
        for case in cases:
            if any(one.local and one.outcome in _ENDED for one in case.attempts) and _has_sockets(self.of(case)):
                self._look_again(case)
            case.units = self.of(case)

    def _ask(self, case: Case) -> None:
        from diagnose.probes import units  # loaded with its D-Bus only where something failed

        port, reader = case.target.port, self._machine.vantage.reader_uid
        holders, families = _holders(case, self._machine), _families(case)
        self._asked.setdefault(
            port,
            Asked("systemd units", lambda: units.look(port, families, holders, reader, _SECONDS), _SECONDS + 0.5),
        )

    def _for_services(self, case: Case) -> list[Dial]:
        """Those of its connections that a socket unit holds for a service."""
        queued = [dial for dial in case.dials if dial.local and dial.queued]
        if not queued:
            return []
        return self._extended(self.of(case), queued)

    def _still_for_services(self, case: Case, dials: Sequence[Dial]) -> list[Dial]:
        left = [dial for dial in dials if not dial.done]
        if left:
            self._refresh(case)
        return self._extended(self.of(case), left)

    def _extended(self, units: Fact[Units], dials: Sequence[Dial]) -> list[Dial]:
        """Those that go on waiting, each with the time that it has by now."""
        left: list[Dial] = []
        for dial in dials:
            found = activation(units, dial.endpoint)
            service = found.service if found else None
            if service is None:
                continue
            if is_activating(service, _is_young(service)):
                dial.timeout = ACTIVATION_SECONDS
                left.append(dial)
            elif dial.timeout > LOCAL_TIMEOUT:  # it has failed, or says that it is ready
                dial.timeout = LOCAL_TIMEOUT if fails(service) else min(dial.age + LOCAL_TIMEOUT, ACTIVATION_SECONDS)
            elif dial.age < LOCAL_TIMEOUT:  # systemd may not have noticed the connection yet
                left.append(dial)
        return left

    def _refresh(self, case: Case) -> None:
        """The same units again; one that was started once more since has ended in between."""
        from diagnose.probes import units  # loaded already
        from diagnose.probes.manager import NoAnswerError

        seen = self.of(case)
        if not isinstance(seen, Known):
            return
        try:
            now = units.again(seen.value, case.target.port, _families(case), _SECONDS)
        except NoAnswerError:
            return  # what was said before is what is known
        before = {(one.owner, one.name): one for one in seen.value.found}
        found = tuple(_since(before.get((one.owner, one.name)), one) for one in now)
        self._seen[case.target.port] = Known(replace(seen.value, found=found, waited=True))

    def _look_again(self, case: Case) -> None:
        """Once more from the beginning: instances that were started for our connections have names of their own."""
        seen = self.of(case)
        assert isinstance(seen, Known)
        if any(one.accept for one in seen.value.found):
            self._asked.pop(case.target.port)
            self._seen.pop(case.target.port)
            self._ask(case)
            if isinstance(self.of(case), Known):
                return
            self._seen[case.target.port] = seen
        elif not any(one.tie is Tie.TRIGGERED and fails(one) for one in seen.value.found) or _was_reset(case):
            self._refresh(case)


def _since(before: Unit | None, now: Unit) -> Unit:
    if before is None or now.tie is not Tie.TRIGGERED:
        return now
    started = bool(now.invocation) and now.invocation != before.invocation
    return replace(now, starts=before.starts + started)


def _was_reset(case: Case) -> bool:
    return any(one.outcome in (Outcome.RESET, Outcome.CLOSED) for one in case.attempts)


def _has_sockets(units: Fact[Units]) -> bool:
    return isinstance(units, Known) and any(one.tie is Tie.LISTENS for one in units.value.found)


def _concerns(case: Case) -> bool:
    if any(not one.outcome.works for one in case.binds):
        return True
    queued = any(dial.local and dial.queued for dial in case.dials)
    return queued or any(one.local and one.outcome in _ASKED_ABOUT for one in case.attempts)


def _holders(case: Case, machine: Machine) -> tuple[Process, ...]:
    """The processes that hold sockets on the target's port."""
    tables = (machine.tables.tcp, machine.tables.bound, machine.tables.listeners)
    rows = [row for fact in tables if isinstance(fact, Known) for row in fact.value]
    inodes = {row.inode for row in rows if row.local.port == case.target.port}
    found = machine.holders.value.found if isinstance(machine.holders, Known) else ()
    return tuple(dict.fromkeys(one.process for one in found if one.inode in inodes))


def _families(case: Case) -> tuple[int, ...]:
    """AF_INET, AF_INET6."""
    return tuple(sorted({10 if ":" in address else 2 for address in case.addresses}))


def _is_young(unit: Unit) -> bool:
    """Whether its state is newer than a service may take to get ready."""
    if unit.since is None:
        return False
    since = datetime.fromisoformat(unit.since)
    return (datetime.now(UTC) - since).total_seconds() < ACTIVATION_SECONDS
