"""The faults, in the order in which they are made and shown."""

from __future__ import annotations

from tests.vm.fault import Fault
from tests.vm.faults import containers, firewall, names, owners, servers, systemd, units

FAULTS: tuple[Fault, ...] = (
    *firewall.FAULTS,
    *owners.FAULTS,
    *servers.FAULTS,
    *names.FAULTS,
    *units.FAULTS,
    *systemd.FAULTS,
    *containers.FAULTS,
)
