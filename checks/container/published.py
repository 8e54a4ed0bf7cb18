"""The chain from the host's port to the process inside, checked link by link: the first broken one is the cause."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from checks.container import chain, remedies
from checks.container.causes import (
    BINDS_LOOPBACK_INSIDE,
    NAT_MISSING,
    NO_LOCALNET_ROUTE,
    NOT_PUBLISHED,
    NOT_RUNNING,
    PAUSED,
    PUBLISHED_ELSEWHERE,
    WRONG_CONTAINER_PORT,
)
from checks.container.words import published_line, state, state_line, why_it_ended
from diagnose.analysis import compose
from diagnose.analysis.beyond import Unserved, beyond, deciding_walk
from diagnose.analysis.owner import Owned, owner
from diagnose.analysis.publication import (
    DIALS_INSIDE,
    GONE,
    RESERVES,
    Publication,
    Source,
    bridge_address,
    container_name,
    containers_of,
    described,
    entry_evidence,
    holder_of,
    inside_of,
    inspecting,
    listening_inside,
    may_be_translated,
    only_on_loopback,
    open_inside,
    ports_are_published_here,
    publications,
)
from diagnose.analysis.reach import failing, may_be_reached, severity
from diagnose.analysis.refusal import Refusal, refusal
from diagnose.analysis.walk import destination_rewrite, rule_line, walk_lines
from diagnose.analysis.wording import connect_evidence, dial_instead, row_text, title
from diagnose.model.attempt import Attempt, Outcome
from diagnose.model.container import EngineContainer, Published, Status
from diagnose.model.fact import NOT_NEEDED, Known, Missing, Reason, Unknown
from diagnose.model.finding import Confidence, Evidence, Finding, Severity
from diagnose.model.firewall import Walk
from diagnose.model.network import Endpoint, SocketRow
from diagnose.model.process import Process
from diagnose.model.snapshot import Snapshot

_BY_OTHERS = ("refused/other-port", "refused/nothing-listening", "container/other-namespace")
"""What is seen where the host's port is not open, whatever the container's part in it."""
_AT_THE_FAR_END = ("hung/closes-at-once", "firewall/redirects", "firewall/rule-rejects", "firewall/silent")
"""What the far end's refusal looks like from here: its forwarder hangs up, its reset comes through the NAT."""
_SILENCE = ("hung/not-accepting", "hung/accept-queue-full", "firewall/redirects", "firewall/silent")


def judge(snapshot: Snapshot) -> Iterator[Finding | Missing]:
    """For each local attempt that failed, the first broken link of the container's chain, if there is a chain."""
    failed = [one for one in failing(snapshot) if one.local]
    if not failed or not ports_are_published_here(snapshot):
        return
    yield from _missing(snapshot, failed)
    said: set[str] = set()
    for attempt in failed:
        for one in _broken_link(snapshot, attempt):
            if isinstance(one, Missing) or one.title not in said:
                yield one
            said.add(one.title if isinstance(one, Finding) else "")


def _missing(snapshot: Snapshot, failed: Sequence[Attempt]) -> Iterator[Missing]:
    project = compose.project_of(snapshot)
    for unread in project.unread if project is not None else ():
        place = f"{unread.file}:{unread.line}" if unread.line else unread.file
        yield Missing("compose files", Unknown(Reason.NOT_VISIBLE, f"{place}: {unread.why}"))
    match snapshot.containers:
        case Unknown() as unknown:
            if unknown != NOT_NEEDED:
                yield Missing("containers", unknown)
        case Known(value=seen):
            wanted = any(_may_be_an_engine_s(snapshot, one) for one in failed)
            for engine in seen.engines if wanted else ():
                if isinstance(engine.containers, Unknown):
                    yield Missing(f"containers of {engine.name}", engine.containers)
                elif engine.unseen:
                    many = f"{engine.unseen} that do not run were not asked what they publish"
                    yield Missing(f"containers of {engine.name}", Unknown(Reason.DEADLINE, many))


