"""The chain from the host's port to the process in the container, broken at one link after the other."""

from __future__ import annotations

import json

import pytest

from tests.lab.docker import SOON, DockerMachine
from tests.lab.machine import NOBODY, ROOT, Answer, Server, start, wait_for
from tests.lab.protocol import Scenario, likely, no_cause, proven, works

WITHOUT_PROXY = pytest.mark.parametrize("machine", [("--userland-proxy=false",)], ids=["no proxy"], indirect=True)
HANGS_UP = (proven("hung/closes-at-once"), likely("hung/closes-at-once"))
"""What an ordinary user sees of a forwarder whose far side refuses."""
NOTHING_LISTENS = (proven("refused/nothing-listening"), likely("refused/nothing-listening"))


def published(port: int, inside: int, address: str = "127.0.0.1") -> tuple[str, ...]:
    """The option of docker run."""
    return ("--publish", f"{address}:{port}:{inside}")


def said(answer: Answer) -> str:
    """Everything that the root cause says."""
    return str(answer.cause)


# ------ what is inside


def test_a_server_on_the_container_s_own_loopback_is_not_reached_by_its_published_port(
    machine: DockerMachine, scenario: Scenario
) -> None:
    machine.web("decoy", "0.0.0.0", 80, options=published(machine.port + 1, 80))
    machine.web("app", "127.0.0.1", 80, options=published(machine.port, 80))

    def listen_on_all() -> None:
        machine.docker("rm", "--force", "app")
        machine.web("app", "0.0.0.0", 80, options=published(machine.port, 80))

    answer = scenario.says(
        proven("container/binds-loopback-inside"),
        as_nobody=(likely("container/binds-loopback-inside"), *HANGS_UP),
        by_hand=listen_on_all,
    )
    assert "127.0.0.1:80" in said(answer)
    assert "container app" in said(answer)
    assert "0.0.0.0" in answer.cause["remedies"][0]["summary"]  # type: ignore[index]


@WITHOUT_PROXY
def test_without_a_proxy_a_server_on_the_container_s_own_loopback_refuses_and_no_rule_is_blamed(
    machine: DockerMachine, scenario: Scenario
) -> None:
    machine.web("app", "127.0.0.1", 80, options=published(machine.port, 80))

    def listen_on_all() -> None:
        machine.docker("rm", "--force", "app")
        machine.web("app", "0.0.0.0", 80, options=published(machine.port, 80))

    scenario.says(
        proven("container/binds-loopback-inside"),
        as_nobody=(likely("container/binds-loopback-inside"), no_cause()),
        by_hand=listen_on_all,
    )


def test_a_port_published_to_one_on_which_nothing_listens_is_named_with_the_one_that_does(
    machine: DockerMachine, scenario: Scenario
) -> None:
    machine.web("app", "0.0.0.0", 8000, options=published(machine.port, 80))
    machine.web("decoy", "0.0.0.0", 80)
    answer = scenario.says(
        proven("container/wrong-container-port"), as_nobody=(likely("container/wrong-container-port"), *HANGS_UP)
    )
    assert "it listens on 8000" in said(answer)


def test_a_container_in_which_nothing_listens_yet_is_not_said_to_listen_elsewhere(
    machine: DockerMachine, scenario: Scenario
) -> None:
    machine.container("app", "sleep", "1000", options=published(machine.port, 80))

    def start_it() -> None:
        machine.docker("exec", "--detach", "app", "httpd", "-f", "-p", "0.0.0.0:80", "-h", "/www")

    answer = machine.netdiag("run", "--json", f"127.0.0.1:{machine.port}")
    assert proven("container/wrong-container-port").is_said_by(answer), answer
    assert "nothing in it listens" in said(answer)
    assert "logs" in str(answer.cause["remedies"][0]["commands"])  # type: ignore[index]
    start_it()


# ------ nobody has the host's port


