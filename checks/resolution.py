"""resolution: what the name means to this machine, and which IP family it means first."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from diagnose.analysis import hosts_edit
from diagnose.analysis.reach import failing, fails_at_once, listeners_on, may_be_reached, reached, severity
from diagnose.analysis.refusal import Refusal, icmp_text, refusal
from diagnose.analysis.their_files import about_theirs, reader, whose
from diagnose.analysis.wire import BoxOnTheWay, HostItself, ThisMachine, Undetermined, sender
from diagnose.analysis.wording import connect_evidence, dial_instead, row_text, title
from diagnose.model.attempt import Attempt, BindAttempt, Outcome
from diagnose.model.check import Check
from diagnose.model.fact import Known, Missing, Reason, Unknown
from diagnose.model.finding import Cause, Command, Confidence, Edit, Evidence, Finding, Remedy, Severity, Stage
from diagnose.model.names import HostsEntry, HostsFile, Resolution
from diagnose.model.network import Endpoint, PortPolicy, SocketRow, is_loopback, is_wildcard
from diagnose.model.snapshot import Snapshot
from diagnose.model.target import Intent
from diagnose.parse.nsswitch import reads_files

PREFERS_OTHER_FAMILY = Cause(
    "resolution/prefers-other-family",
    Stage.NAME,
    "The name's first address does not work; its address of the other IP family does",
)
NOT_FOUND = Cause("resolution/not-found", Stage.NAME, "The name does not resolve on this machine, as this user")
HOSTS_FILE_BROKEN = Cause(
    "resolution/hosts-file-broken", Stage.NAME, "The hosts file should map the name, and does not as it stands"
)
LOCALHOST_ELSEWHERE = Cause(
    "resolution/localhost-elsewhere", Stage.NAME, "localhost means an address that is not loopback"
)
IPV6_DISABLED = Cause("resolution/ipv6-disabled", Stage.NAME, "::1 is asked for, and IPv6 is off on this machine")
ODD_ADDRESS = Cause("resolution/odd-address", Stage.NAME, "The address means something else than it seems to")

LOCALHOST = "127.0.0.1 localhost"
BYTE_ORDER_MARK = "\ufeff"
GAI_CONF = "/etc/gai.conf"
PREFER_IPV4 = "precedence ::ffff:0:0/96  100"

_EAI = {
    "EAI_NONAME": "Name or service not known",
    "EAI_NODATA": "No address associated with hostname",
    "EAI_ADDRFAMILY": "Address family for hostname not supported",
    "EAI_AGAIN": "Temporary failure in name resolution",
    "EAI_MEMORY": "Memory allocation failure",
    "EAI_FAIL": "Non-recoverable failure in name resolution",
    "EAI_IDN_ENCODE": "the name cannot be encoded for DNS",
}
"""gai_strerror(3) of glibc."""
_ENDLESS = ("a FIFO", "a device")
"""What a resolver may wait for, or read, for good."""
_AT_FIFO = Evidence("the kernel has the resolver wait in the open or read of a FIFO", "/proc/PID/wchan")
_ASKED = 3
"""Name servers that glibc asks (MAXNS, resolv.h)."""
_SOURCES = {"hosts file": "/etc/hosts", "files and DNS": "hosts file and DNS, read by us"}
_LIKE_IPV4 = re.compile(r"[0-9][0-9.]*|0x[0-9a-f]+(\.(0x[0-9a-f]+|[0-9]+))*", re.IGNORECASE)
"""Digits and dots: no top-level domain is all numeric (RFC 3696 section 2), so it was meant as an address."""


def judge(snapshot: Snapshot) -> Iterator[Finding | Missing]:
    """The name, its order of addresses, and the files behind it."""
    for said in _judged(snapshot):
        yield about_theirs(said, snapshot) if isinstance(said, Finding) else said


def _judged(snapshot: Snapshot) -> Iterator[Finding | Missing]:
    match snapshot.names:
        case Unknown() as unknown:
            yield Missing("name resolution", unknown)
            yield from _not_asked(snapshot)
        case Known(value=names) if names.error == "DEADLINE":
            yield from _without_answer(snapshot, names)
        case Known(value=names) if names.error:
            yield from _fails(snapshot, names)
        case Known(value=names):
            yield from _odd_address(snapshot, names)
            yield from _localhost_elsewhere(snapshot, names)
            yield from _other_loopback(snapshot, names)
            yield from _prefers_other_family(snapshot, names)
            yield from _ipv6_disabled(snapshot, names)


def _is_localhost(host: str) -> bool:
    return host.lower().rstrip(".") == "localhost"


def _under_localhost(host: str) -> bool:
    """A name below .localhost, which RFC 6761 section 6.3 reserves for loopback."""
    return host.lower().rstrip(".").endswith(".localhost")


def _asked(names: Resolution) -> Evidence:
    """What the resolver said, in its order."""
    if names.error:
        meaning = f" ({_EAI[names.error]})" if names.error in _EAI else ""
        said = f"{names.error}{meaning}"
    else:
        said = ", ".join(one.address for one in names.addresses)
    return Evidence(f"{names.host} -> {said} in {names.ms:.1f} ms", _SOURCES.get(names.source, "getaddrinfo(3)"))


def _not_asked(snapshot: Snapshot) -> Iterator[Finding]:
    """What the hosts file is, where nobody was asked for the name: another service may know it all the same."""
    match snapshot.hosts:
        case Known(value=hosts) if hosts.kind:
            yield _no_file(snapshot, hosts, None, Confidence.POSSIBLE)
        case _:
            return


def _without_answer(snapshot: Snapshot, names: Resolution) -> Iterator[Finding | Missing]:
    seconds = f"{names.ms / 1000:.1f} s"
    yield Missing("name resolution", Unknown(Reason.DEADLINE, f"getaddrinfo gave no answer within {seconds}"))
    match snapshot.hosts, snapshot.resolver:
        case Known(value=hosts), resolver if hosts.kind in _ENDLESS and not _skips_files(snapshot):
            other = Confidence.LIKELY if isinstance(resolver, Unknown) else Confidence.PROVEN
            at_it = names.waits_at_fifo and hosts.kind == "a FIFO"
            yield _no_file(snapshot, hosts, names, other if at_it else Confidence.POSSIBLE)
            return
        case _, Unknown() as resolver if names.waits_at_fifo:
            yield _at_a_fifo(names, resolver)
            return
        case _:
            pass
    yield Finding(
        code=NOT_FOUND.code,
        title=title(f"{names.host} was not resolved within {seconds}"),
        severity=Severity.PROBLEM,
        confidence=Confidence.POSSIBLE,
        explanation="The resolver was still waiting when we stopped it: usually a name server that does not answer. "
        "Every program that uses this name waits as long. Whether the name exists is not known.",
        evidence=(Evidence(f"getaddrinfo({names.host}) was stopped after {seconds}", "getaddrinfo(3)"),),
        remedies=(
            Remedy(
                summary="Dial the address instead of the name, or see which server /etc/resolv.conf names and why "
                "it is silent (resolvectl status where systemd-resolved runs)."
            ),
        ),
    )


def _at_a_fifo(names: Resolution, resolver: Unknown) -> Finding:
    """One of the resolver's other files is a FIFO, which is all that is known of them."""
    return Finding(
        code=NOT_FOUND.code,
        title=title(f"{names.host} was not resolved: the resolver waits at a FIFO"),
        severity=Severity.PROBLEM,
        confidence=Confidence.LIKELY,
        explanation="The resolver reads its files before it answers, and one of them is a FIFO: the open waits until "
        "a process writes into it. Every program that uses a name waits as long.",
        evidence=(
            Evidence(f"getaddrinfo({names.host}) was stopped after {names.ms / 1000:.1f} s", "getaddrinfo(3)"),
            _AT_FIFO,
            *([Evidence(resolver.detail, "open(2)")] if resolver.detail.strip() else ()),
        ),
        remedies=(Remedy(summary="Put a regular file in its place, and look for what made the FIFO."),),
    )


