"""Words that identify nobody: netdiag's own, programs', systems' and tools'. What is not here is replaced."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from diagnose.parse import harmless, programs
from diagnose.parse.harmless import words

_VOCABULARY = Path(__file__).with_name("vocabulary.txt")
"""The words of netdiag's own texts; `scripts/vocabulary` writes it."""

GRAMMAR = words(
    "a about above accept accepted add address addresses after again all allow an and another any are as asked at "
    "be because before behind but by cannot chain comment connect connection container containers could count "
    "counter ct daddr default delete destination dnat dport drop each element elements engine established ether "
    "every file files for forward from gives goto group had handle has here host hour icmp icmpv6 if iif iifname in "
    "index inet input insert interface into invalid ip ip6 ipv4 ipv6 is it its jump l4proto limit listener local "
    "localhost log lookup loopback mac machine machines map mark masquerade matches meta minute more name namespace "
    "nat netdev network new nexthdr no not of oif oifname on once one only or order other our output over own "
    "packet packets pid policy port ports postrouting prerouting priority process processes program programs "
    "protocol queue random rate read redirect reject related reset return rule rules saddr second seconds see "
    "server service set sets skuid snat so socket some source sport state stop syn table tables tcp than that the "
    "their them there these they this those time to track type udp until untracked up user uses verdict vmap was "
    "way we what when where whether which while who with within without precedence label scopev4 reload mask numgen "
    "fib nameserver dns lo"
)
"""Words that a sentence or a rule falls apart without: a name that is one of them stays in prose, and in no field."""

_XT_TARGETS = words(
    "ACCEPT AUDIT CHECKSUM CLASSIFY CLUSTERIP CONNMARK CONNSECMARK CT DNAT DNPT DROP DSCP ECN HL HMARK LED LOG MARK "
    "MASQUERADE NETMAP NFLOG NFQUEUE NOTRACK QUEUE RATEEST REDIRECT REJECT RETURN SECMARK SET SNAT SNPT SYNPROXY "
    "TCPMSS TCPOPTSTRIP TEE TOS TPROXY TRACE TTL ULOG"
)
"""iptables-extensions(8)."""
_RULE_NAMES = words(
    "filter nat mangle raw security broute input output forward prerouting postrouting ingress egress firewalld "
    "firewalld_policy_drop f2b-table f2b-chain docker-bridges netavark kube-proxy libvirt_network fw4"
)
_BASE_CHAIN = re.compile(
    r"(?:filter|nat|mangle|raw|security)_(?:PREROUTING|INPUT|FORWARD|OUTPUT|POSTROUTING)", re.IGNORECASE
)
"""As firewalld calls its base chains."""
_FIREWALLD = re.compile(
    r"((?:(?:filter|nat|mangle|raw)_)?(?:INPUT|OUTPUT|FORWARD|FWD[IO]?|IN|OUT|PRE|POST|PREROUTING|POSTROUTING)_"
    r"(?:policy_)?)([\w-]+?)((?:_(?:pre|log|deny|allow|post))?)"
)
_ZONES = words(
    "direct ZONES ZONES_SOURCE POLICIES POLICIES_pre POLICIES_post public home internal work dmz block drop trusted "
    "external docker docker-forwarding libvirt libvirt-routed nm-shared FedoraServer FedoraWorkstation allow-host- "
    "ipv6 IN OUT"
)
_MAKERS = re.compile(
    r"ufw6?-|f2b-|addr6?-set-|DOCKER(?:-|$)|NETAVARK[-_]|CNI-|cali-|(?:OLD_)?CILIUM_|KUBE-|ISTIO_|PROXY_INIT_|LIBVIRT_"
    r"|ts-|nordvpn|mullvad|protonvpn|pvpn|piavpn\.|evpn\.|IVPN-|windscribe_?|cloudflare-warp|calico|wg-quick-"
    r"|io\.systemd\.|opensnitch|PORTMASTER-|crowdsec6?|CROWDSEC"
)
"""How the chains, tables and sets of known programs begin (diagnose.analysis.rule_owner)."""
SIGNS = re.compile(r"\bnordvpn\b|wg-quick\(8\)|\bpvpn-|\bCNI portfwd\b|\bnetavark\b|\bdnat name:")
"""What tells in a comment which program has made the rule."""

