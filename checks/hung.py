"""hung: it is there, the kernel answers for it, and nothing comes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeGuard

from msgspec.structs import replace

from diagnose.analysis import unit_words
from diagnose.analysis.acceptors import acceptors
from diagnose.analysis.activation import Activation, ended, fails, serving, still_activating
from diagnose.analysis.argument import is_unit
from diagnose.analysis.beyond import Overfull, Suspended, beyond, deciding_walk
from diagnose.analysis.describe import describe_process, is_service_manager, restart_remedies
from diagnose.analysis.freezing import freezer_evidence, frozen_acceptors, frozen_name, thaw_remedies
from diagnose.analysis.owner import Hidden, Owned, OwnerUnknown, owner
from diagnose.analysis.reach import failing, reached, severity, unmapped
from diagnose.analysis.succession import (
    Gone,
    Replaced,
    succession,
    succession_evidence,
    succession_text,
)
from diagnose.analysis.wording import connect_evidence, dial_instead, pending, row_text, title
from diagnose.model.attempt import Acceptance, Attempt, Behind, Outcome, QueueWitness
from diagnose.model.check import Check
from diagnose.model.fact import NOT_NEEDED, Fact, Known, Missing, Reason, Unknown
from diagnose.model.finding import Cause, Command, Confidence, Evidence, Finding, Remedy, Risk, Stage
from diagnose.model.freezer import FrozenCgroup
from diagnose.model.network import SocketRow, TcpState, is_loopback
from diagnose.model.process import Process
from diagnose.model.snapshot import Snapshot
from diagnose.model.target import Intent

ACCEPT_QUEUE_FULL = Cause(
    "hung/accept-queue-full", Stage.SOCKET, "The accept queue is full: the program does not accept connections"
)
FROZEN = Cause(
    "hung/frozen", Stage.PROCESS, "The cgroup of the server is frozen (systemctl freeze): the kernel holds it still"
)
PROCESS_STOPPED = Cause("hung/process-stopped", Stage.PROCESS, "The process is stopped (Ctrl-Z, SIGSTOP)")
NOT_ACCEPTING = Cause(
    "hung/not-accepting", Stage.PROCESS, "The kernel completes the connection, the program does not accept it"
)

CLOSES_AT_ONCE = Cause(
    "hung/closes-at-once", Stage.SERVICE, "The server accepts the connection and closes it before any byte"
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
            # the program has nothing to accept: the handshake was not finished, for want of room in the queue or by a
            # rule, which is the firewall's business
            yield from _queue_full(snapshot, attempt)
            continue
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
    listening = snapshot.listeners.value if isinstance(snapshot.listeners, Known) else ()
    rows = reached(listening, attempt.address, attempt.port)
    walk = deciding_walk(snapshot, attempt) if rows else None
    if walk is None:
        return
    match beyond(snapshot, attempt, walk):
        case Suspended() if frozen := frozen_acceptors(snapshot, rows):
            yield from _frozen(snapshot, attempt, rows, frozen)
        case Suspended() if stopped := _stopped(snapshot, rows):
            yield _process_stopped(snapshot, attempt, rows, stopped)
        case Overfull(row=row):
            yield _full_behind_a_rule(snapshot, attempt, row)
        case _:
            return


def _full_behind_a_rule(snapshot: Snapshot, attempt: Attempt, row: SocketRow) -> Finding:
    return Finding(
        code=ACCEPT_QUEUE_FULL.code,
        title=title(f"The accept queue of {row.local} is full: {pending(row.queue, row.backlog)}"),
        severity=severity(snapshot, attempt),
        confidence=Confidence.LIKELY,
        explanation="A firewall rule stops the connection before it gets here. Without that rule the kernel would drop "
        "it without an answer, because the program does not accept the connections that are pending.",
        evidence=(
            Evidence(f"{row_text(row)}: {pending(row.queue, row.backlog)}", "sock_diag"),
            *_holder_evidence(snapshot, (row,)),
        ),
        remedies=_wake_up(snapshot, attempt, (row,)),
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
    if still_activating(snapshot, attempt):
        return  # nothing hangs: the service is on its way
    activated = serving(snapshot, attempt)
    hidden = _hidden(snapshot, rows)
    if hidden and not activated:
        yield Missing("socket owners", hidden)
    stopped = _stopped(snapshot, rows)
    if stopped:
        yield _process_stopped(snapshot, attempt, rows, stopped)
    frozen = frozen_acceptors(snapshot, _with_our_connection(snapshot, rows))
    if frozen is not None:
        yield from _frozen(snapshot, attempt, rows, frozen)
    elif isinstance(snapshot.freezers, Unknown) and snapshot.freezers != NOT_NEEDED and rows:
        yield Missing("frozen cgroups", snapshot.freezers)
    if attempt.overflowed:
        yield from _overflowed(snapshot, attempt, rows)
    elif attempt.outcome is Outcome.NOT_ACCEPTED:
        # a stopped or frozen one ended the wait early, which proves nothing more; a half-open one is not made for the
        # server
        if not stopped and frozen is None and not attempt.half_open:
            found = _not_accepting(snapshot, attempt, rows)
            yield _not_accepted_by_service(snapshot, attempt, activated, found) if activated else found
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
    """Those that should accept, where every one of them is stopped: a single one that runs could still accept."""
    ours = _with_our_connection(snapshot, rows)
    if any(not isinstance(owner(row, snapshot.holders), Owned) for row in ours):
        return ()
    should = acceptors(_holders(snapshot, ours)).likely
    stopped = tuple(one for one in _holders(snapshot, ours) if one.state == "T")
    return stopped if should and all(one.state == "T" for one in should) else ()


def _with_our_connection(snapshot: Snapshot, rows: tuple[SocketRow, ...]) -> tuple[SocketRow, ...]:
    """Of several sockets that share the port (SO_REUSEPORT) the one in whose queue our connection can wait.

    The kernel chooses one of them for each connection, and a server that accepts has emptied its queue a moment later.
    """
    if len(rows) < 2 or not isinstance(snapshot.later, Known):
        return rows
    waiting = {row.inode for row in snapshot.later.value.listeners if row.queue}
    ours = tuple(row for row in rows if row.inode in waiting)
    return ours or rows


def _process_stopped(
    snapshot: Snapshot, attempt: Attempt, rows: tuple[SocketRow, ...], stopped: tuple[Process, ...]
) -> Finding:
    first = acceptors(stopped).likely[0]
    everyone = all(_is_stopped(snapshot, row) for row in rows)
    running = "" if everyone else f" {_who_runs(snapshot, rows)}"
    return Finding(
        code=PROCESS_STOPPED.code,
        title=title(f"{first.program} (pid {first.pid}) holds {rows[0].local} and is stopped"),
        severity=severity(snapshot, attempt),
        confidence=Confidence.PROVEN if everyone else Confidence.LIKELY,
        explanation="The process is suspended: by Ctrl-Z in its terminal, or by SIGSTOP. The kernel still completes "
        f"connections for it until its accept queue is full, so clients connect and then wait.{running}"
        + (" Before that, a firewall rule stops this connection." if deciding_walk(snapshot, attempt) else ""),
        evidence=(
            *(Evidence(f"State: T (stopped): {describe_process(one)}", f"/proc/{one.pid}/stat") for one in stopped[:3]),
            *(Evidence(row_text(row), "sock_diag") for row in rows),
            connect_evidence(attempt),
        ),
        remedies=(_continue(snapshot, stopped), _terminate(snapshot, stopped)),
        explains=(NOT_ACCEPTING.code, ACCEPT_QUEUE_FULL.code, *_ON_OTHER_ADDRESSES),
    )


def _who_runs(snapshot: Snapshot, rows: tuple[SocketRow, ...]) -> str:
    """What the holders are there for that are not stopped."""
    masters = [one for one in acceptors(_holders(snapshot, rows)).masters if one.state != "T"]
    if masters:
        one = masters[0]
        return f"Its master, {one.program} (pid {one.pid}), runs, and as a rule leaves accepting to its workers."
    return (
        "Another process has a socket on the same port (SO_REUSEPORT) and may run: it gets a part of the connections."
    )


def _is_stopped(snapshot: Snapshot, row: SocketRow) -> bool:
    """Whether every holder of this socket is known, and stopped."""
    match owner(row, snapshot.holders):
        case Owned(processes=processes):
            return all(one.state == "T" for one in processes)
        case _:
            return False


def _frozen(
    snapshot: Snapshot, attempt: Attempt, rows: tuple[SocketRow, ...], frozen: FrozenCgroup
) -> Iterator[Finding]:
    """A frozen container is the container check's to name."""
    if frozen.container is not None:
        return
    known = all(isinstance(owner(row, snapshot.holders), Owned) for row in rows)
    by_socket = () if known else (Evidence(f"the socket was created in {frozen.directory}", "sock_diag"),)
    yield Finding(
        code=FROZEN.code,
        title=title(f"{frozen_name(frozen)}, which serves {attempt.endpoint}, is frozen"),
        severity=severity(snapshot, attempt),
        confidence=Confidence.PROVEN if known else Confidence.LIKELY,
        explanation="The kernel holds every process of that cgroup still (systemctl freeze, or a write into its "
        "freezer). It still completes connections for them until the accept queue is full, so clients connect and "
        "then wait."
        + (" Before that, a firewall rule stops this connection." if deciding_walk(snapshot, attempt) else ""),
        evidence=(
            *freezer_evidence(frozen),
            *by_socket,
            *(Evidence(row_text(row), "sock_diag") for row in rows),
            *_holder_evidence(snapshot, rows),
            connect_evidence(attempt),
        ),
        remedies=thaw_remedies(snapshot, frozen),
        explains=(NOT_ACCEPTING.code, ACCEPT_QUEUE_FULL.code, *_ON_OTHER_ADDRESSES),
    )


