"""Runs a function in a network namespace of its own, in a child process, and gives back what it returned."""

from __future__ import annotations

import ctypes
import os
import pickle
import subprocess
import sys
import traceback
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_CLONE_NEWNET = 0x40000000


def sh(script: str) -> None:
    """Runs a shell script; CalledProcessError with its output when it fails."""
    subprocess.run(["sh", "-ec", script], check=True, capture_output=True, text=True)


def nft(rules: str) -> None:
    """Adds to the rules of this namespace."""
    subprocess.run(["nft", "-f", "-"], input=rules, check=True, capture_output=True, text=True)


def in_namespace(setup: str, function: Callable[[], T]) -> T:
    """The function's result; the namespace goes with the child."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _run(writing, setup, function)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    assert answer, "the child died without an answer"
    failed, result = pickle.loads(answer)
    assert not failed, result
    returned: T = result
    return returned


def _run(writing: int, setup: str, function: Callable[[], object]) -> None:
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(_CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "unshare")
        sh(f"ip link set lo up\n{setup}")
        answer: tuple[bool, object] = (False, function())
    except BaseException:  # noqa: BLE001 - whatever it is, the parent must hear of it
        answer = (True, traceback.format_exc())
    with os.fdopen(writing, "wb") as pipe:
        pipe.write(pickle.dumps(answer))
    sys.stdout.flush()
    os._exit(0)
