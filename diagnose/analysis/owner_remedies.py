"""The command of the program that owns the rule, where it does what an accept in the copy has been seen to do."""

from __future__ import annotations

from collections.abc import Iterator

from diagnose.analysis.owner_places import entered, owner_effect, server_seen, ufw_chain, zone_chain
from diagnose.analysis.rehearsal import Derived, derived
from diagnose.analysis.rule_owner import Owner, maker_on
from diagnose.analysis.walk import ban_jail
from diagnose.model.fact import Reason, Unknown
from diagnose.model.finding import Command, Rehearsal, Remedy
from diagnose.model.firewall import RuleRef, Walk
from diagnose.model.network import is_loopback

UFW, FIREWALL_CMD, FAIL2BAN_CLIENT = "ufw", "firewall-cmd", "fail2ban-client"
_DIRECTIONS = {"input": "in", "output": "out"}
_PANIC = "firewalld_policy_drop"


def owner_remedies(walk: Walk, tools: tuple[str, ...]) -> Iterator[Remedy]:
    """In the owner's words what mends this flow; nothing where its program is not at work or would not help."""
    decider = walk.decider
    if decider is None:
        return
    match maker_on(walk).owner:
        case Owner.UFW if UFW in tools:
            yield from _ufw(walk, decider)
        case Owner.FIREWALLD if FIREWALL_CMD in tools:
            yield from _panic_off(walk, decider) if decider.table == _PANIC else _rich_rule(walk, decider)
        case _:
            return


def _ufw(walk: Walk, decider: RuleRef) -> Iterator[Remedy]:
    """An accept at the top of ufw's own chain for user rules, where the packet has been in it."""
    server = server_seen(walk)
    direction = _DIRECTIONS.get(walk.hook, "")
    tried = _rehearsed(walk)
    if tried is None and not (entered(walk, decider, ufw_chain(walk)) and (_accept_suffices(walk) or _untried(walk))):
        return
    interface = walk.came.interface if walk.came is not None else "lo"
    how = _untried(walk) or (_UFW_TRIED if tried else _UNTRIED)
    rule = ("allow", direction, "on", interface, "to", server.address, "port", str(server.port), "proto", "tcp")
    yield Remedy(
        summary="Allow this connection in ufw, before its other rules. ufw keeps it over a reboot. "
        f"{how} If a rule of ufw denies the port (`ufw status numbered` lists them), "
        "`ufw delete` with its number takes that back, but for everybody.",
        commands=(Command(("ufw", "prepend", *rule), needs_root=True),),
        undo=(Command(("ufw", "delete", *rule), needs_root=True),),
        survives_reboot=True,
        rehearsal=tried,
    )


_UFW_TRIED = "The accept that it adds was tried in the copy of the rules, at the place where ufw puts it."
_UNTRIED = (
    "ufw itself was not tried in the copy of the rules, since it would write its files; the accept that it adds was."
)


def _rich_rule(walk: Walk, decider: RuleRef) -> Iterator[Remedy]:
    """An accept in the first chain of the zone, where the packet has been in it."""
    first = zone_chain(walk, decider)
    tried = _rehearsed(walk)
    if first is None or (tried is None and not (_accept_suffices(walk) or _untried(walk))):
        return
    server = server_seen(walk)
    family = "ipv6" if ":" in server.address else "ipv4"
    ours = walk.came is not None or is_loopback(server.address)
    source = "" if ours else f'source address="{server.address}" '
    rule = (
        f'rule priority="-1" family="{family}" {source}destination address="{server.address}" '
        f'port port="{server.port}" protocol="tcp" accept'
    )
    zoned = f"--zone={first.zone}"
    how = _untried(walk) or (_ZONE_TRIED if tried else _ZONE_UNTRIED)
    yield Remedy(
        summary=f"Accept this connection in firewalld's zone {first.zone}: the first command at once, the second for "
        f"after a reboot or reload. {how} To let other machines in as well: "
        f"`firewall-cmd {zoned} --add-port={server.port}/tcp`, and again with `--permanent`.",
        commands=tuple(
            Command(("firewall-cmd", *when, zoned, f"--add-rich-rule={rule}"), needs_root=True) for when in _BOTH
        ),
        undo=tuple(
            Command(("firewall-cmd", *when, zoned, f"--remove-rich-rule={rule}"), needs_root=True) for when in _BOTH
        ),
        survives_reboot=True,
        rehearsal=tried,
    )


