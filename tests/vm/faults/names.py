"""Names that mean something else, and a loopback interface that is not as it should be."""

from __future__ import annotations

from collections.abc import Callable

from tests.vm.fault import Fault, Place, Remedy, proven
from tests.vm.place import Namespace

LOCALHOST = "localhost:{port}"


def hosts(text: str) -> Callable[[Place], object]:
    """A server, and this hosts file."""

    def make(place: Place) -> None:
        assert isinstance(place, Namespace)
        place.serve()
        place.write("/etc/hosts", text)

    return make


def put_the_line_back(place: Place) -> None:
    """As it was before."""
    assert isinstance(place, Namespace)
    place.write("/etc/hosts", "127.0.0.1 localhost\n")


def broken(*argv: str, address: str = "127.0.0.1") -> Callable[[Place], object]:
    """A server, and a command that breaks loopback."""

    def make(place: Place) -> None:
        place.serve("accepts", address)
        place.run(*argv)

    return make


FAULTS = (
    Fault(
        "the hosts file does not name localhost",
        hosts("127.0.0.1 other\n"),
        root=proven("resolution/hosts-file-broken", Remedy.PERSON),
        user=proven("resolution/hosts-file-broken", Remedy.PERSON),
        target=LOCALHOST,
        by_person=put_the_line_back,
        keep=True,
    ),
    Fault(
        "localhost is the address of another machine",
        hosts("10.98.76.54 localhost\n"),
        root=proven("resolution/localhost-elsewhere", Remedy.PERSON),
        user=proven("resolution/localhost-elsewhere", Remedy.PERSON),
        target=LOCALHOST,
        by_person=put_the_line_back,
    ),
    Fault(
        "the literal means another address than it seems to",
        lambda place: place.serve("accepts", "127.0.0.10"),
        root=proven("resolution/odd-address", Remedy.LEADS),
        user=proven("resolution/odd-address", Remedy.LEADS),
        target="127.0.0.010:{port}",
    ),
    Fault(
        "IPv6 is switched off and its loopback address gone",
        lambda place: (
            place.run("sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.lo.disable_ipv6=1"),
            place.serve("accepts", "::"),
        ),
        root=proven("resolution/ipv6-disabled", Remedy.LEADS),
        user=proven("resolution/ipv6-disabled", Remedy.LEADS),
        target="[::1]:{port}",
    ),
    Fault(
        "the loopback interface is down",
        broken("ip", "link", "set", "lo", "down"),
        root=proven("loopback/interface-down"),
        user=proven("loopback/interface-down"),
        keep=True,
    ),
    Fault(
        "the loopback interface has lost its IPv4 address",
        broken("ip", "address", "del", "127.0.0.1/8", "dev", "lo", address="0.0.0.0"),
        root=proven("loopback/address-missing"),
        user=proven("loopback/address-missing"),
    ),
    Fault(
        "the routing rule for local addresses is gone",
        broken("ip", "rule", "del", "pref", "0"),
        root=proven("loopback/route-missing"),
        user=proven("loopback/route-missing"),
    ),
)
