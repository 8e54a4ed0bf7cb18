"""Comments and other free text of rules are not shown, and no remedy needs them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diagnose.analysis.firewall_remedies import removal
from diagnose.model.attempt import Outcome
from diagnose.model.firewall import Walk
from diagnose.model.rule import Backend, RuleRef, Step
from diagnose.parse.rule_text import hide_in_rule, hide_in_walk

XT, LEGACY = Backend.IPTABLES_NFT, Backend.IPTABLES_LEGACY


def rule(text: str, comment: str | None = None, backend: Backend = Backend.NFT) -> RuleRef:
    native = backend is Backend.NFT
    chain, handle, line = ("input", 7, None) if native else ("INPUT", None, 3)
    return RuleRef(backend, "ip", "filter", chain, text, handle=handle, line=line, comment=comment)


@pytest.mark.parametrize(
    ("backend", "text", "comment", "shown"),
    [
        (Backend.NFT, 'tcp dport 80 drop comment "pw s3"', "pw s3", 'tcp dport 80 drop comment "***"'),
        (Backend.NFT, 'log prefix "tok s3: " drop', None, 'log prefix "***" drop'),
        (Backend.NFT, 'log prefix "[UFW BLOCK] " drop', None, 'log prefix "[UFW BLOCK] " drop'),
        (Backend.NFT, 'iifname "lo" tcp dport 80 drop', None, 'iifname "lo" tcp dport 80 drop'),
        (Backend.NFT, 'drop comment "a" accept # s3 "b"', 'a" accept # s3 "b', 'drop comment "***"'),
        (Backend.NFT, 'drop comment "netdiag"', "netdiag", 'drop comment "netdiag"'),
        (Backend.NFT, 'drop comment "a\ns3"', "a\ns3", 'drop comment "***"'),
        (Backend.NFT, 'drop comment "s3 " broken', 's3 " other', 'drop comment "***" broken'),
        (XT, '-m comment --comment "pw \\" s3" -j DROP', 'pw " s3', "-m comment --comment *** -j DROP"),
        (XT, "-m comment --comment s3 -j DROP", "s3", "-m comment --comment *** -j DROP"),
        (LEGACY, '-m comment --comment "a --comment s3" -j DROP', "a --comment s3", "-m comment --comment *** -j DROP"),
        (XT, '-j LOG --log-prefix "s3 "', None, "-j LOG --log-prefix ***"),
        (XT, '-m string --string "s3" --algo bm -j DROP', None, "-m string --string *** --algo bm -j DROP"),
        (
            XT,
            '-m comment --comment "kubernetes service portals" -j KUBE-SERVICES',
            "kubernetes service portals",
            '-m comment --comment "kubernetes service portals" -j KUBE-SERVICES',
        ),
    ],
)
def test_free_text_is_replaced_and_the_rest_stays(backend: Backend, text: str, comment: str | None, shown: str) -> None:
    hidden = hide_in_rule(rule(text, comment, backend))
    assert hidden.text == shown
    assert "s3" not in f"{hidden.text} {hidden.comment}"
    assert hide_in_rule(hidden) == hidden


def test_of_wg_quick_s_comment_it_is_known_whose_rule_it_is() -> None:
    known = rule('drop comment "wg-quick(8) rule for wg0"', "wg-quick(8) rule for wg0")
    assert hide_in_rule(known) == known


@given(st.text(max_size=40), st.text('c"omment prefix ', max_size=40))
def test_no_comment_of_nft_survives_whatever_is_in_it(secret: str, posing: str) -> None:
    comment = f"{posing}s3cr3t{secret}"
    hidden = hide_in_rule(rule(f'tcp dport 80 drop comment "{comment}"', comment))
    assert "s3cr3t" not in f"{hidden.text} {hidden.comment}"


def test_every_rule_of_a_walk_is_one_without_a_comment() -> None:
    one = rule('drop comment "s3"', "s3")
    step = Step("syn", "input", one, "drop")
    walk = hide_in_walk(Walk("127.0.0.1", 80, Outcome.UNANSWERED, (step,), one, "drop", depends=(step,)))
    assert "s3" not in repr(walk)


@pytest.mark.parametrize(
    ("one", "delete", "add"),
    [
        (
            rule('tcp dport 80 drop comment "s3"', "s3"),
            ("nft", "delete", "rule", "ip", "filter", "input", "handle", "7"),
            ("nft", "add", "rule", "ip", "filter", "input", "tcp", "dport", "80", "drop"),
        ),
        (
            rule('log prefix "s3" tcp dport 80 drop'),
            ("nft", "delete", "rule", "ip", "filter", "input", "handle", "7"),
            ("nft", "add", "rule", "ip", "filter", "input", "log", "tcp", "dport", "80", "drop"),
        ),
        (
            rule('-p tcp -m comment --comment "s3 s3" -j DROP', "s3 s3", LEGACY),
            ("iptables-legacy", "-t", "filter", "-D", "INPUT", "3"),
            ("iptables-legacy", "-t", "filter", "-I", "INPUT", "3", "-p", "tcp", "-j", "DROP"),
        ),
    ],
)
def test_a_rule_with_a_hidden_comment_is_removed_by_its_number(
    one: RuleRef, delete: tuple[str, ...], add: tuple[str, ...]
) -> None:
    remedy = removal(hide_in_rule(one))
    assert remedy
    assert (remedy.commands[0].argv, remedy.undo[0].argv) == (delete, add)
    assert "not shown here" in remedy.summary


def test_a_rule_that_looks_for_a_hidden_string_is_not_removed() -> None:
    assert removal(hide_in_rule(rule("-m string --string s3 -j DROP", backend=XT))) is None
