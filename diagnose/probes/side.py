"""Finds what --from names, and moves this process into its network namespace.

Nothing else of that side is entered: we stay in our own mount, PID and user namespaces, and run our own code only.
"""

from __future__ import annotations

import errno
import os
import select
from collections.abc import Callable
from contextlib import suppress

from msgspec.structs import replace

from diagnose import seccomp
from diagnose.model.container import EngineContainer
from diagnose.model.fact import Fact, Known, Reason, Unknown
from diagnose.model.process import Container
from diagnose.model.side import OfContainer, OfNamespace, OfProcess, Origin, Side
from diagnose.pace import patient
from diagnose.parse.cgroup import membership
from diagnose.probes import side_files
from diagnose.probes.namespaces import NAMES
from diagnose.probes.processes import describe
from diagnose.probes.side_files import Reader, SideFiles
from diagnose.probes.syscalls import enter_network

OVERLAYS = "/etc/netns"
"""`ip netns exec NAME` mounts the files of /etc/netns/NAME over those of /etc (ip-netns(8))."""
_ENGINE_SECONDS = patient(2.0, 8.0)
_FILE_SECONDS = patient(2.0, 4.0)
_READ_ALL = 0b110
"""CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH (linux/capability.h)."""
_SHORT_ID = 12
_FEWEST_DIGITS = 4
"""Of a container's id that is looked for in /proc without the engine's word."""


class NoSuchSideError(Exception):
    """There is nothing of that name to look from; the message is one line for the user."""


class Arrived:
    """That side, found, and after `enter` seen from within; its processes are held by handles, not by their numbers."""

    def __init__(
        self,
        origin: Origin,
        side: Side,
        *,
        container: Container | None = None,
        namespace: int | None = None,
        directory: int | None = None,
    ) -> None:
        self.origin = origin
        self.side = side
        self.container = container
        self.files: SideFiles | None = None
        """The files that its resolver reads; None: those of this machine, by the machine's own resolver."""
        self._namespace = namespace
        """Its network namespace; None: we may not open it."""
        self._directory = directory
        """/proc/PID, held open: it never becomes another process's."""
        self._process = _handle(side.pid)
        self._home: int | None = None
        """Our own network namespace; None: it was never left."""

    def enter(self) -> None:
        """Reads its files, and takes this thread and all that it starts into its network namespace.

        PermissionError: that needs root. NoSuchSideError: it ended just now. Call it before any thread starts.
        """
        if self._namespace is None:
            raise PermissionError(errno.EPERM, "its network namespace may not be opened")
        try:
            self._move(self._namespace)
        except PermissionError:
            raise
        except OSError as error:
            raise NoSuchSideError(f"{self.side.name} cannot be looked from: {error.strerror}") from None

    def _move(self, namespace: int) -> None:
        files = self._read_files()
        if not _is_our_own(namespace):
            self._home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            enter_network(namespace)
        else:
            self.side = replace(self.side, namespace=None)
        self.files = files
        self.side = replace(self.side, own_files=files is None, entered=True, confined=self._confinement())

    def leave(self) -> None:
        """Takes this thread, and those that it starts, back to our own network namespace.

        What is asked by an address of loopback (an engine's tcp://127.0.0.1) must never be asked of that side.
        """
        if self._home is not None:
            enter_network(self._home)

    def process(self) -> int | None:
        """A process in its network namespace that we may see; None: there is none."""
        if self.side.pid is not None or self._namespace is None:
            return self.side.pid
        wanted = os.fstat(self._namespace)
        for pid in sorted(int(name) for name in os.listdir("/proc") if name.isdigit()):
            with suppress(OSError):
                if _same(os.stat(f"/proc/{pid}/ns/net"), wanted):
                    return pid
        return None

    def now(self) -> Side:
        """The side with what has become of its process meanwhile."""
        return replace(self.side, ended=self._process is not None and _has_ended(self._process))

    def _read_files(self) -> SideFiles | None:
        if isinstance(self.origin, OfNamespace):
            return _overlaid(self.origin.name)
        assert self._directory is not None
        root = os.open("root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._directory)
        try:
            if _same(os.fstat(root), os.stat("/")) and self._shares("mnt"):
                return None
            return side_files.read(root, _FILE_SECONDS, inside=self.side.name, reader=self._reader())
        finally:
            os.close(root)

    def _shares(self, namespace: str) -> bool:
        theirs = os.stat(f"ns/{namespace}", dir_fd=self._directory)
        return _same(theirs, os.stat(f"/proc/self/ns/{namespace}"))

    def _status(self) -> dict[str, str]:
        """proc_pid_status(5)."""
        return dict(line.split(":\t", 1) for line in self.text("status").splitlines() if ":\t" in line)

    def _reader(self) -> Reader:
        status = self._status()
        groups = (status["Gid"].split()[1], *status["Groups"].split())
        return Reader(
            uid=int(status["Uid"].split()[1]),
            groups=tuple(int(group) for group in groups),
            may_read_all=bool(int(status["CapEff"], 16) & _READ_ALL),
        )

    def _confinement(self) -> tuple[str, ...]:
        """What bounds the process and not us; nothing for a namespace alone."""
        if self._directory is None:
            return ()
        try:
            status = self._status()
            label = self._label()
        except OSError as error:
            return (f"what else is not known (/proc/{self.side.pid}: {error.strerror})",)
        found = []
        if int(status["Uid"].split()[1]) != os.geteuid():
            found.append(f"it runs as the user {self.side.user}")
        if status.get("Seccomp", "0") != "0":
            found.append("it has a seccomp filter")
        if label:
            found.append(f"it has the security label {label}")
        return tuple(found)

    def _label(self) -> str:
        """AppArmor's profile or SELinux's context; empty where it is unconfined or there is no such module."""
        try:
            label = self.text("attr/current").strip("\0\n ")
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENOENT):
                return ""
            raise
        return "" if label == "unconfined" else label

    def text(self, name: str) -> str:
        """A file of /proc/PID; OSError when the process has ended."""
        descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._directory)
        with open(descriptor, encoding="utf-8", errors="backslashreplace") as file:
            return file.read()


