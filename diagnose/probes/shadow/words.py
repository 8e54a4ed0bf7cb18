"""The rules in the words of their own tools: asked beside the copying, matched by table, chain and position."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping

from msgspec import Struct, field

from diagnose.analysis.argument import is_nft_name
from diagnose.model.firewall import Backend, RuleRef
from diagnose.parse import iptables_save, nft, xtables
from diagnose.parse.mask import mask_text
from diagnose.parse.nft import Chain, ChainKey, Rule, Ruleset, TableKey
from diagnose.parse.xtables import Block
from diagnose.probes.shadow.tool import Run, find

_IPTABLES = frozenset({b"filter", b"nat", b"mangle", b"raw", b"security"})
_BUILT_IN = frozenset({b"PREROUTING", b"INPUT", b"FORWARD", b"OUTPUT", b"POSTROUTING"})
_IP, _IP6 = 2, 10
_TRANSLATED = frozenset({"comment", "tcp", "udp", "multiport", "mark", "conntrack", "REJECT"})
"""xt extensions that nft tells in words of its own; of others some versions tell nothing, or a name alone."""


class Listings(Struct):
    """The tools' answers, as far as they came."""

    nft: dict[tuple[str, str, str, int], str] = field(default_factory=dict)
    save: dict[Backend, dict[tuple[str, str], tuple[str, ...]]] = field(default_factory=dict)
    complaints: list[str] = field(default_factory=list)
    """Tools that are missing, failed or could not be understood."""
    late: bool = False
    """One of them was not ready in time."""


class Asking:
    """The tools, started: they list while the copy is made."""

    def __init__(self, rules: Ruleset, blocks: Iterable[Block]) -> None:
        self._rules = rules
        self._runs: list[tuple[Backend, Run]] = []
        self._complaints: list[str] = []
        if rules.tables:
            self._start(Backend.NFT, ("nft",), "-a", "-t", "list", "ruleset")
        for family, backend in ((_IP, Backend.IPTABLES_NFT), (_IP6, Backend.IP6TABLES_NFT)):
            if any(key.family == family for key in xtables_like(rules)):
                self._start(backend, _SAVE[backend])
        for six, backend in ((False, Backend.IPTABLES_LEGACY), (True, Backend.IP6TABLES_LEGACY)):
            if any(block.layout.six == six for block in blocks):
                self._start(backend, _SAVE[backend])

    def _start(self, backend: Backend, names: tuple[str, ...], *arguments: str) -> None:
        path = find(*names)
        if path is None:
            self._complaints.append(f"{names[0]} is not installed: its rules have no text here")
            return
        try:
            self._runs.append((backend, Run((path, *arguments))))
        except OSError as error:
            self._complaints.append(f"{path}: {error.strerror}")

    def listings(self, until: float) -> Listings:
        """What they said, waited for until then (time.monotonic)."""
        found = Listings(complaints=self._complaints)
        for backend, run in self._runs:
            try:
                status, text, complaints = run.wait(until)
                if status:
                    raise ValueError(complaints.strip().splitlines()[-1] if complaints.strip() else f"status {status}")
                self._understand(found, backend, text)
            except TimeoutError as error:
                found.complaints.append(str(error))
                found.late = True
            except ValueError as error:
                found.complaints.append(f"{run.argv[0]}: {mask_text(str(error))}")  # it may quote a rule
        return found

    def _understand(self, found: Listings, backend: Backend, text: str) -> None:
        if any(b"\n" in name for _, name in nft.names(self._rules)):
            raise ValueError("a name with a line's end in it can look like any part of a listing")
        if backend is Backend.NFT:
            found.nft = nft.listing(text, handles(self._rules))
            return
        head = text.partition("\n")[0]
        native = "(nf_tables)" in head or "-nft-save" in head  # which of the two depends on the version
        if native if backend in _LEGACY else "-legacy-save" in head:
            raise ValueError("this program is of the other backend")
        found.save[backend] = iptables_save.rules(text)

    def end(self) -> None:
        """Kills the tools that still run."""
        for _, run in self._runs:
            run.end()


