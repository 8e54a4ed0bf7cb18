"""What of an input may be shown: a password never leaves this module."""

from __future__ import annotations

from diagnose.parse.target import MASK, FlawError, read_target
from diagnose.runbook.path import Value


def value(raw: str) -> Value:
    """The value as it is, and as it may be shown: a URL or DSN without its user, password and query values."""
    if "://" not in raw and "@" not in raw:
        return Value(raw, raw)
    try:
        return Value(raw, read_target(raw).input)
    except FlawError:
        return Value(raw, MASK)  # what is no target may hold a password anywhere