AskEngines = Callable[[str], Fact[EngineContainer]]
"""Raises NoSuchSideError when the engines that answer have no such container."""


def _ask_engines(name: str) -> Fact[EngineContainer]:
    from diagnose.probes import engines  # 0.1 s with the client library, which only container:NAME needs

    try:
        return engines.find(name, _ENGINE_SECONDS)
    except engines.NoSuchContainerError as error:
        raise NoSuchSideError(f"--from container:{name}: {error}") from None


def find(origin: Origin, ask_engines: AskEngines = _ask_engines) -> Arrived:
    """What the user named, not yet entered. NoSuchSideError: there is no such thing, or it does not run."""
    match origin:
        case OfNamespace():
            return _named(origin)
        case OfProcess():
            return _process(origin, origin.pid)
        case OfContainer():
            return _container(origin, ask_engines)


def _named(origin: OfNamespace) -> Arrived:
    path = f"{NAMES}/{origin.name}"
    try:
        namespace = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise NoSuchSideError(f"no network namespace is named {origin.name!r}; ip netns lists those that are") from None
    except OSError as error:
        raise NoSuchSideError(f"{path}: {error.strerror}") from None
    if os.fstat(namespace).st_dev != os.stat("/proc/self/ns/net").st_dev:
        os.close(namespace)
        raise NoSuchSideError(f"{path} is no network namespace, but what one left behind; ip netns delete removes it")
    return Arrived(origin, Side(f"network namespace {origin.name}", path, entered=False), namespace=namespace)