def _continue(snapshot: Snapshot, stopped: tuple[Process, ...]) -> Remedy:
    pids = tuple(str(one.pid) for one in stopped)
    needs_root = any(one.uid != snapshot.vantage.reader_uid for one in stopped)
    return Remedy(
        summary="Resume it (in its own terminal: fg)",
        commands=(Command(("kill", "-CONT", *pids), needs_root),),
        undo=(Command(("kill", "-STOP", *pids), needs_root),),
        risk=Risk.SAFE,
        survives_reboot=None,
    )


def _terminate(snapshot: Snapshot, stopped: tuple[Process, ...]) -> Remedy:
    pids = tuple(str(one.pid) for one in stopped)
    needs_root = any(one.uid != snapshot.vantage.reader_uid for one in stopped)
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
        f"answer of any kind within {behind.ms / 1000:.1f} s: a firewall between the two may swallow it, on this "
        "machine or inside the namespace, its accept queue may be full, or no machine has that address any more.",
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
    ours = _with_our_connection(snapshot, rows)
    return Finding(
        code=NOT_ACCEPTING.code,
        title=title(f"The server on {attempt.endpoint} did not accept the connection within {waited}"),
        severity=severity(snapshot, attempt),
        confidence=Confidence.PROVEN,
        explanation="The kernel completed the connection, and it waits in the accept queue: no program has "
        f"called accept(2) for it. {_why_not(snapshot, attempt)}",
        evidence=(
            Evidence(f"our connection to {attempt.endpoint} has no inode on the server's side", "sock_diag"),
            *(Evidence(f"{row_text(row)}: {pending(row.queue, row.backlog)}", "sock_diag") for row in ours),
            *_holder_evidence(snapshot, ours),
            *_clients(snapshot, attempt),
        ),
        remedies=_wake_up(snapshot, attempt, ours),
        explains=_ON_OTHER_ADDRESSES,
    )


