"""The commands; the only place that joins the parts."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from diagnose import __version__
from diagnose.model.report import Report
from diagnose.model.target import Intent, Target

if TYPE_CHECKING:
    from diagnose.collect import Collection
    from diagnose.files import Destination
    from diagnose.model.snapshot import Snapshot
    from diagnose.probes.side import Arrived

USAGE = 2
INTERNAL = 70
INTERRUPTED = 130
_AGAIN = 0.1
"""Seconds after which an interrupt that the run has not heard is raised again."""

app = typer.Typer(
    name="netdiag",
    help="Why does HOST:PORT not answer? The true cause, the proof, and the command that mends it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Format(StrEnum):
    """How the report is written."""

    TEXT = "text"
    JSON = "json"
    MARKDOWN = "markdown"


def main() -> None:
    """The entry point: whatever goes wrong ends in one line."""
    try:
        app()
    except (typer.Exit, SystemExit):
        raise
    except Exception as error:  # the last resort: a person gets a line, not a traceback
        if os.environ.get("NETDIAG_DEBUG"):
            raise
        _line(f"internal error: {type(error).__name__}: {error}".replace("\n", " "))
        _line(f"this is a bug in netdiag {__version__}; NETDIAG_DEBUG=1 shows where, please report it with that")
        sys.exit(INTERNAL)


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)] = False,
) -> None:
    """Why does HOST:PORT not answer? The true cause, the proof, and the command that mends it."""
    if version:
        typer.echo(f"netdiag {__version__}")
        raise typer.Exit


@app.command()
def run(
    targets: Annotated[
        list[str],
        typer.Argument(
            metavar="TARGET...",
            help="127.0.0.1:62893, localhost:3000, [::1]:80, :80, a URL, a DSN, compose:SERVICE:CONTAINER_PORT",
        ),
    ],
    bind: Annotated[bool, typer.Option("--bind", help="Ask whether a server can be started there.")] = False,
    json: Annotated[bool, typer.Option("--json", help="The report as JSON (short for --format json).")] = False,
    format_: Annotated[Format, typer.Option("--format", help="How the report is written.")] = Format.TEXT,
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", readable=False, help="Write the report there.")
    ] = None,
    check: Annotated[list[str] | None, typer.Option("--check", metavar="NAME", help="Only this check.")] = None,
    skip: Annotated[list[str] | None, typer.Option("--skip", metavar="NAME", help="All but this check.")] = None,
    timeout: Annotated[
        float | None,
        typer.Option(metavar="S", help="Seconds one unanswered attempt may take (1 for local targets, else 3)."),
    ] = None,
    passive: Annotated[
        bool, typer.Option("--passive", help="Look only: no connect, no bind, no packet, no DNS.")
    ] = False,
    record: Annotated[
        Path | None, typer.Option(metavar="FILE", readable=False, help="Keep the snapshot, for replay elsewhere.")
    ] = None,
    pcap: Annotated[
        Path | None, typer.Option(metavar="FILE", readable=False, help="Keep the packets of our own probe (root).")
    ] = None,
    trace: Annotated[
        bool, typer.Option("--trace", help="Have our packets traced by the machine's own rules for a moment (root).")
    ] = False,
    origin: Annotated[
        str | None,
        typer.Option("--from", metavar="VANTAGE", help="Look from there: container:NAME, pid:N or netns:NAME (root)."),
    ] = None,
    no_color: Annotated[bool, typer.Option("--no-color", help="No colours.")] = False,
) -> None:
    """Diagnose; exit 0: it works, 1: it does not and the cause is named, 3: no cause could be named, 2: usage."""
    from diagnose.collect import Collection, Order

    parsed = _parsed(targets)
    _validate(check or (), skip or (), timeout)
    if trace and passive:
        _refuse(
            "--trace sends a packet and makes a table for a moment, and --passive only looks: leave one of them out"
        )
    intent = Intent.BIND if bind else Intent.CONNECT
    report_file, record_file, pcap_file = _destinations(output, record, pcap)
    side = _arrived(origin)
    order = Order(
        targets=_with_addresses(parsed, intent, side, ask=not passive),
        intent=intent,
        timeout=timeout,
        passive=passive,
        only=tuple(check or ()),
        skip=tuple(skip or ()),
        deep=record is not None,
        capture=pcap is not None,
        trace=trace,
    )
    form = Format.JSON if json else format_
    with _ending_cleanly() as unwinding:
        collection = Collection(order, side)
        try:
            with _spinner():
                snapshots = collection.snapshots()
            reports = _diagnosed(snapshots)
            problems = [
                *_written(report_file, _rendered(reports, form, output, no_color, snapshots[0].program.user)),
                *_recorded(record_file, snapshots),
                *_captured(pcap_file, collection),
            ]
        finally:
            unwinding()
            collection.close()
    for problem in problems:
        _line(problem)
    raise typer.Exit(USAGE if problems else _code(reports))


@app.command()
def replay(
    file: Annotated[Path, typer.Argument(metavar="FILE", readable=False, help="A recording made by run --record.")],
    json: Annotated[bool, typer.Option("--json", help="The report as JSON (short for --format json).")] = False,
    format_: Annotated[Format, typer.Option("--format", help="How the report is written.")] = Format.TEXT,
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", readable=False, help="Write the report there.")
    ] = None,
    no_color: Annotated[bool, typer.Option("--no-color", help="No colours.")] = False,
) -> None:
    """The same diagnosis from a recording, without touching this machine."""
    from diagnose.recording import BadRecordingError, decode

    try:
        snapshots = decode(file.read_bytes())
    except OSError as error:
        _refuse(f"cannot read {str(file)!r}: {error.strerror}")
    except BadRecordingError as error:
        _refuse(f"{str(file)!r} {error}")
    reports = _diagnosed(snapshots)
    report_file, problems = _report_file(output)
    problems += _written(report_file, _rendered(reports, Format.JSON if json else format_, output, no_color))
    for problem in problems:
        _line(problem)
    raise typer.Exit(USAGE if problems else _code(reports))


@app.command()
def explain(
    code: Annotated[str, typer.Argument(metavar="CODE", help="A cause, as `netdiag checks` lists them.")],
) -> None:
    """What a cause means, how it is known, how to fix it, when the diagnosis is wrong."""
    import checks
    from diagnose.render.explain import render_page, section

    name = code.partition("/")[0]
    if code not in {cause.code for cause in checks.CAUSES}:
        near = [cause.code for cause in checks.CAUSES if cause.code.startswith(f"{name}/")]
        hint = f"it knows {', '.join(near)}" if near else "netdiag checks lists them"
        _refuse(f"no cause has the code {code!r}; {hint}")
    page = Path(checks.__file__).with_name(f"{name.replace('-', '_')}.md").read_text(encoding="utf-8")
    text = section(page, code)
    if text is None:
        raise LookupError(f"{code} has no page")
    _print(render_page(text, _width()))


@app.command("checks")
def list_checks() -> None:
    """The ordered checks and the causes of each."""
    from checks import CHECKS
    from diagnose.render.explain import render_checks

    _print(render_checks(CHECKS, _width()))


@app.command()
def schema() -> None:
    """The JSON Schema of the report."""
    from diagnose.render.json import report_schema

    _print(report_schema())


def _parsed(texts: Sequence[str]) -> tuple[Target, ...]:
    from diagnose.parse.target import BadTargetError, parse_target

    try:
        return tuple(parse_target(text) for text in texts)
    except BadTargetError as error:
        _refuse(str(error))


def _arrived(origin: str | None) -> Arrived | None:
    """The side to look from, entered; before any thread starts, so that all of them start there."""
    if origin is None:
        return None
    from diagnose.parse.origin import BadOriginError, parse_origin

    try:
        asked = parse_origin(origin)
    except BadOriginError as error:
        _refuse(str(error))
    if sys.platform != "linux":
        _refuse("--from enters a network namespace, and only Linux has them")
    from diagnose.probes.side import NoSuchSideError, find

    try:
        arrived = find(asked)
    except NoSuchSideError as error:
        _refuse(str(error))
    try:
        arrived.enter()
    except NoSuchSideError as error:
        _refuse(str(error))
    except PermissionError:
        _line(f"--from {asked} needs root: nothing is tried from there, and only what /proc shows of it to you is read")
    return arrived


def _with_addresses(
    targets: tuple[Target, ...], intent: Intent, side: Arrived | None, *, ask: bool
) -> tuple[Target, ...]:
    """The targets, with the address and port of this host for those that name a Compose service."""
    if not any(target.service for target in targets):
        return targets
    from diagnose.analysis.compose_target import NotLocatedError
    from diagnose.collect.compose import with_addresses

    try:
        return with_addresses(targets, intent, ask=ask, inside=side is not None and side.side.namespace is not None)
    except NotLocatedError as error:
        _refuse(str(error))


def _validate(only: Sequence[str], skip: Sequence[str], timeout: float | None) -> None:
    from checks import CHECKS

    known = [check.name for check in CHECKS]
    for name in (*only, *skip):
        if name not in known:
            _refuse(f"no check is called {name!r}; there are {', '.join(known)}")
    if timeout is not None and not 0.01 <= timeout <= 3600:
        _refuse(f"--timeout {timeout:g} is not between 0.01 and 3600 seconds; for example: --timeout 2")


def _diagnosed(snapshots: Sequence[Snapshot]) -> tuple[Report, ...]:
    from checks import CHECKS
    from diagnose.engine import diagnose

    return tuple(diagnose(snapshot, CHECKS) for snapshot in snapshots)


def _code(reports: Sequence[Report]) -> int:
    from diagnose.engine import exit_code

    return exit_code(reports)


def _rendered(
    reports: Sequence[Report], form: Format, output: Path | None, no_color: bool, program: str = "netdiag"
) -> str:
    match form:
        case Format.JSON:
            from diagnose.render.json import render_json

            return render_json(reports)
        case Format.MARKDOWN:
            from diagnose.render.markdown import render_markdown

            return render_markdown(reports)
        case Format.TEXT:
            from diagnose.render.text import Style, render_text

            colour = output is None and not no_color and _wants_colour()
            return render_text(reports, Style(_width(), colour, _ascii_only(), program))


def _wants_colour() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _width() -> int:
    import shutil

    return shutil.get_terminal_size((80, 24)).columns


_COERCED = ("C.UTF-8", "C.utf8", "UTF-8")
"""What Python puts into LC_CTYPE where the locale is C (PEP 538)."""


def _ascii_only() -> bool:
    """Whether the locale is ASCII: Python itself speaks UTF-8 there (PEP 538), the terminal may not."""
    names = [os.environ.get(name) for name in ("LC_ALL", "LC_CTYPE", "LANG")]
    if names[1] in _COERCED and not names[0]:
        names[1] = None  # Python's own doing, before anybody could look
    locale = next((name for name in names if name), "C")
    plain = locale in ("C", "POSIX") and sys.platform != "win32"
    return plain or (sys.stdout.encoding or "ascii").lower() in ("ascii", "us-ascii", "ansi_x3.4-1968", "646")


def _destinations(
    output: Path | None, record: Path | None, pcap: Path | None
) -> tuple[Destination | None, Destination | None, Destination | None]:
    """Where the files go, looked at before anything is probed; one that cannot be written ends the run here."""
    asked = (("--output", output, False), ("--record", record, True), ("--pcap", pcap, True))
    if not any(path for _, path, _ in asked):
        return None, None, None
    from diagnose.files import UnwritableError, Wanted, destinations

    wanted = [Wanted(option, str(path), private) for option, path, private in asked if path is not None]
    try:
        found = iter(destinations(wanted))
    except UnwritableError as error:
        _refuse(str(error))
    report, recording, capture = (next(found) if path is not None else None for _, path, _ in asked)
    return report, recording, capture


def _report_file(output: Path | None) -> tuple[Destination | None, list[str]]:
    """Where the report of a replay goes; the problem, where it goes to standard output instead."""
    if output is None:
        return None, []
    from diagnose.files import UnwritableError, Wanted, destinations

    try:
        return destinations([Wanted("--output", str(output), False)])[0], []
    except UnwritableError as error:
        return None, [str(error)]


def _written(output: Destination | None, text: str) -> list[str]:
    """Writes the report, to standard output where the file does not take it; each problem in one line."""
    problems = [] if output is None else _kept(output, text.encode("utf-8", errors="backslashreplace"))
    if output is not None and not problems:
        return []
    try:
        _put(text)
    except OSError as error:
        problems.append(f"cannot write the report: {error.strerror}")
    return problems


def _recorded(record: Destination | None, snapshots: Sequence[Snapshot]) -> list[str]:
    from diagnose.recording import encode

    return [] if record is None else _kept(record, encode(snapshots))


def _kept(file: Destination, data: bytes) -> list[str]:
    try:
        file.write(data)
    except OSError as error:
        return [f"cannot write {file.path!r}: {error.strerror}"]
    finally:
        file.close()
    return []


def _captured(pcap: Destination | None, collection: Collection) -> list[str]:
    if pcap is None:
        return []
    packets, problem = collection.capture(pcap.path)
    problems = [problem] if problem else []
    if packets is None:
        pcap.close()
        return problems
    return [*_kept(pcap, packets), *problems]


def _print(text: str) -> None:
    try:
        _put(text)
    except OSError as error:
        _refuse(f"cannot write to standard output: {error.strerror}")


def _put(text: str) -> None:
    """Writes to standard output; OSError: it is full or closed. A reader that has gone ends the run."""
    if sys.stdout is None:  # started with >&-
        raise OSError(errno.EBADF, "it is closed")
    try:
        sys.stdout.buffer.write(text.encode(sys.stdout.encoding or "utf-8", errors="backslashreplace"))
        sys.stdout.flush()
    except BrokenPipeError:
        _leave_pipe()


def _line(text: str) -> None:
    from diagnose.render.printable import printable

    typer.echo(f"netdiag: {printable(text)}", err=True)


def _refuse(text: str) -> NoReturn:
    _line(text)
    raise typer.Exit(USAGE)


@contextmanager
def _ending_cleanly() -> Iterator[Callable[[], None]]:
    """SIGINT, SIGTERM and SIGHUP unwind the run, so that what was taken up for a moment is put down again.

    What a handler raises is lost where it meets a callback of the interpreter's own, so it is raised again until the
    run unwinds; gives what must be called then, before anything is put down.
    """
    names = ("SIGINT", "SIGTERM", "SIGHUP", "SIGALRM")
    numbers = {name: number for name in names if (number := getattr(signal, name, None)) is not None}
    asked: list[int] = []

    def end(number: int, _frame: FrameType | None) -> NoReturn:
        asked.append(number)
        _alarm(_AGAIN)
        if asked[0] == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + asked[0])

    previous = {number: signal.signal(number, end) for number in numbers.values()}
    try:
        yield lambda: _alarm(0)
    except KeyboardInterrupt:
        _line("interrupted")
        raise typer.Exit(INTERRUPTED) from None
    finally:
        _alarm(0)
        for number, handler in previous.items():
            signal.signal(number, handler)


def _alarm(seconds: float) -> None:
    if hasattr(signal, "setitimer"):  # not on Windows
        signal.setitimer(signal.ITIMER_REAL, seconds, seconds)


@contextmanager
def _spinner() -> Iterator[None]:
    """Shows on a terminal's standard error that it is at work, from half a second on."""
    if not sys.stderr.isatty():
        yield
        return
    import threading

    done = threading.Event()

    def spin() -> None:
        if done.wait(0.5):
            return
        turn = 0
        while not done.wait(0.1):
            sys.stderr.write(f"\r{'|/-'[turn % 3]} looking")
            sys.stderr.flush()
            turn += 1
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()

    thread = threading.Thread(target=spin, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(0.2)


def _leave_pipe() -> NoReturn:
    """The reader has gone: nobody is left to tell."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(128 + 13)
