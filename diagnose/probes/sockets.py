"""The socket tables of this network namespace, from sock_diag(7), else /proc/net, else psutil."""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from diagnose.model.attempt import Acceptance
from diagnose.model.fact import NOT_LINUX, Fact, Known, Reason, Unknown
from diagnose.model.network import Endpoint, Family, SocketRow, TcpState
from diagnose.parse import proc_net
from diagnose.probes.netlink import SOCK_DIAG, Netlink, attributes

if TYPE_CHECKING:
    from psutil._ntuples import sconn

Rows = Fact[tuple[SocketRow, ...]]

LINUX = sys.platform == "linux"

_BY_FAMILY = 20
"""SOCK_DIAG_BY_FAMILY (linux/sock_diag.h)."""
_REQUEST = struct.Struct("=BBBxIHH16s16sIII")
"""struct inet_diag_req_v2 with struct inet_diag_sockid (linux/inet_diag.h)."""
_MESSAGE = struct.Struct("=BBBBHH16s16sIIIIIIII")
"""struct inet_diag_msg."""
_ANY_COOKIE = 0xFFFFFFFF
_MEMINFO, _V6ONLY, _CGROUP = 7, 11, 21
"""INET_DIAG_SKMEMINFO (asked for), INET_DIAG_SKV6ONLY (always there for listeners), INET_DIAG_CGROUP_ID (Linux 5.8)."""
_INFO = 2
"""INET_DIAG_INFO: struct tcp_info, 240 bytes."""
_ASK_MEMINFO, _ASK_INFO = 1 << (_MEMINFO - 1), 1 << (_INFO - 1)
_DROPS = struct.Struct("=32xI")
"""SK_MEMINFO_DROPS is the ninth number of SKMEMINFO (linux/sock_diag.h)."""
_CGROUP_ID = struct.Struct("=Q")

_LISTEN = 1 << TcpState.LISTEN
_BOUND = 1 << TcpState.BOUND_INACTIVE
_OTHERS = (_BOUND - 1) & ~_LISTEN
_ALL = 0xFFFFFFFF
_BOUND_SINCE = (6, 8)
"""The kernel that first lists bound sockets (inet_diag: dump bound inactive sockets, commit 91051f003948)."""

_FEW = 4
"""Up to so many ports the kernel filters, one walk of its table each; beyond, one dump of all is quicker."""
_LOOPBACK = 1
"""Index of lo in every namespace (LOOPBACK_IFINDEX, net/flow.h)."""

_FAMILIES: tuple[tuple[int, Family], ...] = ((socket.AF_INET, "ipv4"), (socket.AF_INET6, "ipv6"))
_MAPPED = b"\0" * 10 + b"\xff\xff"


class SocketTables(NamedTuple):
    """What was asked for of the TCP and UDP tables, each part sorted."""

    tcp: Rows
    """Every TCP socket on the ports, in any state that has a row."""
    listeners: Rows
    """The listening TCP sockets, on whichever port was asked for."""
    bound: Rows
    """TCP sockets bound to the ports that neither listen nor are connected."""
    udp: Rows


class ListenersBefore(NamedTuple):
    """What a failed attempt is compared with: as it was before the first packet was sent."""

    listeners: Rows
    netstat: bytes
    """/proc/net/netstat, unparsed: most runs never need it."""


def look(
    ports: Collection[int],
    *,
    listening: Collection[int] | None = None,
    origins: bool = False,
    portable: bool = not LINUX,
) -> SocketTables:
    """The rows of these local ports, and the listeners on the ports `listening` (None: on every one).

    `origins` asks which end opened each connection. `portable` asks psutil, as on systems other than Linux.
    A socket that this process itself binds meanwhile is in the tables too: probe binding before or after.
    """
    if portable:
        return _from_psutil(ports)
    try:
        with Netlink(SOCK_DIAG) as netlink:
            listeners = _dump(netlink, socket.IPPROTO_TCP, _LISTEN, listening)
            others = _dump(netlink, socket.IPPROTO_TCP, _OTHERS, ports, extensions=_ASK_INFO if origins else 0)
            return SocketTables(
                tcp=_sorted((*others, *_on(ports, listeners))),
                listeners=_sorted(listeners),
                bound=_bound(netlink, ports),
                udp=_udp(netlink, ports),
            )
    except OSError as error:
        return _from_proc(ports, error)


