"""The files that a person asked for: all of it or nothing, never through another user's link, and that person's own.

A regular file is made without a name in the directory that was looked at before the run, and gets its name when it is
whole: a run that is interrupted, a full disk and a file size limit leave what was there before. Under sudo it belongs
to SUDO_UID and SUDO_GID; a file that this user could not have replaced himself is not replaced for him, because the
new one would be his. Descriptors (/dev/stdout, /dev/fd/N), FIFOs with a reader and terminals are written to as they
are. Windows has neither owners nor links of this kind: there a file is replaced by name.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from msgspec import Struct

from diagnose.probes.path_walk import Place, find, mount_of, permits
from diagnose.temporary import make

_PATIENCE = 10.0
"""Seconds that the reader of a FIFO has to take the next bytes."""
_MEMORY_DEVICES = (os.makedev(1, 3), os.makedev(1, 5), os.makedev(1, 7)) if hasattr(os, "makedev") else ()
"""null, zero and full (admin-guide/devices.txt)."""
_TERMINALS = frozenset({4, 5, *range(136, 144), 166, 188, 204})
"""Majors of consoles, pseudo terminals and serial lines: no other device is opened, for that alone may do something."""
_KINDS = {
    stat.S_IFDIR: "is a directory",
    stat.S_IFSOCK: "is a socket",
    stat.S_IFCHR: "is a device",
    stat.S_IFBLK: "is a device",
}
_NAMELESS_REFUSED = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT)
"""What file systems say that cannot make a file without a name (O_TMPFILE, open(2))."""


class UnwritableError(Exception):
    """A file cannot be written; the message is one line for the user."""


class Wanted(NamedTuple):
    """One file that was asked for."""

    option: str
    path: str
    private: bool
    """For its owner only, whatever mode it has now: others' command lines or packets are in it."""


class _Person(Struct, frozen=True):
    """The person who asked."""

    uid: int
    gid: int
    by_sudo: bool

    @property
    def trusted(self) -> frozenset[int]:
        """Whose links are followed."""
        return frozenset({0, os.geteuid(), self.uid})


def destinations(wanted: Sequence[Wanted]) -> tuple[Destination, ...]:
    """Looks where each file goes, and writes nothing. UnwritableError: where one cannot be written, or two are one."""
    found: list[Destination] = []
    try:
        for one in wanted:
            try:
                found.append(_destination(one))
            except OSError as error:
                raise UnwritableError(f"cannot write {one.path!r}: {error.strerror}") from None
            for other, before in zip(wanted, found[:-1], strict=False):
                if before.identities & found[-1].identities:
                    raise UnwritableError(
                        f"{other.option} {other.path!r} and {one.option} {one.path!r} are the same file: "
                        "give each a file of its own"
                    )
    except UnwritableError:
        for each in found:
            each.close()
        raise
    return tuple(found)


def _destination(wanted: Wanted) -> Destination:
    if sys.platform == "win32":
        return _ByName(wanted.path)
    person = _person()
    if wanted.path == "-":
        return _Stream(wanted.path, _own_descriptor(1), number=1)
    place = find(wanted.path, lambda link: _refuse_foreign(link, person))
    try:
        return _at(place, wanted, person)
    except OSError:
        place.close()
        raise


def _at(place: Place, wanted: Wanted, person: _Person) -> Destination:
    if place.descriptor is not None:
        stream = _Stream(wanted.path, _own_descriptor(place.descriptor), number=place.descriptor)
    elif place.status is None or stat.S_ISREG(place.status.st_mode):
        return _File(wanted, place, person)
    elif stat.S_ISFIFO(place.status.st_mode):
        stream = _Stream(wanted.path, _fifo(place, person), patience=_PATIENCE)
    elif stat.S_ISCHR(place.status.st_mode) and _is_plain_device(place.status.st_rdev):
        stream = _Stream(wanted.path, _device(place))
    else:
        raise OSError(errno.EINVAL, _KINDS.get(stat.S_IFMT(place.status.st_mode), "is no file"))
    place.close()
    return stream


def _person() -> _Person:
    """SUDO_UID counts for root only: anybody can set a variable."""
    uid, gid = os.geteuid(), os.getegid()
    if uid == 0 and (caller := _number("SUDO_UID")) is not None:
        return _Person(caller, caller if (group := _number("SUDO_GID")) is None else group, by_sudo=caller != 0)
    return _Person(uid, gid, by_sudo=False)


def _number(name: str) -> int | None:
    text = os.environ.get(name, "")
    return int(text) if text.isascii() and text.isdecimal() and int(text) < 0xFFFFFFFF else None


def _refuse_foreign(link: os.stat_result, person: _Person) -> None:
    if link.st_uid not in person.trusted:
        raise PermissionError(
            errno.EPERM, f"a link of another user (uid {link.st_uid}) is on the way: name the place that it leads to"
        )


