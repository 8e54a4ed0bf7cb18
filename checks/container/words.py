"""Containers in words, as several causes need them."""

from __future__ import annotations

from diagnose.model.container import EngineContainer, Status
from diagnose.model.network import Endpoint


def state(told: EngineContainer) -> str:
    """What has become of it, behind its name."""
    match told.status:
        case Status.EXITED | Status.DEAD:
            if told.out_of_memory:
                return "was killed for want of memory"
            return f"has exited with code {told.exit_code}" if told.exit_code is not None else "has exited"
        case Status.CREATED:
            return "was created and never started"
        case Status.RESTARTING:
            return f"keeps restarting (exit code {told.exit_code})"
        case _:
            return f"is {told.status.value}"


def why_it_ended(told: EngineContainer) -> str:
    """What its exit code and its engine say, as a sentence."""
    if told.error:
        return f"The engine says: {told.error}"
    if told.out_of_memory:
        return "The kernel's out-of-memory killer ended it: it needs more memory than its limit allows."
    match told.exit_code:
        case None | 0:
            return "Its main process has ended by itself, without an error."
        case 137:
            return "Exit code 137 is SIGKILL: docker kill, a stop that took too long, or the out-of-memory killer."
        case 143:
            return "Exit code 143 is SIGTERM: somebody stopped it."
        case 125 | 126 | 127:
            return "Exit codes 125 to 127 mean that its command could not be run at all."
        case _:
            return "Its main process has failed; its log says why."


def state_line(told: EngineContainer) -> str:
    """Its state as evidence."""
    parts = [f"status {told.status.value}"]
    parts += [f"exit code {told.exit_code}"] if told.exit_code is not None else []
    parts += ["killed by the out-of-memory killer"] if told.out_of_memory else []
    parts += [f"health {told.health}"] if told.health else []
    return ", ".join(parts)


def published_line(told: EngineContainer) -> str:
    """Its published ports as evidence."""
    entries = ", ".join(
        f"{Endpoint(one.address, one.port)} to {one.container_port}" for one in sorted(set(told.published))
    )
    return f"published ports: {entries or 'none'}"
