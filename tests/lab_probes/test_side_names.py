"""The names of another side against what glibc itself answers from the same files and the same DNS server."""

from __future__ import annotations

import ctypes
import os
import platform
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

from diagnose.model.fact import Known
from diagnose.probes import side_files, side_names
from diagnose.probes.names import ask_in_child
from tests.lab_probes.namespace import in_namespace, sh
from tests.nameserver import SERVFAIL, serving

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library here is not glibc"),
]

T = TypeVar("T")
_CLONE_NEWNS = 0x00020000

FILES_OF_OUR_OWN = """
ip address add 10.7.0.2/16 dev lo
ip -6 address add fd07::2/64 dev lo nodad
mount --make-rprivate /
mount -t tmpfs lab /mnt
mkdir /mnt/upper /mnt/work
mount -t overlay -o lowerdir=/etc,upperdir=/mnt/upper,workdir=/mnt/work lab /etc
mount -t tmpfs lab /run
rm -f /etc/hosts /etc/resolv.conf /etc/nsswitch.conf /etc/gai.conf /etc/host.conf
printf 'nameserver 127.0.0.1\\noptions timeout:1 attempts:1\\n' >/etc/resolv.conf
"""
ADDRESSES = (
    "127.0.0.1",
    "127.0.0.2",
    "::1",
    "10.7.0.2",
    "10.7.1.1",
    "10.7.0.3",
    "10.8.0.1",
    "192.0.2.1",
    "fd07::2",
    "fd07::9",
    "2001:db8::1",
    "fe80::1",
    "169.254.1.1",
)
NAMES = (
    "db",
    "DB",
    "db.internal",
    "db.internal.",
    "localhost",
    "cache",
    "empty",
    "broken",
    "alias",
    "nobody",
    "db.local",
)
ZONE = {
    "db.": ["10.7.0.3"],
    "db.a.example.": ["10.7.1.1", "fd07::9"],
    "db.internal.": ["fd07::2", "10.7.0.2"],
    "cache.": ["192.0.2.1", "2001:db8::1"],
    "empty.": [],
    "broken.": [SERVFAIL],
    "alias.": ["db.internal."],
    "localhost.": ["10.7.0.2"],
}


def with_files(function: Callable[[], T]) -> T:
    """Runs it in network and mount namespaces of its own, where /etc may be changed."""

    def inside() -> T:
        assert ctypes.CDLL(None).unshare(_CLONE_NEWNS) == 0
        sh(FILES_OF_OUR_OWN)
        return function()

    return in_namespace("", inside)


def answer(fact: object) -> object:
    """The addresses, or the error."""
    assert isinstance(fact, Known), fact
    return fact.value.error or tuple(one.address for one in fact.value.addresses)


def by_glibc(name: str) -> object:
    """The same of getaddrinfo, in a process of its own: glibc keeps what it has read."""
    return answer(ask_in_child([name], time.monotonic() + 10)[name])


def by_us(name: str) -> object:
    root = os.open("/", os.O_PATH | os.O_DIRECTORY)
    try:
        files = side_files.read(root, 2.0)
    finally:
        os.close(root)
    return answer(side_names.ask(files, [name], time.monotonic() + 10)[name])


LINES = ((), ("127.0.0.1 localhost", "::1 localhost"), ("no-address db", "# 127.0.0.1 cache"))
SERVICES = (
    "",
    "passwd: files",
    "hosts: files dns",
    "hosts: dns files",
    "hosts: files",
    "hosts: files [NOTFOUND=return] dns",
    "hosts: files [!NOTFOUND=return] dns",
    "hosts: dns [!UNAVAIL=return] files",
)
HOST_CONF = ("", "multi on", "multi off", "order hosts,bind\nmulti on")
GAI = ("", "", "precedence ::ffff:0:0/96 100", "label fd07::/64 9", "scopev4 ::ffff:10.7.0.0/112 2")
RESOLV = ("", "options ndots:0", "options ndots:2", "search a.example b.example", "domain a.example")


def pick(dice: random.Random) -> None:
    """Files as they may be found."""
    hosts = [_line(dice) for _ in range(dice.randint(0, 6))]
    put("hosts", "\n".join([*hosts, *dice.choice(LINES)]))
    put("nsswitch.conf", dice.choice(SERVICES))
    put("host.conf", dice.choice(HOST_CONF))
    put("gai.conf", dice.choice(GAI))
    put("resolv.conf", f"nameserver 127.0.0.1\noptions timeout:1 attempts:1\n{dice.choice(RESOLV)}")


def _line(dice: random.Random) -> str:
    return " ".join([dice.choice(ADDRESSES), *dice.sample(NAMES, dice.randint(1, 3))])


def put(name: str, content: str) -> None:
    Path("/etc", name).write_text(f"{content}\n")


def disagreements(seed: int) -> list[str]:
    """What the two say of every name, where they differ, with the files that make them."""
    dice = random.Random(seed)
    found = []
    with serving(ZONE, port=53):
        pick(dice)
        for name in NAMES:
            theirs, ours = by_glibc(name), by_us(name)
            if theirs != ours:
                files = {path: Path(path).read_text() for path in side_files.FILES}
                found.append(f"{name}: glibc {theirs}, we {ours}, by {files}")
    return found


@pytest.mark.parametrize("seed", range(25))
def test_we_answer_as_glibc_does_from_the_same_files(seed: int) -> None:
    assert with_files(lambda: disagreements(seed)) == []


def test_without_a_server_both_say_that_the_name_service_did_not_answer() -> None:
    def ask() -> tuple[object, object]:
        Path("/etc/hosts").write_text("")
        return by_glibc("nobody"), by_us("nobody")

    assert with_files(ask) == ("EAI_AGAIN", "EAI_AGAIN")
