"""The command line: what it prints where, and how it ends."""

from __future__ import annotations

import json
import os
import pty
import re
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import pytest
from typer.testing import CliRunner, Result

import diagnose.engine
from checks import CAUSES, CHECKS
from diagnose import __version__, cli
from diagnose.model.snapshot import Snapshot
from diagnose.recording import decode, encode
from diagnose.render.json import report_schema
from tests.scenes import connected, dialled, held, listening, process, refused, rejected, rows, taken, wanted

HERE = "127.0.0.1:8080"


def held_by(program: str) -> Snapshot:
    return dialled(HERE, connected(HERE), listeners=rows(listening(HERE)), holders=held((1, process(program))))


WORKS = held_by("nginx")
NAMED = dialled(HERE, refused(HERE))
NAMELESS = dialled(HERE, refused(HERE), listeners=rows(listening(HERE)))
BOUND_ALREADY = wanted(HERE, taken(HERE), listeners=rows(listening(HERE)), holders=held((1, process())))
NETDIAG = [sys.executable, "-c", "from netdiag_entry import main; main()"]


def netdiag(*arguments: str, env: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(cli.app, [*arguments], env={"COLUMNS": "80", "LANG": "C.UTF-8", **(env or {})})


def recorded(folder: Path, *snapshots: Snapshot) -> str:
    path = folder / "seen.json"
    path.write_bytes(encode(snapshots))
    return str(path)


@pytest.fixture
def server() -> Iterator[int]:
    """A healthy server: it takes connections, and waits in silence."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            taken_: list[socket.socket] = []
            while True:
                try:
                    taken_.append(listener.accept()[0])
                except OSError:
                    return

        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def closed_port() -> int:
    """A port that was free a moment ago, below the range that clients are given."""
    with socket.socket() as probe:
        for port in range(20000, 30000, 97):
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("no free port")


# help and version


def test_the_version_is_one_line() -> None:
    assert netdiag("--version").stdout == f"netdiag {__version__}\n"


@pytest.mark.parametrize("command", [(), ("run",), ("replay",), ("explain",), ("checks",), ("schema",), ("bundle",)])
def test_every_command_has_its_help(command: tuple[str, ...]) -> None:
    result = netdiag(*command, "--help")
    assert result.exit_code == 0
    assert "Usage:" in result.stdout


def test_the_help_of_run_names_every_promised_option() -> None:
    shown = re.sub(r"\s+", " ", netdiag("run", "--help").stdout)
    promised = "--bind --json --format --output --check --skip --timeout --passive --record --pcap --from --no-color"
    assert [option for option in promised.split() if f"{option} " not in shown] == []


# the verdict and the exit code


@pytest.mark.parametrize(
    ("snapshots", "code"),
    [
        ((WORKS,), 0),
        ((NAMED,), 1),
        ((NAMELESS,), 3),
        ((BOUND_ALREADY,), 1),
        ((WORKS, NAMED), 1),
        ((WORKS, NAMELESS), 3),
        ((NAMELESS, NAMED), 1),
    ],
    ids=["works", "named", "nameless", "taken", "works and named", "works and nameless", "nameless and named"],
)
def test_the_exit_code_tells_whether_a_cause_was_named(
    tmp_path: Path, snapshots: tuple[Snapshot, ...], code: int
) -> None:
    assert netdiag("replay", recorded(tmp_path, *snapshots)).exit_code == code


def test_a_server_that_accepts_and_waits_is_reachable(server: int) -> None:
    result = netdiag("run", f"127.0.0.1:{server}")
    assert result.exit_code == 0
    assert result.stdout.startswith(f"127.0.0.1:{server}  reachable: ")


def test_a_closed_port_is_refused_by_the_kernel(closed_port: int) -> None:
    result = netdiag("run", "--json", f"127.0.0.1:{closed_port}")
    report = json.loads(result.stdout)
    assert (result.exit_code, report["verdict"]) == (1, "unreachable")
    assert report["root_cause"]["code"] == "refused/nothing-listening"


def test_a_free_port_can_be_bound_and_is_not_held_afterwards(closed_port: int) -> None:
    for _ in range(2):
        result = netdiag("run", "--bind", f"127.0.0.1:{closed_port}")
        assert (result.exit_code, "bindable" in result.stdout) == (0, True)


def test_passive_sends_nothing_and_is_inconclusive(server: int) -> None:
    result = netdiag("run", "--passive", "--json", f"127.0.0.1:{server}")
    report = json.loads(result.stdout)
    assert (result.exit_code, report["verdict"], report["attempts"]) == (3, "inconclusive", [])


def test_several_targets_are_answered_in_the_order_asked(server: int, closed_port: int) -> None:
    result = netdiag("run", "--json", f"127.0.0.1:{server}", f"127.0.0.1:{closed_port}")
    many = json.loads(result.stdout)
    assert (result.exit_code, many["schema"]) == (1, "netdiag.reports/1")
    assert [one["target"]["port"] for one in many["reports"]] == [server, closed_port]


# bad usage


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "localhost"),
        ("run", "127.0.0.1:0"),
        ("run", "127.0.0.1:70000"),
        ("run", "::1:80"),
        ("run", ""),
        ("run", "127.0.0.1:80", "localhost"),
        ("run", "127.0.0.1:80", "--check", "nope"),
        ("run", "127.0.0.1:80", "--skip", "nope"),
        ("run", "127.0.0.1:80", "--timeout", "0"),
        ("run", "127.0.0.1:80", "--timeout", "nan"),
        ("run", "127.0.0.1:80", "--timeout", "-1"),
        ("run", "127.0.0.1:80", "--timeout", "inf"),
        ("run", "127.0.0.1:80", "--json", "--format", "markdown"),
        ("run", "127.0.0.1:80", "--json", "--format", "text"),
        ("run", "127.0.0.1:80", "--check", "firewall", "--skip", "firewall"),
        ("run", "127.0.0.1:80", "--check", "hung", "--check", "firewall", "--skip", "in-use", "--skip", "hung"),
        ("run", "127.0.0.1:80", *(word for check in CHECKS for word in ("--skip", check.name))),
        ("run", "127.0.0.1:80", "--pcap", "/nonexistent/p", "--passive"),
        ("run", "127.0.0.1:80", "--pcap", "/nonexistent/p", "--bind"),
        ("run", "127.0.0.1:80", "--trace", "--passive"),
        ("run", "127.0.0.1:80", "--trace", "--bind"),
        ("replay", "/no/such/file", "--json", "--format", "markdown"),
        ("explain", "refused"),
        ("explain", "refused/nope"),
        ("explain", "../../etc/passwd"),
        ("explain", "a\x1b[31m"),
        ("replay", "/no/such/file"),
        ("replay", "/"),
    ],
)
def test_bad_usage_gets_one_clear_line_and_exit_2_before_anything_is_probed(
    arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("diagnose.collect.Collection.snapshots", lambda _self: pytest.fail("it probed"))
    result = netdiag(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("netdiag: ")
    assert result.stderr.count("\n") == 1
    assert result.stderr.strip().isprintable()


@pytest.mark.parametrize(
    ("option", "right"), [(("--pcap", "/nonexistent/p"), "CAP_NET_RAW"), (("--trace",), "CAP_NET_ADMIN")]
)
def test_what_this_user_may_not_do_is_refused_before_anything_is_probed(
    option: tuple[str, ...], right: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("diagnose.collect.Collection.snapshots", lambda _self: pytest.fail("it probed"))
    monkeypatch.setattr("diagnose.probes.vantage.has_capability", lambda _number: False)
    result = netdiag("run", "127.0.0.1:80", *option)
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert right in result.stderr
    assert f"for example: sudo netdiag run 127.0.0.1:8080 {option[0]}" in result.stderr


def test_a_format_that_is_asked_for_twice_is_no_contradiction(tmp_path: Path) -> None:
    result = netdiag("replay", "--json", "--format", "json", recorded(tmp_path, NAMED))
    assert (result.exit_code, json.loads(result.stdout)["verdict"]) == (1, "unreachable")


@pytest.mark.parametrize(
    "arguments",
    [("run",), ("run", "127.0.0.1:80", "--format", "xml"), ("run", "127.0.0.1:80", "--nope"), ("nope",), ("replay",)],
)
def test_an_unknown_option_or_command_is_exit_2(arguments: tuple[str, ...]) -> None:
    assert netdiag(*arguments).exit_code == 2


def test_a_bad_check_is_answered_with_the_names_that_there_are() -> None:
    stderr = netdiag("run", HERE, "--check", "nope").stderr
    assert all(check.name in stderr for check in CHECKS)


@pytest.mark.parametrize("content", [b"", b"\x00\xff", b"{}", b'{"schema": "netdiag.snapshot/9"}', b"[" * 99999])
def test_a_file_that_is_no_recording_gets_one_line_and_exit_2(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a\nb.json"
    path.write_bytes(content)
    result = netdiag("replay", str(path))
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)


def test_a_bug_is_one_line_with_a_way_to_report_it_and_exit_70(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> None:
        raise ValueError("first\nsecond \x1b[31m")

    monkeypatch.setattr(diagnose.engine, "diagnose", broken)
    monkeypatch.setattr(sys, "argv", ["netdiag", "replay", recorded(tmp_path, NAMED)])
    monkeypatch.delenv("NETDIAG_DEBUG", raising=False)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    stderr = capsys.readouterr().err
    assert ended.value.code == 70
    assert "internal error: ValueError: first second" in stderr
    assert "please report it" in stderr
    assert "Traceback" not in stderr
    assert stderr.replace("\n", "").isprintable()


# formats and files


def test_a_report_is_json_that_the_published_schema_accepts(tmp_path: Path) -> None:
    result = netdiag("replay", "--json", recorded(tmp_path, NAMED))
    jsonschema.validate(json.loads(result.stdout), json.loads(report_schema()), jsonschema.Draft202012Validator)
    assert netdiag("replay", "--format", "json", recorded(tmp_path, NAMED)).stdout == result.stdout


def test_markdown_begins_with_a_heading(tmp_path: Path) -> None:
    assert netdiag("replay", "--format", "markdown", recorded(tmp_path, NAMED)).stdout.startswith("## `127.0.0.1:8080`")


@pytest.mark.parametrize("option", ["--output", "-o"])
def test_a_report_can_be_written_to_a_file_instead(tmp_path: Path, option: str) -> None:
    file = tmp_path / "report.txt"
    printed = netdiag("replay", recorded(tmp_path, NAMED))
    written = netdiag("replay", option, str(file), recorded(tmp_path, NAMED))
    assert (written.stdout, written.exit_code) == ("", 1)
    assert file.read_text() == printed.stdout


def test_a_report_that_its_file_does_not_take_is_not_lost(tmp_path: Path) -> None:
    result = netdiag("replay", "--output", str(tmp_path / "no" / "such"), recorded(tmp_path, NAMED))
    assert result.exit_code == 2
    assert "unreachable" in result.stdout
    assert result.stderr.startswith("netdiag: cannot write ")


def test_what_was_recorded_is_replayed_to_the_same_report(tmp_path: Path, closed_port: int) -> None:
    file = tmp_path / "seen.json"
    ran = netdiag("run", "--json", "--record", str(file), f"127.0.0.1:{closed_port}")
    replayed = netdiag("replay", "--json", str(file))
    assert (replayed.stdout, replayed.exit_code) == (ran.stdout, ran.exit_code)


def test_a_recording_is_for_its_owner_only_and_has_no_password(tmp_path: Path, closed_port: int) -> None:
    file = tmp_path / "seen.json"
    result = netdiag("run", "--json", "--record", str(file), f"postgres://u:hunter2@127.0.0.1:{closed_port}/db")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert b"hunter2" not in file.read_bytes()
    assert "hunter2" not in result.stdout + result.stderr
    assert decode(file.read_bytes())[0].target.scheme == "postgres"


# the checks


def test_only_the_checks_asked_for_are_made(tmp_path: Path, closed_port: int) -> None:
    result = netdiag("run", "--json", "--check", "firewall", "--check", "hung", f"127.0.0.1:{closed_port}")
    skipped = {one["name"] for one in json.loads(result.stdout)["checks"] if one["reason"] == "not asked for"}
    assert skipped == {check.name for check in CHECKS} - {"firewall", "hung"}
    assert result.exit_code == 3


def test_all_checks_but_the_skipped_are_made(closed_port: int) -> None:
    result = netdiag("run", "--json", "--skip", "refused", f"127.0.0.1:{closed_port}")
    skipped = {one["name"] for one in json.loads(result.stdout)["checks"] if one["reason"] == "not asked for"}
    assert skipped == {"refused"}


def test_the_list_of_checks_names_each_with_its_causes_in_order() -> None:
    lines = [line.strip() for line in netdiag("checks").stdout.splitlines()]
    assert [line for line in lines if line in {check.name for check in CHECKS}] == [check.name for check in CHECKS]
    assert [line for line in lines if "/" in line and " " not in line] == [cause.code for cause in CAUSES]


@pytest.mark.parametrize("code", [cause.code for cause in CAUSES])
def test_every_cause_is_explained(code: str) -> None:
    result = netdiag("explain", code)
    assert result.exit_code == 0
    assert code in result.stdout.splitlines()[0]
    parts = ("What it means", "How it is known", "How to fix it", "When the diagnosis is wrong")
    assert [part for part in parts if part not in result.stdout] == []


def test_an_unknown_cause_of_a_known_check_is_answered_with_those_that_there_are() -> None:
    assert "refused/nothing-listening" in netdiag("explain", "refused/nope").stderr


def test_the_schema_is_printed_as_it_is_generated() -> None:
    assert netdiag("schema").stdout == report_schema()


# terminals, pipes, locales


def on_a_terminal(*arguments: str, env: dict[str, str] | None = None) -> str:
    """What the command prints where standard output is a terminal."""
    ours, theirs = pty.openpty()
    plain = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "TERM")}
    with subprocess.Popen(
        [*NETDIAG, *arguments], stdout=theirs, stderr=theirs, env={**plain, "TERM": "xterm", **(env or {})}
    ) as child:
        os.close(theirs)
        shown = b""
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:  # EIO: the last writer has gone
                break
            if not part:
                break
            shown += part
        child.wait()
    os.close(ours)
    return shown.decode()


def test_colour_is_for_terminals(tmp_path: Path) -> None:
    file = recorded(tmp_path, NAMED)
    assert "\x1b[" in on_a_terminal("replay", file)
    assert "\x1b" not in subprocess.run([*NETDIAG, "replay", file], capture_output=True, text=True, check=False).stdout


@pytest.mark.parametrize(
    ("extra", "env"),
    [(("--no-color",), {}), ((), {"NO_COLOR": "1"}), ((), {"TERM": "dumb"})],
    ids=["--no-color", "NO_COLOR", "dumb"],
)
def test_a_terminal_without_colours_gets_none(tmp_path: Path, extra: tuple[str, ...], env: dict[str, str]) -> None:
    assert "\x1b" not in on_a_terminal("replay", recorded(tmp_path, NAMED), *extra, env=env)


@pytest.mark.parametrize("locale", [{"LC_ALL": "C"}, {"LC_ALL": "POSIX"}])
def test_an_ascii_locale_gets_ascii_only(tmp_path: Path, locale: dict[str, str]) -> None:
    file = recorded(tmp_path, held_by("é字"))
    result = subprocess.run(
        [*NETDIAG, "replay", file], capture_output=True, env={**os.environ, **locale}, check=False, timeout=20
    )
    assert result.stdout.isascii()
    assert b"\\xe9\\u5b57" in result.stdout


def test_a_utf8_locale_gets_the_names_as_they_are(tmp_path: Path) -> None:
    file = recorded(tmp_path, held_by("é"))
    result = subprocess.run(
        [*NETDIAG, "replay", file], capture_output=True, env={**os.environ, "LC_ALL": "C.UTF-8"}, check=False
    )
    assert "é (pid 4242)" in result.stdout.decode()


def test_a_narrow_terminal_is_believed(tmp_path: Path) -> None:
    shown = netdiag("replay", recorded(tmp_path, NAMED), env={"COLUMNS": "50"}).stdout
    assert max(len(line) for line in shown.splitlines()) <= 50


def test_nothing_but_the_report_is_printed_in_a_pipe(tmp_path: Path) -> None:
    result = subprocess.run([*NETDIAG, "replay", "--json", recorded(tmp_path, NAMED)], capture_output=True, check=False)
    assert result.stderr == b""
    assert json.loads(result.stdout)["schema"] == "netdiag.report/1"


def test_an_icmp_reject_is_replayed_as_it_was_recorded(tmp_path: Path) -> None:
    assert "firewall" in netdiag("replay", recorded(tmp_path, dialled(HERE, rejected(HERE)))).stdout


@pytest.mark.parametrize("locale", [{"LANG": "C"}, {"LANG": ""}], ids=["LANG=C", "no locale"])
def test_a_locale_that_python_has_mended_for_itself_is_still_ascii(tmp_path: Path, locale: dict[str, str]) -> None:
    plain = {key: value for key, value in os.environ.items() if not key.startswith(("LC_", "LANG"))}
    command = [*NETDIAG, "replay", recorded(tmp_path, held_by("é字"))]
    assert subprocess.run(command, capture_output=True, env={**plain, **locale}, check=False).stdout.isascii()


# ------ an error message as the target


def test_an_error_message_in_quotes_is_a_target(server: int) -> None:
    done = netdiag("run", "--json", f"connect ECONNREFUSED 127.0.0.1:{server}")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["target"]["input"] == f"127.0.0.1:{server}"


def test_an_error_message_about_a_server_that_cannot_start_asks_whether_it_could(server: int) -> None:
    done = netdiag("run", "--json", f"listen EADDRINUSE: address already in use 127.0.0.1:{server}")
    assert done.exit_code == 1, done.output
    assert json.loads(done.stdout)["intent"] == "bind"


def test_a_bundle_is_made_from_an_error_message_in_quotes(closed_port: int, tmp_path: Path) -> None:
    bundle = tmp_path / "case.netdiag.zip"
    result = netdiag("bundle", f"listen EADDRINUSE 127.0.0.1:{closed_port} for hunter2", "-o", str(bundle))
    assert result.exit_code == 0, result.output
    replayed = json.loads(netdiag("replay", "--json", str(bundle)).stdout)
    assert "hunter2" not in json.dumps(replayed)
    assert (replayed["target"]["input"], replayed["intent"]) == (f"127.0.0.1:{closed_port}", "bind")


def test_an_error_message_is_read_from_standard_input(server: int) -> None:
    done = subprocess.run(
        [*NETDIAG, "run", "--json", "--from-error", "-"],
        input=f"ConnectionRefusedError: [Errno 111] Connect call failed ('127.0.0.1', {server})\n".encode(),
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["target"]["port"] == server


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["connect ECONNREFUSED s3cret@db"], "names neither a host nor a port"),
        (["getaddrinfo ENOTFOUND db"], "names the host db and no port"),
        (
            ["Could not connect to Redis at x:1; Could not connect to Redis at b:2: Connection refused"],
            "may be about x:1 or b:2: give the one that is meant; for example: netdiag run x:1",
        ),
        (
            ["connect ECONNREFUSED 127.0.0.1:1", "listen EADDRINUSE: address already in use :::2"],
            "give them one by one",
        ),
        (["--from-error", "all is well"], "reports no failed connection"),
        ([], "no target is given"),
    ],
)
def test_an_error_message_without_one_target_is_refused_with_what_is_missing(arguments: list[str], said: str) -> None:
    done = netdiag("run", *arguments)
    assert done.exit_code == cli.USAGE
    assert said in done.stderr
    assert "s3cret" not in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_target_that_is_mistyped_is_no_error_message() -> None:
    done = netdiag("run", "localhost 8080")
    assert done.exit_code == cli.USAGE
    assert "for example: netdiag run localhost:8080" in done.stderr


def test_on_a_terminal_the_user_is_asked_which_target_is_meant(server: int) -> None:
    parent, terminal = pty.openpty()
    message = f"Could not connect to Redis at x:1; Could not connect to Redis at 127.0.0.1:{server}: Connection refused"
    run = subprocess.Popen(
        [*NETDIAG, "run", "--json", message], stdin=terminal, stdout=subprocess.PIPE, stderr=terminal, close_fds=True
    )
    os.close(terminal)
    os.write(parent, b"2\n")
    out, _ = run.communicate(timeout=60)
    os.close(parent)
    assert run.returncode == 0
    assert json.loads(out)["target"]["port"] == server
