"""Which programs could change the rules that they made: installed here, at work, and on the same backend."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from diagnose.analysis.owner_remedies import FAIL2BAN_CLIENT, FIREWALL_CMD, UFW
from diagnose.analysis.rule_owner import Owner, maker_on
from diagnose.model.fact import Known
from diagnose.model.firewall import Backend, Walk
from diagnose.probes import ufw
from diagnose.probes.shadow.tool import find

_LEGACY = (Backend.IPTABLES_LEGACY, Backend.IP6TABLES_LEGACY)


def at_work(walks: Iterable[Walk]) -> tuple[str, ...]:
    """The owners' commands for the deciders of these walks that would do their work now."""
    asked = {(maker_on(walk).owner, walk.decider.backend in _LEGACY) for walk in walks if walk.decider is not None}
    return tuple(sorted({name for owner, legacy in asked for name in _working(owner, legacy)}))


def _working(owner: Owner, legacy: bool) -> Iterator[str]:
    match owner:
        case Owner.UFW if find(UFW) and ufw.is_on() == Known(True) and _plain_iptables_is_legacy() is legacy:
            yield UFW
        case Owner.FIREWALLD if find(FIREWALL_CMD) and _runs("firewalld"):
            yield FIREWALL_CMD
        case Owner.FAIL2BAN if find(FAIL2BAN_CLIENT) and _runs("fail2ban-server"):
            yield FAIL2BAN_CLIENT
        case _:
            return


def _plain_iptables_is_legacy() -> bool | None:
    """Which backend the command `iptables` changes, which ufw calls; None: there is none."""
    path = find("iptables")
    return None if path is None else "nft" not in os.path.basename(os.path.realpath(path))


def _runs(program: str) -> bool:
    """Whether a process of this name is there."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/comm", encoding="utf-8", errors="backslashreplace") as file:
                if file.read().rstrip("\n") == program:
                    return True
        except OSError:  # it has ended meanwhile
            continue
    return False
