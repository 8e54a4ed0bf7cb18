"""What is in a bundle, for the person who must agree to send it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from diagnose.bundle.loading import Bundle
from diagnose.bundle.manifest import CAPTURE, MANIFEST, SNAPSHOT, Manifest
from diagnose.render.printable import printable

if TYPE_CHECKING:
    from diagnose.bundle.writing import Packed

_MEMBERS: Mapping[str, str] = {
    SNAPSHOT: "the facts that were recorded; netdiag replay diagnoses them again",
    "report.json": "the report for scripts",
    "report.txt": "the report as a terminal shows it",
    "report.md": "the report for a ticket",
    "report.html": "the report for a browser",
    CAPTURE: "packets of netdiag's own connection attempts, NOT redacted",
}
_THINGS: Mapping[str, tuple[str, str]] = {
    "user": ("user name", "user names"),
    "host": ("host name", "host names"),
    "path": ("path component", "path components"),
    "address": ("public address", "public addresses"),
    "mac": ("link-layer address", "link-layer addresses"),
    "word": ("unknown word", "unknown words"),
    "id": ("container id", "container ids"),
    "name": ("name of a rule's table, chain or set", "names of rules' tables, chains or sets"),
    "comment": ("comment of a rule", "comments of rules"),
    "variable": ("environment variable", "environment variables"),
    "custom": ("match of --redact-also", "matches of --redact-also"),
    "kernel": ("kernel release", "kernel releases"),
    "database": ("database", "databases"),
}


def described(bundle: Bundle) -> str:
    """Every member with its size, and what was replaced."""
    manifest = bundle.manifest
    lines = (
        f"A bundle of {_listed(manifest.targets)}, made by netdiag {manifest.netdiag} at {manifest.created_at}",
        "",
        *_members(manifest),
        "",
        *_redaction(manifest),
    )
    return "".join(f"{printable(line)}\n" for line in lines)


def summarized(packed: Packed, path: str) -> str:
    """What was found and written, when it is."""
    lines = []
    for report in packed.reports:
        cause = report.root_cause
        lines.append(f"{report.target.input}  {report.answered}" + (f": {cause.title} ({cause.code})" if cause else ""))
    lines += [f"Written: {path}, for you alone to read", *_redaction(packed.manifest)]
    lines.append(f"netdiag bundle show {path} lists what is in it, netdiag replay {path} diagnoses it again")
    return "".join(f"{printable(line)}\n" for line in lines)


def _members(manifest: Manifest) -> Iterator[str]:
    width = max(len(str(one.size)) for one in manifest.files) if manifest.files else 1
    yield f"  {MANIFEST:14} {'':>{width}}        this list, with the checksum of each file"
    for one in manifest.files:
        yield f"  {one.name:14} {one.size:>{width}} bytes  {_MEMBERS.get(one.name, '')}"


def _redaction(manifest: Manifest) -> Iterator[str]:
    if manifest.packets:
        yield f"WARNING: {CAPTURE} holds packets, with the addresses and bytes that they had: nothing in it is redacted"
    replaced = [_counted(kind, count) for kind, count in sorted(manifest.redacted.items()) if count]
    yield f"Redacted: {', '.join(replaced)}" if replaced else "Redacted: nothing was found that had to be"
    if manifest.kept:
        yield f"Kept as they are: {', '.join(manifest.kept)}"


def _counted(kind: str, count: int) -> str:
    one, many = _THINGS.get(kind, (kind, f"{kind}s"))
    return f"{count} {one if count == 1 else many}"


def _listed(targets: tuple[str, ...]) -> str:
    shown = ", ".join(targets[:5])
    return f"{shown} and {len(targets) - 5} more" if len(targets) > 5 else shown
