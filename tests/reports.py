"""Reports for the renderers' tests: three real ones, and the same with hostile text in every place."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec.structs import replace

from checks import CHECKS
from diagnose.engine import diagnose
from diagnose.model.report import Report
from tests.scenes import (
    ALICE,
    NEEDS_ROOT,
    connected,
    dialled,
    held,
    listening,
    process,
    refused,
    roomy_queue,
    rows,
    rule,
    shadow,
    unanswered,
    walk_to,
)

HOSTILE = "\x1b[31m\n| `x` | y |\r```\n# h\x00\x07\x9b2J\u202e\u2066\u2028\u200b\x7fé\u3000<b>&lt;"
"""Escape sequences, line ends, table and code marks, NUL, C1, bidi overrides, invisible and non-ASCII characters."""
_OWN_WORDS = frozenset(
    ("schema", "verdict", "intent", "transport", "severity", "confidence", "risk", "outcome", "code", "explains")
)
"""Keys whose values are never foreign text: closed sets of the program's own, and names that checks give."""


def dropped() -> Report:
    """A rule drops it, and the kernel says so."""
    here = "127.0.0.1:8080"
    return diagnose(
        dialled(
            here,
            unanswered(here, drop="NETFILTER_DROP", queue=roomy_queue(here)),
            listeners=rows(listening(here)),
            holders=held((1, process("python3", 4242, command="python3 -m http.server 8080"))),
            firewall=shadow(walk_to("127.0.0.1", rule("tcp dport 8080 counter packets 3 bytes 180 drop"))),
        ),
        CHECKS,
    )


def closed() -> Report:
    """Nothing listens, seen by an ordinary user who could not see everything."""
    here = "127.0.0.1:62893"
    return diagnose(
        dialled(
            here,
            refused(here),
            seen_by=ALICE,
            listeners=rows(listening("127.0.0.1:62983", 7, uid=1000)),
            holders=held(hidden=31),
            firewall=NEEDS_ROOT,
        ),
        CHECKS,
    )


def working() -> Report:
    """The first address works, the second does not."""
    first, second = "[::1]:3000", "127.0.0.1:3000"
    return diagnose(
        dialled(
            "http://localhost:3000/",
            connected(first),
            refused(second),
            listeners=rows(listening(first, v6only=True)),
            holders=held((1, process("node", 99, uid=1000, command="node server.js"))),
        ),
        CHECKS,
    )


REPORTS = {"dropped": dropped, "closed": closed, "working": working}


def poisoned(report: Report) -> Report:
    """The same report with hostile text at the end of every string that a machine, a user or a recording gave."""
    names = [one.name for one in report.checks]
    hostile = msgspec.convert(_poison(msgspec.to_builtins(report), ""), Report)
    checks = (replace(one, name=name) for one, name in zip(hostile.checks, names, strict=True))
    root = hostile.findings[0] if hostile.root_cause else None  # one object, as the engine gives it
    return replace(hostile, checks=tuple(checks), root_cause=root)


def _poison(value: Any, key: str) -> Any:
    match value:
        case dict():
            return {name: _poison(one, name) for name, one in value.items()}
        case list() | tuple():
            return [_poison(one, key) for one in value]
        case str() if key not in _OWN_WORDS:
            return value + HOSTILE
        case _:
            return value