def _fails(snapshot: Snapshot, names: Resolution) -> Iterator[Finding | Missing]:
    if names.literal:
        yield _without_interface(names)
        return
    if _looks_like_address(names.host):
        yield _no_address(names)
    else:
        yield from _hosts_file_broken(snapshot, names)
    yield _not_found(snapshot, names)


def _without_interface(names: Resolution) -> Finding:
    zone = names.host.partition("%")[2]
    return Finding(
        code=NOT_FOUND.code,
        title=title(f"{names.host}: this machine has no interface {zone}"),
        severity=Severity.PROBLEM,
        confidence=Confidence.PROVEN,
        explanation="What follows the % is the interface that a link-local address belongs to; there is none here.",
        evidence=(_asked(names),),
        remedies=(Remedy(summary="Use the name of an interface that exists: ip -brief link lists them."),),
    )


def _looks_like_address(host: str) -> bool:
    return ":" in host or bool(_LIKE_IPV4.fullmatch(host))


def _no_address(names: Resolution) -> Finding:
    kind = "IPv6" if ":" in names.host else "IPv4"
    why = (
        "an IPv6 address is up to eight groups of four hex digits, with :: at most once"
        if kind == "IPv6"
        else "an IPv4 address is four numbers from 0 to 255, with dots between them"
    )
    return Finding(
        code=ODD_ADDRESS.code,
        title=title(f"{names.host} is no {kind} address, so it is looked up as a name"),
        severity=Severity.PROBLEM,
        confidence=Confidence.PROVEN,
        explanation=f"It looks like an address and is none: {why}. The resolver therefore takes it for a host name, "
        + ("and got no answer about it." if names.error == "EAI_AGAIN" else "and knows no address of it."),
        evidence=(Evidence(f"inet_pton and inet_aton read no address in {names.host}", "inet_pton(3)"), _asked(names)),
        remedies=(Remedy(summary="Correct the address; this machine itself is 127.0.0.1, or ::1 over IPv6."),),
        explains=(NOT_FOUND.code,),
    )


def _not_found(snapshot: Snapshot, names: Resolution) -> Finding:
    return Finding(
        code=NOT_FOUND.code,
        title=title(_not_found_title(names, whose(snapshot) or "this machine")),
        severity=Severity.PROBLEM,
        confidence=Confidence.PROVEN,
        explanation=_why_not_found(snapshot, names),
        evidence=(_asked(names), *_hosts_evidence(snapshot, names.host), *_configuration(snapshot)),
        remedies=_resolve_it(snapshot, names),
    )


def _not_found_title(names: Resolution, here: str) -> str:
    match names.error:
        case "EAI_AGAIN":
            return f"{names.host} does not resolve: the name service did not answer"
        case "EAI_NODATA" | "EAI_ADDRFAMILY":
            return f"{names.host} does not resolve: the name is known and has no address"
        case "EAI_NONAME":
            return f"{names.host} does not resolve: {here} knows no such name"
        case error:
            return f"{names.host} does not resolve ({error})"


