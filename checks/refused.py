"""refused: this machine, or the far one, answered no."""

from __future__ import annotations

from collections.abc import Iterator

from diagnose.analysis.beyond import Unserved, beyond, deciding_walk, served_elsewhere
from diagnose.analysis.describe import describe_owner, describe_process
from diagnose.analysis.owner import Owned, owner
from diagnose.analysis.ports import expected_programs, near_misses, port_note
from diagnose.analysis.reach import (
    Coverage,
    covers,
    failing,
    listeners_on,
    may_be_reached,
    severity,
    unmapped,
)
from diagnose.analysis.refusal import Refusal, icmp_text, refusal
from diagnose.analysis.wire import BoxOnTheWay, HostItself, ThisMachine, Undetermined, sender
from diagnose.analysis.wording import connect_evidence, dial_instead, row_text, title
from diagnose.model.attempt import Attempt, Outcome
from diagnose.model.check import Check
from diagnose.model.fact import NOT_NEEDED, Known, Missing, Reason, Unknown
from diagnose.model.finding import Cause, Confidence, Evidence, Finding, Remedy, Severity, Stage
from diagnose.model.network import Endpoint, SocketRow, family_of, is_loopback, is_wildcard
from diagnose.model.snapshot import Snapshot
from diagnose.model.target import Intent

NOTHING_LISTENING = Cause(
    "refused/nothing-listening", Stage.SOCKET, "The port is closed: no socket listens on it, and the kernel said so"
)
OTHER_PORT = Cause("refused/other-port", Stage.SOCKET, "The program listens on a port close to the one dialled")
OTHER_ADDRESS = Cause(
    "refused/other-address", Stage.SOCKET, "The port listens on another address of this machine, and answers there"
)
OTHER_FAMILY = Cause("refused/other-family", Stage.SOCKET, "The port listens only on the other IP family")
OTHER_DEVICE = Cause(
    "refused/other-device", Stage.SOCKET, "The listener is bound to a network interface that our packets do not use"
)
UDP_ONLY = Cause("refused/udp-only", Stage.SOCKET, "The port is a UDP port: nothing listens on it with TCP")


def judge(snapshot: Snapshot) -> Iterator[Finding | Missing]:
    """Who refused, and what there is instead of a listener."""
    if snapshot.intent is Intent.BIND:
        return
    for attempt in failing(snapshot):
        if attempt.outcome is not Outcome.REFUSED:
            yield from _behind_a_rule(snapshot, attempt)
        elif attempt.local:
            yield from _refused_here(snapshot, attempt)
        else:
            yield from _refused_there(snapshot, attempt)
    if not snapshot.attempts and snapshot.only_looked:
        yield from _unlistened(snapshot)


def _refused_here(snapshot: Snapshot, attempt: Attempt) -> Iterator[Finding | Missing]:
    match snapshot.listeners:
        case Unknown() as unknown:
            yield Missing("listeners", unknown)
            return
        case Known(value=rows):
            pass
    perhaps = may_be_reached(rows, attempt.address, attempt.port)
    if perhaps:  # somebody listens there: the refusal is a rule's, a device's or a NAT's doing
        for row in perhaps:
            if covers(row, attempt.address) is Coverage.UNKNOWN:
                yield Missing(f"IPV6_V6ONLY of {row.local}", Unknown(Reason.NOT_VISIBLE, "sock_diag tells it"))
        yield from _bound_to_a_device(snapshot, attempt, perhaps)
        return
    elsewhere = tuple(_listens_elsewhere(snapshot, attempt, listeners_on(rows, attempt.port)))
    yield from elsewhere
    walk = deciding_walk(snapshot, attempt)
    led_on = walk is not None and served_elsewhere(snapshot, walk) is not None
    if led_on or (walk is not None and not isinstance(beyond(snapshot, attempt, walk), Unserved)):
        return  # behind the rule NAT leads the port elsewhere, from here or from another address
    if not any(one.confidence is Confidence.PROVEN for one in elsewhere):
        yield from _nothing_listens(snapshot, attempt, rows)


