"""ufw and firewalld, which own the rules: their own command is the remedy.

Both accept what comes in on lo before any rule of their user, so that the client is in another namespace.
"""

from __future__ import annotations

from collections.abc import Callable

from tests.vm.fault import Fault, Place, Remedy, likely, proven, works
from tests.vm.place import Here

CLIENT = "client"
SERVER_ADDRESS = "10.1.0.1"
TARGET = SERVER_ADDRESS + ":{port}"
FROM_CLIENT = ("--from", f"netns:{CLIENT}")
HOST_FIREWALL = proven("container/host-firewall")


def cabled(place: Place) -> Here:
    """A server on every address, and a namespace with a cable to it."""
    assert isinstance(place, Here)
    place.afterwards("ip", "link", "del", "v0")
    place.afterwards("ip", "netns", "del", CLIENT)
    place.run("ip", "netns", "add", CLIENT)
    place.run("ip", "link", "add", "v0", "type", "veth", "peer", "name", "v1", "netns", CLIENT)
    place.run("ip", "address", "add", f"{SERVER_ADDRESS}/24", "dev", "v0")
    place.run("ip", "link", "set", "v0", "up")
    for words in (
        ("address", "add", "10.1.0.2/24", "dev", "v1"),
        ("link", "set", "v1", "up"),
        ("link", "set", "lo", "up"),
    ):
        place.run("ip", "-n", CLIENT, *words)
    place.serve("accepts", "0.0.0.0")
    return place


def ufw(*rules: str) -> Callable[[Place], None]:
    """ufw switched on, with these rules."""

    def make(place: Place) -> None:
        here = cabled(place)
        for command in (("nft", "flush", "ruleset"), ("ufw", "--force", "reset"), ("ufw", "--force", "disable")):
            here.afterwards(*command)
        here.run("ufw", "--force", "enable")
        for rule in rules:
            here.run("ufw", *rule.format(port=place.port).split())

    return make


def firewalld(*commands: str) -> Callable[[Place], None]:
    """firewalld's service started, and told these."""

    def make(place: Place) -> None:
        here = cabled(place)
        here.afterwards("systemctl", "stop", "firewalld.service")
        here.run("systemctl", "start", "firewalld.service")
        for command in commands:
            here.run("firewall-cmd", *command.format(port=place.port).split())

    return make


FAULTS = (
    Fault(
        "the default of ufw stops a client in another namespace",
        ufw("allow 22/tcp"),
        root=HOST_FIREWALL,
        user=works(),
        target=TARGET,
        rooted=FROM_CLIENT,
        machine=True,
        keep=True,
    ),
    Fault(
        "a deny of ufw stops a client in another namespace",
        ufw("allow 22/tcp", "deny {port}/tcp"),
        root=HOST_FIREWALL,
        user=works(),
        target=TARGET,
        rooted=FROM_CLIENT,
        machine=True,
    ),
    Fault(
        "the zone of firewalld stops a client in another namespace",
        firewalld(),
        root=HOST_FIREWALL,
        user=works(),
        target=TARGET,
        rooted=FROM_CLIENT,
        machine=True,
        keep=True,
    ),
    Fault(
        "the panic mode of firewalld drops everything",
        firewalld("--panic-on"),
        root=proven("firewall/policy-drops"),
        user=likely("firewall/silent", Remedy.AGAIN),
        machine=True,
        silent=True,
    ),
)
