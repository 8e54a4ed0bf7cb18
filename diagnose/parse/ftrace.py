"""The text of tracefs' trace_pipe: events with their context, fields and kernel stack."""

from __future__ import annotations

import re

from msgspec import Struct

# TASK-PID [CPU] FLAGS TIMESTAMP: EVENT: FIELDS, where the task's name may hold anything (at most 15 bytes of it)
_HEADER = re.compile(r"-(\d+) +(?:\([ -]*\d*\) +)?\[(\d{3,})\] (\S{4,6}) +[\d.]+: (?:(<stack trace>)|(\w+): (.*))$")
_FRAME = re.compile(r"^ => ([^+\s]+)")
_FIELD = re.compile(r"(\w+)=(\S*)")
_CONTEXT = 2
"""The column of the flags that tells who runs: "." the task itself, "s" a softirq, "h" and "H" a hard interrupt."""
_NESTED = 64
"""How far back the event of a stack is looked for."""
_HIDDEN = "("
"""How a pointer begins that the kernel has no hash for yet, "(____ptrval____)": the same for all."""


class Event(Struct, frozen=True):
    """One tracepoint that fired."""

    name: str
    pid: int
    """The thread that ran on the CPU, which in an interrupt need not be the one that it works for."""
    cpu: int
    context: str
    """One letter: "." the task itself, "s" a softirq, "h" or "H" a hard interrupt, "z" or "Z" an NMI."""
    text: str
    stack: tuple[str, ...] = ()
    """Function names, innermost first; empty where the kernel gave none."""

    @property
    def in_task(self) -> bool:
        """Whether the thread itself ran, and no interrupt on top of it."""
        return self.context == "."

    @property
    def in_softirq(self) -> bool:
        """Whether a softirq ran."""
        return self.context == "s"

    @property
    def packet(self) -> str:
        """The address of the packet that it is about, or a hash of it; empty: of none, or it is hidden."""
        _, _, rest = self.text.partition("skbaddr=")
        address = rest.partition(" ")[0]
        return "" if address.startswith(_HIDDEN) else address

    def fields(self) -> dict[str, str]:
        """The NAME=VALUE pairs of the text."""
        return dict(_FIELD.findall(self.text))


def complete(lines: list[str]) -> int:
    """How many of the lines hold events whose stacks have come as well; what follows them may still be cut short."""
    for index in range(len(lines) - 1, -1, -1):
        header = _HEADER.search(lines[index])
        if header and not header[4]:
            return index
    return 0


def awaiting_stack(lines: list[str]) -> int:
    """How many of the lines stand before an event at their end whose stack the kernel has not written yet."""
    for index in range(len(lines) - 1, -1, -1):
        header = _HEADER.search(lines[index])
        if header:
            return len(lines) if header[4] else index
    return len(lines)


def events(lines: list[str]) -> list[Event]:
    """Every event of the lines in its order; lines that are none (lost-event marks) are left out."""
    found: list[Event] = []
    frames: list[str] | None = None
    owner = -1
    for line in lines:
        header = _HEADER.search(line)
        if header is None:
            frame = _FRAME.match(line)
            if frames is not None and frame:
                frames.append(frame[1])
            continue
        _attach(found, owner, frames)
        frames = None
        pid, cpu, context = int(header[1]), int(header[2]), header[3][_CONTEXT]
        if header[4]:
            owner, frames = _owner(found, pid, cpu, context), []
        else:
            found.append(Event(header[5], pid, cpu, context, header[6]))
    _attach(found, owner, frames)
    return found


def _owner(found: list[Event], pid: int, cpu: int, context: str) -> int:
    """The event whose stack comes: an interrupt may have put its own events between the two."""
    for index in range(len(found) - 1, max(-1, len(found) - 1 - _NESTED), -1):
        event = found[index]
        if event.cpu == cpu and event.pid == pid and event.context == context:
            return -1 if event.stack else index
    return -1


def _attach(found: list[Event], owner: int, frames: list[str] | None) -> None:
    if owner >= 0 and frames:
        event = found[owner]
        found[owner] = Event(event.name, event.pid, event.cpu, event.context, event.text, tuple(frames))
