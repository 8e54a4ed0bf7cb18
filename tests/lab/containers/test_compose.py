"""Real projects, started by the real Compose: targets that name services, and edits that mend the file."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import yaml

from diagnose.analysis.compose import (
    add_host_gateway,
    correct_container_port,
    dial_by_name,
    listen_everywhere,
    publish,
    told_by_name,
)
from diagnose.model.compose import Service
from diagnose.model.fact import Known
from diagnose.model.finding import Remedy
from diagnose.model.snapshot import Snapshot
from diagnose.recording import decode
from tests.edits import applied
from tests.lab.docker import DockerMachine
from tests.lab.machine import NOBODY, ROOT, Answer, wait_for
from tests.lab.protocol import works

FOLDER = "/run/shop"
FILE = f"{FOLDER}/compose.yaml"
HERE = ("env", f"--chdir={FOLDER}")
pytestmark = pytest.mark.skipif(shutil.which("docker-compose") is None, reason="the lab needs docker-compose")


@dataclass
class Shop:
    """A project in a directory of its own, on a machine with a real engine."""

    machine: DockerMachine

    def write(self, text: str) -> None:
        """Its compose file."""
        self.machine.write(FILE, text)

    def up(self, *services: str) -> None:
        """Start it as a user does."""
        self.machine.run("docker-compose", "-f", FILE, "up", "-d", *services)
        self.settle()

    def settle(self) -> None:
        """Until the kernel has made sure of its new bridge's addresses: what changes then, no run has changed."""
        wait_for(lambda: "tentative" not in self.machine.run("ip", "-o", "address"), "addresses to settle", 10)

    def ask(self, target: str, *options: str, uid: int = ROOT) -> Answer:
        """Run the command in the project's directory."""
        return self.machine.netdiag("run", "--json", target, *options, uid=uid, before=HERE)

    def seen(self, target: str, *options: str) -> Snapshot:
        """The facts of one run there."""
        record = self.machine.scratch / "seen.json"
        self.ask(target, "--record", str(record), *options)
        (snapshot,) = decode(record.read_bytes())
        return snapshot

    def mend(self, remedy: Remedy | None) -> None:
        """Make the edits, and let the commands run as they stand."""
        assert remedy is not None
        assert {one.file for one in remedy.edits} == {FILE}
        assert remedy.commands
        self.write(applied(self.machine.run("cat", FILE), remedy.edits))
        yaml.safe_load(self.machine.run("cat", FILE))
        for command in remedy.commands:
            self.machine.run(*command.argv)
        self.settle()

    def inside(self, service: str, *command: str, check: bool = True) -> str:
        """Run a command in the service's container."""
        return self.machine.docker("exec", f"shop_{service}_1", *command, check=check)


@pytest.fixture
def shop(machine: DockerMachine) -> Shop:
    return Shop(machine)


def service(snapshot: Snapshot, name: str) -> Service:
    assert isinstance(snapshot.compose, Known)
    assert snapshot.compose.value
    found = snapshot.compose.value.service(name)
    assert found
    return found


def becomes_reachable(shop: Shop, target: str) -> None:
    wait_for(lambda: works().is_said_by(shop.ask(target)), f"{target} to be reachable", 10)


def serving(port: int, *, more: str = "") -> str:
    return f"    image: lab\n    stop_signal: SIGKILL\n    command: httpd -f -p {port} -h /www\n{more}"


def test_a_service_is_reached_by_its_name_and_its_container_s_port(shop: Shop) -> None:
    ports = f'    ports:\n      - "127.0.0.1:{shop.machine.port}:5432"\n'
    shop.write(f"services:\n  other:\n{serving(5432)}  db:\n{serving(5432, more=ports)}")
    shop.up()
    becomes_reachable(shop, "compose:db:5432")
    for uid in (ROOT, NOBODY):
        answer = shop.ask("compose:db:5432", uid=uid)
        assert works().is_said_by(answer), str(answer)
        assert answer.report["target"] == {
            "input": "compose:db:5432",
            "host": "127.0.0.1",
            "port": shop.machine.port,
            "scheme": None,
            "transport": "tcp",
        }


