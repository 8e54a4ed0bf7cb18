"""One rule set in a network namespace of its own: what netdiag says of it, what a connect meets, what the remedy does.

Run as a module it is the child that tries one rule set after the other: JSON lines in, JSON lines out.
"""

from __future__ import annotations

import codecs
import ctypes
import importlib
import os
import pkgutil
import subprocess
import sys
import time
import traceback
import zlib
from collections.abc import Sequence

import msgspec
from msgspec import Struct

import diagnose
from checks import CHECKS
from diagnose import recording
from diagnose.collect import Collection, Order
from diagnose.engine import diagnose as judged
from diagnose.model.fact import Known
from diagnose.model.finding import Command, Remedy
from diagnose.model.firewall import Backend
from diagnose.model.report import Report
from diagnose.model.snapshot import Snapshot
from diagnose.parse.target import parse_target
from diagnose.probes.shadow import libc
from tests.fidelity import reality
from tests.fidelity.listeners import Listeners
from tests.fidelity.reality import Real
from tests.fidelity.rulesets import NEIGHBOUR, PORT, RuleSet, Xtables

_PR_SET_DUMPABLE = 4


class Mend(Struct, frozen=True):
    """The first rehearsed remedy, executed as printed."""

    address: str
    commands: tuple[tuple[str, ...], ...]
    complaint: str
    """Of the first command that failed."""
    works: bool
    opened: tuple[str, ...]
    """Neighbours that were shut before and are not now."""
    told: tuple[str, ...]
    """What the report said that it would open."""
    undone: bool | None
    """Whether the undo shut it again and brought the listing back; None: the remedy has none."""


class Trial(Struct, frozen=True):
    """What came of one rule set."""

    refused: str = ""
    """Why its own tool did not take it."""
    crash: str = ""
    """A traceback: of netdiag, or of the trial itself."""
    snapshots: tuple[Snapshot, ...] = ()
    reals: tuple[Real, ...] = ()
    listing: str = ""
    """nft -a -n list ruleset, where a rule of nf_tables was named."""
    saved: dict[str, str] = {}
    """What each iptables-save prints."""
    mend: Mend | None = None
    seconds: float = 0.0


def try_out(rules: RuleSet, listeners: Listeners) -> Trial:
    """Loads it into a fresh namespace of this thread and looks at it from every side."""
    begun = time.monotonic()
    libc.unshare_network()
    _run(("ip", "link", "set", "lo", "up"))
    for number, load in enumerate(rules.loads()):
        if number == len(rules.before):
            listeners.open([(one, port) for one in rules.addresses for port in (PORT, NEIGHBOUR)], rules.listener)
        complaint = _run(load.argv, load.given)
        if complaint:
            return Trial(refused=f"{load.argv[0]}: {complaint}")
    snapshots = _seen(rules) if rules.client == os.geteuid() else _seen_as(rules.client, rules)
    tools = [part.tool for part in rules.parts if isinstance(part, Xtables)]
    where = [(address, PORT) for address in rules.addresses]
    reals = reality.connects(where, rules.client, listeners, tools)
    listing, saved = _listings(snapshots, tools)
    mend = _mend(rules, [judged(one, CHECKS) for one in snapshots], reals, listeners)
    return Trial(
        snapshots=snapshots,
        reals=reals,
        listing=listing,
        saved=saved,
        mend=mend,
        seconds=time.monotonic() - begun,
    )


def _seen(rules: RuleSet) -> tuple[Snapshot, ...]:
    """What netdiag sees of every address, those that work included."""
    targets = tuple(parse_target(_dialled(address, PORT)) for address in rules.addresses)
    # without root's witnesses each silence is waited for
    collection = Collection(Order(targets=targets, deep=True, timeout=0.4 if rules.client else None))
    try:
        return collection.snapshots()
    finally:
        collection.close()


