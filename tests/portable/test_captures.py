"""`--pcap FILE` as the command has it: the packets of our own probe and nobody else's, or one line why not."""

from __future__ import annotations

import gzip
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.machine import INSTALLED, NOBODY, Answer, Machine
from tests.portable.conftest import PORT

pytestmark = pytest.mark.lab


def flags(path: Path) -> list[str]:
    """The TCP flags of the packets in their order, as Wireshark's own library would find them in the file."""
    return [str(packet["TCP"].flags) for packet in packets(path)]


def packets(path: Path) -> Iterator[Any]:
    """Every packet of the file."""
    from scapy.layers import inet, inet6, l2  # noqa: F401 (what the file's packets are made of)
    from scapy.utils import rdpcap

    yield from rdpcap(str(path))


def keep(machine: Machine, path: Path | str, *arguments: str, uid: int = 0) -> Answer:
    """One run that keeps its packets."""
    target = arguments or (f"127.0.0.1:{PORT}",)
    return machine.netdiag("run", "--json", "--pcap", str(path), *target, uid=uid)


def test_a_connection_is_kept_from_its_first_packet_to_its_last(machine: Machine, folder: Path) -> None:
    machine.serve()
    answer = keep(machine, folder / "probe.pcap")
    assert (answer.exit_code, answer.stderr) == (0, b"")
    assert answer.report["verdict"] == "reachable"
    kept = flags(folder / "probe.pcap")
    assert kept[:3] == ["S", "SA", "A"]
    assert kept.count("S") == 1
    assert stat.S_IMODE((folder / "probe.pcap").stat().st_mode) == 0o600


def test_a_refusal_is_two_packets_though_others_dial_the_same_port(machine: Machine, folder: Path) -> None:
    machine.serve("refused_all_the_time")
    answer = keep(machine, folder / "probe.pcap")
    assert answer.exit_code == 1
    assert flags(folder / "probe.pcap") == ["S", "RA"]


def test_every_address_of_a_name_is_in_one_file(machine: Machine, folder: Path) -> None:
    keep(machine, folder / "probe.pcap", f"localhost:{PORT}")
    kept = list(packets(folder / "probe.pcap"))
    assert [str(packet["TCP"].flags) for packet in kept] == ["S", "RA", "S", "RA"]
    assert {packet.payload.dst for packet in kept} == {"::1", "127.0.0.1"}


def test_a_dropped_connection_is_its_first_packet_without_an_answer(machine: Machine, folder: Path) -> None:
    machine.serve()
    machine.chain("input", f"tcp dport {PORT} drop")
    answer = keep(machine, folder / "probe.pcap")
    assert answer.cause
    assert answer.cause["code"] == "firewall/rule-drops"
    assert set(flags(folder / "probe.pcap")) == {"S"}


def test_another_machine_s_answer_is_kept(machine: Machine, folder: Path) -> None:
    machine.run("ip", "netns", "add", "np-far")  # its /run is the machine's own, and goes with it
    machine.run("ip", "link", "add", "near", "type", "veth", "peer", "name", "far", "netns", "np-far")
    machine.run("ip", "address", "add", "10.77.3.1/24", "dev", "near")
    # no address that the kernel still tries out while we compare the machine before and after
    machine.run("ip", "link", "set", "near", "addrgenmode", "none")
    machine.run("ip", "link", "set", "near", "up")
    machine.run("ip", "-n", "np-far", "address", "add", "10.77.3.2/24", "dev", "far")
    machine.run("ip", "-n", "np-far", "link", "set", "far", "up")
    answer = keep(machine, folder / "probe.pcap", f"10.77.3.2:{PORT}")
    machine.run("ip", "netns", "delete", "np-far")
    assert answer.cause
    assert answer.cause["code"] == "refused/nothing-listening"
    assert [(packet.payload.src, str(packet["TCP"].flags)) for packet in packets(folder / "probe.pcap")] == [
        ("10.77.3.1", "S"),
        ("10.77.3.2", "RA"),
    ]


def test_an_ordinary_user_is_refused_before_anything_is_probed(machine: Machine, folder: Path) -> None:
    machine.serve()
    before = machine.run("cat", "/proc/net/snmp")
    answer = keep(machine, folder / "probe.pcap", uid=NOBODY)
    assert (answer.exit_code, answer.stdout) == (2, b"")
    assert answer.stderr.splitlines() == [
        b"netdiag: --pcap needs root (CAP_NET_RAW), and this user is not; "
        b"for example: sudo netdiag run 127.0.0.1:8080 --pcap probe.pcap"
    ]
    assert machine.run("cat", "/proc/net/snmp") == before
    assert not (folder / "probe.pcap").exists()


@pytest.mark.parametrize("option", ["--passive", "--bind"])
def test_where_nothing_is_sent_it_is_refused(machine: Machine, folder: Path, option: str) -> None:
    answer = keep(machine, folder / "probe.pcap", option, f"127.0.0.1:{PORT}")
    assert (answer.exit_code, answer.stdout) == (2, b"")
    assert option.encode() in answer.stderr
    assert len(answer.stderr.splitlines()) == 1
    assert not (folder / "probe.pcap").exists()


OPTIONS = pytest.mark.parametrize("option", ["--pcap", "--record", "--output"])


