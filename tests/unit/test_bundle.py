"""Bundles: what is in one, what is read of one, and what no file can make netdiag do."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
from typer.testing import CliRunner

from diagnose.bundle.loading import load, loads, opened
from diagnose.bundle.manifest import LARGEST_SNAPSHOT, Manifest
from diagnose.bundle.pattern import BadPatternError, matches
from diagnose.bundle.showing import described, summarized
from diagnose.bundle.writing import UnbundledError, pack
from diagnose.cli import app
from diagnose.model.snapshot import Snapshot
from diagnose.recording import BadRecordingError, decode, encode
from diagnose.redact.kinds import Group
from tests.scenes import connected, dialled, refused

MACHINES = Path(__file__).parents[2] / "fixtures" / "machines"
RECORDED = sorted(path.parent for path in MACHINES.glob("*/snapshot.json"))
HERE = "127.0.0.1:8080"
PLAIN = dialled(HERE, refused(HERE))
GOOD = pack([PLAIN]).data


def members(data: bytes = GOOD) -> dict[str, bytes]:
    archive = zipfile.ZipFile(io.BytesIO(data))
    return {name: archive.read(name) for name in archive.namelist()}


def zipped(parts: dict[str, bytes], change: Callable[[zipfile.ZipInfo], None] = lambda _: None) -> bytes:
    """A zip file of these members, each changed first."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in parts.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            change(info)
            archive.writestr(info, data)
    return packed.getvalue()


def with_manifest(**changes: object) -> bytes:
    parts = members()
    parts["manifest.json"] = json.dumps(json.loads(parts["manifest.json"]) | changes).encode()
    return zipped(parts)


