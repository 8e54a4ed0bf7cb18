"""in-use: something has the port, or the address and port may not be had."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import assert_never

from diagnose.analysis.activation import units_that_hold
from diagnose.analysis.bind_conflict import Conflict, conflict
from diagnose.analysis.describe import (
    describe_owner,
    describe_process,
    halted,
    state_sentence,
    stop_remedies,
    user_words,
)
from diagnose.analysis.freezing import freezer_of_rows, frozen_sentence, thawed_first
from diagnose.analysis.owner import Hidden, Owned, OwnerUnknown, Unheld, owner
from diagnose.analysis.publication import (
    DIALS_INSIDE,
    RESERVES,
    Publication,
    callable_name,
    containers_of,
    entry_evidence,
    is_of_an_engine,
    publications,
)
from diagnose.analysis.reach import listeners_on, reached
from diagnose.analysis.succession import gone_since
from diagnose.analysis.wording import row_text, title
from diagnose.model.attempt import BindAttempt, Outcome
from diagnose.model.check import Check
from diagnose.model.fact import Fact, Known, Missing, Reason, Unknown
from diagnose.model.finding import Cause, Command, Confidence, Edit, Evidence, Finding, Remedy, Risk, Severity, Stage
from diagnose.model.network import Endpoint, SocketRow, TcpState, family_of, is_wildcard
from diagnose.model.process import Process
from diagnose.model.snapshot import Snapshot
from diagnose.model.target import Intent
from diagnose.model.unit import Units

LISTENER = Cause("in-use/listener", Stage.SOCKET, "A process already listens on this address and port")
OVERLAPPING_ADDRESS = Cause(
    "in-use/overlapping-address", Stage.SOCKET, "A listener on a wildcard or another form of the address has the port"
)
TIME_WAIT = Cause("in-use/time-wait", Stage.SOCKET, "Closed connections of the last run keep the port for a minute")
OUTBOUND_CONNECTION = Cause(
    "in-use/outbound-connection", Stage.SOCKET, "A client's own end of a connection was given this port"
)
PRIVILEGED_PORT = Cause("in-use/privileged-port", Stage.SOCKET, "The port is for root only on this machine")
ADDRESS_NOT_LOCAL = Cause("in-use/address-not-local", Stage.SOCKET, "No interface of this machine has the address")
BOUND_NOT_LISTENING = Cause(
    "in-use/bound-not-listening", Stage.SOCKET, "A socket is bound to the port without listening: most tools hide it"
)
SELF_CONNECTED = Cause("in-use/self-connected", Stage.SOCKET, "A client has connected to itself and has the port")
LEFTOVER_CONNECTION = Cause(
    "in-use/leftover-connection", Stage.SOCKET, "A connection without a listener still has the port"
)
CONTAINER_PORT = Cause("in-use/container-port", Stage.SOCKET, "A container engine keeps the port open for a container")

_EVIDENCE_ROWS = 4
_KILLED_ONE_BY_ONE = 4
"""Up to so many connections are ended each by a command of its own."""
_USUAL_SHIFT = 8000
"""80 becomes 8080 and 443 8443: the custom for servers without root."""


def judge(snapshot: Snapshot) -> Iterator[Finding | Missing]:
    """What stands in the way of a bind; for a connect, who listens there, as information."""
    if snapshot.intent is Intent.CONNECT:
        yield from _listening(snapshot)
        return
    named: set[tuple[str, str]] = set()
    for said in _bind_side(snapshot):
        if isinstance(said, Finding):
            if (said.code, said.title) in named:
                continue  # one socket in the way of two addresses
            named.add((said.code, said.title))
        yield said


def _listening(snapshot: Snapshot) -> Iterator[Finding | Missing]:
    """The listeners that the dialled addresses reach."""
    match snapshot.listeners:
        case Unknown() as unknown:
            yield Missing("listeners", unknown)
            return
        case Known(value=rows):
            pass
    port = snapshot.target.port
    unnamed = snapshot.only_looked and isinstance(snapshot.names, Unknown)
    reaching = {row for address in _addresses(snapshot) for row in reached(rows, address, port)}
    for found in _by_endpoint(listeners_on(rows, port) if unnamed else reaching):
        gone = gone_since(snapshot, found)
        held = [row for row in found if row not in gone]
        if not held:
            yield _listened(snapshot, gone)
            continue
        yield from _hidden_owners(snapshot, held)
        yield Finding(
            code=LISTENER.code,
            title=title(_listens(snapshot, held)),
            severity=Severity.INFO,
            confidence=Confidence.PROVEN,
            explanation="This is who listens on the port; what the name means is not known."
            if unnamed
            else "This is who listens there.",
            evidence=_row_evidence(snapshot, held),
        )


def _listened(snapshot: Snapshot, gone: Sequence[SocketRow]) -> Finding:
    """A listener that was gone by the second look: a holder that was not seen may have ended, and is not hidden."""
    processes = _holders(snapshot, gone)
    who = _who(snapshot, gone) if processes else "A program"
    since = f"{snapshot.later.value.ms:.0f} ms after the attempt" if isinstance(snapshot.later, Known) else "now"
    return Finding(
        code=LISTENER.code,
        title=title(f"{who} listened on {gone[0].local} until a moment ago"),
        severity=Severity.INFO,
        confidence=Confidence.PROVEN,
        explanation="The program that listened there has ended, or has closed its socket."
        + _listens_now(snapshot, gone),
        evidence=(
            *(Evidence(row_text(one), "sock_diag") for one in gone[:_EVIDENCE_ROWS]),
            Evidence(f"{since} {'this socket is' if len(gone) == 1 else 'these sockets are'} gone", "sock_diag"),
            *(Evidence(f"was held by {describe_process(one)}", "/proc/PID/fd") for one in processes[:_EVIDENCE_ROWS]),
        ),
    )


def _listens_now(snapshot: Snapshot, gone: Sequence[SocketRow]) -> str:
    """Who has taken the place of a listener that is gone, as a sentence; empty: nobody."""
    if isinstance(snapshot.later, Unknown):
        return ""
    later = snapshot.later.value
    new = [row for row in later.listeners if row.local == gone[0].local]
    if not new:
        return ""
    seen = snapshot.with_holders(later.holders)
    if not _holders(seen, new):
        return " Now another socket listens there."
    return f" Now {_who(seen, new)} {_verb(seen, new, 'listens', 'listen')} there."


def _bind_side(snapshot: Snapshot) -> Iterator[Finding | Missing]:
    for tried in snapshot.binds:
        match tried.outcome:
            case Outcome.ADDRESS_IN_USE:
                yield from _in_use(snapshot, tried.address, Severity.PROBLEM)
            case Outcome.DENIED if tried.call == "bind":
                yield from _denied(snapshot, tried)
            case Outcome.ADDRESS_UNAVAILABLE:
                yield from _unavailable(snapshot, tried)
            case Outcome.BOUND if tried.plain_outcome is Outcome.ADDRESS_IN_USE:
                yield from _in_use(snapshot, tried.address, Severity.WARNING)
            case Outcome.BOUND:
                yield from _bound_as_root(snapshot, tried)
            case _:
                continue
    if not snapshot.binds:
        for address in _addresses(snapshot):
            yield from _foreseen(snapshot, address)


def _foreseen(snapshot: Snapshot, address: str) -> Iterator[Finding | Missing]:
    """--passive: a listener that is in the way needs no attempt."""
    match snapshot.listeners:
        case Unknown() as unknown:
            yield Missing("listeners", unknown)
        case Known(value=rows):
            yield from _listeners_in_the_way(snapshot, address, rows)


def _in_use(snapshot: Snapshot, wanted: str, severity: Severity) -> Iterator[Finding | Missing]:
    """EADDRINUSE: a listener, or else what is left of connections, or a socket that is only bound."""
    match snapshot.listeners:
        case Unknown() as unknown:
            yield Missing("listeners", unknown)
            return
        case Known(value=rows):
            pass
    found = tuple(_listeners_in_the_way(snapshot, wanted, rows))
    if found:
        # with SO_REUSEADDR it could be bound: the listener came later, and explains nothing
        yield from found if severity is Severity.PROBLEM else ()
        return
    match snapshot.sockets:
        case Unknown() as unknown:
            yield Missing("socket table", unknown)
        case Known(value=sockets):
            yield from _without_listener(snapshot, wanted, severity, sockets)


def _listeners_in_the_way(snapshot: Snapshot, wanted: str, rows: Sequence[SocketRow]) -> Iterator[Finding | Missing]:
    pairs = _conflicting(snapshot, wanted, listeners_on(rows, snapshot.target.port))
    certain = {row: why for row, why in pairs.items() if why.certain}
    for held in _by_endpoint(certain or pairs):
        yield from _hidden_owners(snapshot, held)
        yield _listener(snapshot, wanted, held, pairs[held[0]])


def _listener(snapshot: Snapshot, wanted: str, held: Sequence[SocketRow], why: Conflict) -> Finding:
    endpoint = Endpoint(wanted, snapshot.target.port)
    process = _engine_program(snapshot, held)
    if process is not None:
        return _container_port(snapshot, wanted, held, why, process)
    who = _who(snapshot, held)
    overlapping = f"{who} on {held[0].local} {_verb(snapshot, held, 'excludes', 'exclude')} {endpoint}"
    return Finding(
        code=OVERLAPPING_ADDRESS.code if why.overlapping else LISTENER.code,
        title=title(overlapping if why.overlapping else _listens(snapshot, held)),
        severity=Severity.PROBLEM,
        confidence=Confidence.PROVEN if why.certain else Confidence.LIKELY,
        explanation=" ".join(
            (
                why.sentence(wanted, held[0].local.address),
                _who_may_share(held),
                *_states(snapshot, held),
            )
        ),
        evidence=(*_bind_evidence(snapshot, wanted), *_row_evidence(snapshot, held)),
        remedies=(*_stop(snapshot, held), *_side_by_side(why), _other_port(endpoint.port)),
    )


def _who_may_share(held: Sequence[SocketRow]) -> str:
    """inet_bind_conflict, net/ipv4/inet_connection_sock.c."""
    if len(held) > 1:
        return (
            f"{len(held)} sockets share it, which SO_REUSEPORT allows: one more can join only if it sets that too and "
            "belongs to the same user. SO_REUSEADDR does not help."
        )
    return (
        "Two such sockets can have the port only if both set SO_REUSEPORT and belong to one user. SO_REUSEADDR does "
        "not help."
    )


def _states(snapshot: Snapshot, rows: Sequence[SocketRow]) -> tuple[str, ...]:
    """What keeps the holders from ending when they are asked to."""
    holders = _holders(snapshot, rows)
    leader = _leaders(holders)[:1]
    said = [one for one in holders if halted(one)] or [one for one in leader if state_sentence(one)]
    frozen = frozen_sentence(snapshot, rows)
    # the old freezer shows what it holds in state D: that it waits for a disk would be false
    said = [one for one in said if not (frozen and one.state == "D")]
    return (*((frozen,) if frozen else ()), *(state_sentence(one) for one in said[:1]))


def _engine_program(snapshot: Snapshot, held: Sequence[SocketRow]) -> Process | None:
    """The holder, where it is a program that keeps ports for containers."""
    owners = (owner(row, snapshot.holders) for row in held)
    processes = (process for one in owners if isinstance(one, Owned) for process in one.processes)
    return next((one for one in processes if is_of_an_engine(one, DIALS_INSIDE | RESERVES)), None)


def _container_port(
    snapshot: Snapshot, wanted: str, held: Sequence[SocketRow], why: Conflict, process: Process
) -> Finding:
    endpoint = Endpoint(wanted, snapshot.target.port)
    found = _published_by(snapshot, held, process)
    stale = not found and _engines_told(snapshot, process)
    if found:
        name = found[0].name
        text = f"Container {name} publishes port {endpoint.port}: {process.program} listens on {held[0].local}"
        purpose = f"{process.program} has the port for container {name}; it goes when the container stops."
    elif stale:
        text = f"{process.program} (pid {process.pid}) holds {held[0].local}, and no container publishes it"
        purpose = "Its engine knows no container that publishes the port: it is left over from one that is gone."
    else:
        text = f"{process.program} (pid {process.pid}) holds {held[0].local} for a container"
        purpose = f"{process.program} has the port for a container; which one could not be asked."
    return Finding(
        code=CONTAINER_PORT.code,
        title=title(text),
        severity=Severity.PROBLEM,
        confidence=Confidence.PROVEN if why.certain and not stale else Confidence.LIKELY,
        explanation=f"{purpose} {why.sentence(wanted, held[0].local.address)}",
        evidence=(
            *_bind_evidence(snapshot, wanted),
            *_row_evidence(snapshot, held),
            *(entry_evidence(one) for one in found[:3]),
        ),
        remedies=(*_stop_publishing(found, process, stale=stale), _other_port(endpoint.port)),
        explains=(LISTENER.code, OVERLAPPING_ADDRESS.code),
    )


def _published_by(snapshot: Snapshot, held: Sequence[SocketRow], process: Process) -> tuple[Publication, ...]:
    """The running containers whose entry for the port this process can be there for."""
    entries = publications(snapshot, snapshot.target.port)
    own = tuple(one for one in entries if one.forwarder is not None and one.forwarder.pid == process.pid)
    return own or tuple(one for one in entries if one.is_running and any(one.covers(row.local.address) for row in held))


def _engines_told(snapshot: Snapshot, process: Process) -> bool:
    """Whether the engine that this program belongs to was asked, and answered."""
    seen = containers_of(snapshot)
    wanted = "docker" if process.program in ("docker-proxy", "dockerd") else "podman"
    engines = seen.engines if seen is not None else ()
    return any(one.name == wanted and isinstance(one.containers, Known) and not one.unseen for one in engines)


def _stop_publishing(found: Sequence[Publication], process: Process, *, stale: bool) -> tuple[Remedy, ...]:
    if found:
        engine, name = found[0].container.engine, found[0].name
        called = callable_name(found[0].container) or name
        return (
            Remedy(
                summary=f"Stop container {name}",
                commands=(Command((engine, "stop", called), needs_root=True),),
                undo=(Command((engine, "start", called), needs_root=True),),
                risk=Risk.DISRUPTIVE,
            ),
            Remedy(summary=f"Or publish {name} on another port of the host: make it anew with another -p."),
        )
    if stale:
        return (
            Remedy(
                summary="End the leftover. This cannot be undone; a restart of the engine would end it as well",
                commands=(Command(("kill", str(process.pid)), needs_root=True),),
                risk=Risk.DISRUPTIVE,
            ),
        )
    return (Remedy(summary="Find the container (docker ps or podman ps, column PORTS), and stop it."),)


def _side_by_side(why: Conflict) -> tuple[Remedy, ...]:
    """How both servers can have the port, where that is possible."""
    match why:
        case Conflict.HELD_DUAL_STACK | Conflict.PERHAPS_DUAL_STACK:
            return (
                Remedy(
                    summary="Or let the server that is there take IPv6 only (IPV6_V6ONLY; nginx: ipv6only=on), "
                    "if IPv4 is not its business."
                ),
            )
        case Conflict.WANTED_DUAL_STACK:
            return (Remedy(summary="Or set IPV6_V6ONLY on the new server's socket: then it leaves IPv4 alone."),)
        case Conflict.HELD_WILDCARD | Conflict.WANTED_WILDCARD | Conflict.PERHAPS_MAPPED_WILDCARD:
            return (Remedy(summary="Or bind each of the two servers to one address of its own instead of all."),)
        case Conflict.SAME_ADDRESS | Conflict.SAME_IPV4:
            return ()
        case _:
            assert_never(why)


def _without_listener(
    snapshot: Snapshot, wanted: str, severity: Severity, sockets: Sequence[SocketRow]
) -> Iterator[Finding | Missing]:
    """Every kind of socket in the way; proven where it is the only kind and nothing is hidden."""
    others = _conflicting(snapshot, wanted, [row for row in sockets if row.state is not TcpState.LISTEN])
    kinds: dict[str, list[SocketRow]] = {}
    for row in others:
        kinds.setdefault(_kind(snapshot, row), []).append(row)
    match snapshot.bound:
        case Unknown() as unknown:
            yield Missing("bound sockets", unknown)
        case Known(value=bound):
            if idle := list(_conflicting(snapshot, wanted, bound)):
                kinds[BOUND_NOT_LISTENING.code] = idle
    if isinstance(snapshot.policy, Unknown) and kinds.keys() & {OUTBOUND_CONNECTION.code, LEFTOVER_CONNECTION.code}:
        yield Missing("port sysctls", snapshot.policy)
    # without SO_REUSEADDR each of them is in the way; with it, only those that were made without
    alone = len(kinds) == 1 and isinstance(snapshot.bound, Known)
    for code, rows in kinds.items():
        yield from _hidden_owners(snapshot, rows)
        certain = (alone or severity is Severity.WARNING) and not _is_guess(snapshot, code, rows)
        confidence = Confidence.PROVEN if certain else Confidence.LIKELY
        yield _idle(snapshot, wanted, severity, confidence, code, sorted(rows, key=_order))


def _is_guess(snapshot: Snapshot, code: str, rows: Sequence[SocketRow]) -> bool:
    """Whether only the ports tell which end opened a connection, and either could be a client's or a server's."""
    if code not in (OUTBOUND_CONNECTION.code, LEFTOVER_CONNECTION.code):
        return False
    policy = snapshot.policy.value if isinstance(snapshot.policy, Known) else None
    unknown = [row for row in rows if row.opened_here is None and row.state is not TcpState.SYN_SENT]
    return any(policy is None or policy.hands_out(row.local.port) == policy.hands_out(row.peer.port) for row in unknown)


def _kind(snapshot: Snapshot, row: SocketRow) -> str:
    """Which cause a socket is that does not listen."""
    if row.state is TcpState.TIME_WAIT:
        return TIME_WAIT.code
    if row.local == row.peer:
        return SELF_CONNECTED.code
    return OUTBOUND_CONNECTION.code if _is_outbound(snapshot, row) else LEFTOVER_CONNECTION.code


def _is_outbound(snapshot: Snapshot, row: SocketRow) -> bool:
    """Whether this end opened the connection: by the kernel's own count, else as far as the ports tell."""
    if row.state is TcpState.SYN_SENT or row.opened_here is not None:
        return row.opened_here is not False
    if isinstance(snapshot.policy, Unknown):
        return False
    if not snapshot.policy.value.hands_out(row.peer.port):
        return True  # a server's; the near end may be of the kernel's choice or the client's own
    listeners = snapshot.listeners.value if isinstance(snapshot.listeners, Known) else ()
    return bool(reached(listeners, row.peer.address, row.peer.port))


