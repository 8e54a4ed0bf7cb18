"""Whether ufw decides about this machine's packets."""

from __future__ import annotations

from diagnose.model.fact import Fact, Known, Reason, Unknown
from diagnose.probes import regular_file

SWITCH = "/etc/ufw/ufw.conf"


def is_on() -> Fact[bool]:
    """Whether ufw changes the kernel's rules at all; else it writes its files only (ufw(8)). Any user may read it."""
    try:
        lines = regular_file.read(SWITCH).content.decode("utf-8", "backslashreplace").splitlines()
    except FileNotFoundError:
        return Known(False)
    except OSError as error:
        return Unknown(Reason.FAILED, f"{SWITCH}: {error.strerror}")
    return Known(any(line.strip().lower() == "enabled=yes" for line in lines))
