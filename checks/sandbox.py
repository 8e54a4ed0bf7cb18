"""sandbox: the kernel forbids it to this process, by a program on the cgroup of either end."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum

from msgspec import Struct

from diagnose.analysis.argument import is_unit
from diagnose.analysis.cgroup_program import cgroup_name, program_line, program_name, program_remedies, setting
from diagnose.analysis.reach import failing, reached, severity, unmapped
from diagnose.analysis.wording import connect_evidence, title
from diagnose.model.attempt import Attempt, BindAttempt, Drop, Outcome
from diagnose.model.cgroup import Cgroup, CgroupFilters, CgroupProgram, Hook
from diagnose.model.check import Check
from diagnose.model.confinement import Confinement
from diagnose.model.fact import NOT_NEEDED, Fact, Known, Missing, Reason, Unknown
from diagnose.model.finding import Cause, Command, Confidence, Evidence, Finding, Remedy, Severity, Stage
from diagnose.model.firewall import Shadow, Walk
from diagnose.model.network import TcpState
from diagnose.model.snapshot import Snapshot
from diagnose.model.target import Intent

CGROUP_FILTER = Cause(
    "sandbox/cgroup-filter", Stage.FIREWALL, "A filter on the cgroup of either end drops the packets: no rule shows it"
)
CGROUP_CONNECT = Cause(
    "sandbox/cgroup-connect", Stage.FIREWALL, "A program on our cgroup forbids the connect or bind itself (EPERM)"
)
ADDRESS_FAMILY = Cause(
    "sandbox/address-family",
    Stage.FIREWALL,
    "This process may not create an IP socket at all (AppArmor, RestrictAddressFamilies=, seccomp)",
)
SECCOMP = Cause("sandbox/seccomp", Stage.FIREWALL, "A seccomp filter forbids the connect or bind itself")

_EXPLAINS = ("firewall/silent", "firewall/reply-dropped", "resolution/prefers-other-family")
_FORBIDDEN = "EPERM"


class End(Enum):
    """Whose cgroup."""

    OURS = "the client"
    LISTENER = "the server"


class Place(Struct, frozen=True):
    """Where on the packets' path a filter may have dropped one."""

    end: End
    hook: Hook

    @property
    def stops(self) -> str:
        """Which packet passes there."""
        syn = (self.end is End.OURS) == (self.hook is Hook.EGRESS)
        return "connections to" if syn else "answers from"


class Filter(Struct, frozen=True):
    """What is attached at one place."""

    place: Place
    cgroup: Cgroup
    programs: tuple[CgroupProgram, ...]
    own_filter: Fact[bool]
    """Whether the socket there has a filter of its own as well."""


def judge(snapshot: Snapshot) -> Iterator[Finding | Missing]:
    """Which program on a cgroup stands in the way."""
    if snapshot.intent is Intent.BIND:
        for bind in snapshot.binds:
            if bind.call == "other":
                yield _NOT_MADE
            elif _no_socket(snapshot, bind):
                yield from _denied_a_socket(snapshot, bind)
            elif bind.outcome is Outcome.DENIED and bind.errno == _FORBIDDEN:
                yield from _forbidden(snapshot, bind)
        return
    for attempt in failing(snapshot):
        if attempt.call == "other":
            yield _NOT_MADE
        elif _no_socket(snapshot, attempt):
            yield from _denied_a_socket(snapshot, attempt)
        elif attempt.outcome is Outcome.DENIED and attempt.errno == _FORBIDDEN:
            yield from _forbidden(snapshot, attempt)
        elif attempt.local and (attempt.outcome is Outcome.UNANSWERED or attempt.half_open):
            yield from _silence(snapshot, attempt)


_NOT_MADE = Missing("attempts", Unknown(Reason.FAILED, "a seccomp filter forbids a system call that they need"))


# silence


