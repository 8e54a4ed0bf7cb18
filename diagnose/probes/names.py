"""Names as this machine's own resolver answers them, and the files that it reads."""

from __future__ import annotations

import errno
import os
import signal
import socket
import stat
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence

import msgspec

from diagnose.model.fact import NOT_LINUX, Fact, Known, Reason, Unknown
from diagnose.model.names import HostsFile, Kind, Resolution, ResolvedAddress, ResolverConfig
from diagnose.model.network import family_of
from diagnose.pace import patient
from diagnose.parse.hosts import parse_hosts, starts_with_bom
from diagnose.parse.nsswitch import parse_gai, parse_nameservers, parse_nsswitch_hosts, quoted_hosts_line
from diagnose.probes import regular_file
from diagnose.probes.apart import Child, apart, write
from diagnose.probes.bounded import NO_THREAD, started
from diagnose.probes.path_walk import mount_of
from diagnose.probes.regular_file import NotRegularError

LINUX = sys.platform.startswith("linux")
HOSTS = (
    os.path.join(os.environ.get("SYSTEMROOT", r"C:\Windows"), r"System32\drivers\etc\hosts")
    if sys.platform == "win32"
    else "/etc/hosts"
)
NSSWITCH, RESOLV, GAI = "/etc/nsswitch.conf", "/etc/resolv.conf", "/etc/gai.conf"
HOST_CONF = "/etc/host.conf"


_AT_ONCE = 32
"""Names that are asked for at the same time; one that hangs holds up no other until this many hang."""

_SECONDS_WITH_ODD_FILES = patient(3.0, 5.0)
"""Seconds for the resolver where one of its files is no regular file: it may wait for such a file for good."""
_MOST_MEMORY = 48 << 20
"""Bytes more than at its start for a resolver whose files are odd or large: it holds a whole line of them."""
_SECONDS_TO_READ = patient(2.0, 4.0)
_STACK = 1 << 20
"""Bytes of a thread's stack where memory is limited: all of them count, although few are touched."""
_THE_REST = -1
"""In the place of a name's number: all that are still asked for."""
_FIFO_WAITS = frozenset({"wait_for_partner", "pipe_read", "anon_pipe_read", "fifo_pipe_read"})
"""Where the kernel waits in the open or read of a FIFO (fs/pipe.c)."""
_ROOM = 16 << 20
"""Bytes of address space: a module of nsswitch.conf with the libraries that it needs."""

Answer = Callable[[str], Fact[Resolution]]
"""Answers for one host, in the child."""
Answers = dict[int, Fact[Resolution]]
Ask = Callable[[Sequence[str], float], dict[str, Fact[Resolution]]]


def resolve(
    hosts: Sequence[str],
    deadline: float,
    passive: bool,
    ask: Ask | None = None,
    read_hosts: Callable[[], Fact[HostsFile]] | None = None,
) -> dict[str, Fact[Resolution]]:
    """What each host means, in the order in which getaddrinfo gives its addresses.

    `deadline` is an instant of time.monotonic(); a name without an answer by then has the error "DEADLINE".
    Literals are read without asking anyone. Passive: names come from the hosts file or not at all. Linux asks in
    a child process, which can be killed (getaddrinfo cannot be interrupted); call it before any thread starts.
    """
    distinct = list(dict.fromkeys(hosts))
    found: dict[str, Fact[Resolution]] = {h: Known(literal) for h in distinct if (literal := _literal(h)) is not None}
    names = [host for host in distinct if host not in found]
    if names and passive:
        found |= _from_hosts_file(names, read_hosts() if read_hosts else files(_SECONDS_TO_READ)[0])
    elif names:
        found |= (ask or (ask_in_child if LINUX else ask_in_threads))(names, deadline)
    return {host: found[host] for host in distinct}


def _literal(host: str) -> Resolution | None:
    """The host as an address: strict by inet_pton(3), else lax by inet_aton(3) as getaddrinfo applies it."""
    base, zoned, _ = host.partition("%")
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            packed = socket.inet_pton(family, base)
        except (OSError, ValueError):
            continue
        if not zoned:
            address = socket.inet_ntop(family, packed)
            return Resolution(host, (_resolved(address),), 0.0, literal=True, source="literal")
        if family == socket.AF_INET6:
            return _numeric(host, odd=False)
    lax = _numeric(host, odd=True)
    return None if lax.error else lax


