"""Who made a rule, told by the names that firewalls, engines and VPNs give their chains, tables and comments."""

from __future__ import annotations

import re
from enum import Enum
from typing import assert_never

from msgspec import Struct

from diagnose.model.firewall import Backend, RuleRef, Step, Walk


class Owner(Enum):
    """What kind of program keeps the rule."""

    UFW = "ufw"
    FIREWALLD = "firewalld"
    DOCKER = "Docker"
    PODMAN = "Podman"
    CNI = "a CNI plugin"
    KUBERNETES = "Kubernetes"
    SERVICE_MESH = "a service mesh"
    LIBVIRT = "libvirt"
    FAIL2BAN = "fail2ban"
    CROWDSEC = "CrowdSec"
    VPN = "a VPN"
    SYSTEMD = "systemd"
    APPLICATION_FIREWALL = "an application firewall"
    PLAIN = "nobody known"
    """An administrator's own rule, or one of a program that leaves no name."""


class Maker(Struct, frozen=True):
    """The program that made a rule, by the name that people know."""

    owner: Owner
    name: str


class _Sign(Struct, frozen=True):
    maker: Maker
    chain: re.Pattern[str] | None = None
    table: re.Pattern[str] | None = None
    """Of native nftables: every iptables rule stands in a table that all share."""
    text: re.Pattern[str] | None = None


def _sign(
    owner: Owner, name: str = "", *, chain: str | None = None, table: str | None = None, text: str | None = None
) -> _Sign:
    def pattern(source: str | None) -> re.Pattern[str] | None:
        return None if source is None else re.compile(source)

    return _Sign(Maker(owner, name or owner.value), pattern(chain), pattern(table), pattern(text))


_PLAIN = Maker(Owner.PLAIN, Owner.PLAIN.value)
_UFW = Maker(Owner.UFW, Owner.UFW.value)
_FIREWALLD = Maker(Owner.FIREWALLD, Owner.FIREWALLD.value)
_SIGNS = (
    _sign(Owner.UFW, chain=r"ufw6?-"),
    _sign(Owner.FIREWALLD, table=r"firewalld(_policy_drop|_\w+)?$"),
    _sign(Owner.FIREWALLD, chain=r"(IN|FWD[IO]?)_[\w-]+_(pre|log|deny|allow|post)$"),
    _sign(
        Owner.FIREWALLD,
        chain=r"(PREROUTING|POSTROUTING|INPUT|OUTPUT|FORWARD)_(direct|ZONES|ZONES_SOURCE|POLICIES_pre)$",
    ),
    _sign(Owner.FAIL2BAN, chain=r"f2b-", table=r"f2b-table$", text=r"--match-set f2b-"),
    _sign(Owner.CROWDSEC, chain=r"CROWDSEC", table=r"crowdsec6?$", text=r"--match-set crowdsec"),
    # what stands in DOCKER-USER is the administrator's own, and Docker leaves it alone
    _sign(Owner.DOCKER, chain=r"DOCKER(?!-USER$)(-|$)", table=r"docker-bridges$"),
    _sign(Owner.PODMAN, chain=r"NETAVARK[-_]", table=r"netavark$"),
    _sign(Owner.CNI, chain=r"CNI-"),
    _sign(Owner.KUBERNETES, "Calico", chain=r"cali-", table=r"calico$"),
    _sign(Owner.KUBERNETES, "Cilium", chain=r"(OLD_)?CILIUM_"),
    _sign(Owner.KUBERNETES, "kube-proxy", chain=r"KUBE-", table=r"kube-proxy$"),
    _sign(Owner.SERVICE_MESH, "Istio", chain=r"ISTIO_"),
    _sign(Owner.SERVICE_MESH, "Linkerd", chain=r"PROXY_INIT_"),
    _sign(Owner.LIBVIRT, chain=r"LIBVIRT_", table=r"libvirt_network$"),
    _sign(Owner.VPN, "Tailscale", chain=r"ts-(input|forward|postrouting)$"),
    _sign(Owner.VPN, "NordVPN", chain=r"nordvpn", table=r"nordvpn", text=r"\bnordvpn\b"),
    _sign(Owner.VPN, "Mullvad VPN", table=r"mullvad"),
    _sign(Owner.VPN, "Proton VPN", chain=r"(protonvpn|pvpn)", table=r"(protonvpn|pvpn)", text=r"\bpvpn-"),
    _sign(Owner.VPN, "Private Internet Access", chain=r"piavpn\.", table=r"piavpn"),
    _sign(Owner.VPN, "ExpressVPN", chain=r"evpn\."),
    _sign(Owner.VPN, "IVPN", chain=r"IVPN-"),
    _sign(Owner.VPN, "Windscribe", chain=r"windscribe_", table=r"windscribe"),
    _sign(Owner.VPN, "Cloudflare WARP", table=r"cloudflare-warp$"),
    _sign(Owner.VPN, "wg-quick", table=r"wg-quick-", text=r"wg-quick\(8\)"),
    _sign(Owner.SYSTEMD, "systemd-networkd", table=r"io\.systemd\."),
    _sign(Owner.APPLICATION_FIREWALL, "OpenSnitch", table=r"opensnitch$", chain=r"opensnitch"),
    _sign(Owner.APPLICATION_FIREWALL, "Portmaster", chain=r"PORTMASTER-"),
    _sign(Owner.APPLICATION_FIREWALL, text=r"(^|\s)(-j NFQUEUE|queue( flags \S+)? (to|num)|queue$)"),
)


