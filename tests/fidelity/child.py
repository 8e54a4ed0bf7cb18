"""The children that try rule sets, seen from the test: started once, and again where one died or hung."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

import msgspec

from tests.fidelity.rulesets import RuleSet
from tests.fidelity.trial import Trial

_REPOSITORY = Path(__file__).resolve().parents[2]
_PATIENCE = 60.0
"""Seconds for one rule set."""


class Child:
    """Network namespaces come and go in it: nothing of them reaches the process of the tests."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def close(self) -> None:
        """Ends it."""
        if self._process is None:
            return
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        self._process.kill()
        self._process.wait()
        self._process = None

    def try_out(self, rules: RuleSet) -> Trial:
        """What came of the rule set; a child that hangs or dies is a crash."""
        process = self._started()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(msgspec.json.encode(rules) + b"\n")
        process.stdin.flush()
        answer = b""
        while not answer.endswith(b"\n"):
            readable, _, _ = select.select([process.stdout], [], [], _PATIENCE)
            part = os.read(process.stdout.fileno(), 1 << 20) if readable else b""
            if not part:
                self.close()
                return Trial(crash="the child died" if readable else f"no answer within {_PATIENCE:g} s")
            answer += part
        return msgspec.json.decode(answer, type=Trial)

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.fidelity.trial"],
                cwd=_REPOSITORY,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
        return self._process


class Children:
    """As many as can work at the same time, each in namespaces of its own."""

    def __init__(self, count: int) -> None:
        self._all = [Child() for _ in range(count)]
        self._idle: SimpleQueue[Child] = SimpleQueue()
        for child in self._all:
            self._idle.put(child)
        self._threads = ThreadPoolExecutor(count)

    def close(self) -> None:
        """Ends them."""
        self._threads.shutdown()
        for child in self._all:
            child.close()

    def try_out(self, rule_sets: Sequence[RuleSet]) -> Iterator[Trial]:
        """What came of each, in order."""
        return self._threads.map(self._by_one, rule_sets)

    def _by_one(self, rules: RuleSet) -> Trial:
        child = self._idle.get()
        try:
            return child.try_out(rules)
        finally:
            self._idle.put(child)
