"""What several versions of nft and iptables really print (fixtures/raw/made.txt), and what is hostile or torn in it."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diagnose.model.firewall import Backend, RuleRef
from diagnose.model.rule import iptables_arguments
from diagnose.parse import iptables_save, nft, xtables
from diagnose.parse.nft import Message, Rule, Ruleset
from diagnose.parse.xtables import Block
from diagnose.probes.shadow.words import Asking, Listings, Words, handles

RAW = Path(__file__).parents[2] / "fixtures" / "raw"
NFT = sorted(path.name for path in (RAW / "nft").iterdir() if path.is_dir())
IPTABLES = sorted(path.name for path in (RAW / "iptables").iterdir() if path.is_dir())
SIDES = {"iptables": (2, Backend.IPTABLES_NFT), "ip6tables": (10, Backend.IP6TABLES_NFT)}
LEGACY = {"iptables": Backend.IPTABLES_LEGACY, "ip6tables": Backend.IP6TABLES_LEGACY}
ESCAPES = "it's \x1b[31m red \x1b[2J"


def kernel(path: Path) -> Ruleset:
    """The rule set that this version made, as the kernel dumped it."""
    return nft.ruleset(messages(path.read_bytes()))


def messages(data: bytes) -> Iterator[Message]:
    offset = 0
    while offset < len(data):
        length, kind = struct.unpack_from("=IH", data, offset)
        yield kind, data[offset + 16 : offset + length]
        offset += (length + 3) & ~3


def block(path: Path) -> Block:
    data = path.read_bytes()
    layout = xtables.IPV6 if path.name.startswith("ip6") else xtables.IPV4
    return Block(layout, xtables.info(data), data[xtables.INFO_SIZE :])


def understood(backend: Backend, text: str, rules: Ruleset, blocks: tuple[Block, ...] = ()) -> Words:
    """The words that netdiag has after this tool's answer."""
    found = Listings()
    Asking(nft.EMPTY, ())._understand(found, backend, text) if backend is not Backend.NFT else None
    if backend is Backend.NFT:
        found.nft = nft.listing(text, handles(rules))
    return Words(rules, blocks, found)


# ------ nft


@pytest.mark.parametrize("version", NFT)
def test_every_version_of_nft_gives_each_rule_its_own_text(version: str) -> None:
    rules = kernel(RAW / "nft" / version / "dump.netlink")
    words = understood(Backend.NFT, (RAW / "nft" / version / "list.txt").read_text(), rules)
    assert len(rules.rules) == 24
    for rule in rules.rules:
        told = words.rule(rule)
        assert told.text.endswith(f' comment "{nft.comment(rule)}"'), told
        assert told.text.partition(" comment ")[0], told
        assert does(told.text, nft.intent(rule)), (told, nft.intent(rule))
    assert any(ESCAPES in (nft.comment(rule) or "") for rule in rules.rules)
    assert any("\n" in (nft.comment(rule) or "") for rule in rules.rules)


def does(text: str, intent: str) -> bool:
    """Whether the text has the verdict that the kernel has."""
    return intent == "continue" or intent in text


@pytest.mark.parametrize("version", IPTABLES)
def test_where_nft_leaves_out_what_a_rule_of_iptables_asks_no_text_is_better_than_half_a_rule(version: str) -> None:
    path = RAW / "iptables" / version
    if not (path / "nft-dump.netlink").exists():
        pytest.skip("nft 0.9.8 dies over these rules")
    rules = kernel(path / "nft-dump.netlink")
    words = Words(rules, (), Listings(nft=nft.listing((path / "nft-list.txt").read_text(), handles(rules))))
    for rule in rules.rules:
        text = words.rule(rule).text
        if (nft.comment(rule) or "").startswith(("guard 3", "guard 4")):  # recent, statistic
            assert text == "", (version, text)
        elif text:
            assert does(text, nft.intent(rule)), (version, text)


def test_a_listing_that_nft_itself_died_over_gives_no_words_for_the_chain_it_died_in() -> None:
    path = RAW / "iptables" / "1.8.7"
    rules = kernel(path / "nft-dump.netlink")
    found = nft.listing((path / "nft-list.txt").read_text(), handles(rules))
    assert ("ip", "raw", "PREROUTING") in {where[:3] for where in found}
    assert ("ip6", "filter", "guard") not in {where[:3] for where in found}


@pytest.mark.parametrize("version", NFT)
@given(data=st.data())
def test_a_listing_cut_anywhere_tells_no_text_that_the_whole_does_not_tell(version: str, data: st.DataObject) -> None:
    text, wanted = listed(version)
    cut = text[: data.draw(st.integers(0, len(text)))]
    assert told(cut, wanted).items() <= told(text, wanted).items()


@pytest.mark.parametrize("version", NFT)
def test_a_listing_is_read_with_the_handles_of_its_own_rule_set_only(version: str) -> None:
    text, _ = listed(version)
    for other in set(NFT) - {version}:
        rules = kernel(RAW / "nft" / other / "dump.netlink")
        for rule in rules.rules:
            where = (*named(rule), rule.handle)
            found = told(text, handles(rules)).get(where, "")
            assert not found or f'"{nft.comment(rule)}"' in found


def listed(version: str) -> tuple[str, dict[tuple[str, str, str], tuple[int, ...]]]:
    text = (RAW / "nft" / version / "list.txt").read_text()
    return text, handles(kernel(RAW / "nft" / version / "dump.netlink"))


def named(rule: Rule) -> tuple[str, str, str]:
    return nft.FAMILIES[rule.chain.table.family], rule.chain.table.name.decode(), rule.chain.name.decode()


