"""Everything that was learnt about one target: the only input of a diagnosis."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct, field
from msgspec.structs import replace

from diagnose.model.attempt import Attempt, BindAttempt
from diagnose.model.bounds import Few, Handle, Milliseconds, Some, Uid
from diagnose.model.cgroup import CgroupFilters
from diagnose.model.compose import ComposeProject
from diagnose.model.confinement import Confinement
from diagnose.model.container import Containers
from diagnose.model.elsewhere import Elsewhere
from diagnose.model.fact import NOT_NEEDED, Fact, Unknown
from diagnose.model.firewall import Shadow
from diagnose.model.freezer import FrozenCgroup
from diagnose.model.later import Later
from diagnose.model.names import HostsFile, Resolution, ResolverConfig
from diagnose.model.network import Links, PortPolicy, Routing, SocketRow
from diagnose.model.process import Container, Holders
from diagnose.model.side import Side
from diagnose.model.target import Intent, Scope, Target
from diagnose.model.unit import Units

SCHEMA: Literal["netdiag.snapshot/1"] = "netdiag.snapshot/1"


class Vantage(Struct, frozen=True):
    """From where and as whom it was looked at."""

    hostname: str
    platform: str
    """sys.platform: linux, darwin, win32."""
    kernel: str
    user: str
    uid: Uid
    privileged: bool
    """Effective uid 0 with CAP_NET_ADMIN (Linux), administrator elsewhere."""
    network_namespace: Handle | None
    container: Container | None
    origin: str | None = field(default=None, name="from")
    """What the user gave after --from."""
    sudo_user: str | None = None
    """The user who ran netdiag as root through sudo, doas or pkexec; None: nobody did, or root."""
    side: Side | None = None
    """What that is; None without --from."""
    sudo_uid: Uid | None = None
    """That user's uid; None where it is not known, as in older recordings."""

    @property
    def is_root(self) -> bool:
        """Whether a command typed next to this netdiag has root's rights: not for those who ran it through sudo."""
        return self.uid == 0 and self.sudo_user is None

    @property
    def reader_uid(self) -> int:
        """The uid of the shell that the remedies are typed into; -1 where it is not known."""
        if self.sudo_user is None:
            return self.uid
        return -1 if self.sudo_uid is None else self.sudo_uid


class Program(Struct, frozen=True):
    """What to type for netdiag on the machine diagnosed: its name where PATH finds it, else its path."""

    user: str = "netdiag"
    root: str = "netdiag"
    """Under sudo, which has a PATH of its own (secure_path, sudoers(5))."""


class Snapshot(Struct, frozen=True, kw_only=True):
    """Facts only; every opinion is made from it, here or on another machine."""

    schema: Literal["netdiag.snapshot/1"] = SCHEMA
    netdiag: str
    started_at: str
    duration_ms: Milliseconds
    target: Target
    intent: Intent
    scope: Scope
    vantage: Vantage
    program: Program = Program()
    names: Fact[Resolution] = NOT_NEEDED
    attempts: Few[Attempt] = ()
    binds: Few[BindAttempt] = ()
    links: Fact[Links] = NOT_NEEDED
    sockets: Fact[tuple[SocketRow, ...]] = NOT_NEEDED
    """Every TCP socket whose local port is the target's, in any state that has a row."""
    listeners: Fact[Some[SocketRow]] = NOT_NEEDED
    """The listening TCP sockets of this namespace on the target's port and on those close to it."""
    bound: Fact[Some[SocketRow]] = NOT_NEEDED
    """Sockets bound to the port and neither listening nor connected (sock_diag, kernel 6.8 and newer)."""
    udp: Fact[Some[SocketRow]] = NOT_NEEDED
    """UDP sockets on the port."""
    holders: Fact[Holders] = NOT_NEEDED
    freezers: Fact[Some[FrozenCgroup]] = NOT_NEEDED
    """The frozen cgroups of those that have the port; asked for where a server does not accept, or has the port."""
    policy: Fact[PortPolicy] = NOT_NEEDED
    routing: Fact[Routing] = NOT_NEEDED
    hosts: Fact[HostsFile] = NOT_NEEDED
    resolver: Fact[ResolverConfig] = NOT_NEEDED
    elsewhere: Fact[Elsewhere] = NOT_NEEDED
    containers: Fact[Containers] = NOT_NEEDED
    compose: Fact[ComposeProject | None] = NOT_NEEDED
    """The Compose project of the directory that it was called in, or of the containers; None: there is none."""
    firewall: Fact[Shadow] = NOT_NEEDED
    host_firewall: Fact[Shadow] = NOT_NEEDED
    """What the host's rules do to a connect that comes from the side of --from."""
    cgroup_filters: Fact[CgroupFilters] = NOT_NEEDED
    confinement: Fact[Confinement] = NOT_NEEDED
    """What bounds the process that looked; asked for where something failed, or root lacks a capability."""
    ufw: Fact[bool] = NOT_NEEDED
    """Whether ufw is on; asked for where a container engine has opened the port on every address."""
    candidates: Few[Attempt] = ()
    """Connects to where else in this namespace the port listens: does it answer there?"""
    later: Fact[Later] = NOT_NEEDED
    """Asked for where a local server refused, ended or did not accept a connection: is it still the same one?"""

    units: Fact[Units] = NOT_NEEDED
    """What systemd says of the units that have to do with the port; asked for where it did not work."""

    def with_holders(self, holders: Fact[Holders]) -> Snapshot:
        """The same with what was seen of the holders at another time."""
        return replace(self, holders=holders)

    @property
    def question(self) -> str:
        """What was typed behind `netdiag run`, for prose that says to ask it again."""
        origin = f"--from {self.vantage.origin} " if self.vantage.origin else ""
        return f"{origin}{self.target.address}"

    @property
    def only_looked(self) -> bool:
        """Nothing was sent or bound: by --passive, or because the side that --from names may not be entered."""
        side = self.vantage.side
        return self.scope.passive or (side is not None and not side.entered)

    def facts(self) -> tuple[tuple[str, Unknown], ...]:
        """The facts of the whole snapshot that are not known, by their names for people."""
        named = ((label, getattr(self, field)) for field, label in FACTS.items())
        return tuple((label, fact) for label, fact in named if isinstance(fact, Unknown))


FACTS = {
    "names": "name resolution",
    "links": "interfaces",
    "sockets": "socket table",
    "listeners": "listeners",
    "bound": "bound sockets",
    "udp": "UDP sockets",
    "holders": "socket owners",
    "freezers": "frozen cgroups",
    "policy": "port sysctls",
    "routing": "routes",
    "hosts": "hosts file",
    "resolver": "resolver configuration",
    "elsewhere": "other network namespaces",
    "containers": "containers",
    "compose": "compose project",
    "firewall": "firewall rules",
    "host_firewall": "the host's firewall rules",
    "cgroup_filters": "cgroup filters",
    "confinement": "own confinement",
    "ufw": "ufw",
    "later": "the listeners a moment later",
    "units": "systemd units",
}
"""The fields of a snapshot that are facts, each with its name for people."""
ATTEMPTS = ("attempts", "binds", "candidates")
"""The fields that hold what was tried: they are known where something was."""
