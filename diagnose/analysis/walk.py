"""The walk through the copy of the rules in words, and what on it explains an outcome."""

from __future__ import annotations

import re

from diagnose.analysis.argument import is_nft_name, is_plain, quoted
from diagnose.analysis.wording import TITLE_LENGTH, title
from diagnose.model.fact import Reason, Unknown
from diagnose.model.finding import Evidence
from diagnose.model.firewall import Backend, RuleRef, Step, Walk

_REWRITES = ("dnat", "redirect", "nat", "netmap")
_STOPS = ("drop", "reject", "queue", "nfqueue")
_LIMITS = re.compile(r"\b(limit|ct count|connlimit|hashlimit|quota|recent|meter|statistic|numgen)\b|\bupdate @|\badd @")
_CHANGES = re.compile(
    r"\bmark set\b|--(set-x?mark|save-mark|restore-mark)|\bnotrack\b|-j (CT|NOTRACK|TPROXY)\b|\btproxy\b"
)
"""Rules that let a packet pass, and with something about it that later rules may look at."""
_COUNTED = (Backend.IPTABLES_LEGACY, Backend.IP6TABLES_LEGACY)
_LINES = 6
"""So many steps of a walk are for everybody at most."""
_STEPS = 200
_BAN_CHAIN = re.compile(r"^f2b-(?P<jail>[\w.-]+)$")
_BAN_SET = re.compile(r"(?:@addr6?-set-|--match-set f2b-)(?P<jail>[\w.-]+)")
"""fail2ban's own actions (action.d/nftables.conf, iptables-ipset.conf)."""


def rule_name(rule: RuleRef) -> str:
    """nft inet filter input handle 7; iptables-legacy -t raw PREROUTING rule 2; ... policy."""
    place = f"{rule.backend.value} {rule.family} {quoted(rule.table)} {quoted(rule.chain)}"
    if rule.backend is not Backend.NFT:
        table = "" if rule.table == "filter" else f"-t {quoted(rule.table)} "
        place = f"{rule.backend.value} {table}{quoted(rule.chain)}"
    if rule.policy:
        return f"{place} policy"
    return f"{place} handle {rule.handle}" if rule.backend is Backend.NFT else f"{place} rule {rule.line}"


def rule_title(rule: RuleRef, *said: str, before: str = "") -> str:
    """A title about the rule: where it would be too long, whole parts of the rule's place are left out ("...").

    `said`: what the title says of the rule, in full and then shorter.
    """
    words = rule_name(rule).split(" ")
    tail = words[-1:] if rule.policy else words[-2:]
    place = words[1 : -len(tail)]
    kept = [" ".join((words[0], *place, *tail))]
    kept += [" ".join((words[0], *place[:number], "...", *tail)) for number in range(len(place) - 1, -1, -1)]
    titles = [f"{before}{name} {one}" for one in said for name in kept]
    return next((one for one in titles if len(one) <= TITLE_LENGTH), title(titles[-1]))


def rule_line(rule: RuleRef) -> str:
    """The rule as its tool lists it, with its place."""
    number = f" # handle {rule.handle}" if rule.handle is not None else f" # rule {rule.line}" if rule.line else ""
    return f"{quoted(rule.table)} {quoted(rule.chain)}: {rule.text or 'a rule whose text is not known'}{number}"


def unlisted(backend: Backend, *, late: bool) -> Unknown:
    """Why a rule that the kernel named has no text, and what would lift that."""
    tool = backend.value
    if late:
        return Unknown(Reason.DEADLINE, f"{tool} had not listed it in time")
    package = "nftables" if backend is Backend.NFT else "iptables"
    return Unknown(Reason.TOOL_MISSING, f"{tool} did not list it", f"install {package}, which has {tool}")


