"""What the netlink client makes of a kernel that interrupts a dump; the rest is tried on the kernel itself."""

from __future__ import annotations

import errno
import struct
import time

import pytest

from diagnose.probes.netlink import Netlink, attribute, attributes

REQUEST, DONE, INTERRUPTED, MULTI = 0x14, 3, 0x10, 0x02
pytestmark = pytest.mark.skipif(not hasattr(__import__("socket"), "AF_NETLINK"), reason="netlink is Linux's")


class Kernel:
    """A kernel's end that says what the test tells it: no real one can be made to change its table in time."""

    def __init__(self, *dumps: list[tuple[int, int, bytes]]) -> None:
        self.dumps = list(dumps)
        self.asked = 0

    def sendto(self, data: bytes, _: tuple[int, int]) -> int:
        self.asked += 1
        return len(data)

    def recvfrom(self, _: int) -> tuple[bytes, tuple[int, int]]:
        messages = self.dumps.pop(0) if len(self.dumps) > 1 else self.dumps[0]
        return b"".join(message(*one, sequence=self.asked) for one in messages), (0, 0)

    def close(self) -> None:
        """Nothing is open."""


def message(kind: int, flags: int, body: bytes, sequence: int) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, flags, sequence, 0) + body + b"\0" * (-len(body) % 4)


def client(kernel: Kernel) -> Netlink:
    netlink = Netlink(0)
    netlink.close()
    netlink._socket = kernel  # type: ignore[assignment]
    return netlink


END = (DONE, MULTI, struct.pack("=i", 0))
TORN = [(REQUEST, MULTI | INTERRUPTED, b"half"), END]
WHOLE = [(REQUEST, MULTI, b"one!"), (REQUEST, MULTI, b"two!"), END]


def test_an_interrupted_dump_is_asked_for_again_and_its_half_forgotten() -> None:
    kernel = Kernel(TORN, WHOLE)
    assert client(kernel).dump(20, b"") == [(REQUEST, b"one!"), (REQUEST, b"two!")]
    assert kernel.asked == 2


def test_a_table_that_never_holds_still_is_an_error_and_never_half_a_table() -> None:
    kernel = Kernel(TORN)
    with pytest.raises(InterruptedError):
        client(kernel).dump(20, b"")


def test_an_error_at_the_end_of_a_dump_is_raised() -> None:
    kernel = Kernel([(REQUEST, MULTI, b"one!"), (DONE, MULTI, struct.pack("=i", -errno.ENOBUFS))])
    with pytest.raises(OSError) as caught:
        client(kernel).dump(20, b"")
    assert caught.value.errno == errno.ENOBUFS


def test_a_dump_without_end_is_left_when_the_time_is_over() -> None:
    endless = Kernel([(REQUEST, MULTI, b"one!")])
    with pytest.raises(TimeoutError):
        client(endless).dump(20, b"", until=time.monotonic() + 0.02)


def test_a_dump_without_end_is_left_when_it_is_too_much() -> None:
    endless = Kernel([(REQUEST, MULTI, b"one!")])
    with pytest.raises(OSError) as caught:
        client(endless).dump(20, b"", at_most=10_000)
    assert caught.value.errno == errno.EFBIG


def test_attributes_are_read_as_they_are_written() -> None:
    packed = attribute(1, b"abc") + attribute(0x8002, b"") + attribute(3, b"12345678")
    assert attributes(b"head" + packed, 4) == {1: b"abc", 2: b"", 3: b"12345678"}


def test_a_torn_attribute_is_left_out() -> None:
    assert attributes(attribute(1, b"abcd") + struct.pack("=HH", 40, 2) + b"short") == {1: b"abcd"}
