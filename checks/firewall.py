"""firewall: a rule, or silence, in the way."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum, auto

from msgspec.structs import replace

from diagnose.analysis.firewall_remedies import candidates
from diagnose.analysis.reach import failing, reached, severity
from diagnose.analysis.refusal import Refusal, icmp_text, refusal, rejected_by_icmp
from diagnose.analysis.wire import BoxOnTheWay, HostItself, Meaning, ThisMachine, sender
from diagnose.analysis.wording import connect_evidence, title
from diagnose.model.attempt import Attempt, Outcome
from diagnose.model.check import Check
from diagnose.model.fact import NOT_NEEDED, Known, Missing, Reason, Unknown
from diagnose.model.finding import Cause, Command, Confidence, Evidence, Finding, Rehearsal, Remedy, Severity, Stage
from diagnose.model.firewall import Backend, Rehearsed, RuleRef, Shadow, Step, Walk
from diagnose.model.snapshot import Snapshot
from diagnose.model.target import Intent

RULE_DROPS = Cause(
    "firewall/rule-drops", Stage.FIREWALL, "A firewall rule drops the packets: silence until the timeout"
)
RULE_REJECTS = Cause(
    "firewall/rule-rejects", Stage.FIREWALL, 'A firewall rule answers no; clients show it as "refused" or "no route"'
)
POLICY_DROPS = Cause(
    "firewall/policy-drops", Stage.FIREWALL, "No rule accepts the packet, and the chain's policy drops the rest"
)
SILENT = Cause("firewall/silent", Stage.FIREWALL, "No answer at all, and the rules that could explain it are not known")

NETFILTER = "NETFILTER_DROP"


class Witness(Enum):
    """What the machine itself says of the walk in the copy."""

    AGREES = auto()
    SILENT = auto()
    DISAGREES = auto()


def judge(snapshot: Snapshot) -> Iterator[Finding | Missing]:
    """Which rule or policy stands in the way, on the word of two witnesses."""
    if snapshot.intent is Intent.BIND:
        return
    if not snapshot.attempts and snapshot.scope.passive and isinstance(snapshot.firewall, Unknown):
        yield Missing("firewall rules", snapshot.firewall)
    for attempt in failing(snapshot):
        if not _suspect(snapshot, attempt):
            continue
        if attempt.local:
            yield from _on_this_machine(snapshot, attempt)
        else:
            yield from _on_the_way(snapshot, attempt)


def _suspect(snapshot: Snapshot, attempt: Attempt) -> bool:
    """Whether a rule can be behind this symptom at all."""
    match attempt.outcome:
        case Outcome.UNANSWERED:
            return not _dropped_at_listener(attempt)
        case Outcome.REFUSED | Outcome.RESET:
            whose = refusal(attempt)
            if whose is Refusal.KERNEL:
                return _listener_behind(snapshot, attempt)
            return whose is not Refusal.UNCLEAR or _listener_behind(snapshot, attempt)
        case _:
            return rejected_by_icmp(attempt)


def _dropped_at_listener(attempt: Attempt) -> bool:
    match attempt.queue:
        case Known(value=witness):
            return witness.dropped_ours and not _dropped_by_netfilter(attempt)
        case _:
            return False


def _dropped_by_netfilter(attempt: Attempt) -> bool:
    match attempt.drops:
        case Known(value=drops):
            return any(one.reason == NETFILTER for one in drops)
        case _:
            return False


def _listener_behind(snapshot: Snapshot, attempt: Attempt) -> bool:
    match snapshot.listeners:
        case Known(value=rows):
            return bool(reached(rows, attempt.address, attempt.port))
        case _:
            return False


def _on_this_machine(snapshot: Snapshot, attempt: Attempt) -> Iterator[Finding | Missing]:
    match snapshot.firewall:
        case Unknown() as unknown:
            if unknown != NOT_NEEDED:
                yield Missing("firewall rules", unknown)
            yield from _by_witnesses_alone(snapshot, attempt)
        case Known(value=shadow):
            yield from _by_the_rules(snapshot, attempt, shadow)


def _by_the_rules(snapshot: Snapshot, attempt: Attempt, shadow: Shadow) -> Iterator[Finding | Missing]:
    walk = shadow.walk(attempt.address)
    if walk is not None and walk.decider is not None and walk.verdict in ("drop", "reject"):
        if not walk.decider.text:
            yield Missing("the rule's text", Unknown(Reason.TOOL_MISSING, *_unlisted(walk.decider.backend)))
        yield _decided(snapshot, attempt, walk, walk.decider)
        return
    if walk is None or walk.verdict == "unknown":
        doubts = "; ".join((*(walk.doubts if walk else ()), *shadow.uncarried)) or "the copy gave no walk"
        yield Missing("firewall walk", Unknown(Reason.FAILED, doubts))
    yield from _by_witnesses_alone(snapshot, attempt)


def _decided(snapshot: Snapshot, attempt: Attempt, walk: Walk, decider: RuleRef) -> Finding:
    witness, seen = _machine_says(attempt, walk)
    cause = POLICY_DROPS if decider.policy else RULE_DROPS if walk.verdict == "drop" else RULE_REJECTS
    behind = _listener_behind(snapshot, attempt)
    return Finding(
        code=cause.code,
        title=title(f"{_whose(decider)} {_does(walk)} {_packet(attempt, walk)}"),
        severity=severity(snapshot, attempt),
        confidence=_confidence(witness, walk),
        explanation=_explanation(attempt, walk, decider, witness, behind),
        evidence=(
            Evidence(_rule_line(decider), _listing(decider)),
            *_walk_lines(walk),
            *seen,
            connect_evidence(attempt),
            *((Evidence(f"a listener is there and would take {attempt.endpoint}", "sock_diag"),) if behind else ()),
            *(Evidence(doubt, "copy of the rules") for doubt in walk.doubts),
        ),
        remedies=_remedies(walk),
        explains=("firewall/silent", "resolution/prefers-other-family"),
    )


def _machine_says(attempt: Attempt, walk: Walk) -> tuple[Witness, tuple[Evidence, ...]]:
    """Whether the machine's own witness tells the same story as the copy."""
    match attempt.drops:
        case Known(value=(first, *_) as drops):
            agrees = any(one.reason == NETFILTER for one in drops)
            said = Evidence(f"the kernel freed our packet: {first.reason} in {first.symbol}", "tracefs skb:kfree_skb")
            return (Witness.AGREES if agrees else Witness.DISAGREES), (said,)
        case _:
            pass
    if walk.verdict != "reject":
        return Witness.SILENT, ()
    icmp = icmp_text(attempt)
    if icmp:
        return Witness.AGREES, (Evidence(icmp, "error queue (IP_RECVERR)"),)
    if attempt.outcome in (Outcome.REFUSED, Outcome.RESET):
        return _reset_says(attempt)
    return Witness.SILENT, ()