def _may_be_an_engine_s(snapshot: Snapshot, attempt: Attempt) -> bool:
    """Whether an engine could tell why this failed: nobody listens, or it may be the engine's that has the port."""
    rows = snapshot.listeners.value if isinstance(snapshot.listeners, Known) else ()
    if _nobody_listens(snapshot, attempt) or not may_be_reached(rows, attempt.address, attempt.port):
        return True
    if may_be_translated(snapshot, attempt.address, attempt.port) or publications(snapshot, attempt.port):
        return True
    holder = holder_of(snapshot, attempt.address, attempt.port)
    hidden = holder is None and attempt.outcome not in (Outcome.REFUSED, Outcome.UNANSWERED)
    return hidden or (holder is not None and holder.program in DIALS_INSIDE | RESERVES)


def _broken_link(snapshot: Snapshot, attempt: Attempt) -> Iterator[Finding | Missing]:
    entries = publications(snapshot, attempt.port)
    covering = [one for one in entries if one.covers(attempt.address)]
    stopped = deciding_walk(snapshot, attempt)
    if stopped is not None and isinstance(beyond(snapshot, attempt, stopped), Unserved):
        yield from _gone_behind_a_rule(snapshot, attempt, covering)
        return
    if _nobody_listens(snapshot, attempt):
        yield from _not_open(snapshot, attempt, entries, covering)
        return
    for one in covering:
        if one.is_running and _leads_there(snapshot, attempt, one):
            yield from _inside(snapshot, attempt, one)
            return


# ------ nobody has the host's port


def _nobody_listens(snapshot: Snapshot, attempt: Attempt) -> bool:
    """Whether the kernel itself refused it, because no socket of this namespace wanted it."""
    if attempt.outcome is not Outcome.REFUSED or refusal(attempt) not in (Refusal.KERNEL, Refusal.UNCLEAR):
        return False
    match snapshot.listeners:
        case Known(value=rows):
            return not may_be_reached(rows, attempt.address, attempt.port)
        case Unknown():
            return refusal(attempt) is Refusal.KERNEL


def _not_open(
    snapshot: Snapshot, attempt: Attempt, entries: Sequence[Publication], covering: Sequence[Publication]
) -> Iterator[Finding | Missing]:
    gone = [one for one in covering if _is_gone(one)]
    alive = [one for one in covering if not _is_gone(one)]
    if alive:
        if _bound_by_engine(snapshot, attempt):
            yield from _without_nat(snapshot, attempt, alive[0])
    elif gone:
        yield from (_not_running(snapshot, attempt, one, alone=len(gone) == 1) for one in gone)
    elif running := [one for one in entries if one.is_running]:
        yield _published_elsewhere(snapshot, attempt, running)
    else:
        yield from _unpublished(snapshot, attempt)


def _gone_behind_a_rule(
    snapshot: Snapshot, attempt: Attempt, covering: Sequence[Publication]
) -> Iterator[Finding | Missing]:
    """An independent fault, the second to be fixed: without the rule, nothing has the port either."""
    gone = [one for one in covering if _is_gone(one)]
    if len(gone) == len(covering):
        yield from (_not_running(snapshot, attempt, one, alone=len(gone) == 1) for one in gone)


def _is_gone(one: Publication) -> bool:
    return one.described is not None and one.described.status in GONE


def _bound_by_engine(snapshot: Snapshot, attempt: Attempt) -> bool:
    """Whether an engine keeps the port without listening: else a container that only now starts looks the same."""
    rows = snapshot.bound.value if isinstance(snapshot.bound, Known) else ()
    owners = [owner(row, snapshot.holders) for row in rows if row.local.port == attempt.port]
    held = [process for one in owners if isinstance(one, Owned) for process in one.processes]
    return any(process.program in RESERVES for process in held)


def _not_running(snapshot: Snapshot, attempt: Attempt, one: Publication, *, alone: bool) -> Finding:
    told = one.described
    assert told is not None
    return Finding(
        code=NOT_RUNNING.code,
        title=title(f"Container {one.name}, which publishes port {attempt.port}, {state(told)}"),
        severity=severity(snapshot, attempt) if alone else Severity.INFO,
        confidence=_certainty(attempt) if alone else Confidence.POSSIBLE,
        explanation=f"The port is the one that {one.container.engine} opens for container {one.name} while it runs. "
        f"{why_it_ended(told)}",
        evidence=(
            chain.unopened(attempt, one, f"it {state(told)}"),
            connect_evidence(attempt),
            entry_evidence(one),
            Evidence(state_line(told), inspecting(one.container)),
        ),
        remedies=remedies.start_again(told),
        explains=_BY_OTHERS if alone else (),
    )


