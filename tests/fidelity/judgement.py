"""What is wrong with a diagnosis, given what a connect really met: sentences that begin with the kind of the fault."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from checks import CHECKS
from diagnose.engine import diagnose
from diagnose.model.fact import Known, Reason, Unknown
from diagnose.model.finding import Confidence, Finding, Severity
from diagnose.model.firewall import Backend, RuleRef, Walk
from diagnose.model.report import Report, Verdict
from diagnose.model.snapshot import Snapshot
from tests.fidelity.reality import Real, Where
from tests.fidelity.rulesets import RuleSet, Xtables
from tests.fidelity.trial import Mend, Trial

_LEGACY = (Backend.IPTABLES_LEGACY, Backend.IP6TABLES_LEGACY)
_ERRNOS = {
    "ECONNREFUSED": "refused",
    "ECONNRESET": "reset",
    "ENETUNREACH": "unreachable",
    "EHOSTUNREACH": "unreachable",
    "EACCES": "denied",
    "EPERM": "denied",
    "ENOPROTOOPT": "other",
    "EPROTO": "other",
    "ENONET": "other",
}
"""How the ways to be answered are called, by hand: the table of the probes is on trial as well."""


def faults(rules: RuleSet, trial: Trial, tally: Counter[str]) -> Iterator[str]:
    """Everything that is wrong; what was seen is added to the tally."""
    if trial.crash:
        yield f"crash: {trial.crash}"
        return
    for snapshot, real in zip(trial.snapshots, trial.reals, strict=True):
        report = diagnose(snapshot, CHECKS)
        judged = _Judged(rules, trial, snapshot, report, real, tally)
        for fault in judged.faults():
            yield f"{fault}\n    {real}\n    {_about(report, judged.walk)}"
    if trial.mend is not None:
        yield from _of_the_remedy(trial.mend, tally)


class _Judged:
    """One address."""

    def __init__(
        self, rules: RuleSet, trial: Trial, snapshot: Snapshot, report: Report, real: Real, tally: Counter[str]
    ) -> None:
        self._rules = rules
        self._trial = trial
        self._report = report
        self._real = real
        self._outcome = _ERRNOS.get(real.outcome, real.outcome)
        self._attempt = snapshot.attempts[0]
        self._firewall = snapshot.firewall
        self._tally = tally
        self.walk = snapshot.firewall.value.walk(real.address) if isinstance(snapshot.firewall, Known) else None

    def faults(self) -> Iterator[str]:
        """Of the walk, of the root cause, of every other claim."""
        self._tally[
            "connects that work" if self._outcome == "connected" else f"stopped for uid {self._rules.client}"
        ] += 1
        if self._half_seen:
            self._tally["connections made to a server that is not seen"] += 1
        elif not self._rules.counts and self._attempt.outcome.value != self._outcome:
            yield f"attempt: it is {self._attempt.outcome.value}, a client meets {self._real.outcome}"
        match self._firewall:
            case Unknown(reason=reason) as unknown:
                if self._rules.client:
                    pass  # an ordinary user cannot read rules
                elif reason is Reason.DEADLINE:
                    self._tally["rule sets that could not be looked at in time"] += 1
                else:
                    yield f"blind: {unknown}"
            case Known(value=shadow):
                for part in shadow.uncarried:
                    yield f"copy: lacks {part}"
        if self.walk is not None:
            yield from self._of_the_walk(self.walk)
        yield from self._of_the_report()

    @property
    def _half_seen(self) -> bool:
        """The client's side is made and the server's is hidden (a proxy for the handshake): netdiag says no more."""
        made = self._attempt.outcome.value == "connected" and isinstance(self._attempt.acceptance, Unknown)
        return made and self._outcome == "not-accepted"

    def _of_the_walk(self, walk: Walk) -> Iterator[str]:
        if walk.doubts:
            self._tally["doubted walks"] += 1
            return
        if walk.verdict == "unknown":
            self._tally["walks without a verdict"] += 1
            return
        if not self._rules.counts and walk.outcome.value != self._outcome:
            yield f"outcome: the walk ends {walk.outcome.value}, a client meets {self._real.outcome}"
        if walk.decider is not None:
            yield from self._of_the_decider(walk, walk.decider)
        elif self._real.stop is not None and self._real.stop.by:
            yield f"decider: none is named, and {self._real.stop} stopped it"
        arrived = walk.arrives and (walk.arrives.address, walk.arrives.port)
        if arrived and self._real.arrived != arrived:
            yield f"arrival: the walk says {arrived}, the SYN went to {self._real.arrived}"

    def _of_the_decider(self, walk: Walk, decider: RuleRef) -> Iterator[str]:
        stop = self._real.stop
        named = self._where(decider)
        if stop is None:
            yield f"decider: {named} is named, and nothing stopped the connection"
        elif named not in stop.by:
            yield f"decider: {named} is named, and {stop} was met"
        elif len(stop.by) > 1:
            self._tally["deciders that counters alone cannot tell"] += 1
        if stop is not None and (walk.packet == "syn") != (stop.packet == "syn"):
            yield f"packet: {walk.packet} is said, and {stop.packet} was lost"
        if not self._listed(decider):
            yield f"words: {decider.text!r} is not what {decider.backend.value} lists for {named}"

    def _where(self, rule: RuleRef) -> Where:
        """The rule as the kernel names it: iptables-nft counts lines, the trace tells handles."""
        legacy = rule.backend in _LEGACY
        place = (rule.line if legacy else rule.handle) or 0
        if not legacy and rule.line is not None:
            handles = _handles(self._trial.listing, rule.family, rule.table, rule.chain)
            place = handles[rule.line - 1] if rule.line <= len(handles) else -1
        return Where(legacy, rule.family, rule.table, rule.chain, 0 if rule.policy else place)

    @property
    def _mixed(self) -> frozenset[tuple[str, str]]:
        """The tables of iptables-nft to which nft has added rules of its own."""
        mixed = [part for part in self._rules.parts if isinstance(part, Xtables) and part.added]
        return frozenset(
            ("ip6" if part.tool.startswith("ip6") else "ip", table.name) for part in mixed for table in part.tables
        )

    def _listed(self, rule: RuleRef) -> bool:
        """Whether the text is what the rule's own tool prints for it."""
        if rule.policy:
            return rule.text == "policy drop"
        if rule.backend is Backend.NFT:
            if not rule.text and (rule.family, rule.table) in self._mixed:
                # nft's words may leave out what a rule of iptables asks, and iptables-nft does not list this table
                self._tally["rules without words"] += 1
                return True
            # a chain that stands within the rule is listed in lines of its own
            words = r"\s+".join(map(_shown, _uncounted(rule.text).split()))
            return bool(re.search(rf"\n\t+{words}\s+# handle {rule.handle}\n", _uncounted(self._trial.listing)))
        saved = _in_table(self._trial.saved.get(rule.backend.value, ""), rule.table)
        lines = [line for line in saved if line.startswith(f"-A {rule.chain} ") or line == f"-A {rule.chain}"]
        at = (rule.line or 0) - 1
        shown = _shown(_uncounted(f"-A {rule.chain} {rule.text}".rstrip()))
        return 0 <= at < len(lines) and bool(re.fullmatch(shown, _uncounted(lines[at])))

    # ------ the report

    def _of_the_report(self) -> Iterator[str]:
        works = self._outcome == "connected"
        if not self._rules.counts and not self._half_seen and works != (self._report.verdict is Verdict.REACHABLE):
            yield f"verdict: {self._report.verdict.value}, and a client meets {self._real.outcome}"
        root = self._report.root_cause
        if not works:
            whose = "to an ordinary user" if self._rules.client else "to root"
            self._tally[f"root causes {root.confidence.value} {whose}" if root else f"not found {whose}"] += 1
        for finding in self._report.findings:
            blames = finding.severity is Severity.PROBLEM and finding.confidence is not Confidence.POSSIBLE
            if blames and not finding.code.startswith("firewall/"):
                yield f"blame: {finding.code} is {finding.confidence.value}, and the listener is healthy"
        if root is not None and root.confidence is Confidence.PROVEN and root.code.startswith("firewall/"):
            yield from self._of_the_proof(root)

    def _of_the_proof(self, root: Finding) -> Iterator[str]:
        """A proven cause that names another rule than the one that was met: none, ever."""
        walk, stop = self.walk, self._real.stop
        if walk is None:
            yield f"proof: {root.title!r} without a walk"
        elif walk.decider is not None:
            named = self._where(walk.decider)
            if stop is None or named not in stop.by:
                yield f"proof: {root.title!r}, and {stop} was met"
        elif root.code == "firewall/redirects":
            if walk.arrives is None or self._real.arrived != (walk.arrives.address, walk.arrives.port):
                yield f"proof: {root.title!r}, and the SYN went to {self._real.arrived}"
        else:
            yield f"proof: {root.title!r} names no rule"


