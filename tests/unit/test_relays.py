"""Relays of engines without root: what their command lines say, and what our own connection proves of the far end."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from checks import CHECKS, container
from diagnose.analysis.argument import objection
from diagnose.analysis.publication import may_be_translated
from diagnose.engine import diagnose
from diagnose.model.attempt import Acceptance, Behind, Outcome
from diagnose.model.container import Containers, Engine, Forwarder, Inside
from diagnose.model.fact import NOT_NEEDED, Fact, Known, Missing, Reason, Unknown
from diagnose.model.finding import Command, Confidence
from diagnose.model.process import Container
from diagnose.model.report import Report
from diagnose.model.snapshot import Snapshot
from diagnose.parse.relay_command import Forward, Leading, pasta_forwards, pasta_leads, slirp_leads
from tests.scenes import at, dialled, ended, held, listening, process, rows, unanswered

TARGET = "127.0.0.1:8080"
WEB = Container("podman", "9efe6e4e00bb" + "0" * 52, "web")
NAMESPACE = 4026532600
IN_THE_USER_S_MANAGER = ("systemd-run", "--machine=1000@.host", "--user", "--quiet", "--wait", "--collect")
PASTA = replace(process("pasta.avx2", 709), uid=1000)
PODMAN_5 = (
    "--config-net -t 8080-8080:80-80 --dns-forward 169.254.1.1 -u none -T none -U none --no-map-gw --quiet "
    "--netns /run/user/1000/netns/netns-a1282308 --map-guest-addr 169.254.1.2"
)


@pytest.mark.parametrize(
    ("specification", "expected"),
    [
        ("8080:80", [("0.0.0.0:8080", 80), ("[::]:8080", 80)]),
        ("127.0.0.1/8080-8081:80-81", [("127.0.0.1:8080", 80), ("127.0.0.1:8081", 81)]),
        ("127.0.0.1%lo/22", [("127.0.0.1:22", 22)]),
        ("::1/22,25", [("[::1]:22", 22), ("[::1]:25", 25)]),
        ("all", []),
        ("auto", []),
        ("none", []),
        ("~20000-20010", []),
        ("22-80:1-2", []),
        ("70000:80", []),
        ("localhost/22", []),
    ],
)
def test_the_ports_that_pasta_forwards_are_read_as_pasta_reads_them(
    specification: str, expected: list[tuple[str, int]]
) -> None:
    wanted = tuple(Forward(at(where), port) for where, port in expected)
    assert pasta_forwards(["-q", "-t", specification, "1234"]) == wanted
    assert pasta_forwards([f"--tcp-ports={specification}"]) == wanted
    assert pasta_forwards([f"-t{specification}"]) == wanted


def test_the_namespace_that_a_relay_leads_to_is_in_its_command_line() -> None:
    assert pasta_leads(PODMAN_5.split()) == Leading(path="/run/user/1000/netns/netns-a1282308")
    assert pasta_leads(["--netns=mine"]) == Leading(path="/run/netns/mine")
    assert pasta_leads(["--config-net", "-t", "80", "4711"]) == Leading(pid=4711)
    assert pasta_leads(["--config-net", "sh"]) == Leading()
    assert slirp_leads(["-c", "-r", "3", "-e", "4", "--mtu=65520", "4711", "tap0"]) == Leading(pid=4711)
    assert slirp_leads(["-c", "-r", "3", "--netns-type=path", "/run/user/1/netns/n", "tap0"]) == Leading(
        path="/run/user/1/netns/n"
    )


def relayed(
    outcome: Outcome, *, pending: bool = False, frozen: bool = False, told: bool = True, hidden: bool = False
) -> Snapshot:
    """Port 8080, which pasta leads to port 80 of container web; `told`: the command line is pasta's, with the port."""
    attempt = replace(ended(TARGET, outcome), acceptance=Known(Acceptance.ACCEPTED))
    if pending:
        end = Behind(at("10.0.2.100:80"), 714, Acceptance.PENDING, 12.0, "pasta (pid 709)", namespace=NAMESPACE)
        attempt = replace(attempt, behind=Known(end))
    inside = Inside(
        WEB, NAMESPACE, 714, ("10.0.2.100",), Known((listening("0.0.0.0:81", inode=9),)), Known(frozen), 1000
    )
    forwarder = Forwarder(709, "pasta.avx2", at("0.0.0.0:8080"), at("127.0.0.1:80"), NAMESPACE)
    containers = Containers((), (inside,), Known((forwarder,) if told else ()))
    rows_of_pasta = rows(replace(listening("0.0.0.0:8080", inode=1), uid=1000))
    holders = held(hidden=1) if hidden else held((1, PASTA))
    return replace(dialled(TARGET, attempt, listeners=rows_of_pasta, holders=holders), containers=Known(containers))


