"""What the in-use check says of facts: every cause, its look-alikes, and what it never says."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

import checks.in_use as in_use
from checks import CHECKS
from diagnose.analysis.describe import describe_process, stop_remedies
from diagnose.engine import diagnose
from diagnose.model.attempt import Attempt, BindAttempt, Outcome
from diagnose.model.fact import Fact, Known, Missing, Reason, Unknown
from diagnose.model.finding import Confidence, Finding, Risk, Severity
from diagnose.model.later import Later
from diagnose.model.network import Endpoint, Interface, Links, PortPolicy, SocketRow, TcpState, family_of
from diagnose.model.process import Container, Holder, Holders, Process
from diagnose.model.report import CheckOutcome
from diagnose.model.snapshot import Snapshot, Vantage
from diagnose.model.target import Intent, Scope, Target
from diagnose.model.unit import Lodger, Units

PORT = 8080
POLICY = PortPolicy(
    ephemeral_low=32768,
    ephemeral_high=60999,
    reserved=(),
    unprivileged_start=1024,
    nonlocal_bind_v4=False,
    nonlocal_bind_v6=False,
    bindv6only=False,
    ipv6_disabled_all=False,
    ipv6_disabled_lo=False,
    ipv6_available=True,
)
BOB, ROOT = 1000, 0
PYTHON = Process(
    123, "python3", "python3 -m http.server 8080", BOB, "bob", "S", "2026-11-23T10:02:11Z", parent=100, executable="/x"
)
IN_USE = (Outcome.ADDRESS_IN_USE, "EADDRINUSE")
FREE = (Outcome.BOUND, None)
DENIED = (Outcome.DENIED, "EACCES")
UNAVAILABLE = (Outcome.ADDRESS_UNAVAILABLE, "EADDRNOTAVAIL")


def row(
    local: str = "127.0.0.1",
    state: TcpState = TcpState.LISTEN,
    peer: tuple[str, int] | None = None,
    *,
    port: int = PORT,
    inode: int = 7,
    v6only: bool | None = None,
) -> SocketRow:
    """A socket."""
    family = family_of(local)
    end = Endpoint(*(peer or ("::" if family == "ipv6" else "0.0.0.0", 0)))
    return SocketRow(Endpoint(local, port), end, state, family, inode, BOB, v6only=v6only)


def tried(
    with_reuse: tuple[Outcome, str | None],
    without: tuple[Outcome, str | None] | None = None,
    *,
    address: str = "127.0.0.1",
    port: int = PORT,
) -> BindAttempt:
    """How a bind ended with SO_REUSEADDR and without."""
    plain = without or with_reuse
    return BindAttempt(
        address=address,
        port=port,
        family=family_of(address),
        outcome=with_reuse[0],
        errno=with_reuse[1],
        plain_outcome=plain[0],
        plain_errno=plain[1],
        ms=0.1,
    )


def held_by(*processes: Process, inode: int = 7, unreadable: int = 0) -> Fact[Holders]:
    """Every one of them has the socket."""
    return Known(Holders(tuple(Holder(inode, one) for one in processes), unreadable))


def snapshot(
    *binds: BindAttempt,
    rows: tuple[SocketRow, ...] = (),
    bound: Fact[tuple[SocketRow, ...]] = Known(()),  # noqa: B008 - frozen
    uid: int = BOB,
    port: int = PORT,
) -> Snapshot:
    """Bob asks whether he can start a server, and everything could be looked at."""
    return Snapshot(
        netdiag="1",
        started_at="2026-11-23T10:00:00Z",
        duration_ms=1.0,
        target=Target(f"127.0.0.1:{port}", "127.0.0.1", port),
        intent=Intent.BIND,
        scope=Scope(1.0),
        vantage=Vantage("here", "linux", "6.18", "root" if uid == 0 else "bob", uid, uid == 0, 1, None),
        binds=binds,
        links=Known(Links((Interface("lo", True, ("127.0.0.1", "::1")),))),
        sockets=Known(rows),
        listeners=Known(tuple(one for one in rows if one.state is TcpState.LISTEN)),
        bound=bound,
        udp=Known(()),
        holders=held_by(PYTHON),
        policy=Known(POLICY),
    )


def findings(facts: Snapshot) -> list[Finding]:
    return [said for said in in_use.judge(facts) if isinstance(said, Finding)]


def missing(facts: Snapshot) -> set[str]:
    return {said.fact for said in in_use.judge(facts) if isinstance(said, Missing)}


def only(facts: Snapshot) -> Finding:
    (finding,) = findings(facts)
    return finding


def said(facts: Snapshot) -> list[tuple[str, Severity, Confidence]]:
    return [(one.code, one.severity, one.confidence) for one in findings(facts)]


def commands(finding: Finding) -> list[tuple[str, ...]]:
    return [command.argv for remedy in finding.remedies for command in remedy.commands]


PROBLEM = (Severity.PROBLEM, Confidence.PROVEN)


# a listener


def test_a_free_port_needs_no_words() -> None:
    assert list(in_use.judge(snapshot(tried(FREE)))) == []


def test_a_listener_is_named_with_its_program_pid_and_start() -> None:
    found = only(snapshot(tried(IN_USE), rows=(row(),)))
    assert (found.code, found.severity, found.confidence) == ("in-use/listener", *PROBLEM)
    assert found.title == "python3 (pid 123) listens on 127.0.0.1:8080"
    assert any("user bob, since 2026-11-23 10:02:11 UTC" in one.text for one in found.evidence)
    assert any("EADDRINUSE" in one.text and one.source == "bind(2)" for one in found.evidence)


def test_a_hidden_owner_is_never_called_nobody() -> None:
    facts = replace(snapshot(tried(IN_USE), rows=(row(),)), holders=held_by(unreadable=140))
    found = only(facts)
    assert found.title == f"A hidden process of user id {BOB} listens on 127.0.0.1:8080"
    assert any("owner hidden" in one.text for one in found.evidence)
    assert found.remedies[0].commands[0].argv == ("netdiag", "run", "--bind", "127.0.0.1:8080")
    assert found.remedies[0].commands[0].needs_root
    assert missing(facts) == {"socket owners"}


def test_owners_that_could_not_be_looked_for_are_missing_and_cost_no_certainty() -> None:
    unknown = Unknown(Reason.DEADLINE, "slow")
    facts = replace(snapshot(tried(IN_USE), rows=(row(),)), holders=unknown)
    assert only(facts).confidence is Confidence.PROVEN
    assert Missing("socket owners", unknown) in list(in_use.judge(facts))


def test_of_a_master_and_its_workers_the_master_is_named_and_stopped() -> None:
    worker = replace(PYTHON, pid=124, parent=123)
    facts = replace(snapshot(tried(IN_USE), rows=(row(),)), holders=held_by(PYTHON, worker))
    found = only(facts)
    assert found.title.startswith("python3 (pid 123) listens")
    assert commands(found) == [("kill", "123")]


def test_all_unrelated_processes_that_share_the_socket_are_stopped() -> None:
    other = replace(PYTHON, pid=200, program="sleep", parent=1, uid=ROOT)
    facts = replace(snapshot(tried(IN_USE), rows=(row(),)), holders=held_by(PYTHON, other))
    first = only(facts).remedies[0]
    assert [(one.argv, one.needs_root) for one in first.commands] == [(("kill", "123"), False), (("kill", "200"), True)]


def test_sockets_that_share_the_port_are_one_finding() -> None:
    facts = snapshot(tried(IN_USE), rows=(row(inode=7), row(inode=8)))
    assert len(findings(facts)) == 1


@pytest.mark.parametrize("inodes", [(7,), (7, 8)])
def test_two_listeners_on_one_address_are_not_called_impossible(inodes: tuple[int, ...]) -> None:
    told = only(snapshot(tried(IN_USE), rows=tuple(row(inode=one) for one in inodes))).explanation
    assert "SO_REUSEPORT" in told
    assert "Only one" not in told


def test_a_stopped_holder_is_ended_by_two_signals_and_may_be_resumed() -> None:
    stopped = replace(PYTHON, state="T")
    found = only(replace(snapshot(tried(IN_USE), rows=(row(),)), holders=held_by(stopped)))
    assert found.title == "python3 (pid 123, stopped) listens on 127.0.0.1:8080"
    assert "only after it is resumed" in found.explanation
    assert [c.argv for c in found.remedies[0].commands] == [("kill", "-TERM", "123"), ("kill", "-CONT", "123")]
    assert found.remedies[1].commands[0].argv == ("kill", "-CONT", "123")


def test_stopped_workers_are_resumed_too_so_that_they_can_end() -> None:
    worker = replace(PYTHON, pid=124, parent=123, state="T")
    facts = replace(snapshot(tried(IN_USE), rows=(row(),)), holders=held_by(PYTHON, worker))
    first = only(facts).remedies[0]
    assert [c.argv for c in first.commands] == [("kill", "-TERM", "123", "124"), ("kill", "-CONT", "124")]
    assert "pid 124" in only(facts).explanation


def test_a_holder_under_a_debugger_ends_when_the_debugger_does() -> None:
    traced = replace(PYTHON, state="t", tracer=77)
    found = only(replace(snapshot(tried(IN_USE), rows=(row(),)), holders=held_by(traced)))
    assert "traced" in found.title
    assert [(c.argv, c.needs_root) for c in found.remedies[0].commands] == [
        (("kill", "123"), False),
        (("kill", "77"), True),
    ]


@pytest.mark.parametrize(("state", "words"), [("Z", "zombie"), ("D", "waits in the kernel"), ("S", "")])
def test_what_another_state_means_for_the_port_is_said(state: str, words: str) -> None:
    found = only(replace(snapshot(tried(IN_USE), rows=(row(),)), holders=held_by(replace(PYTHON, state=state))))
    assert words in found.explanation
    assert commands(found)[0] == ("kill", "123")


def test_under_sudo_a_process_of_root_needs_root_and_one_s_own_does_not() -> None:
    facts = snapshot(tried(IN_USE), rows=(row(),), uid=ROOT)
    asked = replace(facts, vantage=replace(facts.vantage, sudo_user="bob", sudo_uid=BOB))
    of_root = replace(asked, holders=held_by(replace(PYTHON, uid=ROOT)))
    assert [only(one).remedies[0].commands[0].needs_root for one in (asked, of_root)] == [False, True]
    older = replace(of_root, vantage=replace(facts.vantage, sudo_user="bob"))
    assert only(older).remedies[0].commands[0].needs_root


def test_a_listener_on_another_port_or_address_is_not_accused() -> None:
    rows = (row(port=PORT + 1), row("127.0.0.2"), row("::1", v6only=True))
    assert findings(snapshot(tried(IN_USE), rows=rows)) == []


@pytest.mark.parametrize(
    ("wanted", "held"),
    [
        ("127.0.0.1", row("0.0.0.0")),
        ("0.0.0.0", row("127.0.0.1")),
        ("127.0.0.1", row("::", v6only=False)),
        ("::", row("127.0.0.1")),
        ("::1", row("::", v6only=True)),
        ("127.0.0.1", row("::ffff:127.0.0.1", v6only=False)),
    ],
)
def test_a_listener_on_an_overlapping_address_is_named_as_such(wanted: str, held: SocketRow) -> None:
    found = only(snapshot(tried(IN_USE, address=wanted), rows=(held,)))
    assert (found.code, found.severity, found.confidence) == ("in-use/overlapping-address", *PROBLEM)
    assert str(held.local) in found.title
    assert wanted in found.title


def test_an_unread_v6only_flag_makes_it_likely_only() -> None:
    found = only(snapshot(tried(IN_USE), rows=(row("::"),)))
    assert (found.code, found.confidence) == ("in-use/overlapping-address", Confidence.LIKELY)


def test_a_pair_that_some_kernels_let_side_by_side_makes_it_likely_only() -> None:
    wildcard = row("::ffff:0.0.0.0", v6only=False)
    found = only(snapshot(tried(IN_USE, address="::ffff:127.0.0.1"), rows=(wildcard,)))
    assert (found.code, found.confidence) == ("in-use/overlapping-address", Confidence.LIKELY)
    beside_the_real_one = (wildcard, row("127.0.0.1", inode=9))
    found = only(snapshot(tried(IN_USE, address="::ffff:127.0.0.1"), rows=beside_the_real_one))
    assert (found.confidence, "127.0.0.1:" in found.title) == (Confidence.PROVEN, True)


def test_a_certain_conflict_silences_the_uncertain_one() -> None:
    found = only(snapshot(tried(IN_USE), rows=(row(), row("::", inode=9))))
    assert (found.code, found.confidence) == ("in-use/listener", Confidence.PROVEN)


def test_one_socket_in_the_way_of_both_families_is_named_once_for_each_pair() -> None:
    facts = snapshot(tried(IN_USE), tried(IN_USE, address="::1"), rows=(row("::", v6only=False),))
    assert [one.title for one in findings(facts)] == [
        "python3 (pid 123) on [::]:8080 excludes 127.0.0.1:8080",
        "python3 (pid 123) on [::]:8080 excludes [::1]:8080",
    ]


def test_unknown_listeners_give_no_cause_and_are_missing() -> None:
    facts = replace(snapshot(tried(IN_USE)), listeners=Unknown(Reason.FAILED))
    assert findings(facts) == []
    assert missing(facts) == {"listeners"}


# without a listener


def connection(
    state: TcpState = TcpState.ESTABLISHED, port: int = PORT, peer: tuple[str, int] = ("127.0.0.1", 50000)
) -> SocketRow:
    return row("127.0.0.1", state, peer, port=port)


def test_time_wait_is_a_problem_where_reuse_does_not_help() -> None:
    facts = snapshot(tried(IN_USE), rows=(connection(TcpState.TIME_WAIT),))
    assert said(facts) == [("in-use/time-wait", *PROBLEM)]


def test_time_wait_is_a_warning_where_reuse_helps() -> None:
    facts = snapshot(tried(FREE, IN_USE), rows=(connection(TcpState.TIME_WAIT),))
    assert said(facts) == [("in-use/time-wait", Severity.WARNING, Confidence.PROVEN)]
    assert commands(only(facts)) == []


def test_a_bound_socket_that_does_not_listen_is_named_and_not_called_listener_or_time_wait() -> None:
    idle = row(state=TcpState.BOUND_INACTIVE)
    facts = snapshot(tried(IN_USE), bound=Known((idle,)))
    assert said(facts) == [("in-use/bound-not-listening", *PROBLEM)]
    assert commands(only(facts)) == [("kill", "123")]


def test_where_bound_sockets_cannot_be_seen_time_wait_is_likely_only() -> None:
    too_old = Unknown(Reason.KERNEL_TOO_OLD)
    facts = snapshot(tried(IN_USE), rows=(connection(TcpState.TIME_WAIT),), bound=too_old)
    assert said(facts) == [("in-use/time-wait", Severity.PROBLEM, Confidence.LIKELY)]
    assert missing(facts) == {"bound sockets"}


def test_where_bound_sockets_cannot_be_seen_and_nothing_else_is_there_no_cause_is_named() -> None:
    facts = snapshot(tried(IN_USE), bound=Unknown(Reason.KERNEL_TOO_OLD))
    assert findings(facts) == []
    assert missing(facts) == {"bound sockets"}


def test_two_kinds_of_sockets_in_the_way_are_both_likely_only() -> None:
    facts = snapshot(
        tried(IN_USE), rows=(connection(TcpState.TIME_WAIT),), bound=Known((row(state=TcpState.BOUND_INACTIVE),))
    )
    assert {(code, confidence) for code, _, confidence in said(facts)} == {
        ("in-use/time-wait", Confidence.LIKELY),
        ("in-use/bound-not-listening", Confidence.LIKELY),
    }


def test_a_client_whose_own_port_it_is_is_named() -> None:
    facts = snapshot(
        tried(IN_USE, port=40000), rows=(connection(port=40000, peer=("192.0.2.7", 443)),), port=40000, uid=ROOT
    )
    assert said(facts) == [("in-use/outbound-connection", *PROBLEM)]
    found = only(facts)
    assert found.title == "127.0.0.1:40000 is the near end of a connection to 192.0.2.7:443"
    assert commands(found)[0] == ("ss", "--kill", "--tcp", "sport", "=", ":40000", "dport", "=", ":443")
    assert ("kill", "123") in commands(found)


def test_reserving_the_port_keeps_what_is_reserved_already() -> None:
    policy = Known(
        PortPolicy(32768, 60999, ((8080, 8080), (9000, 9010)), 1024, False, False, False, False, False, True)
    )
    facts = replace(
        snapshot(tried(IN_USE, port=40000), rows=(connection(port=40000, peer=("192.0.2.7", 443)),), port=40000),
        policy=policy,
    )
    remedy = only(facts).remedies[-1]
    name = "net.ipv4.ip_local_reserved_ports"
    assert remedy.commands[0].argv == ("sysctl", "-w", f"{name}=8080,9000-9010,40000")
    assert remedy.undo[0].argv == ("sysctl", "-w", f"{name}=8080,9000-9010")


def test_a_server_in_the_ephemeral_range_is_told_from_a_client() -> None:
    served = connection(port=40000, peer=("192.0.2.7", 50000))
    assert said(snapshot(tried(IN_USE, port=40000), rows=(served,), port=40000)) == [
        ("in-use/leftover-connection", Severity.PROBLEM, Confidence.LIKELY)
    ]
    proven = replace(served, opened_here=False)
    assert said(snapshot(tried(IN_USE, port=40000), rows=(proven,), port=40000)) == [
        ("in-use/leftover-connection", *PROBLEM)
    ]


def test_a_client_of_a_local_server_in_the_ephemeral_range_is_a_client() -> None:
    rows = (connection(port=40000, peer=("127.0.0.1", 50000)), row(port=50000))
    assert [code for code, *_ in said(snapshot(tried(IN_USE, port=40000), rows=rows, port=40000))] == [
        "in-use/outbound-connection"
    ]


def test_a_client_that_bound_its_own_port_is_a_client() -> None:
    """Outside of the range that the kernel hands out, and its peer's port is in it: the kernel's own count tells."""
    ours = replace(connection(peer=("192.0.2.7", 50000)), opened_here=True)
    found = only(snapshot(tried(IN_USE), rows=(ours,)))
    assert (found.code, found.confidence) == ("in-use/outbound-connection", Confidence.PROVEN)
    assert "the kernel gives that port only to programs that ask for it" in found.explanation
    assert ("net.ipv4.ip_local_port_range = 32768 60999", "/proc/sys/net/ipv4/ip_local_port_range") in {
        (one.text, one.source) for one in found.evidence
    }
    assert not any("sysctl" in one.argv for remedy in found.remedies for one in remedy.commands)


def test_a_client_s_own_port_towards_a_server_s_port_is_a_client_though_nobody_counted() -> None:
    (found,) = said(snapshot(tried(IN_USE), rows=(connection(peer=("192.0.2.7", 443)),)))
    assert found == ("in-use/outbound-connection", Severity.PROBLEM, Confidence.LIKELY)


def test_a_connection_that_a_server_accepted_is_left_over_whatever_its_ports_are() -> None:
    accepted = replace(connection(port=40000, peer=("192.0.2.7", 443)), opened_here=False)
    (found,) = said(snapshot(tried(IN_USE, port=40000), rows=(accepted,), port=40000))
    assert found == ("in-use/leftover-connection", *PROBLEM)


def test_a_connection_without_its_listener_is_left_over() -> None:
    facts = snapshot(tried(FREE, IN_USE), rows=(connection(),))
    assert said(facts) == [("in-use/leftover-connection", Severity.WARNING, Confidence.PROVEN)]


def test_a_socket_that_is_its_own_peer_is_self_connected() -> None:
    facts = snapshot(tried(IN_USE), rows=(connection(peer=("127.0.0.1", PORT)),))
    assert said(facts) == [("in-use/self-connected", *PROBLEM)]


def test_connections_of_a_live_listener_are_not_accused_beside_it() -> None:
    facts = snapshot(tried(IN_USE), rows=(row(), connection(), connection(TcpState.TIME_WAIT)))
    assert [code for code, *_ in said(facts)] == ["in-use/listener"]


def test_connections_on_another_address_are_not_accused() -> None:
    facts = snapshot(tried(IN_USE), rows=(row("127.0.0.2", TcpState.TIME_WAIT, ("127.0.0.2", 50000)),))
    assert findings(facts) == []


def test_many_connections_are_ended_by_one_command() -> None:
    rows = tuple(connection(peer=("127.0.0.1", 50000 + i)) for i in range(20))
    found = only(snapshot(tried(IN_USE), rows=rows))
    assert commands(found)[0] == ("ss", "--kill", "--tcp", "sport", "=", ":8080")
    assert len(found.evidence) < 12


# rights and addresses


def test_a_privileged_port_is_proven_for_an_ordinary_user() -> None:
    facts = snapshot(tried(DENIED, port=80), port=80)
    found = only(facts)
    assert (found.code, found.severity, found.confidence) == ("in-use/privileged-port", *PROBLEM)
    first = found.remedies[0]
    assert first.commands[0].argv == ("sysctl", "-w", "net.ipv4.ip_unprivileged_port_start=80")
    assert first.undo[0].argv == ("sysctl", "-w", "net.ipv4.ip_unprivileged_port_start=1024")
    assert ("netdiag", "run", "--bind", "127.0.0.1:8080") in commands(found)


def test_the_usual_higher_port_is_not_offered_where_it_is_taken() -> None:
    found = only(snapshot(tried(DENIED, port=80), rows=(row(port=8080),), port=80))
    assert not any(argv[0] == "netdiag" for argv in commands(found))


def test_root_that_is_denied_may_be_denied_by_something_else() -> None:
    assert only(snapshot(tried(DENIED, port=80), port=80, uid=ROOT)).confidence is Confidence.LIKELY


@pytest.mark.parametrize("refusal", [(Outcome.DENIED, "EPERM"), (Outcome.DENIED, "EACCES")])
def test_a_denial_of_another_kind_has_no_cause_here(refusal: tuple[Outcome, str]) -> None:
    assert findings(snapshot(tried(refusal))) == []


def test_a_denial_without_the_sysctl_is_missing_it() -> None:
    facts = replace(snapshot(tried(DENIED, port=80), port=80), policy=Unknown(Reason.FAILED))
    assert findings(facts) == []
    assert missing(facts) == {"port sysctls"}


def test_under_sudo_it_is_said_for_whom_the_port_is_free() -> None:
    facts = snapshot(tried(FREE, port=80), port=80, uid=ROOT)
    assert findings(facts) == []
    found = only(replace(facts, vantage=replace(facts.vantage, sudo_user="bob")))
    assert (found.code, found.severity) == ("in-use/privileged-port", Severity.INFO)
    assert found.title == "Port 80 is free for root; bob would be denied"


def test_an_address_of_no_interface_is_not_local() -> None:
    found = only(snapshot(tried(UNAVAILABLE, address="192.0.2.1")))
    assert (found.code, found.severity, found.confidence) == ("in-use/address-not-local", *PROBLEM)
    assert commands(found) == [
        ("netdiag", "run", "--bind", "127.0.0.1:8080"),
        ("sysctl", "-w", "net.ipv4.ip_nonlocal_bind=1"),
    ]


def test_no_address_is_offered_that_is_taken_itself() -> None:
    found = only(snapshot(tried(UNAVAILABLE, address="192.0.2.1"), rows=(row("0.0.0.0"),)))
    assert commands(found) == [("sysctl", "-w", "net.ipv4.ip_nonlocal_bind=1")]


def test_an_address_that_is_here_has_another_trouble() -> None:
    assert findings(snapshot(tried(UNAVAILABLE, address="::1"))) == []


# looking only, and the connect side


def test_looking_only_still_sees_a_listener_in_the_way() -> None:
    facts = snapshot(rows=(row(),))
    dialled = Attempt(
        address="127.0.0.1", port=PORT, family="ipv4", outcome=Outcome.CONNECTED, ms=0.1
    )  # stands for the address only
    assert [code for code, *_ in said(replace(facts, attempts=(dialled,)))] == ["in-use/listener"]


def connecting(*rows: SocketRow, address: str = "127.0.0.1") -> Snapshot:
    attempt = Attempt(address=address, port=PORT, family=family_of(address), outcome=Outcome.CONNECTED, ms=0.1)
    return replace(snapshot(rows=rows), intent=Intent.CONNECT, attempts=(attempt,))


def test_for_a_connect_the_holder_is_information() -> None:
    assert said(connecting(row())) == [("in-use/listener", Severity.INFO, Confidence.PROVEN)]
    assert only(connecting(row())).remedies == ()


def test_for_a_connect_only_the_listener_that_it_reaches_is_named() -> None:
    found = findings(connecting(row("0.0.0.0"), row("127.0.0.2", inode=8), row(port=PORT + 1, inode=9)))
    assert [one.title for one in found] == ["python3 (pid 123) listens on 0.0.0.0:8080"]


def test_for_a_connect_unknown_listeners_are_missing() -> None:
    facts = replace(connecting(), listeners=Unknown(Reason.FAILED))
    assert missing(facts) == {"listeners"}


# a listener that is gone a moment later


def gone(facts: Snapshot, *now: SocketRow, holders: Fact[Holders] = Known(Holders((), 0))) -> Snapshot:  # noqa: B008
    """The same, looked at again after 120 ms, when these listened."""
    return replace(facts, later=Known(Later(120.0, now, holders)))


@pytest.mark.parametrize("unreadable", [0, 3])
def test_a_listener_that_ended_while_it_was_looked_at_is_neither_hidden_nor_the_kernel_s(unreadable: int) -> None:
    facts = gone(replace(connecting(row()), holders=held_by(unreadable=unreadable)))
    found = only(facts)
    assert found.title == "A program listened on 127.0.0.1:8080 until a moment ago"
    assert "has ended, or has closed its socket" in found.explanation
    assert missing(facts) == set()
    told = " ".join((found.title, found.explanation, *(one.text for one in found.evidence)))
    assert not any(word in told for word in ("hidden", "no process", "The kernel", "sudo"))
    assert ("120 ms after the attempt this socket is gone", "sock_diag") in {
        (one.text, one.source) for one in found.evidence
    }


def test_the_known_holder_of_a_listener_that_is_gone_is_named_in_the_past() -> None:
    found = only(gone(connecting(row())))
    assert found.title == "python3 (pid 123) listened on 127.0.0.1:8080 until a moment ago"
    assert any(one.text.startswith("was held by python3 (pid 123") for one in found.evidence)


def test_the_new_listener_in_the_place_of_one_that_is_gone_is_named() -> None:
    new = replace(PYTHON, pid=124)
    facts = replace(connecting(row()), holders=held_by(unreadable=3))
    named = only(gone(facts, row(inode=8), holders=held_by(new, inode=8)))
    assert named.explanation.endswith("Now python3 (pid 124) listens there.")
    assert only(gone(facts, row(inode=8))).explanation.endswith("Now another socket listens there.")
    whole = diagnose(gone(facts, row(inode=8), holders=held_by(new, inode=8)), CHECKS)
    assert not [one for one in whole.checks if one.outcome is CheckOutcome.CRASHED]


def test_a_hidden_owner_whose_listener_is_still_there_stays_hidden() -> None:
    facts = gone(replace(connecting(row()), holders=held_by(unreadable=3)), row())
    assert only(facts).title.startswith("A hidden process")
    assert missing(facts) == {"socket owners"}


def test_of_two_sockets_on_the_port_only_the_one_that_is_still_there_has_a_hidden_owner() -> None:
    facts = gone(connecting(row(inode=7), row(inode=8)), row(inode=7))
    assert missing(replace(facts, holders=held_by(PYTHON, unreadable=3))) == set()
    assert missing(replace(facts, holders=held_by(PYTHON, inode=8, unreadable=3))) == {"socket owners"}


def test_several_holders_listen_and_one_listens() -> None:
    other = replace(PYTHON, pid=200, program="sleep", parent=1)
    facts = replace(snapshot(tried(IN_USE), rows=(row(),)), holders=held_by(PYTHON, other))
    assert only(facts).title == "python3 (pid 123) and 1 more listen on 127.0.0.1:8080"
    assert only(replace(facts, intent=Intent.CONNECT, attempts=connecting().attempts)).title == only(facts).title
    wide = replace(snapshot(tried(IN_USE), rows=(row("0.0.0.0"),)), holders=held_by(PYTHON, other))
    assert only(wide).title == "python3 (pid 123) and 1 more on 0.0.0.0:8080 exclude 127.0.0.1:8080"


# how to stop a process


def test_a_process_of_another_user_needs_root_to_stop() -> None:
    assert [c.needs_root for r in stop_remedies(PYTHON, BOB) for c in r.commands] == [False]
    assert [c.needs_root for r in stop_remedies(PYTHON, 33) for c in r.commands] == [True]


def test_a_kill_says_that_it_cannot_be_undone() -> None:
    (remedy,) = stop_remedies(PYTHON, BOB)
    assert remedy.commands[0].argv == ("kill", "123")
    assert (remedy.risk, remedy.undo) == (Risk.DISRUPTIVE, ())
    assert "cannot be undone" in remedy.summary


def main_of(unit: str, owner: int | None = None) -> Known[Units]:
    """What systemd says where the process is the unit's main one."""
    return Known(Units((), (Lodger(PYTHON.pid, unit, owner, PYTHON.pid),)))