def _seen_as(user: int, rules: RuleSet) -> tuple[Snapshot, ...]:
    """The same as an ordinary user, in a child that becomes one."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        _become(user)
        try:
            answer = recording.encode(_seen(rules))
        except Exception:  # noqa: BLE001 (the parent is told)
            answer = traceback.format_exc().encode()
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(answer)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    if answer.startswith(b"Traceback"):
        raise RuntimeError(answer.decode())
    return recording.decode(answer)


def _become(user: int) -> None:
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    # a process that changed its user may not look into its own /proc files; one that was started by the user may
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 1)


def _dialled(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _listings(snapshots: Sequence[Snapshot], tools: Sequence[str]) -> tuple[str, dict[str, str]]:
    """The machine's own words for its rules, as far as a rule was named."""
    shadows = [one.firewall.value for one in snapshots if isinstance(one.firewall, Known)]
    backends = {walk.decider.backend for shadow in shadows for walk in shadow.walks if walk.decider is not None}
    native = backends & {Backend.NFT, Backend.IPTABLES_NFT, Backend.IP6TABLES_NFT}
    listing = _output(("nft", "-a", "list", "ruleset")) if native else ""
    return listing, {tool: _output((f"{tool}-save",)) for tool in tools if tool in {b.value for b in backends}}


def _mend(rules: RuleSet, reports: Sequence[Report], reals: Sequence[Real], listeners: Listeners) -> Mend | None:
    """Takes the first rehearsed remedy of one of the addresses that do not work."""
    found = [(real, remedy) for report, real in zip(reports, reals, strict=True) if (remedy := _rehearsed(report))]
    if not found or rules.counts or rules.client:
        return None
    real, remedy = found[zlib.crc32(rules.text().encode()) % len(found)]
    doors = [address for address in rules.addresses if _shut(address, listeners)]
    before = _rule_sets()
    complaint = _execute(remedy.commands)
    works = reality.works(real.address, PORT, listeners, 0.5)
    opened = [address for address in doors if reality.works(address, NEIGHBOUR, listeners, 0.03)]
    return Mend(
        address=real.address,
        commands=tuple(command.argv for command in remedy.commands),
        complaint=complaint,
        works=works,
        opened=tuple(_dialled(one, NEIGHBOUR) for one in opened),
        told=remedy.rehearsal.opens if remedy.rehearsal is not None else (),
        undone=_undone(remedy, before) if remedy.undo else None,
    )


def _shut(address: str, listeners: Listeners) -> bool:
    """Whether the neighbour there answers no client; asked twice, for a busy machine is slow."""
    return not any(reality.works(address, NEIGHBOUR, listeners, 0.15) for _ in range(2))


def _rehearsed(report: Report) -> Remedy | None:
    remedies = report.root_cause.remedies if report.root_cause is not None else ()
    return next((one for one in remedies if one.commands and one.rehearsal is not None and one.rehearsal.mended), None)


def _undone(remedy: Remedy, before: str) -> bool:
    return not _execute(remedy.undo) and _rule_sets() == before


def _rule_sets() -> str:
    """Everything that is loaded, without handles and counters."""
    saves = [_output((f"{ip}tables-legacy-save",)) for ip in ("ip", "ip6")]
    kept = [line.partition(" [")[0] for text in saves for line in text.splitlines() if not line.startswith("#")]
    return "\n".join([_output(("nft", "-s", "list", "ruleset")), *kept])


def _execute(commands: Sequence[Command]) -> str:
    for command in commands:
        complaint = _run(command.argv)
        if complaint:
            return f"{' '.join(command.argv)}: {complaint}"
    return ""


def _run(argv: tuple[str, ...], given: str = "") -> str:
    """What it complained of; empty when it went well."""
    done = subprocess.run(argv, input=given, capture_output=True, text=True, check=False)
    return (done.stderr.strip() or f"status {done.returncode}") if done.returncode else ""


def _output(argv: tuple[str, ...]) -> str:
    """What it prints; iptables-nft-save gives up in the middle of a table to which nft has added."""
    return subprocess.run(argv, capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C"}).stdout


def main() -> None:
    """One line of JSON for each that comes."""
    for module in pkgutil.walk_packages(diagnose.__path__, "diagnose."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)  # an ordinary user may not be able to read them
    for codec in ("ascii", "idna", "latin-1", "utf-8"):
        codecs.lookup(codec)
    listeners = Listeners()
    for line in sys.stdin.buffer:
        try:
            trial = try_out(msgspec.json.decode(line, type=RuleSet), listeners)
        except Exception:  # noqa: BLE001 (the parent is told)
            trial = Trial(crash=traceback.format_exc())
        sys.stdout.buffer.write(msgspec.json.encode(trial) + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
