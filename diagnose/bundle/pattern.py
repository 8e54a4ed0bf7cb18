"""What the sender's own patterns match: found by another process, which is ended when it takes too long."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence

_SECONDS = 5.0
_LONGEST = 2000
"""Characters of a pattern."""
_MOST = 10_000
_CHILD = f"""
import json, re, sys
try:
    import resource
    resource.setrlimit(resource.RLIMIT_AS, (512 << 20, 512 << 20))
except (ImportError, ValueError, OSError):
    pass
asked = json.load(sys.stdin)
found = set()
try:
    for pattern in map(re.compile, asked["patterns"]):
        for text in asked["texts"]:
            for match in pattern.finditer(text):
                found.add(match[0])
            if len(found) > {_MOST}:
                raise OverflowError("it matches more than {_MOST} different texts")
    print(json.dumps({{"found": sorted(found - {{""}})}}))
except (re.error, OverflowError, RecursionError, MemoryError) as error:
    print(json.dumps({{"error": str(error) or type(error).__name__}}))
"""


class BadPatternError(ValueError):
    """A pattern is none, or takes too long; the message is one line for the user."""


def matches(patterns: Sequence[str], texts: Sequence[str]) -> tuple[str, ...]:
    """The different texts that the patterns match, each at most once. Raises BadPatternError."""
    for pattern in patterns:
        if len(pattern) > _LONGEST:
            raise BadPatternError(f"has {len(pattern)} characters, and {_LONGEST} are the most")
    asked = json.dumps({"patterns": list(patterns), "texts": list(texts)})
    try:
        child = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _CHILD],
            input=asked.encode("ascii"),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise BadPatternError(f"takes longer than {_SECONDS:.0f} s: a simpler pattern will do") from None
    try:
        answer = json.loads(child.stdout)
    except ValueError:
        raise BadPatternError("takes more memory than it may have") from None
    if "error" in answer:
        raise BadPatternError(f"is no regular expression that can be used: {answer['error']}")
    return tuple(answer["found"])
