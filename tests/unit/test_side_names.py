"""The names of another side: resolv.conf, nsswitch.conf, DNS and the order of addresses, without that side's code."""

from __future__ import annotations

import time

import pytest

from diagnose.analysis.address_order import Reach, in_order, policy
from diagnose.model.fact import Fact, Known, Reason, Unknown
from diagnose.model.names import Resolution
from diagnose.parse.nsswitch import Service, parse_services
from diagnose.parse.resolv import ResolvConf, parse_resolv
from diagnose.probes import side_dns, side_names
from diagnose.probes.side_dns import Answer, Ending
from diagnose.probes.side_files import FILES, GAI, HOST_CONF, HOSTS, NSSWITCH, RESOLV, Reader, SideFile, SideFiles
from tests.nameserver import SERVFAIL, SILENT, TRUNCATED, serving

QUICK = ResolvConf(timeout=1, attempts=1)

# resolv.conf


def test_resolv_conf_is_read_as_glibc_reads_it() -> None:
    content = (
        b"# nameserver 9.9.9.9\n;nameserver 9.9.9.8\n nameserver 9.9.9.7\nnameserver\tno-address\n"
        b"nameserver 127.0.0.11\nnameserver ::1\nsearch first.example\ndomain one.example two.example\n"
        b"search a.example b.example\noptions ndots:0 timeout:3\noptions attempts:99 use-vc\n"
    )
    assert parse_resolv(content) == ResolvConf(
        servers=("127.0.0.11", "::1"),
        search=("a.example", "b.example"),
        ndots=0,
        timeout=3,
        attempts=5,
        by_tcp=True,
    )


def test_an_empty_resolv_conf_asks_this_machine_as_usual() -> None:
    assert parse_resolv(b"") == ResolvConf(("127.0.0.1",), (), 1, 5, 2)


def test_only_the_first_three_servers_count() -> None:
    content = b"".join(b"nameserver 10.0.0.%d\n" % number for number in range(9))
    assert parse_resolv(content).servers == ("10.0.0.0", "10.0.0.1", "10.0.0.2")


@pytest.mark.parametrize("option", [b"ndots:", b"ndots:x", b"ndots:-1", b"ndots:99999999999999999999", b"timeout:0"])
def test_an_option_that_is_no_number_is_as_if_it_were_not_there(option: bytes) -> None:
    assert parse_resolv(b"options " + option) == ResolvConf()


def test_bytes_that_are_no_text_do_no_harm() -> None:
    assert parse_resolv(b"\xff\xfe nameserver\x00\nnameserver 10.0.0.1\n").servers == ("10.0.0.1",)


# nsswitch.conf


def test_an_action_belongs_to_the_service_before_it() -> None:
    services = parse_services(b"hosts: files mdns4_minimal [NOTFOUND=return] resolve [!UNAVAIL=return] dns\n")
    assert [one.name for one in services] == ["files", "mdns4_minimal", "resolve", "dns"]
    assert [one.after("notfound") for one in services] == ["continue", "return", "return", "continue"]
    assert [one.after("unavail") for one in services] == ["continue", "continue", "continue", "continue"]
    assert services[2].after("tryagain") == "return"
    assert services[0].after("success") == "return"


def test_several_actions_stand_in_one_bracket_or_in_several() -> None:
    [one] = parse_services(b"hosts:dns[SUCCESS=continue notfound=return][ tryagain = return ]\n")
    assert (one.after("success"), one.after("notfound")) == ("continue", "return")


def test_the_last_hosts_line_counts_and_no_line_is_no_service() -> None:
    assert parse_services(b"hosts: files\nhosts: dns\n") == (Service("dns"),)
    assert parse_services(b"passwd: files\n# hosts: dns\n#hosts: dns\n") == ()


def test_what_stands_behind_a_hash_counts_or_not_by_the_version_of_glibc() -> None:
    assert [one.name for one in parse_services(b"hosts: files # dns\n")] == ["files", "#", "dns"]


# DNS


def test_both_families_are_asked_for_and_ipv4_comes_first() -> None:
    with serving({"db.": ["fd00::1", "10.0.0.1"]}) as (zone, port):
        answer = side_dns.ask("db", QUICK, port=port)
    assert answer == Answer(Ending.FOUND, ("10.0.0.1", "fd00::1"))
    assert zone.asked == ["db. A", "db. AAAA"]


def test_no_aaaa_asks_for_ipv4_only() -> None:
    with serving({"db.": ["10.0.0.1", "fd00::1"]}) as (_, port):
        conf = ResolvConf(timeout=1, attempts=1, no_aaaa=True)
        assert side_dns.ask("db", conf, port=port).addresses == ("10.0.0.1",)


def test_an_alias_is_followed() -> None:
    with serving({"db.": ["real.example."], "real.example.": ["10.0.0.1"]}) as (_, port):
        assert side_dns.ask("db", QUICK, port=port).addresses == ("10.0.0.1",)


def test_an_answer_that_is_cut_short_is_asked_for_by_tcp() -> None:
    with serving({"db.": [TRUNCATED, "10.0.0.1"]}) as (_, port):
        assert side_dns.ask("db", QUICK, port=port).addresses == ("10.0.0.1",)