def server_side(server: Endpoint, client: Endpoint) -> Fact[Acceptance]:
    """What the server's end of our own connection shows: one lookup by the four-tuple, about 30 microseconds.

    Only a program that accepted can have closed: when a listener goes, the kernel resets what waits in its queue
    (inet_csk_listen_stop, net/ipv4/inet_connection_sock.c), and CLOSE-WAIT becomes LAST-ACK when it closes. HALF_OPEN
    may be the last instant of a handshake, a deferred accept (deferral.held_back tells), or a lost ACK. Unknown where
    the row is not in this namespace: remote, translated, or gone.
    """
    if not LINUX:
        return NOT_LINUX
    try:
        with Netlink(SOCK_DIAG) as netlink:
            row = _server_row(netlink, server, client)
            if row is None and _half_open_elsewhere(client):
                return Known(Acceptance.HALF_OPEN)
            if row is None:
                return Unknown(Reason.NOT_VISIBLE, f"no socket {server} with peer {client} in this network namespace")
            if row.state is TcpState.SYN_RECV:
                return Known(Acceptance.OVERFLOWED if _queue_full(netlink, server) else Acceptance.HALF_OPEN)
    except OSError as error:
        return _unknown(error)
    if row.inode == 0 and row.state in (TcpState.ESTABLISHED, TcpState.CLOSE_WAIT):
        return Known(Acceptance.PENDING)
    return Known(Acceptance.ACCEPTED)


def sent_again(server: Endpoint, client: Endpoint) -> Fact[int]:
    """How often the kernel has repeated its SYN-ACK of a connection of ours that is still half-open (idiag_retrans).

    The first time is a second after the SYN (tcp_timeout_init), and not at all while an ACK is held back
    (syn_ack_recalc, net/ipv4/inet_connection_sock.c). Unknown where it is not half-open any more.
    """
    try:
        with Netlink(SOCK_DIAG) as netlink:
            body = _server_end(netlink, server, client)
    except OSError as error:
        return _unknown(error)
    if body is None or _row(body).state is not TcpState.SYN_RECV:
        return Unknown(Reason.NOT_VISIBLE, f"no half-open connection {server} with peer {client} any more")
    return Known(_MESSAGE.unpack_from(body)[3])


def _half_open_elsewhere(client: Endpoint) -> bool:
    """Whether the server's end of our connection is in SYN-RECV at another address or port of this namespace.

    A NAT rule sends it there. Only where nobody else has a connection from our address and port.
    """
    if not LINUX:
        return False
    packed, port = _packed(client.address), struct.pack("!H", client.port)
    family = socket.AF_INET if len(packed) == 4 else socket.AF_INET6
    states: list[int] = []
    ours = 0
    try:
        with Netlink(SOCK_DIAG) as netlink:
            for near, far in ((client.port, 0), (0, client.port)):
                request = _request(family, socket.IPPROTO_TCP, _OTHERS, source=near, destination=far)
                for _, body in netlink.dump(_BY_FAMILY, request):
                    ours += near > 0 and (body[4:6], body[8 : 8 + len(packed)]) == (port, packed)
                    if far and (body[6:8], body[24 : 24 + len(packed)]) == (port, packed):
                        states.append(body[1])
    except OSError:
        return False
    return ours == 1 and states == [TcpState.SYN_RECV]


def listener_witness(address: str, port: int) -> Rows:
    """The listening sockets on this port that can take this address's family, with queue, backlog and drops."""
    if not LINUX:
        return NOT_LINUX
    packed = _packed(address)
    families = _FAMILIES if len(packed) == 4 or packed.startswith(_MAPPED) else _FAMILIES[1:]
    try:
        with Netlink(SOCK_DIAG) as netlink:
            return _sorted(_dump(netlink, socket.IPPROTO_TCP, _LISTEN, (port,), families))
    except OSError as error:
        return _unknown(error)


def listeners_before(ports: Collection[int]) -> ListenersBefore:
    """The listeners of these ports and the overflows so far, to be read before the first packet is sent.

    About 0.1 ms for a few ports; for many the kernel dumps every listener once.
    """
    if not LINUX:
        return ListenersBefore(NOT_LINUX, b"")
    try:
        with Netlink(SOCK_DIAG) as netlink:
            rows: Rows = _sorted(_dump(netlink, socket.IPPROTO_TCP, _LISTEN, ports))
    except OSError as error:
        rows = _unknown(error)
    return ListenersBefore(rows, _netstat())


def overflows_since(before: ListenersBefore) -> int:
    """By how much ListenOverflows has risen since then; 0 where that cannot be read."""
    then, now = _overflows(before.netstat), _overflows(_netstat())
    return max(0, now - then) if then is not None and now is not None else 0


