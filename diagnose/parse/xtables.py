"""The rules of iptables-legacy as the kernel keeps them: one block of bytes a table (linux/netfilter/x_tables.h)."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator, Sequence

from msgspec import Struct

from diagnose.parse.nft import readable, xt_reject

HOOKS = ("prerouting", "input", "forward", "output", "postrouting")

_INFO = struct.Struct("=32s13I")
_EXTENSION = struct.Struct("=H29sB")
_OFFSETS = struct.Struct("=HH")
_COUNTERS = struct.Struct("=QQ")
_VERDICT = struct.Struct("=i")
_ACCEPT, _DROP, _QUEUE, _RETURN = -2, -1, -4, -5
"""A verdict is kept as its negative minus one; from 0 on it is an offset to jump to."""

INFO_SIZE = _INFO.size
ENTRIES_HEADER = struct.calcsize("@32sI0Q")
"""struct ipt_get_entries before its entries."""


class Layout(Struct, frozen=True):
    """Where struct ipt_entry or ip6t_entry has its fields."""

    six: bool
    flags: int
    goto: int
    offsets: int
    comefrom: int
    counters: int
    header: int


IPV4 = Layout(
    False,
    flags=82,
    goto=0x02,
    offsets=88,
    comefrom=92,
    counters=struct.calcsize("@96x0Q"),
    header=struct.calcsize("@96x2Q"),
)
IPV6 = Layout(
    True,
    flags=131,
    goto=0x04,
    offsets=140,
    comefrom=144,
    counters=struct.calcsize("@148x0Q"),
    header=struct.calcsize("@148x2Q"),
)


class Info(Struct, frozen=True):
    """struct ipt_getinfo: what the kernel says of a table before its entries."""

    table: str
    valid_hooks: int
    entry: tuple[int, ...]
    underflow: tuple[int, ...]
    entries: int
    size: int


class Block(Struct, frozen=True):
    """A table: its shape and its entries as one block of bytes."""

    layout: Layout
    info: Info
    data: bytes


class Extension(Struct, frozen=True):
    """A match of a rule."""

    name: str
    data: bytes
    raw: bytes
    """With its header, as it stands in the block."""


class Rule(Struct, frozen=True):
    """One entry: a rule, or the policy that ends a built-in chain.

    Of thousands a walk meets few, so what stands in it is read when it is asked for; ValueError when it is torn.
    """

    chain: str
    line: int
    """1-based, as `iptables -L --line-numbers` counts; 0: the policy, or the return that ends a user chain."""
    hook: str | None
    """Of a built-in chain."""
    offset: int
    """In the block."""
    entry: bytes
    layout: Layout
    heads: dict[int, str]
    """User chains by the offset of their first rule."""

    @property
    def policy(self) -> bool:
        """It is what the built-in chain does in the end."""
        return self.line == 0 and self.hook is not None

    @property
    def matches(self) -> tuple[Extension, ...]:
        """In the order in which they are tested."""
        return tuple(_matches(self.entry, self.layout))

    @property
    def target(self) -> str:
        """ACCEPT, DROP, QUEUE, RETURN, an extension's name; JUMP or GOTO; empty: the rule only counts."""
        name, data = _target(self.entry, self.layout)
        if name:
            return name
        goto = bool(self.entry[self.layout.flags] & self.layout.goto)
        return _standard(_verdict(data), self.offset + len(self.entry), goto)

    @property
    def data(self) -> bytes:
        """Of the target extension."""
        return _target(self.entry, self.layout)[1]

    @property
    def destination(self) -> str | None:
        """The chain of a jump or goto."""
        name, data = _target(self.entry, self.layout)
        return None if name else self.heads.get(_verdict(data))

    @property
    def comment(self) -> str | None:
        """Text of a comment match."""
        text = next((m.data for m in self.matches if m.name == "comment"), None)
        return None if text is None else readable(text.partition(b"\0")[0])


def info(data: bytes) -> Info:
    """struct ipt_getinfo; ValueError when it is shorter."""
    if len(data) < _INFO.size:
        raise ValueError(f"{len(data)} bytes of table information")
    name, valid, *numbers = _INFO.unpack_from(data)
    table = readable(name.partition(b"\0")[0])
    return Info(table, valid, tuple(numbers[:5]), tuple(numbers[5:10]), numbers[10], numbers[11])


