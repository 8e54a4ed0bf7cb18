"""What holds of every file that somebody hands to replay."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from checks import CHECKS
from diagnose.engine import diagnose
from diagnose.model.snapshot import Snapshot
from diagnose.recording import BadRecordingError, decode, encode
from diagnose.render.json import render_json
from diagnose.render.markdown import render_markdown
from diagnose.render.text import Style, render_text
from tests.properties.snapshots import snapshots

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def survives(data: bytes) -> None:
    """Either refused in one line, or diagnosed and shown like any other."""
    for one in _read(data):
        report = diagnose(one, CHECKS)
        assert render_text([report], Style(80)).replace("\n", "").isprintable()
        assert render_markdown([report]).replace("\n", "").isprintable()
        assert render_json([report]).replace("\n", "").isprintable()


def _read(data: bytes) -> tuple[Snapshot, ...]:
    refusal = ""
    try:
        return decode(data)
    except BadRecordingError as error:
        refusal = str(error)
    assert refusal.isprintable()
    return ()


@given(st.binary(max_size=200))
def test_random_bytes_are_refused(data: bytes) -> None:
    survives(data)


@given(JSON)
def test_random_json_is_refused(content: Any) -> None:
    survives(json.dumps(content).encode())


@given(snapshots, st.floats(0, 1))
def test_a_recording_that_breaks_off_is_refused(snapshot: Snapshot, part: float) -> None:
    data = encode([snapshot])
    survives(data[: int(len(data) * part)])


@given(snapshots, st.data())
def test_a_recording_with_foreign_bytes_in_it_is_refused_or_diagnosed(snapshot: Snapshot, data: st.DataObject) -> None:
    changed = bytearray(encode([snapshot]))
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    survives(bytes(changed))


@given(snapshots, st.data())
def test_a_recording_with_a_foreign_value_in_it_is_refused_or_diagnosed(
    snapshot: Snapshot, data: st.DataObject
) -> None:
    content = json.loads(encode([snapshot]))
    place = content
    while True:
        keys = sorted(place) if isinstance(place, dict) else list(range(len(place)))
        key = data.draw(st.sampled_from(keys))
        inside = place[key]
        if not isinstance(inside, dict | list) or not inside or data.draw(st.booleans()):
            break
        place = inside
    place[key] = data.draw(st.sampled_from([10**30, -1, 1e308, "", "\u001b[2J\n", None, [], {}]) | JSON)
    survives(json.dumps(content).encode())