def judged(snapshot: Snapshot) -> Report:
    report = diagnose(snapshot, CHECKS)
    assert not [one for one in report.checks if one.outcome == "crashed"]
    return report


@pytest.mark.parametrize("hidden", [False, True])
@pytest.mark.parametrize("told", [False, True])
def test_a_frozen_container_behind_a_relay_is_proven_by_our_own_connection(told: bool, hidden: bool) -> None:
    found = judged(relayed(Outcome.NOT_ACCEPTED, pending=True, frozen=True, told=told, hidden=hidden)).root_cause
    assert found is not None
    assert (found.code, found.confidence) == ("container/paused", Confidence.PROVEN)


@pytest.mark.parametrize(
    ("uid", "command"),
    [
        (1000, Command(("podman", "unpause", "web"))),
        (
            0,
            Command(
                (*IN_THE_USER_S_MANAGER, "podman", "unpause", "web"),
                needs_root=True,
            ),
        ),
    ],
)
def test_a_container_of_a_user_is_resumed_by_that_user_s_podman(uid: int, command: Command) -> None:
    snapshot = relayed(Outcome.NOT_ACCEPTED, pending=True, frozen=True)
    found = judged(replace(snapshot, vantage=replace(snapshot.vantage, uid=uid))).root_cause
    assert found is not None
    assert found.remedies[0].commands == (command,)


def test_a_wrong_container_port_behind_a_relay_is_named_with_the_port_that_is_open() -> None:
    found = judged(relayed(Outcome.CLOSED)).root_cause
    assert found is not None
    assert (found.code, found.confidence) == ("container/wrong-container-port", Confidence.PROVEN)
    assert "81" in found.explanation


def test_a_server_that_is_only_slow_behind_a_relay_is_no_paused_container() -> None:
    found = judged(relayed(Outcome.NOT_ACCEPTED, pending=True)).root_cause
    assert found is not None
    assert (found.code, found.confidence) == ("hung/not-accepting", Confidence.PROVEN)


def test_another_container_s_namespace_is_not_taken_for_the_far_end() -> None:
    snapshot = relayed(Outcome.CLOSED)
    assert isinstance(snapshot.containers, Known)
    other = replace(snapshot.containers.value.insides[0], namespace=NAMESPACE + 1)
    found = judged(replace(snapshot, containers=Known(replace(snapshot.containers.value, insides=(other,))))).root_cause
    assert found is not None
    assert found.code == "hung/closes-at-once"


@pytest.mark.parametrize(
    ("argv", "is_given"),
    [
        ((*IN_THE_USER_S_MANAGER, "podman", "unpause", "web"), True),
        ((*IN_THE_USER_S_MANAGER, "podman", "logs", "--tail", "50", "web"), True),
        ((*IN_THE_USER_S_MANAGER, "podman", "unpause", "--all"), False),
        ((*IN_THE_USER_S_MANAGER, "sh", "-c", "true"), False),
        (
            ("systemd-run", "--machine=web", "--user", "--quiet", "--wait", "--collect", "podman", "unpause", "web"),
            False,
        ),
        (("systemd-run", "podman", "unpause", "web"), False),
    ],
)
def test_a_user_s_service_manager_is_asked_for_nothing_but_that_user_s_podman(
    argv: tuple[str, ...], is_given: bool
) -> None:
    assert (objection(Command(argv)) is None) is is_given


# ------ what an installed engine could hide


def silent(cabled: Fact[bool], *, uid: int = 0) -> Snapshot:
    """A drop as an ordinary user meets it, next to a podman that may not be asked."""
    podman = Engine("podman", "unix:///run/podman/podman.sock", Unknown(Reason.NEEDS_ROOT))
    listener = replace(listening(TARGET, inode=1), uid=uid)
    facts = dialled(TARGET, unanswered(TARGET), listeners=rows(listener), holders=held(hidden=1))
    return replace(facts, containers=Known(Containers((podman,), cabled=cabled)))


@pytest.mark.parametrize(
    ("snapshot", "may_be"),
    [
        (silent(Known(False)), False),  # no interface leads to any container
        (silent(Known(True)), True),
        (silent(Unknown(Reason.FAILED)), True),
        (silent(NOT_NEEDED), True),  # an older recording
        (silent(Known(True), uid=1000), False),  # no engine that makes NAT rules is this user's
    ],
)
def test_a_nat_rule_into_a_container_is_possible_only_where_something_leads_there(
    snapshot: Snapshot, may_be: bool
) -> None:
    assert may_be_translated(snapshot, "127.0.0.1", 8080) is may_be
    missing = [one.fact for one in container.judge(snapshot) if isinstance(one, Missing)]
    assert missing == (["containers of podman"] if may_be else [])
