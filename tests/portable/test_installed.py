"""What an installation brings along: the packages that it names, `python -m`, and completion for the shells."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.portable.command import REPOSITORY, environment

IMPORTED_AS = {"netifaces2": "netifaces", "dnspython": "dns", "pyyaml": "yaml"}
OWN = {"diagnose", "checks"}
ENTRY = "netdiag_entry"
SHELLS = ("bash", "zsh", "fish", "powershell")


def imported(path: Path) -> Iterator[str]:
    """The packages that a module imports anywhere in it."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        match node:
            case ast.Import(names=names):
                yield from (one.name.partition(".")[0] for one in names)
            case ast.ImportFrom(module=str(module), level=0):
                yield module.partition(".")[0]
            case _:
                continue


def run(home: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """`python -m diagnose` as somebody whose home this is."""
    command = [sys.executable, "-m", "diagnose", *arguments]
    env = {**environment(), "HOME": str(home), **variables}
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False, env=env)


def test_every_package_that_is_imported_is_a_declared_dependency_and_no_other_is() -> None:
    modules = [path for package in sorted(OWN) for path in (REPOSITORY / package).rglob("*.py")]
    modules.append(REPOSITORY / f"{ENTRY}.py")
    used = {name for path in modules for name in imported(path)} - OWN - {ENTRY} - sys.stdlib_module_names
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    names = [line.partition(">")[0].partition("=")[0].strip() for line in project["dependencies"]]
    assert used == {IMPORTED_AS.get(name, name) for name in names}


def test_it_is_a_module_as_well_and_clean_with_warnings_as_errors(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", "-X", "dev", "-m", "diagnose", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False, env=environment())
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("netdiag ")


@pytest.mark.parametrize("shell", SHELLS)
def test_completion_for_a_shell_is_shown(shell: str, tmp_path: Path) -> None:
    done = run(tmp_path, "--show-completion", shell, _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert (done.returncode, done.stderr) == (0, "")
    assert "netdiag" in done.stdout.lower() or "diagnose" in done.stdout.lower()


@pytest.mark.skipif(os.name != "posix", reason="bash is not there")
def test_completion_is_installed_in_the_home_of_whoever_asks(tmp_path: Path) -> None:
    done = run(tmp_path, "--install-completion", "bash", _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert (done.returncode, done.stderr) == (0, "")
    assert str(tmp_path) in done.stdout
    assert list((tmp_path / ".bash_completions").iterdir())


@pytest.mark.parametrize(
    ("words", "offered"),
    [("netdiag ", {"run", "replay", "explain", "checks", "schema"}), ("netdiag run --format ", {"text", "json"})],
)
def test_completion_offers_commands_and_values(words: str, offered: set[str], tmp_path: Path) -> None:
    variables = {"_NETDIAG_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()))}
    program = Path(sys.executable).with_name("netdiag")
    done = subprocess.run(
        [program], capture_output=True, text=True, timeout=30, check=False, env={**os.environ, **variables}
    )
    assert offered <= set(done.stdout.split())
