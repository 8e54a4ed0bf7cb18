"""Where ufw and firewalld put the accept that their own command adds: what is tried in the copy in its place."""

from __future__ import annotations

import re
from ipaddress import ip_address

from msgspec import Struct

from diagnose.analysis.rule_owner import Maker, Owner, brings_back, called_chain, keeps, maker_on
from diagnose.model.finding import Command, Remedy
from diagnose.model.firewall import Backend, RuleRef, Walk
from diagnose.model.network import Endpoint, is_loopback

_ZONES = re.compile(r"(?:filter_)?INPUT_ZONES(?:_SOURCE)?")
"""firewalld's chain that leads each packet to its zone; policies have chains of their own, called from elsewhere."""
_ZONE = re.compile(r"(?:filter_)?IN_(?!policy_)(?P<zone>[\w-]+)")
_PANIC = "firewalld_policy_drop"


class ZoneChain(Struct, frozen=True):
    """The first chain of a zone of firewalld."""

    zone: str
    chain: str


def owner_effect(walk: Walk) -> Remedy | None:
    """The accept that the owner's command adds, as a command for the copy; None where the packet is not there."""
    decider = walk.decider
    if decider is None or walk.packet != "syn":
        return None
    made = maker_on(walk)
    match made.owner:
        case Owner.UFW if walk.hook in ("input", "output") and entered(walk, decider, ufw_chain(walk)):
            interface = walk.came.interface if walk.came is not None else "lo"
            where = ("-i" if walk.hook == "input" else "-o", interface)
            return _accept_xt(decider, made, ufw_chain(walk), (*where, *_flow_xt(walk)))
        case Owner.FIREWALLD if decider.table != _PANIC and (first := zone_chain(walk, decider)) is not None:
            if decider.backend is Backend.NFT:
                return _accept_nft(decider, made, first.chain, walk)
            return _accept_xt(decider, made, first.chain, _flow_xt(walk))
        case _:
            return None


def ufw_chain(walk: Walk) -> str:
    """The chain in which ufw keeps its user's rules for this direction and family."""
    return f"ufw{'6' if ':' in server_seen(walk).address else ''}-user-{walk.hook}"


def zone_chain(walk: Walk, decider: RuleRef) -> ZoneChain | None:
    """The first chain of the zone that the packet has been in."""
    if walk.hook != "input":
        return None
    steps = [step for step in walk.steps if step.rule.table == decider.table]
    called = {called_chain(step) for step in steps}
    zones = (_ZONE.fullmatch(called_chain(step)) for step in steps if _ZONES.fullmatch(step.rule.chain))
    # its rules of negative priority come first (firewalld.richlanguage(5))
    found = (ZoneChain(zone["zone"], f"{zone[0]}_pre") for zone in zones if zone is not None)
    return next((one for one in found if one.chain in called and one.chain != decider.chain), None)


def entered(walk: Walk, decider: RuleRef, chain: str) -> bool:
    """Whether the packet came through this chain of the decider's table, at the decider's hook, before it was stopped.

    Then an accept there ends the base chain just as one before the decider does.
    """
    return walk.packet == "syn" and any(
        called_chain(step) == chain
        and step.hook in (walk.hook, "")  # of iptables-legacy no hook is told for a chain that is jumped to
        and (step.rule.backend, step.rule.table) == (decider.backend, decider.table)
        for step in walk.steps
    )


def server_seen(walk: Walk) -> Endpoint:
    """The server's end as the decider saw it; the address without its zone."""
    server = walk.seen_as or Endpoint(walk.address, walk.port)
    return Endpoint(server.address.partition("%")[0], server.port)


def _flow_xt(walk: Walk) -> tuple[str, ...]:
    server = server_seen(walk)
    length = 128 if ip_address(server.address).version == 6 else 32
    ours = walk.came is not None or is_loopback(server.address)
    source = () if ours or walk.hook != "input" or _is_ufw(walk) else ("-s", f"{server.address}/{length}")
    return (*source, "-d", f"{server.address}/{length}", "-p", "tcp", "--dport", str(server.port))


def _is_ufw(walk: Walk) -> bool:
    return maker_on(walk).owner is Owner.UFW


def _accept_xt(decider: RuleRef, made: Maker, chain: str, match: tuple[str, ...]) -> Remedy:
    rule = (*match, "-j", "ACCEPT")
    tool = (decider.backend.value, "-t", decider.table)
    return Remedy(
        summary=f"Accept this connection at the top of chain {chain} of table {decider.table}. {_lasts(made)}",
        commands=(Command((*tool, "-I", chain, "1", *rule), needs_root=True),),
        undo=(Command((*tool, "-D", chain, *rule), needs_root=True),),
        survives_reboot=False,
    )


def _accept_nft(decider: RuleRef, made: Maker, chain: str, walk: Walk) -> Remedy:
    server = server_seen(walk)
    family = "ip6" if ip_address(server.address).version == 6 else "ip"
    ours = walk.came is not None or is_loopback(server.address)
    source = () if ours else (family, "saddr", server.address)
    rule = (*source, family, "daddr", server.address, "tcp", "dport", str(server.port), "accept")
    return Remedy(
        summary=f"Accept this connection at the top of chain {chain} of table {decider.table}. {_lasts(made)}",
        commands=(Command(("nft", "insert", "rule", decider.family, decider.table, chain, *rule), needs_root=True),),
        survives_reboot=False,
    )


def _lasts(made: Maker) -> str:
    return f"{brings_back(made)}. {keeps(made)}"
