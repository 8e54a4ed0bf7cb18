"""What each check came to on every recorded machine: as it was asked, and as if the question had been another."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from msgspec.structs import replace

from checks import CHECKS
from diagnose.engine import diagnose
from diagnose.model.attempt import BindAttempt, Outcome
from diagnose.model.fact import NOT_NEEDED, Known
from diagnose.model.network import family_of
from diagnose.model.report import CheckOutcome, Report
from diagnose.model.snapshot import Snapshot
from diagnose.model.target import Intent
from diagnose.recording import decode

MACHINES = Path(__file__).parents[2] / "fixtures" / "machines"
ABOUT_CONNECTIONS = {"refused", "firewall", "container", "hung", "exposure"}
"""Checks that have nothing to ask of an address that a server is to be started on."""
ABOUT_ATTEMPTS = {"hung", "sandbox", "exposure"}
"""Checks that have nothing to ask where nothing was tried."""


@cache
def machines() -> tuple[Snapshot, ...]:
    """Every recorded snapshot."""
    return tuple(one for path in sorted(MACHINES.glob("*/snapshot.json")) for one in decode(path.read_bytes()))


def to_bind(snapshot: Snapshot) -> Snapshot:
    """The same machine, asked whether a server can be started there: it can."""
    known = snapshot.names.value.addresses if isinstance(snapshot.names, Known) else ()
    binds = tuple(
        BindAttempt(
            address=one.address,
            port=snapshot.target.port,
            family=family_of(one.address),
            outcome=Outcome.BOUND,
            errno=None,
            plain_outcome=Outcome.BOUND,
            plain_errno=None,
            ms=0.1,
        )
        for one in known
    )
    return replace(snapshot, intent=Intent.BIND, attempts=(), candidates=(), binds=binds)


def only_looked(snapshot: Snapshot) -> Snapshot:
    """The same machine with nothing tried, and so nothing asked that only a failure asks for."""
    return replace(
        snapshot,
        scope=replace(snapshot.scope, passive=True),
        attempts=(),
        candidates=(),
        binds=(),
        **dict.fromkeys(("firewall", "host_firewall", "cgroup_filters", "containers", "elsewhere", "ufw"), NOT_NEEDED),
    )


def reports() -> Iterator[Report]:
    """Every machine in every mode."""
    for snapshot in machines():
        for one in (snapshot, to_bind(snapshot), only_looked(snapshot), only_looked(to_bind(snapshot))):
            yield diagnose(one, CHECKS)


def outcomes(report: Report, *wanted: CheckOutcome) -> set[str]:
    return {check.name for check in report.checks if check.outcome in wanted}


def test_nothing_is_its_own_consequence() -> None:
    assert [f.title for report in reports() for f in report.findings if f.code in f.explains] == []


def test_no_check_crashes() -> None:
    assert not any(outcomes(report, CheckOutcome.CRASHED) for report in reports())


def test_where_a_server_is_to_be_started_the_checks_of_connections_have_nothing_to_ask() -> None:
    for snapshot in machines():
        for seen in (to_bind(snapshot), only_looked(to_bind(snapshot))):
            assert outcomes(diagnose(seen, CHECKS), CheckOutcome.NOT_APPLICABLE) >= ABOUT_CONNECTIONS


def test_where_nothing_was_tried_the_checks_of_attempts_have_nothing_to_ask() -> None:
    for snapshot in machines():
        asked = outcomes(diagnose(only_looked(snapshot), CHECKS), CheckOutcome.CLEAR, CheckOutcome.FOUND)
        assert not asked & {*ABOUT_ATTEMPTS, "firewall"}, snapshot.target.input


@pytest.mark.parametrize("name", [check.name for check in CHECKS])
def test_a_check_is_clear_only_of_facts_that_are_known(name: str) -> None:
    """With every fact and every attempt taken away nothing is left that could be clear."""
    check = next(one for one in CHECKS if one.name == name)
    for snapshot in machines():
        blind = replace(only_looked(snapshot), **dict.fromkeys(_FACTS, NOT_NEEDED))
        for seen in (blind, replace(blind, intent=Intent.BIND)):
            assert diagnose(seen, [check]).checks[0].outcome is not CheckOutcome.CLEAR


_FACTS = (
    *("names", "links", "sockets", "listeners", "bound", "udp", "holders", "policy", "routing", "hosts", "resolver"),
    *("compose",),
)
