"""Files of the machine, and of other users, are read where they are regular, small and theirs to read."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from diagnose.model.fact import Unknown
from diagnose.probes import compose, regular_file, ufw, vantage
from diagnose.probes.engines import places
from diagnose.probes.regular_file import read, read_of_others

ALICE, BOB = 12345, 23456
SECRET = "services:\n  secret:\n    image: hunter2\n"
as_root = pytest.mark.skipif(sys.platform == "win32" or os.geteuid() != 0, reason="only root reads what others may not")
linux = pytest.mark.skipif(sys.platform != "linux", reason="/proc and /dev are Linux")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A directory of root's that every user can reach."""
    for above in (tmp_path, *tmp_path.parents):
        if str(above).startswith("/tmp/"):
            above.chmod(0o755)
    return tmp_path


@pytest.fixture
def theirs(folder: Path) -> Path:
    """Alice's project."""
    (folder / "alice").mkdir()
    os.chown(folder / "alice", ALICE, ALICE)
    return folder / "alice"


def link(path: Path, target: Path | str, owner: int) -> None:
    path.symlink_to(target)
    os.lchown(path, owner, owner)


def project(folder: Path) -> str:
    """What is made of the Compose project there."""
    return str(compose.look(str(folder), {}))


# what it is


@pytest.mark.parametrize("reader", [read, read_of_others])
@pytest.mark.parametrize(
    "what",
    ["fifo", "directory", "socket", "/dev/zero", "/dev/null", "/proc/kmsg", "/proc/self/environ", "/sys/kernel/notes"],
)
def test_nothing_but_a_regular_file_is_opened(folder: Path, reader: object, what: str) -> None:
    path = folder / "file"
    match what:
        case "fifo":
            os.mkfifo(path)
        case "directory":
            path.mkdir()
        case "socket":
            with socket.socket(socket.AF_UNIX) as server:
                server.bind(str(path))
        case other:
            if not os.path.exists(other):
                pytest.skip(f"no {other} here")
            path.symlink_to(other)
    assert callable(reader)
    started = time.monotonic()
    with pytest.raises(OSError, match="never opened"):
        reader(str(path))
    assert time.monotonic() - started < 1


@pytest.mark.parametrize("reader", [read, read_of_others])
def test_a_file_that_is_too_large_is_not_read(folder: Path, reader: object) -> None:
    with (folder / "big").open("wb") as file:
        file.truncate(1 << 30)
    assert callable(reader)
    with pytest.raises(OSError, match="1073741824 bytes, and no more than"):
        reader(str(folder / "big"))


def test_a_regular_file_is_read_through_links_and_an_empty_one_is_empty(folder: Path) -> None:
    (folder / "file").write_bytes(b"x\n")
    (folder / "file").chmod(0o640)
    (folder / "link").symlink_to("file")
    found = read(str(folder / "link"))
    assert (found.content, found.mode, found.owner) == (b"x\n", 0o640, os.geteuid())
    (folder / "empty").write_bytes(b"")
    assert read(str(folder / "empty")).content == b""
    assert read_of_others(str(folder / "link")) == b"x\n"


@linux
def test_what_is_refused_is_not_touched(folder: Path) -> None:
    os.mkfifo(folder / "fifo")
    writer = os.open(folder / "fifo", os.O_RDWR)
    os.write(writer, b"kept")
    try:
        with pytest.raises(OSError, match="a FIFO"):
            read_of_others(str(folder / "fifo"))
        assert os.read(writer, 100) == b"kept"
    finally:
        os.close(writer)


# who may see it


@as_root
@pytest.mark.parametrize("how", ["link", "link to a directory", "link to a link", "hard link", "magic link"])
def test_root_does_not_read_for_another_user_what_they_may_not_read(folder: Path, theirs: Path, how: str) -> None:
    private = folder / "private"
    private.mkdir()
    secret = private / "compose.yaml"
    secret.write_text(SECRET)
    secret.chmod(0o600)
    holder = None
    match how:
        case "link":
            link(theirs / "compose.yaml", secret, ALICE)
        case "link to a directory":
            link(theirs / "sub", private, ALICE)
            theirs = theirs / "sub"
        case "link to a link":
            link(folder / "official", secret, 0)
            link(theirs / "compose.yaml", folder / "official", ALICE)
        case "hard link":
            os.link(secret, theirs / "compose.yaml")
        case _:
            holder = secret.open()
            link(theirs / "compose.yaml", f"/proc/{os.getpid()}/fd/{holder.fileno()}", ALICE)
    told = project(theirs)
    if holder is not None:
        holder.close()
    assert "hunter2" not in told
    assert ("No such file" if how == "magic link" else "not read") in told