def _why_not_found(snapshot: Snapshot, names: Resolution) -> str:
    host, owner = names.host, whose(snapshot)
    where = f"in the place of {owner}" if owner else "on this machine"
    if host.endswith(".") and _is_localhost(host):
        return "The dot at the end skips the hosts file's localhost: the C library compares the names as they stand."
    if _skips_files(snapshot):
        return (
            "The hosts line of /etc/nsswitch.conf does not have the service files, so /etc/hosts is never read: "
            "whatever it maps does not count."
        )
    if _under_localhost(host):
        nowhere = "got no usable answer" if names.error == "EAI_AGAIN" else "neither has this name"
        return (
            "Browsers and curl map every name under .localhost to this machine by themselves. The C library does not: "
            f"it asks /etc/hosts and DNS, and {nowhere}. So it works there and in no other program."
        )
    if names.error == "EAI_AGAIN":
        unmapped = "The hosts file does not have the name, and the" if _is_unmapped(snapshot, host) else "The"
        return (
            f"{unmapped} DNS servers gave no usable answer. Whether the name exists is not known: DNS is what fails "
            "here."
        )
    if names.error in ("EAI_NODATA", "EAI_ADDRFAMILY"):
        return (
            f"Programs {where} get no address for {host}, so no packet is sent. DNS knows the name, but has neither an "
            "A nor an AAAA record of it for us."
        )
    return (
        f"Programs {where} get no address for {host}, so no packet is sent. Either the name is misspelt, or it "
        "is known only elsewhere (another network's DNS, a container's network, a VPN)."
    )


def _is_unmapped(snapshot: Snapshot, host: str) -> bool:
    """Whether the hosts file was read, and has no line for the name."""
    match snapshot.hosts:
        case Known(value=hosts):
            return not hosts.exists or (hosts.readable and not hosts.mapping(host))
        case Unknown():
            return False


def _skips_files(snapshot: Snapshot) -> bool:
    match snapshot.resolver:
        case Known(value=config):
            named = bool(config.nsswitch_hosts) and "files" not in config.nsswitch_hosts
            return named and not (config.hosts_line and reads_files(config.hosts_line))
        case Unknown():
            return False


def _configuration(snapshot: Snapshot) -> tuple[Evidence, ...]:
    match snapshot.resolver:
        case Known(value=config):
            services = " ".join(config.nsswitch_hosts)
            line = config.hosts_line or (f"hosts: {services}" if services else "no hosts line")
            servers = [f"nameserver {one}" for one in config.nameservers[:_ASKED]]
            return (
                Evidence(line, "/etc/nsswitch.conf"),
                *(Evidence(one, "/etc/resolv.conf") for one in servers or ["no nameserver, so 127.0.0.1 is asked"]),
            )
        case Unknown():
            return ()


def _hosts_evidence(snapshot: Snapshot, host: str) -> tuple[Evidence, ...]:
    match snapshot.hosts:
        case Known(value=hosts) if hosts.exists and hosts.readable:
            lines = hosts.mapping(host)
            if not lines:
                return (Evidence(f"no active line maps {host}", hosts.path),)
            return tuple(_line_evidence(hosts, line) for line in lines[:3])
        case _:
            return ()


def _line_evidence(hosts: HostsFile, entry: HostsEntry) -> Evidence:
    return Evidence(f"line {entry.line}: {entry.quoted}", hosts.path)


def _resolve_it(snapshot: Snapshot, names: Resolution) -> tuple[Remedy, ...]:
    host, port = names.host, snapshot.target.port
    if host.endswith(".") and _is_localhost(host):
        return (_dial_name("localhost", port, "Leave the dot at the end out"),)
    if _skips_files(snapshot):
        return (
            Remedy(
                summary="Put files first in the hosts line of /etc/nsswitch.conf, and start the program again",
                edits=(Edit("/etc/nsswitch.conf", None, "hosts: files dns"),),
                survives_reboot=True,
            ),
        )
    if _under_localhost(host):
        dial = dial_instead(
            Endpoint("127.0.0.1", port),
            f"Or dial 127.0.0.1:{port}, and let an HTTP client send the header Host: {host}",
        )
        match snapshot.hosts:
            case Known(value=hosts):
                return (_append(snapshot, hosts, f"127.0.0.1 {host}", f"Map {host} to this machine"), dial)
            case Unknown():
                return (dial,)
    if _is_localhost(host):
        return (dial_instead(Endpoint("127.0.0.1", port), f"Dial 127.0.0.1:{port} until the name works again"),)
    if names.error == "EAI_AGAIN":
        return (
            Remedy(
                summary="See whether the DNS servers in /etc/resolv.conf can be reached (network or VPN down?). If you "
                "know the address, dial it instead of the name."
            ),
        )
    return (
        Remedy(
            summary=f"Check the spelling (getent ahosts {host} asks the same way). Names of containers and compose "
            "services exist only inside their own network. If you know the address, dial it."
        ),
    )


def _dial_name(host: str, port: int, summary: str) -> Remedy:
    return Remedy(summary=summary, commands=(Command(("netdiag", "run", f"{host}:{port}")),))


