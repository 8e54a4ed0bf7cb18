"""What the resolution check says of facts: every cause, its look-alikes, and what it never says."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from msgspec.structs import replace

from checks import CHECKS, resolution
from diagnose.engine import diagnose, exit_code
from diagnose.model.attempt import BindAttempt, Outcome
from diagnose.model.fact import Fact, Known, Missing, Reason, Unknown
from diagnose.model.finding import Confidence, Finding, Severity
from diagnose.model.names import HostsFile, Kind, Resolution, ResolverConfig
from diagnose.model.report import Verdict
from diagnose.model.snapshot import Snapshot
from diagnose.parse.hosts import parse_hosts, starts_with_bom
from tests.scenes import (
    ALICE,
    BLURRED_RESET,
    NEEDS_ROOT,
    POLICY,
    RULE_RESET,
    connected,
    dialled,
    listening,
    refused,
    rejected,
    resolved,
    rows,
    rule,
    shadow,
    unanswered,
    unavailable,
    unreachable,
    walk_to,
    wanted,
)

V4, V6 = "127.0.0.1:8080", "[::1]:8080"
CONFIG = Known(ResolverConfig(("files", "dns"), ("192.0.2.53",), ()))
IPV6_OFF = Known(replace(POLICY, ipv6_disabled_all=True, ipv6_disabled_lo=True))


def hosts(content: bytes = b"127.0.0.1 localhost\n::1 localhost\n", mode: int = 0o644) -> Fact[HostsFile]:
    """A hosts file that may be read."""
    return Known(HostsFile("/etc/hosts", mode, 0, True, starts_with_bom(content), parse_hosts(content)))


def unnamed(target: str, error: str = "EAI_NONAME", file: Fact[HostsFile] | None = None) -> Snapshot:
    """A machine where the name of the target does not resolve."""
    snapshot = dialled(target, hosts=file or hosts(), resolver=CONFIG)
    return replace(snapshot, names=resolved(snapshot.target.host, error=error))


def said(snapshot: Snapshot) -> list[Finding]:
    """The findings."""
    return [one for one in resolution.judge(snapshot) if isinstance(one, Finding)]


def missed(snapshot: Snapshot) -> list[str]:
    """The facts that were wanted and not known."""
    return [one.fact for one in resolution.judge(snapshot) if isinstance(one, Missing)]


def codes(found: Iterable[Finding]) -> list[str]:
    """The patterns, without the check's name."""
    return [one.code.removeprefix("resolution/") for one in found]


def root(snapshot: Snapshot) -> Finding | None:
    """What the engine makes of this check alone."""
    return diagnose(snapshot, [resolution.CHECK]).root_cause


def ipv6_first(**facts: object) -> Snapshot:
    """localhost is ::1 first, where nobody listens, and the server is on 127.0.0.1."""
    plain = dialled("localhost:8080", refused(V6), connected(V4), listeners=rows(listening(V4)), resolver=CONFIG)
    return replace(plain, **facts)


def test_a_first_address_that_is_refused_at_once_is_a_warning_of_a_target_that_works() -> None:
    (found,) = said(ipv6_first())
    assert found.code == "resolution/prefers-other-family"
    assert (found.severity, found.confidence) == (Severity.WARNING, Confidence.PROVEN)
    assert found.remedies[0].commands[0].argv == ("netdiag", "run", "127.0.0.1:8080")
    assert {"refused/other-family", "refused/nothing-listening", "refused/other-address"} <= set(found.explains)
    texts = [one.text for one in found.evidence]
    assert any("::1, 127.0.0.1" in text for text in texts)
    report = diagnose(ipv6_first(), [resolution.CHECK])
    assert (report.verdict, report.root_cause, exit_code([report])) == (Verdict.REACHABLE, None, 0)


def test_the_clients_that_fail_are_named_and_no_other() -> None:
    told = said(ipv6_first())[0].explanation
    works, fails = told.split("work at once:")[1].split("Programs that try the first address only fail:")
    assert all(one in works for one in ("curl", "Python", "Go", "bash", "Node.js from version 20 on"))
    assert fails.strip() == "Node.js 17 to 19, BusyBox wget."