def _reset_says(attempt: Attempt) -> tuple[Witness, tuple[Evidence, ...]]:
    source = "/proc/net/snmp"
    match refusal(attempt):
        case Refusal.NOT_KERNEL:
            text = "a reset came back, but the kernel's TCP sent none (OutRsts did not rise): a rule made it"
            return Witness.AGREES, (Evidence(text, source),)
        case Refusal.KERNEL:
            return Witness.DISAGREES, (Evidence("the kernel's own TCP sent the reset", source),)
        case _:
            return Witness.SILENT, ()


def _confidence(witness: Witness, walk: Walk) -> Confidence:
    match witness:
        case Witness.AGREES:
            return Confidence.LIKELY if walk.doubts else Confidence.PROVEN
        case Witness.SILENT:
            return Confidence.LIKELY
        case Witness.DISAGREES:
            return Confidence.POSSIBLE


def _explanation(attempt: Attempt, walk: Walk, decider: RuleRef, witness: Witness, behind: bool) -> str:
    what = "The policy of this chain" if decider.policy else "This rule"
    packet = "the answer on its way back" if walk.packet == "reply" else "the connection's first packet"
    felt = {
        "drop": "the client hears nothing and waits until its timeout",
        "reject": f"the client gets {attempt.errno or 'an error'}, as if nothing listened",
    }.get(walk.verdict, "it does not arrive")
    text = f"{what} stops {packet}: {felt}."
    if walk.verdict == "reject" and walk.reject_with:
        text += f" It rejects with {walk.reject_with}."
    if behind:
        text += " The server itself is there: only the rule is in the way."
    match witness:
        case Witness.AGREES:
            text += " Two witnesses agree: the walk through an exact copy of the rules, and the machine itself."
        case Witness.SILENT:
            text += " The walk through an exact copy of the rules says so; the machine's own witness could not be had."
        case Witness.DISAGREES:
            text += " The machine's own witness tells another story, so take this as a hint only."
    return text