def with_member(name: str, data: bytes, *, listed: bool = True) -> bytes:
    """The bundle with one member put in, or in the place of the one that has its name."""
    parts = members() | {name: data}
    manifest = json.loads(parts["manifest.json"])
    kept = [one for one in manifest["files"] if one["name"] != name]
    entry = {"name": name, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    manifest["files"] = [*kept, entry] if listed else kept
    parts["manifest.json"] = json.dumps(manifest).encode()
    return zipped(parts)


# ------ what is in one


def test_a_bundle_has_the_recording_its_reports_and_a_list_of_them() -> None:
    parts = members()
    manifest = json.loads(parts["manifest.json"])
    assert list(parts) == [
        *("manifest.json", "snapshot.json", "report.json", "report.txt", "report.md", "report.html"),
    ]
    assert manifest["schema"] == "netdiag.bundle/1"
    assert manifest["files"] == [
        {"name": name, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for name, data in parts.items()
        if name != "manifest.json"
    ]
    assert manifest["redacted"] == {"host": 1}
    assert manifest["created_at"] == PLAIN.started_at
    assert manifest["targets"] == [HERE]
    assert (manifest["packets"], manifest["kept"]) == (False, [])


def test_its_members_are_regular_files_of_one_person() -> None:
    infos = zipfile.ZipFile(io.BytesIO(GOOD)).infolist()
    assert {stat.filemode(info.external_attr >> 16) for info in infos} == {"-rw-------"}


def test_the_same_snapshots_make_the_same_bytes() -> None:
    assert pack([PLAIN]).data == GOOD


def test_its_reports_are_those_that_a_replay_gives() -> None:
    parts = members()
    (snapshot,) = loads(GOOD)
    assert json.loads(parts["report.json"])["root_cause"]["code"] == "refused/nothing-listening"
    assert encode([snapshot]) == parts["snapshot.json"]
    assert b"Nothing listens on 127.0.0.1:8080" in parts["report.txt"]


def test_the_page_loads_nothing_and_runs_nothing() -> None:
    hostile = dialled("<script>alert(1)</script>:80".replace("<script>alert(1)</script>", "localhost"), connected(HERE))
    page = members(pack([hostile]).data)["report.html"].decode()
    found: list[str] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            found.append(tag)
            assert not {name for name, _ in attrs} & {"src", "href", "onload", "onclick"}

    Reader().feed(page)
    assert "main" in found
    assert not set(found) & {"script", "link", "img", "iframe", "object", "embed", "base", "form"}
    assert "default-src 'none'" in page


def test_several_targets_go_into_one_bundle() -> None:
    many = pack([PLAIN, dialled("localhost:81", connected("127.0.0.1:81"))])
    assert [one.target.port for one in loads(many.data)] == [8080, 81]
    assert many.manifest.targets == (HERE, "localhost:81")


def test_packets_are_in_it_only_by_themselves_and_show_warns_of_them() -> None:
    packed = pack([PLAIN], packets=b"\xd4\xc3\xb2\xa1 packets")
    assert members(packed.data)["capture.pcap"] == b"\xd4\xc3\xb2\xa1 packets"
    shown = described(opened(packed.data))
    assert "WARNING: capture.pcap holds packets" in shown
    assert "WARNING" not in described(opened(GOOD))


def test_show_lists_every_member_with_its_size_and_what_was_replaced() -> None:
    shown = described(opened(pack([PLAIN], keep=[Group.USERS]).data))
    for name, data in members().items():
        assert name == "manifest.json" or f"{len(data)} bytes" in shown
        assert name in shown
    assert "Redacted: 1 host name" in shown
    assert "Kept as they are: users" in shown


def test_the_summary_names_the_cause_and_the_file() -> None:
    text = summarized(pack([PLAIN]), "case.netdiag.zip")
    assert "refused/nothing-listening" in text
    assert "case.netdiag.zip" in text


# ------ every recorded machine


@pytest.mark.parametrize("machine", RECORDED, ids=lambda path: path.name)
def test_a_bundle_of_a_recorded_machine_replays_to_the_same_findings(machine: Path, tmp_path: Path) -> None:
    file = tmp_path / "case.netdiag.zip"
    packed = pack(decode((machine / "snapshot.json").read_bytes()))
    file.write_bytes(packed.data)
    result = CliRunner().invoke(app, ["replay", "--json", str(file)])
    report = json.loads(result.stdout)
    cause = report["root_cause"]
    assert packed.faithful
    assert {
        "verdict": report["verdict"],
        "root_cause": cause and cause["code"],
        "confidence": cause and cause["confidence"],
        "exit_code": result.exit_code,
        "findings": [finding["code"] for finding in report["findings"]],
    } == json.loads((machine / "expected.json").read_text())
    assert members(packed.data)["report.json"].decode() == result.stdout


# ------ reading


@pytest.mark.parametrize(
    "data",
    [encode([PLAIN]), GOOD, gzip.compress(encode([PLAIN])), gzip.compress(GOOD)],
    ids=["a recording", "a bundle", "a recording.gz", "a bundle.gz"],
)
def test_a_recording_and_a_bundle_are_read_alike_packed_or_not(data: bytes, tmp_path: Path) -> None:
    file = tmp_path / "case"
    file.write_bytes(data)
    assert [(one.target.port, one.attempts[0].outcome) for one in load(file)] == [(8080, "refused")]


def test_a_bundle_that_another_program_packed_again_is_read() -> None:
    stored = zipped(members(), lambda info: setattr(info, "compress_type", zipfile.ZIP_STORED))
    assert loads(stored) == loads(GOOD)
    backwards = dict(reversed(members().items()))
    assert loads(zipped(backwards)) == loads(GOOD)


def _encrypted(data: bytes) -> bytes:
    """Every entry says that it is: the bit of APPNOTE 4.4.4 in both of its headers."""
    return data.replace(b"PK\x01\x02\x14\x03\x14\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01")


def _with_attributes(mode: int) -> bytes:
    def change(info: zipfile.ZipInfo) -> None:
        if info.filename == "report.txt":
            info.create_system = 3
            info.external_attr = mode << 16

    return zipped(members(), change)


def _duplicate() -> bytes:
    twice = zipped(members() | {"snapsh0t.json": encode([PLAIN])})
    return twice.replace(b"snapsh0t.json", b"snapshot.json")


def _many() -> bytes:
    """100,000 empty members, as `zip` would write them but for its 65,535 (zip64)."""
    names = [b"%05d" % number for number in range(100_000)]
    local = b"".join(struct.pack("<4s5H3L2H", b"PK\3\4", 20, 0, 0, 0, 0, 0, 0, 0, 5, 0) + name for name in names)
    entry = struct.Struct("<4s6H3L5H2L")
    listed = b"".join(
        entry.pack(b"PK\1\2", 20, 20, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, number * 35) + name
        for number, name in enumerate(names)
    )
    return local + listed + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 65535, 65535, len(listed), len(local), 0)


def _record(name: bytes, data: bytes) -> bytes:
    """A stored member with its header."""
    return (
        struct.pack("<4s5H3L2H", b"PK\3\4", 20, 0, 0, 0, 0, _crc(data), len(data), len(data), len(name), 0)
        + name
        + data
    )


def _crc(data: bytes) -> int:
    return zlib.crc32(data)


def _overlapping() -> bytes:
    """The bytes of report.txt are report.md with its header: each byte counts twice (Fifield, 2019)."""
    inner = _record(b"report.md", b"x" * 1000)
    parts = [(name.encode(), data) for name, data in members().items() if not name.startswith("report.")]
    parts.append((b"report.txt", inner))
    content, listed = b"", b""
    entry = struct.Struct("<4s6H3L5H2L")
    spans = []
    for name, data in parts:
        spans.append((name, data, len(content)))
        content += _record(name, data)
    spans.append((b"report.md", b"x" * 1000, spans[-1][2] + 30 + len(b"report.txt")))
    for name, data, at in spans:
        sizes = (_crc(data), len(data), len(data), len(name))
        listed += entry.pack(b"PK\1\2", 20, 20, 0, 0, 0, 0, *sizes, 0, 0, 0, 0, 0, at) + name
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, len(spans), len(spans), len(listed), len(content), 0)
    return content + listed + end


