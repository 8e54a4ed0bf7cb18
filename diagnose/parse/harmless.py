"""Shapes of text that hold no secret: words, addresses, host:port, paths made of words, module and script names.

Every function returns what may be shown of a text: the text itself, a part of it with *** in the place of the rest,
or *** alone. What is not recognised is a secret.
"""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import ip_address
from itertools import pairwise

from diagnose.model.hidden import MASK


def words(text: str) -> frozenset[str]:
    """The words of a table that is written as one text."""
    return frozenset(text.split())


_LONGEST = 400
"""Characters of an argument that is looked into; a longer one is hidden."""
_PAIRS = (
    "aabcdefghiklmnoprstuvwxyz babcdegijloprstuy cacdefhiklmoprstuy dabcdefghijklmnoprstuy "
    "eabcdefghijklmnopqrstuvwxyz faefilorstuy gacdeghilmnoprstuy hacdeilmoprstuy iabcdefgiklmnoprstuvxz jaeiosu "
    "kabdegilmnoprstuy labcdefgiklmoprstuvy mabcdefgilmnoprstuy nabcdefghijklmnoprstuvwy oabcdefghijklmnoprstuvwxy "
    "pacdefghiklmoprstuy qlu rabcdefgiklmnoprstuvwy sabcdefghiklmnopqrstuvwy tabcdefghiklmnoprstuvwy uabcdefgilmnoprst "
    "vaeio waehilnors xaceilmpsty yabcdefgilmnoprstuw zaeio"
)
"""A letter, and those that follow it in the words of programs, packages and English; random letters break this soon."""
_ODD_WORDS = words(
    "openvpn openjdk uvicorn rabbitmq vsftpd sidekiq vscode xdebug clickhouse influxdb sonarqube pgbouncer httpd"
    " haproxy nextjs nodejs nginx vsphere systemctl x86 k8s k3s i18n h2o log4j logback s3 e2e p12 2to3 x64 3proxy"
    " 7zip a2ps w3m arm64v8 mp3 mp4 win32 win64 base64 sha256 ipv4 ipv6 h264 l10n a11y"
)
"""Words that the rules below would not take for one."""
_SHORT, _LONGEST_WORD, _LONGEST_CAPITALS, _MOST_DIGITS = 5, 16, 6, 5
_CAPITALS = words("README LICENSE CHANGELOG CONTENTS DOCUMENTS APPLICATION PROGRAMS PROGRA")
_HUMPS = r"[A-Z]?[a-z]+|[A-Z][a-z]+"
_PIECE = r"([A-Za-z]+)([0-9]{0,3})|v?[0-9]{1,5}"
_VOWELS = frozenset("aeiouy")
_SEPARATORS = r"[._+-]+"
_CONSONANTS = r"[^aeiouy]{5}|[aeiouy]{5}"
_OPTION_NAME = r"[a-z][a-z0-9]*(?:[.-][a-z0-9]+){0,7}"
_NUMBER = r"-?[0-9]{1,7}(?:\.[0-9]{1,4})?(?:[kKmMgGtT][bB]?|[kKmMgG]i[bB]?|ms|us|s|m|h|d|%)?"
_VERSION = r"v[0-9]{1,3}(?:\.[0-9]{1,3}){0,3}|[0-9]{1,3}(?:\.[0-9]{1,3}){2,3}"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9_-]{0,62})"
_SUFFIXES = words(
    "arpa com cluster de dev edu example fr gov home info internal intern invalid io lan local localdomain"
    " localhost net org private site svc test uk eu ch at nl be it es pl se jp cn au br in us ca corp"
)
"""Last labels by which a dotted text is a host name and no name of a person."""
_FILE = words(
    "bat bash cfg cjs class cmd cnf conf config css csproj dll dylib ear exe fish go hcl html ini jar java js json"
    " jsx kts kt ld lock log lua mjs mts php pid pl pm ps1 properties psgi py pyc pyz rb rs rules ru sbt service sh"
    " sock socket so sql svg target tcl toml ts tsx txt vue war xml yaml yml zsh"
)
"""Extensions by which a relative name is a file's."""
_SCRIPTS = ("Caddyfile", "Procfile", "Rakefile", "Gemfile", "Makefile", "Dockerfile")
_FOLDERS = words(
    "app apps assets bin build config conf data dist doc docs html htdocs lib logs out output public site _site src"
    " static target tmp web webroot www"
)
_SCHEMES = words(
    "amqp amqps dns docker fd file ftp ftps git grpc grpcs h2c http https imap imaps jdbc:mariadb jdbc:mysql"
    " jdbc:oracle jdbc:postgresql jdbc:sqlserver kafka ldap ldaps mariadb mongodb mongodb+srv mqtt mqtts mysql"
    " mysql2 nats npipe oci pgsql postgres postgresql redis rediss rtmp rtsp sftp smb smtp smtps sqlserver ssh ssl"
    " tcp tcp4 tcp6 tls udp unix ws wss"
)
_MODULE = r"_{0,2}[A-Za-z][A-Za-z0-9_]*(?:\.[A-Za-z0-9_]+){0,9}"