_LEGACY = (Backend.IPTABLES_LEGACY, Backend.IP6TABLES_LEGACY)
_SAVE = {
    Backend.IPTABLES_NFT: ("iptables-nft-save", "iptables-save"),
    Backend.IP6TABLES_NFT: ("ip6tables-nft-save", "ip6tables-save"),
    Backend.IPTABLES_LEGACY: ("iptables-legacy-save", "iptables-save"),
    Backend.IP6TABLES_LEGACY: ("ip6tables-legacy-save", "ip6tables-save"),
}


def handles(rules: Ruleset) -> dict[tuple[str, str, str], tuple[int, ...]]:
    """The handles of each chain in order, by the names that nft prints."""
    held = nft.by_chain(rules)
    return {_names(chain.key): tuple(rule.handle for rule in held.get(chain.key, ())) for chain in rules.chains}


def xtables_like(rules: Ruleset) -> frozenset[TableKey]:
    """The tables that iptables-nft would take for its own: the name, and a built-in chain."""
    return frozenset(
        chain.key.table
        for chain in rules.chains
        if chain.hook is not None
        and chain.key.table.family in (_IP, _IP6)
        and chain.key.table.name in _IPTABLES
        and chain.key.name in _BUILT_IN
    )


class Moved(Struct, frozen=True):
    """Where rules stand now that a copy was changed."""

    lines: Mapping[tuple[TableKey, int], int]
    """The line of each rule of nf_tables, by table and by handle on the machine."""
    legacy: Mapping[tuple[Backend, str], Mapping[tuple[str, int], int]]
    """By table: the line that the rule had on the machine, by chain and present line."""