def test_it_is_the_same_the_other_way_round_but_gai_conf_is_no_remedy_then() -> None:
    snapshot = dialled("localhost:8080", refused(V4), connected(V6), listeners=rows(listening(V6)), resolver=CONFIG)
    (found,) = said(snapshot)
    assert "Node.js before version 20, BusyBox wget." in found.explanation, "17 to 19 alone obey the resolver"
    assert found.remedies[0].commands[0].argv == ("netdiag", "run", "[::1]:8080")
    assert not any("gai.conf" in one.summary for one in found.remedies)


def test_a_working_address_of_the_same_family_in_between_hides_no_warning() -> None:
    between = connected("[fd00::1]:8080")
    snapshot = dialled("localhost:8080", refused(V6), between, connected(V4), listeners=rows(listening(V4)))
    (found,) = (one for one in said(snapshot) if one.code == "resolution/prefers-other-family")
    assert found.remedies[0].commands[0].argv == ("netdiag", "run", "127.0.0.1:8080")


def test_gai_conf_is_the_last_remedy_and_is_left_out_where_it_is_set_already() -> None:
    last = said(ipv6_first())[0].remedies[-1]
    assert last.edits[0].file == "/etc/gai.conf"
    assert last.commands[0].needs_root
    done = Known(ResolverConfig(("files",), (), ("precedence ::ffff:0:0/96 100",)))
    assert not any(one.edits for one in said(ipv6_first(resolver=done))[0].remedies)


@pytest.mark.parametrize(
    "snapshot",
    [
        ipv6_first(attempts=(rejected(V6, 1, 4, "ECONNREFUSED"), connected(V4))),
        ipv6_first(attempts=(unanswered(V6), connected(V4))),
        ipv6_first(attempts=(unreachable(V6), connected(V4))),
    ],
    ids=["icmp", "silence", "lo is down"],
)
def test_what_stops_the_first_address_itself_is_not_blamed_on_the_order(snapshot: Snapshot) -> None:
    assert not said(snapshot)


@pytest.mark.parametrize(
    "snapshot",
    [
        ipv6_first(listeners=rows(listening(V6), listening(V4))),
        ipv6_first(attempts=(refused(V6, RULE_RESET), connected(V4))),
        ipv6_first(firewall=shadow(walk_to("::1", rule("reject"), "reject"))),
    ],
    ids=["somebody listens", "a rule's reset", "a rule in the walk"],
)
def test_an_address_that_a_rule_refuses_is_not_called_one_that_the_server_lacks(snapshot: Snapshot) -> None:
    (found,) = said(snapshot)
    assert found.severity is Severity.WARNING
    assert "over IPv4 only" not in found.explanation
    assert not any("listen on both families" in one.summary for one in found.remedies)


@pytest.mark.parametrize("late", [1000.0, 3000.0])
def test_an_error_that_comes_late_is_waited_for(late: float) -> None:
    first = replace(refused("[2001:db8::1]:80", local=False), ms=late)
    (found,) = said(dialled("far.test:80", first, connected("192.0.2.1:80")))
    assert (found.severity, "fails late" in found.title) == (Severity.PROBLEM, True)


def test_two_addresses_of_one_family_are_no_question_of_the_family() -> None:
    two = dialled(
        "box:80", refused("127.0.1.1:80"), connected("127.0.0.1:80"), listeners=rows(listening("127.0.0.1:80"))
    )
    assert not said(two)


def test_a_first_address_that_works_leaves_nothing_to_say() -> None:
    assert not said(dialled("localhost:8080", connected(V6), refused(V4), listeners=rows(listening(V6))))


def test_an_address_that_answers_now_and_then_is_no_question_of_the_family() -> None:
    attempts = (refused(V6), connected(V6), connected(V4))
    assert not said(ipv6_first(attempts=attempts))


def test_without_the_table_of_listeners_the_kernel_s_own_reset_is_proof_enough() -> None:
    (found,) = said(ipv6_first(listeners=NEEDS_ROOT))
    assert found.confidence is Confidence.PROVEN
    blurred = ipv6_first(listeners=NEEDS_ROOT, attempts=(refused(V6, BLURRED_RESET), connected(V4)))
    assert "over IPv4 only" not in said(blurred)[0].explanation


