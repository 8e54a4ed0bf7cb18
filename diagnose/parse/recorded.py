"""What the types of a snapshot cannot say of one that was read: that an address is one, and that no text is endless.

The types themselves are walked, so that a field which is new is looked at like the others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, lru_cache
from ipaddress import ip_address, ip_network
from operator import attrgetter
from types import MappingProxyType
from typing import Any

from msgspec import inspect

from diagnose.model.bounds import ADDRESS
from diagnose.model.names import HostsEntry
from diagnose.model.network import LocalRoute, RoutingRule
from diagnose.model.snapshot import Snapshot

LONGEST_TEXT = 1 << 20
"""Characters of one text: a rule with ten thousand elements has less than a fifth of it."""
LONGEST_LIST = 1 << 20

Check = Callable[[Any], None]
"""Raises ValueError, in words for the user."""


def check(snapshot: Snapshot) -> None:
    """Raises ValueError where a value is none that its field can have; the message is for the user."""
    _check_of_snapshots()(snapshot)


@cache
def _check_of_snapshots() -> Check:
    found = _check(inspect.type_info(Snapshot))
    assert found is not None
    return found


def _check(info: inspect.Type) -> Check | None:
    """The check of a value of this type; None: the type says all of it."""
    match info:
        case inspect.StrType(min_length=shortest, max_length=longest):
            return _check_address if (shortest, longest) == ADDRESS else _check_text
        case inspect.VarTupleType(item_type=item):
            return _check_of_items(_check(item))
        case inspect.TupleType(item_types=items):
            assert not any(map(_check, items)), "a pair of texts is not looked into"
            return None
        case inspect.UnionType(types=kinds):
            return _check_of_either(tuple(kinds))
        case inspect.StructType(cls=kind, fields=fields):
            return _check_of_fields(kind, fields)
        case inspect.Metadata(type=inner):
            return _check(inner)
        case _:
            return None


def _check_address(address: str) -> None:
    if not _is_address(address):
        raise ValueError(f"{_short(address)!r} is no address")


@lru_cache(maxsize=1 << 16)
def _is_address(address: str) -> bool:
    try:
        ip_address(address)
    except ValueError:
        return False
    zone = address.partition("%")[2]
    return zone.isprintable() and not set(zone) & {" ", "/"}


def _check_text(text: str) -> None:
    if len(text) > LONGEST_TEXT:
        raise ValueError(f"a text of it has {len(text)} characters, and {LONGEST_TEXT} are the most")


def _check_of_items(item: Check | None) -> Check:
    def check_items(values: tuple[Any, ...]) -> None:
        if len(values) > LONGEST_LIST:
            raise ValueError(f"a list of it has {len(values)} items, and {LONGEST_LIST} are the most")
        if item is not None:
            for value in values:
                item(value)

    return check_items


def _check_of_either(kinds: tuple[inspect.Type, ...]) -> Check | None:
    """By the class of the value: no two of a union have one."""
    checks = {_class_of(kind): found for kind in kinds if (found := _check(kind)) is not None}
    if not checks:
        return None

    def check_either(value: Any) -> None:
        found = checks.get(type(value))
        if found is not None:
            found(value)

    return check_either


def _class_of(info: inspect.Type) -> type:
    match info:
        case inspect.StructType(cls=kind):
            return getattr(kind, "__origin__", kind)
        case inspect.VarTupleType() | inspect.TupleType():
            return tuple
        case inspect.Metadata(type=inner):
            return _class_of(inner)
        case _:
            return str


def _check_of_fields(kind: Any, fields: tuple[inspect.Field, ...]) -> Check | None:
    checks: tuple[tuple[Callable[[Any], Any], Check], ...] = tuple(
        (attrgetter(one.name), found) for one in fields if (found := _check(one.type)) is not None
    )
    more = _MORE.get(kind)
    if more is not None:
        checks = (*checks, (_itself, more))
    if not checks:
        return None

    def check_fields(value: Any) -> None:
        for field, found in checks:
            found(field(value))

    return check_fields


def _itself(value: Any) -> Any:
    return value


def _check_hosts_entry(entry: HostsEntry) -> None:
    """What glibc takes for an address must be one; a line that it skips may have anything there."""
    if entry.valid:
        _check_address(entry.address)


def _check_route(route: LocalRoute) -> None:
    if route.destination != "default":
        _check_network(route.destination, strict=True)


def _check_rule(rule: RoutingRule) -> None:
    """The kernel prints a network behind "to"."""
    words = rule.selector.split()
    if words[2:3] == ["to"]:
        _check_network(" ".join(words[3:4]), strict=False)


def _check_network(text: str, *, strict: bool) -> None:
    try:
        ip_network(text, strict=strict)
    except ValueError:
        raise ValueError(f"{_short(text)!r} is no network") from None


_MORE: Mapping[Any, Check] = MappingProxyType(
    {HostsEntry: _check_hosts_entry, LocalRoute: _check_route, RoutingRule: _check_rule}
)
"""Texts that checks read as addresses, in the form that their struct says."""


def _short(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:77]}..."