def _silence(snapshot: Snapshot, attempt: Attempt) -> Iterator[Finding | Missing]:
    if isinstance(snapshot.cgroup_filters, Unknown) and snapshot.cgroup_filters != NOT_NEEDED:
        yield Missing("cgroup filters", snapshot.cgroup_filters)
    match attempt.drops:
        case Known(value=(_, *_) as drops) if not all(map(_untold, drops)):
            yield from _as_witnessed(snapshot, attempt, drops)
        case _ if attempt.half_open:
            return  # a filter that takes the first packet and not the last is none that anybody would suspect
        case _:
            yield from _by_exclusion(snapshot, attempt)


def _untold(drop: Drop) -> bool:
    """Whether TCP freed it and the kernel gives no reason (before Linux 5.17): a filter for incoming packets may."""
    return drop.reason == "NOT_SPECIFIED" and drop.symbol in ("tcp_v4_rcv", "tcp_v6_rcv")


def _as_witnessed(snapshot: Snapshot, attempt: Attempt, drops: tuple[Drop, ...]) -> Iterator[Finding | Missing]:
    """The kernel told where it dropped our packet."""
    for drop in drops:
        place = _place(drop)
        if place is None:
            continue
        known = [one for one in _at(snapshot, attempt, place) if isinstance(one, Filter)]
        yield from (one for one in _at(snapshot, attempt, place) if isinstance(one, Missing))
        filters = tuple(one for one in known if one.programs)
        if filters:
            confidence = Confidence.PROVEN if _only_the_cgroup_s(filters, drop) else Confidence.LIKELY
            yield _filtered(snapshot, attempt, filters, confidence, (_said(drop),))
        elif place.hook is Hook.EGRESS:
            yield _unnamed(snapshot, attempt, place, drop)
        return


def _place(drop: Drop) -> Place | None:
    """ip_finish_output of net/ipv4 and its like of IPv6 name the hook; a socket's input filters share one reason."""
    if drop.reason == "BPF_CGROUP_EGRESS":
        return Place(End.LISTENER if drop.packet == "reply" else End.OURS, Hook.EGRESS)
    if drop.reason == "SOCKET_FILTER":
        return Place(End.OURS if drop.packet == "reply" else End.LISTENER, Hook.INGRESS)
    return None


def _only_the_cgroup_s(filters: tuple[Filter, ...], drop: Drop) -> bool:
    """Whether no filter of the socket's own can have done it; ours has none."""
    return drop.reason == "BPF_CGROUP_EGRESS" or all(one.own_filter == Known(False) for one in filters)


def _said(drop: Drop) -> Evidence:
    packet = {"syn": "packet", "reply": "packet's answer", "ack": "ACK of the answer"}[drop.packet]
    return Evidence(f"the kernel freed our {packet}: {drop.words}", "tracefs skb:kfree_skb")


def _by_exclusion(snapshot: Snapshot, attempt: Attempt) -> Iterator[Finding | Missing]:
    """Without the kernel's word: a filter is there, and nothing else is known to be in the way."""
    found = [one for place in _possible(snapshot, attempt) for one in _at(snapshot, attempt, place)]
    yield from (one for one in found if isinstance(one, Missing))
    filters = tuple(one for one in found if isinstance(one, Filter) and one.programs)
    walk = _clean_walk(snapshot, attempt)
    if not filters or _stopped_elsewhere(snapshot, attempt):
        return
    through = (Evidence("a copy of the firewall rules lets the connection through", "copy of the rules, traced"),)
    confidence = Confidence.LIKELY if walk and _inodes(snapshot, attempt) else Confidence.POSSIBLE
    yield _filtered(snapshot, attempt, filters, confidence, through if walk else ())


