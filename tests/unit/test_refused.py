"""refused: who answered no, and where the server is instead."""

from __future__ import annotations

import pytest

from checks.firewall import CHECK as FIREWALL
from checks.refused import CHECK
from diagnose.engine import diagnose
from diagnose.model.attempt import Attempt, Outcome, ResetWitness
from diagnose.model.elsewhere import Elsewhere, OtherListener
from diagnose.model.fact import Fact, Known, Reason, Unknown
from diagnose.model.finding import Confidence, Finding, Severity
from diagnose.model.later import Later
from diagnose.model.network import SocketRow
from diagnose.model.process import Holders
from diagnose.model.report import CheckOutcome
from diagnose.model.snapshot import Snapshot
from tests.scenes import (
    ALICE,
    BLURRED_RESET,
    KERNEL_RESET,
    NEEDS_ROOT,
    RULE_RESET,
    at,
    connected,
    dialled,
    ended,
    held,
    listening,
    not_accepted,
    process,
    refused,
    rejected,
    resolved,
    rows,
    rule,
    shadow,
    taken,
    udp_socket,
    unanswered,
    walk_to,
    wanted,
)

V4, V6, LAN = "127.0.0.1:8080", "[::1]:8080", "192.0.2.10:8080"


def said(snapshot: Snapshot) -> list[tuple[str, Severity, Confidence]]:
    return [(one.code, one.severity, one.confidence) for one in CHECK.judge(snapshot) if isinstance(one, Finding)]


def missing(snapshot: Snapshot) -> list[str]:
    return [one.fact for one in CHECK.judge(snapshot) if not isinstance(one, Finding)]


def only(snapshot: Snapshot, code: str) -> Finding:
    found = [one for one in CHECK.judge(snapshot) if isinstance(one, Finding) and one.code == code]
    assert len(found) == 1
    return found[0]


def outcome(snapshot: Snapshot) -> CheckOutcome:
    return diagnose(snapshot, [CHECK]).checks[0].outcome


PROVEN = (Severity.PROBLEM, Confidence.PROVEN)
LIKELY = (Severity.PROBLEM, Confidence.LIKELY)
POSSIBLE = (Severity.PROBLEM, Confidence.POSSIBLE)
HINT = (Severity.INFO, Confidence.POSSIBLE)


# nothing listens


def test_the_kernels_own_reset_and_no_listener_prove_that_nothing_listens() -> None:
    assert said(dialled(V4, refused(V4))) == [("refused/nothing-listening", *PROVEN)]


@pytest.mark.parametrize(
    ("reset", "sure"),
    [
        (KERNEL_RESET, Confidence.PROVEN),
        (Known(ResetWitness(True, True, "tcp_send_reset")), Confidence.PROVEN),
        (BLURRED_RESET, Confidence.LIKELY),
        (NEEDS_ROOT, Confidence.LIKELY),
        (RULE_RESET, Confidence.POSSIBLE),
    ],
)
def test_who_sent_the_reset_decides_how_sure_it_is(reset: Fact[ResetWitness], sure: Confidence) -> None:
    assert said(dialled(V4, refused(V4, reset))) == [("refused/nothing-listening", Severity.PROBLEM, sure)]


def test_where_a_rule_is_known_to_refuse_it_is_likely_that_nothing_listens_behind_it() -> None:
    seen = dialled(V4, refused(V4, RULE_RESET), firewall=shadow(walk_to("127.0.0.1", rule(), "reject")))
    assert said(seen) == [("refused/nothing-listening", *LIKELY)]


def test_a_reset_of_unknown_origin_is_missed() -> None:
    assert missing(dialled(V4, refused(V4, NEEDS_ROOT))) == ["who sent the reset"]
    assert missing(dialled(V4, refused(V4))) == []


def test_the_proof_is_in_the_words_of_its_sources() -> None:
    found = only(dialled(V4, refused(V4), elsewhere=Known(Elsewhere((), 3))), "refused/nothing-listening")
    assert [(one.text, one.source) for one in found.evidence] == [
        ("connect to 127.0.0.1:8080: ECONNREFUSED after 0.1 ms", "connect(2)"),
        ("Tcp OutRsts rose by 2 for 2 probes: the kernel itself sent the reset", "/proc/net/snmp"),
        ("no TCP socket of this network namespace takes 127.0.0.1:8080", "sock_diag"),
        ("nor in 3 other network namespaces", "/proc/PID/net/tcp"),
    ]


