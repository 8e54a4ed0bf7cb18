"""Snapshots with tokens in them, by the kind that each field declares."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from msgspec import Struct, inspect
from msgspec.structs import replace

from diagnose.model.bounds import ADDRESS
from diagnose.model.snapshot import Snapshot
from diagnose.redact.addresses import Addresses
from diagnose.redact.kinds import KINDS, Group, Kind
from diagnose.redact.texts import IN_RULES, Texts
from diagnose.redact.tokens import Tokens

_FIRST = (
    *(Kind.CONTAINER, Kind.ID, Kind.SERVICE, Kind.PROJECT, Kind.NETWORK, Kind.USER, Kind.NAMESPACE, Kind.UNIT),
    *(Kind.TARGET, Kind.ORIGIN, Kind.HOST, Kind.INTERFACE, Kind.COMMENT, Kind.RULE_NAME, Kind.PROGRAM),
    *(Kind.PATH, Kind.IMAGE, Kind.VARIABLE),
)
"""Names are met where they stand alone before they are looked for in prose, and what they are is told in this order."""
_HOMES = re.compile(r"(?:/home/|/Users/|\\Users\\)([^/\\\s:\"']+)")
_ADDRESS_LIKE = re.compile(r"[0-9A-Fa-f.:]{7,45}")

Leaf = Callable[[Kind, str], str]


class Redacted(Struct, frozen=True):
    """What may leave the machine."""

    snapshots: tuple[Snapshot, ...]
    counts: dict[str, int]
    """How many different things of each kind were replaced."""
    mapping: dict[str, str]
    """What each token stands for: for the sender alone."""


def redact(snapshots: Sequence[Snapshot], keep: Sequence[Group] = (), also: Sequence[str] = ()) -> Redacted:
    """The snapshots with one token for one thing in all of them.

    `also`: texts that are to be replaced wherever they stand.
    """
    leaves = tuple(leaf for snapshot in snapshots for leaf in texts_of(snapshot))
    addresses = Addresses(found for _, text in leaves for found in _ADDRESS_LIKE.findall(text))
    addresses.also = tuple(also)
    tokens = Tokens(keep, (text for _, text in leaves), addresses)
    texts = Texts(tokens)
    for kind, text in _names(leaves):
        texts.redacted(kind, text)
    replaced = _Custom(tokens, also)
    found = tuple(
        rewritten(snapshot, lambda kind, text: replaced(kind, texts.redacted(kind, text))) for snapshot in snapshots
    )
    counts = {kind.value: count for kind, count in sorted(tokens.kinds.items())}
    return Redacted(found, counts | _counted(addresses), tokens.mapping)


def _counted(addresses: Addresses) -> dict[str, int]:
    links = sum(addresses.is_link(one) for one in addresses.given)
    found = {Kind.ADDRESS.value: len(addresses.given) - links, Kind.LINK.value: links}
    return {kind: count for kind, count in found.items() if count}


class _Custom:
    """What the sender's own pattern has matched, replaced in what the kinds have left."""

    def __init__(self, tokens: Tokens, also: Sequence[str]) -> None:
        self._tokens = tokens
        ordered = sorted({one for one in also if one}, key=len, reverse=True)
        self._any = re.compile("|".join(map(re.escape, ordered))) if ordered else None

    def __call__(self, kind: Kind, text: str) -> str:
        if self._any is None or kind in (Kind.ADDRESS, Kind.CODE):
            return text
        return self._any.sub(lambda found: self._tokens.token(Kind.CUSTOM, found[0]), text)


def _names(leaves: Sequence[tuple[Kind, str]]) -> Iterator[tuple[Kind, str]]:
    """What stands alone, and the names in rules and paths, in the order in which they are met."""
    for first in _FIRST:
        if first is Kind.USER:
            yield from (
                (Kind.USER, name) for kind, text in leaves if kind is Kind.PATH for name in _HOMES.findall(text)
            )
        yield from ((kind, text) for kind, text in leaves if kind is first)
        if first is Kind.COMMENT:
            strings = (Texts.strings(text) for kind, text in leaves if kind is Kind.RULE)
            yield from ((Kind.COMMENT, one) for found in strings for one in found)
        for kind, pattern in IN_RULES:
            if kind is first:
                named = (pattern.findall(text) for where, text in leaves if where is Kind.RULE)
                yield from ((kind, name) for names in named for _, name in names)


