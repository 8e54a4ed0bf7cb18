"""Which listener an address reaches, and how much an address that fails matters."""

from __future__ import annotations

import pytest

from diagnose.analysis.reach import Coverage, covers, failing, listeners_on, may_be_reached, reached, severity, unmapped
from diagnose.model.attempt import Attempt
from diagnose.model.finding import Severity
from tests.scenes import bound, connected, dialled, listening, refused, unanswered, unavailable, wanted

V4, V6 = "127.0.0.1:80", "[::1]:80"


@pytest.mark.parametrize(
    ("held", "v6only", "dialled_", "coverage"),
    [
        ("127.0.0.1:80", None, "127.0.0.1", Coverage.YES),
        ("127.0.0.1:80", None, "127.0.0.2", Coverage.NO),
        ("127.0.0.1:80", None, "::1", Coverage.NO),
        ("127.0.0.1:80", None, "::ffff:127.0.0.1", Coverage.YES),
        ("[::ffff:127.0.0.1]:80", False, "127.0.0.1", Coverage.YES),
        ("0.0.0.0:80", None, "127.0.0.1", Coverage.YES),
        ("0.0.0.0:80", None, "192.0.2.10", Coverage.YES),
        ("0.0.0.0:80", None, "::ffff:192.0.2.10", Coverage.YES),
        ("0.0.0.0:80", None, "::1", Coverage.NO),
        ("[::]:80", True, "::1", Coverage.YES),
        ("[::]:80", None, "::1", Coverage.YES),
        ("[::]:80", False, "127.0.0.1", Coverage.YES),
        ("[::]:80", True, "127.0.0.1", Coverage.NO),
        ("[::]:80", True, "::ffff:127.0.0.1", Coverage.NO),
        ("[::]:80", None, "127.0.0.1", Coverage.UNKNOWN),
        ("[::1]:80", None, "::1", Coverage.YES),
        ("[::1]:80", False, "127.0.0.1", Coverage.NO),
        ("[fe80::1]:80", None, "fe80::1%eth0", Coverage.YES),
        ("127.0.0.1:80", None, "0.0.0.0", Coverage.YES),
        ("192.0.2.10:80", None, "0.0.0.0", Coverage.NO),
        ("[::1]:80", None, "::", Coverage.YES),
        ("0.0.0.0:80", None, "0.0.0.0", Coverage.YES),
    ],
)
def test_a_listener_takes_the_addresses_that_its_own_stands_for(
    held: str, v6only: bool | None, dialled_: str, coverage: Coverage
) -> None:
    assert covers(listening(held, v6only=v6only), dialled_) is coverage


@pytest.mark.parametrize(
    ("device", "address", "coverage"),
    [("lo", "127.0.0.1", Coverage.YES), ("eth0", "127.0.0.1", Coverage.OTHER_DEVICE)],
)
def test_a_listener_bound_to_a_device_takes_the_packets_of_that_device(
    device: str, address: str, coverage: Coverage
) -> None:
    assert covers(listening("0.0.0.0:80", device=device), address) is coverage


def test_the_exact_address_goes_before_the_wildcard() -> None:
    exact, wildcard = listening(V4, 1), listening("0.0.0.0:80", 2)
    assert reached((wildcard, exact), "127.0.0.1", 80) == (exact,)
    assert reached((wildcard, exact), "127.0.0.2", 80) == (wildcard,)


def test_another_port_is_not_reached() -> None:
    assert reached((listening("127.0.0.1:81"),), "127.0.0.1", 80) == ()
    assert listeners_on((listening("127.0.0.1:81"), listening(V6)), 80) == (listening(V6),)


def test_what_may_take_the_address_is_kept_apart_from_what_does() -> None:
    perhaps = listening("[::]:80", v6only=None)
    assert reached((perhaps,), "127.0.0.1", 80) == ()
    assert may_be_reached((perhaps,), "127.0.0.1", 80) == (perhaps,)


@pytest.mark.parametrize(
    ("address", "plain"),
    [("::ffff:127.0.0.1", "127.0.0.1"), ("127.0.0.1", "127.0.0.1"), ("::1", "::1"), ("fe80::1%eth0", "fe80::1")],
)
def test_a_mapped_address_is_the_ipv4_address_that_it_stands_for(address: str, plain: str) -> None:
    assert unmapped(address) == plain


@pytest.mark.parametrize(
    ("attempts", "which", "expected"),
    [
        ((refused(V4),), 0, Severity.PROBLEM),
        ((refused(V6), refused(V4)), 1, Severity.PROBLEM),
        ((refused(V6), connected(V4)), 0, Severity.WARNING),
        ((unanswered(V6), connected(V4)), 0, Severity.PROBLEM),
        ((refused(V4), connected(V4)), 0, Severity.PROBLEM),
        ((connected(V6), refused(V4)), 1, Severity.INFO),
        ((connected(V4), unavailable(V6)), 1, Severity.INFO),
        ((refused(V6), connected(V4), unanswered("127.0.0.2:80")), 2, Severity.INFO),
        ((connected(V4), refused(V4)), 1, Severity.PROBLEM),
    ],
)
def test_an_address_that_fails_behind_the_first_working_one_is_information(
    attempts: tuple[Attempt, ...], which: int, expected: Severity
) -> None:
    assert severity(dialled("localhost:80", *attempts), attempts[which]) is expected


def test_the_failing_attempts_come_in_the_order_in_which_clients_meet_them() -> None:
    seen = dialled("localhost:80", refused(V6), connected(V4), unanswered("127.0.0.2:80"))
    assert [one.address for one in failing(seen)] == ["::1", "127.0.0.2"]


def test_for_someone_who_wants_to_bind_no_connect_is_a_problem() -> None:
    assert severity(wanted(V4, bound(V4)), refused(V4)) is Severity.INFO
