"""Names that the kernel, an engine or a file system takes, and that a tool would read as more than a name."""

from __future__ import annotations

MARK = "Zq7"
"""In each of them, so that a test finds it wherever it has got to."""
NAMES = (
    f"{MARK} accept; flush ruleset; #",
    f'{MARK} include "/etc/shadow"',
    f'{MARK}"; include "/etc/shadow"; #',
    f"{MARK}\nflush ruleset\n",
    f"{MARK}\r",
    f"{MARK}\\\nx",
    f"{MARK}\\",
    f"{MARK} b",
    f" {MARK}",
    f"{MARK}\t",
    f"-{MARK}",
    f"--{MARK}",
    f"-M/tmp/{MARK}",
    f"--modprobe=/tmp/{MARK}",
    f"{MARK} -M /tmp/x",
    f"{MARK} -j ACCEPT",
    f"!{MARK}",
    f"${MARK}",
    f"@{MARK}",
    f"#{MARK}",
    f"{MARK};x",
    f"{MARK}{{x}}",
    f"{MARK}'$(touch /tmp/x)'",
    f"`touch {MARK}`",
    f"{MARK}|x",
    f"{MARK}&&x",
    f"{MARK}*",
    f"{MARK}?[a-z]",
    f"{MARK}\x1b[2J",
    f"{MARK}\u202e",
    f"{MARK}\u2028x",
    f"{MARK}é",
    f"{MARK}=x",
    f"{MARK},x",
    f"{MARK}<b>",
    f"~{MARK}",
)
