"""Our own bounds: no socket at all, a seccomp filter, and a root that lacks capabilities."""

from __future__ import annotations

from typing import Literal

import pytest
from msgspec.structs import replace

from checks import CHECKS
from diagnose.engine import diagnose
from diagnose.model.attempt import Attempt, Outcome
from diagnose.model.cgroup import Cgroup, CgroupFilters, CgroupProgram, Hook
from diagnose.model.confinement import Confinement
from diagnose.model.fact import Fact, Known, Reason, Unknown
from diagnose.model.finding import Confidence
from diagnose.model.process import Container, Holders
from diagnose.model.report import Report
from diagnose.model.snapshot import Snapshot
from tests.scenes import ALICE, POLICY, ROOT, denied, dialled, held, listening, not_accepted, rows, wanted

HERE = "127.0.0.1:8080"
ALL = (1 << 41) - 1
FREE = Confinement(ALL, ALL, seccomp=False)
FILTERED = Confinement(ALL, ALL, seccomp=True, unit="job.service")
NO_PROGRAMS: Fact[CgroupFilters] = Known(CgroupFilters(Known(Cgroup("/sys/fs/cgroup/x", ()))))
NEEDS_ROOT = Unknown(Reason.NEEDS_ROOT, "programs on cgroups are shown to root only", "run it again with sudo")


def tried(errno: str, call: Literal["socket", "connect"] = "socket", where: str = HERE) -> Attempt:
    outcome = Outcome.OTHER if errno == "EAFNOSUPPORT" else Outcome.DENIED
    return replace(not_accepted(where), outcome=outcome, errno=errno, call=call, ms=0.1)


def seen(
    attempt: Attempt, bounds: Confinement = FREE, filters: Fact[CgroupFilters] = NO_PROGRAMS, target: str = HERE
) -> Snapshot:
    return dialled(
        target, attempt, confinement=Known(bounds), cgroup_filters=filters, policy=Known(POLICY), listeners=Known(())
    )


def report(snapshot: Snapshot) -> Report:
    return diagnose(snapshot, CHECKS)


def code(snapshot: Snapshot) -> str | None:
    found = report(snapshot).root_cause
    return found.code if found else None


@pytest.mark.parametrize("errno", ["EACCES", "EPERM", "EAFNOSUPPORT"])
def test_a_socket_that_was_denied_is_named_and_the_server_is_not_blamed(errno: str) -> None:
    found = report(seen(tried(errno), FILTERED)).root_cause
    assert found is not None
    assert (found.code, found.confidence) == ("sandbox/address-family", Confidence.PROVEN)
    assert found.title == f"This process may not create IPv4 sockets: socket(2) gives {errno}"
    assert "job.service" in str(found.evidence)


def test_restrict_address_families_is_named_by_its_errno() -> None:
    found = report(seen(tried("EAFNOSUPPORT"), FILTERED)).root_cause
    assert found is not None
    assert "RestrictAddressFamilies=" in found.explanation
    assert found.remedies[1].commands[0].argv[:3] == ("systemctl", "show", "job.service")


def test_an_enforced_apparmor_profile_is_named_and_one_that_complains_is_not() -> None:
    enforced = report(seen(tried("EACCES"), replace(FREE, profile="web (enforce)"))).root_cause
    complaining = report(seen(tried("EACCES"), replace(FREE, profile="web (complain)"))).root_cause
    assert enforced is not None
    assert complaining is not None
    assert "The AppArmor profile web is enforced" in enforced.explanation
    assert "The AppArmor profile web" not in complaining.explanation


@pytest.mark.parametrize("available", [True, False])
def test_an_ipv6_that_the_kernel_has_not_is_no_sandbox(available: bool) -> None:
    snapshot = seen(tried("EAFNOSUPPORT", where="[::1]:8080"), target="[::1]:8080")
    snapshot = replace(snapshot, policy=Known(replace(POLICY, ipv6_available=available)))
    assert (code(snapshot) == "sandbox/address-family") is available


