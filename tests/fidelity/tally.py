"""What the rule sets of one run came to, counted."""

from __future__ import annotations

from collections import Counter

TALLY: Counter[str] = Counter()


def line() -> str:
    """The whole run in one line: lower confidence is allowed, and its rate for root is told."""
    stopped, proven = TALLY["stopped for uid 0"], TALLY["root causes proven to root"]
    rate = f"{100 * (stopped - proven) / stopped:.1f} % less than proven" if stopped else "none of them stopped"
    return f"fidelity: {', '.join(f'{number} {what}' for what, number in sorted(TALLY.items()))}; as root {rate}"
