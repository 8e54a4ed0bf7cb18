"""Which BPF programs the kernel asks for the sockets of a cgroup: bpf(2) BPF_PROG_QUERY, as root.

A socket belongs to the cgroup that its maker was in when it was made (sock_cgroup_data, linux/cgroup-defs.h), so the
listener's own word in sock_diag counts, not where its process is now.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack

from diagnose import seccomp
from diagnose.model.cgroup import Cgroup, CgroupFilters, CgroupProgram, Hook, ListenerCgroup
from diagnose.model.fact import NOT_NEEDED, Fact, Known, Reason, Unknown
from diagnose.parse.unified import Mount, directory, mounts, place
from diagnose.probes import bpf
from diagnose.probes.btf import kernel_function
from diagnose.probes.netlink import Netlink, attributes
from diagnose.probes.sockets import listener_cgroups
from diagnose.probes.syscalls import duplicate

_NEXT_ID, _QUERY = 11, 16
_TYPE_LSM = struct.pack("=I", 29)
"""BPF_PROG_TYPE_LSM, as struct bpf_prog_info begins with it."""
_HOOKS = {
    Hook.INGRESS: 0,
    Hook.EGRESS: 1,
    Hook.SOCK_CREATE: 2,
    Hook.BIND4: 8,
    Hook.BIND6: 9,
    Hook.CONNECT4: 10,
    Hook.CONNECT6: 11,
}
_EFFECTIVE = 1
"""BPF_F_QUERY_EFFECTIVE: with what the cgroups above have in force here."""
_PROGRAMS = 256
_CGROUPS = 20_000
"""Directories that are looked through for a cgroup that is known by its number only."""
_SO_GET_FILTER = 26
_ATTACHED, _ATTACHED_AT = struct.Struct("=II"), 220
"""attach_btf_obj_id and attach_btf_id of struct bpf_prog_info, since Linux 6.0; 0 before."""
_RESTRICT_FILE_SYSTEMS = "restrict_files"
_HOOKS_OF_SOCKETS = frozenset(
    ("socket_create", "socket_post_create", "socket_bind", "socket_connect", "sk_alloc_security")
)
"""The hooks of security modules that can answer socket(2), bind(2) or connect(2) of TCP (linux/lsm_hook_defs.h)."""

_NETLINK_XFRM, _GET_SPD_INFO, _SPD_INFO = 6, 0x25, 1
_SPD_COUNTS = struct.Struct("=6I")
_LSM_LIST_MODULES, _MODULES = 461, 64
_SUSPECTS, _BPF_MODULE = {102: "SMACK", 103: "TOMOYO"}, 109
"""By their LSM_ID (linux/lsm.h), those that may answer EPERM; Landlock, SELinux and AppArmor answer EACCES."""

_ROOT_ONLY = Unknown(Reason.NEEDS_ROOT, "programs on cgroups are shown to root only", "run it again with sudo")


def look(
    listeners: Mapping[int, Collection[int]], port: int, *, forbidden: bool, there: int | None = None
) -> Fact[CgroupFilters]:
    """The programs on our own cgroup and on those of the listening sockets (inode -> pids of its holders).

    `there` is the process that --from names. `forbidden`: something was answered with EPERM, so ask what else may
    have said it.
    """
    if os.geteuid() != 0:
        return _ROOT_ONLY
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as text:
            mounted = mounts(text.read())
    except OSError as error:
        return Unknown(Reason.FAILED, f"/proc/self/mountinfo: {error.strerror}")
    if not mounted:
        return Unknown(Reason.NOT_MOUNTED, "the cgroup2 file system is not mounted")
    made_in = listener_cgroups(port) if listeners else NOT_NEEDED
    return Known(
        CgroupFilters(
            ours=_of_process("self", mounted),
            listeners=tuple(
                ListenerCgroup(inode, _of_socket(inode, pids, made_in, mounted), _own_filter(inode, pids))
                for inode, pids in sorted(listeners.items())
            ),
            theirs=NOT_NEEDED if there is None else _of_process(str(there), mounted),
            rivals=_rivals() if forbidden else NOT_NEEDED,
        )
    )


def _of_process(pid: str, mounted: tuple[Mount, ...]) -> Fact[Cgroup]:
    found = _directory(pid, mounted)
    return found if isinstance(found, Unknown) else _cgroup(found.value, mounted)


def _of_socket(
    inode: int, pids: Collection[int], made_in: Fact[dict[int, int]], mounted: tuple[Mount, ...]
) -> Fact[Cgroup]:
    """By the cgroup's number, which is the inode of its directory (kernfs, 64-bit)."""
    if isinstance(made_in, Unknown):
        return made_in
    number = made_in.value.get(inode)
    if number is None:
        return Unknown(Reason.KERNEL_TOO_OLD, "the cgroup of a socket is not told", "Linux 5.8 or newer")
    for pid in sorted(pids):
        found = _directory(str(pid), mounted)
        if isinstance(found, Known) and _is_number(found.value, number):
            return _cgroup(found.value, mounted)
    searched = _search(number, mounted)
    if searched is None:
        return Unknown(Reason.NOT_VISIBLE, f"the cgroup that the socket was made in (number {number}) is not seen here")
    return _cgroup(searched, mounted)


