"""What a number or an address in a recording can be: held when one is read, and costless where one is made."""

from __future__ import annotations

from typing import Annotated, TypeVar

from msgspec import Meta

ADDRESS = (2, 61)
"""The shortest and the longest IP address ("::", and one with a zone): no other string has these bounds.

So whoever reads a recording finds every address by its type; a pattern would cost every start its compilation.
"""
FEW = 1024
"""More than any target has of what there are few: addresses of a name, attempts, walks."""

SOME = 1 << 13
"""More than any machine has of what concerns one port: listeners on it, containers, namespaces."""
MANY = 1 << 16
"""More targets than anybody asks about at once."""

T = TypeVar("T")

_LARGEST = (1 << 63) - 1

Port = Annotated[int, Meta(ge=0, le=65535)]
Pid = Annotated[int, Meta(ge=0, le=(1 << 32) - 1)]
"""0: none, or not told; Windows has larger ones than Linux."""
Uid = Annotated[int, Meta(ge=-1, le=(1 << 32) - 1)]
"""-1: not told."""
Count = Annotated[int, Meta(ge=0, le=_LARGEST)]
Inode = Annotated[int, Meta(ge=-1, le=_LARGEST)]
Handle = Annotated[int, Meta(ge=0, le=_LARGEST)]
Line = Annotated[int, Meta(ge=1, le=_LARGEST)]
Octet = Annotated[int, Meta(ge=0, le=255)]
Word = Annotated[int, Meta(ge=0, le=(1 << 32) - 1)]
Priority = Annotated[int, Meta(ge=-(1 << 31), le=(1 << 31) - 1)]
"""Of what netfilter asks at a hook: the lowest is asked first."""
Mode = Annotated[int, Meta(ge=0, le=0o7777)]
ExitStatus = Annotated[int, Meta(ge=-(1 << 31), le=(1 << 32) - 1)]
"""Of a process that ended."""
Milliseconds = Annotated[float, Meta(ge=0, le=1e12)]
Seconds = Annotated[float, Meta(ge=0, le=1e9)]
Address = Annotated[str, Meta(min_length=ADDRESS[0], max_length=ADDRESS[1])]
Many = Annotated[tuple[T, ...], Meta(max_length=MANY)]
Some = Annotated[tuple[T, ...], Meta(max_length=SOME)]
Few = Annotated[tuple[T, ...], Meta(max_length=FEW)]
Argv = Annotated[tuple[str, ...], Meta(min_length=1, max_length=FEW)]
