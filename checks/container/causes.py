"""The causes of the container check."""

from __future__ import annotations

from diagnose.model.finding import Cause, Stage

OWN_LOCALHOST = Cause(
    "container/own-localhost",
    Stage.SOCKET,
    "localhost is this container itself, and the port is not open in here",
)
OTHER_NAMESPACE = Cause(
    "container/other-namespace",
    Stage.SOCKET,
    "The port is open in another network namespace (a container, a unit, a sandbox), not in ours",
)
NOT_RUNNING = Cause(
    "container/not-running", Stage.SOCKET, "The container that publishes the port has ended, or was never started"
)
NOT_PUBLISHED = Cause(
    "container/port-not-published", Stage.SOCKET, "A container listens on the port, and does not publish it on the host"
)
PUBLISHED_ELSEWHERE = Cause(
    "container/published-elsewhere",
    Stage.SOCKET,
    "The container's port is published on another address of the host, or for one IP family only",
)
NAT_MISSING = Cause(
    "container/nat-missing", Stage.FIREWALL, "The container publishes the port, and no NAT rule leads in"
)
NO_LOCALNET_ROUTE = Cause(
    "container/no-localnet-route",
    Stage.FIREWALL,
    "A NAT rule sends loopback's packets to the container, and the kernel lets none of them out",
)
PAUSED = Cause("container/paused", Stage.PROCESS, "The container is paused: its processes are frozen")
BINDS_LOOPBACK_INSIDE = Cause(
    "container/binds-loopback-inside",
    Stage.SERVICE,
    "The port is published, and the server inside listens on the container's own loopback only",
)
WRONG_CONTAINER_PORT = Cause(
    "container/wrong-container-port", Stage.SERVICE, "The port leads to one on which nothing in the container listens"
)
HOST_LOOPBACK_ONLY = Cause(
    "container/host-loopback-only",
    Stage.SERVICE,
    "The host's server listens on the host's loopback only, where no container reaches it",
)
HOST_NAME_MISSING = Cause(
    "container/host-name-missing", Stage.NAME, "host.docker.internal is not known inside the container"
)
HOST_FIREWALL = Cause(
    "container/host-firewall",
    Stage.FIREWALL,
    "A rule of the host stops what comes from the container's bridge",
    of_the_machine=True,
)
