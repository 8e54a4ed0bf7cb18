"""From the rule that stops a connect to the narrowest commands that let it through."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from ipaddress import ip_address

from msgspec.structs import replace

from diagnose.analysis.argument import Objection, objected
from diagnose.analysis.owner_places import owner_effect
from diagnose.analysis.rule_owner import Maker, Owner, brings_back, keeps, maker, maker_on
from diagnose.analysis.walk import destination_rewrite
from diagnose.model.finding import Command, Remedy, Risk
from diagnose.model.firewall import Backend, RuleRef, Walk
from diagnose.model.hidden import MASK
from diagnose.model.network import Endpoint
from diagnose.model.rule import iptables_arguments

_OUTWARD = ("output", "postrouting", "egress")
_NFT_WORD = re.compile(r'(?:"[^"]*"|[^\s"])+')
MARK = "netdiag"
"""The comment of a rule that a remedy adds to nftables, by which a person finds it again."""


def candidates(walk: Walk) -> tuple[Remedy, ...]:
    """The remedies for the rule that stopped this walk or led it astray, the narrowest first; none when none is named.

    They are not rehearsed here: whether another rule stops the packet behind this one shows only in the copy. None has
    a command that its tool would not read as it is meant, since a name in it is more than a word of that tool's.
    """
    return tuple(_undoable(one) for one in _conceivable(walk) if objected(one.commands) is None)


def unspeakable(walk: Walk) -> Objection | None:
    """Why there is no command about the rule that stopped this walk, although it is known; None: there may be one."""
    found = [objected(one.commands) for one in _conceivable(walk)]
    return next(iter(found), None) if found and None not in found else None


def _undoable(remedy: Remedy) -> Remedy:
    return remedy if objected(remedy.undo) is None else replace(without_undo(remedy), undo=())


def _conceivable(walk: Walk) -> Iterator[Remedy]:
    decider = walk.decider
    if decider is None:
        rewrite = None if walk.outcome.works else destination_rewrite(walk)
        return iter(()) if rewrite is None else _for_rule(replace(walk, hook=rewrite.hook), rewrite.rule)
    if walk.verdict not in ("drop", "reject") and walk.reader is None:
        return iter(())
    return _with_effect(walk, _for_policy(walk, decider) if decider.policy else _for_rule(walk, decider))


def _with_effect(walk: Walk, remedies: Iterator[Remedy]) -> Iterator[Remedy]:
    """With what the owner's own command adds, as the second: the first is what follows from the decider alone."""
    general = tuple(remedies)
    effect = owner_effect(walk)
    own = () if effect is None or effect.commands in [one.commands for one in general] else (effect,)
    yield from (*general[:1], *own, *general[1:])


def combined(remedies: Sequence[Remedy], *, astray: bool = False) -> Remedy:
    """Several remedies as one: each mends what the one before it brought to light.

    `astray`: one of the rules stops nothing, and leads the connection elsewhere.
    """
    if len(remedies) == 1:
        return remedies[0]
    undoable = all(remedy.undo for remedy in remedies)
    do = "keep it from its listener" if astray else "stop it"
    actions = [remedy.summary.partition(". ")[0] for remedy in remedies]
    return Remedy(
        summary=f"{len(remedies)} rules {do} one after the other, so all of this is needed: {'; '.join(actions)}. "
        + _lasting(remedies),
        # one may have to be given again: further up the chain it lets through another packet
        commands=tuple(command for remedy in remedies for command in remedy.commands),
        undo=tuple(command for remedy in reversed(remedies) for command in remedy.undo) if undoable else (),
        risk=max((remedy.risk for remedy in remedies), key=tuple(Risk).index),
        survives_reboot=False,
    )


def _lasting(remedies: Sequence[Remedy]) -> str:
    """What is said of how to keep it: by the last of them that names the owner of a rule, else by the last."""
    said = [remedy.summary.partition(". ")[2] for remedy in reversed(remedies)]
    return next((one for one in said if not one.startswith(_UNTIL_LOADED)), said[0])