def _possible(snapshot: Snapshot, attempt: Attempt) -> tuple[Place, ...]:
    """Where the packet can have been lost, by how far the connection came."""
    if _half_open(snapshot, attempt):
        return Place(End.LISTENER, Hook.EGRESS), Place(End.OURS, Hook.INGRESS)
    sent, arriving = Place(End.OURS, Hook.EGRESS), Place(End.LISTENER, Hook.INGRESS)
    match attempt.queue:
        case Known(value=witness) if witness.drops_after == witness.drops_before:
            return (sent,)  # a socket counts what its input filters drop (sk_drops_add, net/ipv4/tcp_ipv4.c)
        case _:
            return sent, arriving


def _half_open(snapshot: Snapshot, attempt: Attempt) -> bool:
    """Whether the SYN has arrived, and the server's side waits for us."""
    rows = snapshot.sockets.value if isinstance(snapshot.sockets, Known) else ()
    ours = attempt.source
    return ours is not None and any(
        row.state in (TcpState.SYN_RECV, TcpState.NEW_SYN_RECV)
        and (unmapped(row.peer.address), row.peer.port) == (unmapped(ours.address), ours.port)
        for row in rows
    )


def _stopped_elsewhere(snapshot: Snapshot, attempt: Attempt) -> bool:
    """Whether a rule or the listener's own queue is known to do it."""
    walk = _walk(snapshot, attempt)
    if walk is not None and (walk.decider is not None or walk.arrives is not None):
        return True
    return isinstance(attempt.queue, Known) and attempt.queue.value.dropped_ours


def _clean_walk(snapshot: Snapshot, attempt: Attempt) -> Walk | None:
    walk = _walk(snapshot, attempt)
    clean = walk is not None and walk.verdict == "accept" and not walk.doubts and not walk.depends
    return walk if clean else None


def _walk(snapshot: Snapshot, attempt: Attempt) -> Walk | None:
    match snapshot.firewall:
        case Known(value=Shadow(walks=walks)):
            return next((one for one in walks if (one.address, one.port) == (attempt.address, attempt.port)), None)
        case Unknown():
            return None


def _at(snapshot: Snapshot, attempt: Attempt, place: Place) -> Iterator[Filter | Missing]:
    """What is attached there; an end whose cgroup is not known is missing."""
    match snapshot.cgroup_filters:
        case Unknown():
            return
        case Known(value=seen):
            pass
    if place.end is End.OURS:
        yield _filter(place, seen.ours, Known(False))
        return
    for inode in _inodes(snapshot, attempt):
        one = seen.listener(inode)
        if one is not None:
            yield _filter(place, one.cgroup, one.own_filter)


def _filter(place: Place, cgroup: Fact[Cgroup], own_filter: Fact[bool]) -> Filter | Missing:
    match cgroup:
        case Known(value=known):
            return Filter(place, known, known.at(place.hook), own_filter)
        case Unknown() as unknown:
            return Missing(f"cgroup of {place.end.value}", unknown)


def _inodes(snapshot: Snapshot, attempt: Attempt) -> tuple[int, ...]:
    rows = snapshot.listeners.value if isinstance(snapshot.listeners, Known) else ()
    return tuple(row.inode for row in reached(rows, attempt.address, attempt.port))


def _filtered(
    snapshot: Snapshot,
    attempt: Attempt,
    filters: tuple[Filter, ...],
    confidence: Confidence,
    seen: tuple[Evidence, ...],
) -> Finding:
    place = filters[0].place
    programs = tuple(dict.fromkeys(program for one in filters for program in one.programs))
    first = programs[0]
    who = f"{program_name(first)} on {cgroup_name(first.attached)}"
    if len(programs) > 1:
        who = f"One of {len(programs)} filters on the cgroup of {place.end.value}"
    return Finding(
        code=CGROUP_FILTER.code,
        title=title(f"{who} drops {place.stops} {attempt.endpoint}"),
        severity=severity(snapshot, attempt),
        confidence=confidence,
        explanation=_what_a_filter_does(place, first, confidence),
        evidence=(
            *(program_line(one) for one in programs),
            *(
                Evidence(f"the cgroup of {one.place.end.value}: {one.cgroup.directory}", _source(one))
                for one in filters
            ),
            *seen,
            *_no_filter_of_its_own(filters),
            connect_evidence(attempt),
        ),
        remedies=_remedies(attempt, place, programs),
        explains=_EXPLAINS,
    )


