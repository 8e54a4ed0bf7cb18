"""/etc/hosts as glibc reads it (hosts(5), nss/nss_files/files-hosts.c)."""

from __future__ import annotations

from ipaddress import ip_address

from diagnose.model.names import HostsEntry

UTF8_BOM = b"\xef\xbb\xbf"


def starts_with_bom(content: bytes) -> bool:
    """Whether an editor left a UTF-8 byte order mark, which glibc reads as part of the first line's address."""
    return content.startswith(UTF8_BOM)


def parse_hosts(content: bytes) -> tuple[HostsEntry, ...]:
    """Every line that maps names, that would map them without its '#', or that glibc skips for a bad address."""
    lines = enumerate(content.split(b"\n"), start=1)
    return tuple(entry for number, line in lines if (entry := _entry(number, line)))


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


def _is_address(word: str) -> bool:
    try:
        ip_address(word)
    except ValueError:
        return False
    return True
