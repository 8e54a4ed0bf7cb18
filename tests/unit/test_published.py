"""The container's chain, judged from facts: which link is broken, and what is not said without a witness."""

from __future__ import annotations

from typing import Literal

import pytest
from msgspec.structs import replace

from checks import CHECKS, container, firewall, in_use
from diagnose.engine import diagnose
from diagnose.model.attempt import Attempt, Outcome
from diagnose.model.container import (
    Attachment,
    Containers,
    Engine,
    EngineContainer,
    Forwarder,
    Inside,
    Published,
    Status,
)
from diagnose.model.fact import NOT_NEEDED, Fact, Known, Missing, Reason, Unknown
from diagnose.model.finding import Confidence, Finding, Severity
from diagnose.model.firewall import Step
from diagnose.model.process import Container
from diagnose.model.snapshot import Snapshot
from tests.scenes import (
    ALICE,
    RULE_RESET,
    at,
    dialled,
    ended,
    held,
    listening,
    not_accepted,
    process,
    rows,
    rule,
    shadow,
    taken,
    unanswered,
    walk_to,
    wanted,
)
from tests.scenes import refused as refused_at

TARGET = "127.0.0.1:8080"
WEB = Container("docker", "0123456789abcdef" * 4, "web")
OTHER = Container("docker", "fedcba9876543210" * 4, "other")
PROXY = process("docker-proxy", 500)
DENIED = Unknown(Reason.NEEDS_ROOT, "/run/docker.sock", "run it again with sudo")

PASSES = replace(walk_to("127.0.0.1", None), verdict="accept", doubts=())
"""Every rule lets the packet through as it is."""


def told(**more: object) -> EngineContainer:
    """Container web, running, with port 8080 of loopback leading to its port 80."""
    plain = EngineContainer(
        container=WEB,
        status=Status.RUNNING,
        pid=77,
        published=(Published("127.0.0.1", 8080, 80),),
        attachments=(Attachment("bridge", ("172.17.0.2",), ("172.17.0.1",)),),
    )
    return replace(plain, **more)


def inside(*listeners: str, frozen: Fact[bool] = NOT_NEEDED, whose: Container = WEB) -> Inside:
    """Its namespace, with these listeners."""
    found = Known(tuple(listening(one, inode=number) for number, one in enumerate(listeners, 90)))
    return Inside(whose, 4026532500, 77, ("172.17.0.2",), found, frozen)


def seen(*all_of_them: EngineContainer, within: tuple[Inside, ...] = (), forwarded: bool = False) -> Fact[Containers]:
    """What is known of containers; the forwarder is docker-proxy, pid 500."""
    forwarder = Forwarder(500, "docker-proxy", at(TARGET), at("172.17.0.2:80"))
    forwarders: Fact[tuple[Forwarder, ...]] = Known((forwarder,) if forwarded else ())
    return Known(Containers((Engine("docker", "unix:///run/docker.sock", Known(all_of_them)),), within, forwarders))


def hung_up(containers: Fact[Containers], *, holder: bool = True, **facts: object) -> Snapshot:
    """docker-proxy took the connection and closed it at once."""
    holders = held((1, PROXY)) if holder else held(hidden=1)
    snapshot = dialled(
        TARGET, ended(TARGET, Outcome.CLOSED), listeners=rows(listening(TARGET, inode=1)), holders=holders
    )
    return replace(snapshot, containers=containers, **facts)


def root_cause(snapshot: Snapshot) -> tuple[str, Confidence] | None:
    """What all the checks together come to."""
    found = diagnose(snapshot, CHECKS).root_cause
    return (found.code, found.confidence) if found else None


def findings(snapshot: Snapshot) -> list[Finding]:
    """What this check alone says."""
    return [one for one in container.judge(snapshot) if isinstance(one, Finding)]


def missed(snapshot: Snapshot) -> list[str]:
    """The facts that it wanted in vain."""
    return [one.fact for one in container.judge(snapshot) if isinstance(one, Missing)]


@pytest.mark.parametrize("address", ["127.0.0.1:80", "[::1]:80"])
def test_a_server_on_loopback_inside_is_proven_by_the_entry_and_the_container_s_own_table(address: str) -> None:
    containers = seen(told(), within=(inside(address),), forwarded=True)
    assert root_cause(hung_up(containers)) == ("container/binds-loopback-inside", Confidence.PROVEN)


def test_a_server_on_loopback_and_on_the_network_is_not_the_cause() -> None:
    containers = seen(told(), within=(inside("127.0.0.1:80", "0.0.0.0:80"),), forwarded=True)
    assert findings(hung_up(containers)) == []
    assert root_cause(hung_up(containers)) == ("hung/closes-at-once", Confidence.PROVEN)