class Words:
    """Names each rule as the machine's tools do."""

    def __init__(self, rules: Ruleset, blocks: Iterable[Block], listings: Listings) -> None:
        self._listings = listings
        self._moved = Moved({}, {})
        self._blocks = tuple(blocks)
        self._like = xtables_like(rules)
        self._chains = nft.by_chain(rules)
        self._around = nft.around(rules)
        # of many chains and tables a walk meets few: these are filled as they are asked for
        self._places: dict[ChainKey, dict[int, int]] = {}
        self._legacy_lengths: dict[tuple[Backend, str], dict[str, int]] = {}
        self._odd = _odd_names(rules)
        self.native: set[tuple[TableKey, int]] = set()
        """Rules in a table of iptables-nft that iptables-nft does not print as they are."""

    def rule(self, rule: Rule) -> RuleRef:
        """A rule of nf_tables: as iptables-nft prints it where it made it, else as nft does.

        One of a chain that stands within another rule has neither a name nor a handle that nft would take: it is told
        as the rule around it.
        """
        while rule.chain in self._around:
            rule = self._around[rule.chain]
        place = self._place(rule)
        line = place + 1
        saved = None if (rule.chain.table, rule.handle) in self.native else self._saved(rule.chain, line)
        if saved is not None:
            backend = Backend.IP6TABLES_NFT if rule.chain.table.family == _IP6 else Backend.IPTABLES_NFT
            shown = self._moved.lines.get((rule.chain.table, rule.handle), line)
            return RuleRef(backend, *_names(rule.chain), saved, line=shown, comment=nft.comment(rule))
        family, table, chain = _names(rule.chain)
        behind = self._chains[rule.chain][line : line + 1]
        return RuleRef(
            Backend.NFT,
            family,
            table,
            chain,
            self._listed(rule),
            handle=rule.handle,
            comment=nft.comment(rule),
            before=behind[0].handle if behind else None,
        )

    def _place(self, rule: Rule) -> int:
        """Where the rule stands in its chain, from 0 on."""
        if rule.chain not in self._places:
            self._places[rule.chain] = {one.handle: at for at, one in enumerate(self._chains[rule.chain])}
        return self._places[rule.chain][rule.handle]

    def _listed(self, rule: Rule) -> str:
        """In nft's words; empty where these leave out what the rule asks of iptables' own extensions."""
        told = self._listings.nft.get((*_names(rule.chain), rule.handle), "")
        if told and any(_mentions(rule, name) for name in self._odd.get(rule.chain.table, ())):
            return ""  # what of it is the rule and what the name cannot be told apart
        if told and (b"match\0" in rule.expressions or b"target\0" in rule.expressions):
            asked = {nft.extension(part)[0] for part in nft.expressions(rule) if part.name in ("match", "target")}
            return told if asked <= _TRANSLATED else ""
        return told

    def claimed(self, decider: RuleRef) -> Rule | None:
        """The rule of nf_tables that a reference in the words of iptables-nft stands for."""
        if decider.backend not in (Backend.IPTABLES_NFT, Backend.IP6TABLES_NFT) or decider.line is None:
            return None
        wanted = decider.family, decider.table, decider.chain
        held = next((held for chain, held in self._chains.items() if _names(chain) == wanted), [])
        return held[decider.line - 1] if 0 < decider.line <= len(held) else None

    def policy(self, chain: Chain) -> RuleRef:
        """The policy of a base chain."""
        text = "policy drop" if chain.hook is not None and chain.hook.drops else "policy accept"
        backend = Backend.NFT
        if chain.key.table in self._like and chain.key.name in _BUILT_IN:
            backend = Backend.IP6TABLES_NFT if chain.key.table.family == _IP6 else Backend.IPTABLES_NFT
        return RuleRef(backend, *_names(chain.key), text, policy=True)

    def legacy(self, block: Block, rule: xtables.Rule) -> RuleRef:
        """A rule or policy of iptables-legacy."""
        backend, table = backend_of(block), block.info.table
        family = "ip6" if block.layout.six else "ip"
        if rule.policy:
            return RuleRef(backend, family, table, rule.chain, f"policy {rule.target.lower()}", policy=True)
        moved = self._moved.legacy.get((backend, table))
        line = rule.line if moved is None else moved.get((rule.chain, rule.line), 0)
        texts = self._listings.save.get(backend, {}).get((table, rule.chain), ())
        told = line > 0 and len(texts) == self._legacy_length(block, rule.chain)
        text = texts[line - 1] if told and not xtables.poses(rule) else ""
        if text and not iptables_save.tells(text, rule.comment):
            text = ""
        return RuleRef(backend, family, table, rule.chain, text, line=rule.line, comment=rule.comment)

    def _legacy_length(self, block: Block, chain: str) -> int | None:
        """How many rules the chain has on the machine."""
        where = backend_of(block), block.info.table
        if where not in self._legacy_lengths:
            ours = (one for one in self._blocks if (backend_of(one), one.info.table) == where)
            # in order: of each chain the last line stays
            lengths = {entry.chain: entry.line for one in ours for entry in xtables.rules(one) if entry.line}
            self._legacy_lengths[where] = lengths
        return self._legacy_lengths[where].get(chain)

    def after(self, moved: Moved) -> Words:
        """The words for rules that have moved since the tools were asked."""
        words = copy.copy(self)
        words._moved = moved
        return words

    def _saved(self, chain: ChainKey, line: int) -> str | None:
        if chain.table not in self._like:
            return None
        backend = Backend.IP6TABLES_NFT if chain.table.family == _IP6 else Backend.IPTABLES_NFT
        where = nft.readable(chain.table.name), nft.readable(chain.name)
        texts = self._listings.save.get(backend, {}).get(where, ())
        return texts[line - 1] if len(texts) == len(self._chains[chain]) else None


def _odd_names(rules: Ruleset) -> dict[TableKey, list[bytes]]:
    """The names of each table that nft prints and would not read again as one word."""
    found: dict[TableKey, list[bytes]] = {}
    for table, name in nft.names(rules):
        if not is_nft_name(nft.readable(name)):
            found.setdefault(table, []).append(name)
    return found


def _mentions(rule: Rule, name: bytes) -> bool:
    return name + b"\0" in rule.given


def backend_of(block: Block) -> Backend:
    """Whose table of iptables-legacy it is."""
    return Backend.IP6TABLES_LEGACY if block.layout.six else Backend.IPTABLES_LEGACY


def _names(chain: ChainKey) -> tuple[str, str, str]:
    family = nft.FAMILIES.get(chain.table.family, str(chain.table.family))
    return family, nft.readable(chain.table.name), nft.readable(chain.name)