def _numeric(host: str, *, odd: bool) -> Resolution:
    """getaddrinfo with AI_NUMERICHOST: reads, never asks."""
    addresses, error = _getaddrinfo(host, socket.AI_NUMERICHOST)
    return Resolution(host, addresses, 0.0, error, literal=not odd, odd_literal=odd, source="literal")


def _resolved(address: str) -> ResolvedAddress:
    return ResolvedAddress(address, family_of(address))


def _getaddrinfo(host: str, flags: int = 0) -> tuple[tuple[ResolvedAddress, ...], str | None]:
    """The addresses in order and without repetition, or the name of the EAI error."""
    try:
        # bytes go to the C library as they are; a str would import Python's slow IDNA codec even for "localhost"
        encoded = host.encode("ascii") if host.isascii() else host.encode("idna")
        rows = socket.getaddrinfo(encoded, None, socket.AF_UNSPEC, socket.SOCK_STREAM, 0, flags)
    except socket.gaierror as error:
        return (), _eai_name(error.errno)
    except OSError as error:
        return (), f"EAI_SYSTEM: {errno.errorcode.get(error.errno or 0, error.errno)}"
    except ValueError:
        return (), "EAI_IDN_ENCODE"
    known = (socket.AF_INET, socket.AF_INET6)
    texts = dict.fromkeys(_with_zone(sockaddr) for family, _, _, _, sockaddr in rows if family in known)
    return tuple(_resolved(text) for text in texts), None


def _with_zone(sockaddr: tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]) -> str:
    """fe80::1%eth0 where there is a scope id, which Python keeps apart from the text."""
    address = str(sockaddr[0])
    if len(sockaddr) < 4 or not sockaddr[3]:
        return address
    try:
        return f"{address}%{socket.if_indextoname(sockaddr[3])}"
    except OSError:
        return f"{address}%{sockaddr[3]}"


def _eai_name(number: int | None) -> str:
    names = (name for name in dir(socket) if name.startswith("EAI_") and getattr(socket, name) == number)
    return next(names, f"EAI {number}")


def _timed(host: str) -> Resolution:
    """One question. The host is left out: it may hold what JSON cannot carry through the pipe."""
    started = time.monotonic()
    addresses, error = _getaddrinfo(host)
    return Resolution("", addresses, _ms_since(started), error)


def _ms_since(started: float) -> float:
    return round((time.monotonic() - started) * 1000, 3)


def ask_in_child(names: Sequence[str], deadline: float, answer: Answer | None = None) -> dict[str, Fact[Resolution]]:
    """Asks for every name in one child process, which is killed when its time is over and on every way out.

    `answer` is getaddrinfo where nothing else is said; the host that it leaves empty is put in.
    """
    started = time.monotonic()
    answers: Answers = {}
    try:
        with apart(lambda writing: _answer_all(names, writing, answer), deadline) as child:
            _collect(child, answers, len(names), deadline)
    except OSError as error:
        return dict.fromkeys(names, Unknown(Reason.FAILED, f"fork: {error.strerror}"))
    return _as_facts(names, answers, answers.get(_THE_REST) or _silence(child.status, started, deadline))


def _answer_all(names: Sequence[str], writing: int, answer: Answer | None) -> None:
    """In the child, as all that follows here: to look at the files may hang as well."""
    if answer is not None:
        _answer(names, writing, answer)
    elif odd := _odd_files():
        _answer_with_care(names, writing, odd)
    else:
        _answer(names, writing, _by_getaddrinfo)


def _read_by_library() -> tuple[str, ...]:
    """The files that glibc reads before it answers."""
    return HOSTS, NSSWITCH, RESOLV, GAI, HOST_CONF


def _odd_files() -> dict[str, Kind | int]:
    """Which of the resolver's files are no regular files, and the sizes of those that are larger than files are."""
    found: dict[str, Kind | int] = {}
    for path in _read_by_library():
        try:
            status = os.stat(path)
        except OSError:
            continue
        if kind := regular_file.kind_of(status):
            found[path] = kind
        elif status.st_size > regular_file.LARGEST:
            found[path] = status.st_size
    return found