def _published_elsewhere(snapshot: Snapshot, attempt: Attempt, entries: Sequence[Publication]) -> Finding:
    first = entries[0]
    places = ", ".join(sorted({str(Endpoint(one.entry.address, one.entry.port)) for one in entries}))
    return Finding(
        code=PUBLISHED_ELSEWHERE.code,
        title=title(f"Container {first.name} publishes port {attempt.port} on {places}, not on {attempt.address}"),
        severity=severity(snapshot, attempt),
        confidence=_certainty(attempt),
        explanation="A published port is open only on the host addresses that its entry names: an entry without an "
        "address means all of them, one with an IPv4 address nothing of IPv6.",
        evidence=(
            chain.unopened(attempt, first, f"published on {places}"),
            connect_evidence(attempt),
            *map(entry_evidence, entries),
        ),
        remedies=remedies.publish_here(snapshot, attempt, entries),
        explains=(*_BY_OTHERS, "refused/other-address", "refused/other-family", "resolution/prefers-other-family"),
    )


def _unpublished(snapshot: Snapshot, attempt: Attempt) -> Iterator[Finding]:
    seen = containers_of(snapshot)
    if seen is None:
        return
    found = [
        (told, rows)
        for told in described(seen)
        if told.network_mode != "host"
        and (inside := inside_of(seen, told.container))
        and (rows := listening_inside(inside, attempt.port))
    ]
    alone = len(found) == 1 and not _others_listen(snapshot)
    for told, rows in found:
        entry = next((one for one in told.published if one.container_port == attempt.port), None)
        if entry is not None:
            yield _published_as(snapshot, attempt, told, entry, alone=alone)
        else:
            yield _not_published(snapshot, attempt, told, rows, alone=alone)


def _published_as(
    snapshot: Snapshot, attempt: Attempt, told: EngineContainer, entry: Published, *, alone: bool
) -> Finding:
    """The container's own port was dialled, and the host has it under another number."""
    name = container_name(told.container)
    outside = Endpoint(entry.address or "0.0.0.0", entry.port)
    return Finding(
        code=PUBLISHED_ELSEWHERE.code,
        title=title(f"Container {name} publishes its port {attempt.port} as {outside}"),
        severity=severity(snapshot, attempt) if alone else Severity.INFO,
        confidence=Confidence.LIKELY if alone else Confidence.POSSIBLE,
        explanation=f"{attempt.port} is the port that the container has inside. On this machine the engine opens it as "
        f"{entry.port}: the first number of a published port is the host's, the second the container's.",
        evidence=(
            connect_evidence(attempt),
            Evidence(published_line(told), inspecting(told.container)),
        ),
        remedies=(dial_instead(remedies.dialled_as(entry), "Dial the port under which it is published"),),
        explains=_BY_OTHERS if alone else (),
    )


def _others_listen(snapshot: Snapshot) -> bool:
    """Whether the port is open in a namespace that is no container's as well."""
    match snapshot.elsewhere:
        case Known(value=seen):
            return any(one.container is None for one in seen.listeners)
        case Unknown():
            return False


def _not_published(
    snapshot: Snapshot, attempt: Attempt, told: EngineContainer, rows: Sequence[SocketRow], *, alone: bool
) -> Finding:
    name = container_name(told.container)
    loopback = only_on_loopback(rows)
    also = " It listens on the container's own loopback only, which no published port reaches." if loopback else ""
    return Finding(
        code=NOT_PUBLISHED.code,
        title=title(f"Container {name} listens on port {attempt.port} and does not publish it"),
        severity=severity(snapshot, attempt) if alone else Severity.INFO,
        confidence=Confidence.LIKELY if alone else Confidence.POSSIBLE,
        explanation=f"A container has a network of its own: {attempt.address} here is not {attempt.address} in there. "
        f"A port is open on the host only if it is published; EXPOSE and expose: open nothing.{also}",
        evidence=(
            connect_evidence(attempt),
            *(Evidence(f"{row_text(row)} in container {name}", f"/proc/{told.pid}/net/tcp") for row in rows[:3]),
            Evidence(published_line(told), inspecting(told.container)),
        ),
        remedies=remedies.publish(snapshot, told, attempt.port, attempt.port, loopback=loopback),
        explains=_BY_OTHERS if alone else (),
    )


