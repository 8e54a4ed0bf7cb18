"""Units of a real systemd: servers that are frozen, activated, restarted, confined; and netdiag confined itself."""

from __future__ import annotations

from collections.abc import Callable

from tests.vm.fault import Fault, Place, Remedy, proven, works
from tests.vm.place import Here, server_argv

UNIT = "netdiag-test"
SERVICE = f"{UNIT}.service"
BIND = ("--bind",)


def service(conduct: str = "accepts", *lines: str) -> Callable[[Place], None]:
    """A service that listens."""

    def make(place: Place) -> None:
        assert isinstance(place, Here)
        place.service(SERVICE, conduct, *lines)

    return make


def then(make: Callable[[Place], None], *argv: str) -> Callable[[Place], None]:
    """A set-up, and a command."""

    def more(place: Place) -> None:
        make(place)
        place.run(*argv)

    return more


def unit_stays_active(place: Place) -> None:
    """The unit was not what had to end."""
    assert isinstance(place, Here)
    assert place.state(SERVICE) == "active", place.run("systemctl", "status", SERVICE, check=False)


def runner(place: Place) -> None:
    """A service that is a CI runner: the server is only what one of its jobs left running."""
    assert isinstance(place, Here)
    words = " ".join(server_argv("accepts", "127.0.0.1", place.port))
    script = f"{words} & exec sleep infinity"
    text = f"[Service]\nExecStart=/bin/sh -c '{script}'\n"
    place.unit(SERVICE, text, "start")
    place.until_listening()


FAULTS = (
    Fault("a service of systemd answers", service(), root=works(), user=works(), machine=True),
    Fault(
        "a job of another unit's program has the port that a server wants",
        runner,
        root=proven("in-use/listener", verdict="not-bindable"),
        user=proven("in-use/listener", Remedy.AGAIN, verdict="not-bindable"),
        arguments=BIND,
        machine=True,
        afterwards=unit_stays_active,
        keep=True,
    ),
    Fault(
        "a service of systemd has the port that a server wants",
        service(),
        root=proven("in-use/listener", verdict="not-bindable"),
        user=proven("in-use/listener", Remedy.AGAIN, verdict="not-bindable"),
        arguments=BIND,
        machine=True,
    ),
)
