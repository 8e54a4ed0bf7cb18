"""refused: this machine, or the far one, answered no."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum, auto

from msgspec import Struct

from diagnose.analysis import unit_words
from diagnose.analysis.activation import Activation, fails, is_activating, opened, still_activating
from diagnose.analysis.beyond import Unserved, beyond, deciding_walk, served_elsewhere
from diagnose.analysis.describe import describe_owner, describe_process
from diagnose.analysis.neighbour import listener_there
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
from diagnose.analysis.server_settings import address_setting, forwards_by_ssh, port_setting, serves_ssh
from diagnose.analysis.succession import CameUp, came_up, succession_evidence, succession_text
from diagnose.analysis.wire import BoxOnTheWay, HostItself, ThisMachine, Undetermined, sender
from diagnose.analysis.wording import connect_evidence, row_text, title
from diagnose.model.attempt import Attempt, Outcome
from diagnose.model.check import Check
from diagnose.model.fact import NOT_NEEDED, Known, Missing, Reason, Unknown
from diagnose.model.finding import Cause, Command, Confidence, Evidence, Finding, Remedy, Severity, Stage
from diagnose.model.network import Endpoint, SocketRow, family_of, is_loopback, is_wildcard
from diagnose.model.process import Process
from diagnose.model.snapshot import Snapshot
from diagnose.model.target import Intent
from diagnose.model.unit import Tie, Unit

NOTHING_LISTENING = Cause(
    "refused/nothing-listening", Stage.SOCKET, "The port is closed: no socket listens on it, and the kernel said so"
)
OTHER_PORT = Cause("refused/other-port", Stage.SOCKET, "The program listens on a port close to the one asked for")
OTHER_ADDRESS = Cause(
    "refused/other-address", Stage.SOCKET, "The port listens on another address of this machine, and answers there"
)
OTHER_FAMILY = Cause("refused/other-family", Stage.SOCKET, "The port listens only on the other IP family")
OTHER_DEVICE = Cause(
    "refused/other-device", Stage.SOCKET, "The listener is bound to a network interface that our packets do not use"
)
UDP_ONLY = Cause("refused/udp-only", Stage.SOCKET, "The port is a UDP port: nothing listens on it with TCP")
STARTING_UP = Cause("refused/starting-up", Stage.SOCKET, "The server is still starting: systemd is activating its unit")


def judge(snapshot: Snapshot) -> Iterator[Finding | Missing]:
    """Who refused, and what there is instead of a listener."""
    if snapshot.intent is Intent.BIND:
        return
    for attempt in failing(snapshot):
        activated = still_activating(snapshot, attempt)
        if activated:
            yield _still_activating(attempt, activated)
        elif attempt.outcome is not Outcome.REFUSED:
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
        yield from _listens_since(snapshot, attempt)
        return
    elsewhere = _listens_elsewhere(snapshot, attempt, listeners_on(rows, attempt.port))
    if elsewhere:
        yield elsewhere
    walk = deciding_walk(snapshot, attempt)
    led_on = walk is not None and served_elsewhere(snapshot, walk) is not None
    if led_on or (walk is not None and not isinstance(beyond(snapshot, attempt, walk), Unserved)):
        return  # behind the rule NAT leads the port elsewhere, from here or from another address
    if elsewhere is None or elsewhere.confidence is Confidence.POSSIBLE:
        yield from _nothing_listens(snapshot, attempt, rows)


def _listens_since(snapshot: Snapshot, attempt: Attempt) -> Iterator[Finding]:
    """The attempt came into the gap of a server that was started, or started again, at that moment."""
    new = came_up(snapshot, attempt)
    if new is None or refusal(attempt) not in (Refusal.KERNEL, Refusal.UNCLEAR):
        return
    yield Finding(
        code=NOTHING_LISTENING.code,
        title=title(f"Nothing listened on {attempt.endpoint} at that moment"),
        severity=severity(snapshot, attempt),
        confidence=Confidence.LIKELY,
        explanation=f"The connection was refused, and {_lower(succession_text(new))} {_WHY_STARTED}",
        evidence=(connect_evidence(attempt), *_refuser(attempt), succession_evidence(new)),
        remedies=(
            _again_at(snapshot.target.address, "Try again: it listens now"),
            Remedy(
                summary="If it is refused again and again, something restarts the server each time that it ends: read "
                "the last lines of its log (journalctl -u UNIT, docker logs NAME), or start it in a terminal."
            ),
        ),
    )


_WHY_STARTED = (
    "Clients that come before a server has opened its port are refused; so are those that come between two starts."
)


def _behind_a_rule(snapshot: Snapshot, attempt: Attempt) -> Iterator[Finding]:
    """What the connection would meet without the rule that stops it: an independent fault, the second to be fixed."""
    walk = deciding_walk(snapshot, attempt)
    if walk is None or not isinstance(beyond(snapshot, attempt, walk), Unserved):
        return
    rows = snapshot.listeners.value if isinstance(snapshot.listeners, Known) else ()
    elsewhere = _listens_elsewhere(snapshot, attempt, listeners_on(rows, attempt.port))
    if elsewhere:
        yield elsewhere
    if (elsewhere and elsewhere.confidence is not Confidence.POSSIBLE) or served_elsewhere(snapshot, walk):
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
        remedies=_start_it(snapshot, attempt, None),
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
        f"accept {attempt.endpoint}, but the packets of this machine to itself do not come in by that interface.",
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


class _Reply(Enum):
    """What a connection to where the port listens instead shows."""

    ANSWERS = auto()
    UNTOLD = auto()
    """It was not accepted in the time that was given, or not kept: a server is there, and may be slow, or hang."""
    NONE = auto()
    """It was not tried, or something refuses it there as well."""


class _Elsewhere(Struct, frozen=True):
    """A listener on the port that does not accept connections to the address that was asked for."""

    row: SocketRow
    where: Endpoint
    """What reaches it."""
    tried: Attempt | None

    @property
    def reply(self) -> _Reply:
        """How sure it is that connecting there works."""
        match self.tried.outcome if self.tried else None:
            case Outcome.CONNECTED:
                return _Reply.ANSWERS
            case Outcome.NOT_ACCEPTED | Outcome.UNANSWERED | Outcome.CLOSED | Outcome.RESET | Outcome.OTHER:
                return _Reply.UNTOLD
            case _:
                return _Reply.NONE


def _listens_elsewhere(snapshot: Snapshot, attempt: Attempt, rows: tuple[SocketRow, ...]) -> Finding | None:
    """One finding for all other addresses, by the listener that is the surest to answer; None: there is none."""
    tried = {one.endpoint: one for one in (*snapshot.candidates, *snapshot.attempts)}
    found = [
        _Elsewhere(row, where, tried.get(where))
        for row in rows
        if (where := _connects_as(row, attempt.port)) is not None
    ]
    if not found:
        return None

    def order(one: _Elsewhere) -> tuple[bool, bool, bool]:
        other = family_of(one.where.address) != attempt.family
        return (one.reply is not _Reply.ANSWERS, other, one.reply is _Reply.NONE)

    found.sort(key=order)
    same = any(family_of(one.where.address) == attempt.family for one in found)
    return _found_elsewhere(snapshot, attempt, tuple(found), other_family=not same)


def _connects_as(row: SocketRow, port: int) -> Endpoint | None:
    """The endpoint that reaches this listener; None when it is bound to a device that loopback does not use."""
    address = unmapped(row.local.address)
    if row.device not in (None, "lo"):
        return None
    if not is_wildcard(address):
        return Endpoint(address, port)
    return Endpoint("::1" if address == "::" else "127.0.0.1", port)


def _found_elsewhere(
    snapshot: Snapshot, attempt: Attempt, found: tuple[_Elsewhere, ...], *, other_family: bool
) -> Finding:
    best = found[0]
    row, where = best.row, best.where
    refused_too = any(
        one.outcome is Outcome.REFUSED and one.family == family_of(where.address) for one in snapshot.attempts
    )
    other_family = other_family and not refused_too
    cause = OTHER_FAMILY if other_family else OTHER_ADDRESS
    family = "IPv6" if family_of(where.address) == "ipv6" else "IPv4"
    who = _name(snapshot, row)
    only = f"only over {family}, on {row.local}" if other_family else f"on {row.local}, not on {attempt.address}"
    so = (
        f"so the kernel refuses {attempt.endpoint}"
        if attempt.outcome is Outcome.REFUSED and refusal(attempt) is Refusal.KERNEL
        else f"so {attempt.endpoint} would be refused, whatever else stands in the way"
    )
    why = f"{who} listens {only}. A listener accepts connections only to the address it is bound to, {so}."
    if row.v6only and row.local.address == "::":
        why += " Its socket has IPV6_V6ONLY set, so even the wildcard address :: does not accept IPv4."
    if best.reply is _Reply.UNTOLD:
        why += f" Whether {where} works is not known: {_how_it_went(best)}."
    confidence = {_Reply.ANSWERS: Confidence.PROVEN, _Reply.UNTOLD: Confidence.LIKELY, _Reply.NONE: Confidence.POSSIBLE}
    return Finding(
        code=cause.code,
        title=title(f"{who} listens on {row.local}, not on {attempt.endpoint}"),
        severity=Severity.INFO if best.reply is _Reply.NONE else severity(snapshot, attempt),
        confidence=confidence[best.reply],
        explanation=why,
        evidence=(
            connect_evidence(attempt),
            *_refuser(attempt),
            *(
                evidence
                for one in found[:_SHOWN]
                for evidence in (Evidence(row_text(one.row), "sock_diag"), *_owner_evidence(snapshot, one.row))
            ),
            *(connect_evidence(one.tried) for one in found[:_SHOWN] if one.tried),
        ),
        remedies=_move_remedies(snapshot, attempt, best, other_family=other_family),
        explains=(NOTHING_LISTENING.code, OTHER_PORT.code),
    )


_SHOWN = 4


def _how_it_went(one: _Elsewhere) -> str:
    match one.tried.outcome if one.tried else None:
        case Outcome.NOT_ACCEPTED:
            return "its server had not accepted a connection by then"
        case Outcome.CLOSED | Outcome.RESET:
            return "its server ended a connection before any byte"
        case _:
            return "a connection to it had no answer by then"


def _move_remedies(snapshot: Snapshot, attempt: Attempt, best: _Elsewhere, *, other_family: bool) -> tuple[Remedy, ...]:
    where, holder = best.where, _holder(snapshot, best.row)
    if best.reply is _Reply.NONE:
        return ()
    there = (
        _again_at(str(where), f"Connect to the address that it listens on: {where}")
        if best.reply is _Reply.ANSWERS
        else _again_at(str(where), f"See what becomes of a connection to the address that it listens on: {where}")
    )
    both = (
        'bind both families (host "::" with IPv6-only off, or one socket each for 127.0.0.1 and ::1)'
        if other_family
        else f"bind {attempt.address} as well"
    )
    setting = address_setting(holder)
    option = f"the setting is {setting}" if setting else "the option is usually called host, bind or listen"
    move = Remedy(summary=f"Or change the server's bind address: {both}; {option}. Restart it afterwards.")
    if serves_ssh(holder):
        return (
            (_gateway_ports(attempt), there) if not is_loopback(attempt.address) else (there, _gateway_ports(attempt))
        )
    if forwards_by_ssh(holder):
        forward = f"ssh -L {_bracketed(attempt.address)}:{attempt.port}:HOST:HOSTPORT"
        move = Remedy(
            summary=f"Or start the forwarding again with that address: {forward}; without one, ssh forwards "
            "from the loopback addresses only."
        )
    return (there, move)


def _gateway_ports(attempt: Attempt) -> Remedy:
    where = f"{_bracketed(attempt.address)}:{attempt.port}"
    others = "" if is_loopback(attempt.address) else " Other machines then reach it as well."
    return Remedy(
        summary="If the port is forwarded with ssh -R: sshd binds it to loopback, whatever address the client asks "
        'for, unless its configuration (sshd_config on this machine) has "GatewayPorts clientspecified". Set that, '
        "reload sshd (systemctl reload ssh, or sshd), and connect again with "
        f"ssh -R {where}:HOST:HOSTPORT.{others} If it is a port of sshd itself: ListenAddress."
    )


def _again_at(target: str, summary: str) -> Remedy:
    return Remedy(summary=summary, commands=(Command(("netdiag", "run", target)),))


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _nothing_listens(snapshot: Snapshot, attempt: Attempt, rows: tuple[SocketRow, ...]) -> Iterator[Finding | Missing]:
    whose = refusal(attempt)
    udp = _udp_there(snapshot, attempt)
    if whose is Refusal.UNCLEAR and isinstance(attempt.reset, Unknown):
        yield Missing("who sent the reset", attempt.reset)
    explains = (NOTHING_LISTENING.code,)
    if udp:
        yield _udp_only(snapshot, attempt, udp, whose)
    near = near_misses(rows, attempt.port)
    likely = _likely_one(snapshot, attempt, near)
    since = came_up(snapshot, attempt)
    if not since:
        yield from _starting_up(snapshot, attempt)
    if likely:
        yield _near_miss(snapshot, attempt, likely, root=True)
    for row in near[:5]:
        if likely is None or row.local.port != likely.local.port:
            yield _near_miss(snapshot, attempt, row, root=False)
    yield Finding(
        code=NOTHING_LISTENING.code,
        title=title(f"Nothing listens on {attempt.endpoint}{_by_unit(snapshot, attempt) if not since else ''}"),
        severity=severity(snapshot, attempt),
        confidence=_how_sure(snapshot, attempt, whose),
        explanation=_why_closed(snapshot, whose, since) + _of_units(snapshot, attempt),
        evidence=(
            connect_evidence(attempt),
            *_refuser(attempt),
            Evidence(f"no TCP socket of this network namespace takes {attempt.endpoint}", "sock_diag"),
            *_bound_only(snapshot, attempt),
            *(unit_words.evidence(one) for one in _units_that_should(snapshot, attempt)),
            *_looked_elsewhere(snapshot),
            *((succession_evidence(since),) if since else ()),
        ),
        remedies=(*(() if since else _start_units(snapshot, attempt)), *_start_it(snapshot, attempt, since)),
        explains=explains if not udp else (),
    )


# ------ units of systemd


def _should_listen(snapshot: Snapshot, attempt: Attempt) -> Activation | None:
    """The socket unit that should, and does not; one that is active listens, if not where we asked.

    Packages bring socket units that nobody enables beside the service that is used (ssh.socket): a stopped one is
    not what should listen where another unit that may be the server's fails or is being started.
    """
    should = opened(snapshot.units, attempt.endpoint)
    if should is None or not unit_words.is_down(should.socket):
        return None
    if should.socket.active in ("failed", "activating"):
        return should
    rival = any(fails(one) or is_activating(one) for one in _candidates(snapshot, attempt))
    return should if unit_words.is_certain(should.socket) and not rival else None


def _candidates(snapshot: Snapshot, attempt: Attempt) -> tuple[Unit, ...]:
    """The units that may be the server's: those that fail first, and a socket unit that does not run last."""
    found = snapshot.units.value.found if isinstance(snapshot.units, Known) else ()
    able = [one for one in found if one.tie not in unit_words.CERTAIN]
    opener = opened(snapshot.units, attempt.endpoint)
    stopped = (opener.socket,) if opener is not None and opener.socket.active == "inactive" else ()
    return (*sorted(able, key=lambda one: not fails(one)), *stopped)


