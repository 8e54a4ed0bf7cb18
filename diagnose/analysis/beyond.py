"""What lies beyond the rule that stops a connection, and how far a remedy for the rule therefore goes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import assert_never

from msgspec import Struct
from msgspec.structs import replace

from diagnose.analysis.freezing import freezer_of
from diagnose.analysis.owner import Owned, owner
from diagnose.analysis.publication import containers_of, described, is_same
from diagnose.analysis.reach import Coverage, covers, may_be_reached, reached, unmapped
from diagnose.analysis.rehearsal import Derived, derived
from diagnose.analysis.wording import pending
from diagnose.model.attempt import Attempt, Drop, Outcome
from diagnose.model.container import Status
from diagnose.model.fact import Known, Unknown
from diagnose.model.finding import Command, Remedy
from diagnose.model.firewall import End, Walk
from diagnose.model.network import Endpoint, SocketRow, is_loopback, is_wildcard
from diagnose.model.process import Process
from diagnose.model.snapshot import Snapshot


class Served(Struct, frozen=True):
    """A socket listens there, and nothing is known that keeps its program from accepting."""


class Unserved(Struct, frozen=True):
    """No socket listens there: without the rule, the kernel refuses."""


class Suspended(Struct, frozen=True):
    """Every process that holds the listener is stopped or frozen, or its container is paused."""

    processes: tuple[Process, ...]


class Overfull(Struct, frozen=True):
    """The listener's accept queue is over its limit: without the rule, the kernel drops the connection."""

    row: SocketRow


class Away(Struct, frozen=True):
    """NAT leads it out of this network namespace."""

    at: Endpoint | None


class LedOn(Struct, frozen=True):
    """NAT leads it on to an endpoint of this machine that no socket listens on: the kernel refuses it there."""

    at: Endpoint


class Untold(Struct, frozen=True):
    """It could not be determined."""

    why: str


Beyond = Served | Unserved | Suspended | Overfull | Away | LedOn | Untold


def deciding_walk(snapshot: Snapshot, attempt: Attempt) -> Walk | None:
    """The walk of a local attempt that a rule stopped, where no witness of the machine contradicts it."""
    if not attempt.local or attempt.outcome.works or not isinstance(snapshot.firewall, Known):
        return None
    walk = snapshot.firewall.value.walk(attempt.address)
    if walk is None or walk.decider is None or walk.verdict not in ("drop", "reject") or walk.reader is not None:
        return None
    drops = attempt.drops.value if isinstance(attempt.drops, Known) else ()
    by_netfilter = any(one.reason == "NETFILTER_DROP" or one.symbol == "nf_queue" for one in drops)
    if drops and not by_netfilter and not answered_by_a_reset(drops, walk):
        return None
    silent = attempt.outcome in (Outcome.UNANSWERED, Outcome.NOT_ACCEPTED)
    return walk if silent or walk.verdict == "reject" else None


def answered_by_a_reset(drops: Iterable[Drop], walk: Walk) -> bool:
    """Whether the packet got to TCP, which sent a reset for want of a socket: then it is the answer that was lost."""
    return walk.packet == "reply" and any(one.packet == "syn" and one.reason == "NO_SOCKET" for one in drops)


def beyond(snapshot: Snapshot, attempt: Attempt, walk: Walk | None) -> Beyond:
    """What the connection would come to without the rule that stops this walk; the walk: of this very attempt."""
    passed = _passed(walk)
    end, at = (passed.end, passed.at) if passed is not None else (End.UNTOLD, None)
    if end is End.UNTOLD and at is not None:
        return _where_nat_leads(snapshot, at)
    if end is not End.AWAY and at is None:
        return _at_the_port(snapshot, attempt, end, walk)
    return _by_the_copy(end, at)


def served_elsewhere(snapshot: Snapshot, walk: Walk) -> Endpoint | None:
    """Another address of this machine where the port has answered, led on from there by NAT."""
    answering = {one.endpoint for one in (*snapshot.attempts, *snapshot.candidates) if one.outcome.works}
    return next((one for one in walk.served_at if one in answering), None)


def beyond_by_the_copy(walk: Walk) -> Beyond:
    """The same where nothing but the copy is known of the other end: a connection that comes in from outside."""
    passed = _passed(walk)
    return _by_the_copy(passed.end, passed.at) if passed is not None else Untold("no remedy was tried in the copy")


def _by_the_copy(end: End, at: Endpoint | None) -> Beyond:
    match end:
        case End.LISTENER:
            return Served()
        case End.STAND_IN:
            return Unserved()
        case End.AWAY:
            return Away(at)
        case End.UNTOLD:
            led = f"NAT leads it on to {at}" if at is not None else ""
            return Untold(led or "the copy of the rules does not show where the connection ends")
        case _:
            assert_never(end)


def _passed(walk: Walk | None) -> Derived | None:
    """The first rehearsal after which the rules let the connection pass."""
    return next((one for one in derived(walk) if one.mended), None) if walk is not None else None


def _where_nat_leads(snapshot: Snapshot, at: Endpoint) -> Beyond:
    """The copy refused it there: so does the machine, unless the copy lacks one of its listeners."""
    match snapshot.listeners:
        case Known(value=rows) if not may_be_reached(rows, at.address, at.port):
            return LedOn(at)
        case _:
            return Untold(f"NAT leads it on to {at}")