class _File:
    """A regular file, or the place of one; it is replaced as a whole."""

    def __init__(self, wanted: Wanted, place: Place, person: _Person) -> None:
        self.path = wanted.path
        self._private = wanted.private
        self._place = place
        self._person = person
        self._open = True
        self._check(place.status)

    @property
    def identities(self) -> frozenset[object]:
        """The file's own, and its name's: names that differ by case only are one on some file systems."""
        directory, status = os.fstat(self._place.directory), self._place.status
        named = (directory.st_dev, directory.st_ino, self._place.name.casefold())
        return frozenset({named} if status is None else {named, (status.st_dev, status.st_ino)})

    def write(self, data: bytes) -> None:
        """OSError: what was there before still is."""
        descriptor, name = self._unnamed()
        if descriptor is None:
            self._write_named(name, data)
            return
        try:
            self._fill(descriptor, data)
            self._publish(descriptor, name)
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """Lets go of the directory."""
        if self._open:
            self._open = False
            self._place.close()

    def _check(self, status: os.stat_result | None) -> None:
        """Whether it can be made here, or replaced; OSError."""
        directory = os.fstat(self._place.directory)
        enters = self._access(".", os.W_OK | os.X_OK)
        if status is None:
            if not enters:
                raise self._denied("its directory takes no new file")
            return
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "something else stands there now")
        if not self._access(self._place.name, os.W_OK):
            raise self._denied("")
        if not enters or self._is_mounted():
            raise OSError(
                errno.EPERM,
                "its directory does not let it be replaced at once; let the shell write it (> FILE)",
            )
        if self._person.by_sudo and not self._is_theirs(status, directory):
            raise OSError(
                errno.EPERM,
                f"it belongs to uid {status.st_uid}, and would be the property of the user who called sudo "
                f"(uid {self._person.uid}), who may not replace it; choose a new name",
            )
        if os.geteuid() != 0 and _keeps_others_out(directory, status, os.geteuid()):
            raise OSError(errno.EPERM, "only its owner may replace it: its directory is sticky")

    def _is_mounted(self) -> bool:
        """Whether an engine has mounted this very file: another cannot take its place."""
        return self._place.file is not None and mount_of(self._place.file) != mount_of(self._place.directory)

    def _is_theirs(self, status: os.stat_result, directory: os.stat_result) -> bool:
        """Whether the caller of sudo could have put a file of their own into its place."""
        uid, gid = self._person.uid, self._person.gid
        return status.st_uid == uid or (
            permits(directory, 3, uid, gid)
            and self._place.searchable(uid, gid)
            and not _keeps_others_out(directory, status, uid)
        )

    def _access(self, name: str, rights: int) -> bool:
        return os.access(
            name,
            rights,
            dir_fd=self._place.directory,
            effective_ids=os.access in os.supports_effective_ids,
        )

    def _denied(self, why: str) -> OSError:
        """The errno that an attempt would have given."""
        with suppress(OSError):
            descriptor = os.open(".", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._place.directory)
            try:
                if os.fstatvfs(descriptor).f_flag & os.ST_RDONLY:
                    return OSError(errno.EROFS, os.strerror(errno.EROFS))
            finally:
                os.close(descriptor)
        text = os.strerror(errno.EACCES)
        return PermissionError(errno.EACCES, f"{text} ({why})" if why else text)

    def _mode(self) -> int | None:
        """The mode to give it; None: what the umask leaves of 0666."""
        if self._private:
            return 0o600
        status = self._place.status
        if status is None or status.st_uid not in (os.geteuid(), self._person.uid):
            return None  # another user's mode may be open to all
        return stat.S_IMODE(status.st_mode) & 0o777

    def _unnamed(self) -> tuple[int | None, str]:
        """A file without a name, where the system has that; and a name that nothing here has."""
        name = f".netdiag-{os.urandom(8).hex()}"
        if not hasattr(os, "O_TMPFILE") or not os.path.isdir("/proc/self/fd"):
            return None, name
        try:
            flags = os.O_WRONLY | os.O_TMPFILE | os.O_CLOEXEC
            return os.open(".", flags, self._first_mode(), dir_fd=self._place.directory), name
        except OSError as error:
            if error.errno not in _NAMELESS_REFUSED:
                raise
            return None, name

    def _first_mode(self) -> int:
        return 0o666 if self._mode() is None else 0o600

    def _fill(self, descriptor: int, data: bytes) -> None:
        """The content, the owner and the mode."""
        _write_all(descriptor, data)
        if self._person.by_sudo:
            os.fchown(descriptor, self._person.uid, self._person.gid)
        mode = self._mode()
        if mode is not None:
            os.fchmod(descriptor, mode)
        _sync(descriptor)

    def _publish(self, descriptor: int, name: str) -> None:
        """Gives the whole file its name; until then another one, which goes with the process."""
        source, directory = f"/proc/self/fd/{descriptor}", self._place.directory
        if self._standing() is None:
            try:
                os.link(source, self._place.name, dst_dir_fd=directory)
            except FileExistsError:
                self._standing()
            else:
                return
        _, held = make(lambda: os.link(source, name, dst_dir_fd=directory), lambda _: self._remove(name))
        try:
            os.rename(name, self._place.name, src_dir_fd=directory, dst_dir_fd=directory)
        finally:
            self._remove(name)
            held.let_go()

    def _write_named(self, name: str, data: bytes) -> None:
        directory = self._place.directory
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        mode = self._first_mode()
        descriptor, held = make(
            lambda: os.open(name, flags, mode, dir_fd=directory),
            lambda _: self._remove(name),
        )
        try:
            try:
                self._fill(descriptor, data)
            finally:
                os.close(descriptor)
            self._standing()
            os.rename(name, self._place.name, src_dir_fd=directory, dst_dir_fd=directory)
        finally:
            self._remove(name)
            held.let_go()

    def _remove(self, name: str) -> None:
        with suppress(OSError):
            os.unlink(name, dir_fd=self._place.directory)

    def _standing(self) -> os.stat_result | None:
        """What stands there now; OSError where it is no longer what may be replaced."""
        try:
            status = os.stat(self._place.name, dir_fd=self._place.directory, follow_symlinks=False)
        except FileNotFoundError:
            return None
        self._check(status)
        return status


