"""The faults, in the order in which they are made and shown."""

from __future__ import annotations

from tests.vm.fault import Fault
from tests.vm.faults import firewall

FAULTS: tuple[Fault, ...] = (*firewall.FAULTS,)