def _what_a_filter_does(place: Place, program: CgroupProgram, confidence: Confidence) -> str:
    made = setting(program)
    text = (
        f"For every packet of {place.end.value}'s cgroup the kernel asks a program, and it drops what that says no to: "
        "the client hears nothing until its timeout. No firewall rule shows it. "
    )
    text += (
        f"systemd attaches such a program for {made}"
        if made
        else "Service managers, container engines and sandboxes attach such programs"
    )
    match confidence:
        case Confidence.PROVEN:
            return f"{text}. The kernel itself says that such a filter dropped the packet."
        case _:
            return f"{text}. That it does drop this packet is concluded: the kernel's own word could not be had."


def _source(one: Filter) -> str:
    return "/proc/self/cgroup" if one.place.end is End.OURS else "sock_diag"


def _no_filter_of_its_own(filters: tuple[Filter, ...]) -> tuple[Evidence, ...]:
    listening = [one for one in filters if one.place == Place(End.LISTENER, Hook.INGRESS)]
    if not listening or any(one.own_filter != Known(False) for one in listening):
        return ()
    return (Evidence("the listening socket has no filter of its own", "getsockopt(SO_GET_FILTER)"),)


def _remedies(attempt: Attempt, place: Place, programs: tuple[CgroupProgram, ...]) -> tuple[Remedy, ...]:
    """The peer, seen from the filtered end, is the one to be allowed."""
    source = attempt.source.address if attempt.source else attempt.address
    peer = attempt.address if place.end is End.OURS else source
    found = [one for program in programs for one in program_remedies(program, peer, attempt.port, place.end.value)]
    return tuple(dict.fromkeys(found))


def _unnamed(snapshot: Snapshot, attempt: Attempt, place: Place, drop: Drop) -> Finding:
    """The kernel's reason alone names the hook; which program it was could not be read."""
    return Finding(
        code=CGROUP_FILTER.code,
        title=title(f"A filter on the cgroup of {place.end.value} drops {place.stops} {attempt.endpoint}"),
        severity=severity(snapshot, attempt),
        confidence=Confidence.PROVEN,
        explanation="A BPF program attached to a cgroup said no to the packet, and the kernel dropped it: the client "
        "hears nothing until its timeout. No firewall rule shows it. Which program it was could not be read.",
        evidence=(_said(drop), connect_evidence(attempt)),
        remedies=(
            Remedy(
                summary=f"bpftool cgroup tree lists the programs; if {place.end.value} runs in a systemd unit, look "
                "at its IPAddressDeny= and RestrictNetworkInterfaces= (systemctl show UNIT)."
            ),
        ),
        explains=_EXPLAINS,
    )


# forbidden at once


def _forbidden(snapshot: Snapshot, attempt: Attempt | BindAttempt) -> Iterator[Finding | Missing]:
    match snapshot.cgroup_filters:
        case Unknown() as unknown:
            yield Missing("cgroup filters", unknown)
            yield _forbidden_by_somebody(snapshot, attempt)
        case Known(value=CgroupFilters(ours=Unknown() as unknown)):
            yield Missing("cgroup of the client", unknown)
            yield _forbidden_by_somebody(snapshot, attempt)
        case Known(value=CgroupFilters(ours=Known(value=cgroup), rivals=rivals)):
            programs = cgroup.at(*_hooks(attempt))
            if not programs:
                yield from _by_seccomp(snapshot, attempt, rivals)
                return
            if isinstance(rivals, Unknown):
                yield Missing("what else answers EPERM", rivals)
            yield _forbidden_by(snapshot, attempt, cgroup, programs, rivals)


