"""Units of systemd: what the manager says, what is made of it, and what may be done by it."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from checks import CHECKS, hung
from checks.refused import CHECK as REFUSED
from diagnose.analysis.activation import activation, is_activating
from diagnose.analysis.describe import restart_remedies, stop_remedies
from diagnose.engine import diagnose
from diagnose.model.attempt import Attempt, Outcome
from diagnose.model.fact import NOT_NEEDED, Fact, Known
from diagnose.model.finding import Confidence, Finding, Severity
from diagnose.model.network import Endpoint
from diagnose.model.process import Process
from diagnose.model.report import Report, Verdict
from diagnose.model.unit import Ancestor, Lodger, Tie, Unit, Units, stream_address
from diagnose.parse.dbus import BadMessageError, Reader, Reply, call
from diagnose.parse.unit import (
    PROPERTIES,
    described,
    instance_port,
    label,
    listens,
    mentions,
    port_in_command,
    port_in_environment,
    port_in_file,
    unit_of_file,
)
from tests.scenes import ALICE, dialled, ended, held, listening, not_accepted, process, refused, rows, taken, wanted

ANSWERS = Path(__file__).with_name("answers")
HERE = "127.0.0.1:8080"
YESTERDAY, TOMORROW = "2000-01-01T10:00:00Z", "2100-01-01T10:00:00Z"
STRANGER = process(pid=77)
SYSTEMD = Process(1, "systemd", "/sbin/init", 0, "root", "S", "2026-11-23T10:00:00Z")


# what came over D-Bus


def replies(version: str) -> list[Reply]:
    """The stream of one conversation with that systemd, as it was received."""
    return list(Reader().feed(base64.b64decode((ANSWERS / f"systemd-{version}.b64").read_bytes())))


@pytest.mark.parametrize(
    ("version", "failures", "ends"),
    [("252", [], ("success", "", 0, "simple")), ("257", ["denied.service"], ("exit-code", "exited", 1, "simple"))],
)
def test_the_recorded_answers_of_systemd_are_read(version: str, failures: list[str], ends: tuple[Any, ...]) -> None:
    """The unit has SocketBindDeny=any, which the systemd of the first recording could not enforce where it ran."""
    listed, failed, by_name, sockets, no_socket, *properties = replies(version)
    assert [one[0] for one in listed.values[0]] == ["denied.service"]
    assert [name for name in failures if name not in {one[0] for one in failed.values[0]}] == []
    assert {one[0]: one[2] for one in by_name.values[0]}["nope.service"] == "not-found"
    assert sockets.values == ((("Stream", "[::]:62907"),),)
    assert no_socket.error is not None
    asked = [name for _, name in PROPERTIES["service"]]
    said: dict[str, Any] = {name: one.values[0] for name, one in zip(asked, properties, strict=False) if not one.error}
    unit = described(Unit(name="denied.service", tie=Tie.COMMAND), said, 62903, (2,))
    assert (unit.result, unit.exited, unit.status, unit.kind) == ends
    assert (unit.bind_denied, unit.families_denied, bool(unit.main)) == (True, False, not failures)
    assert unit.since is not None
    assert unit.since.startswith("20")


@pytest.mark.parametrize("size", [1, 7, 4096])
def test_a_stream_that_comes_in_pieces_is_read_alike(size: int) -> None:
    data = base64.b64decode((ANSWERS / "systemd-257.b64").read_bytes())
    reader = Reader()
    pieces = [data[at : at + size] for at in range(0, min(len(data), 20000), size)]
    found = [one for piece in pieces for one in reader.feed(piece)]
    assert found == replies("257")[: len(found)]
    assert found


@pytest.mark.parametrize("at", range(0, 400, 7))
def test_a_damaged_stream_is_refused_or_read_but_never_crashes(at: int) -> None:
    data = bytearray(base64.b64decode((ANSWERS / "systemd-257.b64").read_bytes())[:4000])
    data[at] ^= 0xFF
    try:
        list(Reader().feed(bytes(data)))
    except BadMessageError:
        return


def test_a_call_has_its_arguments_where_the_protocol_puts_them() -> None:
    message = call(3, ("/a", "b.c", "D"), ("x", ("y", "z")), "e.f")
    assert message[:4] == b"l\x01\x00\x01"
    assert int.from_bytes(message[8:12], "little") == 3
    assert message.endswith(b"x\x00\x00\x00\x0e\x00\x00\x00\x01\x00\x00\x00y\x00\x00\x00\x01\x00\x00\x00z\x00")
    assert b"sas" in message


# what a unit says of a port


@pytest.mark.parametrize(
    ("name", "path"),
    [("web.service", "web_2eservice"), ("9p.socket", "_39p_2esocket"), ("a-b@8080.service", "a_2db_408080_2eservice")],
)
def test_a_unit_has_its_place_on_the_bus(name: str, path: str) -> None:
    assert label(name) == path


@pytest.mark.parametrize(
    ("where", "address"),
    [
        ("8080", ("", 8080)),
        ("127.0.0.1:8080", ("127.0.0.1", 8080)),
        ("[::1]:8080", ("::1", 8080)),
        ("[::]:8080%lo", ("::", 8080)),
        ("*:8080", ("", 8080)),
        ("/run/x.sock", None),
        ("vsock:2:8080", None),
    ],
)
def test_the_address_of_a_socket_unit_is_read(where: str, address: tuple[str, int] | None) -> None:
    assert stream_address(where) == address


def test_only_streams_listen() -> None:
    assert listens((("Datagram", "8080"), ("Stream", "8080")), 8080)
    assert not listens((("Datagram", "8080"), ("Stream", "18080")), 8080)


@pytest.mark.parametrize(
    "argv",
    [
        ["/usr/bin/python3", "-m", "http.server", "8080"],
        ["/srv/app", "--port=8080"],
        ["/srv/app", "-p", "8080"],
        ["/srv/app", "-p8080"],
        ["/srv/app", "--listen", "0.0.0.0:8080"],
        ["/srv/app", "--bind", "[::1]:8080"],
        ["/srv/app", "--http", "tcp://127.0.0.1:8080"],
        ["/bin/sh", "-c", "exec app --port 8080"],
        ["/usr/bin/python3", "-c", "s.bind(('127.0.0.1', 8080))"],
        ["/usr/sbin/mysqld", "--datadir", "/var/lib/mysql", "--port", "8080"],
        ["/usr/bin/nc", "-lk", "8080"],
        ["/usr/bin/redis-server", "/etc/redis/8080.conf"],
    ],
)
def test_a_command_that_has_the_port_as_its_own(argv: list[str]) -> None:
    assert port_in_command(argv, 8080)


@pytest.mark.parametrize(
    "argv",
    [
        ["/srv/app", "--port=18080"],
        ["/srv/app", "--port=80801"],
        ["/srv/app", "--upstream", "127.0.0.1:8080"],
        ["/srv/app", "--backend=http://localhost:8080"],
        ["/srv/app", "--connect", "8080"],
        ["/srv/app", "db.example.org:8080"],
        ["/srv/app", "--version", "1.8080"],
        ["/usr/bin/java", "-Xmx8080m"],
        ["/bin/sleep", "8080s"],
        ["/opt/netdiag/bin/netdiag", "run", "127.0.0.1:8080"],
        ["/usr/bin/curl", "-fsS", "http://127.0.0.1:8080/health"],
        ["/bin/bash", "-c", "until nc -z localhost 8080; do sleep 1; done"],
        ["/bin/bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/8080"],
        ["/usr/bin/env", "A=1", "/usr/bin/wget", "-q", "127.0.0.1:8080"],
        ["/usr/bin/nc", "-z", "127.0.0.1", "8080"],
    ],
)
def test_a_command_that_has_the_port_of_another_server(argv: list[str]) -> None:
    assert not port_in_command(argv, 8080)


def test_variables_and_files_that_have_the_port() -> None:
    assert port_in_environment(["A=1", "PORT=8080"], 8080)
    assert port_in_environment(["LISTEN_ADDR=127.0.0.1:8080"], 8080)
    assert not port_in_environment(["BUILD=8080", "UPSTREAM_PORT=8080"], 8080)
    assert port_in_file("# port 1\nport 8080\n", 8080)
    assert not port_in_file("# port 8080\n; port 8080\nbackend 127.0.0.1:8080\n", 8080)


def test_unit_files_are_looked_through_quickly() -> None:
    assert mentions(b"ListenStream=8080\n", 8080)
    assert not mentions(b"ListenStream=18080\nx=80801", 8080)
    assert unit_of_file("/etc/systemd/system/web.service.d/a.conf") == "web.service"
    assert unit_of_file("/etc/systemd/system/web@.service") is None
    assert instance_port("web@8080.service", 8080)
    assert not instance_port("web@18080.service", 8080)


@pytest.mark.parametrize(
    ("rules", "allowed", "denied"),
    [
        (((0, 0, 0, 0),), (), True),
        (((0, 0, 0, 0),), ((2, 6, 1, 8080),), False),
        (((2, 6, 10, 8075),), (), True),
        (((2, 17, 0, 0),), (), False),
        (((10, 0, 0, 0),), (), False),
        (((2, 6, 10, 8081),), (), False),
    ],
)
def test_what_socketbinddeny_forbids(rules: Any, allowed: Any, denied: bool) -> None:
    said = {"SocketBindDeny": rules, "SocketBindAllow": allowed}
    assert described(Unit(name="a.service", tie=Tie.COMMAND), said, 8080, (2,)).bind_denied is denied


@pytest.mark.parametrize(
    ("said", "denied"),
    [((False, ()), False), ((True, ("AF_UNIX",)), True), ((True, ("AF_INET",)), False), ((False, ("AF_INET",)), True)],
)
def test_what_restrictaddressfamilies_forbids(said: Any, denied: bool) -> None:
    unit = described(Unit(name="a.service", tie=Tie.COMMAND), {"RestrictAddressFamilies": said}, 8080, (2,))
    assert unit.families_denied is denied


# which unit is to blame


def socket_unit(active: str = "active", result: str = "success", *, accept: bool = False) -> Unit:
    sub = {"active": "listening", "failed": "failed"}.get(active, "dead")
    return Unit(
        name="web.socket",
        tie=Tie.LISTENS,
        load="loaded",
        active=active,
        sub=sub,
        result=result,
        accept=accept,
        listens_on=("127.0.0.1:8080",),
    )


def service(active: str, sub: str, result: str = "success", **more: Any) -> Unit:
    fields = {"tie": Tie.TRIGGERED, "tied_by": "web.socket", "name": "web.service", "load": "loaded", **more}
    return Unit(active=active, sub=sub, result=result, **fields)


def units(*found: Unit, lodgers: tuple[Lodger, ...] = (), ours: str | None = None) -> Fact[Units]:
    return Known(Units(found, lodgers, ours))


def said(attempt: Attempt, seen: Fact[Units], **more: Any) -> Report:
    facts = {"listeners": rows(listening(HERE)), "holders": held((1, SYSTEMD)), **more}
    return diagnose(dialled(HERE, attempt, units=seen, **facts), CHECKS)


def every_command(report: Report) -> list[tuple[str, ...]]:
    return [command.argv for finding in report.findings for one in finding.remedies for command in one.commands]


def test_a_service_that_is_still_activating_is_no_fault() -> None:
    report = said(not_accepted(HERE), units(socket_unit(), service("activating", "start-pre", control=99)))
    assert (report.verdict, report.root_cause) == (Verdict.INCONCLUSIVE, None)
    (found,) = [one for one in report.findings if one.code == "refused/starting-up"]
    assert (found.severity, found.confidence) == (Severity.INFO, Confidence.PROVEN)
    assert "web.service" in found.title
    assert not [one for one in report.findings if one.code.startswith("hung/")]


@pytest.mark.parametrize(
    "failing",
    [
        service("failed", "failed", "exit-code", exited="exited", status=3),
        service("activating", "auto-restart", "exit-code", restarts=4),
        service("activating", "start", "success", starts=3),
    ],
)
def test_a_service_that_fails_is_blamed_by_name(failing: Unit) -> None:
    report = said(not_accepted(HERE), units(socket_unit(), failing))
    assert report.verdict is Verdict.UNREACHABLE
    assert report.root_cause is not None
    assert (report.root_cause.code, report.root_cause.confidence) == ("hung/not-accepting", Confidence.PROVEN)
    assert "web.service" in report.root_cause.title
    assert ("journalctl", "-u", "web.service", "-n", "20", "--no-pager") in every_command(report)


@pytest.mark.parametrize("seen", [NOT_NEEDED, units(socket_unit()), units(socket_unit(), service("active", "running"))])
@pytest.mark.parametrize("ends", [not_accepted(HERE), ended(HERE, Outcome.RESET)])
def test_no_remedy_touches_pid_1(seen: Fact[Units], ends: Attempt) -> None:
    report = said(ends, seen)
    text = " ".join(one.summary for finding in report.findings for one in finding.remedies)
    assert "gdb -p 1" not in text
    assert "restart the program" not in text
    assert not [argv for argv in every_command(report) if argv[0] == "kill"]


def test_a_service_that_runs_and_does_not_accept_is_restarted_and_pid_1_is_not() -> None:
    report = said(not_accepted(HERE), units(socket_unit(), service("active", "running", main=77, kind="notify")))
    assert report.root_cause is not None
    assert report.root_cause.remedies[0].commands[0].argv == ("systemctl", "restart", "web.service")
    assert "web.service" in report.root_cause.explanation


def test_a_reset_by_a_socket_unit_whose_service_fails_names_both() -> None:
    seen = units(
        socket_unit("failed", "service-start-limit-hit"),
        service("failed", "failed", "exit-code", exited="exited", status=1),
    )
    report = said(ended(HERE, Outcome.RESET), seen)
    assert report.root_cause is not None
    assert (report.root_cause.code, report.root_cause.confidence) == ("hung/closes-at-once", Confidence.PROVEN)
    words = report.root_cause.explanation
    assert "web.socket" in words
    assert "web.service" in words
    assert "service-start-limit-hit" in words
    assert [argv[:2] for argv in every_command(report)][:4] == [
        ("journalctl", "-u"),
        ("systemctl", "reset-failed"),
        ("systemctl", "reset-failed"),
        ("systemctl", "start"),
    ]


def test_an_instance_for_our_own_connection_is_the_one_that_failed() -> None:
    attempt = replace(ended(HERE, Outcome.CLOSED), source=listening("127.0.0.1:4711").local)
    ours = service("failed", "failed", "exit-code", name="web@7-127.0.0.1:8080-127.0.0.1:4711.service")
    other = service("failed", "failed", "signal", name="web@6-127.0.0.1:8080-127.0.0.1:4700.service")
    report = said(attempt, units(socket_unit(accept=True), other, ours))
    assert report.root_cause is not None
    assert "An instance of web@.service fails" in report.root_cause.title
    assert not any("4700" in one.text for one in report.root_cause.evidence)
    strangers = said(attempt, units(socket_unit(accept=True), other))
    assert strangers.root_cause is None or "fails" not in strangers.root_cause.title


IN_THE_WAY = socket_unit("failed", "resources")
"""Its port was taken by another program when it was to be started."""


@pytest.mark.parametrize("holders", [held((1, STRANGER)), held(hidden=5)])
@pytest.mark.parametrize(
    "seen",
    [
        units(IN_THE_WAY, service("inactive", "dead")),
        units(socket_unit("inactive"), service("failed", "failed", "exit-code", exited="exited", status=1)),
    ],
)
@pytest.mark.parametrize("ends", [ended(HERE, Outcome.CLOSED), not_accepted(HERE)])
def test_another_programs_listener_is_not_blamed_on_a_unit(holders: Any, seen: Fact[Units], ends: Attempt) -> None:
    root = said(ends, seen, holders=holders).root_cause
    assert root is not None
    assert "web." not in root.title + root.explanation
    assert not any("web." in one.text for one in root.evidence)


def test_a_service_that_is_activating_is_no_excuse_for_another_program() -> None:
    seen = units(socket_unit(), service("activating", "start"))
    report = said(not_accepted(HERE), seen, holders=held((1, STRANGER)))
    assert report.root_cause is not None
    assert report.root_cause.code == "hung/not-accepting"


def test_an_ipv4_wildcard_of_a_socket_unit_takes_no_ipv6() -> None:
    everywhere = replace(socket_unit(), listens_on=("0.0.0.0:8080",))
    assert activation(units(everywhere), Endpoint("127.0.0.1", 8080)) is not None
    assert activation(units(everywhere), Endpoint("::1", 8080)) is None


def test_a_limit_that_closed_the_socket_while_we_tried_is_told_by_its_time() -> None:
    broken = service("failed", "failed", "exit-code", exited="exited", status=1)
    for since, blamed in ((YESTERDAY, False), (TOMORROW, True)):
        gone = replace(socket_unit("failed", "trigger-limit-hit"), since=since)
        root = said(ended(HERE, Outcome.RESET), units(gone, broken), listeners=rows(), holders=held()).root_cause
        assert root is not None
        assert ("web.service" in root.title) is blamed


def test_a_slot_that_our_own_connection_took_is_no_limit() -> None:
    attempt = replace(ended(HERE, Outcome.CLOSED), source=listening("127.0.0.1:4711").local)
    full = replace(socket_unit(accept=True), connections=1, most_connections=1)
    ours = service("active", "running", name="web@7-127.0.0.1:8080-127.0.0.1:4711.service")
    root = said(attempt, units(full, ours)).root_cause
    assert root is not None
    assert "MaxConnections" not in root.title


def test_a_simple_service_is_ready_only_after_a_while() -> None:
    assert is_activating(service("active", "running", kind="simple"), young=True)
    assert not is_activating(service("active", "running", kind="simple"))
    assert not is_activating(service("active", "running", kind="notify"), young=True)


# nothing listens


def closed(seen: Fact[Units]) -> Report:
    return diagnose(dialled(HERE, refused(HERE), units=seen), [REFUSED])


def candidate(active: str, sub: str, result: str = "success", **more: Any) -> Unit:
    return service(active, sub, result, **{"tie": Tie.COMMAND, "tied_by": "", "name": "app.service", **more})


@pytest.mark.parametrize(
    ("unit", "words", "verbs"),
    [
        (candidate("inactive", "dead"), "is not running", ["start"]),
        (candidate("failed", "failed", "exit-code", exited="exited", status=9), "status 9", ["reset-failed", "start"]),
        (candidate("failed", "failed", "signal", exited="killed", status=31), "SIGSYS", ["reset-failed", "start"]),
        (candidate("activating", "auto-restart", "exit-code", restarts=5), "5 times", []),
        (candidate("inactive", "dead", load="masked"), "is masked", ["unmask", "start"]),
        (
            candidate("failed", "failed", bind_denied=True),
            "SocketBindDeny=",
            ["daemon-reload", "reset-failed", "restart"],
        ),
        (candidate("inactive", "dead", families_denied=True), "RestrictAddressFamilies=", ["daemon-reload", "restart"]),
    ],
)
def test_a_unit_that_may_be_the_server_is_named_with_its_state(unit: Unit, words: str, verbs: list[str]) -> None:
    report = closed(units(unit))
    root = report.root_cause
    assert root is not None
    assert (root.code, root.confidence) == ("refused/nothing-listening", Confidence.PROVEN)
    assert "app.service" not in root.title  # it is a candidate
    assert any("app.service" in one.text and words in one.text for one in root.evidence)
    assert [argv[1] for argv in every_command(report) if argv[0] == "systemctl"] == verbs


def test_a_socket_unit_that_is_down_is_named_in_the_title() -> None:
    root = closed(units(replace(socket_unit("inactive"), since=YESTERDAY))).root_cause
    assert root is not None
    assert root.title == "Nothing listens on 127.0.0.1:8080: web.socket is not running"
    assert root.remedies[0].commands[0].argv == ("systemctl", "start", "web.socket")


def test_a_socket_unit_that_nobody_starts_does_not_hide_the_service_that_failed() -> None:
    broken = candidate("failed", "failed", "exit-code", exited="exited", status=1, since=YESTERDAY)
    for since in (None, YESTERDAY):  # as a package brings it, or stopped for good
        root = closed(units(replace(socket_unit("inactive"), since=since), broken)).root_cause
        assert root is not None
        assert root.title == "Nothing listens on 127.0.0.1:8080"
        assert "should listen there" not in root.explanation
        assert root.remedies[0].commands[-1].argv == ("systemctl", "start", "app.service")


def test_a_socket_unit_that_was_never_started_only_may_be_the_servers() -> None:
    root = closed(units(socket_unit("inactive"))).root_cause
    assert root is not None
    assert "may be the server's: web.socket" in root.explanation
    assert "if that is the server" in root.remedies[0].summary


def test_a_socket_unit_that_listens_is_not_what_should_listen_where_it_does_not() -> None:
    root = closed(units(socket_unit(), service("inactive", "dead"))).root_cause
    assert root is not None
    assert "web.socket" not in root.explanation
    assert not root.remedies[0].commands


def test_a_unit_whose_execstartpre_waits_is_starting_up() -> None:
    root = closed(units(candidate("activating", "start-pre", control=12))).root_cause
    assert root is not None
    assert (root.code, root.confidence) == ("refused/starting-up", Confidence.LIKELY)


def test_of_two_candidates_none_is_starting_up() -> None:
    root = closed(
        units(candidate("activating", "start-pre"), candidate("inactive", "dead", name="b.service"))
    ).root_cause
    assert root is not None
    assert root.code == "refused/nothing-listening"


def test_a_guess_by_the_port_is_never_starting_up() -> None:
    root = closed(units(candidate("activating", "start-pre", tie=Tie.USUAL))).root_cause
    assert root is not None
    assert root.code == "refused/nothing-listening"


def test_a_unit_of_a_hostile_name_is_in_no_command() -> None:
    root = closed(units(candidate("inactive", "dead", name="a b;reboot.service"))).root_cause
    assert root is not None
    assert not [one for one in root.remedies if any("reboot" in word for c in one.commands for word in c.argv)]


# what a unit's remedy may stop

PYTHON = replace(process("python3", 500, command="python3 -m http.server 8080"), unit="web.service", parent=400)


def lodging(main: int, *ancestors: Ancestor) -> Fact[Units]:
    return units(lodgers=(Lodger(500, "web.service", None, main, ancestors),))


@pytest.mark.parametrize(
    "seen",
    [
        lodging(500),
        lodging(400, Ancestor(400, "python3", "python3 -m http.server 8080")),
    ],
)
def test_the_main_process_and_its_workers_are_stopped_by_their_unit(seen: Fact[Units]) -> None:
    assert stop_remedies(PYTHON, 0, units=seen)[0].commands[0].argv == ("systemctl", "stop", "web.service")
    assert restart_remedies(PYTHON, 0, seen)[0].commands[0].argv == ("systemctl", "restart", "web.service")


@pytest.mark.parametrize(
    "seen",
    [
        NOT_NEEDED,
        lodging(0),
        lodging(300),
        lodging(400, Ancestor(400, "runner", "runner")),
        lodging(400, Ancestor(400, "python3", "python3 runner.py")),
        lodging(300, Ancestor(400, "bash", "bash"), Ancestor(300, "python3", "python3 -m http.server 8080")),
        units(lodgers=(Lodger(500, "web.service", None, 500),), ours="web.service"),
    ],
)
def test_what_only_runs_inside_a_unit_is_killed_by_its_pid(seen: Fact[Units]) -> None:
    assert [one.commands[0].argv for one in stop_remedies(PYTHON, 0, units=seen)] == [("kill", "500")]
    assert restart_remedies(PYTHON, 0, seen) == ()


def test_a_shell_is_no_worker_of_a_shell() -> None:
    shell = replace(PYTHON, program="bash", command="bash")
    seen = lodging(400, Ancestor(400, "bash", "bash"))
    assert stop_remedies(shell, 0, units=seen)[0].commands[0].argv == ("kill", "500")


def test_a_transient_unit_that_is_stopped_cannot_be_started_again() -> None:
    seen = units(lodgers=(Lodger(500, "web.service", None, 500, (), transient=True),))
    assert stop_remedies(PYTHON, 0, units=seen)[0].undo == ()


def test_a_port_that_pid_1_holds_is_freed_by_its_socket_unit() -> None:
    snapshot = wanted(
        HERE,
        taken(HERE),
        listeners=rows(listening(HERE)),
        holders=held((1, SYSTEMD)),
        units=units(socket_unit(), service("active", "running", main=7)),
    )
    commands = every_command(diagnose(snapshot, CHECKS))
    assert commands[:2] == [("systemctl", "stop", "web.socket"), ("systemctl", "stop", "web.service")]


def test_a_socket_unit_of_another_address_is_not_stopped() -> None:
    other = replace(socket_unit(), name="other.socket", listens_on=("127.0.0.9:8080",))
    theirs = service("active", "running", name="other.service", tied_by="other.socket")
    report = diagnose(
        wanted(
            HERE,
            taken(HERE),
            listeners=rows(listening(HERE)),
            holders=held((1, SYSTEMD)),
            units=units(socket_unit(), other, theirs),
        ),
        CHECKS,
    )
    assert every_command(report)[0] == ("systemctl", "stop", "web.socket")
    assert not any("other." in word for argv in every_command(report) for word in argv)


def test_a_user_s_own_manager_is_asked_by_that_user() -> None:
    seen = units(replace(candidate("inactive", "dead"), owner=1000))
    mine = diagnose(dialled(HERE, refused(HERE), units=seen, seen_by=ALICE), [REFUSED]).root_cause
    assert mine is not None
    assert mine.remedies[0].commands[0].argv == ("systemctl", "--user", "start", "app.service")


def test_hung_names_no_unit_where_none_is_known() -> None:
    found = list(hung.CHECK.judge(dialled(HERE, not_accepted(HERE), listeners=rows(listening(HERE)))))
    assert not any("systemd" in one.explanation for one in found if isinstance(one, Finding))