def test_a_port_of_the_dynamic_range_is_said_to_change() -> None:
    found = only(dialled("127.0.0.1:62893", refused("127.0.0.1:62893")), "refused/nothing-listening")
    assert "49152-65535" in found.explanation


def test_a_listener_that_takes_the_address_is_never_said_not_to_be_there() -> None:
    for where in (V4, "0.0.0.0:8080"):
        assert said(dialled(V4, refused(V4, RULE_RESET), listeners=rows(listening(where)))) == []
    assert said(dialled(V4, refused(V4, RULE_RESET), listeners=rows(listening("[::]:8080", v6only=False)))) == []


def test_without_the_listeners_nothing_is_said_and_the_check_is_skipped() -> None:
    seen = dialled(V4, refused(V4), listeners=NEEDS_ROOT)
    assert (said(seen), missing(seen), outcome(seen)) == ([], ["listeners"], CheckOutcome.SKIPPED)


def test_where_it_is_not_known_whether_a_wildcard_takes_ipv4_the_check_is_not_clear() -> None:
    seen = dialled(V4, refused(V4), listeners=rows(listening("[::]:8080", v6only=None)))
    assert (said(seen), outcome(seen)) == ([], CheckOutcome.SKIPPED)
    assert missing(seen) == ["IPV6_V6ONLY of [::]:8080"]


def test_what_was_not_refused_is_none_of_its_business() -> None:
    assert said(dialled(V4, unanswered(V4))) == []
    assert said(dialled(V4, connected(V4))) == []
    assert said(wanted(V4, taken(V4))) == []
    assert outcome(dialled(V4, connected(V4))) is CheckOutcome.CLEAR


def test_each_address_that_is_refused_is_named() -> None:
    found = diagnose(dialled("localhost:8080", refused(V6), refused(V4)), [CHECK]).findings
    assert [one.title for one in found] == ["Nothing listens on [::1]:8080", "Nothing listens on 127.0.0.1:8080"]


def test_an_address_refused_behind_the_first_working_one_is_information() -> None:
    seen = dialled("localhost:8080", connected(V6), refused(V4), listeners=rows(listening(V6, v6only=True)))
    assert [one[1] for one in said(seen)] == [Severity.INFO]


def test_an_icmp_error_is_not_called_a_closed_port() -> None:
    seen = dialled(V4, rejected(V4, 3, 3, "ECONNREFUSED"))
    assert said(seen) == [("refused/nothing-listening", *POSSIBLE)]
    assert "firewall rule" in only(seen, "refused/nothing-listening").explanation


# the other family, another address


def test_a_server_on_the_other_family_is_the_cause_where_it_answers() -> None:
    seen = dialled(
        V4,
        refused(V4),
        listeners=rows(listening(V6)),
        candidates=(connected(V6),),
        holders=held((1, process("node", 99))),
    )
    assert said(seen) == [("refused/other-family", *PROVEN)]
    found = only(seen, "refused/other-family")
    assert found.title == "node listens on [::1]:8080, not on 127.0.0.1:8080"
    assert found.remedies[0].commands[0].argv[-1] == V6


def test_the_v6only_wildcard_is_the_other_family_for_ipv4() -> None:
    seen = dialled(V4, refused(V4), listeners=rows(listening("[::]:8080", v6only=True)), candidates=(connected(V6),))
    assert said(seen) == [("refused/other-family", *PROVEN)]
    assert "IPV6_V6ONLY" in only(seen, "refused/other-family").explanation


def test_a_server_on_ipv4_alone_is_the_other_family_for_ipv6() -> None:
    seen = dialled(V6, refused(V6), listeners=rows(listening("0.0.0.0:8080")), candidates=(connected(V4),))
    assert said(seen) == [("refused/other-family", *PROVEN)]
    assert only(seen, "refused/other-family").remedies[0].commands[0].argv[-1] == V4


def test_a_server_on_another_address_is_the_cause_where_it_answers() -> None:
    seen = dialled(V4, refused(V4), listeners=rows(listening(LAN)), candidates=(connected(LAN),))
    assert said(seen) == [("refused/other-address", *PROVEN)]
    assert only(seen, "refused/other-address").remedies[0].commands[0].argv[-1] == LAN


