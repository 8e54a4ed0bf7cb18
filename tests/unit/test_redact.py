"""Redaction: nothing that identifies leaves the machine, and nothing that a verdict rests on is lost."""

from __future__ import annotations

import io
import runpy
import zipfile
from pathlib import Path

import pytest
from msgspec.structs import replace

from checks import CHECKS
from diagnose.bundle.writing import pack
from diagnose.engine import diagnose
from diagnose.model.fact import Known, Reason, Unknown
from diagnose.model.report import Report
from diagnose.model.snapshot import Snapshot
from diagnose.parse.foreign import LIFTS
from diagnose.recording import decode, decode_foreign, encode
from diagnose.redact.addresses import Addresses
from diagnose.redact.kinds import KINDS, Group, Kind
from diagnose.redact.snapshots import redact, texts_of, undeclared
from diagnose.redact.texts import Texts
from diagnose.redact.tokens import Tokens
from tests.canaries import CANARIES, machine
from tests.scenes import connected, dialled, held, listening, process, refused, rows, rule, shadow, unanswered, walk_to

ROOT = Path(__file__).parents[2]
RECORDED = sorted(path.parent for path in (ROOT / "fixtures" / "machines").glob("*/snapshot.json"))
HERE = "127.0.0.1:8080"


def said(report: Report) -> object:
    """What a verdict is: redaction may not change any of it."""
    found = [(one.code, one.severity, one.confidence) for one in report.findings]
    commands = [[(len(r.commands), len(r.undo), len(r.edits)) for r in one.remedies] for one in report.findings]
    cause = report.root_cause and report.root_cause.code
    return report.verdict, cause, found, commands, [(one.name, one.outcome) for one in report.checks]


def texts(*keep: Group) -> Texts:
    """Of a machine on which nothing was met yet."""
    return Texts(Tokens(keep, (), Addresses()))


# ------ declarations


def test_every_text_of_a_snapshot_is_declared_with_its_kind() -> None:
    assert undeclared() == (), "declare the new field in diagnose/redact/kinds.py"


def test_no_field_is_declared_that_is_none() -> None:
    gone = [f"{cls.__name__}.{name}" for cls, rows in KINDS.items() for name in rows if not hasattr(cls, name)]
    assert gone == []


def test_the_vocabulary_has_the_words_that_netdiag_writes() -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "vocabulary"))
    missing = set(script["words"]()) - set(script["FILE"].read_text().split())
    assert not missing, f"run scripts/vocabulary: {sorted(missing)[:10]}"


@pytest.mark.parametrize("lift", sorted(LIFTS))
def test_what_netdiag_advises_stays(lift: str) -> None:
    assert texts().prose(lift) == lift


# ------ verdicts


@pytest.mark.parametrize("recorded", RECORDED, ids=lambda path: path.name)
def test_a_redacted_machine_has_the_same_verdict_and_is_redacted_once(recorded: Path) -> None:
    """Codes, order, confidence, remedies; and redacted again it stays as it is."""
    data = (recorded / "snapshot.json").read_bytes()
    redacted = redact(decode(data))
    assert redact(redacted.snapshots).snapshots == redacted.snapshots
    before = [said(diagnose(one, CHECKS)) for one in decode_foreign(data)]
    after = [said(diagnose(one, CHECKS)) for one in decode_foreign(encode(redacted.snapshots))]
    assert before == after


def test_the_name_of_the_machine_is_in_no_recorded_machine_when_it_is_redacted() -> None:
    """The lab's machine is called vm, its user's interpreter stands below /root/.pyenv."""
    for recorded in RECORDED:
        (snapshot, *_) = redact(decode((recorded / "snapshot.json").read_bytes())).snapshots
        assert snapshot.vantage.hostname in ("host-1", "host-2", "host-3")


# ------ canaries


@pytest.fixture(scope="module")
def bundled() -> zipfile.ZipFile:
    return zipfile.ZipFile(io.BytesIO(pack([machine()]).data))


@pytest.mark.parametrize("canary", CANARIES.values(), ids=CANARIES)
def test_a_name_that_identifies_is_in_no_file_of_a_bundle(bundled: zipfile.ZipFile, canary: str) -> None:
    assert canary in encode([machine()]).decode().replace('\\"', '"'), "it was not planted"
    assert [name for name in bundled.namelist() if canary.lower().encode() in bundled.read(name).lower()] == []
    assert canary.encode() not in b"".join(bundled.read(name) for name in bundled.namelist())
    assert all(not info.comment and not info.extra for info in bundled.infolist())
    assert bundled.comment == b""


def test_the_machine_with_all_canaries_has_the_same_verdict() -> None:
    assert pack([machine()]).faithful