# ------ words


@lru_cache(maxsize=1024)
def is_word(text: str) -> bool:
    """Whether these letters, all small, all capital or in CamelCase, with a short number behind, read as words."""
    if text.isascii() and text.isalpha() and text.islower():
        return _is_pronounceable(text)
    if text.lower() in _ODD_WORDS:
        return True
    piece = re.fullmatch(_PIECE, text)
    if piece is None:
        return False
    letters = piece[1]
    if letters is None or letters in _CAPITALS:
        return True
    if len(letters) > 1 and letters.isupper():
        return len(letters) <= _LONGEST_CAPITALS
    humps = re.findall(_HUMPS, letters)
    if "".join(humps) != letters or not 3 * len(humps) <= len(letters) + 2 <= 34:
        return False
    if len(humps) > 1 and any(len(hump) > 2 and _VOWELS.isdisjoint(hump.lower()) for hump in humps):
        return False
    return all(_is_pronounceable(hump.lower()) for hump in humps)


def _is_pronounceable(word: str) -> bool:
    if len(word) <= _SHORT or word in _ODD_WORDS:
        return True
    followers = _followers()
    pairs = pairwise(word)
    return (
        len(word) <= _LONGEST_WORD
        and not re.search(_CONSONANTS, word)
        and all(second in followers[first] for first, second in pairs)
    )


@lru_cache(maxsize=1)
def _followers() -> dict[str, str]:
    return {row[0]: row[1:] for row in _PAIRS.split()}


def is_name(text: str) -> bool:
    """Whether a component of a path is made of words: python3.11, node_modules, app-v2, .bin, libc.so.6."""
    if not text or len(text) > 64:
        return False
    pieces = [piece for piece in re.split(_SEPARATORS, text) if piece]
    if not pieces:
        return text in (".", "..", "_")
    mixed = sum(not piece.isalpha() and not piece.isdigit() for piece in pieces)
    digits = sum(character.isdigit() for character in text)
    return mixed <= 2 and digits <= 2 * _MOST_DIGITS and len(pieces) <= 12 and all(map(is_word, pieces))


def is_option_name(text: str) -> bool:
    """Small words joined by hyphens or dots."""
    return bool(re.fullmatch(_OPTION_NAME, text)) and all(map(is_word, re.split(r"[.-]", text)))


# ------ numbers and addresses


def is_port(text: str) -> bool:
    """A TCP port, or 0 for any."""
    return text.isascii() and text.isdigit() and len(text) <= 5 and int(text) < 65536


def is_number(text: str) -> bool:
    """A number with its unit: 4, 0.5, 512m, 30s."""
    return bool(re.fullmatch(_NUMBER, text))


def is_version(text: str) -> bool:
    """v14.1.0 or 5.6.4."""
    return text[-1:].isdigit() and bool(re.fullmatch(_VERSION, text))


_IN_FULL = ("2001:", "2400:", "2600:", "2606:", "2a00:", "2a01:", "2a02:", "fd00:", "fe80:")


def is_address(text: str) -> bool:
    """An IPv4 or IPv6 address, with a zone or a prefix length; in 8 groups only where the first is a network's."""
    host, slash, length = text.partition("/")
    if slash and not (length.isascii() and length.isdigit() and len(length) <= 3):
        return False
    host, percent, zone = host.partition("%")
    if percent and not is_word(zone):
        return False
    try:
        return ip_address(host).version == 4 or "::" in host or host.startswith(_IN_FULL)
    except ValueError:
        return False


