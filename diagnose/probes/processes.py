"""Which processes hold a socket, and what they are (proc(5))."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Collection, Sequence

from diagnose import seccomp
from diagnose.model.fact import Fact, Known, Reason, Unknown
from diagnose.model.process import Holder, Holders, Process
from diagnose.parse.cgroup import membership
from diagnose.parse.mask import mask_command, mask_path, mask_program
from diagnose.probes import regular_file
from diagnose.probes.bounded import started

LINUX = sys.platform == "linux"

_COMMAND_LIMIT = 8192
"""Bytes of a command line that are read: enough to recognise it."""
_FIRST_PID_NAMESPACE = "pid:[4026531836]"
"""PROC_PID_INIT_INO (linux/proc_ns.h): the namespace that has every process."""
_LETTERS = {
    "running": "R",
    "sleeping": "S",
    "idle": "I",
    "disk-sleep": "D",
    "stopped": "T",
    "tracing-stop": "t",
    "zombie": "Z",
    "dead": "X",
}
"""psutil's states as proc_pid_stat(5) has them; others run."""
_TWO_THREADS_FROM = 300
"""Processes from which a second thread pays: half of readlink(2) is spent without the interpreter's lock."""


class _Scan:
    """What one pass over /proc/PID/fd found so far; several threads add to it."""

    def __init__(self, inodes: Collection[int]) -> None:
        self.wanted = {f"socket:[{inode}]": inode for inode in inodes}
        self.found: set[tuple[int, int]] = set()
        self.empty: list[bytes] = []
        """Processes without a descriptor: kernel threads, and those whose first thread has ended before the others."""
        self.denied: list[bytes] = []
        self.unreadable = 0
        self.unvisited = 0

    def run(self, pids: Sequence[bytes], deadline: float) -> None:
        """Look into these processes until the deadline."""
        for at, pid in enumerate(pids):
            if time.monotonic() > deadline:
                self.unvisited += len(pids) - at
                return
            try:
                if not self._descriptors(b"/proc/%s/fd" % pid, pid):
                    self.empty.append(pid)
            except (FileNotFoundError, ProcessLookupError):
                continue  # it ended meanwhile, and holds nothing any more
            except OSError:
                self.unreadable += 1
                self.denied.append(pid)

    def run_by_thread(self, deadline: float) -> None:
        """Look into the other threads of the processes whose first one has no descriptors: it has ended (state Z).

        To its own user root seems to own that first one's descriptors (task_dump_owner, fs/proc/base.c).
        """
        for pid in (*self.empty, *filter(_is_ours, self.denied)):
            if time.monotonic() > deadline:
                self.unvisited += 1
                continue
            try:
                threads = [thread for thread in os.listdir(b"/proc/%s/task" % pid) if thread != pid]
                for thread in threads[:1]:  # threads share their descriptors
                    self._descriptors(b"/proc/%s/task/%s/fd" % (pid, thread), pid)
            except (FileNotFoundError, ProcessLookupError):
                continue
            except OSError:
                self.unreadable += 1

    def _descriptors(self, path: bytes, pid: bytes) -> bool:
        """Look into one process, and whether it has any descriptor; OSError when it hides or ends."""
        seccomp.require("readlinkat")
        wanted, readlink = self.wanted, os.readlink
        directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            names = os.listdir(directory)
            for name in names:
                try:
                    link = readlink(name, dir_fd=directory)
                except FileNotFoundError:
                    continue  # closed meanwhile
                if link in wanted:
                    self.found.add((wanted[link], int(pid)))
        finally:
            os.close(directory)
        return bool(names)


def _is_ours(pid: bytes) -> bool:
    try:
        return os.stat(b"/proc/%s" % pid).st_uid == os.geteuid()
    except OSError:
        return False


def holders(inodes: Collection[int], seconds: float, *, portable: bool = not LINUX) -> Fact[Holders]:
    """Every process with a descriptor of one of these sockets, as far as this user may look.

    The look ends after so many seconds. Reading the command line of a hung process can block: run it where
    the caller can leave it behind. `portable` asks psutil, for the pids that `sockets.look` has in place of inodes.
    """
    wanted = frozenset(inodes) - {0}
    if not wanted:
        return Known(Holders((), 0))
    if portable:
        return _from_psutil(wanted)
    try:
        pids = [name for name in os.listdir(b"/proc") if name.isdigit()]
    except OSError as error:
        return Unknown(Reason.FAILED, f"/proc: {error.strerror}")
    deadline = time.monotonic() + seconds
    scan = _scanned(wanted, pids, deadline)
    if {inode for inode, _ in scan.found} != wanted:
        scan.run_by_thread(deadline)
    if scan.unvisited and {inode for inode, _ in scan.found} != wanted:
        return Unknown(Reason.DEADLINE, f"looked into {len(pids) - scan.unvisited} of {len(pids)} processes")
    processes = {pid: describe(pid) for pid in sorted({pid for _, pid in scan.found})}
    found = tuple(Holder(inode, process) for inode, pid in sorted(scan.found) if (process := processes[pid]))
    hidden = scan.unreadable + scan.unvisited + _hidden_by_mount()
    return Known(Holders(found, hidden, _unlisted(hidden)))


