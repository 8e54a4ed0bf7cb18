"""Hold the speed budgets: `netdiag` against an empty typer app and against its peers, side by side on this machine.

Ends with 1 when a budget is broken. Runs as root, in network and mount namespaces of its own.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from tests.lab.docker import ENGINE_TOOLS, IMAGE, DockerMachine
from tests.lab.machine import NETDIAG, NOBODY, REPOSITORY, ROOT, Machine
from tests.lab.many_rules import iptables_table, nft_table

STOPWATCH = Path(__file__).with_name("stopwatch.py")
REFERENCE_APP = Path(__file__).with_name("reference.py")
REFERENCE_ENVIRONMENT = REPOSITORY / ".bench" / "venv"
PORT = 28893


@dataclass(frozen=True)
class Timing:
    """The rounds of one command."""

    seconds: tuple[float, ...]
    exit_codes: frozenset[int]
    kib: int

    @property
    def median(self) -> float:
        """Half of the rounds were faster."""
        return median(self.seconds)


@dataclass(frozen=True)
class Row:
    """One budget and what was measured."""

    case: str
    measured: str
    budget: str
    kept: bool | None
    """None: there was nothing to compare with."""


def reference() -> list[str]:
    """The command line of the reference, in an environment of its own."""
    python = REFERENCE_ENVIRONMENT / "bin" / "python"
    if not python.exists():
        venv.create(REFERENCE_ENVIRONMENT, with_pip=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "typer>=0.28,<0.29"]
        subprocess.run(pip, check=True)
    return [str(python), str(REFERENCE_APP)]


def netdiag(*targets: str) -> list[str]:
    """The command line of the main job."""
    return [str(NETDIAG), "run", *targets]


def timed(
    machine: Machine, rounds: int, *commands: list[str], uid: int = ROOT, exits: int | None = None
) -> list[Timing]:
    """Each command's rounds; fails when the first one does not end as it should."""
    script = [sys.executable, "-I", "-S", str(STOPWATCH), str(rounds), json.dumps(commands)]
    done = subprocess.run(machine.inside(script, uid), capture_output=True, text=True, timeout=600, check=True)
    timings = [
        Timing(tuple(one[0] for one in rows), frozenset(one[1] for one in rows), max(one[2] for one in rows))
        for rows in json.loads(done.stdout)
    ]
    assert exits is None or timings[0].exit_codes == {exits}, f"{commands[0]}: exit codes {timings[0].exit_codes}"
    return timings


def ratio_row(case: str, ours: Timing, empty: Timing, most: float) -> Row:
    """A budget in multiples of the reference."""
    ratio = ours.median / empty.median
    measured = f"{ratio:.2f} x ({ours.median * 1000:.0f} ms, reference {empty.median * 1000:.0f} ms)"
    return Row(case, measured, f"{most} x", ratio <= most)


def seconds_row(case: str, ours: Timing, most: float) -> Row:
    """A budget in seconds."""
    return Row(case, f"{ours.median:.2f} s", f"{most} s", ours.median <= most)


def reachable() -> Iterator[Row]:
    """A healthy local server."""
    with Machine(port=PORT) as machine:
        machine.serve()
        ours, empty = timed(machine, 25, netdiag(f"127.0.0.1:{PORT}"), reference(), exits=0)
        yield ratio_row("reachable, local", ours, empty, 2.0)


def refused() -> Iterator[Row]:
    """Nothing listens."""
    with Machine(port=PORT) as machine:
        ours, empty = timed(machine, 25, netdiag(f"127.0.0.1:{PORT}"), reference(), exits=1)
        yield ratio_row("refused, local", ours, empty, 2.5)


def dropped() -> Iterator[Row]:
    """A rule drops, and a healthy server waits behind it."""
    with Machine(port=PORT) as machine:
        machine.serve()
        machine.chain("input", f"tcp dport {PORT} drop")
        ours = timed(machine, 9, netdiag(f"127.0.0.1:{PORT}"), exits=1)[0]
        yield seconds_row("dropped by a rule, as root", ours, 0.5)
        nmap = shutil.which("nmap")
        if nmap:
            peer = timed(machine, 3, [nmap, "-Pn", "-n", "-sT", "-p", str(PORT), "127.0.0.1"])[0]
            faster = peer.median / ours.median
            yield Row("  against nmap -Pn -n -sT", f"{faster:.1f} x faster ({peer.median:.2f} s)", "4 x", faster >= 4)
        else:
            yield Row("  against nmap -Pn -n -sT", "nmap is not installed", "4 x", None)
        plain = timed(machine, 5, netdiag(f"127.0.0.1:{PORT}"), uid=NOBODY)[0]
        yield seconds_row("dropped, unprivileged", plain, 1.5)