def without_undo(remedy: Remedy) -> Remedy:
    """The remedy when its undo does not restore the rules."""
    return Remedy(
        summary=f"{remedy.summary} No command undoes it exactly: note the rule before you remove it.",
        commands=remedy.commands,
        risk=Risk.DISRUPTIVE,
        survives_reboot=remedy.survives_reboot,
    )


def _for_policy(walk: Walk, decider: RuleRef) -> Iterator[Remedy]:
    yield _accept(decider, _flow(walk, decider), _traffic(walk), maker_on(walk))
    if walk.hook in ("input", "output") and walk.came is None:
        # what a rule set with this policy usually lacks
        yield _accept(decider, _interface(walk, decider), "everything on the loopback interface", maker_on(walk))


def _for_rule(walk: Walk, decider: RuleRef) -> Iterator[Remedy]:
    made = maker_on(walk)
    accept = _accept(decider, _flow(walk, decider), _traffic(walk), made)
    removed = removal(decider, made)
    element = _port_of_set(walk, decider)
    if element is not None:
        yield element
    if removed is not None and _only_this_port(walk, decider):
        yield removed
        yield accept
        return
    yield accept
    yield from _address_of_set(walk, decider)
    if removed is not None:
        yield removed


# ------ an accept before it


def _accept(decider: RuleRef, match: tuple[str, ...], what: str, made: Maker | None = None) -> Remedy:
    """`made`: whose rule it is, where the rule alone does not show it."""
    place = f"chain {decider.chain} of table {_table(decider)}"
    where = f"at the top of {place}" if decider.policy else f"in {place}, just before the rule that {_acts(decider)}"
    command, undo = _accept_nft(decider, match) if decider.backend is Backend.NFT else _accept_xt(decider, match)
    summary = f"Accept {what} {where}. {_keep(decider, made)}"
    if not undo:
        listing = f"nft -a list chain {decider.family} {decider.table} {decider.chain}"
        summary += (
            f' To undo it, look up its handle with `{listing}` (the line with comment "{MARK}") and run '
            f"`nft delete rule {decider.family} {decider.table} {decider.chain} handle` with that number."
        )
    return Remedy(summary=summary, commands=(command,), undo=undo, survives_reboot=False)


def _acts(decider: RuleRef) -> str:
    return "changes its destination" if _NATS.search(decider.text) else "stops it"


_NATS = re.compile(r"\b(dnat|redirect|DNAT|REDIRECT|NETMAP)\b")


def _accept_nft(decider: RuleRef, match: tuple[str, ...]) -> tuple[Command, tuple[Command, ...]]:
    chain = (decider.family, decider.table, decider.chain)
    # at the top where the policy decides: what stands at the end may never be reached
    position = () if decider.policy else ("position", str(decider.handle))
    argv = ("nft", "insert", "rule", *chain, *position)
    # no command can name a rule whose handle the kernel has yet to give: the undo is told in words
    return Command((*argv, *match, "accept", "comment", MARK), needs_root=True), ()


def _accept_xt(decider: RuleRef, match: tuple[str, ...]) -> tuple[Command, tuple[Command, ...]]:
    rule = (*match, "-j", "ACCEPT")
    tool = (decider.backend.value, "-t", decider.table)
    add = (*tool, "-I", decider.chain, "1" if decider.policy else str(decider.line), *rule)
    return Command(add, needs_root=True), (Command((*tool, "-D", decider.chain, *rule), needs_root=True),)


def _interface(walk: Walk, decider: RuleRef) -> tuple[str, ...]:
    outward = walk.hook in _OUTWARD
    name = walk.came.interface if walk.came is not None else "lo"
    if decider.backend is not Backend.NFT:
        return ("-o" if outward else "-i", name)
    if decider.family == "netdev":
        return ()
    return ("oifname" if outward else "iifname", name)


