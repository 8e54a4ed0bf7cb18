"""Words that several checks share: titles that fit, sockets as people read them."""

from __future__ import annotations

from diagnose.model.attempt import Attempt
from diagnose.model.finding import Command, Evidence, Remedy
from diagnose.model.network import Endpoint, SocketRow

TITLE_LENGTH = 80


def title(text: str) -> str:
    """At most 80 characters; a cut is shown by "..."."""
    return text if len(text) <= TITLE_LENGTH else text[: TITLE_LENGTH - 3].rstrip() + "..."


def connect_evidence(attempt: Attempt) -> Evidence:
    """What connect(2) itself gave."""
    said = attempt.errno or attempt.outcome.value
    return Evidence(f"connect to {attempt.endpoint}: {said} after {attempt.ms:.1f} ms", "connect(2)")


def row_text(row: SocketRow) -> str:
    """LISTEN [::]:8080 (IPv6 only, device eth0)."""
    both = {True: ["IPv6 only"], False: ["IPv4 as well"], None: []}
    notes = [
        *(both[row.v6only] if row.local.address == "::" else []),
        *([f"device {row.device}"] if row.device else []),
    ]
    return f"{row.state.label} {row.local}" + (f" ({', '.join(notes)})" if notes else "")


def dial_instead(endpoint: Endpoint, summary: str) -> Remedy:
    """The remedy of dialling another target, which netdiag verifies."""
    return Remedy(summary=summary, commands=(Command(("netdiag", "run", str(endpoint))),), survives_reboot=None)