def _behind_a_rule(snapshot: Snapshot, attempt: Attempt) -> Iterator[Finding]:
    """What the connection would meet without the rule that stops it: an independent fault, the second to be fixed."""
    walk = deciding_walk(snapshot, attempt)
    if walk is None or not isinstance(beyond(snapshot, attempt, walk), Unserved):
        return
    rows = snapshot.listeners.value if isinstance(snapshot.listeners, Known) else ()
    elsewhere = tuple(_listens_elsewhere(snapshot, attempt, listeners_on(rows, attempt.port)))
    yield from elsewhere
    if any(one.confidence is Confidence.PROVEN for one in elsewhere) or served_elsewhere(snapshot, walk):
        return
    yield Finding(
        code=NOTHING_LISTENING.code,
        title=title(f"Nothing listens on {attempt.endpoint}"),
        severity=severity(snapshot, attempt),
        confidence=Confidence.LIKELY,
        explanation="A firewall rule stops the connection before it gets here. Without that rule the kernel would "
        "refuse it, because no program listens on this port.",
        evidence=(
            Evidence(f"no TCP socket of this network namespace listens for {attempt.endpoint}", "sock_diag"),
            *_looked_elsewhere(snapshot),
        ),
        remedies=_start_it(snapshot, attempt),
    )


def _bound_to_a_device(snapshot: Snapshot, attempt: Attempt, rows: tuple[SocketRow, ...]) -> Iterator[Finding]:
    """The listener takes the address, but only packets of one interface; and the kernel refused ours."""
    if refusal(attempt) is not Refusal.KERNEL:
        return
    if any(covers(row, attempt.address) is not Coverage.OTHER_DEVICE for row in rows):
        return
    row = rows[0]
    who = _name(snapshot, row)
    yield Finding(
        code=OTHER_DEVICE.code,
        title=title(f"{who} listens on {row.local} for packets of {row.device} only"),
        severity=severity(snapshot, attempt),
        confidence=Confidence.PROVEN,
        explanation=f"The listening socket is bound to the network interface {row.device} (SO_BINDTODEVICE). It would "
        f"take {attempt.endpoint}, but the packets of this machine to itself do not come in by that interface.",
        evidence=(
            connect_evidence(attempt),
            *_refuser(attempt),
            Evidence(row_text(row), "sock_diag"),
            *_owner_evidence(snapshot, row),
        ),
        remedies=(
            Remedy(
                summary=f"Take the binding to {row.device} out of the server's configuration (interface=, "
                "bind-to-device, systemd's BindToDevice=) and restart it, or let clients come in by that interface."
            ),
        ),
        explains=(NOTHING_LISTENING.code,),
    )


def _listens_elsewhere(snapshot: Snapshot, attempt: Attempt, rows: tuple[SocketRow, ...]) -> Iterator[Finding]:
    answering = {one.endpoint for one in (*snapshot.attempts, *snapshot.candidates) if one.outcome.works}
    for row in rows:
        where = _dialled_as(row, attempt)
        if where is None:
            continue
        yield _found_elsewhere(snapshot, attempt, row, where, answers=where in answering)


def _dialled_as(row: SocketRow, attempt: Attempt) -> Endpoint | None:
    """The endpoint that reaches this listener; None when it is bound to a device that loopback does not use."""
    address = unmapped(row.local.address)
    if row.device not in (None, "lo"):
        return None
    if not is_wildcard(address):
        return Endpoint(address, attempt.port)
    return Endpoint("::1" if address == "::" else "127.0.0.1", attempt.port)


def _found_elsewhere(
    snapshot: Snapshot, attempt: Attempt, row: SocketRow, where: Endpoint, *, answers: bool
) -> Finding:
    refused_too = any(
        one.outcome is Outcome.REFUSED and one.family == family_of(where.address) for one in snapshot.attempts
    )
    other_family = family_of(where.address) != attempt.family and not refused_too
    cause = OTHER_FAMILY if other_family else OTHER_ADDRESS
    family = "IPv6" if family_of(where.address) == "ipv6" else "IPv4"
    who = _name(snapshot, row)
    only = f"only over {family}, on {row.local}" if other_family else f"on {row.local}, not on {attempt.address}"
    why = (
        f"{who} listens on port {attempt.port} {only}. A listener takes connections only to the address it is bound "
        f"to, so the kernel {'refuses' if attempt.outcome is Outcome.REFUSED else 'would refuse'} {attempt.endpoint}."
    )
    if row.v6only and row.local.address == "::":
        why += " Its socket has IPV6_V6ONLY set, so even the wildcard address :: does not take IPv4."
    tried = next((one for one in (*snapshot.attempts, *snapshot.candidates) if one.endpoint == where), None)
    return Finding(
        code=cause.code,
        title=title(f"{who} listens on {row.local}, not on {attempt.endpoint}"),
        severity=severity(snapshot, attempt) if answers else Severity.INFO,
        confidence=Confidence.PROVEN if answers else Confidence.POSSIBLE,
        explanation=why,
        evidence=(
            connect_evidence(attempt),
            *_refuser(attempt),
            Evidence(row_text(row), "sock_diag"),
            *_owner_evidence(snapshot, row),
            *((connect_evidence(tried),) if tried else ()),
        ),
        remedies=_move_remedies(where, attempt, other_family) if answers else (),
        explains=(NOTHING_LISTENING.code, OTHER_PORT.code),
    )


