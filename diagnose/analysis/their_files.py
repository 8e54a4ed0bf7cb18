"""Findings about the names of a side whose files are not this machine's: nothing here writes to them.

Their paths lead below a root that belongs to others, and a link in there may point a shell of ours anywhere.
"""

from __future__ import annotations

from msgspec.structs import replace

from diagnose.model.fact import Known
from diagnose.model.finding import Confidence, Edit, Evidence, Finding, Remedy
from diagnose.model.snapshot import Snapshot

_FILE_TOOLS = ("sh", "chmod")
_BY_ENGINE = (
    "The engine writes a container's /etc/hosts anew at every start: start it with --add-host NAME:ADDRESS (compose: "
    "extra_hosts)"
)


def whose(snapshot: Snapshot) -> str | None:
    """Whose files answered for the names; None: this machine's own."""
    side = snapshot.vantage.side
    return side.name if side is not None and side.pid is not None and not side.own_files else None


def reader(snapshot: Snapshot) -> str:
    """The user as whom the files are read."""
    side = snapshot.vantage.side
    return side.user if side is not None and side.user is not None and not side.own_files else snapshot.vantage.user


def about_theirs(finding: Finding, snapshot: Snapshot) -> Finding:
    """The finding with their files named as theirs, and changed by a person; certain only if every module was asked."""
    owner = whose(snapshot)
    if owner is not None:
        finding = replace(
            finding,
            evidence=tuple(_evidence(one, owner) for one in finding.evidence),
            remedies=tuple(_remedy(one, owner, snapshot) for one in finding.remedies),
        )
    doubts = isinstance(snapshot.names, Known) and snapshot.names.value.doubts
    if doubts and finding.confidence is Confidence.PROVEN:
        return replace(finding, confidence=Confidence.LIKELY)
    return finding


def _evidence(one: Evidence, owner: str) -> Evidence:
    return replace(one, source=f"{one.source} of {owner}") if one.source.startswith("/etc/") else one


def _remedy(remedy: Remedy, owner: str, snapshot: Snapshot) -> Remedy:
    if not remedy.edits and not any(command.argv[0] in _FILE_TOOLS for command in remedy.commands):
        return remedy
    files = sorted({edit.file for edit in remedy.edits})
    by_engine = snapshot.vantage.container is not None and files == ["/etc/hosts"]
    how = _BY_ENGINE if by_engine else "Change it where its files come from (image, chroot)"
    return replace(
        remedy,
        summary=f"{remedy.summary}. That is a file of {owner}, not of this machine. {how}",
        commands=(),
        undo=(),
        survives_reboot=None,
        edits=tuple(Edit(f"{edit.file} of {owner}", edit.line, edit.text) for edit in remedy.edits),
    )
