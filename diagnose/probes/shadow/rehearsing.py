"""Remedies executed in a copy before anybody is told of them: what they mend and open, and what their undo restores."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import AbstractContextManager, contextmanager
from itertools import groupby

from msgspec import Struct

from diagnose.analysis.argument import objection
from diagnose.analysis.firewall_remedies import candidates, combined, without_undo
from diagnose.analysis.owner_places import owner_effect
from diagnose.analysis.reach import reached
from diagnose.analysis.rehearsal import obstacle
from diagnose.model.attempt import Outcome
from diagnose.model.finding import Command, Remedy
from diagnose.model.firewall import Approach, Dialled, End, Obstacle, Rehearsed, Walk, endpoint_of
from diagnose.model.network import Endpoint, is_loopback, is_wildcard
from diagnose.parse import nft, xtables
from diagnose.parse.rule_text import hide_in_walk
from diagnose.parse.xtables import Block
from diagnose.probes.shadow import legacy, netfilter
from diagnose.probes.shadow.copy import Copy
from diagnose.probes.shadow.outside import doors
from diagnose.probes.shadow.probing import Probe, Prober, arrival
from diagnose.probes.shadow.tool import Run, find
from diagnose.probes.shadow.walking import Walker
from diagnose.probes.shadow.words import Moved, Words, backend_of

_STEPS = 4
"""So many rules in a row are mended at most."""
_NEIGHBOURS = 64
"""So many other listeners are dialled at most, to see what a remedy opens beside; the rest is told as not tried."""

Copied = Callable[[], AbstractContextManager[tuple[Copy, Prober]]]
"""Makes a copy for one rehearsal."""


class Latest(Struct, frozen=True):
    """When it is too late to begin another rehearsal."""

    cost: float
    """Seconds that a copy and its probes take; the commands and what is looked at after them take about as much."""
    patience: float
    """By when a rehearsal should have ended (time.monotonic)."""
    until: float
    """By when all of them must have."""

    def allows(self, copies: int) -> bool:
        """Whether there is time for one more, for which so many copies have to be made."""
        return time.monotonic() + (copies + 1) * self.cost < min(self.patience, self.until)


class Tried(Struct, frozen=True):
    """One remedy, and the connects that it mends."""

    rehearsed: Rehearsed
    mends: frozenset[Dialled]
    ends: Mapping[Dialled, tuple[End, Endpoint | None]]
    """What each of those connects came to, and where, if NAT led it elsewhere."""


class Applied(Struct, frozen=True):
    """Remedies executed in a copy, one after the other."""

    remedies: tuple[Remedy, ...]
    obstacles: tuple[Obstacle, ...]
    """What stopped the connect after the first, after the second ..."""
    led_on: bool = False
    """No rule stops it now; NAT leads it on, and nothing listens there, nor where it was sent at first."""


class Rehearsals:
    """Tries the remedies of several walks, each in a copy of its own, and none twice."""

    def __init__(self, copied: Copied, spare: tuple[Copy, Prober] | None, words: Words, latest: Latest) -> None:
        self._copied = copied
        self._spare = spare if spare is not None and spare[0].unmarked else None
        """The copy that the walks were read in, where it will do for the first rehearsal."""
        self._words = words
        self._latest = latest
        self._tried: dict[tuple[Command, ...], Tried | None] = {}
        self._shut: tuple[frozenset[Endpoint], frozenset[Endpoint]] | None = None
        """Which other listeners the rules close now: to this machine, and to the network."""

    def of(self, walk: Walk, dialled: Sequence[Dialled]) -> tuple[Rehearsed, ...]:
        """The candidates of this walk that could be executed in time, and what came of them.

        TimeoutError when there was no time for any.
        """
        ours = walk.came or Endpoint(walk.address, walk.port)
        found: list[Rehearsed] = []
        for number, remedy in enumerate(_owner_first(walk)):
            if remedy.commands not in self._tried:
                if not self._latest.allows(copies=0 if self._spare else 1):
                    if number == 0:
                        raise TimeoutError
                    break
                self._tried[remedy.commands] = self._try(remedy, walk, ours, dialled)
            tried = self._tried[remedy.commands]
            if tried is not None:
                found.append(_for_one(tried, ours))
        return tuple(found)

    @contextmanager
    def _copy(self) -> Iterator[tuple[Copy, Prober]]:
        """A copy in which nothing was executed yet."""
        spare, self._spare = self._spare, None
        if spare is not None:
            yield spare
            return
        with self._copied() as made:
            yield made

    def _try(self, remedy: Remedy, walk: Walk, ours: Dialled, dialled: Sequence[Dialled]) -> Tried | None:
        until = self._latest.until
        with self._copy() as (copy, prober):
            copy.face_the_network()
            prober.listen_on_the_face()
            stage = _Stage(copy, prober, self._words, until)
            inside, outside = (
                _neighbours(copy, {one for one in dialled if not isinstance(one, Approach)}),
                doors(copy.machine.listeners, copy.face),
            )
            if self._shut is None:
                self._shut = stage.shut(inside[:_NEIGHBOURS]), stage.shut_outside(outside[:_NEIGHBOURS])
            shut, shut_outside = self._shut
            executed = stage.apply_until_it_passes(remedy, walk, ours)
            if executed is None:
                return None
            probes = {one: prober.probe(one, until) for one in dialled}
            mends = frozenset(
                one
                for one, probe in probes.items()
                if probe.outcome.works or (one == ours and (executed.led_on or _passes(probe, walk)))
            )
            opens = (
                *(f"{one} from the network" for one in sorted(shut_outside - stage.shut_outside(shut_outside))),
                *(f"{one} from this machine" for one in sorted(shut - stage.shut(shut))),
                *_untried(len(inside[_NEIGHBOURS:]), "this machine"),
                *_untried(len(outside[_NEIGHBOURS:]), "the network"),
            )
            astray = walk.decider is None or any(one.decider is None for one in executed.obstacles)
            whole = combined(executed.remedies, astray=astray)
            if ours in mends and whole.undo and not stage.undoes(whole.undo):
                whole = without_undo(whole)
            ends = {one: _end(probes[one], copy) for one in mends}
            return Tried(
                Rehearsed(whole.commands, ours in mends, opens, whole, obstacles=executed.obstacles), mends, ends
            )


class _Stage:
    """A copy in which commands are executed as they would be on the machine."""

    def __init__(self, copy: Copy, prober: Prober, words: Words, until: float) -> None:
        self._copy = copy
        self._prober = prober
        self._words = words
        self._until = until
        self._tables = copy.tables

    def apply_until_it_passes(self, remedy: Remedy, walk: Walk, ours: Dialled) -> Applied | None:
        """The remedy and those for the rules that stop the connect behind it, with what each of these was needed for.

        A rule that leads it elsewhere stops nothing: it is removed only where it hides a listener of the machine.
        None when one cannot be executed.
        """
        applied: list[Remedy] = []
        obstacles: list[Obstacle] = []
        following: Remedy | None = remedy
        while following is not None and following not in applied:
            if not all(self._execute(command) for command in following.commands):
                return None
            applied.append(following)
            self._copy.reread()
            probe = self._prober.probe(ours, self._until)
            if _passes(probe, walk) or len(applied) == _STEPS:
                break
            then = hide_in_walk(Walker(self._copy, self._words.after(self._moved())).walk(probe))
            if walk.decider is not None and then.decider is None and not self._is_served(ours):
                led_on = then.arrives is not None and probe.outcome is Outcome.REFUSED
                return Applied(tuple(applied), tuple(obstacles), led_on)
            following = next(iter(candidates(then)), None)
            if following is not None and following not in applied:
                obstacles.append(obstacle(then))
        return Applied(tuple(applied), tuple(obstacles))

    def _is_served(self, dialled: Dialled) -> bool:
        """Whether the machine is known to have a listener there."""
        endpoint = endpoint_of(dialled)
        return bool(reached(self._copy.machine.listeners, endpoint.address, endpoint.port))

    def _moved(self) -> Moved:
        lines: dict[tuple[nft.TableKey, int], int] = {}
        for _, held in groupby(netfilter.dump_rules(self._until), key=lambda rule: rule.chain):
            for line, rule in enumerate(held, 1):
                original = self._copy.rules.get((rule.chain.table, rule.handle))
                if original is not None:
                    lines[original.chain.table, original.handle] = line
        legacy_lines = {
            (backend_of(table.block), table.block.info.table): xtables.aligned(self._original(table.block), table.block)
            for table in self._copy.tables
        }
        return Moved(lines, legacy_lines)

    def _original(self, block: Block) -> Block:
        return next(
            one
            for one in self._copy.machine.blocks
            if (one.layout.six, one.info.table) == (block.layout.six, block.info.table)
        )

    def shut(self, endpoints: Iterable[Endpoint]) -> frozenset[Endpoint]:
        """Those that a connect from this machine does not reach."""
        return frozenset(one for one in endpoints if not self._prober.probe(one, self._until).outcome.works)

    def shut_outside(self, endpoints: Iterable[Endpoint]) -> frozenset[Endpoint]:
        """Those that a packet from the network does not reach."""
        known = frozenset(endpoints)
        return known - self._prober.reached_from_outside(sorted(known))

    def undoes(self, commands: Sequence[Command]) -> bool:
        """Whether these commands restore the rules as they were, counters aside."""
        return all(self._execute(command) for command in commands) and self._restored()

    def _restored(self) -> bool:
        for table in self._tables:
            side = legacy.SIDES[1 if table.block.layout.six else 0]
            if not xtables.restored(table.block, legacy.read(side, table.block.info.table)):
                return False
        now = netfilter.dump(self._until)
        return nft.restored(self._copy.listed, now.only(t.key for t in now.tables if t.key.name != self._copy.observer))

    def _execute(self, command: Command) -> bool:
        if objection(command) is not None:  # the tool would read a name of the machine as its language
            return False
        program, *arguments = self._translated(command.argv)
        path = find(program)
        if path is None:
            return False
        try:
            status, _, _ = Run((path, *arguments)).wait(self._until)
        except OSError:
            return False
        return status == 0

    def _translated(self, argv: tuple[str, ...]) -> tuple[str, ...]:
        """With the copy's handles in the place of the machine's."""
        if argv[0] != "nft" or len(argv) < 8 or argv[6] not in ("handle", "position"):
            return argv
        family = next((number for number, name in nft.FAMILIES.items() if name == argv[3]), 0)
        table = nft.TableKey(family, argv[4].encode())
        here = self._copy.rules.items()
        handle = next((own for (where, own), rule in here if where == table and rule.handle == int(argv[7])), None)
        return argv if handle is None else (*argv[:7], str(handle), *argv[8:])


def _owner_first(walk: Walk) -> list[Remedy]:
    """The candidates, before them what the owner's own command adds: it is offered first, and time may run out."""
    effect = owner_effect(walk)
    wanted = effect.commands if effect is not None else ()
    return sorted(candidates(walk), key=lambda one: one.commands != wanted)


