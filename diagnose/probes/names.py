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
from collections.abc import Callable, Sequence

import msgspec

from diagnose.model.fact import NOT_LINUX, Fact, Known, Reason, Unknown
from diagnose.model.names import HostsFile, Resolution, ResolvedAddress, ResolverConfig
from diagnose.model.network import family_of
from diagnose.parse.hosts import parse_hosts, starts_with_bom
from diagnose.parse.nsswitch import parse_gai, parse_nameservers, parse_nsswitch_hosts
from diagnose.probes.apart import Child, apart, write
from diagnose.probes.bounded import NO_THREAD, started

LINUX = sys.platform.startswith("linux")
HOSTS = (
    os.path.join(os.environ.get("SYSTEMROOT", r"C:\Windows"), r"System32\drivers\etc\hosts")
    if sys.platform == "win32"
    else "/etc/hosts"
)
NSSWITCH, RESOLV, GAI = "/etc/nsswitch.conf", "/etc/resolv.conf", "/etc/gai.conf"

_AT_ONCE = 32
"""Names that are asked for at the same time; one that hangs holds up no other until this many hang."""

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
        found |= _from_hosts_file(names, (read_hosts or hosts_file)())
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
        with apart(lambda writing: _answer(names, writing, answer or _by_getaddrinfo), deadline) as child:
            _collect(child, answers, len(names), deadline)
    except OSError as error:
        return dict.fromkeys(names, Unknown(Reason.FAILED, f"fork: {error.strerror}"))
    return _as_facts(names, answers, _silence(child.status, started, deadline))


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
        if len(answers) == wanted:
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


def hosts_file() -> Fact[HostsFile]:
    """The hosts file with its mode; one that may not be read is known as such."""
    try:
        status = os.stat(HOSTS)
    except FileNotFoundError:
        return Known(HostsFile(HOSTS, 0, 0, readable=False, bom=False, entries=(), exists=False))
    except OSError as error:
        return _unknown(HOSTS, error)
    mode, owner = stat.S_IMODE(status.st_mode), status.st_uid
    try:
        content = _content(HOSTS)
    except PermissionError:
        return Known(HostsFile(HOSTS, mode, owner, readable=False, bom=False, entries=()))
    except OSError as error:
        return _unknown(HOSTS, error)
    return Known(HostsFile(HOSTS, mode, owner, True, starts_with_bom(content), parse_hosts(content)))


def configuration() -> Fact[ResolverConfig]:
    """The files that steer glibc's resolver; one that is absent is empty, one that may not be read costs the fact."""
    if not LINUX:
        return NOT_LINUX
    try:
        return Known(
            ResolverConfig(
                nsswitch_hosts=parse_nsswitch_hosts(_content_if_any(NSSWITCH)),
                nameservers=parse_nameservers(_content_if_any(RESOLV)),
                gai_lines=parse_gai(_content_if_any(GAI)),
            )
        )
    except OSError as error:
        return _unknown(str(error.filename), error)


def _content(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _content_if_any(path: str) -> bytes:
    try:
        return _content(path)
    except FileNotFoundError:
        return b""


def _unknown(path: str, error: OSError) -> Unknown:
    reason = Reason.NEEDS_ROOT if isinstance(error, PermissionError) else Reason.FAILED
    return Unknown(reason, f"{path}: {error.strerror}", "sudo" if reason is Reason.NEEDS_ROOT else None)
