"""How the command starts: strangers for its packages, broken installations, limits, and its parent's signals."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.portable.command import REPOSITORY, environment, listening

pytestmark = pytest.mark.skipif(os.name != "posix", reason="fork, exec and rlimits")

PROGRAM = (sys.executable, "-c", "from netdiag_entry import main; main()")
"""What the installed script does."""


def start(
    *arguments: str,
    command: tuple[str, ...] = PROGRAM,
    path: tuple[Path, ...] = (),
    before: Callable[[], object] | None = None,
    cwd: Path = Path("/"),
) -> subprocess.CompletedProcess[str]:
    """The command, with these folders before the checkout, after `before` in the process that becomes it."""
    env = {**environment(), "PYTHONPATH": os.pathsep.join(map(str, (*path, REPOSITORY)))}
    return subprocess.run(
        [*command, *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env=env,
        cwd=cwd,
        preexec_fn=before,
    )


def is_one_line_and_70(done: subprocess.CompletedProcess[str], *told: str) -> bool:
    assert (done.returncode, done.stdout) == (70, ""), done
    assert done.stderr.startswith("netdiag: "), done
    assert done.stderr.count("\n") == 1, done
    assert [one for one in told if one not in done.stderr] == [], done
    return True


# strangers and broken installations


@pytest.mark.parametrize("package", ["checks", "diagnose"])
@pytest.mark.parametrize("place", ["{}/__init__.py", "{}.py"])
def test_a_stranger_in_the_place_of_a_package_is_named_and_not_executed(
    tmp_path: Path, package: str, place: str
) -> None:
    stranger = tmp_path / place.format(package)
    stranger.parent.mkdir(exist_ok=True)
    stranger.write_text("import sys\nsys.exit('executed')\n")
    assert is_one_line_and_70(start("run", "127.0.0.1:1", path=(tmp_path,)), str(stranger), package)


def test_a_folder_that_is_no_package_is_no_stranger(tmp_path: Path) -> None:
    (tmp_path / "checks").mkdir()
    assert start("--version", path=(tmp_path,)).returncode == 0


@pytest.mark.parametrize("name", ["checks/__init__.py", "checks.py", "typer.py", "signal.py", "netdiag_entry.py"])
def test_what_lies_in_the_current_folder_is_never_executed(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("print('executed')\n")
    done = start("--version", command=(sys.executable, "-m", "diagnose"), cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "executed" not in done.stdout


def test_it_runs_in_its_own_checkout_without_being_installed() -> None:
    command = (sys.executable, "-m", "diagnose", "checks")
    env = {key: value for key, value in environment().items() if key != "PYTHONPATH"}
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, env=env, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("module", ["typer", "msgspec"])
def test_a_dependency_that_is_missing_is_one_line(tmp_path: Path, module: str) -> None:
    script = f"import sys; sys.modules[{module!r}] = None; from netdiag_entry import main; main()"
    done = start("run", "127.0.0.1:1", command=(sys.executable, "-c", script))
    assert is_one_line_and_70(done, module, "install netdiag again")


@pytest.mark.parametrize("module", ["psutil", "scapy", "yaml", "docker"])
def test_a_dependency_that_only_some_runs_need_costs_them_no_traceback(module: str) -> None:
    script = f"import sys; sys.modules[{module!r}] = None; from netdiag_entry import main; main()"
    done = start("run", "127.0.0.1:1", command=(sys.executable, "-c", script))
    assert (done.returncode, done.stderr) == (1, "")


def test_a_package_of_ours_that_is_gone_is_one_line(tmp_path: Path) -> None:
    for name in ("diagnose", "checks"):
        shutil.copytree(REPOSITORY / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(REPOSITORY / "netdiag_entry.py", tmp_path)
    shutil.rmtree(tmp_path / "diagnose" / "model")
    assert is_one_line_and_70(start("run", "127.0.0.1:1", path=(tmp_path,)), "diagnose.model")


def test_a_stranger_in_the_place_of_a_dependency_is_named(tmp_path: Path) -> None:
    (tmp_path / "msgspec.py").write_text("raise RuntimeError('first\\nsecond \\x1b[2J')\n")
    done = start("run", "127.0.0.1:1", path=(tmp_path,))
    assert is_one_line_and_70(done, str(tmp_path / "msgspec.py"))
    assert done.stderr.strip().isprintable()


# what the parent left


def ignored(*numbers: int) -> Callable[[], None]:
    def ignore() -> None:
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)

    return ignore


def blocked() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())


@pytest.mark.parametrize("before", [ignored(signal.SIGCHLD), blocked, ignored(signal.SIGPIPE)])
def test_names_are_resolved_whatever_signals_the_parent_ignores_or_blocks(before: Callable[[], None]) -> None:
    with listening() as port:
        done = start("run", f"localhost:{port}", before=before)
    assert "inconclusive" not in done.stdout
    assert (done.returncode, done.stderr) in ((0, ""), (1, "")), done  # 1: the server is on one family only


@pytest.mark.skipif(sys.platform != "linux", reason="a limit of Linux")
@pytest.mark.parametrize(
    ("limit", "amounts", "option"),
    [
        ("RLIMIT_NOFILE", (6, 8, 12, 20, 40), "ulimit -n"),
        ("RLIMIT_AS", (32 << 20, 64 << 20, 128 << 20, 255 << 20), "ulimit -v"),
        ("RLIMIT_DATA", (32 << 20, 100 << 20), "ulimit -d"),
    ],
)
def test_a_limit_that_is_too_small_is_one_line_and_no_cause(limit: str, amounts: tuple[int, ...], option: str) -> None:
    import resource

    for amount in amounts:
        number = getattr(resource, limit)
        done = start("run", "127.0.0.1:1", before=lambda n=number, a=amount: resource.setrlimit(n, (a, a)))  # type: ignore[misc]
        assert is_one_line_and_70(done, "cannot start", option, limit), amount


@pytest.mark.skipif(sys.platform != "linux", reason="a limit of Linux")
def test_a_limit_of_open_files_that_may_be_raised_is_raised() -> None:
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    done = start("run", "localhost:1", before=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (8, hard)))
    assert (done.returncode, done.stderr) == (1, "")
    assert "Nothing listens" in done.stdout


def test_descriptors_that_the_parent_left_open_count() -> None:
    """Few are left though the limit is large."""
    script = (
        "import os, resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))\n"
        "for _ in range(50): os.set_inheritable(os.dup(0), True)\n"
        f"os.execv(sys.executable, [sys.executable, '-c', {PROGRAM[-1]!r}, 'run', 'localhost:1'])"
    )
    assert is_one_line_and_70(start(command=(sys.executable, "-c", script)), "ulimit -n")


@pytest.mark.parametrize("amount", [1 << 18, 1 << 20, 1 << 30])
def test_a_small_stack_changes_nothing(amount: int) -> None:
    import resource

    done = start("run", "127.0.0.1:1", before=lambda: resource.setrlimit(resource.RLIMIT_STACK, (amount, amount)))
    assert (done.returncode, done.stderr) == (1, "")
