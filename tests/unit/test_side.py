"""The side that --from names: remedies that run here, what is not shared with it, and files that are not ours."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

import checks
from diagnose.analysis.side_commands import there
from diagnose.analysis.their_files import about_theirs
from diagnose.analysis.unshared import unshared_by_us
from diagnose.engine import diagnose
from diagnose.model.cgroup import Cgroup, CgroupFilters, CgroupProgram, Hook
from diagnose.model.fact import Known, Reason, Unknown
from diagnose.model.finding import Command, Confidence, Edit, Evidence, Remedy
from diagnose.model.names import Resolution, ResolvedAddress
from diagnose.model.process import Container
from diagnose.model.side import Side
from diagnose.model.snapshot import Snapshot, Vantage
from diagnose.recording import decode, encode
from diagnose.render.markdown import render_markdown
from diagnose.render.text import Style, render_text
from tests.scenes import ALICE, ROOT, connected, dialled, finding, listening, refused, rows

HERE = "127.0.0.1:8080"
WEB = Container("docker", "0123456789abcdef" * 4, "web")
SIDE = Side("container web", "/proc/4711/ns/net", pid=4711, user="www-data", own_files=False)


def from_web(vantage: Vantage = ROOT, **changes: object) -> Vantage:
    """As container web sees it."""
    return replace(vantage, origin="container:web", container=WEB, side=replace(SIDE, **changes))


def seen(snapshot: Snapshot, vantage: Vantage | None = None) -> Snapshot:
    return replace(snapshot, vantage=vantage or from_web())


WORKS = seen(dialled(HERE, connected(HERE), listeners=rows(listening(HERE))))
FAILS = seen(dialled(HERE, refused(HERE)))


def facts(snapshot: Snapshot) -> dict[str, Unknown]:
    return dict(unshared_by_us(snapshot))


# commands


@pytest.mark.parametrize(
    "argv",
    [
        ("nft", "delete", "rule", "ip", "filter", "input", "handle", "7"),
        ("iptables-legacy", "-D", "INPUT", "1"),
        ("ip6tables-nft", "-D", "INPUT", "1"),
        ("ip", "link", "set", "lo", "up"),
        ("sysctl", "-w", "net.ipv4.ip_local_port_range=1 2"),
        ("ss", "--kill", "--tcp"),
    ],
)
def test_a_program_that_acts_on_its_namespace_is_run_in_that_of_the_side(argv: tuple[str, ...]) -> None:
    [remedy] = there([Remedy(summary="x", commands=(Command(argv),), undo=(Command(argv),))], from_web())
    wanted = Command(("nsenter", "--net=/proc/4711/ns/net", *argv), needs_root=True)
    assert (remedy.commands, remedy.undo) == ((wanted,), (wanted,))


@pytest.mark.parametrize("argv", [("kill", "-CONT", "12"), ("docker", "start", "web"), ("systemctl", "start", "db")])
def test_a_program_that_acts_on_the_machine_is_run_as_it_stands(argv: tuple[str, ...]) -> None:
    before = (Remedy(summary="x", commands=(Command(argv),)),)
    assert there(before, from_web()) == before


def test_netdiag_looks_from_there_again_and_inside_nsenter_it_is_there_already() -> None:
    inside = Command(("nsenter", "--net=/proc/9/ns/net", "netdiag", "run", HERE), needs_root=True)
    commands = (Command(("netdiag", "run", "--bind", HERE)), inside)
    [remedy] = there([Remedy(summary="x", commands=commands)], from_web())
    again = ("netdiag", "run", "--from", "container:web", "--bind", HERE)
    assert remedy.commands == (Command(again, needs_root=True), inside)


@pytest.mark.parametrize("program", ["ufw", "firewall-cmd", "fail2ban-client"])
def test_a_program_that_keeps_the_machine_s_own_rules_is_no_remedy_for_another_namespace(program: str) -> None:
    remedies = [Remedy(summary="x", commands=(Command((program, "delete", "1")),))]
    assert there(remedies, from_web()) == ()
    assert len(there(remedies, from_web(namespace=None))) == 1
    assert len(there(remedies, ROOT)) == 1


def test_what_is_mended_on_the_machine_itself_is_not_done_over_there() -> None:
    commands = (
        Command(("ufw", "allow", "80")),
        Command(("nft", "list", "ruleset")),
        Command(("netdiag", "run", "x:80")),
    )
    [remedy] = there([Remedy(summary="x", commands=commands)], from_web(), of_the_machine=True)
    assert remedy.commands[:2] == commands[:2]
    assert remedy.commands[2].argv[:4] == ("netdiag", "run", "--from", "container:web")


def test_a_side_in_our_own_network_namespace_needs_no_prefix() -> None:
    command = Command(("nft", "flush", "ruleset"))
    [remedy] = there([Remedy(summary="x", commands=(command,))], from_web(namespace=None))
    assert remedy.commands == (command,)


# what is said


@pytest.mark.parametrize("vantage", [from_web(ROOT), from_web(ALICE)])
def test_the_report_says_from_where_and_how_to_ask_again(vantage: Vantage) -> None:
    report = diagnose(replace(FAILS, vantage=vantage), checks.CHECKS)
    text = render_text([report], Style(width=100))
    assert text.startswith("127.0.0.1:8080 from container:web  unreachable: ")
    again = f"netdiag run --from container:web {HERE}"
    assert (f"Verify      {again}" in text) == (vantage.uid == 0)
    assert (f"Verify      sudo {again}" in text) == (vantage.uid != 0)
    assert "`127.0.0.1:8080` from `container:web`" in render_markdown([report])


def test_a_recording_from_there_is_judged_the_same() -> None:
    [again] = decode(encode([FAILS]))
    assert again == FAILS
    assert diagnose(again, checks.CHECKS) == diagnose(FAILS, checks.CHECKS)


# what is not shared


def test_what_bounds_the_process_is_said_where_it_worked_for_us() -> None:
    bounded = from_web(confined=("it has a seccomp filter",))
    assert "seccomp" in str(facts(seen(WORKS, bounded))["own limits"])
    assert facts(seen(FAILS, bounded)) == {}
    assert facts(WORKS) == {}


def test_a_process_that_ended_meanwhile_is_told_of() -> None:
    assert "container web ended" in str(facts(seen(FAILS, from_web(ended=True)))["vantage"])


def test_a_side_that_was_not_entered_says_what_would_enter_it() -> None:
    unknown = facts(seen(dialled(HERE), from_web(ALICE, entered=False)))["vantage"]
    assert unknown.reason is Reason.NEEDS_ROOT
    assert unknown.lift == f"sudo netdiag run --from container:web {HERE}"


def programs(*ids: int) -> Known[Cgroup]:
    found = tuple(CgroupProgram(Hook.CONNECT4, one, f"guard{one}", "/sys/fs/cgroup/web") for one in ids)
    return Known(Cgroup("/sys/fs/cgroup/web", found))


def test_a_program_on_their_cgroup_alone_is_not_checked_and_a_common_one_was_asked_for_ours() -> None:
    theirs = replace(WORKS, cgroup_filters=Known(CgroupFilters(programs(1), (), theirs=programs(1, 2))))
    [said] = facts(theirs).values()
    assert "guard2" in said.detail
    assert "guard1" not in said.detail
    common = replace(WORKS, cgroup_filters=Known(CgroupFilters(programs(1, 2), (), theirs=programs(1))))
    assert facts(common) == {}


def test_from_inside_a_container_it_is_said_how_to_look_from_the_machine() -> None:
    inside = replace(ROOT, container=replace(WEB, name=None))
    [said] = facts(seen(FAILS, inside)).values()
    assert said.lift == f"on the machine itself: sudo netdiag run --from container:0123456789ab {HERE}"
    assert facts(seen(WORKS, inside)) == {}
    assert facts(seen(FAILS, replace(ROOT, container=Container("docker", "")))) == {}


# files that are not ours


def test_a_file_over_there_is_changed_by_a_person_and_by_no_command_of_ours() -> None:
    append = Remedy(
        summary="Add the line",
        commands=(Command(("sh", "-c", "echo", "/etc/hosts"), needs_root=True),),
        undo=(Command(("sh", "-c", "true", "/etc/hosts"), needs_root=True),),
        survives_reboot=True,
        edits=(Edit("/etc/hosts", None, "127.0.0.1 localhost"),),
    )
    said = replace(finding("resolution/hosts-file-broken"), remedies=(append,), evidence=(Evidence("x", "/etc/hosts"),))
    theirs = about_theirs(said, FAILS)
    [remedy] = theirs.remedies
    assert (remedy.commands, remedy.undo) == ((), ())
    assert [edit.file for edit in remedy.edits] == ["/etc/hosts of container web"]
    assert "--add-host" in remedy.summary
    assert theirs.evidence[0].source == "/etc/hosts of container web"
    assert about_theirs(said, seen(FAILS, from_web(own_files=True))) == said
    assert about_theirs(said, seen(FAILS, ROOT)) == said


def test_a_name_that_a_module_might_have_answered_proves_nothing() -> None:
    names = Resolution("db", (ResolvedAddress("127.0.0.1", "ipv4"),), 1.0, source="files and DNS", doubts=("sss",))
    snapshot = replace(WORKS, names=Known(names))
    assert about_theirs(finding("resolution/x", confidence=Confidence.PROVEN), snapshot).confidence is Confidence.LIKELY
    assert "sss" in facts(snapshot)["name resolution"].detail