def test_a_port_that_a_container_does_not_publish_is_refused(machine: DockerMachine, scenario: Scenario) -> None:
    machine.web("app", "0.0.0.0", machine.port)
    machine.web("decoy", "0.0.0.0", 80, options=published(machine.port + 1, 80))
    answer = scenario.says(likely("container/port-not-published"), as_nobody=likely("container/other-namespace"))
    assert f"-p 127.0.0.1:{machine.port}:{machine.port}" in said(answer)
    assert "0.0.0.0:" not in str([remedy["summary"] for remedy in answer.cause["remedies"]])  # type: ignore[index]


def test_of_two_containers_that_do_not_publish_the_port_neither_is_accused(
    machine: DockerMachine, scenario: Scenario
) -> None:
    machine.web("one", "0.0.0.0", machine.port)
    machine.web("two", "0.0.0.0", machine.port)
    answer = scenario.says(proven("refused/nothing-listening"), by_hand=machine.serve)
    assert answer.codes.count("container/port-not-published") == 2


def test_a_container_that_has_exited_is_started_again(machine: DockerMachine, scenario: Scenario) -> None:
    machine.web("decoy", "0.0.0.0", 80, options=published(machine.port + 1, 80))
    machine.web("app", "0.0.0.0", 80, options=published(machine.port, 80))
    machine.docker("kill", "app")
    answer = scenario.says(proven("container/not-running"), as_nobody=NOTHING_LISTENS)
    assert "137" in said(answer)
    assert answer.cause["remedies"][0]["commands"][0]["argv"] == ["docker", "start", "app"]  # type: ignore[index]


def test_a_container_that_keeps_crashing_is_told_by_its_exit_code(machine: DockerMachine, scenario: Scenario) -> None:
    options = (*published(machine.port, 80), "--restart", "always")
    machine.container("app", "sh", "-c", "sleep 0.2; exit 3", options=options)
    machine.until_status("app", "restarting")
    said = set()
    for _ in range(10):
        report = json.loads(machine.run("netdiag", "run", "--json", f"127.0.0.1:{machine.port}", check=False))
        said.add(report["root_cause"] and report["root_cause"]["code"])
        if "container/not-running" in said:
            break
    # it is up for a moment again and again, with nothing in it that listens: then less can be said, and nothing false
    assert "container/not-running" in said
    assert said <= {
        "container/not-running",
        "container/wrong-container-port",
        "hung/closes-at-once",
        "refused/nothing-listening",
        None,
    }


def test_a_container_that_was_only_created_is_started(machine: DockerMachine, scenario: Scenario) -> None:
    command = ("lab", "httpd", "-f", "-h", "/www")
    machine.docker("create", "--name", "app", *SOON, *published(machine.port, 80), *command)
    scenario.says(proven("container/not-running"), as_nobody=NOTHING_LISTENS)


def test_a_stopped_container_is_no_cause_while_another_program_has_the_port(
    machine: DockerMachine, scenario: Scenario
) -> None:
    machine.web("app", "0.0.0.0", 80, options=published(machine.port, 80))
    machine.docker("kill", "app")
    machine.serve().stop()
    scenario.says(proven("hung/process-stopped"), as_nobody=proven("hung/not-accepting"))


def test_a_port_published_on_another_address_is_dialled_there(machine: DockerMachine, scenario: Scenario) -> None:
    machine.web("app", "0.0.0.0", 80, options=published(machine.port, 80, "127.0.0.2"))
    scenario.says(
        proven("container/published-elsewhere"),
        as_nobody=proven("container/published-elsewhere"),
    )


def test_a_port_published_for_ipv4_only_is_refused_over_ipv6(machine: DockerMachine, scenario: Scenario) -> None:
    machine.web("app", "0.0.0.0", 80, options=published(machine.port, 80, "0.0.0.0"))
    scenario.says(
        proven("container/published-elsewhere"),
        as_nobody=proven("container/published-elsewhere"),
        target=f"[::1]:{machine.port}",
    )