def _scanned(inodes: Collection[int], pids: Sequence[bytes], deadline: float) -> _Scan:
    """One pass over these processes, by two threads where there are many."""
    scan = _Scan(inodes)
    if len(pids) < _TWO_THREADS_FROM:
        scan.run(pids, deadline)
        return scan
    second = _Scan(inodes)
    others = started([lambda: second.run(pids[1::2], deadline)])
    scan.run(pids[::2] if others else pids, deadline)
    for other in others:
        if not other.wait(deadline - time.monotonic() + 1.0):
            second.unvisited += len(pids[1::2])
    scan.found |= second.found
    scan.empty += second.empty
    scan.denied += second.denied
    scan.unreadable += second.unreadable
    scan.unvisited += second.unvisited
    return scan


def describe(pid: int) -> Process | None:
    """A process; None when it has ended. Reading its command line waits where the process hangs in the kernel."""
    try:
        stat, status = _read(pid, "stat"), _read(pid, "status")
        command, cgroup = _read(pid, "cmdline"), _read(pid, "cgroup")
    except OSError:
        return None
    # the name in brackets may hold anything, brackets too
    name, _, rest = stat.partition("(")[2].rpartition(")")
    fields = rest.split()
    facts = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    uid = int(facts["Uid"].split()[1])
    member = membership(cgroup)
    executable = _executable(pid)
    return Process(
        pid=pid,
        program=mask_program(name, executable),
        command=mask_command(command.rstrip("\0").split("\0")),
        uid=uid,
        user=_users().get(uid, str(uid)),
        state=fields[0],
        started_at=_started_at(int(fields[19])),
        parent=int(fields[1]),
        tracer=int(facts.get("TracerPid", "0")),
        executable=executable and mask_path(executable),
        unit=member.unit,
        container=member.container,
        unit_owner=member.unit_owner,
    )


def _read(pid: int, name: str) -> str:
    """The start of a file of /proc/PID, undecodable bytes as \\xNN."""
    with open(f"/proc/{pid}/{name}", "rb") as file:
        return file.read(_COMMAND_LIMIT).decode("utf-8", "backslashreplace")


def _executable(pid: int) -> str | None:
    """The program file; None where it is hidden or there is none (kernel threads)."""
    try:
        return os.readlink(b"/proc/%d/exe" % pid).decode("utf-8", "backslashreplace")
    except OSError:
        return None


def _started_at(ticks: int) -> str:
    """When a process started: field 22 of stat counts from boot, as CLOCK_BOOTTIME does."""
    boot = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(boot + ticks / os.sysconf("SC_CLK_TCK")))


def _users() -> dict[int, str]:
    """Names by uid from /etc/passwd alone: getpwuid(3) may ask a directory server and wait for it."""
    users: dict[int, str] = {}
    try:
        text = regular_file.read("/etc/passwd").content.decode("utf-8", "backslashreplace")
    except OSError:
        return {}
    for line in text.split("\n"):
        fields = line.split(":")
        if len(fields) > 2 and fields[2].isdecimal():
            users.setdefault(int(fields[2]), fields[0])
    return users


def _hidden_by_mount() -> int:
    """1 where /proc leaves out other users' processes (hidepid, proc(5)): who knows how many."""
    return 0 if os.path.exists("/proc/1") else 1


def _unlisted(hidden: int) -> str | None:
    """Why there may be owners that not even root sees from here; None: root would see them all."""
    try:
        if os.readlink("/proc/self/ns/pid") != _FIRST_PID_NAMESPACE:
            return "only the processes of our own PID namespace are listed"
    except OSError as error:
        return f"our PID namespace is not told ({error.strerror})"
    return "some processes hide their descriptors even from root" if hidden and os.geteuid() == 0 else None


def _from_psutil(pids: Collection[int]) -> Fact[Holders]:
    """The same from psutil, by pid: what macOS and Windows have of it."""
    import psutil  # 40 ms, and never on Linux

    attributes = (
        "name",
        "cmdline",
        "username",
        "status",
        "create_time",
        "ppid",
        "exe",
        *(("uids",) if os.name == "posix" else ()),
    )
    found: list[Holder] = []
    for pid in sorted(pid for pid in pids if pid > 0):
        try:
            told = psutil.Process(pid).as_dict(attributes, ad_value=None)
        except psutil.NoSuchProcess:
            continue
        process = Process(
            pid=pid,
            program=mask_program(told["name"] or "", told["exe"]),
            command=mask_command(told["cmdline"] or []),
            uid=told["uids"].effective if told.get("uids") else -1,
            user=told["username"] or "",
            state=_LETTERS.get(told["status"], "R") if told["status"] else "?",
            started_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(told["create_time"] or 0)),
            parent=told["ppid"] or 0,
            executable=mask_path(told["exe"]) if told["exe"] else None,
        )
        found.append(Holder(pid, process))
    return Known(Holders(tuple(found), unreadable=sum(pid < 0 for pid in pids)))