def texts_of(snapshot: Snapshot) -> tuple[tuple[Kind, str], ...]:
    """Every text of a snapshot with its kind, in order."""
    found: list[tuple[Kind, str]] = []

    def meet(kind: Kind, text: str) -> str:
        found.append((kind, text))
        return text

    rewritten(snapshot, meet)
    return tuple(found)


def rewritten(snapshot: Snapshot, leaf: Leaf) -> Snapshot:
    """The snapshot with each text replaced by what `leaf` makes of it."""
    return _of_snapshots()(snapshot, leaf)  # type: ignore[no-any-return]


_Again = Callable[[Any, Leaf], Any]


@cache
def _of_snapshots() -> _Again:
    found = _again(inspect.type_info(Snapshot), Kind.PROSE)
    assert found is not None
    return found


def _again(info: inspect.Type, kind: Kind) -> _Again | None:
    """How a value of this type is rewritten; None: there is no text in it."""
    match info:
        case inspect.StrType(min_length=shortest, max_length=longest):
            own = Kind.ADDRESS if (shortest, longest) == ADDRESS else kind
            return lambda value, leaf: leaf(own, value)
        case inspect.Metadata(type=inner):
            return _again(inner, kind)
        case inspect.VarTupleType(item_type=item):
            inner_again = _again(item, kind)
            return None if inner_again is None else lambda values, leaf: tuple(inner_again(one, leaf) for one in values)
        case inspect.UnionType(types=kinds):
            return _of_either(kinds, kind)
        case inspect.StructType(cls=cls, fields=fields):
            return _of_fields(getattr(cls, "__origin__", cls), fields, kind)
        case _:
            return None


def _of_either(kinds: tuple[inspect.Type, ...], kind: Kind) -> _Again | None:
    found = {_class_of(one): again for one in kinds if (again := _again(one, kind)) is not None}

    def either(value: Any, leaf: Leaf) -> Any:
        again = found.get(type(value))
        return value if again is None else again(value, leaf)

    return either if found else None


def _class_of(info: inspect.Type) -> type:
    match info:
        case inspect.StructType(cls=cls):
            return getattr(cls, "__origin__", cls)
        case inspect.Metadata(type=inner):
            return _class_of(inner)
        case inspect.StrType():
            return str
        case _:
            return tuple


def _of_fields(cls: type, fields: tuple[inspect.Field, ...], outer: Kind) -> _Again | None:
    """`outer`: of the field that it stands in, for a fact's value, which has no row of its own."""
    kinds: Mapping[str, Kind] = KINDS.get(cls, {})
    known = [
        (one.name, _again(one.type, kinds.get(one.name, outer if cls not in KINDS else Kind.PROSE))) for one in fields
    ]
    found = tuple((name, again) for name, again in known if again is not None)
    if not found:
        return None

    def rewrite(value: Any, leaf: Leaf) -> Any:
        changes: dict[str, Any] = {}
        for name, again in found:
            old = getattr(value, name)
            new = again(old, leaf)
            if new is not old and new != old:
                changes[name] = new
        return replace(value, **changes) if changes else value

    return rewrite


def undeclared() -> tuple[str, ...]:
    """Fields of a snapshot that hold a text and have no row in KINDS; empty, as a test holds it."""
    return tuple(sorted(_undeclared(inspect.type_info(Snapshot), set())))


def _undeclared(info: inspect.Type, seen: set[type]) -> Iterator[str]:
    for one in _structs(info):
        cls = getattr(one.cls, "__origin__", one.cls)
        if one.cls in seen:
            continue
        seen.add(one.cls)
        for each in one.fields:
            if _is_text(each.type) and each.name not in KINDS.get(cls, {}) and cls.__name__ != "Known":
                yield f"{cls.__name__}.{each.name}"
            yield from _undeclared(each.type, seen)


def _structs(info: inspect.Type) -> Iterator[inspect.StructType]:
    match info:
        case inspect.StructType():
            yield info
        case inspect.Metadata(type=inner) | inspect.VarTupleType(item_type=inner):
            yield from _structs(inner)
        case inspect.UnionType(types=kinds):
            for one in kinds:
                yield from _structs(one)


def _is_text(info: inspect.Type) -> bool:
    match info:
        case inspect.StrType(min_length=shortest, max_length=longest):
            return (shortest, longest) != ADDRESS
        case inspect.Metadata(type=inner) | inspect.VarTupleType(item_type=inner):
            return _is_text(inner)
        case inspect.UnionType(types=kinds):
            return any(map(_is_text, kinds))
        case _:
            return False