def _hosts_file_broken(snapshot: Snapshot, names: Resolution) -> Iterator[Finding | Missing]:
    """What is wrong with the file, where it should have this name; a name that it never had is no fault of its own."""
    match snapshot.hosts:
        case Unknown() as unknown:
            yield Missing("hosts file", unknown)
            return
        case Known(value=hosts):
            pass
    certain = _is_localhost(names.host) and not names.host.endswith(".")
    if hosts.kind and _skips_files(snapshot):
        return
    if hosts.kind:
        endless = hosts.kind == "a device" and names.error == "EAI_MEMORY"
        yield _no_file(snapshot, hosts, names, Confidence.PROVEN if certain or endless else Confidence.POSSIBLE)
    elif not hosts.exists:
        if certain:
            yield _missing_file(snapshot, hosts, names)
    elif not hosts.readable:
        yield _unreadable(snapshot, hosts, names, certain=certain)
    elif not hosts.mapping(names.host):
        yield from _unmapped(snapshot, hosts, names, certain=certain)


def _broken(
    names: Resolution,
    what: str,
    why: str,
    evidence: Sequence[Evidence],
    remedies: Sequence[Remedy],
    confidence: Confidence = Confidence.PROVEN,
) -> Finding:
    return Finding(
        code=HOSTS_FILE_BROKEN.code,
        title=title(what),
        severity=Severity.PROBLEM,
        confidence=confidence,
        explanation=why,
        evidence=(*evidence, _asked(names)),
        remedies=tuple(remedies),
        explains=(NOT_FOUND.code, LOCALHOST_ELSEWHERE.code),
    )


def _missing_file(snapshot: Snapshot, hosts: HostsFile, names: Resolution) -> Finding:
    return _broken(
        names,
        f"{hosts.path} does not exist, so {names.host} has no address",
        "The C library takes localhost from the hosts file, and there is none.",
        (Evidence("No such file or directory", hosts.path),),
        (_append(snapshot, hosts, LOCALHOST, f"Create {hosts.path} with a line for localhost"),),
    )


def _no_file(snapshot: Snapshot, hosts: HostsFile, names: Resolution | None, confidence: Confidence) -> Finding:
    """`names`: what came of asking; None: nothing was asked."""
    kind = hosts.kind or "no file"
    why = {
        "a FIFO": "Whatever opens it waits until another process writes into it, so every program that looks up a "
        "name hangs there.",
        "a device": "A device gives no lines to the C library, or bytes without end, which fill its memory.",
    }.get(kind, "The C library reads no line from it, so that no name is mapped.")
    asked: tuple[Evidence, ...] = ()
    if names is not None:
        stopped = Evidence(f"getaddrinfo({names.host}) was stopped after {names.ms / 1000:.1f} s", "getaddrinfo(3)")
        asked = (stopped if names.error == "DEADLINE" else _asked(names), *((_AT_FIFO,) if names.waits_at_fifo else ()))
    stays = _stays(snapshot) and not hosts.mounted
    return Finding(
        code=HOSTS_FILE_BROKEN.code,
        title=title(f"{hosts.path} is {kind}, not a regular file"),
        severity=Severity.PROBLEM,
        confidence=confidence,
        explanation=f"The C library takes names from the hosts file before it asks DNS. {why}",
        evidence=(Evidence(f"it is {kind} (mode {hosts.mode:04o}, owner uid {hosts.owner})", hosts.path), *asked),
        remedies=(hosts_edit.put_a_file(hosts.path, LOCALHOST, kind, mounted=hosts.mounted, stays=stays),),
        explains=(NOT_FOUND.code, LOCALHOST_ELSEWHERE.code),
    )


def _unreadable(snapshot: Snapshot, hosts: HostsFile, names: Resolution, *, certain: bool) -> Finding:
    user = reader(snapshot)
    by_mode = not hosts.mode & 0o004
    open_it = Remedy(
        summary=f"Let every user read {hosts.path}; it holds no secrets",
        commands=(Command(("chmod", "644", hosts.path), needs_root=True),),
        undo=(Command(("chmod", f"{hosts.mode:o}", hosts.path), needs_root=True),),
        survives_reboot=True,
    )
    ask = Remedy(
        summary=f"The mode of {hosts.path} allows reading, so a directory above it or a security policy (SELinux, "
        "AppArmor) denies it. Compare with what root gets: getent ahosts localhost."
    )
    return _broken(
        names,
        f"{hosts.path} may not be read by {user} (mode {hosts.mode:04o})",
        f"The C library runs as the user who asks. For {user} the hosts file is as good as absent, so its names do "
        "not resolve, although root and the owner of the file see no fault.",
        (Evidence(f"mode {hosts.mode:04o}, owner uid {hosts.owner}; open: permission denied", hosts.path),),
        (open_it,) if by_mode else (ask,),
        Confidence.PROVEN if certain else Confidence.POSSIBLE,
    )


def _unmapped(snapshot: Snapshot, hosts: HostsFile, names: Resolution, *, certain: bool) -> Iterator[Finding]:
    """The lines that would map the name, and why they do not."""
    host = names.host.lower()
    lines = [entry for entry in hosts.entries if host in (name.lower() for name in entry.names)]
    swapped = [entry for entry in hosts.entries if entry.address.lower() == host]
    skipped = [entry for entry in lines if not entry.valid]
    if hosts.bom and any(entry.line == 1 for entry in skipped):
        yield _byte_order_mark(snapshot, hosts, names, skipped[0])
    elif skipped or swapped:
        yield _bad_line(snapshot, hosts, names, (skipped or swapped)[0])
    elif lines:
        yield _commented(snapshot, hosts, names, lines[0], certain=certain)
    elif certain:
        yield _broken(
            names,
            f"{hosts.path} has no line for {names.host}",
            "The C library takes localhost from the hosts file. Without a line there it asks DNS, which does not have "
            "to know it.",
            (Evidence(f"none of its lines maps {names.host}", hosts.path),),
            (_append(snapshot, hosts, LOCALHOST, "Add the line for localhost"),),
        )


