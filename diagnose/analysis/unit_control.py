"""Commands of systemd's own tools for one unit."""

from __future__ import annotations

from diagnose.model.finding import Command

_LINES = "20"


def systemctl(owner: int | None, uid: int, verb: str, *unit: str) -> Command:
    """As `uid` calls it for the manager of the user `owner`; None: the system's."""
    control: tuple[str, ...] = ("systemctl",)
    if owner is not None:
        control += ("--user",) if owner == uid else (f"--machine={owner}@.host", "--user")
    return Command((*control, verb, *unit), owner != uid)


def journal(owner: int | None, uid: int, unit: str) -> tuple[Command, ...]:
    """The last lines of its log; none where it is another user's."""
    if owner is None:
        return (Command(("journalctl", "-u", unit, "-n", _LINES, "--no-pager"), needs_root=True),)
    mine = Command(("journalctl", "--user", "-u", unit, "-n", _LINES, "--no-pager"))
    return (mine,) if owner == uid else ()
