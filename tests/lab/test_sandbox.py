"""Programs on cgroups that drop or forbid, and those that only look like it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.lab.cgroups import Cgroup, cgroup, unified
from tests.lab.machine import NOBODY, ROOT, Answer, Machine, Server, start
from tests.lab.protocol import Diagnosis, Scenario, likely, no_cause, proven, works

FILTER, CONNECT = proven("sandbox/cgroup-filter"), proven("sandbox/cgroup-connect")
RULE_DROPS = proven("firewall/rule-drops")
UNSEEN = (no_cause(), likely("firewall/silent"), likely("firewall/reply-dropped"))
"""What an ordinary user, who sees neither rules nor programs, may say of silence."""

FILTERED_LISTENER = """
import ctypes, socket, struct, sys, time
one = socket.create_server(("127.0.0.1", int(sys.argv[1])))
code = ctypes.create_string_buffer(struct.pack("=HBBI", 6, 0, 0, 0))  # BPF_RET: keep nothing
one.setsockopt(socket.SOL_SOCKET, 26, struct.pack("@HP", 1, ctypes.addressof(code)))
print("ready", flush=True)
time.sleep(3600)
"""

UNDER_SECCOMP = """
import ctypes, os, struct, sys
allow = ctypes.create_string_buffer(struct.pack("=HBBI", 6, 0, 0, 0x7FFF0000))
program = ctypes.create_string_buffer(struct.pack("@HP", 1, ctypes.addressof(allow)))
prctl = ctypes.CDLL(None).prctl
assert prctl(38, 1, 0, 0, 0) == 0 and prctl(22, 2, program, 0, 0) == 0
os.execvp(sys.argv[1], sys.argv[1:])
"""


@pytest.fixture
def group(_lab: None) -> Iterator[Cgroup]:
    """A cgroup of the scenario's own."""
    if unified() is None:
        pytest.skip("the cgroup2 file system is not mounted")
    with cgroup("one") as made:
        yield made


def serve_inside(machine: Machine, group: Cgroup, address: str = "127.0.0.1") -> Server:
    with group.around():
        return machine.serve("accepts", address)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("hook", ["ingress", "egress"])
def test_a_filter_on_the_cgroup_of_the_server_is_named(
    machine: Machine, scenario: Scenario, group: Cgroup, hook: str, address: str
) -> None:
    serve_inside(machine, group, address)
    program = group.filter(hook)
    host = f"[{address}]" if ":" in address else address
    answer = scenario.says(
        FILTER,
        as_nobody=UNSEEN,
        target=f"{host}:{machine.port}",
        by_hand=lambda: group.lift(hook, program),
    )
    assert answer.cause
    assert "lab_filter" in answer.cause["title"]
    assert str(group.path) in str(answer.cause["evidence"])


@pytest.mark.parametrize("hook", ["ingress", "egress"])
def test_a_filter_on_the_cgroup_of_the_client_is_named(
    machine: Machine, scenario: Scenario, group: Cgroup, hook: str
) -> None:
    machine.serve()
    program = group.filter(hook)
    with group.around():
        scenario.says(FILTER, as_nobody=UNSEEN, by_hand=lambda: group.lift(hook, program))
    assert works().is_said_by(machine.netdiag("run", "--json", f"127.0.0.1:{machine.port}"))


@pytest.mark.parametrize(("hook", "told"), [("egress", True), ("ingress", False)])
def test_a_datagram_tells_an_ordinary_user_of_a_filter_on_the_way_out(
    machine: Machine, scenario: Scenario, group: Cgroup, hook: str, told: bool
) -> None:
    machine.serve()
    group.filter(hook)
    with group.around():
        answer = machine.netdiag("run", "--json", f"127.0.0.1:{machine.port}", uid=NOBODY)
    assert any(one.is_said_by(answer) for one in UNSEEN), str(answer)
    assert ("EPERM" in str(answer.report["findings"])) is told


