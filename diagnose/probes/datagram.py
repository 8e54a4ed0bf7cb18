"""Whether a datagram may leave for a local address: EPERM tells any user of a drop on the way out, which TCP hides.

ip_send_skb gives the verdict of the output and postrouting hooks back to the caller (nf_hook, net/ipv4/ip_output.c),
and so does a cgroup's egress filter; TCP takes such an error for a lost packet and says nothing.
"""

from __future__ import annotations

import errno
import socket
import sys

from diagnose.model.attempt import DatagramWitness
from diagnose.model.fact import NOT_LINUX, Fact, Known, Reason, Unknown
from diagnose.model.network import Endpoint
from diagnose.probes import sockets
from diagnose.probes.connect import errno_name, sockaddr

_NEIGHBOURS = 64
"""Ports above the target's of which one must be free for the comparison."""


def leaves(endpoint: Endpoint) -> Fact[DatagramWitness]:
    """Sends one without data to this local endpoint, and where that is forbidden one to another port.

    It can reach no program: a port that any UDP socket has is left alone, and with a time to live of 1 no router,
    nor this machine as one, hands it on.
    """
    if not sys.platform.startswith("linux"):
        return NOT_LINUX
    ports = range(endpoint.port, min(endpoint.port + _NEIGHBOURS, 1 << 16))
    match sockets.udp(ports):
        case Unknown() as unknown:
            return unknown
        case Known(value=rows):
            taken = {row.local.port for row in rows}
    if endpoint.port in taken:
        return Unknown(Reason.NOT_NEEDED, "a UDP socket has this port: no datagram is sent to it")
    try:
        forbidden = _forbidden(endpoint)
        other = next((port for port in ports if port != endpoint.port and port not in taken), None)
        if not forbidden or other is None:
            return Known(DatagramWitness(forbidden))
        return Known(DatagramWitness(True, _forbidden(Endpoint(endpoint.address, other))))
    except OSError as error:
        return Unknown(Reason.FAILED, f"sendto(2): {errno_name(error.errno or errno.EIO)}")


def _forbidden(endpoint: Endpoint) -> bool:
    """Whether sending it, and nothing before that, ends with EPERM; OSError for anything else."""
    family = socket.AF_INET6 if ":" in endpoint.address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
        _may_send_at_all(sock)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 1)
        sock.connect(sockaddr(family, endpoint))
        try:
            sock.send(b"")
        except PermissionError as error:
            if error.errno != errno.EPERM:
                raise
            return True
        return False


def _may_send_at_all(sock: socket.socket) -> None:
    """A seccomp filter says EPERM to any call; the kernel itself, of a socket without a peer, EDESTADDRREQ."""
    try:
        sock.send(b"")
    except OSError as error:
        if error.errno != errno.EDESTADDRREQ:
            raise