def test_the_ports_that_a_container_does_have_are_named() -> None:
    (found,) = findings(hung_up(seen(told(), within=(inside("0.0.0.0:8000", "127.0.0.1:9"),), forwarded=True)))
    assert found.code == "container/wrong-container-port"
    assert "listens on 8000" in found.explanation
    assert "9" not in found.remedies[-1].summary.partition("-p ")[2].split()[0].split(":")[2]
    assert found.remedies[0].commands[0].argv == ("netdiag", "run", "172.17.0.2:8000")


def test_another_program_on_the_port_is_not_called_the_container_s() -> None:
    snapshot = replace(
        hung_up(seen(told(), within=(inside("127.0.0.1:80"),))), holders=held((1, process("nginx", 600)))
    )
    assert findings(snapshot) == []


def test_a_hidden_holder_leaves_the_engine_s_word_alone_and_less_sure() -> None:
    containers = seen(told(), within=(inside("127.0.0.1:80"),), forwarded=True)
    snapshot = hung_up(containers, holder=False, vantage=ALICE)
    assert root_cause(snapshot) == ("container/binds-loopback-inside", Confidence.LIKELY)


def test_without_an_engine_the_forwarder_s_command_line_leads_to_the_container() -> None:
    forwarder = Forwarder(500, "docker-proxy", at(TARGET), at("172.17.0.2:80"))
    containers = Known(Containers((Engine("docker", "", DENIED),), (inside("127.0.0.1:80"),), Known((forwarder,))))
    snapshot = hung_up(containers, holder=False, vantage=ALICE)
    assert root_cause(snapshot) == ("container/binds-loopback-inside", Confidence.LIKELY)
    assert "containers of docker" in missed(snapshot)


def test_two_containers_with_the_forwarder_s_address_are_told_apart_by_nobody() -> None:
    forwarder = Forwarder(500, "docker-proxy", at(TARGET), at("172.17.0.2:80"))
    both = (inside("127.0.0.1:80"), inside("0.0.0.0:80", whose=OTHER))
    containers = Known(Containers((Engine("docker", "", DENIED),), both, Known((forwarder,))))
    assert findings(hung_up(containers)) == []


def test_listeners_inside_that_cannot_be_read_are_missing_and_not_none() -> None:
    unread = replace(inside(), listeners=Unknown(Reason.NEEDS_ROOT))
    snapshot = hung_up(seen(told(), within=(unread,), forwarded=True))
    assert findings(snapshot) == []
    assert "listeners in container web" in missed(snapshot)


# ------ nobody listens on the host


def refused(containers: Fact[Containers], target: str = TARGET) -> Snapshot:
    """Refused by the kernel, since nobody listens."""
    return dialled(target, refused_at(target), containers=containers)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"status": Status.EXITED, "exit_code": 137}, "exited with code 137"),
        ({"status": Status.EXITED, "exit_code": 137, "out_of_memory": True}, "want of memory"),
        ({"status": Status.EXITED, "exit_code": 0}, "exited with code 0"),
        ({"status": Status.CREATED}, "never started"),
        ({"status": Status.RESTARTING, "exit_code": 3}, "keeps restarting"),
    ],
)
def test_a_container_that_does_not_run_is_the_cause_with_how_it_ended(more: dict[str, object], words: str) -> None:
    snapshot = refused(seen(told(pid=0, **more)))
    found = diagnose(snapshot, CHECKS).root_cause
    assert found
    assert (found.code, found.confidence) == ("container/not-running", Confidence.PROVEN)
    assert words in found.title


@pytest.mark.parametrize(
    ("attempt", "verdict", "code"),
    [
        (unanswered(TARGET, drop="NETFILTER_DROP"), "drop", "firewall/rule-drops"),
        (refused_at(TARGET, RULE_RESET), "reject", "firewall/rule-rejects"),
    ],
)
def test_a_container_that_does_not_run_is_the_second_fault_behind_a_rule(
    attempt: Attempt, verdict: Literal["drop", "reject"], code: str
) -> None:
    ended_one = told(status=Status.EXITED, exit_code=1, pid=0)
    stopped = shadow(walk_to("127.0.0.1", rule(), verdict))
    snapshot = dialled(TARGET, attempt, containers=seen(ended_one), firewall=stopped)
    assert root_cause(snapshot) == (code, Confidence.PROVEN)
    behind = [one for one in diagnose(snapshot, CHECKS).findings if one.code == "container/not-running"]
    assert [(one.severity, one.confidence) for one in behind] == [(Severity.PROBLEM, Confidence.LIKELY)]
    running = dialled(TARGET, attempt, containers=seen(told()), firewall=stopped)
    assert not [one for one in diagnose(running, CHECKS).findings if one.code.startswith("container/")]