@pytest.mark.parametrize("name", ["web", "server", "drop", "tcp", "alice", "the", "input", "postgres", "host-7"])
def test_names_that_are_words_of_netdiag_change_no_verdict(name: str) -> None:
    """A person may be called after a word of the rules, and a container after anything."""
    canaries = dict.fromkeys(CANARIES, "")
    named = ("a user", "a container", "a Compose service", "a chain", "a table", "a program of their own")
    snapshot = machine(CANARIES | {key: name for key in named if key in canaries})
    packed = pack([snapshot])
    assert packed.faithful
    assert redact(redact([snapshot]).snapshots).mapping == {}


def test_texts_of_the_kernel_and_of_netdiag_stay() -> None:
    """Every recorded machine keeps its rules, and what the probes say."""
    kept = ("policy drop", "-o lo -j ACCEPT", "-j ufw-before-input", "tcp dport 31713 drop", "from all", "nft_do_chain")
    found = {text for path in RECORDED for one in decode((path / "snapshot.json").read_bytes()) for text in _all(one)}
    assert set(kept) <= found


def _all(snapshot: Snapshot) -> tuple[str, ...]:
    return tuple(text for one in redact([snapshot]).snapshots for _, text in texts_of(one))


# ------ the same thing, the same token


def test_a_container_has_one_token_in_fields_and_in_prose() -> None:
    name = CANARIES["a container"]
    redacted = redact([machine()])
    (snapshot,) = redacted.snapshots
    token = next(token for token, found in redacted.mapping.items() if found == name)
    assert snapshot.vantage.container is not None
    assert snapshot.vantage.container.name == token == "container-1"
    assert snapshot.vantage.origin == f"container:{token}"
    assert snapshot.vantage.side is not None
    assert snapshot.vantage.side.name == f"container {token}"
    error = snapshot.containers.value.engines[0].containers.value[0].error  # type: ignore[union-attr]
    assert error.startswith(f"driver failed on {token}: ")


def test_two_targets_of_one_bundle_share_their_tokens() -> None:
    first = dialled(HERE, refused(HERE), holders=held((1, process("dovecotte"))))
    second = dialled(HERE, connected(HERE), holders=held((1, process("dovecotte"))))
    programs = [one.holders.value.found[0].process.program for one in redact([first, second]).snapshots]  # type: ignore[union-attr]
    assert programs == ["program-1", "program-1"]


def test_the_mapping_gives_every_token_back() -> None:
    redacted = redact([machine()])
    assert redacted.mapping["host-1"] == CANARIES["the host asked for"]
    assert len(set(redacted.mapping.values())) >= 40


def test_a_token_that_the_machine_has_already_is_given_to_nothing_else() -> None:
    snapshot = replace(dialled(HERE, refused(HERE)), later=Unknown(Reason.FAILED, "host-1 and host-2 are silent"))
    (redacted,) = redact([snapshot]).snapshots
    assert redacted.vantage.hostname == "host-3"


# ------ kinds


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (Kind.HOST, "localhost"),
        (Kind.HOST, "ip6-localhost"),
        (Kind.HOST, "host.docker.internal"),
        (Kind.HOST, "127.1"),
        (Kind.HOST, "2130706433"),
        (Kind.HOST, "127.0.0.256"),
        (Kind.USER, "root"),
        (Kind.USER, "1000"),
        (Kind.PATH, "/usr/sbin/nginx"),
        (Kind.PATH, "/usr/lib/postgresql/15/bin/postgres"),
        (Kind.PATH, "unix:///run/docker.sock"),
        (Kind.PATH, "/etc/hosts"),
        (Kind.PATH, r"C:\Windows\System32\drivers\etc\hosts"),
        (Kind.PATH, "/proc/4711/ns/net"),
        (Kind.PATH, "/sys/fs/cgroup/system.slice/nginx.service"),
        (Kind.PROGRAM, "docker-proxy"),
        (Kind.PROGRAM, "python3.11"),
        (Kind.PROGRAM, "sd_fw_egress"),
        (Kind.UNIT, "docker.service"),
        (Kind.UNIT, "user@1000.service"),
        (Kind.UNIT, "session-3.scope"),
        (Kind.IMAGE, "postgres:16"),
        (Kind.IMAGE, "docker.io/library/redis"),
        (Kind.INTERFACE, "lo"),
        (Kind.INTERFACE, "enp0s31f6"),
        (Kind.INTERFACE, "docker0"),
        (Kind.INTERFACE, "veth3c97d77"),
        (Kind.RULE_NAME, "filter"),
        (Kind.RULE_NAME, "ufw-before-input"),
        (Kind.RULE_NAME, "DOCKER-USER"),
        (Kind.RULE_NAME, "filter_IN_public_deny"),
        (Kind.RULE, "tcp dport 8080 ct state new limit rate over 1/hour burst 1 packets drop"),
        (Kind.RULE, "-p tcp -m tcp --dport 80 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"),
        (Kind.RULE, "ip saddr 10.0.0.0/8 ip daddr 127.0.0.1 tcp dport { 80, 443 } reject with tcp reset"),
        (Kind.RULE, "from all to 127.0.0.0/8"),
        (Kind.RULE, 'drop comment "***"'),
        (Kind.COMMAND, "nginx: master process /usr/sbin/nginx -g *** -c /etc/nginx/nginx.conf"),
        (Kind.COMMAND, "python3 -m http.server --bind 127.0.0.1 8080"),
        (Kind.COMMAND, "postgres -D /var/lib/postgresql/data -p 5432 --password=***"),
        (Kind.KERNEL, "6.1.0-18-amd64"),
        (Kind.KERNEL, "5.15.153.1-microsoft-standard-WSL2"),
        (Kind.PROSE, "the rule sets cannot be read: Operation not permitted"),
        (Kind.PROSE, "precedence ::ffff:0:0/96 100"),
        (Kind.PROSE, "docker-proxy (pid 2594)"),
        (Kind.PROSE, "[::1]:5432 from the network"),
        (Kind.TARGET, "127.0.0.1:8080"),
        (Kind.TARGET, "[::1]:80"),
        (Kind.TARGET, ":8080"),
        (Kind.TARGET, "http://localhost:8080"),
        (Kind.ORIGIN, "pid:4711"),
        (Kind.ORIGIN, "host"),
        (Kind.CODE, "ECONNREFUSED"),
    ],
)
def test_what_identifies_nobody_stays(kind: Kind, text: str) -> None:
    assert texts().redacted(kind, text) == text


