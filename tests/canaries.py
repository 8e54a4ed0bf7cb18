"""A machine on which everything that can identify somebody has a name of its own."""

from __future__ import annotations

from msgspec.structs import replace

from diagnose.model.attempt import Acceptance, Behind, Drop, WireReply
from diagnose.model.cgroup import Cgroup, CgroupFilters, CgroupProgram, Hook, ListenerCgroup
from diagnose.model.compose import ComposeProject, Listening, PortEntry, Reference, Service, Spot, Unread
from diagnose.model.container import (
    Attachment,
    ComposeService,
    Containers,
    Engine,
    EngineContainer,
    Forwarder,
    Inside,
    Published,
    Status,
)
from diagnose.model.elsewhere import Elsewhere, OtherListener
from diagnose.model.fact import Known, Reason, Unknown
from diagnose.model.firewall import Approach, Backend, RuleRef, Shadow, Step, Walk
from diagnose.model.names import HostsEntry, HostsFile, Resolution, ResolvedAddress, ResolverConfig
from diagnose.model.network import Endpoint, Gateway, Interface, Links, RouteKind, RouteLookup, Routing, RoutingRule
from diagnose.model.process import Container, Holder, Holders, Process
from diagnose.model.side import Side
from diagnose.model.snapshot import Program, Snapshot, Vantage
from diagnose.model.target import Intent, Scope, Target
from tests.scenes import listening, refused, unanswered

CANARIES = {
    "a user": "quillfeather",
    "the user who called sudo": "umberfield",
    "a user in a home directory": "thistledown",
    "a user on macOS": "marrowgate",
    "the user inside a container": "ospreyline",
    "the name of the machine": "brambletop",
    "the host asked for": "ledgerhall.corvane.example.org",
    "the domain of a company": "corvane",
    "a name of the hosts file": "vaultside",
    "a name in a line of the hosts file that is commented out": "hollowmere",
    "a search domain in prose": "sablewick.net",
    "the user of a DSN": "dsnpartridge",
    "the database of a DSN": "ledgerbase",
    "a public IPv4 address": "151.101.65.69",
    "a public network": "185.199.108.0/22",
    "a public address in a rule": "140.82.112.3",
    "a public IPv6 address": "2a04:4e42:600::773",
    "a public address mapped into IPv6": "::ffff:104.16.132.229",
    "a public name server": "208.67.222.222",
    "a link-layer address": "3c:22:fb:9a:81:d7",
    "a link-layer address in an IPv6 address": "fe80::3e22:fbff:fe9a:81d8",
    "a link-layer address in a rule": "f0:18:98:44:ab:0c",
    "a container": "plumtree-web-1",
    "the id of a container": "7be2a9c41d03f58e7be2a9c41d03f58e7be2a9c41d03f58e7be2a9c41d03f58e",
    "the beginning of the id": "7be2a9c41d03",
    "an image": "winterbourne",
    "the registry of an image": "registry.oakhaven.io",
    "a container network": "saltmarsh-net",
    "a Compose project": "plumtree",
    "a Compose service": "gannetapi",
    "an alias of a service": "kestreldb",
    "a profile": "fenwick",
    "an environment variable": "CORVANE_TOKEN_URL",
    "a unit": "wherryd.service",
    "an instance of a unit": "moorhen",
    "a project directory": "larkspur",
    "a file of it": "compose.nightjar.yaml",
    "a program of their own": "dovecotte",
    "the file of the program": "heronsgate",
    "a word of a command line": "mistlethrush",
    "an option of their own": "redwing-mode",
    "a host in a command line": "curlew.internal",
    "an interface": "wg-corvane",
    "a network namespace": "siskinns",
    "a table": "corvanefw",
    "a chain": "linnetguard",
    "a chain that is only called": "wrybill-jump",
    "a set": "ploverset",
    "a comment of a rule": "ticket by Quentin Ashgrove",
    "a log prefix": "ptarmigan-drop",
    "a BPF program": "capercaillie",
    "a cgroup": "bittern.slice",
    "the suffix of a kernel": "woodcock",
    "an error of an engine": "fieldfare",
    "a socket of an engine": "whimbrel.sock",
    "an e-mail address in prose": "j.dunnock@garganey.org",
    "a path in a message": "/opt/whinchat/secret.key",
    "a word in a doubt": "wigeon",
    "a value in a compose file": "goosander",
    "a module of nsswitch.conf": "libnss-avocet",
}


