"""A small machine of its own: network and mount namespaces in which a test may break whatever it likes."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema

REPOSITORY = Path(__file__).resolve().parents[2]
SERVER = Path(__file__).with_name("server.py")
NETDIAG = Path(sys.executable).with_name("netdiag")
INSTALLED = "/run/bin/netdiag"
"""Where every machine has the command, so that recordings do not depend on the checkout's place."""
TRACING = Path("/sys/kernel/tracing/instances")
PR_SET_CHILD_SUBREAPER = 36
ROOT, NOBODY = 0, 65534
TOOLS = ("unshare", "nsenter", "setpriv", "ip", "nft", "iptables-nft", "iptables-legacy", "ip6tables-legacy")

# Everything mounted here is mounted in the new namespace only and goes with it.
SETUP = """
set -e
ip link set lo up
mountpoint -q /sys/kernel/tracing || mount -t tracefs tracefs /sys/kernel/tracing
umount --recursive --lazy /run/netns 2>/dev/null || true
mount -t tmpfs -o mode=755 lab /run
mount -t tmpfs -o mode=755 lab "$1/private"
mkdir "$1/private/upper" "$1/private/work"
mount -t overlay -o "lowerdir=/etc,upperdir=$1/private/upper,workdir=$1/private/work" lab /etc
mkdir /run/bin
ln -s "$2" /run/bin/netdiag
ln -s "$3" /run/python3
cp "$4" /run/server.py
rm -f /etc/hosts /etc/resolv.conf /etc/nsswitch.conf /etc/gai.conf
printf '127.0.0.1 localhost\\n::1 localhost ip6-localhost ip6-loopback\\n' >/etc/hosts
printf 'nameserver 127.0.0.1\\noptions timeout:1 attempts:1\\n' >/etc/resolv.conf
printf 'passwd: files\\ngroup: files\\nhosts: files dns\\n' >/etc/nsswitch.conf
: >/etc/gai.conf
"""

WATCHER = """#!/bin/bash
given=
case $0 in *-restore) given=$(cat; echo .); given=${given%.};; esac
{ printf '%s\\0' "${0##*/}" "$@" "$given"; printf '\\0'; } >>/run/watched
case $0 in *-restore) exec -a "$0" "$0.real" "$@" <<<"$given";; esac
exec -a "$0" "$0.real" "$@"
"""

# Rules, routes, mounts, names: everything that `netdiag run` must leave as it was.
FINGERPRINT = """
nft -s list ruleset
for save in iptables-legacy-save ip6tables-legacy-save; do $save | sed -e '/^#/d' -e 's/ \\[.*//'; done
ip -o link; ip -o address; ip rule; ip -6 rule; ip route show table all; ip -6 route show table all
cat /proc/sys/net/ipv4/ip_local_port_range /proc/sys/net/ipv4/ip_unprivileged_port_start
cat /proc/self/mountinfo; ls /run/netns 2>/dev/null
stat -Lc '%n %F %a %s %t:%T' /etc/hosts /etc/resolv.conf
find -L /etc/hosts /etc/resolv.conf -maxdepth 0 -type f -size -99999k -exec sha256sum {} +
"""


@dataclass(frozen=True)
class Answer:
    """What one run of the command printed, and how it ended."""

    argv: tuple[str, ...]
    exit_code: int
    stdout: bytes
    stderr: bytes
    seconds: float

    @property
    def report(self) -> dict[str, Any]:
        """The JSON report, held against the published schema."""
        try:
            report: dict[str, Any] = json.loads(self.stdout)
        except ValueError as error:
            raise AssertionError(f"{self.argv}: no JSON: {error}; exit {self.exit_code}; {self.stderr!r}") from error
        jsonschema.validate(report, published_schema())
        return report

    @property
    def text(self) -> str:
        """Standard output as people read it."""
        return self.stdout.decode()

    @property
    def cause(self) -> dict[str, Any] | None:
        """The root cause."""
        found: dict[str, Any] | None = self.report["root_cause"]
        return found

    @property
    def codes(self) -> list[str]:
        """The codes of the findings, in their order."""
        return [finding["code"] for finding in self.report["findings"]]

    def __str__(self) -> str:
        report = self.report
        lines = [f"{' '.join(self.argv)} -> exit {self.exit_code}, {report['verdict']}, in {self.seconds:.2f} s"]
        lines += [f"  {a['address']} {a['outcome']} {a['errno']} {a['ms']} ms" for a in report["attempts"]]
        for finding in report["findings"]:
            lines.append(f"  {finding['severity']} {finding['confidence']} {finding['code']}: {finding['title']}")
            lines += [f"    {evidence['source']}: {evidence['text']}" for evidence in finding["evidence"]]
            for remedy in finding["remedies"]:
                lines.append(f"    remedy: {remedy['summary']}")
                lines += [f"      $ {command['argv']}" for command in remedy["commands"]]
                lines += [f"      undo $ {command['argv']}" for command in remedy["undo"]]
        lines += [f"  not checked: {n['fact']}: {n['reason']}" for n in report["not_checked"]]
        return "\n".join(lines)


