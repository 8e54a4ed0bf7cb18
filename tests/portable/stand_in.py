"""Runs the whole command as if this were macOS or Windows: `python stand_in.py darwin|win32 ARGUMENT...`.

A stand-in for machines that cannot exist here. What other people's packages need of this machine is loaded first;
then sys.platform says "darwin" or "win32", and netdiag's own modules see a standard library without what that
platform lacks, and no /proc, /sys or Linux tool. The kernel below is still Linux: what this shows is that nothing is
asked that such a machine does not have, and that what could not be asked is never taken for an answer. It does not
show what that machine would have answered.
"""

from __future__ import annotations

import builtins
import ctypes
import errno
import importlib
import os
import pathlib
import shutil
import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

FOREIGN = ("typer", "msgspec.json", "psutil", "subprocess", "shutil", "tempfile", "multiprocessing")
"""Other people's packages: they know both platforms by themselves, and cannot be told another one once loaded."""

LINUX_ONLY = {
    "os": """setns unshare sched_setaffinity sched_getaffinity memfd_create eventfd pidfd_open getxattr setxattr splice
        O_PATH CLONE_NEWNET CLONE_NEWNS CLONE_NEWUSER""",
    "socket": """AF_NETLINK AF_PACKET SOCK_NONBLOCK SOCK_CLOEXEC SO_BINDTODEVICE SO_MARK TCP_INFO TCP_DEFER_ACCEPT
        PACKET_HOST PACKET_OUTGOING IP_RECVERR IPV6_RECVERR""",
    "select": "epoll EPOLLIN EPOLLOUT EPOLLERR",
    "time": "CLOCK_BOOTTIME",
    "signal": "sigwaitinfo sigtimedwait SIGRTMIN SIGRTMAX SIGPOLL",
}
POSIX_ONLY = {
    "os": """fork forkpty uname getuid geteuid getgid getegid getgroups setuid setgid setsid getpgid killpg sysconf
        pread preadv pwrite mkfifo wait wait4 WIFSIGNALED WTERMSIG WIFEXITED WEXITSTATUS WNOHANG O_CLOEXEC O_DIRECTORY
        O_NONBLOCK O_NOFOLLOW chown chroot statvfs posix_spawn ttyname getloadavg sched_yield""",
    "socket": "AF_UNIX MSG_DONTWAIT MSG_NOSIGNAL SO_REUSEPORT CMSG_SPACE CMSG_LEN sethostname",
    "select": "poll POLLIN POLLOUT POLLERR POLLHUP POLLNVAL POLLPRI",
    "time": "clock_gettime CLOCK_MONOTONIC CLOCK_REALTIME",
    "signal": """SIGKILL SIGALRM SIGHUP SIGQUIT SIGSTOP SIGCONT SIGCHLD SIGUSR1 SIGPIPE ITIMER_REAL setitimer alarm
        pause pthread_sigmask pthread_kill sigpending SIG_BLOCK SIG_SETMASK SIG_UNBLOCK""",
}
POSIX_MODULES = ("fcntl", "grp", "pwd", "resource", "termios", "tty", "pty", "syslog")

LINUX_FILES = ("/proc/", "/sys/", "/run/", "/dev/kmsg")
"""Folders that exist on Linux only."""


def main(platform: str, *arguments: str) -> None:
    """Becomes that platform, then the command."""
    for name in FOREIGN:
        importlib.import_module(name)
    for name in LINUX_ONLY:
        posix = POSIX_ONLY[name] if platform == "win32" else ""
        sys.modules[name] = _without(importlib.import_module(name), f"{LINUX_ONLY[name]} {posix}")
    _hide_files(sys.modules["os"])
    sys.addaudithook(_refuse_programs)
    sys.modules["netifaces"] = None  # type: ignore[assignment]
    if platform == "darwin":
        _hide_sockets_from_users()
    else:
        _become_windows()
    sys.platform = platform
    sys.argv = ["netdiag", *arguments]
    from diagnose.__main__ import main as command

    command()


def _without(real: ModuleType, missing: str) -> ModuleType:
    """A module that lacks these names; who has loaded the real one keeps it."""
    gone = missing.split()
    copy = ModuleType(real.__name__, real.__doc__)
    vars(copy).update({name: value for name, value in vars(real).items() if name not in gone})
    return copy


def _hide_files(own_os: Any) -> None:
    """Opening what only Linux has fails as it would there, for every way of asking that netdiag uses."""
    for name in ("open", "listdir", "readlink", "stat", "scandir"):
        setattr(own_os, name, _hiding(getattr(os, name)))
    own_os.path = _without(os.path, "exists")
    own_os.path.exists = lambda path: not _is_hidden(path) and os.path.exists(path)
    real_open = builtins.open

    def own_open(path: Any, *rest: Any, **named: Any) -> Any:
        if sys._getframe(1).f_globals.get("__name__", "").startswith(("diagnose", "checks")):
            _refuse_hidden(path)
        return real_open(path, *rest, **named)

    builtins.open = own_open  # type: ignore[assignment]


def _hiding(call: Callable[..., Any]) -> Callable[..., Any]:
    def guarded(path: Any = ".", *rest: Any, **named: Any) -> Any:
        _refuse_hidden(path)
        return call(path, *rest, **named)

    return guarded


def _is_hidden(path: Any) -> bool:
    text = os.fsdecode(path) if isinstance(path, str | bytes | os.PathLike) else ""
    return f"{text}/".startswith(LINUX_FILES)


def _refuse_hidden(path: Any) -> None:
    if _is_hidden(path):
        print(f"stand-in: asked for the file {path!r}", file=sys.stderr)
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)


def _refuse_programs(event: str, arguments: tuple[Any, ...]) -> None:
    if event in ("subprocess.Popen", "os.fork", "os.posix_spawn", "os.exec", "os.system"):
        print(f"stand-in: asked for a process: {event} {arguments}", file=sys.stderr)
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))


def _hide_sockets_from_users() -> None:
    """On macOS psutil lists the sockets of all processes for root only."""
    import psutil

    def denied(kind: str) -> None:
        raise psutil.AccessDenied

    if os.geteuid() != 0:
        psutil.net_connections = denied  # type: ignore[assignment]


def _become_windows() -> None:
    os.environ["USERNAME"] = "tester"
    sys.modules["os"].name = "nt"  # type: ignore[attr-defined]
    sys.getwindowsversion = lambda: SimpleNamespace(major=10, minor=0, build=22631)  # type: ignore[attr-defined]
    shell = SimpleNamespace(IsUserAnAdmin=lambda: int(os.geteuid() == 0))
    ctypes.windll = SimpleNamespace(shell32=shell)  # type: ignore[attr-defined]
    shutil._winapi = SimpleNamespace(NeedCurrentDirectoryForExePath=lambda _: False)  # type: ignore[attr-defined]
    for name in POSIX_MODULES:
        sys.modules[name] = None  # type: ignore[assignment]
    pathlib.WindowsPath = pathlib.PosixPath  # type: ignore[misc,assignment]


if __name__ == "__main__":
    main(*sys.argv[1:])