def _flow(walk: Walk, decider: RuleRef) -> tuple[str, ...]:
    """The packets of this connection that go the way of the one that was stopped."""
    answer = walk.packet == "reply"
    server = walk.seen_as or Endpoint(walk.address.partition("%")[0], walk.port)
    address, port_seen = server.address, str(server.port)
    six = ip_address(address).version == 6
    if decider.backend is Backend.NFT:
        family = "ip6" if six else "ip"
        match = (family, "saddr" if answer else "daddr", address, "tcp", "sport" if answer else "dport", port_seen)
        return (*_interface(walk, decider), *match)
    ends = ("-s" if answer else "-d", f"{address}/{128 if six else 32}")
    port = ("--sport" if answer else "--dport", port_seen)
    return (*_interface(walk, decider), *ends, "-p", "tcp", *port)


# ------ the rule removed


def removal(decider: RuleRef, made: Maker | None = None) -> Remedy | None:
    """The removal of that very rule; None when it cannot be named in one command. `made`: whose it is, if known."""
    if not decider.text or "\n" in decider.text:
        return None
    commands = _removal_nft(decider) if decider.backend is Backend.NFT else _removal_xt(decider)
    if commands is None:
        return None
    command, undo = commands
    hidden = " Its comment is not shown here, and the undo adds the rule without it." if MASK in decider.text else ""
    return Remedy(
        summary=f"Remove the rule from chain {decider.chain} of table {_table(decider)}. "
        f"{_keep(decider, made)}{hidden}",
        commands=(command,),
        undo=(undo,),
        survives_reboot=False,
    )


def _removal_nft(decider: RuleRef) -> tuple[Command, Command] | None:
    if decider.handle is None or decider.text.count('"') % 2:
        return None
    chain = (decider.family, decider.table, decider.chain)
    words = _without_hidden(_NFT_WORD.findall(decider.text), _NFT_HIDDEN)
    if words is None:
        return None
    back: tuple[str, ...] = ("nft", "add", "rule", *chain)
    if decider.before is not None:
        back = ("nft", "insert", "rule", *chain, "position", str(decider.before))
    return (
        Command(("nft", "delete", "rule", *chain, "handle", str(decider.handle)), needs_root=True),
        Command((*back, *words), needs_root=True),
    )


def _removal_xt(decider: RuleRef) -> tuple[Command, Command] | None:
    try:
        words = iptables_arguments(decider.text)
    except ValueError:
        return None
    shown = _without_hidden(words, _XT_HIDDEN)
    if shown is None or decider.line is None:
        return None
    tool = (decider.backend.value, "-t", decider.table)
    # a rule whose comment is not shown can be named by its number alone
    named = shown if shown == words else (str(decider.line),)
    return (
        Command((*tool, "-D", decider.chain, *named), needs_root=True),
        Command((*tool, "-I", decider.chain, str(decider.line), *shown), needs_root=True),
    )


_NFT_HIDDEN = (("comment", f'"{MASK}"'), ("prefix", f'"{MASK}"'))
_XT_HIDDEN = (("-m", "comment", "--comment", MASK), ("--log-prefix", MASK), ("--nflog-prefix", MASK))
"""Words of a rule's text that say nothing of which packets it concerns, with what is not shown of them."""


def _without_hidden(words: Sequence[str], hidden: Sequence[tuple[str, ...]]) -> tuple[str, ...] | None:
    """The words without these; None where something else in them is not shown."""
    kept: list[str] = []
    at = 0
    while at < len(words):
        run = next((one for one in hidden if tuple(words[at : at + len(one)]) == one), None)
        kept += [] if run else [words[at]]
        at += len(run) if run else 1
    return None if any(MASK in word for word in kept) else tuple(kept)


_NAMED_SET = re.compile(r"\btcp dport @(\S+)")


