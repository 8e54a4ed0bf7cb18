"""`netdiag runbook`: the commands about runbooks; loaded when one of them is asked for."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import redirect_stdout
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from msgspec.structs import replace

import checks
from diagnose import cli, library
from diagnose.model.report import Report
from diagnose.model.snapshot import Snapshot
from diagnose.model.target import Intent, Target
from diagnose.parse.origin import BadOriginError, parse_origin
from diagnose.parse.target import BadTargetError, parse_target
from diagnose.probes.program import look
from diagnose.render.printable import printable
from diagnose.render.text import Style
from diagnose.runbook.check import Catalogue, checked
from diagnose.runbook.html import render_html
from diagnose.runbook.model import SUFFIX, AskStep, Runbook, RunStep, Slot
from diagnose.runbook.nodes import Problem
from diagnose.runbook.parse import LONGEST_NAME, NAME
from diagnose.runbook.path import Ended, Known, NeedsAnswer, NeedsInput, NeedsReport, NotDone, Question, walk
from diagnose.runbook.recorded import recorded
from diagnose.runbook.render import Filled, command, render_json, render_markdown, render_text
from diagnose.runbook.schema import result_schema, runbook_schema
from diagnose.runbook.show import show as shown
from diagnose.runbook.template import quoted
from diagnose.runbook.values import value

START = Path(__file__).parent / "runbook" / "start.yaml"

app = typer.Typer(
    help="A support team's knowledge as files that netdiag carries out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class ResultFormat(StrEnum):
    """How the filled-in runbook is written."""

    TEXT = "text"
    MARKDOWN = "markdown"
    HTML = "html"
    JSON = "json"


def _complete(incomplete: str) -> list[str]:
    return [one.name for one in library.places()[0] if one.name.startswith(incomplete)]


_Which = Annotated[
    str,
    typer.Argument(metavar="NAME|FILE", help="A name that `runbook list` shows, or a file.", autocompletion=_complete),
]
_Output = Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", readable=False, help="Write it there.")]


@app.command("list")
def list_runbooks(
    json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """The runbooks that can be run by their name: the user's, the system's and those that come with netdiag."""
    places, left_out = library.places()
    rows = []
    for place in places:
        runbook, problem = _listed(place)
        if runbook is None:
            cli._line(problem)
        else:
            rows.append({"name": place.name, "title": runbook.title, "source": place.source.value})
    for line in left_out:
        cli._line(line)
    if json:
        cli._print(msgspec.json.format(msgspec.json.encode({"runbooks": rows}), indent=2).decode() + "\n", json=True)
        return
    name = max((len(row["name"]) for row in rows), default=0)
    text = "".join(f"{row['name']:<{name}}  {row['source']:<7}  {row['title']}\n" for row in rows)
    cli._print("".join(printable(line) + "\n" for line in text.splitlines()))


@app.command("show")
def show(which: _Which, output: _Output = None) -> None:
    """A runbook as Markdown for a wiki, with a diagram of its steps (Mermaid)."""
    _deliver(shown(_runbook(which)), output)


@app.command("check")
def check(
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help="Runbooks.")],
) -> None:
    """Say what is wrong with runbooks, as FILE:LINE:COLUMN: what, and what was expected; then exit 2."""
    wrong = False
    for file in files:
        try:
            _, problems = _checked(file)
        except _UnreadableError as error:  # the other files are checked nevertheless
            cli._line(str(error))
            wrong = True
            continue
        wrong |= bool(problems)
        cli._print("".join(f"{_problem_line(problem, file)}\n" for problem in problems))
    raise typer.Exit(cli.USAGE if wrong else 0)


@app.command("new")
def new(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="What the new runbook is called.")] = None,
    start: Annotated[
        str | None,
        typer.Option("--from", metavar="NAME|FILE", help="Start from this runbook.", autocompletion=_complete),
    ] = None,
    output: _Output = None,
) -> None:
    """Print a commented start of a runbook, or with --from a copy of another one; -o NAME.runbook.yaml keeps it."""
    if name is None and start is None:
        cli._refuse("new needs the name of the runbook; for example: netdiag runbook new my-database")
    if name is not None and not (NAME.fullmatch(name) and len(name) <= LONGEST_NAME):
        cli._refuse(f"{name!r} is no name of a runbook (a-z, 0-9 and single hyphens); for example: my-database")
    if start is None:
        text = START.read_text(encoding="utf-8")
    else:
        _runbook(start)
        try:
            text = _bytes(_path(start)).decode("utf-8-sig")
        except _UnreadableError as error:  # it was removed in this moment
            cli._refuse(str(error))
    if name is not None:
        text = re.sub(r"(?m)^(name:[ \t]*)[^\s#]+", lambda found: found[1] + name, text, count=1)
    _deliver(text, output)


@app.command("schema")
def schema(
    result: Annotated[bool, typer.Option("--result", help="Of what `runbook run --format json` prints.")] = False,
) -> None:
    """The JSON Schema of a runbook."""
    cli._print(result_schema() if result else runbook_schema())


@app.command("run")
def run(
    which: _Which,
    given: Annotated[
        list[str] | None, typer.Option("--set", metavar="INPUT=VALUE", help="The value of an input; may be repeated.")
    ] = None,
    answer: Annotated[
        list[str] | None,
        typer.Option("--answer", metavar="STEP=CHOICE", help="The answer to a question; may be repeated."),
    ] = None,
    replay: Annotated[
        Path | None,
        typer.Option(metavar="FILE", readable=False, help="Take the diagnoses from a recording or bundle instead."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="The result as JSON (short for --format json).")] = False,
    format_: Annotated[ResultFormat | None, typer.Option("--format", help="How the result is written.")] = None,
    output: _Output = None,
    no_color: Annotated[bool, typer.Option("--no-color", help="No colours.")] = False,
) -> None:
    """Carry a runbook out; exit 0: it works, 1: there is a fix, 3: another team takes over, 2: usage."""
    if json and format_ not in (None, ResultFormat.JSON):
        cli._refuse(f"--json and --format {format_} contradict each other: leave one of them out")
    form = ResultFormat.JSON if json else format_ or ResultFormat.TEXT
    runbook = _runbook(which)
    inputs = _assignments("--set", given or (), dict.fromkeys(runbook.inputs), "input")
    questions = {
        one.id: tuple(choice.name for choice in one.choices) for one in runbook.steps if isinstance(one, AskStep)
    }
    answers = _assignments("--answer", answer or (), questions, "question")
    snapshots = None if replay is None else cli._loaded(replay)
    destination = None if output is None else cli._destinations(output, None, None)[0]
    session = _Session(runbook, snapshots, Known({name: value(one) for name, one in inputs.items()}, answers))
    recording = None if replay is None else str(replay)
    filled = replace(session.carried_out(), recording=recording, program=look().user)
    problems = [] if destination is None else cli._kept(destination, _written(filled, form, plain=True))
    if destination is None or problems:
        text = _rendered(filled, form, no_color=no_color, plain=False)
        cli._print(text, json=form is ResultFormat.JSON)
    for problem in problems:
        cli._line(problem)
    raise typer.Exit(cli.USAGE if problems else filled.ended.end.exit_code)


# what was asked for


def _catalogue() -> Catalogue:
    return Catalogue(tuple(cause.code for cause in checks.CAUSES), tuple(one.name for one in checks.CHECKS))


class _UnreadableError(Exception):
    """A file that cannot be read; the message is one line for the user."""


def _bytes(path: str) -> bytes:
    try:
        return library.read(path)
    except OSError as error:
        raise _UnreadableError(f"cannot read {path!r}: {error.strerror}") from None
    except ValueError as error:  # a NUL in the name
        raise _UnreadableError(f"cannot read {path!r}: {error}") from None


def _checked(path: str) -> tuple[Runbook | None, tuple[Problem, ...]]:
    return checked(_bytes(path), _catalogue())


def _problem_line(problem: Problem, file: str) -> str:
    return printable(problem.line(file))


def _listed(place: library.Place) -> tuple[Runbook | None, str]:
    """The runbook; or in one line why it is not shown."""
    try:
        runbook, problems = checked(library.read(place.path), _catalogue())
    except OSError as error:
        return None, f"{place.path!r} is left out: {error.strerror}"
    more = f" (and {len(problems) - 1} more; netdiag runbook check shows them)" if len(problems) > 1 else ""
    return runbook, f"{problems[0].line(place.path)}{more}" if problems else ""


def _path(which: str) -> str:
    """A name that is known, else a file."""
    places, left_out = library.places()
    if not ("/" in which or "\\" in which or which.endswith((".yaml", ".yml"))):
        for place in places:
            if place.name == which:
                return place.path
        if not Path(which).is_file():
            for line in left_out:
                if f"/{which}{SUFFIX}" in line:
                    cli._line(line)
            known = ", ".join(dict.fromkeys(place.name for place in places))
            cli._refuse(f"no runbook is called {which!r}; there are {known}; a file is named by its path")
    return which


def _runbook(which: str) -> Runbook:
    path = _path(which)
    try:
        runbook, problems = _checked(path)
    except _UnreadableError as error:
        cli._refuse(str(error))
    if runbook is None:
        for problem in problems:
            typer.echo(_problem_line(problem, path), err=True)
        raise typer.Exit(cli.USAGE)
    return runbook


def _assignments(
    option: str, given: Iterable[str], known: Mapping[str, tuple[str, ...] | None], what: str
) -> dict[str, str]:
    """NAME=VALUE, split at the first = and nowhere else; `known` has the values that a name may have, None: any."""
    found: dict[str, str] = {}
    names = ", ".join(known) if known else "none"
    for one in given:
        name, equals, text = one.partition("=")
        if not equals:
            cli._refuse(f"{option} {one!r} has no =; for example: {option} {next(iter(known), 'name')}=value")
        if name not in known:
            cli._refuse(f"{option}: the runbook has no {what} {name!r}; it has {names}")
        choices = known[name]
        if choices is not None and text not in choices:
            cli._refuse(f"{option}: {text!r} is no answer to {name}; there are {', '.join(choices)}")
        if found.setdefault(name, text) != text:
            cli._refuse(f"{option} gives {name} twice, with different values: leave one of them out")
    return found


# carrying it out


class _Session:
    """One run: gives the walk what it asks for, until it ends."""

    def __init__(self, runbook: Runbook, snapshots: tuple[Snapshot, ...] | None, known: Known) -> None:
        self.runbook = runbook
        self.snapshots = snapshots
        self.known = known

    def carried_out(self) -> Filled:
        """The whole path."""
        while True:
            match walk(self.runbook, self.known):
                case Ended() as ended:
                    return Filled(self.runbook, self.known, ended)
                case NeedsInput(name=name, step=step):
                    inputs = {**self.known.inputs, name: value(self._input(name, step))}
                    self.known = replace(self.known, inputs=inputs)
                case NeedsAnswer(step=step, ask=ask):
                    answers = {**self.known.answers, step.id: self._answer(step, quoted(ask))}
                    self.known = replace(self.known, answers=answers)
                case NeedsReport(question=question):
                    reports = {**self.known.reports, question.step: self._report(question)}
                    self.known = replace(self.known, reports=reports)

    def _input(self, name: str, step: str) -> str:
        wanted = self.runbook.inputs[name]
        if _on_terminal():
            return _prompt(wanted.ask, f"the input {name}", default=wanted.default, value_proc=self._reader(name))
        if wanted.default is None:
            cli._refuse(f"the step {step} needs the input {name} ({wanted.ask}); for example: --set {name}=...")
        return wanted.default

    def _reader(self, name: str) -> Callable[[str], str]:
        """Reads what was typed; a target that is none is asked for again."""
        is_target = any(isinstance(one, RunStep) and one.target.parts == (Slot(name),) for one in self.runbook.steps)

        def read(text: str) -> str:
            try:
                if is_target:
                    parse_target(text)
            except BadTargetError as error:
                raise typer.BadParameter(printable(str(error))) from None
            return text

        return read

    def _answer(self, step: AskStep, ask: str) -> str:
        names = [choice.name for choice in step.choices]
        asked = f"{' '.join(ask.split())} ({', '.join(names)})"
        if not _on_terminal():
            example = shlex.quote(f"{step.id}={names[0]}")
            cli._refuse(f"the step {step.id} asks: {asked}; for example: --answer {example}")
        return _prompt(asked, f"the answer to {step.id}", value_proc=_chooser(names))

    def _report(self, question: Question) -> Report | NotDone:
        target = self._target(question)
        self._check_origin(question)
        if self.snapshots is not None:
            found = recorded(question, target, self.snapshots)
            return found if isinstance(found, NotDone) else cli._diagnosed([found])[0]
        if sys.stderr.isatty():
            typer.echo(printable(f"{question.step}: {command(question)}"), err=True)
        return _diagnosed(question, target)

    def _target(self, question: Question) -> Target:
        try:
            return parse_target(question.target)
        except BadTargetError as error:
            cli._refuse(f"the step {question.step}: {error}")

    def _check_origin(self, question: Question) -> None:
        try:
            if question.origin is not None:
                parse_origin(question.origin)
        except BadOriginError as error:
            cli._refuse(f"the step {question.step}: {error}")


def _chooser(names: list[str]) -> Callable[[str], str]:
    """Reads one of the choices; upper and lower case, and the beginning of one alone, are as good."""

    def read(text: str) -> str:
        wanted = text.strip().casefold()
        exact = [name for name in names if name.casefold() == wanted]
        found = exact or [name for name in names if wanted and name.casefold().startswith(wanted)]
        if len(found) != 1:
            raise typer.BadParameter(f"expected one of {', '.join(names)}")
        return found[0]

    return read


def _on_terminal() -> bool:
    return sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()


def _prompt(text: str, what: str, **options: Any) -> str:
    """Asks on standard error: standard output is for the result."""
    try:
        with redirect_stdout(sys.stderr):
            return str(typer.prompt(printable(" ".join(text.split())), err=True, **options))
    except typer.Abort:
        cli._refuse(f"{what} was not given")


def _diagnosed(question: Question, target: Target) -> Report | NotDone:
    """Looks at this machine, from where the step says; afterwards this thread is where it was before."""
    from diagnose.analysis.compose_target import NotLocatedError
    from diagnose.collect import Collection, Order
    from diagnose.collect.compose import with_addresses

    if question.trace and (why := _no_trace()):
        return NotDone(why)
    side = None
    if question.origin is not None:
        side = _side(question.origin)
        if isinstance(side, NotDone):
            return side
    try:
        intent = Intent.BIND if question.bind else Intent.CONNECT
        targets: tuple[Target, ...] = (target,)
        if target.service is not None:
            inside = side is not None and side.side.namespace is not None
            targets = with_addresses(targets, intent, ask=True, inside=inside)
        order = Order(
            targets=targets,
            intent=intent,
            timeout=question.timeout,
            only=question.check,
            skip=question.skip,
            trace=question.trace,
        )
        collection = Collection(order, side)
        try:
            with cli._spinner():
                snapshots = collection.snapshots()
        finally:
            collection.close()
        return cli._diagnosed(snapshots)[0]
    except NotLocatedError as error:
        return NotDone(str(error))
    finally:
        if side is not None:
            side.leave()


def _side(origin: str) -> Any:
    """That side, entered; NotDone: there is nothing of that name to look from now."""
    if sys.platform != "linux":
        return NotDone("--from enters a network namespace, and only Linux has them")
    from diagnose.probes.side import NoSuchSideError, find

    try:
        side = find(parse_origin(origin))
        side.enter()
    except NoSuchSideError as error:
        return NotDone(str(error))
    except PermissionError:
        cli._line(f"--from {origin} needs root: nothing is tried from there, and only what /proc shows of it is read")
    return side


def _no_trace() -> str | None:
    if sys.platform != "linux":
        return "--trace asks the Linux kernel, and this is not Linux"
    from diagnose.probes.vantage import CAP_NET_ADMIN, has_capability

    return None if has_capability(CAP_NET_ADMIN) else "--trace needs root (CAP_NET_ADMIN), and this user is not"


# writing it


def _rendered(filled: Filled, form: ResultFormat, *, no_color: bool, plain: bool) -> str:
    match form:
        case ResultFormat.JSON:
            return render_json(filled)
        case ResultFormat.MARKDOWN:
            return render_markdown(filled)
        case ResultFormat.HTML:
            return render_html(filled)
        case ResultFormat.TEXT:
            colour = not plain and not no_color and cli._wants_colour()
            return render_text(filled, Style(cli._width(), colour, cli._ascii_only(), filled.program))


def _written(filled: Filled, form: ResultFormat, *, plain: bool) -> bytes:
    return _rendered(filled, form, no_color=True, plain=plain).encode("utf-8", errors="backslashreplace")


def _deliver(text: str, output: Path | None) -> None:
    """Writes a page to standard output, or to the file that was asked for."""
    if output is None:
        cli._print(text)
        return
    destination = cli._destinations(output, None, None)[0]
    assert destination is not None
    problems = cli._kept(destination, text.encode("utf-8", errors="backslashreplace"))
    for problem in problems:
        cli._line(problem)
    if problems:
        raise typer.Exit(cli.USAGE)