def canonical(block: Block) -> bytes:
    """The entries without what the kernel counts or notes for itself."""
    data = bytearray(block.data)
    for offset, _ in entries(block):
        start = offset + block.layout.comefrom
        data[start : offset + block.layout.header] = bytes(block.layout.header - block.layout.comefrom)
    return bytes(data)


def replacement(block: Block, current: Info) -> tuple[bytes, bytes]:
    """struct ipt_replace before and after its pointer to the old counters; `current` is the table being replaced."""
    head = struct.pack(
        "@32sIII5I5II0P",
        block.info.table.encode(),
        current.valid_hooks,
        block.info.entries,
        block.info.size,
        *block.info.entry,
        *block.info.underflow,
        current.entries,
    )
    return head, block.data


def hooks(info: Info) -> tuple[str, ...]:
    """Where the table's built-in chains are hooked in."""
    return tuple(name for number, name in enumerate(HOOKS) if info.valid_hooks >> number & 1)


def rules(block: Block) -> tuple[Rule, ...]:
    """Every entry but the heads of user chains, in order; ValueError when the block is not one of entries."""
    data, layout = block.data, block.layout
    shape = list(entries(block))
    heads = _heads(block, shape)
    starts = {offset: hook for hook, offset in enumerate(block.info.entry) if block.info.valid_hooks >> hook & 1}
    ends = {offset for hook, offset in enumerate(block.info.underflow) if block.info.valid_hooks >> hook & 1}
    found: list[Rule] = []
    chain, hook, line = "", None, 0
    for offset, following in shape:
        if offset in starts:
            hook = HOOKS[starts[offset]]
            chain, line = hook.upper(), 0
        elif following in heads:
            chain, hook, line = heads[following], None, 0
            continue
        if following == block.info.size:
            break
        last = offset in ends or (hook is None and _ends_chain(following, heads, block))
        line = 0 if last else line + 1
        found.append(Rule(chain, line, hook, offset, data[offset:following], layout, heads))
    return tuple(found)


def _ends_chain(following: int, heads: dict[int, str], block: Block) -> bool:
    """The entry behind is the head of a user chain, or the one that ends the table."""
    return following < block.info.size and (
        _end(block, following) in heads or _end(block, following) == block.info.size
    )


def _end(block: Block, offset: int) -> int:
    return offset + int(_OFFSETS.unpack_from(block.data, offset + block.layout.offsets)[1])


def entries(block: Block) -> Iterator[tuple[int, int]]:
    """Start and end of each entry; ValueError when the block is not one of entries."""
    offset = 0
    while offset < block.info.size:
        if offset + block.layout.header > len(block.data):
            raise ValueError("torn table entry")
        following = _end(block, offset)
        if following < offset + block.layout.header:
            raise ValueError("table entry shorter than its header")
        yield offset, following
        offset = following


def _heads(block: Block, shape: list[tuple[int, int]]) -> dict[int, str]:
    """User chains by the offset of their first rule; the entry before it bears the name."""
    found: dict[int, str] = {}
    for offset, following in shape:
        entry = block.data[offset:following]
        if b"ERROR\0" not in entry or following == block.info.size:
            continue
        name, data = _target(entry, block.layout)
        if name == "ERROR":
            found[following] = readable(data.partition(b"\0")[0])
    return found


def _target(entry: bytes, layout: Layout) -> tuple[str, bytes]:
    target = int(_OFFSETS.unpack_from(entry, layout.offsets)[0])
    return _extension(entry, target, len(entry))


def _verdict(data: bytes) -> int:
    if len(data) < _VERDICT.size:
        raise ValueError("torn verdict")
    return int(_VERDICT.unpack_from(data)[0])


def _extension(data: bytes, offset: int, limit: int) -> tuple[str, bytes]:
    if offset + _EXTENSION.size > limit:
        raise ValueError("torn match or target")
    size, name, _ = _EXTENSION.unpack_from(data, offset)
    if size < _EXTENSION.size or offset + size > limit:
        raise ValueError("match or target of a wrong size")
    return readable(name.partition(b"\0")[0]), data[offset + _EXTENSION.size : offset + size]


