"""How long this machine takes for work of which the length is known, and the deadlines that follow from it.

A deadline is there for what hangs, and not for what is slow: on a machine that is ten times slower, or as busy, the
work behind a fact takes ten times as long. What is measured is the loading of netdiag itself, by the wall clock.
"""

from __future__ import annotations

_USUAL = 0.15
"""Seconds that loading takes at most on a machine for which the deadlines were chosen; half of it is usual."""
_MOST = 20.0

_factor = 1.0


def measure(seconds: float) -> None:
    """Takes over how long loading took. Call it before the modules with deadlines are loaded."""
    global _factor
    _factor = round(min(max(seconds / _USUAL, 1.0), _MOST), 1)


def patient(seconds: float, most: float = 3600.0) -> float:
    """The deadline of this machine's own work, given that of a machine of usual speed.

    `most`: where others' answers are waited for as well, which may never come.
    """
    return round(min(seconds * _factor, most), 3)
