"""When the counter's movements are proof, and the small parsers of the probes."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diagnose.probes.policy import port_ranges
from diagnose.probes.reset import CHANCE, ours_for_sure


def test_one_for_each_probe_and_none_while_waiting_is_proof_after_enough_rounds() -> None:
    assert ours_for_sure([1] * 22, [0] * 22)
    assert not ours_for_sure([1] * 21, [0] * 21)


def test_one_probe_that_counted_nothing_ends_the_claim() -> None:
    assert not ours_for_sure([1] * 95 + [0], [0] * 96)


def test_a_few_resets_of_others_do_not_spoil_many_clean_rounds() -> None:
    assert ours_for_sure([1] * 42 + [2, 1], [0] * 42 + [0, 1])
    assert not ours_for_sure([1] * 18 + [2] * 4, [0] * 22)


def test_bursts_in_the_windows_of_the_probes_prove_nothing() -> None:
    """Where processors are scarce others run while we do not: seen on a machine with four busy processes."""
    assert not ours_for_sure([17] * 96, [0] * 96)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), max_size=96))
def test_the_claim_needs_more_clean_rounds_than_thrown_coins_would_give(rounds: list[tuple[int, int]]) -> None:
    clean = sum(pair == (1, 0) for pair in rounds)
    by_chance = sum(math.comb(len(rounds), n) for n in range(clean, len(rounds) + 1)) / 2 ** len(rounds)
    if ours_for_sure([probe for probe, _ in rounds], [control for _, control in rounds]):
        assert by_chance <= CHANCE
        assert all(probe for probe, _ in rounds)


@pytest.mark.parametrize(
    ("text", "ranges"),
    [
        ("\n", ()),
        ("8080\n", ((8080, 8080),)),
        ("8080,9000-9010,65535\n", ((8080, 8080), (9000, 9010), (65535, 65535))),
    ],
)
def test_reserved_ports_are_read_as_ranges_with_both_ends(text: str, ranges: tuple[tuple[int, int], ...]) -> None:
    assert port_ranges(text) == ranges


@pytest.mark.parametrize("text", ["x", "1-", "1,,2", "-5"])
def test_what_is_no_list_of_ports_is_an_error_and_not_no_ports(text: str) -> None:
    with pytest.raises(ValueError):
        port_ranges(text)
