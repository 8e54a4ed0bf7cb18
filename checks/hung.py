"""hung: it is there, the kernel answers for it, and nothing comes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeGuard

from diagnose.analysis.beyond import Overfull, Suspended, beyond, deciding_walk
from diagnose.analysis.describe import describe_process, restart_remedies
from diagnose.analysis.owner import Hidden, Owned, OwnerUnknown, owner
from diagnose.analysis.reach import failing, reached, severity
from diagnose.analysis.wording import connect_evidence, dial_instead, row_text, title
from diagnose.model.attempt import Acceptance, Attempt, Behind, Outcome
from diagnose.model.check import Check
from diagnose.model.fact import NOT_NEEDED, Fact, Known, Missing, Reason, Unknown
from diagnose.model.finding import Cause, Command, Confidence, Evidence, Finding, Remedy, Risk, Stage
from diagnose.model.network import SocketRow
from diagnose.model.process import Process
from diagnose.model.snapshot import Snapshot
from diagnose.model.target import Intent

ACCEPT_QUEUE_FULL = Cause(
    "hung/accept-queue-full", Stage.SOCKET, "The accept queue is full: the program does not take connections"
)
PROCESS_STOPPED = Cause("hung/process-stopped", Stage.PROCESS, "The process is stopped (Ctrl-Z, SIGSTOP)")
NOT_ACCEPTING = Cause(
    "hung/not-accepting", Stage.PROCESS, "The kernel completes the connection, the program does not take it"
)

CLOSES_AT_ONCE = Cause(
    "hung/closes-at-once", Stage.SERVICE, "The server takes the connection and closes it before any byte"
)

_ON_OTHER_ADDRESSES = (
    "refused/nothing-listening",
    "refused/other-family",
    "refused/other-address",
    "resolution/prefers-other-family",
)
"""What the name's other addresses show, where the server has none of them: it is here, and hangs."""

_HUNG = (Outcome.NOT_ACCEPTED, Outcome.UNANSWERED)


def judge(snapshot: Snapshot) -> Iterator[Finding | Missing]:
    """What became of a connection that the kernel took and the program did not."""
    if snapshot.intent is Intent.BIND:
        return
    for attempt in snapshot.attempts:
        if attempt.outcome.works and isinstance(attempt.acceptance, Unknown) and attempt.acceptance != NOT_NEEDED:
            yield Missing("acceptance", attempt.acceptance)
        elif attempt.outcome.works and _unseen_behind(attempt.behind):
            yield Missing("the far end of the connection", attempt.behind)
    for attempt in failing(snapshot):
        if attempt.acceptance == Known(Acceptance.HALF_OPEN):
            continue  # the program has nothing to take: the handshake was not finished
        if attempt.local and attempt.outcome in _HUNG:
            match attempt.behind:
                case Known(value=behind):
                    yield _not_taken_behind(snapshot, attempt, behind)
                case Unknown():
                    yield from _hung(snapshot, attempt)
        elif attempt.outcome in (Outcome.CLOSED, Outcome.RESET):
            yield _closed(snapshot, attempt)
        else:
            yield from _behind_a_rule(snapshot, attempt)


def _behind_a_rule(snapshot: Snapshot, attempt: Attempt) -> Iterator[Finding]:
    """What the connection would meet without the rule that rejects it: an independent fault, the second to be fixed."""
    walk = deciding_walk(snapshot, attempt)
    if walk is None or not isinstance(snapshot.listeners, Known):
        return
    rows = reached(snapshot.listeners.value, attempt.address, attempt.port)
    match beyond(snapshot, attempt, walk):
        case Suspended() if stopped := _stopped(snapshot, rows):
            yield _process_stopped(snapshot, attempt, rows, stopped)
        case Overfull(row=row):
            yield _full_behind_a_rule(snapshot, attempt, row)
        case _:
            return


def _full_behind_a_rule(snapshot: Snapshot, attempt: Attempt, row: SocketRow) -> Finding:
    return Finding(
        code=ACCEPT_QUEUE_FULL.code,
        title=title(f"The accept queue of {row.local} is full: {row.queue} pending connections, backlog {row.backlog}"),
        severity=severity(snapshot, attempt),
        confidence=Confidence.LIKELY,
        explanation="A firewall rule stops the connection before it gets here. Without that rule the kernel would drop "
        "it without an answer, because the program does not accept the connections that are pending.",
        evidence=(
            Evidence(f"{row_text(row)}: {row.queue} pending connections, backlog {row.backlog}", "sock_diag"),
            *_holder_evidence(snapshot, (row,)),
        ),
        remedies=_wake_up(snapshot, (row,)),
        explains=_ON_OTHER_ADDRESSES,
    )


