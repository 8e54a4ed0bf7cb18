"""Time commands side by side, in the machine that it runs in. Standard library alone.

usage: stopwatch.py ROUNDS JSON-LIST-OF-COMMANDS
Prints one JSON list a command: [seconds, exit code, peak memory in KiB] for each round, after one round to warm up.
"""

from __future__ import annotations

import json
import os
import sys
import time


def once(argv: list[str]) -> tuple[float, int, int]:
    """Wall-clock seconds from the fork to the collected exit, exit code, and ru_maxrss."""
    begin = time.perf_counter()
    null = [(os.POSIX_SPAWN_OPEN, fd, "/dev/null", os.O_RDWR, 0) for fd in (0, 1, 2)]
    pid = os.posix_spawn(argv[0], argv, os.environ, file_actions=null)
    _, status, usage = os.wait4(pid, 0)
    return time.perf_counter() - begin, os.waitstatus_to_exitcode(status), usage.ru_maxrss


def main(rounds: str, commands: str) -> None:
    """Interleave the commands, so that what else the machine does hits them alike."""
    argvs = json.loads(commands)
    for argv in argvs:
        once(argv)
    turns = [[once(argv) for argv in argvs] for _ in range(int(rounds))]
    print(json.dumps([list(one) for one in zip(*turns, strict=True)]))


if __name__ == "__main__":
    main(*sys.argv[1:])
