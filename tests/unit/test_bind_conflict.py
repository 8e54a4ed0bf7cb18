"""The matrix of conflicts; that the kernel does the same is proven by binding in tests/lab_probes/test_bind.py."""

from __future__ import annotations

import pytest

from diagnose.analysis.bind_conflict import Conflict, conflict
from diagnose.model.network import Endpoint, SocketRow, TcpState, family_of


def held(address: str, v6only: bool | None = None, device: str | None = None) -> SocketRow:
    """A listener on port 8080."""
    family = family_of(address)
    any_address = "::" if family == "ipv6" else "0.0.0.0"
    return SocketRow(
        Endpoint(address, 8080), Endpoint(any_address, 0), TcpState.LISTEN, family, 1, 0, v6only=v6only, device=device
    )


@pytest.mark.parametrize(
    ("wanted", "row", "expected"),
    [
        ("127.0.0.1", held("127.0.0.1"), Conflict.SAME_ADDRESS),
        ("127.0.0.1", held("0.0.0.0"), Conflict.HELD_WILDCARD),
        ("0.0.0.0", held("127.0.0.1"), Conflict.WANTED_WILDCARD),
        ("127.0.0.1", held("127.0.0.2"), None),
        ("0.0.0.0", held("::", v6only=False), Conflict.HELD_DUAL_STACK),
        ("0.0.0.0", held("::", v6only=True), None),
        ("127.0.0.1", held("::", v6only=False), Conflict.HELD_DUAL_STACK),
        ("127.0.0.1", held("::", v6only=True), None),
        ("::", held("127.0.0.1"), Conflict.WANTED_DUAL_STACK),
        ("::", held("0.0.0.0"), Conflict.WANTED_DUAL_STACK),
        ("127.0.0.1", held("::1", v6only=True), None),
        ("0.0.0.0", held("::1", v6only=True), None),
        ("::1", held("0.0.0.0"), None),
        ("::1", held("::", v6only=False), Conflict.HELD_WILDCARD),
        ("::1", held("::", v6only=True), Conflict.HELD_WILDCARD),
        ("::", held("::1", v6only=True), Conflict.WANTED_WILDCARD),
        ("127.0.0.1", held("::ffff:127.0.0.1", v6only=False), Conflict.SAME_IPV4),
        ("::ffff:127.0.0.1", held("127.0.0.1"), Conflict.SAME_IPV4),
        ("::ffff:127.0.0.1", held("0.0.0.0"), Conflict.HELD_WILDCARD),
        ("127.0.0.1", held("::ffff:0.0.0.0"), Conflict.HELD_WILDCARD),
        ("0.0.0.0", held("::ffff:0.0.0.0"), Conflict.SAME_IPV4),
        ("::ffff:0.0.0.0", held("::ffff:0.0.0.0"), Conflict.SAME_ADDRESS),
        ("::ffff:0.0.0.0", held("::ffff:127.0.0.1"), Conflict.WANTED_WILDCARD),
        ("::ffff:127.0.0.1", held("::ffff:0.0.0.0"), Conflict.PERHAPS_MAPPED_WILDCARD),
        ("::ffff:10.0.0.1", held("::ffff:0.0.0.0"), Conflict.PERHAPS_MAPPED_WILDCARD),
        ("::ffff:127.0.0.1", held("::1", v6only=True), None),
        ("::ffff:7f00:1", held("::ffff:127.0.0.1"), Conflict.SAME_ADDRESS),
    ],
)
def test_two_addresses_conflict_as_the_kernel_has_it(wanted: str, row: SocketRow, expected: Conflict | None) -> None:
    assert conflict(wanted, False, row) is expected


@pytest.mark.parametrize("held_address", ["127.0.0.1", "0.0.0.0"])
def test_an_ipv6_only_wildcard_leaves_ipv4_alone(held_address: str) -> None:
    assert conflict("::", True, held(held_address)) is None


def test_an_unread_v6only_flag_is_neither_a_conflict_nor_none() -> None:
    why = conflict("127.0.0.1", False, held("::", v6only=None))
    assert why is Conflict.PERHAPS_DUAL_STACK
    assert not why.certain


def test_what_kernels_differ_in_is_not_certain() -> None:
    assert not Conflict.PERHAPS_MAPPED_WILDCARD.certain


def test_an_unread_v6only_flag_does_not_matter_within_one_family() -> None:
    assert conflict("::1", False, held("::", v6only=None)) is Conflict.HELD_WILDCARD


def test_only_two_different_devices_keep_sockets_apart() -> None:
    assert conflict("0.0.0.0", False, held("0.0.0.0", device="eth0"), "eth1") is None
    assert conflict("0.0.0.0", False, held("0.0.0.0", device="eth0"), "eth0") is Conflict.SAME_ADDRESS
    assert conflict("0.0.0.0", False, held("0.0.0.0", device="eth0")) is Conflict.SAME_ADDRESS


def test_a_zone_is_a_device() -> None:
    assert conflict("fe80::1%eth0", False, held("fe80::1", device="eth1")) is None
    assert conflict("fe80::1%eth0", False, held("fe80::1", device="eth0")) is Conflict.SAME_ADDRESS


@pytest.mark.parametrize("why", list(Conflict))
def test_every_conflict_is_a_sentence_that_names_both(why: Conflict) -> None:
    said = why.sentence("WANTED", "HELD")
    assert "HELD" in said
    assert said.endswith(".")
    assert why is Conflict.SAME_ADDRESS or "WANTED" in said
