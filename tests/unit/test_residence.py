"""Whose network namespace is it: the remedy stands on the side that has left the machine's own."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from checks import CHECKS
from diagnose.engine import diagnose
from diagnose.model.elsewhere import Elsewhere, OtherListener, Residence
from diagnose.model.fact import Known
from diagnose.model.finding import Confidence, Finding
from tests.scenes import at, dialled, process, refused

HERE = "127.0.0.1:8080"
MACHINE = Residence(machine=True)
OUR_UNIT = Residence(machine=False, unit="job.service")
THEIR_UNIT = Residence(machine=False, unit="web.service")
SANDBOX = Residence(machine=False, launcher="bwrap", launcher_pid=41)


def found(ours: Residence, theirs: Residence, *, unit: str | None = "web.service", hidden: bool = False) -> Finding:
    one = OtherListener(
        4026531840,
        at(HERE),
        process=None if hidden else process("python3", 77),
        unit=unit,
        init=1 if theirs.machine else 70,
        init_program="systemd" if theirs.machine else "sh",
        residence=theirs,
    )
    seen = Known(Elsewhere((one,), 1, 0, ours))
    cause = diagnose(dialled(HERE, refused(HERE), elsewhere=seen), CHECKS).root_cause
    assert cause is not None
    assert (cause.code, cause.confidence) == ("container/other-namespace", Confidence.LIKELY)
    return cause


def advice(finding: Finding) -> str:
    return " ".join(one.summary for one in finding.remedies)


@pytest.mark.parametrize("hidden", [False, True])
def test_where_netdiag_is_sandboxed_the_unit_of_the_server_is_not_to_be_edited(hidden: bool) -> None:
    cause = found(OUR_UNIT, MACHINE, hidden=hidden)
    assert cause.title == "netdiag runs in its own network namespace; port 8080 is open in the machine's"
    assert "systemctl edit job.service" in advice(cause)
    assert "web.service" not in advice(cause)
    assert cause.remedies[0].commands[0].argv[:2] == ("nsenter", f"--net=/proc/{1 if hidden else 77}/ns/net")


def test_a_sandbox_that_no_unit_made_is_named_by_its_outermost_process() -> None:
    cause = found(SANDBOX, MACHINE)
    assert "bwrap (pid 41)" in cause.explanation
    assert "systemctl" not in advice(cause)


def test_where_the_server_s_unit_has_the_namespace_it_is_the_one_to_edit() -> None:
    cause = found(MACHINE, THEIR_UNIT)
    assert "systemctl edit web.service" in advice(cause)
    assert "netdiag is in the machine's own, and the server is not" in cause.explanation


def test_a_server_that_left_the_namespace_of_its_unit_by_itself_does_not_blame_the_unit() -> None:
    cause = found(MACHINE, SANDBOX, unit="ssh.service")
    assert "systemctl" not in advice(cause)
    assert "bwrap (pid 41)" in advice(cause)


def test_two_private_namespaces_are_joined_or_both_opened() -> None:
    cause = found(OUR_UNIT, THEIR_UNIT)
    assert "Neither is in the machine's own" in cause.explanation
    assert "JoinsNamespaceOf=web.service" in advice(cause)
    assert "systemctl edit job.service" in advice(cause)


def test_units_that_share_the_namespace_are_named() -> None:
    cause = found(MACHINE, replace(THEIR_UNIT, shared_with=("db.service",)))
    assert "shared with db.service (JoinsNamespaceOf=)" in cause.explanation
    assert "The same for db.service" in advice(cause)


def test_what_could_not_be_determined_blames_neither_side() -> None:
    unknown = Residence()
    cause = found(unknown, unknown, unit=None)
    assert "machine's own" not in cause.explanation
    assert "the server (or the client)" in advice(cause)
