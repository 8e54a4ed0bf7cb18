"""Secrets out of command lines and texts: rather too much is hidden than too little."""

from __future__ import annotations

from collections.abc import Sequence

_HINTS = (
    *("pass", "secret", "token", "cred", "auth", "cookie", "sig", "pwd", "key", "bearer", "basic", "@", "-u"),
    *(
        "--user",
        "--proxy-user",
        "ghp_",
        "gho_",
        "ghs_",
        "ghu_",
        "ghr_",
        "github_pat",
        "glpat",
        "xox",
        "sk-",
        "sk_",
        "rk_",
    ),
    *("akia", "aiza", "npm_", "hf_", "eyj", "mysql", "mariadb", "mycli", "mongo", "cqlsh", "rdesktop", "rabbitmqadmin"),
    *("ldap", "sqlcmd", "bcp", "ipmitool", "plink", "pscp", "psftp", "snmp", "redis", "xfreerdp", "login"),
)
"""Without one of these in it, in any case, a text has nothing that the patterns know."""


def mask_command(argv: Sequence[str]) -> str:
    """A command line, joined by spaces, with the values of secrets replaced by ***."""
    command = " ".join(argv)
    if not _suspicious(command):
        return command
    from diagnose.parse.secret import hide_in_command  # most commands have no secret, and need not pay for it

    return hide_in_command(argv)


def mask_text(text: str) -> str:
    """A text with those secrets replaced by *** that its own wording gives away: key=value, URLs, headers, tokens."""
    if not _suspicious(text):
        return text
    from diagnose.parse.secret import hide_in_text  # as above

    return hide_in_text(text)


def _suspicious(text: str) -> bool:
    lowered = text.lower()
    return any(hint in lowered for hint in _HINTS)