USERS = words(
    "root nobody daemon bin sys sync games man lp mail news uucp proxy www-data backup list irc gnats _apt sshd "
    "nginx apache http postgres mysql redis mongodb rabbitmq memcache node systemd-network systemd-resolve "
    "messagebus syslog SYSTEM"
)
_HOSTS = words(
    "localhost localhost.localdomain localhost4 localhost6 localhost4.localdomain4 localhost6.localdomain6 "
    "ip6-localhost ip6-loopback ip6-localnet ip6-mcastprefix ip6-allnodes ip6-allrouters ip6-allhosts broadcasthost "
    "host.docker.internal gateway.docker.internal kubernetes.docker.internal host.containers.internal *"
)
_SPECIAL = words("localhost local internal test invalid example home.arpa localdomain onion")
"""Names below which RFC 6761 and its like give a meaning of their own."""
NETWORKS = words("bridge host none podman default slirp4netns pasta private ingress")
IMAGES = words(
    "postgres postgis mysql mariadb redis valkey mongo rabbitmq memcached nginx httpd caddy traefik elasticsearch "
    "opensearch kafka zookeeper minio nats clickhouse-server cassandra influxdb grafana prometheus vault consul "
    "etcd neo4j adminer keycloak mailhog mailpit localstack eclipse-mosquitto busybox alpine debian ubuntu fedora "
    "python node golang php ruby openjdk docker.io library quay.io ghcr.io localhost"
)
_INTERFACES = re.compile(
    r"lo|(?:eth|wlan|dummy|tun|tap|tunl|gre|sit|ip6tnl|wg|bond|team|br|virbr|docker|podman|cni-podman|cni|lxcbr|lxdbr"
    r"|ens|eno|wwan|ppp|utun|en|bridge|ifb|vmnet|vboxnet|tailscale|flannel\.|macvlan|ipvlan|kube-ipvs|nordlynx|ib)\d{0,4}"
    r"|(?:en|wl)p\d{1,3}s\d{1,3}(?:f\d{1,2})?(?:np?\d{1,2})?|veth[0-9a-f]{1,8}|cilium_\w{1,8}|nordtun|kube-bridge"
)
_PATHS = words(
    "usr bin sbin lib lib32 lib64 libexec etc var run proc sys home root opt srv tmp dev mnt media local share snap "
    "nix fs cgroup unified net ns netns self task fd log cache spool mail www html sites-enabled conf.d "
    "system.slice user.slice init.scope machine.slice app.slice session.slice docker podman containerd kubepods "
    "libpod Users Library Applications Contents MacOS System Frameworks Windows System32 drivers Program Files "
    "ProgramData AppData Roaming Temp node_modules site-packages dist-packages venv .venv env .pyenv .nvm .rbenv "
    ".cargo .local .docker .config versions shims current src dist build target debug release public static "
    "templates compose.yaml compose.yml docker-compose.yaml docker-compose.yml docker-compose.override.yml .env "
    ".envrc compose.override.yaml package.json Dockerfile Makefile desktop docker.sock podman.sock busybox jvm java"
)
_MORE = words(
    "sleep cat tail head sh bash zsh init systemd agetty cron crond dbus-daemon polkitd udevd containerd-shim runc "
    "crun conmon pasta slirp4netns rootlesskit rootlessport dnsmasq resolved systemd-resolve networkd journald "
    "snapd tini busybox httpd ncat socat python pypy node java ruby perl php electron chrome firefox code beam.smp "
    "erl deno bun cupsd avahi-daemon rpcbind exim master smtpd named unbound chronyd ntpd sshd getty session scope "
    "slice service timer mount target device swap automount ssh apache2 postgresql mariadb mongod ufw nftables "
    "fail2ban multi-user graphical network-online NetworkManager wpa_supplicant ModemManager user podman-restart "
    "exe jar driver failed programming external connectivity endpoint bind already allocated use runtime create "
    "permission denied directory found exec executable mounting rootfs oci shim task starting unable operation "
    "supported userland conflict required input output error unexpected exit status signal killed generic amd64 "
    "arm64 x86 aarch64 azure aws gcp cloud microsoft standard wsl2 lowlatency rt pve el7 el8 el9 el10 fc iptables "
    "ip6tables ebtables arptables ipset conntrack ipv4 ipv6 datagrams cleanup cgroupfs arch lts zen hardened rpi "
    "linuxkit orbstack"
)
_RULE_WORDS = words(
    "addrtype dst-type src-type limit-iface ahspi cgroup cluster connbytes connlabel connlimit connlimit-above "
    "connlimit-upto connlimit-mask connlimit-saddr connlimit-daddr connmark conntrack ctstate ctproto ctorigsrc "
    "ctorigdst ctreplsrc ctrepldst ctorigsrcport ctorigdstport ctstatus ctexpire ctdir cpu dccp devgroup dscp dscp- "
    "class ecn esp hashlimit hashlimit-above hashlimit-upto hashlimit-burst hashlimit-mode hashlimit-name "
    "hashlimit-mask helper hl ipvs iprange src-range dst-range length limit-burst burst multiport dports sports "
    "nfacct osf owner uid-owner gid-owner socket-exists suppl-groups physdev physdev-in physdev-out physdev-is- "
    "bridged pkttype pkt-type quota rateest realm recent rcheck rttl hitcount rsource rdest rpfilter loose "
    "validmark match-set return-nomatch statistic probability every string algo bm kmp tcp-flags tcp-option syn "
    "tcpmss mss clamp-mss-to-pmtu set-mss to-destination to-source to-ports random-fully persistent set-mark set- "
    "xmark save-mark restore-mark nfmask ctmask and-mark or-mark xor-mark log-level log-tcp-sequence log-tcp- "
    "options log-ip-options log-uid nflog-group nflog-threshold queue-num queue-balance queue-bypass queue-cpu- "
    "fanout bypass fanout on-port on-ip tproxy-mark reject-with tcp-reset icmp-port-unreachable icmp-host- "
    "unreachable icmp-net-unreachable icmp-proto-unreachable icmp-net-prohibited icmp-host-prohibited icmp-admin- "
    "prohibited icmp6-port-unreachable icmp6-adm-prohibited icmp6-addr-unreachable icmp6-no-route adm-prohibited "
    "addr-unreachable no-route admin-prohibited port-unreachable host-unreachable net-unreachable prot-unreachable "
    "policy-fail reject-route RELATED ESTABLISHED NEW INVALID UNTRACKED LOCAL UNICAST BROADCAST ANYCAST MULTICAST "
    "BLACKHOLE UNREACHABLE PROHIBIT FIN SYN RST PSH ACK URG ALL NONE fin psh urg cwr echo-request echo-reply "
    "destination-unreachable time-exceeded parameter-problem nd-neighbor-solicit nd-neighbor-advert nd-router- "
    "solicit nd-router-advert dynamic interval constant flags bytes packets kbytes mbytes seconds minutes hours "
    "days week hooks skuid skgid cgroupv2 level notrack offload flowtable l4proto nfproto ibrname obrname iifgroup "
    "oifgroup iiftype oiftype ipsec prandom jhash symhash snat masquerade fully-random dup fwd tproxy synproxy "
    "wscale sack-perm timestamp logging before after track policy skip deny allow limit user v6only ctr hex-string "
    "from to icase ttl ttl-eq ttl-gt ttl-lt tos uidrange fwmark unreachable blackhole prohibit iif oif "
    "suppress_prefixlength HOSTPORT SETMARK DNAT SNAT FORWARD ADMIN ISOLATION STAGE BRIDGE CT INTERNAL INPUT OUTPUT "
    "POSTROUTING PREROUTING USER SERVICES EXTERNAL NODEPORTS FIREWALL MARK PROXY CANARY KUBELET dport sport ipproto "
    "tun_id"
)
"""nft(8), iptables-extensions(8), ip-rule(8)."""
_ERRORS = words(
    "such file directory interrupted input output device configured argument long format bad descriptor child "
    "temporarily unavailable allocate memory permission denied address block required busy exists cross link "
    "invalid many open inappropriate ioctl text large space left illegal seek read system links broken pipe "
    "numerical domain range deadlock avoided name locks available function implemented empty levels symbolic "
    "message desired type data timer expired streams resources machine network package remote been severed "
    "advertise protocol multihop value defined unique state changed accessing corrupted shared library linking "
    "libraries exec directly socket operation destination wrong option supported endpoint family assign requested "
    "down unreachable dropped connection reset aborted peer buffer transport connected cannot send shutdown "
    "references timed refused host route already progress stale handle structure needs cleaning quota exceeded "
    "medium found canceled key rejected service owner died recoverable rfkill hardware page permitted process "
    "numeric try again would"
)
"""strerror(3)."""
_NUMBERED = re.compile(r"v?\d{0,5}|[A-Za-z]+?\d{0,4}")
_PIECES = re.compile(r"[._+\-@:]+")
_LETTERS = re.compile(r"[A-Za-z]+")