def _hooks(attempt: Attempt | BindAttempt) -> tuple[Hook, Hook]:
    """The program that is asked for the call, and the one that is asked for the socket before."""
    match attempt:
        case Attempt(family="ipv4"):
            return Hook.CONNECT4, Hook.SOCK_CREATE
        case Attempt():
            return Hook.CONNECT6, Hook.SOCK_CREATE
        case BindAttempt(family="ipv4"):
            return Hook.BIND4, Hook.SOCK_CREATE
        case BindAttempt():
            return Hook.BIND6, Hook.SOCK_CREATE


def _call(attempt: Attempt | BindAttempt) -> str:
    return "connect" if isinstance(attempt, Attempt) else "bind"


def _forbidden_by(
    snapshot: Snapshot,
    attempt: Attempt | BindAttempt,
    cgroup: Cgroup,
    programs: tuple[CgroupProgram, ...],
    rivals: Fact[tuple[str, ...]],
) -> Finding:
    alone = rivals == Known(())
    who = f"{program_name(programs[0])} on {cgroup_name(programs[0].attached)}"
    if len(programs) > 1:
        who = f"One of {len(programs)} programs on our cgroup"
    others = rivals.value if isinstance(rivals, Known) else ("what could not be looked at",)
    doubt = "" if alone else f" It could also be {', '.join(others)}: hence likely only."
    nothing_else = Evidence(
        "neither seccomp, nor a security module, nor an IPsec policy can answer EPERM", "the kernel"
    )
    remedies = [r for one in programs for r in program_remedies(one, attempt.address, attempt.port, End.OURS.value)]
    return Finding(
        code=CGROUP_CONNECT.code,
        title=title(f"{who} forbids to {_call(attempt)} to {attempt.endpoint}"),
        severity=_severity(snapshot, attempt),
        confidence=Confidence.PROVEN if alone else Confidence.LIKELY,
        explanation=f"The kernel asks a program on our cgroup before every {_call(attempt)}, and it says no: EPERM at "
        f"once, no packet is sent, and no firewall rule shows it. Other processes may not be affected.{doubt}",
        evidence=(
            *(program_line(one) for one in programs),
            Evidence(f"the cgroup of this process: {cgroup.directory}", "/proc/self/cgroup"),
            *((nothing_else,) if alone else ()),
            _evidence(attempt),
        ),
        remedies=tuple(dict.fromkeys(remedies)),
        explains=("resolution/prefers-other-family",),
    )


def _forbidden_by_somebody(snapshot: Snapshot, attempt: Attempt | BindAttempt) -> Finding:
    again = ("netdiag", "run", snapshot.target.address)
    by_root = Remedy(
        summary="As root, netdiag shows the programs on this cgroup",
        commands=(Command((*again, "--bind") if isinstance(attempt, BindAttempt) else again, needs_root=True),),
    )
    by_hand = Remedy(summary="bpftool cgroup tree, on the host as root, lists the programs on cgroups.")
    return Finding(
        code=CGROUP_CONNECT.code,
        title=title(f"A sandbox forbids to {_call(attempt)} to {attempt.endpoint}"),
        severity=_severity(snapshot, attempt),
        confidence=Confidence.POSSIBLE,
        explanation=f"The {_call(attempt)} was answered with EPERM at once, which no firewall rule and no closed port "
        "does to TCP: a program on our cgroup, a seccomp filter, a security module or an IPsec policy does.",
        evidence=(_evidence(attempt),),
        remedies=(by_hand if snapshot.vantage.privileged else by_root,),
    )