_ZONE_TRIED = "The accept that it adds was tried in the copy of the rules, at the place where firewalld puts it."
_ZONE_UNTRIED = "firewalld itself could not be tried in the copy of the rules; the accept that it adds was."
_BOTH: tuple[tuple[str, ...], ...] = ((), ("--permanent",))


def _panic_off(walk: Walk, decider: RuleRef) -> Iterator[Remedy]:
    if not any(
        one.mended and all(decider.table in command.argv for command in one.remedy.commands) for one in derived(walk)
    ):
        return
    yield Remedy(
        summary="firewalld is in panic mode, which drops every packet on this machine: somebody turned it on. Where "
        "the reason is gone, turn it off, and the ordinary rules of firewalld decide again. A restart of firewalld "
        "ends it as well. firewalld itself could not be tried in the copy of the rules; accepts in that table were.",
        commands=(Command(("firewall-cmd", "--panic-off"), needs_root=True),),
        undo=(Command(("firewall-cmd", "--panic-on"), needs_root=True),),
        survives_reboot=True,
    )


def unban(walk: Walk, banned: str, tools: tuple[str, ...]) -> Iterator[Remedy]:
    """fail2ban keeps its own list: a rule removed behind its back comes back with the next match."""
    jail = ban_jail(walk.decider) if walk.decider is not None else None
    if jail is None:
        return
    yield Remedy(
        summary=f"fail2ban's jail {jail} has banned {banned}: lift the ban there. It stays lifted over a reboot, until "
        "the next matches in the log. To keep this machine from being banned again, set ignoreself = true, and give "
        f"the jail the clients' addresses instead of a proxy's. {_what_it_opens(walk)}"
        + ("" if FAIL2BAN_CLIENT in tools else " fail2ban does not run here now, so its command will not work yet."),
        commands=(Command((FAIL2BAN_CLIENT, "set", jail, "unbanip", banned), needs_root=True),),
        undo=(Command((FAIL2BAN_CLIENT, "set", jail, "banip", banned), needs_root=True),),
        survives_reboot=True,
    )


def _what_it_opens(walk: Walk) -> str:
    """What taking the ban away opened in the copy, by the rehearsal of a command that does just that."""
    lifted = next((one for one in derived(walk) if one.mended and _takes_away(one)), None)
    if lifted is None:
        return "fail2ban itself could not be tried in the copy of the rules."
    told = (
        "fail2ban itself was not tried in the copy of the rules; taking the ban away was, and lets the connection pass"
    )
    return (
        f"{told} and opens besides: {', '.join(lifted.opens)}." if lifted.opens else f"{told} and opens nothing else."
    )


def _takes_away(tried: Derived) -> bool:
    """Whether the commands do nothing but take out an element or a rule."""
    return all(
        command.argv[:2] in (("nft", "delete"), ("ipset", "del")) or "-D" in command.argv[:4]
        for command in tried.remedy.commands
    )


def _untried(walk: Walk) -> str:
    """Why nothing was tried in the copy, as a sentence, where the packet alone shows that the accept ends its chain."""
    match walk.rehearsals:
        case Unknown(reason=reason, detail=why) if walk.packet == "syn" and reason is not Reason.NOT_NEEDED:
            because = f" ({why})" if why else ""
            return (
                f"It was not tried in a copy of the rules{because}: whether another rule stops the packet is not known."
            )
        case _:
            return ""


def _rehearsed(walk: Walk) -> Rehearsal | None:
    """What the owner's accept did in the copy, at its own place; None where it was not tried, or does not fix it."""
    effect = owner_effect(walk)
    wanted = effect.commands if effect is not None else ()
    tried = next((one for one in derived(walk) if one.mended and one.remedy.commands == wanted), None)
    return Rehearsal(True, tried.opens) if tried is not None else None


def _accept_suffices(walk: Walk) -> bool:
    """Whether nothing else stops this flow: in the copy one accept for its port alone has mended it."""
    port = str(server_seen(walk).port)
    return walk.packet == "syn" and any(
        one.mended and len(one.remedy.commands) == 1 and _accepts(one.remedy.commands[0], port) for one in derived(walk)
    )


def _accepts(command: Command, port: str) -> bool:
    words = [word.lower() for word in command.argv]
    adds = "-i" in words[:4] or "insert" in words[:2]
    return adds and "accept" in words and port in words
