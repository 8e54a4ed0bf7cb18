"""netdiag: why an address does not answer, proven, with the command that mends it."""

__version__ = "0.1.0"