def _idle(
    snapshot: Snapshot,
    wanted: str,
    severity: Severity,
    confidence: Confidence,
    code: str,
    rows: Sequence[SocketRow],
) -> Finding:
    first = rows[0]
    if code == TIME_WAIT.code:
        text, why, remedies = _time_wait(snapshot, rows, severity)
    elif code == BOUND_NOT_LISTENING.code:
        text, why, remedies = _bound_only(snapshot, rows)
    elif code == SELF_CONNECTED.code:
        text, why, remedies = _self_connected(snapshot, rows)
    elif code == OUTBOUND_CONNECTION.code:
        text, why, remedies = _outbound(snapshot, rows)
    else:
        text, why, remedies = _leftover(snapshot, rows)
    return Finding(
        code=code,
        title=title(text),
        severity=severity,
        confidence=confidence,
        explanation=" ".join((why, _what_reuse_does(severity, first.local.port), *_states(snapshot, rows))),
        evidence=(*_bind_evidence(snapshot, wanted), *_row_evidence(snapshot, rows), *_range_evidence(snapshot, code)),
        remedies=remedies,
    )


def _range_evidence(snapshot: Snapshot, code: str) -> tuple[Evidence, ...]:
    if code != OUTBOUND_CONNECTION.code or isinstance(snapshot.policy, Unknown):
        return ()
    name, policy = "net.ipv4.ip_local_port_range", snapshot.policy.value
    path = f"/proc/sys/{name.replace('.', '/')}"
    return (Evidence(f"{name} = {policy.ephemeral_low} {policy.ephemeral_high}", path),)


