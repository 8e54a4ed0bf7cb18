"""The rule set as the kernel dumps it, and as nft prints it (fixtures/raw/nft: Linux 6.18, nft 1.0.6)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs
from msgspec.structs import replace

from diagnose.parse import nfnetlink, nft, nft_state, nft_trace
from diagnose.parse.nft import ChainKey, Kind, Message, Rule, Ruleset, TableKey
from diagnose.parse.nft_trace import Code, Said

RAW = Path(__file__).parents[2] / "fixtures" / "raw" / "nft"
FILTER = TableKey(1, b"filter")
INPUT = ChainKey(FILTER, b"input")


def messages(data: bytes) -> Iterator[Message]:
    """Type and payload of each message of a recording."""
    offset = 0
    while offset < len(data):
        length, kind = struct.unpack_from("=IH", data, offset)
        yield kind, data[offset + 16 : offset + length]
        offset += (length + 3) & ~3


@pytest.fixture(scope="module")
def dump() -> list[Message]:
    return list(messages((RAW / "linux-6.18-dump.netlink").read_bytes()))


@pytest.fixture(scope="module")
def rules(dump: list[Message]) -> Ruleset:
    return nft.ruleset(dump)


def in_chain(rules: Ruleset, chain: ChainKey) -> list[Rule]:
    return [rule for rule in rules.rules if rule.chain == chain]


def test_every_part_of_the_rule_set_is_read(rules: Ruleset) -> None:
    assert [(t.key.family, t.key.name) for t in rules.tables] == [
        (1, b"filter"),
        (2, b"nat"),
        (5, b"early"),
        (2, b"filter"),
    ]
    hooks = {c.key.name: c.hook for c in rules.chains if c.hook is not None and c.key.table.family != 2}
    assert (hooks[b"input"].name, hooks[b"input"].priority, hooks[b"input"].drops) == ("input", 0, True)
    assert (hooks[b"in"].name, hooks[b"in"].devices, hooks[b"in"].drops) == ("ingress", (b"lo",), False)
    assert [c.key.name for c in rules.chains if c.anonymous] == [b"__chain14"]
    assert {s.name for s in rules.sets if not s.name.startswith(b"__")} == {b"closed", b"banned", b"doors"}
    assert {(o.kind, o.name) for o in rules.others} == {(Kind.OBJECT, b"hits"), (Kind.OBJECT, b"month")}


def test_rules_are_told_by_what_they_do(rules: Ruleset) -> None:
    assert [nft.intent(rule) for rule in in_chain(rules, INPUT)] == [
        "drop",
        "continue",
        "reject",
        "jump __chain14",
        "accept",
        "drop",
        "continue",
        "drop",
        "drop",
        "accept",
        "drop",
        "accept",
    ]
    nat = in_chain(rules, ChainKey(TableKey(2, b"nat"), b"out"))
    assert [nft.rewrites(rule) for rule in nat] == ["redirect", "dnat"]
    (guarded,) = in_chain(rules, ChainKey(FILTER, b"guard"))
    assert (nft.reject_with(guarded), nft.comment(guarded)) == ("tcp reset", "closed # handle 3")


def test_the_xt_extensions_of_iptables_nft_are_told_too(rules: Ruleset) -> None:
    mixed = in_chain(rules, ChainKey(TableKey(2, b"filter"), b"INPUT"))
    assert [nft.reject_with(rule) for rule in mixed] == ["tcp reset", None, "icmp host-prohibited", None]
    assert nft.comment(mixed[0]) == "x y"


def test_a_copy_of_the_dump_lists_equal_to_it(rules: Ruleset) -> None:
    base = [chain for chain in rules.chains if chain.hook is not None]
    again = nft.ruleset((kind, with_handle(kind, payload)) for kind, payload in nft.clone(rules, base, frozenset()))
    assert nft.differences(rules, again) == {}


def test_a_dynamic_set_without_timeout_is_asked_for_without_one(rules: Ruleset) -> None:
    timeout = nfnetlink.attribute(6, bytes(8))
    (rule,) = [rule for rule in rules.rules if b"dynset" in rule.given]
    assert timeout in rule.given
    timeless = replace(rules, sets=tuple(replace(one, flags=one.flags & ~16) for one in rules.sets))
    made = [payload for kind, payload in nft.clone(timeless, (), frozenset()) if kind == Kind.RULE.new]
    (asked,) = [payload for payload in made if b"dynset" in payload]
    assert timeout not in asked


def with_handle(kind: int, payload: bytes) -> bytes:
    """A request as the kernel would dump what it made: with a handle of its own."""
    return payload + nfnetlink.attribute(3, bytes(8)) if kind == Kind.RULE.new else payload


def test_a_copy_that_lacks_a_rule_or_has_another_is_told(rules: Ruleset) -> None:
    base = [chain for chain in rules.chains if chain.hook is not None]
    made = [(kind, with_handle(kind, payload)) for kind, payload in nft.clone(rules, base, frozenset())]
    lacking = [m for m in made if m[0] != Kind.RULE.new] + [m for m in made if m[0] == Kind.RULE.new][1:]
    assert set(nft.differences(rules, nft.ruleset(lacking))) == {FILTER}
    port, other = (nfnetlink.attribute(1, number.to_bytes(2, "big")) for number in (99, 100))
    changed = [(kind, payload.replace(port, other)) for kind, payload in made]
    assert set(nft.differences(rules, nft.ruleset(changed))) == {TableKey(2, b"filter")}


# ------ quick readings, and that they read the same


def thoroughly(dump: list[Message]) -> Ruleset:
    """Each message by itself: none of them follows another that it could be like."""
    parts = [nft.ruleset([message]).rules for message in dump if message[0] == Kind.RULE.new]
    return Ruleset((), (), tuple(rule for part in parts for rule in part), (), ())


def test_rules_read_one_after_another_are_the_same_as_read_alone(dump: list[Message], rules: Ruleset) -> None:
    assert rules.rules == thoroughly(dump).rules


HANDLE, POSITION = nfnetlink.attribute(3, (7).to_bytes(8, "big")), nfnetlink.attribute(6, bytes(8))
EXPRESSIONS, USERDATA = nfnetlink.nest(4, nfnetlink.text(1, b"x")), nfnetlink.attribute(7, b"\0\2y\0")
STRANGE = nfnetlink.attribute(99, b"from a later kernel")


@pytest.mark.parametrize(
    "attributes",
    [
        HANDLE + EXPRESSIONS,
        HANDLE + POSITION + EXPRESSIONS + USERDATA,
        HANDLE + STRANGE + EXPRESSIONS + USERDATA,
        HANDLE + EXPRESSIONS + USERDATA + STRANGE,
        HANDLE + EXPRESSIONS + STRANGE,
        HANDLE + STRANGE,
        HANDLE,
        STRANGE + HANDLE + EXPRESSIONS,
    ],
)
def test_a_rule_unlike_the_one_before_is_read_by_its_attributes(attributes: bytes) -> None:
    first = nft.opening(INPUT) + HANDLE + EXPRESSIONS
    one, other = nft.ruleset([(Kind.RULE.new, first), (Kind.RULE.new, nft.opening(INPUT) + attributes)]).rules
    found = nfnetlink.by_type(attributes)
    assert (other.chain, other.handle) == (INPUT, 7)
    assert (other.expressions, other.userdata) == (found.get(4, b""), found.get(7, b""))
    assert (one == other) == (other.given == EXPRESSIONS)


@given(st.lists(st.binary(max_size=9), max_size=5), st.integers(1, 4))
def test_the_pieces_of_a_list_are_its_attributes_alike_or_not(values: list[bytes], times: int) -> None:
    attributes = [nfnetlink.attribute(1, value) for value in values] * times
    assert nfnetlink.pieces(b"".join(attributes)) == attributes


def test_a_list_that_ends_within_an_attribute_is_torn_though_all_look_alike() -> None:
    whole = nfnetlink.attribute(1, b"1234") * 3
    for cut in (1, 4, 7):
        with pytest.raises(ValueError, match="torn"):
            nfnetlink.pieces(whole[:-cut])


def with_elements(*values: bytes) -> nft.Set:
    listed = nfnetlink.nest(3, b"".join(nfnetlink.attribute(1, value) for value in values))
    return nft.Set(FILTER, b"names", b"", 0, (nfnetlink.generic(1) + nfnetlink.text(1, b"filter") + listed,))


def test_a_set_is_the_same_in_any_order_and_not_with_other_elements() -> None:
    one = nft.Contents(with_elements(b"a", b"b", b"c"))
    assert one == nft.Contents(with_elements(b"c", b"a", b"b"))
    assert one != nft.Contents(with_elements(b"a", b"b"))
    assert one != nft.Contents(with_elements(b"a", b"b", b"d"))
    assert nft.Contents(with_elements(b"a", b"a", b"b")) != nft.Contents(with_elements(b"a", b"b", b"b"))


# ------ whether an undo restored the rules


def test_rules_without_one_or_in_another_order_are_not_restored(rules: Ruleset) -> None:
    assert nft.restored(rules, rules)
    lacking = structs.replace(rules, rules=rules.rules[1:])
    assert not nft.restored(rules, lacking)
    assert not nft.restored(lacking, rules)
    first, second, *others = in_chain(rules, INPUT)
    in_order, otherwise = ((first, second, *others), (second, first, *others))
    assert nft.restored(structs.replace(rules, rules=in_order), structs.replace(rules, rules=in_order))
    assert not nft.restored(structs.replace(rules, rules=in_order), structs.replace(rules, rules=otherwise))


def rule_with(name: bytes, data: bytes, userdata: bytes = b"") -> Ruleset:
    expression = nfnetlink.nest(1, nfnetlink.text(1, name) + nfnetlink.nest(2, nfnetlink.attribute(1, data)))
    given = nfnetlink.nest(4, expression) + (nfnetlink.attribute(7, userdata) if userdata else b"")
    return Ruleset((), (), (Rule(INPUT, 1, given),), (), ())


def test_what_was_counted_meanwhile_does_not_count_for_the_undo_but_all_else_does() -> None:
    assert nft.restored(rule_with(b"counter", b"12345678"), rule_with(b"counter", b"87654321"))
    assert not nft.restored(rule_with(b"cmp", b"12345678"), rule_with(b"cmp", b"87654321"))
    assert not nft.restored(rule_with(b"cmp", b"12345678"), rule_with(b"cmp", b"12345678", b"\1\2y\0"))
    # a comment is in no undo, because it is not shown
    assert nft.restored(rule_with(b"cmp", b"12345678"), rule_with(b"cmp", b"12345678", b"\0\2y\0"))


def looking_up(name: bytes, *values: bytes) -> Ruleset:
    anonymous = structs.replace(with_elements(*values), name=name, flags=1)
    return structs.replace(rule_with(b"lookup", name + b"\0"), sets=(anonymous,))


def test_an_anonymous_set_is_known_by_what_is_in_it() -> None:
    assert nft.restored(looking_up(b"__set0", b"a", b"b"), looking_up(b"__set4", b"b", b"a"))
    assert not nft.restored(looking_up(b"__set0", b"a", b"b"), looking_up(b"__set4", b"a", b"c"))
    assert not nft.restored(looking_up(b"__set0", b"a", b"b"), looking_up(b"__set0", b"a", b"c"))


def test_the_requests_of_a_copy_carry_no_handles_and_the_protocol_of_xt_rules(rules: Ruleset) -> None:
    base = [chain for chain in rules.chains if chain.hook is not None]
    made = [nfnetlink.by_type(p, 4) for kind, p in nft.clone(rules, base, frozenset()) if kind == Kind.RULE.new]
    assert not any(3 in found for found in made)
    compat = [nfnetlink.by_type(found[5]) for found in made if 5 in found]
    assert [nfnetlink.number(found[1]) for found in compat] == [6, 17]


def test_rules_that_depend_on_a_state_are_told_and_those_that_do_nothing_are_not(rules: Ruleset) -> None:
    states = nft_state.States(rules)
    causes = [states.cause(rule) for rule in in_chain(rules, INPUT)]
    assert causes == [None, None, None, None, "state", "state", None, "state", "state", "state", "sender", None]
    mixed = in_chain(rules, ChainKey(TableKey(2, b"filter"), b"INPUT"))
    assert [states.cause(rule) for rule in mixed] == [None, "state", None, None]


def test_a_sibling_keeps_the_tests_that_a_copy_can_answer_and_has_no_verdict(rules: Ruleset) -> None:
    siblings = {rule.handle: expressions for rule, _, expressions in nft_state.siblings(rules) if rule.chain == INPUT}
    for rule in in_chain(rules, INPUT):
        if rule.handle in siblings:
            one = Rule(rule.chain, 0, nfnetlink.nest(4, siblings[rule.handle]))
            assert nft.intent(one) == "continue"
            assert {part.name for part in nft.expressions(one)} <= {"meta", "cmp", "payload"}
    drop_by_chance = in_chain(rules, INPUT)[7]
    names = [part.name for part in nft.expressions(Rule(INPUT, 0, nfnetlink.nest(4, siblings[drop_by_chance.handle])))]
    assert names == ["meta", "cmp", "payload", "cmp"]


def test_nfts_listing_gives_each_rule_its_words(rules: Ruleset) -> None:
    text = (RAW / "nft-1.0.6-list.txt").read_text()
    wanted: dict[tuple[str, str, str], tuple[int, ...]] = {}
    for rule in rules.rules:
        where = (nft.FAMILIES[rule.chain.table.family], rule.chain.table.name.decode(), rule.chain.name.decode())
        wanted[where] = (*wanted.get(where, ()), rule.handle)
    found = nft.listing(text, wanted)
    (guarded,) = in_chain(rules, ChainKey(FILTER, b"guard"))
    assert (
        found["inet", "filter", "guard", guarded.handle]
        == 'tcp dport 90 reject with tcp reset comment "closed # handle 3"'
    )
    assert ("inet", "filter", "input", in_chain(rules, INPUT)[-1].handle) in found


CHAIN = ("inet", "filter", "input")


def listed(*lines: str) -> str:
    return "\n".join(["table inet filter { # handle 1", "\tchain input { # handle 1", *lines, "\t}", "}"])


def test_a_chain_whose_listing_shows_other_rules_than_the_kernel_has_gets_no_words() -> None:
    text = listed("\t\ttcp dport 1 drop # handle 2", "\t\ttcp dport 2 drop # handle 3")
    assert nft.listing(text, {CHAIN: (2, 3)}) == {
        (*CHAIN, 2): "tcp dport 1 drop",
        (*CHAIN, 3): "tcp dport 2 drop",
    }
    assert nft.listing(text, {CHAIN: (2,)}) == {}
    assert nft.listing(text, {CHAIN: (3, 2)}) == {}
    assert nft.listing(text, {CHAIN: (2, 3, 4)}) == {}
    assert nft.listing(text.replace("# handle 3", "# 3"), {CHAIN: (2, 3)}) == {}


def test_a_comment_with_a_line_of_its_own_cannot_pose_as_a_rule() -> None:
    text = listed('\t\tdrop comment "x # handle 3', '\t\ttcp dport 22 accept" # handle 2', "\t\taccept # handle 3")
    assert nft.listing(text, {CHAIN: (2, 3)}) == {}


def test_a_listing_cut_short_gives_no_words_for_the_chain_it_was_cut_in() -> None:
    text = listed("\t\ttcp dport 1 drop # handle 2", "\t\ttcp dport 2 drop # handle 3")
    assert nft.listing(text[: text.index("dport 2")], {CHAIN: (2, 3)}) == {}


@given(st.integers(0, 3000))
def test_a_torn_dump_is_an_error_and_never_half_a_rule_set(cut: int) -> None:
    kind, payload = max(messages((RAW / "linux-6.18-dump.netlink").read_bytes()), key=lambda m: len(m[1]))
    torn = payload[: len(payload) - 1 - cut % (len(payload) - 5)]
    try:
        read = nft.ruleset([(kind, torn)])
    except ValueError:
        return
    assert len(read.rules) + len(read.sets) + len(read.chains) + len(read.tables) <= 1


@given(st.binary(max_size=200))
def test_bytes_that_are_no_rule_set_are_an_error(noise: bytes) -> None:
    try:
        nft.ruleset([(Kind.RULE.new, noise)])
    except ValueError:
        return


def test_a_trace_tells_packets_rules_and_verdicts() -> None:
    events = [nft_trace.event(p) for _, p in messages((RAW / "linux-6.18-trace.netlink").read_bytes())]
    told = [
        (event.packet.kind if event.packet else None, event.chain.name, event.said, event.code)
        for event in events
        if event.chain.table.name == b"filter"
    ]
    assert told[:3] == [
        ("syn", b"input", Said.RULE, Code.JUMP),
        (None, b"guard", Said.RULE, Code.DROP),
        ("reset", b"input", Said.RULE, Code.JUMP),
    ]
    first = next(event.packet for event in events if event.packet is not None)
    assert (first.source, first.destination, first.destination_port) == ("127.0.0.1", "127.0.0.1", 8080)
    six = [event.packet for event in events if event.packet is not None and ":" in event.packet.source]
    assert {packet.kind for packet in six} == {"syn", "reset"}


@given(st.binary(max_size=120))
def test_bytes_that_are_no_trace_are_an_error(noise: bytes) -> None:
    try:
        nft_trace.event(noise)
    except ValueError:
        return


@pytest.mark.parametrize(
    ("network", "transport", "kind"),
    [
        (b"\x45" + bytes(8) + b"\x06" + bytes(10), bytes(13) + b"\x02" + bytes(6), "syn"),
        (b"\x45" + bytes(8) + b"\x06" + bytes(10), bytes(13) + b"\x12" + bytes(6), "syn-ack"),
        (b"\x45" + bytes(8) + b"\x06" + bytes(10), bytes(13) + b"\x14" + bytes(6), "reset"),
        (b"\x45" + bytes(8) + b"\x06" + bytes(10), bytes(13) + b"\x10" + bytes(6), "other"),
        (b"\x45" + bytes(8) + b"\x01" + bytes(10), b"\x03" + bytes(7), "icmp"),
        (b"\x45" + bytes(8) + b"\x01" + bytes(10), b"\x08" + bytes(7), "other"),
        (b"\x60" + bytes(5) + b"\x3a" + bytes(33), b"\x01" + bytes(7), "icmp"),
        (b"\x60" + bytes(5) + b"\x06" + bytes(33), bytes(13) + b"\x02" + bytes(6), "syn"),
    ],
)
def test_packets_are_told_by_their_headers(network: bytes, transport: bytes, kind: str) -> None:
    packet = nft_trace.packet(network, transport)
    assert packet is not None
    assert packet.kind == kind


def test_a_packet_too_short_to_tell_is_none() -> None:
    assert nft_trace.packet(b"\x45" + bytes(10), bytes(20)) is None
    assert nft_trace.packet(b"\x45" + bytes(8) + b"\x06" + bytes(10), bytes(4)) is None


@pytest.mark.parametrize(
    ("number", "queue", "bypass"),
    [(5 << 16 | 3, 5, False), (40000 << 16 | 0x8003, 40000, True), (65535 << 16 | 3, 65535, False)],
)
def test_a_queue_is_told_by_its_number_and_whether_it_may_be_passed_by(number: int, queue: int, bypass: bool) -> None:
    payload = bytes([2, 0, 0, 0]) + nfnetlink.text(1, b"t") + nfnetlink.text(2, b"c") + nfnetlink.u32(4, 3)
    told = nft_trace.event(payload + nfnetlink.nest(5, nfnetlink.u32(1, number)) + nfnetlink.u32(6, 1))
    assert (told.code, told.queue, told.bypass) == (Code.QUEUE, queue, bypass)