def _unseen_behind(behind: Fact[Behind]) -> TypeGuard[Unknown]:
    """Whether it should have been seen, and could not be."""
    return isinstance(behind, Unknown) and behind.reason is not Reason.NOT_NEEDED


def _hung(snapshot: Snapshot, attempt: Attempt) -> Iterator[Finding | Missing]:
    match snapshot.listeners:
        case Unknown() as unknown:
            yield Missing("listeners", unknown)
            rows: tuple[SocketRow, ...] = ()
        case Known(value=listening):
            rows = reached(listening, attempt.address, attempt.port)
    hidden = _hidden(snapshot, rows)
    if hidden:
        yield Missing("socket owners", hidden)
    stopped = _stopped(snapshot, rows)
    if stopped:
        yield _process_stopped(snapshot, attempt, rows, stopped)
    if attempt.outcome is Outcome.NOT_ACCEPTED:
        # a stopped one ended the wait early, which proves nothing more; a half-open one is not made for the server
        if not stopped and not attempt.half_open:
            yield _not_accepting(snapshot, attempt, rows)
    elif rows:
        yield from _queue_full(snapshot, attempt)


def _hidden(snapshot: Snapshot, rows: tuple[SocketRow, ...]) -> Unknown | None:
    """Why the holder, whose state matters, is not known."""
    for row in rows:
        match owner(row, snapshot.holders):
            case Hidden(lift=lift):
                return Unknown(Reason.NEEDS_ROOT, f"the holder of {row.local} is hidden", lift)
            case OwnerUnknown(unknown=unknown):
                return unknown
            case _:
                continue
    return None


def _stopped(snapshot: Snapshot, rows: tuple[SocketRow, ...]) -> tuple[Process, ...]:
    """The holders, where every one of them is stopped: a single one that runs could still accept."""
    holders: list[Process] = []
    for row in rows:
        match owner(row, snapshot.holders):
            case Owned(processes=processes):
                holders.extend(processes)
            case _:
                return ()
    return tuple(holders) if holders and all(one.state == "T" for one in holders) else ()


def _process_stopped(
    snapshot: Snapshot, attempt: Attempt, rows: tuple[SocketRow, ...], stopped: tuple[Process, ...]
) -> Finding:
    first = stopped[0]
    return Finding(
        code=PROCESS_STOPPED.code,
        title=title(f"{first.program} (pid {first.pid}) holds {rows[0].local} and is stopped"),
        severity=severity(snapshot, attempt),
        confidence=Confidence.PROVEN,
        explanation="The process is suspended: by Ctrl-Z in its terminal, or by SIGSTOP. The kernel still completes "
        "connections for it until its accept queue is full, so clients connect and then wait for ever."
        + (" Before that, a firewall rule stops this connection." if deciding_walk(snapshot, attempt) else ""),
        evidence=(
            *(Evidence(f"State: T (stopped): {describe_process(one)}", f"/proc/{one.pid}/stat") for one in stopped[:3]),
            *(Evidence(row_text(row), "sock_diag") for row in rows),
            connect_evidence(attempt),
        ),
        remedies=(_continue(snapshot, stopped), _terminate(snapshot, stopped)),
        explains=(NOT_ACCEPTING.code, ACCEPT_QUEUE_FULL.code, *_ON_OTHER_ADDRESSES),
    )


def _continue(snapshot: Snapshot, stopped: tuple[Process, ...]) -> Remedy:
    pids = tuple(str(one.pid) for one in stopped)
    needs_root = any(one.uid != snapshot.vantage.uid for one in stopped)
    return Remedy(
        summary="Let it run on (in its own terminal: fg)",
        commands=(Command(("kill", "-CONT", *pids), needs_root),),
        undo=(Command(("kill", "-STOP", *pids), needs_root),),
        risk=Risk.SAFE,
        survives_reboot=None,
    )


def _terminate(snapshot: Snapshot, stopped: tuple[Process, ...]) -> Remedy:
    pids = tuple(str(one.pid) for one in stopped)
    needs_root = any(one.uid != snapshot.vantage.uid for one in stopped)
    return Remedy(
        summary="Or end it, if it is a leftover: a stopped process acts on SIGTERM only when it goes on. "
        "This cannot be undone; start the program again afterwards.",
        commands=(Command(("kill", "-TERM", *pids), needs_root), Command(("kill", "-CONT", *pids), needs_root)),
        risk=Risk.DISRUPTIVE,
    )