_Said = tuple[str, str, tuple[Remedy, ...]]
"""Title, explanation and remedies."""


def _time_wait(snapshot: Snapshot, rows: Sequence[SocketRow], severity: Severity) -> _Said:
    number = "one connection" if len(rows) == 1 else f"{len(rows)} connections"
    wait = Remedy(
        summary="Wait a minute, and set SO_REUSEADDR before bind in the server, in every run of it (Python: "
        "allow_reuse_address = True): then it may restart at once. Leave tcp_tw_reuse alone, it is about connect.",
        survives_reboot=True,
    )
    kill = _destroy(
        snapshot,
        ("state", "time-wait", "sport", "=", f":{rows[0].local.port}"),
        "Forget these closed connections now instead of waiting for at most 60 seconds. This cannot be undone",
    )
    return (
        f"{number} in TIME-WAIT on {rows[0].local}, and no listener there",
        "The side that closes a connection first keeps its end for 60 seconds, so that late packets cannot reach a "
        "new connection. No listener is in the way.",
        (wait,) if severity is Severity.WARNING else (*kill, wait),
    )


def _bound_only(snapshot: Snapshot, rows: Sequence[SocketRow]) -> _Said:
    return (
        f"{_who(snapshot, rows)} {_verb(snapshot, rows, 'has', 'have')} {rows[0].local} bound without listening",
        "A bound socket takes the port although it neither listens nor is connected; /proc/net/tcp, netstat, lsof "
        "and older versions of ss do not show it.",
        (*_stop(snapshot, rows), _other_port(rows[0].local.port)),
    )


