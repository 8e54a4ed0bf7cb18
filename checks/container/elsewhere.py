"""Where the port is open instead: in another network namespace than ours."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from checks.container.causes import OTHER_NAMESPACE, OWN_LOCALHOST
from diagnose.analysis import compose
from diagnose.analysis.argument import is_unit
from diagnose.analysis.describe import describe_process
from diagnose.analysis.neighbour import run_inside
from diagnose.analysis.publication import callable_name, shares_host_network
from diagnose.analysis.reach import failing, may_be_reached
from diagnose.analysis.refusal import Refusal, refusal
from diagnose.analysis.wording import connect_evidence, title
from diagnose.model.attempt import Attempt, Outcome
from diagnose.model.elsewhere import Elsewhere, OtherListener, Residence
from diagnose.model.fact import Known, Missing, Reason, Unknown
from diagnose.model.finding import Confidence, Evidence, Finding, Remedy, Severity
from diagnose.model.network import Endpoint, family_of, is_loopback, is_wildcard
from diagnose.model.process import Container
from diagnose.model.snapshot import Snapshot
from diagnose.model.target import Intent


def judge(snapshot: Snapshot) -> Iterator[Finding | Missing]:
    """Where the port is open instead, after it was refused here because nobody listens."""
    if snapshot.intent is Intent.BIND:
        return
    match _unserved(snapshot):
        case None:
            return
        case Missing() as missing:
            yield missing
        case Attempt() as attempt:
            inside = _own_container(snapshot, attempt)
            if inside:
                yield _own_localhost(snapshot, attempt, inside)
            yield from _elsewhere(snapshot, attempt, certain=inside is None)


def _unserved(snapshot: Snapshot) -> Attempt | Missing | None:
    """The attempt that was refused because no socket of this namespace wanted it; None: that is not what happened."""
    failed = failing(snapshot)
    if not failed or len(failed) < len(snapshot.attempts):
        return None
    refused = [one for one in failed if one.local and one.outcome is Outcome.REFUSED]
    if not refused or any(not _is_explained(one) for one in failed):
        return None
    if any(_rule_stops(snapshot, one) for one in refused):
        return None
    match snapshot.listeners:
        case Unknown() as unknown:
            by_kernel = all(refusal(one) is Refusal.KERNEL for one in refused)
            return refused[0] if by_kernel else Missing("listeners", unknown)
        case Known(value=rows):
            served = any(may_be_reached(rows, one.address, one.port) for one in refused)
            return None if served else refused[0]


def _is_explained(one: Attempt) -> bool:
    """Refused by a closed port, or without an address of the family: nothing else stands in the way."""
    if one.outcome is Outcome.REFUSED:
        return refusal(one) in (Refusal.KERNEL, Refusal.UNCLEAR)
    return one.outcome is Outcome.ADDRESS_UNAVAILABLE


def _rule_stops(snapshot: Snapshot, attempt: Attempt) -> bool:
    match snapshot.firewall:
        case Known(value=shadow):
            walk = shadow.walk(attempt.address)
            return walk is not None and walk.verdict in ("drop", "reject")
        case Unknown():
            return False


def _elsewhere(snapshot: Snapshot, attempt: Attempt, *, certain: bool) -> Iterator[Finding | Missing]:
    """The other namespaces with the port; `certain`: a single one may be the cause."""
    match snapshot.elsewhere:
        case Unknown() as unknown:
            yield Missing("other network namespaces", unknown)
        case Known(value=seen):
            found = _by_namespace(seen)
            for listeners in found:
                yield _other_namespace(attempt, listeners, seen, len(found), only=certain and len(found) == 1)
            if not found and seen.unreadable:
                yield Missing("other network namespaces", _hidden(snapshot, seen))


def _by_namespace(seen: Elsewhere) -> list[tuple[OtherListener, ...]]:
    numbers = sorted({listener.namespace for listener in seen.listeners})
    return [tuple(each for each in seen.listeners if each.namespace == number) for number in numbers]


def _hidden(snapshot: Snapshot, seen: Elsewhere) -> Unknown:
    many = f"{seen.unreadable} could not be looked into, {seen.namespaces} could"
    if snapshot.vantage.privileged:
        return Unknown(Reason.NOT_VISIBLE, many, "look from inside: ip netns exec NAME ss -ltn")
    return Unknown(Reason.NEEDS_ROOT, many, "run it again with sudo")


def _other_namespace(
    attempt: Attempt, listeners: Sequence[OtherListener], seen: Elsewhere, candidates: int, *, only: bool
) -> Finding:
    first = listeners[0]
    return Finding(
        code=OTHER_NAMESPACE.code,
        title=title(_title(attempt, first, seen.ours)),
        severity=Severity.PROBLEM if only else Severity.INFO,
        confidence=Confidence.LIKELY if only else Confidence.POSSIBLE,
        explanation=_why(attempt, first, candidates, seen.ours),
        evidence=(
            connect_evidence(attempt),
            Evidence(f"no TCP socket of our own namespace takes {attempt.endpoint}", "sock_diag"),
            *(_listener_evidence(each) for each in listeners),
            *_place_evidence(first),
            *_residence_evidence(seen.ours),
            Evidence(_looked(seen, candidates), "/proc/PID/ns/net"),
        ),
        remedies=(_dial_inside(attempt, listeners), *_bring_together(attempt, first, seen.ours)),
        explains=("refused/nothing-listening", "refused/other-port") if only else (),
    )


def _title(attempt: Attempt, listener: OtherListener, ours: Residence) -> str:
    if listener.residence.machine and ours.machine is False:
        return f"netdiag runs in its own network namespace; port {attempt.port} is open in the machine's"
    return f"Port {attempt.port} is open in another network namespace: {_owner(listener)}"


def _owner(listener: OtherListener) -> str:
    """The shortest name that a person knows it by."""
    program = listener.process.program if listener.process else None
    if listener.container:
        place = f"container {_name(listener.container)}"
    elif listener.name:
        place = f"netns {listener.name}"
    elif listener.residence.machine:
        place = "the machine's own"
    elif listener.unit:
        place = listener.unit
    else:
        place = f"pid {listener.process.pid if listener.process else listener.init}"
    return f"{program}, {place}" if program else place


def _name(container: Container) -> str:
    return container.name or container.id[:12] or container.engine


def _why(attempt: Attempt, listener: OtherListener, candidates: int, ours: Residence) -> str:
    text = (
        f"A network namespace has a loopback of its own: {attempt.address} in there is another one than "
        f"{attempt.address} here, so a server inside is not reached from outside."
    )
    if candidates > 1:
        return f"{text} The port is open in {candidates} other namespaces; which one you mean, if any, is not known."
    if listener.residence.machine and ours.machine is False:
        return f"{text} The server is in the machine's own network namespace, and netdiag is not: {_made(ours)}."
    if listener.container:
        return f"{text} The port of a container has to be published to be reached on this machine."
    if listener.residence.machine is False and ours.machine is False:
        return (
            f"{text} Neither is in the machine's own network namespace. Of netdiag's, {_made(ours)}; of the server's, "
            f"{_made(listener.residence)}."
        )
    if listener.residence.machine is False:
        return f"{text} netdiag is in the machine's own, and the server is not: {_made(listener.residence)}."
    if listener.unit:
        return f"{text} It belongs to {listener.unit}: a unit with PrivateNetwork=yes has a namespace of its own."
    return f"{text} It is the only other one in sight that has this port open."


def _listener_evidence(listener: OtherListener) -> Evidence:
    pid = listener.process.pid if listener.process else listener.init
    return Evidence(f"LISTEN {listener.local} in network namespace {listener.namespace}", f"/proc/{pid}/net/tcp")


def _place_evidence(listener: OtherListener) -> Iterator[Evidence]:
    if listener.process:
        yield Evidence(f"held by {describe_process(listener.process)}", "/proc/PID/fd")
    else:
        program = f" ({listener.init_program})" if listener.init_program else ""
        yield Evidence(f"its owner is hidden from us; pid {listener.init}{program} runs in there", "/proc")
    if listener.name:
        yield Evidence(f"the namespace is named {listener.name}", "/run/netns")
    if listener.container:
        yield Evidence(f"{listener.container.engine} container {_name(listener.container)}", "/proc/PID/cgroup")
    if listener.unit:
        yield Evidence(f"unit {listener.unit}", "/proc/PID/cgroup")


def _made(one: Residence) -> str:
    """What put a process into a network namespace other than the machine's, as a clause."""
    if one.unit is not None:
        joined = f", shared with {', '.join(one.shared_with)} (JoinsNamespaceOf=)" if one.shared_with else ""
        return f"systemd started {one.unit} in a namespace of its own (PrivateNetwork= or its kin){joined}"
    if one.launcher:
        return f"{one.launcher} (pid {one.launcher_pid}) is its outermost process, and its parent is outside"
    return "what made it could not be determined"