def _whose(rule: RuleRef) -> str:
    place = f"{rule.backend.value} {rule.family} {rule.table} {rule.chain}"
    if rule.backend is not Backend.NFT:
        place = f"{rule.backend.value} {'' if rule.table == 'filter' else '-t ' + rule.table + ' '}{rule.chain}"
    if rule.policy:
        return f"{place} policy"
    return f"{place} handle {rule.handle}" if rule.backend is Backend.NFT else f"{place} rule {rule.line}"


def _does(walk: Walk) -> str:
    return "drops" if walk.verdict == "drop" else "rejects"


def _packet(attempt: Attempt, walk: Walk) -> str:
    return f"replies from {attempt.endpoint}" if walk.packet == "reply" else str(attempt.endpoint)


def _rule_line(rule: RuleRef) -> str:
    number = f" # handle {rule.handle}" if rule.handle is not None else f" # rule {rule.line}" if rule.line else ""
    return f"{rule.table} {rule.chain}: {rule.text or 'a rule whose text is not known'}{number}"


def _unlisted(backend: Backend) -> tuple[str, str]:
    """Why a rule that the kernel named has no text, and what would lift that."""
    tool = backend.value
    package = "nftables" if backend is Backend.NFT else "iptables"
    return f"{tool} did not list it", f"install {package}, which has {tool}"


def _listing(rule: RuleRef) -> str:
    if not rule.text:
        return "nf_tables netlink"
    match rule.backend:
        case Backend.NFT:
            return f"nft -a list chain {rule.family} {rule.table} {rule.chain}"
        case Backend.IPTABLES_NFT | Backend.IP6TABLES_NFT | Backend.IPTABLES_LEGACY | Backend.IP6TABLES_LEGACY:
            return f"{rule.backend.value} -t {rule.table} -S {rule.chain}"


def _walk_lines(walk: Walk) -> tuple[Evidence, ...]:
    """The walk, folded to the steps that decided something."""
    notable = [step for step in walk.steps if step.verdict not in ("continue", "accept") or step.rule == walk.decider]
    lines = [f"{step.packet} {step.hook or '?'}: {_whose(step.rule)}: {_verdict(step)}" for step in notable[-6:]]
    return tuple(Evidence(line, "copy of the rules, traced") for line in lines)


def _verdict(step: Step) -> str:
    return f"{step.rule.text} -> {step.verdict}" if step.rule.text and not step.rule.policy else step.verdict


def _remedies(walk: Walk) -> tuple[Remedy, ...]:
    """The candidates that mended the copy, the smallest opening first; without a rehearsal, none is claimed."""
    match walk.rehearsals:
        case Known(value=tried):
            mended = [one for one in tried if one.mended and one.remedy is not None]
            mended.sort(key=lambda one: len(one.opens))
            return tuple(_rehearsed(one) for one in mended) or (_BY_HAND,)
        case Unknown(reason=Reason.TOOL_MISSING) as unknown:
            return tuple(_described(remedy, unknown) for remedy in candidates(walk)) or (_BY_HAND,)
        case Unknown():
            return candidates(walk) or (_BY_HAND,)


