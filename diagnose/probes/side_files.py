"""The resolver's files below a root that is not ours, and hostile: read without following anything out of it.

Every path is walked by openat2(2) as if that root were /. What is found is looked at before it is opened, only a
regular file of a real file system is, and a process of our own does it, which can be killed when a file hangs.
"""

from __future__ import annotations

import errno
import os
import platform
import stat
import threading
import time
from collections.abc import Mapping
from functools import partial

import msgspec

from diagnose import seccomp
from diagnose.model.fact import Fact, Known, Reason, Unknown
from diagnose.probes.apart import apart, write
from diagnose.probes.bounded import started
from diagnose.probes.regular_file import KINDS, PSEUDO
from diagnose.probes.syscalls import file_system, open_below

HOSTS, NSSWITCH, RESOLV, GAI, HOST_CONF = (
    "/etc/hosts",
    "/etc/nsswitch.conf",
    "/etc/resolv.conf",
    "/etc/gai.conf",
    "/etc/host.conf",
)
FILES = (HOSTS, NSSWITCH, RESOLV, GAI, HOST_CONF)
LARGEST = 1 << 20
"""Bytes of a file that is read."""

_LINKS = 8
_MUSL = {"armv7l": "armhf", "armv6l": "armhf", "i686": "i386", "ppc64le": "powerpc64le"}
"""How musl names the machines that uname(2) names otherwise."""


class SideFile(msgspec.Struct, frozen=True):
    """A file as it stands there; one that is not there is empty."""

    path: str
    exists: bool = False
    mode: int = 0
    """Permission bits."""
    owner: int = 0
    group: int = 0
    content: bytes = b""


class Reader(msgspec.Struct, frozen=True):
    """As whom the files are read over there."""

    uid: int
    groups: tuple[int, ...]
    may_read_all: bool
    """It has CAP_DAC_OVERRIDE or CAP_DAC_READ_SEARCH."""

    def reads(self, file: SideFile) -> bool:
        """By the permission bits (path_resolution(7)); access control lists are not looked at."""
        shift = 6 if self.uid == file.owner else 3 if file.group in self.groups else 0
        return self.may_read_all or bool(file.mode >> shift & 4)


class SideFiles(msgspec.Struct, frozen=True):
    """What that side's resolver reads, by the path that it has for it."""

    files: dict[str, Fact[SideFile]]
    musl: bool = False
    """Its C library is musl, which knows neither nsswitch.conf nor gai.conf."""
    inside: str | None = None
    """Whose they are; None: they are files of this machine."""
    reader: Reader | None = None
    """None: root."""

    def readable(self, file: SideFile) -> bool:
        """By the process that would read it."""
        return file.exists and (self.reader is None or self.reader.reads(file))

    def content(self, path: str) -> Fact[bytes]:
        """Empty where there is no such file, or where that process may not read it."""
        match self.files[path]:
            case Known(value=file):
                return Known(file.content if self.readable(file) else b"")
            case Unknown() as unknown:
                return unknown


def read(
    root: int,
    seconds: float,
    paths: Mapping[str, str] | None = None,
    inside: str | None = None,
    reader: Reader | None = None,
) -> SideFiles:
    """The files below this directory; `paths` says where one lies instead. Call it before any thread starts."""
    loader = f"/lib/ld-musl-{_MUSL.get(platform.machine(), platform.machine())}.so.1"
    places = {path: (paths or {}).get(path, path) for path in FILES} | {loader: loader}
    deadline = time.monotonic() + seconds
    late = Unknown(Reason.DEADLINE, f"it could not be read within {seconds:g} s")
    found: dict[str, Fact[SideFile]] = dict.fromkeys(places, late)
    decode = msgspec.json.Decoder(tuple[str, Fact[SideFile]]).decode
    try:
        with apart(lambda writing: _look(root, places, loader, writing), deadline) as child:
            for line in child.lines(deadline):
                path, said = decode(line)
                found[path] = said
    except OSError as error:
        found = dict.fromkeys(places, Unknown(Reason.FAILED, f"fork: {error.strerror}"))
    library = found.pop(loader)
    return SideFiles(found, isinstance(library, Known) and library.value.exists, inside, reader)