def _standard(verdict: int, following: int, goto: bool) -> str:
    if verdict < 0:
        return {_ACCEPT: "ACCEPT", _DROP: "DROP", _QUEUE: "QUEUE", _RETURN: "RETURN"}.get(verdict, f"verdict {verdict}")
    if verdict == following and not goto:
        return ""
    return "GOTO" if goto else "JUMP"


def _matches(entry: bytes, layout: Layout) -> Iterator[Extension]:
    end = int(_OFFSETS.unpack_from(entry, layout.offsets)[0])
    at = layout.header
    while at < end:
        name, data = _extension(entry, at, end)
        following = at + _EXTENSION.size + len(data)
        yield Extension(name, data, entry[at:following])
        at = following


def aligned(before: Block, after: Block) -> dict[tuple[str, int], int]:
    """The line that each rule had before, by chain and present line, when rules were put in or taken out.

    A rule that was not there before is missing.
    """
    left: dict[str, list[tuple[int, object]]] = {}
    for rule in rules(before):
        left.setdefault(rule.chain, []).append((rule.line, _identity(rule)))
    found: dict[tuple[str, int], int] = {}
    for rule in rules(after):
        known = left.get(rule.chain, [])
        identity = _identity(rule)
        place = next((i for i, (_, one) in enumerate(known) if one == identity), None)
        if place is not None:
            found[rule.chain, rule.line] = known[place][0]
            del known[: place + 1]
    return found


def restored(before: Block, after: Block) -> bool:
    """Whether the rules are the same again, counters and comments aside."""
    if canonical(before) == canonical(after):
        return True
    held = [[(one.chain, one.line, _identity(one, comment=False)) for one in rules(block)] for block in (before, after)]
    return held[0] == held[1]


def _identity(rule: Rule, *, comment: bool = True) -> object:
    """What makes the rule, wherever in the block it stands."""
    head = rule.entry[: rule.layout.flags]
    data = rule.data if rule.destination is None and rule.target else b""
    matches = tuple(match.raw for match in rule.matches if comment or match.name != "comment")
    return head, matches, rule.target, data, rule.destination


def verdict_place(entry: bytes, layout: Layout) -> int | None:
    """Where an entry has its verdict or goal as a number; None when its target is an extension."""
    target = int(_OFFSETS.unpack_from(entry, layout.offsets)[0])
    return target + _EXTENSION.size if _target(entry, layout)[0] == "" else None


def matched(block: Block, offsets: Iterable[int]) -> tuple[int, ...]:
    """How many packets each of the entries at these offsets has matched."""
    start = block.layout.counters
    return tuple(int(_COUNTERS.unpack_from(block.data, offset + start)[0]) for offset in offsets)


def moved(before: Block, after: Block, offsets: Sequence[int]) -> frozenset[int]:
    """Which of the entries at these offsets have matched packets between two readings of one table."""
    if before.data == after.data:
        return frozenset()
    counts = zip(offsets, matched(before, offsets), matched(after, offsets), strict=True)
    return frozenset(offset for offset, then, now in counts if now > then)


_POSING = re.compile(rb"[ \t\n\v\f\r](?:--?[A-Za-z]|! )")
_QUOTED = frozenset({"comment", "string", "LOG", "NFLOG"})
"""Extensions whose texts iptables-save puts between quotes."""


def poses(rule: Rule) -> bool:
    """Whether a name in the rule (an interface, a set, a list of recent ...) reads like more options in its listing."""
    head = rule.entry[: rule.layout.flags]
    data = [match.data for match in rule.matches if match.name not in _QUOTED]
    data += [rule.data] if rule.target not in _QUOTED else []
    name = (rule.destination or "").encode()
    return any(_POSING.search(part) for part in (head, name, *data))


def reject_with(rule: Rule, layout: Layout) -> str | None:
    """How the rule rejects, in nft's words; None when it does not."""
    return xt_reject(layout.six, rule.data) if rule.target == "REJECT" else None
