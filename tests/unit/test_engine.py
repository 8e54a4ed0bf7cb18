"""From findings to the report: verdict, root cause, what was not checked, exit code."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from msgspec.structs import replace

from diagnose.engine import diagnose, exit_code
from diagnose.model.attempt import Attempt, Outcome
from diagnose.model.check import Check
from diagnose.model.fact import NOT_NEEDED, PASSIVE, Missing, Reason, Unknown
from diagnose.model.finding import Confidence, Finding, Severity, Stage
from diagnose.model.report import CheckOutcome, Report, Verdict
from diagnose.model.snapshot import Snapshot
from tests.scenes import (
    NEEDS_ROOT,
    bound,
    bound_with_reuse_only,
    cause,
    connected,
    dialled,
    ended,
    finding,
    not_accepted,
    refused,
    rejected,
    resolved,
    taken,
    unanswered,
    unavailable,
    unbindable,
    wanted,
)

V4, V6 = "127.0.0.1:8080", "[::1]:8080"


def check(name: str, *said: Finding | Missing, stage: Stage = Stage.SOCKET) -> Check:
    """A check that says this of every snapshot."""
    codes = {one.code for one in said if isinstance(one, Finding)}

    def judge(snapshot: Snapshot) -> Iterable[Finding | Missing]:
        return said if snapshot.attempts or snapshot.binds or said else ()

    return Check(name, tuple(cause(code, stage) for code in sorted(codes)), judge)


def judged(snapshot: Snapshot, *checks: Check) -> Report:
    return diagnose(snapshot, checks)


# verdict


@pytest.mark.parametrize(
    ("attempts", "verdict"),
    [
        ((connected(V4),), Verdict.REACHABLE),
        ((connected(V6), connected(V4)), Verdict.REACHABLE),
        ((connected(V6), refused(V4)), Verdict.REACHABLE),
        ((connected(V4), unavailable(V6)), Verdict.REACHABLE),
        ((refused(V6), connected(V4)), Verdict.REACHABLE),
        ((unavailable(V6), connected(V4)), Verdict.REACHABLE),
        ((refused(V6), refused(V6.replace("::1", "::2")), connected(V4)), Verdict.REACHABLE),
        ((refused(V4), connected("127.0.0.2:8080")), Verdict.REACHABLE),
        ((replace(refused("[2001:db8::1]:80", local=False), ms=3000.0), connected(V4)), Verdict.DEGRADED),
        ((rejected(V6, 1, 4, "ECONNREFUSED"), connected(V4)), Verdict.DEGRADED),
        ((unanswered(V6), connected(V4)), Verdict.DEGRADED),
        ((not_accepted(V6), connected(V4)), Verdict.DEGRADED),
        ((ended(V6, Outcome.CLOSED), connected(V4)), Verdict.DEGRADED),
        ((refused(V6), unanswered(V6.replace("::1", "::2")), connected(V4)), Verdict.DEGRADED),
        ((refused(V6), refused(V4), connected(V4)), Verdict.DEGRADED),
        ((unanswered(V6), refused(V6.replace("::1", "::2")), connected(V4)), Verdict.DEGRADED),
        ((connected(V4), refused(V4), connected(V4)), Verdict.DEGRADED),
        ((refused(V4), connected(V4)), Verdict.DEGRADED),
        ((refused(V4),), Verdict.UNREACHABLE),
        ((refused(V6), unanswered(V4)), Verdict.UNREACHABLE),
        ((not_accepted(V4),), Verdict.UNREACHABLE),
    ],
)
def test_the_verdict_follows_from_what_came_of_each_address_in_the_resolvers_order(
    attempts: tuple[Attempt, ...], verdict: Verdict
) -> None:
    assert judged(dialled("localhost:8080", *attempts)).verdict is verdict


def test_a_name_that_does_not_exist_is_unreachable() -> None:
    report = judged(dialled("nowhere:80", names=resolved("nowhere", error="EAI_NONAME")))
    assert report.verdict is Verdict.UNREACHABLE
    assert [(one.address, one.outcome, one.errno) for one in report.attempts] == [
        ("nowhere", "name-not-found", "EAI_NONAME")
    ]


@pytest.mark.parametrize("names", [resolved("db", error="DEADLINE"), Unknown(Reason.FAILED, "the child died"), PASSIVE])
def test_without_a_resolver_that_answers_it_is_not_known_whether_it_works(names: Unknown) -> None:
    report = judged(dialled("db:80", names=names))
    assert (report.verdict, exit_code([report])) == (Verdict.INCONCLUSIVE, 3)


def test_passive_is_inconclusive_whatever_a_socket_check_proves() -> None:
    seen = dialled(V4, passive=True, names=resolved("127.0.0.1", "127.0.0.1"))
    assert judged(seen, check("refused", finding("refused/x"))).verdict is Verdict.INCONCLUSIVE


@pytest.mark.parametrize("stage", [Stage.ROUTE, Stage.LOOPBACK])
def test_a_proven_local_block_is_a_verdict_without_any_attempt(stage: Stage) -> None:
    seen = dialled(V4, passive=True, names=resolved("127.0.0.1", "127.0.0.1"))
    report = judged(seen, check("loopback", finding("loopback/interface-down"), stage=stage))
    assert (report.verdict, exit_code([report])) == (Verdict.UNREACHABLE, 1)


def test_a_local_block_that_is_only_likely_is_no_verdict_by_itself() -> None:
    seen = dialled(V4, passive=True, names=resolved("127.0.0.1", "127.0.0.1"))
    likely = finding("loopback/interface-down", confidence=Confidence.LIKELY)
    assert judged(seen, check("loopback", likely, stage=Stage.LOOPBACK)).verdict is Verdict.INCONCLUSIVE


def test_what_could_not_be_looked_at_never_changes_a_verdict() -> None:
    blind = Missing("firewall rules", NEEDS_ROOT)
    for attempt, verdict in ((connected(V4), Verdict.REACHABLE), (refused(V4), Verdict.UNREACHABLE)):
        seen = dialled(V4, attempt, listeners=NEEDS_ROOT, holders=NEEDS_ROOT, firewall=NEEDS_ROOT)
        assert judged(seen, check("firewall", blind)).verdict is verdict


def test_a_bind_is_decided_with_reuse_of_the_address() -> None:
    assert judged(wanted(V4, bound(V4))).verdict is Verdict.BINDABLE
    assert judged(wanted(V4, bound_with_reuse_only(V4))).verdict is Verdict.BINDABLE
    assert judged(wanted(V4, taken(V4))).verdict is Verdict.NOT_BINDABLE
    assert judged(wanted("localhost:8080", bound(V6), taken(V4))).verdict is Verdict.NOT_BINDABLE


# root cause


PATH = [
    ("resolution/not-found", Stage.NAME),
    ("loopback/routed-elsewhere", Stage.ROUTE),
    ("loopback/interface-down", Stage.LOOPBACK),
    ("firewall/rule-drops", Stage.FIREWALL),
    ("refused/nothing-listening", Stage.SOCKET),
    ("hung/process-stopped", Stage.PROCESS),
    ("service/certificate", Stage.SERVICE),
]
PAIRS = [(first, second) for i, first in enumerate(PATH) for second in PATH[i + 1 :]]


@pytest.mark.parametrize("early_first", [True, False], ids=["early check first", "late check first"])
@pytest.mark.parametrize(("early", "late"), PAIRS, ids=lambda one: one[0])
def test_of_two_faults_the_one_that_the_packet_meets_first_is_the_root_cause(
    early: tuple[str, Stage], late: tuple[str, Stage], early_first: bool
) -> None:
    checks = [
        check(code.partition("/")[0] + str(i), finding(code), stage=stage)
        for i, (code, stage) in enumerate((early, late))
    ]
    report = judged(dialled(V4, refused(V4)), *(checks if early_first else reversed(checks)))
    assert report.root_cause is not None
    assert [one.code for one in report.findings] == [early[0], late[0]]
    assert report.root_cause.code == early[0]
    assert all(one.severity is Severity.PROBLEM for one in report.findings)


def test_a_likely_fault_early_on_the_path_comes_before_a_proven_one_later() -> None:
    report = judged(
        dialled(V4, refused(V4)),
        check("refused", finding("refused/nothing-listening")),
        check("firewall", finding("firewall/silent", confidence=Confidence.LIKELY), stage=Stage.FIREWALL),
    )
    assert report.root_cause is not None
    assert report.root_cause.code == "firewall/silent"


def test_of_two_faults_at_one_place_the_proven_one_is_the_root_cause() -> None:
    report = judged(
        dialled(V4, refused(V4)),
        check("refused", finding("refused/a", confidence=Confidence.LIKELY), finding("refused/b")),
    )
    assert report.root_cause is not None
    assert report.root_cause.code == "refused/b"


def test_what_is_only_possible_stays_a_finding() -> None:
    report = judged(dialled(V4, refused(V4)), check("refused", finding("refused/a", confidence=Confidence.POSSIBLE)))
    assert report.root_cause is None
    assert [one.code for one in report.findings] == ["refused/a"]
    assert exit_code([report]) == 3


@pytest.mark.parametrize("severity", [Severity.INFO, Severity.WARNING])
def test_what_does_not_stand_in_the_way_is_no_root_cause(severity: Severity) -> None:
    report = judged(dialled(V4, refused(V4)), check("refused", finding("refused/a", severity)))
    assert (report.root_cause, exit_code([report])) == (None, 3)


def test_a_specific_cause_beats_the_general_one_that_it_explains() -> None:
    general = finding("resolution/prefers-other-family")
    specific = finding("refused/other-family", explains=("resolution/prefers-other-family",))
    report = judged(
        dialled("localhost:8080", unanswered(V6), connected(V4)),
        check("resolution", general, stage=Stage.NAME),
        check("refused", specific),
    )
    assert report.root_cause == specific
    assert [one.code for one in report.findings] == [specific.code, general.code]


def test_a_guess_explains_nothing_away() -> None:
    guess = finding("refused/other-port", confidence=Confidence.POSSIBLE, explains=("refused/nothing-listening",))
    known = finding("refused/nothing-listening")
    report = judged(dialled(V4, refused(V4)), check("refused", guess, known))
    assert report.root_cause == known


def test_two_findings_that_explain_each_other_still_leave_a_root_cause() -> None:
    one, other = finding("refused/a", explains=("refused/b",)), finding("refused/b", explains=("refused/a",))
    report = judged(dialled(V4, refused(V4)), check("refused", one, other))
    assert report.root_cause in (one, other)


def test_a_cause_that_names_itself_among_what_it_explains_is_still_the_root_cause() -> None:
    itself = finding("refused/a", explains=("refused/a", "refused/b"))
    report = judged(dialled(V4, refused(V4)), check("refused", itself))
    assert report.root_cause is not None
    assert report.root_cause.explains == report.findings[0].explains == ("refused/b",)


def test_what_a_warning_explains_is_no_warning_of_its_own() -> None:
    head = finding("a/x", Severity.WARNING, explains=("b/x", "a/x"))
    report = judged(
        dialled("localhost:8080", refused(V6), connected(V4)),
        check("b", finding("b/x", Severity.WARNING, explains=("a/x",))),
        check("a", head, stage=Stage.NAME),
    )
    assert {one.code: one.severity for one in report.findings} == {"a/x": Severity.WARNING, "b/x": Severity.INFO}


def test_a_target_that_works_has_no_root_cause_and_no_problem() -> None:
    report = judged(dialled("localhost:8080", connected(V6), refused(V4)), check("refused", finding("refused/a")))
    assert report.root_cause is None
    assert [one.severity for one in report.findings] == [Severity.INFO]


def test_a_warning_stays_a_warning_on_a_target_that_works() -> None:
    report = judged(wanted(V4, bound_with_reuse_only(V4)), check("in-use", finding("in-use/a", Severity.WARNING)))
    assert [one.severity for one in report.findings] == [Severity.WARNING]
    assert exit_code([report]) == 0


def test_findings_are_ranked_by_severity_then_path_then_confidence() -> None:
    report = judged(
        dialled(V4, refused(V4)),
        check("service", finding("service/i", Severity.INFO), stage=Stage.NAME),
        check("a", finding("a/w", Severity.WARNING), stage=Stage.NAME),
        check("b", finding("b/likely", confidence=Confidence.LIKELY), finding("b/proven")),
        check("c", finding("c/early"), stage=Stage.ROUTE),
    )
    assert [one.code for one in report.findings] == ["c/early", "b/proven", "b/likely", "a/w", "service/i"]


# the checks


def test_every_check_is_listed_in_order_with_its_outcome() -> None:
    report = judged(
        dialled(V4, refused(V4), skip=("last",)),
        check("a", finding("a/x")),
        check("b"),
        check("c", finding("c/x", Severity.INFO)),
        check("d", Missing("listeners", NEEDS_ROOT)),
        check("last", finding("last/x")),
    )
    assert [(one.name, one.outcome, one.reason) for one in report.checks] == [
        ("a", CheckOutcome.FOUND, None),
        ("b", CheckOutcome.CLEAR, None),
        ("c", CheckOutcome.CLEAR, None),
        ("d", CheckOutcome.SKIPPED, "listeners: needs root"),
        ("last", CheckOutcome.SKIPPED, "not asked for"),
    ]


def test_a_check_that_read_no_known_fact_is_not_clear() -> None:
    def asks(*fields: str) -> Check:
        def judge(seen: Snapshot) -> Iterable[Finding]:
            assert all(getattr(seen, one) is not None for one in fields)
            return ()

        return Check("a", (), judge)

    tried = dialled(V4, refused(V4), routing=NOT_NEEDED, firewall=NEEDS_ROOT)
    untried = wanted(V4, bound(V4))
    outcome = {
        fields: judged(seen, asks(*fields)).checks[0].outcome
        for seen, fields in (
            (tried, ("attempts",)),
            (untried, ("attempts", "candidates")),
            (tried, ("routing",)),
            (tried, ("vantage", "target", "intent", "scope")),
            (tried, ("attempts", "firewall")),
            (untried, ("binds",)),
        )
    }
    assert outcome == {
        ("attempts",): CheckOutcome.CLEAR,
        ("attempts", "candidates"): CheckOutcome.NOT_APPLICABLE,
        ("routing",): CheckOutcome.NOT_APPLICABLE,
        ("vantage", "target", "intent", "scope"): CheckOutcome.NOT_APPLICABLE,
        ("attempts", "firewall"): CheckOutcome.SKIPPED,
        ("binds",): CheckOutcome.CLEAR,
    }


def test_a_check_that_found_something_is_found_whatever_it_missed() -> None:
    report = judged(dialled(V4, refused(V4)), check("a", Missing("listeners", NEEDS_ROOT), finding("a/x")))
    assert report.checks[0].outcome is CheckOutcome.FOUND


def test_a_check_that_has_only_information_and_missed_a_fact_is_not_clear() -> None:
    told = finding("a/x", Severity.INFO)
    report = judged(dialled(V4, refused(V4)), check("a", told, Missing("listeners", NEEDS_ROOT)))
    assert report.checks[0].outcome is CheckOutcome.SKIPPED


def test_a_skipped_check_names_each_missing_fact_once_in_order() -> None:
    facts = (Missing("routes", PASSIVE), Missing("listeners", NEEDS_ROOT), Missing("listeners", NEEDS_ROOT))
    reason = judged(dialled(V4, refused(V4)), check("a", *facts)).checks[0].reason
    assert reason == "listeners: needs root; routes: passive: --passive looks only"


def test_only_the_checks_asked_for_are_judged() -> None:
    report = judged(dialled(V4, refused(V4), only=("b",)), check("a", finding("a/x")), check("b", finding("b/x")))
    assert [one.code for one in report.findings] == ["b/x"]
    assert [one.outcome for one in report.checks] == [CheckOutcome.SKIPPED, CheckOutcome.FOUND]


def test_a_broken_check_costs_its_own_answer_only() -> None:
    def broken(_snapshot: Snapshot) -> Iterable[Finding]:
        yield finding("a/before")
        raise KeyError("127.0.0.1")

    report = judged(dialled(V4, refused(V4)), Check("a", (cause("a/before"),), broken), check("b", finding("b/x")))
    assert [one.outcome for one in report.checks] == [CheckOutcome.CRASHED, CheckOutcome.FOUND]
    assert report.checks[0].reason == "KeyError: '127.0.0.1'"
    assert {one.code for one in report.findings} == {"a/before", "b/x"}


# what was not checked


def test_a_fact_that_was_not_needed_is_not_listed_as_not_checked() -> None:
    seen = dialled(V4, connected(V4), routing=NOT_NEEDED, firewall=NOT_NEEDED)
    assert judged(seen, check("a", Missing("who sent the reset", NOT_NEEDED))).not_checked == ()


def test_what_was_wanted_and_could_not_be_had_is_listed_with_reason_and_remedy() -> None:
    seen = dialled(V4, refused(V4), firewall=NEEDS_ROOT)
    report = judged(seen, check("a", Missing("accept queue", Unknown(Reason.KERNEL_TOO_OLD, "sock_diag"))))
    assert [(one.fact, one.reason, one.lift) for one in report.not_checked] == [
        ("accept queue", "kernel too old to tell: sock_diag", None),
        ("firewall rules", "needs root", "run it again with sudo"),
    ]


def test_a_fact_that_several_checks_missed_is_listed_once() -> None:
    missed = Missing("firewall rules", NEEDS_ROOT)
    report = judged(dialled(V4, refused(V4), firewall=NEEDS_ROOT), check("a", missed), check("b", missed, missed))
    assert [one.fact for one in report.not_checked] == ["firewall rules"]


# exit codes


WORKS = judged(dialled(V4, connected(V4)))
NAMED = judged(dialled(V4, refused(V4)), check("a", finding("a/x")))
NAMELESS = judged(dialled(V4, refused(V4)))


@pytest.mark.parametrize(
    ("reports", "code"),
    [
        ((WORKS,), 0),
        ((NAMED,), 1),
        ((NAMELESS,), 3),
        ((WORKS, WORKS), 0),
        ((WORKS, NAMED), 1),
        ((NAMELESS, NAMED), 1),
        ((NAMED, NAMELESS, WORKS), 1),
        ((WORKS, NAMELESS), 3),
    ],
)
def test_the_exit_code_of_several_targets_is_the_worst_that_a_cause_was_named_for(
    reports: tuple[Report, ...], code: int
) -> None:
    assert exit_code(reports) == code


def test_the_report_says_who_asked_what_when_and_from_where() -> None:
    seen = dialled("localhost:8080", connected(V4))
    report = judged(seen)
    assert (report.target.input, report.target.host, report.target.port) == ("localhost:8080", "localhost", 8080)
    assert (report.intent, report.vantage) == (seen.intent, seen.vantage)
    assert (report.netdiag, report.started_at, report.duration_ms) == (seen.netdiag, seen.started_at, seen.duration_ms)
    assert report.schema == "netdiag.report/1"


# behaviour of checks that the engine sees to


def test_what_is_only_information_on_a_working_target_makes_no_check_found() -> None:
    seen = dialled("localhost:8080", connected(V6), refused(V4))
    report = judged(seen, check("refused", finding("refused/a")))
    assert report.checks[0].outcome is CheckOutcome.CLEAR


def test_a_name_that_does_not_exist_cannot_be_bound() -> None:
    report = judged(wanted("nowhere:80", names=resolved("nowhere", error="EAI_NONAME")))
    assert report.verdict is Verdict.NOT_BINDABLE


def test_a_resolver_that_never_answers_has_not_said_that_the_name_does_not_exist() -> None:
    report = judged(dialled("db:80", names=resolved("db", error="DEADLINE")))
    assert report.attempts[0].outcome == "unanswered"


def test_a_proven_listener_in_the_way_is_a_verdict_without_a_bind() -> None:
    seen = wanted(V4, names=resolved("127.0.0.1", "127.0.0.1"))
    assert judged(seen, check("in-use", finding("in-use/listener"))).verdict is Verdict.NOT_BINDABLE
    likely = finding("in-use/listener", confidence=Confidence.LIKELY)
    assert judged(seen, check("in-use", likely)).verdict is Verdict.INCONCLUSIVE


def test_an_address_that_is_not_here_behind_one_that_can_be_bound_is_information() -> None:
    assert judged(wanted("localhost:80", bound(V4), unbindable(V6))).verdict is Verdict.BINDABLE
    assert judged(wanted("localhost:80", unbindable(V6), bound(V4))).verdict is Verdict.NOT_BINDABLE


def test_where_some_checks_only_were_asked_for_only_what_they_missed_is_listed() -> None:
    seen = dialled(V4, refused(V4), skip=("firewall",), firewall=NEEDS_ROOT)
    assert judged(seen, check("refused")).not_checked == ()
    report = judged(seen, check("refused", Missing("listeners", NEEDS_ROOT)))
    assert [one.fact for one in report.not_checked] == ["listeners"]


@pytest.mark.parametrize("errno", ["EMFILE", "ENFILE", "ENOMEM", "ENOBUFS"])
def test_a_limit_of_our_own_is_no_verdict_on_the_target(errno: str) -> None:
    ours = replace(ended(V4, Outcome.OTHER), errno=errno)
    assert judged(dialled(V4, ours)).verdict is Verdict.INCONCLUSIVE
    assert judged(dialled(V4, replace(ours, errno="EINVAL"))).verdict is Verdict.UNREACHABLE
    unbound = replace(taken(V4), outcome=Outcome.OTHER, errno=errno)
    assert judged(wanted(V4, unbound)).verdict is Verdict.INCONCLUSIVE
