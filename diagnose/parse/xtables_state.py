"""Rules of iptables-legacy whose match depends on a state that a copy does not have, and their stateless siblings."""

from __future__ import annotations

import struct

from msgspec import Struct

from diagnose.parse import xtables
from diagnose.parse.nft_state import (
    SENDER_MATCHES,
    SILENT_TARGETS,
    SOCKET_MATCHES,
    STATEFUL_MATCHES,
    Cause,
    asks_sender,
)
from diagnose.parse.xtables import Block, Info, Rule

_STANDARD = struct.Struct("=H29sBi4x")
"""struct xt_standard_target."""
_OFFSETS = struct.Struct("=HH")


class Sibling(Struct, frozen=True):
    """An entry put before a rule: it counts what the rule would match but for its state, and does nothing."""

    rule: Rule
    cause: Cause
    offset: int
    """Of the sibling in the new block."""


class Extended(Struct, frozen=True):
    """A block with siblings, and where the rules of the original are in it."""

    block: Block
    rules: tuple[tuple[Rule, int], ...]
    siblings: tuple[Sibling, ...]


_SUSPECT = tuple(name.encode() + b"\0" for name in STATEFUL_MATCHES | SENDER_MATCHES | SOCKET_MATCHES)
"""Bytes without which no rule of a table is one of which a copy is not sure."""


def cause(rule: Rule) -> Cause | None:
    """Why a copy cannot tell whether the rule matches; None: it can, or the rule would do nothing."""
    if not any(name in rule.entry for name in _SUSPECT):
        return None
    if not rule.target or rule.target in SILENT_TARGETS:
        return None
    names = {match.name for match in rule.matches}
    if names & STATEFUL_MATCHES:
        return "state"
    if names & SOCKET_MATCHES:
        return "socket"
    return "sender" if any(asks_sender(match.name, match.data) for match in rule.matches) else None


def extend(block: Block, *, siblings: bool = True) -> Extended:
    """The block with a sibling before each rule that needs one; without `siblings` as it stands."""
    rules = xtables.rules(block)
    if not siblings or not any(name in block.data for name in _SUSPECT):
        return Extended(block, tuple((rule, rule.offset) for rule in rules), ())
    causes = {rule.offset: (rule, why) for rule in rules if (why := cause(rule)) is not None}
    starts: dict[int, int] = {}
    """New offset of each entry, that of its sibling where it has one."""
    places: dict[int, int] = {}
    """New offset of each entry itself."""
    sizes = {offset: _size(block, rule) for offset, (rule, _) in causes.items()}
    at = 0
    for offset, following in xtables.entries(block):
        starts[offset] = at
        places[offset] = at + sizes.get(offset, 0)
        at = places[offset] + following - offset
    parts: list[bytes] = []
    for offset, following in xtables.entries(block):
        if offset in causes:
            parts.append(_sibling(block, causes[offset][0], starts[offset], sizes[offset]))
        parts.append(_moved(block, offset, following, starts))
    info = block.info
    extended = Info(
        info.table,
        info.valid_hooks,
        tuple(starts.get(offset, offset) for offset in info.entry),
        tuple(starts.get(offset, offset) for offset in info.underflow),
        info.entries + len(causes),
        at,
    )
    return Extended(
        Block(block.layout, extended, b"".join(parts)),
        tuple((rule, places[rule.offset]) for rule in rules),
        tuple(Sibling(rule, why, starts[offset]) for offset, (rule, why) in causes.items()),
    )


def _kept(rule: Rule) -> list[xtables.Extension]:
    return [m for m in rule.matches if m.name not in STATEFUL_MATCHES | SENDER_MATCHES | SOCKET_MATCHES]


def _size(block: Block, rule: Rule) -> int:
    return block.layout.header + sum(len(match.raw) for match in _kept(rule)) + _STANDARD.size


def _sibling(block: Block, rule: Rule, start: int, size: int) -> bytes:
    """The rule's head and its stateless matches, and the verdict of a rule without target: on to the next entry."""
    layout = block.layout
    head = bytearray(block.data[rule.offset : rule.offset + layout.header])
    head[layout.flags] &= ~layout.goto & 0xFF
    _OFFSETS.pack_into(head, layout.offsets, size - _STANDARD.size, size)
    target = _STANDARD.pack(_STANDARD.size, b"", 0, start + size)
    return bytes(head) + b"".join(match.raw for match in _kept(rule)) + target


def _moved(block: Block, offset: int, following: int, starts: dict[int, int]) -> bytes:
    """The entry as it stands, its jump led to where its goal is now."""
    data = bytearray(block.data[offset:following])
    place = xtables.verdict_place(bytes(data), block.layout)
    if place is not None:
        verdict = struct.unpack_from("=i", data, place)[0]
        if verdict >= 0:
            struct.pack_into("=i", data, place, starts[verdict])
    return bytes(data)
