"""Who made a rule, by its names; and when the owner's own command is offered."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from msgspec.structs import replace

from diagnose.analysis.argument import objected
from diagnose.analysis.firewall_remedies import candidates
from diagnose.analysis.mending import mending
from diagnose.analysis.owner_remedies import owner_remedies
from diagnose.analysis.rule_owner import Owner, brings_back, keeps, maker, maker_on
from diagnose.analysis.walk import ban_jail
from diagnose.model.attempt import Outcome
from diagnose.model.fact import Known, Reason, Unknown
from diagnose.model.finding import Command, Rehearsal
from diagnose.model.firewall import Backend, RuleRef, Step, Walk
from tests.scenes import rehearsed

PORT = "8080"
DROP = f"-p tcp -m tcp --dport {PORT} -j DROP"


def xt(chain: str, text: str = DROP, **more: object) -> RuleRef:
    """A rule of iptables in the filter table."""
    return RuleRef(Backend.IPTABLES_NFT, "ip", "filter", chain, text, **{"line": 1, **more})  # type: ignore[arg-type]


def native(table: str, chain: str = "input", text: str = f"tcp dport {PORT} drop") -> RuleRef:
    """A rule of nftables."""
    return RuleRef(Backend.NFT, "inet", table, chain, text, handle=7)


@pytest.mark.parametrize(
    ("rule", "owner", "name"),
    [
        (xt("ufw-user-input"), Owner.UFW, "ufw"),
        (xt("ufw6-before-output"), Owner.UFW, "ufw"),
        (native("firewalld", "filter_IN_public"), Owner.FIREWALLD, "firewalld"),
        (native("firewalld_policy_drop", "raw_output"), Owner.FIREWALLD, "firewalld"),
        (xt("IN_public_deny"), Owner.FIREWALLD, "firewalld"),
        (xt("INPUT_direct"), Owner.FIREWALLD, "firewalld"),
        (xt("DOCKER"), Owner.DOCKER, "Docker"),
        (xt("DOCKER-ISOLATION-STAGE-1"), Owner.DOCKER, "Docker"),
        (xt("NETAVARK_FORWARD"), Owner.PODMAN, "Podman"),
        (native("netavark"), Owner.PODMAN, "Podman"),
        (xt("CNI-HOSTPORT-DNAT"), Owner.CNI, "a CNI plugin"),
        (xt("LIBVIRT_INP"), Owner.LIBVIRT, "libvirt"),
        (native("libvirt_network"), Owner.LIBVIRT, "libvirt"),
        (xt("f2b-sshd"), Owner.FAIL2BAN, "fail2ban"),
        (xt("INPUT", "-m set --match-set f2b-sshd src -j REJECT"), Owner.FAIL2BAN, "fail2ban"),
        (xt("KUBE-SERVICES"), Owner.KUBERNETES, "kube-proxy"),
        (xt("cali-INPUT"), Owner.KUBERNETES, "Calico"),
        (xt("ISTIO_OUTPUT"), Owner.SERVICE_MESH, "Istio"),
        (xt("ts-input"), Owner.VPN, "Tailscale"),
        (xt("OUTPUT", '-m comment --comment "nordvpn-0" -j DROP'), Owner.VPN, "NordVPN"),
        (native("mullvad"), Owner.VPN, "Mullvad VPN"),
        (native("wg-quick-wg0"), Owner.VPN, "wg-quick"),
        (native("io.systemd.nat"), Owner.SYSTEMD, "systemd-networkd"),
        (xt("OUTPUT", "-j NFQUEUE --queue-num 0"), Owner.APPLICATION_FIREWALL, "an application firewall"),
        (native("filter", text="ct state new queue flags bypass to 0"), Owner.APPLICATION_FIREWALL, ""),
        (native("opensnitch", text="queue to 0"), Owner.APPLICATION_FIREWALL, "OpenSnitch"),
        (xt("INPUT"), Owner.PLAIN, "nobody known"),
        (xt("DOCKER-USER"), Owner.PLAIN, "nobody known"),
        (xt("DOCKERFILE-TESTS"), Owner.PLAIN, "nobody known"),
        (xt("my-ufw-rules"), Owner.PLAIN, "nobody known"),
        (native("filter"), Owner.PLAIN, "nobody known"),
        (native("my-firewalld"), Owner.PLAIN, "nobody known"),
    ],
)
def test_a_rule_is_given_to_its_maker(rule: RuleRef, owner: Owner, name: str) -> None:
    made = maker(rule)
    assert made.owner is owner
    assert name in made.name


def test_the_native_names_of_tables_say_nothing_of_an_iptables_rule() -> None:
    assert maker(replace(xt("INPUT"), table="netavark")).owner is Owner.PLAIN


@pytest.mark.parametrize("owner", list(Owner))
def test_what_brings_a_rule_back_is_told_of_every_maker_that_is_known(owner: Owner) -> None:
    told = brings_back(replace(maker(xt("ufw-user-input")), owner=owner, name=owner.value))
    assert bool(told) is (owner is not Owner.PLAIN)
    lasting = keeps(replace(maker(xt("ufw-user-input")), owner=owner, name=owner.value))
    assert bool(lasting) is (owner is not Owner.PLAIN)
    for words in (told, lasting):
        assert not any(word in words for word in ("flush", "disable", "stop the firewall"))


def test_jails_are_read_from_chains_and_sets() -> None:
    assert ban_jail(xt("f2b-sshd")) == "sshd"
    assert ban_jail(native("f2b-table", "f2b-chain", "tcp dport 22 ip saddr @addr-set-sshd reject")) == "sshd"
    assert ban_jail(xt("INPUT", "-m set --match-set f2b-web src -j REJECT")) == "web"
    assert ban_jail(xt("INPUT")) is None


def ufw_walk(decider: RuleRef, *tried: str, entered: str = "ufw-user-input") -> Walk:
    """A SYN that ufw's chains saw."""
    steps = (
        Step("syn", "input", xt("INPUT", "-j ufw-before-input"), "jump ufw-before-input"),
        Step("syn", "input", xt("ufw-before-input", f"-j {entered}"), f"jump {entered}"),
        Step("syn", "input", decider, "drop"),
    )
    walk = Walk("127.0.0.1", 8080, Outcome.UNANSWERED, steps, decider, "drop", hook="input")
    summaries = [one.summary for one in candidates(walk)]
    numbers = [next(at for at, summary in enumerate(summaries) if summary.startswith(one)) for one in tried]
    return replace(walk, rehearsals=Known(tuple(rehearsed(walk, one) for one in numbers)))