class _Stream:
    """A descriptor that takes bytes as they come."""

    def __init__(self, path: str, descriptor: int, patience: float | None = None, number: int | None = None) -> None:
        self.path = path
        self._descriptor = descriptor
        self._patience = patience
        self._number = number

    @property
    def identities(self) -> frozenset[object]:
        """Of what is open there."""
        status = os.fstat(self._descriptor)
        return frozenset({(status.st_dev, status.st_ino)})

    def write(self, data: bytes) -> None:
        """OSError; a reader of standard output that has gone is none."""
        try:
            _write_all(self._descriptor, data, self._patience)
        except BrokenPipeError:
            if self._number != 1:
                raise

    def close(self) -> None:
        """The reader hears of the end."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class _ByName:
    """A file where there are no descriptors of directories."""

    def __init__(self, path: str) -> None:
        self.path = path
        if os.path.isdir(path):
            raise IsADirectoryError(errno.EISDIR, "is a directory")
        if not os.path.isdir(os.path.dirname(path) or "."):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))

    @property
    def identities(self) -> frozenset[object]:
        """By its whole name."""
        return frozenset({os.path.realpath(self.path).casefold()})

    def write(self, data: bytes) -> None:
        """OSError: what was there before still is."""
        name = f"{self.path}.{os.urandom(8).hex()}"
        file, held = make(lambda: open(name, "xb"), lambda _: _remove_by_name(name))  # noqa: SIM115 - closed below
        try:
            with file:
                file.write(data)
            os.replace(name, self.path)
        finally:
            _remove_by_name(name)
            held.let_go()

    def close(self) -> None:
        """Nothing was held."""


def _remove_by_name(name: str) -> None:
    with suppress(OSError):
        os.unlink(name)


Destination = _File | _Stream | _ByName
"""Where a file goes, looked at before anything was probed; two that share an identity are the same file."""


def _keeps_others_out(directory: os.stat_result, status: os.stat_result, uid: int) -> bool:
    """Whether the directory is sticky and neither it nor the file belongs to this user (rename(2))."""
    return bool(directory.st_mode & stat.S_ISVTX) and uid not in (0, directory.st_uid, status.st_uid)


def _own_descriptor(number: int) -> int:
    """A second one of the same open file, if it was handed to us and takes bytes."""
    import fcntl  # not on Windows

    if not os.get_inheritable(number):
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    if fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
        raise OSError(errno.EBADF, "it is open for reading only")
    return os.dup(number)


def _fifo(place: Place, person: _Person) -> int:
    if place.status is None or place.status.st_uid not in person.trusted:
        raise PermissionError(errno.EPERM, "is a FIFO of another user")
    try:
        return place.open(os.O_WRONLY | os.O_NONBLOCK)
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise OSError(errno.ENXIO, "is a FIFO from which no process reads") from None
        raise


def _is_plain_device(device: int) -> bool:
    return device in _MEMORY_DEVICES or os.major(device) in _TERMINALS or sys.platform != "linux"


def _device(place: Place) -> int:
    descriptor = place.open(os.O_WRONLY | os.O_NONBLOCK)
    os.set_blocking(descriptor, True)
    return descriptor


def _write_all(descriptor: int, data: bytes, patience: float | None = None) -> None:
    """Waits where the descriptor does not; `patience`: seconds that each wait may take, None for no limit."""
    left = memoryview(data)
    while left:
        try:
            left = left[os.write(descriptor, left) :]
        except BlockingIOError:
            _wait(descriptor, patience)


def _wait(descriptor: int, patience: float | None) -> None:
    from select import POLLOUT, poll  # absent on Windows

    ready = poll()
    ready.register(descriptor, POLLOUT)
    begun = time.monotonic()
    if not ready.poll(None if patience is None else patience * 1000):
        waited = time.monotonic() - begun
        raise TimeoutError(errno.ETIMEDOUT, f"its reader has taken nothing for {waited:.0f} s")


def _sync(descriptor: int) -> None:
    """So that a full network file system or a quota says so before the old file is gone."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
