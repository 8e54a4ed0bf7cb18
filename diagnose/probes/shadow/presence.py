"""Whether this network namespace has any rule set at all: most have none, and need not load what reads them."""

from __future__ import annotations

import errno
import os

from diagnose.probes.netlink import Netlink

NETFILTER = 12
"""NETLINK_NETFILTER, netlink(7)."""
_GET_TABLE = 10 << 8 | 1
"""NFNL_SUBSYS_NFTABLES and NFT_MSG_GETTABLE (linux/netfilter/nf_tables.h)."""
_ANY_FAMILY = bytes(4)
"""struct nfgenmsg."""


def any_table(timeout: float) -> bool:
    """Whether nf_tables or iptables-legacy has a table here; OSError with the kernel's errno (EPERM: needs root)."""
    return any_of_nf_tables(timeout) or any(legacy_tables(kind) for kind in ("ip", "ip6"))


def any_of_nf_tables(timeout: float) -> bool:
    """False as well where the kernel has no nf_tables."""
    try:
        with Netlink(NETFILTER, timeout) as client:
            return bool(client.dump(_GET_TABLE, _ANY_FAMILY))
    except OSError as error:
        if error.errno in (errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT, errno.EINVAL, errno.EOPNOTSUPP):
            return False
        raise


def legacy_tables(kind: str) -> tuple[str, ...]:
    """The tables of iptables-legacy in use; none where the kernel has no such tables. `kind`: ip or ip6.

    OSError EACCES or EPERM for an ordinary user, ENOENT where there is no /proc to look into.
    """
    folder = "/proc/thread-self/net"
    try:
        with open(f"{folder}/{kind}_tables_names", encoding="ascii", errors="backslashreplace") as file:
            return tuple(sorted(file.read().split()))
    except FileNotFoundError:
        if not os.path.isdir(folder):
            raise
        return ()