ACCEPT, WHOLE_LOOPBACK = "Accept connections to", "Accept everything on the loopback"
"""How the candidates begin."""
POLICY = RuleRef(Backend.IPTABLES_NFT, "ip", "filter", "INPUT", "policy drop", policy=True)


def test_ufws_own_command_is_offered_where_its_user_chain_comes_first_and_an_accept_suffices() -> None:
    for decider in (xt("ufw-user-input", line=3), POLICY):
        (remedy,) = owner_remedies(ufw_walk(decider, ACCEPT), ("ufw",))
        assert remedy.commands[0].argv[:6] == ("ufw", "prepend", "allow", "in", "on", "lo")
        assert remedy.undo[0].argv[:3] == ("ufw", "delete", "allow")
        assert remedy.rehearsal is None


def test_the_policy_of_a_chain_that_calls_ufw_is_ufws() -> None:
    assert maker_on(ufw_walk(POLICY)).owner is Owner.UFW
    assert maker_on(replace(ufw_walk(POLICY), steps=())).owner is Owner.PLAIN


def _with(walk: Walk, **changes: Any) -> Walk:
    """With another result of its rehearsal."""
    assert isinstance(walk.rehearsals, Known)
    return replace(walk, rehearsals=Known(tuple(replace(one, **changes) for one in walk.rehearsals.value)))


@pytest.mark.parametrize(
    "walk",
    [
        _with(ufw_walk(xt("ufw-user-input"), ACCEPT), mended=False),
        ufw_walk(POLICY, WHOLE_LOOPBACK),
        _with(ufw_walk(xt("ufw-user-input"), ACCEPT), commands=(Command(("sh",)),)),
        ufw_walk(xt("ufw-before-input"), ACCEPT, entered="ufw-not-local"),
        ufw_walk(xt("INPUT"), ACCEPT),
        replace(ufw_walk(xt("ufw-user-input"), ACCEPT), packet="reply"),
    ],
)
def test_ufws_own_command_is_not_offered_where_it_was_not_seen_to_help(walk: Walk) -> None:
    assert not list(owner_remedies(walk, ("ufw",)))


def test_where_nothing_could_be_tried_ufws_own_command_still_comes_first_and_says_so() -> None:
    walk = replace(ufw_walk(POLICY), rehearsals=Unknown(Reason.DEADLINE, "no time was left"))
    first, *_ = mending(walk, "127.0.0.1", ("ufw",))
    assert first.commands[0].argv[:3] == ("ufw", "prepend", "allow")
    assert first.rehearsal is None
    assert "It was not tried in a copy of the rules (no time was left)" in first.summary
    elsewhere = ufw_walk(xt("ufw-before-input"), entered="ufw-not-local")
    assert not list(owner_remedies(replace(elsewhere, rehearsals=Unknown(Reason.DEADLINE)), ("ufw",)))