def test_the_hosts_line_is_quoted_with_the_action_that_ended_the_lookup() -> None:
    line = "hosts:  files mdns4_minimal [NOTFOUND=return] dns"
    config = Known(ResolverConfig(("files", "mdns4_minimal", "dns"), ("192.0.2.53", "::1"), (), line))
    snapshot = replace(unnamed("db.local:80"), resolver=config)
    quoted = {(one.text, one.source) for found in said(snapshot) for one in found.evidence}
    assert (line, "/etc/nsswitch.conf") in quoted
    assert {("nameserver 192.0.2.53", "/etc/resolv.conf"), ("nameserver ::1", "/etc/resolv.conf")} <= quoted


def test_another_machine_that_is_silent_over_ipv6_is_likely_at_most() -> None:
    far = dialled("far.test:80", unanswered("[2001:db8::1]:80", local=False), connected("192.0.2.1:80"))
    (found,) = said(far)
    assert (found.severity, found.confidence) == (Severity.PROBLEM, Confidence.LIKELY)
    assert "stays silent" in found.title
    dropped = replace(far, firewall=shadow(walk_to("2001:db8::1", rule(), "drop")))
    assert not said(dropped)


def test_another_machine_that_refuses_over_ipv6_is_proven() -> None:
    far = dialled(
        "far.test:80", refused("[2001:db8::1]:80", Unknown(Reason.NOT_VISIBLE), local=False), connected("192.0.2.1:80")
    )
    (found,) = said(far)
    assert found.confidence is Confidence.PROVEN


def test_a_name_that_is_not_known_is_told_with_the_code_of_the_resolver() -> None:
    (found,) = said(unnamed("db.example:5432"))
    assert found.code == "resolution/not-found"
    assert (found.severity, found.confidence) == (Severity.PROBLEM, Confidence.PROVEN)
    assert any("EAI_NONAME" in one.text for one in found.evidence)
    assert any("192.0.2.53" in one.text for one in found.evidence)


def test_a_name_server_that_does_not_answer_is_not_a_name_that_does_not_exist() -> None:
    (found,) = said(unnamed("db.example:5432", "EAI_AGAIN"))
    assert "knows no such name" not in found.title
    assert "Whether the name exists is not known" in found.explanation


def test_a_resolver_that_had_to_be_stopped_proves_nothing() -> None:
    snapshot = unnamed("db.example:5432", "DEADLINE")
    (found,) = said(snapshot)
    assert found.confidence is Confidence.POSSIBLE
    assert missed(snapshot) == ["name resolution"]
    report = diagnose(snapshot, [resolution.CHECK])
    assert (report.root_cause, report.verdict, exit_code([report])) == (None, Verdict.INCONCLUSIVE, 3)


def test_names_under_localhost_are_told_apart_and_get_a_line_in_the_hosts_file() -> None:
    (found,) = said(unnamed("app.localhost:3000"))
    assert found.code == "resolution/not-found"
    assert "Browsers" in found.explanation
    assert found.remedies[0].edits[0].text == "127.0.0.1 app.localhost"
    assert found.remedies[0].commands[0].needs_root


def test_a_resolver_that_never_reads_the_hosts_file_gets_no_line_in_it() -> None:
    snapshot = replace(unnamed("localhost:80"), resolver=Known(ResolverConfig(("dns",), (), ())))
    (found,) = said(snapshot)
    assert found.code == "resolution/not-found"
    assert found.remedies[0].edits[0].file == "/etc/nsswitch.conf"