def _byte_order_mark(snapshot: Snapshot, hosts: HostsFile, names: Resolution, entry: HostsEntry) -> Finding:
    line = f"{entry.address.lstrip(BYTE_ORDER_MARK)} {' '.join(entry.names)}"
    return _broken(
        names,
        f"{hosts.path} starts with a byte order mark, so line 1 does not count",
        "An editor wrote three invisible bytes (EF BB BF) at the start of the file. The C library reads them as part "
        f"of the first line's address, finds no address there, and skips the line: it was the one for {names.host}.",
        (Evidence(f"bytes EF BB BF before line 1: {line}", hosts.path),),
        (hosts_edit.remove_byte_order_mark(hosts.path, line, stays=_stays(snapshot)),),
    )


def _bad_line(snapshot: Snapshot, hosts: HostsFile, names: Resolution, entry: HostsEntry) -> Finding:
    address = "127.0.0.1" if _is_localhost(names.host) or _under_localhost(names.host) else None
    remedy = (
        _append(snapshot, hosts, f"{address} {names.host}", f"Add a correct line, and delete line {entry.line}")
        if address
        else Remedy(
            summary=f"Correct line {entry.line} of {hosts.path}: the address comes first, then the names, with blanks "
            "between them"
        )
    )
    return _broken(
        names,
        f"Line {entry.line} of {hosts.path} has no address where it belongs: {entry.address}",
        "A line of the hosts file is an address followed by names. Where the first word is no address the C library "
        f"skips the line without a word, so {names.host} stays unknown.",
        (_line_evidence(hosts, entry),),
        (remedy,),
    )


def _commented(snapshot: Snapshot, hosts: HostsFile, names: Resolution, entry: HostsEntry, *, certain: bool) -> Finding:
    line = f"{entry.address} {names.host}"
    return _broken(
        names,
        f"Line {entry.line} of {hosts.path}, which maps {names.host}, is commented out",
        f"Behind the # the line does not count, and no other line has {names.host}.",
        (_line_evidence(hosts, entry),),
        (_append(snapshot, hosts, line, f"Add the line again, or take the # from line {entry.line}"),),
        Confidence.PROVEN if certain else Confidence.LIKELY,
    )


def _append(snapshot: Snapshot, hosts: HostsFile, line: str, summary: str) -> Remedy:
    return hosts_edit.append(hosts.path, line, summary, create=not hosts.exists, stays=_stays(snapshot))


def _stays(snapshot: Snapshot) -> bool:
    """An engine writes a container's hosts file anew whenever it starts the container."""
    return snapshot.vantage.container is None


def _localhost_elsewhere(snapshot: Snapshot, names: Resolution) -> Iterator[Finding | Missing]:
    if names.source == "literal" or not (_is_localhost(names.host) or _under_localhost(names.host)):
        return
    strangers = [one.address for one in names.addresses if not is_loopback(one.address)]
    if not strangers:
        return
    yield from _hosts_file_broken(snapshot, names)
    first = strangers[0] == names.addresses[0].address
    tried = [one for one in snapshot.attempts if one.address == strangers[0]]
    works = any(one.outcome.works for one in tried)
    blocks = severity(snapshot, tried[0]) if tried else Severity.PROBLEM
    yield Finding(
        code=LOCALHOST_ELSEWHERE.code,
        title=title(f"{names.host} means {strangers[0]} here, which is not loopback"),
        severity=blocks if first and not works else Severity.WARNING,
        confidence=Confidence.PROVEN,
        explanation=f"Programs that dial {names.host} leave for {strangers[0]} instead of this machine's loopback. "
        "Browsers and curl do not ask for this name and use loopback all the same, so they may disagree.",
        evidence=(
            _asked(names),
            *_hosts_evidence(snapshot, names.host),
            *(connect_evidence(one) for one in snapshot.attempts if one.address == strangers[0]),
        ),
        remedies=_bring_home(snapshot, names),
        explains=("refused/nothing-listening", "refused/other-address", "firewall/silent", "container/own-localhost"),
    )


def _bring_home(snapshot: Snapshot, names: Resolution) -> tuple[Remedy, ...]:
    host = names.host
    dial = dial_instead(Endpoint("127.0.0.1", snapshot.target.port), "Dial loopback by its address meanwhile")
    match snapshot.hosts:
        case Known(value=hosts) if lines := [e for e in hosts.mapping(host) if not is_loopback(e.address)]:
            add = len(lines) == len(hosts.mapping(host))
            return (hosts_edit.take_name_home(hosts.path, host, lines, add=add, stays=_stays(snapshot)), dial)
        case Known(value=hosts):
            return (_append(snapshot, hosts, f"127.0.0.1 {host}", f"Map {host} in {hosts.path}"), dial)
        case Unknown():
            return (dial,)