def machine(of: dict[str, str] = CANARIES) -> Snapshot:
    """It has all of them, in the fields where they stand in life."""
    c = of
    container = Container("docker", c["the id of a container"], c["a container"])
    process = Process(
        pid=4242,
        program=c["a program of their own"],
        command=(
            f"/opt/{c['a project directory']}/bin/{c['the file of the program']} {c['a word of a command line']} "
            f"--{c['an option of their own']}=1 --host {c['a host in a command line']} "
            f"-c /home/{c['a user in a home directory']}/app.conf {c['a public IPv4 address']}:8443 "
            f"/Users/{c['a user on macOS']}/x.py"
        ),
        uid=1000,
        user=c["a user"],
        state="S",
        started_at="2026-11-23T10:00:00Z",
        executable=f"/opt/{c['a project directory']}/bin/{c['the file of the program']}",
        unit=c["a unit"],
        container=container,
    )
    file = f"/home/{c['a user in a home directory']}/{c['a project directory']}/{c['a file of it']}"
    spot = Spot(file, 7, f"      {c['an environment variable']}: http://", f":80/{c['a value in a compose file']}")
    decider = RuleRef(
        Backend.NFT,
        "inet",
        c["a table"],
        c["a chain"],
        f'iifname "{c["an interface"]}" ether saddr {c["a link-layer address in a rule"]} ip saddr '
        f"{{ {c['a public network']}, {c['a public address in a rule']} }} ip daddr @{c['a set']} meta skuid "
        f'"{c["a user"]}" log prefix "{c["a log prefix"]} " drop comment "{c["a comment of a rule"]}"',
        handle=7,
        comment=c["a comment of a rule"],
    )
    walk = Walk(
        address="127.0.0.1",
        port=8080,
        outcome=unanswered("127.0.0.1:8080").outcome,
        steps=(
            Step("syn", "input", replace(decider, text="policy accept"), f"jump {c['a chain that is only called']}"),
            Step("syn", "input", decider, "drop"),
        ),
        decider=decider,
        verdict="drop",
        hook="input",
        doubts=(f"the copy lacks {c['a word in a doubt']} of {c['a set']}",),
        came=Approach(Endpoint("127.0.0.1", 8080), c["an interface"], "172.18.0.2"),
        reader=f"{c['a program of their own']} (pid 12)",
        beside=(f"BPF program {c['a BPF program']} of cgroup {c['a cgroup']}",),
    )
    host = c["the host asked for"]
    attempt = replace(
        unanswered("127.0.0.1:8080"),
        wire=Known((WireReply("reset", "172.17.0.1", 64, interface="eth0", link=c["a link-layer address"]),)),
        drops=Known((Drop("NETFILTER_DROP", "nft_do_chain"),)),
        behind=Known(
            Behind(Endpoint("172.18.0.2", 80), 77, Acceptance.ACCEPTED, 3.0, forwarder="docker-proxy (pid 9)")
        ),
    )
    dsn = f"postgres://{c['the user of a DSN']}:***@{host}:8080/{c['the database of a DSN']}"
    cgroup = Cgroup(
        f"/sys/fs/cgroup/{c['a cgroup']}/{c['a unit']}",
        (CgroupProgram(Hook.EGRESS, 7, c["a BPF program"], f"/sys/fs/cgroup/{c['a cgroup']}"),),
    )
    return Snapshot(
        netdiag="0.1.0",
        started_at="2026-11-23T10:00:00Z",
        duration_ms=1.0,
        target=Target(dsn, host, 8080, "postgres"),
        intent=Intent.CONNECT,
        scope=Scope(1.0),
        vantage=Vantage(
            hostname=c["the name of the machine"],
            platform="linux",
            kernel=f"6.1.0-{c['the suffix of a kernel']}-amd64",
            user=c["a user"],
            uid=1000,
            privileged=False,
            network_namespace=4026531840,
            container=container,
            origin=f"container:{c['a container']}",
            sudo_user=c["the user who called sudo"],
            side=Side(
                f"container {c['a container']}",
                f"/run/netns/{c['a network namespace']}",
                4711,
                c["the user inside a container"],
                own_files=False,
                confined=(f"its AppArmor profile {c['a word in a doubt']}",),
            ),
        ),
        program=Program(user=f"/home/{c['a user in a home directory']}/.local/bin/netdiag"),
        names=Known(
            Resolution(
                host,
                (
                    ResolvedAddress(c["a public IPv4 address"], "ipv4"),
                    ResolvedAddress(c["a public IPv6 address"], "ipv6"),
                    ResolvedAddress(c["a public address mapped into IPv6"], "ipv6"),
                    ResolvedAddress("127.0.0.1", "ipv4"),
                ),
                1.0,
                doubts=(c["a module of nsswitch.conf"],),
            )
        ),
        attempts=(attempt, refused(f"{c['a public IPv4 address']}:8080", local=False)),
        links=Known(
            Links(
                (
                    Interface("lo", True, ("127.0.0.1",)),
                    Interface(c["an interface"], True, (c["a link-layer address in an IPv6 address"],)),
                ),
                Known((Gateway(c["a public address in a rule"], c["an interface"], "ipv4"),)),
            )
        ),
        sockets=Known((listening("0.0.0.0:8080", device=c["an interface"]),)),
        listeners=Known((listening("0.0.0.0:8080"),)),
        holders=Known(Holders((Holder(1, process),), 3, f"the sandbox of {c['a user']} hides some")),
        routing=Known(
            Routing(
                (
                    RouteLookup(
                        c["a public IPv4 address"], RouteKind.UNICAST, c["an interface"], c["a public name server"]
                    ),
                ),
                (
                    RoutingRule(
                        "ipv4", 100, "lookup", 7, f"from all to {c['a public network']} iif {c['an interface']}"
                    ),
                ),
                (),
            )
        ),
        hosts=Known(
            HostsFile(
                "/etc/hosts",
                0o644,
                0,
                True,
                False,
                (
                    HostsEntry(1, "127.0.0.1", ("localhost",), text="127.0.0.1 localhost"),
                    HostsEntry(2, "10.1.2.3", (c["a name of the hosts file"],), text=f"10.1.2.3 {_name(c)}"),
                    HostsEntry(3, c["a public IPv4 address"], (host,), text=f"{c['a public IPv4 address']}\t{host}"),
                    HostsEntry(
                        4,
                        "10.1.2.4",
                        (c["a name in a line of the hosts file that is commented out"],),
                        commented=True,
                    ),
                ),
                inside=f"container {c['a container']}",
            )
        ),
        resolver=Known(
            ResolverConfig(
                ("files", c["a module of nsswitch.conf"], "dns"),
                (c["a public name server"],),
                ("precedence ::ffff:0:0/96 100", f"label {c['a public IPv6 address']}/128 99"),
                f"hosts: files {c['a module of nsswitch.conf']} dns",
            )
        ),
        elsewhere=Known(
            Elsewhere(
                (
                    OtherListener(
                        4026532000,
                        Endpoint("127.0.0.1", 8080),
                        c["a network namespace"],
                        process,
                        container,
                        f"app@{c['an instance of a unit']}.service",
                        12,
                        c["a program of their own"],
                    ),
                ),
                2,
            )
        ),
        containers=Known(_containers(c, container)),
        compose=Known(
            ComposeProject(
                name=c["a Compose project"],
                directory=f"/home/{c['a user in a home directory']}/{c['a project directory']}",
                files=(file,),
                services=(
                    Service(
                        name=c["a Compose service"],
                        file=file,
                        line=3,
                        image=f"{c['the registry of an image']}/{c['an image']}/postgres",
                        container_name=c["a container"],
                        ports=(PortEntry(file=file, line=5, container_port=80, host_port=8080, container_spot=spot),),
                        networks=(c["a container network"],),
                        aliases=(c["an alias of a service"],),
                        extra_hosts=(c["a name of the hosts file"],),
                        references=(
                            Reference(
                                variable=c["an environment variable"],
                                file=file,
                                line=7,
                                host=c["an alias of a service"],
                                port=80,
                                spot=spot,
                            ),
                        ),
                        listening=(Listening(spot, "0.0.0.0"),),
                        depends_on=(c["an alias of a service"],),
                        profiles=(c["a profile"],),
                    ),
                ),
                unread=(Unread(file, 9, f"{c['a value in a compose file']} is no port"),),
                call=("docker", "compose", "-p", c["a Compose project"], "-f", file),
            )
        ),
        firewall=Known(
            Shadow(
                (walk,),
                uncarried=(f"set {c['a set']}: {c['a path in a message']} is not there",),
                wordless=(f"ask {c['an e-mail address in prose']}",),
            )
        ),
        cgroup_filters=Known(
            CgroupFilters(Known(cgroup), (ListenerCgroup(1, Known(cgroup)),), Known((c["a word in a doubt"],)))
        ),
        later=Unknown(
            Reason.FAILED, f"no answer from {c['a search domain in prose']} of {c['the domain of a company']}"
        ),
    )