@cache
def vocabulary() -> frozenset[str]:
    """Small letters."""
    return frozenset(_VOCABULARY.read_text(encoding="utf-8").split()) | {one.lower() for one in _names()}


@cache
def _names() -> frozenset[str]:
    """Programs, their subcommands and options, and the usual values of these."""
    rows = " ".join((*programs.ROWS, *programs.SAME.values(), *programs.ROWS.values(), *programs.TITLES.values()))
    more = " ".join((*programs.BY_NAME.values(), *programs.SAME))
    sets = (programs.FLAGS, programs.WORDS, programs.TASKS, programs.SOCAT, programs.SOCAT_OPTIONS, programs.RESOURCES)
    words_of = {word.strip("<>*-").partition(":")[0] for word in f"{rows} {more}".split()}
    pieces = {
        piece
        for word in words_of.union(*sets, _MORE, _RULE_WORDS, _ERRORS)
        for piece in (word, *_LETTERS.findall(word))
    }
    return frozenset(pieces)


def is_known(text: str) -> bool:
    """Whether it is a known word, or made of such: python3.11, docker-proxy, --no-reload."""
    if text in _MORE or text.lower() in vocabulary():
        return True
    return all(_is_piece(piece) for piece in _PIECES.split(text))


def _is_piece(piece: str) -> bool:
    if not piece or piece.lower() in vocabulary():
        return True
    return bool(_NUMBERED.fullmatch(piece)) and (
        not (bare := piece.rstrip("0123456789")) or bare == "v" or bare.lower() in vocabulary()
    )