def _other_loopback(snapshot: Snapshot, names: Resolution) -> Iterator[Finding]:
    """localhost as 127.0.0.2 and nothing else: loopback, but not where servers listen."""
    addresses = {one.address for one in names.addresses}
    if not _is_localhost(names.host) or addresses & {"127.0.0.1", "::1"} or not all(map(is_loopback, addresses)):
        return
    match snapshot.hosts, snapshot.listeners:
        case Known(value=hosts), Known(value=rows) if lines := hosts.mapping(names.host):
            there = reached(rows, "127.0.0.1", snapshot.target.port)
            if there and not any(may_be_reached(rows, one, snapshot.target.port) for one in addresses):
                yield _wrong_loopback(snapshot, names, hosts, lines, there[0])
        case _:
            return


def _wrong_loopback(
    snapshot: Snapshot, names: Resolution, hosts: HostsFile, lines: Sequence[HostsEntry], server: SocketRow
) -> Finding:
    address = names.addresses[0].address
    tried = [one for one in failing(snapshot) if one.address == address]
    return Finding(
        code=HOSTS_FILE_BROKEN.code,
        title=title(f"{hosts.path} maps {names.host} to {address}; the server is on {server.local}"),
        severity=Severity.PROBLEM if tried else Severity.WARNING,
        confidence=Confidence.PROVEN,
        explanation=f"All of 127.0.0.0/8 is loopback, but a server on 127.0.0.1 does not answer on {address}. Nearly "
        "every program expects localhost to be 127.0.0.1.",
        evidence=(
            _asked(names),
            *(_line_evidence(hosts, line) for line in lines),
            *(connect_evidence(one) for one in tried),
            Evidence(row_text(server), "sock_diag"),
        ),
        remedies=(
            hosts_edit.take_name_home(hosts.path, names.host, lines, add=True, stays=_stays(snapshot)),
            dial_instead(Endpoint("127.0.0.1", snapshot.target.port), "Dial 127.0.0.1 meanwhile"),
        ),
        explains=("refused/nothing-listening", "refused/other-address"),
    )


def _prefers_other_family(snapshot: Snapshot, names: Resolution) -> Iterator[Finding | Missing]:
    if snapshot.intent is Intent.BIND or names.source == "literal" or not snapshot.attempts:
        return
    first = snapshot.attempts[0]
    if any(one.address == first.address and one.outcome.works for one in snapshot.attempts):
        return
    working = [one for one in snapshot.attempts if one.outcome.works and one.family != first.family]
    other = next(iter(working), None)
    if other is None:
        return
    nobody = _nobody_there(snapshot, first)
    refused = first.outcome is Outcome.REFUSED
    sure = isinstance(nobody, Confidence)
    if (refused or sure) and all(fails_at_once(one) for one in snapshot.attempts if one.address == first.address):
        yield _passed_by(snapshot, names, first, other, nobody=refused and sure)
        return
    match nobody:
        case Confidence() as confidence:
            yield _waited_for(snapshot, names, first, other, confidence)
        case Missing() as missing:
            yield missing
        case None:
            return


def _nobody_there(snapshot: Snapshot, first: Attempt) -> Confidence | Missing | None:
    """Whether the first address fails for want of a server there; None: something else stands before it."""
    if _rule_stops(snapshot, first):
        return None
    if not first.local:
        return _nobody_there_remotely(snapshot, first)
    if first.outcome is not Outcome.REFUSED or refusal(first) in (Refusal.ICMP, Refusal.NOT_KERNEL):
        return None
    match snapshot.listeners:
        case Known(value=rows):
            return None if may_be_reached(rows, first.address, first.port) else Confidence.PROVEN
        case Unknown() as unknown:
            return Confidence.PROVEN if refusal(first) is Refusal.KERNEL else Missing("listeners", unknown)


def _rule_stops(snapshot: Snapshot, attempt: Attempt) -> bool:
    match snapshot.firewall:
        case Known(value=shadow):
            walk = shadow.walk(attempt.address)
            return walk is not None and walk.verdict in ("drop", "reject")
        case Unknown():
            return False


def _nobody_there_remotely(snapshot: Snapshot, first: Attempt) -> Confidence | None:
    """Another machine: a refusal by itself is an answer; silence and a missing route are likely its missing IPv6."""
    if first.outcome in (Outcome.UNANSWERED, Outcome.UNREACHABLE):
        return None if icmp_text(first) else Confidence.LIKELY
    if first.outcome is not Outcome.REFUSED:
        return None
    match sender(first, snapshot.routing, snapshot.links):
        case HostItself(meaning=None) | Undetermined():
            return Confidence.PROVEN
        case HostItself() | BoxOnTheWay() | ThisMachine():
            return None


_VERSION = {"ipv4": "IPv4", "ipv6": "IPv6"}


def _passed_by(snapshot: Snapshot, names: Resolution, first: Attempt, other: Attempt, *, nobody: bool) -> Finding:
    """An error at once: it depends on the client whether that is the end."""
    failed = {Outcome.REFUSED: "is refused", Outcome.UNREACHABLE: "is unreachable"}.get(first.outcome, "fails")
    only = f", and the server answers over {_VERSION[other.family]} only" if nobody else ""
    # before 17 it put IPv4 first whatever the resolver said, and from 20 on it tries the next address
    node = "Node.js 17 to 19" if first.family == "ipv6" else "Node.js before version 20"
    return Finding(
        code=PREFERS_OTHER_FAMILY.code,
        title=title(f"{names.host} is {first.address} first, which {failed}; {other.endpoint} answers"),
        severity=severity(snapshot, first),
        confidence=Confidence.PROVEN,
        explanation=f"The resolver puts the {_VERSION[first.family]} address first{only}. Programs that try the next "
        "address after an error work at once: curl, Python, Go, bash, browsers, Node.js from version 20 on. Programs "
        f"that try the first address only fail: {node}, BusyBox wget.",
        evidence=(
            _asked(names),
            connect_evidence(first),
            connect_evidence(other),
            *_listener_evidence(snapshot, other),
        ),
        remedies=(
            dial_instead(other.endpoint, f"Connect to the address that answers: {other.endpoint}"),
            *((_serve_both(),) if nobody else ()),
            *_prefer_ipv4(snapshot, first),
        ),
        explains=("refused/other-family", "refused/nothing-listening", "refused/other-address"),
    )


