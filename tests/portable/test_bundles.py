"""`netdiag bundle` as a whole command: the file that it writes, what it refuses, and what a hostile one costs."""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import stat
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from diagnose.recording import encode
from tests.portable.command import LINUX, PLATFORMS, argv, closed, environment, netdiag
from tests.unit.test_bundle import HOSTILE, PLAIN, with_member

MOST_MEMORY = 200
"""MiB."""
_MEASURED = """
import re, sys
from diagnose.cli import main
code = 0
try:
    main()
except SystemExit as ended:
    code = ended.code
peak = re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]
print("peak", peak, file=sys.stderr)
sys.exit(code)
"""


def test_a_bundle_is_for_its_owner_alone_and_its_exit_code_is_the_diagnoses(tmp_path: Path) -> None:
    file = tmp_path / "case.netdiag.zip"
    with closed() as port:
        made = netdiag(LINUX, "bundle", f"127.0.0.1:{port}", "-o", str(file))
    assert made.exit_code == 1
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert b"refused/nothing-listening" in made.stdout
    again = netdiag(LINUX, "replay", "--json", str(file))
    assert (again.exit_code, again.cause["code"]) == (1, "refused/nothing-listening")
    assert b"report.html" in netdiag(LINUX, "bundle", "show", str(file)).stdout


def test_the_mapping_gives_back_what_the_bundle_does_not_have(tmp_path: Path) -> None:
    file, mapping = tmp_path / "case.zip", tmp_path / "mapping.json"
    with closed() as port:
        netdiag(LINUX, "bundle", f"127.0.0.1:{port}", "-o", str(file), "--mapping", str(mapping))
    name = os.uname().nodename
    assert stat.S_IMODE(mapping.stat().st_mode) == 0o600
    tokens = json.loads(mapping.read_text())["tokens"]
    assert name in tokens.values()
    archive = zipfile.ZipFile(file)
    recorded = json.loads(archive.read("snapshot.json"))
    assert tokens[recorded["vantage"]["hostname"]] == name


def test_what_is_kept_stays(tmp_path: Path) -> None:
    file = tmp_path / "case.zip"
    with closed() as port:
        netdiag(LINUX, "bundle", f"127.0.0.1:{port}", "-o", str(file), "--keep", "hosts", "--keep", "users")
    recorded = json.loads(zipfile.ZipFile(file).read("snapshot.json"))
    assert recorded["vantage"]["hostname"] == os.uname().nodename


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("127.0.0.1:9",), "needs the name of the file"),
        (("127.0.0.1:9", "-o", "x.zip", "--keep", "everything"), "is none of users, hosts"),
        (("127.0.0.1:9", "-o", "x.zip", "--pcap"), "agree with --keep packets"),
        (("127.0.0.1:9", "-o", "x.zip", "--keep", "packets"), "is about those of --pcap"),
        (("127.0.0.1:9", "-o", "x.zip", "--redact-also", "("), "is no regular expression"),
        (("127.0.0.1:9", "-o", "x.zip", "--mapping", "x.zip"), "are the same file"),
        (("127.0.0.1:9", "-o", "no/such/x.zip"), "cannot write"),
        (("nonsense", "-o", "x.zip"), ""),
        (("show",), "needs the name of one bundle"),
        (("show", "/no/such"), "cannot read"),
        (("show", "/"), "cannot read"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line_before_anything_is_tried(
    arguments: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "diagnose", "bundle", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment(), check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert said in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_pattern_that_never_ends_leaves_no_bundle(tmp_path: Path) -> None:
    """The path of the interpreter is long, and the pattern tries every way to split it."""
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "diagnose", "bundle", "127.0.0.1:9", "-o", "x.zip", "--redact-also", r"(.*)*\d\d\d\dq"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment(),
        check=False,
    )
    assert time.monotonic() - begun < 60
    assert done.returncode in (1, 2, 3)
    assert "Traceback" not in done.stderr
    assert (tmp_path / "x.zip").exists() == (done.returncode != 2)


def test_a_bundle_is_read_from_standard_input_and_several_files_are_read_in_order(tmp_path: Path) -> None:
    file = tmp_path / "case.zip"
    with closed() as port:
        netdiag(LINUX, "bundle", f"127.0.0.1:{port}", "-o", str(file))
    recording = tmp_path / "case.json.gz"
    recording.write_bytes(gzip.compress(encode([PLAIN])))
    command = [sys.executable, "-m", "diagnose", "replay", "--json", "-", str(recording)]
    done = subprocess.run(command, input=file.read_bytes(), capture_output=True, env=environment(), check=False)
    targets = [one["target"]["port"] for one in json.loads(done.stdout)["reports"]]
    assert (done.returncode, targets) == (1, [port, 8080])


@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_bundle_of_linux_is_judged_alike_there(platform: str, tmp_path: Path) -> None:
    file = tmp_path / "case.zip"
    with closed() as port:
        netdiag(LINUX, "bundle", f"127.0.0.1:{port}", "-o", str(file))
    here, there = (netdiag(system, "replay", "--json", str(file)) for system in (LINUX, platform))
    assert (here.exit_code, here.stdout) == (there.exit_code, there.stdout)


@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_bundle_can_be_made_there(platform: str, tmp_path: Path) -> None:
    file = tmp_path / "case.zip"
    with closed() as port:
        made = subprocess.run(
            argv(platform, "bundle", f"127.0.0.1:{port}", "-o", str(file)),
            capture_output=True,
            text=True,
            env=environment(),
            check=False,
        )
    assert made.returncode in (1, 3), made.stderr
    assert netdiag(LINUX, "replay", "--json", str(file)).report["vantage"]["platform"] == platform


def test_a_fifo_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "case.zip")
    for command in (("replay",), ("bundle", "show")):
        answer = netdiag(LINUX, *command, str(tmp_path / "case.zip"))
        assert (answer.exit_code, answer.stdout) == (2, b"")
        assert "is no regular file" in answer.stderr