# ------ the way there


@WITHOUT_PROXY
def test_a_nat_rule_that_is_gone_comes_back_with_the_container(machine: DockerMachine, scenario: Scenario) -> None:
    machine.web("decoy", "0.0.0.0", 80, options=published(machine.port + 1, 80))
    machine.web("app", "0.0.0.0", 80, options=published(machine.port, 80))
    machine.run("iptables", "-t", "nat", "-F", "DOCKER")
    scenario.says(
        proven("container/nat-missing"), as_nobody=(proven("hung/not-accepting"), likely("hung/not-accepting"))
    )


@WITHOUT_PROXY
def test_where_the_engine_s_chains_are_gone_a_restart_of_the_engine_is_advised(
    machine: DockerMachine, scenario: Scenario
) -> None:
    machine.web("app", "0.0.0.0", 80, options=published(machine.port, 80))
    machine.run("iptables", "-t", "nat", "-F")

    def restart() -> None:
        machine.stop_engine()
        machine.start_engine()
        machine.docker("start", "app")

    scenario.says(
        proven("container/nat-missing"),
        as_nobody=(proven("hung/not-accepting"), likely("hung/not-accepting")),
        by_hand=restart,
    )


@WITHOUT_PROXY
def test_loopback_that_may_not_leave_for_the_bridge_is_told_from_a_rule_that_drops(
    machine: DockerMachine, scenario: Scenario
) -> None:
    machine.web("app", "0.0.0.0", 80, options=published(machine.port, 80))
    machine.run("sysctl", "-w", "net.ipv4.conf.docker0.route_localnet=0")
    scenario.says(proven("container/no-localnet-route"), as_nobody=(likely("firewall/silent"), no_cause()))


@pytest.mark.parametrize("rule", ["drop", "reject with tcp reset"])
def test_a_rule_in_front_of_a_container_that_has_ended_is_one_of_two_faults(
    machine: DockerMachine, scenario: Scenario, rule: str
) -> None:
    machine.web("app", "0.0.0.0", 80, options=published(machine.port, 80))
    machine.docker("stop", "--time", "0", "app")
    machine.nft("table ip guard {", "chain out {", "type filter hook output priority -10;", "}", "}")
    machine.nft(f"add rule ip guard out tcp dport {machine.port} {rule}")
    code = "firewall/rule-drops" if rule == "drop" else "firewall/rule-rejects"
    answer = scenario.says(
        proven(code),
        as_nobody=(likely("firewall/silent"), likely(code), no_cause()),
        then=proven("container/not-running"),
    )
    assert "container/not-running" in answer.codes
    first = answer.cause["remedies"][0]  # type: ignore[index]
    assert not first["rehearsal"]["mended"]
    assert "This lifts this block only" in first["summary"]


@WITHOUT_PROXY
def test_a_rule_that_drops_what_nat_leads_to_the_container_is_mended_and_the_nat_rule_stays(
    machine: DockerMachine, scenario: Scenario
) -> None:
    machine.web("app", "0.0.0.0", 80, options=published(machine.port, 80))
    drops = f"ip daddr {machine.address('app')} tcp dport 80 drop"
    machine.nft("table ip guard {", "chain out {", "type filter hook output priority 10;", drops, "}", "}")
    answer = scenario.says(proven("firewall/rule-drops"), as_nobody=(likely("firewall/silent"), no_cause()))
    assert "DOCKER" not in str([remedy["commands"] for remedy in answer.cause["remedies"]])  # type: ignore[index]