# ------ somebody has it, and it leads into the container


def _leads_there(snapshot: Snapshot, attempt: Attempt, one: Publication) -> bool:
    """Whether what was dialled really is this container's port, and not another program's."""
    walk = _walk(snapshot, attempt)
    if walk is not None and walk.leaves and walk.arrives is not None:
        there = one.inside is None or walk.arrives.address in one.inside.addresses
        return there and walk.arrives.port == one.entry.container_port
    holder = holder_of(snapshot, attempt.address, attempt.port)
    if holder is None:
        return True  # hidden: the engine's word, or the forwarder's own, stands alone
    if one.forwarder is not None and holder.pid == one.forwarder.pid:
        return True
    if one.source is Source.CONNECTION:
        return True  # it was seen to arrive there
    return one.source is Source.ENGINE and holder.program in DIALS_INSIDE | RESERVES


def _walk(snapshot: Snapshot, attempt: Attempt) -> Walk | None:
    return snapshot.firewall.value.walk(attempt.address) if isinstance(snapshot.firewall, Known) else None


def _inside(snapshot: Snapshot, attempt: Attempt, one: Publication) -> Iterator[Finding | Missing]:
    if _rule_stops(snapshot, attempt):
        return
    if attempt.outcome in (Outcome.UNANSWERED, Outcome.NOT_ACCEPTED):
        if _frozen(one):
            yield _paused(snapshot, attempt, one)
        else:
            yield from _without_nat(snapshot, attempt, one)
        return
    # answered at once: whether it is frozen or not, the kernel in there said no
    if one.inside is None:
        yield Missing(f"listeners in container {one.name}", _why_unseen(snapshot))
        return
    rows = listening_inside(one.inside, one.entry.container_port)
    if rows is None:
        if isinstance(one.inside.listeners, Unknown):
            yield Missing(f"listeners in container {one.name}", one.inside.listeners)
    elif not rows:
        yield _wrong_port(snapshot, attempt, one)
    elif only_on_loopback(rows):
        yield _on_loopback(snapshot, attempt, one, rows)


def _why_unseen(snapshot: Snapshot) -> Unknown:
    """Why nothing is known of a namespace that must be there."""
    match snapshot.elsewhere:
        case Unknown() as unknown:
            return unknown
        case Known():
            return Unknown(Reason.NOT_VISIBLE, "no process of it was seen", "look from the host, outside any container")


def _rule_stops(snapshot: Snapshot, attempt: Attempt) -> bool:
    walk = _walk(snapshot, attempt)
    return walk is not None and walk.verdict in ("drop", "reject")


def _frozen(one: Publication) -> bool:
    if one.inside is not None and one.inside.frozen == Known(True):
        return True
    return one.described is not None and one.described.status is Status.PAUSED


def _paused(snapshot: Snapshot, attempt: Attempt, one: Publication) -> Finding:
    by_engine = one.described is not None and one.described.status is Status.PAUSED
    frozen = one.inside is not None and one.inside.frozen == Known(True)
    how = "paused" if by_engine else "frozen"
    return Finding(
        code=PAUSED.code,
        title=title(f"Container {one.name}, which serves port {attempt.port}, is {how}"),
        severity=severity(snapshot, attempt),
        confidence=Confidence.PROVEN if frozen or by_engine else Confidence.LIKELY,
        explanation="The kernel holds every process of the container (cgroup freezer). Connections are completed for "
        "it and then wait: nothing answers until it goes on.",
        evidence=(
            chain.drawn(snapshot, attempt, one, _walk(snapshot, attempt), f"it is {how}"),
            connect_evidence(attempt),
            entry_evidence(one),
            *((Evidence("status paused", inspecting(one.container)),) if by_engine else ()),
            *((Evidence("its cgroup is frozen", "cgroup freezer"),) if frozen else ()),
        ),
        remedies=remedies.unpause(snapshot, one, by_engine=by_engine, asked=one.described is not None),
        explains=(*_SILENCE, "hung/process-stopped"),
    )


