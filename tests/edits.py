"""Edits as a person makes them: the text in the place of its line, by the numbers that the file has before."""

from __future__ import annotations

from collections.abc import Iterable

from diagnose.model.finding import Edit


def applied(text: str, edits: Iterable[Edit]) -> str:
    """The file's text after the edits, which are all of this file."""
    lines = text.split("\n")
    for edit in sorted(edits, key=lambda one: one.line or 0, reverse=True):
        if edit.line is None:
            lines.append(edit.text)
        else:
            end = "\r" if lines[edit.line - 1].endswith("\r") else ""
            lines[edit.line - 1 : edit.line] = [f"{line}{end}" for line in edit.text.split("\n")]
    return "\n".join(lines)