def _units_that_should(snapshot: Snapshot, attempt: Attempt) -> tuple[Unit, ...]:
    """The socket unit with this address and its service; where there is none, those that may be the server's."""
    should = _should_listen(snapshot, attempt)
    if should is not None:
        return (should.socket, *((should.service,) if should.service else ()))
    return _candidates(snapshot, attempt)[:_SHOWN]


def _candidate(snapshot: Snapshot, attempt: Attempt) -> Unit | None:
    """The one unit that may be the server's, by its own words; None: there are several, or none, or one by guess."""
    found = [one for one in _units_that_should(snapshot, attempt) if one.tie is not Tie.USUAL]
    return found[0] if len(found) == 1 and found[0].tie not in unit_words.CERTAIN else None


def _starting_up(snapshot: Snapshot, attempt: Attempt) -> Iterator[Finding]:
    """Refused while systemd starts the unit: one that says so itself, or the only one whose words have the port."""
    should = _should_listen(snapshot, attempt)
    unit = should.socket if should else _candidate(snapshot, attempt)
    if unit is None or unit.load != "loaded" or fails(unit):
        return
    if not (unit.active == "activating" or (unit.active == "inactive" and unit.job == "start")) or unit.restarts > 1:
        return
    certain = unit.tie in unit_words.CERTAIN
    uid = snapshot.vantage.reader_uid
    yield Finding(
        code=STARTING_UP.code,
        title=title(f"{unit_words.name(unit)} is still starting, and does not listen on {attempt.endpoint} yet"),
        severity=severity(snapshot, attempt),
        confidence=Confidence.PROVEN if certain and refusal(attempt) is Refusal.KERNEL else Confidence.LIKELY,
        explanation=f"{unit_words.name(unit)} {unit_words.state(unit)}. Until it listens, the kernel refuses every "
        f"connection to this port.{'' if certain else f' It is taken for the server because {unit_words.tied(unit)}.'}",
        evidence=(connect_evidence(attempt), *_refuser(attempt), unit_words.evidence(unit)),
        remedies=(
            *unit_words.unit_remedies(unit, attempt.port, (attempt.family,), uid),
            _again_at(snapshot.target.address, "Then try again"),
        ),
        explains=(NOTHING_LISTENING.code, OTHER_PORT.code),
    )


