"""What each text of a snapshot is, declared field by field: what is not declared is redacted as prose."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

from diagnose.model.attempt import Attempt, Behind, BindAttempt, Drop, WireReply
from diagnose.model.cgroup import Cgroup, CgroupFilters, CgroupProgram
from diagnose.model.compose import ComposeProject, Listening, PortEntry, Reference, Service, Spot, Unread
from diagnose.model.confinement import Confinement
from diagnose.model.container import Attachment, ComposeService, Engine, EngineContainer, Forwarder
from diagnose.model.elsewhere import OtherListener, Residence
from diagnose.model.fact import Unknown
from diagnose.model.finding import Command, Edit, Rehearsal, Remedy
from diagnose.model.firewall import Approach, NetfilterProgram, Obstacle, Rehearsed, Shadow, Walk
from diagnose.model.freezer import FrozenCgroup
from diagnose.model.names import HostsEntry, HostsFile, Resolution, ResolverConfig
from diagnose.model.network import Gateway, Interface, LocalRoute, RouteLookup, RoutingRule, SocketRow
from diagnose.model.process import Container, Holders, Process
from diagnose.model.rule import RuleRef, Step
from diagnose.model.side import Side
from diagnose.model.snapshot import Program, Snapshot, Vantage
from diagnose.model.target import Scope, ServicePort, Target
from diagnose.model.unit import Ancestor, Lodger, Unit, Units


class Kind(StrEnum):
    """What a text is; its value is how a token of this kind begins."""

    CODE = "code"
    """A word of the kernel's or of netdiag's own: a state, an errno, a date."""
    ADDRESS = "address"
    LINK = "mac"
    HOST = "host"
    USER = "user"
    PATH = "path"
    PROGRAM = "program"
    COMMAND = "word"
    """A command line, already masked."""
    ARGUMENT = "argument"
    """One word of a command line."""
    CONTAINER = "container"
    ID = "id"
    IMAGE = "image"
    NETWORK = "network"
    PROJECT = "project"
    SERVICE = "service"
    UNIT = "unit"
    INTERFACE = "interface"
    NAMESPACE = "namespace"
    DATABASE = "database"
    VARIABLE = "variable"
    RULE_NAME = "name"
    """Of a table, a chain or a set."""
    RULE = "rule"
    """A rule as its tool prints it, or a part of it."""
    COMMENT = "comment"
    PROSE = "prose"
    TARGET = "target"
    ORIGIN = "origin"
    """container:NAME, pid:N, netns:NAME, service:NAME."""
    KERNEL = "kernel"
    CUSTOM = "custom"
    """What the sender's own pattern matches."""


class Group(StrEnum):
    """What the sender can keep, by the names of `--keep`."""

    USERS = "users"
    HOSTS = "hosts"
    ADDRESSES = "addresses"
    CONTAINERS = "containers"
    COMMANDS = "commands"
    PATHS = "paths"


GROUPS: Mapping[Kind, Group] = MappingProxyType(
    {
        Kind.USER: Group.USERS,
        Kind.DATABASE: Group.USERS,
        Kind.HOST: Group.HOSTS,
        Kind.KERNEL: Group.HOSTS,
        Kind.ADDRESS: Group.ADDRESSES,
        Kind.LINK: Group.ADDRESSES,
        Kind.INTERFACE: Group.ADDRESSES,
        Kind.NAMESPACE: Group.CONTAINERS,
        Kind.CONTAINER: Group.CONTAINERS,
        Kind.ID: Group.CONTAINERS,
        Kind.IMAGE: Group.CONTAINERS,
        Kind.NETWORK: Group.CONTAINERS,
        Kind.PROJECT: Group.CONTAINERS,
        Kind.SERVICE: Group.CONTAINERS,
        Kind.UNIT: Group.CONTAINERS,
        Kind.PROGRAM: Group.COMMANDS,
        Kind.COMMAND: Group.COMMANDS,
        Kind.VARIABLE: Group.COMMANDS,
        Kind.RULE_NAME: Group.COMMANDS,
        Kind.PATH: Group.PATHS,
    }
)
"""Tokens of the other kinds are never kept: nothing needs to read a comment, and a pattern was asked for."""

_C, _P = Kind.CODE, Kind.PATH

