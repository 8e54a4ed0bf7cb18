"""The kernel's own word on one connect: tracepoints read in a tracing instance of our own (as root).

What the events mean is read by diagnose.parse.traced_connect (Documentation/trace/ftrace.rst,
include/trace/events/{skb,net,tcp}.h). Which kernel reports what is in checks/firewall.md.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import stat
import sys
import threading
import time
from collections.abc import Iterator
from types import TracebackType

from msgspec import Struct

from diagnose import temporary
from diagnose.model.attempt import Drop, ResetWitness
from diagnose.model.fact import NOT_LINUX, Fact, Known, Reason, Unknown
from diagnose.model.network import Endpoint, TcpState
from diagnose.parse.ftrace import Event, awaiting_stack, complete, events
from diagnose.parse.traced_connect import Told, told
from diagnose.probes.connect import errno_name, read_icmp_errors
from diagnose.probes.reset import socket_apart

TRACEFS = ("/sys/kernel/tracing", "/sys/kernel/debug/tracing")
PREFIX = "netdiag-"

_INITIAL_PID_NAMESPACE = 0xEFFFFFFC  # PROC_PID_INIT_INO, include/linux/proc_ns.h
_DROP, _QUEUE, _RECEIVE = "skb/kfree_skb", "net/net_dev_queue", "net/netif_receive_skb"
_RESET, _STATE = "tcp/tcp_send_reset", "sock/inet_sock_set_state"
_OPTIONS = (
    "nooverwrite",  # when the buffer is full, the beginning stays: our packet is there
    "stacktrace",  # as an option, not as a trigger: a trigger's removal takes 60 ms more
    "irq-info",
    "context-info",
    "nolatency-format",
    "noraw",
    "nohex",
    "nobin",
)
_IP_ONLY = "protocol == 0x0800 || protocol == 0x86dd"

_POLL_FIRST, _POLL_LAST = 0.0005, 0.016
_REJECTION = 0.002
"""Seconds that the answer of a rule may take after the line of its drop."""
_READS = 256
"""Reads at one look, each of a few KiB: on a machine that drops without end a look must end."""
_READS_AT_LEAST = 16
_LAST_WAIT = 0.25
"""Seconds that the end of the process waits for a probe under way."""
_STALE_READS = 4
"""Reads after which what an earlier probe left in the buffer is thrown away at once instead."""


class TracedConnect(Struct, frozen=True, kw_only=True):
    """A connect of our own and what the kernel told of it while it was under way."""

    connected: bool
    errno: str | None
    """Why it failed; None with `connected` false: no answer within the wait, or before a drop settled it."""
    source: Endpoint | None
    drops: Fact[tuple[Drop, ...]]
    """Known only by a line about our packet, or, and then empty, by the connection itself."""
    reset: Fact[ResetWitness]
    ms: float


class _Story:
    """What the trace tells of one connect, as far as it has been read."""

    def __init__(self, thread: int, source: int, target: int) -> None:
        self.told = Told()
        self._thread, self._source, self._target = thread, source, target
        self._lines: list[str] = []
        self._trace: list[Event] = []
        self._dry = False
        """The last piece of text was empty."""

    def add(self, text: str) -> None:
        """Takes the next piece of text; the empty one says that there is no more at present.

        An event and its stack are written one after the other: an event at the end waits for the next look.
        """
        self._lines += text.split("\n")  # not splitlines: a task's name may hold other line separators
        count = complete(self._lines) if text else self._count_at_a_pause()
        self._dry = not text
        ready, self._lines = self._lines[:count], self._lines[count:]
        self._trace += events(ready)
        self.told = told(self._trace, self._thread, self._source, self._target)
        if self.told.packets:
            self._trace = [event for event in self._trace if self._matters(event)]

    def _count_at_a_pause(self) -> int:
        return len(self._lines) if self._dry else awaiting_stack(self._lines)

    def _matters(self, event: Event) -> bool:
        return event.pid == self._thread or event.name != "kfree_skb" or event.packet in self.told.packets


class Tracer:
    """A tracing instance of this process; `close` removes it and may take 50 ms: do it after the answer."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._pipe = -1
        self._lock = threading.RLock()
        self._closing = threading.Event()
        self._held: temporary.Held | None = None

    def __enter__(self) -> Tracer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def open(self) -> None:
        """Makes the instance; OSError with the kernel's errno, and then nothing is left behind."""
        _, self._held = temporary.make(self._make, lambda _: self._release())

    def _make(self) -> None:
        os.mkdir(self._path)
        try:
            self._write("tracing_on", "0")
            for option in _OPTIONS:
                self._write("trace_options", option)
            self._hash_pointers()
            self._write(f"events/{_DROP}/filter", _IP_ONLY)
            for event in (_RECEIVE, _QUEUE):
                self._write(f"events/{event}/filter", "common_pid == 0")
            for event in (_DROP, _QUEUE, _RECEIVE, _RESET, _STATE):
                self._write(f"events/{event}/enable", "1")
            self._pipe = os.open(f"{self._path}/trace_pipe", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except BaseException:
            _remove(self._path)
            raise

    def _hash_pointers(self) -> None:
        """Lets addresses be printed as hashes, as long as we look: the hash of 32 bits joins as well.

        The option is new in Linux 5.13, and with it off kernels up to 6.1 at least print the first string of an event
        empty: the reason of a drop. An instance begins with the options of the machine's own trace.
        """
        try:
            self._write("trace_options", "hash-ptr")
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise

    def close(self) -> None:
        """Removes the instance; harmless when repeated. What killed runs have left behind goes as well."""
        if self._held is not None:
            self._release()
            self._held.let_go()
        sweep()

    def _release(self) -> None:
        """Ends a probe under way in another thread, and removes the instance; that thread may hang in the kernel."""
        self._closing.set()
        locked = self._lock.acquire(timeout=_LAST_WAIT)
        try:
            pipe, self._pipe = self._pipe, -1
            if pipe >= 0:
                os.close(pipe)
            _remove(self._path)
        finally:
            if locked:
                self._lock.release()

    def probe(self, address: str, port: int, wait: float, *, half_open: bool = False) -> TracedConnect:
        """Connects from this thread and reads what the kernel told, until it did or for at most `wait` seconds.

        With `half_open` it reads on after the answer, for what became of our ACK.
        OSError when the instance or a socket cannot be had.
        """
        with self._lock:
            if self._closing.is_set():
                raise OSError(errno.ESHUTDOWN, "the tracer is closed")
            self._discard()
            self._follow(threading.get_native_id())
            try:
                return self._connect(address, port, wait, half_open)
            finally:
                self._write("tracing_on", "0")

    def _connect(self, address: str, port: int, wait: float, half_open: bool) -> TracedConnect:
        numeric = address.encode()  # of a str getaddrinfo makes IDNA, and loads its tables for that
        found = socket.getaddrinfo(numeric, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)[0]
        family, sockaddr = found[0], found[4]
        with socket_apart(family, port) as sock:
            source: int = sock.getsockname()[1]
            self._write(f"events/{_STATE}/filter", f"sport == {source} && dport == {port}")
            self._write("tracing_on", "1")
            began = time.monotonic()
            number = sock.connect_ex(sockaddr)
            story = _Story(threading.get_native_id(), source, port)
            for pause in _pauses(began + wait):
                number, connected = _progress(sock, number)
                self._read(story, sock, began + wait, half_open)
                waits_on = half_open and connected and not story.told.ack
                if (connected and not waits_on) or number or self._closing.is_set():
                    break
                if story.told.drops:  # a rule that rejects sends its answer before it frees our packet
                    _await(sock, _REJECTION)
                    number, connected = _progress(sock, number)
                    break
                _await(sock, pause)
            self._read(story, sock, began + wait, half_open)
            return TracedConnect(
                connected=connected,
                errno=errno_name(number) if number else None,
                source=_source(sock),
                drops=self._drops(story.told, sock, connected, half_open),
                reset=_reset(story.told, sock, number),
                ms=round((time.monotonic() - began) * 1000, 3),
            )

    def _drops(self, story: Told, sock: socket.socket, connected: bool, half_open: bool) -> Fact[tuple[Drop, ...]]:
        # Once an answer came, our packet's address may be another packet's: the line that says so must have been
        # read, or the socket must still wait for the answer.
        if story.drops and (story.left or _awaits_answer(sock)):
            return Known(story.drops)
        if story.ack:
            return Known(story.ack)
        if connected and not half_open:
            return Known(())
        if lost := self._lost():
            return Unknown(Reason.FAILED, f"{lost} events of the trace were lost: this machine is busy", "run again")
        return Unknown(Reason.NOT_VISIBLE, "the kernel reported no drop of our packet, which proves nothing")

    def _follow(self, thread: int) -> None:
        for event in (_RECEIVE, _QUEUE):
            self._write(f"events/{event}/filter", f"common_pid == {thread}")

    def _discard(self) -> None:
        """Empties the buffer of what came after an earlier probe's last look; it is off meanwhile."""
        for _ in range(_STALE_READS):
            if not self._chunk():
                return
        os.close(os.open(f"{self._path}/trace", os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC))

    def _read(self, story: _Story, sock: socket.socket, deadline: float, half_open: bool) -> None:
        """Reads until the story is told or the buffer is empty, and no further: each line costs the kernel time."""
        for count in range(_READS):
            left = story.told.ack if half_open else story.told.left
            if left or (story.told.drops and _awaits_answer(sock)):
                return
            chunk = self._chunk()
            story.add(chunk.decode(errors="backslashreplace"))
            if not chunk or (count >= _READS_AT_LEAST and time.monotonic() > deadline):
                return

    def _chunk(self) -> bytes:
        try:
            return os.read(self._pipe, 1 << 16)
        except BlockingIOError:
            return b""

    def _lost(self) -> int:
        """Events that did not find room, over all CPUs."""
        lost = 0
        with os.scandir(f"{self._path}/per_cpu") as cpus:
            for cpu in cpus:
                with open(f"{cpu.path}/stats", encoding="ascii") as stats:
                    lost += sum(int(line.split(":")[1]) for line in stats if line.startswith(_LOST))
        return lost

    def _write(self, name: str, text: str) -> None:
        file = os.open(f"{self._path}/{name}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(file, text.encode())
        finally:
            os.close(file)


_LOST = ("overrun:", "commit overrun:", "dropped events:")


def _awaits_answer(sock: socket.socket) -> bool:
    """Whether the socket is in SYN-SENT (the first byte of struct tcp_info, linux/tcp.h)."""
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == TcpState.SYN_SENT


def _pauses(deadline: float) -> Iterator[float]:
    """How long to wait before each next look: short at first, and one last look when the deadline has passed."""
    pause = _POLL_FIRST
    while (left := deadline - time.monotonic()) > 0:
        yield min(pause, left)
        pause = min(pause * 2, _POLL_LAST)
    yield 0.0


def _progress(sock: socket.socket, number: int) -> tuple[int, bool]:
    """The errno (0: none yet) and whether it is connected."""
    if number not in (0, errno.EINPROGRESS):
        return number, False
    if error := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
        return error, False
    try:
        sock.getpeername()
    except OSError:
        return 0, False
    return 0, True


def _await(sock: socket.socket, pause: float) -> None:
    poller = select.poll()
    poller.register(sock, select.POLLOUT)
    poller.poll(pause * 1000)


def _source(sock: socket.socket) -> Endpoint | None:
    name = sock.getsockname()
    return Endpoint(name[0].partition("%")[0], name[1]) if name[1] else None


def _reset(story: Told, sock: socket.socket, number: int) -> Fact[ResetWitness]:
    """Who sent the reset: the kernel's TCP by its own line, or somebody else where our SYN never got to it."""
    if number not in (errno.ECONNREFUSED, errno.ECONNRESET):
        return Unknown(Reason.NOT_NEEDED, "there was no reset")
    if story.reset is not None:
        return Known(ResetWitness(by_kernel=True, distinct=True, source=story.reset, counted=1))
    match read_icmp_errors(sock):
        case Known(value=()):
            pass
        case Known():
            return Unknown(Reason.NOT_NEEDED, "an ICMP error refused it, not a reset")
        case Unknown() as unknown:
            return unknown
    if any(drop.packet == "syn" and drop.reason == "NETFILTER_DROP" for drop in story.drops):
        return Known(ResetWitness(by_kernel=False, distinct=True, source="kfree_skb"))
    return Unknown(Reason.NOT_VISIBLE, "the kernel reported no reset between our two ports, which proves nothing")


def open_tracer() -> Fact[Tracer]:
    """A tracer, or why there is none: not root, tracefs not mounted (it never is mounted here), an old kernel."""
    if not sys.platform.startswith("linux"):
        return NOT_LINUX
    if os.geteuid() != 0:
        return Unknown(Reason.NEEDS_ROOT, "tracing belongs to root", "run again with sudo")
    try:
        return _opened()
    except PermissionError as error:
        where = error.filename or "tracefs"
        return Unknown(Reason.NEEDS_ROOT, f"{where}: {error.strerror}", "run it on the host as root")
    except OSError as error:
        return Unknown(Reason.FAILED, f"{error.filename or 'tracefs'}: {error.strerror}")


def _opened() -> Fact[Tracer]:
    """OSError where a file of /proc or tracefs is denied, as a security module does to root as well."""
    if os.stat("/proc/self/ns/pid").st_ino != _INITIAL_PID_NAMESPACE:
        return Unknown(
            Reason.NOT_VISIBLE, "in a PID namespace the trace's thread ids are not ours", "run it on the host"
        )
    root = next((path for path in TRACEFS if _is_mounted(path)), None)
    if root is None:
        return Unknown(
            Reason.NOT_MOUNTED, "tracefs is not mounted", "mount -t tracefs tracefs /sys/kernel/tracing, as root"
        )
    if too_old := _too_old(root):
        return Unknown(Reason.KERNEL_TOO_OLD, too_old)
    tracer = Tracer(f"{root}/instances/{_instance()}")
    tracer.open()
    return Known(tracer)


def _is_mounted(path: str) -> bool:
    """OSError where that is hidden."""
    try:
        return stat.S_ISDIR(os.stat(f"{path}/instances").st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _too_old(root: str) -> str:
    """What this kernel's tracepoints lack, or nothing."""
    for event, needed in ((_DROP, "skbaddr"), (_QUEUE, "skbaddr"), (_RECEIVE, "skbaddr"), (_RESET, ""), (_STATE, "")):
        try:
            with open(f"{root}/events/{event}/format", encoding="ascii", errors="backslashreplace") as format_:
                text = format_.read()
        except FileNotFoundError:
            return f"it has no tracepoint {event}"
        if needed and f" {needed};" not in text:
            return f"its tracepoint {event} does not tell the {needed}"
    return ""


def _sees_every_process() -> bool:
    try:
        return os.stat("/proc/self/ns/pid").st_ino == _INITIAL_PID_NAMESPACE
    except OSError:
        return False


def _instance() -> str:
    pid = os.getpid()
    return f"{PREFIX}{pid}-{_started(pid)}"


def _started(pid: int) -> int | None:
    """Start time in clock ticks since boot (field 22 of /proc/PID/stat); None when there is no such process.

    OSError where it is hidden.
    """
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="backslashreplace") as file:
            return int(file.read().rpartition(")")[2].split()[19])
    except (FileNotFoundError, ProcessLookupError):
        return None


def sweep() -> tuple[str, ...]:
    """Removes the instances that killed runs left behind (their pid and start time are gone), and names them.

    Each takes about 50 ms: after the answer.
    """
    if not sys.platform.startswith("linux") or os.geteuid() != 0 or not _sees_every_process():
        return ()
    removed: list[str] = []
    for root in TRACEFS:
        try:
            names = sorted(os.listdir(f"{root}/instances"))
        except OSError:  # not mounted there
            continue
        removed += [name for name in names if _is_leftover(name) and _remove(f"{root}/instances/{name}")]
    return tuple(removed)


def _is_leftover(name: str) -> bool:
    pid, _, started = name.removeprefix(PREFIX).partition("-")
    if not (name.startswith(PREFIX) and pid.isdigit() and started.isdigit()):
        return False
    try:
        return _started(int(pid)) != int(started)
    except OSError:  # it is hidden, and may be at work
        return False


def _remove(path: str) -> bool:
    try:
        os.rmdir(path)
    except (FileNotFoundError, OSError) as error:
        return isinstance(error, FileNotFoundError)
    return True