def test_an_address_of_the_same_name_that_works_shows_that_it_answers_there() -> None:
    seen = dialled("localhost:8080", refused(V6), connected(V4), listeners=rows(listening(V4)))
    assert said(seen) == [("refused/other-family", Severity.WARNING, Confidence.PROVEN)]


def test_a_server_on_both_loopbacks_is_not_one_of_the_other_family_only() -> None:
    both = rows(listening("127.0.0.1:8080", 1), listening("[::1]:8080", 2))
    seen = dialled(LAN, refused(LAN), listeners=both, candidates=(connected(V4), connected(V6)))
    assert said(seen) == [("refused/other-address", *PROVEN)]
    found = only(seen, "refused/other-address")
    assert "127.0.0.1:8080" in found.title, "the address of the same family first"
    assert "only over" not in found.explanation


def test_a_server_elsewhere_that_is_refused_as_well_is_a_hint_and_nothing_listens_here() -> None:
    seen = dialled(V4, refused(V4), listeners=rows(listening(LAN)), candidates=(refused(LAN, RULE_RESET),))
    assert said(seen) == [("refused/other-address", *HINT), ("refused/nothing-listening", *PROVEN)]


@pytest.mark.parametrize(
    "late", [not_accepted(LAN), unanswered(LAN), ended(LAN, Outcome.CLOSED)], ids=lambda one: one.outcome.value
)
def test_a_server_elsewhere_that_has_not_answered_in_time_is_less_sure_and_the_same_cause(late: Attempt) -> None:
    seen = dialled(V4, refused(V4), listeners=rows(listening(LAN)), candidates=(late,))
    assert said(seen) == [("refused/other-address", *LIKELY)]
    found = only(seen, "refused/other-address")
    assert "not known" in found.explanation
    assert found.remedies


# near misses


def test_a_neighbour_is_only_a_hint() -> None:
    seen = dialled(V4, refused(V4), listeners=rows(listening("127.0.0.1:8081")), holders=held((1, process())))
    assert said(seen) == [("refused/other-port", *HINT), ("refused/nothing-listening", *PROVEN)]
    root = diagnose(seen, [CHECK]).root_cause
    assert root is not None
    assert root.code == "refused/nothing-listening"


def test_the_only_neighbour_that_is_the_usual_program_is_the_likely_cause() -> None:
    here = "127.0.0.1:5433"
    seen = dialled(
        f"postgres://{here}/db",
        refused(here),
        listeners=rows(listening("127.0.0.1:5432")),
        holders=held((1, process("postgres", 77))),
    )
    assert said(seen)[0] == ("refused/other-port", *LIKELY)
    root = diagnose(seen, [CHECK]).root_cause
    assert root is not None
    assert (root.code, root.remedies[0].commands[0].argv[-1]) == ("refused/other-port", "127.0.0.1:5432")


POSTGRES, ANOTHER = listening("127.0.0.1:5432", 1), listening("127.0.0.1:5434", 2)


@pytest.mark.parametrize(
    ("listeners", "holders"),
    [
        (rows(POSTGRES), held((1, process("python3")))),
        (rows(POSTGRES, ANOTHER), held((1, process("postgres")), (2, process("python3", 5)))),
        (rows(POSTGRES), held(hidden=3)),
    ],
    ids=["another program", "two candidates", "hidden owner"],
)
def test_a_neighbour_that_may_be_something_else_stays_a_hint(
    listeners: Fact[tuple[SocketRow, ...]], holders: Fact[Holders]
) -> None:
    here = "127.0.0.1:5433"
    seen = dialled(f"postgres://{here}/db", refused(here), listeners=listeners, holders=holders)
    near = [one for one in said(seen) if one[0] == "refused/other-port"]
    assert near
    assert all(one[1:] == HINT for one in near)