def _self_connected(snapshot: Snapshot, rows: Sequence[SocketRow]) -> _Said:
    return (
        f"{_who(snapshot, rows)} {_verb(snapshot, rows, 'is', 'are')} connected to itself on {rows[0].local}",
        "A client that dials a closed local port again and again can be given that very port as its own: both ends "
        "are one socket (TCP simultaneous open). It has the port, and reads back what it writes.",
        (*_end(snapshot, rows), *_stop(snapshot, rows), *_reserve(snapshot)),
    )


def _outbound(snapshot: Snapshot, rows: Sequence[SocketRow]) -> _Said:
    port, who = rows[0].local.port, _client(snapshot, rows)
    text = f"{rows[0].local} is the near end of a connection to {rows[0].peer}"
    if isinstance(snapshot.policy, Known) and not snapshot.policy.value.hands_out(port):
        return (
            text,
            f"{who} opened a connection, and took port {port} for its own end: the kernel gives that port only to "
            "programs that ask for it. The port is free again when the program closes the socket or ends; a reset of "
            "the connection does not free it.",
            _stop(snapshot, rows) or _end(snapshot, rows),
        )
    return (
        text,
        f"{who} opened a connection, and port {port} is its own end: the kernel gives clients such ports "
        "(net.ipv4.ip_local_port_range). The port is free again when the connection ends.",
        (*_end(snapshot, rows), *_stop(snapshot, rows), *_reserve(snapshot)),
    )


