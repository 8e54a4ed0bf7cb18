"""exposure: it works too well, for others than it is meant for."""

from __future__ import annotations

import re
from collections.abc import Iterator

from diagnose.analysis.owner import Owned, owner
from diagnose.analysis.publication import PAST_UFW, Publication, publications
from diagnose.analysis.reach import reached
from diagnose.analysis.wording import row_text, title
from diagnose.model.attempt import Attempt
from diagnose.model.check import Check
from diagnose.model.fact import NOT_NEEDED, Known, Missing, Unknown
from diagnose.model.finding import Cause, Confidence, Evidence, Finding, Remedy, Severity, Stage
from diagnose.model.network import Endpoint, SocketRow, is_loopback, is_wildcard
from diagnose.model.process import Process
from diagnose.model.snapshot import Snapshot
from diagnose.model.target import Intent

OPEN_TO_NETWORK = Cause(
    "exposure/open-to-network", Stage.SERVICE, "A container's port is open to the network, past the firewall in use"
)

_CONTAINER_PORT = re.compile(r" -container-port (\d{1,5})\b")


def judge(snapshot: Snapshot) -> Iterator[Finding | Missing]:
    """A port that a container publishes on all addresses, on a machine that believes in ufw."""
    local = [one for one in snapshot.attempts if one.local] if snapshot.intent is Intent.CONNECT else []
    if not local:
        return
    match snapshot.listeners:
        case Unknown() as unknown:
            yield Missing("listeners", unknown)
        case Known(value=rows):
            yield from _past_ufw(snapshot, local, rows)


def _past_ufw(snapshot: Snapshot, local: list[Attempt], rows: tuple[SocketRow, ...]) -> Iterator[Finding | Missing]:
    found = {
        row: process
        for attempt in local
        for row in reached(rows, attempt.address, attempt.port)
        if is_wildcard(row.local.address) and (process := _engine(snapshot, row)) is not None
    }
    if not found:
        return
    match snapshot.ufw:
        case Unknown() as unknown:
            if unknown != NOT_NEEDED:
                yield Missing("ufw", unknown)
        case Known(value=True):
            row, process = next(iter(sorted(found.items())))
            yield _open(snapshot, row, process)
        case Known():
            return


def _engine(snapshot: Snapshot, row: SocketRow) -> Process | None:
    match owner(row, snapshot.holders):
        case Owned(processes=processes):
            # an engine that is not root's has no NAT rules
            return next((one for one in processes if one.uid == 0 and one.program in PAST_UFW), None)
        case _:
            return None


def _open(snapshot: Snapshot, row: SocketRow, process: Process) -> Finding:
    port = row.local.port
    entry = _entry(snapshot, row, process)
    inner = entry.entry.container_port if entry else _forwarded_to(process)
    who = f"container {entry.name}" if entry else "a container"
    option = f"-p 127.0.0.1:{port}:{inner}" if inner else f"its entry for port {port} beginning with 127.0.0.1:"
    return Finding(
        code=OPEN_TO_NETWORK.code,
        title=title(f"Port {port} of {who} may be open to the network, past ufw"),
        severity=Severity.WARNING,
        # nobody looks at the rules of what works
        confidence=Confidence.POSSIBLE,
        explanation=f"It is published on every {_family(row)}address of this machine. The engine's own NAT rules lead "
        "packets from the network to the container before ufw's rules see them: a deny of ufw does not hold for it. It "
        "does where the engine was told to make no rules (iptables: false), and a rule in DOCKER-USER may keep the "
        "network out: these rules were not read.",
        evidence=(
            Evidence(row_text(row), "sock_diag"),
            Evidence(f"held by {process.program} (pid {process.pid})", "/proc/PID/fd"),
            Evidence("ENABLED=yes", "/etc/ufw/ufw.conf"),
            *_beyond_loopback(snapshot),
        ),
        remedies=(
            Remedy(
                summary=f"If only this machine needs it: make the container again with {option}. If the network needs "
                "it, filter in the chain DOCKER-USER, which the engine leaves to you."
            ),
        ),
    )


def _family(row: SocketRow) -> str:
    """A wildcard of IPv6 stands for IPv4 too, where it is not known to be IPv6 only."""
    return "IPv4 " if row.family == "ipv4" else "IPv6 " if row.v6only else ""


def _forwarded_to(process: Process) -> int | None:
    """The container's port, as docker-proxy has it in its own command line."""
    found = _CONTAINER_PORT.search(process.command)
    return int(found[1]) if found else None


def _entry(snapshot: Snapshot, row: SocketRow, process: Process) -> Publication | None:
    found = [one for one in publications(snapshot, row.local.port) if one.covers(row.local.address)]
    own = [one for one in found if one.forwarder is not None and one.forwarder.pid == process.pid]
    return next(iter(own or found), None)


def _beyond_loopback(snapshot: Snapshot) -> Iterator[Evidence]:
    if isinstance(snapshot.links, Known):
        others = [
            str(Endpoint(address, snapshot.target.port))
            for interface in snapshot.links.value.interfaces
            for address in interface.addresses
            if not is_loopback(address) and not address.startswith("fe80:")
        ]
        if others:
            yield Evidence(f"others may connect to {', '.join(others[:4])}", "interfaces")


CHECK = Check("exposure", (OPEN_TO_NETWORK,), judge, premises=("names", "links"))