def _not_accepted_by_service(snapshot: Snapshot, attempt: Attempt, found: Activation, plain: Finding) -> Finding:
    """A socket unit opened the port, so its service is what does not accept; never the service manager."""
    socket, service = unit_words.name(found.socket), found.service
    uid = snapshot.vantage.reader_uid
    opened_by = f"systemd opened the port for {socket}, and completes connections before a service runs"
    if service is None or not unit_words.is_down(service):
        runs = f"{unit_words.name(service)} {unit_words.state(service)}" if service else "its service is not known"
        main = f" (main pid {service.main})" if service and service.main else ""
        text, titled = f"{opened_by}; {runs}{main}, and has not accepted it.", plain.title
    else:
        text = f"{opened_by}; {unit_words.name(service)}, which is to accept it, {unit_words.state(service)}."
        how = "fails" if fails(service) else "does not run"
        titled = title(f"{unit_words.name(service)}, which is to accept for {attempt.endpoint}, {how}")
    return replace(
        plain,
        title=titled,
        explanation="The kernel completed the connection, and it waits in the accept queue: no program has called "
        f"accept(2) for it. {text}",
        evidence=(
            *plain.evidence,
            unit_words.evidence(found.socket),
            *((unit_words.evidence(service),) if service else ()),
        ),
        remedies=_by_units(snapshot, attempt, found, plain.remedies, uid),
    )


