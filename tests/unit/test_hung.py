"""hung: the kernel answers, the program does not; and what only looks like it."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from checks.hung import CHECK
from diagnose.engine import diagnose
from diagnose.model.attempt import Attempt, Outcome
from diagnose.model.fact import NOT_NEEDED, Fact, Reason, Unknown
from diagnose.model.finding import Confidence, Finding, Risk, Severity
from diagnose.model.process import Holders
from diagnose.model.report import CheckOutcome
from diagnose.model.snapshot import Snapshot
from tests.scenes import (
    ALICE,
    NEEDS_ROOT,
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
    assert found.title == "The accept queue of 127.0.0.1:8080 is full: 2 wait, 1 may"


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
