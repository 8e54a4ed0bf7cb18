"""Where a fault is made: namespaces of its own inside the guest, or the guest itself."""

from __future__ import annotations

import contextlib
import os
import pwd
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.lab.machine import ROOT, Answer, Machine, Server, start, wait_for
from tests.vm.recipe import USER

USER_ID = 1000
PATIENCE = 120.0
"""Seconds for what takes one at most on a machine that is neither emulated nor busy."""
RUN_SECONDS = 300
SERVER = Path(__file__).parents[1] / "lab" / "server.py"
NETDIAG = "/usr/local/bin/netdiag"
_SYSTEM_PYTHON = "/usr/bin/python3"


class Namespace(Machine):
    """The lab's machine, with a guest's patience: everything in there takes ten times as long."""

    def __enter__(self) -> Namespace:
        super().__enter__()
        self._others = contextlib.ExitStack()
        return self

    def __exit__(self, *error: object) -> None:
        self._others.close()
        super().__exit__(*error)

    def another(self) -> Namespace:
        """A second machine on the same kernel, like a container, gone with this one."""
        return self._others.enter_context(Namespace(port=self.port))

    def run(self, *argv: str, uid: int = ROOT, stdin: str | bytes = "", check: bool = True) -> str:
        """Standard output of a command in this machine."""
        return run(self.inside(argv, uid), stdin, check)

    def netdiag(self, *arguments: str, uid: int = ROOT, before: tuple[str, ...] = ()) -> Answer:
        """Run the installed command as a user would."""
        return answer(self.inside([*before, "/run/bin/netdiag", *arguments], uid), arguments)