def is_host(text: str, *, single: bool = True) -> bool:
    """An address, localhost, or a host name made of words; `single`: of one label as well."""
    if text in ("localhost", "*", "host.docker.internal") or is_address(text):
        return True
    labels = text.split(".")
    if len(text) > 253 or not all(re.fullmatch(_LABEL, label) and is_name(label) for label in labels):
        return False
    return labels[-1] in _SUFFIXES if len(labels) > 1 else single and not text.isdigit()


def is_endpoint(text: str, *, single: bool = True) -> bool:
    """host:port, [::1]:port, :port, *:port, or such a host alone."""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        return bool(bracket) and is_address(host) and (not rest or (rest[0] == ":" and is_port(rest[1:])))
    host, colon, port = text.rpartition(":")
    if colon and (is_port(port) or port == "*") and (not host or ":" not in host):
        return not host or is_host(host, single=single)
    return is_host(text, single=single)


# ------ paths, files, modules


def path(text: str) -> str:
    """A path with *** in the place of each component that is not made of words."""
    if len(text) > _LONGEST or text.count("/") > 24:
        return MASK
    if "\\" in text and "/" not in text:
        return "\\".join(part if _is_component(part) else MASK for part in text.split("\\"))
    return "/".join(part if _is_component(part) else MASK for part in text.split("/"))


def _is_component(text: str) -> bool:
    return text in ("", ".", "..", "~", MASK) or _is_drive(text) or is_name(text)


def _is_drive(text: str) -> bool:
    return len(text) == 2 and text[0].isalpha() and text[0].isascii() and text[1] == ":"


def is_rooted(text: str) -> bool:
    """Whether it begins as a path only does: /, ./, ../, ~/ or C:\\."""
    return text.startswith(("/", "./", "../", "~/")) or (_is_drive(text[:2]) and text[2:3] == "\\")


def is_file(text: str) -> bool:
    """A relative file, made of words, with an extension that files have."""
    stem, dot, extension = text.rpartition(".")
    known = (dot and stem and extension in _FILE) or text.rpartition("/")[2] in _SCRIPTS
    return bool(known) and MASK not in path(text)


def words_of_files() -> frozenset[str]:
    """Extensions that files have."""
    return _FILE


def is_script(text: str) -> bool:
    """A script, by a relative path made of words."""
    return bool(text) and all(map(is_name, text.split("/")))


def is_folder(text: str) -> bool:
    """A relative folder, made of words; one word alone is one only when folders are often called so."""
    return text in (".", "..") or text.rstrip("/") in _FOLDERS or ("/" in text and is_script(text.rstrip("/")))


def is_module(text: str) -> bool:
    """A module's name: http.server, myproject.wsgi."""
    return bool(re.fullmatch(_MODULE, text)) and is_name(text)


# ------ URLs


def url(text: str) -> str:
    """The scheme, the host and the port of a URL, with *** in the place of what else it has."""
    scheme, separator, rest = text.partition("://")
    if not separator or scheme not in _SCHEMES or not rest:
        return MASK
    if rest.startswith("/"):
        return f"{scheme}://{path(rest)}"
    # a password may hold any of / ? #: what stands before the last @ belongs to the user
    _, at, rest = rest.rpartition("@")
    cut = next((place for place, character in enumerate(rest) if character in "/?#;,"), len(rest))
    authority, behind = rest[:cut], rest[cut:]
    shown = authority if authority != MASK and is_endpoint(authority) else MASK
    return f"{scheme}://{MASK + '@' if at else ''}{shown}{behind if behind in ('', '/') else '/' + MASK}"


# ------ anything


@lru_cache(maxsize=512)
def anything(text: str) -> str:
    """What may be shown of a text of which nothing is known but itself."""
    if not text or len(text) > _LONGEST or not text.isprintable() or not text.isascii():
        return MASK if text else text
    if "://" in text:
        return url(text)
    if is_rooted(text):
        return path(text)
    if is_address(text) or text == "localhost" or is_file(text) or is_version(text):
        return text
    return text if ":" in text and is_endpoint(text, single=False) else MASK
