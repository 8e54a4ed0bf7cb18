"""The commands of `netdiag runbook`, as a person and a script use them."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import subprocess
import sys
import time
from pathlib import Path

import jsonschema
import pytest
import yaml
from typer.testing import CliRunner, Result

from diagnose import cli, library
from diagnose.recording import encode
from diagnose.runbook.schema import runbook_schema
from tests.runbooks.books import SMALL, lines
from tests.scenes import connected, dialled, refused

HERE = "127.0.0.1:8080"
NETDIAG = [sys.executable, "-c", "from netdiag_entry import main; main()"]


def runbook(*arguments: str) -> Result:
    return CliRunner().invoke(cli.app, ["runbook", *arguments], env={"COLUMNS": "80", "LANG": "C.UTF-8"})


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No runbook of the person who runs the tests."""
    for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "SUDO_UID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@pytest.fixture
def small(tmp_path: Path) -> str:
    path = tmp_path / "small.runbook.yaml"
    path.write_text(SMALL)
    return str(path)


@pytest.fixture
def seen(tmp_path: Path) -> str:
    """A recording of a port that is refused."""
    path = tmp_path / "seen.json"
    path.write_bytes(encode([dialled(HERE, refused(HERE))]))
    return str(path)


@pytest.fixture
def well(tmp_path: Path) -> str:
    """A recording of a port that answers."""
    path = tmp_path / "well.json"
    path.write_bytes(encode([dialled(HERE, connected(HERE))]))
    return str(path)


def kept(tmp_path: Path, name: str, text: str, folder: str = ".config") -> Path:
    """One of the user's own."""
    path = tmp_path / "home" / folder / "netdiag" / "runbooks" / f"{name}.runbook.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.mark.parametrize("command", [(), ("list",), ("show",), ("check",), ("new",), ("schema",), ("run",)])
def test_every_command_has_its_help(command: tuple[str, ...]) -> None:
    result = runbook(*command, "--help")
    assert result.exit_code == 0
    assert "Usage: " in result.stdout


def test_the_help_of_netdiag_names_runbook() -> None:
    assert re.search(r"^ +runbook ", CliRunner().invoke(cli.app, ["--help"]).stdout, re.MULTILINE)


# list


def test_the_list_has_what_is_shipped_and_what_is_one_s_own(tmp_path: Path) -> None:
    kept(tmp_path, "mine", SMALL)
    kept(tmp_path, "also-mine", SMALL, ".local/share")
    result = runbook("list", "--json")
    rows = json.loads(result.stdout)["runbooks"]
    assert all(set(row) == {"name", "title", "source"} for row in rows)
    assert [(row["name"], row["source"]) for row in rows[:2]] == [("mine", "user"), ("also-mine", "user")]
    assert ("port-in-use", "shipped") in {(row["name"], row["source"]) for row in rows}
    assert "mine " in runbook("list").stdout


def test_one_s_own_comes_before_a_shipped_one_of_the_same_name(tmp_path: Path) -> None:
    kept(tmp_path, "port-in-use", SMALL.replace("Something", "My own thing"))
    assert "My own thing" in runbook("show", "port-in-use").stdout


def test_a_broken_one_is_left_out_of_the_list_with_a_line(tmp_path: Path) -> None:
    kept(tmp_path, "broken", "a: [")
    result = runbook("list", "--json")
    assert result.exit_code == 0
    assert "broken" not in result.stdout
    assert result.stderr.count("\n") == 1
    assert "broken.runbook.yaml:2:1: this is no YAML" in result.stderr


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() != 0, reason="gives a file to another user")
def test_a_file_of_another_user_in_one_s_own_directory_is_left_out(tmp_path: Path) -> None:
    path = kept(tmp_path, "port-in-use", SMALL.replace("Something", "Somebody else's"))
    os.chown(path, 12345, 12345)
    assert "Somebody else" not in runbook("show", "port-in-use").stdout
    assert "belongs to another user (uid 12345)" in runbook("list").stderr


@pytest.mark.skipif(sys.platform == "win32", reason="modes are POSIX")
def test_a_file_that_everybody_can_write_is_left_out(tmp_path: Path) -> None:
    kept(tmp_path, "port-in-use", SMALL).chmod(0o666)
    assert "can be written by every user" in runbook("list").stderr


def test_a_relative_xdg_directory_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(os.path.isabs(path) for _, path in library.directories({"HOME": "/h", "XDG_CONFIG_HOME": "x"}))
    found = [path for _, path in library.directories({"HOME": "/h", "XDG_CONFIG_HOME": "/x"})]
    if sys.platform == "linux":
        assert found[:3] == ["/x/netdiag/runbooks", "/h/.local/share/netdiag/runbooks", "/etc/netdiag/runbooks"]