def _answer_with_care(names: Sequence[str], writing: int, odd: Mapping[str, Kind | int]) -> None:
    """Every program's resolver would wait for such a file, or fill the memory with it: ours does neither for long."""
    started = time.monotonic()
    _limit_memory()
    asking = threading.Thread(
        target=_answer, args=(names, writing, lambda host: _in_little_memory(host, odd)), daemon=True
    )
    asking.start()
    asking.join(None if all(isinstance(one, int) for one in odd.values()) else _SECONDS_WITH_ODD_FILES)
    if asking.is_alive():
        rest = Resolution("", (), _ms_since(started), "DEADLINE", waits_at_fifo=_waits_at_fifo())
        write(writing, msgspec.json.encode((_THE_REST, Known(rest))) + b"\n")


def _limit_memory() -> None:
    """So that getaddrinfo fails with EAI_MEMORY where it would take more."""
    import resource  # only for odd files, and not on Windows

    with open("/proc/self/status", "rb") as status:
        size = next(int(line.split()[1]) * 1024 for line in status if line.startswith(b"VmData:"))
    threading.stack_size(_STACK)
    limit = size + _MOST_MEMORY + (_AT_ONCE + 1) * _STACK
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if soft == resource.RLIM_INFINITY or soft > limit:
        resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


def _in_little_memory(host: str, odd: Mapping[str, Kind | int]) -> Fact[Resolution]:
    """A device may have no end, and then no memory is enough; for a file it may be our limit that was too small."""
    found = _timed(host)
    if found.error != "EAI_MEMORY" or "a device" in odd.values():
        return Known(found)
    sizes = ", ".join(f"{path} has {size} bytes" for path, size in odd.items())
    return Unknown(Reason.FAILED, f"the resolver took more than {_MOST_MEMORY >> 20} MiB of memory: {sizes}")


def _waits_at_fifo() -> bool:
    """Whether one of our threads does, by the kernel's own word; False as well where the kernel hides it."""
    return any(_wait_of(task) in _FIFO_WAITS for task in os.listdir("/proc/self/task"))


def _wait_of(task: str) -> str:
    try:
        with open(f"/proc/self/task/{task}/wchan", encoding="ascii", errors="backslashreplace") as wchan:
            return wchan.read()
    except OSError:
        return ""


def _by_getaddrinfo(host: str) -> Fact[Resolution]:
    """An error that a limit of our own may have made is none of the name: the library does not say which it was."""
    resolution = _timed(host)
    if resolution.error is not None and (lack := _lack()):
        return Unknown(Reason.FAILED, f"the resolver could not work: {lack}")
    return Known(resolution)