def _netstat() -> bytes:
    try:
        with open("/proc/net/netstat", "rb") as file:
            return file.read()
    except OSError:
        return b""


def _overflows(netstat: bytes) -> int | None:
    """The counter of SYNs and ACKs that came to a full accept queue (LINUX_MIB_LISTENOVERFLOWS, linux/snmp.h)."""
    lines = [line.split() for line in netstat.splitlines() if line.startswith(b"TcpExt:")]
    if len(lines) != 2 or b"ListenOverflows" not in lines[0]:
        return None
    return int(lines[1][lines[0].index(b"ListenOverflows")])


def udp(ports: Collection[int]) -> Rows:
    """The UDP sockets on these ports."""
    try:
        with Netlink(SOCK_DIAG) as netlink:
            return _udp(netlink, ports)
    except OSError:
        return _from_table(ports, "udp", proc_net.udp)


def listener_cgroups(port: int) -> Fact[dict[int, int]]:
    """The number of the cgroup that each listening socket on this port was made in, by the socket's inode."""
    if not LINUX:
        return NOT_LINUX
    found: dict[int, int] = {}
    try:
        with Netlink(SOCK_DIAG) as netlink:
            for family, _ in _FAMILIES:
                request = _request(family, socket.IPPROTO_TCP, _LISTEN, source=port)
                for _, body in netlink.dump(_BY_FAMILY, request):
                    number = attributes(body, _MESSAGE.size).get(_CGROUP, b"")
                    if len(number) == _CGROUP_ID.size:
                        found[_MESSAGE.unpack_from(body)[-1]] = _CGROUP_ID.unpack(number)[0]
    except OSError as error:
        return _unknown(error)
    return Known(found)


def _server_row(netlink: Netlink, server: Endpoint, client: Endpoint) -> SocketRow | None:
    """The server's row of a connection."""
    body = _server_end(netlink, server, client)
    return None if body is None else _row(body)


def _server_end(netlink: Netlink, server: Endpoint, client: Endpoint) -> bytes | None:
    """The server's end of a connection: over lo first, as a socket bound to lo is found by no other device."""
    local, peer = _packed(server.address), _packed(client.address)
    if len(local) != len(peer):
        return None
    family = socket.AF_INET if len(local) == 4 else socket.AF_INET6
    for device in dict.fromkeys((_LOOPBACK, 0, _zone(server.address))):
        request = _request(
            family,
            socket.IPPROTO_TCP,
            source=server.port,
            destination=client.port,
            local=local,
            peer=peer,
            device=device,
        )
        try:
            replies = netlink.request(_BY_FAMILY, 0, request)
        except FileNotFoundError:
            continue
        for body in replies:
            # without a connection the lookup answers with the listener, as it would for a SYN
            if _row(body).state is not TcpState.LISTEN:
                return body
    return None


def _queue_full(netlink: Netlink, server: Endpoint) -> bool:
    """Whether a listener on the port has more waiting than its backlog: then SYN-RECV is no deferred accept."""
    rows = _dump(netlink, socket.IPPROTO_TCP, _LISTEN, (server.port,))
    return any(row.queue > row.backlog for row in rows)


def _bound(netlink: Netlink, ports: Collection[int]) -> Rows:
    """Bound, idle sockets; where there are none, whether this kernel would have told."""
    try:
        # every port: the IPv6 part of this dump does not heed the port, and would give rows twice
        rows = list(_on(ports, _dump(netlink, socket.IPPROTO_TCP, _BOUND, None)))
    except OSError as error:
        return _unknown(error)
    release = os.uname().release
    if not rows and _version(release) < _BOUND_SINCE:
        return Unknown(Reason.KERNEL_TOO_OLD, f"Linux {release} does not list bound sockets", "Linux 6.8 or newer")
    return _sorted(rows)


def _udp(netlink: Netlink, ports: Collection[int]) -> Rows:
    """UDP sockets; from /proc where the kernel has no udp_diag."""
    try:
        return _sorted(_dump(netlink, socket.IPPROTO_UDP, _ALL, ports))
    except OSError:
        return _from_table(ports, "udp", proc_net.udp)


