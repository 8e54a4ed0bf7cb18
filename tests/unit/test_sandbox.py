"""sandbox: programs on the cgroup of either end, by the kernel's word or by exclusion."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from checks import CHECKS
from checks.sandbox import CHECK
from diagnose.engine import diagnose
from diagnose.model.attempt import Attempt, Drop, Outcome
from diagnose.model.cgroup import Cgroup, CgroupFilters, CgroupProgram, Hook, ListenerCgroup
from diagnose.model.fact import Fact, Known, Reason, Unknown
from diagnose.model.finding import Confidence, Finding, Risk
from diagnose.model.firewall import Shadow
from diagnose.model.network import Endpoint, TcpState
from diagnose.model.report import CheckOutcome
from diagnose.model.snapshot import Snapshot
from diagnose.parse.unified import Mount, directory, mounts, place
from tests.scenes import (
    ALICE,
    NEEDS_ROOT,
    denied,
    dialled,
    full_queue,
    listening,
    refused,
    roomy_queue,
    rows,
    rule,
    shadow,
    unanswered,
    walk_to,
    wanted,
)

HERE = "127.0.0.1:8080"
TOP = "/sys/fs/cgroup"
UNIT = f"{TOP}/system.slice/web.service"
SERVER = rows(listening(HERE))
CLEAN = shadow(walk_to("127.0.0.1", None, "accept"))
NO_FILTER, OWN_FILTER = Known(False), Known(True)
NOTHING_ELSE: Fact[tuple[str, ...]] = Known(())

SYN_AT_SERVER = Drop("SOCKET_FILTER", "tcp_v4_rcv")
SYN_AT_CLIENT = Drop("BPF_CGROUP_EGRESS", "ip_finish_output")
REPLY_AT_SERVER = Drop("BPF_CGROUP_EGRESS", "ip_finish_output", "reply")
REPLY_AT_CLIENT = Drop("SOCKET_FILTER", "tcp_v4_rcv", "reply")


def program(hook: Hook, name: str = "guard", attached: str | None = f"{TOP}/apps", number: int = 7) -> CgroupProgram:
    return CgroupProgram(hook, number, name, attached)


def filters(
    *,
    ours: tuple[CgroupProgram, ...] = (),
    theirs: tuple[CgroupProgram, ...] = (),
    own_filter: Fact[bool] = NO_FILTER,
    rivals: Fact[tuple[str, ...]] = NOTHING_ELSE,
) -> Fact[CgroupFilters]:
    listener = ListenerCgroup(1, Known(Cgroup(UNIT, theirs)), own_filter)
    return Known(CgroupFilters(Known(Cgroup(f"{TOP}/user.slice", ours)), (listener,), rivals))


def dropped(drop: Drop) -> Attempt:
    return unanswered(HERE, drops=Known((drop,)))


def silent(seen: Fact[CgroupFilters], attempt: Attempt | None = None, firewall: Fact[Shadow] = CLEAN) -> Snapshot:
    plain = dialled(HERE, attempt or unanswered(HERE), listeners=SERVER, cgroup_filters=seen)
    return replace(plain, firewall=firewall)


def forbidden(errno: str = "EPERM") -> Attempt:
    return replace(refused(HERE), outcome=Outcome.DENIED, errno=errno)


def said(snapshot: Snapshot) -> list[tuple[str, Confidence]]:
    return [(one.code, one.confidence) for one in CHECK.judge(snapshot) if isinstance(one, Finding)]


def missing(snapshot: Snapshot) -> list[str]:
    return [one.fact for one in CHECK.judge(snapshot) if not isinstance(one, Finding)]


def root(snapshot: Snapshot) -> Finding:
    found = diagnose(snapshot, CHECKS).root_cause
    assert found is not None
    return found


PROVEN = [("sandbox/cgroup-filter", Confidence.PROVEN)]
LIKELY = [("sandbox/cgroup-filter", Confidence.LIKELY)]
POSSIBLE = [("sandbox/cgroup-filter", Confidence.POSSIBLE)]

# silence, with the kernel's word


@pytest.mark.parametrize(
    ("drop", "seen", "what"),
    [
        (SYN_AT_SERVER, filters(theirs=(program(Hook.INGRESS),)), "connections to"),
        (SYN_AT_CLIENT, filters(ours=(program(Hook.EGRESS),)), "connections to"),
        (REPLY_AT_SERVER, filters(theirs=(program(Hook.EGRESS),)), "answers from"),
        (REPLY_AT_CLIENT, filters(ours=(program(Hook.INGRESS),)), "answers from"),
    ],
)
def test_the_filter_where_the_kernel_dropped_it_is_the_cause(drop: Drop, seen: Fact[CgroupFilters], what: str) -> None:
    found = root(silent(seen, dropped(drop)))
    assert (found.code, found.confidence) == PROVEN[0]
    assert found.title == f"guard (program 7) on apps drops {what} {HERE}"


def test_filters_of_the_other_end_or_direction_are_not_named() -> None:
    elsewhere = filters(ours=(program(Hook.INGRESS), program(Hook.EGRESS)), theirs=(program(Hook.EGRESS),))
    assert said(silent(elsewhere, dropped(SYN_AT_SERVER))) == []


@pytest.mark.parametrize("own_filter", [OWN_FILTER, Unknown(Reason.FAILED)])
def test_a_filter_of_the_socket_itself_leaves_it_likely(own_filter: Fact[bool]) -> None:
    seen = filters(theirs=(program(Hook.INGRESS),), own_filter=own_filter)
    assert said(silent(seen, dropped(SYN_AT_SERVER))) == LIKELY


def test_the_kernels_reason_names_the_hook_even_where_no_program_could_be_read() -> None:
    found = root(silent(Unknown(Reason.NOT_MOUNTED), dropped(SYN_AT_CLIENT)))
    assert (found.code, found.confidence) == PROVEN[0]
    assert found.title == f"A filter on the cgroup of the client drops connections to {HERE}"


def test_a_sockets_filter_alone_is_no_cgroups() -> None:
    assert said(silent(filters(), dropped(SYN_AT_SERVER))) == []
    assert said(silent(Unknown(Reason.NOT_MOUNTED), dropped(SYN_AT_SERVER))) == []


def test_a_drop_by_netfilter_clears_every_cgroup() -> None:
    seen = filters(ours=(program(Hook.EGRESS),), theirs=(program(Hook.INGRESS),))
    assert said(silent(seen, dropped(Drop("NETFILTER_DROP", "nft_do_chain")))) == []


def test_a_drop_in_tcp_without_a_reason_leaves_it_to_exclusion() -> None:
    seen = filters(theirs=(program(Hook.INGRESS),))
    on_an_old_kernel = dropped(Drop("NOT_SPECIFIED", "tcp_v4_rcv"))
    assert said(silent(seen, on_an_old_kernel)) == said(silent(seen)) == LIKELY


def test_an_old_kernel_s_only_reason_of_a_function_counts_as_its_word() -> None:
    seen = filters(ours=(program(Hook.EGRESS),))
    on_an_old_kernel = dropped(Drop("BPF_CGROUP_EGRESS", "ip_finish_output", inferred=True))
    assert said(silent(seen, on_an_old_kernel)) == PROVEN


def test_of_several_filters_none_is_singled_out() -> None:
    seen = filters(theirs=(program(Hook.INGRESS), program(Hook.INGRESS, number=8)))
    assert root(silent(seen, dropped(SYN_AT_SERVER))).title == (
        f"One of 2 filters on the cgroup of the server drops connections to {HERE}"
    )


# silence, by exclusion


def test_without_the_kernels_word_a_filter_and_clean_rules_make_it_likely() -> None:
    assert said(silent(filters(theirs=(program(Hook.INGRESS),)))) == LIKELY


def test_without_the_rules_it_is_possible_only() -> None:
    assert said(silent(filters(theirs=(program(Hook.INGRESS),)), firewall=NEEDS_ROOT)) == POSSIBLE


def test_a_walk_in_doubt_leaves_it_possible() -> None:
    doubtful = shadow(walk_to("127.0.0.1", None, "accept", doubts=("limits",)))
    assert said(silent(filters(ours=(program(Hook.EGRESS),)), firewall=doubtful)) == POSSIBLE


def test_a_rule_that_stops_it_clears_the_cgroups() -> None:
    seen = filters(ours=(program(Hook.EGRESS),))
    assert said(silent(seen, firewall=shadow(walk_to("127.0.0.1", rule("drop"))))) == []


def test_a_full_queue_clears_the_cgroups() -> None:
    assert said(silent(filters(theirs=(program(Hook.INGRESS),)), unanswered(HERE, queue=full_queue(HERE)))) == []


def test_a_listener_that_dropped_nothing_has_no_filter_to_blame() -> None:
    attempt = unanswered(HERE, queue=roomy_queue(HERE))
    assert said(silent(filters(theirs=(program(Hook.INGRESS),)), attempt)) == []
    assert said(silent(filters(ours=(program(Hook.EGRESS),)), attempt)) == LIKELY


def test_a_connection_that_arrived_can_only_have_lost_its_answer() -> None:
    ours = Endpoint("127.0.0.1", 40000)
    attempt = replace(unanswered(HERE), source=ours)
    waiting = replace(listening(HERE), state=TcpState.SYN_RECV, peer=ours)
    on_the_way_out = silent(filters(ours=(program(Hook.EGRESS),)), attempt)
    on_the_way_back = silent(filters(ours=(program(Hook.INGRESS),)), attempt)
    assert said(replace(on_the_way_out, sockets=Known((waiting,)))) == []
    assert said(replace(on_the_way_back, sockets=Known((waiting,)))) == LIKELY


def test_an_ordinary_user_misses_the_filters_and_accuses_nobody() -> None:
    snapshot = silent(NEEDS_ROOT)
    assert said(snapshot) == []
    assert missing(snapshot) == ["cgroup filters"]


def test_a_listener_whose_cgroup_is_not_seen_is_missing() -> None:
    listener = ListenerCgroup(1, Unknown(Reason.NOT_VISIBLE))
    seen = Known(CgroupFilters(Known(Cgroup(TOP, ())), (listener,)))
    assert missing(silent(seen)) == ["cgroup of the server"]


def test_silence_of_another_machine_is_not_asked_about() -> None:
    snapshot = dialled("192.0.2.1:80", unanswered("192.0.2.1:80", local=False), cgroup_filters=NEEDS_ROOT)
    assert (said(snapshot), missing(snapshot)) == ([], [])


# forbidden at once


def test_a_program_that_forbids_to_connect_is_proven_where_nothing_else_can() -> None:
    found = root(dialled(HERE, forbidden(), cgroup_filters=filters(ours=(program(Hook.CONNECT4),))))
    assert (found.code, found.confidence) == ("sandbox/cgroup-connect", Confidence.PROVEN)
    assert found.title == f"guard (program 7) on apps forbids to connect to {HERE}"


@pytest.mark.parametrize("rivals", [Known(("a seccomp filter on this process",)), Unknown(Reason.FAILED)])
def test_whatever_else_can_answer_eperm_leaves_it_likely(rivals: Fact[tuple[str, ...]]) -> None:
    seen = filters(ours=(program(Hook.CONNECT4),), rivals=rivals)
    assert said(dialled(HERE, forbidden(), cgroup_filters=seen)) == [("sandbox/cgroup-connect", Confidence.LIKELY)]


@pytest.mark.parametrize(
    ("hook", "count"), [(Hook.CONNECT6, 0), (Hook.BIND4, 0), (Hook.EGRESS, 0), (Hook.SOCK_CREATE, 1)]
)
def test_only_programs_that_are_asked_for_this_call_are_named(hook: Hook, count: int) -> None:
    assert len(said(dialled(HERE, forbidden(), cgroup_filters=filters(ours=(program(hook),))))) == count


def test_other_errors_are_not_a_cgroups() -> None:
    seen = filters(ours=(program(Hook.CONNECT4),))
    assert said(dialled(HERE, forbidden("EACCES"), cgroup_filters=seen)) == []


def test_an_ordinary_user_is_told_that_a_sandbox_may_forbid_it_and_who_can_see() -> None:
    snapshot = dialled(HERE, forbidden(), cgroup_filters=NEEDS_ROOT, seen_by=ALICE)
    finding = next(one for one in CHECK.judge(snapshot) if isinstance(one, Finding))
    assert finding.confidence is Confidence.POSSIBLE
    assert finding.remedies[0].commands[0].needs_root
    assert diagnose(snapshot, CHECKS).root_cause is None


def test_a_bind_that_is_forbidden_is_told_with_the_setting_that_allows_it() -> None:
    guard = program(Hook.BIND4, "sd_bind4", UNIT)
    bind = replace(denied(HERE), errno="EPERM")
    found = root(wanted(HERE, bind, cgroup_filters=filters(ours=(guard,))))
    assert found.code == "sandbox/cgroup-connect"
    assert found.remedies[0].edits[0].text == "[Service]\nSocketBindAllow=tcp:8080"


def test_a_port_that_needs_root_is_no_sandboxs() -> None:
    assert said(wanted(HERE, denied(HERE), cgroup_filters=filters(ours=(program(Hook.BIND4),)))) == []


# remedies


def first_remedy(found: CgroupProgram) -> tuple[str, str]:
    remedy = root(silent(filters(theirs=(found,)), dropped(SYN_AT_SERVER))).remedies[0]
    assert remedy.risk is not Risk.DESTRUCTIVE
    assert remedy.commands == ()
    return (remedy.edits[0].file, remedy.edits[0].text) if remedy.edits else ("", remedy.summary)


def test_the_filter_of_a_systemd_unit_is_mended_in_the_unit() -> None:
    assert first_remedy(program(Hook.INGRESS, "sd_fw_ingress", UNIT)) == (
        "/etc/systemd/system/web.service.d/override.conf",
        "[Service]\nIPAddressAllow=localhost",
    )


def test_the_filter_of_a_slice_is_mended_in_the_slice() -> None:
    assert first_remedy(program(Hook.INGRESS, "sd_fw_ingress", f"{TOP}/system.slice")) == (
        "/etc/systemd/system/system.slice.d/override.conf",
        "[Slice]\nIPAddressAllow=localhost",
    )


def test_a_unit_bound_to_interfaces_is_given_lo() -> None:
    assert first_remedy(program(Hook.INGRESS, "sd_restrictif_i", UNIT))[1] == "[Service]\nRestrictNetworkInterfaces=lo"


@pytest.mark.parametrize(
    "found",
    [
        program(Hook.INGRESS, "cil_guard", UNIT),
        program(Hook.INGRESS, "sd_fw_ingress", f"{TOP}/user.slice/user@1000.service/app.slice"),
        program(Hook.INGRESS, "guard", None),
        program(Hook.INGRESS, "sd_fw_ingress", f"{TOP}/system.slice/run-7.scope"),
    ],
    ids=lambda one: str(one.attached),
)
def test_where_no_unit_file_makes_the_filter_no_file_is_edited(found: CgroupProgram) -> None:
    file, summary = first_remedy(found)
    assert file == ""
    assert summary


def test_the_settings_of_the_unit_can_be_looked_at() -> None:
    found = root(silent(filters(theirs=(program(Hook.INGRESS, "", UNIT),)), dropped(SYN_AT_SERVER)))
    assert found.remedies[1].commands[0].argv[:3] == ("systemctl", "show", "web.service")


def test_the_check_is_clear_where_filters_are_known_and_none_is_in_the_way() -> None:
    report = diagnose(silent(filters(), dropped(Drop("NETFILTER_DROP", "nft_do_chain"))), [CHECK])
    assert report.checks[0].outcome is CheckOutcome.CLEAR


# where a cgroup is


def test_the_version_2_path_is_found_among_the_others() -> None:
    assert place("9:name=systemd:/a\n0::/system.slice/web.service\n") == "/system.slice/web.service"
    assert place("9:name=systemd:/a\n") is None


def test_a_path_outside_of_our_cgroup_namespace_is_not_known() -> None:
    assert place("0::/../other\n") is None


def test_a_removed_cgroup_has_its_name_still() -> None:
    assert place("0::/gone (deleted)\n") == "/gone"


def test_mounts_of_version_2_are_told_from_the_others_with_their_spaces() -> None:
    text = (
        "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw\n"
        "40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n"
        "42 31 0:38 /pod/x /mnt/a\\040b rw shared:5 - cgroup2 cgroup2 rw\n"
        "41 31 0:38 / /sys/fs/cgroup/unified rw shared:4 - cgroup2 cgroup2 rw\n"
    )
    assert mounts(text) == (Mount("/", "/sys/fs/cgroup/unified"), Mount("/pod/x", "/mnt/a b"))


@pytest.mark.parametrize(
    ("path", "found"),
    [("/", "/cg"), ("/a/b", "/cg/a/b")],
)
def test_a_path_is_a_directory_of_the_mount(path: str, found: str) -> None:
    assert directory(path, (Mount("/", "/cg"),)) == found


def test_a_mount_of_a_part_shows_that_part_only() -> None:
    part = (Mount("/pod/x", "/cg"),)
    assert directory("/pod/x/y", part) == "/cg/y"
    assert directory("/pod/x", part) == "/cg"
    assert directory("/pod/xyz", part) is None
