"""Servers that are not there, are somewhere else, do not accept, or have the port that another wants."""

from __future__ import annotations

from collections.abc import Callable

from tests.vm.fault import Answers, Fault, Place, Remedy, likely, no_cause, proven, works
from tests.vm.place import USER_ID, Namespace

NOTHING, FAMILY, ADDRESS = "refused/nothing-listening", "refused/other-family", "refused/other-address"
STOPPED, FULL, IDLE, CLOSES = (
    "hung/process-stopped",
    "hung/accept-queue-full",
    "hung/not-accepting",
    "hung/closes-at-once",
)
CLOSED: Answers = (*proven(NOTHING, Remedy.PERSON), *likely(NOTHING, Remedy.PERSON))
"""An ordinary user has one witness of the reset, a counter of all of them: noise leaves it likely."""
BIND = ("--bind",)
TAKEN = "not-bindable"


def before_6_8(root: Answers, user: Answers) -> dict[str, tuple[Answers, Answers]]:
    """On kernels that list bound sockets to nobody: an ordinary user cannot exclude one that is hidden."""
    return dict.fromkeys(("5.10", "6.1"), (root, user))


def serving(conduct: str, address: str = "127.0.0.1", *options: str, uid: int = 0) -> Callable[[Place], object]:
    """A server of the lab on the port."""
    return lambda place: place.serve(conduct, address, 0, *options, uid=uid)


def start_it(place: Place) -> None:
    """What a person does where nothing listens."""
    place.serve()


def restart_it(place: Place) -> None:
    """What a person does with a server that does not accept."""
    for server in place.servers:
        server.kill()
    place.servers.clear()
    place.serve()


def stopped(place: Place) -> None:
    """A server of root that was sent SIGSTOP."""
    place.serve().stop()


def stopped_by_the_user(place: Place) -> None:
    """A server of the ordinary user that was sent SIGSTOP."""
    place.serve(uid=USER_ID).stop()


def in_another_namespace(place: Place) -> None:
    """The server listens, and elsewhere."""
    assert isinstance(place, Namespace)
    place.another().serve()


def narrow_range(conduct: str) -> Callable[[Place], object]:
    """A client that was given this port, the only one that the namespace hands out; then the range is as before."""

    def make(place: Place) -> None:
        place.run("sysctl", "-qw", f"net.ipv4.ip_local_port_range={place.port} {place.port}")
        place.serve(conduct)
        place.run("sysctl", "-qw", f"net.ipv4.ip_local_port_range={place.port - 100} {place.port + 100}")

    return make


REFUSED = (
    Fault(
        "nothing listens on the port",
        lambda place: place.serve(port=place.port + 300),
        root=proven(NOTHING, Remedy.PERSON),
        user=CLOSED,
        by_person=start_it,
        keep=True,
    ),
    Fault(
        "nothing listens on the IPv6 port",
        lambda place: None,
        root=proven(NOTHING, Remedy.PERSON),
        user=CLOSED,
        target="[::1]:{port}",
        by_person=lambda place: place.serve("accepts", "::1"),
    ),
    Fault(
        "the server listens on IPv6 only",
        serving("accepts", "::1"),
        root=proven(FAMILY, Remedy.LEADS),
        user=proven(FAMILY, Remedy.LEADS),
        keep=True,
    ),
    Fault(
        "the server listens on IPv4 only",
        serving("accepts"),
        root=proven(FAMILY, Remedy.LEADS),
        user=proven(FAMILY, Remedy.LEADS),
        target="[::1]:{port}",
    ),
    Fault(
        "the server listens on an IPv6 wildcard that excludes IPv4",
        serving("accepts", "::", "v6only"),
        root=proven(FAMILY, Remedy.LEADS),
        user=proven(FAMILY, Remedy.LEADS),
    ),
    Fault(
        "the server listens on another address of the machine",
        serving("accepts", "127.0.0.2"),
        root=proven(ADDRESS, Remedy.LEADS),
        user=proven(ADDRESS, Remedy.LEADS),
    ),
    Fault(
        "the server speaks UDP only",
        serving("datagrams"),
        root=proven("refused/udp-only", Remedy.PERSON),
        user=(*proven("refused/udp-only", Remedy.PERSON), *likely("refused/udp-only", Remedy.PERSON)),
        by_person=start_it,
    ),
    Fault(
        "a socket is bound to the port and does not listen, and a client wants to connect",
        serving("binds"),
        root=proven(NOTHING, Remedy.PERSON),
        user=CLOSED,
        by_person=restart_it,
    ),
    Fault(
        "the server listens in another network namespace",
        in_another_namespace,
        root=likely("container/other-namespace", Remedy.LEADS),
        user=likely("container/other-namespace", Remedy.LEADS),
    ),
)

HUNG = (
    Fault(
        "the server of root was sent SIGSTOP",
        stopped,
        root=proven(STOPPED),
        user=proven(IDLE, Remedy.AGAIN),
        keep=True,
    ),
    Fault(
        "the server of the ordinary user was sent SIGSTOP",
        stopped_by_the_user,
        root=proven(STOPPED),
        user=proven(STOPPED),
    ),
    Fault(
        "the server never accepts",
        serving("never_accepts"),
        root=proven(IDLE, Remedy.PERSON),
        user=proven(IDLE, Remedy.PERSON),
        by_person=restart_it,
        keep=True,
    ),
    Fault(
        "the accept queue is full",
        serving("full"),
        root=proven(FULL, Remedy.PERSON),
        user=proven(FULL, Remedy.PERSON),
        by_person=restart_it,
        keep=True,
    ),
    Fault(
        "the server closes every connection at once",
        serving("hangs_up"),
        root=proven(CLOSES, Remedy.PERSON),
        user=proven(CLOSES, Remedy.PERSON),
        by_person=restart_it,
    ),
    Fault("a healthy server waits for the first data", serving("defers"), root=works(), user=works()),
    Fault("a healthy server takes a moment to accept", serving("accepts_late"), root=works(), user=works(), keep=True),
)