def _not_taken_behind(snapshot: Snapshot, attempt: Attempt, behind: Behind) -> Finding:
    """Something on this machine took it, or NAT led it away, and the server at the far end does not take it."""
    who = (
        f"{behind.forwarder} took our connection and dialled {behind.server}" if behind.forwarder else "NAT leads there"
    )
    if behind.pid == 0:
        return _unanswered_behind(snapshot, attempt, behind, who)
    inside = Command(("netdiag", "run", "--from", f"pid:{behind.pid}", str(behind.server)), needs_root=True)
    ask = (
        dial_instead(behind.server, "Ask about it by its own address: netdiag names the program and its state")
        if behind.here
        else Remedy(summary="Ask from in there: netdiag names the program and its state", commands=(inside,))
    )
    return Finding(
        code=NOT_ACCEPTING.code,
        title=title(f"The server behind {attempt.endpoint}, {behind.server}, does not take the connection"),
        severity=severity(snapshot, attempt),
        confidence=Confidence.PROVEN,
        explanation=f"The connection ends at {behind.server}{'' if behind.here else ' in another network namespace'}, "
        f"and waits in the accept queue there: after {behind.ms / 1000:.1f} s the program had not called accept(2). It "
        "may be stopped, paused, busy or blocked.",
        evidence=(
            connect_evidence(attempt),
            Evidence(who, "/proc/PID/cmdline" if behind.forwarder else "/proc/PID/net/tcp"),
            Evidence(
                f"its end at {behind.server} has no inode",
                "/proc/net/tcp" if behind.here else f"/proc/{behind.pid}/net/tcp",
            ),
        ),
        remedies=(ask,),
        explains=_ON_OTHER_ADDRESSES,
    )


def _unanswered_behind(snapshot: Snapshot, attempt: Attempt, behind: Behind, who: str) -> Finding:
    return Finding(
        code=NOT_ACCEPTING.code,
        title=title(f"The server behind {attempt.endpoint}, {behind.server}, does not answer"),
        severity=severity(snapshot, attempt),
        confidence=Confidence.PROVEN,
        explanation="The connection that you make ends at the forwarder. Its own, to the server behind it, got no "
        f"answer of any kind within {behind.ms / 1000:.1f} s: a firewall between the two swallows it, on this machine "
        "or in there, or nobody has that address any more.",
        evidence=(
            connect_evidence(attempt),
            Evidence(who, "/proc/PID/cmdline"),
            Evidence(f"its connection to {behind.server} is SYN-SENT", "/proc/net/tcp"),
        ),
        remedies=(dial_instead(behind.server, "Ask about the far end: netdiag says what becomes of packets to it"),),
        explains=_ON_OTHER_ADDRESSES,
    )


def _not_accepting(snapshot: Snapshot, attempt: Attempt, rows: tuple[SocketRow, ...]) -> Finding:
    waited = f"{attempt.ms / 1000:.1f} s"
    return Finding(
        code=NOT_ACCEPTING.code,
        title=title(f"The server on {attempt.endpoint} did not accept the connection within {waited}"),
        severity=severity(snapshot, attempt),
        confidence=Confidence.PROVEN,
        explanation="The kernel completed the connection, and it waits in the accept queue: the program has not "
        "called accept(2). It may be busy with another client, blocked, deadlocked, out of file descriptors, or the "
        "socket may have been inherited by a process that knows nothing of it.",
        evidence=(
            Evidence(f"our connection to {attempt.endpoint} has no inode on the server's side", "sock_diag"),
            *(Evidence(f"{row_text(row)}, {row.queue} waiting of {row.backlog}", "sock_diag") for row in rows),
            *_holder_evidence(snapshot, rows),
        ),
        remedies=_wake_up(snapshot, rows),
        explains=_ON_OTHER_ADDRESSES,
    )


def _holder_evidence(snapshot: Snapshot, rows: tuple[SocketRow, ...]) -> tuple[Evidence, ...]:
    return tuple(
        Evidence(f"held by {describe_process(one)}, state {one.state}", "/proc/PID/stat")
        for one in _holders(snapshot, rows)[:3]
    )


def _holders(snapshot: Snapshot, rows: tuple[SocketRow, ...]) -> tuple[Process, ...]:
    found: list[Process] = []
    for row in rows:
        match owner(row, snapshot.holders):
            case Owned(processes=processes):
                found.extend(processes)
            case _:
                continue
    return tuple(found)