def test_a_service_that_is_not_there_is_refused_with_those_that_are(shop: Shop) -> None:
    shop.write(f"services:\n  db:\n{serving(5432)}")
    answer = shop.ask("compose:dbb:5432")
    assert (answer.exit_code, answer.stdout) == (2, b"")
    assert answer.stderr.decode() == f"netdiag: {FILE} has no service 'dbb'; it has db\n"


@pytest.mark.parametrize("line", ["", "    ports:\n    - 81:81\n", '    ports: ["81:81"]\n'])
def test_a_port_that_is_not_published_is_published_by_the_edit(shop: Shop, line: str) -> None:
    """A foreign server on the same port of this machine is not taken for the service."""
    shop.machine.serve("accepts", "127.0.0.1", 5432)
    shop.write(f"services:\n  db:  # the database\n{serving(5432, more=line)}")
    shop.up()
    answer = shop.ask("compose:db:5432")
    assert (answer.report["verdict"], answer.report["attempts"]) == ("unreachable", []), str(answer)
    snapshot = shop.seen("compose:db:5432")
    remedy = publish(snapshot, service(snapshot, "db"), 5432)
    shop.mend(remedy)
    becomes_reachable(shop, "compose:db:5432")
    assert shop.ask("compose:db:5432").report["target"]["port"] == 15432


def test_a_port_on_which_nothing_of_the_service_listens_is_not_published_in_vain(shop: Shop) -> None:
    shop.write(f"services:\n  db:\n{serving(5432)}")
    shop.up()
    wait_for(lambda: shop.machine.listens_inside("shop_db_1", 5432), "its server to listen")
    cause = shop.ask("compose:db:9999").cause
    assert cause
    assert cause["code"] == "container/port-not-published"
    assert "it listens on 5432" in str(cause["evidence"])
    assert [remedy["edits"] or remedy["commands"] for remedy in cause["remedies"]] == [[]]


def test_what_only_the_file_says_is_no_verdict(shop: Shop) -> None:
    shop.write(f"services:\n  db:\n{serving(5432)}")
    answer = shop.ask("compose:db:5432", uid=NOBODY)
    assert answer.report["verdict"] == "inconclusive", str(answer)


def test_a_service_that_does_not_run_is_not_taken_for_who_listens_on_its_port(shop: Shop) -> None:
    port = shop.machine.port
    shop.machine.serve()
    published = f'    ports: ["127.0.0.1:{port}:5432"]\n'
    shop.write(f"services:\n  db:\n{serving(5432, more=published)}")
    answer = shop.ask("compose:db:5432")
    assert (answer.report["verdict"], answer.report["attempts"]) == ("unreachable", []), str(answer)


def test_from_another_container_a_service_is_dialled_by_its_name_and_own_port(shop: Shop) -> None:
    shop.write(f"services:\n  app:\n{serving(80)}  db:\n{serving(5432)}")
    shop.up()
    answer = shop.ask("compose:db:5432", "--from", "container:shop_app_1")
    assert works().is_said_by(answer), str(answer)
    assert (answer.report["target"]["host"], answer.report["target"]["port"]) == ("db", 5432)


def test_the_project_of_a_container_is_read_by_its_labels_from_any_directory(shop: Shop) -> None:
    port = shop.machine.port
    shop.write(f"services:\n  web:\n{serving(80)}    ports:\n      - 127.0.0.1:{port}:8080\n")
    shop.up()
    record = shop.machine.scratch / "seen.json"
    shop.machine.netdiag("run", "--json", f"127.0.0.1:{port}", "--record", str(record))
    (snapshot,) = decode(record.read_bytes())
    assert (service(snapshot, "web").file, service(snapshot, "web").ports[0].line) == (FILE, 7)