def _port_of_set(walk: Walk, decider: RuleRef) -> Remedy | None:
    """The port taken out of the named set that the rule looks into."""
    named = _NAMED_SET.search(decider.text) if decider.backend is Backend.NFT and walk.packet != "reply" else None
    if named is None:
        return None
    where = ("element", decider.family, decider.table, named[1], "{", str(walk.port), "}")
    return Remedy(
        summary=f"Take port {walk.port} out of the set {named[1]} of table {_table(decider)}. {_keep(decider)}",
        commands=(Command(("nft", "delete", *where), needs_root=True),),
        undo=(Command(("nft", "add", *where), needs_root=True),),
        survives_reboot=False,
    )


_NAMED_SOURCES = re.compile(r"\bip6? saddr @(\S+)")
_IP_SET = re.compile(r"--match-set (\S+) src\b")


def _address_of_set(walk: Walk, decider: RuleRef) -> Iterator[Remedy]:
    """The client's address taken out of the set of sources that the rule looks into (a ban, a block list)."""
    client = "127.0.0.1" if walk.address.startswith("127.") else walk.address.partition("%")[0]
    native = decider.backend is Backend.NFT
    named = (_NAMED_SOURCES if native else _IP_SET).search(decider.text) if walk.packet == "syn" else None
    if named is None:
        return
    where: tuple[str, ...]
    if native:
        where = ("element", decider.family, decider.table, named[1], "{", client, "}")
        command, undo = Command(("nft", "delete", *where), True), Command(("nft", "add", *where), True)
        place = f"the set {named[1]} of table {_table(decider)}"
    else:
        where = (named[1], client)
        command, undo = Command(("ipset", "del", *where), True), Command(("ipset", "add", *where), True)
        place = f"the IP set {named[1]}"
    yield Remedy(
        summary=f"Take {client} out of {place}. {_keep(decider)}",
        commands=(command,),
        undo=(undo,),
        survives_reboot=False,
    )


def _only_this_port(walk: Walk, decider: RuleRef) -> bool:
    """The rule tests for this one port, so that nothing else passes without it."""
    end = "sport" if walk.packet == "reply" else "dport"
    words = decider.text.split()
    wanted = ["tcp", end, str(walk.port)] if decider.backend is Backend.NFT else [f"--{end}", str(walk.port)]
    places = [i for i in range(len(words)) if words[i : i + len(wanted)] == wanted]
    return any(i == 0 or words[i - 1] != "!" for i in places)


# ------ words


def _traffic(walk: Walk) -> str:
    end = f"{walk.address} port {walk.port}"
    return f"the answers from {end}" if walk.packet == "reply" else f"connections to {end}"


def _table(rule: RuleRef) -> str:
    return f"{rule.family} {rule.table}" if rule.backend is Backend.NFT else f"{rule.table} ({rule.backend.value})"


def _keep(rule: RuleRef, made: Maker | None = None) -> str:
    made = made or maker(rule)
    if made.owner is not Owner.PLAIN:
        return f"{brings_back(made)}. {keeps(made)}"
    if rule.backend is Backend.NFT:
        return (
            f"{_UNTIL_LOADED}: to keep it, change the file or the program that writes this "
            "table as well (often /etc/nftables.conf)."
        )
    return (
        f"{_UNTIL_LOADED}: to keep it, change what loads them as well "
        f"(the program that owns the rules, or {_SAVE[rule.backend]} into the file that is restored at boot)."
    )


_UNTIL_LOADED = "It lasts until the rules are loaded again"
_SAVE = {
    Backend.NFT: "nft list ruleset",
    Backend.IPTABLES_NFT: "iptables-nft-save",
    Backend.IP6TABLES_NFT: "ip6tables-nft-save",
    Backend.IPTABLES_LEGACY: "iptables-legacy-save",
    Backend.IP6TABLES_LEGACY: "ip6tables-legacy-save",
}
