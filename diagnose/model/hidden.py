"""What stands in the place of text that is not shown."""

from __future__ import annotations

MASK = "***"