def test_the_remedy_of_a_near_miss_names_host_and_port_and_nothing_else_of_the_url() -> None:
    refusals = refused("[::1]:5432"), refused("127.0.0.1:5432")
    both = rows(listening("127.0.0.1:5433", 1), listening("[::1]:5433", 2))
    postgres = process("postgres", 77)
    seen = dialled(
        "postgres://app:hunter2@localhost:5432/db",
        *refusals,
        listeners=both,
        holders=held((1, postgres), (2, postgres)),
    )
    report = diagnose(seen, [CHECK])
    for cause in [one for one in report.findings if one.code == "refused/other-port"]:
        assert [one.argv for remedy in cause.remedies for one in remedy.commands] == [
            ("netdiag", "run", "localhost:5433")
        ]
        assert "port in postgresql.conf" in cause.remedies[1].summary


@pytest.mark.parametrize(("where", "connect"), [("[::1]:5433", "[::1]:5433"), ("192.0.2.10:5433", "192.0.2.10:5433")])
def test_a_near_miss_on_an_address_that_was_not_asked_for_is_reached_by_its_own(where: str, connect: str) -> None:
    here = "127.0.0.1:5432"
    seen = dialled(here, refused(here), listeners=rows(listening(where)), holders=held((1, process("postgres", 77))))
    root = diagnose(seen, [CHECK]).root_cause
    assert root is not None
    assert (root.code, root.remedies[0].commands[0].argv[-1]) == ("refused/other-port", connect)


SSHD = held((1, process("sshd", 55)), (2, process("sshd", 55)))


def test_a_port_that_also_listens_in_the_family_asked_for_is_not_called_one_of_the_other_family() -> None:
    both = rows(listening("127.0.0.1:8080", 1), listening("[::1]:8080", 2))
    answers = connected("127.0.0.1:8080"), connected("[::1]:8080")
    seen = dialled(LAN, refused(LAN), listeners=both, candidates=answers, holders=SSHD)
    assert said(seen) == [("refused/other-address", *PROVEN)]
    found = only(seen, "refused/other-address")
    assert "only over" not in found.explanation
    assert "GatewayPorts" in found.remedies[0].summary


def test_where_only_the_other_family_s_listener_answers_it_is_another_address_still() -> None:
    both = rows(listening("127.0.0.1:8080", 1), listening("[::1]:8080", 2))
    seen = dialled(
        LAN, refused(LAN), listeners=both, candidates=(not_accepted("127.0.0.1:8080"), connected("[::1]:8080"))
    )
    assert said(seen) == [("refused/other-address", *PROVEN)]
    assert only(seen, "refused/other-address").remedies[0].commands[0].argv[-1] == "[::1]:8080"


def test_a_refusal_that_was_not_the_kernels_is_not_said_to_be() -> None:
    seen = dialled(V4, refused(V4, RULE_RESET), listeners=rows(listening(V6)), candidates=(connected(V6),))
    assert "the kernel refuses" not in only(seen, "refused/other-family").explanation


# since then


def later(*found: SocketRow, holders: Fact[Holders] | None = None) -> Fact[Later]:
    return Known(Later(80.0, found, holders or held()))


def test_a_server_that_came_up_after_the_attempt_is_said_to_be_there_now() -> None:
    now = later(listening(V4, 9), holders=held((9, process("node", 321))))
    seen = dialled(V4, refused(V4), later=now)
    found = only(seen, "refused/nothing-listening")
    assert "node (pid 321) listens there: it was started or restarted just then" in found.explanation
    assert found.remedies[0].commands[0].argv == ("netdiag", "run", V4)


def test_a_listener_that_was_seen_first_after_the_refusal_is_the_gap_of_a_start() -> None:
    there = rows(listening(V4, 9))
    seen = dialled(
        V4, refused(V4, NEEDS_ROOT), listeners=there, later=later(listening(V4, 9)), candidates=(connected(V4),)
    )
    assert said(seen) == [("refused/nothing-listening", *LIKELY)]
    assert "at that moment" in only(seen, "refused/nothing-listening").title


def test_a_listener_that_always_was_there_and_refuses_still_is_no_gap() -> None:
    there = rows(listening(V4, 9))
    seen = dialled(V4, refused(V4, NEEDS_ROOT), listeners=there, later=later(listening(V4, 9)))
    assert said(seen) == []


# UDP


def test_a_udp_socket_on_the_port_is_named() -> None:
    seen = dialled(V4, refused(V4), udp=rows(udp_socket(V4)), holders=held((1, process("dnsmasq"))))
    assert [one[0] for one in said(seen)] == ["refused/udp-only", "refused/nothing-listening"]
    root = diagnose(seen, [CHECK]).root_cause
    assert root is not None
    assert (root.code, root.confidence) == ("refused/udp-only", Confidence.PROVEN)


