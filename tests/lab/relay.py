"""A relay as engines without root have it: accepts here, and connects inside another network namespace.

usage: relay.py PROGRAM NAMESPACE PORT TARGET_PORT

PROGRAM is the name that it bears; pasta and slirp4netns name the namespace in their command lines, rootlessport and
rootlesskit have a child in it. Runs on the standard library alone.
"""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
import sys
import threading

CLONE_NEWNET, PR_SET_NAME, PR_SET_PDEATHSIG = 0x40000000, 15, 1


def inside(namespace: str, target: int, client: socket.socket) -> None:
    """One connection: a thread of its own enters the namespace, and connects as the relay does."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open(namespace) as file:
        if libc.setns(file.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    try:
        server = socket.create_connection(("127.0.0.1", target))
    except OSError:
        client.close()
        return
    pass_on = threading.Thread(target=copy, args=(client, server))
    pass_on.start()
    copy(server, client)


def copy(source: socket.socket, sink: socket.socket) -> None:
    """Until the source ends."""
    try:
        while piece := source.recv(4096):
            sink.sendall(piece)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        sink.close()


def main(program: str, namespace: str, port: int, target: int) -> None:
    """Until it is killed."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, 9)
    ctypes.CDLL(None).prctl(PR_SET_NAME, program.encode(), 0, 0, 0)
    if program.startswith("rootless"):
        subprocess.Popen(["nsenter", f"--net={namespace}", "sleep", "60"])
    listener = socket.create_server(("127.0.0.1", port))
    print("ready", flush=True)
    while True:
        client, _ = listener.accept()
        threading.Thread(target=inside, args=(namespace, target, client), daemon=True).start()


if __name__ == "__main__":
    told = dict(zip(sys.argv[1::2], sys.argv[2::2], strict=False))
    outside, _, within = told["-t"].partition(":")
    main(told["--name"], told["--netns"], int(outside), int(within))