@WITHOUT_PROXY
def test_a_container_that_drops_what_nat_leads_to_it_is_no_fault_of_the_nat_rule(
    machine: DockerMachine, scenario: Scenario
) -> None:
    machine.web("app", "0.0.0.0", 80, options=published(machine.port, 80))
    inside = ("nsenter", f"--net=/proc/{machine.pid('app')}/ns/net")
    machine.run(*inside, "nft", "add table ip own; add chain ip own in { type filter hook input priority 0; };")
    machine.run(*inside, "nft", "add rule ip own in tcp dport 80 drop")
    answer = scenario.diagnose((f"127.0.0.1:{machine.port}",), ROOT, no_cause())
    found = next(one for one in answer.report["findings"] if one["code"] == "firewall/redirects")
    argv = [command["argv"] for remedy in found["remedies"] for command in remedy["commands"]]
    assert argv == [["netdiag", "run", f"{machine.address('app')}:80"]]


# ------ a container that stands still


@WITHOUT_PROXY
def test_a_paused_container_behind_nat_is_not_called_reachable(machine: DockerMachine, scenario: Scenario) -> None:
    machine.web("app", "0.0.0.0", 80, options=published(machine.port, 80))
    machine.docker("pause", "app")
    scenario.says(proven("container/paused"), as_nobody=proven("hung/not-accepting"))


def test_a_paused_container_on_the_host_s_network_goes_on(machine: DockerMachine, scenario: Scenario) -> None:
    machine.container("app", "httpd", "-f", "-p", f"127.0.0.1:{machine.port}", options=("--network", "host"))
    wait_for(lambda: machine.listens_inside("app", machine.port), "its server to listen")
    machine.docker("pause", "app")
    scenario.says(proven("container/paused"), as_nobody=proven("hung/not-accepting"))


def test_of_two_proxies_on_one_port_the_one_that_was_dialled_counts(machine: DockerMachine, scenario: Scenario) -> None:
    machine.web("decoy", "0.0.0.0", 80, options=published(machine.port, 80, "127.0.0.2"))
    machine.web("app", "0.0.0.0", 80, options=published(machine.port, 80))
    machine.docker("pause", "app")
    scenario.says(proven("container/paused"), as_nobody=proven("container/paused"))


def test_a_paused_container_whose_server_is_on_loopback_refuses_and_would_unpaused(
    machine: DockerMachine, scenario: Scenario
) -> None:
    machine.web("app", "127.0.0.1", 80, options=published(machine.port, 80))
    machine.docker("pause", "app")
    scenario.diagnose((f"127.0.0.1:{machine.port}",), ROOT, proven("container/binds-loopback-inside"))


def test_a_paused_container_goes_on(machine: DockerMachine, scenario: Scenario) -> None:
    machine.web("decoy", "0.0.0.0", 80, options=published(machine.port + 1, 80))
    machine.web("app", "0.0.0.0", 80, options=published(machine.port, 80))
    machine.docker("pause", "app")
    answer = scenario.says(proven("container/paused"), as_nobody=proven("container/paused"))
    assert answer.cause["remedies"][0]["commands"][0]["argv"] == ["docker", "unpause", "app"]  # type: ignore[index]


# ------ a container that is reached by too many


def test_a_port_published_to_the_world_past_ufw_is_a_warning_and_works(
    machine: DockerMachine, scenario: Scenario
) -> None:
    machine.write("/etc/ufw/ufw.conf", "ENABLED=yes\n")
    machine.web("app", "0.0.0.0", 80, options=published(machine.port, 80, "0.0.0.0"))
    answer = scenario.says(works(), as_nobody=works())
    assert "exposure/open-to-network" in answer.codes
    assert f"-p 127.0.0.1:{machine.port}:80" in str(answer.report["findings"])


def test_a_port_published_on_loopback_is_no_exposure(machine: DockerMachine, scenario: Scenario) -> None:
    machine.write("/etc/ufw/ufw.conf", "ENABLED=yes\n")
    machine.web("app", "0.0.0.0", 80, options=published(machine.port, 80))
    assert "exposure/open-to-network" not in scenario.says(works()).codes