def maker(rule: RuleRef) -> Maker:
    """The program that made the rule, by where it stands and what it says."""
    return next((sign.maker for sign in _SIGNS if _carries(rule, sign)), _PLAIN)


def _carries(rule: RuleRef, sign: _Sign) -> bool:
    if sign.chain is not None and sign.chain.match(rule.chain):
        return True
    if sign.table is not None and rule.backend is Backend.NFT and sign.table.match(rule.table):
        return True
    return sign.text is not None and bool(sign.text.search(f"{rule.text} {rule.comment or ''}"))


def maker_on(walk: Walk) -> Maker:
    """The program behind the decider; the policy of a built-in chain that calls ufw's chains is ufw's as well."""
    decider = walk.decider
    if decider is None:
        return _PLAIN
    made = maker(decider)
    if made.owner is Owner.PLAIN and decider.policy and any(_calls_ufw(step, decider) for step in walk.steps):
        return _UFW
    if made.owner is Owner.PLAIN and any(_calls_its_parts(step, decider) for step in walk.steps):
        return _FIREWALLD
    return made


def _calls_its_parts(step: Step, decider: RuleRef) -> bool:
    """Whether the decider stands in the chain of a zone of firewalld: one that calls another of its own name."""
    same = (step.rule.backend, step.rule.table, step.rule.chain) == (decider.backend, decider.table, decider.chain)
    return same and decider.chain.startswith("IN_") and called_chain(step) == f"{decider.chain}_deny"


def _calls_ufw(step: Step, decider: RuleRef) -> bool:
    place = (step.rule.backend, step.rule.family, step.rule.table, step.rule.chain)
    same = place == (decider.backend, decider.family, decider.table, decider.chain)
    return same and called_chain(step).startswith(("ufw-", "ufw6-"))


def called_chain(step: Step) -> str:
    """The chain that a step leads into; of iptables-legacy the verdict is the chain's name alone, in small letters."""
    return step.verdict.rpartition(" ")[2]


def brings_back(made: Maker) -> str:
    """Whose rule it is, and what would bring it back, as a sentence without its stop; empty: nobody known."""
    match made.owner:
        case Owner.UFW:
            how = "every boot and `ufw reload` load it again from /etc/ufw"
        case Owner.FIREWALLD:
            how = "every start of it and `firewall-cmd --reload` build its tables anew"
        case Owner.DOCKER:
            how = "it is written again when the engine or the container starts"
        case Owner.PODMAN:
            how = "it is written again when the container starts, and by `podman network reload --all`"
        case Owner.CNI:
            how = "it is written again when the container starts"
        case Owner.KUBERNETES:
            how = "it follows what the cluster says, and is written again before long"
        case Owner.SERVICE_MESH:
            how = "it is written again when the pod or its proxy starts"
        case Owner.LIBVIRT:
            how = "it is written again when the daemon or the virtual network starts"
        case Owner.FAIL2BAN:
            how = "the next ban adds it again, and so does its start while the ban lasts"
        case Owner.CROWDSEC:
            how = "its bouncer adds the address again while the decision lasts"
        case Owner.VPN:
            how = "it comes back when the VPN connects, so its own settings (kill switch, split tunnel) must allow this"
        case Owner.SYSTEMD:
            how = "it is written again when the network is configured"
        case Owner.APPLICATION_FIREWALL:
            how = "it comes back when that program starts, so its own settings must allow this"
        case Owner.PLAIN:
            return ""
        case _:
            assert_never(made.owner)
    return f"The rule is {made.name}'s: {how}"


def keeps(made: Maker) -> str:
    """Where a change has to be made to outlive that, as a sentence; empty: nobody known."""
    match made.owner:
        case Owner.UFW:
            where = "a rule given to ufw (`ufw allow`, `ufw delete`), or its files before.rules and before6.rules"
        case Owner.FIREWALLD:
            where = "a zone or policy of firewalld, with `--permanent`"
        case Owner.DOCKER:
            where = (
                "what the container publishes, its network's options, or DOCKER-USER, a chain that Docker leaves alone"
            )
        case Owner.PODMAN:
            where = "what the container publishes, or its network's options"
        case Owner.CNI:
            where = "the plugin's configuration, often in /etc/cni/net.d"
        case Owner.KUBERNETES:
            where = "the Service or NetworkPolicy behind it"
        case Owner.SERVICE_MESH:
            where = "the annotations of the pod that exclude ports"
        case Owner.LIBVIRT:
            where = "the definition of the network (`virsh net-edit`) or of its filter (`virsh nwfilter-edit`)"
        case Owner.FAIL2BAN:
            where = "fail2ban's own list (`fail2ban-client set JAIL unbanip`), and `ignoreip` in the jail"
        case Owner.CROWDSEC:
            where = "CrowdSec's own list (`cscli decisions delete --ip`), and an allow list there"
        case Owner.VPN | Owner.APPLICATION_FIREWALL:
            where = f"the settings of {made.name}"
        case Owner.SYSTEMD:
            where = "the .network file of the interface"
        case Owner.PLAIN:
            return ""
        case _:
            assert_never(made.owner)
    return f"To keep this over a reboot, change it there as well: {where}."