def _wrong_port(snapshot: Snapshot, attempt: Attempt, one: Publication) -> Finding:
    assert one.inside is not None
    there = open_inside(one.inside)
    port = one.entry.container_port
    ports = ", ".join(str(each) for each in sorted({row.local.port for row in there}))
    found = f"it listens on {ports}" if ports else "nothing in it listens on any port that can be published"
    starting = one.described is not None and one.described.health == "starting"
    wait = " Its health check says starting: the server may need a moment more." if starting else ""
    return Finding(
        code=WRONG_CONTAINER_PORT.code,
        title=title(f"Port {attempt.port} leads to port {port} of container {one.name}, where nothing listens"),
        severity=severity(snapshot, attempt),
        confidence=_linked(snapshot, attempt, one),
        explanation=f"The host's side is in order; in the container nobody has port {port} open, and {found}. The "
        f"second number of a published port is the one on which the server inside listens.{wait}",
        evidence=(
            *_chain(snapshot, attempt, one, f"nothing listens on port {port} in there"),
            Evidence(f"no listener on port {port} in the container", f"/proc/{one.inside.pid}/net/tcp"),
            *(Evidence(f"{row_text(row)} in the container", f"/proc/{one.inside.pid}/net/tcp") for row in there[:5]),
        ),
        remedies=remedies.right_port(snapshot, one, sorted({row.local.port for row in there})),
        explains=_AT_THE_FAR_END,
    )


def _on_loopback(snapshot: Snapshot, attempt: Attempt, one: Publication, rows: Sequence[SocketRow]) -> Finding:
    assert one.inside is not None
    return Finding(
        code=BINDS_LOOPBACK_INSIDE.code,
        title=title(f"The server in container {one.name} listens on its own loopback only: {rows[0].local}"),
        severity=severity(snapshot, attempt),
        confidence=_linked(snapshot, attempt, one),
        explanation=f"{rows[0].local} in the container is reached from inside the container only. What comes through "
        "the published port comes to the container's address on its network, where nobody listens.",
        evidence=(
            *_chain(snapshot, attempt, one, f"the server listens on {rows[0].local} only"),
            *(Evidence(f"{row_text(row)} in the container", f"/proc/{one.inside.pid}/net/tcp") for row in rows[:3]),
        ),
        remedies=remedies.bind_all_inside(snapshot, one),
        explains=_AT_THE_FAR_END,
    )


def _without_nat(snapshot: Snapshot, attempt: Attempt, one: Publication) -> Iterator[Finding]:
    """The container is to be reached by a NAT rule, since no program dials it: is the rule there, and can it work?"""
    walk = _walk(snapshot, attempt)
    if walk is None or walk.verdict == "unknown" or _dials_inside(snapshot, attempt, one):
        return
    if walk.verdict == "unroutable":
        yield _no_localnet_route(snapshot, attempt, one, walk)
    elif walk.arrives is None and destination_rewrite(walk) is None and not walk.doubts:
        yield _nat_missing(snapshot, attempt, one, walk)


def _jumps_to_engine(walk: Walk) -> bool:
    """Whether the packet still meets the engine's own chain, in which only the container's rule is missing."""
    return any(step.verdict == "jump DOCKER" for step in walk.steps)


def _dials_inside(snapshot: Snapshot, attempt: Attempt, one: Publication) -> bool:
    holder = holder_of(snapshot, attempt.address, attempt.port)
    return one.forwarder is not None or (holder is not None and holder.program in DIALS_INSIDE)


def _nat_missing(snapshot: Snapshot, attempt: Attempt, one: Publication, walk: Walk) -> Finding:
    holder = holder_of(snapshot, attempt.address, attempt.port)
    return Finding(
        code=NAT_MISSING.code,
        title=title(f"No NAT rule leads from port {attempt.port} to container {one.name}"),
        severity=severity(snapshot, attempt),
        confidence=Confidence.PROVEN if one.source is Source.ENGINE else Confidence.LIKELY,
        explanation=f"{one.container.engine} publishes the port by a NAT rule, and no rule of this machine changes "
        "the destination of our packet: it never gets to the container. A reload of the firewall (nft -f with flush "
        "ruleset, firewall-cmd --reload, iptables -t nat -F) takes the engine's rules away as well; an engine with "
        "iptables: false never makes one.",
        evidence=(
            chain.drawn(snapshot, attempt, one, walk, "no NAT rule leads in"),
            connect_evidence(attempt),
            entry_evidence(one),
            Evidence("our packet passes every rule, and none changes its destination", "copy of the rules, traced"),
            *((Evidence(_reserved(holder), "/proc/PID/fd"),) if holder is not None else ()),
        ),
        remedies=remedies.restore_nat(one, holder, chains_stand=_jumps_to_engine(walk)),
        explains=(*_BY_OTHERS, *_SILENCE, "in-use/listener"),
    )