def _by_seccomp(snapshot: Snapshot, attempt: Attempt | BindAttempt, rivals: Fact[tuple[str, ...]]) -> Iterator[Finding]:
    """A filter on this process, where no program on its cgroup is asked; the rivals name whatever else says EPERM."""
    bounds = _confinement(snapshot)
    if bounds is None or not bounds.seccomp:
        return
    alone = isinstance(rivals, Known) and len(rivals.value) == 1
    yield Finding(
        code=SECCOMP.code,
        title=title(f"A seccomp filter forbids this process to {_call(attempt)} to {attempt.endpoint}"),
        severity=_severity(snapshot, attempt),
        confidence=Confidence.LIKELY if alone else Confidence.POSSIBLE,
        explanation=f"The {_call(attempt)} was answered with EPERM at once, no packet was sent, and no program on our "
        "cgroup is asked for it. A seccomp filter judges the system calls of netdiag itself: other processes may not "
        "be affected.",
        evidence=(
            Evidence("Seccomp: 2, a filter judges this process's system calls", "/proc/self/status"),
            *_unit_evidence(bounds),
            _evidence(attempt),
        ),
        remedies=_out_of_the_sandbox(snapshot, bounds, "SystemCallFilter="),
        explains=("resolution/prefers-other-family",),
    )


# no socket at all


_NO_SOCKET = ("EACCES", "EPERM", "EAFNOSUPPORT")


def _no_socket(snapshot: Snapshot, attempt: Attempt | BindAttempt) -> bool:
    """Whether socket(2) itself was denied, and the kernel has the family."""
    if attempt.call != "socket" or attempt.errno not in _NO_SOCKET:
        return False
    if attempt.errno != "EAFNOSUPPORT" or attempt.family == "ipv4":
        return True
    return isinstance(snapshot.policy, Known) and snapshot.policy.value.ipv6_available


def _denied_a_socket(snapshot: Snapshot, attempt: Attempt | BindAttempt) -> Iterator[Finding | Missing]:
    """Denied to this process; a program on its cgroup is another cause, which is named where it is seen."""
    programs = _programs_for_sockets(snapshot) if attempt.errno == _FORBIDDEN else ()
    if programs:
        yield from _forbidden(snapshot, attempt)
        return
    bounds = _confinement(snapshot)
    family = "IPv4" if attempt.family == "ipv4" else "IPv6"
    yield Finding(
        code=ADDRESS_FAMILY.code,
        title=title(f"This process may not create {family} sockets: socket(2) gives {attempt.errno}"),
        severity=_severity(snapshot, attempt),
        confidence=Confidence.PROVEN if attempt.errno != _FORBIDDEN or _programs_known(snapshot) else Confidence.LIKELY,
        explanation=f"The kernel denies the socket itself, so nothing was sent to {attempt.endpoint}, and nothing is "
        f"known of the server there. {_who_denies(attempt.errno or '', bounds)} Other processes may not be affected.",
        evidence=(
            Evidence(f"socket for {attempt.endpoint}: {attempt.errno}", "socket(2)"),
            *_confinement_evidence(bounds),
        ),
        remedies=_out_of_the_sandbox(snapshot, bounds, _SETTINGS[attempt.errno or ""]),
        explains=("resolution/prefers-other-family",),
    )


_SETTINGS = {"EAFNOSUPPORT": "RestrictAddressFamilies=", "EPERM": "SystemCallFilter=", "EACCES": "AppArmorProfile="}
"""The setting of a systemd unit that mostly gives each errno (systemd.exec(5))."""


def _programs_for_sockets(snapshot: Snapshot) -> tuple[CgroupProgram, ...]:
    match snapshot.cgroup_filters:
        case Known(value=CgroupFilters(ours=Known(value=cgroup))):
            return cgroup.at(Hook.SOCK_CREATE)
        case _:
            return ()


def _programs_known(snapshot: Snapshot) -> bool:
    return isinstance(snapshot.cgroup_filters, Known) and isinstance(snapshot.cgroup_filters.value.ours, Known)


def _confinement(snapshot: Snapshot) -> Confinement | None:
    return snapshot.confinement.value if isinstance(snapshot.confinement, Known) else None