def _waited_for(
    snapshot: Snapshot, names: Resolution, first: Attempt, other: Attempt, confidence: Confidence
) -> Finding:
    """No error, or a late one: every client that begins with this address waits."""
    failed = "stays silent" if first.outcome is Outcome.UNANSWERED else "fails late"
    return Finding(
        code=PREFERS_OTHER_FAMILY.code,
        title=title(f"{names.host} is {first.address} first, which {failed}; {other.endpoint} answers"),
        severity=severity(snapshot, first),
        confidence=confidence,
        explanation=f"The resolver puts the {_VERSION[first.family]} address first, and only the "
        f"{_VERSION[other.family]} address answers. Programs that start a second attempt while the first one waits "
        "(browsers, curl, Go, Node.js from version 20 on) are late by a fraction of a second; programs that wait for "
        "the first one (Python, bash) are late by minutes, or give up before that.",
        evidence=(
            _asked(names),
            connect_evidence(first),
            connect_evidence(other),
            *_listener_evidence(snapshot, other),
        ),
        remedies=(
            dial_instead(other.endpoint, f"Connect to the address that answers: {other.endpoint}"),
            *_prefer_ipv4(snapshot, first),
        ),
        explains=("refused/other-family", "refused/nothing-listening", "refused/other-address"),
    )


def _serve_both() -> Remedy:
    return Remedy(
        summary='Or let the server listen on both families: the host "::" with IPv6-only off, or one socket each for '
        "127.0.0.1 and ::1. Restart it afterwards."
    )


def _listener_evidence(snapshot: Snapshot, attempt: Attempt) -> tuple[Evidence, ...]:
    match snapshot.listeners:
        case Known(value=rows) if attempt.local:
            return tuple(Evidence(row_text(row), "sock_diag") for row in listeners_on(rows, attempt.port)[:3])
        case _:
            return ()


def _prefer_ipv4(snapshot: Snapshot, first: Attempt) -> tuple[Remedy, ...]:
    """gai.conf(5), which only glibc reads; musl sorts by its own table."""
    if first.family != "ipv6" or snapshot.vantage.platform != "linux":
        return ()
    match snapshot.resolver:
        case Known(value=config) if not any(line.startswith("precedence ::ffff:0:0/96") for line in config.gai_lines):
            summary = f"Or let every program of this machine prefer IPv4, in {GAI_CONF} (glibc only; musl ignores it)"
            return (hosts_edit.append(GAI_CONF, PREFER_IPV4, summary),)
        case _:
            return ()


def _ipv6_disabled(snapshot: Snapshot, names: Resolution) -> Iterator[Finding | Missing]:
    tried: Sequence[Attempt | BindAttempt] = snapshot.binds if snapshot.intent is Intent.BIND else snapshot.attempts
    failed = next((one for one in tried if one.address == "::1" and _is_unavailable(one)), None)
    if failed is None:
        return
    match snapshot.policy:
        case Unknown() as unknown:
            yield Missing("port sysctls", unknown)
        case Known(value=policy) if policy.ipv6_disabled_lo or not policy.ipv6_available:
            # behind another address it is only what the sorting is for: clients never get that far
            behind = snapshot.intent is Intent.CONNECT and failed is not tried[0]
            blocks = severity(snapshot, failed) if isinstance(failed, Attempt) else Severity.PROBLEM
            yield _without_ipv6(snapshot, names, failed, policy, Severity.INFO if behind else blocks)
        case Known():
            return


def _is_unavailable(one: Attempt | BindAttempt) -> bool:
    return one.outcome is Outcome.ADDRESS_UNAVAILABLE or one.errno == "EAFNOSUPPORT"


def _without_ipv6(
    snapshot: Snapshot, names: Resolution, failed: Attempt | BindAttempt, policy: PortPolicy, weight: Severity
) -> Finding:
    where = f"{names.host} means ::1" if names.source != "literal" else "::1 is IPv6"
    state = (
        Evidence("net.ipv6.conf.lo.disable_ipv6 = 1", "/proc/sys")
        if policy.ipv6_available
        else Evidence("no /proc/net/if_inet6: the kernel runs without IPv6", "/proc/net")
    )
    return Finding(
        code=IPV6_DISABLED.code,
        title=title(f"{where}, and IPv6 is switched off here: ::1 does not exist"),
        severity=weight,
        confidence=Confidence.PROVEN,
        explanation="With IPv6 off the loopback interface has no ::1, so nothing can be dialled or bound there. The "
        "hosts file or the resolver names it all the same; most programs go on with 127.0.0.1, some stop at the error.",
        evidence=(Evidence(f"{failed.endpoint}: {failed.errno or failed.outcome.value}", _call(snapshot)), state),
        remedies=_over_ipv4_or_back(snapshot, names, policy),
        explains=("loopback/address-missing", "in-use/address-not-local"),
    )