def _client(snapshot: Snapshot, rows: Sequence[SocketRow]) -> str:
    """The program at the near end; a socket that it has closed already has no holder."""
    unheld = isinstance(owner(rows[0], snapshot.holders), Unheld)
    return "A program that has closed its end by now" if unheld else _who(snapshot, rows)


def _leftover(snapshot: Snapshot, rows: Sequence[SocketRow]) -> _Said:
    number = "" if len(rows) == 1 else f" and {len(rows) - 1} more"
    if all(row.opened_here is False for row in rows):
        why = (
            "A server accepted this connection and does not listen there any more. The connection goes on: a worker of "
            "the server still serves it, or the client has not closed its end."
        )
    else:
        why = (
            "No listener is in the way, but this connection is. It may be one that a server accepted before it ended; "
            "which of its ends opened it is not known."
        )
    return (
        f"The connection with {rows[0].peer}{number} still has {rows[0].local}",
        why,
        (*_end(snapshot, rows), *_stop(snapshot, rows)),
    )


def _what_reuse_does(severity: Severity, port: int) -> str:
    if severity is Severity.WARNING:
        return f"A server that sets SO_REUSEADDR before bind can have port {port} now; one that does not, cannot."
    return "SO_REUSEADDR does not help here: a socket that has the port was made without it."


def _end(snapshot: Snapshot, rows: Sequence[SocketRow]) -> tuple[Remedy, ...]:
    """Reset the connections, as the kernel lets root do it."""
    port = f":{rows[0].local.port}"
    exact = [("sport", "=", port, "dport", "=", f":{peer}") for peer in sorted({row.peer.port for row in rows})]
    filters = exact if len(exact) <= _KILLED_ONE_BY_ONE else [("sport", "=", port)]
    summary = "Reset the connection: both ends get an error. This cannot be undone"
    ended = [_destroy(snapshot, one, summary) for one in filters]
    commands = tuple(command for remedies in ended for remedy in remedies for command in remedy.commands)
    return (Remedy(summary=ended[0][0].summary, commands=commands, risk=Risk.DISRUPTIVE),) if commands else ()


def _destroy(snapshot: Snapshot, chosen: tuple[str, ...], summary: str) -> tuple[Remedy, ...]:
    """ss --kill, which Linux alone has (SOCK_DESTROY, sock_diag(7))."""
    if snapshot.vantage.platform != "linux":
        return ()
    command = Command(("ss", "--kill", "--tcp", *chosen), needs_root=True)
    unless = "a kernel built without INET_DIAG_DESTROY does nothing"
    return (Remedy(summary=f"{summary} ({unless})", commands=(command,), risk=Risk.DISRUPTIVE),)


