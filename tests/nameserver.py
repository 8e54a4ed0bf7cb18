"""A small DNS server for tests: what it knows it answers, the rest does not exist."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset

SERVFAIL, SILENT, TRUNCATED = "SERVFAIL", "SILENT", "TRUNCATED"


class Zone:
    """Answers by name, and the names that it was asked for, in order."""

    def __init__(self, names: Mapping[str, Sequence[str]]) -> None:
        self.names = {dns.name.from_text(name): tuple(found) for name, found in names.items()}
        self.asked: list[str] = []

    def answer(self, wire: bytes, *, by_tcp: bool) -> bytes | None:
        """The response to one query; None: it says nothing."""
        query = dns.message.from_wire(wire)
        [question] = query.question
        self.asked.append(f"{question.name} {dns.rdatatype.to_text(question.rdtype)}")
        response = dns.message.make_response(query, recursion_available=True)
        found = self.names.get(question.name)
        if found is None:
            response.set_rcode(dns.rcode.NXDOMAIN)
        elif SILENT in found:
            return None
        elif SERVFAIL in found:
            response.set_rcode(dns.rcode.SERVFAIL)
        elif TRUNCATED in found and not by_tcp:
            response.flags |= dns.flags.TC
        else:
            self._add(response, question, found)
        return response.to_wire()

    def _add(self, response: dns.message.Message, question: dns.rrset.RRset, found: Sequence[str]) -> None:
        name = question.name
        for one in found:
            if one.endswith("."):
                response.answer.append(dns.rrset.from_text(name, 60, "IN", "CNAME", one))
                name = dns.name.from_text(one)
        known = [*found, *(self.names.get(name, ()) if name != question.name else ())]
        kind = dns.rdatatype.to_text(question.rdtype)
        rows = [one for one in known if _is(one, kind)]
        if rows:
            response.answer.append(dns.rrset.from_text(name, 60, "IN", kind, *rows))


def _is(text: str, kind: str) -> bool:
    if text in (SERVFAIL, SILENT, TRUNCATED) or text.endswith("."):
        return False
    return (":" in text) == (kind == "AAAA")


@contextmanager
def serving(
    names: Mapping[str, Sequence[str]], port: int = 0, address: str = "127.0.0.1"
) -> Iterator[tuple[Zone, int]]:
    """The zone at work, and its port; UDP and TCP."""
    zone = Zone(names)
    with (
        socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tcp,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
    ):
        tcp.bind((address, port))
        tcp.listen()
        udp.bind((address, tcp.getsockname()[1]))
        udp.settimeout(0.1)
        threads = [
            threading.Thread(target=work, args=(zone, sock), daemon=True) for work, sock in ((_udp, udp), (_tcp, tcp))
        ]
        for thread in threads:
            thread.start()
        try:
            yield zone, tcp.getsockname()[1]
        finally:
            tcp.shutdown(socket.SHUT_RDWR)


def _udp(zone: Zone, sock: socket.socket) -> None:
    while sock.fileno() >= 0:
        try:
            wire, peer = sock.recvfrom(4096)
            if answer := zone.answer(wire, by_tcp=False):
                sock.sendto(answer, peer)
        except TimeoutError:
            continue
        except OSError:
            return


def _tcp(zone: Zone, sock: socket.socket) -> None:
    while True:
        try:
            peer, _ = sock.accept()
        except OSError:
            return
        with peer:
            size = int.from_bytes(peer.recv(2, socket.MSG_WAITALL), "big")
            if answer := zone.answer(peer.recv(size, socket.MSG_WAITALL), by_tcp=True):
                peer.sendall(len(answer).to_bytes(2, "big") + answer)
