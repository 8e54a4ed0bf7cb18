"""Remedies for the side that --from named, as they run on the machine itself."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from diagnose.model.finding import Command, Remedy
from diagnose.model.snapshot import Vantage

NETDIAG_RUN = ("netdiag", "run")
_OF_A_NAMESPACE = frozenset({"conntrack", "ip", "ipset", "nft", "ss", "sysctl", "tc"})
"""Programs that act on the network namespace that they run in; the families of iptables do as well."""
_XTABLES = ("iptables", "ip6tables", "xtables", "ebtables", "arptables")
_OF_THE_MACHINE = frozenset({"ufw", "firewall-cmd", "fail2ban-client"})
"""Programs that keep the rules of the machine's own network namespace, from files or a service of the machine."""


def there(remedies: Iterable[Remedy], vantage: Vantage, *, of_the_machine: bool = False) -> tuple[Remedy, ...]:
    """The remedies with commands that reach that side; those that would change the machine's own rules are left out.

    `of_the_machine`: the machine's own are what has to be changed, and only netdiag has to look from that side again.
    """
    if vantage.side is None:
        return tuple(remedies)
    if of_the_machine:
        here = replace(vantage, side=replace(vantage.side, namespace=None))
        return tuple(_one(remedy, here) for remedy in remedies)
    return tuple(_one(remedy, vantage) for remedy in remedies if not _misses(remedy, vantage))


def _misses(remedy: Remedy, vantage: Vantage) -> bool:
    other = vantage.side is not None and vantage.side.namespace is not None
    return other and any(command.argv[0] in _OF_THE_MACHINE for command in remedy.commands)


def _one(remedy: Remedy, vantage: Vantage) -> Remedy:
    return replace(
        remedy,
        commands=tuple(command_there(command, vantage) for command in remedy.commands),
        undo=tuple(command_there(command, vantage) for command in remedy.undo),
    )


def command_there(command: Command, vantage: Vantage) -> Command:
    """By nsenter(1) where the program acts on its namespace, by --from where it is netdiag, else as it is."""
    side = vantage.side
    if side is None:
        return command
    if command.argv[:2] == NETDIAG_RUN:
        return Command((*NETDIAG_RUN, "--from", str(vantage.origin), *command.argv[2:]), needs_root=True)
    program = command.argv[0]
    if side.namespace is not None and (program in _OF_A_NAMESPACE or program.startswith(_XTABLES)):
        return Command(("nsenter", f"--net={side.namespace}", *command.argv), needs_root=True)
    return command
