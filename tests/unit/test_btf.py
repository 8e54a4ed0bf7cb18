"""The kernel's own type information: which function a number names; and which BPF programs may forbid a socket."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from diagnose.probes import bpf, btf, cgroup_filters

STRINGS = b"\0int\0bpf_lsm_file_open\0bpf_lsm_socket_connect\0"


def types() -> bytes:
    """An int, a struct of two members, an enum64 of one, a prototype of one parameter, and two functions."""
    at = STRINGS.index
    integer = struct.pack("=IIII", 1, 1 << 24, 4, 32)
    structure = struct.pack("=III", 0, 4 << 24 | 2, 8) + bytes(24)
    wide = struct.pack("=III", 0, 19 << 24 | 1, 8) + bytes(12)
    prototype = struct.pack("=III", 0, 13 << 24 | 1, 1) + bytes(8)
    functions = b"".join(
        struct.pack("=III", at(name), 12 << 24, 4) for name in (b"bpf_lsm_file_open", b"bpf_lsm_socket_connect")
    )
    return integer + structure + wide + prototype + functions


@pytest.fixture
def vmlinux(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = types()
    head = struct.pack("=HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(body), len(body), len(STRINGS))
    (tmp_path / "vmlinux").write_bytes(head + body + STRINGS)
    monkeypatch.setattr(btf, "_PATH", str(tmp_path / "vmlinux"))


@pytest.mark.usefixtures("vmlinux")
@pytest.mark.parametrize(
    ("number", "name"), [(5, "bpf_lsm_file_open"), (6, "bpf_lsm_socket_connect"), (1, None), (0, None), (99, None)]
)
def test_a_number_names_a_function_of_the_kernel(number: int, name: str | None) -> None:
    assert btf.kernel_function(1, number) == name
    assert btf.kernel_function(2, number) is None


@pytest.mark.usefixtures("vmlinux")
@pytest.mark.parametrize(
    ("called", "hook", "suspect"),
    [
        ("restrict_filesy", 5, False),
        ("restrict_filesy", 0, False),
        ("guard", 5, False),
        ("guard", 6, True),
        ("guard", 0, True),
    ],
)
def test_a_program_is_suspected_by_the_hook_that_it_is_attached_to(
    monkeypatch: pytest.MonkeyPatch, called: str, hook: int, suspect: bool
) -> None:
    told = bytearray(256)
    struct.pack_into("=II", told, 220, 1, hook)
    monkeypatch.setattr(bpf, "name", lambda _number: called)
    assert cgroup_filters._may_forbid(7, bytes(told)) is suspect