KINDS: Mapping[type, Mapping[str, Kind]] = MappingProxyType(
    {
        Snapshot: {"netdiag": _C, "started_at": _C},
        Target: {"input": Kind.TARGET, "host": Kind.HOST, "scheme": _C},
        ServicePort: {"service": Kind.SERVICE, "project": Kind.PROJECT},
        Scope: {"only": _C, "skip": _C},
        Vantage: {
            "hostname": Kind.HOST,
            "platform": _C,
            "kernel": Kind.KERNEL,
            "user": Kind.USER,
            "origin": Kind.ORIGIN,
            "sudo_user": Kind.USER,
        },
        Container: {"engine": _C, "id": Kind.ID, "name": Kind.CONTAINER},
        Side: {"name": Kind.PROSE, "namespace": _P, "user": Kind.USER, "confined": Kind.PROSE},
        Program: {"user": _P, "root": _P},
        Resolution: {"host": Kind.HOST, "error": _C, "doubts": Kind.PROSE},
        Unknown: {"detail": Kind.PROSE, "lift": Kind.PROSE},
        Attempt: {"errno": _C},
        BindAttempt: {"errno": _C, "plain_errno": _C},
        Drop: {"reason": _C, "symbol": _C},
        WireReply: {"interface": Kind.INTERFACE, "link": Kind.LINK},
        Behind: {"forwarder": Kind.PROSE},
        Step: {"hook": Kind.RULE, "verdict": Kind.RULE},
        RuleRef: {
            "family": _C,
            "table": Kind.RULE_NAME,
            "chain": Kind.RULE_NAME,
            "text": Kind.RULE,
            "comment": Kind.COMMENT,
        },
        Interface: {"name": Kind.INTERFACE},
        Gateway: {"interface": Kind.INTERFACE},
        SocketRow: {"device": Kind.INTERFACE},
        Holders: {"unlisted": Kind.PROSE},
        Process: {
            "program": Kind.PROGRAM,
            "command": Kind.COMMAND,
            "user": Kind.USER,
            "state": _C,
            "started_at": _C,
            "executable": _P,
            "unit": Kind.UNIT,
        },
        RouteLookup: {"device": Kind.INTERFACE, "errno": _C},
        RoutingRule: {"action": _C, "selector": Kind.RULE},
        LocalRoute: {"kind": _C, "destination": Kind.RULE, "device": Kind.INTERFACE},
        HostsFile: {"path": _P, "inside": Kind.PROSE},
        HostsEntry: {"address": Kind.PROSE, "names": Kind.HOST, "text": Kind.PROSE},
        ResolverConfig: {
            "nsswitch_hosts": Kind.PROSE,
            "nameservers": Kind.PROSE,
            "gai_lines": Kind.PROSE,
            "hosts_line": Kind.PROSE,
        },
        OtherListener: {"name": Kind.NAMESPACE, "unit": Kind.UNIT, "init_program": Kind.PROGRAM},
        Engine: {"name": _C, "address": _P},
        EngineContainer: {
            "image": Kind.IMAGE,
            "health": _C,
            "error": Kind.PROSE,
            "network_mode": Kind.ORIGIN,
            "extra_hosts": Kind.HOST,
        },
        Attachment: {"network": Kind.NETWORK, "names": Kind.HOST},
        ComposeService: {"project": Kind.PROJECT, "service": Kind.SERVICE, "directory": _P, "files": _P},
        Forwarder: {"program": Kind.PROGRAM},
        ComposeProject: {"name": Kind.PROJECT, "directory": _P, "files": _P, "call": Kind.ARGUMENT},
        Service: {
            "name": Kind.SERVICE,
            "file": _P,
            "image": Kind.IMAGE,
            "container_name": Kind.CONTAINER,
            "network_mode": Kind.ORIGIN,
            "networks": Kind.NETWORK,
            "aliases": Kind.HOST,
            "extra_hosts": Kind.HOST,
            "extra_host_piece": Kind.PROSE,
            "depends_on": Kind.SERVICE,
            "profiles": Kind.COMMAND,
        },
        PortEntry: {"file": _P, "address": Kind.PROSE, "protocol": _C},
        Spot: {"file": _P, "before": Kind.PROSE, "after": Kind.PROSE},
        Reference: {"variable": Kind.VARIABLE, "file": _P, "host": Kind.HOST, "scheme": _C},
        Listening: {"piece": Kind.PROSE},
        Unread: {"file": _P, "why": Kind.PROSE},
        Shadow: {"uncarried": Kind.PROSE, "wordless": Kind.PROSE, "owner_tools": _C},
        Walk: {
            "hook": Kind.RULE,
            "reject_with": Kind.RULE,
            "doubts": Kind.PROSE,
            "reader": Kind.PROSE,
            "beside": Kind.PROSE,
        },
        NetfilterProgram: {"name": Kind.PROGRAM, "family": _C, "hook": _C},
        Obstacle: {"hook": Kind.RULE, "reader": Kind.PROSE},
        Approach: {"interface": Kind.INTERFACE},
        Rehearsed: {"opens": Kind.PROSE},
        Rehearsal: {"opens": Kind.PROSE},
        Command: {"argv": Kind.RULE},
        Remedy: {"summary": Kind.PROSE, "url": Kind.PROSE},
        Edit: {"file": _P, "text": Kind.PROSE},
        Cgroup: {"directory": _P},
        FrozenCgroup: {"directory": _P, "files": _P},
        Residence: {"unit": Kind.UNIT, "shared_with": Kind.UNIT, "launcher": Kind.PROGRAM},
        Confinement: {"profile": Kind.PROSE, "unit": Kind.UNIT},
        Unit: {
            **dict.fromkeys(("load", "active", "sub", "result", "since", "job", "exited", "kind"), _C),
            "name": Kind.UNIT,
            "tied_by": Kind.PROSE,
            "invocation": Kind.ID,
            "listens_on": Kind.PROSE,
        },
        Units: {"ours": Kind.UNIT},
        Lodger: {"unit": Kind.UNIT},
        Ancestor: {"program": Kind.PROGRAM, "command": Kind.COMMAND, "executable": _P},
        CgroupProgram: {"name": Kind.PROGRAM, "attached": _P},
        CgroupFilters: {"rivals": Kind.PROSE},
    }
)
"""Addresses, literals and enumerations are known by their types; every other text has a row."""
