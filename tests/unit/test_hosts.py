"""The hosts file and the resolver's other files, by the rules of the C library; literals; edits in place."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from diagnose.analysis import hosts_edit
from diagnose.model.fact import Fact, Known, Reason, Unknown
from diagnose.model.finding import Command
from diagnose.model.names import HostsEntry, HostsFile, Resolution
from diagnose.parse.container import of_containerenv, of_mounts, root_is_an_image
from diagnose.parse.hosts import about, parse_hosts, starts_with_bom
from diagnose.parse.nsswitch import (
    parse_gai,
    parse_nameservers,
    parse_nsswitch_hosts,
    quoted_hosts_line,
    reads_files,
)
from diagnose.probes import names

ID = "0123456789abcdef" * 4


def lines(content: bytes) -> list[tuple[int, str, tuple[str, ...], bool, bool]]:
    """Line, address, names, commented, valid."""
    return [(e.line, e.address, e.names, e.commented, e.valid) for e in parse_hosts(content)]


def file(content: bytes) -> HostsFile:
    """A readable hosts file with this content."""
    return HostsFile("/etc/hosts", 0o644, 0, True, starts_with_bom(content), parse_hosts(content))


def test_lines_map_names_and_a_comment_ends_a_line() -> None:
    assert lines(b"127.0.0.1\tlocalhost  box # 10.0.0.1 other\n::1 localhost\n") == [
        (1, "127.0.0.1", ("localhost", "box"), False, True),
        (2, "::1", ("localhost",), False, True),
    ]


def test_blank_lines_leading_blanks_carriage_returns_and_a_missing_last_newline_do_no_harm() -> None:
    assert lines(b"\n  127.0.0.1 localhost\r\n\n::1 localhost") == [
        (2, "127.0.0.1", ("localhost",), False, True),
        (4, "::1", ("localhost",), False, True),
    ]


def test_a_line_behind_a_hash_is_kept_as_commented_and_prose_is_not() -> None:
    content = b"# 127.0.0.1 localhost\n##::1 localhost # why\n# The following lines are for IPv6\n"
    assert lines(content) == [
        (1, "127.0.0.1", ("localhost",), True, True),
        (2, "::1", ("localhost",), True, True),
    ]
    assert not file(content).mapping("localhost")


@pytest.mark.parametrize("address", ["127.0.0.256", "localhost", "127.1", "127.0.0.01", "127.0.0.1:80"])
def test_a_line_without_an_address_in_front_maps_nothing(address: str) -> None:
    hosts = file(f"{address} name 127.0.0.1\n".encode())
    assert hosts.entries == (
        HostsEntry(1, address, ("name", "127.0.0.1"), valid=False, text=f"{address} name 127.0.0.1"),
    )
    assert not hosts.mapping("name")


def test_a_byte_order_mark_spoils_the_first_line_only() -> None:
    hosts = file(b"\xef\xbb\xbf127.0.0.1 localhost\n127.0.0.1 box\n")
    assert hosts.bom
    assert not hosts.mapping("localhost")
    assert [e.line for e in hosts.mapping("BOX")] == [2]


def test_bytes_that_are_no_text_become_escapes() -> None:
    assert lines(b"127.0.0.1 caf\xe9\x1b[2J\n") == [(1, "127.0.0.1", ("caf\\xe9\x1b[2J",), False, True)]


def test_a_line_without_a_name_maps_nothing() -> None:
    assert lines(b"127.0.0.1\n127.0.0.1 # localhost\n") == []


@pytest.mark.parametrize(
    ("content", "services"),
    [
        (b"passwd: files\nhosts: files dns\n", ("files", "dns")),
        (b"hosts:files mdns4_minimal [NOTFOUND=return] dns # x\n", ("files", "mdns4_minimal", "dns")),
        (b"hosts: dns [!UNAVAIL=return TRYAGAIN=continue]files\n", ("dns", "files")),
        (b"hosts: dns\n  hosts : files\n", ("files",)),
        (b"#hosts: files\nhostsx: dns\n", ()),
    ],
)
def test_the_hosts_line_of_nsswitch_is_its_services_in_order(content: bytes, services: tuple[str, ...]) -> None:
    assert parse_nsswitch_hosts(content) == services


@pytest.mark.parametrize(
    ("content", "quoted"),
    [
        (b"hosts:  files mdns4_minimal [NOTFOUND=return] dns\n", "hosts:  files mdns4_minimal [NOTFOUND=return] dns"),
        (b"hosts:\tdns [!UNAVAIL=return]\tfiles\r\n", "hosts:\tdns [!UNAVAIL=return]\tfiles"),
        (b"hosts: files [SUCCESS=continue] dns # as it was", "hosts: files [SUCCESS=continue] dns # ***"),
        (b"hosts: dns # files password=hunter2", "hosts: dns # files ***"),
        (b"hosts: files\n hosts : dns [ tryagain = return ]\n", "hosts : dns [ tryagain = return ]"),
        (b"#hosts: files\nhosts\nnetworks: files\n", None),
        (b"", None),
    ],
)
def test_the_hosts_line_of_nsswitch_is_quoted_as_it_stands(content: bytes, quoted: str | None) -> None:
    assert quoted_hosts_line(content) == quoted


@pytest.mark.parametrize(
    ("line", "reads"),
    [
        ("hosts: files dns", True),
        ("hosts: dns # files", True),
        ("hosts: dns #files", False),
        ("hosts: dns [files=return]", False),
        ("hosts: dns", False),
    ],
)
def test_a_hosts_line_that_may_read_the_file_is_not_said_to_skip_it(line: str, reads: bool) -> None:
    assert reads_files(line) is reads


@pytest.mark.parametrize(
    ("content", "quoted"),
    [
        (b"127.0.0.1\tlocalhost  box # mine\n", "127.0.0.1\tlocalhost  box"),
        (b"#127.0.0.1 localhost\n", "#127.0.0.1 localhost"),
        (b"##  127.0.0.1 localhost # off\n", "##  127.0.0.1 localhost"),
        (b"localhost 127.0.0.1\r\n", "localhost 127.0.0.1"),
    ],
)
def test_a_line_of_the_hosts_file_is_quoted_as_it_stands(content: bytes, quoted: str) -> None:
    (entry,) = parse_hosts(content)
    assert entry.quoted == quoted


def test_a_line_of_an_older_recording_is_put_together_from_its_parts() -> None:
    assert HostsEntry(3, "127.0.0.1", ("box", "b"), commented=True).quoted == "# 127.0.0.1 box b"


def test_name_servers_are_the_lines_that_start_with_the_keyword() -> None:
    content = (
        b"# nameserver 1.1.1.1\nnameserver 127.0.0.53\nnameserver\t::1 # x\n nameserver 9.9.9.9\nnameserverx 8.8.8.8\n"
    )
    assert parse_nameservers(content) == ("127.0.0.53", "::1")


def test_gai_conf_is_its_active_lines() -> None:
    assert parse_gai(b"#precedence ::1/128 50\n\nprecedence  ::ffff:0:0/96\t100 # v4\n") == (
        "precedence ::ffff:0:0/96 100",
    )


def known(fact: Fact[Resolution]) -> Resolution:
    """The resolution, which must be there."""
    assert isinstance(fact, Known), fact
    return fact.value


def asked(host: str, *, passive: bool = False) -> Fact[Resolution]:
    """What one host resolves to; nobody may be asked."""

    def nobody(hosts: object, deadline: float) -> dict[str, Fact[Resolution]]:
        raise AssertionError(f"{hosts} is no literal")

    return names.resolve([host], time.monotonic() + 2, passive, nobody)[host]


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("::1", "::1"),
        ("0:0:0:0:0:0:0:1", "::1"),
        ("FE80::A", "fe80::a"),
        ("::ffff:127.0.0.1", "::ffff:127.0.0.1"),
    ],
)
def test_a_literal_is_read_without_asking_anyone(host: str, address: str) -> None:
    found = known(asked(host))
    assert [one.address for one in found.addresses] == [address]
    assert (found.literal, found.odd_literal, found.source, found.error) == (True, False, "literal", None)


@pytest.mark.parametrize(
    ("host", "address"),
    [("127.1", "127.0.0.1"), ("0", "0.0.0.0"), ("0177.0.0.1", "127.0.0.1"), ("2130706433", "127.0.0.1")],
)
def test_an_odd_literal_is_what_the_c_library_makes_of_it(host: str, address: str) -> None:
    found = known(asked(host))
    assert [one.address for one in found.addresses] == [address]
    assert (found.literal, found.odd_literal) == (False, True)


@pytest.mark.parametrize("host", ["127.0.0.256", "127.0.0.1.1", "localhost", "::g"])
def test_what_no_rule_reads_as_an_address_is_a_name(host: str) -> None:
    with pytest.raises(AssertionError, match="is no literal"):
        asked(host)


def test_a_zone_is_kept_and_one_without_its_interface_is_an_error() -> None:
    assert known(asked("fe80::1%lo")).addresses[0].address == "fe80::1%lo"
    missing = known(asked("fe80::1%nope"))
    assert (missing.literal, missing.error, missing.addresses) == (True, "EAI_NONAME", ())


def write(folder: Path, monkeypatch: pytest.MonkeyPatch, content: bytes) -> Path:
    """A hosts file of the test's own for the probe."""
    path = folder / "hosts"
    path.write_bytes(content)
    monkeypatch.setattr(names, "HOSTS", str(path))
    return path