def test_a_unit_is_stopped_by_systemctl_first() -> None:
    first, second = stop_remedies(replace(PYTHON, unit="web.service"), BOB, units=main_of("web.service"))
    assert (first.commands[0].argv, first.commands[0].needs_root) == (("systemctl", "stop", "web.service"), True)
    assert first.undo[0].argv == ("systemctl", "start", "web.service")
    assert second.commands[0].argv == ("kill", "123")


def test_a_users_own_unit_is_stopped_by_that_user() -> None:
    process, units = replace(PYTHON, unit="web.service", unit_owner=BOB), main_of("web.service", BOB)
    mine, others = (stop_remedies(process, uid, units=units)[0] for uid in (BOB, ROOT))
    assert mine.commands[0].argv == ("systemctl", "--user", "stop", "web.service")
    assert not mine.commands[0].needs_root
    assert others.commands[0].argv == ("systemctl", "--machine=1000@.host", "--user", "stop", "web.service")


@pytest.mark.parametrize("unit", ["ssh.service", "getty@tty1.service", "docker.service", "--help.service"])
def test_a_service_that_only_started_it_is_never_stopped(unit: str) -> None:
    assert [r.commands[0].argv for r in stop_remedies(replace(PYTHON, unit=unit), BOB)] == [("kill", "123")]


def test_a_container_is_stopped_by_its_engine() -> None:
    process = replace(PYTHON, container=Container("docker", "ab" * 32, "web"))
    assert stop_remedies(process, BOB)[0].commands[0].argv == ("docker", "stop", "web")


@pytest.mark.parametrize("process", [replace(PYTHON, pid=1), replace(PYTHON, program="docker-proxy")])
def test_neither_pid_1_nor_an_engines_forwarder_is_killed(process: Process) -> None:
    assert all(not remedy.commands for remedy in stop_remedies(process, ROOT))


def test_a_process_is_one_line() -> None:
    assert (
        describe_process(PYTHON)
        == "python3 (pid 123, user bob, since 2026-11-23 10:02:11 UTC): python3 -m http.server 8080"
    )


def test_every_title_fits() -> None:
    long = replace(PYTHON, program="a-program-name-", pid=4194304)
    address = "2001:db8:1111:2222:3333:4444:5555:6666"
    facts = replace(
        snapshot(tried(IN_USE, address=address, port=65535), rows=(row("::", port=65535, v6only=True),), port=65535),
        holders=held_by(long),
    )
    assert len(only(facts).title) <= 80
