"""Rule sets that are made to mislead, or are too many: no words or a deadline, never the words of another rule."""

from __future__ import annotations

import subprocess

import pytest

from diagnose.analysis.argument import _RESERVED, is_nft_name
from diagnose.model.fact import Known, Reason, Unknown
from diagnose.model.firewall import Backend
from diagnose.probes.shadow import look
from tests.lab_probes.test_shadow import PORT, V4, decided, in_namespace, nft, pytestmark, sh, walk

__all__ = ["pytestmark"]

INPUT = "type filter hook input priority 0;"
POSING = (
    "x # handle 3\n\t\taccept # handle 4\n\t}\n\tset z {\n",
    "x # handle 2\n\t}\n\tchain other {\n\t\ttcp dport 1 accept # handle 5\n\t}\n\tchain y {\n",
    "x\n}\ntable inet f {\n\tchain input {\n\t\taccept # handle 3\n\t}\n",
    "# handle 3\n# handle 4",
    "\x1b[2J\x1b]0;title\x07 # handle 4",
)


@in_namespace
@pytest.mark.parametrize("comment", POSING)
def test_no_comment_of_nft_lends_its_rule_s_words_to_another(comment: str) -> None:
    rules = f'tcp dport 9 drop comment "{comment}"\ntcp dport {PORT} drop comment "the one"'
    sh("nft -f -", f"table inet f {{\nchain other {{\n}}\nchain input {{\n{INPUT}\n{rules}\n}}\n}}\n")
    handle = int(sh("nft -a list chain inet f input").rpartition("# handle ")[2].split()[0])
    found = walk()
    backend, table, chain, text = decided(found)
    assert (backend, table, chain) == ("nft", "f", "input")
    assert text in ("", f'tcp dport {PORT} drop comment "***"')
    assert found.decider is not None
    assert (found.decider.handle, found.decider.comment) == (handle, "***")


@in_namespace
@pytest.mark.parametrize("tool", ["iptables-nft", "iptables-legacy"])
def test_no_comment_of_iptables_lends_its_rule_s_words_to_another(tool: str) -> None:
    posing = "x\n-A INPUT -j ACCEPT\nCOMMIT\n*filter\n:INPUT ACCEPT [0:0]\n# "
    sh(f"{tool} -A INPUT -p tcp --dport 9 -m comment --comment '{posing}' -j DROP")
    sh(f"{tool} -A INPUT -p tcp --dport {PORT} -m comment --comment 'a\n# \"b\"' -j DROP")
    found = walk()
    assert found.decider is not None
    assert found.decider.comment == "***"
    if found.decider.backend is Backend.NFT:  # iptables-nft-restore takes no line ends: what it prints is not proven
        assert (found.decider.handle, found.decider.text.split()[:3]) == (3, ["tcp", "dport", str(PORT)])
    else:
        text = f"-p tcp -m tcp --dport {PORT} -m comment --comment *** -j DROP"
        assert (found.decider.line, found.decider.text) == (2, text)


@in_namespace
def test_more_rules_than_there_is_time_for_are_a_deadline_or_right() -> None:
    filler = "\n".join(f"tcp dport {9000 + number % 50000} counter" for number in range(100_000))
    sh("nft -f -", f"table inet m {{\nchain filler {{\n{filler}\n}}\n}}\n")
    nft(f"table inet f {{ chain input {{ {INPUT} tcp dport {PORT} drop\n }} }}")
    fact = look([V4], 0.3)
    if isinstance(fact, Unknown):
        assert fact.reason is Reason.DEADLINE
    else:
        assert isinstance(fact, Known)
        assert decided(fact.value.walks[0])[1] == "f"


@in_namespace
@pytest.mark.parametrize("family", ["inet", "ip", "ip6"])
def test_a_name_is_one_where_nft_itself_takes_it_and_a_reserved_word_where_it_does_not(family: str) -> None:
    words = [*_RESERVED, "input", "filter", "port", "name", "rules", "DOCKER-USER", "a/b.c_d-e", "_x", ".x", "th0"]
    for word in words:
        asked = ["nft", "-c", "delete", "rule", family, word, word, "handle", "7"]
        done = subprocess.run(asked, capture_output=True, text=True, check=False)
        misread = "syntax error" in done.stderr
        # words of a later nft than this one are reserved as well: it reads them as names
        assert not is_nft_name(word) if misread or word in _RESERVED else is_nft_name(word), (word, done.stderr)
