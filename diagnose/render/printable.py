"""Foreign text on its way to a terminal: nothing in it may act on the terminal."""

from __future__ import annotations

import shlex

from diagnose.model.finding import Command


def printable(text: str, *, ascii_only: bool = False) -> str:
    """The text with every control, format and (where asked) non-ASCII character written as an escape."""
    if text.isprintable() and (text.isascii() or not ascii_only):
        return text
    return "".join(_shown(character, ascii_only) for character in text)


def _shown(character: str, ascii_only: bool) -> str:
    if character.isprintable() and (character.isascii() or not ascii_only):
        return character
    if character == "\N{HORIZONTAL ELLIPSIS}":  # of a title that was shortened
        return "..."
    return character.encode("unicode_escape", errors="backslashreplace").decode("ascii")


def command_line(command: Command, *, sudo: bool) -> str:
    """The command as a person pastes it into a shell."""
    line = shlex.join(command.argv)
    return f"sudo {line}" if sudo and command.needs_root else line
