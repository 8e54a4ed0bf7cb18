"""A program on a cgroup in words, and how to mend it in the terms of whoever put it there."""

from __future__ import annotations

import shlex

from diagnose.analysis.argument import is_unit
from diagnose.model.cgroup import CgroupProgram, Hook
from diagnose.model.finding import Command, Edit, Evidence, Remedy, Risk
from diagnose.model.network import is_loopback

_SECTIONS = {"service": "Service", "socket": "Socket", "slice": "Slice"}
_SHOWN = "IPAddressDeny,IPAddressAllow,RestrictNetworkInterfaces,SocketBindDeny,SocketBindAllow"
_FILTER = ("sd_fw_", "IPAddressDeny=")
_INTERFACES = ("sd_restrictif_", "RestrictNetworkInterfaces=")
_BIND = ("sd_bind", "SocketBindDeny=")
"""What systemd calls its programs, and the setting behind each (src/core/bpf-firewall.c, src/core/bpf/)."""


def program_name(program: CgroupProgram) -> str:
    """sd_fw_ingress (program 107)."""
    return f"{program.name} (program {program.id})" if program.name else f"program {program.id}"


def program_line(program: CgroupProgram) -> Evidence:
    """Where it is attached, as the kernel told."""
    where = f"attached to {program.attached}" if program.attached else "attached above what is seen from here"
    return Evidence(f"{program.hook.value}: {program_name(program)}, {where}", "bpf(2) BPF_PROG_QUERY")


def cgroup_name(directory: str | None) -> str:
    """The last part of its path, which for a systemd unit is the unit."""
    return directory.rpartition("/")[2] if directory else "a cgroup above"


def system_unit(program: CgroupProgram) -> str | None:
    """The unit of the system's service manager that the program belongs to; None: none, or another maker's program."""
    path = program.attached or ""
    unit = cgroup_name(path)
    ours = not program.name or program.name.startswith((_FILTER[0], _INTERFACES[0], _BIND[0]))
    known = unit.rpartition(".")[2] in (*_SECTIONS, "scope")
    return unit if ours and known and is_unit(unit) and "/user@" not in path else None


def setting(program: CgroupProgram) -> str | None:
    """The setting of a unit that makes systemd attach this program."""
    if not program.name:
        return _FILTER[1] if program.hook in (Hook.INGRESS, Hook.EGRESS) else None
    return next((text for start, text in (_FILTER, _INTERFACES, _BIND) if program.name.startswith(start)), None)


def program_remedies(program: CgroupProgram, peer: str, port: int, whose: str) -> tuple[Remedy, ...]:
    """How to let `peer` through, or the port be bound; `whose` cgroup it is, as in "the server"."""
    unit, denial = system_unit(program), setting(program)
    if unit is None or denial is None:
        return (_by_its_maker(program, whose),)
    allow = _allowing(denial, peer, port)
    look = Remedy(
        summary=f"See what {unit} forbids and allows (an empty {denial} means that another program is at work).",
        commands=(Command(("systemctl", "show", unit, "-p", _SHOWN)),),
    )
    kind = unit.rpartition(".")[2]
    if kind not in _SECTIONS:
        summary = (
            f"{unit} was made by a command and has no file: systemctl set-property --runtime {unit} {allow} "
            "allows it until the unit ends."
        )
        return (Remedy(summary=summary, survives_reboot=False), look)
    return (
        Remedy(
            summary=f"Add {allow} to {unit} (systemctl edit {unit}), then systemctl daemon-reload and systemctl "
            f"restart {unit}, which ends its connections. To take it back, delete the line and do the same.",
            edits=(Edit(f"/etc/systemd/system/{unit}.d/override.conf", None, f"[{_SECTIONS[kind]}]\n{allow}"),),
            risk=Risk.DISRUPTIVE,
            survives_reboot=True,
        ),
        look,
    )


def _allowing(denial: str, peer: str, port: int) -> str:
    if denial == _INTERFACES[1]:
        return "RestrictNetworkInterfaces=lo"
    if denial == _BIND[1]:
        return f"SocketBindAllow=tcp:{port}"
    return f"IPAddressAllow={'localhost' if is_loopback(peer) else peer}"


def _by_its_maker(program: CgroupProgram, whose: str) -> Remedy:
    where = program.attached or "the cgroup above"
    shown = f": bpftool cgroup show {shlex.quote(program.attached)}" if program.attached else ""
    return Remedy(
        summary=f"Have whatever attached {program_name(program)} to {where} (a service manager, a container engine, a "
        f"security agent{shown}) let this through, or run {whose} outside of that cgroup."
    )
