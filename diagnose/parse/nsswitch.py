"""The files that steer the resolver: nsswitch.conf(5), resolv.conf(5), gai.conf(5)."""

from __future__ import annotations

import re
from typing import NamedTuple

from diagnose.model.hidden import MASK

_GAI = r"(?:precedence|label|scopev4|reload)(?: [0-9A-Fa-f:./]{1,49}| yes| no){0,2}"
_ACTION = re.compile(r"(!?)(\w+)=(\w+)")
_WORD = re.compile(r"\[[^\]]*\]?|[^\s\[]+")
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,24}:?|:")
"""A service: the name of a module, libnss_NAME.so.2."""
_KNOWN = re.compile(
    r"files|dns|resolve|myhostname|mymachines|mdns[46]?(?:_minimal)?|nis(?:plus)?|wins|compat|db|sss|ldap"
)
"""Services that may be meant behind a #, where anything may stand."""
_ACTIONS = re.compile(r"\[(?:\s*!?[A-Za-z]{4,8}\s*=\s*[A-Za-z]{5,8})*\s*\]")
STATUSES = ("success", "notfound", "unavail", "tryagain")


class Service(NamedTuple):
    """A service of the hosts line, and what follows each of its answers (nsswitch.conf(5))."""

    name: str
    actions: tuple[tuple[str, str], ...] = ()
    """Status and action, where it is not the usual one."""

    def after(self, status: str) -> str:
        """return, continue or merge."""
        return dict(self.actions).get(status, "return" if status == "success" else "continue")


def hosts_line(content: bytes) -> str | None:
    """The hosts line that counts, as it stands: the last one (nss/nss_database.c); None: there is none."""
    found = None
    for line in _text(content).split("\n"):
        database, colon, _ = line.partition(":")
        if colon and database.strip() == "hosts":
            found = line.strip()
    return found


def quoted_hosts_line(content: bytes) -> str | None:
    """The hosts line for a reader: services and actions as they stand, *** for every other word.

    Newer versions of glibc read on behind a #, so a service stays there as well.
    """
    line = hosts_line(content)
    if line is None:
        return None
    services, mark, comment = line.partition("#")
    return _quoted(services, _NAME) + mark + _quoted(comment, _KNOWN)


def _quoted(text: str, harmless: re.Pattern[str]) -> str:
    shown = _WORD.sub(
        lambda word: word[0] if harmless.fullmatch(word[0]) or _ACTIONS.fullmatch(word[0]) else MASK, text
    )
    return re.sub(rf"{re.escape(MASK)}(?:\s+{re.escape(MASK)})+", MASK, shown)


def parse_services(content: bytes) -> tuple[Service, ...]:
    """The services of the last hosts line with their actions; empty: no such line.

    A # behind a service is a service without a module to glibc 2.36, and ended the line for older ones: it is kept.
    """
    rest = (hosts_line(content) or "").partition(":")[2]
    services: list[Service] = []
    for word, actions in re.findall(r"([^\s\[\]]+)|\[([^\]]*)\]", rest):
        if word:
            services.append(Service(word))
        elif services:
            services[-1] = Service(services[-1].name, (*services[-1].actions, *_actions(actions)))
    return tuple(services)


def _actions(text: str) -> list[tuple[str, str]]:
    """`!UNAVAIL=return` is meant for every status but that one."""
    found = []
    for negated, status, action in _ACTION.findall(text.lower()):
        found += [(one, action) for one in STATUSES if (one == status) != bool(negated)]
    return found


def parse_nsswitch_hosts(content: bytes) -> tuple[str, ...]:
    """The services of the hosts line in order, without the [NOTFOUND=return] actions; empty: no such line.

    What follows a # is left out, as before glibc 2.34; later ones read on, and take each word for a service.
    """
    rest = (hosts_line(content) or "").partition(":")[2]
    return tuple(_without_actions(rest.partition("#")[0]).split())


def _without_actions(text: str) -> str:
    before, bracket, rest = text.partition("[")
    return before + _without_actions(" " + rest.partition("]")[2]) if bracket else before


def reads_files(line: str) -> bool:
    """Whether a hosts line has the service files, behind a # as well: glibc reads on there since 2.34."""
    return "files" in _without_actions(line.partition(":")[2]).split()


def parse_nameservers(content: bytes) -> tuple[str, ...]:
    """The nameserver lines of resolv.conf in order; the keyword must start the line, and glibc asks the first three."""
    words = (line.split() for line in _text(content).splitlines() if line.startswith("nameserver"))
    return tuple(_address(each[1]) for each in words if len(each) >= 2 and each[0] == "nameserver")


def _address(word: str) -> str:
    """The word, unless it cannot be an address: then it may be anything."""
    return word if re.fullmatch(r"[0-9A-Fa-f:.]{2,45}(?:%[\w.-]{1,15})?", word) else MASK


def parse_gai(content: bytes) -> tuple[str, ...]:
    """The active lines of gai.conf, each with its white space folded; what is none to glibc is hidden."""
    lines = (" ".join(line.split()) for line in _lines(content))
    return tuple(line if re.fullmatch(_GAI, line) else MASK for line in lines)


def _lines(content: bytes) -> list[str]:
    cut = (line.partition("#")[0].strip() for line in _text(content).splitlines())
    return [line for line in cut if line]


def _text(content: bytes) -> str:
    return content.decode("utf-8", "backslashreplace")