@pytest.mark.parametrize(
    ("content", "in_title"),
    [
        (b"", "no line for localhost"),
        (b"127.0.0.1 localhst\n", "no line for localhost"),
        (b"10.0.0.1 box\n# 127.0.0.1 localhost\n", "commented out"),
        (b"\xef\xbb\xbf127.0.0.1 localhost\n", "byte order mark"),
        (b"localhost 127.0.0.1\n", "no address where it belongs"),
        (b"127.0.0.256 localhost\n", "no address where it belongs"),
    ],
    ids=["empty", "misspelt", "commented", "mark", "swapped", "bad address"],
)
def test_a_hosts_file_without_localhost_is_what_is_wrong(content: bytes, in_title: str) -> None:
    for error in ("EAI_AGAIN", "EAI_NONAME"):
        found = root(unnamed("localhost:80", error, hosts(content)))
        assert found
        assert (found.code, found.confidence) == ("resolution/hosts-file-broken", Confidence.PROVEN)
        assert in_title in found.title
        assert "resolution/not-found" in found.explains
        assert found.remedies[0].commands
        assert found.remedies[0].undo


def no_file(kind: Kind, *, mounted: bool = False) -> Fact[HostsFile]:
    """Something else in the place of the hosts file."""
    return Known(HostsFile("/etc/hosts", 0o644, 0, False, False, (), kind=kind, mounted=mounted))


def stopped(*, at_fifo: bool, file: Fact[HostsFile], resolver: Fact[ResolverConfig] = CONFIG) -> Snapshot:
    """A machine whose resolver had to be stopped."""
    snapshot = dialled("localhost:8080", hosts=file, resolver=resolver)
    return replace(snapshot, names=Known(Resolution("localhost", (), 3000.0, "DEADLINE", waits_at_fifo=at_fifo)))


def test_a_fifo_where_the_resolver_waits_is_what_is_wrong() -> None:
    (finding,) = said(stopped(at_fifo=True, file=no_file("a FIFO")))
    assert (finding.code, finding.confidence) == (resolution.HOSTS_FILE_BROKEN.code, Confidence.PROVEN)
    assert finding.title == "/etc/hosts is a FIFO, not a regular file"
    commands = [one.argv[0] for one in finding.remedies[0].commands]
    assert commands == ["mv", "sh", "chmod"]
    assert diagnose(stopped(at_fifo=True, file=no_file("a FIFO")), CHECKS).verdict is Verdict.UNREACHABLE


def test_a_fifo_that_the_resolver_does_not_wait_for_is_only_possible() -> None:
    (finding,) = said(stopped(at_fifo=False, file=no_file("a FIFO")))
    assert (finding.code, finding.confidence) == (resolution.HOSTS_FILE_BROKEN.code, Confidence.POSSIBLE)


def test_a_fifo_among_files_of_which_nothing_else_is_known_is_still_proven_by_something() -> None:
    nothing = Unknown(Reason.FAILED, "")
    (finding,) = said(stopped(at_fifo=True, file=nothing, resolver=nothing))
    assert all(one.text.strip() for one in finding.evidence)


def test_two_fifos_leave_open_for_which_one_the_resolver_waits() -> None:
    other = Unknown(Reason.FAILED, "/etc/resolv.conf: it is a FIFO and no regular file: never opened")
    (finding,) = said(stopped(at_fifo=True, file=no_file("a FIFO"), resolver=other))
    assert finding.confidence is Confidence.LIKELY
    (finding,) = said(stopped(at_fifo=True, file=hosts(), resolver=other))
    assert (finding.code, finding.confidence) == (resolution.NOT_FOUND.code, Confidence.LIKELY)
    assert other.detail in {one.text for one in finding.evidence}


def test_a_hosts_file_that_no_resolver_reads_is_not_accused() -> None:
    without = Known(ResolverConfig(("dns",), ("192.0.2.53",), ()))
    for kind in ("a FIFO", "a device", "a directory"):
        found = said(stopped(at_fifo=False, file=no_file(kind), resolver=without))
        snapshot = replace(unnamed("localhost:8080", file=no_file(kind)), resolver=without)
        assert resolution.HOSTS_FILE_BROKEN.code not in {one.code for one in (*found, *said(snapshot))}


@pytest.mark.parametrize("kind", ["a directory", "a socket", "a device"])
@pytest.mark.parametrize("mounted", [True, False])
def test_localhost_fails_for_what_stands_in_the_place_of_its_file(kind: Kind, mounted: bool) -> None:
    finding = said(unnamed("localhost:8080", "EAI_AGAIN", no_file(kind, mounted=mounted)))[0]
    assert (finding.code, finding.confidence) == (resolution.HOSTS_FILE_BROKEN.code, Confidence.PROVEN)
    assert finding.remedies[0].commands[0].argv[0] == ("umount" if mounted else "mv")


