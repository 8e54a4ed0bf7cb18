"""Containers of real engines under systemd and cgroup v2; they are in the newest release only."""

from __future__ import annotations

from collections.abc import Callable

from tests.lab.docker import image
from tests.vm.fault import Fault, Place, Remedy, proven, works
from tests.vm.place import USER_ID, Here

WITH_ENGINES = ("6.12",)
IMAGE, NAME = "lab", "web"
INSIDE = 8000
SERVER = ("httpd", "-f", "-p", f"0.0.0.0:{INSIDE}", "-h", "/www")
SECONDS = 1800


def docker(*more: str, server: tuple[str, ...] = SERVER, port: int = INSIDE) -> Callable[[Place], None]:
    """A container of Docker that publishes the port, and then a command of docker about it."""

    def make(place: Place) -> None:
        assert isinstance(place, Here)
        clean_up_docker(place)
        place.run("systemctl", "start", "docker.service")
        place.run("docker", "import", "-", IMAGE, stdin=image())
        published = ("--publish", f"127.0.0.1:{place.port}:{port}")
        place.run("docker", "run", "--detach", "--name", NAME, "--stop-timeout", "1", *published, IMAGE, *server)
        if more:
            place.run("docker", *more)

    return make


def clean_up_docker(place: Here) -> None:
    """In reverse order: the container, the engine, what the engine leaves in the kernel."""
    place.afterwards("nft", "flush", "ruleset")
    place.afterwards("ip", "link", "del", "docker0")
    place.afterwards("systemctl", "stop", "docker.socket", "docker.service", "containerd.service")
    place.afterwards("docker", "rm", "--force", NAME)


def podman(
    *more: str, network: str = "pasta", server: tuple[str, ...] = SERVER, port: int = INSIDE
) -> Callable[[Place], None]:
    """A container of the user's own podman that publishes the port, and then a command of podman about it."""

    def make(place: Place) -> None:
        assert isinstance(place, Here)
        login(place)
        default_route(place)
        place.afterwards("runuser", "-u", "user", "--", "podman", "system", "migrate")
        as_user(place, "import", "-", IMAGE, stdin=image())
        place.afterwards(*become("rm", "--all", "--force", "--time=0"))
        published = ("--publish", f"127.0.0.1:{place.port}:{port}", f"--network={network}")
        as_user(place, "run", "--detach", "--name", NAME, *published, IMAGE, *server)
        if more:
            as_user(place, *more)

    return make


def become(*arguments: str) -> tuple[str, ...]:
    """The command line that runs the user's podman as root's commands at the end."""
    runtime = f"XDG_RUNTIME_DIR=/run/user/{USER_ID}"
    return ("runuser", "-u", "user", "--", "env", "--chdir=/home/user", runtime, "podman", *arguments)


def as_user(place: Here, *arguments: str, stdin: bytes = b"") -> str:
    """The user's podman."""
    return place.run("podman", *arguments, uid=USER_ID, stdin=stdin)


def login(place: Here) -> None:
    """A user whose systemd runs, as after a login."""
    place.run("loginctl", "enable-linger", "user")
    place.until("user@1000.service", "active")


def default_route(place: Here) -> None:
    """pasta copies the addresses of the interface that leads outside: one that leads nowhere."""
    place.afterwards("ip", "link", "del", "outside")
    place.run("ip", "link", "add", "outside", "type", "dummy")
    place.run("ip", "address", "add", "192.0.2.2/24", "dev", "outside")
    place.run("ip", "link", "set", "outside", "up")
    place.run("ip", "route", "add", "default", "via", "192.0.2.1")


def server_stopped(place: Place) -> None:
    """The container's first process, stopped from outside."""
    assert isinstance(place, Here)
    podman()(place)
    place.stop_process(first_process(place))


def server_resumed(place: Place) -> None:
    """What a person does."""
    assert isinstance(place, Here)
    place.run("kill", "-CONT", str(first_process(place)))


def first_process(place: Here) -> int:
    """Its pid, as the guest counts."""
    return int(as_user(place, "inspect", "--format", "{{.State.Pid}}", NAME))


def podman_again() -> Callable[[Place], None]:
    """What a person does: the container is made again, with its port and its server as they should be."""

    def make(place: Place) -> None:
        assert isinstance(place, Here)
        as_user(place, "rm", "--force", "--time=0", NAME)
        published = ("--publish", f"127.0.0.1:{place.port}:{INSIDE}", "--network=pasta")
        as_user(place, "run", "--detach", "--name", NAME, *published, IMAGE, *SERVER)

    return make


FAULTS = (
    Fault(
        "a container of docker answers on its published port",
        docker(),
        root=works(),
        user=works(),
        kernels=WITH_ENGINES,
        machine=True,
        seconds=SECONDS,
    ),
    Fault(
        "a container of docker is paused",
        docker("pause", NAME),
        root=proven("container/paused"),
        user=proven("container/paused"),
        kernels=WITH_ENGINES,
        machine=True,
        keep=True,
        seconds=SECONDS,
    ),
    Fault(
        "a container of docker has exited",
        docker("stop", NAME),
        root=proven("container/not-running"),
        user=proven("container/not-running"),
        kernels=WITH_ENGINES,
        machine=True,
        seconds=SECONDS,
    ),
    Fault(
        "a container of rootless podman answers on the port that pasta publishes",
        podman(),
        root=works(),
        user=works(),
        kernels=WITH_ENGINES,
        machine=True,
        seconds=SECONDS,
    ),
    Fault(
        "a container of rootless podman behind pasta is paused",
        podman("pause", NAME),
        root=proven("container/paused"),
        user=proven("container/paused"),
        kernels=WITH_ENGINES,
        machine=True,
        keep=True,
        seconds=SECONDS,
    ),
    Fault(
        "a server in a container of rootless podman behind pasta was sent SIGSTOP",
        server_stopped,
        root=proven("hung/not-accepting", Remedy.PERSON),
        user=proven("hung/not-accepting", Remedy.PERSON),
        by_person=server_resumed,
        kernels=WITH_ENGINES,
        machine=True,
        seconds=SECONDS,
    ),
    Fault(
        "pasta publishes another port of the container than the server's",
        podman(port=INSIDE + 1),
        root=proven("container/wrong-container-port", Remedy.PERSON),
        user=proven("container/wrong-container-port", Remedy.PERSON),
        by_person=podman_again(),
        kernels=WITH_ENGINES,
        machine=True,
        keep=True,
        seconds=SECONDS,
    ),
    Fault(
        "the server in a container of rootless podman listens on the container's own loopback",
        podman(server=("httpd", "-f", "-p", f"127.0.0.1:{INSIDE}", "-h", "/www")),
        root=proven("container/binds-loopback-inside", Remedy.PERSON),
        user=(
            *proven("container/binds-loopback-inside", Remedy.PERSON),
            *proven("hung/closes-at-once", Remedy.PERSON),
        ),
        by_person=podman_again(),
        kernels=WITH_ENGINES,
        machine=True,
        seconds=SECONDS,
    ),
)
