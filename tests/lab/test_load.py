"""Many runs at once on two processors: an answer may lose confidence, and never becomes another."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from tests.lab.machine import INSTALLED, NOBODY, ROOT, Answer, Machine, nothing_left_behind

AT_ONCE = 30
PATIENCE = 20.0


@dataclass(frozen=True)
class Fault:
    """One on a port of its own; `also` is what it is called by a user who sees less of it."""

    code: str
    target: str
    also: tuple[str, ...] = ()

    def allows(self, answer: Answer) -> bool:
        """The same cause, or none; never a proven problem of another kind, and never that it works."""
        allowed = {self.code, *self.also}
        proven = {one["code"] for one in answer.report["findings"] if is_accusation(one)}
        named = {answer.cause["code"]} if answer.cause else set()
        return answer.exit_code in (1, 3) and named | proven <= allowed


def full_queue(machine: Machine, port: int) -> Fault:
    machine.serve("full", port=port)
    return Fault("hung/accept-queue-full", f"127.0.0.1:{port}")


def other_family(machine: Machine, port: int) -> Fault:
    """By a server that is slow for so many clients."""
    machine.write("/etc/hosts", "127.0.0.1 localhost\n")
    machine.serve("serves_one_at_a_time", "::1", port)
    return Fault("refused/other-family", f"localhost:{port}")


def stopped(machine: Machine, port: int) -> Fault:
    machine.serve(port=port).stop()
    return Fault("hung/process-stopped", f"127.0.0.1:{port}", ("hung/not-accepting",))


def dropped(machine: Machine, port: int) -> Fault:
    machine.serve(port=port)
    machine.chain("input", f"tcp dport {port} drop")
    return Fault("firewall/rule-drops", f"127.0.0.1:{port}", ("firewall/silent",))


def rejected(machine: Machine, port: int) -> Fault:
    machine.serve(port=port)
    machine.chain("input", f"tcp dport {port} reject with tcp reset", family="inet", priority=1)
    return Fault("firewall/rule-rejects", f"127.0.0.1:{port}")


def reply_dropped(machine: Machine, port: int) -> Fault:
    machine.serve(port=port)
    machine.chain("output", f"tcp sport {port} drop")
    return Fault("firewall/reply-dropped", f"127.0.0.1:{port}", ("firewall/silent",))


def closed(_: Machine, port: int) -> Fault:
    return Fault("refused/nothing-listening", f"127.0.0.1:{port}")


ALL = (full_queue, other_family, stopped, dropped, rejected, reply_dropped, closed)


@pytest.mark.parametrize("faults", [(full_queue,), (other_family,), ALL], ids=["full queue", "other family", "mixed"])
def test_thirty_runs_at_once_come_to_the_same_cause_or_a_less_certain_one(
    machine: Machine, faults: tuple[Callable[[Machine, int], Fault], ...]
) -> None:
    injected = [inject(machine, machine.port + 20 * number) for number, inject in enumerate(faults)]
    for fault in injected:
        quiet = machine.netdiag("run", "--json", fault.target)
        assert quiet.cause, str(quiet)
        assert (quiet.cause["code"], quiet.cause["confidence"]) == (fault.code, "proven"), f"a single run: {quiet}"
    order = [injected[number % len(injected)] for number in range(AT_ONCE)]
    with nothing_left_behind(machine, PATIENCE), ThreadPoolExecutor(AT_ONCE) as pool:
        answers = list(pool.map(lambda one: one_of_many(machine, one[1].target, one[0] % 2), enumerate(order)))
    for fault, answer in zip(order, answers, strict=True):
        assert fault.allows(answer), f"{fault}\n{answer}"
    named = sum(answer.cause is not None for answer in answers)
    assert named >= AT_ONCE // 2, f"only {named} of {AT_ONCE} came to a cause"


def is_accusation(finding: dict[str, str]) -> bool:
    return finding["severity"] == "problem" and finding["confidence"] == "proven"


def one_of_many(machine: Machine, target: str, half: int) -> Answer:
    """By root and by an ordinary user in turn."""
    argv, uid = ("run", "--json", target), (ROOT, NOBODY)[half]
    done = subprocess.run(
        machine.inside([INSTALLED, *argv], uid), stdin=subprocess.DEVNULL, capture_output=True, timeout=120, check=False
    )
    assert json.loads(done.stdout)["attempts"], done.stderr
    return Answer(("netdiag", *argv), done.returncode, done.stdout, done.stderr, 0.0)