def _look(root: int, places: Mapping[str, str], loader: str, writing: int) -> None:
    """Writes a line of JSON a file, each from a thread of its own: one that hangs holds up no other."""
    lock = threading.Lock()

    def work(path: str, place: str) -> None:
        said = msgspec.json.encode((path, _file(root, place, content=path != loader))) + b"\n"
        with lock:
            write(writing, said)

    works = [partial(work, *pair) for pair in places.items()]
    tasks = started(works)
    for one in works[len(tasks) :]:  # this process may have no more threads
        one()
    for task in tasks:
        task.wait(threading.TIMEOUT_MAX)  # we are killed at the deadline


def _file(root: int, path: str, *, content: bool) -> Fact[SideFile]:
    try:
        place = open_below(root, path, os.O_PATH)
    except (FileNotFoundError, NotADirectoryError):
        return Known(SideFile(path)) if _is_absent(root, path) else _leads_nowhere(path)
    except OSError as error:
        return _not_opened(path, error)
    try:
        return _seen(place, path, content=content)
    except OSError as error:
        return Unknown(Reason.FAILED, f"{path}: {error.strerror}")
    finally:
        os.close(place)


def _is_absent(root: int, path: str) -> bool:
    """Whether it is not there for its own processes either: /proc/self on the way is another link for each of them."""
    for _ in range(_LINKS):
        try:
            place = open_below(root, path, os.O_PATH | os.O_NOFOLLOW, links=False)
        except (FileNotFoundError, NotADirectoryError):
            return True
        except OSError:
            return False
        try:
            seccomp.require("readlinkat")
            path = os.path.join(os.path.dirname(path), os.readlink("", dir_fd=place))
        except OSError:  # it is there now
            return False
        finally:
            os.close(place)
    return False


def _leads_nowhere(path: str) -> Unknown:
    return Unknown(Reason.NOT_VISIBLE, f"{path} is a link that leads nowhere from here; its own processes may see more")


def _not_opened(path: str, error: OSError) -> Unknown:
    if error.errno == errno.ENOSYS:
        return Unknown(Reason.KERNEL_TOO_OLD, f"{path} cannot be read safely without openat2", "Linux 5.6 or newer")
    if error.errno == errno.ELOOP:
        return Unknown(Reason.NOT_VISIBLE, f"{path} is a link through /proc that leads out of its root: not followed")
    return Unknown(Reason.FAILED, f"{path}: {error.strerror}")


def _seen(place: int, path: str, *, content: bool) -> Fact[SideFile]:
    """Of a file that is known by its place only (O_PATH): looked at, not opened."""
    status = os.fstat(place)
    kind = stat.S_IFMT(status.st_mode)
    if kind != stat.S_IFREG:
        return Unknown(Reason.NOT_VISIBLE, f"{path} is {KINDS.get(kind, 'no regular file')}: never opened")
    if file_system(place) in PSEUDO:
        return Unknown(Reason.NOT_VISIBLE, f"{path} is a file of the kernel's own: never opened")
    if status.st_size > LARGEST:
        return Unknown(Reason.NOT_VISIBLE, f"{path} has {status.st_size} bytes, and no more than {LARGEST} are read")
    data = _content(place, status.st_size) if content else b""
    return Known(SideFile(path, True, stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, data))


def _content(place: int, size: int) -> bytes:
    """Up to so many bytes: a file that has none is not opened at all."""
    if not size:
        return b""
    descriptor = _opened(f"/proc/self/fd/{place}", os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        parts = []
        while size > 0 and (part := os.read(descriptor, size)):
            parts.append(part)
            size -= len(part)
        return b"".join(parts)
    finally:
        os.close(descriptor)


def _opened(path: str, flags: int) -> int:
    """Without a trace in the file's access time, where the owner's right to that is ours (open(2))."""
    try:
        return os.open(path, flags | os.O_NOATIME)
    except PermissionError:
        return os.open(path, flags)
