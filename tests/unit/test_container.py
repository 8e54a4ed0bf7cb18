"""What the container check says of facts, and what tells a container from a mere namespace."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from checks import container, refused
from diagnose.engine import diagnose
from diagnose.model.elsewhere import Elsewhere, OtherListener
from diagnose.model.fact import Known, Missing, Reason, Unknown
from diagnose.model.finding import Confidence, Finding, Severity
from diagnose.model.network import Interface, Links
from diagnose.model.process import Container
from diagnose.model.report import Report
from diagnose.model.snapshot import Snapshot
from tests.scenes import (
    ALICE,
    BLURRED_RESET,
    NEEDS_ROOT,
    ROOT,
    RULE_RESET,
    at,
    connected,
    dialled,
    listening,
    process,
    rows,
    rule,
    shadow,
    unanswered,
    unavailable,
    walk_to,
    wanted,
)
from tests.scenes import refused as refused_at

TARGET = "127.0.0.1:8080"
ID = "0123456789abcdef" * 4
WEB = Container("docker", ID, "web")
INSIDE = replace(ROOT, container=WEB, network_namespace=4026532711)


def other(where: str = TARGET, namespace: int = 4026532500, **more: object) -> OtherListener:
    """A listener in another namespace, held by a process of it."""
    return replace(
        OtherListener(namespace, at(where), process=process("nginx", 77), init=70, init_program="sh"), **more
    )


def refused_with(*listeners: OtherListener, unreadable: int = 0, **facts: object) -> Snapshot:
    """Refused here because nobody listens, and open over there."""
    seen = Known(Elsewhere(listeners, 3, unreadable))
    return replace(dialled(TARGET, refused_at(TARGET), elsewhere=seen), **facts)


def said(snapshot: Snapshot) -> list[Finding]:
    """The findings."""
    return [one for one in container.judge(snapshot) if isinstance(one, Finding)]


def missed(snapshot: Snapshot) -> list[Missing]:
    """The facts that were wanted and not known."""
    return [one for one in container.judge(snapshot) if isinstance(one, Missing)]


def report(snapshot: Snapshot) -> Report:
    """What the engine makes of this check beside the one of closed ports."""
    return diagnose(snapshot, [refused.CHECK, container.CHECK])


def test_a_single_other_namespace_with_the_port_is_the_likely_cause() -> None:
    found = report(refused_with(other())).root_cause
    assert found
    assert (found.code, found.confidence) == ("container/other-namespace", Confidence.LIKELY)
    assert "nginx" in found.title
    assert any("pid 77" in one.text or "77" in one.text for one in found.evidence)
    command = found.remedies[0].commands[0]
    assert command.argv == ("nsenter", "--net=/proc/77/ns/net", "netdiag", "run", TARGET)
    assert command.needs_root


def test_several_other_namespaces_are_candidates_and_the_closed_port_stays_the_cause() -> None:
    answer = report(refused_with(other(), other(namespace=4026532600)))
    assert answer.root_cause
    assert answer.root_cause.code == "refused/nothing-listening"
    candidates = [one for one in answer.findings if one.code == "container/other-namespace"]
    assert [(one.severity, one.confidence) for one in candidates] == [(Severity.INFO, Confidence.POSSIBLE)] * 2


def test_two_sockets_of_one_namespace_are_one_candidate() -> None:
    (found,) = said(refused_with(other(), other("[::]:8080")))
    assert found.confidence is Confidence.LIKELY
    assert len([one for one in found.evidence if one.text.startswith("LISTEN")]) == 2


@pytest.mark.parametrize(
    ("listener", "in_title", "place"),
    [
        (other(name="blue"), "netns blue", "--net=/run/netns/blue"),
        (other(container=WEB), "container web", "--net=/proc/77/ns/net"),
        (other(container=replace(WEB, name=None)), f"container {ID[:12]}", "--net=/proc/77/ns/net"),
        (other(unit="app.service"), "app.service", "--net=/proc/77/ns/net"),
        (other(process=None), "pid 70", "--net=/proc/70/ns/net"),
        (other(name="../evil"), "netns", "--net=/proc/77/ns/net"),
    ],
)
def test_the_owner_is_named_as_people_know_it(listener: OtherListener, in_title: str, place: str) -> None:
    (found,) = said(refused_with(listener))
    assert in_title in found.title
    assert found.remedies[0].commands[0].argv[1] == place


@pytest.mark.parametrize(
    ("listens", "dial"),
    [
        ("0.0.0.0:8080", "127.0.0.1:8080"),
        ("[::]:8080", "127.0.0.1:8080"),
        ("[::1]:8080", "[::1]:8080"),
        ("172.17.0.2:8080", "172.17.0.2:8080"),
    ],
)
def test_it_is_dialled_where_a_client_inside_finds_it(listens: str, dial: str) -> None:
    assert said(refused_with(other(listens)))[0].remedies[0].commands[0].argv[-1] == dial


@pytest.mark.parametrize(
    "snapshot",
    [
        refused_with(other(), listeners=rows(listening(TARGET))),
        refused_with(other(), listeners=rows(listening("[::]:8080", v6only=None))),
        refused_with(other(), attempts=(refused_at(TARGET, RULE_RESET),)),
        refused_with(other(), firewall=shadow(walk_to("127.0.0.1", rule("reject"), "reject"))),
        refused_with(other(), attempts=(unanswered(TARGET),)),
        refused_with(other(), attempts=(refused_at(TARGET), connected("[::1]:8080"))),
        refused_with(other(), attempts=(refused_at(TARGET, local=False),)),
        refused_with(other(), attempts=()),
        replace(wanted(TARGET), elsewhere=Known(Elsewhere((other(),), 1))),
    ],
    ids=["listens here", "may listen here", "a rule", "a walk", "silence", "it works", "far", "passive", "bind"],
)
def test_what_listens_elsewhere_does_not_matter_where_it_was_not_refused_for_want_of_a_listener(
    snapshot: Snapshot,
) -> None:
    assert not said(snapshot)


def test_an_ipv6_loopback_that_is_off_does_not_hide_the_other_namespace() -> None:
    both = refused_with(other(), attempts=(refused_at(TARGET), unavailable("[::1]:8080")))
    assert said(both)[0].confidence is Confidence.LIKELY


def test_a_busy_machine_whose_counters_blur_still_finds_it() -> None:
    assert said(refused_with(other(), attempts=(refused_at(TARGET, BLURRED_RESET),)))


def test_without_the_table_of_listeners_the_kernel_s_own_reset_is_needed() -> None:
    assert said(refused_with(other(), listeners=NEEDS_ROOT))
    blurred = refused_with(other(), listeners=NEEDS_ROOT, attempts=(refused_at(TARGET, BLURRED_RESET),))
    assert not said(blurred)
    assert [one.fact for one in missed(blurred)] == ["listeners"]


def test_namespaces_that_could_not_be_read_are_missed_only_where_nothing_was_found() -> None:
    (hidden,) = missed(refused_with(unreadable=2, vantage=ALICE))
    assert (hidden.fact, hidden.unknown.reason) == ("other network namespaces", Reason.NEEDS_ROOT)
    (even_for_root,) = missed(refused_with(unreadable=2))
    assert even_for_root.unknown.reason is Reason.NOT_VISIBLE
    assert not missed(refused_with(other(), unreadable=2))
    assert not missed(refused_with())
    unknown = Unknown(Reason.DEADLINE)
    assert missed(refused_with(elsewhere=unknown)) == [Missing("other network namespaces", unknown)]


def test_inside_a_container_localhost_is_the_container_itself() -> None:
    found = report(refused_with(vantage=INSIDE)).root_cause
    assert found
    assert (found.code, found.confidence) == ("container/own-localhost", Confidence.LIKELY)
    assert "web" in found.title
    assert not found.remedies[0].commands


def test_inside_a_container_a_listener_in_sight_elsewhere_is_named_and_proves_it() -> None:
    answer = report(refused_with(other(), vantage=INSIDE))
    assert answer.root_cause
    assert (answer.root_cause.code, answer.root_cause.confidence) == ("container/own-localhost", Confidence.PROVEN)
    assert any("nginx" in one.text for one in answer.root_cause.evidence)
    (candidate,) = [one for one in answer.findings if one.code == "container/other-namespace"]
    assert candidate.severity is Severity.INFO


@pytest.mark.parametrize(
    "snapshot",
    [
        refused_with(vantage=replace(INSIDE, network_namespace=4026531840)),
        refused_with(vantage=INSIDE, links=Known(Links((Interface("docker0", True, ("172.17.0.1",)),)))),
        refused_with(vantage=INSIDE, listeners=rows(listening(TARGET))),
        replace(dialled("172.17.0.2:80", refused_at("172.17.0.2:80")), vantage=INSIDE),
    ],
    ids=["the host's namespace", "the host's bridge", "somebody listens", "no loopback"],
)
def test_a_container_is_not_blamed_where_localhost_is_not_its_own(snapshot: Snapshot) -> None:
    assert "container/own-localhost" not in [one.code for one in said(snapshot)]


def test_no_title_is_longer_than_eighty_characters_whatever_the_names() -> None:
    long = other(process=process("p" * 15, 4194304), container=Container("kubernetes", ID, "n" * 63))
    for snapshot in (refused_with(long), refused_with(vantage=replace(INSIDE, container=long.container))):
        assert all(len(one.title) <= 80 for one in said(snapshot))
