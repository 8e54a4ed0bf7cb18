"""What a secret looks like in a command line or a text: 5 ms of patterns, behind `diagnose.parse.mask`."""

from __future__ import annotations

import re
from collections.abc import Sequence

MASK = "***"

_WORDS = (
    r"(?:passw|pass[-_]?phrase|secret|token(?!iz)|credential|authorization|cookie|signature|pwd"
    r"|(?:api|access|private|account|auth|encryption|signing|master|shared|client|secret)[-_.]?key"
)
"""What the name of a secret contains; names are cut off on both sides by whoever uses it."""
_NAME = re.compile(_WORDS + r"|(?:pass|auth|sig)$)", re.IGNORECASE)
_PLACE = re.compile(r"(?:^-*no-)|(?:file|path|dir)\W*$", re.IGNORECASE)
"""The name of a place, or of an option switched off: no secret itself."""
_ASSIGNED = re.compile(
    _WORDS + r"""|(?:pass|auth|sig)(?=["']?\s{0,4}[=:]))[\w.-]{0,40}["']?\s{0,4}[=:]\s{0,4}"""
    r"""(?!//)(?:(?:bearer|basic|digest|token)\s+)?("[^"]*"|'[^']*'|[^\s&;]+)""",
    re.IGNORECASE,
)
_QUERY_KEY = re.compile(r"(?<=[?&]key=)[^\s&;]+", re.IGNORECASE)
_BEARER = re.compile(r"\b(?:bearer|basic)\s+([\w.~+/=-]{8,})", re.IGNORECASE)
_URL_USER = re.compile(r"://([^\s\"'<>]{0,2000})@")
_DSN_USER = re.compile(r"(?<![\w/])[\w.-]{1,64}:([^\s:/@\"']{1,128})@(?!sha\d)")
_KNOWN_SHAPE = re.compile(
    r"\b(?:gh[oprsu]_\w{20,}|github_pat_\w{20,}|glpat-[\w-]{15,}|xox[abeprs]-[\w-]{10,}|sk-[\w-]{16,}|[sr]k_(?:live|test)_\w{10,}"
    r"|AKIA[A-Z0-9]{16}|AIza[\w-]{30,}|npm_\w{30,}|hf_\w{20,}|eyJ[\w-]{5,}\.eyJ[\w-]{5,}\.[\w-]+)"
)
_PORT = re.compile(r"\d{1,5}(?:[/?#]|$)")
_WORD = re.compile(r"""(?:"[^"]*"|'[^']*'|[^\s"'])+|["']""")

_USER_FLAGS = ("-u", "-U", "--user", "--proxy-user")
"""curl, wget, smbclient, lftp: user and password in one value."""
_USER_VALUE = re.compile(r"[^:%,]+[:%,](?=.)")
_ATTACHED = 1
_SEPARATE = 2
_PROGRAMS: dict[str, tuple[str, int]] = {
    **dict.fromkeys(
        (
            "mysql",
            "mysqldump",
            "mysqladmin",
            "mysqlimport",
            "mysqlcheck",
            "mysqlshow",
            "mariadb",
            "mariadb-dump",
            "mycli",
        ),
        ("-p", _ATTACHED),
    ),
    **dict.fromkeys(("mongo", "mongosh", "mongodump", "mongorestore", "mongoexport", "mongoimport"), ("-p", 3)),
    **dict.fromkeys(("sshpass", "cqlsh", "rdesktop", "rabbitmqadmin"), ("-p", 3)),
    **dict.fromkeys(("ldapsearch", "ldapadd", "ldapmodify", "ldapdelete", "ldapwhoami"), ("-w", 3)),
    **dict.fromkeys(("sqlcmd", "bcp", "ipmitool"), ("-P", 3)),
    **dict.fromkeys(("plink", "pscp", "psftp"), ("-pw", _SEPARATE)),
    **dict.fromkeys(("snmpget", "snmpwalk", "snmpset"), ("-A", 3)),
    "redis-cli": ("-a", 3),
    "xfreerdp": ("/p:", _ATTACHED),
    "login": ("-p", 3),
}
"""Short options that carry a password, by program (`docker login` as well): attached (-pX), apart (-p X), or both."""