def _still_activating(attempt: Attempt, found: Activation) -> Finding:
    """The socket unit has our connection, and its service is on its way: nothing is known to be wrong."""
    assert found.service is not None
    service, socket = unit_words.name(found.service), unit_words.name(found.socket)
    return Finding(
        code=STARTING_UP.code,
        title=title(f"{service} was still starting after {attempt.ms / 1000:.1f} s"),
        severity=Severity.INFO,
        confidence=Confidence.PROVEN,
        explanation=f"systemd listens on {attempt.endpoint} for {socket}, and starts {service} at the first connection."
        f" {service} {unit_words.state(found.service)}: the connection is pending, and whether it will be served "
        "is not known yet.",
        evidence=(
            Evidence(f"our connection to {attempt.endpoint} has no inode on the server's side", "sock_diag"),
            unit_words.evidence(found.socket),
            unit_words.evidence(found.service),
        ),
        remedies=tuple(unit_words.unit_remedies(found.service, attempt.port, (attempt.family,), -1)),
    )


def _by_unit(snapshot: Snapshot, attempt: Attempt) -> str:
    """What a title can add, where systemd itself names the unit that should listen there."""
    should = _should_listen(snapshot, attempt)
    if should is None:
        return ""
    short = {"failed": "has failed", "inactive": "is not running"}.get(should.socket.active)
    return f": {unit_words.name(should.socket)} {short}" if short else ""