def test_a_container_that_drops_what_the_proxy_sends_is_not_called_reachable(
    machine: DockerMachine, scenario: Scenario
) -> None:
    machine.web("app", "0.0.0.0", 80, options=published(machine.port, 80))
    inside = ("nsenter", f"--net=/proc/{machine.pid('app')}/ns/net")
    machine.run(*inside, "nft", "add table ip own; add chain ip own in { type filter hook input priority 0; };")
    machine.run(*inside, "nft", "add rule ip own in tcp dport 80 drop")
    answer = scenario.diagnose((f"127.0.0.1:{machine.port}",), ROOT, proven("hung/not-accepting"))
    scenario.diagnose((f"127.0.0.1:{machine.port}",), NOBODY, proven("hung/not-accepting"))
    assert "172.17.0." in answer.cause["title"]  # type: ignore[index]
    assert "does not answer" in answer.cause["title"]  # type: ignore[index]


SLOW_PROXY = """
import ctypes, socket, sys, time
ctypes.CDLL(None).prctl(15, b"docker-proxy", 0, 0, 0)
told = dict(zip(sys.argv[1::2], sys.argv[2::2]))
here = socket.create_server((told["-host-ip"], int(told["-host-port"])))
print("ready", flush=True)
while True:
    taken = here.accept()[0]
    time.sleep(0.2)
    try:
        socket.create_connection((told["-container-ip"], int(told["-container-port"])))
    except OSError:
        taken.close()
"""
"""A forwarder on a busy machine: it dials later than netdiag waits to see a connection closed."""


def test_a_proxy_that_is_slow_to_learn_that_nobody_is_there_is_not_called_reachable(
    machine: DockerMachine, scenario: Scenario
) -> None:
    machine.container("app", "sleep", "1000")
    machine.write("/run/proxy.py", SLOW_PROXY)
    ends = ("-host-ip", "127.0.0.1", "-host-port", str(machine.port), "-container-port", "80")
    argv = ["/run/python3", "/run/proxy.py", *ends, "-container-ip", machine.address("app"), "-proto", "tcp"]
    machine.servers.append(Server(start(machine.inside(argv))))
    scenario.diagnose((f"127.0.0.1:{machine.port}",), ROOT, proven("container/wrong-container-port"))
    scenario.diagnose((f"127.0.0.1:{machine.port}",), NOBODY, likely("container/wrong-container-port"))


def test_a_forwarder_that_is_hidden_from_an_ordinary_user_is_not_taken_for_none(machine: DockerMachine) -> None:
    machine.web("app", "0.0.0.0", 80, options=published(machine.port, 80))
    machine.docker("pause", "app")
    machine.run("mount", "-t", "proc", "-o", "hidepid=2", "proc", "/proc")
    answer = machine.netdiag("run", "--json", f"127.0.0.1:{machine.port}", uid=NOBODY)
    assert "the far end of the connection" in [one["fact"] for one in answer.report["not_checked"]]


def test_a_container_s_own_port_is_published_under_another_number(machine: DockerMachine, scenario: Scenario) -> None:
    machine.web("app", "0.0.0.0", machine.port, options=published(machine.port + 7, machine.port))
    answer = scenario.says(likely("container/published-elsewhere"), as_nobody=likely("container/other-namespace"))
    assert answer.cause["remedies"][0]["commands"][0]["argv"][-1] == f"127.0.0.1:{machine.port + 7}"  # type: ignore[index]


def test_over_ipv6_the_proxy_leads_to_the_same_server_on_loopback(machine: DockerMachine, scenario: Scenario) -> None:
    machine.web("app", "127.0.0.1", 80, options=published(machine.port, 80, "[::1]"))

    def listen_on_all() -> None:
        machine.docker("rm", "--force", "app")
        machine.web("app", "0.0.0.0", 80, options=published(machine.port, 80, "[::1]"))

    scenario.says(
        proven("container/binds-loopback-inside"),
        as_nobody=(likely("container/binds-loopback-inside"), *HANGS_UP),
        target=f"[::1]:{machine.port}",
        by_hand=listen_on_all,
    )