def test_another_name_may_fail_for_other_reasons_than_the_file_unless_it_has_no_end() -> None:
    for error, sure in (("EAI_NONAME", Confidence.POSSIBLE), ("EAI_MEMORY", Confidence.PROVEN)):
        finding = said(unnamed("db.test:8080", error, no_file("a device")))[0]
        assert (finding.code, finding.confidence) == (resolution.HOSTS_FILE_BROKEN.code, sure)


def test_looking_only_says_what_the_hosts_file_is_and_claims_no_more() -> None:
    unread = Unknown(Reason.NOT_VISIBLE, "/etc/hosts: it is a FIFO and no regular file: never opened")
    snapshot = replace(dialled("localhost:8080", hosts=no_file("a FIFO"), resolver=CONFIG), names=unread)
    (finding,) = said(snapshot)
    assert (finding.code, finding.confidence) == (resolution.HOSTS_FILE_BROKEN.code, Confidence.POSSIBLE)
    assert diagnose(snapshot, CHECKS).root_cause is None


def test_a_hosts_file_that_the_user_may_not_read_is_opened_and_can_be_closed_again() -> None:
    closed = Known(HostsFile("/etc/hosts", 0o600, 0, readable=False, bom=False, entries=()))
    found = root(replace(unnamed("localhost:80", file=closed), vantage=ALICE))
    assert found
    assert (found.code, found.confidence) == ("resolution/hosts-file-broken", Confidence.PROVEN)
    assert found.remedies[0].commands[0].argv == ("chmod", "644", "/etc/hosts")
    assert found.remedies[0].undo[0].argv == ("chmod", "600", "/etc/hosts")
    other = root(replace(unnamed("db.example:80", file=closed), vantage=ALICE))
    assert other
    assert other.code == "resolution/not-found", "what an unreadable file says of a name is a guess"


def test_a_hosts_file_that_is_missing_is_created() -> None:
    gone = Known(HostsFile("/etc/hosts", 0, 0, readable=False, bom=False, entries=(), exists=False))
    found = root(unnamed("localhost:80", file=gone))
    assert found
    assert found.code == "resolution/hosts-file-broken"
    assert "chmod" in [one.argv[0] for one in found.remedies[0].commands]


def test_a_name_of_its_own_that_is_commented_out_is_likely_and_one_that_never_was_there_is_not_blamed_on_the_file() -> (
    None
):
    commented = root(unnamed("db.example:80", file=hosts(b"127.0.0.1 localhost\n#10.0.0.7 db.example\n")))
    assert commented
    assert (commented.code, commented.confidence) == ("resolution/hosts-file-broken", Confidence.LIKELY)
    assert codes(said(unnamed("db.example:80"))) == ["not-found"]


def test_an_unknown_hosts_file_is_missed_only_where_the_name_fails() -> None:
    assert "hosts file" in missed(unnamed("localhost:80", file=NEEDS_ROOT))
    assert not missed(replace(dialled("localhost:8080", connected(V4)), hosts=NEEDS_ROOT))


def test_a_healthy_machine_without_a_line_for_ipv6_has_nothing_wrong() -> None:
    assert not said(dialled("localhost:8080", refused(V4), hosts=hosts(b"127.0.0.1 localhost\n"), resolver=CONFIG))


def elsewhere(content: bytes, *more: object) -> Snapshot:
    """localhost leads to another machine, which does not answer."""
    return dialled("localhost:8080", unanswered("10.0.0.1:8080", local=False), hosts=hosts(content), resolver=CONFIG)


def test_localhost_that_means_another_address_is_proven_with_the_line_that_does_it() -> None:
    snapshot = elsewhere(b"127.0.1.1 box\n10.0.0.1 localhost\n")
    found = root(snapshot)
    assert found
    assert (found.code, found.confidence) == ("resolution/localhost-elsewhere", Confidence.PROVEN)
    assert codes(said(snapshot)) == ["localhost-elsewhere"]
    assert any(one.text.startswith("line 2: 10.0.0.1") for one in found.evidence)
    assert found.remedies[0].commands
    assert found.remedies[0].undo


