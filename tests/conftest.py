"""Options and rules for the whole suite."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Generator

import pytest

from tests.tracefs import mount_tracefs

MACHINES = "fixtures/machines"

# a shell in the background, and nohup, ignore these; programs that the tests start would inherit that, and no handler
for _name in ("SIGINT", "SIGQUIT", "SIGHUP"):
    _number = getattr(signal, _name, None)
    if _number is not None and signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, lambda _number, _frame: None)


def pytest_addoption(parser: pytest.Parser) -> None:
    """--record-machines keeps what the lab's scenarios saw."""
    parser.addoption(
        "--record-machines",
        nargs="?",
        const=MACHINES,
        default=None,
        metavar="FOLDER",
        help=f"record every scenario that runs as a machine to replay (default {MACHINES})",
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With NETDIAG_LAB=required a scenario of the lab that cannot run has failed."""
    report = yield
    if report.skipped and item.get_closest_marker("lab") and os.environ.get("NETDIAG_LAB") == "required":
        report.outcome = "failed"
        report.longrepr = f"NETDIAG_LAB=required, but it cannot run: {report.longrepr}"
    return report


@pytest.fixture(scope="session", autouse=True)
def _tracefs(request: pytest.FixtureRequest) -> None:
    """The kernel's trace for the lab's scenarios, once for all test processes."""
    lab = any(item.get_closest_marker("lab") for item in request.session.items)
    if lab and sys.platform == "linux" and os.geteuid() == 0:
        mount_tracefs()