def _lying_size() -> bytes:
    """A member of more bytes than its entry says."""
    data = bytearray(with_member("report.txt", b"0" * (1 << 20)))
    at = data.rindex(b"report.txt", 0, data.rindex(b"PK\x05\x06")) - 46
    struct.pack_into("<L", data, at + 24, 100)
    return bytes(data)


HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "a bomb": (lambda: with_member("report.txt", b"0" * (40 << 20)), "more than 32 MiB"),
    "a bomb in the snapshot": (lambda: with_member("snapshot.json", b" " * (40 << 20)), "more than 16 MiB"),
    "a bomb that lies": (_lying_size, "damaged member 'report.txt'"),
    "a gzip bomb": (lambda: gzip.compress(b"0" * (80 << 20)), "larger than 64 MiB"),
    "a path out of it": (lambda: with_member("../../etc/cron.d/x", b"x"), "which no bundle has"),
    "an absolute path": (lambda: with_member("/etc/passwd", b"x"), "which no bundle has"),
    "a Windows path": (lambda: with_member("C:\\x", b"x"), "which no bundle has"),
    "a name with a line end": (lambda: with_member("report.txt\nx", b"x"), "which no bundle has"),
    "a huge name": (lambda: with_member("r" * 60_000, b"x"), "name of 60000 bytes"),
    "a symbolic link": (lambda: _with_attributes(stat.S_IFLNK | 0o777), "no regular file"),
    "a FIFO in it": (lambda: _with_attributes(stat.S_IFIFO | 0o644), "no regular file"),
    "a directory in it": (lambda: _with_attributes(stat.S_IFDIR | 0o755), "no regular file"),
    "a wrong checksum": (lambda: with_member("report.txt", b"x", listed=False), "not those that its manifest lists"),
    "another recording": (lambda: zipped(members() | {"snapshot.json": encode([PLAIN, PLAIN])}), "another checksum"),
    "two of one name": (_duplicate, "two members 'snapshot.json'"),
    "a future schema": (lambda: with_manifest(schema="netdiag.bundle/2"), "'netdiag.bundle/2'"),
    "a schema that is long": (lambda: with_manifest(schema="x" * 9999), "with the schema"),
    "a manifest that is none": (lambda: zipped(members() | {"manifest.json": b"[" * 99999}), "manifest cannot be read"),
    "no manifest": (lambda: zipped({"snapshot.json": encode([PLAIN])}), "no manifest.json"),
    "no recording": (lambda: zipped({"manifest.json": members()["manifest.json"]}), "no snapshot.json"),
    "a report that is missing": (
        lambda: zipped({name: data for name, data in members().items() if name != "report.md"}),
        "not those that its manifest lists",
    ),
    "it is cut short": (lambda: GOOD[:-30], "end of the zip file is missing"),
    "nothing but its beginning": (lambda: b"PK\x03\x04", "end of the zip file is missing"),
    "an empty zip file": (lambda: zipped({}), "no manifest.json"),
    "it is encrypted": (lambda: _encrypted(GOOD), "encrypted"),
    "100,000 members": (_many, "members"),
    "members that overlap": (_overlapping, "its members overlap"),
    "a member that is not where its list says": (
        lambda: GOOD[: GOOD.rindex(b"PK\1\2")] + GOOD[GOOD.rindex(b"PK\1\2") :].replace(b"report", b"rep0rt"),
        "not where its list says",
    ),
    "a list that is too short": (lambda: GOOD[:-12] + b"\x01" + GOOD[-11:], "list of members is damaged"),
    "millions of values": (
        lambda: with_member("snapshot.json", b'{"x":[' + b"1," * 2_000_000 + b"1]}"),
        "more than 1048576 values",
    ),
    "a foreign compression": (
        lambda: zipped(members(), lambda info: setattr(info, "compress_type", zipfile.ZIP_BZIP2)),
        "packed in a way that no bundle is",
    ),
    "a gzip file without its end": (lambda: gzip.compress(GOOD)[:-9], "gzip file"),
    "a damaged gzip file": (lambda: b"\x1f\x8b\x08\x00" + b"\xff" * 99, "gzip file"),
    "a future recording in it": (
        lambda: with_member("snapshot.json", b'{"schema": "netdiag.snapshot/9"}'),
        "netdiag.snapshot/9",
    ),
}


