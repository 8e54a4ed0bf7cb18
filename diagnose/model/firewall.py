"""What the machine's rule sets do to our packet: the walk through a faithful copy of them."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from msgspec import Struct

from diagnose.model.attempt import Outcome
from diagnose.model.bounds import Address, Count, Few, Port, Priority, Word
from diagnose.model.fact import NOT_NEEDED, Fact
from diagnose.model.finding import Command, Remedy
from diagnose.model.network import Endpoint
from diagnose.model.rule import Backend, RuleRef, Step

Verdict = Literal["accept", "drop", "reject", "unroutable", "unknown"]
"""What became of the probe."""

__all__ = [
    "Approach",
    "Backend",
    "Dialled",
    "End",
    "NetfilterProgram",
    "Obstacle",
    "Rehearsed",
    "RuleRef",
    "Shadow",
    "Step",
    "Walk",
    "endpoint_of",
]


class End(StrEnum):
    """What a probe came to in the copy, once the rules let it pass."""

    LISTENER = "listener"
    """A stand-in for a listener that the machine has."""
    STAND_IN = "stand-in"
    """A listener of the copy's own: on the machine nothing listens there."""
    AWAY = "away"
    """It left this network namespace by NAT: no copy has what answers there, or does not."""
    UNTOLD = "untold"
    """It did not pass, the machine's listeners could not be read, or the recording is older than this."""


class NetfilterProgram(Struct, frozen=True, order=True):
    """A BPF program that netfilter asks about every packet of a family at a hook.

    The kernel does not report of which network namespace.
    """

    family: str
    hook: str
    priority: Priority
    id: Word
    name: str

    def __str__(self) -> str:
        """What it is and does, in words."""
        return (
            f"a BPF program ({self.name or 'without a name'}, id {self.id}) decides as well, at {self.family} "
            f"{self.hook}, priority {self.priority}, of this network namespace or another: which one is not told"
        )


class Approach(Struct, frozen=True, order=True):
    """A connect to this machine from another network namespace of it, by the interface between the two."""

    endpoint: Endpoint
    interface: str
    """As this machine calls it: the bridge of a container's network, or the near end of a cable."""
    source: Address
    """The address that it comes from."""


class Obstacle(Struct, frozen=True):
    """What stopped the same probe in the copy once a remedy was applied: as much of its walk as the next one needs."""

    address: Address
    port: Port
    outcome: Outcome
    decider: RuleRef | None
    verdict: Verdict
    packet: Literal["syn", "reply", "ack"] = "syn"
    hook: str = ""
    seen_as: Endpoint | None = None
    came: Approach | None = None
    reader: str | None = None
    arrives: Endpoint | None = None
    rewrite: Step | None = None
    """What led it astray, where no rule stopped it."""


class Rehearsed(Struct, frozen=True):
    """Commands that were executed in the copy, and what the same probe met afterwards.

    What a recording says of them is a claim: a remedy is derived again from the walk and the obstacles.
    """

    commands: Few[Command]
    mended: bool
    """The rules let the same probe pass afterwards; whether the connection then works depends on its end."""
    opens: Few[str] = ()
    """What else became reachable that was not before: "127.0.0.1:5432 from loopback" ..."""
    remedy: Remedy | None = None
    """The whole remedy; its undo was executed as well, and is empty where it did not restore the rules."""
    end: End = End.UNTOLD
    at: Endpoint | None = None
    """Where that end is, when NAT led the probe elsewhere than to the endpoint asked about."""
    obstacles: Few[Obstacle] = ()
    """What stopped the probe after the first remedy, after the second ...: each took one more remedy."""


Dialled = Endpoint | Approach
"""A connect from the machine itself, or one that comes in from another network namespace of it."""


def endpoint_of(dialled: Dialled) -> Endpoint:
    """Where it goes."""
    return dialled.endpoint if isinstance(dialled, Approach) else dialled


class Walk(Struct, frozen=True):
    """What one probe met in the copy."""

    address: Address
    port: Port
    outcome: Outcome
    """How the probe ended in the copy, with a listener there."""
    steps: tuple[Step, ...]
    decider: RuleRef | None
    """The rule or policy that ended it; None: nothing stood in the way, or it could not be told."""
    verdict: Verdict
    """unroutable: a rule changed the destination, and the kernel has no way to what came of it."""
    packet: Literal["syn", "reply", "ack"] = "syn"
    """Which packet the decider stopped; ack: the client's last one of the handshake."""
    hook: str = ""
    """Where the decider stopped it; empty: not told."""
    reject_with: str | None = None
    """tcp reset, icmp port-unreachable ... where the decider rejects."""
    doubts: Few[str] = ()
    """What the copy could not carry and lies on this walk (state, order of equal priorities ...): likely at most."""
    rehearsals: Fact[Few[Rehearsed]] = NOT_NEEDED
    """The candidate remedies, tried in the copy."""
    seen_as: Endpoint | None = None
    """The server's end of the connection as the decider saw it, when a rule had changed it before."""
    depends: tuple[Step, ...] = ()
    """Rules before the decider that match this packet but for a state that no copy has (limits, counts, chance)."""
    arrives: Endpoint | None = None
    """Where the SYN was sent in the end, when a rule changed its destination."""
    came: Approach | None = None
    """How the SYN came in; None: from this machine itself."""
    leaves: bool = False
    """It was sent out of this network namespace, to a container for example: what happens there no copy tells."""
    reader: str | None = None
    """The program to which the decider hands the packet (NFQUEUE), which decides; None: none was there."""
    beside: Few[NetfilterProgram | str] = ()
    """BPF programs that netfilter asks as well, in this network namespace or another: no copy has them.

    In recordings older than this as words.
    """
    served_at: Few[Endpoint] = ()
    """The same port on other addresses of this machine, which NAT leads on to another endpoint."""


class Shadow(Struct, frozen=True):
    """The copy of the rule sets, and the probes sent in it."""

    walks: Few[Walk]
    uncarried: tuple[str, ...] = ()
    """Parts of the rule sets that could not be copied, each with its reason."""
    rules: Count = 0
    """How many rules were carried."""
    wordless: tuple[str, ...] = ()
    """Why rules have no text here: the tool that prints them is missing or could not be understood."""
    owner_tools: Few[str] = ()
    """Commands of the deciders' makers (ufw, firewall-cmd, fail2ban-client) that are installed and at work."""
    late: bool = False
    """A tool that prints the rules was not ready in time."""

    def walk(self, address: str) -> Walk | None:
        """The walk to this address."""
        return next((w for w in self.walks if w.address == address), None)