def _process(origin: Origin, pid: int, container: Container | None = None) -> Arrived:
    """By /proc/PID, held open from the first moment: what is read below it is that process's or fails."""
    gone = NoSuchSideError(f"no process has the number {pid}")
    try:
        directory = os.open(f"/proc/{pid}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        raise gone from None
    process = describe(pid)
    if process is None:
        raise gone
    try:
        namespace: int | None = os.open("ns/net", os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
    except PermissionError:
        namespace = None
    except OSError:
        raise NoSuchSideError(f"the process {pid} ({process.program}) has ended") from None
    container = container or process.container
    inside = isinstance(origin, OfContainer) and container
    name = f"container {_called(inside)}" if inside else f"process {pid} ({process.program})"
    side = Side(name, f"/proc/{pid}/ns/net", pid=pid, user=process.user, entered=False)
    return Arrived(origin, side, container=container, namespace=namespace, directory=directory)


def _container(origin: OfContainer, ask_engines: AskEngines) -> Arrived:
    """By the engine's word; where none gives it, by the id in the cgroups."""
    try:
        told = ask_engines(origin.name)
    except NoSuchSideError:
        seen = _by_id(origin.name)
        if seen is None:
            raise
        return _process(origin, *seen)
    if isinstance(told, Known):
        return _by_engine(origin, told.value)
    seen = _by_id(origin.name)
    if seen is None:
        raise NoSuchSideError(f"no container {origin.name!r} was found: {told.detail}{_as_root(told)}")
    return _process(origin, *seen)


def _as_root(told: Unknown) -> str:
    return "; try it with sudo" if told.reason is Reason.NEEDS_ROOT else ""


def _by_engine(origin: OfContainer, told: EngineContainer) -> Arrived:
    """The engine counts pids as its own machine does: the process must bear the container's mark here, too."""
    name = _called(told.container)
    if not told.pid:
        raise NoSuchSideError(f"the container {name!r} does not run (it is {told.status.value}): nothing to look from")
    found = _process(origin, told.pid, told.container)
    try:
        marked = told.container.id in found.text("cgroup")
    except OSError:
        raise NoSuchSideError(f"the container {name!r} has ended just now") from None
    if not marked:
        raise NoSuchSideError(
            f"the engine says that {name!r} runs as process {told.pid}, and that process here is not in the "
            "container's cgroup: does the engine run on another machine? If you know its process: --from pid:N"
        )
    return found


def _by_id(text: str) -> tuple[int, Container] | None:
    """The first process of the one container whose id starts so, by the cgroups: readable for every user."""
    if len(text) < _FEWEST_DIGITS:
        return None
    found: dict[str, tuple[int, Container]] = {}
    for pid in sorted(int(name) for name in os.listdir("/proc") if name.isdigit()):
        with suppress(OSError), open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="backslashreplace") as file:
            container = membership(file.read()).container
            if container and container.id.startswith(text):
                found.setdefault(container.id, (pid, container))
    return next(iter(found.values())) if len(found) == 1 else None


def _called(container: Container) -> str:
    return container.name or container.id[:_SHORT_ID]


def _overlaid(name: str) -> SideFiles | None:
    """The files of /etc/netns/NAME in the place of those of /etc; None: there are none that a resolver reads."""
    paths = {path: f"{OVERLAYS}/{name}/{os.path.basename(path)}" for path in side_files.FILES}
    paths = {path: other for path, other in paths.items() if os.path.exists(other)}
    if not paths:
        return None
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return side_files.read(root, _FILE_SECONDS, paths)
    finally:
        os.close(root)


def _is_our_own(namespace: int) -> bool:
    return _same(os.fstat(namespace), os.stat("/proc/self/ns/net"))


def _same(one: os.stat_result, other: os.stat_result) -> bool:
    return (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)


def _handle(pid: int | None) -> int | None:
    """A descriptor that tells when the process ends (pidfd_open(2)); None where there is none."""
    if pid is None:
        return None
    try:
        seccomp.require("pidfd_open")
        return os.pidfd_open(pid)
    except OSError:  # it has ended already, or is a mere thread
        return None


def _has_ended(process: int) -> bool:
    ready = select.poll()
    ready.register(process, select.POLLIN)
    return bool(ready.poll(0))