def _rows() -> bytes:
    """As many facts as a bundle may have, and all of them different."""
    row = {"peer": {"address": "::", "port": 1}, "state": 1, "family": "ipv6", "inode": 1, "uid": 1}
    content = json.loads(encode([PLAIN]))
    rows = [{"local": {"address": f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}", "port": 1}, **row} for n in range(110_000)]
    content["sockets"] = {"fact": "known", "value": rows}
    return with_member("snapshot.json", json.dumps(content, separators=(",", ":")).encode())


def _texts() -> bytes:
    content = json.loads(encode([PLAIN]))
    names = [f"h{n}" for n in range(1_000_000)]
    entry = {"line": 1, "address": "::1", "names": names}
    file = {"path": "/etc/hosts", "mode": 0, "owner": 0, "readable": True, "bom": False, "entries": [entry]}
    content["hosts"] = {"fact": "known", "value": file}
    return with_member("snapshot.json", json.dumps(content, separators=(",", ":")).encode())


LARGE = {"many sockets": _rows, "many texts": _texts} | {name: make for name, (make, _) in HOSTILE.items()}


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's own measure of memory")
@pytest.mark.parametrize("make", LARGE.values(), ids=LARGE)
def test_no_bundle_takes_more_memory_or_time_than_a_machine_has(make: object, tmp_path: Path) -> None:
    assert callable(make)
    file = tmp_path / "case.zip"
    file.write_bytes(make())
    begun = time.monotonic()
    command = [sys.executable, "-c", _MEASURED, "replay", "--json", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=120, check=False)
    peak = re.search(r"peak (\d+)", done.stderr)
    assert peak, done.stderr
    assert int(peak[1]) >> 10 < MOST_MEMORY
    assert time.monotonic() - begun < 60
    assert "Traceback" not in done.stderr


def test_endless_input_ends() -> None:
    with open("/dev/zero", "rb") as endless:
        done = subprocess.run(
            [sys.executable, "-m", "diagnose", "replay", "-"],
            stdin=endless,
            capture_output=True,
            text=True,
            env=environment(),
            timeout=60,
            check=False,
        )
    assert (done.returncode, done.stdout) == (2, "")
    assert "is larger than 64 MiB" in done.stderr
    assert io.StringIO(done.stderr).read().count("\n") == 1