def test_an_engine_s_redirect_is_blamed_for_nothing_while_what_it_publishes_is_not_known() -> None:
    led = Step("syn", "output", rule("-j DNAT --to-destination 172.17.0.2:80", chain="DOCKER"), "dnat")
    walk = replace(PASSES, steps=(led,), arrives=at("172.17.0.2:80"), leaves=True, outcome=Outcome.UNANSWERED)
    for containers, sure in ((Unknown(Reason.DEADLINE), None), (NOT_NEEDED, Confidence.LIKELY)):
        snapshot = dialled(
            TARGET,
            unanswered(TARGET),
            listeners=rows(listening(TARGET)),
            containers=containers,
            firewall=shadow(walk),
        )
        found = diagnose(snapshot, CHECKS).root_cause
        assert (found and found.confidence) is sure


def test_of_two_ended_containers_that_publish_the_port_none_is_accused() -> None:
    ended_one = told(status=Status.EXITED, exit_code=1, pid=0)
    snapshot = refused(seen(ended_one, replace(ended_one, container=OTHER)))
    assert root_cause(snapshot) == ("refused/nothing-listening", Confidence.PROVEN)
    assert [one.severity for one in findings(snapshot)] == [Severity.INFO] * 2


def test_a_port_published_on_another_address_is_dialled_there() -> None:
    containers = seen(told(published=(Published("127.0.0.2", 8080, 80),)), within=(inside("0.0.0.0:80"),))
    found = diagnose(refused(containers), CHECKS).root_cause
    assert found
    assert (found.code, found.confidence) == ("container/published-elsewhere", Confidence.PROVEN)
    assert found.remedies[0].commands[0].argv == ("netdiag", "run", "127.0.0.2:8080")


def test_a_port_that_is_open_inside_and_not_published_is_likely_and_never_published_to_the_world() -> None:
    containers = seen(told(published=()), within=(inside("0.0.0.0:8080"),))
    found = diagnose(refused(containers), CHECKS).root_cause
    assert found
    assert (found.code, found.confidence) == ("container/port-not-published", Confidence.LIKELY)
    assert found.remedies[0].commands[0].argv == ("netdiag", "run", "172.17.0.2:8080")
    assert "-p 127.0.0.1:8080:8080" in found.remedies[1].summary


def test_a_container_on_the_host_s_network_has_nothing_to_publish() -> None:
    containers = seen(told(published=(), network_mode="host"), within=(inside("0.0.0.0:8080"),))
    assert findings(refused(containers)) == []


def test_a_denied_engine_is_not_taken_for_one_without_containers() -> None:
    snapshot = refused(Known(Containers((Engine("docker", "", DENIED),), (), Known(()))))
    assert "containers of docker" in missed(snapshot)
    check = next(one for one in diagnose(snapshot, CHECKS).checks if one.name == "container")
    assert check.outcome.value == "skipped"


# ------ the way in


def reserved(containers: Fact[Containers], **facts: object) -> Snapshot:
    """dockerd keeps the port, and nobody takes our connection."""
    snapshot = dialled(
        TARGET,
        not_accepted(TARGET),
        listeners=rows(listening(TARGET, inode=1)),
        holders=held((1, process("dockerd", 400))),
        firewall=shadow(PASSES),
    )
    return replace(snapshot, containers=containers, **facts)


def test_a_nat_rule_that_is_gone_is_proven_by_a_walk_that_changes_nothing() -> None:
    assert root_cause(reserved(seen(told(), within=(inside("0.0.0.0:80"),)))) == (
        "container/nat-missing",
        Confidence.PROVEN,
    )


def test_rules_that_could_not_be_read_are_no_missing_rule() -> None:
    snapshot = reserved(seen(told(), within=(inside("0.0.0.0:80"),)), firewall=Unknown(Reason.NEEDS_ROOT))
    assert root_cause(snapshot) == ("hung/not-accepting", Confidence.PROVEN)


def test_a_proxy_that_dials_needs_no_nat_rule() -> None:
    containers = seen(told(), within=(inside("0.0.0.0:80"),), forwarded=True)
    snapshot = reserved(containers, holders=held((1, PROXY)))
    assert root_cause(snapshot) == ("hung/not-accepting", Confidence.PROVEN)