def test_a_program_that_is_asked_for_sockets_is_the_cause_of_eperm() -> None:
    program = CgroupProgram(Hook.SOCK_CREATE, 7, "guard", "/sys/fs/cgroup/x")
    filters = Known(CgroupFilters(Known(Cgroup("/sys/fs/cgroup/x", (program,))), rivals=Known(())))
    assert code(seen(tried("EPERM"), filters=filters)) == "sandbox/cgroup-connect"


def test_where_programs_could_not_be_read_eperm_is_likely_only() -> None:
    found = report(replace(seen(tried("EPERM"), filters=NEEDS_ROOT), vantage=ALICE)).root_cause
    assert found is not None
    assert (found.code, found.confidence) == ("sandbox/address-family", Confidence.LIKELY)


def test_a_bind_that_got_no_socket_says_so() -> None:
    one = replace(denied(HERE), errno="EACCES", plain_errno="EACCES", call="socket")
    snapshot = replace(wanted(HERE, one, policy=Known(POLICY)), confinement=Known(FILTERED))
    assert code(snapshot) == "sandbox/address-family"


@pytest.mark.parametrize(
    ("rivals", "bounds", "expected"),
    [
        (("a seccomp filter on this process",), FILTERED, "sandbox/seccomp"),
        (("a seccomp filter on this process", "an IPsec policy that blocks"), FILTERED, None),
        ((), FREE, None),
    ],
)
def test_a_connect_that_only_seccomp_can_forbid_is_seccomp_s(
    rivals: tuple[str, ...], bounds: Confinement, expected: str | None
) -> None:
    filters = Known(CgroupFilters(Known(Cgroup("/sys/fs/cgroup/x", ())), rivals=Known(rivals)))
    assert code(seen(tried("EPERM", "connect"), bounds, filters)) == expected


# a root that lacks capabilities


def unknown_rules(vantage=ROOT, bounds: Confinement | None = None, container: Container | None = None) -> Report:  # type: ignore[no-untyped-def]
    rules = Unknown(Reason.NEEDS_ROOT, "the rule sets cannot be read", "run it again with sudo")
    snapshot = dialled(
        HERE,
        not_accepted(HERE),
        listeners=rows(listening(HERE)),
        holders=held(hidden=2),
        firewall=rules,
        seen_by=replace(vantage, privileged=False, container=container),
    )
    return report(snapshot if bounds is None else replace(snapshot, confinement=Known(bounds)))


def lifts(found: Report) -> str:
    return " ".join(str(one.lift) for one in found.not_checked)


def test_root_without_capabilities_is_told_which_are_missing() -> None:
    bare = Confinement(0, 0, seccomp=False, unit="job.service")
    found = unknown_rules(bounds=bare)
    assert "sudo" not in lifts(found)
    assert "CAP_NET_ADMIN" in lifts(found)
    assert "CapabilityBoundingSet=" in lifts(found)
    cause = found.root_cause
    assert cause is not None
    assert not any(command.argv[:2] == ("netdiag", "run") for one in cause.remedies for command in one.commands)


def test_the_owner_that_a_bounded_root_does_not_see_is_not_looked_for_outside_a_container_that_is_not_there() -> None:
    bare = Confinement(0, 0, seccomp=False, unit="job.service")
    hidden = Holders((), 2, "some processes hide their descriptors even from root")
    snapshot = dialled(HERE, not_accepted(HERE), listeners=rows(listening(HERE)), holders=Known(hidden))
    snapshot = replace(snapshot, confinement=Known(bare), vantage=replace(ROOT, privileged=False))
    assert "container" not in lifts(report(snapshot))
    assert "CAP_SYS_PTRACE" in lifts(report(snapshot))


def test_the_root_of_a_container_is_sent_to_the_machine_itself() -> None:
    bare = Confinement(1 << 12, 1 << 12, seccomp=True)
    found = unknown_rules(bounds=bare, container=Container("docker", "ab" * 32, "web"))
    assert "outside of this container" in lifts(found)
    assert "CAP_NET_ADMIN" not in lifts(found)


def test_an_ordinary_user_is_still_told_to_use_sudo() -> None:
    found = unknown_rules(vantage=ALICE, bounds=Confinement(0, ALL, seccomp=False))
    assert "run it again with sudo" in lifts(found)
