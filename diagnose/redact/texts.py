"""A text of each kind, with tokens in the place of names that were met and of words that are not known."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from ipaddress import IPv4Address

from diagnose.model.hidden import MASK
from diagnose.parse import harmless
from diagnose.redact import known
from diagnose.redact.kinds import Kind
from diagnose.redact.tokens import Tokens, is_token

_ATOM = re.compile(r"[^\s\"'`(){},;<>=|\[\]]+")
_EDGE = ".:!?*"
_IPV6 = re.compile(r"(?:[0-9A-Fa-f]{0,4}:){2,7}(?:[0-9A-Fa-f]{0,4}|\d{1,3}(?:\.\d{1,3}){3})(?:%[\w.@-]{1,15})?")
_HEX = re.compile(r"(?:0x)?[0-9a-f]{12,64}")
_NUMBER = re.compile(
    r"[-+#]?(?:0x[0-9a-fA-F]{1,8}|\d{1,10}(?:[.,:/-]\d{1,10}){0,6})(?:[kKMGTmu]?i?[bB]|ms|us|s|m|h|d|%|ns|th)?"
)
_PLAIN_NUMBER = re.compile(r"\d{1,10}|0x[0-9a-fA-F]{1,8}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z?")
_CODE = re.compile(r"[A-Z][A-Z0-9_]{1,40}")
_UNIT = re.compile(r"(.+)\.(service|socket|scope|slice|target|mount|automount|swap|path|timer|device)")
_BASES = re.compile(r"user@\d+|session-c?\d+|user-\d+|run-\w{1,40}|init|-")
_ODD = re.compile(r"(?:0x[0-9a-f]+|\d+)(?:\.(?:0x[0-9a-f]+|\d+)){0,3}", re.IGNORECASE)
_OPTION = re.compile(r"(--?)([A-Za-z][\w.-]*)")
_PAIR = re.compile(r"\[([^\]\s]+)\](?::(\d{1,5}|\*))?")
_RULE_STRING = re.compile(
    r"(comment |prefix |--(?:comment|log-prefix|nflog-prefix|string|hex-string) )(\"(?:[^\"\\]|\\.)*\"|\S+)"
)
IN_RULES = (
    (Kind.RULE_NAME, re.compile(r"((?:\bjump|\bgoto|(?<!\S)-j|(?<!\S)-g|--match-set)\s+\"?)([\w./-]+)")),
    (Kind.RULE_NAME, re.compile(r"(@)([A-Za-z_][\w./-]*)")),
    (Kind.INTERFACE, re.compile(r"((?:\b[io]if(?:name)?|(?<!\S)-[io])\s+(?:!=\s+|==\s+|!\s+)?\"?)([\w.@+*-]+)")),
    (Kind.USER, re.compile(r"((?:\bskuid|--uid-owner)\s+(?:!=\s+)?\"?)([A-Za-z_][\w.-]*)")),
)
"""Where a name stands in a rule, behind what tells its kind."""
_INTRODUCED = re.compile(
    r"\b(container|service|process|user|network|namespace|unit|project|image|zone|jail) ([\w.@-]+)"
)
_URL = re.compile(r"([A-Za-z][\w+.:-]*)://(.*)", re.DOTALL)
_TARGET_COMPOSE = re.compile(r"compose:(.+):(\d+)")
_DRIVE = re.compile(r"[A-Za-z]:$")
_VARIABLE_WORDS = harmless.words(
    "HOST HOSTNAME SERVER ADDR ADDRESS ENDPOINT URL URI BROKER HOSTS SERVERS URLS PORT BIND LISTEN BINDING ON IP "
    "DATABASE DB PG PGHOST PGPORT REDIS MYSQL POSTGRES POSTGRESQL MONGO MONGODB RABBITMQ AMQP KAFKA FLASK RUN "
    "UVICORN NUXT NITRO VITE NAME GRADIO STREAMLIT JUPYTER ASPNETCORE API HTTP HTTPS WEB APP BACKEND FRONTEND "
    "SERVICE CACHE QUEUE MEMCACHED ELASTICSEARCH SMTP MAIL PROXY TCP TLS SSL JDBC SPRING DATASOURCE CONNECTION "
    "STRING DSN PUBLIC NEXT REACT"
)


class Texts:
    """What may leave the machine of each text, by its kind."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens
        self._by_kind: Mapping[Kind, Callable[[str], str]] = {
            Kind.CODE: lambda text: text,
            Kind.ADDRESS: self.address,
            Kind.LINK: self._link,
            Kind.HOST: self.host,
            Kind.USER: self._user,
            Kind.PATH: self.path,
            Kind.PROGRAM: self._program,
            Kind.COMMAND: self._command,
            Kind.ARGUMENT: self._argument,
            Kind.CONTAINER: self._plain(Kind.CONTAINER),
            Kind.ID: self._id,
            Kind.IMAGE: self._image,
            Kind.NETWORK: self._network,
            Kind.PROJECT: self._plain(Kind.PROJECT),
            Kind.SERVICE: self._plain(Kind.SERVICE),
            Kind.UNIT: self._unit,
            Kind.INTERFACE: self._interface,
            Kind.NAMESPACE: self._plain(Kind.NAMESPACE),
            Kind.DATABASE: self._plain(Kind.DATABASE),
            Kind.VARIABLE: self._variable,
            Kind.RULE_NAME: self._rule_name,
            Kind.RULE: self._rule,
            Kind.COMMENT: self._comment,
            Kind.PROSE: self.prose,
            Kind.TARGET: self._target,
            Kind.ORIGIN: self._origin,
            Kind.KERNEL: self._kernel,
            Kind.CUSTOM: self._plain(Kind.CUSTOM),
        }

    def redacted(self, kind: Kind, text: str) -> str:
        """The text without what identifies."""
        return self._by_kind[kind](text) if text and text != MASK else text

    def _plain(self, kind: Kind) -> Callable[[str], str]:
        return lambda text: self._tokens.token(kind, text)

    # ------ addresses and hosts

    def address(self, text: str) -> str:
        """A typed address, with its zone."""
        bare, percent, zone = text.partition("%")
        if self._tokens.kept(Kind.ADDRESS):
            return text
        return self._tokens.addresses.address(bare) + percent + (self._interface(zone) if percent else "")

    def _link(self, text: str) -> str:
        if self._tokens.kept(Kind.LINK):
            return text
        return self._tokens.addresses.link(text) if self._tokens.addresses.is_link(text) else self.prose(text)

    def host(self, text: str) -> str:
        """The name of a host, or an address in its place; a dot at its end stays."""
        found = self._of_address(text) or self._of_odd_literal(text)
        if found is not None:
            return found
        if known.is_known_host(text) or text == "host-gateway":
            return text
        suffix = known.special_suffix(text)
        bare = text[: len(text) - len(suffix)] if suffix else text
        if self._tokens.known(text.lower()) is not None:
            return f"{self._tokens.known(text.lower())}"
        if _HEX.fullmatch(bare) and len(bare) in (12, 64):
            return self._id(bare) + suffix
        return self._tokens.token(Kind.HOST, bare.lower() if bare != text or "." in bare else bare) + suffix

    def _of_address(self, text: str) -> str | None:
        """An address with what may stand around it: a prefix length, a port, a zone, brackets; None: it is none."""
        if pair := _PAIR.fullmatch(text):
            inner = self._of_address(pair[1])
            return None if inner is None else f"[{inner}]" + (f":{pair[2]}" if pair[2] else "")
        bare, slash, length = text.partition("/")
        bare, percent, zone = bare.partition("%")
        host, colon, port = bare.rpartition(":")
        if colon and ":" not in host and (port.isdigit() or port == "*"):
            bare, port = host, f":{port}"
        else:
            port = ""
        try:
            if self._tokens.kept(Kind.ADDRESS):
                IPv4Address(bare) if ":" not in bare else harmless.is_address(bare)
            found = bare if self._tokens.kept(Kind.ADDRESS) else self._tokens.addresses.address(bare, length)
        except ValueError:
            return None
        tail = f"{slash}{self._of_mask(length)}" if slash else ""
        return found + percent + (self._interface(zone) if percent else "") + tail + port

    def _of_mask(self, length: str) -> str:
        return length if length.isdigit() or re.fullmatch(r"[0-9a-fA-F.:]+", length) else self.prose(length)

    def _of_odd_literal(self, text: str) -> str | None:
        """What inet_aton(3) reads as an address, or looks like one and is none, of which a check tells."""
        if not _ODD.fullmatch(text) or self._tokens.kept(Kind.ADDRESS):
            return text if re.fullmatch(r"[\d.]+", text) and self._tokens.kept(Kind.ADDRESS) else None
        value = _inet_aton(text)
        if value is not None:
            real = str(IPv4Address(value))
            changed = self._tokens.addresses.address(real)
            return text if changed == real else str(int(IPv4Address(changed)))
        parts = text.split(".")
        if re.fullmatch(r"198\.18\.\d{1,6}\.999", text):
            return text
        if parts[0] in ("127", "10", "0", "192", "172", "169") or len(parts) != 4:
            return text
        return f"198.18.{self._tokens.token(Kind.HOST, text).rpartition('-')[2]}.999"

    # ------ people, programs and containers

    def _user(self, text: str) -> str:
        if text in known.USERS or text.isdigit():
            return text
        return self._tokens.token(Kind.USER, text)

    def _program(self, text: str) -> str:
        """The name of a program, where it is a known one."""
        if self._tokens.kept(Kind.PROGRAM) or known.is_known(text) or text.startswith("sd_"):
            return text
        return self._tokens.token(Kind.PROGRAM, text)

    def _id(self, text: str) -> str:
        """A container's id; any engine's word for its kind is none."""
        if not _HEX.fullmatch(text):
            return self._tokens.token(Kind.ID, text)
        token = self._tokens.known(text) or self._tokens.fresh_id(text)
        if len(text) > 12:
            self._tokens.identity(text[:12], token[:12], Kind.ID)
        return token

    def _image(self, text: str) -> str:
        if self._tokens.kept(Kind.IMAGE):
            return text
        return re.sub(r"[^/:@]+", lambda found: self._of_image(found[0]), text)

    def _of_image(self, text: str) -> str:
        if text in known.IMAGES or re.fullmatch(r"v?[\d.]+|latest|sha256", text):
            return text
        return self._id(text) if _HEX.fullmatch(text) else self._tokens.token(Kind.IMAGE, text)

    def _network(self, text: str) -> str:
        return text if text in known.NETWORKS else self._tokens.token(Kind.NETWORK, text)

    def _unit(self, text: str) -> str:
        """A unit keeps its kind; a known one its name."""
        parts = _UNIT.fullmatch(text)
        base, kind = (parts[1], f".{parts[2]}") if parts else (text, "")
        if self._tokens.kept(Kind.UNIT) or _BASES.fullmatch(base):
            return text
        name, at, instance = base.partition("@")
        found = self._of_unit(name)
        return found + at + (self._of_unit(instance) if instance else "") + kind

    def _of_unit(self, base: str) -> str:
        if self._tokens.known(base) is None and known.is_known(base.replace("\\x2d", "-")):
            return base
        engine, dash, name = base.partition("-")
        if dash and _HEX.fullmatch(name):  # docker-ID.scope, libpod-ID.scope
            return f"{engine if known.is_known(engine) else self._tokens.token(Kind.UNIT, engine)}-{self._id(name)}"
        return self._tokens.token(Kind.UNIT, base)

    def _interface(self, text: str) -> str:
        bare = text.rstrip("+*")
        if not bare or bare.isdigit() or known.is_known_interface(bare):
            return text
        if re.fullmatch(r"br-[0-9a-f]{12}", bare):
            return f"br-{self._id(bare[3:])}" + text[len(bare) :]
        return self._tokens.token(Kind.INTERFACE, bare) + text[len(bare) :]

    def _variable(self, text: str) -> str:
        """A variable's name: the words by which it is known what it holds stay."""
        if self._tokens.kept(Kind.VARIABLE):
            return text
        return "_".join(
            piece
            if piece.upper() in _VARIABLE_WORDS or not piece or is_token(piece)
            else self._tokens.token(Kind.VARIABLE, piece)
            for piece in text.split("_")
        )

    def _kernel(self, text: str) -> str:
        """The version, and what systems write behind it."""
        if self._tokens.kept(Kind.KERNEL):
            return text
        pieces = re.split(r"([-+_.~])", text)
        return "".join(one if i % 2 or _is_of_release(one) else MASK for i, one in enumerate(pieces))

    # ------ paths and commands

    def path(self, text: str) -> str:
        """A path or file:/// URL, component by component; a user's name in one that is kept stays with --keep users."""
        scheme, colon, rest = text.partition("://")
        if colon:
            return f"{scheme}://{self.path(rest)}"
        parts = re.split(r"([/\\])", text)
        before = ""
        for place in range(0, len(parts), 2):
            whole, parts[place] = parts[place], self._component(parts[place], before)
            before = whole or before
        return "".join(parts)

    def _component(self, text: str, before: str) -> str:
        if not text or text in (".", "..", "~", MASK) or _DRIVE.fullmatch(text) or is_token(text):
            return text
        if before in ("home", "Users", "run-user"):
            return self._user(text)
        if self._tokens.kept(Kind.PATH):
            return text
        found = self._tokens.known(text)
        if found is not None and text not in known.GRAMMAR:
            return found
        if before == "netns" and not text.isdigit():
            return self._tokens.token(Kind.NAMESPACE, text)
        if _PLAIN_NUMBER.fullmatch(text):
            return text
        if _UNIT.fullmatch(text):
            return self._unit(text)
        if _HEX.fullmatch(text):
            return self._id(text)
        if known.is_known_component(text) and not self._has_met_piece(text):
            return text
        stem, dot, extension = text.rpartition(".")
        if dot and stem and extension.lower() in harmless.words_of_files():
            return f"{self._tokens.token(Kind.PATH, stem)}.{extension}"
        return self._tokens.token(Kind.PATH, text)

    def _has_met_piece(self, text: str) -> bool:
        """Whether a name that is replaced is a part of it."""
        pieces = re.split(r"[._+\-@:]+", text)
        return len(pieces) > 1 and any(
            piece not in known.GRAMMAR and (self._tokens.known(piece) or piece) != piece for piece in pieces
        )

    def _command(self, text: str) -> str:
        """A masked command line, word by word."""
        if self._tokens.kept(Kind.COMMAND):
            return text
        return " ".join(self._argument(word) for word in text.split(" "))

    def _argument(self, text: str) -> str:
        """One word of a command line: of an option that is not known, the name as well."""
        if text in ("", MASK, "-", "--"):
            return text
        name, equals, value = text.partition("=")
        option = _OPTION.fullmatch(name)
        if option is None:
            return self.prose(text)
        if len(option[2]) > 1 and not known.is_known(option[2]):
            name = f"{option[1]}{self._tokens.token(Kind.COMMAND, option[2])}"
        return f"{name}{equals}{self._argument(value) if value else ''}"

    # ------ rules

    def _rule_name(self, text: str) -> str:
        start, chosen, end = known.rule_name(text)
        if not chosen or chosen.lower() in known.GRAMMAR:
            return text
        if _HEX.fullmatch(chosen.lower()) and start:
            return start + self._tokens.token(Kind.RULE_NAME, chosen) + end
        return start + self._tokens.token(Kind.RULE_NAME, chosen) + end

    def _rule(self, text: str) -> str:
        bare = text.strip('"')
        found = self._tokens.known(bare)
        if found is not None and (found.startswith(Kind.COMMENT.value) or " " in bare):  # a word of a command
            return text.replace(bare, found)
        for kind, pattern in IN_RULES:
            text = pattern.sub(self._behind_sign(kind), text)
        text = _RULE_STRING.sub(lambda found: found[1] + self._of_string(found[2]), text)
        return self._atoms(text, self._of_rule)

    def _behind_sign(self, kind: Kind) -> Callable[[re.Match[str]], str]:
        return lambda found: found[1] + self.redacted(kind, found[2])

    def _of_string(self, text: str) -> str:
        quote = '"' if text.startswith('"') else ""
        inner = text[1:-1] if quote else text
        return text if inner == MASK else f"{quote}{self._comment(inner)}{quote}"

    @staticmethod
    def strings(text: str) -> tuple[str, ...]:
        """The comments and prefixes in a rule."""
        return tuple(found[2].strip('"') for found in _RULE_STRING.finditer(text) if found[2].strip('"') != MASK)

    def _of_rule(self, word: str) -> str:
        sign = "@" if word.startswith("@") else ""
        bare = word[len(sign) :]
        if bare.lower() in known.GRAMMAR or known.is_target(bare):
            return word
        start, _, _ = known.rule_name(bare)
        if start:
            return sign + self._rule_name(bare)
        return sign + self._word(bare)

    def _comment(self, text: str) -> str:
        """A comment; where it tells who made the rule, that stays."""
        if known.SIGNS.search(text):
            return self.prose(text)
        return self._tokens.token(Kind.COMMENT, text)

    # ------ targets

    def _target(self, text: str) -> str:
        if compose := _TARGET_COMPOSE.fullmatch(text):
            return f"compose:{self._tokens.token(Kind.SERVICE, compose[1])}:{compose[2]}"
        if found := _URL.fullmatch(text):
            return self._url(found[1], found[2])
        return self._endpoint(text) or self.prose(text)

    def _url(self, scheme: str, rest: str) -> str:
        """A URL or DSN: its user, its host, its path and what follows."""
        if rest.startswith("/"):
            return f"{scheme}://{self.path(rest)}"
        cut = next((place for place, char in enumerate(rest) if char in "/?#"), len(rest))
        authority, behind = rest[:cut], rest[cut:]
        user, at, place = authority.rpartition("@")
        shown = self._endpoint(place) if place and place != MASK else place
        who = ":".join(self._user(part) if part and part != MASK else part for part in user.split(":")) if at else ""
        return f"{scheme}://{who}{at}{shown if shown is not None else self.host(place)}{self._behind(scheme, behind)}"

    def _behind(self, scheme: str, text: str) -> str:
        path, mark, _ = re.match(r"([^?#]*)([?#]?)(.*)", text, re.DOTALL).groups()  # type: ignore[union-attr]
        name = path.strip("/")
        if name and name != MASK and not scheme.startswith(("http", "ws")):
            path = "/" + self._tokens.token(Kind.DATABASE, name)
        elif name and name != MASK:
            path = self.path(path)
        return f"{path}{mark}{MASK if mark else ''}"

    def _endpoint(self, text: str) -> str | None:
        """host:port or a host alone; None: it is neither."""
        found = self._of_address(text)
        if found is not None:
            return found
        host, colon, port = text.rpartition(":")
        if colon and (harmless.is_port(port) or port == "*") and ":" not in host:
            return f"{self.host(host) if host else ''}:{port}"
        if ":" in text or not re.fullmatch(r"[\w.-]+", text):
            return None
        return text if harmless.is_port(text) else self.host(text)

    def _origin(self, text: str) -> str:
        """container:NAME and the like; another word as a network's name."""
        kind, colon, name = text.partition(":")
        if not colon:
            return self._network(text)
        match kind:
            case "container":
                return (
                    f"container:{self._id(name) if _HEX.fullmatch(name) else self._tokens.token(Kind.CONTAINER, name)}"
                )
            case "netns":
                return f"netns:{self._tokens.token(Kind.NAMESPACE, name)}"
            case "service":
                return f"service:{self._tokens.token(Kind.SERVICE, name)}"
            case "pid":
                return text
            case "ns":
                return f"ns:{self.path(name)}"
            case _:
                return self.prose(text)

    # ------ prose

    def prose(self, text: str) -> str:
        """A text in which anything may stand: what is not known in it is replaced."""
        text = self._phrases(text)
        text = _INTRODUCED.sub(lambda found: f"{found[1]} {self._introduced(found[2])}", text)
        return self._atoms(text, self._word)

    def _phrases(self, text: str) -> str:
        """Names of several words, which no word alone is."""
        if " " not in text:
            return text
        for name, token in self._tokens.learnt.items():
            if " " in name and name in text:
                text = text.replace(name, token)
        return text

    def _introduced(self, name: str) -> str:
        bare = name.rstrip(".")
        found = self._tokens.known(bare)
        return name if found is None else found + name[len(bare) :]

    def _atoms(self, text: str, word: Callable[[str], str]) -> str:
        """Word by word; an address in brackets is seen as a whole."""
        parts: list[str] = []
        end = 0
        for found in _ATOM.finditer(text):
            if found.start() < end:
                continue
            parts.append(text[end : found.start()])
            parts.append(self._trimmed(found[0], word))
            end = found.end()
        parts.append(text[end:])
        return "".join(parts)

    def _trimmed(self, atom: str, word: Callable[[str], str]) -> str:
        """Without the punctuation around it."""
        if _IPV6.fullmatch(atom) or "://" in atom:
            return word(atom)
        start = len(atom) - len(atom.lstrip("*?!:")) if not atom.startswith("::") else 0
        core = atom[start:].rstrip(_EDGE)
        if not core or (atom[start:].endswith("::") and ":" in core):
            core = atom[start:]
        return atom[:start] + (word(core) if core else "") + atom[start + len(core) :]

    def _word(self, word: str) -> str:
        """One word of prose, a rule or a command line."""
        if not any(map(str.isalnum, word)) or word == MASK or is_token(word):
            return word
        found = self._tokens.known(word)
        if found is not None and word.lower() not in known.GRAMMAR:
            return found
        if _TIME.fullmatch(word) or (_NUMBER.fullmatch(word) and word.count(".") != 3):
            return word
        return self._of_shape(word)

    def _of_shape(self, word: str) -> str:
        if self._tokens.addresses.is_link(word):
            return self._link(word)
        address = self._of_address(word)
        if address is not None:
            return address
        if url := _URL.fullmatch(word):
            return self._url(url[1], url[2])
        lower, at, higher = word.partition("@")
        if at and lower and "." in higher and not _UNIT.fullmatch(word):
            return f"{self._user(lower)}@{self.host(higher)}"
        if _UNIT.fullmatch(word) and "/" not in word:
            return self._unit(word)
        if re.match(r"[./~]*/|[A-Za-z]:[\\/]", word) or "/" in word or "\\" in word:
            return self._of_path(word)
        return self._of_name(word)

    def _of_path(self, word: str) -> str:
        """A path, perhaps with a line number or another one behind a colon."""
        if re.match(r"[A-Za-z]:[\\/]", word):
            return self.path(word)
        return ":".join(
            self.path(part) if "/" in part or "\\" in part else self._word(part) for part in word.split(":")
        )

    def _of_name(self, word: str) -> str:
        """A word that is a name, a host and port, or a word of netdiag's own."""
        option = _OPTION.fullmatch(word)
        if option is not None and not known.is_known(option[2]):
            return f"{option[1]}{self._tokens.token(Kind.COMMAND, option[2])}"
        if known.is_known(word.rstrip("%$&^~+#*")) and not self._has_met_piece(word):
            return word
        host, colon, port = word.rpartition(":")
        if colon and host and (harmless.is_port(port) or port == "*"):
            return f"{self._word(host)}:{port}"
        if colon:
            return ":".join(self._word(part) if part else "" for part in word.split(":"))
        if _HEX.fullmatch(word) and len(word) in (12, 64):
            return self._id(word)
        if known.is_known_host(word):
            return word
        if known.is_known_interface(word) or known.is_target(word) or self._is_errno(word):
            return word
        if known.rule_name(word)[0]:
            return self._rule_name(word)
        if self._is_host(word):
            return self.host(word)
        if self._tokens.kept(Kind.COMMAND):
            return word
        return self._tokens.token(Kind.COMMAND, word)

    @staticmethod
    def _is_errno(word: str) -> bool:
        return bool(_CODE.fullmatch(word)) and word.startswith(("E", "CAP_", "SO_", "TCP_", "RLIMIT_"))

    @staticmethod
    def _is_host(word: str) -> bool:
        labels = word.rstrip(".").split(".")
        return len(labels) > 1 and all(re.fullmatch(r"[A-Za-z0-9_-]+", one) for one in labels) and labels[-1].isalpha()


def _inet_aton(text: str) -> int | None:
    """The address as inet_aton(3) reads it."""
    parts = text.split(".")
    try:
        numbers = [_number_of(part) for part in parts]
    except ValueError:
        return None
    last = 1 << 8 * (5 - len(numbers))
    if any(number > 255 for number in numbers[:-1]) or numbers[-1] >= last:
        return None
    value = 0
    for number in numbers[:-1]:
        value = value << 8 | number
    return value << 8 * (5 - len(numbers)) | numbers[-1]


def _number_of(part: str) -> int:
    if len(part) > 12:
        raise ValueError(part)
    if part[:2].lower() == "0x":
        return int(part, 16)
    return int(part, 8) if part.startswith("0") and len(part) > 1 else int(part)


def _is_of_release(piece: str) -> bool:
    """A number, or what a distribution writes into the release of its kernels."""
    return not piece or piece.isdigit() or known.is_known(piece) or bool(re.fullmatch(r"rc\d+|v\d+|el\d+|fc\d+", piece))
