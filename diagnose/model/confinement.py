"""What bounds this process beyond its user: capabilities, seccomp, an AppArmor profile, a systemd unit."""

from __future__ import annotations

from msgspec import Struct

from diagnose.model.bounds import Handle, Uid

CAPABILITIES = {
    2: "CAP_DAC_READ_SEARCH",
    12: "CAP_NET_ADMIN",
    13: "CAP_NET_RAW",
    19: "CAP_SYS_PTRACE",
    21: "CAP_SYS_ADMIN",
}
"""The capabilities that looking needs, by their bits (linux/capability.h)."""


class Confinement(Struct, frozen=True):
    """The bounds of the process that made the attempts (proc_pid_status(5), proc_pid_attr(5))."""

    effective: Handle
    """Its capabilities, one bit each."""
    bounding: Handle
    """Those that it or a program that it starts can ever have."""
    seccomp: bool
    """Whether a seccomp filter judges its system calls."""
    profile: str | None = None
    """Its AppArmor profile with the mode, as in "web (enforce)"; None: it has none."""
    unit: str | None = None
    """The systemd unit that it runs in."""
    unit_owner: Uid | None = None
    """Uid of the user whose own service manager runs the unit; None: the system's."""
    own_users: bool = False
    """Whether it is in a user namespace of its own, where root is root of that namespace only."""

    def lacks(self) -> tuple[str, ...]:
        """The names of the capabilities that looking needs and this process has not."""
        return tuple(name for bit, name in CAPABILITIES.items() if not self.effective >> bit & 1)

    @property
    def enforced_profile(self) -> str | None:
        """The name of an AppArmor profile that forbids, and does not only complain."""
        name, _, mode = (self.profile or "").rpartition(" (")
        return name if mode == "enforce)" else None