@pytest.mark.parametrize(
    ("kind", "text", "shown"),
    [
        (Kind.HOST, "db.acme.com", "host-1"),
        (Kind.HOST, "shop.localhost", "host-1.localhost"),
        (Kind.HOST, "printer.local", "host-1.local"),
        (Kind.HOST, "1572395042", str(int.from_bytes(bytes([198, 18, 1, 1])))),
        (Kind.HOST, "93.184.216.999", "198.18.1.999"),
        (Kind.USER, "alice", "user-1"),
        (Kind.PATH, "/home/alice/shop/server.js", "/home/user-1/path-1/server.js"),
        (Kind.PATH, "/Users/alice/acme", "/Users/user-1/path-1"),
        (Kind.PATH, r"C:\Users\Alice Smith\app.exe", r"C:\Users\user-1\app.exe"),
        (Kind.PATH, "/run/user/1000/podman/podman.sock", "/run/user/1000/podman/podman.sock"),
        (Kind.UNIT, "acme-api.service", "unit-1.service"),
        (Kind.UNIT, "postgresql@acme.service", "postgresql@unit-1.service"),
        (Kind.IMAGE, "registry.acme.io:5000/team/postgres:16", "image-1:5000/image-2/postgres:16"),
        (Kind.INTERFACE, "wg-acme", "interface-1"),
        (Kind.INTERFACE, "wg-acme+", "interface-1+"),
        (Kind.INTERFACE, "enx3c22fb9a81d7", "interface-1"),
        (Kind.RULE_NAME, "f2b-acme", "f2b-name-1"),
        (Kind.RULE_NAME, "filter_IN_acme_deny", "filter_IN_name-1_deny"),
        (Kind.VARIABLE, "ACME_DB_HOST", "VARIABLE1_DB_HOST"),
        (Kind.TARGET, "https://api.acme.com/v1/orders?key=1", "https://host-1/v1/path-1?***"),
        (Kind.TARGET, "mysql://bob:***@10.0.0.7/shopdb", "mysql://user-1:***@10.0.0.7/database-1"),
        (Kind.TARGET, "compose:checkout:80", "compose:service-1:80"),
        (Kind.ORIGIN, "container:web", "container:container-1"),
        (Kind.ORIGIN, "netns:blue", "netns:namespace-1"),
        (Kind.KERNEL, "5.10.0-acme-rt", "5.10.0-***-rt"),
        (Kind.COMMAND, "node server.js --acme-mode=fast", "node server.js --word-1=word-2"),
        (Kind.PROSE, "ask bob@acme.com", "ask user-1@host-1"),
        (Kind.PROSE, "see /opt/acme/widgets.conf:12", "see /opt/path-1/path-2.conf:12"),
        (Kind.PROSE, "ether 3c:22:fb:9a:81:d7", "ether 02:00:00:00:00:01"),
        (Kind.RULE, 'log prefix "acme " drop', 'log prefix "comment-1" drop'),
        (
            Kind.RULE,
            "ip saddr { 1.2.3.4, 1.2.3.5, 9.9.9.0/24 } drop",
            "ip saddr { 198.18.1.1, 198.18.1.2, 198.18.2.0/24 } drop",
        ),
    ],
)
def test_what_identifies_is_replaced_and_its_structure_stays(kind: Kind, text: str, shown: str) -> None:
    once = texts()
    assert once.redacted(kind, text) == shown
    assert once.redacted(kind, shown) == shown