def test_a_reset_that_comes_through_nat_is_not_blamed_on_a_rule() -> None:
    walk = replace(PASSES, arrives=at("172.17.0.2:80"), leaves=True)
    snapshot = dialled(
        TARGET,
        refused_at(TARGET, RULE_RESET),
        listeners=rows(listening(TARGET, inode=1)),
        holders=held((1, process("dockerd", 400))),
        firewall=shadow(walk),
        containers=seen(told(), within=(inside("127.0.0.1:80"),)),
    )
    assert root_cause(snapshot) == ("container/binds-loopback-inside", Confidence.PROVEN)


@pytest.mark.parametrize("by", ["engine", "freezer"])
def test_a_paused_container_is_told_by_its_engine_or_by_its_freezer(by: str) -> None:
    status = Status.PAUSED if by == "engine" else Status.RUNNING
    frozen = inside("0.0.0.0:80", frozen=Known(by == "freezer"))
    containers = seen(told(status=status), within=(frozen,), forwarded=True)
    snapshot = replace(reserved(containers), holders=held((1, PROXY)))
    assert root_cause(snapshot) == ("container/paused", Confidence.PROVEN)


@pytest.mark.parametrize(
    ("listener", "code"), [("127.0.0.1:80", "binds-loopback-inside"), ("0.0.0.0:8000", "wrong-container-port")]
)
def test_a_paused_container_that_refuses_at_once_would_refuse_unpaused_as_well(listener: str, code: str) -> None:
    frozen = inside(listener, frozen=Known(True))
    snapshot = hung_up(seen(told(status=Status.PAUSED), within=(frozen,), forwarded=True))
    assert root_cause(snapshot) == (f"container/{code}", Confidence.PROVEN)


def test_a_paused_container_on_the_host_s_network_is_unpaused_and_not_restarted() -> None:
    containers = seen(told(status=Status.PAUSED, network_mode="host", published=()))
    theirs = replace(process("httpd", 77), container=WEB)
    snapshot = replace(reserved(containers), holders=held((1, theirs)))
    found = diagnose(snapshot, CHECKS).root_cause
    assert found
    assert (found.code, found.confidence) == ("container/paused", Confidence.PROVEN)
    assert found.remedies[0].commands[0].argv == ("docker", "unpause", "web")


def test_a_listener_that_a_process_outside_the_paused_container_holds_too_is_not_blamed_on_it() -> None:
    containers = seen(told(status=Status.PAUSED, network_mode="host", published=()))
    theirs = replace(process("httpd", 77), container=WEB)
    snapshot = replace(reserved(containers), holders=held((1, theirs), (1, process("httpd", 78))))
    assert findings(snapshot) == []


NEVER_STARTED = told(container=Container("docker", "00" * 32, "again"), status=Status.CREATED, pid=0, attachments=())
"""Its start failed, because web has the port; the engine tells it before web."""


def test_a_container_that_never_got_the_port_hides_nothing_of_the_one_that_has_it() -> None:
    containers = seen(NEVER_STARTED, told(), within=(inside("127.0.0.1:80"),), forwarded=True)
    found = diagnose(hung_up(containers), CHECKS).root_cause
    assert found
    assert found.code == "container/binds-loopback-inside"
    assert "container web" in found.title
    assert "listeners in container again" not in missed(hung_up(containers))


def test_a_nat_rule_that_leads_to_another_port_of_the_container_is_not_the_published_one() -> None:
    walk = replace(PASSES, arrives=at("172.17.0.2:81"), leaves=True)
    snapshot = dialled(
        TARGET,
        refused_at(TARGET, RULE_RESET),
        listeners=rows(listening(TARGET, inode=1)),
        holders=held((1, process("dockerd", 400))),
        firewall=shadow(walk),
        containers=seen(told(), within=(inside("0.0.0.0:81"),)),
    )
    assert findings(snapshot) == []


def test_the_nat_rule_of_a_published_port_is_no_cause_and_never_to_be_removed() -> None:
    nat = Step("syn", "output", rule("tcp dport 8080 dnat to 172.17.0.2:80"), "dnat")
    walk = replace(PASSES, arrives=at("172.17.0.2:80"), leaves=True, outcome=Outcome.UNANSWERED, steps=(nat,))
    snapshot = dialled(
        TARGET,
        unanswered(TARGET),
        listeners=rows(listening(TARGET, inode=1)),
        holders=held((1, process("dockerd", 400))),
        firewall=shadow(walk),
        containers=seen(told(), within=(inside("0.0.0.0:80"),)),
    )
    assert root_cause(snapshot) is None
    (found,) = [one for one in firewall.CHECK.judge(snapshot) if isinstance(one, Finding)]
    assert [command.argv for one in found.remedies for command in one.commands] == [("netdiag", "run", "172.17.0.2:80")]