def test_passive_takes_names_from_the_hosts_file_and_from_nowhere_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, monkeypatch, b"127.0.0.1 localhost box\n10.0.0.7 box\n127.0.0.1 BOX\n")
    found = known(asked("Box", passive=True))
    assert [one.address for one in found.addresses] == ["127.0.0.1", "10.0.0.7"]
    assert found.source == "hosts file"
    unknown = asked("example.test", passive=True)
    assert isinstance(unknown, Unknown)
    assert unknown.reason is Reason.PASSIVE


@pytest.mark.parametrize(("available", "first"), [(True, "::1"), (False, "127.0.0.1")])
def test_passive_puts_ipv6_first_where_loopback_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, available: bool, first: str
) -> None:
    write(tmp_path, monkeypatch, b"127.0.0.1 localhost\n::1 localhost\n")
    monkeypatch.setattr(names, "_has_ipv6_loopback", lambda: available)
    assert known(asked("localhost", passive=True)).addresses[0].address == first


def test_a_hosts_file_that_is_absent_or_no_file_is_known_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(names, "HOSTS", str(tmp_path / "none"))
    absent = names.hosts_file()
    assert isinstance(absent, Known)
    assert (absent.value.exists, absent.value.readable) == (False, False)
    monkeypatch.setattr(names, "HOSTS", str(tmp_path))
    directory = names.hosts_file()
    assert isinstance(directory, Known)
    assert (directory.value.kind, directory.value.readable, directory.value.mounted) == ("a directory", False, False)


