"""Goldens: whole outputs kept as files, rewritten by NETDIAG_UPDATE_GOLDENS=1 and read in review."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

GOLDENS = Path(__file__).parents[1] / "golden"


@pytest.fixture
def matches_golden() -> Callable[[str, str], None]:
    """Compares a text with the golden of this name, or rewrites the golden."""

    def compare(name: str, text: str) -> None:
        path = GOLDENS / name
        if os.environ.get("NETDIAG_UPDATE_GOLDENS"):
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        assert path.exists(), f"no golden {path}: run with NETDIAG_UPDATE_GOLDENS=1"
        assert text == path.read_text(encoding="utf-8"), "if this is meant: NETDIAG_UPDATE_GOLDENS=1 rewrites goldens"

    return compare
