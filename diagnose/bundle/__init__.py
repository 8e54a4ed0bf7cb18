"""Bundles: one file with a recording, its reports and what is in it, that a person can agree to send.

`load` reads a bundle or a recording; what writes one is imported where it is asked for.
"""

from diagnose.bundle.loading import load

__all__ = ["load"]
