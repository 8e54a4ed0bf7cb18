"""The programs that the kernel runs for the sockets of a cgroup (bpf(2), cgroup version 2)."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from diagnose.model.bounds import Inode, Word
from diagnose.model.fact import NOT_NEEDED, Fact


class Hook(StrEnum):
    """Where the kernel asks the program (enum bpf_attach_type), by the names that bpftool prints."""

    INGRESS = "cgroup_inet_ingress"
    EGRESS = "cgroup_inet_egress"
    SOCK_CREATE = "cgroup_inet_sock_create"
    BIND4 = "cgroup_inet4_bind"
    BIND6 = "cgroup_inet6_bind"
    CONNECT4 = "cgroup_inet4_connect"
    CONNECT6 = "cgroup_inet6_connect"


class CgroupProgram(Struct, frozen=True, order=True):
    """A program in force for a cgroup."""

    hook: Hook
    id: Word
    name: str
    """As its maker called it, at most 15 bytes; empty: it has none."""
    attached: str | None
    """The directory that it is attached to: the cgroup's own or one above; None: above what can be seen from here."""


class Cgroup(Struct, frozen=True):
    """A cgroup and what is in force there, by its own programs and by those of the cgroups above."""

    directory: str
    programs: tuple[CgroupProgram, ...]

    def at(self, *hooks: Hook) -> tuple[CgroupProgram, ...]:
        """The programs that are asked there."""
        return tuple(one for one in self.programs if one.hook in hooks)


class ListenerCgroup(Struct, frozen=True):
    """The cgroup that a listening socket was made in: it stays so when its process moves."""

    inode: Inode
    """The socket's."""
    cgroup: Fact[Cgroup]
    own_filter: Fact[bool] = NOT_NEEDED
    """Whether the socket has a filter of its own (SO_ATTACH_FILTER, socket(7)), whose drops look the same."""


class CgroupFilters(Struct, frozen=True):
    """The cgroups of both ends of the attempts."""

    ours: Fact[Cgroup]
    """Of the process that dialled."""
    listeners: tuple[ListenerCgroup, ...] = ()
    rivals: Fact[tuple[str, ...]] = NOT_NEEDED
    """What else on this machine can answer EPERM to a connect or bind of ours."""
    theirs: Fact[Cgroup] = NOT_NEEDED
    """Of the process that --from names: its programs judge that process's connections, and not ours."""

    def listener(self, inode: int) -> ListenerCgroup | None:
        """The one of this socket."""
        return next((one for one in self.listeners if one.inode == inode), None)