def thousand() -> Iterator[Row]:
    """Many targets in one call."""
    with Machine(port=PORT) as machine:
        targets = [f"127.0.0.1:{port}" for port in range(20000, 21000)]
        ours = timed(machine, 3, netdiag(*targets), exits=1)[0]
        yield seconds_row("1,000 local targets in one call", ours, 4.0)
        yield Row("  its memory", f"{ours.kib / 1024:.0f} MiB", "150 MiB", ours.kib <= 150 * 1024)
        many = [f"127.0.0.1:{port}" for port in range(20000, 30000)]
        yield seconds_row("10,000 local targets in one call", timed(machine, 1, netdiag(*many), exits=1)[0], 30.0)


def crowded() -> Iterator[Row]:
    """The same on a quiet machine, and on one with 20,000 sockets and 2,000 processes."""
    command = netdiag(f"127.0.0.1:{PORT}")
    with Machine(port=PORT) as machine:
        quiet = timed(machine, 9, command, exits=1)[0]
        machine.serve("crowd", "127.0.0.1", PORT, "processes=2000", "sockets=10")
        crowd = timed(machine, 9, command, exits=1)[0]
    slower = crowd.median - quiet.median
    measured = f"{slower:+.2f} s (from {quiet.median:.2f} s to {crowd.median:.2f} s)"
    yield Row("20,000 sockets and 2,000 processes", measured, "+0.5 s", slower <= 0.5)


def contained() -> Iterator[Row]:
    """The same without a container engine, and with one that has 200 containers, of which ten run."""
    command = netdiag(f"127.0.0.1:{PORT}")
    if any(shutil.which(tool) is None for tool in ENGINE_TOOLS):
        yield Row("200 containers", "there is no Docker Engine", "+0.3 s", None)
        return
    with Machine(port=PORT) as machine:
        alone = timed(machine, 15, command, exits=1)[0]
    with DockerMachine(port=PORT) as machine:
        for number in range(190):
            published = ("--publish", f"127.0.0.1:{PORT + 1 + number}:80")
            machine.docker("create", "--name", f"stopped-{number}", *published, IMAGE, "sleep", "1000")
        for number in range(10):
            machine.container(f"running-{number}", "sleep", "1000", options=("--publish", "80"))
        ours = timed(machine, 15, command, exits=1)[0]
    slower = ours.median - alone.median
    measured = f"{slower:+.2f} s (from {alone.median:.2f} s to {ours.median:.2f} s)"
    yield Row("200 containers", measured, "+0.3 s", slower <= 0.3)


LARGE_RULE_SETS = (
    ("10,000 nft rules, a set of 50,000", ("nft", "-f", "-"), nft_table(PORT)),
    ("10,000 nft rules, 50,000 ranges", ("nft", "-f", "-"), nft_table(PORT, intervals=True)),
    ("10,000 rules of iptables-nft", ("iptables-nft-restore",), iptables_table(PORT)),
    ("10,000 rules of iptables-legacy", ("iptables-legacy-restore",), iptables_table(PORT)),
)


def ruled() -> Iterator[Row]:
    """A rule drops behind very many others; naming no rule is fast as well, but no answer."""
    for case, restore, rules in LARGE_RULE_SETS:
        with Machine(port=PORT) as machine:
            machine.serve()
            machine.run(*restore, stdin=rules)
            command = netdiag(f"127.0.0.1:{PORT}", "--json")
            row = seconds_row(case, timed(machine, 5, command, exits=1)[0], 2.0)
            cause = json.loads(machine.run(*command, check=False))["root_cause"] or {}
            named = (cause.get("code"), cause.get("confidence")) == ("firewall/rule-drops", "proven")
            yield row if named else replace(row, measured=f"{row.measured}, and the rule is not named", kept=False)


def main() -> int:
    """Measure every budget and print the table."""
    if sys.platform != "linux" or os.geteuid() != 0:
        print("the benchmarks need root on Linux: they measure in network namespaces of their own", file=sys.stderr)
        return 2
    broken = 0
    print(f"{'case':36} {'budget':>8}  {'kept':4}  measured (median)")
    for measure in (reachable, refused, dropped, ruled, thousand, crowded, contained):
        for row in measure():
            kept = {True: "yes", False: "NO", None: "-"}[row.kept]
            print(f"{row.case:36} {row.budget:>8}  {kept:4}  {row.measured}", flush=True)
            broken += row.kept is False
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