def _of_units(snapshot: Snapshot, attempt: Attempt) -> str:
    """A sentence about the units that should listen there, or may."""
    should = _should_listen(snapshot, attempt)
    if should is not None:
        service = should.service
        text = f" {unit_words.name(should.socket)}, which should listen there, {unit_words.state(should.socket)}."
        if service is not None and (fails(service) or unit_words.denials(service)):
            text += f" {unit_words.name(service)}, which it starts, {unit_words.state(service)}."
        return text
    found = _units_that_should(snapshot, attempt)
    if not found:
        return ""
    first = found[0]
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    denied = "".join(f", and {one}" for one in unit_words.denials(first))
    return (
        f" A unit that may be the server's{more}: {unit_words.name(first)} {unit_words.state(first)}{denied}; "
        f"{unit_words.tied(first)}."
    )


def _start_units(snapshot: Snapshot, attempt: Attempt) -> tuple[Remedy, ...]:
    uid, families = snapshot.vantage.reader_uid, (attempt.family,)
    should = _should_listen(snapshot, attempt)
    if should is not None:
        return tuple(unit_words.activation_remedies(should, attempt.port, families, uid))
    return tuple(
        remedy
        for one in _units_that_should(snapshot, attempt)
        for remedy in unit_words.unit_remedies(one, attempt.port, families, uid)
    )