def _passes(probe: Probe, walk: Walk) -> bool:
    """Whether the rules let it through: to its listener, or out of here by NAT, unless that way is what was wrong."""
    astray = walk.arrives if walk.decider is None else None
    return probe.outcome.works or (probe.left is not None and probe.left != astray)


def _neighbours(copy: Copy, endpoints: Set[Endpoint]) -> list[Endpoint]:
    """Where else the machine listens, as one dials it from the machine itself."""
    found: set[Endpoint] = set()
    for row in copy.machine.listeners:
        address = row.local.address
        if is_wildcard(address):
            address = "127.0.0.1" if row.family == "ipv4" else "::1"
        if is_loopback(address) or any(one.address == address for one in copy.face):
            found.add(Endpoint(address, row.local.port))
    return sorted(found - endpoints)


def _untried(count: int, where: str) -> tuple[str, ...]:
    return (f"{count} more listeners were not tried from {where}",) if count else ()


def _for_one(tried: Tried, ours: Dialled) -> Rehearsed:
    one = tried.rehearsed
    end, at = tried.ends.get(ours, (End.UNTOLD, None))
    return Rehearsed(one.commands, ours in tried.mends, one.opens, one.remedy, end, at, one.obstacles)


def _end(probe: Probe, copy: Copy) -> tuple[End, Endpoint | None]:
    return probe.end, probe.left or arrival(probe.events, copy.observer)
