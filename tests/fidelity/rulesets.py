"""Rule sets as values: what is loaded, by which tool, in which order; kept as JSON where one failed once."""

from __future__ import annotations

import re
from collections.abc import Iterator

from msgspec import Struct

PORT, NEIGHBOUR, DEAD = 27431, 27432, 27433
"""The port that is probed; a second one that listens as well; one where nothing does."""

_COUNTS = re.compile(
    r"@(seen|knocked)\b|-set knocked\b|\bjhash tcp sport\b|"
    r"\b(limit|random|symhash|numgen|quota|connlimit|hashlimit|statistic|recent|connbytes)\b|"
    r"\bct (bytes|count|packets)\b"
)


class Load(Struct, frozen=True):
    """A command and what it is given on standard input."""

    argv: tuple[str, ...]
    given: str = ""

    def text(self) -> str:
        """As a person would type it."""
        return f"{' '.join(self.argv)} <<'END'\n{self.given}END" if self.given else " ".join(self.argv)


class Chain(Struct, frozen=True):
    """A chain of nftables; its head is empty unless it is a base chain."""

    name: str
    head: str
    rules: tuple[str, ...]

    def text(self) -> str:
        """In nft's language."""
        return "\n".join(
            [f"  chain {self.name} {{", *(f"    {line}" for line in (self.head, *self.rules) if line), "  }"]
        )


class NftTable(Struct, frozen=True, tag="nft"):
    """A table of nftables, with the declarations of its named sets and maps."""

    family: str
    name: str
    sets: tuple[str, ...]
    chains: tuple[Chain, ...]
    later: tuple[str, ...] = ()
    """Commands that change it once it stands, so that handles are in no order."""

    def loads(self) -> Iterator[Load]:
        """One transaction, and another for what comes later."""
        head = f"table {self.family} {self.name} {{"
        parts = [head, *(f"  {one}" for one in self.sets), *(chain.text() for chain in self.chains), "}\n"]
        yield Load(("nft", "-f", "-"), "\n".join(parts))
        if self.later:
            yield Load(("nft", "-f", "-"), "".join(f"{line}\n" for line in self.later))

    def rules(self) -> Iterator[str]:
        """The rules of all chains."""
        for chain in self.chains:
            yield from chain.rules
        yield from self.later


class XtChain(Struct, frozen=True):
    """A chain of iptables; the policy is "-" unless it is a built-in one."""

    name: str
    policy: str
    rules: tuple[str, ...]


class XtTable(Struct, frozen=True):
    """A table of iptables, as iptables-restore reads it."""

    name: str
    chains: tuple[XtChain, ...]

    def text(self) -> str:
        """From *TABLE to COMMIT."""
        heads = [f":{chain.name} {chain.policy} [0:0]" for chain in self.chains]
        rules = [f"-A {chain.name} {rule}" for chain in self.chains for rule in chain.rules]
        return "\n".join([f"*{self.name}", *heads, *rules, "COMMIT\n"])


class Xtables(Struct, frozen=True, tag="xtables"):
    """The tables of one backend and family of iptables, and what somebody added to them with nft."""

    tool: str
    """iptables-nft, iptables-legacy, ip6tables-nft or ip6tables-legacy."""
    tables: tuple[XtTable, ...]
    added: tuple[str, ...] = ()
    """Commands of nft: native rules in a table of iptables-nft."""

    def loads(self) -> Iterator[Load]:
        """One transaction for iptables-nft; one a table for iptables-legacy."""
        yield Load((f"{self.tool}-restore",), "".join(table.text() for table in self.tables))
        if self.added:
            yield Load(("nft", "-f", "-"), "".join(f"{line}\n" for line in self.added))

    def rules(self) -> Iterator[str]:
        """The rules of all chains."""
        for table in self.tables:
            for chain in table.chains:
                yield from chain.rules
        yield from self.added


class RuleSet(Struct, frozen=True):
    """All that is loaded, in the order in which it is loaded: that decides between chains of equal priority."""

    parts: tuple[NftTable | Xtables, ...]
    before: tuple[Load, ...] = ()
    """What is unusual about the machine: sysctls, interfaces, IP sets."""
    listener: int = 0
    """The user who owns the listeners, as owner rules see it."""
    client: int = 0
    """The user who connects, and as whom netdiag runs."""
    addresses: tuple[str, ...] = ("127.0.0.1", "::1")
    """Where the listeners are."""
    why: str = ""
    """What it showed when it failed; only of a rule set that is kept."""

    def loads(self) -> tuple[Load, ...]:
        """The commands that load it."""
        return (*self.before, *(load for part in self.parts for load in part.loads()))

    def text(self) -> str:
        """As a person would type it."""
        where = f"# listeners of uid {self.listener} on {' and '.join(self.addresses)}, a client of uid {self.client}"
        return "\n".join([*(load.text() for load in self.loads()), where])

    @property
    def counts(self) -> bool:
        """Whether a rule remembers packets or leaves it to chance: two connects need not meet the same."""
        sets = (one for part in self.parts if isinstance(part, NftTable) for one in part.sets)
        return any(_COUNTS.search(text) for text in (*sets, *(rule for part in self.parts for rule in part.rules())))
