"""What --from takes."""

from __future__ import annotations

import pytest

from diagnose.model.side import OfContainer, OfNamespace, OfProcess, Origin
from diagnose.parse.origin import BadOriginError, parse_origin


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("container:web", OfContainer("web")),
        ("container:shop-db_1.new", OfContainer("shop-db_1.new")),
        ("pid:1", OfProcess(1)),
        ("pid:4194304", OfProcess(4194304)),
        ("netns:blue", OfNamespace("blue")),
        ("netns:a:b", OfNamespace("a:b")),
    ],
)
def test_a_place_to_look_from_is_read_and_written_alike(text: str, origin: Origin) -> None:
    assert parse_origin(text) == origin
    assert str(origin) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "web",
        "container",
        "container:",
        "container:-web",
        "container:a/b",
        "container:a b",
        "container:../x",
        "Container:web",
        "pid:",
        "pid:0",
        "pid:-1",
        "pid:+1",
        "pid:1.0",
        "pid:x",
        "pid:4194305",
        "pid:٣",
        "pid:12345678901234567890",
        "netns:",
        "netns:.",
        "netns:..",
        "netns:a/b",
        "netns:a\nb",
        f"netns:{'n' * 256}",
        "host:web",
    ],
)
def test_what_is_no_place_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(BadOriginError, match="for example: --from container:web"):
        parse_origin(text)