def _reserve(snapshot: Snapshot) -> tuple[Remedy, ...]:
    """Keep the kernel from handing the port out again; the ranges that are reserved already stay so."""
    if isinstance(snapshot.policy, Unknown) or not snapshot.policy.value.hands_out(snapshot.target.port):
        return ()
    name = "net.ipv4.ip_local_reserved_ports"
    old = ",".join(f"{low}-{high}" if low != high else str(low) for low, high in snapshot.policy.value.reserved)
    new = f"{old},{snapshot.target.port}" if old else str(snapshot.target.port)
    return (
        Remedy(
            summary=f"For good: keep port {snapshot.target.port} from being handed out again. It ends no connection",
            commands=(Command(("sysctl", "-w", f"{name}={new}"), needs_root=True),),
            undo=(Command(("sysctl", "-w", f"{name}={old}"), needs_root=True),),
            survives_reboot=False,
            edits=(Edit("/etc/sysctl.d/60-reserved-ports.conf", None, f"{name} = {new}"),),
        ),
    )


def _denied(snapshot: Snapshot, tried: BindAttempt) -> Iterator[Finding | Missing]:
    """EACCES below the first unprivileged port; any other refusal has another cause."""
    if tried.errno != "EACCES":
        return
    match snapshot.policy:
        case Unknown() as unknown:
            yield Missing("port sysctls", unknown)
        case Known(value=policy) if tried.port < policy.unprivileged_start:
            yield _privileged(snapshot, tried, policy.unprivileged_start)
        case _:
            return


def _privileged(snapshot: Snapshot, tried: BindAttempt, start: int) -> Finding:
    vantage = snapshot.vantage
    return Finding(
        code=PRIVILEGED_PORT.code,
        title=title(f"Port {tried.port} is below {start}, and {vantage.user} may not bind it"),
        severity=Severity.PROBLEM,
        # root can be denied for want of the capability, and by a security module
        confidence=Confidence.PROVEN if vantage.uid != 0 else Confidence.LIKELY,
        explanation=f"Ports below {start} need root or the capability CAP_NET_BIND_SERVICE in this network "
        f"namespace, and {vantage.user} has neither.",
        evidence=(
            *_bind_evidence(snapshot, tried.address),
            Evidence(f"net.ipv4.ip_unprivileged_port_start = {start}", "/proc/sys/net/ipv4/ip_unprivileged_port_start"),
        ),
        remedies=(
            _lower_start(tried.port, start),
            *_higher_port(snapshot, tried),
            Remedy(
                summary="Or give the program alone the right: AmbientCapabilities=CAP_NET_BIND_SERVICE in its systemd "
                "unit, or setcap cap_net_bind_service=+ep on its file (not on an interpreter such as python3, "
                "which would give it to every script).",
                survives_reboot=True,
            ),
        ),
    )


def _lower_start(port: int, start: int) -> Remedy:
    name = "net.ipv4.ip_unprivileged_port_start"
    return Remedy(
        summary=f"Let every user bind ports from {port} on",
        commands=(Command(("sysctl", "-w", f"{name}={port}"), needs_root=True),),
        undo=(Command(("sysctl", "-w", f"{name}={start}"), needs_root=True),),
        survives_reboot=False,
        edits=(Edit("/etc/sysctl.d/60-unprivileged-ports.conf", None, f"{name} = {port}"),),
    )


def _higher_port(snapshot: Snapshot, tried: BindAttempt) -> tuple[Remedy, ...]:
    other = Endpoint(tried.address, tried.port + _USUAL_SHIFT)
    listeners = snapshot.listeners.value if isinstance(snapshot.listeners, Known) else None
    if listeners is None or _conflicting(snapshot, tried.address, listeners_on(listeners, other.port)):
        return ()
    return (
        Remedy(
            summary=f"Or use a port that needs no right, such as {other.port}",
            commands=(Command(("netdiag", "run", "--bind", str(other))),),
        ),
    )


def _bound_as_root(snapshot: Snapshot, tried: BindAttempt) -> Iterator[Finding]:
    """Under sudo the port is free for root: say so where the user who called sudo would be denied."""
    start = snapshot.policy.value.unprivileged_start if isinstance(snapshot.policy, Known) else 1024
    user = snapshot.vantage.sudo_user
    if user is None or snapshot.vantage.uid != 0 or tried.port >= start:
        return
    yield Finding(
        code=PRIVILEGED_PORT.code,
        title=title(f"Port {tried.port} is free for root; {user} would be denied"),
        severity=Severity.INFO,
        confidence=Confidence.LIKELY,
        explanation=f"netdiag ran as root, so the answer is root's. Ports below {start} need root or "
        f"CAP_NET_BIND_SERVICE: run netdiag as {user} to have {user}'s answer.",
        evidence=_bind_evidence(snapshot, tried.address),
    )


def _unavailable(snapshot: Snapshot, tried: BindAttempt) -> Iterator[Finding | Missing]:
    """EADDRNOTAVAIL, where the address is on no interface; an address that is there has another trouble."""
    match snapshot.links:
        case Unknown() as unknown:
            yield Missing("interfaces", unknown)
            yield _not_local(snapshot, tried, Confidence.LIKELY)
        case Known(value=links) if links.holder(tried.address.partition("%")[0]) is None:
            yield _not_local(snapshot, tried, Confidence.PROVEN)
        case _:
            return


