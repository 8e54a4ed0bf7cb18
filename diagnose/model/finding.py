"""What a check says: a finding with its evidence and its remedies."""

from __future__ import annotations

from enum import IntEnum, StrEnum

from msgspec import Struct

from diagnose.model.bounds import Argv, Line


class Severity(StrEnum):
    """problem: it stands in the way; warning: it will; info: worth knowing."""

    PROBLEM = "problem"
    WARNING = "warning"
    INFO = "info"


class Confidence(StrEnum):
    """proven: the kernel or the peer said so; likely: all else is excluded; possible: consistent with the facts."""

    PROVEN = "proven"
    LIKELY = "likely"
    POSSIBLE = "possible"


class Stage(IntEnum):
    """Where on a packet's path a cause lies: the first block decides the root cause."""

    NAME = 1
    ROUTE = 2
    LOOPBACK = 3
    FIREWALL = 4
    SOCKET = 5
    PROCESS = 6
    SERVICE = 7


class Cause(Struct, frozen=True):
    """A row of the catalogue. The code is public and never renamed or reused."""

    code: str
    stage: Stage
    summary: str
    """One line for `netdiag checks`."""
    of_the_machine: bool = False
    """It lies, and is mended, on the machine itself, whichever side --from has looked from."""


class Evidence(Struct, frozen=True):
    """A fact in the words of its source."""

    text: str
    source: str
    detail: bool = False
    """Only for whoever wants all of it: the JSON report has it, and the others leave it out."""


class Command(Struct, frozen=True):
    """Runs as it stands: no shell, no placeholders, no sudo."""

    argv: Argv
    needs_root: bool = False


class Edit(Struct, frozen=True):
    """A change to a file that a person makes; where the remedy has commands as well, before them."""

    file: str
    line: Line | None
    """The line, as the file is now, in whose place the text stands afterwards; None: the text is added at the end."""
    text: str
    """One line or several, without the last line's end."""


class Risk(StrEnum):
    """safe: undone by its undo; disruptive: ends something; destructive: loses something."""

    SAFE = "safe"
    DISRUPTIVE = "disruptive"
    DESTRUCTIVE = "destructive"


class Rehearsal(Struct, frozen=True):
    """What the remedy did in a copy of the rule sets."""

    mended: bool
    opens: tuple[str, ...] = ()


class Remedy(Struct, frozen=True, kw_only=True):
    """What mends it, how it is undone, and what it costs."""

    summary: str
    commands: tuple[Command, ...] = ()
    undo: tuple[Command, ...] = ()
    risk: Risk = Risk.SAFE
    survives_reboot: bool | None = None
    edits: tuple[Edit, ...] = ()
    url: str | None = None
    rehearsal: Rehearsal | None = None


class Finding(Struct, frozen=True, kw_only=True):
    """One cause, or one fact worth knowing, with its proof."""

    code: str
    title: str
    """Under 80 characters, no final stop."""
    severity: Severity
    confidence: Confidence
    explanation: str
    evidence: tuple[Evidence, ...] = ()
    remedies: tuple[Remedy, ...] = ()
    explains: tuple[str, ...] = ()
    """Codes of findings that are only its consequence."""