def _residence_evidence(ours: Residence) -> Iterator[Evidence]:
    if ours.machine:
        yield Evidence("netdiag is in the network namespace of pid 1", "/proc/1/net/tcp")
    elif ours.machine is False:
        yield Evidence(f"netdiag is not in the network namespace of pid 1: {_made(ours)}", "/proc/1/net/tcp")


def _looked(seen: Elsewhere, candidates: int) -> str:
    where = "in it alone" if candidates == 1 else f"in {candidates} of them"
    unread = f"; {seen.unreadable} more could not be looked into" if seen.unreadable else ""
    return f"{seen.namespaces} other network namespaces looked into, the port is open {where}{unread}"


def _dial_inside(attempt: Attempt, listeners: Sequence[OtherListener]) -> Remedy:
    first = listeners[0]
    pid = first.process.pid if first.process else first.init
    return Remedy(
        summary="Dial it from inside its namespace: this proves that it is the server you mean",
        commands=(run_inside(first, pid, str(_inside(attempt, listeners))),),
    )


def _inside(attempt: Attempt, listeners: Sequence[OtherListener]) -> Endpoint:
    """Where a client inside finds it: of several sockets the one of the family that was dialled here."""
    same = [each for each in listeners if _family_dialled(each, attempt) == attempt.family]
    local = (same or listeners)[0].local
    if not is_wildcard(local.address):
        return local
    family = _family_dialled((same or listeners)[0], attempt)
    return Endpoint("127.0.0.1" if family == "ipv4" else "::1", local.port)


