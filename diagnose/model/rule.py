"""A rule as its own tool names it, and what it did to a packet."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Literal

from msgspec import Struct

from diagnose.model.bounds import Handle


class Backend(StrEnum):
    """Which tool shows and changes a rule."""

    NFT = "nft"
    IPTABLES_NFT = "iptables-nft"
    IP6TABLES_NFT = "ip6tables-nft"
    IPTABLES_LEGACY = "iptables-legacy"
    IP6TABLES_LEGACY = "ip6tables-legacy"


class RuleRef(Struct, frozen=True):
    """A rule, or the policy of a base chain, as its own tool names it on the machine diagnosed."""

    backend: Backend
    family: str
    """nft family (ip, ip6, inet, netdev ...); for iptables ip or ip6."""
    table: str
    chain: str
    text: str
    """The rule as its tool lists it, for a policy "policy drop"; in a walk with *** for comments and log prefixes."""
    policy: bool = False
    handle: Handle | None = None
    """nft handle on the machine (not in the copy); None for a policy and for iptables rules."""
    line: Handle | None = None
    """1-based number in the chain, as `iptables -L --line-numbers` counts; None for a policy."""
    comment: str | None = None
    before: Handle | None = None
    """nft handle of the rule behind it in the chain, before which it stands; None: it is the last, or no nft rule."""


class Step(Struct, frozen=True):
    """One thing that happened to one packet on its walk."""

    packet: Literal["syn", "syn-ack", "reset", "icmp", "other"]
    hook: str
    """output, postrouting, prerouting, input, ingress; empty: not told."""
    rule: RuleRef
    verdict: str
    """accept, drop, reject, jump X, goto X, return, continue, queue, redirect, dnat ..."""


_STRING = re.compile(r'(?<= )"(?:[^"\\]|\\.)*"', re.DOTALL)
"""As iptables prints one (xtables_save_string, libxtables/xtables.c): line ends stand in it as they are."""
_WORD = re.compile(r'"((?:[^"\\]|\\.)*)"|(\S+)', re.DOTALL)


def string_is_open(text: str) -> bool:
    """Whether a string in a rule of iptables has no end."""
    return ' "' in text and ' "' in _STRING.sub("", text)


def iptables_arguments(text: str) -> tuple[str, ...]:
    """A rule as iptables prints it, in the arguments that make it; ValueError when a string in it has no end.

    A backslash keeps what follows it as it is, in strings only (add_param_to_argv, iptables/xshared.c).
    """
    if string_is_open(f" {text}"):
        raise ValueError("a string has no end")
    return tuple(plain or re.sub(r"\\(.)", r"\1", quoted, flags=re.DOTALL) for quoted, plain in _WORD.findall(text))