def _who_denies(errno: str, bounds: Confinement | None) -> str:
    """What the facts about this process leave as the maker of the denial."""
    profile = bounds.enforced_profile if bounds is not None else None
    if errno == "EACCES" and profile is not None:
        return f"The AppArmor profile {profile} is enforced for this process, and allows no network inet stream."
    if bounds is not None and bounds.seccomp:
        made = " (systemd gives this errno for RestrictAddressFamilies=)" if errno == "EAFNOSUPPORT" else ""
        return f"A seccomp filter judges the system calls of this process{made}."
    return "A security module (AppArmor, SELinux), a seccomp filter or a program on its cgroup does that."


def _confinement_evidence(bounds: Confinement | None) -> Iterator[Evidence]:
    if bounds is None:
        return
    if bounds.seccomp:
        yield Evidence("Seccomp: 2, a filter judges this process's system calls", "/proc/self/status")
    if bounds.profile is not None:
        yield Evidence(f"AppArmor profile {bounds.profile}", "/proc/self/attr/apparmor/current")
    yield from _unit_evidence(bounds)


def _unit_evidence(bounds: Confinement) -> tuple[Evidence, ...]:
    return (Evidence(f"netdiag runs in {bounds.unit}", "/proc/self/cgroup"),) if bounds.unit is not None else ()


def _out_of_the_sandbox(snapshot: Snapshot, bounds: Confinement | None, setting: str) -> tuple[Remedy, ...]:
    """The fix is on our side: run it outside, or allow it in the profile or unit that netdiag runs in."""
    again = f"netdiag run {snapshot.question}"
    found = [
        Remedy(
            summary=f"Run {again} outside of this sandbox, in a login shell of the machine. If it works there, the "
            "client that fails needs the same as netdiag here."
        )
    ]
    profile = bounds.enforced_profile if bounds is not None else None
    if profile is not None and setting == _SETTINGS["EACCES"]:
        found.append(
            Remedy(
                summary=f"Allow it in the AppArmor profile {profile}: add the lines network inet stream, and network "
                "inet6 stream, to its file in /etc/apparmor.d, then load it again with apparmor_parser -r. journalctl "
                "-k shows what it denies (apparmor=DENIED)."
            )
        )
    if bounds is not None and bounds.unit is not None and bounds.seccomp and is_unit(bounds.unit):
        found.append(_look_at_the_unit(bounds, bounds.unit, setting))
    return tuple(found)


def _look_at_the_unit(bounds: Confinement, unit: str, setting: str) -> Remedy:
    control = ("systemctl", "--user") if bounds.unit_owner is not None else ("systemctl",)
    add = " Add AF_INET AF_INET6 to it" if setting == "RestrictAddressFamilies=" else " Allow @network-io in it"
    return Remedy(
        summary=f"See what {unit} forbids, in which netdiag runs.{add} (systemctl edit {unit}, or the -p options that "
        "started it), then restart it.",
        commands=(Command((*control, "show", unit, "-p", _FORBIDS)),),
    )


_FORBIDS = "RestrictAddressFamilies,SystemCallFilter,SystemCallErrorNumber,AppArmorProfile"


def _severity(snapshot: Snapshot, attempt: Attempt | BindAttempt) -> Severity:
    return severity(snapshot, attempt) if isinstance(attempt, Attempt) else Severity.PROBLEM


def _evidence(attempt: Attempt | BindAttempt) -> Evidence:
    if isinstance(attempt, Attempt):
        return connect_evidence(attempt)
    return Evidence(f"bind to {attempt.endpoint}: {attempt.errno}", "bind(2)")


CHECK = Check(
    "sandbox",
    (CGROUP_FILTER, CGROUP_CONNECT, ADDRESS_FAMILY, SECCOMP),
    judge,
    premises=("names", "links", "confinement"),
)