def _call(snapshot: Snapshot) -> str:
    return "bind(2)" if snapshot.intent is Intent.BIND else "connect(2)"


def _over_ipv4_or_back(snapshot: Snapshot, names: Resolution, policy: PortPolicy) -> tuple[Remedy, ...]:
    ipv4 = Endpoint("127.0.0.1", snapshot.target.port)
    flags = ("--bind",) if snapshot.intent is Intent.BIND else ()
    instead = Remedy(
        summary=f"Use IPv4: {ipv4}",
        commands=(Command(("netdiag", "run", *flags, str(ipv4))),),
    )
    name = names.host if names.source != "literal" else "localhost"
    unlist = Remedy(
        summary=f"Or take the line that maps {name} to ::1 out of /etc/hosts, so that programs stop trying it"
    )
    if not policy.ipv6_available:
        return (
            instead,
            Remedy(
                summary="The kernel was started with ipv6.disable=1 or built without IPv6: only another "
                "kernel command line and a reboot bring ::1 back."
            ),
            unlist,
        )
    back = Remedy(
        summary="Switch IPv6 on for the loopback interface alone; other interfaces stay as they are",
        commands=(Command(("sysctl", "-w", "net.ipv6.conf.lo.disable_ipv6=0"), needs_root=True),),
        undo=(Command(("sysctl", "-w", "net.ipv6.conf.lo.disable_ipv6=1"), needs_root=True),),
        survives_reboot=False,
    )
    match snapshot.listeners:
        case Known(value=rows) if snapshot.intent is Intent.CONNECT and not reached(rows, ipv4.address, ipv4.port):
            return (back, unlist)
        case _:
            return (instead, back, unlist)


def _odd_address(snapshot: Snapshot, names: Resolution) -> Iterator[Finding]:
    if not names.addresses:
        return
    if names.odd_literal:
        yield _read_laxly(snapshot, names)
    elif names.literal and is_wildcard(names.addresses[0].address) and snapshot.intent is Intent.CONNECT:
        yield _unspecified(snapshot, names)


def _read_laxly(snapshot: Snapshot, names: Resolution) -> Finding:
    """127.1 is harmless; 127.0.0.010 is 127.0.0.8, and a problem where the server is on 127.0.0.10."""
    address, port = names.addresses[0].address, snapshot.target.port
    meant = _decimal_reading(names.host) or address
    failed = [one for one in snapshot.attempts if one.address == address and not one.outcome.works]
    there = _listeners_at(snapshot, meant) if failed and meant != address else ()
    why = (
        f"Numbers with a leading zero are octal: {names.host} is {address}, not {meant}."
        if meant != address
        else f"The C library reads such short and other forms as inet_aton(3) does: {names.host} is {address}."
    )
    weight = Severity.WARNING if failed and meant != address else Severity.INFO
    return Finding(
        code=ODD_ADDRESS.code,
        title=title(f"{names.host} means {address} here" + (f"; the server is on {meant}:{port}" if there else "")),
        severity=Severity.PROBLEM if there else weight,
        confidence=Confidence.PROVEN,
        explanation=f"{why} Other programs refuse such forms or read them otherwise (Go, browsers).",
        evidence=(
            Evidence(f"{names.host} -> {address}", "getaddrinfo(3), AI_NUMERICHOST"),
            *(connect_evidence(one) for one in failed),
            *(Evidence(row_text(row), "sock_diag") for row in there),
        ),
        remedies=(dial_instead(Endpoint(meant, port), f"Write the address without leading zeros: {meant}"),)
        if meant != address
        else (dial_instead(Endpoint(address, port), f"Write the address out: {address}"),),
        explains=("refused/nothing-listening", "refused/other-address") if there else (),
    )


def _listeners_at(snapshot: Snapshot, address: str) -> tuple[SocketRow, ...]:
    match snapshot.listeners:
        case Known(value=rows):
            return reached(rows, address, snapshot.target.port)
        case Unknown():
            return ()


def _decimal_reading(host: str) -> str | None:
    """What a person reads: four decimal numbers; None when it is no such address."""
    parts = host.split(".")
    if len(parts) != 4 or not all(map(_is_byte, parts)):
        return None
    return ".".join(str(int(part)) for part in parts)


def _is_byte(part: str) -> bool:
    # int() refuses what has thousands of digits
    return part.isdecimal() and part.isascii() and len(part) < 100 and int(part) < 256


def _unspecified(snapshot: Snapshot, names: Resolution) -> Finding:
    wildcard = names.addresses[0].address
    loopback = "127.0.0.1" if wildcard == "0.0.0.0" else "::1"
    return Finding(
        code=ODD_ADDRESS.code,
        title=title(f"{wildcard} is no address to dial; Linux takes it for {loopback}"),
        severity=Severity.INFO,
        confidence=Confidence.PROVEN,
        explanation=f"A server that listens on {wildcard} listens on every address. As a destination it means "
        "nothing: Linux goes to loopback, other systems and browsers fail.",
        evidence=(Evidence(f"the target is {wildcard}", "ip(7)"),),
        remedies=(dial_instead(Endpoint(loopback, snapshot.target.port), f"Dial {loopback} instead"),),
    )


CHECK = Check(
    "resolution",
    (PREFERS_OTHER_FAMILY, NOT_FOUND, HOSTS_FILE_BROKEN, LOCALHOST_ELSEWHERE, IPV6_DISABLED, ODD_ADDRESS),
    judge,
)
