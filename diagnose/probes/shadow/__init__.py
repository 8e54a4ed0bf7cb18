"""The shadow: the machine's own rule sets, copied into a namespace of ours, and the kernel asked what they do.

Nothing here evaluates a rule. The rule sets are read as the kernel keeps them (nf_tables through netlink, the tables of
iptables-legacy through their socket options), written into a network namespace that belongs to one thread, listed
again and compared. There the same connect is made, and the kernel's own trace and counters say which rule met it.
"""

from __future__ import annotations

from diagnose.probes.shadow.looking import look

__all__ = ["look"]