# show, check, new, schema


def test_an_unknown_name_lists_the_known_ones() -> None:
    result = runbook("show", "port-in-us")
    assert result.exit_code == 2
    assert "no runbook is called 'port-in-us'; there are accepts-but-hangs, connection-refused" in result.stderr


def test_check_goes_on_behind_a_file_that_cannot_be_read(tmp_path: Path, small: str) -> None:
    wrong = tmp_path / "wrong.runbook.yaml"
    wrong.write_text(SMALL.replace("then: fix", "then: fixx"))
    result = runbook("check", "/nonexistent", small, str(wrong))
    assert result.exit_code == 2
    assert "cannot read '/nonexistent'" in result.stderr
    assert "no step is called 'fixx'" in result.stdout


def test_check_prints_a_line_an_error_and_exits_2(tmp_path: Path, small: str) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(SMALL.replace("title:", "titel:").replace("refused/*", "refuse/*"))
    result = runbook("check", small, str(wrong))
    assert result.exit_code == 2
    found = result.stdout.splitlines()
    assert [line.removeprefix(f"{wrong}:").split(": ")[0] for line in found] == ["1:1", "3:1", "12:22"]
    good = runbook("check", small)
    assert (good.exit_code, good.stdout, good.stderr) == (0, "", "")


@pytest.mark.parametrize("command", ["check", "show", "run"])
def test_a_file_that_cannot_be_read_is_a_line(command: str, tmp_path: Path) -> None:
    for path in (str(tmp_path), str(tmp_path / "none.yaml"), "/dev/zero/x.yaml"):
        result = runbook(command, path)
        assert result.exit_code == 2
        assert result.stderr.count("\n") == 1, result.stderr
        assert not result.stdout


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs here")
def test_a_fifo_is_never_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.yaml")
    result = runbook("check", str(tmp_path / "fifo.yaml"))
    assert (result.exit_code, "a FIFO" in result.stderr) == (2, True)


