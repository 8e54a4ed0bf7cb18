"""Rule sets as large as some machines really have them: thousands of rules and a long block list, for others' packets.

The last rule drops what goes to the port.
"""

from __future__ import annotations

from collections.abc import Iterator

RULES = 10_000
ADDRESSES = 50_000
_PORTS = 7_000
"""The other ports that rules are about: none of them a scenario's own."""


def nft_table(port: int, rules: int = RULES, addresses: int = ADDRESSES, *, intervals: bool = False) -> str:
    """A table of nft with a named set of addresses, or of ranges."""
    kind = "type ipv4_addr; flags interval;" if intervals else "type ipv4_addr;"
    held = (f"{one}-{_address(10, 4 * number + 1)}" if intervals else one for number, one in _blocked(addresses))
    lines = [
        "table inet filter {",
        f"set blocked {{ {kind} elements = {{ {', '.join(held)} }} ; }}",
        "chain input {",
        "type filter hook input priority 0; policy accept;",
        "ip saddr @blocked drop",
        *(f"ip saddr {source} tcp dport {other} drop" for source, other in _others(rules)),
        f"tcp dport {port} drop",
        "}",
        "}",
    ]
    return "\n".join(lines) + "\n"


def iptables_table(port: int, rules: int = RULES) -> str:
    """The filter table for iptables-restore of either backend."""
    lines = [
        "*filter",
        ":INPUT ACCEPT [0:0]",
        ":FORWARD ACCEPT [0:0]",
        ":OUTPUT ACCEPT [0:0]",
        *(f"-A INPUT -s {source}/32 -p tcp -m tcp --dport {other} -j DROP" for source, other in _others(rules)),
        f"-A INPUT -p tcp -m tcp --dport {port} -j DROP",
        "COMMIT",
    ]
    return "\n".join(lines) + "\n"


def _address(first: int, number: int) -> str:
    return f"{first}.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"


def _blocked(count: int) -> Iterator[tuple[int, str]]:
    return ((number, _address(10, 4 * number)) for number in range(count))


def _others(count: int) -> Iterator[tuple[str, int]]:
    return ((_address(172, number), 1 + number % _PORTS) for number in range(count))
