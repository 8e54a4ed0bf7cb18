"""Rules without the free text in them: comments and log prefixes are replaced, unless a known program wrote them."""

from __future__ import annotations

import re

from msgspec.structs import replace

from diagnose.model.firewall import Walk
from diagnose.model.hidden import MASK
from diagnose.model.rule import Backend, RuleRef, Step, iptables_arguments

_OF_PROGRAMS = re.compile(
    r"netdiag|wg-quick\(8\) rule for [a-z][a-z0-9-]{0,14}|nordvpn(?:-[0-9]{1,3})?"
    r"|CNI portfwd (?:masquerade mark|requiring masquerade)"
    r"|kubernetes (?:firewall for dropping marked packets|forwarding (?:rules|conntrack rule)"
    r"|service portals"
    r"|service nodeports; NOTE: this must be the last rule in this chain|health check service ports"
    r"|externally-visible service portals|load balancer firewall|postrouting rules|service traffic requiring SNAT)"
)
"""Comments that programs write into every rule of a kind: some say whose rule it is."""
_PREFIX = re.compile(
    r"\[?(?:(?:ufw|nft|nftables|iptables|ip6tables|firewall|fw|in|out|input|output|forward|drop|dropped|reject|rejected|block"
    r"|blocked|deny|denied|allow|accept|accepted|limit|audit|invalid|new|log|policy|default|docker|tcp|udp|icmp|ipv4|ipv6"
    r"|packet|packets|inbound|outbound|final|dport|port)\b[\s_:.,>-]*)+\]?[\s:]*",
    re.IGNORECASE,
)
"""Log prefixes that say no more than what the rule does."""
_NFT_TEXT = re.compile(r'\b(comment|prefix) "([^"]*)"')
_XT_TEXT = re.compile(
    r'(--(?:comment|log-prefix|nflog-prefix|ulog-prefix|string|hex-string)) ("(?:[^"\\]|\\.)*"|\S+)', re.DOTALL
)


def hide_in_rule(rule: RuleRef) -> RuleRef:
    """The rule with *** in the place of its comment, of log prefixes and of strings that it looks for in packets."""
    if rule.policy:
        return rule
    text = _nft(rule) if rule.backend is Backend.NFT else _XT_TEXT.sub(_xt, rule.text)
    comment = rule.comment if rule.comment is None or _OF_PROGRAMS.fullmatch(rule.comment) else MASK
    return rule if (text, comment) == (rule.text, rule.comment) else replace(rule, text=text, comment=comment)


def hide_in_walk(walk: Walk) -> Walk:
    """The walk with such rules only."""
    return replace(
        walk,
        steps=tuple(map(_step, walk.steps)),
        depends=tuple(map(_step, walk.depends)),
        decider=walk.decider and hide_in_rule(walk.decider),
    )


def _step(step: Step) -> Step:
    rule = hide_in_rule(step.rule)
    return step if rule is step.rule else replace(step, rule=rule)


def _nft(rule: RuleRef) -> str:
    """nft prints strings as they are: a comment with quotes in it can be told by what the kernel has alone."""
    text = rule.text
    if rule.comment is not None and not _OF_PROGRAMS.fullmatch(rule.comment):
        text = text.replace(f'comment "{rule.comment}"', f'comment "{MASK}"')
    text = _NFT_TEXT.sub(_nft_string, text)
    return "" if text.count('"') % 2 else text


def _nft_string(found: re.Match[str]) -> str:
    return found[0] if _is_shown(found[1] == "comment", found[2]) else f'{found[1]} "{MASK}"'


def _xt(found: re.Match[str]) -> str:
    try:
        (_, words) = iptables_arguments(found[0])
    except ValueError:
        return f"{found[1]} {MASK}"
    known = found[1] in ("--comment", "--log-prefix") and _is_shown(found[1] == "--comment", words)
    return found[0] if known else f"{found[1]} {MASK}"


def _is_shown(comment: bool, text: str) -> bool:
    return bool((_OF_PROGRAMS if comment else _PREFIX).fullmatch(text)) or text == MASK
