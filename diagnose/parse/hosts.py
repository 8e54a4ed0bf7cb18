"""/etc/hosts as glibc reads it (hosts(5), nss/nss_files/files-hosts.c)."""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import ip_address

from msgspec.structs import replace

from diagnose.model.hidden import MASK
from diagnose.model.names import HostsEntry, HostsFile

_ADDRESS = (
    "\\ufeff?(?:[0-9]{1,4}[.,:]{1,2}){1,7}[0-9]{0,4}"
    "|\\ufeff?[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7}(?:%[a-z0-9]{1,15})?"
)
"""What is meant for an address, misspelt perhaps."""
UTF8_BOM = b"\xef\xbb\xbf"


def starts_with_bom(content: bytes) -> bool:
    """Whether an editor left a UTF-8 byte order mark, which glibc reads as part of the first line's address."""
    return content.startswith(UTF8_BOM)


def parse_hosts(content: bytes) -> tuple[HostsEntry, ...]:
    """Every line that maps names, that would map them without its '#', or that glibc skips for a bad address."""
    lines = enumerate(content.split(b"\n"), start=1)
    return tuple(entry for number, line in lines if (entry := _entry(number, line)))


def about(hosts: HostsFile, host: str) -> HostsFile:
    """The file with *** in the place of words that glibc takes for no address or name, and that are not this host's.

    Behind a # and in a line without an address may stand anything.
    """
    wanted = host.lower()
    return replace(hosts, entries=tuple(_about(entry, wanted) for entry in hosts.entries))


def _about(entry: HostsEntry, host: str) -> HostsEntry:
    if entry.valid and not entry.commented:
        return entry
    if not entry.commented and _is_address(entry.address.lstrip("\ufeff")):
        return entry  # a byte order mark before it is taken out, and the line stays as it is

    def shown(word: str) -> str:
        return word if word.lower() == host or re.fullmatch(_ADDRESS, word) else MASK

    address, *names = map(shown, (entry.address, *entry.names))
    text = re.sub(r"[^\s#]+", lambda word: shown(word[0]), entry.text)
    return replace(entry, address=address, names=tuple(names), text=text)


def _entry(number: int, line: bytes) -> HostsEntry | None:
    active = line.partition(b"#")[0]
    # bytes.split knows the white space of C's isspace, '\r' included: that is why CRLF endings do no harm
    words = [_text(word) for word in active.split()]
    if len(words) >= 2:
        return HostsEntry(number, words[0], tuple(words[1:]), valid=_is_address(words[0]), text=_text(active.strip()))
    if words:
        return None
    marks = line[: len(line) - len(line.lstrip(b"# \t"))]
    mapping = line[len(marks) :].partition(b"#")[0]
    words = [_text(word) for word in mapping.split()]
    if len(words) >= 2 and _is_address(words[0]):
        text = _text((marks + mapping).strip())
        return HostsEntry(number, words[0], tuple(words[1:]), commented=True, text=text)
    return None


def _text(word: bytes) -> str:
    return word.decode("utf-8", "backslashreplace")


@lru_cache(maxsize=1024)
def _is_address(word: str) -> bool:
    """Files that block advertisements have one address in every line."""
    try:
        ip_address(word)
    except ValueError:
        return False
    return True
