"""A program that decides about the packets of a queue: queue_reader.py NUMBER VERDICT (0 drop, 1 accept)."""

from __future__ import annotations

import socket
import struct
import sys

_SUBSYSTEM, _PACKET, _VERDICT, _CONFIG = 3, 0, 1, 2
"""linux/netfilter/nfnetlink_queue.h"""


def read(number: int, verdict: int) -> None:
    """Binds the queue, says "ready", and answers every packet."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12) as sock:
        sock.bind((0, 0))
        family = struct.pack(">BBH", 0, 0, number)
        send(sock, _CONFIG, family + attribute(1, struct.pack(">BBH", 1, 0, 0)))
        send(sock, _CONFIG, family + attribute(2, struct.pack(">IB", 0xFFFF, 1)))
        print("ready", flush=True)
        while True:
            data = sock.recv(1 << 16)
            kind = struct.unpack_from("=H", data, 4)[0]
            if kind == _SUBSYSTEM << 8 | _PACKET:
                # NFQA_PACKET_HDR, the first attribute, begins with the packet's number
                send(sock, _VERDICT, family + attribute(2, struct.pack(">I", verdict) + data[24:28]))


def send(sock: socket.socket, kind: int, body: bytes) -> None:
    sock.send(struct.pack("=IHHII", 16 + len(body), _SUBSYSTEM << 8 | kind, 1, 1, 0) + body)


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + b"\0" * (-len(value) % 4)


if __name__ == "__main__":
    read(int(sys.argv[1]), int(sys.argv[2]))