def test_a_udp_socket_on_another_address_is_not_the_server_that_is_meant() -> None:
    assert said(dialled(V4, refused(V4), udp=rows(udp_socket(LAN)))) == [("refused/nothing-listening", *PROVEN)]


# a device


def test_a_listener_bound_to_a_device_is_named_where_the_kernel_refused() -> None:
    seen = dialled(V4, refused(V4), listeners=rows(listening("0.0.0.0:8080", device="eth0")))
    assert said(seen) == [("refused/other-device", *PROVEN)]
    assert said(dialled(V4, refused(V4, RULE_RESET), listeners=rows(listening("0.0.0.0:8080", device="eth0")))) == []


# another machine


def test_a_reset_from_another_machine_is_likely_a_closed_port() -> None:
    there = "198.51.100.7:80"
    assert said(dialled(there, refused(there, local=False))) == [("refused/nothing-listening", *LIKELY)]


@pytest.mark.parametrize(
    ("where", "own", "known"),
    [
        ("198.51.100.7:80", (), True),
        ("0.0.0.0:80", ("198.51.100.7",), True),
        ("[::]:80", ("198.51.100.7",), True),
        ("0.0.0.0:80", ("198.51.100.8",), False),
        ("[2001:db8::7]:80", (), False),
        ("198.51.100.8:80", (), False),
    ],
)
def test_a_server_known_to_listen_in_another_namespace_is_no_closed_port(
    where: str, own: tuple[str, ...], known: bool
) -> None:
    there = "198.51.100.7:80"
    other = OtherListener(4026532500, at(where), init=70, init_program="nginx", addresses=own)
    seen = dialled(there, refused(there, local=False), elsewhere=Known(Elsewhere((other,), 1)))
    (root,) = [one for one in diagnose(seen, [CHECK, FIREWALL]).findings if one.severity is Severity.PROBLEM]
    assert root.code == ("firewall/rule-rejects" if known else "refused/nothing-listening")
    assert root.confidence is Confidence.LIKELY
    if known:
        assert root.remedies[0].commands[0].argv[:2] == ("nsenter", "--net=/proc/70/ns/net")


def test_another_machine_behind_the_first_working_address_is_information() -> None:
    there = refused("198.51.100.7:8080", local=False)
    assert [one[1] for one in said(dialled("db:8080", connected(LAN), there))] == [Severity.INFO]


# passive


def test_passive_a_missing_listener_is_only_possibly_the_cause() -> None:
    seen = dialled(V4, passive=True, names=resolved("127.0.0.1", "127.0.0.1"))
    assert said(seen) == [("refused/nothing-listening", *POSSIBLE)]


def test_passive_a_listener_is_no_cause() -> None:
    seen = dialled(V4, passive=True, names=resolved("127.0.0.1", "127.0.0.1"), listeners=rows(listening(V4)))
    assert (said(seen), outcome(seen)) == ([], CheckOutcome.CLEAR)


def test_passive_without_the_listeners_the_check_is_skipped() -> None:
    seen = dialled(
        V4, passive=True, names=resolved("127.0.0.1", "127.0.0.1"), listeners=Unknown(Reason.FAILED, "x"), seen_by=ALICE
    )
    assert outcome(seen) is CheckOutcome.SKIPPED


def test_passive_another_machine_is_not_judged_by_this_ones_listeners() -> None:
    there = dialled("198.51.100.7:80", passive=True, names=resolved("198.51.100.7", "198.51.100.7"))
    assert said(there) == []


def test_a_near_miss_on_an_address_that_the_name_does_not_have_is_asked_for_by_that_address() -> None:
    postgres = process("postgres", 77)
    seen = dialled(
        "postgres://localhost/db",
        refused("127.0.0.1:5432"),
        listeners=rows(listening("[::1]:5433", 1)),
        holders=held((1, postgres)),
        names=resolved("localhost", "127.0.0.1"),
    )
    (found,) = (one for one in CHECK.judge(seen) if isinstance(one, Finding) and one.code == "refused/other-port")
    assert found.remedies[0].commands[0].argv == ("netdiag", "run", "[::1]:5433")
