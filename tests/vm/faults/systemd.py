"""What systemd knows of a server: frozen, activated by a socket, on its way, failed, forbidden; and its sandboxes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.lab.machine import wait_for
from tests.vm.fault import Fault, Place, Remedy, likely, no_cause, proven, works
from tests.vm.faults.units import BIND, SERVICE, UNIT, service, then
from tests.vm.place import PATIENCE, Here, server_argv, service_text

SOCKET = f"{UNIT}.socket"
SLICE = f"{UNIT.replace('-', '')}.slice"
ACTIVATED = "/run/netdiag-test-activated.py"
_ACTIVATED = """\
import socket, time
listener = socket.socket(fileno=3)
kept = []
while True:
    kept.append(listener.accept()[0])
"""
"""A service that accepts on the socket that systemd gives to it (sd_listen_fds(3))."""
CLOSED, FROZEN, STARTING = "refused/nothing-listening", "hung/frozen", "refused/starting-up"


def activated(*lines: str, command: str = f"/usr/bin/python3 -I -S {ACTIVATED}") -> Callable[[Place], None]:
    """A socket unit that listens on the port, and the service that it starts."""

    def make(place: Place) -> None:
        assert isinstance(place, Here)
        Path(ACTIVATED).write_text(_ACTIVATED)
        place.afterwards("rm", ACTIVATED)
        place.unit(SERVICE, "\n".join(["[Service]", f"ExecStart={command}", *lines, ""]))
        place.unit(SOCKET, f"[Socket]\nListenStream=127.0.0.1:{place.port}\n", "start")
        place.until_listening()

    return make


def unit_that_does_not_listen(*lines: str, verb: str = "start", states: tuple[str, ...]) -> Callable[[Place], None]:
    """A service with the port in its command line, in one of these states."""

    def make(place: Place) -> None:
        assert isinstance(place, Here)
        text = service_text(
            server_argv("accepts", "127.0.0.1", place.port), *(one.format(port=place.port) for one in lines)
        )
        place.unit(SERVICE, text)
        place.run("systemctl", verb, "--no-block", SERVICE)
        place.until(SERVICE, *states)

    return make


def killed(place: Place) -> None:
    """A service that was killed and stays down."""
    assert isinstance(place, Here)
    place.service(SERVICE)
    place.run("systemctl", "kill", "--signal=KILL", SERVICE)
    place.until(SERVICE, "failed")


def without_its_settings(place: Place) -> None:
    """A person takes the lines that forbid it out of the unit, and starts it again."""
    assert isinstance(place, Here)
    text = service_text(server_argv("accepts", "127.0.0.1", place.port))
    Path(f"/etc/systemd/system/{SERVICE}").write_text(text)
    place.run("systemctl", "daemon-reload")
    place.run("systemctl", "reset-failed", SERVICE, check=False)
    place.run("systemctl", "restart", SERVICE)
    place.until_listening()


def service_of_the_socket_repaired(place: Place) -> None:
    """A person gives the socket's service a command that works."""
    assert isinstance(place, Here)
    text = f"[Service]\nExecStart=/usr/bin/python3 -I -S {ACTIVATED}\n"
    Path(f"/etc/systemd/system/{SERVICE}").write_text(text)
    place.run("systemctl", "daemon-reload")
    place.run("systemctl", "reset-failed", SERVICE, SOCKET, check=False)
    place.run("systemctl", "restart", SOCKET)
    place.until_listening()


def the_wait_ends(place: Place) -> None:
    """What the unit waits for has come."""
    assert isinstance(place, Here)
    place.run("systemctl", "kill", "--kill-whom=control", "--signal=KILL", SERVICE)
    place.until_listening()