@pytest.mark.parametrize(("hook", "target"), [("connect4", "127.0.0.1"), ("connect6", "[::1]")])
def test_a_program_that_forbids_to_connect_is_named(
    machine: Machine, scenario: Scenario, group: Cgroup, hook: str, target: str
) -> None:
    machine.serve("accepts", target.strip("[]"))
    program = group.filter(hook)
    with group.around():
        answer = scenario.says(CONNECT, target=f"{target}:{machine.port}", by_hand=lambda: group.lift(hook, program))
    assert answer.report["attempts"][0]["errno"] == "EPERM"


def test_a_seccomp_filter_beside_it_leaves_it_likely(machine: Machine, group: Cgroup) -> None:
    machine.serve()
    group.filter("connect4")
    filtered = ("/run/python3", "-I", "-S", "-c", UNDER_SECCOMP)
    with group.around():
        answer = machine.netdiag("run", "--json", f"127.0.0.1:{machine.port}", before=filtered)
    assert likely("sandbox/cgroup-connect").is_said_by(answer), str(answer)


def test_a_program_that_forbids_every_socket_is_named(machine: Machine, group: Cgroup) -> None:
    machine.serve()
    group.filter("sock_create")
    inside = ("sh", "-c", f'echo $$ >{group.path}/cgroup.procs; exec "$@"', "sh")
    answer = machine.netdiag("run", "--json", f"127.0.0.1:{machine.port}", before=inside)
    assert CONNECT.is_said_by(answer), str(answer)


def test_a_program_that_forbids_to_bind_is_named(machine: Machine, scenario: Scenario, group: Cgroup) -> None:
    program = group.filter("bind4")
    with group.around():
        scenario.says(
            proven("sandbox/cgroup-connect", "not-bindable"),
            arguments=("--bind",),
            by_hand=lambda: group.lift("bind4", program),
        )


# look-alikes


def test_programs_that_let_everything_pass_are_not_accused(machine: Machine, scenario: Scenario, group: Cgroup) -> None:
    for hook in ("ingress", "egress", "connect4", "bind4", "sock_create"):
        group.filter(hook, passes=True)
    serve_inside(machine, group)
    with group.around():
        answer = scenario.says(works())
    assert not [code for code in answer.codes if code.startswith("sandbox/")]


def test_a_filter_on_a_cgroup_of_neither_end_is_not_accused(
    machine: Machine, scenario: Scenario, group: Cgroup
) -> None:
    group.filter("ingress")
    group.filter("egress")
    group.filter("connect4")
    machine.serve()
    scenario.says(works())


def test_a_rule_that_drops_is_the_cause_beside_filters_that_let_pass(
    machine: Machine, scenario: Scenario, group: Cgroup
) -> None:
    group.filter("ingress", passes=True)
    group.filter("egress", passes=True)
    serve_inside(machine, group)
    machine.chain("input", f"tcp dport {machine.port} drop")
    answer = scenario.says(RULE_DROPS, as_nobody=UNSEEN)
    assert not [code for code in answer.codes if code.startswith("sandbox/")]


def test_a_server_that_moved_into_a_filtered_cgroup_with_its_socket_is_reached(
    machine: Machine, scenario: Scenario, group: Cgroup
) -> None:
    server = machine.serve()
    group.filter("ingress")
    group.enter(server.pid)
    answer = machine.netdiag("run", "--json", f"127.0.0.1:{machine.port}")
    assert works().is_said_by(answer), str(answer)


def test_a_socket_keeps_the_filter_of_the_cgroup_that_it_was_made_in(
    machine: Machine, scenario: Scenario, group: Cgroup
) -> None:
    server = serve_inside(machine, group)
    program = group.filter("ingress")
    group.leave(server.pid)
    scenario.says(FILTER, as_nobody=UNSEEN, by_hand=lambda: group.lift("ingress", program))


def test_among_several_filters_none_is_singled_out(machine: Machine, scenario: Scenario, group: Cgroup) -> None:
    serve_inside(machine, group)
    group.filter("ingress", passes=True)
    program = group.filter("ingress")
    answer = scenario.says(FILTER, as_nobody=UNSEEN, by_hand=lambda: group.lift("ingress", program))
    assert answer.cause
    assert answer.cause["title"].startswith("One of 2 filters")


