"""The tables of iptables-legacy as the kernel keeps them, and iptables-save's text (fixtures/raw/iptables)."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diagnose.parse import iptables_save, xtables, xtables_state
from diagnose.parse.xtables import Block

RAW = Path(__file__).parents[2] / "fixtures" / "raw" / "iptables"


def block(name: str) -> Block:
    data = (RAW / name).read_bytes()
    layout = xtables.IPV6 if "-ip6-" in name else xtables.IPV4
    return Block(layout, xtables.info(data), data[xtables.INFO_SIZE :])


FILTER = "linux-6.18-ip-filter.xtables"


def test_rules_are_counted_as_iptables_counts_them() -> None:
    found = [(rule.chain, rule.line, rule.target, rule.destination) for rule in xtables.rules(block(FILTER))]
    assert found == [
        ("INPUT", 1, "REJECT", None),
        ("INPUT", 2, "DROP", None),
        ("INPUT", 3, "JUMP", "guard"),
        ("INPUT", 4, "GOTO", "guard"),
        ("INPUT", 5, "", None),
        ("INPUT", 0, "ACCEPT", None),
        ("FORWARD", 0, "DROP", None),
        ("OUTPUT", 0, "ACCEPT", None),
        ("guard", 1, "REJECT", None),
        ("guard", 0, "RETURN", None),
    ]


def test_policies_hooks_comments_and_rejects_are_told() -> None:
    rules = xtables.rules(block(FILTER))
    assert [rule.chain for rule in rules if rule.policy] == ["INPUT", "FORWARD", "OUTPUT"]
    assert {rule.chain: rule.hook for rule in rules} == {
        "INPUT": "input",
        "FORWARD": "forward",
        "OUTPUT": "output",
        "guard": None,
    }
    assert rules[0].comment == "x y"
    assert xtables.reject_with(rules[0], xtables.IPV4) == "tcp reset"
    (six,) = [rule for rule in xtables.rules(block("linux-6.18-ip6-filter.xtables")) if rule.line]
    assert xtables.reject_with(six, xtables.IPV6) == "icmpv6 admin-prohibited"


def test_a_sibling_stands_before_each_rule_that_depends_on_a_state() -> None:
    extended = xtables_state.extend(block(FILTER))
    assert [(one.rule.chain, one.rule.line, one.cause) for one in extended.siblings] == [
        ("INPUT", 2, "state"),
        ("guard", 1, "state"),
    ]
    rules = xtables.rules(extended.block)
    lines = [(rule.chain, rule.line, rule.target, rule.destination) for rule in rules]
    assert lines[:6] == [
        ("INPUT", 1, "REJECT", None),
        ("INPUT", 2, "", None),
        ("INPUT", 3, "DROP", None),
        ("INPUT", 4, "JUMP", "guard"),
        ("INPUT", 5, "GOTO", "guard"),
        ("INPUT", 6, "", None),
    ]
    assert lines[-3:] == [("guard", 1, "", None), ("guard", 2, "REJECT", None), ("guard", 0, "RETURN", None)]
    assert [match.name for match in rules[1].matches] == ["tcp"]
    assert extended.block.info.entries == block(FILTER).info.entries + 2
    assert {offset for _, offset in extended.rules} <= {rule.offset for rule in rules}


def test_without_siblings_the_block_is_as_it_was() -> None:
    assert xtables_state.extend(block(FILTER), siblings=False).block == block(FILTER)


def test_rules_are_known_again_when_others_were_put_in() -> None:
    before, after = block(FILTER), xtables_state.extend(block(FILTER)).block
    found = xtables.aligned(before, after)
    assert [found.get(("INPUT", line)) for line in range(1, 7)] == [1, None, 2, 3, 4, 5]


def test_what_the_kernel_counts_does_not_tell_two_tables_apart() -> None:
    one = block(FILTER)
    counted = bytearray(one.data)
    counted[one.layout.counters] = 9
    assert xtables.canonical(Block(one.layout, one.info, bytes(counted))) == xtables.canonical(one)
    counted[0] = 9
    assert xtables.canonical(Block(one.layout, one.info, bytes(counted))) != xtables.canonical(one)


def test_an_entry_that_counted_between_two_readings_is_told() -> None:
    before = block(FILTER)
    offsets = [rule.offset for rule in xtables.rules(before)]
    counted = bytearray(before.data)
    counted[offsets[2] + before.layout.counters] += 1
    after = Block(before.layout, before.info, bytes(counted))
    assert xtables.moved(before, before, offsets) == frozenset()
    assert xtables.moved(before, after, offsets) == {offsets[2]}
    assert xtables.moved(after, before, offsets) == frozenset()


def test_the_hooks_of_a_table_are_those_of_its_policies() -> None:
    one = block(FILTER)
    assert xtables.hooks(one.info) == tuple(rule.hook for rule in xtables.rules(one) if rule.policy)


@given(st.integers(0, 2391), st.integers(0, 255))
def test_a_damaged_table_is_an_error_or_a_table_and_never_a_crash(place: int, value: int) -> None:
    one = block(FILTER)
    damaged = bytearray(one.data)
    damaged[place % len(damaged)] = value
    try:
        extended = xtables_state.extend(Block(one.layout, one.info, bytes(damaged)))
        for rule, _ in extended.rules:
            assert (rule.target, rule.destination, rule.matches, rule.data) is not None
    except (ValueError, KeyError):
        return


@pytest.mark.parametrize("name", ["iptables-nft-save-1.8.9.txt", "iptables-legacy-save-1.8.9.txt"])
def test_iptables_save_of_either_backend_is_read(name: str) -> None:
    found = iptables_save.rules((RAW / name).read_text())
    first = '-p tcp -m tcp --dport 80 -m comment --comment "x y" -j REJECT --reject-with tcp-reset'
    assert found["filter", "INPUT"][0] == first
    assert found["filter", "FORWARD"] == ()


def test_the_text_of_iptables_legacy_fits_the_kernels_table() -> None:
    found = iptables_save.rules((RAW / "iptables-legacy-save-1.8.9.txt").read_text())
    for chain in ("INPUT", "FORWARD", "OUTPUT", "guard"):
        lines = [rule.line for rule in xtables.rules(block(FILTER)) if rule.chain == chain and rule.line]
        assert len(found["filter", chain]) == len(lines)


@pytest.mark.parametrize(
    "text",
    [
        "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -j DROP\n",
        "*filter\n:INPUT ACCEPT [0:0]\n-A OTHER -j DROP\nCOMMIT\n",
        "*filter\n:INPUT ACCEPT [0:0]\nsomething else\nCOMMIT\n",
        '*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -m comment --comment "a\nb -j DROP\nCOMMIT\n',
        "*filter\n:INPUT ACCEPT [0:0]\n:INPUT ACCEPT [0:0]\nCOMMIT\n",
        "iptables v1.8.9: can't initialize table",
    ],
    ids=["no end", "unknown chain", "foreign line", "string without an end", "chain twice", "an error message"],
)
def test_what_is_no_whole_listing_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        iptables_save.rules(text)