def test_no_command_is_offered_of_an_owner_that_is_not_at_work() -> None:
    assert not list(owner_remedies(ufw_walk(xt("ufw-user-input"), ACCEPT), ("firewall-cmd",)))


# ------ what the owner's own command adds, tried at its own place


OWN_PLACE = "Accept this connection at the top of chain"


def test_the_accept_of_ufw_is_tried_at_the_top_of_its_user_chain_and_its_result_is_the_command_s() -> None:
    for decider in (xt("ufw-user-input", line=3), POLICY):
        walk = _with(ufw_walk(decider, OWN_PLACE), opens=("127.0.0.1:8080 from this machine",))
        assert isinstance(walk.rehearsals, Known)
        (tried,) = walk.rehearsals.value
        assert tried.commands[0].argv[:6] == ("iptables-nft", "-t", "filter", "-I", "ufw-user-input", "1")
        (remedy,) = owner_remedies(walk, ("ufw",))
        assert remedy.rehearsal == Rehearsal(True, ("127.0.0.1:8080 from this machine",))
        assert mending(walk, "127.0.0.1", ("ufw",)) == (remedy,)


def test_where_ufw_is_not_at_work_the_accept_at_its_place_is_an_ordinary_remedy() -> None:
    (remedy,) = mending(ufw_walk(POLICY, OWN_PLACE), "127.0.0.1", ())
    assert remedy.commands[0].argv[0] == "iptables-nft"
    assert "iptables-nft-save" not in remedy.summary


def test_what_ufw_made_is_kept_in_ufw_also_where_its_policy_stops_it() -> None:
    for remedy in mending(ufw_walk(POLICY, ACCEPT), "127.0.0.1", ("ufw",)):
        assert "iptables-nft-save" not in remedy.summary
    plain = replace(ufw_walk(POLICY), steps=())
    assert "iptables-nft-save" in candidates(plain)[0].summary


def zone_walk(backend: Backend = Backend.IPTABLES_NFT) -> Walk:
    """A SYN that firewalld led through a policy of its own, to zone public, whose chain rejects it."""
    if backend is Backend.NFT:
        zones, zone, policy = "filter_INPUT_ZONES", "filter_IN_public", "filter_IN_policy_allow-host-ipv6"
        chain: Callable[[str, str], RuleRef] = partial(native, "firewalld")
    else:
        zones, zone, policy = "INPUT_ZONES", "IN_public", "IN_allow-host-ipv6"
        chain = xt
    decider = chain(zone, "reject" if backend is Backend.NFT else "-j REJECT")
    called = [("INPUT_POLICIES_pre", policy), (policy, f"{policy}_pre"), (zones, zone)]
    called += [(zone, f"{zone}_{part}") for part in ("pre", "log", "deny", "allow", "post")]
    steps = [Step("syn", "input", chain(source, f"-j {target}"), f"jump {target}") for source, target in called]
    steps.append(Step("syn", "input", decider, "reject"))
    return Walk("127.0.0.1", 8080, Outcome.REFUSED, tuple(steps), decider, "reject", hook="input")


@pytest.mark.parametrize("backend", [Backend.NFT, Backend.IPTABLES_NFT])
def test_the_zone_of_firewalld_is_the_one_that_its_zones_chain_leads_to_and_no_policy(backend: Backend) -> None:
    walk = zone_walk(backend)
    assert maker_on(walk).owner is Owner.FIREWALLD
    at = next(number for number, one in enumerate(candidates(walk)) if one.summary.startswith(OWN_PLACE))
    walk = replace(walk, rehearsals=Known((rehearsed(walk, at),)))
    (remedy,) = owner_remedies(walk, ("firewall-cmd",))
    assert [command.argv[:2] for command in remedy.commands] == [
        ("firewall-cmd", "--zone=public"),
        ("firewall-cmd", "--permanent"),
    ]
    assert remedy.rehearsal == Rehearsal(True, ())
    assert objected((*remedy.commands, *remedy.undo)) is None


def test_a_chain_that_only_begins_like_a_zone_is_nobody_s() -> None:
    walk = zone_walk()
    assert maker_on(replace(walk, steps=walk.steps[-1:])).owner is Owner.PLAIN