def _by_units(
    snapshot: Snapshot, attempt: Attempt, found: Activation, plain: tuple[Remedy, ...], uid: int
) -> tuple[Remedy, ...]:
    service = found.service
    if service is not None and service.active == "active" and not fails(service) and is_unit(service.name):
        own = isinstance(snapshot.units, Known) and snapshot.units.value.ours == service.name
        restart = () if own else (unit_words.restart_service(service, uid),)
        return (*restart, *(one for one in plain if not one.commands and service.main))
    helping = tuple(unit_words.activation_remedies(found, attempt.port, (attempt.family,), uid))
    return helping or (
        Remedy(summary="See what systemd says of both units (systemctl status), and read the log of the service."),
    )


def _why_not(snapshot: Snapshot, attempt: Attempt) -> str:
    served = _served(snapshot, attempt)
    if served:
        first, row = served[0]
        others = f" and {len(served) - 1} more" if len(served) > 1 else ""
        return (
            f"{first.program} (pid {first.pid}) has the connection of another client open, from {row.peer}{others}: a "
            "server that serves one client at a time accepts no other until that one is done. It may also be blocked, "
            "or out of file descriptors."
        )
    return (
        "It may be busy, blocked, deadlocked, out of file descriptors, or the socket may have been inherited by a "
        "process that does not use it."
    )


def _served(snapshot: Snapshot, attempt: Attempt) -> tuple[tuple[Process, SocketRow], ...]:
    """The accepted connections on this port, each with the process that has it; not our own."""
    rows = snapshot.sockets.value if isinstance(snapshot.sockets, Known) else ()
    found: list[tuple[Process, SocketRow]] = []
    for row in rows:
        if row.state is not TcpState.ESTABLISHED or not row.inode or row.peer == attempt.source:
            continue
        if unmapped(row.local.address) != unmapped(attempt.address):
            continue
        match owner(row, snapshot.holders):
            case Owned(processes=(process, *_)):
                found.append((process, row))
            case _:
                continue
    return tuple(found)


