"""The command `netdiag`, beside the packages that it starts: so it can say that others stand in their place."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from importlib.machinery import PathFinder
from typing import NoReturn

PACKAGES = ("diagnose", "checks")
CANNOT_START = 70
_DESCRIPTORS = 48
"""Files and sockets that may be open at once in a diagnosis of a few targets."""
_FEW_FILES = f"it needs {_DESCRIPTORS} more open files than it may have (ulimit -n, RLIMIT_NOFILE)"
_ADDRESS_SPACE = 256 << 20
"""Bytes, most of them for the stacks of threads: below it the interpreter itself aborts or hangs."""
_ROOT = os.path.dirname(os.path.abspath(__file__))
_LIMITS = {
    "Too many open files": "ulimit -n, RLIMIT_NOFILE",
    "can't start new thread": "ulimit -u, RLIMIT_NPROC",
    "MemoryError": "ulimit -v, RLIMIT_AS",
    "Cannot allocate memory": "ulimit -v, RLIMIT_AS",
    "cannot allocate memory": "ulimit -v, RLIMIT_AS",
    "failed to map segment": "ulimit -v, RLIMIT_AS",
}
"""What such an error says, and the limit of this process that it met (getrlimit(2))."""


def main() -> NoReturn:
    """Runs the command and ends the process with its exit code."""
    _undo_what_the_parent_left()
    _occupy_standard_descriptors()
    if lack := _lack():
        _refuse(f"cannot start: {lack}")
    for name in PACKAGES:
        if stranger := _stranger(name):
            _refuse(f"{stranger} stands in the place of netdiag's own package {name}: rename it, or unset PYTHONPATH")
    try:
        import gc
        from time import monotonic

        gc.disable()  # what is loaded now stays: to look through it again and again takes a tenth of a quick run
        if _is_filtered():
            from diagnose import seccomp

            if call := seccomp.heed():
                _refuse(f"cannot start: a seccomp filter forbids {call}(2)")
        began = monotonic()
        from diagnose import signals
        from diagnose.cli import main as command
        from diagnose.pace import measure

        measure(monotonic() - began)
        gc.freeze()
        gc.enable()
        signals.watch()
    except (Exception, SystemExit) as error:  # noqa: BLE001 (whatever it is: one line, no traceback)
        _refuse(f"cannot start: {described(error)}{_raised_in(error)}")
    _exit(_code(command))


def _code(command: Callable[[], object]) -> int:
    try:
        command()
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 0
    except Exception as error:  # noqa: BLE001 (even the line about an error may lack memory)
        _refuse(f"cannot go on: {described(error)}")
    return 0


def _exit(code: int) -> NoReturn:
    """At once: whatever still runs has nothing to say, and the interpreter's own end would flush, wait and fail."""
    temporary = sys.modules.get("diagnose.temporary")
    if temporary is not None:
        temporary.release_all()
    os._exit(code)


def _occupy_standard_descriptors() -> None:
    """So that what we open never becomes our standard output or error, when we were started with these closed."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest that is free: this one


def _lack() -> str | None:
    """Which limit of this process is too small for any diagnosis: what met it midway might tell something untrue."""
    try:
        import resource
    except ImportError:  # Windows; or no file can be opened any more
        return None if os.name == "nt" else _FEW_FILES
    for limit, option in ((resource.RLIMIT_AS, "-v, RLIMIT_AS"), (resource.RLIMIT_DATA, "-d, RLIMIT_DATA")):
        soft, _ = resource.getrlimit(limit)
        if soft != resource.RLIM_INFINITY and soft < _ADDRESS_SPACE:
            return f"it needs {_ADDRESS_SPACE >> 20} MiB of memory, and may have {soft >> 20} (ulimit {option})"
    if _has_room():
        return None
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):
        return _FEW_FILES
    return None if _has_room() else _FEW_FILES


def _has_room() -> bool:
    """Whether so many more files can be opened."""
    copies: list[int] = []
    try:
        copies.extend(os.dup(0) for _ in range(_DESCRIPTORS))
    except OSError:
        return False
    finally:
        for copy in copies:
            os.close(copy)
    return True


def _is_filtered() -> bool:
    """Whether a seccomp filter is active on this process (proc_pid_status(5)), or may be, as that is hidden."""
    try:
        with open("/proc/self/status", "rb") as status:
            text = status.read()
    except OSError:
        return sys.platform == "linux"
    return b"\nSeccomp:" in text and b"\nSeccomp:\t0\n" not in text


def _stranger(name: str) -> str | None:
    """The file that Python would take for our own package, unread; None: it is ours."""
    try:
        spec = PathFinder.find_spec(name)
    except Exception:  # noqa: BLE001 (the import itself will say it)
        return None
    place = spec.origin if spec is not None else None
    ours = os.path.join(_ROOT, name, "__init__.py")
    return None if place is None or os.path.realpath(place) == os.path.realpath(ours) else place


def _undo_what_the_parent_left() -> None:
    """Signals as a program expects them (signal(7)): what is ignored for our sake stays ignored, as by nohup(1)."""
    # built in: to load `signal` takes so long that Ctrl-C would meet it, with a traceback
    import _signal as signal  # type: ignore[import-not-found]

    try:
        if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
    except KeyboardInterrupt:  # it came before
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    if hasattr(signal, "SIGCHLD"):
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, it would take our children's status away (wait(2))
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_SETMASK, ())


def described(error: BaseException) -> str:
    """The error in one line, and where it is known, what lifts it."""
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if limit := _limit(error):
        return f"{text}; a limit of this process is too small ({limit})"
    if isinstance(error, ImportError):
        return f"{text}; install netdiag again"
    return text


def _raised_in(error: BaseException) -> str:
    """The file, where it is none of ours: a stranger in the place of a package that we need."""
    at = error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    file = at.tb_frame.f_code.co_filename if at is not None else ""
    return f" (raised in {file})" if os.path.isabs(file) and not file.startswith(_ROOT + os.sep) else ""


def is_of_this_machine(error: Exception) -> bool:
    """Whether the installation or a limit is to blame, and no bug."""
    return isinstance(error, ImportError) or _limit(error) is not None


def _limit(error: BaseException) -> str | None:
    text = f"{type(error).__name__}: {error}"
    return next((limit for sign, limit in _LIMITS.items() if sign in text), None)


def _refuse(text: str) -> NoReturn:
    line = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in f"netdiag: {text}")
    try:
        os.write(2, line.encode("ascii", "backslashreplace") + b"\n")
    except OSError:
        pass  # standard error is full or gone: there is no other place to say it
    _exit(CANNOT_START)


if __name__ == "__main__":
    main()
