"""hung: the kernel answers, the program does not; and what only looks like it."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from checks import CHECKS
from checks.hung import CHECK
from diagnose.engine import diagnose
from diagnose.model.attempt import Acceptance, Attempt, Outcome, QueueWitness
from diagnose.model.fact import NOT_NEEDED, Fact, Known, Reason, Unknown
from diagnose.model.finding import Confidence, Finding, Risk, Severity
from diagnose.model.later import Later
from diagnose.model.network import TcpState
from diagnose.model.process import Holders
from diagnose.model.report import CheckOutcome
from diagnose.model.snapshot import Snapshot
from tests.scenes import (
    ALICE,
    NEEDS_ROOT,
    at,
    connected,
    dialled,
    ended,
    full_queue,
    half_open,
    held,
    listening,
    not_accepted,
    process,
    refused,
    roomy_queue,
    rows,
    taken,
    unanswered,
    wanted,
)

HERE = "127.0.0.1:8080"
SERVER = rows(listening(HERE))
RUNS, STOPPED = held((1, process())), held((1, process(state="T")))
PROVEN, LIKELY = (Severity.PROBLEM, Confidence.PROVEN), (Severity.PROBLEM, Confidence.LIKELY)


def said(snapshot: Snapshot) -> list[tuple[str, Severity, Confidence]]:
    return [(one.code, one.severity, one.confidence) for one in CHECK.judge(snapshot) if isinstance(one, Finding)]


def missing(snapshot: Snapshot) -> list[str]:
    return [one.fact for one in CHECK.judge(snapshot) if not isinstance(one, Finding)]


def root(snapshot: Snapshot) -> Finding:
    found = diagnose(snapshot, [CHECK]).root_cause
    assert found is not None
    return found


# stopped


@pytest.mark.parametrize("attempt", [not_accepted(HERE), unanswered(HERE)], ids=lambda one: one.outcome.value)
def test_a_stopped_holder_is_the_cause(attempt: Attempt) -> None:
    found = root(dialled(HERE, attempt, listeners=SERVER, holders=STOPPED))
    assert (found.code, found.confidence) == ("hung/process-stopped", Confidence.PROVEN)
    assert found.title == "python3 (pid 4242) holds 127.0.0.1:8080 and is stopped"


def test_the_first_remedy_lets_it_run_on_and_can_be_undone() -> None:
    first, second = root(dialled(HERE, not_accepted(HERE), listeners=SERVER, holders=STOPPED)).remedies[:2]
    assert first.commands[0].argv == ("kill", "-CONT", "4242")
    assert first.undo[0].argv == ("kill", "-STOP", "4242")
    assert first.risk is Risk.SAFE
    assert (second.risk, second.undo) == (Risk.DISRUPTIVE, ())


def test_only_the_process_of_another_user_needs_root_to_go_on() -> None:
    mine = held((1, process(state="T", uid=1000)))
    seen = {"theirs": STOPPED, "mine": mine}
    needs = {
        name: root(dialled(HERE, not_accepted(HERE), listeners=SERVER, holders=holders, seen_by=ALICE))
        .remedies[0]
        .commands[0]
        .needs_root
        for name, holders in seen.items()
    }
    assert needs == {"theirs": True, "mine": False}


@pytest.mark.parametrize(
    "holders",
    [
        RUNS,
        held((1, process(state="T")), (1, process("worker", 7, state="S"))),
        held((2, process(state="T"))),
        held((1, process(state="t"))),
        held(hidden=5),
        NEEDS_ROOT,
    ],
    ids=["it runs", "one of two runs", "another socket's", "traced", "hidden", "not known"],
)
def test_a_process_that_may_run_is_not_called_stopped(holders: Fact[Holders]) -> None:
    seen = dialled(HERE, not_accepted(HERE), listeners=SERVER, holders=holders)
    assert "hung/process-stopped" not in [one[0] for one in said(seen)]


def test_a_stopped_process_behind_a_wildcard_does_not_matter_where_the_exact_address_has_another() -> None:
    both = rows(listening("0.0.0.0:8080", 2), listening(HERE, 1))
    holders = held((2, process(state="T")), (1, process("nginx", 9)))
    assert [one[0] for one in said(dialled(HERE, not_accepted(HERE), listeners=both, holders=holders))] == [
        "hung/not-accepting"
    ]


def test_several_stopped_holders_are_all_let_on() -> None:
    holders = held((1, process(state="T")), (1, process("worker", 7, state="T")))
    found = root(dialled(HERE, not_accepted(HERE), listeners=SERVER, holders=holders))
    assert found.remedies[0].commands[0].argv == ("kill", "-CONT", "4242", "7")


# not accepting


def test_a_connection_that_the_program_does_not_take_is_proven_as_just_that() -> None:
    found = root(dialled(HERE, not_accepted(HERE), listeners=SERVER, holders=RUNS))
    assert (found.code, found.confidence) == ("hung/not-accepting", Confidence.PROVEN)
    assert found.title == "The server on 127.0.0.1:8080 did not accept the connection within 1.0 s"


def test_it_is_known_without_knowing_the_holder_which_is_missed() -> None:
    seen = dialled(HERE, not_accepted(HERE), listeners=SERVER, holders=held(hidden=5), seen_by=ALICE)
    assert said(seen) == [("hung/not-accepting", *PROVEN)]
    assert missing(seen) == ["socket owners"]


def test_it_is_known_without_the_listeners_which_are_missed() -> None:
    seen = dialled(HERE, not_accepted(HERE), listeners=NEEDS_ROOT)
    assert said(seen) == [("hung/not-accepting", *PROVEN)]
    assert missing(seen) == ["listeners"]


# a full queue


def test_a_queue_over_its_limit_that_dropped_our_packet_is_the_cause() -> None:
    found = root(dialled(HERE, unanswered(HERE, queue=full_queue(HERE)), listeners=SERVER, holders=RUNS))
    assert (found.code, found.confidence) == ("hung/accept-queue-full", Confidence.PROVEN)
    assert found.title == "The accept queue of 127.0.0.1:8080 is full: 2 pending connections, backlog 1"


def test_a_full_queue_whose_counter_did_not_rise_is_only_likely() -> None:
    seen = dialled(HERE, unanswered(HERE, queue=full_queue(HERE, dropped=0)), listeners=SERVER, holders=RUNS)
    assert said(seen) == [("hung/accept-queue-full", *LIKELY)]


def test_a_full_queue_whose_packet_a_rule_dropped_is_only_likely() -> None:
    attempt = unanswered(HERE, queue=full_queue(HERE), drop="NETFILTER_DROP")
    assert said(dialled(HERE, attempt, listeners=SERVER, holders=RUNS)) == [("hung/accept-queue-full", *LIKELY)]


@pytest.mark.parametrize(
    "attempt",
    [
        unanswered(HERE, queue=roomy_queue(HERE)),
        unanswered(HERE, queue=full_queue(HERE, waiting=1, backlog=1)),
        unanswered(HERE, queue=full_queue(HERE, waiting=0, backlog=128, dropped=3)),
        unanswered(HERE, queue=NOT_NEEDED),
    ],
    ids=["roomy", "just filled", "drops of others", "not asked"],
)
def test_a_queue_with_room_is_not_accused(attempt: Attempt) -> None:
    seen = dialled(HERE, attempt, listeners=SERVER, holders=RUNS)
    assert (said(seen), missing(seen)) == ([], [])


def test_a_queue_that_could_not_be_read_is_missed() -> None:
    attempt = unanswered(HERE, queue=Unknown(Reason.KERNEL_TOO_OLD, "no SKMEMINFO"))
    seen = dialled(HERE, attempt, listeners=SERVER, holders=RUNS)
    assert (said(seen), missing(seen)) == ([], ["listener's queue"])
    assert diagnose(seen, [CHECK]).checks[0].outcome is CheckOutcome.SKIPPED


def test_a_stopped_process_explains_its_full_queue() -> None:
    seen = dialled(HERE, unanswered(HERE, queue=full_queue(HERE)), listeners=SERVER, holders=STOPPED)
    assert [one[0] for one in said(seen)] == ["hung/process-stopped", "hung/accept-queue-full"]
    assert root(seen).code == "hung/process-stopped"


# closed at once


@pytest.mark.parametrize("end", [Outcome.CLOSED, Outcome.RESET])
def test_a_connection_that_is_closed_before_any_byte_is_named(end: Outcome) -> None:
    seen = dialled(HERE, ended(HERE, end), listeners=SERVER, holders=RUNS)
    assert said(seen) == [("hung/closes-at-once", *PROVEN)]


# what only looks like it


@pytest.mark.parametrize("attempt", [connected(HERE), refused(HERE)], ids=lambda one: one.outcome.value)
def test_a_stopped_process_is_not_blamed_for_another_symptom(attempt: Attempt) -> None:
    assert said(dialled(HERE, attempt, listeners=SERVER, holders=STOPPED)) == []


def test_silence_without_a_listener_is_not_its_business() -> None:
    assert said(dialled(HERE, unanswered(HERE))) == []


def test_another_machine_is_not_judged_by_this_ones_sockets() -> None:
    there = "198.51.100.7:8080"
    assert said(dialled(there, unanswered(there, local=False), listeners=rows(listening("0.0.0.0:8080")))) == []


def test_for_someone_who_wants_to_bind_nothing_hangs() -> None:
    assert said(wanted(HERE, taken(HERE), listeners=SERVER, holders=STOPPED)) == []


def test_a_server_behind_a_forwarder_that_could_not_be_seen_is_missing_and_not_fine() -> None:
    unseen = Unknown(Reason.NOT_VISIBLE, "the far end was not seen")
    assert missing(dialled(HERE, replace(connected(HERE), behind=unseen))) == ["the far end of the connection"]
    assert missing(dialled(HERE, replace(connected(HERE), behind=Unknown(Reason.NOT_NEEDED)))) == []


def test_behind_the_first_working_address_it_is_information() -> None:
    seen = dialled("localhost:8080", connected("[::1]:8080"), not_accepted(HERE), listeners=SERVER, holders=RUNS)
    assert said(seen) == [("hung/not-accepting", Severity.INFO, Confidence.PROVEN)]


def test_a_connection_whose_last_ack_was_lost_is_not_one_that_the_program_does_not_accept() -> None:
    assert not list(CHECK.judge(dialled(HERE, half_open(HERE), listeners=SERVER)))


# for moments


def over_for_a_moment(*, full_before: bool = False, overflows: int = 0) -> Fact[QueueWitness]:
    return Known(QueueWitness(at(HERE), 5, 8, 1, 1, full_before, overflows))


@pytest.mark.parametrize("queue", [over_for_a_moment(full_before=True), over_for_a_moment(overflows=2)])
def test_a_queue_that_had_no_room_while_we_tried_and_has_now_is_the_likely_cause(queue: Fact[QueueWitness]) -> None:
    seen = dialled(HERE, unanswered(HERE, queue=queue), listeners=SERVER, holders=RUNS)
    assert said(seen) == [("hung/accept-queue-full", *LIKELY)]
    assert root(seen).title == "The accept queue of 127.0.0.1:8080 was full and dropped 3 packets"


@pytest.mark.parametrize("reason", ["NETFILTER_DROP", "SOCKET_FILTER", "BPF_CGROUP_EGRESS"])
def test_a_packet_that_was_dropped_elsewhere_is_not_blamed_on_a_queue_with_room(reason: str) -> None:
    attempt = unanswered(HERE, queue=over_for_a_moment(overflows=2), drop=reason)
    assert said(dialled(HERE, attempt, listeners=SERVER, holders=RUNS)) == []


def test_a_last_ack_that_found_the_queue_full_is_the_queue_s_and_no_rule_s() -> None:
    attempt = replace(half_open(HERE), queue=over_for_a_moment(overflows=1))
    report = diagnose(dialled(HERE, attempt, listeners=SERVER, holders=RUNS), CHECKS)
    assert report.root_cause is not None
    assert report.root_cause.code == "hung/accept-queue-full"
    assert not [one for one in report.findings if one.code.startswith("firewall/")]


@pytest.mark.parametrize(
    ("queue", "sure"), [(over_for_a_moment(full_before=True), Confidence.PROVEN), (NOT_NEEDED, Confidence.LIKELY)]
)
def test_a_connection_that_waits_for_room_in_the_queue_is_not_said_to_be_in_it(
    queue: Fact[QueueWitness], sure: Confidence
) -> None:
    attempt = replace(not_accepted(HERE), acceptance=Known(Acceptance.OVERFLOWED), queue=queue)
    seen = dialled(HERE, attempt, listeners=SERVER, holders=RUNS)
    assert said(seen) == [("hung/accept-queue-full", Severity.PROBLEM, sure)]


# which of the holders


MASTER, WORKER = process("gunicorn", 100), replace(process("gunicorn", 101), parent=100)


def test_the_worker_is_the_one_to_look_at_and_not_its_master() -> None:
    found = root(dialled(HERE, not_accepted(HERE), listeners=SERVER, holders=held((1, MASTER), (1, WORKER))))
    assert "py-spy dump --pid 101" in found.remedies[-1].summary
    assert "100" not in found.remedies[-1].summary


def test_the_worker_that_has_a_client_is_named_with_it() -> None:
    idle = replace(process("gunicorn", 102), parent=100)
    busy = replace(listening(HERE, 7), state=TcpState.ESTABLISHED, peer=at("127.0.0.1:40000"))
    holders = held((1, MASTER), (1, WORKER), (1, idle), (7, WORKER))
    found = root(dialled(HERE, not_accepted(HERE), listeners=SERVER, sockets=rows(busy), holders=holders))
    assert "gunicorn (pid 101) has the connection of another client open, from 127.0.0.1:40000" in found.explanation
    assert "ss -tnp 'sport = :40000'" in found.remedies[0].summary
    assert "pid 101" in found.remedies[-1].summary
    assert "102" not in found.remedies[-1].summary


def test_where_any_of_several_may_accept_all_are_named() -> None:
    heir = replace(process("sleep", 9), parent=4242)
    found = root(dialled(HERE, not_accepted(HERE), listeners=SERVER, holders=held((1, process()), (1, heir))))
    assert "any of the pids 9, 4242" in found.remedies[-1].summary


def test_stopped_workers_are_named_though_their_master_runs() -> None:
    stopped = replace(WORKER, state="T")
    found = root(dialled(HERE, not_accepted(HERE), listeners=SERVER, holders=held((1, MASTER), (1, stopped))))
    assert (found.code, found.confidence) == ("hung/process-stopped", Confidence.LIKELY)
    assert found.remedies[0].commands[0].argv == ("kill", "-CONT", "101")
    assert "Its master, gunicorn (pid 100), runs" in found.explanation


def test_of_two_sockets_on_the_port_the_one_with_waiting_connections_is_looked_at() -> None:
    twins = rows(listening(HERE, 1), listening(HERE, 2))
    healthy, stuck = process("one", 11), process("two", 22)
    waiting = Known(Later(1000.0, (listening(HERE, 1), replace(listening(HERE, 2), queue=1)), held()))
    seen = dialled(HERE, not_accepted(HERE), listeners=twins, holders=held((1, healthy), (2, stuck)), later=waiting)
    assert "22" in root(seen).remedies[-1].summary
    assert "11" not in root(seen).remedies[-1].summary
    stopped = held((1, healthy), (2, replace(stuck, state="T")))
    found = root(replace(seen, holders=stopped))
    assert (found.code, found.confidence) == ("hung/process-stopped", Confidence.LIKELY)
    assert found.remedies[0].commands[0].argv == ("kill", "-CONT", "22")


# what became of the server


def test_a_server_that_was_replaced_by_a_new_process_is_said_to_restart() -> None:
    new = Known(Later(120.0, (listening(HERE, 2),), held((2, process("node", 78)))))
    seen = dialled(
        HERE, ended(HERE, Outcome.RESET), listeners=SERVER, holders=held((1, process("node", 77))), later=new
    )
    found = root(seen)
    assert "node (pid 77) was replaced by a new process, node (pid 78)" in found.explanation
    assert "why the server ends" in found.remedies[0].summary
    assert not _speaks_of_a_forwarder(found)


def test_a_server_that_is_gone_since_is_said_to_be() -> None:
    gone = Known(Later(600.0, (), held()))
    seen = dialled(
        HERE, ended(HERE, Outcome.CLOSED), listeners=SERVER, holders=held((1, process("node", 77))), later=gone
    )
    found = root(seen)
    assert "node (pid 77) has ended since, and nothing listens there now" in found.explanation
    assert not _speaks_of_a_forwarder(found)
    assert any(one.text.startswith("was held by node (pid 77") for one in found.evidence)
    assert not any(one.text.startswith("held by") for one in found.evidence)


def _speaks_of_a_forwarder(found: Finding) -> bool:
    return any("forwarder" in text for text in (found.explanation, *(one.summary for one in found.remedies)))


@pytest.mark.parametrize("end", [Outcome.CLOSED, Outcome.RESET])
def test_a_server_that_stays_may_be_a_forwarder_and_its_age_comes_last(end: Outcome) -> None:
    young = held((1, replace(process("node", 77), started_at="2026-11-23T09:59:57Z")))
    same = Known(Later(20.0, (listening(HERE),), young))
    found = root(dialled(HERE, ended(HERE, end), listeners=SERVER, holders=young, later=same))
    assert _speaks_of_a_forwarder(found)
    assert "way. A forwarder ends a connection in this way when" in found.explanation
    assert found.explanation.endswith("or not stay up.")
    assert any(one.text.startswith("held by node (pid 77") for one in found.evidence)


def test_one_pending_connection_is_not_called_several() -> None:
    seen = dialled(HERE, unanswered(HERE, queue=full_queue(HERE, waiting=1, backlog=0)), listeners=SERVER, holders=RUNS)
    found = root(seen)
    assert found.title == "The accept queue of 127.0.0.1:8080 is full: 1 pending connection, backlog 0"
    assert "1 pending connection, backlog 0" in {one.text for one in found.evidence}


def test_a_last_ack_without_room_tells_the_queue_as_far_as_it_is_known() -> None:
    late = replace(not_accepted(HERE), acceptance=Known(Acceptance.OVERFLOWED), queue=full_queue(HERE))
    known = root(dialled(HERE, late, listeners=SERVER, holders=RUNS))
    assert known.title == "The accept queue of 127.0.0.1:8080 is full: 2 pending connections, backlog 1"
    listener = rows(replace(listening(HERE), backlog=1))
    unread = root(dialled(HERE, replace(late, queue=NOT_NEEDED), listeners=listener, holders=RUNS))
    assert unread.title == "The accept queue of 127.0.0.1:8080 is full: backlog 1"


@pytest.mark.parametrize(("started", "said_so"), [("2026-11-23T09:59:57Z", True), ("2026-11-23T09:00:00Z", False)])
def test_the_age_of_a_young_server_is_told(started: str, said_so: bool) -> None:
    server = held((1, replace(process("node", 77), started_at=started)))
    same = Known(Later(20.0, (listening(HERE),), server))
    seen = dialled(HERE, ended(HERE, Outcome.CLOSED), listeners=SERVER, holders=server, later=same)
    assert ("node (pid 77) was started 3 seconds before the attempt" in root(seen).explanation) is said_so
