"""What a root that lacks capabilities is advised, whom sudo does not help."""

from __future__ import annotations

from msgspec.structs import replace

from diagnose.model.confinement import Confinement
from diagnose.model.fact import Known, Reason, Unknown
from diagnose.model.finding import Remedy
from diagnose.model.snapshot import Snapshot

_SUDO = "sudo"
_WAYS_TO_ROOT = (f"run it again with {_SUDO}", "run again with sudo", "run again as root", _SUDO)
_FROM_ROOT = "even from root"
"""What is said of descriptors that root should see, without asking why it does not."""


def bounded_root(snapshot: Snapshot) -> Confinement | None:
    """The bounds of a user who is root and lacks capabilities; None: that user is none, or lacks none."""
    if snapshot.vantage.uid != 0 or not isinstance(snapshot.confinement, Known):
        return None
    confinement = snapshot.confinement.value
    return confinement if confinement.lacks() else None


def lift_for(snapshot: Snapshot, unknown: Unknown) -> str | None:
    """What would make the fact known to the user who looked."""
    bounded = bounded_root(snapshot)
    lift = unknown.lift or ""
    rootward = lift in _WAYS_TO_ROOT or lift.endswith(_FROM_ROOT)
    if bounded is None or unknown.reason is not Reason.NEEDS_ROOT or not rootward:
        return unknown.lift
    return f"this root lacks {_listed(bounded.lacks())}; run it {_outside(snapshot, bounded)}"


def for_this_root(snapshot: Snapshot, remedy: Remedy) -> Remedy:
    """The remedy; where it is to ask again as root, and root has asked, what root lacks."""
    bounded = bounded_root(snapshot)
    again = len(remedy.commands) == 1 and remedy.commands[0].needs_root and not remedy.undo
    if bounded is None or not again or remedy.commands[0].argv[:2] != ("netdiag", "run"):
        return remedy
    if snapshot.target.address not in remedy.commands[0].argv or "--from" in remedy.commands[0].argv:
        return remedy
    lacks = _listed(bounded.lacks())
    return replace(
        remedy,
        summary=f"This root lacks {lacks}, so netdiag could not look. Run netdiag run {snapshot.target.address} "
        f"{_outside(snapshot, bounded)}: it shows what stands in the way.",
        commands=(),
    )


def _listed(names: tuple[str, ...]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _outside(snapshot: Snapshot, bounded: Confinement) -> str:
    if snapshot.vantage.container is not None:
        return "on the machine itself, outside of this container"
    if bounded.own_users:
        return "outside of this user namespace"
    if bounded.unit is not None:
        return f"outside of {bounded.unit} (see its CapabilityBoundingSet=), in a root shell of the machine"
    return "in a root shell that has them (see capsh --print)"
