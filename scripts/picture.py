"""Draws a terminal with a real report in it: picture.py FILE.svg, as root in a network namespace of its own."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

PORT = 8080
COLUMNS = 88
FAULT = """
table inet filter {
    chain input {
        type filter hook input priority filter; policy accept;
        tcp dport 8080 drop
    }
}
"""


SERVER = f"import http.server; http.server.test(port={PORT}, bind='127.0.0.1')"


def wait_until_it_listens() -> None:
    """Until the kernel lists the server's socket."""
    entry = f"0100007F:{PORT:04X} 00000000:0000 0A"
    while entry not in Path("/proc/net/tcp").read_text():
        time.sleep(0.05)


def on_a_terminal(argv: list[str]) -> str:
    """What the command prints on a terminal of COLUMNS columns."""
    parent, terminal = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(COLUMNS), "TERM": "xterm-256color", "LANG": "C.UTF-8"}
    run = subprocess.Popen(argv, stdin=terminal, stdout=terminal, stderr=subprocess.DEVNULL, env=environment)
    os.close(terminal)
    printed = b""
    while True:
        try:
            part = os.read(parent, 65536)
        except OSError:  # EIO: the other end is closed
            break
        if not part:
            break
        printed += part
    run.wait()
    os.close(parent)
    return printed.decode().replace("\r\n", "\n")


def drawn(text: str) -> str:
    """The text as an SVG picture that fetches no font from anywhere."""
    with open(os.devnull, "w") as nowhere:
        console = Console(record=True, width=COLUMNS, file=nowhere, force_terminal=True, color_system="truecolor")
        console.print(Text.from_ansi(text))
        svg = console.export_svg(title="netdiag", theme=MONOKAI, unique_id="report")
    return re.sub(r"@font-face \{.*?\}\n?", "", svg, flags=re.DOTALL)


def main(picture: str) -> None:
    """Makes the fault, asks netdiag, and draws its answer."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    subprocess.run(["nft", "-f", "-"], input=FAULT.encode(), check=True)
    server = subprocess.Popen([sys.executable, "-c", SERVER])
    try:
        wait_until_it_listens()
        text = on_a_terminal(["netdiag", "run", f"127.0.0.1:{PORT}"])
    finally:
        server.terminate()
        server.wait()
    prompt = f"\x1b[2m#\x1b[0m netdiag run 127.0.0.1:{PORT}\n"
    Path(picture).parent.mkdir(exist_ok=True)
    Path(picture).write_text(drawn(prompt + text), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