def _dump(
    netlink: Netlink,
    protocol: int,
    states: int,
    ports: Collection[int] | None,
    families: Iterable[tuple[int, Family]] = _FAMILIES,
    extensions: int = 0,
) -> list[SocketRow]:
    """The rows in these states on these local ports, None for every port; OSError."""
    wanted = None if ports is None else frozenset(struct.pack("!H", port) for port in ports)
    filters = sorted(ports) if ports is not None and len(ports) <= _FEW else [0]
    rows: list[SocketRow] = []
    for family, _ in families:
        for port in filters:
            request = _request(family, protocol, states, source=port, extensions=extensions)
            for _, body in netlink.dump(_BY_FAMILY, request):
                # compared as bytes: a dump without a filter has every socket of the machine
                if wanted is None or body[4:6] in wanted:
                    rows.append(_row(body, bound=states == _BOUND))
    return rows


def _request(
    family: int,
    protocol: int,
    states: int = _ALL,
    *,
    source: int = 0,
    destination: int = 0,
    local: bytes = b"",
    peer: bytes = b"",
    device: int = 0,
    extensions: int = 0,
) -> bytes:
    """One struct inet_diag_req_v2: what is zero or empty is not asked about."""
    ports = socket.htons(source), socket.htons(destination)
    asked = _ASK_MEMINFO | extensions
    return _REQUEST.pack(family, protocol, asked, states, *ports, local, peer, device, _ANY_COOKIE, _ANY_COOKIE)


def _row(body: bytes, *, bound: bool = False) -> SocketRow:
    """One struct inet_diag_msg with its attributes."""
    number, state, _, _, source, destination, local, peer, device, _, _, _, unread, unsent, uid, inode = (
        _MESSAGE.unpack_from(body)
    )
    found = attributes(body, _MESSAGE.size)
    meminfo, v6only = found.get(_MEMINFO, b""), found.get(_V6ONLY)
    v6 = number == socket.AF_INET6
    size = 16 if v6 else 4
    return SocketRow(
        local=Endpoint(socket.inet_ntop(number, local[:size]), socket.ntohs(source)),
        peer=Endpoint(socket.inet_ntop(number, peer[:size]), socket.ntohs(destination)),
        state=TcpState.BOUND_INACTIVE if bound else TcpState(state),
        family="ipv6" if v6 else "ipv4",
        inode=inode,
        uid=uid,
        v6only=bool(v6only[0]) if v6 and v6only else None,
        device=_device(device) if device else None,
        queue=unread,
        backlog=unsent,
        drops=_DROPS.unpack_from(meminfo)[0] if len(meminfo) >= _DROPS.size else None,
        opened_here=_opened_here(TcpState(state), found[_INFO]) if found.get(_INFO) else None,
    )


def _opened_here(state: TcpState, info: bytes) -> bool | None:
    from diagnose.parse.tcp_info import opened_here  # for --bind only

    return opened_here(state, info)


def _device(index: int) -> str:
    """The interface's name, or its number where it is gone."""
    try:
        return socket.if_indextoname(index)
    except OSError:
        return str(index)


def _packed(address: str) -> bytes:
    """Four or sixteen bytes; the zone is left out."""
    literal = address.partition("%")[0]
    return socket.inet_pton(socket.AF_INET6 if ":" in literal else socket.AF_INET, literal)


def _zone(address: str) -> int:
    """The interface index of a zone ("fe80::1%eth0"), or 0."""
    zone = address.partition("%")[2]
    if not zone:
        return 0
    try:
        return int(zone) if zone.isdecimal() else socket.if_nametoindex(zone)
    except OSError:
        return 0


def _from_proc(ports: Collection[int], error: OSError) -> SocketTables:
    """What /proc/net tells where sock_diag is refused: neither v6only nor bound sockets."""
    rows = _from_table(ports, "tcp", proc_net.tcp)
    if isinstance(rows, Unknown):
        return SocketTables(rows, rows, _unknown(error), _from_table(ports, "udp", proc_net.udp))
    return SocketTables(
        tcp=_sorted(_on(ports, rows.value)),
        listeners=_sorted(row for row in rows.value if row.state is TcpState.LISTEN),
        bound=_unknown(error),
        udp=_from_table(ports, "udp", proc_net.udp),
    )


def of_process(pid: int | None, ports: Collection[int]) -> Rows:
    """The TCP sockets of that process's network namespace on these ports, and its listeners: any user may read them."""
    return _NO_PROCESS if pid is None else _from_table(ports, "tcp", proc_net.tcp, f"/proc/{pid}/net")


def udp_of_process(pid: int | None, ports: Collection[int]) -> Rows:
    """The UDP sockets of that process's network namespace on these ports: any user may read them."""
    return _NO_PROCESS if pid is None else _from_table(ports, "udp", proc_net.udp, f"/proc/{pid}/net")


