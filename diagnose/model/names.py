"""Names: what the resolver said, and the files that it read."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from diagnose.model.bounds import Address, Few, Line, Milliseconds, Mode, Uid
from diagnose.model.network import Family

Kind = Literal["a FIFO", "a directory", "a device", "a socket"]
"""What stands in the place of a regular file."""


class ResolvedAddress(Struct, frozen=True):
    """One address, in the order that getaddrinfo gave."""

    address: Address
    family: Family


class Resolution(Struct, frozen=True):
    """getaddrinfo(host, port, AF_UNSPEC, SOCK_STREAM, flags 0) as this user."""

    host: str
    addresses: Few[ResolvedAddress]
    ms: Milliseconds
    error: str | None = None
    """EAI_NONAME, EAI_AGAIN ...; "DEADLINE" when the resolver was killed."""
    literal: bool = False
    """The host is an address as inet_pton reads it: nobody was asked."""
    odd_literal: bool = False
    """An address only by the lax rules of inet_aton (127.1, 0177.0.0.1, 2130706433)."""
    source: Literal["getaddrinfo", "literal", "hosts file", "files and DNS"] = "getaddrinfo"
    """files and DNS: those of the side that --from names, read by us."""
    waits_at_fifo: bool = False
    """When the resolver was stopped, the kernel had it wait in the open or read of a FIFO (proc_pid_wchan(5))."""
    doubts: Few[str] = ()
    """Name services that might have answered otherwise before, and are not run from outside."""


class HostsEntry(Struct, frozen=True):
    """A line of /etc/hosts that maps names."""

    line: Line
    """1-based."""
    address: str
    names: tuple[str, ...]
    commented: bool = False
    """The line is commented out, but would map names."""
    valid: bool = True
    """False: what stands where the address belongs is none, so glibc skips the line."""
    text: str = ""
    """As it stands in the file, without what a comment adds behind it; empty in older recordings."""

    @property
    def quoted(self) -> str:
        """The line for a reader."""
        return self.text or f"{'# ' if self.commented else ''}{self.address} {' '.join(self.names)}"


class HostsFile(Struct, frozen=True):
    """/etc/hosts as bytes and mode, and what they mean to glibc."""

    path: str
    mode: Mode
    """Permission bits."""
    owner: Uid
    readable: bool
    """By the user who asks."""
    bom: bool
    """Starts with a UTF-8 byte order mark, which glibc reads as part of the first line's address."""
    entries: tuple[HostsEntry, ...]
    exists: bool = True
    """False: there is no such file, and nothing else here means anything."""
    kind: Kind | None = None
    """What it is instead of a regular file: it was not opened then, and nothing else here means anything."""
    mounted: bool = False
    """It is a mount of its own, which can be unmounted and not moved."""
    inside: str | None = None
    """Whose it is, where it is not this machine's own: container web."""

    @property
    def shown(self) -> str:
        """The path, and whose it is."""
        return f"{self.path} of {self.inside}" if self.inside else self.path

    def mapping(self, name: str) -> tuple[HostsEntry, ...]:
        """The active lines that map this name."""
        active = (e for e in self.entries if e.valid and not e.commented)
        return tuple(e for e in active if name.lower() in (n.lower() for n in e.names))


class ResolverConfig(Struct, frozen=True):
    """nsswitch.conf's hosts line, resolv.conf's servers, gai.conf's lines."""

    nsswitch_hosts: tuple[str, ...]
    """The services in order; empty: the file has no hosts line."""
    nameservers: tuple[str, ...]
    gai_lines: tuple[str, ...]
    """Active lines of /etc/gai.conf."""
    hosts_line: str | None = None
    """The hosts line that counts, as it stands in nsswitch.conf; None: there is none, or the recording is older."""