def test_a_hosts_file_that_is_too_large_is_unknown_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "HOSTS", str(tmp_path / "hosts"))
    with (tmp_path / "hosts").open("wb") as file:
        file.truncate(1 << 30)
    for fact in (names.hosts_file(), names.files(5)[0]):
        assert isinstance(fact, Unknown)
        assert "1073741824 bytes" in fact.detail


def test_configuration_files_that_are_absent_are_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NSSWITCH", "RESOLV", "GAI"):
        monkeypatch.setattr(names, name, str(tmp_path / name))
    found = names.configuration()
    assert isinstance(found, Known)
    assert (found.value.nsswitch_hosts, found.value.nameservers, found.value.gai_lines) == ((), (), ())


def test_without_a_fork_names_are_asked_for_in_threads() -> None:
    ends = time.monotonic() + 3
    found = names.ask_in_threads(["localhost"], ends)["localhost"]
    assert known(found).host == "localhost"
    assert known(found).addresses


def test_a_thread_that_hangs_is_left_behind_at_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(host: str) -> Resolution:
        time.sleep(1.0 if host == "slow.test" else 0)
        return Resolution("", (), 0.0, "EAI_NONAME")

    monkeypatch.setattr(names, "_timed", hang)
    started = time.monotonic()
    found = names.ask_in_threads(["slow.test", "fast.test"], started + 0.1)
    assert time.monotonic() - started < 0.9
    assert known(found["slow.test"]).error == "DEADLINE"
    assert known(found["fast.test"]).error == "EAI_NONAME"