def _directory(pid: str, mounted: tuple[Mount, ...]) -> Fact[str]:
    try:
        with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="surrogateescape") as text:
            path = place(text.read())
    except OSError as error:
        return Unknown(Reason.FAILED, f"/proc/{pid}/cgroup: {error.strerror}")
    found = directory(path, mounted) if path else None
    if found is None:
        return Unknown(Reason.NOT_VISIBLE, f"the cgroup of process {pid} is not mounted here", "run it on the host")
    return Known(found)


def _is_number(path: str, number: int) -> bool:
    try:
        return os.stat(path).st_ino == number
    except OSError:
        return False


def _search(number: int, mounted: tuple[Mount, ...]) -> str | None:
    """The directory of this inode, among the first so many."""
    waiting, seen = [mounted[0].point], 0
    while waiting and seen < _CGROUPS:
        path, seen = waiting.pop(), seen + 1
        if _is_number(path, number):
            return path
        try:
            with os.scandir(path) as entries:
                waiting += [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
        except OSError:  # it is gone
            continue
    return None


def _cgroup(path: str, mounted: tuple[Mount, ...]) -> Fact[Cgroup]:
    top = next(one.point for one in mounted if f"{path}/".startswith(f"{one.point.rstrip('/')}/"))
    lineage = _lineage(path, top)
    programs: list[CgroupProgram] = []
    try:
        with ExitStack() as stack:
            open_ = [(one, os.open(one, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) for one in lineage]
            for _, descriptor in open_:
                stack.callback(os.close, descriptor)
            for hook in Hook:
                for number in _query(open_[0][1], hook, _EFFECTIVE):
                    attached = next((one for one, at in open_ if number in _query(at, hook, 0)), None)
                    programs.append(
                        CgroupProgram(hook, number, bpf.name(number), _text(attached) if attached else None)
                    )
    except PermissionError:
        return Unknown(Reason.NEEDS_ROOT, "bpf(2) is forbidden here, to root as well", "run it on the host as root")
    except OSError as error:
        return Unknown(Reason.FAILED, f"bpf(2) on {_text(path)}: {errno.errorcode.get(error.errno or 0, str(error))}")
    return Known(Cgroup(_text(path), tuple(sorted(programs))))


def _lineage(path: str, top: str) -> list[str]:
    """The directory and those above it, up to the mount point."""
    found = [path]
    while found[-1] != top and len(found[-1]) > len(top):
        found.append(os.path.dirname(found[-1]))
    return found


def _text(path: str) -> str:
    return path.encode(errors="surrogateescape").decode(errors="backslashreplace")


def _query(cgroup: int, hook: Hook, flags: int) -> list[int]:
    """The ids of the programs; OSError. A hook that this kernel does not know has none."""
    ids = (ctypes.c_uint32 * _PROGRAMS)()
    # target_fd, attach_type, query_flags, attach_flags, prog_ids, prog_cnt
    request = struct.pack("=IIIIQI", cgroup, _HOOKS[hook], flags, 0, ctypes.addressof(ids), _PROGRAMS)
    try:
        _, answer = bpf.call(_QUERY, request)
    except OSError as error:
        if error.errno == errno.EINVAL:
            return []
        raise
    return list(ids[: struct.unpack_from("=I", answer, 24)[0]])


def _own_filter(inode: int, pids: Collection[int]) -> Fact[bool]:
    """Whether the listening socket itself has a filter, asked on a duplicate of its descriptor (pidfd_getfd(2))."""
    for pid in sorted(pids):
        try:
            number = _descriptor(inode, pid)
            if number is None:
                continue
            return Known(_has_filter(pid, number))
        except OSError as error:
            return Unknown(Reason.FAILED, f"pidfd_getfd: {errno.errorcode.get(error.errno or 0, str(error))}")
    return Unknown(Reason.NOT_VISIBLE, "no process was seen to hold the socket")


def _descriptor(inode: int, pid: int) -> int | None:
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            if os.readlink(f"/proc/{pid}/fd/{name}") == f"socket:[{inode}]":
                return int(name)
        except FileNotFoundError:  # closed meanwhile
            continue
    return None


def _has_filter(pid: int, number: int) -> bool:
    """sk_get_filter, net/core/filter.c: a length of 0 is none, EACCES one that cannot be shown (eBPF)."""
    try:
        with socket.socket(fileno=duplicate(pid, number)) as listener:
            return bool(_filter_length(listener))
    except PermissionError as error:
        if error.errno == errno.EACCES:
            return True
        raise


def _filter_length(listener: socket.socket) -> int:
    """How many instructions it has: with no room for them the kernel tells the count (socket(7))."""
    length = ctypes.c_uint32(0)
    result = bpf.LIBC.getsockopt(listener.fileno(), socket.SOL_SOCKET, _SO_GET_FILTER, None, ctypes.byref(length))
    if result < 0:
        failed = ctypes.get_errno()
        raise OSError(failed, os.strerror(failed))
    return length.value


def _rivals() -> Fact[tuple[str, ...]]:
    """What else answers a TCP connect or bind with EPERM: seccomp, a security module, an IPsec policy that blocks."""
    try:
        return Known((*_seccomp(), *_security_modules(), *_ipsec()))
    except OSError as error:
        return Unknown(Reason.FAILED, str(error))


def _seccomp() -> tuple[str, ...]:
    with open("/proc/self/status", encoding="utf-8", errors="backslashreplace") as status:
        mode = next((line.split()[1] for line in status if line.startswith("Seccomp:")), "0")
    return ("a seccomp filter on this process",) if mode != "0" else ()


def _security_modules() -> tuple[str, ...]:
    """By lsm_list_modules(2), since Linux 6.8."""
    ids = (ctypes.c_uint64 * _MODULES)()
    size = ctypes.c_uint32(ctypes.sizeof(ids))
    try:
        seccomp.require("lsm_list_modules")
        count = bpf.syscall(_LSM_LIST_MODULES, ids, ctypes.byref(size), 0)
    except OSError as error:
        return (f"a security module: they are not told ({errno.errorcode.get(error.errno or 0, '?')})",)
    found = [_SUSPECTS[one] for one in sorted(ids[:count]) if one in _SUSPECTS]
    if _BPF_MODULE in ids[:count]:
        found += [f"BPF, by the program {bpf.name(one) or one}" for one in _programs_of_bpf_module()]
    return tuple(f"a security module ({one})" for one in found)


def _programs_of_bpf_module() -> Iterator[int]:
    """The ids of the programs that judge as a security module: without any it says yes to all."""
    number = 0
    while True:
        try:
            _, answer = bpf.call(_NEXT_ID, struct.pack("=II", number, 0))
        except FileNotFoundError:
            return
        number = struct.unpack_from("=I", answer, 4)[0]
        told = bpf.info(number)
        if told[:4] == _TYPE_LSM and _may_forbid(number, told):
            yield number


def _may_forbid(number: int, told: bytes) -> bool:
    """Whether the program is asked for a socket, a bind or a connect, by the hook that it is attached to.

    systemd's own is known by its name: it is asked when a file is opened (RestrictFileSystems=,
    src/core/bpf/restrict_fs). Only for others it is looked up what the hook's number means, 0.2 s. A hook that the
    kernel does not tell (before Linux 6.0) may be one of these.
    """
    if bpf.name(number).startswith(_RESTRICT_FILE_SYSTEMS):
        return False
    hook = kernel_function(*_ATTACHED.unpack_from(told, _ATTACHED_AT)) if len(told) >= _ATTACHED_AT + 8 else None
    return hook is None or hook.removeprefix("bpf_lsm_") in _HOOKS_OF_SOCKETS


def _ipsec() -> tuple[str, ...]:
    try:
        with Netlink(_NETLINK_XFRM) as netlink:
            answers = netlink.request(_GET_SPD_INFO, 0, struct.pack("=I", 0))
    except OSError as error:
        if error.errno == errno.EPROTONOSUPPORT:  # a kernel without IPsec
            return ()
        return (f"an IPsec policy: they could not be counted ({errno.errorcode.get(error.errno or 0, '?')})",)
    for answer in answers:
        counts = attributes(answer, 4).get(_SPD_INFO, b"")
        if len(counts) >= _SPD_COUNTS.size:
            _, outgoing, _, _, of_sockets, _ = _SPD_COUNTS.unpack_from(counts)
            return ("an IPsec policy that blocks",) if outgoing + of_sockets else ()
    return ("an IPsec policy: they could not be counted",)