def is_known_component(text: str) -> bool:
    """Of a path: its folders and files are those of systems, or made of known words."""
    stem, dot, extension = text.rpartition(".")
    if dot and extension.lower() in harmless.words_of_files():
        return text in _PATHS or is_known(stem)
    return text in _PATHS or is_known(text)


def is_known_host(text: str) -> bool:
    """A name that means the same on every machine."""
    return text.lower().rstrip(".") in _HOSTS


def special_suffix(text: str) -> str:
    """The end of a name below which names have a meaning of their own; empty: none."""
    bare = text.rstrip(".")
    found = (one for one in _SPECIAL if bare.lower().endswith(f".{one}"))
    return next((text[len(bare) - len(one) - 1 :] for one in found), text[len(bare) :])


def is_known_interface(text: str) -> bool:
    """A name that systems and engines give by themselves."""
    return bool(_INTERFACES.fullmatch(text))


def is_target(text: str) -> bool:
    """Of iptables: what a rule jumps to and is no chain."""
    return text in _XT_TARGETS


def rule_name(text: str) -> tuple[str, str, str]:
    """A name of a table, chain or set in three parts, of which the middle one is its maker's own choice."""
    if text.lower() in _RULE_NAMES or text in _XT_TARGETS or _BASE_CHAIN.fullmatch(text):
        return text, "", ""
    if firewalld := _FIREWALLD.fullmatch(text):
        start, zone, end = firewalld.groups()
        return (text, "", "") if zone in _ZONES else (start, zone, end)
    made = _MAKERS.match(text)
    if made is None:
        return "", text, ""
    rest = text[made.end() :]
    return (text, "", "") if _is_of_a_maker(rest) else (made[0], rest, "")


def _is_of_a_maker(rest: str) -> bool:
    return all(not piece or piece.lower() in vocabulary() or piece.isdigit() for piece in re.split(r"[-_.]", rest))