def _not_local(snapshot: Snapshot, tried: BindAttempt, confidence: Confidence) -> Finding:
    return Finding(
        code=ADDRESS_NOT_LOCAL.code,
        title=title(f"{tried.address} is on no interface of this machine"),
        severity=Severity.PROBLEM,
        confidence=confidence,
        explanation="A server can only bind addresses of the machine (the network namespace) that it runs in. The "
        "address may be of another machine or a container, or of a VPN or DHCP lease that is gone.",
        evidence=(*_bind_evidence(snapshot, tried.address), *_interface_evidence(snapshot)),
        remedies=(
            *_local_instead(snapshot, tried),
            *_allow_nonlocal(snapshot, tried),
            Remedy(
                summary="Or give the machine the address: ip address add, or mend the VPN or lease that should have "
                "brought it."
            ),
        ),
    )


def _local_instead(snapshot: Snapshot, tried: BindAttempt) -> tuple[Remedy, ...]:
    """An address of the same family that is here and free."""
    if isinstance(snapshot.links, Unknown) or isinstance(snapshot.listeners, Unknown):
        return ()
    taken = listeners_on(snapshot.listeners.value, tried.port)
    loopback = "127.0.0.1" if tried.family == "ipv4" else "::1"
    here = [address for one in snapshot.links.value.interfaces if one.up for address in one.addresses]
    for address in sorted(here, key=lambda one: one != loopback):
        usable = "%" not in address and not address.startswith("fe80:") and family_of(address) == tried.family
        if usable and not _conflicting(snapshot, address, taken):
            other = Endpoint(address, tried.port)
            return (
                Remedy(
                    summary=f"Bind an address that is here: {other}",
                    commands=(Command(("netdiag", "run", "--bind", str(other))),),
                ),
            )
    return ()


def _allow_nonlocal(snapshot: Snapshot, tried: BindAttempt) -> tuple[Remedy, ...]:
    if isinstance(snapshot.policy, Unknown):
        return ()
    four = tried.family == "ipv4"
    if snapshot.policy.value.nonlocal_bind_v4 if four else snapshot.policy.value.nonlocal_bind_v6:
        return ()
    name = "net.ipv4.ip_nonlocal_bind" if four else "net.ipv6.ip_nonlocal_bind"
    return (
        Remedy(
            summary="For a fail-over service that waits for the address: let servers bind addresses that are not "
            "here. Nobody reaches them until the address comes",
            commands=(Command(("sysctl", "-w", f"{name}=1"), needs_root=True),),
            undo=(Command(("sysctl", "-w", f"{name}=0"), needs_root=True),),
            survives_reboot=False,
            edits=(Edit("/etc/sysctl.d/60-nonlocal-bind.conf", None, f"{name} = 1"),),
        ),
    )


def _interface_evidence(snapshot: Snapshot) -> tuple[Evidence, ...]:
    if isinstance(snapshot.links, Unknown):
        return ()
    return tuple(
        Evidence(f"{one.name}: {', '.join(one.addresses) or 'no address'}", "interfaces")
        for one in snapshot.links.value.interfaces[:8]
    )


def _addresses(snapshot: Snapshot) -> tuple[str, ...]:
    """What was dialled; where nothing was, what the name means."""
    dialled = [one.address for one in snapshot.attempts]
    if not dialled and isinstance(snapshot.names, Known):
        dialled = [one.address for one in snapshot.names.value.addresses]
    return tuple(dict.fromkeys(dialled))


def _conflicting(snapshot: Snapshot, wanted: str, rows: Sequence[SocketRow]) -> dict[SocketRow, Conflict]:
    """The rows that a socket on the wanted address conflicts with, made as the system's default makes it."""
    v6only = isinstance(snapshot.policy, Known) and snapshot.policy.value.bindv6only and is_wildcard(wanted)
    pairs = ((row, conflict(wanted, v6only, row)) for row in rows)
    return {row: why for row, why in pairs if why is not None}


def _by_endpoint(rows: Sequence[SocketRow] | set[SocketRow] | dict[SocketRow, Conflict]) -> list[list[SocketRow]]:
    """Sockets that share one address and port (SO_REUSEPORT) together, in order."""
    groups: dict[tuple[Endpoint, bool], list[SocketRow]] = {}
    for row in sorted(rows, key=_order):
        groups.setdefault((row.local, row.family == "ipv6"), []).append(row)
    return list(groups.values())


def _order(row: SocketRow) -> tuple[Endpoint, Endpoint, int, int]:
    return row.local, row.peer, row.state, row.inode


def _who(snapshot: Snapshot, rows: Sequence[SocketRow]) -> str:
    """The program that has the sockets, or that it is hidden."""
    processes = _leaders(_holders(snapshot, rows))
    if processes:
        first = processes[0]
        more = f" and {len(processes) - 1} more" if len(processes) > 1 else ""
        state = f", {halted(first)}" if halted(first) else ""
        return f"{first.program} (pid {first.pid}{state}){more}"
    match owner(rows[0], snapshot.holders):
        case Hidden(uid=uid):
            return f"A hidden process of {user_words(uid)}"
        case Unheld():
            return "The kernel"
        case _:
            return "A process"