class Here:
    """The guest itself, with its systemd; what a fault did to it is taken back in reverse order."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.servers: list[Server] = []
        self._undo: list[Callable[[], object]] = []
        self._units = 0

    def __enter__(self) -> Here:
        return self

    def __exit__(self, *_: object) -> None:
        for server in self.servers:
            server.kill()
        errors = []
        for step in reversed(self._undo):
            try:
                step()
            except (AssertionError, OSError, subprocess.SubprocessError) as error:
                errors.append(f"{type(error).__name__}: {error}")
        if errors:
            raise AssertionError(f"the guest is not as it was: {'; '.join(errors)}")

    def afterwards(self, *argv: str) -> None:
        """A command that takes something back, run at the end whether it succeeds or not."""
        self._undo.append(lambda: self.run(*argv, check=False))

    def inside(self, argv: Sequence[str | bytes], uid: int = ROOT) -> list[str | bytes]:
        """The command line that runs argv as this user after a login."""
        name = pwd.getpwuid(uid).pw_name
        system = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        home = "/root" if uid == ROOT else f"/home/{USER}"
        variables = [f"PATH={system}", f"HOME={home}", f"USER={name}", "LANG=C.UTF-8", "TERM=dumb"]
        if uid != ROOT:
            variables += [f"XDG_RUNTIME_DIR=/run/user/{uid}", f"DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/{uid}/bus"]
        become = [] if uid == ROOT else ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--init-groups", "--"]
        return [*become, "env", "-i", f"--chdir={home}", *variables, *argv]

    def run(self, *argv: str, uid: int = ROOT, stdin: str | bytes = "", check: bool = True) -> str:
        """Standard output of a command."""
        return run(self.inside(argv, uid), stdin, check)

    def netdiag(self, *arguments: str, uid: int = ROOT, before: tuple[str, ...] = ()) -> Answer:
        """Run the installed command as a user would."""
        return answer(self.inside([*before, NETDIAG, *arguments], uid), arguments)

    def confined(self, properties: Sequence[str], arguments: tuple[str, ...], uid: int) -> Answer:
        """Run the installed command in a transient unit with these properties, as this user."""
        user = [] if uid == ROOT else [f"--uid={uid}"]
        words = [word for one in properties for word in ("-p", one)]
        argv = ["systemd-run", "--quiet", "--pipe", "--wait", "--collect", *user, *words, "--", NETDIAG, *arguments]
        return answer(self.inside(argv), arguments)

    def nft(self, *statements: str) -> None:
        """Load statements into the guest's rule set; it is empty again afterwards."""
        self.afterwards("nft", "flush", "ruleset")
        self.run("nft", "-f", "-", stdin="\n".join(statements) + "\n")

    def chain(self, hook: str, *rules: str, family: str = "ip", priority: int = 0, policy: str = "accept") -> None:
        """A base chain of nft, named for its hook, in a table named guard."""
        body = "\n".join(rules)
        self.nft(
            f"table {family} guard {{\nchain {hook} {{",
            f"type filter hook {hook} priority {priority}; policy {policy};\n{body}\n}}\n}}",
        )

    def serve(
        self, conduct: str = "accepts", address: str = "127.0.0.1", port: int = 0, *options: str, uid: int = ROOT
    ) -> Server:
        """Start a server of the session; returns when it stands."""
        argv = self.inside([*server_argv(conduct, address, port or self.port), *options], uid)
        server = Server(start(argv))
        self.servers.append(server)
        return server

    def unit(self, name: str, text: str, *verbs: str) -> None:
        """A unit of the system, under /etc as an administrator's, gone afterwards; then systemctl with these verbs."""
        path = Path("/etc/systemd/system") / name
        path.write_text(text)

        def remove() -> None:
            self.run("systemctl", "thaw", name, check=False)
            self.run("systemctl", "kill", "--signal=KILL", name, check=False)
            self.run("systemctl", "stop", "--no-block", name, check=False)
            path.unlink(missing_ok=True)
            dropins = Path(f"/etc/systemd/system/{name}.d")
            if dropins.is_dir():
                self.run("rm", "-r", str(dropins))
            self.run("systemctl", "daemon-reload")
            self.run("systemctl", "reset-failed", name, check=False)
            wait_for(lambda: self.state(name) in ("inactive", "failed", "unknown"), f"{name} to be gone", PATIENCE)

        self._undo.append(remove)
        self.run("systemctl", "daemon-reload")
        for verb in verbs:
            self.run("systemctl", verb, name, check=verb != "start")

    def service(self, name: str, conduct: str = "accepts", *lines: str, address: str = "127.0.0.1") -> None:
        """A service that runs the lab's server on the port of this fault, up and listening."""
        self.unit(name, service_text(server_argv(conduct, address, self.port), *lines), "start")
        self.until_listening(address)

    def state(self, unit: str) -> str:
        """What systemd says of it: active, failed ..."""
        return self.run("systemctl", "is-active", unit, check=False).strip()

    def until(self, unit: str, *states: str) -> None:
        """Waits until systemd says one of these of the unit."""
        wait_for(lambda: self.state(unit) in states, f"{unit} to be {' or '.join(states)}", PATIENCE)

    def until_listening(self, address: str = "127.0.0.1", port: int = 0) -> None:
        """Waits until a socket listens on the port."""
        asked = ("ss", "-Hltn", f"sport = :{port or self.port}")
        wait_for(lambda: self.run(*asked).strip() != "", f"a listener on {address}", PATIENCE)

    def stop_process(self, pid: int) -> None:
        """As Ctrl-Z does."""
        os.kill(pid, signal.SIGSTOP)
        self._undo.append(lambda: continue_process(pid))


def continue_process(pid: int) -> None:
    """Where it still is there."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


def server_argv(conduct: str, address: str, port: int) -> list[str]:
    """The lab's server as any program of the system, on the system's Python."""
    return [_SYSTEM_PYTHON, "-I", "-S", str(SERVER), conduct, address, str(port)]


def service_text(argv: Sequence[str], *lines: str) -> str:
    """A unit file that runs it; the words need no quotation."""
    assert not any(set(word) & set(" \"'\\%$;") for word in argv), argv
    head = ("[Unit]", "Description=a service of a test", "[Service]", f"ExecStart={' '.join(argv)}")
    return "\n".join([*head, *lines, ""])


def run(argv: Sequence[str | bytes], stdin: str | bytes, check: bool) -> str:
    """Standard output of a command line."""
    data = stdin.encode() if isinstance(stdin, str) else stdin
    done = subprocess.run(argv, input=data, capture_output=True, timeout=RUN_SECONDS, check=False)
    assert not check or done.returncode == 0, f"{argv}: exit {done.returncode}: {done.stderr.decode()}"
    return done.stdout.decode(errors="backslashreplace")


def answer(argv: Sequence[str | bytes], arguments: tuple[str, ...]) -> Answer:
    """What netdiag said."""
    begin = time.monotonic()
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=RUN_SECONDS, check=False)
    seconds = time.monotonic() - begin
    return Answer(("netdiag", *arguments), done.returncode, done.stdout, done.stderr, seconds)