IN_USE = (
    Fault(
        "a listener has the port that a server wants",
        serving("accepts"),
        root=proven("in-use/listener", verdict=TAKEN),
        user=proven("in-use/listener", Remedy.AGAIN, verdict=TAKEN),
        arguments=BIND,
        keep=True,
    ),
    Fault(
        "a listener of the ordinary user has the port that a server wants",
        serving("accepts", uid=USER_ID),
        root=proven("in-use/listener", verdict=TAKEN),
        user=proven("in-use/listener", verdict=TAKEN),
        arguments=BIND,
    ),
    Fault(
        "a listener on the IPv6 wildcard has the port that an IPv4 server wants",
        serving("accepts", "::"),
        root=proven("in-use/overlapping-address", verdict=TAKEN),
        user=proven("in-use/overlapping-address", Remedy.AGAIN, verdict=TAKEN),
        arguments=BIND,
    ),
    Fault(
        "a listener on the IPv4-mapped wildcard, and a server that wants IPv4-mapped loopback",
        serving("accepts", "::ffff:0.0.0.0"),
        root=(*works("bindable"), *proven("in-use/overlapping-address", verdict=TAKEN)),
        user=(*works("bindable"), *proven("in-use/overlapping-address", Remedy.AGAIN, verdict=TAKEN)),
        target="[::ffff:127.0.0.1]:{port}",
        arguments=BIND,
        on={"5.10": (works("bindable"), works("bindable")), "6.1": (works("bindable"), works("bindable"))},
    ),
    Fault(
        "a stopped listener has the port that a server wants",
        stopped,
        root=proven("in-use/listener", verdict=TAKEN),
        user=proven("in-use/listener", Remedy.AGAIN, verdict=TAKEN),
        arguments=BIND,
    ),
    Fault(
        "a socket that is bound and does not listen has the port",
        serving("binds", "127.0.0.1", "plain"),
        root=proven("in-use/bound-not-listening", verdict=TAKEN),
        user=proven("in-use/bound-not-listening", Remedy.AGAIN, verdict=TAKEN),
        arguments=BIND,
        on={
            # Linux 6.8 lists bound sockets to everybody (sock_diag(7)); before it root finds them by their descriptors
            kernel: (proven("in-use/bound-not-listening", verdict=TAKEN), no_cause(TAKEN))
            for kernel in ("5.10", "6.1")
        },
        keep=True,
    ),
    Fault(
        "a connection in TIME-WAIT has the port of a server without SO_REUSEADDR",
        serving("lingers", "127.0.0.1", "plain"),
        root=proven("in-use/time-wait", Remedy.PERSON, verdict=TAKEN),
        user=proven("in-use/time-wait", Remedy.PERSON, verdict=TAKEN),
        on=before_6_8(
            proven("in-use/time-wait", Remedy.PERSON, verdict=TAKEN),
            likely("in-use/time-wait", Remedy.PERSON, verdict=TAKEN),
        ),
        arguments=BIND,
        by_person=lambda place: place.run("ss", "--kill", "--tcp", "state", "time-wait"),
    ),
    Fault(
        "a client's own end of a connection has the port",
        narrow_range("calls_out"),
        root=proven("in-use/outbound-connection", Remedy.PERSON, verdict=TAKEN),
        user=proven("in-use/outbound-connection", Remedy.PERSON, verdict=TAKEN),
        on=before_6_8(
            proven("in-use/outbound-connection", Remedy.PERSON, verdict=TAKEN),
            likely("in-use/outbound-connection", Remedy.PERSON, verdict=TAKEN),
        ),
        arguments=BIND,
        by_person=lambda place: place.servers[0].kill(),
    ),
    Fault(
        "a client that met itself has the port",
        narrow_range("joined_to_itself"),
        root=proven("in-use/self-connected", verdict=TAKEN),
        user=proven("in-use/self-connected", Remedy.AGAIN, verdict=TAKEN),
        on=before_6_8(
            proven("in-use/self-connected", verdict=TAKEN), likely("in-use/self-connected", Remedy.AGAIN, verdict=TAKEN)
        ),
        arguments=BIND,
    ),
    Fault(
        "a connection that outlives its listener has the port",
        serving("outlives_its_listener"),
        root=proven("in-use/leftover-connection", verdict=TAKEN),
        user=proven("in-use/leftover-connection", Remedy.AGAIN, verdict=TAKEN),
        on=before_6_8(
            proven("in-use/leftover-connection", verdict=TAKEN),
            likely("in-use/leftover-connection", Remedy.AGAIN, verdict=TAKEN),
        ),
        arguments=BIND,
    ),
    Fault(
        "the port is one that only root may bind",
        lambda place: None,
        root=works("bindable"),
        user=proven("in-use/privileged-port", verdict=TAKEN),
        target="127.0.0.1:80",
        arguments=BIND,
    ),
    Fault(
        "the address to bind is another machine's",
        lambda place: None,
        root=proven("in-use/address-not-local", Remedy.LEADS, verdict=TAKEN),
        user=proven("in-use/address-not-local", Remedy.LEADS, verdict=TAKEN),
        target="10.98.76.54:{port}",
        arguments=BIND,
    ),
    Fault(
        "a free port is bindable beside its neighbours",
        lambda place: (place.serve(port=place.port + 1), place.serve("accepts", "127.0.0.2")),
        root=works("bindable"),
        user=works("bindable"),
        arguments=BIND,
        keep=True,
    ),
)

FAULTS = (*REFUSED, *HUNG, *IN_USE)