def _verb(snapshot: Snapshot, rows: Sequence[SocketRow], one: str, several: str) -> str:
    """The verb that goes with `_who`."""
    return several if len(_leaders(_holders(snapshot, rows))) > 1 else one


def _listens(snapshot: Snapshot, held: Sequence[SocketRow]) -> str:
    return f"{_who(snapshot, held)} {_verb(snapshot, held, 'listens', 'listen')} on {held[0].local}"


def _holders(snapshot: Snapshot, rows: Sequence[SocketRow]) -> tuple[Process, ...]:
    found: dict[int, Process] = {}
    for row in rows:
        match owner(row, snapshot.holders):
            case Owned(processes=processes):
                found.update((one.pid, one) for one in processes)
            case _:
                continue
    return tuple(found[pid] for pid in sorted(found))


def _leaders(processes: Sequence[Process]) -> tuple[Process, ...]:
    """The processes whose parents do not hold the socket too: the master, not its workers."""
    pids = {one.pid for one in processes}
    return tuple(one for one in processes if one.parent not in pids)


def _stop(snapshot: Snapshot, rows: Sequence[SocketRow]) -> tuple[Remedy, ...]:
    """How to stop whoever has the sockets; where that is hidden, how to find out."""
    holders = _holders(snapshot, rows)
    leaders = _leaders(holders)
    uid = snapshot.vantage.reader_uid
    units = units_that_hold(snapshot.units, rows)
    match leaders:
        case (only,):
            stop = stop_remedies(only, uid, tuple(one for one in holders if one != only), units)
            return thawed_first(snapshot, freezer_of_rows(snapshot, rows), stop)
        case (_, *_):
            return thawed_first(snapshot, freezer_of_rows(snapshot, rows), (_stop_all(leaders, uid, units),))
    if not isinstance(owner(rows[0], snapshot.holders), Hidden):
        return ()
    return (
        Remedy(
            summary="Find out who has it: root sees the owner",
            commands=(Command(("netdiag", "run", "--bind", str(snapshot.binds[0].endpoint)), needs_root=True),)
            if snapshot.binds
            else (),
        ),
    )


def _stop_all(leaders: Sequence[Process], uid: int, units: Fact[Units]) -> Remedy:
    """Several unrelated processes share the socket: all of them must let go."""
    each = [stop_remedies(one, uid, (), units)[0] for one in leaders]
    undo = tuple(command for one in each for command in one.undo) if all(one.undo for one in each) else ()
    return Remedy(
        summary=f"Stop all {len(each)} that share it: " + "; ".join(one.summary.rstrip(".") for one in each),
        commands=tuple(command for one in each for command in one.commands),
        undo=undo,
        risk=Risk.DISRUPTIVE,
    )


def _other_port(port: int) -> Remedy:
    return Remedy(summary=f"Or start the new server on another port than {port}.")


def _hidden_owners(snapshot: Snapshot, rows: Sequence[SocketRow]) -> Iterator[Missing]:
    """The owner was asked for and could not be had."""
    for row in rows:
        match owner(row, snapshot.holders):
            case Hidden(lift=lift):
                yield Missing("socket owners", Unknown(Reason.NEEDS_ROOT, f"the owner of {row.local} is hidden", lift))
                return
            case OwnerUnknown(unknown=unknown):
                yield Missing("socket owners", unknown)
                return
            case _:
                continue


def _bind_evidence(snapshot: Snapshot, wanted: str) -> tuple[Evidence, ...]:
    """What bind(2) itself gave."""
    return tuple(
        Evidence(
            f"bind to {one.endpoint}: {one.errno or 'ok'} with SO_REUSEADDR, {one.plain_errno or 'ok'} without",
            "bind(2)",
        )
        for one in snapshot.binds
        if one.address == wanted
    )


def _row_evidence(snapshot: Snapshot, rows: Sequence[SocketRow]) -> tuple[Evidence, ...]:
    shown = [Evidence(_row_words(row), "sock_diag") for row in rows[:_EVIDENCE_ROWS]]
    if len(rows) > _EVIDENCE_ROWS:
        shown.append(Evidence(f"and {len(rows) - _EVIDENCE_ROWS} more such sockets", "sock_diag"))
    processes = _holders(snapshot, rows)
    if processes:
        held = [Evidence(f"held by {describe_process(one)}", "/proc/PID/fd") for one in processes[:_EVIDENCE_ROWS]]
        return (*shown, *held)
    if rows[0].inode:
        shown.append(Evidence(describe_owner(owner(rows[0], snapshot.holders)), "/proc/PID/fd"))
    return tuple(shown)


def _row_words(row: SocketRow) -> str:
    idle = row.state in (TcpState.LISTEN, TcpState.BOUND_INACTIVE)
    return row_text(row) if idle else f"{row_text(row)} with peer {row.peer}"


CHECK = Check(
    "in-use",
    (
        LISTENER,
        OVERLAPPING_ADDRESS,
        TIME_WAIT,
        OUTBOUND_CONNECTION,
        PRIVILEGED_PORT,
        ADDRESS_NOT_LOCAL,
        BOUND_NOT_LISTENING,
        SELF_CONNECTED,
        LEFTOVER_CONNECTION,
        CONTAINER_PORT,
    ),
    judge,
)
