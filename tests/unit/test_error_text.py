"""Error messages of the common runtimes and clients, read for the target that they are about."""

from __future__ import annotations

from pathlib import Path
from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diagnose.model.target import Intent
from diagnose.parse.error_text import Ambiguous, Incomplete, Meant, NoError, Reading, read_error
from diagnose.parse.target import parse_target

TABLE = Path(__file__).with_name("error_messages.txt")


def rows() -> list[tuple[str, str, str]]:
    lines = [line for line in TABLE.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    cells = [line.split("\t", 2) for line in lines]
    return [
        (client, answer, text.replace("\\n", "\n").replace("\\t", "\t").replace("\\x1b", "\x1b"))
        for client, answer, text in cells
    ]


def spelled(reading: Reading) -> str:
    match reading:
        case Meant(target, Intent.BIND):
            return f"{target} --bind"
        case Meant(target, _):
            return target
        case Ambiguous(choices):
            return " ".join(["which", *(spelled(choice) for choice in choices)])
        case Incomplete(host):
            return f"no port {host}" if host else "no port"
        case NoError():
            return "no error"


@pytest.mark.parametrize(("client", "answer", "text"), rows(), ids=lambda value: str(value)[:40])
def test_a_message_of_a_client_is_read_for_its_target(client: str, answer: str, text: str) -> None:
    assert spelled(read_error(text)) == answer


def test_the_table_holds_messages_of_every_kind_of_client() -> None:
    assert len(rows()) >= 150


@pytest.mark.parametrize(("client", "answer", "text"), rows(), ids=lambda value: str(value)[:40])
def test_what_is_read_is_a_target_that_can_be_run_and_holds_nothing_else(client: str, answer: str, text: str) -> None:
    reading = read_error(text)
    meant = (reading,) if isinstance(reading, Meant) else reading.choices if isinstance(reading, Ambiguous) else ()
    for one in meant:
        target = parse_target(one.target)
        assert one.target in (target.address, str(target.port)), one.target


@given(st.text(max_size=300) | st.text(alphabet="aE:1.[]()/'\" -portconnectEADDRINUSEECONNREFUSED\n", max_size=300))
def test_any_text_is_read_and_every_target_of_it_can_be_run(text: str) -> None:
    reading = read_error(f"connect ECONNREFUSED {text}")
    for one in (reading,) if isinstance(reading, Meant) else reading.choices if isinstance(reading, Ambiguous) else ():
        parse_target(one.target)


@pytest.mark.parametrize(
    "part", ["a", "a.", "a:", "::", ":1", "1.", "(", "[", "'", "/", "port ", "host=", "a:1 ", "on ", "\\'"]
)
def test_a_long_message_is_read_in_the_time_that_its_length_takes(part: str) -> None:
    text = "connect ECONNREFUSED " + part * (40_000 // len(part))
    began = process_time()
    read_error(text)
    assert process_time() - began < 5