@pytest.mark.parametrize(
    ("host", "ndots", "musl", "asked"),
    [
        ("db", 1, False, ["db.a.example.", "db.b.example.", "db."]),
        ("db", 0, False, ["db.", "db.a.example.", "db.b.example."]),
        ("db.x", 1, False, ["db.x.", "db.x.a.example.", "db.x.b.example."]),
        ("db.x", 2, False, ["db.x.a.example.", "db.x.b.example.", "db.x."]),
        ("db.", 1, False, ["db."]),
        ("db.x", 1, True, ["db.x."]),
        ("db", 1, True, ["db.a.example.", "db.b.example.", "db."]),
    ],
)
def test_search_domains_are_tried_by_the_dots_of_the_name(host: str, ndots: int, musl: bool, asked: list[str]) -> None:
    conf = ResolvConf(search=("a.example", "b.example"), ndots=ndots, timeout=1, attempts=1, no_aaaa=True)
    with serving({}) as (zone, port):
        assert side_dns.ask(host, conf, musl=musl, port=port) == Answer(Ending.NOT_FOUND)
    assert [one.removesuffix(" A") for one in zone.asked] == asked


def test_a_name_without_an_address_is_told_from_one_that_is_not_there() -> None:
    with serving({"db.": []}) as (_, port):
        assert side_dns.ask("db", QUICK, port=port) == Answer(Ending.NO_DATA)


def test_the_next_server_is_asked_where_one_fails_or_is_not_there() -> None:
    conf = ResolvConf(servers=("127.0.0.9", "127.0.0.1"), timeout=1, attempts=1)
    with serving({"db.": ["10.0.0.1"]}) as (_, port):
        assert side_dns.ask("db", conf, port=port).addresses == ("10.0.0.1",)
    with serving({"db.": [SERVFAIL]}) as (_, port):
        assert side_dns.ask("db", QUICK, port=port) == Answer(Ending.SERVER_FAILED)


def test_a_server_that_says_nothing_is_waited_for_once_and_not_for_each_family() -> None:
    started = time.monotonic()
    with serving({"db.": [SILENT]}) as (zone, port):
        assert side_dns.ask("db", QUICK, port=port) == Answer(Ending.SILENT)
    assert zone.asked == ["db. A"]
    assert time.monotonic() - started < 1.8


@pytest.mark.parametrize("host", ["a" * 64, "a..b", f"{'a.' * 130}b", "\\", "xn--\udcff"])
def test_what_cannot_be_a_name_is_not_asked_for(host: str) -> None:
    with serving({}) as (zone, port):
        assert side_dns.ask(host, QUICK, port=port).ending is Ending.NOT_FOUND
    assert len(zone.asked) <= 2


# the whole answer


def files(musl: bool = False, reader: Reader | None = None, mode: int = 0o644, **contents: bytes) -> SideFiles:
    """A side with these files: hosts, nsswitch, resolv, gai, host_conf."""
    paths = {"hosts": HOSTS, "nsswitch": NSSWITCH, "resolv": RESOLV, "gai": GAI, "host_conf": HOST_CONF}
    found: dict[str, Fact[SideFile]] = {path: Known(SideFile(path)) for path in FILES}
    for name, content in contents.items():
        found[paths[name]] = Known(SideFile(paths[name], True, mode, 0, 0, content))
    return SideFiles(found, musl, "container web", reader)


def asked(side: SideFiles, host: str) -> Fact[Resolution]:
    return side_names.ask(side, [host], time.monotonic() + 5)[host]


def found(side: SideFiles, host: str) -> list[str]:
    fact = asked(side, host)
    assert isinstance(fact, Known), fact
    assert fact.value.error is None, fact
    return [one.address for one in fact.value.addresses]


NO_DNS = b"nameserver 127.0.0.1\noptions timeout:1 attempts:1\n"
MULTI = b"multi on\n"


def test_the_hosts_file_is_asked_first_where_nothing_else_is_said() -> None:
    assert found(files(hosts=b"127.0.0.1 db\n"), "DB") == ["127.0.0.1"]


def test_glibc_takes_the_first_line_of_a_name_only_where_host_conf_does_not_say_multi() -> None:
    hosts = b"127.0.0.1 localhost\n127.0.0.2 localhost\n"
    assert found(files(hosts=hosts), "localhost") == ["127.0.0.1"]
    assert found(files(hosts=hosts, host_conf=MULTI), "localhost") == ["127.0.0.1", "127.0.0.2"]


def test_musl_takes_every_line_and_compares_by_the_letter_and_knows_no_nsswitch() -> None:
    side = files(musl=True, hosts=b"127.0.0.1 db\n127.0.0.2 db\n", nsswitch=b"hosts: sss\n", resolv=NO_DNS)
    assert found(side, "db") == ["127.0.0.1", "127.0.0.2"]
    fact = asked(side, "DB")
    assert isinstance(fact, Known)
    assert fact.value.error == "EAI_AGAIN"


