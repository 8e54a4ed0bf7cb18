"""Writes docs/netdiag.1, the manual page, from the commands themselves: manual.py [FILE]."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import typer
from typer.core import TyperCommand, TyperGroup

from diagnose import __version__
from diagnose.cli import app

Command = TyperCommand | TyperGroup
PAGE = Path(__file__).resolve().parents[1] / "docs" / "netdiag.1"

EXIT_CODES = (
    ("0", "It works: reachable, or bindable with --bind. Warnings do not change that."),
    ("1", "It does not (fully) work, and the cause is named."),
    ("2", "Usage: a bad target or option, an unreadable file, output that cannot be written."),
    ("3", "It does not work, or that is not known, and no cause could be named."),
    ("70", "netdiag itself fails, in one line."),
)
ENVIRONMENT = (
    ("NO_COLOR", "Set to anything but the empty string: no colours (https://no-color.org)."),
    ("COLUMNS", "The width of the report."),
    ("NETDIAG_DEBUG", "With an internal error, show the traceback as well."),
)
EXAMPLES = (
    ("netdiag run 127.0.0.1:62893", "Why does nothing answer there?"),
    ("netdiag run 8080 --bind", "Can a server be started on this port?"),
    ('netdiag run "connect ECONNREFUSED ::1:5432"', "The same, from an error message."),
    ("sudo netdiag run :5432 --from container:web", "What is seen from a container?"),
    ("netdiag run --format junit --output report.xml db:5432", "As a test of a CI job."),
)


def page() -> str:
    """The manual page in the man macros (groff_man(7))."""
    root = typer.main.get_command(app)
    context = typer.Context(root, info_name="netdiag")
    return "\n".join(_page(root, context)) + "\n"


def _page(root: Command, context: typer.Context) -> Iterator[str]:
    yield f'.TH NETDIAG 1 "" "netdiag {__version__}" "User Commands"'
    yield ".SH NAME"
    yield r"netdiag \- why does HOST:PORT not answer?"
    yield ".SH SYNOPSIS"
    for name, command in _leaves(root, context):
        yield r".B " + _roff(name)
        usage = command.collect_usage_pieces(typer.Context(command, info_name=name))
        yield _roff(" ".join(usage))
        yield ".br"
    yield ".SH DESCRIPTION"
    yield _roff(root.help or "")
    yield ".SH COMMANDS"
    for name, command in _leaves(root, context):
        yield f".SS {_roff(name)}"
        yield _roff(" ".join((command.help or "").split()))
        yield from _parameters(command)
    for title, rows in (("EXIT STATUS", EXIT_CODES), ("ENVIRONMENT", ENVIRONMENT), ("EXAMPLES", EXAMPLES)):
        yield f".SH {title}"
        for head, text in rows:
            yield ".TP"
            yield r".B " + _roff(head)
            yield _roff(text)
    yield ".SH SEE ALSO"
    yield ".BR ss (8), .BR nft (8), .BR lsof (8), .BR curl (1)".replace(" .BR", "\n.BR")


def _leaves(command: Command, context: typer.Context) -> Iterator[tuple[str, Command]]:
    """The commands that can be run, by their whole names."""
    if not isinstance(command, TyperGroup):
        yield context.command_path.strip(), command
        return
    for name in command.list_commands(context):
        child = command.get_command(context, name)
        if child is not None and not child.hidden:
            yield from _leaves(child, typer.Context(child, info_name=name, parent=context))


def _parameters(command: Command) -> Iterator[str]:
    context = typer.Context(command)
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is None:
            metavar, text = parameter.make_metavar(context), getattr(parameter, "help", None)
            record = (metavar, text or "")
        yield ".TP"
        yield r".B " + _roff(record[0])
        yield _roff(" ".join(record[1].split()))


def _roff(text: str) -> str:
    """The text for groff: nothing in it is a request or an escape."""
    escaped = text.replace("\\", r"\e").replace("-", r"\-").replace("'", r"\(aq")
    return rf"\&{escaped}" if escaped.startswith((".", "'")) else escaped


if __name__ == "__main__":
    Path(sys.argv[1] if len(sys.argv) > 1 else PAGE).write_text(page(), encoding="utf-8")