def test_localhost_that_dns_sends_elsewhere_is_the_fault_of_a_hosts_file_without_it() -> None:
    found = root(elsewhere(b"10.0.0.9 box\n"))
    assert found
    assert found.code == "resolution/hosts-file-broken"
    assert "resolution/localhost-elsewhere" in found.explains


def test_localhost_elsewhere_that_works_or_comes_last_is_a_warning() -> None:
    works = dialled("localhost:80", connected("10.0.0.1:80"), hosts=hosts(b"10.0.0.1 localhost\n"))
    behind = dialled(
        "localhost:80",
        connected("127.0.0.1:80"),
        refused("10.0.0.1:80"),
        hosts=hosts(b"10.0.0.1 localhost\n127.0.0.1 localhost\n"),
    )
    for snapshot in (works, behind):
        (found,) = said(snapshot)
        assert (found.code, found.severity) == ("resolution/localhost-elsewhere", Severity.WARNING)


def test_localhost_on_another_loopback_address_than_the_server_is_the_file_s_fault() -> None:
    wrong = hosts(b"127.0.0.2 localhost\n")
    snapshot = dialled("localhost:8080", refused("127.0.0.2:8080"), hosts=wrong, listeners=rows(listening(V4)))
    found = root(snapshot)
    assert found
    assert found.code == "resolution/hosts-file-broken"
    assert "127.0.0.2" in found.title
    nowhere = replace(snapshot, listeners=rows())
    assert not said(nowhere)


def without_ipv6(target: str, *attempts: object, policy: object = IPV6_OFF) -> Snapshot:
    """A machine with IPv6 off."""
    return replace(dialled(target), attempts=attempts, policy=policy, names=ipv6_names(target))


def ipv6_names(target: str) -> Fact[Resolution]:
    """::1 itself, or localhost with ::1 sorted last."""
    return resolved("::1", "::1") if target.startswith("[") else resolved("localhost", "127.0.0.1", "::1")


def test_ipv6_that_is_off_is_why_the_literal_is_gone() -> None:
    snapshot = without_ipv6(V6, unavailable(V6))
    (found,) = said(snapshot)
    assert (found.code, found.severity) == ("resolution/ipv6-disabled", Severity.PROBLEM)
    assert found.confidence is Confidence.PROVEN
    assert "loopback/address-missing" in found.explains
    assert found.remedies[0].commands[0].argv == ("sysctl", "-w", "net.ipv6.conf.lo.disable_ipv6=0")
    assert found.remedies[0].undo[0].argv[-1].endswith("=1")


def test_where_the_server_takes_ipv4_that_is_the_first_remedy() -> None:
    snapshot = replace(without_ipv6(V6, unavailable(V6)), listeners=rows(listening("[::]:8080", v6only=False)))
    assert said(snapshot)[0].remedies[0].commands[0].argv == ("netdiag", "run", V4)


def test_ipv6_that_is_off_is_information_behind_another_address() -> None:
    for first in (connected(V4), refused(V4)):
        (found,) = said(without_ipv6("localhost:8080", first, unavailable(V6)))
        assert (found.code, found.severity) == ("resolution/ipv6-disabled", Severity.INFO)


def test_a_missing_address_with_ipv6_on_is_not_ipv6_that_is_off() -> None:
    assert not said(without_ipv6(V6, unavailable(V6), policy=Known(POLICY)))
    assert missed(without_ipv6(V6, unavailable(V6), policy=NEEDS_ROOT)) == ["port sysctls"]


def test_a_kernel_without_ipv6_has_no_switch_to_turn() -> None:
    none = Known(replace(POLICY, ipv6_available=False))
    attempt = replace(unavailable(V6), outcome=Outcome.OTHER, errno="EAFNOSUPPORT")
    (found,) = said(without_ipv6(V6, attempt, policy=none))
    assert not any("sysctl" in command.argv for remedy in found.remedies for command in remedy.commands)