def test_a_broken_runbook_is_not_run(tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(SMALL.replace("refused/*", "\\x1b[31m"))
    result = runbook("run", str(path))
    assert result.exit_code == 2
    assert f"{path}:12:22: no cause has a code" in result.stderr
    assert "\x1b" not in result.stderr


def test_a_new_one_is_right_and_has_its_name() -> None:
    result = runbook("new", "my-database")
    assert result.exit_code == 0
    assert lines(result.stdout) == []
    assert yaml.safe_load(result.stdout)["name"] == "my-database"
    jsonschema.validate(yaml.safe_load(result.stdout), json.loads(runbook_schema()))


def test_a_new_one_from_another_keeps_its_comments_and_its_steps(tmp_path: Path) -> None:
    result = runbook("new", "ours", "--from", "port-in-use")
    shipped = (library.SHIPPED / "port-in-use.runbook.yaml").read_text()
    assert result.stdout == shipped.replace("name: port-in-use", "name: ours")
    assert runbook("new", "--from", "port-in-use").stdout == shipped
    there = tmp_path / "ours.runbook.yaml"
    assert runbook("new", "ours", "-o", str(there)).exit_code == 0
    assert runbook("check", str(there)).exit_code == 0


def test_new_without_a_name_or_with_a_bad_one_is_a_usage_error() -> None:
    assert runbook("new").exit_code == 2
    assert "is no name of a runbook" in runbook("new", "My Book").stderr


def test_the_schema_is_printed() -> None:
    assert json.loads(runbook("schema").stdout)["title"] == "netdiag.runbook/1"
    assert "properties" in json.dumps(json.loads(runbook("schema", "--result").stdout))


# run


def test_each_end_has_its_exit_code(small: str, seen: str, well: str) -> None:
    assert runbook("run", small, "--replay", seen).exit_code == 1
    assert runbook("run", small, "--replay", well, "--answer", "ask=no").exit_code == 0
    assert runbook("run", small, "--replay", well, "--answer", "ask=yes").exit_code == 3
    assert runbook("run", small, "--replay", seen, "--set", "server=127.0.0.1:9").exit_code == 3


def test_a_step_that_is_not_in_the_recording_escalates_and_says_so(small: str, seen: str) -> None:
    result = json.loads(runbook("run", small, "--replay", seen, "--set", "server=127.0.0.1:9", "--json").stdout)
    assert result["end"] == "escalate"
    assert "127.0.0.1:9 (connect) is not in the recording" in result["path"][0]["said"]
    assert "127.0.0.1:9 (connect) is not in the recording" in result["escalation"]["reason"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--set", "srever=1"], "the runbook has no input 'srever'; it has server"),
        (["--set", "server"], "--set 'server' has no ="),
        (["--set", "server=a:1", "--set", "server=b:1"], "gives server twice"),
        (["--set", "server=nowhere"], "the step reach: 'nowhere' has no port"),
        (["--answer", "reach=yes"], "the runbook has no question 'reach'; it has ask"),
        (["--answer", "ask=maybe"], "'maybe' is no answer to ask; there are yes, no"),
        (["--json", "--format", "html"], "contradict each other"),
        (["--replay", "/nonexistent"], "cannot read '/nonexistent'"),
    ],
)
def test_a_wrong_option_is_a_line_and_exit_2(small: str, arguments: list[str], said: str) -> None:
    result = runbook("run", small, *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr
    assert result.stderr.count("\n") == 1


def test_without_a_terminal_what_is_missing_is_named(small: str, tmp_path: Path, well: str) -> None:
    needs = tmp_path / "needs.yaml"
    needs.write_text(SMALL.replace(', default: "127.0.0.1:8080"', ""))
    result = runbook("run", str(needs))
    assert result.exit_code == 2
    assert "the step reach needs the input server (Which one?)" in result.stderr
    result = runbook("run", small, "--replay", well)
    assert result.exit_code == 2
    assert "the step ask asks: Does it still fail? (yes, no); for example: --answer ask=yes" in result.stderr


def test_a_value_may_have_equals_signs_and_is_split_once(small: str) -> None:
    result = runbook("run", small, "--set", "server=a=b:1")
    assert result.exit_code == 2
    assert "the step reach" in result.stderr


@pytest.mark.parametrize("form", ["text", "markdown", "html", "json"])
def test_a_result_goes_into_a_file_whole(small: str, seen: str, form: str, tmp_path: Path) -> None:
    there = tmp_path / "result"
    result = runbook("run", small, "--replay", seen, "--format", form, "-o", str(there))
    assert (result.exit_code, result.stdout) == (1, "")
    assert "refused/nothing-listening" in there.read_text()
    printed = runbook("run", small, "--replay", seen, "--format", form)
    assert printed.stdout == there.read_text()


def test_a_result_that_cannot_be_written_is_exit_2_and_nothing_is_asked(small: str, seen: str) -> None:
    result = runbook("run", small, "--replay", seen, "-o", "/nonexistent/result")
    assert result.exit_code == 2
    assert "cannot write '/nonexistent/result'" in result.stderr


def typed(arguments: list[str], answers: list[str]) -> tuple[str, str, int]:
    """What a terminal shows, and what goes to standard output, when a person types these lines."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [*NETDIAG, "runbook", *arguments],
        stdin=slave,
        stdout=subprocess.PIPE,
        stderr=slave,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "TERM": "xterm"},
    )
    os.close(slave)
    shown, waiting, end = b"", list(answers), time.monotonic() + 30
    while time.monotonic() < end:
        if select.select([master], [], [], 0.2)[0]:
            try:
                part = os.read(master, 65536)
            except OSError:
                break
            if not part:
                break
            shown += part
        elif waiting and shown.rstrip(b" ").endswith(b":"):
            os.write(master, waiting.pop(0).encode())
            shown += b"\n"
        elif process.poll() is not None:
            break
    assert process.stdout is not None
    out = process.stdout.read().decode()
    process.stdout.close()
    os.close(master)
    return shown.decode(), out, process.wait(10)


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo terminal")
def test_a_terminal_is_asked_and_standard_output_has_the_result_alone(small: str, well: str) -> None:
    shown, out, code = typed(["run", small, "--replay", well, "--json"], ["nowhere\r", "\r", "maybe\r", "N\r"])
    assert "Which one? [127.0.0.1:8080]: " in shown
    assert "'nowhere' has no port" in shown
    assert "Does it still fail? (yes, no): " in shown
    assert "expected one of yes, no" in shown
    assert out.startswith("{")
    result = json.loads(out)
    assert (result["end"], code) == ("works", 0)
    assert result["path"][1]["question"] == {"ask": "Does it still fail?", "answer": "no"}


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo terminal")
def test_the_end_of_input_is_no_answer_and_exit_2(small: str, well: str) -> None:
    shown, out, code = typed(["run", small, "--replay", well], ["\x04"])
    assert (out, code) == ("", 2)
    assert "the input server was not given" in shown


def test_a_run_without_a_runbook_loads_nothing_of_them() -> None:
    script = (
        "import sys; from typer.testing import CliRunner; from diagnose import cli; "
        "CliRunner().invoke(cli.app, ['run', '127.0.0.1:1', '--passive']); "
        "print([name for name in sys.modules if 'runbook' in name or name in ('yaml', 'diagnose.library')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]
    )
    assert done.stdout.strip() == "[]"
