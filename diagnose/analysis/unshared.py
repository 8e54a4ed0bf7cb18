"""What --from does not share with the processes of that side, though it stands in their network namespace."""

from __future__ import annotations

from collections.abc import Iterator

from diagnose.model.fact import Known, Reason, Unknown
from diagnose.model.side import Side
from diagnose.model.snapshot import Snapshot
from diagnose.model.target import Intent


def unshared_by_us(snapshot: Snapshot) -> Iterator[tuple[str, Unknown]]:
    """Facts that are not known of that side, by their names for people."""
    side = snapshot.vantage.side
    if side is None:
        return
    if side.ended:
        yield (
            "vantage",
            Unknown(Reason.NOT_VISIBLE, f"{side.name} ended while we looked, and took its side along"),
        )
    if side.confined and _tried_with_success(snapshot):
        yield "own limits", _limits(side, snapshot.intent)
    if isinstance(snapshot.names, Known) and snapshot.names.value.doubts:
        services = ", ".join(snapshot.names.value.doubts)
        yield (
            "name resolution",
            Unknown(Reason.NOT_VISIBLE, f"nsswitch.conf asks {services} before, whose code is not run from outside"),
        )


def _tried_with_success(snapshot: Snapshot) -> bool:
    """What works for us may be forbidden to them; what does not work for us has its cause elsewhere."""
    tried = [one.outcome for one in snapshot.attempts] + [one.outcome for one in snapshot.binds]
    return any(outcome.works for outcome in tried)


def _limits(side: Side, intent: Intent) -> Unknown:
    what = "bound" if intent is Intent.BIND else "connected"
    return Unknown(Reason.NOT_VISIBLE, f"we {what} in the place of {side.name}, not as it: {', '.join(side.confined)}")