# ------ addresses


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "0.0.0.0", "10.1.2.3", "172.31.0.1", "192.168.1.1", "169.254.1.1", "100.64.0.1", "224.0.0.1"),
        *("255.255.255.255", "192.0.2.1", "198.51.100.1", "203.0.113.1", "::1", "::", "fe80::1", "fd00::1", "ff02::1"),
        *("2001:db8::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1"),
    ],
)
def test_an_address_that_is_no_machines_own_in_the_world_stays(address: str) -> None:
    assert Addresses().address(address) == address


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("8.8.8.8", "198.18.1.1"),
        ("::ffff:8.8.8.8", "::ffff:198.18.1.1"),
        ("2a00:1450:4001::8", "2001:db8:0:1::1"),
        ("64:ff9b::808:808", "2001:db8:0:1::1"),
        ("fe80::3e22:fbff:fe9a:81d8", "fe80::ff:fe00:1"),
        ("fd12:3456::3e22:fbff:fe9a:81d8", "fd12:3456::ff:fe00:1"),
        ("::8.8.8.8", "2001:db8:0:1::1"),
    ],
)
def test_a_public_address_becomes_one_that_nobody_has(address: str, shown: str) -> None:
    addresses = Addresses()
    assert addresses.address(address) == shown
    assert addresses.address(shown) == shown


def test_neighbours_stay_neighbours() -> None:
    addresses = Addresses()
    found = [addresses.address(one) for one in ("8.8.8.8", "8.8.4.4", "8.8.8.9", "8.8.8.0", "8.8.8.255")]
    assert found == ["198.18.1.1", "198.18.2.1", "198.18.1.2", "198.18.1.0", "198.18.1.255"]


def test_an_address_of_the_machine_is_not_given_to_another() -> None:
    assert Addresses(["198.18.1.7"]).address("8.8.8.8") == "198.18.2.1"


def test_so_many_networks_that_they_do_not_fit_are_still_apart() -> None:
    addresses = Addresses()
    found = {addresses.address(f"8.{n >> 8}.{n & 255}.1") for n in range(3000)}
    assert len(found) == 3000


# ------ what the sender wants


@pytest.mark.parametrize(
    ("group", "stays"),
    [
        (Group.USERS, "a user"),
        (Group.HOSTS, "the host asked for"),
        (Group.ADDRESSES, "a public IPv4 address"),
        (Group.CONTAINERS, "a container"),
        (Group.COMMANDS, "a program of their own"),
        (Group.PATHS, "a project directory"),
    ],
)
def test_a_kind_that_is_kept_stays_and_no_other(group: Group, stays: str) -> None:
    packed = pack([machine()], keep=[group])
    recorded = zipfile.ZipFile(io.BytesIO(packed.data)).read("snapshot.json").decode()
    assert CANARIES[stays] in recorded
    gone = ["a user", "the name of the machine", "a public IPv6 address", "a container network", "a comment of a rule"]
    assert [one for one in gone if CANARIES[one] in recorded and not _belongs(one, group)] == []
    assert packed.faithful


def _belongs(canary: str, group: Group) -> bool:
    of = {
        "a user": (Group.USERS,),
        "the name of the machine": (Group.HOSTS,),
        "a public IPv6 address": (Group.ADDRESSES,),
        "a container network": (Group.CONTAINERS,),
    }
    return group in of.get(canary, ())


def test_what_the_senders_pattern_matched_is_replaced_everywhere() -> None:
    snapshot = dialled("10.1.2.3:80", unanswered("10.1.2.3:80"), firewall=shadow(walk_to("10.1.2.3", rule())))
    redacted = redact([snapshot], also=["10.1.2.3"])
    assert b"10.1.2.3" not in encode(redacted.snapshots)
    assert redacted.snapshots[0].attempts[0].address == "198.18.1.1"


def test_a_large_machine_is_redacted_in_time() -> None:
    many = [process(f"worker{n}", pid=n, command=f"node server.js --id {n} /srv/app{n}/x") for n in range(1, 3000)]
    snapshot = dialled(
        HERE,
        connected(HERE),
        holders=held(*((one.pid, one) for one in many)),
        listeners=rows(*(listening(f"127.0.0.{n % 250}:8080", n) for n in range(3000))),
    )
    assert isinstance(redact([snapshot]).snapshots[0].holders, Known)
