"""A small netlink client: one request or one dump at a time, attributes, errors as OSError (netlink(7))."""

from __future__ import annotations

import errno
import os
import socket
import struct
from time import monotonic
from types import TracebackType

ROUTE = 0
"""NETLINK_ROUTE, rtnetlink(7)."""
SOCK_DIAG = 4
"""NETLINK_SOCK_DIAG, sock_diag(7)."""

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_ERROR = struct.Struct("=i")
_F_REQUEST, _F_ACK, _F_DUMP_INTR, _F_DUMP = 0x01, 0x04, 0x10, 0x300
_NOOP, _ERROR_MESSAGE, _DONE, _OVERRUN = 1, 2, 3, 4
_TYPE_MASK = 0x3FFF
"""An attribute's type without NLA_F_NESTED and NLA_F_NET_BYTEORDER."""
_BUFFER = 1 << 16
"""The kernel fills at most 32 KiB of one dump message (netlink_dump, net/netlink/af_netlink.c)."""
_DUMPS = 5
"""How often a dump that the kernel calls inconsistent is asked for again."""


class Netlink:
    """A netlink socket of one protocol.

    Every call raises OSError with the kernel's errno (a failed request or a refused socket), or TimeoutError
    when the kernel has not answered within `timeout` seconds.
    """

    def __init__(self, protocol: int, timeout: float = 1.0) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        self._socket.settimeout(timeout)
        self._sequence = 0

    def __enter__(self) -> Netlink:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the socket back."""
        self._socket.close()

    def request(self, kind: int, flags: int, payload: bytes) -> list[bytes]:
        """The payloads of the messages that answer one request; NLM_F_REQUEST and NLM_F_ACK are added."""
        self._send(kind, flags | _F_ACK, payload)
        return [body for _, body in self._receive()[0]]

    def dump(
        self, kind: int, payload: bytes, *, until: float | None = None, at_most: int | None = None
    ) -> list[tuple[int, bytes]]:
        """Type and payload of every message of a dump, repeated while the table changes underneath.

        InterruptedError when it changed each time: half a table must not read as the whole. TimeoutError when it has
        not ended by `until` (time.monotonic), OSError EFBIG when it has more than `at_most` bytes.
        """
        for _ in range(_DUMPS):
            self._send(kind, _F_DUMP, payload)
            messages, consistent = self._receive(until, at_most)
            if consistent:
                return messages
        raise InterruptedError(errno.EINTR, "the kernel's table changed during every dump of it")

    def _send(self, kind: int, flags: int, payload: bytes) -> None:
        self._sequence += 1
        header = _HEADER.pack(_HEADER.size + len(payload), kind, flags | _F_REQUEST, self._sequence, 0)
        self._socket.sendto(header + payload, (0, 0))

    def _receive(self, until: float | None = None, at_most: int | None = None) -> tuple[list[tuple[int, bytes]], bool]:
        """The messages up to the acknowledgement or the end of the dump, and whether they are consistent."""
        messages: list[tuple[int, bytes]] = []
        consistent = True
        size = 0
        while True:
            if until is not None and monotonic() > until:
                raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
            if at_most is not None and size > at_most:
                raise OSError(errno.EFBIG, "there is more than is read at most")
            datagram, sender = self._socket.recvfrom(_BUFFER)
            size += len(datagram)
            if sender[0] != 0:  # only the kernel has port 0
                continue
            offset = 0
            while offset + _HEADER.size <= len(datagram):
                length, kind, flags, sequence, _ = _HEADER.unpack_from(datagram, offset)
                if length < _HEADER.size:
                    raise OSError(errno.EBADMSG, "netlink message shorter than its header")
                body = datagram[offset + _HEADER.size : offset + length]
                offset += (length + 3) & ~3
                if sequence != self._sequence or kind == _NOOP:
                    continue
                if flags & _F_DUMP_INTR and kind != _ERROR_MESSAGE:
                    consistent = False
                if kind in (_ERROR_MESSAGE, _DONE):
                    _raise_on_error(body)
                    return messages, consistent
                if kind == _OVERRUN:
                    raise OSError(errno.ENOBUFS, "netlink messages were lost")
                messages.append((kind, body))


def _raise_on_error(body: bytes) -> None:
    """OSError when the error code of NLMSG_ERROR or NLMSG_DONE is not zero."""
    code = _ERROR.unpack_from(body)[0] if len(body) >= _ERROR.size else 0
    if code < 0:
        raise OSError(-code, os.strerror(-code))


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute with its header, padded to four bytes."""
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + b"\0" * (-len(value) % 4)


def attributes(payload: bytes, offset: int = 0) -> dict[int, bytes]:
    """The attributes from `offset` to the end, by type; of a repeated type the last one, a torn one is left out."""
    found: dict[int, bytes] = {}
    while offset + _ATTRIBUTE.size <= len(payload):
        length, kind = _ATTRIBUTE.unpack_from(payload, offset)
        if length < _ATTRIBUTE.size or offset + length > len(payload):
            break
        found[kind & _TYPE_MASK] = payload[offset + _ATTRIBUTE.size : offset + length]
        offset += (length + 3) & ~3
    return found
