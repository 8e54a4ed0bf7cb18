"""The pages of the causes, and the list of checks."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from diagnose.model.check import Check


def section(page: str, code: str) -> str | None:
    """The section of a cause in its check's page: from its heading to the next of the same rank."""
    lines = page.splitlines()
    heading = f"## {code}"
    if heading not in lines:
        return None
    start = lines.index(heading)
    end = next((i for i in range(start + 1, len(lines)) if lines[i].startswith("## ")), len(lines))
    return "\n".join(lines[start:end]).strip() + "\n"


def render_page(text: str, width: int) -> str:
    """The section with its paragraphs and list items wrapped to the width; headings and code stay as they are."""
    columns = max(40, min(width, 100))
    return "\n\n".join(_block(block, columns) for block in text.strip().split("\n\n")) + "\n"


def _block(block: str, columns: int) -> str:
    if block.startswith(("#", "    ", "```", "|")):
        heading, newline, rest = block.partition("\n")
        wraps = heading.startswith("#") and newline
        return f"{heading}\n{_block(rest, columns)}" if wraps else block
    items = block.replace("\n- ", "\n\n- ").split("\n\n")
    return "\n".join(_wrapped(item, columns) for item in items)


def _wrapped(paragraph: str, columns: int) -> str:
    indent = "  " if paragraph.startswith("- ") else ""
    return textwrap.fill(
        " ".join(paragraph.split()),
        columns,
        subsequent_indent=indent,
        break_on_hyphens=False,
        break_long_words=False,
    )


def render_checks(checks: Sequence[Check], width: int) -> str:
    """The checks in order, each with the causes that it knows."""
    lines: list[str] = []
    for check in checks:
        lines.append(check.name)
        for cause in check.causes:
            lines.append(f"  {cause.code}")
            lines += textwrap.wrap(
                cause.summary, max(40, min(width, 100)), initial_indent=" " * 6, subsequent_indent=" " * 6
            )
        lines.append("")
    return "\n".join(lines)
