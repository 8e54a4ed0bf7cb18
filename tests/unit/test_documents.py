"""The README and the manual page against the commands that they describe."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

from diagnose.cli import Format

REPOSITORY = Path(__file__).resolve().parents[2]
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


def manual() -> ModuleType:
    """scripts/manual.py, which is no part of the package."""
    spec = importlib.util.spec_from_file_location("manual", REPOSITORY / "scripts" / "manual.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def options() -> set[str]:
    return set(re.findall(r"--[a-z][a-z-]+", manual().page().replace(r"\-", "-")))


def test_the_manual_page_is_what_the_commands_say() -> None:
    written = (REPOSITORY / "docs" / "netdiag.1").read_text(encoding="utf-8")
    assert written == manual().page(), "run `make docs`"


def test_every_option_that_the_readme_uses_exists() -> None:
    lines = [
        line
        for line in re.findall(r"netdiag[^\n`]*", README)
        if re.match(r"netdiag (run|replay|bundle|runbook) ", line)
    ]
    used = {option for line in lines for option in re.findall(r"(?<= )--[a-z][a-z-]+", line)}
    assert used
    assert used <= options()


def test_every_format_and_command_stands_in_the_readme() -> None:
    for name in Format:
        assert f"`{name.value}`" in README, name
    for name in re.findall(r"^\.SS netdiag (\w+)", manual().page(), re.MULTILINE):
        assert f"netdiag {name}" in README, name


def test_the_exit_codes_of_the_readme_are_those_of_the_manual_page() -> None:
    told = set(re.findall(r"^\| (\d+) \|", README, re.MULTILINE))
    assert told == {code for code, _ in manual().EXIT_CODES}