def test_a_module_before_the_answer_makes_it_uncertain_and_one_behind_it_does_not() -> None:
    before = asked(files(hosts=b"127.0.0.1 db\n", nsswitch=b"hosts: sss files\n"), "db")
    behind = asked(files(hosts=b"127.0.0.1 db\n", nsswitch=b"hosts: files sss\n"), "db")
    assert isinstance(before, Known)
    assert isinstance(behind, Known)
    assert (before.value.doubts, behind.value.doubts) == (("sss",), ())


def test_no_answer_is_no_answer_where_a_module_was_not_asked() -> None:
    fact = asked(files(hosts=b"", nsswitch=b"hosts: files myhostname\n"), "db")
    assert isinstance(fact, Unknown)
    assert fact.reason is Reason.NOT_VISIBLE
    assert "myhostname" in fact.detail


def test_multicast_dns_has_no_say_but_for_names_below_local() -> None:
    side = files(hosts=b"127.0.0.1 db db.local\n", nsswitch=b"hosts: mdns4_minimal [NOTFOUND=return] files\n")
    for host, doubts in (("db", ()), ("db.local", ("mdns4_minimal",))):
        fact = asked(side, host)
        assert isinstance(fact, Known)
        assert fact.value.doubts == doubts


def test_dns_is_not_asked_where_an_action_ends_the_search() -> None:
    fact = asked(files(hosts=b"", nsswitch=b"hosts: files [NOTFOUND=return] dns\n", resolv=NO_DNS), "db")
    assert isinstance(fact, Known)
    assert fact.value.error == "EAI_NONAME"


def test_a_file_that_could_not_be_read_costs_the_names_and_nothing_is_put_in_its_place() -> None:
    side = files(hosts=b"127.0.0.1 db\n")
    side.files[NSSWITCH] = Unknown(Reason.NOT_VISIBLE, "/etc/nsswitch.conf is a FIFO: never opened")
    assert asked(side, "db") == side.files[NSSWITCH]


@pytest.mark.parametrize(
    ("reader", "mode", "reads"),
    [
        (Reader(1000, (1000,), False), 0o644, True),
        (Reader(1000, (1000,), False), 0o600, False),
        (Reader(1000, (0,), False), 0o640, True),
        (Reader(0, (0,), False), 0o040, False),
        (Reader(1000, (1000,), True), 0o000, True),
    ],
)
def test_a_hosts_file_counts_where_the_process_may_read_it(reader: Reader, mode: int, reads: bool) -> None:
    fact = side_names.hosts_file(files(reader=reader, mode=mode, hosts=b"127.0.0.1 db\n"))
    assert isinstance(fact, Known)
    assert (fact.value.readable, bool(fact.value.mapping("db"))) == (reads, reads)
    assert fact.value.shown == "/etc/hosts of container web"


def test_a_name_that_no_encoding_takes_is_an_error_of_its_own() -> None:
    fact = asked(files(hosts=b""), "ü" * 64)
    assert isinstance(fact, Known)
    assert fact.value.error == "EAI_IDN_ENCODE"


# the order of addresses


def ordered(*addresses: str, sources: dict[str, str | None] | None = None, gai: tuple[str, ...] = ()) -> list[str]:
    """In which order, where each is reached from itself unless it is said otherwise."""
    told = sources or {}
    return list(in_order([Reach(one, told.get(one, one)) for one in addresses], policy(gai)))


def test_ipv6_loopback_comes_first_where_there_is_one() -> None:
    assert ordered("127.0.0.1", "::1") == ["::1", "127.0.0.1"]
    assert ordered("127.0.0.1", "::1", sources={"::1": None}) == ["127.0.0.1", "::1"]


def test_gai_conf_may_prefer_ipv4() -> None:
    lines = ("precedence ::ffff:0:0/96 100",)
    assert ordered("::1", "127.0.0.1", gai=lines) == ["127.0.0.1", "::1"]


def test_a_private_ipv6_address_loses_to_ipv4_where_only_that_one_leads_there() -> None:
    sources: dict[str, str | None] = {"2001:db8::1": "fd00::2", "10.0.0.1": "10.0.0.2"}
    assert ordered("2001:db8::1", "10.0.0.1", sources=sources) == ["10.0.0.1", "2001:db8::1"]


def test_what_no_rule_tells_apart_stays_as_it_was() -> None:
    addresses = ("10.0.0.9", "10.0.0.1", "10.0.0.5")
    assert ordered(*addresses) == list(addresses)


def test_the_neighbour_with_the_longest_common_prefix_comes_first() -> None:
    reaches = [Reach(one, "172.18.0.2", 16) for one in ("172.18.0.9", "172.18.0.3", "172.18.0.128")]
    assert in_order(reaches, policy(())) == ("172.18.0.3", "172.18.0.9", "172.18.0.128")


@pytest.mark.parametrize("line", ["precedence nonsense 1", "precedence ::/0", "label ::/0 x", "", "scopev4 ::/200 1"])
def test_a_line_of_gai_conf_that_says_nothing_changes_nothing(line: str) -> None:
    assert policy((line,)) == policy(())