def execute(*commands: Command) -> None:
    """As printed, but on the test's own file, so without root."""
    for command in commands:
        subprocess.run(command.argv, check=True)


@pytest.mark.parametrize("before", ["", "10.0.0.1 box\n", "10.0.0.1 box", "# 127.0.0.1 localhost\n"])
def test_appending_a_line_works_on_any_file_and_its_undo_takes_it_back(tmp_path: Path, before: str) -> None:
    path = tmp_path / "hosts"
    path.write_text(before)
    inode = path.stat().st_ino
    remedy = hosts_edit.append(str(path), "127.0.0.1 localhost", "Add it")
    execute(*remedy.commands)
    assert [e.line for e in file(path.read_bytes()).mapping("localhost")]
    assert path.stat().st_ino == inode, "the file was replaced, which fails on a mount point"
    execute(*remedy.undo)
    assert parse_hosts(path.read_bytes()) == parse_hosts(before.encode())


def test_a_missing_file_is_created_readable_for_everybody(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    execute(*hosts_edit.append(str(path), "127.0.0.1 localhost", "Create it", create=True).commands)
    assert path.stat().st_mode & 0o777 == 0o644
    assert file(path.read_bytes()).mapping("localhost")


def test_the_byte_order_mark_is_taken_out_once_and_put_back(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    before = b"\xef\xbb\xbf127.0.0.1 localhost\n10.0.0.1 box\n"
    path.write_bytes(before)
    remedy = hosts_edit.remove_byte_order_mark(str(path), "127.0.0.1 localhost", stays=True)
    execute(*remedy.commands, *remedy.commands)
    assert path.read_bytes() == before[3:]
    execute(*remedy.undo)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("10.0.0.1 localhost\n", "# 10.0.0.1 localhost\n127.0.0.1 localhost\n"),
        ("10.0.0.1 box LocalHost\n::2 localhost\n", "10.0.0.1 box\n# ::2 localhost\n127.0.0.1 localhost\n"),
        ("10.0.0.1 localhost\n127.0.0.1 localhost\n", "# 10.0.0.1 localhost\n127.0.0.1 localhost\n"),
    ],
)
def test_a_name_is_taken_home_and_the_undo_sends_it_away_again(tmp_path: Path, before: str, after: str) -> None:
    path = tmp_path / "hosts"
    path.write_text(before)
    mapping = file(before.encode()).mapping("localhost")
    strangers = [e for e in mapping if e.address != "127.0.0.1"]
    remedy = hosts_edit.take_name_home(
        str(path), "localhost", strangers, add=len(strangers) == len(mapping), stays=True
    )
    execute(*remedy.commands)
    assert path.read_text() == after
    execute(*remedy.undo)
    assert path.read_text() == before


@pytest.mark.parametrize("name", ["a'b", "$(id)", "a;b", "-e", "a\nb", "a|b", "a\\b", "a&b"])
def test_a_name_that_a_shell_could_take_for_more_is_an_edit_and_no_command(name: str) -> None:
    remedy = hosts_edit.append("/etc/hosts", f"{name} x", "Add it")
    home = hosts_edit.take_name_home("/etc/hosts", "x", [HostsEntry(1, name, ("x",))], add=True, stays=True)
    assert (remedy.commands, remedy.undo, home.commands, home.undo) == ((), (), (), ())
    assert remedy.edits
    assert home.edits


