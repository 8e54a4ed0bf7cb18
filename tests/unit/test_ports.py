"""What a port number tells: near misses, the usual programs, the dynamic range."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from diagnose.analysis.ports import expected_programs, near_misses, port_note
from diagnose.model.network import TcpState
from tests.scenes import listening


@pytest.mark.parametrize("other", [8081, 8079, 8090, 8070, 8008, 8800])
def test_a_port_close_by_or_with_two_digits_swapped_is_a_near_miss(other: int) -> None:
    assert near_misses([listening(f"127.0.0.1:{other}")], 8080) == (listening(f"127.0.0.1:{other}"),)


@pytest.mark.parametrize("other", [8080, 8091, 8069, 9090, 80, 18080, 880])
def test_any_other_port_is_none(other: int) -> None:
    assert near_misses([listening(f"127.0.0.1:{other}")], 8080) == ()


def test_near_misses_come_the_nearest_first() -> None:
    found = near_misses([listening(f"127.0.0.1:{port}", port) for port in (8800, 8085, 8079, 8081)], 8080)
    assert [row.local.port for row in found] == [8079, 8081, 8085, 8800]


def test_only_listeners_are_near_misses() -> None:
    assert near_misses([replace(listening("127.0.0.1:8081"), state=TcpState.ESTABLISHED)], 8080) == ()


@pytest.mark.parametrize(
    ("port", "scheme", "program"),
    [
        (5432, None, "postgres"),
        (15432, "postgres", "postgres"),
        (5433, "postgresql+psycopg2", "postgres"),
        (6379, None, "redis-server"),
        (6380, "rediss", "redis-server"),
        (3307, "mariadb", "mariadbd"),
        (22, None, "sshd"),
    ],
)
def test_a_port_or_a_scheme_has_its_usual_programs(port: int, scheme: str | None, program: str) -> None:
    assert program in expected_programs(port, scheme)


def test_a_scheme_says_more_than_the_port() -> None:
    assert "postgres" not in expected_programs(5432, "redis")
    assert expected_programs(5432, "http") == ()


def test_a_port_without_a_usual_program_expects_none() -> None:
    assert expected_programs(62893, None) == ()


@pytest.mark.parametrize("port", [49152, 62893, 65535])
def test_a_port_of_the_dynamic_range_has_probably_changed(port: int) -> None:
    note = port_note(port)
    assert note is not None
    assert str(port) in note


@pytest.mark.parametrize("port", [1, 80, 8080, 32768, 49151])
def test_any_other_port_tells_nothing_by_itself(port: int) -> None:
    assert port_note(port) is None