def _of_the_remedy(mend: Mend, tally: Counter[str]) -> Iterator[str]:
    tally["remedies executed"] += 1
    what = "; ".join(" ".join(argv) for argv in mend.commands)
    if mend.complaint:
        yield f"remedy: {mend.complaint}"
    elif not mend.works:
        yield f"remedy: does not mend {mend.address}: {what}"
    untold = [one for one in mend.opened if f"{one} from this machine" not in mend.told]
    if untold:
        yield f"opens: {', '.join(untold)}, and says {mend.told}: {what}"
    if mend.undone is False:
        yield f"undo: does not restore the rules: {what}"


def _shown(text: str) -> str:
    """A pattern for the text, in which *** stands for a comment or a string of the rule's own."""
    anything = r'(?:"(?:[^"\\\n]|\\.)*"|[^\s"]+)'
    return re.escape(text).replace(re.escape('"***"'), r'"[^\n]*?"').replace(re.escape("***"), anything)


def _uncounted(text: str) -> str:
    """Packets have come since, and tokens of limits gone."""
    return re.sub(r"packets \d+ bytes \d+|used \d+ bytes|(?<=--quota )\d+", "", text)


def _handles(listing: str, family: str, table: str, chain: str) -> list[int]:
    """The handles of a chain's rules in order, from `nft -a list ruleset`."""
    found: list[int] = []
    place = ("", "")
    for line in listing.splitlines():
        if head := re.match(r"table (\S+) (\S+) \{", line):
            place = (f"{head[1]} {head[2]}", "")
        elif head := re.match(r"\t(?:chain|set|map) (\S+) \{", line):
            place = (place[0], head[1])
        elif place == (f"{family} {table}", chain) and (rule := re.search(r" # handle (\d+)$", line)):
            found.append(int(rule[1]))
    return found


def _in_table(saved: str, table: str) -> list[str]:
    """The lines of one table in what iptables-save prints."""
    found: list[str] = []
    current = ""
    for line in saved.splitlines():
        if line.startswith("*"):
            current = line[1:]
        elif current == table:
            found.append(line)
    return found


def _about(report: Report, walk: Walk | None) -> str:
    root = report.root_cause
    said = f"{root.code} {root.confidence.value}: {root.title}" if root else "no root cause"
    if walk is None:
        return f"{report.verdict.value}; {said}; no walk"
    return (
        f"{report.verdict.value}; {said}; walk {walk.outcome.value} {walk.verdict} {walk.packet}, doubts {walk.doubts}"
    )