def test_windows_gets_edits_and_no_commands() -> None:
    remedy = hosts_edit.append(r"C:\Windows\System32\drivers\etc\hosts", "127.0.0.1 localhost", "Add it")
    assert not remedy.commands
    assert remedy.edits


@pytest.mark.parametrize(
    ("root", "point", "engine"),
    [
        (f"/var/lib/docker/containers/{ID}/hostname", "/etc/hostname", "docker"),
        (f"/containers/{ID}/resolv.conf", "/etc/resolv.conf", "docker"),
        (f"/containers/storage/overlay-containers/{ID}/userdata/hosts", "/etc/hosts", "podman"),
        (f"/io.containerd.grpc.v1.cri/sandboxes/{ID}/hostname", "/etc/hostname", "containerd"),
    ],
)
def test_the_engine_s_mounts_over_etc_name_the_container(root: str, point: str, engine: str) -> None:
    mounts = f"1 0 0:5 / / rw - overlay overlay rw\n22 1 254:0 {root} {point} rw,relatime - ext4 /dev/vda rw\n"
    found = of_mounts(mounts)
    assert found
    assert (found.engine, found.id) == (engine, ID)


def test_the_mounts_of_the_host_name_no_container() -> None:
    mounts = (
        "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n"
        f"9 1 0:9 / /var/lib/docker/overlay2/{ID}/merged rw - overlay overlay rw\n"
        "7 1 8:1 /home/me/hosts /etc/hosts rw - ext4 /dev/sda1 rw\n"
        "a line that is none\n"
    )
    assert of_mounts(mounts) is None
    assert not root_is_an_image(mounts)


def test_the_topmost_mount_on_root_tells_whether_it_is_an_image() -> None:
    assert root_is_an_image("1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 0:5 / / rw - overlay overlay rw\n")
    assert root_is_an_image("1 0 8:1 /images/x / rw - ext4 /dev/sda1 rw\n")
    assert not root_is_an_image("")


def test_podman_s_marker_may_be_empty_or_name_the_container() -> None:
    assert of_containerenv("").id == ""
    named = of_containerenv('engine="podman-4.3.1"\nname="web"\nid="abc"\nrootless=1\n')
    assert (named.engine, named.id, named.name) == ("podman", "abc", "web")


@pytest.mark.parametrize(
    ("content", "kept"),
    [
        (b"127.0.0.1 localhost box", ("127.0.0.1", "localhost", "box")),
        (b"# 127.0.0.1 db.test hunter2 pw", ("127.0.0.1", "db.test", "***", "***")),
        (b"hunter2 db.test x", ("***", "db.test", "***")),
        (b"127.0.0,1 db.test", ("127.0.0,1", "db.test")),
        (b"db.test 127.0.0.1", ("db.test", "127.0.0.1")),
        (b"\xef\xbb\xbf127.0.0.1 localhost box", ("\ufeff127.0.0.1", "localhost", "box")),
    ],
)
def test_of_words_that_are_no_names_to_glibc_only_those_asked_about_are_kept(
    content: bytes, kept: tuple[str, ...]
) -> None:
    file = HostsFile("/etc/hosts", 0o644, 0, True, False, parse_hosts(content))
    (entry,) = about(file, "DB.test").entries
    assert (entry.address, *entry.names) == kept


def test_lines_that_mean_nothing_to_the_resolver_are_not_kept() -> None:
    assert parse_gai(b"precedence ::1/128 50\nhunter2 pw\nlabel hunter2 1\nreload yes\n") == (
        "precedence ::1/128 50",
        "***",
        "***",
        "reload yes",
    )
    assert parse_nameservers(b"nameserver hunter2\nnameserver fe80::1%eth0\n") == ("***", "fe80::1%eth0")