def told(text: str, wanted: Mapping[tuple[str, str, str], tuple[int, ...]]) -> dict[tuple[str, str, str, int], str]:
    """The words; none where the listing is unparsable."""
    try:
        return nft.listing(text, wanted)
    except ValueError:
        return {}


HOSTILE = st.lists(
    st.sampled_from(
        (
            "x", " ", "\n", "\n\t}", "\n}", "\n\tchain input {", "\n\tchain other {", "\ntable inet filter {",
            "\n\tset z {", " # handle 2", " # handle 3", "\n\t\taccept # handle 2", "\n\t\tdrop # handle 3",
            "\n\t\tdrop # handle 4", "\x1b[2J", "\r", "comment ", "{", "\\", "'",
        )
    ),
    max_size=9,
).map("".join)  # fmt: skip
"""Comments as nft takes them: anything but a quote."""


@given(HOSTILE, HOSTILE, HOSTILE, st.booleans())
def test_no_comment_of_nft_makes_a_rule_look_like_another(first: str, second: str, third: str, of_table: bool) -> None:
    real = {
        ("input", 2): f'tcp dport 1 accept comment "{first}"',
        ("input", 3): f'tcp dport 2 reject comment "{second}"',
        ("other", 4): "tcp dport 3 continue",
    }
    lines = ["table inet filter { # handle 1"]
    lines += [f'\tcomment "{third}"'] if of_table else ["\tset z { # handle 9", f'\t\tcomment "{third}"', "\t}"]
    for chain in ("input", "other"):
        rules = [f"\t\t{text} # handle {handle}" for (where, handle), text in real.items() if where == chain]
        lines += [f"\tchain {chain} {{ # handle 1", *rules, "\t}", ""]
    wanted = {("inet", "filter", "input"): (2, 3), ("inet", "filter", "other"): (4,)}
    for (_, _, chain, handle), text in told("\n".join([*lines, "}", ""]), wanted).items():
        assert text == real[chain, handle]


# ------ iptables


@pytest.mark.parametrize("tool", SIDES)
@pytest.mark.parametrize("version", IPTABLES)
def test_every_version_of_iptables_nft_save_gives_each_rule_its_own_text(version: str, tool: str) -> None:
    path = RAW / "iptables" / version
    family, backend = SIDES[tool]
    rules = kernel(path / "nft-dump.netlink")
    words = understood(backend, (path / f"{tool}-nft-save.txt").read_text(), rules)
    own = [rule for rule in rules.rules if rule.chain.table.family == family]
    assert len(own) >= 16
    for rule in own:
        right(words.rule(rule), backend, nft.comment(rule))


@pytest.mark.parametrize("tool", LEGACY)
@pytest.mark.parametrize("version", IPTABLES)
def test_every_version_of_iptables_legacy_save_gives_each_rule_its_own_text(version: str, tool: str) -> None:
    path = RAW / "iptables" / version
    table = block(path / f"{tool}-legacy-filter.xtables")
    words = understood(LEGACY[tool], (path / f"{tool}-legacy-save.txt").read_text(), nft.EMPTY, (table,))
    own = [rule for rule in xtables.rules(table) if rule.line]
    assert len(own) == 16
    for rule in own:
        right(words.legacy(table, rule), LEGACY[tool], rule.comment)


def right(told: RuleRef, backend: Backend, comment: str | None) -> None:
    """The text is that of the rule which bears this comment, and its arguments make the comment again."""
    assert told.backend is backend
    assert told.text, told
    arguments = iptables_arguments(told.text)
    assert arguments[arguments.index("--comment") + 1] == comment
    assert told.comment == comment


@pytest.mark.parametrize("version", IPTABLES)
def test_the_other_backend_is_known_by_its_heading_where_it_has_one(version: str) -> None:
    path = RAW / "iptables" / version
    with pytest.raises(ValueError, match="other backend"):
        understood(Backend.IPTABLES_LEGACY, (path / "iptables-nft-save.txt").read_text(), nft.EMPTY)


@given(data=st.data())
@pytest.mark.parametrize("version", IPTABLES)
def test_a_save_cut_anywhere_is_unparsable_or_has_no_rule_that_the_whole_has_not(
    version: str, data: st.DataObject
) -> None:
    text = (RAW / "iptables" / version / "iptables-legacy-save.txt").read_text()
    whole = iptables_save.rules(text)
    try:
        found = iptables_save.rules(text[: data.draw(st.integers(0, len(text)))])
    except ValueError:
        return
    assert found.items() <= whole.items()


ODD = st.text(st.sampled_from("x \"'\\\n#:*-\x1b\t") | st.characters(codec="utf-8", exclude_characters="\0"))


@given(st.lists(ODD, min_size=1, max_size=4))
def test_no_comment_of_iptables_makes_a_rule_look_like_another(comments: list[str]) -> None:
    rules = [
        f"-m comment --comment {printed(one)} -p tcp -m tcp --dport {at} -j DROP" for at, one in enumerate(comments)
    ]
    lines = ["*filter", ":INPUT ACCEPT [0:0]", *(f"-A INPUT {rule}" for rule in rules), "COMMIT", ""]
    assert iptables_save.rules("\n".join(lines)) == {("filter", "INPUT"): tuple(rules)}
    for rule, comment in zip(rules, comments, strict=True):
        assert iptables_arguments(rule)[3] == comment
        assert iptables_save.tells(rule, comment)
        assert not iptables_save.tells(rule, f"{comment}x")
        assert not iptables_save.tells(rule, None)


def printed(comment: str) -> str:
    """As xtables_save_string does."""
    if comment and all(letter.isascii() and (letter.isalnum() or letter in "_-") for letter in comment):
        return comment
    return '"' + "".join(f"\\{letter}" if letter in "\"\\'" else letter for letter in comment) + '"'
