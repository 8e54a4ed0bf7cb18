"""Targets that are given as error messages: which target each is about, asked on a terminal where it may be several."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer

from diagnose.model.target import Intent
from diagnose.parse.error_text import LONGEST, Ambiguous, Incomplete, Meant, NoError, Reading, read_error

_EXAMPLE = "netdiag run 'connect ECONNREFUSED 127.0.0.1:5432'"


class NotMeantError(ValueError):
    """A message names no target; the text is one line for the user, with nothing of the message but host names."""


def from_messages(texts: Sequence[str], from_error: str | None, *, bind: bool) -> tuple[tuple[str, ...], bool]:
    """The targets as `netdiag run` takes them, and whether a server is to be started there.

    A text without a space is a target already. Raises NotMeantError.
    """
    if not texts and from_error is None:
        raise NotMeantError("no target is given; for example: netdiag run 127.0.0.1:62893")
    said = [(text, _reading(text)) for text in texts]
    if from_error is not None:
        said.append(("", _reading(_standard_input() if from_error == "-" else from_error, must_be=True)))
    meant = [_chosen(reading) if reading is not None else None for _, reading in said]
    intents = {one.intent if one is not None else Intent.CONNECT for one in meant}
    if not bind and len(intents) > 1:
        raise NotMeantError("one message is about starting a server and another is not: give them one by one")
    typed = tuple(text if one is None else one.target for (text, _), one in zip(said, meant, strict=True))
    return typed, bind or intents == {Intent.BIND}


def _reading(text: str, *, must_be: bool = False) -> Reading | None:
    """What a message is about; None for what is a target, or one that is mistyped."""
    if not must_be and not any(character.isspace() for character in text.strip()):
        return None
    reading = read_error(text)
    return None if isinstance(reading, NoError) and not must_be else reading


def _standard_input() -> str:
    data = sys.stdin.buffer.read(LONGEST + 1)
    if len(data) > LONGEST:
        raise NotMeantError(f"standard input has more than {LONGEST} bytes: give the lines of one error only")
    return data.decode("utf-8", errors="replace")


def _chosen(reading: Reading) -> Meant:
    match reading:
        case Meant():
            return reading
        case Ambiguous(choices):
            return _answer(choices)
        case Incomplete(host):
            named = f"the host {host} and no port" if host else "neither a host nor a port"
            example = f"netdiag run {host or 'localhost'}:8080"
            raise NotMeantError(f"the error message names {named}: give the port as well; for example: {example}")
        case NoError():
            raise NotMeantError(f"the text reports no failed connection that is known; for example: {_EXAMPLE}")


def _answer(choices: tuple[Meant, ...]) -> Meant:
    """The one that the user means; asked on a terminal only."""
    spelled = [f"{one.target} --bind" if one.intent is Intent.BIND else one.target for one in choices]
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise NotMeantError(
            f"the error message may be about {' or '.join(spelled)}: give the one that is meant; "
            f"for example: netdiag run {spelled[0]}"
        )
    typer.echo("The error message may be about several targets:", err=True)
    for number, target in enumerate(spelled, start=1):
        typer.echo(f"  {number}  {target}", err=True)
    while True:
        chosen: int = typer.prompt("Which one", type=int, err=True)
        if 1 <= chosen <= len(choices):
            return choices[chosen - 1]