PROFILE = "netdiag-test"
_NO_NETWORK = f"""\
profile {PROFILE} flags=(attach_disconnected) {{
  file,
  mount,
  umount,
  capability,
  ptrace,
  signal,
  unix,
  network unix,
  network netlink,
  deny network inet,
  deny network inet6,
}}
"""
_NO_PROC = f"""\
profile {PROFILE} flags=(attach_disconnected) {{
  file,
  mount,
  umount,
  capability,
  ptrace,
  signal,
  unix,
  network,
  deny /proc/*/stat r,
  deny /sys/kernel/** rw,
}}
"""


def apparmor(profile: str, make: Callable[[Place], object]) -> Callable[[Place], None]:
    """A profile that is loaded, and a set-up."""

    def more(place: Place) -> None:
        assert isinstance(place, Here)
        place.afterwards("apparmor_parser", "--remove", "/run/netdiag-test.profile")
        Path("/run/netdiag-test.profile").write_text(profile)
        place.run("apparmor_parser", "--replace", "--skip-cache", "/run/netdiag-test.profile")
        make(place)

    return more


def dropped_on_the_guest(place: Place) -> None:
    """A rule of the guest itself."""
    place.serve()
    place.chain("input", f"tcp dport {place.port} drop")


SOMETHING_OF_A_DROP = (
    *proven("firewall/rule-drops", Remedy.AGAIN),
    *likely("firewall/rule-drops", Remedy.AGAIN),
    *likely("firewall/silent", Remedy.AGAIN),
)
"""A sandbox costs facts, and never the answer: a filter that kills, or a file that is denied, ends one look only."""


def slice_frozen(place: Place) -> None:
    """A service in a slice of its own, and the slice frozen."""
    assert isinstance(place, Here)
    place.service(SERVICE, "accepts", f"Slice={SLICE}")
    place.afterwards("systemctl", "thaw", SLICE)
    place.run("systemctl", "freeze", SLICE)


def rejected_on_the_guest(place: Place) -> None:
    """A rule of the guest itself, as netdiag in a unit has no namespace of a test's."""
    place.serve()
    place.chain("input", f"tcp dport {place.port} reject")


def no_more_namespaces(place: Place) -> None:
    """A drop rule on the guest itself, and no namespace for a copy of the rules."""
    assert isinstance(place, Here)
    place.serve()
    place.chain("input", f"tcp dport {place.port} drop")
    before = place.run("sysctl", "-n", "user.max_net_namespaces").strip()
    place.afterwards("sysctl", "-qw", f"user.max_net_namespaces={before}")
    place.run("sysctl", "-qw", "user.max_net_namespaces=0")


def service_with_a_network_of_its_own(place: Place) -> None:
    """PrivateNetwork=yes: it listens on a loopback that nobody else has."""
    assert isinstance(place, Here)
    argv = server_argv("accepts", "127.0.0.1", place.port)
    place.unit(SERVICE, service_text(argv, "PrivateNetwork=yes"), "start")
    place.until(SERVICE, "active")
    pid = place.run("systemctl", "show", "--value", "-p", "MainPID", SERVICE).strip()
    asked = ("nsenter", "--target", pid, "--net", "ss", "-Hltn", f"sport = :{place.port}")
    wait_for(lambda: place.run(*asked, check=False).strip() != "", "the service to listen", PATIENCE)


OTHER_NAMESPACE = "container/other-namespace"

