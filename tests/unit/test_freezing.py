"""Frozen: which unit, container or cgroup holds the server still, and what thaws it in the right order."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from checks import CHECKS
from diagnose.analysis.argument import objected
from diagnose.engine import diagnose
from diagnose.model.attempt import Attempt
from diagnose.model.fact import Fact, Known, Reason, Unknown
from diagnose.model.finding import Command, Confidence, Finding
from diagnose.model.freezer import FrozenCgroup
from diagnose.model.process import Container, Holders, Process
from diagnose.model.report import Report
from diagnose.model.snapshot import Snapshot
from diagnose.model.unit import Lodger, Units
from tests.scenes import (
    ALICE,
    dialled,
    full_queue,
    held,
    listening,
    not_accepted,
    process,
    rows,
    taken,
    unanswered,
    wanted,
)

HERE = "127.0.0.1:8080"
SERVER = rows(listening(HERE))
TOP = "/sys/fs/cgroup"
UNIT = f"{TOP}/system.slice/web.service"
WEB = process("python3", 77)
HELD = held((1, WEB))


def frozen(directory: str, *files: str, pids: tuple[int, ...] = (77,), inodes: tuple[int, ...] = ()) -> FrozenCgroup:
    return FrozenCgroup(directory, files or (f"{directory}/cgroup.freeze",), pids, None, inodes)


def seen(*cgroups: FrozenCgroup, holders: Fact[Holders] = HELD, attempt: Attempt | None = None) -> Snapshot:
    return dialled(
        HERE, attempt or not_accepted(HERE), listeners=SERVER, holders=holders, freezers=Known(tuple(cgroups))
    )


def report(snapshot: Snapshot) -> Report:
    return diagnose(snapshot, CHECKS)


def cause(snapshot: Snapshot) -> Finding:
    found = report(snapshot).root_cause
    assert found is not None
    return found


def argvs(finding: Finding) -> list[list[tuple[str, ...]]]:
    assert not [one for one in finding.remedies if objected((*one.commands, *one.undo))]
    return [[command.argv for command in remedy.commands] for remedy in finding.remedies]


@pytest.mark.parametrize("attempt", [not_accepted(HERE), unanswered(HERE, queue=full_queue(HERE))])
def test_a_frozen_unit_is_thawed_and_never_restarted(attempt: Attempt) -> None:
    found = cause(seen(frozen(UNIT), attempt=attempt))
    assert (found.code, found.confidence) == ("hung/frozen", Confidence.PROVEN)
    assert found.title == "web.service, which serves 127.0.0.1:8080, is frozen"
    assert argvs(found)[0] == [("systemctl", "thaw", "web.service")]
    assert found.remedies[0].undo == (Command(("systemctl", "freeze", "web.service"), needs_root=True),)
    assert not any("restart" in word for argv in argvs(found) for command in argv for word in command)


def test_a_frozen_slice_is_thawed_before_the_unit_in_it() -> None:
    slice_file = f"{TOP}/app.slice/cgroup.freeze"
    found = cause(
        seen(frozen(f"{TOP}/app.slice/web.service", slice_file, f"{TOP}/app.slice/web.service/cgroup.freeze"))
    )
    assert found.title == "app.slice, which serves 127.0.0.1:8080, is frozen"
    assert argvs(found)[0] == [("systemctl", "thaw", "app.slice"), ("systemctl", "thaw", "web.service")]
    assert [one.argv[1:] for one in found.remedies[0].undo] == [("freeze", "web.service"), ("freeze", "app.slice")]


@pytest.mark.parametrize(("uid", "expected"), [(1000, ("--user",)), (0, ("--machine=1000@.host", "--user"))])
def test_the_unit_of_a_user_is_thawed_by_the_manager_of_that_user(uid: int, expected: tuple[str, ...]) -> None:
    place = f"{TOP}/user.slice/user-1000.slice/user@1000.service/app.slice/web.service"
    snapshot = seen(frozen(place))
    snapshot = replace(snapshot, vantage=replace(snapshot.vantage, uid=uid))
    assert argvs(cause(snapshot))[0] == [("systemctl", *expected, "thaw", "web.service")]


def test_a_cgroup_of_no_unit_is_thawed_by_its_own_file() -> None:
    found = cause(seen(frozen(f"{TOP}/batch/job 7")))
    assert found.title == "Cgroup job 7, which serves 127.0.0.1:8080, is frozen"
    assert argvs(found) == [[("sh", "-c", 'printf 0 > "$0"', f"{TOP}/batch/job 7/cgroup.freeze")]]
    assert found.remedies[0].undo[0].argv[2] == 'printf 1 > "$0"'


def test_the_freezer_of_version_1_has_words_of_its_own() -> None:
    found = cause(seen(frozen(f"{TOP}/freezer/job", f"{TOP}/freezer/job/freezer.state")))
    assert argvs(found) == [[("sh", "-c", 'printf THAWED > "$0"', f"{TOP}/freezer/job/freezer.state")]]
    assert "FROZEN" in found.evidence[0].text


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("/etc/hosts", False),
        ("/etc/app/cgroup.freeze", False),
        ("/sys/fs/cgroup/../../etc/cgroup.freeze", False),
        (f"{UNIT}/cgroup.freeze", True),
    ],
)
def test_the_script_that_thaws_writes_no_other_file(path: str, wanted: bool) -> None:
    assert (objected([Command(("sh", "-c", 'printf 0 > "$0"', path))]) is None) is wanted


@pytest.mark.parametrize(
    "holders",
    [held((1, WEB), (1, process("worker", 9))), held((1, process("nginx", 9))), held(hidden=3)],
    ids=["another process may accept", "another process holds it", "hidden"],
)
def test_a_server_that_may_run_is_not_called_frozen(holders: Fact[Holders]) -> None:
    assert "hung/frozen" not in [one.code for one in report(seen(frozen(UNIT), holders=holders)).findings]


def test_where_the_holder_is_hidden_the_cgroup_of_its_socket_makes_it_likely() -> None:
    snapshot = seen(frozen(UNIT, pids=(), inodes=(1,)), holders=held(hidden=3))
    found = cause(replace(snapshot, vantage=ALICE))
    assert (found.code, found.confidence) == ("hung/frozen", Confidence.LIKELY)


def test_a_worker_that_is_frozen_beside_a_stopped_one_is_named() -> None:
    stopped = process("python3", 78, state="T")
    assert cause(seen(frozen(UNIT), holders=held((1, WEB), (1, stopped)))).code == "hung/frozen"


def test_a_freezer_that_could_not_be_read_is_not_checked() -> None:
    unknown = Unknown(Reason.NOT_MOUNTED, "no cgroup file system is mounted")
    snapshot = dialled(HERE, not_accepted(HERE), listeners=SERVER, holders=held((1, WEB)), freezers=unknown)
    assert "frozen cgroups" in [one.fact for one in report(snapshot).not_checked]
    assert cause(snapshot).code == "hung/not-accepting"


@pytest.mark.parametrize(("engine", "uid", "needs_root"), [("docker", 0, True), ("podman", 1000, False)])
def test_a_paused_container_in_our_own_namespace_is_unpaused_by_its_engine(
    engine: str, uid: int, needs_root: bool
) -> None:
    place = "/user.slice/user-1000.slice/user@1000.service/user.slice" if engine == "podman" else "/system.slice"
    directory = f"{TOP}{place}/{engine}-{'a' * 64}.scope"
    one = replace(frozen(directory), container=Container(engine, "a" * 64, "web"))
    snapshot = seen(one)
    found = cause(replace(snapshot, vantage=replace(snapshot.vantage, uid=uid)))
    assert (found.code, found.confidence) == ("container/paused", Confidence.PROVEN)
    assert found.remedies[0].commands == (Command((engine, "unpause", "web"), needs_root=needs_root),)


def test_the_rootless_container_of_another_user_is_not_unpaused_by_root_s_own_engine() -> None:
    place = f"{TOP}/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{'a' * 64}.scope"
    one = replace(frozen(place), container=Container("podman", "a" * 64, "web"))
    first = cause(seen(one)).remedies[0]
    assert not first.commands
    assert "podman unpause web" in first.summary


def test_a_port_that_a_frozen_process_has_is_thawed_before_anything_else() -> None:
    mine: Process = replace(WEB, unit="web.service")
    snapshot = wanted(
        HERE,
        taken(HERE),
        listeners=SERVER,
        holders=held((1, mine)),
        freezers=Known((frozen(UNIT),)),
        units=Known(Units((), lodgers=(Lodger(mine.pid, "web.service", None, mine.pid),))),
    )
    found = cause(snapshot)
    assert found.code == "in-use/listener"
    assert argvs(found)[0] == [("systemctl", "thaw", "web.service"), ("systemctl", "stop", "web.service")]
    assert argvs(found)[1] == [("systemctl", "thaw", "web.service"), ("kill", "77")]
    assert "web.service is frozen" in found.explanation


def test_what_is_frozen_is_not_said_to_wait_for_a_disk() -> None:
    held_still = held((1, replace(WEB, state="D")))  # as the freezer of cgroup v1 shows it
    directory = "/sys/fs/cgroup/freezer/web"
    cgroups: tuple[FrozenCgroup, ...] = (frozen(directory, f"{directory}/freezer.state"),)
    busy = report(wanted(HERE, taken(HERE), listeners=SERVER, holders=held_still, freezers=Known(cgroups))).root_cause
    assert busy is not None
    assert "is frozen and keeps the port" in busy.explanation
    assert "disk" not in busy.explanation