def test_localhost_in_the_app_s_container_is_explained_and_its_variables_are_mended(shop: Shop) -> None:
    port = shop.machine.port
    shop.write(
        "services:\n  app:\n    image: lab\n    stop_signal: SIGKILL\n    command: sleep 1000\n    environment:\n"
        f"      DB_HOST: localhost\n      DB_PORT: {port}\n  db:\n"
        + serving(5432, more=f'    ports: ["127.0.0.1:{port}:5432"]\n')
    )
    shop.up()
    dial = 'wget -q -O - "http://$DB_HOST:$DB_PORT/"'
    assert shop.inside("app", "sh", "-c", dial, check=False) == ""
    snapshot = shop.seen(f"localhost:{port}", "--from", "container:shop_app_1")
    assert told_by_name(snapshot) == (
        f"You dialled localhost:{port} from the service app; there it is db:5432: {port} is its port on the host only, "
        "and localhost in a container is that container itself."
    )
    shop.mend(dial_by_name(snapshot))
    wait_for(lambda: shop.inside("app", "sh", "-c", dial, check=False) == "hi\n", "app to reach db", 10)


def listens(shop: Shop, port: int) -> str:
    return (
        f"services:\n  web:\n    image: lab\n    stop_signal: SIGKILL\n    environment:\n      - HOST=127.0.0.1\n"
        f"    command: sh -c 'httpd -f -p $$HOST:80 -h /www'\n    ports:\n      - 127.0.0.1:{port}:80\n"
    )


def wrong_port(shop: Shop, port: int) -> str:
    return f"services:\n  web:\n{serving(80)}    ports:\n      - target: 8080\n        published: {port}\n"


def let_it_listen(snapshot: Snapshot, web: Service) -> Remedy:
    return listen_everywhere(snapshot, web)


def lead_to_80(snapshot: Snapshot, web: Service) -> Remedy:
    return correct_container_port(snapshot, web, web.ports[0], 80)


@pytest.mark.parametrize(
    ("text", "advice"),
    [(listens, let_it_listen), (wrong_port, lead_to_80)],
    ids=["loopback-inside", "wrong-container-port"],
)
def test_a_published_port_that_leads_nowhere_is_mended_by_the_edit(
    shop: Shop, text: Callable[[Shop, int], str], advice: Callable[[Snapshot, Service], Remedy]
) -> None:
    target = f"127.0.0.1:{shop.machine.port}"
    shop.write(text(shop, shop.machine.port))
    shop.up()
    snapshot = shop.seen(target)
    shop.mend(advice(snapshot, service(snapshot, "web")))
    becomes_reachable(shop, target)
    page = shop.machine.run("/bin/busybox", "wget", "-q", "-O", "-", f"http://{target}/")
    assert page == "hi\n"


@pytest.mark.parametrize("there", ["", '    extra_hosts: ["x:10.0.0.1"]\n', "    extra_hosts:\n      x: 10.0.0.1\n"])
def test_the_host_gets_its_name_inside_by_the_edit(shop: Shop, there: str) -> None:
    shop.write(f"services:\n  app:\n    image: lab\n    stop_signal: SIGKILL\n    command: sleep 1000\n{there}")
    shop.up()
    assert "host.docker.internal" not in shop.inside("app", "cat", "/etc/hosts")
    snapshot = shop.seen(f"127.0.0.1:{shop.machine.port}")
    shop.mend(add_host_gateway(snapshot, service(snapshot, "app")))
    assert "host.docker.internal" in shop.inside("app", "cat", "/etc/hosts")


def test_a_pipe_in_the_place_of_the_compose_file_holds_nothing_up(shop: Shop) -> None:
    shop.machine.run("mkdir", FOLDER)
    shop.machine.run("mkfifo", FILE)
    answer = shop.ask("compose:db:5432")
    assert answer.exit_code == 2
    assert answer.seconds < 5
