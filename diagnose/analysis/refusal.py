"""Who refused: the kernel's TCP, a firewall rule, or the far side."""

from __future__ import annotations

from enum import Enum, auto

from diagnose.model.attempt import Attempt, Outcome
from diagnose.model.fact import Known


class Refusal(Enum):
    """Whose answer a refused connect was."""

    KERNEL = auto()
    """This machine's TCP sent the reset itself: no socket wanted the packet."""
    NOT_KERNEL = auto()
    """A reset that this namespace's TCP did not send: a rule's, or one from beyond a NAT."""
    ICMP = auto()
    """An ICMP error, which TCP never sends for a closed port."""
    REMOTE = auto()
    """A reset from another machine."""
    UNCLEAR = auto()
    """Not told apart: other traffic moved the counters, or they could not be read."""


ICMP_NAMES = {
    ("icmp", 3, 0): "net-unreachable",
    ("icmp", 3, 1): "host-unreachable",
    ("icmp", 3, 2): "proto-unreachable",
    ("icmp", 3, 3): "port-unreachable",
    ("icmp", 3, 9): "net-prohibited",
    ("icmp", 3, 10): "host-prohibited",
    ("icmp", 3, 13): "admin-prohibited",
    ("icmp6", 1, 0): "no-route",
    ("icmp6", 1, 1): "admin-prohibited",
    ("icmp6", 1, 3): "address-unreachable",
    ("icmp6", 1, 4): "port-unreachable",
    ("icmp6", 1, 5): "policy-fail",
    ("icmp6", 1, 6): "reject-route",
}
"""RFC 792, RFC 1812 section 5.2.7.1, RFC 4443 section 3.1, by the names that nft and iptables use."""


def icmp_text(attempt: Attempt) -> str | None:
    """What the ICMP error in the socket's error queue said: "icmp type 3 code 13 (admin-prohibited) from 127.0.0.1"."""
    match attempt.icmp:
        case Known(value=(first, *_)) if first.origin != "local":
            name = ICMP_NAMES.get((first.origin, first.type, first.code), "unknown code")
            sender = f" from {first.sender}" if first.sender else ""
            return f"{first.origin} type {first.type} code {first.code} ({name}){sender}"
        case _:
            return None


def refusal(attempt: Attempt) -> Refusal:
    """Whose answer the refusal was, as far as a witness told."""
    assert attempt.outcome is Outcome.REFUSED, attempt.outcome
    if icmp_text(attempt):
        return Refusal.ICMP
    if not attempt.local:
        return Refusal.REMOTE
    match attempt.reset:
        case Known(value=witness) if witness.distinct:
            return Refusal.KERNEL if witness.by_kernel else Refusal.NOT_KERNEL
        case _:
            return Refusal.UNCLEAR


def rejected_by_icmp(attempt: Attempt) -> bool:
    """Whether an ICMP error from the network side ended it, whatever errno that became."""
    return icmp_text(attempt) is not None