def _move_remedies(where: Endpoint, attempt: Attempt, other_family: bool) -> tuple[Remedy, ...]:
    both = (
        'bind both families (host "::" with IPv6-only off, or one socket each for 127.0.0.1 and ::1)'
        if other_family
        else f"bind {attempt.address} as well"
    )
    return (
        dial_instead(where, f"Dial the address that it has: {where}"),
        Remedy(
            summary=f"Or change the server's bind address: {both}; the option is usually called host, bind or "
            "listen_addresses. Restart it afterwards.",
        ),
    )


def _nothing_listens(snapshot: Snapshot, attempt: Attempt, rows: tuple[SocketRow, ...]) -> Iterator[Finding | Missing]:
    whose = refusal(attempt)
    udp = _udp_there(snapshot, attempt)
    if whose is Refusal.UNCLEAR and isinstance(attempt.reset, Unknown):
        yield Missing("who sent the reset", attempt.reset)
    explains = (NOTHING_LISTENING.code,)
    if udp:
        yield _udp_only(snapshot, attempt, udp, whose)
    near = near_misses(rows, attempt.port)
    likely = _likely_one(snapshot, near)
    if likely:
        yield _near_miss(snapshot, attempt, likely, root=True)
    for row in near[:5]:
        if row is not likely:
            yield _near_miss(snapshot, attempt, row, root=False)
    yield Finding(
        code=NOTHING_LISTENING.code,
        title=title(f"Nothing listens on {attempt.endpoint}"),
        severity=severity(snapshot, attempt),
        confidence=_how_sure(snapshot, attempt, whose),
        explanation=_why_closed(snapshot, whose),
        evidence=(
            connect_evidence(attempt),
            *_refuser(attempt),
            Evidence(f"no TCP socket of this network namespace takes {attempt.endpoint}", "sock_diag"),
            *_looked_elsewhere(snapshot),
        ),
        remedies=_start_it(snapshot, attempt),
        explains=explains if not udp else (),
    )


def _udp_there(snapshot: Snapshot, attempt: Attempt) -> tuple[SocketRow, ...]:
    """UDP sockets that take this address and are no client's (those have a peer)."""
    rows = snapshot.udp.value if isinstance(snapshot.udp, Known) else ()
    return tuple(row for row in rows if not row.peer.port and covers(row, attempt.address) is Coverage.YES)


def _how_sure(snapshot: Snapshot, attempt: Attempt, whose: Refusal) -> Confidence:
    """Proven where the kernel refused; where something else did, that is the block in force, if it is known at all."""
    match whose:
        case Refusal.KERNEL:
            return Confidence.PROVEN
        case Refusal.UNCLEAR | Refusal.REMOTE:
            return Confidence.LIKELY
        case Refusal.NOT_KERNEL | Refusal.ICMP:
            named = isinstance(snapshot.firewall, Known) and snapshot.firewall.value.walk(attempt.address)
            return Confidence.LIKELY if named and named.decider else Confidence.POSSIBLE


def _why_closed(snapshot: Snapshot, whose: Refusal) -> str:
    if whose is Refusal.KERNEL:
        text = (
            "The program that should answer is not running, or uses another port. The refusal came from this "
            "machine's own TCP, which answers so only when no socket is there: no firewall is involved."
        )
    elif whose is Refusal.UNCLEAR:
        text = (
            "No program listens on this port, so it would be refused in any case; whether the reset came from the "
            "kernel or from a firewall rule could not be told apart."
        )
    else:
        text = (
            "No program listens on this port here. The refusal itself did not come from the TCP of this network "
            "namespace: a firewall rule made it, or a NAT rule leads to another one."
        )
    note = port_note(snapshot.target.port)
    return f"{text} {note}" if note else text