def _reserved(holder: Process) -> str:
    return f"{holder.program} (pid {holder.pid}) keeps the port from others, and serves nobody"


def _no_localnet_route(snapshot: Snapshot, attempt: Attempt, one: Publication, walk: Walk) -> Finding:
    seen = isinstance(attempt.drops, Known) and any(drop.reason == "NETFILTER_DROP" for drop in attempt.drops.value)
    rewriting = [step for step in walk.steps if step.verdict.partition(" ")[0] in ("dnat", "redirect", "netmap")]
    return Finding(
        code=NO_LOCALNET_ROUTE.code,
        title=title(f"A NAT rule sends {attempt.endpoint} to container {one.name}, and loopback may not leave"),
        severity=severity(snapshot, attempt),
        confidence=Confidence.PROVEN if seen and not walk.doubts else Confidence.LIKELY,
        explanation="The kernel lets no packet from 127.0.0.0/8 out of another interface than lo unless that "
        "interface has route_localnet. The NAT rule changes the destination, and the packet has nowhere to go. Other "
        "addresses of this machine work.",
        evidence=(
            chain.drawn(snapshot, attempt, one, walk, "loopback's packets may not leave"),
            connect_evidence(attempt),
            entry_evidence(one),
            *(Evidence(rule_line(step.rule), "copy of the rules, traced") for step in rewriting[-1:]),
            *_drop_evidence(attempt),
        ),
        remedies=remedies.let_loopback_out(one),
        explains=(*_SILENCE, *_AT_THE_FAR_END),
    )


def _drop_evidence(attempt: Attempt) -> Iterator[Evidence]:
    for drop in attempt.drops.value if isinstance(attempt.drops, Known) else ():
        yield Evidence(f"the kernel freed our packet: {drop.words}", "tracefs skb:kfree_skb")


# ------ how sure, and by what


def _certainty(attempt: Attempt) -> Confidence:
    refused = attempt.outcome is Outcome.REFUSED
    return Confidence.PROVEN if refused and refusal(attempt) is Refusal.KERNEL else Confidence.LIKELY


def _linked(snapshot: Snapshot, attempt: Attempt, one: Publication) -> Confidence:
    """Proven where the engine, or the process that really holds the port, says that it is this container's."""
    walk = _walk(snapshot, attempt)
    if walk is not None and walk.leaves and not walk.doubts and one.inside is not None:
        return Confidence.PROVEN
    holder = holder_of(snapshot, attempt.address, attempt.port)
    holds = holder is not None and one.forwarder is not None and holder.pid == one.forwarder.pid
    if one.source is Source.CONNECTION:
        return Confidence.PROVEN
    by_engine = one.source is Source.ENGINE and holder is not None and holder.program in DIALS_INSIDE
    return Confidence.PROVEN if holds or by_engine else Confidence.LIKELY


def _chain(snapshot: Snapshot, attempt: Attempt, one: Publication, broken: str) -> Iterator[Evidence]:
    """The links in their order: what was dialled, who has the port, where it leads."""
    yield chain.drawn(snapshot, attempt, one, _walk(snapshot, attempt), broken)
    yield connect_evidence(attempt)
    yield entry_evidence(one)
    holder = holder_of(snapshot, attempt.address, attempt.port)
    if holder is not None and one.forwarder is not None and holder.pid == one.forwarder.pid:
        yield Evidence(
            f"{holder.program} (pid {holder.pid}) holds the port and dials {one.forwarder.target}", "/proc/PID/fd"
        )
    walk = _walk(snapshot, attempt)
    if walk is not None and walk.leaves:
        yield from walk_lines(walk)
    at = bridge_address(one)
    if at is not None:
        yield Evidence(f"container {one.name} has the address {at.address}", f"/proc/{_pid(one)}/net")


def _pid(one: Publication) -> int:
    return one.inside.pid if one.inside is not None else 0