def hide_in_command(argv: Sequence[str]) -> str:
    """A command line, joined by spaces, with the values of secrets replaced."""
    return " ".join(_arguments(argv))


def _arguments(argv: Sequence[str]) -> list[str]:
    """The arguments with the values of secrets replaced."""
    shown: list[str] = []
    flag, ways = "", 0
    previous = ""
    for argument in argv:
        if (previous == flag and ways & _SEPARATE) or (_names_secret(previous) and not argument.startswith("--")):
            shown.append(MASK)
            previous = ""
            continue
        if previous in _USER_FLAGS:
            shown.append(_mask_user(argument))
        elif flag and ways & _ATTACHED and argument.startswith(flag) and argument != flag:
            shown.append(flag + MASK)
        else:
            shown.append(_mask_argument(argument))
        flag, ways = _PROGRAMS.get(argument.rpartition("/")[2], (flag, ways))
        previous = argument
    return shown


def hide_in_text(text: str) -> str:
    """A text with the secrets replaced that its own wording gives away: key=value, URLs, headers, known tokens."""
    masked = _URL_USER.sub(_mask_url_user, text)
    masked = _ASSIGNED.sub(_mask_value, masked)
    masked = _BEARER.sub(_mask_group, masked)
    masked = _DSN_USER.sub(_mask_group, masked)
    masked = _QUERY_KEY.sub(MASK, masked)
    return _KNOWN_SHAPE.sub(MASK, masked)


def _mask_argument(argument: str) -> str:
    """One argument: an assignment, a command for a shell, or any text."""
    name, equals, value = argument.partition("=")
    if equals and value and not any(space in name for space in " \t\n?&"):
        if name in _USER_FLAGS:
            return f"{name}={_mask_user(value)}"
        if _NAME.search(name) and not _PLACE.search(name):
            return f"{name}={MASK}"
    if any(space in argument.strip() for space in " \t\n"):
        return _mask_shell(argument)
    for flag in _USER_FLAGS[:2]:
        if argument.startswith(flag) and ":" in argument:
            return flag + _mask_user(argument.removeprefix(flag))
    return hide_in_text(argument)


def _mask_shell(text: str) -> str:
    """A command for a shell, or the title that a process gave itself: its words are arguments too."""
    masked = hide_in_text(text)
    words = list(_WORD.finditer(masked))
    if len(words) < 2:
        quoted = masked[:1] in ("'", '"') and masked[-1:] == masked[:1] and len(masked) > 2
        return masked[0] + _mask_shell(masked[1:-1]) + masked[-1] if quoted else masked
    shown, end = [], 0
    for word, argument in zip(words, _arguments([one[0] for one in words]), strict=True):
        shown += [masked[end : word.start()], argument]
        end = word.end()
    return "".join(shown) + masked[end:]


def _names_secret(argument: str) -> bool:
    """Whether an option or a heading without a value says that the next argument is a secret."""
    return (
        (argument.startswith("-") or argument.endswith((":", "=")))
        and "=" not in argument[:-1]
        and bool(_NAME.search(argument.rstrip(":=")))
        and not _PLACE.search(argument)
    )


def _mask_user(value: str) -> str:
    """user:password with the password replaced; 1000:1000 is a user and a group."""
    if value.replace(":", "").isdecimal():
        return value
    user = _USER_VALUE.match(value)
    return user[0] + MASK if user else hide_in_text(value)


def _mask_url_user(match: re.Match[str]) -> str:
    """The part before the @ of a URL: a password behind a colon, or a long token alone."""
    user, colon, password = match[1].partition(":")
    if "/" in user or (colon and "/" in password and _PORT.match(password)):
        return match[0]
    if colon:
        return f"://{user}:{MASK}@"
    return f"://{MASK}@" if len(user) > 15 else match[0]


def _mask_value(match: re.Match[str]) -> str:
    """An assignment with its value replaced, unless the name is that of a place."""
    name = match[0][: match.start(1) - match.start()]
    return match[0] if _PLACE.search(name.partition("=")[0]) else name + MASK


def _mask_group(match: re.Match[str]) -> str:
    """The match with its group replaced."""
    start, end = match.start(1) - match.start(), match.end(1) - match.start()
    return match[0][:start] + MASK + match[0][end:]