def _refuser(attempt: Attempt) -> tuple[Evidence, ...]:
    """The witness of who refused, in its own words."""
    icmp = icmp_text(attempt)
    if icmp:
        return (Evidence(icmp, "error queue (IP_RECVERR)"),)
    match attempt.reset:
        case Known(value=witness) if witness.distinct and witness.source == "OutRsts":
            said = f"rose by {witness.counted} for {witness.probes} probes"
            return (Evidence(f"Tcp OutRsts {said}: {_sender(witness.by_kernel)}", "/proc/net/snmp"),)
        case Known(value=witness) if witness.distinct:
            return (Evidence(f"tcp_send_reset: {_sender(witness.by_kernel)}", "tracefs"),)
        case _:
            return ()


def _sender(by_kernel: bool) -> str:
    return "the kernel itself sent the reset" if by_kernel else "the kernel's TCP did not send this reset"


def _looked_elsewhere(snapshot: Snapshot) -> tuple[Evidence, ...]:
    match snapshot.elsewhere:
        case Known(value=seen) if not seen.listeners and seen.namespaces:
            many = "namespace" if seen.namespaces == 1 else "namespaces"
            return (Evidence(f"nor in {seen.namespaces} other network {many}", "/proc/PID/net/tcp"),)
        case Known(value=seen) if not seen.listeners:
            return (Evidence("and no other network namespace is visible", "/proc/PID/ns/net"),)
        case _:
            return ()


def _start_it(snapshot: Snapshot, attempt: Attempt) -> tuple[Remedy, ...]:
    port = attempt.port
    return (
        Remedy(
            summary=f"Start the program that should serve port {port}, and read its log if it does not stay up. "
            "Is it a systemd unit: systemctl --failed. Is it a container: docker ps -a (look for Exited or "
            f"Restarting). Then run netdiag run {snapshot.question} again.",
        ),
        Remedy(
            summary="If it runs and says that it listens, compare the port in its newest log line with the one "
            f"you dial ({port})."
        ),
    )


def _udp_only(snapshot: Snapshot, attempt: Attempt, rows: tuple[SocketRow, ...], whose: Refusal) -> Finding:
    row = rows[0]
    return Finding(
        code=UDP_ONLY.code,
        title=title(f"{attempt.endpoint} takes UDP, and no TCP connections"),
        severity=severity(snapshot, attempt),
        confidence=Confidence.PROVEN if whose is Refusal.KERNEL else Confidence.LIKELY,
        explanation=f"{_name(snapshot, row)} has a UDP socket on {row.local}. UDP and TCP ports are separate: "
        "a TCP connection to this number is refused.",
        evidence=(
            connect_evidence(attempt),
            *_refuser(attempt),
            Evidence(f"UDP {row.local}", "sock_diag"),
            *_owner_evidence(snapshot, row),
            Evidence(f"no TCP socket takes {attempt.endpoint}", "sock_diag"),
        ),
        remedies=(
            Remedy(
                summary="Speak UDP to it (for DNS: dig without +tcp; for netcat: nc -u), or make the server listen "
                "with TCP as well. A container publishes UDP as PORT:PORT/udp and TCP as PORT:PORT."
            ),
        ),
        explains=(NOTHING_LISTENING.code,),
    )


def _likely_one(snapshot: Snapshot, near: tuple[SocketRow, ...]) -> SocketRow | None:
    """The one near listener, where it is the only one and its program is the one that serves such a target."""
    wanted = expected_programs(snapshot.target.port, snapshot.target.scheme)
    if len({row.local.port for row in near}) != 1:
        return None
    match owner(near[0], snapshot.holders):
        case Owned(processes=processes) if any(p.program in wanted for p in processes):
            return near[0]
        case _:
            return None


def _near_miss(snapshot: Snapshot, attempt: Attempt, row: SocketRow, *, root: bool) -> Finding:
    where = Endpoint(attempt.address, row.local.port)
    there = covers(row, attempt.address) is Coverage.YES
    who = _name(snapshot, row)
    return Finding(
        code=OTHER_PORT.code,
        title=title(f"{who} listens on a port close to {attempt.port}: {row.local}"),
        severity=severity(snapshot, attempt) if root else Severity.INFO,
        confidence=Confidence.LIKELY if root else Confidence.POSSIBLE,
        explanation=f"Port {row.local.port} is a near miss of {attempt.port}: a digit slipped, or the program "
        "moved to the next free port. Only you can tell whether it is the one you mean.",
        evidence=(Evidence(row_text(row), "sock_diag"), *_owner_evidence(snapshot, row)),
        remedies=(dial_instead(where, f"Dial {where} if that is the program you mean"),) if there else (),
        explains=(NOTHING_LISTENING.code,) if root else (),
    )