def _bound_only(snapshot: Snapshot, attempt: Attempt) -> tuple[Evidence, ...]:
    """A program that has taken the port and does not listen: it is not ready yet, or its workers did not start."""
    rows = snapshot.bound.value if isinstance(snapshot.bound, Known) else ()
    found = [one for one in rows if one.local.port == attempt.port and covers(one, attempt.address) is Coverage.YES]
    return tuple(
        evidence
        for row in found[:_SHOWN]
        for evidence in (
            Evidence(f"{row.local} is bound by a socket that does not listen (yet)", "sock_diag"),
            *_owner_evidence(snapshot, row),
        )
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


def _why_closed(snapshot: Snapshot, whose: Refusal, since: CameUp | None) -> str:
    if since:
        text = f"At the moment of the attempt no program listened there. {succession_text(since)}"
    elif whose is Refusal.KERNEL:
        text = (
            "No program listens on this port here: the one that should answer is not running, not ready yet, or "
            "listens elsewhere (another port, a Unix socket, a container). The refusal is the kernel's own, as for "
            "every port without a listener: no firewall rule made it."
        )
    elif whose is Refusal.UNCLEAR:
        text = (
            "No program listens on this port, so it would be refused in any case; whether the reset came from the "
            "kernel or from a firewall rule could not be determined."
        )
    else:
        text = (
            "No program listens on this port here. The refusal itself did not come from the TCP of this network "
            "namespace: a firewall rule made it, or a NAT rule leads to another namespace."
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
            return (Evidence(f"{witness.source}: {_sender(witness.by_kernel)}", "tracefs"),)
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


def _start_it(snapshot: Snapshot, attempt: Attempt, since: CameUp | None) -> tuple[Remedy, ...]:
    port = attempt.port
    return (
        *((_again_at(snapshot.target.address, "Try again: something listens there now"),) if since else ()),
        Remedy(
            summary=f"Start the program that should serve port {port}, and read its log if it does not stay up. "
            "If it is a systemd unit, run systemctl --failed; if it is a container, docker ps -a (look for Exited or "
            f"Restarting). Then run netdiag run {snapshot.question} again.",
        ),
        Remedy(
            summary="If it runs and says that it listens, compare the port in its newest log line with the one "
            f"you connect to ({port})."
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


def _likely_one(snapshot: Snapshot, attempt: Attempt, near: tuple[SocketRow, ...]) -> SocketRow | None:
    """The one near listener, where it is the only one and its program is the one that serves such a target.

    Of its sockets the one that accepts connections to the address that was asked for, if it has one.
    """
    wanted = expected_programs(snapshot.target.port, snapshot.target.scheme)
    if len({row.local.port for row in near}) != 1:
        return None
    row = next((one for one in near if covers(one, attempt.address) is Coverage.YES), near[0])
    match owner(row, snapshot.holders):
        case Owned(processes=processes) if any(p.program in wanted for p in processes):
            return row
        case _:
            return None


def _near_miss(snapshot: Snapshot, attempt: Attempt, row: SocketRow, *, root: bool) -> Finding:
    port = row.local.port
    there = covers(row, attempt.address) is Coverage.YES
    where = Endpoint(attempt.address, port) if there else _connects_as(row, port)
    holder, who = _holder(snapshot, row), _name(snapshot, row)
    setting = port_setting(holder)
    return Finding(
        code=OTHER_PORT.code,
        title=title(f"{who} listens on a port close to {attempt.port}: {row.local}"),
        severity=severity(snapshot, attempt) if root else Severity.INFO,
        confidence=Confidence.LIKELY if root else Confidence.POSSIBLE,
        explanation=f"Port {port} is close to {attempt.port}: a digit may have slipped, or the program may have moved "
        "to the next free port. Only you know whether it is the one you mean.",
        evidence=(Evidence(row_text(row), "sock_diag"), *_owner_evidence(snapshot, row)),
        remedies=(
            *((_by_its_port(snapshot, where, there),) if where else ()),
            Remedy(
                summary=f"Or let it listen on port {attempt.port}: "
                f"{f'the setting is {setting}' if setting else 'its option is usually called port'}. Restart it "
                "afterwards."
            ),
        ),
        explains=(NOTHING_LISTENING.code,) if root else (),
    )


def _by_its_port(snapshot: Snapshot, where: Endpoint, there: bool) -> Remedy:
    """By the name that was asked for where it leads there, and never with what else stood in a URL."""
    named = snapshot.names.value.addresses if isinstance(snapshot.names, Known) else ()
    by_name = snapshot.target.host if there or any(one.address == where.address for one in named) else where.address
    what = f"{_bracketed(by_name)}:{where.port}"
    command = Command(("netdiag", "run", what))
    return Remedy(summary=f"Connect to {what} if that is the program you mean", commands=(command,))


def _refused_there(snapshot: Snapshot, attempt: Attempt) -> Iterator[Finding | Missing]:
    """Another machine's answer: what a client alone can know of it."""
    if isinstance(attempt.wire, Unknown) and attempt.wire != NOT_NEEDED:
        yield Missing("raw reply", attempt.wire)
    if listener_there(snapshot, attempt):
        return  # a server is known to listen there: the firewall check says so
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
    names = snapshot.names
    addresses = [one.address for one in names.value.addresses] if isinstance(names, Known) else []
    own = [one for one in addresses if _is_this_machine_s(snapshot, one)]
    if not own or len(own) < len(addresses):
        return
    match snapshot.listeners:
        case Unknown() as unknown:
            yield Missing("listeners", unknown)
        case Known(value=rows):
            port = snapshot.target.port
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
    holder = _holder(snapshot, row)
    return holder.program if holder else "A program"


def _holder(snapshot: Snapshot, row: SocketRow) -> Process | None:
    match owner(row, snapshot.holders):
        case Owned(processes=(first, *_)):
            return first
        case _:
            return None


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def _owner_evidence(snapshot: Snapshot, row: SocketRow) -> tuple[Evidence, ...]:
    match owner(row, snapshot.holders):
        case Owned(processes=processes):
            return tuple(Evidence(f"held by {describe_process(one)}", "/proc/PID/fd") for one in processes[:3])
        case other:
            return (Evidence(describe_owner(other), "/proc/PID/fd"),)


CHECK = Check(
    "refused",
    (NOTHING_LISTENING, OTHER_PORT, OTHER_ADDRESS, OTHER_FAMILY, OTHER_DEVICE, UDP_ONLY, STARTING_UP),
    judge,
    premises=("names", "links"),
)
