"""A machine with a real Docker Engine of its own: its networks, rules and containers go with it."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import tarfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.lab.machine import ROOT, Answer, Machine, wait_for

BUSYBOX = "/bin/busybox"
"""Static, from Debian's busybox-static: all that the image holds."""
IMAGE = "lab"
SOON = ("--stop-timeout", "1")
"""Seconds that `docker stop` waits for a first process that does not heed SIGTERM, as busybox's do not."""
APPLETS = [
    "cat",
    "echo",
    "env",
    "false",
    "httpd",
    "ip",
    "kill",
    "ls",
    "mkdir",
    "nc",
    "nslookup",
    "ping",
    "sh",
    "sleep",
    "tail",
    "true",
    "wget",
]
ENGINE_TOOLS = ("dockerd", "docker", "containerd", "runc")
_SOCKET = "/run/docker.sock"
_START = 20.0


@dataclass
class DockerMachine(Machine):
    """Use it as a context manager."""

    daemon: tuple[str, ...] = ()
    """Options of dockerd."""

    def __enter__(self) -> DockerMachine:
        super().__enter__()
        # a bridge that is still looking for doubles of its address would change while the test looks
        self.run("sysctl", "-qw", "net.ipv6.conf.default.accept_dad=0", "net.ipv6.conf.default.addr_gen_mode=1")
        self.start_engine()
        self.docker("import", "-", IMAGE, stdin=image())
        return self

    def __exit__(self, *error: object) -> None:
        self.stop_engine()
        super().__exit__(*error)

    def start_engine(self) -> None:
        """Returns when it answers."""
        data = self.scratch / "docker"
        data.mkdir(exist_ok=True)
        argv = ["dockerd", "--host", f"unix://{_SOCKET}", "--data-root", str(data), "--exec-root", "/run/docker"]
        argv += ["--pidfile", "/run/docker.pid", "--storage-driver", "vfs", "--shutdown-timeout", "1", *self.daemon]
        self.engine = subprocess.Popen(
            self.inside(argv), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=(data / "log").open("ab")
        )
        wait_for(lambda: self.docker("version", check=False).count("Version") > 2, "the engine to start", _START)

    def stop_engine(self) -> None:
        """With every container that it runs."""
        if self.engine.poll() is None:
            names = self.docker("ps", "--quiet", check=False).split()
            if names:
                self.docker("kill", *names, check=False)
            self.engine.send_signal(signal.SIGTERM)
        try:
            self.engine.wait(10)
        except subprocess.TimeoutExpired:
            self.engine.kill()
            self.engine.wait()

    def docker(self, *arguments: str, stdin: bytes = b"", check: bool = True) -> str:
        """Standard output of the docker command in this machine."""
        return self.run("docker", *arguments, stdin=stdin, check=check)

    def container(self, name: str, *command: str, options: Sequence[str] = ()) -> str:
        """Run a container in the background; its id."""
        found = self.docker("run", "--detach", "--name", name, *SOON, *options, IMAGE, *command).strip()
        wait_for(lambda: "tentative" not in self.run("ip", "-6", "address"), "its cable's addresses to be the host's")
        return found

    def web(self, name: str, address: str, port: int, *, options: Sequence[str] = ()) -> str:
        """A container whose server listens at this address and port in there; its id, once it does."""
        found = self.container(name, "httpd", "-f", "-p", f"{address}:{port}", "-h", "/www", options=options)
        wait_for(lambda: self.listens_inside(name, port), f"the server of {name} to listen")
        return found

    def listens_inside(self, name: str, port: int) -> bool:
        """Whether a TCP socket listens on the port in the container's namespace."""
        pid = self.pid(name)
        tables = [Path(f"/proc/{pid}/net/{table}").read_text() for table in ("tcp", "tcp6")]
        return any(f":{port:04X} " in line and " 0A " in line for text in tables for line in text.splitlines()[1:])

    def until_status(self, name: str, status: str) -> None:
        """Waits until the engine says so of the container."""
        form = "{{.State.Status}}"
        wait_for(lambda: self.docker("inspect", "--format", form, name).strip() == status, f"{name} to be {status}", 10)

    def netdiag(self, *arguments: str, uid: int = ROOT, before: tuple[str, ...] = ()) -> Answer:
        """As on every machine, once this one has come to rest."""
        self.rest()
        return super().netdiag(*arguments, uid=uid, before=before)

    def rest(self) -> None:
        """Waits until bridges and links have done what follows from a container's end or start."""
        seen = [self.fingerprint()]

        def stands() -> bool:
            time.sleep(0.1)
            seen.append(self.fingerprint())
            return seen[-1] == seen[-2]

        wait_for(stands, "the machine to come to rest", 10)

    def inspect(self, name: str) -> dict[str, object]:
        """What the engine says of it."""
        found: list[dict[str, object]] = json.loads(self.docker("inspect", name))
        return found[0]

    def pid(self, name: str) -> int:
        """Of the container's first process, as this machine counts."""
        return int(self.docker("inspect", "--format", "{{.State.Pid}}", name))

    def address(self, name: str) -> str:
        """Of the container on its first network."""
        form = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}"
        return self.docker("inspect", "--format", form, name).split()[0]

    @contextmanager
    def engine_that_hangs(self) -> Iterator[None]:
        """The engine takes connections and answers nothing."""
        os.kill(self.daemon_pid(), signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.daemon_pid(), signal.SIGCONT)

    def daemon_pid(self) -> int:
        """Of dockerd itself, as this machine counts."""
        return int(self.run("cat", "/run/docker.pid"))


@cache
def image() -> bytes:
    """A tarball for `docker import`: static busybox, its applets by name, a page to serve."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for folder in ("bin", "etc", "tmp", "www"):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        tar.add(BUSYBOX, "bin/busybox")
        for applet in APPLETS:
            entry = tarfile.TarInfo(f"bin/{applet}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(entry)
        page = tarfile.TarInfo("www/index.html")
        page.size, page.mode, page.mtime = 3, 0o644, int(time.time())
        tar.addfile(page, io.BytesIO(b"hi\n"))
    return data.getvalue()