@as_root
def test_a_readable_file_in_a_closed_directory_is_not_theirs_to_read(folder: Path, theirs: Path) -> None:
    (folder / "closed").mkdir(mode=0o700)
    (folder / "closed" / "compose.yaml").write_text(SECRET)
    link(theirs / "compose.yaml", folder / "closed" / "compose.yaml", ALICE)
    assert "not read" in project(theirs)


@as_root
def test_a_hard_link_where_everybody_writes_is_only_what_everybody_reads(folder: Path) -> None:
    (folder / "secret").write_text(SECRET)
    (folder / "secret").chmod(0o600)
    os.chown(folder / "secret", BOB, BOB)
    (folder / "tmp").mkdir()
    (folder / "tmp").chmod(0o1777)
    os.link(folder / "secret", folder / "tmp" / "compose.yaml")
    assert "not read" in project(folder / "tmp")


@as_root
def test_links_that_their_makers_could_follow_are_followed(folder: Path, theirs: Path) -> None:
    (folder / "shared").mkdir()
    (folder / "shared" / "compose.yaml").write_text("services:\n  web:\n    image: nginx\n")
    link(theirs / "compose.yaml", folder / "shared" / "compose.yaml", ALICE)
    assert "nginx" in project(theirs)
    os.chown(folder / "shared" / "compose.yaml", ALICE, ALICE)
    (folder / "shared" / "compose.yaml").chmod(0o600)
    assert "nginx" in project(theirs)
    link(folder / "compose.yaml", theirs / "compose.yaml", 0)
    assert "nginx" in project(folder)


@as_root
def test_root_s_own_file_in_another_user_s_directory_is_read(theirs: Path) -> None:
    (theirs / "compose.yaml").write_text("services:\n  web:\n    image: nginx\n")
    (theirs / "compose.yaml").chmod(0o600)
    assert "nginx" in project(theirs)


@as_root
def test_the_error_of_a_file_that_is_no_compose_file_quotes_nothing_of_it(theirs: Path, folder: Path) -> None:
    (folder / "shadow").write_text("root:$6$hunter2:19000:0:99999:7:::\n")
    (folder / "shadow").chmod(0o644)
    link(theirs / "compose.yaml", folder / "shadow", ALICE)
    assert "hunter2" not in project(theirs)


@as_root
@pytest.mark.parametrize("viewer", [ALICE, None])
def test_labels_show_the_caller_of_sudo_no_file_that_they_may_not_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch, viewer: int | None
) -> None:
    from diagnose.model.container import ComposeService

    (folder / "compose.yaml").write_text("services:\n  web:\n    image: nginx\n")
    (folder / "compose.yaml").chmod(0o600)
    if viewer is not None:
        monkeypatch.setenv("SUDO_UID", str(viewer))
    else:
        monkeypatch.delenv("SUDO_UID", raising=False)
    service = ComposeService("p", "web", str(folder), (str(folder / "compose.yaml"),))
    told = compose.of_labels([service], {})
    assert isinstance(told, Unknown) == (viewer is not None)
    assert ("nginx" in str(told)) == (viewer is None)


# every file of the machine's own


@pytest.mark.parametrize("what", ["fifo", "directory", "/dev/zero", "sparse"])
def test_the_users_file_and_ufw_s_switch_do_not_hold_anything_up(
    folder: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    path = folder / "file"
    match what:
        case "fifo":
            os.mkfifo(path)
        case "directory":
            path.mkdir()
        case "sparse":
            with path.open("wb") as file:
                file.truncate(1 << 30)
        case device:
            path.symlink_to(device)
    real = regular_file.read
    monkeypatch.setattr(regular_file, "read", lambda asked: real(str(path)))
    assert vantage._accounts() == {}
    assert isinstance(ufw.is_on(), Unknown)
    assert places._home(0) is None


WATCHED = """
import os, sys
told = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
def watch(event, arguments):
    if event == "open" and str(arguments[0]).startswith("/etc/") and not (arguments[2] & os.O_PATH):
        os.write(told, f"{arguments[0]}\\n".encode())
from diagnose.cli import main
sys.addaudithook(watch)
sys.argv[1:] = sys.argv[2:]
main()
"""
"""Runs the command; each file below /etc that it opens by name, and for more than to look what it is, is a line."""


@linux
@pytest.mark.parametrize("arguments", [("--passive", "localhost:9"), ("127.0.0.1:9",), ("--record", "/dev/null", ":9")])
def test_no_file_below_etc_is_opened_before_it_was_looked_at(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    command = [sys.executable, "-c", WATCHED, str(tmp_path / "opened"), "run", "--json", *arguments]
    done = subprocess.run(command, capture_output=True, timeout=30, check=False)
    assert done.returncode in (0, 1, 3), done.stderr
    opened = set((tmp_path / "opened").read_text().split())
    assert opened <= {"/etc/ssl/openssl.cnf"}, opened


def test_the_mode_of_what_is_read_has_no_type() -> None:
    assert stat.S_IFMT(read(__file__).mode) == 0
