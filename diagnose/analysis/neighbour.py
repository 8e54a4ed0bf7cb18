"""A listener on a target that is another network namespace of this machine."""

from __future__ import annotations

from diagnose.analysis.reach import unmapped
from diagnose.model.attempt import Attempt
from diagnose.model.elsewhere import OtherListener
from diagnose.model.fact import Known
from diagnose.model.finding import Command
from diagnose.model.snapshot import Snapshot


def listener_there(snapshot: Snapshot, attempt: Attempt) -> OtherListener | None:
    """One that takes this very address, in a namespace that has it; an unrelated machine may have the same."""
    if attempt.local or not isinstance(snapshot.elsewhere, Known):
        return None
    wanted = unmapped(attempt.address)
    return next((one for one in snapshot.elsewhere.value.listeners if wanted in _takes(one)), None)


def _takes(listener: OtherListener) -> tuple[str, ...]:
    own = unmapped(listener.local.address)
    if own == "0.0.0.0":
        return tuple(one for one in listener.addresses if ":" not in one)
    return (own, *map(unmapped, listener.addresses))


def run_inside(listener: OtherListener, pid: int, target: str) -> Command:
    """netdiag in the listener's namespace, by its name or else by a process that is in it.

    nsenter(1) and not `ip netns exec`, which mounts another /sys and so hides tracefs.
    """
    place = f"/run/netns/{listener.name}" if listener.name and "/" not in listener.name else f"/proc/{pid}/ns/net"
    return Command(("nsenter", f"--net={place}", "netdiag", "run", target), needs_root=True)