def listing_of(rule: RuleRef) -> str:
    """The command that shows the rule."""
    if not rule.text:
        return "nf_tables netlink"
    match rule.backend:
        case Backend.NFT if not (is_nft_name(rule.table) and is_nft_name(rule.chain)):
            return "nft -a list ruleset"
        case Backend.NFT:
            return f"nft -a list chain {rule.family} {rule.table} {rule.chain}"
        case Backend.IPTABLES_NFT | Backend.IP6TABLES_NFT | Backend.IPTABLES_LEGACY | Backend.IP6TABLES_LEGACY:
            return f"{rule.backend.value} -t {rule.table} -S{f' {rule.chain}' if is_plain(rule.chain) else ''}"


def walk_lines(walk: Walk, source: str = "copy of the rules, traced") -> tuple[Evidence, ...]:
    """The walk, packet by packet; what is neither the decider nor changes or turns the packet is only detail."""
    notable = [_notable(step) and step.rule != walk.decider for step in walk.steps]
    if sum(notable) > _LINES:
        notable = [False] * len(notable)
    return tuple(
        Evidence(f"{_packet(step)} {step.hook or '?'}: {rule_name(step.rule)}: {_verdict(step)}", source, not shown)
        for step, shown in zip(walk.steps[:_STEPS], notable[:_STEPS], strict=True)
    )


def _notable(step: Step) -> bool:
    """Jumps, rewrites and what else is no mere yes."""
    return step.verdict not in ("continue", "accept", "return") or bool(_CHANGES.search(step.rule.text))


def _packet(step: Step) -> str:
    """The third packet of the handshake by its name; which of them iptables-legacy counted is not told."""
    if step.packet != "other":
        return step.packet
    return "some packet" if step.rule.backend in _COUNTED else "ack"


def _verdict(step: Step) -> str:
    """The rule, and what it did where its own words do not say it."""
    text = step.rule.text
    if not text or step.rule.policy:
        return step.verdict
    said = step.verdict == "continue" or _does(step) in text.lower().split()
    return text if said else f"{text} -> {step.verdict}"


def _does(step: Step) -> str:
    """jump for "jump input_filter"."""
    return step.verdict.partition(" ")[0]


def destination_rewrite(walk: Walk) -> Step | None:
    """The nat rule that sends the SYN elsewhere; None: none was seen."""
    if walk.arrives is None and walk.verdict != "unroutable":
        return None
    found = [step for step in walk.steps if step.packet in ("syn", "other") and _does(step) in _REWRITES]
    return found[-1] if found else None


def queue_rule(walk: Walk) -> bool:
    """Whether the decider hands the packet to a program, and none was there to take it."""
    return any(step.rule == walk.decider and _does(step) in ("queue", "nfqueue") for step in walk.steps)


def limits(walk: Walk) -> tuple[Step, ...]:
    """The rules on this walk that count: of which no copy can tell whether they match now."""
    return tuple(step for step in walk.depends if _LIMITS.search(step.rule.text))


def stopping(step: Step) -> bool:
    """Whether the step would end the packet."""
    return _does(step) in _STOPS


def powerless_accepts(walk: Walk) -> tuple[RuleRef, ...]:
    """Accepts that this very packet met in another chain, and that did not save it from the decider."""
    decider = walk.decider
    if decider is None:
        return ()
    packets = ("syn-ack", "reset", "other") if walk.packet == "reply" else ("syn", "other")
    met = [s.rule for s in walk.steps if s.verdict == "accept" and s.packet in packets and not s.rule.policy]
    place = (decider.backend, decider.family, decider.table, decider.chain)
    elsewhere = [rule for rule in met if (rule.backend, rule.family, rule.table, rule.chain) != place]
    return tuple(dict.fromkeys(rule for rule in elsewhere if str(walk.port) in rule.text))


def ban_jail(rule: RuleRef) -> str | None:
    """The fail2ban jail behind the rule: named by its chain (iptables) or by the set of its bans (nftables, ipset)."""
    found = _BAN_SET.search(rule.text) or _BAN_CHAIN.match(rule.chain)
    return found["jail"] if found else None