def _rehearsed(tried: Rehearsed) -> Remedy:
    assert tried.remedy is not None
    return replace(tried.remedy, rehearsal=Rehearsal(True, tried.opens))


def _described(remedy: Remedy, missing: Unknown) -> Remedy:
    """A remedy whose tool is not on this machine: what to do in words, since the command would not run."""
    return Remedy(summary=f"{remedy.summary} The command for it cannot be given: {missing.detail}.", risk=remedy.risk)


_BY_HAND = Remedy(
    summary="No single command mended a copy of the rules: change the rule named above by hand, in the tool that owns "
    "it, and run netdiag again. An accept in another table does not undo it."
)


def _by_witnesses_alone(snapshot: Snapshot, attempt: Attempt) -> Iterator[Finding]:
    """Without a rule to name: what errno, error queue, counters and the drop reason tell any user."""
    if attempt.outcome is Outcome.UNANSWERED:
        yield _silent(snapshot, attempt)
        return
    whose = refusal(attempt) if attempt.outcome in (Outcome.REFUSED, Outcome.RESET) else Refusal.ICMP
    behind = _listener_behind(snapshot, attempt)
    if whose in (Refusal.ICMP, Refusal.NOT_KERNEL):
        yield _rejected_by_somebody(snapshot, attempt, whose, behind)


def _rejected_by_somebody(snapshot: Snapshot, attempt: Attempt, whose: Refusal, behind: bool) -> Finding:
    by_icmp = whose is Refusal.ICMP
    icmp = icmp_text(attempt)
    seen = (
        Evidence(icmp, "error queue (IP_RECVERR)")
        if icmp
        else Evidence("a reset came back, but the kernel's TCP sent none (OutRsts did not rise)", "/proc/net/snmp")
    )
    return Finding(
        code=RULE_REJECTS.code,
        title=title(f"A firewall rule rejects {attempt.endpoint}; which one is not known"),
        severity=severity(snapshot, attempt),
        confidence=Confidence.LIKELY if by_icmp or behind else Confidence.POSSIBLE,
        explanation=(
            f"Clients show {attempt.errno or attempt.outcome.value}, as if nothing listened. But a closed port on "
            "this machine is refused by the kernel's TCP, and this refusal was not: something between the client "
            "and the socket made it. On one machine that is a firewall rule."
        ),
        evidence=(
            seen,
            connect_evidence(attempt),
            *((Evidence(f"a listener is there and would take {attempt.endpoint}", "sock_diag"),) if behind else ()),
        ),
        remedies=_look_with_root(snapshot),
        explains=("resolution/prefers-other-family",),
    )


def _silent(snapshot: Snapshot, attempt: Attempt) -> Finding:
    dropped = _dropped_by_netfilter(attempt)
    excluded = _all_else_excluded(snapshot, attempt)
    evidence = [connect_evidence(attempt)]
    match attempt.drops:
        case Known(value=(first, *_)):
            text = f"the kernel freed our packet: {first.reason} in {first.symbol}"
            evidence.append(Evidence(text, "tracefs skb:kfree_skb"))
        case _:
            pass
    match attempt.queue:
        case Known(value=witness):
            text = (
                f"listener {witness.listener}: {witness.queue} of {witness.backlog} waiting, "
                f"drops {witness.drops_before} before and {witness.drops_after} after the probe"
            )
            evidence.append(Evidence(text, "sock_diag"))
        case _:
            pass
    return Finding(
        code=SILENT.code,
        title=title(f"No answer from {attempt.endpoint}: the packets vanish on this machine"),
        severity=severity(snapshot, attempt),
        confidence=Confidence.LIKELY if dropped or excluded else Confidence.POSSIBLE,
        explanation=(
            "The connection's first packet gets no answer of any kind. "
            + ("The listener is there, its queue has room and it dropped nothing, so " if excluded else "Probably ")
            + "a firewall swallows it. Which rule does could not be read."
        ),
        evidence=tuple(evidence),
        remedies=_look_with_root(snapshot),
        explains=("resolution/prefers-other-family",),
    )