def _name(c: dict[str, str]) -> str:
    return f"{c['a name of the hosts file']}  # {c['a word in a doubt']}"


def _containers(c: dict[str, str], container: Container) -> Containers:
    return Containers(
        engines=(
            Engine(
                "docker",
                f"unix:///home/{c['a user in a home directory']}/{c['a socket of an engine']}",
                Known(
                    (
                        EngineContainer(
                            container=container,
                            status=Status.RUNNING,
                            image=f"{c['the registry of an image']}/team/{c['an image']}:v2",
                            error=f"driver failed on {c['a container']}: {c['an error of an engine']} is in use",
                            network_mode=c["a container network"],
                            published=(Published("0.0.0.0", 8080, 80),),
                            attachments=(
                                Attachment(
                                    c["a container network"],
                                    ("172.18.0.2",),
                                    ("172.18.0.1",),
                                    (c["an alias of a service"], c["the beginning of the id"]),
                                ),
                            ),
                            compose=ComposeService(
                                c["a Compose project"],
                                c["a Compose service"],
                                f"/home/{c['a user in a home directory']}/{c['a project directory']}",
                                (c["a file of it"],),
                            ),
                        ),
                    )
                ),
            ),
        ),
        insides=(Inside(container, 4026532000, 77, ("172.18.0.2",), Known((listening("127.0.0.1:80"),))),),
        forwarders=Known((Forwarder(70, "docker-proxy", Endpoint("0.0.0.0", 8080), Endpoint("172.18.0.2", 80)),)),
    )