@pytest.mark.parametrize("beside", [True, False])
def test_the_filter_of_the_socket_itself_is_never_proven_to_be_the_cgroup_s(
    machine: Machine, group: Cgroup, beside: bool
) -> None:
    if beside:
        group.filter("ingress", passes=True)
    with group.around():
        argv = ["/run/python3", "-I", "-S", "-c", FILTERED_LISTENER, str(machine.port)]
        machine.servers.append(Server(start(machine.inside(argv))))
    allowed: dict[int, tuple[Diagnosis, ...]] = {
        ROOT: (no_cause(), *((likely("sandbox/cgroup-filter"),) if beside else ())),
        NOBODY: UNSEEN,
    }
    for uid, diagnoses in allowed.items():
        answer = machine.netdiag("run", "--json", f"127.0.0.1:{machine.port}", uid=uid)
        assert any(one.is_said_by(answer) for one in diagnoses), str(answer)


DENYING = """
import ctypes, os, struct, sys
number, argument, errno = map(int, sys.argv[1:4])
LOAD, IF_EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, DENY = 0x7FFF0000, 0x00050000 | errno
code = [
    (LOAD, 0, 0, 0), (IF_EQUAL, 0, 3, number),
    *([(LOAD, 0, 0, 16), (IF_EQUAL, 0, 1, argument)] if argument >= 0 else [(LOAD, 0, 0, 0), (IF_EQUAL, 0, 1, number)]),
    (RETURN, 0, 0, DENY), (RETURN, 0, 0, ALLOW),
]
packed = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *one) for one in code))
program = ctypes.create_string_buffer(struct.pack("@HP", len(code), ctypes.addressof(packed)))
prctl = ctypes.CDLL(None).prctl
assert prctl(38, 1, 0, 0, 0) == 0 and prctl(22, 2, program, 0, 0) == 0
os.execvp(sys.argv[4], sys.argv[4:])
"""
"""Runs a command under a seccomp filter that answers one system call, with one first argument or any, with an errno."""
SOCKET, CONNECT_CALL = (
    {"x86_64": 41, "aarch64": 198}[os.uname().machine],
    {"x86_64": 42, "aarch64": 203}[os.uname().machine],
)


def under_seccomp(call: int, argument: int, errno: int) -> tuple[str, ...]:
    return ("/run/python3", "-I", "-S", "-c", DENYING, str(call), str(argument), str(errno))


def denied_by_seccomp(machine: Machine, call: int, argument: int, errno: int, uid: int = ROOT) -> Answer:
    wrapped = under_seccomp(call, argument, errno)
    return machine.netdiag("run", "--json", f"127.0.0.1:{machine.port}", uid=uid, before=wrapped)


@pytest.mark.parametrize("errno", [1, 13, 97], ids=["EPERM", "EACCES", "EAFNOSUPPORT"])
def test_a_client_that_may_not_create_ip_sockets_is_told_so_and_the_server_is_not_blamed(
    machine: Machine, scenario: Scenario, errno: int
) -> None:
    machine.serve()
    for uid in (ROOT, NOBODY):
        answer = denied_by_seccomp(machine, SOCKET, 2, errno, uid)
        sure = likely if errno == 1 and uid == NOBODY else proven
        assert sure("sandbox/address-family").is_said_by(answer), str(answer)
        assert answer.cause
        assert "Seccomp: 2" in str(answer.cause["evidence"])
    scenario.keep_as_root(f"127.0.0.1:{machine.port}", before=under_seccomp(SOCKET, 2, errno))


def test_a_connect_that_a_seccomp_filter_forbids_is_the_filter_s(machine: Machine, scenario: Scenario) -> None:
    machine.serve()
    answer = denied_by_seccomp(machine, CONNECT_CALL, -1, 1)
    assert (likely("sandbox/seccomp").is_said_by(answer)) or no_cause().is_said_by(answer), str(answer)
    assert "sandbox/seccomp" in answer.codes, str(answer)
    scenario.keep_as_root(f"127.0.0.1:{machine.port}", before=under_seccomp(CONNECT_CALL, -1, 1))
