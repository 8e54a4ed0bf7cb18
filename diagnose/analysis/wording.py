"""Words that several checks share: titles that fit, sockets as people read them."""

from __future__ import annotations

from diagnose.model.attempt import Attempt
from diagnose.model.finding import Command, Evidence, Remedy
from diagnose.model.network import Endpoint, SocketRow

TITLE_LENGTH = 80
ELLIPSIS = "\N{HORIZONTAL ELLIPSIS}"
_NAME_LENGTH = 24
"""A name or path stays whole up to here, whatever is around it."""


def title(text: str) -> str:
    """At most 80 characters: first the long names lose their middle, then the sentence its end, at a word."""
    words = text.split(" ")
    for word in sorted({word for word in words if len(word) > _NAME_LENGTH}, key=len, reverse=True):
        excess = sum(map(len, words)) + len(words) - 1 - TITLE_LENGTH
        if excess > 0:
            short = _without_middle(word, max(_NAME_LENGTH, len(word) - excess))
            words = [short if one == word else one for one in words]
    shown = " ".join(words)
    if len(shown) <= TITLE_LENGTH:
        return shown
    while words and len(" ".join(words[:TITLE_LENGTH])) + len(f" {ELLIPSIS}") > TITLE_LENGTH:
        words = words[: min(len(words), TITLE_LENGTH) - 1]
    return " ".join([*words, ELLIPSIS])


def _without_middle(word: str, length: int) -> str:
    """The start and the end of a name or path: one that is cut at its end could be taken for another."""
    head = (length - 1) // 2
    return f"{word[:head]}{ELLIPSIS}{word[head + 1 - length :]}"


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


def pending(queue: int, backlog: int) -> str:
    """2 pending connections, backlog 1: how full an accept queue is."""
    return f"{queue} pending connection{'' if queue == 1 else 's'}, backlog {backlog}"


def dial_instead(endpoint: Endpoint, summary: str) -> Remedy:
    """The remedy of dialling another target, which netdiag verifies."""
    return Remedy(summary=summary, commands=(Command(("netdiag", "run", str(endpoint))),), survives_reboot=None)
