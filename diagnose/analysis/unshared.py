"""What --from does not share with the processes of that side, though it stands in their network namespace."""

from __future__ import annotations

from collections.abc import Iterator

from diagnose.analysis.publication import callable_name
from diagnose.model.cgroup import CgroupFilters
from diagnose.model.fact import NOT_NEEDED, Known, Reason, Unknown
from diagnose.model.side import Side
from diagnose.model.snapshot import Snapshot
from diagnose.model.target import Intent


def unshared_by_us(snapshot: Snapshot) -> Iterator[tuple[str, Unknown]]:
    """Facts that are not known of that side, by their names for people; and of what is outside, from a container."""
    side = snapshot.vantage.side
    if side is None:
        yield from _outside(snapshot)
        return
    if not side.entered:
        again = f"sudo {snapshot.program.root} run --from {snapshot.vantage.origin} {snapshot.target.address}"
        yield "vantage", Unknown(Reason.NEEDS_ROOT, f"nothing was tried from {side.name}", again)
    if side.ended:
        yield (
            "vantage",
            Unknown(Reason.NOT_VISIBLE, f"{side.name} ended while we looked, and took its side along"),
        )
    if _some_success(snapshot):
        if side.confined:
            yield "own limits", _limits(side, snapshot.intent)
        yield from _their_cgroup(snapshot, side)
    if isinstance(snapshot.names, Known) and snapshot.names.value.doubts:
        services = ", ".join(snapshot.names.value.doubts)
        yield (
            "name resolution",
            Unknown(Reason.NOT_VISIBLE, f"nsswitch.conf asks {services} before, whose code is not run from outside"),
        )


def _some_success(snapshot: Snapshot) -> bool:
    """What works for us may be forbidden to them; what does not work for us has its cause elsewhere."""
    tried = [one.outcome for one in snapshot.attempts] + [one.outcome for one in snapshot.binds]
    return any(outcome.works for outcome in tried)


def _limits(side: Side, intent: Intent) -> Unknown:
    what = "bound" if intent is Intent.BIND else "connected"
    return Unknown(Reason.NOT_VISIBLE, f"we {what} in the place of {side.name}, not as it: {', '.join(side.confined)}")


def _their_cgroup(snapshot: Snapshot, side: Side) -> Iterator[tuple[str, Unknown]]:
    """The programs that the kernel asks for their sockets, and did not ask for ours."""
    match snapshot.cgroup_filters:
        case Known(value=CgroupFilters(theirs=Unknown() as unknown)) if unknown != NOT_NEEDED:
            yield f"cgroup filters of {side.name}", unknown
        case Known(value=CgroupFilters(ours=ours, theirs=Known(value=theirs))):
            common = {one.id for one in ours.value.programs} if isinstance(ours, Known) else set()
            more = sorted({one.name or f"program {one.id}" for one in theirs.programs if one.id not in common})
            if more:
                said = f"its cgroup {theirs.directory} asks {', '.join(more)}, which our connection was not asked"
                yield f"cgroup filters of {side.name}", Unknown(Reason.NOT_VISIBLE, said)
        case _:
            return


def _outside(snapshot: Snapshot) -> Iterator[tuple[str, Unknown]]:
    """We run inside a container: who looks from the machine itself sees more."""
    container = snapshot.vantage.container
    if container is None or _some_success(snapshot):
        return
    place = callable_name(container)
    if place is None:
        return
    again = f"on the machine itself: sudo netdiag run --from container:{place} {snapshot.target.address}"
    yield "outside of this container", Unknown(Reason.NOT_VISIBLE, "its engine, other containers, the machine", again)