FAULTS = (
    Fault(
        "a service listens in a network of its own because of PrivateNetwork",
        service_with_a_network_of_its_own,
        root=likely(OTHER_NAMESPACE, Remedy.LEADS),
        user=likely(OTHER_NAMESPACE, Remedy.LEADS),
        machine=True,
        keep=True,
    ),
    Fault(
        "netdiag itself runs in a network of its own because of PrivateNetwork",
        service(),
        root=likely(OTHER_NAMESPACE, Remedy.AGAIN),
        user=likely(OTHER_NAMESPACE, Remedy.AGAIN),
        confined=("PrivateNetwork=yes",),
        machine=True,
    ),
    Fault(
        "netdiag itself may not open IPv4 sockets because of its AppArmor profile",
        apparmor(_NO_NETWORK, service()),
        root=proven("sandbox/address-family", Remedy.AGAIN),
        user=proven("sandbox/address-family", Remedy.AGAIN),
        confined=(f"AppArmorProfile={PROFILE}",),
        machine=True,
    ),
    Fault(
        "netdiag itself may not read process states because of its AppArmor profile",
        apparmor(_NO_PROC, service()),
        root=works(),
        user=works(),
        confined=(f"AppArmorProfile={PROFILE}",),
        machine=True,
    ),
    Fault(
        "an nft rule drops the port, and no namespace can be made for a copy of the rules",
        no_more_namespaces,
        root=(*likely("firewall/rule-drops"), *likely("firewall/silent", Remedy.PERSON)),
        user=likely("firewall/silent", Remedy.AGAIN),
        by_person=lambda place: place.run("nft", "flush", "ruleset"),
        machine=True,
    ),
    Fault(
        "a service of root is frozen by systemctl freeze",
        then(service(), "systemctl", "freeze", SERVICE),
        root=proven(FROZEN),
        user=likely(FROZEN),
        machine=True,
        keep=True,
    ),
    Fault(
        "a service of the ordinary user is frozen by systemctl freeze",
        then(service("accepts", "User=user"), "systemctl", "freeze", SERVICE),
        root=proven(FROZEN),
        user=proven(FROZEN),
        machine=True,
    ),
    Fault(
        "a slice with a service in it is frozen by systemctl freeze",
        slice_frozen,
        root=proven(FROZEN),
        user=likely(FROZEN),
        machine=True,
    ),
    Fault(
        "a frozen service has the port that a server wants",
        then(service(), "systemctl", "freeze", SERVICE),
        root=proven("in-use/listener", verdict="not-bindable"),
        user=proven("in-use/listener", Remedy.AGAIN, verdict="not-bindable"),
        arguments=BIND,
        machine=True,
    ),
    Fault(
        "a socket unit's service needs three seconds to start",
        activated("ExecStartPre=/bin/sleep 3"),
        root=works(),
        user=works(),
        machine=True,
        apart=True,
        keep=True,
    ),
    Fault(
        "a socket unit's service is still starting when the wait is over",
        activated("ExecStartPre=/bin/sleep 3600", "TimeoutStartSec=infinity"),
        root=no_cause("inconclusive"),
        user=no_cause("inconclusive"),
        machine=True,
        keep=True,
    ),
    Fault(
        "a socket unit's service fails at every start",
        activated(command="/bin/false"),
        root=(*proven("hung/closes-at-once", Remedy.PERSON), *proven("hung/not-accepting", Remedy.PERSON)),
        user=(*proven("hung/closes-at-once", Remedy.PERSON), *proven("hung/not-accepting", Remedy.PERSON)),
        by_person=service_of_the_socket_repaired,
        machine=True,
        apart=True,
    ),
    Fault(
        "a socket unit was stopped, and nothing listens",
        then(activated(), "systemctl", "stop", SOCKET),
        root=proven(CLOSED),
        user=proven(CLOSED),
        machine=True,
    ),
    Fault(
        "a service with the port in its command line was stopped",
        then(service(), "systemctl", "stop", SERVICE),
        root=proven(CLOSED),
        user=(*proven(CLOSED), *likely(CLOSED)),
        machine=True,
        keep=True,
    ),
    Fault(
        "a service with the port in its command line was killed and has failed",
        killed,
        root=proven(CLOSED, Remedy.PERSON),
        user=(*proven(CLOSED, Remedy.PERSON), *likely(CLOSED, Remedy.PERSON)),
        by_person=without_its_settings,
        machine=True,
    ),
    Fault(
        "a service waits in ExecStartPre before it listens",
        unit_that_does_not_listen(
            "ExecStartPre=-/bin/sleep 3600", "TimeoutStartSec=infinity", states=("activating", "inactive")
        ),
        root=likely(STARTING, Remedy.PERSON),
        user=likely(STARTING, Remedy.PERSON),
        by_person=the_wait_ends,
        machine=True,
        keep=True,
    ),
    Fault(
        "a service may not bind its port because of SocketBindDeny",
        unit_that_does_not_listen("SocketBindDeny=ipv4:tcp:{port}", states=("failed",)),
        root=proven(CLOSED, Remedy.PERSON),
        user=(*proven(CLOSED, Remedy.PERSON), *likely(CLOSED, Remedy.PERSON)),
        by_person=without_its_settings,
        machine=True,
        kernels=("6.12",),  # systemd 252 does not enforce it here
    ),
    Fault(
        "a service may not open IPv4 sockets because of RestrictAddressFamilies",
        unit_that_does_not_listen("RestrictAddressFamilies=AF_UNIX", states=("failed",)),
        root=proven(CLOSED, Remedy.PERSON),
        user=(*proven(CLOSED, Remedy.PERSON), *likely(CLOSED, Remedy.PERSON)),
        by_person=without_its_settings,
        machine=True,
    ),
    Fault(
        "netdiag itself may not open IPv4 sockets because of RestrictAddressFamilies",
        service(),
        root=proven("sandbox/address-family", Remedy.AGAIN),
        user=proven("sandbox/address-family", Remedy.AGAIN),
        confined=("RestrictAddressFamilies=AF_UNIX AF_NETLINK",),
        machine=True,
    ),
    Fault(
        "netdiag itself runs under the system call filter of a service, and the server is healthy",
        service(),
        root=works(),
        user=works(),
        confined=("SystemCallFilter=@system-service",),
        machine=True,
    ),
    Fault(
        "netdiag itself runs under the system call filter of a service, and nothing listens",
        lambda place: None,
        root=(*proven(CLOSED, Remedy.AGAIN), *likely(CLOSED, Remedy.AGAIN)),
        user=(*proven(CLOSED, Remedy.AGAIN), *likely(CLOSED, Remedy.AGAIN)),
        confined=("SystemCallFilter=@system-service",),
        machine=True,
    ),
    Fault(
        "netdiag itself is denied socket by a system call filter that answers EPERM",
        service(),
        root=proven("sandbox/address-family", Remedy.AGAIN),
        user=likely("sandbox/address-family", Remedy.AGAIN),
        confined=("SystemCallFilter=~socket", "SystemCallErrorNumber=EPERM"),
        machine=True,
    ),
    Fault(
        "netdiag itself is denied connect by a system call filter that answers EPERM",
        service(),
        root=likely("sandbox/seccomp", Remedy.AGAIN),
        user=no_cause(),
        confined=("SystemCallFilter=~connect", "SystemCallErrorNumber=EPERM"),
        machine=True,
    ),
    Fault(
        "netdiag itself is root without capabilities, and an nft rule rejects the port",
        rejected_on_the_guest,
        root=likely("firewall/rule-rejects", Remedy.AGAIN),
        user=likely("firewall/rule-rejects", Remedy.AGAIN),
        confined=("CapabilityBoundingSet=",),
        machine=True,
    ),
    *(
        Fault(
            f"an nft rule drops the port, and netdiag itself runs in a unit with {setting}",
            dropped_on_the_guest,
            root=SOMETHING_OF_A_DROP,
            user=(*likely("firewall/silent", Remedy.AGAIN), *no_cause()),
            confined=(setting,),
            machine=True,
        )
        for setting in ("SystemCallFilter=@system-service", "RestrictNamespaces=yes", "ProtectKernelTunables=yes")
    ),
    Fault(
        "an nft rule drops the port, and netdiag itself may not read process states because of AppArmor",
        apparmor(_NO_PROC, dropped_on_the_guest),
        root=SOMETHING_OF_A_DROP,
        user=(*likely("firewall/silent", Remedy.AGAIN), *no_cause()),
        confined=(f"AppArmorProfile={PROFILE}",),
        machine=True,
    ),
)
