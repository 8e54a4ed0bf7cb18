"""The checks, in the order in which they are shown; the order is no precedence."""

from __future__ import annotations

from checks import container, exposure, firewall, hung, in_use, loopback, refused, resolution, sandbox
from diagnose.model.check import Check
from diagnose.model.finding import Cause

CHECKS: tuple[Check, ...] = (
    in_use.CHECK,
    refused.CHECK,
    firewall.CHECK,
    resolution.CHECK,
    container.CHECK,
    loopback.CHECK,
    hung.CHECK,
    sandbox.CHECK,
    exposure.CHECK,
)

CAUSES: tuple[Cause, ...] = tuple(cause for check in CHECKS for cause in check.causes)
