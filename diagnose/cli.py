"""The commands; the only place that joins the parts."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from typer.core import TyperGroup

from diagnose import __version__, seccomp, temporary
from diagnose.model.report import Report
from diagnose.model.target import Intent, Target
from diagnose.streams import Stream, unfailing

if TYPE_CHECKING:
    from typer._click.core import Command, Context

    from diagnose.collect import Collection
    from diagnose.files import Destination
    from diagnose.model.finding import Cause
    from diagnose.model.snapshot import Snapshot
    from diagnose.probes.side import Arrived
    from diagnose.redact.kinds import Group

USAGE = 2
INTERNAL = 70
_RUNBOOK = "runbook"


class Commands(TyperGroup):
    """The commands, and `runbook` with its own: loaded when it is asked for, since the others start without it."""

    def list_commands(self, ctx: Context) -> list[str]:
        """In the order in which --help shows them."""
        return [*super().list_commands(ctx), _RUNBOOK]

    def get_command(self, ctx: Context, cmd_name: str) -> Command | None:
        """None: there is no such command."""
        if cmd_name != _RUNBOOK:
            return super().get_command(ctx, cmd_name)
        from diagnose.runbook_cli import app as runbook

        command = typer.main.get_command(runbook)
        command.name = _RUNBOOK
        return command


app = typer.Typer(
    name="netdiag",
    cls=Commands,
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
    JSONL = "jsonl"
    HTML = "html"
    JUNIT = "junit"
    SARIF = "sarif"
    GITHUB = "github"


def main() -> None:
    """The entry point: whatever goes wrong ends in one line, and standard streams that fail change no exit code.

    Only a report that could not be written does: SystemExit with 2.
    """
    with unfailing() as (out, _):
        code = _outcome()
        sys.stdout.flush()
        sys.exit(_after_writing(code, out))


def _outcome() -> int:
    """The exit code of the command."""
    try:
        app()
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 0
    except Exception as error:  # noqa: BLE001 (the last resort: a person gets a line, not a traceback)
        if os.environ.get("NETDIAG_DEBUG"):
            import traceback

            traceback.print_exc()
        _line(_told(error))
        return INTERNAL
    return 0


def _told(error: Exception) -> str:
    from netdiag_entry import described, is_of_this_machine

    what = described(error).replace("\n", " ")
    if is_of_this_machine(error):
        return f"cannot go on: {what}"
    return (
        f"internal error: {what}; this is a bug in netdiag {__version__}, "
        "please report it with what NETDIAG_DEBUG=1 shows"
    )


def _after_writing(code: int, out: Stream) -> int:
    if out.error is None or code == INTERNAL:
        return code
    _line(f"cannot write to standard output: {out.error.strerror}")
    return USAGE


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)] = False,
) -> None:
    """Why does HOST:PORT not answer? The true cause, the proof, and the command that mends it."""
    if version:
        typer.echo(f"netdiag {__version__}")
        raise typer.Exit


_Bind = Annotated[bool, typer.Option("--bind", help="Ask whether a server can be started there.")]
_Json = Annotated[bool, typer.Option("--json", help="The report as JSON (short for --format json).")]
_Form = Annotated[Format | None, typer.Option("--format", help="How the report is written.")]
_Output = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="FILE", readable=False, help="Write the report there.")
]
_Check = Annotated[list[str] | None, typer.Option("--check", metavar="NAME", help="Only this check.")]
_Skip = Annotated[list[str] | None, typer.Option("--skip", metavar="NAME", help="All but this check.")]
_Timeout = Annotated[
    float | None,
    typer.Option(metavar="S", help="Seconds one unanswered attempt may take (1 for local targets, else 3)."),
]
_Passive = Annotated[bool, typer.Option("--passive", help="Look only: no connect, no bind, no packet, no DNS.")]
_Trace = Annotated[
    bool, typer.Option("--trace", help="Have our packets traced by the machine's own rules for a moment (root).")
]
_From = Annotated[
    str | None,
    typer.Option("--from", metavar="VANTAGE", help="Look from there: container:NAME, pid:N or netns:NAME (root)."),
]
_NoColor = Annotated[bool, typer.Option("--no-color", help="No colours.")]


@app.command()
def run(
    targets: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="TARGET...",
            help="127.0.0.1:62893, localhost:3000, [::1]:80, :80, a URL, a DSN, compose:SERVICE:CONTAINER_PORT, "
            "or an error message in quotes",
        ),
    ] = None,
    bind: _Bind = False,
    json: _Json = False,
    format_: _Form = None,
    output: _Output = None,
    check: _Check = None,
    skip: _Skip = None,
    timeout: _Timeout = None,
    passive: _Passive = False,
    record: Annotated[
        Path | None, typer.Option(metavar="FILE", readable=False, help="Keep the snapshot, for replay elsewhere.")
    ] = None,
    pcap: Annotated[
        Path | None, typer.Option(metavar="FILE", readable=False, help="Keep the packets of our own probe (root).")
    ] = None,
    trace: _Trace = False,
    origin: _From = None,
    from_error: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="Take the target from an error message; - reads it from standard input."),
    ] = None,
    no_color: _NoColor = False,
) -> None:
    """Diagnose; exit 0: it works, 1: it does not and the cause is named, 3: no cause could be named, 2: usage."""
    parsed, bind = _asked(targets or (), from_error, bind=bind)
    form = _form(json, format_)
    _validate(check or (), skip or (), timeout)
    _validate_means(bind=bind, passive=passive, pcap=pcap is not None, trace=trace)
    report_file, record_file, pcap_file = _destinations(output, record, pcap)
    collection = _collection(
        parsed,
        origin,
        intent=Intent.BIND if bind else Intent.CONNECT,
        timeout=timeout,
        passive=passive,
        only=check or (),
        skip=skip or (),
        deep=record is not None,
        capture=pcap is not None,
        trace=trace,
    )
    try:
        with _spinner():
            snapshots = collection.snapshots()
        reports = _diagnosed(snapshots)
        problems = [
            *_written(report_file, _rendered(reports, form, output, no_color, snapshots[0].program.user), form),
            *_recorded(record_file, snapshots),
            *_captured(pcap_file, collection),
        ]
    finally:
        collection.close()
    for problem in problems:
        _line(problem)
    raise typer.Exit(USAGE if problems else _code(reports))


@app.command()
def replay(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...", readable=False, help="Recordings or bundles, plain or .gz; -: standard input."
        ),
    ],
    json: _Json = False,
    format_: _Form = None,
    output: _Output = None,
    no_color: _NoColor = False,
) -> None:
    """The same diagnosis from recordings or bundles, without touching this machine."""
    form = _form(json, format_)
    reports = _diagnosed([snapshot for file in files for snapshot in _loaded(file)])
    report_file, problems = _report_file(output)
    problems += _written(report_file, _rendered(reports, form, output, no_color), form)
    for problem in problems:
        _line(problem)
    raise typer.Exit(USAGE if problems else _code(reports))


@app.command()
def bundle(
    targets: Annotated[
        list[str],
        typer.Argument(metavar="TARGET... | show FILE", help="What to diagnose, as for run; or show, and a bundle."),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", readable=False, help="Write the bundle there.")
    ] = None,
    bind: _Bind = False,
    check: _Check = None,
    skip: _Skip = None,
    timeout: _Timeout = None,
    passive: _Passive = False,
    pcap: Annotated[
        bool, typer.Option("--pcap", help="Add the packets of our own probe (root; needs --keep packets).")
    ] = False,
    trace: _Trace = False,
    origin: _From = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KIND",
            help="Do not redact users, hosts, addresses, containers, commands or paths; packets: agree to --pcap.",
        ),
    ] = None,
    redact_also: Annotated[
        list[str] | None, typer.Option("--redact-also", metavar="REGEX", help="Redact what this matches as well.")
    ] = None,
    mapping: Annotated[
        Path | None,
        typer.Option(metavar="FILE", readable=False, help="Write there what each token stands for, for you alone."),
    ] = None,
) -> None:
    """Diagnose, and write one file for the people who help you; names and public addresses in it are redacted.

    `netdiag bundle show FILE` lists what is in one.
    """
    if targets[0] == "show":
        _show_bundle(targets[1:])
        return
    parsed, bind = _asked(targets, None, bind=bind)
    groups = _kept_groups(keep or (), pcap=pcap)
    _validate(check or (), skip or (), timeout)
    _validate_means(bind=bind, passive=passive, pcap=pcap, trace=trace)
    if output is None:
        _refuse("bundle needs the name of the file to write; for example: netdiag bundle :8080 -o case.netdiag.zip")
    _matched(redact_also or (), ())
    bundle_file, mapping_file = _private_destinations(("--output", output), ("--mapping", mapping))
    collection = _collection(
        parsed,
        origin,
        intent=Intent.BIND if bind else Intent.CONNECT,
        timeout=timeout,
        passive=passive,
        only=check or (),
        skip=skip or (),
        deep=True,
        capture=pcap,
        trace=trace,
    )
    try:
        with _spinner():
            snapshots = collection.snapshots()
        packets, problem = collection.capture(str(output)) if pcap else (None, None)
    finally:
        collection.close()
    reports, problems = _bundled(snapshots, groups, redact_also or (), packets, bundle_file, mapping_file)
    for one in [*([problem] if problem else []), *problems]:
        _line(one)
    raise typer.Exit(USAGE if problem or problems else _code(reports))


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


def _asked(texts: Sequence[str], from_error: str | None, *, bind: bool) -> tuple[tuple[Target, ...], bool]:
    """The targets, and whether a server is to be started there: an error message may say so itself."""
    if from_error is None and texts and not any(_is_prose(text) for text in texts):
        return _parsed(texts), bind
    from diagnose.error_targets import NotMeantError, from_messages

    try:
        typed, bind = from_messages(texts, from_error, bind=bind)
    except NotMeantError as error:
        _refuse(str(error))
    return _parsed(typed), bind


def _is_prose(text: str) -> bool:
    return any(character.isspace() for character in text.strip())


def _loaded(file: Path) -> tuple[Snapshot, ...]:
    """The snapshots of a recording or bundle."""
    from diagnose.bundle import load
    from diagnose.recording import BadRecordingError

    try:
        return load(file)
    except OSError as error:
        _refuse(f"cannot read {str(file)!r}: {error.strerror}")
    except BadRecordingError as error:
        _refuse(f"{str(file)!r} {error}")


def _show_bundle(files: Sequence[str]) -> None:
    from diagnose.bundle.loading import open_bundle
    from diagnose.bundle.showing import described
    from diagnose.recording import BadRecordingError

    if len(files) != 1:
        _refuse("bundle show needs the name of one bundle; for example: netdiag bundle show case.netdiag.zip")
    try:
        found = open_bundle(Path(files[0]))
    except OSError as error:
        _refuse(f"cannot read {files[0]!r}: {error.strerror}")
    except BadRecordingError as error:
        _refuse(f"{files[0]!r} {error}")
    _print(described(found))


def _kept_groups(names: Sequence[str], *, pcap: bool) -> tuple[Group, ...]:
    """What is not to be redacted; --pcap needs its own consent, since packets cannot be."""
    from diagnose.redact.kinds import Group

    known = [group.value for group in Group]
    for name in names:
        if name not in (*known, _PACKETS):
            _refuse(f"--keep {name!r} is none of {', '.join((*known, _PACKETS))}; for example: --keep hosts")
    if pcap and _PACKETS not in names:
        _refuse("--pcap adds packets, in which nothing can be redacted: agree with --keep packets, or leave it out")
    if _PACKETS in names and not pcap:
        _refuse("--keep packets is about those of --pcap; for example: --pcap --keep packets")
    return tuple(Group(name) for name in dict.fromkeys(names) if name != _PACKETS)


_PACKETS = "packets"


def _matched(patterns: Sequence[str], texts: Sequence[str]) -> tuple[str, ...]:
    """What --redact-also matches; without texts it is only looked at."""
    if not patterns:
        return ()
    from diagnose.bundle.pattern import BadPatternError, matches

    for pattern in patterns:
        try:
            found = matches([pattern], texts)
        except BadPatternError as error:
            _refuse(f"--redact-also {pattern[:60]!r} {error}")
    return matches(patterns, texts) if len(patterns) > 1 else found


def _bundled(
    snapshots: Sequence[Snapshot],
    groups: tuple[Group, ...],
    patterns: Sequence[str],
    packets: bytes | None,
    bundle_file: Destination,
    mapping_file: Destination | None,
) -> tuple[tuple[Report, ...], list[str]]:
    """Writes the bundle and says what is in it; the reports without redaction, and each problem in one line."""
    from diagnose.bundle.showing import summarized
    from diagnose.bundle.writing import UnbundledError, pack
    from diagnose.redact.snapshots import texts_of

    texts = [text for snapshot in snapshots for _, text in texts_of(snapshot)] if patterns else []
    try:
        packed = pack(snapshots, keep=groups, also=_matched(patterns, texts), packets=packets)
    except UnbundledError as error:
        return (), [f"no bundle is written: {error}"]
    problems = _kept(bundle_file, packed.data)
    if mapping_file is not None:
        problems += _kept(mapping_file, packed.mapping)
    if not packed.faithful:
        _line("the redacted recording gives another answer than this machine does: tell so when you send it")
    if not problems and bundle_file.path != "-":
        _print(summarized(packed, bundle_file.path))
    return packed.unredacted, problems


def _parsed(texts: Sequence[str]) -> tuple[Target, ...]:
    from diagnose.parse.target import BadTargetError, parse_target

    try:
        return tuple(parse_target(text) for text in texts)
    except BadTargetError as error:
        _refuse(str(error))


def _collection(
    targets: tuple[Target, ...],
    origin: str | None,
    *,
    intent: Intent,
    timeout: float | None,
    passive: bool,
    only: Sequence[str],
    skip: Sequence[str],
    deep: bool,
    capture: bool,
    trace: bool,
) -> Collection:
    """What looks at the targets, from the vantage point asked for; to be closed."""
    from diagnose.collect import Collection, Order

    side = _arrived(origin)
    order = Order(
        targets=_with_addresses(targets, intent, side, ask=not passive),
        intent=intent,
        timeout=timeout,
        passive=passive,
        only=tuple(only),
        skip=tuple(skip),
        deep=deep,
        capture=capture,
        trace=trace,
    )
    return Collection(order, side)


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


def _form(json: bool, form: Format | None) -> Format:
    if json and form not in (None, Format.JSON):
        _refuse(f"--json and --format {form} contradict each other: leave one of them out; for example: --json")
    return Format.JSON if json else form or Format.TEXT


def _validate(only: Sequence[str], skip: Sequence[str], timeout: float | None) -> None:
    from checks import CHECKS

    known = [check.name for check in CHECKS]
    for name in (*only, *skip):
        if name not in known:
            _refuse(f"no check is called {name!r}; there are {', '.join(known)}")
    for name in only:
        if name in skip:
            _refuse(f"--check {name} and --skip {name} contradict each other; for example: --check {name}")
    if set(known) <= set(skip):
        _refuse(f"--skip leaves no check over; for example: --skip {skip[0]}")
    if timeout is not None and not 0.01 <= timeout <= 3600:
        _refuse(f"--timeout {timeout:g} is not between 0.01 and 3600 seconds; for example: --timeout 2")


def _validate_means(*, bind: bool, passive: bool, pcap: bool, trace: bool) -> None:
    """Refuses --pcap and --trace where the other options, this platform or this user rule them out."""
    asked = [name for name, wanted in (("--pcap", pcap), ("--trace", trace)) if wanted]
    if not asked:
        return
    from diagnose.probes.vantage import CAP_NET_ADMIN, CAP_NET_RAW, has_capability

    for name in asked:
        example = f"for example: sudo netdiag run 127.0.0.1:8080 {name}{' probe.pcap' * (name == '--pcap')}"
        if bind or passive:
            other, why = ("--passive", "only looks") if passive else ("--bind", "only binds")
            _refuse(f"{name} is about a packet that is sent, and {other} {why}: leave one of them out; {example}")
        if sys.platform != "linux":
            _refuse(f"{name} asks the Linux kernel, and this is not Linux: leave it out")
        number, right = (CAP_NET_RAW, "CAP_NET_RAW") if name == "--pcap" else (CAP_NET_ADMIN, "CAP_NET_ADMIN")
        if not has_capability(number):
            _refuse(f"{name} needs root ({right}), and this user is not; {example}")


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
        case Format.JSONL:
            from diagnose.render.json import render_jsonl

            return render_jsonl(reports)
        case Format.HTML:
            from diagnose.render.html import render_html

            return render_html(reports, _causes())
        case Format.JUNIT:
            from diagnose.render.junit import render_junit

            return render_junit(reports)
        case Format.SARIF:
            from diagnose.render.sarif import render_sarif

            return render_sarif(reports, _causes())
        case Format.GITHUB:
            from diagnose.render.github import render_github

            return render_github(reports)
        case Format.TEXT:
            from diagnose.render.text import Style, render_text

            colour = output is None and not no_color and _wants_colour()
            return render_text(reports, Style(_width(), colour, _ascii_only(), program))


def _causes() -> dict[str, Cause]:
    from checks import CAUSES

    return {cause.code: cause for cause in CAUSES}


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


def _private_destinations(
    first: tuple[str, Path], second: tuple[str, Path | None]
) -> tuple[Destination, Destination | None]:
    """Where files go that only their owner may read; the second may not be asked for."""
    from diagnose.files import UnwritableError, Wanted, destinations

    wanted = [Wanted(option, str(path), True) for option, path in (first, second) if path is not None]
    try:
        found = destinations(wanted)
    except UnwritableError as error:
        _refuse(str(error))
    return found[0], found[1] if len(found) > 1 else None


def _report_file(output: Path | None) -> tuple[Destination | None, list[str]]:
    """Where the report of a replay goes; the problem, where it goes to standard output instead."""
    if output is None:
        return None, []
    from diagnose.files import UnwritableError, Wanted, destinations

    try:
        return destinations([Wanted("--output", str(output), False)])[0], []
    except UnwritableError as error:
        return None, [str(error)]


def _written(output: Destination | None, text: str, form: Format) -> list[str]:
    """Writes the report, to standard output where the file does not take it; each problem in one line."""
    problems = [] if output is None else _kept(output, text.encode("utf-8", errors="backslashreplace"))
    if output is None or problems:
        _print(text, json=form in (Format.JSON, Format.JSONL, Format.SARIF))
    return problems


def _recorded(record: Destination | None, snapshots: Sequence[Snapshot]) -> list[str]:
    if record is None:
        return []
    from diagnose.recording import encode

    return _kept(record, encode(snapshots))


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


def _print(text: str, *, json: bool = False) -> None:
    """Writes to standard output; JSON is the same in every encoding, elsewhere a character that it lacks is \\xNN."""
    encoding = sys.stdout.encoding or "utf-8"
    if json and encoding.lower() not in ("utf-8", "utf8"):
        text = _ascii_json(text)
    sys.stdout.buffer.write(text.encode(encoding, errors="backslashreplace"))
    sys.stdout.flush()


def _ascii_json(text: str) -> str:
    """Every other character as \\uNNNN, those beyond 65,535 as two of them (RFC 8259, section 7)."""
    import json

    return "".join(char if char.isascii() else json.dumps(char)[1:-1] for char in text)


def _line(text: str) -> None:
    from diagnose.render.printable import printable

    typer.echo(f"netdiag: {printable(text)}", err=True)


def _refuse(text: str) -> NoReturn:
    _line(text)
    raise typer.Exit(USAGE)


@contextmanager
def _spinner() -> Iterator[None]:
    """Shows on a terminal's standard error that it is at work, from half a second on, in its foreground."""
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
            if _in_foreground():
                sys.stderr.write(f"\r{'|/-'[turn % 3]} looking")
                sys.stderr.flush()
                turn += 1
        if turn and _in_foreground():
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    thread = threading.Thread(target=spin, daemon=True)

    def stop() -> None:
        done.set()
        thread.join(0.2)

    try:
        seccomp.require("threads")
        _, held = temporary.make(thread.start, lambda _: stop())
    except (RuntimeError, OSError):  # no thread can be had: it is an ornament
        yield
        return
    try:
        yield
    finally:
        stop()
        held.let_go()


def _in_foreground() -> bool:
    """Whether the terminal is ours to write on: in the background that would stop us (stty tostop)."""
    if not hasattr(os, "tcgetpgrp"):  # Windows
        return True
    try:
        return os.tcgetpgrp(sys.stderr.fileno()) == os.getpgrp()
    except OSError:  # it has gone, or is not the one that controls us
        return False
