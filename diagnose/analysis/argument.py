"""The commands that netdiag prints, in the grammars of their tools: a name is one word of it, or no command is given.

Names of tables, chains, sets, units, containers, interfaces and files come from the machine, chosen by their
makers. nft(8) joins its arguments and parses the result as its language, iptables(8) reads a word that begins with
"-" as an option, systemctl(1) expands patterns. So each command has to have the form that its tool is known by here; a
program or a form that is not known here is objected to.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from ipaddress import ip_address
from itertools import pairwise

from msgspec import Struct
from msgspec.structs import replace

from diagnose.analysis.hosts_edit import is_own_script
from diagnose.model.finding import Command, Remedy, Risk
from diagnose.model.rule import iptables_arguments


class _Form(Struct, frozen=True):
    """A regular expression that a whole word is held against; compiled when it is first needed, for that takes time."""

    pattern: str

    def fullmatch(self, word: str) -> bool:
        """Whether the whole word is of this form."""
        return re.fullmatch(self.pattern, word) is not None


_KEYWORDS = (
    "accept add ah all and arp auto-merge bridge cgroup chain comment comp constant continue counter cpu create ct day "
    "dccp define delete describe destroy device devices dnat drop dst dup dynamic ecn element elements eq esp ether "
    "exists expires export exthdr fib flags flow flowtable flush frag fwd gc-interval ge geneve get goto gre gretap gt "
    "handle hbh hook hour ibriport ibrname icmp icmpv6 igmp iif iifgroup iifname iiftype import include index inet "
    "insert interval ip ip6 ipsec jhash jump le limit list log lshift lt map mark masquerade meta meter mh missing "
    "monitor ne netdev nftrace not notrack numgen obriport obrname offload oif oifgroup oifname oiftype or osf pkttype "
    "policy position priority queue quota random redefine redirect reject rename replace reset return rshift rt rt0 "
    "rt2 rtclassid rule ruleset sctp secmark set size skgid skuid snat socket srh symhash synproxy table tcp th time "
    "timeout tproxy tunnel type typeof udp udplite undefine update vlan vmap vni vxlan xor xt"
)
"""The words that nft's scanner takes for its own wherever they stand (src/scanner.l, nftables 1.0 and 1.1)."""
_RESERVED = frozenset(_KEYWORDS.split())
_NFT_NAME = _Form(r"(?!\.$)[A-Za-z_.][A-Za-z0-9/_.-]*")
_NFT_FAMILIES = frozenset({"ip", "ip6", "inet", "arp", "bridge", "netdev"})
_NFT_WORD = _Form(r'"[^"\n]*",?|[A-Za-z0-9_.:/@{},!=<>&|^+*()\[\]%-]+')
"""Of a rule: neither what ends a command (";", a line's end), nor "#", nor "$"."""
_XTABLES = frozenset({"iptables-nft", "ip6tables-nft", "iptables-legacy", "ip6tables-legacy"})
_XT_TABLES = frozenset({"filter", "nat", "mangle", "raw", "security"})
_XT_OPTION = _Form(r"--[a-z0-9][a-z0-9-]*")
_XT_LONG = (
    "append check delete delete-chain destination dst exact flush fragments goto help in-interface insert ipv4 ipv6 "
    "jump line-numbers list list-rules match modprobe new-chain numeric out-interface policy protocol rename-chain "
    "replace set-counters source src table verbose version wait wait-interval zero"
)
"""The long options of iptables itself, which getopt_long(3) takes in part as well: a rule is never printed in them."""
_XT_OWN = tuple(_XT_LONG.split())
_XT_SHARED = frozenset({"set", "pol", "proto"})
"""Those of recent and policy, which iptables-save prints and getopt finds whole."""
_XT_QUOTED = frozenset({"--comment", "--log-prefix", "--nflog-prefix", "--string", "--hex-string"})
"""Options whose value is anybody's text."""
_PLAIN = _Form(r"[A-Za-z0-9_][A-Za-z0-9_.:@/-]*")
_EXTENSION = _Form(r"[A-Za-z0-9_]+")
_NETWORK = _Form(r"[0-9A-Fa-f.:]+(/[0-9A-Fa-f.:]+)?")
_PROTOCOL = _Form(r"[a-z0-9-]*[a-z0-9]")
_DEVICE = _Form(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,14}")
_UNIT = _Form(
    r"[A-Za-z0-9_:.\\][A-Za-z0-9_:.@\\-]*"
    r"\.(service|socket|scope|slice|target|mount|automount|swap|path|timer|device)"
)
_CONTAINER = _Form(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_PORT = _Form(r"[0-9]{1,5}")
_NUMBER = _Form(r"[0-9]+")


class Objection(Struct, frozen=True):
    """Why a command is not given: its program would read this word as something else than the name that it is."""

    program: str
    word: str

    def __str__(self) -> str:
        return f"{self.program} would not read {self.word!r} as one name"


def objection(command: Command) -> Objection | None:
    """The first word that its program would not read as the one word that it is; None: it may be run as it stands."""
    program, *words = command.argv or ("",)
    name = program.rpartition("/")[2]
    grammar = _GRAMMARS.get(name)
    if grammar is None:
        return Objection(name, program)
    word = _either(next((one for one in command.argv if not _is_printed(one)), None), grammar(words))
    return None if word is None else Objection(name, word)


def objected(commands: Iterable[Command]) -> Objection | None:
    """The first objection to any of them."""
    return next((found for found in map(objection, commands) if found is not None), None)


def without_objection(remedy: Remedy) -> Remedy:
    """The remedy in prose alone where its commands may not be given; without its undo where only that may not."""
    found = objected(remedy.commands)
    summary = remedy.summary.rstrip(".")
    if found is not None:
        return replace(
            remedy,
            summary=f"{summary}. No command is given for it: {found}.",
            commands=(),
            undo=(),
            rehearsal=None,
        )
    found = objected(remedy.undo)
    if found is None:
        return remedy
    return replace(
        remedy,
        summary=f"{summary}. No command is given that undoes it: {found}.",
        undo=(),
        risk=max(remedy.risk, Risk.DISRUPTIVE, key=tuple(Risk).index),
    )


def is_nft_name(name: str) -> bool:
    """Whether nft reads this as one identifier, and none of its own words."""
    return _NFT_NAME.fullmatch(name) and name not in _RESERVED


def is_unit(name: str) -> bool:
    """Whether systemctl reads this as the name of one unit, and no option or pattern."""
    return _UNIT.fullmatch(name)


def is_container(name: str) -> bool:
    """Whether it is a name or id as engines give them, and no option (restrictedNameChars, daemon/names of moby)."""
    return _CONTAINER.fullmatch(name)


def is_plain(name: str) -> bool:
    """Whether every tool reads this as one word, and no option."""
    return _PLAIN.fullmatch(name)


def quoted(name: str) -> str:
    """The name in a sentence: between quotes where it could be taken for more than a name."""
    return name if is_plain(name) else f'"{name}"'


def is_iptables_rule(text: str) -> bool:
    """Whether iptables and its restore tool read the rule, as iptables-save printed it, as a rule and nothing else."""
    try:
        return _xt_rule(iptables_arguments(text)) is None and "\n" not in text
    except ValueError:
        return False


def _is_printed(word: str) -> bool:
    """Whether it stands in a terminal as it is: a report prints the rest as escapes, which are other words."""
    return word.isprintable() and bool(word)


_Place = str | frozenset[str] | _Form | Callable[[str], bool]
"""What may stand somewhere: this word, one of these, one of this form."""
_Grammar = Callable[[list[str]], str | None]
"""The first word behind the program's name that is not in its place; None: they all are."""


def _first(words: Sequence[str], *places: _Place) -> str | None:
    """The words one by one, each of which has a place of its own."""
    misplaced = (word for word, place in zip(words, places, strict=False) if not _fits(word, place))
    left_over = words[len(places) :]
    missing = [] if len(words) >= len(places) else [words[-1] if words else ""]
    return next(iter((*misplaced, *left_over, *missing)), None)


def _either(*found: str | None) -> str | None:
    return next((one for one in found if one is not None), None)


def _unlike(words: Iterable[str], *forms: _Form) -> str | None:
    """The first word that has none of these forms."""
    return next((one for one in words if not any(form.fullmatch(one) for form in forms)), None)


def _fits(word: str, place: _Place) -> bool:
    match place:
        case str():
            return word == place
        case frozenset():
            return word in place
        case _Form():
            return place.fullmatch(word)
        case _:
            return place(word)


def _is_address(word: str) -> bool:
    try:
        ip_address(word)
    except ValueError:
        return False
    return True


def _is_path(word: str) -> bool:
    """Whether it is absolute, and so no option."""
    return bool(re.match(r"/|[A-Za-z]:[\\/]", word))


def _is_no_option(word: str) -> bool:
    return not word.startswith("-")


# ------ firewalls


def _nft(words: list[str]) -> str | None:
    where = (_NFT_FAMILIES, is_nft_name, is_nft_name)
    match words:
        case ["delete", "rule", *rest]:
            return _first(rest, *where, "handle", _NUMBER)
        case ["add" | "delete", "element", *rest]:
            return _first(rest, *where, "{", _is_element, "}")
        case ["add" | "insert", "rule", family, table, chain, "position", number, *rule]:
            return _either(_first((family, table, chain, number), *where, _NUMBER), _nft_rule(rule))
        case ["add" | "insert", "rule", family, table, chain, *rule]:
            return _either(_first((family, table, chain), *where), _nft_rule(rule))
        case _:
            return " ".join(words)


def _nft_rule(words: Sequence[str]) -> str | None:
    """One rule, and nothing that nft would take for the next command; each name in it without quotes is a name."""
    followed = (word for before, word in pairwise(words) if before in ("iifname", "oifname", "jump", "goto"))
    named = [word for word in followed if word not in ("{", "!=", "==") and word[:1] not in ('"', "@")]
    sets = [word[1:] for word in words if word.startswith("@") and not _RAW_PAYLOAD.fullmatch(word)]
    misread = (one for one in (*named, *sets) if not is_nft_name(one.rstrip(",")))
    return _either(_unlike(words, _NFT_WORD), next(misread, None))


_RAW_PAYLOAD = _Form(r"@(ll|nh|th|ih),[0-9]+,[0-9]+")


def _is_element(word: str) -> bool:
    return _PORT.fullmatch(word) or _is_address(word)


def _xtables(words: list[str]) -> str | None:
    """`-t TABLE -I CHAIN N RULE` or `-t TABLE -D CHAIN RULE`."""
    match words:
        case ["-t", table, "-I", chain, number, *rule]:
            return _either(_first((table, chain, number), _XT_TABLES, _PLAIN, _NUMBER), _xt_rule(rule))
        case ["-t", table, "-D", chain, *rule]:
            return _either(_first((table, chain), _XT_TABLES, _PLAIN), _xt_rule(rule))
        case _:
            return " ".join(words)


_XT_VALUES: dict[str, _Place] = {
    "-s": _NETWORK,
    "-d": _NETWORK,
    "-i": _Form(r"[A-Za-z0-9_][A-Za-z0-9_.@-]*\+?|\+"),
    "-o": _Form(r"[A-Za-z0-9_][A-Za-z0-9_.@-]*\+?|\+"),
    "-p": _PROTOCOL,
    "-m": _EXTENSION,
    "-j": _PLAIN,
    "-g": _PLAIN,
}


def _xt_rule(words: Sequence[str]) -> str | None:
    """What a rule asks and does: the options of iptables once each, and those of extensions with their values."""
    option = ""
    seen: set[str] = set()
    for word in words:
        if option in _XT_VALUES:
            if not _fits(word, _XT_VALUES[option]):
                return word
            option = ""
        elif option in _XT_QUOTED:
            option = ""
        elif word in _XT_VALUES or word == "-f":
            if word in seen:
                return word
            seen |= {word} - {"-m"}
            option = word
        elif word.startswith("-") and not _is_xt_option(word):
            return word
        else:
            option = word
    return option if option in _XT_VALUES else None


def _is_xt_option(word: str) -> bool:
    """Whether it is one of an extension: getopt_long(3) takes the beginning of one of iptables' own for that."""
    bare = word.removeprefix("--")
    own = bare not in _XT_SHARED and any(one.startswith(bare) for one in _XT_OWN)
    return _XT_OPTION.fullmatch(word) and not own


def _ipset(words: list[str]) -> str | None:
    return _first(words, frozenset({"add", "del"}), _PLAIN, _is_address)


def _ufw(words: list[str]) -> str | None:
    where = ("to", _is_address, "port", _PORT, "proto", "tcp")
    return _first(words, frozenset({"prepend", "delete"}), "allow", frozenset({"in", "out"}), "on", _DEVICE, *where)


_RICH_RULE = _Form(
    r'rule priority="-1" family="ipv[46]" (source address="[0-9A-Fa-f.:]+" )?destination address="[0-9A-Fa-f.:]+" '
    r'port port="[0-9]+" protocol="tcp" accept'
)


def _firewall_cmd(words: list[str]) -> str | None:
    match words:
        case ["--panic-on"] | ["--panic-off"]:
            return None
        case ["--permanent", zone, rule] | [zone, rule]:
            return _first((zone, rule), _ZONE, _is_rich_rule)
        case _:
            return " ".join(words)


_ZONE = _Form(r"--zone=[A-Za-z0-9_-]+")


def _is_rich_rule(word: str) -> bool:
    changed = re.fullmatch(r"--(?:add|remove)-rich-rule=(.*)", word)
    return changed is not None and _RICH_RULE.fullmatch(changed[1])


def _fail2ban(words: list[str]) -> str | None:
    return _first(words, "set", _PLAIN, frozenset({"banip", "unbanip"}), _is_address)


# ------ services, containers and processes


def _systemctl(words: list[str]) -> str | None:
    """`[--user | --machine=UID@.host --user] VERB UNIT`; show has the properties behind the unit."""
    match words:
        case ["--user", *rest]:
            pass
        case [machine, "--user", *rest] if _MACHINE.fullmatch(machine):
            pass
        case rest:
            pass
    if rest == ["daemon-reload"]:
        return None
    if rest[:1] == ["show"]:
        return _first(rest, "show", is_unit, "-p", _PROPERTIES)
    return _first(rest, frozenset({"start", "stop", "restart", "reset-failed", "mask", "unmask"}), is_unit)


def _journalctl(words: list[str]) -> str | None:
    """`[--user] -u UNIT -n NUMBER --no-pager`."""
    rest = words[1:] if words[:1] == ["--user"] else words
    return _first(rest, "-u", is_unit, "-n", _NUMBER, "--no-pager")


_MACHINE = _Form(r"--machine=[0-9]+@\.host")
_PROPERTIES = _Form(r"[A-Za-z,]+")


def _engine(words: list[str]) -> str | None:
    """Docker or podman: `VERB CONTAINER`, `logs --tail N CONTAINER`, `network reload CONTAINER`, or Compose."""
    match words:
        case ["compose", *rest]:
            return _compose(rest)
        case ["logs", *rest]:
            return _first(rest, "--tail", _NUMBER, _CONTAINER)
        case ["network", *rest]:
            return _first(rest, "reload", _CONTAINER)
        case _:
            return _first(words, frozenset({"start", "stop", "restart", "pause", "unpause"}), _CONTAINER)


def _compose(words: list[str]) -> str | None:
    """`[-p PROJECT] [-f FILE ...] up -d SERVICE`."""
    match words:
        case ["-p", project, *rest]:
            return _either(_first((project,), _CONTAINER), _compose(rest))
        case ["-f", file, *rest]:
            return _either(_first((file,), _is_path), _compose(rest))
        case _:
            return _first(words, "up", "-d", _SERVICE)


_SERVICE = _Form(r"[A-Za-z0-9_.][A-Za-z0-9_.-]*")


def _kill(words: list[str]) -> str | None:
    """`[-SIGNAL] PID ...`."""
    match words:
        case [signal, *pids] if re.fullmatch(r"-[A-Z]+", signal):
            pass
        case pids:
            pass
    return _unlike(pids or [""], _NUMBER)


# ------ network and files


def _ip(words: list[str]) -> str | None:
    """The family, then keywords, numbers, addresses and interfaces, of which none looks like an option."""
    return _unlike(words[1:] if words[:1] in (["-4"], ["-6"]) else words, _PLAIN, _NETWORK)


_SYSCTL = _Form(r"net\.[a-z0-9_.]+=[0-9,-]*")
_FILTER_OF_SS = _Form(r"state|[a-z]+-[a-z]+|sport|dport|=|:[0-9]+")


def _ss(words: list[str]) -> str | None:
    return _either(_first(words[:2], "--kill", "--tcp"), _unlike(words[2:], _FILTER_OF_SS))


def _sh(words: list[str]) -> str | None:
    return _first(words, "-c", is_own_script, _is_path)


def _nsenter(words: list[str]) -> str | None:
    """`--net=PATH COMMAND`."""
    head = _first(words[:1], lambda word: word.startswith("--net=/"))
    inner = objection(Command(tuple(words[1:])))
    return _either(head, None if inner is None else inner.word)


def _netdiag(words: list[str]) -> str | None:
    """`run [--from PLACE] [--bind] TARGET`, or `run TARGET --bind`."""
    match words:
        case ["run", "--from", place, *rest]:
            return _either(_first((place,), _ORIGIN), _netdiag(["run", *rest]))
        case ["run", "--bind", target] | ["run", target, "--bind"] | ["run", target]:
            return _first((target,), _is_no_option)
        case _:
            return " ".join(words)


_ORIGIN = _Form(r"(container|pid|netns):.+")


_GRAMMARS: dict[str, _Grammar] = {
    "nft": _nft,
    **dict.fromkeys(_XTABLES, _xtables),
    "ipset": _ipset,
    "ufw": _ufw,
    "firewall-cmd": _firewall_cmd,
    "fail2ban-client": _fail2ban,
    "systemctl": _systemctl,
    "journalctl": _journalctl,
    "docker": _engine,
    "podman": _engine,
    "docker-compose": _compose,
    "kill": _kill,
    "ip": _ip,
    "sysctl": lambda words: _first(words, "-w", _SYSCTL),
    "ss": _ss,
    "chmod": lambda words: _first(words, _Form(r"[0-7]{1,4}"), _is_path),
    "umount": lambda words: _first(words, _is_path),
    "mv": lambda words: _first(words, "-T", "--backup=numbered", _is_path, _is_path),
    "sh": _sh,
    "nsenter": _nsenter,
    "netdiag": _netdiag,
}
