"""Which function of the kernel a BPF program is attached to, by the kernel's own type information (BTF)."""

from __future__ import annotations

import struct

_PATH = "/sys/kernel/btf/vmlinux"
_MAGIC = 0xEB9F
_HEADER = struct.Struct("=HBBIIIII")
"""struct btf_header: magic, version, flags, header's length; offset and length of the types, of the strings."""
_TYPE = struct.Struct("=III")
_EXTRA = {1: (4, 0), 3: (12, 0), 4: (0, 12), 5: (0, 12), 6: (0, 8), 13: (0, 8), 14: (4, 0), 15: (0, 12), 17: (4, 0)}
"""Bytes behind a type by its kind, and for each of its members (linux/btf.h); no other kind has any but ENUM64."""
_ENUM64, _ENUM64_MEMBER = 19, 12
_FUNCTION = 12


def kernel_function(of_object: int, number: int) -> str | None:
    """The name of the function with this number in the kernel's own BTF; None: it cannot be told.

    `of_object`: the BTF that the number belongs to; the kernel's own is the first that there is.
    """
    if not number or of_object != 1:
        return None
    try:
        with open(_PATH, "rb") as file:
            return _function(file.read(), number)
    except (OSError, struct.error, IndexError):
        return None


def _function(data: bytes, wanted: int) -> str | None:
    magic, _, _, length, types, _, strings, _ = _HEADER.unpack_from(data)
    if magic != _MAGIC:
        return None
    at, size, unpack = length + types, _TYPE.size, _TYPE.unpack_from
    for _ in range(wanted - 1):
        _, info, _ = unpack(data, at)
        kind, members = info >> 24 & 0x1F, info & 0xFFFF
        once, each = (0, _ENUM64_MEMBER) if kind == _ENUM64 else _EXTRA.get(kind, (0, 0))
        at += size + once + each * members
    name, info, _ = unpack(data, at)
    if info >> 24 & 0x1F != _FUNCTION:
        return None
    start = length + strings + name
    return data[start : data.index(b"\0", start)].decode("ascii", "backslashreplace")