@OPTIONS
@pytest.mark.parametrize("path", ["/nonexistent/file", "/run", "/run/fifo"])
def test_a_file_that_cannot_be_written_is_refused_before_anything_is_probed(
    machine: Machine, option: str, path: str
) -> None:
    machine.serve()
    machine.run("mkfifo", "/run/fifo")
    before = machine.run("cat", "/proc/net/snmp")
    answer = machine.netdiag("run", "--json", option, path, f"127.0.0.1:{PORT}")
    assert (answer.exit_code, answer.stdout) == (2, b"")
    (line,) = answer.stderr.decode().splitlines()
    assert line.startswith(f"netdiag: cannot write '{path}': ")
    assert machine.run("cat", "/proc/net/snmp") == before


@OPTIONS
def test_a_file_that_turns_out_to_be_full_costs_one_line_and_not_the_report(machine: Machine, option: str) -> None:
    machine.serve()
    answer = machine.netdiag("run", "--json", option, "/dev/full", f"127.0.0.1:{PORT}")
    assert answer.report["verdict"] == "reachable"
    assert answer.exit_code == 2
    (line,) = answer.stderr.decode().splitlines()
    assert line.startswith("netdiag: cannot write '/dev/full': ")


@OPTIONS
def test_a_full_file_system_leaves_what_was_there_and_nothing_else(machine: Machine, option: str) -> None:
    machine.serve()
    machine.run("mkdir", "/run/full")
    machine.run("mount", "-t", "tmpfs", "-o", "size=8k", "lab", "/run/full")
    machine.run("sh", "-c", "echo old >/run/full/file; cat /dev/zero >/run/full/ballast || true")
    answer = machine.netdiag("run", "--json", option, "/run/full/file", f"127.0.0.1:{PORT}")
    assert answer.report["verdict"] == "reachable"
    assert (answer.exit_code, len(answer.stderr.splitlines())) == (2, 1)
    assert machine.run("sh", "-c", "ls -A /run/full; cat /run/full/file").split() == ["ballast", "file", "old"]


@OPTIONS
def test_another_user_s_file_is_refused_before_anything_is_probed(machine: Machine, folder: Path, option: str) -> None:
    machine.serve()
    (folder / "taken").write_bytes(b"kept")
    (folder / "taken").chmod(0o600)
    answer = machine.netdiag("run", "--json", option, str(folder / "taken"), f"127.0.0.1:{PORT}", uid=NOBODY)
    assert (answer.exit_code, answer.stdout) == (2, b"")
    assert len(answer.stderr.splitlines()) == 1
    assert (folder / "taken").read_bytes() == b"kept"


@OPTIONS
def test_another_user_s_link_is_no_way_to_a_file_of_root_s(machine: Machine, folder: Path, option: str) -> None:
    machine.serve()
    machine.write("/etc/kept", "kept\n", mode=0o600)
    folder.chmod(0o1777)
    (folder / "report").symlink_to("/etc/kept")
    os.lchown(folder / "report", NOBODY, NOBODY)
    answer = machine.netdiag("run", "--json", option, str(folder / "report"), f"127.0.0.1:{PORT}")
    assert (answer.exit_code, answer.stdout) == (2, b"")
    assert machine.run("cat", "/etc/kept") == "kept\n"


def test_under_sudo_every_file_is_the_caller_s(machine: Machine, folder: Path) -> None:
    machine.serve()
    (folder / "seen.json").write_bytes(b"old")
    (folder / "seen.json").chmod(0o644)
    os.chown(folder / "seen.json", NOBODY, NOBODY)
    caller = ("env", f"SUDO_UID={NOBODY}", f"SUDO_GID={NOBODY - 1}")
    asked = [
        f"--{option}={folder}/{name}" for option, name in (("output", "r"), ("record", "seen.json"), ("pcap", "p"))
    ]
    answer = machine.netdiag("run", *asked, f"127.0.0.1:{PORT}", before=caller)
    assert (answer.exit_code, answer.stdout, answer.stderr) == (0, b"", b"")
    found = {path.name: path.stat() for path in folder.iterdir()}
    assert {(one.st_uid, one.st_gid) for one in found.values()} == {(NOBODY, NOBODY - 1)}
    modes = {name: stat.S_IMODE(one.st_mode) for name, one in found.items()}
    assert modes == {"r": 0o644, "seen.json": 0o600, "p": 0o600}


def test_one_file_for_two_outputs_is_refused(machine: Machine, folder: Path) -> None:
    there = f"{folder}/one"
    answer = machine.netdiag("run", "--output", there, "--record", f"{folder}/./one", f"127.0.0.1:{PORT}")
    assert (answer.exit_code, answer.stdout) == (2, b"")
    assert b"are the same file" in answer.stderr
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("path", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "-"])
@pytest.mark.parametrize("into", ["pipe", "file"])
def test_standard_output_by_another_name_is_written_where_it_stands(
    machine: Machine, folder: Path, path: str, into: str
) -> None:
    machine.serve()
    line = f'echo before; "$@" --output {path} 127.0.0.1:{PORT}; echo after'
    script = f"({line}) | cat" if into == "pipe" else f"({line}) >{folder}/out; cat {folder}/out; rm {folder}/out"
    told = machine.run("sh", "-c", script, "sh", INSTALLED, "run").splitlines()
    assert (told[0], told[-1]) == ("before", "after")
    assert "reachable" in told[1]


def test_process_substitution_takes_a_recording(machine: Machine, folder: Path) -> None:
    machine.serve()
    script = f'"$@" --record >(gzip >{folder}/seen.gz) 127.0.0.1:{PORT}; wait $!'
    machine.run("bash", "-c", script, "bash", INSTALLED, "run")
    assert b'"schema"' in gzip.decompress((folder / "seen.gz").read_bytes())