def test_a_server_that_cannot_bind_the_ipv6_loopback_is_told_the_same() -> None:
    failed = BindAttempt(
        address="::1",
        port=3000,
        family="ipv6",
        outcome=Outcome.ADDRESS_UNAVAILABLE,
        errno="EADDRNOTAVAIL",
        plain_outcome=Outcome.ADDRESS_UNAVAILABLE,
        plain_errno="EADDRNOTAVAIL",
        ms=0.1,
    )
    found = root(replace(wanted("[::1]:3000", failed), policy=IPV6_OFF))
    assert found
    assert found.code == "resolution/ipv6-disabled"
    assert found.remedies[0].commands[0].argv == ("netdiag", "run", "--bind", "127.0.0.1:3000")


@pytest.mark.parametrize("host", ["127.0.0.256", "127.0.0.1.1", "300.1.1.1"])
def test_what_only_looks_like_an_address_is_proven_to_be_a_name_that_fails(host: str) -> None:
    found = root(unnamed(f"{host}:80", "EAI_AGAIN"))
    assert found
    assert (found.code, found.confidence) == ("resolution/odd-address", Confidence.PROVEN)
    assert "resolution/not-found" in found.explains


def odd(host: str, address: str, *listeners: str) -> Snapshot:
    """An odd literal that was refused."""
    rows_there = rows(*(listening(one) for one in listeners))
    plain = dialled(f"{host}:80", refused(f"{address}:80"), listeners=rows_there)
    return replace(plain, names=Known(replace(value(resolved(host, address)), literal=False, odd_literal=True)))


def value(fact: Fact[Resolution]) -> Resolution:
    """The resolution of a fact that is known."""
    assert isinstance(fact, Known)
    return fact.value


def test_a_short_form_of_an_address_is_information() -> None:
    (found,) = said(odd("127.1", "127.0.0.1"))
    assert (found.code, found.severity) == ("resolution/odd-address", Severity.INFO)


def test_octal_zeros_are_a_problem_only_where_the_server_is_on_the_address_that_a_person_reads() -> None:
    (there,) = said(odd("127.0.0.010", "127.0.0.8", "127.0.0.10:80"))
    assert (there.severity, there.confidence) == (Severity.PROBLEM, Confidence.PROVEN)
    assert there.remedies[0].commands[0].argv == ("netdiag", "run", "127.0.0.10:80")
    (nowhere,) = said(odd("127.0.0.010", "127.0.0.8"))
    assert nowhere.severity is Severity.WARNING


def test_the_wildcard_as_a_destination_is_information() -> None:
    (found,) = said(dialled("0.0.0.0:80", connected("0.0.0.0:80")))
    assert (found.code, found.severity) == ("resolution/odd-address", Severity.INFO)
    assert not said(wanted("0.0.0.0:80"))


def test_a_zone_without_its_interface_is_told_as_such() -> None:
    plain = dialled("127.0.0.1:80")
    names = Resolution("fe80::1%nope", (), 0.0, "EAI_NONAME", literal=True, source="literal")
    (found,) = said(replace(plain, names=Known(names)))
    assert found.code == "resolution/not-found"
    assert "nope" in found.title


def test_names_that_could_not_be_asked_for_are_missed() -> None:
    snapshot = replace(dialled("box:80"), names=Unknown(Reason.PASSIVE))
    assert missed(snapshot) == ["name resolution"]
    assert not said(snapshot)


def test_no_title_is_longer_than_eighty_characters_whatever_the_name() -> None:
    long = "a" * 60 + ".localhost"
    for error in ("EAI_NONAME", "EAI_AGAIN", "DEADLINE", "EAI_FAIL"):
        assert all(len(one.title) <= 80 for one in said(unnamed(f"{long}:80", error)))


def test_a_hostile_name_from_a_recording_never_gets_into_a_command() -> None:
    plain = unnamed("app.localhost:80")
    evil = "$(touch /tmp/x).localhost"
    snapshot = replace(plain, names=resolved(evil, error="EAI_NONAME"))
    commands = [command for one in said(snapshot) for remedy in one.remedies for command in remedy.commands]
    assert not any("touch" in word for command in commands for word in command.argv)
