"""Whether iptables-nft really prints a rule: its text, given back to it, has to make the same rule."""

from __future__ import annotations

from diagnose.analysis.argument import is_iptables_rule
from diagnose.parse import nft
from diagnose.parse.nft import ChainKey, Rule
from diagnose.probes.shadow import netfilter
from diagnose.probes.shadow.netfilter import Writer
from diagnose.probes.shadow.tool import Run, find

_CHAIN = "netdiag-proof"
_IP6 = 10


def prints(rule: Rule, text: str, writer: Writer, until: float) -> bool:
    """Loads the text into a chain of its own, in the copy, and compares what the kernel then has (counters aside).

    The chain is gone afterwards. False as well when iptables-nft-restore is missing, refuses the table, or is not
    ready in time.
    """
    prefix = "ip6" if rule.chain.table.family == _IP6 else "ip"
    path = find(f"{prefix}tables-nft-restore", f"{prefix}tables-restore")
    if path is None or not is_iptables_rule(text):  # iptables-nft-restore would read a name in it as an option
        return False
    table = nft.readable(rule.chain.table.name)
    chain = ChainKey(rule.chain.table, _CHAIN.encode())
    given = f"*{table}\n:{_CHAIN} - [0:0]\n-A {_CHAIN} {text}\nCOMMIT\n"
    try:
        status, _, _ = Run((path, "--noflush")).wait(until, given)
        if status:
            return False
        made = netfilter.dump_rules(until, chain)
        writer.commit([nft.without(chain)])
    except OSError:
        return False
    return len(made) == 1 and _shape(made[0]) == _shape(rule)


def _shape(rule: Rule) -> list[tuple[str, bytes]]:
    return [(part.name, b"" if part.name == "counter" else part.data) for part in nft.expressions(rule)]