def _clients(snapshot: Snapshot, attempt: Attempt) -> tuple[Evidence, ...]:
    return tuple(
        Evidence(f"{process.program} (pid {process.pid}) has a connection from {row.peer} open", "sock_diag")
        for process, row in _served(snapshot, attempt)[:3]
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


def _wake_up(snapshot: Snapshot, attempt: Attempt, rows: tuple[SocketRow, ...]) -> tuple[Remedy, ...]:
    holders = _holders(snapshot, rows)
    if not holders:
        if snapshot.vantage.privileged:
            return (Remedy(summary=f"No process was seen that holds it: ss -ltnp 'sport = :{attempt.port}' names it."),)
        again = Command(("netdiag", "run", snapshot.target.address), needs_root=True)
        return (Remedy(summary="As root, netdiag names the program and shows its state", commands=(again,)),)
    suspects = _suspects(snapshot, attempt, holders)
    if all(is_service_manager(one) for one in suspects):
        return (
            Remedy(
                summary="systemd holds the port for a socket unit, and leaves accepting to a service: systemctl "
                "list-sockets names both, and systemctl status says what keeps the service."
            ),
        )
    restarts = restart_remedies(suspects[0], snapshot.vantage.reader_uid, snapshot.units)
    or_else = "" if restarts else " Then restart the program in the way it was started."
    return (
        *_free(snapshot, attempt),
        *restarts,
        Remedy(
            summary=f"See where {_one_of(suspects)} hangs: {_dump(suspects)}.{or_else} If it comes back under load, "
            "give it more workers or threads; if it has run out of file descriptors, raise its limit.",
            risk=Risk.DISRUPTIVE,
        ),
    )


def _free(snapshot: Snapshot, attempt: Attempt) -> tuple[Remedy, ...]:
    """What frees a server that serves one client at a time."""
    served = _served(snapshot, attempt)
    if not served:
        return ()
    peer = served[0][1].peer
    client = (
        f"ss -tnp 'sport = :{peer.port}' names it"
        if is_loopback(peer.address)
        else f"it is on the machine {peer.address}"
    )
    return (
        Remedy(
            summary=f"If the server serves one client at a time: end the client that has the connection from {peer} "
            f"({client}), such as a browser tab or a connection pool, and give the server threads or more workers "
            "(gunicorn --threads 4, flask run without --without-threads)."
        ),
    )


def _suspects(snapshot: Snapshot, attempt: Attempt, holders: tuple[Process, ...]) -> tuple[Process, ...]:
    """Those that should accept; where some of them have clients already, these."""
    should = acceptors(holders).likely
    busy = {process.pid for process, _ in _served(snapshot, attempt)}
    return tuple(one for one in should if one.pid in busy) or should


def _one_of(suspects: tuple[Process, ...]) -> str:
    first = suspects[0]
    if len(suspects) == 1:
        return f"{first.program} (pid {first.pid})"
    pids = ", ".join(str(one.pid) for one in suspects[:_NAMED])
    more = f" and {len(suspects) - _NAMED} more" if len(suspects) > _NAMED else ""
    names = " or ".join(dict.fromkeys(one.program for one in suspects[:_NAMED]))
    return f"{names} (any of the pids {pids}{more}: each of them may accept)"


_NAMED = 4


def _dump(suspects: tuple[Process, ...]) -> str:
    """The tool that shows the stacks of such a program; for any, the kernel's view."""
    pid = suspects[0].pid if len(suspects) == 1 else "PID"
    return f"a stack dump ({_dumper(suspects[0])} {pid}), or the kernel's view, cat /proc/{pid}/wchan"


def _dumper(process: Process) -> str:
    runs = (process.executable or process.program).rpartition("/")[2]
    if runs.startswith(("python", "pypy")) or process.program in ("gunicorn", "uvicorn", "flask"):
        return "py-spy dump --pid"
    return "jstack" if runs == "java" else "gdb -p"


def _overflowed(snapshot: Snapshot, attempt: Attempt, rows: tuple[SocketRow, ...]) -> Iterator[Finding]:
    """Our SYN was answered while there was room, and by the time of our ACK there was none."""
    counted = isinstance(attempt.queue, Known) and attempt.queue.value.overflowed
    row = rows[0] if rows else None
    length = _length(attempt.queue, row)
    yield Finding(
        code=ACCEPT_QUEUE_FULL.code,
        title=title(f"The accept queue of {row.local if row else attempt.endpoint} is full{length}"),
        severity=severity(snapshot, attempt),
        confidence=Confidence.PROVEN if counted else Confidence.LIKELY,
        explanation="For the client the connection is established. On the server's side it has no room in the accept "
        "queue, so the kernel drops the client's last ACK until the program accepts others: the client waits.",
        evidence=(
            Evidence(f"the server's end of our connection to {attempt.endpoint} is SYN-RECV", "sock_diag"),
            *_queue_evidence(attempt),
            *_holder_evidence(snapshot, rows),
            connect_evidence(attempt),
        ),
        remedies=_wake_up(snapshot, attempt, rows),
        explains=(*_ON_OTHER_ADDRESSES, "firewall/silent"),
    )


def _length(queue: Fact[QueueWitness], row: SocketRow | None) -> str:
    """How full the queue is, as far as that was read, as the end of a title."""
    match queue:
        case Known(value=witness) if witness.queue > witness.backlog:
            return f": {pending(witness.queue, witness.backlog)}"
        case _:
            return f": backlog {row.backlog}" if row else ""


def _queue_evidence(attempt: Attempt) -> tuple[Evidence, ...]:
    match attempt.queue:
        case Known(value=witness):
            return (
                Evidence(pending(witness.queue, witness.backlog), "sock_diag"),
                Evidence(
                    f"the listener's own drop counter: {witness.drops_before} before our attempt, "
                    f"{witness.drops_after} after it",
                    "sock_diag SKMEMINFO",
                ),
            )
        case Unknown():
            return ()


def _queue_full(snapshot: Snapshot, attempt: Attempt) -> Iterator[Finding | Missing]:
    match attempt.queue:
        case Unknown(reason=Reason.NOT_NEEDED):
            return
        case Unknown() as unknown:
            yield Missing("listener's queue", unknown)
            return
        case Known(value=witness):
            pass
    drops = attempt.drops.value if isinstance(attempt.drops, Known) else ()
    elsewhere = any(one.reason in _DROPPED_ELSEWHERE for one in drops)
    full = witness.queue > witness.backlog and attempt.outcome is Outcome.UNANSWERED
    if not full and (elsewhere or not witness.overflowed):
        return
    rows = snapshot.listeners.value if isinstance(snapshot.listeners, Known) else ()
    covering = reached(rows, attempt.address, attempt.port)
    lost = witness.drops_after - witness.drops_before
    packets = "a packet" if lost == 1 else f"{lost} packets"
    room = (
        "It has room again by now: it is full for moments, when more clients come at once than the program accepts. A "
        "client whose packet is dropped tries again after a second."
    )
    yield Finding(
        code=ACCEPT_QUEUE_FULL.code,
        title=title(
            f"The accept queue of {witness.listener} is full: {pending(witness.queue, witness.backlog)}"
            if full
            else f"The accept queue of {witness.listener} was full and dropped {packets}"
        ),
        severity=severity(snapshot, attempt),
        confidence=Confidence.PROVEN if full and witness.dropped_ours and not elsewhere else Confidence.LIKELY,
        explanation="Connections arrive faster than the program accepts them, or it accepts none at all. The kernel "
        f"drops further ones without an answer, which feels like a firewall.{'' if full else ' ' + room}",
        evidence=(
            *_queue_evidence(attempt),
            *(
                (Evidence(f"ListenOverflows rose by {witness.overflows} meanwhile", "/proc/net/netstat"),)
                if witness.overflows and not full
                else ()
            ),
            *_holder_evidence(snapshot, covering),
            connect_evidence(attempt),
        ),
        remedies=_wake_up(snapshot, attempt, covering),
        explains=(*_ON_OTHER_ADDRESSES, "firewall/silent"),
    )


_DROPPED_ELSEWHERE = ("NETFILTER_DROP", "SOCKET_FILTER", "BPF_CGROUP_EGRESS", "TC_INGRESS", "TC_EGRESS")
"""Why the kernel freed our packet, where it was not for want of room in the queue."""


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
    became = succession(snapshot, attempt) if attempt.local else None
    activated = ended(snapshot, attempt) if attempt.local else None
    if activated and (blamed := _closed_by_service(snapshot, attempt, activated)):
        return blamed
    left = isinstance(became, Gone | Replaced)  # which a forwarder does not do
    return Finding(
        code=CLOSES_AT_ONCE.code,
        title=title(f"The server on {attempt.endpoint} {how} the connection before any byte"),
        severity=severity(snapshot, attempt),
        confidence=_who_closed(snapshot, attempt),
        explanation=f"The connection was established, and the other side {how} it before a single byte went either "
        f"way.{'' if left else ' ' + _WHY_IT_CLOSES}{' ' + succession_text(became) if became else ''}",
        evidence=(
            Evidence(f"connect to {attempt.endpoint}: established, then {how} before any byte", "recv(2)"),
            *(_past_holders(snapshot, holding) if left else _holder_evidence(snapshot, holding)),
            *((succession_evidence(became),) if became else ()),
        ),
        remedies=(_FIND_WHY_IT_ENDS,) if left else (_READ_THE_LOG,),
        explains=_ON_OTHER_ADDRESSES,
    )


def _closed_by_service(snapshot: Snapshot, attempt: Attempt, found: Activation) -> Finding | None:
    """A socket unit took the connection, and the service that it starts failed; None: systemd says of no failure."""
    socket, service = found.socket, found.service
    full = socket.accept and service is None and 0 < socket.most_connections <= socket.connections
    if not (full or socket.active == "failed" or (service is not None and fails(service))):
        return None
    how = "reset" if attempt.outcome is Outcome.RESET else "closed"
    name = unit_words.name(service or socket)
    short = unit_words.short_name(service or socket)
    if full:
        titled = f"{unit_words.name(socket)} has reached MaxConnections={socket.most_connections}"
        text = f"{unit_words.name(socket)} runs {socket.connections} instances, and closes further connections at once."
    else:
        titled = f"{short} fails, and the connection to {attempt.endpoint} was {how}"
        text = f"{name}, which should serve it, {unit_words.state(service or socket)}."
    if service is not None and socket.active == "failed":
        text += f" By that {unit_words.name(socket)} {unit_words.state(socket)}, and the port is closed now."
    return Finding(
        code=CLOSES_AT_ONCE.code,
        title=title(titled),
        severity=severity(snapshot, attempt),
        confidence=Confidence.PROVEN,
        explanation=f"systemd took the connection for {unit_words.name(socket)}, and it was {how} before any byte. "
        f"{text}",
        evidence=(
            Evidence(f"connect to {attempt.endpoint}: established, then {how} before any byte", "recv(2)"),
            unit_words.evidence(socket),
            *((unit_words.evidence(service),) if service else ()),
        ),
        remedies=(
            tuple(unit_words.activation_remedies(found, attempt.port, (attempt.family,), snapshot.vantage.reader_uid))
            or (_READ_THE_LOG,)
        ),
        explains=_ON_OTHER_ADDRESSES,
    )


_WHY_IT_CLOSES = (
    "A forwarder ends a connection in this way when what it forwards to refuses (a published container port, ssh -L, "
    "an IDE's port forward), a server when it does not want this client (an access list, too many clients) or when it "
    "crashes, and a socket unit when its service fails."
)
_READ_THE_LOG = Remedy(
    summary="Read the log of the program that accepted it: it knows why. If it is a forwarder, look whether the far "
    "side listens, on an address it can reach (in a container: 0.0.0.0, not 127.0.0.1)."
)


_FIND_WHY_IT_ENDS = Remedy(
    summary="Find out why the server ends: the last lines of its log, its exit status (systemctl status UNIT; docker "
    "ps -a shows Restarting or Exited), or start it in a terminal and connect again. If the kernel killed it, dmesg "
    "says so."
)


def _past_holders(snapshot: Snapshot, rows: tuple[SocketRow, ...]) -> tuple[Evidence, ...]:
    """Who had a socket that is gone since; the state that was seen is over."""
    return tuple(
        Evidence(f"was held by {describe_process(one)}", "/proc/PID/stat") for one in _holders(snapshot, rows)[:3]
    )


CHECK = Check(
    "hung",
    (ACCEPT_QUEUE_FULL, FROZEN, PROCESS_STOPPED, NOT_ACCEPTING, CLOSES_AT_ONCE),
    judge,
    premises=("names", "links"),
)