def _family_dialled(listener: OtherListener, attempt: Attempt) -> str:
    """An IPv6 wildcard mostly takes IPv4 as well; its table does not tell."""
    return attempt.family if listener.local.address == "::" else family_of(listener.local.address)


def _bring_together(attempt: Attempt, listener: OtherListener, ours: Residence) -> Iterator[Remedy]:
    """On the side whose namespace is not the machine's; where both are not, the client joins the server."""
    theirs = listener.residence
    if theirs.machine and ours.machine is False:
        yield _leave(ours, "the client", f"For {attempt.endpoint} to be the machine's own")
        return
    if theirs.machine is False and ours.machine is False and not listener.container:
        yield _join(ours, theirs)
        return
    if theirs.machine is False and ours.machine and not listener.container and not listener.name:
        yield _leave(theirs, "the server", f"To reach it at {attempt.endpoint}")
        return
    yield from _bring_out(attempt, listener)


_TRANSIENT = re.compile(r"run-(u\d+|p\d+-i\d+|r[0-9a-f]+)\.service")
"""What systemd-run calls a unit that it was given no name for: it has no file to edit (src/run/run.c)."""


def _leave(one: Residence, whose: str, purpose: str) -> Remedy:
    if one.unit is not None and _TRANSIENT.fullmatch(one.unit):
        return Remedy(
            summary=f"{purpose}: systemd-run started {whose} as {one.unit} in a namespace of its own. Start it again "
            "without -p PrivateNetwork=yes."
        )
    if one.unit is not None and is_unit(one.unit):
        both = f" The same for {', '.join(one.shared_with)}, which shares it." if one.shared_with else ""
        return Remedy(
            summary=f"{purpose}: {one.unit} runs {whose} in a namespace of its own. If it has PrivateNetwork=yes "
            f"(systemctl show -p PrivateNetwork,NetworkNamespacePath,JoinsNamespaceOf {one.unit}), run systemctl edit "
            f"{one.unit}, set PrivateNetwork=no in [Service], and restart it; a systemd-run command leaves out -p "
            f"PrivateNetwork=yes.{both}"
        )
    by = f" {one.launcher} (pid {one.launcher_pid}) is the outermost process inside." if one.launcher else ""
    return Remedy(
        summary=f"{purpose}, start {whose} outside the sandbox that made its namespace (unshare -n, bwrap "
        f"--unshare-net, ip netns exec, an agent's sandbox), or let that sandbox share the machine's network.{by}"
    )