def _at_the_port(snapshot: Snapshot, attempt: Attempt, end: End, walk: Walk | None) -> Beyond:
    match snapshot.listeners:
        case Unknown() as unknown:
            return Served() if end is End.LISTENER else Untold(f"the listeners could not be read: {unknown}")
        case Known(value=rows):
            return _of_rows(snapshot, attempt, rows, end, walk)


def _of_rows(snapshot: Snapshot, attempt: Attempt, rows: tuple[SocketRow, ...], end: End, walk: Walk | None) -> Beyond:
    led = _led_to(walk) if walk is not None else None
    if led is not None and end is not End.LISTENER:
        return Untold(f"NAT leads it on to {led}")
    found = reached(rows, attempt.address, attempt.port)
    if found:
        return _of_listeners(snapshot, found)
    if end is End.LISTENER:
        return Served()
    perhaps = may_be_reached(rows, attempt.address, attempt.port)
    if any(covers(row, attempt.address) is Coverage.UNKNOWN for row in perhaps):
        return Untold("whether the listener on :: takes IPv4 could not be read")
    return Unserved()


def _led_to(walk: Walk) -> Endpoint | None:
    """Where a rule had sent it by the time that it was stopped; an address in other words is the same address."""
    at = walk.arrives or walk.seen_as
    if at is None or at.port != walk.port:
        return at
    asked = unmapped(walk.address)
    same = at.address == asked or (is_wildcard(asked) and is_loopback(at.address))
    return None if same else at


def _of_listeners(snapshot: Snapshot, rows: tuple[SocketRow, ...]) -> Beyond:
    held = [owner(row, snapshot.holders) for row in rows]
    processes = tuple(process for one in held if isinstance(one, Owned) for process in one.processes)
    everyone = all(isinstance(one, Owned) for one in held)
    if everyone and processes and all(_is_suspended(snapshot, one) for one in processes):
        return Suspended(processes)
    if all(row.queue > row.backlog for row in rows):
        return Overfull(rows[0])
    return Served()


def _is_suspended(snapshot: Snapshot, process: Process) -> bool:
    if process.state == "T" or freezer_of(snapshot, process) is not None:
        return True
    seen = containers_of(snapshot)
    if process.container is None or seen is None:
        return False
    paused = (one.container for one in described(seen) if one.status is Status.PAUSED)
    return any(is_same(process.container, one) for one in paused)


# ------ in words


def in_words(found: Beyond, endpoint: Endpoint) -> str:
    """What is wrong there as well, as a clause that follows a colon or a "because"; empty: nothing that is known."""
    match found:
        case Served():
            return ""
        case Unserved():
            return f"nothing listens on {endpoint}, so the kernel refuses the connection once the rule lets it pass"
        case Suspended(processes=(first, *_)):
            return (
                f"the program that listens there, {first.program} (pid {first.pid}), is stopped or paused, so the "
                "connection would not be accepted"
            )
        case Suspended():
            return "the program that listens there is stopped or frozen, so the connection would not be accepted"
        case Overfull(row=row):
            return (
                f"the accept queue of {row.local} is full ({pending(row.queue, row.backlog)}), so the kernel would "
                "drop the connection"
            )
        case Away(at=at):
            where = f" to {at}" if at is not None else ""
            return f"NAT leads the connection on{where}, out of this network namespace"
        case LedOn(at=at):
            return (
                f"NAT leads the connection on to {at}, where nothing listens, so the kernel refuses it once the rule "
                "lets it pass"
            )
        case Untold(why=why):
            return f"it could not be seen what the connection meets behind the rule ({why})"
        case _:
            assert_never(found)


def as_far_as_they_go(remedies: Iterable[Remedy], walk: Walk, found: Beyond, endpoint: Endpoint) -> tuple[Remedy, ...]:
    """The remedies for the deciding rule, each claiming to fix the connection only where that worked."""
    return tuple(_limited(remedies, walk, found, endpoint))


def _limited(remedies: Iterable[Remedy], walk: Walk, found: Beyond, endpoint: Endpoint) -> Iterator[Remedy]:
    ends = _ends(walk)
    for remedy in remedies:
        end = ends.get(remedy.commands)
        limit = _by_the_copy(*end) if end is not None and end[0] is End.AWAY else found
        if isinstance(limit, Served) or not remedy.commands:
            yield remedy
            continue
        rehearsal = replace(remedy.rehearsal, mended=False) if remedy.rehearsal is not None else None
        summary = f"{remedy.summary} {_lead(limit)}: {in_words(limit, endpoint)}."
        yield replace(remedy, summary=summary, rehearsal=rehearsal)


def _lead(limit: Beyond) -> str:
    known = isinstance(limit, Unserved | Suspended | Overfull | LedOn)
    return "This lifts this block only" if known else "Whether the connection works then was not checked"


def _ends(walk: Walk) -> dict[tuple[Command, ...], tuple[End, Endpoint | None]]:
    return {one.remedy.commands: (one.end, one.at) for one in derived(walk)}