def _wake_up(snapshot: Snapshot, rows: tuple[SocketRow, ...]) -> tuple[Remedy, ...]:
    holders = _holders(snapshot, rows)
    if not holders:
        again = Command(("netdiag", "run", snapshot.target.address), needs_root=True)
        return (Remedy(summary="As root, netdiag names the program and shows its state", commands=(again,)),)
    first = holders[0]
    restarts = restart_remedies(first, snapshot.vantage.uid)
    or_else = "" if restarts else " Then restart the program in the way it was started."
    return (
        *restarts,
        Remedy(
            summary=f"See where {first.program} hangs: a stack dump (py-spy dump --pid {first.pid}, jstack, gdb -p), "
            f"or the kernel's view, cat /proc/{first.pid}/wchan.{or_else} If it comes back under load, give it more "
            "workers; if it has run out of file descriptors, raise its limit.",
            risk=Risk.DISRUPTIVE,
        ),
    )


def _queue_full(snapshot: Snapshot, attempt: Attempt) -> Iterator[Finding | Missing]:
    match attempt.queue:
        case Unknown(reason=Reason.NOT_NEEDED):
            return
        case Unknown() as unknown:
            yield Missing("listener's queue", unknown)
            return
        case Known(value=witness):
            if witness.queue <= witness.backlog:
                return
    netfilter = isinstance(attempt.drops, Known) and any(d.reason == "NETFILTER_DROP" for d in attempt.drops.value)
    proven = witness.dropped_ours and not netfilter
    rows = snapshot.listeners.value if isinstance(snapshot.listeners, Known) else ()
    covering = reached(rows, attempt.address, attempt.port)
    yield Finding(
        code=ACCEPT_QUEUE_FULL.code,
        title=title(f"The accept queue of {witness.listener} is full: {witness.queue} wait, {witness.backlog} may"),
        severity=severity(snapshot, attempt),
        confidence=Confidence.PROVEN if proven else Confidence.LIKELY,
        explanation="Connections arrive faster than the program takes them, or it takes none at all. The kernel drops "
        "further ones without an answer, which feels like a firewall.",
        evidence=(
            Evidence(f"{witness.queue} connections wait, the backlog is {witness.backlog}", "sock_diag"),
            Evidence(
                f"the listener's own drop counter: {witness.drops_before} before our probe, "
                f"{witness.drops_after} after it",
                "sock_diag SKMEMINFO",
            ),
            *_holder_evidence(snapshot, covering),
            connect_evidence(attempt),
        ),
        remedies=_wake_up(snapshot, covering),
        explains=_ON_OTHER_ADDRESSES,
    )


def _who_closed(snapshot: Snapshot, attempt: Attempt) -> Confidence:
    """Proven where the program was seen to have taken it; a reset without that may be the doing of NAT rules."""
    if not attempt.local or attempt.acceptance == Known(Acceptance.ACCEPTED):
        return Confidence.PROVEN
    match snapshot.firewall:
        case Known(value=shadow):
            walk = shadow.walk(attempt.address)
            plain = walk is not None and walk.verdict == "accept" and walk.arrives is None
            return Confidence.LIKELY if plain else Confidence.POSSIBLE
        case Unknown():
            return Confidence.POSSIBLE if attempt.outcome is Outcome.RESET else Confidence.LIKELY


def _closed(snapshot: Snapshot, attempt: Attempt) -> Finding:
    how = "reset" if attempt.outcome is Outcome.RESET else "closed"
    rows = snapshot.listeners.value if isinstance(snapshot.listeners, Known) else ()
    holding = reached(rows, attempt.address, attempt.port) if attempt.local else ()
    return Finding(
        code=CLOSES_AT_ONCE.code,
        title=title(f"The server on {attempt.endpoint} took the connection and {how} it at once"),
        severity=severity(snapshot, attempt),
        confidence=_who_closed(snapshot, attempt),
        explanation="The connection was made, and ended by the other side before it sent or got a single byte. A "
        "forwarder does that when what it forwards to refuses (a published container port, ssh -L, an IDE's port "
        "forward), a server when it does not want this client (an access list, too many clients), and a socket unit "
        "whose service fails.",
        evidence=(
            Evidence(f"connect to {attempt.endpoint}: made, then {how} before any byte", "recv(2)"),
            *_holder_evidence(snapshot, holding),
        ),
        remedies=(
            Remedy(
                summary="Read the log of the program that took it: it knows why. If it is a forwarder, look "
                "whether the far side listens, on an address it can reach (in a container: 0.0.0.0, not 127.0.0.1)."
            ),
        ),
        explains=_ON_OTHER_ADDRESSES,
    )


CHECK = Check("hung", (ACCEPT_QUEUE_FULL, PROCESS_STOPPED, NOT_ACCEPTING, CLOSES_AT_ONCE), judge)