def _refused_there(snapshot: Snapshot, attempt: Attempt) -> Iterator[Finding | Missing]:
    """Another machine's answer: what a client alone can know of it."""
    if isinstance(attempt.wire, Unknown) and attempt.wire != NOT_NEEDED:
        yield Missing("raw reply", attempt.wire)
    match sender(attempt, snapshot.routing, snapshot.links):
        case HostItself(why=why, confidence=confidence, meaning=None):
            yield _closed_there(snapshot, attempt, why, confidence)
        case Undetermined(why=why):
            yield _closed_there(snapshot, attempt, why, Confidence.LIKELY)
        case HostItself() | BoxOnTheWay() | ThisMachine():
            return  # a rule's answer, there or on the way


def _closed_there(snapshot: Snapshot, attempt: Attempt, why: str, confidence: Confidence) -> Finding:
    return Finding(
        code=NOTHING_LISTENING.code,
        title=title(f"{attempt.endpoint} answered with a reset: it refuses connections"),
        severity=severity(snapshot, attempt),
        confidence=confidence,
        explanation="The name and the route are fine: a reset came back at once. A host answers so when nothing "
        "listens on the port; a firewall can imitate it. Only the machine itself can tell the two apart for certain.",
        evidence=(connect_evidence(attempt), Evidence(why, "raw reply")),
        remedies=(
            Remedy(
                summary=f"On {attempt.address}, run netdiag run 127.0.0.1:{attempt.port} and netdiag run "
                f"{attempt.endpoint}: it says whether the program listens there, and on which address."
            ),
        ),
    )


def _unlistened(snapshot: Snapshot) -> Iterator[Finding | Missing]:
    """Nothing was sent, so the socket table is all there is."""
    match snapshot.listeners, snapshot.names:
        case (Unknown() as unknown, _):
            yield Missing("listeners", unknown)
        case (Known(value=rows), Known(value=names)):
            port = snapshot.target.port
            own = [one.address for one in names.addresses if _is_this_machine_s(snapshot, one.address)]
            if not own or len(own) < len(names.addresses):
                return
            if any(may_be_reached(rows, address, port) for address in own):
                return
            passive = snapshot.scope.passive
            without, again = ("--passive", "without --passive") if passive else ("that needs root", "as root")
            table = "sock_diag" if passive else "/proc/PID/net/tcp"
            yield Finding(
                code=NOTHING_LISTENING.code,
                title=title(f"No socket takes connections to {snapshot.target.address}"),
                severity=Severity.PROBLEM,
                confidence=Confidence.POSSIBLE,
                explanation=f"Nothing was sent ({without}). By the socket table alone a connection would be refused, "
                "unless a firewall or NAT rule takes it first.",
                evidence=tuple(Evidence(f"no TCP socket takes {Endpoint(one, port)}", table) for one in own),
                remedies=(Remedy(summary=f"Run it again {again} to know."),),
            )
        case _:
            return


def _is_this_machine_s(snapshot: Snapshot, address: str) -> bool:
    if is_loopback(address) or is_wildcard(address):
        return True
    return isinstance(snapshot.links, Known) and snapshot.links.value.holder(address) is not None


def _name(snapshot: Snapshot, row: SocketRow) -> str:
    match owner(row, snapshot.holders):
        case Owned(processes=(first, *_)):
            return first.program
        case _:
            return "A program"


def _owner_evidence(snapshot: Snapshot, row: SocketRow) -> tuple[Evidence, ...]:
    match owner(row, snapshot.holders):
        case Owned(processes=processes):
            return tuple(Evidence(f"held by {describe_process(one)}", "/proc/PID/fd") for one in processes[:3])
        case other:
            return (Evidence(describe_owner(other), "/proc/PID/fd"),)


CHECK = Check("refused", (NOTHING_LISTENING, OTHER_PORT, OTHER_ADDRESS, OTHER_FAMILY, OTHER_DEVICE, UDP_ONLY), judge)