def _all_else_excluded(snapshot: Snapshot, attempt: Attempt) -> bool:
    """Local, a listener there that takes connections, and its own queue did not drop ours."""
    if not _listener_behind(snapshot, attempt):
        return False
    match attempt.queue:
        case Known(value=witness):
            return witness.drops_after == witness.drops_before and witness.queue <= witness.backlog
        case _:
            return False


def _look_with_root(snapshot: Snapshot) -> tuple[Remedy, ...]:
    if snapshot.vantage.privileged:
        return (
            Remedy(
                summary="See which rules there are: nft list ruleset, iptables-legacy -S, ip6tables-legacy -S, and "
                "the programs attached to the cgroup (bpftool cgroup tree)."
            ),
        )
    again = Command(("netdiag", "run", snapshot.target.address), needs_root=True)
    return (Remedy(summary="As root, netdiag reads the rules and names the one that does it", commands=(again,)),)


def _on_the_way(snapshot: Snapshot, attempt: Attempt) -> Iterator[Finding]:
    """Another machine: what a client alone can know."""
    if attempt.outcome is Outcome.UNANSWERED:
        yield _no_answer_from_there(attempt)
        return
    match sender(attempt, snapshot.routing, snapshot.links):
        case BoxOnTheWay(address=box, why=why, confidence=confidence, meaning=meaning) if _is_a_rule(meaning):
            where = f"A box on the way{f', {box},' if box else ''}"
            yield _rejected_far_away(attempt, where, why, min(confidence, Confidence.LIKELY, key=_doubt))
        case ThisMachine(why=why, meaning=meaning) if _is_a_rule(meaning):
            yield _rejected_far_away(attempt, "This machine's own firewall", why, Confidence.LIKELY)
        case HostItself(why=why, meaning=meaning) if meaning is not None and _is_a_rule(meaning):
            yield _rejected_far_away(attempt, f"The firewall of {attempt.address}", why, Confidence.LIKELY)
        case _:
            return


def _doubt(confidence: Confidence) -> int:
    return -list(Confidence).index(confidence)


def _is_a_rule(meaning: Meaning | None) -> bool:
    """A reset that the target did not send, or an ICMP error that only a rule makes of a TCP packet."""
    return meaning in (None, Meaning.PROHIBITED, Meaning.PORT_UNREACHABLE)


def _no_answer_from_there(attempt: Attempt) -> Finding:
    return Finding(
        code=SILENT.code,
        title=title(f"No answer at all from {attempt.endpoint}"),
        severity=Severity.PROBLEM,
        confidence=Confidence.POSSIBLE,
        explanation="Neither a connection nor a refusal came back. A firewall there or on the way, a host that "
        "is off, or a wrong address all look like this from here.",
        evidence=(connect_evidence(attempt),),
        remedies=(
            Remedy(
                summary=f"On {attempt.address} itself, run netdiag run 127.0.0.1:{attempt.port}: it names the "
                "rule if one of its own is in the way. If that works, the block lies between the two machines."
            ),
        ),
    )


def _rejected_far_away(attempt: Attempt, who: str, why: str, confidence: Confidence) -> Finding:
    return Finding(
        code=RULE_REJECTS.code,
        title=title(f"{who} rejects connections to {attempt.endpoint}"),
        severity=Severity.PROBLEM,
        confidence=confidence,
        explanation="The answer that ended the attempt did not come from the target's own TCP: a firewall or router "
        "sent it. Clients show it as refused or unreachable, as if nothing listened.",
        evidence=(Evidence(why, "raw reply"), connect_evidence(attempt)),
        remedies=(
            Remedy(
                summary="Ask whoever runs that firewall to allow this connection; name the source address, "
                f"{attempt.endpoint} and TCP."
            ),
        ),
    )


CHECK = Check("firewall", (RULE_DROPS, RULE_REJECTS, POLICY_DROPS, SILENT), judge)