def _join(ours: Residence, theirs: Residence) -> Remedy:
    if ours.unit and theirs.unit and _TRANSIENT.fullmatch(ours.unit) and is_unit(theirs.unit):
        return Remedy(
            summary=f"To bring both into one namespace, start the client with systemd-run -p PrivateNetwork=yes -p "
            f"JoinsNamespaceOf={theirs.unit}, or set PrivateNetwork=no for the server and start the client without it."
        )
    if ours.unit and theirs.unit and is_unit(ours.unit) and is_unit(theirs.unit):
        return Remedy(
            summary=f"To bring both into one namespace, run systemctl edit {ours.unit} and add "
            f"JoinsNamespaceOf={theirs.unit} under [Unit] and PrivateNetwork=yes under [Service], then restart it; or "
            "set PrivateNetwork=no for both."
        )
    return Remedy(
        summary=f"To bring both into one namespace, start the client where the server is (nsenter), or both outside "
        f"their sandboxes. Of the client's, {_made(ours)}; of the server's, {_made(theirs)}."
    )


def _bring_out(attempt: Attempt, listener: OtherListener) -> Iterator[Remedy]:
    port = attempt.port
    if listener.container:
        loopback = " and let the server in it listen on 0.0.0.0" if is_loopback(listener.local.address) else ""
        yield Remedy(
            summary=f"To reach it at {attempt.endpoint}, start the container with its port published "
            f"(-p 127.0.0.1:{port}:{port}, in compose ports: 127.0.0.1:{port}:{port}){loopback}. From another "
            "container use its name or service name instead of localhost."
        )
    elif listener.unit and is_unit(listener.unit):
        yield Remedy(
            summary=f"To reach it at {attempt.endpoint}: if the unit has PrivateNetwork=yes (systemctl show -p "
            f"PrivateNetwork {listener.unit}), systemctl edit {listener.unit}, PrivateNetwork=no in [Service], restart "
            "it; if not, start the server without the unshare or sandbox around it."
        )
    else:
        yield Remedy(
            summary="To reach it from here, start the server (or the client) in the same network namespace: outside "
            "the sandbox or unshare that made it, or on an address of a link between the two."
        )


def _own_container(snapshot: Snapshot, attempt: Attempt) -> Container | None:
    """The container whose own loopback was dialled."""
    container = snapshot.vantage.container
    return container if container and is_loopback(attempt.address) and not shares_host_network(snapshot) else None


def _look_from_outside(snapshot: Snapshot, container: Container) -> Iterator[Remedy]:
    """From inside, what is beside the container cannot be seen; who is inside cannot run it."""
    place = callable_name(container)
    if place and snapshot.vantage.side is None:
        yield Remedy(
            summary=f"To see more, run netdiag on the host: sudo netdiag run --from container:{place} "
            f"{snapshot.target.address}"
        )


def _own_localhost(snapshot: Snapshot, attempt: Attempt, container: Container) -> Finding:
    port = attempt.port
    name = f" {_name(container)}" if _name(container) != container.engine else ""
    seen = snapshot.elsewhere.value.listeners if isinstance(snapshot.elsewhere, Known) else ()
    origin = snapshot.vantage.origin
    we, place = ("We look from", f"--from {origin}") if origin else ("We run in", "/proc/self")
    by_name, told = compose.dial_by_name(snapshot), compose.told_by_name(snapshot)
    return Finding(
        code=OWN_LOCALHOST.code,
        title=title(f"localhost is this {container.engine} container{name}, and nothing in it listens on {port}"),
        severity=Severity.PROBLEM,
        confidence=Confidence.PROVEN if seen and refusal(attempt) is Refusal.KERNEL else Confidence.LIKELY,
        explanation=f"{we} a container. {attempt.address} in here is the container itself, neither the host nor "
        f"another container, and no program in it has port {port} open." + (f" {told}" if told else ""),
        evidence=(
            Evidence(f"{we.lower()} {container.engine} container{name}", place),
            connect_evidence(attempt),
            Evidence(f"nothing listens on port {port} in this container", "sock_diag"),
            *(Evidence(f"LISTEN {one.local} elsewhere: {_owner(one)}", "/proc/PID/net/tcp") for one in seen[:3]),
        ),
        remedies=(
            *((by_name,) if by_name else ()),
            Remedy(
                summary="Is the server in another container: dial its service name (compose) or container name, with "
                "the port it has inside, not the published one (db:5432, not localhost:15432). Both must be in one "
                "network."
            ),
            Remedy(
                summary=f"Is the server on the host: dial host.docker.internal:{port} (podman: "
                "host.containers.internal); on Linux docker needs --add-host=host.docker.internal:host-gateway, and "
                "the server has to listen on more than the host's loopback."
            ),
            Remedy(summary="Should it run in this very container: start it, and read its log if it does not stay up."),
            *_look_from_outside(snapshot, container),
        ),
        explains=("refused/nothing-listening", "refused/other-port"),
    )
