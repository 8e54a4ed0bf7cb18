"""Titles that fit, whatever names are in them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from diagnose.analysis.wording import ELLIPSIS, TITLE_LENGTH, title

NAMES = st.text(
    st.characters(codec="ascii", categories=("L", "N"), include_characters="-_./:[]"), min_size=1, max_size=300
)
SENTENCES = st.sampled_from(
    [
        "{0} does not resolve: this machine knows no such name",
        "Line 3 of {0} has no address where it belongs: {1}",
        "{0} (pid 4242) listens on {1}, not on 127.0.0.1:8080",
        "Container {0} publishes port 8080: docker-proxy listens on {1}",
        "{0} {1}",
        "{0}",
    ]
)


@given(SENTENCES, NAMES, NAMES)
def test_a_title_is_cut_between_words_and_a_name_never_at_its_end(sentence: str, first: str, second: str) -> None:
    whole = sentence.format(first, second)
    short = title(whole)
    assert len(short) <= TITLE_LENGTH
    if len(whole) <= TITLE_LENGTH:
        assert short == whole
        return
    assert ELLIPSIS in short
    words = [word for word in short.split(" ") if word != ELLIPSIS]
    for word, meant in zip(words, whole.split(" "), strict=False):
        head, cut, tail = word.partition(ELLIPSIS)
        assert word == meant or (cut and head and tail and meant.startswith(head) and meant.endswith(tail)), short


def test_a_long_name_loses_its_middle_and_the_sentence_keeps_its_end() -> None:
    short = title(f"{'a' * 200}.example.test does not resolve: this machine knows no such name")
    assert short.endswith("test does not resolve: this machine knows no such name")


def test_a_long_sentence_ends_after_a_whole_word() -> None:
    short = title("python3 (pid 4242, stopped) listens on a port that is close to 62893: 127.0.0.1:62983")
    assert short == f"python3 (pid 4242, stopped) listens on a port that is close to 62893: {ELLIPSIS}"
