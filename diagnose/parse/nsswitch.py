"""The files that steer the resolver: nsswitch.conf(5), resolv.conf(5), gai.conf(5)."""

from __future__ import annotations

import re
from typing import NamedTuple

from diagnose.model.hidden import MASK

_GAI = r"(?:precedence|label|scopev4|reload)(?: [0-9A-Fa-f:./]{1,49}| yes| no){0,2}"
_ACTION = re.compile(r"(!?)(\w+)=(\w+)")
STATUSES = ("success", "notfound", "unavail", "tryagain")


class Service(NamedTuple):
    """A service of the hosts line, and what follows each of its answers (nsswitch.conf(5))."""

    name: str
    actions: tuple[tuple[str, str], ...] = ()
    """Status and action, where it is not the usual one."""

    def after(self, status: str) -> str:
        """return, continue or merge."""
        return dict(self.actions).get(status, "return" if status == "success" else "continue")


def parse_services(content: bytes) -> tuple[Service, ...]:
    """The services of the last hosts line with their actions; empty: no such line.

    A # behind a service is a service without a module to glibc 2.36, and ended the line for older ones: it is kept.
    """
    rest = ""
    for line in _text(content).splitlines():
        database, colon, words = line.partition(":")
        if colon and database.strip() == "hosts":
            rest = words
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

    The last hosts line counts (nss/nss_database.c).
    """
    services: tuple[str, ...] = ()
    for line in _lines(content):
        database, colon, rest = line.partition(":")
        if colon and database.strip() == "hosts":
            services = tuple(_without_actions(rest).split())
    return services


def _without_actions(text: str) -> str:
    before, bracket, rest = text.partition("[")
    return before + _without_actions(" " + rest.partition("]")[2]) if bracket else before


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
