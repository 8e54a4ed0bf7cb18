"""The files that a person asks for: whole or not at all, their own, and never through another user's link."""

from __future__ import annotations

import os
import resource
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from diagnose import files
from diagnose.files import Destination, UnwritableError, Wanted, destinations

ALICE, MALLORY = 12345, 23456
as_root = pytest.mark.skipif(
    sys.platform == "win32" or os.geteuid() != 0, reason="only root has files of other users to protect"
)
RECORDING = ("--record", True)
REPORT = ("--output", False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A directory that every user can reach."""
    for above in (tmp_path, *tmp_path.parents):
        if str(above).startswith("/tmp/"):
            above.chmod(0o755)
    return tmp_path


def destination(path: Path | str, kind: tuple[str, bool] = REPORT) -> Destination:
    """Of one file."""
    return destinations([Wanted(kind[0], str(path), kind[1])])[0]


def write(path: Path | str, data: bytes = b"new", kind: tuple[str, bool] = REPORT) -> None:
    """As a run does it."""
    there = destination(path, kind)
    try:
        there.write(data)
    finally:
        there.close()


def refusal(path: Path | str, kind: tuple[str, bool] = REPORT) -> str:
    """Why it cannot be written."""
    with pytest.raises(UnwritableError) as refused:
        destination(path, kind)
    assert "\n" not in str(refused.value)
    assert str(refused.value).startswith(f"cannot write {str(path)!r}: ")
    return str(refused.value)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


@pytest.fixture(params=[True, False], ids=["without-a-name", "with-a-temporary-name"])
def either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With O_TMPFILE, and as on file systems and platforms that lack it."""
    if not request.param:
        monkeypatch.delattr(os, "O_TMPFILE")


# what is there afterwards


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_a_new_report_has_the_mode_that_the_umask_leaves(folder: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        write(folder / "report")
    finally:
        os.umask(before)
    assert (folder / "report").read_bytes() == b"new"
    assert mode(folder / "report") == 0o666 & ~umask
    assert names(folder) == ["report"]


@pytest.mark.usefixtures("either_way")
def test_an_existing_report_keeps_its_mode(folder: Path) -> None:
    (folder / "report").write_bytes(b"old and longer than the new one")
    (folder / "report").chmod(0o640)
    write(folder / "report")
    assert ((folder / "report").read_bytes(), mode(folder / "report")) == (b"new", 0o640)
    assert names(folder) == ["report"]


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize("option", ["--record", "--pcap"])
def test_a_recording_is_for_its_owner_only_even_if_the_file_exists(folder: Path, option: str) -> None:
    (folder / "seen").write_bytes(b"old")
    (folder / "seen").chmod(0o644)
    reader = (folder / "seen").open("rb")
    with reader:
        write(folder / "seen", kind=(option, True))
        assert reader.read() == b"old"  # who has the old file open does not see the new one
    assert ((folder / "seen").read_bytes(), mode(folder / "seen")) == (b"new", 0o600)


@pytest.mark.usefixtures("either_way")
def test_a_recording_is_for_its_owner_only_under_any_umask(folder: Path) -> None:
    before = os.umask(0)
    try:
        write(folder / "seen", kind=RECORDING)
    finally:
        os.umask(before)
    assert mode(folder / "seen") == 0o600


def test_nothing_is_made_before_it_is_written(folder: Path) -> None:
    (folder / "old").write_bytes(b"old")
    for name in ("old", "new"):
        destination(folder / name).close()
    assert names(folder) == ["old"]
    assert (folder / "old").read_bytes() == b"old"


@pytest.mark.usefixtures("either_way")
def test_a_file_size_limit_leaves_the_old_file_and_nothing_else(folder: Path) -> None:
    (folder / "report").write_bytes(b"old")
    there = destination(folder / "report")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            there.write(b"x" * 4096)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (names(folder), (folder / "report").read_bytes()) == (["report"], b"old")


@as_root
@pytest.mark.usefixtures("either_way")
def test_a_full_file_system_leaves_the_old_file_and_nothing_else(folder: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "full", folder], check=True)
    try:
        (folder / "report").write_bytes(b"old")
        with pytest.raises(OSError, match="No space left"):
            write(folder / "report", b"x" * (1 << 17))
        assert (names(folder), (folder / "report").read_bytes()) == (["report"], b"old")
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.mark.usefixtures("either_way")
def test_a_directory_that_is_exchanged_meanwhile_does_not_lead_elsewhere(folder: Path) -> None:
    (folder / "mine").mkdir()
    (folder / "theirs").mkdir()
    there = destination(folder / "mine" / "report")
    (folder / "mine").rename(folder / "moved")
    (folder / "mine").symlink_to(folder / "theirs")
    there.write(b"new")
    assert (names(folder / "theirs"), names(folder / "moved")) == ([], ["report"])


@pytest.mark.usefixtures("either_way")
def test_a_link_that_is_put_there_meanwhile_is_not_followed(folder: Path) -> None:
    (folder / "victim").write_bytes(b"kept")
    there = destination(folder / "report")
    (folder / "report").symlink_to(folder / "victim")
    with pytest.raises(OSError, match="something else stands there now"):
        there.write(b"new")
    assert (folder / "victim").read_bytes() == b"kept"
    assert names(folder) == ["report", "victim"]


@pytest.mark.usefixtures("either_way")
def test_a_file_that_appears_meanwhile_is_replaced_as_if_it_had_been_there(folder: Path) -> None:
    there = destination(folder / "seen", RECORDING)
    (folder / "seen").write_bytes(b"theirs")
    there.write(b"new")
    assert ((folder / "seen").read_bytes(), names(folder)) == (b"new", ["seen"])


def test_signals_at_any_moment_leave_the_old_or_the_new_file_and_nothing_else(folder: Path) -> None:
    script = (
        "import sys, signal\n"
        "from diagnose.files import Wanted, destinations\n"
        "def end(*_): raise KeyboardInterrupt\n"
        "for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP): signal.signal(number, end)\n"
        "import os\n"
        "if sys.argv[2] == 'named': del os.O_TMPFILE\n"
        "print('ready', flush=True)\n"
        "while True:\n"
        "    destinations([Wanted('--output', sys.argv[1], False)])[0].write(b'new' * 5000)\n"
    )
    for turn in range(30):
        (folder / "report").write_bytes(b"new" * 5000)
        run = subprocess.Popen(
            [sys.executable, "-c", script, folder / "report", ("named", "nameless")[turn % 2]],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert run.stdout is not None
        assert run.stdout.readline() == b"ready\n"
        time.sleep(0.002 * turn)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            run.send_signal(number)
        run.communicate(timeout=10)
        assert (names(folder), (folder / "report").stat().st_size) == (["report"], 15000)


# where it cannot be written


def test_a_missing_directory_is_known_at_once(folder: Path) -> None:
    assert refusal(folder / "no" / "such").endswith("No such file or directory")
    (folder / "file").write_bytes(b"")
    assert refusal(folder / "file" / "below").endswith("Not a directory")


def test_a_directory_is_no_file(folder: Path) -> None:
    assert refusal(folder).endswith("is a directory")
    assert refusal("/").endswith("is a directory")
    assert refusal(".").endswith("is a directory")
    assert refusal("..").endswith("is a directory")


def test_a_loop_of_links_ends(folder: Path) -> None:
    (folder / "loop").symlink_to(folder / "loop")
    assert "symbolic links" in refusal(folder / "loop")


def test_a_name_that_is_too_long_is_one_line(folder: Path) -> None:
    there = folder / ("x" * 300)
    assert refusal(there).endswith("File name too long")


def test_a_name_of_the_longest_kind_is_written(folder: Path) -> None:
    write(folder / ("x" * 255))
    assert (folder / ("x" * 255)).read_bytes() == b"new"


@as_root
def test_a_block_device_is_never_written(folder: Path) -> None:
    os.mknod(folder / "disk", 0o600 | stat.S_IFBLK, os.makedev(7, 200))
    assert refusal(folder / "disk").endswith("is a device")


@as_root
def test_a_device_that_acts_when_it_is_opened_is_not_opened(folder: Path) -> None:
    os.mknod(folder / "watchdog", 0o600 | stat.S_IFCHR, os.makedev(10, 130))
    assert refusal(folder / "watchdog").endswith("is a device")


# two outputs


@pytest.mark.parametrize("exists", [True, False])
@pytest.mark.parametrize(
    "spelt",
    ["report", "./report", "sub/../report", "link", "sub/link", "dirlink/report", "REPORT"],
)
def test_two_outputs_are_never_one_file_however_it_is_spelt(
    folder: Path, monkeypatch: pytest.MonkeyPatch, spelt: str, exists: bool
) -> None:
    monkeypatch.chdir(folder)
    (folder / "sub").mkdir()
    (folder / "link").symlink_to("report")
    (folder / "sub" / "link").symlink_to("../report")
    (folder / "dirlink").symlink_to(".")
    if exists:
        (folder / "report").write_bytes(b"old")
    with pytest.raises(UnwritableError, match=r"^--output 'report' and --record '.*' are the same file"):
        destinations([Wanted("--output", "report", False), Wanted("--record", spelt, True)])


def test_two_names_of_one_file_are_one_file(folder: Path) -> None:
    (folder / "a").write_bytes(b"old")
    (folder / "b").hardlink_to(folder / "a")
    with pytest.raises(UnwritableError, match="the same file"):
        destinations([Wanted("--pcap", str(folder / "a"), True), Wanted("--record", str(folder / "b"), True)])


def test_two_files_in_one_directory_are_two(folder: Path) -> None:
    both = destinations([Wanted("--output", str(folder / "a"), False), Wanted("--record", str(folder / "b"), True)])
    for one, data in zip(both, (b"1", b"2"), strict=True):
        one.write(data)
        one.close()
    assert ((folder / "a").read_bytes(), (folder / "b").read_bytes()) == (b"1", b"2")


# what is no regular file


def test_a_fifo_without_a_reader_is_one_line_and_no_wait(folder: Path) -> None:
    os.mkfifo(folder / "fifo")
    started = time.monotonic()
    assert refusal(folder / "fifo").endswith("is a FIFO from which no process reads")
    assert time.monotonic() - started < 1


def test_a_fifo_with_a_reader_is_written_and_stays_a_fifo(folder: Path) -> None:
    os.mkfifo(folder / "fifo")
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.append((folder / "fifo").read_bytes()))
    reader.start()
    data = b"x" * 200_000  # more than a pipe holds
    for _ in range(100):
        try:
            write(folder / "fifo", data)
            break
        except UnwritableError:  # the reader is not there yet
            time.sleep(0.02)
    reader.join(5)
    assert received == [data]
    assert stat.S_ISFIFO((folder / "fifo").stat().st_mode)


def test_a_fifo_whose_reader_takes_nothing_ends(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_PATIENCE", 0.1)
    os.mkfifo(folder / "fifo")
    idle = os.open(folder / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    try:
        with pytest.raises(OSError, match="has taken nothing"):
            write(folder / "fifo", b"x" * 200_000)
    finally:
        os.close(idle)


def test_null_and_full_stay_what_they_are() -> None:
    write("/dev/null")
    with pytest.raises(OSError, match="No space left"):
        write("/dev/full")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    assert stat.S_ISCHR(os.stat("/dev/full").st_mode)


def test_a_terminal_is_written() -> None:
    ours, theirs = os.openpty()
    try:
        write(os.ttyname(theirs), b"new\n")
        assert os.read(ours, 100) == b"new\r\n"
    finally:
        os.close(ours)
        os.close(theirs)


@pytest.mark.parametrize("name", ["/dev/fd/{}", "/proc/self/fd/{}", "{folder}/link"])
def test_a_descriptor_of_ours_is_written_where_it_stands(folder: Path, name: str) -> None:
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)  # as a shell hands it over
    (folder / "link").symlink_to(f"/dev/fd/{writing}")
    try:
        write(name.format(writing, folder=folder))
        assert os.read(reading, 100) == b"new"
    finally:
        os.close(reading)
        os.close(writing)


def test_a_descriptor_that_is_not_open_or_only_for_reading_is_one_line(folder: Path) -> None:
    (folder / "file").write_bytes(b"old")
    reading = os.open(folder / "file", os.O_RDONLY)
    os.set_inheritable(reading, True)
    try:
        assert refusal(f"/dev/fd/{reading}").endswith("it is open for reading only")
    finally:
        os.close(reading)
    refusal("/dev/fd/987")


def test_a_descriptor_of_our_own_making_is_not_to_be_had(folder: Path) -> None:
    ours = os.open(folder / "secret", os.O_RDWR | os.O_CREAT)
    try:
        assert refusal(f"/dev/fd/{ours}").endswith("Bad file descriptor")
    finally:
        os.close(ours)


# links


@pytest.mark.usefixtures("either_way")
def test_a_link_of_ones_own_is_written_through(folder: Path) -> None:
    (folder / "x").mkdir()
    (folder / "x" / "report").write_bytes(b"old")
    (folder / "report").symlink_to("x/report")
    (folder / "new").symlink_to(folder / "x" / "new")
    write(folder / "report")
    write(folder / "new")
    assert (folder / "report").is_symlink()
    assert ((folder / "x" / "report").read_bytes(), (folder / "x" / "new").read_bytes()) == (b"new", b"new")


@as_root
@pytest.mark.parametrize("as_caller", [None, ALICE])
@pytest.mark.parametrize("kind", [REPORT, RECORDING])
def test_another_user_s_link_is_not_followed_anywhere_on_the_way(
    folder: Path, monkeypatch: pytest.MonkeyPatch, as_caller: int | None, kind: tuple[str, bool]
) -> None:
    if as_caller is not None:
        monkeypatch.setenv("SUDO_UID", str(as_caller))
    (folder / "victim").mkdir()
    (folder / "victim" / "file").write_bytes(b"kept")
    trap = folder / "trap"
    trap.mkdir()
    trap.chmod(0o1777)
    for name, target in (
        ("file", folder / "victim" / "file"),
        ("new", folder / "victim" / "new"),
        ("dir", "../victim"),
    ):
        (trap / name).symlink_to(target)
        os.lchown(trap / name, MALLORY, MALLORY)
    for path in (trap / "file", trap / "new", trap / "dir" / "new", trap / "dir" / "file"):
        assert f"a link of another user (uid {MALLORY})" in refusal(path, kind)
    assert (names(folder / "victim"), (folder / "victim" / "file").read_bytes()) == (["file"], b"kept")


@as_root
@pytest.mark.usefixtures("either_way")
def test_a_hard_link_to_another_file_only_loses_its_name(folder: Path) -> None:
    (folder / "shadow").write_bytes(b"secret")
    (folder / "shadow").chmod(0o600)
    (folder / "report").hardlink_to(folder / "shadow")
    write(folder / "report")
    assert ((folder / "shadow").read_bytes(), (folder / "report").read_bytes()) == (b"secret", b"new")


@as_root
def test_a_fifo_of_another_user_gets_nothing_of_root_s(folder: Path) -> None:
    os.mkfifo(folder / "fifo")
    os.chown(folder / "fifo", MALLORY, MALLORY)
    listening = os.open(folder / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert refusal(folder / "fifo", RECORDING).endswith("is a FIFO of another user")
    finally:
        os.close(listening)


@as_root
@pytest.mark.usefixtures("either_way")
def test_root_s_file_in_another_user_s_directory_is_root_s_and_not_open_to_all(folder: Path) -> None:
    (folder / "theirs").mkdir()
    os.chown(folder / "theirs", MALLORY, MALLORY)
    (folder / "theirs" / "report").write_bytes(b"bait")
    os.chown(folder / "theirs" / "report", MALLORY, MALLORY)
    (folder / "theirs" / "report").chmod(0o666)
    write(folder / "theirs" / "report")
    status = (folder / "theirs" / "report").stat()
    assert (status.st_uid, stat.S_IMODE(status.st_mode) & 0o022) == (0, 0)


# under sudo


@pytest.fixture
def sudo(monkeypatch: pytest.MonkeyPatch) -> None:
    """Root, called by alice."""
    monkeypatch.setenv("SUDO_UID", str(ALICE))
    monkeypatch.setenv("SUDO_GID", str(ALICE + 1))


@as_root
@pytest.mark.usefixtures("sudo", "either_way")
@pytest.mark.parametrize("kind", [REPORT, RECORDING, ("--pcap", True)])
@pytest.mark.parametrize("owner", [0, ALICE])
def test_a_new_file_belongs_to_the_caller_of_sudo(folder: Path, kind: tuple[str, bool], owner: int) -> None:
    os.chown(folder, owner, owner)
    write(folder / "file", kind=kind)
    status = (folder / "file").stat()
    assert (status.st_uid, status.st_gid) == (ALICE, ALICE + 1)
    assert mode(folder / "file") == (0o600 if kind[1] else 0o666 & ~_umask())


def _umask() -> int:
    now = os.umask(0)
    os.umask(now)
    return now


@as_root
@pytest.mark.usefixtures("sudo")
def test_the_caller_s_own_file_is_replaced_and_stays_theirs(folder: Path) -> None:
    (folder / "file").write_bytes(b"old")
    (folder / "file").chmod(0o604)
    os.chown(folder / "file", ALICE, ALICE)
    write(folder / "file")
    status = (folder / "file").stat()
    assert (status.st_uid, stat.S_IMODE(status.st_mode), (folder / "file").read_bytes()) == (ALICE, 0o604, b"new")


@as_root
@pytest.mark.usefixtures("sudo")
@pytest.mark.parametrize("through", ["itself", "a link of the caller's"])
def test_sudo_makes_no_system_file_the_caller_s(folder: Path, through: str) -> None:
    (folder / "passwd").write_bytes(b"root")
    path = folder / "passwd"
    if through != "itself":
        path = folder / "link"
        path.symlink_to(folder / "passwd")
        os.lchown(path, ALICE, ALICE)
    for kind in (REPORT, RECORDING):
        assert "it belongs to uid 0" in refusal(path, kind)
    assert ((folder / "passwd").stat().st_uid, (folder / "passwd").read_bytes()) == (0, b"root")


@as_root
@pytest.mark.usefixtures("sudo")
def test_a_file_in_the_caller_s_own_directory_is_one_that_they_could_have_replaced(folder: Path) -> None:
    home = folder / "home"
    home.mkdir()
    os.chown(home, ALICE, ALICE)
    (home / "file").write_bytes(b"old")
    write(home / "file")
    assert (home / "file").stat().st_uid == ALICE


@as_root
@pytest.mark.usefixtures("sudo")
def test_a_sticky_or_unreachable_directory_is_not_the_caller_s_to_replace_files_in(folder: Path) -> None:
    for name, above, own in (("sticky", 0o755, 0o1777), ("unreachable", 0o700, 0o777)):
        (folder / name).mkdir()
        (folder / name).chmod(above)
        there = folder / name / "there"
        there.mkdir()
        there.chmod(own)
        (there / "file").write_bytes(b"old")
        assert "it belongs to uid 0" in refusal(there / "file")


@as_root
@pytest.mark.parametrize("value", ["", "x", "-1", "4294967295", "99999999999", "１２"])
def test_a_caller_that_is_no_user_is_none(folder: Path, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("SUDO_UID", value)
    write(folder / "file")
    assert (folder / "file").stat().st_uid == 0


# as an ordinary user


def as_user(work: Callable[[], None]) -> str:
    """Does it as mallory, in a child; what it raised."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setresgid(MALLORY, MALLORY, MALLORY)
            os.setresuid(MALLORY, MALLORY, MALLORY)
            work()
        except BaseException as error:  # noqa: BLE001 - the parent judges
            os.write(writing, str(error).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as told:
        text = told.read().decode()
    os.waitpid(child, 0)
    return text


@as_root
def test_a_variable_makes_nobody_the_caller_of_sudo(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDO_UID", str(ALICE))
    folder.chmod(0o777)
    assert as_user(lambda: write(folder / "file")) == ""
    assert (folder / "file").stat().st_uid == MALLORY


@as_root
@pytest.mark.parametrize(
    ("directory", "file", "owner", "why"),
    [
        (0o755, 0o666, 0, "its directory does not let it be replaced at once; let the shell write it"),
        (0o777, 0o644, 0, "Permission denied"),
        (0o1777, 0o666, 0, "only its owner may replace it"),
        (0o755, None, 0, "Permission denied (its directory takes no new file)"),
        (0o700, None, 0, "Permission denied"),
    ],
)
def test_what_an_ordinary_user_may_not_replace_stays(
    folder: Path, directory: int, file: int | None, owner: int, why: str
) -> None:
    there = folder / "there"
    there.mkdir()
    if file is not None:
        (there / "file").write_bytes(b"kept")
        (there / "file").chmod(file)
    there.chmod(directory)
    assert why in as_user(lambda: write(there / "file"))
    assert names(there) == (["file"] if file is not None else [])
    assert file is None or (there / "file").read_bytes() == b"kept"


@as_root
def test_an_ordinary_user_does_not_write_through_another_user_s_link(folder: Path) -> None:
    folder.chmod(0o1777)
    (folder / "mine").mkdir()
    os.chown(folder / "mine", MALLORY, MALLORY)
    (folder / "report").symlink_to("mine/authorized_keys")
    os.lchown(folder / "report", ALICE, ALICE)
    assert "a link of another user" in as_user(lambda: write(folder / "report"))
    assert names(folder / "mine") == []


@as_root
def test_a_read_only_file_system_is_called_that(folder: Path) -> None:
    (folder / "file").write_bytes(b"kept")
    subprocess.run(["mount", "--bind", folder, folder], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True)
        assert refusal(folder / "file").endswith("Read-only file system")
        assert refusal(folder / "new").endswith("Read-only file system")
    finally:
        subprocess.run(["umount", folder], check=True)