@pytest.mark.parametrize(("make", "what"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_bundle_is_refused_in_one_line(
    make: Callable[[], bytes], what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("case.zip").write_bytes(make())
    for command in (["replay"], ["bundle", "show"]):
        result = CliRunner().invoke(app, [*command, "case.zip"])
        if what == "netdiag.snapshot/9" and command[0] == "bundle":
            continue  # it compares checksums, and reads no recording
        assert result.exit_code == 2
        assert result.stdout == ""
        line = result.stderr.removesuffix("\n")
        assert line.isprintable(), "one line"
        assert len(line) < 300
        assert what in line
    assert [path.name for path in tmp_path.iterdir()] == ["case.zip"], "nothing is written"


@pytest.mark.parametrize("at", range(0, len(GOOD), 97))
def test_a_bundle_with_a_foreign_byte_is_refused_or_read_as_it_was(at: int) -> None:
    data = bytearray(GOOD)
    data[at] ^= 0xFF
    assert _read(bytes(data)) in (None, loads(GOOD))


def _read(data: bytes) -> tuple[Snapshot, ...] | None:
    refusal = ""
    try:
        return loads(data)
    except BadRecordingError as error:
        refusal = str(error)
    assert refusal.isprintable()
    return None


def test_a_bundle_is_not_written_where_it_could_not_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("diagnose.bundle.manifest", fromlist=["LIMITS"]).LIMITS, "snapshot.json", 100)
    with pytest.raises(UnbundledError, match=r"snapshot\.json would have"):
        pack([PLAIN])
    assert LARGEST_SNAPSHOT > 1 << 20


def test_the_manifest_is_what_the_contract_lists() -> None:
    assert set(Manifest.__struct_fields__) >= {"schema", "netdiag", "created_at", "files", "redacted"}


# ------ patterns


def test_a_pattern_gives_what_it_matches() -> None:
    assert matches([r"acme-\w+", "x+"], ["acme-web and acme-db", "xx"]) == ("acme-db", "acme-web", "xx")


@pytest.mark.parametrize("pattern", ["(", "*", "(?P<", "[z-a]", "a" * 3000])
def test_what_is_no_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(BadPatternError) as refusal:
        matches([pattern], ["text"])
    assert str(refusal.value).isprintable()


def test_a_pattern_that_never_ends_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diagnose.bundle.pattern._SECONDS", 0.7)
    with pytest.raises(BadPatternError, match="takes longer"):
        matches(["(a+)+$"], ["a" * 60 + "b"])


def test_what_a_pattern_hides_is_in_no_file() -> None:
    snapshot: Snapshot = dialled("10.9.8.7:80", refused("10.9.8.7:80"))
    packed = pack([snapshot], also=["10.9.8.7"])
    assert not any(b"10.9.8.7" in data for data in members(packed.data).values())


def test_a_stream_of_zeros_is_no_zip_file() -> None:
    assert zlib.crc32(b"") == 0
    with pytest.raises(BadRecordingError):
        loads(b"PK" + b"\x00" * 100)
