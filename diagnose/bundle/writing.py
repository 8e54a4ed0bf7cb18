"""A bundle of snapshots: redacted, diagnosed as whoever opens it will, and packed."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

import msgspec
from msgspec import Struct

from checks import CAUSES, CHECKS
from diagnose import __version__
from diagnose.bundle import archive
from diagnose.bundle.manifest import CAPTURE, LIMITS, MANIFEST, MOST_VALUES, REPORTS, SNAPSHOT, Manifest, Member
from diagnose.engine import diagnose
from diagnose.model.report import SCHEMA as REPORT_SCHEMA
from diagnose.model.report import Report
from diagnose.model.snapshot import SCHEMA as SNAPSHOT_SCHEMA
from diagnose.model.snapshot import Snapshot
from diagnose.recording import BadRecordingError, decode_foreign, encode
from diagnose.redact.kinds import Group
from diagnose.redact.snapshots import redact
from diagnose.render.html import render_html
from diagnose.render.json import render_json
from diagnose.render.markdown import render_markdown
from diagnose.render.text import Style, render_text

_EARLIEST = (1980, 1, 1, 0, 0, 0)
"""Of a zip file."""


class UnbundledError(ValueError):
    """The snapshots cannot become a bundle; the message is one line for the user."""


class Packed(Struct, frozen=True):
    """A bundle, and what it was made of."""

    data: bytes
    manifest: Manifest
    mapping: bytes
    """What each token stands for, as JSON: for the sender alone."""
    reports: tuple[Report, ...]
    """As they are in the bundle."""
    unredacted: tuple[Report, ...]
    """Of the snapshots as they were."""

    @property
    def faithful(self) -> bool:
        """Whether the bundle's reports name the same causes as those of the snapshots as they were."""
        return list(map(_said, self.reports)) == list(map(_said, self.unredacted))


def pack(
    snapshots: Sequence[Snapshot],
    *,
    keep: Sequence[Group] = (),
    also: Sequence[str] = (),
    packets: bytes | None = None,
) -> Packed:
    """The bundle. `packets`: as they were captured, in which nothing is redacted. Raises UnbundledError."""
    redacted = redact(snapshots, keep, also)
    recorded = encode(redacted.snapshots)
    try:
        reports = tuple(diagnose(snapshot, CHECKS) for snapshot in decode_foreign(recorded))
    except BadRecordingError as error:
        raise UnbundledError(f"what is left of the recording {error}") from None
    original = tuple(diagnose(snapshot, CHECKS) for snapshot in decode_foreign(encode(snapshots)))
    texts = (
        render_json(reports),
        render_text(reports, Style(width=80)),
        render_markdown(reports),
        render_html(reports, {cause.code: cause for cause in CAUSES}),
    )
    members = {SNAPSHOT: recorded} | {
        name: text.encode("utf-8", errors="backslashreplace") for name, text in zip(REPORTS, texts, strict=True)
    }
    if packets is not None:
        members[CAPTURE] = packets
    _check_sizes(members)
    manifest = Manifest(
        netdiag=__version__,
        schemas={"snapshot": SNAPSHOT_SCHEMA, "report": REPORT_SCHEMA},
        created_at=snapshots[0].started_at,
        targets=tuple(report.target.input for report in reports),
        files=tuple(Member(name, len(data), hashlib.sha256(data).hexdigest()) for name, data in members.items()),
        redacted=redacted.counts,
        kept=tuple(sorted({group.value for group in keep} | ({"packets"} if packets is not None else set()))),
        packets=packets is not None,
    )
    first = msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n"
    data = archive.write({MANIFEST: first} | members, _when(manifest.created_at))
    return Packed(data, manifest, _mapping(redacted.mapping), reports, original)


def _check_sizes(members: dict[str, bytes]) -> None:
    for name, data in members.items():
        if len(data) > LIMITS[name]:
            raise UnbundledError(f"{name} would have {len(data) >> 20} MiB, and {LIMITS[name] >> 20} are the most")
    if members[SNAPSHOT].count(b",") > MOST_VALUES:
        raise UnbundledError(f"{SNAPSHOT} would have more than {MOST_VALUES} values")


def _said(report: Report) -> object:
    found = [(one.code, one.severity, one.confidence) for one in report.findings]
    checks = [(one.name, one.outcome) for one in report.checks]
    return report.verdict, report.root_cause and report.root_cause.code, found, checks


def _mapping(tokens: dict[str, str]) -> bytes:
    content = {"schema": "netdiag.mapping/1", "tokens": dict(sorted(tokens.items()))}
    return msgspec.json.format(msgspec.json.encode(content), indent=1) + b"\n"


def _when(created_at: str) -> tuple[int, ...]:
    numbers = tuple(int(one) for one in re.findall(r"\d+", created_at)[:6])
    return numbers if len(numbers) == 6 and 1980 <= numbers[0] <= 2107 else _EARLIEST