def test_silence_is_not_the_container_s_where_a_rule_stops_the_packet() -> None:
    dropped = shadow(replace(PASSES, verdict="drop"))
    snapshot = dialled(
        TARGET,
        unanswered(TARGET, drop="NETFILTER_DROP"),
        listeners=rows(listening(TARGET, inode=1)),
        holders=held((1, PROXY)),
        firewall=dropped,
        containers=seen(told(), within=(inside("127.0.0.1:80"),), forwarded=True),
    )
    assert findings(snapshot) == []


# ------ to start a server there


def bind_beside(containers: Fact[Containers], holder: str = "docker-proxy") -> Snapshot:
    """The port is taken by a program of an engine."""
    snapshot = wanted(
        TARGET,
        taken(TARGET),
        listeners=rows(listening(TARGET, inode=1)),
        sockets=rows(listening(TARGET, inode=1)),
        holders=held((1, process(holder, 500))),
    )
    return replace(snapshot, containers=containers)


def in_the_way(snapshot: Snapshot) -> Finding:
    """What the in-use check says."""
    (found,) = [one for one in in_use.judge(snapshot) if isinstance(one, Finding)]
    return found


def test_the_container_whose_port_is_wanted_is_named_and_stopped_by_its_engine() -> None:
    found = in_the_way(bind_beside(seen(told(), forwarded=True)))
    assert (found.code, found.confidence) == ("in-use/container-port", Confidence.PROVEN)
    assert "Container web" in found.title
    assert found.remedies[0].commands[0].argv == ("docker", "stop", "web")
    assert found.remedies[0].undo[0].argv == ("docker", "start", "web")


@pytest.mark.parametrize("program", ["docker-proxy", "dockerd"])
def test_somebody_s_own_program_that_is_called_like_an_engine_s_is_no_leftover(program: str) -> None:
    snapshot = replace(bind_beside(seen()), holders=held((1, process(program, 500, uid=1000))))
    assert in_the_way(snapshot).code == "in-use/listener"


def test_a_container_that_never_got_the_port_is_not_stopped_for_it() -> None:
    found = in_the_way(bind_beside(seen(NEVER_STARTED, told(), forwarded=True)))
    assert found.remedies[0].commands[0].argv == ("docker", "stop", "web")


def test_a_proxy_of_no_container_is_left_over_and_likely_at_most() -> None:
    found = in_the_way(bind_beside(seen()))
    assert (found.code, found.confidence) == ("in-use/container-port", Confidence.LIKELY)
    assert "no container publishes it" in found.title
    assert found.remedies[0].commands[0].argv == ("kill", "500")


def test_where_the_engine_cannot_be_asked_no_proxy_is_called_left_over() -> None:
    denied = Known(Containers((Engine("docker", "", DENIED),), (), Known(())))
    found = in_the_way(bind_beside(denied))
    assert "left over" not in found.explanation
    assert not found.remedies[0].commands


def test_a_container_whose_inside_was_not_seen_is_missing_and_not_fine() -> None:
    snapshot = hung_up(seen(told(), forwarded=True))
    assert findings(snapshot) == []
    assert "listeners in container web" in missed(snapshot)


def test_a_container_s_own_port_that_is_published_under_another_number_is_not_called_unpublished() -> None:
    containers = seen(told(published=(Published("0.0.0.0", 15432, 8080),)), within=(inside("0.0.0.0:8080"),))
    found = diagnose(refused(containers), CHECKS).root_cause
    assert found
    assert (found.code, found.confidence) == ("container/published-elsewhere", Confidence.LIKELY)
    assert "15432" in found.title
    assert found.remedies[0].commands[0].argv == ("netdiag", "run", "127.0.0.1:15432")


def test_an_ended_container_that_published_elsewhere_is_not_to_be_dialled_there() -> None:
    over = told(status=Status.EXITED, exit_code=0, pid=0, published=(Published("127.0.0.2", 8080, 80),))
    assert root_cause(refused(seen(over))) == ("refused/nothing-listening", Confidence.PROVEN)


def test_a_container_that_only_now_starts_has_lost_no_nat_rule() -> None:
    snapshot = replace(refused(seen(told(), within=(inside(),))), firewall=shadow(PASSES))
    assert findings(snapshot) == []