_NO_PROCESS = Unknown(
    Reason.NEEDS_ROOT,
    "no process that is visible to this user runs there, through which its sockets could be read",
    "run it again with sudo",
)


def _from_table(
    ports: Collection[int],
    protocol: str,
    parse: Callable[[str, Family, Collection[int]], Iterator[SocketRow]],
    folder: str = "/proc/net",
) -> Rows:
    """The rows of /proc/net/tcp and tcp6, or udp and udp6; a kernel without IPv6 has only the first."""
    rows: list[SocketRow] = []
    tables: tuple[tuple[str, Family], ...] = (("", "ipv4"), ("6", "ipv6"))
    for suffix, family in tables:
        path = f"{folder}/{protocol}{suffix}"
        try:
            with open(path, encoding="utf-8", errors="backslashreplace") as table:
                rows.extend(parse(table.read(), family, ports))
        except FileNotFoundError:
            if not suffix:
                return Unknown(Reason.FAILED, f"{path} does not exist")
        except OSError as error:
            return _unknown(error, path)
        except ValueError as error:
            return Unknown(Reason.UNPARSABLE, f"{path}: {error}")
    return _sorted(rows)


def _from_psutil(ports: Collection[int]) -> SocketTables:
    """What psutil tells of macOS and Windows; the inode is the pid there, as that is what names the owner."""
    import psutil  # 40 ms, and never on Linux

    try:
        tcp = [row for each in psutil.net_connections("tcp") if (row := _portable_row(each, psutil.CONN_NONE))]
        udp = [row for each in psutil.net_connections("udp") if (row := _portable_row(each, psutil.CONN_NONE))]
    except psutil.AccessDenied:
        lift = "run it as administrator" if sys.platform == "win32" else "run it again with sudo"
        denied = Unknown(Reason.NEEDS_ROOT, "the system hides its socket table", lift)
        return SocketTables(denied, denied, NOT_LINUX, denied)
    except (psutil.Error, OSError) as error:
        failed = Unknown(Reason.FAILED, f"psutil: {error}")
        return SocketTables(failed, failed, NOT_LINUX, failed)
    return SocketTables(
        tcp=_sorted(_on(ports, tcp)),
        listeners=_sorted(row for row in tcp if row.state is TcpState.LISTEN),
        bound=NOT_LINUX,
        udp=_sorted(_on(ports, udp)),
    )


def _portable_row(each: sconn, none: str) -> SocketRow | None:
    """One row of psutil; None where it has no local address, or a state of that system alone."""
    state = TcpState.CLOSE if each.status == none else TcpState.__members__.get(each.status)
    if not each.laddr or state is None:
        return None
    v6 = each.family == socket.AF_INET6
    nobody = Endpoint("::" if v6 else "0.0.0.0", 0)
    return SocketRow(
        local=Endpoint(each.laddr[0].partition("%")[0], each.laddr[1]),
        peer=Endpoint(each.raddr[0].partition("%")[0], each.raddr[1]) if each.raddr else nobody,
        state=state,
        family="ipv6" if v6 else "ipv4",
        inode=-1 if each.pid is None and state is not TcpState.TIME_WAIT else each.pid or 0,
        uid=-1,
    )


def _on(ports: Collection[int], rows: Iterable[SocketRow]) -> Iterator[SocketRow]:
    """The rows on these local ports."""
    wanted = frozenset(ports)
    return (row for row in rows if row.local.port in wanted)


def _sorted(rows: Iterable[SocketRow]) -> Known[tuple[SocketRow, ...]]:
    """The rows in the order of what tells one socket from another: None has no place in an order."""
    return Known(tuple(sorted(rows, key=lambda row: (row.local, row.peer, row.state, row.family, row.inode, row.uid))))


def _unknown(error: OSError, source: str = "sock_diag") -> Unknown:
    """Why a table could not be read: root is not needed for any, so a refusal is a sandbox's."""
    if isinstance(error, TimeoutError):
        return Unknown(Reason.DEADLINE, f"{source} did not answer")
    return Unknown(Reason.FAILED, f"{source}: {errno.errorcode.get(error.errno or 0, type(error).__name__)}")


def _version(release: str) -> tuple[int, int]:
    """ "6.18.44-fc" is (6, 18); a release that says nothing is (0, 0)."""
    major, _, rest = release.partition(".")
    minor = rest.partition(".")[0].partition("-")[0]
    return (int(major), int(minor)) if major.isdecimal() and minor.isdecimal() else (0, 0)
