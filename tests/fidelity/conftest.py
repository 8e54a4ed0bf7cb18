"""The children that try the rule sets, what was counted, and the line about it at the end of the run."""

from __future__ import annotations

import os
import shutil
import sys
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.fidelity.child import Children
from tests.fidelity.tally import TALLY, line

_TOOLS = ("ip", "sysctl", "nft", "iptables-nft", "ip6tables-nft", "iptables-legacy", "ip6tables-legacy", "ipset")


@pytest.fixture(scope="session")
def children() -> Iterator[Children]:
    """One child a processor for all rule sets; skips where none can be tried, with the reason."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("real rule sets need Linux and root: run `sudo make lab`")
    missing = [
        tool for tool in _TOOLS if shutil.which(tool, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") is None
    ]
    if missing:
        pytest.skip(f"needs tools that are not installed: {', '.join(missing)}")
    children = Children(min(4, len(os.sched_getaffinity(0))))
    try:
        yield children
    finally:
        children.close()


@pytest.fixture(scope="session")
def tally() -> Counter[str]:
    """What was seen, over all rule sets of the run."""
    return TALLY


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How many rule sets were tried, and how often the answer was less than proven."""
    if TALLY:
        terminalreporter.write_line(line())