def _lack() -> str | None:
    """Which of our own limits leaves no room to load another module of the resolver and to ask with it."""
    import mmap

    try:
        mmap.mmap(-1, _ROOM).close()
        os.close(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        return f"{error.strerror}: a limit of this process is too small (RLIMIT_AS, RLIMIT_NOFILE)"
    return None


def _answer(names: Sequence[str], writing: int, answer: Answer) -> None:
    """Writes a line of JSON for each answer."""
    waiting = list(enumerate(names))
    lock = threading.Lock()

    def work() -> None:
        while True:
            try:
                index, host = waiting.pop()
            except IndexError:
                return
            line = msgspec.json.encode((index, answer(host))) + b"\n"
            with lock:
                write(writing, line)

    others = started(work for _ in range(min(len(names), _AT_ONCE) - 1))
    work()
    for other in others:
        other.wait(threading.TIMEOUT_MAX)  # we are killed at the deadline


def _collect(child: Child, answers: Answers, wanted: int, deadline: float) -> None:
    """Reads answers until all are there, the child is gone or the time is over."""
    decode = msgspec.json.Decoder(tuple[int, Fact[Resolution]]).decode
    for line in child.lines(deadline):
        index, answer = decode(line)
        answers[index] = answer
        if len(answers) == wanted or index == _THE_REST:
            return


def _silence(status: int, started: float, deadline: float) -> Fact[Resolution]:
    """What it means for a name that there was no answer: the time was over, or the child died of something else."""
    number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    if number in (signal.SIGKILL, signal.SIGALRM) and time.monotonic() >= deadline:
        return Known(Resolution("", (), _ms_since(started), "DEADLINE"))
    how = f"by signal {number}" if number else "without an answer"
    return Unknown(Reason.FAILED, f"the process that asked for the name ended {how}")


def _as_facts(names: Sequence[str], answers: Answers, silence: Fact[Resolution]) -> dict[str, Fact[Resolution]]:
    found: dict[str, Fact[Resolution]] = {}
    for index, host in enumerate(names):
        fact = answers.get(index, silence)
        found[host] = Known(msgspec.structs.replace(fact.value, host=host)) if isinstance(fact, Known) else fact
    return found


def ask_in_threads(names: Sequence[str], deadline: float) -> dict[str, Fact[Resolution]]:
    """Asks from daemon threads, for platforms where a fork is not safe; one that hangs is left behind."""
    begun = time.monotonic()
    answers: Answers = {}
    waiting = list(enumerate(names))

    def work() -> None:
        while True:
            try:
                index, host = waiting.pop()
            except IndexError:
                return
            answers[index] = Known(_timed(host))

    tasks = started(work for _ in range(min(len(names), _AT_ONCE)))
    if not tasks:
        return dict.fromkeys(names, NO_THREAD)
    for task in tasks:
        task.wait(deadline - time.monotonic())
    return _as_facts(names, dict(answers), Known(Resolution("", (), _ms_since(begun), "DEADLINE")))


def _from_hosts_file(names: Sequence[str], file: Fact[HostsFile]) -> dict[str, Fact[Resolution]]:
    """The lines of the hosts file, IPv6 first where lo has ::1 and last where it has not.

    That is what the sorting of RFC 6724 (gai.conf(5)) makes of loopback addresses; a family keeps its order.
    """
    match file:
        case Unknown() as unknown:
            return dict.fromkeys(names, unknown)
        case Known(value=hosts):
            ipv6_first = not LINUX or _has_ipv6_loopback()
            return {host: _mapped(hosts, host, ipv6_first) for host in names}


def _mapped(hosts: HostsFile, host: str, ipv6_first: bool) -> Fact[Resolution]:
    started = time.monotonic()
    if hosts.kind:
        return Unknown(Reason.NOT_VISIBLE, f"{hosts.path}: {NotRegularError(hosts.kind).strerror}")
    if hosts.exists and not hosts.readable:
        return Unknown(Reason.NEEDS_ROOT, f"{hosts.path} is not readable", "sudo netdiag run --passive")
    addresses = [_resolved(text) for text in dict.fromkeys(entry.address for entry in hosts.mapping(host))]
    if not addresses:
        why = f"does not map {host}" if hosts.exists else "does not exist"
        lift = "run again without --passive"
        return Unknown(Reason.PASSIVE, f"{hosts.path} {why}, and nobody else is asked", lift)
    first = "ipv6" if ipv6_first else "ipv4"
    addresses.sort(key=lambda each: each.family != first)
    return Known(Resolution(host, tuple(addresses), _ms_since(started), source="hosts file"))


def _has_ipv6_loopback() -> bool:
    try:
        with open("/proc/net/if_inet6", encoding="ascii") as table:
            return any(line.startswith(f"{1:032x} ") for line in table)
    except OSError:
        return False


class _Seen(msgspec.Struct, frozen=True):
    """A file of the resolver as it stands there."""

    mode: int = 0
    owner: int = 0
    exists: bool = True
    readable: bool = True
    kind: Kind | None = None
    mounted: bool = False
    content: bytes = b""


def files(seconds: float) -> tuple[Fact[HostsFile], Fact[ResolverConfig]]:
    """The hosts file and the resolver's configuration, read in a child process that is killed where one hangs.

    Call it before any thread starts.
    """
    if not LINUX:
        return hosts_file(), NOT_LINUX
    late = Unknown(Reason.DEADLINE, f"it could not be read within {seconds:g} s")
    seen: dict[str, Fact[_Seen]] = dict.fromkeys(_read_by_library(), late)
    decode = msgspec.json.Decoder(tuple[str, Fact[_Seen]]).decode
    deadline = time.monotonic() + seconds
    try:
        with apart(_write_files, deadline) as child:
            for line in child.lines(deadline):
                path, fact = decode(line)
                seen[path] = fact
    except OSError as error:
        seen = dict.fromkeys(_read_by_library(), Unknown(Reason.FAILED, f"fork: {error.strerror}"))
    return _as_hosts_file(seen[HOSTS]), _as_configuration(seen)


def _write_files(writing: int) -> None:
    """A line of JSON a file, each from a thread of its own: one that hangs holds up no other."""
    lock = threading.Lock()

    def work(path: str) -> None:
        line = msgspec.json.encode((path, _seen(path))) + b"\n"
        with lock:
            write(writing, line)

    threads = [threading.Thread(target=work, args=(path,), daemon=True) for path in _read_by_library()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def hosts_file() -> Fact[HostsFile]:
    """The hosts file with its mode; one that may not be read, or is no regular file, is known as such."""
    return _as_hosts_file(_seen(HOSTS))


def configuration() -> Fact[ResolverConfig]:
    """The files that steer glibc's resolver; one that is absent is empty, one that may not be read costs the fact."""
    return _as_configuration({path: _seen(path) for path in _read_by_library()}) if LINUX else NOT_LINUX


def _seen(path: str) -> Fact[_Seen]:
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return Known(_Seen(exists=False, readable=False))
    except OSError as error:
        return _unknown(path, error)
    seen = _Seen(stat.S_IMODE(status.st_mode), status.st_uid)
    try:
        return Known(msgspec.structs.replace(seen, content=regular_file.read(path).content))
    except NotRegularError as error:
        return Known(msgspec.structs.replace(seen, readable=False, kind=error.kind, mounted=_is_mounted(path)))
    except PermissionError:
        return Known(msgspec.structs.replace(seen, readable=False))
    except OSError as error:
        return _unknown(path, error)


def _as_hosts_file(fact: Fact[_Seen]) -> Fact[HostsFile]:
    match fact:
        case Known(value=seen):
            pass
        case Unknown() as unknown:
            return unknown
    return Known(
        HostsFile(
            HOSTS,
            seen.mode,
            seen.owner,
            readable=seen.readable,
            bom=starts_with_bom(seen.content),
            entries=parse_hosts(seen.content),
            exists=seen.exists,
            kind=seen.kind,
            mounted=seen.mounted,
        )
    )


def _as_configuration(seen: Mapping[str, Fact[_Seen]]) -> Fact[ResolverConfig]:
    found: dict[str, bytes] = {}
    for path in (NSSWITCH, RESOLV, GAI, HOST_CONF):
        content = _content(path, seen[path])
        if isinstance(content, Unknown):
            return content
        found[path] = content.value
    return Known(
        ResolverConfig(
            nsswitch_hosts=parse_nsswitch_hosts(found[NSSWITCH]),
            nameservers=parse_nameservers(found[RESOLV]),
            gai_lines=parse_gai(found[GAI]),
            hosts_line=quoted_hosts_line(found[NSSWITCH]),
        )
    )


def _content(path: str, fact: Fact[_Seen]) -> Fact[bytes]:
    match fact:
        case Unknown() as unknown:
            return unknown
        case Known(value=seen) if seen.kind:
            return _unknown(path, NotRegularError(seen.kind))
        case Known(value=seen) if seen.exists and not seen.readable:
            return _unknown(path, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))
        case Known(value=seen):
            return Known(seen.content)


def _is_mounted(path: str) -> bool:
    """Whether it is a mount of its own; False as well where that cannot be told."""
    if not LINUX:
        return False
    real = os.path.realpath(path)
    try:
        place = os.open(real, os.O_PATH | os.O_CLOEXEC)
        directory = os.open(os.path.dirname(real), os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return mount_of(place) != mount_of(directory)
    finally:
        os.close(place)
        os.close(directory)


def _unknown(path: str, error: OSError) -> Unknown:
    reason = Reason.NEEDS_ROOT if isinstance(error, PermissionError) else Reason.FAILED
    return Unknown(reason, f"{path}: {error.strerror}", "sudo" if reason is Reason.NEEDS_ROOT else None)