@dataclass
class Server:
    """A process that a scenario started."""

    process: subprocess.Popen[bytes]

    @property
    def pid(self) -> int:
        """As `netdiag` will name it: the machine has the process ids of its host."""
        return self.process.pid

    def stop(self) -> None:
        """As Ctrl-Z does."""
        os.kill(self.pid, signal.SIGSTOP)
        wait_for(lambda: Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T", "state T")

    def kill(self) -> None:
        """Gone, stopped or not."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe:
                pipe.close()


@dataclass
class Machine:
    """Use it as a context manager; what it made is gone afterwards, and it says what is not."""

    port: int
    """The port that this scenario is about."""
    scratch: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="netdiag-lab-")))
    servers: list[Server] = field(default_factory=list)
    attached: bool = False
    """Whether this test has a BPF program attached that netfilter asks."""

    def __enter__(self) -> Machine:
        adopt_orphans()
        self.scratch.chmod(0o755)
        # its name is the same for every test process, and nobody but root can have it open
        self.programs = os.open("/run/netdiag-lab-programs", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        (self.scratch / "private").mkdir()
        (self.scratch / "cwd").mkdir()
        (self.scratch / "cwd").chmod(0o777)
        script = SETUP + opening(self.scratch) + "echo ready; exec sleep infinity"
        own = ["unshare", "--net", "--mount", "--propagation", "private", "setpriv", "--pdeathsig", "KILL"]
        self.keeper = start(
            [*own, "sh", "-c", script, "sh", str(self.scratch), str(NETDIAG), sys.executable, str(SERVER)]
        )
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.programs)
        for server in self.servers:
            server.kill()
        Server(self.keeper).kill()
        reap(children())
        # what a daemon of the machine has started may write a moment longer than it lives
        wait_for(lambda: removed(self.scratch), f"{self.scratch} to be removed", 10)

    def inside(self, argv: Sequence[str | bytes], uid: int = ROOT) -> list[str | bytes]:
        """The command line that runs argv in this machine as this user, without any other group or capability."""
        user = [] if uid == ROOT else ["--setuid", str(uid), "--setgid", str(uid)]
        environment = ["env", "-i", f"--chdir={self.scratch}/cwd", *variables(uid)]
        return ["nsenter", "--target", str(self.keeper.pid), "--net", "--mount", *user, "--", *environment, *argv]

    def run(self, *argv: str, uid: int = ROOT, stdin: str | bytes = "", check: bool = True) -> str:
        """Standard output of a command in this machine."""
        if "legacy" in argv[0] and not self.attached:
            fcntl.flock(self.programs, fcntl.LOCK_SH)
        data = stdin.encode() if isinstance(stdin, str) else stdin
        done = subprocess.run(self.inside(argv, uid), input=data, capture_output=True, timeout=10, check=False)
        assert not check or done.returncode == 0, f"{argv}: exit {done.returncode}: {done.stderr.decode()}"
        return done.stdout.decode(errors="backslashreplace")

    @contextlib.contextmanager
    def alone_with_programs(self) -> Iterator[None]:
        """No test of another process needs a drop of iptables-legacy proven until the block ends.

        The kernel does not report which network namespace netfilter asks a BPF program in: while one test has
        a program attached, no such drop can be proven in any other.
        """
        fcntl.flock(self.programs, fcntl.LOCK_EX)
        self.attached = True
        try:
            yield
        finally:
            self.attached = False
            fcntl.flock(self.programs, fcntl.LOCK_UN)

    def nft(self, *statements: str) -> None:
        """Load statements into the machine's rule set, all or none."""
        self.run("nft", "-f", "-", stdin="\n".join(statements) + "\n")

    def chain(self, hook: str, *rules: str, family: str = "ip", priority: int = 0, policy: str = "accept") -> None:
        """A base chain of nft, named for its hook, in a table named guard."""
        body = "\n".join(rules)
        self.nft(
            f"table {family} guard {{\nchain {hook} {{",
            f"type filter hook {hook} priority {priority}; policy {policy};\n{body}\n}}\n}}",
        )

    def write(self, path: str, content: str | bytes, mode: int = 0o644) -> None:
        """Replace a file under /etc or /run of this machine."""
        assert path.startswith(("/etc/", "/run/")), path
        self.run("install", "-D", f"--mode={mode:o}", "/dev/stdin", path, stdin=content)

    def remove_tools(self, *names: str) -> None:
        """Programs that this machine does not have."""
        for folder in ("/usr/sbin", "/usr/bin"):
            self._cover(folder)
            self.run("rm", "-f", *(f"{folder}/{name}" for name in names))

    def _cover(self, folder: str) -> None:
        """A layer over a folder of the system, in which this machine may change what it likes."""
        layer = f"{self.scratch}/private/{Path(folder).name}"
        self.run("mkdir", f"{layer}-upper", f"{layer}-work")
        layers = f"lowerdir={folder},upperdir={layer}-upper,workdir={layer}-work"
        self.run("mount", "-t", "overlay", "-o", layers, "lab", folder)

    def watch_tools(self, *names: str) -> None:
        """From now on each run of these programs of /usr/sbin is noted, with its words and its standard input."""
        self._cover("/usr/sbin")
        for name in names:
            self.run("mv", f"/usr/sbin/{name}", f"/usr/sbin/{name}.real")
            self.run("cp", "/dev/stdin", f"/usr/sbin/{name}", stdin=WATCHER)
            self.run("chmod", "755", f"/usr/sbin/{name}")

    def watched(self) -> list[str]:
        """What was given to the tools since they are watched, each run's words and input as one text."""
        return self.run("sh", "-c", "cat /run/watched 2>/dev/null || true").split("\0\0")[:-1]

    def serve(
        self,
        conduct: str = "accepts",
        address: str = "127.0.0.1",
        port: int = 0,
        *options: str,
        uid: int = ROOT,
        arguments: tuple[bytes, ...] = (),
    ) -> Server:
        """Start a server in this machine; returns when it stands."""
        script = ["/run/python3", "-I", "-S", "/run/server.py", conduct, address, str(port or self.port), *options]
        server = Server(start(self.inside([*script, *arguments], uid)))
        self.servers.append(server)
        return server

    def netdiag(self, *arguments: str, uid: int = ROOT, before: tuple[str, ...] = ()) -> Answer:
        """Run the installed command as a user would; it must leave no process, file or tracing instance behind."""
        argv = [*before, INSTALLED, *arguments]
        with nothing_left_behind(self):
            begin = time.monotonic()
            done = subprocess.run(
                self.inside(argv, uid), stdin=subprocess.DEVNULL, capture_output=True, timeout=30, check=False
            )
            seconds = time.monotonic() - begin
        return Answer(("netdiag", *arguments), done.returncode, done.stdout, done.stderr, seconds)

    def fingerprint(self) -> str:
        """The state that a run must not change."""
        return self.run("sh", "-c", FINGERPRINT)


class nothing_left_behind:  # noqa: N801 (reads as a statement)
    """Fails when processes, tracing instances, mounts, rules or files are there that were not before."""

    def __init__(self, machine: Machine, patience: float = 3.0) -> None:
        self.machine = machine
        self.patience = patience

    def __enter__(self) -> None:
        self.instances = tracing_instances()
        self.children = children()
        self.state = self.machine.fingerprint()

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None:
            return
        wait_for(lambda: not reap(children() - self.children), "its processes to end", self.patience)
        wait_for(
            lambda: not abandoned(tracing_instances() - self.instances), "its tracing instance to go", self.patience
        )
        after = self.machine.fingerprint()
        assert after == self.state, f"the run changed the machine: {changed(self.state, after)}"
        files = sorted(path.name for path in (self.machine.scratch / "cwd").iterdir())
        assert not files, f"the run left files in its working directory: {files}"


def removed(folder: Path) -> bool:
    """Whether the folder is gone, with all that is in it."""
    shutil.rmtree(folder, ignore_errors=True)
    return not folder.exists()


def changed(before: str, after: str) -> list[str]:
    """The lines that came or went."""
    old, new = before.splitlines(), after.splitlines()
    return [f"- {line}" for line in old if line not in new] + [f"+ {line}" for line in new if line not in old]


def variables(uid: int) -> list[str]:
    """The environment of a login: nothing of the test's own gets in."""
    system = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    if uid != ROOT:
        system = "/usr/local/bin:/usr/bin:/bin"
    home = "/root" if uid == ROOT else "/nonexistent"
    return [f"PATH=/run/bin:{system}", f"HOME={home}", "LANG=C.UTF-8", "TERM=dumb"]


def start(argv: Sequence[str | bytes]) -> subprocess.Popen[bytes]:
    """A process that has said "ready"."""
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    if process.stdout.readline() != b"ready\n":
        _, errors = process.communicate(timeout=5)
        raise AssertionError(f"{argv[0]!r} did not start: exit {process.returncode}: {errors.decode()}")
    return process


def opening(scratch: Path) -> str:
    """Shell lines that let every user reach the checkout and its Python, even when they lie under /root (mode 0700).

    The closed directory is covered, in the new mount namespace only, by one that is open and holds just what is needed.
    """
    lines = ""
    for closed, wanted in closed_directories(REPOSITORY, Path(sys.prefix), Path(sys.base_prefix)).items():
        for number, path in enumerate(wanted):
            lines += f"mkdir {scratch}/private/{number}; mount --bind {path} {scratch}/private/{number}\n"
        lines += f"mount -t tmpfs -o mode=755 lab {closed}\n"
        for number, path in enumerate(wanted):
            lines += f"mkdir -p {path}; mount --bind {scratch}/private/{number} {path}\n"
            lines += f"umount {scratch}/private/{number}; rmdir {scratch}/private/{number}\n"
    return lines


def closed_directories(*needed: Path) -> dict[Path, list[Path]]:
    """Which directories bar other users from which of these paths."""
    found: dict[Path, list[Path]] = {}
    for path in sorted(set(needed)):
        closed = next((up for up in reversed(path.parents) if not up.stat().st_mode & stat.S_IXOTH), None)
        if closed and not any(path.is_relative_to(other) for other in found.get(closed, ())):
            found.setdefault(closed, []).append(path)
    return found


@cache
def published_schema() -> dict[str, Any]:
    """What `netdiag schema` prints."""
    schema: dict[str, Any] = json.loads(subprocess.run([NETDIAG, "schema"], capture_output=True, check=True).stdout)
    return schema


@cache
def adopt_orphans() -> None:
    """Processes that a command leaves behind become children of the test, where they are seen (prctl(2))."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def children() -> set[int]:
    """Pids of all children of this process."""
    return {int(pid) for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()}


def reap(pids: set[int]) -> set[int]:
    """Collect those that have ended; returns the others."""
    return {pid for pid in pids if os.waitpid(pid, os.WNOHANG) == (0, 0)}


def tracing_instances() -> set[str]:
    """Names of the tracing instances on this machine."""
    return {path.name for path in TRACING.iterdir()} if TRACING.is_dir() else set()


def abandoned(names: set[str]) -> set[str]:
    """Those that do not carry the pid of a process that lives: the others belong to somebody at work."""
    return {name for name in names if not any(Path("/proc", pid).exists() for pid in re.findall(r"\d+", name))}


def wait_for(condition: Any, what: str, seconds: float = 3.0) -> None:
    """Until it holds; fails when it does not in time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds} s for {what}"
        time.sleep(0.005)


def missing_tools() -> Iterator[str]:
    """What the lab needs and this machine has not."""
    return (tool for tool in TOOLS if shutil.which(tool, path="/usr/sbin:/sbin:" + os.environ["PATH"]) is None)
